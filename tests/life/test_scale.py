"""How many workers there are, and that no connection notices: not one that waits in the socket of a
worker that is not there."""

import json
import os
import signal
import threading

from tests.front.raw import get
from tests.life.steady import Steady, command, pids, wait_until

APP = """
import os
import time


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.5)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
"""

# Workers that start while the file is there do not become ready until it is gone.
GATED = (
    """
import os
import time

while os.path.exists("gate"):
    time.sleep(0.02)
"""
    + APP
)


def serving(server, control):
    """The workers that serve, by the server's own word."""
    status = json.loads(command(control, "status", "--json").stdout)
    return sum(1 for worker in status["workers"] if worker["state"] == "ready")


def open_many(server, count):
    """Connections that have sent a request and not read anything."""
    conns = []
    for _ in range(count):
        conns.append(server.connect())
        conns[-1].send(get("", "/pid"))
    return conns


def answered(conns):
    """Reads the answers and closes; who has given them."""
    found = set()
    for conn in conns:
        response = conn.read_response()
        assert response.status == 200
        found.add(int(response.text))
        conn.close()
    return found


def test_more_when_busy_and_fewer_when_not(serve):
    server = serve(APP, "-w4", "--workers-min", "1")
    server.wait_log("info: 1 to 4 workers with 1 thread each")
    server.wait_log(r"ready after")
    assert len(pids(server, 40)) == 1
    idle = [server.connect() for _ in range(4)]
    for conn in idle:
        conn.send(get())
        assert conn.read_response().status == 200
    failures = []
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            try:
                assert server.get("/slow").status == 200
            except (AssertionError, OSError) as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    server.wait_log(r"busy: 4 from now on")
    wait_until(lambda: len(server.worker_pids()) == 4)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    with Steady(server, threads=1):
        server.wait_log(r"goes, because there is little to do: 3 of 4 slots have workers")
    for conn in idle:
        conn.close()


def test_by_order(serve, tmp_path):
    control = tmp_path / "control.sock"
    server = serve(APP, "-w4", "--control", control)
    server.wait_log(r"ready after")
    with Steady(server) as steady:
        for number in ("2", "4", "1", "3"):
            done = command(control, "scale", number)
            assert done.returncode == 0, done
            assert serving(server, control) == int(number)
            steady.more()
        refused = command(control, "scale", "5")
        assert refused.returncode != 0
        done = command(control, "scale", "auto")
        assert done.returncode == 0, done
        assert serving(server, control) == 4


def test_sixteen_connections_over_eight_slots_that_scale(serve, tmp_path):
    """Slots are given up and not one connection waits in them or is reset; nor while their new
    workers take long to load."""
    control = tmp_path / "control.sock"
    server = serve(GATED, "-w8", "--control", control)
    server.wait_log(r"ready after")
    before = pids(server, 300)
    assert command(control, "scale", "2").returncode == 0
    found = set().union(*(answered(open_many(server, 16)) for _ in range(4)))
    assert found <= before and len(found) == 2  # shared out between the two
    (tmp_path / "gate").write_text("")
    scaling = threading.Thread(target=command, args=(control, "scale", "8"))
    scaling.start()
    server.wait_log(r"the number of workers is 8")
    wait_until(lambda: len(server.worker_pids()) >= 8)
    for _ in range(4):
        # No one of the new workers is ready: whoever is served is served by the two.
        assert answered(open_many(server, 16)) <= found
    (tmp_path / "gate").unlink()
    scaling.join()
    for _ in range(4):
        answered(open_many(server, 16))
    assert serving(server, control) == 8


def test_sixteen_connections_over_eight_slots_that_die(serve, tmp_path):
    """kill -9: what waited in the sockets of the dead is served by the living, before the workers
    that replace them are ready."""
    server = serve(GATED, "-w8")
    server.wait_log(r"ready after")
    before = pids(server, 300)
    assert len(before) == 8
    (tmp_path / "gate").write_text("")
    left = set(before)
    for victim in sorted(before)[:6]:
        os.kill(victim, signal.SIGSTOP)  # what is sent to it from now on stays in its socket
        conns = open_many(server, 16)
        os.kill(victim, signal.SIGKILL)
        left.discard(victim)
        assert answered(conns) <= left
        assert answered(open_many(server, 16)) <= left
    (tmp_path / "gate").unlink()
    wait_until(lambda: len(pids(server, 100)) == 8)
    assert left < pids(server, 300)


def test_reload_and_crash_of_a_scaled_server(serve, tmp_path):
    control = tmp_path / "control.sock"
    server = serve(APP, "-w4", "--control", control)
    server.wait_log(r"ready after")
    assert command(control, "scale", "2").returncode == 0
    with Steady(server):
        assert command(control, "reload").returncode == 0
        assert serving(server, control) == 2
    os.kill(min(pids(server)), signal.SIGKILL)
    wait_until(lambda: serving(server, control) == 2)
    assert len(pids(server)) == 2
