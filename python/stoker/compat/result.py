"""What reading uWSGI's configuration yields."""

from __future__ import annotations

from dataclasses import dataclass, field

COMMAND_LINE = "command line"


class ConfigError(ValueError):
    """The configuration cannot be used; the message begins with file and line."""


def where(file: str, line: int) -> str:
    """ "app.ini:3", or what there is of it."""
    return "%s:%d" % (file, line) if line else file


def fail(file: str, line: int, text: str, *values: object) -> ConfigError:
    """The error, to be raised by the caller."""
    return ConfigError("%s: %s" % (where(file, line), text % values if values else text))


@dataclass
class Setting:
    """An option as uWSGI acts upon it: the name as written, the value after all expansion.

    The value is None where the option stood on the command line without one (`--master`), and ""
    where a file has the bare name. `file` is also "command line" or "environment UWSGI_X", with line 0.
    """

    name: str
    value: str | None
    file: str
    line: int


@dataclass
class Notice:
    """What works in a way that its author probably did not mean."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return "%s: %s" % (where(self.file, self.line), self.text)


@dataclass
class Result:
    """The configuration as uWSGI sees it.

    `settings` are the options that act, in the order in which uWSGI applies them, custom options
    (declare-option) replaced by what they stand for; those of the language itself (if-env, include,
    set, ...) have acted and are left out. `exported` is all that was said, in the order of --show-config,
    with placeholders and the language: what `uwsgi.opt` holds.
    """

    settings: list[Setting] = field(default_factory=list)
    exported: list[Setting] = field(default_factory=list)
    warnings: list[Notice] = field(default_factory=list)
    magic: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    strict: bool = False
    show_config: bool = False
    output: list[str] = field(default_factory=list)
    exit_code: int | None = None

    def value(self, name: str) -> str | None:
        """The last value of an option, under the name as written; None if it is not there."""
        for setting in reversed(self.settings):
            if setting.name == name:
                return setting.value or ""
        return None


def display(text: str) -> str:
    """A text from outside for a message: in quotes, cut, without control characters."""
    shown = text if len(text) <= 80 else text[:77] + "..."
    return repr(shown.encode("utf-8", "replace").decode())
