"""What the tests of this folder ask of a WSGI application under gevent: one function a path."""

import contextvars
import gc
import hashlib
import json
import logging
import os
import threading
import time
import urllib.request

import gevent
import gevent.event
import gevent.local
import greenlet
from gevent import monkey

VAR = contextvars.ContextVar("VAR", default="clean")
native_sleep = monkey.get_original("time", "sleep")
local = gevent.local.local()
patched = threading.local()
log = []
events = {}
waiting = {}
held = []


def event(name):
    return events.setdefault(name, gevent.event.Event())


def query(environ):
    return environ["QUERY_STRING"]


def reply(start_response, value, status="200 OK"):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    start_response(status, [("Content-Type", "text/plain")])
    return [body]


def hello(environ, start_response):
    return reply(start_response, b"hello")


def pid(environ, start_response):
    return reply(start_response, os.getpid())


def flags(environ, start_response):
    return reply(start_response, {"multithread": environ["wsgi.multithread"], "patched": monkey.is_module_patched("socket")})


def wait(environ, start_response):
    """Until /set of the same name."""
    name = query(environ)
    waiting[name] = waiting.get(name, 0) + 1
    try:
        event(name).wait()
    finally:
        waiting[name] -= 1
    return reply(start_response, name.encode())


def waiters(environ, start_response):
    return reply(start_response, waiting.get(query(environ), 0))


def set(environ, start_response):
    event(query(environ)).set()
    return reply(start_response, b"set")


def sleep(environ, start_response):
    time.sleep(float(query(environ)))
    return reply(start_response, b"slept")


def until(environ, start_response):
    """There is such a file."""
    while not os.path.exists(query(environ)):
        gevent.sleep(0.01)
    return reply(start_response, b"there")


def until_without_limit(environ, start_response):
    environ["stoker.set_timeout"](0)
    return until(environ, start_response)


def block(environ, start_response):
    """Holds the whole thread up: for a time, or until there is a file."""
    if query(environ)[0] == "/":
        while not os.path.exists(query(environ)):
            native_sleep(0.01)
    else:
        native_sleep(float(query(environ)))
    return reply(start_response, b"blocked")


def block_late(environ, start_response):
    """The same, once the request has waited."""
    gevent.sleep(0)
    return block(environ, start_response)


# ---- bodies -------------------------------------------------------------------------------------


def digest(environ, start_response):
    body = environ["wsgi.input"].read()
    return reply(start_response, {"length": len(body), "sha": hashlib.sha256(body).hexdigest()})


def digest_late(environ, start_response):
    """Reads in parts, with a turn of the hub between them."""
    sha, length = hashlib.sha256(), 0
    while True:
        gevent.sleep(0)
        part = environ["wsgi.input"].read(10000)
        if not part:
            break
        sha.update(part)
        length += len(part)
    return reply(start_response, {"length": length, "sha": sha.hexdigest()})


def lines(environ, start_response):
    found = []
    for line in environ["wsgi.input"]:
        found.append(line.decode())
        log.append("line")
    return reply(start_response, found)


def by_child(environ, start_response):
    """Another greenlet reads the body."""
    child = gevent.spawn(environ["wsgi.input"].read)
    child.join()
    return reply(start_response, child.value)


def child_outlives(environ, start_response):
    """Another greenlet still waits for the body when the request ends."""

    def read():
        try:
            environ["wsgi.input"].read()
        except Exception as error:
            log.append(type(error).__name__)

    gevent.spawn(read)
    gevent.sleep(0)
    return reply(start_response, b"left")


def kept_input(environ, start_response):
    """Kept, and read by the next request."""
    if held:
        return reply(start_response, held.pop().read())
    held.append(environ["wsgi.input"])
    return reply(start_response, b"kept")


# ---- responses ----------------------------------------------------------------------------------


class Closing:
    """An iterable that notes where it is closed."""

    def __init__(self, blocks):
        self.blocks = iter(blocks)
        self.greenlet = gevent.getcurrent()

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.blocks)

    def close(self):
        log.append("closed" if gevent.getcurrent() is self.greenlet else "closed elsewhere")


def stream(environ, start_response):
    def blocks():
        for i in range(5):
            gevent.sleep(0)
            yield b"%d\n" % i

    start_response("200 OK", [])
    return Closing(blocks())


def endless(environ, start_response):
    """Until nobody takes it; how many blocks were asked for is noted."""
    start_response("200 OK", [])

    def blocks():
        while True:
            log.append("block")
            yield b"x" * 65536

    return Closing(blocks())


def written(environ, start_response):
    write = start_response("200 OK", [])
    for i in range(3):
        write(b"%d\n" % i)
        gevent.sleep(0)
    return [b"end\n"]


def written_much(environ, start_response):
    write = start_response("200 OK", [])
    for i in range(100):
        write(b"x" * 65536)
        log.append("block")
    return []


def file(environ, start_response):
    gevent.sleep(0)
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](open(__file__, "rb"))


