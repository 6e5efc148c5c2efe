"""Bottle."""

import pytest


@pytest.fixture(scope="module")
def server(serve_app):
    return serve_app("bottle_app:app", ready="/")


def test_page(client):
    assert "&lt;Bottle&gt; \u20ac" in client.get("/").text
    assert client.get("/hello/w%C3%B6rld").text == "hello w\u00f6rld"


def test_form_and_signed_cookie(client):
    assert client.post("/form", data={"text": "hello"}).json() == {"text": "hello"}


def test_upload(client, small_file):
    assert client.post("/upload", files=small_file).json()["size"] == 18_000


def test_stream(client):
    assert client.get("/stream").text == "".join("line %d\n" % number for number in range(100))


def test_file(client, interpreter):
    """static_file: by wsgi.file_wrapper, with ranges and conditions."""
    response = client.get("/file")
    assert response.content == interpreter
    part = client.get("/file", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, interpreter[100:200])
    again = client.get("/file", headers={"If-Modified-Since": response.headers["Last-Modified"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head("/file").headers["Content-Length"] == str(len(interpreter))


def test_errors(client, server):
    assert client.get("/broken").status_code == 500
    server.wait_log("RuntimeError: broken in Bottle")
    assert client.get("/nowhere").status_code == 404
