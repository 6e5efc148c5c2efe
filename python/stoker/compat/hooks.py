"""uWSGI's hooks: what a configuration has done at the points of the server's life.

A phase is a list of actions, in uWSGI's order: those of `hook-PHASE`, then the commands of `exec-PHASE`. `asap` is run
before anything is opened; the master runs those of its life when the engine tells of it, a worker the others. An action
that fails ends what it was to precede: the start, the load of the application, or the worker.
"""

from __future__ import annotations

import mmap
import os
import signal
import stat
import subprocess
import sys
from typing import Callable

from .result import ConfigError, Setting, display, fail, where

# In uWSGI's order. The application is loaded between pre-app and post-app, in the process that does so.
PHASES = (
    "asap",
    "pre-jail",
    "in-jail",
    "as-root",
    "as-user",
    "master-start",
    "pre-app",
    "post-app",
    "post-fork",
    "accepting",
    "accepting-once",
    "accepting1",
    "accepting1-once",
    "as-user-atexit",
)
MAX_WORKERS = 1024


class HookError(Exception):
    """An action has failed; the message says which."""


def _two(argument: str) -> tuple[str, str]:
    path, blank, text = argument.partition(" ")
    if not blank:
        raise HookError("expected FILE TEXT")
    return path, text


def _put(path: str, flags: int, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o666)
    try:
        os.write(fd, os.fsencode(text))
    finally:
        os.close(fd)


def _unblocked() -> None:
    """In the child: the master keeps its signals blocked, and reads them."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _exec(command: str) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    code = subprocess.run(["/bin/sh", "-c", command], check=False, preexec_fn=_unblocked).returncode
    if code != 0:
        raise HookError("the command ended with exit code %d" % code if code > 0 else "signal %d ended it" % -code)


def _safeexec(command: str) -> None:
    try:
        _exec(command)
    except (HookError, OSError) as error:
        say("%s: %s" % (display(command), error))


def _putenv(argument: str) -> None:
    name, equals, value = argument.partition("=")
    if not equals or not name:
        raise HookError("expected NAME=VALUE")
    os.environ[name] = value


def _write(argument: str) -> None:
    path, text = _two(argument)
    _put(path, os.O_TRUNC, text)


def _writen(argument: str) -> None:
    path, text = _two(argument)
    _put(path, os.O_TRUNC, text + "\n")


def _append(argument: str) -> None:
    path, text = _two(argument)
    _put(path, os.O_APPEND, text)


def _appendn(argument: str) -> None:
    path, _, text = argument.partition(" ")
    _put(path, os.O_APPEND, text + "\n")


def _writefifo(argument: str) -> None:
    path, text = _two(argument)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (19, 6):  # ENODEV, ENXIO: nobody reads it
            return
        raise
    try:
        os.write(fd, os.fsencode(text))
    finally:
        os.close(fd)


def _chmod(argument: str) -> None:
    path, text = _two(argument)
    if not text.isdigit() or not 0 <= (mode := int(text, 8)) <= 0o7777:
        raise HookError("%s is no mode" % display(text))
    os.chmod(path, mode)


def _chown(argument: str) -> None:
    import grp
    import pwd

    parts = argument.rsplit(" ", 2)
    if len(parts) != 3:
        raise HookError("expected FILE USER GROUP")
    try:
        user = int(parts[1]) if parts[1].isdigit() else pwd.getpwnam(parts[1]).pw_uid
        group = int(parts[2]) if parts[2].isdigit() else grp.getgrnam(parts[2]).gr_gid
    except KeyError as error:
        raise HookError(str(error.args[0])) from None
    os.chown(parts[0], user, group)


def _unix_signal(argument: str) -> None:
    """What the master does with these anyway; anything else has been refused."""


ACTIONS: dict[str, Callable[[str], object]] = {
    "append": _append,
    "appendn": _appendn,
    "cd": os.chdir,
    "chdir": os.chdir,
    "chmod": _chmod,
    "chown": _chown,
    "chown2": _chown,
    "creat": lambda path: _put(path, os.O_TRUNC, ""),
    "create": lambda path: _put(path, os.O_TRUNC, ""),
    "exec": _exec,
    "log": lambda text: say(text),
    "mkdir": os.mkdir,
    "print": lambda text: say(text),
    "putenv": _putenv,
    "safeexec": _safeexec,
    "sticky": lambda path: os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | stat.S_ISVTX),
    "unix_signal": _unix_signal,
    "unlink": os.unlink,
    "write": _write,
    "writefifo": _writefifo,
    "writen": _writen,
}
# unix_signal: what stoker's signals do without being told so.
SIGNALS = ("15 gracefully_kill_them_all", "2 gracefully_kill_them_all", "1 grace_them_all")

_phases: dict[str, list[Hook]] = {}
_say: list[Callable[[str], object]] = []
_once: list[mmap.mmap] = []


class Hook:
    """One action."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        value = setting.value or ""
        if setting.name.startswith("exec-"):
            self.action, self.argument = "exec", value
            return
        self.action, colon, self.argument = value.partition(":")
        if not colon or self.action not in ACTIONS:
            raise fail(
                setting.file, setting.line, "%s: the action %s is not there: %s are", setting.name,
                display(self.action), ", ".join(sorted(ACTIONS)),
            )  # fmt: skip
        if self.action == "unix_signal" and " ".join(self.argument.split()) not in SIGNALS:
            raise fail(setting.file, setting.line, "%s: unix_signal: only %s", setting.name, " and ".join(SIGNALS))

    def run(self) -> None:
        """Does it; HookError."""
        try:
            ACTIONS[self.action](self.argument)
        except (HookError, OSError, ValueError) as error:
            text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            place = where(self.setting.file, self.setting.line)
            raise HookError("%s: %s: %s: %s" % (place, self.setting.name, display(self.argument), text)) from None


