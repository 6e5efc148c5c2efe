"""Bad moments in odd orders: signals in bursts, stops in the middle of starts, full disks, lost masters."""

import os
import re
import signal
import threading
import time

import pytest

from tests.front.raw import get, post
from tests.lib.server import Server, test_command
from tests.life.soaking import processes

APP = """
import os
import time


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/begin":
        open("begun", "w").close()
        time.sleep(0.5)
    if path == "/sleep":
        time.sleep(float(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/echo":
        return [environ["wsgi.input"].read()]
    return [b"%d" % os.getpid()]
"""

SLOW_START = "import time\n\ntime.sleep(0.3)\n" + APP


@pytest.fixture
def start(serve):
    """serve(APP, ...) with two workers that are ready."""

    def start_server(*args, app=APP, **kwargs):
        server = serve(app, "-w2", *args, **kwargs)
        if kwargs.get("start", True):
            server.wait_log(r"\] info: ready after")
        return server

    return start_server


def left_of(server):
    """The processes of the server's session that are no zombies."""
    return [p for p in processes.of_session(server.pid) if p.state not in "ZX"]


def wait_until(what, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def served(server, count=20):
    for _ in range(count):
        assert server.get("/").status == 200


def workers(server):
    return [p.pid for p in left_of(server) if p.role == "worker"]


class Traffic:
    """Requests on connections of their own for as long as a block lasts; none may fail."""

    def __init__(self, server):
        self.server = server
        self.failures = []
        self.answered = 0
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.ask) for _ in range(3)]

    def ask(self):
        while not self.ended.is_set():
            try:
                assert self.server.get("/").status == 200
                self.answered += 1
            except (AssertionError, OSError) as error:
                self.failures.append(repr(error))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self.ended.set()
        for thread in self.threads:
            thread.join()
        assert self.failures == [] and self.answered > 0


# Signals


def test_a_burst_of_reloads(start):
    server = start()
    with Traffic(server):
        for _ in range(40):
            server.send_signal(signal.SIGHUP)
            time.sleep(0.005)
        server.wait_log("the reload is complete")
    wait_until(lambda: len(left_of(server)) == 3)
    served(server)


def test_all_signals_at_once(start):
    server = start()
    with Traffic(server):
        for _ in range(30):
            for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1):
                server.send_signal(number)
        server.wait_log("the reload is complete")
    served(server)


def test_signals_that_a_worker_leaves_to_the_master(start):
    server = start()
    before = sorted(workers(server))
    for pid in before:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(pid, number)
    served(server)
    assert sorted(workers(server)) == before


def test_sigterm_to_each_worker_in_turn(start):
    server = start()
    with Traffic(server):
        for _ in range(6):
            victim = min(workers(server))
            os.kill(victim, signal.SIGTERM)
            wait_until(lambda gone=victim: gone not in workers(server))
    wait_until(lambda: len(workers(server)) == 2)


def test_all_workers_killed_again_and_again(start):
    server = start()
    for _ in range(4):
        for pid in workers(server):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        assert server.get("/").status == 200
    wait_until(lambda: len(workers(server)) == 2)
    served(server)


# Stops


@pytest.mark.parametrize("pause", [0.0, 0.02, 0.1, 0.2, 0.35])
@pytest.mark.parametrize("first", [None, signal.SIGHUP, signal.SIGUSR1])
def test_a_stop_during_the_start(serve, pause, first):
    """SIGTERM at any moment after the addresses are open ends the server well."""
    server = serve(SLOW_START, "-w2")
    if first:
        server.send_signal(first)
    time.sleep(pause)
    server.stop()
    assert left_of(server) == []


def test_a_stop_while_addresses_are_opened(serve, tmp_path):
    """The first is open, and so many follow that the signal comes before the last."""
    (tmp_path / "s").mkdir()
    server = serve(None, *["--bind=unix:s/%d" % n for n in range(200)], "app:app", start=False)
    (tmp_path / "app.py").write_text("def app(environ, start_response):\n    return []\n")
    server.start()
    server.stop()
    assert left_of(server) == []
    assert os.listdir(tmp_path / "s") == []


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.2, 0.35, 0.6])
def test_a_stop_during_a_reload(serve, pause):
    server = serve(SLOW_START, "-w2", ready="/")
    server.wait_log("ready after")
    with server.connect() as conn:
        conn.send(get("", "/sleep?0.8"))
        server.send_signal(signal.SIGHUP)
        time.sleep(pause)
        server.send_signal(signal.SIGTERM)
        assert conn.read_response().status == 200
    server.stop()
    assert left_of(server) == []


def test_a_worker_that_is_stopped_does_not_hold_up_a_reload(start):
    """SIGSTOP: it can neither finish nor answer, so it is killed when its time is over."""
    server = start("--graceful-timeout", "1s", "--exit-timeout", "1s")
    victim = min(workers(server))
    os.kill(victim, signal.SIGSTOP)
    server.send_signal(signal.SIGHUP)
    server.wait_log("the reload is complete: 2 new workers; 1 old one has not answered")
    wait_until(lambda: victim not in workers(server))
    served(server)


