"""asgiref in handlers: its adapters, threads for synchronous code, and what is local to a request."""

import json
import threading

import pytest

from tests.asgi.conftest import LOOPS

pytest.importorskip("asgiref")

APP = """
    import asyncio, contextvars, json, threading, time
    from asgiref.compatibility import guarantee_single_callable
    from asgiref.local import Local
    from asgiref.sync import async_to_sync, sync_to_async
    from asgiref.wsgi import WsgiToAsgi

    local = Local()
    var = contextvars.ContextVar("var", default=None)

    async def reply(send, value):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(value).encode()})

    async def isolated(scope, receive, send):
        found = [getattr(local, "name", None), var.get()]
        local.name = scope["query_string"].decode()
        var.set(local.name)
        await asyncio.sleep(0.001)
        inner = await sync_to_async(lambda: [local.name, var.get()])()
        await reply(send, [found, inner, local.name, var.get()])

    async def threads(scope, receive, send):
        sensitive = [await sync_to_async(threading.get_ident)() for _ in range(2)]
        other = await sync_to_async(threading.get_ident, thread_sensitive=False)()
        here = threading.get_ident()
        await reply(send, [len(set(sensitive)), here in sensitive, other == here])

    async def there_and_back(scope, receive, send):
        async def ask():
            await asyncio.sleep(0)
            return [threading.get_ident(), asyncio.current_task() is not None]

        def work():
            local.name = "thread"
            return async_to_sync(ask)()

        ident, has_task = await sync_to_async(work)()
        await reply(send, [ident == threading.get_ident(), has_task, local.name])

    async def elsewhere(scope, receive, send):
        def work():
            try:
                asyncio.run(send({"type": "http.response.start", "status": 500, "headers": []}))
            except RuntimeError as error:
                return str(error)

        await reply(send, await sync_to_async(work, thread_sensitive=False)())

    def wsgi(environ, start_response):
        body = environ["wsgi.input"].read()
        start_response("201 Created", [("X-Path", environ["PATH_INFO"]), ("X-Length", str(len(body)))])
        return [b"wsgi ", body[:10]]

    class Double:
        def __init__(self, scope):
            self.scope = scope

        async def __call__(self, receive, send):
            await reply(send, ["double", self.scope["path"]])

    adapted = WsgiToAsgi(wsgi)
    single = guarantee_single_callable(Double)

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path.startswith("/wsgi"):
            await adapted(scope, receive, send)
        elif path == "/double":
            await single(scope, receive, send)
        else:
            await globals()[path.strip("/")](scope, receive, send)

    guaranteed = guarantee_single_callable(app)
"""


@pytest.fixture(scope="module", params=LOOPS)
def server(request, serve_module):
    return serve_module(APP, "-w1", "--loop", request.param)


def test_locals_are_the_requests_own(server):
    """Also of requests that run at the same time, and on tasks that are used again."""
    found = {}

    def ask(number):
        found[number] = [server.get("/isolated?%d-%d" % (number, again)).json() for again in range(10)]

    workers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for number in range(8):
        for again in range(10):
            name = "%d-%d" % (number, again)
            assert found[number][again] == [[None, None], [name, name], name, name]


def test_threads(server):
    assert server.get("/threads").json() == [1, False, False]


def test_there_and_back(server):
    assert server.get("/there_and_back").json() == [True, True, "thread"]


def test_send_in_another_loop(server):
    assert "awaited in another thread" in server.get("/elsewhere").json()


@pytest.mark.parametrize("size", [0, 5, 300000])
def test_wsgi(server, size):
    response = server.post("/wsgi/path", b"x" * size)
    assert (response.status, response.body) == (201, b"wsgi " + b"x" * min(size, 10))
    assert (response.header("x-path"), response.header("x-length")) == ("/wsgi/path", str(size))


def test_double_callables(server, serve):
    assert server.get("/double").json() == ["double", "/double"]
    for name in ("Double", "single", "guaranteed"):
        other = serve(APP + "\n    app = %s\n" % name if name != "guaranteed" else APP + "\n    served, app = app, guaranteed\n", "-w1")
        assert json.loads(other.get("/double").body) == ["double", "/double"]
