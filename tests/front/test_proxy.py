"""The PROXY protocol in front of connections: who the client is, and who may say so."""

import json
import re
import shutil
import socket
import ssl
import subprocess
import time

import pytest

from tests.front.proxying import LOCAL, SIGNATURE, UNIX, UNKNOWN, block, ssl_tlv, tlv, v1, v2
from tests.front.test_gateways import BASE, parse, scgi, uwsgi
from tests.lib import fastcgi
from tests.lib.server import Connection, free_port, test_command

APP = """
import json
import os
import time


def app(environ, start_response):
    body = environ["wsgi.input"].read()
    while environ["QUERY_STRING"].startswith("while=") and os.path.exists(environ["QUERY_STRING"][6:]):
        time.sleep(0.01)
    shown = {k: v for k, v in environ.items() if isinstance(v, str)}
    shown["pid"] = os.getpid()
    shown["body"] = len(body)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(shown).encode()]
"""
GET = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"
FORWARDED = (b"GET / HTTP/1.1\r\nHost: example.org\r\nX-Forwarded-For: 192.0.2.66\r\n"
             b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n\r\n")
BAD = [
    b"PROXY TCP4 nonsense\r\n",
    b"PROXY TCP4 203.0.113.7 198.51.100.1 1 65536\r\n",
    b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
    SIGNATURE + b"\x31\x11\x00\x00",
    SIGNATURE + b"\x21\x11\xff\xff",
    block(b"\0" * 11),
    v2(tlvs=b"\x20\0\2xx"),
    v2(tlvs=ssl_tlv(cn=b"a\nb")),
    v2(checksum=True)[:-1] + b"\0",
]


def certificate(where):
    """A self-signed certificate and its key."""
    paths = where / "cert.pem", where / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        + ["-subj", "/CN=example.org", "-addext", "subjectAltName=DNS:example.org", "-out", paths[0], "-keyout", paths[1]],
        check=True, stderr=subprocess.DEVNULL)
    return paths


class Site:
    """A server with proxy-protocol at an address of each kind; the test's own peer is 127.0.0.1."""

    def __init__(self, serve, where, mode, *args):
        self.ports = {name: free_port() for name in ("uwsgi", "scgi", "fastcgi", "auto", "https", "metrics")}
        self.path = str(where / "site.sock")
        cert, key = certificate(where)
        binds = ["--bind=unix:" + self.path, "--metrics=127.0.0.1:%d" % self.ports["metrics"]]
        binds += ["--bind=%s://127.0.0.1:%d" % (name, port) for name, port in self.ports.items() if name != "metrics"]
        tls = ["--tls-cert", str(cert), "--tls-key", str(key)]
        self.server = serve(APP, *binds, *tls, "--proxy-protocol", mode, *args)

    def connect(self, kind="http"):
        if kind == "http":
            return self.server.connect()
        return Connection(self.path if kind == "unix" else ("127.0.0.1", self.ports[kind]))

    def environ(self, data, kind="http"):
        with self.connect(kind) as conn:
            conn.send(data)
            response = conn.read_response()
        assert response.status == 200, response
        return response.json()


@pytest.fixture(scope="module")
def required(serve_module, tmp_path_factory):
    return Site(serve_module, tmp_path_factory.mktemp("required"), "required", "-w1")


@pytest.fixture(scope="module")
def optional(serve_module, tmp_path_factory):
    return Site(serve_module, tmp_path_factory.mktemp("optional"), "optional", "-w1", "--threads", "2")


@pytest.mark.parametrize("kind", ["http", "unix", "auto"])
@pytest.mark.parametrize("make", [v1, v2])
@pytest.mark.parametrize("client, server", [("203.0.113.7", "198.51.100.1"), ("2001:db8::7", "2001:db8::1")])
def test_the_client_is_who_the_header_names(required, optional, kind, make, client, server):
    for site in (required, optional):
        environ = site.environ(make(client, server) + GET, kind)
        assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == (client, "56324")
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (server, "443")
        assert environ["wsgi.url_scheme"] == "http" and "HTTPS" not in environ
        assert environ["HTTP_HOST"] == "example.org"


