"""The documents as they are written: every stoker.toml passes --check, every site is served.

The other configurations of the pages on front ends are those of the roads (conftest.py).
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.fronts import fronts
from tests.lib.server import Server, test_command

APPLICATION = '''
def application(environ, start_response):
    start_response("200 OK", [])
    return []

app = api = admin = application

def create_app():
    return application
'''
# Paths of a real machine, each of which is a folder below the test's directory.
PLACES = ("/srv/", "/run/", "/etc/", "/var/log/", "/var/lib/")
MODULES = ("mysite/wsgi", "mysite/api", "main", "app", "api", "admin", "shop", "blog", "reports")
FILES = ("public/robots.txt", "dist/index.html", "media/report.pdf", "exports/table.csv")


def configurations():
    """(page, number, text) of every block of TOML, but for those that are a part of a file."""
    found = []
    names = ["README.md"] + ["docs/" + path.name for path in sorted((fronts.ROOT / "docs").glob("*.md"))]
    for name in names:
        number = 0
        for _, language, text in fronts.blocks(str(Path("..") / name)):
            if language == "toml":
                found.append(pytest.param(text, id="%s-%d" % (Path(name).stem, number)))
                number += 1
    return found


def settle(text, where, certificate):
    """Puts the paths of a configuration below `where`, and makes what it expects to find there."""
    for name in MODULES:
        path = where / (name + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(APPLICATION)
    for name in FILES:
        (where / name).parent.mkdir(exist_ok=True)
        (where / name).write_text("")
    for path in set(re.findall(r"[\"'=:]((?:%s)[^\"'?,;\s]*)" % "|".join(PLACES), text)):
        target = where / path[1:]
        if path.endswith(".pem"):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(certificate[1 if "key" in path else 0].read_bytes())
        elif path.startswith(("/run/", "/var/log/")) or target.suffix:
            target.parent.mkdir(parents=True, exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
    for place in PLACES:
        text = re.sub(r"(?<=[\"'=:])%s" % re.escape(place), "%s%s" % (where, place), text)
    return text


@pytest.mark.parametrize("text", configurations())
def test_configuration_passes_the_check(text, tmp_path, certificate):
    text = settle(text, tmp_path, certificate)
    (tmp_path / "stoker.toml").write_text(text)
    env = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_C")}
    done = subprocess.run(
        [*test_command(), "--config", "stoker.toml", "--check"]
        + ([] if re.search(r"^app = |mount|\[\[?app", text, re.MULTILINE) else ["app:app"]),
        cwd=tmp_path,
        env=dict(env, PYTHONDONTWRITEBYTECODE="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        text=True,
    )
    assert done.returncode == 0, text + done.stdout


SENDER = """
def app(environ, start_response):
    name, _, value = environ["QUERY_STRING"].partition("=")
    start_response("200 OK", [(name, value)])
    return []
"""


def test_files_that_the_application_names(tmp_path, certificate):
    """The block serves the files of the sentences below it, and none beside them."""
    text = fronts.block("static.md", "Files that the application names", "toml")
    (tmp_path / "stoker.toml").write_text(settle(text, tmp_path, certificate))
    (tmp_path / "app.py").write_text(SENDER)
    (tmp_path / "media" / "report.pdf").write_text("media")
    (tmp_path / "exports" / "table.csv").write_text("a,b")
    with Server(None, ["--config", "stoker.toml"], cwd=tmp_path) as server:
        assert server.get("/?X-Sendfile=%s/media/report.pdf" % tmp_path).body == b"media"
        response = server.get("/?X-Accel-Redirect=/protected/report.pdf")
        assert (response.body, response.header("content-type")) == (b"media", "application/pdf")
        assert response.header("x-accel-redirect") is None
        assert server.get("/?X-Sendfile=table.csv", headers={"Range": "bytes=0-0"}).body == b"a"
        assert server.get("/?X-Sendfile=%s/app.py" % tmp_path).status == 403
        assert server.get("/?X-Accel-Redirect=/protected/table.csv").status == 404


def test_site_behind_nginx(where, backend, certificate):
    """The whole block for HTTP, the redirect and the folder of static files included."""
    folder = where / "site"
    plain, tls = fronts.ports(2)
    (where / "static").mkdir(exist_ok=True)
    (where / "static" / "site.css").write_text("body {}\n")
    text = fronts.substitute(
        fronts.block("behind-nginx.md", "HTTP with keep-alive", "nginx"),
        {
            "unix:/run/mysite/stoker.sock": "unix:%s" % backend.unix,
            "/etc/ssl/example.org/fullchain.pem": str(certificate[0]),
            "/etc/ssl/example.org/privkey.pem": str(certificate[1]),
            "/srv/mysite/static/": "%s/static/" % where,
            "listen 80": "listen 127.0.0.1:%d" % plain,
            "listen 443 ssl": "listen 127.0.0.1:%d ssl" % tls,
        },
    )
    front = fronts.nginx(folder, [text], [plain, tls])
    try:
        road = fronts.Road("site", plain, tls)
        response = road.get("/a?b=c")
        assert (response.status, response.header("location")) == (301, "https://example.org/a?b=c")
        assert road.get("/static/site.css", tls=True).body == b"body {}\n"
        assert road.get("/", tls=True).body == b"front"
        assert road.get("/tell", tls=True).json()["scheme"] == "https"
    finally:
        front.stop()
