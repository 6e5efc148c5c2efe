"""A loop of requests without sockets, for bench/instructions: micro_loop.py CORE SCENARIO COUNT."""
import importlib.machinery
import importlib.util
import struct
import sys

HELLO = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n"
BROWSER = (
    b"GET /articles/2024/index.html?page=2 HTTP/1.1\r\n"
    b"Host: www.example.org\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Connection: keep-alive\r\n"
    b"Referer: https://www.example.org/articles/\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n"
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"Sec-Fetch-Dest: document\r\n"
    b"Sec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
    b"Priority: u=0, i\r\n\r\n"
)


def uwsgi(variables):
    """A packet as nginx sends it."""
    strings = (text for pair in variables for text in pair)
    packed = b"".join(struct.pack("<H", len(text)) + text for text in strings)
    return b"\0" + struct.pack("<H", len(packed)) + b"\0" + packed


PACKET = uwsgi([
    (b"QUERY_STRING", b"page=2"), (b"REQUEST_METHOD", b"GET"), (b"CONTENT_TYPE", b""),
    (b"CONTENT_LENGTH", b""), (b"REQUEST_URI", b"/articles/2024/index.html?page=2"),
    (b"PATH_INFO", b"/articles/2024/index.html"), (b"DOCUMENT_ROOT", b"/usr/share/nginx/html"),
    (b"SERVER_PROTOCOL", b"HTTP/1.1"), (b"REQUEST_SCHEME", b"https"), (b"HTTPS", b"on"),
    (b"REMOTE_ADDR", b"192.0.2.7"), (b"REMOTE_PORT", b"54321"), (b"SERVER_PORT", b"443"),
    (b"SERVER_NAME", b"www.example.org"),
] + [
    (b"HTTP_" + name.upper().replace(b"-", b"_"), value)
    for name, value in (line.split(b": ", 1) for line in BROWSER.split(b"\r\n")[1:-2])
])
# Of a head, and whether it may be known from the last request; of an asynchronous application a head
# and its name.
SCENARIOS = {
    "hello": (HELLO, False),
    "browser": (BROWSER, False),
    "uwsgi": (PACKET, True),
    "uwsgi-new": (PACKET, False),
    "asgi-hello": (HELLO, "asgi_hello"),
    "asgi-browser": (BROWSER, "asgi_hello"),
    "asgi-context": (HELLO, "asgi_context"),
    "asgi-sleep0": (HELLO, "asgi_sleep0"),
    "asgi-stream": (HELLO, "asgi_stream"),
    "asgi-ws-echo": (HELLO, "asgi_echo"),
}
BODY = b"Hello, World!"
START = {"type": "http.response.start", "status": 200,
         "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")]}
STREAM = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [BODY]


async def asgi_hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")]})
    await send({"type": "http.response.body", "body": BODY})


async def asgi_context(scope, receive, send):
    VARIABLE.set(scope["path"])
    await asgi_hello(scope, receive, send)


async def asgi_sleep0(scope, receive, send):
    await sleep(0)
    await asgi_hello(scope, receive, send)


async def asgi_stream(scope, receive, send):
    await send(STREAM)
    for _ in range(64):
        await send({"type": "http.response.body", "body": BODY, "more_body": True})
    await send({"type": "http.response.body", "body": BODY})


async def asgi_echo(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            break
        await send({"type": "websocket.send", "text": message["text"]})


def prepare_asgi(core):
    """What asynchronous applications need; the others are counted without."""
    global VARIABLE, sleep
    import asyncio
    import contextvars
    import pathlib

    VARIABLE = contextvars.ContextVar("variable")
    sleep = asyncio.sleep
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "python"))
    sys.modules["stoker._core"] = core


def main():
    path, scenario, count = sys.argv[1:]
    loader = importlib.machinery.ExtensionFileLoader("_core", path)
    core = importlib.util.module_from_spec(importlib.util.spec_from_loader("_core", loader))
    loader.exec_module(core)
    sys.modules["micro_application"] = sys.modules["__main__"]
    host = core.host()
    head, way = SCENARIOS[scenario]
    target = "micro_application"
    if isinstance(way, str):
        prepare_asgi(core)
        target += ":" + way
    if core.load(host, target) != 0:
        raise SystemExit("the application was not loaded")
    if isinstance(way, str):
        if core.startup(host) != 0:
            raise SystemExit("the application has not started")
        response = core.asgi_loop(host, head, int(count), way == "asgi_echo")
    else:
        response = core.loop(host, head, int(count), way)
    if not response.endswith(BODY):
        raise SystemExit("unexpected response: %r" % response)


if __name__ == "__main__":
    main()
