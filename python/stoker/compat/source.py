"""Where configuration comes from: names of files with sections, standard input, and the magic variables of a file.

uWSGI replaces the magic variables (%n, %d ...) in the whole text before it looks at lines: a % takes the character
behind it with it, whatever that is, so an unknown one vanishes, and one at the end of a line joins the next line to it.
Here that is done line by line with the same outcome, so that each line keeps its number.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
import time

from .names import VERSION
from .result import ConfigError, Notice, display, fail

MAX_FILE = 4 << 20
MAX_LINE = 64 << 10

SCHEMES = (
    "http https exec fd data sym section call callint emperor amqp s3 zlib dict".split()
)


def scheme_of(name: str) -> str:
    """ "exec" of exec://..., "" of a path."""
    scheme, found, _ = name.partition("://")
    return scheme if found and scheme.isalnum() else ""


def split_section(name: str) -> tuple[str, str | None]:
    """file.ini:section; the section is None without a colon, and "" with nothing behind it."""
    start = 0
    if scheme_of(name):
        start = name.rfind("/")
    colon = name.rfind(":", start)
    return (name, None) if colon < 0 else (name[:colon], name[colon + 1 :])


class Magic:
    """The magic variables; the capital letters are those of the first file that is no template."""

    def __init__(self, cwd: str, environ, now: float | None = None):
        now = time.time() if now is None else now
        self.cwd = cwd
        self.table: dict[str, str] = {"%": "%", "(": "%(", "[": "\033"}
        self.first = False
        hostname = socket.gethostname()
        self.table.update(
            v=environ.get("UWSGI_VASSALS_DIR") or cwd,
            V=VERSION,
            h=hostname,
            k=str(os.cpu_count() or 1),
            t=str(int(now)),
            T=str(int(now * 1000000)),
            u=str(os.getuid()),
            g=str(os.getgid()),
        )
        self.table["U"], self.table["G"] = _names_of(os.getuid(), os.getgid())

    def fill(self, name: str) -> None:
        """For the file `name`, which may have a section behind it."""
        path, section = split_section(name)
        self._set("x", section or "")
        if section is not None and not path:  # ":section" of the file that was read last
            self._set("o", "")
            return
        self._set("o", path)
        if path == "-" or scheme_of(path):
            self.first = True
            return
        full = os.path.join(self.cwd, path) if os.path.islink(path) else os.path.realpath(path)
        base = full.rpartition("/")[2]
        folder = full[: len(full) - len(base)]
        self._set("p", full)
        self._set("s", base)
        self._set("d", folder)
        self._set("c", folder.rstrip("/").rpartition("/")[2])
        self._set("i", _inode(path))
        self._set("j", _hash(full))
        for digit in "0123456789":
            self.table.pop(digit, None)
        for digit, part in zip("0123456789", [part for part in folder.split("/") if part]):
            self.table[digit] = part
        stem, dot, extension = base.rpartition(".")
        self._set("e", extension if dot else "")
        self._set("n", stem if dot else base)
        self.first = True

    def _set(self, letter: str, value: str) -> None:
        self.table[letter] = value
        if not self.first:
            self.table[letter.upper()] = value


def _names_of(uid: int, gid: int) -> tuple[str, str]:
    import grp
    import pwd

    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    return user, group


def _inode(path: str) -> str:
    try:
        return str(os.lstat(path).st_ino)
    except OSError:
        return ""


def _hash(path: str) -> str:
    """Bernstein's hash with xor, its four bytes in the order of the machine."""
    value = 5381
    for byte in os.fsencode(path):
        value = ((value * 33) & 0xFFFFFFFF) ^ byte
    return "".join("%02X" % byte for byte in value.to_bytes(4, sys.byteorder))


