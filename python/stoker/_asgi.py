"""The event loop of a worker that serves ASGI applications: what is done once, at its start and end.

What a request goes through is C (src/pyhost/asgi*.c).
"""

from __future__ import annotations

import asyncio
import collections.abc
import selectors
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

    def __init__(self, app: Callable[..., Any], mode: str) -> None:
        self.app = app
        self.mode = mode
        self.state: dict[str, Any] = {}
        self.task: asyncio.Task[None] | None = None
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answer: asyncio.Future[tuple[str, str]] | None = None
        self.told: str | None = None  # what has been sent last, without its prefix

    async def receive(self) -> dict[str, Any]:
        return await self.inbox.get()

    async def send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        known = ("startup.complete", "startup.failed", "shutdown.complete", "shutdown.failed")
        word = kind[len("lifespan.") :] if kind.startswith("lifespan.") else ""
        if word not in known:
            raise RuntimeError("unexpected ASGI message %r in the lifespan" % (kind,))
        if self.answer is None or self.answer.done() or not word.startswith(self.phase):
            raise RuntimeError("unexpected ASGI message %r: nothing was asked" % (kind,))
        self.answer.set_result((word, str(message.get("message", ""))))

    async def run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        await self.app(scope, self.receive, self.send)

    async def ask(self, phase: str) -> tuple[str, str]:
        """Sends lifespan.<phase>: the answer's last word and message; ("gone", traceback) when the
        application has ended instead of answering."""
        assert self.task is not None
        self.phase = phase
        self.answer = asyncio.get_running_loop().create_future()
        self.inbox.put_nowait({"type": "lifespan." + phase})
        await asyncio.wait({self.task, self.answer}, return_when=asyncio.FIRST_COMPLETED)
        if self.answer.done():
            word, text = self.answer.result()
            return word.partition(".")[2], text
        return "gone", self.failure()

    def failure(self) -> str:
        """How the application's coroutine has ended, as text; "" where it has just returned."""
        if self.task is None or not self.task.done() or self.task.cancelled():
            return ""
        error = self.task.exception()
        if error is None:
            return ""
        return "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()

    async def startup(self) -> str | None:
        """None, or why the worker must not start."""
        if self.mode == "off":
            return None
        self.task = asyncio.get_running_loop().create_task(self.run(), name="stoker-lifespan")
        word, text = await self.ask("startup")
        if word == "complete":
            return None
        if word == "failed":
            # Applications tell in the message, or by the exception that they raise right after it.
            await asyncio.wait({self.task}, timeout=1)
            return text or self.failure() or "the application said lifespan.startup.failed"
        self.task = None
        if self.mode == "on":
            return text or "the application returned without lifespan.startup.complete"
        return None  # the application has no lifespan (ASGI specification, Lifespan)

    async def shutdown(self) -> str | None:
        """None, or what went wrong."""
        if self.task is None:
            return None
        if self.task.done():
            return self.failure() or None
        word, text = await self.ask("shutdown")
        if word == "failed":
            return text or "the application said lifespan.shutdown.failed"
        if word == "gone":
            return text or None
        await asyncio.wait({self.task}, timeout=1)
        return self.failure() or None


def make_lifespan(app: Callable[..., Any], mode: str) -> Lifespan:
    """``mode`` is auto, on or off."""
    return Lifespan(app, mode)


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


