"""What the tests of this folder ask of an ASGI application: one handler a path."""

import asyncio
import contextvars
import gc
import json
import os
import sys
import threading
import time
import weakref

TEXT = (b"content-type", b"text/plain")
VAR = contextvars.ContextVar("VAR", default="clean")
MUTABLE = contextvars.ContextVar("MUTABLE")
by_task = weakref.WeakKeyDictionary()
strong = {}
log = []
events = {}
held = []
sessions = []
writers = []
by_name = {}


def event(name):
    return events.setdefault(name, asyncio.Event())


async def reply(send, value, status=200, headers=(TEXT,)):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def read(receive):
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body, message
        body += message["body"]
        if not message["more_body"]:
            return body, None


# ---- scope --------------------------------------------------------------------------------------


async def scope(scope, receive, send):
    await reply(send, repr(scope).encode())


async def spoil(scope, receive, send):
    """Writes to all that could be shared with the next request."""
    scope["headers"].append((b"x-spoiled", b"1"))
    for extension in scope["extensions"].values():
        extension["spoiled"] = True
    scope["extensions"]["spoiled"] = {}
    scope["asgi"]["spoiled"] = True
    scope["state"]["spoiled"] = True
    scope["spoiled"] = True
    await reply(send, b"spoiled")


async def keep_scope(scope, receive, send):
    """Keeps the scope, and says what all that were kept have in them."""
    if b"wait" in scope["query_string"]:
        await asyncio.sleep(0)
    if b"write" in scope["query_string"]:
        scope["state"]["mine"] = scope["path"]
        scope["headers"].append((b"x-mine", scope["query_string"]))
    held.append(scope)
    await reply(send, [[kept["path"], kept["query_string"].decode(), kept["state"].get("mine"),
                        [value.decode() for name, value in kept["headers"] if name.startswith(b"x-")]]
                       for kept in held])


async def keep_part(scope, receive, send):
    """Keeps only a dict or the list of it."""
    which, _, key = scope["query_string"].decode().partition("+")
    held.append(scope[which][key] if key else scope[which])
    await reply(send, [len(held[0]), any(part is held[-1] for part in held[:-1])])


async def write_extension(scope, receive, send):
    """Writes to one of the dicts of the extensions when four requests are here; what is in it."""
    mine = scope["extensions"]["http.response.pathsend"]
    writers.append(asyncio.get_running_loop().create_future())
    if len(writers) == 4:
        for future in writers:
            future.set_result(None)
        writers.clear()
    else:
        await writers[-1]
    mine[len(mine)] = True
    await asyncio.sleep(0)
    await reply(send, list(mine))


async def keep_all(scope, receive, send):
    """Keeps all dicts and lists that look like scopes and headers; whether one of them has changed since."""
    found = [held[at] == held[at + 1] for at in range(0, len(held), 2)]
    for one in gc.get_objects():
        looks = "raw_path" in one if type(one) is dict else type(one) is list and one and one[0] in scope["headers"]
        if looks and one is not scope:
            held.extend((one, one.copy()))
    await reply(send, [len(found), all(found)])


async def state_session(scope, receive, send):
    """Puts what nobody else holds into the state and, if asked to, into the scope."""
    mine = Session()
    sessions.append(weakref.ref(mine))
    found = len(scope["state"])
    scope["state"]["session"] = mine
    if b"scope" in scope["query_string"]:
        scope["session"] = mine
    del mine
    await maybe_wait(scope)
    await reply(send, [found, "session" in scope["state"]])


# ---- bodies -------------------------------------------------------------------------------------


async def echo(scope, receive, send):
    body, _ = await read(receive)
    await reply(send, body)


async def count(scope, receive, send):
    """The number of messages and bytes."""
    messages = size = 0
    while True:
        message = await receive()
        messages += 1
        size += len(message["body"])
        if not message["more_body"]:
            break
        await asyncio.sleep(0)
    await reply(send, [messages, size])


async def unread(scope, receive, send):
    await reply(send, b"unread")


async def twice(scope, receive, send):
    """The second receive() waits until the response is complete."""
    await receive()
    task = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    waits = not task.done()
    await reply(send, [waits])
    log.append(await task)


