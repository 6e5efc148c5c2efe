"""Requests that wait go where a thread is idle; connections outlive the worker they were made to."""

import hashlib
import os
import re
import signal
import socket
import threading
import time

import pytest

from tests.lib.server import Connection

# /hold answers when the file "go" is there; everything is answered with the worker's process id.
APP = """
import hashlib
import os
import time


def app(environ, start_response):
    body = environ["wsgi.input"].read()
    path = environ["PATH_INFO"]
    if path == "/hold":
        with open("held", "a") as file:
            print(os.getpid(), file=file)
        while not os.path.exists("go"):
            time.sleep(0.005)
    if path == "/count":
        with open("counted", "ab", buffering=0) as file:
            file.write(environ["QUERY_STRING"].encode() + b"\\n")
    start_response("200 OK", [
        ("Content-Type", "text/plain"),
        ("Pid", str(os.getpid())),
        ("Peer", environ["REMOTE_ADDR"] + ":" + environ.get("REMOTE_PORT", "")),
    ])
    return [hashlib.sha1(body).hexdigest().encode() if body else path.encode()]
"""

GET = b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n"


def ask(conn, path=b"/"):
    """The process that answers."""
    conn.send(GET % path)
    return answer(conn)


def answer(conn):
    response = conn.read_response()
    assert response.status == 200, response
    assert not response.will_close, response
    return int(response.header("Pid"))


@pytest.fixture
def two(serve):
    """Two workers with one thread each, and four connections to each: server, first, second."""

    def start_server(*args, workers=2, **kwargs):
        server = serve(APP, "-w", str(workers), *args, **kwargs)
        server.wait_log(r"\] info: ready after")
        return server

    return start_server


def connect_to_each(server, count=4):
    """Connections by worker: {pid: [connection, ...]}, `count` to each of two workers."""
    found = {}
    for _ in range(200):
        conn = server.connect()
        mine = found.setdefault(ask(conn), [])
        if len(mine) < count:
            mine.append(conn)
        else:
            conn.close()
        if len(found) == 2 and all(len(conns) == count for conns in found.values()):
            return found
    raise AssertionError("one worker got no connections: %r" % found)


def hold(server, conn):
    """Sends a request that stays in the application until go(); the process that has it."""
    file = server.cwd / "held"
    before = file.read_text() if file.exists() else ""
    conn.send(GET % b"/hold")
    deadline = time.monotonic() + 30
    while True:
        now = file.read_text() if file.exists() else ""
        if len(now) > len(before) and now.endswith("\n"):
            return int(now[len(before) :])
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Held:
    """A worker that is kept busy by the request of `holder`: `busy` is its process, `conns` are its
    other connections; `free` and `theirs` are those of the other worker."""

    def __init__(self, server, workers=None, first=0):
        workers = workers or connect_to_each(server)
        self.server = server
        self.holder = list(workers.values())[first].pop()
        self.busy = hold(server, self.holder)  # where its request may have moved to, too
        (self.free,) = set(workers) - {self.busy}
        self.conns, self.theirs = workers[self.busy][:3], workers[self.free]

    def end(self):
        go(self.server)
        assert answer(self.holder) == self.busy


def go(server):
    (server.cwd / "go").touch()


def test_a_request_does_not_wait_behind_a_call(two):
    server = two()
    for first in (0, 1):
        held = Held(server, first=first)
        for conn in held.conns * 3:
            assert ask(conn) == held.free
        held.end()
        (server.cwd / "go").unlink()
        # The connections live where they were moved to, and are as good as ever.
        for conn in held.conns + held.theirs:
            assert ask(conn) in (held.busy, held.free)


def test_the_peer_and_the_scheme_move_along(two):
    server = two()
    held = Held(server)
    for conn in held.conns:
        conn.send(
            b"GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Port: 1\r\n\r\n"
        )
        assert conn.read_response().header("Peer").startswith("192.0.2.7:")
        conn.send(GET % b"/")
        assert conn.read_response().header("Peer") == "127.0.0.1:%d" % conn.sock.getsockname()[1]
    held.end()


