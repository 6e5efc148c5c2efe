"""Scope, bodies, responses and mistakes, by the messages of the ASGI specification."""

import ast
import socket

import pytest

from tests.front.raw import chunked, get


def scope_of(server, target="/scope", headers=()):
    return ast.literal_eval(server.get(target, headers=headers).text)


def test_scope(server):
    found = scope_of(server, "/scope?a=%20b", [("X-Thing", "one"), ("x-thing", "two")])
    assert found["type"] == "http"
    assert found["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert (found["http_version"], found["method"], found["scheme"]) == ("1.1", "GET", "http")
    assert (found["path"], found["raw_path"], found["root_path"]) == ("/scope", b"/scope", "")
    assert found["query_string"] == b"a=%20b"
    assert found["client"][0] == "127.0.0.1" and isinstance(found["client"][1], int)
    assert found["server"] == ("127.0.0.1", server.port)
    assert [pair for pair in found["headers"] if pair[0] == b"x-thing"] == [(b"x-thing", b"one"), (b"x-thing", b"two")]
    assert all(name == name.lower() for name, _ in found["headers"])
    assert found["state"] == {}
    assert "http.response.pathsend" in found["extensions"]
    assert "http.response.debug" not in found["extensions"]


def test_scope_path_is_decoded(server):
    found = scope_of(server, "/%73cope")
    assert (found["path"], found["raw_path"]) == ("/scope", b"/%73cope")
    with server.connect() as conn:
        conn.send(b"GET /caf%C3%A9%FF HTTP/1.1\r\nHost: a\r\n\r\n")
        assert conn.read_response().status == 404


def test_scope_is_the_requests_own(server):
    with server.connect() as conn:
        for target in ("/spoil", "/scope", "/spoil", "/scope"):
            conn.send(get(target=target))
            response = conn.read_response()
            if target == "/scope":
                assert "spoiled" not in response.text


def test_the_dicts_of_extensions_are_the_requests_own(server):
    """Of several that run at a time, too, and of what is written long after it was asked for."""
    server.get("/collect")
    conns = [server.connect() for _ in range(4)]
    for _ in range(3):
        for conn in conns:
            conn.send(get(target="/write_extension"))
        assert [conn.read_response().json() for conn in conns] == [[0]] * 4
        assert not any(ast.literal_eval(server.get("/scope").text)["extensions"].values())
    for conn in conns:
        conn.close()


@pytest.mark.parametrize("query", ["", "wait", "write", "wait,write"])
def test_a_kept_scope_stays_as_it_is(server, query):
    server.get("/collect")
    said = []
    for i in range(12):
        headers = {"x-number": str(i)} if i % 3 else {}
        target = "/keep_scope?%s,%d" % (query, i // 2)
        kept = server.get(target, headers=headers).json()
        written = ["%s,%d" % (query, i // 2)] if "write" in query else []
        said.append(["/keep_scope", "%s,%d" % (query, i // 2), "/keep_scope" if written else None,
                     list(headers.values()) + written])
        assert kept == said
    server.get("/collect")


@pytest.mark.parametrize("which", ["asgi", "extensions", "extensions+http.response.pathsend", "state", "headers"])
def test_kept_parts_of_a_scope(server, which):
    server.get("/collect")
    size = None
    for _ in range(4):
        found, again = server.get("/keep_part?" + which).json()
        assert not again and size in (None, found)
        size = found
        assert server.get("/spoil").body == b"spoiled"
    server.get("/collect")


def test_what_the_collector_finds_stays_as_it_is(server):
    """The server's own, too, of which scopes are made."""
    server.get("/collect")
    for i in range(4):
        found, same = server.get("/keep_all", headers={"x-number": str(i)}).json()
        assert same and (found > 0) == (i > 0)
        for j in range(3):
            assert server.get("/spoil?%d" % j, headers={"x-number": "%d.%d" % (i, j)}).body == b"spoiled"
    server.get("/collect")


@pytest.mark.parametrize("query", ["", "wait", "sleep", "scope", "scope,wait"])
def test_what_a_request_puts_into_its_state_ends_with_it(server, query):
    server.get("/collect")
    for _ in range(12):
        assert server.get("/state_session?" + query).json() == [0, True]
        assert server.get("/session_left").json()[0] == 0


def test_scope_follows_the_request(server):
    with server.connect() as conn:
        for version, method, query in (("1.1", "GET", "a"), ("1.1", "DELETE", "b"), ("1.1", "GET", ""), ("1.0", "GET", "a")):
            conn.send("%s /scope?%s HTTP/%s\r\nHost: x%s\r\nConnection: keep-alive\r\n\r\n" % (method, query, version, query))
            found = ast.literal_eval(conn.read_response().text)
            assert (found["http_version"], found["method"], found["query_string"]) == (version, method, query.encode())
            assert (b"host", b"x" + query.encode()) in found["headers"]


def test_forwarded(server):
    found = scope_of(server, headers=[("X-Forwarded-For", "10.1.2.3"), ("X-Forwarded-Proto", "https")])
    assert (found["scheme"], found["client"]) == ("https", ("10.1.2.3", 0))


@pytest.mark.parametrize("size", [0, 1, 20_000, 70_000, 2_000_000])
def test_echo(server, size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert server.post("/echo", data).body == data


def test_echo_chunked(server):
    data = b"0123456789" * 20_000
    with server.connect() as conn:
        conn.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(data), 30_000):
            part = data[at : at + 30_000]
            conn.send(b"%x\r\n%s\r\n" % (len(part), part))
        conn.send(b"0\r\n\r\n")
        assert conn.read_response().body == data
        conn.send(chunked(b"5\r\nsmall\r\n0\r\n\r\n"))
        assert conn.read_response().status == 200


def test_large_bodies_come_in_parts(server):
    with server.connect() as conn:
        conn.send(b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
        for _ in range(30):
            conn.send(b"x" * 10_000)
        messages, size = conn.read_response().json()
        assert size == 300_000


def test_expect_continue(server):
    with server.connect() as conn:
        conn.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert conn.read_head().status == 100
        conn.send(b"hello")
        assert conn.read_response().body == b"hello"


def test_unread_body(server):
    with server.connect() as conn:
        for size in (10, 50_000):
            conn.send(b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (size, b"x" * size))
            assert conn.read_response().body == b"unread"


def test_receive_waits_for_the_end(server, wait_for_log):
    assert server.get("/twice").json() == [True]
    wait_for_log({"type": "http.disconnect"})


def test_awaitables_are_coroutines(server):
    assert server.post("/as_tasks", b"body").body == b"body"


@pytest.mark.parametrize("query", ["", "wait"])
def test_parts(server, query):
    response = server.get("/parts?" + query)
    assert response.body == b"0123456789"
    assert response.header("transfer-encoding") == "chunked"


def test_content_length_is_filled_in(server):
    assert server.get("/pid").header("content-length") == str(len(str(server.worker_pids()[0])))


def test_gated_stream(server):
    with server.connect() as conn:
        conn.send(get(target="/gated?stream"))
        assert conn.read_head().status == 200
        for number in range(4):
            if number:
                server.get("/open?stream")
            assert conn.read_bytes(6) == b"1\r\n%d\r\n" % number
        assert conn.read_bytes(5) == b"0\r\n\r\n"


def test_forms(server):
    with server.connect() as conn:
        conn.send(get(target="/forms"))
        response = conn.read_response()
    assert (response.status, response.body) == (201, b"iew")
    assert (response.header("x-a"), response.header("x-b")) == ("1", "2")
    assert response.header("transfer-encoding") is None and response.header("connection") is None


def test_head(server):
    with server.connect() as conn:
        conn.send(b"HEAD /pid HTTP/1.1\r\nHost: a\r\n\r\n")
        response = conn.read_response("HEAD")
        assert (response.status, response.body) == (200, b"")
        conn.send(b"HEAD /parts?wait HTTP/1.1\r\nHost: a\r\n\r\n")
        assert conn.read_response("HEAD").status == 200
        conn.send(get(target="/pid"))
        assert conn.read_response().status == 200


def test_pipelined(server):
    with server.connect() as conn:
        conn.send(b"".join(get(target=target) for target in ("/parts?wait", "/pid", "/parts?wait", "/parts", "/pid")))
        bodies = [conn.read_response().body for _ in range(5)]
        assert bodies[0] == bodies[2] == bodies[3] == b"0123456789" and bodies[1] == bodies[4]


def test_files(server, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 2000)
    response = server.get("/pathsend?%s" % path)
    assert response.body == path.read_bytes()
    response = server.get("/zerocopy?%s,100,300000" % path)
    assert response.body == b"<" + path.read_bytes()[100:300100] + b">"
    response = server.get("/pathsend?%s" % (tmp_path / "nowhere"))
    assert response.status == 500


@pytest.mark.parametrize(
    "query, text",
    [
        ("body_first", "has to come first"),
        ("two_starts", "unexpected ASGI message 'http.response.start'"),
        ("unknown", "unexpected ASGI message 'http.response.nonsense'"),
        ("websocket", "unexpected ASGI message 'websocket.accept'"),
        ("no_type", "takes a dict with a 'type'"),
        ("no_dict", "takes a dict with a 'type'"),
        ("no_status", "has no 'status'"),
        ("status_text", "status must be an int"),
        ("status_99", "within 200..599"),
        ("header_str", "must be a pair of bytes"),
        ("header_one", "must be a pair of bytes"),
        ("header_newline", "line break"),
        ("header_name", "not a token"),
        ("body_str", "must be bytes, got str"),
        ("trailers", "unexpected ASGI message 'http.response.trailers'"),
    ],
)
def test_mistakes(server, query, text):
    assert server.get("/mistake?" + query).status == 500
    server.wait_log(text)


def test_a_mistake_that_is_caught(server, wait_for_log):
    assert "has to come first" in server.get("/caught").text
    assert server.get("/late").body == b"done"
    wait_for_log("unexpected ASGI message 'http.response.body': the response is complete already")


def test_errors(server):
    assert server.get("/error").status == 500
    server.wait_log("GET /error: unhandled exception in the application")
    server.wait_log("ValueError: before the start")
    assert server.get("/error_later").status == 500
    server.wait_log("ValueError: after a pause")
    assert server.get("/error_behind").body == b"fine"
    server.wait_log("GET /error_behind: unhandled exception in the application, after its response")
    assert server.get("/nothing").status == 500
    server.wait_log("GET /nothing: the ASGI application returned without sending a response")
    assert server.get("/half").status == 500
    server.wait_log("GET /half: the ASGI application returned before its response was complete")
    assert server.get("/exits").status == 500
    server.wait_log("SystemExit: no")
    assert server.get("/pid").status == 200


def test_error_within_the_body(server):
    with server.connect() as conn:
        conn.send(get(target="/error_in_body"))
        assert conn.read_head().status == 200
        data = conn.read_to_end()
    assert data.startswith(b"5\r\nbegun\r\n") and not data.endswith(b"0\r\n\r\n")


def test_lengths(server):
    with server.connect() as conn:
        conn.send(get(target="/short"))
        assert conn.read_head().header("content-length") == "10"
        assert conn.read_to_end() == b"short"
    server.wait_log("/short: the response is shorter than its Content-Length")
    assert server.get("/long").body == b"tool"
    server.wait_log("/long: the response is longer than its Content-Length")


def test_disconnect(server, wait_for_log):
    conn = server.connect()
    conn.send(get(target="/watch"))
    wait_for_log("watching")
    conn.close()
    wait_for_log("http.disconnect")


def test_send_waits_for_the_client_and_tells_that_it_left(server, wait_for_log):
    conn = server.connect()
    conn.send(get(target="/endless"))
    conn.read_head()
    for _ in range(3):
        server.get("/pid")
    sent = [entry for entry in server.get("/events_log").json() if isinstance(entry, int)]
    assert not sent or sent[-1] < 4000  # 256 MB: it does not run away
    conn.reset()
    wait_for_log("OSError 32")


def test_other_threads_are_refused(server):
    assert "another thread" in server.get("/threaded").text


def test_a_forked_child_that_returns(server):
    assert server.get("/forks").json() == [True]
    assert server.get("/pid").status == 200


def test_mounted(serve_module):
    app = """
        async def app(scope, receive, send):
            body = repr((scope["root_path"], scope["path"], scope["raw_path"])).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

        def wsgi(environ, start_response):
            start_response("200 OK", [])
            return [environ["PATH_INFO"].encode()]
    """
    server = serve_module(app, "--mount", "/api=app:app", "--mount", "/old=app:wsgi")
    assert ast.literal_eval(server.get("/api/a%20b").text) == ("/api", "/api/a b", b"/api/a%20b")
    assert server.get("/old/x").body == b"/x"
    assert ast.literal_eval(server.get("/y").text) == ("", "/y", b"/y")


def test_unix_socket(serve, tmp_path):
    app = """
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": repr((scope["client"], scope["server"])).encode()})
    """
    path = tmp_path / "s"
    serve(app, bind="unix:%s" % path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        data = b""
        while part := sock.recv(4096):
            data += part
    assert data.endswith(b"(None, ('%s', None))" % str(path).encode())
