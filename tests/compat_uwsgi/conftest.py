"""Reading uWSGI's configuration, from the sources: nothing of this needs the engine."""

import importlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib.server import Server
from tests.lib.server import test_command as command_of_tests

ROOT = Path(__file__).resolve().parent.parent.parent


def load_package():
    """stoker.compat by itself, under a name of its own: these tests do not need an installed stoker."""
    if "compat_sources" not in sys.modules:
        folder = ROOT / "python" / "stoker" / "compat"
        spec = importlib.util.spec_from_file_location(
            "compat_sources", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        sys.modules["compat_sources"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


load_package()
language = importlib.import_module("compat_sources.language")
result = importlib.import_module("compat_sources.result")


class Configuration:
    """Files in a folder, and what is read from them there."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.environ = {"HOME": "/somewhere", "PATH": "/usr/bin:/bin", "LANG": "C"}
        monkeypatch.chdir(folder)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def read(self, *argv, **options):
        """The result of a command line; the text of app.ini instead of one that has a newline."""
        if len(argv) == 1 and "\n" in argv[0]:
            self.write("app.ini", "[uwsgi]\n" + argv[0])
            argv = ("--ini", "app.ini")
        return language.read(list(argv), self.environ, **options)

    def fails(self, *argv, **options):
        """The message of a configuration that is refused."""
        with pytest.raises(result.ConfigError) as caught:
            self.read(*argv, **options)
        return str(caught.value)


def pairs(read):
    """What was exported, without the names of files that were loaded."""
    return [
        (setting.name, setting.value)
        for setting in read.exported
        if setting.name not in ("ini", "yaml", "json", "xml")
    ]


@pytest.fixture
def conf(tmp_path, monkeypatch):
    return Configuration(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def uwsgi():
    """uWSGI itself, whose answers are the right ones."""
    program = shutil.which("uwsgi") or shutil.which("uwsgi-core")
    if not program:
        pytest.skip("uwsgi is not installed")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60)
    if not done.stdout.startswith("2.0."):
        pytest.skip("uwsgi is not one of the line 2.0: %r" % done.stdout)
    return program


APP = """
import os


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [os.environ.get("GREETING", "hello").encode()]
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def run(place):
    """Runs the command to its end."""

    def start(*args, stdin=None, env=None):
        return subprocess.run(
            command_of_tests() + list(args),
            cwd=str(place),
            env=Server._environment(env or {}),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=120,
            text=True,
        )

    return start


# What builds of uWSGI differ in: a file, and what --show-config says where the library is there.
PROBES = {
    "yaml": ("uwsgi:\n  a: [x, y]\n", ["a = x", "a = y"], "libyaml"),
    "yml": ("uwsgi:\n  a: [x, y]\n", ["a = x", "a = y"], "libyaml"),
    "xml": ("<uwsgi><a>x &amp; y</a></uwsgi>", ["a = x & y"], "libxml2"),
    "json": ('{"uwsgi": {"a": 1.5}}', ["a = 1.5"], "yajl"),
    "ini": ("[uwsgi]\nif-hostname-match = .\na = 1\nendif =\nif-hostname-match = ^$\na = 2\nendif =\n", ["a = 1"], "PCRE"),
}
probed = {}


@pytest.fixture(scope="session")
def needs(uwsgi, tmp_path_factory):
    """needs("yaml") skips the test if this uWSGI reads that with less than what Debian's has."""

    def check(kind):
        if kind not in probed:
            text, expected, _ = PROBES[kind]
            path = tmp_path_factory.mktemp("probe") / ("probe." + kind)
            path.write_text(text)
            done = subprocess.run(
                [uwsgi, "--show-config", "--hook-pre-jail", "exit:0", "--" + kind, str(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=60,
            )
            lines = done.stdout.decode().splitlines()
            probed[kind] = [line for line in lines if line.startswith("a = ")] == expected
        if not probed[kind]:
            pytest.skip("uwsgi is not installed with " + PROBES[kind][2])

    return check
