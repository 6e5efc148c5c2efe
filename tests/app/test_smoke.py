"""The short run for every interpreter: what would break first if a version of Python were not
understood. The full suites run on fewer versions."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from tests.lib.server import test_command

pytestmark = pytest.mark.smoke

APP = '''
import os
import sys
import threading
import time


def echo(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [body]


def stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    for number in range(64):
        yield b"block %d\\n" % number


def written(environ, start_response):
    write = start_response("201 Created", [("Content-Type", "text/plain")])
    write(b"by ")
    write(b"write")
    return []


def file(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return environ["wsgi.file_wrapper"](open(sys.executable, "rb"), 65536)


def broken(environ, start_response):
    raise RuntimeError("broken on purpose")


def slow(environ, start_response):
    time.sleep(0.5)
    return info(environ, start_response)


def info(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    lines = ["%s=%s" % (key, environ[key]) for key in sorted(environ) if key.isupper()]
    lines.append("version=%d.%d" % sys.version_info[:2])
    lines.append("pid=%d" % os.getpid())
    lines.append("thread=%s" % threading.current_thread().name)
    return ["\\n".join(lines).encode("latin-1")]


def app(environ, start_response):
    name = environ["PATH_INFO"].strip("/") or "info"
    return globals()[name](environ, start_response)
'''


def fields(response):
    return dict(line.split("=", 1) for line in response.text.splitlines())


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module(APP, "--workers", "2", "--threads", "2", ready="/")


def test_it_runs_in_this_interpreter(server):
    assert fields(server.get("/"))["version"] == "%d.%d" % sys.version_info[:2]


def test_environ(server):
    found = fields(server.get("/info?a=%20b", headers={"X-Some-Field": "value"}))
    assert found["REQUEST_METHOD"] == "GET"
    assert found["PATH_INFO"] == "/info"
    assert found["QUERY_STRING"] == "a=%20b"
    assert found["HTTP_X_SOME_FIELD"] == "value"
    assert found["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert found["SERVER_PORT"] == str(server.port)
    assert found["REMOTE_ADDR"] == "127.0.0.1"


def test_bodies_of_both_framings(server):
    data = os.urandom(300_000)
    assert server.post("/echo", data).body == data
    chunked = b"".join(
        b"%x\r\n%s\r\n" % (len(data[start : start + 7001]), data[start : start + 7001])
        for start in range(0, len(data), 7001)
    )
    response = server.post(
        "/echo", chunked + b"0\r\n\r\n", headers={"Transfer-Encoding": "chunked"}
    )
    assert response.body == data


def test_keep_alive_and_pipelining(server):
    request = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n%03d"
    responses = server.send_raw("".join(request % number for number in range(20)), expect=20)
    assert [response.body for response in responses] == [b"%03d" % number for number in range(20)]


def test_ways_to_answer(server):
    streamed = server.get("/stream")
    assert streamed.body == b"".join(b"block %d\n" % number for number in range(64))
    assert streamed.framing == "chunked"
    written = server.get("/written")
    assert (written.status, written.reason, written.body) == (201, "Created", b"by write")
    with open(sys.executable, "rb") as file:
        assert server.get("/file").body == file.read()


def test_head_has_no_body(server):
    first, second = server.send_raw(
        "HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        expect=2,
        methods=["HEAD"],
    )
    assert first.body == b"" and second.body


def test_an_exception_is_a_500_and_a_traceback(server):
    assert server.get("/broken").status == 500
    server.wait_log("RuntimeError: broken on purpose")
    assert server.get("/").status == 200


def test_threads_share_the_work(server):
    found = []

    def ask():
        found.append(server.get("/slow").status)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 8


def test_sigterm_finishes_what_it_has_begun(serve):
    server = serve(APP, ready="/")
    with server.connect() as conn:
        conn.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert conn.is_quiet(0.1)
        server.send_signal(signal.SIGTERM)
        assert conn.read_response().status == 200
        assert conn.at_end()
    assert server.wait() == 0


def test_a_killed_worker_is_replaced(serve):
    server = serve(APP, "--workers", "1", ready="/")
    first = int(fields(server.get("/"))["pid"])
    os.kill(first, signal.SIGKILL)
    assert int(fields(server.get("/"))["pid"]) != first
    assert first not in server.worker_pids()


def test_an_import_error_is_exit_code_3(serve):
    server = serve("no_such_module:app", start=False)
    server.spawn()
    assert server.wait() == 3
    assert "no_such_module" in server.log()


def test_version_and_help():
    for option in ("--version", "--help"):
        result = subprocess.run(
            test_command() + [option], stdout=subprocess.PIPE, text=True, timeout=60
        )
        assert result.returncode == 0
        assert "stoker" in result.stdout.lower()
