"""uWSGI's spooler: the files, the functions, and that no task is lost."""

import importlib
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from tests.lib import users
from tests.lib.server import Server, free_port

spool_files = importlib.import_module("compat_sources.spool_files")

APP = """
import json
import os
import sys
import time
import urllib.parse

import uwsgi
from uwsgidecorators import spool, spoolforever, spoolraw

HERE = os.path.dirname(os.path.abspath(__file__))


def note(*words):
    with open(os.path.join(HERE, "done"), "a") as file:
        file.write(json.dumps([*words, uwsgi.worker_id(), uwsgi.i_am_the_spooler()]) + "\\n")


@spool
def plain(task):
    note("plain", task["word"].decode(), task.get("body", b"").decode())
    return uwsgi.SPOOL_RETRY  # a plain one is done, whatever it returns


@spool(pass_arguments=True)
def called(*args, **kwargs):
    note("called", args, kwargs)


@spoolraw
def raw(task):
    note("raw", task["word"].decode())
    return uwsgi.SPOOL_OK if os.path.exists(os.path.join(HERE, "open")) else uwsgi.SPOOL_RETRY


@spoolforever
def forever(task):
    note("forever")


@spoolraw
def wild(task):
    note("wild")
    if not os.path.exists(os.path.join(HERE, "open")):
        raise ValueError("as the test wants it")
    return uwsgi.SPOOL_OK


@spoolraw
def exits(task):
    note("exits")
    sys.exit("as the test wants it")


@spoolraw
def dies(task):
    note("dies")
    if not os.path.exists(os.path.join(HERE, "open")):
        os._exit(1)
    return uwsgi.SPOOL_OK


@spoolraw
def forks(task):
    child = os.fork()
    if child == 0:
        return uwsgi.SPOOL_OK  # it must not become a second spooler
    note("forks", os.waitpid(child, 0)[1])
    child = os.fork()
    if child == 0:
        while True:
            time.sleep(10)
    os.kill(child, 15)
    note("forks", os.waitpid(child, 0)[1])
    return uwsgi.SPOOL_OK


@spoolraw
def removes(task):
    os.unlink(task["spooler_task_name"])
    note("removes")
    return uwsgi.SPOOL_OK


@spoolraw
def slow(task):
    note("slow", os.getpid())
    while not os.path.exists(os.path.join(HERE, "open")):
        time.sleep(0.01)
    return uwsgi.SPOOL_OK


def application(environ, start_response):
    what = json.loads(urllib.parse.unquote(environ["QUERY_STRING"]) or "{}")
    function = globals()[environ["PATH_INFO"][1:]] if environ["PATH_INFO"] != "/" else None
    if function is not None:
        answer = os.fsdecode(function.spool(*what.get("args", []), **what.get("kwargs", {})))
    else:
        answer = [[os.fsdecode(job) for job in uwsgi.spooler_jobs()], uwsgi.spooler_pids(), uwsgi.spooler_pid()]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
"""

INI = """
[uwsgi]
wsgi-file = app.py
processes = 2
spooler = tasks
spooler-frequency = 1
"""


def until(condition, what):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Spooled(Server):
    """A server with a spooler, and what its tasks have noted."""

    def __init__(self, folder, more=""):
        self.folder = folder
        (folder / "app.py").write_text(APP)
        (folder / "u.ini").write_text(INI + more)
        super().__init__(None, ["--ini", "u.ini"], cwd=folder, logdir=folder)

    def leave(self, function, *args, **kwargs):
        """Has a request leave a task; the path of its file."""
        return self.get("/%s?%s" % (function, json.dumps({"args": args, "kwargs": kwargs}).replace(" ", ""))).json()

    def jobs(self):
        return self.get("/").json()[0]

    def done(self, word=None):
        path = self.folder / "done"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if word is None or line[0] == word]

    def open(self):
        (self.folder / "open").touch()


@pytest.fixture
def spooled(tmp_path):
    servers = []

    def start(more=""):
        server = Spooled(tmp_path, more)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


def test_tasks_are_done(spooled):
    server = spooled()
    path = server.leave("plain", {"word": "one", "body": "text"})
    assert os.path.dirname(path) == str(server.folder / "tasks")
    server.leave("called", 1, [2], name="x")
    server.leave("plain", {"word": "first", "priority": "3"})
    until(lambda: len(server.done()) == 3, "the tasks are not done")
    assert server.done("plain")[0] == ["plain", "one", "text", 0, True]
    assert server.done("called") == [["called", [1, [2]], {"name": "x"}, 0, True]]
    until(lambda: server.jobs() == [], "the files are there still")
    assert len(server.get("/").json()[1]) == 1
    # Not now, but at its time.
    server.leave("plain", {"word": "later", "at": str(time.time() + 1)})
    until(lambda: [line for line in server.done("plain") if line[1] == "later"], "the task with a time is not done")


