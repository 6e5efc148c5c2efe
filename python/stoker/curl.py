"""``stoker curl``: one request to a server, in the language of its socket, and what comes back.

What curl does for HTTP this does for uwsgi, FastCGI and SCGI too, so that an application can be
asked without the front end that usually stands before it. Exit codes are curl's.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import selectors
import socket
import struct
import sys
import time
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Sequence, Tuple
from urllib.parse import unquote_to_bytes

OK = 0
BAD_SCHEME = 1
USAGE = 2
BAD_URL = 3
NO_HOST = 6
NO_CONNECTION = 7
WEIRD_ANSWER = 8
PARTIAL = 18
HTTP_ERROR = 22
WRITE_ERROR = 23
READ_ERROR = 26
TIMEOUT = 28
TLS_ERROR = 35
NO_ANSWER = 52
BROKEN = 56

DEFAULT_PORT = 8000  # as --bind
SCHEMES = {
    "http": "http",
    "https": "https",
    "uwsgi": "uwsgi",
    "puwsgi": "uwsgi",  # of one request the same: its answer has a length, or ends the connection
    "fastcgi": "fastcgi",
    "fcgi": "fastcgi",
    "scgi": "scgi",
}
HEAD_MAX = 1 << 20
RECORD_MAX = 65528  # of a FastCGI record: a multiple of 8
UWSGI_MAX = 65535
UWSGI_PING = 100

Pairs = List[Tuple[bytes, bytes]]


class CurlError(Exception):
    """One sentence for the user, with the exit code."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a request goes."""

    scheme: str
    unix: str | None  # the path, or "@name"
    host: str
    port: int
    path: str  # with the query

    @property
    def authority(self) -> str:
        """What Host says."""
        if self.unix is not None:
            return "localhost"
        host = "[%s]" % self.host if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}.get(self.scheme)
        return host if self.port == usual else "%s:%d" % (host, self.port)

    def __str__(self) -> str:
        return self.unix if self.unix is not None else "%s port %d" % (self.host, self.port)


