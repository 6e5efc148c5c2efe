"""Webware for Python, which PEP 333 names: a working directory, servlets, sessions, its examples."""

import shutil
import subprocess
import sys
import xmlrpc.client

import pytest

from tests.compat.conftest import APPS


@pytest.fixture(scope="module")
def shape():
    return ("-w", "1", "-t", "3")  # its sessions are in memory


@pytest.fixture(scope="module")
def server(serve_app, tmp_path_factory):
    work = tmp_path_factory.mktemp("webware") / "work"
    subprocess.run([sys.executable, "-m", "webware.Scripts.MakeAppWorkDir", str(work)], check=True)
    shutil.copy(APPS / "webware_servlet.py", work / "MyContext" / "Stoker.py")
    return serve_app("Scripts/WSGIScript.py", cwd=work, ready="/")


def test_pages(client):
    assert client.get("/").status_code == 200
    assert "Webware" in client.get("/Examples/Welcome").text


def test_session_and_form(client):
    assert "visits 1<" in client.get("/Stoker").text
    response = client.post("/Stoker", data={"text": "hello"})
    assert "visits 2<" in response.text and "field hello<" in response.text


def test_upload(client):
    response = client.post("/Stoker", files={"file": ("name.txt", b"x" * 300_000)})
    assert "file name.txt 300000<" in response.text


def test_examples(client):
    for name in ("Simple", "CountVisits", "RequestInformation", "ShowTime", "View?filename=Simple.py"):
        response = client.get("/Examples/" + name)
        assert response.status_code == 200, name


def test_static_file(client):
    response = client.get("/Examples/favicon.ico")
    assert response.status_code == 200 and len(response.content) > 100


def test_xmlrpc(server):
    with xmlrpc.client.ServerProxy(server.url + "/Examples/XMLRPCExample") as proxy:
        assert proxy.multiply(6, 7) == 42


def test_errors(client):
    assert client.get("/Stoker?broken=1").status_code == 500
    assert client.get("/nowhere").status_code == 404
