"""Static files: what is served, how clients choose among it, and what never leaves."""

import gzip
import os
import re
import signal
import socket
import subprocess
import textwrap
import time
from email.utils import formatdate

import pytest

from tests.conftest import ROOT
from tests.lib.server import test_command as command_of_tests

APP = """
    import time

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/sleep":
            time.sleep(3)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"app " + environ["REQUEST_METHOD"].encode() + environ["PATH_INFO"].encode()]
"""
BIG = bytes(range(256)) * 4096 * 3  # 3 MiB


@pytest.fixture(scope="module")
def server(serve_module, tmp_path_factory):
    base = tmp_path_factory.mktemp("files")
    root = base / "public"
    (root / "docs").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / ".git").mkdir()
    (root / ".well-known").mkdir()
    (base / "secret.txt").write_text("secret")
    (root / "a.txt").write_text("0123456789")
    (root / "zero.txt").write_text("")
    (root / "big.bin").write_bytes(BIG)
    (root / "docs" / "index.html").write_text("<p>docs")
    (root / "app.js").write_text("let x = 1;" * 500)
    (root / "app.js.gz").write_bytes(gzip.compress((root / "app.js").read_bytes()))
    (root / "app.js.br").write_bytes(b"b" * 20)
    (root / "old.css").write_text("p {}" * 500)
    (root / "old.css.gz").write_bytes(b"old")
    os.utime(root / "old.css.gz", (1, 1))
    (root / "mod.wasm").write_bytes(b"\0asm")
    (root / "Makefile").write_text("all:")
    (root / ".git" / "config").write_text("hidden")
    (root / ".env").write_text("hidden")
    (root / ".well-known" / "security.txt").write_text("contact")
    (root / "back\\slash").write_text("x")
    (root / "inside").symlink_to("a.txt")
    (root / "outside").symlink_to("../secret.txt")
    (root / "absolute").symlink_to(root / "a.txt")
    (root / "updir").symlink_to("..")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "sock"))
    (base / "spa").mkdir()
    (base / "spa" / "index.html").write_text("the page")
    server = serve_module(
        APP,
        "--static", "/static=%s" % root,
        "--static-map", "/map=%s" % root,
        "--static-check", str(root),
        "--static", "/spa=%s" % (base / "spa"),
        "--static-try", "/spa=/index.html",
        "--static", "/robots.txt=%s" % (root / "a.txt"),
        "--static-expires", "*.wasm=immutable",
        "--static-expires", "/static/docs/*=1h",
        "--static-expires", "text/css=no-cache",
        "--workers", "1",
    )  # fmt: skip
    server.root = root
    return server


def fetch(server, target, fields="", method="GET"):
    data = "%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (method, target, fields)
    with server.connect() as conn:
        conn.send(data)
        return conn.read_response(method)


def test_a_file(server):
    r = fetch(server, "/static/a.txt")
    assert (r.status, r.body) == (200, b"0123456789")
    assert r.header("content-type") == "text/plain; charset=utf-8"
    assert r.header("accept-ranges") == "bytes"
    assert r.header("etag").startswith('"') and r.header("last-modified") and r.header("date")
    assert r.header("vary") is None
    head = fetch(server, "/static/a.txt", method="HEAD")
    assert head.header("content-length") == "10" and head.header("etag") == r.header("etag")
    assert fetch(server, "/static/zero.txt").body == b""
    assert fetch(server, "/static/big.bin").body == BIG
    assert fetch(server, "/robots.txt").body == b"0123456789"
    assert fetch(server, "/static//a.txt").status == 200


def test_types(server):
    assert fetch(server, "/static/mod.wasm").header("content-type") == "application/wasm"
    assert fetch(server, "/static/Makefile").header("content-type") == "application/octet-stream"
    assert fetch(server, "/static/app.js").header("content-type").startswith("text/javascript;")


def test_methods(server):
    r = fetch(server, "/static/a.txt", method="DELETE")
    assert (r.status, r.header("allow")) == (405, "GET, HEAD")
    assert fetch(server, "/a.txt", method="DELETE").body == b"app DELETE/a.txt"
    assert fetch(server, "/map/a.txt", method="DELETE").body == b"app DELETE/map/a.txt"
    # A body that nobody reads ends the connection.
    r = fetch(server, "/static/a.txt", "Content-Length: 5\r\n")
    assert r.status == 200 and r.will_close


