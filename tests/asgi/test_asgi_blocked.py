"""Handlers that keep the event loop from going on, after they have waited for something."""

import json
import os
import socket

import pytest

from tests.asgi.conftest import LOOPS
from tests.front.raw import get
from tests.lib.gate import GATE, Gate
from tests.life.steady import wait_until

APP = (
    GATE
    + '''
import asyncio
import json
import time

fates = []
mutex = ctypes.create_string_buffer(64)


def deadlock():
    """Outside Python, with its lock, where no signal ends it."""
    libc = ctypes.PyDLL(None)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


def spin():
    while True:
        pass


def sleep():
    while True:
        time.sleep(60)


def compute(name):
    try:
        globals()[name]()
    except BaseException as error:
        fates.append(type(error).__name__)
        with open("fates", "a") as file:
            print(type(error).__name__, file=file)
        raise


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    name = scope["path"][1:]
    query = scope["query_string"].decode()
    if name == "late":
        await asyncio.sleep(0)
        compute(query)
    elif name == "child":
        async def child():
            deadlock()
        await asyncio.create_task(child())
    elif name == "native":
        await asyncio.sleep(0)
        deadlock()
    elif name == "held":
        await asyncio.sleep(0)
        wait_at_gate()
    elif name == "waits":
        try:
            await asyncio.sleep(60)
        except BaseException as error:
            fates.append("waits " + type(error).__name__)
            raise
    body = json.dumps([os.getpid(), fates]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
'''
)


@pytest.fixture(params=LOOPS)
def start(request, serve):
    def start_server(*options, workers="1"):
        return serve(APP, "-w", workers, "--loop", request.param, "--lifespan", "off", *options)

    return start_server


def states(folder):
    """By worker, as the statistics have it."""
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile() as file:
        sock.connect(str(folder / "stats.sock"))
        return [worker["status"] for worker in json.load(file)["workers"]]


def fates(server):
    return server.get("/").json()[1]


@pytest.mark.parametrize("way", ["spin", "sleep"])
def test_a_step_that_does_not_end_is_interrupted(start, tmp_path, way):
    server = start("--request-timeout", "300ms")
    pid = server.get("/").json()[0]
    with server.connect() as conn:
        conn.send(get(target="/late?" + way))
        assert conn.read_response().status == 504
    wait_until(lambda: (tmp_path / "fates").exists())
    server.wait_log(r"GET /late\?%s: keeps the event loop from going on[^\0]*in %s\b" % (way, way))
    server.wait_log("has cancelled a request: a new one is started")
    wait_until(lambda: pid not in server.worker_pids())
    assert server.get("/").json()[0] != pid
    assert (tmp_path / "fates").read_text() == "RequestTimeout\n"


def test_a_step_of_another_request_is_left_alone(start, tmp_path):
    """The first is too late while the second has the event loop."""
    with Gate(tmp_path) as gate:
        server = start("--request-timeout", "500ms", "--cancel-grace", "20s")
        with server.connect() as late, server.connect() as conn:
            late.send(get(target="/waits"))
            server.get("/")
            conn.send(get(target="/held"))
            assert late.read_response().status == 504
            gate.let_go()
            assert conn.read_response().status in (200, 504)  # its own time may be over as well
        wait_until(lambda: "waits CancelledError" in fates(server))
        assert "RequestTimeout" not in fates(server)


@pytest.mark.parametrize("path", ["/native", "/child"])
def test_what_cannot_be_interrupted_has_the_worker_replaced(start, path):
    server = start("--request-timeout", "200ms", "--cancel-grace", "300ms", "--graceful-timeout", "20s")
    pid = server.get("/").json()[0]
    with server.connect() as conn:
        conn.send(get(target=path))
        assert conn.read_response().status == 504
        server.wait_log("this worker is replaced")
        wait_until(lambda: pid not in server.worker_pids())
        assert server.get("/").json()[0] != pid


def test_requests_go_where_the_event_loop_waits(start, tmp_path):
    with Gate(tmp_path) as gate:
        server = start("--stats", str(tmp_path / "stats.sock"), workers="2")
        server.wait_log(r"\] info: ready after")
        conns = {pid: [] for pid in server.worker_pids()}
        while not all(len(found) > 2 for found in conns.values()):
            conn = server.connect()
            conn.send(get(target="/"))
            conns[conn.read_response().json()[0]].append(conn)
        wait_until(lambda: states(tmp_path) == ["idle", "idle"])
        blocked, idle = conns
        holder, *others = conns[blocked]
        holder.send(get(target="/held"))
        wait_until(lambda: sorted(states(tmp_path)) == ["busy", "idle"])
        for conn in others:
            conn.send(get(target="/"))
            assert conn.read_response().json()[0] == idle
        gate.let_go()
        assert holder.read_response().json()[0] == blocked


def test_clients_that_leave(start, tmp_path):
    server = start("--cancel-on-disconnect", "--cancel-grace", "20s")
    conn = server.connect()
    conn.send(get(target="/late?sleep"))
    conn.reset()
    wait_until(lambda: "ClientDisconnected" in fates(server))