def _split_host(text: str, rest: str) -> Tuple[str, int]:
    host, colon, port = rest, "", ""
    if rest.startswith("["):
        host, bracket, after = rest[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise CurlError(BAD_URL, "%r: an IPv6 address is written [::1]:8000" % text)
        colon, port = after[:1], after[1:]
    elif rest.count(":") > 1:
        raise CurlError(BAD_URL, "%r: an IPv6 address is written [::1]:8000" % text)
    else:
        host, colon, port = rest.partition(":")
    if rest.isdigit():
        raise CurlError(BAD_URL, "%r has no host: write :%s" % (text, rest))
    if not colon:
        return host, DEFAULT_PORT
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise CurlError(BAD_URL, "%r: %r is not a port" % (text, port))
    return host, int(port)


def parse_target(text: str, path: str | None) -> Target:
    """Reads a URL, or an address as --bind has it, and the path that may stand apart from it."""
    scheme, sep, rest = text.partition("://")
    if not sep or scheme.lower() == "unix":
        scheme, rest = "http", text
    if scheme.lower() not in SCHEMES:
        raise CurlError(
            BAD_SCHEME,
            "%r: %r is not spoken: http, https, uwsgi, puwsgi, fastcgi and scgi are" % (text, scheme),
        )
    scheme = SCHEMES[scheme.lower()]
    is_unix = rest.lower().startswith("unix:") or rest.startswith(("/", "@", "./"))
    if is_unix:
        if rest.lower().startswith("unix:"):
            rest = rest[5:]
            if rest.startswith("//"):
                rest = rest[2:]
        rest = rest.partition("?")[0]  # mode and owner are of the one that binds it
        if rest in ("", "@"):
            raise CurlError(BAD_URL, "%r: the path of the socket is missing" % text)
        target = Target(scheme, rest, "", 0, path or "/")
    else:
        end = next((i for i, char in enumerate(rest) if char in "/?#"), len(rest))
        inner = rest[end:].partition("#")[0]
        if path is not None and inner not in ("", "/"):
            raise CurlError(BAD_URL, "%r has a path already: leave out %r" % (text, path))
        host, port = _split_host(text, rest[:end])
        if "@" in host:
            raise CurlError(BAD_URL, "%r: give a user by -H 'Authorization: ...'" % text)
        if host in ("", "*", "0.0.0.0"):
            host = "127.0.0.1"
        target = Target(scheme, None, host, port, path or inner or "/")
    if target.path.startswith("?"):
        target = dataclasses.replace(target, path="/" + target.path)
    if any(char <= " " or char == "\x7f" for char in target.path):
        raise CurlError(BAD_URL, "%r: write spaces and controls as %%XX" % target.path)
    if not target.path.startswith("/") and target.path != "*":
        raise CurlError(BAD_URL, "%r: a path begins with /" % target.path)
    return target


# --- what is sent ----------------------------------------------------------------------------------


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class Request(NamedTuple):
    """A request, before it is put into a language."""

    target: Target
    method: str
    fields: List[Tuple[str, str]]
    body: bytes
    has_body: bool
    params: List[Tuple[str, str]]
    modifiers: Tuple[int, int]


def _fields(args: argparse.Namespace, target: Target) -> List[Tuple[str, str]]:
    from stoker import __version__

    fields = [("Host", target.authority), ("User-Agent", "stoker/" + __version__), ("Accept", "*/*")]
    if args.has_body:
        fields.append(("Content-Type", "application/x-www-form-urlencoded"))
    mine: List[Tuple[str, str]] = []
    for text in args.header:
        name, sep, value = text.partition(":")
        empty = not sep and text.endswith(";")
        name = (text[:-1] if empty else name).strip()
        value = value.strip()
        if not name or not (sep or empty) or set(name) & set(' \t\r\n"(),/:;<=>?@[\\]{}'):
            raise CurlError(USAGE, "-H %r: write 'Name: value'" % text)
        if set(value) & set("\r\n\0"):
            raise CurlError(USAGE, "-H %r: a value is one line" % text)
        fields = [field for field in fields if field[0].lower() != name.lower()]
        if value or empty:
            mine.append((name, value))
    return fields + mine


def variables(request: Request) -> Pairs:
    """The request as CGI says it (RFC 3875), as a front end would."""
    target = request.target
    path, _, query = target.path.partition("?")
    env: Dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "REQUEST_URI": target.path,
        "PATH_INFO": unquote_to_bytes(_bytes(path)),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_SCHEME": "http",
        "SERVER_NAME": target.host or "localhost",
        "SERVER_PORT": str(target.port or 80),
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(request.body)) if request.has_body else "",
        "CONTENT_TYPE": "",
    }
    for name, value in request.fields:
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        again = env.get(key) and key.startswith("HTTP_")
        glue = "; " if key == "HTTP_COOKIE" else ", "
        env[key] = env[key] + glue + value if again else value
    env.update(request.params)
    return [
        (_bytes(name), value if isinstance(value, bytes) else _bytes(value))
        for name, value in env.items()
    ]


def encode_http(request: Request) -> bytes:
    """As HTTP/1.1, for one request on the connection."""
    lines = ["%s %s HTTP/1.1" % (request.method, request.target.path)]
    lines += ["%s: %s" % field for field in request.fields]
    names = {name.lower() for name, _ in request.fields}
    if request.has_body and not names & {"content-length", "transfer-encoding"}:
        lines.append("Content-Length: %d" % len(request.body))
    if "connection" not in names:
        lines.append("Connection: close")
    return _bytes("\r\n".join(lines) + "\r\n\r\n") + request.body


def encode_uwsgi(request: Request) -> bytes:
    """As a uwsgi packet: four bytes, the variables, and the body behind it."""
    packet = b""
    for name, value in variables(request):
        if len(name) > UWSGI_MAX or len(value) > UWSGI_MAX:
            raise CurlError(USAGE, "a variable is longer than the uwsgi protocol has room for")
        packet += struct.pack("<H", len(name)) + name + struct.pack("<H", len(value)) + value
    if len(packet) > UWSGI_MAX:
        raise CurlError(
            USAGE, "the variables have %d bytes; a uwsgi packet has at most 65535" % len(packet)
        )
    one, two = request.modifiers
    return struct.pack("<BHB", one, len(packet), two) + packet + request.body


