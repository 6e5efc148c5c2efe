"""The service manager: sockets that it passes in, and what it is told."""

import array
import fcntl
import os
import re
import signal
import socket
import sys
import textwrap
import time

import pytest

from tests.lib.server import Connection, test_command

APP = """
    import os

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        names = sorted(set(os.environ) & {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
                                          "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
        return [("%s %s" % (environ["SERVER_PORT"], " ".join(names))).encode()]
"""

# Sets LISTEN_PID to the number of the process that it becomes, as a service manager does.
ACTIVATE = (
    "import os, sys\n"
    "os.environ['LISTEN_PID'] = sys.argv[1] if sys.argv[1] != '-' else str(os.getpid())\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)


class Manager:
    """The datagram socket of a service manager."""

    def __init__(self, path):
        self.path = str(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.sock.settimeout(20)
        self.seen = []

    def receive(self):
        """The next datagram as a dictionary. What asks for a barrier gets it: its descriptor is
        closed."""
        fds = array.array("i")
        data, ancillary, _, _ = self.sock.recvmsg(4096, socket.CMSG_SPACE(fds.itemsize))
        for _, kind, content in ancillary:
            if kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: fds.itemsize])
        for fd in fds:
            os.close(fd)
        message = dict(line.partition("=")[::2] for line in data.decode().splitlines())
        self.seen.append(message)
        return message

    def wait(self, name):
        """The next datagram that has the variable."""
        while True:
            message = self.receive()
            if name in message:
                return message

    def is_silent(self, seconds, within=20):
        """Whether nothing comes for so long, from some moment on."""
        deadline = time.monotonic() + within
        self.sock.settimeout(seconds)
        try:
            while time.monotonic() < deadline:
                self.receive()
        except socket.timeout:
            return True
        finally:
            self.sock.settimeout(20)
        return False

    def close(self):
        self.sock.close()


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def activation(sockets, names=None, pid="-"):
    """The command that starts a server with sockets as its descriptors from 3 on."""
    script = "import os, sys\n"
    for index, sock in enumerate(sockets):
        script += "os.dup2(%d, %d, True)\n" % (sock.fileno(), 3 + index)
    script += "os.environ['LISTEN_FDS'] = '%d'\n" % len(sockets)
    if names is not None:
        script += "os.environ['LISTEN_FDNAMES'] = %r\n" % names
    return [sys.executable, "-c", script + ACTIVATE, pid] + test_command()


def listening():
    # High numbers, so that putting them at 3 and on overwrites none of the others.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    sock.listen(16)
    high = socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 200))
    sock.close()
    return high


def start(serve, sockets, *args, names=None, pid="-", address=None, **kwargs):
    server = serve(
        APP,
        *args,
        bind=None,
        start=False,
        command=activation(sockets, names, pid),
        pass_fds=[sock.fileno() for sock in sockets],
        **kwargs
    )
    server.address = address or sockets[0].getsockname()
    server.spawn()
    server.wait_ready("/")
    return server


def test_the_sockets_are_used_without_bind(serve):
    sockets = [listening(), listening()]
    server = start(serve, sockets, "--workers", "2")
    for sock in sockets:
        server.address = sock.getsockname()
        port, _, names = server.get("/").text.partition(" ")
        assert int(port) == sock.getsockname()[1]
        # Neither the application nor what it starts sees the variables.
        assert names == ""


def test_a_socket_is_picked_by_its_name(serve):
    sockets = [listening(), listening()]
    server = start(
        serve,
        sockets,
        "--bind",
        "fd://web",
        names="admin:web",
        address=sockets[1].getsockname(),
    )
    assert server.get("/").text.split()[0] == str(sockets[1].getsockname()[1])
    server.wait_log(r"the socket fd://admin that was passed in is not used")


def test_a_socket_is_picked_by_its_number(serve):
    sockets = [listening(), listening()]
    server = start(serve, sockets, "--bind", "fd://4", address=sockets[1].getsockname())
    assert server.get("/").text.split()[0] == str(sockets[1].getsockname()[1])


def test_a_name_that_nobody_has_is_refused(serve):
    sockets = [listening()]
    server = serve(
        APP,
        "--bind",
        "fd://web",
        bind=None,
        start=False,
        check=False,
        command=activation(sockets, "admin"),
        pass_fds=[sock.fileno() for sock in sockets],
    )
    server.spawn()
    assert server.wait() == 1
    assert "fd://web: no socket of that name was passed in" in server.log()


def test_variables_of_another_process_are_not_for_us(serve):
    sockets = [listening()]
    other = listening()
    port = other.getsockname()[1]
    other.close()
    server = start(
        serve,
        sockets,
        "--bind",
        "127.0.0.1:%d" % port,
        pid="1",
        address=("127.0.0.1", port),
    )
    assert server.get("/").text == "%d " % port


