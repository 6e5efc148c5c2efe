"""What the ASGI specification asks of a server, where no other test of this folder has it.

docs/asgi-conformance.md lists all of it, with the tests.
"""

import ast
import threading

import pytest

from tests.asgi.conftest import LOOPS
from tests.front.raw import get
from tests.lib.gate import GATE, Gate
from tests.lib.websocket import BINARY, TEXT, WebSocket, handshake

APP = GATE + '''
import asyncio
import os
import threading

done = asyncio.Event()
started = None
begun = []


def plain(value):
    """Whether a message could be sent over a network: of what types its parts are."""
    if isinstance(value, dict):
        return all(type(key) is str and plain(part) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return all(plain(part) for part in value)
    return value is None or type(value) in (bytes, str, int, float, bool)


async def lifespan(scope, receive, send):
    global started
    started = dict(scope, thread=threading.current_thread() is threading.main_thread())
    await receive()
    if os.path.exists("gate"):
        await asyncio.get_running_loop().run_in_executor(None, wait_at_gate)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("shut down", flush=True)
    await asyncio.sleep(0.1)
    print("closed", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def websocket(scope, receive, send):
    await receive()
    await done.wait()
    await send({"type": "websocket.accept", "headers": [(b"x-late", b"1")]})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": repr((plain(message), message))})


async def app(scope, receive, send):
    if scope["type"] != "http":
        return await globals()[scope["type"]](scope, receive, send)
    path = scope["path"]
    headers = [(b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"3"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    body = repr({key: value for key, value in scope.items() if key != "state"}).encode()
    if path == "/started":
        body = repr(started).encode()
    elif path == "/message":
        body = repr([plain(scope), plain(await receive()), scope["state"] is not started["state"]]).encode()
    elif path == "/accept":
        done.set()
    elif path == "/waits":
        begun.append(path)
        await asyncio.sleep(0)
        await done.wait()
        print("answered", flush=True)
    elif path == "/begun":
        body = repr(begun).encode()
    elif path == "/head_first":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        begun.append(path)
        await done.wait()
        await send({"type": "http.response.body", "body": b"late"})
        return
    elif path == "/let_go_later":
        asyncio.get_running_loop().call_later(0.2, done.set)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
'''


@pytest.fixture(params=LOOPS)
def server(request, serve):
    return serve(APP, "-w", "1", "--loop", request.param)


def value(response):
    return ast.literal_eval(response.text)


def test_scopes_and_messages(server):
    for version in ("1.0", "1.1"):
        with server.connect() as conn:
            conn.send(get(version=version, target="/?a=%41"))
            found = value(conn.read_response())
        assert (found["http_version"], found["method"], found["query_string"]) == (version, "GET", b"a=%41")
    started = value(server.get("/started"))
    assert started.pop("thread") is True
    assert started == {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    assert value(server.get("/message")) == [True, True, True]


def test_headers_keep_their_order(server):
    with server.connect() as conn:
        conn.send(get("X-B: 1\r\nX-A: 2\r\nx-b: 3\r\nCookie: a=1\r\nCookie: b=2\r\n"))
        response = conn.read_response()
    expected = [("x-b", "1"), ("x-a", "2"), ("x-b", "3")]
    pairs = [(name.decode(), value.decode()) for name, value in value(response)["headers"]]
    assert [pair for pair in pairs if pair[0].startswith("x-")] == expected
    assert [pair for pair in pairs if pair[0] == "cookie"] == [("cookie", "a=1"), ("cookie", "b=2")]
    found = [(name.lower(), value) for name, value in response.headers]
    assert [pair for pair in found if pair[0].startswith("x-")] == expected
    assert [pair for pair in found if pair[0] == "set-cookie"] == [("set-cookie", "a=1"), ("set-cookie", "b=2")]


def test_no_head_before_the_first_of_the_body(server):
    """http.response.start alone sends nothing: until a body follows, the response may be another."""
    with server.connect() as conn:
        conn.send(get(target="/head_first"))
        while value(server.get("/begun")) != ["/head_first"]:
            pass
        assert conn.is_quiet(0.05)
        server.get("/accept")
        assert conn.read_response().body == b"late"


def test_a_handshake_waits_for_the_application(server):
    with server.connect() as conn:
        conn.send(handshake("/"))
        server.get("/")
        assert conn.is_quiet(0.05)
        server.get("/accept")
        head = conn.read_head()
        assert (head.status, head.header("x-late")) == (101, "1")
    with WebSocket(server) as ws:
        for opcode, data, key in ((TEXT, b"text", "text"), (BINARY, b"\xff", "bytes")):
            ws.send(opcode, data)
            plain, message = ast.literal_eval(ws.message()[1].decode())
            other = {"text": "bytes", "bytes": "text"}[key]
            assert plain and message.pop(other, None) is None
            assert message == {"type": "websocket.receive", key: data.decode() if key == "text" else data}
        ws.close()


def test_nobody_is_served_before_the_startup_is_complete(serve, tmp_path):
    with Gate(tmp_path) as gate:
        server = serve(APP, "-w", "1", start=False).spawn()
        server.wait_log("listening|listens|http://")
        with server.connect() as conn:
            conn.send(get(target="/"))
            assert conn.is_quiet(0.3)
            gate.let_go()
            assert conn.read_response().status == 200


def test_the_shutdown_comes_behind_the_last_response(server):
    """The process waits for what it answers."""
    with server.connect() as conn:
        conn.send(get(target="/waits"))
        while value(server.get("/begun")) != ["/waits"]:
            pass
        server.get("/let_go_later")
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        assert conn.read_response().status == 200
    stopper.join()
    said = [line for line in server.stdout().splitlines() if "HTTP/1.1" not in line]
    assert said == ["answered", "shut down", "closed"]
