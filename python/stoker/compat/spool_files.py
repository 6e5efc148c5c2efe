"""The files of uWSGI's spooler: one task each, in a directory that several servers may share, uWSGI's own among them.

A file has uWSGI's form: the header of a packet (modifier 17), its variables, and behind them the body. It is written under
another name, synchronised and renamed, so that no half of a task is ever seen. Its time of modification is when it is due.
Who works on a task holds a lock on its file, which is in the way of those of uWSGI. It belongs to the descriptor: a lock of the
process would be given up by whatever in it opens the file and closes it again, the task itself among them.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import random
import socket
import stat
import struct
import time
from dataclasses import dataclass

PREFIX = "uwsgi_spoolfile_on_"
MODIFIER = 17
HEADER = struct.Struct("<BHB")
LENGTH = struct.Struct("<H")
FLOCK = struct.Struct("@hhqqi4x")  # struct flock
MOST = 0xFFFF  # bytes of all variables, as the header has two bytes for that
MOST_FILE = 1 << 30  # bytes that are read of a file
BELL = ".stoker-bell"
DAMAGED = ".damaged-"

_numbers = itertools.count(1)


class Damaged(ValueError):
    """The file is no task."""


@dataclass(frozen=True)
class Entry:
    """A task that lies there."""

    path: str
    name: str
    priority: int  # -1: none
    due: float  # seconds since 1970
    inode: int
    order: tuple


def pack(task: dict[bytes, bytes]) -> bytes:
    """The variables with the header; ValueError when they are too long."""
    parts = []
    for key, value in task.items():
        if len(key) > MOST or len(value) > MOST:
            raise ValueError("unable to spool job: %s is longer than 65535 bytes: `body` may be longer" % key[:64].decode("latin-1"))
        parts += LENGTH.pack(len(key)), key, LENGTH.pack(len(value)), value
    data = b"".join(parts)
    if len(data) > MOST:
        raise ValueError("unable to spool job: its variables are longer than 65535 bytes: `body` may be longer")
    return HEADER.pack(MODIFIER, len(data), 0) + data


def unpack(data: bytes) -> dict[str, bytes]:
    """A file's variables, and its body as "body"; Damaged."""
    if len(data) < HEADER.size:
        raise Damaged("it is shorter than a header")
    modifier, size, _ = HEADER.unpack_from(data)
    end = HEADER.size + size
    if modifier != MODIFIER or len(data) < end:
        raise Damaged("it has no task's header" if modifier != MODIFIER else "it is cut off")
    found: dict[str, bytes] = {}
    place = HEADER.size
    while place < end:
        key, place = _text(data, place, end)
        value, place = _text(data, place, end)
        found[key.decode("utf-8", "surrogateescape")] = value
    if len(data) > end:
        found["body"] = data[end:]
    return found


def _text(data: bytes, place: int, end: int) -> tuple[bytes, int]:
    if place + LENGTH.size > end:
        raise Damaged("a length is cut off")
    (size,) = LENGTH.unpack_from(data, place)
    place += LENGTH.size
    if place + size > end:
        raise Damaged("a variable is cut off")
    return data[place : place + size], place + size


def write(directory: str, task: dict[bytes, bytes], body: bytes, due: float | None, priority: int | None) -> str:
    """Puts a task into a directory, and rings its bell; the path. OSError, ValueError."""
    packet = pack(task)
    place = directory if priority is None else os.path.join(directory, str(priority))
    if priority is not None:
        try:
            os.mkdir(place, 0o777)
        except FileExistsError:
            pass
    now = time.time()
    name = "%s%s_%d_%d_%d_%d_%d" % (
        PREFIX,
        socket.gethostname().replace("/", "_"),
        os.getpid(),
        next(_numbers),
        random.getrandbits(31),
        int(now),
        int(now * 1000000 % 1000000),
    )
    path = os.path.join(place, name)
    hidden = os.path.join(place, ".new-" + name)
    fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            _write_all(fd, packet)
            _write_all(fd, body)
            if due is not None:
                os.utime(fd, (due, due))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(hidden, path)
    except BaseException:
        try:
            os.unlink(hidden)
        except OSError:
            pass
        raise
    _sync_directory(place)
    ring(directory)
    return path


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_directory(place: str) -> None:
    """What fails is no failure of the task, which is there."""
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # one that may be written to only
    try:
        os.fsync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)


