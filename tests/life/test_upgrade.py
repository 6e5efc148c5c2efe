"""The hot upgrade: a new server in the place of the old one, and not one failed request."""

import os
import signal
import socket
import subprocess
import textwrap
import threading
import time
from contextlib import ExitStack

import pytest

from tests.lib.gate import GATE, Gate
from tests.lib.server import Connection, Server, free_port, test_command

APP = """
    import os
    VERSION = "one"

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [("%s %d %d" % (VERSION, os.getppid(), os.getpid())).encode()]
"""


SLOW = """
    import os
    import sys
    import time

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            print("begun", file=sys.stderr, flush=True)
            time.sleep(1.5)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [("slow %d %d" % (os.getppid(), os.getpid())).encode()]
"""


def alive(pid):
    """Whether a process lives; a zombie does not."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, what, server=None, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(server.report(what) if server else what)
        time.sleep(0.01)


class Site:
    """A server that may be followed by others: ``pid`` is the master of the moment."""

    def __init__(self, server, pidfile):
        self.server = server
        self.pidfile = pidfile

    @property
    def pid(self):
        return int(self.pidfile.read_text().splitlines()[0])

    def upgrade(self):
        """SIGUSR2, and the new master."""
        old = self.pid
        os.kill(old, signal.SIGUSR2)
        wait_until(lambda: self.pid != old, "the pidfile still names %d" % old, self.server)
        return self.pid

    def end(self):
        """Ends whoever is the server, and waits for it."""
        pid = self.pid
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not alive(pid), "the server did not end", self.server, 45)
        self.server.wait()


@pytest.fixture
def site(serve, tmp_path):
    sites = []

    def start(app=APP, *args, **kwargs):
        server = serve(app, "--pidfile", "pid", *args, ready="/", **kwargs)
        server.wait_log(r"ready after")  # all workers, not only the first
        one = Site(server, tmp_path / "pid")
        sites.append(one)
        return one

    yield start
    for one in sites:
        # The first server is ended by `serve`, with all its checks; this is for those after it.
        try:
            pid = one.pid
        except (OSError, IndexError):
            continue
        if pid != one.server.pid and alive(pid):
            os.kill(pid, signal.SIGKILL)


class Load(threading.Thread):
    """Sends requests until it is stopped; each must be answered with 200. Like any client, it opens
    a new connection when it was told that the last response was the last."""

    def __init__(self, address, keep_alive):
        super().__init__(daemon=True)
        self.address = address
        self.keep_alive = keep_alive
        self.ended = threading.Event()
        self.answers = []
        self.failure = None

    def run(self):
        try:
            while not self.ended.is_set():
                self.connection()
        except Exception as error:  # noqa: BLE001: reported by stop()
            self.failure = error

    def connection(self):
        field = b"" if self.keep_alive else b"Connection: close\r\n"
        with Connection(self.address) as conn:
            while not self.ended.is_set():
                conn.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n")
                response = conn.read_response()
                assert response.status == 200
                self.answers.append(response.text)
                if response.will_close:
                    return
                time.sleep(0.001)

    def stop(self):
        self.ended.set()
        self.join(20)
        if self.failure is not None:
            raise self.failure
        return self.answers


def under_load(address, action, n=4):
    """Runs `action` between clients of both kinds; all their answers."""
    clients = [Load(address, keep_alive=index % 2 == 0) for index in range(n)]
    for client in clients:
        client.start()
    wait_until(lambda: all(client.answers or client.failure for client in clients), "no load")
    try:
        action()
        counts = [len(client.answers) for client in clients]
        wait_until(
            lambda: all(
                client.failure or len(client.answers) > count + 3
                for client, count in zip(clients, counts)
            ),
            "the load stands still",
        )
    finally:
        answers = [client.stop() for client in clients]
    return [answer for part in answers for answer in part]


def test_no_request_fails(site, tmp_path):
    one = site(APP, "--workers", "2", "--threads", "2")
    old = one.pid
    workers = one.server.worker_pids()

    def upgrade():
        text = (tmp_path / "app.py").read_text()
        (tmp_path / "app.py").write_text(text.replace('"one"', '"two"'))
        one.upgrade()
        one.server.wait()

    answers = under_load(one.server.address, upgrade)
    assert one.server.returncode == 0
    assert not alive(old) and not any(alive(pid) for pid in workers)
    assert {answer.split()[0] for answer in answers} == {"one", "two"}
    version, master, _ = one.server.get("/").text.split()
    assert version == "two" and int(master) == one.pid != old
    one.server.wait_log(r"the upgrade is complete: process %d is the server now" % one.pid)
    one.server.wait_log(r"this server has taken over from process %d" % old)
    one.end()
    assert not (tmp_path / "pid").exists()


def test_one_upgrade_after_the_other(site):
    one = site(APP, "--workers", "2")
    seen = {one.pid}

    def upgrades():
        for _ in range(3):
            seen.add(one.upgrade())

    under_load(one.server.address, upgrades)
    assert len(seen) == 4
    wait_until(lambda: sum(alive(pid) for pid in seen) == 1, "old masters stay", one.server)
    one.end()


def test_with_preload(site):
    one = site(APP, "--workers", "2", "--preload")
    under_load(one.server.address, one.upgrade)
    one.server.wait()
    under_load(one.server.address, one.upgrade)
    one.end()


def test_a_control_socket_of_a_fixed_name(site, tmp_path):
    one = site(APP, "--control", str(tmp_path / "control"))
    old = one.upgrade()
    one.server.wait()
    assert one.upgrade() != old
    one.end()


def test_nothing_is_passed_on_by_mistake(site):
    """A master after three upgrades has the same descriptors as one after the first."""
    one = site(APP, "--workers", "3")

    def descriptors():
        folder = "/proc/%d/fd" % one.pid
        found = []
        for name in os.listdir(folder):
            try:
                found.append(os.readlink(os.path.join(folder, name)).partition(":")[0])
            except FileNotFoundError:
                pass  # closed meanwhile: it is asked again until nothing changes
        return sorted(found)

    def settled():
        """Once the new master has noticed that the old one is gone."""
        seen = descriptors()
        while True:
            time.sleep(0.3)
            seen, before = descriptors(), seen
            if seen == before:
                return seen

    one.upgrade()
    one.server.wait()
    first = settled()
    for _ in range(2):
        old = one.pid
        one.upgrade()
        wait_until(lambda: not alive(old), "the old master stays", one.server)
    wait_until(lambda: descriptors() == first, "descriptors: %r" % first, one.server)
    one.end()


@pytest.mark.parametrize("bind", ["tcp", "unix"])
def test_idle_connections_go_along(site, bind):
    """They are open and idle before, and the new server's behind it; nobody is told to close."""
    one = site(APP, "--workers", "2", **({"bind": "unix"} if bind == "unix" else {}))
    with ExitStack() as stack:
        conns = [stack.enter_context(one.server.connect()) for _ in range(40)]
        for conn in conns[:30]:  # ten have not sent a request yet
            assert one.server.get("/", conn=conn).status == 200
        new = one.upgrade()
        one.server.wait()
        for conn in conns:
            for _ in range(2):
                response = one.server.get("/", conn=conn)
                assert response.status == 200
                assert response.text.split()[1] == str(new)
                assert not response.will_close
    one.end()


