"""python-socketio's application, and its client: long polling, the upgrade, rooms, and reconnecting at a reload."""

import asyncio
import importlib.util
import os
import signal
from pathlib import Path

import pytest

socketio = pytest.importorskip("socketio")
pytest.importorskip("aiohttp")

APPS = Path(__file__).parent / "apps"
LOOPS = ["asyncio"] + (["uvloop"] if importlib.util.find_spec("uvloop") else [])
SECONDS = 30


@pytest.fixture(scope="module", params=LOOPS)
def server(request, serve_module):
    return serve_module("socketio_app:app", "-w", "1", "--loop", request.param, cwd=APPS, env={"PYTHONDONTWRITEBYTECODE": "1"})


def run(coro):
    return asyncio.run(asyncio.wait_for(coro, SECONDS * 3))


async def client(server, *transports, **kwargs):
    made = socketio.AsyncClient(reconnection_delay=0.1, reconnection_delay_max=0.5, randomization_factor=0)
    await made.connect(server.url, transports=list(transports) or None, wait_timeout=SECONDS, **kwargs)
    return made


async def leave(sio):
    """Without waiting for the poll that the server holds until its next ping."""
    await sio.eio.disconnect(abort=sio.transport() == "polling")
    if sio.eio.http and not sio.eio.http.closed:
        await sio.eio.http.close()


@pytest.mark.parametrize("transports", [("polling",), ("websocket",), ("polling", "websocket")], ids=["polling", "websocket", "upgrade"])
def test_transports(server, transports):
    async def talk():
        sio = await client(server, *transports, headers={"X-Name": "somebody"})
        try:
            assert await sio.call("name", timeout=SECONDS) == "somebody"
            for data in ("text ü", {"list": [1, None, "two"]}, bytes(range(256)) * 100, "x" * 200000):
                assert await sio.call("echo", data, timeout=SECONDS) == data
            if len(transports) == 2:
                while sio.transport() != "websocket":
                    await asyncio.sleep(0.01)
            assert sio.transport() == transports[-1]
            answers = await asyncio.gather(*(sio.call("echo", number, timeout=SECONDS) for number in range(12)))  # 16 packets may come at once
            assert answers == list(range(12))
        finally:
            await leave(sio)

    run(talk())


def test_rooms(server):
    async def talk():
        sios = [await client(server, *(("polling",) if number % 2 else ("websocket",))) for number in range(6)]
        heard = [asyncio.Queue() for _ in sios]
        try:
            for sio, queue in zip(sios, heard):
                sio.on("said", queue.put)
            for sio in sios[:4]:
                await sio.call("enter", "room", timeout=SECONDS)
            await sios[5].emit("say", ("room", "hello"))
            for queue in heard[:4]:
                assert await asyncio.wait_for(queue.get(), SECONDS) == "hello"
            assert all(queue.empty() for queue in heard)
        finally:
            for sio in sios:
                await leave(sio)

    run(talk())


def test_refused_and_other_paths(server):
    async def talk():
        with pytest.raises(socketio.exceptions.ConnectionError):
            await client(server, auth="no")

    run(talk())
    assert server.get("/").text.endswith("have left")


def test_reload(server):
    async def talk():
        sio = await client(server, "websocket")
        back = asyncio.Event()
        try:
            assert await sio.call("echo", "before", timeout=SECONDS) == "before"
            sio.on("connect", back.set)
            os.kill(server.pid, signal.SIGHUP)
            await asyncio.wait_for(back.wait(), SECONDS)
            assert await sio.call("echo", "behind", timeout=SECONDS) == "behind"
        finally:
            await leave(sio)

    run(talk())
