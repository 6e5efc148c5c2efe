"""The command line as getopt_long reads it: --name value, --name=value, -n value, -nvalue, -abc, names cut short, and
options behind arguments.
"""

from __future__ import annotations

from . import names
from .result import COMMAND_LINE, display, fail


def split(argv: list[str], reader) -> tuple[list, list[str]]:
    """(name, value or None) of each option, and the arguments without a dash."""
    table: names.Table = reader.table
    options: list[tuple[str, str | None]] = []
    rest: list[str] = []
    at = 0
    while at < len(argv):
        word = argv[at]
        at += 1
        if word == "--":
            rest.extend(argv[at:])
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            full = _full_name(table, name)
            argument = table.names[full].argument
            if argument == "required" and not equals:
                if at == len(argv):
                    raise fail(COMMAND_LINE, 0, "--%s: expected a value", full)
                value, equals, at = argv[at], "=", at + 1
            elif argument == "none" and equals:
                raise fail(
                    COMMAND_LINE, 0, "--%s takes no value here; as an ini has it: --set %s=%s", full, full, value
                )
            options.append((full, value if equals else None))
        elif word.startswith("-") and word != "-":
            at = _letters(table, argv, at, options)
        else:
            rest.append(word)
    return options, rest


def _full_name(table: names.Table, name: str) -> str:
    if name in table.names:
        return name
    close = table.with_prefix(name) if name else []
    if len({table.names[full].name for full in close}) == 1:
        return close[0]
    if close:
        raise fail(
            COMMAND_LINE, 0, "--%s is not clear: %s", name, ", ".join("--" + full for full in close[:6])
        )
    near = table.nearest(name)
    raise fail(
        COMMAND_LINE,
        0,
        "uWSGI has no option %s%s",
        display("--" + name),
        "; did you mean --%s?" % near if near else "",
    )


def _letters(table: names.Table, argv: list[str], at: int, options: list) -> int:
    """-abc, whose last may have a value; the index of the next argument."""
    word = argv[at - 1]
    position = 1
    while position < len(word):
        letter = word[position]
        position += 1
        row = table.letters.get(letter)
        if row is None:
            raise fail(COMMAND_LINE, 0, "uWSGI has no option -%s", letter)
        value: str | None = None
        if row.argument != "none":
            if position < len(word):
                value = word[position:]
                position = len(word)
            elif row.argument == "required":
                if at == len(argv):
                    raise fail(COMMAND_LINE, 0, "-%s (--%s): expected a value", letter, row.name)
                value, at = argv[at], at + 1
        options.append((table.letter_name(letter), value))
    return at
