"""Requests in greenlets: concurrency, bodies, responses, mistakes."""

import hashlib
import http.server
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.front.raw import get, post
from tests.gevent.waiting import wait_for, wait_for_waiters

BODY = bytes(range(256)) * 800
DIGEST = {"length": len(BODY), "sha": hashlib.sha256(BODY).hexdigest()}


@pytest.fixture(autouse=True)
def forget(request):
    for name in ("server", "streaming"):
        if name in request.fixturenames:
            request.getfixturevalue(name).get("/forget")


def test_requests_that_wait_are_served_side_by_side(server):
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(100)]
        for connection in connections:
            connection.send(get(target="/wait?all"))
        wait_for_waiters(server, "all", 100)
        server.get("/set?all")
        for connection in connections:
            assert connection.read_response().body == b"all"
        for connection in connections:  # and goes on
            connection.send(get(target="/hello"))
        for connection in connections:
            assert connection.read_response().body == b"hello"


def test_a_hundred_sleep(server):
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(100)]
        for connection in connections:
            connection.send(get(target="/sleep?0.2"))
        assert server.get("/hello").body == b"hello"
        assert [connection.read_response().body for connection in connections] == [b"slept"] * 100


def test_the_standard_library_is_patched(server):
    assert server.get("/flags").json() == {"multithread": True, "patched": True}


def test_requests_to_a_server_of_the_same_process(server):
    assert server.get("/fetch?%s/sleep?0.01" % server.url).body == b"slept"


def test_pipelined_requests_of_which_some_wait(server):
    targets = ["/hello", "/sleep?0.01", "/hello", "/sleep?0", "/pid", "/stream"]
    found = server.send_raw(b"".join(get(target=target) for target in targets), expect=len(targets))
    assert [response.status for response in found] == [200] * len(targets)
    assert found[-1].body == b"0\n1\n2\n3\n4\n"


# ---- bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["digest", "digest_late"])
@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("mode", ["server", "streaming"])
def test_uploads(request, path, coding, mode):
    server = request.getfixturevalue(mode)
    if coding == "length":
        head, body = "Content-Length: %d\r\n" % len(BODY), BODY
    else:
        parts = [BODY[i : i + 30000] for i in range(0, len(BODY), 30000)]
        head = "Transfer-Encoding: chunked\r\n"
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    with server.connect() as connection:
        connection.send(post(head, body, target="/" + path))
        assert connection.read_response().json() == DIGEST
        connection.send(post(head, target="/" + path))
        for i in range(0, len(body), 20000):
            connection.send(body[i : i + 20000])
            assert server.get("/hello").body == b"hello"
        assert connection.read_response().json() == DIGEST


def test_a_read_that_waits_lets_others_run(streaming):
    server = streaming
    with server.connect() as connection:
        connection.send(post("Content-Length: 9\r\n", b"one\n", target="/lines"))
        wait_for(server, "line")
        connection.send(b"two\nx")
        assert connection.read_response().json() == ["one\n", "two\n", "x"]
        connection.send(post("Content-Length: 3\r\n", target="/by_child"))
        server.get("/forget")
        connection.send(b"abc")
        assert connection.read_response().body == b"abc"


def test_a_greenlet_that_reads_beyond_its_request(streaming):
    server = streaming
    with server.connect() as connection:
        connection.send(post("Content-Length: 9\r\n", b"one\n", target="/child_outlives"))
        assert connection.read_response().body == b"left"
    wait_for(server, "RuntimeError")


def test_an_input_that_is_kept(server):
    with server.connect() as connection:
        connection.send(post("Content-Length: 3\r\n", b"abc", target="/kept_input"))
        assert connection.read_response().body == b"kept"
    assert server.get("/kept_input").body == b"abc"


def test_an_upload_that_breaks_off(streaming):
    server = streaming
    connection = server.connect()
    connection.send(post("Content-Length: 9\r\n", b"one\n", target="/lines"))
    wait_for(server, "line")
    connection.reset()
    with server.connect() as connection:
        connection.send(get(target="/hello"))
        assert connection.read_response().body == b"hello"


# ---- responses ----------------------------------------------------------------------------------