def length(environ, start_response):
    gevent.sleep(0)
    start_response("200 OK", [("Content-Length", "10")])
    return [b"x" * 10]


def again(environ, start_response):
    """The head is replaced, in the later step of another greenlet's turn."""
    start_response("200 OK", [("X-One", "1")])
    gevent.sleep(0)
    try:
        raise ValueError("replaced")
    except ValueError:
        import sys

        start_response("500 Replaced", [("X-Two", "2")], sys.exc_info())
    gevent.sleep(0)
    return [b"replaced"]


# ---- mistakes and ends --------------------------------------------------------------------------


def fails(environ, start_response):
    raise ValueError("at once")


def fails_late(environ, start_response):
    gevent.sleep(0)
    raise ValueError("later on")


def fails_in_stream(environ, start_response):
    def blocks():
        yield b"begun"
        gevent.sleep(0)
        raise ValueError("in the stream")

    start_response("200 OK", [])
    return Closing(blocks())


def exits(environ, start_response):
    if query(environ):
        gevent.sleep(0)
    raise greenlet.GreenletExit


def system_exit(environ, start_response):
    if query(environ):
        gevent.sleep(0)
    raise SystemExit(3)


def killed(environ, start_response):
    """By another greenlet."""
    held.append(gevent.getcurrent())
    log.append("begun")
    try:
        event("never").wait()
    finally:
        log.append("cleaned up")


def kill(environ, start_response):
    held.pop().kill()
    return reply(start_response, b"killed")


def cancel_told(environ, start_response):
    log.append("begun")
    try:
        event("never").wait()
    except BaseException as error:
        log.append(type(error).__name__)
        raise


def cancel_caught(environ, start_response):
    try:
        event("never").wait()
    except BaseException as error:
        log.append(type(error).__name__)
    gevent.sleep(0)
    log.append("went on")
    return reply(start_response, b"too late")


def disconnected(environ, start_response):
    assert environ["stoker.disconnected"]() is False
    log.append("asks")
    while not environ["stoker.disconnected"]():
        gevent.sleep(0.005)
    log.append("gone")
    return []


def disconnected_elsewhere(environ, start_response):
    def ask():
        try:
            return environ["stoker.disconnected"]()
        except RuntimeError as error:
            return str(error)

    child = gevent.spawn(ask)
    child.join()
    return reply(start_response, child.value)


def set_timeout(environ, start_response):
    environ["stoker.set_timeout"](0.2)
    event("never").wait()


def forks(environ, start_response):
    """A child that returns into the server."""
    gevent.sleep(0)
    child = monkey.get_original("os", "fork")()
    if child:
        os.waitpid(child, 0)
    return reply(start_response, b"parent" if child else b"child")


def subprocess(environ, start_response):
    import subprocess as module

    return reply(start_response, module.check_output(["echo", "from a child"]))


# ---- what greenlets share -----------------------------------------------------------------------


def isolated(environ, start_response):
    """What of other requests is seen, before it is written to."""
    found = [getattr(local, "x", None), getattr(patched, "x", None), VAR.get()]
    found.append(sorted(vars(gevent.getcurrent())) if not found[0] else None)
    local.x = patched.x = query(environ)
    VAR.set(query(environ))
    gevent.getcurrent().spawn_tree_locals["x"] = query(environ)
    gevent.getcurrent().remark = query(environ)
    if query(environ) == "wait":
        gevent.sleep(0.01)
    same = [local.x, patched.x, VAR.get()] == [query(environ)] * 3
    return reply(start_response, found[:3] + [same])


def tree(environ, start_response):
    found = dict(gevent.getcurrent().spawn_tree_locals)
    gevent.getcurrent().spawn_tree_locals["x"] = 1
    gevent.spawn(gevent.sleep, 0.01)
    return reply(start_response, found)


def ident(environ, start_response):
    """Of the greenlet; whether anybody held it is seen by the next."""
    if query(environ) == "hold":
        held.append(gevent.getcurrent())
    if query(environ) == "log":
        logging.getLogger("x").warning("a record, for which a thread is made up")
    return reply(start_response, id(gevent.getcurrent()))


def threads(environ, start_response):
    return reply(start_response, len(threading.enumerate()))


def linked(environ, start_response):
    gevent.getcurrent().link(lambda g: log.append("linked"))
    return reply(start_response, b"linked")


def left_timer(environ, start_response):
    """A timeout that nobody cancels hits no later request."""
    gevent.Timeout(0.05).start()
    return reply(start_response, b"started")


def fetch(environ, start_response):
    with urllib.request.urlopen(query(environ)) as answer:
        return reply(start_response, answer.read())


def events_log(environ, start_response):
    return reply(start_response, log)


def forget(environ, start_response):
    del log[:]
    del held[:]
    gc.collect()
    return reply(start_response, b"forgotten")


def app(environ, start_response):
    return globals()[environ["PATH_INFO"][1:]](environ, start_response)
