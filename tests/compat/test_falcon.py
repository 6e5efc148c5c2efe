"""Falcon."""

import pytest


@pytest.fixture(scope="module")
def server(serve_app):
    return serve_app("falcon_app:app", ready="/media")


def test_media(client):
    found = client.get("/media?a=b&a=c").json()
    assert found == {"falcon": {"a": ["b", "c"]}, "scheme": "http", "remote": "127.0.0.1"}
    response = client.post("/media", json={"x": "\u20ac"})
    assert (response.status_code, response.json()) == (201, {"received": {"x": "\u20ac"}})


def test_upload(client, small_file):
    (found,) = client.post("/upload", files=small_file).json()
    assert found["size"] == 18_000


@pytest.mark.parametrize("size", [0, 1, 70_000, 2_000_000])
def test_raw(client, size):
    data = b"\xff" * size
    assert client.put("/raw", data=data).content == data


def test_stream_and_file(client, interpreter):
    assert client.get("/stream").text == "".join("line %d\n" % number for number in range(100))
    assert client.get("/file").content == interpreter


def test_errors(client, server):
    assert client.get("/broken").status_code == 500
    server.wait_log("RuntimeError: broken in Falcon")
    assert client.get("/nowhere").status_code == 404
    assert client.delete("/media").status_code == 405
