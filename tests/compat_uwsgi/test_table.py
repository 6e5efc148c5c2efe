"""Every option of uWSGI has one fate, and what is translated is what the engine knows."""

import importlib
import os
import re
import subprocess
import sys

import pytest

from tests.compat_uwsgi.conftest import ROOT

names = importlib.import_module("compat_sources.names")
rules = importlib.import_module("compat_sources.rules")
explain = importlib.import_module("compat_sources.explain")
log_rules = importlib.import_module("compat_sources.log_rules")

ROWS = names.table().rows
OPTIONS = (ROOT / "docs" / "options.md").read_text()


def own_options():
    found = set(re.findall(r"^### `([a-z-]+)`", OPTIONS, re.MULTILINE))
    assert len(found) > 80
    return found


def test_every_option_has_a_fate():
    default = [row for row in ROWS if row.default]
    assert sum(len(row.names) for row in default) >= 1033
    for row in ROWS:
        assert row.fate in names.FATES, row.name
        assert bool(row.target) == (row.fate in ("same", "better")), row.name
        assert row.note or row.fate == "same", row.name


def test_targets_exist():
    own = own_options()
    for row in ROWS:
        target = row.target
        if target in ("", "none", "language", "hosted", "module"):
            continue
        if target.startswith("@"):
            name, _, word = target[1:].partition(":")
            assert hasattr(rules.Work, "do_" + name), row.name
            assert target in explain.RULES or word or name in ("plugin", "hook"), row.name
            target = word if name != "limit" else ""
        assert not target or target in own, row.name


def test_names_that_both_have_mean_the_same():
    """What options.def says that uWSGI has is what the table leads to."""
    for option, text in re.findall(r"^- uWSGI has it as (.*)$", OPTIONS, re.MULTILINE) and re.findall(
        r"^### `([a-z-]+)`(?:(?!^### ).)*?^- uWSGI has it as (.*?)$", OPTIONS, re.MULTILINE | re.DOTALL
    ):
        for name in re.findall(r"`([^`]+)`", text):
            if name == "route":  # a table here; uWSGI's rules are not taken
                continue
            row = names.table().find(name)
            assert row is not None, name
            assert row.fate in ("same", "better") and option in explain.own_name(row.target).split(", "), (name, row)