def test_more_connections_than_fit_between_the_servers(site, tmp_path):
    """The new server does not read for a while: nothing is lost, and the old one waits for nobody."""
    held = "import os, time\n    while os.path.exists('hold'):\n        time.sleep(0.01)\n"
    one = site(APP.replace("import os\n", held), "--workers", "2")
    old = one.pid
    (tmp_path / "hold").touch()
    with ExitStack() as stack:
        conns = [stack.enter_context(one.server.connect()) for _ in range(700)]
        for conn in conns[:20]:
            assert one.server.get("/", conn=conn).status == 200
        os.kill(old, signal.SIGUSR2)
        new = int(one.server.wait_log(r"the new server is process (\d+)").group(1))
        os.kill(old, signal.SIGSTOP)
        (tmp_path / "hold").unlink()
        one.server.wait_log(r"\[master %d\] info: ready after" % new)
        time.sleep(0.1)  # it has told the old one
        os.kill(new, signal.SIGSTOP)
        os.kill(old, signal.SIGCONT)
        one.server.wait_log("this one finishes what it has begun")
        time.sleep(0.3)
        assert alive(old)
        os.kill(new, signal.SIGCONT)
        one.server.wait()
        for conn in conns:
            assert one.server.get("/", conn=conn).text.split()[1] == str(new)
    assert "could not be given" not in one.server.log()
    one.end()


