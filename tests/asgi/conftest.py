"""Servers of asgi_app.py on each event loop that is installed."""

import importlib.util
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LOOPS = ["asyncio"] + (["uvloop"] if importlib.util.find_spec("uvloop") else [])


@pytest.fixture(scope="module", params=LOOPS)
def server(request, serve_module):
    return serve_module("asgi_app:app", "-w", "1", "--loop", request.param, cwd=HERE, env={"PYTHONDONTWRITEBYTECODE": "1"})


@pytest.fixture
def wait_for_log(server):
    """Waits until the application has noted something, by asking it."""

    def wait(*wanted, server=server):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            found = server.get("/events_log").json()
            if all(word in found for word in wanted):
                return found
            time.sleep(0.01)
        raise AssertionError("%r are not in %r" % (wanted, found))

    server.get("/collect")
    return wait
