"""Thousands of connections of one worker at once: none is lost, none costs more than it may, and nothing
of them stays behind.

STOKER_SCALE multiplies the numbers: 10 for ten thousand WebSockets.
"""

import asyncio
import importlib.util
import os
import signal
import struct
import time

import pytest

from tests.lib.swarm import Member, Swarm, anonymous_kb, descriptors, raise_files, text_frame
from tests.lib.websocket import CLOSE, PING, PONG, TEXT

SCALE = float(os.environ.get("STOKER_SCALE", "1"))
LOOPS = ["asyncio"] + (["uvloop"] if importlib.util.find_spec("uvloop") else [])

APP = """
    import asyncio, ctypes, gc, json, os

    class Heap(ctypes.Structure):  # what mallinfo2() of glibc 2.33 and later returns
        _fields_ = [(name, ctypes.c_size_t) for name in ("arena ordblks smblks hblks hblkhd usmblks fsmblks "
                                                         "uordblks fordblks keepcost").split()]

    def in_use():
        # Bytes of the heap that somebody has, whatever lies unused between them; None: not known.
        info = getattr(ctypes.CDLL(None), "mallinfo2", None)
        if info is None:
            return None
        info.restype = Heap
        return info().uordblks + info().hblkhd

    opened = {}
    gate = asyncio.Event()

    async def answer(send, value, kind=b"application/json"):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": value})

    async def state(scope, receive, send):
        gc.collect()
        tasks = len(asyncio.all_tasks())
        await answer(send, json.dumps({"pid": os.getpid(), "tasks": tasks, "open": len(opened), "heap": in_use()}).encode())

    async def let_go(scope, receive, send):
        gate.set()
        await answer(send, b"null")

    async def close_gate(scope, receive, send):
        gate.clear()
        await answer(send, b"null")

    async def count(receive):
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            size += len(message["body"])
            if not message["more_body"]:
                return size

    async def upload(scope, receive, send):
        size = await count(receive)
        if size is not None:
            await answer(send, b"%d" % size)

    async def deaf_upload(scope, receive, send):
        opened[send] = None
        await gate.wait()
        del opened[send]
        await upload(scope, receive, send)

    async def stream(scope, receive, send):
        blocks = int(scope["query_string"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % (blocks << 16))]})
        for number in range(blocks):
            await send({"type": "http.response.body", "body": bytes([number & 255]) * 65536, "more_body": True})
        await send({"type": "http.response.body"})

    async def wait(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass

    async def connect(receive, send):
        await receive()
        await send({"type": "websocket.accept"})

    async def echo(scope, receive, send):
        await connect(receive, send)
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            await send({**message, "type": "websocket.send"})

    async def feed(send, queue):
        while True:
            await send({"type": "websocket.send", "bytes": await queue.get()})

    async def join(scope, receive, send):
        await connect(receive, send)
        opened[send] = queue = asyncio.Queue()
        feeder = asyncio.create_task(feed(send, queue))
        try:
            while (await receive())["type"] != "websocket.disconnect":
                pass
        finally:
            del opened[send]
            feeder.cancel()

    async def broadcast(scope, receive, send):
        size, times = map(int, scope["query_string"].split(b","))
        for number in range(times):
            data = b"%08d" % number + bytes(size - 8)
            for queue in opened.values():
                queue.put_nowait(data)
            await asyncio.sleep(0)
        await answer(send, b"null")

    async def queued(scope, receive, send):
        await answer(send, json.dumps(sorted(queue.qsize() for queue in opened.values())).encode())

    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            await globals()[scope["path"].strip("/") or "echo"](scope, receive, send)
"""


def scaled(count):
    return max(10, int(count * SCALE))


def until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what if isinstance(what, str) else what()
        time.sleep(0.02)


