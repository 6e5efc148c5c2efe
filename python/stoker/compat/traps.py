"""What uWSGI takes in a way that its author probably did not mean: same value, and a warning."""

from __future__ import annotations

import re

from . import expand, logic
from .result import display

# Values that are commands, formats or expressions of their own, in which ; and # mean something.
FREE = re.compile(
    r"^(?:hook-|exec-|call-|as-user|log-?format|logformat|req-log|log-encoder|log-req-encoder|route|final-route|"
    r"error-route|response-route|attach-daemon|smart-attach|legion|cron|alarm|declare-option|print|iprint|mount-|"
    r"umount-|unique-cron|eval|if-|for|set|env$|add-header|file-write|lua|symcall|worker-exec)"
)
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*$")
NUMBERS = ("int", "rawint", "int64", "int16", "megabytes")
NUMBER = re.compile(r"\s*[+-]?[0-9]+\s*([;#]|$)")
UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "k": 1 << 10, "kb": 1 << 10, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30}
COMMENT = re.compile(r"\s([;#])(?=\s|$|[^\s;#])")


def look(reader) -> None:
    """Adds the warnings about the values that came out."""
    used = reader.placeholders
    harmless: dict[str, list[int]] = {}  # comments without effect: the lines by file
    for item in reader.items:
        value = item.value
        if item.option is None:
            if item.key not in reader.custom and item.key not in logic.ENDS:
                _unknown(reader, item, used)
        elif value is not None:
            if COMMENT.search(value):
                if _comment(reader, item, value):
                    harmless.setdefault(item.file, []).append(item.line)
            elif item.option.kind in NUMBERS:
                _number(reader, item, value)
            _quotes(reader, item, value)
            if value == "" and item.option.argument == "required" and item.option.kind != "logic":
                reader.notice(
                    item.file,
                    item.line,
                    "%s needs a value; uWSGI takes the empty text%s"
                    % (item.key, ", which is 0" if "int" in item.option.kind else ""),
                )
        if value:
            _left(reader, item, value)
    for file, lines in harmless.items():
        _harmless(reader, file, list(dict.fromkeys(lines)))


def _harmless(reader, file: str, lines: list) -> None:
    shown = ", ".join(str(line) for line in lines[:12]) + (", ..." if len(lines) > 12 else "")
    reader.notice(
        file,
        lines[0],
        "there are no comments behind values: to uWSGI they are part of the value, which a number and a flag "
        "survive and nothing else does; put them on lines of their own (line%s %s)"
        % ("s" if len(lines) > 1 else "", shown),
    )


def _unknown(reader, item, used: set) -> None:
    if item.key in used:
        return
    near = reader.table.nearest(item.key)
    if near:
        reader.notice(
            item.file,
            item.line,
            "there is no option %s, so this is a placeholder without effect; did you mean %s?"
            % (display(item.key), near),
        )


def _comment(reader, item, value: str) -> bool:
    """Is there a comment behind the value that changes nothing? One that does is warned of here."""
    match = COMMENT.search(value)
    if not match or FREE.match(item.key):
        return False
    kind = item.option.kind
    meant = value[: match.start()].rstrip()
    if kind in NUMBERS:
        if meant == str(expand.integer(value)):
            return True
        then = "uWSGI reads %d" % expand.integer(value)
    elif kind == "flag":
        if meant.lower() not in ("false", "off", "no", "0"):
            return True
        then = "uWSGI reads it as true, although %s stands before it" % meant
    else:
        then = "the value is %s" % display(value)
    reader.notice(
        item.file,
        item.line,
        "%s: there are no comments behind values: %s; %s was meant? Put the comment on a line of its own"
        % (item.key, then, display(meant)),
    )
    return False


def _number(reader, item, value: str) -> None:
    """What uWSGI reads the beginning of."""
    if value == "" or NUMBER.match(value) or any(expand.unexpanded(value, symbol) for symbol in "$@%"):
        return
    number = expand.integer(value)
    word = value.lower().lstrip(" +-0123456789").strip()
    # A size in megabytes has its unit in the name of the option.
    factor = UNITS.get(word) if item.option.kind != "megabytes" else None
    meant = "; %d was meant?" % (number * factor) if number and factor and factor > 1 else ""
    reader.notice(
        item.file,
        item.line,
        "%s: %s is no number: uWSGI reads %d%s" % (item.key, display(value), number, meant),
    )


def _quotes(reader, item, value: str) -> None:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        if value.count(value[0]) == 2 and (item.key == "env" or not FREE.match(item.key)):
            reader.notice(
                item.file,
                item.line,
                "%s: the quotes are part of the value %s; leave them away" % (item.key, display(value)),
            )


def _left(reader, item, value: str) -> None:
    """What looks like something to be expanded, and was not."""
    option = item.option
    language = option is not None and option.kind in ("logic", "load") and not item.key.startswith("set")
    free = option is not None and not language and not item.inherited and FREE.match(item.key)
    for symbol in "$" if free else "$@%":
        for key in expand.unexpanded(value, symbol):
            # $(date) in a command is the shell's.
            if not key or (free and not VARIABLE.match(key)):
                continue
            shown = "%s(%s)" % (symbol, key)
            reader.notice(item.file, item.line, _why(reader, item, symbol, key, shown))
            break


def _why(reader, item, symbol: str, key: str, shown: str) -> str:
    what = "%s: %s stays as it is: " % (item.key, display(shown))
    if item.inherited:
        return what + "uWSGI expands nothing in a file that is inherited; use include or ini"
    if item.option is not None and item.option.immediate:
        return what + "%s acts while it is read, before values are expanded" % item.key
    if item.done and item.option is None:
        return what + "set-placeholder expands nothing; %s = value does" % item.key
    if symbol == "$":
        return what + "the variable %s is not set" % display(key)
    if symbol == "%" and key == "_":
        return what + "there is a %(_) only in a loop or a condition that has a value"
    return what + "there is no %s" % display(key)
