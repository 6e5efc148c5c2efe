"""Threads, freezing, references, and wsgiref.validate around an application."""
import gc
import os
import sys
import threading
import time
import warnings
from wsgiref.validate import validator

import pytest

pytestmark = pytest.mark.smoke

POST = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
GET = b"GET /p?q HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n"


def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


# ---- threads


def test_one_thread_is_the_main_thread(wsgi):
    seen = []
    assert wsgi.core.run(wsgi.host(plain), 1, lambda i: seen.append((i, threading.current_thread()))) == 0
    assert seen == [(0, threading.main_thread())]


def test_further_threads_are_threading_threads(wsgi):
    seen = {}
    barrier = threading.Barrier(4, timeout=30)

    def work(index):
        thread = threading.current_thread()
        seen[index] = (thread.name, thread.daemon, threading.get_ident())
        barrier.wait()

    assert wsgi.core.run(wsgi.host(plain), 4, work) == 0
    assert sorted(seen) == [0, 1, 2, 3]
    assert seen[0][0] == "MainThread"
    assert sorted(seen[i][0] for i in (1, 2, 3)) == ["stoker-2", "stoker-3", "stoker-4"]
    assert not any(daemon for _, daemon, _ in seen.values())
    assert len({ident for _, _, ident in seen.values()}) == 4
    assert not any(t.name.startswith("stoker-") for t in threading.enumerate())


def test_run_ends_with_the_last_thread(wsgi):
    ended = []

    def work(index):
        time.sleep(0.05 * index)
        ended.append(index)

    wsgi.core.run(wsgi.host(plain), 3, work)
    assert sorted(ended) == [0, 1, 2]


def test_no_thread_runs_when_one_cannot_be_started(wsgi, monkeypatch):
    ran = []
    real = threading.Thread.start

    def start(self):
        if self.name == "stoker-3":
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert wsgi.core.run(wsgi.host(plain), 3, ran.append) < 0
    assert ran == []
    assert "can't start new thread" in wsgi.log()


def test_requests_on_several_threads(wsgi):
    """Calls overlap: each has its own start_response, input and response."""
    barrier = threading.Barrier(3, timeout=30)

    def application(environ, start_response):
        start_response("200 OK", [("X-Path", environ["PATH_INFO"])])
        barrier.wait()
        return [environ["wsgi.input"].read() + environ["PATH_INFO"].encode()]

    host = wsgi.host(application, threads=3)
    results = {}

    def work(index):
        for n in range(20):
            head = b"POST /%d/%d HTTP/1.1\r\nHost: a\r\n\r\n" % (index, n)
            results[index, n] = wsgi.core.request(host, head, [b"body%d" % index], 5)[:2]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (index, n), (head, body) in results.items():
        assert b"X-Path: /%d/%d\r\n" % (index, n) in head
        assert body == b"body%d/%d/%d" % (index, index, n)
    assert len(results) == 60


def test_threads_do_not_mix_their_environs(wsgi):
    """The template is shared: switches of threads at every chance must not show in a copy."""

    class Odd:
        def __del__(self):
            time.sleep(0)

    def application(environ, start_response):
        odd = Odd()
        odd.ring = odd  # for the garbage collector, at any later allocation
        start_response("200 OK", [])
        return [environ["REQUEST_METHOD"].encode(), environ["REQUEST_URI"].encode(),
                environ["HTTP_X_ME"].encode(), environ["QUERY_STRING"].encode()]

    host = wsgi.host(application, threads=3)
    wrong = []

    def work(index):
        for n in range(400):
            method, me = ("GET", "POST", "PUT")[index], "%d-%d" % (index, n % 3)
            uri = "/%s?%s" % (me, me)
            head = "%s %s HTTP/1.1\r\nHost: a\r\nX-Me: %s\r\n\r\n" % (method, uri, me)
            body = wsgi.core.request(host, head.encode())[1]
            if body != (method + uri + me + me).encode():
                wrong.append((head, body))

    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5)
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*threshold)
    assert wrong == []


# ---- freezing


def test_freeze_names_threads(wsgi):
    host = wsgi.host(plain)
    wsgi.core.freeze(host)
    assert wsgi.log() == ""
    assert gc.get_freeze_count() > 0
    gc.unfreeze()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="the poller")
    thread.start()
    wsgi.core.freeze(host)
    gc.unfreeze()
    stop.set()
    thread.join()
    assert "the application started the thread 'the poller' while it was loaded" in wsgi.log()


# ---- references


def scenario_blocks(environ, start_response):
    start_response("200 OK", [("X-A", "1")])
    yield b"a"
    yield b"b"


