"""The extensions of ASGI, each only where it is offered: early hints, trailers, files, and TLS."""

import ast
import re
import ssl
import time

import pytest

from tests.asgi.conftest import LOOPS
from tests.front.raw import get
from tests.front.test_gateways import changed, uwsgi
from tests.front.test_tls import ask, certs, client, connect, pair  # noqa: F401
from tests.lib.server import Connection, free_port

APP = """
    import asyncio, os

    TEXT = (b"content-type", b"text/plain")
    START = {"type": "http.response.start", "status": 200, "headers": [TEXT]}
    outcomes = []

    async def reply(send, body):
        await send({"type": "http.response.start", "status": 200, "headers": [TEXT, (b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def hint(send, *links):
        await send({"type": "http.response.early_hint", "links": links})

    async def before(scope, receive, send):
        await hint(send, b"</a.css>; rel=preload; as=style", b"</b.js>; rel=preload")
        await reply(send, b"before")

    async def between(scope, receive, send):
        await send({**START, "headers": [TEXT, (b"x-mine", b"1")]})
        await hint(send, b"</a.css>; rel=preload")
        if scope["query_string"]:
            await asyncio.sleep(0)
        await hint(send, b"</b.css>; rel=preload")
        await send({"type": "http.response.body", "body": b"between"})

    async def slow(scope, receive, send):
        await asyncio.sleep(0)
        await hint(send, b"</a.css>; rel=preload")
        await asyncio.sleep(0)
        await reply(send, b"slow")

    async def behind(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"be", "more_body": True})
        await hint(send, b"</late.css>; rel=preload")
        await send({"type": "http.response.body", "body": b"hind"})

    async def expects(scope, receive, send):
        await hint(send, b"</a.css>; rel=preload")
        message = await receive()
        await reply(send, message["body"])

    async def hints(scope, receive, send):
        words = []
        for links in ([b"a\\r\\nb: c"], [b""], ["text"], 5, [b"x" * 70000]):
            try:
                await send({"type": "http.response.early_hint", "links": links})
            except Exception as error:
                words.append("%s: %s" % (type(error).__name__, error))
        await hint(send)
        await reply(send, "\\n".join(words).encode())

    async def trailers(scope, receive, send):
        wait = scope["query_string"] == b"wait"
        length = [(b"content-length", b"4")] if scope["query_string"] == b"length" else []
        await send({**START, "headers": [TEXT, (b"trailer", b"x-sum, x-more"), *length], "trailers": True})
        if scope["query_string"] != b"empty":
            await send({"type": "http.response.body", "body": b"bo", "more_body": True})
        if wait:
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"" if scope["query_string"] == b"empty" else b"dy"})
        if wait:
            await asyncio.sleep(0)
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": True})
        await send({"type": "http.response.trailers", "headers": [[b"x-more", b"2"]]})
        try:
            await send({"type": "http.response.trailers", "headers": []})
        except RuntimeError as error:
            outcomes.append(str(error))

    async def trailed_file(scope, receive, send):
        await send({**START, "trailers": True})
        await send({"type": "http.response.pathsend", "path": scope["query_string"].decode()})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    async def wrong_trailers(scope, receive, send):
        await send({**START, "trailers": True})
        await send({"type": "http.response.body", "body": b"body"})
        for headers in ([(b"content-length", b"1")], [(b"a b", b"")], [(b"a", b"b\\n")], [("a", "b")], 5, [b"ab"]):
            try:
                await send({"type": "http.response.trailers", "headers": headers})
            except Exception as error:
                outcomes.append("%s: %s" % (type(error).__name__, error))
        await send({"type": "http.response.trailers"})

    async def no_trailers(scope, receive, send):
        await send({**START, "trailers": True})
        await send({"type": "http.response.body", "body": b"body"})

    async def refused(scope, receive, send):
        words = []
        for type in ("http.response.debug", "http.response.push", "http.response.nonsense", "websocket.send", 5):
            try:
                await send({"type": type})
            except RuntimeError as error:
                words.append(str(error))
        await reply(send, "\\n".join(words).encode())

    async def part(scope, receive, send):
        path, kind = scope["query_string"].decode().split(",")
        await send(START)
        with open(path, "rb", buffering=0 if kind == "raw" else -1) as file:
            file.read(3)
            handle = file.fileno() if kind == "number" else file
            if kind == "number":
                os.lseek(handle, 3, os.SEEK_SET)
            await send({"type": "http.response.zerocopysend", "file": handle, "count": 4, "more_body": True})
            await send({"type": "http.response.zerocopysend", "file": handle, "more_body": True})
            await send({"type": "http.response.zerocopysend", "file": handle, "offset": 1, "count": 1})

    async def scope(scope, receive, send):
        await reply(send, repr(scope).encode())

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise RuntimeError
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.http.response.start", "status": 401})
            await send({"type": "websocket.http.response.body", "body": repr(scope).encode()})
        elif scope["path"] == "/outcomes":
            await reply(send, "\\n".join(outcomes).encode())
            outcomes.clear()
        else:
            await globals()[scope["path"].strip("/")](scope, receive, send)
"""

