"""TLS: what is agreed on and what is refused, names, client certificates, resumption, the reload of
certificates, and large and slow bodies through it. The clients are Python's ssl, curl and openssl."""

import hashlib
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.lib.server import free_port
from tests.lib.users import why_not

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")

APP = """
import hashlib, os, threading, time

def app(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    body = None
    if path == "/env":
        body = "\\n".join("%s=%r" % (k, v) for k, v in sorted(environ.items()) if isinstance(v, str)).encode()
    elif path == "/pid":
        body = b"%d" % os.getpid()
    elif path == "/big":
        body = b"0123456789abcdef" * (int(query) // 16)
    elif path == "/sum":
        digest = hashlib.md5()
        while True:
            block = environ["wsgi.input"].read(50000)
            if not block:
                break
            digest.update(block)
        body = digest.hexdigest().encode()
    elif path == "/sleep":
        time.sleep(float(query))
        body = b"slept"
    elif path == "/file":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return environ["wsgi.file_wrapper"](open(query, "rb"))
    elif path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"line %06d\\n" % i for i in range(int(query)))
    elif path == "/broken":
        def broken():
            yield b"x" * 1000
            raise RuntimeError("meant")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return broken()
    else:
        body = b"hello"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


def openssl(*args, stdin=b"", check=True):
    done = subprocess.run(("openssl",) + args, input=stdin, capture_output=True, timeout=30)
    if check:
        assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def make(path, *names, key="ec", days=90, ca=None, subject="/CN=test"):
    """A certificate in path.pem with its key in path.key."""
    kind = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256") if key == "ec" else ("rsa:2048",)
    args = ["req", "-x509" if ca is None else "-new", "-newkey", *kind, "-nodes", "-subj", subject]
    args += ["-keyout", str(path) + ".key", "-out", str(path) + (".pem" if ca is None else ".csr")]
    if names:
        args += ["-addext", "subjectAltName=" + ",".join("DNS:" + name for name in names)]
    if ca is None:
        openssl(*args, "-days", str(days))
    else:
        openssl(*args)
        openssl(
            "x509", "-req", "-in", str(path) + ".csr", "-CA", str(ca) + ".pem", "-CAkey", str(ca) + ".key",
            "-CAcreateserial", "-days", str(days), "-out", str(path) + ".pem",
        )  # fmt: skip
    return Path(str(path) + ".pem")


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    """A directory of certificates, by what they are for."""
    where = tmp_path_factory.mktemp("certs")
    make(where / "main", "localhost", "*.wild.test")
    make(where / "rsa", "localhost", "*.wild.test", key="rsa")
    make(where / "other", "other.test")
    make(where / "new", "localhost", subject="/CN=renewed")
    make(where / "ca", subject="/CN=the authority")
    make(where / "client", ca=where / "ca", subject="/O=Users/CN=alice")
    make(where / "stranger", subject="/CN=mallory")
    make(where / "soon", "localhost", days=3)
    return where


def pair(certs, name):
    return ["--tls-cert", str(certs / (name + ".pem")), "--tls-key", str(certs / (name + ".key"))]


@pytest.fixture
def https(serve):
    def start(*args, app=APP, ready=True, scheme="https", **kwargs):
        port = free_port()
        bind = "%s://127.0.0.1:%d" % (scheme, port)
        workers = () if "-w2" in args else ("-w1",)
        server = serve(app, "--bind", bind, *workers, *args, bind=None, start=False, **kwargs)
        server.host, server.port, server.address = "127.0.0.1", port, ("127.0.0.1", port)
        if ready:
            server.start()
            server.wait_log("ready after")
        return server

    return start


def client(certs=None, ca="main", low=ssl.TLSVersion.TLSv1_2, high=ssl.TLSVersion.TLSv1_3, cert=None, alpn=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version, context.maximum_version = low, high
    if certs is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(str(certs / (ca + ".pem")))
    if cert is not None:
        context.load_cert_chain(str(certs / (cert + ".pem")), str(certs / (cert + ".key")))
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def connect(server, context=None, name="localhost", session=None):
    sock = socket.create_connection(server.address, 20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        return (context or client()).wrap_socket(
            sock, server_hostname=name, session=session, suppress_ragged_eofs=False
        )
    except BaseException:
        sock.close()
        raise


def response(conn, left=b""):
    """(status, head, body, what follows) of one response with a Content-Length."""
    data = left
    while b"\r\n\r\n" not in data:
        more = conn.recv(65536)
        assert more, data
        data += more
    head, _, data = data.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
    while len(data) < length:
        more = conn.recv(65536)
        assert more
        data += more
    return int(head.split()[1]), head, data[:length], data[length:]


def ask(conn, target="/", fields="", method="GET", body=b""):
    conn.sendall(("%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % (method, target, fields)).encode() + body)
    status, _, data, _ = response(conn)
    assert status == 200
    return data


def environ(conn):
    return dict(line.partition("=")[::2] for line in ask(conn, "/env").decode().splitlines())


# What is agreed on


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_versions_and_environ(https, certs, version):
    server = https(*pair(certs, "main"))
    want = getattr(ssl.TLSVersion, version)
    with connect(server, client(certs, low=want, high=want, alpn=["h2", "http/1.1"])) as conn:
        assert conn.selected_alpn_protocol() == "http/1.1"
        env = environ(conn)
        assert env["wsgi.url_scheme"] == "'https'" and env["HTTPS"] == "'on'"
        assert env["SERVER_PORT"] == repr(str(server.port))
        assert env["SSL_PROTOCOL"] == repr(version.replace("_", "."))
        assert env["SSL_CIPHER"] == repr(conn.cipher()[0])
        assert env["SSL_TLS_SNI"] == "'localhost'"
        assert not [key for key in env if key.startswith("SSL_CLIENT")]
        assert conn.compression() is None
        assert ask(conn) == b"hello"  # the environ of one request is not that of the next


def test_weak_settings_are_refused(https, certs):
    server = https(*pair(certs, "rsa"))
    where = "127.0.0.1:%d" % server.port
    for version in ("-tls1", "-tls1_1"):
        text = openssl("s_client", version, "-cipher", "ALL@SECLEVEL=0", "-connect", where, check=False)
        assert "Cipher is (NONE)" in text, version
    weak = ["NULL", "aNULL", "RC4", "3DES", "EXPORT", "LOW", "MD5", "kRSA", "PSK", "SRP", "AES128-SHA", "ECDHE+AES+SHA1", "DHE"]
    for cipher in weak:
        text = openssl(
            "s_client", "-tls1_2", "-cipher", cipher + ":@SECLEVEL=0", "-connect", where, check=False
        )
        # a name that this openssl does not know is no cipher either
        assert "Cipher is (NONE)" in text or "no cipher match" in text or "Error with command" in text, cipher
    text = openssl("s_client", "-tls1_2", "-connect", where, stdin=b"R\n", check=False)
    assert "Compression: NONE" in text and re.search("Cipher is ECDHE-RSA-AES", text)
    assert "no renegotiation" in text or "handshake failure" in text
    assert "Secure Renegotiation IS supported" in text
    text = openssl("s_client", "-tls1_3", "-early_data", __file__, "-connect", where, check=False)
    assert "Early data was accepted" not in text
    with pytest.raises(ssl.SSLError):
        connect(server, client(alpn=["h2"]))


def test_minimum_version_and_ciphers(https, certs):
    server = https(*pair(certs, "main"), "--tls-min-version", "1.3", "--tls-ciphers", "TLS_CHACHA20_POLY1305_SHA256")
    with pytest.raises(ssl.SSLError):
        connect(server, client(high=ssl.TLSVersion.TLSv1_2))
    with connect(server) as conn:
        assert conn.cipher()[0] == "TLS_CHACHA20_POLY1305_SHA256"
    server.wait_log("the TLS handshake failed: unsupported protocol")


def subject(server, name, sigalgs=None):
    args = ["s_client", "-connect", "127.0.0.1:%d" % server.port, "-servername", name]
    text = openssl(*args, *(("-sigalgs", sigalgs) if sigalgs else ()), check=False)
    return openssl("x509", "-noout", "-ext", "subjectAltName", "-text", stdin=text.encode())


def test_certificates_by_name(https, certs):
    server = https(*pair(certs, "main"), *pair(certs, "other"), *pair(certs, "rsa"))
    for name, found in (
        ("localhost", "localhost"), ("other.test", "other.test"), ("OTHER.test", "other.test"),
        ("a.wild.test", "*.wild.test"), ("a.b.wild.test", "localhost"), ("nobody.test", "localhost"),
    ):  # fmt: skip
        assert "DNS:" + found in subject(server, name), name
    # for the same names there is one of each kind of key
    assert "id-ecPublicKey" in subject(server, "localhost")
    assert "rsaEncryption" in subject(server, "localhost", "RSA-PSS+SHA256")


def test_directory_of_certificates(https, certs, tmp_path):
    folder = tmp_path / "tls"
    (folder / "other.test").mkdir(parents=True)
    shutil.copy(certs / "other.pem", folder / "other.test" / "fullchain.pem")
    shutil.copy(certs / "other.key", folder / "other.test" / "privkey.pem")
    shutil.copy(certs / "main.pem", folder / "a.crt")
    shutil.copy(certs / "main.key", folder / "a.key")
    server = https("--tls-cert", str(folder))
    assert "DNS:localhost" in subject(server, "x")
    assert "DNS:other.test" in subject(server, "other.test")
    # one more, that has its key in the same file
    (folder / "z.pem").write_text((certs / "new.key").read_text() + (certs / "new.pem").read_text())
    server.wait_log("the TLS certificates have changed: 3 certificates")


# Client certificates


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_client_certificates(https, certs, version):
    want = getattr(ssl.TLSVersion, version)
    ca = ["--tls-client-ca", str(certs / "ca.pem")]
    server = https(*pair(certs, "main"), *ca, "--tls-verify-client", "optional")
    with connect(server, client(certs, low=want, high=want, cert="client")) as conn:
        env = environ(conn)
        assert env["SSL_CLIENT_VERIFY"] == "'SUCCESS'"
        assert env["SSL_CLIENT_S_DN_CN"] == "'alice'"
        assert env["SSL_CLIENT_S_DN"] == "'CN=alice,O=Users'" and env["SSL_CLIENT_I_DN"] == "'CN=the authority'"
        text = openssl("x509", "-in", str(certs / "client.pem"), "-noout", "-serial", "-fingerprint")
        assert env["SSL_CLIENT_SERIAL"] == repr(re.search("serial=(.*)", text).group(1))
        assert env["SSL_CLIENT_FINGERPRINT"] == repr(re.search("=([0-9A-F:]+)$", text.strip()).group(1).replace(":", "").lower())
        pem = (certs / "client.pem").read_text()
        assert eval(env["SSL_CLIENT_CERT"]).strip() == pem[pem.index("-----BEGIN") :].strip()
        session = conn.session
    with connect(server, client(certs, low=want, high=want)) as conn:
        env = environ(conn)
        assert env["SSL_CLIENT_VERIFY"] == "'NONE'" and "SSL_CLIENT_S_DN" not in env
    assert session is not None
    with pytest.raises((ssl.SSLError, ConnectionError)):
        with connect(server, client(certs, low=want, high=want, cert="stranger")) as conn:
            ask(conn)
    server.wait_log("the client's certificate: ")


def test_client_certificate_required(https, certs):
    server = https(*pair(certs, "main"), "--tls-client-ca", str(certs / "ca.pem"), "--tls-verify-client", "required")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        with connect(server, client(certs)) as conn:
            ask(conn)
    with connect(server, client(certs, cert="client")) as conn:
        assert ask(conn) == b"hello"
    # fields of a request are not what the certificate says
    with connect(server, client(certs, cert="client")) as conn:
        conn.sendall(b"GET /env HTTP/1.1\r\nHost: x\r\nSSL-Client-S-DN: CN=root\r\nSSL_CLIENT_VERIFY: NONE\r\n\r\n")
        assert b"SSL_CLIENT_S_DN='CN=alice,O=Users'" in response(conn)[2]


# Resumption and reloads


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_resumption_by_any_worker_and_after_a_reload(https, certs, version):
    want = getattr(ssl.TLSVersion, version)
    server = https(*pair(certs, "main"), "-w2", "--threads", "2")
    context = client(certs, low=want, high=want)
    with connect(server, context) as conn:
        assert not conn.session_reused
        ask(conn)
        session = conn.session
    pids = set()
    for _ in range(100):
        with connect(server, context, session=session) as conn:
            assert conn.session_reused
            pids.add(ask(conn, "/pid"))
            session = conn.session if version == "TLSv1_3" else session
        if len(pids) == 2:
            break
    assert len(pids) == 2
    server.send_signal(signal.SIGHUP)
    server.wait_log("the reload is complete")
    with connect(server, context, session=session) as conn:
        assert conn.session_reused and ask(conn, "/pid") not in pids


class Load(threading.Thread):
    """Requests one after the other, on new and on kept connections, until it is told to stop."""

    def __init__(self, server):
        super().__init__()
        self.server, self.count, self.errors, self.done = server, 0, [], False

    def run(self):
        try:
            while not self.done:
                with connect(self.server) as conn:
                    for _ in range(5):
                        conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                        status, head, body, _ = response(conn)
                        assert (status, body) == (200, b"hello")
                        self.count += 1
                        if b"Connection: close" in head:
                            break
        except Exception as error:  # noqa: BLE001
            self.errors.append(error)

    def finish(self):
        self.done = True
        self.join()
        assert not self.errors and self.count > 0


@pytest.mark.parametrize("how", ["file", "preload"])
def test_changed_certificates_are_taken(https, certs, tmp_path, how):
    for end in (".pem", ".key"):
        shutil.copy(certs / ("main" + end), tmp_path / ("c" + end))
    args = ["--preload"] if how == "preload" else []
    server = https("--tls-cert", "c.pem", "--tls-key", "c.key", "-w2", *args)
    load = Load(server)
    load.start()
    with connect(server, client(certs)) as old:
        assert ask(old) == b"hello"
        for end in (".pem", ".key"):
            shutil.copy(certs / ("new" + end), tmp_path / "next")
            os.replace(tmp_path / "next", tmp_path / ("c" + end))
        server.wait_log("the TLS certificates have changed: 1 certificate for new connections")
        deadline = time.monotonic() + 20
        while "renewed" not in openssl("s_client", "-connect", "127.0.0.1:%d" % server.port, check=False):
            assert time.monotonic() < deadline
        assert ask(old) == b"hello"
    if how == "preload":  # a worker that is forked from an old template has them too
        pid = int(ask(connect(server), "/pid"))
        os.kill(pid, signal.SIGTERM)
        for _ in range(20):
            assert "renewed" in openssl("s_client", "-connect", "127.0.0.1:%d" % server.port, check=False)
    load.finish()


def test_what_does_not_fit_is_not_taken(https, certs, tmp_path):
    for end in (".pem", ".key"):
        shutil.copy(certs / ("main" + end), tmp_path / ("c" + end))
    server = https("--tls-cert", "c.pem", "--tls-key", "c.key")
    shutil.copy(certs / "new.pem", tmp_path / "c.pem")
    server.send_signal(signal.SIGHUP)
    server.wait_log("not taken, the old ones stay: .*c.pem does not fit the key in c.key")
    server.wait_log("the reload is complete")
    with connect(server, client(certs)) as conn:  # believes only the old one
        assert ask(conn) == b"hello"
    shutil.copy(certs / "new.key", tmp_path / "c.key")
    server.wait_log("the TLS certificates have changed")
    with connect(server, client(certs, ca="new")) as conn:
        assert ask(conn) == b"hello"


def test_idle_connections_survive_a_reload_for_a_request(https, certs):
    server = https(*pair(certs, "main"))
    with connect(server) as conn:
        pid = ask(conn, "/pid")
        server.send_signal(signal.SIGHUP)
        server.wait_log("the reload is complete")
        conn.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
        status, head, body, _ = response(conn)
        assert status == 200 and body == pid and b"Connection: close" in head
        assert conn.recv(1) == b""  # close_notify: without it this would be an error


# Bytes


def test_large_bodies_and_slow_readers(https, certs, tmp_path):
    data = os.urandom(9_000_001)
    (tmp_path / "data").write_bytes(data)
    md5 = hashlib.md5(data).hexdigest().encode()
    server = https(*pair(certs, "main"), "--response-buffer", "64k")
    length = "Content-Length: %d\r\n" % len(data)
    with connect(server) as conn:
        assert ask(conn, "/sum", length, "POST", data) == md5
        small = data[:700_000]
        assert ask(conn, "/sum", "Content-Length: 700000\r\n", "POST", small) == hashlib.md5(small).hexdigest().encode()
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (data[i : i + 9999] for i in range(0, 900_000, 9999)))
        body = ask(conn, "/sum", "Transfer-Encoding: chunked\r\n", "POST", chunks + b"0\r\n\r\n")
        assert body == hashlib.md5(data[: 91 * 9999]).hexdigest().encode()
    with connect(server) as slow, connect(server) as other:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
        slow.sendall(b"GET /big?16000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        first = slow.recv(100)
        assert ask(other) == b"hello"  # the slow one costs nobody else
        assert response(slow, first)[2] == b"0123456789abcdef" * 1_000_000
        assert ask(slow) == b"hello"
    with connect(server) as conn:
        conn.sendall(("GET /file?%s HTTP/1.1\r\nHost: x\r\n\r\n" % (tmp_path / "data")).encode())
        assert response(conn)[2] == data
        assert ask(conn) == b"hello"


def test_stream_mode(https, certs):
    server = https(*pair(certs, "main"), "--body", "stream", "--threads", "2")
    data = os.urandom(3_000_000)
    with connect(server) as conn:
        conn.sendall(b"POST /sum HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n")
        for i in range(0, len(data), 77_777):
            conn.sendall(data[i : i + 77_777])
        assert response(conn)[2] == hashlib.md5(data).hexdigest().encode()
        tiny = b"".join(b"1\r\n%c\r\n" % c for c in data[:9000]) + b"0\r\n\r\n"
        assert ask(conn, "/sum", "Transfer-Encoding: chunked\r\n", "POST", tiny) == hashlib.md5(data[:9000]).hexdigest().encode()


def test_pipelining_and_records_of_any_size(https, certs):
    server = https(*pair(certs, "main"))
    one = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(server) as conn:
        conn.sendall(one * 2000)  # more than one buffer, in full records
        left = b""
        for _ in range(2000):
            status, _, body, left = response(conn, left)
            assert (status, body) == (200, b"hello")
        for i in range(len(one)):  # a record for each byte
            conn.sendall(one[i : i + 1])
        assert response(conn)[2] == b"hello"
        # a body that ends within a record which the next request begins in
        post = b"POST /sum HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
        conn.sendall(post)
        conn.sendall(b"a" * 5000 + one * 3 + post[:30])
        status, _, body, left = response(conn)
        assert body == hashlib.md5(b"a" * 5000).hexdigest().encode()
        for _ in range(3):
            status, _, body, left = response(conn, left)
            assert body == b"hello"
        conn.sendall(post[30:] + b"b" * 5000)
        assert response(conn, left)[2] == hashlib.md5(b"b" * 5000).hexdigest().encode()


def test_streamed_response_with_chunks(https, certs):
    server = https(*pair(certs, "main"))
    curl = ["curl", "-sS", "--cacert", str(certs / "main.pem"), "https://localhost:%d/stream?20000" % server.port]
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    assert subprocess.run(curl, capture_output=True, timeout=30).stdout == b"".join(b"line %06d\n" % i for i in range(20000))


@pytest.mark.parametrize("threads", ["1", "4"])
def test_many_at_once(https, certs, threads):
    server = https(*pair(certs, "main"), "--threads", threads)
    loads = [Load(server) for _ in range(8)]
    for load in loads:
        load.start()
    time.sleep(1)
    for load in loads:
        load.finish()


# Ends and failures


def test_ends_are_said_and_truncation_is_visible(https, certs):
    server = https(*pair(certs, "main"), check=False)
    with connect(server) as conn:
        conn.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        response(conn)
        assert conn.recv(1) == b""
    with connect(server) as conn:
        conn.sendall(b"GET /stream?10 HTTP/1.0\r\n\r\n")
        data = b""
        while True:
            more = conn.recv(65536)  # an end without close_notify raises
            if not more:
                break
            data += more
        assert data.endswith(b"line 000009\n")
    with connect(server) as conn:
        conn.sendall(b"GET /broken HTTP/1.0\r\n\r\n")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            while conn.recv(65536):
                pass
    with connect(server) as conn:  # the other way round: the server answers our end
        ask(conn)
        conn.unwrap().close()


def test_deadline_over_tls(https, certs):
    server = https(*pair(certs, "main"), "--request-timeout", "300ms", check=False)
    with connect(server) as conn:
        conn.sendall(b"GET /sleep?5 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert response(conn)[0] == 504
        assert conn.recv(1) == b""


def test_handlers_while_the_application_is_busy(https, certs):
    server = https(*pair(certs, "main"), "--health-path", "/health")
    with connect(server) as busy:
        busy.sendall(b"GET /sleep?3 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        for _ in range(3):  # the handshakes too are done meanwhile
            with connect(server) as conn:
                ask(conn, "/health/live")
        busy.settimeout(0.01)
        with pytest.raises((TimeoutError, socket.timeout, ssl.SSLWantReadError)):
            busy.recv(1)
        busy.settimeout(20)
        assert response(busy)[2] == b"slept"


def test_plain_http_on_a_tls_address_and_the_other_way_round(https, certs, tmp_path):
    server = https(*pair(certs, "main"))
    reply = server.get("/")
    assert reply.status == 400 and b"use https://" in reply.body
    plain = https("--log-level", "info", scheme="http")
    with pytest.raises(ssl.SSLError):
        connect(plain)
    plain.wait_log("speaks TLS to the plain HTTP address")


def test_handshakes_that_stall_or_are_garbage(https, certs):
    server = https(*pair(certs, "main"), "--tls-handshake-timeout", "700ms")
    hello = ssl.MemoryBIO()
    half = client().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        half.do_handshake()
    hello = hello.read()
    stalled = []
    for data in (b"", hello[:1], hello[:100], hello, b"\x16"):
        sock = socket.create_connection(server.address, 20)
        sock.sendall(data)
        stalled.append(sock)
    for data in (b"\x16\x03\x01\x00\x05hello", hello[:50] + os.urandom(500), b"\x16\x03\x01\xff\xff" + b"x" * 70000, b"\x80\x2e\x01\x00\x02"):
        with socket.create_connection(server.address, 20) as sock:
            sock.sendall(data)
            try:
                while sock.recv(65536):
                    pass
            except ConnectionError:
                pass
    with socket.create_connection(server.address, 20) as sock:  # leaves in the middle, by a reset
        sock.sendall(hello)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with connect(server) as conn:
        assert ask(conn) == b"hello"
    for sock in stalled:
        while True:
            try:
                if not sock.recv(65536):
                    break
            except ConnectionError:
                break
        sock.close()
    with connect(server) as conn:  # a byte at a time is slow but right
        assert ask(conn) == b"hello"


def test_unix_socket(serve, certs, tmp_path):
    path = tmp_path / "s.sock"
    server = serve(APP, "--bind", "https://unix:%s" % path, "-w1", *pair(certs, "main"), bind=None, start=False)
    server.address = str(path)
    server.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        with client(certs).wrap_socket(sock, server_hostname="localhost") as conn:
            assert environ(conn)["wsgi.url_scheme"] == "'https'"


# Configuration


def run(https, *args):
    server = https(*args, ready=False, check=False)
    done = subprocess.run(server.command + ["--check"], cwd=str(server.cwd), capture_output=True, timeout=30)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_check_says_what_is_wrong(https, certs, tmp_path):
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    locked = tmp_path / "locked.key"
    openssl("pkey", "-in", str(certs / "main.key"), "-aes256", "-passout", "pass:x", "-out", str(locked))
    both = tmp_path / "both.pem"
    both.write_text((certs / "ca.pem").read_text() + (certs / "main.pem").read_text())
    main = str(certs / "main.pem")
    key = str(certs / "main.key")
    for args, text in (
        ([], "needs a certificate: give one by tls-cert and tls-key"),
        (["--tls-key", key], "tls-key needs the certificate"),
        (["--tls-cert", "/nowhere.pem"], "/nowhere.pem cannot be read: No such file"),
        (["--tls-cert", main], "holds no private key, and no tls-key is given"),
        (["--tls-cert", str(broken), "--tls-key", key], "holds no certificate in PEM form"),
        (["--tls-cert", main, "--tls-key", main], "holds no private key"),
        (["--tls-cert", main, "--tls-key", str(locked)], "is encrypted"),
        (["--tls-cert", str(both), "--tls-key", key], "has to be the first"),
        (["--tls-cert", main, "--tls-key", str(certs / "other.key")], "does not fit the key"),
        (pair(certs, "main") + ["--tls-key", key], "belongs to no tls-cert"),
        (pair(certs, "main") + ["--tls-ciphers", "NULL"], "tls-ciphers"),
        (pair(certs, "main") + ["--tls-ciphers", "nonsense"], "knows none of \"nonsense\""),
        (pair(certs, "main") + ["--tls-verify-client", "required"], "needs tls-client-ca"),
        (pair(certs, "main") + ["--tls-client-ca", main], "protects nothing while tls-verify-client is off"),
        (["--tls-cert", str(tmp_path / "empty")], "has no certificate with its key"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        code, _, err = run(https, *args)
        assert code == 1 and text in err, (args, err)
    code, out, err = run(https, *pair(certs, "soon"))
    assert code == 0 and "runs out in" in err and "1 TLS certificate fit" in out


def test_start_says_what_is_wrong(https, certs):
    server = https("--tls-cert", str(certs / "main.pem"), "--tls-key", str(certs / "other.key"), ready=False, check=False)
    server.spawn()
    assert server.wait() == 1
    server.wait_log("does not fit the key")
    server = https(*pair(certs, "soon"))
    server.wait_log("warning: tls-cert: .*runs out in 2 days|warning: tls-cert: .*runs out in 3 days")


@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
def test_keys_that_only_root_can_read(https, certs, tmp_path):
    for end in (".pem", ".key"):
        shutil.copy(certs / ("main" + end), tmp_path / ("c" + end))
    os.chmod(tmp_path / "c.key", 0o600)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o5 != 0o5:
            os.chmod(folder, folder.stat().st_mode | 0o5)
    server = https("--tls-cert", "c.pem", "--tls-key", "c.key", "--user", "nobody")
    with connect(server, client(certs)) as conn:
        assert ask(conn) == b"hello"
    server.send_signal(signal.SIGHUP)
    server.wait_log("not taken, the old ones stay: .*c.key cannot be read by user")
    server.wait_log("the reload is complete")
    with connect(server, client(certs)) as conn:
        assert ask(conn) == b"hello"
