"""Django Channels, unmodified: consumers of both kinds, groups, sessions over HTTP and WebSockets, Django's views."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("channels")
httpx = pytest.importorskip("httpx")
websockets = pytest.importorskip("websockets.sync.client")

APPS = Path(__file__).parent / "apps"


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module("channels_app:app", "-w", "1", cwd=APPS, env={"PYTHONDONTWRITEBYTECODE": "1"})


def connect(server, path, **kwargs):
    return websockets.connect("ws://127.0.0.1:%d%s" % (server.port, path), proxy=None, open_timeout=20, **kwargs)


@pytest.mark.parametrize("path", ["/echo", "/async"])
def test_consumers(server, path):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(server, path)) for _ in range(10)]
        for number, ws in enumerate(sockets):
            ws.send("text %d ü" % number)
            ws.send(b"\0\xff" * number)
        for number, ws in enumerate(sockets):
            assert ws.recv(20) == "text %d ü" % number
            assert ws.recv(20) == b"\0\xff" * number
            ws.close(4000 + number)
            assert ws.close_code == 4000 + number
    for _ in range(1000):
        codes = server.get("/codes").text.split()
        if set(map(str, range(4000, 4010))) <= set(codes):
            break
    else:
        pytest.fail("disconnect() was not called: %r" % codes)


def test_closing_and_refusing(server):
    with connect(server, "/echo", subprotocols=["v2", "v1"]) as ws:
        assert ws.subprotocol == "v1"
        ws.send("close")
        with pytest.raises(Exception) as caught:
            ws.recv(20)
        assert caught.value.rcvd.code == 4321
    with pytest.raises(Exception) as caught, connect(server, "/async?no"):
        pass
    assert caught.value.response.status_code == 403


def test_groups(server):
    """Messages cross from a consumer, and from a view in a thread, to all of a room, and to nobody else."""
    with connect(server, "/room/a") as one, connect(server, "/room/a") as two, connect(server, "/room/b") as other:
        one.send(json.dumps({"say": "hello"}))
        for ws in (one, two):
            assert json.loads(ws.recv(20)) == {"said": "hello"}
        assert httpx.get(server.url + "/say?room=a&text=from+a+view", trust_env=False).text == "said"
        for ws in (one, two):
            assert json.loads(ws.recv(20)) == {"said": "from a view"}
        other.send(json.dumps({"say": "alone"}))
        assert json.loads(other.recv(20)) == {"said": "alone"}


def test_sessions(server):
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert [client.get("/visit").text for _ in range(3)] == ["1", "2", "3"]
        cookie = "sessionid=" + client.cookies["sessionid"]
    with connect(server, "/visits", additional_headers={"Cookie": cookie}) as ws:
        assert ws.recv(20) == "3"
    with connect(server, "/visits") as ws:
        assert ws.recv(20) == "None"


def test_http_consumer_and_streams(server):
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.get("/events").text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
        lines = client.get("/slow_lines").text.splitlines()
        assert len(lines) == 50 and lines[0].startswith("line 0 of ")


def test_reload(serve):
    server = serve("channels_app:app", "-w", "1", cwd=APPS, env={"PYTHONDONTWRITEBYTECODE": "1"})
    with connect(server, "/echo") as ws, connect(server, "/room/x") as room:
        ws.send("before")
        assert ws.recv(20) == "before"
        old = server.worker_pids()
        os.kill(server.pid, signal.SIGHUP)
        for socket in (ws, room):
            with pytest.raises(Exception) as caught:
                socket.recv(30)
            assert caught.value.rcvd.code == 1012
    with connect(server, "/echo") as ws:
        ws.send("behind")
        assert ws.recv(20) == "behind"
    # The kernel may leave a child out of its list while another one ends.
    deadline = time.monotonic() + 20
    while set(server.worker_pids()) <= set(old):
        assert time.monotonic() < deadline
        time.sleep(0.02)
