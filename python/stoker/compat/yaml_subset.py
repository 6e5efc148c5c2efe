"""The part of YAML that uWSGI's configurations are written in: mappings of scalars, lists and text blocks.

uWSGI looks at the stream of tokens of libyaml, in a simple way: the section is the block mapping under its name, a
scalar behind a key is that key's value, each item of a list is a value of the list's key, and the keys of a mapping
inside are options by themselves. Scalars are text: nothing becomes a number or a truth value. Anchors, aliases, tags,
merge keys, several documents and mappings in braces are refused rather than guessed at.
"""

from __future__ import annotations

from typing import Iterator

from .result import display, fail

# (indentation, text without it, number)
Line = tuple


class _Reader:
    def __init__(self, doc):
        self.doc = doc
        self.lines: list[Line] = []
        self.at = 0
        self.raw: list[tuple[int, str]] = list(doc.lines)

    def fail(self, number: int, text: str, *values: object):
        return fail(self.doc.file, number, text, *values)


def read(doc) -> Iterator[tuple]:
    """key, value, line, and whether it stands in a mapping below the section's."""
    reader = _Reader(doc)
    number, inside = _find_section(reader)
    if number:
        yield from _mapping(reader, inside, 0)


def _indentation(reader: _Reader, number: int, text: str) -> int:
    count = len(text) - len(text.lstrip(" "))
    if text[count : count + 1] == "\t":
        raise reader.fail(number, "YAML takes no tabs for indentation")
    return count


def _next(reader: _Reader) -> tuple[int, int, str] | None:
    """Number, indentation and text of the next line that says something, which is not yet taken."""
    while reader.at < len(reader.raw):
        number, text = reader.raw[reader.at]
        text = text.rstrip("\r")
        stripped = text.strip(" \t")
        if not stripped or stripped.startswith("#"):
            reader.at += 1
            continue
        return number, _indentation(reader, number, text), stripped
    return None


def _find_section(reader: _Reader) -> tuple[int, int]:
    """Stands behind the section's key afterwards; (its line, indentation of what is in it), or zeros."""
    while True:
        line = _next(reader)
        if line is None:
            return 0, 0
        number, indent, text = line
        reader.at += 1
        if indent > 0 or text in ("---", "...") or text.startswith("%"):
            continue
        key, rest = _split_key(reader, number, text)
        if key != reader.doc.section:
            continue
        if rest:
            raise reader.fail(
                number, "%s is no mapping; expected options below it, indented", display(key)
            )
        line = _next(reader)
        if line is None or line[1] == 0:
            return 0, 0
        return number, line[1]


def _split_key(reader: _Reader, number: int, text: str) -> tuple[str, str]:
    """The key of "key: value", and what follows without its comment."""
    if text[0] in "\"'":
        key, end = _quoted(reader, number, text, 0)
        rest = text[end:].lstrip(" \t")
        if not rest.startswith(":"):
            raise reader.fail(number, "expected a colon behind %s", display(key))
        return key, _comment_off(rest[1:].strip(" \t"))
    if text[0] in "&*!|>%@`{[?":
        raise reader.fail(number, "%s is YAML that no configuration needs here", display(text))
    colon = text.find(": ")
    tab = text.find(":\t")
    if tab >= 0 and (colon < 0 or tab < colon):
        colon = tab
    if colon < 0:
        plain = _comment_off(text)
        if plain.endswith(":"):
            return plain[:-1].rstrip(" \t"), ""
        raise reader.fail(number, "expected key: value, not %s", display(text))
    return text[:colon].rstrip(" \t"), _comment_off(text[colon + 2 :].strip(" \t"))


def _comment_off(text: str) -> str:
    """Without a comment: # at the start or behind a blank, outside of quotes."""
    if text[:1] in ("'", '"'):
        return text  # the reader of quoted scalars minds what is behind
    if text.startswith("#"):
        return ""
    at = 1
    while True:
        at = text.find("#", at)
        if at < 0:
            return text
        if text[at - 1] in " \t":
            return text[:at].rstrip(" \t")
        at += 1


