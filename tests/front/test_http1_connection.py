"""Connections: keep-alive, close, pipelining, framing of responses: RFC 9112 sections 6.3 and 9."""

import re
from email.utils import parsedate_to_datetime

import pytest

from tests.front.raw import SECOND, calls, check_served, get, post

# (name, version, Connection fields, whether the connection goes on)
PERSISTENCE = [
    ("1.1", "1.1", [], True),
    ("1.1 keep-alive", "1.1", ["keep-alive"], True),
    ("1.1 close", "1.1", ["close"], False),
    ("1.1 Close", "1.1", ["Close"], False),
    ("1.1 CLOSE", "1.1", ["CLOSE"], False),
    ("1.1 close in a list", "1.1", ["foo, close, bar"], False),
    ("1.1 close in a list without spaces", "1.1", ["foo,close,bar"], False),
    ("1.1 close in a second field", "1.1", ["foo", "close"], False),
    ("1.1 close and keep-alive", "1.1", ["keep-alive, close"], False),
    ("1.1 close in white space", "1.1", ["\t close \t"], False),
    ("1.1 a word that has close in it", "1.1", ["closed"], True),
    ("1.1 another word that has close in it", "1.1", ["no-close"], True),
    ("1.1 unknown", "1.1", ["foo"], True),
    ("1.1 empty", "1.1", [""], True),
    ("1.0", "1.0", [], False),
    ("1.0 keep-alive", "1.0", ["keep-alive"], True),
    ("1.0 Keep-Alive", "1.0", ["Keep-Alive"], True),
    ("1.0 keep-alive in a list", "1.0", ["foo, keep-alive"], True),
    ("1.0 keep-alive in a second field", "1.0", ["foo", "keep-alive"], True),
    ("1.0 close", "1.0", ["close"], False),
    ("1.0 keep-alive and close", "1.0", ["keep-alive, close"], False),
    ("1.0 a word that has keep-alive in it", "1.0", ["keep-alive-not"], False),
]


@pytest.mark.parametrize("version, options, goes_on", [c[1:] for c in PERSISTENCE], ids=[c[0] for c in PERSISTENCE])
def test_persistence(probe, version, options, goes_on):
    fields = "".join("Connection: %s\r\n" % option for option in options)
    calls(probe)
    responses = probe.send_raw(get(fields, "/first", version) + get("Connection: close\r\n", "/second"), expect=None)
    assert len(responses) == (2 if goes_on else 1)
    first = responses[0]
    assert first.will_close == (not goes_on)
    assert first.version == "HTTP/1.1"
    if version == "1.0":
        assert (first.header("connection") == "keep-alive") == goes_on
    assert len(calls(probe)) == len(responses)


def test_many_requests_one_after_the_other(probe):
    with probe.connect() as conn:
        for number in range(300):
            conn.send(get("", "/a?%d" % number))
            assert conn.read_response().json()["QUERY_STRING"] == str(number)
            conn.send(post("Content-Length: 5\r\n", "%05d" % number))
            assert conn.read_response().body == b"%05d" % number


@pytest.mark.parametrize("depth", [2, 16, 100, 1000])
def test_pipelining(probe, depth):
    data = b"".join(get("A: %d\r\n" % number, "/a?%d" % number) for number in range(depth))
    for number, response in enumerate(probe.send_raw(data, expect=depth)):
        found = response.json()
        assert (found["QUERY_STRING"], found["HTTP_A"]) == (str(number), str(number))


