"""Logs of uWSGI's configurations: the lines that uWSGI writes, where it writes them, and files that are renamed."""

import os
import re
import socket
import time

import pytest

from tests.compat_uwsgi.test_as_uwsgi import both  # noqa: F401

APP = """
import sys

def application(environ, start_response):
    import uwsgi
    path = environ["PATH_INFO"]
    assert uwsgi.get_logvar("who") is None
    if path != "/plain":
        uwsgi.set_logvar("who", environ.get("HTTP_X_WHO", "nobody"))
        assert uwsgi.get_logvar(b"who") == environ.get("HTTP_X_WHO", "nobody").encode()
    if "metric" in uwsgi.opt:
        uwsgi.metric_set("length", len(path))
    print("printed " + path, flush=True)
    print("an Error of " + path, file=sys.stderr, flush=True)
    start_response("404 Not Found" if path == "/missing" else "200 OK", [("Content-Type", "text/plain"), ("X-A", "b")])
    return [] if path == "/empty" else [b"hello"]
"""


def until(path, wanted, seconds=60):
    """The text of a file once a pattern is in it."""
    deadline = time.monotonic() + seconds
    text = ""
    while time.monotonic() < deadline:
        text = path.read_text() if path.exists() else ""
        if re.search(wanted, text):
            return text
        time.sleep(0.02)
    raise AssertionError("no %r in %s: %r" % (wanted, path.name, text))


# What is the same there and here, and what is only of the same shape: times, sizes of processes and heads.
SAME = (
    "%(addr)|%(user)|%(method)|%(uri)|%(proto)|%(status)|%(rsize)|%(cl)|%(referer)|%(uagent)|%(host)|%(wid)|%(core)|"
    "%(modifier1)|%(modifier2)|%(switches)|%(who)|%(nobody)|%(by)|%(var.PATH_INFO)|%(var.QUERY_STRING)|%(var.SERVER_PORT)|"
    "%(var.HTTP_X_WHO)|%(var.HTTPS)|%(var.CONTENT_LENGTH)|%(werr)|%(rerr)|%(ioerr)|%(metric.length)|{braces}|100 text"
)
SHAPE = (
    "%(hsize)|%(size)|%(headers)|%(vars)|%(pktsize)|%(micros)|%(msecs)|%(secs)|%(time)|%(epoch)|%(tmsecs)|%(tmicros)|"
    "%(ltime)|%(ctime)|%(ftime)|%(pid)|%(rss)|%(vsz)|%(rssM)|%(vszM)"
)


def shape(text):
    return re.sub(r"[A-Z][a-z]{2} +\d+|\d+", "0", text)


