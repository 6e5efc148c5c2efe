"""uwsgi, SCGI and FastCGI by packets of our own, and protocols told apart by the first byte."""

import json
import random
import re
import shutil
import socket
import struct
import subprocess

import pytest

from tests.lib import fastcgi as records
from tests.lib.server import Connection, free_port, test_command

APP = """
import json
import time


def app(environ, start_response):
    query = environ["QUERY_STRING"]
    if query == "unread":
        start_response("200 OK", [])
        return [b"unread"]
    body = environ["wsgi.input"].read()
    if query.startswith("sleep="):
        time.sleep(float(query[6:]))
    if query == "stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"block %d\\n" % n for n in range(100))
    if query == "big":
        start_response("200 OK", [("Content-Length", "3000000")])
        return [b"x" * 3000000]
    if query == "boom":
        raise RuntimeError("boom")
    shown = {k: v for k, v in environ.items() if isinstance(v, str)}
    text = json.dumps({"environ": shown, "length": len(body), "body": body[:64].decode("latin-1")})
    start_response("200 OK", [("Content-Type", "application/json")])
    return [text.encode()]
"""

BASE = [
    ("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/a%20b?x=1"), ("PATH_INFO", "/a b"),
    ("QUERY_STRING", "x=1"), ("SERVER_PROTOCOL", "HTTP/1.1"), ("HTTP_HOST", "example.com"),
    ("REMOTE_ADDR", "192.0.2.9"), ("REMOTE_PORT", "4711"), ("SERVER_NAME", "example.com"),
    ("SERVER_PORT", "443"), ("REQUEST_SCHEME", "https"), ("HTTPS", "on"),
]


def uwsgi(variables, body=b"", modifier=0):
    packed = b"".join(
        struct.pack("<H", len(part)) + part
        for pair in variables for part in (text.encode("latin-1") for text in pair)
    )
    return bytes([modifier]) + struct.pack("<H", len(packed)) + b"\0" + packed + body


def scgi(variables, body=b""):
    variables = [("CONTENT_LENGTH", str(len(body))), ("SCGI", "1")] + [
        pair for pair in variables if pair[0] != "CONTENT_LENGTH"]
    packed = b"".join(text.encode("latin-1") + b"\0" for pair in variables for text in pair)
    return b"%d:%s,%s" % (len(packed), packed, body)


def fastcgi(variables, body=b""):
    return records.request(variables, body, keep=False)


def changed(*pairs):
    """The usual variables with these in their place; None takes one out."""
    result = dict(BASE)
    result.update(dict(pairs))
    return [(name, value) for name, value in result.items() if value is not None]


class Gateways:
    """A server with an address of each kind."""

    def __init__(self, serve, tmp_path, *args):
        self.ports = {name: free_port() for name in ("uwsgi", "puwsgi", "scgi", "fastcgi", "auto")}
        self.path = str(tmp_path / "site.sock")
        binds = ["--bind=unix:" + self.path]
        binds += ["--bind=%s://127.0.0.1:%d" % pair for pair in self.ports.items()]
        self.server = serve(APP, *binds, *args, ready="/")

    def connect(self, kind):
        return Connection(self.path if kind == "unix" else ("127.0.0.1", self.ports[kind]))

    def answer(self, kind, data):
        """All that comes back, as (status, fields, body)."""
        with self.connect(kind) as conn:
            conn.send(data)
            return parse(conn.read_to_end())


def parse(data):
    if data[:1] == b"\x01":
        found = records.split(data)
        assert found[-1].kind == records.END
        data = b"".join(record.content for record in found if record.kind == records.STDOUT)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = re.match(r"(?:HTTP/1\.1|Status:) (\d{3}) ", lines[0])
    assert status, data[:200]
    return int(status.group(1)), [line.split(": ", 1) for line in lines[1:]], body


ROADS = [("uwsgi", uwsgi), ("scgi", scgi), ("fastcgi", fastcgi)]
ROADS += [(kind, make) for kind in ("auto", "unix") for make in (uwsgi, scgi, fastcgi)]
IDS = ["%s-%s" % (kind, make.__name__) for kind, make in ROADS]


@pytest.fixture(scope="module")
def site(serve_module, tmp_path_factory):
    return Gateways(serve_module, tmp_path_factory.mktemp("gateways"), "-w1")


