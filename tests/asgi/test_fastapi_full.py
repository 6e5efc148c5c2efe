"""FastAPI and sse-starlette, unmodified, with what real applications use of them; httpx and websockets ask."""

import asyncio
import json
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("sse_starlette")
httpx = pytest.importorskip("httpx")
websockets = pytest.importorskip("websockets.sync.client")

APPS = Path(__file__).parent / "apps"


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module("full_fastapi_app:app", "-w", "1", cwd=APPS, env={"PYTHONDONTWRITEBYTECODE": "1"})


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        client.get("/events_log?clear=true")
        yield client


def wait_events(client, *wanted):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = client.get("/events_log").json()
        if all(word in found for word in wanted):
            return found
    raise AssertionError("%r are not in %r" % (wanted, found))


def test_dependencies(client):
    assert client.get("/depends").json() == {"word": "STATE"}
    assert wait_events(client, "closed") == ["open", "handled", "thread closed", "closed"]
    assert client.get("/fails").status_code == 418
    assert "saw HTTPException" in wait_events(client, "saw HTTPException")


def test_background_tasks(client):
    assert client.post("/tasks").json() == "begun"
    found = wait_events(client, "late 1", "late 2", "from a thread")
    assert found.index("late 1") < found.index("late 2")


def test_streams(client):
    with client.stream("GET", "/numbers?count=200") as response:
        assert [json.loads(line)["number"] for line in response.iter_lines()] == list(range(200))
    with client.stream("GET", "/numbers?count=100000") as response:
        next(response.iter_lines())
    wait_events(client, "stream over")  # the client has left: the generator is closed


def test_answering_while_reading(server):
    """One request that is read and answered at the same time."""

    async def talk():
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=30) as client:

            async def blocks():
                for size in (1, 1000, 70000, 3):
                    yield b"x" * size
                    await asyncio.sleep(0.01)

            response = await client.post("/both", content=blocks())
            *sizes, end = response.text.split()
            assert sum(map(int, sizes)) == 71004 and len(sizes) >= 4 and end == "end"

    asyncio.run(talk())


def test_server_sent_events(client, server):
    with client.stream("GET", "/sse") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        found = []
        for line in response.iter_lines():
            if line.startswith("data:"):
                found.append(json.loads(line[5:])["number"])
            if len(found) == 5:
                break
        assert found == list(range(found[0], found[0] + 5))
    wait_events(client, "listener left")


def test_websockets(client, server):
    url = "ws://127.0.0.1:%d/ws/" % server.port
    with websockets.connect(url + "room?token=abc", proxy=None) as ws:
        for data in ({"a": [1, 2]}, "text", None):
            ws.send(json.dumps(data))
            assert json.loads(ws.recv(20)) == {"room": "room", "token": "abc", "data": data}
        ws.send('"close"')
        with pytest.raises(Exception) as caught:
            ws.recv(20)
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4000, "as you like")
    with websockets.connect(url + "other", proxy=None) as ws:
        ws.close(3456)
    wait_events(client, "disconnect 3456")
    with pytest.raises(Exception) as caught, websockets.connect(url + "room?token=no", proxy=None):
        pass
    assert caught.value.response.status_code == 403


def test_sub_application(client):
    assert client.get("/sub/where").json() == {"root_path": "/sub", "url": "/sub/where"}


def test_lifespan_ends(serve):
    server = serve("full_fastapi_app:app", "-w", "1", cwd=APPS, env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert server.get("/depends").json() == {"word": "STATE"}
    server.stop()
    assert server.stdout().count("lifespan: over") == 1
