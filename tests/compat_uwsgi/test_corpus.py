"""Configurations as people write them, each read as uWSGI reads it.

uWSGI stops behind --show-config, before it binds, changes its user or loads anything; log files and pid files are
relative and land in the test's directory.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.compat_uwsgi.conftest import language
from tests.compat_uwsgi.test_oracle import STOP, configuration

CORPUS = Path(__file__).resolve().parent / "corpus"
NAMES = sorted(path.name for path in CORPUS.iterdir() if path.is_file())
ENVIRONMENT = {
    "HOME": "/app",
    "PORT": "5000",
    "APP_MODULE": "wsgi:app",
    "STAGE": "staging",
    "LANG": "C",
    "PATH": "/usr/bin:/bin",
}
# uWSGI's own build has these built in, Debian's loads them.
PLUGINS = {
    "logging-json.ini": "logfile",
    "metrics.ini": "stats_pusher_socket,carbon",
    "routing.ini": "router_redirect,router_basicauth",
    "static-types.ini": "router_redirect",
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    shutil.copytree(CORPUS, tmp_path / "corpus")
    monkeypatch.chdir(tmp_path / "corpus")
    return tmp_path / "corpus"


def test_there_are_enough():
    assert len(NAMES) >= 60


def sections(path):
    """The sections that may be asked for by name, besides the first."""
    return [name for name in ("dev", "prod", "two") if "\n[%s]" % name in path.read_text()]


@pytest.mark.parametrize("name", NAMES)
def test_read_as_uwsgi_reads_it(name, place, uwsgi, needs):
    kind = name.rpartition(".")[2]
    if kind != "ini" or name == "hostname.ini":
        needs(kind)
    for asked in [name] + ["%s:%s" % (name, section) for section in sections(place / name)]:
        plugins = ",".join(filter(None, ["python3", PLUGINS.get(name)]))
        arguments = STOP + ["--plugin", plugins, "--" + kind, asked]
        theirs = ask(uwsgi, arguments)
        ours = configuration(language.show_config(language.read(arguments, ENVIRONMENT)))
        assert without(ours) == without(theirs)


def without(lines):
    """uWSGI cuts the value of cron2 to pieces where it stands, before it shows it."""
    return [line for line in lines if not line.startswith("cron2 = ")]


def undated(output):
    """Without the date that log-date puts before each line."""
    match = re.search(r"^(.+ - );end of configuration$", output, re.MULTILINE)
    if not match:
        return output
    date = re.sub(r"\d+", r"\\d+", re.escape(match.group(1)))
    return re.sub("(?m)^" + date, "", output)


def ask(uwsgi, arguments):
    done = subprocess.run(
        [uwsgi] + arguments,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    output = done.stdout.decode()
    for log in Path(".").glob("*.log"):
        output += log.read_text()
        log.unlink()
    missing = re.search(r"UNABLE to load uWSGI plugin", output)
    theirs = configuration(undated(output))
    if theirs is None and missing:
        pytest.skip("uwsgi is not installed with what this needs: " + missing.group(0))
    assert theirs is not None, output
    return theirs


# What is warned of, file by file: part of each line of warning.
WARNED = {
    "production-block.ini": [":5: there are no comments behind values"],
    "production-misspelt.ini": [
        ":3: there is no option 'vaccum'",
        "mean enable-threads?",
        "mean py-call-osafterfork?",
        "mean processes?",
        "mean threads?",
        "mean chmod-socket?",
        "'log-buffering'",
    ],
    "comments-everywhere.ini": [":4: module", ":5: http-socket", ":6: there are no comments"],
    "cpu-count.ini": ["quotes"],
    "limits.ini": [":5: post-buffering"],
    "math.ini": [":7: listen"],
    "percent.ini": [":4: the line ends in %", "%Y", "%M"],
    "quotes.ini": [":2: module", ":3: env", ":4: procname", ":5: http-socket"],
    "template-child.ini": ["shared/template.ini:3: logto"],
    "unset-variables.ini": ["PROJECT_ROOT", "LOG_DIR", "MODULE", "HTTP_PORT", "there is no 'venv'"],
    "wrong-section.ini": ["there is no section 'uwsgi'; the file has 'app'"],
}


@pytest.mark.parametrize("name", NAMES)
def test_warnings_are_about_what_was_not_meant(name, place):
    read = language.read(["--" + name.rpartition(".")[2], name], ENVIRONMENT)
    found = [str(warning) for warning in read.warnings]
    assert len(found) == len(WARNED.get(name, [])), found
    for warning in WARNED.get(name, []):
        assert any(warning in line for line in found), found
