"""Gunicorn's hooks, and the objects that they are called with.

The master calls `Server.on_event`; a worker loads the application by `application()`, which the engine calls as a
factory. Both find the one Server of the process in `_server`: workers are forked from the master and inherit it.
"""

from __future__ import annotations

import ast
import asyncio
import atexit
import configparser
import contextlib
import functools
import importlib
import inspect
import itertools
import json
import logging
import logging.config
import logging.handlers
import mmap
import os
import signal
import struct
import subprocess
import sys
import traceback
from typing import Any, Callable, Iterator

from stoker import _core

from . import gunicorn_config
from .gunicorn_config import Config
from .result import ConfigError

# The arguments that each hook may take less of: post_request was once called with two.
REQUEST_ARGUMENTS = 4
# As `workers` in options.def.
MAX_WORKERS = 1024
# How many workers are told apart at once: each twice, while one replaces it.
AGES = 4 * MAX_WORKERS

_server: Server | None = None

_popen = subprocess.Popen.__init__


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _after_fork() -> None:
    if subprocess.Popen.__init__ is _popen_unblocked:  # else it is a worker
        subprocess.Popen.__init__ = _popen  # type: ignore[method-assign]
        _unblock()


@functools.wraps(_popen)
def _popen_unblocked(self: Any, *args: Any, **kwargs: Any) -> None:
    own = kwargs.get("preexec_fn")

    def prepare() -> None:
        _unblock()
        if own is not None:
            own()

    if len(args) < 7:  # else there is one among them
        kwargs["preexec_fn"] = prepare
    _popen(self, *args, **kwargs)


@contextlib.contextmanager
def _unblocked_children() -> Iterator[None]:
    """While a hook runs in the master, which keeps its signals blocked and reads them: the processes that it starts
    would inherit that, and could not be ended."""
    subprocess.Popen.__init__ = _popen_unblocked  # type: ignore[method-assign]
    try:
        yield
    finally:
        subprocess.Popen.__init__ = _popen  # type: ignore[method-assign]


class Settings:
    """`server.cfg`: the settings as attributes."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __getattr__(self, name: str) -> object:
        config = self.__dict__["_config"]
        if name not in config.rows:
            raise AttributeError("there is no setting %r" % name)
        value = config[name]
        return list(value) if isinstance(value, list) else value

    @property
    def env(self) -> dict[str, str]:
        """raw_env as a dict."""
        return dict(word.split("=", 1) for word in self._config["raw_env"] if "=" in word)  # type: ignore

    @property
    def address(self) -> list:
        """Where the server listens: (host, port), or the path of a unix socket."""
        result: list = []
        for word in self._config["bind"]:  # type: ignore[attr-defined]
            host, _, port = word.rpartition(":")
            result.append(word[5:] if word.startswith("unix:") else (host, int(port)) if port.isdigit() else word)
        return result

    @property
    def is_ssl(self) -> bool:
        """Is TLS spoken?"""
        return self._config["certfile"] is not None


class Worker:
    """What hooks are told of a worker."""

    def __init__(self, age: int, server: Server) -> None:
        self.age = age
        self.pid: int | str = "[booting]"
        self.ppid = server.pid
        self.cfg = server.cfg
        self.log = server.log
        self.timeout = server.timeout
        self.app = server.app
        self.booted = False
        self.aborted = False
        self.alive = True
        self.nr = 0

    def __str__(self) -> str:
        return "<Worker %s>" % self.pid


class App:
    """`server.app`: what there is of Gunicorn's application object."""

    def __init__(self, config: Config, cfg: Settings) -> None:
        self.cfg = cfg
        self.app_uri = config["wsgi_app"] or config["paste"]
        self.callable: object = None

    def wsgi(self) -> object:
        """The application, once it is loaded."""
        return self.callable


