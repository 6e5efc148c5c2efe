"""Starlette, unmodified, with its own middleware, files and WebSocket endpoints; httpx and websockets ask."""

import json
import time
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("itsdangerous")
httpx = pytest.importorskip("httpx")
websockets = pytest.importorskip("websockets.sync.client")

APPS = Path(__file__).parent / "apps"
LARGE = bytes(range(256)) * 8192


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module("full_starlette_app:app", "-w", "1", cwd=APPS, env={"PYTHONDONTWRITEBYTECODE": "1"})


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        yield client


def wait_log(client, word):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if word in client.get("/log").json():
            return
    raise AssertionError("%r is not in the log" % word)


def test_sessions_and_middleware(client):
    for number in range(1, 4):
        response = client.get("/count", headers={"Origin": "https://elsewhere.example"})
        assert response.json() == number
        assert response.headers["access-control-allow-origin"] == "https://elsewhere.example"
        assert response.headers["x-pid"].isdigit()
    assert client.get("/shortcut").text == "from the middleware"
    assert client.get("/count", headers={"Host": "evil.example"}).status_code == 400


def test_files(client):
    """Whole, in part and not at all, behind BaseHTTPMiddleware; the server sends them."""
    response = client.get("/file")
    assert response.content == LARGE
    wait_log(client, "file sent")
    part = client.get("/file", headers={"Range": "bytes=1000-4999"})
    assert (part.status_code, part.content) == (206, LARGE[1000:5000])
    assert part.headers["content-range"] == "bytes 1000-4999/%d" % len(LARGE)
    assert client.get("/file", headers={"Range": "bytes=99999999-"}).status_code == 416
    static = client.get("/static/large.bin")
    assert static.content == LARGE
    again = client.get("/static/large.bin", headers={"If-None-Match": static.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head("/static/page.html").headers["content-length"] == "15"
    assert client.get("/static/page.html").text == "<h1>static</h1>"
    assert client.get("/static/%2e%2e/secret").status_code == 404


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_upload_through_middleware(client, framing):
    data = LARGE if framing == "length" else (LARGE[at : at + 100000] for at in range(0, len(LARGE), 100000))
    assert client.post("/upload", content=data).text == str(len(LARGE))


def test_a_client_that_leaves_a_stream(client):
    with client.stream("GET", "/endless") as response:
        assert len(next(response.iter_raw(5000))) == 5000
    wait_log(client, "stream over")


def test_websocket_with_the_session(client, server):
    client.get("/count")
    cookie = "session=" + client.cookies["session"]
    url = "ws://127.0.0.1:%d/echo" % server.port
    with websockets.connect(url, proxy=None, additional_headers={"Cookie": cookie}) as ws:
        ws.send(json.dumps([1, "ü"]))
        assert json.loads(ws.recv(20)) == {"echo": [1, "ü"], "session": {"count": 1}}
        ws.send("no json")
        with pytest.raises(Exception) as caught:
            ws.recv(20)
        assert caught.value.rcvd.code == 1003
    wait_log(client, "closed 1011")  # what Starlette tells of its own exception