async def as_tasks(scope, receive, send):
    """Servers whose receive is a coroutine function allow this."""
    message = await asyncio.create_task(receive())
    await asyncio.wait_for(receive_again(receive), 0.01) if scope["query_string"] else None
    await asyncio.create_task(send({"type": "http.response.start", "status": 200, "headers": []}))
    await asyncio.gather(send({"type": "http.response.body", "body": message["body"]}))


async def receive_again(receive):
    return await receive()


# ---- responses ----------------------------------------------------------------------------------


async def parts(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [TEXT]})
    for number in range(10):
        await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
        if scope["query_string"] == b"wait":
            await asyncio.sleep(0)
    await send({"type": "http.response.body"})


async def gated(scope, receive, send):
    """Each part waits until /open?NAME lets it go."""
    await send({"type": "http.response.start", "status": 200, "headers": [TEXT]})
    for number in range(4):
        if number:
            gate = event(scope["query_string"].decode())
            await gate.wait()
            gate.clear()
        await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def open(scope, receive, send):
    event(scope["query_string"].decode()).set()
    await reply(send, b"open")


async def forms(scope, receive, send):
    """Headers as an iterator of lists, a body as a memoryview."""
    await send(
        {
            "type": "http.response.start",
            "status": 201,
            "headers": iter([[b"x-a", b"1"], (b"x-b", b"2"), [b"transfer-encoding", b"gzip"], [b"connection", b"close"]]),
        }
    )
    await send({"type": "http.response.body", "body": memoryview(b"view")[1:], "more_body": False})


async def endless(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [TEXT]})
    sent = 0
    try:
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            sent += 1
            if sent % 16 == 0:
                log.append(sent)
    except OSError as error:
        log.append("OSError %d" % error.errno)
        raise


async def pathsend(scope, receive, send):
    path = scope["query_string"].decode()
    headers = [(b"content-length", b"%d" % os.path.getsize(path))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.pathsend", "path": path})


async def zerocopy(scope, receive, send):
    path, _, rest = scope["query_string"].decode().partition(",")
    offset, _, count = rest.partition(",")
    await send({"type": "http.response.start", "status": 200, "headers": [TEXT]})
    await send({"type": "http.response.body", "body": b"<", "more_body": True})
    with os.fdopen(os.open(path, os.O_RDONLY), "rb") as file:
        await send(
            {
                "type": "http.response.zerocopysend",
                "file": file,
                "offset": int(offset),
                "count": int(count),
                "more_body": True,
            }
        )
    await send({"type": "http.response.body", "body": b">"})


# ---- mistakes -----------------------------------------------------------------------------------

START = {"type": "http.response.start", "status": 200, "headers": []}
MISTAKES = {
    "body first": [{"type": "http.response.body", "body": b"x"}],
    "two starts": [START, START],
    "unknown": [{"type": "http.response.nonsense"}],
    "websocket": [{"type": "websocket.accept"}],
    "no type": [{"status": 200}],
    "no dict": ["http.response.start"],
    "no status": [{"type": "http.response.start"}],
    "status text": [{"type": "http.response.start", "status": "200"}],
    "status 99": [{"type": "http.response.start", "status": 99}],
    "header str": [{"type": "http.response.start", "status": 200, "headers": [("a", "b")]}],
    "header one": [{"type": "http.response.start", "status": 200, "headers": [(b"a",)]}],
    "header newline": [{"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\r\nc: d")]}],
    "header name": [{"type": "http.response.start", "status": 200, "headers": [(b"a b", b"c")]}],
    "body str": [START, {"type": "http.response.body", "body": "text"}],
    "trailers": [START, {"type": "http.response.trailers", "headers": []}],
}


async def mistake(scope, receive, send):
    for message in MISTAKES[scope["query_string"].decode().replace("_", " ")]:
        await send(message)


async def caught(scope, receive, send):
    """A mistake that the application catches leaves the response as it was."""
    try:
        await send({"type": "http.response.body", "body": b"x"})
    except RuntimeError as error:
        await reply(send, str(error).encode())


