"""Pyramid."""

import pytest


@pytest.fixture(scope="module")
def server(serve_app):
    return serve_app("pyramid_app:main()", ready="/")


def test_page(client):
    assert client.get("/").text == "<p>Pyramid \u20ac</p>"


def test_form_and_session(client):
    response = client.post("/form", data={"text": "hello"})
    assert response.url == client.base + "/session" and response.json() == {"text": "hello"}


def test_upload(client, small_file):
    assert client.post("/upload", files=small_file).json()["size"] == 18_000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_json(client, method):
    assert client.request(method, "/echo", json=[1, "\u20ac"]).json() == {"method": method, "json": [1, "\u20ac"]}


def test_stream(client):
    assert client.get("/stream").text == "".join("line %d\n" % number for number in range(100))


def test_file(client, interpreter):
    """FileResponse: by wsgi.file_wrapper."""
    assert client.get("/file").content == interpreter
    assert client.head("/file").headers["Content-Length"] == str(len(interpreter))


def test_errors(client, server):
    assert client.get("/broken").status_code == 500
    server.wait_log("RuntimeError: broken in Pyramid")
    assert client.get("/nowhere").status_code == 404
