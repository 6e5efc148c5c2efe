"""Health checks: answered in C by any thread, whatever the application does."""

import signal

import pytest

from tests.lib.gate import GATE, Gate

APP = GATE + """
import time


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hold":  # PyDLL keeps the interpreter's lock
        ctypes.PyDLL(None).usleep(int(float(environ["QUERY_STRING"]) * 1000000))
    if path in ("/wait", "/keep"):
        wait_at_gate(holding=path == "/keep")
    if path == "/sleep":
        time.sleep(float(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"app " + path.encode()]
"""


@pytest.fixture
def gate(tmp_path):
    with Gate(tmp_path) as one:
        yield one


@pytest.mark.parametrize(
    "path, body",
    [
        ("/health", b"ready\n"),
        ("/health/ready", b"ready\n"),
        ("/health/live", b"live\n"),
        ("/%68ealth/l%69ve?verbose=1", b"live\n"),
        ("/health/other", b"app /health/other"),
        ("/healthy", b"app /healthy"),
    ],
)
def test_paths(serve, path, body):
    server = serve(APP, "--health-path", "/health")
    response = server.get(path)
    assert (response.status, response.body) == (200, body)


def test_slash_at_the_end_and_root(serve):
    server = serve(APP, "--health-path", "/health/")
    assert server.get("/health/").body == b"ready\n"
    assert server.get("/health/live").body == b"live\n"
    assert server.get("/health").body == b"app /health"


def test_off_by_default(serve):
    assert serve(APP).get("/health").body == b"app /health"


def test_methods(serve):
    server = serve(APP, "--health-path", "/health")
    head = server.request("HEAD", "/health")
    assert (head.status, head.body) == (200, b"")
    assert head.header("content-length") == "6"
    for method in ("POST", "DELETE", "OPTIONS"):
        response = server.request(method, "/health")
        assert response.status == 405
        assert response.header("allow") == "GET, HEAD"


def test_connection_goes_on(serve):
    """Health checks, application and pipelines share a connection."""
    server = serve(APP, "--health-path", "/health")
    with server.connect() as conn:
        one = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        two = b"GET /two HTTP/1.1\r\nHost: x\r\n\r\n"
        conn.send(one + two + one + two)
        bodies = [conn.read_response().body for _ in range(4)]
        assert bodies == [b"ready\n", b"app /two", b"ready\n", b"app /two"]
        conn.send(one)
        assert conn.read_response().body == b"ready\n"


def test_body_that_is_not_there_is_refused_with_the_connection(serve):
    server = serve(APP, "--health-path", "/health")
    with server.connect() as conn:
        conn.send(b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        assert not conn.read_response().will_close
        conn.send(b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nhello")
        response = conn.read_response()
        assert response.status == 200 and response.will_close
        assert conn.at_end()


def test_not_in_the_access_log(serve):
    server = serve(APP, "--health-path", "/health")
    server.get("/health")
    server.get("/seen")
    server.wait_log("GET /seen", out=True)
    assert "/health" not in server.stdout()


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("how", ["/wait", "/keep"])
def test_while_the_application_is_stuck(serve, threads, how, gate):
    server = serve(APP, "--health-path", "/health", "--threads", threads)
    busy = [server.connect() for _ in range(int(threads))]
    for conn in busy:
        conn.send("GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % how)
    with server.connect() as conn:
        for path, body in (("/health", b"ready\n"), ("/health/live", b"live\n")) * 5:
            conn.send("GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            assert conn.read_response().body == body
    # None of the calls has ended: the answers did not wait for them.
    assert busy[0].is_quiet(0.01)
    gate.let_go(len(busy))
    for conn in busy:
        assert conn.read_response().status == 200
        conn.close()


def test_not_ready_while_stopping(serve, gate):
    server = serve(APP, "--health-path", "/health")
    early = [server.connect() for _ in range(2)]
    with server.connect() as busy:
        busy.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        server.get("/health")  # the connections before it have been accepted
        server.send_signal(signal.SIGTERM)
        server.wait_log("stopping, requests in progress")
        for conn, path, status in ((early[0], "/health", 503), (early[1], "/health/live", 200)):
            conn.send("GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            response = conn.read_response()
            assert response.status == status and response.will_close
            if status == 503:
                assert response.body == b"not ready: the server is stopping\n"
        gate.let_go()
        assert busy.read_response().body == b"app /wait"
    server.wait()


def test_ready_while_one_worker_is_replaced(serve):
    server = serve(APP, "--health-path", "/health", "--workers", "2")
    server.wait_log("ready after")
    for _ in range(2):
        server.send_signal(signal.SIGHUP)
        for _ in range(50):
            assert server.get("/health").body == b"ready\n"


def test_not_ready_while_the_queue_is_full(serve, gate):
    server = serve(APP, "--health-path", "/health", "--workers", "1", "--max-queue", "2")
    busy = [server.connect() for _ in range(3)]
    for conn in busy:
        conn.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    with server.connect() as conn:
        while (response := server.get("/health", conn=conn)).status == 200:
            assert b"ready\n" == response.body
        assert response.status == 503
        assert response.body == b"not ready: the queue of every worker is full\n"
        assert server.get("/health/live", conn=conn).status == 200
        gate.let_go(len(busy))
        for waiting in busy:
            assert waiting.read_response().status == 200
            waiting.close()
        while server.get("/health", conn=conn).status == 503:
            pass  # its last request ends
        assert server.get("/health", conn=conn).status == 200


@pytest.mark.parametrize("value", ["health", "/health?x", ""])
def test_bad_path(serve, value):
    server = serve(APP, "--health-path", value, start=False, check=False).spawn()
    assert server.wait() == 1
    assert "health-path" in server.log()
