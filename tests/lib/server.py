"""A real server process for tests, and a client that works on bytes.

``Server`` starts ``python -m stoker`` (STOKER_TEST_COMMAND replaces the command) on a free port,
waits until it accepts, and on ``stop()`` checks that SIGTERM ended it well: exit code 0, no sanitizer
report, no failed assertion, no traceback of the server's own. Output goes to files, so that a server
is never blocked by its test. ``Connection`` sends bytes as they are and parses what comes back by
RFC 9112, and by nothing laxer than that.
"""

from __future__ import annotations

import fcntl
import json as json_module
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

START_SECONDS = 30.0
STOP_SECONDS = 45.0
IO_SECONDS = 20.0

# What must not be in the log of any server, whatever the test does with it.
FATAL_OUTPUT = re.compile(
    r"ERROR: AddressSanitizer|WARNING: ThreadSanitizer|ERROR: LeakSanitizer|ERROR: UndefinedBehavior"
    r"|: runtime error: |AddressSanitizer:DEADLYSIGNAL|Fatal Python error|: assertion failed: "
)


class ServerError(AssertionError):
    """The server did not start, stop or behave; the message carries its output."""


class ProtocolError(AssertionError):
    """What came back is not HTTP/1.1, or ended too early."""


# Below the ports that the kernel gives to clients, so that no connection can be in the way.
PORTS = range(20480, 32000)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on, and that no other test, nor process of tests, was given lately."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    path = os.path.join(tempfile.gettempdir(), "stoker-test-ports-%d" % os.getuid())
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        text = os.pread(fd, 16, 0)
        last = int(text) if text.isdigit() else 0
        for step in range(1, len(PORTS)):
            port = PORTS[(last + step) % len(PORTS)]
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind((host, port))
                except OSError:
                    continue
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d" % ((last + step) % len(PORTS)), 0)
            return port
    finally:
        os.close(fd)
    raise ServerError("no port is free")


