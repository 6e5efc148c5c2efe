"""Streaming: when each block leaves, and that all of them arrive. PEP 3333, "Buffering and Streaming"."""

import threading

import pytest

from tests.front.raw import get

APP = r'''
import threading
import time

TEXT = ("Content-Type", "text/plain")
gates = {}


def gate(name):
    return gates.setdefault(name, threading.Semaphore(0))


def gated(environ, start_response):
    """Each block after the first waits until /open?NAME lets it go."""
    name = environ["QUERY_STRING"]
    start_response("200 OK", [TEXT])

    def blocks():
        for number in range(5):
            if number and not gate(name).acquire(timeout=20):
                raise RuntimeError("nobody opened the gate")
            yield b"%d" % number

    return blocks()


def gated_write(environ, start_response):
    name = environ["QUERY_STRING"]
    write = start_response("200 OK", [TEXT])
    for number in range(5):
        if number and not gate(name).acquire(timeout=20):
            raise RuntimeError("nobody opened the gate")
        write(b"%d" % number)
    return []


def gated_first(environ, start_response):
    """The head has no block yet."""
    start_response("200 OK", [TEXT])
    gate(environ["QUERY_STRING"]).acquire(timeout=20)
    return [b"done"]


def gated_failure(environ, start_response):
    start_response("200 OK", [TEXT])
    gate(environ["QUERY_STRING"]).acquire(timeout=20)
    raise ValueError("after the gate")


def gated_replacement(environ, start_response):
    import sys

    start_response("200 OK", [TEXT])
    gate(environ["QUERY_STRING"]).acquire(timeout=20)
    try:
        raise ValueError("x")
    except ValueError:
        start_response("503 Later", [TEXT], sys.exc_info())
    return [b"replaced"]


def burst_then_gate(environ, start_response):
    """Fast blocks, and then nothing for long: the fast ones must not wait for the slow one."""
    start_response("200 OK", [TEXT])

    def blocks():
        for number in range(20):
            yield b"%02d" % number
        gate(environ["QUERY_STRING"]).acquire(timeout=20)
        yield b"end"

    return blocks()


def burst_then_compute(environ, start_response):
    """The same, while the GIL is held in a loop of bytecode."""
    start_response("200 OK", [TEXT])

    def blocks():
        for number in range(20):
            yield b"%02d" % number
        name = environ["QUERY_STRING"]
        limit = time.monotonic() + 20
        while not gate(name).acquire(blocking=False) and time.monotonic() < limit:
            sum(range(1000))
        yield b"end"

    return blocks()


def fast(environ, start_response):
    start_response("200 OK", [TEXT])
    return (b"%07d\n" % number for number in range(int(environ["QUERY_STRING"])))


def sleepy(environ, start_response):
    start_response("200 OK", [TEXT])

    def blocks():
        for number in range(30):
            if number % 3 == 0:
                time.sleep(0.001)
            yield b"%07d\n" % number

    return blocks()


def events(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")])

    def blocks():
        for number in range(3):
            gate(environ["QUERY_STRING"]).acquire(timeout=20)
            yield b"data: %d\n\n" % number

    return blocks()


def open_gate(environ, start_response):
    gate(environ["QUERY_STRING"]).release()
    start_response("200 OK", [TEXT])
    return [b"opened"]


def ok(environ, start_response):
    start_response("200 OK", [TEXT])
    return [b"ok"]


def app(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)
'''


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module(APP, "-w1", "-t4", ready="/ok")


@pytest.fixture
def name(request):
    return str(abs(hash(request.node.nodeid)))


def open_gate(server, name):
    assert server.get("/open_gate?" + name).body == b"opened"


def read_chunk(conn):
    size = int(conn._line(), 16)
    data = conn.read_bytes(size)
    assert conn.read_bytes(2) == b"\r\n"
    return data


