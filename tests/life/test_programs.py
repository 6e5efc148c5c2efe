"""Programs beside the server: kept running, never twice, and gone with it, however it goes."""

import json
import os
import re
import signal
import socket
import subprocess
import textwrap
import time

import pytest

from tests.lib.server import Server
from tests.lib.server import test_command as stoker_command

APP = """
    import os
    import signal

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if environ["PATH_INFO"] == "/say":
            environ["wsgi.errors"].write("the disk %s\\n" % environ["QUERY_STRING"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % os.getpid()]
"""


def alive(pid):
    """Whether a process lives; a zombie does not."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.01)


def numbers(path):
    """The lines of a file that is written by programs: process ids."""
    try:
        return [int(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return []


class Beside:
    """A server with a file of configuration, and what it says of its programs."""

    def __init__(self, serve, folder, configuration, *args, **kwargs):
        self.folder = folder
        (folder / "stoker.toml").write_text(configuration)
        self.server = serve(APP, "--pidfile", "pid", "--control", "control", *args, ready="/", **kwargs)

    def pids(self, name):
        """The processes that a program has been, in order."""
        return [int(pid) for pid in re.findall(r"program %s is process (\d+)" % name, self.server.log())]

    def wait_pid(self, name, count=1):
        wait_until(
            lambda: len(self.pids(name)) >= count,
            lambda: self.server.report("%s was not started %d times" % (name, count)),
        )
        return self.pids(name)[count - 1]

    def wait_lines(self, name, count):
        """The first numbers that are written to a file."""
        path = self.folder / name
        wait_until(lambda: len(numbers(path)) >= count, lambda: self.server.report("%s is too short" % name))
        return numbers(path)[:count]

    def command(self, name, *args):
        command = [*stoker_command(), name, "--control", str(self.folder / "control"), *args]
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=40, check=False)
        return done.stdout.decode()

    def status(self):
        return json.loads(self.command("status", "--json"))


@pytest.fixture
def beside(serve, tmp_path):
    return lambda configuration, *args, **kwargs: Beside(serve, tmp_path, configuration, *args, **kwargs)


# One that takes part in all: it notes its process, and that of a child that ignores SIGTERM.
FAMILY = """
[[program]]
name = "family"
command = "(trap '' TERM; echo $$ >> ignored; exec sleep 1000) & echo $! >> children; echo $$ >> parents; wait"
grace = 0.3
"""


def test_lives_with_its_server(beside, tmp_path):
    """Started again when it is killed, kept over a reload, shown, and ended with what it has started."""
    one = beside(
        FAMILY
        + """
        [[program]]
        command = "echo $GREETING from $PWD; echo no end >&2; printf half; exec sleep 1000"
        name = "talker"
        directory = "/"
        env = {GREETING = "good day"}
        reload = "restart"
        """
    )
    log = one.server.wait_log
    log(r"info: talker: good day from /\n")
    log(r"info: talker: no end\n")
    first = one.wait_pid("family")
    child = one.wait_lines("children", 1)[0]
    talker = one.wait_pid("talker")
    assert alive(first) and alive(child)
    assert os.getsid(first) == first and os.getsid(talker) == talker
    descriptors = sorted(int(name) for name in os.listdir("/proc/%d/fd" % talker))
    assert descriptors == [0, 1, 2]
    assert os.readlink("/proc/%d/fd/0" % talker) == "/dev/null"
    with open("/proc/%d/status" % talker) as file:
        masks = dict(line.split(":\t") for line in file if line.startswith("Sig"))
    # 32 and 33 are the C library's own, and no program can set them: they stay as the tests began with them.
    assert int(masks["SigBlk"], 16) == 0 and int(masks["SigIgn"], 16) & ~(3 << 31) == 0

    # A reload leaves the one alone, and restarts the other.
    one.server.send_signal(signal.SIGHUP)
    log(r"the reload is complete")
    again = one.wait_pid("talker", 2)
    log(r"talker: half\n")
    assert not alive(talker) and alive(again) and one.pids("family") == [first]

    # Killed: what it has left behind goes, too, before there is another one.
    os.kill(first, signal.SIGKILL)
    log(r"family: processes that it has left behind do not end: they are killed")
    log(r"error: program family \(%d\) was killed by SIGKILL after \d+\.\d s: it is started again in 0\.1 s" % first)
    second = one.wait_pid("family", 2)
    children = one.wait_lines("children", 2)
    assert not alive(child) and alive(second) and alive(children[1])

    status = {program["name"]: program for program in one.status()["programs"]}
    assert status["family"]["state"] == "running" and status["family"]["pid"] == second
    assert status["family"]["restarts"] == 1 and status["talker"]["pid"] == again
    assert re.search(r"family +%d +running +\S+ +1" % second, one.command("status"))

    one.server.stop()
    log(r"program talker \(%d\) has ended: it was killed by SIGTERM" % again)
    assert not any(map(alive, [second, again, children[1]]))


def test_dies_with_a_master_that_is_killed(beside, tmp_path):
    """SIGKILL to the master: the programs go, and what they have started."""
    one = beside(FAMILY, check=False)
    parent, child = one.wait_pid("family"), one.wait_lines("children", 1)[0]
    one.wait_lines("ignored", 1)
    # Whoever kills the guard gets another one.
    guard = guard_of(one.server.pid)
    os.kill(guard, signal.SIGKILL)
    wait_until(lambda: guard_of(one.server.pid) not in (None, guard), "there is no guard")
    os.kill(one.server.pid, signal.SIGKILL)
    one.server.wait()
    wait_until(lambda: not alive(parent) and not alive(child), "they live")


def guard_of(master):
    """The process among a master's children that ends what it leaves; None: there is none."""
    with open("/proc/%d/task/%d/children" % (master, master)) as file:
        for pid in map(int, file.read().split()):
            try:
                with open("/proc/%d/comm" % pid) as comm:
                    if "guard" in comm.read():
                        return pid
            except OSError:
                pass
    return None


