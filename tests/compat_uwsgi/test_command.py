"""stoker itself, given what uWSGI would be given."""

import signal
import subprocess
import sys
import time

import pytest

from tests.lib.server import Server, free_port
from tests.lib.server import test_command as command_of_tests

def test_an_ini_is_served(place, serve):
    port = free_port()
    (place / "app.ini").write_text(
        "[uwsgi]\nport = %d\nhttp-socket = 127.0.0.1:%%(port)\nmodule = app\nmaster = true\nprocesses = 1\n"
        "threads = 2\nenv = GREETING=%%n\nvacuum = true\n" % port
    )
    server = serve(None, "--ini", "app.ini", bind=None, start=False)
    server.address, server.port = ("127.0.0.1", port), port
    server.start()
    assert server.get("/").body == b"app"


def test_a_command_line_of_uwsgis_is_served(place, serve):
    port = free_port()
    server = serve(
        None, "--http-socket", "127.0.0.1:%d" % port, "-w", "app", "-M", "-p", "1", bind=None, start=False
    )
    server.address, server.port = ("127.0.0.1", port), port
    server.start()
    assert server.get("/").body == b"hello"


@pytest.mark.parametrize("preload", ["", "processes = 2\n"], ids=["each", "preload"])
def test_what_is_printed_goes_to_the_log(place, serve, preload):
    """As in uWSGI, also behind a rotation."""
    (place / "talk.py").write_text(
        "import sys\ndef application(environ, start_response):\n    print('printed', flush=True)\n"
        "    print('complained', file=sys.stderr)\n    start_response('200 OK', [])\n    return [b'ok']\n"
    )
    (place / "app.ini").write_text("[uwsgi]\nmodule = talk\nlogto = u.log\n" + preload)
    server = serve(None, "app.ini")
    server.get("/")
    text = (place / "u.log").read_text()
    assert "printed\n" in text and "complained\n" in text and "printed" not in server.stdout()
    (place / "u.log").rename(place / "old.log")
    server.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + 20
    while not (place / "u.log").exists() or "printed\n" not in (place / "u.log").read_text():
        assert time.monotonic() < deadline
        server.get("/")


def test_options_of_stokers_stand_beside_a_file_and_win(place, serve):
    (place / "app.ini").write_text("[uwsgi]\nhttp-socket = 127.0.0.1:1\nwsgi-file = app.py\n")
    assert serve(None, "app.ini").get("/").body == b"hello"


def test_check_names_the_places(place, run):
    (place / "app.ini").write_text("[uwsgi]\nini = :more\nmodule = app\n[more]\nthreads = %(n)\nn = 3 ; three\n")
    done = run("--check", "--ini", "app.ini")
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    assert ["threads", "=", "3", "#", "app.ini:5"] in found
    assert ["app", "=", '"app"', "#", "app.ini:3"] in found
    assert "warning: app.ini:5: there are no comments behind values" in done.stderr
    assert run("--check", "-c", "app.ini").stdout == done.stdout


def test_standard_input_and_variables(place, run):
    done = run("--check", "--ini", "-", stdin="[uwsgi]\nmodule = app\nthreads = 5\n")
    assert "threads = 5" in done.stdout, done.stderr
    (place / "app.ini").write_text("[uwsgi]\nmodule = app\nthreads = 6\n")
    done = run("--check", env={"UWSGI_INI": "app.ini", "UWSGI_PROCESSES": "1"})
    assert "threads = 6" in done.stdout and "environment UWSGI_PROCESSES" in done.stdout, done.stderr
    done = run("--check", "app", env={"UWSGI_INI": "app.ini"})
    assert done.returncode == 0 and "threads = 1 " in done.stdout


def test_commands_where_they_are_allowed(place, run):
    (place / "app.ini").write_text("[uwsgi]\nmodule = app\nthreads = @(exec://echo 3)\n")
    done = run("--check", "--ini", "app.ini", env={"STOKER_UWSGI_EXEC": "1"})
    assert done.returncode == 0 and "threads = 3" in done.stdout, done.stderr
    (place / "app.ini").write_text("[uwsgi]\nmodule = app\nthreads = @(exec://exit 3)\n")
    done = run("--check", "--ini", "app.ini", env={"STOKER_UWSGI_EXEC": "1"})
    assert done.stderr == "app.ini:3: 'exec://exit 3': exit code 3\n" and done.returncode == 1


