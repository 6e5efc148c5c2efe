"""Requests that stay in the application until the test lets them go, so that no time is guessed.

The application's text begins with ``GATE`` and calls wait_at_gate(); the test has a ``Gate`` in the
server's directory, and lets as many go as it says.
"""

import os

GATE = '''
import ctypes
import os

ctypes_read = ctypes.PyDLL(None).read  # PyDLL keeps the interpreter's lock


def wait_at_gate(holding=False):
    """Until the test lets it go; `holding` the interpreter's lock meanwhile."""
    fd = os.open("gate", os.O_RDWR)
    byte = ctypes.create_string_buffer(1)
    while (ctypes_read(fd, byte, 1) if holding else len(os.read(fd, 1))) != 1:
        pass
    os.close(fd)

'''


class Gate:
    """A named pipe: each byte in it lets one request go."""

    def __init__(self, folder):
        path = os.path.join(str(folder), "gate")
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR)

    def let_go(self, count=1):
        os.write(self._fd, b"x" * count)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        os.close(self._fd)
