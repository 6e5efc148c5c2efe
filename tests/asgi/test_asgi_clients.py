"""Clients of others, as they are: httpx and aiohttp over HTTP/1.1, aiohttp and websockets over WebSockets."""

import asyncio
import importlib.util
import os
import random
import zlib

import pytest

httpx = pytest.importorskip("httpx")
aiohttp = pytest.importorskip("aiohttp")
websockets = pytest.importorskip("websockets")

APP = """
    import asyncio, zlib

    async def body_of(receive):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            yield message["body"]
            if not message["more_body"]:
                return

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
            while True:
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    return
                if message.get("text") == "close":
                    await send({"type": "websocket.close", "code": 4001, "reason": "as you like"})
                    return
                await send({**message, "type": "websocket.send"})
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-port", b"%d" % scope["client"][1])]})
            if scope["path"] == "/down":
                for number in range(int(scope["query_string"])):
                    await send({"type": "http.response.body", "body": b"%07d\\n" % number * 1000, "more_body": True})
                    if number % 5 == 0:
                        await asyncio.sleep(0)
                await send({"type": "http.response.body"})
            elif scope["path"] == "/echo":
                async for block in body_of(receive):
                    await send({"type": "http.response.body", "body": block, "more_body": True})
                await send({"type": "http.response.body"})
            else:
                check, size = 0, 0
                async for block in body_of(receive):
                    check, size = zlib.crc32(block, check), size + len(block)
                await send({"type": "http.response.body", "body": b"%d %d" % (size, check)})
"""
LOOPS = ["asyncio"] + (["uvloop"] if importlib.util.find_spec("uvloop") else [])
DATA = random.Random(7).randbytes(3_000_000)
DOWN = b"".join(b"%07d\n" % number * 1000 for number in range(100))


@pytest.fixture(scope="module", params=LOOPS)
def server(request, serve_module):
    return serve_module(APP, "--workers", "1", "--loop", request.param)


def run(coro):
    return asyncio.run(asyncio.wait_for(coro, 120))


async def blocks(size=70000, pause=0.0):
    for at in range(0, len(DATA), size):
        yield DATA[at : at + size]
        if pause:
            await asyncio.sleep(pause)


def test_httpx(server):
    async def talk():
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
            ports = {(await client.get("/")).headers["x-port"] for _ in range(20)}
            assert len(ports) == 1  # one connection
            want = "%d %d" % (len(DATA), zlib.crc32(DATA))
            assert (await client.post("/", content=DATA)).text == want
            assert (await client.post("/", content=blocks(pause=0.001))).text == want
            assert (await client.post("/echo", content=blocks())).content == DATA
            async with client.stream("GET", "/down?100") as response:
                assert b"".join([block async for block in response.aiter_bytes()]) == DOWN
            many = await asyncio.gather(*(client.post("/echo", content=DATA[:number]) for number in range(0, 100000, 1000)))
            assert [len(response.content) for response in many] == list(range(0, 100000, 1000))

    run(talk())


def test_aiohttp(server):
    async def talk():
        async with aiohttp.ClientSession(server.url, timeout=aiohttp.ClientTimeout(60)) as session:
            for data in (DATA, blocks()):
                async with session.post("/", data=data) as response:
                    assert await response.text() == "%d %d" % (len(DATA), zlib.crc32(DATA))
            async with session.post("/echo", data=blocks(), expect100=True) as response:
                assert await response.read() == DATA
            async with session.get("/down?100") as response:
                assert await response.read() == DOWN

            async def one(number):
                async with session.post("/echo", data=DATA[number : number * 2]) as response:
                    return await response.read() == DATA[number : number * 2]

            assert all(await asyncio.gather(*(one(number * 300) for number in range(150))))

    run(talk())


@pytest.mark.parametrize("compress", [0, 9, 15])
def test_aiohttp_websocket(server, compress):
    async def talk():
        async with aiohttp.ClientSession(server.url) as session:
            async with session.ws_connect("/", protocols=["v1", "v2"], compress=compress, max_msg_size=0) as ws:
                assert ws.protocol == "v1"
                for size in (0, 1, 125, 126, 65535, 65536, 1_000_000):
                    await ws.send_bytes(DATA[:size])
                    assert await ws.receive_bytes(timeout=30) == DATA[:size]
                    await ws.send_str("ü" * size)
                    assert await ws.receive_str(timeout=30) == "ü" * size
                await ws.ping(b"there?")
                await ws.send_str("close")
                message = await ws.receive(timeout=30)
                assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 4001, "as you like")
            async with session.ws_connect("/") as ws:
                await ws.close(code=3999)

    run(talk())


@pytest.mark.parametrize("deflate", ["deflate", None])
def test_websockets_asyncio(server, deflate):
    async def talk():
        url = "ws://127.0.0.1:%d/" % server.port
        async with websockets.connect(url, compression=deflate, max_size=None, proxy=None) as ws:

            async def parts():
                for at in range(0, 500000, 50000):
                    yield DATA[at : at + 50000]

            await ws.send(parts())
            assert await ws.recv() == DATA[:500000]
            for number in range(300):  # more than one waits
                await ws.send("message %d " % number * 50)
            for number in range(300):
                assert await ws.recv() == "message %d " % number * 50
            assert await asyncio.wait_for(await ws.ping(), 30) >= 0
            await ws.send("close")
            with pytest.raises(websockets.ConnectionClosedError) as caught:
                await ws.recv()
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "as you like")

    run(talk())


def test_websockets_sync(server):
    sync = pytest.importorskip("websockets.sync.client")
    with sync.connect("ws://127.0.0.1:%d/" % server.port, proxy=None, max_size=None) as ws:
        for message in ("text", b"bytes", os.urandom(300000), "ü" * 100000, ""):
            ws.send(message)
            assert ws.recv(30) == message
        ws.send(["a", "b", "c"])
        assert "".join(ws.recv_streaming()) == "abc"
        assert ws.ping().wait(30)
        ws.close(4999, "bye")
        assert ws.close_code == 4999
