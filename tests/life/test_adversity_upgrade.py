"""Upgrades and the control socket in bad moments: odd orders, lost processes, nonsense."""

import contextlib
import json
import os
import random
import signal
import socket
import time

import pytest

from tests.life.test_adversity import APP, SLOW_START, Traffic, left_of, served, wait_until, workers

# The import is not over as long as there is a file "hold".
HELD_START = """
import os
import time

while os.path.exists("hold"):
    time.sleep(0.005)
""" + APP


class Upgraded:
    """A server with a pidfile, whose master changes."""

    def __init__(self, serve, tmp_path, *args, app=APP, **kwargs):
        self.pidfile = tmp_path / "master.pid"
        self.server = serve(app, "-w2", "--pidfile", str(self.pidfile), *args, ready="/", **kwargs)
        self.server.wait_log(r"\] info: ready after")

    def master(self):
        try:
            return int(self.pidfile.read_text())
        except (OSError, ValueError):
            return None

    def send(self, number, pid=None):
        os.kill(pid or self.master(), number)

    def masters(self):
        return [p.pid for p in left_of(self.server) if p.role == "master"]

    def wait_master(self, old):
        wait_until(lambda: self.master() not in (None, old))

    def upgrade(self):
        old = self.master()
        self.send(signal.SIGUSR2)
        self.wait_master(old)
        wait_until(lambda: self.masters() == [self.master()])

    def stop(self):
        """SIGTERM to the master in charge; nothing is left."""
        self.send(signal.SIGTERM)
        wait_until(lambda: left_of(self.server) == [])
        assert self.server.wait() == 0


@pytest.fixture
def upgraded(serve, tmp_path):
    return lambda *args, **kwargs: Upgraded(serve, tmp_path, *args, **kwargs)


def test_several_upgrades_with_killed_workers(upgraded):
    site = upgraded()
    with Traffic(site.server):
        for _ in range(3):
            site.upgrade()
    os.kill(min(workers(site.server)), signal.SIGKILL)
    served(site.server)
    wait_until(lambda: len(workers(site.server)) == 2)
    site.stop()


@pytest.mark.parametrize("pause", [0.0, 0.1, 0.3, 0.5, 0.8, 1.2])
def test_a_stop_during_an_upgrade(upgraded, pause):
    """SIGTERM to whoever is the master then: both servers end."""
    site = upgraded(app=SLOW_START)
    site.send(signal.SIGUSR2)
    time.sleep(pause)
    for pid in site.masters():
        with contextlib.suppress(ProcessLookupError):  # the end of the first may have ended the other
            os.kill(pid, signal.SIGTERM)
    wait_until(lambda: left_of(site.server) == [])
    assert site.server.wait() == 0


@pytest.mark.parametrize("first, second", [(signal.SIGHUP, signal.SIGUSR2), (signal.SIGUSR2, signal.SIGHUP)])
@pytest.mark.parametrize("pause", [0.0, 0.2, 0.5])
def test_an_upgrade_and_a_reload_at_once(upgraded, first, second, pause):
    site = upgraded(app=SLOW_START)
    old = site.master()
    with Traffic(site.server):
        site.send(first, old)
        time.sleep(pause)
        site.send(second, old)
        site.wait_master(old)
        wait_until(lambda: site.masters() == [site.master()])
    wait_until(lambda: len(workers(site.server)) == 2)
    served(site.server)
    site.stop()


@pytest.mark.parametrize("when", ["forked", "loading"])
def test_the_new_master_is_killed(upgraded, tmp_path, when):
    """At its very start, and while its workers load: they cannot become ready before the file goes."""
    site = upgraded(app=HELD_START)
    old = site.master()
    (tmp_path / "hold").touch()
    with Traffic(site.server):
        site.send(signal.SIGUSR2)
        wait_until(lambda: len(site.masters()) == 2)
        if when == "loading":
            wait_until(lambda: len(workers(site.server)) == 3)
        (new,) = set(site.masters()) - {old}
        os.kill(new, signal.SIGKILL)
        site.server.wait_log("the upgrade failed")
        (tmp_path / "hold").unlink()
        wait_until(lambda: site.masters() == [old] and len(workers(site.server)) == 2)
    assert site.master() == old
    site.upgrade()
    site.stop()


def test_the_old_master_is_killed(upgraded, tmp_path):
    """Before the new one is ready: the new one is the server then."""
    site = upgraded(app=HELD_START)
    old = site.master()
    (tmp_path / "hold").touch()
    site.send(signal.SIGUSR2)
    wait_until(lambda: len(site.masters()) == 2)
    os.kill(old, signal.SIGKILL)
    with Traffic(site.server):
        (tmp_path / "hold").unlink()
        site.wait_master(old)
        wait_until(lambda: len(workers(site.server)) == 2 and site.masters() != [old])
    (new,) = site.masters()
    site.server.check = False  # its exit code is that of SIGKILL
    assert site.master() == new
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: left_of(site.server) == [])


def test_an_upgrade_to_what_cannot_be_loaded(upgraded, tmp_path):
    site = upgraded()
    old = site.master()
    with Traffic(site.server):
        (tmp_path / "app.py").write_text("def app(:\n")
        site.send(signal.SIGUSR2)
        site.server.wait_log("the upgrade failed")
    assert site.master() == old and site.masters() == [old]
    (tmp_path / "app.py").write_text(APP)
    with Traffic(site.server):
        site.upgrade()
    site.stop()


