"""An echo by frames, right and wrong ones: the groups of cases of Autobahn's fuzzing client (framing,
pings, reserved bits, opcodes, fragments, UTF-8, closing, limits, compression), by a client of our own."""

import os
import signal
import struct
import textwrap
import time

import pytest

from tests.lib.gate import GATE, Gate
from tests.lib.websocket import BINARY, CLOSE, CONT, PING, PONG, TEXT, WebSocket, frame

ECHO = """
    async def app(scope, receive, send):
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            message["type"] = "websocket.send"
            await send(message)
"""


@pytest.fixture(scope="module", params=["shared", "dedicated"])
def echo(request, serve_module):
    return serve_module(ECHO, "--workers", "1", "--websocket-compression", request.param)


@pytest.fixture
def ws(echo):
    with WebSocket(echo) as ws:
        yield ws


def chopped(conn, data, size):
    for at in range(0, len(data), size):
        conn.send(data[at : at + size])


# 1: framing

SIZES = [0, 1, 125, 126, 127, 128, 65535, 65536]


@pytest.mark.parametrize("opcode, byte", [(TEXT, b"*"), (BINARY, b"\xfe")], ids=["text", "binary"])
def test_sizes(ws, opcode, byte):
    for size in SIZES:
        ws.echo(opcode, byte * size)
    chopped(ws.conn, frame(opcode, byte * 65536), 997)
    ws.expect(opcode, byte * 65536)
    for size in (0, 1, 200):
        chopped(ws.conn, frame(opcode, byte * size), 1)
        ws.expect(opcode, byte * size)
    ws.close()


# 2: pings and pongs


def test_pings(ws):
    for payload in (b"", b"hello", b"\x00\xff\xfe\xfd", b"\xfe" * 125):
        ws.send(PING, payload)
        ws.expect(PONG, payload)
    ws.send(PONG, b"nobody asked")
    ws.send(PONG)
    for number in range(10):
        ws.send(PING, b"%d" % number)
    for number in range(10):
        ws.expect(PONG, b"%d" % number)
    chopped(ws.conn, frame(PING, b"in pieces"), 1)
    ws.expect(PONG, b"in pieces")
    ws.close()


# 3, 4, 5: what breaks the protocol. Frames before it are answered first.


def f(*args, **kwargs):
    return frame(*args, **kwargs)


BROKEN = {
    "rsv3": f(TEXT, b"x", rsv=1),
    "rsv2": f(TEXT, b"x", rsv=2),
    "rsv1 without the extension": f(TEXT, b"x", rsv=4),
    "all rsv on a binary message": f(BINARY, b"x", rsv=7),
    "rsv on a ping": f(PING, b"x", rsv=5),
    "rsv on a close": f(CLOSE, rsv=6),
    "opcode 3": f(3),
    "opcode 7 with a payload": f(7, b"x"),
    "opcode 11": f(11),
    "opcode 15 with a payload": f(15, b"x"),
    "a ping that is too long": f(PING, b"x" * 126),
    "a ping in fragments": f(PING, b"x", fin=False) + f(CONT, b"y"),
    "a pong in fragments": f(PONG, b"x", fin=False) + f(CONT, b"y"),
    "a close in fragments": f(CLOSE, b"\x03", fin=False) + f(CONT, b"\xe8"),
    "a continuation of nothing": f(CONT, b"x"),
    "a first fragment that continues": f(CONT, b"x", fin=False),
    "a message in a message": f(TEXT, b"x", fin=False) + f(TEXT, b"y"),
    "a fragment in a message": f(TEXT, b"x", fin=False) + f(BINARY, b"y", fin=False),
    "no mask": f(TEXT, b"x", masked=False),
    "a length in two bytes that fits one": f(TEXT, b"x", size=2),
    "a length in eight bytes that fits two": f(TEXT, b"x" * 126, size=8),
    "a length of 2^63": b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    "a close code in one byte": f(CLOSE, b"\x03"),
}


@pytest.mark.parametrize("data", list(BROKEN.values()), ids=list(BROKEN))
@pytest.mark.parametrize("way", ["together", "apart", "byte by byte"])
def test_broken_frames(ws, data, way):
    first = frame(TEXT, b"before") + frame(PING, b"?")
    behind = frame(TEXT, b"behind")
    if way == "together":
        ws.conn.send(first + data + behind)
    elif way == "byte by byte":
        chopped(ws.conn, first + data, 1)
    else:
        ws.conn.send(first)
    found = {ws.message(), ws.message()}  # the pong may come first: nobody waits for it
    assert found == {(TEXT, b"before"), (PONG, b"?")}
    if way == "apart":
        ws.conn.send(data)
    ws.expect_close(1002)


# 5, 10: fragments


