"""Django: admin, CSRF, uploads, streams, files, the ORM on SQLite."""

import os
import re
import subprocess
import sys
import threading

import pytest

from tests.compat.conftest import APPS, Client

PASSWORD = "pass word"


@pytest.fixture(scope="module")
def server(serve_app, tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    env = {"SITE_DIR": str(site), "DJANGO_SETTINGS_MODULE": "djangosite.settings"}
    code = (
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "call_command('migrate', run_syncdb=True, verbosity=0)\n"
        "from django.contrib.auth.models import User\n"
        "User.objects.create_superuser('admin', 'a@example.org', %r)\n" % PASSWORD
    )
    subprocess.run([sys.executable, "-B", "-c", code], cwd=APPS, env={**os.environ, **env}, check=True)
    return serve_app("djangosite.wsgi", env=env, ready="/")


def token(page):
    return re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page).group(1)


def log_in(client):
    page = client.get("/admin/")
    assert "/admin/login/" in page.url
    fields = {"username": "admin", "password": PASSWORD, "csrfmiddlewaretoken": token(page.text)}
    response = client.post("/admin/login/?next=/admin/", data={**fields, "next": "/admin/"}, headers={"Referer": page.url})
    assert response.status_code == 200 and "Site administration" in response.text


def test_admin(client):
    log_in(client)
    page = client.get("/admin/djangosite/note/add/")
    fields = {"text": "written in the admin", "csrfmiddlewaretoken": token(page.text)}
    response = client.post("/admin/djangosite/note/add/", data=fields)
    assert "was added successfully" in response.text
    assert "written in the admin" in client.get("/admin/djangosite/note/").text
    page = client.get("/admin/")
    response = client.post("/admin/logout/", data={"csrfmiddlewaretoken": token(page.text)})
    assert "Logged out" in response.text
    assert "/admin/login/" in client.get("/admin/").url


def test_wrong_password(client):
    page = client.get("/admin/login/")
    fields = {"username": "admin", "password": "x", "csrfmiddlewaretoken": token(page.text)}
    assert "Please enter the correct" in client.post("/admin/login/", data=fields).text


def test_form_with_csrf(client):
    page = client.get("/notes").text
    response = client.post("/notes", data={"text": "n\u00f6te <1>", "csrfmiddlewaretoken": token(page)})
    assert response.url.endswith("/notes") and "n\u00f6te &lt;1&gt;" in response.text


def test_form_without_its_token(client):
    assert client.post("/notes", data={"text": "forged"}).status_code == 403
    assert "forged" not in client.get("/notes").text


def test_upload_of_50_mb(client, upload_of_50_mb):
    data, digest = upload_of_50_mb
    found = client.post("/upload", files={"file": ("big.bin", data)}).json()
    assert found == {"name": "big.bin", "size": len(data), "sha256": digest}


def test_raw_body_of_50_mb(client, upload_of_50_mb):
    data, digest = upload_of_50_mb
    assert client.post("/raw", data=data).json() == {"size": len(data), "sha256": digest}


def test_stream(client):
    response = client.get("/stream", stream=True)
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.text == "".join("line %d\n" % number for number in range(1000))


def test_file(client, interpreter):
    response = client.get("/file")
    assert response.content == interpreter
    assert response.headers["Content-Length"] == str(len(interpreter))
    assert 'filename="python"' in response.headers["Content-Disposition"]


def test_errors(client, server):
    assert client.get("/broken").status_code == 500
    server.wait_log("RuntimeError: broken in Django")
    assert client.get("/nowhere").status_code == 404


def test_append_slash(client):
    response = client.get("/admin", allow_redirects=False)
    assert (response.status_code, response.headers["Location"]) == (301, "/admin/")


def test_url(client):
    assert client.get("/url").json() == {"url": client.base + "/url", "secure": False}


def test_the_orm_under_load(client, server):
    """Each thread has its own connection to the database, and keeps it."""
    before = client.get("/count").json()["notes"]
    errors = []

    def write(number):
        try:
            with Client(server) as session:
                page = session.get("/notes").text
                for turn in range(5):
                    fields = {"text": "%d-%d" % (number, turn), "csrfmiddlewaretoken": token(page)}
                    assert session.post("/notes", data=fields).status_code == 200
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert client.get("/count").json()["notes"] == before + 30
