"""The command from outside: sources, precedence, messages, --check, --help, exit codes."""

import os
import re
import socket
import subprocess
import sys

import pytest

from tests.lib.server import Server, test_command as command_of_tests

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

APP = """
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr((os.getcwd(), os.environ.get("A"), os.environ.get("B"))).encode()]
"""
PORTS = iter(range(21000, 21500))


class Result:
    def __init__(self, process):
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr

    @property
    def errors(self):
        """The lines of standard error, without the hint behind configuration errors."""
        return [line for line in self.err.splitlines() if not line.startswith("stoker --help ")]

    def line(self, name):
        """The value and the origin of an option in the output of --check."""
        for line in self.out.splitlines():
            found = re.match(r"(?:# )?%s =(.*?) +# ([^#]*)$" % re.escape(name), line)
            if found:
                return found.group(1).strip(), found.group(2)
        raise AssertionError("%s is not in %s" % (name, self.out))


@pytest.fixture
def stoker(tmp_path):
    """Runs the command in a directory that holds app.py."""
    (tmp_path / "app.py").write_text(APP)

    def run(*args, env=None, toml=None, project=None, cwd=tmp_path):
        if toml is not None:
            (tmp_path / "stoker.toml").write_text(toml)
        if project is not None:
            (tmp_path / "pyproject.toml").write_text(project)
        environment = Server._environment(env or {})
        return Result(
            subprocess.run(
                command_of_tests() + list(args),
                cwd=str(cwd),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=60,
                text=True,
                encoding="utf-8",
                errors="surrogateescape",
            )
        )

    return run


# --help and --version


def test_help_fits_a_screen(stoker):
    result = stoker("--help")
    lines = result.out.splitlines()
    assert result.code == 0 and result.err == ""
    assert len(lines) <= 40 and max(map(len, lines)) <= 80
    for name in ("--bind", "--workers", "--threads", "--chdir", "--env", "--check", "--config"):
        assert name in result.out
    assert "--body-timeout" not in result.out


def test_help_all_has_everything(stoker):
    result = stoker("--help", "all")
    assert result.code == 0
    assert result.out == stoker("--help-all").out
    for name in ("--body-timeout", "--no-takeover", "--limit-request-head", "--socket-mode"):
        assert name in result.out


def test_help_needs_no_valid_configuration(stoker):
    assert stoker("-h", toml="broken").code == 0


def test_version_names_python(stoker):
    result = stoker("--version")
    assert result.code == 0
    assert re.match(r"stoker \d+\.\d+\.\d+\nPython \d+\.\d+\.\d+\S* \(.+\)\nLinux ", result.out)


def test_a_closed_reader_is_no_error(stoker, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        command_of_tests() + ["--help"], stdout=writer, stderr=subprocess.PIPE, cwd=str(tmp_path)
    )
    os.close(writer)
    assert b"Traceback" not in process.stderr


# sources and precedence


def test_precedence(stoker):
    toml = "workers = 2\nthreads = 2\nbacklog = 2\n"
    env = {"STOKER_WORKERS": "3", "STOKER_THREADS": "3"}
    result = stoker("--check", "-w", "4", "app:app", toml=toml, env=env)
    assert result.code == 0, result.err
    assert result.line("workers") == ("4", "command line")
    assert result.line("threads") == ("3", "environment STOKER_THREADS")
    assert result.line("backlog") == ("2", "stoker.toml:3")
    assert result.line("max-connections") == ('"auto"', "default")


def test_all_from_the_file(stoker):
    result = stoker(
        "--check",
        toml="""\
# a comment = with an equals sign
app = 'app:app'
bind = [
    ":21001",  # ]
    "127.0.0.1:21002",
]

"workers" = 2
keepalive_timeout = 2.5
limit-request-body = "10m"
preload = true
forwarded-allow = []

[env]
A = "1 # 2"
"B" = 3
""",
    )
    assert result.code == 0, result.err
    assert result.line("app") == ('"app:app"', "stoker.toml:2")
    assert result.line("bind") == ('[":21001", "127.0.0.1:21002"]', "stoker.toml:3")
    assert result.line("workers") == ("2", "stoker.toml:8")
    assert result.line("keepalive-timeout") == ('"2500ms"', "stoker.toml:9")
    assert result.line("limit-request-body") == ('"10m"', "stoker.toml:10")
    assert result.line("preload") == ("true", "stoker.toml:11")
    assert result.line("forwarded-allow") == ("[]", "stoker.toml:12")
    assert 'env = ["A=1 # 2", "B=3"]' in result.out
    assert "# stoker.toml:15, stoker.toml:16" in result.out


