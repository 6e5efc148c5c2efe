"""uWSGI's spooler: `spooler` and its options, as what spooler.py does and as programs that the master keeps running."""

from __future__ import annotations

import os
from typing import Callable

from . import names, spooler
from .result import Setting, fail

Say = Callable[[Setting, str], None]

# The kind of task that a process of a spooler has in the master's list, with its number behind.
TASK = "spooler:"


class Spoolers:
    """What the settings of one configuration come to."""

    def __init__(self) -> None:
        self.config = spooler.Config()
        self.first: Setting | None = None
        self.touch: list[str] = []

    def note(self, name: str, setting: Setting) -> None:
        """Takes one up."""
        value = setting.value or ""
        config = self.config
        if name in ("spooler", "spooler-external"):
            if not value:
                raise fail(setting.file, setting.line, "%s: expected a directory", name)
            path = os.path.abspath(value)
            if path not in config.directories:
                config.directories.append(path)
            if name == "spooler-external":
                config.external.add(path)
            self.first = self.first or setting
        elif name == "spooler-processes":
            number = names.number(value)
            if not 1 <= number <= spooler.MAX_PROCESSES:
                raise fail(setting.file, setting.line, "%s: expected 1 to %d", name, spooler.MAX_PROCESSES)
            config.processes = number
        elif name in ("spooler-frequency", "spooler-harakiri", "spooler-max-tasks"):
            setattr(config, name[8:].replace("-", "_"), max(names.number(value), 0))
        elif name in ("spooler-ordered", "spooler-quiet"):
            setattr(config, name[8:], names.is_on(setting.value))
        elif name == "spooler-chdir":
            config.chdir = os.path.abspath(value)
        elif name == "spooler-import":
            config.imports.append(value)
        elif name == "touch-spoolers-reload":
            self.touch.append(value)

    def settings(self, say: Say) -> list[tuple]:
        """A program for each process."""
        if self.first is None:
            return []
        rows = []
        served = self.config.served()
        for path in served:
            try:
                os.makedirs(path, exist_ok=True)
            except OSError as error:
                raise fail(self.first.file, self.first.line, "spooler: %s cannot be made: %s", path, error.strerror) from None
        for number in range(len(served) * self.config.processes):
            row = "name='spooler %d' task='%s%d' reload=restart" % (number + 1, TASK, number)
            rows.append(row + "".join(" touch='%s'" % path.replace("'", "") for path in self.touch))
        return [("program", rows, self.first.file, self.first.line)]
