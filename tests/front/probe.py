"""The application behind the tests of HTTP/1.1: it tells what it was asked, and remembers each call.

Served with one worker, so that ``/calls`` knows of all calls since it was asked last.
"""

import json

calls = []


def reply(start_response, body, content_type="application/octet-stream"):
    start_response(
        "200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    )
    return [body]


def say_calls(environ, start_response):
    body = json.dumps(calls).encode()
    calls.clear()
    return reply(start_response, body, "application/json")


def say_all(environ, start_response):
    """The environ and the body, as JSON."""
    found = {key: value for key, value in environ.items() if isinstance(value, (str, bool))}
    found["body"] = environ["wsgi.input"].read().decode("latin-1")
    return reply(start_response, json.dumps(found).encode(), "application/json")


def echo(environ, start_response):
    return reply(start_response, environ["wsgi.input"].read())


def unread(environ, start_response):
    return reply(start_response, b"unread")


def stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (b"block %d\n" % number for number in range(5))


def status(environ, start_response):
    """/status/CODE: that status, with a body all the same."""
    code = environ["PATH_INFO"].rpartition("/")[2]
    start_response(code + " Some Reason", [("Content-Type", "text/plain")])
    return [b"a body for %s\n" % code.encode()]


def big(environ, start_response):
    """/big/SIZE: so many bytes."""
    return reply(start_response, b"x" * int(environ["PATH_INFO"].rpartition("/")[2]))


def blocks(environ, start_response):
    """/blocks/COUNT: so many blocks of 64 KiB, one after the other."""
    count = int(environ["PATH_INFO"].rpartition("/")[2])
    start_response(
        "200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(count * 65536))]
    )
    return (b"%08d" % number * 8192 for number in range(count))


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/calls":
        return say_calls(environ, start_response)
    calls.append([environ["REQUEST_METHOD"], environ["REQUEST_URI"]])
    name = path.split("/")[1] if path.startswith("/") else ""
    views = {"echo": echo, "unread": unread, "stream": stream, "status": status, "big": big, "blocks": blocks}
    return views.get(name, say_all)(environ, start_response)
