"""Gunicorn's settings: what there is, in what form, and what becomes of it (gunicorn.tsv)."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass

FATES = {
    "same": "does what it does in Gunicorn",
    "better": "accepted; stoker does that always, or in another way",
    "later": "not there yet",
    "never": "will not come",
}


@dataclass(frozen=True)
class Setting:
    """A row of the table. `target` is an option of stoker, "@function", "hook" or ""."""

    name: str
    flags: tuple[str, ...]
    kind: str
    default: object
    fate: str
    target: str
    note: str

    def parse(self, value: object) -> object:
        """A value of the command line or of a file in the type of this setting; ValueError."""
        if self.kind == "hook" or not self.is_there:
            return value
        if value is None:
            if self.kind == "int":
                raise ValueError("expected a number, not None")
            return None if self.kind == "str" else self.default
        return _PARSERS[self.kind](value)

    @property
    def is_there(self) -> bool:
        """Does a value do something?"""
        return self.fate not in ("later", "never") or self.target.startswith("@")


def _parse_text(value: object) -> str:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value).strip()
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    if isinstance(value, type):
        return "%s.%s" % (value.__module__, value.__qualname__)
    raise ValueError("expected a text, not %r" % (value,))


def _parse_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("expected a number, not %r" % (value,))
    if isinstance(value, str):
        text = value.strip()
        octal = len(text) > 1 and text[0] == "0" and text.isdigit()
        try:
            value = int(text, 8 if octal else 0)
        except ValueError:
            raise ValueError("expected a number, not %r" % text) from None
    if value < 0:
        raise ValueError("expected a number of at least 0, not %d" % value)
    return value


def _parse_switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else None
    if word not in ("true", "false"):
        raise ValueError("expected True or False, not %r" % (value,))
    return word == "true"


def _parse_list(value: object) -> list[str]:
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
        return [one.strip() for one in value]
    raise ValueError("expected a list of texts, not %r" % (value,))


def _parse_dict(value: object) -> dict:
    if not isinstance(value, dict):
        raise ValueError("expected a dict, not %r" % (value,))
    return value


_PARSERS = {
    "str": _parse_text,
    "int": _parse_number,
    "flag": _parse_switch,
    "off": _parse_switch,
    "list": _parse_list,
    "dict": _parse_dict,
}


def _default(kind: str, text: str) -> object:
    if text == "None":
        return None
    if kind in ("int", "flag", "off", "list", "dict") or text == "''":
        return ast.literal_eval(text)
    return text


def table() -> dict[str, Setting]:
    """All settings, by name, in the order of the file."""
    path = os.path.join(os.path.dirname(__file__), "gunicorn.tsv")
    rows: dict[str, Setting] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith(("#", "name\t")) or not line.strip():
                continue
            name, flags, kind, default, fate, target, note = line.rstrip("\n").split("\t")
            rows[name] = Setting(
                name,
                () if flags == "-" else tuple(flags.split(",")),
                kind,
                _default(kind, default),
                fate,
                "" if target == "-" else target,
                "" if note == "-" else note,
            )
    return rows