def test_mapped_addresses_are_ipv4(optional):
    environ = optional.environ(v2("::ffff:203.0.113.7", "::ffff:198.51.100.1") + GET)
    assert environ["REMOTE_ADDR"] == "203.0.113.7" and environ["SERVER_NAME"] == "198.51.100.1"


@pytest.mark.parametrize("header", [LOCAL, UNKNOWN, b"PROXY UNKNOWN\r\n", block(b"\1\2\3", command=0, family=0xff)],
                         ids=["local", "unknown", "v1-unknown", "local-odd"])
def test_a_header_without_addresses(required, header):
    environ = required.environ(header + GET)
    assert environ["REMOTE_ADDR"] == "127.0.0.1" and environ["SERVER_PORT"] == str(required.server.port)
    environ = required.environ(header + FORWARDED)
    # What the balancer itself sends is believed; what comes from somebody unknown is not.
    local = header.startswith(SIGNATURE + b"\x20")
    assert environ["REMOTE_ADDR"] == ("192.0.2.66" if local else "127.0.0.1")
    assert environ["wsgi.url_scheme"] == ("https" if local else "http")


def test_a_client_by_a_unix_socket(required):
    environ = required.environ(UNIX + GET)
    assert environ["REMOTE_ADDR"] == "" and "REMOTE_PORT" not in environ
    assert required.environ(UNIX + FORWARDED)["REMOTE_ADDR"] == "192.0.2.66"  # "unix" is trusted


@pytest.mark.parametrize("make", [v1, v2])
def test_fields_of_the_client_are_its_own(required, make):
    environ = required.environ(make() + FORWARDED)
    assert environ["REMOTE_ADDR"] == "203.0.113.7" and environ["wsgi.url_scheme"] == "http"
    assert environ["HTTP_HOST"] == "example.org"
    # A front end of our own behind the balancer is believed, as it would be without one.
    environ = required.environ(make("127.0.0.9", "127.0.0.1") + FORWARDED)
    assert environ["REMOTE_ADDR"] == "192.0.2.66" and environ["wsgi.url_scheme"] == "https"


@pytest.mark.parametrize("kind", ["http", "unix"])
@pytest.mark.parametrize("header", [v1(), v2(tlvs=ssl_tlv(7, 0, cn=b"alice"), checksum=True), LOCAL], ids=["v1", "v2", "local"])
def test_split_at_every_byte(required, kind, header):
    data = header + GET
    for cut in range(1, len(header) + 2):
        with required.connect(kind) as conn:
            conn.send(data[:cut])
            if cut % 7 == 0:
                time.sleep(0.003)
            conn.send(data[cut:])
            assert conn.read_response().json()["REMOTE_ADDR"] == ("203.0.113.7" if header is not LOCAL else
                                                                  "127.0.0.1" if kind == "http" else "")
    with required.connect(kind) as conn:
        conn.send_slowly(data)
        assert conn.read_response().status == 200


def test_the_address_lasts_as_long_as_the_connection(required):
    with required.connect() as conn:
        conn.send(v2() + GET + GET)
        for _ in range(2):
            assert conn.read_response().json()["REMOTE_ADDR"] == "203.0.113.7"
        conn.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300000 + GET)
        first, second = conn.read_response().json(), conn.read_response().json()
        assert first["body"] == 300000 and first["REMOTE_ADDR"] == "203.0.113.7"
        assert second["REMOTE_ADDR"] == "203.0.113.7" and second["SERVER_PORT"] == "443"


def test_connections_are_not_mixed_up(required):
    """The same head of different clients, one after the other."""
    headers = {
        "203.0.113.1": v1("203.0.113.1", "198.51.100.1", (1, 80)),
        "203.0.113.2": v2("203.0.113.2", "198.51.100.2", (1, 443), ssl_tlv(7, 0, cn=b"alice")),
        "203.0.113.3": v2("203.0.113.3", "198.51.100.2", (1, 443), ssl_tlv(7, 0, cn=b"bob")),
        "203.0.113.4": v2("203.0.113.4", "198.51.100.2", (1, 443), ssl_tlv(1, 1)),
        "127.0.0.1": LOCAL,
    }
    told = {"203.0.113.1": (None, "80"), "203.0.113.2": ("alice", "443"), "203.0.113.3": ("bob", "443"),
            "203.0.113.4": (None, "443"), "127.0.0.1": (None, str(required.server.port))}
    conns = {client: required.connect() for client in headers}
    for client, conn in conns.items():
        conn.send(headers[client])
    for _ in range(4):
        for client, conn in conns.items():
            conn.send(GET)
            environ = conn.read_response().json()
            assert environ["REMOTE_ADDR"] == client
            assert (environ.get("SSL_CLIENT_S_DN_CN"), environ["SERVER_PORT"]) == told[client]
    for conn in conns.values():
        conn.close()