def test_fragments(ws):
    ws.conn.send(f(TEXT, b"one", fin=False) + f(CONT, b" two", fin=False) + f(CONT, b" three"))
    ws.expect(TEXT, b"one two three")
    ws.conn.send(f(TEXT, b"one", fin=False) + f(PING, b"p") + f(CONT, b" two"))
    ws.expect(PONG, b"p")
    ws.expect(TEXT, b"one two")
    ws.conn.send(f(BINARY, b"", fin=False) + f(CONT, b"", fin=False) + f(CONT, b""))
    ws.expect(BINARY, b"")
    ws.send(TEXT, b"slow", fin=False)
    for number in range(10):
        ws.send(PING, b"%d" % number)
        ws.expect(PONG, b"%d" % number)
        chopped(ws.conn, f(CONT, b".", fin=False), 1)
    ws.send(CONT, b"!")
    ws.expect(TEXT, b"slow..........!")
    data = bytes(range(256)) * 256
    for at in range(0, len(data), 1300):
        ws.send(BINARY if at == 0 else CONT, data[at : at + 1300], fin=at + 1300 >= len(data))
    ws.expect(BINARY, data)
    ws.close()


# 6: UTF-8

RIGHT = [
    "Hello-µ@ßöäüàá-UTF-8!!",
    "κόσμε",
    "\x00",
    "\x7f\u0080\u07ff\u0800\ud7ff\ue000\ufffd\uffff\U00010000\U0010ffff",
    "\ufdd0\ufffe\U0001fffe",
]
WRONG = [
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\x80",
    b"\xbf\x80",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xc2\x20",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
]


def test_right_text(ws):
    for text in RIGHT:
        data = text.encode()
        ws.echo(TEXT, data)
        for at in range(len(data) + 1):
            ws.conn.send(f(TEXT, data[:at], fin=False) + f(CONT, data[at:]))
            ws.expect(TEXT, data)
        for at in range(len(data)):
            ws.send(TEXT if at == 0 else CONT, data[at : at + 1], fin=at == len(data) - 1)
        ws.expect(TEXT, data)
    ws.close()


@pytest.mark.parametrize("data", WRONG)
def test_wrong_text(echo, data):
    for parts in ([data], [data[:1], data[1:]]):
        with WebSocket(echo) as ws:
            for number, part in enumerate(parts):
                ws.send(CONT if number else TEXT, part, fin=number == len(parts) - 1)
            ws.expect_close(1007)


def test_wrong_text_is_found_at_once(echo):
    """Within a frame that is not complete, at the first byte that makes it wrong."""
    with WebSocket(echo) as ws:
        whole = f(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited")
        ws.conn.send(whole[:-8])
        ws.expect_close(1007)


# 7: closing


def test_close(echo):
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999):
        with WebSocket(echo) as ws:
            ws.close(code)
    with WebSocket(echo) as ws:
        ws.close(None)
    with WebSocket(echo) as ws:
        ws.close(1000, b"r" * 123)
    with WebSocket(echo) as ws:
        ws.close(1000, "ünïcödé".encode())


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_wrong_close_codes(ws, code):
    ws.send(CLOSE, struct.pack("!H", code))
    ws.expect_close(1002)


def test_close_with_a_reason_that_is_no_text(ws):
    ws.send(CLOSE, b"\x03\xe8\xce\xba\xed\xa0\x80")
    ws.expect_close(1007)


def test_nothing_counts_behind_a_close(ws):
    ws.conn.send(f(TEXT, b"before") + f(CLOSE, b"\x03\xe8") + f(TEXT, b"behind") + f(PING) + f(3))
    ws.expect(TEXT, b"before")
    assert ws.message() == (CLOSE, b"\x03\xe8")
    ws.expect_end()


def test_close_within_a_message(ws):
    ws.conn.send(f(TEXT, b"begun", fin=False) + f(CLOSE, b"\x03\xe8"))
    assert ws.message() == (CLOSE, b"\x03\xe8")
    ws.expect_end()


def test_a_process_that_stood_still_answers_before_the_end(serve, tmp_path):
    """What the application was given before the close frame comes first, however late it is for that."""
    block = 'message = await receive()\n        if message.get("text") == "block":\n            wait_at_gate(holding=True)'
    app = GATE + textwrap.dedent(ECHO).replace("message = await receive()", block)
    with Gate(tmp_path) as gate:
        server = serve(app, "--workers", "1")
        with WebSocket(server) as blocks, WebSocket(server) as ws:
            (worker,) = server.worker_pids()
            blocks.send(TEXT, b"block")
            ws.conn.send(f(TEXT, b"before") + f(PING, b"read") + f(CLOSE, b"\x03\xe8"))
            found = {ws.message()}  # by the other thread, as a rule
            os.kill(worker, signal.SIGSTOP)
            gate.let_go()
            time.sleep(2.5)
            os.kill(worker, signal.SIGCONT)
            found.add(ws.message())
            assert found == {(PONG, b"read"), (TEXT, b"before")}
            assert ws.message() == (CLOSE, b"\x03\xe8")
            ws.expect_end()