def test_standard_input_can_be_read_again(run):
    done = run("--check", "--ini", "-", "--ini", "-", stdin="[uwsgi]\nmodule = app\nlisten = 7\n")
    assert done.returncode == 0 and "backlog = 7" in done.stdout, done.stderr


def test_show_config(place, run):
    (place / "app.ini").write_text("[uwsgi]\nmodule = app\nif-env = NOPE\nthreads = 3\nendif =\nx = %n\n")
    done = run("--ini", "app.ini", "--show-config", "--check")
    assert done.stdout.startswith(
        "\n;uWSGI instance configuration\n[uwsgi]\nini = app.ini\nmodule = app\nif-env = NOPE\nendif = \nx = app\n"
        "show-config = true\n;end of configuration\n\n"
    )


BROKEN = [
    ("strict = true\nvaccum = true\n", "app.ini:3: ", "did you mean vacuum?"),
    ("ini = nope.ini\n", "app.ini:2: ", "cannot read 'nope.ini'"),
    ("include = apq.ini\n", "app.ini:2: ", "did you mean app.ini?"),
    ("ini = app.ini\n", "app.ini:2: ", "includes itself"),
    ("x = a%(x)\n", "app.ini:2: ", "contains itself"),
    ("if-env = PATH\nif-env = B\n", "app.ini:3: ", "cannot be nested"),
    ("set-ph = threads=2\n", "app.ini:2: ", "cannot be a placeholder"),
    ("processes = -1\n", "app.ini:2: ", "no negative number"),
    ("logto = \xe4\n".encode("latin-1"), "app.ini:2: ", "not UTF-8"),
    ("ini = http://127.0.0.1/x.ini\n", "app.ini:2: ", "standard input"),
    ("a = @(exec://touch made)\n", "app.ini:2: ", "STOKER_UWSGI_EXEC=1"),
]


@pytest.mark.parametrize("text,where,what", BROKEN, ids=[case[2] for case in BROKEN])
def test_a_broken_ini_starts_nothing(place, run, text, where, what):
    data = text if isinstance(text, bytes) else text.encode()
    (place / "app.ini").write_bytes(b"[uwsgi]\n" + data)
    done = run("--ini", "app.ini", "--http-socket", "127.0.0.1:0", "--pidfile", "made")
    assert done.returncode == 1
    assert done.stderr.startswith(where) and what in done.stderr, done.stderr
    assert done.stdout == "" and not (place / "made").exists()


def test_unknown_options_of_a_command_line(run):
    done = run("--ini", "-", "--proceses", "3", stdin="[uwsgi]\n")
    assert done.returncode == 1
    assert done.stderr == "command line: uWSGI has no option '--proceses'; did you mean --processes?\n"


CALLED = """
import sys
from stoker.__main__ import main
sys.argv[0] = %r
code = main(%r)
print(sorted(name for name in sys.modules if name.startswith("stoker.compat")))
sys.exit(code)
"""


def called(place, name, argv):
    command = command_of_tests()
    if command[-2:] != ["-m", "stoker"]:
        command = [sys.executable]
    else:
        command = command[:-2]
    return subprocess.run(
        command + ["-c", CALLED % (name, argv)],
        cwd=str(place),
        env=Server._environment({}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=120,
        text=True,
    )


def test_called_as_uwsgi(place):
    done = called(place, "/usr/bin/uwsgi", ["--check", "--module", "app", "-t", "30"])
    assert done.returncode == 0, done.stderr
    assert "request-timeout" in done.stdout and "stoker.compat.language" in done.stdout


def test_stokers_own_command_line_imports_nothing_of_it(place, monkeypatch):
    monkeypatch.setenv("UWSGI_INI", "nope.ini")
    done = called(place, "stoker", ["--check", "app:application", "--threads", "2", "-w", "1"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("[]")