FILES = {"http.response.pathsend", "http.response.zerocopysend"}


@pytest.fixture(scope="module", params=LOOPS)
def server(request, serve_module):
    return serve_module(APP, "-w1", "--loop", request.param)


def extensions(response):
    return ast.literal_eval(response.text)["extensions"]


# ---- what is offered ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "version, fields, more",
    [
        ("1.1", "", {"http.response.early_hint"}),
        ("1.1", "TE: trailers\r\n", {"http.response.early_hint", "http.response.trailers"}),
        ("1.1", "TE: gzip;q=0.5 , Trailers\r\n", {"http.response.early_hint", "http.response.trailers"}),
        ("1.1", "TE: gzip\r\nTE: trailers\r\n", {"http.response.early_hint", "http.response.trailers"}),
        ("1.1", "TE: trailersx, gzip\r\n", {"http.response.early_hint"}),
        ("1.0", "TE: trailers\r\n", set()),
    ],
)
def test_offers(server, version, fields, more):
    with server.connect() as conn:
        for _ in range(2):
            conn.send(get("Connection: keep-alive\r\n" + fields, "/scope", version))
            assert set(extensions(conn.read_response())) == FILES | more


def test_no_offers_behind_a_gateway(serve):
    port = free_port()
    serve(APP, "-w1", "--bind", "uwsgi://127.0.0.1:%d" % port)
    for path in ("/scope", "/before", "/trailers"):
        variables = changed(("REQUEST_URI", path), ("PATH_INFO", path), ("QUERY_STRING", ""), ("HTTP_TE", "trailers"))
        with Connection(("127.0.0.1", port)) as conn:
            conn.send(uwsgi(variables))
            head, _, body = conn.read_to_end().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        if path == "/scope":
            assert set(ast.literal_eval(body.decode())["extensions"]) == FILES
        else:
            assert body == (b"before" if path == "/before" else b"body")


# ---- early hints --------------------------------------------------------------------------------


def hinted(conn):
    """The links of the interim responses, and the response."""
    links = []
    while True:
        head = conn.read_head()
        if head.status != 103:
            conn.read_body(head)
            return links, head
        assert [name.lower() for name, _ in head.headers] == ["link"] * len(head.headers)
        links += head.all("link")


@pytest.mark.parametrize(
    "path, links, body",
    [
        ("/before", ["</a.css>; rel=preload; as=style", "</b.js>; rel=preload"], b"before"),
        ("/between", ["</a.css>; rel=preload", "</b.css>; rel=preload"], b"between"),
        ("/between?wait", ["</a.css>; rel=preload", "</b.css>; rel=preload"], b"between"),
        ("/slow", ["</a.css>; rel=preload"], b"slow"),
        ("/behind", [], b"behind"),
    ],
)
def test_early_hints(server, path, links, body):
    with server.connect() as conn:
        for _ in range(2):
            conn.send(get(target=path))
            found, response = hinted(conn)
            assert (found, response.status, response.body) == (links, 200, body)
            assert response.header("content-type") == "text/plain"
            assert path != "/between" or response.header("x-mine") == "1"
        conn.send(get(target=path, version="1.0"))
        assert conn.read_response().body == body


