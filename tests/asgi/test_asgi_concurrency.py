"""max-concurrency: how many requests ASGI applications have at a time, and what becomes of the others."""

import json
import re
import time

import pytest

from tests.asgi.conftest import LOOPS
from tests.front.raw import get
from tests.lib.websocket import TEXT, WebSocket, handshake

APP = """
    import asyncio, json

    gates = {}
    called = []
    now = most = 0

    def gate(name):
        return gates.setdefault(name, asyncio.Event())

    async def socket(scope, receive, send):
        await receive()
        if scope["path"] == "/late":
            await gate("late").wait()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                for event in gates.values():
                    event.set()
                return
            if message["text"]:
                gate(message["text"]).set()
            await send({"type": "websocket.send", "text": json.dumps({"called": called, "now": now, "most": most})})

    async def app(scope, receive, send):
        global now, most
        if scope["type"] == "websocket":
            return await socket(scope, receive, send)
        if scope["type"] != "http":
            return
        path, query = scope["path"], scope["query_string"].decode()
        called.append(path + "?" + query if query else path)
        now += 1
        most = max(most, now)
        try:
            if path == "/hold":
                await gate(query).wait()
            if path == "/leave":
                while (await receive())["type"] != "http.disconnect":
                    pass
            if path == "/sleep":
                await asyncio.sleep(0.001)
            if path == "/echo":
                body, more = b"", True
                while more:
                    message = await receive()
                    body, more = body + message.get("body", b""), message.get("more_body", False)
                query = str(len(body))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": query.encode()})
        finally:
            now -= 1

    def plain(environ, start_response):
        start_response("200 OK", [])
        return [b"plain"]
"""


class Control:
    """A WebSocket, which does not count, to ask and to open gates."""

    def __init__(self, server):
        self.socket = WebSocket(server, "/control")

    def ask(self, name=""):
        self.socket.text(name)
        kind, data = self.socket.message()
        assert kind == TEXT
        return json.loads(data)

    def until(self, condition):
        end = time.monotonic() + 20
        while not condition(found := self.ask()):
            assert time.monotonic() < end, found
            time.sleep(0.005)
        return found


@pytest.fixture(params=LOOPS)
def start(request, serve):
    def run(*args):
        server = serve(APP, "-w1", "--loop", request.param, "--metrics", "/metrics", *args)
        return server, Control(server)

    return run


def ask(server, target):
    conn = server.connect()
    conn.send(get(target=target))
    return conn


def until_queued(server, count):
    """Until so many complete requests wait, and no more."""
    end = time.monotonic() + 20
    while True:
        found = re.search(r"^stoker_requests_queued (\d+)$", server.get("/metrics").text, re.MULTILINE)
        if int(found.group(1)) == count:
            return
        assert time.monotonic() < end, found.group()
        time.sleep(0.005)


def hold(server, control, *names):
    """Requests that are in the application."""
    conns = [ask(server, "/hold?" + name) for name in names]
    control.until(lambda found: found["now"] == len(names))
    return conns


def test_the_others_wait(start):
    server, control = start("--max-concurrency", "2")
    first, second = hold(server, control, "a", "b")
    others = [ask(server, "/order?%d" % number) for number in range(3)]
    until_queued(server, 3)
    assert control.ask()["called"][-2:] == ["/hold?a", "/hold?b"]
    control.ask("a")
    assert first.read_response().body == b"a"
    assert sorted(conn.read_response().body for conn in others) == [b"0", b"1", b"2"]
    control.ask("b")
    assert second.read_response().body == b"b"
    for conn in others:
        conn.send(get(target="/again"))
        assert conn.read_response().status == 200


def test_they_come_in_their_order(start):
    server, control = start("--max-concurrency", "1")
    (first,) = hold(server, control, "a")
    others = []
    for number in range(5):
        others.append(ask(server, "/order?%d" % number))
        until_queued(server, number + 1)
    control.ask("a")
    assert [conn.read_response().body for conn in others] == [b"%d" % number for number in range(5)]
    assert control.ask()["called"][-5:] == ["/order?%d" % number for number in range(5)]
    first.close()


@pytest.mark.parametrize("count", [1, 4])
def test_never_more(start, count):
    server, control = start("--max-concurrency", str(count))
    conns = [server.connect() for _ in range(30)]
    for _ in range(3):
        for conn in conns:
            conn.send(get(target="/sleep") + get(target="/sleep"))
        for conn in conns:
            assert [conn.read_response().status for _ in range(2)] == [200, 200]
    found = control.ask()
    assert len(found["called"]) == 180 + found["called"].count("/") and found["most"] == count and found["now"] == 0


