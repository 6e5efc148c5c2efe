"""WSGI under gevent: what is done once in a worker, and what is not worth doing in C.

What a request goes through is C (src/pyhost/green*.c).
"""

from __future__ import annotations

from typing import Any, Callable, Iterable

import gevent
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from gevent.hub import Waiter, get_hub, reinit
from gevent.threading import _cleanup as _thread_cleanup
from greenlet import GreenletExit


class RequestGreenlet(gevent.Greenlet):
    """The greenlet of a request, which serves further ones where nothing of it is left."""

    __slots__ = ("stoker_links", "stoker_linked")

    def __init__(
        self, run: Callable[[], None], links: list[Any], tree: dict[Any, Any], linked: Callable[[], None]
    ) -> None:
        super().__init__(run)
        self.stoker_links = links
        self.stoker_linked = linked
        self.spawn_tree_locals = tree

    def rawlink(self, callback: Callable[[Any], Any]) -> None:
        # Those that free what is bound to a greenlet are told of the end of the request. Any other
        # is told of the end of the greenlet, which then ends with the request.
        if callback is _thread_cleanup or type(callback).__name__ == "_greenlet_deleted":
            self.stoker_links.append(callback)
        else:
            self.stoker_links.append(None)
            super().rawlink(callback)
            self.stoker_linked()

    def unlink(self, callback: Callable[[Any], Any]) -> None:
        try:
            self.stoker_links.remove(callback)
        except ValueError:
            super().unlink(callback)


def settle(greenlet: RequestGreenlet) -> bool:
    """Frees what is bound to the greenlet; whether it can serve another request."""
    links = greenlet.stoker_links
    for link in links:
        if link is not None:
            link(greenlet)
    del links[:]
    return not greenlet.has_links()


def prepare(patch: bool) -> tuple[Any, ...]:
    """The hub, run_callback of its loop, and the classes of waiters and greenlets."""
    if patch:
        monkey.patch_all()
    hub = get_hub()
    return hub, hub.loop.run_callback, Waiter, RequestGreenlet


def is_running() -> bool:
    """Whether somebody has started the hub."""
    hub = get_hub_if_exists()
    return bool(hub)


def start(note: Callable[[], None]) -> None:
    """Starts the hub, which calls ``note``."""
    get_hub().loop.run_callback(note)
    gevent.sleep(0)


def restart() -> None:
    """In a child of the process in which the hub was started."""
    reinit()


class Driver:
    """Lets the hub call ``turn`` when one of the descriptors is readable."""

    def __init__(self, fds: Iterable[int], turn: Callable[[], None]) -> None:
        self.loop = get_hub().loop
        self.waiter: Any = None
        self.watchers = [self.loop.io(fd, 1) for fd in fds]
        for watcher in self.watchers:
            watcher.start(turn)

    def run(self) -> None:
        """By the main greenlet: the hub goes on until stop()."""
        self.waiter = Waiter()
        try:
            self.waiter.get()
        finally:
            self.waiter = None

    def stop(self) -> None:
        if self.waiter is not None:
            self.loop.run_callback(self.waiter.switch, None)

    def close(self) -> None:
        for watcher in self.watchers:
            watcher.stop()
            watcher.close()
        self.watchers = []


def shutdown(greenlets: list[Any], grace: float) -> None:
    """Ends greenlets, and waits for those that clean up."""
    gevent.killall(greenlets, GreenletExit, block=True, timeout=grace)


_SHOWN = 500  # requests whose stacks are shown


def _stack(greenlet: Any) -> list[str]:
    """Where a greenlet waits, the most recent call first."""
    frame = greenlet.gr_frame
    lines = []
    while frame is not None:
        code = frame.f_code
        lines.append('  File "%s", line %s in %s' % (code.co_filename, frame.f_lineno, code.co_name))
        frame = frame.f_back
    return lines


def describe(requests: list[tuple[int, str, float, Any]], only: int) -> str:
    """Where requests wait, or the one with that number: number, "GET /path", age in seconds, greenlet."""
    found = sorted((item for item in requests if only in (0, item[0])), key=lambda item: -item[2])
    lines = ["Greenlets: %d request%s wait:" % (len(requests), "" if len(requests) == 1 else "s")]
    for number, title, age, greenlet in found[:_SHOWN]:
        lines.append("")
        lines.append("Greenlet of %s, %.3f s old, request %d (most recent call first):" % (title, age, number))
        lines += _stack(greenlet)
    if len(found) > _SHOWN:
        lines.append("")
        lines.append("... and %d more" % (len(found) - _SHOWN))
    return "\n".join(lines) + "\n"


def describe_late(title: str, greenlet: Any) -> str:
    """For the log, when the time of a request is over."""
    return "\n".join(["%s: its greenlet waits at (most recent call first):" % title] + _stack(greenlet))
