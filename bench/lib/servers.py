"""The servers: how each is started, what it can do, how it is set up fairly.

Each peer runs with one worker process and its own defaults, but for what a measurement needs: a
backlog and connection limits that admit the clients, keep-alive that outlasts a round, and its
access log, where it has one, in the state of ours.
"""

import dataclasses
import os

from . import nginx, paths


@dataclasses.dataclass(frozen=True)
class Spec:
    """One server in one set-up.  Written as name+t4+nolog+notakeover+w4+uvloop."""

    family: str
    threads: int = 1
    workers: int = 1
    log: bool = True
    takeover: bool = True
    loop: str = ""  # "asyncio", "uvloop", "gevent"; "": the server's own choice

    def __str__(self):
        text = self.family
        if self.threads != 1:
            text += f"+t{self.threads}"
        if self.workers != 1:
            text += f"+w{self.workers}"
        if self.loop:
            text += f"+{self.loop}"
        if not self.log:
            text += "+nolog"
        if not self.takeover:
            text += "+notakeover"
        return text

    @classmethod
    def parse(cls, text):
        """The Spec of its written form."""
        family, *options = text.split("+")
        if family not in FAMILIES:
            known = ", ".join(sorted(FAMILIES))
            raise SystemExit(f"bench: no server {family!r}; there are {known}")
        values = {}
        for option in options:
            if option == "nolog":
                values["log"] = False
            elif option == "notakeover":
                values["takeover"] = False
            elif option in ("asyncio", "uvloop", "gevent"):
                values["loop"] = option
            elif option[:1] in "tw" and option[1:].isdigit():
                values["threads" if option[0] == "t" else "workers"] = int(option[1:])
            else:
                raise SystemExit(f"bench: {text}: no set-up {option!r}")
        return cls(family, **values)


@dataclasses.dataclass
class Setting:
    """What a server's command line is built from."""

    app: str  # "module:callable"
    port: int
    venv: str
    scratch: str  # directory for configuration files and logs
    connections: int
    close: bool = False
    answer: int = 0  # size of our answer, for the loop that sends the same
    body: int = 0  # size of the body, for constant servers (0: hello)
    listen: str = ""  # 127.0.0.1:PORT, or the path of a unix socket
    road: str = "http"  # what is spoken on it
    static: str = ""  # directory whose files are served below /f/
    tls: tuple = ()  # (certificate, key)

    def bin(self, name):
        """A command of the virtual environment."""
        return os.path.join(self.venv, "bin", name)

    def file(self, name):
        """A path in the scratch directory that belongs to this server."""
        return os.path.join(self.scratch, f"{self.port}-{name}")


OURS = "stoker"
GREENLETS = "1000"
BASE = "stoker-base"
OWN = (OURS, BASE)
BASE_VARIABLE = "STOKER_BENCH_BASE"  # an environment in which an earlier state is installed


def base_program():
    """The command of the earlier state of stoker that is measured beside ours; '': none."""
    folder = os.environ.get(BASE_VARIABLE, "")
    return os.path.join(folder, "bin", "stoker") if folder else ""


def _stoker(spec, at):
    if at.listen.startswith("/"):
        bind = f"unix:{at.listen}?mode=666"  # the protocol is told by its first bytes
    elif at.tls:
        bind = "https://" + at.listen
    else:
        bind = at.listen if at.road in ("", "http") else f"{at.road}://{at.listen}"
    program = base_program() if spec.family == BASE else at.bin("stoker")
    argv = [program, at.app, "--bind", bind,
            "--workers", str(spec.workers), "--threads", str(spec.threads),
            "--access-log", at.file("access.log") if spec.log else "off"]
    if at.tls:
        argv += ["--tls-cert", at.tls[0], "--tls-key", at.tls[1]]
    if at.static:
        argv += ["--static", "/f=" + at.static]
    if spec.loop == "gevent":
        argv += ["--gevent", GREENLETS]
    elif spec.loop:
        argv += ["--loop", spec.loop]
    return argv + ([] if spec.takeover else ["--no-takeover"])


def _uwsgi_limit(_, at):
    where = ["--unix", at.listen] if at.listen.startswith("/") else ["--port", str(at.port)]
    return [paths.compiled("uwsgi_limit"), *where]


def _epoll(spec, at):
    argv = [paths.compiled("epoll_limit"), "--port", str(at.port)]
    if at.body:
        argv += ["--body", str(at.body)]
    if spec.family == "epoll-same-size" and at.answer:
        argv += ["--answer", str(at.answer)]
    return argv + (["--close"] if at.close else [])


def _launch(name):
    def build(_, at):
        return [at.bin("python"), os.path.join(paths.BENCH, "launch.py"), name, at.app,
                str(at.port)]
    return build