def test_a_connection_that_gets_its_answer_meanwhile_goes_along(site):
    one = site(SLOW)
    with one.server.connect() as conn:
        conn.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        one.server.wait_log("begun", out=False)
        new = one.upgrade()
        response = conn.read_response()
        assert response.status == 200
        assert not response.will_close
        one.server.wait()
        assert one.server.get("/", conn=conn).text.split()[1] == str(new)
    one.end()


def test_a_connection_of_a_worker_that_a_reload_replaced_goes_along(site):
    """The worker drains for its successor, and then that goes as well."""
    one = site(SLOW)
    with one.server.connect() as conn:
        conn.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        one.server.wait_log("begun", out=False)
        one.server.send_signal(signal.SIGHUP)
        one.server.wait_log("the reload is complete")
        new = one.upgrade()
        response = conn.read_response()
        assert response.status == 200
        assert not response.will_close
        one.server.wait()
        assert one.server.get("/", conn=conn).text.split()[1] == str(new)
    one.end()


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
        return [int(child) for child in file.read().split()]


GATED = """
    import sys

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/held":
            print("begun", file=sys.stderr, flush=True)
            wait_at_gate()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [("%d %d" % (os.getppid(), os.getpid())).encode()]
"""


class OnTheirWay:
    """Connections that the old server has given away, at a moment when the new workers are
    stopped: `conns`. The first half of a next request is there."""

    half, rest = b"GET / HTTP/1.1\r\nHo", b"st: x\r\n\r\n"

    def __init__(self, stack, site, folder, workers, *args):
        self.gate = stack.enter_context(Gate(folder))
        app = GATE + textwrap.dedent(GATED)
        self.one = one = site(app, "-w", workers, "--threads", "4", *args)
        self.conns = [stack.enter_context(one.server.connect()) for _ in range(4)]
        for conn in self.conns:
            conn.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: one.server.log().count("begun") == 4, "the requests", one.server)
        self.new = one.upgrade()
        self.workers = children(self.new)
        for pid in self.workers:
            os.kill(pid, signal.SIGSTOP)
        self.gate.let_go(4)
        for conn in self.conns:
            response = conn.read_response()
            assert response.status == 200
            assert not response.will_close
        one.server.wait()  # the old server has given them away
        for conn in self.conns:
            conn.send(self.half)
        time.sleep(0.3)  # and the new one has passed them on

    def check(self):
        """Each request is answered, once, by the new server."""
        for conn in self.conns:
            for text in (self.rest, self.half + self.rest):
                conn.send(text)
                response = conn.read_response()
                assert response.status == 200
                assert not response.will_close
                assert int(response.text.split()[0]) == self.new
            assert conn.is_quiet(0.01)


@pytest.mark.parametrize("workers, killed", [(1, 1), (2, 1), (2, 2)])
def test_workers_that_are_killed_before_they_have_taken_a_connection(
    site, tmp_path, workers, killed
):
    """It is lost with its worker only if that had it."""
    with ExitStack() as stack:
        way = OnTheirWay(stack, site, tmp_path, workers)
        for pid in way.workers[:killed]:
            os.kill(pid, signal.SIGKILL)
        for pid in way.workers[killed:]:
            os.kill(pid, signal.SIGCONT)
        way.check()
    way.one.end()


def test_a_worker_that_does_not_take_connections(site, tmp_path):
    """Others get them, and the worker finds nothing left of them when it gets on."""
    with ExitStack() as stack:
        way = OnTheirWay(stack, site, tmp_path, 2)
        os.kill(way.workers[1], signal.SIGCONT)
        way.check()
        os.kill(way.workers[0], signal.SIGCONT)
        for conn in way.conns:
            assert way.one.server.get("/", conn=conn).status == 200
    way.one.end()


def test_connections_that_no_worker_takes(site, tmp_path):
    """Their clients hear of the end, although a worker that hangs has copies in its inbox."""
    with ExitStack() as stack:
        way = OnTheirWay(stack, site, tmp_path, 1, "--graceful-timeout", "5s")
        way.one.server.wait_log("idle connections? of the old server (was|were) closed")
        for conn in way.conns:
            assert conn.at_end()
        os.kill(way.workers[0], signal.SIGCONT)
        assert way.one.server.get("/").status == 200
    way.one.end()


