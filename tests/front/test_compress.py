"""Compression of what the application answers: by every coding, in one block and in streams, and what
is left as it is."""

import hashlib
import os
import re
import shutil
import socket
import subprocess
import threading
import zlib

import pytest

from tests.front.raw import get

brotli = pytest.importorskip("brotli")
zstandard = pytest.importorskip("zstandard")

CODINGS = ["gzip", "br", "zstd"]

APP = r'''
import json
import threading
import time

gates = {}
TEXT = ("Content-Type", "text/plain; charset=utf-8")
BODY = b"".join(b"line %d of what is answered\n" % n for n in range(200))


def gate(name):
    return gates.setdefault(name, threading.Semaphore(0))


def whole(environ, start_response):
    """A body in one block; the query has its length and fields of the head."""
    from urllib.parse import parse_qsl

    status, fields, body, sized = "200 OK", [], BODY, False
    for name, value in parse_qsl(environ["QUERY_STRING"], keep_blank_values=True):
        if name == "status":
            status = value
        elif name == "size":
            body = (BODY * (int(value) // len(BODY) + 1))[: int(value)]
        elif name == "length":
            sized = True
        else:
            fields.append((name, value))
    if not any(name.lower() == "content-type" for name, _ in fields):
        fields.insert(0, TEXT)
    if sized:
        fields.append(("Content-Length", str(len(body))))
    start_response(status, fields)
    return [body]


def gated(environ, start_response):
    """Each block after the first waits until /open?NAME lets it go."""
    start_response("200 OK", [TEXT])

    def blocks():
        for number in range(5):
            if number and not gate(environ["QUERY_STRING"]).acquire(timeout=20):
                raise RuntimeError("nobody opened the gate")
            yield b"block %d\n" % number

    return blocks()


def burst(environ, start_response):
    """Quick blocks, and then nothing for long."""
    start_response("200 OK", [TEXT])

    def blocks():
        for number in range(50):
            yield b"block %d\n" % number
        gate(environ["QUERY_STRING"]).acquire(timeout=20)
        yield b"end\n"

    return blocks()


def quick(environ, start_response):
    start_response("200 OK", [TEXT])
    return (b"%d\n" % number for number in range(20000))


def events(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return (b"data: %d %s\n\n" % (number, b"x" * 2000) for number in range(3))


def big(environ, start_response):
    start_response("200 OK", [TEXT])
    block = bytes((n * n >> 3) & 255 for n in range(50000))
    return (block for _ in range(1000))


def fails(environ, start_response):
    start_response("200 OK", [TEXT])

    def blocks():
        yield BODY
        yield b"last words"
        raise ValueError("in the middle")

    return blocks()


def short(environ, start_response):
    """Less than its Content-Length."""
    start_response("200 OK", [TEXT, ("Content-Length", str(len(BODY) + 100))])
    return iter([BODY, b"more"])


def long(environ, start_response):
    """More than its Content-Length."""
    start_response("200 OK", [TEXT, ("Content-Length", str(len(BODY)))])
    return iter([BODY, b"more"])


def empty(environ, start_response):
    start_response("200 OK", [TEXT])
    return []


def written(environ, start_response):
    write = start_response("200 OK", [TEXT])
    write(BODY)
    write(b"and more")
    return [b", and the end"]


def file(environ, start_response):
    start_response("200 OK", [TEXT, ("Accept-Ranges", "bytes")])
    return environ["wsgi.file_wrapper"](open("file.txt", "rb"))


def memory(environ, start_response):
    with open("/proc/self/status") as status:
        text = status.read()
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [text.encode()]


def open_gate(environ, start_response):
    gate(environ["QUERY_STRING"]).release()
    start_response("200 OK", [TEXT])
    return [b""]


def app(environ, start_response):
    name = environ["PATH_INFO"].lstrip("/") or "whole"
    return globals()[{"open": "open_gate"}.get(name, name)](environ, start_response)
'''

BODY = b"".join(b"line %d of what is answered\n" % n for n in range(200))


class Decoder:
    """Decodes bytes as they come: `plain` so far, `ended` when the coded body is complete."""

    def __init__(self, coding):
        self.coding = coding
        self.plain = b""
        if coding == "gzip":
            self.decoder = zlib.decompressobj(31)
        elif coding == "br":
            self.decoder = brotli.Decompressor()
        else:
            self.decoder = zstandard.ZstdDecompressor().decompressobj()

    def feed(self, data):
        if self.coding == "br":
            self.plain += self.decoder.process(data)
        elif data:
            self.plain += self.decoder.decompress(data)
        return self.plain

    @property
    def ended(self):
        return self.decoder.is_finished() if self.coding == "br" else self.decoder.eof


