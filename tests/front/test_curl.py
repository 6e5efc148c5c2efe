"""`stoker curl` against small servers of each protocol: what they get, and what it makes of their
answers."""

import contextlib
import os
import shlex
import socket
import struct
import subprocess
import threading

import pytest

COMMAND = shlex.split(os.environ.get("STOKER_TEST_COMMAND", "stoker"))


def curl(*args, stdin=None):
    """Runs the command; what comes out."""
    return subprocess.run(
        [*COMMAND, "curl", *args], input=stdin, capture_output=True, timeout=60, check=False
    )


@contextlib.contextmanager
def fake(talk, family=socket.AF_INET, address=("127.0.0.1", 0)):
    """A server for one connection; `talk` gets it. Yields its address and a list of what it returned."""
    listener = socket.socket(family)
    listener.bind(address)
    listener.listen(1)
    listener.settimeout(30)
    seen = []

    def serve():
        try:
            conn = listener.accept()[0]
        except OSError:
            return
        with conn:
            conn.settimeout(30)
            seen.append(talk(conn))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname(), seen
    finally:
        thread.join(40)
        listener.close()


def exactly(conn, count):
    data = b""
    while len(data) < count:
        piece = conn.recv(count - len(data))
        assert piece, "the client ended with %d bytes missing" % (count - len(data))
        data += piece
    return data


def uwsgi(conn):
    """Reads a packet: modifiers, variables, body."""
    one, size, two = struct.unpack("<BHB", exactly(conn, 4))
    packet, env = exactly(conn, size), {}
    while packet:
        words = []
        for _ in range(2):
            (length,) = struct.unpack("<H", packet[:2])
            words.append(packet[2 : 2 + length].decode())
            packet = packet[2 + length :]
        assert words[0] not in env
        env[words[0]] = words[1]
    return (one, two), env, exactly(conn, int(env.get("CONTENT_LENGTH") or 0))


def scgi(conn):
    length = b""
    while not length.endswith(b":"):
        length += exactly(conn, 1)
    words = exactly(conn, int(length[:-1])).decode().split("\0")
    assert exactly(conn, 1) == b"," and words.pop() == ""
    assert words[0] == "CONTENT_LENGTH"
    env = dict(zip(words[::2], words[1::2]))
    assert env["SCGI"] == "1"
    return env, exactly(conn, int(env["CONTENT_LENGTH"]))


def record(kind, content=b"", padding=0):
    return struct.pack(">BBHHBx", 1, kind, 1, len(content), padding) + content + b"x" * padding


def fastcgi(conn):
    """Reads a request: the variables and the body."""
    streams = {4: b"", 5: b""}
    ended = set()
    while ended != {4, 5}:
        version, kind, number, length, padding = struct.unpack(">BBHHBx", exactly(conn, 8))
        content = exactly(conn, length + padding)[:length]
        assert (version, number) == (1, 1)
        if kind == 1:
            assert content == b"\0\1\0\0\0\0\0\0"
        elif content:
            streams[kind] += content
        else:
            ended.add(kind)
    env, data = {}, streams[4]
    while data:
        sizes = []
        for _ in range(2):
            wide = data[0] & 0x80
            sizes.append(struct.unpack(">I", data[:4])[0] & 0x7FFFFFFF if wide else data[0])
            data = data[4 if wide else 1 :]
        env[data[: sizes[0]].decode()] = data[sizes[0] : sum(sizes)].decode()
        data = data[sum(sizes) :]
    return env, streams[5]


def http(conn):
    data = b""
    while b"\r\n\r\n" not in data:
        data += exactly(conn, 1)
    head = data.decode()
    length = [line[16:] for line in head.split("\r\n") if line.startswith("Content-Length: ")]
    return head, exactly(conn, int(length[0]) if length else 0)


def answering(read, answer):
    def talk(conn):
        request = read(conn)
        conn.sendall(answer)
        return request

    return talk


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"
CGI = b"Status: 404 Gone Fishing\r\nX-One: 1\r\n\r\nhello"


def test_uwsgi_over_tcp():
    with fake(answering(uwsgi, PLAIN)) as ((_, port), seen):
        run = curl(
            "uwsgi://127.0.0.1:%d/a%%20b/c?q=1" % port,
            *("-H", "X-Two: 2", "-H", "x-two: 3", "-H", "Cookie: a=1", "-H", "Accept:"),
            *("--param", "REMOTE_USER=ann", "--modifier1", "5"),
        )
    assert run.returncode == 0, run.stderr
    assert run.stdout == PLAIN
    modifiers, env, body = seen[0]
    assert modifiers == (5, 0)
    assert body == b""
    assert env["REQUEST_METHOD"] == "GET"
    assert env["REQUEST_URI"] == "/a%20b/c?q=1"
    assert env["PATH_INFO"] == "/a b/c"
    assert env["QUERY_STRING"] == "q=1"
    assert env["SERVER_PORT"] == str(port)
    assert env["HTTP_HOST"] == "127.0.0.1:%d" % port
    assert env["HTTP_X_TWO"] == "2, 3"
    assert env["HTTP_COOKIE"] == "a=1"
    assert env["REMOTE_USER"] == "ann"
    assert env["CONTENT_LENGTH"] == ""
    assert "HTTP_ACCEPT" not in env


