"""WebSockets as an ASGI application sees them, and as a client sees those that the application ends."""

import asyncio
import importlib.util
import json
import os
import signal
import time

import pytest

from tests.lib.websocket import BINARY, CLOSE, PING, PONG, TEXT, WebSocket, frame, handshake

APP = """
    import asyncio, gc, json, time

    events, joined = [], set()

    async def connect(receive, send, **accept):
        assert (await receive()) == {"type": "websocket.connect"}
        await send({"type": "websocket.accept", **accept})

    async def echo(scope, receive, send):
        await connect(receive, send)
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                events.append([message["code"], message["reason"]])
                return
            await send({**message, "type": "websocket.send"})

    async def scope_of(scope, receive, send):
        await connect(receive, send)
        shown = {key: scope[key] for key in ("type", "scheme", "path", "raw_path", "query_string", "root_path",
                                             "subprotocols", "http_version", "extensions")}
        shown["method"] = scope.get("method")
        shown["header"] = dict(scope["headers"])[b"x-some"].decode()
        await send({"type": "websocket.send", "text": json.dumps(shown, default=repr)})
        await send({"type": "websocket.close"})

    async def protocol(scope, receive, send):
        name = scope["query_string"].decode() or None
        await connect(receive, send, subprotocol=name, headers=[(b"x-extra", b"yes"), (b"Set-Cookie", b"a=b")])
        await send({"type": "websocket.close", "code": 4001, "reason": "b\\u00fce"})

    async def header(scope, receive, send):
        try:
            await connect(receive, send, headers=[(b"upgrade", b"h2c")])
        except ValueError as error:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": str(error)})

    async def refuse(scope, receive, send):
        await receive()
        await send({"type": "websocket.close"})
        events.append((await receive())["type"])

    async def respond(scope, receive, send):
        assert "websocket.http.response" in scope["extensions"]
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"no")]})
        await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"are you"})

    async def raises(scope, receive, send):
        raise RuntimeError("before the handshake")

    async def nothing(scope, receive, send):
        await receive()

    async def raises_later(scope, receive, send):
        await connect(receive, send)
        await send({"type": "websocket.send", "text": "soon"})
        await receive()
        raise RuntimeError("behind the handshake")

    async def returns(scope, receive, send):
        await connect(receive, send)
        await send({"type": "websocket.send", "bytes": bytearray(b"bye")})

    async def mistakes(scope, receive, send):
        found = []

        async def attempt(**message):
            try:
                await send(message)
            except Exception as error:
                found.append(type(error).__name__)

        await attempt(type="websocket.send", text="too early")
        await attempt(type="http.response.start", status=200)
        await connect(receive, send)
        await attempt(type="websocket.accept")
        await attempt(type="websocket.send")
        await attempt(type="websocket.send", text=b"bytes")
        await attempt(type="websocket.send", text="\\ud800")
        await attempt(type="websocket.close", code=1005)
        await attempt(type="websocket.close", code=99999)
        await attempt(type="websocket.http.response.start", status=200)
        await send({"type": "websocket.send", "text": json.dumps(found)})
        await send({"type": "websocket.close"})
        await attempt(type="websocket.send", text="too late")
        await attempt(type="websocket.close")
        events.append(found[-2:])

    async def gone(scope, receive, send):
        await connect(receive, send)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        try:
            await send({"type": "websocket.send", "text": "anybody?"})
        except OSError:
            events.append("OSError")

    async def flood(scope, receive, send):
        await connect(receive, send)
        count = 0
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(65536)})
                count += 1
                events[:] = [count]
        except OSError:
            events.append("OSError")

    async def join(scope, receive, send):
        await connect(receive, send)
        joined.add(send)
        try:
            while True:
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    return
                for other in list(joined):
                    await other({"type": "websocket.send", "text": message["text"]})
        finally:
            joined.discard(send)

    async def deaf(scope, receive, send):
        await connect(receive, send)
        await asyncio.sleep(0.5)
        time.sleep(0.5)
        await echo_rest(receive, send)

    async def echo_rest(receive, send):
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            await send({**message, "type": "websocket.send"})

    async def compute(scope, receive, send):
        await connect(receive, send)
        message = await receive()
        time.sleep(1)
        await send({**message, "type": "websocket.send"})

    async def hold(scope, receive, send):
        await connect(receive, send)
        time.sleep(1)
        await echo_rest(receive, send)

    async def collect(scope, receive, send):
        await connect(receive, send)
        gc.collect()
        await send({"type": "websocket.send", "text": "collected"})

    async def late(scope, receive, send):
        await receive()
        await asyncio.sleep(0.1)
        await send({"type": "websocket.accept"})
        await echo_rest(receive, send)

    async def two(scope, receive, send):
        await connect(receive, send)

        async def ticks():
            for number in range(20):
                await send({"type": "websocket.send", "text": "tick"})
                await asyncio.sleep(0.01)

        task = asyncio.create_task(ticks())
        await echo_rest(receive, send)
        await task

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await globals()[scope["path"].strip("/") or "echo"](scope, receive, send)
        elif scope["type"] == "http":
            if scope["path"] == "/clear":
                events.clear()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": json.dumps(events).encode()})
"""
LOOPS = ["asyncio"] + (["uvloop"] if importlib.util.find_spec("uvloop") else [])


