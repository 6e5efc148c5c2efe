"""Quixote, which PEP 333 names: the adapter of its own time."""

import pytest


@pytest.fixture(scope="module")
def shape():
    return ("-w", "1")  # its publisher refuses threads, its sessions are in memory


@pytest.fixture(scope="module")
def server(serve_app):
    return serve_app("quixote_app:app", ready="/")


def test_pages(client):
    assert "Quixote" in client.get("/").text
    assert client.get("/numbers/42").text == "number 42"
    assert client.get("/plain").text == "x" * 200_000
    assert client.head("/plain").headers["X-Method"] == "HEAD"


def test_form_and_session(client):
    assert client.post("/form", data={"text": "alice"}).text == "user alice"
    assert client.get("/session").text == "user alice"
    client.get("/leave")
    assert client.get("/session").text == "user None"


def test_upload(client):
    response = client.post("/upload", files={"file": ("name.txt", b"x" * 100_000)})
    assert response.text == "name.txt 100000"


def test_errors(client, server):
    assert client.get("/broken").status_code == 500
    server.wait_log("RuntimeError: broken in Quixote")
    assert client.get("/nowhere").status_code == 404
