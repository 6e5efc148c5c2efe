"""Workers that are replaced because of what they have become; the new one first."""

import re

import pytest

from tests.life.steady import Steady, command, pids, wait_until

APP = """
import os

if os.environ.get("BROKEN") and os.path.exists(os.environ["BROKEN"]):
    raise RuntimeError("it does not load")
HOARD = []


def app(environ, start_response):
    if environ["PATH_INFO"] == "/grow":
        HOARD.append(b"x" * (8 << 20))
    if environ["PATH_INFO"] == "/import":
        import sqlite3
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
"""


def start(serve, *args, **kwargs):
    server = serve(APP, *args, **kwargs)
    server.wait_log(r"ready after")
    return server


def test_max_requests(serve):
    server = start(serve, "-w2", "--max-requests", "50", "--recycle-jitter", "0")
    with Steady(server) as steady:
        wait_until(lambda: server.log().count("(max-requests)") >= 6)
    counts = {}
    for pid in steady.texts:
        counts[pid] = counts.get(pid, 0) + 1
    assert len(counts) >= 6
    # Who has its number goes when the next one is ready, so each has answered some more.
    for pid, number in re.findall(r"worker \d \((\d+)\) has answered (\d+) requests", server.log()):
        assert int(number) >= 50
    assert server.log().count("SIG") == 0


def test_jitter_spreads(serve):
    """Workers that are started together do not end together."""
    server = start(serve, "-w4", "--max-requests", "200", "--recycle-jitter", "100")
    with Steady(server):
        wait_until(lambda: server.log().count("(max-requests)") >= 6)
    numbers = re.findall(r"has answered (\d+) requests \(max-requests\)", server.log())
    assert len(set(numbers)) > 1
    assert min(map(int, numbers)) < 200


def test_one_at_a_time(serve):
    """Never more than one worker above the number, also when all are due."""
    server = start(serve, "-w3", "--max-lifetime", "1", "--recycle-jitter", "0")
    most = 0
    with Steady(server):
        while server.log().count("(max-lifetime)") < 6:
            most = max(most, len(server.worker_pids()))
    assert most <= 4


@pytest.mark.parametrize("option", ["max-rss", "max-pss"])
def test_memory(serve, option):
    server = start(serve, "-w2", "--" + option, "150m")
    before = pids(server)
    with Steady(server):
        while "(%s)" % option not in server.log():
            server.get("/grow")
    found = server.wait_log(r"worker \d \((\d+)\) has grown to [\d.]+ MiB \(%s\)" % option)
    assert int(found.group(1)) in before
    wait_until(lambda: int(found.group(1)) not in pids(server))


def test_a_replacement_that_does_not_start(serve, tmp_path):
    """The old worker stays, says so once an attempt, and goes when the next one starts."""
    broken = tmp_path / "broken"
    server = start(serve, "-w1", "--max-requests", "20", env={"BROKEN": str(broken)})
    broken.write_text("")
    (old,) = pids(server, 30)
    with Steady(server) as steady:
        server.wait_log(r"a replacement, cannot load the application: the old worker goes on")
        steady.more(50)
        assert set(steady.texts) == {str(old)}
        broken.unlink()
        wait_until(lambda: len(set(steady.texts)) > 1)


def test_by_order(serve, tmp_path):
    control = tmp_path / "control.sock"
    server = start(serve, "-w2", "--control", control)
    before = pids(server)
    with Steady(server):
        done = command(control, "recycle", "2")
        assert done.returncode == 0, done
        wait_until(lambda: len(before & pids(server)) == 1)
    assert "is to be replaced" in server.log()


def test_a_template_learns(serve):
    """preload-refresh: what workers import is imported before the next ones are forked."""
    server = start(serve, "-w2", "--preload", "--preload-refresh", "10")
    before = pids(server, 4)
    with Steady(server, path="/import"):
        server.wait_log(r"the template has imported [1-9]\d* module")
        server.wait_log(r"preload-refresh is complete: 2 new workers")
    assert not before & pids(server)