def test_an_upgrade_of_a_unix_socket(upgraded, tmp_path):
    path = tmp_path / "site.sock"
    site = upgraded(bind="unix:%s?mode=606" % path)
    with Traffic(site.server):
        site.upgrade()
    assert path.stat().st_mode & 0o777 == 0o606
    served(site.server)
    site.stop()
    assert not path.exists()


def test_a_burst_of_upgrades(upgraded):
    site = upgraded()
    old = site.master()
    with Traffic(site.server):
        for _ in range(20):
            site.send(signal.SIGUSR2, old)
            time.sleep(0.01)
        site.wait_master(old)
        wait_until(lambda: site.masters() == [site.master()])
    served(site.server)
    site.stop()


def test_stops_of_both_masters_at_once(upgraded):
    site = upgraded()
    old = site.master()
    with site.server.connect() as conn:
        conn.send("GET /sleep?1 HTTP/1.1\r\nHost: x\r\n\r\n")
        site.send(signal.SIGUSR2)
        site.wait_master(old)
        for pid in site.masters():
            os.kill(pid, signal.SIGTERM)
        assert conn.read_response().status == 200
    wait_until(lambda: left_of(site.server) == [])


# The control socket


@pytest.fixture
def controlled(serve, tmp_path):
    path = str(tmp_path / "control.sock")
    server = serve(APP, "-w2", "--control", path, ready="/")
    server.wait_log(r"\] info: ready after")
    return server, path


def control(path, seconds=20.0):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(seconds)
    sock.connect(path)
    return sock


def ask(path, data):
    """One line there, one line back; b"" when it is closed instead."""
    with control(path) as sock:
        try:
            sock.sendall(data)
            answer = b""
            while not answer.endswith(b"\n"):
                part = sock.recv(65536)
                if not part:
                    break
                answer += part
        except (BrokenPipeError, ConnectionResetError):
            return b""
        return answer


def status(path):
    found = json.loads(ask(path, b'{"command":"status"}\n'))
    assert found["ok"] is True
    return found


NONSENSE = [
    b"status\n",
    b"{}\n",
    b"[]\n",
    b"null\n",
    b'{"command":null}\n',
    b'{"command":"no such thing"}\n',
    b'{"command":"status"\n',
    b'{"command":"status"}}\n',
    b'{"command":"scale"}\n',
    b'{"command":"scale","workers":-1}\n',
    b'{"command":"scale","workers":1e308}\n',
    b'{"command":"scale","workers":"many"}\n',
    b'{"command":"stack","worker":99999999999999999999}\n',
    b'{"command":"recycle","worker":0}\n',
    b'{"command":"st\\u0000op"}\n',
    b'{"command":"\xff\xfe"}\n',
    b"[" * 50_000 + b"\n",
    b'{"a":' * 5_000 + b"\n",
    b"\0" * 1000 + b"\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
]


@pytest.mark.parametrize("data", NONSENSE, ids=[repr(data[:24]) for data in NONSENSE])
def test_nonsense_to_the_control_socket(controlled, data):
    server, path = controlled
    before = sorted(workers(server))
    for line in ask(path, data).splitlines():
        found = json.loads(line)
        assert found["ok"] is False and found["error"]
    assert status(path)
    assert sorted(workers(server)) == before
    served(server, 3)


def test_empty_lines_to_the_control_socket(controlled):
    assert json.loads(ask(controlled[1], b'\n\r\n\n{"command":"status"}\n'))["ok"] is True


def test_an_endless_line_to_the_control_socket(controlled):
    """It is refused before it costs memory."""
    server, path = controlled
    with control(path) as sock:
        sent = 0
        try:
            while sent < 64 << 20:
                sent += sock.send(b"x" * 65536)
        except (BrokenPipeError, ConnectionResetError, socket.timeout):
            pass
    assert sent < 64 << 20
    assert status(path)


def test_many_idle_clients_of_the_control_socket(controlled):
    """They neither keep others out nor the master from its work."""
    server, path = controlled
    idle = []
    for _ in range(300):
        try:
            idle.append(control(path, 5.0))
            idle[-1].sendall(b'{"comm')
        except OSError:
            break
    with Traffic(server):
        server.send_signal(signal.SIGHUP)
        server.wait_log("the reload is complete")
    for sock in idle:
        sock.close()
    assert status(path)


def test_clients_that_leave_in_the_middle_of_a_command(controlled):
    server, path = controlled
    chance = random.Random(1)
    for _ in range(40):
        sock = control(path)
        sock.sendall(b'{"command":"%s"}\n' % chance.choice([b"reload", b"status", b"stack", b"config"]))
        if chance.random() < 0.5:
            time.sleep(chance.random() * 0.02)
        sock.close()
    wait_until(lambda: len(left_of(server)) == 3)
    assert status(path)
    served(server)


def test_a_client_that_reads_no_answers(controlled):
    server, path = controlled
    with control(path) as sock:
        sock.settimeout(0.5)
        try:
            for _ in range(5000):
                sock.sendall(b'{"command":"config"}\n')
        except OSError:
            pass
        assert status(path)
        served(server)
