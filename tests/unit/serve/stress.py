#!/usr/bin/env python3
"""Drives echo_server with a mix of everything, resets included, and checks every byte.

    stress.py ECHO_SERVER [--seconds N] [--threads N] [--no-takeover] [--clients N] [--seed N]

Not a unit test: run it against a build with -Db_sanitize=address,undefined or thread. The exit code
is 0 when no answer was wrong, the server ended with 0, and its error log has no sanitizer report.
"""
import argparse
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

PATTERN = bytes(33 + (i ^ i >> 7 ^ i >> 13) % 90 for i in range(1 << 21))
HELLO = b"Hello, World!"


class Gone(Exception):
    """The connection ended where it may."""


class Client:
    def __init__(self, port, rng):
        self.rng = rng
        self.sock = socket.socket()
        if rng.random() < 0.2:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.settimeout(60)
        self.sock.connect(("127.0.0.1", port))
        self.buf = b""

    def fill(self):
        data = self.sock.recv(self.rng.choice((100, 4096, 65536)))
        if not data:
            raise Gone
        self.buf += data

    def take(self, n):
        parts, have = [self.buf], len(self.buf)
        while have < n:
            data = self.sock.recv(min(1 << 20, n - have))
            if not data:
                raise Gone
            parts.append(data)
            have += len(data)
        whole = b"".join(parts)
        self.buf = whole[n:]
        return whole[:n]

    def line(self, end=b"\r\n"):
        while end not in self.buf:
            self.fill()
        line, self.buf = self.buf.split(end, 1)
        return line

    def reply(self, head=False):
        lines = self.line(b"\r\n\r\n").split(b"\r\n")
        status = int(lines[0].split()[1])
        fields = dict(line.lower().split(b": ", 1) for line in lines[1:])
        if head or status < 200:
            return status, fields, b""
        if b"transfer-encoding" in fields:
            body = []
            while True:
                n = int(self.line(), 16)
                piece = self.take(n + 2)
                assert piece[n:] == b"\r\n", piece[n:]
                if n == 0:
                    return status, fields, b"".join(body)
                body.append(piece[:n])
        return status, fields, self.take(int(fields[b"content-length"]))

    def send(self, data):
        if self.rng.random() < 0.2 and len(data) > 1:
            cut = self.rng.randrange(1, len(data))
            self.sock.sendall(data[:cut])
            time.sleep(self.rng.random() * 0.003)
            data = data[cut:]
        self.sock.sendall(data)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def chunked(rng, body):
    out, at = [], 0
    while at < len(body):
        n = min(rng.choice((1, 7, 1000, 40000)), len(body) - at)
        out.append(b"%x\r\n%s\r\n" % (n, body[at : at + n]))
        at += n
    return b"".join(out) + b"0\r\n\r\n"


def make_request(rng):
    """The bytes of a request, and what the body of its answer must be (None: a status of 400)."""
    kind = rng.randrange(12)
    if kind < 4:
        return b"GET / HTTP/1.1\r\nHost: t\r\n\r\n", HELLO
    if kind == 4:
        path = rng.choice((b"/sleep", b"/spin"))
        return b"GET %s HTTP/1.1\r\nHost: t\r\n\r\n" % path, HELLO
    if kind == 5:
        n = rng.choice((1, 30))
        return b"GET /lines/%d HTTP/1.1\r\nHost: t\r\n\r\n" % n, PATTERN[: n * 1024]
    if kind == 6:
        n = rng.choice((1, 30))
        return b"GET /blocks/%d HTTP/1.1\r\nHost: t\r\n\r\n" % n, PATTERN[: n * 65536]
    if kind == 7:
        n = rng.choice((1, 1000, 16384, 70000, 2000000))
        return b"GET /size/%d HTTP/1.1\r\nHost: t\r\n\r\n" % n, PATTERN[:n]
    if kind == 8:
        n = rng.choice((1, 100000, 2000000))
        return b"GET /file/%d HTTP/1.1\r\nHost: t\r\n\r\n" % n, PATTERN[:n] + b"end"
    body = PATTERN[: rng.choice((0, 1, 5000, 65536, 1000000, 2000000))]
    if kind == 9:
        return b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(
            rng, body
        ), body
    if kind == 10 or rng.random() < 0.8:
        head = b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body)
        return head + body, body
    return b"nonsense\r\n\r\n", None


def converse(port, rng, stats):
    client = Client(port, rng)
    try:
        for _ in range(rng.randrange(1, 12)):
            batch = [make_request(rng) for _ in range(rng.choice((1, 1, 1, 2, 5, 16)))]
            fate = rng.random()
            data = b"".join(request for request, _ in batch)
            if fate < 0.08:
                client.send(data[: rng.randrange(len(data) + 1)])
                if rng.random() < 0.5:
                    time.sleep(rng.random() * 0.02)
                client.reset()
                stats["resets"] += 1
                return
            # Sending and receiving at once: both sides may be full.
            sender = threading.Thread(target=send_quietly, args=(client, data))
            sender.start()
            try:
                for _, expected in batch:
                    status, fields, body = client.reply()
                    stats["answers"] += 1
                    if expected is None:
                        assert status == 400, status
                        return
                    assert status == 200, status
                    assert body == expected, "%d bytes, expected %d" % (len(body), len(expected))
                    if rng.random() < 0.02:
                        time.sleep(0.05)
            finally:
                sender.join()
    finally:
        client.sock.close()


def send_quietly(client, data):
    try:
        client.send(data)
    except OSError:
        pass  # the server has answered 400 and closed


def run_client(port, seed, end, stats, errors):
    rng = random.Random(seed)
    while time.monotonic() < end and not errors:
        try:
            converse(port, rng, stats)
        except Exception as e:  # noqa: BLE001 - any failure of a client is a finding
            errors.append("%s: %s" % (type(e).__name__, e))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--no-takeover", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [args.server, str(port), str(args.threads)] + ["no-takeover"] * args.no_takeover
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stderr=log)
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            stats, errors = {"answers": 0, "resets": 0}, []
            end = time.monotonic() + args.seconds
            clients = [
                threading.Thread(
                    target=run_client, args=(port, args.seed * 1000 + i, end, stats, errors)
                )
                for i in range(args.clients)
            ]
            for t in clients:
                t.start()
            for t in clients:
                t.join()
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
        finally:
            if server.poll() is None:
                server.kill()
        log.seek(0)
        text = log.read().decode(errors="replace")
    print("%(answers)d answers, %(resets)d resets" % stats, "exit code %d" % code)
    for error in errors:
        print("error:", error)
    if code != 0 or "anitizer" in text or "runtime error" in text:
        sys.stdout.write(text[-20000:])
        return 1
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
