"""uwsgi.websocket_*: the WebSockets of WSGI applications, in threads and in greenlets, beside uWSGI's own."""

import asyncio
import textwrap

import pytest

from tests.compat_uwsgi.test_as_uwsgi import Theirs
from tests.lib.server import free_port
from tests.lib.websocket import BINARY, CLOSE, CONT, PING, PONG, TEXT, WebSocket, frame

APP = """
    import select, time
    import uwsgi

    ends = []

    def application(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/ends":
            start_response("200 OK", [])
            return [" ".join(ends).encode()]
        if path == "/plain":
            start_response("200 OK", [])
            try:
                uwsgi.websocket_recv()
            except OSError as error:
                return [("%s %s %d" % (type(error).__name__, error, uwsgi.connection_fd() > 2)).encode()]
        if path == "/late":
            start_response("200 OK", [])
            try:
                uwsgi.websocket_handshake()
            except OSError as error:
                return [str(error).encode()]
        uwsgi.websocket_handshake(environ["HTTP_SEC_WEBSOCKET_KEY"], environ.get("HTTP_ORIGIN", ""))
        if path == "/leave":
            uwsgi.websocket_send("bye")
            uwsgi.disconnect()
            start_response("200 OK", [])
            return ""
        if path == "/nb":
            while True:
                select.select([uwsgi.connection_fd()], [], [], 5)
                message = uwsgi.websocket_recv_nb()
                if message:
                    uwsgi.websocket_send(message)
        while True:
            try:
                message = uwsgi.websocket_recv()
            except OSError as error:
                ends.append("%s" % error)
                return []
            if message[:1] == b"\\x00":
                uwsgi.websocket_send_binary(message)
            else:
                uwsgi.websocket_send(message.decode())
"""

INI = "[uwsgi]\nmodule = app\nmaster = true\nprocesses = 1\nwebsocket-max-size = 512\n"


@pytest.fixture(scope="module", params=["threads = 3\n", "gevent = 20\ngevent-monkey-patch = true\n"], ids=["threads", "gevent"])
def server(request, serve_module, tmp_path_factory):
    if "gevent" in request.param:
        pytest.importorskip("gevent")
    place = tmp_path_factory.mktemp("websocket")
    (place / "app.py").write_text(textwrap.dedent(APP))
    (place / "u.ini").write_text(INI + request.param)
    return serve_module(None, "--ini", "u.ini", cwd=place)


def test_messages(server):
    with WebSocket(server, fields="Origin: http://x\r\nSec-WebSocket-Protocol: a, b\r\n") as ws:
        for size in (1, 125, 126, 65535, 65536, 300000):
            ws.echo(TEXT, b"x" * size)
            ws.echo(BINARY, b"\0" * size)
        ws.send(PING, b"hi")
        ws.send(TEXT, "ü".encode()[:1], fin=False)
        assert ws.frame()[2:] == (PONG, b"hi")
        ws.send(CONT, "ü".encode()[1:])
        ws.expect(TEXT, "ü".encode())
        ws.conn.send(frame(TEXT, b"one") + frame(TEXT, b"two") + frame(CLOSE, b"\x03\xe8"))
        ws.expect(TEXT, b"one")
        ws.expect(TEXT, b"two")
        ws.expect_close(1000)


@pytest.mark.parametrize(
    "data, code",
    [
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"a", masked=False), 1002),
        (frame(TEXT, b"a", rsv=4), 1002),
        (frame(CONT, b"a"), 1002),
        (frame(3, b"a"), 1002),
        (frame(PING, b"a" * 126), 1002),
        (frame(TEXT, b"a" * 600000), 1009),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, b"\x0b\xb8"), 3000),
    ],
    # Named, as the mask of a frame is another one each time.
    ids=["text", "unmasked", "reserved", "continued", "opcode", "ping", "large", "close", "own"],
)
def test_what_is_wrong_closes_it(server, data, code):
    with WebSocket(server) as ws:
        ws.conn.send(data)
        ws.expect_close(code)


