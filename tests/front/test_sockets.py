"""Sockets that workers share, sockets that are inherited, and what happens when descriptors run out."""

import grp
import os
import pwd
import signal
import socket
import stat
import time

import pytest

from tests.front.raw import get
from tests.lib.server import test_command

APP = """
import os
import time


def app(environ, start_response):
    if environ["PATH_INFO"] == "/take":
        keep.append([os.open("/dev/null", os.O_RDONLY) for _ in range(int(environ["QUERY_STRING"]))])
    if environ["PATH_INFO"] == "/give":
        for fd in keep.pop():
            os.close(fd)
    time.sleep(0.002)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]


keep = []
"""


def answering(server, count, turns=400):
    """The pids that answer on new connections, several of which are open at once."""
    found = set()
    for _ in range(turns):
        conns = [server.connect() for _ in range(2 * count)]
        for conn in conns:
            conn.send(get("Connection: close\r\n"))
        for conn in conns:
            found.add(int(conn.read_response().text))
            conn.close()
        if len(found) >= count:
            return found
    raise AssertionError("only %r answered" % found)


def test_a_unix_socket_of_two_workers(serve, tmp_path):
    path = tmp_path / "shared.sock"
    server = serve(APP, "-w2", bind="unix:%s?mode=640" % path, ready="/")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    pids = answering(server, 2)
    victim = min(pids)
    os.kill(victim, signal.SIGKILL)
    for _ in range(20):
        assert int(server.get("/").text) != victim
    assert victim not in answering(server, 2)
    server.stop()
    assert not path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file away")
@pytest.mark.parametrize("how", ["in the address", "as options"])
def test_owner_and_mode_of_a_unix_socket(serve, tmp_path, how):
    user, group = pwd.getpwnam("nobody"), grp.getgrnam("daemon")
    path = tmp_path / "owned.sock"
    if how == "in the address":
        server = serve(APP, "-w2", bind="unix:%s?mode=606&owner=nobody:daemon" % path)
    else:
        server = serve(
            APP, "-w2", "--socket-mode", "606", "--socket-owner", "nobody:daemon", bind="unix:%s" % path
        )
    found = path.stat()
    assert (found.st_uid, found.st_gid) == (user.pw_uid, group.gr_gid)
    assert stat.S_IMODE(found.st_mode) == 0o606
    answering(server, 2)


@pytest.mark.parametrize("family", ["inet", "unix"])
def test_an_inherited_socket(serve, tmp_path, family):
    """fd://N: two workers share it, a reload keeps it, and it is not closed for its owner."""
    path = str(tmp_path / "inherited.sock")
    listener = socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET)
    listener.bind(path if family == "unix" else ("127.0.0.1", 0))
    listener.listen(64)
    address = listener.getsockname()
    with listener:
        fd = listener.fileno()
        server = serve(APP, "-w2", bind="fd://%d" % fd, pass_fds=[fd], start=False)
        server.address = address
        server.start("/")
        before = answering(server, 2)
        server.send_signal(signal.SIGHUP)
        server.wait_log("the reload is complete")
        assert not before & answering(server, 2)
        server.stop()
        # The socket is the test's: a server that is started again finds it as it was.
        waiting = socket.socket(listener.family)
        waiting.connect(address)
        waiting.close()
        assert family == "inet" or os.path.exists(path)


def limited(files):
    """The command of the server under a limit on open files."""
    return ["sh", "-c", 'ulimit -n %d; exec "$@"' % files, "sh", *test_command()]


def test_accepting_without_descriptors(serve):
    """accept() fails with EMFILE: idle connections make room, and all who ask are answered."""
    server = serve(APP, "-w1", "--max-connections", "1000", command=limited(64), ready="/")
    idle = []
    for _ in range(100):  # who has sent nothing yet is idle too
        idle.append(server.connect())
        idle[-1].send(get())
    for conn in idle:
        assert conn.read_response().status == 200
    server.wait_log("Too many open files .*idle ones are closed to make room")
    for _ in range(10):
        assert server.get("/").status == 200
    for conn in idle:
        conn.close()
    assert server.get("/").status == 200


def test_descriptors_that_come_back(serve):
    """The application takes all descriptors: who waits is served when there are some again."""
    server = serve(APP, "-w1", "--max-connections", "1000", command=limited(64), ready="/")
    with server.connect() as conn:
        conn.send(get())
        assert conn.read_response().status == 200
        with open("/proc/%d/limits" % server.worker_pids()[0]) as limits:
            assert any("Max open files" in line and " 64 " in line for line in limits)
        used = len(os.listdir("/proc/%d/fd" % server.worker_pids()[0]))
        conn.send(get("", "/take?%d" % (64 - used)))
        assert conn.read_response().status == 200
        waiting = []
        for _ in range(5):
            waiting.append(server.connect())
            waiting[-1].send(get())
        server.wait_log("Too many open files")
        assert server.get("/give").status == 200  # conn itself was idle, and may have made room
        for other in waiting:
            assert other.read_response().status == 200
            other.close()
