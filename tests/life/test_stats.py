"""Statistics as JSON in uWSGI's schema, and uwsgitop on it."""

import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import sys
import time
from fcntl import ioctl
from termios import TIOCSWINSZ

import pytest

from tests.lib.server import Connection, free_port
from tests.life.test_metrics import APP
from tests.life.test_upgrade import site  # noqa: F401 (a fixture)

# What the consumers of uWSGI's stats server index.
TOP = "version listen_queue listen_queue_errors signal_queue load pid uid gid cwd locks sockets workers"
WORKER = (
    "id pid accepting requests delta_requests exceptions harakiri_count signals signal_queue status "
    "rss vsz running_time last_spawn respawn_count tx avg_rt apps cores"
)
CORE = (
    "id requests static_requests routed_requests offloaded_requests write_errors read_errors "
    "in_request vars"
)
SOCKET = "name proto queue max_queue shared can_offload"
APP_KEYS = "id modifier1 mountpoint startup_time requests exceptions chdir"


def fetch(address):
    """Connects, reads to the end."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(address)
        parts = []
        while True:
            data = sock.recv(65536)
            if not data:
                return b"".join(parts)
            parts.append(data)


def stats_until(address, accept, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        stats = json.loads(fetch(address))
        if accept(stats):
            return stats
        assert time.monotonic() < deadline, stats
        time.sleep(0.02)


@pytest.fixture
def stats_server(serve):
    """A server with its statistics' address."""

    def start(*args, **kwargs):
        address = ("127.0.0.1", free_port())
        server = serve(APP, "--stats", "%s:%d" % address, *args, **kwargs)
        server.wait_log("ready after")
        return server, address

    return start


def total(stats, key):
    return sum(worker[key] for worker in stats["workers"])


def test_schema(stats_server):
    server, address = stats_server("--workers", "2", "--threads", "2")
    for _ in range(10):
        server.get("/")
    server.get("/boom")
    stats = stats_until(address, lambda s: total(s, "requests") == 11)
    assert set(TOP.split()) <= set(stats)
    assert stats["pid"] == server.pid and stats["uid"] == os.getuid()
    assert os.path.realpath(stats["cwd"]) == os.path.realpath(server.cwd)
    assert [worker["id"] for worker in stats["workers"]] == [1, 2]
    assert {worker["pid"] for worker in stats["workers"]} == set(server.worker_pids())
    for worker in stats["workers"]:
        assert set(WORKER.split()) <= set(worker)
        assert worker["accepting"] == 1 and worker["status"] == "idle"
        assert worker["respawn_count"] == 1 and worker["rss"] > 1 << 20 < worker["vsz"]
        assert abs(worker["last_spawn"] - time.time()) < 60
        assert set(APP_KEYS.split()) <= set(worker["apps"][0])
        assert [core["id"] for core in worker["cores"]] == [0, 1]
        for core in worker["cores"]:
            assert set(CORE.split()) <= set(core)
            assert core["in_request"] == 0 and core["vars"] == []
        assert sum(core["requests"] for core in worker["cores"]) == worker["requests"]
    assert set(SOCKET.split()) <= set(stats["sockets"][0])
    assert stats["sockets"][0]["name"] == server.url
    assert total(stats, "exceptions") == 1
    assert total(stats, "tx") > 10 * 100
    assert total(stats, "running_time") > 0
    assert stats["stoker"]["totals"]["requests"] == 11
    assert stats["stoker"]["latency"]["count"] == 11


def test_busy_worker(stats_server):
    server, address = stats_server("--workers", "1")
    with server.connect() as conn:
        conn.send("GET /sleep?2.0 HTTP/1.1\r\nHost: x\r\n\r\n")
        stats = stats_until(address, lambda s: s["workers"][0]["status"] == "busy")
        assert stats["workers"][0]["cores"][0]["in_request"] == 1
        stats = stats_until(address, lambda s: s["workers"][0]["cores"][0]["vars"])
        core = stats["workers"][0]["cores"][0]
        assert core["vars"] == ["REQUEST_METHOD=GET", "REQUEST_URI=/sleep"]
        (running,) = stats["workers"][0]["stoker"]["running"]
        assert running["method"] == "GET" and running["thread"] == 0
        assert conn.read_response().status == 200
    stats_until(address, lambda s: s["workers"][0]["status"] == "idle")


def test_harakiri_count(stats_server):
    server, address = stats_server("--workers", "1", "--request-timeout", "0.2")
    assert server.get("/sleep?20").status == 504
    stats_until(address, lambda s: s["workers"][0]["harakiri_count"] == 1)


def test_queue_of_the_kernel(stats_server):
    """Connections that nobody has accepted are counted: here because the worker is stopped."""
    server, address = stats_server("--workers", "1")
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    try:
        waiting = [server.connect() for _ in range(5)]
        stats = stats_until(address, lambda s: s["listen_queue"] == 5)
        assert stats["sockets"][0]["queue"] == 5
        assert stats["sockets"][0]["max_queue"] >= 5
    finally:
        os.kill(worker, signal.SIGCONT)
    stats_until(address, lambda s: s["listen_queue"] == 0)
    for conn in waiting:
        conn.close()


