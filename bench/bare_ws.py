"""The application's side of many idle WebSockets, without a server: `bare_ws.py COUNT`.

Makes COUNT tasks of the echo application, each with a scope like a server's and waiting for its
second message, once a line comes on standard input.  What that costs is the application's own, by
whatever server it is run.
"""

import asyncio
import gc
import sys

import apps_asgi


def make_scope(number):
    """What uvicorn and others hand over, for a client that sends one header field."""
    return {
        "type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1", "scheme": "ws", "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", number), "root_path": "", "path": "/", "raw_path": b"/",
        "query_string": b"", "subprotocols": [], "state": {},
        "headers": [(b"host", b"127.0.0.1"), (b"upgrade", b"websocket"),
                    (b"connection", b"Upgrade"), (b"sec-websocket-version", b"13"),
                    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")],
        "extensions": {"websocket.http.response": {}},
    }


def make_channel(loop):
    """A receive() that waits after the first message, and a send()."""
    messages = [{"type": "websocket.connect"}]
    future = loop.create_future()

    async def receive():
        return messages.pop() if messages else await future

    async def send(message):
        pass

    return receive, send


async def main(count):
    """Waits for the word, makes all, says so, and waits for the end of standard input."""
    loop = asyncio.get_running_loop()
    tasks = [asyncio.create_task(apps_asgi.websocket(make_scope(0), *make_channel(loop)))]
    await asyncio.sleep(0)
    gc.collect()
    print("up", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    tasks += [asyncio.create_task(apps_asgi.websocket(make_scope(i), *make_channel(loop)))
              for i in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    print("made", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
