"""Requests that take too long, clients that leave, crash reports, and the stacks of a worker."""

import os
import re
import signal
import threading
import time

import pytest

from tests.lib.server import Connection, ProtocolError
from tests.life.steady import command

APP = """
import ctypes
import functools
import os
import select
import socket
import threading
import time

import stoker

TEXT = [("Content-Type", "text/plain")]
LOCK = threading.Lock()
LOCK.acquire()
PAIR = socket.socketpair()
MAIN = threading.main_thread()
events = []
begun = []


def spin():
    while True:
        pass


def recv():
    PAIR[0].recv(1)


def lock():
    LOCK.acquire()


def sleep():
    time.sleep(60)


def poll():
    select.select([PAIR[0]], [], [])


def free():
    for _ in range(100):
        ctypes.CDLL(None).usleep(100000)


def hold():
    deadline = time.monotonic() + 0.8  # usleep ends at the first signal
    while time.monotonic() < deadline:
        ctypes.PyDLL(None).usleep(800000)


def swallow():
    for _ in range(40):
        try:
            time.sleep(0.1)
        except stoker.RequestCancelled as error:
            events.append("swallowed " + type(error).__name__)


def clean():
    try:
        time.sleep(60)
    except Exception:
        events.append("as an Exception")
    except stoker.RequestTimeout:
        events.append("as a RequestTimeout")
        raise
    finally:
        events.append("finally")


def stream(environ):
    yield b"first"
    time.sleep(60)


def flow():
    try:
        while True:
            yield b"block"
            time.sleep(0.02)
    finally:
        begun.append("the end of the flow")


def late():
    yield b"first"
    while "left" not in begun:
        time.sleep(0.02)
    yield b"second"
    time.sleep(60)


class SlowClose:
    def __init__(self, blocks):
        self.blocks = blocks

    def __len__(self):
        return len(self.blocks)

    def __iter__(self):
        return iter(self.blocks)

    def close(self):
        time.sleep(60)


class Body:
    def __iter__(self):
        yield b"first"
        time.sleep(60)

    def close(self):
        events.append("closed")


def native():
    # Blocks outside Python, and no bytecode is run between that and the end of the request.
    return iter(functools.partial(ctypes.CDLL(None).usleep, 700000), 0)


def wait_for_client(environ):
    disconnected = environ["stoker.disconnected"]
    events.append(disconnected())
    for _ in range(600):
        time.sleep(0.05)
        if disconnected():
            break
    events.append(disconnected())


def app(environ, start_response):
    path = environ["PATH_INFO"].strip("/")
    begun.append(path)
    if path.startswith("stuck/"):
        environ["stoker.set_timeout"](float(environ["QUERY_STRING"] or 0.4))
        path = path[6:]
    if path in ("spin", "recv", "lock", "sleep", "poll", "free", "hold", "swallow", "clean"):
        globals()[path]()
    elif path == "unlimited":
        environ["stoker.set_timeout"](0)
        time.sleep(1.5)
    elif path == "stream":
        start_response("200 OK", TEXT)
        return stream(environ)
    elif path in ("flow", "late"):
        start_response("200 OK", TEXT)
        return globals()[path]()
    elif path == "body":
        start_response("200 OK", TEXT)
        return Body()
    elif path == "native":
        start_response("200 OK", TEXT)
        return native()
    elif path == "close":
        start_response("200 OK", TEXT)
        return SlowClose([b"block"] * int(environ["QUERY_STRING"]))
    elif path == "client":
        wait_for_client(environ)
    elif path == "second":
        time.sleep(1)
    elif path == "nap":
        time.sleep(0.05)
    elif path == "bad":
        try:
            environ["stoker.set_timeout"](-1)
        except ValueError as error:
            events.append(str(error))
        other = []
        def call():
            try:
                environ["stoker.disconnected"]()
            except RuntimeError as error:
                other.append(str(error))
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        events.extend(other)
    elif path == "segfault":
        ctypes.string_at(0)
    elif path == "abort":
        os.abort()
    elif path == "faulthandler":
        import faulthandler
        faulthandler.enable()
        ctypes.string_at(0)
    start_response("200 OK", TEXT)
    if path == "begun":
        return [" ".join(begun).encode()]
    if path == "events":
        body = "\\n".join(map(str, events))
        del events[:]
        return [body.encode()]
    return [str(os.getpid()).encode()]
"""

BLOCKING = ["sleep", "lock", "recv", "poll"]
# A sanitizer's handler comes last, and ends the process in its own way.
sanitized = "asan" in os.environ.get("LD_PRELOAD", "") + os.environ.get("STOKER_TEST_COMMAND", "")


