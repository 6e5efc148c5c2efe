"""The same file and the same application in uWSGI and here: what a client, a log and an operator see."""

import json
import os
import re
import signal
import stat
import subprocess
import textwrap
import time

import pytest

from tests.lib.server import Server, free_port
from tests.lib.server import test_command as command_of_tests

APP = """
    import json, os

    def application(environ, start_response):
        path = environ["PATH_INFO"]
        text = [("Content-Type", "text/plain")]
        if path == "/missing":
            start_response("404 Nothing Here", text + [("X-A", "b")])
            return [b"none"]
        if path == "/read":
            start_response("201 Created", text)
            return [environ["wsgi.input"].read(2), environ["wsgi.input"].read()]
        if path == "/empty":
            start_response("204 No Content", [])
            return []
        if path == "/stream":
            start_response("200 OK", text)
            return iter([b"a", b"", b"b"])
        if path == "/write":
            start_response("200 OK", text)(b"written ")
            return [b"returned"]
        if path == "/boom":
            raise RuntimeError("boom")
        if path == "/pid":
            start_response("200 OK", text)
            return [b"%d" % os.getpid()]
        start_response("200 OK", [("Content-Type", "application/json"), ("X-Two", "1"), ("X-Two", "2")])
        plain = {k: v if isinstance(v, (str, bool, list, tuple)) else type(v).__name__ for k, v in environ.items()}
        return [json.dumps(plain).encode()]
"""

# What there is here besides, and what is another object of the same interface.
MORE = {
    "GATEWAY_INTERFACE", "RAW_URI", "REMOTE_PORT", "REQUEST_SCHEME", "SERVER_SOFTWARE", "stoker.disconnected",
    "stoker.set_timeout", "stoker.version", "wsgi.input_terminated",
}  # fmt: skip
OTHER = {"SERVER_NAME", "SERVER_PORT", "wsgi.errors", "wsgi.file_wrapper", "wsgi.input", "REMOTE_PORT"}
# Of the head: uWSGI says neither when, nor how long, nor who.
MORE_FIELDS = {"date", "server", "content-length", "connection", "transfer-encoding", "etag", "accept-ranges"}


class Theirs(Server):
    """uWSGI, which ends with codes of its own."""

    def __init__(self, program, place, more):
        port = free_port()
        super().__init__(
            None, ["--http-socket", "127.0.0.1:%d" % port, "--ini", "u.ini", *more], cwd=place, logdir=place, bind=None,
            command=[program, "--plugin", "python3,logfile"], check=False,
        )  # fmt: skip
        self.address, self.port = ("127.0.0.1", port), port


@pytest.fixture
def both(tmp_path, uwsgi, serve):
    """both(ini) -> uWSGI and this server with that file, each in a folder of its own."""
    running = []

    def start(ini, *more, app=APP):
        for name in ("theirs", "ours"):
            (tmp_path / name / "files").mkdir(parents=True)
            (tmp_path / name / "files" / "a.txt").write_text("static")
            (tmp_path / name / "app.py").write_text(textwrap.dedent(app))
            (tmp_path / name / "u.ini").write_text("[uwsgi]\nmodule = app\nmaster = true\nprocesses = 1\n" + ini)
        theirs = Theirs(uwsgi, tmp_path / "theirs", more)
        running.append(theirs)
        theirs.start("/missing")
        port = free_port()
        ours = serve(None, "--http-socket", "127.0.0.1:%d" % port, "--ini", "u.ini", *more, cwd=tmp_path / "ours",
                     bind=None, start=False)  # fmt: skip
        ours.address, ours.port = ("127.0.0.1", port), port
        ours.start("/missing")
        return theirs, ours

    yield start
    for server in running:
        server.kill()


def seen(environ):
    """Of an environ, what has to be the same."""
    return {key: value for key, value in environ.items() if key not in MORE | OTHER}


def head(response):
    return sorted((name.lower(), value) for name, value in response.headers if name.lower() not in MORE_FIELDS)