class Server:
    """The master, as hooks see it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cfg = Settings(config)
        self.pid = os.getpid()
        self.app = App(config, self.cfg)
        self.log = _logger(config)
        self.timeout = config["timeout"]
        self.num_workers = config["workers"]
        self.master_name = "Master"
        self.proc_name = config["proc_name"] or config["default_proc_name"]
        self.address = self.cfg.address
        self.worker_age = 0
        self._slots: dict[int, list[Worker]] = {}
        self._booting: Worker | None = None
        # What a worker that is forked from the template cannot know of the master: its age, by its slot.
        self._ages = mmap.mmap(-1, 8 * (MAX_WORKERS + 1))
        # What the master cannot know of a worker: its process, by its age.
        self._pids = mmap.mmap(-1, 8 * AGES)

    @property
    def WORKERS(self) -> dict[int, Worker]:
        """The workers that live, by their processes; in the master."""
        result: dict[int, Worker] = {}
        for worker in itertools.chain.from_iterable(self._slots.values()):
            pid = struct.unpack_from("q", self._pids, 8 * (worker.age % AGES))[0]
            if pid:  # else it has not begun yet
                worker.pid = pid
                result[pid] = worker
        return result

    def call(self, name: str, *arguments: object) -> None:
        """Calls a hook; what it raises is logged, and the server goes on."""
        hook = self.config[name]
        if not callable(hook):
            return
        try:
            hook(*arguments)
        except SystemExit as error:
            self.log.critical("the hook %s wants to end: %s", name, error)
            raise
        except Exception:
            self.log.error("the hook %s has failed:\n%s", name, traceback.format_exc().rstrip())

    def on_event(self, event: str, number: int, pid: int) -> None:
        """What the engine tells in the master."""
        with _unblocked_children():
            self._on_event(event, number, pid)

    def _on_event(self, event: str, number: int, pid: int) -> None:
        if event == "start":
            self.pid = os.getpid()
            self.call("nworkers_changed", self, self.num_workers, None)
            self.call("on_starting", self)
        elif event == "ready":
            self.call("when_ready", self)
        elif event == "fork":
            self._on_fork(number)
        elif event == "gone":
            self._on_gone(number, pid)
        elif event == "reload":
            self._on_reload()
        elif event == "scale":
            old, self.num_workers = self.num_workers, number
            self.call("nworkers_changed", self, number, old)
        elif event == "exit":
            self.call("on_exit", self)

    def _on_fork(self, slot: int) -> None:
        self.worker_age += 1
        struct.pack_into("q", self._ages, 8 * slot, self.worker_age)
        struct.pack_into("q", self._pids, 8 * (self.worker_age % AGES), 0)
        worker = Worker(self.worker_age, self)
        self._slots.setdefault(slot, []).append(worker)
        self._booting = worker
        self.call("pre_fork", self, worker)

    def _on_gone(self, slot: int, pid: int) -> None:
        waiting = self._slots.get(slot)
        worker = waiting.pop(0) if waiting else Worker(0, self)
        worker.pid = pid
        worker.alive = False
        self.call("child_exit", self, worker)

    def _on_reload(self) -> None:
        if self.config.path or self.config.module:
            try:
                gunicorn_config.read_file(self.config)
            except ConfigError as error:
                self.log.error("%s; the hooks stay as they were", error)
        self.call("nworkers_changed", self, self.num_workers, self.num_workers)
        self.call("on_reload", self)

    def enter_worker(self) -> Worker:
        """In a worker that has just been forked by the master."""
        worker = self._booting or Worker(self.worker_age, self)
        self.begin(worker)
        return worker

    def enter_preloaded(self, worker: Worker, slot: int) -> None:
        """In a worker that has just been forked from the template, which has `worker` ready."""
        worker.age = struct.unpack_from("q", self._ages, 8 * slot)[0]
        self.begin(worker)
        self.finish_worker(worker)

    def begin(self, worker: Worker) -> None:
        """What a worker begins with."""
        worker.pid = os.getpid()
        worker.ppid = self.pid
        struct.pack_into("q", self._pids, 8 * (worker.age % AGES), os.getpid())
        self._booting = None
        _configure_logging(self.config, self.log)
        atexit.register(self._leave_worker, worker, os.getpid())
        self.call("post_fork", self, worker)

    def finish_worker(self, worker: Worker) -> None:
        """The application is loaded."""
        worker.booted = True
        self.call("post_worker_init", worker)

    def _leave_worker(self, worker: Worker, pid: int) -> None:
        if os.getpid() == pid:  # and not a child that the application has forked
            worker.alive = False
            self.call("worker_exit", self, worker)


def start(config: Config) -> Server:
    """Makes the Server of this process."""
    global _server
    os.register_at_fork(after_in_child=_after_fork)
    _server = Server(config)
    return _server


def application() -> object:
    """The factory: loads the application in a worker, or ahead of the workers with preload."""
    server = _server
    if server is None:
        raise RuntimeError("this is loaded by `stoker gunicorn` only")
    if not server.config["preload_app"]:
        worker = server.enter_worker()
        app = _load(server)
        server.finish_worker(worker)
        return _with_request_hooks(server, worker, app)
    worker = Worker(0, server)
    app = _load(server)
    before = getattr(_core, "_on_enter", None)

    def on_enter(slot: int) -> None:
        if before is not None:
            before(slot)
        server.enter_preloaded(worker, slot)

    # Called by the engine in workers only, and not in what the application forks while it is imported.
    _core._on_enter = on_enter  # type: ignore[attr-defined]
    return _with_request_hooks(server, worker, app)


def _load(server: Server) -> object:
    if server.config["paste"] is not None:
        server.app.callable = _load_paste(server.config)
    else:
        server.app.callable = _load_target(str(server.config["wsgi_app"]))
    return server.app.callable


def _load_target(target: str) -> object:
    """module:name, or module:factory(1, b="x")."""
    module_name, _, expression = target.partition(":")
    module = importlib.import_module(module_name)
    try:
        tree = ast.parse(expression or "application", mode="eval").body
        name = tree.func if isinstance(tree, ast.Call) else tree
        if not isinstance(name, ast.Name):
            raise ValueError
        arguments = [ast.literal_eval(one) for one in getattr(tree, "args", [])]
        words = {one.arg: ast.literal_eval(one.value) for one in getattr(tree, "keywords", [])}
    except (SyntaxError, ValueError):
        raise ImportError(
            "%r: expected module:name or module:name(arguments), with nothing but literals" % target
        ) from None
    found = getattr(module, name.id, None)
    if found is None:
        raise ImportError("module %r has no %r" % (module_name, name.id))
    return found(*arguments, **words) if isinstance(tree, ast.Call) else found


def _load_paste(config: Config) -> object:
    try:
        from paste.deploy import loadapp  # type: ignore[import-not-found]
    except ImportError:
        raise ImportError("paste needs PasteDeploy: pip install PasteDeploy") from None
    words = dict(word.split("=", 1) for word in config["raw_paste_global_conf"] if "=" in word)  # type: ignore
    return loadapp("config:" + os.path.abspath(str(config["paste"])), global_conf=words or None)


class Request:
    """What request hooks are told of a request."""

    def __init__(self, environ: dict) -> None:
        self.method = environ["REQUEST_METHOD"]
        self.path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        self.query = environ.get("QUERY_STRING", "")
        self.fragment = ""
        self.uri = self.path + ("?" + self.query if self.query else "")
        self.scheme = environ["wsgi.url_scheme"]
        self.remote_addr = (environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_PORT", ""))
        self.version = tuple(int(c) for c in environ["SERVER_PROTOCOL"][5:].split(".") if c.isdigit())
        self.headers = [
            (name[5:].replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")
        ]


class Response:
    """What post_request is told of the response."""

    def __init__(self) -> None:
        self.status: str | None = None
        self.headers: list = []
        self.headers_sent = False
        self.sent = 0

    @property
    def status_code(self) -> int | None:
        """200 of "200 OK"."""
        return int(self.status[:3]) if self.status else None


class _Body:
    """An iterable that tells when it is closed, and how much went through it."""

    def __init__(self, body: object, response: Response, done: Callable[[], None]) -> None:
        self._body = body
        self._items = iter(body)  # type: ignore[call-overload]
        self._response = response
        self._done = done

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        item = next(self._items)
        self._response.sent += len(item)
        self._response.headers_sent = True
        return item

    def close(self) -> None:
        """The end, which the server calls in any case."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._done()


