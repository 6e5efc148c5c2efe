"""`stoker gunicorn` beside the real Gunicorn: the same configuration, the same application, the same answers."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.lib.server import free_port, test_command

gunicorn = pytest.importorskip("gunicorn.config")

APP = """
    import json, os, sys

    def umask():
        found = os.umask(0)
        os.umask(found)  # the next request of this worker sees it, too
        return found

    def app(environ, start_response):
        body = json.dumps({
            "path": environ["PATH_INFO"], "script": environ["SCRIPT_NAME"], "query": environ["QUERY_STRING"],
            "scheme": environ["wsgi.url_scheme"], "addr": environ.get("REMOTE_ADDR", ""),
            "cwd": os.getcwd(), "path0": [p for p in sys.path if p.endswith("lib")],
            "env": {k: v for k, v in os.environ.items() if k.startswith("TEST_")},
            "umask": oct(umask()), "uid": os.getuid(),
            "body": environ["wsgi.input"].read().decode(),
        }).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("X-One", "1")])
        return [body]

    application = app

    def make(word, n=1):
        def made(environ, start_response):
            start_response("201 Made", [])
            return [("%s %d" % (word, n)).encode()]
        return made
"""

HOOKS = """
    def note(*words):
        with open("notes", "a") as file:
            file.write(" ".join(map(str, words)) + "\\n")

    def on_starting(server): note("on_starting")
    def when_ready(server): note("when_ready")
    def pre_fork(server, worker): note("pre_fork", worker.age)
    def post_fork(server, worker): note("post_fork", worker.age)
    def post_worker_init(worker): note("post_worker_init")
    def pre_request(worker, req): note("pre_request", req.method, req.path, req.query, req.version)
    def post_request(worker, req, environ, resp): note("post_request", req.uri, resp.status, environ["PATH_INFO"])
    def child_exit(server, worker): note("child_exit", worker.age)
    def worker_exit(server, worker): note("worker_exit", worker.age)
    def on_reload(server): note("on_reload")
    def on_exit(server): note("on_exit")