def test_file_first_application_second(server):
    assert fetch(server, "/a.txt").body == b"0123456789"
    assert fetch(server, "/nothing").body == b"app GET/nothing"
    assert fetch(server, "/map/a.txt").body == b"0123456789"
    assert fetch(server, "/map/nothing").body == b"app GET/map/nothing"
    assert fetch(server, "/docs/").body == b"app GET/docs/"  # no static-index is named
    assert fetch(server, "/").body == b"app GET/"
    assert fetch(server, "/static/nothing").status == 404
    assert fetch(server, "/staticx").body == b"app GET/staticx"


def test_directories(server):
    assert fetch(server, "/static/docs/").body == b"<p>docs"
    r = fetch(server, "/static/docs?a=b&c")
    assert (r.status, r.header("location")) == (301, "./docs/?a=b&c")
    assert fetch(server, "/static//docs").header("location") == "./docs/"
    assert fetch(server, "/static/empty").status == 404
    assert fetch(server, "/static/empty/").status == 404
    assert fetch(server, "/static/a.txt/").status == 404


def test_single_page(server):
    for path in ("/spa/", "/spa/users/7", "/spa/users/jane.doe"):
        assert fetch(server, path).body == b"the page"
    assert fetch(server, "/spa/assets/gone.js").status == 404


def test_conditions(server):
    r = fetch(server, "/static/a.txt")
    etag, modified = r.header("etag"), r.header("last-modified")
    for fields in (
        "If-None-Match: %s" % etag, "If-None-Match: W/%s" % etag, 'If-None-Match: "x", %s' % etag,
        "If-None-Match: *", "If-Modified-Since: %s" % modified,
    ):  # fmt: skip
        r = fetch(server, "/static/a.txt", fields + "\r\n")
        assert (r.status, r.body, r.header("etag")) == (304, b"", etag), fields
    for fields in (
        'If-None-Match: "x"\r\nIf-Modified-Since: %s' % modified, "If-Match: %s" % etag,
        "If-Modified-Since: %s" % formatdate(1, usegmt=True), "If-Unmodified-Since: %s" % modified,
    ):  # fmt: skip
        assert fetch(server, "/static/a.txt", fields + "\r\n").status == 200, fields
    for fields in ('If-Match: "x"', "If-Unmodified-Since: %s" % formatdate(1, usegmt=True)):
        assert fetch(server, "/static/a.txt", fields + "\r\n").status == 412, fields


def test_ranges(server):
    r = fetch(server, "/static/a.txt", "Range: bytes=2-4\r\n")
    assert (r.status, r.body, r.header("content-range")) == (206, b"234", "bytes 2-4/10")
    assert fetch(server, "/static/a.txt", "Range: bytes=-3\r\n").body == b"789"
    r = fetch(server, "/static/big.bin", "Range: bytes=1000000-2999999\r\n")
    assert r.status == 206 and r.body == BIG[1000000:3000000]
    r = fetch(server, "/static/a.txt", "Range: bytes=10-\r\n")
    assert (r.status, r.header("content-range")) == (416, "bytes */10")
    assert fetch(server, "/static/a.txt", "Range: bytes=0-5,1-6\r\n").status == 200
    assert fetch(server, "/static/a.txt", "Range: bytes=0-1\r\n", "HEAD").status == 200
    etag = fetch(server, "/static/a.txt").header("etag")
    for field, status in ((etag, 206), ('"x"', 200), ("W/" + etag, 200)):
        fields = "Range: bytes=0-1\r\nIf-Range: %s\r\n" % field
        assert fetch(server, "/static/a.txt", fields).status == status


@pytest.mark.parametrize("path,size", [("a.txt", 10), ("big.bin", len(BIG))])
def test_several_ranges(server, path, size):
    whole = fetch(server, "/static/" + path).body
    ranges = [(0, 1), (size - 3, size - 1), (4, 5)]
    spec = ",".join("%d-%d" % pair for pair in ranges)
    r = fetch(server, "/static/" + path, "Range: bytes=%s\r\n" % spec)
    kind, _, boundary = r.header("content-type").partition("; boundary=")
    assert (r.status, kind) == (206, "multipart/byteranges")
    parts = (b"\r\n" + r.body).split(b"\r\n--" + boundary.encode())
    assert parts[0] == b"" and parts[-1] == b"--\r\n"
    for part, (first, last) in zip(parts[1:-1], ranges):
        head, _, body = part.partition(b"\r\n\r\n")
        assert b"Content-Range: bytes %d-%d/%d" % (first, last, size) in head
        assert body == whole[first : last + 1]


