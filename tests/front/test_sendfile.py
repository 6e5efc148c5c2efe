"""Files that the application names by X-Sendfile or X-Accel-Redirect, and the server sends."""

import os
import re
import shutil
import ssl
import subprocess

import pytest

from tests.front.test_gateways import changed, parse, scgi, uwsgi
from tests.lib import fastcgi
from tests.lib.server import Connection, free_port

APP = r'''
from urllib.parse import parse_qsl


def app(environ, start_response):
    """The query has the fields; "status", "how", "body" and "size" are what they say."""
    status, how, body, fields = "200 OK", "list", b"of the application", []
    for name, value in parse_qsl(environ["QUERY_STRING"], keep_blank_values=True, encoding="latin-1"):
        if name == "status":
            status = value
        elif name == "how":
            how = value
        elif name == "body":
            body = value.encode()
        elif name == "size":
            body = b"x" * int(value)
        else:
            fields.append((name, value))
    write = start_response(status, fields)
    if how == "list":
        return [body]
    if how == "several":
        return [body] * 3
    if how == "iterator":
        return (body for _ in range(3))
    if how == "write":
        write(body)
        write(body)
        return []
    if how == "file":
        return environ["wsgi.file_wrapper"](open(__file__, "rb"))
    if how == "raise":
        return (1 // 0 for _ in range(1))
    raise ValueError(how)
'''
BIG = bytes(range(256)) * 4096 * 3  # 3 MiB
TEXT = b"0123456789"


def make_files(base):
    (base / "media" / "sub").mkdir(parents=True)
    (base / "other").mkdir()
    (base / "secret.txt").write_text("secret")
    media = base / "media"
    (media / "a.txt").write_bytes(TEXT)
    (media / "big.bin").write_bytes(BIG)
    (media / "zero").write_bytes(b"")
    (media / "page.html").write_text("<p>" + "page " * 1000)
    (media / "100% a+b?.txt").write_text("odd")
    (media / "100%25.txt").write_text("literal")
    (media / "sub" / "ü.txt").write_text("umlaut")
    (media / ".hidden").write_text("hidden")
    (media / "inside.txt").symlink_to("a.txt")
    (media / "outside").symlink_to("../secret.txt")
    (media / "up").symlink_to("..")
    os.mkfifo(media / "fifo")
    (base / "other" / "b.txt").write_text("other")
    (base / "link").symlink_to("media")
    return base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def server(serve_module, base):
    server = serve_module(
        APP,
        "--x-sendfile", str(base / "link"),
        "--x-sendfile", str(base / "other"),
        "--x-accel-redirect", "/protected/=%s" % (base / "media"),
        "--x-accel-redirect", "/protected/deep=%s" % (base / "other"),
        "--workers", "1",
    )  # fmt: skip
    server.base = base
    return server


def query(*pairs, **fields):
    from urllib.parse import quote

    pairs += tuple(fields.items())
    return "&".join("%s=%s" % (name.replace("_", "-"), quote(str(value), encoding="latin-1"))
                    for name, value in pairs)  # fmt: skip


