"""What applications return: iterables, lengths, files, exceptions, wsgi.errors."""

import os
import threading
import time

import pytest

from tests.front.raw import get, post

APP = r'''
import io
import os
import sys
import tempfile
import threading

TEXT = ("Content-Type", "text/plain")
events = []
big = os.path.join(os.path.dirname(os.path.abspath(__file__)), "big.bin")
with open(big, "wb") as file:
    for number in range(200_000):
        file.write(b"%07d\n" % number)

small = os.path.join(os.path.dirname(os.path.abspath(__file__)), "small.bin")
with open(small, "wb") as file:
    for number in range(2000):
        file.write(b"%07d\n" % number)


class Closing:
    """An iterable that says when it is closed."""

    def __init__(self, blocks, fail=None, name="close"):
        self.blocks = iter(blocks)
        self.fail = fail
        self.name = name

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.blocks)

    def close(self):
        events.append(self.name)
        if self.fail:
            raise self.fail


class Sized(list):
    """A list that is not a list by its exact type."""


class Single:
    def __init__(self, blocks):
        self.blocks = blocks

    def __len__(self):
        return 1

    def __iter__(self):
        return iter(self.blocks)


class Liar(Single):
    def __len__(self):
        raise ValueError("no length")


class BadIter:
    def __iter__(self):
        raise ValueError("in __iter__")


class OnlyGetitem:
    def __getitem__(self, number):
        if number == 3:
            raise IndexError
        return b"%d" % number


def raising(*blocks):
    for block in blocks:
        yield block
    raise ValueError("in the iterator")


def leaving():
    yield b"before"
    sys.exit(5)


def generator():
    try:
        yield b"one"
        yield b"two"
    finally:
        events.append("finally")


def returned(environ, start_response):
    """/returned: what the expression in the field Eval gives; Length is a Content-Length."""
    fields = [TEXT]
    if "HTTP_LENGTH" in environ:
        fields.append(("Content-Length", environ["HTTP_LENGTH"]))
    start_response(environ.get("HTTP_STATUS", "200 OK"), fields)
    return eval(environ["HTTP_EVAL"])


def what_happened(environ, start_response):
    body = repr(events).encode()
    events.clear()
    start_response("200 OK", [TEXT])
    return [body]


def raises(environ, start_response):
    raise eval(environ["HTTP_EVAL"])


def raises_after_start(environ, start_response):
    start_response("200 OK", [TEXT, ("Content-Length", "5")])
    raise eval(environ["HTTP_EVAL"])


def endless(environ, start_response):
    """Blocks until the client has left."""
    start_response("200 OK", [TEXT])

    def blocks():
        try:
            while True:
                yield b"x" * 65536
        except GeneratorExit:
            events.append("GeneratorExit")
            raise

    return blocks()


def endless_write(environ, start_response):
    write = start_response("200 OK", [TEXT])
    try:
        while True:
            write(b"x" * 65536)
    except OSError as error:
        events.append(type(error).__name__)
        raise


def errors(environ, start_response):
    stream = environ["wsgi.errors"]
    stream.write("one line of the application\n")
    stream.writelines(["first of two\n", "second of two\n"])
    print("printed", "to it", file=stream)
    stream.write("not ")
    stream.write("ended")
    stream.flush()
    stream.write("\xe9\u20ac\n")
    stream.write("with a \x1b[31m control character\n")
    start_response("200 OK", [TEXT])
    return []


def file(environ, start_response):
    """/file: a file_wrapper of what the expression gives."""
    fields = [TEXT]
    if "HTTP_LENGTH" in environ:
        fields.append(("Content-Length", environ["HTTP_LENGTH"]))
    start_response("200 OK", fields)
    opened = eval(environ["HTTP_EVAL"])
    if environ.get("HTTP_BLOCK"):
        return environ["wsgi.file_wrapper"](opened, int(environ["HTTP_BLOCK"]))
    return environ["wsgi.file_wrapper"](opened)


def at(file, offset):
    file.seek(offset)
    return file


class Noted:
    """A file-like object without a descriptor that says when it is closed."""

    def __init__(self, data, fail=False):
        self.file = io.BytesIO(data)
        self.fail = fail

    def read(self, size=-1):
        if self.fail:
            raise OSError("the disk is gone")
        return self.file.read(size)

    def close(self):
        events.append("closed")


class NotedFile(io.FileIO):
    def close(self):
        if not self.closed:
            events.append("closed")
        super().close()


def threads(environ, start_response):
    start_response("200 OK", [TEXT])
    return [threading.current_thread().name.encode(), b" ", str(os.getpid()).encode()]


def app(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)
'''