REQUESTS = [
    ("GET", "/p%20a/b%2fc//d?x=1&y=%20", [("X-Y", "a"), ("X-Y", "b"), ("User-Agent", "u"), ("Host", "some.org:81")], None),
    ("POST", "/echo/%C3%A9", [("Content-Type", "a/b"), ("Host", "h")], b"abc"),
    ("GET", "/m/x?q", [("Host", "h")], None),
    ("GET", "/m", [("Host", "h")], None),
    ("GET", "/mx", [("Host", "h")], None),
    ("GET", "/st/missing", [("Host", "h")], None),
    ("GET", "/st/", [("Host", "h")], None),
]


def test_what_an_application_and_a_client_see(both):
    theirs, ours = both("add-header = X-Added: yes\nstatic-map = /st=files\nmount = /m=app.py\nmanage-script-name = true\n")
    for method, target, fields, body in REQUESTS:
        answers = [server.request(method, target, body, fields) for server in (theirs, ours)]
        expected, found = (answer.json() for answer in answers)
        assert seen(found) == seen(expected), target
        assert set(found) - set(expected) == MORE and set(expected) <= set(found)
        assert head(answers[1]) == head(answers[0]) and ("x-added", "yes") in head(answers[0])
    for method, target, body in [
        ("GET", "/missing", None), ("GET", "/m/missing", None), ("POST", "/read", b"abcdef"), ("GET", "/empty", None),
        ("GET", "/stream", None), ("GET", "/write", None), ("HEAD", "/missing", None), ("GET", "/st/a.txt", None),
    ]:  # fmt: skip
        answers = [server.request(method, target, body) for server in (theirs, ours)]
        assert (answers[1].status, answers[1].reason) == (answers[0].status, answers[0].reason), target
        if method != "HEAD":
            assert answers[1].body == answers[0].body, target
        fields = [[one for one in head(answer) if one[0] != "last-modified"] for answer in answers]
        if target.startswith("/st/"):  # which has the character set besides
            fields = [[one for one in pairs if one[0] != "content-type"] for pairs in fields]
        assert fields[0] == fields[1], target
    assert ours.get("/boom").status == 500  # uWSGI closes the connection


def test_what_comes_over_uwsgi(both):
    theirs, ours = both("socket = u.sock\nchmod-socket = 660\n")
    found = []
    for server in (theirs, ours):
        assert stat.S_IMODE(os.stat(server.cwd / "u.sock").st_mode) == 0o660
        done = subprocess.run(
            [*command_of_tests(), "curl", "-H", "X-Y: z", "uwsgi://unix:u.sock", "/p%20q?x=1"],
            cwd=server.cwd, stdout=subprocess.PIPE, timeout=60, check=True,
        )  # fmt: skip
        found.append(json.loads(done.stdout[done.stdout.index(b"{") :]))
    names = {"PATH_INFO", "QUERY_STRING", "REQUEST_URI", "HTTP_X_Y", "HTTP_HOST", "SERVER_PROTOCOL", "wsgi.url_scheme"}
    names |= {"SCRIPT_NAME", "REQUEST_METHOD", "REMOTE_ADDR"}  # the first is left out there where it is empty
    assert {key: found[1].get(key, "") for key in names} == {key: found[0].get(key, "") for key in names}


FORMAT = (
    "%(addr)|%(user)|%(method)|%(uri)|%(proto)|%(status)|%(rsize)|%(referer)|%(uagent)|%(host)|%(wid)|%(modifier1)|"
    "%(var.HTTP_X_Y)|%(var.HTTP_NONE)|%(var.HTTP_X_FORWARDED_FOR)|%(var.PATH_INFO)|%(var.QUERY_STRING)|"
    "%(var.CONTENT_TYPE)|%(var.REQUEST_METHOD)|%(var.REQUEST_URI)|%(var.SERVER_PROTOCOL)|%(var.REMOTE_ADDR)|{%(var.HTTP_HOST)}"
)
TIMES = "%(ftime)|%(ltime)|%(time)|%(epoch)|%(tmsecs)|%(micros)|%(msecs)|%(secs)|%(pid)"


