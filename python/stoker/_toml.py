"""Reads stoker.toml and [tool.stoker] of pyproject.toml.

TOML itself is read by the standard library (tomllib; before 3.11, tomli, which is the same code).
Neither says on which line a key stands, and every message of stoker does; so a small scanner goes
over the text once more and notes the line of each key. It runs only on text that the library has
accepted, and therefore need not judge anything: it skips strings, comments and brackets, and what
stands at the beginning of a statement is a table's header or a key.

What is read is handed on as text (name, value or values, file, line): which options there are and
what their values may be is known to the engine alone.
"""

from __future__ import annotations

import os

DEFAULT_FILE = "stoker.toml"
PROJECT_FILE = "pyproject.toml"


class ConfigError(ValueError):
    """The file cannot be used; the message begins with file and line."""


def read(path: str | None) -> list[tuple[str, str | list[str], str, int]]:
    """The settings of a file, or of the file that is found in the current directory, or none."""
    if path is not None:
        return _settings(path, _load(path), _is_project(path))
    if os.path.exists(DEFAULT_FILE):
        return _settings(DEFAULT_FILE, _load(DEFAULT_FILE), False)
    if os.path.exists(PROJECT_FILE):
        text = _load(PROJECT_FILE)
        # A file that never mentions us is not ours to judge, be it broken or not.
        if "stoker" in text:
            return _settings(PROJECT_FILE, text, True)
    return []


def _is_project(path: str) -> bool:
    return os.path.basename(path) == PROJECT_FILE


def _load(path: str) -> str:
    if path.endswith((".ini", ".yaml", ".yml", ".json", ".xml", ".py")):
        raise ConfigError("%s: the configuration is written in TOML" % path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError("%s: %s" % (path, error.strerror)) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("%s:%d: not UTF-8" % (path, line)) from None
    return text.replace("\r\n", "\n")


def _parse(path: str, text: str) -> dict:
    try:
        import tomllib
    except ModuleNotFoundError:
        try:
            import tomli as tomllib  # type: ignore[no-redef]
        except ModuleNotFoundError:
            raise ConfigError(
                "%s: this Python has no reader of TOML; remedy: pip install tomli" % path
            ) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_error(path, text, str(error))) from None
    except RecursionError:
        raise ConfigError("%s: nested too deeply" % path) from None


def _syntax_error(path: str, text: str, message: str) -> str:
    """ "Expected '=' (at line 3, column 5)" with the line in front."""
    import re

    match = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    if not match:
        return "%s: %s" % (path, message)
    line = int(match.group(1)) if match.group(1) else max(1, len(text.splitlines()))
    return "%s:%d: not TOML: %s" % (path, line, message[: match.start()])


def _settings(path, text, project):
    tree = _parse(path, text)
    lines = _Lines(text).keys
    prefix: tuple[str, ...] = ()
    if project:
        tool = tree.get("tool")
        table = tool.get("stoker", {}) if isinstance(tool, dict) else {}
        prefix = ("tool", "stoker")
        if not isinstance(table, dict):
            raise ConfigError("%s:%d: tool.stoker is not a table" % (path, lines.get(prefix, 0)))
        tree = table
    settings: list[tuple[str, str | list[str], str, int]] = []
    for key, value in tree.items():
        line = lines.get(prefix + (key,), 0)
        if key == "env" and isinstance(value, dict):
            for name, item in value.items():
                where = lines.get(prefix + (key, name), line)
                settings.append((key, _variable(path, where, name, item), path, where))
        elif key == "mount" and isinstance(value, dict):
            for name, item in value.items():
                where = lines.get(prefix + (key, name), line)
                settings.append((key, "%s=%s" % (name, _text(path, where, key, item)), path, where))
        elif key in ("route", "header", "program", "cron") and isinstance(value, list):
            for number, item in enumerate(value):
                where = lines.get(prefix + (key, str(number)), line)
                if isinstance(item, dict):
                    settings.append((key, _row(path, where, item), path, where))
                else:
                    settings.append((key, _text(path, where, key, item), path, where))
        elif isinstance(value, dict) or _is_tables(value):
            raise ConfigError(_unknown_table(path, line, key, project))
        elif isinstance(value, list):
            settings.append((key, [_text(path, line, key, item) for item in value], path, line))
        else:
            settings.append((key, _text(path, line, key, value), path, line))
    return settings


def _row(path, line, table, prefix=""):
    """A table as the text of a row: key="value", of a list one for each item."""
    pairs = []
    for key, value in table.items():
        key = prefix + key
        if isinstance(value, dict):
            pairs.append(_row(path, line, value, key + "."))
            continue
        for item in value if isinstance(value, list) else [value]:
            text = _text(path, line, key, item).replace("\\", "\\\\").replace('"', '\\"')
            pairs.append('%s="%s"' % (key, text))
    return " ".join(pairs)


