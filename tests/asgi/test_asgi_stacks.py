"""What the tasks of an event loop wait for: `stoker stack`, and the log of requests that are too late."""

import json
import re
import socket

import pytest

from tests.asgi.conftest import LOOPS
from tests.front.raw import get
from tests.lib.gate import GATE, Gate
from tests.life.steady import command, wait_until

APP = (
    GATE
    + '''
import asyncio

begun = []


async def outer():
    await inner()


async def inner():
    await asyncio.sleep(60)


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    path = scope["path"]
    begun.append(path)
    if path == "/waits":
        await outer()
    elif path == "/child":
        await asyncio.create_task(outer(), name="the child")
    elif path == "/blocks":
        await asyncio.sleep(0)
        wait_at_gate()
    elif path == "/holds":
        await asyncio.sleep(0)
        wait_at_gate(True)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": " ".join(begun).encode()})
'''
)
OPTIONS = ("--lifespan", "off", "--graceful-timeout", "300ms")
CHAIN = r'File "[^"]+app\.py", line \d+ in inner\n  File "[^"]+", line \d+ in outer\n  File "[^"]+", line \d+ in app'


@pytest.fixture(params=LOOPS)
def start(request, serve, tmp_path):
    def start_server(*options):
        server = serve(APP, "-w", "1", "--loop", request.param, "--control", str(tmp_path / "c"), *OPTIONS, *options)
        server.stack = lambda *words: command(tmp_path / "c", "stack", *words).stdout
        return server

    return start_server


def ask(server, *paths):
    conns = []
    for path in paths:
        conns.append(server.connect())
        conns[-1].send(get(target=path))
    return conns


def test_tasks_that_wait(start):
    server = start()
    ask(server, "/waits?secret", "/child")
    wait_until(lambda: server.get("/").text.count("/waits /child"))
    text = server.stack()
    assert "Event loop: 3 tasks, 2 requests wait:" in text
    assert re.search(r"Task of GET /waits\S*, \d+\.\d+ s old, request \d+.*\n(  .*\n)*?  " + CHAIN, text)
    assert re.search(r"Task of GET /child, .* waits for the task 'the child'", text)
    assert re.search(r"Task 'the child'.*\n(  .*\n)*?.* in inner\n.* in outer\n", text)
    number = re.search(r"GET /waits\S*, .* request (\d+)", text)[1]
    only = server.stack("1", "--request", number)
    assert "/waits" in only and "/child" not in only


@pytest.mark.parametrize("path", ["/blocks", "/holds"])
def test_while_the_event_loop_is_blocked(start, tmp_path, path):
    with Gate(tmp_path) as gate:
        server = start()
        ask(server, "/waits")
        wait_until(lambda: "/waits" in server.get("/").text)
        conn = ask(server, path)[0]
        wait_until(lambda: "in wait_at_gate" in server.stack())
        text = server.stack()
        if path == "/blocks":
            assert re.search(r"Task of GET /waits.*\n(  .*\n)*?  " + CHAIN, text)
            assert "GET /blocks" in text
        else:
            assert "The interpreter is held by something outside of Python" in text
            assert re.search(r"request \d+: GET /waits, \d+\.\d+ s old\nrequest \d+: GET /holds", text)
        gate.let_go()
        assert conn.read_response().status == 200
        assert "in wait_at_gate" not in server.stack()


def test_the_log_of_a_deadline(start):
    server = start("--request-timeout", "200ms")
    conn = ask(server, "/waits")[0]
    assert conn.read_response().status == 504
    server.wait_log(r"GET /waits: its task waits at \(most recent call first\):")
    assert re.search(r"in inner\n.*in outer\n.*in app", server.log())


def test_requests_that_wait_are_named(start, tmp_path):
    server = start("--metrics", "/metrics", "--stats", str(tmp_path / "s"))
    ask(server, "/waits?a", "/child")
    wait_until(lambda: server.get("/").text.count("/waits /child"))
    show = lambda: command(tmp_path / "c", "status").stdout  # noqa: E731
    wait_until(lambda: "GET /waits waits for" in show() and "GET /child waits for" in show())
    assert "2 requests in event loops" in show()
    worker = json.loads(command(tmp_path / "c", "status", "--json").stdout)["workers"][0]
    assert [(request["waiting"], request["target"]) for request in worker["running"]] == [
        (True, "/waits"),
        (True, "/child"),
    ]
    text = server.get("/metrics").text
    assert "\nstoker_requests_suspended 2\n" in text
    assert int(re.search(r'^stoker_connections\{state="active"\} (\d+)', text, re.M)[1]) >= 2
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "s"))
        stats = json.loads(b"".join(iter(lambda: sock.recv(65536), b"")))
    running = stats["workers"][0]["stoker"]["running"]
    assert {request["target"] for request in running if request["waiting"]} == {"/waits", "/child"}
