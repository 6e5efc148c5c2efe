"""Rules of what answers which requests, and the redirects to one host and one scheme."""

import re
import subprocess

import pytest

from tests.conftest import ROOT
from tests.lib.server import test_command as command_of_tests

CONFIG = r'''
app = "app:app"

[[route]]
prefix = "/old/"
redirect = "/new/$1$query"
status = 301

[[route]]
regex = '^/users/(\d+)$'
method = ["GET"]
redirect = "https://people.example.com/$1"

[[route]]
path = "/gone"
return = { status = 410, body = "It was here.\n" }

[[route]]
host = "internal.example.com"
prefix = "/reports"
app = "app:reports"
header = "Cache-Control: private"

[[route]]
regex = '^/(a+)+$'
return = 403
'''

APP = '''
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]

def reports(environ, start_response):
    start_response("200 OK", [("Cache-Control", "public")])
    return [(environ["SCRIPT_NAME"] + " " + environ["PATH_INFO"]).encode()]
'''


def run_check(*rules):
    """What --check says to rules of `route`."""
    command = command_of_tests() + ["--check"] + [word for rule in rules for word in ("--route", rule)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="session")
def pcre2():
    if "built without PCRE2" in run_check("regex=a return=404").stderr:
        pytest.skip("this stoker was built without PCRE2")


def test_a_build_without_pcre2_says_so(tmp_path):
    done = run_check("path=/x return=404", "regex=^/a return=404")
    if done.returncode != 0:
        assert done.stderr.count("PCRE2") == 1
        assert (
            "regex = '^/a': this stoker was built without PCRE2: install libpcre2-dev and build it again"
            in done.stderr
        )


@pytest.fixture(scope="module")
def server(serve_module, tmp_path_factory, pcre2):
    where = tmp_path_factory.mktemp("routes")
    (where / "app.py").write_text(APP)
    (where / "stoker.toml").write_text(CONFIG)
    return serve_module(None, cwd=where)


@pytest.mark.parametrize(
    "target, status, location",
    [
        ("/old/a/b?x=1", 301, "/new/a/b?x=1"),
        ("/old/%0d%0aX:%20y", 301, "/new/%0D%0AX:%20y"),
        ("/users/12", 302, "https://people.example.com/12"),
        ("/users/12%0a", 200, None),
        ("/gone", 410, None),
        ("/aaa", 403, None),
        ("/old", 200, None),
    ],
)
def test_rules(server, target, status, location):
    response = server.get(target)
    assert (response.status, response.header("location")) == (status, location)


def test_a_path_never_becomes_a_host(serve):
    server = serve(APP, "--route", "prefix=/go redirect=/$1", "--route",
                   "prefix=/out/ redirect=https://example.com$1")  # fmt: skip
    assert server.get("/go//evil.example/").header("location") == "/evil.example/"
    assert server.get("/out/.evil.example").header("location") == "https://example.com/.evil.example"


def test_an_application_by_a_rule(server):
    response = server.get("/reports/1", headers={"Host": "internal.example.com"})
    assert response.text == "/reports /1"
    assert response.header("cache-control") == "private"
    assert server.get("/reports/1").text == "/reports/1"


FILES = r'''
app = "app:app"

[[route]]
path = "/robots.txt"
static = "public/a.txt"

[[route]]
host = "static.example.com"
static = "public"
header = "X-From: files"

[[route]]
prefix = "/assets/"
static = "public"
method = ["GET", "POST"]

[[route]]
regex = '^/v\d+/(.*)$'
static = "public"
try = "next"
header = "X-From: versions"

[[route]]
prefix = "/v2"
return = { status = 410 }

[[route]]
prefix = "/spa"
static = "public"
try = "/docs/index.html"

[[route]]
path = "/docs/"
static = "public"

[[route]]
regex = '^/[a-z]+\.txt$'
static = "public"
'''


