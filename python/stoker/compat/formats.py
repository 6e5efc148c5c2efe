"""The formats: each reader gets the lines of a file, whose magic variables are replaced, and yields key, value and
line of what stands in one section.

Ini is what uWSGI's own few lines of code make of it, not what other readers of ini files do: there are no comments
behind values, no quotes, no continuation lines; a section may come back, a key may come back. YAML is read by a reader
of the subset that configurations are written in (a mapping of scalars and lists), so that nothing has to be installed;
anything else is refused with its line. JSON and XML are read by the standard library.
"""

from __future__ import annotations

from typing import Iterator

from . import yaml_subset
from .result import ConfigError, Notice, display, fail

Pair = tuple  # (key: str, value: str, line: int)
Lines = "list[tuple[int, str]]"

BLANK = " \t\r"


class Document:
    """What a reader is given, and where it leaves what is worth a warning."""

    def __init__(self, file: str, lines, section: str, asked: bool, notices: list[Notice]):
        self.file = file
        self.lines = lines
        self.section = section
        self.asked = asked  # was the section named, or is it the default one?
        self.notices = notices
        self.mode: str | None = None

    def notice(self, line: int, text: str) -> None:
        self.notices.append(Notice(self.file, line, text))

    def text(self) -> str:
        """The lines as one text; their numbers fit unless a % took an end of line."""
        parts = []
        expected = 1
        for number, line in self.lines:
            parts.append("\n" * (number - expected) + line + "\n")
            expected = number + 1
        return "".join(parts)


def read_ini(doc: Document) -> Iterator[Pair]:
    section = ""
    found = False
    headers: list[tuple[int, str]] = []
    for number, line in doc.lines:
        text = line.strip(BLANK)
        if not text or text[0] in ";#":
            continue
        if text[0] == "[":
            section = text[1:-1]
            headers.append((number, text))
            _ini_header(doc, number, text)
            continue
        key, equals, value = text.partition("=")
        if section != doc.section:
            if not headers:
                doc.notice(
                    number, "%s stands before the first section; uWSGI ignores it" % display(text)
                )
            continue
        found = True
        yield key.rstrip(BLANK), value.lstrip(BLANK) if equals else "", number
    if not found:
        _missing(doc, [text[1:-1] for _, text in headers])


def _ini_header(doc: Document, number: int, text: str) -> None:
    close = text.find("]")
    inner = text[1:close] if close > 0 else text[1:]
    if close == len(text) - 1 and inner.strip() == inner:
        return
    if close < 0:
        why = "there is no closing bracket, so the last character takes its place"
    elif close < len(text) - 1:
        why = "what stands behind the bracket becomes part of the name"
    else:
        why = "spaces are part of the name"
    doc.notice(
        number,
        "to uWSGI this section is called %s: %s; was [%s] meant?"
        % (display(text[1:-1]), why, inner.strip()),
    )


def _missing(doc: Document, sections: list[str]) -> None:
    """uWSGI goes on with nothing, which is never what was meant."""
    there = [section for section in dict.fromkeys(sections) if section]
    if doc.section in sections:
        doc.notice(0, "the section %s is empty" % display(doc.section))
        return
    text = "there is no section %s" % display(doc.section)
    if there:
        text += "; the file has %s" % ", ".join(display(name) for name in there[:8])
        if not doc.asked:
            text += ": name the one that is meant, as in %s:%s" % (doc.file, there[0])
    doc.notice(0, text)


def read_yaml(doc: Document) -> Iterator[Pair]:
    found = False
    for key, value, line, inside in yaml_subset.read(doc):
        found = True
        if inside:
            doc.notice(
                line,
                "%s stands in a mapping of its own; uWSGI takes it as an option by itself"
                % display(key),
            )
        yield key, value, line
    if not found:
        _missing(doc, [])


def read_json(doc: Document) -> Iterator[Pair]:
    import json

    text = doc.text()
    try:
        # A number keeps its spelling, be it 1.50 or 1e3.
        root = json.loads(text, object_pairs_hook=_Pairs, parse_float=str)
    except json.JSONDecodeError as error:
        raise fail(doc.file, error.lineno, "not JSON: %s", error.msg) from None
    except RecursionError:
        raise fail(doc.file, 0, "nested too deeply") from None
    if not isinstance(root, _Pairs):
        raise fail(doc.file, 1, 'expected an object, as {"uwsgi": {"module": "app"}}')
    config = dict(root.items).get(doc.section)
    if not isinstance(config, _Pairs):
        raise fail(doc.file, 1, "there is no object %s", display(doc.section))
    lines = _JsonLines(text)
    for key, value in config.items:
        line = lines.of(key)
        for item in value if isinstance(value, list) else [value]:
            scalar = _json_scalar(doc, key, item, line)
            if scalar is not None:
                yield key, scalar, line


class _Pairs:
    """A JSON object with its keys in order, repeated ones included."""

    def __init__(self, items: list):
        self.items = items


