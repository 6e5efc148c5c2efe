"""Hooks: what is done at the points of the server's life, in which process, and what a failure ends."""

import os
import signal
import stat
import time

import pytest

PHASES = (
    "asap pre-jail in-jail as-root as-user master-start pre-app post-app post-fork accepting-once accepting1-once accepting accepting1 as-user-atexit"
).split()


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lines(place):
    path = place / "seen"
    return path.read_text().split("\n")[:-1] if path.exists() else []


@pytest.mark.parametrize("lazy", [False, True], ids=["before the fork", "lazy-apps"])
def test_each_phase(place, serve, lazy):
    """Each at its time and in its process: a process id is told by the shell's parent."""
    ini = "[uwsgi]\nmodule = app\nmaster = true\nprocesses = 2\n" + ("lazy-apps = true\n" if lazy else "")
    for phase in PHASES:
        ini += "exec-asap = echo exec asap $PPID >> seen\n" if phase == "asap" else ""
        ini += "hook-%s = exec:echo %s $PPID >> seen\n" % (phase, phase)
    (place / "u.ini").write_text(ini)
    server = serve(None, "--ini", "u.ini", cwd=place)
    server.wait_log("ready after")
    master = str(server.pid)
    until(lambda: len([line for line in lines(place) if line.startswith("accepting")]) == 6)
    seen = [line.rsplit(" ", 1) for line in lines(place)]
    root = ["as-root"] if os.geteuid() == 0 else []
    early = ["asap", "exec asap", "pre-jail", "in-jail", *root, "as-user", "master-start"]
    assert seen[: len(early)] == [[phase, master] for phase in early]
    pids = {phase: [pid for one, pid in seen if one == phase] for phase in PHASES}
    workers = set(pids["post-fork"])
    assert len(workers) == 2 and master not in workers
    assert set(pids["accepting"]) == set(pids["accepting-once"]) == workers
    assert len(pids["accepting1"]) == 1 and pids["accepting1"] == pids["accepting1-once"]
    assert pids["pre-app"] == pids["post-app"] and len(pids["pre-app"]) == (2 if lazy else 1)
    assert (set(pids["pre-app"]) == workers) == lazy
    os.kill(int(pids["accepting1"][0]), signal.SIGKILL)  # the next one is not the first
    until(lambda: [line.split()[0] for line in lines(place)].count("accepting1") == 2)
    assert [line.split()[0] for line in lines(place)].count("accepting1-once") == 1
    server.send_signal(signal.SIGHUP)
    server.wait_log("the reload is complete")
    until(lambda: [line.split()[0] for line in lines(place)].count("accepting1-once") == 2)
    server.stop()
    assert lines(place)[-1] == "as-user-atexit " + master


def test_actions(place, serve):
    (place / "old").write_text("")
    (place / "dir").mkdir()
    (place / "app.py").write_text(
        "import os\ndef application(environ, start_response):\n    start_response('200 OK', [])\n"
        "    return [os.environ['FROM_HOOK'].encode()]\n"
    )
    (place / "u.ini").write_text(
        "[uwsgi]\nmodule = app\nprocesses = 1\nmaster = true\nhook-asap = print:as soon as\nhook-asap = putenv:FROM_HOOK=a b\n"
        "hook-asap = write:one text of it\nhook-asap = writen:two line\nhook-asap = append:two more\nhook-asap = appendn:two !\n"
        "hook-asap = create:three\nhook-asap = chmod:three 640\nhook-asap = unlink:old\nhook-asap = mkdir:made\n"
        "hook-asap = sticky:made\nhook-asap = safeexec:exit 3\nhook-as-user = log:as the user\n"
        "hook-master-start = unix_signal:15 gracefully_kill_them_all\nhook-accepting = print:accepts\n"
    )
    server = serve(None, "--ini", "u.ini", cwd=place)
    server.wait_log("accepts")
    assert server.get("/").body == b"a b"
    assert (place / "one").read_text() == "text of it" and (place / "two").read_text() == "line\nmore!\n"
    assert (place / "three").stat().st_mode & 0o777 == 0o640 and not (place / "old").exists()
    assert (place / "made").stat().st_mode & stat.S_ISVTX
    assert "as soon as" in server.log() and "as the user" in server.log()
    assert "'exit 3': the command ended with exit code 3" in server.log()


@pytest.mark.parametrize(
    "line, code, words",
    [
        ("exec-asap = exit 7", 1, "u.ini:3: exec-asap: 'exit 7': the command ended with exit code 7"),
        ("hook-as-user = exec:kill -9 $$", 1, "hook-as-user: 'kill -9 $$': signal 9 ended it"),
        ("hook-pre-app = unlink:nothing", 3, "hook-pre-app: 'nothing': No such file or directory"),
        ("exec-post-app = false", 3, "exec-post-app: 'false': the command ended with exit code 1"),
        ("hook-asap = mount:proc none /proc", 1, "u.ini:3: hook-asap: the action 'mount' is not there: append, "),
        ("hook-asap = whatever", 1, "u.ini:3: hook-asap: the action 'whatever' is not there"),
        ("hook-master-start = unix_signal:3 abort", 1, "u.ini:3: hook-master-start: unix_signal: only 15 gracefully"),
    ],
)
def test_what_fails_ends_the_start(place, run, line, code, words):
    (place / "u.ini").write_text("[uwsgi]\nmodule = app\n%s\nhttp-socket = 127.0.0.1:0\nprocesses = 1\nvacuum = true\n" % line)
    done = run("--ini", "u.ini")
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_a_check_does_nothing(place, run):
    (place / "u.ini").write_text("[uwsgi]\nmodule = app\nhook-asap = create:made\nhook-as-user = create:made\n")
    assert run("--check", "--ini", "u.ini").returncode == 0 and not (place / "made").exists()
    assert "# hook-asap = create:made: do that" in run("convert", "u.ini").stdout
