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
    "{wsgi.url_scheme}e": "{scheme}",
    "{remote_addr}e": "{addr}",
}

# A field of the request, by its name or by that of its variable.
_HEADER = re.compile(r"\{(?:([a-z0-9-]+)\}i|http_([a-z0-9_]+)\}e)")
_DIRECTIVE = re.compile(r"%\(([^)]*)\)s|%(.)|([{}])")


def translate(text: str) -> tuple[str, list[str]]:
    """The format, and what has no equivalent and is written as Gunicorn writes what it does not know: as -."""
    unknown: list[str] = []
    if text == COMBINED:
        return "combined", unknown
    if text == COMMON:
        return "common", unknown

    def replace(match: re.Match) -> str:
        if match.group(3):
            return match.group(3) * 2  # as it is written where braces name fields
        atom = match.group(1)
        if match.group(2) == "%":
            return "%"
        name = match.group(0) if atom is None else atom.lower() if atom.startswith("{") else atom
        header = _HEADER.fullmatch(name)
        if name in _ATOMS:
            return _ATOMS[name]
        if header:
            return "{header:%s}" % (header.group(1) or header.group(2).replace("_", "-"))
        unknown.append(match.group(0))
        return "-"

    return _DIRECTIVE.sub(replace, text), unknown
