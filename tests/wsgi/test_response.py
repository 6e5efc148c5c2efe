"""start_response, write(), blocks, close() and mistakes of applications."""
import collections
import gzip
import io
import sys
import tempfile
import threading
import traceback

import pytest

pytestmark = pytest.mark.smoke

HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
END, FLUSH = 1, 2


def answer(result, status="200 OK", headers=()):
    def application(environ, start_response):
        start_response(status, list(headers))
        return result() if callable(result) else result

    return application


def fields(result):
    lines = result.head.decode("latin-1").split("\r\n")
    return [tuple(line.split(": ", 1)) for line in lines[1:] if line]


# ---- lists, tuples, generators


@pytest.mark.parametrize("result", [[b"hello"], (b"hello",)])
def test_one_block_is_one_write_that_ends(wsgi, result):
    got = wsgi.call(answer(result, headers=[("X-A", "1")]))
    assert got.head.startswith(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n")
    assert got.body == b"hello"
    assert got.writes == [(5, END, False)]
    assert ("Content-Length", "5") in fields(got)


@pytest.mark.parametrize("result", [[], (), [b""], [b"", b""], lambda: iter([]), lambda: iter([b"", b""])])
def test_no_body_has_length_zero(wsgi, result):
    got = wsgi.call(answer(result))
    assert (got.body, got.writes) == (b"", [(0, END, False)])
    assert ("Content-Length", "0") in fields(got)
    assert not got.failed


def test_small_blocks_of_a_list_are_joined(wsgi):
    got = wsgi.call(answer([b"a", b"", b"bc", b"def"]))
    assert (got.body, got.writes) == (b"abcdef", [(6, END, False)])
    assert ("Content-Length", "6") in fields(got)


@pytest.mark.parametrize("kind", [list, tuple])
def test_large_lists_have_a_length_and_few_writes(wsgi, kind):
    blocks = [b"%d" % (n % 10) * size for n, size in enumerate([10, 70000, 5, 6, 7, 0, 20000] * 3 + [1000] * 90)]
    got = wsgi.call(answer(kind(blocks)))
    assert got.body == b"".join(blocks)
    assert ("Content-Length", str(len(got.body))) in fields(got)
    assert len(got.writes) < 15
    assert got.ended and not got.failed
    assert [flags for _, flags, _ in got.writes] == [0] * (len(got.writes) - 1) + [END]


def test_given_length_is_not_given_twice(wsgi):
    blocks = [b"x" * 50000] * 2
    got = wsgi.call(answer(blocks, headers=[("Content-Length", "100000")]))
    assert [name for name, _ in fields(got)].count("Content-Length") == 1


def test_no_length_for_304(wsgi):
    got = wsgi.call(answer([b"x" * 50000] * 2, "304 Not Modified"))
    assert "Content-Length" not in dict(fields(got))


def test_generator_blocks_leave_in_order(wsgi):
    order = []

    def blocks():
        for n in range(3):
            order.append(n)
            yield b"%d" % n

    got = wsgi.call(answer(blocks))
    assert got.body == b"012"
    assert [size for size, _, _ in got.writes] == [1, 1, 1, 0]
    assert got.writes[0][1] == FLUSH
    assert got.writes[-1] == (0, END, False)
    assert "Content-Length" not in dict(fields(got))


def test_a_late_block_is_flushed(wsgi):
    import time

    def blocks():
        yield b"1"
        time.sleep(0.002)
        yield b"2"

    assert [flags for _, flags, _ in wsgi.call(answer(blocks)).writes[:2]] == [FLUSH, FLUSH]


def test_head_waits_for_the_first_block(wsgi):
    """The generator may still replace the head while it has sent empty blocks only."""

    def application(environ, start_response):
        start_response("200 OK", [("X-A", "1")])
        yield b""
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oops", [("X-B", "2")], sys.exc_info())
        yield b"sorry"

    got = wsgi.call(application)
    assert got.head.startswith(b"HTTP/1.1 500 Oops\r\nX-B: 2\r\nDate")
    assert got.body == b"sorry"


def test_start_response_inside_of_a_generator(wsgi):
    def application(environ, start_response):
        start_response("201 Created", [])
        yield b"late"

    assert wsgi.call(application).head.startswith(b"HTTP/1.1 201 Created\r\n")


class Sized:
    def __init__(self, length, blocks):
        self.length, self.blocks, self.closed = length, blocks, 0

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter(self.blocks)

    def close(self):
        self.closed += 1


def test_len_one_gives_a_length(wsgi):
    body = Sized(1, [b"abc"])
    got = wsgi.call(answer(body))
    assert got.writes == [(3, END, False)]
    assert body.closed == 1


@pytest.mark.parametrize("blocks", [[], [b""], [b"a", b"b"], [b"a", b"b", b"c"]])
def test_len_one_that_is_not_true(wsgi, blocks):
    got = wsgi.call(answer(Sized(1, blocks)))
    assert got.body == b"".join(blocks)
    assert got.ended and not got.failed


def test_subclasses_of_list_are_iterated(wsgi):
    class Odd(list):
        def __iter__(self):
            return iter([b"x", b"y"])

    assert wsgi.call(answer(Odd([b"never"]))).body == b"xy"


def test_head_request_stops_after_the_first_block(wsgi):
    taken = []

    def blocks():
        for n in range(10):
            taken.append(n)
            yield b"x"

    got = wsgi.call(answer(blocks), HEAD)
    assert got.ended and not got.failed
    assert taken == [0]


def test_slow_reader_is_waited_for(wsgi):
    got = wsgi.call(answer(lambda: iter([b"a", b"b"])), slow_reader=True)
    assert got.body == b"ab"
    assert got.waits == 3


# ---- close()


class Body:
    def __init__(self, blocks, fail_close=False):
        self.iter, self.closed, self.fail_close = iter(blocks), 0, fail_close

    def __iter__(self):
        return self

    def __next__(self):
        block = next(self.iter)
        if isinstance(block, BaseException):
            raise block
        return block

    def close(self):
        self.closed += 1
        if self.fail_close:
            raise KeyError("in close")


@pytest.mark.parametrize(
    "blocks, arguments",
    [
        ([b"a"], {}),
        ([], {}),
        ([ValueError("x")], {}),
        ([b"a", ValueError("x")], {}),
        ([b"a", "text"], {}),
        ([b"a", b"b"], {"gone_after": 0}),
        ([b"a", b"b"], {"gone_after": 1}),
        ([b"a", b"b", b"c"], {"head": HEAD}),
    ],
)
def test_close_is_called_once(wsgi, blocks, arguments):
    body = Body(blocks)
    wsgi.call(answer(body), **arguments)
    assert body.closed == 1


def test_exception_in_close_is_logged(wsgi):
    got = wsgi.call(answer(Body([b"a"], fail_close=True)))
    assert got.ended and not got.failed
    assert "KeyError: 'in close'" in wsgi.log()
    assert "GET /path?x=1" in wsgi.log()


def test_leaving_client_ends_the_generator_without_noise(wsgi):
    ended = []

    def blocks():
        try:
            while True:
                yield b"x" * 1000
        finally:
            ended.append(1)

    wsgi.call(answer(blocks), gone_after=3)
    assert ended == [1]
    assert "rror" not in wsgi.log()


# ---- start_response


@pytest.mark.parametrize(
    "status, words",
    [
        (200, "status must be a str like '200 OK', got int 200"),
        (b"200 OK", "got bytes b'200 OK'"),
        (None, "got NoneType None"),
        ("OK", "three digits, a space and a reason"),
        ("200OK", "three digits"),
        ("20", "three digits"),
        ("", "three digits"),
        ("2x0 OK", "three digits"),
        ("999 Odd", "within 200..599"),
        ("100 Continue", "within 200..599"),
        ("200 O\nK", "free of control characters"),
        ("200 \u20ac", "outside latin-1 (U+20AC at 4)"),
    ],
)
def test_wrong_status(wsgi, status, words):
    got = wsgi.call(answer([b"x"], status))
    assert got.failed and got.writes == []
    assert words in wsgi.log()


@pytest.mark.parametrize("status", ["200 OK", "200  ", "404 Nicht gefunden \xfc", "599 X"])
def test_status_goes_out_as_given(wsgi, status):
    got = wsgi.call(answer([b"x"], status))
    assert got.head.split(b"\r\n")[0] == b"HTTP/1.1 " + status.encode("latin-1")


def test_bare_status_gets_its_phrase(wsgi):
    for status in ("404", "404 "):
        assert wsgi.call(answer([b"x"], status)).head.startswith(b"HTTP/1.1 404 Not Found\r\n")


@pytest.mark.parametrize(
    "headers, words",
    [
        ((("A", "b"),), "headers must be a list of (str, str) tuples, got tuple"),
        ({"A": "b"}, "got dict"),
        (None, "got NoneType None"),
        ([["A", "b"]], "each header must be a (str, str) tuple, got list ['A', 'b']"),
        ([("A",)], "got tuple ('A',)"),
        ([("A", "b", "c")], "got tuple"),
        ([("A", 5)], "the value of header 'A' must be a str, got int 5"),
        ([("A", b"b")], "must be a str, got bytes b'b'"),
        ([(b"A", "b")], "the name of header b'A' must be a str, got bytes b'A'"),
        ([("A", "b\r\nX: y")], "header 'A': its value has a line break"),
        ([("A", "b\0")], "control character"),
        ([("A b", "c")], "header 'A b': its name is not a token"),
        ([("", "c")], "not a token"),
        ([("A", "\u20ac")], "the value of header 'A' has a character outside latin-1 (U+20AC at 0)"),
        ([("\u20ac", "x")], "the name of header"),
        ([("Connection", "close")], "header 'Connection': it is hop-by-hop"),
        ([("Content-Length", "x")], "header 'Content-Length': its value is not a number"),
        ([("Content-Length", "1"), ("content-length", "2")], "differs from an earlier one"),
        ([("A", "x" * 70000)], "over 64 KiB"),
    ],
)
def test_wrong_headers(wsgi, headers, words):
    def application(environ, start_response):
        start_response("200 OK", headers)
        return [b"x"]

    got = wsgi.call(application)
    assert got.failed and got.writes == []
    assert words in wsgi.log()


def test_str_subclasses_are_fine(wsgi):
    class Text(str):
        pass

    got = wsgi.call(answer([b"x"], Text("200 OK"), [(Text("X-A"), Text("\xfc"))]))
    assert b"X-A: \xfc\r\n" in got.head


def test_keywords(wsgi):
    def application(environ, start_response):
        start_response("200 OK", headers=[("X-A", "1")], exc_info=None)
        start_response(status="404 No", headers=[], exc_info=(None, None, None))
        for arguments, keywords in (((), {}), (("200 OK",), {}), (("200 OK", [], None, 1), {}),
                                    (("200 OK", []), {"status": "x"}), (("200 OK", []), {"odd": 1})):
            with pytest.raises(TypeError):
                start_response(*arguments, **keywords)
        return [b"x"]

    got = wsgi.call(application)
    assert got.head.startswith(b"HTTP/1.1 404 No\r\nDate"), wsgi.log()


def test_second_call_without_exc_info(wsgi):
    def application(environ, start_response):
        start_response("200 OK", [])
        start_response("200 OK", [])
        return [b"x"]

    assert wsgi.call(application).failed
    assert "AssertionError: start_response was called a second time without exc_info" in wsgi.log()


def test_failed_call_can_be_repeated(wsgi):
    def application(environ, start_response):
        with pytest.raises(TypeError):
            start_response("200 OK", [("A", "1"), ("B", 2)])
        start_response("200 OK", [("C", "3")])
        return [b"x"]

    got = wsgi.call(application)
    assert not got.failed
    assert b"A: 1" not in got.head and b"C: 3" in got.head


def test_failed_call_is_no_call(wsgi):
    def application(environ, start_response):
        with pytest.raises(TypeError):
            start_response("200 OK", [("B", 2)])
        return [b"x"]

    assert wsgi.call(application).failed
    assert "before start_response had been called" in wsgi.log()


def test_exc_info_after_the_head_is_raised_again(wsgi):
    def application(environ, start_response):
        start_response("200 OK", [])
        yield b"begun"
        try:
            raise LookupError("the cause")
        except LookupError:
            start_response("500 Oops", [], sys.exc_info())

    got = wsgi.call(application)
    assert got.failed
    assert got.body == b"begun"
    assert "LookupError: the cause" in wsgi.log()
    assert 'raise LookupError("the cause")' in wsgi.log()


def test_exc_info_that_is_none(wsgi):
    def application(environ, start_response):
        start_response("200 OK", [])
        yield b"begun"
        start_response("500 Oops", [], exc)

    for exc, words in (((None, None, None), "it cannot be replaced"), ("odd", "the tuple of sys.exc_info(), got str")):
        assert wsgi.call(application).failed
        assert words in wsgi.log()


def test_write(wsgi):
    def application(environ, start_response):
        write = start_response("200 OK", [])
        write(b"one ")
        write(b"")
        write(b"two ")
        return [b"three"]

    got = wsgi.call(application)
    assert got.body == b"one two three"
    assert got.writes == [(4, FLUSH, False), (4, FLUSH, False), (5, END, False)]


@pytest.mark.parametrize("result", [[], None, lambda: iter([b"x", b"y"])])
def test_write_and_other_results(wsgi, result):
    def application(environ, start_response):
        start_response("200 OK", [])(b"w")
        return result() if callable(result) else result

    got = wsgi.call(application)
    assert got.body[:1] == b"w"
    assert got.failed == (result is None)


def test_write_mistakes(wsgi):
    def application(environ, start_response):
        write = start_response("200 OK", [])
        for argument in ("text", None, 5, bytearray(b"x")):
            with pytest.raises(TypeError, match="data must be bytes, got " + type(argument).__name__):
                write(argument)
        with pytest.raises(TypeError):
            write()
        with pytest.raises(TypeError):
            write(b"a", b"b")
        return [b"x"]

    assert not wsgi.call(application).failed, wsgi.log()


def test_write_to_a_client_that_has_left(wsgi):
    def application(environ, start_response):
        write = start_response("200 OK", [])
        with pytest.raises(BrokenPipeError):
            for _ in range(10):
                write(b"x")
        write(b"x")

    got = wsgi.call(application, gone_after=2)
    assert len(got.writes) == 2
    assert "Traceback" not in wsgi.log()


def test_objects_kept_beyond_the_request(wsgi):
    kept = []

    def application(environ, start_response):
        kept.append(start_response)
        kept.append(start_response("200 OK", []))
        return [b"x"]

    host = wsgi.host(application)
    for _ in range(3):
        assert not wsgi.core.request(host, HEAD)[3]
    assert len(set(map(id, kept))) == 6
    for start, write in zip(kept[::2], kept[1::2]):
        with pytest.raises(RuntimeError, match="after its request had ended"):
            start("200 OK", [])
        with pytest.raises(RuntimeError, match="after its request had ended"):
            write(b"x")


def test_other_threads_may_not_answer(wsgi):
    def application(environ, start_response):
        errors = []

        def work():
            for call in (lambda: start_response("200 OK", []), lambda: write(b"x")):
                try:
                    call()
                except RuntimeError as error:
                    errors.append(str(error))

        write = start_response("200 OK", [])
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return ["\n".join(errors).encode()]

    assert wsgi.call(application).body.count(b"in another thread than its request's") == 2


# ---- lengths


def test_body_beyond_its_length_is_cut(wsgi):
    taken = []

    def blocks():
        for n in range(100):
            taken.append(n)
            yield b"xxx"

    got = wsgi.call(answer(blocks, headers=[("Content-Length", "5")]))
    assert got.body == b"xxxxx"
    assert got.ended and not got.failed
    assert len(taken) == 2
    assert wsgi.log().count("longer than its Content-Length of 5") == 1


def test_body_below_its_length_is_logged(wsgi):
    got = wsgi.call(answer([b"abc"], headers=[("Content-Length", "5")]))
    assert got.body == b"abc"
    assert "shorter than its Content-Length (3 of 5 bytes)" in wsgi.log()


@pytest.mark.parametrize("status, head", [("200 OK", HEAD), ("304 Not Modified", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")])
def test_no_complaint_where_no_body_is_due(wsgi, status, head):
    wsgi.call(answer([], status, [("Content-Length", "5")]), head)
    assert wsgi.log() == ""


# ---- results that are none


@pytest.mark.parametrize(
    "result, words",
    [
        (None, "the application returned None, where WSGI wants an iterable of bytes; is a return statement missing?"),
        (b"hello", "the application returned a bytes (b'hello')"),
        ("hello", "the application returned a str ('hello'), where WSGI wants an iterable of bytes: return [body], encoded"),
        (5, "an object of type int, which is not iterable"),
        (["text"], "a block of type str ('text'); WSGI sends bytes: encode it"),
        ([b"a", "text"], "a block of type str"),
        ([b"a", 5], "a block of type int (5), where WSGI wants bytes"),
        (lambda: iter(["text"]), "a block of type str"),
        (lambda: iter([b"", None]), "a block of type NoneType"),
        ({"a": 1}, "a block of type str ('a')"),
        ([bytearray(b"x")], "a block of type bytearray"),
    ],
)
def test_wrong_results(wsgi, result, words):
    got = wsgi.call(answer(result))
    assert got.failed and got.writes == []
    assert words in wsgi.log()
    assert "GET /path?x=1: unhandled exception in the application" in wsgi.log()


def test_without_start_response(wsgi):
    assert wsgi.call(lambda environ, start_response: [b"x"]).failed
    assert "before start_response had been called" in wsgi.log()


# ---- exceptions


@pytest.mark.parametrize(
    "exception", [ValueError("boom"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), RecursionError("deep"), MemoryError()]
)
def test_no_exception_ends_the_server(wsgi, exception):
    def application(environ, start_response):
        raise exception

    got = wsgi.call(application)
    assert got.failed
    assert type(exception).__name__ in wsgi.log()
    assert "Traceback (most recent call last)" in wsgi.log()
    assert not wsgi.call(answer([b"next"])).failed


def test_chained_exceptions_are_shown(wsgi):
    def application(environ, start_response):
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("outer") from error

    wsgi.call(application)
    assert "KeyError: 'missing'" in wsgi.log()
    assert "direct cause" in wsgi.log()
    assert "ValueError: outer" in wsgi.log()


def test_exception_that_cannot_be_shown(wsgi):
    class Odd(Exception):
        def __str__(self):
            raise RuntimeError("no")

    def application(environ, start_response):
        raise Odd

    assert wsgi.call(application).failed
    assert "Odd" in wsgi.log()


def test_endless_recursion(wsgi):
    def application(environ, start_response):
        return application(environ, start_response)

    assert wsgi.call(application).failed
    assert "RecursionError" in wsgi.log()


# ---- wsgi.errors


def test_errors_stream(wsgi):
    def application(environ, start_response):
        errors = environ["wsgi.errors"]
        assert errors.write("one\ntwo ") == 8
        print("and", "three", file=errors)
        errors.writelines(["four\n", "five", "\n"])
        try:
            raise ValueError("shown")
        except ValueError:
            traceback.print_exc(file=errors)
        errors.write("umlaut \xfc and \u20ac, surrogate \udc80\n")
        with pytest.raises(TypeError):
            errors.writelines(["fine\n", 5])
        errors.write("no end")
        errors.flush()
        errors.write("the end of the request ends it")
        for wrong in (b"bytes", None, 5):
            with pytest.raises(TypeError, match="takes a str, got"):
                errors.write(wrong)
        assert (errors.isatty(), errors.writable(), errors.readable(), errors.closed) == (False, True, False, False)
        errors.close()
        start_response("200 OK", [])
        return []

    got = wsgi.call(application)
    assert not got.failed, wsgi.log()
    lines = [line.split("] ")[-1] for line in wsgi.log().splitlines()]
    text = wsgi.log()
    for expected in ("one", "two and three", "four", "five", "ValueError: shown", "no end",
                     "the end of the request ends it"):
        assert any(line.endswith(expected) for line in lines), (expected, text)
    assert "\xfc and \u20ac" in text
    assert "\\udc80" in text


def test_errors_stream_is_bounded(wsgi):
    def application(environ, start_response):
        for _ in range(100):
            environ["wsgi.errors"].write("x" * 10000)
        start_response("200 OK", [])
        return []

    wsgi.call(application)
    assert wsgi.log().count("x") >= 1000000


# ---- wsgi.file_wrapper


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(range(256)) * 100)
    return path


def wrapped(opener, headers=(), seen=None):
    def application(environ, start_response):
        start_response("200 OK", list(headers))
        f = opener()
        if seen is not None:
            seen.append(f)
        return environ["wsgi.file_wrapper"](f, 1000)

    return application


def test_file_is_sent_by_descriptor_and_closed(wsgi, file):
    seen = []
    got = wsgi.call(wrapped(lambda: open(file, "rb"), seen=seen))
    assert got.body == file.read_bytes()
    assert got.writes == [(25600, END, True)]
    assert seen[0].closed
    assert ("Content-Length", "25600") in fields(got)


@pytest.mark.parametrize("buffering", [0, -1])
def test_file_from_its_logical_position(wsgi, file, buffering):
    def opener():
        f = open(file, "rb", buffering)
        f.seek(100)
        f.read(11)
        return f

    got = wsgi.call(wrapped(opener))
    assert got.body == file.read_bytes()[111:]
    assert got.writes[0][2]


def test_file_up_to_its_content_length(wsgi, file):
    got = wsgi.call(wrapped(lambda: open(file, "rb"), [("Content-Length", "10")]))
    assert got.body == file.read_bytes()[:10]
    assert got.writes == [(10, END, True)]
    assert wsgi.log() == ""


def test_file_at_its_end(wsgi, file):
    def opener():
        f = open(file, "rb")
        f.read()
        return f

    got = wsgi.call(wrapped(opener))
    assert (got.body, got.writes) == (b"", [(0, END, False)])


def test_written_file_is_flushed(wsgi, file):
    def opener():
        f = open(file, "r+b")
        f.write(b"changed")
        f.seek(0)
        return f

    assert wsgi.call(wrapped(opener)).body.startswith(b"changed\x07")


def test_temporary_files_are_sent_by_descriptor(wsgi):
    def opener(kind):
        f = kind()
        f.write(b"temporary")
        f.seek(0)
        return f

    for kind in (tempfile.TemporaryFile, tempfile.NamedTemporaryFile):
        got = wsgi.call(wrapped(lambda kind=kind: opener(kind)))
        assert got.body == b"temporary"
        assert got.writes[0][2]


def test_what_is_no_plain_file_is_read(wsgi, file, tmp_path):
    packed = tmp_path / "x.gz"
    packed.write_bytes(gzip.compress(b"unpacked" * 300))
    Odd = collections.namedtuple("Odd", "read")
    for opener, body in (
        (lambda: gzip.open(packed), b"unpacked" * 300),
        (lambda: io.BytesIO(b"memory" * 300), b"memory" * 300),
        (lambda: Odd(io.BytesIO(b"read only").read), b"read only"),
    ):
        got = wsgi.call(wrapped(opener))
        assert got.body == body
        assert not any(is_file for _, _, is_file in got.writes)
        assert not got.failed


def test_text_file_is_a_mistake(wsgi, file):
    file.write_text("text")
    assert wsgi.call(wrapped(lambda: open(file))).failed
    assert "a block of type str" in wsgi.log()


def test_closed_file_is_a_mistake(wsgi, file):
    def opener():
        f = open(file, "rb")
        f.close()
        return f

    assert wsgi.call(wrapped(opener)).failed
    assert "ValueError" in wsgi.log()


def test_wrapper_inside_of_other_iterables(wsgi, file):
    def application(environ, start_response):
        start_response("200 OK", [])
        wrapper = environ["wsgi.file_wrapper"](open(file, "rb"))
        assert wrapper.blksize == 8192
        yield from wrapper
        wrapper.close()

    assert wsgi.call(application).body == file.read_bytes()


def test_wrapper_arguments(core):
    for arguments in ((), (1, 2, 3), (1, "x")):
        with pytest.raises(TypeError):
            core.FileWrapper(*arguments)
    wrapper = core.FileWrapper(filelike=io.BytesIO(b"abc"), blksize=2)
    assert list(wrapper) == [b"ab", b"c"]
    core.FileWrapper(object()).close()


# ---- forks


def test_child_of_a_request_ends_itself(wsgi):
    import os

    def application(environ, start_response):
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            start_response("200 OK", [])
            return [b"parent: %d" % os.WEXITSTATUS(status)]
        return [b"child"]

    assert wsgi.call(application).body == b"parent: 1"
    assert "returned to the server and was ended" in wsgi.log()


@pytest.mark.parametrize("raised, code", [("SystemExit(7)", 7), ("SystemExit()", 0), ("ValueError('x')", 1)])
def test_child_that_raises(wsgi, raised, code):
    import os

    def application(environ, start_response):
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            start_response("200 OK", [])
            return [b"parent: %d" % os.WEXITSTATUS(status)]
        raise eval(raised)

    assert wsgi.call(application).body == b"parent: %d" % code


def test_child_may_not_answer(wsgi):
    import os

    def application(environ, start_response):
        write = start_response("200 OK", [])
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            return [b"%d" % os.WEXITSTATUS(status)]
        refused = 0
        for call in (lambda: write(b"x"), lambda: environ["wsgi.input"].read(),
                     lambda: start_response("200 OK", [], (None, None, None))):
            try:
                call()
            except RuntimeError as error:
                refused += "forked process" in str(error)
        os._exit(refused)

    assert wsgi.call(application, b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", b"abc").body == b"3"


# ---- heads that come again -----------------------------------------------------------------------

PLAIN = ("Content-Type", "text/plain")
SIZED = ("Content-Length", "2")


def ask(wsgi, host, head=None):
    result = wsgi.core.request(host, head or b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", [], 0)
    assert not result[3], wsgi.log()
    return result[0], result[1]


def expected_head(status, headers, body):
    lines = ["HTTP/1.1 " + status] + ["%s: %s" % pair for pair in headers]
    lines += ["Date: Thu, 01 Jan 1970 00:00:00 GMT", "Server: stoker"]
    if not any(name == "Content-Length" for name, _ in headers):
        lines.append("Content-Length: %d" % len(body))
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def test_heads_of_the_same_objects_and_of_others(wsgi):
    heads = [
        ("200 OK", [PLAIN]),
        ("200 OK", [PLAIN, SIZED]),
        ("200 OK", [SIZED, PLAIN]),
        ("200 OK", []),
        ("404 Not Found", [PLAIN]),
        ("404 Not Found", [("X-%d" % i, str(i)) for i in range(40)]),
        ("200 OK", [("X-Long", "x" * 2000)]),
        ("200 OK", [PLAIN] * 12),
        ("200 OK", [PLAIN] * 13),
    ]
    current = []

    def application(environ, start_response):
        status, headers = current[0]
        start_response(status, list(headers))
        return [b"ok"]

    host = wsgi.host(application)
    for turn in range(60):
        for status, headers in heads:
            if turn % 3 == 1:  # equal, but other objects
                headers = [(name + "", "".join(list(value))) for name, value in headers]
            current[:] = [(status, headers)]
            assert ask(wsgi, host) == (expected_head(status, headers, b"ok"), b"ok")


def test_a_list_that_is_used_again_may_have_changed(wsgi):
    headers = [PLAIN]

    def application(environ, start_response):
        start_response("200 OK", headers)
        return [b"ok"]

    host = wsgi.host(application)
    for i in range(100):
        headers[:] = [PLAIN, ("X-I", str(i)), PLAIN]
        assert ask(wsgi, host)[0] == expected_head("200 OK", headers, b"ok")
        headers.pop()
        assert ask(wsgi, host)[0] == expected_head("200 OK", headers, b"ok")


def test_pairs_that_can_change_are_not_remembered(wsgi):
    class Text(str):
        pass

    class Pair(tuple):
        pass

    made = [Text("X-A"), Pair(("X-B", "1"))]

    def application(environ, start_response):
        start_response(Text("200 OK"), [(made[0], "1"), made[1]])
        return [b"ok"]

    host = wsgi.host(application)
    before = [sys.getrefcount(thing) for thing in made]
    for _ in range(5):
        assert ask(wsgi, host)[0] == expected_head("200 OK", [("X-A", "1"), ("X-B", "1")], b"ok")
    assert [sys.getrefcount(thing) for thing in made] == before


def test_a_known_head_replaces_another_and_cannot_come_twice(wsgi):
    errors = []

    def application(environ, start_response):
        start_response("200 OK", [PLAIN, SIZED])
        try:
            start_response("200 OK", [PLAIN, SIZED])
        except AssertionError as error:
            errors.append(error)
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oh", [PLAIN], sys.exc_info())
        return [b"failed"]

    host = wsgi.host(application)
    for _ in range(3):
        assert ask(wsgi, host) == (expected_head("500 Oh", [PLAIN], b"failed"), b"failed")
    assert len(errors) == 3


def test_a_known_head_keeps_its_length(wsgi):
    def application(environ, start_response):
        start_response("200 OK", [PLAIN, SIZED])
        return [b"okay"]

    host = wsgi.host(application)
    for _ in range(3):
        assert ask(wsgi, host)[1] == b"ok"
    assert wsgi.log().count("longer than its Content-Length of 2") == 3