def _eager_limit(_, at):
    python = at.bin("python")
    return [python, os.path.join(paths.BENCH, "launch.py"), "eager-limit", at.app, str(at.port),
            paths.module("eager_limit", python)]


def _granian(spec, at):
    argv = [at.bin("granian"), "--host", "127.0.0.1", "--port", str(at.port)]
    if spec.family == "granian-asgi":
        argv += ["--interface", "asginl", "--loop", spec.loop or "uvloop"]
    else:
        argv += ["--interface", "wsgi", "--blocking-threads", str(spec.threads)]
    return [*argv, "--workers", str(spec.workers),
            "--backlog", "4096", "--log-level", "info" if spec.log else "warning",
            "--access-log" if spec.log else "--no-access-log", at.app]


def _peregrine(spec, at):
    argv = [at.bin("peregrine"), "--host", "127.0.0.1", "--port", str(at.port),
            "--protocol", "asgi" if spec.family == "peregrine-asgi" else "wsgi",
            "--workers", str(spec.workers),
            "--wsgi-threads", str(spec.threads), "--backlog", "4096",
            "--max-connections", "20000", "--keep-alive", "75000",
            "--python-path", paths.BENCH, "--no-auto-venv"]
    return argv + (["--access-log"] if spec.log else []) + [at.app]


def _uwsgi(spec, at):
    module, _, attribute = at.app.partition(":")
    argv = [at.bin("uwsgi"), "--master", "--need-app", "--die-on-term", "--listen", "4096",
            "--pythonpath", paths.BENCH, "--module", module, "--callable", attribute,
            "--home", at.venv, "--processes", str(spec.workers)]
    if spec.threads > 1:
        argv += ["--threads", str(spec.threads)]
    if spec.family == "uwsgi-gevent":
        argv += ["--gevent", GREENLETS, "--gevent-early-monkey-patch"]
    if not spec.log:
        argv += ["--disable-logging"]
    if at.road == "uwsgi":
        return argv + ["--socket", at.listen, "--chmod-socket=666"]
    if spec.family == "uwsgi-http":
        return argv + ["--http", f"127.0.0.1:{at.port}", "--http-keepalive", "--http-auto-chunked"]
    # With gevent it forgets a connection of http11-socket behind its first answer.
    kind = "--http-socket" if spec.family == "uwsgi-gevent" else "--http11-socket"
    return argv + [kind, f"127.0.0.1:{at.port}"]


def _gunicorn(spec, at):
    kind = spec.family.partition("-")[2]
    bind = "unix:" + at.listen if at.listen.startswith("/") else at.listen
    argv = [at.bin("gunicorn"), "--bind", bind, "--workers", str(spec.workers),
            "--worker-class", kind, "--backlog", "4096", "--keep-alive", "75",
            "--worker-connections", "20000", "--chdir", paths.BENCH, "--no-control-socket"]
    if kind == "gthread":
        argv += ["--threads", str(spec.threads)]
    if spec.log:
        argv += ["--access-logfile", at.file("access.log")]
    return argv + [at.app]


def _uvicorn(spec, at):
    websockets = ["--ws", "wsproto"] if spec.family == "uvicorn-wsproto" else []
    return [at.bin("uvicorn"), *websockets, "--host", "127.0.0.1", "--port", str(at.port),
            "--workers", str(spec.workers), "--loop", spec.loop or "uvloop",
            "--http", "httptools", "--backlog", "4096", "--timeout-keep-alive", "75",
            "--log-level", "info" if spec.log else "warning",
            "--access-log" if spec.log else "--no-access-log", at.app]


def _hypercorn(spec, at):
    argv = [at.bin("hypercorn"), "--bind", f"127.0.0.1:{at.port}",
            "--workers", str(spec.workers), "--worker-class", spec.loop or "uvloop",
            "--backlog", "4096", "--keep-alive", "75"]
    return argv + (["--access-logfile", at.file("access.log")] if spec.log else []) + [at.app]


