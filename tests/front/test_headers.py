"""Fields of responses, by rules."""

import pytest

APP = '''
def app(environ, start_response):
    status = environ["QUERY_STRING"].replace("_", " ") or "200 OK"
    start_response(status, [("X-Powered-By", "us"), ("x-frame-options", "SAMEORIGIN"),
                            ("Cache-Control", "public")])
    return [b"x"]
'''


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module(
        APP,
        "--header", "X-Frame-Options: DENY",
        "--header", "Server: hidden",
        "--header", "prefix=/api status=4xx default='Cache-Control: no-store' remove=X-Powered-By",
        "--header", "prefix=/api add='Link: </a>' add='Link: </b>'",
        "--route", "path=/nothing return=404",
    )  # fmt: skip


def test_for_all_responses(server):
    for target in ("/", "/nothing"):
        response = server.get(target)
        assert response.all("x-frame-options") == ["DENY"]
        assert response.all("server") == ["hidden"]
    with server.connect() as conn:
        conn.send(b"BAD\r\n\r\n")
        assert conn.read_response().all("x-frame-options") == ["DENY"]


def test_by_path_and_status(server):
    response = server.get("/api/x?404_No")
    assert response.header("x-powered-by") is None
    assert response.header("cache-control") == "public"
    assert server.get("/x?404_No").header("x-powered-by") == "us"
    response = server.get("/api/x")
    assert response.all("link") == ["</a>", "</b>"]
    assert response.header("cache-control") == "public"
    assert server.get("/").header("link") is None


@pytest.mark.parametrize("field", ["Content-Length: 3", "connection: close", "no colon", "a=b: c"])
def test_mistakes(serve, field):
    server = serve(APP, "--header", field, start=False).spawn()
    assert server.wait() == 1
    assert "header = '%s'" % field in server.log()
