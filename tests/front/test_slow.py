"""Slow, stalled and leaving clients: they cost a connection, never a Python thread; and every timeout."""

import socket
import threading

import pytest

from tests.front.raw import SECOND, calls, chunked, get, post

TIMEOUTS = (
    "--head-timeout", "300ms", "--body-timeout", "300ms", "--keepalive-timeout", "300ms", "--send-timeout", "500ms",
)  # fmt: skip


@pytest.fixture(scope="module")
def hasty(serve_module, plain):
    """A server with short timeouts, and a send buffer that a test can fill."""
    return serve_module(
        "probe:app", "-w1", *TIMEOUTS, "--response-buffer", "64k", "--response-file-max", "none", cwd=plain.cwd, ready="/calls"
    )


STALLED = {
    "nothing": b"",
    "a part of a line": b"GET /",
    "a part of a head": b"GET / HTTP/1.1\r\nHost: x\r\nA: ",
    "a head without its end": get()[:-1],
    "no body": post("Content-Length: 100\r\n"),
    "a part of a body": post("Content-Length: 100\r\n", "half"),
    "a part of a large body": post("Content-Length: 5000000\r\n", "x" * 100_000),
    "no chunk": chunked(b""),
    "a part of a chunk": chunked(b"ff\r\nhalf"),
    "no last chunk": chunked(b"1\r\nx\r\n"),
    "100-continue, and nothing": post("Expect: 100-continue\r\nContent-Length: 100\r\n"),
    "a request, and a part of the next": get() + b"GET /",
}


@pytest.mark.parametrize("mode", ["1-thread", "4-threads", "no-takeover"])
def test_stalled_clients_cost_no_thread(serve, plain, mode):
    from tests.front.conftest import MODES

    server = serve("probe:app", "-w1", *MODES[mode], cwd=plain.cwd)
    stalled = []
    for data in STALLED.values():
        for _ in range(10):
            stalled.append(server.connect())
            stalled[-1].send(data)
    for _ in range(50):
        assert server.get("/a").status == 200
    assert server.post("/echo", b"x" * 200_000).body == b"x" * 200_000
    for conn in stalled:
        conn.close()
    assert server.get("/a").status == 200


def test_clients_that_do_not_read_cost_no_thread(serve, plain):
    server = serve("probe:app", "-w1", cwd=plain.cwd)
    lazy = []
    for _ in range(5):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(server.address)
        sock.sendall(get("", "/big/10000000"))
        lazy.append(sock)
    for _ in range(20):
        assert server.get("/a").status == 200
    for sock in lazy:
        sock.close()
    assert server.get("/a").status == 200


TIMED_OUT = {
    name: data for name, data in STALLED.items() if name not in ("nothing", "100-continue, and nothing")
}


@pytest.mark.parametrize("data", list(TIMED_OUT.values()), ids=list(TIMED_OUT))
def test_timeouts_are_answered(hasty, data):
    """408, and the end of the connection; nothing reaches the application."""
    calls(hasty)
    responses = hasty.send_raw(data, expect=None)
    assert responses[-1].status == 408 and responses[-1].will_close
    assert len(calls(hasty)) == len(responses) - 1


@pytest.fixture(scope="module")
def hasty_stream(serve_module, plain):
    """Short timeouts, and bodies that the application reads while they come."""
    return serve_module(
        "probe:app", "-w1", *TIMEOUTS, "--body", "stream", "--threads", "2", cwd=plain.cwd, ready="/calls"
    )


