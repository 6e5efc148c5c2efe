"""Logs that the master collects, and logs that are renamed, over the lives of servers."""

import os
import signal
import time

from tests.lib.gate import GATE, Gate

from .test_logs import until

APP = """
import os

def application(environ, start_response):
    path = environ["PATH_INFO"]
    print("printed " + path, flush=True)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def links(pid):
    folder = "/proc/%d/fd" % pid
    return [os.readlink(os.path.join(folder, fd)) for fd in os.listdir(folder) if os.path.lexists(os.path.join(folder, fd))]


def ways(pid):
    """What a process writes to, and whether it waits there."""
    found = {}
    for fd in os.listdir("/proc/%d/fd" % pid):
        with open("/proc/%d/fdinfo/%s" % (pid, fd)) as file:
            flags = int(file.read().split("flags:")[1].split()[0], 8)
        if flags & os.O_ACCMODE == os.O_WRONLY:
            found.setdefault(os.readlink("/proc/%d/fd/%s" % (pid, fd)), set()).add(bool(flags & os.O_NONBLOCK))
    return found


def test_collected(serve, tmp_path):
    """Lines leave once where a logger is standard output, and a hook may print more than the pipe holds."""
    (tmp_path / "u.ini").write_text(
        "[uwsgi]\nmodule = app\nmaster = true\nprocesses = 1\ndisable-logging = true\nlogger = file:/dev/stdout\n"
        "log-encoder = prefix >\nlogger = kept file:kept.log\nlog-route = kept last\n"
        "touch-logreopen = touched\nexec-as-user-atexit = yes 'in a hook' | head -c 3000000; echo the last line\n"
    )
    (tmp_path / "app.py").write_text(APP)
    server = serve(None, "--ini", "u.ini", cwd=tmp_path)
    worker = int(server.get("/once").text)
    found = links(worker)
    assert not [link for link in found if "kept.log" in link or "inotify" in link], found
    pipe = os.readlink("/proc/%d/fd/2" % worker)
    assert ways(server.process.pid)[pipe] == {True, False}  # the master must not wait for itself
    server.stop()
    text = server.stdout()
    assert text.count("printed /once") == 1 and ">printed /once\n" in text and ">>" not in text
    assert text.count(">in a hook") >= 299000
    assert "the last line" in (tmp_path / "kept.log").read_text()


LATE = (
    GATE
    + """
def app(environ, start_response):
    print("begun", flush=True)
    wait_at_gate()
    print("printed late", flush=True)
    start_response("200 OK", [])
    return [b"x"]
"""
)


def test_the_master_is_killed(serve, tmp_path):
    """What is printed is then for where it would go without it, and no request fails for it."""
    with Gate(tmp_path) as gate:
        server = serve(LATE, "--logger", "file:all.log", "--access-log", "off", "-w1", check=False)
        with server.connect() as conn:
            conn.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            until(tmp_path / "all.log", "begun", 20)
            server.process.kill()
            server.wait_log("the master is gone")
            gate.let_go()
            assert conn.read_response().status == 200
    server.wait_log("printed late", out=True)


LOADING = (
    GATE
    + """
import time

if os.path.exists("hold"):
    open("held", "w").close()
    while os.path.exists("hold"):
        time.sleep(0.01)

def app(environ, start_response):
    path = environ["PATH_INFO"]
    environ["wsgi.errors"].write("printed %s\\n" % path)
    if path == "/wait":
        wait_at_gate()
    start_response("200 OK", [])
    return [b"x"]
"""
)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def asked(server, path, log):
    """Whether a request is in the log; the first ones may come before the worker has heard of a new file."""
    server.get(path)
    return log.exists() and "printed " + path in log.read_text()


def test_renamed_in_an_upgrade(serve, tmp_path):
    """The new server does not go on in files that were renamed while it loaded, nor in those that the old one renames."""
    log, pidfile = tmp_path / "error.log", tmp_path / "pid"
    args = ("--error-log", "error.log", "--pidfile", "pid", "--touch-logrotate", "rotate", "--access-log", "off", "-w1")
    with Gate(tmp_path) as gate:
        server = serve(LOADING, *args)
        old = server.process.pid
        with server.connect() as waits:
            waits.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            until(log, "printed /wait", 20)
            (tmp_path / "hold").touch()
            os.kill(old, signal.SIGUSR2)
            assert wait_for((tmp_path / "held").exists)
            os.rename(log, tmp_path / "moved.log")
            os.kill(old, signal.SIGUSR1)
            until(log, "opened again", 20)
            (tmp_path / "hold").unlink()
            assert wait_for(lambda: int(pidfile.read_text().split()[0]) != old)
            new = int(pidfile.read_text().split()[0])
            assert wait_for(lambda: asked(server, "/after", log), 20)
            os.kill(new, signal.SIGSTOP)
            (tmp_path / "rotate").write_text("1")
            wait_for(lambda: list(tmp_path.glob("error.log.*")), 1)  # not by the old one
            os.kill(new, signal.SIGCONT)
            assert wait_for(lambda: list(tmp_path.glob("error.log.*")))
            assert wait_for(lambda: asked(server, "/rotated", log), 20)
            gate.let_go()
            assert waits.read_response().status == 200
    os.kill(new, signal.SIGTERM)
    assert wait_for(lambda: "stopped after" in log.read_text())