def test_what_is_not_done_is_tried_again(spooled):
    server = spooled()
    server.leave("raw", {"word": "a"})
    server.leave("wild", {})
    until(lambda: len(server.done("raw")) >= 2 and len(server.done("wild")) >= 2, "no second try")
    server.wait_log("ValueError: as the test wants it")
    assert len(server.jobs()) == 2
    server.open()
    until(lambda: server.jobs() == [], "the tasks are not done")


def test_a_killed_spooler_loses_nothing(spooled):
    server = spooled("spooler-processes = 2\n")
    server.leave("slow", {})
    until(lambda: server.done("slow"), "the task has not begun")
    # The other process goes on meanwhile, and does not take the task as well.
    server.leave("plain", {"word": "beside"})
    until(lambda: server.done("plain"), "the second process does nothing")
    os.kill(server.done("slow")[0][1], signal.SIGKILL)
    until(lambda: len(server.done("slow")) == 2, "the task is not done again")
    assert len(server.done("slow")) == 2 and len(server.jobs()) == 1
    server.send_signal(signal.SIGHUP)
    server.open()
    server.wait_log("the reload is complete")
    until(lambda: server.jobs() == [], "the task is not done")
    server.leave("plain", {"word": "behind"})
    until(lambda: len(server.done("plain")) == 2, "nothing is done behind a reload")


def test_harakiri(spooled):
    server = spooled("spooler-harakiri = 1\nspooler-max-tasks = 1\n")
    server.leave("slow", {})
    server.wait_log(r"runs for longer than spooler-harakiri \(1 s\)")
    server.wait_log(r'app\.py", line \d+, in slow')
    server.open()
    until(lambda: server.jobs() == [], "the task is not done")


def test_one_task_is_not_in_the_way_of_others(spooled):
    """Neither by how it ends, nor by the end of its process: what is older does not come first again and again."""
    server = spooled()
    for word in ("exits", "dies", "removes", "forks"):
        server.leave(word, {})
    server.leave("plain", {"word": "behind"})
    until(lambda: server.done("plain"), "the task behind them is not done")
    assert len(server.done("removes")) == 1
    assert [line[1] for line in server.done("forks")] == [0, 15]
    server.wait_log("SystemExit: as the test wants it")
    server.open()
    until(lambda: server.done("dies") and len(server.jobs()) == 1, "it is not tried again")


def test_each_process_does_its_most_and_the_next_one_goes_on(spooled):
    server = spooled("spooler-max-tasks = 1\n")
    for number in range(6):
        server.leave("plain", {"word": str(number)})
    until(lambda: len(server.done("plain")) == 6, "the tasks are not done")
    # Pauses are for what fails.
    assert "it is started again in" not in server.log()


def test_ends_while_it_loads(spooled, tmp_path):
    (tmp_path / "loading.py").write_text("import time\nopen('%s/loads', 'w').close()\ntime.sleep(1000)\n" % tmp_path)
    server = spooled("spooler-import = loading.py\n")
    until((tmp_path / "loads").exists, "it does not load")
    server.stop()
    assert "does not end" not in server.log()


@pytest.mark.skipif(bool(users.why_not()), reason=str(users.why_not()))
def test_the_directory_is_the_user_s(tmp_path):
    """Root makes it, and the tasks are left and done by the user that the server becomes."""
    folder = pathlib.Path(tempfile.mkdtemp())  # where that user may go
    folder.chmod(0o755)
    try:
        (folder / "app.py").write_text(APP.replace("HERE = ", "HERE = '%s/notes' or " % folder))
        (folder / "notes").mkdir(mode=0o777)
        (folder / "notes").chmod(0o777)
        (folder / "u.ini").write_text(INI + "uid = %s\n" % users.USER)
        server = Server(None, ["--ini", "u.ini"], cwd=folder, logdir=tmp_path)
        server.start()
        try:
            server.get('/plain?{"args":[{"word":"a"}]}').json()
            until((folder / "notes" / "done").exists, "the task is not done")
        finally:
            server.stop()
        assert os.stat(folder / "tasks").st_uid == pwd.getpwnam(users.USER).pw_uid
    finally:
        shutil.rmtree(folder)


def test_what_is_no_task(spooled):
    server = spooled()
    (server.folder / "tasks" / (spool_files.PREFIX + "x")).write_bytes(b"\x11\xff\xff\0half")
    server.leave("plain", {"word": "a"})
    server.wait_log("is no task: it is cut off: it is put aside as .damaged-")
    until(lambda: server.done("plain") and server.jobs() == [], "the task behind it is not done")


def others(path):
    """Whether another process can have a task, by uWSGI's kind of lock."""
    code = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", code, path], stderr=subprocess.DEVNULL, check=False).returncode == 0