def test_compressed_siblings(server):
    plain = (server.root / "app.js").read_bytes()
    seen = set()
    for fields, encoding in (
        ("", None), ("gzip", "gzip"), ("gzip, br", "br"), ("gzip;q=0.9, br;q=0.1", "gzip"),
        ("br;q=0, gzip;q=0", None), ("identity;q=0, gzip;q=0.1", "gzip"), ("zstd", None),
        ("*", "br"), ("identity, gzip;q=0.5", None),
    ):  # fmt: skip
        r = fetch(server, "/static/app.js", fields and "Accept-Encoding: %s\r\n" % fields)
        assert r.header("content-encoding") == encoding, fields
        assert r.header("vary") == "Accept-Encoding"
        assert r.header("content-type").startswith("text/javascript")
        seen.add(r.header("etag"))
        if encoding == "gzip":
            assert gzip.decompress(r.body) == plain
            fields = "Accept-Encoding: gzip\r\nIf-None-Match: %s\r\n" % r.header("etag")
            again = fetch(server, "/static/app.js", fields)
            assert (again.status, again.header("vary")) == (304, "Accept-Encoding")
        elif encoding is None:
            assert r.body == plain
    assert len(seen) == 3
    # A sibling of long ago is one that was forgotten.
    r = fetch(server, "/static/old.css", "Accept-Encoding: gzip\r\n")
    assert r.header("content-encoding") is None and r.header("vary") is None


def test_expires(server):
    r = fetch(server, "/static/mod.wasm")
    assert r.header("cache-control") == "public, max-age=31536000, immutable"
    assert r.header("expires")
    assert fetch(server, "/static/docs/").header("cache-control") == "max-age=3600"
    r = fetch(server, "/static/old.css")
    assert r.header("cache-control") == "no-cache" and r.header("expires") is None
    assert fetch(server, "/static/a.txt").header("cache-control") is None


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/%2e%2e%2fsecret.txt",
        "/docs/../../secret.txt", "/docs/..", "/./a.txt", "/%2e/a.txt", "/a.txt%00", "/%00",
        "/a.txt%00.html", "/..\\secret.txt", "/..%5csecret.txt", "/back%5cslash",
        "/%252e%252e/secret.txt", "/..;/secret.txt", "/%c0%ae%c0%ae/secret.txt",
        "/outside", "/absolute", "/updir/secret.txt", "//etc/passwd", "/%2fetc/passwd",
        "/.git/config", "/.env", "/docs/%2eenv", "/%2egit/config", "/.well-known/.env",
        "/fifo", "/sock", "/" + "a" * 300, "/" + "a/" * 1500, "/a.txt/b",
    ],
)  # fmt: skip
def test_escapes(server, path):
    r = fetch(server, "/static" + path)
    assert r.status in (404, 414) and b"secret" not in r.body and b"hidden" not in r.body
    r = fetch(server, path)  # static-check leaves it to the application
    assert b"secret\n" not in r.body and b"hidden" not in r.body and b"root:" not in r.body


def test_what_may_be_served(server):
    assert fetch(server, "/static/inside").body == b"0123456789"
    assert fetch(server, "/static/.well-known/security.txt").status == 404
    assert fetch(server, "/.well-known/security.txt").body == b"contact"


def type_of_the_system(ending):
    """What the system's table says, which is asked for what the others do not know."""
    for path in ("/etc/mime.types", "/etc/apache2/mime.types"):
        if os.path.exists(path):
            with open(path, encoding="utf-8") as table:
                rows = [line.partition("#")[0].split() for line in table]
            return ([row[0] for row in rows if ending in row[1:]] or [None])[-1]
    return None


