"""However many requests are there, the event loop's own callbacks and timers get their turn between them."""

import pytest

from tests.asgi.conftest import LOOPS
from tests.front.raw import get

MANY = 150
# What a turn consists of ends after a millisecond, behind the request that is under way: jobs, and what is
# ready; uvloop may have two turns in an iteration. Each may end with a request more that came in one piece.
MOST = 8

APP = """
import asyncio
import collections
import time

served = collections.Counter()
now = 0


def tick():
    global now
    now += 1
    asyncio.get_event_loop().call_later(0, tick)


async def app(scope, receive, send):
    global now
    if scope["type"] != "http":
        raise RuntimeError
    if scope["path"] == "/begin":
        served.clear()
        if now == 0:
            tick()
    elif scope["path"] == "/burn":
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass
        served[now] += 1
    elif scope["path"] == "/hold":
        await asyncio.sleep(0)
        time.sleep(0.3)
    text = "%d %d" % (sum(served.values()), max(served.values(), default=0))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})
"""


@pytest.fixture(params=LOOPS)
def server(request, serve):
    return serve(APP, "-w", "1", "--loop", request.param, "--lifespan", "off")


def most(server):
    total, found = map(int, server.get("/").text.split())
    assert total == MANY
    return found


def test_connections_that_are_ready(server):
    conns = [server.connect() for _ in range(MANY)]
    for conn in conns:
        assert server.get("/", conn=conn).status == 200
    server.get("/begin")
    for conn in conns:
        conn.send(get(target="/burn"))
    for conn in conns:
        assert conn.read_response().status == 200
    assert most(server) <= MOST


def test_connections_that_are_new(server):
    server.get("/begin")
    conns = [server.connect() for _ in range(MANY)]
    for conn in conns:
        conn.send(get(target="/burn"))
    for conn in conns:
        assert conn.read_response().status == 200
    assert most(server) <= MOST


def test_requests_in_one_piece(server):
    server.get("/begin")
    with server.connect() as conn:
        conn.send(get(target="/burn") * MANY)
        for _ in range(MANY):
            assert conn.read_response().status == 200
    assert most(server) <= MOST


def test_what_has_come_while_the_event_loop_was_blocked(server):
    server.get("/begin")
    blocker = server.connect()
    blocker.send(get(target="/hold"))
    conns = [server.connect() for _ in range(MANY)]
    for conn in conns:
        conn.send(get(target="/burn"))
    for conn in conns + [blocker]:
        assert conn.read_response().status == 200
    assert most(server) <= MOST