@pytest.fixture(scope="module", params=LOOPS)
def server(request, serve_module):
    return serve_module(APP, "--workers", "1", "--loop", request.param, "--websocket-max-message", "1m")


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not come to that"
        time.sleep(0.01)


def events(server):
    return server.get("/events").json()


# The handshake


def test_scope(server):
    fields = "Sec-WebSocket-Protocol: a, b\r\nsec-websocket-protocol: c\r\nX-Some: thing\r\n"
    with WebSocket(server, "/scope_of?x=%C3%BC", fields) as ws:
        found = json.loads(ws.message()[1])
        assert found["type"] == "websocket"
        assert found["scheme"] == "ws"
        assert found["path"] == "/scope_of"
        assert found["raw_path"] == repr(b"/scope_of")
        assert found["query_string"] == repr(b"x=%C3%BC")
        assert found["subprotocols"] == ["a", "b", "c"]
        assert found["method"] is None
        assert found["header"] == "thing"
        assert found["extensions"] == {"websocket.http.response": {}}
        ws.expect_close(1000, "")


def test_subprotocol_headers_and_reason(server):
    with WebSocket(server, "/protocol?v2.json", "Sec-WebSocket-Protocol: v1.json, v2.json\r\n") as ws:
        assert ws.response.header("sec-websocket-protocol") == "v2.json"
        assert ws.response.header("x-extra") == "yes"
        assert ws.response.header("set-cookie") == "a=b"
        assert ws.response.header("server") == "stoker"
        ws.expect_close(4001, "büe")
    with WebSocket(server, "/protocol") as ws:
        assert ws.response.header("sec-websocket-protocol") is None
        ws.expect_close(4001)
    with WebSocket(server, "/protocol?v9", "Sec-WebSocket-Protocol: v1.json\r\n") as ws:
        assert ws.response.status == 500


def test_a_header_that_is_not_the_applications(server):
    with WebSocket(server, "/header") as ws:
        assert b"upgrade" in ws.message()[1]
        ws.expect_close(1000)


def test_refused(server):
    server.get("/clear")
    with WebSocket(server, "/refuse") as ws:
        assert ws.response.status == 403
        ws.conn.send(b"GET /clear HTTP/1.1\r\nHost: x\r\n\r\n")
        assert ws.conn.read_response().status == 200
    with WebSocket(server, "/respond") as ws:
        assert (ws.response.status, ws.response.header("x-why")) == (401, "no")
        assert ws.response.body == b"who are you"