def test_bodies(start):
    server, control = start("--max-concurrency", "1")
    (first,) = hold(server, control, "a")
    conns = []
    for size in (10, 1000, 300000):
        conn = server.connect()
        conn.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        conn.send(b"x" * min(size, 100000))
        conns.append(conn)
    until_queued(server, 3)
    control.ask("a")
    conns[2].send(b"x" * 200000)
    assert [conn.read_response().body for conn in conns] == [b"10", b"1000", b"300000"]
    assert first.read_response().status == 200


def test_max_queue(start):
    server, control = start("--max-concurrency", "1", "--max-queue", "2")
    (first,) = hold(server, control, "a")
    waiting = [ask(server, "/?%d" % number) for number in range(2)]
    until_queued(server, 2)
    more = ask(server, "/?2")
    refused = more.read_response()
    assert (refused.status, refused.header("retry-after"), refused.will_close) == (503, "1", False)
    control.ask("a")
    assert [conn.read_response().body for conn in (first, *waiting)] == [b"a", b"0", b"1"]
    more.send(get(target="/?3"))
    assert more.read_response().body == b"3"
    assert "/?2" not in control.ask()["called"]
    server.wait_log("answered 503 to 1 request: .*max-concurrency requests ran.*max-queue")


def test_max_queue_age(start):
    server, control = start("--max-concurrency", "1", "--max-queue-age", "200ms")
    (first,) = hold(server, control, "a")
    refused = ask(server, "/?1").read_response()
    assert (refused.status, refused.header("retry-after")) == (503, "1")
    control.ask("a")
    assert first.read_response().body == b"a"
    assert "/?1" not in control.ask()["called"]


def test_request_timeout(start):
    server, control = start("--max-concurrency", "1", "--request-timeout", "1s")
    (first,) = hold(server, control, "a")
    second = ask(server, "/hold?b")
    assert {first.read_response().status, second.read_response().status} == {504}
    third = ask(server, "/?3")
    assert third.read_response().body == b"3"
    assert control.ask()["now"] == 0


def test_clients_that_leave(start):
    server, control = start("--max-concurrency", "1")
    leaving = ask(server, "/leave")
    control.until(lambda found: found["now"] == 1)
    waiting = ask(server, "/?1")
    given_up = ask(server, "/?2")
    until_queued(server, 2)
    given_up.reset()
    leaving.reset()
    assert waiting.read_response().body == b"1"
    assert server.get("/?3").body == b"3"


def test_websockets(start):
    """They count until they are accepted."""
    server, control = start("--max-concurrency", "1")
    sockets = [WebSocket(server, "/control") for _ in range(3)]
    assert server.get("/?1").body == b"1"
    late = server.connect()
    late.send(handshake("/late"))
    waiting = ask(server, "/?2")
    until_queued(server, 1)
    control.ask("late")
    assert late.read_head().status == 101
    assert waiting.read_response().body == b"2"
    for socket in sockets:
        socket.close()
    refused = ask(server, "/hold?a")
    control.until(lambda found: found["now"] == 1)
    behind = server.connect()
    behind.send(handshake("/control"))
    until_queued(server, 1)
    control.ask("a")
    assert behind.read_head().status == 101 and refused.read_response().status == 200


def test_wsgi_beside_it(start):
    server, control = start("--max-concurrency", "1", "--mount", "/plain=app:plain")
    (first,) = hold(server, control, "a")
    waiting = ask(server, "/?1")
    assert [server.get("/plain").body for _ in range(20)] == [b"plain"] * 20
    control.ask("a")
    assert first.read_response().body == b"a" and waiting.read_response().body == b"1"


def test_a_reload_leaves_nobody_waiting(start):
    server, control = start("--max-concurrency", "1", "--graceful-timeout", "20s")
    (first,) = hold(server, control, "a")
    waiting = [ask(server, "/?%d" % number) for number in range(3)]
    until_queued(server, 3)
    server.send_signal(1)  # closes the WebSocket, which opens the gate
    assert [conn.read_response().body for conn in (first, *waiting)] == [b"a", b"0", b"1", b"2"]
    server.wait_log("the reload is complete")


@pytest.mark.parametrize("options", [[], ["--interface", "wsgi"], ["--preload"]])
def test_without_an_asgi_application(serve, tmp_path, options):
    (tmp_path / "plain.py").write_text("def app(environ, start_response):\n    pass\n")
    server = serve("plain:app", "-w1", "--max-concurrency", "5", *options, start=False, check=False)
    server.spawn()
    assert server.wait() != 0
    assert "max-concurrency is a limit of ASGI applications" in server.log()
