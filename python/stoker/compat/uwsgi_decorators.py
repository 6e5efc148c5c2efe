"""The module `uwsgidecorators`: postfork, thread, lock and harakiri; the others raise when they are used."""

from __future__ import annotations

import functools
import threading

from . import uwsgi_module
from .uwsgi_module import NEXT, NotYet

postfork_chain: list = []


def manage_postfork() -> None:
    """What uwsgi.post_fork_hook is."""
    for function in list(postfork_chain):
        if function.wid == 0 or function.wid == uwsgi_module.worker_id():
            function()


class postfork:
    """Calls a function in each worker (or in one), once the application is loaded there."""

    def __init__(self, function) -> None:
        self.wid = 0
        self.f = None
        uwsgi_module._state().module.post_fork_hook = manage_postfork  # type: ignore[union-attr]
        if callable(function):
            functools.update_wrapper(self, function)
            self.f = function
            postfork_chain.append(self)
        else:
            self.wid = int(function)

    def __call__(self, *args, **kwargs):
        if self.f is not None:
            return self.f(*args, **kwargs)
        self.f = args[0]
        functools.update_wrapper(self, self.f)
        postfork_chain.append(self)
        return self


def thread(function):
    """Runs a function in a thread of its own."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        started = threading.Thread(target=function, args=args, kwargs=kwargs, daemon=True)
        started.start()
        return function

    return run


def lock(function):
    """Runs a function while no other worker runs one that is locked."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        uwsgi_module.lock()
        try:
            return function(*args, **kwargs)
        finally:
            uwsgi_module.unlock()

    return run


class harakiri:
    """Gives a function so many seconds of its request."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def __call__(self, function):
        @functools.wraps(function)
        def run(*args, **kwargs):
            uwsgi_module.set_user_harakiri(self.seconds)
            try:
                return function(*args, **kwargs)
            finally:
                uwsgi_module.set_user_harakiri(0)

        return run


def _not_yet(name: str):
    def missing(*args, **kwargs):
        raise NotYet("uwsgidecorators.%s: not there yet, stoker %s is to have it" % (name, NEXT))

    missing.__name__ = missing.__qualname__ = name
    return missing


for _name in """
    cron erlang farm filemon get_free_signal mule mule_msg_dispatcher mulefunc mulemsg muleloop rbtimer rpc signal spool
    spoolforever spoolraw timer
""".split():
    globals()[_name] = _not_yet(_name)
