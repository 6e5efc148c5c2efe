"""The control socket and the commands that speak to it, on real servers."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lib.server import test_command as stoker_command

HELLO = """
    import os
    import time

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            wait_for_somebody()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    def wait_for_somebody():
        while not os.path.exists("go"):
            time.sleep(0.01)
"""

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")


def run(*args, cwd=None, env=None, seconds=40):
    """A command; yields its CompletedProcess with text."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("STOKER_")}
    clean.update(env or {})
    return subprocess.run(
        stoker_command() + [str(arg) for arg in args],
        cwd=cwd,
        env=clean,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=seconds,
        text=True,
    )


class Controlled:
    """A server with a control socket of its own."""

    def __init__(self, serve, tmp_path, *args, app=HELLO, **kwargs):
        self.path = tmp_path / "control.sock"
        self.cwd = tmp_path
        self.server = serve(app, "--control", self.path, *args, **kwargs)

    def ready(self):
        self.server.wait_log(r"\] info: ready after")
        return self

    def run(self, *args, **kwargs):
        return run(*args, "--control", self.path, cwd=self.cwd, **kwargs)

    def done(self, *args):
        result = self.run(*args)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def json(self, *args):
        return json.loads(self.done(*args, "--json"))

    def connect(self, seconds=20.0):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.path))  # waits where the queue is full
        sock.settimeout(seconds)
        return sock

    def ask(self, data, sock=None):
        """Sends bytes and yields the answer of one line."""
        used = sock or self.connect()
        try:
            used.sendall(data)
            return json.loads(read_line(used))
        finally:
            if sock is None:
                used.close()

    def go(self):
        """Lets the requests for /slow go."""
        (self.cwd / "go").touch()

    def wait_running(self):
        """Until a request lasts, and what is said of it."""
        deadline = time.monotonic() + 20
        while True:
            running = [r for w in self.json("status")["workers"] for r in w["running"]]
            if running:
                return running
            assert time.monotonic() < deadline, self.server.report("no request is running")

    def pids(self):
        return [w["pid"] for w in self.json("status")["workers"] if w["role"] == "current"]


def read_line(sock):
    data = b""
    while not data.endswith(b"\n"):
        part = sock.recv(65536)
        if not part:
            break
        data += part
    return data


@pytest.fixture
def controlled(serve, tmp_path):
    def start(*args, **kwargs):
        return Controlled(serve, tmp_path, *args, **kwargs).ready()

    return start


# --- what the commands do ----------------------------------------------------------------------------


def test_ping(controlled):
    c = controlled()
    answer = c.json("ping")
    assert answer["ok"] is True and answer["pid"] == c.server.pid and answer["app"] == "app:app"
    assert str(c.server.pid) in c.done("ping")


def test_status(controlled):
    c = controlled("-w2", "--threads", "3", ready="/")
    deadline = time.monotonic() + 20
    while True:  # numbers come a moment after the answers
        answer = c.json("status")
        counted = sum(sum(w["latency"]["buckets"]) for w in answer["workers"])
        if answer["totals"]["responses_2xx"] == counted == 1:
            break
        assert time.monotonic() < deadline, answer
    assert answer["state"] == "serving" and answer["pid"] == c.server.pid
    assert answer["addresses"] == [c.server.url]
    assert [worker["worker"] for worker in answer["workers"]] == [1, 2]
    for worker in answer["workers"]:
        assert worker["state"] == "ready" and worker["role"] == "current"
        assert worker["pid"] in c.server.worker_pids()
        assert worker["rss"] > 1 << 20 and worker["threads"] == 3 and worker["running"] == []
    assert answer["totals"]["requests"] == sum(w["requests"] for w in answer["workers"])
    bounds = answer["latency_bounds_us"]
    assert bounds == sorted(bounds)
    assert all(len(w["latency"]["buckets"]) <= len(bounds) + 1 for w in answer["workers"])
    assert answer["last_reload"] is None
    assert answer["scale"] == {"automatic": False, "least": 2, "most": 2, "wanted": 2, "serving": 2}


def test_status_for_people_fits_80_columns(controlled):
    c = controlled("-w2")
    lines = c.done("status").splitlines()
    assert all(len(line) < 80 for line in lines), lines
    assert lines[0].endswith("serving")
    assert sum(bool(re.match(r" +[12] +\d+ ready ", line)) for line in lines) == 2