def test_the_log(both):
    theirs, ours = both("log-format = LINE|%s|%s\nreq-logger = file:req.log\n" % (FORMAT, TIMES))
    lines = []
    for server in (theirs, ours):
        server.get("/a/b?x=1&y=2", headers=[("Host", "h.org"), ("X-Y", "a b"), ("User-Agent", "u g"), ("Referer", "r")])
        server.post("/missing", b"abc", headers=[("Host", "h.org"), ("Content-Type", "text/plain")])
        deadline = time.monotonic() + 20
        while len(found := (server.cwd / "req.log").read_text().splitlines()) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        lines.append([line.partition("LINE|")[2].split("|") for line in found[1:]])
    count = FORMAT.count("|") + 1
    for expected, found in zip(*lines):
        assert len(found) == len(expected)
        size = FORMAT.split("|").index("%(rsize)")
        if expected[5] == "200":  # the body is the environ
            expected[size] = found[size]
        assert found[:count] == expected[:count]
        for one, other in zip(found[count:], expected[count:]):
            assert re.sub(r"\d+", "0", one) == re.sub(r"\d+", "0", other)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_the_end(both, number):
    theirs, ours = both("die-on-term = true\nvacuum = true\npidfile = u.pid\nsocket = u.sock\nchmod-socket = 666\n")
    for server in (theirs, ours):
        assert (server.cwd / "u.pid").read_text() == "%d\n" % server.pid
        assert stat.S_IMODE(os.stat(server.cwd / "u.sock").st_mode) == 0o666
        server.send_signal(number)
        assert server.wait() == 0
        assert not (server.cwd / "u.pid").exists() and not (server.cwd / "u.sock").exists()


def test_a_reload(both):
    """A new worker, the same master."""
    for server in both("lazy-apps = true\npidfile = u.pid\n"):
        before = server.get("/pid").text
        server.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while True:
            try:
                if server.get("/pid").text != before:
                    break
            except (OSError, AssertionError):
                pass  # uWSGI closes what is under way
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (server.cwd / "u.pid").read_text() == "%d\n" % server.pid


SOCKET = ["--http-socket", "127.0.0.1:0"]
# Exit codes: of uWSGI, and here.
CODES = [
    (["--module", "missing", "--need-app", *SOCKET], 22),
    (["--module", "app:missing", "--need-app", *SOCKET], 22),
    (["--wsgi-file", "missing.py", "--need-app", *SOCKET], 22),
    (["--need-app", *SOCKET], 22),
    (["--ini", "missing.ini"], 1),
    (["--missing-option"], 1),
    (["--ini", "strict.ini"], 1),
    (["--ini", "exit.ini"], 7),
    (["--module", "app", *SOCKET, "--chmod-socket=68"], 1),
    (["--module", "app", "--ini", "bare.ini", *SOCKET], 1),
    (["--module", "app", *SOCKET, "--chdir", "missing"], 1),
    (["--module", "app", *SOCKET, "--uid", "nobody-at-all"], 1),
    (["--module", "app", *SOCKET, "--pidfile", "missing/p.pid"], 1),
    (["--module", "app", *SOCKET, "--mount", "app"], 1),
    (["--module", "app", "-s", "missing/u.sock"], 1),
    (["--module", "app", *SOCKET, "--exec-asap", "exit 3"], 1),
    (["--version"], 0),
]


def test_exit_codes(uwsgi, run, place):
    (place / "strict.ini").write_text("[uwsgi]\nstrict = true\nfoo = 1\nmodule = app\n")
    (place / "bare.ini").write_text("[uwsgi]\nchmod-socket\n")
    (place / "exit.ini").write_text("[uwsgi]\nexit = 7\n")
    for args, code in CODES:
        done = subprocess.run(
            [uwsgi, "--plugin", "python3", *args], cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, args
        assert run(*args).returncode == code, args


def test_the_order_of_hooks(both):
    phases = "asap as-user pre-app post-app post-fork accepting accepting-once accepting1 accepting1-once as-user-atexit".split()
    ini = "lazy-apps = true\ndie-on-term = true\n"
    ini += "".join("hook-%s = appendn:seen %s\n" % (phase, phase) for phase in phases)
    ini += "".join("exec-%s = echo exec %s >> seen\n" % (phase, phase) for phase in ("asap", "as-user", "pre-app", "as-user-atexit"))
    found = []
    for server in both(ini):
        server.get("/missing")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        found.append(list(dict.fromkeys((server.cwd / "seen").read_text().splitlines())))  # as-user is run again there
    assert found[1] == found[0] and len(found[0]) == len(phases) + 4
