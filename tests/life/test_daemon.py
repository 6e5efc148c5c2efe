"""--daemon: the command returns when the server is ready, or says why it is not."""

import os
import pty
import signal
import subprocess
import time

import pytest

from tests.lib.server import Connection, Server, free_port, test_command

APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]
"""


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Daemon:
    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        (folder / "app.py").write_text(APP)

    def start(self, *args, logs=("--error-log", "log", "--access-log", "off"), **kwargs):
        kwargs.setdefault("stdout", subprocess.PIPE)
        kwargs.setdefault("stderr", subprocess.PIPE)
        return subprocess.run(
            test_command()
            + ["app:app", "--daemon", "--pidfile", "pid", "--bind", "127.0.0.1:%d" % self.port]
            + list(logs)
            + list(args),
            cwd=str(self.folder),
            env=Server._environment({}),
            stdin=subprocess.DEVNULL,
            timeout=60,
            **kwargs
        )

    @property
    def pid(self):
        return int((self.folder / "pid").read_text())

    @property
    def log(self):
        return (self.folder / "log").read_text()

    def get(self):
        with Connection(("127.0.0.1", self.port)) as conn:
            conn.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return conn.read_response()

    def stop(self):
        pid = self.pid
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 45
        while alive(pid):
            assert time.monotonic() < deadline, "the server does not end"
            time.sleep(0.02)


@pytest.fixture
def daemon(tmp_path):
    one = Daemon(tmp_path)
    yield one
    if (tmp_path / "pid").exists() and alive(one.pid):
        os.kill(one.pid, signal.SIGKILL)


def test_it_returns_when_the_server_is_ready(daemon):
    result = daemon.start("--workers", "2")
    assert result.returncode == 0, result.stderr
    assert result.stdout == result.stderr == b""
    assert "ready after" in daemon.log
    # At once, without another attempt.
    assert daemon.get().body == b"hello"
    daemon.stop()
    assert "stopped after 1 requests" in daemon.log


def test_nothing_of_the_terminal_is_left(daemon):
    assert daemon.start().returncode == 0
    pid = daemon.pid
    assert os.getsid(pid) not in (os.getsid(0), pid)  # no leader: it can get no terminal either
    for fd in range(3):
        assert os.readlink("/proc/%d/fd/%d" % (pid, fd)) == "/dev/null"
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rpartition(")")[2].split()
    assert fields[4] == "0"  # tty_nr
    daemon.stop()


def test_an_application_that_cannot_be_loaded(daemon):
    (daemon.folder / "app.py").write_text("import nothing_of_this_name\n")
    result = daemon.start("--workers", "2")
    assert result.returncode == 3
    text = result.stderr.decode()
    assert "ModuleNotFoundError: No module named 'nothing_of_this_name'" in text
    assert "the application cannot be loaded: the server ends" in text
    assert text.count("Traceback") == 1
    assert not (daemon.folder / "pid").exists()


def test_preload_that_cannot_be_loaded(daemon):
    (daemon.folder / "app.py").write_text("import nothing_of_this_name\n")
    result = daemon.start("--preload")
    assert result.returncode == 3
    assert b"No module named 'nothing_of_this_name'" in result.stderr


def test_an_address_that_is_taken(daemon):
    with Server("app:app", cwd=daemon.folder, check=False) as other:
        daemon.port = other.port
        result = daemon.start()
        other.kill()
    assert result.returncode == 1
    assert b"is in use by another process" in result.stderr


def test_a_wrong_option(daemon):
    result = daemon.start("--wrokers", "2")
    assert result.returncode == 1
    assert b"did you mean '--workers'" in result.stderr


def test_a_log_on_the_terminal_is_refused(daemon):
    ours, theirs = pty.openpty()
    try:
        result = daemon.start(logs=("--access-log", "off"), stderr=theirs)
        assert result.returncode == 1
        assert b"error-log goes to the terminal" in os.read(ours, 4096)
        result = daemon.start(logs=("--error-log", "log"), stdout=theirs)
        assert result.returncode == 1
        assert b"access-log goes to the terminal" in result.stderr
    finally:
        os.close(ours)
        os.close(theirs)
    assert not (daemon.folder / "pid").exists()


def test_logs_that_are_redirected_stay(daemon):
    out, err = daemon.folder / "out", daemon.folder / "err"
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        assert daemon.start(logs=(), stdout=stdout, stderr=stderr).returncode == 0
    assert daemon.get().body == b"hello"
    daemon.stop()
    assert "GET / HTTP/1.1" in out.read_text()
    assert "stopped after 1 requests" in err.read_text()


def test_an_upgrade_of_a_daemon(daemon):
    assert daemon.start().returncode == 0
    old = daemon.pid
    os.kill(old, signal.SIGUSR2)
    deadline = time.monotonic() + 20
    while daemon.pid == old or alive(old):
        assert time.monotonic() < deadline, daemon.log
        time.sleep(0.02)
    assert daemon.get().body == b"hello"
    daemon.stop()


def test_titles(daemon):
    assert daemon.start("--name", "site", "--workers", "2").returncode == 0
    pid = daemon.pid

    def title(pid):
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            return file.read().rstrip(b"\0").decode()

    assert title(pid) == "site: master app:app"
    with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
        titles = sorted(title(int(child)) for child in file.read().split())
    assert titles == ["site: worker 1 app:app [ready]", "site: worker 2 app:app [ready]"]
    daemon.stop()