def _with_request_hooks(server: Server, worker: Worker, app: object) -> object:
    before, after = server.config["pre_request"], server.config["post_request"]
    if not (callable(before) or callable(after)) or not callable(app) or _is_async(app):
        return app
    count = _count_arguments(after) if callable(after) else 0

    def hooked(environ: dict, start_response: Callable) -> object:
        request = Request(environ)
        response = Response()

        def start(status: str, headers: list, *rest: object) -> object:
            response.status, response.headers = status, headers
            return start_response(status, headers, *rest)

        def done() -> None:
            if count:
                server.call("post_request", *(worker, request, environ, response)[:count])

        if callable(before):
            before(worker, request)
        worker.nr += 1
        try:
            return _Body(app(environ, start), response, done)
        except BaseException:
            done()
            raise

    return hooked


def _count_arguments(hook: Callable) -> int:
    try:
        parameters = inspect.signature(hook).parameters.values()
    except (TypeError, ValueError):
        return REQUEST_ARGUMENTS
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return REQUEST_ARGUMENTS
    return min(len(parameters), REQUEST_ARGUMENTS)


def _is_async(app: object) -> bool:
    return asyncio.iscoroutinefunction(app) or asyncio.iscoroutinefunction(getattr(app, "__call__", None))


def _logger(config: Config) -> logging.Logger:
    """`server.log`: to where the server's own lines go."""
    log = logging.getLogger("gunicorn.error")
    place = config["errorlog"]
    if not log.handlers:
        handler: logging.Handler
        if place in (None, "-") or config["syslog"]:
            handler = logging.StreamHandler(sys.stderr)
        else:
            handler = logging.handlers.WatchedFileHandler(str(place), delay=True)
        handler.setFormatter(
            logging.Formatter("%(asctime)s.%(msecs)03d [%(process)d] %(levelname)s: %(message)s", "%Y-%m-%d %H:%M:%S")
        )
        log.addHandler(handler)
    log.propagate = False
    level = str(config["loglevel"]).upper()
    log.setLevel(level if level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") else "INFO")
    return log


def _configure_logging(config: Config, log: logging.Logger) -> None:
    try:
        if config["logconfig_dict"]:
            logging.config.dictConfig(config["logconfig_dict"])  # type: ignore[arg-type]
        elif config["logconfig_json"]:
            with open(str(config["logconfig_json"]), encoding="utf-8") as file:
                logging.config.dictConfig(json.load(file))
        elif config["logconfig"]:
            defaults = {"__file__": str(config["logconfig"]), "here": os.path.dirname(str(config["logconfig"]))}
            logging.config.fileConfig(str(config["logconfig"]), defaults, disable_existing_loggers=False)
        elif config["paste"]:
            _configure_by_paste(os.path.abspath(str(config["paste"])).partition("#")[0])
    except Exception as error:
        log.error("the configuration of logging is not usable: %s: %s", type(error).__name__, error)
        raise


def _configure_by_paste(path: str) -> None:
    """A file of PasteDeploy's may have a configuration of logging, too."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(path)
    if parser.has_section("loggers"):
        defaults = {"__file__": path, "here": os.path.dirname(path)}
        logging.config.fileConfig(path, defaults, disable_existing_loggers=False)
