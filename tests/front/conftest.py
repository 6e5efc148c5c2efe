"""The server that the tests of HTTP/1.1 share, in each of the ways in which it reads a socket."""

from pathlib import Path

import pytest

MODES = {
    "1-thread": (),
    "4-threads": ("--threads", "4"),
    "no-takeover": ("--no-takeover",),
    "body-stream": ("--body", "stream", "--threads", "2"),
}


@pytest.fixture(scope="module", params=list(MODES))
def probe(request, serve_module):
    """A server of probe.py with one worker."""
    server = serve_module(
        "probe:app",
        "--workers",
        "1",
        "--log-level",
        "debug",
        *MODES[request.param],
        cwd=Path(__file__).parent,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        ready="/calls",
    )
    server.mode = request.param
    return server


@pytest.fixture(scope="module")
def plain(serve_module):
    """As ``probe``, with the default options only."""
    return serve_module(
        "probe:app",
        "--workers",
        "1",
        cwd=Path(__file__).parent,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        ready="/calls",
    )