def test_what_options_allow_and_say(serve_module, tmp_path):
    """One server that takes hidden names, follows no link and has types of its own, and one that follows
    all links."""
    (tmp_path / "secret.txt").write_text("secret")
    root = tmp_path / "public"
    (root / "docs" / ".deep").mkdir(parents=True)
    for name in ("a.txt", ".env", "docs/.deep/b.txt", "n.own", "N.OWN", "n.both", "n.md", "n.djvu", "n.css"):
        (root / name).write_text(name)
    (root / "inside").symlink_to("a.txt")
    (root / "below").symlink_to("docs")
    (root / "outside").symlink_to("../secret.txt")
    (root / "absolute").symlink_to(root / "a.txt")
    (root / "updir").symlink_to("..")
    (root / "gone").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    for suffix, size in (("", 900), (".gz", 300), (".br", 200), (".zst", 100)):
        (root / ("app.js" + suffix)).write_bytes(b"%d" % (size % 7) * size)
    table = tmp_path / "types"
    table.write_text("# types\ntext/x-own\town owner # and more\napplication/x-late both css\n")
    common = ("--static", "/static=%s" % root, "--workers", "1")
    strict = serve_module(
        APP, *common, "--static-dotfiles", "--static-follow-symlinks", "never", "--mime-file", str(table),
        "--static-mime", "both=application/x-first", "--static-mime", ".md=text/markdown; charset=iso-8859-1",
    )  # fmt: skip
    loose = serve_module(APP, *common, "--static-follow-symlinks", "always")

    def body(server, path):
        r = fetch(server, "/static" + path)
        return r.body.decode() if r.status == 200 else r.status

    links = {"/inside": "a.txt", "/absolute": "a.txt", "/outside": "secret", "/updir/secret.txt": "secret",
             "/updir/public/a.txt": "a.txt"}  # fmt: skip
    for path, text in links.items():
        assert (body(strict, path), body(loose, path)) == (404, text), path
    for path in ("/gone", "/loop", "/../secret.txt", "/%2e%2e/secret.txt", "/docs/../../secret.txt"):
        assert (body(strict, path), body(loose, path)) == (404, 404), path
    for path, text in (("/.env", ".env"), ("/%2eenv", ".env"), ("/docs/.deep/b.txt", "docs/.deep/b.txt")):
        assert (body(strict, path), body(loose, path)) == (text, 404), path
    assert (body(strict, "/below/.deep/b.txt"), body(loose, "/below/.deep/b.txt")) == (404, 404)

    unknown, djvu = "application/octet-stream", type_of_the_system("djvu")
    for name, here, there in (
        ("n.own", "text/x-own; charset=utf-8", type_of_the_system("own")),
        ("N.OWN", "text/x-own; charset=utf-8", type_of_the_system("own")),
        ("n.both", "application/x-first", type_of_the_system("both")),
        ("n.md", "text/markdown; charset=iso-8859-1", "text/markdown; charset=utf-8"),
        ("n.css", "application/x-late", "text/css; charset=utf-8"),
        ("n.djvu", djvu, djvu),
    ):  # fmt: skip
        seen = [fetch(server, "/static/" + name).header("content-type") for server in (strict, loose)]
        assert seen == [here or unknown, there or unknown], name

    for fields, suffix, coding in (
        ("zstd", ".zst", "zstd"), ("gzip, br, zstd", ".zst", "zstd"), ("gzip, br, zstd;q=0.5", ".br", "br"),
        ("zstd;q=0, gzip", ".gz", "gzip"), ("", "", None),
    ):  # fmt: skip
        r = fetch(loose, "/static/app.js", fields and "Accept-Encoding: %s\r\n" % fields)
        assert (r.header("content-encoding"), r.header("vary")) == (coding, "Accept-Encoding"), fields
        assert r.header("content-type").startswith("text/javascript")
        assert r.body == (root / ("app.js" + suffix)).read_bytes()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(server):
    path = server.root / "locked.txt"
    path.write_text("x")
    path.chmod(0)
    assert fetch(server, "/static/locked.txt").status == 403
    assert fetch(server, "/map/locked.txt").body == b"app GET/map/locked.txt"


def await_body(server, target, body):
    deadline = time.monotonic() + 20
    while fetch(server, target).body != body:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_changes_are_seen(server):
    path = server.root / "changing.txt"
    assert fetch(server, "/static/changing.txt").status == 404
    path.write_text("one")
    await_body(server, "/static/changing.txt", b"one")
    path.write_text("two")
    await_body(server, "/static/changing.txt", b"two")
    other = server.root / "other.tmp"
    other.write_bytes(BIG)
    other.rename(path)
    await_body(server, "/static/changing.txt", BIG)
    path.unlink()
    await_body(server, "/static/changing.txt", b"404 Not Found\n")


def test_a_file_that_is_not_in_memory(server):
    path = server.root / "cold.bin"
    path.write_bytes(BIG)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        assert fetch(server, "/static/cold.bin").body == BIG
        for fields, expected in (("", BIG), ("Range: bytes=1000000-2999999\r\n", BIG[1000000:3000000])):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with server.connect() as conn:
                conn.send("GET /static/cold.bin HTTP/1.1\r\nHost: x\r\n%s\r\n" % fields)
                assert fetch(server, "/static/a.txt").body == b"0123456789"
                assert conn.read_response().body == expected
    path.unlink()