def test_a_connection_goes_along_with_two_upgrades(site, tmp_path):
    """The server between the two passes on what it gets when it has been replaced itself."""
    with ExitStack() as stack:
        gate = stack.enter_context(Gate(tmp_path))
        one = site(GATE + textwrap.dedent(GATED))
        conn = stack.enter_context(one.server.connect())
        conn.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        one.server.wait_log("begun")
        second = one.upgrade()
        third = one.upgrade()
        one.server.wait_log(r"\[master %d\] info: this server has taken over" % third)
        gate.let_go()
        response = conn.read_response()
        assert response.status == 200
        assert not response.will_close
        one.server.wait()
        wait_until(lambda: not alive(second), "the second server stays", one.server)
        assert one.server.get("/", conn=conn).text.split()[0] == str(third)
    assert "closed" not in one.server.log()
    one.end()


def test_an_upgrade_that_is_asked_for_while_the_last_one_ends(site, tmp_path):
    """The pidfile may name the new server a moment before that knows."""
    held = "import os, time\n    while os.path.exists('hold'):\n        time.sleep(0.01)\n"
    one = site(APP.replace("import os\n", held))
    old = one.pid
    (tmp_path / "hold").touch()
    os.kill(old, signal.SIGUSR2)
    second = int(one.server.wait_log(r"the new server is process (\d+)").group(1))
    os.kill(old, signal.SIGSTOP)
    (tmp_path / "hold").unlink()
    one.server.wait_log(r"\[master %d\] info: ready after" % second)
    time.sleep(0.1)  # it has told the old one
    os.kill(second, signal.SIGUSR2)
    one.server.wait_log(r"\[master %d\] info: an upgrade begins as soon as" % second)
    os.kill(old, signal.SIGCONT)
    one.server.wait()
    wait_until(lambda: one.pid not in (old, second), "there is no third server", one.server)
    wait_until(lambda: not alive(second), "the second server stays", one.server)
    assert one.server.get("/").text.split()[1] == str(one.pid)
    one.end()


def test_a_request_that_runs_is_finished(site, tmp_path):
    one = site(
        """
        import os
        import sys
        import time

        def app(environ, start_response):
            start_response("200 OK", [])
            if environ["QUERY_STRING"]:
                print("begun", file=sys.stderr, flush=True)
                while not os.path.exists("go"):
                    time.sleep(0.01)
            return [b"done"]
        """
    )
    old = one.pid
    with one.server.connect() as conn:
        conn.send("GET /?wait HTTP/1.1\r\nHost: x\r\n\r\n")
        one.server.wait_log("begun")
        one.upgrade()
        assert alive(old)
        (tmp_path / "go").touch()
        assert conn.read_response().body == b"done"
    one.server.wait()
    one.end()


@pytest.mark.parametrize("before, after", [(1, 3), (2, 4), (4, 1), (3, 2)])
def test_another_number_of_workers(site, tmp_path, before, after):
    (tmp_path / "stoker.toml").write_text("workers = %d\n" % before)
    one = site(APP)

    def upgrade():
        (tmp_path / "stoker.toml").write_text("workers = %d\n" % after)
        one.upgrade()
        one.server.wait()

    under_load(one.server.address, upgrade)
    children = "/proc/%d/task/%d/children" % (one.pid, one.pid)
    with open(children) as file:
        assert len(file.read().split()) == after
    assert "share them" not in one.server.log()
    # Many connections, so that each of the old sockets gets some.
    for _ in range(40):
        assert one.server.get("/").status == 200
    under_load(one.server.address, one.upgrade)
    one.end()


def test_a_new_version_that_cannot_be_loaded(site, tmp_path):
    one = site(APP, "--workers", "2")
    old = one.pid
    workers = sorted(one.server.worker_pids())
    good = (tmp_path / "app.py").read_text()

    def fail():
        (tmp_path / "app.py").write_text("this is no Python\n")
        os.kill(old, signal.SIGUSR2)
        one.server.wait_log(r"the upgrade failed, because the new server \(\d+\) ended with exit "
                            r"code 3 before it was ready \(SyntaxError: .*\): this server goes on")

    under_load(one.server.address, fail)
    assert one.pid == old
    assert sorted(one.server.worker_pids()) == workers
    # And the next attempt, with the mistake corrected, works.
    (tmp_path / "app.py").write_text(good)
    assert one.upgrade() != old
    one.server.wait()
    one.end()