def test_upgrade_has_one_at_a_time(beside, tmp_path):
    """The new server starts its own when that of the old one is gone."""
    one = beside(
        """
        attach-daemon = "mkdir lock && echo $$ >> started; trap 'sleep 0.3; rmdir lock; exit' TERM; sleep 1000 & wait"
        cron = "* * * * * echo $$ >> minutes; sleep 0.5"
        """,
        check=False,
    )
    first = one.wait_lines("started", 1)[0]
    pidfile = tmp_path / "pid"
    old = int(pidfile.read_text())
    one.wait_lines("minutes", 1)
    os.kill(old, signal.SIGUSR2)
    wait_until(lambda: int(pidfile.read_text() or 0) not in (0, old), "no upgrade")
    new = int(pidfile.read_text())
    try:
        second = one.wait_lines("started", 2)[1]
        wait_until(lambda: not alive(old), "the old server lives")
        assert not alive(first) and alive(second)
        assert "File exists" not in one.server.log()
        # The minute in which a server takes over has been the other one's.
        log = one.server.log()
        assert len(numbers(tmp_path / "minutes")) <= 1 + (len(set(re.findall(r" (\d\d:\d\d):\d\d\.", log))) - 1)
    finally:
        os.kill(new, signal.SIGTERM)
        wait_until(lambda: not alive(new), "the new server lives")
    assert not alive(second) and not (tmp_path / "lock").exists()


def test_two_upgrades_have_one_at_a_time(beside, tmp_path):
    """The third server waits for what the first has still to end, though the second has nothing to do any more."""
    one = beside(
        """
        [[program]]
        command = "mkdir lock && echo $$ >> started; trap 'while [ ! -e go ]; do sleep 0.02; done; rmdir lock; exit' TERM; sleep 1000 & wait"
        grace = 1000
        """,
        check=False,
    )
    one.wait_lines("started", 1)
    pidfile = tmp_path / "pid"
    servers = [int(pidfile.read_text())]
    try:
        for _ in range(2):
            os.kill(servers[-1], signal.SIGUSR2)
            wait_until(lambda: int(pidfile.read_text() or 0) not in (0, *servers), "no upgrade")
            servers.append(int(pidfile.read_text()))
        for _ in range(3):
            assert [program["state"] for program in one.status()["programs"]] == ["stopped"]
        (tmp_path / "go").touch()
        one.wait_lines("started", 2)
        wait_until(lambda: not any(map(alive, servers[:-1])), "the old servers live")
        assert "File exists" not in one.server.log()
    finally:
        (tmp_path / "go").touch()
        os.kill(servers[-1], signal.SIGTERM)
        wait_until(lambda: not alive(servers[-1]), "the new server lives")