def encode_scgi(request: Request) -> bytes:
    """As an SCGI netstring, CONTENT_LENGTH first."""
    pairs = dict(variables(request))
    length = pairs.pop(b"CONTENT_LENGTH") or b"0"
    pairs.setdefault(b"SCGI", b"1")
    text = b"CONTENT_LENGTH\0" + length + b"\0"
    for name, value in pairs.items():
        if b"\0" in name + value:
            raise CurlError(USAGE, "an SCGI variable cannot hold a zero byte")
        text += name + b"\0" + value + b"\0"
    return b"%d:%s," % (len(text), text) + request.body


def _record(kind: int, content: bytes) -> bytes:
    padding = -len(content) % 8
    return struct.pack(">BBHHBx", 1, kind, 1, len(content), padding) + content + bytes(padding)


def _stream(kind: int, data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), RECORD_MAX):
        yield _record(kind, data[at : at + RECORD_MAX])
    yield _record(kind, b"")


def encode_fastcgi(request: Request) -> bytes:
    """As FastCGI records of request 1, in the role of a responder."""

    def length(count: int) -> bytes:
        return struct.pack(">B", count) if count < 128 else struct.pack(">I", count | 1 << 31)

    params = b"".join(
        length(len(name)) + length(len(value)) + name + value
        for name, value in variables(request)
    )
    begin = _record(1, struct.pack(">HB5x", 1, 0))
    return b"".join([begin, *_stream(4, params), *_stream(5, request.body)])


ENCODERS = {
    "http": encode_http,
    "https": encode_http,
    "uwsgi": encode_uwsgi,
    "scgi": encode_scgi,
    "fastcgi": encode_fastcgi,
}


# --- the PROXY protocol ----------------------------------------------------------------------------


def proxy_header(sock: socket.socket, client: str) -> bytes:
    """Version 1: the connection's own addresses, with `client` for that of this side if it is given."""
    if sock.family == socket.AF_UNIX:
        here, there = ("", 0), ("127.0.0.1" if ":" not in client else "::1", 80)
    else:
        here, there = sock.getsockname()[:2], sock.getpeername()[:2]
    address = client or here[0]
    if not address:
        return b"PROXY UNKNOWN\r\n"
    family = "TCP6" if ":" in address else "TCP4"
    if family == "TCP6" and ":" not in there[0]:
        there = ("::ffff:" + there[0], there[1])
    if family == "TCP4" and ":" in there[0]:
        address, family = "::ffff:" + address, "TCP6"
    return b"PROXY %s %s %s %d %d\r\n" % (
        family.encode(),
        address.encode(),
        there[0].encode(),
        here[1],
        there[1],
    )


def _client(text: str) -> str:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, text))
        except OSError:
            pass
    raise ValueError


_client.__name__ = "address"


# --- the connection --------------------------------------------------------------------------------