def test_a_worker_that_is_stopped_does_not_hold_up_a_stop(start):
    server = start("--graceful-timeout", "1s", "--exit-timeout", "1s")
    os.kill(min(workers(server)), signal.SIGSTOP)
    server.send_signal(signal.SIGTERM)
    server.wait()
    assert left_of(server) == []


def test_the_successor_is_killed_in_a_reload(serve):
    server = serve(SLOW_START, "-w2", ready="/")
    server.wait_log("ready after")
    before = set(workers(server))
    with Traffic(server):
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: set(workers(server)) - before)
        for pid in set(workers(server)) - before:
            os.kill(pid, signal.SIGKILL)
        server.wait_log("the reload failed")
        wait_until(lambda: set(workers(server)) == before)
        server.send_signal(signal.SIGHUP)
        server.wait_log("the reload is complete")
    wait_until(lambda: not before & set(workers(server)))


def test_a_new_version_with_a_syntax_error(start, tmp_path):
    server = start()
    before = set(workers(server))
    with Traffic(server):
        (tmp_path / "app.py").write_text("def app(:\n")
        server.send_signal(signal.SIGHUP)
        server.wait_log("the reload failed")
        time.sleep(0.3)
    assert set(workers(server)) == before
    assert "SyntaxError" in server.log()
    (tmp_path / "app.py").write_text(APP)
    server.send_signal(signal.SIGHUP)
    server.wait_log("the reload is complete")


# A master that is gone


@pytest.mark.parametrize("bind", ["tcp", "unix"])
def test_a_master_that_is_killed(start, bind, tmp_path):
    """The workers finish what they have and go; then the address is free for the next server."""
    server = start(bind=bind)
    where = "unix:%s" % server.address if bind == "unix" else "127.0.0.1:%d" % server.port
    with server.connect() as conn:
        conn.send(get("", "/begin"))
        wait_until((tmp_path / "begun").exists)
        os.kill(server.pid, signal.SIGKILL)
        assert conn.read_response().status == 200
    server.wait()
    wait_until(lambda: left_of(server) == [])
    with Server("app:app", ["-w1"], cwd=tmp_path, bind=where) as again:
        again.wait_ready("/")


# Disks and descriptors


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_logs_on_a_full_disk(start):
    server = start("--access-log", "/dev/full")
    served(server, 300)
    full = start("--error-log", "/dev/full", start=False)
    full.start("/")
    served(full)
    full.send_signal(signal.SIGHUP)
    full.send_signal(signal.SIGUSR1)
    served(full)


def test_a_log_whose_reader_has_left(serve, tmp_path):
    """`stoker | head`: the lines are lost, the requests are not."""
    server = serve(APP, "-w2", command=["sh", "-c", 'exec "$@" | true', "sh", *test_command()], check=False)
    served(server, 200)
    server.kill()


def test_started_without_standard_descriptors(serve, tmp_path):
    """No socket may take the place of standard error: lines of the log would go to clients."""
    pidfile = tmp_path / "pid"
    server = serve(
        APP, "-w2", "--pidfile", str(pidfile),
        command=["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *test_command()],
    )  # fmt: skip
    for _ in range(3):
        served(server)
        before = set(workers(server))
        server.send_signal(signal.SIGHUP)
        server.send_signal(signal.SIGUSR1)
        wait_until(lambda: len(workers(server)) == 2 and not before & set(workers(server)))
    with server.connect() as conn:
        for _ in range(20):
            conn.send(get("", "/sleep?0.01"))
            assert conn.read_response().status == 200
    for process in left_of(server):
        for fd in ("0", "1", "2"):
            link = os.readlink("/proc/%d/fd/%s" % (process.pid, fd))
            assert not link.startswith("socket:"), (process.name, fd, link)


def test_no_place_for_a_large_body(start, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    server = start("--tmpdir", str(gone))
    gone.rmdir()
    body = b"x" * 3_000_000
    with server.connect() as conn:
        try:
            conn.send(post("Content-Length: %d\r\n" % len(body), body))
        except OSError:
            pass
        response = conn.read_response()
        assert response.status in (500, 503) and response.will_close
    server.wait_log("POST /echo: the request body could not be stored")
    assert server.post("/echo", b"y" * 500_000).body == b"y" * 500_000


@pytest.mark.alone
def test_nothing_is_left_behind(start, tmp_path):
    """No file, no process, no shared memory stays when the server has ended."""
    server = start("--pidfile", str(tmp_path / "pid"), bind="unix")
    server.post("/echo", b"x" * 3_000_000)
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    server.send_signal(signal.SIGHUP)
    server.wait_log("the reload is complete")
    server.stop()
    assert left_of(server) == []
    found = {path.name for path in tmp_path.iterdir()}
    assert {name for name in found if not re.match(r"server-|app\.py|__pycache__", name)} == set()
    assert not found & {os.path.basename(server.address)}
    if os.path.isdir("/dev/shm"):
        assert {name for name in set(os.listdir("/dev/shm")) - before if "stoker" in name} == set()