async def late(scope, receive, send):
    await reply(send, b"done")
    try:
        await send({"type": "http.response.body", "body": b"more"})
    except RuntimeError as error:
        log.append(str(error))


async def error(scope, receive, send):
    raise ValueError("before the start")


async def error_later(scope, receive, send):
    await asyncio.sleep(0)
    raise ValueError("after a pause")


async def error_in_body(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [TEXT]})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    await asyncio.sleep(0.01)
    raise ValueError("within the body")


async def error_behind(scope, receive, send):
    await reply(send, b"fine")
    await asyncio.sleep(0)
    raise ValueError("behind the response")


async def nothing(scope, receive, send):
    pass


async def half(scope, receive, send):
    await send(START)


async def exits(scope, receive, send):
    sys.exit("no")


async def short(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
    await send({"type": "http.response.body", "body": b"short"})


async def long(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"toolong"})


# ---- tasks --------------------------------------------------------------------------------------


async def maybe_wait(scope):
    if b"wait" in scope["query_string"]:
        await asyncio.sleep(0)
    if b"sleep" in scope["query_string"]:
        await asyncio.sleep(0.002)


async def task(scope, receive, send):
    """One task through all of the request, that is in all_tasks()."""
    before = asyncio.current_task()
    await maybe_wait(scope)
    same = before is asyncio.current_task() and before in asyncio.all_tasks()
    running = asyncio.get_running_loop() is asyncio.get_event_loop()
    await reply(send, [before is not None, same, running, before.done()])


async def shared(scope, receive, send):
    """All requests of a time await one future, each in its first step."""
    if "shared" not in by_name:
        by_name["shared"] = asyncio.ensure_future(asyncio.sleep(0.05, "one"))
        by_name["shared"].add_done_callback(lambda _: by_name.pop("shared"))
    await reply(send, await by_name["shared"])


async def var(scope, receive, send):
    before = VAR.get()
    token = VAR.set("dirty")
    await maybe_wait(scope)
    inside = VAR.get()
    if b"reset" in scope["query_string"]:
        VAR.reset(token)
    await reply(send, [before, inside])


class Session:
    """What a context variable holds."""


async def session(scope, receive, send):
    """Sets a variable to what nobody else holds, and maybe keeps the way back."""
    found = MUTABLE.get(None)
    mine = Session()
    sessions.append(weakref.ref(mine))
    token = MUTABLE.set(mine)
    del mine
    if b"keep" in scope["query_string"]:
        held.append(token)
    del token
    await maybe_wait(scope)
    await reply(send, [found, isinstance(MUTABLE.get(None), Session)])


async def session_left(scope, receive, send):
    """How many of them are there, and whether one is in this request's context."""
    await reply(send, [sum(ref() is not None for ref in sessions), MUTABLE.get(None) is not None])


async def weak(scope, receive, send):
    """A session by the task, as some libraries keep it."""
    task = asyncio.current_task()
    found = by_task.get(task)
    by_task[task] = scope["query_string"].decode()
    await maybe_wait(scope)
    kept = by_task.get(asyncio.current_task())
    del task
    await reply(send, [found, kept, len(by_task)])


async def hold(scope, receive, send):
    """Holds the task beyond the request."""
    task = asyncio.current_task()
    found = strong.get(id(task))
    known = any(task is other for other in held)
    held.append(task)
    await maybe_wait(scope)
    await reply(send, [found, known])


async def attribute(scope, receive, send):
    task = asyncio.current_task()
    found = getattr(task, "user", None)
    try:
        task.user = "somebody"
    except AttributeError:
        pass
    await maybe_wait(scope)
    await reply(send, [found])


async def name(scope, receive, send):
    found = asyncio.current_task().get_name()
    asyncio.current_task().set_name("mine")
    await maybe_wait(scope)
    await reply(send, [found])


async def callback(scope, receive, send):
    asyncio.current_task().add_done_callback(lambda task: log.append("done " + scope["query_string"].decode()))
    await maybe_wait(scope)
    await reply(send, b"called")


