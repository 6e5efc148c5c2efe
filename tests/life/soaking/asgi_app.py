"""The application of app.py as ASGI, with requests that wait in the event loop and WebSockets."""

import asyncio
import os
import zlib

from tests.life.soaking.app import expected, spin


async def start(send, *headers):
    fields = [(b"content-type", b"application/octet-stream"), (b"x-pid", b"%d" % os.getpid()), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": fields})


async def answer(send, body):
    await start(send, (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.body", "body": body})


async def stream(send, number, blocks, pause):
    await start(send)
    for index in range(blocks):
        await send({"type": "http.response.body", "body": expected(number + index, 1024), "more_body": True})
        if pause:
            await asyncio.sleep(pause)
    await send({"type": "http.response.body"})


async def take(receive):
    """Length and checksum of a request's body; None: the client has left."""
    size = check = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        size, check = size + len(message["body"]), zlib.crc32(message["body"], check)
        if not message["more_body"]:
            return size, check


async def socket(receive, send):
    """Each message is "number size", and is answered as the request of that number would be."""
    await receive()
    await send({"type": "websocket.accept", "headers": [(b"x-pid", b"%d" % os.getpid())]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        number, size = map(int, message["text"].split())
        if number % 3 == 0:
            await asyncio.sleep(0.005)
        try:
            await send({"type": "websocket.send", "bytes": expected(number, size)})
        except OSError:
            return  # closed meanwhile, by a reload


async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def http(scope, receive, send):
    query = dict(pair.split("=", 1) for pair in scope["query_string"].decode().split("&") if "=" in pair)
    number = int(query.get("id", 0))
    path = scope["path"]
    if path == "/stream":
        return await stream(send, number, int(query["blocks"]), float(query["pause"]))
    if path == "/upload":
        taken = await take(receive)
        if taken is not None:
            await answer(send, b"%d;%d;%d" % (number, *taken))
        return None
    if path == "/stuck":
        await asyncio.sleep(30)
    elif path == "/wait":
        await asyncio.sleep(float(query["pause"]))
    elif path == "/compute":
        spin()
    return await answer(send, expected(number, int(query.get("size", 0))))


async def app(scope, receive, send):
    if scope["type"] == "http":
        await http(scope, receive, send)
    elif scope["type"] == "websocket":
        await socket(receive, send)
    else:
        await lifespan(receive, send)
