"""start_response, write() and the mistakes that applications make with them: PEP 3333."""

import pytest

from tests.front.raw import SECOND, get

# Each view stands for one rule; the test beside it says what a client and the log must show.
APP = r'''
import sys

TEXT = ("Content-Type", "text/plain")


def ok(environ, start_response):
    start_response("200 OK", [TEXT])
    return [b"ok"]


def twice(environ, start_response):
    start_response("200 OK", [TEXT])
    start_response("201 Created", [TEXT])
    return [b"never"]


def replaced(environ, start_response):
    start_response("200 OK", [("X-First", "1")])
    try:
        raise ValueError("the reason")
    except ValueError:
        start_response("503 Later", [("X-Second", "2")], sys.exc_info())
    return [b"replaced"]


def replaced_three_times(environ, start_response):
    for number in range(4):
        try:
            raise ValueError(number)
        except ValueError:
            start_response("50%d X" % number, [("X-Number", str(number))], sys.exc_info())
    return [b"replaced"]


def exc_info_first(environ, start_response):
    try:
        raise ValueError("the reason")
    except ValueError:
        start_response("500 Oh", [TEXT], sys.exc_info())
    return [b"handled"]


def exc_info_too_late(environ, start_response):
    start_response("200 OK", [TEXT])
    yield b"first block\n"
    try:
        raise ValueError("raised too late")
    except ValueError:
        start_response("500 Oh", [TEXT], sys.exc_info())
    yield b"never"


def exc_info_after_write(environ, start_response):
    write = start_response("200 OK", [TEXT])
    write(b"written\n")
    try:
        raise ValueError("raised after write")
    except ValueError:
        start_response("500 Oh", [TEXT], sys.exc_info())
    return [b"never"]


def exc_info_is_none(environ, start_response):
    start_response("200 OK", [TEXT], None)
    return [b"ok"]


def by_keyword(environ, start_response):
    start_response(status="202 Accepted", headers=[TEXT], exc_info=None)
    return [b"ok"]


def never(environ, start_response):
    return [b"no head"]


def never_and_empty(environ, start_response):
    return []


def never_generator(environ, start_response):
    yield b"no head"


def in_the_iterator(environ, start_response):
    def blocks():
        start_response("200 OK", [TEXT])
        yield b"late"

    return blocks()


def after_an_empty_block(environ, start_response):
    yield b""
    start_response("200 OK", [TEXT])
    yield b""
    yield b"late"


def status(environ, start_response):
    start_response(eval(environ["HTTP_EVAL"]), [TEXT])
    return [b"ok"]


def headers(environ, start_response):
    start_response("200 OK", eval(environ["HTTP_EVAL"]))
    return [b"ok"]


def written(environ, start_response):
    write = start_response("200 OK", [TEXT])
    write(b"a")
    write(b"")
    write(b"bc")
    return [b"d", b"e"]


def written_only(environ, start_response):
    write = start_response("200 OK", [TEXT, ("Content-Length", "3")])
    write(b"abc")
    return []


def write_wrong(environ, start_response):
    write = start_response("200 OK", [TEXT])
    write(eval(environ["HTTP_EVAL"]))
    return []


def write_kept(environ, start_response):
    global kept
    kept = start_response("200 OK", [TEXT])
    return [b"ok"]


def write_from_another_request(environ, start_response):
    start_response("200 OK", [TEXT])
    try:
        kept(b"into the wrong response")
    except Exception as error:
        return [type(error).__name__.encode()]
    return [b"it took it"]


def start_kept(environ, start_response):
    global kept_start
    kept_start = start_response
    start_response("200 OK", [TEXT])
    return [b"ok"]


def start_from_another_request(environ, start_response):
    start_response("200 OK", [TEXT])
    try:
        kept_start("500 Wrong", [])
    except Exception as error:
        return [type(error).__name__.encode()]
    return [b"it took it"]


def list_kept(environ, start_response):
    fields = [TEXT]
    start_response("200 OK", fields)
    fields.append(("X-Late", "1"))
    return [b"ok"]


def app(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)
'''


@pytest.fixture(scope="module", params=["-t1", "-t3"])
def server(request, serve_module):
    return serve_module(APP, "-w1", request.param, ready="/ok")


def ask(server, view, text=None, fields=""):
    if text is not None:
        fields += "Eval: %s\r\n" % text
    return server.send_raw(get(fields, "/" + view) + get("", "/ok"), expect=2)


def check_500(server, view, text=None, log=None):
    """A plain 500, a word in the log, and the connection goes on."""
    first, second = ask(server, view, text)
    assert (first.status, second.body) == (500, b"ok")
    assert b"Traceback" not in first.body
    if log:
        server.wait_log(log)
    return first