def _mapping(reader: _Reader, indent: int, depth: int) -> Iterator[tuple]:
    if depth > 16:
        raise reader.fail(0, "nested too deeply")
    while True:
        line = _next(reader)
        if line is None or line[1] < indent:
            return
        number, here, text = line
        if here > indent:
            raise reader.fail(number, "this line is indented further than the one above")
        if text.startswith("- ") or text == "-":
            raise reader.fail(number, "an item of a list, where a key was expected")
        if text in ("---", "..."):
            return
        reader.at += 1
        key, rest = _split_key(reader, number, text)
        if key == "<<":
            raise reader.fail(number, "merge keys (<<) are not taken")
        if rest:
            for value in _values(reader, number, rest, indent, not text.endswith(rest)):
                yield key, value, number, depth > 0
            continue
        line = _next(reader)
        if line is None:
            return
        if line[2].startswith("- ") or line[2] == "-":
            if line[1] >= indent:
                yield from _items(reader, key, line[1], depth)
        elif line[1] > indent:
            if _is_key(line[2]):
                yield from _mapping(reader, line[1], depth + 1)
            else:
                yield key, _plain_below(reader, indent), number, depth > 0


def _is_key(text: str) -> bool:
    plain = text if text[:1] in ("'", '"') else _comment_off(text)
    return ": " in plain or ":\t" in plain or plain.endswith(":")


def _plain_below(reader: _Reader, indent: int) -> str:
    """A scalar that begins on the line below its key."""
    parts = []
    while True:
        line = _next(reader)
        if line is None or line[1] <= indent:
            return " ".join(parts)
        reader.at += 1
        text = _comment_off(line[2])
        if text[:1] == "[" or (parts and text[:1] in ("'", '"')):
            raise reader.fail(line[0], "%s below its key: put it on the same line", display(text))
        parts.extend(_values(reader, line[0], text, indent, True))
        if text != line[2]:
            return " ".join(parts)


def _items(reader: _Reader, key: str, indent: int, depth: int) -> Iterator[tuple]:
    """The items of a block list; each is a value of the key."""
    while True:
        line = _next(reader)
        if line is None or line[1] != indent or not (line[2] == "-" or line[2].startswith("- ")):
            return
        number, _, text = line
        reader.at += 1
        rest = _comment_off(text[1:].strip(" \t"))
        if not rest:
            raise reader.fail(number, "an item without a value")
        if rest.startswith(("- ", "[")) or (rest[0] not in "\"'" and _is_key(rest)):
            raise reader.fail(number, "a list or mapping in the list of %s", display(key))
        for value in _values(reader, number, rest, indent, not text.endswith(rest)):
            yield key, value, number, depth > 0


def _values(
    reader: _Reader, number: int, text: str, indent: int, commented: bool = False
) -> list[str]:
    """The values that stand behind a key or a dash: one, or those of a list in brackets."""
    first = text[0]
    if first in "\"'":
        value, end = _quoted(reader, number, text, 0)
        rest = text[end:].strip(" \t")
        if rest and not rest.startswith("#"):
            raise reader.fail(number, "%s behind the closing quote", display(rest))
        return [value]
    if first == "[":
        return _flow(reader, number, text)
    if first in "|>":
        return [_block(reader, number, text, indent)]
    if first in "&*!{@`%":
        raise reader.fail(number, "%s is YAML that no configuration needs here", display(text))
    if text.startswith(("- ", "? ")) or text in ("-", "?"):
        raise reader.fail(number, "%s is YAML that no configuration needs here", display(text))
    _plain(reader, number, text)
    return [text if commented else _folded(reader, text, indent)]


def _plain(reader: _Reader, number: int, text: str) -> None:
    if ": " in text or ":\t" in text or text.endswith(":"):
        raise reader.fail(number, "a colon in %s: put the value in quotes", display(text))


