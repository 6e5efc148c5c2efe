"""uWSGI's spooler: `spooler` and its options, as what spooler.py does and as programs that the master keeps running."""

from __future__ import annotations

import grp
import os
import pwd

from . import names, spooler
from .result import Setting, fail

# The kind of task that a process of a spooler has in the master's list, with its number behind.
TASK = "spooler:"


def _owner(user: str, group: str) -> tuple[int, int]:
    """The numbers of what the server becomes; -1: it stays as it is. KeyError: nobody is called that."""
    uid, gid = -1, -1
    if user:
        entry = None if user.isdigit() else pwd.getpwnam(user)
        try:
            entry = entry or pwd.getpwuid(int(user))
        except KeyError:
            pass  # a number without an entry
        uid, gid = (entry.pw_uid, entry.pw_gid) if entry is not None else (int(user), -1)
    if group:
        gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    return uid, gid


def _make(path: str, user: str, group: str) -> None:
    """Makes a directory that is not there; root makes it for the user that the server becomes. OSError."""
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    within = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        name = os.path.basename(path)
        try:
            os.mkdir(name, dir_fd=within)
        except FileExistsError:
            if os.path.isdir(path):
                return
            raise
        if os.geteuid() != 0 or not (user or group):
            return
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
        try:
            os.fchown(made, *_owner(user, group))
        except KeyError:
            pass  # the server does not start with it
        finally:
            os.close(made)
    finally:
        os.close(within)


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

    def settings(self, user: str, group: str) -> list[tuple]:
        """A program for each process; `user` and `group`: what the server becomes, or ""."""
        if self.first is None:
            return []
        rows = []
        served = self.config.served()
        for path in served:
            try:
                _make(path, user, group)
            except OSError as error:
                raise fail(self.first.file, self.first.line, "spooler: %s cannot be made: %s", path, error.strerror) from None
        for number in range(len(served) * self.config.processes):
            row = "name='spooler %d' task='%s%d' reload=restart" % (number + 1, TASK, number)
            rows.append(row + "".join(" touch='%s'" % path.replace("'", "") for path in self.touch))
        return [("program", rows, self.first.file, self.first.line)]
