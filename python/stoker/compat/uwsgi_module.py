"""The module `uwsgi`, as applications find it in a server that was started with uWSGI's configuration.

It exists only there (or with `uwsgi-module = on`), because libraries behave differently where they can import it. Texts
are bytes, as in uWSGI on Python 3. Names whose capability is not there yet exist and raise NotYet.
"""

from __future__ import annotations

import atexit as _atexit
import errno
import fcntl
import json
import operator
import os
import signal as _signal
import socket as _socket
import struct
import sys
import threading
import time
import types

from . import hooks, names, spooler, uwsgi_websocket

VERSION = names.VERSION
# The version of stoker that is to have what raises NotYet.
NEXT = "0.2"

# By the first word of a name.
LATER = {
    "mule": "mules",
    "farm": "mules",
    "in": "mules",
    "queue": "the queue",
    "sharedarea": "shared areas",
    "rpc": "RPC",
    "call": "RPC",
    "register": "signals and RPC",
    "signal": "signals",
    "add": "timers, cron and file monitors",
    "alarm": "alarms",
    "snmp": "SNMP",
    "chunked": "reading chunks",
    "async": "uWSGI's asynchronous mode",
    "wait": "uWSGI's asynchronous mode",
    "suspend": "uWSGI's asynchronous mode",
    "green": "uWSGI's asynchronous mode",
    "route": "internal routing",
    "lord": "legions",
    "scrolls": "legions",
    "sendfile": "sending files from code (use wsgi.file_wrapper)",
    "offload": "offloading from code",
    "embedded": "embedded data",
    "extract": "embedded data",
    "parsefile": "spool files",
    "accepting": "overridden workers",
    "ready": "subscriptions",
}

NOT_YET = """
    add_cron add_file_monitor add_rb_timer add_timer alarm async_connect async_sleep call chunked_read
    chunked_read_nb embedded_data extract farm_get_msg farm_msg green_schedule mule_get_msg
    offload parsefile queue_get queue_last queue_pop queue_pull queue_pull_slot queue_push queue_set queue_slot
    register_rpc register_signal route rpc sendfile
    sharedarea_dec32 sharedarea_dec64 sharedarea_inc32 sharedarea_inc64 sharedarea_inclong sharedarea_memoryview
    sharedarea_object sharedarea_read sharedarea_read16 sharedarea_read32 sharedarea_read64 sharedarea_read8
    sharedarea_readbyte sharedarea_readlong sharedarea_rlock sharedarea_unlock sharedarea_wlock sharedarea_write
    sharedarea_write16 sharedarea_write32 sharedarea_write64 sharedarea_write8 sharedarea_writebyte sharedarea_writelong
    signal signal_wait snmp_decr_counter32 snmp_decr_counter64 snmp_decr_gauge snmp_incr_counter32 snmp_incr_counter64
    snmp_incr_gauge snmp_set_community snmp_set_counter32 snmp_set_counter64 snmp_set_gauge suspend wait_fd_read wait_fd_write
""".split()

# Absent from uWSGI itself where nothing of the kind is configured; libraries look whether they are there.
CONDITIONAL = {
    "sharedarea": ("sharedarea_",),
    "queue": ("queue_",),
    "snmp": ("snmp_",),
}


class NotYet(RuntimeError):
    """What uWSGI has and stoker has not, so far."""


class _Metrics:
    """Numbers that all processes share: the ones that `metric = name=...` names, at most 4096."""

    def __init__(self, known: list[str]) -> None:
        import mmap

        self.places = {name: 8 * index for index, name in enumerate(known[:4096])}
        self.memory = mmap.mmap(-1, max(8 * len(self.places), 8))

    def change(self, name: str, function) -> bool | None:
        """Sets a number to what the function makes of it; None if there is no such metric."""
        place = self.places.get(name)
        if place is None:
            return None
        with _Locked(METRICS):
            value = struct.unpack_from("q", self.memory, place)[0]
            value = (function(value) + 2**63) % 2**64 - 2**63
            struct.pack_into("q", self.memory, place, value)
        return True

    def get(self, name: str) -> int | None:
        """A number, or None."""
        place = self.places.get(name)
        return None if place is None else struct.unpack_from("q", self.memory, place)[0]