def until(what, seconds=10):
    """Waits until what() is true; logs are written behind the answers."""
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return what()


def expect_timeout(server, path):
    response = server.get(path)
    assert response.status == 504
    assert response.will_close
    return response


def stack_of(server, path):
    """The lines of the record about a request: its stack."""
    record = server.wait_log(
        r"error: GET %s\S*: not answered within [^\n]*most recent call first[^\n]*\n((?:[^\n]*  File [^\n]*\n)+)"
        % re.escape(path)
    )
    return record.group(1)


@pytest.mark.parametrize("kind", BLOCKING + ["spin"])
def test_main_thread_is_interrupted(serve, kind):
    server = serve(APP, "--workers", "1", "--request-timeout", "0.5")
    pid = server.get("/").body
    expect_timeout(server, "/" + kind)
    assert "in %s\n" % kind in stack_of(server, "/" + kind)
    server.wait_log("has cancelled a request")
    # The worker was free at once, and one in its place follows.
    assert server.get("/").status == 200
    assert "killed" not in server.log()
    assert pid


def test_record_and_access_line(serve):
    server = serve(APP, "--workers", "1", "--request-timeout", "0.3")
    expect_timeout(server, "/sleep?secret=1")
    record = server.wait_log(r"error: (GET /sleep\?secret=1: not answered within 0\.300 s .*)").group(1)
    assert "504 was sent to client 127.0.0.1:" in record
    assert "the call is cancelled" in record
    lines = server.wait_log(r'"GET /sleep\?secret=1 HTTP/1\.1" (\d+) ', out=True)
    assert lines.group(1) == "504"
    assert server.stdout().count("/sleep") == 1
    assert server.log().count("error: GET") == 1


def test_other_threads_get_an_exception(serve):
    server = serve(APP, "--workers", "1", "--threads", "4", "--request-timeout", "0.5")
    clients = [server.connect() for _ in range(4)]
    for client in clients:
        client.send(b"GET /spin HTTP/1.1\r\nHost: a\r\n\r\n")
    for client in clients:
        assert client.read_response().status == 504
        assert client.at_end()
        client.close()
    server.wait_log("has cancelled a request")
    assert server.get("/").status == 200
    assert "has not returned" not in server.log()


