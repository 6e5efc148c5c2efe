"""The application that is served during a soak.

Each answer begins with the number of its request, so that an answer to the wrong one shows, and names
the process that made it in X-Pid.
"""

import ctypes
import os
import random
import threading
import time
import zlib

DATA = random.Random(20).getrandbits(8 * 65536).to_bytes(65536, "little") * 40
SPIN = int(os.environ.get("SOAK_SPIN", "40000"))  # turns that take about 2 ms


def expected(number, size):
    """The body of the answer to request `number`: its number, and `size` bytes."""
    at = number * 7919 % 65536
    return b"%d;" % number + DATA[at : at + size]


def spin():
    """Computes for about 2 ms with the interpreter's lock held."""
    total = 0
    for turn in range(SPIN):
        total += turn
    return total


def answer(start_response, body, kind="application/octet-stream"):
    start_response(
        "200 OK",
        [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("X-Pid", str(os.getpid())),
        ],
    )
    return [body]


def stream(number, blocks, pause):
    """Blocks of 1 kB, each with a pause behind it."""
    for index in range(blocks):
        yield expected(number + index, 1024)
        time.sleep(pause)


def take(body):
    """Length and checksum of a request's body, read in blocks."""
    size = check = 0
    while True:
        block = body.read(65536)
        if not block:
            return size, check
        size += len(block)
        check = zlib.crc32(block, check)


def stick(how):
    """Does not return for half a minute: in Python, in a wait, or in C beyond Python's reach."""
    end = time.monotonic() + 30
    if how == "loop":
        while time.monotonic() < end:
            pass
    elif how == "lock":
        threading.Event().wait(30)
    elif how == "c":
        ctypes.CDLL(None).usleep(30 * 1000000)
    else:
        time.sleep(30)


def app(environ, start_response):
    query = dict(
        pair.split("=", 1) for pair in environ.get("QUERY_STRING", "").split("&") if "=" in pair
    )
    number = int(query.get("id", 0))
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response(
            "200 OK", [("Content-Type", "application/octet-stream"), ("X-Pid", str(os.getpid()))]
        )
        return stream(number, int(query["blocks"]), float(query["pause"]))
    if path == "/upload":
        size, check = take(environ["wsgi.input"])
        return answer(start_response, b"%d;%d;%d" % (number, size, check))
    if path == "/stuck":
        stick(query["how"])
    if path == "/compute":
        spin()
    return answer(start_response, expected(number, int(query.get("size", 0))))