def test_early_hints_of_pipelined_requests(server):
    with server.connect() as conn:
        conn.send(get(target="/scope") + get(target="/between") + get(target="/before") + get(target="/scope"))
        for count, body in ((0, None), (2, b"between"), (2, b"before"), (0, None)):
            links, response = hinted(conn)
            assert len(links) == count and response.status == 200
            assert body is None or response.body == body


def test_an_early_hint_before_the_body_is_asked_for(server):
    with server.connect() as conn:
        conn.send("POST /expects HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n")
        assert conn.read_head().status == 103
        assert conn.read_head().status == 100
        conn.send(b"x" * 100000)
        assert conn.read_response().status == 200


def test_wrong_early_hints(server):
    lines = server.get("/hints").text.split("\n")
    assert [line.partition(":")[0] for line in lines] == ["ValueError", "ValueError", "TypeError", "TypeError", "ValueError"]
    assert "line break" in lines[0] and "must be bytes, got 'text'" in lines[2] and "64 KiB" in lines[4]


# ---- trailers -----------------------------------------------------------------------------------


def exchange(server, data):
    with server.connect() as conn:
        conn.send(data + get("Connection: close\r\n", "/outcomes"))
        return conn.read_to_end()


@pytest.mark.parametrize("query", ["", "wait", "length", "empty"])
def test_trailers(server, query):
    server.get("/outcomes")
    data = exchange(server, get("TE: trailers\r\n", "/trailers?" + query))
    head, _, rest = data.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head and b"trailer: x-sum, x-more" in head
    assert b"content-length" not in head.lower()
    coded, _, rest = rest.partition(b"\r\n\r\n")
    chunks = b"" if query == "empty" else b"2\r\nbo\r\n2\r\ndy\r\n"
    assert coded == chunks + b"0\r\nx-sum: 1\r\nx-more: 2"
    assert rest.startswith(b"HTTP/1.1 200")
    assert b"the response is complete already" in rest


@pytest.mark.parametrize("fields, version", [("", "1.1"), ("Connection: keep-alive\r\nTE: trailers\r\n", "1.0")])
@pytest.mark.parametrize("query", ["", "wait", "length", "empty"])
def test_trailers_that_nobody_asked_for(server, query, fields, version):
    server.get("/outcomes")
    with server.connect() as conn:
        conn.send(get(fields, "/trailers?" + query, version))
        response = conn.read_response()
    assert (response.status, response.body) == (200, b"" if query == "empty" else b"body")
    assert response.header("trailer") is None and response.header("x-sum") is None
    outcomes = ""
    for _ in range(1000):  # the application goes on behind its response
        outcomes += server.get("/outcomes").text
        if outcomes:
            break
        time.sleep(0.01)
    assert "the response is complete already" in outcomes


def test_trailers_of_a_head_request(server):
    with server.connect() as conn:
        conn.send("HEAD /trailers?length HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n" + get(target="/scope").decode())
        assert conn.read_response("HEAD").header("content-length") == "4"
        assert conn.read_response().status == 200


def test_trailers_of_a_file(server, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 100000)
    for fields, end in (("TE: trailers\r\n", b"\r\n0\r\nx-sum: 1\r\n\r\n"), ("", b"")):
        data = exchange(server, get(fields, "/trailed_file?%s" % (tmp_path / "file")))
        assert b"x" * 100000 + end + b"HTTP/1.1 200 OK" in data


def test_trailers_of_a_compressed_body(serve):
    server = serve(APP, "-w1", "--compress", "gzip", "--compress-min-size", "1")
    data = exchange(server, get("TE: trailers\r\nAccept-Encoding: gzip\r\n", "/trailers"))
    assert b"Content-Encoding: gzip" in data
    assert b"\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\nHTTP/1.1 200" in data


def test_wrong_trailers(server):
    server.get("/outcomes")
    data = exchange(server, get("TE: trailers\r\n", "/wrong_trailers"))
    assert b"4\r\nbody\r\n0\r\n\r\nHTTP/1.1 200" in data
    for text in (
        b"ValueError: http.response.trailers: header b'content-length': it must not come behind the body",
        b"header b'a b': its name is not a token",
        b"header b'a': its value has a line break",
        b"TypeError: http.response.trailers: each header must be a pair of bytes (name, value), got ('a', 'b')",
        b"TypeError: 'int' object is not iterable",
    ):
        assert text in data


