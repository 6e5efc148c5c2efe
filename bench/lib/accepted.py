"""The instructions of requests that come as a front end sends them, one connection each.

A server with default options runs under callgrind, which counts within server_on_accept() alone:
there a connection is taken, its request read, answered and logged, and the connection closed. So
neither start and end of the server nor its other threads are counted, and a run gives the same
number twice, within one per cent. The kernel's part is not in it.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import time

BATCH = 50  # connections opened before the first answer is read
START = 60.0
HELLO = b"Hello, World!\n"
APPLICATION = """def hello(environ, start):
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "14")])
    return [b"Hello, World!\\n"]
"""
CALLGRIND = """--tool=callgrind
--trace-children=yes
--toggle-collect=server_on_accept
--callgrind-out-file={folder}/out.%p
"""


def variables(number):
    """What nginx's uwsgi_params tell of the request of one of 64 clients."""
    return [
        ("QUERY_STRING", ""), ("REQUEST_METHOD", "GET"), ("CONTENT_TYPE", ""),
        ("CONTENT_LENGTH", ""), ("REQUEST_URI", "/"), ("PATH_INFO", "/"),
        ("DOCUMENT_ROOT", "/usr/share/nginx/html"), ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"), ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", str(30000 + number % 64 * 2)), ("SERVER_PORT", "8000"),
        ("SERVER_NAME", "localhost"), ("HTTP_HOST", "127.0.0.1:8000"),
    ]


def uwsgi(number):
    """A packet of uwsgi."""
    packed = b"".join(struct.pack("<H", len(text)) + text.encode()
                      for pair in variables(number) for text in pair)
    return b"\0" + struct.pack("<H", len(packed)) + b"\0" + packed


def scgi(number):
    """A request of SCGI, which begins with the length of a body."""
    pairs = [("CONTENT_LENGTH", "0"), ("SCGI", "1")]
    pairs += [pair for pair in variables(number) if pair[0] != "CONTENT_LENGTH"]
    packed = b"".join(text.encode() + b"\0" for pair in pairs for text in pair)
    return b"%d:%s," % (len(packed), packed)


def fastcgi(number):
    """The records of a request of FastCGI on a connection of its own."""
    packed = b"".join(bytes([len(name), len(value)]) + name.encode() + value.encode()
                      for name, value in variables(number))
    records = [(1, struct.pack(">HB5x", 1, 0)), (4, packed), (4, b""), (5, b"")]
    return b"".join(struct.pack(">BBHHBx", 1, kind, 1, len(data), 0) + data
                    for kind, data in records)


def http(number):
    """HTTP/1.1 that ends its connection."""
    return b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nConnection: close\r\n\r\n"


PROTOCOLS = {"uwsgi": uwsgi, "scgi": scgi, "fastcgi": fastcgi, "http": http}


def ask(path, make, count):
    """Sends `count` requests and checks their answers."""
    for begin in range(0, count, BATCH):
        clients = []
        for number in range(begin, min(begin + BATCH, count)):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(START)
            client.connect(path)
            client.sendall(make(number))
            clients.append(client)
        for client in clients:
            answer = b""
            while piece := client.recv(65536):
                answer += piece
            client.close()
            if HELLO not in answer:
                raise SystemExit("bench/instructions: unexpected answer: %r" % answer)


def package(folder, build, sources):
    """A package of the sources with the module of a build, as if it were installed."""
    suffix = ".cpython-%d%d-" % sys.version_info[:2]
    cores = [entry.path for entry in os.scandir(build)
             if entry.name.startswith("_core") and entry.name.endswith(".so")
             and suffix in entry.name] if os.path.isdir(build) else []
    if not cores:
        raise SystemExit("bench/instructions: no _core of this interpreter in %s: build it "
                         "(meson setup %s -Dpython=%s; ninja -C %s), or name another by --build"
                         % (build, build, sys.executable, build))
    target = os.path.join(folder, "stoker")
    os.mkdir(target)
    for name in os.listdir(sources):
        if name.endswith(".py"):
            os.symlink(os.path.join(sources, name), os.path.join(target, name))
    os.symlink(os.path.abspath(cores[0]), os.path.join(target, os.path.basename(cores[0])))


def await_socket(process, path):
    """Until it takes connections."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
                return
            except OSError:
                time.sleep(0.1)
    raise SystemExit("bench/instructions: the server did not start under valgrind")


def collected(folder):
    """The sum of what the processes have counted."""
    total = 0
    for name in os.listdir(folder):
        if name.startswith("out."):
            with open(os.path.join(folder, name), encoding="ascii", errors="replace") as lines:
                total += sum(int(line.split()[1]) for line in lines if line.startswith("totals:"))
    return total


def measure(folder, build, sources, protocol, count):
    """Instructions a request; `folder` is empty and ours."""
    package(folder, build, sources)
    path = os.path.join(folder, "socket")
    # Not as arguments: these lie where the server writes its title.
    for name, text in ((".valgrindrc", CALLGRIND.format(folder=folder)), ("app.py", APPLICATION)):
        with open(os.path.join(folder, name), "w", encoding="ascii") as stream:
            stream.write(text)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "STOKER"))}
    environment.update(PYTHONPATH=folder, PYTHONHASHSEED="0")
    with open(os.path.join(folder, "log"), "wb") as log:
        process = subprocess.Popen(
            ["valgrind", "--tool=callgrind", sys.executable, "-m", "stoker", "app:hello", "--bind",
             "%s://unix:%s" % (protocol, path), "--workers", "1", "--access-log", "access.log"],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        await_socket(process, path)
        ask(path, PROTOCOLS[protocol], count)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START)
    return collected(folder) / count