def scenario_error(environ, start_response):
    raise ValueError("x")


def scenario_wrong(environ, start_response):
    start_response("200 OK", [("X-A", 5)])


def scenario_late_error(environ, start_response):
    write = start_response("200 OK", [])
    write(b"x")
    try:
        raise ValueError("x")
    except ValueError:
        start_response("500 Oops", [], sys.exc_info())


def scenario_input(environ, start_response):
    body = environ["wsgi.input"]
    start_response("200 OK", [])
    return [body.read(3), body.readline(), *body.readlines(), body.read()]


def scenario_kept(environ, start_response):
    environ["loop"] = environ
    environ["start"] = start_response
    start_response("200 OK", [("Content-Length", "1")])
    return [b"x", b"yz"]


def scenario_file(environ, start_response):
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](open(__file__, "rb"))


def scenario_text(environ, start_response):
    start_response("200 OK", [])
    environ["wsgi.errors"].write("line\npart")
    return ["text"]


SCENARIOS = [plain] + [value for name, value in list(globals().items()) if name.startswith("scenario_")]


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("application", SCENARIOS, ids=lambda f: f.__name__)
def test_nothing_is_leaked(wsgi, application):
    host = wsgi.host(application)
    body = [b"line\nanother\n" * 20, b"rest"]
    head = POST % sum(map(len, body))

    def rounds(n):
        for i in range(n):
            wsgi.core.request(host, GET)
            wsgi.core.request(host, head, body, sum(map(len, body)))
            wsgi.core.request(host, head, [body[0]], len(body[0]), host_buffer=True)
            wsgi.core.request(host, head, body, -1, gone_after=0)
        gc.collect()

    rounds(100)
    objects, blocks, memory = len(gc.get_objects()), sys.getallocatedblocks(), rss()
    total = sys.gettotalrefcount() if hasattr(sys, "gettotalrefcount") else 0
    rounds(500)
    assert len(gc.get_objects()) - objects < 20
    assert sys.getallocatedblocks() - blocks < 300
    assert rss() - memory < 4 * 1024 * 1024
    if total:
        assert sys.gettotalrefcount() - total < 300


def test_application_is_dropped_with_its_host(wsgi):
    import weakref

    class Application:
        def __call__(self, environ, start_response):
            return plain(environ, start_response)

    application = Application()
    gone = weakref.ref(application)
    host = wsgi.host(application)
    wsgi.core.request(host, GET)
    del application, host
    gc.collect()
    assert gone() is None


def test_module_can_be_loaded_again_and_goes(wsgi):
    """Multi-phase initialisation: each module object has a state of its own, and dies with it."""
    import importlib.machinery
    import importlib.util
    import weakref

    gone = []
    for _ in range(3):
        loader = importlib.machinery.ExtensionFileLoader("_core", wsgi.core.__spec__.origin)
        core = importlib.util.module_from_spec(importlib.util.spec_from_loader("_core", loader))
        loader.exec_module(core)
        assert core.FileWrapper is not wsgi.core.FileWrapper
        host = core.host()
        sys.modules["again"] = type(sys)("again")
        sys.modules["again"].app = plain
        assert core.load(host, "again") == 0
        assert core.request(host, GET)[1] == b"hello"
        gone.append(weakref.ref(core.FileWrapper))
        gone.append(weakref.ref(core))
        del core, host
    gc.collect()
    assert [ref() for ref in gone] == [None] * 6


# ---- wsgiref.validate


def echo(environ, start_response):
    body = environ["wsgi.input"]
    data = body.readline(5) + body.read(4) + b"".join(body) + body.read(10)
    environ["wsgi.errors"].write("%s\n" % environ["PATH_INFO"])
    environ["wsgi.errors"].flush()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["REQUEST_METHOD"].encode(), b" ", data]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("target", ["/", "/a%20b?x=1", "http://a/x", "*"])
@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
def test_validator(wsgi, method, target, framing):
    if target == "*" and method != "OPTIONS":
        target = "/star"
    fields = {"length": "Content-Length: 22\r\n", "chunked": "Transfer-Encoding: chunked\r\n", "none": ""}
    head = "%s %s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (method, target, fields[framing])
    body = [] if framing == "none" else [b"first line\n", b"second line"]
    arguments = {"length": -1} if framing == "chunked" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = wsgi.call(validator(echo), head.encode(), body, **arguments)
    assert not got.failed, wsgi.log()
    assert got.ended
    assert method == "HEAD" or got.body == method.encode() + b" " + b"".join(body)