def test_adversity(beside, tmp_path):
    """One that cannot start, one that dies at once, one that floods, one that ignores SIGTERM."""
    (tmp_path / "here").write_text("")
    one = beside(
        """
        attach-daemon = ["exit 3", "yes flood flood flood flood flood flood flood | head -n 20000; exec sleep 1000"]
        [[program]]
        name = "lost"
        command = "true"
        directory = "nowhere"
        [[program]]
        name = "deaf"
        command = "trap '' TERM; echo ready; while :; do sleep 1; done"
        grace = 0.2
        touch = "here"
        """,
        "--error-log",
        "error.log",
    )
    path = tmp_path / "error.log"

    def wait_line(pattern):
        wait_until(lambda: re.search(pattern, path.read_text()), lambda: "no %s in the log" % pattern)

    wait_line(r"program exit \(\d+\) ended with exit code 3 after 0\.\d s: it is started again in 0\.1 s")
    wait_line(r"program exit \(\d+\) ended with exit code 3 after 0\.\d s: it is started again in 0\.4 s")
    wait_line(r"lost: nowhere: No such file or directory")
    wait_line(r"deaf: ready")
    assert one.server.get("/").status == 200  # while one of them floods
    (tmp_path / "here").write_text("touched")
    wait_line(r"program deaf \(\d+\) is started again: \S*here was touched")
    wait_line(r"deaf \(\d+\) does not end: it is killed")
    wait_line(r"program deaf \(\d+\) was killed by SIGKILL, as it was told to: it is started again")
    lines = path.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \S+ \[", line) for line in lines)
    flood = [line for line in lines if " yes: " in line]
    assert flood and all(line.endswith(": flood flood flood flood flood flood flood") for line in flood)
    one.server.stop()


def test_pidfile(beside, tmp_path):
    """Found by its pidfile it is not started, outlives the server, and is started when it is gone."""
    other = subprocess.Popen(["sleep", "1000"])
    (tmp_path / "other.pid").write_text("%d\n" % other.pid)
    one = beside(
        """
        [[program]]
        name = "other"
        command = "echo $$ > started; exec sleep 1000"
        pidfile = "other.pid"
        [[program]]
        name = "leaver"
        command = "sleep 1000 > /dev/null 2>&1 & echo $! > leaver.pid"
        pidfile = "leaver.pid"
        background = true
        notify = true
        """
    )
    try:
        one.server.wait_log(r"program other runs already: it is process %d of other.pid" % other.pid)
        one.server.wait_log(r"program leaver is process \d+, as leaver.pid says")
        leaver = int((tmp_path / "leaver.pid").read_text())
        other.kill()
        other.wait()
        one.server.wait_log(r"program other \(%d\) is gone after \d+\.\d s: it is started again" % other.pid)
        own = one.wait_lines("started", 1)[0]
        assert int((tmp_path / "other.pid").read_text()) == own
        one.server.stop()
        assert alive(own)
        wait_until(lambda: not alive(leaver), "it was not told")
    finally:
        other.kill()
        os.kill(own, signal.SIGKILL)


def test_upgrade_while_it_goes_into_the_background(beside, tmp_path):
    """The new server does not start a second one before the first has written its pidfile."""
    one = beside(
        """
        [[program]]
        name = "leaver"
        command = "while [ ! -e go ]; do sleep 0.02; done; (sleep 1000 > /dev/null 2>&1 & echo $! > leaver.pid; echo $! >> started)"
        pidfile = "leaver.pid"
        pidfile-wait = 60
        background = true
        notify = true
        """,
        check=False,
    )
    old = one.server.pid
    os.kill(old, signal.SIGUSR2)
    one.server.wait_log("this server has taken over from process %d" % old)
    new = int((tmp_path / "pid").read_text())
    try:
        assert one.status()["programs"][0]["state"] == "stopped"
        (tmp_path / "go").touch()
        one.server.wait_log(r"program leaver runs already: it is process \d+ of leaver.pid")
        wait_until(lambda: not alive(old), "the old server lives")
        leavers = numbers(tmp_path / "started")
        assert len(leavers) == 1 and alive(leavers[0])
    finally:
        (tmp_path / "go").touch()
        os.kill(new, signal.SIGTERM)
        wait_until(lambda: not alive(new), "the new server lives")
    wait_until(lambda: not alive(leavers[0]), "it was not told")


def test_server_stops_with_what_is_vital(beside):
    one = beside("""
        [[program]]
        name = "heart"
        command = "while [ ! -e stop ]; do sleep 0.02; done"
        vital = true
        """)
    (one.folder / "stop").write_text("")
    assert one.server.wait() == 0
    one.server.wait_log(r"program heart \(\d+\) ended with exit code 0 after .* s: the server stops with it")


def test_cron(beside, tmp_path):
    """What is due in the minute of the start runs, with its output, its end and its time."""
    one = beside(
        """
        unique-cron = ["*/1 0-23 1-31 1,2,3-12 0-7 date >> dates", "-1 -1 -1 -1 -1 sleep 1000"]
        graceful-timeout = 0.1
        touch-exec = "here echo touched"
        stats = "unix:stats"
        [[cron]]
        command = "echo cleaning; exit 4"
        [[cron]]
        minute = "*"
        command = "sleep 500 & wait"
        name = "late"
        timeout = 0.2
        """
    )
    log = one.server.wait_log
    log(r"cron echo is process \d+: echo cleaning")
    log(r"info: echo: cleaning")
    log(r"error: cron echo \(\d+\) ended with exit code 4 after")
    log(r"error: cron late \(\d+\) runs for more than 0\.2 s, its time: it is stopped")
    log(r"error: cron late \(\d+\) was killed by SIGTERM after")
    log(r"cron date \(\d+\) has ended after")
    assert (tmp_path / "dates").read_text()
    (tmp_path / "here").write_text("")
    log(r"touch-exec echo is process \d+: echo touched")
    log(r"info: echo: touched")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "stats"))
        stats = json.loads(b"".join(iter(lambda: client.recv(65536), b"")))["crons"]
    assert [(row["minute"], row["unique"], row["command"]) for row in stats][3] == (-1, 1, "sleep 1000")
    assert len(stats) == 4
    crons = {cron["name"]: cron for cron in one.status()["crons"]}
    assert crons["date"]["unique"] and crons["date"]["started"] == 1
    assert crons["sleep"]["time"] == ["-1"] * 5
    sleeper = crons["sleep"]["pids"][0]
    one.server.stop()
    assert not alive(sleeper)