def test_streams(server):
    response = server.get("/stream")
    assert response.body == b"0\n1\n2\n3\n4\n"
    assert server.get("/written").body == b"0\n1\n2\nend\n"
    wait_for(server, "closed")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_files_lengths_and_heads(server, method):
    text = (Path(__file__).parent / "gevent_app.py").read_bytes()
    response = server.request(method, "/file")
    assert response.body == (text if method == "GET" else b"")
    assert server.request(method, "/length").header("Content-Length") == "10"
    replaced = server.request(method, "/again")
    assert (replaced.status, replaced.header("X-One"), replaced.header("X-Two")) == (500, None, "2")


@pytest.mark.parametrize("target", ["/endless", "/written_much"])
def test_a_client_that_does_not_read_lets_its_greenlet_wait(server, target):
    with server.connect() as connection:
        connection.send(get(target=target))
        connection.read_bytes(1)
        wait_for(server, "block")
        # It stops somewhere: the application is asked for no more, and others are served.
        before, after = -1, 0
        while before != after:
            server.get("/sleep?0.05")
            before, after = after, server.get("/events_log").json().count("block")
        assert after < 100
        connection.read_bytes(6000000)
        assert server.get("/events_log").json().count("block") > before


def test_the_end_of_a_client_ends_a_stream(server):
    connection = server.connect()
    connection.send(get(target="/endless"))
    connection.read_bytes(100000)
    connection.reset()
    wait_for(server, "closed")


# ---- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path, text", [("fails", "at once"), ("fails_late", "later on")])
def test_exceptions(server, path, text):
    assert server.get("/" + path).status == 500
    server.wait_log("(?s)GET /%s: unhandled exception.*in %s.*ValueError: %s" % (path, path, text))
    assert server.get("/hello").status == 200


def test_an_exception_in_a_stream(server):
    with server.connect() as connection:
        connection.send(get(target="/fails_in_stream"))
        assert connection.read_head().status == 200
        assert b"0\r\n\r\n" not in connection.read_to_end()
    wait_for(server, "closed")


@pytest.mark.parametrize("target", ["/exits", "/exits?late", "/system_exit", "/system_exit?late"])
def test_the_end_of_a_greenlet_is_the_end_of_its_request(server, target):
    with server.connect() as connection:
        connection.send(get(target=target))
        assert connection.read_response().status == 500
    assert server.get("/hello").body == b"hello"


def test_a_greenlet_that_is_killed(server):
    with server.connect() as connection:
        connection.send(get(target="/killed"))
        wait_for(server, "begun")
        assert server.get("/kill").body == b"killed"
        assert connection.read_response().status == 500
    wait_for(server, "cleaned up")
    server.wait_log("GET /killed: .*: its greenlet was killed")


def test_a_forked_child_that_returns(server):
    assert server.get("/forks").body == b"parent"
    assert server.get("/subprocess").body == b"from a child\n"


def test_flask_with_patched_requests(serve_gevent, tmp_path):
    """To a server of the test, which answers when all requests have come: so they wait at once."""
    pytest.importorskip("flask")
    everybody = threading.Barrier(20)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            everybody.wait(30)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *args):
            pass

    backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    backend.daemon_threads = True
    thread = threading.Thread(target=backend.serve_forever)
    thread.start()
    try:
        server = serve_gevent(app="flask_app:app", env={"BACKEND": "http://127.0.0.1:%d/" % backend.server_port})
        with ExitStack() as stack:
            connections = [stack.enter_context(server.connect()) for _ in range(20)]
            for i, connection in enumerate(connections):
                connection.send(get(target="/user/%d" % i))
            for i, connection in enumerate(connections):
                assert connection.read_response().json() == {"user": "%d" % i, "answer": "ok"}
    finally:
        backend.shutdown()
        backend.server_close()
        thread.join()


def test_the_validator_of_wsgiref(serve_gevent):
    server = serve_gevent(app="validated_app:app")
    with server.connect() as connection:
        for target in ("/", "/late", "/stream"):
            connection.send(get(target=target))
            assert connection.read_response().body == b"valid"
        connection.send(post("Content-Length: 3\r\n", b"abc", target="/body"))
        assert connection.read_response().body == b"abc"