BIG = b"".join(b"%07d\n" % number for number in range(200_000))


@pytest.fixture(scope="module", params=["-t1", "-t3", "--no-takeover"])
def server(request, serve_module):
    server = serve_module(APP, "-w1", request.param, ready="/threads")
    server.option = request.param
    return server


def fields_of(text, length=None, status=None):
    fields = "Eval: %s\r\n" % text
    if length is not None:
        fields += "Length: %s\r\n" % length
    if status is not None:
        fields += "Status: %s\r\n" % status
    return fields


def ask(server, text, path="/returned", method="GET", **kwargs):
    """One response, and one behind it on the same connection."""
    data = get(fields_of(text, **kwargs), path).replace(b"GET", method.encode(), 1)
    first, second = server.send_raw(data + get("", "/threads"), expect=2, methods=[method])
    assert second.status == 200
    return first


def truncated(server, text, path="/returned", **kwargs):
    """What comes of a response that breaks off."""
    with server.connect() as conn:
        conn.send(get(fields_of(text, **kwargs), path))
        head = conn.read_head()
        try:
            return head, conn.read_to_end()
        except ConnectionResetError:
            return head, None


def events(server):
    return eval(server.get("/what_happened").text)


# Iterables

ITERABLES = [
    ("list of one", "[b'abc']", b"abc"),
    ("list", "[b'a', b'b', b'c']", b"abc"),
    ("tuple", "(b'a', b'b', b'c')", b"abc"),
    ("empty list", "[]", b""),
    ("empty tuple", "()", b""),
    ("list of an empty block", "[b'']", b""),
    ("list with empty blocks", "[b'', b'a', b'', b'b', b'']", b"ab"),
    ("own list", "Sized([b'a', b'b'])", b"ab"),
    ("set", "{b'a'}", b"a"),
    ("dict", "{b'a': 1}", b"a"),
    ("deque", "__import__('collections').deque([b'a', b'b'])", b"ab"),
    ("generator", "(b'%d' % n for n in range(5))", b"01234"),
    ("generator with empty blocks", "(b'x' * (n % 2) for n in range(9))", b"xxxx"),
    ("empty generator", "(b'' for n in range(0))", b""),
    ("generator of empty blocks", "(b'' for n in range(3))", b""),
    ("iterator", "iter([b'a', b'b'])", b"ab"),
    ("map", "map(str.encode, 'abc')", b"abc"),
    ("by __getitem__", "OnlyGetitem()", b"012"),
    ("of length one", "Single([b'abc'])", b"abc"),
    ("of length one that has two", "Single([b'abc', b'def'])", b"abcdef"),
    ("of length one that has none", "Single([])", b""),
    ("of a length that raises", "Liar([b'a', b'b'])", b"ab"),
    ("BytesIO", "io.BytesIO(b'a\\nb\\n')", b"a\nb\n"),
    ("open file", "open(small, 'rb')", BIG[:16_000]),
    ("large blocks", "[b'x' * 300_000, b'y' * 300_000]", b"x" * 300_000 + b"y" * 300_000),
    ("many blocks", "[b'%05d' % n for n in range(50_000)]", b"".join(b"%05d" % n for n in range(50_000))),
    ("generator of many blocks", "(b'%05d' % n for n in range(50_000))", b"".join(b"%05d" % n for n in range(50_000))),
    ("generator of large blocks", "(b'x' * 700_000 for n in range(8))", b"x" * 5_600_000),
    ("generator of blocks of all sizes", "(bytes([n % 256]) * n for n in range(2000))", b"".join(bytes([n % 256]) * n for n in range(2000))),
]  # fmt: skip


