"""The event loop of a worker that serves ASGI applications: what is done once, at its start and end.

What a request goes through is C (src/pyhost/asgi*.c).
"""

from __future__ import annotations

import asyncio
import collections.abc
import selectors
import threading
import traceback
from typing import Any, Awaitable, Callable

from stoker import _core


def register() -> None:
    """Lets what receive() and send() return, and runners, be taken for coroutines."""
    for name in ("done_type", "wait_type", "runner_type"):
        collections.abc.Coroutine.register(getattr(_core, "_" + name))


def new_loop(kind: str, select: Callable[..., Any]) -> tuple[asyncio.AbstractEventLoop, Any]:
    """A new event loop, set as the current one, and its selector if that is ours.

    ``select`` takes the place of the method of that name, without ``self``. Raises ImportError
    where uvloop is asked for and cannot be imported.
    """
    selector = None
    loop: asyncio.AbstractEventLoop
    uvloop = None
    if kind != "asyncio":
        try:
            import uvloop  # type: ignore
        except ImportError:
            if kind == "uvloop":
                raise
    if uvloop is not None:
        loop = uvloop.new_event_loop()
    else:
        # A function of C is no descriptor: it is called as it is.
        selector = type("Selector", (selectors.EpollSelector,), {"select": select})()
        loop = asyncio.SelectorEventLoop(selector)
    asyncio.set_event_loop(loop)
    return loop, selector


async def run_awaitable(awaitable: Awaitable[Any]) -> Any:
    """For applications that return something else than a coroutine."""
    return await awaitable