class Wire:
    """A connection with one deadline for everything on it."""

    def __init__(
        self, target: Target, timeout: float | None, insecure: bool, client: str | None = None
    ):
        self.target = target
        self.end = None if timeout is None else time.monotonic() + timeout
        self.seen = False
        try:
            self.sock = self._connect()
        except socket.gaierror as error:
            raise CurlError(NO_HOST, "%s has no address: %s" % (target.host, error.strerror))
        except socket.timeout:
            raise CurlError(TIMEOUT, "no connection to %s in time" % target) from None
        except OSError as error:
            raise CurlError(NO_CONNECTION, _explain_connect(target, error)) from None
        if client is not None:
            try:
                self.sock.sendall(proxy_header(self.sock, client))
            except OSError as error:
                raise CurlError(BROKEN, "%s: %s" % (target, error.strerror)) from None
        if target.scheme == "https":
            self._wrap(insecure)

    def _connect(self) -> socket.socket:
        if self.target.unix is None:
            return socket.create_connection((self.target.host, self.target.port), self.left())
        path = self.target.unix
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(self.left())
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
        except BaseException:
            sock.close()
            raise
        return sock

    def _wrap(self, insecure: bool) -> None:
        import ssl

        context = ssl.create_default_context()
        if insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            self.sock = context.wrap_socket(
                self.sock, server_hostname=self.target.host or "localhost"
            )
        except socket.timeout:
            raise CurlError(TIMEOUT, "%s: no TLS handshake in time" % self.target) from None
        except OSError as error:
            raise CurlError(TLS_ERROR, "%s: TLS: %s" % (self.target, error)) from None

    def left(self) -> float | None:
        """The rest of the time; None: there is no limit."""
        if self.end is None:
            return None
        left = self.end - time.monotonic()
        if left <= 0:
            raise CurlError(TIMEOUT, "%s: no complete answer in time" % self.target)
        return left

    def exchange(self, data: bytes) -> Iterator[bytes]:
        """Sends `data`, and yields what comes, which may begin before all of it is sent."""
        if self.target.scheme == "https":
            self.sock.settimeout(self.left())
            try:
                self.sock.sendall(data)
            except socket.timeout:
                self.left()
            except OSError:
                pass  # its answer says why it wants no more
            data = b""
        view = memoryview(data)
        tls = self.target.scheme == "https"
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, 3 if view else 1)
            while True:
                if not tls or not self.sock.pending():  # type: ignore[attr-defined]
                    ready = selector.select(self.left())
                    if not ready:
                        continue
                    if ready[0][1] & selectors.EVENT_WRITE:
                        view = self._send(view)
                        if not view:
                            selector.modify(self.sock, selectors.EVENT_READ)
                    if not ready[0][1] & selectors.EVENT_READ:
                        continue
                piece = self._receive()
                if not piece:
                    return
                self.seen = True
                yield piece

    def _send(self, view: memoryview) -> memoryview:
        self.sock.setblocking(False)
        try:
            return view[self.sock.send(view[: 1 << 18]) :]
        except BlockingIOError:
            return view
        except OSError:
            return view[:0]  # its answer, if there is one, says why it wants no more
        finally:
            self.sock.settimeout(self.left())

    def _receive(self) -> bytes:
        try:
            return self.sock.recv(1 << 16)
        except socket.timeout:
            self.left()
            return self._receive()
        except OSError as error:
            if not self.seen:
                raise CurlError(NO_ANSWER, _no_answer(self.target, error.strerror)) from None
            raise CurlError(
                BROKEN, "%s: the connection broke: %s" % (self.target, error.strerror)
            ) from None

    def close(self) -> None:
        self.sock.close()


def _explain_connect(target: Target, error: OSError) -> str:
    text = "cannot connect to %s: %s" % (target, error.strerror or error)
    if target.unix is not None and isinstance(error, FileNotFoundError):
        text += ": the server is not running, or binds another path"
    elif target.unix is not None and isinstance(error, ConnectionRefusedError):
        text += ": the socket is left over from a server that has ended"
    elif target.unix is not None and isinstance(error, PermissionError):
        text += ": the mode or the owner of the socket keeps this user out"
    return text


def _no_answer(target: Target, why: str | None = None) -> str:
    article = "an" if target.scheme.startswith("http") or target.scheme == "scgi" else "a"
    return "%s: the server closed the connection without an answer%s: is it really %s %s socket?" % (
        target,
        " (%s)" % why if why else "",
        article,
        {"http": "HTTP", "https": "HTTPS", "scgi": "SCGI", "fastcgi": "FastCGI"}.get(
            target.scheme, target.scheme
        ),
    )


# --- what comes back -------------------------------------------------------------------------------


class Input:
    """Bytes that come in pieces."""

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces = pieces
        self._rest = b""

    def some(self) -> bytes:
        """What is there, at least one byte; b"": the end."""
        rest, self._rest = self._rest, b""
        return rest or next(self._pieces, b"")

    def exactly(self, count: int) -> bytes:
        """So many bytes, or what came before the end."""
        while len(self._rest) < count:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._rest += piece
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def line(self) -> bytes:
        """A line with its end, or what came before the end."""
        while b"\n" not in self._rest and len(self._rest) < HEAD_MAX:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._rest += piece
        end = self._rest.find(b"\n") + 1 or len(self._rest)
        data, self._rest = self._rest[:end], self._rest[end:]
        return data