def _folded(reader: _Reader, text: str, indent: int) -> str:
    """A plain scalar, with the lines that go on with it."""
    parts = [text]
    while True:
        line = _next(reader)
        if line is None or line[1] <= indent or _is_key(line[2]) or line[2].startswith("- "):
            return " ".join(parts)
        reader.at += 1
        text = _comment_off(line[2])
        parts.append(text)
        if text != line[2]:
            return " ".join(parts)


ESCAPES = {
    "0": "",
    "a": "\a",
    "b": "\b",
    "t": "\t",
    "n": "\n",
    "v": "\v",
    "f": "\f",
    "r": "\r",
    "e": "\033",
    " ": " ",
    '"': '"',
    "/": "/",
    "\\": "\\",
}


def _quoted(reader: _Reader, number: int, text: str, at: int) -> tuple[str, int]:
    """A quoted scalar that begins at `at`, and where it ends."""
    quote = text[at]
    parts = []
    at += 1
    while at < len(text):
        char = text[at]
        if char == quote:
            if quote == "'" and text[at + 1 : at + 2] == "'":
                parts.append("'")
                at += 2
                continue
            return "".join(parts), at + 1
        if quote == '"' and char == "\\":
            escape = text[at + 1 : at + 2]
            width = {"x": 2, "u": 4, "U": 8}.get(escape, 0)
            if width:
                try:
                    parts.append(chr(int(text[at + 2 : at + 2 + width], 16)))
                except (ValueError, OverflowError):
                    raise reader.fail(number, "a broken escape in a string") from None
            elif escape in ESCAPES and escape != "0":
                parts.append(ESCAPES[escape])
            else:
                raise reader.fail(number, "unknown escape \\%s in a string", escape)
            at += 2 + width
            continue
        parts.append(char)
        at += 1
    raise reader.fail(number, "the quote is not closed on this line")


def _flow(reader: _Reader, number: int, text: str) -> list[str]:
    """A list in brackets, on one line."""
    values = []
    at = 1
    while True:
        while text[at : at + 1] in (" ", "\t"):
            at += 1
        char = text[at : at + 1]
        if not char:
            raise reader.fail(number, "the list is not closed on this line")
        if char == "]":
            rest = text[at + 1 :].strip(" \t")
            if rest and not rest.startswith("#"):
                raise reader.fail(number, "%s behind the list", display(rest))
            return values
        if char == ",":
            at += 1
            continue
        if char in "\"'":
            value, at = _quoted(reader, number, text, at)
        elif char in "[{&*!":
            raise reader.fail(number, "a list or mapping in a list")
        else:
            end = at
            while end < len(text) and text[end] not in ",]":
                end += 1
            value = text[at:end].strip(" \t")
            at = end
        values.append(value)


def _block(reader: _Reader, number: int, text: str, indent: int) -> str:
    """A text block: | keeps the lines, > joins them; - and + say what becomes of the last line's end."""
    style, flags = text[0], text[1:].strip()
    if flags.strip("+-"):
        raise reader.fail(number, "%s is YAML that no configuration needs here", display(text))
    taken: list[str] = []
    inner = None
    while reader.at < len(reader.raw):
        at, raw = reader.raw[reader.at]
        raw = raw.rstrip("\r")
        if raw.strip(" "):
            here = len(raw) - len(raw.lstrip(" "))
            if inner is None and here > indent:
                inner = here
            if inner is None or here < inner:
                break
        if style == ">" and inner is not None and raw[inner : inner + 1] in (" ", "\t"):
            raise reader.fail(at, "a line that is indented further, in text behind >; use |")
        taken.append(raw[inner or 0 :])
        reader.at += 1
    while taken and not taken[-1] and "+" not in flags:
        taken.pop()
    if style == "|":
        value = "\n".join(taken)
    else:
        value = ""
        for i, line in enumerate(taken):
            value += line if not i else ("\n" if not line else ("" if value.endswith("\n") else " ") + line)
    return value if "-" in flags or not taken else value + "\n"
