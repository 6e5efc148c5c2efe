"""Requests whose field names repeat are answered from templates: nothing may leak through these."""
import random
import sys
import threading
import weakref

import pytest

pytestmark = pytest.mark.smoke


def head(fields, target="/", method="GET", version="1.1"):
    lines = ["%s %s HTTP/%s" % (method, target, version)]
    lines.extend("%s: %s" % field for field in fields)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def expected_fields(fields):
    found = {}
    for name, value in fields:
        key = name.upper().replace("-", "_")
        if key == "PROXY":
            continue
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        if key in found:
            value = found[key] + ("; " if key == "HTTP_COOKIE" else ", ") + value
        found[key] = value
    return found


def fields_of(environ):
    return {
        key: value
        for key, value in environ.items()
        if key.startswith("HTTP_") or key.startswith("CONTENT_")
    }


class Server:
    """One application that is asked many times; `see` gets each environ while it is in use."""

    def __init__(self, wsgi, see):
        self.wsgi = wsgi
        self.see = see
        self.host = wsgi.host(self)

    def __call__(self, environ, start_response):
        self.see(environ)
        start_response("200 OK", [])
        return []

    def ask(self, request, body=b"", length=None, **kwargs):
        length = len(body) if length is None else length
        result = self.wsgi.core.request(self.host, request, [body], length, **kwargs)
        assert not result[3], self.wsgi.log()


NAMES = [
    "Accept", "Accept-Encoding", "User-Agent", "Cookie", "Authorization", "Proxy", "X-Own", "x-own",
    "Referer", "Content-Type", "X-" + "Long" * 40, "Via", "Cookie", "Transfer-Own",
]  # fmt: skip
VALUES = ["", "a", "b", "ab", "x" * 40, "y" * 40, "\xe9t\xe9", "1" * 1024, "2" * 1025, "session=1"]


def keep(environ, kept):
    kept.append((environ, dict(environ)))


def change(environ, kept):
    environ["HTTP_COOKIE"] = "changed"
    environ["mine"] = object()


def take_out(environ, kept):
    environ.pop("HTTP_ACCEPT", None)
    del environ["PATH_INFO"]


def empty(environ, kept):
    environ.clear()


def put_back(environ, kept):
    environ["PATH_INFO"] = environ.pop("PATH_INFO")


def read(environ, kept):
    environ.get("PATH_INFO")


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_requests(wsgi, seed):
    random_ = random.Random(seed)
    seen = []
    kept = []
    deeds = [read] * 12 + [keep, change, take_out, empty, put_back]

    def see(environ):
        seen.append(dict(environ))
        deed(environ, kept)

    server = Server(wsgi, see)
    sequences = []
    for _ in range(14):
        names = [random_.choice(NAMES) for _ in range(random_.randrange(0, 7))]
        sequences.append(["Host"] + names)
    sequences.append(["Host"] + ["X-%d" % i for i in range(30)])
    sequences.extend([list(reversed(sequences[0])), sequences[1][:-1], sequences[2] + ["X-More"]])
    serials = {}
    for _ in range(3000):
        deed = random_.choice(deeds) if random_.random() < 0.5 else read
        names = random_.choice(sequences[: random_.choice((3, len(sequences)))])
        fields = [
            (name, "example.org" if name == "Host" else random_.choice(VALUES)) for name in names
        ]
        target = random_.choice(["/", "/a?b=c", "/a", "/%41?x"])
        method = random_.choice(["GET", "GET", "POST"])
        version = random_.choice(["1.1", "1.1", "1.0"])
        request = head(fields, target, method, version)
        serial = serials.setdefault(request, len(serials) + 1) if random_.random() < 0.7 else 0
        script_name = random_.choice(["", "", "", "/a"]) if target.startswith("/a") else ""
        server.ask(
            request,
            random_.choice([b"", b"", b"body"]),
            serial=serial,
            script_name=script_name,
            endpoint=random_.choice([0, 0, 1]),
            scheme=random_.choice(["http", "http", "https"]),
            forwarded_host=random_.choice([None, None, None, "elsewhere"]),
        )
        environ = seen.pop()
        expected = expected_fields(fields)
        found = fields_of(environ)
        expected["HTTP_HOST"] = found["HTTP_HOST"]  # by the proxy, sometimes
        assert found["HTTP_HOST"] in ("example.org", "elsewhere")
        assert found == expected
        assert list(found) == list(expected)
        path, _, query = target.partition("?")
        path = path.replace("%41", "A")[len(script_name) :]
        assert environ["PATH_INFO"] == path
        assert environ["SCRIPT_NAME"] == script_name
        assert environ["QUERY_STRING"] == query
        assert environ["REQUEST_URI"] == target
        assert environ["REQUEST_METHOD"] == method
        assert environ["SERVER_PROTOCOL"] == "HTTP/" + version
        assert "mine" not in environ
        for dict_, copy in kept:
            assert dict_ == copy
        del kept[:-5]