def fastcgi_stdout(source: Input, target: Target, errors: BinaryIO) -> Iterator[bytes]:
    """The content of STDOUT records; that of STDERR goes to `errors`."""
    begun = False
    while True:
        header = source.exactly(8)
        if not header and not begun:
            return
        if header and header[0] != 1:
            raise CurlError(WEIRD_ANSWER, "%s: the answer is not FastCGI" % target)
        if len(header) < 8:
            raise CurlError(PARTIAL, "%s: the connection ended before END_REQUEST" % target)
        begun = True
        _, kind, _, length, padding = struct.unpack(">BBHHBx", header)
        content = source.exactly(length + padding)
        if len(content) < length + padding:
            raise CurlError(PARTIAL, "%s: the connection ended inside of a record" % target)
        content = content[:length]
        if kind == 6 and content:
            yield content
        elif kind == 7:
            errors.write(content)
            errors.flush()
        elif kind == 3:
            status = content[4] if length >= 5 else 0
            if status:
                reasons = {1: "CANT_MPX_CONN", 2: "OVERLOADED", 3: "UNKNOWN_ROLE"}
                raise CurlError(
                    WEIRD_ANSWER,
                    "%s refused the request: %s" % (target, reasons.get(status, str(status))),
                )
            return


class Head(NamedTuple):
    """The head of a response."""

    status: int
    lines: List[bytes]  # without line ends; the status line first
    fields: Dict[str, bytes]


def _read_lines(source: Input, target: Target) -> List[bytes]:
    lines: List[bytes] = []
    size = 0
    while True:
        line = source.line()
        size += len(line)
        if not line and not lines:
            raise CurlError(NO_ANSWER, _no_answer(target))
        if not line.endswith(b"\n"):
            raise CurlError(
                WEIRD_ANSWER,
                "%s: the answer is no %s response (it begins with %r)"
                % (target, target.scheme, (lines[0] if lines else line)[:40]),
            )
        line = line.rstrip(b"\r\n")
        if not line:
            return lines
        lines.append(line)
        if size > HEAD_MAX:
            raise CurlError(WEIRD_ANSWER, "%s: the head of the response has no end" % target)


