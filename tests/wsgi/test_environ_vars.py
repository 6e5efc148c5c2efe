"""Requests of front ends: their variables are a part of what is remembered of an environ."""
import random

import pytest

from tests.wsgi.micro_loop import uwsgi
from tests.wsgi.test_environ_shape import (
    Server, change, empty, head, keep, put_back, read, take_out,
)  # fmt: skip

pytestmark = pytest.mark.smoke

# Names of which some have a value of the server's own, and one comes twice.
NAMES = [
    "REMOTE_USER", "SERVER_NAME", "SERVER_PORT", "DOCUMENT_ROOT", "REQUEST_SCHEME", "HTTPS", "RAW_URI",
    "CUSTOM", "CUSTOM", "HTTP_CONNECTION", "A_NAME_OF_MORE_THAN_SIXTEEN_BYTES", "X", "PATH_TRANSLATED",
]  # fmt: skip
VALUES = ["1", "2", "ann", "x" * 40, "y" * 40, "\xe9t\xe9", "1" * 1024, "2" * 1025]
FIELDS = [("HTTP_HOST", "example.org"), ("HTTP_COOKIE", "a=b"), ("HTTP_X_OWN", "1")]


def packet(variables):
    return uwsgi([(a.encode("latin-1"), b.encode("latin-1")) for a, b in variables])


def request(target, path, query, script, others):
    return [
        ("REQUEST_METHOD", "GET"), ("REQUEST_URI", target), ("PATH_INFO", path), ("SCRIPT_NAME", script),
        ("QUERY_STRING", query), ("SERVER_PROTOCOL", "HTTP/1.1"), *others,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_requests(wsgi, seed):
    random_ = random.Random(seed)
    seen = []
    kept = []
    deeds = [read] * 12 + [keep, change, take_out, empty, put_back]

    def see(environ):
        seen.append(dict(environ))
        random_.choice(deeds)(environ, kept)

    server = Server(wsgi, see)
    sequences = [[random_.choice(NAMES) for _ in range(random_.randrange(0, 6))] for _ in range(8)]
    sequences += [["V%d" % i for i in range(60)], list(reversed(sequences[0])), sequences[1][:-1]]
    plain = head([("Host", "example.org"), ("Cookie", "a=b"), ("X-Own", "1")])
    server.ask(plain)
    own = {name: value for name, value in seen.pop().items() if name in NAMES}
    serials = {plain: 1}
    for _ in range(3000):
        names = random_.choice(sequences[: random_.choice((2, len(sequences)))])
        others = [(name, random_.choice(VALUES)) for name in names]
        target, path, query, script = random_.choice([
            ("/", "/", "", ""), ("/a?b=c", "/a", "b=c", ""), ("/a?b=c", "/rewritten", "b=c", ""),
            ("/a?b=c", "/a", "other", ""), ("/m/a", "/a", "", "/m"), ("/%41", "/A", "", ""),
        ])  # fmt: skip
        fields = FIELDS[: random_.randrange(1, 4)]
        data = packet(request(target, path, query, script, others + fields))
        if random_.random() < 0.2:
            data, others, fields, target, path, query, script = plain, [], FIELDS, "/", "/", "", ""
        serial = serials.setdefault(data, len(serials) + 1) if random_.random() < 0.7 else 0
        body = random_.choice([b"", b"", b"body"])
        server.ask(data, body, serial=serial, port=random_.choice([1000, 2000]))
        environ = seen.pop()
        expected = {**own, "RAW_URI": target, **dict(others), **dict(fields)}
        found = {
            name: value
            for name, value in environ.items()
            if name in NAMES or name[0] == "V" or name.startswith("HTTP_")
        }
        assert found == expected
        assert environ["PATH_INFO"] == path and environ["SCRIPT_NAME"] == script
        assert environ["QUERY_STRING"] == query and environ["REQUEST_URI"] == target
        assert environ["REMOTE_PORT"] in ("1000", "2000")
        assert "mine" not in environ
        for dict_, copy in kept:
            assert dict_ == copy
        del kept[:-5]


def test_an_environ_with_variables_is_used_again(wsgi):
    ids = []
    server = Server(wsgi, lambda environ: ids.append(id(environ)))
    other = []
    for i in range(20):
        other.append([object() for _ in range(50)])  # takes freed memory
        server.ask(packet(request("/", "/", "", "", [("SERVER_NAME", str(i)), *FIELDS])))
    assert len(set(ids[5:])) == 1