@pytest.mark.parametrize("form", ["uwsgi://%s", "uwsgi://unix:%s", "uwsgi://unix:%s?mode=660"])
def test_uwsgi_over_unix(tmp_path, form):
    path = str(tmp_path / "s")
    with fake(answering(uwsgi, PLAIN), socket.AF_UNIX, path) as (_, seen):
        run = curl(form % path, "/x?y", "-d", "a=1", "-d", "b=2")
    assert run.stdout == PLAIN
    _, env, body = seen[0]
    assert (env["PATH_INFO"], env["QUERY_STRING"]) == ("/x", "y")
    assert (env["REQUEST_METHOD"], body) == ("POST", b"a=1&b=2")
    assert env["CONTENT_TYPE"] == "application/x-www-form-urlencoded"


def test_puwsgi():
    """On a connection that stays, the length of the answer is its end."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

    def kept(conn):
        request = uwsgi(conn)
        conn.sendall(answer)
        return request, conn.recv(1)

    with fake(kept) as ((_, port), seen):
        run = curl("puwsgi://127.0.0.1:%d/x" % port)
    assert run.returncode == 0, run.stderr
    assert run.stdout == answer
    (modifiers, env, _), behind = seen[0]
    assert (modifiers, env["PATH_INFO"], behind) == ((0, 0), "/x", b"")


def test_uwsgi_ping():
    def pong(conn):
        request = exactly(conn, 4)
        conn.sendall(b"\x64\0\0\x01")
        return request

    with fake(pong) as ((_, port), seen):
        run = curl("--ping", "uwsgi://127.0.0.1:%d" % port)
    assert run.returncode == 0
    assert seen == [b"\x64\0\0\0"]
    assert curl("--ping", "127.0.0.1:1").returncode == 2


def test_scgi():
    with fake(answering(scgi, CGI)) as ((_, port), seen):
        run = curl("scgi://127.0.0.1:%d/" % port, "-X", "PUT", "--data-binary", "a\nb")
    assert run.returncode == 0
    assert run.stdout == b"HTTP/1.1 404 Gone Fishing\r\nX-One: 1\r\n\r\nhello"
    env, body = seen[0]
    assert (env["REQUEST_METHOD"], body) == ("PUT", b"a\nb")


def test_fastcgi():
    answer = b"".join(
        [
            record(6, CGI[:10], 6),
            record(7, b"a warning\n"),
            record(6, CGI[10:], 3),
            record(6),
            record(3, bytes(8)),
        ]
    )
    cookie = "x" * 300
    with fake(answering(fastcgi, answer)) as ((_, port), seen):
        run = curl("fastcgi://127.0.0.1:%d/p" % port, "-H", "Cookie: " + cookie)
    assert run.returncode == 0
    assert run.stdout == b"HTTP/1.1 404 Gone Fishing\r\nX-One: 1\r\n\r\nhello"
    assert run.stderr == b"a warning\n"
    env, body = seen[0]
    assert (env["PATH_INFO"], env["HTTP_COOKIE"], body) == ("/p", cookie, b"")


def test_fastcgi_with_a_large_body(tmp_path):
    data = os.urandom(3_000_000)
    (tmp_path / "data").write_bytes(data)
    answer = record(6, b"Content-Type: a/b\n\n") + record(6) + record(3, bytes(8))
    with fake(answering(fastcgi, answer)) as ((_, port), seen):
        run = curl("fastcgi://127.0.0.1:%d" % port, "--data-binary", "@%s" % (tmp_path / "data"))
    assert run.stdout == b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n"
    assert seen[0][1] == data


def test_fastcgi_that_ends_early_or_refuses():
    with fake(answering(fastcgi, record(6, CGI))) as ((_, port), _):
        run = curl("fastcgi://127.0.0.1:%d" % port)
    assert run.returncode == 18
    assert b"before END_REQUEST" in run.stderr
    with fake(answering(fastcgi, record(3, b"\0\0\0\0\3\0\0\0"))) as ((_, port), _):
        run = curl("fastcgi://127.0.0.1:%d" % port)
    assert run.returncode == 8
    assert b"UNKNOWN_ROLE" in run.stderr


def test_http():
    answer = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    )
    with fake(answering(http, answer)) as ((_, port), seen):
        run = curl("127.0.0.1:%d/x" % port, "-d", "@-", stdin=b"a\r\nb\n")
    assert run.stdout == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello"
    head, body = seen[0]
    assert head.startswith("POST /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port)
    assert body == b"ab"


def test_proxy_header(tmp_path):
    def line(conn):
        data = b""
        while not data.endswith(b"\r\n"):
            data += exactly(conn, 1)
        return data.decode(), http(conn)[0]

    for args, family, words in (
        (("--haproxy-protocol",), "TCP4", "127.0.0.1 127.0.0.1"),
        (("--haproxy-clientip", "203.0.113.7"), "TCP4", "203.0.113.7 127.0.0.1"),
        (("--haproxy-clientip", "2001:db8:0::7"), "TCP6", "2001:db8::7 ::ffff:127.0.0.1"),
    ):
        with fake(answering(line, PLAIN)) as ((_, port), seen):
            run = curl("http://127.0.0.1:%d/" % port, *args)
        assert run.returncode == 0, run.stderr
        (header, head), = seen
        assert header.startswith("PROXY %s %s " % (family, words)) and header.endswith(" %d\r\n" % port)
        assert head.startswith("GET / HTTP/1.1\r\n")
    with fake(answering(line, PLAIN), socket.AF_UNIX, str(tmp_path / "s")) as (address, seen):
        assert curl("unix:" + address, "--haproxy-protocol").returncode == 0
    assert seen[0][0] == "PROXY UNKNOWN\r\n"
    assert curl("x", "--haproxy-clientip", "here").returncode == 2


def test_head_has_no_body():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    with fake(answering(http, answer)) as ((_, port), seen):
        run = curl("-I", "http://127.0.0.1:%d" % port)
    assert run.returncode == 0
    assert run.stdout == answer
    assert seen[0][0].startswith("HEAD / ")


def test_output_file_and_verbose(tmp_path):
    with fake(answering(uwsgi, PLAIN)) as ((_, port), _):
        run = curl("uwsgi://127.0.0.1:%d/v" % port, "-v", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b"hello"
    assert run.stdout == PLAIN[:-5]
    assert b"> PATH_INFO=/v\n" in run.stderr


def test_it_prints_as_it_comes():
    halves = threading.Event()

    def talk(conn):
        http(conn)
        conn.sendall(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        assert halves.wait(30)
        conn.sendall(b"second")

    with fake(talk) as ((_, port), _):
        with subprocess.Popen(
            [*COMMAND, "curl", "127.0.0.1:%d" % port], stdout=subprocess.PIPE
        ) as process:
            seen = b""
            while not seen.endswith(b"first"):
                seen += os.read(process.stdout.fileno(), 100)
            halves.set()
            assert process.stdout.read() == b"second"
    assert process.returncode == 0


def test_error_statuses():
    answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    for args, code in (((), 0), (("-f",), 22)):
        with fake(answering(http, answer)) as ((_, port), _):
            run = curl("127.0.0.1:%d" % port, *args)
        assert run.returncode == code
        assert (run.stdout == b"") == bool(args)


@pytest.mark.parametrize(
    "scheme,answer,code,words",
    [
        ("uwsgi", b"", 52, b"is it really a uwsgi socket?"),
        ("scgi", b"", 52, b"is it really an SCGI socket?"),
        ("fastcgi", b"", 52, b"is it really a FastCGI socket?"),
        ("fastcgi", b"HTTP/1.1 400 Bad Request\r\n\r\n", 8, b"not FastCGI"),
        ("http", b"nothing of the kind", 8, b"no http response"),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", 18, b"6 bytes"),
    ],
)
def test_what_is_no_answer(scheme, answer, code, words):
    def talk(conn):
        conn.recv(1 << 16)
        conn.sendall(answer)
        conn.shutdown(socket.SHUT_WR)
        while conn.recv(1 << 16):
            pass

    with fake(talk) as ((_, port), _):
        run = curl("%s://127.0.0.1:%d" % (scheme, port))
    assert run.returncode == code, run.stderr
    assert words in run.stderr
    assert run.stderr.count(b"\n") == 1


def test_no_connection(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        run = curl("uwsgi://127.0.0.1:%d" % unused.getsockname()[1])
    assert run.returncode == 7
    assert b"cannot connect to 127.0.0.1 port" in run.stderr
    run = curl("scgi://" + str(tmp_path / "none"))
    assert run.returncode == 7
    assert b"not running" in run.stderr
    assert curl("-s", "unix:" + str(tmp_path / "none")).stderr == b""


def test_timeout():
    with fake(lambda conn: conn.recv(1 << 16) and conn.recv(1)) as ((_, port), _):
        run = curl("--timeout", "0.3", "127.0.0.1:%d" % port)
    assert run.returncode == 28
    assert b"in time" in run.stderr


@pytest.mark.parametrize(
    "args,code",
    [
        (("gopher://x/",), 1),
        (("http://x:99999/",), 3),
        (("http://::1:80/",), 3),
        (("unix:",), 3),
        (("http://x/a", "/b"), 3),
        (("http://x/a b",), 3),
        (("x", "-H", "nothing"), 2),
        (("x", "--param", "A=b"), 2),
        (("x", "--modifier1", "256"), 2),
        (("uwsgi://x", "--param", "nothing"), 2),
        (("x", "-d", "@/does/not/exist"), 26),
        ((), 2),
    ],
)
def test_mistakes(args, code):
    run = curl(*args)
    assert run.returncode == code
    assert run.stderr
