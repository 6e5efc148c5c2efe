"""Finding and importing the application, and what is said when that fails."""
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke

HERE = Path(__file__).resolve().parent
APP = '''
def %s(environ, start_response):
    start_response("200 OK", [])
    return [__name__.encode()]
'''
OK, E_IMPORT, E_NOT_CALLABLE = 0, 1, 2


@pytest.fixture
def load(core, tmp_path):
    """load(target, {file: text}) -> (result, body, log, sources), in a process of its own."""

    def function(target, files, pythonpath=(), cwd=None):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        done = subprocess.run(
            [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", str(HERE / "loading.py"),
             core.__file__ or core.__spec__.origin, target, *pythonpath],
            cwd=cwd or tmp_path, capture_output=True, text=True, timeout=60,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        values = dict(line.partition(" ")[::2] for line in lines)
        sources = [line[7:] for line in lines if line.startswith("source ")]
        return int(values["result"]), values.get("body"), done.stderr, sources

    return function


@pytest.mark.parametrize(
    "target, files, body",
    [
        ("m", {"m.py": APP % "application"}, "m"),
        ("m", {"m.py": APP % "app"}, "m"),
        ("m", {"m.py": APP % "app" + APP.replace("__name__", "'right'") % "application"}, "right"),
        ("m", {"m.py": "app = 5" + APP % "application"}, "m"),
        ("m:app", {"m.py": APP % "app"}, "m"),
        ("m:", {"m.py": APP % "app"}, "m"),
        ("pkg.m:app", {"pkg/__init__.py": "", "pkg/m.py": APP % "app"}, "pkg.m"),
        ("name.space.m", {"name/space/m.py": APP % "app"}, "name.space.m"),
        ("m:holder.inner.app", {"m.py": APP % "f" + "class holder:\n class inner:\n  app = staticmethod(f)"}, "m"),
        ("m", {"m.py": "def create_app():\n f.ok = 1\n return f" + APP % "f"}, "m"),
        ("m", {"m.py": "def make_app():\n return f" + APP % "f"}, "m"),
        ("m:make()", {"m.py": "def make():\n return f" + APP % "f"}, "m"),
        ("m:make( )", {"m.py": "def make():\n return f" + APP % "f"}, "m"),
        (
            "m:make(1, 'a:b', [2.5, None], key={'x': (True,)})",
            {"m.py": "def make(*a, **k):\n assert (a, k) == ((1, 'a:b', [2.5, None]), {'key': {'x': (True,)}})\n return f" + APP % "f"},
            "m",
        ),
        ("m.py", {"m.py": APP % "app"}, "m"),
        ("./m.py:app", {"m.py": APP % "app"}, "m"),
        ("sub/m.py", {"sub/m.py": APP % "app"}, "m"),
        ("a/b/m.py:app", {"a/b/__init__.py": "", "a/b/m.py": "from . import other" + APP % "app", "a/b/other.py": ""}, "b.m"),
        ("a/pkg/__init__.py", {"a/pkg/__init__.py": APP % "app"}, "pkg"),
        ("my-app.py", {"my-app.py": APP % "app"}, "my-app"),
        ("my.app.py", {"my.app.py": APP % "app"}, "stoker_file_my.app"),
        ("time.py", {"time.py": APP % "app"}, "stoker_file_time"),
        ("sys.py", {"sys.py": APP % "app"}, "stoker_file_sys"),
        ("sub/m.py:make('x')", {"sub/m.py": "def make(a):\n return f" + APP % "f"}, "m"),
    ],
)
def test_targets(load, target, files, body):
    result, got, log, _ = load(target, files)
    assert (result, got) == (OK, body), log


def test_class_instances_and_methods(load):
    text = """
    class Application:
        def __call__(self, environ, start_response):
            start_response("200 OK", [])
            return [b"instance"]

        def method(self, environ, start_response):
            return self(environ, start_response)

    class Result:
        def __init__(self, environ, start_response):
            self.start = start_response

        def __iter__(self):
            self.start("200 OK", [])
            yield b"class"

    one = Application()
    """
    for target, body in (("m:one", "instance"), ("m:one.method", "instance"), ("m:Result", "class")):
        assert load(target, {"m.py": text})[:2] == (OK, body)


def test_order_of_sys_path(load, tmp_path):
    files = {"m.py": APP % "app", "p/m.py": APP.replace("__name__", "'p'") % "app", "q/m.py": APP.replace("__name__", "'q'") % "app"}
    assert load("m", files)[1] == "m"
    assert load("m", files, ["p", "q"])[1] == "p"
    assert load("m", files, [str(tmp_path / "q"), "p"])[1] == "q"


@pytest.mark.parametrize(
    "target, files, expected, words",
    [
        ("nothing", {}, E_IMPORT, ["there is no module 'nothing' in", "--chdir"]),
        ("guestbok", {"guestbook.py": ""}, E_IMPORT, ["there is no module 'guestbok'; did you mean 'guestbook'?"]),
        ("pkg.wsgy", {"pkg/__init__.py": ""}, E_IMPORT, ["there is no module 'pkg.wsgy'"]),
        ("m", {"m.py": "import surely_absent"}, E_IMPORT, ["No module named 'surely_absent': is it installed in this environment (", "pip install surely_absent"]),
        ("m", {"m.py": "import yaml_absent.sub"}, E_IMPORT, ["No module named 'yaml_absent'", "pip install yaml_absent"]),
        ("m", {"m.py": "import sys; sys.modules['yaml'] = None; import yaml"}, E_IMPORT, ["import of yaml halted"]),
        ("m", {"m.py": "import email.absent"}, E_IMPORT, ["'email.absent': the package 'email' is installed"]),
        ("m", {"m.py": "from os import surely_absent"}, E_IMPORT, ["cannot import name", "an import of the application failed"]),
        ("m", {"m.py": "def f(:\n"}, E_IMPORT, ["SyntaxError", "correct the syntax at", "m.py:1"]),
        ("m", {"m.py": "1/0"}, E_IMPORT, ["ZeroDivisionError", "the application raised ZeroDivisionError while it was loaded"]),
        ("m", {"m.py": "import sys; sys.exit(4)"}, E_IMPORT, ["SystemExit: 4", "if __name__ == '__main__'"]),
        ("m", {"m.py": "raise KeyboardInterrupt"}, E_IMPORT, ["KeyboardInterrupt"]),
        ("m", {"m.py": ""}, E_NOT_CALLABLE, ["has no application: tried the callables application and app, and the factories create_app() and make_app()"]),
        ("site", {"site.py": "", "m.py": ""}, E_NOT_CALLABLE, ["has no application"]),
        ("mysite", {"mysite/__init__.py": "", "mysite/wsgi.py": APP % "application"}, E_NOT_CALLABLE, ["did you mean 'mysite.wsgi'?"]),
        ("m:aplication", {"m.py": APP % "application"}, E_NOT_CALLABLE, ["has no attribute 'aplication'; did you mean 'm:application'?"]),
        ("m:zzz", {"m.py": ""}, E_NOT_CALLABLE, ["has no attribute 'zzz'"]),
        ("m:app", {"m.py": "app = 'text'"}, E_NOT_CALLABLE, ["'m:app' is of type str, which cannot be called"]),
        ("m:make()", {"m.py": "def make(): pass"}, E_NOT_CALLABLE, ["is of type NoneType"]),
        ("m:make", {"m.py": "def make(): pass"}, E_NOT_CALLABLE, ["seems to be a factory: write 'm:make()'"]),
        ("m:make()", {"m.py": "def make(x): pass"}, E_IMPORT, ["missing 1 required positional argument", "'m:make' was called and failed"]),
        ("m:make(", {"m.py": "def make(): pass"}, E_IMPORT, ["SyntaxError"]),
        ("m:make() + 1", {"m.py": "def make(): pass"}, E_IMPORT, ["is not a list of arguments"]),
        ("m:make(open('x'))", {"m.py": "def make(x): pass"}, E_IMPORT, ["malformed node"]),
        (":app", {}, E_IMPORT, ["no module is named before the ':'"]),
        ("", {}, E_IMPORT, ["no module is named"]),
        ("no/such/file.py", {}, E_IMPORT, ["there is no file 'no/such/file.py'"]),
        ("./file.txt", {"file.txt": ""}, E_IMPORT, ["is not a Python file"]),
    ],
)
def test_mistakes(load, target, files, expected, words):
    result, _, log, _ = load(target, files)
    assert result == expected
    for word in words:
        assert word in log, log


def test_traceback_has_no_frames_of_the_server(load):
    log = load("m", {"m.py": "import other", "other.py": "boom()"})[2]
    assert log.count("File ") == 3 or "loading.py" not in log
    assert "importlib" not in log
    assert "other.py" in log and "NameError" in log


def test_source_files(load, tmp_path):
    files = {"m.py": "import json, other, pkg.sub" + APP % "app", "other.py": "", "pkg/__init__.py": "", "pkg/sub.py": ""}
    sources = load("m", files)[3]
    mine = sorted(os.path.relpath(path, tmp_path) for path in sources if path.startswith(str(tmp_path)))
    assert mine == ["m.py", "other.py", "pkg/__init__.py", "pkg/sub.py"]
    assert not any("json" in path or "site-packages" in path for path in sources)


@pytest.mark.parametrize(
    "text, watched",
    [("def f(:", ["m.py"]), ("import broken", ["broken.py", "m.py"]), ("1/0", ["m.py"])],
)
def test_source_files_of_a_failed_import(load, tmp_path, text, watched):
    for target in ("m", "m.py"):
        sources = load(target, {"m.py": text, "broken.py": "raise ValueError"})[3]
        mine = sorted(os.path.relpath(path, tmp_path) for path in sources if path.startswith(str(tmp_path)))
        assert mine == watched


def test_unload_runs_atexit_and_joins_threads(load):
    text = """
    import atexit, sys, threading, time
    atexit.register(lambda: print("atexit ran"))
    atexit.register(lambda: 1 / 0)
    threading.Thread(target=lambda: (time.sleep(0.1), print("thread ended"))).start()
    """ + textwrap.indent(APP % "app", "    ")
    result, body, log, _ = load("m", {"m.py": text})
    assert result == OK
    assert "ZeroDivisionError" in log