def _is_tables(value):
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _where(path, line):
    return "%s:%d" % (path, line) if line else path


def _unknown_table(path, line, key, project):
    top = "[tool.stoker]" if project else "the top of the file"
    if key in ("tool", "stoker"):
        what = "options stand at %s, outside of tables" % top
    else:
        import difflib

        tables = {"env": "[env]", "mount": "[mount]", "route": "[[route]]", "header": "[[header]]"}
        tables.update({"program": "[[program]]", "cron": "[[cron]]"})
        close = difflib.get_close_matches(key, list(tables), 1)
        near = "did you mean %s? " % tables[close[0]] if close else ""
        what = near + "only [env], [mount], [[route]], [[header]], [[program]] and [[cron]] are tables; "
        what += "options stand at %s" % top
    return "%s: unknown table '%s'; %s" % (_where(path, line), key, what)


def _text(path, line, key, value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if "\0" in value:
            raise ConfigError("%s: %s holds a NUL character" % (_where(path, line), key))
        return value
    if isinstance(value, (int, float)):
        return repr(value)
    kind = "a list in a list" if isinstance(value, list) else "a date or time"
    raise ConfigError("%s: %s is %s; no option takes that" % (_where(path, line), key, kind))


def _variable(path, line, name, value):
    if isinstance(value, (dict, list)):
        raise ConfigError("%s: env.%s is not a single value" % (_where(path, line), name))
    if not name or "=" in name or "\0" in name or " " in name:
        raise ConfigError("%s: env: %r is not a variable's name" % (_where(path, line), name))
    return "%s=%s" % (name, _text(path, line, "env." + name, value))


class _Lines:
    """The line of each key: {("env", "NAME"): 7, ("bind",): 2}, of the first that opens it."""

    def __init__(self, text: str):
        self.text = text
        self.at = 0
        self.line = 1
        self.keys: dict[tuple[str, ...], int] = {}
        self.items: dict[tuple[str, ...], int] = {}
        self._scan()

    def _scan(self) -> None:
        table: tuple[str, ...] = ()
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in " \t\n":
                self._advance(1)
            elif char == "#":
                self._comment()
            elif char == "[":
                many = self.text.startswith("[[", self.at)
                while self._peek() == "[":
                    self._advance(1)
                table = self._key()
                self._note(table)
                if many:  # each item of an array of tables has its number behind the name
                    number = self.items.get(table, 0)
                    self.items[table] = number + 1
                    table += (str(number),)
                    self._note(table)
                self._rest()
            else:
                self._note(table + self._key())
                self._rest()

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _advance(self, count: int) -> None:
        self.line += self.text.count("\n", self.at, self.at + count)
        self.at += count

    def _note(self, key: tuple[str, ...]) -> None:
        for end in range(1, len(key) + 1):
            self.keys.setdefault(key[:end], self.line)

    def _comment(self) -> None:
        end = self.text.find("\n", self.at)
        self._advance((len(self.text) if end < 0 else end) - self.at)

    def _key(self) -> tuple[str, ...]:
        """A dotted key; stands behind it afterwards."""
        parts = []
        while True:
            while self._peek() in (" ", "\t"):
                self._advance(1)
            start = self.at
            char = self._peek()
            if char in ('"', "'"):
                self._string()
                parts.append(_unquote(self.text[start : self.at]))
            else:
                while self._peek() and self._peek() not in " \t\n.=]#":
                    self._advance(1)
                parts.append(self.text[start : self.at])
            while self._peek() in (" ", "\t"):
                self._advance(1)
            if self._peek() != ".":
                return tuple(parts)
            self._advance(1)

    def _string(self) -> None:
        quote = self._peek()
        if self.text.startswith(quote * 3, self.at):
            quote *= 3
        self._advance(len(quote))
        while self.at < len(self.text) and not self.text.startswith(quote, self.at):
            self._advance(2 if quote[0] == '"' and self._peek() == "\\" else 1)
        self._advance(len(quote))
        # Up to two quotes may stand right before the three that close.
        while len(quote) == 3 and self._peek() == quote[0]:
            self._advance(1)

    def _rest(self) -> None:
        """The value, up to the end of the line on which no bracket is open."""
        depth = 0
        while self.at < len(self.text):
            char = self._peek()
            if char in ('"', "'"):
                self._string()
            elif char == "#":
                self._comment()
            elif char == "\n" and depth <= 0:
                return
            else:
                depth += (char in "[{") - (char in "]}")
                self._advance(1)


def _unquote(text: str) -> str:
    """The name in a quoted key; escapes are left as they are, for the line is only a help."""
    return text[1:-1]