@pytest.mark.parametrize("view", ["gated", "gated_write"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_each_block_leaves_before_the_next_is_asked_for(server, name, view, version):
    with server.connect() as conn:
        conn.send(get("", "/%s?%s" % (view, name), version))
        assert conn.read_head().status == 200
        for number in range(5):
            if number:
                open_gate(server, name)
            data = read_chunk(conn) if version == "1.1" else conn.read_bytes(1)
            assert data == b"%d" % number
        assert conn.read_bytes(5) == b"0\r\n\r\n" if version == "1.1" else conn.at_end()


@pytest.mark.parametrize("view", ["burst_then_gate", "burst_then_compute"])
def test_fast_blocks_do_not_wait_for_a_slow_one(server, name, view):
    with server.connect() as conn:
        conn.send(get("", "/%s?%s" % (view, name)))
        assert conn.read_head().status == 200
        data = b""
        while len(data) < 40:
            data += read_chunk(conn)
        assert data == b"".join(b"%02d" % number for number in range(20))
        open_gate(server, name)
        assert read_chunk(conn) == b"end"
        assert conn.read_bytes(5) == b"0\r\n\r\n"


def test_blocks_leave_with_one_thread(serve):
    """Nobody can open a gate here, so the blocks are told by their times in the application."""
    server = serve(
        """
        import time

        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            for number in range(4):
                yield b"%d" % number
                time.sleep(0.2)
        """,
        "-w1",
    )
    with server.connect() as conn:
        conn.send(get())
        assert conn.read_head().status == 200
        for number in range(4):
            # One by one: a server that collects would send them in one chunk or one segment.
            assert read_chunk(conn) == b"%d" % number
            assert conn.buffer == b"" or number == 3


def test_a_server_sent_event_arrives(server, name):
    with server.connect() as conn:
        conn.send(get("", "/events?" + name))
        for number in range(3):
            open_gate(server, name)
            if number == 0:
                assert conn.read_head().header("content-type") == "text/event-stream"
            assert read_chunk(conn) == b"data: %d\n\n" % number


@pytest.mark.parametrize("count", [0, 1, 2, 64, 1000, 30_000])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_fast_blocks_arrive_intact(server, count, version):
    (response,) = server.send_raw(get("", "/fast?%d" % count, version))
    assert response.body == b"".join(b"%07d\n" % number for number in range(count))


def test_streams_with_and_without_pauses(server):
    for _ in range(20):
        assert server.get("/sleepy").body == b"".join(b"%07d\n" % number for number in range(30))


def test_streams_side_by_side(server):
    errors = []

    def load(number):
        try:
            for _ in range(5):
                assert server.get("/fast?2000").body == b"".join(b"%07d\n" % n for n in range(2000))
                assert server.get("/sleepy").body == b"".join(b"%07d\n" % n for n in range(30))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_pipelined_streams(server):
    wanted = b"".join(b"%07d\n" % number for number in range(100))
    for response in server.send_raw(get("", "/fast?100") * 30, expect=30):
        assert response.body == wanted


# The answers of earlier, pipelined requests do not wait for a slow one, and are not mixed with it.


@pytest.mark.parametrize(
    "view, status, body",
    [
        ("gated_first", 200, b"done"),
        ("gated_failure", 500, None),
        ("gated_replacement", 503, b"replaced"),
    ],
)
@pytest.mark.parametrize("before", [1, 10])
def test_a_slow_request_behind_fast_ones(server, name, view, status, body, before):
    with server.connect() as conn:
        conn.send(get("", "/ok") * before + get("", "/%s?%s" % (view, name)) + get("", "/ok"))
        for _ in range(before):
            assert conn.read_response().body == b"ok"
        open_gate(server, name)
        response = conn.read_response()
        assert response.status == status
        if body is not None:
            assert response.body == body
        assert conn.read_response().body == b"ok"


def test_a_slow_stream_behind_fast_requests(server, name):
    with server.connect() as conn:
        conn.send(get("", "/ok") * 5 + get("", "/gated?" + name) + get("", "/ok"))
        for _ in range(5):
            assert conn.read_response().body == b"ok"
        assert conn.read_head().status == 200
        for number in range(5):
            if number:
                open_gate(server, name)
            assert read_chunk(conn) == b"%d" % number
        assert conn.read_bytes(5) == b"0\r\n\r\n"
        assert conn.read_response().body == b"ok"