@pytest.mark.parametrize(
    "data",
    [
        post("Content-Length: 100\r\n"),
        post("Content-Length: 100\r\n", "half"),
        post("Content-Length: 5000000\r\n", "x" * 100_000),
        chunked(b"1\r\nx\r\n"),
    ],
    ids=["no body", "half", "large", "chunked"],
)
def test_timeouts_of_a_body_that_the_application_reads(hasty_stream, data):
    """The client was too slow, so it is told that, though it is the application that fails."""
    (response,) = hasty_stream.send_raw(data, expect=None)
    assert response.status == 408 and response.will_close
    assert hasty_stream.get("/a").status == 200


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["buffer", "stream"])
def test_an_upload_that_is_too_slow(serve, plain, mode):
    """Never silent for body-timeout, but below body-min-rate; one above it is served meanwhile."""
    args = ("--body", mode, "--threads", "2", "--body-min-rate", "2000")
    server = serve("probe:app", "-w1", *args, cwd=plain.cwd, ready="/calls")
    with server.connect() as slow, server.connect() as good:
        slow.send(post("Content-Length: 100000\r\n"))
        good.send(post("Content-Length: 100000\r\n"))
        slow.settimeout(0.1)
        data = b""
        sent = 0
        while not data:
            slow.send(b"x" * 20)
            if sent < 100_000:
                good.send(b"y" * 600)
                sent += 600
            try:
                data = slow.sock.recv(100_000)
            except socket.timeout:
                continue
        slow.buffer = data
        slow.settimeout(20)
        assert slow.read_response().status == 408
        assert sent < 100_000
        good.send(b"y" * (100_000 - sent))
        assert good.read_response().body == b"y" * 100_000


def test_timeout_after_continue(hasty):
    calls(hasty)
    with hasty.connect() as conn:
        conn.send(STALLED["100-continue, and nothing"])
        assert conn.read_head().status == 100
        assert conn.read_response().status == 408
        assert conn.at_end()
    assert calls(hasty) == []


def test_idle_connections_are_closed_silently(hasty):
    """A 408 here would be taken for the answer to the next request."""
    with hasty.connect() as conn:
        conn.send(get())
        assert conn.read_response().status == 200
        assert conn.at_end()
    with hasty.connect() as conn:
        assert conn.at_end()


def test_the_head_timeout_is_for_the_whole_head(hasty):
    """A byte now and then does not put it off."""
    with hasty.connect() as conn:
        received = b""
        conn.settimeout(0.02)
        for byte in get("A: " + "b" * 500 + "\r\n"):
            try:
                conn.send(bytes([byte]))
                received += conn.sock.recv(10000)
            except socket.timeout:
                continue
            except OSError:
                break
            if received:
                break
        assert received.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_comes_is_not_timed_out(hasty):
    """Slower than body-timeout in all, but never silent for so long."""
    with hasty.connect() as conn:
        conn.send(post("Content-Length: 40\r\n"))
        conn.send_slowly(b"x" * 40, pause=0.02)
        assert conn.read_response().body == b"x" * 40


def test_a_client_that_takes_nothing_is_let_go(hasty):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(hasty.address)
    sock.sendall(get("", "/blocks/800"))
    # The application waits for this client, by the limits of this server; then it goes on.
    assert hasty.get("/a").status == 200
    sock.settimeout(20)
    total = 0
    try:
        while True:
            data = sock.recv(1 << 20)
            if not data:
                break
            total += len(data)
    except ConnectionResetError:
        pass
    assert total < 800 * 65536
    sock.close()


@pytest.mark.parametrize("count", [200])
def test_clients_that_leave(plain, count):
    """At every point of a request, with FIN and RST."""
    data = get("", "/stream") + post("Content-Length: 5\r\n", "hello") + get("", "/big/1000000")
    for number in range(count):
        conn = plain.connect()
        conn.send(data[: number * len(data) // count])
        if number % 2:
            conn.reset()
        else:
            conn.close()
    assert plain.get("/a").status == 200


def test_clients_that_leave_in_the_middle_of_a_response(plain):
    for number in range(50):
        conn = plain.connect()
        conn.send(get("", "/big/5000000"))
        conn.read_bytes(1000)
        if number % 2:
            conn.reset()
        else:
            conn.close()
    assert plain.get("/a").status == 200


def test_ten_good_clients_among_a_hundred_slow_ones(plain):
    stop = threading.Event()
    slow = [plain.connect() for _ in range(100)]
    data = get("A: " + "b" * 2000 + "\r\n")

    def drip():
        at = 0
        while not stop.is_set() and at < len(data) - 10:
            for conn in slow:
                conn.send(data[at : at + 1])
            at += 1

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        for _ in range(200):
            assert plain.get("/a").status == 200
    finally:
        stop.set()
        thread.join()
    for conn in slow:
        conn.close()
    with plain.connect() as conn:
        conn.send(SECOND)
        assert conn.read_response().status == 200
