"""Zope, which PEP 333 names: an instance of its own, its management pages, its object database."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def shape():
    return ("-w", "1", "-t", "3")  # a file storage belongs to one process


@pytest.fixture(scope="module")
def server(serve_app, tmp_path_factory):
    instance = tmp_path_factory.mktemp("zope") / "instance"
    script = Path(sys.executable).parent / "mkwsgiinstance"
    subprocess.run([str(script), "-d", str(instance), "-u", "admin:secret"], check=True)
    return serve_app("zope_app:app", env={"ZOPE_INSTANCE": str(instance)}, ready="/")


ADMIN = ("admin", "secret")


def test_front_page(client):
    assert "Zope" in client.get("/").text


def test_the_manager_needs_a_password(client):
    response = client.get("/manage_main")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("basic ")
    assert client.get("/manage_main", auth=("admin", "wrong")).status_code == 401
    assert client.get("/manage_main", auth=ADMIN).status_code == 200


def test_folders_pages_and_files(client):
    response = client.post("/manage_addFolder", data={"id": "folder", "title": "t"}, auth=ADMIN)
    assert response.status_code == 200
    assert client.get("/folder/manage_main", auth=ADMIN).status_code == 200
    add = "/folder/manage_addProduct/PageTemplates/manage_addPageTemplate"
    template = "<p tal:content=\"python: 6 * 7\">x</p><i tal:content=\"request/REMOTE_ADDR\"/>"
    client.post(add, data={"id": "page", "title": "t", "text": template, "submit": "Add"}, auth=ADMIN)
    client.post(
        "/folder/page/pt_edit", data={"text": template, "content_type": "text/html"}, auth=ADMIN
    )
    assert "<p>42</p>" in client.get("/folder/page").text
    content = bytes(range(256)) * 8000
    client.post(
        "/folder/manage_addProduct/OFSP/manage_addFile",
        data={"id": "file", "title": "t"},
        files={"file": ("name.bin", content, "application/octet-stream")},
        auth=ADMIN,
    )
    assert client.get("/folder/file").content == content
    part = client.get("/folder/file", headers={"Range": "bytes=256-511"})
    assert (part.status_code, part.content) == (206, bytes(range(256)))
    assert client.post("/manage_delObjects", data={"ids:list": "folder"}, auth=ADMIN).ok
    assert client.get("/folder").status_code == 404


def test_errors(client):
    assert client.get("/nowhere").status_code == 404


def test_webdav(client):
    response = client.request("OPTIONS", "/", auth=ADMIN)
    assert "PROPFIND" in response.headers["Allow"]
    response = client.request("PROPFIND", "/", headers={"Depth": "1"}, auth=ADMIN)
    assert response.status_code == 207 and "multistatus" in response.text