def chunks(body, size):
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("size", [1, 1000, 60000])
def test_bodies_move(two, framing, pieces, size):
    server = two()
    body = os.urandom(size // 2) * 2 or b"x"
    held = Held(server)
    field = b"Content-Length: %d" % len(body) if framing == "length" else b"Transfer-Encoding: chunked"
    data = body if framing == "length" else chunks(body, 7000)
    for conn in held.conns:
        # A second request behind it moves with it.
        data_all = b"POST /b HTTP/1.1\r\nHost: test\r\n%s\r\n\r\n%s" % (field, data) + GET % b"/next"
        step = len(data_all) // pieces + 1
        for at in range(0, len(data_all), step):
            conn.send(data_all[at : at + step])
            time.sleep(0.02 if pieces > 1 else 0)
        first = conn.read_response()
        assert first.body == hashlib.sha1(body).hexdigest().encode()
        assert int(first.header("Pid")) == held.free
        assert conn.read_response().body == b"/next"
    held.end()


def test_a_large_body_waits_where_it_is(two):
    server = two()
    body = os.urandom(300000)
    held = Held(server)
    others = held.conns
    others[0].send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 300000\r\n\r\n" + body)
    assert ask(others[1]) == held.free
    assert others[0].is_quiet()
    held.end()
    response = others[0].read_response()
    assert response.body == hashlib.sha1(body).hexdigest().encode()
    assert int(response.header("Pid")) == held.busy


def test_a_close_reaches_the_client(two):
    server = two()
    held = Held(server)
    for conn in held.conns:
        conn.send(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        response = conn.read_response()
        assert int(response.header("Pid")) == held.free and response.will_close
        assert conn.at_end()
    held.end()


def test_a_worker_that_does_not_answer_is_done_without(two):
    """The idle worker is stopped: what was offered to it is served here, once."""
    server = two()
    held = Held(server)
    others = held.conns
    os.kill(held.free, signal.SIGSTOP)
    try:
        for number, conn in enumerate(others):
            conn.send(GET % (b"/count?%d" % number))
        time.sleep(0.3)
        held.end()
        for conn in others:
            assert answer(conn) == held.busy
    finally:
        os.kill(held.free, signal.SIGCONT)
    for conn in others:
        ask(conn)
    counted = (server.cwd / "counted").read_bytes().split()
    assert sorted(counted) == [b"0", b"1", b"2"]
    # Copies that lay in the other's inbox do not keep a connection open.
    others[0].send(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    assert others[0].read_response().status == 200
    assert others[0].at_end()


def test_a_worker_that_dies_costs_what_it_held(two):
    server = two()
    held = Held(server)
    others = held.conns
    os.kill(held.free, signal.SIGSTOP)
    for number, conn in enumerate(others):
        conn.send(GET % (b"/count?%d" % number))
    time.sleep(0.05)
    os.kill(held.free, signal.SIGKILL)
    held.end()
    for conn in others:
        answer(conn)
    assert len((server.cwd / "counted").read_bytes().split()) == len(others)
    for conn in held.theirs:
        try:
            assert conn.at_end()
        except ConnectionResetError:
            pass


def test_both_busy_then_the_first_that_is_free(two):
    server = two()
    (one, ones), (other, others) = connect_to_each(server).items()
    assert {hold(server, ones[0]), hold(server, others[0])} == {one, other}
    waiting = ones[1:] + others[1:]
    for number, conn in enumerate(waiting):
        conn.send(GET % (b"/count?%d" % number))
    assert waiting[0].is_quiet(0.1)
    go(server)
    for conn in ones + others:
        answer(conn)
    assert sorted((server.cwd / "counted").read_bytes().split()) == [b"%d" % n for n in range(6)]


def test_without_takeover_nothing_moves_and_nothing_breaks(two):
    server = two("--no-takeover")
    held = Held(server)
    held.conns[0].send(GET % b"/")
    assert held.conns[0].is_quiet(0.1)
    held.end()
    assert answer(held.conns[0]) == held.busy
    server.process.send_signal(signal.SIGHUP)
    server.wait_log("reload is complete")
    for conn in held.conns + held.theirs:
        assert ask(conn) not in (held.busy, held.free)


# --- Queues with an end


def queue_up(server, count):
    """A worker held up, and requests that wait in it."""
    holder = server.connect()
    hold(server, holder)
    conns = [server.connect() for _ in range(count)]
    for conn in conns:
        conn.send(GET % b"/")
        time.sleep(0.01)
    return holder, conns


def refused(conn):
    response = conn.read_response()
    assert response.status == 503
    assert response.header("Retry-After") == "1"
    assert not response.will_close
    return response


@pytest.mark.parametrize("threads", [1, 2])
def test_max_queue(two, threads):
    server = two("--max-queue", "2", "--threads", str(threads), workers=1)
    holders = [server.connect() for _ in range(threads - 1)]
    for conn in holders:
        hold(server, conn)
    holder, conns = queue_up(server, 5)
    for conn in conns[2:]:
        refused(conn)
        conn.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc" + GET % b"/")
        refused(conn)
        refused(conn)
    server.wait_log(r"answered 503 to 1 request: .*\(max-queue\); add workers or threads")
    go(server)
    answer(holder)
    for conn in conns[:2]:
        answer(conn)
    for conn in conns:
        ask(conn)
    for conn in holders:
        answer(conn)


def test_max_queue_age(two):
    server = two("--max-queue-age", "200ms", workers=1)
    holder, conns = queue_up(server, 3)
    for conn in conns:
        refused(conn)
    conns[0].send(GET % b"/")
    refused(conns[0])
    go(server)
    answer(holder)
    for conn in conns:
        ask(conn)


def test_a_full_queue_moves_before_it_refuses(two):
    server = two("--max-queue", "1")
    held = Held(server)
    for conn in held.conns:
        assert ask(conn) == held.free
    held.end()


# --- Reloads


class Traffic:
    """Clients on persistent connections that send one request after the other, until stopped."""

    def __init__(self, server, count):
        self.conns = [server.connect() for _ in range(count)]
        self.stopping = False
        self.failures = []
        self.pids = set()
        self.answered = 0
        self.threads = [threading.Thread(target=self.run, args=(conn,)) for conn in self.conns]
        for thread in self.threads:
            thread.start()

    def run(self, conn):
        try:
            while not self.stopping:
                self.pids.add(ask(conn))
                self.answered += 1
        except Exception as error:
            self.failures.append(repr(error))

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join()
        assert not self.failures


def reload(server, number):
    """Reloads; the pids of the workers before."""
    before = set(server.worker_pids())
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while len(re.findall("the reload is complete", server.log())) < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return before


@pytest.mark.parametrize(
    "options, workers",
    [
        (("--threads", "1"), 2),
        (("--threads", "4"), 2),
        (("--threads", "1"), 1),
        (("--threads", "4", "--preload"), 1),
        (("--threads", "1", "--preload"), 2),
    ],
)
def test_connections_outlive_ten_reloads(two, options, workers):
    server = two(*options, workers=workers)
    idle = [server.connect() for _ in range(30)]
    for conn in idle:
        ask(conn)
    fresh = [server.connect() for _ in range(3)]  # have never sent a byte
    traffic = Traffic(server, 6)
    for number in range(1, 11):
        begun = server.connect()
        begun.send(b"GET /begun HTTP/1.1\r\nHo")
        old = reload(server, number)
        if number % 2 == 0:
            for conn in idle:
                assert ask(conn) not in old
        begun.send(b"st: test\r\n\r\n")
        answer(begun)
        begun.close()
    for conn in idle + fresh:
        ask(conn)
    traffic.stop()
    # A connection that was closed would have failed above; and none of the server's own accord:
    for conn in idle + fresh:
        assert conn.is_quiet(0.01)


def test_a_request_in_progress_keeps_its_connection(two):
    """Its worker drains; the response is the old worker's, the connection goes on with a new one."""
    server = two()
    held = Held(server)
    for conn in held.conns:
        ask(conn)
    old = reload(server, 1)
    held.end()
    assert ask(held.holder) not in old
    for conn in held.conns:
        assert ask(conn) not in old


def test_a_client_that_sends_at_the_moment_of_the_reload(two):
    """Single requests on idle connections, sent whatever the server does at that moment."""
    server = two(workers=1)
    conns = [server.connect() for _ in range(20)]
    for number in range(1, 6):
        server.process.send_signal(signal.SIGHUP)
        for conn in conns:
            ask(conn)
            time.sleep(0.005)
        while len(re.findall("the reload is complete", server.log())) < number:
            time.sleep(0.01)
    for conn in conns:
        ask(conn)


def test_a_worker_that_leaves_gives_its_connections_away(two):
    """SIGTERM to a worker alone."""
    server = two()
    (leaving, conns), _ = connect_to_each(server).items()
    os.kill(leaving, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while leaving in server.worker_pids():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for conn in conns:
        assert ask(conn) != leaving


@pytest.mark.parametrize("threads", [1, 4])
def test_connections_outlive_recycled_workers(two, threads):
    server = two("--max-requests", "25", "--recycle-jitter", "0", "--threads", str(threads))
    conns = [server.connect() for _ in range(6)]
    pids = set()
    deadline = time.monotonic() + 30
    while len(pids) < 6:
        pids.update(ask(conn) for conn in conns)
        assert time.monotonic() < deadline
    server.process.send_signal(signal.SIGHUP)
    server.wait_log("reload is complete")
    for conn in conns:
        ask(conn)


def test_the_last_worker_says_that_it_closes(two):
    """Nobody takes the connection: the response says so, or the connection ends between two."""
    server = two(workers=1)
    holder, idle = server.connect(), server.connect()
    ask(idle)
    hold(server, holder)
    server.process.send_signal(signal.SIGTERM)
    assert idle.at_end()
    go(server)
    response = holder.read_response()
    assert response.status == 200 and response.will_close
    assert holder.at_end()


def test_a_child_of_the_application_keeps_no_connection(serve):
    server = serve(
        """
        import os
        import time


        def app(environ, start_response):
            if environ["PATH_INFO"] == "/fork":
                pid = os.fork()
                if pid == 0:
                    time.sleep(60)
                    os._exit(0)
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"%d" % os.getpid()]
        """,
        "-w2",
    )
    server.wait_log("ready after")
    conns = [server.connect() for _ in range(6)]
    for conn in conns:
        conn.send(GET % b"/fork")
        assert conn.read_response().status == 200
    reload(server, 1)
    for conn in conns:
        conn.send(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        assert conn.read_response().status == 200
        assert conn.at_end()


def test_unix_sockets_move_too(serve):
    server = serve(APP, "-w2", bind="unix")
    server.wait_log("ready after")
    conns = [Connection(server.address) for _ in range(8)]
    for conn in conns:
        ask(conn)
    old = reload(server, 1)
    for conn in conns:
        assert ask(conn) not in old
    assert conns[0].sock.family == socket.AF_UNIX
