"""Several applications in one server."""

import signal
import time

import pytest

APPS = '''
import json

def make(name):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps([name, environ["SCRIPT_NAME"], environ["PATH_INFO"]]).encode()]
    return app

app, api, v2, site, wild = map(make, ["app", "api", "v2", "site", "wild"])
'''


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module(
        APPS,
        "--mount", "/api=app:api",
        "--mount", "/api/v2/=app:v2",
        "--mount", "example.com=app:site",
        "--mount", "example.com/api=app:api",
        "--mount", "*.example.com=app:wild",
    )  # fmt: skip


@pytest.mark.parametrize(
    "host, target, expected",
    [
        ("x", "/", ["app", "", "/"]),
        ("x", "/apis", ["app", "", "/apis"]),
        ("x", "/api", ["api", "/api", ""]),
        ("x", "/api/", ["api", "/api", "/"]),
        ("x", "/api/v2/a%20b?q", ["v2", "/api/v2", "/a b"]),
        ("x", "/%61pi/v3", ["api", "/api", "/v3"]),
        ("x", "/api%2Fv3", ["api", "/api", "/v3"]),
        ("x", "/x/../api", ["app", "", "/x/../api"]),
        ("EXAMPLE.com:81", "/a", ["site", "", "/a"]),
        ("example.com.", "/a", ["site", "", "/a"]),
        ("example.com", "/api/x", ["api", "/api", "/x"]),
        ("example.com", "/api/v2/x", ["api", "/api", "/v2/x"]),
        ("a.b.example.com", "/api", ["wild", "", "/api"]),
        ("notexample.com", "/a", ["app", "", "/a"]),
    ],
)
def test_where_a_request_goes(server, host, target, expected):
    assert server.get(target, headers={"Host": host}).json() == expected


def test_pipelined_requests_of_several_applications(server):
    with server.connect() as conn:
        conn.send(b"GET /api/1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        got = [conn.read_response().json() for _ in range(4)]
    assert got == [["api", "/api", "/1"], ["app", "", "/2"]] * 2


def test_without_an_application_the_rest_is_not_found(serve, tmp_path):
    (tmp_path / "app.py").write_text(APPS)
    server = serve(None, "--mount", "/api=app:api")
    assert server.get("/api/x").json() == ["api", "/api", "/x"]
    assert server.get("/x").status == 404


def test_a_mount_that_fails_is_named(serve):
    server = serve(APPS, "--mount", "/api=nothing:here", start=False).spawn()
    server.wait_log("'nothing:here' is the application of mount /api")
    assert server.wait() == 3


def write_apps(where, version):
    """Two modules with an application each; the second imports a third module."""
    for name, text in (("one", ""), ("two", "import helper\n"), ("helper", "VERSION = %r\n" % version)):
        word = "helper.VERSION" if name == "two" else repr(version)
        if name != "helper":
            text += (
                "import os\n"
                "loaded = os.getpid()\n"
                "def app(environ, start_response):\n"
                "    start_response('200 OK', [])\n"
                "    return [('%%s %%s %%d %%d' %% (%r, %s, loaded, os.getpid())).encode()]\n" % (name, word)
            )
        # By renaming, so that nobody ever reads half a module.
        (where / ("%s.tmp" % name)).write_text(text)
        (where / ("%s.tmp" % name)).rename(where / ("%s.py" % name))


def start_two(serve, *args):
    return serve("one:app", "--mount", "/two=two:app", "--mount", "/again=two:app", *args,
                 env={"PYTHONDONTWRITEBYTECODE": "1"})  # fmt: skip


def ask_both(server):
    found = [server.get(path).text.split() for path in ("/", "/two/", "/again/")]
    assert [words[0] for words in found] == ["one", "two", "two"]
    return {words[1] for words in found}, [words[2:] for words in found]


def test_preload_of_several(serve, tmp_path):
    """Each is imported once, by the template; a reload takes the new code of all."""
    write_apps(tmp_path, "v1")
    server = start_two(serve, "--preload", "--workers", "2")
    templates = set()
    for _ in range(10):
        versions, pids = ask_both(server)
        assert versions == {"v1"}
        assert all(loaded != served for loaded, served in pids)
        templates |= {loaded for loaded, _ in pids}
    assert len(templates) == 1
    write_apps(tmp_path, "v2")
    server.send_signal(signal.SIGHUP)
    server.wait_log("reload is complete")
    versions, pids = ask_both(server)
    assert versions == {"v2"} and not templates & {loaded for loaded, _ in pids}


@pytest.mark.parametrize("args", [(), ("--preload",)], ids=["workers", "preload"])
def test_autoreload_of_several(serve, tmp_path, args):
    """A change of any file of any of them is seen."""
    write_apps(tmp_path, "v1")
    server = start_two(serve, "--autoreload", "--workers", "2", *args)
    assert ask_both(server)[0] == {"v1"}
    for version in ("v2", "v3"):
        write_apps(tmp_path, version)
        deadline = time.monotonic() + 60
        while any(ask_both(server)[0] != {version} for _ in range(6)):
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.1)


def test_one_that_fails_at_a_reload_keeps_all(serve, tmp_path):
    write_apps(tmp_path, "v1")
    server = start_two(serve)
    assert ask_both(server)[0] == {"v1"}
    (tmp_path / "two.py").write_text("raise RuntimeError('not today')\n")
    server.send_signal(signal.SIGHUP)
    server.wait_log("not today")
    server.wait_log("the reload failed")
    assert ask_both(server)[0] == {"v1"}
