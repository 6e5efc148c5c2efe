"""Many connections at once in one thread: clients that send what they are told, read or do not read, and vanish.

A ``Swarm`` turns an epoll set. Nothing that one connection does makes another wait; what has come lies in
``member.buffer`` until the test takes it. WebSocket frames are made and read as in tests.lib.websocket.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import struct
import time
from typing import Callable, Iterable, List, Tuple

from tests.lib.websocket import handshake

SECONDS = 120.0
BATCH = 256  # connections that are opened before their answers are waited for
PORTS_EACH = 8000  # connections from one source address
NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT


def raise_files(count: int) -> bool:
    """Lets this process have so many open files; False: it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return True
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))
    except (ValueError, OSError):
        return False
    return True


class Member:
    """One connection of a swarm."""

    __slots__ = ("sock", "fd", "number", "buffer", "out", "reads", "eof", "events", "seen")

    def __init__(self, sock: socket.socket, number: int):
        self.sock = sock
        self.fd = sock.fileno()
        self.number = number
        self.buffer = bytearray()
        self.out = b""
        self.reads = True
        self.eof = False  # or reset
        self.events = 0
        self.seen = 0  # bytes of a stream that take_stream() has counted

    def take(self, size: int) -> bytes:
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def has_head(self) -> bool:
        return self.eof or b"\r\n\r\n" in self.buffer

    def take_head(self) -> bytes:
        return self.take(self.buffer.index(b"\r\n\r\n") + 4)

    def frame_size(self) -> int:
        """The whole size of the frame that the buffer begins with; 0: it is not whole."""
        have = len(self.buffer)
        if have < 2:
            return 0
        length, head = self.buffer[1], 2
        if length == 126:
            head = 4
            length = int.from_bytes(self.buffer[2:4], "big") if have >= 4 else 0
        elif length == 127:
            head = 10
            length = int.from_bytes(self.buffer[2:10], "big") if have >= 10 else 0
        return head + length if have >= head + length else 0

    def has_frame(self) -> bool:
        return self.eof or self.frame_size() > 0

    def take_frame(self) -> Tuple[int, bytes]:
        """(opcode, payload) of the frame that the buffer begins with."""
        size = self.frame_size()
        assert size, "no whole frame in %r" % bytes(self.buffer[:100])
        assert self.buffer[0] & 0x80 and not self.buffer[1] & 0x80
        head = {126: 4, 127: 10}.get(self.buffer[1], 2)
        data = self.take(size)
        return data[0] & 15, data[head:]


class Swarm:
    def __init__(self, address: Tuple[str, int]):
        self.address = address
        self.poll = select.epoll()
        self.members: List[Member] = []
        self.by_fd = {}
        self.opened = 0

    def __enter__(self) -> "Swarm":
        return self

    def __exit__(self, *exc) -> None:
        for member in list(self.members):
            self.drop(member)
        self.poll.close()

    # Connections

    def connect(self, receive_buffer: int = 0) -> Member:
        sock = socket.socket()
        if receive_buffer:
            # Small segments, too: with the loopback's of 64 KiB the server's kernel takes megabytes.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.opened >= PORTS_EACH:
            sock.setsockopt(socket.IPPROTO_IP, NO_PORT, 1)
            sock.bind(("127.0.0.%d" % (2 + self.opened // PORTS_EACH), 0))
        sock.connect(self.address)
        sock.setblocking(False)
        member = Member(sock, self.opened)
        self.opened += 1
        self.members.append(member)
        self.by_fd[member.fd] = member
        self._listen(member)
        return member

    def drop(self, member: Member, reset: bool = False) -> None:
        """Closes it, or with `reset` breaks it off."""
        if reset:
            member.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        if member.events:
            self.poll.unregister(member.fd)
        self.by_fd.pop(member.fd, None)
        member.sock.close()
        member.eof = True
        self.members.remove(member)

    def drop_all(self, reset: bool = False) -> None:
        members, self.members = self.members, []
        for member in members:
            self.members.append(member)
            self.drop(member, reset)

    def read(self, member: Member, reads: bool) -> None:
        member.reads = reads
        self._listen(member)

    def _listen(self, member: Member) -> None:
        events = (select.EPOLLIN if member.reads and not member.eof else 0) | (select.EPOLLOUT if member.out else 0)
        if events == member.events:
            return
        if not events:
            self.poll.unregister(member.fd)
        elif member.events:
            self.poll.modify(member.fd, events)
        else:
            self.poll.register(member.fd, events)
        member.events = events

    # Bytes

    def send(self, member: Member, data: bytes) -> None:
        member.out += data
        self._push(member)
        self._listen(member)

    def _push(self, member: Member) -> None:
        while member.out:
            try:
                member.out = member.out[member.sock.send(member.out) :]
            except BlockingIOError:
                return
            except OSError:
                member.out = b""

    def _pull(self, member: Member) -> None:
        try:
            data = member.sock.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        member.eof = not data
        member.buffer += data

    def turn(self, timeout: float = 1.0) -> List[Member]:
        """Handles what is ready; the connections that something has happened on."""
        found = []
        for fd, events in self.poll.poll(timeout, 1024):
            member = self.by_fd[fd]
            if events & ~select.EPOLLOUT and member.reads:
                self._pull(member)
            if events & ~select.EPOLLIN:
                self._push(member)
            self._listen(member)
            found.append(member)
        return found

    def wait(self, members: Iterable[Member], done: Callable[[Member], bool], what: str = "it") -> None:
        """Until `done` is true of each of them."""
        pending = {member for member in members if not done(member)}
        end = time.monotonic() + SECONDS
        while pending:
            for member in self.turn():
                if member in pending and done(member):
                    pending.discard(member)
            assert time.monotonic() < end, "%s: %d connections still wait" % (what, len(pending))

    # WebSockets

    def open_websockets(self, count: int, target: str = "/", receive_buffer: int = 0, fields: str = "") -> List[Member]:
        """So many more WebSockets that are open."""
        made = []
        request = handshake(target, fields)
        while len(made) < count:
            batch = [self.connect(receive_buffer) for _ in range(min(BATCH, count - len(made)))]
            for member in batch:
                self.send(member, request)
            self.wait(batch, Member.has_head, "the handshakes")
            for member in batch:
                head = member.take_head()
                assert head.startswith(b"HTTP/1.1 101 "), head
            made += batch
        return made


def text_frame(payload: bytes, opcode: int = 1) -> bytes:
    """A client's frame with a mask of zeros: nothing is to be computed for thousands of them."""
    length = len(payload)
    head = bytes([0x80 | opcode])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 65536:
        head += struct.pack("!BH", 0x80 | 126, length)
    else:
        head += struct.pack("!BQ", 0x80 | 127, length)
    return head + b"\0\0\0\0" + payload


# The server's process, from outside


def descriptors(pid: int) -> int:
    return len(os.listdir("/proc/%d/fd" % pid))


def anonymous_kb(pid: int) -> int:
    """Memory of a process that is its own, in KiB: the kernel's buffers of sockets are not in it."""
    if "libasan" in os.environ.get("STOKER_TEST_COMMAND", ""):
        return 0  # what it has is the sanitizer's
    with open("/proc/%d/status" % pid) as stream:
        for line in stream:
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    raise AssertionError("no RssAnon")
