"""Rules of what answers which requests, and the redirects to one host and one scheme."""

import pytest

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


@pytest.fixture(scope="module")
def server(serve_module, tmp_path_factory):
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


def test_other_methods(server):
    with server.connect() as conn:
        conn.send(b"POST /gone HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
                  b"GET /old/x HTTP/1.1\r\nHost: x\r\n\r\n")  # fmt: skip
        assert conn.read_response().body == b"It was here.\n"
        assert conn.read_response().status == 301
        conn.send(b"POST /users/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert conn.read_response().status == 200


def test_a_hostile_path_is_bounded(server):
    assert server.get("/" + "a" * 4000 + "!").status in (200, 400)


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
    ],
)
def test_mistakes_are_explained(serve, tmp_path, row, said):
    server = serve(APP, "--route", row, start=False).spawn()
    assert server.wait() == 1
    assert said in server.log()