class Watch:
    """What the worker has now, against what it had at first."""

    def __init__(self, server):
        self.server = server
        self.state = server.get("/state").json()
        self.pid = self.state["pid"]
        self.files = descriptors(self.pid)
        self.memory = anonymous_kb(self.pid)
        self.rests = []

    def grown(self):
        """KiB of memory."""
        return anonymous_kb(self.pid) - self.memory

    def expect_each(self, count, most, what):
        """It has grown by at most so many KiB for each of `count` connections."""
        grown = self.grown()
        print("%s: %.2f KiB for each of %d" % (what, grown / count, count))
        assert grown / count <= most, "%s: %d KiB for %d connections" % (what, grown, count)

    def expect_rest(self):
        """No connection, task or descriptor is left of what was there."""
        now = {}

        def rests():
            now.update(self.server.get("/state").json(), files=descriptors(self.pid))
            return now["tasks"] <= self.state["tasks"] + 64 and now["files"] <= self.files + 2 and now["open"] == 0

        until(rests, lambda: "it does not come to rest: %r, at first %r and %d files" % (now, self.state, self.files))
        assert now["pid"] == self.pid
        self.rests.append(now["heap"])

    def expect_no_leak(self, count):
        """Since it came to rest for the first time, `count` connections have left nothing: what caches still take
        is less than 100 bytes for each. (The pages that the process has say less: they are full of holes.)"""
        if None not in self.rests:
            print("left of %d: %r" % (count, [rest - self.rests[0] for rest in self.rests]))
            assert self.rests[-1] - self.rests[0] <= count * 100 + 200_000, self.rests


@pytest.fixture(scope="module", params=LOOPS)
def server(request, serve_module):
    files = int(scaled(1000) * 1.2) + 500
    if not raise_files(files):
        pytest.skip("this process may not have %d files open" % files)
    return serve_module(APP, "--workers", "1", "--loop", request.param, "--request-timeout", "off", "--send-timeout", "5m",
                        "--body-timeout", "5m", "--body-min-rate", "0")


@pytest.fixture
def swarm(server):
    with Swarm(server.address) as swarm:
        yield swarm
    server.get("/let_go")


def echo_all(swarm, members, payload):
    for member in members:
        swarm.send(member, text_frame(b"%06d" % member.number + payload))
    swarm.wait(members, Member.has_frame, "the echoes")
    for member in members:
        assert member.take_frame() == (TEXT, b"%06d" % member.number + payload)
        assert not member.buffer


def test_many_websockets(server):
    """They echo, all of them and side by side. Later rounds leave nothing behind."""
    count = scaled(1000)
    watch = Watch(server)
    for _ in range(3):
        with Swarm(server.address) as swarm:
            members = swarm.open_websockets(count)
            for payload in (b"", b"x" * 200, b"y" * 5000):
                echo_all(swarm, members, payload)
            # A task, coroutines, the scope and the server's own: about 10 KiB.
            watch.expect_each(count, 20, "open WebSockets")
            assert server.get("/state").json()["tasks"] >= count
            third = count // 3
            for member in members[:third]:
                swarm.send(member, text_frame(struct.pack("!H", 1000), CLOSE))
            swarm.wait(members[:third], lambda member: member.eof, "the ends")
            for member in members[:third]:
                assert member.take_frame() == (CLOSE, b"\x03\xe8")
            for member in members[third : 2 * third]:
                swarm.drop(member, reset=True)
        watch.expect_rest()
    watch.expect_no_leak(2 * count)


