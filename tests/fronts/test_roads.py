"""One Django application by all roads: what it is told and what clients get is the same.

The figures are chosen so that every mechanism works: bodies beyond every buffer, heads beyond nginx's
first one, more connections than threads.
"""

import zlib

import pytest

from tests.fronts.fronts import BLOCK, CLIENT, HOST
from tests.lib.server import ProtocolError

PATH = "/tell/caf%C3%A9/a%20b/%25/%E2%82%AC/x;y=1/%2e%2E."
QUERY = "q=%C3%BC+1&q=2&e=&sp%20ace=a%26b"


def test_what_the_application_is_told(road):
    fields = [
        ("Cookie", "a=1; b=two words"),
        ("User-Agent", "tests/1"),
        ("Accept", "text/html;q=0.9, */*"),
        ("X-Test-One", "one, two"),
        ("X-Test-Latin", "caf\u00e9"),
        ("X-Test_Under", "an underscore"),
        ("Proxy", "http://evil.example/"),
    ]
    response = road.get(PATH + "?" + QUERY, fields=fields)
    assert response.status == 200
    assert response.header("content-type") == "application/json"
    found = response.json()
    assert found.pop("length") in ("", "0")  # SCGI always says one
    assert found == {
        "method": "GET",
        "script": "",
        "path": "/tell/caf\u00e9/a b/%/\u20ac/x;y=1/...",
        "query": QUERY,
        "uri": PATH + "?" + QUERY,
        "arguments": {"q": ["\u00fc 1", "2"], "e": [""], "sp ace": ["a&b"]},
        "cookies": {"a": "1", "b": "two words"},
        "fields": {
            "User-Agent": "tests/1",
            "Accept": "text/html;q=0.9, */*",
            "X-Test-One": "one, two",
            "X-Test-Latin": "caf\u00e9",
        },
        "absolute": "http://%s/tell/caf%%C3%%A9/a%%20b/%%25/%%E2%%82%%AC/x%%3By%%3D1/...?%s" % (HOST, QUERY),
        "host": HOST,
        "scheme": "http",
        "secure": False,
        "address": CLIENT,
        "type": "",
        "body": "",
        "proxy": False,
    }


def test_scheme_of_tls(front):
    found = front.get("/tell", tls=True).json()
    assert (found["scheme"], found["secure"]) == ("https", True)
    assert found["absolute"] == "https://%s/tell" % HOST
    assert found["address"] == CLIENT
    assert front.get("/tell").json()["scheme"] == "http"


@pytest.mark.parametrize("name", ["X-Forwarded", "Forwarded"])
def test_a_client_says_nothing_about_itself(road, name):
    fields = {
        "X-Forwarded": [
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil.example"),
        ],
        "Forwarded": [("Forwarded", "for=192.0.2.1;proto=https;host=evil.example")],
    }
    found = road.get("/tell", fields=fields[name]).json()
    assert (found["address"], found["scheme"], found["host"]) == (CLIENT, "http", HOST)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_methods_with_a_body(road, method, framing):
    body = bytes(range(256))
    fields = [("Content-Type", "application/x-bytes")]
    if framing == "chunked":
        fields.append(("Transfer-Encoding", "chunked"))
        sent = b"40\r\n%s\r\nc0\r\n%s\r\n0\r\n\r\n" % (body[:64], body[64:])
    else:
        sent = body
    response = road.request(method, "/tell", sent, fields=fields)
    if framing == "chunked" and not road.chunked:
        assert response.status == 411
        return
    assert response.status == 200, response.body
    found = response.json()
    assert (found["method"], found["type"]) == (method, "application/x-bytes")
    assert found["body"] == body.decode("latin-1")
    assert found["length"] in ("256", "")


def test_form(road):
    """An upload of a browser, beyond what nginx keeps in memory."""
    body = b"x" * 100_000
    found = road.post("/upload/form", body).json()
    assert found == {"size": len(body), "crc": zlib.crc32(body)}


def test_methods_without_a_body(road):
    assert road.request("OPTIONS", "/tell").json()["method"] == "OPTIONS"
    response = road.request("HEAD", "/blocks/4")
    assert (response.status, response.body) == (200, b"")
    if road.name not in ("apache-fcgi", "apache-scgi"):  # Apache takes it away there
        assert response.header("content-length") == "262144"
    response = road.request("HEAD", "/stream/head/2")
    assert (response.status, response.body) == (200, b"")


def test_answers_without_a_body(road):
    assert road.post("/empty", b"x").status == 204
    response = road.get("/unchanged")
    assert (response.status, response.header("etag"), response.body) == (304, '"x"', b"")


def test_redirect_and_errors(road):
    response = road.get("/redirect")
    assert (response.status, response.header("location")) == (302, "/tell/there?x=1")
    response = road.get("/missing")
    assert (response.status, response.body) == (404, b"not here")
    assert road.get("/nowhere").status == 404