async def send_later(send: Callable[[Any], Awaitable[None]], message: Any) -> None:
    """For send() called in another thread than that of the event loop, which is where this is awaited."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("send() was awaited in another thread than that of the event loop")
    await send(message)


def adapt_double(app: Callable[..., Any]) -> Callable[..., Any]:
    """An ASGI 2 application, app(scope)(receive, send), as one of ASGI 3."""

    async def single(scope: Any, receive: Any, send: Any) -> None:
        instance = app(scope)
        result = instance(receive, send) if callable(instance) else None
        if not hasattr(result, "__await__"):
            raise TypeError(
                "app(scope) returned an object of type %s, where ASGI 2 wants one to await with (receive, send); "
                "if it is a factory, call it: 'module:name(argument)'" % type(instance).__name__
            )
        await result

    return single


class Lifespan:
    """One application's lifespan: startup and shutdown, with the state that requests get."""

    ANSWERS = ("startup.complete", "startup.failed", "shutdown.complete", "shutdown.failed")

    def __init__(self, app: Callable[..., Any], mode: str, log: Callable[[str, str], None]) -> None:
        self.app = app
        self.mode = mode
        self.log = log
        self.state: dict[str, Any] = {}
        self.task: asyncio.Task[None] | None = None
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answer: asyncio.Future[tuple[str, str]] | None = None
        self.phase = ""
        self.text = ""  # of the last answer
        self.received = False  # the application knows of the phase
        self.confused = False  # it has sent a message that is none of a lifespan

    async def receive(self) -> dict[str, Any]:
        message = await self.inbox.get()
        self.received = True
        return message

    async def send(self, message: dict[str, Any]) -> None:
        kind = message.get("type") if isinstance(message, dict) else None
        if not isinstance(kind, str):
            raise TypeError("send() takes a dict with a 'type', got %.200r" % (message,))
        word = kind[len("lifespan.") :] if kind.startswith("lifespan.") else ""
        if word not in self.ANSWERS:
            self.confused = True
            raise RuntimeError("unexpected ASGI message %r: it is none of a lifespan" % (kind,))
        text = message.get("message", "")
        if not isinstance(text, str):
            raise TypeError("%s: the message must be a str, got %.200r" % (kind, text))
        if self.answer is None or not word.startswith(self.phase):
            raise RuntimeError("unexpected ASGI message %r: it answers nothing that has been asked" % (kind,))
        if self.answer.done():
            raise RuntimeError("unexpected ASGI message %r: 'lifespan.%s' has been answered already" % (kind, self.phase))
        self.answer.set_result((word, text))

    async def run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        await self.app(scope, self.receive, self.send)

    async def ask(self, phase: str) -> str | None:
        """Sends lifespan.<phase>: "complete", "failed" with its message in self.text, or None when the
        application has ended instead of answering."""
        assert self.task is not None
        self.phase = phase
        self.received = False
        self.answer = asyncio.get_running_loop().create_future()
        self.inbox.put_nowait({"type": "lifespan." + phase})
        await asyncio.wait({self.task, self.answer}, return_when=asyncio.FIRST_COMPLETED)
        if not self.answer.done():
            return None
        word, self.text = self.answer.result()
        return word.partition(".")[2]

    def error(self) -> BaseException | None:
        """What the application's coroutine has ended with."""
        if self.task is None or not self.task.done() or self.task.cancelled():
            return None
        return self.task.exception()

    def failure(self) -> str:
        """The same as text; "" where it has just returned."""
        error = self.error()
        if error is None:
            return ""
        return "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()

    async def startup(self) -> str | None:
        """None, or why the worker must not start."""
        if self.mode == "off":
            return None
        self.task = asyncio.get_running_loop().create_task(self.run(), name="stoker-lifespan")
        word = await self.ask("startup")
        if word == "complete":
            self.task.add_done_callback(self.watch)
            return None
        if word == "failed":
            # Applications tell in the message, or by the exception that they raise right after it.
            await asyncio.wait({self.task}, timeout=1)
            return self.text or self.failure() or "the application said lifespan.startup.failed"
        if self.mode == "on":
            return self.failure() or "the application returned without lifespan.startup.complete"
        self.tell_missing()
        self.task = None
        return None  # the application has no lifespan (ASGI specification, Lifespan)

    def tell_missing(self) -> None:
        """One that takes the message and fails may have meant to start up; others have no lifespan."""
        error = self.error()
        last = "" if error is None else traceback.format_exception_only(type(error), error)[-1].strip()
        if not self.received or self.confused:
            self.log("debug", "the application has no lifespan" + (": " + last if last else ""))
        elif error is None:
            self.log(
                "info",
                "the application has taken lifespan.startup and returned without an answer, so it is served as one "
                "that has no lifespan; lifespan = off asks it nothing, lifespan = on fails the start",
            )
        else:
            self.log("debug", "the application raised at lifespan.startup: " + self.failure())
            self.log(
                "warning",
                "the application raised at lifespan.startup, so it is served as one that has no lifespan; "
                "lifespan = on fails the start instead: " + last,
            )

    def watch(self, task: asyncio.Task[None]) -> None:
        """Its coroutine has ended; before lifespan.shutdown that is told at once."""
        if self.phase == "startup" and self.error() is not None:
            self.log("error", "the application's lifespan has ended while it is served: " + self.failure())

    async def shutdown(self) -> str | None:
        """None, or what went wrong."""
        if self.task is None or self.task.done():
            return None
        word = await self.ask("shutdown")
        if word == "failed":
            return self.text or "the application said lifespan.shutdown.failed"
        if word == "complete":
            await asyncio.wait({self.task}, timeout=1)
        return self.failure() or None


def make_lifespan(app: Callable[..., Any], mode: str, log: Callable[[str, str], None]) -> Lifespan:
    """``mode`` is auto, on or off; ``log`` takes a level and a text."""
    return Lifespan(app, mode, log)


def startup(loop: asyncio.AbstractEventLoop, lifespan: Lifespan) -> str | None:
    return loop.run_until_complete(lifespan.startup())


def shutdown(loop: asyncio.AbstractEventLoop, lifespans: list[Lifespan], grace: float) -> list[str]:
    """The end of the event loop: work that goes on after its response gets ``grace`` seconds, then
    the applications shut down, then what is left is cancelled. Returns what went wrong."""
    errors: list[str] = []
    try:
        loop.run_until_complete(_settle(loop, lifespans, errors, grace))
        _cancel_all(loop)
        loop.run_until_complete(loop.shutdown_asyncgens())
        if hasattr(loop, "shutdown_default_executor"):
            loop.run_until_complete(loop.shutdown_default_executor())
    except BaseException:
        errors.append(traceback.format_exc().rstrip())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    return errors


