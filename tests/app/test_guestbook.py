"""The guestbook of examples/, as a visitor, an administrator and a script use it."""

import csv
import io
import json
import re
import sqlite3
import threading
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

import pytest

pytest.importorskip("flask")
pytestmark = pytest.mark.smoke

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "guestbook"
PASSWORD = "correct horse"


class Browser:
    """Keeps cookies and sends the CSRF token of the last page, as a browser with a form would."""

    def __init__(self, server):
        self.server = server
        self.cookies = {}
        self.page = None

    def send(self, method, path, form=None, headers=()):
        headers = list(headers)
        if self.cookies:
            headers.append(("Cookie", "; ".join("%s=%s" % pair for pair in self.cookies.items())))
        body = None
        if form is not None:
            body = urlencode(form).encode()
            headers.append(("Content-Type", "application/x-www-form-urlencoded"))
        response = self.server.request(method, path, body, headers)
        for value in response.all("set-cookie"):
            for name, morsel in SimpleCookie(value).items():
                self.cookies[name] = morsel.value
        if (response.header("content-type") or "").startswith("text/html"):
            self.page = response
        return response

    def get(self, path):
        return self.send("GET", path)

    def submit(self, path, **fields):
        """Posts a form, and follows the redirect that a success ends in."""
        token = re.search(r'name="csrf" value="([^"]+)"', self.page.text).group(1)
        response = self.send("POST", path, dict(fields, csrf=token))
        if response.status == 303:
            return self.get(response.header("location"))
        return response


@pytest.fixture(scope="module")
def server(serve_module, tmp_path_factory):
    data = tmp_path_factory.mktemp("guestbook")
    server = serve_module(
        "guestbook:create_app()",
        "--workers",
        "2",
        "--threads",
        "4",
        cwd=EXAMPLE,
        env={"GUESTBOOK_DATA": str(data), "GUESTBOOK_ADMIN_PASSWORD": PASSWORD},
        ready="/healthz",
    )
    server.data = data
    return server


@pytest.fixture
def browser(server):
    browser = Browser(server)
    assert browser.get("/").status == 200
    return browser


def post_json(server, **fields):
    return server.post(
        "/api/entries",
        json.dumps(fields).encode(),
        headers={"Content-Type": "application/json"},
    )


def test_page_and_static_files(server, browser):
    page = browser.page
    assert page.header("content-type") == "text/html; charset=utf-8"
    assert "frame-ancestors 'none'" in page.header("content-security-policy")
    style = re.search(r'href="(/static/[^"]+\.css)"', page.text).group(1)
    sheet = server.get(style)
    assert sheet.status == 200
    assert sheet.body == (EXAMPLE / "guestbook" / "static" / "style.css").read_bytes()
    again = server.get(style, headers={"If-None-Match": sheet.header("etag")})
    assert (again.status, again.body) == (304, b"")
    part = server.get(style, headers={"Range": "bytes=0-9"})
    assert (part.status, part.body) == (206, sheet.body[:10])


def test_signing_shows_escaped_text_and_remembers_the_name(browser):
    page = browser.submit("/", name="Zoë <b>", message="Grüße & <script>", mood="happy")
    assert page.status == 200
    assert "Thank you, Zoë &lt;b&gt;!" in page.text
    assert "Grüße &amp; &lt;script&gt;" in page.text
    page = browser.get("/")
    assert 'value="Zoë &lt;b&gt;"' in page.text
    assert "Thank you" not in page.text  # a flash message is shown once


def test_wrong_forms_are_refused_and_kept(browser):
    page = browser.submit("/", name="", message="kept words", mood="angry")
    assert page.status == 422
    assert "The name is missing." in page.text and "There is no such mood." in page.text
    assert "kept words</textarea>" in page.text
    assert browser.submit("/", name="n" * 41, message="x").status == 422


def test_forms_need_the_token_of_the_session(server, browser):
    form = {"name": "Eve", "message": "forged"}
    assert browser.send("POST", "/", form).status == 400
    assert browser.send("POST", "/", dict(form, csrf="wrong")).status == 400
    other = Browser(server)
    other.get("/")
    token = re.search(r'name="csrf" value="([^"]+)"', other.page.text).group(1)
    assert browser.send("POST", "/", dict(form, csrf=token)).status == 400
    assert "forged" not in browser.get("/").text


def test_login_and_logout(browser):
    browser.get("/login")
    page = browser.submit("/login", name="Grace", remember="1")
    assert "Welcome, Grace!" in page.text and "Grace ✕" in page.text
    page = browser.submit("/logout")
    assert "Good bye!" in page.text and "Grace" not in page.text