def test_states_are_told(serve, manager):
    server = serve(APP, "--workers", "2", env={"NOTIFY_SOCKET": manager.path})
    ready = manager.wait("READY")
    assert int(ready["MAINPID"]) == server.pid
    assert ready["STATUS"] == "2 workers serve app:app"
    assert "NOTIFY_SOCKET" not in server.get("/").text

    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    server.send_signal(signal.SIGHUP)
    reloading = manager.wait("RELOADING")
    assert int(reloading["MONOTONIC_USEC"]) >= int(before * 1e6)
    assert "STATUS" in reloading
    back = manager.wait("READY")
    assert "complete" in back["STATUS"]

    server.stop()
    assert manager.wait("STOPPING")["STATUS"]
    assert not any("WATCHDOG" in message for message in manager.seen)


def test_a_failed_reload_is_told(serve, manager, tmp_path):
    server = serve(APP, env={"NOTIFY_SOCKET": manager.path})
    manager.wait("READY")
    (tmp_path / "app.py").write_text("this is no Python\n")
    server.send_signal(signal.SIGHUP)
    manager.wait("RELOADING")
    assert "failed" in manager.wait("READY")["STATUS"]
    assert server.get("/").status == 200


def test_an_abstract_socket(serve):
    manager = Manager("\0stoker-test-%d" % os.getpid())
    server = serve(APP, env={"NOTIFY_SOCKET": "@" + manager.path[1:]})
    assert int(manager.wait("READY")["MAINPID"]) == server.pid
    manager.close()


def test_a_manager_that_is_not_there_stops_nothing(serve, tmp_path):
    server = serve(APP, ready="/", env={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    server.wait_log(r"the service manager cannot be told")


def test_the_watchdog_is_fed(serve, manager):
    serve(APP, env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "1000000"})
    manager.wait("READY")
    for _ in range(3):
        manager.wait("WATCHDOG")


def test_a_worker_that_hangs_is_replaced(serve, manager):
    server = serve(
        APP, "--workers", "2", env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "600000"}
    )
    manager.wait("READY")
    victim = server.worker_pids()[0]
    os.kill(victim, signal.SIGSTOP)  # a loop that does not turn, whatever it waits for
    server.wait_log(r"worker \d \(%d\) has not answered for .* it is killed and replaced" % victim)
    deadline = time.monotonic() + 20
    while victim in server.worker_pids() or len(server.worker_pids()) < 2:
        assert time.monotonic() < deadline, server.report("no new worker")
        time.sleep(0.05)
    # The other one has answered all the time, so the manager has no reason to step in.
    manager.wait("WATCHDOG")
    assert server.get("/").status == 200


def test_the_watchdog_starves_while_no_worker_answers(serve, manager, tmp_path):
    hold = tmp_path / "hold"
    server = serve(
        "import os, time\nwhile os.path.exists('hold'):\n    time.sleep(0.01)\n" + textwrap.dedent(APP),
        "--workers",
        "1",
        env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "600000"},
    )
    manager.wait("READY")
    manager.wait("WATCHDOG")
    hold.touch()  # its successor will not become ready
    (victim,) = server.worker_pids()
    os.kill(victim, signal.SIGSTOP)
    server.wait_log(r"worker 1 \(%d\) has not answered for .* it is killed and replaced" % victim)
    assert manager.is_silent(1), manager.seen  # the master looks every 0.15 s
    assert server.running
    hold.unlink()
    manager.wait("WATCHDOG")
    assert server.get("/").status == 200


def test_a_busy_application_does_not_starve_the_watchdog(serve, manager):
    """The loop is turned by the stand-by while the application computes."""
    server = serve(
        """
        import time

        def app(environ, start_response):
            deadline = time.monotonic() + float(environ["QUERY_STRING"] or 0)
            while time.monotonic() < deadline:
                pass
            start_response("200 OK", [])
            return []
        """,
        env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "1000000"},
    )
    manager.wait("READY")
    assert server.get("/?2.5").status == 200
    assert "has not answered" not in server.log()


def test_the_unit_files_are_well_formed():
    """What ExecReload and Type promise is what the server does."""
    folder = os.path.join(os.path.dirname(__file__), "..", "..", "examples", "systemd")
    with open(os.path.join(folder, "stoker.service")) as file:
        service = file.read()
    with open(os.path.join(folder, "stoker.socket")) as file:
        unit = file.read()
    for line in ("Type=notify", "ExecReload=/bin/kill -HUP $MAINPID", "NoNewPrivileges=yes"):
        assert line in service.splitlines()
    assert re.search(r"^ListenStream=", unit, re.MULTILINE)
    for text in (service, unit):
        for line in text.splitlines():
            assert not line or line[0] in "#;[" or re.match(r"[A-Z][A-Za-z]+=", line), line
