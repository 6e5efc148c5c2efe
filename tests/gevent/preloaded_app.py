"""Loaded in the template: with a greenlet of its own, and a name that the thread pool has resolved."""

import json
import os

import gevent
from gevent import monkey, socket

ticks = []
socket.gethostbyname("localhost")


def tick():
    while True:
        gevent.sleep(0.01)
        ticks.append(1)


gevent.spawn(tick)
gevent.sleep(0)


def app(environ, start_response):
    gevent.sleep(0.01)
    resolved = socket.gethostbyname("localhost")
    start_response("200 OK", [])
    return [
        json.dumps(
            {"pid": os.getpid(), "patched": monkey.is_module_patched("socket"), "resolved": resolved, "ticks": len(ticks)}
        ).encode()
    ]
