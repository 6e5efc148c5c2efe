"""stoker without a front end, with the configuration of docs/without-nginx.md."""

import gzip

import pytest

from tests.fronts import fronts
from tests.fronts.fronts import CLIENT, HOST
from tests.lib.server import Server

STYLE = "body { color: black }\n" * 100


@pytest.fixture(scope="module")
def site(where, certificate):
    folder = where / "alone"
    challenge = folder / "acme" / ".well-known" / "acme-challenge"
    for path in (folder / "static", challenge):
        path.mkdir(parents=True)
    (folder / "static" / "site.css").write_text(STYLE)
    (folder / "static" / "site.css.gz").write_bytes(gzip.compress(STYLE.encode()))
    (folder / "static" / ".secret").write_text("hidden")
    (challenge / "token").write_text("proof")
    plain, tls = fronts.ports(2)
    text = fronts.substitute(
        fronts.block("without-nginx.md", "Configuration", "toml"),
        {
            "mysite.wsgi": "frontsite",
            ":80": "127.0.0.1:%d" % plain,
            "https://:443": "https://127.0.0.1:%d" % tls,
            "/etc/letsencrypt/live/example.org/fullchain.pem": str(certificate[0]),
            "/etc/letsencrypt/live/example.org/privkey.pem": str(certificate[1]),
            "/srv/mysite/": "%s/" % folder,
        },
    )
    (folder / "stoker.toml").write_text(text)
    server = Server(
        None,
        ["--config", folder / "stoker.toml", "--workers", "1"],
        cwd=fronts.ROOT / "tests" / "fronts",
        bind=None,
        logdir=folder,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    server.address = ("127.0.0.1", plain)
    server.start()
    yield fronts.Road("alone", plain, tls)
    server.stop()


def test_redirects(site):
    response = site.get("/a?b=c")
    assert (response.status, response.header("location")) == (301, "https://example.org/a?b=c")
    assert site.post("/a", b"x").status == 308
    response = site.get("/a?b=c", fields={"Host": "www.example.org"}, tls=True)
    assert (response.status, response.header("location")) == (301, "https://example.org/a?b=c")


def test_application(site):
    fields = {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1", "X-Forwarded-Proto": "http"}
    response = site.get("/tell?x=1", fields=fields, tls=True)
    found = response.json()
    assert (found["scheme"], found["secure"], found["address"]) == ("https", True, CLIENT)
    assert found["absolute"] == "https://%s/tell?x=1" % HOST
    assert response.header("strict-transport-security") == "max-age=31536000"
    assert response.header("x-content-type-options") == "nosniff"


def test_files(site):
    response = site.get("/static/site.css", tls=True)
    assert (response.status, response.text) == (200, STYLE)
    assert response.header("content-type").startswith("text/css")
    assert "max-age=604800" in response.header("cache-control")
    assert "ccept-" in response.header("vary")
    again = site.get("/static/site.css", fields={"If-None-Match": response.header("etag")}, tls=True)
    assert (again.status, again.body) == (304, b"")
    small = site.get("/static/site.css", fields={"Accept-Encoding": "gzip"}, tls=True)
    assert small.header("content-encoding") == "gzip"
    assert gzip.decompress(small.body).decode() == STYLE
    part = site.get("/static/site.css", fields={"Range": "bytes=5-9"}, tls=True)
    assert (part.status, part.text) == (206, STYLE[5:10])
    for path in ("/static/gone.css", "/static/.secret", "/static/%2e%2e/stoker.toml", "/static/..%2fstoker.toml"):
        assert site.get(path, tls=True).status in (400, 403, 404), path


def test_compression(site):
    fields = {"Accept-Encoding": "gzip", "X-Test-Long": "a" * 3000}
    response = site.get("/tell", fields=fields, tls=True)
    assert response.header("content-encoding") == "gzip"
    assert b"a" * 3000 in gzip.decompress(response.body)


def test_what_is_not_redirected(site):
    response = site.get("/.well-known/acme-challenge/token")
    assert (response.status, response.body) == (200, b"proof")
    assert site.get("/health/ready").status == 200


def test_plain_http_on_the_tls_port(site):
    response = fronts.Road("plain", site.tls).get("/")
    assert response.status == 400 and b"TLS" in response.body.upper().replace(b"HTTPS", b"TLS")