def test_every_variable_of_log_format(both):  # noqa: F811
    ini = "route-run = logvar:by=rule ${REQUEST_METHOD}\nlog-format = LINE|%s|%s\nlog-date = %%%%Y at %%%%H\nlogformat-strftime = true\nmetric = name=length\nreq-logger = file:req.log\n"
    theirs, ours = both(ini % (SAME, SHAPE), app=APP)
    found = []
    for server in (theirs, ours):
        port = str(server.port)
        server.get("/a%20b?x=1", headers=[("Host", "h"), ("X-Who", "me, \tyou"), ("User-Agent", "u g"), ("Referer", "r")])
        server.post("/plain", b"abc", headers=[("Host", "h")])
        text = until(server.cwd / "req.log", "LINE.*\n.*POST /plain|POST.*\n")
        lines = [line.replace(port, "PORT").partition("LINE|")[2].split("|") for line in text.splitlines()]
        found.append([line for line in lines if line[3] in ("/a%20b?x=1", "/plain")])
    count = SAME.count("|") + 1
    assert len(found[0]) == len(found[1]) == 2
    for expected, line in zip(*found):
        assert line[:count] == [one.replace("\t", "\\x09") for one in expected[:count]]
        assert [shape(one) for one in line[count:]] == [shape(one) for one in expected[count:]]
        values = dict(zip(re.findall(r"%\((\w+)\)", SHAPE), line[count:]))
        assert int(values["size"]) == int(values["hsize"]) + 5 and int(values["headers"]) >= 3
        assert int(values["rss"]) > 1 << 20 and int(values["vsz"]) > int(values["rss"])
        assert abs(int(values["tmicros"]) // 1000 - int(values["tmsecs"])) <= 1
        assert re.fullmatch(r"\d{4} at \d\d", values["ftime"])


ROUTED = r"""
log-format = REQ %(method) %(uri) %(status)
logger = file:all.log
logger = errs file:errs.log
logger = both file:both.log
log-route = errs an Error
log-route = both (an Error|printed) (of )?/both
log-drain = /drained
req-logger = file:req.log
logger = posts file:posts2.log
log-req-route = posts ^REQ POST
log-encoder = prefix:errs [E]
log-encoder = json:both {"m":"${msg}","y":"${strftime:%%Y}"}
log-encoder = nl:both
"""


def test_loggers_and_routes(both):  # noqa: F811
    """The same lines in the same files."""
    servers = both(ROUTED + "log-req-encoder = format <${msg}>\nlog-req-encoder = nl\n", app=APP)
    for server in servers:
        for path in ("/one", "/drained", "/both"):
            server.get(path)
        server.post("/posted", b"x")
        until(server.cwd / "req.log", "/both")
        until(server.cwd / "posts2.log", "/posted")
        until(server.cwd / "all.log", "printed /posted")
        until(server.cwd / "errs.log", "/posted")
        until(server.cwd / "both.log", "Error of /both")
    for name, pattern in [
        ("all.log", r"^(?:printed|an Error).*$"), ("errs.log", r"^\[E\].*$"), ("both.log", r"^\{.*$"),
        ("req.log", r"^<REQ (?!GET /missing).*$"), ("posts2.log", r"^<REQ.*$"),
    ]:  # fmt: skip
        lines = [re.findall(pattern, (server.cwd / name).read_text(), re.MULTILINE) for server in servers]
        assert lines[0] == lines[1], name
        assert lines[0], name
        assert not any("/drained" in line for line in lines[1]) or name == "req.log"


def test_one_server_of_all_kinds(serve, tmp_path):
    """Datagrams, rotation by touch and by size, permissions, and what has no place."""
    reader = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    reader.bind(("127.0.0.1", 0))
    reader.settimeout(60)
    port = reader.getsockname()[1]
    (tmp_path / "u.ini").write_text(
        "[uwsgi]\nmodule = app\nmaster = true\nprocesses = 2\nlogto = main.log\nlog-maxsize = 4096\nlog-backupname = main.old\n"
        "disable-logging = true\nlog-4xx = true\nlog-zero = true\nlog-format = R %(uri) %(status)\n"
        "touch-logrotate = rotate.txt\ntouch-logreopen = reopen.txt\nlogfile-chmod = 604\nlogger = stdio\n"
        "logger = udp socket:127.0.0.1:{0},PFX\nlog-route = udp printed /udp\nlogger = remote rsyslog:127.0.0.1:{0},host app\n"
        "rsyslog-packet-size = 256\nrsyslog-split-messages = true\n"
        "log-route = remote printed /remote\nlogger = gone file:missing/x.log\nlog-route = gone printed /gone\n".format(port)
    )
    (tmp_path / "app.py").write_text(APP.replace("import uwsgi\n", "import uwsgi\n    if path_of(environ): uwsgi.log_this_request()\n")
                                     + '\ndef path_of(environ):\n    return environ["PATH_INFO"] == "/this"\n')  # fmt: skip
    server = serve(None, "--ini", "u.ini", cwd=tmp_path)
    log = tmp_path / "main.log"
    for path in ("/udp", "/remote", "/gone", "/quiet", "/missing", "/empty", "/this"):
        server.get(path)
    assert reader.recv(4096) == b"PFXprinted /udp"
    assert re.fullmatch(rb"<29>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d host app: printed /remote", reader.recv(4096))
    text = until(log, "R /this 200")
    assert "R /missing 404" in text and "R /empty 200" in text and "R /quiet" not in text and "R /udp" not in text
    assert "gone file:missing/x.log cannot be opened" in text and "printed /gone" not in text
    assert os.stat(log).st_mode & 0o777 == 0o604
    (tmp_path / "rotate.txt").write_text("1")
    until(tmp_path / "main.old", "R /this 200")
    until(log, "main.log had [0-9]+ bytes: it is main.old now")
    sent = 0
    while "R /this" in (tmp_path / "main.old").read_text():  # until it is too large again
        for _ in range(50):
            server.get("/missing?%d" % sent)
            sent += 1
    until(log, "it is main.old now")
    os.rename(log, tmp_path / "moved.log")
    (tmp_path / "reopen.txt").write_text("1")
    until(log, "opened again")
    server.get("/missing?last")
    until(log, r"missing\?last")
    server.stop()
    assert "stopped after" in log.read_text()
    lines = re.findall(r"^R /missing\?\d+ 404$", "".join((tmp_path / name).read_text() for name in ("main.old", "moved.log", "main.log")), re.M)  # fmt: skip
    assert len(lines) == len(set(lines)) and lines


@pytest.mark.parametrize(
    "option, said",
    [
        ("logger = file", "logger = 'file': file needs a path"),
        ("log-encoder = gzip", "log-encoder = 'gzip': gzip makes a file that no tool reads"),
        ("log-drain = (", "log-drain = '(': "),
        ("logger = a stdio\nlog-route = a [", "log-route = 'a [': "),
    ],
)
def test_mistakes(run, place, option, said):
    (place / "u.ini").write_text("[uwsgi]\nmodule = app\n" + option + "\n")
    done = run("--check", "--ini", "u.ini")
    assert done.returncode == 1 and said in done.stderr and "u.ini:" in done.stderr


def test_what_is_left_out(run, place):
    (place / "u.ini").write_text(
        "[uwsgi]\nmodule = app\nlogger = zeromq:tcp://127.0.0.1\nlog-route = nobody x\nlog-format = constant\n"
    )
    done = run("--check", "--ini", "u.ini")
    assert done.returncode == 0
    assert "u.ini:3: logger: zeromq is not there" in done.stderr
    assert "u.ini:4: log-route: without effect: there is no logger nobody" in done.stderr
    assert "text:constant" in done.stdout