@pytest.mark.parametrize("text, body", [c[1:] for c in ITERABLES], ids=[c[0] for c in ITERABLES])
def test_iterables(server, text, body):
    assert ask(server, text).body == body
    assert ask(server, text, length=len(body)).body == body
    assert ask(server, text, method="HEAD").status == 200


@pytest.mark.parametrize("text", ["[b'abc']", "[b'a', b'bc']", "(b'abc',)", "Single([b'abc'])", "[]"])
def test_known_lengths_are_told(server, text):
    assert ask(server, text).framing == "length"


MISTAKES = [
    ("None", r"the application returned None"),
    ("b'abc'", r"returned a bytes \(b'abc'\)"),
    ("'abc'", r"returned a str \('abc'\)"),
    ("5", r"type int, which is not iterable"),
    ("object()", r"type object, which is not iterable"),
    ("['abc']", r"a block of type str \('abc'\)"),
    ("[b'a', 'b']", r"a block of type str \('b'\)"),
    ("iter(['abc'])", r"a block of type str \('abc'\)"),
    ("[None]", r"a block of type NoneType"),
    ("[5]", r"a block of type int"),
    ("[bytearray(b'x')]", r"a block of type bytearray"),
    ("[[b'x']]", r"a block of type list"),
    ("BadIter()", r"ValueError: in __iter__"),
    ("raising()", r"ValueError: in the iterator"),
    ("Single(['abc'])", r"a block of type str"),
    ("Single(raising())", r"ValueError: in the iterator"),
]


@pytest.mark.parametrize("text, log", MISTAKES, ids=[c[0] for c in MISTAKES])
def test_mistakes_before_the_first_block(server, text, log):
    response = ask(server, text)
    assert response.status == 500 and b"Traceback" not in response.body
    server.wait_log(log)


BREAKS = ["iter([b'good', 'bad'])", "raising(b'good')", "raising(b'good', b'good')", "leaving()"]


@pytest.mark.parametrize("text", BREAKS)
def test_mistakes_after_the_first_block(server, text):
    """The chunked coding has no end, so the client sees that something is missing."""
    head, rest = truncated(server, text)
    assert head.status == 200 and head.header("transfer-encoding") == "chunked"
    assert not rest.endswith(b"0\r\n\r\n")
    assert server.get("/threads").status == 200


@pytest.mark.parametrize("text", ["raising(b'good')", "iter([b'good', 5])"])
def test_mistakes_after_the_first_block_with_a_length(server, text):
    head, rest = truncated(server, text, length=100)
    assert head.status == 200 and rest is not None and len(rest) < 100


def test_mistakes_after_the_first_block_in_http10(server):
    """Only a reset tells a response that ends with the connection from a broken one."""
    with server.connect() as conn:
        conn.send(get(fields_of("raising(b'good')"), "/returned", "1.0"))
        with pytest.raises(ConnectionResetError):
            conn.read_to_end()


# close()


@pytest.mark.parametrize(
    "text",
    [
        "Closing([b'a', b'b'])",
        "Closing([])",
        "Closing(raising())",
        "Closing(['text'])",
        "Closing([b'a'], fail=ValueError('in close'))",
        "Closing([b'a'], fail=SystemExit(3))",
    ],
)
def test_close_is_called_once(server, text):
    events(server)
    assert ask(server, text).status in (200, 500)
    assert events(server) == ["close"]


@pytest.mark.parametrize("text", ["Closing(raising(b'a'))", "Closing(iter([b'a', 5]))"])
def test_close_is_called_after_a_break(server, text):
    events(server)
    truncated(server, text)
    assert events(server) == ["close"]


def test_close_is_called_without_a_body(server):
    for kwargs in ({"method": "HEAD"}, {"status": "204 No Content"}, {"status": "304 Not Modified"}):
        events(server)
        assert ask(server, "Closing([b'a', b'b'])", **kwargs).body == b""
        assert events(server) == ["close"]


def test_close_is_called_when_more_than_its_length_comes(server):
    events(server)
    assert ask(server, "Closing([b'abc', b'def'])", length=3).body == b"abc"
    assert events(server) == ["close"]


