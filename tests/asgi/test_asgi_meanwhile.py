"""What goes on while a handler keeps the event loop, and Python's own lock, for as long as the test wants."""

import json
import subprocess

import pytest

from tests.asgi.conftest import LOOPS
from tests.front.raw import get
from tests.fronts.fronts import Client
from tests.lib.gate import GATE, Gate
from tests.lib.server import free_port
from tests.lib.websocket import PING, PONG, TEXT, WebSocket

BIG = 8 << 20
APP = GATE + '''
import asyncio
import json
import sys

called = []


async def hold():
    """What is raised in it for its deadline lets it go on."""
    print("holds", file=sys.stderr, flush=True)
    while True:
        try:
            return wait_at_gate(holding=True)
        except BaseException:
            pass


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({**message, "type": "websocket.send"})
    if scope["type"] != "http":
        return
    called.append(scope["path"])
    body = json.dumps(called).encode()
    if scope["path"] == "/first":
        await hold()
    elif scope["path"] == "/later":
        await asyncio.sleep(0)
        await hold()
    elif scope["path"] == "/big":
        body = b"x" * (8 << 20)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
'''


class Site:
    """A server with an address of each kind."""

    def __init__(self, serve, where, *options):
        self.tls = free_port()
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"]
            + ["-days", "9", "-keyout", str(where / "key.pem"), "-out", str(where / "cert.pem")],
            check=True,
            capture_output=True,
        )
        self.server = serve(
            APP, "-w", "1", "--bind", "https://127.0.0.1:%d" % self.tls, "--tls-cert", where / "cert.pem",
            "--tls-key", where / "key.pem", "--cancel-grace", "5m", *options,
        )  # fmt: skip

    def secure(self):
        return Client(("127.0.0.1", self.tls), tls=True)

    def ways(self):
        return self.server.connect, self.secure

    def hold(self, path):
        """A request that has the event loop from here on."""
        conn = self.server.connect()
        conn.send(get(target=path))
        self.server.wait_log("^holds$")
        return conn


class Secure:
    """A site's address with TLS, as WebSocket wants it."""

    def __init__(self, site):
        self.connect = site.secure


@pytest.fixture(params=LOOPS)
def start(request, serve, tmp_path):
    return lambda *options: Site(serve, tmp_path, "--loop", request.param, *options)


@pytest.mark.parametrize("path", ["/first", "/later"])
def test_health_new_connections_and_timeouts(start, tmp_path, path):
    site = start("--health-path", "/healthz", "--request-timeout", "500ms", "--head-timeout", "500ms")
    with Gate(tmp_path) as gate:
        big = site.server.connect()
        big.send(get(target="/big"))
        head = big.read_head()
        half = [connect() for connect in site.ways()]
        held = site.hold(path)
        for conn in half:
            conn.send(b"GET / HTTP/1.1\r\nHo")
        for connect in site.ways():
            with connect() as conn:
                conn.send(get(target="/healthz") * 2)
                assert [conn.read_response().status for _ in range(2)] == [200, 200]
        late = [connect() for connect in site.ways()]
        for conn in late:
            conn.send(get(target="/late"))
        assert [conn.read_response().status for conn in (held, *late)] == [504] * 3
        assert [conn.read_response().status for conn in half] == [408] * 2
        big.read_body(head)
        assert head.body == b"x" * BIG
        gate.let_go()
    assert site.server.get("/called").json() == ["/big", path, "/called"]


def test_websockets(start, tmp_path):
    """Pings of either side are answered."""
    site = start("--websocket-ping-interval", "300ms")
    with Gate(tmp_path) as gate:
        sockets = [WebSocket(site.server), WebSocket(Secure(site))]
        for ws in sockets:
            ws.echo(TEXT, b"before")
        held = site.hold("/later")
        for ws in sockets:
            ws.send(PING, b"there?")
            ws.expect(PONG, b"there?")
        for ws in sockets:
            opcode, payload = ws.message(pings=True)
            assert opcode == PING
            ws.send(PONG, payload)
        gate.let_go()
        assert held.read_response().status == 200
        for ws in sockets:
            ws.echo(TEXT, b"behind")
    assert site.server.get("/called").json() == ["/later", "/called"]


def test_a_websocket_that_answers_no_ping(start, tmp_path):
    site = start("--websocket-ping-interval", "300ms", "--websocket-ping-timeout", "500ms")
    with Gate(tmp_path) as gate:
        silent = WebSocket(site.server)
        held = site.hold("/later")
        while silent.message(pings=True)[0] == PING:
            pass
        silent.expect_end()
        gate.let_go()
        assert held.read_response().status == 200
