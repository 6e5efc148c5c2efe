"""Waits for what an application of this folder says of itself."""

import time


def wait_until(condition, what):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def wait_for(server, *words):
    """Until the application has noted these."""
    wait_until(lambda: all(word in server.get("/events_log").json() for word in words), words)


def wait_for_waiters(server, name, count):
    wait_until(lambda: server.get("/waiters?" + name).json() == count, (name, count))