class _Locks:
    """Locks over processes and threads: record locks of one file, so that a process that dies gives its locks back."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.file = os.memfd_create("locks")
        self.threads = [threading.Lock() for _ in range(number + 1)]

    def take(self, index: int, wait: bool = True) -> bool:
        """Takes a lock; False if it is taken and nobody wants to wait."""
        if not self.threads[index].acquire(wait):
            return False
        try:
            while not self._take_file(index, wait):
                time.sleep(0.001)
        except BlockingIOError:
            self.threads[index].release()
            return False
        except BaseException:
            self.threads[index].release()
            raise
        return True

    def _take_file(self, index: int, wait: bool) -> bool:
        """False where the kernel takes two threads of a process, each with a lock of its own, for one that waits for itself."""
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, index)
        except OSError as error:
            if error.errno != errno.EDEADLK:
                raise
            return False
        return True

    def give(self, index: int) -> None:
        """Gives it back."""
        fcntl.lockf(self.file, fcntl.LOCK_UN, 1, index)
        try:
            self.threads[index].release()
        except RuntimeError:
            pass  # uWSGI does not mind either

    def renew(self) -> None:
        """In a process that has just been forked: no thread of it holds anything."""
        self.threads = [threading.Lock() for _ in range(self.number + 1)]


METRICS = -1  # the lock behind the last one


class _Locked:
    def __init__(self, index: int) -> None:
        self.index = index if index >= 0 else _state().locks.number

    def __enter__(self) -> None:
        _state().locks.take(self.index)

    def __exit__(self, *exc: object) -> None:
        _state().locks.give(self.index)


class _State:
    """What the functions know; one in a process, inherited by the workers."""

    def __init__(self, core, opt: dict, magic: dict, metrics: list[str], sockets: int) -> None:
        self.sockets = sockets
        self.core = core
        self.master = os.getpid()
        self.worker = 0
        self.started = int(time.time())
        number = opt.get("locks", b"0")
        self.locks = _Locks((int(number) if isinstance(number, bytes) and number.isdigit() else 0) + 1)
        self.metrics = _Metrics(metrics)
        self.opt = opt
        self.magic = magic
        self.module: types.ModuleType | None = None
        self.spool: spooler.Spool | None = None


_the: list[_State] = []


def _state() -> _State:
    return _the[0]


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    raise TypeError("expected a text, not %s" % type(value).__name__)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else _text(value).encode("utf-8", "surrogateescape")


# the functions; their names are uWSGI's


def worker_id() -> int:
    """The number of this worker, from 1; 0 in the master."""
    return _state().worker


def mule_id() -> int:
    """0: this is no mule."""
    return 0


def masterpid() -> int:
    """The process of the master."""
    return _state().master


def _statistics() -> dict:
    return json.loads(_state().core._statistics())


def total_requests() -> int:
    """Requests answered by all workers."""
    return sum(worker["requests"] for worker in _statistics()["workers"])


def request_id() -> int:
    """Requests answered by this worker."""
    for worker in _statistics()["workers"]:
        if worker["id"] == _state().worker:
            return worker["requests"]
    return 0


def workers() -> tuple:
    """A dict for each worker."""
    result = []
    for worker in _statistics()["workers"]:
        one = {key: worker[key] for key in worker if not isinstance(worker[key], (list, dict, str))}
        one["status"] = worker.get("status", "idle").encode()
        one["apps"] = tuple(
            {"interpreter": 0, "callable": 0, **{key: value.encode() if isinstance(value, str) else value for key, value in app.items()}}
            for app in worker.get("apps", [])
        )
        result.append(one)
    return tuple(result)


def mem() -> tuple[int, int]:
    """Resident and virtual memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        pages = file.read().split()
    size = os.sysconf("SC_PAGE_SIZE")
    return int(pages[1]) * size, int(pages[0]) * size