def test_a_wrong_configuration(site, tmp_path):
    one = site(APP)
    old = one.pid
    (tmp_path / "stoker.toml").write_text("wrokers = 2\n")
    os.kill(old, signal.SIGUSR2)
    one.server.wait_log(r"ended with exit code 1 before it was ready \(\S*stoker.toml:1: .*wrokers.*"
                        r"did you mean 'workers'.*\): this server goes on")
    assert one.server.get("/").text.split()[1] == str(old)


@pytest.mark.parametrize(
    "setting, reason",
    [
        ('user = "nobody-of-this-name"', "nobody-of-this-name"),
        ('error-log = "missing/error.log"', "No such file or directory"),
        ('access-log = "missing/access.log"', "missing/access.log"),
        ('stats = "192.0.2.1:81"', r"192\.0\.2\.1:81"),
    ],
    ids=["user", "error-log", "access-log", "stats"],
)
def test_why_the_new_server_could_not_start(site, tmp_path, setting, reason):
    one = site(APP)
    old = one.pid
    (tmp_path / "stoker.toml").write_text(setting + "\n")
    os.kill(old, signal.SIGUSR2)
    one.server.wait_log(r"the upgrade failed, because the new server \(\d+\) ended with exit code \d "
                        r"before it was ready \(.*%s.*\): this server goes on" % reason)
    assert one.server.get("/").text.split()[1] == str(old)


def test_a_new_version_that_hangs(site, tmp_path):
    one = site(APP, "--upgrade-timeout", "700ms")
    old = one.pid
    (tmp_path / "app.py").write_text("import time\ntime.sleep(600)\n")
    os.kill(old, signal.SIGUSR2)
    found = one.server.wait_log(r"the new server \((\d+)\) was not ready within 0.7 s, the time of "
                                r"upgrade-timeout: this server goes on")
    new = int(found.group(1))
    wait_until(lambda: not alive(new), "the new server does not end", one.server)
    assert one.pid == old
    assert one.server.get("/").text.split()[1] == str(old)


def test_a_new_server_that_is_killed(site, tmp_path):
    one = site(APP, "--workers", "2")
    old = one.pid
    (tmp_path / "app.py").write_text("import time\ntime.sleep(600)\n")

    def kill():
        os.kill(old, signal.SIGUSR2)
        found = one.server.wait_log(r"the new server is process (\d+)")
        os.kill(int(found.group(1)), signal.SIGKILL)
        one.server.wait_log(r"was killed by SIGKILL before it was ready: this server goes on")

    under_load(one.server.address, kill)
    assert one.pid == old


def test_the_old_server_is_killed_meanwhile(site, tmp_path):
    """The new one has the sockets already, so it takes over when it is ready."""
    held = "import os, time\n    while os.path.exists('hold'):\n        time.sleep(0.01)\n"
    one = site(APP.replace("import os\n", held), "--workers", "2", check=False)
    old = one.pid
    (tmp_path / "hold").touch()
    os.kill(old, signal.SIGUSR2)
    found = one.server.wait_log(r"the new server is process (\d+)")
    new = int(found.group(1))
    os.kill(old, signal.SIGKILL)
    one.server.wait()
    (tmp_path / "hold").unlink()
    one.server.wait_log(r"the old server \(%d\) ended before it handed over" % old)
    wait_until(lambda: one.pid == new, "the pidfile does not name the new server", one.server)
    # What is queued when the old workers learn of it is answered by them yet.
    wait_until(lambda: one.server.get("/").text.split()[1] == str(new), "an old worker answers")
    one.end()


def test_stopping_stops_both(site, tmp_path):
    one = site(APP)
    old = one.pid
    (tmp_path / "app.py").write_text("import time\ntime.sleep(600)\n")
    os.kill(old, signal.SIGUSR2)
    found = one.server.wait_log(r"the new server is process (\d+)")
    one.server.stop()
    assert not alive(int(found.group(1)))


def test_a_second_signal_changes_nothing(site, tmp_path):
    slow = APP.replace("import os\n", "import os, time\n    time.sleep(0.5)\n")
    one = site(slow)
    old = one.pid
    os.kill(old, signal.SIGUSR2)
    one.server.wait_log(r"an upgrade begins")
    os.kill(old, signal.SIGUSR2)
    one.server.wait_log(r"no upgrade: one is under way already")
    wait_until(lambda: one.pid != old, "no upgrade", one.server)
    one.server.wait()
    one.end()