def fetch(server, asked="", method="GET", path="/", **fields):
    """A request for a response with these fields, asked for with others."""
    with server.connect() as conn:
        conn.send("%s %s?%s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (method, path, query(**fields), asked))
        response = conn.read_response(method)
        # Whatever was answered, the connection goes on.
        conn.send("GET /?X=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert conn.read_response().body == b"of the application"
    for name, _ in response.headers:
        assert not re.match("x-(sendfile|lighttpd|accel)", name, re.I)
    return response


def wire(path):
    """A path as it stands in a field."""
    return os.fsencode(path).decode("latin-1")


def test_a_file(server, base):
    media = base / "media"
    for fields in (
        {"X_Sendfile": base / "link" / "a.txt"}, {"X_Sendfile": media / "a.txt"},
        {"X_Sendfile": "a.txt"}, {"x_LIGHTTPD_send_file": media / "a.txt"},
        {"X_Sendfile": "%s/sub/../other/..//./a.txt" % media}, {"X_Sendfile": "inside.txt"},
        {"X_Accel_Redirect": "/protected/a.txt"}, {"X_Accel_Redirect": "/protected/%61.txt?x=1"},
    ):  # fmt: skip
        r = fetch(server, **fields)
        assert (r.status, r.body, r.framing) == (200, TEXT, "length"), fields
        assert r.header("content-type") == "text/plain; charset=utf-8"
        assert r.header("etag") and r.header("last-modified") and r.header("date")
        assert r.header("accept-ranges") == "bytes"
    assert fetch(server, X_Sendfile=media / "zero").body == b""
    assert fetch(server, X_Sendfile=media / "big.bin").body == BIG
    assert fetch(server, X_Sendfile="b.txt").body == b"other"
    assert fetch(server, X_Accel_Redirect="/protected/deep/b.txt").body == b"other"
    assert fetch(server, X_Sendfile=".hidden").body == b"hidden"


@pytest.mark.parametrize(
    "field,value,body",
    [
        ("X-Sendfile", "100% a+b?.txt", "odd"),
        ("X-Sendfile", "100%25%20a+b%3F.txt", "odd"),
        ("X-Accel-Redirect", "/protected/100%25%20a+b%3f.txt", "odd"),
        ("X-Accel-Redirect", "/protected/100% a+b?.txt", "odd"),
        ("X-Sendfile", "100%25.txt", "literal"),
        ("X-Accel-Redirect", "/protected/100%2525.txt", "literal"),
        ("X-Accel-Redirect", "/protected/sub/%C3%BC.txt", "umlaut"),
        ("X-Sendfile", wire("sub/ü.txt"), "umlaut"),
    ],
)
def test_names_with_escapes(server, field, value, body):
    assert fetch(server, **{field: value}).text == body


@pytest.mark.parametrize("how", ["list", "several", "iterator", "write", "file"])
def test_the_body_of_the_application_is_dropped(server, how):
    for length in ({}, {"Content_Length": 10}, {"Content_Length": 99999}):
        r = fetch(server, how=how, X_Sendfile="a.txt", **length)
        assert (r.status, r.body, r.header("content-length")) == (200, TEXT, "10")
    assert fetch(server, how=how, size=100000, X_Sendfile="big.bin").body == BIG
    assert fetch(server, body="", X_Sendfile="a.txt").body == TEXT
    assert "shorter" not in server.log() and "longer" not in server.log()


def test_an_exception_comes_before_the_file(server):
    assert fetch(server, how="raise", X_Sendfile="a.txt").status == 500


def test_fields_of_the_application_stay(server):
    r = fetch(
        server, X_Sendfile="page.html", Content_Type="application/pdf", Set_Cookie="a=b",
        Content_Disposition='attachment; filename="x.pdf"', Cache_Control="private, max-age=60",
        ETag='"mine"', Last_Modified="Sun, 06 Nov 1994 08:49:37 GMT", Vary="Cookie",
        Expires="Sun, 06 Nov 2044 08:49:37 GMT", Content_Length=3, Content_Range="bytes 0-2/3",
        X_Other="kept",
    )  # fmt: skip
    assert r.status == 200 and r.body.startswith(b"<p>page")
    assert r.header("content-type") == "application/pdf"
    assert r.header("set-cookie") == "a=b" and r.header("vary") == "Cookie"
    assert r.header("content-disposition") == 'attachment; filename="x.pdf"'
    assert r.header("cache-control") == "private, max-age=60" and r.header("x-other") == "kept"
    assert r.header("etag") == '"mine"' and r.header("expires").endswith("2044 08:49:37 GMT")
    assert r.header("last-modified") == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert r.header("content-range") is None and r.header("content-length") == "5003"
    # A type of nothing, and a date that is none, are the file's own.
    r = fetch(server, X_Sendfile="page.html", Content_Type="", Last_Modified="yesterday")
    assert r.header("content-type") == "text/html; charset=utf-8"
    assert r.header("last-modified") != "yesterday"
    r = fetch(server, X_Sendfile="a.txt", Content_Encoding="gzip", status="201 Created")
    assert (r.status, r.header("content-encoding"), r.body) == (201, "gzip", TEXT)


def test_fields_of_nginx(server):
    r = fetch(
        server, X_Accel_Redirect="/protected/a.txt", X_Accel_Charset="koi8-r", X_Accel_Buffering="no",
        X_Accel_Limit_Rate="100", X_Accel_Expires="10", Content_Type="text/plain",
    )  # fmt: skip
    assert (r.body, r.header("content-type")) == (TEXT, "text/plain; charset=koi8-r")
    # Without a redirect they are for whoever is in front of us.
    with server.connect() as conn:
        conn.send("GET /?X-Accel-Buffering=no HTTP/1.1\r\nHost: x\r\n\r\n")
        assert conn.read_response().header("x-accel-buffering") == "no"


def test_conditions_and_ranges(server):
    for validators in ({}, {"ETag": 'W/"weak"'}, {"ETag": '"strong"'}):
        sent = dict(X_Sendfile="a.txt", Set_Cookie="a=b", Vary="Cookie", **validators)
        r = fetch(server, **sent)
        etag, modified = r.header("etag"), r.header("last-modified")
        assert etag == validators.get("ETag", etag)
        for asked in ("If-None-Match: %s" % etag, "If-Modified-Since: %s" % modified):
            r = fetch(server, asked + "\r\n", **sent)
            assert (r.status, r.body, r.header("etag")) == (304, b"", etag)
            assert r.header("set-cookie") == "a=b" and r.header("vary") == "Cookie"
        assert fetch(server, 'If-Match: "other"\r\n', **sent).status == 412
        r = fetch(server, "Range: bytes=2-4\r\n", **sent)
        assert (r.status, r.body, r.header("content-range")) == (206, b"234", "bytes 2-4/10")
        r = fetch(server, "Range: bytes=20-\r\n", **sent)
        assert (r.status, r.header("content-range")) == (416, "bytes */10")
        assert r.header("vary") == "Cookie"
        r = fetch(server, "Range: bytes=2-4\r\nIf-Range: %s\r\n" % etag, **sent)
        assert r.status == (200 if etag.startswith("W/") else 206)
        r = fetch(server, "Range: bytes=0-1,8-9\r\n", **sent)
        assert r.status == 206 and r.header("content-type").startswith("multipart/byteranges")
    r = fetch(server, "Range: bytes=1000000-1999999\r\n", X_Accel_Redirect="/protected/big.bin")
    assert r.status == 206 and r.body == BIG[1000000:2000000]
    # An application that has looked at the range itself, as Flask does.
    r = fetch(server, "Range: bytes=2-4\r\n", X_Sendfile="a.txt", Content_Range="bytes 2-4/10",
              Content_Length=3, status="206 Partial Content", body="")  # fmt: skip
    assert (r.status, r.body, r.header("content-range")) == (206, b"234", "bytes 2-4/10")


def test_other_methods_and_statuses(server):
    r = fetch(server, method="HEAD", X_Sendfile="big.bin", body="")
    assert (r.status, r.header("content-length")) == (200, str(len(BIG)))
    conditions = "If-None-Match: *\r\nRange: bytes=0-1\r\nContent-Length: 0\r\n"
    r = fetch(server, conditions, method="POST", X_Sendfile="a.txt")
    assert (r.status, r.body) == (200, TEXT)
    r = fetch(server, "Range: bytes=0-1\r\n", X_Sendfile="a.txt", status="404 Not Found")
    assert (r.status, r.body, r.header("accept-ranges")) == (404, TEXT, None)
    for status in ("204 No Content", "304 Not Modified"):
        r = fetch(server, X_Sendfile="a.txt", status=status, body="")
        assert (r.status, r.body) == (int(status[:3]), b"")
    assert fetch(server, X_Sendfile="").body == b"of the application"
    assert fetch(server, X_Accel_Redirect="").body == b"of the application"


@pytest.mark.parametrize(
    "field,value,status,reason",
    [
        ("X-Sendfile", "{base}/media/none", 404, "there is no such file"),
        ("X-Sendfile", "none", 404, "there is no such file"),
        ("X-Sendfile", "a.txt/x", 404, "there is no such file"),
        ("X-Sendfile", "sub", 404, "it is a directory"),
        ("X-Sendfile", "fifo", 404, "not a regular file"),
        ("X-Sendfile", "{base}/secret.txt", 403, "not below a directory"),
        ("X-Sendfile", "{base}/mediax/a.txt", 403, "not below a directory"),
        ("X-Sendfile", "{base}/media/../secret.txt", 403, "not below a directory"),
        ("X-Sendfile", "{base}/media/%2e%2e/secret.txt", 404, "no such file"),
        ("X-Sendfile", "../secret.txt", 403, "not below a directory"),
        ("X-Sendfile", "/etc/passwd", 403, "not below a directory"),
        ("X-Sendfile", "//etc//passwd", 403, "not below a directory"),
        ("X-Sendfile", "{base}/media", 403, "not below a directory"),
        ("X-Sendfile", "outside", 403, "not below a directory"),
        ("X-Sendfile", "up/secret.txt", 403, "not below a directory"),
        ("X-Sendfile", "a.txt%00", 404, "no such file"),
        ("X-Sendfile", "a" * 300, 403, ""),
        ("X-Sendfile", "a/" * 3000 + "b", 404, "too long"),
        ("X-Accel-Redirect", "/protected/none", 404, "there is no such file"),
        ("X-Accel-Redirect", "/protected/", 404, "it is a directory"),
        ("X-Accel-Redirect", "/protected", 403, "not below a directory"),
        ("X-Accel-Redirect", "/protectedx/a.txt", 403, "not below a directory"),
        ("X-Accel-Redirect", "/protected/../secret.txt", 403, "not below a directory"),
        ("X-Accel-Redirect", "/protected/%2e%2e/secret.txt", 403, "not below a directory"),
        ("X-Accel-Redirect", "/protected/%2e%2e%2fsecret.txt", 403, "not below a directory"),
        ("X-Accel-Redirect", "/protected/a.txt%00", 403, "not below a directory"),
        ("X-Accel-Redirect", "/protected/outside", 403, "not below a directory"),
        ("X-Accel-Redirect", "/protected/up/secret.txt", 403, "not below a directory"),
        ("X-Accel-Redirect", "/other/a.txt", 403, "not below a directory"),
        ("X-Accel-Redirect", "@named", 403, "not below a directory"),
        ("X-Accel-Redirect", "{base}/media/a.txt", 403, "not below a directory"),
    ],
)
def test_what_is_not_sent(server, base, field, value, status, reason):
    before = len(server.log())
    r = fetch(server, Set_Cookie="a=b", **{field: value.format(base=base)})
    assert r.status == status and r.header("set-cookie") is None
    assert b"secret" not in r.body and b"root:" not in r.body
    said = server.log()[before:]
    assert "by %s" % field in said and reason in said and "%d was sent" % status in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(server, base):
    (base / "media" / "locked").write_text("x")
    (base / "media" / "locked").chmod(0)
    assert fetch(server, X_Sendfile="locked").status == 403


def test_two_files_are_none(server):
    assert fetch(server, X_Sendfile="a.txt", X_Accel_Redirect="/protected/a.txt").status == 500
    assert fetch(server, X_Sendfile="a.txt", X_LIGHTTPD_send_file="big.bin").status == 500
    assert fetch(server, X_Sendfile="a.txt", X_LIGHTTPD_send_file="a.txt").body == TEXT


def test_the_prefix_is_no_way_in(server):
    assert fetch(server, path="/protected/a.txt").body == b"of the application"


def test_a_file_that_was_just_made(server, base):
    for n in range(20):
        (base / "media" / "fresh").write_text("number %d" % n)
        assert fetch(server, X_Sendfile="fresh").text == "number %d" % n
        (base / "media" / "fresh").unlink()
        assert fetch(server, X_Sendfile="fresh").status == 404


def test_slow_clients_and_pipelines(server):
    with server.connect() as slow:
        slow.send("GET /?X-Sendfile=big.bin HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        for _ in range(20):
            assert fetch(server, X_Sendfile="a.txt").body == TEXT
        assert [slow.read_response().body for _ in range(3)] == [BIG] * 3
    data = b"".join(b"GET /?X-Sendfile=%s HTTP/1.1\r\nHost: x\r\n\r\n" % name
                    for name in (b"a.txt", b"none", b"", b"zero", b"big.bin", b"a.txt"))  # fmt: skip
    got = [r.body for r in server.send_raw(data, expect=6)]
    assert got == [TEXT, b"404 Not Found\n", b"of the application", b"", BIG, TEXT]
    with server.connect() as conn:
        conn.send("GET /?X-Sendfile=a.txt HTTP/1.0\r\n\r\n")
        assert conn.read_response().body == TEXT and conn.at_end()


def test_off_it_passes_through(serve, base):
    server = serve(APP)
    where = str(base / "media" / "a.txt")
    for field in ("X-Sendfile", "X-Accel-Redirect", "X-LIGHTTPD-send-file"):
        r = server.get("/?" + query((field, where)))
        assert (r.header(field), r.body) == (where, b"of the application")
    # Each option is for its own fields.
    server = serve(APP, "--x-sendfile", str(base / "media"))
    r = server.get("/?" + query(("X-Accel-Redirect", where)))
    assert (r.header("x-accel-redirect"), r.body) == (where, b"of the application")
    r = server.get("/?" + query(("X-Sendfile", where), ("X-Accel-Buffering", "no")))
    assert (r.header("x-sendfile"), r.body) == (None, TEXT)


def test_with_rules_and_compression(serve, base, tmp_path):
    pytest.importorskip("brotli")
    (tmp_path / "public").mkdir()
    server = serve(APP, "--x-sendfile", str(base / "media"), "--compress", "on",
                   "--header", "X-Frame-Options: DENY", "--header", "remove=ETag prefix=/bare",
                   "--static", "/static=public", "--response-buffer", "1k")  # fmt: skip
    r = fetch(server, "Accept-Encoding: br\r\n", X_Sendfile="page.html", X_Frame_Options="ALLOW")
    assert r.header("content-encoding") == "br" and r.header("x-frame-options") == "DENY"
    import brotli

    assert brotli.decompress(r.body) == (base / "media" / "page.html").read_bytes()
    assert fetch(server, X_Sendfile="big.bin").body == BIG
    r = fetch(server, "Accept-Encoding: br\r\nRange: bytes=0-2\r\n", X_Sendfile="page.html")
    assert (r.status, r.body) == (206, b"<p>")
    assert fetch(server, path="/bare", X_Sendfile="a.txt").header("etag") is None


def test_relative_directories_and_other_threads(serve, tmp_path):
    make_files(tmp_path)
    source = "import os\nos.chdir('/')\n" + APP
    server = serve(source, "--x-sendfile", "media", "--x-accel-redirect", "/=other", "--threads", "3")
    for _ in range(5):
        assert fetch(server, X_Sendfile="big.bin").body == BIG
        assert fetch(server, X_Accel_Redirect="/b.txt").body == b"other"


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_by_every_road(serve, base, tmp_path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=x"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    ports = {name: free_port() for name in ("uwsgi", "scgi", "fastcgi", "https")}
    server = serve(
        APP, "--x-sendfile", str(base / "media"), "--tls-cert", "cert.pem", "--tls-key", "key.pem",
        *["--bind=%s://127.0.0.1:%d" % pair for pair in ports.items()],
    )  # fmt: skip
    assert server.get("/?X-Sendfile=a.txt").body == TEXT
    for name, encode in (("uwsgi", uwsgi), ("scgi", scgi)):
        for file, body in (("big.bin", BIG), ("a.txt", TEXT)):
            with Connection(("127.0.0.1", ports[name])) as conn:
                conn.send(encode(changed(("QUERY_STRING", "X-Sendfile=" + file))))
                assert parse(conn.read_to_end())[2] == body
        with Connection(("127.0.0.1", ports[name])) as conn:
            conn.send(encode(changed(("QUERY_STRING", "X-Sendfile=a.txt"), ("HTTP_RANGE", "bytes=1-2"))))
            status, fields, body = parse(conn.read_to_end())
            assert (int(status), body) == (206, b"12")
    with Connection(("127.0.0.1", ports["fastcgi"])) as conn:
        for file, body in (("big.bin", BIG), ("a.txt", TEXT), ("big.bin", BIG)):
            conn.send(fastcgi.request(changed(("QUERY_STRING", "X-Sendfile=" + file))))
            found = fastcgi.answer(conn)
            assert found.body == body and "x-sendfile" not in found.fields
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    context.check_hostname = False
    with Connection(("127.0.0.1", ports["https"])) as conn:
        conn.sock = context.wrap_socket(conn.sock)
        for file, body in (("big.bin", BIG), ("a.txt", TEXT)):
            conn.send("GET /?X-Sendfile=%s HTTP/1.1\r\nHost: x\r\n\r\n" % file)
            assert conn.read_response().body == body


def test_asgi(serve, base):
    """Answered at once, and by an application that has waited in its event loop."""
    source = '''
        import asyncio

        async def app(scope, receive, send):
            if scope["type"] != "http":
                return
            if scope["query_string"] == b"slow":
                await asyncio.sleep(0.02)
            fields = [(b"x-sendfile", scope["path"][1:].encode()), (b"set-cookie", b"a=b")]
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await send({"type": "http.response.body", "body": b"two"})
    '''
    server = serve(source, "--x-sendfile", str(base / "media"), "--workers", "1")
    for query in ("", "?slow"):
        with server.connect() as conn:
            for name, status, body in (("a.txt", 200, TEXT), ("none", 404, b"404 Not Found\n"), ("big.bin", 200, BIG)):
                conn.send("GET /%s%s HTTP/1.1\r\nHost: x\r\n\r\n" % (name, query))
                r = conn.read_response()
                assert (r.status, r.body, r.header("x-sendfile")) == (status, body, None)
                assert r.header("set-cookie") == ("a=b" if status == 200 else None)


def test_frameworks(serve, base):
    """Django and Flask, as their documentation has it."""
    pytest.importorskip("flask")
    pytest.importorskip("django")
    source = """
        from urllib.parse import quote

        import flask
        from django.conf import settings
        from django.core.wsgi import get_wsgi_application
        from django.http import HttpResponse
        from django.urls import path

        BASE = %r
        app = flask.Flask(__name__)
        app.config["USE_X_SENDFILE"] = True

        @app.get("/<path:name>")
        def send(name):
            return flask.send_from_directory(BASE, name, as_attachment=True)

        def protected(request, name):
            response = HttpResponse()
            del response["Content-Type"]
            response["X-Accel-Redirect"] = "/protected/" + quote(name)
            return response

        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x")
        urlpatterns = [path("<path:name>", protected)]
        django = get_wsgi_application()
    """ % str(base / "media")
    server = serve(source, "--x-sendfile", str(base / "media"), "--mount", "/django=app:django",
                   "--x-accel-redirect", "/protected=%s" % (base / "media"))  # fmt: skip
    r = server.get("/big.bin")
    assert r.body == BIG and r.header("content-disposition") == "attachment; filename=big.bin"
    etag = r.header("etag")
    assert server.get("/big.bin", headers={"If-None-Match": etag}).status == 304
    r = server.get("/big.bin", headers={"Range": "bytes=100-299", "If-Range": etag})
    assert (r.status, r.body) == (206, BIG[100:300])
    assert server.get("/none").status == 404
    assert server.get("/100%25%20a+b%3F.txt").text == "odd"
    r = server.get("/django/100%25%20a+b%3F.txt")
    assert r.text == "odd" and r.header("content-type") == "text/plain; charset=utf-8"
    assert server.get("/django/sub/%C3%BC.txt").text == "umlaut"


@pytest.mark.parametrize(
    "option,value,text",
    [
        ("--x-sendfile", "nowhere", "No such file"),
        ("--x-sendfile", "app.py", "not a directory"),
        ("--x-accel-redirect", "media", "expected /PREFIX=DIRECTORY"),
        ("--x-accel-redirect", "/p=app.py", "not a directory"),
        ("--collect-header", "x", "x-sendfile"),
        ("--file-serve-mode", "nginx", "x-accel-redirect"),
    ],
)
def test_mistakes(serve, option, value, text):
    server = serve(APP, option, value, start=False).spawn()
    assert server.wait() != 0
    assert text in server.log()
