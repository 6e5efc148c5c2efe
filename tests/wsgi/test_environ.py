"""environ: PEP 3333 and CGI."""
import sys

import pytest

pytestmark = pytest.mark.smoke


def head(target="/", method="GET", *fields, version="1.1", host="example.org"):
    lines = ["%s %s HTTP/%s" % (method, target, version)]
    if host:
        lines.append("Host: " + host)
    lines.extend(fields)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def test_every_key_of_a_plain_request(wsgi):
    environ = wsgi.environ(head("/a/b?x=1&y"))
    assert type(environ["wsgi.input"]).__name__ == "Input"
    errors = environ.pop("wsgi.errors")
    assert errors.encoding == "utf-8"
    assert environ.pop("wsgi.file_wrapper") is wsgi.core.FileWrapper
    assert environ.pop("wsgi.input").read() == b""
    version = environ.pop("stoker.version")
    assert callable(environ.pop("stoker.disconnected"))
    assert callable(environ.pop("stoker.set_timeout"))
    assert environ == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "x=1&y",
        "REQUEST_URI": "/a/b?x=1&y",
        "RAW_URI": "/a/b?x=1&y",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "stoker/" + version,
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_SCHEME": "http",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "54321",
        "HTTP_HOST": "example.org",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }


def test_environ_is_a_fresh_builtin_dict_each_time(wsgi):
    kept = []

    def application(environ, start_response):
        assert type(environ) is dict
        assert "mine" not in environ
        environ["mine"] = 1
        environ["wsgi.version"] = None
        kept.append(environ)
        start_response("200 OK", [])
        return []

    host = wsgi.host(application)
    for _ in range(3):
        assert not wsgi.core.request(host, head())[3]
    assert len({id(environ) for environ in kept}) == 3


def test_keys_are_interned(wsgi):
    names = ["REQUEST_METHOD", "PATH_INFO", "HTTP_USER_AGENT", "CONTENT_TYPE", "wsgi.input"]
    environ = wsgi.environ(head("/", "GET", "User-Agent: x", "Content-Type: text/plain"))
    keys = {key: key for key in environ}
    for name in names:
        assert keys[name] is sys.intern(name)


@pytest.mark.parametrize("scheme, https", [("http", None), ("https", "on")])
def test_scheme(wsgi, scheme, https):
    environ = wsgi.environ(head(), scheme=scheme)
    assert environ["wsgi.url_scheme"] == environ["REQUEST_SCHEME"] == scheme
    assert environ.get("HTTPS") == https


def test_threads_decide_multithread(wsgi):
    seen = []

    def application(environ, start_response):
        seen.append(environ["wsgi.multithread"])
        start_response("200 OK", [])
        return []

    wsgi.core.request(wsgi.host(application, threads=4), head())
    assert seen == [True]


@pytest.mark.parametrize(
    "target, path",
    [
        ("/", "/"),
        ("/a%20b", "/a b"),
        ("/a%2Fb", "/a/b"),
        ("/%c3%A4", "/\xc3\xa4"),
        ("/%", "/%"),
        ("//double", "//double"),
        ("/" + "x" * 4000 + "%41", "/" + "x" * 4000 + "A"),
        ("/" + "y" * 4000, "/" + "y" * 4000),
        ("http://example.org/p?q", "/p"),
        ("http://example.org", "/"),
        ("http://example.org?q", "/"),
    ],
)
def test_path_info(wsgi, target, path):
    environ = wsgi.environ(head(target))
    assert environ["PATH_INFO"] == path
    assert environ["REQUEST_URI"] == environ["RAW_URI"] == target


def test_asterisk_has_an_empty_path(wsgi):
    environ = wsgi.environ(head("*", "OPTIONS"))
    assert environ["PATH_INFO"] == ""
    assert environ["REQUEST_URI"] == "*"
    assert environ["REQUEST_METHOD"] == "OPTIONS"