def _json_scalar(doc: Document, key: str, item: object, line: int) -> str | None:
    if isinstance(item, str):
        if "\0" in item:
            raise fail(doc.file, line, "%s holds a NUL character", display(key))
        return item
    if item is True:
        return "1"
    if item is False or item is None:
        return "0"
    if isinstance(item, int):
        return str(item)
    if isinstance(item, float):  # NaN and the like, which JSON has not
        raise fail(doc.file, line, "%s is no value of JSON", display(key))
    doc.notice(line, "%s: uWSGI ignores a value that is an object or a list" % display(key))
    return None


class _JsonLines:
    """The line of a key: of its first appearance as one behind that of the key before."""

    def __init__(self, text: str):
        self.text = text
        self.at = 0

    def of(self, key: str) -> int:
        import json
        import re

        quoted = re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:"
        match = re.compile(quoted).search(self.text, self.at)
        if not match:
            return 0
        self.at = match.end()
        return self.text.count("\n", 0, match.start()) + 1


def read_xml(doc: Document) -> Iterator[Pair]:
    root = _xml_tree(doc)
    block = _xml_block(doc, root)
    for node in block.children:
        mode = node.attributes.get("mode")
        if doc.mode is not None and mode is not None and mode != doc.mode:
            continue
        identity = node.attributes.get("id")
        if doc.asked and identity is not None and identity != doc.section:
            continue
        if node.name == CDATA:
            yield "eval", node.text, node.line
        elif node.name == "app":
            yield from _xml_app(node)
        elif node.empty:
            yield node.name, "1", node.line
        else:
            yield node.name, node.text, node.line
            if node.children:
                doc.notice(
                    node.line,
                    "<%s> holds other elements; uWSGI takes the text before the first"
                    % node.name,
                )


def _xml_app(node) -> Iterator[Pair]:
    """<app mountpoint="/x">module</app>, an old way to write `mount = /x=module`."""
    text = node.text
    if node.children:
        if not text:
            return
        text = node.children[0].text
    if not node.empty:
        if "mountpoint" in node.attributes:
            yield "mount", "%s=%s" % (node.attributes["mountpoint"], text), node.line
        elif "domain" in node.attributes:
            yield "mount", "%s|=%s" % (node.attributes["domain"], text), node.line
        else:
            yield "mount", text, node.line
    yield "app", "", node.line


CDATA = "#cdata"


class _Node:
    def __init__(self, name: str, attributes: dict[str, str], line: int):
        self.name = name
        self.attributes = attributes
        self.line = line
        self.children: list[_Node] = []
        self.text = ""  # before the first child or comment
        self.whole = False  # has one come?
        self.empty = True


def _xml_tree(doc: Document) -> _Node:
    from xml.parsers import expat

    parser = expat.ParserCreate()
    top = _Node("", {}, 0)
    stack = [top]

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > 64:
            raise fail(doc.file, parser.CurrentLineNumber, "nested too deeply")
        node = _Node(name, attributes, parser.CurrentLineNumber)
        stack[-1].children.append(node)
        stack[-1].empty = False
        stack[-1].whole = True
        stack.append(node)

    def text(data: str) -> None:
        if not stack[-1].whole:
            stack[-1].text += data
        stack[-1].empty = False

    def comment(_data: str) -> None:
        stack[-1].whole = True
        stack[-1].empty = False

    def cdata() -> None:
        if stack[-1].name == "uwsgi":
            start(CDATA, {})

    def cdata_end() -> None:
        if stack[-1].name == CDATA:
            stack.pop()

    def entity(*_args: object) -> None:
        raise fail(doc.file, parser.CurrentLineNumber, "entities are not taken")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: stack.pop()
    parser.CharacterDataHandler = text
    parser.CommentHandler = comment
    parser.StartCdataSectionHandler = cdata
    parser.EndCdataSectionHandler = cdata_end
    parser.EntityDeclHandler = entity
    parser.buffer_text = True
    try:
        parser.Parse(doc.text().lstrip("\n"), True)
    except expat.ExpatError as error:
        raise fail(
            doc.file, error.lineno, "not XML: %s", expat.errors.messages[error.code]
        ) from None
    return top.children[0]


def _xml_block(doc: Document, root: _Node) -> _Node:
    if root.name == "uwsgi":
        return root
    for node in root.children:
        if node.name != "uwsgi":
            continue
        identity = node.attributes.get("id")
        if doc.asked and identity is not None and identity != doc.section:
            continue
        return node
    raise fail(doc.file, root.line, "there is no element <uwsgi>")


READERS = {
    "ini": read_ini,
    "yaml": read_yaml,
    "yml": read_yaml,
    "json": read_json,
    "js": read_json,
    "xml": read_xml,
    "xmlconfig": read_xml,
}


def format_of(path: str) -> str | None:
    """The format that the end of a name tells, or None."""
    for ending in ("ini", "xml", "yaml", "yml", "json", "js"):
        if path.endswith("." + ending):
            return ending
    return None


__all__ = ["ConfigError", "Document", "READERS", "format_of"]
