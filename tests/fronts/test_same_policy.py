"""One policy for heads: what HTTP refuses, the gateway protocols refuse with the same status.

Each row is one request, sent as HTTP and as packets of our own to the socket that tells protocols
apart. Where a fault cannot be written in a protocol (a line break in HTTP, a space in the name of a
variable), that protocol is left out.
"""

import re

import pytest

from tests.front.test_gateways import scgi, uwsgi
from tests.lib import fastcgi
from tests.lib.server import Connection

LONG = "v" * 40_000
FAULTS = {
    # name: (method, path, fields, status)
    "plain": ("GET", "/tell", [], 200),
    "bad host": ("GET", "/tell", [("Host", "a b")], 400),
    "host with a path": ("GET", "/tell", [("Host", "example.org/x")], 400),
    "host with a wrong port": ("GET", "/tell", [("Host", "example.org:x")], 400),
    "bad method": ("G(T", "/tell", [], 400),
    "control character": ("GET", "/tell", [("X-Test", "a\x01b")], 400),
    "nul": ("GET", "/tell", [("X-Test", "a\x00b")], 400),
    "delete": ("GET", "/tell", [("X-Test", "a\x7fb")], 400),
    "length that is no number": ("POST", "/tell", [("Content-Length", "1x")], 400),
    "length with a sign": ("POST", "/tell", [("Content-Length", "+1")], 400),
    "length that overflows": ("POST", "/tell", [("Content-Length", "99999999999999999999999")], 400),
    "body that is too large": ("POST", "/tell", [("Content-Length", str(300 << 20))], 413),
    "too many fields": ("GET", "/tell", [("X-Test-%d" % number, "x") for number in range(60)], 431),
    "too long a head": ("GET", "/tell", [("X-Test", LONG)], 431),
    "too long a target": ("GET", "/" + "p" * 9000, [], 414),
}


def http(method, path, fields):
    lines = ["%s %s HTTP/1.1" % (method, path)]
    if not any(name == "Host" for name, _ in fields):
        lines.append("Host: example.org")
    lines += ["%s: %s" % pair for pair in fields] + ["Connection: close"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def variables(method, path, fields):
    found = {
        "REQUEST_METHOD": method,
        "REQUEST_URI": path,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "example.org",
        "REMOTE_ADDR": "127.0.0.2",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "80",
    }
    for name, value in fields:
        key = name.upper().replace("-", "_")
        found[key if key == "CONTENT_LENGTH" else "HTTP_" + key] = value
    return list(found.items())


def by_scgi(pairs):
    """scgi() writes a length of its own."""
    data = scgi(pairs)
    length = dict(pairs).get("CONTENT_LENGTH")
    if length is None:
        return data
    body = data.partition(b":")[2][:-1].replace(b"CONTENT_LENGTH\x000\x00", b"CONTENT_LENGTH\0%s\0" % length.encode())
    return b"%d:%s," % (len(body), body)


def status(path, data):
    with Connection(path) as conn:
        conn.send(data)
        head = conn.read_available()
    if data[:1] == b"\x01":  # FastCGI's record of it
        head = head[8:]
    found = re.match(rb"(?:HTTP/1\.[01]|Status:) (\d{3}) ", head)
    assert found, head[:200]
    return int(found.group(1))


# A NUL ends a variable of SCGI, so there can be none within.
ROWS = [
    pytest.param(protocol, name, id="%s-%s" % (protocol, name))
    for protocol in ("http", "uwsgi", "fastcgi", "scgi")
    for name in FAULTS
    if (protocol, name) != ("scgi", "nul")
]


@pytest.mark.parametrize("protocol, name", ROWS)
def test_refused_alike(backend, protocol, name):
    method, path, fields, expected = FAULTS[name]
    if protocol == "http":
        data = http(method, path, fields)
    elif protocol == "uwsgi":
        data = uwsgi(variables(method, path, fields))
    elif protocol == "fastcgi":
        data = fastcgi.request(variables(method, path, fields), keep=False)
    else:
        data = by_scgi(variables(method, path, fields))
    assert status(str(backend.unix), data) == expected