def test_files(tmp_path):
    body = bytes(range(256)) * 300
    path = spool_files.write(str(tmp_path), {b"a": b"1", b"": b"x" * 60000}, body, 5, None)
    fd = spool_files.take(path)
    assert spool_files.unpack(spool_files.read(fd)) == {"a": b"1", "": b"x" * 60000, "body": body}
    assert os.stat(path).st_mtime == 5 and oct(os.stat(path).st_mode)[-3:] == "600"
    # Whoever opens and closes the file in the same process, as the task itself may, gives nothing up.
    open(path).close()
    assert not others(path)
    # A process that is forked meanwhile holds nothing longer.
    with subprocess.Popen(["sleep", "60"], pass_fds=[fd]) as child:
        spool_files.release(fd)
        assert others(path)
        child.kill()
    for size in range(40):
        with pytest.raises(spool_files.Damaged):
            spool_files.unpack(spool_files.pack({b"key": b"value" * 7})[:size])
    with pytest.raises(ValueError, match="longer than 65535"):
        spool_files.pack({b"a": b"x" * 65536})
    with pytest.raises(ValueError, match="longer than 65535"):
        spool_files.pack({b"a": b"x" * 40000, b"b": b"x" * 40000})
    os.symlink("/etc/passwd", tmp_path / (spool_files.PREFIX + "link"))
    assert [one.path for one in spool_files.entries(str(tmp_path))] == [path]
    os.mkdir(tmp_path / "\u00b2")
    (tmp_path / spool_files.BELL).write_text("")  # no FIFO: it would always have something to read
    with pytest.raises(FileExistsError):
        spool_files.open_bell(str(tmp_path))
    first = spool_files.write(str(tmp_path), {}, b"", None, 7)
    assert (tmp_path / spool_files.BELL).read_text() == ""
    assert [one.path for one in spool_files.entries(str(tmp_path))] == [first, path]


FUNCTIONS = """
import json
import os

import uwsgi

PATHS = []


def show(function):
    try:
        found = function()
        return [type(found).__name__, isinstance(found, bytes) and os.fsdecode(os.path.dirname(found)) or repr(found)]
    except BaseException as error:
        return [type(error).__name__, str(error)[:16]]


def application(environ, start_response):
    here = os.getcwd()
    answer = [show(function) for function in (
        lambda: PATHS.append(uwsgi.spool({b"at": b"99999999999", b"body": b"x"})) or PATHS[0],
        lambda: uwsgi.spool({"a": b"b"}),
        lambda: uwsgi.spool({b"a": "b"}),
        lambda: uwsgi.spool({b"a": 1}),
        lambda: uwsgi.spool(1),
        lambda: uwsgi.spool({b"spooler": b"/nonexistent"}),
        lambda: uwsgi.spool({b"at": b"99999999999", b"priority": b"4"}),
        lambda: uwsgi.spooler_get_task("/nonexistent"),
        lambda: uwsgi.spooler_get_task(b"x"),
        lambda: {os.fsdecode(key): value for key, value in uwsgi.spooler_get_task(os.fsdecode(PATHS[0])).items()}["at"],
        lambda: uwsgi.spooler_get_task(os.fsdecode(PATHS[0]))["spooler_task_name"] == PATHS[0],
        lambda: uwsgi.set_spooler_frequency(5),
        lambda: uwsgi.i_am_the_spooler(),
        lambda: len(uwsgi.spooler_pids()),
        lambda: uwsgi.spoolers == (os.fsencode(os.path.join(here, "tasks")),),
        lambda: (uwsgi.SPOOL_OK, uwsgi.SPOOL_RETRY, uwsgi.SPOOL_IGNORE),
        lambda: sorted(name for name in dir(uwsgi) if "spool" in name.lower()),
    )]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).replace(here, "HERE").encode()]
"""


def test_the_functions_are_uwsgis(uwsgi, tmp_path):
    answers = []
    for name in ("theirs", "ours"):
        folder = tmp_path / name
        (folder / "tasks").mkdir(parents=True)
        (folder / "app.py").write_text(FUNCTIONS)
        (folder / "u.ini").write_text(INI.replace("tasks", "%d/tasks") + "master = true\n")
        if name == "theirs":
            port = free_port()
            server = Server(None, ["--ini", "u.ini", "--http-socket", "127.0.0.1:%d" % port, "--die-on-term"], cwd=folder,
                            logdir=folder, bind=None, command=[uwsgi, "--plugin", "python3"], check=False)  # fmt: skip
            server.address, server.port = ("127.0.0.1", port), port
        else:
            server = Server(None, ["--ini", "u.ini"], cwd=folder, logdir=folder)
        server.start()
        try:
            answers.append(server.get("/").json())
        finally:
            server.kill()
    assert answers[1] == answers[0]