def test_check_prints_a_configuration(stoker):
    """What --check prints is TOML, and as a configuration gives the same again."""
    toml = 'app = "app:app"\nserver-header = "a \\"b\\" \\\\ c"\nworkers = 2\nenv = ["A=\\t"]\n'
    first = stoker("--check", toml=toml)
    assert first.code == 0, first.err
    values = tomllib.loads(first.out)
    assert values["server-header"] == 'a "b" \\ c'
    assert values["env"] == ["A=\t"]
    second = stoker("--check", toml=first.out)
    assert second.code == 0, second.err
    assert tomllib.loads(second.out) == values


def test_environment_lists(stoker):
    env = {
        "STOKER_BIND": ":21001, [::1]:21002 unix:/tmp/a.sock",
        "FORWARDED_ALLOW_IPS": "10.0.0.0/8,unix",
        "WEB_CONCURRENCY": "7",
        "STOKER_PYTHONPATH": "a:b",
    }
    result = stoker("--check", "app", env=env)
    assert result.code == 0, result.err
    assert result.line("bind") == (
        '[":21001", "[::1]:21002", "unix:/tmp/a.sock"]',
        "environment STOKER_BIND",
    )
    assert result.line("forwarded-allow")[0] == '["10.0.0.0/8", "unix"]'
    assert result.line("workers") == ("7", "environment WEB_CONCURRENCY")
    assert result.line("pythonpath")[0] == '["a", "b"]'


def test_a_misspelt_variable_warns(stoker):
    result = stoker("--check", "app", env={"STOKER_WOKERS": "3", "STOKER_SERVICE_HOST": "10.0.0.1"})
    assert result.code == 0
    assert result.errors == [
        "warning: environment STOKER_WOKERS: no such option; did you mean STOKER_WORKERS?"
    ]


def test_pyproject(stoker):
    project = '[project]\nname = "x"\n[tool.other]\nworkers = 9\n[tool.stoker]\nworkers = 2\n'
    project += '[tool.stoker.env]\nA = "1"\n'
    result = stoker("--check", "app", project=project)
    assert result.code == 0, result.err
    assert result.line("workers") == ("2", "pyproject.toml:6")
    assert result.line("env") == ('["A=1"]', "pyproject.toml:8")


def test_stoker_toml_before_pyproject(stoker):
    result = stoker(
        "--check", "app", toml="threads = 2\n", project="[tool.stoker]\nworkers = 2\nthreads = 3\n"
    )
    assert result.line("threads") == ("2", "stoker.toml:1")
    assert result.line("workers")[1].startswith("default")


def test_a_pyproject_of_others_is_left_alone(stoker):
    assert stoker("--check", "app", project="this is = not [ TOML").code == 0


def test_config_names_the_file(stoker, tmp_path):
    (tmp_path / "other.toml").write_text("threads = 5\n")
    result = stoker("--check", "-c", "other.toml", "app", toml="threads = 2\n")
    assert result.line("threads") == ("5", "other.toml:1")
    result = stoker("--check", "app", env={"STOKER_CONFIG": "other.toml"}, toml="threads = 2\n")
    assert result.line("threads") == ("5", "other.toml:1")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "pyproject.toml").write_text("[tool.stoker]\nthreads = 6\n")
    result = stoker("--check", "-c", "sub/pyproject.toml", "app")
    assert result.line("threads") == ("6", "sub/pyproject.toml:2")


# mistakes