@pytest.mark.parametrize("threads", [1, 2])
def test_next_request_gets_nothing(serve, threads):
    """The exception that was set too late for its request must not hit another one."""
    server = serve(APP, "--workers", "1", "--threads", str(threads))
    with server.connect() as keep:
        stuck = [server.connect() for _ in range(threads)]
        for client in stuck:
            client.send(b"GET /stuck/native?0.3 HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in stuck:
            assert client.read_response().status == 504
            client.close()
        for _ in range(30):
            response = server.request("GET", "/nap", conn=keep)
            assert response.status == 200
            if response.will_close:
                break
    # On a machine that stands still the call may also be said not to have returned in time.
    assert server.log().count("error: GET /stuck/native?0.3: not answered") == threads
    assert "error: GET /nap" not in server.log()


def test_cleanup_runs_and_the_exception_is_no_exception(serve):
    server = serve(APP, "--workers", "1", "--request-timeout", "0.3", "--reload-mode", "rolling")
    with server.connect() as keep:
        keep.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        keep.read_response()
        expect_timeout(server, "/clean")
        keep.send(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        body = keep.read_response().text
    # The worker may have been replaced by now: then its events went with it.
    assert body in ("as a RequestTimeout\nfinally", "")


def test_swallowed_exception_comes_twice_then_the_worker_is_replaced(serve):
    server = serve(APP, "--workers", "1", "--request-timeout", "0.3", "--cancel-grace", "1")
    old = server.get("/").body
    expect_timeout(server, "/swallow")
    server.wait_log("GET /swallow: has not returned to the server")
    while server.get("/").body == old:
        time.sleep(0.02)
    assert "killed" not in server.log()


def test_begun_response_is_cut(serve):
    server = serve(APP, "--workers", "1", "--request-timeout", "0.4")
    with server.connect() as client:
        client.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        head = client.read_head()
        assert head.status == 200
        with pytest.raises(ProtocolError):
            client.read_body(head)
    assert "in stream\n" in stack_of(server, "/stream")
    with server.connect() as client:  # no framing: only a reset can tell
        client.send(b"GET /body HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            client.read_to_end()


@pytest.mark.parametrize("blocks", [1, 3])
def test_response_does_not_wait_for_close(serve, blocks):
    """What the application does after its response is cancelled too, and the response is whole."""
    server = serve(APP, "--workers", "1", "--request-timeout", "1")
    with server.connect() as client:
        client.send(b"GET /close?%d HTTP/1.1\r\nHost: a\r\n\r\n" % blocks)
        assert client.read_response().body == b"block" * blocks
        assert "not answered" not in server.log()
        assert "in close\n" in stack_of(server, "/close")
        client.send(b"GET /nap HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response().status == 200
    assert "its response had been handed over" in server.log()


def test_limit_of_one_request(serve):
    server = serve(APP, "--workers", "1", "--request-timeout", "0.8")
    assert server.get("/unlimited").status == 200
    assert server.get("/bad").status == 200
    lines = server.get("/events").text.splitlines()
    assert "takes 0 (no limit) to a year, got -1" in lines[0]
    assert "outside of its request, or in another thread" in lines[1]
    expect_timeout(server, "/stuck/sleep?0.1")  # behind which another worker comes
    server.wait_log(r"not answered within 0\.1\d* s")


@pytest.mark.parametrize("threads, persistent", ((1, False), (1, True), (2, True)))
def test_the_call_behind_one_without_a_limit(serve, threads, persistent):
    """The stand-by leads still when it comes, and has nothing else to look after. A connection that
    stays says nothing between the two that could wake it."""
    server = serve(APP, "--workers", "1", "--threads", str(threads), "--request-timeout", "0.4")
    with server.connect() as conn:
        kept = conn if persistent else None
        assert server.get("/unlimited", conn=kept).status == 200
        response = server.get("/second", conn=kept)
        assert response.status == 504
        assert response.will_close


def test_a_route_has_a_limit_of_its_own(serve):
    """Of a server without request-timeout, and in place of a shorter one."""
    routes = ("--route", "prefix=/sleep app=app:app strip=false timeout=300ms",
              "--route", "path=/second method=POST app=app:app timeout=off")  # fmt: skip
    server = serve(APP, "--workers", "1", "--threads", "2", *routes)
    with server.connect() as other:
        other.send(b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
        expect_timeout(server, "/sleep")
        assert "in sleep\n" in stack_of(server, "/sleep")
        assert server.get("/nap").status == 200
        server.wait_log(r'"GET /sleep HTTP/1\.1" 504 ', out=True)
        assert other.read_response().status == 200
    assert "GET /second" not in server.log()
    server = serve(APP, "--workers", "1", "--request-timeout", "0.4", *routes)
    assert server.request("POST", "/second").status == 200
    expect_timeout(server, "/second")


def test_waiting_for_a_thread_counts(serve):
    server = serve(APP, "--workers", "1", "--request-timeout", "0.6", "--cancel-grace", "5")
    with server.connect() as stuck, server.connect() as waiting:
        stuck.send(b"GET /swallow HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.2)
        waiting.send(b"GET /nap HTTP/1.1\r\nHost: a\r\n\r\n")
        assert stuck.read_response().status == 504
        response = waiting.read_response()
    assert response.status == 504
    assert "no thread of the application was free" in response.text
    server.wait_log(r"GET /nap: has waited \d\.\d+ s for a thread")


def test_cancel_on_disconnect(serve):
    server = serve(APP, "--workers", "1", "--threads", "2", "--cancel-on-disconnect")
    client = server.connect()
    client.send(b"GET /spin HTTP/1.1\r\nHost: a\r\n\r\n")
    assert until(lambda: "spin" in server.get("/begun").text)
    client.reset()
    # A half-close is not leaving.
    with server.connect() as client:
        client.send(b"GET /nap HTTP/1.1\r\nHost: a\r\n\r\n")
        client.half_close()
        assert client.read_response().status == 200
    server.wait_log(r'"GET /spin HTTP/1\.1" 499 0 ', out=True)
    assert "error:" not in server.log()


def test_cancel_on_hang_up(serve):
    """Over a unix socket a close is seen at once, while nothing is sent."""
    server = serve(APP, "--workers", "1", "--threads", "2", "--cancel-on-disconnect", bind="unix")
    client = server.connect()
    client.send(b"GET /spin HTTP/1.1\r\nHost: a\r\n\r\n")
    assert until(lambda: "spin" in server.get("/begun").text)
    client.close()
    server.wait_log(r'"GET /spin HTTP/1\.1" 499 0 ', out=True)
    assert "error:" not in server.log()


@pytest.mark.parametrize("bind", ["tcp", "unix"])
@pytest.mark.parametrize("path, block, leave", [
    ("flow", b"block", Connection.reset),  # a send fails
    ("late", b"first", Connection.close),  # over TCP nothing tells of it before the second block
])
def test_cancel_in_the_middle_of_a_stream(serve, bind, path, block, leave):
    server = serve(APP, "--workers", "1", "--threads", "2", "--cancel-on-disconnect", bind=bind)
    client = server.connect()
    client.send("GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
    assert client.read_head().status == 200
    got = b""
    while block not in got:
        got += client.read_available()  # all of it: with bytes left behind a close would be a reset
    leave(client)
    server.get("/left")
    server.wait_log(r'"GET /%s HTTP/1\.1" 200 ' % path, out=True)
    if path == "flow":
        assert until(lambda: "the end of the flow" in server.get("/begun").text)
    assert "error:" not in server.log()


def test_a_client_that_left_is_no_error_of_the_application(serve):
    """It is counted among those who left, not among the responses of the server's errors; also one
    that has left when its time is over."""
    server = serve(APP, "--workers", "1", "--cancel-on-disconnect", "--request-timeout", "3",
                   "--metrics", "/metrics")
    for path in ("lock", "swallow"):
        with server.connect() as client:
            client.send("GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            assert client.is_quiet(0.3)
            client.reset()
        server.wait_log(r'"GET /%s HTTP/1\.1" 499 0 ' % path, out=True)

    def counted():
        text = server.get("/metrics").text
        return all(line in text.splitlines() for line in (
            "stoker_requests_left_total 2",
            'stoker_responses_total{class="4xx"} 2',
            'stoker_responses_total{class="5xx"} 0',
            "stoker_exceptions_total 0",
        ))

    assert until(counted), server.get("/metrics").text


def test_disconnected(serve):
    server = serve(APP, "--workers", "1", "--threads", "2")
    client = server.connect()
    client.send(b"GET /client HTTP/1.1\r\nHost: a\r\n\r\n")
    assert until(lambda: "client" in server.get("/begun").text)
    time.sleep(0.1)  # it has asked for the first time
    client.reset()
    text = ""
    while text != "False\nTrue":
        time.sleep(0.05)
        text += server.get("/events").text if not text else "\n" + server.get("/events").text
        text = text.strip()
    server.stop()


def test_refused_without_stand_by(serve):
    for option in ("--request-timeout=1", "--cancel-on-disconnect", "--max-queue=1", "--max-queue-age=1s"):
        server = serve(APP, "--no-takeover", option, start=False).spawn()
        assert server.wait() == 1
        assert option[2:].partition("=")[0] + " needs the stand-by thread" in server.log()
    route = "path=/slow app=app:app timeout=300ms"
    server = serve(APP, "--no-takeover", "--route", route, start=False).spawn()
    assert server.wait() == 1
    assert re.search(r"route.*: timeout needs the stand-by thread", server.log())


# ---- the case that matters: some requests are stuck among many that are not


class Good(threading.Thread):
    """Asks over and over on one connection, as long as the server lets it."""

    def __init__(self, server, count):
        super().__init__()
        self.server, self.count, self.wrong = server, count, []
        self.conn = None

    def ask(self, path):
        if self.conn is None:
            self.conn = self.server.connect()
        response = self.server.request("GET", path, conn=self.conn)
        if response.will_close:
            self.conn.close()
            self.conn = None
        return response

    def run(self):
        for number in range(self.count):
            try:
                response = self.ask("/nap" if number % 10 == 0 else "/")
                if response.status != 200:
                    self.wrong.append((number, response))
            except (OSError, AssertionError) as error:
                self.wrong.append((number, repr(error)))
                self.conn = None
            time.sleep(0.005)
        if self.conn is not None:
            self.conn.close()


class Stuck(threading.Thread):
    def __init__(self, server, kinds):
        super().__init__()
        self.server, self.kinds, self.seen = server, kinds, []

    def run(self):
        for kind in self.kinds:
            try:
                self.seen.append(self.server.get("/stuck/" + kind).status)
            except (OSError, AssertionError) as error:
                self.seen.append(repr(error))


@pytest.mark.parametrize("threads", [1, 8])
def test_stuck_among_good(serve, threads):
    """20 requests are stuck, 10 of them in Python and 10 in calls; 1,000 others are not. Each of the
    stuck is answered 504, with its own stack in the log, and none of the others notices."""
    server = serve(APP, "--workers", "2", "--threads", str(threads), "--request-timeout", "10",
                   "--cancel-grace", "0.6")
    kinds = ["spin", "recv", "spin", "lock", "spin", "free", "spin", "hold", "spin", "sleep"] * 2
    good = [Good(server, 100) for _ in range(10)]
    stuck = [Stuck(server, kinds[:10]), Stuck(server, kinds[10:])]
    for thread in good + stuck:
        thread.start()
    for thread in good + stuck:
        thread.join()
    assert [wrong for thread in good for wrong in thread.wrong] == []
    assert [status for thread in stuck for status in thread.seen] == [504] * 20
    assert until(lambda: server.log().count(": not answered within ") == 20)
    assert until(lambda: len(re.findall(r'"GET /(?:nap)? HTTP/1\.1" 200 ', server.stdout())) == 1000)
    assert until(lambda: len(re.findall(r'"GET /stuck/\w+ HTTP/1\.1" 504 ', server.stdout())) == 20)
    log = server.log()
    for kind in set(kinds):
        stacks = re.findall(
            r"error: GET /stuck/%s: not answered [^\n]*most recent call first[^\n]*\n"
            r"(?:[^\n]*  File [^\n]* in [^\n]+\n)+" % kind,
            log,
        )
        assert len(stacks) == kinds.count(kind), kind
        assert all("in %s\n" % kind in stack for stack in stacks), kind
    assert "killed" not in log
    assert "before their end" not in log


# ---- crash reports and stacks


@pytest.mark.skipif(sanitized, reason="a sanitizer reports instead")
@pytest.mark.parametrize("path, name", [("/segfault", "SIGSEGV"), ("/abort", "SIGABRT")])
def test_crash_report(serve, path, name):
    server = serve(APP, "--workers", "1", "--threads", "2")
    with server.connect() as client:
        client.send("GET /other/path?secret=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response().status == 200
        client.send("GET /sleep HTTP/1.1\r\nHost: a\r\n\r\n")
        assert until(lambda: "sleep" in server.get("/begun").text)
        with pytest.raises((ProtocolError, ConnectionResetError)):
            server.get(path + "?secret=1")
    report = server.wait_log(
        r"(?s)\[worker 1 \d+\] critical: the process dies of %s.*\[end of the report\]" % name
    ).group(0)
    assert "C stack of the thread" in report
    assert re.search(r"Current thread 0x[0-9a-f]+ .*\n(?:  File [^\n]*\n)*  File [^\n]*app\.py\", line \d+ in app", report)
    assert len(re.findall(r"^(?:Current t|T)hread 0x", report, re.MULTILINE)) == 2
    requests = report.partition("Requests in the application:\n")[2].splitlines()
    assert sorted(requests[:2]) == sorted(["  GET /sleep", "  GET %s, in the thread that crashed" % path])
    assert "secret" not in report
    server.wait_log(r"worker 1 \(\d+\) was killed by %s" % name)
    assert server.get("/").status == 200
    # What it had answered a moment ago is in the access log.
    assert "GET /other/path" in server.stdout() and "GET /begun" in server.stdout()


def test_a_worker_that_is_killed_is_said_to_have_been_in_a_request(serve, tmp_path):
    control = tmp_path / "control.sock"
    server = serve(APP, "--workers", "1", "--control", control, ready="/", check=False)
    with server.connect() as client:
        client.send("GET /sleep?secret=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        # Those that last are noted.
        assert until(lambda: '"/sleep"' in command(control, "status", "--json").stdout)
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        line = server.wait_log(r"worker 1 \(\d+\) was killed by SIGKILL.*").group(0)
    assert re.search(r"with \d+ connections? open, in GET /sleep for \d+\.\d s; ", line), line


@pytest.mark.skipif(sanitized, reason="a sanitizer reports instead")
def test_faulthandler_of_the_application(serve):
    server = serve(APP, "--workers", "1", check=False)
    with pytest.raises((ProtocolError, ConnectionResetError)):
        server.get("/faulthandler")
    server.wait_log("Fatal Python error: Segmentation fault")
    server.wait_log(r"critical: the process dies of SIGSEGV")
    server.wait_log(r"was killed by SIGSEGV")


@pytest.mark.skipif(sanitized, reason="a sanitizer reports instead")
def test_killed_from_outside_is_told(serve):
    server = serve(APP, "--workers", "1", ready="/")
    os.kill(server.worker_pids()[0], signal.SIGBUS)
    server.wait_log(r"critical: the process dies of SIGBUS, sent by process %d" % os.getpid())
    server.wait_log(r"was killed by SIGBUS")