def test_tls_that_ended_at_the_balancer(required):
    environ = required.environ(v2(tlvs=tlv(2, b"example.org") + ssl_tlv(1, 1)) + GET)
    assert environ["wsgi.url_scheme"] == "https" and environ["HTTPS"] == "on"
    assert environ["SSL_PROTOCOL"] == "TLSv1.3" and environ["SSL_CIPHER"] == "TLS_AES_128_GCM_SHA256"
    assert environ["SSL_TLS_SNI"] == "example.org" and environ["SSL_CLIENT_VERIFY"] == "NONE"
    assert "SSL_CLIENT_S_DN_CN" not in environ
    environ = required.environ(v2(tlvs=ssl_tlv(7, 0, cn=b"alice"), checksum=True) + GET)
    assert environ["SSL_CLIENT_VERIFY"] == "SUCCESS" and environ["SSL_CLIENT_S_DN_CN"] == "alice"
    environ = required.environ(v2(tlvs=ssl_tlv(3, 18, cn=b"mallory")) + GET)
    assert environ["SSL_CLIENT_VERIFY"] == "FAILED:18" and "SSL_CLIENT_S_DN_CN" not in environ
    environ = required.environ(v2(tlvs=ssl_tlv(0, 1)) + GET)
    assert environ["wsgi.url_scheme"] == "http" and "SSL_PROTOCOL" not in environ


@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_malformed_headers(required, optional, data):
    for site in (required, optional):
        with site.connect() as conn:
            conn.send(data)
            response = conn.read_response()
            assert response.status == 400 and response.will_close
            assert b"malformed PROXY" in response.body
        with site.connect("https") as conn:
            conn.send(data)
            assert conn.read_to_end() == b""
    required.server.wait_log("127.0.0.1:[0-9]+ is refused: its PROXY header is malformed: ")


def test_required(required):
    with required.connect() as conn:
        conn.send(GET)
        response = conn.read_response()
        assert response.status == 400 and b"PROXY protocol header is required" in response.body
    required.server.wait_log("it sends no PROXY header, which proxy-protocol = required asks for")
    with required.connect("https") as conn:
        conn.send(b"\x16\x03\x01\x00\x05hello")
        assert conn.read_to_end() == b""


def test_optional(optional):
    environ = optional.environ(GET)
    assert environ["REMOTE_ADDR"] == "127.0.0.1" and environ["SERVER_PORT"] == str(optional.server.port)
    with optional.connect() as conn:  # as far as it might be a header it is waited for
        conn.send_slowly(b"P")
        conn.send_slowly(b"UT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", size=9)
        assert conn.read_response().json()["REQUEST_METHOD"] == "PUT"
    with optional.connect() as conn:
        conn.send_slowly(b"\r\n" + GET, size=1)
        assert conn.read_response().status == 200


@pytest.mark.parametrize("mode", ["required", "optional", "off"])
def test_peers_that_are_not_trusted(serve, mode):
    server = serve(APP, "-w1", "--proxy-protocol", mode, "--forwarded-allow", "192.0.2.1")
    for header in (v1(), v2()):
        response = server.send_raw(header + GET)[0]
        assert response.status == 400 and response.will_close
    if mode == "required":
        assert server.send_raw(GET)[0].status == 400
        server.wait_log("is refused: proxy-protocol is required, and it is not in forwarded-allow")
    else:
        assert server.send_raw(GET)[0].json()["REMOTE_ADDR"] == "127.0.0.1"
    if mode == "optional":
        server.wait_log("sends the PROXY protocol and is not in forwarded-allow")
    if mode == "off":
        server.wait_log("sends the PROXY protocol, which this address does not take")