def test_only_the_administrator_deletes(server, browser):
    number = post_json(server, name="Spam", message="buy").json()["id"]
    assert browser.submit("/entries/%d/delete" % number).status == 403
    browser.get("/admin/login")
    assert browser.submit("/admin/login", password="guess").status == 403
    page = browser.submit("/admin/login", password=PASSWORD)
    assert "You may delete entries now." in page.text
    page = browser.submit("/entries/%d/delete" % number)
    assert "Entry %d was deleted." % number in page.text
    assert browser.get("/entries/%d" % number).status == 404


def test_backup_is_a_database(server, browser, tmp_path):
    assert server.get("/backup").status == 302
    post_json(server, name="Backup", message="saved")
    browser.get("/admin/login")
    browser.submit("/admin/login", password=PASSWORD)
    response = browser.get("/backup")
    assert response.status == 200
    assert response.header("content-disposition") == "attachment; filename=guestbook.sqlite3"
    copy = tmp_path / "copy.sqlite3"
    copy.write_bytes(response.body)
    connection = sqlite3.connect(copy)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = connection.execute("SELECT count(*) FROM entry WHERE name = 'Backup'").fetchone()
    finally:
        connection.close()
    assert found[0] >= 1


def test_errors_are_pages_or_json(server):
    page = server.get("/no/such/page")
    assert page.status == 404 and "404 Not Found" in page.text
    assert server.get("/?page=9999").status == 404
    assert server.get("/api/entries/999999").json()["error"] == "Not Found"
    assert server.request("DELETE", "/").status == 405
    big = server.post(
        "/",
        b"message=" + b"x" * 100_000,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert big.status == 413


def test_api(server):
    created = post_json(server, name="Ada", message="Hello", mood="curious")
    assert created.status == 201
    entry = created.json()
    assert created.header("location") == entry["url"]
    assert entry["url"] == "%s/entries/%d" % (server.url, entry["id"])
    assert server.get("/api/entries/%d" % entry["id"]).json() == entry
    assert server.get("/api/entries?size=1").json()["entries"] == [entry]
    assert post_json(server, name="", message="x").status == 422
    assert server.post("/api/entries", b"name=x").status == 415
    bad = server.post("/api/entries", b"{", headers={"Content-Type": "application/json"})
    assert bad.status == 400


def test_paging_and_export_agree(server):
    # More text than one buffer of the export holds, so that it streams.
    for number in range(60):
        assert post_json(server, name="=formula", message="%d " % number + "x" * 500).status == 201
    total = server.get("/api/entries").json()["total"]
    seen = []
    page = 1
    while True:
        entries = server.get("/api/entries?size=25&page=%d" % page).json()["entries"]
        if not entries:
            break
        seen += [entry["id"] for entry in entries]
        page += 1
    assert len(seen) == total and seen == sorted(seen, reverse=True)

    assert 'rel="next"' in server.get("/").text and 'rel="prev"' in server.get("/?page=2").text

    export = server.get("/export.csv")
    assert export.framing == "chunked" and len(export.chunks) > 1
    rows = list(csv.DictReader(io.StringIO(export.text, newline="")))
    assert [int(row["id"]) for row in rows] == seen[::-1]
    assert "'=formula" in {row["name"] for row in rows}


def test_many_writers_lose_nothing(server):
    """Two workers of four threads, one database."""
    before = server.get("/api/entries").json()["total"]
    results = []

    def write(writer):
        for number in range(10):
            results.append(post_json(server, name="w%d" % writer, message=str(number)).status)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [201] * 80
    assert server.get("/api/entries").json()["total"] == before + 80


def test_an_old_database_is_migrated(serve, tmp_path):
    path = tmp_path / "data" / "guestbook.sqlite3"
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE entry (
            id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, message TEXT NOT NULL,
            created INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER))
        );
        INSERT INTO entry (name, message) VALUES ('Old', 'from the first version');
        PRAGMA user_version = 1;
        """
    )
    connection.close()
    server = serve(
        "guestbook:create_app()",
        "--workers",
        "4",
        cwd=EXAMPLE,
        env={"GUESTBOOK_DATA": str(path.parent)},
        ready="/healthz",
    )
    [entry] = server.get("/api/entries").json()["entries"]
    assert (entry["name"], entry["mood"]) == ("Old", "")
    assert (path.parent / "admin-password").stat().st_mode & 0o777 == 0o600