def test_files_by_a_rule(serve, tmp_path, pcre2):
    public = tmp_path / "public"
    (public / "docs").mkdir(parents=True)
    (public / "a.txt").write_text("a file")
    (public / "docs" / "index.html").write_text("<p>docs")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "stoker.toml").write_text(FILES)
    (tmp_path / "app.py").write_text("import os\nos.chdir('/')\n" + APP)
    server = serve(None)

    def ask(target, host="x", method="GET"):
        r = server.request(method, target, headers={"Host": host})
        return (r.status, r.text if r.status == 200 else r.header("location"), r.header("x-from"))

    for target, expected in (
        ("/robots.txt", (200, "a file", None)), ("/assets/a.txt", (200, "a file", None)),
        ("/assets/", (404, None, None)), ("/assets/docs", (301, "./docs/", None)),
        ("/assets/none", (404, None, None)), ("/assets", (200, "/assets", None)),
        ("/assets/../secret.txt", (404, None, None)), ("/assets/%2e%2e/secret.txt", (404, None, None)),
        ("/v1/a.txt", (200, "a file", "versions")), ("/v1/none", (200, "/v1/none", None)),
        ("/v2/a.txt", (200, "a file", "versions")), ("/v2/none", (410, None, None)),
        ("/v1/../a.txt", (200, "/v1/../a.txt", None)), ("/v1/docs", (200, "/v1/docs", None)),
        ("/spa/users/7", (200, "<p>docs", None)), ("/spa", (200, "<p>docs", None)),
        ("/spa/gone.js", (404, None, None)), ("/docs/", (200, "<p>docs", None)),
        ("/a.txt", (200, "a file", None)), ("/b.txt", (404, None, None)), ("/b", (200, "/b", None)),
    ):  # fmt: skip
        assert ask(target) == expected, target
    assert ask("/a.txt", "static.example.com") == (200, "a file", "files")
    assert ask("/docs/", "static.example.com") == (200, "<p>docs", "files")
    assert ask("/x", "static.example.com") == (404, None, "files")
    assert ask("/assets/a.txt", method="POST")[0] == 405
    assert ask("/v1/a.txt", method="POST") == (200, "/v1/a.txt", None)
    assert ask("/assets/a.txt", method="PUT")[0] == 200
    r = server.get("/assets/a.txt", headers={"Range": "bytes=2-5"})
    assert (r.status, r.text) == (206, "file")


def test_files_alone(serve, tmp_path):
    (tmp_path / "index.html").write_text("home")
    server = serve(None, "--route", "prefix=/ static=.")
    assert server.get("/").text == "home" and server.get("/x").status == 404


