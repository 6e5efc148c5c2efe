"""Every limit: what fits is served, what is over it gets its status, and the server goes on."""

import threading

import pytest

from tests.front.raw import SECOND, calls, check_refused, check_served, chunked, get, post


@pytest.fixture(scope="module")
def small(serve_module, plain):
    """A server with limits low enough to be reached."""
    return serve_module(
        "probe:app",
        "-w1",
        "--limit-request-line",
        "128",
        "--limit-request-head",
        "1024",
        "--limit-request-fields",
        "5",
        "--limit-request-body",
        "1000",
        "--body-buffer",
        "1k",
        cwd=plain.cwd,
        ready="/calls",
    )


def line_of(length):
    """A request whose line, CR LF left out, is so long."""
    rest = len("GET / HTTP/1.1")
    return get("", "/" + "a" * (length - rest))


def test_request_line_by_default(probe):
    check_served(probe, line_of(8000))
    check_refused(probe, line_of(8193), 414)
    check_refused(probe, line_of(100_000), 414)
    check_refused(probe, b"GET /" + b"a" * 20_000, 414)
    check_refused(probe, b"G" * 20_000, 414)
    check_refused(probe, b"GET /?" + b"a=b&" * 5000, 414)


def test_request_line(small):
    check_served(small, line_of(126))
    check_refused(small, line_of(129), 414)


def test_head_by_default(probe):
    check_served(probe, get("A: %s\r\n" % ("b" * 32_000)))
    check_refused(probe, get("A: %s\r\n" % ("b" * 33_000)), 431)
    check_refused(probe, get("A: %s\r\n" % ("b" * 200_000)), 431)
    check_refused(probe, get("A" * 40_000 + ": b\r\n"), 431)
    check_refused(probe, get("".join("A%d: %s\r\n" % (n, "b" * 900) for n in range(40))), 431)
    # The end of it never comes.
    check_refused(probe, b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 50_000, 431)


def test_head(small):
    check_served(small, get("A: %s\r\n" % ("b" * 900)))
    check_refused(small, get("A: %s\r\n" % ("b" * 1100)), 431)


def test_number_of_fields_by_default(probe):
    check_served(probe, get("A: b\r\n" * 127))
    check_refused(probe, get("A: b\r\n" * 128), 431)
    check_refused(probe, get("A_B: b\r\n" * 128), 431)


def test_number_of_fields(small):
    check_served(small, get("A: b\r\n" * 4))
    check_refused(small, get("A: b\r\n" * 5), 431)


def test_the_greatest_number_of_fields(serve, plain):
    server = serve("probe:app", "-w1", "--limit-request-fields", "256", cwd=plain.cwd)
    check_served(server, get("".join("A%d: b\r\n" % number for number in range(255))))
    check_refused(server, get("A: b\r\n" * 256), 431)