def head(method, target, *fields):
    return ("%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (method, target, "".join(field + "\r\n" for field in fields))).encode()


UPLOAD = 256 * 1024


def begin_uploads(swarm, count, target, first):
    members = [swarm.connect() for _ in range(count)]
    for member in members:
        swarm.send(member, head("POST", target, "Content-Length: %d" % UPLOAD) + bytes(first))
    return members


def expect_answers(swarm, members, body):
    def answered(member):
        return member.eof or bytes(member.buffer).endswith(b"\r\n\r\n" + body)

    swarm.wait(members, answered, "the answers")
    for member in members:
        assert member.buffer.startswith(b"HTTP/1.1 200 ") and member.buffer.endswith(body), bytes(member.buffer[:300])


def test_slow_uploads(server, swarm):
    """What the application takes as it comes is not kept by the server."""
    count = scaled(500)
    watch = Watch(server)
    members = begin_uploads(swarm, count, "/upload", 20000)
    until(lambda: server.get("/state").json()["tasks"] >= count, "the uploads have not begun")
    for _ in range(4):
        for member in members:
            swarm.send(member, bytes(20000))
        swarm.wait(members, lambda member: not member.out, "the uploads")
    # The application's last message of 20000 bytes, and about 4 KiB; not the 100000 that have come.
    watch.expect_each(count, 40, "slow uploads")
    for member in members:
        swarm.send(member, bytes(UPLOAD - 100000))
    expect_answers(swarm, members, b"%d" % UPLOAD)
    swarm.drop_all()
    watch.expect_rest()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_upload_of_any_size(server, framing):
    """What has been read is kept neither in memory nor in a file."""
    watch = Watch(server)
    block, count = bytes(1 << 20), 48
    with server.connect() as conn:
        fields = "Transfer-Encoding: chunked" if framing == "chunked" else "Content-Length: %d" % (len(block) * count)
        conn.send(head("POST", "/upload", fields))
        for number in range(count):
            conn.send(b"%x\r\n" % len(block) + block + b"\r\n" if framing == "chunked" else block)
            if number == count - 2:
                assert watch.grown() < 8000
                files = [os.readlink("/proc/%d/fd/%s" % (watch.pid, fd)) for fd in os.listdir("/proc/%d/fd" % watch.pid)]
                assert not [name for name in files if name.endswith("(deleted)") and "/memfd:" not in name]
        if framing == "chunked":
            conn.send(b"0\r\n\r\n")
        assert conn.read_response("POST").body == b"%d" % (len(block) * count)


def test_uploads_that_nobody_reads(server, swarm):
    """They stay in the kernel's buffers, and then with the client."""
    count = scaled(300)
    watch = Watch(server)
    server.get("/close_gate")
    members = begin_uploads(swarm, count, "/deaf_upload", UPLOAD)
    until(lambda: server.get("/state").json()["open"] == count, "the uploads have not begun")
    for _ in range(20):
        swarm.turn(0.01)
    # What had come with the head, which is a read of at most 64 KiB.
    watch.expect_each(count, 100, "uploads that nobody reads")
    server.get("/let_go")
    expect_answers(swarm, members, b"%d" % UPLOAD)
    swarm.drop_all()
    watch.expect_rest()


def test_streams_that_nobody_reads(server, swarm):
    """The application waits at the high mark of what is queued: 64 KiB, and the block that exceeds it."""
    count, blocks = scaled(100), 16
    watch = Watch(server)
    members = [swarm.connect(receive_buffer=4096) for _ in range(count)]
    for member in members:
        swarm.read(member, False)
        swarm.send(member, head("GET", "/stream?%d" % blocks))
    until(lambda: server.get("/state").json()["tasks"] >= count, "the streams have not begun")
    seen = -1
    while watch.grown() != seen:
        seen = watch.grown()
        time.sleep(0.3)
    watch.expect_each(count, 64 + 2 * 64 + 16, "streams that nobody reads")
    size = blocks << 16
    for member in members:
        swarm.read(member, True)

    def is_whole(member):
        if member.seen == 0 and b"\r\n\r\n" in member.buffer:
            member.take_head()
            member.seen = 1
        if member.seen:  # all of it would be too much to keep
            begin = member.seen - 1
            for at in range(begin, begin + len(member.buffer), 4096):
                assert member.buffer[at - begin] == (at >> 16 & 255)
            member.seen += len(member.buffer)
            member.buffer.clear()
        return member.eof or member.seen > size

    swarm.wait(members, is_whole, "the streams")
    assert {member.seen for member in members} == {size + 1}
    swarm.drop_all()
    watch.expect_rest()


def test_broadcast(server, swarm):
    """Who does not read gets what it has missed when it does; nobody else waits for it."""
    count, deaf, size, times = scaled(1000), 20, 20000, 15
    watch = Watch(server)
    listeners = swarm.open_websockets(count - deaf, "/join")
    sleepers = swarm.open_websockets(deaf, "/join", receive_buffer=4096)
    for member in sleepers:
        swarm.read(member, False)
    with server.connect() as conn:
        conn.send(head("GET", "/broadcast?%d,%d" % (size, times)))

        def hears(member):
            while member.frame_size():
                opcode, data = member.take_frame()
                if opcode == PING:
                    swarm.send(member, text_frame(data, PONG))
                    continue
                assert opcode == 2 and len(data) == size and int(data[:8]) == member.seen
                member.seen += 1
            return member.eof or member.seen == times

        swarm.wait(listeners, hears, "the listeners")
        assert {member.seen for member in listeners} == {times}
        assert conn.read_response().status == 200
    queued = server.get("/queued").json()
    assert queued[: count - deaf] == [0] * (count - deaf)
    assert queued[-deaf] > 0  # the application's own queues hold the rest
    echoes = swarm.open_websockets(10)
    echo_all(swarm, echoes, b"meanwhile")
    for member in sleepers:
        swarm.read(member, True)
    swarm.wait(sleepers, hears, "those that did not read")
    assert {member.seen for member in sleepers} == {times}
    swarm.drop_all()
    watch.expect_rest()


def test_resets_of_everything(server, swarm):
    """WebSockets, half handshakes, uploads, streams and waiting requests that end at once by RST."""
    count = scaled(150)
    watch = Watch(server)
    for _ in range(3):
        swarm.open_websockets(count)
        swarm.open_websockets(count, "/join")
        begin_uploads(swarm, count, "/upload", 1000)
        for target in ("/stream?1000", "/wait"):
            for _ in range(count):
                member = swarm.connect()
                swarm.read(member, False)
                swarm.send(member, head("GET", target))
        for _ in range(count):
            swarm.send(swarm.connect(), b"GET / HTTP/1.1\r\nUpgrade: webso")
        until(lambda: server.get("/state").json()["tasks"] >= 5 * count, "they have not all begun")
        swarm.drop_all(reset=True)
        watch.expect_rest()
    watch.expect_no_leak(2 * 6 * count)


def closed_with(swarm, members, code):
    swarm.wait(members, Member.has_frame, "the close frames")
    for member in members:
        assert member.take_frame() == (CLOSE, struct.pack("!H", code))
        swarm.send(member, text_frame(struct.pack("!H", code), CLOSE))
    swarm.wait(members, lambda member: member.eof, "the ends")


def test_reload_and_death(server, swarm):
    """Every one is told of a reload; the old worker ends, and a new one serves who comes back. Those of a
    worker that is killed are gone, and served again as well."""
    count = scaled(1000)
    old = server.get("/state").json()["pid"]
    members = swarm.open_websockets(count)
    echo_all(swarm, members, b"before")
    server.send_signal(signal.SIGHUP)
    closed_with(swarm, members, 1012)
    swarm.drop_all()
    until(lambda: not os.path.exists("/proc/%d" % old), "the old worker does not end")
    new = server.get("/state").json()["pid"]
    assert new != old
    members = swarm.open_websockets(count)
    echo_all(swarm, members, b"behind")
    os.kill(new, signal.SIGKILL)
    swarm.wait(members, lambda member: member.eof, "the ends of those of a killed worker")
    swarm.drop_all()
    members = swarm.open_websockets(count)
    echo_all(swarm, members, b"again")
    swarm.drop_all()
    assert server.get("/state").json()["pid"] not in (old, new)