def read_text(name: str, asked_by: tuple[str, int], stdin=None) -> str:
    """The text of a file or of standard input ("-"); ConfigError where it is no text that can be used."""
    data = _read_bytes(name, asked_by, stdin)
    shown = "standard input" if name == "-" else name
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise fail(shown, 1, "this is UTF-16; save it as UTF-8")
    if data[:3] == b"\xef\xbb\xbf":
        raise fail(
            shown,
            1,
            "the file begins with a byte order mark, behind which uWSGI does not see [uwsgi]; save it "
            "as UTF-8 without one",
        )
    zero = data.find(b"\0")
    if zero >= 0:
        raise fail(
            shown, data.count(b"\n", 0, zero) + 1, "a NUL byte; this is not a configuration file"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise fail(
            shown, line, "byte 0x%02x is not UTF-8; save the file as UTF-8", data[error.start]
        ) from None
    for number, line_text in enumerate(text.split("\n"), 1):
        if len(line_text) > MAX_LINE:
            raise fail(
                shown, number, "a line of %d characters; %d are taken", len(line_text), MAX_LINE
            )
    return text


def _read_bytes(name: str, asked_by: tuple[str, int], stdin) -> bytes:
    if name == "-":
        try:
            if stdin is not None:
                data = stdin.read(MAX_FILE + 1)
            else:
                with open(0, "rb", closefd=False) as file:
                    data = file.read(MAX_FILE + 1)
        except OSError as error:
            raise fail(*asked_by, "cannot read standard input: %s", error.strerror) from None
        if len(data) > MAX_FILE:
            raise fail("standard input", 0, "more than %d bytes of configuration", MAX_FILE)
        if stdin is None:
            _keep_stdin(data)
        return data
    try:
        # Without O_NONBLOCK a FIFO that nobody writes to would be waited for.
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(_open_error(name, asked_by, error)) from None
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise fail(*asked_by, "%s is a directory; expected a file", display(name))
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            raise fail(*asked_by, "%s is no regular file", display(name))
        os.set_blocking(fd, True)
        with os.fdopen(os.dup(fd), "rb") as file:
            data = file.read(MAX_FILE + 1)
    finally:
        os.close(fd)
    if len(data) > MAX_FILE:
        raise fail(name, 0, "more than %d bytes; this is not a configuration file", MAX_FILE)
    return data


def _keep_stdin(data: bytes) -> None:
    """Makes standard input what it was, for who reads the configuration again: another interpreter, a hot upgrade."""
    try:
        fd = os.memfd_create("configuration", 0)
        try:
            os.write(fd, data)
            os.lseek(fd, 0, os.SEEK_SET)
            os.dup2(fd, 0)
        finally:
            os.close(fd)
    except OSError:
        pass  # then it is read once, as from any pipe


def _open_error(name: str, asked_by: tuple[str, int], error: OSError) -> str:
    text = "cannot read %s: %s" % (display(name), error.strerror)
    if "$(" in name or "%(" in name or "@(" in name:
        text += (
            "; what is in parentheses is not expanded here: uWSGI reads the file at once, "
            "before it expands values (magic variables as %d are)"
        )
    elif isinstance(error, FileNotFoundError):
        import difflib

        folder, base = os.path.split(name)
        try:
            there = os.listdir(folder or ".")
        except OSError:
            there = []
        close = difflib.get_close_matches(base, there, 1, 0.7)
        if not os.path.isabs(name) and os.path.exists(os.path.join(os.path.dirname(asked_by[0]), name)):
            text += (
                "; names are relative to the directory that the server is started in; beside this file it "
                "is %d" + name
            )
        elif close:
            text += "; did you mean %s?" % os.path.join(folder, close[0])
    return str(fail(asked_by[0], asked_by[1], "%s", text))


class Pieces:
    """Several texts read as one (inject-before and inject-after), and where each line of it is from."""

    def __init__(self, parts: list[tuple[str, str]]):
        self.text = "".join(text for _, text in parts)
        self.starts: list[tuple[int, str]] = []  # the lines before the first whole one of each part
        lines = 0
        for name, text in parts:
            self.starts.append((lines, name))
            lines += text.count("\n")

    def origin(self, line: int, file: str) -> tuple[str, int]:
        if len(self.starts) == 1 or not line:
            return file, line
        before, name = [start for start in self.starts if start[0] < line][-1]
        return name, line - before


def magic_lines(
    text: str, magic: dict[str, str], file: str, notices: list[Notice]
) -> list[tuple[int, str]]:
    """The lines of a text with their numbers, the magic variables replaced."""
    lines = text.split("\n")
    done: list[tuple[int, str]] = []
    at = 0
    while at < len(lines):
        start = at
        joined, open_end = _magic_line(lines[at], magic, file, at + 1, notices)
        while open_end and at + 1 < len(lines):
            at += 1
            notices.append(
                Notice(
                    file,
                    at,
                    "the line ends in %, which takes the end of the line with it: uWSGI joins the "
                    "next line to this one; a percent sign is written %%",
                )
            )
            more, open_end = _magic_line(lines[at], magic, file, at + 1, notices)
            joined += more
        done.append((start + 1, joined))
        at += 1
    return done


def _magic_line(
    line: str, magic: dict[str, str], file: str, number: int, notices: list[Notice]
) -> tuple[str, bool]:
    """The line, and whether it ended in a % that is still to take its character."""
    if "%" not in line:
        return line, False
    parts = []
    at = 0
    comment = line.lstrip(" \t\r")[:1] in (";", "#")
    while True:
        found = line.find("%", at)
        if found < 0:
            parts.append(line[at:])
            return "".join(parts), False
        parts.append(line[at:found])
        if found + 1 == len(line):
            return "".join(parts), True
        letter = line[found + 1]
        value = magic.get(letter, "")
        if letter not in magic and not comment and not _is_letter(letter):
            notices.append(
                Notice(
                    file,
                    number,
                    "%%%s is no magic variable: uWSGI drops both characters; a percent sign is "
                    "written %%%%" % letter,
                )
            )
        parts.append(value)
        at = found + 2


def _is_letter(letter: str) -> bool:
    """Is there a magic variable of this letter, be it empty?"""
    return letter in "0123456789" or letter in "vVhoOpPsSdDeEnNcCtTxXiIkuUgGjJ"
