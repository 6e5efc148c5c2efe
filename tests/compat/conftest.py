"""Servers of the applications in apps/, and a session of `requests` for each test."""

import hashlib
import io
import sys
from pathlib import Path

import pytest

try:
    import requests
except ImportError:  # the short run for every interpreter does not install it
    requests = None
    collect_ignore_glob = ["test_*.py"]

APPS = Path(__file__).parent / "apps"


@pytest.fixture(scope="module", params=[("-w", "1"), ("-w", "2", "-t", "3")], ids=["1 thread", "2 workers, 3 threads"])
def shape(request):
    """The processes and threads with which each application is served."""
    return request.param


@pytest.fixture(scope="module")
def serve_app(serve_module, shape):
    def start(app, *args, **kwargs):
        kwargs.setdefault("cwd", APPS)
        kwargs["env"] = dict(kwargs.get("env") or {}, PYTHONDONTWRITEBYTECODE="1")
        return serve_module(app, *shape, *args, **kwargs)

    return start


class Client(requests.Session if requests else object):
    """A session whose URLs begin at the server."""

    def __init__(self, server):
        super().__init__()
        self.trust_env = False
        self.base = server.url

    def request(self, method, url, *args, **kwargs):
        kwargs.setdefault("timeout", 30)
        return super().request(method, self.base + url, *args, **kwargs)


@pytest.fixture
def client(server):
    with Client(server) as session:
        yield session


@pytest.fixture(scope="session")
def upload_of_50_mb():
    """A file of 50 MB and its digest."""
    block = bytes(range(256)) * 4096
    data = block * 50
    return data, hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="session")
def interpreter():
    """A large file that every application can find: the interpreter itself."""
    with open(sys.executable, "rb") as file:
        return file.read()


@pytest.fixture
def small_file():
    return {"file": ("n\u00e4me.txt", io.BytesIO(b"content of a file\n" * 1000), "text/plain")}