def test_generators_run_to_their_end(server):
    events(server)
    assert ask(server, "generator()").body == b"onetwo"
    assert events(server) == ["finally"]


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_close_is_called_when_the_client_leaves(server, how):
    events(server)
    before = server.log()
    conn = server.connect()
    conn.send(get("", "/endless"))
    conn.read_bytes(100_000)
    if how == "reset":
        conn.reset()
    else:
        conn.close()
    while not events_seen(server, "GeneratorExit"):
        pass
    assert "Traceback" not in server.log()[len(before) :]


def events_seen(server, name):
    return name in events(server)


def test_write_sees_that_the_client_has_left(server):
    events(server)
    conn = server.connect()
    conn.send(get("", "/endless_write"))
    conn.read_bytes(100_000)
    conn.reset()
    while not events_seen(server, "BrokenPipeError"):
        pass


def test_errors_in_close_are_logged(server):
    assert ask(server, "Closing([b'a'], fail=ValueError('wrong in close'))").status == 200
    server.wait_log("ValueError: wrong in close")


# Lengths


@pytest.mark.parametrize("text", ["[b'abcdef']", "[b'abc', b'def']", "iter([b'abc', b'def'])", "iter([b'ab', b'cdef'])"])
def test_longer_than_its_length_is_cut(server, text):
    """What is too much must not run into the next response."""
    assert ask(server, text, length=4).body == b"abcd"
    server.wait_log("longer than its Content-Length of 4")


@pytest.mark.parametrize("text", ["[b'abc']", "iter([b'ab', b'c'])", "[]", "iter([])"])
def test_shorter_than_its_length_closes(server, text):
    head, rest = truncated(server, text, length=10)
    assert head.header("content-length") == "10"
    assert rest == (b"" if "a" not in text else b"abc")
    server.wait_log(r"shorter than its Content-Length \([03] of 10 bytes\)")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("text", ["[b'abc']", "iter([b'abc', b'def'])", "[]"])
def test_no_body_where_none_may_be(server, status, text):
    for length in (None, 3):
        response = ask(server, text, status=status, length=length)
        assert response.body == b""
        if status.startswith("204"):
            assert response.header("content-length") is None


def test_head_with_a_length(server):
    for text in ("[]", "[b'abc']", "iter([b'a', b'bc'])"):
        response = ask(server, text, method="HEAD", length=3)
        assert (response.header("content-length"), response.body) == ("3", b"")


# Exceptions

EXCEPTIONS = ["ValueError('x')", "KeyError('x')", "RecursionError()", "MemoryError()", "OSError(28, 'No space')", "StopIteration()", "BaseException('x')", "GeneratorExit()", "UnicodeDecodeError('utf-8', b'x', 0, 1, 'y')"]


@pytest.mark.parametrize("text", EXCEPTIONS)
@pytest.mark.parametrize("path", ["/raises", "/raises_after_start"])
def test_exceptions(server, text, path):
    """500, and the traceback with method and path in the log, not in the response."""
    response = ask(server, text, path)
    assert (response.status, response.framing) == (500, "length")
    assert b"raise" not in response.body
    server.wait_log(r"GET %s\b" % path)
    server.wait_log(r"^.*Traceback \(most recent call last\)")
    server.wait_log(text.partition("(")[0])


@pytest.mark.parametrize("text", ["SystemExit(0)", "SystemExit(3)", "SystemExit('text')", "KeyboardInterrupt()"])
@pytest.mark.parametrize("path", ["/raises", "/raises_after_start"])
def test_leaving_a_view_does_not_end_the_server(server, text, path):
    before = server.get("/threads").text.split()[-1]
    assert ask(server, text, path).status == 500
    assert server.get("/threads").text.split()[-1] == before


def test_post_that_fails_unread(server):
    data = post("Content-Length: 200000\r\n" + fields_of("ValueError('x')"), b"x" * 200_000, "/raises")
    first, second = server.send_raw(data + get("", "/threads"), expect=2)
    assert (first.status, second.status) == (500, 200)


# Files

