"""Flask: templates, sessions, forms, uploads, streams, files."""

import pytest


@pytest.fixture(scope="module")
def server(serve_app):
    return serve_app("flask_app:app", ready="/")


def test_page(client):
    response = client.get("/")
    assert response.status_code == 200
    assert "&lt;escaped&gt; \u20ac" in response.text
    assert client.base + "/form" in response.text


def test_form_and_session(client):
    response = client.post("/form", data={"text": "hello \u20ac"})
    assert response.url.endswith("/stored") and response.history[0].status_code == 302
    assert response.json() == {"text": "hello \u20ac", "messages": ["stored"]}
    assert client.get("/stored").json() == {"text": "hello \u20ac", "messages": []}


def test_upload_of_50_mb(client, upload_of_50_mb):
    data, digest = upload_of_50_mb
    found = client.post("/upload", files={"file": ("big.bin", data)}).json()
    assert found == {"name": "big.bin", "size": len(data), "sha256": digest}


def test_chunked_upload(client):
    response = client.post("/json", data=iter([b'{"a": ', b"[1, 2]}"]), headers={"Content-Type": "application/json"})
    assert response.json() == {"a": [1, 2]}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_json(client, method):
    value = {"a": [1, 2.5, None, True, "\u20ac" * 10_000]}
    assert client.request(method, "/json", json=value).json() == value


def test_stream(client):
    response = client.get("/stream", params={"word": "w"}, stream=True)
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.text == "".join("w %d\n" % number for number in range(100))


def test_file(client, interpreter):
    response = client.get("/file")
    assert response.content == interpreter
    assert response.headers["Content-Length"] == str(len(interpreter))
    again = client.get("/file", headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_range(client):
    response = client.get("/memory", headers={"Range": "bytes=2-5"})
    assert (response.status_code, response.content) == (206, b"2345")
    assert response.headers["Content-Range"] == "bytes 2-5/10"


def test_errors(client, server):
    assert client.get("/broken").status_code == 500
    server.wait_log("RuntimeError: broken in Flask")
    for code in (400, 403, 404, 413, 429, 503):
        assert client.get("/abort/%d" % code).status_code == code
    assert client.get("/nowhere").status_code == 404
    assert client.delete("/").status_code == 405


def test_methods_without_a_body(client):
    assert client.head("/").headers["Content-Length"] != "0"
    assert client.get("/empty").status_code == 204
    assert "GET" in client.options("/").headers["Allow"]


def test_url(client):
    found = client.get("/url").json()
    assert found["url"] == client.base + "/url" and found["remote"] == "127.0.0.1"
    found = client.get("/url", headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "1.2.3.4"}).json()
    assert found["secure"] is True and found["remote"] == "1.2.3.4"
    assert found["url"].startswith("https://")


def test_paths(client):
    assert client.get("/a%20b/%E2%82%AC/tail").json() == "a b/\u20ac"
    assert client.get("/a//b/tail", allow_redirects=False).status_code in (200, 308)