def test_totals_never_fall(stats_server):
    """A worker's requests are those of its number, over all processes that it was."""
    server, address = stats_server("--workers", "1")
    for count in (1, 2, 3, 4):
        server.get("/")
        stats = stats_until(address, lambda s: total(s, "requests") == count)
        assert stats["workers"][0]["delta_requests"] == 1
        assert stats["workers"][0]["respawn_count"] == count
        os.kill(stats["workers"][0]["pid"], signal.SIGKILL)
        stats_until(
            address,
            lambda s: s["workers"][0]["respawn_count"] == count + 1
            and s["workers"][0]["accepting"] == 1,
        )
    assert json.loads(fetch(address))["stoker"]["restarts"]["crash"] == 4


def test_unix_socket(serve, tmp_path):
    path = str(tmp_path / "stats.sock")
    server = serve(APP, "--stats", path, ready="/")  # which listens behind the application's
    assert json.loads(fetch(path))["pid"] == server.pid
    server.stop()
    assert not os.path.exists(path)


def test_http(stats_server):
    server, (host, port) = stats_server("--stats-http")
    from urllib.request import urlopen

    with urlopen("http://%s:%d/" % (host, port), timeout=20) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/json"
        assert json.load(response)["pid"] == server.pid


def test_readers_that_do_not_read(stats_server):
    """They are given up in time, and meanwhile nothing of the master waits for them."""
    server, address = stats_server("--workers", "2", "--threads", "64")
    lazy = []
    for _ in range(40):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        sock.connect(address)
        lazy.append(sock)
    assert server.get("/").status == 200
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.wait_log("a new one is started")
    assert json.loads(fetch(address))["pid"] == server.pid
    for sock in lazy:
        sock.close()
    server.stop()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_upgrade(site, tmp_path, kind):  # noqa: F811
    """The addresses of statistics and metrics go to the new server, like all others."""
    if kind == "unix":
        address, metrics = str(tmp_path / "stats.sock"), str(tmp_path / "metrics.sock")
        options = ("--stats", address, "--metrics", "unix:" + metrics)
    else:
        address, metrics = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
        options = ("--stats", "%s:%d" % address, "--metrics", "%s:%d" % metrics)
    up = site(APP, *options)
    for _ in range(2):
        pid = up.upgrade()
        stats_until(address, lambda s: s["pid"] == pid)
        with Connection(metrics) as conn:
            assert up.server.get("/metrics", conn=conn).status == 200
        assert up.server.get("/").status == 200


def test_address_in_use(serve):
    server = serve(APP, start=False, check=False)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        server.command += ["--stats", "127.0.0.1:%d" % sock.getsockname()[1]]
        server.spawn()
        assert server.wait() == 1
    assert "stats: " in server.log() and "in use" in server.log()


def uwsgitop_command():
    beside = os.path.join(os.path.dirname(sys.executable), "uwsgitop")
    return beside if os.path.exists(beside) else shutil.which("uwsgitop")


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, *command, rows=40, columns=200):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            ioctl(0, TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.environ.update(TERM="xterm", COLUMNS=str(columns), LINES=str(rows))
            os.execv(command[0], command)

    def wait_for(self, text, seconds=20):
        """Reads until the text has been shown; forgets what came before its end."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, (text, self.seen)
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # the program has ended
                data = b""
            assert data, (text, self.seen)
            self.seen += data
        self.seen = self.seen.partition(text)[2]

    def type(self, keys):
        os.write(self.fd, keys)

    def end(self, seconds=20):
        """The exit code."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.fd], [], [], 0.05)
            if ready:
                try:
                    self.seen += os.read(self.fd, 65536)
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)
        raise AssertionError("the program does not end")


@pytest.mark.skipif(not uwsgitop_command(), reason="uwsgitop is not installed")
def test_uwsgitop(stats_server):
    server, (host, port) = stats_server("--workers", "2", "--threads", "2")
    for _ in range(7):
        server.get("/")
    stats_until((host, port), lambda s: total(s, "requests") == 7)
    top = Terminal(uwsgitop_command(), "%s:%d" % (host, port))
    top.wait_for(b"uwsgi-stoker-")
    top.wait_for(b"req: 7")
    top.wait_for(b"LastSpwn")
    top.wait_for(b"idle")
    server.get("/")
    top.wait_for(b"8")  # after a refresh, which writes only what has changed
    with server.connect() as conn:
        conn.send("GET /sleep?3 HTTP/1.1\r\nHost: x\r\n\r\n")
        top.wait_for(b"busy")
    top.type(b"a")  # cores merged with workers
    top.wait_for(b":0")
    top.type(b"a")  # cores below workers
    top.wait_for(b":0")
    top.type(b"q")
    assert top.end() == 0
