"""Which interface an application has, its lifespan, and its event loop."""

import re

import pytest

HELLO = """
    async def hello(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("only http")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["state"].get("word", "hello").encode()})
"""

KINDS = {
    "function": "app = hello",
    "instance": """
        class App:
            async def __call__(self, scope, receive, send):
                await hello(scope, receive, send)
        app = App()
    """,
    "method": """
        class App:
            async def run(self, scope, receive, send):
                await hello(scope, receive, send)
        app = App().run
    """,
    "sync function of three": """
        def app(scope, receive, send):
            return hello(scope, receive, send)
    """,
    "sync instance of three": """
        class App:
            def __call__(self, scope, receive, send):
                return hello(scope, receive, send)
        app = App()
    """,
    "partial": """
        import functools
        async def more(word, scope, receive, send):
            await hello(scope, receive, send)
        app = functools.partial(more, "x")
    """,
    "partial of sync": """
        import functools
        def more(word, scope, receive, send):
            return hello(scope, receive, send)
        app = functools.partial(more, "x")
    """,
    "wrapped": """
        import functools
        @functools.wraps(hello)
        def app(*args, **kwargs):
            return hello(*args, **kwargs)
    """,
    "double function": """
        def app(scope):
            async def instance(receive, send):
                await hello(scope, receive, send)
            return instance
    """,
    "double class": """
        class app:
            def __init__(self, scope):
                self.scope = scope
            async def __call__(self, receive, send):
                await hello(self.scope, receive, send)
    """,
    "awaitable": """
        class Awaitable:
            def __init__(self, *args):
                self.args = args
            def __await__(self):
                return hello(*self.args).__await__()
        def app(scope, receive, send):
            return Awaitable(scope, receive, send)
    """,
    "wsgi": """
        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"hello"]
    """,
    "wsgi with a default": """
        def app(environ, start_response, word=b"hello"):
            start_response("200 OK", [])
            return [word]
    """,
    "wsgi class": """
        class app:
            def __init__(self, environ, start_response):
                start_response("200 OK", [])
            def __iter__(self):
                return iter([b"hello"])
    """,
}


def source(kind):
    import textwrap

    return textwrap.dedent(HELLO) + textwrap.dedent(KINDS[kind])


@pytest.mark.parametrize("kind", list(KINDS))
def test_kinds(serve, kind):
    assert serve(source(kind), "-w", "1").get("/").body == b"hello"


def test_said(serve):
    app = source("function") + "\ndef any(*args):\n    return hello(*args)\n"
    assert serve(None, "app:any", "-w", "1", "--interface", "asgi", cwd=write(serve, app)).get("/").body == b"hello"


def write(serve, text):
    import tempfile
    from pathlib import Path

    where = Path(tempfile.mkdtemp())
    (where / "app.py").write_text(text)
    return where


@pytest.mark.parametrize(
    "kind, interface, text",
    [
        ("function", "wsgi", "'app:app' is an ASGI application"),
        ("wsgi", "asgi", "'app:app' looks like a WSGI application"),
    ],
)
def test_said_wrong(serve, kind, interface, text):
    server = serve(source(kind), "-w", "1", "--interface", interface, start=False).spawn()
    assert server.wait() == 3
    assert text in server.log()


def test_guessed_wrong(serve):
    app = "async def inner(*args):\n    pass\ndef app(*args):\n    return inner(*args)\n"
    server = serve(app, "-w", "1")
    assert server.get("/").status == 500
    server.wait_log("cannot be seen whether 'app:app' is a WSGI or an ASGI application; it is called as WSGI")
    server.wait_log("the application returned a coroutine, so it is an ASGI application: say interface = asgi")
    factory = """
        def app(config):
            return "nothing"
    """
    server = serve(factory, "-w", "1")
    assert server.get("/").status == 500
    server.wait_log("if it is a factory, call it: 'module:name\\(argument\\)'")


LIFESPAN = """
    import os

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            message = await receive()
            assert message == {"type": "lifespan.startup"}, message
            mode = os.environ["MODE"]
            if mode == "raise":
                raise RuntimeError("no lifespan")
            if mode == "return":
                return
            if mode == "failed":
                await send({"type": "lifespan.startup.failed", "message": "the database is away"})
                return
            if mode == "failed_raise":
                await send({"type": "lifespan.startup.failed"})
                raise RuntimeError("the cache is away")
            scope["state"]["word"] = "state"
            scope["state"]["shared"] = []
            print("started", flush=True)
            await send({"type": "lifespan.startup.complete"})
            message = await receive()
            assert message == {"type": "lifespan.shutdown"}, message
            print("stopped", flush=True)
            if mode == "shutdown_failed":
                await send({"type": "lifespan.shutdown.failed", "message": "could not say goodbye"})
            else:
                await send({"type": "lifespan.shutdown.complete"})
            return
        word = scope["state"].get("word", "none")
        scope["state"]["word"] = "changed"
        if "shared" in scope["state"]:
            scope["state"]["shared"].append(1)
            word += str(len(scope["state"]["shared"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": word.encode()})
"""


@pytest.mark.parametrize("options", [(), ("--preload",), ("--loop", "asyncio")], ids=["", "preload", "asyncio"])
def test_lifespan(serve, options):
    server = serve(LIFESPAN, "-w", "1", *options, env={"MODE": "fine"})
    assert [server.get("/").body for _ in range(2)] == [b"state1", b"state2"]
    assert server.stdout().count("started") == 1
    server.stop()
    assert server.stdout().count("stopped") == 1


