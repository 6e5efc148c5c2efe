"""The ASGI applications that the scenarios call.  Each is a plain coroutine function.

Nothing is imported here that a bare `python -c 'import apps_asgi'` would not want to pay for.
"""

import asyncio
import collections
import contextvars
import json
import time

import apps

START = {"type": "http.response.start", "status": 200,
         "headers": [(b"content-type", b"text/plain"), (b"content-length", b"14")]}
HELLO = {"type": "http.response.body", "body": apps.HELLO}
TEXT = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
VALUE = contextvars.ContextVar("value")


async def hello(scope, receive, send):
    """14 bytes."""
    await send(START)
    await send(HELLO)


async def context(scope, receive, send):
    """14 bytes, by a request that sets a context variable."""
    VALUE.set(scope["path"])
    await send(START)
    await send(HELLO)


async def _answer(send, kind, body):
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", kind), (b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def document(scope, receive, send):
    """About 1 kB made by json.dumps in each request."""
    await _answer(send, b"application/json", json.dumps(apps.DOCUMENT).encode())


async def body100k(scope, receive, send):
    """One block of 100 kB."""
    await _answer(send, b"text/plain", apps.BIG)


async def stream(scope, receive, send):
    """64 blocks of 1 kB, of unknown length."""
    await send(TEXT)
    for _ in range(apps.BLOCKS):
        await send({"type": "http.response.body", "body": apps.BLOCK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _body(receive):
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def echo(scope, receive, send):
    """Answers with the body of the request."""
    await _answer(send, b"application/octet-stream", await _body(receive))


async def upload(scope, receive, send):
    """Reads the whole body and answers with its length."""
    await _answer(send, b"text/plain", b"%d\n" % len(await _body(receive)))


async def sleep0(scope, receive, send):
    """Gives way to the event loop once."""
    await asyncio.sleep(0)
    await send(START)
    await send(HELLO)


async def sleep1ms(scope, receive, send):
    """Waits for a millisecond, as for a database."""
    await asyncio.sleep(0.001)
    await send(START)
    await send(HELLO)


async def compute2ms(scope, receive, send):
    """Computes for two milliseconds."""
    apps.spin(apps.SPIN)
    await send(START)
    await send(HELLO)


ticks = collections.deque(maxlen=4000)
tickers = []
own = 0.0  # the time that handlers have taken


async def _tick():
    while True:
        ticks.append((time.monotonic(), own))
        await asyncio.sleep(0.001)


async def timer(scope, receive, send):
    """14 bytes, at /spin behind 0.1 ms of computing. From /ticks on a timer fires each millisecond;
    /ticks says when it has done so, and how much time handlers had taken until then."""
    global own
    if scope["type"] != "http":
        raise RuntimeError
    begin = time.monotonic()
    if scope["path"] == "/ticks":
        if not tickers:
            tickers.append(asyncio.ensure_future(_tick()))
        await _answer(send, b"application/json", json.dumps(list(ticks)).encode())
        return
    while scope["path"] == "/spin" and time.monotonic() < begin + 0.0001:
        pass
    own += time.monotonic() - begin
    await send(START)
    await send(HELLO)


async def websocket(scope, receive, send):
    """Sends each message of a WebSocket back; 14 bytes to others."""
    if scope["type"] != "websocket":
        await hello(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message["text"]})