def say(text: str) -> None:
    """A line in the log; on standard error as long as there is none."""
    if _say:
        _say[0](text)
    else:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def install(hooks: list[Hook], core) -> bool:
    """Notes them for this process and those that it forks; whether the master has to tell of its life."""
    _phases.clear()
    for legacy in (False, True):
        for hook in hooks:
            if hook.setting.name.startswith("exec-") is legacy:
                _phases.setdefault(hook.setting.name.partition("-")[2], []).append(hook)
    if hooks:
        _once[:] = [mmap.mmap(-1, MAX_WORKERS + 1)]
        run("asap")
        _say[:] = [core._log]
    return bool(hooks)


def has(*phases: str) -> bool:
    """Is there anything to do?"""
    return any(phase in _phases for phase in phases)


def run(phase: str) -> None:
    """All actions of a phase; HookError at the first that fails."""
    for hook in _phases.get(phase, ()):
        hook.run()


def on_event(event: str, number: int, pid: int) -> None:
    """What the engine tells in the master."""
    try:
        if event == "root":
            run("pre-jail")
            run("in-jail")
            if os.geteuid() == 0:
                run("as-root")
        elif event == "start":
            run("as-user")
            run("master-start")
        elif event == "reload":
            _once[0][:] = bytes(MAX_WORKERS + 1)
        elif event == "exit":
            run("as-user-atexit")
    except HookError as error:
        say(str(error))
        if event in ("root", "start"):
            raise SystemExit(1) from None


def enter_worker() -> None:
    """A worker has just been forked."""
    _or_end(("post-fork",))


def start_worker(number: int) -> None:
    """It has its application."""
    phases = ["accepting", "accepting1"]
    if number <= MAX_WORKERS and has("accepting-once", "accepting1-once"):
        if _once[0][number] == 0:
            _once[0][number] = 1
            phases = ["accepting", "accepting-once", "accepting1", "accepting1-once"]
    _or_end(tuple(phase for phase in phases if number == 1 or "1" not in phase))


def _or_end(phases: tuple[str, ...]) -> None:
    try:
        for phase in phases:
            run(phase)
    except HookError as error:
        say(str(error))
        sys.stderr.flush()
        os._exit(1)


__all__ = ["ConfigError", "Hook", "HookError", "has", "install", "on_event", "run"]
