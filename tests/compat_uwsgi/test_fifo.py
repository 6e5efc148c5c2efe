"""master-fifo: commands of one character through a named pipe."""

import os
import signal
import stat

import pytest

from tests.compat_uwsgi.test_hooks import until

INI = "[uwsgi]\nmodule = app\nmaster = true\nprocesses = 2\nlazy-apps = true\nmaster-fifo = a.fifo\nmaster-fifo = b.fifo\npidfile = u.pid\n"


def put(path, text):
    """As echo does, but for waiting: there is a reader."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, text.encode())
    os.close(fd)


@pytest.fixture
def server(place, serve):
    (place / "u.ini").write_text(INI)
    started = serve(None, "--ini", "u.ini", cwd=place)
    started.wait_log("ready after")
    return started


def test_commands(place, server):
    first, second = place / "a.fifo", place / "b.fifo"
    assert stat.S_ISFIFO(first.stat().st_mode) and stat.S_IMODE(first.stat().st_mode) == 0o600
    put(first, "s\n")
    server.wait_log("master-fifo: serving, 2 of 2 workers serve, [0-9]+ requests")
    put(first, "-s")
    until(lambda: len(server.worker_pids()) == 1)
    put(first, "+")
    until(lambda: len(server.worker_pids()) == 2)
    before = set(server.worker_pids())
    put(first, "r\n")
    server.wait_log("the reload is complete")
    until(lambda: not before & set(server.worker_pids()))
    put(first, "z\x00\n7")
    server.wait_log("master-fifo: there is no command z")
    server.wait_log("master-fifo: there is no pipe 7")
    (place / "u.pid").write_text("nonsense")
    put(first, "l1P")
    until(second.exists)
    assert not first.exists()
    server.wait_log("the log files are opened again")
    until(lambda: (place / "u.pid").read_text() == "%d\n" % server.pid)
    put(second, "q")
    assert server.wait() == 0
    assert not second.exists()


def test_stopping_now(place, server):
    put(place / "a.fifo", "Q")
    assert server.wait() == 0
    assert "Q: stopping now" in server.log() and not (place / "a.fifo").exists()


def test_an_upgrade_keeps_the_pipe(place, server):
    put(place / "a.fifo", "1")
    until((place / "b.fifo").exists)
    inode = (place / "b.fifo").stat().st_ino
    server.send_signal(signal.SIGUSR2)
    server.wait_log("this server has taken over")
    server.wait()
    assert (place / "b.fifo").stat().st_ino == inode
    put(place / "b.fifo", "s")
    server.wait_log("master-fifo: serving, 2 of 2")
    new = int((place / "u.pid").read_text())
    put(place / "b.fifo", "q")
    until(lambda: not os.path.exists("/proc/%d" % new) and not (place / "b.fifo").exists())


def test_what_is_there(place, run, serve):
    """A pipe that was left behind is replaced; anything else is left alone."""
    (place / "u.ini").write_text(INI)
    (place / "a.fifo").write_text("mine")
    done = run("--ini", "u.ini", "--http-socket", "127.0.0.1:0")
    assert done.returncode == 1 and "a.fifo is there already, and no named pipe" in done.stderr
    assert (place / "a.fifo").read_text() == "mine"
    (place / "a.fifo").unlink()
    os.mkfifo(place / "a.fifo", 0o666)
    server = serve(None, "--ini", "u.ini", cwd=place)
    server.wait_log("ready after")
    assert stat.S_IMODE((place / "a.fifo").stat().st_mode) == 0o600
    put(place / "a.fifo", "s")
    server.wait_log("master-fifo: serving")