def test_alarms(beside, tmp_path):
    """Lines of the log, and deaths, run commands that read of them; the same is not told twice."""
    one = beside(
        """
        workers = 1
        alarm = ["file cmd:cat >> told", "line log:attention", "dead cmd:cat > death"]
        alarm-log = "file,line the disk is-(full|gone)"
        not-alarm-log = "line gone$"
        alarm-segfault = "dead"
        alarm-freq = "1h"
        """,
        check=False,
    )
    log = one.server.wait_log

    def wait_file(name, pattern):
        path = tmp_path / name
        wait_until(
            lambda: path.exists() and re.fullmatch(pattern, path.read_text()),
            lambda: one.server.report("%s is not in %s" % (pattern, name)),
        )

    for what in ("is-empty", "is-full", "is-full"):
        assert one.server.get("/say?" + what).status == 200
    log(r"warning: alarm line: attention: the disk is-full\n")
    wait_file("told", "the disk is-full\n")
    one.server.get("/say?is-gone")
    wait_file("told", "the disk is-full\nthe disk is-gone\n")
    assert len(re.findall("alarm line", one.server.log())) == 1
    with one.server.connect() as conn:
        conn.send("GET /crash HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_file("death", r"worker 1 \(\d+\) was killed by SIGSEGV( \(core dumped\))? after \d+\.\d s.*\n")
    assert {alarm["name"]: alarm["raised"] for alarm in one.status()["alarms"]} == {"file": 2, "line": 1, "dead": 1}
    one.server.stop()


def test_each_file_that_is_touched_counts(beside, tmp_path):
    one = beside("""
        touch-exec = ["a echo one > told-a", "b echo two > told-b"]
        """)
    for name in ("a", "b"):
        (tmp_path / name).touch()
    for name in ("told-a", "told-b"):
        wait_until((tmp_path / name).exists, lambda: one.server.report("a file is forgotten"))


def test_alarms_do_not_hold_a_server_that_ends(beside):
    one = beside(
        """
        alarm = "end cmd:touch told; exec sleep 1000"
        alarm-log = "end program first .* has ended"
        [[program]]
        name = "first"
        command = "exec sleep 1000"
        [[program]]
        name = "last"
        command = "trap 'while [ ! -e told ]; do sleep 0.02; done; exit' TERM; while :; do sleep 0.02; done"
        """,
        check=False,
    )
    one.wait_pid("first")
    one.server.send_signal(signal.SIGTERM)
    one.server.wait()
    one.server.wait_log(r"alarm end: its command \(\d+\) runs for more than 1 s: it is stopped")


def test_what_outlives_the_server_does_not_write_to_it(beside, tmp_path):
    """With loggers the log is a pipe to the master."""
    one = beside("""
        logger = "file:lines"
        [[program]]
        name = "other"
        command = "trap 'echo on; echo on; echo > went-on; exit' USR1; while :; do sleep 0.02; done"
        pidfile = "other.pid"
        """)
    path = tmp_path / "other.pid"
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), lambda: one.server.report("it is not started"))
    pid = int(path.read_text())
    one.server.stop()
    os.kill(pid, signal.SIGUSR1)
    wait_until(lambda: not alive(pid), "it lives")
    assert (tmp_path / "went-on").exists()