@pytest.mark.parametrize("kind", ["blocks", "stream/large"])
def test_response_of_20_mb(road, kind):
    response = road.get("/%s/320" % kind)
    assert response.status == 200
    assert len(response.body) == 320 * len(BLOCK)
    assert zlib.crc32(response.body) == zlib.crc32(BLOCK * 320)
    assert response.framing != "close" or kind != "blocks"


def test_large_heads(road):
    cookie = "c=" + "v" * 7000
    response = road.get("/tell", fields=[("Cookie", cookie), ("X-Test-Large", "y" * 7000)])
    found = response.json()
    assert found["cookies"] == {"c": "v" * 7000}
    assert found["fields"]["X-Test-Large"] == "y" * 7000
    response = road.get("/fields/%d" % road.large)
    assert response.header("x-large") == "x" * road.large
    assert sorted(value.partition(";")[0] for value in response.all("set-cookie")) == ["one=1", "two=2"]


def test_64_at_once(road):
    """More connections than threads, of the server and of the front end."""
    connections = [road.connect() for _ in range(64)]
    try:
        for number, conn in enumerate(connections):
            conn.send(road.head("POST", "/tell?n=%d" % number, [("Content-Length", "3")]) + b"%03d" % number)
        for number, conn in enumerate(connections):
            found = conn.read_response().json()
            assert (found["query"], found["body"]) == ("n=%d" % number, "%03d" % number)
    finally:
        for conn in connections:
            conn.close()


def test_many_on_one_connection(road):
    with road.connect() as conn:
        for number in range(20):
            response = road.get("/tell?n=%d" % number, conn=conn)
            assert response.json()["query"] == "n=%d" % number
            assert road.request("HEAD", "/blocks/1", conn=conn).status == 200
            assert road.post("/empty", b"12345", conn=conn).status == 204


def test_events_are_passed_on_as_they_come(road):
    with road.connect() as conn:
        conn.send(road.head("GET", "/events"))
        response = conn.read_head()
        assert response.status == 200
        first = b""
        while b"first\n\n" not in first:
            piece = conn.read_available()
            assert piece, "the stream ended behind %r" % first
            first += piece
        assert b"second" not in first
        assert road.get("/release").body == b"released"
        assert b"data: second" in conn.read_to_end()


def test_client_leaves_in_the_middle_of_an_upload(road, backend):
    name = "left-" + road.name
    with road.connect() as conn:
        conn.send(road.head("POST", "/upload/" + name, [("Content-Length", "1000000")]))
        conn.send(b"x" * 500_000)
    assert road.get("/").body == b"front"
    backend.wait_connections()
    assert name not in road.get("/remembered").json()["uploads"]


def test_client_leaves_in_the_middle_of_a_download(road, backend):
    name = "left-" + road.name
    with road.connect() as conn:
        conn.send(road.head("GET", "/stream/%s/400" % name))
        assert conn.read_head().status == 200
        conn.read_available()
        conn.reset()
    backend.wait_closed(name)
    backend.wait_connections()
    assert road.get("/").body == b"front"


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("name", ["direct", "nginx-http-unix", "nginx-fastcgi-unix", "nginx-fastcgi-tcp", "apache-fcgi", "haproxy-proxy"])
def test_a_response_that_is_cut_is_not_taken_for_whole(roads, name, count):
    """Where the protocol can tell; the client of a front end sees it as one of stoker does."""
    with roads(name).connect() as conn:
        conn.send(roads(name).head("GET", "/cut/%d" % count))
        try:
            status = conn.read_response().status
        except (ProtocolError, ConnectionResetError):
            return
        assert status == 502


def test_body_that_is_too_large(road):
    """Refused by stoker, not by the front end: before the body is sent where it is not buffered."""
    with road.connect() as conn:
        conn.send(road.head("POST", "/upload/refused", [("Content-Length", str(300 << 20))]))
        if road.buffers:
            return  # the front end would first take 300 MB
        assert conn.read_response().status == 413


def test_head_with_too_many_fields(road):
    fields = [("X-Test-%d" % number, "x") for number in range(60)]
    assert road.get("/tell", fields=fields).status == 431


@pytest.mark.parametrize("name", ["nginx-uwsgi-unix", "nginx-uwsgi-tcp", "nginx-fastcgi-unix", "nginx-fastcgi-tcp"])
def test_application_below_a_prefix(roads, name):
    """The prefix is in SCRIPT_NAME and no longer in the path."""
    found = roads(name).get("/shop/tell/x?y=1").json()
    assert (found["script"], found["path"], found["query"]) == ("/shop", "/tell/x", "y=1")
    assert found["absolute"] == "http://%s/shop/tell/x?y=1" % HOST
