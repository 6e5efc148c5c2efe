"""wsgi.input as a file object, over every way in which a body can arrive."""
import errno
import io
import random
import sys
import threading

import pytest

pytestmark = pytest.mark.smoke

POST = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"
TEXT = b"first line\nsecond\n\nfourth, without an end"


def use(wsgi, function, body, **kwargs):
    """The result of function(environ["wsgi.input"])."""
    seen = []

    def application(environ, start_response):
        seen.append(function(environ["wsgi.input"]))
        start_response("200 OK", [])
        return []

    result = wsgi.call(application, POST, body, **kwargs)
    assert not result.failed, wsgi.log()
    return seen[0]


def pieces(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


WAYS = {
    "whole": lambda data: dict(body=data),
    "host's own buffer": lambda data: dict(body=data, host_buffer=True),
    "byte by byte": lambda data: dict(body=pieces(data, 1)[:60]) if len(data) <= 60 else dict(body=data),
    "in sevens": lambda data: dict(body=pieces(data, 7)),
    "unknown length": lambda data: dict(body=pieces(data, 7), length=-1),
}


@pytest.fixture(params=list(WAYS))
def way(request):
    return WAYS[request.param]


@pytest.mark.parametrize(
    "function",
    [
        lambda f: f.read(),
        lambda f: f.read(-1),
        lambda f: f.read(None),
        lambda f: f.read(10**6),
        lambda f: f.read(5),
        lambda f: (f.read(5), f.read(0), f.read(5), f.read()),
        lambda f: (f.read(), f.read(), f.read(3), f.readline(), f.readlines()),
        lambda f: f.readline(),
        lambda f: [f.readline() for _ in range(6)],
        lambda f: [f.readline(3) for _ in range(20)],
        lambda f: f.readline(0),
        lambda f: f.readlines(),
        lambda f: (f.readlines(12), f.read()),
        lambda f: (f.readlines(0), f.read()),
        lambda f: list(f),
        lambda f: (f.read(3), next(iter(f)), f.read()),
        lambda f: (f.readline(), f.read(4), f.readline(), f.read()),
    ],
)
def test_like_a_file(wsgi, way, function):
    assert use(wsgi, function, **way(TEXT)) == function(io.BytesIO(TEXT))


def test_random_reads(wsgi, way):
    numbers = random.Random(7)
    data = bytes(numbers.choice(b"ab\n") for _ in range(400))
    for _ in range(20):
        plan = [(numbers.choice(["read", "readline", "read1"]), numbers.randrange(-1, 30)) for _ in range(60)]

        def function(f):
            return [(name, size, getattr(f, name)(size)) for name, size in plan] + [("", 0, f.read())]

        left = data
        for name, size, got in use(wsgi, function, **way(data)):
            assert left.startswith(got)
            if name == "readline":
                line = left.partition(b"\n")
                line = line[0] + line[1]
                assert got == (line if size < 0 else line[:size])
            elif name == "read":
                assert got == (left if size < 0 else left[:size])
            elif name == "read1":
                assert size < 0 or len(got) <= size
                assert got or size == 0 or not left
            left = left[len(got) :]
        assert left == b""


def test_readinto(wsgi, way):
    def function(f):
        buffers = [bytearray(4), bytearray(100), bytearray(10)]
        return [(f.readinto(b), bytes(b)) for b in buffers]

    assert use(wsgi, function, **way(TEXT)) == function(io.BytesIO(TEXT))


def test_inside_of_io_wrappers(wsgi, way):
    assert use(wsgi, lambda f: io.TextIOWrapper(f, "ascii").read(), **way(TEXT)) == TEXT.decode()
    assert use(wsgi, lambda f: io.BufferedReader(f).read(), **way(TEXT)) == TEXT


def test_host_buffer_is_returned_without_a_copy(wsgi):
    data = b"x" * 100000

    def function(f):
        whole = f.read()
        mine = bytes(3)  # what getrefcount counts by itself differs by version
        others = sys.getrefcount(whole) - sys.getrefcount(mine)
        return whole, others

    whole, others = use(wsgi, function, data, host_buffer=True)
    assert whole == data
    assert others == 1  # the server's
    assert use(wsgi, lambda f: (f.read(1), f.read()), data, host_buffer=True) == (b"x", data[1:])


def test_large_bodies(wsgi):
    data = bytes(range(256)) * 40000  # 10 MB
    parts = pieces(data, 1000000)
    for length in (len(data), -1):
        assert use(wsgi, lambda f: f.read(), body=parts, length=length) == data
        assert use(wsgi, lambda f: f.read(9 * 10**6), body=parts, length=length) == data[: 9 * 10**6]
        assert use(wsgi, lambda f: b"".join(iter(lambda: f.read(65536), b"")), body=parts, length=length) == data


def test_announced_length_allocates_nothing(wsgi):
    """A client that announces 4 EB and sends 5 bytes."""
    with pytest.raises(AssertionError):
        use(wsgi, lambda f: f.read(), body=b"hello", length=1 << 62, body_error=-errno.ECONNRESET)
    assert "MemoryError" not in wsgi.log()


def test_flags_and_harmless_methods(wsgi, way):
    def function(f):
        f.close()
        with f as g:
            assert g is f
        f.flush()
        assert not hasattr(f, "fileno")
        assert iter(f) is f
        return f.readable(), f.writable(), f.seekable(), f.isatty(), f.closed, f.read()

    assert use(wsgi, function, **way(TEXT)) == (True, False, False, False, False, TEXT)


@pytest.mark.parametrize("name", ["read", "readline", "readlines", "read1"])
def test_wrong_arguments(wsgi, name):
    def function(f):
        for arguments in (("x",), (1.5,), (1, 2), ([],)):
            with pytest.raises(TypeError):
                getattr(f, name)(*arguments)
        with pytest.raises(TypeError):
            f.readinto(b"read-only")
        with pytest.raises(AttributeError):
            f.name = 1
        return f.read()

    assert use(wsgi, function, TEXT) == TEXT


@pytest.mark.parametrize(
    "number, exception, words",
    [
        (errno.ECONNRESET, ConnectionResetError, "has left"),
        (errno.ETIMEDOUT, TimeoutError, "too slowly"),
        (errno.EPROTO, OSError, "malformed"),
        (errno.EIO, OSError, "cannot be read"),
    ],
)
def test_errors(wsgi, number, exception, words):
    def function(f):
        got = f.read(3)
        with pytest.raises(exception, match=words) as info:
            f.read()
        assert info.value.errno == number
        return got

    assert use(wsgi, function, b"abcdef", length=100, body_error=-number) == b"abc"


def test_leaving_client_is_no_news(wsgi):
    def application(environ, start_response):
        environ["wsgi.input"].read()

    result = wsgi.call(application, POST, b"abc", length=10, body_error=-errno.ECONNRESET)
    assert result.failed
    assert "Traceback" not in wsgi.log()
    assert "debug" in wsgi.log().lower()


def test_empty_input_is_shared_and_cannot_be_changed(wsgi):
    kept = []

    def application(environ, start_response):
        f = environ["wsgi.input"]
        kept.append(f)
        assert (f.read(), f.read(5), f.readline(), f.readlines(), list(f), f.readinto(bytearray(3))) == (
            b"", b"", b"", [], [], 0
        )
        start_response("200 OK", [])
        return []

    host = wsgi.host(application)
    for _ in range(2):
        assert not wsgi.core.request(host, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")[3], wsgi.log()
    assert kept[0] is kept[1]
    assert kept[0].read() == b""


@pytest.mark.parametrize("read_first", [0, 4])
def test_kept_input_has_its_own_copy(wsgi, way, read_first):
    kept = []

    def function(f):
        kept.append(f)
        f.read(read_first)

    data = TEXT[:40]
    arguments = way(data)
    complete = len(arguments["body"]) == 1 or isinstance(arguments["body"], bytes)
    use(wsgi, function, **arguments)
    if complete:
        assert kept[0].readline() == data[read_first:].partition(b"\n")[0] + b"\n"
        assert kept[0].read() == data.partition(b"\n")[2]
        assert kept[0].read() == b""
    else:
        with pytest.raises(ValueError, match="after its request has ended"):
            kept[0].read()
        with pytest.raises(ValueError):
            kept[0].readinto(bytearray(3))


def test_kept_input_read_to_its_end_stays_at_it(wsgi):
    kept = []
    use(wsgi, lambda f: (kept.append(f), f.read()), TEXT)
    assert kept[0].read() == b""


def test_kept_input_that_is_too_large(wsgi):
    kept = []
    use(wsgi, kept.append, b"x" * (1024 * 1024 + 1))
    with pytest.raises(ValueError, match="no longer there"):
        kept[0].read(1)
    use(wsgi, kept.append, b"x" * (1024 * 1024))
    assert len(kept[1].read()) == 1024 * 1024


def test_a_thread_of_the_application_may_read(wsgi):
    def function(f):
        got = []
        thread = threading.Thread(target=lambda: got.append(f.read()))
        thread.start()
        thread.join()
        return got[0]

    assert use(wsgi, function, body=pieces(TEXT, 7)) == TEXT
