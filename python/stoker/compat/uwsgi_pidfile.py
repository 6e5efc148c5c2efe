"""uWSGI's second pidfile (`pidfile2` beside `pidfile`): written by the master with the rights that it has at the end."""

from __future__ import annotations

import os
import sys


class SecondPidfile:
    """The file, as the events of the master's life change it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_event(self, event: str, number: int, pid: int) -> None:
        """At the start; but a server that takes over from another one waits until it is ready."""
        if event == "ready" or (event == "start" and not self._is_taken()):
            self._write()
        elif event == "exit" and self._read() == os.getpid():
            try:
                os.unlink(self.path)
            except OSError:
                pass  # a leftover does no harm: the next start replaces it

    def _read(self) -> int:
        try:
            with open(self.path, "rb") as file:
                return int(file.read(32))
        except (OSError, ValueError):
            return 0

    def _is_taken(self) -> bool:
        pid = self._read()
        try:
            return pid == os.getppid() and os.kill(pid, 0) is None
        except OSError:
            return False

    def _write(self) -> None:
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                os.write(fd, b"%d\n" % os.getpid())
            finally:
                os.close(fd)
        except OSError as error:
            sys.stderr.write("pidfile2: %s: %s\n" % (self.path, error.strerror))
