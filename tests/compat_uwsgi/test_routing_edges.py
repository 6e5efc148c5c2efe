"""Internal routing where requests end, wait, come through a front end, or share what others have left."""

import importlib
import json
import socket
import struct
import textwrap
import tracemalloc

from tests.compat_uwsgi.test_as_uwsgi import Theirs
from tests.compat_uwsgi.test_routing import ASYNC, basic, ours_in, write
from tests.lib.websocket import CONT, TEXT, frame

EDGES = r"""
    response-route = ^/shut break:
    final-route-run = break:403 Late
    route = ^/scheme setscheme:${HTTP_X_FORWARDED_PROTO}
    route-run = log:told ${REQUEST_URI}
    route-if = exists:FOLDER/flag break:503 Maintenance
"""


def test_ends_and_neighbours(tmp_path):
    """What a rule closes gets no byte, and what one request does is nothing to the next."""
    write(tmp_path / "f", EDGES)
    with ours_in(tmp_path / "f").start("/") as server:
        for _ in range(2):
            with server.connect() as conn:
                conn.send("GET /shut HTTP/1.1\r\nHost: h\r\n\r\n")
                assert conn.read_to_end() == b""
        server.wait_log("GET /shut 444 ", out=True)
        for scheme, seen in (("evilx", "evilx"), ("ftp", "ftp"), ("https", "https"), ("HTTPS", "https"), ("http", "http"), (None, "http")):
            fields = [("X-Forwarded-Proto", scheme)] if scheme else []
            assert server.get("/scheme", headers=fields).json()["wsgi.url_scheme"] == seen
        with server.connect() as conn:
            conn.send("GET /x HTTP/1.1\r\nHost: h\r\n\r\nGET /shut HTTP/1.1\r\nHost: h\r\n\r\n")
            assert conn.read_response().status == 200
            assert conn.read_to_end() == b""