def test_the_list_is_up_to_date():
    made = subprocess.run([sys.executable, "tools/gen_uwsgi_options"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert (ROOT / "docs" / "uwsgi-options.md").read_text() == made.stdout


@pytest.mark.parametrize(
    "regexp, patterns",
    [
        (r"\.css$", ["*.css"]),
        (r".*\.(css|js)$", ["*.css", "*.js"]),
        (r"^/static/img/.*", ["/static/img/*"]),
        (r"/data/static/*", ["*/data/static/*"]),
        (r"(?:a|b)\.png$", ["*a.png", "*b.png"]),
        (r"[0-9]+\.js", []),
        (r"a|b", []),
    ],
)
def test_regular_expressions(regexp, patterns):
    assert log_rules.globs(regexp) == patterns


def test_log_formats():
    text, unknown = log_rules.template('{"a": "%(addr)", "t": %(msecs), "x": "%(caf\u00e9)"} %(caf\u00e9) %(metric.x)')
    assert text == '{{"a": "{addr}", "t": {time_ms}, "x": "-"}} - {metric:x}'
    assert unknown == ["caf\u00e9"]


def check(run, *args, **kwargs):
    """What --check says, by name."""
    done = run("--check", *args, **kwargs)
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^([a-z-]+) = (.*?) +# (?!default)", done.stdout, re.MULTILINE)), done.stderr


BASE = "[uwsgi]\nmodule = app:application\n"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", {"workers": "1"}),
        ("processes = 4\n", {"workers": "4", "preload": "true"}),
        ("workers = 4\nlazy-apps = true\n", {"workers": "4"}),
        ("http = :8080\n", {"bind": '["http://:8080"]'}),
        ("socket = /tmp/x.sock\nchmod-socket = 1\n", {"bind": '["uwsgi://unix:/tmp/x.sock"]', "socket-mode": '"666"'}),
        ("socket = 127.0.0.1:3031\nprotocol = http\n", {"bind": '["http://127.0.0.1:3031"]'}),
        ("socket = :3031\n", {"bind": '["uwsgi://:3031"]', "allow-public-gateway": "true"}),
        ("fastcgi-socket = f.sock\nscgi-socket = s.sock\n", {"bind": '["fastcgi://unix:f.sock", "scgi://unix:s.sock"]'}),
        ("shared-socket = 127.0.0.1:80\nhttp-socket = =0\n", {"bind": '["http://127.0.0.1:80"]'}),
        (
            "http = =1\nsocket = =0\nshared-socket = a.sock\nundeferred-shared-socket = *:80\n",
            {"bind": '["http://0.0.0.0:80", "uwsgi://unix:a.sock"]'},
        ),
        ("harakiri = 20 ; seconds\n", {"request-timeout": '"20s"'}),
        ("harakiri = 0\n", {}),
        ("reload-on-rss = 300\nreload-on-pss = 200\n", {"max-rss": '"300m"', "max-pss": '"200m"'}),
        ("max-requests = 5000\nmax-worker-lifetime = 3600\n", {"max-requests": "5000", "max-lifetime": '"1h"'}),
        ("cheaper = 2\nprocesses = 8\ncheaper-algo = busyness\nlazy = 1\n", {"workers": "8", "workers-min": "2"}),
        ("buffer-size = 4096\npost-buffering = 1\n", {}),
        ("buffer-size = 65535\n", {"limit-request-head": "65535"}),
        ("limit-post = 1000\n", {"limit-request-body": "1000"}),
        ("logto = u.log\n", {"access-log": '"u.log"', "error-log": '"u.log"'}),
        ("logto = u.log\ndisable-logging = true\n", {"access-log": '"off"', "error-log": '"u.log"'}),
        ("req-logger = file:r.log\nlogger = file:e.log\n", {"access-log": '"r.log"', "error-log": '"e.log"'}),
        ("logger = stdio\nlog-master = true\n", {"access-log": '"-"'}),
        ("daemonize = d.log\n", {"daemon": "true", "access-log": '"d.log"', "error-log": '"d.log"'}),
        ("static-map2 = /tmp=/\nstatic-map = /x=/not/there\n", {"static-map": '["/tmp=/tmp"]'}),
        ("static-expires-type = text/css=60\n", {"static-expires": '["text/css=60s"]'}),
        ("procname-prefix-spaced = shop\n", {"name": '"shop"'}),
        ("http-keepalive = 75\n", {"keepalive-timeout": '"75s"'}),
        ("http-keepalive = 1\nhttp-timeout = 600\n", {}),
        ("socket-timeout = 60\n", {"body-timeout": '"1m"', "send-timeout": '"1m"'}),
        ("py-autoreload = 1\n", {"autoreload": "true"}),
        ("pythonpath = one\npythonpath = two\npp = three\n", {"pythonpath": '["three", "two", "one"]'}),
        ("safe-pidfile = u.pid\nstats = run/stats.sock\n", {"pidfile": '"u.pid"', "stats": '"./run/stats.sock"'}),
        ("add-header = Connection: Keep-Alive\nadd-header = X-A: b\n", {"header": '["add=\\"X-A: b\\""]'}),
        ("py-autoreload = 0\n", {}),
        ("http-enable-proxy-protocol = 1\n", {"proxy-protocol": '"optional"'}),
        ("master = true\nvacuum = true\nthunder-lock = true\nmemory-report = true\nignore-sigpipe = true\n", {}),
        ("plugins = python3,http,logfile\n", {}),
        ("vacuum = false\nlog-5xx = true\n", {}),
        (
            "disable-logging = true\nlog-4xx = true\nlog-5xx = true\nlog-slow = 1000\nlogto = u.log\n",
            {
                "access-log-only": '["4xx", "5xx", "slow=1000ms"]',
                "access-log": '"u.log"',
                "error-log": '"u.log"',
            },
        ),
    ],
    ids=lambda value: value.replace("\n", " ") if isinstance(value, str) else "",
)
def test_what_it_comes_to(place, run, text, expected):
    (place / "u.ini").write_text(BASE + text)
    found, _ = check(run, "--ini", "u.ini")
    assert found.pop("uwsgi-module") == "true"
    for name, value in (("app", '"app:application"'), ("workers", "1")):
        assert found.pop(name) == expected.get(name, value)
        expected = {key: one for key, one in expected.items() if key != name}
    assert found == expected


