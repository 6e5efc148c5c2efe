"""Django and Flask mounted in one server: each builds its URLs below its own prefix and knows
nothing of the other."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.compat.conftest import APPS, Client

PASSWORD = "pass word"


@pytest.fixture(scope="module")
def server(serve_app, tmp_path_factory):
    pytest.importorskip("flask")
    pytest.importorskip("django")
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
    return serve_app(
        None, "--mount", "/site=djangosite.wsgi", "--mount", "/tools/flask=flask_app:app",
        "--mount", "flask.example.com=flask_app:app", env=env, ready="/site/",
    )  # fmt: skip


def test_links_of_flask(client):
    assert client.base + "/tools/flask/form" in client.get("/tools/flask/").text
    host = {"Host": "flask.example.com"}
    assert '"http://flask.example.com/form"' in client.get("/", headers=host).text
    response = client.post("/tools/flask/form", data={"text": "x"})
    assert response.url.endswith("/tools/flask/stored") and response.json()["text"] == "x"


def test_links_of_django(client):
    assert client.get("/site/").text == "Django"
    assert client.get("/site/url?a=b").json()["url"] == client.base + "/site/url?a=b"
    page = client.get("/site/admin/")
    assert page.url.endswith("/site/admin/login/?next=/site/admin/")
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text).group(1)
    fields = {"username": "admin", "password": PASSWORD, "csrfmiddlewaretoken": token, "next": "/site/admin/"}
    page = client.post(page.url[len(client.base) :], data=fields, headers={"Referer": page.url})
    assert page.url.endswith("/site/admin/") and "Site administration" in page.text
    assert '"/site/admin/djangosite/note/add/"' in page.text
    # APPEND_SLASH leads to a path below the prefix.
    response = client.get("/site/admin", allow_redirects=False)
    assert (response.status_code, response.headers["Location"]) == (301, "/site/admin/")


def test_what_is_nobodys(client):
    for path in ("/", "/sites", "/tools", "/tools/flasks", "/url"):
        response = client.get(path)
        assert (response.status_code, response.text) == (404, "404 Not Found\n")


def test_both_at_once(server):
    def ask(number):
        with Client(server) as client:
            for turn in range(10):
                if (number + turn) % 2:
                    assert client.get("/site/url").json()["url"].endswith("/site/url")
                else:
                    assert client.get("/tools/flask/stream?word=w").text.startswith("w 0\nw 1\n")
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(6)))


def test_a_failure_of_one_is_not_the_others(server, client):
    assert client.get("/site/broken").status_code == 500
    assert client.get("/tools/flask/").status_code == 200
