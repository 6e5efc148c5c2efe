"""Which options uWSGI has: the one table is options.tsv, beside this file.

kind says what uWSGI makes of a value: `flag` (false, off, no and 0 switch it off, anything else on), `int` (atoi:
what is no number is 0; a negative one is refused), `rawint`
(negative ones too), `int64` and `int16` (strtoul, the latter at most 65535), `megabytes`, `string` (the last
one counts), `list` (all count), `route`, `logic` and `load` (the language itself), `deprecated`, `other`.

fate says what becomes of an option here: `same` (it does what it did), `better` (it is always done, or done in another
way; the note says how), `later` (it is not there yet; refused under strict), `never` (the note says why and what to
use instead).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

FATES = ("same", "better", "later", "never")
ARGUMENTS = ("required", "optional", "none")
COLUMNS = "name short argument kind flags where aliases fate target note".split()

# The name that a letter stands for, where it is another than that of the row.
LETTERS = {"x": "xmlconfig", "H": "home", "s": "socket", "j": "json"}

# The version whose behaviour this is.
VERSION = "2.0.30"


@dataclass(frozen=True)
class Option:
    """A row of the table."""

    name: str
    short: str
    argument: str
    kind: str
    flags: tuple[str, ...]
    where: str
    aliases: tuple[str, ...]
    fate: str
    target: str
    note: str

    @property
    def immediate(self) -> bool:
        """Does it act while it is read?"""
        return "immediate" in self.flags

    @property
    def plugin(self) -> str:
        """core, or the plugin that has it."""
        return self.where.rpartition(":")[2]

    @property
    def default(self) -> bool:
        """Is it in the default build of the released line?"""
        return ":" not in self.where

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,) + self.aliases


class Table:
    """The rows, by name."""

    def __init__(self, rows: list[Option]):
        self.rows = rows
        self.names: dict[str, Option] = {}
        self.letters: dict[str, Option] = {}
        for row in rows:
            for name in row.names:
                self.names[name] = row
            if row.short and (row.default or row.short not in self.letters):
                self.letters[row.short] = row

    def find(self, name: str) -> Option | None:
        """The option of a name or an alias."""
        return self.names.get(name)

    def letter_name(self, letter: str) -> str:
        """The name under which uWSGI notes an option that is given by its letter."""
        return LETTERS.get(letter, self.letters[letter].name)

    def with_prefix(self, prefix: str) -> list[str]:
        """The names that begin so, as getopt_long takes them abbreviated."""
        return [
            name
            for name, row in self.names.items()
            if name.startswith(prefix) and not row.where.startswith("extra:")
        ]

    def nearest(self, name: str) -> str | None:
        """The name that was probably meant by one that does not exist."""
        plain = name.lower().replace("_", "-")
        if plain in self.names:
            return plain
        if len(plain) < 5:
            return None
        import difflib

        names = [known for known, row in self.names.items() if row.default]
        close = difflib.get_close_matches(plain, names, 1, 0.8)
        return close[0] if close else None


_table: Table | None = None


def table() -> Table:
    """The table, read once."""
    global _table
    if _table is None:
        _table = Table(read_rows(os.path.join(os.path.dirname(__file__), "options.tsv")))
    return _table


def read_rows(path: str) -> list[Option]:
    """The rows of the file; ValueError with the line for one that is not well-formed."""
    rows = []
    seen: set[str] = set()
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            cells = ["" if cell == "-" else cell for cell in line.split("\t")]
            if cells == COLUMNS:
                continue
            if len(cells) != len(COLUMNS):
                raise ValueError("%s:%d: %d columns" % (path, number, len(cells)))
            row = Option(
                cells[0],
                cells[1],
                cells[2],
                cells[3],
                tuple(cells[4].split(",")) if cells[4] else (),
                cells[5],
                tuple(cells[6].split(",")) if cells[6] else (),
                cells[7],
                cells[8],
                cells[9],
            )
            if row.argument not in ARGUMENTS or (row.fate and row.fate not in FATES):
                raise ValueError("%s:%d: %s" % (path, number, row.name))
            for name in row.names:
                if name in seen:
                    raise ValueError("%s:%d: %s is there twice" % (path, number, name))
                seen.add(name)
            rows.append(row)
    return rows


def is_on(value: str | None) -> bool:
    """What uWSGI makes of the value of a flag."""
    return value is None or (value.lower() not in ("false", "off", "no") and value != "0")


def number(value: str | None) -> int:
    """What uWSGI makes of the value of a number: atoi."""
    if value is None:
        return 1
    text = value.lstrip(" \t\n\v\f\r")
    end = 1 if text[:1] in ("+", "-") else 0
    start = end
    while end < len(text) and "0" <= text[end] <= "9":
        end += 1
    return int(text[:end]) if end > start else 0
