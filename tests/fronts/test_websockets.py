"""WebSockets by way of nginx, HAProxy and Apache, with the configurations of docs/websockets.md, and of TLS."""

import json
import signal
import ssl

import pytest

from tests.fronts import fronts
from tests.fronts.fronts import CLIENT, HOST
from tests.lib.server import Server

websockets = pytest.importorskip("websockets.sync.client")
FRONTS = ["direct", "nginx", "haproxy", "apache"]
APP = """
import json


async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
    found = {"scheme": scope["scheme"], "client": scope["client"][0], "path": scope["path"]}
    await send({"type": "websocket.send", "text": json.dumps(found)})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") == "close":
            return await send({"type": "websocket.close", "code": 4002, "reason": "as you like"})
        await send({**message, "type": "websocket.send"})
"""


@pytest.fixture(scope="module")
def backend(where, certificate):
    folder = where / "sockets"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    plain, tls = fronts.ports(2)
    args = ["--bind", "127.0.0.1:%d" % plain, "--bind", "https://127.0.0.1:%d" % tls, "--workers", "1"]
    args += ["--tls-cert", certificate[0], "--tls-key", certificate[1], "--websocket-ping-interval", "0.3s"]
    server = Server("app:app", args, cwd=folder, bind=None, env={"PYTHONDONTWRITEBYTECODE": "1"})
    server.address, server.port, server.tls = ("127.0.0.1", plain), plain, tls
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module", params=FRONTS)
def road(request, where, backend, certificate):
    if request.param == "direct":
        yield fronts.Road("direct", backend.port, backend.tls)
        return
    plain, tls = fronts.ports(2)
    folder = where / ("sockets-" + request.param)
    upstream = {"127.0.0.1:8000": "127.0.0.1:%d" % backend.port}
    if request.param == "nginx":
        block = fronts.substitute(fronts.block("websockets.md", "nginx", "nginx"), {**upstream, "location /ws/": "location /"})
        site = "server { listen 127.0.0.1:%d; listen 127.0.0.1:%d ssl; ssl_certificate %s; ssl_certificate_key %s;\n%s}" % (
            (plain, tls, *certificate, block)
        )
        front = fronts.nginx(folder, [site], [plain, tls])
    elif request.param == "haproxy":
        both = where / "sockets.pem"
        both.write_bytes(certificate[0].read_bytes() + certificate[1].read_bytes())
        binds = "bind 127.0.0.1:%d\n    bind 127.0.0.1:%d ssl crt %s" % (plain, tls, both)
        changes = {"bind :443 ssl crt /etc/haproxy/example.org.pem": binds, **upstream}
        front = fronts.haproxy(folder, [fronts.substitute(fronts.block("websockets.md", "HAProxy", "haproxy"), changes)], [plain, tls])
    else:
        block = fronts.substitute(fronts.block("websockets.md", "Apache", "apache"), upstream)
        host = "<VirtualHost 127.0.0.1:%d>\n%s\n%s</VirtualHost>\n"
        secure = "SSLEngine on\nSSLCertificateFile %s\nSSLCertificateKeyFile %s" % certificate
        sites = [host % (plain, "", block), host % (tls, secure, block)]
        front = fronts.apache(folder, sites, [plain, tls], ["proxy_http", "proxy_wstunnel"])
    yield fronts.Road(request.param, plain, tls)
    front.stop()


def connect(road, tls=False, **kwargs):
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        kwargs["server_hostname"] = HOST
    url = "%s://127.0.0.1:%d/some/path" % ("wss" if tls else "ws", road.tls if tls else road.port)
    return websockets.connect(url, proxy=None, ssl=context, max_size=None, open_timeout=20, source_address=(CLIENT, 0), **kwargs)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_messages(road, tls):
    with connect(road, tls, subprotocols=["v1"]) as ws:
        assert ws.subprotocol == "v1"
        assert json.loads(ws.recv(20)) == {"scheme": "wss" if tls else "ws", "client": CLIENT, "path": "/some/path"}
        for message in ("text ü", b"\0\xff", "", "x" * 200000, bytes(range(256)) * 4000, ["in ", "frag", "ments"]):
            ws.send(message)
            assert ws.recv(20) == ("".join(message) if isinstance(message, list) else message)
        for number in range(200):
            ws.send(str(number))
        assert [ws.recv(20) for _ in range(200)] == [str(number) for number in range(200)]
        assert ws.ping().wait(20)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_ends(road, tls):
    with connect(road, tls) as ws:
        ws.recv(20)
        ws.send("close")
        with pytest.raises(Exception) as caught:
            ws.recv(20)
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4002, "as you like")
    with connect(road, tls) as ws:
        ws.recv(20)
        ws.close(4444)
        assert ws.close_code == 4444


def test_pings_keep_it_open(road):
    """The server's own, which the client answers."""
    with connect(road, ping_interval=None) as ws:
        ws.recv(20)
        with pytest.raises(TimeoutError):
            ws.recv(1)
        ws.send("still there")
        assert ws.recv(20) == "still there"


def test_reload(road, backend):
    with connect(road) as plain, connect(road, tls=True) as secure:
        for ws in (plain, secure):
            ws.recv(20)
        backend.send_signal(signal.SIGHUP)
        for ws in (plain, secure):
            with pytest.raises(Exception) as caught:
                ws.recv(40)
            assert caught.value.rcvd.code == 1012
    with connect(road, tls=True) as ws:
        assert json.loads(ws.recv(20))["scheme"] == "wss"