@pytest.mark.parametrize("mode", ["raise", "return"])
def test_no_lifespan(serve, mode):
    assert serve(LIFESPAN, "-w", "1", env={"MODE": mode}).get("/").body == b"none"
    server = serve(LIFESPAN, "-w", "1", "--lifespan", "on", env={"MODE": mode}, start=False).spawn()
    assert server.wait() == 3
    server.wait_log("the application failed to start up \\(lifespan.startup\\)")
    assert serve(LIFESPAN, "-w", "1", "--lifespan", "off", env={"MODE": mode}).get("/").body == b"none"


@pytest.mark.parametrize("mode, text", [("failed", "the database is away"), ("failed_raise", "the cache is away")])
def test_failed_startup(serve, mode, text):
    server = serve(LIFESPAN, "-w", "2", env={"MODE": mode}, start=False).spawn()
    assert server.wait() == 3
    assert text in server.log()


def test_failed_shutdown(serve):
    server = serve(LIFESPAN, "-w", "1", env={"MODE": "shutdown_failed"})
    assert server.get("/").status == 200
    server.stop()
    assert "could not say goodbye" in server.log()


TALKS = """
    import os

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            script = os.environ["SCRIPT"]
            if script == "at once":
                assert scope["type"] == "http", "only http"
            if script == "confused":
                await receive()
                await send({"type": "http.response.start", "status": 200, "headers": []})
            if script == "leaves":
                return await receive()
            if script == "fails":
                await receive()
                raise ConnectionError("the database is away")
            if script == "unasked":
                return await send({"type": "lifespan.startup.complete"})
            await receive()
            for message in eval(script):
                try:
                    await send(message)
                except Exception as error:
                    print("%s: %s" % (type(error).__name__, error), flush=True)
            return await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})
"""


@pytest.mark.parametrize(
    "script, level, text",
    [
        ("at once", "debug", "the application has no lifespan: AssertionError: only http"),
        ("confused", "debug", "the application has no lifespan: RuntimeError: unexpected ASGI message 'http.response.start'"),
        ("leaves", "info", "the application has taken lifespan.startup and returned without an answer"),
        ("fails", "warning", "lifespan = on fails the start instead: ConnectionError: the database is away"),
    ],
)
def test_what_is_said_of_no_lifespan(serve, script, level, text):
    server = serve(TALKS, "-w", "1", "--log-level", "debug", env={"SCRIPT": script})
    assert server.get("/").body == b"served"
    server.wait_log(r"\[?%s\]?.*%s" % (level, re.escape(text)))
    on = serve(TALKS, "-w", "1", "--lifespan", "on", env={"SCRIPT": script}, start=False).spawn()
    assert on.wait() == 3


MESSAGES = {
    "'complete'": "TypeError: send() takes a dict with a 'type', got 'complete'",
    "{}": "TypeError: send() takes a dict with a 'type', got {}",
    "{'type': None}": "TypeError: send() takes a dict with a 'type', got {'type': None}",
    "{'type': 'lifespan.nonsense'}": "RuntimeError: unexpected ASGI message 'lifespan.nonsense': it is none of a lifespan",
    "{'type': 'lifespan.startup'}": "RuntimeError: unexpected ASGI message 'lifespan.startup': it is none of a lifespan",
    "{'type': 'lifespan.shutdown.complete'}": "'lifespan.shutdown.complete': it answers nothing that has been asked",
    "{'type': 'lifespan.startup.failed', 'message': 5}": "TypeError: lifespan.startup.failed: the message must be a str, got 5",
    "{'type': 'lifespan.startup.complete', 'more': 1}": None,
    "{'type': 'lifespan.startup.complete'}": "'lifespan.startup.complete': 'lifespan.startup' has been answered already",
    "{'type': 'lifespan.startup.failed'}": "'lifespan.startup.failed': 'lifespan.startup' has been answered already",
}


def test_messages_of_a_lifespan(serve):
    server = serve(TALKS, "-w", "1", env={"SCRIPT": "[%s]" % ", ".join(MESSAGES)})
    assert server.get("/").body == b"served"
    lines = server.stdout().splitlines()
    wanted = [text for text in MESSAGES.values() if text]
    assert len(lines) == len(wanted), lines
    for line, text in zip(lines, wanted):
        assert text in line
    server.stop()


def test_an_answer_before_the_question(serve):
    assert serve(TALKS, "-w", "1", "--lifespan", "on", env={"SCRIPT": "unasked"}).get("/").body == b"served"


def test_a_lifespan_that_ends_while_it_is_served(serve):
    server = serve(
        """
        import asyncio

        event = asyncio.Event()

        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await event.wait()
                raise ConnectionError("the queue is away")
            event.set()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"served"})
        """,
        "-w", "1", "--lifespan", "on",
    )  # fmt: skip
    assert server.get("/").body == b"served"
    server.wait_log("the application's lifespan has ended while it is served: Traceback")
    server.wait_log("ConnectionError: the queue is away")
    assert server.get("/").body == b"served"
    server.stop()
    assert server.log().count("ConnectionError: the queue is away") == 1


def test_failed_startup_at_a_reload(serve, tmp_path):
    server = serve(LIFESPAN.replace('os.environ["MODE"]', 'open("mode").read()'), "-w", "1", cwd=with_mode(tmp_path, "fine"))
    assert server.get("/").body == b"state1"
    with_mode(tmp_path, "failed")
    server.send_signal(1)
    server.wait_log("the database is away")
    assert server.get("/").body == b"state2"


def with_mode(path, mode):
    (path / "mode").write_text(mode)
    return path


def test_no_uvloop(serve, tmp_path):
    (tmp_path / "uvloop.py").write_text("raise ImportError('not here')\n")
    assert serve(source("function"), "-w", "1").get("/").body == b"hello"
    server = serve(source("function"), "-w", "1", "--loop", "uvloop", start=False).spawn()
    assert server.wait() == 3
    assert "the package uvloop cannot be imported" in server.log()
