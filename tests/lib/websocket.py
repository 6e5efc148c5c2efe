"""A WebSocket client that works on frames, and can be as wrong as a test wants it to be.

What comes back is held to RFC 6455 and RFC 7692 to the letter: unmasked frames with the shortest
length, no reserved bit without the extension, whole control frames.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import struct
import zlib
from typing import Optional, Tuple

from tests.lib.server import Connection, Response

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def mask(data: bytes, key: bytes) -> bytes:
    if not data:
        return b""
    whole = int.from_bytes(data, "big") ^ int.from_bytes((key * (len(data) // 4 + 1))[: len(data)], "big")
    return whole.to_bytes(len(data), "big")


def frame(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0, masked: bool = True, size: Optional[int] = None) -> bytes:
    """A client's frame; ``size`` forces 0, 2 or 8 bytes of extended length, ``rsv`` is 1, 2, 4 or a sum."""
    length = len(payload)
    if size is None:
        size = 0 if length < 126 else 2 if length < 65536 else 8
    short = {0: length, 2: 126, 8: 127}[size]
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode, (0x80 if masked else 0) | short])
    head += length.to_bytes(size, "big") if size else b""
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + mask(payload, key)


def handshake(target: str = "/", fields: str = "", key: str = "dGhlIHNhbXBsZSBub25jZQ==", version: str = "13") -> bytes:
    """The bytes of an opening handshake; ``fields`` are complete lines."""
    return (
        "GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: %s\r\n%s\r\n" % (target, key, version, fields)
    ).encode("latin-1")


class WebSocket:
    """An open WebSocket, or after a refusal the response in ``response``."""

    def __init__(self, server, target: str = "/", fields: str = "", *, offer: Optional[str] = None, behind: bytes = b""):
        key = base64.b64encode(os.urandom(16)).decode()
        if offer is not None:
            fields += "Sec-WebSocket-Extensions: %s\r\n" % offer
        self.conn: Connection = server.connect()
        self.conn.send(handshake(target, fields, key) + behind)
        self.response: Response = self.conn.read_head()
        self.extension = ""
        self.inflater = self.deflater = None
        if self.response.status != 101:
            self.conn.read_body(self.response)
            return
        want = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
        assert self.response.header("sec-websocket-accept") == want
        assert self.response.header("upgrade").lower() == "websocket"
        assert self.response.header("connection").lower() == "upgrade"
        self.extension = self.response.header("sec-websocket-extensions", "")
        if self.extension:
            self._extend()

    def _extend(self) -> None:
        words = [word.strip() for word in self.extension.split(";")]
        assert words[0] == "permessage-deflate"
        self.server_bits = int(dict(re.findall(r"(\w+)=(\d+)", self.extension)).get("server_max_window_bits", 15))
        self.client_bits = int(dict(re.findall(r"(\w+)=(\d+)", self.extension)).get("client_max_window_bits", 15))
        self.server_fresh = "server_no_context_takeover" in words
        self.client_fresh = "client_no_context_takeover" in words
        assert 8 <= self.client_bits <= 15 and 8 <= self.server_bits <= 15

    def __enter__(self) -> "WebSocket":
        return self

    def __exit__(self, *exc) -> None:
        self.conn.close()

    # Sending

    def send(self, opcode: int, payload: bytes = b"", **kwargs) -> None:
        self.conn.send(frame(opcode, payload, **kwargs))

    def text(self, text: str) -> None:
        self.send(TEXT, text.encode())

    def deflate(self, payload: bytes) -> bytes:
        """The payload of a compressed message."""
        if self.deflater is None or self.client_fresh:
            self.deflater = zlib.compressobj(6, zlib.DEFLATED, -max(self.client_bits, 9))
        data = self.deflater.compress(payload) + self.deflater.flush(zlib.Z_SYNC_FLUSH)
        assert data.endswith(b"\x00\x00\xff\xff")
        return data[:-4]

    def packed(self, opcode: int, payload: bytes) -> None:
        self.send(opcode, self.deflate(payload), rsv=4)

    # Receiving

    def frame(self) -> Tuple[bool, int, int, bytes]:
        """(fin, reserved bits, opcode, payload) of the next frame."""
        first, second = self.conn.read_bytes(2)
        assert not second & 0x80, "the server masks"
        length = second
        if second == 126:
            (length,) = struct.unpack("!H", self.conn.read_bytes(2))
            assert length > 125, "not the shortest length"
        elif second == 127:
            (length,) = struct.unpack("!Q", self.conn.read_bytes(8))
            assert length > 65535, "not the shortest length"
        fin, rsv, opcode = bool(first & 0x80), first >> 4 & 7, first & 15
        assert opcode in (CONT, TEXT, BINARY, CLOSE, PING, PONG)
        if opcode >= CLOSE:
            assert fin and length <= 125 and rsv == 0
        assert rsv in ((0, 4) if self.extension and opcode in (TEXT, BINARY) else (0,))
        return fin, rsv, opcode, self.conn.read_bytes(length)

    def message(self, pings: bool = False) -> Tuple[int, bytes]:
        """(opcode, payload) of the next message or control frame, inflated; pings are skipped."""
        while True:
            fin, rsv, opcode, payload = self.frame()
            if opcode == PING and not pings:
                self.send(PONG, payload)
                continue
            assert fin, "the server does not fragment"
            if rsv:
                if self.inflater is None or self.server_fresh:
                    self.inflater = zlib.decompressobj(-max(self.server_bits, 9))
                payload = self.inflater.decompress(payload + b"\x00\x00\xff\xff")
                assert not self.inflater.unconsumed_tail
            return opcode, payload

    def expect(self, opcode: int, payload: bytes) -> None:
        found = self.message()
        assert found == (opcode, payload), (found[0], found[1][:100])

    def echo(self, opcode: int, payload: bytes) -> None:
        self.send(opcode, payload)
        self.expect(opcode, payload)

    def expect_close(self, code: Optional[int], reason: Optional[str] = None) -> None:
        """A close frame with this code (None: without one), and after our answer the end."""
        opcode, payload = self.message()
        assert opcode == CLOSE, (opcode, payload[:100])
        if code is None:
            assert payload == b""
        else:
            assert struct.unpack("!H", payload[:2]) == (code,)
            found = payload[2:].decode("utf-8")
            assert reason is None or found == reason
        try:
            self.send(CLOSE, payload[:2])
        except OSError:
            pass  # the server has closed already
        self.expect_end()

    def expect_end(self) -> None:
        """Nothing comes any more, and the connection ends."""
        try:
            assert self.conn.read_to_end() == b""
        except ConnectionResetError:
            pass  # what the server did not want to read

    def close(self, code: Optional[int] = 1000, reason: bytes = b"") -> None:
        """The closing handshake, begun by us."""
        payload = b"" if code is None else struct.pack("!H", code) + reason
        self.send(CLOSE, payload)
        assert self.message() == (CLOSE, payload[:2])
        self.expect_end()
