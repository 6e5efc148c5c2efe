"""How late a timer fires while many requests are ready.

The server is stopped (SIGSTOP) while the requests are sent, so that all of them are ready in the same
moment, whatever it can do in the time that a client needs to send them. The application's timer fires
each millisecond and notes when; of the time from one to the next, or from the continuation, is
taken what the handlers took meanwhile, and the millisecond itself.
"""

import json
import os
import signal
import socket
import time

from .wrk import ClientError

PERIOD = 0.001
IDLE = 0.3
REQUEST = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
STATUS = b"HTTP/1.1 200"


def measure(server, count):
    """The figures of one round, in milliseconds."""
    clients = [socket.create_connection(("127.0.0.1", server.port), timeout=30)
               for _ in range(count)]
    try:
        for client in clients:
            _ask(client, b"/")
        _ask(clients[0], b"/ticks")
        began = time.monotonic()
        time.sleep(IDLE)
        figures = {"idle_ms": _worst(clients[0], began)}
        for name, path in (("ready_ms", b"/"), ("spin_ms", b"/spin")):
            figures[name] = _burst(server, clients, REQUEST % path, 1)
        figures["piece_ms"] = _burst(server, clients[:1], (REQUEST % b"/") * count, count)
    except OSError as error:
        raise ClientError(f"does not answer {count} requests: {error}") from None
    finally:
        for client in clients:
            client.close()
    figures["beyond_ms"] = max(figures["ready_ms"], figures["spin_ms"], figures["piece_ms"])
    return figures


def _burst(server, clients, data, answers):
    """Sends the same to all while the server stands still; how late its timer is then."""
    pids = server.process.tree()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for client in clients:
            client.sendall(data)
    finally:
        began = time.monotonic()
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)
    for client in clients:
        _read(client, answers)
    return _worst(clients[0], began)


def _worst(client, began):
    """The most that the timer has been late since `began`."""
    time.sleep(5 * PERIOD)
    ticks = json.loads(_ask(client, b"/ticks"))
    late = [then - max(before, began) - (used - used_before) - PERIOD
            for (before, used_before), (then, used) in zip(ticks, ticks[1:]) if then > began]
    if not late:
        raise ClientError("its timer does not fire")
    return max(0.0, *late) * 1000


def _read(client, answers):
    """Reads so many answers of the same kind; all that has come."""
    data = b""
    while data.count(STATUS) < answers or not data.endswith(b"Hello, World!\n"):
        piece = client.recv(1 << 18)
        if not piece:
            raise ClientError(f"closes after {data.count(STATUS)} of {answers} requests")
        data += piece


def _ask(client, path):
    """The body of the answer to one request."""
    client.sendall(REQUEST % path)
    data = b""
    while True:
        piece = client.recv(1 << 18)
        if not piece:
            raise ClientError("closes instead of answering")
        data += piece
        head, end, body = data.partition(b"\r\n\r\n")
        if not end:
            continue
        lengths = [line.partition(b":")[2] for line in head.lower().split(b"\r\n")
                   if line.startswith(b"content-length:")]
        if not lengths:
            raise ClientError("answers without Content-Length")
        if len(body) >= int(lengths[0]):
            return body