def test_pipelining_of_all_kinds(probe):
    if probe.mode == "body-stream":
        pytest.skip("a body read while it comes may end the connection")
    data = (
        get("", "/a")
        + post("Content-Length: 5\r\n", "hello")
        + post("Transfer-Encoding: chunked\r\n", "5\r\nworld\r\n0\r\n\r\n")
        + b"HEAD /big/100000 HTTP/1.1\r\nHost: x\r\n\r\n"
        + get("", "/status/204")
        + get("", "/stream")
        + get("", "/big/200000")
        + b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"
        + get("", "/status/304")
        + post("Content-Length: 100000\r\n", "y" * 100_000)
    ) * 4
    methods = ["GET", "POST", "POST", "HEAD", "GET", "GET", "GET", "OPTIONS", "GET", "POST"] * 4
    for turn in range(4):
        rest = check_served(probe, data, 40, methods)[turn * 10 : turn * 10 + 10]
        assert [r.status for r in rest] == [200, 200, 200, 200, 204, 200, 200, 200, 304, 200]
        assert [len(r.body) for r in rest] == [len(rest[0].body), 5, 5, 0, 0, 40, 200_000, len(rest[7].body), 0, 100_000]


@pytest.mark.parametrize("bad", ["\0", "GET / HTTP/1.1\r\nHost : x\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "FOO\r\n\r\n"])
@pytest.mark.parametrize("before", [1, 10])
def test_a_bad_request_in_a_pipeline(probe, bad, before):
    """What came before it is answered, it gets its 400, what follows is not looked at."""
    calls(probe)
    data = get("", "/a") * before + bad.encode() + b"\r\n" + SECOND
    responses = probe.send_raw(data, expect=None)
    assert [response.status for response in responses] == [200] * before + [400]
    assert responses[-1].will_close and not responses[0].will_close
    assert calls(probe) == [["GET", "/a"]] * before


def test_close_in_a_pipeline(probe):
    calls(probe)
    responses = probe.send_raw(get() + get("Connection: close\r\n") + SECOND * 3, expect=None)
    assert len(responses) == 2 and len(calls(probe)) == 2


def test_pipelined_big_responses_that_nobody_reads_at_first(probe):
    with probe.connect() as conn:
        conn.send(get("", "/big/1000000") * 20)
        assert probe.get("/a").status == 200
        for _ in range(20):
            assert len(conn.read_response().body) == 1_000_000


def test_empty_lines_between_requests(probe):
    responses = probe.send_raw(get() + b"\r\n" + get() + b"\r\n\r\n" + get(), expect=3)
    assert [response.status for response in responses] == [200] * 3


@pytest.mark.parametrize("pause", [0, 0.002])
def test_byte_by_byte(probe, pause):
    """No boundary between segments means anything."""
    data = get("A: b\r\n") + post("Content-Length: 5\r\n", "hello")
    coded = post("Transfer-Encoding: chunked\r\nConnection: close\r\n", "3;x\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n")
    with probe.connect() as conn:
        for part in (data, coded):
            if pause:
                conn.send_slowly(part, pause=pause)
            else:
                conn.send_slowly(part, size=7, pause=0.001)
        assert conn.read_response().json()["HTTP_A"] == "b"
        assert conn.read_response().body == b"hello"
        assert conn.read_response().body == b"hello"
        assert conn.at_end()


def test_every_split(plain):
    """One request in two segments, split at each byte."""
    data = b"\r\n" + post("Transfer-Encoding: chunked\r\nA: b\r\n", "3;x\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n")
    conns = []
    for at in range(1, len(data)):
        conns.append((plain.connect(), data[at:]))
        conns[-1][0].send(data[:at])
    for conn, rest in conns:
        conn.send(rest)
    for conn, _ in conns:
        assert conn.read_response().body == b"hello"
        conn.close()


@pytest.mark.parametrize("body, framing", [("", "none"), ("Content-Length: 5\r\n", "length"), ("Transfer-Encoding: chunked\r\n", "chunked")])
def test_half_closed_clients_get_their_answer(probe, body, framing):
    data = {"none": get("", "/big/3000000"), "length": post(body, "hello"), "chunked": post(body, "5\r\nhello\r\n0\r\n\r\n")}
    with probe.connect() as conn:
        conn.send(data[framing])
        conn.half_close()
        response = conn.read_response()
        assert response.status == 200
        assert response.body == (b"x" * 3_000_000 if framing == "none" else b"hello")
        assert conn.at_end()


def test_half_closed_pipeline(probe):
    with probe.connect() as conn:
        conn.send(get() * 50)
        conn.half_close()
        for _ in range(50):
            assert conn.read_response().status == 200
        assert conn.at_end()


@pytest.mark.parametrize("extra", [1, 1000, 100_000, 4_000_000])
def test_more_than_asked_for_does_not_cost_the_response(probe, extra):
    """Bytes behind a request that ends the connection: without care they reset it, and the client
    loses what it has not read yet."""
    with probe.connect() as conn:
        conn.send(get("Connection: close\r\n", "/big/500000"))
        sent = 0
        try:
            while sent < extra:
                conn.send(b"x" * min(65536, extra - sent))
                sent += 65536
        except (BrokenPipeError, ConnectionResetError):
            pass  # it is ours to stop; what was on its way must still arrive
        response = conn.read_response()
        assert (response.status, len(response.body)) == (200, 500_000)


@pytest.mark.parametrize("extra", [10, 100_000])
def test_a_refused_upload_gets_to_know_why(probe, extra):
    with probe.connect() as conn:
        conn.send(post("Content-Length: 5x\r\n", "x" * extra))
        response = conn.read_response()
        assert response.status == 400 and b"Content-Length" in response.body
        assert conn.at_end()


# Framing of responses

STATUSES = [200, 201, 202, 203, 206, 226, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 409, 410, 412, 418, 422, 429, 451, 499, 500, 501, 502, 503, 504, 599]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_statuses_with_a_body(plain, status, method):
    data = "%s /status/%d HTTP/1.1\r\nHost: x\r\n\r\n" % (method, status)
    (response,) = check_served(plain, data, methods=[method])
    assert (response.status, response.reason) == (status, "Some Reason")
    assert response.body == (b"" if method == "HEAD" else b"a body for %d\n" % status)
    if method != "HEAD":
        assert response.framing == "length"


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_statuses_without_a_body(probe, status, method):
    data = "%s /status/%d HTTP/1.1\r\nHost: x\r\n\r\n" % (method, status)
    (response,) = check_served(probe, data, methods=[method])
    assert (response.status, response.body) == (status, b"")
    assert response.header("transfer-encoding") is None
    if status == 204:
        assert response.header("content-length") is None


def test_head_says_what_get_would(probe):
    head, both = check_served(
        probe, b"HEAD /big/1234 HTTP/1.1\r\nHost: x\r\n\r\n" + get("", "/big/1234"), 2, ["HEAD"]
    )
    assert head.header("content-length") == both.header("content-length") == "1234"
    assert head.header("content-type") == both.header("content-type")


def test_head_of_a_stream(probe):
    (head,) = check_served(probe, "HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n", methods=["HEAD"])
    assert head.status == 200 and head.header("content-length") is None


def test_a_stream_is_chunked_in_11(probe):
    (response,) = check_served(probe, get("", "/stream"))
    assert response.framing == "chunked" and response.trailers == []
    assert response.body == b"".join(b"block %d\n" % number for number in range(5))
    assert not response.will_close


@pytest.mark.parametrize("fields", ["", "Connection: keep-alive\r\n"])
def test_a_stream_ends_with_the_connection_in_10(probe, fields):
    responses = probe.send_raw(get(fields, "/stream", "1.0") + SECOND, expect=None)
    assert len(responses) == 1
    assert responses[0].framing == "close" and responses[0].will_close
    assert responses[0].body == b"".join(b"block %d\n" % number for number in range(5))


def test_length_in_10(probe):
    for target in ("/big/5", "/status/200"):
        (response,) = probe.send_raw(get("", target, "1.0"), expect=None)
        assert response.framing == "length"


def test_date_and_server(probe):
    for target in ("/a", "/stream", "/status/404", "/status/304", "/status/204"):
        (response,) = check_served(probe, get("", target))
        date = response.header("date")
        assert re.match(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d GMT\Z", date)
        assert parsedate_to_datetime(date).strftime("%a, %d %b %Y %H:%M:%S GMT") == date
        assert response.header("server") == "stoker"


def test_server_header_option(serve_module, plain):
    server = serve_module("probe:app", "-w1", "--server-header", "", cwd=plain.cwd)
    assert server.get("/a").header("server") is None
    server = serve_module("probe:app", "-w1", "--server-header", "x/1 (y)", cwd=plain.cwd)
    assert server.get("/a").header("server") == "x/1 (y)"


# Expect: 100-continue


@pytest.mark.parametrize("length", [5, 100_000, 2_000_000])
@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_continue(probe, length, kind):
    """Sent when the body is wanted and has not come, before the final response."""
    framing = "Content-Length: %d\r\n" % length if kind == "length" else "Transfer-Encoding: chunked\r\n"
    body = b"z" * length
    if kind == "chunked":
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (length, body)
    with probe.connect() as conn:
        conn.send(post("Expect: 100-continue\r\n" + framing))
        head = conn.read_head()
        assert (head.status, head.headers) == (100, [])
        conn.send(body)
        response = conn.read_response()
        assert response.status == 200 and len(response.body) == length
        conn.send(SECOND)
        assert conn.read_response().status == 200


@pytest.mark.parametrize("value", ["100-continue", "100-Continue", "100-CONTINUE"])
def test_no_continue_when_the_body_is_there(probe, value):
    (response,) = probe.send_raw(post("Expect: %s\r\nContent-Length: 5\r\n" % value, "hello"))
    assert response.body == b"hello" and response.interim == []


@pytest.mark.parametrize("fields", ["", "Content-Length: 0\r\n"])
def test_no_continue_without_a_body(probe, fields):
    (response,) = check_served(probe, post("Expect: 100-continue\r\n" + fields))
    assert response.status == 200 and response.interim == []


def test_no_continue_in_http10(probe):
    with probe.connect() as conn:
        conn.send(post("Expect: 100-continue\r\nContent-Length: 5\r\n", version="1.0"))
        assert conn.is_quiet(0.1)
        conn.send(b"hello")
        response = conn.read_response()
        assert response.body == b"hello" and response.interim == []


def test_continue_once_for_each_request(probe):
    with probe.connect() as conn:
        for _ in range(3):
            conn.send(post("Expect: 100-continue\r\nContent-Length: 5\r\n"))
            assert conn.read_head().status == 100
            conn.send(b"he")
            assert conn.is_quiet(0.05)
            conn.send(b"llo")
            assert conn.read_head().status == 200
            assert conn.read_bytes(5) == b"hello"


def test_continue_is_not_sent_for_an_earlier_request(probe):
    """The 100 of a pipelined request comes behind the responses before it."""
    with probe.connect() as conn:
        conn.send(get("", "/big/100000") + post("Expect: 100-continue\r\nContent-Length: 5\r\n"))
        assert len(conn.read_response().body) == 100_000
        assert conn.read_head().status == 100
        conn.send(b"hello")
        assert conn.read_response().body == b"hello"


def test_continue_when_the_application_does_not_read(probe):
    with probe.connect() as conn:
        conn.send(post("Expect: 100-continue\r\nContent-Length: 5\r\n", target="/unread"))
        head = conn.read_head()
        if head.status == 100:
            conn.send(b"hello")
            head = conn.read_head()
        assert head.status == 200
        conn.read_body(head)
        assert head.body == b"unread"


def test_a_response_never_has_both_framings(probe):
    for target in ("/big/0", "/big/1", "/stream", "/status/200"):
        (response,) = check_served(probe, get("", target))
        assert (response.header("content-length") is None) != (response.header("transfer-encoding") is None)
