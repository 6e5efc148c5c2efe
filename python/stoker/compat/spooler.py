"""uWSGI's spooler: tasks that requests leave in a directory, and processes that do them.

`Spool` is what the configuration says; its methods are the functions of the module `uwsgi`. `serve` is the life of one of
the processes: the application has been loaded there, and `uwsgi.spooler` does the tasks. A task is done when that returns
SPOOL_OK; anything else, an exception or the end of the process leaves it to be tried again, not before the next look.
"""

from __future__ import annotations

import faulthandler
import importlib
import mmap
import os
import runpy
import select
import signal
import struct
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import Callable

from . import spool_files

OK, RETRY, IGNORE = -2, -1, 0
FREQUENCY = 30  # seconds
LONGEST_WAIT = 3600  # seconds
MAX_PROCESSES = 128
_SLOT = struct.Struct("q")
FORGOTTEN = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # by what a task forks
FUNCTIONS = "i_am_the_spooler set_spooler_frequency spool spooler_get_task spooler_jobs spooler_pid spooler_pids".split()


@dataclass
class Config:
    """What the configuration says."""

    directories: list[str] = field(default_factory=list)
    external: set[str] = field(default_factory=set)  # those whose tasks others do
    processes: int = 1
    frequency: int = FREQUENCY
    ordered: bool = False
    quiet: bool = False
    max_tasks: int = 0
    harakiri: int = 0
    chdir: str | None = None
    imports: list[str] = field(default_factory=list)

    def served(self) -> list[str]:
        """The directories whose tasks are done here."""
        return [path for path in self.directories if path not in self.external]


class Spool:
    """The functions; one in a server, inherited by all its processes."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.inside: str | None = None  # in a spooler: its directory
        # The frequency, the process of each spooler, and the file of the task that it does.
        self.number = max(len(config.served()) * config.processes, 1)
        self.shared = mmap.mmap(-1, _SLOT.size * (1 + 2 * self.number))
        _SLOT.pack_into(self.shared, 0, max(config.frequency, 0))
        self.directories = [os.path.realpath(path) for path in config.directories]

    # for the module

    def spool(self, *args: object, **kwargs: object) -> bytes:
        """Leaves a task; the path of its file."""
        task = args[0] if args else kwargs
        if not isinstance(task, dict) or (not args and not kwargs):
            raise ValueError("The argument of spooler callable must be a dictionary")
        packed: dict[bytes, bytes] = {}
        for key, value in task.items():
            key = key.encode() if isinstance(key, str) and not args else key
            if not isinstance(key, bytes) or not isinstance(value, bytes):
                raise ValueError("spooler callable dictionary must contains only bytes")
            packed[key] = value
        body = packed.pop(b"body", b"")
        directory = self._directory(packed.get(b"spooler"))
        due = _number(packed, b"at", float)
        priority = _number(packed, b"priority", int)
        try:
            path = spool_files.write(directory, packed, body, due, priority)
        except OSError as error:
            raise ValueError("unable to spool job: %s: %s" % (error.filename or directory, error.strerror)) from error
        return os.fsencode(path)

    def _directory(self, name: bytes | None) -> str:
        if name is None:
            return self.directories[0]
        wanted = os.path.realpath(os.fsdecode(name))
        if wanted not in self.directories:
            raise ValueError("unable to spool job: there is no spooler %s" % os.fsdecode(name))
        return wanted

    def spooler_jobs(self) -> list[bytes]:
        """The paths of all tasks of the first directory (in a spooler: of its own)."""
        return [os.fsencode(one.path) for one in spool_files.entries(self.inside or self.directories[0])]

    def spooler_get_task(self, path: str) -> dict | None:
        """What a task's file has."""
        if not isinstance(path, str):
            raise TypeError("spooler_get_task() argument 1 must be str, not %s" % type(path).__name__)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return _environment(path, spool_files.read(fd))
        except spool_files.Damaged:
            return None
        finally:
            os.close(fd)

    def spooler_pids(self) -> list[int]:
        """The processes."""
        return [pid for pid in self._pids() if pid != 0]

    def spooler_pid(self) -> int:
        """The first process; 0: there is none."""
        return next(iter(self.spooler_pids()), 0)

    def set_spooler_frequency(self, seconds: int) -> bool:
        """How often the directories are looked at, where nothing wakes a spooler."""
        _SLOT.pack_into(self.shared, 0, max(int(seconds), 0))
        return True

    def i_am_the_spooler(self) -> bool | None:
        """True in a spooler, else None."""
        return True if self.inside is not None else None

    # for the processes

    def frequency(self) -> int:
        """In seconds."""
        return _SLOT.unpack_from(self.shared, 0)[0]

    def _pids(self) -> list[int]:
        return [_SLOT.unpack_from(self.shared, _SLOT.size * (1 + slot))[0] for slot in range(self.number)]

    def note_pid(self, slot: int, pid: int) -> None:
        """Which process serves the slot; 0: none."""
        _SLOT.pack_into(self.shared, _SLOT.size * (1 + slot), pid)

    def note_task(self, slot: int, inode: int) -> None:
        """Which file's task the process of the slot does; 0: none."""
        _SLOT.pack_into(self.shared, _SLOT.size * (1 + self.number + slot), inode)

    def task(self, slot: int) -> int:
        """The same."""
        return _SLOT.unpack_from(self.shared, _SLOT.size * (1 + self.number + slot))[0]

    def slots(self) -> list[tuple[int, str]]:
        """Number and directory of each process."""
        served = [os.path.realpath(path) for path in self.config.served()]
        return list(enumerate(path for path in served for _ in range(self.config.processes)))


