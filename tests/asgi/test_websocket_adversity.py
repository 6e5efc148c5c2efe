"""WebSockets of clients that mean harm, or break: each costs itself its connection, and nobody else anything."""

import importlib.util
import os
import signal
import struct
import subprocess
import time
import zlib

import pytest

from tests.fronts.fronts import Client
from tests.lib.swarm import Member, Swarm, anonymous_kb, descriptors, text_frame
from tests.lib.websocket import BINARY, CLOSE, CONT, PING, PONG, TEXT, WebSocket, frame, handshake

APP = """
    import asyncio, json, os

    ended = []

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            state = {"pid": os.getpid(), "tasks": len(asyncio.all_tasks()), "ended": ended}
            await send({"type": "http.response.body", "body": json.dumps(state).encode()})
        elif scope["type"] == "websocket":
            await receive()
            if scope["path"] == "/late":
                await asyncio.sleep(0.3)
            try:
                await send({"type": "websocket.accept"})
                while True:
                    message = await receive()
                    if message["type"] == "websocket.disconnect":
                        ended.append(message["code"])
                        return
                    await send({**message, "type": "websocket.send"})
            except OSError:
                ended.append("OSError")
"""
LOOPS = ["asyncio"] + (["uvloop"] if importlib.util.find_spec("uvloop") else [])


@pytest.fixture(scope="module", params=LOOPS)
def server(request, serve_module):
    return serve_module(APP, "--workers", "1", "--loop", request.param, "--websocket-max-message", "1m", "--head-timeout", "1s")


def state(server):
    return server.get("/").json()


@pytest.fixture
def bystander(server):
    """A WebSocket that echoes all the time; whatever happens to the others, it goes on."""
    with WebSocket(server) as ws:
        ws.echo(TEXT, b"before")
        yield ws
        ws.echo(TEXT, b"behind")
        ws.close()


@pytest.fixture
def memory(server):
    """Nothing of it has cost the worker more than some MB, and no descriptor is left."""
    pid = state(server)["pid"]
    before, files = anonymous_kb(pid), descriptors(pid)
    yield
    assert state(server)["pid"] == pid
    assert anonymous_kb(pid) - before < 24000
    end = time.monotonic() + 30
    while descriptors(pid) > files:
        assert time.monotonic() < end, "descriptors are left"
        time.sleep(0.02)


