"""How applications, files and modules are loaded and found: as uWSGI does it with the same file."""

import os
import signal
import stat
import textwrap

import pytest

from tests.compat_uwsgi.test_as_uwsgi import Theirs
from tests.lib.server import free_port

APP = """
    import json, os, sys
    NAME, FILE = __name__, __file__
    ORDER = getattr(sys, "order", None)

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        umask = os.umask(0)
        os.umask(umask)
        return [json.dumps({
            "name": NAME, "file": os.path.basename(FILE), "known": NAME in sys.modules, "argv": sys.argv, "cwd": os.path.basename(os.getcwd()),
            "umask": umask, "env": {key: value for key, value in os.environ.items() if key.startswith("T_")}, "order": ORDER,
            "script": environ.get("SCRIPT_NAME", ""), "path": environ["PATH_INFO"], "which": %r,
        }).encode()]

    other = application
"""

FILES = {
    "app.py": APP % "app",
    "second.py": APP % "second",
    "third.wsgi": APP % "third",
    "sub/fourth.py": APP % "fourth",
    "one.py": "import sys\nsys.order = getattr(sys, 'order', []) + [__name__]\n",
    "sub/two.py": "import sys\nsys.order = getattr(sys, 'order', []) + [__name__]\n",
    "shared.py": "import sys\nsys.order = getattr(sys, 'order', []) + [__name__]\n",
    "broken.py": "1 / 0\n",
    "answers.py": """
        def application(environ, start_response):
            start_response("200 OK", [("X-A", "mine"), ("Connection", "close"), ("Keep-Alive", "timeout=5")])
            return [b"ok"]
    """,
}


@pytest.fixture
def pair(tmp_path, uwsgi, serve):
    """pair(ini) -> uWSGI and this server, each in a folder of its own with FILES."""
    running = []

    def start(ini, ready="/", env=None, more=()):
        servers = []
        for name in ("theirs", "ours"):
            place = tmp_path / name / "place"
            for file, text in FILES.items():
                (place / file).parent.mkdir(parents=True, exist_ok=True)
                (place / file).write_text(textwrap.dedent(text))
            (place / "u.ini").write_text("[uwsgi]\nmaster = true\nprocesses = 1\n" + ini)
            if name == "theirs":
                server = Theirs(uwsgi, place, list(more))
                server._env = server._environment(env or {})
                running.append(server)
            else:
                port = free_port()
                server = serve(None, "--http-socket", "127.0.0.1:%d" % port, "--ini", "u.ini", *more, cwd=place, bind=None,
                               start=False, env=env)  # fmt: skip
                server.address, server.port = ("127.0.0.1", port), port
            server.start(ready)
            servers.append(server)
        return servers

    yield start
    for server in running:
        server.kill()


MOUNTS = "mount = /a=app:other\nmount = /b=third.wsgi\nmount = /c=sub/fourth.py\nmanage-script-name = true\n"

LOADED = [
    ("module = app\n", ["/"]),
    ("module = app:other\n", ["/"]),
    ("wsgi-file = app.py\ncallable = other\n", ["/"]),
    ("wsgi-file = third.wsgi\n", ["/"]),
    ("wsgi-file = %d/sub/fourth.py\n", ["/"]),
    ("file = sub/fourth.py\nmodule = app\n", ["/"]),
    ("module = second\nchdir = %d\nchdir2 = sub\n", ["/"]),
    ("module = fourth\npythonpath = sub\npythonpath = missing\n", ["/"]),
    ("module = app\numask = 027\npyargv = a b  c\nenv = T_A=1\nenv = T_B=x=y\nenv = T_C\nenv = T_E=1\nunenv = T_D\nunenv = T_E\n", ["/"]),
    ("module = app\nimport = one\nimport = sub/two.py\nshared-import = shared\nimport = missing\nimport = broken\n", ["/"]),
    (MOUNTS + "module = second\n", ["/a", "/a/", "/a/x", "/ax", "/b/x", "/c/y?z", "/d"]),
    (MOUNTS, ["/a/x", "/d"]),
]


@pytest.mark.parametrize("ini, paths", LOADED, ids=[ini for ini, _ in LOADED])
def test_what_is_loaded(pair, ini, paths):
    theirs, ours = pair(ini, paths[-1], env={"T_C": "c", "T_D": "d"})
    for path in paths:
        expected, found = (server.get(path).json() for server in (theirs, ours))
        if "%d" in ini and "file" in ini:  # the name of the folder is a part of it
            found["name"] = found["name"].replace("_ours_", "_theirs_")
        assert found == expected, path


def modes(place):
    return {name: oct(stat.S_IMODE(os.stat(place / name).st_mode)) for name in ("u.sock", "u.pid", "v.pid") if (place / name).exists()}


@pytest.mark.parametrize("mode", ["", "chmod-socket = 620\n", "chmod-socket = 1\n", "umask = 027\n"], ids=repr)
def test_files_of_the_server(pair, mode):
    found = []
    for server in pair("module = app\nsocket = u.sock\npidfile = u.pid\npidfile2 = v.pid\nvacuum = true\ndie-on-term = true\n" + mode):
        server.get("/")
        seen = modes(server.cwd)
        assert (server.cwd / "u.pid").read_text() == (server.cwd / "v.pid").read_text() == "%d\n" % server.pid
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        found.append((seen["u.sock"], seen["u.pid"] if "umask" not in mode else "", modes(server.cwd)))
    assert found[1] == found[0] and found[0][2] == {}


def test_fields_of_responses(pair):
    """Those that are added stand beside the application's; hop-by-hop ones are no error."""
    theirs, ours = pair('module = answers\nadd-header = X-A: one\nadd-header = X-A: "two" \\ three\nadd-header = Server: me\n')
    expected, found = ([pair for pair in server.get("/").headers if pair[0].lower() in ("x-a", "server")] for server in (theirs, ours))
    assert sorted(found) == sorted(expected)
    ours.get("/")
    ours.wait_log("header 'Connection' is left out")
    assert ours.log().count("header 'Connection' is left out") == 1