def reload() -> bool | None:
    """Asks the master for a reload."""
    os.kill(_state().master, _signal.SIGHUP)
    return True


def stop() -> bool | None:
    """Asks the master to end at once, as uWSGI's SIGQUIT."""
    os.kill(_state().master, _signal.SIGQUIT)
    return True


def accepting(flag: int = 1) -> None:
    """Workers accept by themselves."""


def ready() -> bool | None:
    """Whether the instance is ready: a worker that asks is."""
    return True


def setprocname(name: object) -> None:
    """The name of this process, as ps -o comm shows it."""
    with open("/proc/self/comm", "wb") as file:
        file.write(_bytes(name)[:15])


def set_user_harakiri(seconds: int) -> None:
    """The time that the request may take from now on; 0: no limit."""
    _state().core._set_timeout(operator.index(seconds))


harakiri = set_user_harakiri


def set_warning_message(message: object) -> bool:
    """A line in the error log."""
    _state().core._log("warning: " + _text(message)[:80])
    return True


def log(message: object) -> bool:
    """A line in the error log."""
    for line in _text(message).splitlines() or [""]:
        _state().core._log(line)
    return True


def log_this_request() -> None:
    """Whatever log-4xx and the like say."""
    _state().core._log_this()


def logsize() -> int:
    """The size of the log file; 0 where the log is no file."""
    place = _state().opt.get("logto") or _state().opt.get("daemonize")
    try:
        return os.stat(place).st_size if isinstance(place, bytes) else 0
    except OSError:
        return 0


def set_logvar(key: object, value: object) -> None:
    """A variable of this request, for log-format."""
    _state().core._set_logvar(_bytes(key), _bytes(value))


def get_logvar(key: object) -> bytes | None:
    """What set_logvar has set."""
    return _state().core._get_logvar(_bytes(key))


def add_var(key: object, value: object) -> bool:
    """A variable of the request, behind the application: it has no reader here."""
    _bytes(key), _bytes(value)
    return True


def micros() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def listen_queue(socket: int = 0) -> int:
    """Requests that wait for a thread."""
    if operator.index(socket) < 0 or socket >= max(_state().sockets, 1):
        raise ValueError("unable to find socket %d" % socket)
    return sum(worker.get("stoker", {}).get("requests_queued", 0) for worker in _statistics()["workers"])


def _index(number: int) -> int:
    if not 0 <= number < _state().locks.number:
        raise ValueError("Invalid lock number")
    return number


def lock(number: int = 0) -> None:
    """Waits for a lock that all workers share."""
    _state().locks.take(_index(number))


def unlock(number: int = 0) -> None:
    """Gives it back."""
    _state().locks.give(_index(number))


def is_locked(number: int = 0) -> bool:
    """Does somebody hold it?"""
    if _state().locks.take(_index(number), wait=False):
        _state().locks.give(number)
        return False
    return True


def disconnect() -> None:
    """Ends a WebSocket; any other connection belongs to the server, and ends with the response where it does."""
    current = _state().core._taken()
    if current is not None:
        current.close()


def connection_fd() -> int:
    """The descriptor of the client's connection."""
    return _state().core._connection()[0]


def cl() -> int:
    """The length of the body."""
    return max(_state().core._connection()[1], 0)


def request_context():
    """What the functions of WebSockets take from other threads and greenlets; None: the request has none."""
    return _state().core._taken()


def _limits() -> uwsgi_websocket.Limits:
    opt = _state().opt
    limits = uwsgi_websocket.Limits()
    if "websocket-max-size" in opt:
        limits.size = max(_number(opt, "websocket-max-size", 0), 1) << 10
    limits.interval = _number(opt, "websocket-ping-freq", 0) or limits.interval
    limits.tolerance = _number(opt, "websocket-pong-tolerance", 0) or limits.tolerance
    limits.timeout = _number(opt, "socket-timeout", 0) or limits.timeout
    return limits


