"""FastCGI by records of our own; what it has in common with uwsgi and SCGI is in test_gateways."""

import gzip
import hashlib
import json
import time

import pytest

from tests.lib import fastcgi as fcgi
from tests.lib.server import Connection, free_port

APP = """
import hashlib
import json
import time


def blocks(n, size, pause=0):
    for number in range(n):
        yield b"%08d" % number * (size // 8)
        if pause:
            time.sleep(pause)


class Source:
    def __init__(self, path):
        self.file = open(path, "rb")

    def read(self, n):
        return self.file.read(n)


def fail(start_response, announced):
    start_response("200 OK", [("Content-Length", "1000")] if announced else [])
    yield b"begun"
    raise RuntimeError("boom")


def app(environ, start_response):
    what, _, value = environ["QUERY_STRING"].partition("=")
    if what == "unread":
        start_response("200 OK", [])
        return [b"unread"]
    if what == "left":
        end = time.monotonic() + 20
        while not environ["stoker.disconnected"]() and time.monotonic() < end:
            time.sleep(0.01)
        start_response("200 OK", [])
        return [b"left" if time.monotonic() < end else b"there"]
    if what == "slowly":
        start_response("200 OK", [])
        return slowly(environ["wsgi.input"])
    body = environ["wsgi.input"].read()
    if what == "sleep":
        time.sleep(float(value))
    if what == "blocks":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return blocks(*[int(n) for n in value.split(",")])
    if what == "gaps":
        start_response("200 OK", [])
        return blocks(5, 8, 0.02)
    if what == "bytes":
        start_response("200 OK", [("Content-Length", value)])
        return [b"01234567" * (int(value) // 8)]
    if what == "file":
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](open(value, "rb"))
    if what == "empty":
        start_response("204 No Content", [])
        return []
    if what == "boom":
        raise RuntimeError("boom")
    if what in ("cut", "cut-length"):
        return fail(start_response, what == "cut-length")
    if what == "short":
        start_response("200 OK", [("Content-Length", "1000")])
        return [b"short"]
    shown = {k: v for k, v in environ.items() if isinstance(v, str)}
    text = json.dumps({"environ": shown, "length": len(body), "md5": hashlib.md5(body).hexdigest()})
    start_response("200 OK", [("Content-Type", "application/json")])
    return [text.encode()]


def slowly(source):
    while True:
        line = source.readline()
        if not line:
            return
        yield b"<" + line.strip() + b">"
"""

ASGI = """
import asyncio

seen = []


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    if scope["query_string"] == b"left":
        seen.append((await receive())["type"])
        return
    await asyncio.sleep(0.05)
    answer = b"%d %s %s" % (size, scope["query_string"], dict(scope["headers"]).get(b"x-n", b"-"))
    if scope["query_string"] == b"seen":
        answer = repr(seen).encode()
    await send({"type": "http.response.start", "status": 200})
    for part in (answer, b"", b"x" * 100000):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})
"""

BASE = [
    ("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/a%20b?x=1"), ("PATH_INFO", "/a b"),
    ("QUERY_STRING", "x=1"), ("SERVER_PROTOCOL", "HTTP/1.1"), ("HTTP_HOST", "example.com"),
    ("REMOTE_ADDR", "192.0.2.9"), ("SERVER_NAME", "example.com"), ("SERVER_PORT", "80"),
    ("CONTENT_LENGTH", ""),
]
MD5_HELLO = "5d41402abc4b2a76b9719d911017c592"


def ask(query, *others):
    found = dict(BASE)
    found.update({"QUERY_STRING": query, "REQUEST_URI": "/a%20b?" + query})
    found.update(dict(others))
    return list(found.items())