def test_other_methods(server):
    with server.connect() as conn:
        conn.send(b"POST /gone HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
                  b"GET /old/x HTTP/1.1\r\nHost: x\r\n\r\n")  # fmt: skip
        assert conn.read_response().body == b"It was here.\n"
        assert conn.read_response().status == 301
        conn.send(b"POST /users/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert conn.read_response().status == 200


def test_a_hostile_path_is_bounded(server):
    """A pattern of exponential time ends at a limit, and the request is refused: to let it pass would
    be a way round the rule. One that the same pattern decides at once is served as before."""
    with server.connect() as conn:
        for _ in range(3):
            conn.send(b"GET /%s! HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 4000))
            response = conn.read_response()
            assert (response.status, response.text) == (400, "400 Bad Request: the path is too complicated\n")
        conn.send("GET /aaaa HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [conn.read_response().status for _ in range(2)] == [403, 200]
    assert "took too long to compare with the pattern '^/(a+)+$'" in server.log()


def test_while_the_application_is_busy(serve, tmp_path, pcre2):
    """Rules, redirects, files and fields need no thread of Python: the stand-by answers."""
    (tmp_path / "a.txt").write_text("a file")
    (tmp_path / "stoker.toml").write_text(
        CONFIG + '''
[[route]]
prefix = "/files"
static = "."

[[route]]
prefix = "/maybe"
static = "."
try = "next"

[[header]]
set = "X-By: stoker"

[mount]
"/busy" = "app:busy"
'''
    )
    source = """
import os, time

def busy(environ, start_response):
    while not os.path.exists("open"):
        time.sleep(0.02)
    start_response("200 OK", [])
    return [b"busy"]
"""
    (tmp_path / "app.py").write_text(APP + source)
    server = serve(None, "--workers", "1", "--threads", "2")

    def ask(target, host="x"):
        r = server.get(target, headers={"Host": host})
        assert r.header("x-by") == "stoker"
        return (r.status, r.header("location"), r.text)

    with server.connect() as one, server.connect() as two, server.connect() as third:
        for conn, path in ((one, "busy"), (two, "busy"), (third, "waits")):
            conn.send("GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        for _ in range(3):
            assert ask("/old/a") == (301, "/new/a", "301 Moved Permanently\n")
            assert ask("/users/7")[1] == "https://people.example.com/7"
            assert ask("/gone") == (410, None, "It was here.\n")
            assert ask("/aaa")[0] == 403
            assert ask("/files/a.txt") == (200, None, "a file")
            assert ask("/files/none")[0] == 404
            assert ask("/maybe/a.txt") == (200, None, "a file")
        with server.connect() as mixed:
            for path in ("gone", "maybe/none", "gone"):
                mixed.send("GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            assert mixed.read_response().status == 410
            assert mixed.is_quiet(0.05) and third.is_quiet(0.05) and one.is_quiet(0.05)
            (tmp_path / "open").write_text("")
            assert mixed.read_response().text == "/maybe/none"
            assert mixed.read_response().status == 410
        assert [conn.read_response().text for conn in (one, two, third)] == ["busy", "busy", "/waits"]


def test_https_and_host(serve):
    server = serve(APP, "--redirect-https", "--canonical-host", "example.com",
                   "--health-path", "/health")  # fmt: skip

    def ask(target, method="GET", **headers):
        response = server.request(method, target, headers={k.replace("_", "-"): v for k, v in headers.items()})
        return response.status, response.header("location")

    assert ask("/a?b", Host="www.example.com:81") == (301, "https://example.com/a?b")
    assert ask("/a", "POST", Host="example.com") == (308, "https://example.com/a")
    assert ask("/a", Host="example.com", X_Forwarded_Proto="https") == (200, None)
    assert ask("/a", Host="b.c", X_Forwarded_Proto="https") == (301, "https://example.com/a")
    assert ask("/health", Host="b.c")[0] == 200
    assert ask("/.well-known/acme-challenge/x", Host="b.c") == (200, None)


@pytest.mark.parametrize(
    "row, said",
    [
        ("prefx=/a return=404", "did you mean 'prefix'"),
        ("prefix=/a", "nothing to do"),
        ("prefix=/a return=404 app=x", "give one of them"),
        ("regex=( return=404", "regex"),
        ("prefix=/a redirect=/$2", "no $2"),
        ("^/x redirect:/y", "uWSGI"),
        ("prefix=/a static=nowhere", "No such file"),
        ("prefix=/a static=. try=index.html", "expected a file of the directory"),
        ("prefix=/a return=404 try=next", "try belongs to static"),
        ("prefix=/a static=. strip=false", "strip belongs to app"),
        ("prefix=/a static=. timeout=1s", "timeout belongs to app"),
        ("prefix=/a app=app:app timeout=never", "timeout = 'never': expected a duration"),
    ],
)
def test_mistakes_are_explained(serve, tmp_path, row, said):
    server = serve(APP, "--route", row, start=False).spawn()
    assert server.wait() == 1
    assert said in server.log()


@pytest.mark.parametrize("page", ["routing", "static"])
def test_the_configurations_of_the_pages(tmp_path, pcre2, page):
    """Every file that the documentation shows is one that can be used."""
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / (page + ".md")).read_text(), re.S)
    assert len(blocks) >= 2
    for name in ("public", "media", "exports"):
        (tmp_path / name).mkdir()
    (tmp_path / "public" / "robots.txt").write_text("")
    for name in ("main", "app", "api", "admin", "shop", "reports"):
        (tmp_path / (name + ".py")).write_text("def app(environ, start_response): pass\n")
    for text in blocks:
        (tmp_path / "stoker.toml").write_text(text)
        command = command_of_tests() + ["--check"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, text + done.stderr


def test_check_lists_the_rules(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    rules = ("path=/a return=410", "prefix=/b app=app:app timeout=90", "prefix=/c app=app:app timeout=off",
             "prefix=/d app=app:reports")  # fmt: skip
    command = command_of_tests() + ["app:app", "--check"] + [w for rule in rules for w in ("--route", rule)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " -> " in line]
    assert lines == [
        "# 1. path=/a -> 410",
        "# 2. prefix=/b -> app:app (timeout 90s)",
        "# 3. prefix=/c -> app:app (timeout off)",
        "# 4. prefix=/d -> app:reports",
        "# all else -> app:app",
    ]
