"""Gunicorn's access_log_format in terms of `access-log-format`."""

from __future__ import annotations

import re

# The default of Gunicorn, which is the combined format of every web server.
COMBINED = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
COMMON = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s'

_ATOMS = {
    "h": "{addr}",
    "l": "-",
    "u": "{user}",
    "t": "[{time}]",
    "r": "{request}",
    "m": "{method}",
    "U": "{path}",
    "q": "{query}",
    "H": "{protocol}",
    "s": "{status}",
    "B": "{bytes}",
    "b": "{bytes}",
    "f": "{referer}",
    "a": "{agent}",
    "T": "{time_s}",
    "M": "{time_ms}",
    "D": "{time_us}",
    "L": "{time_s}",
    "p": "<{pid}>",
    "{referer}i": "{referer}",
    "{user-agent}i": "{agent}",
    "{host}i": "{host}",
    "{x-forwarded-for}i": "{addr}",
    "{wsgi.url_scheme}e": "{scheme}",
    "{remote_addr}e": "{addr}",
}

_DIRECTIVE = re.compile(r"%\(([^)]*)\)s|%(.)|([{}])")


def translate(text: str) -> str:
    """The format; ValueError names what has no equivalent."""
    if text == COMBINED:
        return "combined"
    if text == COMMON:
        return "common"

    def replace(match: re.Match) -> str:
        if match.group(3):
            return match.group(3) * 2  # as it is written where braces name fields
        atom = match.group(1)
        if match.group(2) == "%":
            return "%"
        name = None if atom is None else atom.lower() if atom.startswith("{") else atom
        if name not in _ATOMS:
            raise ValueError(
                "%s has no equivalent; the fields of access-log-format are listed in docs/options.md"
                % match.group(0)
            )
        return _ATOMS[name]

    return _DIRECTIVE.sub(replace, text)
