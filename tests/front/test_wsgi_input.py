"""wsgi.input: a file that ends where the body ends, whatever the framing and the size."""

import json
import random

import pytest

from tests.front.raw import SECOND, chunked, get, post

APP = '''
import hashlib
import json


def run(stream, steps):
    """Runs the calls of a list of [method, argument...] and returns what they gave."""
    results = []
    for name, *args in steps:
        if name == "iterate":
            value = list(stream)
        elif name == "next":
            value = next(stream, None)
        else:
            value = getattr(stream, name)(*args)
        if isinstance(value, list):
            results.append([line.decode("latin-1") for line in value])
        else:
            results.append(value.decode("latin-1") if isinstance(value, bytes) else repr(value))
    return results


def app(environ, start_response):
    stream = environ["wsgi.input"]
    if environ["PATH_INFO"] == "/digest":
        digest = hashlib.sha256()
        size = int(environ["QUERY_STRING"])
        total = 0
        while True:
            block = stream.read(size)
            if not block:
                break
            total += len(block)
            digest.update(block)
        answer = [total, digest.hexdigest(), stream.read().decode(), stream.read(5).decode()]
    elif environ["PATH_INFO"] == "/lines":
        digest = hashlib.sha256()
        count = 0
        for line in stream:
            count += 1
            assert line.find(b"\\n") in (-1, len(line) - 1)
            digest.update(line)
        answer = [count, digest.hexdigest()]
    else:
        answer = run(stream, json.loads(environ["HTTP_STEPS"]))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
'''

MODES = {
    "buffered": (),
    "in a file": ("--body-buffer", "1k"),
    "streamed": ("--body", "stream", "--threads", "2"),
    "streamed in a file": ("--body", "stream", "--body-buffer", "1k"),
    "no take-over": ("--no-takeover",),
}


@pytest.fixture(scope="module", params=list(MODES))
def server(request, serve_module):
    return serve_module(APP, "-w1", *MODES[request.param])


