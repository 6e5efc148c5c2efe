"""import uwsgi: what applications and agents find."""

import importlib
import os
import shutil
import textwrap
import threading
import time

import pytest


from tests.lib.server import Server, free_port

uwsgi_module = importlib.import_module("compat_sources.uwsgi_module")

APP = """
    import json, os, time
    import uwsgi
    from uwsgidecorators import lock, postfork, thread

    events = []

    @postfork
    def everywhere():
        events.append("postfork %d" % uwsgi.worker_id())

    @postfork(2)
    def second():
        events.append("second")

    @lock
    def inside():
        return uwsgi.is_locked()

    def leave():
        with open("left", "a") as file:
            file.write("%d\\n" % uwsgi.worker_id())

    uwsgi.atexit = leave

    def raised(function, *args):
        try:
            return repr(function(*args))
        except Exception as error:
            return "%s: %s" % (type(error).__name__, error)

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        path = environ["PATH_INFO"]
        if path == "/lock":
            uwsgi.lock()
            time.sleep(float(environ["QUERY_STRING"]))
            uwsgi.unlock()
        if path == "/slow":
            uwsgi.set_user_harakiri(1)
            time.sleep(60)
        if path == "/reload":
            return [repr(uwsgi.reload()).encode()]
        uwsgi.metric_inc("hits")
        uwsgi.set_logvar("who", "me")
        return [json.dumps({
            "events": events, "worker": uwsgi.worker_id(), "master": uwsgi.masterpid(), "parent": os.getppid(),
            "inside": inside(), "free": uwsgi.is_locked(), "hits": uwsgi.metric_get("hits"),
            "logvar": repr(uwsgi.get_logvar("who")), "version": repr(environ["uwsgi.version"]),
            "opt": {key: repr(value) for key, value in uwsgi.opt.items()}, "numproc": uwsgi.numproc,
            "workers": [one["id"] for one in uwsgi.workers()], "total": uwsgi.total_requests(), "mem": uwsgi.mem(),
            "cache": raised(uwsgi.mule_get_msg), "lock9": raised(uwsgi.lock, 9), "names": dir(uwsgi),
            "requests": uwsgi.metric_get("worker.0.requests"),
        }).encode()]
"""

INI = "[uwsgi]\nmodule = app\nmaster = true\nprocesses = 2\nenable-threads = true\nmetric = name=hits\n"


@pytest.fixture
def uwsgi(place, serve):
    """A server with that application: uwsgi(more lines of its ini)."""

    def start(more="", *args):
        (place / "app.py").write_text(textwrap.dedent(APP))
        (place / "u.ini").write_text(INI + more)
        server = serve(None, "--ini", "u.ini", *args, cwd=place)
        server.wait_log("ready after")
        return server

    return start


@pytest.mark.parametrize("more", ["", "lazy-apps = true\n"], ids=["before the fork", "lazy-apps"])
def test_what_an_application_sees(uwsgi, place, more):
    server = uwsgi(more)
    seen = {}
    while len(seen) < 2:
        answer = server.get("/").json()
        seen[answer["worker"]] = answer
    assert set(seen) == {1, 2}
    for number, answer in seen.items():
        assert answer["events"] == ["postfork %d" % number] + ["second"] * (number == 2)
        assert answer["master"] == server.pid
        assert (answer["inside"], answer["free"]) == (True, False)
        assert answer["logvar"] == "b'me'" and answer["version"] == repr(uwsgi_module.VERSION.encode())
        assert answer["opt"]["module"] == "b'app'" and answer["opt"]["processes"] == "b'2'"
        assert answer["numproc"] == 2 and answer["workers"] == [1, 2]
        assert answer["mem"][0] > 1 << 20 and answer["mem"][1] > answer["mem"][0]
        assert "NotYet: uwsgi.mule_get_msg: mules: not there yet, stoker" in answer["cache"]
        assert answer["lock9"] == "ValueError: Invalid lock number"
        assert not {"spool", "queue_get", "sharedarea_read", "snmp_set_gauge"} & set(answer["names"])
    for _ in range(100):  # another worker counts a request behind its response
        last = server.get("/").json()
        if last["total"] >= 2 and last["requests"] >= 2:
            break
    assert last["hits"] >= 3 and last["hits"] > last["total"] >= 2 and last["requests"] >= 2
    server.stop()
    assert sorted((place / "left").read_text().split()) == ["1", "2"]