def _waitress(spec, at):
    return [at.bin("waitress-serve"), f"--listen=127.0.0.1:{at.port}",
            f"--threads={spec.threads}", "--connection-limit=20000", "--backlog=4096", at.app]


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of server: its command line, what proves it is installed, what it is unable to do."""

    title: str
    build: object
    needs: str = ""  # command in the environment, or "import NAME"
    package: str = ""  # its name in bench/setup's state
    has_log: bool = False
    constant: bool = False  # answers without an application
    limit: bool = False  # a yardstick and no peer
    since: tuple = ()  # the first Python that has what it needs
    threaded: bool = False
    keeps_alive: bool = True
    survives_close: bool = True  # a request with Connection: close
    one_each: bool = False  # a keep-alive connection occupies a thread until it closes
    roads: tuple = ("http",)  # what it speaks behind a front end, the usual one first
    loop: str = ""  # the event loop that it has in any case

    def road(self, front):
        """The protocol behind a front end that would like to speak `front`."""
        return front if front in self.roads else self.roads[0]


FAMILIES = {
    "stoker": Family("stoker", _stoker, "stoker", "stoker", has_log=True, threaded=True,
                     roads=("http", "uwsgi")),
    BASE: Family("stoker, an earlier state", _stoker, has_log=True, threaded=True,
                 roads=("http", "uwsgi")),
    "uwsgi-limit": Family("bare C server of uwsgi", _uwsgi_limit, constant=True,
                          roads=("uwsgi",)),
    "epoll": Family("bare epoll loop", _epoll, constant=True),
    "epoll-same-size": Family("bare epoll loop, our answer's size", _epoll, constant=True),
    "nginx": Family("nginx return 200", nginx.peer, constant=True, has_log=True),
    "bjoern": Family("bjoern", _launch("bjoern"), "import bjoern", "bjoern"),
    "fastpysgi": Family("fastpysgi", _launch("fastpysgi"), "import fastpysgi", "fastpysgi"),
    "granian": Family("granian", _granian, "granian", "granian", has_log=True, threaded=True),
    "peregrine": Family("peregrine", _peregrine, "peregrine", "peregrine", has_log=True,
                        threaded=True),
    "uwsgi": Family("uwsgi http11-socket", _uwsgi, "uwsgi", "uwsgi", has_log=True, threaded=True,
                    one_each=True, roads=("uwsgi",)),
    "uwsgi-http": Family("uwsgi --http", _uwsgi, "uwsgi", "uwsgi", has_log=True, threaded=True),
    "gunicorn-sync": Family("gunicorn sync", _gunicorn, "gunicorn", "gunicorn", has_log=True,
                            keeps_alive=False),
    "gunicorn-gthread": Family("gunicorn gthread", _gunicorn, "gunicorn", "gunicorn", has_log=True,
                               threaded=True),
    "waitress": Family("waitress", _waitress, "waitress-serve", "waitress", threaded=True),
}
GEVENT_FAMILIES = {
    "gunicorn-gevent": Family("gunicorn gevent", _gunicorn, "gunicorn", "gunicorn", has_log=True,
                              loop="gevent"),
    "pywsgi": Family("gevent.pywsgi", _launch("pywsgi"), "import gevent", "gevent"),
    "uwsgi-gevent": Family("uwsgi gevent, http-socket", _uwsgi, "uwsgi", "uwsgi", has_log=True,
                           keeps_alive=False, loop="gevent"),
}
FAMILIES.update(GEVENT_FAMILIES)
ASGI_FAMILIES = {
    "uvicorn": Family("uvicorn httptools", _uvicorn, "uvicorn", "uvicorn", has_log=True),
    "uvicorn-wsproto": Family("uvicorn wsproto", _uvicorn, "uvicorn", "wsproto", has_log=True),
    "granian-asgi": Family("granian", _granian, "granian", "granian", has_log=True),
    "hypercorn": Family("hypercorn", _hypercorn, "hypercorn", "hypercorn", has_log=True),
    "fastpysgi-asgi": Family("fastpysgi", _launch("fastpysgi"), "import fastpysgi", "fastpysgi",
                             survives_close=False),
    "gunicorn-asgi": Family("gunicorn asgi", _gunicorn, "gunicorn", "gunicorn", has_log=True),
    "eager-limit": Family("bare epoll loop, Task(eager_start=True)", _eager_limit, limit=True,
                          since=(3, 12)),
    "peregrine-asgi": Family("peregrine", _peregrine, "peregrine", "peregrine", has_log=True),
}
FAMILIES.update(ASGI_FAMILIES)
PYTHON_PEERS = [name for name, family in FAMILIES.items()
                if name not in OWN and not family.constant and not family.limit]


def missing(spec, venv, state):
    """Why a server cannot be started here, or ''; `state` is what bench/setup found."""
    name, family = spec.family, FAMILIES[spec.family]
    if name == "nginx":
        return "" if nginx.program() else "nginx is not installed"
    if name == BASE:
        if not base_program():
            return "set " + BASE_VARIABLE
        return "" if os.access(base_program(), os.X_OK) else \
            f"{BASE_VARIABLE} has no bin/stoker"
    if family.since:
        version = paths.python_version(os.path.join(venv, "bin", "python"))
        if tuple(int(part) for part in version.split(".")[:2]) < family.since:
            return "needs Python %d.%d" % family.since
    if not family.needs:
        return ""
    loop = spec.loop or family.loop
    for package in [family.package, *([loop] if loop in ("gevent", "uvloop") else [])]:
        problem = state.get(package, ["", "not installed: run bench/setup"])[1]
        if problem:
            return problem if package == family.package else f"{package}: {problem}"
    if not family.needs.startswith("import ") and \
            not os.path.exists(os.path.join(venv, "bin", family.needs)):
        return "not installed: run bench/setup"
    return ""