def decode(response):
    decoder = Decoder(response.header("content-encoding"))
    decoder.feed(response.body)
    assert decoder.ended
    return decoder.plain


def accept(coding, **fields):
    return {"Accept-Encoding": coding, **fields}


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module(APP, "--workers", "1", "--threads", "3", "--compress", "on")


@pytest.fixture(scope="module")
def alone(serve_module):
    """Without the stand-by thread nothing is gathered."""
    return serve_module(APP, "--workers", "1", "--no-takeover", "--compress", "on")


@pytest.fixture(params=["server", "alone"])
def any_server(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("coding", CODINGS)
def test_whole(any_server, coding):
    response = any_server.get("/whole?length", headers=accept(coding))
    assert response.header("content-encoding") == coding
    assert response.header("vary") == "Accept-Encoding"
    assert response.framing == "length"
    assert len(response.body) < len(BODY) / 3
    assert decode(response) == BODY


@pytest.mark.parametrize(
    "value, coding",
    [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, br", "br"),
        ("gzip;q=1.0, br;q=0.9, zstd;q=0.1", "gzip"),
        ("x-gzip", "gzip"),
        ("*", "zstd"),
        ("*, zstd;q=0", "br"),
        ("GZIP", "gzip"),
        ("deflate", None),
        ("gzip;q=0", None),
        ("gzip;q=2", None),
        ("identity, gzip;q=0.5", None),
        ("", None),
        (None, None),
    ],
)
def test_choice(server, value, coding):
    response = server.get("/whole", headers=accept(value) if value is not None else None)
    assert response.header("content-encoding") == coding
    assert response.header("vary") == "Accept-Encoding"
    assert (decode(response) if coding else response.body) == BODY


def test_fields_in_two_lines(server):
    fields = [("Accept-Encoding", "br;q=0.5"), ("Accept-Encoding", "gzip")]
    assert server.get("/whole", headers=fields).header("content-encoding") == "gzip"


@pytest.mark.parametrize(
    "query, varies",
    [
        ("Content-Encoding=identity", False),
        ("Content-Encoding=br", False),
        ("status=206+Partial+Content&Content-Range=bytes+0-9/10", False),
        ("Content-Range=bytes+0-9/10", False),
        ("Cache-Control=private,+no-transform", False),
        ("Cache-Control=private&Cache-Control=No-Transform", False),
        ("Content-Digest=sha-256=:x:", False),
        ("Content-Type=image/png", False),
        ("Content-Type=textual/plain", False),
        ("Content-Type=", False),
        ("Content-Type=text/event-stream", False),
        ("size=1023", False),
        ("size=1023&length", False),
        ("size=0", False),
    ],
)
def test_left_alone(server, query, varies):
    plain = server.get("/whole?" + query)
    response = server.get("/whole?" + query, headers=accept("gzip, br, zstd"))
    assert [pair for pair in response.headers if pair[0] != "Date"] == [
        pair for pair in plain.headers if pair[0] != "Date"
    ]
    assert response.body == plain.body
    assert response.header("vary") is None


@pytest.mark.parametrize(
    "query",
    [
        "size=1024",
        "status=404+Not+Found",
        "status=500+Oops",
        "Content-Type=application/json",
        "Content-Type=APPLICATION/problem%2Bjson;charset=utf-8",
        "Content-Type=image/svg%2Bxml",
        "Cache-Control=private,+max-age=3,+x=%22no-transform%22",
    ],
)
def test_compressed(server, query):
    plain = server.get("/whole?" + query)
    response = server.get("/whole?" + query, headers=accept("gzip"))
    assert response.status == plain.status
    assert response.header("content-encoding") == "gzip"
    assert decode(response) == plain.body


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_no_body(server, status):
    with server.connect() as conn:
        for _ in range(2):
            response = server.request(
                "GET", "/whole?status=" + status.replace(" ", "+"), headers=accept("gzip"), conn=conn
            )
            assert response.header("content-encoding") is None
            assert response.body == b""


@pytest.mark.parametrize(
    "given, expected",
    [
        ("Vary=Cookie", ["Cookie, Accept-Encoding"]),
        ("Vary=Cookie,+accept-encoding", ["Cookie, accept-encoding"]),
        ("Vary=*", ["*"]),
        ("Vary=Cookie&Vary=Origin", ["Cookie", "Origin, Accept-Encoding"]),
        ("Vary=", ["", "Accept-Encoding"]),
        ("X=1", ["Accept-Encoding"]),
    ],
)
@pytest.mark.parametrize("etag", ["", "&ETag=%22a%22"])
def test_vary(server, given, expected, etag):
    for coding in ("gzip", "identity"):
        response = server.get("/whole?" + given + etag, headers=accept(coding))
        assert response.all("vary") == expected
        response = server.get("/whole?" + etag[1:] + "&" + given, headers=accept(coding))
        assert response.all("vary") == expected


def test_etag(server):
    strong, weak = "ETag=%22abc%22", "ETag=W/%22abc%22"
    assert server.get("/whole?" + strong).header("etag") == '"abc"'
    assert server.get("/whole?" + strong, headers=accept("br")).header("etag") == 'W/"abc"'
    assert server.get("/whole?" + weak, headers=accept("br")).header("etag") == 'W/"abc"'
    # A 304 has the ETag that the client asked with.
    not_modified = "/whole?status=304+Not+Modified&" + strong
    for asked, answered in (
        ('W/"abc"', 'W/"abc"'),
        ('"x,", W/"abc"', 'W/"abc"'),
        ('"abc"', '"abc"'),
        ("*", '"abc"'),
    ):
        response = server.get(not_modified, headers=accept("br", **{"If-None-Match": asked}))
        assert response.status == 304
        assert response.header("etag") == answered


def test_accept_ranges(server):
    query = "/whole?Accept-Ranges=bytes"
    assert server.get(query).header("accept-ranges") == "bytes"
    assert server.get(query, headers=accept("br")).header("accept-ranges") is None


@pytest.mark.parametrize("query", ["length&ETag=%22a%22", "ETag=%22a%22&Vary=Cookie", "size=100&length"])
def test_head_is_as_get(server, query):
    def fields(method):
        response = server.request(method, "/whole?" + query, headers=accept("gzip"))
        return {
            (name.lower(), value)
            for name, value in response.headers
            if name.lower() != "date"
            and (name.lower() != "content-length" or "size" in query)
        }

    assert fields("HEAD") == fields("GET")
    response = server.request("HEAD", "/whole?" + query, headers=accept("gzip"))
    assert response.body == b""
    if "size" not in query:
        assert response.header("content-length") is None


def test_http_1_0(server):
    for target, body in (("/whole", BODY), ("/written", BODY + b"and more, and the end")):
        request = get("Accept-Encoding: gzip\r\n", target=target, version="1.0")
        response = server.send_raw(request)[0]
        assert response.framing == ("length" if target == "/whole" else "close")
        assert decode(response) == body


@pytest.mark.parametrize("coding", CODINGS)
def test_pipelined(any_server, coding):
    """Several answers on one connection, of all framings."""
    targets = ["/whole", "/quick", "/whole?size=10", "/written", "/whole?size=300000", "/empty", "/file"]
    (any_server.cwd / "file.txt").write_bytes(BODY * 100)
    expected = [any_server.get(target).body for target in targets]
    request = b"".join(get("Accept-Encoding: %s\r\n" % coding, target=target) for target in targets)
    for _ in range(3):
        for response, body in zip(any_server.send_raw(request, expect=len(targets)), expected):
            if response.header("content-encoding"):
                assert decode(response) == body
            else:
                assert response.body == body and len(body) < 1024


def receive_until(conn, decoder, end):
    """Feeds chunks to the decoder until its text has that end."""
    while not decoder.plain.endswith(end):
        size = int(conn._line(), 16)
        assert size > 0
        decoder.feed(conn.read_bytes(size))
        assert conn.read_bytes(2) == b"\r\n"


@pytest.mark.parametrize("coding", CODINGS)
def test_blocks_arrive_one_by_one(server, coding):
    name = "gated-" + coding
    with server.connect() as conn:
        conn.send(get("Accept-Encoding: %s\r\n" % coding, target="/gated?" + name))
        response = conn.read_head()
        assert response.header("content-encoding") == coding
        decoder = Decoder(coding)
        for number in range(5):
            if number:
                server.get("/open?" + name)
            receive_until(conn, decoder, b"block %d\n" % number)
        conn.read_body(response)
        decoder.feed(response.body)
        assert decoder.ended
    assert decoder.plain == b"".join(b"block %d\n" % number for number in range(5))


@pytest.mark.parametrize("coding", CODINGS)
def test_quick_blocks_do_not_wait(server, coding):
    """What was gathered inside the encoder leaves while the application waits."""
    name = "burst-" + coding
    with server.connect() as conn:
        conn.send(get("Accept-Encoding: %s\r\n" % coding, target="/burst?" + name))
        response = conn.read_head()
        decoder = Decoder(coding)
        receive_until(conn, decoder, b"block 49\n")
        server.get("/open?" + name)
        conn.read_body(response)
        assert decoder.feed(response.body).endswith(b"end\n")
        assert decoder.ended


def test_quick_blocks_are_gathered(server):
    response = server.get("/quick", headers=accept("gzip"))
    plain = b"".join(b"%d\n" % number for number in range(20000))
    assert decode(response) == plain
    assert len(response.chunks) < 10000  # no flush for each of them


def test_event_stream_is_compressed_by_its_name(serve):
    server = serve(
        APP, "--workers", "1", "--compress", "gzip", "--compress-types", "text/event-stream,text/*"
    )
    response = server.get("/events", headers=accept("gzip"))
    assert response.header("content-encoding") == "gzip"
    assert len(response.chunks) >= 3  # each is flushed
    assert decode(response).count(b"data: ") == 3


@pytest.mark.parametrize("coding", CODINGS)
def test_failure_in_the_middle_is_seen(any_server, coding):
    with any_server.connect() as conn:
        conn.send(get("Accept-Encoding: %s\r\n" % coding, target="/fails"))
        conn.read_head()
        data = conn.read_to_end()
    assert not data.endswith(b"0\r\n\r\n")
    decoder = Decoder(coding)
    while data:
        size, _, data = data.partition(b"\r\n")
        decoder.feed(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    assert decoder.plain == BODY + b"last words"
    assert not decoder.ended


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_short_body_is_seen(any_server, version):
    with any_server.connect() as conn:
        conn.send(get("Accept-Encoding: gzip\r\n", target="/short", version=version))
        response = conn.read_head()
        assert response.header("content-encoding") == "gzip"
        try:
            data = conn.read_to_end()
        except ConnectionResetError:
            return
    assert version == "1.1" and not data.endswith(b"0\r\n\r\n")


def test_long_body_is_cut(server):
    for _ in range(2):
        assert decode(server.get("/long", headers=accept("br"))) == BODY


@pytest.mark.parametrize("coding", CODINGS)
def test_big_stream_with_little_memory(server, coding):
    def peak():
        return int(re.search(rb"VmHWM:\s+(\d+)", server.get("/memory").body).group(1))

    server.get("/whole?size=300000", headers=accept(coding))
    before = peak()
    block = bytes((n * n >> 3) & 255 for n in range(50000))
    decoder = Decoder(coding)
    total = 0
    with server.connect() as conn:
        conn.send(get("Accept-Encoding: %s\r\n" % coding, target="/big"))
        conn.read_head()
        while True:
            size = int(conn._line(), 16)
            if size == 0:
                break
            plain = decoder.decoder.process(conn.read_bytes(size)) if coding == "br" else (
                decoder.decoder.decompress(conn.read_bytes(size))
            )
            conn.read_bytes(2)
            start = total % len(block)
            assert (block * (len(plain) // len(block) + 2))[start : start + len(plain)] == plain
            total += len(plain)
    assert total == 1000 * len(block)
    assert decoder.ended
    assert peak() - before < 24000  # KiB, of 50 MB


def test_client_that_reads_nothing_for_a_while(serve):
    """The queue of the response is full, and every write has to be begun again."""
    server = serve(
        APP, "--workers", "1", "--threads", "2", "--compress", "on",
        "--response-buffer", "64k", "--response-file-max", "0",
    )
    text = os.urandom(6 << 20).hex().encode()
    (server.cwd / "file.txt").write_bytes(text)
    for coding in CODINGS:
        with server.connect() as conn:
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            conn.send(get("Accept-Encoding: %s\r\n" % coding, target="/file"))
            server.get("/whole")  # the other thread goes on
            response = conn.read_head()
            decoder = Decoder(coding)
            digest = hashlib.sha256()
            while True:
                size = int(conn._line(), 16)
                if size == 0:
                    break
                decoder.plain = b""
                digest.update(decoder.feed(conn.read_bytes(size)))
                conn.read_bytes(2)
        assert response.header("content-encoding") == coding and decoder.ended
        assert digest.digest() == hashlib.sha256(text).digest()


def test_client_that_leaves(server):
    for coding in CODINGS:
        conn = server.connect()
        conn.send(get("Accept-Encoding: %s\r\n" % coding, target="/big"))
        conn.read_head()
        conn.reset()
    assert decode(server.get("/whole", headers=accept("br"))) == BODY


def test_file_wrapper(any_server):
    for size in (500, 5000, 64 * 1024, 1000 * 1000):
        text = (BODY * (size // len(BODY) + 1))[:size]
        (any_server.cwd / "file.txt").write_bytes(text)
        for coding in CODINGS:
            response = any_server.get("/file", headers=accept(coding))
            if size < 1024:
                assert response.body == text
            else:
                assert response.header("content-encoding") == coding
                assert response.header("accept-ranges") is None
                assert decode(response) == text


def test_time_is_over_in_the_middle(serve):
    server = serve(APP, "--workers", "1", "--compress", "on", "--request-timeout", "500ms")
    with server.connect() as conn:
        conn.send(get("Accept-Encoding: gzip\r\n", target="/burst?never"))
        conn.read_head()
        try:
            data = conn.read_to_end()
        except ConnectionResetError:
            data = b""
    assert not data.endswith(b"0\r\n\r\n")
    assert decode(server.get("/whole", headers=accept("gzip"))) == BODY


def test_counters_and_log(serve):
    server = serve(APP, "--workers", "1", "--compress", "gzip", "--metrics", "/metrics")
    sizes = [len(server.get("/whole", headers=accept("gzip")).body) for _ in range(3)]
    server.wait_log(r'"GET /whole HTTP/1.1" 200 %d ' % sizes[0], out=True)
    metrics = server.get("/metrics").text
    found = dict(re.findall(r"^stoker_(\w*compress\w*?)(?:_total)? (\d+)", metrics, re.MULTILINE))
    assert int(found["responses_compressed"]) == 3
    assert int(found["compress_bytes_in"]) == 3 * len(BODY)
    assert int(found["compress_bytes_out"]) == sum(sizes)


def test_level_and_types(serve):
    server = serve(
        APP, "--workers", "1", "--compress", "gzip", "--compress-level", "9",
        "--compress-types", "application/*", "--compress-min-size", "10",
    )
    assert server.get("/whole", headers=accept("gzip")).header("content-encoding") is None
    query = "/whole?Content-Type=application/x&size=%d"
    assert server.get(query % 10, headers=accept("gzip")).header("content-encoding") == "gzip"
    assert server.get(query % 9, headers=accept("gzip")).header("content-encoding") is None
    assert decode(server.get(query % 9000, headers=accept("gzip"))) == (BODY * 2)[:9000]


def test_off_by_default(serve):
    server = serve(APP, "--workers", "1")
    response = server.get("/whole", headers=accept("gzip, br, zstd"))
    assert response.header("content-encoding") is None
    assert response.header("vary") is None


@pytest.mark.parametrize(
    "options, message",
    [
        (["--compress", "lzma"], "expected on, off, or some of zstd, br and gzip"),
        (["--compress", "gzip", "--compress-level", "17"], "expected 1 to 9"),
        (["--compress", "gzip", "--compress-level", "br=12"], "expected 0 to 11"),
        (["--compress", "gzip", "--compress-level", "lz4=1"], "there are gzip, br and zstd"),
        (["--compress", "gzip", "--compress-types", "html"], "expected a media type"),
        (["--compress", "gzip", "--compress-types", "*/*/*"], "expected a media type"),
    ],
)
def test_mistakes(serve, options, message):
    server = serve(APP, *options, start=False)
    done = subprocess.run(
        server.command + ["--check"], cwd=server.cwd, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not there")
def test_curl(any_server):
    done = subprocess.run(
        ["curl", "-sS", "--compressed", "-i", any_server.url + "/quick"], capture_output=True, check=True
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert b"content-encoding:" in head.lower()
    assert body == b"".join(b"%d\n" % number for number in range(20000))


def test_many_at_once(server):
    """More responses at the same time than there are idle encoders."""
    errors = []

    def client(coding):
        try:
            with server.connect() as conn:
                for _ in range(10):
                    conn.send(get("Accept-Encoding: %s\r\n" % coding, target="/quick"))
                    plain = decode(conn.read_response())
                    assert plain.endswith(b"19999\n") and len(plain) == 108890
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=client, args=(coding,)) for coding in CODINGS * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
