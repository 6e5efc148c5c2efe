"""A C call that holds the GIL for long: the network goes on without Python."""

import threading

import pytest

from tests.front.raw import get, post
from tests.lib.gate import GATE, Gate

APP = GATE + """
import threading
import time

usleep = ctypes.PyDLL(None).usleep  # does not release the GIL, unlike ctypes.CDLL
TEXT = [("Content-Type", "text/plain")]
held = threading.Event()


def hold(environ, start_response):
    start_response("200 OK", TEXT)
    usleep(int(environ["QUERY_STRING"]))
    return [b"held"]


def keep(environ, start_response):
    start_response("200 OK", TEXT)
    wait_at_gate(holding=True)
    return [b"held"]


def wait(environ, start_response):
    start_response("200 OK", TEXT)
    wait_at_gate()
    return [b"waited"]


def stream_then_hold(environ, start_response):
    start_response("200 OK", TEXT)
    for number in range(10):
        yield b"%d" % number
    usleep(int(environ["QUERY_STRING"]))
    yield b"end"


def big(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"x" * 30_000_000]


def spin(environ, start_response):
    start_response("200 OK", TEXT)
    waiting = threading.Thread(target=wait_at_gate)
    waiting.start()
    while waiting.is_alive():
        sum(range(100))
    return [b"computed"]


def compute(environ, start_response):
    start_response("200 OK", TEXT)
    limit = time.monotonic() + float(environ["QUERY_STRING"])
    while time.monotonic() < limit:
        sum(range(100))
    return [b"computed"]


def sleep(environ, start_response):
    start_response("200 OK", TEXT)
    time.sleep(float(environ["QUERY_STRING"]))
    return [b"slept"]


def app(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/") or "hold"](environ, start_response)
"""


@pytest.fixture(scope="module", params=["-t1", "-t3"])
def server(request, serve_module):
    return serve_module(APP, "-w1", request.param, "--head-timeout", "200ms", ready="/hold?0")


@pytest.fixture(scope="module")
def gate(server):
    with Gate(server.cwd) as one:
        yield one


def begin(server, target):
    """A connection whose request is in the application."""
    conn = server.connect()
    conn.send(get("", target))
    assert conn.is_quiet(0.1)
    return conn


@pytest.mark.parametrize("busy", ["/keep", "/spin", "/wait"])
def test_the_network_goes_on(server, gate, busy):
    """Connections are accepted, refused and timed out before the call has ended."""
    with begin(server, busy) as conn:
        (refused,) = server.send_raw("BAD\r\n\r\n")
        assert refused.status == 400
        (expired,) = server.send_raw("GET / HTT")
        assert expired.status == 408
        with server.connect() as other:
            other.send(post("Expect: 100-continue\r\nContent-Length: 5\r\n", target="/hold?0"))
            assert other.read_head().status == 100
        # All of that came while the first request was still in its call.
        assert conn.is_quiet(0.001)
        gate.let_go()
        assert conn.read_response().status == 200


def test_what_lies_in_a_queue_is_sent_meanwhile(server, gate):
    """A client reads a large response while Python is away."""
    with server.connect() as slow:
        slow.send(get("", "/big"))
        head = slow.read_head()
        with begin(server, "/keep") as conn:
            assert slow.read_bytes(30_000_000) == b"x" * 30_000_000
            assert conn.is_quiet(0.001)
            gate.let_go()
            assert conn.read_response().body == b"held"
        assert head.status == 200


def test_gathered_blocks_leave_meanwhile(server):
    with server.connect() as conn:
        conn.send(get("", "/stream_then_hold?1000000"))
        assert conn.read_head().status == 200
        data = b""
        while b"9\r\n" not in data:
            data += conn.read_available()
        assert b"end" not in data


def test_requests_wait_and_are_served(server):
    with begin(server, "/hold?300000") as first:
        others = [server.connect() for _ in range(30)]
        for other in others:
            other.send(get("", "/hold?0"))
        assert first.read_response().body == b"held"
        for other in others:
            assert other.read_response().body == b"held"
            other.close()


def test_many_that_hold_it(server):
    errors = []

    def ask():
        try:
            for _ in range(10):
                assert server.get("/hold?2000").body == b"held"
                assert server.get("/compute?0.002").body == b"computed"
                assert server.get("/sleep?0.001").body == b"slept"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
