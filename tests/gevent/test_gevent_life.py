"""Time-outs, clients that leave, the limit, blocked hubs, isolation, and the life of a worker."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from tests.front.raw import get, post
from tests.gevent.waiting import wait_for, wait_for_waiters, wait_until
from tests.lib.server import test_command as stoker_command


def command(*args):
    done = subprocess.run(
        stoker_command() + [str(arg) for arg in args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, text=True
    )
    return done.returncode, done.stdout


# ---- deadlines ----------------------------------------------------------------------------------


def test_request_timeout(serve_gevent):
    server = serve_gevent("--request-timeout", "300ms")
    with server.connect() as one, server.connect() as two:
        one.send(get(target="/cancel_told"))
        two.send(get(target="/cancel_caught"))
        assert [one.read_response().status, two.read_response().status] == [504, 504]
    wait_for(server, "RequestTimeout", "went on")
    assert "begun" in server.get("/events_log").json()
    server.wait_log("GET /cancel_told: not answered in time; 504 was sent.*its greenlet is cancelled")
    server.wait_log("(?s)GET /cancel_told: its greenlet waits at .*gevent_app.py\", line [0-9]+ in cancel_told")


@pytest.mark.parametrize("target", ["/block?20", "/block_late?0.7"])
def test_request_timeout_of_a_request_that_blocks(serve_gevent, target):
    server = serve_gevent("--request-timeout", "300ms")
    with server.connect() as conn:
        conn.send(get(target=target))
        assert conn.read_response().status == 504
    # Until the hub is back, others wait for it, for their time.
    wait_until(lambda: server.get("/hello").status == 200, "the hub is back")


def test_the_application_sets_its_own_timeout(serve_gevent):
    server = serve_gevent()
    assert server.get("/set_timeout").status == 504


def test_cancel_on_disconnect(serve_gevent):
    server = serve_gevent("--cancel-on-disconnect")
    conn = server.connect()
    conn.send(get(target="/cancel_told"))
    wait_for(server, "begun")
    conn.reset()
    wait_for(server, "ClientDisconnected")


def test_the_application_asks_for_its_client(serve_gevent):
    server = serve_gevent()
    conn = server.connect()
    conn.send(get(target="/disconnected"))
    wait_for(server, "asks")
    conn.reset()
    wait_for(server, "gone")
    assert "in another thread (or greenlet)" in server.get("/disconnected_elsewhere").json()


# ---- the limit ----------------------------------------------------------------------------------


def test_at_the_limit_requests_wait(serve_gevent, tmp_path):
    server = serve_gevent("--health-path", "/healthz", limit="3")
    with ExitStack() as stack:
        two = [stack.enter_context(server.connect()) for _ in range(2)]
        for connection in two:
            connection.send(get(target="/wait?x"))
        wait_for_waiters(server, "x", 2)
        third, fourth = stack.enter_context(server.connect()), stack.enter_context(server.connect())
        third.send(get(target="/until?%s/go" % tmp_path))
        fourth.send(get(target="/set?x"))
        for _ in range(5):
            assert server.get("/healthz").status == 200
        assert fourth.is_quiet()
        (tmp_path / "go").touch()
        assert third.read_response().body == b"there"
        assert fourth.read_response().body == b"set"
        assert [connection.read_response().body for connection in two] == [b"x", b"x"]


def test_all_that_wait_at_the_limit_are_served(serve_gevent):
    server = serve_gevent(limit="5")
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(40)]
        for connection in connections:
            connection.send(get(target="/sleep?0.02") + get(target="/sleep?0.001") + get(target="/hello"))
        for connection in connections:
            found = [connection.read_response().body for _ in range(3)]
            assert found == [b"slept", b"slept", b"hello"]


def test_the_queue_at_the_limit_is_bounded(serve_gevent, tmp_path):
    server = serve_gevent("--max-queue", "2", "--health-path", "/healthz", limit="1")
    with ExitStack() as stack:
        first, *others = [stack.enter_context(server.connect()) for _ in range(6)]
        first.send(get(target="/until?%s/go" % tmp_path))
        assert server.get("/healthz").status == 200
        for connection in others:
            connection.send(get(target="/hello"))
        ready = set()
        wait_until(lambda: len(ready.update(select.select(others, [], [], 0.01)[0]) or ready) == 3, "three are refused")
        assert {connection.read_response().status for connection in ready} == {503}
        (tmp_path / "go").touch()
        assert first.read_response().body == b"there"
        for connection in others:
            if connection not in ready:
                assert connection.read_response().body == b"hello"


def test_the_time_of_requests_that_wait_at_the_limit(serve_gevent, tmp_path):
    server = serve_gevent("--request-timeout", "300ms", limit="1")
    with server.connect() as first, server.connect() as second:
        first.send(get(target="/until_without_limit?%s/go" % tmp_path))
        second.send(get(target="/hello"))
        assert second.read_response().status == 504
        (tmp_path / "go").touch()
        assert first.read_response().body == b"there"


# ---- a blocked hub ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/block", "/block_late"])
def test_a_blocked_hub_stops_only_the_application(serve_gevent, tmp_path, path):
    server = serve_gevent("--health-path", "/healthz")
    with server.connect() as blocked, server.connect() as waiting, server.connect() as uploads:
        uploads.send(post("Content-Length: 3\r\n", target="/digest"))
        blocked.send(get(target="%s?%s/go" % (path, tmp_path)))
        for _ in range(5):
            assert server.get("/healthz").status == 200
        waiting.send(get(target="/pid"))
        uploads.send(b"abc")
        assert waiting.is_quiet() and server.get("/healthz").status == 200
        (tmp_path / "go").touch()
        assert blocked.read_response().body == b"blocked"
        assert waiting.read_response().status == 200
        assert uploads.read_response().json()["length"] == 3


# ---- isolation ----------------------------------------------------------------------------------


def test_nothing_of_a_request_reaches_another(server):
    for targets in (["/isolated?at-once"] * 20, ["/isolated?wait", "/isolated?at-once"] * 10):
        with ExitStack() as stack:
            connections = [stack.enter_context(server.connect()) for _ in targets]
            for connection, target in zip(connections, targets):
                connection.send(get(target=target))
            for connection in connections:
                assert connection.read_response().json() == [None, None, "clean", True]
    for _ in range(3):
        assert server.get("/tree").json() == {}


def test_greenlets_are_used_again_where_nothing_holds_them(serve_gevent):
    server = serve_gevent()
    first = server.get("/ident").json()
    assert {server.get("/ident").json() for _ in range(10)} == {first}
    assert {server.get("/ident?log").json() for _ in range(10)} == {first}
    assert server.get("/threads").json() == 1
    server.get("/sleep?0.001")
    assert server.get("/ident").json() == first
    held = {server.get("/ident?hold").json() for _ in range(20)}
    assert len(held) == 20
    for _ in range(3):
        assert server.get("/hello").status == 200


def test_links_are_told_of_the_end_of_the_request(serve_gevent):
    server = serve_gevent()
    assert server.get("/linked").body == b"linked"
    wait_for(server, "linked")


def test_a_timeout_that_is_left_behind_hits_nobody(serve_gevent):
    server = serve_gevent()
    server.get("/left_timer")
    assert server.get("/sleep?0.2").body == b"slept"


# ---- the end ------------------------------------------------------------------------------------


def test_requests_are_finished_at_the_end(serve_gevent, tmp_path):
    server = serve_gevent()
    with server.connect() as conn:
        conn.send(get(target="/until?%s/go" % tmp_path))
        server.get("/pid")
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        server.wait_log("SIGTERM: stopping")
        (tmp_path / "go").touch()
        assert conn.read_response().body == b"there"
    stopper.join()


def test_requests_that_do_not_end_are_cut(serve_gevent):
    server = serve_gevent("--graceful-timeout", "300ms")
    with server.connect() as conn:
        conn.send(get(target="/wait?never"))
        wait_for_waiters(server, "never", 1)
        server.stop()
        assert conn.read_to_end() == b""


def test_a_reload_with_open_requests(serve_gevent, tmp_path):
    server = serve_gevent()
    before = server.get("/pid").json()
    with server.connect() as conn:
        conn.send(get(target="/until?%s/go" % tmp_path))
        server.get("/pid")
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.get("/pid").json() != before, "a new worker")
        (tmp_path / "go").touch()
        assert conn.read_response().body == b"there"


@pytest.mark.parametrize("options", [(), ("--gevent-monkey-patch=false",)], ids=str)
def test_preload(serve_gevent, options):
    server = serve_gevent("--preload", *options, app="preloaded_app:app", workers="2")
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(20)]
        for connection in connections:
            connection.send(get(target="/"))
        found = [connection.read_response().json() for connection in connections]
    assert all(answer["patched"] is not bool(options) and answer["resolved"] for answer in found)
    # What the application had spawned when it was loaded goes on in each worker.
    wait_until(lambda: server.get("/").json()["ticks"] > 0, "the greenlet of the module")


# ---- what is seen of it -------------------------------------------------------------------------


@pytest.mark.parametrize("blocked", [False, True])
def test_stack_shows_greenlets(serve_gevent, tmp_path, blocked):
    server = serve_gevent("--control", tmp_path / "control.sock")
    with server.connect() as conn, server.connect() as other:
        conn.send(get(target="/wait?stack"))
        wait_for_waiters(server, "stack", 1)
        if blocked:
            other.send(get(target="/block?%s/go" % tmp_path))
        code, text = command("stack", "1", "--control", tmp_path / "control.sock")
        assert code == 0
        assert "Greenlet of GET /wait?stack" in text and "in wait" in text and "gevent_app.py" in text
        number = re.search(r"Greenlet of GET /wait\?stack, .*, request (\d+) ", text)[1]
        code, text = command("stack", "1", "--request", number, "--control", tmp_path / "control.sock")
        assert code == 0 and "in wait" in text and "in block" not in text
        if blocked:
            code, text = command("stack", "1", "--control", tmp_path / "control.sock")
            assert "in block" in text
            (tmp_path / "go").touch()
            assert other.read_response().body == b"blocked"
        server.get("/set?stack")
        assert conn.read_response().body == b"stack"


# ---- starting -----------------------------------------------------------------------------------


def fails(serve, *options, app="gevent_app:app", cwd=None, env=None):
    server = serve(app, "-w", "1", *options, cwd=cwd or os.path.dirname(__file__), env=env, start=False, check=False)
    server.spawn()
    assert server.wait() != 0
    return server.log()


def test_without_gevent(serve, tmp_path):
    (tmp_path / "gevent.py").write_text("raise ImportError('not here')\n")
    text = fails(serve, "--gevent", "10", "--pythonpath", str(tmp_path))
    assert "gevent: the package gevent cannot be imported; install it (pip install gevent)" in text


@pytest.mark.parametrize(
    "options, text",
    [
        (["--threads", "2"], "gevent runs all requests of a worker on one thread"),
        (["--interface", "asgi"], "gevent runs WSGI applications"),
        (["--gevent", "0"], "gevent"),
        (["--max-concurrency", "5"], "max-concurrency is a limit of ASGI applications, and the number that gevent takes"),
    ],
)
def test_what_does_not_go_together(serve, options, text):
    assert text in fails(serve, "--gevent", "10", *options)


def test_an_asgi_application(serve, tmp_path):
    (tmp_path / "asynchronous.py").write_text("async def app(scope, receive, send):\n    pass\n")
    text = fails(serve, "--gevent", "10", app="asynchronous:app", cwd=tmp_path)
    assert "is an ASGI application, and gevent runs WSGI applications only" in text


def test_without_patches(serve_gevent):
    server = serve_gevent("--no-gevent-monkey-patch")
    assert server.get("/flags").json()["patched"] is False
    assert server.get("/stream").body == b"0\n1\n2\n3\n4\n"


def test_other_event_loops(serve_gevent):
    pytest.importorskip("cffi", reason="gevent's libuv needs it")
    server = serve_gevent(env={"GEVENT_LOOP": "libuv-cffi"})
    with server.connect() as conn:
        conn.send(get(target="/sleep?0.01") + get(target="/hello"))
        assert [conn.read_response().body for _ in range(2)] == [b"slept", b"hello"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_worker_sleeps(serve_gevent, tmp_path):
    """A handful of wake-ups in a second, of whatever thread."""
    server = serve_gevent("--stats", str(tmp_path / "stats.sock"))
    server.get("/sleep?0.01")
    worker = server.get("/pid").json()

    def state():
        with socket.socket(socket.AF_UNIX) as sock, sock.makefile() as file:
            sock.connect(str(tmp_path / "stats.sock"))
            return json.load(file)["workers"][0]["status"]

    wait_until(lambda: state() == "idle", "the worker is idle for whoever looks")

    def switches():
        total = 0
        for task in os.listdir("/proc/%d/task" % worker):
            with open("/proc/%d/task/%s/status" % (worker, task)) as status:
                total += sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
        return total

    def in_a_second():
        before = switches()
        time.sleep(1)
        return switches() - before

    wait_until(lambda: in_a_second() < 100, "the worker sleeps")