def _open_fifo(path: str, flags: int) -> int:
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise FileExistsError(errno.EEXIST, "it is no FIFO", path)


def open_bell(directory: str) -> int:
    """The descriptor by which the spoolers of a directory learn of new tasks; OSError."""
    path = os.path.join(directory, BELL)
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        pass
    return _open_fifo(path, os.O_RDWR)


def ring(directory: str) -> None:
    """Wakes one spooler of a directory, if there is one: the others would find it at their next look."""
    try:
        fd = _open_fifo(os.path.join(directory, BELL), os.O_WRONLY)
    except OSError:
        return
    try:
        os.write(fd, b"\0")
    except OSError:
        pass  # it is full: they have been woken
    finally:
        os.close(fd)


def entries(directory: str, ordered: bool = False) -> list[Entry]:
    """All tasks: by priority (the lowest number first, those without one last), then the oldest first."""
    found = _entries_of(directory, -1, ordered)
    try:
        with os.scandir(directory) as it:
            numbers = [one.name for one in it if _is_number(one.name) and one.is_dir(follow_symlinks=False)]
    except OSError:
        numbers = []
    for number in numbers:
        found += _entries_of(os.path.join(directory, number), int(number), ordered)
    return sorted(found, key=lambda one: one.order)


def _entries_of(place: str, priority: int, ordered: bool) -> list[Entry]:
    found = []
    try:
        with os.scandir(place) as it:
            for one in it:
                if not one.name.startswith(PREFIX):
                    continue
                try:
                    if not one.is_file(follow_symlinks=False):
                        continue
                    info = one.stat(follow_symlinks=False)
                except OSError:
                    continue  # somebody has done it
                order = (priority < 0, priority, *((one.name,) if ordered else _age(one.name)))
                found.append(Entry(one.path, one.name, priority, info.st_mtime, info.st_ino, order))
    except OSError:
        pass
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _age(name: str) -> tuple:
    """When it was written, as its name says."""
    words = name.rsplit("_", 5)
    if len(words) == 6 and all(map(_is_number, words[1:])):
        return (int(words[4]), int(words[5]), int(words[2]), name)
    return (0, 0, 0, name)


def _lock(fd: int, kind: int) -> None:
    command = getattr(fcntl, "F_OFD_SETLK", None)
    try:
        if command is not None:
            fcntl.fcntl(fd, command, FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
            return
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    fcntl.lockf(fd, fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB)


def release(fd: int) -> None:
    """Gives a task back, also where a process that has been forked meanwhile has the descriptor as well."""
    try:
        _lock(fd, fcntl.F_UNLCK)
    finally:
        os.close(fd)


def take(path: str) -> int | None:
    """A locked descriptor of a task, for `release`; None if somebody else has it, or has done it. OSError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
    try:
        _lock(fd, fcntl.F_WRLCK)
        if os.fstat(fd).st_nlink > 0:
            return fd
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            os.close(fd)
            raise
    os.close(fd)
    return None


def read(fd: int) -> bytes:
    """All that a task's file has; Damaged when that is too much."""
    size = os.fstat(fd).st_size
    if size > MOST_FILE:
        raise Damaged("it is larger than 1 GiB")
    parts = []
    place = 0
    while place < size:
        part = os.pread(fd, min(size - place, 1 << 20), place)
        if not part:
            break
        parts.append(part)
        place += len(part)
    return b"".join(parts)


def put_aside(path: str) -> str:
    """Renames what is no task, so that it is not looked at again; the new path."""
    aside = os.path.join(os.path.dirname(path), DAMAGED + os.path.basename(path))
    os.rename(path, aside)
    return aside