def test_a_second_header(required):
    with required.connect() as conn:
        conn.send(v1() + v1("192.0.2.99") + GET)
        assert conn.read_response().status == 400
    required.server.wait_log("a second PROXY header follows the first")


@pytest.mark.parametrize("kind, make", [("uwsgi", uwsgi), ("scgi", scgi)])
@pytest.mark.parametrize("header", [v1(), v2()], ids=["v1", "v2"])
def test_before_gateways(required, kind, make, header):
    with required.connect(kind) as conn:
        conn.send(header + make(BASE))
        environ = json.loads(parse(conn.read_to_end())[2])
    # What its front end says of the client is nearer to it than what the balancer saw.
    assert environ["REMOTE_ADDR"] == "192.0.2.9" and environ["SERVER_NAME"] == "example.com"
    told = [pair for pair in BASE if pair[0] not in ("REMOTE_ADDR", "REMOTE_PORT")]
    with required.connect(kind) as conn:
        conn.send_slowly(header + make(told), size=11)
        assert json.loads(parse(conn.read_to_end())[2])["REMOTE_ADDR"] == "203.0.113.7"
    with required.connect(kind) as conn:
        conn.send(make(BASE))
        assert parse(conn.read_to_end())[0] == 400


@pytest.mark.parametrize("kind", ["auto", "unix"])
@pytest.mark.parametrize("packet", [uwsgi(BASE), scgi(BASE), fastcgi.request(BASE)], ids=["uwsgi", "scgi", "fastcgi"])
@pytest.mark.parametrize("header", [v1(), v2(tlvs=ssl_tlv(1, 0))], ids=["v1", "v2"])
def test_who_comes_through_a_balancer_is_no_front_end(required, kind, header, packet):
    """The first bytes behind the header are the client's, which may not say who it is by them."""
    with required.connect(kind) as conn:
        conn.send(header + packet)
        assert parse(conn.read_to_end())[0] == 400


@pytest.mark.parametrize("kind", ["auto", "unix"])
def test_a_front_end_behind_a_balancer(required, kind):
    """It is one by its address."""
    with required.connect(kind) as conn:
        conn.send(v1("127.0.0.1") + uwsgi(BASE))
        assert json.loads(parse(conn.read_to_end())[2])["REMOTE_ADDR"] == "192.0.2.9"


@pytest.mark.parametrize("kind", ["fastcgi"])
def test_before_fastcgi(required, kind):
    told = [pair for pair in BASE if pair[0] not in ("REMOTE_ADDR", "REMOTE_PORT")]
    with required.connect(kind) as conn:
        conn.send(v2())
        for variables, client in ((BASE, "192.0.2.9"), (told, "203.0.113.7"), (BASE, "192.0.2.9")):
            conn.send(fastcgi.request(variables))
            answer = fastcgi.answer(conn)
            assert json.loads(answer.body)["REMOTE_ADDR"] == client


def test_at_one_address(serve):
    """The option is for all addresses; one of them may say otherwise."""
    port = free_port()
    server = serve(APP, "-w1", "--bind", "127.0.0.1:%d?proxy-protocol=required" % port, ready="/")
    with Connection(("127.0.0.1", port)) as conn:
        conn.send(v1() + GET)
        assert conn.read_response().json()["REMOTE_ADDR"] == "203.0.113.7"
    with Connection(("127.0.0.1", port)) as conn:
        conn.send(GET)
        assert conn.read_response().status == 400
    assert server.send_raw(GET)[0].status == 200
    assert server.send_raw(v1() + GET)[0].status == 400
    port = free_port()
    other = serve(APP, "-w1", "--proxy-protocol", "required", "--bind", "127.0.0.1:%d?proxy-protocol=off" % port)
    assert other.send_raw(v1() + GET)[0].status == 200
    with Connection(("127.0.0.1", port)) as conn:
        conn.send(GET)
        assert conn.read_response().status == 200
    for wrong, words in (("", "no option"), ("on", "off, optional or required")):
        bad = serve(APP, "--bind", "127.0.0.1:%d?proxy-protocol=%s" % (port, wrong), start=False, check=False)
        bad.spawn()
        assert bad.wait() != 0 and words in bad.log()