def test_half_handshakes(server, bystander):
    """Those who do not go on are answered 408 in time; those who leave before the answer cost nothing."""
    whole = handshake("/")
    with Swarm(server.address) as swarm:
        for number in range(200):
            swarm.send(swarm.connect(), whole[: 1 + number * (len(whole) - 2) // 200])
        bystander.echo(TEXT, b"meanwhile")
        swarm.wait(swarm.members, lambda member: member.eof, "the end of half handshakes")
        assert all(member.buffer.startswith(b"HTTP/1.1 408 ") for member in swarm.members)
        swarm.drop_all()
        for _ in range(50):
            swarm.send(swarm.connect(), handshake("/late"))
        bystander.echo(TEXT, b"accepting")
        swarm.drop_all(reset=True)
    end = time.monotonic() + 20
    while state(server)["tasks"] > 70:
        assert time.monotonic() < end, state(server)
        time.sleep(0.02)


def test_a_flood_of_pings(server, bystander, memory):
    """Their pongs are not kept for a client that does not read."""
    flood = frame(PING, b"p" * 125) * 2000
    with Swarm(server.address) as swarm:
        (member,) = swarm.open_websockets(1, receive_buffer=4096)
        swarm.read(member, False)
        for _ in range(40):
            swarm.send(member, flood)
            swarm.turn(0.01)
            bystander.echo(TEXT, b"meanwhile")
        swarm.read(member, True)
        swarm.send(member, text_frame(b"the end"))
        pongs = 0
        while True:
            swarm.wait([member], Member.has_frame, "the pongs")
            opcode, payload = member.take_frame()
            if opcode == TEXT:
                break
            assert (opcode, payload) == (PONG, b"p" * 125)
            pongs += 1
        assert 100 < pongs < 80000 and payload == b"the end"


def test_floods_of_pongs_and_empty_fragments(server, bystander, memory):
    with WebSocket(server) as ws:
        ws.conn.send(frame(PONG, b"nobody asked") * 30000)
        ws.send(TEXT, b"begin", fin=False)
        ws.conn.send(frame(CONT, b"", fin=False) * 50000)
        bystander.echo(TEXT, b"meanwhile")
        ws.send(CONT, b" end")
        ws.expect(TEXT, b"begin end")
        ws.close()


def test_fragments_of_one_byte(server, bystander, memory):
    data = os.urandom(50000)
    with WebSocket(server) as ws:
        frames = [frame(CONT if at else BINARY, data[at : at + 1], fin=at == len(data) - 1) for at in range(len(data))]
        ws.conn.send(b"".join(frames))
        ws.expect(BINARY, data)
        ws.close()


@pytest.mark.parametrize("how", ["announced", "in fragments", "in small fragments"])
def test_messages_beyond_the_limit(server, bystander, memory, how):
    with WebSocket(server) as ws:
        if how == "announced":
            ws.conn.send(struct.pack("!BBQ", 0x82, 0xFF, 1 << 40) + b"mask")
        else:
            size = 300000 if how == "in fragments" else 1000
            part = frame(CONT, bytes(size), fin=False)
            try:
                ws.send(BINARY, b"x", fin=False)
                for _ in range((1 << 21) // size):
                    ws.conn.send(part)
            except ConnectionError:
                pass  # it is not read any more
        ws.expect_close(1009)


@pytest.mark.parametrize("compression", ["shared", "dedicated"])
def test_deflate_bombs(serve, compression):
    """Sixty times what is taken, as one message, in fragments, and in many messages."""
    server = serve(APP, "--workers", "1", "--websocket-max-message", "1m", "--websocket-compression", compression)
    pid = state(server)["pid"]
    packer = zlib.compressobj(1, zlib.DEFLATED, -12)
    block = bytes(1 << 20)
    bomb = b"".join(packer.compress(block) for _ in range(64)) + packer.flush(zlib.Z_SYNC_FLUSH)
    bomb = bomb[:-4]
    assert len(bomb) < 1 << 20
    before = anonymous_kb(pid)
    for parts in (1, 10):
        with WebSocket(server, offer="permessage-deflate") as ws:
            size = len(bomb) // parts + 1
            try:
                for at in range(0, len(bomb), size):
                    ws.send(CONT if at else BINARY, bomb[at : at + size], fin=at + size >= len(bomb), rsv=0 if at else 4)
            except ConnectionError:
                pass
            ws.expect_close(1009)
    sockets = [WebSocket(server, offer="permessage-deflate") for _ in range(10)]
    for ws in sockets:  # just within the limit, and the application does not get on with them
        for _ in range(5):
            ws.packed(BINARY, bytes(1 << 20))
    for ws in sockets:
        for _ in range(5):
            ws.expect(BINARY, bytes(1 << 20))
        ws.close()
        ws.conn.close()
    assert anonymous_kb(pid) - before < 100 * 1024


def test_bytes_behind_a_close(server, bystander, memory):
    """They are read for a while, so that the client gets the close frame, and count for nothing."""
    with WebSocket(server) as ws:
        ws.conn.send(frame(CLOSE, struct.pack("!H", 3333)) + os.urandom(200000))
        assert ws.message() == (CLOSE, struct.pack("!H", 3333))
        ws.expect_end()
    assert 3333 in state(server)["ended"]


def test_closing_without_a_word(server, bystander, memory):
    with Swarm(server.address) as swarm:
        for how in range(3):
            members = swarm.open_websockets(100)
            for member in members:
                swarm.send(member, (frame(CLOSE), text_frame(b"x")[:3], frame(TEXT, b"begun", fin=False))[how])
            if how == 0:
                swarm.wait(members, lambda member: member.eof, "the ends")
                assert all(bytes(member.buffer) == b"\x88\0" for member in members)
            swarm.drop_all(reset=how == 2)


def test_tls(serve, tmp_path):
    """Frames in records of any size, a reload in the middle, and a client that breaks off."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost"]
        + ["-days", "9", "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")],
        check=True,
        capture_output=True,
    )
    server = serve(
        APP, "--workers", "1", "--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem", "--bind", "https://127.0.0.1:0"
    )
    port = int(server.wait_log(r"https://127\.0\.0\.1:(\d+)").group(1))
    class Secure:
        @staticmethod
        def connect():
            return Client(("127.0.0.1", port), tls=True)

    data = os.urandom(500000)
    with WebSocket(Secure, behind=frame(TEXT, b"early")) as ws:
        ws.expect(TEXT, b"early")
        ws.echo(BINARY, data)
        ws.conn.send(frame(TEXT, b"half")[:3])
        ws.conn.reset()
    with WebSocket(Secure) as ws:
        whole = frame(TEXT, b"byte by byte")
        for at in range(len(whole)):
            ws.conn.send(whole[at : at + 1])
        ws.expect(TEXT, b"byte by byte")
        for number in range(300):
            ws.send(BINARY, data[number : number + 3000])
        for number in range(300):
            ws.expect(BINARY, data[number : number + 3000])
        server.send_signal(signal.SIGHUP)
        ws.expect_close(1012)
