"""Several applications in one server."""

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
