"""The PROXY protocol from HAProxy and nginx, configured as the document shows it."""

import re
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from tests.fronts import fronts
from tests.fronts.fronts import CLIENT
from tests.lib.server import Server

PAGE, TITLE = "apache-haproxy.md", "The PROXY protocol"
APP = """
import json


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({name: value for name, value in environ.items() if isinstance(value, str)}).encode()]
"""
FORWARDED = {"X-Forwarded-For": "192.0.2.66", "X-Forwarded-Proto": "https"}


class Behind:
    """stoker with the document's configuration."""

    def __init__(self, where, certificate):
        where.mkdir()
        where.chmod(0o755)
        (where / "bytesite.py").write_text(APP)
        self.unix = where / "stoker.sock"
        self.port = fronts.ports(1)[0]
        changes = {
            "mysite.wsgi": "bytesite",
            "/run/mysite/stoker.sock?mode=660": "%s?mode=666" % self.unix,
            "10.0.0.7:8443": "127.0.0.1:%d" % self.port,
            "10.0.0.5": "127.0.0.1",
            "/etc/ssl/example.org/fullchain.pem": str(certificate[0]),
            "/etc/ssl/example.org/privkey.pem": str(certificate[1]),
        }
        (where / "stoker.toml").write_text(fronts.substitute(fronts.block(PAGE, TITLE, "toml"), changes))
        args = ["--config", where / "stoker.toml", "--workers", "1", "--access-log", "-"]
        self.server = Server(None, args, cwd=where, bind=None, logdir=where)
        self.server.host, self.server.port = "127.0.0.1", self.port
        self.server.address = ("127.0.0.1", self.port)
        self.server.start()


@pytest.fixture(scope="module")
def behind(where, certificate):
    found = Behind(where / "bytes", certificate)
    yield found
    found.server.stop()


@pytest.fixture(scope="module")
def alice(where):
    """An authority, and (certificate, key) of a client that it has signed."""
    openssl = fronts.program("openssl")
    names = {name: str(where / ("alice-%s.pem" % name)) for name in ("ca", "ca-key", "cert", "key", "request")}
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for arguments in (
        ["req", "-x509", *new, "-days", "30", "-subj", "/CN=Clients", "-keyout", names["ca-key"], "-out", names["ca"]],
        ["req", *new, "-subj", "/O=Users/CN=alice", "-keyout", names["key"], "-out", names["request"]],
        ["x509", "-req", "-in", names["request"], "-CA", names["ca"], "-CAkey", names["ca-key"], "-days", "30"]
        + ["-set_serial", "7", "-out", names["cert"]],
    ):
        subprocess.run([openssl, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    Path(names["ca"]).chmod(0o644)
    return names


def check(environ, port):
    assert (environ["REMOTE_ADDR"], environ["SERVER_NAME"]) == (CLIENT, "127.0.0.1")
    assert environ["SERVER_PORT"] == str(port) and environ["REMOTE_PORT"].isdigit()
    assert environ["HTTP_X_FORWARDED_FOR"] == "192.0.2.66"  # and is not believed


@pytest.mark.parametrize("how", ["send-proxy-v2-ssl-cn", "send-proxy-v2", "send-proxy", "crc32c"])
def test_haproxy_ends_tls(where, behind, certificate, alice, how):
    port, plain = fronts.ports(2)
    both = where / "bytes.pem"
    both.write_bytes(certificate[0].read_bytes() + certificate[1].read_bytes())
    send = "send-proxy-v2-ssl-cn proxy-v2-options authority,ssl-cipher"
    changes = {
        "bind :443 ssl crt /etc/haproxy/example.org.pem":
            "bind 127.0.0.1:%d\n    bind 127.0.0.1:%d ssl crt %s" % (plain, port, both),
        "/etc/haproxy/clients.pem": alice["ca"],
        "/run/mysite/stoker.sock": str(behind.unix),
        send + " check":
            {"crc32c": send + ",crc32c", "send-proxy-v2-ssl-cn": send}.get(how, how) + " check inter 50",
    }
    text = fronts.substitute(fronts.block(PAGE, TITLE, "haproxy"), changes)
    front = fronts.haproxy(where / ("haproxy-" + how), [text], [plain, port])
    road = fronts.Road("bytes", plain, port)
    told = how in ("crc32c", "send-proxy-v2-ssl-cn")
    try:
        for tls, number in ((False, plain), (True, port)):
            environ = road.get("/", fields=FORWARDED, tls=tls).json()
            check(environ, number)
            secure = tls and told
            assert environ["wsgi.url_scheme"] == ("https" if secure else "http")
            assert environ.get("SSL_CLIENT_VERIFY") == ("NONE" if secure else None)
            assert environ.get("SSL_PROTOCOL") == ("TLSv1.3" if secure else None)
            assert environ.get("SSL_TLS_SNI") == (fronts.HOST if secure else None)
        if told:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.load_cert_chain(alice["cert"], alice["key"])
            with fronts.Client(("127.0.0.1", port)) as conn:
                conn.sock = context.wrap_socket(conn.sock, server_hostname=fronts.HOST)
                for _ in range(2):
                    environ = road.get("/", fields=FORWARDED, conn=conn).json()
                    check(environ, port)
                    assert environ["SSL_CLIENT_VERIFY"] == "SUCCESS"
                    assert environ["SSL_CLIENT_S_DN_CN"] == "alice" and environ["SSL_CIPHER"]
    finally:
        front.stop()


def stream(text, port, behind):
    """The document's block for nginx or HAProxy, in which TLS passes through."""
    changes = {"10.0.0.7:8443": "127.0.0.1:%d" % behind.port}
    listen = "listen 443" if "listen 443" in text else "bind :443"
    changes[listen] = listen.replace("443", "127.0.0.1:%d" % port).replace(" :", " ")
    return fronts.substitute(text, changes)


def test_haproxy_passes_tls_on(where, behind):
    port = fronts.ports(1)[0]
    text = stream(fronts.block(PAGE, TITLE, "haproxy", 1), port, behind).replace(" check", " check inter 50")
    front = fronts.haproxy(where / "haproxy-through", [text], [port])
    try:
        check_through(fronts.Road("through", 0, port), port)
        # Its checks go on, and none of them is in a log.
        time.sleep(0.3)
    finally:
        front.stop()
    assert not re.search("PROXY|refused|handshake", behind.server.log()), behind.server.log()
    lines = behind.server.stdout().splitlines()
    assert lines and all(line.startswith(CLIENT + " ") for line in lines), lines


def test_nginx_passes_tls_on(where, behind):
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if not module.exists():
        pytest.skip("nginx's stream module is not installed")
    folder = fronts.writable(where / "nginx-through")
    port = fronts.ports(1)[0]
    text = "load_module %s;\ndaemon off;\npid %s/nginx.pid;\nevents { }\n" % (module, folder)
    text += stream(fronts.block(PAGE, TITLE, "nginx"), port, behind)
    (folder / "nginx.conf").write_text(text)
    argv = [fronts.program("nginx"), "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "nginx-error.log"]
    front = fronts.Front("nginx", argv, folder, [port]).start()
    try:
        check_through(fronts.Road("through", 0, port), port)
    finally:
        front.stop()


def check_through(road, port):
    with road.connect(tls=True) as conn:
        for _ in range(2):
            environ = road.get("/", fields=FORWARDED, conn=conn).json()
            check(environ, port)
            assert environ["wsgi.url_scheme"] == "https" and environ["SSL_TLS_SNI"] == fronts.HOST
    ready = road.post("/", b"x" * 100000, tls=True, fields=FORWARDED)
    check(ready.json(), port)