@pytest.mark.parametrize(
    "toml, message",
    [
        ("\nwokers = 4", "stoker.toml:2: unknown option 'wokers'; did you mean 'workers'?"),
        (
            "workers = 'abc'",
            "stoker.toml:1: workers = 'abc': expected a whole number from 1 to 1024, or 'auto'",
        ),
        (
            "workers = -1",
            "stoker.toml:1: workers = '-1': expected a whole number from 1 to 1024, or 'auto'",
        ),
        ("threads = 1.5", "stoker.toml:1: threads = '1.5': expected a whole number from 1 to 1024"),
        ("threads = inf", "stoker.toml:1: threads = 'inf': expected a whole number from 1 to 1024"),
        ("preload = 'maybe'", "stoker.toml:1: preload = 'maybe': expected true or false"),
        ("threads = [1, 2]", "stoker.toml:1: threads takes one value, not a list"),
        ("bind = [[':1']]", "stoker.toml:1: bind is a list in a list; no option takes that"),
        ("app = 2020-01-01", "stoker.toml:1: app is a date or time; no option takes that"),
        ("chdir = ''", "stoker.toml:1: chdir = '': expected a text that is not empty"),
        ('chdir = "a\\u0000b"', "stoker.toml:1: chdir holds a NUL character"),
        ("help = true", "stoker.toml:1: help belongs on the command line"),
        (
            "workers = 1\nprocesses = 2",
            "stoker.toml:2: workers is given twice (first: stoker.toml:1)",
        ),
        (
            "[limits]\nthreads = 1",
            "stoker.toml:1: unknown table 'limits'; only [env], [mount], [[route]], "
            "[[header]], [[program]] and [[cron]] are tables; options stand at the top of the file",
        ),
        (
            "[enw]\nA = 1",
            "stoker.toml:1: unknown table 'enw'; did you mean [env]? only [env], [mount], [[route]], "
            "[[header]], [[program]] and [[cron]] are tables; options stand at the top of the file",
        ),
        (
            "[tool.stoker]\nthreads = 1",
            "stoker.toml:1: unknown table 'tool'; options stand at the top of the file, outside of "
            "tables",
        ),
        ("[env]\nA = [1]", "stoker.toml:2: env.A is not a single value"),
        ("[env]\n'A=B' = 1", "stoker.toml:2: env: 'A=B' is not a variable's name"),
        ("[[env]]\nA = 1", "stoker.toml:1: unknown table 'env'; "),
        ("threads = 1\nthreads = 2", "stoker.toml:2: not TOML: "),
        ("a = 1\nb = \n", "stoker.toml:2: not TOML: "),
        ("a = 'x", "stoker.toml:1: not TOML: "),
        (
            "server-header = \"a\\r\\nb\"",
            "stoker.toml:1: server-header holds a control character",
        ),
        ("bind = 'localhost:99999'", "stoker.toml:1: bind: "),
        ("access-log-format = '{nope}'", "stoker.toml:1: access-log-format: "),
        (
            "forwarded-allow = '10.0.0.0/99'",
            "stoker.toml:1: forwarded-allow = '10.0.0.0/99': expected an address, a network as "
            "10.0.0.0/8, 'unix' or '*'",
        ),
        (
            "limit-request-line = '64k'",
            "stoker.toml:1: limit-request-line = '64k': is more than limit-request-head (32768 "
            "bytes), which counts the line too",
        ),
    ],
)
def test_mistakes_in_a_file(stoker, toml, message):
    result = stoker("app", toml=toml)
    assert result.code == 1
    assert len(result.errors) == 1, result.err
    if message.endswith((": ", "; ")):
        assert result.errors[0].startswith(message)
        assert len(result.errors[0]) > len(message)
    else:
        assert result.errors[0] == message


def test_lines_behind_long_values(stoker):
    toml = '''\
server-header = """
a # "quote" \\""" still
"""
chdir = \'\'\'x\'y\'\'\'\'
env = { A = "}", B = 2 }
bind = [ "a", # ]
  \'b"\',
  """c
""" ]
wokers = 1
'''
    result = stoker("app", toml=toml)
    assert "stoker.toml:10: unknown option 'wokers'; did you mean 'workers'?" in result.errors


def test_all_mistakes_at_once(stoker):
    result = stoker(
        "--wokers", "-t0", "app", toml="thread = 1\nbacklog = 0\n", env={"STOKER_UMASK": "9"}
    )
    assert result.code == 1
    assert result.errors == [
        "command line: unknown option '--wokers'; did you mean '--workers'?",
        "command line: threads = '0': expected a whole number from 1 to 1024",
        "stoker.toml:1: unknown option 'thread'; did you mean 'threads'?",
        "stoker.toml:2: backlog = '0': expected a whole number from 1 to 65535",
        "environment STOKER_UMASK: umask = '9': expected octal permissions from 0 to 777",
    ]


def test_no_application(stoker):
    result = stoker()
    assert result.code == 1
    assert result.errors == ["no application is given; name one, as in: stoker app:app"]


@pytest.mark.parametrize(
    "args, message",
    [
        (["-c", "absent.toml"], "absent.toml: No such file or directory"),
        (["-c", "."], ".: Is a directory"),
        (["-c", "conf.py"], "conf.py: the configuration is written in TOML"),
        (["-c", "app.ini"], "command line: cannot read 'app.ini': No such file or directory"),
        (["-c"], "command line: -c needs a value: -c PATH"),
        (["--chdir", "absent"], "command line: chdir = 'absent': No such file or directory"),
        (["--bind"], "command line: --bind needs a value: --bind ADDR"),
    ],
)
def test_mistakes_on_the_command_line(stoker, args, message):
    result = stoker("app", *args)
    assert result.code == 1
    assert result.errors == [message]