@pytest.mark.parametrize(
    "target, path", [("/app/x", "/x"), ("/app", ""), ("/app/", "/"), ("/%61pp/x%20", "/x ")]
)
def test_mount_point(wsgi, target, path):
    environ = wsgi.environ(head(target), script_name="/app")
    assert environ["SCRIPT_NAME"] == "/app"
    assert environ["PATH_INFO"] == path
    assert environ["REQUEST_URI"] == target


def test_path_cache_keeps_paths_apart(wsgi):
    seen = []

    def application(environ, start_response):
        seen.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return []

    host = wsgi.host(application)
    targets = ["/%d" % n for n in range(2000)] + ["/same/%d/same" % n for n in range(2000)]
    for target in targets * 2:
        wsgi.core.request(host, head(target))
    assert seen == targets * 2


def test_http_1_0(wsgi):
    environ = wsgi.environ(head(version="1.0", host=None))
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert "HTTP_HOST" not in environ


def test_host_of_a_trusted_proxy(wsgi):
    environ = wsgi.environ(head(), forwarded_host="public.example")
    assert environ["HTTP_HOST"] == "public.example"


def test_unix_peer_has_no_port(wsgi):
    environ = wsgi.environ(head(), endpoint=1)
    assert environ["REMOTE_ADDR"] == ""
    assert "REMOTE_PORT" not in environ
    assert environ["SERVER_NAME"] == "localhost"
    assert environ["SERVER_PORT"] == ""


def test_content_fields_lose_their_prefix(wsgi):
    environ = wsgi.environ(
        head("/", "POST", "Content-Type: text/x", "Content-Length: 2"), body=b"ab"
    )
    assert environ["CONTENT_TYPE"] == "text/x"
    assert environ["CONTENT_LENGTH"] == "2"
    assert not any(key.startswith("HTTP_CONTENT") for key in environ)


def test_content_fields_are_absent_when_not_sent(wsgi):
    environ = wsgi.environ(head())
    assert "CONTENT_TYPE" not in environ
    assert "CONTENT_LENGTH" not in environ


def test_chunked_body_has_no_length_while_it_arrives(wsgi):
    environ = wsgi.environ(
        head("/", "POST", "Transfer-Encoding: chunked"), body=b"ab", length=-1
    )
    assert "CONTENT_LENGTH" not in environ
    assert environ["wsgi.input_terminated"] is True


@pytest.mark.parametrize("body", [b"", b"ab"])
def test_complete_chunked_body_has_a_length(wsgi, body):
    environ = wsgi.environ(head("/", "POST", "Transfer-Encoding: chunked"), body=body)
    assert environ["CONTENT_LENGTH"] == str(len(body))
    assert environ["HTTP_TRANSFER_ENCODING"] == "chunked"


@pytest.mark.parametrize("name", ["Proxy", "proxy", "PROXY"])
def test_httpoxy(wsgi, name):
    assert "HTTP_PROXY" not in wsgi.environ(head("/", "GET", name + ": http://evil/"))


@pytest.mark.parametrize("name", ["Content_Length", "content_type"])
def test_underscores_do_not_spoof_content_fields(wsgi, name):
    environ = wsgi.environ(head("/", "GET", name + ": 5"))
    assert not any("CONTENT" in key for key in environ)


def test_repeated_fields_are_joined(wsgi):
    environ = wsgi.environ(
        head("/", "GET", "X-A: 1", "Cookie: a=1", "x-a: 2", "Cookie: b=2", "X-A: 1", "cookie: a=1")
    )
    assert environ["HTTP_X_A"] == "1, 2, 1"
    assert environ["HTTP_COOKIE"] == "a=1; b=2; a=1"


def test_repeated_fields_do_not_stick(wsgi):
    """The cached value of a field is the one field's, not the joined one."""
    seen = []

    def application(environ, start_response):
        seen.append(environ.get("HTTP_X_A"))
        start_response("200 OK", [])
        return []

    host = wsgi.host(application)
    for fields in (["X-A: 1", "X-A: 2"], ["X-A: 2"], [], ["X-A: 1"]):
        wsgi.core.request(host, head("/", "GET", *fields))
    assert seen == ["1, 2", "2", None, "1"]