def test_a_link_does_not_choose_who_is_signalled(beside, tmp_path):
    """Whoever can make a pidfile can make a link to that of another program."""
    other = subprocess.Popen(["sleep", "1000"])
    (tmp_path / "real.pid").write_text("%d\n" % other.pid)
    (tmp_path / "link.pid").symlink_to("real.pid")
    one = beside("""
        [[program]]
        name = "other"
        command = "exec sleep 1000"
        pidfile = "link.pid"
        notify = true
        """)
    try:
        one.server.wait_log("program other runs already")
        one.server.stop()
        one.server.wait_log(r"program other \(%d\) is not signalled" % other.pid)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_orphans_are_waited_for_behind_a_child_that_was_there_before(tmp_path):
    """As in a container whose first command was `helper & exec stoker`: the helper stays a zombie, and no other."""
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    (tmp_path / "stoker.toml").write_text("""
attach-daemon = "while [ ! -e go ]; do sleep 0.02; done; (setsid sh -c 'echo $$ > orphan' &); exec sleep 1000"
""")
    command = ["sh", "-c", 'sleep 0.1 & echo $! > helper; exec "$@"', "sh", *stoker_command()]
    server = Server("app:app", [], cwd=tmp_path, command=command)
    server.start("/")
    try:
        helper = numbers(tmp_path / "helper")[0]
        wait_until(lambda: not alive(helper), "the helper does not end")
        (tmp_path / "go").touch()
        wait_until(lambda: numbers(tmp_path / "orphan"), "there is no orphan")
        orphan = numbers(tmp_path / "orphan")[0]
        wait_until(lambda: not os.path.exists("/proc/%d" % orphan), "nobody waits for it")
        assert os.path.exists("/proc/%d" % helper)  # whoever has started it may want to
    finally:
        server.stop()


MISTAKES = """
app = "app:app"
cron = ["61 * * * * x", "0 3 * *"]
alarm = ["ops sentry:dsn", "a log:"]
alarm-log = ["oops x", "a ("]
[[program]]
stop-signal = "TERMM"
command = "x"
[[program]]
name = "x"
[[program]]
comand = "x"
command = "y"
"""


def test_mistakes(tmp_path):
    """Each is said with its line."""
    (tmp_path / "stoker.toml").write_text(MISTAKES)
    done = subprocess.run([*stoker_command(), "--check"], cwd=tmp_path, stderr=subprocess.PIPE, timeout=40, check=False)
    said = done.stderr.decode()
    assert done.returncode == 1
    for line, text in (
        (3, "minute = '61': expected a number from 0 to 59"),
        (3, "expected MINUTE HOUR DAY MONTH WEEKDAY COMMAND"),
        (4, "expected NAME cmd:COMMAND or NAME log:"),
        (5, "there is no alarm 'oops': `alarm` makes one"),
        (6, "there is no such signal"),
        (9, "a program has to have a command"),
        (11, "a program has no key 'comand'; did you mean 'command'?"),
    ):
        assert re.search(r"^stoker.toml:%d: .*%s" % (line, re.escape(text)), said, re.M), said
