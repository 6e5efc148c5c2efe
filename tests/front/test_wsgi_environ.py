"""environ: PEP 3333, "environ Variables", and what proxies say."""

import re

import pytest

from tests.front.raw import get, post

APP = '''
import json
import sys


def app(environ, start_response):
    """Keys, types and values of environ; sets of mistakes that only Python can see."""
    from wsgiref.headers import Headers

    found = {}
    for key, value in environ.items():
        if type(key) is not str or type(value) is str and any(ord(c) > 255 for c in value):
            raise AssertionError((key, value))
        found[key] = [type(value).__name__, value if isinstance(value, (str, bool)) else repr(value)]
    found["is dict"] = [type(environ).__name__, type(environ) is dict]
    found["is error stream"] = ["", all(hasattr(environ["wsgi.errors"], n) for n in ("flush", "write", "writelines"))]
    found["is input"] = ["", all(hasattr(environ["wsgi.input"], n) for n in ("read", "readline", "readlines", "__iter__"))]
    environ["changed"] = "by the application"
    environ["HTTP_HOST"] = "by the application"
    body = json.dumps(found).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]
'''


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module(APP, "-w1", ready="/")


def environ(server, data):
    (response,) = server.send_raw(data)
    assert response.status == 200, response.body
    return {key: value for key, (_, value) in response.json().items()}


def test_types(server):
    (response,) = server.send_raw(post("Content-Length: 1\r\nContent-Type: a/b\r\nA: b\r\n", "x"))
    found = {key: kind for key, (kind, _) in response.json().items()}
    booleans = {"wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once", "wsgi.input_terminated"}
    functions = {"stoker.disconnected", "stoker.set_timeout"}
    for key, kind in found.items():
        if key in booleans:
            assert kind == "bool", key
        elif key in functions:
            assert kind == "builtin_function_or_method", key
        elif not key.startswith(("wsgi.", "is ")):
            assert kind == "str", key
    assert found["wsgi.version"] == "tuple" and found["wsgi.url_scheme"] == "str"


def test_required_keys(server):
    found = environ(server, get("A: b\r\n", "/a/b?c=d"))
    wanted = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "c=d",
        "REQUEST_URI": "/a/b?c=d",
        "RAW_URI": "/a/b?c=d",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "x",
        "HTTP_A": "b",
        "wsgi.version": "(1, 0)",
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "is dict": True,
        "is error stream": True,
        "is input": True,
    }
    assert {key: found.get(key) for key in wanted} == wanted
    assert re.match(r"stoker/\d+\.\d+", found["SERVER_SOFTWARE"])
    assert "wsgi.file_wrapper" in found
    assert "CONTENT_TYPE" not in found and "CONTENT_LENGTH" not in found
    assert "HTTPS" not in found


def test_content_keys(server):
    found = environ(server, post("Content-Type: text/plain; charset=x\r\nContent-Length: 3\r\n", "abc"))
    assert (found["CONTENT_TYPE"], found["CONTENT_LENGTH"]) == ("text/plain; charset=x", "3")
    assert "HTTP_CONTENT_TYPE" not in found and "HTTP_CONTENT_LENGTH" not in found


