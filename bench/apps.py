"""The WSGI applications that the scenarios call.  Each is a plain function of (environ, start).

Nothing is imported here that a bare `python -c 'import apps'` would not want to pay for.
"""

import json
import os
import time

TEXT = [("Content-Type", "text/plain")]
HELLO = b"Hello, World!\n"
BIG = b"x" * 100_000
BLOCK = b"b" * 1024
BLOCKS = 64
DOCUMENT = {
    "id": 4711,
    "name": "an object of about one kilobyte",
    "tags": ["alpha", "beta", "gamma", "delta"],
    "items": [{"n": n, "square": n * n, "text": "item number %d" % n} for n in range(18)],
}
SPIN = int(os.environ.get("BENCH_SPIN", "40000"))  # turns of spin() that take 2 ms


def hello(environ, start):
    """14 bytes."""
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "14")])
    return [HELLO]


def document(environ, start):
    """About 1 kB made by json.dumps in each request."""
    body = json.dumps(DOCUMENT).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def body100k(environ, start):
    """One block of 100 kB."""
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "100000")])
    return [BIG]


def stream(environ, start):
    """A generator of 64 blocks of 1 kB, of unknown length."""
    start("200 OK", TEXT)
    for _ in range(BLOCKS):
        yield BLOCK


def two_blocks(environ, start):
    """A block, 50 ms of nothing, a block."""
    start("200 OK", TEXT)
    yield BLOCK
    time.sleep(0.05)
    yield BLOCK


def upload(environ, start):
    """Reads the whole body and answers with its length."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    size = len(environ["wsgi.input"].read(length))
    body = b"%d\n" % size
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def sleep1ms(environ, start):
    """Waits (without the GIL) for a millisecond, as for a database."""
    time.sleep(0.001)
    return hello(environ, start)


def fair(environ, start):
    """1 ms, and a second at /slow: both wait."""
    time.sleep(1.0 if environ["PATH_INFO"] == "/slow" else 0.001)
    return hello(environ, start)


def spin(turns):
    """Computes with the GIL held."""
    total = 0
    for turn in range(turns):
        total += turn
    return total


def compute2ms(environ, start):
    """Computes for two milliseconds; bench/run measures how many turns that takes."""
    spin(SPIN)
    return hello(environ, start)
