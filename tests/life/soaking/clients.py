"""The clients of a soak: threads with blocking sockets that work on bytes.

Each kind is a class whose turn() sends one request or a few and checks the answers to the last
byte. Whatever goes wrong in a turn becomes a failure with the history of the connection.
"""

import collections
import random
import select
import socket
import threading
import time
import zlib

from tests.lib import websocket
from tests.lib.server import Connection, ProtocolError
from tests.life.soaking import app

IO_SECONDS = 40.0
FIELDS = "Host: soak\r\nUser-Agent: soak\r\nAccept: */*\r\n"


class Wrong(AssertionError):
    """An answer that is not the right one."""


class Link(Connection):
    """A connection that remembers what was done on it."""

    def __init__(self, address, receive_buffer=0):
        self.opened = time.monotonic()
        self.history = collections.deque(maxlen=24)
        self.last_pid = None
        self.port = 0
        self.closing = False  # the server has said so
        if receive_buffer:
            self.sock = socket.socket()
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.sock.settimeout(IO_SECONDS)
            self.sock.connect(address)
            self.buffer, self.eof = b"", False
        else:
            super().__init__(address, IO_SECONDS)
        self.port = self.sock.getsockname()[1]
        self.say("connected")

    def say(self, text):
        self.history.append((time.monotonic(), text))

    def is_closed(self):
        """Whether the end of the stream, or a reset, has come while nothing was asked."""
        if self.buffer or not select.select([self.sock], [], [], 0)[0]:
            return False
        try:
            data = self.sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True
        if data:
            raise Wrong("bytes that nobody asked for: %r" % self.sock.recv(200))
        return True


class Client(threading.Thread):
    """One thread of a kind; `period` is the mean time from the begin of one turn to the next."""

    kind = "?"
    keep = True
    receive_buffer = 0

    def __init__(self, ledger, address, period, seed):
        super().__init__(daemon=True)
        self.ledger = ledger
        self.address = address
        self.period = period
        self.random = random.Random(seed)
        self.link = None
        self.ended = threading.Event()

    def run(self):
        due = time.monotonic() + self.period * self.random.random()
        while not self.ended.wait(max(0.0, due - time.monotonic())):
            due = max(due + self.period * 2 * self.random.random(), time.monotonic() - 1)
            try:
                self.prepare()
                self.turn()
                if self.link is not None and (self.link.closing or not self.keep):
                    self.close()
            except (OSError, AssertionError) as error:
                self.link_failed(error)
        self.close()

    def link_failed(self, error):
        link = self.link
        if link is None:
            link = Absent()
        link.say("failed: %r" % error)
        self.ledger.fail(self.kind, link, "%s: %s" % (type(error).__name__, error))
        self.close()

    def close(self):
        if self.link is not None:
            self.link.close()
            self.link = None

    def prepare(self):
        """A connection that is open as far as one can know before something is sent."""
        if self.link is not None and self.link.is_closed():
            self.ledger.closed_idle(self.kind, self.link)
            self.close()
        if self.link is None:
            self.link = Link(self.address, self.receive_buffer)

    def turn(self):
        raise NotImplementedError

    # What the kinds are made of

    def head(self, method, path, number, query="", fields=""):
        close = "" if self.keep else "Connection: close\r\n"
        return (
            "%s %s?id=%d%s HTTP/1.1\r\n%s%s%s\r\n"
            % (method, path, number, query, FIELDS, fields, close)
        ).encode()

    def check(self, response, body, begin, kind=None):
        """The answer has this body; counts it."""
        if response.status != 200:
            raise Wrong("status %d: %r" % (response.status, response.body[:200]))
        if response.body != body:
            raise Wrong(
                "a body of %d bytes that begins %r instead of %d bytes that begin %r"
                % (len(response.body), response.body[:40], len(body), body[:40])
            )
        pid = response.header("x-pid")
        link = self.link
        if link.last_pid is not None and pid != link.last_pid:
            self.ledger.note("answers by another worker on the same connection")
        link.last_pid = pid
        if response.will_close:
            link.closing = True
            if self.keep:
                self.ledger.note("closed by the server with its last answer")
        link.say("answered by %s%s" % (pid, ", will close" if link.closing else ""))
        self.ledger.add_answer(kind or self.kind, link, time.monotonic() - begin)

    def ask(self, path="/get", size=0, query="", fields=""):
        """One plain request."""
        number = self.ledger.next_number()
        begin = time.monotonic()
        self.link.say("sends GET %s id=%d" % (path, number))
        self.link.send(self.head("GET", path, number, "&size=%d%s" % (size, query), fields))
        self.check(self.link.read_response(), app.expected(number, size), begin)


