"""Whose command line is it?"""

import importlib

import pytest

from tests.compat_uwsgi import conftest  # noqa: F401  (makes the package importable)

detect = importlib.import_module("compat_sources.detect")

# A part of stoker's own options: does it need a value?
OWN = dict(
    app=True, module=True, wsgi=True, chdir=True, bind=True, b=True, workers=True, processes=True, w=True, threads=True,
    t=True, preload=False, env=True, e=True, config=True, c=True, check=False, help=False, h=False, version=False,
    V=False, listen=True, harakiri=True, pidfile=True, uid=True,
)

OURS = [
    "app:app",
    "app:app --bind :8000 --workers 2",
    "app:app -w 2 -t 4 -b :80",
    "--config stoker.toml",
    "app:app --harakiri 10 --processes 2",
    "app.py",
    "--check app:app",
    "app:app --no-preload",
    "app:app --bind :8000 --lazy-apps",
    "app:app --preload --http-socket :80",
    "app:app --env A=x.ini",
    "-c stoker.toml",
    "--config=pyproject.toml --workers 2",
    "--nonsense",
    "",
]

THEIRS = [
    "--ini app.ini",
    "--ini app.ini --check",
    "app.ini",
    "app.ini:prod",
    "--ini=app.ini:prod",
    "-x app.xml",
    "-y app.yaml --bind :80",
    "--yaml -",
    "--http-socket :8000 --module app --processes 4",
    "-s :3031 -w app",
    "-M -p 4 --http :80 --wsgi-file app.py",
    "--master --module app:app",
    "app.json --threads 2",
    "--config app.ini",
    "--config=app.yaml",
    "-c app.ini",
]


@pytest.mark.parametrize("line", OURS)
def test_stokers(line):
    assert detect.command_line(line.split(), "stoker", {}, OWN) is None


@pytest.mark.parametrize("line", THEIRS)
def test_uwsgis(line):
    assert detect.command_line(line.split(), "stoker", {}, OWN) is not None


def test_the_programs_name():
    assert detect.command_line(["--module", "app"], "/usr/bin/uwsgi", {}, OWN) is not None


def test_variables(tmp_path):
    variable = {"UWSGI_INI": "x.ini"}
    assert detect.command_line([], "stoker", variable, OWN, str(tmp_path)) is not None
    assert detect.command_line(["--check"], "stoker", variable, OWN, str(tmp_path)) is not None
    assert detect.command_line(["app:app"], "stoker", variable, OWN, str(tmp_path)) is None
    assert detect.command_line(["--bind", ":1"], "stoker", variable, OWN, str(tmp_path)) is None
    assert detect.command_line([], "stoker", {"UWSGI_PORT": "1"}, OWN, str(tmp_path)) is None
    (tmp_path / "stoker.toml").write_text("")
    assert detect.command_line([], "stoker", variable, OWN, str(tmp_path)) is None


def test_what_only_stoker_has_goes_its_own_way():
    split = detect.command_line(
        "--ini a.ini --bind :80 --check --processes 3 --no-preload -e A=1".split(), "stoker", {}, OWN
    )
    assert split.uwsgi == "--ini a.ini --processes 3".split()
    assert split.own == "--bind :80 --check --no-preload -e A=1".split()


@pytest.mark.parametrize("line", ["-c a.ini --check", "--config a.ini --check", "--check --config=a.ini", "-ca.ini --check"])
def test_config_with_a_file_of_uwsgis(line):
    split = detect.command_line(line.split(), "stoker", {}, OWN)
    assert split.uwsgi == ["--config", "a.ini"] and split.own == ["--check"]
