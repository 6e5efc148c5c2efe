"""An ASGI application is told of a request what a WSGI application is told, by whatever road it came."""

import ast
import shutil

import pytest

from tests.front.proxying import v1, v2
from tests.front.test_gateways import changed, parse, scgi, uwsgi
from tests.front.test_proxy import certificate
from tests.fronts.fronts import Client
from tests.lib import fastcgi
from tests.lib.server import Connection, free_port

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")

APP = """
def wsgi(environ, start_response):
    body = repr({key: value for key, value in environ.items() if isinstance(value, str)}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    body = repr({key: scope[key] for key in scope if key != "extensions"}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
GATEWAYS = {"uwsgi": uwsgi, "scgi": scgi, "fastcgi": lambda variables: fastcgi.request(variables, keep=False)}
PROXY = {"": b"", "v1": v1(), "v2": v2(), "v2-ipv6": v2("2001:db8::7", "2001:db8::1")}
# TLS begins behind the header: see the tests of PROXY.
HTTP = [pytest.param(road, header, id="-".join(filter(None, (road, name))))
        for road in ("http", "unix", "https") for name, header in PROXY.items() if not header or road != "https"]
FORWARDED = "X-Forwarded-For: 192.0.2.66\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: www.example.org\r\n"


class Site:
    def __init__(self, serve, where, app):
        self.ports = {name: free_port() for name in ("https", *GATEWAYS)}
        self.path = str(where / (app + ".sock"))
        cert, key = certificate(where)
        binds = ["--bind=%s://127.0.0.1:%d" % pair for pair in self.ports.items()]
        self.server = serve(
            APP, "--bind=unix:" + self.path, *binds, "--tls-cert", str(cert), "--tls-key", str(key), "--workers=1",
            "--interface", app, "--mount", "/mounted=app:" + app, "--proxy-protocol", "optional", app_name="app:" + app,
        )  # fmt: skip

    def connect(self, road, header):
        tls = road == "https"
        address = self.path if road == "unix" else ("127.0.0.1", self.ports.get(road, self.server.port))
        if not header:
            return Client(address, tls=tls)
        conn = Connection(address)
        conn.send(header)
        return conn

    def ask(self, road, header, target, fields=""):
        with self.connect(road, header) as conn:
            conn.send("GET %s HTTP/1.1\r\nHost: example.org\r\n%sConnection: close\r\n\r\n" % (target, fields))
            return ast.literal_eval(conn.read_response().text), conn.sock.getsockname()

    def ask_gateway(self, road, make, variables):
        with self.connect(road, b"") as conn:
            conn.send(make(variables))
            status, _, body = parse(conn.read_to_end())
        assert status == 200
        return ast.literal_eval(body.decode())


@pytest.fixture(scope="module")
def sites(serve_module, tmp_path_factory):
    def start(app, *args, app_name, **kwargs):
        where = tmp_path_factory.mktemp("app")
        (where / "app.py").write_text(app)
        return serve_module(app_name, *args, cwd=where, **kwargs)

    return [Site(start, tmp_path_factory.mktemp("site"), app) for app in ("wsgi", "asgi")]


def text(value):
    """PEP 3333's form of a text."""
    return value.encode("latin-1").decode("utf-8", "replace")


def check(environ, scope, site, road, same_client=True):
    """`same_client`: both requests have come from one port."""
    assert scope["scheme"] == environ["wsgi.url_scheme"]
    assert scope["method"] == environ["REQUEST_METHOD"]
    assert "HTTP/" + scope["http_version"] == environ["SERVER_PROTOCOL"]
    assert scope["root_path"] == text(environ["SCRIPT_NAME"])
    assert scope["path"] == text(environ["SCRIPT_NAME"] + environ["PATH_INFO"])
    assert scope["query_string"] == environ["QUERY_STRING"].encode()
    if not environ["REMOTE_ADDR"]:
        assert scope["client"] is None
    else:
        assert scope["client"][0] == environ["REMOTE_ADDR"] and isinstance(scope["client"][1], int)
        if same_client:
            assert scope["client"][1] == int(environ.get("REMOTE_PORT", 0))
    fields = {name.decode().upper().replace("-", "_"): value.decode() for name, value in scope["headers"]}
    assert {"HTTP_" + name: value for name, value in fields.items() if not name.startswith("CONTENT_")} == {
        name: value for name, value in environ.items() if name.startswith("HTTP_") and name not in ("HTTP_PROXY", "HTTPS")
    }


@pytest.mark.parametrize("target", ["/some%20path/%C3%BC?q=%20x", "/mounted/below%2Fit?", "/mounted", "/"])
@pytest.mark.parametrize("fields", ["", FORWARDED], ids=["", "forwarded"])
@pytest.mark.parametrize("road, header", HTTP)
def test_http(sites, road, header, fields, target):
    (environ, _), (scope, _) = [site.ask(road, header, target, fields) for site in sites]
    check(environ, scope, sites[1], road, same_client=bool(header))
    if header:
        assert list(scope["server"]) == [environ["SERVER_NAME"], int(environ["SERVER_PORT"])]
    elif road == "unix":
        assert scope["server"] == (sites[1].path, None)
    else:
        assert scope["server"] == ("127.0.0.1", sites[1].ports.get(road, sites[1].server.port))


@pytest.mark.parametrize("fields", [[], [("HTTP_X_FORWARDED_FOR", "192.0.2.66"), ("HTTP_X_FORWARDED_PROTO", "http")]],
                         ids=["", "forwarded"])
@pytest.mark.parametrize("changes", [
    [],
    [("SCRIPT_NAME", "/front"), ("REQUEST_URI", "/front/a%20b?x=1")],
    [("PATH_INFO", "/mounted/a b"), ("REQUEST_URI", "/mounted/a%20b?x=1")],
    [("PATH_INFO", "/\xc3\xbc"), ("REQUEST_URI", "/%C3%BC?x=1"), ("QUERY_STRING", "x=1&y=%20")],
    [("REMOTE_ADDR", None), ("REMOTE_PORT", None)],
    [("REMOTE_ADDR", "2001:db8::7"), ("HTTPS", None), ("REQUEST_SCHEME", "http"), ("SERVER_PORT", "80")],
    [("SERVER_NAME", None), ("SERVER_PORT", None)],
], ids=["usual", "script-name", "mounted", "utf-8", "no-client", "ipv6", "no-server"])
@pytest.mark.parametrize("road", ["tcp", "unix"])
@pytest.mark.parametrize("kind", list(GATEWAYS))
def test_gateways(sites, kind, road, changes, fields):
    variables = changed(*changes, *fields)
    environ, scope = [site.ask_gateway("unix" if road == "unix" else kind, GATEWAYS[kind], variables) for site in sites]
    check(environ, scope, sites[1], road, same_client="REMOTE_PORT" in dict(variables))
    if "SERVER_NAME" not in dict(changes):
        assert list(scope["server"]) == [environ["SERVER_NAME"], int(environ["SERVER_PORT"])]


def test_the_server_is_the_connections_own(sites):
    """At one address, one after the other: what was told of one connection is not told of the next."""
    site = sites[1]
    for header, expected in [(v2(), ("198.51.100.1", 443)), (b"", ("127.0.0.1", site.server.port))] * 3:
        scope, _ = site.ask("http", header, "/")
        assert scope["server"] == expected
