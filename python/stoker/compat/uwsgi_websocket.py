"""WebSockets of WSGI applications, as uWSGI's functions have them: what speaks on a connection that a request has taken.

The calling thread or greenlet reads and writes the socket itself, as in uWSGI; so `connection_fd` is one that select() works
with, and pings are sent while somebody receives. Other threads and greenlets send by the object that
`request_context` returns.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import threading
import time

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
# How long a wait lasts at most, so that what is raised in a thread from outside comes there.
SLICE = 1.0
NORMAL, GOING_AWAY, PROTOCOL_ERROR, BAD_DATA, TOO_BIG = 1000, 1001, 1002, 1007, 1009
# Codes that a client may send (RFC 6455 7.4).
CODES = (*range(1000, 1004), *range(1007, 1015), *range(3000, 5000))


class Closed(OSError):
    """It is over: uWSGI's words."""


class Broken(Exception):
    """The client has broken the protocol; the code to close with."""


class Limits:
    """What the configuration says."""

    def __init__(self, interval: float = 20.0, tolerance: float = 20.0, size: int = 16 << 20, timeout: float = 60.0) -> None:
        self.interval = interval
        self.tolerance = tolerance
        self.size = size
        self.timeout = timeout


def accept_key(key: bytes) -> bytes:
    """Sec-WebSocket-Accept (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def frame(opcode: int, data: bytes) -> bytes:
    """A whole message, as a server sends it."""
    size = len(data)
    if size < 126:
        return bytes((0x80 | opcode, size)) + data
    if size < 1 << 16:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + data
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + data


def unmask(data: bytes, mask: bytes) -> bytes:
    """What the client has masked."""
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


class Decoder:
    """Frames out of bytes, as they come."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.buffer = bytearray()
        self.message = bytearray()  # so far; one, and not a list of its fragments, which may be empty
        self.opcode = 0  # of the message that has begun; 0: none has

    def feed(self, data: bytes) -> None:
        """Takes bytes."""
        self.buffer += data

    def _head(self) -> tuple[int, int] | None:
        """Where the mask of the next frame is, and how long its data; None: it is not there yet."""
        buffer = self.buffer
        if len(buffer) < 2:
            return None
        opcode, size, at = buffer[0] & 15, buffer[1] & 127, 2
        if buffer[0] & 0x70 or not buffer[1] & 0x80:
            raise Broken(PROTOCOL_ERROR)
        if opcode in (CLOSE, PING, PONG):
            if not buffer[0] & 0x80 or size > 125:
                raise Broken(PROTOCOL_ERROR)
        elif opcode > BINARY or (opcode == CONTINUATION) != (self.opcode != 0):
            raise Broken(PROTOCOL_ERROR)
        if size > 125:
            width = 2 if size == 126 else 8
            if len(buffer) < 2 + width:
                return None
            size, at = int.from_bytes(buffer[2 : 2 + width], "big"), 2 + width
            if size < (126 if width == 2 else 1 << 16):
                raise Broken(PROTOCOL_ERROR)
        if opcode < CLOSE and size + len(self.message) > self.most:
            raise Broken(TOO_BIG)
        return at, size

    def next(self) -> tuple[int, bytes] | None:
        """The next message or control frame; None: more bytes are needed. Broken."""
        while (head := self._head()) is not None:
            at, size = head
            if len(self.buffer) < at + 4 + size:
                return None
            first = self.buffer[0]
            data = unmask(bytes(self.buffer[at + 4 : at + 4 + size]), bytes(self.buffer[at : at + 4]))
            del self.buffer[: at + 4 + size]
            if first & 15 >= CLOSE:
                return first & 15, data
            self.opcode = self.opcode or first & 15
            self.message += data
            if first & 0x80:
                return self._whole()
        return None

    def _whole(self) -> tuple[int, bytes]:
        opcode, data = self.opcode, bytes(self.message)
        self.opcode, self.message = 0, bytearray()
        if opcode == TEXT:
            try:
                data.decode()
            except UnicodeDecodeError:
                raise Broken(BAD_DATA) from None
        return opcode, data


def _sockets(fd: int, green: bool) -> tuple:
    """One to receive by and one to send by, of descriptors of their own: the server closes its own when it wants to."""
    module = socket
    if green:
        from gevent import socket as module  # type: ignore[no-redef]
    return tuple(module.socket(fileno=os.dup(fd)) for _ in range(2))


