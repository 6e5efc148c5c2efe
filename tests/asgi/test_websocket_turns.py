"""Messages on many WebSockets at once: their applications go on one behind the other in one turn, and what they send leaves
together. No client sees that by anything but the time it takes."""

import pytest

from tests.asgi.conftest import LOOPS
from tests.front.raw import get
from tests.lib.gate import GATE, Gate
from tests.lib.websocket import CLOSE, PING, PONG, TEXT, WebSocket

MANY = 12
SIZES = [10, 300, 5000, 10, 20000, 130, 70000, 5, 2048, 0, 2049, 1]

APP = (
    GATE
    + """
import asyncio
import contextvars
import json

members = []
asked = 0
number = contextvars.ContextVar("number")
SIZES = %r


async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/hold":
            wait_at_gate()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await globals()[scope["path"][1:]](receive, send)


async def block(receive, send, holding=False):
    global asked
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        asked += 1
        await send({"type": "websocket.send", "text": "%%d" %% asked})
        if asked %% %d == 0:
            wait_at_gate(holding)


async def block_holding(receive, send):
    await block(receive, send, True)


async def order(receive, send):
    await receive()
    for i, size in enumerate(SIZES):
        await send({"type": "websocket.send", "text": "%%d:" %% i + "x" * size})
    await send({"type": "websocket.close", "code": 4001})


async def everybody(receive, send):
    members.append(send)
    try:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            for i in range(3):
                for member in members:
                    await member({"type": "websocket.send", "text": "%%s %%d" %% (message["text"], i)})
    finally:
        members.remove(send)


async def own(receive, send):
    me = (await receive())["text"]
    number.set(me)
    task = asyncio.current_task()
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        same = number.get() == me and asyncio.current_task() is task
        await send({"type": "websocket.send", "text": "%%s %%s" %% (me, same)})


async def victim(receive, send):
    members.append(asyncio.current_task())
    await send({"type": "websocket.send", "text": "ready"})
    while True:
        try:
            message = await receive()
        except asyncio.CancelledError:
            await send({"type": "websocket.send", "text": "cancelled"})
            continue
        if message["type"] == "websocket.disconnect":
            break
        await send({"type": "websocket.send", "text": message["text"]})
    members.clear()


async def murderer(receive, send):
    while (await receive())["type"] == "websocket.receive":
        members[0].cancel()
        await send({"type": "websocket.send", "text": "done"})


async def impatient(receive, send):
    while True:
        try:
            message = await asyncio.wait_for(receive(), 0.001)
        except asyncio.TimeoutError:
            continue
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message["text"]})
"""
    % (SIZES, MANY)
)


@pytest.fixture(scope="module", params=LOOPS)
def server(request, serve_module):
    return serve_module(APP, "-w", "1", "--loop", request.param, "--lifespan", "off", "--websocket-compression", "off")


@pytest.fixture
def gate(server):
    with Gate(server.cwd) as gate:
        yield gate
    (server.cwd / "gate").unlink()


def read_text(ws):
    fin, reserved, opcode, payload = ws.frame()
    assert (fin, reserved, opcode) == (True, 0, TEXT)
    return payload.decode()


def all_at_once(server, gate, sockets, texts):
    """Sends a message on each while the event loop is kept, so that it finds them all when it is let go."""
    holder = server.connect()
    holder.send(get(target="/hold"))
    for ws, text in zip(sockets, texts):
        ws.text(text)
    gate.let_go()
    assert holder.read_response().status == 200


def open_many(server, path, count=MANY):
    return [WebSocket(server, path) for _ in range(count)]


def close_all(sockets):
    for ws in sockets:
        ws.conn.close()


@pytest.mark.parametrize("path", ["/block", "/block_holding"])
def test_a_handler_that_blocks_keeps_no_answer_of_others(server, gate, path):
    sockets = open_many(server, path)
    holder = server.connect()
    holder.send(get(target="/hold"))
    for ws in sockets:
        ws.text("go")
    gate.let_go()
    answers = [int(read_text(ws)) for ws in sockets]  # the last of them blocks by now
    assert sorted(number % MANY for number in answers) == list(range(MANY))
    gate.let_go()
    assert holder.read_response().status == 200
    close_all(sockets)


def test_order(server, gate):
    sockets = open_many(server, "/order")
    all_at_once(server, gate, sockets, ["go"] * MANY)
    for ws in sockets:
        for i, size in enumerate(SIZES):
            assert read_text(ws) == "%d:" % i + "x" * size
        opcode, payload = ws.frame()[2:]
        assert (opcode, payload) == (CLOSE, (4001).to_bytes(2, "big"))
    close_all(sockets)


def test_pongs_come_between_whole_messages(server, gate):
    sockets = open_many(server, "/everybody", 4)
    for ws in sockets:
        ws.send(PING, b"before")
    all_at_once(server, gate, sockets, "abcd")
    for ws in sockets:
        ws.send(PING, b"behind")
        frames = [ws.frame()[2:] for _ in range(14)]
        assert [payload for opcode, payload in frames if opcode == PONG] == [b"before", b"behind"]
        texts = [payload.decode() for opcode, payload in frames if opcode == TEXT]
        assert {text[0] for text in texts} == set("abcd")
        for sender in "abcd":
            assert [text for text in texts if text[0] == sender] == ["%s %d" % (sender, i) for i in range(3)]
    close_all(sockets)


def test_each_in_its_own_task_and_context(server, gate):
    sockets = open_many(server, "/own")
    for i, ws in enumerate(sockets):
        ws.text("n%d" % i)
    for _ in range(3):
        all_at_once(server, gate, sockets, ["?"] * MANY)
        assert [read_text(ws) for ws in sockets] == ["n%d True" % i for i in range(MANY)]
    close_all(sockets)


def test_cancelled_as_its_message_comes(server, gate):
    for order in (1, -1):
        with WebSocket(server, "/victim") as victim, WebSocket(server, "/murderer") as murderer:
            assert read_text(victim) == "ready"
            all_at_once(server, gate, [victim, murderer][::order], ["message"] * 2)
            assert read_text(murderer) == "done"
            assert {read_text(victim), read_text(victim)} == {"message", "cancelled"}
            victim.echo(TEXT, b"behind")
            victim.close()
            murderer.close()


def test_waiting_in_pieces(server):
    with WebSocket(server, "/impatient") as ws:
        for i in range(200):
            ws.echo(TEXT, b"%d" % i)
        ws.close()
