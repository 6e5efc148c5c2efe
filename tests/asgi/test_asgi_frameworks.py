"""Asynchronous applications from PyPI, unmodified."""

import importlib.util
from pathlib import Path

import pytest

requests = pytest.importorskip("requests")
APPS = Path(__file__).parent / "apps"
FRAMEWORKS = ["starlette", "fastapi", "quart", "django", "litestar", "falcon", "blacksheep"]
FILES = ["starlette", "fastapi", "quart", "django", "litestar"]
BACKGROUND = ["starlette", "fastapi", "quart", "litestar"]


@pytest.fixture(scope="module", params=FRAMEWORKS)
def framework(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip("%s is not installed" % request.param)
    return request.param


@pytest.fixture(scope="module")
def server(framework, serve_module):
    return serve_module("%s_app:app" % framework, "-w", "1", cwd=APPS, env={"PYTHONDONTWRITEBYTECODE": "1"})


@pytest.fixture
def client(server):
    with requests.Session() as session:
        session.trust_env = False

        def call(method, path, **kwargs):
            return session.request(method, server.url + path, timeout=30, **kwargs)

        yield call


def test_json(client):
    for _ in range(2):
        assert client("GET", "/hello").json() == {"word": "state", "path": "/hello", "method": "GET"}
    response = client("POST", "/echo", json={"name": "\u20ac", "tags": ["a"]})
    assert (response.status_code, response.json()) == (201, {"got": {"name": "\u20ac", "tags": ["a"]}})


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
def test_upload(framework, client, size):
    if framework == "falcon":
        size = min(size, 900_000)  # its own limit is 1 MB
    assert client("POST", "/upload", files={"file": ("a.bin", b"\xff" * size)}).json() == {"size": size}


def test_stream(client):
    assert client("GET", "/stream").text == "".join("line %d\n" % number for number in range(100))


def test_waiting(client):
    assert client("GET", "/wait").text == "waited"
    assert client("GET", "/threaded").text == "from a thread"


def test_file(framework, client):
    if framework not in FILES:
        pytest.skip("as the stream")
    assert client("GET", "/file").content == (APPS / ("%s_app.py" % framework)).read_bytes()


def test_background(framework, client):
    if framework not in BACKGROUND:
        pytest.skip("it has none")
    assert client("GET", "/background").text == "0"
    for _ in range(1000):
        if client("GET", "/background").text != "0":
            break
    else:
        pytest.fail("the background task has not run")


def test_errors(client):
    assert client("GET", "/broken").status_code == 500
    assert client("GET", "/nowhere").status_code == 404
