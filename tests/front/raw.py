"""What the tests of HTTP/1.1 share: raw requests, and what each kind of answer must look like."""

HOST = "Host: x\r\n"
SECOND = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n"


def encode(data):
    return data.encode("latin-1") if isinstance(data, str) else data


def get(fields="", target="/", version="1.1", host=HOST):
    """A request without a body; ``fields`` are complete lines."""
    return encode("GET %s HTTP/%s\r\n%s%s\r\n" % (target, version, host, fields))


def post(fields, body=b"", target="/echo", version="1.1"):
    """A request whose framing is up to ``fields``."""
    return encode("POST %s HTTP/%s\r\n%s%s\r\n" % (target, version, HOST, fields)) + encode(body)


def chunked(body, fields=""):
    """A request with chunked coding, whose body is given as coded bytes."""
    return post("Transfer-Encoding: chunked\r\n" + fields, body)


def calls(server):
    """The calls of the application since this was asked last."""
    return server.get("/calls").json()


def check_refused(server, data, status, begun=False):
    """One answer, which announces and brings the end of the connection; nothing reaches the
    application, neither the request nor what follows it. `begun` is for requests whose body is
    wrong: with body = stream the application has been called by then."""
    calls(server)
    responses = server.send_raw(encode(data) + SECOND, expect=None)
    assert [response.status for response in responses] == [status], responses
    assert responses[0].will_close
    assert responses[0].body.startswith(b"%d " % status)
    assert responses[0].header("date") is not None
    found = calls(server)
    assert ["GET", "/second"] not in found
    if not begun:
        assert found == []


def check_served(server, data, count=1, methods=()):
    """Each request gets its answer, and the connection then serves one more."""
    responses = server.send_raw(encode(data) + SECOND, expect=count + 1, methods=methods)
    assert responses[-1].json()["REQUEST_URI"] == "/second"
    return responses[:-1]
