"""Each request is alone in its task and context, although tasks are used again."""

from contextlib import ExitStack

import pytest

pytestmark = pytest.mark.smoke
WAYS = ["", "wait", "sleep"]


@pytest.fixture(params=WAYS)
def ask(request, server):
    """Asks a handler that waits in the parameter's way, and what is left afterwards."""

    def call(target, times=1):
        with server.connect() as conn:
            found = []
            for _ in range(times):
                conn.send("GET %s?%s HTTP/1.1\r\nHost: a\r\n\r\n" % (target, request.param))
                found.append(conn.read_response().json())
                conn.send("GET /clean?%s HTTP/1.1\r\nHost: a\r\n\r\n" % request.param)
                assert conn.read_response().json() == ["clean", 0, True, None]
        return found

    server.get("/collect")
    call.way = request.param
    return call


def test_current_task(ask):
    assert ask("/task", 3) == [[True, True, True, False]] * 3


def test_requests_that_await_one_future(server):
    with ExitStack() as stack:
        conns = [stack.enter_context(server.connect()) for _ in range(12)]
        for _ in range(3):
            for conn in conns:
                conn.send("GET /shared HTTP/1.1\r\nHost: a\r\n\r\n")
            assert [conn.read_response().json() for conn in conns] == ["one"] * 12


def test_context(ask):
    assert ask("/var", 3) == [["clean", "dirty"]] * 3
    assert ask("/var", 12) == [["clean", "dirty"]] * 12


def test_variables_end_with_their_request(ask, server):
    """What they hold is let go at once, and not when the next request comes."""
    for times in range(4):
        assert ask("/session", 3) == [[None, True]] * 3
        assert server.get("/session_left").json() == [0, False]


def test_variables_that_can_be_reset_later(ask, server):
    """Whoever keeps a token keeps the context, which then is no other request's."""
    assert ask("/session?keep", 3) == [[None, True]] * 3
    assert server.get("/session_left").json()[1] is False
    server.get("/collect")


def test_sessions_by_task(ask, server):
    for found, _, size in ask("/weak", 4):
        assert found is None
    assert server.get("/collect").json() == [0]


def test_held_tasks(ask):
    assert ask("/hold", 4) == [[None, False]] * 4


def test_attributes_and_names(ask):
    assert ask("/attribute", 3) == [[None]] * 3
    assert all(found != ["mine"] for found in ask("/name", 3))


@pytest.mark.parametrize("way", WAYS)
def test_done_callbacks(server, wait_for_log, way):
    for _ in range(3):
        assert server.get("/callback?" + way).body == b"called"
    found = wait_for_log("done " + way)
    for _ in range(200):
        if found.count("done " + way) == 3:
            break
        found = server.get("/events_log").json()
    assert found.count("done " + way) == 3


def test_cancelling_oneself(ask):
    assert ask("/cancel_self", 3) == [[ask.way != ""]] * 3


def test_cancelled_before_the_task_takes_over(server):
    for _ in range(3):
        assert server.get("/cancelled_early").text == "cancelled, inner cancelled"
        assert server.get("/clean").json()[1] == 0


def test_timeouts_and_groups(server):
    for _ in range(2):
        found = server.get("/timeout").json()
        assert found[-2:] == ["wait_for", "thread"]
        assert found[:-2] in ([], ["timeout", "child"])


def test_anyio(server):
    pytest.importorskip("anyio")
    assert server.get("/anyio_app").json() == ["asyncio", True, True]


def test_background(server, wait_for_log):
    with server.connect() as conn:
        conn.send(b"GET /background HTTP/1.1\r\nHost: a\r\n\r\nGET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
        assert conn.read_response().body == b"answered"
        assert conn.read_response().status == 200
    server.get("/open?background")
    wait_for_log("behind the response")


def test_many_at_once(server):
    connections = [server.connect() for _ in range(50)]
    for turn in range(2):
        for number, conn in enumerate(connections):
            conn.send("GET /var?%s HTTP/1.1\r\nHost: a\r\n\r\n" % WAYS[(number + turn) % 3])
        for conn in connections:
            assert conn.read_response().json() == ["clean", "dirty"]
    for conn in connections:
        conn.close()


def test_tasks_that_are_not_used_again(server):
    """An application that keeps its tasks gets one for each request; they wait for bodies as well."""
    for _ in range(12):
        server.get("/hold")
    for _ in range(3):
        with server.connect() as conn:
            conn.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 200004\r\n\r\nab")
            assert server.get("/task").json() == [True, True, True, False]
            conn.send(b"c" * 200000)
            assert server.get("/clean?wait").json() == ["clean", 0, True, None]
            conn.send(b"de")
            assert conn.read_response().body == b"ab" + b"c" * 200000 + b"de"
    server.get("/collect")
