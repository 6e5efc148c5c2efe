"""Fixtures for tests of the WSGI host without a server (see build_fake.py)."""
import collections
import importlib.machinery
import importlib.util
import itertools
import os
import sys
import types
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
GET = b"GET /path?x=1 HTTP/1.1\r\nHost: example.org\r\n\r\n"

Result = collections.namedtuple("Result", "head body writes failed ended waits")
END, FLUSH = 1, 2


def load_core():
    spec = importlib.util.spec_from_file_location("build_fake", HERE / "build_fake.py")
    build_fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build_fake)
    # For example -fsanitize=address,undefined, with libasan in LD_PRELOAD.
    flags = os.environ.get("STOKER_FAKE_CFLAGS", "").split()
    loader = importlib.machinery.ExtensionFileLoader("_core", str(build_fake.build(flags)))
    core = importlib.util.module_from_spec(importlib.util.spec_from_loader("_core", loader))
    loader.exec_module(core)
    return core


@pytest.fixture(scope="session")
def core():
    return load_core()


class Wsgi:
    """Calls applications and shows what was sent and logged."""

    END, FLUSH = END, FLUSH

    def __init__(self, core, path):
        self.core = core
        self.path = path
        self.numbers = itertools.count()
        assert core.log_to(str(path), True) == 0

    def host(self, application, **kwargs):
        name = "wsgi_application_%d" % next(self.numbers)
        module = types.ModuleType(name)
        module.app = application
        sys.modules[name] = module
        host = self.core.host()
        try:
            assert self.core.load(host, name + ":app", **kwargs) == 0, self.log()
        finally:
            del sys.modules[name]
        return host

    def call(self, application, head=GET, body=(), length=None, **kwargs):
        pieces = [body] if isinstance(body, bytes) else list(body)
        if length is None:
            length = sum(map(len, pieces))
        host = self.host(application)
        return Result(*self.core.request(host, head, pieces, length, **kwargs))

    def environ(self, head=GET, **kwargs):
        seen = {}

        def application(environ, start_response):
            seen.update(environ)
            start_response("200 OK", [])
            return [b""]

        result = self.call(application, head, **kwargs)
        assert not result.failed, self.log()
        return seen

    def log(self):
        return self.path.read_text()


@pytest.fixture
def wsgi(core, tmp_path):
    return Wsgi(core, tmp_path / "error.log")