def test_body(small):
    check_served(small, post("Content-Length: 1000\r\n", "x" * 1000))
    check_refused(small, post("Content-Length: 1001\r\n", "x" * 1001), 413)
    check_refused(small, post("Content-Length: 1001\r\n"), 413)
    check_refused(small, post("Content-Length: 100000000000\r\n"), 413)
    assert check_served(small, chunked(b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n"))[0].body == b"x" * 1000
    check_refused(small, chunked(b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"), 413)
    check_refused(small, chunked(b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n" + b"x" * 501 + b"\r\n0\r\n\r\n"), 413)
    check_refused(small, chunked(b"fffffff\r\n" + b"x" * 5000), 413)


def test_a_refused_upload_is_told_early(small):
    """413 instead of 100, and before the body has come."""
    with small.connect() as conn:
        conn.send(post("Expect: 100-continue\r\nContent-Length: 1001\r\n"))
        head = conn.read_head()
        assert head.status == 413 and head.will_close
        conn.read_body(head)
        assert conn.at_end()


def test_a_client_that_sends_on_gets_its_413(small):
    with small.connect() as conn:
        try:
            conn.send(post("Content-Length: 3000000\r\n"))
            for _ in range(30):
                conn.send(b"x" * 100_000)
        except (BrokenPipeError, ConnectionResetError):
            pass
        response = conn.read_response()
        assert response.status == 413 and response.will_close


@pytest.mark.parametrize("size", [1023, 1024, 1025, 65_536, 300_000])
@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_bodies_in_a_temporary_file(serve_module, plain, size, kind):
    if not hasattr(plain, "filing"):
        plain.filing = serve_module("probe:app", "-w1", "--body-buffer", "1k", cwd=plain.cwd)
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    if kind == "length":
        data = post("Content-Length: %d\r\n" % size, body)
    else:
        data = chunked(b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 777]), body[at : at + 777]) for at in range(0, size, 777)) + b"0\r\n\r\n")
    with plain.filing.connect() as conn:
        half = len(data) // 2
        conn.send(data[:half])
        assert plain.filing.get("/a").status == 200
        conn.send(data[half:])
        assert conn.read_response().body == body


def test_a_response_larger_than_all_buffers(serve, plain):
    """The socket's buffer, response-buffer and the temporary file are full: the application waits
    for the client, which gets everything."""
    server = serve(
        "probe:app", "-w1", "--threads", "2", "--response-buffer", "64k", "--response-file-max", "128k", cwd=plain.cwd
    )
    with server.connect() as conn:
        conn.send(get("", "/blocks/300"))
        head = conn.read_head()
        assert head.status == 200
        assert server.get("/a").status == 200
        conn.read_body(head)
        assert head.body == b"".join(b"%08d" % number * 8192 for number in range(300))


def test_a_response_that_is_kept_in_a_file(serve, plain):
    """A client that takes its time does not keep the only Python thread."""
    server = serve("probe:app", "-w1", "--response-buffer", "64k", cwd=plain.cwd)
    conns = [server.connect() for _ in range(4)]
    for conn in conns:
        conn.send(get("", "/big/20000000"))
    for conn in conns:
        assert conn.read_head().status == 200
    assert server.get("/a").status == 200
    for conn in conns:
        assert conn.read_bytes(20_000_000) == b"x" * 20_000_000
        conn.close()


def test_connections_beyond_the_limit(serve, plain):
    """Idle connections are closed to make room; nobody is refused who sends a request."""
    server = serve("probe:app", "-w1", "--max-connections", "20", cwd=plain.cwd)
    idle = []
    for _ in range(60):
        conn = server.connect()
        conn.send(get())
        assert conn.read_response().status == 200
        idle.append(conn)
    assert server.get("/a").status == 200
    for conn in idle:
        conn.close()


def test_room_that_new_connections_leave_is_taken_at_once(serve, plain):
    """All have just come, so none is closed to make room; whoever leaves makes it."""
    server = serve("probe:app", "-w1", "--max-connections", "4", cwd=plain.cwd)
    for _ in range(5):
        silent = [server.connect() for _ in range(4)]
        waiting = [server.connect() for _ in range(4)]
        for conn in waiting:
            conn.send(get("", "/a"))
        for conn, other in zip(silent, waiting):
            conn.close()
            assert other.read_response().status == 200
        for conn in waiting:
            conn.close()


def test_many_connections_at_once(plain):
    conns = [plain.connect() for _ in range(300)]
    for number, conn in enumerate(conns):
        conn.send(get("", "/a?%d" % number))
    for number, conn in enumerate(conns):
        assert conn.read_response().json()["QUERY_STRING"] == str(number)
    for conn in conns:
        conn.close()


def test_keepalive_off(serve, plain):
    server = serve("probe:app", "-w1", "--keepalive-timeout", "off", cwd=plain.cwd)
    calls(server)
    responses = server.send_raw(get() + SECOND, expect=None)
    assert len(responses) == 1 and responses[0].will_close
    assert len(calls(server)) == 1


def test_threads_at_work_while_limits_are_hit(small):
    """Refusals and requests at the same time do not meet each other's answers."""
    errors = []

    def ask(number):
        try:
            for turn in range(20):
                if number % 2:
                    check = small.send_raw(post("Content-Length: 1001\r\n"), expect=None)
                    assert [response.status for response in check] == [413]
                else:
                    text = "%d-%d" % (number, turn)
                    assert small.post("/echo", text.encode()).text == text
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
