"""Where the logs go, their formats, and a rotation by SIGUSR1."""

import pytest
import json
import os
import signal
import time

APP = """
def app(environ, start_response):
    environ["wsgi.errors"].write("a word from the application\\n")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


def eventually(read, wanted):
    """Reads until `wanted` is in it: logs are written behind the answer."""
    for _ in range(2000):
        text = read()
        if wanted in text:
            return text
        time.sleep(0.005)
    raise AssertionError("no %r in %r" % (wanted, text))


def lines_of(path):
    return lambda: path.read_text() if path.exists() else ""


def test_rotation(serve, tmp_path):
    access, error = tmp_path / "access.log", tmp_path / "error.log"
    server = serve(APP, "-w2", "--access-log", str(access), "--error-log", str(error))
    server.get("/before")
    eventually(lines_of(access), "/before")
    os.rename(access, tmp_path / "access.1")
    os.rename(error, tmp_path / "error.1")
    server.process.send_signal(signal.SIGUSR1)
    eventually(lines_of(error), "opened again")
    for turn in range(400):
        server.get("/after/%d" % turn)
        if access.exists() and "/after" in access.read_text():
            break
        time.sleep(0.01)
    eventually(lines_of(access), "/after")
    assert "/before" in (tmp_path / "access.1").read_text()
    assert "/before" not in access.read_text()
    eventually(lines_of(error), "a word from the application")


def test_combined_is_the_default(serve):
    server = serve(APP)
    server.get("/some?query=1", headers={"User-Agent": 'the "agent"', "Referer": "http://a/b"})
    line = next(
        line for line in eventually(server.stdout, "/some?query=1").splitlines() if "/some" in line
    )
    assert line.startswith("127.0.0.1 - - [")
    assert '"GET /some?query=1 HTTP/1.1" 200 5 "http://a/b"' in line
    assert 'the \\"agent\\"' in line


def test_json(serve, tmp_path):
    access = tmp_path / "access.log"
    server = serve(APP, "--access-log", str(access), "--access-log-format", "json")
    server.get("/x")
    line = eventually(lines_of(access), "/x").splitlines()[-1]
    entry = json.loads(line)
    assert entry["method"] == "GET" and entry["status"] == 200 and entry["bytes"] == 5


def test_template_and_a_wrong_field(serve, tmp_path):
    access = tmp_path / "access.log"
    server = serve(
        APP, "--access-log", str(access), "--access-log-format", "{status} {path} {header:x-id}"
    )
    server.get("/t", headers={"X-Id": "seven"})
    assert "200 /t seven\n" in eventually(lines_of(access), "/t")


def test_off(serve):
    server = serve(APP, "--access-log", "off")
    server.get("/nowhere-to-be-seen")
    eventually(server.log, "a word from the application")
    assert "/nowhere-to-be-seen" not in server.log() + server.stdout()


def test_a_body_that_fails_is_logged_with_its_request(serve):
    """Also when the head has come long before what is wrong."""
    server = serve(APP, "-w1", "--body-timeout", "200ms", "--limit-request-body", "1k")
    cases = (
        ("slow", "Content-Length: 100\r\n", "half", 408),
        ("bad", "Transfer-Encoding: chunked\r\n", "1\r\nx\r\nzz\r\n", 400),
        ("large", "Transfer-Encoding: chunked\r\n", "800\r\n" + "x" * 2048, 413),
    )
    for name, field, body, status in cases:
        with server.connect() as conn:
            conn.send("POST /%s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n%s\r\n" % (name, field))
            assert conn.read_head().status == 100
            conn.send(body)
            assert conn.read_response().status == status
        eventually(server.stdout, '"POST /%s HTTP/1.1" %d ' % (name, status))


APP_OF_STATUSES = """
    import time

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/slow":
            time.sleep(0.3)
        start_response(path[1:] + " X" if path[1:].isdigit() else "200 OK", [])
        return [b"x" * (5000 if path == "/big" else 1)]
"""


@pytest.mark.parametrize(
    "only, logged",
    [
        (["5xx"], ["/500", "/503"]),
        (["4xx", "5xx"], ["/404", "/500", "/503"]),
        (["slow=250ms"], ["/slow"]),
        (["big=5000", "4xx"], ["/404", "/big"]),
    ],
    ids=str,
)
def test_only_some_requests(serve, only, logged):
    options = [word for one in only for word in ("--access-log-only", one)]
    server = serve(APP_OF_STATUSES, "--access-log-format", "{path}", *options)
    for path in ("/", "/404", "/500", "/slow", "/big", "/201", "/503"):
        server.get(path)
    server.stop()
    assert server.stdout().split() == logged


@pytest.mark.parametrize("word", ["6xx", "xx", "slow=", "slow=soon", "big=-1", ""])
def test_conditions_that_are_none(serve, word):
    server = serve(APP_OF_STATUSES, "--access-log-only", word, start=False)
    server.spawn()
    assert server.wait() == 1
    assert "access-log-only" in server.log()