def framed(body, fields, target, kind):
    if kind == "length":
        return post(fields + "Content-Length: %d\r\n" % len(body), body, target)
    step = max(1, min(len(body) // 3, 50_000))
    coded = b"".join(
        b"%x\r\n%s\r\n" % (len(body[at : at + step]), body[at : at + step])
        for at in range(0, len(body), step)
    )
    return post(fields + "Transfer-Encoding: chunked\r\n", coded + b"0\r\n\r\n", target)


# (name, body, steps, results)
STEPS = [
    ("read", "hello", [["read"]], ["hello"]),
    ("read twice", "hello", [["read"], ["read"]], ["hello", ""]),
    ("read of a size", "hello", [["read", 2], ["read", 2], ["read", 2], ["read", 2]], ["he", "ll", "o", ""]),
    ("read(0)", "hello", [["read", 0], ["read"]], ["", "hello"]),
    ("read(-1)", "hello", [["read", -1]], ["hello"]),
    ("read(None)", "hello", [["read", None]], ["hello"]),
    ("read beyond the end", "hello", [["read", 1000], ["read", 1000]], ["hello", ""]),
    ("read far beyond the end", "hello", [["read", 2**40], ["read", 1]], ["hello", ""]),
    ("read a part, then the rest", "hello", [["read", 2], ["read"]], ["he", "llo"]),
    ("readline", "a\nb\n", [["readline"], ["readline"], ["readline"]], ["a\n", "b\n", ""]),
    ("readline without an end", "a\nb", [["readline"], ["readline"], ["readline"]], ["a\n", "b", ""]),
    ("readline of a size", "hello\nyou\n", [["readline", 2], ["readline", 10], ["readline", 2], ["readline"]], ["he", "llo\n", "yo", "u\n"]),
    ("readline(0)", "a\n", [["readline", 0], ["readline"]], ["", "a\n"]),
    ("readline(-1)", "a\nb", [["readline", -1]], ["a\n"]),
    ("readline(None)", "a\nb", [["readline", None]], ["a\n"]),
    ("readline of just the size", "abc\nd", [["readline", 4], ["readline", 3], ["readline"]], ["abc\n", "d", ""]),
    ("empty lines", "\n\n\r\n", [["readline"], ["readline"], ["readline"], ["readline"]], ["\n", "\n", "\r\n", ""]),
    ("carriage returns end no line", "a\rb\n", [["readline"]], ["a\rb\n"]),
    ("readlines", "a\nb\nc", [["readlines"], ["readlines"]], [["a\n", "b\n", "c"], []]),
    ("readlines with a hint", "aa\nbb\ncc\n", [["readlines", 3], ["readlines"]], [["aa\n"], ["bb\n", "cc\n"]]),
    ("readlines with a hint within a line", "aa\nbb\ncc\n", [["readlines", 4], ["readlines"]], [["aa\n", "bb\n"], ["cc\n"]]),
    ("readlines(0)", "a\nb\n", [["readlines", 0]], [["a\n", "b\n"]]),
    ("readlines(None)", "a\nb\n", [["readlines", None]], [["a\n", "b\n"]]),
    ("iteration", "a\nb\nc", [["iterate"], ["iterate"]], [["a\n", "b\n", "c"], []]),
    ("next", "a\nb", [["next"], ["next"], ["next"]], ["a\n", "b", "None"]),
    ("all mixed", "ab\ncd\nef\ngh", [["read", 1], ["readline"], ["next"], ["readlines", 1], ["read"]], ["a", "b\n", "cd\n", ["ef\n"], "gh"]),
    ("empty body", "", [["read"], ["read", 5], ["readline"], ["readlines"], ["iterate"], ["next"]], ["", "", "", [], [], "None"]),
    ("binary", "\0\xff\r\n\x80", [["readline"], ["read"]], ["\0\xff\r\n", "\x80"]),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["length", "chunked"])
@pytest.mark.parametrize("body, steps, results", [c[1:] for c in STEPS], ids=[c[0] for c in STEPS])
def test_methods(server, body, steps, results, kind):
    data = framed(body.encode("latin-1"), "Steps: %s\r\n" % json.dumps(steps), "/", kind)
    # The second request stands directly behind the body: no method may reach it.
    with server.connect() as conn:
        if server.command.count("stream"):
            conn.send(data)
            assert conn.read_response().json() == results
            conn.send(SECOND.replace(b"\r\n\r\n", b'\r\nSteps: [["read"]]\r\n\r\n'))
        else:
            conn.send(data + SECOND.replace(b"\r\n\r\n", b'\r\nSteps: [["read"]]\r\n\r\n'))
            assert conn.read_response().json() == results
        assert conn.read_response().json() == [""]


def test_no_body_at_all(server):
    steps = [["read"], ["read", 0], ["readline"], ["readlines"], ["iterate"], ["next"], ["readline", 3]]
    (response,) = server.send_raw(get("Steps: %s\r\n" % json.dumps(steps)))
    assert response.json() == ["", "", "", [], [], "None", ""]


def body_of(size):
    return random.Random(size).randbytes(size)


SIZES = [0, 1, 63, 1023, 1024, 1025, 65_535, 65_536, 65_537, 131_073, 1_048_575, 1_048_576, 1_048_577, 5_000_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_sizes(server, size, kind):
    import hashlib

    body = body_of(size)
    for step in (-1, 65_536, 10_007):
        (response,) = server.send_raw(framed(body, "", "/digest?%d" % step, kind))
        assert response.json() == [size, hashlib.sha256(body).hexdigest(), "", ""]
    (response,) = server.send_raw(framed(body, "", "/lines", kind))
    lines = len(body.split(b"\n")) - (1 if body.endswith(b"\n") or not body else 0)
    assert response.json() == [lines, hashlib.sha256(body).hexdigest()]


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_bodies_that_come_slowly(server, kind):
    import hashlib

    body = body_of(3000)
    with server.connect() as conn:
        conn.send_slowly(framed(body, "", "/digest?100", kind), size=211)
        assert conn.read_response().json() == [3000, hashlib.sha256(body).hexdigest(), "", ""]


def test_streamed_bodies_can_be_answered_while_they_come(serve):
    """With body = stream the application reads a part, answers it, and reads on."""
    server = serve(
        """
        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            stream = environ["wsgi.input"]
            while True:
                block = stream.read(4)
                if not block:
                    return
                yield block.upper()
        """,
        "-w1",
        "--body",
        "stream",
    )
    with server.connect() as conn:
        conn.send(post("Transfer-Encoding: chunked\r\n"))
        for number in range(5):
            conn.send(b"4\r\na%03d\r\n" % number)
            if number == 0:
                assert conn.read_head().status == 200
            assert conn.read_bytes(9) == b"4\r\nA%03d\r\n" % number
        conn.send(b"0\r\n\r\n")
        assert conn.read_bytes(5) == b"0\r\n\r\n"


@pytest.mark.parametrize("how", ["fin", "reset", "nonsense"])
def test_a_client_that_leaves_a_streamed_body(serve, how):
    server = serve(
        """
        def app(environ, start_response):
            print("begun", file=environ["wsgi.errors"], flush=True)
            try:
                body = environ["wsgi.input"].read()
            except OSError as error:
                print("read failed:", type(error).__name__, file=environ["wsgi.errors"])
                raise
            print("read", len(body), file=environ["wsgi.errors"])
            start_response("200 OK", [])
            return []
        """,
        "-w1",
        "--body",
        "stream",
    )
    with server.connect() as conn:
        if how == "nonsense":
            conn.send(chunked(b"5\r\nhello\r\n"))
        else:
            conn.send(post("Content-Length: 100\r\n", "half"))
        server.wait_log("begun")
        if how == "nonsense":
            conn.send(b"zz\r\n")
        elif how == "reset":
            conn.reset()
        else:
            conn.half_close()
        server.wait_log("read failed: ")
    assert "read 4" not in server.log()
    assert server.get("/").status == 200
