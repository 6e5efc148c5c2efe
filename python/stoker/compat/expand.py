"""The passes over all values once everything is read: $(ENV), then @(file), then %(placeholder).

A replacement is looked at again from its second character on, so that placeholders can be built of placeholders and
values can name values; that makes circles possible, in which uWSGI hangs. Here they are an error.
"""

from __future__ import annotations

from typing import Callable

from .result import ConfigError

MAX_STEPS = 400
MAX_VALUE = 1 << 20


class Endless(ConfigError):
    """A value that grows without end, or comes back to itself."""


def expand(
    value: str,
    symbol: str,
    lookup: Callable[[str], "str | None"],
    store: Callable[[str], None] = lambda value: None,
) -> str:
    """The value with each symbol(key) replaced by lookup(key); what has no value stays as it is.

    store() gets the value after each replacement, because lookup() may come back to it.
    """
    if symbol + "(" not in value:
        return value
    steps = 0
    at = 0
    state = 0  # 0: outside, 1: behind the symbol, 2 and more: inside, counting characters
    depth = 0
    start = 0
    while at < len(value):
        if state == 0:
            at = value.find(symbol, at)
            if at < 0:
                break
        char = value[at]
        if char == symbol:
            state = 1
        elif state == 1:
            state = 2 if char == "(" else 0
            start, depth = at + 1, 0
        elif state > 1:
            if char == "(":
                depth += 1
                state += 1
            elif char == ")" and depth > 0:
                depth -= 1
                state += 1
            elif char == ")":
                replaced = _replace(value, start, at, lookup) if state > 2 else None
                state = 0
                if replaced is not None:
                    value = replaced
                    store(value)
                    at = 0
                    steps += 1
                    if steps > MAX_STEPS or len(value) > MAX_VALUE:
                        raise Endless("a value that contains itself")
            else:
                state += 1
        at += 1
    return value


def _replace(value: str, start: int, end: int, lookup: Callable[[str], "str | None"]):
    found = lookup(value[start:end])
    return None if found is None else value[: start - 2] + found + value[end + 1 :]


def unexpanded(value: str, symbol: str) -> list[str]:
    """The keys of what is still there after a pass."""
    keys = []
    at = value.find(symbol + "(")
    while at >= 0:
        end = value.find(")", at)
        if end < 0:
            break
        keys.append(value[at + 2 : end])
        at = value.find(symbol + "(", end)
    return keys


def placeholder(key: str, value_of: Callable[[str], "str | None"]) -> str | None:
    """The value of %(key): an option or placeholder, or a calculation with them.

    What stands between spaces is taken from left to right: a name or number is appended to what is there,
    or is the right side of the operator before it.
    """
    if " " not in key:
        return value_of(key)
    current: str | None = None
    operator = ""
    for word in key.split(" "):
        if not word:
            continue
        if word in ("+", "-", "*", "/"):
            operator = word
            continue
        if word in ("++", "--"):
            if current is not None:
                current = str(wrap(integer(current) + (1 if word == "++" else -1)))
            operator = ""
            continue
        found = word if _is_number(word) else value_of(word)
        current = _combine(current or "", operator, found or "")
        operator = ""
    return current


def _combine(left: str, operator: str, right: str) -> str:
    if not operator:
        return left + right
    a, b = integer(left), integer(right)
    if operator == "+":
        return str(wrap(a + b))
    if operator == "-":
        return str(wrap(a - b))
    if operator == "*":
        return str(wrap(a * b))
    if b == 0:
        return "0"
    return str(wrap(abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)))


def _is_number(word: str) -> bool:
    return all("0" <= char <= "9" for char in word)


def integer(text: str) -> int:
    """strtoll(): the number that a text begins with, or 0."""
    text = text.lstrip(" \t\n\v\f\r")
    end = 1 if text[:1] in ("+", "-") else 0
    start = end
    while end < len(text) and "0" <= text[end] <= "9":
        end += 1
    if end == start:
        return 0
    if end - start > 20:
        return -(1 << 63) if text[0] == "-" else (1 << 63) - 1
    return max(-(1 << 63), min((1 << 63) - 1, int(text[:end])))


def wrap(number: int) -> int:
    """As 64 bits with a sign overflow."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