def test_without_waiting_and_the_end(server):
    with WebSocket(server, "/nb") as ws:
        ws.echo(TEXT, b"one")
        ws.echo(TEXT, b"two")
    with WebSocket(server, "/leave") as ws:
        ws.expect(TEXT, b"bye")
        ws.expect_close(1000)


def test_what_is_no_websocket(server):
    assert server.get("/plain").body == b"OSError unable to receive websocket message 1"
    assert server.get("/late").body == b"unable to complete websocket handshake"
    assert server.get("/x").status == 500
    assert "unable to receive websocket message" in server.get("/ends").text


def test_as_in_uwsgi(uwsgi, serve, tmp_path):
    """The answer to the handshake, an echo, and what the application hears at the end."""
    found = []
    for name in ("theirs", "ours"):
        place = tmp_path / name
        place.mkdir()
        (place / "app.py").write_text(textwrap.dedent(APP))
        (place / "u.ini").write_text(INI + "threads = 2\ndie-on-term = true\n")
        if name == "theirs":
            server = Theirs(uwsgi, place, [])
            server.start("/ends")
        else:
            server = serve(None, "--ini", "u.ini", cwd=place)
        try:
            with WebSocket(server, fields="Origin: http://x\r\nSec-WebSocket-Protocol: a\r\n") as ws:
                fields = sorted((key.lower(), value) for key, value in ws.response.headers)
                ws.echo(TEXT, b"some text")
                ws.echo(BINARY, b"\0\1")
                ws.send(CLOSE, b"\x03\xe8")
                ws.conn.sock.recv(100)
            accept = [value for key, value in fields if key == "sec-websocket-accept"]
            fields = [field for field in fields if field[0] != "sec-websocket-accept"]
            while not (ends := server.get("/ends").text):
                pass
            found.append((ws.response.status, ws.response.reason, fields, len(accept), ends))
        finally:
            if name == "theirs":
                server.kill()
    assert found[1] == found[0]


SOCKETIO = """
    import socketio

    server = socketio.Server(cors_allowed_origins="*")

    @server.event
    def echo(sid, data):
        return data

    @server.event
    def say(sid, text):
        server.emit("said", text)

    def other(environ, start_response):
        start_response("200 OK", [])
        return [server.async_mode.encode()]

    application = socketio.WSGIApp(server, other)
"""


def test_socketio(serve, tmp_path):
    """Flask-SocketIO's way: it finds uWSGI and gevent, and takes uWSGI's functions."""
    socketio = pytest.importorskip("socketio")
    pytest.importorskip("gevent")
    pytest.importorskip("aiohttp")
    (tmp_path / "app.py").write_text(textwrap.dedent(SOCKETIO))
    (tmp_path / "u.ini").write_text("[uwsgi]\nmodule = app\nmaster = true\ngevent = 100\ngevent-monkey-patch = true\nhttp-websockets = true\n")
    server = serve(None, "--ini", "u.ini", cwd=tmp_path)
    assert server.get("/").body == b"gevent_uwsgi"

    async def talk(*transports):
        sio, other = socketio.AsyncClient(), socketio.AsyncClient()
        heard = asyncio.Queue()
        other.on("said", heard.put)
        for client in (sio, other):
            await client.connect(server.url, transports=list(transports), wait_timeout=30)
        for data in ("text ü", {"list": [1, None]}, bytes(range(256)) * 100, "x" * 100000):
            assert await sio.call("echo", data, timeout=30) == data
        while sio.transport() != transports[-1]:
            await asyncio.sleep(0.01)
        await sio.emit("say", "to all")
        assert await asyncio.wait_for(heard.get(), 30) == "to all"
        for client in (sio, other):
            await client.eio.disconnect(abort=client.transport() == "polling")
            if client.eio.http and not client.eio.http.closed:
                await client.eio.http.close()

    for transports in (("websocket",), ("polling", "websocket")):
        asyncio.run(asyncio.wait_for(talk(*transports), 60))
