"""Reloads under load: by signal, by a touched file, by command; and those that fail."""

import json
import os
import signal
import textwrap

import pytest

from tests.life.steady import Steady, command, pids, wait_until

APP = """
import os
import time

time.sleep({pause})
VERSION = "{version}"


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/pid":
        return [b"%d" % os.getpid()]
    return [VERSION.encode()]
"""

BROKEN = APP + "\ndef oops(:\n"


@pytest.fixture
def write(tmp_path):
    """Writes the application: write("2"), write("3", pause=1), write(text=BROKEN)."""

    def write_app(version="?", pause=0, text=APP):
        path = tmp_path / "app.py"
        new = tmp_path / "app.new"
        new.write_text(textwrap.dedent(text).format(version=version, pause=pause))
        new.rename(path)

    return write_app


def start(serve, *args, **kwargs):
    server = serve("app:app", *args, env={"PYTHONDONTWRITEBYTECODE": "1"}, **kwargs)
    server.wait_log(r"ready after")
    return server


def complete(server, count=1):
    """Waits until so many reloads have ended well."""
    wait_until(lambda: server.log().count("the reload is complete") >= count)


@pytest.mark.parametrize("mode", ["rolling", "all"])
def test_no_request_is_lost(serve, write, mode):
    write("1")
    server = start(serve, "-w3", "--reload-mode", mode)
    before = pids(server)
    with Steady(server) as steady:
        for version in ("2", "3", "4"):
            steady.more()
            write(version)
            server.send_signal(signal.SIGHUP)
            complete(server, int(version) - 1)
            # The old workers accept nothing any more when that is said.
            assert {server.get("/").text for _ in range(20)} == {version}
    assert set(steady.texts) <= {"1", "2", "3", "4"}
    assert not before & pids(server)


def test_a_request_in_progress_is_finished(serve, write):
    write("1")
    server = start(serve, "-w1")
    with server.connect() as conn:
        conn.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: conn.is_quiet(0.1))
        write("2")
        server.send_signal(signal.SIGHUP)
        complete(server)
        assert server.get("/").text == "2"
        assert conn.read_response().text == "1"


@pytest.mark.parametrize("args", [(), ("--reload-mode", "all"), ("--preload",)], ids=str)
def test_code_that_does_not_load(serve, write, args):
    """No effect on the traffic, and one message with one traceback, however many workers."""
    write("1")
    server = start(serve, "-w3", *args)
    before = pids(server)
    with Steady(server) as steady:
        write(text=BROKEN)
        server.send_signal(signal.SIGHUP)
        server.wait_log(r"the reload failed, because .* cannot load the application: the old worker")
        steady.more(50)
    assert set(steady.texts) == {"1"}
    assert steady.again == 0
    assert pids(server) == before
    log = server.log()
    assert log.count("SyntaxError") == 1
    assert log.count("def oops(:") == 1
    assert log.count("Traceback") <= 1  # Python 3.13 has nothing to say under that line
    assert log.count("the reload failed") == 1
    write("2")
    server.send_signal(signal.SIGHUP)
    complete(server)
    assert server.get("/").text == "2"


def test_the_command_says_how_it_ended(serve, write, tmp_path):
    write("1")
    control = tmp_path / "control.sock"
    server = start(serve, "-w2", "--control", control)
    write("2")
    done = command(control, "reload")
    assert done.returncode == 0, done
    assert "complete" in done.stdout
    assert {server.get("/").text for _ in range(20)} == {"2"}
    write(text=BROKEN)
    failed = command(control, "reload")
    assert failed.returncode == 1, failed
    assert "SyntaxError" in failed.stdout + failed.stderr
    assert "the old workers go on" in failed.stdout + failed.stderr
    assert {server.get("/").text for _ in range(20)} == {"2"}
    status = json.loads(command(control, "status", "--json").stdout)
    assert status["last_reload"]["ok"] is False


def test_a_reload_during_a_reload(serve, write):
    """Of several in a row the last one counts, and nobody notices the others."""
    write("1")
    server = start(serve, "-w2")
    with Steady(server) as steady:
        for version in ("2", "3", "4", "5"):
            write(version, pause=1 if version != "5" else 0)
            server.send_signal(signal.SIGHUP)
            steady.more(5)
        complete(server)
        wait_until(lambda: {server.get("/").text for _ in range(20)} == {"5"})
    assert server.log().count("the reload is complete") == 1


def test_touched_files(serve, write, tmp_path):
    """Several files, one of which does not exist yet, by their times alone."""
    write("1")
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("")
    server = start(serve, "-w2", "--touch-reload", "first", "--touch-reload", second)
    with Steady(server):
        write("2")
        os.utime(first)
        complete(server, 1)
        assert server.get("/").text == "2"
        write("3")
        second.write_text("")
        complete(server, 2)
        assert server.get("/").text == "3"
        second.unlink()
        write("4")
        second.write_text("")
        complete(server, 3)
        assert server.get("/").text == "4"
    assert "first was touched" in server.log()


def test_a_deployment_that_turns_a_link(serve, write, tmp_path):
    write("1")
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "restart.txt").write_text(release)
    (tmp_path / "current").symlink_to("one")
    server = start(serve, "-w1", "--touch-reload", tmp_path / "current" / "restart.txt")
    write("2")
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "current")
    complete(server)
    assert server.get("/").text == "2"


def test_a_worker_dies_during_a_reload(serve, write):
    write("1")
    server = start(serve, "-w3")
    before = pids(server)
    write("2", pause=0.3)
    server.send_signal(signal.SIGHUP)
    os.kill(max(before), signal.SIGKILL)
    complete(server)
    assert {server.get("/").text for _ in range(30)} == {"2"}
    assert not pids(server) & before