async def _settle(
    loop: asyncio.AbstractEventLoop, lifespans: list[Lifespan], errors: list[str], grace: float
) -> None:
    requests = {
        task
        for task in asyncio.all_tasks(loop)
        if isinstance(task.get_coro(), _core._runner_type)
        and task.get_coro().cr_await is not None  # type: ignore
    }
    if requests:
        await asyncio.wait(requests, timeout=grace)
    for lifespan in lifespans:
        error = await lifespan.shutdown()
        if error:
            errors.append("the application failed to shut down: " + error)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        # Those that do not let themselves be cancelled are left behind.
        loop.run_until_complete(asyncio.wait(tasks, timeout=2))
    for task in tasks:
        if not task.done() or task.cancelled():
            continue
        error = task.exception()
        if error is not None:
            loop.call_exception_handler(
                {"message": "unhandled exception at the end of the event loop", "exception": error, "task": task}
            )




# ---- what tasks wait for ------------------------------------------------------------------------

_TASKS_SHOWN = 200
_FRAMES_SHOWN = 50


def _chain(coro: Any) -> list[str]:
    """Where a coroutine waits, as faulthandler shows stacks: the most recent call first."""
    lines: list[str] = []
    while coro is not None and len(lines) < _FRAMES_SHOWN:
        frame = None
        for prefix, following in (("cr_", "cr_await"), ("gi_", "gi_yieldfrom"), ("ag_", "ag_await")):
            if hasattr(coro, following):
                frame = getattr(coro, prefix + "frame", None)
                coro = getattr(coro, following)
                break
        else:
            break
        if frame is not None:
            code = frame.f_code
            lines.append('  File "%s", line %d in %s' % (code.co_filename, frame.f_lineno or 0, code.co_name))
    lines.reverse()
    return lines


def _waiter(task: Any) -> str:
    """What a task waits for, in words; "" where that cannot be told."""
    future = getattr(task, "_fut_waiter", None)
    if future is None:
        return ""
    if isinstance(future, asyncio.Task):
        return ", waits for the task %r" % future.get_name()
    return ", waits"


def describe_chain(runner: Any) -> str:
    """The stack of a request's coroutine; "" where there is none."""
    return "\n".join(_chain(runner))


def describe_tasks(loop: asyncio.AbstractEventLoop, requests: list[tuple[int, str, float, Any]], only: int) -> str:
    """The tasks of the event loop with what each waits for.

    ``requests`` are those that wait: number, "GET /path", age in seconds, runner or None. ``only``
    is the number of one, or 0.
    """
    by_runner = {id(runner): (age, title, number) for number, title, age, runner in requests}
    found: list[tuple[float, str, Any]] = []
    for task in asyncio.all_tasks(loop):
        coro = task.get_coro()
        request = by_runner.get(id(coro))
        if only and (request is None or request[2] != only):
            continue
        if request is not None:
            head = "Task of %s, %.3f s old, request %d" % (request[1], request[0], request[2])
            found.append((request[0], head, task))
        elif not isinstance(coro, _core._runner_type):
            found.append((-1.0, "Task %r" % task.get_name(), task))
        elif coro.cr_await is not None:  # type: ignore
            found.append((-0.5, "Task behind a response", task))
    found.sort(key=lambda item: -item[0])
    lines = ["Event loop: %d task%s, %d request%s wait:" % (
        len(found), "" if len(found) == 1 else "s", len(requests), "" if len(requests) == 1 else "s",
    )]
    for _, head, task in found[:_TASKS_SHOWN]:
        lines.append("")
        lines.append(head + _waiter(task) + " (most recent call first):")
        lines += _chain(task.get_coro()) or ["  (it has not begun)"]
    if len(found) > _TASKS_SHOWN:
        lines.append("")
        lines.append("... and %d more" % (len(found) - _TASKS_SHOWN))
    return "\n".join(lines) + "\n"