def read_head(source: Input, target: Target) -> Head:
    """Reads a head, and makes a status line of what CGI says instead (RFC 3875 6.2, 6.3.3)."""
    lines = _read_lines(source, target)
    cgi = target.scheme in ("scgi", "fastcgi") and not lines[0].startswith(b"HTTP/")
    fields: Dict[str, bytes] = {}
    for line in lines if cgi else lines[1:]:
        name, sep, value = line.partition(b":")
        if not sep:
            raise CurlError(WEIRD_ANSWER, "%s: %r is no field of a response" % (target, line[:60]))
        fields[name.decode("latin-1").strip().lower()] = value.strip()
    if cgi:
        status = fields.pop("status", b"302 Found" if "location" in fields else b"200 OK")
        lines = [line for line in lines if line.partition(b":")[0].strip().lower() != b"status"]
        lines.insert(0, b"HTTP/1.1 " + status)
    words = lines[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise CurlError(
            WEIRD_ANSWER,
            "%s: the answer is no response (it begins with %r)" % (target, lines[0][:40]),
        )
    return Head(int(words[1]), lines, fields)


def _chunks(source: Input, target: Target) -> Iterator[bytes]:
    while True:
        line = source.line()
        try:
            left = int(line.split(b";")[0].strip(), 16)
        except ValueError:
            raise CurlError(PARTIAL, "%s: the chunked body ended too early" % target) from None
        if left == 0:
            while source.line().strip():
                pass
            return
        while left > 0:
            piece = source.exactly(min(left, 1 << 16))
            if not piece:
                raise CurlError(PARTIAL, "%s: the chunked body ended too early" % target)
            left -= len(piece)
            yield piece
        source.line()


def read_body(source: Input, head: Head, target: Target, method: str) -> Iterator[bytes]:
    """The body as it comes, without its coding."""
    if method == "HEAD" or head.status in (204, 304):
        return
    if b"chunked" in head.fields.get("transfer-encoding", b"").lower():
        yield from _chunks(source, target)
        return
    length = head.fields.get("content-length", b"")
    left = int(length) if length.isdigit() else None
    while left is None or left > 0:
        piece = source.some()
        if not piece:
            break
        if left is not None:
            piece = piece[:left]
            left -= len(piece)
        yield piece
    if left:
        raise CurlError(
            PARTIAL, "%s: the connection ended with %d bytes of the body missing" % (target, left)
        )


# --- the command -----------------------------------------------------------------------------------


def _data(args: argparse.Namespace) -> bytes:
    """What -d and --data-binary say, in their order."""
    parts = []
    for binary, text in args.data:
        if not text.startswith("@"):
            parts.append(_bytes(text))
            continue
        try:
            if text == "@-":
                data = sys.stdin.buffer.read()
            else:
                with open(text[1:], "rb") as file:
                    data = file.read()
        except OSError as error:
            raise CurlError(READ_ERROR, "cannot read %s: %s" % (text[1:], error.strerror))
        parts.append(data if binary else data.replace(b"\r", b"").replace(b"\n", b""))
    return b"&".join(parts)


def _say_request(request: Request) -> None:
    lines = []
    if request.target.scheme in ("http", "https"):
        head = encode_http(request._replace(body=b""))
        lines = [line.decode("utf-8", "replace") for line in head.split(b"\r\n")[:-1]]
    else:
        lines = [
            "%s=%s" % (name.decode("utf-8", "replace"), value.decode("utf-8", "replace"))
            for name, value in variables(request)
        ]
    from stoker.control import clean

    for line in lines:
        print("> " + clean(line), file=sys.stderr)
    sys.stderr.flush()


def _ping(target: Target, args: argparse.Namespace) -> int:
    if target.scheme != "uwsgi":
        raise CurlError(USAGE, "--ping is of the uwsgi protocol: write uwsgi:// before the address")
    wire = Wire(target, args.timeout, False)
    try:
        answer = Input(wire.exchange(struct.pack("<BHB", UWSGI_PING, 0, 0))).exactly(4)
    finally:
        wire.close()
    if not answer:
        raise CurlError(NO_ANSWER, _no_answer(target))
    if len(answer) < 4 or answer[0] != UWSGI_PING or answer[3] != 1:
        raise CurlError(WEIRD_ANSWER, "%s: the answer is not that to a ping" % target)
    print("%s answers" % target)
    return OK


class _Output:
    """Where the head and the body go."""

    def __init__(self, path: str | None):
        self._path = path
        self._file: BinaryIO | None = None

    def write(self, data: bytes, body: bool) -> None:
        try:
            if body and self._path not in (None, "-"):
                if self._file is None:
                    assert self._path is not None
                    self._file = open(self._path, "wb")
                self._file.write(data)
            else:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CurlError(WRITE_ERROR, "cannot write: %s" % error) from None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _show(source: Input, request: Request, args: argparse.Namespace, output: _Output) -> int:
    target = request.target
    head = read_head(source, target)
    while 100 <= head.status < 200:
        head = read_head(source, target)
    if args.fail and head.status >= 400:
        raise CurlError(HTTP_ERROR, "the server answered %s" % head.lines[0].decode("latin-1"))
    output.write(b"\r\n".join(head.lines) + b"\r\n\r\n", False)
    if args.output is not None:
        output.write(b"", True)  # an empty body is an empty file
    for piece in read_body(source, head, target, request.method):
        output.write(piece, True)
    if target.scheme == "fastcgi":
        while source.some():  # up to END_REQUEST, which may tell of an error
            pass
    return OK


def _run(args: argparse.Namespace) -> int:
    target = parse_target(args.url, args.path)
    if args.ping:
        return _ping(target, args)
    args.has_body = bool(args.data)
    method = args.request or ("HEAD" if args.head else "POST" if args.has_body else "GET")
    params = []
    for text in args.param:
        name, sep, value = text.partition("=")
        if not name or not sep:
            raise CurlError(USAGE, "--param %r: write NAME=VALUE" % text)
        params.append((name, value))
    if params and target.scheme in ("http", "https"):
        raise CurlError(USAGE, "--param is of uwsgi, FastCGI and SCGI: HTTP has fields (-H)")
    request = Request(
        target,
        method,
        _fields(args, target),
        _data(args),
        args.has_body,
        params,
        (args.modifier1, args.modifier2),
    )
    data = ENCODERS[target.scheme](request)
    if args.verbose:
        _say_request(request)
    client = args.haproxy_clientip or ("" if args.haproxy_protocol else None)
    wire = Wire(target, args.timeout, args.insecure, client)
    output = _Output(args.output)
    try:
        source = Input(wire.exchange(data))
        if target.scheme == "fastcgi":
            source = Input(fastcgi_stdout(source, target, sys.stderr.buffer))
        return _show(source, request, args, output)
    finally:
        output.close()
        wire.close()


def _modifier(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 255:
        raise ValueError
    return value


_modifier.__name__ = "modifier"


def _parser() -> argparse.ArgumentParser:
    from stoker.control import parse_seconds

    parser = argparse.ArgumentParser(
        prog="stoker curl",
        description="Sends one request to a server over HTTP, uwsgi, FastCGI or SCGI, and prints the "
        "head and the body of its response.",
        epilog="Addresses are written as after --bind: http://127.0.0.1:8000/path, "
        "uwsgi://127.0.0.1:3031/path, fastcgi:///run/app.sock /path, scgi://unix:/run/app.sock /path. "
        "Exit codes are curl's: 0 done, 7 no connection, 22 an error status with -f, 28 timeout, "
        "52 no answer.",
        allow_abbrev=False,
    )
    parser.add_argument("url", metavar="URL", help="where to; without a scheme HTTP is spoken")
    parser.add_argument("path", nargs="?", metavar="/PATH", help="path and query, for unix sockets")
    parser.add_argument("-X", "--request", metavar="METHOD")
    parser.add_argument(
        "-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a field"
    )
    data = {"action": "append", "default": [], "metavar": "DATA|@FILE", "dest": "data"}
    parser.add_argument(
        "-d", "--data", type=lambda text: (False, text), help="a body, without line ends", **data
    )
    parser.add_argument(
        "--data-binary", type=lambda text: (True, text), help="a body as it is", **data
    )
    parser.add_argument("-I", "--head", action="store_true", help="ask by HEAD")
    parser.add_argument(
        "-i", "--include", action="store_true", help="as always: the head is printed too"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print the variables, or the head, that are sent"
    )
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME=VALUE", help="a variable more"
    )
    parser.add_argument("--modifier1", type=_modifier, default=0, metavar="N", help="of uwsgi")
    parser.add_argument("--modifier2", type=_modifier, default=0, metavar="N", help="of uwsgi")
    parser.add_argument("--ping", action="store_true", help="a ping of uwsgi, and no request")
    parser.add_argument("-o", "--output", metavar="FILE", help="where the body goes")
    parser.add_argument("-f", "--fail", action="store_true", help="print no response from 400 on")
    parser.add_argument("-s", "--silent", action="store_true", help="say nothing of errors")
    parser.add_argument("-k", "--insecure", action="store_true", help="take any certificate")
    parser.add_argument(
        "--haproxy-protocol", action="store_true", help="send a PROXY header first (version 1)"
    )
    parser.add_argument(
        "--haproxy-clientip", type=_client, metavar="IP", help="the same, with this client in it"
    )
    parser.add_argument(
        "-m", "--timeout", "--max-time", type=parse_seconds, metavar="SECONDS", help="for all of it"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs the command with these arguments; returns the exit code."""
    try:
        args = _parser().parse_args(argv)
    except SystemExit as end:  # argparse has printed why
        return end.code if isinstance(end.code, int) else USAGE
    try:
        return _run(args)
    except CurlError as error:
        if not args.silent:
            from stoker.control import clean

            print("stoker curl: %s" % clean(error), file=sys.stderr)
        return error.code
    except BrokenPipeError:  # the reader has had enough, as head has
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        return WRITE_ERROR
    except KeyboardInterrupt:
        return 130