def websocket_handshake(key: object = b"", origin: object = b"", proto: object = b"") -> None:
    """Accepts the WebSocket that the request asks for."""
    words = [_bytes(word) for word in (key, origin, proto)]
    uwsgi_websocket.handshake(_state().core, *words, _limits(), "gevent" in _state().opt)


def _websocket(context: object, failure: str) -> uwsgi_websocket.WebSocket:
    found = _state().core._taken() if context is None else context
    if not isinstance(found, uwsgi_websocket.WebSocket):
        raise OSError(failure)
    return found


def websocket_recv(request_context: object = None) -> bytes:
    """The next message, once it has come."""
    return _websocket(request_context, "unable to receive websocket message").receive(True)


def websocket_recv_nb(request_context: object = None) -> bytes:
    """The next message; none, if there is none yet."""
    return _websocket(request_context, "unable to receive websocket message").receive(False)


def websocket_send(message: object, request_context: object = None) -> None:
    """Sends a text."""
    found = _websocket(request_context, "unable to send websocket message")
    found.send(uwsgi_websocket.TEXT, _bytes(message))


def websocket_send_binary(message: object, request_context: object = None) -> None:
    """Sends bytes."""
    found = _websocket(request_context, "unable to send websocket binary message")
    found.send(uwsgi_websocket.BINARY, _bytes(message))


def is_connected(fd: int) -> bool:
    """Is the other side of a socket there?"""
    try:
        with _socket.socket(fileno=os.dup(fd)) as sock:
            return sock.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def connect(address: object, timeout: int = 0) -> int:
    """A connected socket's descriptor, -1 if that cannot be."""
    text = _text(address)
    host, colon, port = text.rpartition(":")
    try:
        if colon and port.isdigit():
            sock = _socket.create_connection((host or "127.0.0.1", int(port)), timeout or None)
        else:
            sock = _socket.socket(_socket.AF_UNIX)
            sock.settimeout(timeout or None)
            sock.connect(text)
    except OSError:
        return -1
    sock.settimeout(None)
    return sock.detach()


def send(fd: object, data: bytes | None = None) -> bool | None:
    """Sends bytes on a descriptor."""
    if data is None:
        raise NotYet("uwsgi.send(data) without a descriptor: the raw connection is not there yet (stoker %s)" % NEXT)
    view = memoryview(data)
    while view:
        view = view[os.write(int(fd), view) :]  # type: ignore[call-overload]
    return True


def recv(fd: int, size: int = 4096) -> bytes | None:
    """Bytes of a descriptor, None at its end."""
    return os.read(fd, size) or None


def close(fd: int) -> None:
    """Closes a descriptor, if it is one."""
    try:
        os.close(fd)
    except OSError:
        pass


def signal_received() -> int:
    """0: there was none."""
    return 0


def signal_registered(number: int) -> bool | None:
    """None: there is none."""
    return None


def rpc_list() -> tuple:
    """No functions."""
    return ()


def in_farm(name: object = None) -> bool | None:
    """None: there are no farms."""
    return None


def i_am_the_lord(name: object) -> bool:
    """False: there is no legion."""
    return False


def lord_scroll(name: object) -> bytes | None:
    """None: there is no legion."""
    _text(name)
    return None


def scrolls(name: object) -> list | None:
    """None: there is no legion."""
    _text(name)
    return None


def mule_msg(message: object, target: object = None) -> bool:
    """There are no mules, as without the option in uWSGI."""
    _bytes(message)
    if "mule" in _state().opt or "mules" in _state().opt:
        raise NotYet("uwsgi.mule_msg: mules: not there yet, stoker %s is to have it" % NEXT)
    raise ValueError("no mule configured")


def ready_fd() -> int:
    """-1: nobody is told."""
    return -1