class Response:
    """One response: ``status``, ``reason``, ``version``, ``headers`` (pairs, as sent), ``body``.

    ``interim`` holds the 1xx responses before it, ``trailers`` the fields after a chunked body,
    ``chunks`` the sizes of its chunks, ``framing`` is "none", "length", "chunked" or "close".
    """

    def __init__(self, version: str, status: int, reason: str, headers: List[Tuple[str, str]]):
        self.version = version
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = b""
        self.framing = "none"
        self.chunks: List[int] = []
        self.trailers: List[Tuple[str, str]] = []
        self.interim: List["Response"] = []

    def all(self, name: str) -> List[str]:
        """All values of a field, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str, default: Optional[str] = None) -> Optional[str]:
        """The value of a field that must not be there twice."""
        values = self.all(name)
        if len(values) > 1:
            raise ProtocolError("field %s came %d times: %r" % (name, len(values), values))
        return values[0] if values else default

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    def json(self):
        return json_module.loads(self.body)

    @property
    def will_close(self) -> bool:
        """Whether the server said that it closes the connection behind this response."""
        tokens = ",".join(self.all("connection")).lower().replace(" ", "").split(",")
        if self.version == "HTTP/1.0":
            return "keep-alive" not in tokens
        return "close" in tokens

    def __repr__(self) -> str:
        return "<Response %s %d %s %r %d bytes>" % (
            self.version,
            self.status,
            self.reason,
            self.headers,
            len(self.body),
        )


class Connection:
    """A TCP or unix connection on which bytes are sent as they are."""

    def __init__(self, address, timeout: float = IO_SECONDS):
        if isinstance(address, str):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(timeout)
            self.sock.connect(address)
        else:
            self.sock = socket.create_connection(address, timeout)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.eof = False

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def fileno(self) -> int:
        return self.sock.fileno()

    def settimeout(self, timeout: float) -> None:
        self.sock.settimeout(timeout)

    def send(self, data: Union[bytes, str]) -> None:
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def send_slowly(self, data: bytes, size: int = 1, pause: float = 0.001) -> None:
        """Sends `size` bytes at a time, each in a segment of its own."""
        for start in range(0, len(data), size):
            self.sock.sendall(data[start : start + size])
            time.sleep(pause)

    def half_close(self) -> None:
        """No more bytes from this side; the server may still answer."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Closes with an RST instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def _fill(self) -> bool:
        """Receives more; False at the end of the stream."""
        if self.eof:
            return False
        data = self.sock.recv(262144)
        if not data:
            self.eof = True
            return False
        self.buffer += data
        return True

    def _take(self, size: int) -> bytes:
        parts = []
        missing = size
        while missing:
            if not self.buffer and not self._fill():
                raise ProtocolError("the stream ended %d bytes too early" % missing)
            part = self.buffer[:missing]
            self.buffer = self.buffer[len(part) :]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _line(self) -> bytes:
        while b"\n" not in self.buffer:
            if not self._fill():
                raise ProtocolError("the stream ended inside a line: %r" % self.buffer[:200])
        line, _, self.buffer = self.buffer.partition(b"\n")
        if not line.endswith(b"\r"):
            raise ProtocolError("a line ended in a bare LF: %r" % line[:200])
        return line[:-1]

    def read_bytes(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        return self._take(size)

    def read_available(self) -> bytes:
        """What the next receive brings (or lies here already); b"" at the end of the stream."""
        if not self.buffer:
            self._fill()
        data, self.buffer = self.buffer, b""
        return data

    def read_to_end(self) -> bytes:
        """Everything up to the end of the stream. A reset is an error."""
        parts = [self.buffer]
        self.buffer = b""
        while not self.eof:
            self._fill()
            parts.append(self.buffer)
            self.buffer = b""
        return b"".join(parts)

    def _fields(self) -> List[Tuple[str, str]]:
        fields = []
        while True:
            line = self._line()
            if not line:
                return fields
            name, colon, value = line.partition(b":")
            if not colon or not re.match(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", name):
                raise ProtocolError("not a header field: %r" % line[:200])
            if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value):
                raise ProtocolError("a control character in a field value: %r" % line[:200])
            fields.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))

    def read_head(self) -> Response:
        """A status line and its fields; the body stays in the stream."""
        line = self._line()
        match = re.match(rb"(HTTP/1\.[01]) ([1-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)\Z", line)
        if not match:
            raise ProtocolError("not a status line: %r" % line[:200])
        version, status, reason = (part.decode("latin-1") for part in match.groups())
        return Response(version, int(status), reason, self._fields())

    def _chunked(self, response: Response) -> None:
        parts = []
        while True:
            line = self._line()
            if not re.match(rb"[0-9A-Fa-f]{1,16}\Z", line):
                raise ProtocolError("not a chunk size: %r" % line[:200])
            size = int(line, 16)
            if size == 0:
                break
            parts.append(self._take(size))
            response.chunks.append(size)
            if self._take(2) != b"\r\n":
                raise ProtocolError("a chunk is longer than its size says")
        response.trailers = self._fields()
        response.body = b"".join(parts)

    def read_body(self, response: Response, method: str = "GET") -> None:
        """Reads the body that belongs to a head of read_head()."""
        encoding = response.header("transfer-encoding")
        length = response.header("content-length")
        if encoding is not None and length is not None:
            raise ProtocolError("both Content-Length and Transfer-Encoding: %r" % response)
        if response.status < 200 or response.status == 204:
            if encoding is not None or length is not None:
                raise ProtocolError("framing fields where there is no body: %r" % response)
            return
        if method == "HEAD" or response.status == 304:
            return
        if encoding is not None:
            if encoding.lower() != "chunked" or response.version != "HTTP/1.1":
                raise ProtocolError("a wrong transfer coding: %r" % response)
            response.framing = "chunked"
            self._chunked(response)
        elif length is not None:
            if not re.match(r"[0-9]+\Z", length):
                raise ProtocolError("not a Content-Length: %r" % response)
            response.framing = "length"
            response.body = self._take(int(length))
        else:
            response.framing = "close"
            response.body = self.read_to_end()

    def read_response(self, method: str = "GET") -> Response:
        """The next final response; 1xx before it are in its ``interim``."""
        interim = []
        while True:
            response = self.read_head()
            self.read_body(response, method)
            if response.status >= 200 or response.status == 101:
                response.interim = interim
                return response
            interim.append(response)

    def at_end(self) -> bool:
        """True when the server has closed (waits for it); False when it sent more bytes. A reset is
        an error: the client may have lost its response to it."""
        return not self.buffer and not self._fill()

    def is_quiet(self, seconds: float = 0.2) -> bool:
        """True when nothing, not even an end, comes within the time."""
        if self.buffer or self.eof:
            return False
        before = self.sock.gettimeout()
        self.sock.settimeout(seconds)
        try:
            self._fill()
        except socket.timeout:
            return True
        finally:
            self.sock.settimeout(before)
        return False


