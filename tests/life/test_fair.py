"""Requests are served in the order in which they came, whoever sends them."""

import select

import pytest

from tests.front.raw import get
from tests.lib.gate import GATE, Gate

APP = GATE + """
import time


def app(environ, start_response):
    if environ["QUERY_STRING"] == "wait":
        wait_at_gate()
    time.sleep(0.005 if environ["QUERY_STRING"] == "slow" else 0.001)
    if environ["QUERY_STRING"] in ("old", "slow"):
        with open("served", "a") as file:
            file.write(environ["QUERY_STRING"] + " ")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


def closed_loop(conns, rounds):
    """Each connection asks again when it has its answer, until one has had so many; the counts."""
    poller = select.epoll()
    counts = {}
    by_fd = {}
    for conn in conns:
        poller.register(conn.fileno(), select.EPOLLIN)
        counts[conn.fileno()] = 0
        by_fd[conn.fileno()] = conn
        conn.send(get())
    while max(counts.values()) < rounds:
        for fd, _ in poller.poll(20):
            assert by_fd[fd].read_response().body == b"ok"
            counts[fd] += 1
            by_fd[fd].send(get())
    poller.close()
    return sorted(counts.values())


@pytest.mark.parametrize("args", [("-w1",), ("-w1", "-t4"), ("-w1", "--no-takeover")], ids=" ".join)
def test_connections_get_the_same_share(serve, args):
    server = serve(APP, *args, ready="/")
    conns = [server.connect() for _ in range(40)]
    counts = closed_loop(conns, 30)
    assert counts[0] >= 20, counts
    for conn in conns:
        conn.close()


@pytest.mark.parametrize("option", ["--takeover", "--no-takeover"])
def test_new_connections_do_not_go_before_an_older_one(serve, tmp_path, option):
    """They come first to the accept queue, and have their turns with it."""
    server = serve(APP, "-w1", option, ready="/")
    with Gate(tmp_path) as gate, server.connect() as old, server.connect() as holder:
        old.send(get())
        assert old.read_response().status == 200
        holder.send(get("", "/?wait"))
        assert holder.is_quiet(0.1)
        new = [server.connect() for _ in range(40)]
        for conn in new:
            conn.send(get("", "/?slow"))
        old.send(get("", "/?old"))
        gate.let_go()
        assert old.read_response().status == 200
        for conn in new:
            assert conn.read_response().status == 200
            conn.close()
    served = (tmp_path / "served").read_text().split()
    assert served.index("old") <= 44 if option == "--takeover" else served.index("old") < 10, served


@pytest.mark.parametrize("workers, slow", [(2, 1), (4, 3)])
def test_nobody_waits_behind_a_slow_request(serve, tmp_path, workers, slow):
    """All workers but one are in a slow request: the connections that they hold are served all the
    same, by the one that is left, before any of the slow requests has its answer."""
    gate = Gate(tmp_path)
    server = serve(APP, "-w%d" % workers, ready="/")
    server.wait_log(r"\] info: ready after")
    conns = [server.connect() for _ in range(40)]
    for conn in conns:
        conn.send(get())
        assert conn.read_response().body == b"ok"
    stuck = []
    for _ in range(slow):
        stuck.append(server.connect())
        stuck[-1].send(get("", "/?wait"))
    for _ in range(5):
        for conn in conns:
            conn.send(get())
        for conn in conns:
            assert conn.read_response().body == b"ok"
    for conn in stuck:
        assert conn.is_quiet(0.001)
    gate.let_go(slow)
    for conn in stuck:
        assert conn.read_response().body == b"ok"
        conn.close()
    for conn in conns:
        conn.send(get())
        assert conn.read_response().body == b"ok"
        conn.close()