def test_a_unix_socket_stays(site, tmp_path):
    path = tmp_path / "server-1.sock"
    one = site(APP, "--workers", "2", bind="unix")
    inode = path.stat().st_ino
    under_load(one.server.address, lambda: (one.upgrade(), one.server.wait()))
    assert path.stat().st_ino == inode
    assert one.server.get("/").status == 200
    one.end()
    assert not path.exists()


def test_an_address_that_is_left_out(site, tmp_path):
    """The new configuration has another address: the old one is gone, with its file."""
    port = free_port()
    path = tmp_path / "gone.sock"
    config = tmp_path / "stoker.toml"
    config.write_text('bind = ["127.0.0.1:%d", "unix:%s"]\n' % (port, path))
    server = Server("app:app", ["--pidfile", "pid"], cwd=tmp_path, bind=None, logdir=tmp_path)
    (tmp_path / "app.py").write_text("def app(e, s):\n    s('200 OK', [])\n    return []\n")
    server.address = ("127.0.0.1", port)
    server.start("/")
    one = Site(server, tmp_path / "pid")
    try:
        assert path.exists()
        config.write_text('bind = ["127.0.0.1:%d"]\n' % port)
        one.upgrade()
        server.wait()
        assert server.get("/").status == 200
        wait_until(lambda: not path.exists(), "the socket file stays", server)
        one.end()
    finally:
        server.kill()


def test_the_service_manager_follows(site, tmp_path):
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "notify"))
    notify.settimeout(20)
    one = site(APP, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    old = one.pid

    def wait(name):
        while True:
            data = notify.recv(4096).decode()
            message = dict(line.partition("=")[::2] for line in data.splitlines())
            if name in message:
                return message

    assert int(wait("READY")["MAINPID"]) == old
    os.kill(old, signal.SIGUSR2)
    wait("RELOADING")
    new = int(wait("MAINPID")["MAINPID"])
    assert new != old
    # From the new one, which has become the main process.
    assert int(wait("READY")["MAINPID"]) == new
    wait_until(lambda: one.pid == new, "the pidfile", one.server)
    one.server.wait()
    os.kill(new, signal.SIGTERM)
    assert "STOPPING" in wait("STOPPING")
    wait_until(lambda: not alive(new), "it did not end", one.server)
    notify.close()


def test_the_directory_is_followed_by_its_name(site, tmp_path):
    """A release is a directory behind a symbolic link: the link leads to the new one."""
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "app.py").write_text(
            "def app(e, s):\n    s('200 OK', [])\n    return [b'%s']\n" % version
        )
    link = tmp_path / "current"
    link.symlink_to("one")
    pidfile = tmp_path / "pid"
    server = Server(
        "app:app",
        ["--pidfile", str(pidfile)],
        cwd=link,
        logdir=tmp_path,
        env={"PWD": str(link)},
    ).start("/")
    one = Site(server, pidfile)
    try:
        assert server.get("/").body == b"one"
        link.unlink()
        link.symlink_to("two")
        one.upgrade()
        server.wait()
        assert server.get("/").body == b"two"
        one.end()
    finally:
        server.kill()


def test_process_1_stays_until_its_successor_ends(tmp_path):
    """In a container the first process must not end: it waits, and passes signals on."""
    probe = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "true"], stderr=subprocess.DEVNULL
    )
    if probe.returncode != 0:
        pytest.skip("namespaces of processes cannot be made here")
    (tmp_path / "app.py").write_text(
        "import os\n\n\ndef app(e, s):\n    s('200 OK', [])\n"
        "    return [b'%d' % os.getppid()]\n"
    )
    server = Server(
        "app:app",
        ["--workers", "2"],
        cwd=tmp_path,
        command=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"] + test_command(),
    ).start("/")
    try:
        with open("/proc/%d/task/%d/children" % (server.pid, server.pid)) as file:
            first = int(file.read())
        assert server.get("/").body == b"1"
        masters = set()
        for number in range(1, 3):

            def upgrade():
                os.kill(first, signal.SIGUSR2)
                wait_until(
                    lambda: server.log().count("has taken over from") == number,
                    "no upgrade",
                    server,
                )

            under_load(server.address, upgrade, 2)
            masters.add(int(server.get("/").body))
        assert len(masters) == 2 and 1 not in masters
        server.wait_log(r"stays, as process 1, until that one ends")
        assert server.running
        os.kill(first, signal.SIGTERM)
        assert server.wait() == 0
        server.wait_log(r"SIGTERM: stopping")
        server.check_output()
    finally:
        server.kill()