async def cancel_self(scope, receive, send):
    """Cancels its own task; where it waits then, it hears of it."""
    task = asyncio.current_task()
    task.cancel()
    try:
        await maybe_wait(scope)
        heard = False
    except asyncio.CancelledError:
        heard = True
        if hasattr(task, "uncancel"):
            task.uncancel()
    await reply(send, [heard])


async def cancelled_early(scope, receive, send):
    """Somebody else cancels the task between its first step and the next."""
    task = asyncio.current_task()
    asyncio.get_running_loop().call_soon(task.cancel)
    inner = asyncio.ensure_future(asyncio.sleep(20))
    try:
        await inner
        heard = "nothing"
    except asyncio.CancelledError:
        heard = "cancelled, inner %s" % ("cancelled" if inner.cancelled() else "left")
        if hasattr(task, "uncancel"):
            task.uncancel()
    await reply(send, heard.encode())


async def clean(scope, receive, send):
    """What a request finds on its task."""
    task = asyncio.current_task()
    await maybe_wait(scope)
    cancelling = task.cancelling() if hasattr(task, "cancelling") else 0
    await reply(send, [VAR.get(), cancelling, task.get_name() != "mine", getattr(task, "user", None)])


async def timeout(scope, receive, send):
    found = []
    if hasattr(asyncio, "timeout"):
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(20)
        except TimeoutError:
            found.append("timeout")
        async with asyncio.timeout(20):
            pass
        async with asyncio.TaskGroup() as group:
            child = group.create_task(asyncio.sleep(0, "child"))
        found.append(child.result())
    try:
        await asyncio.wait_for(asyncio.sleep(20), 0.01)
    except asyncio.TimeoutError:
        found.append("wait_for")
    found.append(await asyncio.get_running_loop().run_in_executor(None, lambda: "thread"))
    await reply(send, found)


async def anyio_app(scope, receive, send):
    import anyio
    import sniffio

    found = [sniffio.current_async_library()]
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)
    with anyio.move_on_after(0.01) as cancelled:
        await anyio.sleep(20)
    found.append(cancelled.cancel_called)
    found.append(await anyio.to_thread.run_sync(lambda: threading.current_thread() is not threading.main_thread()))
    await reply(send, found)


async def background(scope, receive, send):
    await reply(send, b"answered")
    await event("background").wait()
    log.append("behind the response")


async def sleeps(scope, receive, send):
    await asyncio.sleep(20)


async def slow_then_ok(scope, receive, send):
    await asyncio.sleep(0.2)
    await reply(send, b"slow")


async def computes(scope, receive, send):
    time.sleep(float(scope["query_string"] or b"0.3"))
    await reply(send, b"computed")


async def watch(scope, receive, send):
    """Waits for the client to leave."""
    await receive()
    log.append("watching")
    log.append((await receive())["type"])


async def cancel_told(scope, receive, send):
    log.append("begun")
    try:
        await asyncio.sleep(20)
    except asyncio.CancelledError:
        log.append("cancelled")
        raise


async def threaded(scope, receive, send):
    """send() that another thread awaits is refused."""

    def call():
        try:
            asyncio.run(send(START))
        except RuntimeError as error:
            return str(error)

    await reply(send, (await asyncio.get_running_loop().run_in_executor(None, call)).encode())


async def events_log(scope, receive, send):
    found = list(log)
    await reply(send, found)


async def forks(scope, receive, send):
    """The child returns to the server, which ends it."""
    child = os.fork()
    if child:
        await reply(send, [os.WIFEXITED(os.waitpid(child, 0)[1])])


async def collect(scope, receive, send):
    del held[:], sessions[:]
    del log[:]
    gc.collect()
    await reply(send, [len(by_task)])


async def pid(scope, receive, send):
    await reply(send, b"%d" % os.getpid())


HANDLERS = {name: value for name, value in list(globals().items()) if asyncio.iscoroutinefunction(value)}


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("only http")
    handler = HANDLERS.get(scope["path"].strip("/") or "pid")
    if handler is None:
        await reply(send, b"no such handler", 404)
    else:
        await handler(scope, receive, send)