def test_what_is_opened_before_uwsgi_changes_its_directory(place, run):
    (place / "u.ini").write_text(
        BASE + "chdir = %d\nforce-cwd = /\nlogto2 = u.log\npidfile = u.pid\nreq-logger = file:r.log\n"
    )
    found, _ = check(run, "--ini", "u.ini")
    assert found["chdir"].rstrip('/"') == '"%s' % os.path.realpath(place)
    assert (found["error-log"], found["access-log"], found["pidfile"]) == ('"/u.log"', '"r.log"', '"/u.pid"')
    (place / "u.ini").write_text(BASE + "chdir = %d\nlogto = u.log\npidfile = u.pid\npidfile2 = 2.pid\n")
    found, _ = check(run, "--ini", "u.ini")
    assert found["error-log"] == found["access-log"] == '"%s"' % (os.path.realpath(place) + "/u.log")
    assert found["pidfile"] == '"%s"' % (os.path.realpath(place) + "/u.pid")
    (place / "u.ini").write_text(BASE + "chdir = /\npidfile2 = 2.pid\n")
    assert check(run, "--ini", "u.ini")[0]["pidfile"] == '"2.pid"'


def test_converted_files_come_to_the_same(place, run):
    (place / "u.ini").write_text(
        BASE + "processes = 3\nhttp-socket = 127.0.0.1:9\nharakiri = 5\nenv = A=b c\nenv = Q=\"x\\y\"\nstatic-map = /s=/tmp\n"
        "chmod-socket = 660\nlog-format = %(method) %(uri)\nmule = x\numask = 022\n"
    )
    converted = run("convert", "u.ini")
    assert converted.returncode == 0
    assert "# not there yet, and left out: mule (u.ini:11)" in converted.stdout
    first, _ = check(run, "--ini", "u.ini")
    (place / "stoker.toml").write_text(converted.stdout)
    second, _ = check(run)
    assert first == second


def test_notices(place, run):
    (place / "u.ini").write_text(BASE + "mule = x\nrbtimer = 1 2\nemperor = /etc\nlog-format = %(uri) %(a{b)\nshared-socket = :80\n")
    _, said = check(run, "--ini", "u.ini")
    assert "not there yet, and left out: mule (u.ini:3), rbtimer (u.ini:4)" in said
    assert "without effect: emperor (u.ini:5)" in said
    assert "u.ini:7: shared-socket: nothing takes it" in said
    assert "u.ini:6: log-format: written as -: %(a{b)" in said


@pytest.mark.parametrize(
    "text, words",
    [
        ("strict = true\nmule = x\n", "u.ini:4: strict: not there yet: mule (u.ini:4)"),
        ("plugins = psgi\n", "u.ini:3: plugin psgi: only Python applications are served"),
        ("socket = 127.0.0.1:port\n", "u.ini:3: socket: 'port' is not a port"),
        ("https = :443\n", "u.ini:3: https: expected ADDRESS,CERTIFICATE,KEY"),
        ("http = =0\n", "u.ini:3: http: '=0': there is no shared-socket"),
        ("http = =1\nshared-socket = :80\n", "u.ini:3: http: '=1': the last shared-socket is =0"),
        ("route = ^/private ldapauth:me,url=ldap://x\n", "u.ini:3: route: the action ldapauth: is not there, and left out"),
        ("check-static = .\nstatic-skip-ext = .py\n", "u.ini:4: static-skip-ext: not there yet, and left out it would"),
        ("home = nowhere\n", "u.ini:3: home: nowhere has no bin/python3"),
        ("protocol = raw\nsocket = 127.0.0.1:9\n", "u.ini:3: protocol: raw is not spoken here"),
    ],
)
def test_what_cannot_be(place, run, text, words):
    (place / "u.ini").write_text(BASE + text)
    done = run("--check", "--ini", "u.ini")
    assert done.returncode == 1 and words in done.stderr
    assert "Traceback" not in done.stderr


