"""Servers of gevent_app.py."""

from pathlib import Path

import pytest

pytest.importorskip("gevent")

HERE = Path(__file__).parent


@pytest.fixture
def serve_gevent(serve):
    def start(*options, app="gevent_app:app", limit="1000", workers="1", env=(), **kwargs):
        env = {"PYTHONDONTWRITEBYTECODE": "1", **dict(env)}
        return serve(app, "-w", workers, "--gevent", limit, *options, cwd=HERE, env=env, **kwargs)

    return start


OPTIONS = ("gevent_app:app", "-w", "1", "--gevent", "1000")
ENV = {"PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module(*OPTIONS, cwd=HERE, env=ENV)


@pytest.fixture(scope="module")
def streaming(serve_module):
    return serve_module(*OPTIONS, "--body", "stream", cwd=HERE, env=ENV)
