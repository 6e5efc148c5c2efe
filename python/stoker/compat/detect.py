"""Is this a command line of uWSGI's? docs/moving-from-uwsgi.md states the rule.

1. The program is called uwsgi.
2. An argument names a configuration file in one of uWSGI's formats: --ini, --yaml, --yml, --json, --js, --xml,
   --xmlconfig, -x, -y, -j, --config or -c with a name that ends as one does, or such an argument without a dash.
3. There is an option that uWSGI has and stoker has not, and none that stoker has and uWSGI has not.
4. Nothing is given but (at most) --check, there is no stoker.toml, and a variable names a configuration
   (UWSGI_INI, UWSGI_YAML, UWSGI_YML, UWSGI_JSON, UWSGI_JS, UWSGI_XML, UWSGI_CONFIG).

With a file (2), options that only stoker has stand beside it and count above all that it says.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from . import names

FILES = frozenset("ini yaml yml json js xml xmlconfig".split())
ENDINGS = (".ini", ".yaml", ".yml", ".json", ".js", ".xml")
VARIABLES = tuple("UWSGI_" + name.upper() for name in sorted(FILES - {"xmlconfig"})) + (
    "UWSGI_CONFIG",
)
# Options that say nothing about whose the command line is, and are stoker's in any case.
BESIDE = frozenset(("check", "help", "version", "h"))


@dataclass
class Split:
    """A command line, taken apart: whose option is which."""

    uwsgi: list[str] = field(default_factory=list)  # what uWSGI's parser gets
    own: list[str] = field(default_factory=list)  # options that only stoker has, with their values
    only_uwsgi: bool = False  # is there an option that only uWSGI has?
    only_own: bool = False
    file: bool = False


def command_line(
    argv: list[str], program: str, environ, own: dict[str, bool], directory: str = "."
) -> Split | None:
    """The parts of uWSGI's command line, or None where it is stoker's."""
    split = take_apart(argv, own)
    if os.path.basename(program) in ("uwsgi", "uwsgi-core") or split.file:
        return split
    if split.only_uwsgi and not split.only_own:
        return split
    if not split.uwsgi and not split.only_own and _from_environ(environ, directory):
        return split
    return None


def _from_environ(environ, directory: str) -> bool:
    return any(environ.get(variable) for variable in VARIABLES) and not os.path.exists(
        os.path.join(directory, "stoker.toml")
    )


def take_apart(argv: list[str], own: dict[str, bool]) -> Split:
    """Whose option is which; where both have it, it is uWSGI's."""
    split = Split()
    table = names.table()
    at = 0
    while at < len(argv):
        word = argv[at]
        at += 1
        if word.startswith("-c") or word.partition("=")[0] == "--config":
            at = _config(split, argv, at)
        elif word == "--":
            split.uwsgi.extend(argv[at - 1 :])
            break
        elif word.startswith("--"):
            at = _long(split, table, argv, at, own)
        elif word.startswith("-") and word != "-":
            at = _short(split, table, argv, at, own)
        else:
            if word.endswith(ENDINGS) or _with_section(word):
                split.file = True
            split.uwsgi.append(word)
    return split


def _config(split: Split, argv: list[str], at: int) -> int:
    """--config FILE is of both: the file's name says whose. (-c is cgi-mode to uWSGI, of which Python knows nothing.)"""
    word = argv[at - 1]
    taken = [word]
    if word.startswith("--"):
        name = word.partition("=")[2]
    else:
        name = word[2:].lstrip("=")
    if word in ("-c", "--config"):
        taken = argv[at - 1 : at + 1]
        name = taken[-1]
        at += 1
    if name.endswith(ENDINGS):
        split.file = True
        split.uwsgi.extend(["--config", name])
    else:
        split.only_own = True
        split.own.extend(taken)
    return at


def _with_section(word: str) -> bool:
    return word.partition(":")[0].endswith(ENDINGS)


def _long(split: Split, table: names.Table, argv: list[str], at: int, own: dict[str, bool]) -> int:
    word = argv[at - 1]
    name, equals, _ = word[2:].partition("=")
    theirs = table.find(name)
    plain = name.replace("_", "-")
    mine = own.get(plain, own.get(plain[3:]) if plain.startswith("no-") else None)
    if name in FILES:
        split.file = True
    if theirs and name not in BESIDE:
        split.only_uwsgi |= mine is None
        split.uwsgi.append(word)
        if theirs.argument == "required" and not equals and at < len(argv):
            split.uwsgi.append(argv[at])
            at += 1
        return at
    if mine is None:
        split.uwsgi.append(word)  # nobody's: whoever reads it complains
        return at
    split.only_own |= plain not in BESIDE
    split.own.append(word)
    if mine and not equals and at < len(argv):
        split.own.append(argv[at])
        at += 1
    return at


def _short(split: Split, table: names.Table, argv: list[str], at: int, own: dict[str, bool]) -> int:
    """Letters mean uWSGI's options, but for those that it has not (-V, -e)."""
    word = argv[at - 1]
    row = table.letters.get(word[1])
    if (row is None or word[1] in BESIDE) and word[1] in own:
        split.only_own |= word[1] not in BESIDE
        split.own.append(word)
        if own[word[1]] and len(word) == 2 and at < len(argv):
            split.own.append(argv[at])
            at += 1
        return at
    split.uwsgi.append(word)
    for position, letter in enumerate(word[1:], 2):
        row = table.letters.get(letter)
        if row is None:
            return at
        if row.name in FILES or letter == "x":
            split.file = True
        split.only_uwsgi |= letter not in own
        if row.argument == "none":
            continue
        if row.argument == "required" and position == len(word) and at < len(argv):
            split.uwsgi.append(argv[at])
            at += 1
        return at
    return at
