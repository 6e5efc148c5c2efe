"""The module `uwsgidecorators`: postfork, thread, lock, harakiri and the spooler's; the others raise when they are used."""

from __future__ import annotations

import functools
import pickle
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


# What is the spooler's own in the arguments of a call whose other ones are passed on.
SPOOLER_KEYS = ("message_dict", "spooler", "priority", "at", "body")

spool_functions: dict = {}


def _packed(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return str(value).encode("utf-8", "surrogateescape")


def manage_spool_request(task: dict) -> object:
    """What uwsgi.spooler is: does the task that one of the decorated functions has left."""
    name = task["ud_spool_func"].decode()
    function = spool_functions.get(name)
    if function is None:
        raise LookupError("the task is of %s(), which is not there: is its module imported here? (spooler-import)" % name)
    if "args" in task and "kwargs" in task:
        # Whoever can write into the directory can do so anyway: it is the server's own.
        result = function(*pickle.loads(task.pop("args")), **pickle.loads(task.pop("kwargs")))
    else:
        result = function(task)
    return int(task["ud_spool_ret"]) if "ud_spool_ret" in task else result


class _Spooled:
    """A function whose calls are left to the spooler; `result` is what its tasks come to, None: what it returns."""

    def __init__(self, function, pass_arguments: bool, result: int | None) -> None:
        module = uwsgi_module._state().module
        if not hasattr(module, "spool"):
            raise Exception("you have to enable the uWSGI spooler to use @%s: spooler = /path/of/a/directory" % "spool")
        functools.update_wrapper(self, function)
        self.f = function
        self.pass_arguments = pass_arguments
        self.base = {"ud_spool_func": function.__name__}
        if result is not None:
            self.base["ud_spool_ret"] = str(result)
        spool_functions[function.__name__] = function
        module.spooler = manage_spool_request  # type: ignore[union-attr]
        function.spool = self.__call__

    def __call__(self, *args, **kwargs):
        task: dict = dict(self.base)
        if self.pass_arguments:
            task.update({key: kwargs.pop(key) for key in SPOOLER_KEYS if key in kwargs})
            task.update(task.pop("message_dict", {}))
            task.update(args=pickle.dumps(args), kwargs=pickle.dumps(kwargs))
        else:
            task.update(args[0] if args else {})
            task.update(kwargs)
        return uwsgi_module._state().module.spool(  # type: ignore[union-attr]
            {_packed(key): _packed(value) for key, value in task.items()}
        )

    spool = __call__


def _spooled(result: int | None):
    def decorate(function=None, pass_arguments: bool = False):
        if function is None:
            return functools.partial(decorate, pass_arguments=pass_arguments)
        return _Spooled(function, pass_arguments, result)

    return decorate


spool = _spooled(-2)
spool.__doc__ = "Calls are done by the spooler, once."
spoolforever = _spooled(-1)
spoolforever.__doc__ = "Calls are done by the spooler, again and again."
spoolraw = _spooled(None)
spoolraw.__doc__ = "Calls are done by the spooler, until the function returns SPOOL_OK."


def _not_yet(name: str):
    def missing(*args, **kwargs):
        raise NotYet("uwsgidecorators.%s: not there yet, stoker %s is to have it" % (name, NEXT))

    missing.__name__ = missing.__qualname__ = name
    return missing


for _name in """
    cron erlang farm filemon get_free_signal mule mule_msg_dispatcher mulefunc mulemsg muleloop rbtimer rpc signal
    timer
""".split():
    globals()[_name] = _not_yet(_name)