def test_another_answer_behind_the_body(tmp_path):
    """A rule that answers only when the body has come: what follows the body is the next request."""
    write(tmp_path / "f", EDGES)
    with ours_in(tmp_path / "f").start("/") as server:
        with server.connect() as conn:
            conn.send("POST /late HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
            assert conn.read_head().status == 100
            server.wait_log("told /late")
            (tmp_path / "f" / "flag").write_text("")
            conn.send("body body" + "GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
            answers = [conn.read_response() for _ in range(2)]
            assert [(answer.status, answer.reason) for answer in answers] == [(503, "Maintenance")] * 2
            (tmp_path / "f" / "flag").unlink()
            conn.send("POST /own HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
            assert conn.read_response().json()["CONTENT_LENGTH"] == "3"
        server.wait_log("told /next")


def test_the_end_of_a_detached_request(tmp_path):
    """Its last rules answer nothing, which would go to another one's client; and a long path does not get by them."""
    rules = EDGES + "    error-route-run = addheader:X-One: ${PATH_INFO}\n    final-route-run = log:over ${uwsgi[status]}\n"
    write(tmp_path / "f", rules.replace("final-route-run = break:403 Late", "final-route = ^/shut break:403 Late"))
    (tmp_path / "f" / "app.py").write_text(textwrap.dedent(ASYNC))
    with ours_in(tmp_path / "f", "--interface", "asgi").start("/") as server:
        for _ in range(2):
            with server.connect() as conn:
                conn.send("GET /shut HTTP/1.1\r\nHost: h\r\n\r\n")
                assert conn.read_to_end() == b""
            answer = server.get("/w")
            assert (answer.status, answer.json()["path"]) == (200, "/w")
        before = server.log().count("over 200")
        assert server.get("/" + "%41" * 2500).status == 200
        server.wait_log("(?s)" + "over 200.*" * (before + 1))


WHO = r"""
    route = ^/user setuser:bob
    route = ^/auth basicauth:r,joe:pw
    route = ^/line log:line ${PATH_INFO} end
    route = ^/who addvar:FOO=${PATH_INFO}
    route = ^/line seturi:${PATH_INFO}?a b
"""


def test_who_is_in_the_log(tmp_path, uwsgi):
    """The user of a rule, and not whom a client says to be; and one line of what a rule logs."""
    found = []
    for name in ("theirs", "ours"):
        place = tmp_path / name
        write(place, WHO)
        text = (place / "u.ini").read_text().replace("log-format = ", "log-format = XX %(user) %(var.REMOTE_USER) %(var.FOO) ")
        (place / "u.ini").write_text(text)
        server = Theirs(uwsgi, place, ["--plugin", "router_basicauth"]) if name == "theirs" else ours_in(place)
        try:
            server.start("/")
            for target in ("/user", "/auth", "/who", "/end"):
                assert server.get(target, headers=[basic("joe:pw")]).status == 200
            server.wait_log("GET /end", out=name == "ours")
            found.append([line for line in (server.stdout() + server.log()).splitlines() if line.startswith("XX")])
            if name == "ours":
                assert server.get("/line%0aforged").json()["REQUEST_URI"] == "/line%0Aforged?a b"
                server.wait_log(r"line /line\\x0aforged end\n")
        finally:
            server.kill()
    assert found[0] == found[1]
    assert [line.split()[1] for line in found[1][-4:]] == ["bob", "joe", "-", "-"]


def packet(variables):
    """A request by the uwsgi protocol."""
    data = b"".join(struct.pack("<H", len(part)) + part for pair in variables.items() for part in (text.encode() for text in pair))
    return struct.pack("<BHB", 0, len(data), 0) + data


def ask(place, **more):
    variables = {
        "REQUEST_METHOD": "GET", "REQUEST_URI": "/app/admin", "QUERY_STRING": "", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "h",
        "REMOTE_ADDR": "10.0.0.9", "REMOTE_PORT": "99", "SERVER_NAME": "h", "SERVER_PORT": "80", **more,
    }  # fmt: skip
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(place / "u.sock"))
        sock.sendall(packet(variables))
        head, _, body = b"".join(iter(lambda: sock.recv(65536), b"")).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return lines[0], sorted(line for line in lines if line.startswith("X-R")), body


FRONT = r"""
    socket = u.sock
    route = ^/admin addheader:X-R1: below ${PATH_INFO}
    route = ^/app/ addheader:X-R2: whole ${PATH_INFO}
    route-if = exists:FOLDER/flag addvar:FOO=rule
    response-route = ^/admin addheader:X-R3: below
    route-qs = other setscriptname:/other
"""


def test_what_a_front_end_says_of_the_path(tmp_path, uwsgi):
    """PATH_INFO as it came; and a variable that a rule sets is not the next request's."""
    asked = [{"SCRIPT_NAME": "/app", "PATH_INFO": "/admin"}, {"SCRIPT_NAME": "/app", "PATH_INFO": "/app/admin"}, {"PATH_INFO": "/app/admin"}]
    found = []
    for name in ("theirs", "ours"):
        place = tmp_path / name
        write(place, FRONT)
        server = Theirs(uwsgi, place, []) if name == "theirs" else ours_in(place)
        try:
            server.start("/")
            found.append([ask(place, **one)[:2] for one in asked])
            shown = json.loads(ask(place, **asked[0], QUERY_STRING="other")[2])
            found[-1].append((shown["SCRIPT_NAME"], shown["PATH_INFO"]))
            for foo in ("rule", "rule", "rule", "front", "front"):
                if foo == "rule":
                    (place / "flag").write_text("")
                elif (place / "flag").exists():
                    (place / "flag").unlink()
                assert json.loads(ask(place, FOO="front", **asked[0])[2])["FOO"] == foo
        finally:
            server.kill()
    assert found[0] == found[1]
    assert found[1][0][1] == ["X-R1: below /admin", "X-R3: below"]


def test_fragments_of_nothing():
    """A message of a WebSocket in very many empty fragments takes no memory, and each no longer than the one before."""
    decoder = importlib.import_module("compat_sources.uwsgi_websocket").Decoder(100)
    decoder.feed(frame(TEXT, b"a", fin=False))
    assert decoder.next() is None
    data = frame(CONT, b"", fin=False) * 100
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            decoder.feed(data)
            assert decoder.next() is None
        assert tracemalloc.get_traced_memory()[0] - before < 20000
    finally:
        tracemalloc.stop()
    decoder.feed(frame(CONT, b"b"))
    assert decoder.next() == (TEXT, b"ab")