def post(query, length=None, *others):
    return ask(query, ("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "" if length is None else str(length)), *others)


class Site:
    """A server with a FastCGI address."""

    def __init__(self, serve, where, *args, app=APP):
        self.port = free_port()
        self.path = where / "site.sock"
        self.server = serve(app, "--bind=fastcgi://127.0.0.1:%d" % self.port, "--bind=unix:%s" % self.path, *args,
                            ready="/")

    def connect(self):
        return Connection(("127.0.0.1", self.port))

    def answer(self, *args, **kwargs):
        with self.connect() as conn:
            conn.send(fcgi.request(*args, **kwargs))
            return fcgi.answer(conn, kwargs.get("id", 1))


@pytest.fixture(scope="module")
def site(serve_module, tmp_path_factory):
    return Site(serve_module, tmp_path_factory.mktemp("site"), "-w1", "--threads=2", "--log-level=debug")


@pytest.fixture(scope="module")
def streams(serve_module, tmp_path_factory):
    return Site(serve_module, tmp_path_factory.mktemp("site"), "-w1", "--threads=2", "--body=stream")


@pytest.fixture(params=["site", "streams"])
def either(request):
    return request.getfixturevalue(request.param)


def test_every_split_point(site):
    """Each cut of a request with everything in it, on one connection that is kept."""
    data = (
        fcgi.record(fcgi.GET_VALUES, 0, fcgi.pairs([("FCGI_MPXS_CONNS", "")]))
        + fcgi.begin(3)
        + fcgi.stream(fcgi.PARAMS, 3, fcgi.pairs(post("split", 5)), 100, 3)
        + fcgi.stream(fcgi.STDIN, 3, b"hello", 2, 5)
    )
    with site.connect() as conn:
        for cut in range(1, len(data)):
            conn.send(data[:cut])
            time.sleep(0.0005)
            conn.send(data[cut:])
            values = fcgi.take(conn)
            assert (values.kind, values.content) == (fcgi.VALUES, fcgi.pairs([("FCGI_MPXS_CONNS", "0")])), cut
            found = fcgi.answer(conn, 3)
            assert (found.status, found.protocol_status) == (200, fcgi.COMPLETE), cut
            shown = json.loads(found.body)
            assert shown["md5"] == MD5_HELLO and shown["environ"]["CONTENT_LENGTH"] == "5", cut


@pytest.mark.parametrize("size", [1, 7])
def test_bytes_that_dribble(either, size):
    with either.connect() as conn:
        conn.send_slowly(fcgi.request(post("dribble", 5), b"hello", size=40, padding=1), size=size, pause=0.0002)
        assert json.loads(fcgi.answer(conn).body)["md5"] == MD5_HELLO


def test_many_requests_on_a_connection(either):
    with either.connect() as conn:
        for number in range(200):
            id = number % 3 + 1
            conn.send(fcgi.request(post("n=%d" % number, 3), b"%03d" % number, id=id))
            found = fcgi.answer(conn, id)
            assert found.status == 200 and "connection" not in found.fields
            assert json.loads(found.body)["environ"]["QUERY_STRING"] == "n=%d" % number
        several = b"".join(fcgi.request(ask("n=%d" % number), id=number + 1) for number in range(10))
        conn.send(several)
        for number in range(10):
            assert json.loads(fcgi.answer(conn, number + 1).body)["environ"]["QUERY_STRING"] == "n=%d" % number


def test_without_keep_the_connection_ends(either):
    with either.connect() as conn:
        conn.send(fcgi.request(ask("x"), keep=False))
        found = fcgi.rest(conn)
        assert (found.status, found.protocol_status) == (200, fcgi.COMPLETE)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 200000, 3000000])
def test_bodies(either, known, size):
    """With CONTENT_LENGTH or without it, as nginx sends a chunked one that it does not buffer."""
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    with either.connect() as conn:
        for _ in range(2):
            conn.send(fcgi.request(post("body", size if known else None), body, size=32768))
            found = fcgi.answer(conn)
            shown = json.loads(found.body)
            assert (found.status, shown["length"]) == (200, size)
            assert shown["md5"] == hashlib.md5(body).hexdigest()
            if known:
                assert shown["environ"]["CONTENT_LENGTH"] == str(size)


@pytest.mark.parametrize("said, sent", [(5, b"hell"), (5, b"hello!"), (0, b"x"), (200000, b"x" * 199999),
                                        (200000, b"x" * 200001)])