def test_pipelined_and_mixed(server):
    data = b"".join(
        b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path
        for path in (b"/static/a.txt", b"/x", b"/static/big.bin", b"/static/nothing", b"/y")
    )
    responses = server.send_raw(data, expect=5)
    assert [r.body for r in responses] == [
        b"0123456789", b"app GET/x", BIG, b"404 Not Found\n", b"app GET/y",
    ]  # fmt: skip
    with server.connect() as conn:
        conn.send("GET /static/a.txt HTTP/1.0\r\n\r\n")
        r = conn.read_response()
        assert r.body == b"0123456789" and conn.at_end()


def test_while_the_application_is_busy(server):
    with server.connect() as busy, server.connect() as slow:
        slow.send("GET /static/big.bin HTTP/1.1\r\nHost: x\r\n\r\n")  # and does not read
        busy.send("GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n")
        assert fetch(server, "/static/a.txt").body == b"0123456789"
        assert fetch(server, "/static/big.bin").body == BIG
        assert busy.is_quiet(0.05)
        assert busy.read_response().body == b"app GET/sleep"
        assert slow.read_response().body == BIG


@pytest.mark.parametrize(
    "option,value,text",
    [
        ("--static", "public", "expected /PREFIX=DIRECTORY"),
        ("--static", "/static=nowhere", "No such file"),
        ("--static-check", "app.py", "not a directory"),
        ("--static-try", "/=/index.html", "no `static` of this prefix"),
        ("--static-expires", "/x/.* 3600", "expected PATTERN=DURATION"),
        ("--static-expires", "*.css=soon", "expected a duration"),
        ("--static-mime", "md=markdown", "expected ENDING=TYPE"),
        ("--static-follow-symlinks", "yes", "beneath"),
    ],
)
def test_mistakes(tmp_path, option, value, text):
    (tmp_path / "app.py").write_text("app = None")
    command = command_of_tests() + ["app:app", option, value]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert option[2:] in done.stderr and text in done.stderr


def test_the_configuration_of_the_page(serve, tmp_path):
    page = (ROOT / "docs" / "static.md").read_text()
    (tmp_path / "stoker.toml").write_text(re.search(r"```toml\n(.*?)```", page, re.S).group(1))
    (tmp_path / "public" / "fonts").mkdir(parents=True)
    (tmp_path / "public" / "robots.txt").write_text("robots")
    (tmp_path / "public" / "fonts" / "a.woff2").write_text("font")
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    server = serve(None)
    assert fetch(server, "/robots.txt").body == b"robots"
    r = fetch(server, "/static/fonts/a.woff2")
    assert r.header("content-type") == "font/woff2" and "immutable" in r.header("cache-control")
    assert fetch(server, "/static/nothing").status == 404
    assert fetch(server, "/else").body == b"app GET/else"


@pytest.mark.parametrize("action", ["SIG_DFL", "handler"])
def test_clients_that_leave_end_no_worker(serve, tmp_path, action):
    """The application has given SIGPIPE its default action back, as commands do; a client leaves between
    the head of a file and its bytes."""
    (tmp_path / "big.bin").write_bytes(BIG)
    source = """
        import os, signal

        def handler(number, frame):
            os.write(2, b"SIGPIPE was raised\\n")
            os._exit(9)

        signal.signal(signal.SIGPIPE, signal.SIG_DFL if %r == "SIG_DFL" else handler)

        def app(environ, start_response):
            if environ["PATH_INFO"] == "/pid":
                start_response("200 OK", [])
                return [str(os.getpid()).encode()]
            start_response("200 OK", [("X-Sendfile", "big.bin")] * (environ["PATH_INFO"] == "/named"))
            return environ["wsgi.file_wrapper"](open("big.bin", "rb"))
    """
    server = serve(source % action, "--static", "/static=.", "--x-sendfile", ".", "--workers", "1")
    pid = int(server.get("/pid").body)
    for target in ("/static/big.bin", "/wrapper", "/named") * 3:
        # The worker stands while the request comes and the client goes.
        os.kill(pid, signal.SIGSTOP)
        with server.connect() as conn:
            conn.send(("GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target) * 3)
        os.kill(pid, signal.SIGCONT)
        assert int(server.get("/pid").body) == pid
    assert "SIGPIPE" not in server.log()
