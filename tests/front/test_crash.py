"""A worker that dies costs its connections and nothing else, and the log says why."""

import os
import re
import signal
import threading
import time

import pytest

from tests.front.raw import get

APP = """
import ctypes
import os
import signal
import sys
import time

TEXT = [("Content-Type", "text/plain")]


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if path == "/segfault":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # a sanitizer would catch it and exit
        ctypes.string_at(0)
    if path == "/abort":
        os.abort()
    if path == "/exit":
        os._exit(5)
    if path == "/sleep":
        time.sleep(1)
    start_response("200 OK", TEXT)
    return [str(os.getpid()).encode()]
"""

CRASHES = [
    ("/kill", r"SIGKILL"),
    ("/segfault", r"SIGSEGV"),
    ("/abort", r"SIGABRT"),
    ("/exit", r"\b5\b"),
]


@pytest.fixture
def server(serve):
    return serve(APP, "-w2", ready="/")


def pids(server, count=2):
    """The pids of all workers, asked over HTTP; waits for one that is being started."""
    found = set()
    for turn in range(3000):
        found.add(int(server.get("/").text))
        if len(found) == count:
            return found
        if turn > 100:
            time.sleep(0.01)
    raise AssertionError("only %r answered" % found)


def connection_to(server, pid):
    """An idle connection to a worker."""
    for _ in range(1000):
        conn = server.connect()
        conn.send(get())
        if int(conn.read_response().text) == pid:
            return conn
        conn.close()
    raise AssertionError("no connection to %d" % pid)


@pytest.mark.parametrize("path, log", CRASHES, ids=[path[1:] for path, _ in CRASHES])
def test_a_crash_in_a_request(server, path, log):
    before = pids(server)
    victim = min(before)
    kept = connection_to(server, max(before))
    with connection_to(server, victim) as conn:
        conn.send(get("", path))
        try:
            assert conn.at_end()
        except ConnectionResetError:
            pass
    # The other worker's connection goes on, new ones are served, a new worker comes.
    kept.send(get())
    assert kept.read_response().text == str(max(before))
    kept.close()
    after = pids(server)
    assert victim not in after and max(before) in after
    server.wait_log(r"%d\b.*%s|%s.*\b%d\b" % (victim, log, log, victim))


def test_a_worker_killed_from_outside(server):
    before = pids(server)
    victim = min(before)
    kept = connection_to(server, max(before))
    os.kill(victim, signal.SIGKILL)
    for _ in range(50):
        assert server.get("/").status == 200
    kept.send(get())
    assert kept.read_response().text == str(max(before))
    kept.close()
    assert victim not in pids(server)
    server.wait_log(r"SIGKILL")


def test_connections_that_wait_in_the_queue_of_a_dead_worker(serve):
    """With one worker: who has connected while it died is served by the next one."""
    server = serve(APP, "-w1", ready="/")
    (victim,) = pids(server, 1)
    os.kill(victim, signal.SIGSTOP)  # it accepts nothing any more
    waiting = []
    for _ in range(20):
        waiting.append(server.connect())
        waiting[-1].send(get())
    os.kill(victim, signal.SIGKILL)
    for conn in waiting:
        assert int(conn.read_response().text) != victim
        conn.close()


def test_load_over_a_crash(server):
    """Of many clients only those of the dead worker may see an error."""
    pids(server)
    failures = []
    answers = []

    def ask():
        for _ in range(60):
            try:
                answers.append(server.get("/").status)
            except (AssertionError, OSError) as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    os.kill(min(pids(server)), signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert set(answers) == {200}
    assert len(failures) <= 4


def test_a_crash_during_the_stop_is_no_hang(serve):
    server = serve(APP, "-w2", ready="/", check=False)
    victim = min(pids(server))
    with connection_to(server, victim) as conn:
        conn.send(get("", "/sleep"))
        assert conn.is_quiet(0.1)
        server.send_signal(signal.SIGTERM)
        os.kill(victim, signal.SIGKILL)
        server.wait()
    assert re.search("SIGKILL", server.log())
