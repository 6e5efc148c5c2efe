"""What has begun is finished: at every point of a request, when its worker or its server is to go."""

import os
import signal
import time

import pytest

from tests.front.raw import get, post
from tests.life.test_adversity import left_of, wait_until, workers

APP = """
import os
import time


def app(environ, start_response):
    path = environ["PATH_INFO"]
    query = environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/stream":
        return stream(int(query))
    if path == "/big":
        return [b"x" * int(query)]
    if path == "/sleep":
        time.sleep(float(query))
    return [b"%d %s" % (os.getpid(), environ["wsgi.input"].read())]


def stream(blocks):
    for number in range(blocks):
        yield b"block %04d\\n" % number
        time.sleep(0.05)
"""

BODY = b"b" * 100_000


def begin_head(conn):
    conn.send(get()[:20])
    return lambda: conn.send(get()[20:])


def begin_body(conn):
    conn.send(post("Content-Length: %d\r\n" % len(BODY), BODY[:1000]))
    return lambda: conn.send(BODY[1000:])


def begin_chunks(conn):
    conn.send(post("Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n6\r\n wor"))
    return lambda: conn.send(b"ld\r\n0\r\n\r\n")


def begin_continue(conn):
    conn.send(post("Expect: 100-continue\r\nContent-Length: 5\r\n"))
    assert conn.read_head().status == 100
    return lambda: conn.send(b"hello")


def begin_call(conn):
    conn.send(get("", "/sleep?0.5"))
    return lambda: None


def begin_stream(conn):
    conn.send(get("", "/stream?15"))
    conn.read_bytes(1)
    conn.buffer = b"H" + conn.buffer
    return lambda: None


def begin_large(conn):
    """A response that the client has not read."""
    conn.send(get("", "/big?8000000"))
    return lambda: None


BEGINNINGS = [
    begin_head, begin_body, begin_chunks, begin_continue, begin_call, begin_stream, begin_large,
]  # fmt: skip
ENDS = ["stop", "reload", "worker"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kept", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("begin", BEGINNINGS, ids=[begin.__name__[6:] for begin in BEGINNINGS])
def test_a_request_that_has_begun(serve, begin, kept, end):
    """`second`: it is not the first one of its connection."""
    server = serve(APP, "-w1", ready="/")
    server.wait_log(r"\] info: ready after")
    (old,) = workers(server)
    with server.connect() as conn:
        if kept:
            conn.send(get())
            assert conn.read_response().status == 200
        finish = begin(conn)
        time.sleep(0.1)
        if end == "stop":
            server.send_signal(signal.SIGTERM)
            server.wait_log("SIGTERM: stopping")
        elif end == "reload":
            server.send_signal(signal.SIGHUP)
            server.wait_log("the reload is complete")
        else:
            os.kill(old, signal.SIGTERM)
            server.wait_log("leaves")
        time.sleep(0.15)
        finish()
        response = conn.read_response()
        assert response.status == 200
        if begin is begin_stream:
            assert response.body.endswith(b"block 0014\n")
        if begin is begin_large:
            assert response.body == b"x" * 8_000_000
    if end == "stop":
        server.wait()
    else:
        wait_until(lambda: old not in [p.pid for p in left_of(server)])


@pytest.mark.parametrize("end", ["stop", "reload"])
def test_what_takes_longer_than_the_time_for_it(serve, end):
    """It is cut at graceful-timeout, so that the client sees it is not whole, and the log says why."""
    server = serve(APP, "-w1", "-t2", "--graceful-timeout", "500ms", "--exit-timeout", "500ms", ready="/")
    server.wait_log(r"\] info: ready after")
    with server.connect() as streamed, server.connect() as called:
        streamed.send(get("", "/stream?400"))
        called.send(get("", "/sleep?20"))
        assert streamed.read_head().status == 200
        server.send_signal(signal.SIGTERM if end == "stop" else signal.SIGHUP)
        try:
            assert not streamed.read_to_end().endswith(b"0\r\n\r\n")
        except ConnectionResetError:
            pass
        try:
            assert called.at_end()
        except ConnectionResetError:
            pass
    server.wait_log("stopping took longer than graceful-timeout: 2 connections")
    for target in ("/stream", "/sleep"):
        server.wait_log(r"GET %s: not finished after \d" % target)
    if end == "stop":
        assert server.wait() == 0
    else:
        assert server.get("/").status == 200


def test_a_signal_that_comes_twice_is_one(serve):
    """As from timeout(1), which signals its child and then the group of both. Two different ones here,
    because the kernel makes one of two that are the same and wait."""
    server = serve(APP, "-w1", ready="/")
    with server.connect() as conn:
        conn.send(get("", "/sleep?1"))
        time.sleep(0.1)
        server.send_signal(signal.SIGSTOP)  # so that it sees both at once, however slow this test is
        server.send_signal(signal.SIGTERM)
        server.send_signal(signal.SIGINT)
        server.send_signal(signal.SIGCONT)
        assert conn.read_response().status == 200
    assert server.wait() == 0
    assert "stopping now" not in server.log()


def test_a_second_signal_is_meant(serve):
    server = serve(APP, "-w1", ready="/")
    with server.connect() as conn:
        conn.send(get("", "/sleep?20"))
        time.sleep(0.1)
        server.send_signal(signal.SIGTERM)
        server.wait_log("SIGTERM: stopping")
        time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    assert "SIGTERM: stopping now" in server.log()