"""


class Both:
    """The same command line for the one and the other."""

    def __init__(self, serve, tmp_path):
        self.serve = serve
        self.cwd = tmp_path
        (tmp_path / "app.py").write_text(textwrap.dedent(APP))

    def start(self, which, *args, app="app:app", ready="/", **kwargs):
        real = [sys.executable, "-m", "gunicorn"]
        command = real if which == "gunicorn" else test_command() + ["gunicorn"]
        return self.serve(app, *args, command=command, ready=ready, **kwargs)

    def each(self, *args, **kwargs):
        for which in ("gunicorn", "stoker"):
            server = self.start(which, *args, check=which == "stoker", **kwargs)
            yield server
            server.stop()

    def fail(self, which, *args, env=None):
        command = [sys.executable, "-m", "gunicorn"] if which == "gunicorn" else test_command() + ["gunicorn"]
        return subprocess.run(
            [*command, *args],
            cwd=self.cwd,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=60,
        )


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def both(serve, tmp_path):
    return Both(serve, tmp_path)


def test_every_setting_is_known():
    """A newer Gunicorn has no setting, flag or kind of value that the table does not have."""
    from stoker.compat import gunicorn_settings

    rows = gunicorn_settings.table()
    known = {setting.name: setting for setting in gunicorn.KNOWN_SETTINGS}
    assert set(known) - set(rows) == set()
    actions = {"store_true": "flag", "store_const": "off", "append": "list"}
    for name, setting in known.items():
        assert set(setting.cli or ()) <= set(rows[name].flags), name
        if setting.cli and rows[name].kind not in ("str", "int"):
            assert actions[setting.action] == rows[name].kind, name
    for row in rows.values():
        assert row.fate in gunicorn_settings.FATES
        assert row.note or row.fate == "same", row.name
        assert row.fate in ("better", "later", "never") or row.target or row.name in ("config", "check_config", "print_config")


def test_defaults_are_gunicorns():
    from stoker.compat import gunicorn_settings

    rows = gunicorn_settings.table()
    config = gunicorn.Config()
    own = "config control_socket user group chdir sendfile proxy_protocol ssl_version secure_scheme_headers syslog_addr"
    for name, row in rows.items():
        if row.kind == "hook" or name in own.split() or name not in config.settings:
            continue
        theirs = config.settings[name].default
        assert (row.default or None) == (theirs or None) or str(row.default) == str(theirs), name


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--threads", "2"],
        ["-w", "2", "-e", "TEST_ONE=1", "-e", "TEST_TWO=a b"],
        ["--env=TEST_ONE=x=y", "--pythonpath", "lib,other/lib"],
        ["-m", "027", "--keep-alive", "5", "--timeout", "0"],
        ["--forwarded-allow-ips", "127.0.0.1", "--graceful", "3"],
        ["--preload", "--max-requests", "1000", "--max-requests-jitter", "50"],
    ],
    ids=" ".join,
)
def test_the_same_answers(both, args):
    answers = []
    for server in both.each(*args):
        answer = server.get("/a%20b/c?d=e", headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.1.2.3"})
        posted = server.request("POST", "/", body=b"some text")
        answers.append((answer.status, answer.reason, answer.header("X-One"), answer.json(), posted.json()["body"]))
    theirs, ours = answers
    ours[3]["addr"] = theirs[3]["addr"]  # X-Forwarded-For is stoker's to understand: Gunicorn leaves it to frameworks
    assert theirs == ours


def test_the_file(both, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text(
        "import os\nworkers = 1 + int(os.environ.get('MORE', 0))\nraw_env = ['TEST_FILE=1']\nthreads = '2'\n"
        "unknown_name = 3\naccesslog = '-'\naccess_log_format = '%(m)s %(U)s %(q)s %(s)s %(B)s %({user-agent}i)s'\n"
    )
    answers, lines = [], []
    for server in both.each(env={"MORE": "1"}):
        answers.append(server.get("/x?y=z", headers={"User-Agent": "me"}).json()["env"])
        lines.append(server.wait_log("^GET /x.*$", out=True).group(0))
        wait_until(lambda: len(server.worker_pids()) >= 2)
    assert answers[0] == answers[1] == {"TEST_FILE": "1"}
    assert lines[0] == lines[1]


@pytest.mark.parametrize("how", ["file:other.py", "other.py", "python:other"])
def test_named_files(both, tmp_path, how):
    (tmp_path / "other.py").write_text("raw_env = ['TEST_OTHER=yes']\n")
    for server in both.each("-c", how):
        assert server.get("/").json()["env"] == {"TEST_OTHER": "yes"}


def test_precedence(both, tmp_path):
    """The command line, then GUNICORN_CMD_ARGS, then the file."""
    (tmp_path / "gunicorn.conf.py").write_text("raw_env = ['TEST_A=file']\nproc_name = 'file'\nwsgi_app = 'nothing'\n")
    for server in both.each(env={"GUNICORN_CMD_ARGS": "--env TEST_A=variable --threads 2"}):
        assert server.get("/").json()["env"] == {"TEST_A": "variable"}
    for server in both.each("--env", "TEST_A=line", env={"GUNICORN_CMD_ARGS": "--env TEST_A=variable"}):
        assert server.get("/").json()["env"] == {"TEST_A": "line"}


def test_a_reload_does_not_undo_the_command_line(both, tmp_path):
    path = tmp_path / "gunicorn.conf.py"
    path.write_text("def post_fork(server, worker): server.log.info('first %s', worker.cfg.proc_name)\n")
    server = both.start("stoker", "-n", "line")
    server.wait_log("first line")
    path.write_text(
        "wsgi_app = 'nothing:here'\nproc_name = 'file'\n"
        "def post_fork(server, worker): server.log.info('second %s', worker.cfg.proc_name)\n"
    )
    server.send_signal(signal.SIGHUP)
    server.wait_log("the reload is complete")
    server.wait_log("second line")
    assert "no setting" not in server.log()


def test_a_reload_reads_the_file_that_was_read(both, tmp_path):
    """And not one of its name below `chdir`."""
    (tmp_path / "below").mkdir()
    (tmp_path / "app.py").rename(tmp_path / "below" / "app.py")
    path = tmp_path / "gunicorn.conf.py"
    path.write_text("chdir = 'below'\ndef post_fork(server, worker): server.log.info('first')\n")
    server = both.start("stoker")
    server.wait_log("first")
    path.write_text("chdir = 'below'\ndef post_fork(server, worker): server.log.info('second')\n")
    server.send_signal(signal.SIGHUP)
    server.wait_log("the reload is complete")
    server.wait_log("second")


def test_none_and_classes_in_the_file(both, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text(
        "class Logger: pass\nlogger_class = Logger\naccesslog = None\nbind = None\nreload = None\nsecure_scheme_headers = None\n"
    )
    server = both.start("stoker")
    assert server.get("/").status == 200
    assert "gunicorn.conf.py:2: logger_class has no effect" in server.log()


def test_fields_of_the_log(both, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text(
        "accesslog = '-'\naccess_log_format = 'LINE %({X-Request-Id}i)s %({HTTP_X_A}e)s %({nope}o)s %({x-forwarded-for}i)s'\n"
    )
    for server in both.each():
        server.get("/", headers={"X-Request-Id": "abc", "X-A": "b", "X-Forwarded-For": "1.2.3.4, 5.6.7.8"})
        server.wait_log("^LINE abc b - 1.2.3.4, 5.6.7.8$", out=True)
    assert "gunicorn.conf.py:2: access_log_format: written as -: %({nope}o)s" in server.log()


def test_the_application_by_the_file(both, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text("wsgi_app = 'app:make(\"x\", n=5)'\n")
    for server in both.each(app=None):
        answer = server.get("/")
        assert (answer.status, answer.reason, answer.body) == (201, "Made", b"x 5")


def test_environment(both, tmp_path):
    port = free_port()
    for which in ("gunicorn", "stoker"):
        server = both.start(
            which, bind=None, env={"PORT": str(port), "WEB_CONCURRENCY": "2"}, ready=None, start=False, check=False
        )
        server.address, server.port = ("127.0.0.1", port), port
        server.start("/")
        assert server.get("/").status == 200
        server.stop()


def test_unix_socket(both):
    for server in both.each(bind="unix"):
        assert server.get("/").json()["addr"] == ""


def test_pidfile(both, tmp_path):
    for server in both.each("--pid", "p.pid"):
        assert int((tmp_path / "p.pid").read_text()) == server.pid
        server.stop()
        assert not (tmp_path / "p.pid").exists()


@pytest.mark.parametrize(
    "args, code",
    [
        (["--workers", "many", "app:app"], None),
        (["--no-such-option", "app:app"], 2),
        (["--check-config", "app:app"], 0),
        (["--check-config", "app:nothing"], 1),
        (["--check-config", "missing:app"], 1),
        (["-b", "127.0.0.1:0", "--preload", "missing:app"], 1),
        (["-b", "127.0.0.1:0", "missing:app"], 3),
        (["-c", "missing.py", "app:app"], 1),
        ([], 1),
    ],
    ids=str,
)
def test_exit_codes(both, args, code):
    theirs, ours = both.fail("gunicorn", *args), both.fail("stoker", *args)
    assert (ours.returncode == 0) == (theirs.returncode == 0)
    if code is not None:
        assert ours.returncode == theirs.returncode == code
    if ours.returncode:
        assert "Traceback" not in ours.stderr or "missing" in args[-1]


def test_hooks(both, tmp_path):
    """All of them, as often and in the same order."""
    (tmp_path / "gunicorn.conf.py").write_text(textwrap.dedent(HOOKS))
    notes = tmp_path / "notes"
    found = []
    for server in both.each("--keep-alive", "1"):
        server.get("/a?b=c")
        server.stop()
        found.append(notes.read_text().splitlines())
        notes.unlink()
    theirs, ours = found
    assert sorted(theirs) == sorted(ours)
    assert [line.split()[0] for line in ours if "fork" in line or "init" in line] == [
        "pre_fork", "post_fork", "post_worker_init"
    ]  # fmt: skip
    assert ours[0] == "on_starting" and ours[-1] == "on_exit"
    assert ours.index("pre_request GET /a b=c (1, 1)") + 1 == ours.index("post_request /a?b=c 200 OK /a")


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each", "preload"])
def test_hooks_at_a_reload(both, tmp_path, preload):
    path = tmp_path / "gunicorn.conf.py"
    path.write_text(textwrap.dedent(HOOKS))
    server = both.start("stoker", "-w", "2", *preload)
    server.wait_log("ready after")  # a worker that still begins is killed by a reload, without hooks of its own
    path.write_text(textwrap.dedent(HOOKS).replace('note("post_fork"', 'note("new_post_fork"'))
    server.send_signal(signal.SIGHUP)
    server.wait_log("the reload is complete")
    server.stop()
    lines = (tmp_path / "notes").read_text().splitlines()
    names = [line.split()[0] for line in lines]
    assert names.count("on_reload") == 1
    assert names.count("post_fork") == 2 and names.count("new_post_fork") == 2
    assert names.count("child_exit") == 4 and names.count("worker_exit") == 4


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each", "preload"])
def test_hooks_are_told_of_one_worker(both, tmp_path, preload):
    """What is put on a worker stays there, and each has an age of its own; what the application forks is none."""
    (tmp_path / "app.py").write_text(
        "import os\npid = os.fork()\nif not pid:\n    os._exit(0)\nos.waitpid(pid, 0)\n"
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"
    )
    (tmp_path / "gunicorn.conf.py").write_text(textwrap.dedent("""
        import os

        def note(*words):
            with open("notes", "a") as file:
                file.write(" ".join(map(str, words)) + "\\n")

        def nworkers_changed(server, new, old): note("nworkers_changed", new, old)
        def post_fork(server, worker): worker.mark = "marked"; note("post_fork", worker.age, worker.pid == os.getpid())
        def post_worker_init(worker): note("init", worker.age, worker.mark)
        def pre_request(worker, req): note("pre_request", worker.pid == os.getpid(), worker.mark, worker.nr)
        def worker_exit(server, worker): note("worker_exit", worker.age, worker.mark)
        def child_exit(server, worker): note("child_exit", worker.age)
    """))
    found = []
    for server in both.each("-w", "2", *preload, ready=None):
        server.get("/")
        wait_until(lambda: (tmp_path / "notes").read_text().count("init") == 2)
        server.wait_log("ready after|Control socket listening")
        server.stop()
        found.append(sorted((tmp_path / "notes").read_text().splitlines()))
        (tmp_path / "notes").unlink()
    assert found[0] == found[1]


def test_an_upgrade_keeps_what_the_environment_says(both, tmp_path):
    server = both.start("stoker", "--pid", "p.pid", env={"WEB_CONCURRENCY": "2", "TEST_A": "b"})
    assert server.get("/").json()["env"] == {"TEST_A": "b"}
    server.wait_log("2 workers with 1 thread each")
    server.send_signal(signal.SIGUSR2)
    server.wait_log("has taken over from process")
    try:
        assert server.log().count("2 workers with 1 thread each") == 2
    finally:
        os.kill(int((tmp_path / "p.pid").read_text()), signal.SIGTERM)


PROCESSES = """
    import os, signal, subprocess, time

    def when_ready(server):
        here, there = os.pipe()
        forked = os.fork()
        if forked == 0:
            os.write(there, b"x")
            time.sleep(60)
            os._exit(1)
        os.read(here, 1)
        first = subprocess.Popen(["sleep", "60"])
        second = subprocess.Popen(["sleep", "60"], preexec_fn=os.setsid)
        for child in (first, second):
            child.terminate()
        codes = [child.wait(20) for child in (first, second)]
        with open("/proc/%d/status" % forked) as file:
            blocked = [line.split()[1] for line in file if line.startswith("SigBlk")]
        codes.append(int(blocked[0], 16))
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)
        text = "%s %s" % (codes, subprocess.check_output("echo out", shell=True).decode().strip())
        with open("notes.new", "w") as file:
            file.write(text)
        os.rename("notes.new", "notes")