class Absent:
    """Stands for the connection that could not be made."""

    port = 0
    last_pid = None
    closing = False

    def __init__(self):
        self.opened = time.monotonic()
        self.history = collections.deque()

    def say(self, text):
        self.history.append((time.monotonic(), text))


class KeepAlive(Client):
    kind = "keep-alive"
    path = "/get"

    def turn(self):
        self.ask(self.path, self.random.choice((0, 14, 200, 5000, 40000)))
        if self.random.random() < 0.002:
            self.close()


class Compute(KeepAlive):
    kind = "compute"
    path = "/compute"


class Idle(KeepAlive):
    """Keep-alive with long pauses, as browsers have them."""

    kind = "idle"


class Close(Client):
    kind = "close"
    keep = False

    def turn(self):
        self.ask(size=self.random.choice((0, 14, 5000)))


class Burst(Client):
    """Some connections at once, each asked once: the queues of all listening sockets."""

    kind = "burst"
    keep = False

    def prepare(self):
        self.link = None

    def turn(self):
        links = []
        try:
            for _ in range(12):
                self.link = None
                self.link = Link(self.address)
                number, begin = self.ledger.next_number(), time.monotonic()
                links.append((self.link, number, begin))
                self.link.say("sends GET id=%d" % number)
                self.link.send(self.head("GET", "/get", number, "&size=14"))
            for self.link, number, begin in links:
                self.check(self.link.read_response(), app.expected(number, 14), begin)
        finally:
            failed = self.link
            for link, _, _ in links:
                if link is not failed:
                    link.close()


class Pipelined(Client):
    kind = "pipelined"

    def turn(self):
        numbers = [self.ledger.next_number() for _ in range(self.random.randint(2, 16))]
        begin = time.monotonic()
        self.link.say("sends %d requests from id=%d" % (len(numbers), numbers[0]))
        self.link.send(b"".join(self.head("GET", "/get", n, "&size=300") for n in numbers))
        for done, number in enumerate(numbers, 1):
            self.check(self.link.read_response(), app.expected(number, 300), begin)
            if self.link.closing:
                # What is behind an announced close was not processed, and may be sent again.
                self.ledger.note("pipelined behind an announced close", len(numbers) - done)
                break


class SlowHead(Client):
    kind = "slow head"

    def turn(self):
        number = self.ledger.next_number()
        data = self.head("GET", "/get", number, "&size=100", "X-Long: %s\r\n" % ("x" * 200))
        begin = time.monotonic()
        pieces = self.random.randint(4, 16)
        size = len(data) // pieces + 1
        self.link.say("sends a head in %d pieces, id=%d" % (pieces, number))
        for at in range(0, len(data), size):
            self.link.send(data[at : at + size])
            self.link.say("sent up to byte %d" % (at + size))
            time.sleep(self.random.random() * 0.4)
        self.check(self.link.read_response(), app.expected(number, 100), begin)


class SlowRead(Client):
    kind = "slow read"
    keep = False
    receive_buffer = 16384

    def turn(self):
        number = self.ledger.next_number()
        size = self.random.randint(500000, 2000000)
        begin = time.monotonic()
        self.link.say("sends GET of %d bytes, id=%d" % (size, number))
        self.link.send(self.head("GET", "/get", number, "&size=%d" % size))
        response = self.link.read_head()
        self.link.say("has the head, by %s" % response.header("x-pid"))
        parts, missing = [], int(response.header("content-length"))
        while missing:
            part = self.link.read_bytes(min(missing, 50000))
            parts.append(part)
            missing -= len(part)
            self.link.say("%d bytes are missing" % missing)
            time.sleep(0.03 + 0.05 * self.random.random())
        response.body = b"".join(parts)
        self.check(response, app.expected(number, size), begin)