def test_failed_before_the_handshake(server):
    with WebSocket(server, "/raises") as ws:
        assert ws.response.status == 500
    server.wait_log("before the handshake")
    with WebSocket(server, "/nothing") as ws:
        assert ws.response.status == 500
    server.wait_log("returned without websocket.accept")


@pytest.mark.parametrize("wrong, status", [({"version": "8"}, 426), ({"key": "short"}, 400), ({"fields": "Content-Length: 2\r\n"}, 400)])
def test_wrong_handshakes(server, wrong, status):
    with server.connect() as conn:
        conn.send(handshake(**wrong))
        response = conn.read_response()
        assert response.status == status
        assert response.will_close
        if status == 426:
            assert response.header("sec-websocket-version") == "13"
            assert response.header("upgrade") == "websocket"


def test_other_upgrades_are_ordinary_requests(server):
    with server.connect() as conn:
        conn.send(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
        assert conn.read_response().status == 200
        conn.send(handshake("/").replace(b"GET", b"POST").replace(b"Host", b"Content-Length: 0\r\nHost"))
        assert conn.read_response().status == 200


def test_frames_behind_the_handshake(server):
    for target in ("/echo", "/late"):
        with WebSocket(server, target, behind=frame(TEXT, b"early") + frame(PING, b"?")) as ws:
            assert {ws.message(), ws.message()} == {(TEXT, b"early"), (PONG, b"?")}
            ws.echo(TEXT, b"later")
            ws.close()


def test_a_handshake_in_pieces(server):
    """What was kept of the head is no frame."""
    data = handshake("/echo") + frame(TEXT, b"early") + frame(PING, b"?")
    for cut in [*range(1, len(data), 13), len(data) - 3]:
        with server.connect() as conn:
            conn.send(data[:cut])
            time.sleep(0.002)
            conn.send(data[cut:])
            assert conn.read_head().status == 101
            assert sorted(conn.read_bytes(10)) == sorted(b"\x81\x05early\x8a\x01?"), cut
            conn.reset()


def test_handshakes_that_wait_for_a_busy_application(server):
    """Another thread reads them then, and keeps them."""
    with WebSocket(server, "/compute") as busy, server.connect() as conn, server.connect() as other:
        busy.text("result")
        time.sleep(0.3)
        conn.send(handshake("/echo") + frame(TEXT, b"early"))
        other.send(handshake("/echo")[:40])
        time.sleep(0.1)
        other.send(handshake("/echo")[40:] + frame(TEXT, b"early"))
        for waits in (conn, other):
            assert waits.read_head().status == 101
            assert waits.read_bytes(7) == b"\x81\x05early"


def test_frames_in_order_around_a_handshake(server):
    """Those that came with it precede those that another thread reads while the application computes."""
    whole = b"".join(frame(TEXT, b"%d" % number) for number in range(100))
    for cut in (0, 3, len(whole) // 2):
        with WebSocket(server, "/hold", behind=whole[:cut]) as ws:
            time.sleep(0.2)
            ws.conn.send(whole[cut:])
            for number in range(100):
                ws.expect(TEXT, b"%d" % number)
            ws.close()


# Messages


def test_text_and_bytes(server):
    with WebSocket(server) as ws:
        ws.echo(TEXT, "ünïcödé \U0001f600".encode())
        ws.echo(BINARY, bytes(range(256)))
        ws.echo(TEXT, b"")
        ws.echo(BINARY, b"")


def test_messages_while_the_application_sleeps_and_computes(server):
    with WebSocket(server, "/deaf") as ws:
        for number in range(200):
            ws.text("%d" % number)
        ws.send(PING, b"now")
        ws.expect(PONG, b"now")
        for number in range(200):
            ws.expect(TEXT, b"%d" % number)
        ws.close()


def test_pings_while_the_application_computes(server):
    """Another thread turns the loop then: the pong comes before what is computed."""
    with WebSocket(server, "/compute") as ws:
        ws.text("result")
        time.sleep(0.3)
        ws.send(PING, b"alive?")
        ws.expect(PONG, b"alive?")
        ws.expect(TEXT, b"result")
        ws.expect_close(1000)


def test_more_than_may_wait(server):
    """The connection is not read any more while enough waits, and then again."""
    data = [os.urandom(30000) for _ in range(20)]
    with WebSocket(server, "/deaf") as ws:
        for one in data:
            ws.send(BINARY, one)
        for one in data:
            ws.expect(BINARY, one)
        ws.close()


def test_two_tasks(server):
    with WebSocket(server, "/two") as ws:
        found = []
        for number in range(20):
            ws.text("echo")
        while len(found) < 40:
            found.append(ws.message()[1])
        assert sorted(found) == [b"echo"] * 20 + [b"tick"] * 20
        ws.close()


def test_nothing_is_collected_that_waits(server):
    """The event loop holds tasks weakly: the server has to hold those that wait for it."""
    sockets = [WebSocket(server) for _ in range(50)]
    with WebSocket(server, "/collect") as ws:
        ws.expect(TEXT, b"collected")
    for ws in sockets:
        ws.echo(TEXT, b"still there")
        ws.close()
        ws.conn.close()


def test_broadcast(server):
    clients = [WebSocket(server, "/join") for _ in range(20)]
    clients[3].text("hello all")
    for ws in clients:
        ws.expect(TEXT, b"hello all")
    for ws in clients:
        ws.close()
        ws.conn.close()


def test_a_client_that_does_not_read(server):
    server.get("/clear")
    with WebSocket(server, "/flood") as ws:
        until(lambda: events(server) and events(server)[0] > 2)
        seen = -1
        while seen != events(server)[0]:
            seen = events(server)[0]
            time.sleep(0.3)
        assert seen < 1000  # it waits
        for _ in range(seen + 20):
            assert ws.message() == (BINARY, bytes(65536))
        until(lambda: events(server)[0] > seen)
        ws.conn.reset()
    until(lambda: events(server)[-1] == "OSError")


def test_too_big(server):
    with WebSocket(server) as ws:
        ws.echo(BINARY, bytes(1 << 20))
        ws.conn.send(frame(BINARY, bytes((1 << 20) + 1))[:14])
        ws.expect_close(1009)
    with WebSocket(server, offer="permessage-deflate") as ws:
        ws.packed(BINARY, bytes(1 << 20))
        ws.expect(BINARY, bytes(1 << 20))
        ws.packed(BINARY, bytes((1 << 20) + 1))
        ws.expect_close(1009)


# The end


@pytest.mark.parametrize("code, reason, told", [(1000, b"", 1000), (4321, "tschüß".encode(), 4321), (None, b"", 1005)])
def test_the_client_closes(server, code, reason, told):
    server.get("/clear")
    with WebSocket(server) as ws:
        ws.close(code, reason)
    until(lambda: events(server) == [[told, reason.decode()]])


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_the_client_vanishes(server, how):
    server.get("/clear")
    ws = WebSocket(server)
    if how == "reset":
        ws.conn.reset()
    elif how == "half":
        ws.conn.half_close()
    else:
        ws.conn.close()
    until(lambda: events(server) == [[1006, ""]])
    ws.conn.close()


def test_what_broke_the_protocol_is_told(server):
    server.get("/clear")
    with WebSocket(server) as ws:
        ws.send(3)
        ws.expect_close(1002)
    until(lambda: events(server) == [[1002, "reserved opcode"]])


def test_sending_to_a_client_that_has_left(server):
    server.get("/clear")
    with WebSocket(server, "/gone") as ws:
        ws.send(CLOSE, b"\x03\xe8")
        assert ws.message() == (CLOSE, b"\x03\xe8")
    until(lambda: events(server) == ["OSError"])


def test_the_application_returns_or_raises(server):
    with WebSocket(server, "/returns") as ws:
        ws.expect(BINARY, b"bye")
        ws.expect_close(1000)
    with WebSocket(server, "/raises_later") as ws:
        ws.expect(TEXT, b"soon")
        ws.text("go on")
        ws.expect_close(1011)
    server.wait_log("behind the handshake")


def test_mistakes_raise(server):
    server.get("/clear")
    with WebSocket(server, "/mistakes") as ws:
        found = json.loads(ws.message()[1])
        assert found == ["RuntimeError", "RuntimeError", "RuntimeError", "TypeError", "TypeError", "UnicodeEncodeError",
                         "ValueError", "ValueError", "RuntimeError"]
        ws.expect_close(1000)
    until(lambda: events(server) == [["RuntimeError", "RuntimeError"]])


def test_a_client_that_does_not_answer_the_close(server):
    """It is not waited for for ever, and what it sends is not read for ever."""
    with WebSocket(server, "/returns") as ws:
        ws.expect(BINARY, b"bye")
        assert ws.message() == (CLOSE, b"\x03\xe8")
        ws.text("still talking")
        ws.expect_end()


# Time and drain


def test_pings(serve):
    server = serve(APP, "--workers", "1", "--websocket-ping-interval", "0.3s", "--websocket-ping-timeout", "1s")
    with WebSocket(server) as ws, WebSocket(server) as silent:
        for _ in range(3):
            opcode, payload = ws.message(pings=True)
            assert opcode == PING
            ws.send(PONG, payload)
        ws.echo(TEXT, b"alive")
        while silent.message(pings=True)[0] == PING:
            pass
        silent.expect_end()
        ws.echo(TEXT, b"still alive")
    until(lambda: [1006, ""] in events(server) or [1011, "no answer to a ping"] in events(server))


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 1001), (signal.SIGHUP, 1012)])
def test_drain(serve, number, code):
    server = serve(APP, "--workers", "1")
    sockets = [WebSocket(server) for _ in range(3)]
    for ws in sockets:
        ws.echo(TEXT, b"before")
    server.send_signal(number)
    for ws in sockets:
        ws.expect_close(code)
        ws.conn.close()
    if number == signal.SIGTERM:
        server.wait()
    else:
        with WebSocket(server) as ws:
            ws.echo(TEXT, b"behind")
            ws.close()