def test_a_second_call_is_an_error(server):
    check_500(server, "twice", log="start_response was called a second time without exc_info")


def test_the_head_can_be_replaced_before_it_is_sent(server):
    first, _ = ask(server, "replaced")
    assert (first.status, first.reason, first.body) == (503, "Later", b"replaced")
    assert first.header("x-first") is None and first.header("x-second") == "2"
    first, _ = ask(server, "replaced_three_times")
    assert first.status == 503 and first.all("x-number") == ["3"]
    first, _ = ask(server, "exc_info_first")
    assert (first.status, first.body) == (500, b"handled")


@pytest.mark.parametrize("view, block", [("exc_info_too_late", b"first block\n"), ("exc_info_after_write", b"written\n")])
def test_the_head_cannot_be_replaced_after_it_is_sent(server, view, block):
    """The exception goes on; the client sees a response without its end."""
    with server.connect() as conn:
        conn.send(get("", "/" + view))
        head = conn.read_head()
        assert head.status == 200
        rest = conn.read_to_end()
    assert block in rest and b"never" not in rest
    assert not rest.endswith(b"0\r\n\r\n")
    server.wait_log("ValueError: raised (too late|after write)")
    assert server.get("/ok").status == 200


@pytest.mark.parametrize("view, status", [("exc_info_is_none", 200), ("by_keyword", 202)])
def test_other_ways_to_call_it(server, view, status):
    first, _ = ask(server, view)
    assert (first.status, first.body) == (status, b"ok")


@pytest.mark.parametrize("view", ["never", "never_and_empty", "never_generator"])
def test_it_must_be_called(server, view):
    check_500(server, view, log="start_response")


@pytest.mark.parametrize("view", ["in_the_iterator", "after_an_empty_block"])
def test_it_may_be_called_before_the_first_block_only(server, view):
    first, _ = ask(server, view)
    assert (first.status, first.body) == (200, b"late")


GOOD_STATUSES = [
    ("'200 OK'", 200, "OK"),
    ("'404 Not Found'", 404, "Not Found"),
    ("'299 Own'", 299, "Own"),
    ("'599 Own'", 599, "Own"),
    ("'200 With many words, signs & \\xe9'", 200, "With many words, signs & \xe9"),
    ("'418 I\\'m a teapot'", 418, "I'm a teapot"),
]


@pytest.mark.parametrize("text, status, reason", GOOD_STATUSES, ids=[c[0] for c in GOOD_STATUSES])
def test_statuses(server, text, status, reason):
    first, _ = ask(server, "status", text)
    assert (first.status, first.reason) == (status, reason)


BAD_STATUSES = [
    "200", "b'200 OK'", "None", "''", "'OK'", "'20 OK'", "'2000 OK'", "'abc OK'", "'-20 OK'", "'+20 OK'", "' 200 OK'",
    "'200OK'", "'200-OK'", "'0x1 OK'", "'100 Continue'", "'101 Switching Protocols'", "'199 X'", "'099 X'", "'600 X'",
    "'999 X'", "'200 a\\r\\nX: y'", "'200 a\\nb'", "'200 a\\rb'", "'200 a\\0b'", "'200 a\\x01b'", "'200 a\\x7fb'",
    "'200 \\u20ac'", "'\\u0662\\u0660\\u0660 OK'", "('200 OK',)", "200.0",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_STATUSES)
def test_bad_statuses(server, text):
    check_500(server, "status", text, log="start_response: ")


GOOD_HEADERS = [
    ("[]", {}),
    ("[('X-A', '')]", {"x-a": [""]}),
    ("[('X-A', 'b\\tc')]", {"x-a": ["b\tc"]}),
    ("[('X-A', '\\xe9')]", {"x-a": ["\xe9"]}),
    ("[('X-A', '1'), ('X-A', '2')]", {"x-a": ["1", "2"]}),
    ("[('Set-Cookie', 'a=b'), ('Set-Cookie', 'c=d')]", {"set-cookie": ["a=b", "c=d"]}),
    ("[('Date', 'Sat, 01 Jan 2000 00:00:00 GMT')]", {"date": ["Sat, 01 Jan 2000 00:00:00 GMT"]}),
    ("[('Server', 'own')]", {"server": ["own"]}),
    ("[('Content-Length', '2')]", {"content-length": ["2"]}),
    ("[('content-length', '2')]", {"content-length": ["2"]}),
    ("[('Content-Length', '2'), ('Content-Length', '2')]", {"content-length": ["2"]}),
    ("[('X-%d' % n, 'v' * 50) for n in range(200)]", {"x-0": ["v" * 50], "x-199": ["v" * 50]}),
    ("[('X-A', 'v' * 60000)]", {"x-a": ["v" * 60000]}),
    ("[(\"!#$%&'*+-.^_`|~\", 'v')]", {"!#$%&'*+-.^_`|~": ["v"]}),
]