class Upload(Client):
    kind = "upload"
    sizes = (10000, 5000000)
    pause = 0.0

    def turn(self):
        size = int(self.sizes[0] * (self.sizes[1] / self.sizes[0]) ** self.random.random())
        number = self.ledger.next_number()
        body = memoryview(app.DATA * 2)[number % 1000 : number % 1000 + size]
        answer = b"%d;%d;%d" % (number, size, zlib.crc32(body))
        chunked = self.random.random() < 0.3
        waits = self.random.random() < 0.2
        fields = "Transfer-Encoding: chunked\r\n" if chunked else "Content-Length: %d\r\n" % size
        fields += "Expect: 100-continue\r\n" if waits else ""
        begin = time.monotonic()
        self.link.say("sends POST of %d bytes (%s), id=%d" % (size, fields.split("\r")[0], number))
        self.link.send(self.head("POST", "/upload", number, "", fields))
        if waits:
            interim = self.link.read_head()
            if interim.status != 100:
                raise Wrong("status %d instead of 100" % interim.status)
            self.link.say("was told to go on")
        self.send_body(body, chunked)
        self.link.say("has sent all")
        response = self.link.read_response("POST")
        if self.ledger.stuck and response.status == 504 and size > 65000:
            # Too large to move away from behind a call that does not return.
            self.ledger.note("large uploads waited for a worker's only thread until their deadline")
            self.close()
            return
        self.check(response, answer, begin)

    def send_body(self, body, chunked):
        step = max(1000, len(body) // self.random.randint(2, 20))
        for at in range(0, len(body), step):
            part = body[at : at + step]
            if chunked:
                self.link.send(b"%x\r\n" % len(part) + bytes(part) + b"\r\n")
            else:
                self.link.send(bytes(part))
            if self.pause:
                self.link.say("sent up to byte %d of the body" % (at + step))
                time.sleep(self.pause * 2 * self.random.random())
        if chunked:
            self.link.send(b"0\r\n\r\n")


class SlowUpload(Upload):
    kind = "slow upload"
    sizes = (10000, 60000)
    pause = 0.15


class Stream(Client):
    kind = "stream"

    def turn(self):
        number = self.ledger.next_number()
        blocks = self.random.randint(3, 20)
        begin = time.monotonic()
        self.link.say("asks for a stream of %d blocks, id=%d" % (blocks, number))
        query = "&blocks=%d&pause=%.3f" % (blocks, self.random.choice((0, 0.002, 0.02)))
        self.link.send(self.head("GET", "/stream", number, query))
        response = self.link.read_head()
        self.link.say("has the head, by %s" % response.header("x-pid"))
        self.link.read_body(response)
        if response.framing != "chunked":
            raise Wrong("a stream framed by %s" % response.framing)
        body = b"".join(app.expected(number + index, 1024) for index in range(blocks))
        self.check(response, body, begin)


class Stuck(Client):
    """A request that never returns: 504 from the server, and the end of the connection."""

    kind = "stuck"

    def turn(self):
        number = self.ledger.next_number()
        how = self.random.choice(("loop", "lock", "sleep", "loop", "lock", "c"))
        begin = time.monotonic()
        self.link.say("asks for what never returns (%s), id=%d" % (how, number))
        self.link.send(self.head("GET", "/stuck", number, "&how=%s" % how))
        response = self.link.read_response()
        if response.status != 504 or not response.will_close:
            raise Wrong("%r instead of 504 and a close" % response)
        if not self.link.at_end():
            raise Wrong("bytes behind a 504")
        self.ledger.add_answer(self.kind, self.link, time.monotonic() - begin)
        self.close()


class Wait(KeepAlive):
    """A request that waits in the event loop."""

    kind = "wait"

    def turn(self):
        size = self.random.choice((0, 14, 5000))
        self.ask("/wait", size, "&pause=%.3f" % self.random.choice((0, 0.001, 0.02, 0.3)))


class Socket(Client):
    """A WebSocket. One that is closed with 1012 or 1001 has been told so, and is opened again."""

    kind = "websocket"
    burst = 4
    closes = False  # it has sent a close frame

    def prepare(self):
        if self.link is not None:
            while self.link is not None and (self.link.buffer or select.select([self.link.sock], [], [], 0)[0]):
                self.take_frame()
        if self.link is None:
            self.closes = False
            self.link = Link(self.address)
            self.link.say("sends a handshake")
            self.link.send(websocket.handshake("/socket"))
            response = self.link.read_head()
            if response.status != 101:
                raise Wrong("status %d for a handshake" % response.status)
            self.link.last_pid = response.header("x-pid")
            self.link.say("opened by %s" % self.link.last_pid)

    def take_frame(self):
        """The payload of the next message; None: a frame that is none."""
        first, length = self.link.read_bytes(2)
        if length > 125:
            length = int.from_bytes(self.link.read_bytes(2 if length == 126 else 8), "big")
        payload = self.link.read_bytes(length)
        if first == 0x80 | websocket.PING:
            self.link.send(websocket.frame(websocket.PONG, payload))
        elif first == 0x80 | websocket.CLOSE:
            self.end(int.from_bytes(payload[:2], "big"))
        elif first == 0x80 | websocket.BINARY:
            return payload
        else:
            raise Wrong("a frame that begins %02x" % first)
        return None

    def end(self, code):
        self.link.say("was closed with %d" % code)
        if code not in ((1000, 1001, 1012) if self.closes else (1001, 1012)):
            raise Wrong("closed with %d" % code)
        self.ledger.note("WebSockets closed with %d" % code)
        try:
            self.link.send(websocket.frame(websocket.CLOSE, code.to_bytes(2, "big")))
            if not self.link.at_end():
                raise Wrong("bytes behind a close frame")
        except ConnectionError:
            pass  # it has said all that it had to say
        self.close()

    def turn(self):
        asked = []
        begin = time.monotonic()
        for _ in range(self.random.randint(1, self.burst)):
            number, size = self.ledger.next_number(), self.random.choice((0, 100, 200, 5000, 70000))
            asked.append((number, size))
        self.link.say("sends %d messages from id=%d" % (len(asked), asked[0][0]))
        frames = [websocket.frame(websocket.TEXT, b"%d %d" % one) for one in asked]
        try:
            self.link.send(b"".join(frames))
        except ConnectionError:
            pass  # closed meanwhile: what was said before is read
        for number, size in asked:
            found = None
            while found is None and self.link is not None:
                found = self.take_frame()
            if self.link is None:
                return  # closed: what was not answered may be sent again
            if found != app.expected(number, size):
                raise Wrong("a message of %d bytes that begins %r" % (len(found), found[:40]))
            self.ledger.add_answer(self.kind, self.link, time.monotonic() - begin)
        if self.random.random() < 0.01:
            self.closes = True
            self.link.send(websocket.frame(websocket.CLOSE, b"\x03\xe8"))
            while self.link is not None:
                self.take_frame()


class IdleSocket(Socket):
    """Hears of a reload while it waits."""

    kind = "idle websocket"
    burst = 1


# (kind, number of threads, share of the rate or the period of one thread in seconds)
FAST = ((KeepAlive, 10, 0.70), (Close, 4, 0.15), (Pipelined, 2, 0.015))
PACED = (
    (Idle, 8, 2.5),
    (Burst, 1, 3.0),
    (SlowHead, 4, 3.0),
    (SlowRead, 3, 3.0),
    (Upload, 3, 0.5),
    (SlowUpload, 3, 3.0),
    (Stream, 3, 0.6),
)


ASYNC = ((Wait, 6, 0.1), (Socket, 6, 0.1), (IdleSocket, 10, 4.0))


def make(ledger, address, rate, seed, compute=False, stuck=False, asynchronous=False):
    """The threads of the mixed load at about `rate` requests a second of the fast kinds."""
    clients = []
    for cls, count, share in FAST:
        if compute and cls is KeepAlive:
            cls = Compute
        for _ in range(count):
            clients.append(cls(ledger, address, count / (rate * share), seed + len(clients)))
    paced = PACED + (ASYNC if asynchronous else ()) + (((Stuck, 2, 6.0),) if stuck else ())
    for cls, count, period in paced:
        for _ in range(count):
            clients.append(cls(ledger, address, period, seed + len(clients)))
    return clients