class Server:
    """A server process on a free port.

    ``app`` is what stands on the command line ("app:app"), ``args`` are further options, ``cwd`` the
    directory it runs in, ``env`` what is added to the environment (None as a value removes a name).
    ``bind`` is "tcp" (127.0.0.1 and a free port), "tcp6", "unix", an own address, or None when
    ``args`` say it (then ``address`` is set by the caller before wait_ready).
    ``check`` False lifts the checks of stop(): for servers that a test breaks on purpose.
    """

    def __init__(
        self,
        app: Optional[str] = "app:app",
        args: Sequence[str] = (),
        *,
        cwd: Union[str, Path],
        env: Optional[Mapping[str, Optional[str]]] = None,
        bind: Optional[str] = "tcp",
        logdir: Optional[Union[str, Path]] = None,
        command: Optional[Sequence[str]] = None,
        check: bool = True,
        pass_fds: Iterable[int] = (),
    ):
        self.cwd = Path(cwd)
        self.check = check
        self.process: Optional[subprocess.Popen] = None
        self.returncode: Optional[int] = None
        self.host = "127.0.0.1"
        self.port = 0
        self.address: Union[None, str, Tuple[str, int]] = None
        where = Path(logdir) if logdir is not None else self.cwd
        where.mkdir(parents=True, exist_ok=True)
        number = len(list(where.glob("server-*.err"))) + 1
        self.stdout_path = where / ("server-%d.out" % number)
        self.stderr_path = where / ("server-%d.err" % number)
        self._pass_fds = tuple(pass_fds)
        self._env = self._environment(env or {})
        self.command = list(command) if command is not None else test_command()
        self.command += self._bind_args(bind, where, number)
        self.command += [str(arg) for arg in args]
        if app is not None:
            self.command.append(app)

    @staticmethod
    def _environment(extra: Mapping[str, Optional[str]]) -> Dict[str, str]:
        env = {
            key: value
            for key, value in os.environ.items()
            if key not in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "PORT", "NOTIFY_SOCKET")
            and not (key.startswith("STOKER_") and key != "STOKER_TEST_COMMAND")
        }
        for key, value in extra.items():
            if value is None:
                env.pop(key, None)
            else:
                env[key] = value
        return env

    def _bind_args(self, bind: Optional[str], where: Path, number: int) -> List[str]:
        if bind is None:
            return []
        if bind == "tcp":
            self.port = free_port()
            bind = "127.0.0.1:%d" % self.port
        elif bind == "tcp6":
            self.host = "::1"
            self.port = free_port("::1")
            bind = "[::1]:%d" % self.port
        elif bind == "unix":
            bind = "unix:%s" % (where / ("server-%d.sock" % number))
        if bind.startswith("unix:"):
            self.address = bind[5:].partition("?")[0]
        elif not bind.startswith("fd://"):
            host, _, port = bind.rpartition(":")
            self.host = host.strip("[]") or "127.0.0.1"
            self.port = int(port)
            if self.host in ("0.0.0.0", "*"):
                self.host = "127.0.0.1"
            self.address = (self.host, self.port)
        return ["--bind", bind]

    # Life

    def spawn(self) -> "Server":
        """Starts the process without waiting for anything."""
        with open(self.stdout_path, "wb") as out, open(self.stderr_path, "wb") as err:
            self.process = subprocess.Popen(
                self.command,
                cwd=str(self.cwd),
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                pass_fds=self._pass_fds,
            )
        return self

    def start(self, path: Optional[str] = None) -> "Server":
        """Starts and waits until the server accepts; with a path, until that answers."""
        self.spawn()
        self.wait_ready(path)
        return self

    def wait_ready(self, path: Optional[str] = None, seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while True:
            if self.process.poll() is not None:
                self.returncode = self.process.returncode
                raise ServerError(self.report("the server ended at its start"))
            try:
                with self.connect():
                    break
            except OSError:
                pass
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(self.report("the server did not listen in time"))
            time.sleep(0.01)
        if path is not None:
            self.get(path)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Waits for the end by itself (a start that must fail, a signal) and yields the exit code."""
        try:
            self.returncode = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(self.report("the server did not end within %d s" % seconds)) from None
        return self.returncode

    def stop(self, number: int = signal.SIGTERM, code: int = 0) -> None:
        """Ends the server and checks how it ended. Harmless when it has ended already."""
        if self.process is None:
            return
        if self.returncode is None:
            if self.process.poll() is None:
                self.process.send_signal(number)
            returncode = self.wait()
            self._kill_group()
            if self.check and returncode != code:
                raise ServerError(self.report("exit code %d instead of %d" % (returncode, code)))
        self._kill_group()
        if self.check:
            self.check_output()

    def check_output(self) -> None:
        found = FATAL_OUTPUT.search(self.log()) or FATAL_OUTPUT.search(self.stdout())
        if found:
            raise ServerError(self.report("the output has %r" % found.group(0)))

    def kill(self) -> None:
        """Ends everything that belongs to the server at once."""
        if self.process is not None:
            self._kill_group()
            self.returncode = self.process.wait()

    def _kill_group(self) -> None:
        # The server was started as the leader of a group of its own, so this reaches its workers
        # and whatever the application started, and nothing else.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def __enter__(self) -> "Server":
        return self.start() if self.process is None else self

    def __exit__(self, kind, value, trace) -> None:
        if kind is not None:
            self.kill()
        else:
            self.stop()

    # Output

    def log(self) -> str:
        """The error log (standard error) so far."""
        return self.stderr_path.read_text("utf-8", "replace") if self.stderr_path.exists() else ""

    def stdout(self) -> str:
        """Standard output (the access log) so far."""
        return self.stdout_path.read_text("utf-8", "replace") if self.stdout_path.exists() else ""

    def wait_log(self, pattern: str, seconds: float = IO_SECONDS, out: bool = False) -> "re.Match":
        """Waits until the log (with `out` standard output) matches, and yields the match."""
        deadline = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.stdout() if out else self.log(), re.MULTILINE)
            if found:
                return found
            if time.monotonic() > deadline:
                raise ServerError(self.report("nothing matched %r in time" % pattern))
            time.sleep(0.02)

    def report(self, what: str) -> str:
        return "%s\ncommand: %s\n--- standard error\n%s\n--- standard output\n%s" % (
            what,
            " ".join(shlex.quote(part) for part in self.command),
            self.log()[-8000:],
            self.stdout()[-2000:],
        )

    def worker_pids(self) -> List[int]:
        """The living children of the master."""
        path = "/proc/%d/task/%d/children" % (self.pid, self.pid)
        with open(path) as file:
            return [int(pid) for pid in file.read().split()]

    # Clients

    @property
    def url(self) -> str:
        host = "[%s]" % self.host if ":" in self.host else self.host
        return "http://%s:%d" % (host, self.port)

    def connect(self, timeout: float = IO_SECONDS) -> Connection:
        return Connection(self.address, timeout)

    def send_raw(
        self,
        data: Union[bytes, str],
        expect: Optional[int] = 1,
        methods: Sequence[str] = (),
        timeout: float = IO_SECONDS,
    ) -> List[Response]:
        """Sends bytes on a new connection and yields `expect` responses; with None all up to the
        server's close. `methods` are those of the requests, when not all are like GET."""
        responses: List[Response] = []
        with self.connect(timeout) as conn:
            conn.send(data)
            while expect is None or len(responses) < expect:
                if expect is None and conn.at_end():
                    break
                index = len(responses)
                responses.append(
                    conn.read_response(methods[index] if index < len(methods) else "GET")
                )
        return responses

    def request(
        self,
        method: str,
        target: str,
        body: Optional[bytes] = None,
        headers: Union[None, Mapping[str, str], Sequence[Tuple[str, str]]] = None,
        conn: Optional[Connection] = None,
        timeout: float = IO_SECONDS,
    ) -> Response:
        """One request, on a connection of its own unless `conn` is given."""
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers or ())
        names = {name.lower() for name, _ in pairs}
        if "host" not in names:
            pairs.insert(0, ("Host", "%s:%d" % (self.host, self.port) if self.port else "localhost"))
        if body is not None and not names & {"content-length", "transfer-encoding"}:
            pairs.append(("Content-Length", str(len(body))))
        if conn is None and "connection" not in names:
            pairs.append(("Connection", "close"))
        head = "%s %s HTTP/1.1\r\n" % (method, target)
        head += "".join("%s: %s\r\n" % pair for pair in pairs) + "\r\n"
        own = conn is None
        used = self.connect(timeout) if own else conn
        try:
            used.send(head.encode("latin-1") + (body or b""))
            return used.read_response(method)
        finally:
            if own:
                used.close()

    def get(self, target: str = "/", **kwargs) -> Response:
        return self.request("GET", target, **kwargs)

    def post(self, target: str, body: bytes = b"", **kwargs) -> Response:
        return self.request("POST", target, body, **kwargs)


def test_command() -> List[str]:
    """The command line that starts the server, without options."""
    given = os.environ.get("STOKER_TEST_COMMAND")
    return shlex.split(given) if given else [sys.executable, "-m", "stoker"]


test_command.__test__ = False  # its name is not that of a test
