"""The standard library's judge between server and application: wsgiref.validate."""

import os

import pytest

from tests.front.raw import chunked, get, post

APP = r'''
import warnings

from wsgiref.validate import validator

warnings.simplefilter("error")


def echo(environ, start_response):
    body = environ["wsgi.input"].read(-1)
    path = environ["PATH_INFO"]
    fields = [("Content-Type", "application/octet-stream")]
    if path == "/none":
        start_response("204 No Content", [])
        return []
    if path == "/same":
        start_response("304 Not Modified", [])
        return []
    if path == "/length":
        fields.append(("Content-Length", str(len(body))))
    if path == "/lines":
        body = b"".join(body.splitlines(True))
    write = start_response("200 OK", fields)
    environ["wsgi.errors"].write("seen by the validator\n")
    environ["wsgi.errors"].flush()
    if path == "/write":
        write(body)
        return []
    if path == "/stream":
        return (body[at : at + 1000] for at in range(0, len(body), 1000))
    return [body]


app = validator(echo)
'''


@pytest.fixture(scope="module", params=["-t1", "-t2", "--body=stream"])
def server(request, serve_module):
    server = serve_module(APP, "-w1", request.param)
    return server


@pytest.mark.parametrize("path", ["/", "/length", "/stream", "/write", "/none", "/same", "/a%20b?c=d"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize(
    "framing, version",
    [("none", "1.1"), ("length", "1.1"), ("chunked", "1.1"), ("none", "1.0"), ("length", "1.0")],
)
def test_validator(server, path, method, framing, version):
    body = os.urandom(5000)
    if framing == "none":
        body = b""
        data = get("", path, version)
    elif framing == "length":
        data = post("Content-Length: %d\r\n" % len(body), body, path, version)
    else:
        data = chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)).replace(b"/echo", path.encode(), 1)
    data = method.encode() + data[data.index(b" ") :]
    (response,) = server.send_raw(data, methods=[method])
    assert response.status == {"/none": 204, "/same": 304}.get(path, 200), server.log()[-2000:]
    if path in ("/none", "/same") or method == "HEAD":
        body = b""
    assert response.body == body


def test_options_of_the_server(server):
    (response,) = server.send_raw("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
    assert response.status == 200, server.log()[-2000:]


@pytest.mark.parametrize("size", [0, 1, 100_000, 2_000_000])
def test_large_bodies(server, size):
    body = os.urandom(size)
    for path in ("/", "/stream", "/write"):
        assert server.post(path, body).body == body


def test_the_log_has_no_complaint(server):
    server.wait_log("seen by the validator")
    assert "AssertionError" not in server.log() and "Warning" not in server.log()
