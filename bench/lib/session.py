"""One run of the benchmark: ports, scratch files, started servers, and interleaved rounds."""

import dataclasses
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time

from . import nginx, paths, servers
from .procs import Placement, Process
from .wrk import ClientError, run_wrk

PORTS = range(22000, 23000)
START_TIMEOUT = 20.0
LOG_KEPT = 1 << 20
EXPECTED = {  # bytes of body that each application answers with; None: by its own head
    "apps:hello": 14, "apps:document": None, "apps:body100k": 100_000, "apps:stream": 65_536,
    "apps:upload": None, "apps:two_blocks": 2048, "apps:sleep1ms": 14,
    "apps_asgi:hello": 14, "apps_asgi:context": 14, "apps_asgi:timer": 14,
    "apps_asgi:document": None,
    "apps_asgi:body100k": 100_000, "apps_asgi:stream": 65_536, "apps_asgi:echo": None,
    "apps_asgi:upload": None, "apps_asgi:sleep0": 14, "apps_asgi:sleep1ms": 14,
    "apps_asgi:compute2ms": 14, "app_fastapi:app": None, "apps_asgi:websocket": 14,
    "apps:compute2ms": 14, "apps:fair": 14, "app_flask:app": 14,
}


class StartError(Exception):
    """A server that does not start, or answers wrongly."""


class Running:
    """A started server of one Spec."""

    def __init__(self, spec, process, port, connections):
        self.spec = spec
        self.process = process
        self.front = None  # the process of a front end, to which `port` belongs then
        self.port = port
        self.connections = connections