FILES = [
    ("a file", "open(big, 'rb')", BIG),
    ("unbuffered", "open(big, 'rb', 0)", BIG),
    ("from an offset", "at(open(big, 'rb'), 1_500_000)", BIG[1_500_000:]),
    ("read before", "(lambda f: (f.read(10), f)[1])(open(big, 'rb'))", BIG[10:]),
    ("at its end", "at(open(big, 'rb'), 1_600_000)", b""),
    ("behind its end", "at(open(big, 'rb'), 2_000_000)", b""),
    ("empty file", "open('/dev/null', 'rb')", b""),
    ("temporary file", "(lambda f: (f.write(b'abc'), f.seek(1), f)[2])(tempfile.TemporaryFile())", b"bc"),
    ("BytesIO", "io.BytesIO(b'abc' * 50_000)", b"abc" * 50_000),
    ("BytesIO from an offset", "at(io.BytesIO(b'abcdef'), 2)", b"cdef"),
    ("object with read only", "Noted(b'abc' * 50_000)", b"abc" * 50_000),
    ("gzip of a file", "__import__('gzip').GzipFile(fileobj=io.BytesIO(__import__('gzip').compress(b'abc')))", b"abc"),
    ("a file of proc", "open('/proc/self/comm', 'rb')", None),
    ("a pipe", "(lambda p: (os.write(p[1], b'abc'), os.close(p[1]), os.fdopen(p[0], 'rb'))[2])(os.pipe())", b"abc"),
]  # fmt: skip


@pytest.mark.parametrize("text, body", [c[1:] for c in FILES], ids=[c[0] for c in FILES])
def test_files(server, text, body):
    for block in ("", "Block: 1000\r\n"):
        data = get(fields_of(text) + block, "/file")
        first, second = server.send_raw(data + get("", "/threads"), expect=2)
        assert first.status == 200 and second.status == 200
        assert first.body == body if body is not None else len(first.body) > 1
    assert ask(server, text, "/file", method="HEAD").status == 200


def test_files_with_a_length(server):
    assert ask(server, "open(big, 'rb')", "/file", length=1_600_000).body == BIG
    assert ask(server, "open(big, 'rb')", "/file", length=1000).body == BIG[:1000]
    assert ask(server, "at(open(big, 'rb'), 8)", "/file", length=8).body == b"0000001\n"
    assert ask(server, "io.BytesIO(b'abcdef')", "/file", length=3).body == b"abc"
    head, rest = truncated(server, "open('/dev/null', 'rb')", "/file", length=5)
    assert rest == b""


def test_files_tell_their_length(server):
    assert ask(server, "open(big, 'rb')", "/file").framing == "length"


@pytest.mark.parametrize("text", ["Noted(b'abc')", "Noted(b'')", "NotedFile(big)", "Noted(b'abc', fail=True)"])
def test_files_are_closed(server, text):
    events(server)
    ask(server, text, "/file")
    assert events(server) == ["closed"]
    ask(server, text, "/file", method="HEAD")
    assert events(server) == ["closed"]


def test_a_file_that_many_ask_for(server):
    errors = []

    def load():
        try:
            for _ in range(5):
                assert server.get("/file", headers={"Eval": "open(big, 'rb')"}).body == BIG
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_no_descriptor_is_left(server):
    """Files, pipes and broken requests leave nothing open."""
    (pid,) = server.worker_pids()
    ask(server, "open(big, 'rb')", "/file")
    before = len(os.listdir("/proc/%d/fd" % pid))
    for _ in range(20):
        ask(server, "open(big, 'rb')", "/file")
        ask(server, "open(big, 'rb')", "/file", method="HEAD")
        ask(server, "open(big, 'rb')", "/file", length=10)
        truncated(server, "raising(b'a')")
    server.get("/threads")
    deadline = time.monotonic() + 20  # the ends of the last connections may be on their way
    while len(os.listdir("/proc/%d/fd" % pid)) > before + 2:
        assert time.monotonic() < deadline, os.listdir("/proc/%d/fd" % pid)
        time.sleep(0.05)


# wsgi.errors


def test_errors(server):
    assert ask(server, "", "/errors").status == 200
    for line in ("one line of the application", "first of two", "second of two", "printed to it", "not ended", "control character"):
        server.wait_log(line)
    assert "\x1b[31m" not in server.log()
    server.wait_log("\xe9\u20ac")


def test_threads(server):
    """With one thread the application runs on the main thread."""
    if server.option != "-t3":
        assert ask(server, "", "/threads").text.split()[0] == "MainThread"