def test_no_compression(serve):
    server = serve(APP, "--workers", "1", "--websocket-compression", "off")
    with WebSocket(server, offer="permessage-deflate") as ws:
        assert ws.extension == ""
        ws.echo(TEXT, b"plain")


def test_access_log(serve):
    server = serve(APP, "--workers", "1")
    with WebSocket(server, "/echo?access") as ws:
        ws.echo(TEXT, b"x" * 100)
        ws.close()
    line = server.wait_log(r'"GET /echo\?access HTTP/1.1" 101 100', out=True)
    assert line


def test_a_wsgi_application_gets_an_ordinary_request(serve):
    server = serve(
        """
        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [environ["HTTP_UPGRADE"].encode()]
        """
    )
    with server.connect() as conn:
        conn.send(handshake("/"))
        assert conn.read_response().body == b"websocket"


# A client of others


def test_websockets(server):
    websockets = pytest.importorskip("websockets")

    async def run():
        url = "ws://127.0.0.1:%d/" % server.port
        async with websockets.connect(url, subprotocols=["a"], max_size=None) as ws:
            assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
            for message in ("hello", b"\x00\xff", "", "ü" * 100000, os.urandom(500000)):
                await ws.send(message)
                assert await ws.recv() == message
            await ws.send(["in ", "frag", "ments"])
            assert await ws.recv() == "in fragments"
            await asyncio.wait_for(await ws.ping(), 20)
        assert ws.close_code == 1000

        async def many(number):
            async with websockets.connect(url) as ws:
                for step in range(20):
                    text = "%d %d " % (number, step) * 20
                    await ws.send(text)
                    assert await ws.recv() == text

        await asyncio.gather(*(many(number) for number in range(50)))

    asyncio.run(run())
