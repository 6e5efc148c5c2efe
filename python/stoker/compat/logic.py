"""Conditions and loops. A block has one of them, and it is asked anew for each option inside: `for` yields the option
once a turn, a condition lets it through or not. %(_) in a value is what the condition or the turn is about.
"""

from __future__ import annotations

import os
import re
from typing import Callable

from .result import ConfigError, display

MAX_TURNS = 20000
MAX_LINES_FILE = 1 << 20

# (in which the name stands) -> what %(_) becomes: one entry for each time the option is added; None leaves %(_).
Turns = "list[str | None]"

ENDS = frozenset(("end", "endfor", "endif", "end-if", "end-for"))

# The plugins that count as loaded: those of uWSGI's default build whose work stoker does.
LOADED = frozenset(
    "python http gevent ping logfile syslog rsyslog logsocket router_redirect router_rewrite "
    "router_static router_http router_uwsgi router_hash router_expires router_metrics router_basicauth "
    "cheaper_busyness symcall transformation_gzip transformation_chunked".split()
)


class Context:
    """What conditions look at."""

    def __init__(self, environ, hostname: str, value_of: Callable[[str], "str | None"], reload: bool):
        self.environ = environ
        self.hostname = hostname
        self.value_of = value_of
        self.reload = reload
        self.plugins = set(LOADED)


class Block:
    """An open condition or loop."""

    def __init__(self, name: str, argument: str, file: str, line: int):
        self.name = name
        self.argument = argument
        self.file = file
        self.line = line
        self.used = False

    def turns(self, context: Context) -> list:
        """How often an option inside is added, and with what for %(_)."""
        self.used = True
        if self.name in LOOPS:
            return LOOPS[self.name](self.argument)
        negated = self.name.startswith("if-not-")
        word = self.name[7:] if negated else self.name[3:] if self.name[2] == "-" else self.name[2:]
        holds, about = CONDITIONS[word](context, self.argument, negated)
        return [about] if holds != negated else []


def _words(argument: str) -> list:
    return [word for word in argument.split(" ") if word]


def _glob(pattern: str) -> list:
    import glob

    # In glob(3) [^a] is the same as [!a]; ** is two stars, and a directory gets a slash.
    found = glob.iglob(pattern.replace("[^", "[!"))
    names = []
    for name in found:
        names.append(name + "/" if os.path.isdir(name) and not name.endswith("/") else name)
        if len(names) > MAX_TURNS:
            raise ConfigError("for-glob = %s: more than %d files" % (display(pattern), MAX_TURNS))
    return sorted(names, key=os.fsencode) or [pattern]


def _times(argument: str) -> list:
    from .names import number

    count = number(argument)
    if count > MAX_TURNS:
        raise ConfigError("for-times = %s: at most %d" % (display(argument), MAX_TURNS))
    return [str(turn) for turn in range(1, count + 1)]


def _readline(path: str) -> list:
    """The lines of a file; one of 1023 bytes or more is several, as with fgets() and a buffer of 1024."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_LINES_FILE + 1)
    except OSError as error:
        raise ConfigError("for-readline: cannot read %s: %s" % (display(path), error.strerror)) from None
    if len(data) > MAX_LINES_FILE or b"\0" in data:
        raise ConfigError("for-readline: %s is not a list of lines" % display(path))
    turns = []
    for line in data.split(b"\n"):
        for at in range(0, max(1, len(line)), 1023):
            turns.append(os.fsdecode(line[at : at + 1023].rstrip(b"\r")))
    if data.endswith(b"\n") or not data:
        turns.pop()
    if len(turns) > MAX_TURNS:
        raise ConfigError("for-readline: %s has more than %d lines" % (display(path), MAX_TURNS))
    return turns


LOOPS: dict[str, Callable[[str], list]] = {
    "for": _words,
    "for-glob": _glob,
    "for-times": _times,
    "for-readline": _readline,
}


def _against(argument: str, value_of: Callable[[str], "str | None"]):
    """NAME or NAME=value."""
    name, equals, wanted = argument.partition("=")
    value = value_of(name)
    return value is not None and (not equals or value == wanted), value


def _if_env(context: Context, argument: str, _negated: bool):
    return _against(argument, context.environ.get)


def _if_opt(context: Context, argument: str, _negated: bool):
    return _against(argument, context.value_of)


def _if_hostname_match(context: Context, argument: str, _negated: bool):
    try:
        return re.search(argument, context.hostname) is not None, argument
    except re.error as error:
        raise ConfigError("%s is no regular expression: %s" % (display(argument), error)) from None


def _path(test: Callable[[str], bool]):
    return lambda context, argument, negated: (test(argument), argument)


def _if_reload(context: Context, _argument: str, _negated: bool):
    return context.reload, None


CONDITIONS: dict[str, Callable] = {
    "env": _if_env,
    "opt": _if_opt,
    "exists": _path(lambda path: os.access(path, os.R_OK)),
    "file": _path(os.path.isfile),
    "dir": _path(os.path.isdir),
    "directory": _path(os.path.isdir),
    "hostname": lambda context, argument, negated: (argument == context.hostname, argument),
    "hostname-match": _if_hostname_match,
    "plugin": lambda context, argument, negated: (argument in context.plugins, argument),
    "reload": _if_reload,
}


def opens(name: str) -> bool:
    """Does this option open a block?"""
    if name in LOOPS:
        return True
    if not name.startswith("if"):
        return False
    word = name[7:] if name.startswith("if-not-") else name[3:] if name[2:3] == "-" else name[2:]
    return word in CONDITIONS


def substitute(value: str | None, about: str | None) -> str | None:
    """%(_) replaced."""
    if value is None or about is None:
        return value
    return value.replace("%(_)", about)