def metric_get(name: object) -> int:
    """A metric of the application's own, or one of worker.N.requests, .exceptions, .avg_rt and core.routed_requests."""
    word = _text(name)
    own = _state().metrics.get(word)
    if own is not None:
        return own
    parts = word.split(".")
    if len(parts) == 3 and parts[0] == "worker" and parts[1].isdigit():
        found = [one for one in _statistics()["workers"] if int(parts[1]) in (0, one["id"])]
        values = [one[parts[2]] for one in found if isinstance(one.get(parts[2]), int)]
        return sum(values) if values else 0
    return 0


def metric_set(name: object, value: int = 0) -> bool | None:
    """Sets it."""
    return _state().metrics.change(_text(name), lambda old: value)


def metric_inc(name: object, value: int = 1) -> bool | None:
    """Adds to it."""
    return _state().metrics.change(_text(name), lambda old: old + value)


def metric_dec(name: object, value: int = 1) -> bool | None:
    """Takes from it."""
    return _state().metrics.change(_text(name), lambda old: old - value)


def metric_mul(name: object, value: int = 1) -> bool | None:
    """Multiplies it."""
    return _state().metrics.change(_text(name), lambda old: old * value)


def metric_div(name: object, value: int = 1) -> bool | None:
    """Divides it; by 0: nothing."""
    return _state().metrics.change(_text(name), lambda old: int(old / value)) if value else None


def metric_set_max(name: object, value: int = 0) -> bool | None:
    """Sets it if that is more."""
    return _state().metrics.change(_text(name), lambda old: max(old, value))


def metric_set_min(name: object, value: int = 0) -> bool | None:
    """Sets it if that is less."""
    return _state().metrics.change(_text(name), lambda old: min(old, value))


def start_response(status: str, headers: list, exc_info: object = None) -> object:
    """The function that environ's application is called with is the one to use."""
    raise NotYet("uwsgi.start_response: use the one that the application is called with")


FUNCTIONS = """
    accepting add_var cl close connect connection_fd disconnect get_logvar harakiri i_am_the_lord in_farm
    is_connected is_locked listen_queue lock log log_this_request logsize lord_scroll masterpid mem metric_dec metric_div
    metric_get metric_inc metric_mul metric_set metric_set_max metric_set_min micros mule_id mule_msg ready ready_fd recv reload
    request_context request_id rpc_list scrolls send set_logvar set_user_harakiri set_warning_message setprocname signal_received signal_registered
    start_response stop total_requests unlock websocket_handshake websocket_recv websocket_recv_nb
    websocket_send websocket_send_binary worker_id workers
""".split()


def _not_yet(name: str):
    what = LATER.get(name.partition("_")[0], name)

    def missing(*args: object, **kwargs: object) -> object:
        raise NotYet("uwsgi.%s: %s: not there yet, stoker %s is to have it" % (name, what, NEXT))

    missing.__name__ = missing.__qualname__ = name
    return missing


def _is_there(name: str, opt: dict) -> bool:
    for option, prefixes in CONDITIONAL.items():
        if name.startswith(prefixes):
            return option in opt
    return True