def test_values_of_a_client_do_not_reach_another(wsgi):
    seen = []
    server = Server(wsgi, lambda environ: seen.append(dict(environ)))
    both = [("Host", "h"), ("Cookie", "a"), ("Authorization", "Basic a")]
    for i in range(50):
        fields = [(name, value + str(i)) for name, value in both]
        for sent in (fields, fields[:2], [fields[0], fields[2]], fields[:1], fields[::-1]):
            server.ask(head(sent))
            assert fields_of(seen.pop()) == expected_fields(sent)


def test_an_environ_that_is_only_read_is_used_again(wsgi):
    ids = []
    server = Server(wsgi, lambda environ: ids.append(id(environ)))
    other = []
    for i in range(20):
        other.append([object() for _ in range(50)])  # takes freed memory
        server.ask(head([("Host", "h"), ("Cookie", str(i))]))
    assert len(set(ids[5:])) == 1


def test_an_environ_that_is_kept_stays_as_it_is(wsgi):
    kept = []
    server = Server(wsgi, kept.append)
    for i in range(100):
        server.ask(head([("Host", "h"), ("Cookie", str(i))]))
    assert [environ["HTTP_COOKIE"] for environ in kept] == [str(i) for i in range(100)]
    assert len({id(environ) for environ in kept}) == 100


def test_an_iterator_keeps_it_as_well(wsgi):
    kept = []
    server = Server(wsgi, lambda environ: kept.append(environ.items()))
    for i in range(50):
        server.ask(head([("Host", "h"), ("Cookie", str(i))]))
    assert [dict(items)["HTTP_COOKIE"] for items in kept] == [str(i) for i in range(50)]


def test_what_is_put_into_it_goes_with_the_request(wsgi):
    class Thing:
        pass

    alive = []

    def see(environ):
        thing = Thing()
        alive.append(weakref.ref(thing))
        environ["thing"] = thing

    server = Server(wsgi, see)
    for _ in range(200):
        server.ask(head([("Host", "h")]))
        assert alive.pop()() is None


def test_a_changed_value_does_not_stay(wsgi):
    seen = []

    def see(environ):
        seen.append(dict(environ))
        environ["HTTP_HOST"] = "mine"
        environ["PATH_INFO"] = "/mine"
        environ.setdefault("added", 1)

    server = Server(wsgi, see)
    for _ in range(200):
        server.ask(head([("Host", "h")]), serial=7)
        environ = seen.pop()
        assert (environ["HTTP_HOST"], environ["PATH_INFO"]) == ("h", "/")
        assert "added" not in environ


CHANGES = {
    "set": lambda environ: environ.__setitem__("HTTP_HOST", "mine"),
    "same": lambda environ: environ.__setitem__("HTTP_HOST", environ["HTTP_HOST"] + ""),
    "del": lambda environ: environ.__delitem__("HTTP_HOST"),
    "pop": lambda environ: environ.pop("wsgi.input"),
    "popitem": lambda environ: environ.popitem(),
    "clear": lambda environ: environ.clear(),
    "update": lambda environ: environ.update(HTTP_HOST="mine", more=1),
    "setdefault": lambda environ: environ.setdefault("more", 1),
    "refill": lambda environ: (environ.clear(), environ.update({"HTTP_HOST": "mine"})),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_kind_of_change_is_seen(wsgi, change):
    """Now and then, so that the loans between are not given up."""
    seen = []
    turn = []

    def see(environ):
        seen.append(dict(environ))
        turn.append(1)
        if len(turn) % 5 == 0:
            change(environ)

    server = Server(wsgi, see)
    for _ in range(60):
        server.ask(head([("Host", "h"), ("Accept", "*/*")]), serial=9)
    assert all(environ == seen[0] for environ in seen)


def test_nested_requests_of_one_shape(wsgi):
    """While one request has it, another gets one of its own."""
    seen = []

    def see(environ):
        seen.append(environ["HTTP_COOKIE"])
        if len(seen) % 3:
            thread = threading.Thread(
                target=server.ask, args=(head([("Host", "h"), ("Cookie", str(len(seen)))]),)
            )
            before = dict(environ)
            thread.start()
            thread.join()
            assert environ == before

    server = Server(wsgi, see)
    for _ in range(10):
        start = len(seen)
        server.ask(head([("Host", "h"), ("Cookie", str(start))]))
        assert seen[start:] == [str(start), str(start + 1), str(start + 2)]


@pytest.mark.parametrize("shaped", [False, True])
def test_ports(wsgi, shaped):
    """REMOTE_PORT of the endpoint that has one, absent at the one that has none."""
    seen = []
    server = Server(wsgi, lambda environ: seen.append(environ.get("REMOTE_PORT")))
    request = head([("Host", "h")] + ([] if shaped else [("Via", "a"), ("Via", "b")]))
    for port in (1, 9, 10, 80, 443, 9999, 10000, 65535, 54320, 54321, 50224, 50225, 1, 65535):
        server.ask(request, port=port)
        assert seen.pop() == str(port)
        server.ask(request, endpoint=1)
        assert seen.pop() is None