class Session:
    """Starts, measures and stops; everything it started is gone when the `with` block ends."""

    def __init__(self, options, python, state):
        self.options = options
        self.python = python
        self.venv = paths.venv_of(python)
        self.state = state
        self.placements = {mode: Placement(mode) for mode in ("one", "none")}
        self.scratch = tempfile.mkdtemp(prefix="stoker-bench-")
        self.processes = []
        self.companions = {}  # front ends, by the process that they are in front of
        self.next_port = 0
        self.answer_size = 0
        self.spin = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in list(self.processes):
            self.stop(process)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def placement(self, scenario):
        """Where this scenario's processes run."""
        mode = self.options.pin if self.options.pin != "auto" else scenario.pin
        return self.placements[mode]

    def free_port(self):
        """The next port of our range that nobody listens on."""
        for _ in PORTS:
            port = PORTS[self.next_port % len(PORTS)]
            self.next_port += 1
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    continue
        raise SystemExit("bench: no free port from 22000 to 22999")

    def environment(self):
        """A clean environment: nothing of the caller's configures a server."""
        keep = ("HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "USER")
        env = {name: os.environ[name] for name in keep if name in os.environ}
        env["PATH"] = os.path.join(self.venv, "bin") + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin"
        env["PYTHONPATH"] = paths.BENCH
        if self.spin:
            env["BENCH_SPIN"] = str(self.spin)
        return env

    def spawn(self, argv, placement, log=None, **pipes):
        """Starts a process that is stopped with the session at the latest."""
        process = Process(argv, placement, cwd=paths.BENCH, env=self.environment(), log=log,
                          **pipes)
        self.processes.append(process)
        return process

    def stop(self, process):
        """Stops a process of spawn(), and the front end before it."""
        if process in self.companions:
            self.stop(self.companions.pop(process))
        process.stop()
        if process in self.processes:
            self.processes.remove(process)

    def calibrate(self):
        """How many turns of apps.spin() take 2 ms: the same work for every server of a run."""
        code = ("import apps, time\n"
                "best = 1.0\n"
                "for _ in range(9):\n"
                "    start = time.perf_counter(); apps.spin(100000)\n"
                "    best = min(best, time.perf_counter() - start)\n"
                "print(int(100000 * 0.002 / best))\n")
        done = subprocess.run([os.path.join(self.venv, "bin", "python"), "-c", code],
                              env=self.environment(), stdout=subprocess.PIPE, timeout=60,
                              check=True)
        self.spin = int(done.stdout)

    def start(self, spec, scenario):
        """Starts a server without waiting for it."""
        family = servers.FAMILIES[spec.family]
        connections = scenario.connections
        if family.one_each and "close=1" not in scenario.wrk and not scenario.front:
            connections = min(connections, spec.threads * spec.workers)
        port = self.free_port()
        setting = servers.Setting(
            app=scenario.app, port=port, venv=self.venv, scratch=self.scratch,
            connections=connections, close="close=1" in scenario.wrk, answer=self.answer_size,
            body=scenario.body, listen=f"127.0.0.1:{port}",
            road=family.road(scenario.front) if scenario.front else "",
            static=self.files(scenario.static) if scenario.static else "",
            tls=nginx.certificate(self.scratch) if scenario.tls else ())
        if scenario.unix:
            setting.listen = setting.file("socket")
        argv = family.build(self.peer_log(spec), setting)
        process = self.spawn(argv, self.placement(scenario), log=setting.file("output"))
        running = Running(spec, process, port, connections)
        if scenario.front:
            running.port = self.free_port()
            running.front = self.spawn(nginx.front(setting, running.port),
                                       self.placement(scenario), log=setting.file("front-output"))
            self.companions[process] = running.front
        return running

    def files(self, size):
        """A directory with a file `size` of so many bytes."""
        folder = os.path.join(self.scratch, "static")
        os.makedirs(folder, exist_ok=True)
        os.chmod(self.scratch, 0o755)  # nginx's worker is another user where it was not told
        path = os.path.join(folder, str(size))
        if not os.path.exists(path):
            with open(path, "wb") as stream:
                stream.write(b"0123456789abcdef" * (size // 16) + b"x" * (size % 16))
        return folder

    def empty_logs(self, port):
        """Cuts what a server has logged so far (all append), so that logs never fill the disk."""
        for name in os.listdir(self.scratch):
            if name.startswith(f"{port}-") and name.endswith((".log", "-output")):
                path = os.path.join(self.scratch, name)
                if os.path.getsize(path) > LOG_KEPT:
                    os.truncate(path, 0)

    def peer_log(self, spec):
        """The Spec with its access log in the state that was asked for."""
        if spec.family in servers.OWN or self.options.peer_log == "on":
            return spec
        return dataclasses.replace(spec, log=False)

    def start_ready(self, spec, scenario):
        """Starts a server, waits until it answers, and checks the answer."""
        running = self.start(spec, scenario)
        try:
            self.await_answer(running, scenario)
            self.check_answer(running, scenario)
        except BaseException:
            self.stop(running.process)
            raise
        return running

    def await_answer(self, running, scenario, pause=0.01):
        """Returns when a GET is answered with 200."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if first_answer(running.port, scenario.path, scenario.tls, closes(running)):
                return
            if not running.process.alive():
                break
            time.sleep(pause)
        raise StartError("does not start: " + (running.process.last_words() or "no message"))

    def check_answer(self, running, scenario):
        """Whether the body is the application's; a wrong answer is no measurement."""
        body = None
        for argument in scenario.wrk:
            if argument.startswith("body="):
                body = b"x" * int(argument[5:])
        client = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        if scenario.tls:
            client = http.client.HTTPSConnection("127.0.0.1", running.port, timeout=10,
                                                 context=unverified())
        try:
            client.request("POST" if body else "GET", scenario.path, body=body,
                           headers={"Connection": "close"} if closes(running) else {})
            answer = client.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise StartError(f"gives no answer: {error!r}") from None
        finally:
            client.close()
        expected = scenario.static or EXPECTED[scenario.app]
        if body and scenario.app.endswith(":echo"):
            expected = len(body)
        elif body:
            expected = len(f"{len(body)}\n")
        if answer.status != 200 or (expected is not None and len(content) != expected):
            raise StartError(f"answers {answer.status} with {len(content)} bytes, not 200 with "
                             f"{expected}")

    def measure(self, running, scenario, seconds):
        """One round: the figures of wrk and the server's CPU and memory."""
        self.empty_logs(running.port)
        before = running.process.cpu_ns()
        front_before = running.front.cpu_ns() if running.front else 0
        figures = run_wrk(running.port, running.connections, seconds, scenario.wrk,
                          self.placement(scenario), scenario.path, scenario.tls)
        used = running.process.cpu_ns() - before
        front = {}
        if running.front:
            both = used + running.front.cpu_ns() - front_before
            front = {"front_us": (both - used) / 1000 / max(figures["requests"], 1),
                     "total_us": both / 1000 / max(figures["requests"], 1)}
        if not running.process.alive():
            raise ClientError("ended during the round: " + running.process.last_words())
        if figures["requests"] == 0:
            raise ClientError("no request was answered on a kept-alive connection")
        return {
            "cpu_us": used / 1000 / figures["requests"],
            "rps": figures["requests"] * 1e6 / figures["us"],
            "p50_ms": figures["p50"] and figures["p50"] / 1000,
            "p99_ms": figures["p99"] and figures["p99"] / 1000,
            "pss_mb": running.process.pss_kb() / 1024,
            "requests": figures["requests"],
            "errors": figures["errors"],
            "connections": running.connections,
            **front,
        }


def unverified():
    """A TLS context for a certificate that nobody signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def closes(running):
    """Whether it can be asked to close a connection."""
    return servers.FAMILIES[running.spec.family].survives_close


def first_answer(port, path="/", tls=False, close=True):
    """Whether something on this port answers a GET with 200 now."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            if tls:
                client = unverified().wrap_socket(client)
            client.sendall(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n"
                           % (path.encode(), b"Connection: close\r\n" if close else b""))
            return client.recv(65536).startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))
    except OSError:
        return False


def answer_size(port):
    """Bytes of a whole keep-alive answer, head and body."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        data = b""
        while not data.endswith(b"Hello, World!\n"):
            piece = client.recv(65536)
            if not piece:
                return 0
            data += piece
        return len(data)


def setup_state(venv):
    """What bench/setup wrote: name to [version, reason]."""
    try:
        with open(os.path.join(venv, "bench-setup.json"), encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return {}