@pytest.mark.parametrize("kind, make", ROADS, ids=IDS)
def test_environ(site, kind, make):
    status, fields, body = site.answer(
        kind, make(changed(("HTTP_X_THING", "one"), ("REMOTE_USER", "ann"), ("HTTP_COOKIE", "a=b"))))
    environ = json.loads(body)["environ"]
    assert status == 200
    assert environ["PATH_INFO"] == "/a b" and environ["SCRIPT_NAME"] == ""
    assert environ["QUERY_STRING"] == "x=1" and environ["REQUEST_URI"] == "/a%20b?x=1"
    assert environ["wsgi.url_scheme"] == "https" and environ["HTTPS"] == "on"
    assert environ["REMOTE_ADDR"] == "192.0.2.9" and environ["REMOTE_PORT"] == "4711"
    assert environ["SERVER_NAME"] == "example.com" and environ["SERVER_PORT"] == "443"
    assert environ["HTTP_HOST"] == "example.com" and environ["HTTP_X_THING"] == "one"
    assert environ["HTTP_COOKIE"] == "a=b" and environ["REMOTE_USER"] == "ann"
    assert not [name for name, _ in fields if name.lower() in ("connection", "transfer-encoding")]


@pytest.mark.parametrize("kind, make", ROADS, ids=IDS)
@pytest.mark.parametrize("size", [0, 1, 5000, 200000, 3000000])
def test_bodies(site, kind, make, size):
    body = b"0123456789" * (size // 10) + b"x" * (size % 10)
    variables = changed(("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", str(size)))
    status, _, answer = site.answer(kind, make(variables, body))
    answer = json.loads(answer)
    assert status == 200 and answer["length"] == size and answer["body"] == body[:64].decode()
    assert answer["environ"]["CONTENT_LENGTH"] == str(size)


@pytest.mark.parametrize("kind, make", [("uwsgi", uwsgi), ("unix", scgi), ("unix", fastcgi)])
def test_bytes_that_dribble(site, kind, make):
    data = make(changed(("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "5")), b"hello")
    with site.connect(kind) as conn:
        conn.send_slowly(data, size=7)
        status, _, body = parse(conn.read_to_end())
    assert status == 200 and json.loads(body)["body"] == "hello"


@pytest.mark.parametrize("kind, make", ROADS, ids=IDS)
def test_responses(site, kind, make):
    answer = site.answer(kind, make(changed(("QUERY_STRING", "stream"))))
    assert answer[2] == b"".join(b"block %d\n" % n for n in range(100))
    assert site.answer(kind, make(changed(("QUERY_STRING", "big"))))[2] == b"x" * 3000000
    status, fields, body = site.answer(kind, make(changed(("REQUEST_METHOD", "HEAD"))))
    assert status == 200 and body == b"" and "Content-Length" in dict(fields)
    site.server.check = False
    assert site.answer(kind, make(changed(("QUERY_STRING", "boom"))))[0] == 500


@pytest.mark.parametrize("kind, make", ROADS, ids=IDS)
@pytest.mark.parametrize("pairs, status", [
    ([("HTTP_HOST", "a b")], 400),
    ([("HTTP_HOST", "a/b")], 400),
    ([("HTTP_X", "a\r\nX-Evil: 1")], 400),
    ([("HTTP_X", "a\x01")], 400),
    ([("REQUEST_METHOD", "G T")], 400),
    ([("REQUEST_METHOD", "")], 400),
    ([("REQUEST_URI", "/a b")], 400),
    ([("REQUEST_URI", "/a#b")], 400),
    ([("REQUEST_URI", "/" + "a" * 9000)], 414),
    ([("HTTP_X", "a" * 40000)], 431),
    ([("HTTP_X%d" % n, "a") for n in range(200)], 431),
], ids=str)
def test_what_http_refuses(site, kind, make, pairs, status):
    if kind == "uwsgi" or make is uwsgi:
        assert sum(len(name) + len(value) + 4 for name, value in pairs) < 60000
    assert site.answer(kind, make(changed(*pairs)))[0] == status


def test_lengths(site):
    for value in ("5, 5", "+5", "-1", "0x5", " "):
        variables = changed(("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", value))
        assert site.answer("uwsgi", uwsgi(variables, b"hello"))[0] == 400, value
    twice = BASE + [("CONTENT_LENGTH", "5"), ("CONTENT_LENGTH", "6")]
    assert site.answer("uwsgi", uwsgi(twice, b"hello"))[0] == 400


def test_modifiers(site):
    mounted = changed(("SCRIPT_NAME", "/m"), ("PATH_INFO", "/m/x"), ("REQUEST_URI", "/m/x"))
    environ = json.loads(site.answer("uwsgi", uwsgi(mounted, modifier=30))[2])["environ"]
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/m", "/x")
    assert site.answer("uwsgi", uwsgi(BASE, modifier=5))[0] == 501
    site.server.wait_log(r"modifier1 5 is refused")


PING = b"\x64\0\0\0"


@pytest.mark.parametrize("kind", ["uwsgi", "puwsgi"])
def test_pings(site, kind):
    with site.connect(kind) as conn:
        conn.send(PING)
        assert conn.read_to_end() == b"\x64\0\0\1"


@pytest.mark.parametrize("kind", ["auto", "unix"])
def test_a_ping_where_the_protocol_is_told_by_the_first_byte(site, kind):
    """It begins like a word of HTTP."""
    with site.connect(kind) as conn:
        conn.send(PING + b"\r\n\r\n")
        assert conn.read_to_end().startswith(b"HTTP/1.1 400 ")


def test_persistent_connections(site):
    """Packets that differ, that come again, and that came by an address where they end a connection."""
    post = changed(("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "5"))
    with site.connect("puwsgi") as conn:
        for number in range(5):
            conn.send(uwsgi(changed(("SECRET", "m%d" % number))))
            assert conn.read_response().json()["environ"]["SECRET"] == "m%d" % number
            for _ in range(2):
                conn.send(uwsgi(post, b"hello"))
                assert conn.read_response().json()["body"] == "hello"
            assert json.loads(site.answer("uwsgi", uwsgi(post, b"hello"))[2])["body"] == "hello"
        large = changed(("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "3000000"))
        conn.send(uwsgi(large, b"x" * 3000000))
        assert conn.read_response().json()["length"] == 3000000
        conn.send(uwsgi(changed(("REQUEST_METHOD", "HEAD"))))
        assert conn.read_response("HEAD").status == 200
        conn.send(uwsgi(changed(("QUERY_STRING", "big"))))
        assert conn.read_response().body == b"x" * 3000000
        conn.send(b"".join(uwsgi(changed(("SECRET", "p%d" % n))) for n in range(10)))
        for number in range(10):
            found = conn.read_response()
            assert found.json()["environ"]["SECRET"] == "p%d" % number and not found.all("connection")
        conn.send_slowly(uwsgi(post, b"hello"), size=7)
        assert conn.read_response().json()["body"] == "hello"


def test_persistent_connections_that_end(site):
    """Where only the end tells the length, behind what is refused, and behind a body that has no length."""
    with site.connect("puwsgi") as conn:
        conn.send(uwsgi(changed(("QUERY_STRING", "stream"))))
        assert parse(conn.read_to_end())[2] == b"".join(b"block %d\n" % n for n in range(100))
    assert site.answer("puwsgi", uwsgi(changed(("HTTP_HOST", "a b"))) + uwsgi(BASE))[0] == 400
    assert site.answer("puwsgi", uwsgi(BASE, modifier=5))[0] == 501
    chunked = changed(("REQUEST_METHOD", "POST"), ("HTTP_TRANSFER_ENCODING", "chunked"))
    for _ in range(2):
        with site.connect("puwsgi") as conn:
            conn.send(uwsgi(chunked, uwsgi(changed(("SECRET", "smuggled")))))
            data = conn.read_to_end()
            assert data.count(b"HTTP/1.1 200 ") == 1 and b"smuggled" not in data


def test_a_body_left_unread_ends_a_persistent_connection(serve, tmp_path):
    site = Gateways(serve, tmp_path, "-w1", "--body=stream")
    variables = changed(("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "100000"), ("QUERY_STRING", "unread"))
    with site.connect("puwsgi") as conn:
        conn.send(uwsgi(variables, b"x" * 50000))
        status, _, body = parse(conn.read_to_end())
    assert (status, body) == (200, b"unread")


def test_magic_variables_do_nothing(site):
    variables = changed(("UWSGI_FILE", "/etc/passwd"), ("UWSGI_CHDIR", "/"), ("UWSGI_SCHEME", "http"))
    status, _, body = site.answer("uwsgi", uwsgi(variables))
    environ = json.loads(body)["environ"]
    assert status == 200 and not [name for name in environ if name.startswith("UWSGI_")]
    site.server.wait_log(r"variable of uwsgi")


@pytest.mark.parametrize("kind, make", [("uwsgi", uwsgi), ("unix", scgi), ("unix", fastcgi)])
def test_forwarded_fields_are_the_clients(site, kind, make):
    """What the front end's client says of itself counts only if that is a trusted proxy."""
    forged = [("HTTP_X_FORWARDED_FOR", "203.0.113.1"), ("HTTP_X_FORWARDED_PROTO", "http"),
              ("HTTP_X_FORWARDED_HOST", "evil.example")]
    environ = json.loads(site.answer(kind, make(changed(*forged)))[2])["environ"]
    assert environ["REMOTE_ADDR"] == "192.0.2.9" and environ["wsgi.url_scheme"] == "https"
    assert environ["HTTP_HOST"] == "example.com"
    by_proxy = changed(*forged, ("REMOTE_ADDR", "127.0.0.1"))
    environ = json.loads(site.answer(kind, make(by_proxy))[2])["environ"]
    assert environ["REMOTE_ADDR"] == "203.0.113.1" and environ["wsgi.url_scheme"] == "http"
    by_zone = changed(*forged[:2], ("REMOTE_ADDR", "fe80::1%eth0"))
    environ = json.loads(site.answer(kind, make(by_zone))[2])["environ"]
    assert environ["REMOTE_ADDR"] == "" and environ["wsgi.url_scheme"] == "https"
    junk = json.loads(site.answer(kind, make(changed(("REMOTE_ADDR", "x y <b>"))))[2])["environ"]
    assert junk["REMOTE_ADDR"] == ""


def test_http_on_addresses_of_gateways(site):
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for kind in ("uwsgi", "scgi"):
        assert site.answer(kind, request)[0] == 400
    site.server.wait_log("HTTP was sent to an address of the")
    for kind in ("auto", "unix"):
        with site.connect(kind) as conn:
            for _ in range(3):
                conn.send(request)
                assert conn.read_response().status == 200


def test_one_request_does_not_see_another(site):
    """The same thread serves all protocols in turn: nothing of one request is in the next."""
    request = b"GET /http?q=2 HTTP/1.1\r\nHost: plain\r\nConnection: close\r\n\r\n"
    for number in range(20):
        mark = "m%d" % number
        environ = json.loads(site.answer("unix", uwsgi(changed(("SECRET", mark))))[2])["environ"]
        assert environ["SECRET"] == mark and environ["PATH_INFO"] == "/a b"
        environ = json.loads(site.answer("unix", request)[2])["environ"]
        assert "SECRET" not in environ and environ["PATH_INFO"] == "/http"
        assert environ["QUERY_STRING"] == "q=2" and environ["wsgi.url_scheme"] == "http"
        path = changed(("REQUEST_URI", "/same"), ("PATH_INFO", "/p%d" % number))
        environ = json.loads(site.answer("unix", scgi(path))[2])["environ"]
        assert environ["PATH_INFO"] == "/p%d" % number and "SECRET" not in environ
        post = changed(("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "5"))
        for make in (fastcgi, uwsgi, fastcgi, scgi):
            assert json.loads(site.answer("unix", make(post, b"hello"))[2])["body"] == "hello"
        environ = json.loads(site.answer("unix", fastcgi(BASE))[2])["environ"]
        assert "CONTENT_LENGTH" not in environ and "SECRET" not in environ
        upload = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
        assert json.loads(site.answer("unix", upload)[2])["body"] == "hello"


def test_packets_that_come_again(site):
    """A front end sends the same packet for each request of a client, but for its port."""
    for number in range(60):
        port = str(1000 + number * 7)
        if number % 10 == 9:
            port = random.choice(["12x4", "99999", ""])
        variables = changed(("REMOTE_PORT", port), ("SECRET", "m%d" % (number // 20)))
        kind = "uwsgi" if number % 4 == 3 else "unix"
        environ = json.loads(site.answer(kind, uwsgi(variables))[2])["environ"]
        assert environ.get("REMOTE_PORT") == (port if port.isdigit() and int(port) < 65536 else None)
        assert environ["SECRET"] == "m%d" % (number // 20) and environ["REMOTE_ADDR"] == "192.0.2.9"
        if number % 7 == 0:
            request = b"GET /http HTTP/1.1\r\nHost: plain\r\nConnection: close\r\n\r\n"
            assert "SECRET" not in json.loads(site.answer("unix", request)[2])["environ"]
    body = b"x" * 100000
    for port in ("2001", "2002", "2003"):
        variables = changed(("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "100000"), ("REMOTE_PORT", port))
        answer = json.loads(site.answer("unix", uwsgi(variables, body))[2])
        assert answer["length"] == len(body) and answer["environ"]["REMOTE_PORT"] == port
    status, _, _ = site.answer("unix", uwsgi(changed(("REMOTE_PORT", "1\n23"))))
    assert status == 400


def test_requests_about_no_path(site):
    variables = changed(("REQUEST_METHOD", "OPTIONS"), ("REQUEST_URI", "*"), ("PATH_INFO", None),
                        ("QUERY_STRING", ""), ("SECRET", "m"))
    environ = json.loads(site.answer("unix", uwsgi(variables))[2])["environ"]
    assert environ["REQUEST_METHOD"] == "OPTIONS" and environ["PATH_INFO"] == ""
    assert environ["REMOTE_ADDR"] == "192.0.2.9" and environ["SECRET"] == "m"
    assert environ["wsgi.url_scheme"] == "https"


def test_limits_and_deadlines(serve, tmp_path):
    site = Gateways(serve, tmp_path, "-w1", "--limit-request-body=10", "--request-timeout=500ms",
                    "--health-path=/healthz")
    site.server.check = False
    for kind, make in (("uwsgi", uwsgi), ("scgi", scgi), ("fastcgi", fastcgi)):
        variables = changed(("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "11"))
        assert site.answer(kind, make(variables, b"x" * 11))[0] == 413
        assert site.answer(kind, make(changed(("QUERY_STRING", "sleep=30"))))[0] == 504
        health = changed(("REQUEST_URI", "/healthz"), ("PATH_INFO", "/healthz"), ("QUERY_STRING", ""))
        assert site.answer(kind, make(health))[0] == 200


def test_clients_in_the_log(serve, tmp_path):
    site = Gateways(serve, tmp_path, "-w1")
    site.answer("uwsgi", uwsgi(BASE))
    site.server.wait_log(r'192\.0\.2\.9 - - \[.*"GET /a%20b\?x=1 HTTP/1\.1" 200', out=True)


@pytest.mark.parametrize("scheme", ["uwsgi", "puwsgi", "scgi", "fastcgi", "fcgi", "auto"])
def test_public_addresses(serve, scheme):
    server = serve(APP, "--bind=%s://0.0.0.0:%d" % (scheme, free_port()), start=False)
    server.check = False
    server.spawn()
    assert server.wait() == 1
    assert "allow-public-gateway" in server.log()


@pytest.mark.parametrize("scheme", ["uwsgi", "puwsgi"])
def test_public_addresses_that_are_allowed(serve, scheme):
    """In a network of its own, so that nobody reaches it."""
    apart = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run(apart + ["true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("namespaces of networks cannot be made here")
    server = serve(APP, "--bind=%s://0.0.0.0:%d" % (scheme, free_port()), "--allow-public-gateway", ready="/",
                   bind="unix", command=apart + test_command())
    server.wait_log(r"serving .*%s://127\.0\.0\.1:" % scheme)


def test_a_reload_drops_nothing(serve, tmp_path):
    site = Gateways(serve, tmp_path, "-w2")
    with site.connect("uwsgi") as slow, site.connect("puwsgi") as kept:
        slow.send(uwsgi(changed(("QUERY_STRING", "sleep=1"))))
        site.server.send_signal(1)
        for _ in range(40):
            assert site.answer("uwsgi", uwsgi(BASE))[0] == 200
            assert site.answer("unix", scgi(BASE))[0] == 200
            kept.send(uwsgi(BASE))
            assert kept.read_response().status == 200
        assert parse(slow.read_to_end())[0] == 200
    site.server.wait_log("reload.*complete|reloaded")


def test_requests_leave_a_worker_that_is_stuck(serve, tmp_path):
    site = Gateways(serve, tmp_path, "-w2")
    with site.connect("unix") as stuck:
        stuck.send(uwsgi(changed(("QUERY_STRING", "sleep=3"))))
        for _ in range(20):
            assert site.answer("unix", uwsgi(BASE))[0] == 200
            assert site.answer("uwsgi", uwsgi(BASE))[0] == 200
        with pytest.raises(socket.timeout):
            stuck.settimeout(0.001)
            stuck.read_bytes(1)
        stuck.settimeout(20)
        assert parse(stuck.read_to_end())[0] == 200