# 9: large messages


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_large_messages(ws, opcode):
    data = (b"The quick brown fox jumps over the lazy dog; " * 100000)[: 4 << 20]
    ws.conn.settimeout(60)
    ws.echo(opcode, data)
    part = 64 * 1024
    for at in range(0, 1 << 20, part):
        ws.send(opcode if at == 0 else CONT, data[at : at + part], fin=at + part == 1 << 20)
    ws.expect(opcode, data[: 1 << 20])
    ws.close()


def test_many_messages_at_once(ws):
    count = 3000
    ws.conn.send(b"".join(f(TEXT, b"message %d" % n) for n in range(count)))
    for number in range(count):
        ws.expect(TEXT, b"message %d" % number)
    ws.close()


def test_more_than_may_wait_within_the_call_that_accepts(serve, tmp_path):
    """Another thread reads it then, and keeps what it does not decode yet, when that call ends."""
    hold = 'accept"})\n    wait_at_gate(holding=True)\n    import asyncio\n    await asyncio.sleep(0)'
    app = GATE + textwrap.dedent(ECHO).replace('accept"})', hold)
    with Gate(tmp_path) as gate, WebSocket(serve(app, "--workers", "1")) as ws:
        ws.conn.send(b"".join(f(TEXT, b"%d" % n) + (f(PING, b"read") if n == 3000 else b"") for n in range(5000)))
        ws.expect(PONG, b"read")
        gate.let_go()
        for number in range(5000):
            ws.expect(TEXT, b"%d" % number)
        ws.close()


# 12, 13: compression

OFFERS = [
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover",
    "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=15; client_max_window_bits=15",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=10; client_max_window_bits=10",
    'permessage-deflate; server_max_window_bits=8, permessage-deflate; client_max_window_bits="12"',
]


@pytest.mark.parametrize("offer", OFFERS)
def test_compression(echo, offer):
    text = "".join("%d: the same words again and again, ünd sö förth. " % n for n in range(3000)).encode()
    with WebSocket(echo, offer=offer) as ws:
        assert ws.extension.startswith("permessage-deflate")
        for size in (0, 1, 16, 64, 256, 1024, 8192, 65536):
            data = text[:size].decode("utf-8", "ignore").encode()
            for _ in range(3):
                ws.packed(TEXT, data)
                ws.expect(TEXT, data)
        ws.echo(BINARY, b"not compressed")
        ws.packed(BINARY, bytes(range(256)) * 1000)
        ws.expect(BINARY, bytes(range(256)) * 1000)
        packed = ws.deflate(text)
        for at in range(0, len(packed), 1000):
            ws.send(PING, b"between")
            ws.expect(PONG, b"between")
            ws.send(TEXT if at == 0 else CONT, packed[at : at + 1000], fin=at + 1000 >= len(packed), rsv=0 if at else 4)
        ws.expect(TEXT, text)
        ws.close()


@pytest.mark.parametrize("offer", ["permessage-deflate; unknown", "permessage-bzip2", "permessage-deflate; server_max_window_bits=8"])
def test_offers_that_are_not_met(echo, offer):
    with WebSocket(echo, offer=offer) as ws:
        assert ws.extension == ""
        ws.send(TEXT, b"x", rsv=4)
        ws.expect_close(1002)


def test_what_is_compressed_gets_smaller(echo):
    with WebSocket(echo, offer="permessage-deflate") as ws:
        ws.packed(TEXT, b"word " * 10000)
        fin, rsv, opcode, payload = ws.frame()
        assert (fin, rsv, opcode) == (True, 4, TEXT)
        assert len(payload) < 1000


@pytest.mark.parametrize("data, code", [(b"\xff\xff\xff\xff", 1007), (b"\x06", 1007), (b"\xf2\x48\xcd", 1007)])
def test_broken_compression(echo, data, code):
    with WebSocket(echo, offer="permessage-deflate") as ws:
        ws.send(TEXT, data, rsv=4)
        ws.expect_close(code)


def test_compressed_text_that_is_not_utf8(echo):
    with WebSocket(echo, offer="permessage-deflate") as ws:
        ws.packed(TEXT, b"\xed\xa0\x80")
        ws.expect_close(1007)


@pytest.mark.parametrize("how", [{"rsv": 4, "opcode": CONT}, {"rsv": 4, "opcode": PING}, {"rsv": 6, "opcode": TEXT}])
def test_reserved_bits_with_compression(echo, how):
    with WebSocket(echo, offer="permessage-deflate") as ws:
        if how["opcode"] == CONT:
            ws.send(TEXT, ws.deflate(b"x"), fin=False, rsv=4)
        ws.send(how["opcode"], b"x", rsv=how["rsv"])
        ws.expect_close(1002)
