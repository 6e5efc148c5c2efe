"""Applications that fork, use multiprocessing and subprocess: nobody else notices."""

import os
import time

import pytest

from tests.compat.conftest import APPS

OK = "GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module", params=["-t1", "-t3", "--preload", "--no-takeover"])
def server(request, serve_module):
    return serve_module(
        "forking_app:app", "-w1", request.param, cwd=APPS, env={"PYTHONDONTWRITEBYTECODE": "1"}, ready="/pid"
    )


@pytest.fixture(autouse=True)
def same_worker(server):
    """No test costs the worker, and connections that were open before go on afterwards."""
    with server.connect() as conn:
        conn.send(OK)
        before = conn.read_response().text
        yield
        conn.send(OK)
        assert conn.read_response().text == before
    assert server.get("/pid").text == before


def ended(pid):
    """Whether a process has ended, by itself, in the time that a loaded machine may need."""
    for _ in range(500):
        try:
            with open("/proc/%d/stat" % pid) as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_fork_and_exit(server):
    for _ in range(5):
        assert server.get("/fork_and_exit").text == "child 7"


def test_a_child_that_returns_to_the_server(server):
    """One answer, that of the parent; the child is ended and the log says what it did."""
    for _ in range(3):
        with server.connect() as conn:
            conn.send("GET /fork_and_return HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            response = conn.read_response()
            assert conn.at_end()
        assert response.text.startswith("parent of ")
        assert ended(int(response.text.split()[-1]))
    server.wait_log("in a forked process; the response belongs to its parent")


def test_a_child_of_a_generator(server):
    response = server.get("/fork_in_a_generator")
    assert response.text == "before parent"


def test_a_child_that_raises(server):
    assert server.get("/fork_and_raise").text == "child 1"
    server.wait_log("RuntimeError: raised in the child")


def test_a_child_that_stays_holds_nothing_of_the_server(server):
    with server.connect() as other:
        pid = int(server.get("/fork_and_stay").text)
        for _ in range(500):  # the child may not have run yet
            found = server.get("/children_fds?%d" % pid).text
            if "socket:" not in found:
                break
            time.sleep(0.02)
        assert "socket:" not in found
        assert server.get("/end_child?%d" % pid).text == "ended"
        other.send(OK)
        assert other.read_response().status == 200


def test_a_child_of_a_thread(server):
    for _ in range(3):
        assert server.get("/fork_with_threads").text == "child 3"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pool(server, method):
    assert server.get("/pool?" + method, timeout=60).text == "[0, 2, 4, 6, 8]"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_process(server, method):
    assert server.get("/process?" + method, timeout=60).text == "from the child 0"


def test_commands(server):
    assert server.get("/run").text == "from a command\n"
    assert server.get("/shell").text == "3"
    assert int(server.get("/daemon").text) > 0


def test_what_commands_inherit(server):
    """Signals are neither blocked nor ignored but for Python's own, and no descriptor is passed on."""
    for line in server.get("/signals").text.splitlines():
        name, _, mask = line.partition(":")
        own = 0 if name == "SigBlk" else 1 << (13 - 1) | 1 << (25 - 1)  # SIGPIPE, SIGXFSZ
        # 32 and above are the C library's.
        assert int(mask, 16) & 0x7FFFFFFF & ~own == 0, line
    assert "socket:" not in server.get("/inherited").text
    assert server.get("/child_signal").text == "True"


def test_forks_while_others_are_served(server):
    conns = [server.connect() for _ in range(20)]
    for conn in conns:
        conn.send("GET /fork_and_exit HTTP/1.1\r\nHost: x\r\n\r\n" + OK)
    for conn in conns:
        assert conn.read_response().text == "child 7"
        assert conn.read_response().status == 200
        conn.close()


def test_nothing_is_left_behind(server):
    """No child of the application waits for its end."""
    (worker,) = [pid for pid in server.worker_pids()] if server.command.count("--preload") == 0 else (None,)
    if worker is None:
        return
    with open("/proc/%d/task/%d/children" % (worker, worker)) as file:
        children = [int(pid) for pid in file.read().split()]
    zombies = []
    for pid in children:
        try:
            with open("/proc/%d/stat" % pid) as file:
                text = file.read()
        except OSError:
            continue
        # Those of fork_and_return and daemon are the application's to wait for.
        if " Z " in text and "(sleep)" not in text:
            zombies.append(text)
    assert len(zombies) <= 3
    assert os.path.exists("/proc/%d" % worker)