def install(
    core,
    opt: dict | None = None,
    magic: dict | None = None,
    metrics: list[str] | None = None,
    sockets: int = 1,
    spool: spooler.Config | None = None,
) -> types.ModuleType:
    """Makes the modules `uwsgi` and `uwsgidecorators` importable in this process and in those that it forks."""
    if _the:
        return _the[0].module  # type: ignore[return-value]
    state = _State(core, opt or {}, magic or {}, metrics or [], sockets)
    _the.append(state)
    module = types.ModuleType("uwsgi", "The interface of uWSGI %s, by stoker." % VERSION)
    state.module = module
    here = globals()
    for name in FUNCTIONS:
        if _is_there(name, state.opt):
            setattr(module, name, here[name])
    for name, function in core._cache_functions().items():
        setattr(module, name, function)
    for name in NOT_YET:
        if _is_there(name, state.opt):
            setattr(module, name, _not_yet(name))
    numbers = tuple(int(part) for part in VERSION.split("."))
    stoker = core.__version__.encode()
    data = {
        "NotYet": NotYet,
        "SPOOL_OK": -2,
        "SPOOL_RETRY": -1,
        "SPOOL_IGNORE": 0,
        "applications": None,
        "buffer_size": _number(state.opt, "buffer-size", 4096),
        "cores": _number(state.opt, "threads", 1),
        "has_threads": 1,
        "hostname": _socket.gethostname().encode(),
        "is_a_reload": False,
        "loop": state.opt.get("loop"),
        "magic_table": state.magic,
        "numproc": _number(state.opt, "processes", _number(state.opt, "workers", 1)),
        "opt": state.opt,
        "sockets": [],
        "started_on": state.started,
        "started_time": state.started,
        "stoker_version": stoker,
        "unbit": None,
        "version": VERSION.encode(),
        "version_info": (*numbers, 0, b"stoker-" + stoker),
    }
    for key, value in data.items():
        setattr(module, key, value)
    for key in ("pidfile", "mode"):
        if key in state.opt:
            setattr(module, key, state.opt[key])
    _install_spooler(state, module, spool)
    module.__file__ = __file__
    sys.modules["uwsgi"] = module
    from . import uwsgi_decorators

    sys.modules["uwsgidecorators"] = uwsgi_decorators
    core._environ = {"uwsgi.version": VERSION.encode(), "uwsgi.node": module.hostname}
    core._metrics = (state.metrics.memory, state.metrics.places)
    core._on_enter = _on_enter
    core._on_startup = _on_startup
    core._on_task = _on_task
    return module


def _install_spooler(state: _State, module: types.ModuleType, config: spooler.Config | None) -> None:
    """The functions are there where a spooler is, as in uWSGI: libraries look for them."""
    setattr(module, "i_am_the_spooler", lambda: None)
    if config is None:
        return
    state.spool = spool = spooler.Spool(config)
    setattr(module, "spoolers", tuple(os.fsencode(path) for path in config.directories))
    setattr(module, "send_to_spooler", spool.spool)
    for name in spooler.FUNCTIONS:
        setattr(module, name, getattr(spool, name))


def _number(opt: dict, name: str, default: int) -> int:
    value = opt.get(name)
    return names.number(os.fsdecode(value)) if isinstance(value, bytes) else default


def on_event(event: str, number: int, pid: int) -> None:
    """In the master, which may be another process than the one that has read the configuration: daemonize."""
    if event == "start":
        _state().master = os.getpid()


def _on_enter(number: int) -> None:
    """The engine calls this in a worker that has just been forked."""
    state = _state()
    state.worker = number
    state.locks.renew()
    _atexit.register(_on_exit, os.getpid())
    hooks.enter_worker()


def _on_task(name: str) -> None:
    """The engine calls this in a process that has been forked for a task of ours, and has loaded the application."""
    state = _state()
    kind, _, number = name.partition(":")
    if kind != "spooler" or state.spool is None:
        raise RuntimeError("there is no task %s" % name)
    state.locks.renew()
    _atexit.register(_on_exit, os.getpid())
    hook = getattr(state.module, "post_fork_hook", None)
    if callable(hook):
        hook()
    spooler.serve(state.spool, int(number), state.module, state.core._log)


def _on_startup() -> None:
    """The application is loaded: uWSGI's chdir2 and post_fork_hook."""
    place = _state().opt.get("chdir2")
    if isinstance(place, bytes):
        try:
            os.chdir(place)
        except OSError as error:
            _state().core._log("chdir2: %s: %s" % (os.fsdecode(place), error.strerror))
            os._exit(1)
    hook = getattr(_state().module, "post_fork_hook", None)
    if callable(hook):
        hook()
    hooks.start_worker(_state().worker)


def _on_exit(pid: int) -> None:
    hook = getattr(_state().module, "atexit", None)
    if os.getpid() == pid and callable(hook):
        hook()