def test_another_interpreter(place, run):
    """Without a stoker: what to type. With one: it goes on there."""
    there = place / "venv" / "bin"
    there.mkdir(parents=True)
    (there / "python3").write_text("#!/bin/sh\n[ \"$1\" = -c ] && exit $HAS\necho entered \"$@\"\n")
    (there / "python3").chmod(0o755)
    (place / "u.ini").write_text(BASE + "virtualenv = venv\n")
    done = run("--ini", "u.ini", env={"HAS": "1"})
    assert done.returncode == 1 and "type venv/bin/python -m pip install stoker" in done.stderr
    done = run("--ini", "u.ini", env={"HAS": "0"})
    assert done.stdout == "entered -m stoker --ini u.ini\n"
    (place / "u.ini").write_text(BASE + "virtualenv = %s\nhttp-socket = 127.0.0.1:9\n" % sys.prefix)
    if not os.environ.get("STOKER_TEST_COMMAND"):
        assert run("--check", "--ini", "u.ini").returncode == 0


def test_imports_come_first(place, serve):
    (place / "early.py").write_text("import builtins\nbuiltins.early = 'yes'\n")
    (place / "app.py").write_text(
        "import builtins\nseen = builtins.early + __import__('more').more\ndef application(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [seen.encode()]\n"
    )
    (place / "more.py").write_text("import builtins\nmore = builtins.shared\n")
    (place / "shared.py").write_text("import builtins\nbuiltins.shared = '!'\n")
    (place / "u.ini").write_text(BASE + "import = early\nimport = nowhere\nimport = ./more.py\nshared-import = shared\n")
    server = serve(None, "--ini", "u.ini", cwd=place)
    assert server.get("/").body == b"yes!"
    server.wait_log("import: nowhere has failed")


@pytest.mark.parametrize("option", ["wsgi-file = app.wsgi\n", "file = bin/json.wsgi\nchdir = %d\n", "wsgi-file = %d/start\n"])
def test_a_file_of_any_name(place, serve, option):
    (place / "bin").mkdir()
    for name in ("app.wsgi", "bin/json.wsgi", "start"):
        (place / name).write_text(
            "import json\ndef make(environ, start_response):\n    start_response('200 OK', [])\n"
            "    return [json.dumps(%r).encode()]\n" % name
        )
    (place / "u.ini").write_text("[uwsgi]\nthreads = 0\ncallable = make\n" + option)
    assert serve(None, "--ini", "u.ini", cwd=place).get("/").body.decode().strip('"') in option


def test_variables_of_a_directory(place, serve):
    (place / "vars").mkdir()
    (place / "vars" / "TEST_ONE").write_text("a b \nmore\n")
    (place / "vars" / "TEST_GONE").write_text("")
    (place / "app.py").write_text(
        "import os, sys\ndef application(environ, start_response):\n    start_response('200 OK', [])\n"
        "    return [repr((os.environ.get('TEST_ONE'), os.environ.get('TEST_GONE'), sys.argv)).encode()]\n"
    )
    (place / "u.ini").write_text(BASE + "envdir = vars\npyargv = --one two\n")
    server = serve(None, "--ini", "u.ini", cwd=place, env={"TEST_GONE": "here"})
    assert server.get("/").body == b"('a b', None, ['uwsgi', '--one', 'two'])"


def test_variables_of_others_do_not_count(place, run):
    (place / "u.ini").write_text(BASE + "processes = 3\n")
    variables = {"WEB_CONCURRENCY": "7", "FORWARDED_ALLOW_IPS": "*", "STOKER_THREADS": "2"}
    done = run("--check", "--ini", "u.ini", env=variables)
    assert "workers = 3 " in done.stdout and "threads = 2 " in done.stdout, done.stderr
    assert "FORWARDED_ALLOW_IPS" not in done.stdout


def test_explain(run):
    done = run("explain", "harakiri", "--mule", "worker_class")
    assert done.returncode == 0
    assert "uWSGI harakiri: better" in done.stdout and "in stoker: request-timeout" in done.stdout
    assert "uWSGI mule: later" in done.stdout and "Gunicorn worker_class: better" in done.stdout
    done = run("explain", "haraquiri")
    assert done.returncode == 1 and "harakiri was probably meant" in done.stderr
