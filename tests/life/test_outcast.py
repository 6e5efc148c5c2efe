"""reload-on-exception: a worker that raised is replaced, and its other requests are answered."""

import time

import pytest

from tests.lib.gate import GATE, Gate

WSGI = (
    GATE
    + """
class Broken(ValueError):
    pass

def app(environ, start_response):
    what = environ["QUERY_STRING"]
    if what == "hold":
        wait_at_gate()
    if what == "key":
        {}["missing"]
    if what == "value":
        raise ValueError("of no value")
    if what == "broken":
        raise Broken("beyond repair")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
"""
)

ASGI = """
import os

async def app(scope, receive, send):
    if scope["type"] == "http" and scope["query_string"] == b"key":
        {}["missing"]
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
"""


def wait_other(server, old):
    """Until another worker answers."""
    deadline = time.monotonic() + 20
    while (pid := server.get("/").body) == old:
        assert time.monotonic() < deadline, server.report("the worker is the same")
        time.sleep(0.01)
    return pid


def raises(server, what):
    assert server.get("/?" + what).status == 500


def test_one_kind(serve, tmp_path):
    """By type, text, or both; others leave the worker alone, and what it is in goes on."""
    options = ("type=builtins.KeyError", "value=of no value", "repr=Broken: beyond repair")
    with Gate(tmp_path) as gate:
        server = serve(
            WSGI, "--workers", "1", "--threads", "2", *("--reload-on-exception-" + one for one in options), ready="/"
        )
        first = server.get("/").body
        with server.connect() as held:
            held.send("GET /?hold HTTP/1.1\r\nHost: x\r\n\r\n")
            raises(server, "key")
            server.wait_log(r"worker 1 \d+\] info: this worker is to be replaced: a request raised KeyError")
            server.wait_log(r"worker 1 \(%s\) has raised an exception" % first.decode())
            second = wait_other(server, first)
            gate.let_go()
            assert held.read_response().body == first
        raises(server, "value")
        third = wait_other(server, second)
        raises(server, "broken")
        wait_other(server, third)


@pytest.mark.parametrize("app", [WSGI, ASGI], ids=["wsgi", "asgi"])
def test_any(serve, app):
    server = serve(app, "--workers", "1", "--reload-on-exception", ready="/")
    first = server.get("/").body
    raises(server, "key")
    wait_other(server, first)


def test_other_kinds(serve):
    server = serve(WSGI, "--workers", "1", "--reload-on-exception-type", "Broken", ready="/")
    raises(server, "key")
    server.wait_log("KeyError: 'missing'")
    server.stop()
    assert "is to be replaced" not in server.log()