def test_lengths_that_disagree(site, said, sent):
    """What is beyond CONTENT_LENGTH is never taken for something else."""
    with site.connect() as conn:
        conn.send(fcgi.request(post("n", said), sent) + fcgi.request(ask("next")))
        found = fcgi.rest(conn)
        assert (found.status, found.protocol_status) == (400, fcgi.COMPLETE)
        assert b"CONTENT_LENGTH" in found.body


def test_responses(either, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 4001)
    with either.connect() as conn:
        def get(query, *others):
            conn.send(fcgi.request(ask(query, *others)))
            return fcgi.answer(conn)

        for size in (0, 8, 16384, 65528, 65536, 131072, 3000000):
            found = get("bytes=%d" % size)
            assert found.body == b"01234567" * (size // 8) and found.fields["content-length"] == str(size)
            blocks = get("blocks=3,%d" % size)
            assert blocks.body == b"".join(b"%08d" % n * (size // 8) for n in range(3))
            assert "transfer-encoding" not in blocks.fields
        assert get("gaps").body == b"".join(b"%08d" % n for n in range(5))
        assert get("file=%s" % file).body == file.read_bytes()
        head = get("bytes=800", ("REQUEST_METHOD", "HEAD"))
        assert (head.status, head.body, head.fields["content-length"]) == (200, b"", "800")
        assert get("file=%s" % file, ("REQUEST_METHOD", "HEAD")).body == b""
        none = get("empty")
        assert (none.status, none.body) == (204, b"") and "content-length" not in none.fields
        assert get("x").status == 200


def test_reader_that_is_slow(either, tmp_path):
    """All of it lies in queues: bytes, a file, and the end."""
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 40001)
    for query, expected in (("bytes=8000000", b"01234567" * 1000000), ("file=%s" % file, file.read_bytes()),
                            ("blocks=200,80000", b"".join(b"%08d" % n * 10000 for n in range(200)))):
        with either.connect() as conn:
            conn.send(fcgi.request(ask(query)))
            time.sleep(0.05)
            assert fcgi.answer(conn).body == expected
            conn.send(fcgi.request(ask("after")))
            assert fcgi.answer(conn).status == 200


FAILED = b"the application failed; the traceback is in stoker's error log\n"


@pytest.mark.parametrize("query", ["cut", "cut-length", "short"])
def test_a_response_that_is_cut_has_no_end(site, query):
    site.server.check = False
    with Connection(str(site.path)) as conn:  # TCP resets it
        conn.send(fcgi.request(ask(query)))
        found = fcgi.rest(conn)
        assert found.status == 200 and found.body in (b"begun", b"short") and found.end is None
        assert found.errors == (b"" if query == "short" else FAILED)


def test_errors_are_whole_answers(site):
    site.server.check = False
    with site.connect() as conn:
        conn.send(fcgi.request(ask("boom")))
        found = fcgi.answer(conn)
        assert (found.status, found.protocol_status, found.errors) == (500, fcgi.COMPLETE, FAILED)
        conn.send(fcgi.request(ask("x")))
        found = fcgi.answer(conn)
        assert (found.status, found.errors) == (200, b"")


def test_the_error_stream_is_ended_and_precedes_the_end(site):
    site.server.check = False
    with site.connect() as conn:
        conn.send(fcgi.request(ask("boom"), keep=False))
        found = fcgi.split(conn.read_to_end())
        assert [record.content for record in found if record.kind == fcgi.STDERR] == [FAILED, b""]
        assert found[-1].kind == fcgi.END


def test_get_values(either):
    asked = fcgi.pairs([("FCGI_MAX_CONNS", ""), ("FCGI_MAX_REQS", ""), ("FCGI_MPXS_CONNS", ""), ("OTHER", "")])
    with either.connect() as conn:
        for _ in range(50):  # more than the answers that are kept
            conn.send(fcgi.record(fcgi.GET_VALUES, 0, asked))
        for _ in range(50):
            found = fcgi.take(conn)
            assert (found.kind, found.id) == (fcgi.VALUES, 0)
            assert b"FCGI_MPXS_CONNS0" in found.content and b"OTHER" not in found.content
            assert b"FCGI_MAX_CONNS" in found.content and b"FCGI_MAX_REQS" in found.content
        conn.send(fcgi.record(77, 0, b"what"))
        assert fcgi.take(conn) == (fcgi.UNKNOWN, 0, b"\x4d" + b"\0" * 7)
        conn.send(fcgi.request(ask("x")))
        assert fcgi.answer(conn).status == 200


def test_other_requests_meanwhile_are_refused(either, streams):
    data = fcgi.request(post("n", 5), b"hello", id=7)
    places = [16, len(data) - 21, len(data) - 8]  # behind BEGIN, before the body, before its end
    with either.connect() as conn:
        for at in places[:2] if either is streams else places:
            conn.send(data[:at])
            conn.send(fcgi.request(ask("other"), id=8) + fcgi.record(fcgi.GET_VALUES, 0))
            assert fcgi.take(conn) == (fcgi.END, 8, bytes([0, 0, 0, 0, fcgi.CANT_MPX, 0, 0, 0]))
            assert fcgi.take(conn)[:2] == (fcgi.VALUES, 0)
            conn.send(data[at:])
            assert json.loads(fcgi.answer(conn, 7).body)["md5"] == MD5_HELLO


def test_roles(site):
    with site.connect() as conn:
        conn.send(fcgi.begin(1, role=fcgi.AUTHORIZER))
        assert fcgi.take(conn) == (fcgi.END, 1, bytes([0, 0, 0, 0, fcgi.UNKNOWN_ROLE, 0, 0, 0]))
        conn.send(fcgi.request(ask("x")))
        assert fcgi.answer(conn).status == 200
        conn.send(fcgi.begin(1, role=3, keep=False))
        assert fcgi.take(conn).content[4] == fcgi.UNKNOWN_ROLE
        assert conn.at_end()


@pytest.mark.parametrize("keep", [True, False])
def test_abort(site, keep):
    """In the head, in the body, and between requests."""
    data = fcgi.request(post("n", 200000), b"x" * 200000, keep=keep)
    for at in (16, 60, 100000):
        with site.connect() as conn:
            end = next(n for n in boundaries(data) if n >= at)
            conn.send(data[:end] + fcgi.record(fcgi.ABORT, 1))
            found = fcgi.take(conn)
            while found.kind == fcgi.STDOUT:
                assert found.content == b""
                found = fcgi.take(conn)
            assert (found.kind, found.id) == (fcgi.END, 1)
            if not keep:
                assert conn.at_end()
                continue
            conn.send(fcgi.record(fcgi.ABORT, 1) + fcgi.request(ask("x")))
            assert fcgi.answer(conn).status == 200


def boundaries(data):
    at, found = 0, []
    while at < len(data):
        at += 8 + int.from_bytes(data[at + 4 : at + 6], "big") + data[at + 6]
        found.append(at)
    return found


def test_abort_while_the_application_runs(either):
    with either.connect() as conn:
        conn.send(fcgi.request(ask("left")))
        time.sleep(0.05)
        conn.send(fcgi.record(fcgi.ABORT, 1))
        found = fcgi.answer(conn)
        assert (found.body, found.protocol_status) == (b"left", fcgi.COMPLETE)
        conn.send(fcgi.request(ask("x")))
        assert fcgi.answer(conn).status == 200


def test_streams_in_both_directions(streams):
    """The application answers while the body comes; others ask meanwhile."""
    with streams.connect() as conn:
        conn.send(fcgi.begin() + fcgi.stream(fcgi.PARAMS, 1, fcgi.pairs(post("slowly"))))
        seen = b""
        for number in range(3):
            conn.send(fcgi.record(fcgi.STDIN, 1, b"line %d\n" % number) + fcgi.record(fcgi.GET_VALUES, 0))
            while b"<line %d>" % number not in seen:
                found = fcgi.take(conn)
                if found.kind == fcgi.STDOUT:
                    seen += found.content
                else:
                    assert found.kind == fcgi.VALUES
        conn.send(fcgi.record(fcgi.STDIN, 1))
        kinds = []
        while fcgi.END not in kinds:
            kinds.append(fcgi.take(conn).kind)
        conn.send(fcgi.request(ask("x")))
        while True:  # the answer to the last GET_VALUES may have come behind the response
            found = fcgi.take(conn)
            if found.kind == fcgi.END:
                break


def test_answer_before_the_end_of_the_body(streams):
    """All that was announced has been read: the record that ends it comes behind the answer."""
    data = fcgi.request(post("n", 5), b"hello")
    with streams.connect() as conn:
        for _ in range(5):
            conn.send(data[:-8])
            assert json.loads(fcgi.answer(conn).body)["md5"] == MD5_HELLO
            conn.send(data[-8:])


def test_body_that_is_not_read(streams):
    with streams.connect() as conn:
        conn.send(fcgi.begin() + fcgi.stream(fcgi.PARAMS, 1, fcgi.pairs(post("unread", 100000))))
        conn.send(fcgi.record(fcgi.STDIN, 1, b"x" * 1000))
        found = fcgi.rest(conn)
        assert (found.body, found.protocol_status) == (b"unread", fcgi.COMPLETE)


@pytest.mark.parametrize("data", [
    b"\x02" * 16,
    b"\x01\x01\x00\x01\x00\x07\x00\x00" + b"\0" * 7,
    fcgi.begin() + fcgi.begin(),
    fcgi.begin() + fcgi.record(fcgi.STDIN, 1, b"early"),
    fcgi.begin() + fcgi.record(fcgi.PARAMS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff") + fcgi.record(fcgi.PARAMS, 1),
    fcgi.begin() + fcgi.record(fcgi.PARAMS, 1, b"\x05") + fcgi.record(fcgi.PARAMS, 1),
    fcgi.begin() + fcgi.record(fcgi.PARAMS, 1),
    fcgi.request(post("n", 5), b"hello")[:-8] + b"\x07" + b"\0" * 7,
    fcgi.request(post("n", 5), b"hello")[:-8] + fcgi.record(fcgi.PARAMS, 1, b"late"),
], ids=["version", "begin", "twice", "stdin", "pair", "half", "nothing", "body-version", "body-params"])
def test_malformed(site, data):
    with site.connect() as conn:
        conn.send(data)
        answer = conn.read_to_end()
        assert b" 400 Bad Request" in answer
    assert site.answer(ask("x")).status == 200


def test_heads_beyond_the_limits(site):
    assert site.answer(ask("x", ("HTTP_X", "a" * 40000))).status == 431
    with site.connect() as conn:
        conn.send(fcgi.begin())
        conn.send(fcgi.stream(fcgi.PARAMS, 1, fcgi.pairs([("HTTP_X%d" % n, "a" * 30000) for n in range(4)])))
        assert fcgi.rest(conn).status == 431


def test_http_is_told_what_is_wrong(site):
    with site.connect() as conn:
        conn.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert conn.read_to_end().startswith(b"HTTP/1.1 400 ")
    site.server.wait_log("HTTP was sent to an address of the FastCGI protocol")


def test_front_end_that_leaves(site):
    for data in (fcgi.request(ask("blocks=100000,8000")), fcgi.request(post("n", 100000), b"x" * 50000)[:-8]):
        with site.connect() as conn:
            conn.send(data)
            time.sleep(0.02)
    assert site.answer(ask("x")).status == 200


def test_what_is_answered_without_the_application(serve, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "small.txt").write_bytes(b"small")
    (tmp_path / "files" / "large.txt").write_bytes(b"0123456789abcdef" * 100000)
    site = Site(serve, tmp_path, "-w1", "--health-path=/healthz", "--static=/static=%s" % (tmp_path / "files"),
                "--request-timeout=500ms", "--limit-request-body=1000", "--compress=gzip", "--header=X-Added: yes")
    site.server.check = False
    with site.connect() as conn:
        def get(path, *others, body=b""):
            variables = ask("", ("REQUEST_URI", path), ("PATH_INFO", path), *others)
            conn.send(fcgi.request(variables, body))
            return fcgi.answer(conn)

        for _ in range(3):
            assert get("/healthz").status == 200
            assert get("/static/small.txt").body == b"small"
            assert get("/static/large.txt").body == b"0123456789abcdef" * 100000
            assert get("/static/none").status == 404
            part = get("/static/large.txt", ("HTTP_RANGE", "bytes=16-31"))
            assert (part.status, part.body) == (206, b"0123456789abcdef")
            found = get("/healthz", ("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "5"), body=b"hello")
            assert found.status == 405
        coded = get("/", ("QUERY_STRING", "blocks=20,8000"), ("HTTP_ACCEPT_ENCODING", "gzip"))
        assert coded.fields["content-encoding"] == "gzip" and coded.fields["x-added"] == "yes"
        assert gzip.decompress(coded.body) == b"".join(b"%08d" % n * 1000 for n in range(20))
        assert get("/", ("QUERY_STRING", "x")).status == 200
    assert site.answer(post("n"), b"x" * 1001).status == 413
    assert site.answer(post("n", 1001), b"x" * 1001).status == 413
    with site.connect() as conn:
        conn.send(fcgi.request(ask("sleep=30")))
        found = fcgi.rest(conn)
        assert (found.status, found.protocol_status) == (504, fcgi.COMPLETE)


def test_asynchronous_requests(serve, tmp_path):
    """Many at once, each on a connection that is kept; and one that is taken back."""
    site = Site(serve, tmp_path, "-w1", app=ASGI)
    connections = [site.connect() for _ in range(40)]
    for turn in range(3):
        for number, conn in enumerate(connections):
            variables = post("n=%d" % number, None, ("HTTP_X_N", str(turn)))
            conn.send(fcgi.request(variables, b"x" * number * 3000, id=number + 1))
        for number, conn in enumerate(connections):
            found = fcgi.answer(conn, number + 1)
            begun = b"%d n=%d %d" % (number * 3000, number, turn)
            assert (found.status, found.body) == (200, begun + b"x" * 100000 + b"end")
    conn = connections[0]
    conn.send(fcgi.request(ask("left")))
    time.sleep(0.05)
    conn.send(fcgi.record(fcgi.ABORT, 1))
    assert fcgi.answer(conn).protocol_status == fcgi.COMPLETE
    conn.send(fcgi.request(ask("seen")))
    assert fcgi.answer(conn).body.startswith(b"['http.disconnect']x")
    for conn in connections:
        conn.close()


def test_a_reload_keeps_connections(serve, tmp_path):
    """Idle ones go to the new worker; a request under way is finished."""
    site = Site(serve, tmp_path, "-w2")
    connections = [site.connect() for _ in range(8)]
    for conn in connections:
        conn.send(fcgi.request(ask("x")))
        assert fcgi.answer(conn).status == 200
    slow = site.connect()
    slow.send(fcgi.request(ask("sleep=1")))
    site.server.send_signal(1)
    for number in range(40):
        conn = connections[number % 8]
        conn.send(fcgi.request(post("n=%d" % number, 5), b"hello"))
        assert json.loads(fcgi.answer(conn).body)["md5"] == MD5_HELLO
    assert fcgi.answer(slow).status == 200
    site.server.wait_log("reload.*complete|reloaded")
    for conn in [*connections, slow]:
        conn.close()


def test_requests_leave_a_worker_that_is_stuck(serve, tmp_path):
    """With the body that was gathered for them."""
    site = Site(serve, tmp_path, "-w2")
    stuck = site.connect()
    stuck.send(fcgi.request(ask("sleep=1")))
    connections = [site.connect() for _ in range(10)]
    for conn in connections:
        data = fcgi.request(post("n"), b"hello")
        conn.send(data[:-13])
    time.sleep(0.05)
    for conn in connections:
        conn.send(data[-13:])
    for conn in connections:
        assert json.loads(fcgi.answer(conn).body)["md5"] == MD5_HELLO
        conn.send(fcgi.request(ask("again")))
        assert fcgi.answer(conn).status == 200
        conn.close()
    stuck.settimeout(20)
    assert fcgi.answer(stuck).status == 200
    stuck.close()
