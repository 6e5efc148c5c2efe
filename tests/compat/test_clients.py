"""Real clients: curl, http.client, requests, httpx, wrk, and nginx as a proxy in front."""

import http.client
import os
import shutil
import subprocess
import threading

import httpx
import pytest
import requests

from tests.compat.conftest import APPS
from tests.front.raw import get, post
from tests.lib.server import Connection, Server, free_port

PROBE = APPS.parent.parent / "front"


def tool(name):
    """The path of a command; its absence is a failure, not a reason to skip."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    assert found, name + " is not installed"
    return found


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module(
        "probe:app", "-w2", "-t2", cwd=PROBE, env={"PYTHONDONTWRITEBYTECODE": "1"}, ready="/calls"
    )


@pytest.fixture(scope="module")
def upload(tmp_path_factory):
    path = tmp_path_factory.mktemp("upload") / "upload.bin"
    path.write_bytes(os.urandom(3_000_000))
    return path


def curl(*args):
    result = subprocess.run([tool("curl"), "-sS", "--noproxy", "*", "-m", "30", *args], stdout=subprocess.PIPE, check=True)
    return result.stdout


# curl


def test_curl(server, upload):
    assert b'"REQUEST_METHOD": "GET"' in curl(server.url + "/a?b=c")
    assert curl("-I", server.url + "/big/5").startswith(b"HTTP/1.1 200 OK\r\n")
    assert curl("-X", "OPTIONS", "--request-target", "*", server.url).startswith(b"{")
    assert curl(server.url + "/stream").count(b"\n") == 5
    assert curl("-0", server.url + "/stream").count(b"\n") == 5
    assert curl("-d", "a=b", server.url + "/echo") == b"a=b"
    assert curl("--http2", server.url + "/big/10") == b"x" * 10


def test_curl_uploads(server, upload):
    """With Expect: 100-continue, chunked, and as a form."""
    data = upload.read_bytes()
    assert curl("-T", str(upload), server.url + "/echo") == data
    assert curl("-H", "Transfer-Encoding: chunked", "-T", str(upload), server.url + "/echo") == data
    assert data in curl("-F", "file=@%s" % upload, server.url + "/echo")
    assert curl("-H", "Expect: 100-continue", "--data-binary", "@%s" % upload, server.url + "/echo") == data


def test_curl_keeps_the_connection(server):
    command = ["-w", "%{num_connects} ", server.url + "/big/1", server.url + "/big/1", server.url + "/stream"]
    out = curl(*command)
    assert out.startswith(b"x1 x0 ") and out.endswith(b"0 ")


def test_curl_gets_what_is_large(server):
    assert len(curl("--limit-rate", "100M", server.url + "/big/20000000")) == 20_000_000


# http.client


def test_http_client(server):
    conn = http.client.HTTPConnection(server.host, server.port, timeout=20)
    for _ in range(3):
        conn.request("GET", "/stream")
        assert conn.getresponse().read().count(b"\n") == 5
        conn.request("POST", "/echo", body=iter([b"a", b"b" * 100_000]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        assert conn.getresponse().read() == b"a" + b"b" * 100_000
        conn.request("HEAD", "/big/100")
        response = conn.getresponse()
        assert (response.getheader("content-length"), response.read()) == ("100", b"")
        conn.request("GET", "/status/204")
        assert conn.getresponse().read() == b""
    conn.close()


# requests and httpx


def test_requests(server):
    with requests.Session() as session:
        session.trust_env = False
        for size in (0, 1, 100_000):
            assert session.post(server.url + "/echo", data=b"x" * size, timeout=20).content == b"x" * size
        assert session.get(server.url + "/status/404", timeout=20).status_code == 404
        found = session.get(server.url + "/a", params={"\u20ac": "\xe9 b"}, timeout=20).json()
        assert found["QUERY_STRING"] == "%E2%82%AC=%C3%A9+b"


def test_httpx(server):
    with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
        for _ in range(20):
            assert client.get("/big/70000").content == b"x" * 70_000
        assert client.post("/echo", content=(b"%d" % n for n in range(10))).content == b"0123456789"
        with client.stream("GET", "/stream") as response:
            assert "".join(response.iter_text()).count("\n") == 5


def test_httpx_with_many_at_once(server):
    errors = []
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:

        def ask(number):
            try:
                for turn in range(20):
                    text = "%d-%d" % (number, turn)
                    assert client.post("/echo", content=text.encode()).text == text
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors


# wrk


@pytest.mark.parametrize("target", ["/big/10", "/stream", "/big/100000"])
def test_wrk(server, target):
    """A burst: every response is what it should be, and no connection breaks."""
    out = subprocess.run(
        [tool("wrk"), "-t", "1", "-c", "32", "-d", "1s", server.url + target], stdout=subprocess.PIPE, check=True, text=True
    ).stdout
    assert "requests in" in out
    assert "Socket errors" not in out and "Non-2xx" not in out, out


# nginx in front

NGINX = """
{user}
daemon off;
worker_processes 1;
error_log {dir}/error.log warn;
pid {dir}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    client_max_body_size 0;
    upstream stoker {{ server {upstream}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://stoker;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
            proxy_buffering off;
            proxy_request_buffering {request_buffering};
        }}
        location /old/ {{
            proxy_pass http://stoker/;
        }}
    }}
}}
"""


@pytest.fixture(scope="module", params=["tcp, buffered requests", "tcp", "unix"])
def nginx(request, serve_module, tmp_path_factory):
    """nginx before a server over TCP or a unix socket; looks like a Server to the tests."""
    where = tmp_path_factory.mktemp("nginx")
    kind = request.param.partition(",")[0]
    server = serve_module("probe:app", "-w1", "-t2", cwd=PROBE, bind=kind, env={"PYTHONDONTWRITEBYTECODE": "1"})
    upstream = "unix:" + server.address if kind == "unix" else "127.0.0.1:%d" % server.port
    port = free_port()
    buffering = "on" if "buffered" in request.param else "off"
    user = "user root;" if os.getuid() == 0 else ""  # the directory is its owner's only
    (where / "nginx.conf").write_text(NGINX.format(user=user, dir=where, upstream=upstream, port=port, request_buffering=buffering))
    front = Server(
        None, cwd=where, bind=None, command=[tool("nginx"), "-p", str(where), "-e", str(where / "start.log"), "-c", str(where / "nginx.conf")]
    )
    front.host, front.port, front.address = "127.0.0.1", port, ("127.0.0.1", port)
    front.start()
    front.error_log = where / "error.log"
    yield front
    front.kill()


def complaints(front):
    """What nginx says of its upstream; that it buffers a large request is none."""
    lines = front.error_log.read_text().splitlines()
    return [line for line in lines if "is buffered to a temporary file" not in line]


def test_nginx(nginx):
    found = nginx.get("/a?b=c", headers={"X-A": "b"}).json()
    assert found["REMOTE_ADDR"] == "127.0.0.1" and found["wsgi.url_scheme"] == "https"
    assert (found["HTTP_X_A"], found["HTTP_HOST"]) == ("b", "127.0.0.1:%d" % nginx.port)
    assert nginx.get("/old/stream").body.count(b"\n") == 5
    with nginx.connect() as conn:
        for _ in range(50):
            conn.send(get("", "/stream"))
            assert conn.read_response().body.count(b"\n") == 5
            conn.send(post("Content-Length: 100000\r\n", b"x" * 100_000))
            assert conn.read_response().body == b"x" * 100_000
            conn.send(get("", "/status/304"))
            assert conn.read_response().status == 304
            conn.send(get("", "/status/204"))
            assert conn.read_response().status == 204
            conn.send(b"HEAD /big/100 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert conn.read_response("HEAD").status == 200
    assert complaints(nginx) == []


def test_nginx_uploads(nginx):
    for size in (1, 20_000, 3_000_000):
        data = os.urandom(size)
        assert nginx.post("/echo", data).body == data
        coded = b"%x\r\n%s\r\n0\r\n\r\n" % (size, data)
        with nginx.connect() as conn:
            conn.send(post("Transfer-Encoding: chunked\r\n", coded))
            assert conn.read_response().body == data
    assert complaints(nginx) == []


def test_nginx_unread_uploads_are_no_502(nginx):
    for size in (10, 100_000, 3_000_000):
        for _ in range(5):
            with nginx.connect() as conn:
                conn.send(post("Content-Length: %d\r\n" % size, b"x" * size, "/unread"))
                assert conn.read_response().status == 200
            with nginx.connect() as conn:
                assert nginx.get("/status/500").status == 500
    assert complaints(nginx) == []


def test_nginx_with_many_clients(nginx):
    errors = []

    def ask(number):
        try:
            with Connection(nginx.address) as conn:
                for turn in range(30):
                    conn.send(get("", "/a?%d-%d" % (number, turn)))
                    assert conn.read_response().json()["QUERY_STRING"] == "%d-%d" % (number, turn)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert complaints(nginx) == []