def test_many_names_and_values_are_kept_apart(wsgi):
    seen = []

    def application(environ, start_response):
        seen.append({k: v for k, v in environ.items() if k.startswith("HTTP_X")})
        start_response("200 OK", [])
        return []

    host = wsgi.host(application)
    expected = []
    for n in range(300):
        names = ["X-%d-%d" % (n % 97, k) for k in range(40)]
        names.append("X-" + "long" * 30 + str(n))
        expected.append({"HTTP_" + name.replace("-", "_").upper(): str(n) + name for name in names})
        lines = ["%s: %s%s" % (name if n % 2 else name.upper(), n, name) for name in names]
        wsgi.core.request(host, head("/", "GET", *lines))
    assert seen == expected


def test_case_of_names_does_not_matter(wsgi):
    for name in ("accept-language", "Accept-Language", "ACCEPT-LANGUAGE", "aCCEPT-lANGUAGE"):
        assert wsgi.environ(head("/", "GET", name + ": de"))["HTTP_ACCEPT_LANGUAGE"] == "de"


def test_values_are_latin1(wsgi):
    assert wsgi.environ(head("/", "GET", "X-N: J\xfcrgen"))["HTTP_X_N"] == "J\xfcrgen"
    assert wsgi.environ(head("/", "GET", "X-N: \xc3\xbc"))["HTTP_X_N"] == "\xc3\xbc"


def test_long_and_empty_values(wsgi):
    environ = wsgi.environ(head("/", "GET", "X-Long: " + "v" * 5000, "X-Empty:"))
    assert environ["HTTP_X_LONG"] == "v" * 5000
    assert environ["HTTP_X_EMPTY"] == ""


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "X-ODD"])
def test_methods(wsgi, method):
    assert wsgi.environ(head("/", method))["REQUEST_METHOD"] == method


def test_nothing_of_one_request_shows_in_the_next(wsgi):
    """The template keeps the target, the method and the peer of the last request."""
    seen = []
    keys = ["REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "RAW_URI",
            "SERVER_PROTOCOL", "REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTPS"]

    def application(environ, start_response):
        seen.append([environ.get(key) for key in keys])
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return []

    host = wsgi.host(application)
    cases = [
        (head("/app/a?q=1"), {}, ["GET", "", "/app/a", "q=1", "/app/a?q=1", "HTTP/1.1"]),
        (head("/app/a?q=1"), {"script_name": "/app"}, ["GET", "/app", "/a", "q=1", "/app/a?q=1", "HTTP/1.1"]),
        (head("/app/a"), {}, ["GET", "", "/app/a", "", "/app/a", "HTTP/1.1"]),
        (head("/app/a", "PUT"), {}, ["PUT", "", "/app/a", "", "/app/a", "HTTP/1.1"]),
        (head("/", "PUT", version="1.0"), {}, ["PUT", "", "/", "", "/", "HTTP/1.0"]),
        (head("/"), {}, ["GET", "", "/", "", "/", "HTTP/1.1"]),
        (head("/"), {"scheme": "https"}, ["GET", "", "/", "", "/", "HTTP/1.1"]),
        (head("*", "OPTIONS"), {}, ["OPTIONS", "", "", "", "*", "HTTP/1.1"]),
        (head("/"), {"endpoint": 1}, ["GET", "", "/", "", "/", "HTTP/1.1"]),
    ]
    expected = []
    for first in cases:
        for second in cases:
            for request, arguments, values in (first, second):
                wsgi.core.request(host, request, **arguments)
                uri = values[4]
                peer = ["", None] if arguments.get("endpoint") else ["192.0.2.7", "54321"]
                scheme = ["https", "on"] if "scheme" in arguments else ["http", None]
                expected.append(values[:4] + [uri, uri] + values[5:] + peer + scheme)
    assert seen == expected
