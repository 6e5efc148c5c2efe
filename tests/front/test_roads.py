"""Static files, routes and compression by every road: HTTP, TLS, uwsgi, SCGI and FastCGI answer the
same."""

import gzip
import shutil
import ssl
import subprocess
import zlib

import pytest

from tests.front.test_gateways import changed, scgi, uwsgi
from tests.lib import fastcgi
from tests.lib.server import Connection, free_port

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")

APP = r'''
TEXT = b"".join(b"line %d of what is answered\n" % n for n in range(3000))

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("ETag", '"text"')])
    if environ["PATH_INFO"] == "/stream":
        return (TEXT[at : at + 1000] for at in range(0, len(TEXT), 1000))
    return [TEXT]
'''
TEXT = b"".join(b"line %d of what is answered\n" % n for n in range(3000))
BIG = bytes(range(256)) * 4096 * 3  # 3 MiB


class Road:
    """Asks by one protocol; answers as (status, fields, body)."""

    def __init__(self, kind, port, context):
        self.kind, self.port, self.context = kind, port, context

    def ask(self, path, fields=(), method="GET"):
        with Connection(("127.0.0.1", self.port)) as conn:
            if self.kind in ("uwsgi", "scgi", "fastcgi"):
                names = [("HTTP_" + name.upper().replace("-", "_"), value) for name, value in fields]
                variables = changed(("PATH_INFO", path), ("REQUEST_URI", path), ("QUERY_STRING", ""),
                                    ("REQUEST_METHOD", method), *names)  # fmt: skip
                if self.kind == "fastcgi":
                    conn.send(fastcgi.request(variables, keep=False))
                    found = fastcgi.rest(conn)
                    assert found.end is not None
                    return found.status, {k: v.lower() for k, v in found.fields.items()}, found.body
                conn.send((uwsgi if self.kind == "uwsgi" else scgi)(variables))
                data = conn.read_to_end()
            else:
                if self.kind == "https":
                    conn.sock = self.context.wrap_socket(conn.sock)
                lines = "".join("%s: %s\r\n" % pair for pair in fields)
                conn.send("%s %s HTTP/1.0\r\nHost: x\r\n%s\r\n" % (method, path, lines))
                data = conn.read_to_end()
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


@pytest.fixture(scope="module")
def roads(serve_module, tmp_path_factory):
    where = tmp_path_factory.mktemp("roads")
    (where / "app.py").write_text(APP)
    (where / "files" / "docs").mkdir(parents=True)
    (where / "files" / "a.txt").write_text("0123456789")
    (where / "files" / "big.bin").write_bytes(BIG)
    (where / "files" / "docs" / "index.html").write_text("docs")
    (where / "files" / "x.css").write_text("p {}" * 500)
    (where / "files" / "x.css.gz").write_bytes(gzip.compress(b"p {}" * 500))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=x"],
        cwd=where, check=True, capture_output=True,
    )  # fmt: skip
    ports = {kind: free_port() for kind in ("https", "uwsgi", "scgi", "fastcgi")}
    server = serve_module(
        "app:app", "--static", "/static=files", "--route", "prefix=/files static=files header='X-From: rule'",
        "--route", "path=/old redirect=/new", "--compress", "gzip", "--workers", "1",
        "--tls-cert", "cert.pem", "--tls-key", "key.pem",
        *["--bind=%s://127.0.0.1:%d" % pair for pair in ports.items()], cwd=where,
    )  # fmt: skip
    context = ssl.create_default_context(cafile=str(where / "cert.pem"))
    context.check_hostname = False
    ports["http"] = server.port
    return {kind: Road(kind, port, context) for kind, port in ports.items()}


ROADS = pytest.mark.parametrize("kind", ["http", "https", "uwsgi", "scgi", "fastcgi"])


@ROADS
def test_files(roads, kind):
    ask = roads[kind].ask
    for prefix in ("/static", "/files"):
        status, fields, body = ask(prefix + "/a.txt")
        assert (status, body, fields["content-length"]) == (200, b"0123456789", "10")
        assert fields.get("x-from") == ("rule" if prefix == "/files" else None)
        assert ask(prefix + "/a.txt", [("If-None-Match", fields["etag"])])[::2] == (304, b"")
        status, fields, body = ask(prefix + "/a.txt", [("Range", "bytes=2-4")])
        assert (status, body, fields["content-range"]) == (206, b"234", "bytes 2-4/10")
        status, fields, body = ask(prefix + "/big.bin", method="HEAD")
        assert (status, body, fields["content-length"]) == (200, b"", str(len(BIG)))
        assert ask(prefix + "/big.bin")[2] == BIG
        status, fields, body = ask(prefix + "/big.bin", [("Range", "bytes=0-9,1000000-2000000")])
        assert status == 206 and BIG[1000000:2000001] in body
        assert ask(prefix + "/big.bin", [("Range", "bytes=9999999-")])[0] == 416
        assert ask(prefix + "/docs")[1]["location"] == "./docs/"
        assert ask(prefix + "/../app.py")[0] == ask(prefix + "/none")[0] == 404
        assert ask(prefix + "/a.txt", method="POST")[0] == 405
        status, fields, body = ask(prefix + "/x.css", [("Accept-Encoding", "gzip")])
        assert fields["content-encoding"] == "gzip" and gzip.decompress(body) == b"p {}" * 500
    assert ask("/old")[1]["location"] == "/new"


@ROADS
@pytest.mark.parametrize("path", ["/whole", "/stream"])
def test_compression(roads, kind, path):
    status, fields, body = roads[kind].ask(path, [("Accept-Encoding", "gzip")])
    assert (status, fields["content-encoding"], fields["vary"]) == (200, "gzip", "accept-encoding")
    assert fields["etag"] == 'w/"text"' and len(body) < len(TEXT) / 2
    decoder = zlib.decompressobj(31)
    assert decoder.decompress(body) == TEXT and decoder.eof and not decoder.unused_data
    status, fields, body = roads[kind].ask(path)
    assert (status, body, fields.get("content-encoding")) == (200, TEXT, None)
    status, fields, body = roads[kind].ask(path, [("Accept-Encoding", "gzip")], "HEAD")
    assert (status, body, fields["content-encoding"]) == (200, b"", "gzip")