def _number(task: dict[bytes, bytes], key: bytes, kind: Callable):
    if key not in task:
        return None
    try:
        number = kind(task[key])
    except ValueError:
        raise ValueError("unable to spool job: %s is no number" % key.decode()) from None
    if not 0 <= number < 2**40:
        raise ValueError("unable to spool job: %s is out of range" % key.decode())
    return number


def _environment(name: str, data: bytes) -> dict:
    return {"spooler_task_name": os.fsencode(name), **spool_files.unpack(data)}


class Spooler:
    """One process."""

    def __init__(self, spool: Spool, number: int, directory: str, module, log: Callable[[str], None]) -> None:
        self.spool = spool
        self.number = number
        self.directory = directory
        self.pid = os.getpid()
        self.module = module
        self.log = log
        self.ending = False
        self.done = 0
        self.later: dict[str, float] = {}  # what is not tried before that time (monotonic)
        self.told = False
        # The task at which the process before this one has ended: others come first, or it might end each of them.
        self.fatal = spool.task(number)
        self.kept: set[str] = set()  # done, and their files cannot be removed

    def serve(self) -> None:
        """Until it is told to end, or has done its most."""
        bell = self._open_bell()
        waker, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_end)
        signal.signal(signal.SIGINT, self._on_end)
        for number in (signal.SIGHUP, signal.SIGUSR1):  # they wake; what is executed finds them at their defaults
            signal.signal(number, lambda *_: None)
        # What comes to a child before its handlers are gone waits, and counts.
        os.register_at_fork(
            before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, FORGOTTEN),
            after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, FORGOTTEN),
            after_in_child=_forget_signals,
        )
        os.chdir(self.spool.config.chdir or self.directory)
        poll = select.poll()
        if bell >= 0:
            poll.register(bell, select.POLLIN)
        poll.register(waker, select.POLLIN)
        while not self.ending:
            wait = self._look()
            if self.ending:
                break
            for fd, _ in poll.poll(max(wait, 0) * 1000):
                _drain(fd, 1 if fd == bell else 512)

    def _open_bell(self) -> int:
        """-1: there is none."""
        try:
            return spool_files.open_bell(self.directory)
        except OSError as error:
            self.log("spooler: %s: %s: the directory is looked at once in %d s only" % (
                os.path.join(self.directory, spool_files.BELL), error.strerror, self.spool.frequency() or 1))
            return -1

    def _on_end(self, *_: object) -> None:
        self.ending = True

    def _look(self) -> float:
        """Does what is due; the seconds until something may be again."""
        frequency = self.spool.frequency()
        wait = float(frequency or 1)
        entries = spool_files.entries(self.directory, self.spool.config.ordered)
        names = {one.path for one in entries}
        self.later = {path: when for path, when in self.later.items() if path in names}
        self.kept &= names
        # Once only: behind this the number may be that of another file.
        fatal, self.fatal = self.fatal, 0
        self.spool.note_task(self.number, 0)
        for one in entries:
            if self.ending:
                return 0
            if one.inode == fatal:
                self.later[one.path] = time.monotonic() + max(frequency, 1)
            if one.path in self.kept:
                self._remove(one.path)
                continue
            left = max(one.due - time.time(), self.later.get(one.path, 0) - time.monotonic())
            if left > 0:
                wait = min(wait, left)
            elif not self._try(one):
                self.later[one.path] = time.monotonic() + max(frequency, 1)
                wait = min(wait, max(frequency, 1))
        return min(wait, LONGEST_WAIT)

    def _try(self, entry: spool_files.Entry) -> bool:
        """False: it is there still, and to be tried later."""
        try:
            fd = spool_files.take(entry.path)
        except OSError as error:
            self.log("spooler: %s cannot be read: %s" % (entry.path, error.strerror))
            return False
        if fd is None:
            return True  # another process has it
        try:
            return self._do(entry, fd)
        finally:
            spool_files.release(fd)

    def _do(self, entry: spool_files.Entry, fd: int) -> bool:
        try:
            task = _environment(entry.name, spool_files.read(fd))
        except (spool_files.Damaged, OSError) as error:
            return self._put_aside(entry.path, error)
        function = getattr(self.module, "spooler", None)
        if not callable(function):
            if not self.told:
                self.log("spooler: the application has set no uwsgi.spooler: the tasks of %s wait" % self.directory)
            self.told = True
            return False
        began = time.monotonic()
        self.spool.note_task(self.number, entry.inode)
        result = self._call(function, task, entry.name)
        self.spool.note_task(self.number, 0)
        if result == OK:
            self._remove(entry.path)
        if not self.spool.config.quiet:
            self.log("spooler %s: %s: %s after %d ms" % (
                self.directory, entry.name, "done" if result == OK else "to be tried again",
                (time.monotonic() - began) * 1000))
        self.done += 1
        if 0 < self.spool.config.max_tasks <= self.done:
            self.ending = True
        return result == OK

    def _put_aside(self, path: str, why: Exception) -> bool:
        try:
            aside = spool_files.put_aside(path)
        except FileNotFoundError:
            return True  # another process has done so
        except OSError as error:
            self.log("spooler: %s is no task: %s: it cannot be put aside: %s" % (path, why, error.strerror))
            return False
        self.log("spooler: %s is no task: %s: it is put aside as %s" % (path, why, os.path.basename(aside)))
        return True

    def _remove(self, path: str) -> None:
        """Removes the file of a task that is done. Where that cannot be, the task is not done again, here at least."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # the task has done so
        except OSError as error:
            if path not in self.kept:
                self.log("spooler: %s is done and cannot be removed: %s" % (path, error.strerror))
            self.kept.add(path)
            return
        self.kept.discard(path)

    def _call(self, function: Callable, task: dict, name: str) -> int:
        limit = self.spool.config.harakiri
        guard = None
        if limit > 0:
            guard = threading.Timer(limit, self._kill, (name, limit))
            guard.daemon = True
            guard.start()
            # For code that never lets another thread run.
            faulthandler.dump_traceback_later(limit + 1, exit=True)
        result, code = RETRY, 0
        try:
            result = function(task)
        except BaseException as error:  # whatever the application raises, sys.exit() too: the task is tried again
            code = _exit_code(error)
            if os.getpid() == self.pid or not isinstance(error, SystemExit):
                self.log("spooler: %s: the task has failed\n%s" % (name, traceback.format_exc().rstrip()))
        finally:
            if guard is not None:
                guard.cancel()
                faulthandler.cancel_dump_traceback_later()
        if os.getpid() != self.pid:
            _leave(code)
        return result if isinstance(result, int) else RETRY

    def _kill(self, name: str, limit: int) -> None:
        main = sys._current_frames().get(threading.main_thread().ident or 0)
        stack = "".join(traceback.format_stack(main)).rstrip() if main is not None else ""
        self.log("spooler: %s runs for longer than spooler-harakiri (%d s): its process ends\n%s" % (name, limit, stack))
        os._exit(1)


def _drain(fd: int, most: int) -> None:
    try:
        os.read(fd, most)
    except BlockingIOError:
        pass


def _exit_code(error: BaseException) -> int:
    if not isinstance(error, SystemExit):
        return 1
    return error.code if isinstance(error.code, int) else 0 if error.code is None else 1


def _leave(code: int) -> None:
    """Ends a process that a task has forked and that has come back from it: it is no spooler."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # the application's own, or closed
    os._exit(code & 0xFF)


def _forget_signals() -> None:
    """In a process that a task has forked: a signal ends it, as it ends any other."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in FORGOTTEN:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORGOTTEN)


def serve(spool: Spool, number: int, module, log: Callable[[str], None]) -> None:
    """The life of one process; the application is loaded."""
    directory = dict(spool.slots())[number]
    spool.inside = directory
    spool.note_pid(number, os.getpid())
    try:
        for name in spool.config.imports:
            _import(name)
        Spooler(spool, number, directory, module, log).serve()
    finally:
        spool.note_pid(number, 0)


def _import(name: str) -> None:
    if name.endswith(".py") or "/" in name:
        runpy.run_path(name, run_name="uwsgi_spooler_import")
    else:
        importlib.import_module(name)