def test_trailers_that_do_not_come(server):
    with server.connect() as conn:
        conn.send(get("TE: trailers\r\n", "/no_trailers"))
        assert conn.read_to_end().endswith(b"4\r\nbody\r\n")  # without an end
    server.wait_log("GET /no_trailers: the ASGI application returned before its response was complete")


# ---- the others ---------------------------------------------------------------------------------


def test_what_is_not_offered(server):
    lines = server.get("/refused").text.split("\n")
    assert "'http.response.debug': scope['extensions'] does not offer it" in lines[0]
    assert "'http.response.push': scope['extensions'] does not offer it" in lines[1]
    assert "'http.response.nonsense': it is none of an HTTP response" in lines[2]
    assert "'websocket.send': it is none of an HTTP response" in lines[3]
    assert "5: the type has to be a str" in lines[4]


@pytest.mark.parametrize("kind", ["raw", "buffered", "number"])
def test_the_position_of_a_file(server, tmp_path, kind):
    (tmp_path / "file").write_bytes(b"0123456789")
    assert server.get("/part?%s,%s" % (tmp_path / "file", kind)).body == b"34567891"


# ---- TLS ----------------------------------------------------------------------------------------


@pytest.fixture
def secure(serve, certs):  # noqa: F811
    def start(*args):
        port = free_port()
        server = serve(APP, "-w1", "--bind", "https://127.0.0.1:%d" % port, *pair(certs, "main"), *args, bind=None, start=False)
        server.host, server.port, server.address = "127.0.0.1", port, ("127.0.0.1", port)
        server.start()
        server.wait_log("ready after")
        return server

    return start


def pem(path):
    return re.search(r"(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", path.read_text())[0]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls(secure, certs, version):  # noqa: F811
    server = secure("--tls-client-ca", str(certs / "ca.pem"), "--tls-verify-client", "optional")
    context = client(certs, low=version, high=version)
    number = 0x0303 if version == ssl.TLSVersion.TLSv1_2 else 0x0304
    with connect(server, context) as conn:
        for _ in range(2):
            found = ast.literal_eval(ask(conn, "/scope").decode())
            assert found["scheme"] == "https" and "http.response.early_hint" in found["extensions"]
            tls = found["extensions"]["tls"]
            suite = tls.pop("cipher_suite")
            assert tls == {
                "server_cert": pem(certs / "main.pem"),
                "client_cert_chain": [],
                "client_cert_name": None,
                "client_cert_error": None,
                "tls_version": number,
            }
            names = {int(c["id"]) & 0xFFFF: c["name"] for c in context.get_ciphers()}
            assert names[suite] == conn.cipher()[0]
    with connect(server, client(certs, cert="client", low=version, high=version)) as conn:
        tls = ast.literal_eval(ask(conn, "/scope").decode())["extensions"]["tls"]
        assert tls["client_cert_name"] == "CN=alice,O=Users"
        assert tls["client_cert_chain"][0] == pem(certs / "client.pem")


def test_tls_of_a_websocket(secure, certs):  # noqa: F811
    from tests.lib.websocket import handshake

    with connect(secure(), client(certs)) as conn:
        conn.sendall(handshake("/"))
        data = b""
        while b"cipher_suite" not in data or not data.endswith(b"0\r\n\r\n") and b"}}" not in data:
            more = conn.recv(65536)
            assert more, data
            data += more
    assert data.startswith(b"HTTP/1.1 401") and b"'websocket.http.response': {}" in data and b"'tls_version': 772" in data


def test_no_tls(server):
    assert "tls" not in extensions(server.get("/scope", headers=[("X-Forwarded-Proto", "https")]))


# ---- the server's address ----------------------------------------------------------------------


def test_server_of_a_unix_socket(serve, tmp_path):
    path = tmp_path / "app.sock"
    serve(APP, "-w1", "--bind", "unix:%s" % path)
    with Connection(str(path)) as conn:
        conn.send(get(target="/scope"))
        found = ast.literal_eval(conn.read_response().text)
    assert (found["server"], found["client"]) == ((str(path), None), None)
