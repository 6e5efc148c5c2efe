"""Time-outs, clients that leave, blocked event loops, and the end of a worker."""

import sys
import threading
from pathlib import Path

import pytest

from tests.front.raw import get

HERE = Path(__file__).parent
pytestmark = pytest.mark.parametrize("loop", ["auto", "asyncio"])


@pytest.fixture
def serve_loop(serve, loop):
    def start(*options, **kwargs):
        env = {"PYTHONDONTWRITEBYTECODE": "1"}
        return serve("asgi_app:app", "-w", "1", "--loop", loop, *options, cwd=HERE, env=env, **kwargs)

    return start


def wait_for(server, word):
    while word not in server.get("/events_log").json():
        pass


def test_rules_for_a_response_that_comes_late(serve_loop, tmp_path):
    (tmp_path / "rules.toml").write_text('[[header]]\nprefix = "/task"\nset = "X-Rule: yes"\n')
    server = serve_loop("--config", str(tmp_path / "rules.toml"))
    for target, expected in (("/task?sleep", "yes"), ("/task", "yes"), ("/var?sleep", None)):
        assert server.get(target).header("X-Rule") == expected


def test_request_timeout(serve_loop):
    server = serve_loop("--request-timeout", "300ms")
    with server.connect() as conn:
        conn.send(get(target="/cancel_told"))
        assert conn.read_response().status == 504
    wait_for(server, "cancelled")
    assert server.get("/slow_then_ok").status == 200


@pytest.mark.skipif(sys.version_info < (3, 11), reason="requests begin in a task of their own, from the event loop")
def test_request_timeout_of_a_handler_that_blocks(serve_loop):
    server = serve_loop("--request-timeout", "300ms")
    with server.connect() as conn:
        conn.send(get(target="/computes?20"))
        assert conn.read_response().status == 504
    assert server.get("/pid").status == 200


def test_cancel_on_disconnect(serve_loop):
    server = serve_loop("--cancel-on-disconnect")
    conn = server.connect()
    conn.send(get(target="/cancel_told"))
    wait_for(server, "begun")
    conn.reset()
    wait_for(server, "cancelled")


def test_a_client_that_leaves_cancels_nothing_by_default(serve_loop):
    server = serve_loop()
    conn = server.connect()
    conn.send(get(target="/background"))
    conn.read_response()
    conn.reset()
    server.get("/open?background")
    wait_for(server, "behind the response")


def test_a_blocked_event_loop_stops_only_the_application(serve_loop):
    server = serve_loop("--health-path", "/healthz")
    with server.connect() as blocked, server.connect() as waiting:
        blocked.send(get(target="/computes?1.5"))
        for _ in range(5):
            assert server.get("/healthz").status == 200
        waiting.send(get(target="/pid"))
        assert blocked.read_response().body == b"computed"
        assert waiting.read_response().status == 200


def test_requests_are_finished_at_the_end(serve_loop):
    server = serve_loop()
    with server.connect() as conn:
        conn.send(get(target="/slow_then_ok"))
        server.get("/pid")
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        assert conn.read_response().body == b"slow"
        stopper.join()


def test_requests_that_do_not_end_are_cut(serve_loop):
    server = serve_loop("--graceful-timeout", "300ms")
    with server.connect() as conn:
        conn.send(get(target="/sleeps"))
        server.get("/pid")
        server.stop()
        assert conn.read_to_end() == b""