def test_a_request_that_runs_is_named(controlled):
    c = controlled("-w2")
    with c.server.connect() as conn:
        conn.send("GET /slow?secret=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        running = c.wait_running()
        assert [(r["method"], r["target"]) for r in running] == [("GET", "/slow")]
        assert running[0]["age"] > 0
        c.go()
        conn.read_response()


def test_reload(controlled):
    c = controlled("-w2", ready="/")
    before = c.pids()
    assert "2 new workers" in c.done("reload")
    after = c.json("status")
    assert not set(before) & {w["pid"] for w in after["workers"] if w["role"] == "current"}
    assert after["reloads"] == 1 and after["last_reload"]["ok"] is True
    assert c.server.get("/").body == b"hello"


def test_reload_of_broken_code_fails_with_its_traceback(controlled):
    c = controlled("-w2", ready="/")
    before = c.pids()
    (c.cwd / "app.py").write_text("def app(:\n")
    result = c.run("reload")
    assert result.returncode == 1 and result.stdout == ""
    assert "SyntaxError" in result.stderr and "app.py" in result.stderr
    assert "the old workers go on" in result.stderr
    raw = c.run("reload", "--json")
    answer = json.loads(raw.stdout)
    assert raw.returncode == 1 and answer["ok"] is False and "SyntaxError" in answer["error"]
    assert c.pids() == before
    assert c.server.get("/").body == b"hello"
    status = c.json("status")
    assert status["last_reload"]["ok"] is False and "SyntaxError" in status["last_reload"]["detail"]
    shown = c.done("status")
    assert "the last reload" in shown and all(len(line) < 80 for line in shown.splitlines())


def test_two_who_reload_at_once_are_both_answered(controlled):
    c = controlled("-w2")
    socks = [c.connect() for _ in range(3)]
    for sock in socks:
        sock.sendall(b'{"command":"reload"}\n')
    answers = [json.loads(read_line(sock)) for sock in socks]
    assert all(answer["ok"] for answer in answers), answers


def test_stop_waits_for_the_end(controlled):
    c = controlled()
    with c.server.connect() as conn:
        conn.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        c.wait_running()
        stopping = subprocess.Popen(
            stoker_command() + ["stop", "--control", str(c.path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        c.server.wait_log("asks to stop$")
        c.go()
        assert conn.read_response().body == b"hello"
    assert stopping.communicate(timeout=40)[0] == "stopped\n"
    assert stopping.returncode == 0
    assert c.server.wait() == 0
    assert not c.path.exists()
    assert c.run("ping").returncode == 4


def test_stop_now_cuts(controlled):
    c = controlled()
    with c.server.connect() as conn:
        conn.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        c.wait_running()
        first = subprocess.Popen(
            stoker_command() + ["stop", "--control", str(c.path)], stdout=subprocess.DEVNULL
        )
        c.server.wait_log("asks to stop$")
        assert c.json("status")["state"] == "stopping"
        refused = c.run("reload")
        assert refused.returncode == 1 and "stopping" in refused.stderr
        assert c.run("stop", "--now").returncode == 0
        assert first.wait(20) == 0
    assert c.server.wait() == 0


def test_scale(controlled):
    c = controlled("-w3", ready="/")
    assert len(c.pids()) == 3
    assert c.done("scale", "1") == "1 worker serves\n"
    assert c.json("status")["scale"]["serving"] == 1
    assert c.server.get("/").body == b"hello"
    c.done("scale", "3")
    assert len(c.pids()) == 3
    c.done("scale", "auto")
    for bad in ("4", "0", "-1", "many"):
        result = c.run("scale", bad)
        assert result.returncode in (1, 2) and result.stderr


def test_recycle(controlled):
    c = controlled("-w2")
    before = c.pids()
    assert "worker 2 is process" in c.done("recycle", "2")
    after = c.pids()
    assert after[0] == before[0] and after[1] != before[1]
    assert [w["restarts"] for w in c.json("status")["workers"] if w["role"] == "current"] == [0, 1]
    assert "  1 restart (1 asked), 0 reloads" in c.done("status").splitlines()
    assert c.run("recycle", "3").returncode == 1
    (c.cwd / "app.py").write_text("1 / 0\n")
    failed = c.run("recycle", "1")
    assert failed.returncode == 1 and "cannot be started" in failed.stderr
    assert c.pids() == after


def test_stack_shows_what_a_worker_does(controlled):
    c = controlled("-w1")
    with c.server.connect() as conn:
        conn.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + 20
        text = ""
        while "wait_for_somebody" not in text and time.monotonic() < deadline:
            text = c.done("stack", "1")
        assert "wait_for_somebody" in text and "app.py" in text
        c.go()
        assert conn.read_response().body == b"hello"
    pid = c.pids()[0]
    answer = c.json("stack", "--pid", str(pid))
    assert answer["worker"] == 1 and answer["pid"] == pid and answer["complete"] is True


def test_stack_of_a_request(controlled):
    c = controlled("-w1", "--threads", "3")
    with c.server.connect() as conn:
        conn.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        running = c.wait_running()
        text = c.done("stack", "1", "--request", str(running[0]["id"]))
        assert "wait_for_somebody" in text
        assert text.count("hread ") <= 1 < c.done("stack", "1").count("hread ")
        assert "is not running" in c.done("stack", "1", "--request", "999999")
        c.go()
        assert conn.read_response().body == b"hello"
    result = c.run("stack", "--request", "1")
    assert result.returncode == 1 and "needs the worker" in result.stderr


def test_stack_of_all_and_of_none(controlled):
    c = controlled("-w2", "--threads", "2")
    text = c.done("stack")
    assert re.findall(r"^worker (\d), process \d+$", text, re.M) == ["1", "2"]
    result = c.run("stack", "9")
    assert result.returncode == 1 and "from 1 to 2" in result.stderr
    result = c.run("stack", "--pid", str(os.getpid()))
    assert result.returncode == 1 and "no worker" in result.stderr


HELD = """
    import os
    import time

    def wait_in_import():
        while os.path.exists("hold"):
            time.sleep(0.01)

    wait_in_import()
""" + HELLO


def test_stack_of_workers_that_load(serve, tmp_path):
    """Before any of them serves, and of the one that is to take over."""

    def shown(*args):
        deadline = time.monotonic() + 20
        while True:
            result = c.run("stack", *args)
            if "wait_in_import" in result.stdout:
                return result.stdout
            assert time.monotonic() < deadline, result

    (tmp_path / "hold").touch()
    c = Controlled(serve, tmp_path, "-w2", app=HELD)
    assert re.findall(r"^worker (\d), process \d+$", shown(), re.M) == ["1"]  # the first comes alone
    assert "app.py" in shown("1")
    (tmp_path / "hold").unlink()
    c.ready()
    assert c.server.get("/").body == b"hello"
    assert "wait_in_import" not in c.done("stack", "1")
    (tmp_path / "hold").touch()
    c.server.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    following = []
    while not following:
        assert time.monotonic() < deadline
        following = [w["pid"] for w in c.json("status")["workers"] if w["role"] == "next"]
    assert "app.py" in shown("--pid", str(following[0]))
    (tmp_path / "hold").unlink()
    c.server.wait_log("the reload is complete")


def test_stack_of_a_worker_that_dies_meanwhile(controlled):
    c = controlled("-w2")
    pid = c.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    with c.connect() as sock:
        sock.sendall(b'{"command":"stack","pid":%d}\n' % pid)
        assert c.json("ping")["ok"]  # nobody waits for it
        os.kill(pid, signal.SIGKILL)
        answer = json.loads(read_line(sock))
    assert answer["ok"] is False and "has ended" in answer["error"]


def test_logs_reopen(serve, tmp_path):
    log = tmp_path / "error.log"
    c = Controlled(serve, tmp_path, "--error-log", log, ready="/")
    os.rename(log, tmp_path / "old.log")
    c.done("logs", "reopen")
    assert "the log files are opened again" in log.read_text()
    assert c.run("logs").returncode == 2
    assert c.run("logs", "rotate").returncode == 2


def test_config_tells_origins(controlled):
    c = controlled("-w2", env={"STOKER_THREADS": "2"})
    found = {option["name"]: option for option in c.json("config")["config"]}
    assert found["workers"]["value"] == 2 and found["workers"]["origins"] == ["command line"]
    assert found["threads"]["value"] == 2
    assert found["threads"]["origins"] == ["environment STOKER_THREADS"]
    assert found["preload"]["value"] is False and found["preload"]["default"] is True
    assert found["pidfile"]["value"] is None
    assert found["bind"]["value"] == [c.server.url.replace("http://", "")]
    text = c.done("config")
    assert re.search(r"^workers = 2 +# command line$", text, re.M)
    assert re.search(r"^threads = 2 +# environment STOKER_THREADS$", text, re.M)


def test_upgrade(controlled, tmp_path):
    c = controlled("--pidfile", tmp_path / "pid", ready="/")
    old = c.server.pid
    result = c.run("upgrade")
    assert result.returncode == 0, result.stderr + c.server.log()
    new = c.json("ping")["pid"]
    assert new != old
    assert c.server.wait() == 0
    try:
        assert c.server.get("/").body == b"hello"
    finally:
        assert c.run("stop").returncode == 0
    assert not c.path.exists()


def test_upgrade_to_broken_code_fails(controlled):
    c = controlled(ready="/")
    (c.cwd / "app.py").write_text("1 / 0\n")
    result = c.run("upgrade")
    assert result.returncode == 1 and "this server goes on" in result.stderr
    assert "(ZeroDivisionError: division by zero)" in result.stderr
    assert c.json("ping")["pid"] == c.server.pid
    assert c.server.get("/").body == b"hello"


# --- where the server is -----------------------------------------------------------------------------


def default_folder():
    if os.geteuid() == 0:
        return Path("/run/stoker")
    return Path("/tmp/stoker-%d" % os.geteuid())


def test_the_default_place(serve):
    server = serve(HELLO, ready="/", env={"XDG_RUNTIME_DIR": None})
    path = default_folder() / ("%d.sock" % server.pid)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    result = run("ping", "--control", path)
    assert result.returncode == 0
    server.stop()
    assert not path.exists()


@root_only
def test_a_user_has_a_default_place_too(serve, tmp_path):
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    os.chown(runtime, 65534, 65534)
    server = serve(HELLO, "--user", "65534", ready="/", env={"XDG_RUNTIME_DIR": str(runtime)})
    path = runtime / "stoker" / ("%d.sock" % server.pid)
    assert path.exists(), server.log()
    assert run("ping", "--control", path).returncode == 0  # root may


@pytest.mark.alone
def test_leftovers_are_removed(serve):
    folder = default_folder()
    killed = serve(HELLO, ready="/", env={"XDG_RUNTIME_DIR": None}, check=False)
    left = folder / ("%d.sock" % killed.pid)
    killed.kill()
    assert left.exists()
    server = serve(HELLO, ready="/", env={"XDG_RUNTIME_DIR": None})
    assert not left.exists()
    assert (folder / ("%d.sock" % server.pid)).exists()


def test_a_stale_socket_is_replaced_and_a_living_one_is_not(serve, tmp_path):
    first = Controlled(serve, tmp_path, check=False).ready()
    second = serve("app:app", "--control", first.path, start=False)
    second.spawn()
    assert second.wait() == 1
    assert "control socket of another server" in second.log()
    assert first.json("ping")["pid"] == first.server.pid
    first.server.kill()
    assert first.path.exists()
    third = Controlled(serve, tmp_path).ready()
    assert third.json("ping")["pid"] == third.server.pid
    assert os.listdir(tmp_path).count("control.sock") == 1


@pytest.mark.parametrize("what", ["file", "nowhere", "open", "long"])
def test_a_place_that_cannot_be(serve, tmp_path, what):
    path = tmp_path / "control.sock"
    if what == "file":
        path.write_text("precious")
    elif what == "nowhere":
        path = tmp_path / "missing" / "control.sock"
    elif what == "open":
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        path = tmp_path / "open" / "control.sock"
    else:
        path = tmp_path / ("x" * 120)
    server = serve(HELLO, "--control", path, start=False)
    server.spawn()
    assert server.wait() == 1
    assert "the control socket: " in server.log()
    if what == "file":
        assert path.read_text() == "precious"


def test_switched_off(serve, tmp_path):
    server = serve(HELLO, "--control", "off", ready="/")
    assert not (default_folder() / ("%d.sock" % server.pid)).exists()
    result = run("status", "--control", "off")
    assert result.returncode == 4 and "switched off" in result.stderr


def test_no_server(tmp_path):
    result = run("status", "--control", tmp_path / "none.sock")
    assert result.returncode == 4 and result.stdout == "" and result.stderr.count("\n") == 1
    (tmp_path / "file").write_text("")
    assert run("status", "--control", tmp_path / "file").returncode == 4


def test_the_place_comes_from_the_environment_or_a_file(controlled):
    c = controlled()
    result = run("ping", env={"STOKER_CONTROL": str(c.path)})
    assert result.returncode == 0
    (c.cwd / "stoker.toml").write_text('control = "%s"\n' % c.path)
    assert run("ping", cwd=c.cwd).returncode == 0


@pytest.mark.parametrize(
    "command",
    "status top ping reload upgrade stop scale recycle stack logs config".split(),
)
def test_every_command_explains_itself(command):
    result = run(command, "--help")
    assert result.returncode == 0 and "usage: stoker %s " % command in result.stdout
    assert all(len(line) < 80 for line in result.stdout.splitlines())
    assert re.search(r"\b%s\b" % command, run("--help").stdout)


def test_wrong_usage():
    for args in (["status", "extra"], ["scale"], ["recycle"], ["stop", "--later"], ["top", "-n", "0"]):
        result = run(*args)
        assert result.returncode == 2, args
        assert "usage: stoker %s" % args[0] in result.stderr
    result = run("status", "--help")
    assert result.returncode == 0 and "Exit codes" in result.stdout


def test_a_module_that_is_named_as_a_command(serve, tmp_path):
    (tmp_path / "status.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'module']\n"
    )
    server = serve(None, "status:app", "--control", "off", ready="/")
    assert server.get("/").body == b"module"


# --- who speaks to it, and how -----------------------------------------------------------------------


GARBAGE = [
    b"hello\n",
    b"GET / HTTP/1.1\r\n",
    b"\x00\xff\xfe\x80\n",
    b"{\n",
    b'{"command":}\n',
    b'{"command":"status"} {}\n',
    b'{"command":"status","extra":1}\n',
    b'{"command":"status","command":"stop"}\n',
    b'{"command":["status"]}\n',
    b'{"command":"st\\u0000op"}\n',
    b'{"command":"STATUS"}\n',
    b'{"command":"scale","workers":1.5}\n',
    b'{"command":"scale","workers":"1"}\n',
    b'{"command":"scale","workers":true}\n',
    b'{"command":"recycle","worker":-1}\n',
    b'{"command":"recycle","worker":99999999999999999999}\n',
    b'{"command":"stack"}\n',
    b'{"command":"stack","worker":1,"pid":1}\n',
    b'{"command":"stop","now":"yes"}\n',
    b'{"command":"logs","action":"burn"}\n',
    b'{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"command":"stop"}\n',
]


def test_garbage_is_refused_one_by_one(controlled):
    c = controlled(ready="/")
    with c.connect() as sock:
        for data in GARBAGE:
            answer = c.ask(data, sock)
            assert answer["ok"] is False and answer["error"], data
        assert c.ask(b'{"command":"ping"}\n', sock)["ok"] is True
    assert c.json("status")["state"] == "serving"


def test_requests_in_pieces_and_in_one_piece(controlled):
    c = controlled()
    with c.connect() as sock:
        for byte in b' \t{"command" : "ping"}\r\n':
            sock.sendall(bytes([byte]))
        assert json.loads(read_line(sock))["ok"] is True
        sock.sendall(b'\n\n{"command":"ping"}\nnonsense\n{"command":"status"}\n{"command":"ping"}')
        sock.shutdown(socket.SHUT_WR)
        data = b""
        while True:
            part = sock.recv(65536)
            if not part:
                break
            data += part
        answers = [json.loads(line) for line in data.splitlines()]
        assert [answer["ok"] for answer in answers] == [True, False, True, True]


def test_a_line_that_does_not_end_is_refused(controlled):
    c = controlled()
    with c.connect() as sock:
        try:
            sock.sendall(b"x" * 100000)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            data = read_line(sock)
        except ConnectionResetError:
            data = b""
        assert data == b"" or json.loads(data)["ok"] is False
    assert c.json("ping")["ok"] is True


def test_who_does_not_read_blocks_nobody(controlled):
    c = controlled("-w2", ready="/")
    deaf = [c.connect() for _ in range(5)]
    for sock in deaf:
        sock.setblocking(False)
        try:
            while True:
                sock.sendall(b'{"command":"config"}\n' * 1000)
        except BlockingIOError:
            pass
    assert c.json("ping")["ok"] is True
    assert c.done("reload")
    assert c.server.get("/").body == b"hello"
    size = int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/%d/status" % c.server.pid).read_text())[1])
    assert size < 64 << 10  # kB
    for sock in deaf:
        sock.close()


def test_many_clients(controlled):
    c = controlled("-w2")
    socks = [c.connect() for _ in range(200)]
    assert c.json("ping")["ok"] is True
    open_fds = len(os.listdir("/proc/%d/fd" % c.server.pid))
    assert open_fds < 100
    # Those that came last are served still.
    assert c.ask(b'{"command":"ping"}\n', socks[-1])["ok"] is True
    for sock in socks:
        sock.close()
    assert c.done("reload")


def test_a_master_that_does_not_answer(controlled):
    c = controlled()
    os.kill(c.server.pid, signal.SIGSTOP)
    try:
        result = c.run("ping", "--timeout", "0.3")
    finally:
        os.kill(c.server.pid, signal.SIGCONT)
    assert result.returncode == 1 and "did not answer in time" in result.stderr
    assert c.json("ping")["ok"] is True


def test_clients_that_leave_while_they_wait(controlled):
    c = controlled("-w2", app=HELLO + "\n    time.sleep(0.3)\n")
    for _ in range(40):
        with c.connect() as sock:
            sock.sendall(b'{"command":"reload"}\n')
    assert "new workers" in c.done("reload")
    assert c.json("ping")["ok"] is True


def test_an_open_connection_does_not_reach_the_workers(controlled):
    """What a worker inherits would keep a connection open that the master has closed."""
    c = controlled("-w2")
    with c.connect() as sock:
        assert c.ask(b'{"command":"ping"}\n', sock)["ok"] is True
        c.done("reload")
        theirs = sockets_of(c.server.pid)
        inodes = control_inodes(c.path)
        assert inodes & theirs
        for pid in c.pids():
            assert not inodes & sockets_of(pid)


def sockets_of(pid):
    found = set()
    for name in os.listdir("/proc/%d/fd" % pid):
        try:
            target = os.readlink("/proc/%d/fd/%s" % (pid, name))
        except OSError:
            continue
        match = re.match(r"socket:\[(\d+)\]", target)
        if match:
            found.add(match[1])
    return found


def control_inodes(path):
    """Listener and accepted connections both carry the path."""
    found = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) == 8 and fields[7].startswith(str(path)):
            found.add(fields[6])
    return found


def test_nothing_is_periodic(controlled):
    c = controlled()
    with c.connect() as sock:
        assert c.ask(b'{"command":"ping"}\n', sock)["ok"] is True
        for attempt in range(5):  # its start, and what else the machine does, may be in the way
            before = switches(c.server.pid)
            time.sleep(1.5)
            woken = switches(c.server.pid) - before
            if woken <= 1:
                break
        assert woken <= 1


def switches(pid):
    text = Path("/proc/%d/status" % pid).read_text()
    return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M)[1])


AS_NOBODY = """
import json, os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(sys.argv[1])
except PermissionError:
    print("denied")
    sys.exit()
try:
    sock.sendall(b'{"command":"stop","now":true}\\n')
except BrokenPipeError:
    pass
print(json.loads(sock.makefile().readline())["error"])
"""


@root_only
def test_another_user_is_refused(controlled, tmp_path):
    c = controlled(ready="/")
    for parent in [tmp_path, *tmp_path.parents][:4]:
        parent.chmod(parent.stat().st_mode | 0o055)

    def as_nobody():
        return subprocess.check_output([sys.executable, "-c", AS_NOBODY, str(c.path)], text=True)

    assert as_nobody() == "denied\n"
    c.path.chmod(0o666)  # somebody's mistake
    assert "only user 0" in as_nobody()
    assert c.json("ping")["ok"] is True
    assert "of user 65534 was refused" in c.server.log()