"""


def test_processes_of_hooks(both, tmp_path):
    """They end when they are told to, whatever signals the server keeps for itself."""
    (tmp_path / "gunicorn.conf.py").write_text(textwrap.dedent(PROCESSES))
    notes = tmp_path / "notes"
    for _server in both.each():
        wait_until(notes.exists)
        assert notes.read_text() == "[-15, -15, 0] out"
        notes.unlink()


def test_a_hook_that_fails(both, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text("def post_fork(server, worker):\n    raise ValueError('so it is')\n")
    server = both.start("stoker")
    assert server.get("/").status == 200
    server.wait_log("the hook post_fork has failed")
    server.wait_log("ValueError: so it is")


def test_a_start_that_a_hook_refuses(both, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text("import sys\ndef on_starting(server):\n    sys.exit('nothing is migrated')\n")
    for which in ("gunicorn", "stoker"):
        done = both.fail(which, "-b", "127.0.0.1:%d" % free_port(), "app:app")
        assert done.returncode == 1
        assert "nothing is migrated" in done.stderr


def test_more_and_less_workers(both, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text(
        "def nworkers_changed(server, new, old): server.log.info('now %d, before %d', new, old)\n"
    )
    server = both.start("stoker", "-w", "2")
    server.wait_log("ready after")
    server.send_signal(signal.SIGTTOU)
    server.wait_log("now 1, before 2")
    server.send_signal(signal.SIGTTOU)
    server.wait_log("the last worker stays")
    server.send_signal(signal.SIGTTIN)
    server.wait_log("now 2, before 1")
    server.send_signal(signal.SIGTTIN)
    server.wait_log("no more workers than 2")


def test_a_request_that_takes_too_long(both, tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time\ndef app(environ, start_response):\n    if environ['PATH_INFO'] == '/slow':\n        time.sleep(60)\n"
        "    start_response('200 OK', [])\n    return [b'ok']\n"
    )
    server = both.start("stoker", "--timeout", "1", app="slow:app")
    assert server.get("/slow").status == 504
    assert server.get("/").body == b"ok"


def test_asgi_by_uvicorns_worker(both, tmp_path):
    (tmp_path / "asgi.py").write_text(
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'async'})\n"
    )
    server = both.start("stoker", "-k", "uvicorn.workers.UvicornWorker", app="asgi:app")
    assert server.get("/").body == b"async"


@pytest.mark.parametrize(
    "text, line, words",
    [
        ("workers = 'many'\n", 1, "workers: expected a number, not 'many'"),
        ("\nbind = 'here:there'\n", 2, "'there' is not a port"),
        ("worker_class = 'tornado'\n", 1, "tornado is not there; use"),
        ("worker_class = 'my.own.Worker'\n", 1, "'my.own.Worker' is a class of Gunicorn's"),
        ("timeout = None\n", 1, "timeout: expected a number, not None"),
        ("\n\n1 / 0\n", 3, "ZeroDivisionError"),
        ("preload_app = 'perhaps'\n", 1, "expected True or False"),
        ("def broken(:\n", 1, "SyntaxError"),
    ],
)
def test_mistakes_in_the_file(both, tmp_path, text, line, words):
    (tmp_path / "gunicorn.conf.py").write_text(text)
    result = both.fail("stoker", "app:app")
    assert result.returncode == 1
    assert "gunicorn.conf.py:%d: " % line in result.stderr and words in result.stderr
    assert "Traceback" not in result.stderr


def test_what_is_not_there_is_said(both, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text("worker = 3\nstatsd_host = 'localhost:8125'\nspew = True\n")
    server = both.start("stoker", "--logger-class", "my.Logger")
    log = server.log()
    assert "gunicorn.conf.py:1: worker is no setting; workers was probably meant" in log
    assert "gunicorn.conf.py:2: statsd_host has no effect" in log and "`metrics`" in log
    assert "gunicorn.conf.py:3: spew has no effect" in log
    assert "command line: logger_class has no effect" in log


def test_what_is_printed_is_captured(both, tmp_path):
    (tmp_path / "talk.py").write_text(
        "def app(environ, start_response):\n    print('printed', flush=True)\n"
        "    start_response('200 OK', [])\n    return [b'ok']\n"
    )
    server = both.start("stoker", "--capture-output", "--error-logfile", "errors", app="talk:app")
    server.get("/")
    assert "printed" in (tmp_path / "errors").read_text()
    assert "printed" not in server.stdout()
    (tmp_path / "errors").rename(tmp_path / "old")
    server.send_signal(signal.SIGUSR1)

    def is_in_the_new_one():
        server.get("/")
        return (tmp_path / "errors").exists() and "printed" in (tmp_path / "errors").read_text()

    wait_until(is_in_the_new_one)


def test_logging_of_the_application(both, tmp_path):
    (tmp_path / "log.json").write_text(json.dumps({
        "version": 1, "disable_existing_loggers": False,
        "handlers": {"own": {"class": "logging.FileHandler", "filename": str(tmp_path / "own.log")}},
        "loggers": {"gunicorn.error": {"handlers": ["own"], "propagate": False}},
        "root": {"level": "INFO", "handlers": ["own"]},
    }))  # fmt: skip
    (tmp_path / "logs.py").write_text(
        "import logging\ndef app(environ, start_response):\n    logging.getLogger('mine').info('a word')\n"
        "    start_response('200 OK', [])\n    return [b'ok']\n"
    )
    for server in both.each("--log-config-json", "log.json", app="logs:app"):
        (tmp_path / "own.log").write_text("")
        server.get("/")
        assert "a word" in (tmp_path / "own.log").read_text()


def test_paste(both, tmp_path):
    pytest.importorskip("paste.deploy")
    (tmp_path / "factory.py").write_text(
        "def make(global_conf, word='none'):\n    def app(environ, start_response):\n"
        "        start_response('200 OK', [])\n        return [(word + global_conf.get('more', '')).encode()]\n"
        "    return app\n"
    )
    (tmp_path / "site.ini").write_text("[app:main]\npaste.app_factory = factory:make\nword = pasted\n")
    for server in both.each("--paste", "site.ini", "--paste-global", "more=!", app=None):
        assert server.get("/").body == b"pasted!"


def test_logging_by_paste(both, tmp_path):
    pytest.importorskip("paste.deploy")
    (tmp_path / "factory.py").write_text(
        "import logging\ndef make(global_conf):\n    def app(environ, start_response):\n"
        "        logging.getLogger('mine').info('a word')\n        start_response('200 OK', [])\n        return [b'ok']\n"
        "    return app\n"
    )
    (tmp_path / "site.ini").write_text(textwrap.dedent("""
        [app:main]
        paste.app_factory = factory:make
        [loggers]
        keys = root
        [handlers]
        keys = own
        [formatters]
        keys =
        [logger_root]
        level = INFO
        handlers = own
        [handler_own]
        class = FileHandler
        args = ('%(here)s/own.log',)
    """))
    for server in both.each("--paste", "site.ini", app=None):
        server.get("/")
        assert "a word" in (tmp_path / "own.log").read_text()
        (tmp_path / "own.log").write_text("")


def test_help(both):
    text = both.fail("stoker", "--help").stdout
    assert "--worker-class" in text and "[never]" in text and "usage: stoker gunicorn" in text


def test_a_plain_application_is_not_wrapped(both):
    """Without hooks the engine loads what Gunicorn would have loaded."""
    server = both.start("stoker")
    assert "serving app:app at" in server.log()




def test_the_list_is_up_to_date():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    text = subprocess.run([sys.executable, "tools/gen_gunicorn_options"], cwd=root, capture_output=True, text=True)
    with open(os.path.join(root, "docs", "gunicorn-options.md")) as file:
        assert file.read() == text.stdout


def test_hop_by_hop_fields_are_dropped(both, tmp_path):
    """Applications that hand on the answers of others have them."""
    (tmp_path / "app.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Connection', 'close'), ('X-A', 'b'), ('Keep-Alive', 'timeout=5')])\n    return [b'ok']\n"
    )
    answers = []
    for server in both.each("--keep-alive", "5"):
        answer = server.get("/")
        answers.append((answer.status, answer.body, answer.header("X-A"), answer.header("Keep-Alive")))
    assert answers[0] == answers[1] == (200, b"ok", "b", None)


WORKERS = """
    import os

    def when_ready(server):
        server.log.info("known %s %s", sorted(server.WORKERS) == sorted(w.pid for w in server.WORKERS.values()), len(server.WORKERS))

    def child_exit(server, worker):
        server.log.info("gone %s %s", worker.pid in server.WORKERS, worker.age)
"""


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each", "preload"])
def test_the_workers_are_known(both, tmp_path, preload):
    (tmp_path / "gunicorn.conf.py").write_text(textwrap.dedent(WORKERS))
    server = both.start("stoker", "-w", "2", *preload)
    server.wait_log("known True 2")
    server.stop()
    assert server.log().count("gone False") == 2