def test_names(uwsgi):
    """Every name of uWSGI's module is there, as data, a function, or one that says what is missing."""
    names = set(uwsgi("spooler = .\n").get("/").json()["names"])
    functions = set(uwsgi_module.FUNCTIONS) | set(uwsgi_module.NOT_YET)
    expected = {name for name in functions if not name.startswith(("queue_", "sharedarea_", "snmp_"))}
    assert expected <= names
    for name in "opt version numproc hostname magic_table cores started_on sockets applications SPOOL_OK".split():
        assert name in names


def test_locks_are_the_workers(uwsgi):
    """One waits for the other, whichever worker has it; a worker that is killed gives it back."""
    server = uwsgi()
    first = server.connect()
    first.send(b"GET /lock?0.5 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert server.get("/lock?0").status == 200
    assert first.read_response().status == 200


def test_a_limit_of_a_request(uwsgi):
    server = uwsgi()
    assert server.get("/slow").status == 504


def test_a_reload(uwsgi):
    server = uwsgi()
    assert server.get("/reload").body == b"True"
    server.wait_log("the reload is complete")
    assert server.get("/").json()["master"] == server.pid


def test_it_is_not_there_otherwise(serve, run, place):
    app = """
        def app(environ, start_response):
            try:
                import uwsgi
                found = repr(uwsgi.version)
            except ImportError as error:
                found = str(error)
            start_response("200 OK", [])
            return [found.encode()]
    """
    assert serve(app).get("/").body == b"No module named 'uwsgi'"
    assert serve(app, "--uwsgi-module").get("/").body == repr(uwsgi_module.VERSION.encode()).encode()


SENTRY = """
    import sentry_sdk
    sentry_sdk.init("http://key@127.0.0.1:1/1", traces_sample_rate=0)

    def application(environ, start_response):
        start_response("200 OK", [])
        return [b"ok"]
"""


@pytest.mark.parametrize(
    "more, warns", [("", True), ("enable-threads = true\npy-call-uwsgi-fork-hooks = true\n", False), ("threads = 2\nlazy-apps = true\n", False)]
)
def test_sentry(place, serve, more, warns):
    """It reads uwsgi.opt, and warns where uWSGI would not run its threads."""
    pytest.importorskip("sentry_sdk")
    (place / "app.py").write_text(textwrap.dedent(SENTRY))
    (place / "u.ini").write_text("[uwsgi]\nmodule = app\nprocesses = 2\n" + more)
    server = serve(None, "--ini", "u.ini", cwd=place)
    assert server.get("/").body == b"ok"
    assert ("We detected the use of uWSGI" in server.log()) == warns


OPENTELEMETRY = """
    import os
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
    from uwsgidecorators import postfork

    @postfork
    def begin():
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=open("spans.%d" % os.getpid(), "w"))))
        trace.set_tracer_provider(provider)

    def application(environ, start_response):
        with trace.get_tracer("tests").start_as_current_span("the span"):
            start_response("200 OK", [])
            return [b"%d" % os.getpid()]
"""


def test_opentelemetry(place, serve):
    """As its documentation has it for servers that fork: each worker has an exporter with a thread of its own."""
    pytest.importorskip("opentelemetry.sdk")
    (place / "app.py").write_text(textwrap.dedent(OPENTELEMETRY))
    (place / "u.ini").write_text("[uwsgi]\nmodule = app\nmaster = true\nprocesses = 2\nenable-threads = true\n")
    server = serve(None, "--ini", "u.ini", cwd=place)
    pid = server.get("/").text
    server.stop()
    assert "the span" in (place / ("spans." + pid)).read_text()


PROBE = """
    import json, uwsgi

    CALLS = [
        ("worker_id",), ("mule_id",), ("masterpid",), ("total_requests",), ("request_id",), ("mem",), ("micros",), ("cl",), ("connection_fd",),
        ("listen_queue",), ("listen_queue", 0), ("listen_queue", 9), ("listen_queue", "x"),
        ("lock", "x"), ("lock", -1), ("lock", 77), ("unlock", 77), ("is_locked",), ("is_locked", 0), ("is_locked", 77),
        ("log", "text"), ("log", 1), ("log",), ("log_this_request",), ("logsize",), ("set_logvar", "a", "b"), ("get_logvar", "a"),
        ("get_logvar", b"none"), ("set_logvar", 1, 2), ("set_logvar", "a"), ("set_user_harakiri", 0), ("set_user_harakiri", "x"),
        ("set_warning_message", "x"), ("set_warning_message", 1), ("setprocname", "x"), ("setprocname", 1), ("add_var", "A", "B"),
        ("metric_get", "nope"), ("metric_get", "hits"), ("metric_get", 1), ("metric_inc", "hits"), ("metric_inc", "hits", 4),
        ("metric_inc", "hits", "x"), ("metric_dec", "hits"), ("metric_mul", "hits", 3), ("metric_div", "hits", 2), ("metric_set", "hits", 9),
        ("metric_set_max", "hits", 100), ("metric_set_min", "hits", 7), ("metric_get", "hits"), ("is_connected", 9999), ("is_connected", "x"),
        ("ready",), ("ready_fd",), ("rpc_list",), ("in_farm",), ("in_farm", "x"), ("i_am_the_spooler",), ("i_am_the_lord", "x"),
        ("signal_received",), ("signal_registered", 1), ("connect", "127.0.0.1:1"), ("connect", "/nowhere"), ("connect", 1), ("close", 9999),
        ("websocket_handshake",), ("mule_msg", "x"), ("lord_scroll", "x"), ("scrolls", "x"), ("spooler_pid",), ("spool",), ("queue_get", 1),
        ("sharedarea_read", 0, 0),
    ]
    SAME = {"metric_get", "worker_id", "mule_id", "listen_queue", "cl", "logsize", "get_logvar", "rpc_list", "is_locked"}

    def shape(value):
        if isinstance(value, (bool, type(None))):
            return repr(value)
        return [type(value).__name__, len(value)] if isinstance(value, tuple) else type(value).__name__

    def call(name, *args):
        function = getattr(uwsgi, name, None)
        if function is None:
            return "absent"
        try:
            found = function(*args)
            return repr(found) if name in SAME else shape(found)
        except Exception as error:
            return type(error).__name__ + (": %s" % error if isinstance(error, (ValueError, OSError)) else "")

    def application(environ, start_response):
        data = {name: shape(getattr(uwsgi, name, "absent")) for name in
                "opt numproc cores has_threads hostname buffer_size started_on magic_table loop is_a_reload spoolers SPOOL_OK pidfile".split()}
        answer = [data, [[repr(one), call(*one)] for one in CALLS],
            {k: repr(v) for k, v in uwsgi.opt.items() if k in ("module", "master", "processes")},
            uwsgi.numproc, shape(environ["uwsgi.version"]), shape(environ["uwsgi.node"]), shape(uwsgi.workers()),
            sorted(k for k in uwsgi.workers()[0] if k in ("id", "pid", "requests", "status", "rss", "vsz", "apps", "exceptions", "avg_rt")),
            sorted(k for k in uwsgi.workers()[0]["apps"][0] if k in ("id", "mountpoint", "callable", "interpreter", "requests"))]
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]
"""


def test_as_in_uwsgi(place, serve):
    """The same types and values as in uWSGI itself."""
    binary = shutil.which("uwsgi")
    if not binary:
        pytest.skip("uwsgi is not installed")
    (place / "app.py").write_text(textwrap.dedent(PROBE))
    port = free_port()
    (place / "u.ini").write_text("[uwsgi]\nmodule = app\nmaster = true\nprocesses = 1\nbuffer-size = 8192\nlocks = 3\nmetric = name=hits\npidfile = u.pid\n")
    theirs = Server(None, ["--ini", "u.ini", "--http-socket", "127.0.0.1:%d" % port, "--die-on-term"], cwd=place,
                    logdir=place, bind=None, command=[binary, "--plugin", "python3"], check=False)  # fmt: skip
    theirs.address, theirs.port = ("127.0.0.1", port), port
    theirs.start()
    try:
        expected = theirs.get("/").json()
    finally:
        theirs.stop()
    found = serve(None, "--ini", "u.ini", cwd=place).get("/").json()
    for ours, there in zip(found[1], expected[1]):
        assert ours == there
    assert found == expected




def test_locks_of_several_threads_are_no_deadlock():
    """Two processes that each hold a lock and wait, in other threads, for that of the other one."""
    locks = uwsgi_module._Locks(2)
    holds, told = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            locks.renew()
            locks.take(1)
            os.write(holds[1], b"x")
            os.read(told[0], 1)
            threading.Timer(0.2, locks.give, (1,)).start()
            locks.take(0)
            os._exit(0)
        finally:
            os._exit(1)
    locks.take(0)
    os.read(holds[0], 1)
    got = threading.Event()

    def other():
        locks.take(1)
        got.set()

    threading.Thread(target=other, daemon=True).start()
    deadline = time.monotonic() + 20
    while "%d" % os.getpid() not in waiters():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.write(told[1], b"x")
    assert got.wait(20)
    locks.give(0)
    assert os.waitpid(pid, 0)[1] == 0


def waiters():
    """Processes that wait for a record lock."""
    with open("/proc/locks") as file:
        return [line.split()[5] for line in file if "->" in line]