def test_a_file_that_is_not_utf8(stoker, tmp_path):
    (tmp_path / "stoker.toml").write_bytes(b"# ok\napp = '\xff'\n")
    result = stoker()
    assert result.code == 1
    assert result.errors == ["stoker.toml:2: not UTF-8"]


def test_windows_line_ends_and_a_byte_order_mark(stoker, tmp_path):
    (tmp_path / "stoker.toml").write_bytes(b"\xef\xbb\xbfapp = 'app'\r\nthreads = 2\r\n")
    result = stoker("--check")
    assert result.code == 0, result.err
    assert result.line("threads") == ("2", "stoker.toml:2")


def test_a_value_that_loses_is_checked(stoker):
    result = stoker("-w", "2", "app", toml="workers = 0.5\n")
    assert result.code == 1
    assert result.errors[0].startswith("stoker.toml:1: workers = '0.5': ")


def test_bytes_that_are_not_utf8(stoker, tmp_path):
    result = stoker("--check", "app", "-e", os.fsdecode(b"A=\xff"))
    assert result.code == 0
    assert os.fsdecode(b'env = ["A=\xff"]') in result.out


# --check


def test_check_loads_the_application(stoker, tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_module_here\n")
    (tmp_path / "wrong.py").write_text("app = 3\n")
    result = stoker("--check", "app:app")
    assert result.code == 0 and result.err == ""
    assert "app:app is loaded" in result.out
    result = stoker("--check", "broken:app")
    assert result.code == 3
    assert "no_such_module_here" in result.err and "is loaded" not in result.out
    result = stoker("--check", "wrong:app")
    assert result.code == 3
    result = stoker("--check", "absent:app")
    assert result.code == 3
    assert result.line("app") == ('"absent:app"', "command line")


def test_check_uses_chdir_env_and_callable(stoker, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "inner.py").write_text(
        "import os\nassert os.environ['A'] == '1', os.environ\n"
        "assert os.path.basename(os.getcwd()) == 'sub'\nmain = lambda e, s: []\n"
    )
    args = ["--check", "--chdir", "sub", "-e", "A=1", "--callable", "main", "inner"]
    result = stoker(*args)
    assert result.code == 0, result.err
    assert "inner:main is loaded" in result.out


def test_check_is_not_held_by_threads(stoker, tmp_path):
    (tmp_path / "held.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
        "app = lambda e, s: []\n"
    )
    assert stoker("--check", "--exit-timeout", "500ms", "held").code == 0


def test_check_shows_the_usable_cpus(stoker):
    value, origin = stoker("--check", "app").line("workers")
    assert value == '"auto"'
    assert re.match(r"default; here [1-9]\d*$", origin)


def test_check_opens_no_log(stoker, tmp_path):
    assert stoker("--check", "app", "--error-log", "error.log").code == 0
    assert not (tmp_path / "error.log").exists()


# serving


def test_banner_and_environment(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "app.py").write_text(APP)
    port = next(PORTS)
    (tmp_path / "stoker.toml").write_text(
        "chdir = 'sub'\nbind = '127.0.0.1:%d'\nthreads = 2\nworkers = 2\n[env]\nA = 'file'\n"
        "B = 'file'\n" % port
    )
    server = Server("app:app", ["-e", "B=cli"], cwd=tmp_path, bind=None)
    server.address = (server.host, port)
    server.port = port
    with server:
        where, first, second = eval(server.get("/").text)
        assert os.path.basename(where) == "sub"
        assert (first, second) == ("file", "cli")
        log = server.log()
        assert "serving app:app at http://127.0.0.1:%d" % port in log
        assert "2 workers with 2 threads each; stop with Ctrl-C or kill %d" % server.pid in log
        assert re.search(r"stoker \S+ on Python %d\.%d" % sys.version_info[:2], log)


def test_port_in_use(stoker):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = stoker("app", "-b", "127.0.0.1:%d" % port)
    assert result.code == 1
    assert str(port) in result.err and "Traceback" not in result.err


def test_an_application_that_fails_to_load(stoker):
    result = stoker("absent:app", "-w1", "-b", "127.0.0.1:%d" % next(PORTS))
    assert result.code == 3
    assert "ModuleNotFoundError" in result.err


# elsewhere


def test_another_platform(tmp_path):
    """Without the engine, on another system, the command says one clear sentence."""
    import stoker

    package = os.path.dirname(stoker.__file__)
    code = (
        "import sys\nsys.platform = 'darwin'\nsys.modules['stoker._core'] = None\n"
        "from stoker.__main__ import main\nsys.exit(main([]))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, PYTHONPATH=os.path.dirname(package)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.returncode == 1
    assert process.stderr.count("\n") == 1
    assert process.stderr.startswith("stoker runs on Linux")
    assert "darwin" in process.stderr


TABLES = """
[{0}mount]
"/api" = "app:api"
"admin.example.com" = "app:api"

[[{0}route]]
path = "/old"
redirect = "/new"

[[{0}header]]
set = ["X-Content-Type-Options: nosniff", "X-Kept: yes"]

[[{0}header]]
prefix = "/api"
status = ["4xx", "200"]
method = "GET"
default = "Cache-Control: no-store"
remove = "X-Powered-By"
"""


@pytest.mark.parametrize("name,top", [("stoker.toml", ""), ("pyproject.toml", "tool.stoker.")])
def test_tables_of_routing(serve, tmp_path, name, top):
    """[mount], [[route]] and [[header]], at the top of stoker.toml and below [tool.stoker]."""
    head = 'app = "app:app"\nserver-header = "tables"\n'
    if top:
        head = '[project]\nname = "x"\n\n[tool.other]\nmount = 1\n\n[tool.stoker]\n' + head
    (tmp_path / name).write_text(head + TABLES.format(top))
    (tmp_path / "app.py").write_text(
        """if True:
    def app(environ, start_response, name="app"):
        fields = [("X-Powered-By", "Python"), ("X-Kept", "no")]
        if environ["QUERY_STRING"]:
            fields.append(("Cache-Control", environ["QUERY_STRING"]))
        start_response("200 OK", fields)
        return [(name + " " + environ["SCRIPT_NAME"]).encode()]

    def api(environ, start_response):
        return app(environ, start_response, "api")
"""
    )
    server = serve(None)

    def ask(target, method="GET", host="x"):
        r = server.request(method, target, headers={"Host": host})
        assert r.header("server") == "tables" and r.header("x-content-type-options") == "nosniff"
        assert r.header("x-kept") == "yes"
        return r.text.strip(), r.header("cache-control"), r.header("x-powered-by")

    assert ask("/") == ("app", None, "Python")
    assert ask("/api/x") == ("api /api", "no-store", None)
    assert ask("/api/x?public") == ("api /api", "public", None)
    assert ask("/api/x", "POST") == ("api /api", None, "Python")
    assert ask("/x", host="admin.example.com") == ("api", None, "Python")
    assert ask("/old")[0].startswith("302")


@pytest.mark.parametrize(
    "text,said",
    [
        ('[mount]\n"/a" = ["x", "y"]\n', "stoker.toml:2: mount is a list in a list"),
        ('[mounts]\n"/a" = "x"\n', "stoker.toml:1: unknown table 'mounts'; did you mean [mount]"),
        ("[[header]]\nset = 'X'\n", "stoker.toml:1: header = 'set=\"X\"': 'X': expected a field"),
        ("\n[[route]]\npath = '/a'\n[[route]]\npath = '/b'\nreturn = 404\n", "stoker.toml:2: route"),
        ("[[headers]]\nset = 'X: y'\n", "did you mean [[header]]"),
    ],
)
def test_mistakes_in_tables_have_their_line(serve, tmp_path, text, said):
    (tmp_path / "stoker.toml").write_text(text)
    server = serve("app:app", start=False).spawn()
    assert server.wait() == 1
    assert said in server.log()


@pytest.mark.parametrize("mask", ["027", "0o27"])
def test_umask_of_the_server(serve, tmp_path, mask):
    app = """
        import os

        def app(environ, start_response):
            os.close(os.open("made", os.O_CREAT | os.O_WRONLY, 0o666))
            start_response("200 OK", [])
            return []
    """
    server = serve(app, "--umask", mask, "--workers", "1", bind="unix", ready="/")
    for pid in (server.pid, *server.worker_pids()):
        with open("/proc/%d/status" % pid) as file:
            assert "Umask:\t0027\n" in file.readlines()
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o640
    assert os.stat(server.address).st_mode & 0o777 == 0o750