@pytest.mark.parametrize("text, wanted", GOOD_HEADERS, ids=[c[0][:50] for c in GOOD_HEADERS])
def test_headers(server, text, wanted):
    first, second = ask(server, "headers", text)
    assert (first.status, first.body, second.body) == (200, b"ok", b"ok")
    assert {name: first.all(name) for name in wanted} == wanted


BAD_HEADERS = [
    "None", "(('X-A', 'b'),)", "{'X-A': 'b'}", "iter([])", "'X-A: b'", "[None]", "['X-A: b']", "[['X-A', 'b']]",
    "[('X-A',)]", "[('X-A', 'b', 'c')]", "[('X-A', None)]", "[('X-A', 1)]", "[('X-A', b'b')]", "[(b'X-A', 'b')]",
    "[(1, 'b')]", "[('X-A', 'b\\r\\nX-B: c')]", "[('X-A', 'b\\nc')]", "[('X-A', 'b\\rc')]", "[('X-A', 'b\\0c')]",
    "[('X-A', 'b\\x1fc')]", "[('X-A', 'b\\x7fc')]", "[('X-A', '\\u20ac')]", "[('X\\u20ac', 'b')]", "[('', 'b')]",
    "[('X A', 'b')]", "[('X-A:', 'b')]", "[('X-A ', 'b')]", "[('X-A\\r\\nX-B', 'c')]", "[('X\\0A', 'b')]",
    "[('X-\\xe9', 'b')]", "[('X(A)', 'b')]", "[('Connection', 'close')]", "[('connection', 'keep-alive')]",
    "[('Keep-Alive', 'timeout=5')]", "[('Transfer-Encoding', 'chunked')]", "[('TE', 'trailers')]",
    "[('Trailers', 'X')]", "[('Trailer', 'X')]", "[('Upgrade', 'h2c')]", "[('Proxy-Authenticate', 'Basic')]",
    "[('Proxy-Authorization', 'x')]", "[('Content-Length', '-1')]", "[('Content-Length', '+2')]",
    "[('Content-Length', '2 ')]", "[('Content-Length', '0x2')]", "[('Content-Length', '')]",
    "[('Content-Length', '2'), ('Content-Length', '3')]", "[('Content-Length', '9' * 30)]", "[('X-A', 'v' * 70000)]",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_HEADERS)
def test_bad_headers(server, text):
    first = check_500(server, "headers", text, log="start_response")
    assert first.header("x-a") is None and first.header("x-b") is None


def test_write(server):
    first, second = ask(server, "written")
    assert (first.body, first.framing, second.body) == (b"abcde", "chunked", b"ok")
    first, _ = ask(server, "written_only")
    assert (first.body, first.framing) == (b"abc", "length")


@pytest.mark.parametrize("text", ["'text'", "None", "5", "bytearray(b'x')", "memoryview(b'x')", "[b'x']"])
def test_write_takes_bytes(server, text):
    check_500(server, "write_wrong", text, log="write")


def test_what_belongs_to_another_request_cannot_be_used(server):
    for keep, use in (("write_kept", "write_from_another_request"), ("start_kept", "start_from_another_request")):
        ask(server, keep)
        first, _ = ask(server, use)
        assert (first.status, first.body) == (200, b"RuntimeError")


def test_the_list_of_headers_is_taken_as_it_was(server):
    first, _ = ask(server, "list_kept")
    assert first.status == 200 and first.header("x-late") is None


def test_a_head_is_never_mixed_with_another(server):
    """Failures before and behind good answers, all in one segment."""
    data = b""
    for view in ("ok", "twice", "ok", "replaced", "never", "ok") * 10:
        data += get("", "/" + view)
    statuses = [response.status for response in server.send_raw(data, expect=60)]
    assert statuses == [200, 500, 200, 503, 500, 200] * 10


def test_head_requests_of_mistakes(server):
    for view, status in (("ok", 200), ("twice", 500), ("never", 500), ("replaced", 503)):
        data = ("HEAD /%s HTTP/1.1\r\nHost: x\r\n\r\n" % view).encode() + SECOND.replace(b"/second", b"/ok")
        first, second = server.send_raw(data, expect=2, methods=["HEAD"])
        assert (first.status, second.body) == (status, b"ok")