def _lock(green: bool):
    if green:
        from gevent.lock import RLock

        return RLock()
    return threading.RLock()


class WebSocket:
    """One, on a connection whose request has taken it."""

    def __init__(self, fd: int, limits: Limits, green: bool) -> None:
        self.limits = limits
        self.fd = fd
        self.input, self.output = _sockets(fd, green)
        self.output.settimeout(limits.timeout)
        self.lock = _lock(green)
        self.decoder = Decoder(limits.size)
        self.closing = False  # our close frame is out
        self.over = False
        self.heard = time.monotonic()
        self.pinged = 0.0

    def __del__(self) -> None:
        for sock in (getattr(self, "input", None), getattr(self, "output", None)):
            if sock is not None:
                sock.close()

    def write(self, data: bytes) -> None:
        """Sends bytes; OSError."""
        with self.lock:
            self.output.sendall(data)

    def send(self, opcode: int, data: bytes) -> None:
        """Sends a message; Closed."""
        if self.over or self.closing:
            raise Closed("unable to send websocket message")
        try:
            self.write(frame(opcode, data))
        except OSError:
            self.over = True
            raise Closed("unable to send websocket message") from None

    def close(self, code: int = NORMAL) -> None:
        """Says goodbye, once."""
        if self.over or self.closing:
            return
        self.closing = True
        try:
            self.write(frame(CLOSE, code.to_bytes(2, "big")))
        except OSError:
            self.over = True

    def receive(self, wait: bool) -> bytes:
        """The next message; without `wait` b"" where there is none yet. Closed."""
        try:
            while not self.over:
                found = self.decoder.next()
                if found is None:
                    if not self._fill(wait) and not wait:
                        return b""
                elif found[0] < CLOSE:
                    return found[1]
                else:
                    self._control(*found)
        except Broken as error:
            self.close(error.args[0])
        except OSError:
            pass
        self.over = True
        raise Closed("unable to receive websocket message")

    def _control(self, opcode: int, data: bytes) -> None:
        if opcode == PING:
            self.write(frame(PONG, data))
        elif opcode == CLOSE:
            code = int.from_bytes(data[:2], "big") if len(data) > 1 else NORMAL
            self.close(code if code in CODES and len(data) != 1 else PROTOCOL_ERROR)
            self.over = True

    def _fill(self, wait: bool) -> bool:
        """Takes what has come; False: nothing has, so far."""
        self.input.settimeout(SLICE if wait else 0.0)
        try:
            data = self.input.recv(65536)
        except (BlockingIOError, socket.timeout):
            self._check_time()
            return False
        if not data:
            raise ConnectionResetError
        self.heard, self.pinged = time.monotonic(), 0.0
        self.decoder.feed(data)
        return True

    def _check_time(self) -> None:
        now = time.monotonic()
        if self.pinged and now - self.pinged >= self.limits.tolerance > 0:
            self.close(GOING_AWAY)
            raise TimeoutError
        if not self.pinged and now - self.heard >= self.limits.interval > 0:
            self.pinged = now
            self.write(frame(PING, b""))


def handshake(core, key: bytes, origin: bytes, protocol: bytes, limits: Limits, green: bool) -> WebSocket:
    """Answers 101 on the connection of the request in progress; OSError."""
    failure = "unable to complete websocket handshake"
    key = key or core._field("sec-websocket-key") or b""
    if not key:
        raise OSError(failure)
    offered = core._field("sec-websocket-protocol") or b""
    fields = [(b"Upgrade", b"WebSocket"), (b"Connection", b"Upgrade")]
    if origin := origin or core._field("origin") or b"":
        fields.append((b"Sec-WebSocket-Origin", origin))
    # uWSGI sends all that were offered, which browsers refuse where there are several.
    if protocol := protocol or offered.partition(b",")[0].strip():
        fields.append((b"Sec-WebSocket-Protocol", protocol))
    fields.append((b"Sec-WebSocket-Accept", accept_key(key)))
    if any(bad in value for _, value in fields for bad in (b"\r", b"\n", b"\0")):
        raise OSError(failure)
    lines = [b"HTTP/1.1 101 Web Socket Protocol Handshake", *(b"%s: %s" % field for field in fields), b"", b""]
    made = core._take(101, lambda fd: WebSocket(fd, limits, green))
    try:
        made.write(b"\r\n".join(lines))
    except OSError:
        made.over = True
        raise OSError(failure) from None
    return made