@pytest.mark.parametrize("kind", ["https", "auto"])
@pytest.mark.parametrize("header", [v1(), v2(tlvs=ssl_tlv(0, 1)), LOCAL], ids=["v1", "v2", "local"])
def test_before_tls(required, optional, kind, header):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for site, sent in ((required, header), (optional, header), (optional, b"")):
        with socket.create_connection(("127.0.0.1", site.ports[kind]), 20) as sock:
            sock.sendall(sent)
            with context.wrap_socket(sock, server_hostname="example.org") as tls:
                tls.sendall(GET)
                data = tls.recv(65536)
        environ = json.loads(data.partition(b"\r\n\r\n")[2] or tls.recv(65536))
        named = sent not in (LOCAL, b"")
        assert environ["REMOTE_ADDR"] == ("203.0.113.7" if named else "127.0.0.1")
        assert environ["SERVER_PORT"] == ("443" if named else str(site.ports[kind]))
        assert environ["wsgi.url_scheme"] == "https" and environ["SSL_TLS_SNI"] == "example.org"


def test_tls_twice(required):
    """Between the balancer and stoker too: the client's is what counts."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", required.ports["https"]), 20) as sock:
        sock.sendall(v2(tlvs=ssl_tlv(7, 0, version=b"TLSv1.2", cn=b"alice")))
        with context.wrap_socket(sock, server_hostname="balancer") as tls:
            tls.sendall(GET)
            environ = json.loads(tls.recv(65536).partition(b"\r\n\r\n")[2])
    assert environ["SSL_PROTOCOL"] == "TLSv1.2" and environ["SSL_CLIENT_S_DN_CN"] == "alice"
    assert "SSL_TLS_SNI" not in environ and environ["HTTPS"] == "on"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_curl(required, scheme):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    port = required.server.port if scheme == "http" else required.ports["https"]
    done = subprocess.run(
        ["curl", "-sSk", "--haproxy-protocol", "--interface", "127.0.0.3", "%s://127.0.0.1:%d/" % (scheme, port)],
        check=True, stdout=subprocess.PIPE)
    environ = json.loads(done.stdout)
    assert environ["REMOTE_ADDR"] == "127.0.0.3" and environ["SERVER_PORT"] == str(port)
    assert environ["wsgi.url_scheme"] == scheme


def test_stoker_curl(required):
    for url in ("http://127.0.0.1:%d/" % required.server.port, "https://127.0.0.1:%d/" % required.ports["https"],
                "unix:" + required.path):
        done = subprocess.run([*test_command(), "curl", "-k", "--haproxy-clientip", "203.0.113.7", url],
                              check=True, stdout=subprocess.PIPE)
        assert json.loads(done.stdout.partition(b"\r\n\r\n")[2])["REMOTE_ADDR"] == "203.0.113.7"


def test_metrics_take_none(required):
    with required.connect("metrics") as conn:
        conn.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert conn.read_response().status == 200
    with required.connect("metrics") as conn:
        conn.send(v1() + GET)
        assert conn.read_response().status == 400


def test_checks_of_balancers_are_silent(serve):
    """Connections that say nothing, or that they are checks, leave nothing in any log."""
    server = serve(APP, "-w1", "--proxy-protocol", "required", "--head-timeout", "1", "--access-log", "-",
                   "--keepalive-timeout", "1")
    server.wait_log("ready|listening")
    before = server.log()
    for data in (b"", LOCAL, b"PROXY UNKNOWN\r\n", v1(), v2()[:20]):
        server.connect().close()
        with server.connect() as conn:
            conn.send(data)
        with server.connect() as conn:
            conn.send(data)
            conn.reset()
    waiting = [server.connect() for _ in range(4)]
    for conn, data in zip(waiting, (b"", LOCAL, v2(), v2()[:20])):
        conn.send(data)
    for conn in waiting:
        assert conn.read_to_end() == b""
        conn.close()
    assert server.send_raw(v1() + GET)[0].status == 200
    server.wait_log("203.0.113.7", out=True)
    assert server.log() == before and server.stdout().count("\n") == 1


def test_a_request_that_moves_keeps_its_client(serve, tmp_path):
    """A worker is stuck; what waits there goes to the other one, with what is known of it."""
    server = serve(APP, "-w2", "--proxy-protocol", "required", "--metrics", "/metrics")
    server.wait_log("ready after")  # both, or one has all connections

    def metric(name):
        text = server.send_raw(LOCAL + b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")[0].text
        return float(re.search(r"^%s(?:\{[^}]*\})? (\S+)$" % name, text, re.MULTILINE).group(1))

    header = v2("2001:db8::7", "2001:db8::1", tlvs=ssl_tlv(7, 0, cn=b"alice"), checksum=True)
    conns = {}
    while len(conns) < 2 or min(map(len, conns.values())) < 3:
        conn = server.connect()
        conn.send(header + GET)
        conns.setdefault(conn.read_response().json()["pid"], []).append(conn)
        assert sum(map(len, conns.values())) < 200
    (stuck, *waiting), other = list(conns.values())[0], list(conns)[1]
    (tmp_path / "stuck").touch()
    stuck.send(b"GET /?while=%s HTTP/1.1\r\nHost: x\r\n\r\n" % str(tmp_path / "stuck").encode())
    while metric("stoker_threads_busy") == 0:
        time.sleep(0.01)
    for conn in waiting:
        conn.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
    for conn in waiting:
        for _ in range(2):
            environ = conn.read_response().json()
            assert environ["pid"] == other
            assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("2001:db8::7", "56324")
            assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("2001:db8::1", "443")
            assert environ["SSL_CLIENT_S_DN_CN"] == "alice" and environ["HTTPS"] == "on"
            conn.send(GET)
    (tmp_path / "stuck").unlink()
    assert stuck.read_response().json()["REMOTE_ADDR"] == "2001:db8::7"
    assert metric("stoker_requests_moved_in_total") >= len(waiting)


def test_a_reload_keeps_the_client(serve):
    server = serve(APP, "-w1", "--proxy-protocol", "required")
    with server.connect() as conn:
        conn.send(v2(tlvs=ssl_tlv(1, 1)) + GET)
        first = conn.read_response().json()
        server.send_signal(1)
        deadline = time.monotonic() + 20
        while True:
            conn.send(GET)
            response = conn.read_response()
            assert response.status == 200 and not response.will_close
            environ = response.json()
            assert environ["REMOTE_ADDR"] == "203.0.113.7" and environ["HTTPS"] == "on"
            if environ["pid"] != first["pid"]:
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_connection_without_a_word_holds_up_no_reload(serve):
    server = serve(APP, "-w1", "--proxy-protocol", "required", "--head-timeout", "600")
    conns = [server.connect() for _ in range(3)]
    conns[1].send(v1()[:20])
    conns[2].send(LOCAL)
    server.send_raw(LOCAL + GET)
    server.send_signal(1)
    server.wait_log("the reload is complete")
    for conn in conns[:2]:
        assert conn.read_to_end() == b""
    conns[2].send(GET)  # has moved to the new worker
    assert conns[2].read_response().status == 200
    for conn in conns:
        conn.close()


def test_an_upgrade_ends_proxied_connections_well(serve, tmp_path):
    """A descriptor tells nothing of the header: each idle connection gets one more request."""
    server = serve(APP, "-w1", "--proxy-protocol", "required", "--pidfile", str(tmp_path / "pid"))
    with server.connect() as conn:
        conn.send(v2() + GET)
        first = conn.read_response().json()
        server.send_signal(12)
        server.wait_log("this server has taken over from process")
        conn.send(FORWARDED)
        response = conn.read_response()
        assert response.status == 200 and response.json()["REMOTE_ADDR"] == "203.0.113.7"
        assert response.will_close and response.json()["pid"] == first["pid"]
        assert conn.read_to_end() == b""
    environ = server.send_raw(v1() + GET)[0].json()
    assert environ["REMOTE_ADDR"] == "203.0.113.7" and environ["pid"] != first["pid"]


def test_who_may_send_it_has_to_be_named(serve):
    server = serve(APP, "--proxy-protocol", "required", "--forwarded-allow", "", start=False)
    server.spawn()
    assert server.wait() == 78 or server.returncode != 0
    assert "proxy-protocol: forwarded-allow is empty" in server.log()