def test_chunked_has_no_wrong_length(server):
    found = environ(server, post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"))
    assert found.get("CONTENT_LENGTH") in (None, "", "3")
    assert found["wsgi.input_terminated"] is True


def test_each_request_has_its_own(server):
    for _ in range(3):
        found = environ(server, get())
        assert "changed" not in found and found["HTTP_HOST"] == "x"
    for found in [response.json() for response in server.send_raw(get() * 3, expect=3)]:
        assert "changed" not in found


def test_remote_port_is_the_clients(server):
    with server.connect() as conn:
        conn.send(get())
        found = conn.read_response().json()
        assert found["REMOTE_PORT"][1] == str(conn.sock.getsockname()[1])


def test_protocol_of_http10(server):
    assert environ(server, get(version="1.0"))["SERVER_PROTOCOL"] == "HTTP/1.0"


@pytest.mark.parametrize(
    "options, thread, process",
    [(("-w1", "-t2"), True, False), (("-w2", "-t1"), False, True), (("-w2", "-t2"), True, True)],
)
def test_multithread_and_multiprocess(serve, options, thread, process):
    found = environ(serve(APP, *options), get())
    assert (found["wsgi.multithread"], found["wsgi.multiprocess"]) == (thread, process)


def test_unix_socket(serve):
    found = environ(serve(APP, "-w1", bind="unix"), get())
    assert found["REMOTE_ADDR"] == "" and "REMOTE_PORT" not in found
    assert isinstance(found["SERVER_NAME"], str) and found["SERVER_NAME"]
    assert isinstance(found["SERVER_PORT"], str)


def test_ipv6(serve):
    found = environ(serve(APP, "-w1", bind="tcp6"), get())
    assert found["REMOTE_ADDR"] == "::1"
    assert found["SERVER_NAME"].strip("[]") == "::1"


# Proxies

FORWARDED = [
    # name, fields, what a trusted peer makes of it
    ("nothing", "", {"REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http", "HTTP_HOST": "x"}),
    ("for", "X-Forwarded-For: 1.2.3.4\r\n", {"REMOTE_ADDR": "1.2.3.4", "HTTP_X_FORWARDED_FOR": "1.2.3.4"}),
    ("for with port", "X-Forwarded-For: 1.2.3.4:567\r\n", {"REMOTE_ADDR": "1.2.3.4", "REMOTE_PORT": "567"}),
    ("for without port has none", "X-Forwarded-For: 1.2.3.4\r\n", {"REMOTE_PORT": None}),
    ("for IPv6", "X-Forwarded-For: 2001:db8::1\r\n", {"REMOTE_ADDR": "2001:db8::1"}),
    ("for IPv6 in brackets", "X-Forwarded-For: [2001:db8::1]:567\r\n", {"REMOTE_ADDR": "2001:db8::1"}),
    ("the last of a list", "X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\n", {"REMOTE_ADDR": "1.2.3.4"}),
    ("trusted ones are walked over", "X-Forwarded-For: 6.6.6.6, 1.2.3.4, 127.0.0.9\r\n", {"REMOTE_ADDR": "1.2.3.4"}),
    ("only trusted ones", "X-Forwarded-For: 127.0.0.8, 127.0.0.9\r\n", {"REMOTE_ADDR": "127.0.0.8"}),
    ("nonsense", "X-Forwarded-For: <script>\r\n", {"REMOTE_ADDR": "127.0.0.1"}),
    ("nonsense before an address", "X-Forwarded-For: <script>, 1.2.3.4\r\n", {"REMOTE_ADDR": "1.2.3.4"}),
    ("nonsense behind an address", "X-Forwarded-For: 1.2.3.4, foo\r\n", {"REMOTE_ADDR": "127.0.0.1"}),
    ("empty", "X-Forwarded-For:\r\n", {"REMOTE_ADDR": "127.0.0.1"}),
    ("a number too high", "X-Forwarded-For: 1.2.3.400\r\n", {"REMOTE_ADDR": "127.0.0.1"}),
    ("proto", "X-Forwarded-Proto: https\r\n", {"wsgi.url_scheme": "https", "HTTPS": "on"}),
    ("proto in capitals", "X-Forwarded-Proto: HTTPS\r\n", {"wsgi.url_scheme": "https"}),
    ("proto http", "X-Forwarded-Proto: http\r\n", {"wsgi.url_scheme": "http", "HTTPS": None}),
    ("unknown proto", "X-Forwarded-Proto: gopher\r\n", {"wsgi.url_scheme": "http"}),
    ("host", "X-Forwarded-Host: y.example:81\r\n", {"HTTP_HOST": "y.example:81"}),
    ("bad host", "X-Forwarded-Host: y/z\r\n", {"HTTP_HOST": "x"}),
    ("Forwarded", "Forwarded: for=1.2.3.4;proto=https;host=y\r\n", {"REMOTE_ADDR": "1.2.3.4", "wsgi.url_scheme": "https", "HTTP_HOST": "y"}),
    ("both kinds", "Forwarded: for=6.6.6.6;proto=https\r\nX-Forwarded-For: 1.2.3.4\r\n", {"REMOTE_ADDR": "1.2.3.4", "wsgi.url_scheme": "http"}),
    ("Forwarded in quotes", 'Forwarded: for="[2001:db8::1]:567"\r\n', {"REMOTE_ADDR": "2001:db8::1"}),
    ("Forwarded list", "Forwarded: for=6.6.6.6, for=1.2.3.4\r\n", {"REMOTE_ADDR": "1.2.3.4"}),
    ("Forwarded unknown", "Forwarded: for=unknown\r\n", {"REMOTE_ADDR": "127.0.0.1"}),
    ("Forwarded obfuscated", "Forwarded: for=_hidden\r\n", {"REMOTE_ADDR": "127.0.0.1"}),
    ("Forwarded broken", "Forwarded: for=1.2.3.4;;=\r\n", {}),
]  # fmt: skip


@pytest.mark.parametrize("fields, wanted", [c[1:] for c in FORWARDED], ids=[c[0] for c in FORWARDED])
def test_trusted_proxy(server, fields, wanted):
    """Loopback is trusted by default."""
    found = environ(server, get(fields))
    assert {key: found.get(key) for key in wanted} == wanted


@pytest.fixture(scope="module", params=["10.0.0.0/8", ""], ids=["others trusted", "nobody trusted"])
def distrusting(request, serve_module):
    return serve_module(APP, "-w1", "--forwarded-allow", request.param)


@pytest.mark.parametrize("fields", [c[1] for c in FORWARDED], ids=[c[0] for c in FORWARDED])
def test_untrusted_peer(distrusting, fields):
    found = environ(distrusting, get(fields))
    assert found["REMOTE_ADDR"] == "127.0.0.1" and found["wsgi.url_scheme"] == "http"
    assert found["HTTP_HOST"] == "x" and "HTTPS" not in found
    if fields.startswith("X-Forwarded-For"):
        assert "HTTP_X_FORWARDED_FOR" in found  # the application sees it, and may judge it itself


def test_a_repeated_field_counts_from_its_end(server):
    """A client may send its own field in front of the proxy's."""
    found = environ(server, get("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n"))
    assert found["REMOTE_ADDR"] == "1.2.3.4"


def test_environment_names_the_trusted(serve):
    server = serve(APP, "-w1", env={"FORWARDED_ALLOW_IPS": "10.0.0.1"})
    assert environ(server, get("X-Forwarded-For: 1.2.3.4\r\n"))["REMOTE_ADDR"] == "127.0.0.1"
    server = serve(APP, "-w1", env={"FORWARDED_ALLOW_IPS": "*"})
    assert environ(server, get("X-Forwarded-For: 1.2.3.4\r\n"))["REMOTE_ADDR"] == "1.2.3.4"


def test_unix_peers_are_trusted(serve):
    server = serve(APP, "-w1", bind="unix")
    assert environ(server, get("X-Forwarded-For: 1.2.3.4\r\n"))["REMOTE_ADDR"] == "1.2.3.4"


def test_the_access_log_has_the_clients_address(serve):
    server = serve(APP, "-w1")
    environ(server, get("X-Forwarded-For: 1.2.3.4\r\n"))
    server.wait_log(r"^1\.2\.3\.4 ", out=True)
