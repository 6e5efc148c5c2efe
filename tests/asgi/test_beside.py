"""Asynchronous applications in an event loop, and WSGI ones on threads beside it."""

import os
import signal
import threading

import pytest

from tests.asgi.conftest import LOOPS
from tests.front.raw import get
from tests.lib.gate import GATE, Gate
from tests.life.steady import Steady, wait_until

FLASK = (
    GATE
    + '''
import threading
import time

import flask

app = flask.Flask(__name__)
fates = []


@app.route("/thread")
def thread():
    return flask.jsonify([threading.current_thread().name, flask.request.script_root])


@app.route("/echo", methods=["POST"])
def echo():
    return flask.request.get_data()


@app.route("/held")
def held():
    wait_at_gate()
    return "let go"


@app.route("/stuck")
def stuck():
    try:
        while True:
            time.sleep(0.01)
    except BaseException as error:
        fates.append(type(error).__name__)
        raise


@app.route("/fates")
def told():
    return flask.jsonify(fates)
'''
)

STARLETTE = """
import asyncio
import os
import threading
import time

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route


async def thread(request):
    return JSONResponse([threading.current_thread().name, request.scope["root_path"]])


async def wait(request):
    await asyncio.sleep(0.001)
    return PlainTextResponse("waited")


async def blocked(request):
    await asyncio.sleep(0)
    fd = os.open("gate", os.O_RDWR)
    os.read(fd, 1)
    os.close(fd)
    return PlainTextResponse("let go")


app = Starlette(routes=[Route("/thread", thread), Route("/wait", wait), Route("/blocked", blocked)])
"""


@pytest.fixture(params=LOOPS)
def start(request, serve, tmp_path):
    pytest.importorskip("flask")
    pytest.importorskip("starlette")
    (tmp_path / "sync.py").write_text(FLASK)
    (tmp_path / "app.py").write_text(STARLETTE)

    def start_server(*options, **kwargs):
        return serve("app:app", "--mount", "/s=sync:app", "--loop", request.param, *options, **kwargs)

    return start_server


def held(server, count):
    """Requests that the Flask application holds until the gate opens, on connections of their own."""
    found = [server.connect() for _ in range(count)]
    for conn in found:
        conn.send(get(target="/s/held"))
    return found


def test_each_runs_where_it_belongs(start):
    server = start("-w", "1", "--threads", "2")
    with server.connect() as conn:
        for _ in range(3):
            assert server.get("/thread", conn=conn).json() == ["MainThread", ""]
            name, root = server.get("/s/thread", conn=conn).json()
            assert name in ("stoker-2", "stoker-3") and root == "/s"
            assert server.post("/s/echo", b"x" * 100_000, conn=conn).body == b"x" * 100_000
    server.wait_log(r"in the event loop: app:app; on 2 threads beside it: sync:app \(mount /s\)")


@pytest.mark.parametrize("threads", [1, 3])
def test_a_view_that_waits_stops_no_coroutine(start, tmp_path, threads):
    with Gate(tmp_path) as gate:
        server = start("-w", "1", "--threads", str(threads), "--health-path", "/healthz")
        conns = held(server, threads + 2)  # two of them wait for a thread
        for path, answer in (("/wait", "waited"), ("/healthz", None)):
            for _ in range(10):
                response = server.get(path)
                assert response.status == 200 and answer in (None, response.text)
        gate.let_go(len(conns))
        for conn in conns:
            assert conn.read_response().text == "let go"
            conn.close()


def test_a_blocked_event_loop_stops_no_thread(start, tmp_path):
    with Gate(tmp_path) as gate:
        server = start("-w", "1")
        with server.connect() as blocked, server.connect() as waiting:
            blocked.send(get(target="/blocked"))
            waiting.send(get(target="/thread"))
            for _ in range(3):
                assert server.get("/s/thread").json()[0] == "stoker-2"
            gate.let_go()
            assert blocked.read_response().text == "let go"
            assert waiting.read_response().json()[0] == "MainThread"


def test_connections_that_alternate(start):
    server = start("-w", "1", "--threads", "3")
    failures = []

    def ask(number):
        try:
            with server.connect() as conn:
                for turn in range(40):
                    sync = (turn + number) % 2
                    response = server.get("/s/thread" if sync else "/thread" if turn % 3 else "/wait", conn=conn)
                    assert response.status == 200
                    assert sync == (b"stoker-" in response.body)
                # The same without waiting for the answers.
                for turn in range(20):
                    conn.send(get(target="/s/thread" if turn % 2 else "/wait"))
                for turn in range(20):
                    assert (turn % 2 == 1) == (b"stoker-" in conn.read_response().body)
        except Exception as error:  # noqa: BLE001: a thread hands it to the test
            failures.append(repr(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_deadlines(start):
    server = start("-w", "1", "--threads", "2", "--request-timeout", "400ms")
    with server.connect() as conn:
        conn.send(get(target="/s/stuck"))
        server.get("/wait")
        assert conn.read_response().status == 504
    wait_until(lambda: "RequestTimeout" in server.get("/s/fates").json())
    assert "time.sleep" not in server.get("/thread").text
    server.wait_log(r"GET /s/stuck: not answered within .*the call is cancelled")


def test_reload_and_killed_workers(start):
    server = start("-w", "2", "--threads", "2")
    with Steady(server, "/s/thread") as sync, Steady(server, "/wait") as waiting:
        sync.more(20)
        server.send_signal(signal.SIGHUP)
        server.wait_log("the reload is complete")
        sync.more(20)
        waiting.more(20)
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.wait_log("killed by SIGKILL|died|exited")
    for _ in range(10):
        assert server.get("/s/thread").json()[1] == "/s"
        assert server.get("/wait").text == "waited"


def test_what_was_begun_is_finished(start, tmp_path):
    with Gate(tmp_path) as gate:
        server = start("-w", "1", "--threads", "1")
        conns = held(server, 3)
        server.get("/wait")
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        server.wait_log("stopping")
        gate.let_go(3)
        for conn in conns:
            assert conn.read_response().text == "let go"
            conn.close()
        stopper.join()
