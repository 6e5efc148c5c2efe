"""Wrong messages: for each, what the application gets, the client sees, and the log says.

A case is a list of messages with what send() raises for each, or None. It runs twice: the
application catches what is raised and goes on, or it does not.
"""

import ast
import re
import urllib.parse

import pytest

from tests.asgi.conftest import LOOPS
from tests.lib.websocket import CLOSE, TEXT, WebSocket

APP = """
    import ast, asyncio, json, urllib.parse

    outcomes = {}
    START = {"type": "http.response.start", "status": 200}

    class Other:
        pass

    async def perform(script, number, receive, send, catches):
        found = outcomes[number] = []
        for step in script:
            try:
                if step == "receive":
                    message = await receive()
                    found.append([message["type"], message.get("code")])
                elif step == "sleep":
                    await asyncio.sleep(0)
                else:
                    step = objects().get(step, step) if isinstance(step, str) else step
                    await send(step)
                    found.append(None)
            except BaseException as error:
                found.append("%s: %s" % (type(error).__name__, error))
                if not catches:
                    raise

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        query = urllib.parse.parse_qs(scope["query_string"].decode())
        if "script" in query:
            script = ast.literal_eval(query["script"][0])
            return await perform(script, query["number"][0], receive, send, "catch" in query)
        await send({**START, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(outcomes.get(query["number"][0])).encode()})

    def objects():
        return {
            "iterators": {**START, "headers": iter([iter([b"x-a", b"1"])])},
            "generator": {**START, "headers": (pair for pair in [(b"x-a", b"1")])},
            "bad generator": {**START, "headers": (1 // 0 for _ in [1])},
            "bytearray": {"type": "http.response.body", "body": bytearray(b"array")},
            "memoryview": {"type": "http.response.body", "body": memoryview(b"0123")[::2]},
            "object": {"type": "http.response.body", "body": Other()},
            "bool": {"type": "http.response.body", "body": b"x", "more_body": Other()},
            "subclass": type("Message", (dict,), {})({"type": "http.response.body", "body": b"mine"}),
            "bytes header": {**START, "headers": [(bytearray(b"x-a"), b"1")]},
        }
"""

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"body"}
MORE = {"type": "http.response.body", "body": b"more", "more_body": True}
TRAILERS = {"type": "http.response.trailers", "headers": []}


def start(**more):
    return {**START, **more}


def body(**more):
    return {**BODY, **more}


# name: steps, status, body
HTTP = {
    "nothing but": ([(START, None), (BODY, None)], 200, b"body"),
    "more keys": ([(start(more=1, trailers=False, reason="x"), None), (body(more=1), None)], 200, b"body"),
    "no headers": ([({"type": "http.response.start", "status": 201}, None), ({"type": "http.response.body"}, None)], 201, b""),
    "iterators": ([("iterators", None), (BODY, None)], 200, b"body"),
    "generator": ([("generator", None), (BODY, None)], 200, b"body"),
    "bytearray": ([(START, None), ("bytearray", None)], 200, b"array"),
    "subclass of dict": ([(START, None), ("subclass", None)], 200, b"mine"),
    "status of 599": ([(start(status=599), None), (BODY, None)], 599, b"body"),
    "start twice": ([(START, None), (START, "RuntimeError: .*'http.response.body' has to follow"), (BODY, None)], 200, b"body"),
    "start behind body": ([(START, None), (MORE, None), (START, "RuntimeError: .*the response has begun"), (BODY, None)], 200, b"morebody"),
    "start behind end": ([(START, None), (BODY, None), (START, "RuntimeError: .*complete already")], 200, b"body"),
    "body behind end": ([(START, None), (BODY, None), (BODY, "RuntimeError: .*complete already")], 200, b"body"),
    "body first": ([(BODY, "RuntimeError: .*'http.response.start' has to come first"), (START, None), (BODY, None)], 200, b"body"),
    "empty body first": ([({"type": "http.response.body"}, "RuntimeError: .*has to come first"), (START, None), (BODY, None)], 200, b"body"),
    "trailers first": ([(TRAILERS, "RuntimeError: .*has to come first"), (START, None), (BODY, None)], 200, b"body"),
    "trailers in the place of a body": ([(start(trailers=True), None), (TRAILERS, "RuntimeError: .*body' has to follow"), (BODY, None)], 200, b"body"),
    "trailers unannounced": ([(START, None), (BODY, None), (TRAILERS, "RuntimeError: .*complete already")], 200, b"body"),
    "no dict": ([(5, "TypeError: send\\(\\) takes a dict with a 'type', got 5"), (START, None), (BODY, None)], 200, b"body"),
    "None": ([(None, "TypeError: .*got None"), (START, None), (BODY, None)], 200, b"body"),
    "list": ([([("type", "http.response.start")], "TypeError: .*takes a dict"), (START, None), (BODY, None)], 200, b"body"),
    "no type": ([({"status": 200}, "TypeError: .*takes a dict with a 'type'"), (START, None), (BODY, None)], 200, b"body"),
    "type of bytes": ([({"type": b"http.response.start"}, "RuntimeError: .*the type has to be a str"), (START, None), (BODY, None)], 200, b"body"),
    "type of None": ([({"type": None}, "RuntimeError: .*the type has to be a str"), (START, None), (BODY, None)], 200, b"body"),
    "unknown type": ([({"type": "http.response.end"}, "RuntimeError: .*none of an HTTP response"), (START, None), (BODY, None)], 200, b"body"),
    "type of receive": ([({"type": "http.request", "body": b""}, "RuntimeError: .*none of an HTTP response"), (START, None), (BODY, None)], 200, b"body"),
    "type of a WebSocket": ([({"type": "websocket.accept"}, "RuntimeError: .*none of an HTTP response"), (START, None), (BODY, None)], 200, b"body"),
    "type of a lifespan": ([(START, None), ({"type": "lifespan.startup.complete"}, "RuntimeError: .*none of"), (BODY, None)], 200, b"body"),
    "type beyond latin-1": ([({"type": "http.response.st\u0101rt"}, "RuntimeError: .*none of"), (START, None), (BODY, None)], 200, b"body"),
    "no status": ([({"type": "http.response.start"}, "KeyError: .*has no 'status'"), (START, None), (BODY, None)], 200, b"body"),
    "status of str": ([(start(status="200"), "TypeError: .*status must be an int like 200, got '200'"), (START, None), (BODY, None)], 200, b"body"),
    "status of None": ([(start(status=None), "TypeError: .*status must be an int"), (START, None), (BODY, None)], 200, b"body"),
    "status of float": ([(start(status=200.0), "TypeError: .*status must be an int"), (START, None), (BODY, None)], 200, b"body"),
    "status of 100": ([(start(status=100), "ValueError: .*within 200..599"), (START, None), (BODY, None)], 200, b"body"),
    "status of 600": ([(start(status=600), "ValueError: .*within 200..599"), (START, None), (BODY, None)], 200, b"body"),
    "status negative": ([(start(status=-200), "(Type|Value)Error: .*status"), (START, None), (BODY, None)], 200, b"body"),
    "status huge": ([(start(status=2**80), "(Type|Overflow|Value)Error"), (START, None), (BODY, None)], 200, b"body"),
    "headers of None": ([(start(headers=None), "TypeError: .*headers must be an iterable of pairs of bytes, got None"), (START, None), (BODY, None)], 200, b"body"),
    "headers of int": ([(start(headers=5), "TypeError: .*headers must be an iterable of pairs of bytes, got 5"), (START, None), (BODY, None)], 200, b"body"),
    "headers of dict": ([(start(headers={b"x-a": b"1"}), "TypeError: .*pair of bytes \\(name, value\\), got b'x-a'"), (START, None), (BODY, None)], 200, b"body"),
    "headers that raise": ([("bad generator", "ZeroDivisionError"), (START, None), (BODY, None)], 200, b"body"),
    "header of str": ([(start(headers=[("x-a", "1")]), "TypeError: .*pair of bytes"), (START, None), (BODY, None)], 200, b"body"),
    "header of bytearray": ([("bytes header", "TypeError: .*pair of bytes"), (START, None), (BODY, None)], 200, b"body"),
    "header value of str": ([(start(headers=[(b"x-a", "1")]), "TypeError: .*pair of bytes"), (START, None), (BODY, None)], 200, b"body"),
    "header of one": ([(start(headers=[(b"x-a",)]), "TypeError: .*pair of bytes"), (START, None), (BODY, None)], 200, b"body"),
    "header of three": ([(start(headers=[[b"x-a", b"1", b"2"]]), "TypeError: .*pair of bytes"), (START, None), (BODY, None)], 200, b"body"),
    "header of None": ([(start(headers=[None]), "TypeError: .*pair of bytes"), (START, None), (BODY, None)], 200, b"body"),
    "header name empty": ([(start(headers=[(b"", b"1")]), "ValueError: .*not a token"), (START, None), (BODY, None)], 200, b"body"),
    "pseudo header": ([(start(headers=[(b":status", b"200")]), "ValueError: .*not a token"), (START, None), (BODY, None)], 200, b"body"),
    "header of two lines": ([(start(headers=[(b"x-a", b"1\r\nx-b: 2")]), "ValueError: header b'x-a': .*line break|ValueError: .*line break"), (START, None), (BODY, None)], 200, b"body"),
    "header with NUL": ([(start(headers=[(b"x-a", b"1\0")]), "ValueError: .*control character"), (START, None), (BODY, None)], 200, b"body"),
    "second header wrong": ([(start(headers=[(b"x-a", b"1"), (b"x b", b"2")]), "ValueError: .*not a token"), (START, None), (BODY, None)], 200, b"body"),
    "length of text": ([(start(headers=[(b"content-length", b"4x")]), "ValueError: .*not a number"), (START, None), (BODY, None)], 200, b"body"),
    "length twice": ([(start(headers=[(b"content-length", b"4"), (b"content-length", b"5")]), "ValueError: .*differs"), (START, None), (BODY, None)], 200, b"body"),
    "body of str": ([(START, None), (body(body="text"), "TypeError: .*body must be bytes, got str"), (BODY, None)], 200, b"body"),
    "body of None": ([(START, None), (body(body=None), "TypeError: .*body must be bytes, got NoneType"), (BODY, None)], 200, b"body"),
    "body of int": ([(START, None), (body(body=5), "TypeError: .*body must be bytes, got int"), (BODY, None)], 200, b"body"),
    "body of list": ([(START, None), (body(body=[b"x"]), "TypeError: .*body must be bytes, got list"), (BODY, None)], 200, b"body"),
    "body of an object": ([(START, None), ("object", "TypeError: .*body must be bytes, got Other"), (BODY, None)], 200, b"body"),
    "body in pieces": ([(START, None), ("memoryview", "BufferError|TypeError|ValueError"), (BODY, None)], 200, b"body"),
    "second body of str": ([(START, None), (MORE, None), (body(body="text"), "TypeError: .*body must be bytes, got str"), (BODY, None)], 200, b"morebody"),
    "more_body of None": ([(START, None), (body(more_body=None), None)], 200, b"body"),
    "more_body of 1": ([(START, None), (body(more_body=1), None), (BODY, None)], 200, b"bodybody"),
    "path missing": ([(START, None), ({"type": "http.response.pathsend"}, "KeyError: .*has no 'path'"), (BODY, None)], 200, b"body"),
    "path of int": ([(START, None), ({"type": "http.response.pathsend", "path": 5}, "TypeError"), (BODY, None)], 200, b"body"),
    "path of nothing": ([(START, None), ({"type": "http.response.pathsend", "path": "/nowhere/file"}, "FileNotFoundError: .*nowhere"), (BODY, None)], 200, b"body"),
    "path of a directory": ([(START, None), ({"type": "http.response.pathsend", "path": "/"}, "ValueError: .*not a regular file"), (BODY, None)], 200, b"body"),
    "path behind body": ([(START, None), (MORE, None), ({"type": "http.response.pathsend", "path": "/etc/passwd"}, "RuntimeError: .*the response has begun"), (BODY, None)], 200, b"morebody"),
    "path first": ([({"type": "http.response.pathsend", "path": "/etc/passwd"}, "RuntimeError: .*has to come first"), (START, None), (BODY, None)], 200, b"body"),
    "file missing": ([(START, None), ({"type": "http.response.zerocopysend"}, "KeyError: .*has no 'file'"), (BODY, None)], 200, b"body"),
    "file of str": ([(START, None), ({"type": "http.response.zerocopysend", "file": "/etc/passwd"}, "TypeError"), (BODY, None)], 200, b"body"),
    "file of nobody": ([(START, None), ({"type": "http.response.zerocopysend", "file": 9999}, "OSError: .*Bad file"), (BODY, None)], 200, b"body"),
    "file offset negative": ([(START, None), ({"type": "http.response.zerocopysend", "file": 0, "offset": -1}, "ValueError: .*negative"), (BODY, None)], 200, b"body"),
    "hints behind end": ([(START, None), (BODY, None), ({"type": "http.response.early_hint", "links": []}, "RuntimeError: .*complete already")], 200, b"body"),
    "debug": ([({"type": "http.response.debug", "info": {}}, "RuntimeError: .*does not offer it"), (START, None), (BODY, None)], 200, b"body"),
}  # fmt: skip


@pytest.fixture(scope="module", params=LOOPS)
def server(request, serve_module):
    return serve_module(APP, "-w1", "--loop", request.param)


numbers = iter(range(1, 1000000))


def target(script, mode):
    number = next(numbers)
    return number, "/?number=%d&%s=1&script=%s" % (number, mode, urllib.parse.quote(repr(script), safe=""))


def outcomes(server, number):
    return server.get("/?number=%d" % number).json()


def check(found, wanted):
    assert len(found) == len(wanted), found
    for text, pattern in zip(found, wanted):
        assert text is None if pattern is None else text is not None and re.match(pattern, text), (text, pattern)


def ask(server, url):
    """A response with all that came behind its head, and whether it was whole."""
    with server.connect() as conn:
        conn.send("GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % url)
        response = conn.read_head()
        rest = conn.read_to_end()
    if response.header("transfer-encoding") != "chunked":
        return response, rest, len(rest) == int(response.header("content-length"))
    whole = rest.endswith(b"0\r\n\r\n")
    return response, b"".join(re.findall(rb"[0-9a-f]+\r\n(.*?)\r\n", rest)), whole


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("name", list(HTTP))
def test_http(server, name, waits):
    steps, status, wanted = HTTP[name]
    script = (["sleep"] if waits else []) + [step for step, _ in steps]
    errors = [error for _, error in steps]
    number, url = target(script, "catch")
    response, data, whole = ask(server, url)
    assert (response.status, data, whole) == (status, wanted, True)
    check(outcomes(server, number), errors)


@pytest.mark.parametrize("name", [name for name in HTTP if any(error for _, error in HTTP[name][0])])
def test_http_uncaught(server, name):
    steps, status, wanted = HTTP[name]
    first = next(i for i, (_, error) in enumerate(steps) if error)
    number, url = target([step for step, _ in steps], "raise")
    response, data, whole = ask(server, url)
    before = [step for step, _ in steps[:first]]
    if BODY in before:
        assert (response.status, data, whole) == (status, wanted, True)
    elif MORE in before:
        assert (response.status, data, whole) == (200, b"more", False)
    else:
        assert (response.status, whole) == (500, True)
    check(outcomes(server, number), [error for _, error in steps[: first + 1]])
    behind = ", after its response" if BODY in before else ""
    server.wait_log(r"GET /\?number=%d&.*: unhandled exception in the application%s:" % (number, behind))


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("steps, text", [([], "without sending a response"), ([START], "before its response was complete")])
def test_http_without_an_end(server, steps, text, waits):
    number, url = target((["sleep"] if waits else []) + steps, "catch")
    assert ask(server, url)[0].status == 500
    server.wait_log("number=%d&.*returned %s" % (number, text))


def test_http_without_an_end_of_the_body(server):
    number, url = target([START, MORE], "catch")
    response, data, whole = ask(server, url)
    assert (response.status, data, whole) == (200, b"more", False)
    server.wait_log("number=%d&.*returned before its response was complete" % number)


def test_receive_behind_the_end(server):
    number, url = target(["receive", START, BODY, "receive", "receive"], "raise")
    assert ask(server, url)[1] == b"body"
    assert outcomes(server, number) == [["http.request", None], None, None, ["http.disconnect", None], ["http.disconnect", None]]


def until(server, number, condition):
    import time

    end = time.monotonic() + 20
    while not condition(outcomes(server, number) or []):
        assert time.monotonic() < end, outcomes(server, number)
        time.sleep(0.01)
    return outcomes(server, number)


@pytest.mark.parametrize("steps", [[], [START], [START, MORE]], ids=["new", "started", "begun"])
def test_send_to_a_client_that_has_left(server, steps):
    """OSError, each time, and not a word in the log."""
    script = ["receive", *steps, "receive", *([START] if not steps else []), MORE, BODY, "receive"]
    number, url = target(script, "catch")
    with server.connect() as conn:
        conn.send("GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % url)
        until(server, number, lambda found: len(found) == 1 + len(steps))
        conn.reset()
    found = until(server, number, lambda found: len(found) == len(script))
    behind = found[1 + len(steps) :]
    assert behind[0] == ["http.disconnect", None] == behind[-1]
    for text in behind[1:-1]:
        assert re.match("(OSError|BrokenPipeError): ", text), found
    assert "number=%d&" % number not in server.log()


def test_a_client_that_has_left_is_no_error(server):
    number, url = target(["receive", START, "receive", BODY], "raise")
    with server.connect() as conn:
        conn.send("GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % url)
        until(server, number, lambda found: len(found) == 2)
        conn.reset()
    found = until(server, number, lambda found: len(found) == 4)
    assert re.match("(OSError|BrokenPipeError): ", found[-1])
    assert "number=%d&" % number not in server.log()


# ---- WebSockets ---------------------------------------------------------------------------------

ACCEPT = {"type": "websocket.accept"}
WORD = {"type": "websocket.send", "text": "word"}
CLOSING = {"type": "websocket.close"}
REFUSE = {"type": "websocket.http.response.start", "status": 401, "headers": []}
REFUSED = {"type": "websocket.http.response.body", "body": b"no"}


def message(kind, **more):
    return {"type": "websocket." + kind, **more}


# name: steps, the status of the handshake, the close code of an accepted one
SOCKETS = {
    "nothing but": ([("receive", ["websocket.connect", None]), (ACCEPT, None), (WORD, None), (CLOSING, None)], 101, 1000),
    "accept before connect": ([(ACCEPT, None), (WORD, None), (CLOSING, None)], 101, 1000),
    "more keys": ([(message("accept", subprotocol=None, headers=[], more=1), None), (message("send", text="word", bytes=None), None), (message("close", code=1000, reason=None), None)], 101, 1000),
    "binary": ([(ACCEPT, None), (message("send", bytes=b"x", text=None), None), (WORD, None)], 101, 1000),
    "reason": ([(ACCEPT, None), (WORD, None), (message("close", code=3001, reason="why"), None)], 101, 3001),
    "refused": ([("receive", ["websocket.connect", None]), (CLOSING, None)], 403, None),
    "refused before connect": ([(CLOSING, None)], 403, None),
    "refused by a response": ([(REFUSE, None), (REFUSED, None)], 401, None),
    "send first": ([(WORD, "RuntimeError: .*has to come first"), (ACCEPT, None), (WORD, None), (CLOSING, None)], 101, 1000),
    "accept twice": ([(ACCEPT, None), (ACCEPT, "RuntimeError: .*'websocket.send' or 'websocket.close' has to follow"), (WORD, None)], 101, 1000),
    "close twice": ([(ACCEPT, None), (WORD, None), (CLOSING, None), (CLOSING, "RuntimeError: .*closed already|RuntimeError: .*has been sent already")], 101, 1000),
    "send behind close": ([(ACCEPT, None), (WORD, None), (CLOSING, None), (WORD, "RuntimeError: .*has been sent already")], 101, 1000),
    "accept behind close": ([(CLOSING, None), (ACCEPT, "RuntimeError: .*has been refused")], 403, None),
    "send behind refusal": ([(CLOSING, None), (WORD, "RuntimeError: .*has been refused")], 403, None),
    "refusal behind accept": ([(ACCEPT, None), (REFUSE, "RuntimeError: .*has to follow"), (WORD, None)], 101, 1000),
    "accept in a refusal": ([(REFUSE, None), (ACCEPT, "RuntimeError: .*has been refused"), (REFUSED, None)], 401, None),
    "close in a refusal": ([(REFUSE, None), (CLOSING, "RuntimeError: .*has been refused"), (REFUSED, None)], 401, None),
    "body of a refusal first": ([(REFUSED, "RuntimeError: .*has to come first"), (REFUSE, None), (REFUSED, None)], 401, None),
    "behind a refusal": ([(REFUSE, None), (REFUSED, None), (REFUSED, "RuntimeError: .*has been refused")], 401, None),
    "refusal of str": ([(REFUSE, None), ({**REFUSED, "body": "no"}, "TypeError: .*body must be bytes"), (REFUSED, None)], 401, None),
    "type of HTTP": ([(START, "RuntimeError: .*none of a WebSocket"), (ACCEPT, None), (WORD, None)], 101, 1000),
    "type of receive": ([(ACCEPT, None), (message("receive", text="x"), "RuntimeError: .*none of a WebSocket"), (WORD, None)], 101, 1000),
    "unknown type": ([(ACCEPT, None), (message("nonsense"), "RuntimeError: .*none of a WebSocket"), (WORD, None)], 101, 1000),
    "no dict": ([("word", "TypeError: .*takes a dict"), (ACCEPT, None), (WORD, None)], 101, 1000),
    "no type": ([({"text": "x"}, "TypeError: .*takes a dict"), (ACCEPT, None), (WORD, None)], 101, 1000),
    "type of bytes": ([({"type": b"websocket.accept"}, "RuntimeError: .*has to be a str"), (ACCEPT, None), (WORD, None)], 101, 1000),
    "send of nothing": ([(ACCEPT, None), (message("send"), "TypeError: .*needs a 'bytes' of bytes or a 'text' of str"), (WORD, None)], 101, 1000),
    "send of None": ([(ACCEPT, None), (message("send", bytes=None, text=None), "TypeError: .*needs a"), (WORD, None)], 101, 1000),
    "send of both": ([(ACCEPT, None), (message("send", bytes=b"x", text="x"), "ValueError: .*both"), (WORD, None)], 101, 1000),
    "text of bytes": ([(ACCEPT, None), (message("send", text=b"x"), "TypeError: .*needs a"), (WORD, None)], 101, 1000),
    "bytes of str": ([(ACCEPT, None), (message("send", bytes="x"), "TypeError: .*needs a"), (WORD, None)], 101, 1000),
    "text of a surrogate": ([(ACCEPT, None), (message("send", text="\ud800"), "UnicodeEncodeError"), (WORD, None)], 101, 1000),
    "code of str": ([(ACCEPT, None), (WORD, None), (message("close", code="1000"), "TypeError: websocket.close: the code must be an int, got '1000'"), (CLOSING, None)], 101, 1000),
    "code of None": ([(ACCEPT, None), (WORD, None), (message("close", code=None), None)], 101, 1000),
    "code of 1005": ([(ACCEPT, None), (WORD, None), (message("close", code=1005), "ValueError: .*not a close code"), (CLOSING, None)], 101, 1000),
    "code of 99999": ([(ACCEPT, None), (WORD, None), (message("close", code=99999), "ValueError: .*not a close code"), (CLOSING, None)], 101, 1000),
    "code huge": ([(ACCEPT, None), (WORD, None), (message("close", code=2**80), "(Overflow|Value)Error"), (CLOSING, None)], 101, 1000),
    "reason of bytes": ([(ACCEPT, None), (WORD, None), (message("close", reason=b"x"), "TypeError: .*the reason must be a str"), (CLOSING, None)], 101, 1000),
    "subprotocol of bytes": ([(message("accept", subprotocol=b"a"), "TypeError: .*subprotocol"), (ACCEPT, None), (WORD, None)], 101, 1000),
    "subprotocol of others": ([(message("accept", subprotocol="a"), "ValueError: .*not one that the client offers"), (ACCEPT, None), (WORD, None)], 101, 1000),
    "headers of int": ([(message("accept", headers=5), "TypeError: .*headers"), (ACCEPT, None), (WORD, None)], 101, 1000),
    "header of str": ([(message("accept", headers=[("a", "b")]), "TypeError: .*pair of bytes"), (ACCEPT, None), (WORD, None)], 101, 1000),
    "header of the subprotocol": ([(message("accept", headers=[(b"sec-websocket-protocol", b"a")]), "ValueError: .*the server's to say"), (ACCEPT, None), (WORD, None)], 101, 1000),
    "header name": ([(message("accept", headers=[(b"a b", b"c")]), "ValueError: .*not a token"), (ACCEPT, None), (WORD, None)], 101, 1000),
    "header of two lines": ([(message("accept", headers=[(b"a", b"b\r\nc: d")]), "ValueError: .*line break"), (ACCEPT, None), (WORD, None)], 101, 1000),
}  # fmt: skip


def open_socket(server, steps, mode):
    number, url = target([step for step, _ in steps], mode)
    return number, WebSocket(server, url)


@pytest.mark.parametrize("name", list(SOCKETS))
def test_websocket(server, name):
    steps, status, code = SOCKETS[name]
    number, socket = open_socket(server, steps, "catch")
    with socket:
        assert socket.response.status == status
        if status == 101:
            texts = []
            while True:
                kind, data = socket.message()
                if kind == CLOSE:
                    break
                texts += [data] if kind == TEXT else []
            assert texts == [b"word"] and int.from_bytes(data[:2], "big") == code
    found = until(server, number, lambda found: len(found) == len(steps))
    for text, (_, wanted) in zip(found, steps):
        assert text == wanted if not isinstance(wanted, str) else text and re.match(wanted, text), (text, wanted)


@pytest.mark.parametrize("name", [name for name in SOCKETS if any(isinstance(error, str) for _, error in SOCKETS[name][0])])
def test_websocket_uncaught(server, name):
    steps, status, _ = SOCKETS[name]
    first = next(i for i, (_, error) in enumerate(steps) if isinstance(error, str))
    before = [step for step, _ in steps[:first]]
    number, socket = open_socket(server, steps, "raise")
    with socket:
        if ACCEPT in before:
            assert socket.response.status == 101
            while (found := socket.message())[0] != CLOSE:
                assert found == (TEXT, b"word")
            assert int.from_bytes(found[1][:2], "big") == (1000 if CLOSING in before else 1011)
        elif CLOSING in before or REFUSED in before:
            assert socket.response.status == status
        else:
            assert socket.response.status == 500
    server.wait_log(r"GET /\?number=%d&.*: unhandled exception in the application" % number)


@pytest.mark.parametrize("steps", [["receive"], ["receive", "sleep"], []])
def test_websocket_without_an_answer(server, steps):
    number, url = target(steps, "catch")
    with WebSocket(server, url) as socket:
        assert socket.response.status == 500
    server.wait_log("number=%d&.*without websocket.accept or websocket.close" % number)


def test_websocket_behind_the_clients_close(server):
    number, url = target(["receive", ACCEPT, "receive", "receive", WORD, CLOSING, "receive"], "catch")
    with WebSocket(server, url) as socket:
        socket.close(4001, b"bye")
    found = until(server, number, lambda found: len(found) == 7)
    assert found[2:4] == [["websocket.disconnect", 4001]] * 2 and found[6] == ["websocket.disconnect", 4001]
    assert re.match("(OSError|BrokenPipeError)", found[4])
    assert "number=%d&" % number not in server.log()


def test_tables():
    """Every message that an application may send is in some case."""
    sent = repr([HTTP, SOCKETS])
    for kind in ("start", "body", "trailers", "early_hint", "pathsend", "zerocopysend", "debug"):
        assert "http.response." + kind in sent
    for kind in ("accept", "send", "close", "http.response.start", "http.response.body"):
        assert "websocket." + kind in sent
    assert ast.literal_eval(repr(HTTP["nothing but"][0][0][0])) == START


NESTED = """
    import asyncio

    def all_of(send):
        send({"type": "http.response.start", "status": 200, "headers": []})
        send({"type": "http.response.body", "body": b"inner"})

    class Value:
        def __init__(self, call, value):
            self.call, self.value = call, value

        def __bool__(self):
            self.call()
            return self.value

        def __iter__(self):
            self.call()
            return iter(self.value)

        def __fspath__(self):
            self.call()
            return self.value

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        if "wait" in scope["path"]:
            await asyncio.sleep(0)
        which = scope["path"].split("/")[-1]
        whole = lambda: all_of(send)
        rest = lambda: send({"type": "http.response.body", "body": b"inner"})
        start = {"type": "http.response.start", "status": 200, "headers": []}
        try:
            if which in ("more_body", "path"):
                await send(start)
            if which == "more_body":
                await send({"type": "http.response.body", "body": b"outer", "more_body": Value(rest, False)})
            elif which == "path":
                await send({"type": "http.response.pathsend", "path": Value(rest, "app.py")})
            elif which == "trailers":
                await send({**start, "trailers": Value(whole, False)})
            elif which == "headers":
                await send({**start, "headers": Value(whole, ())})
            elif which == "header":
                await send({**start, "headers": [Value(whole, (b"x-a", b"b"))]})
        except (RuntimeError, ValueError) as error:
            print("%s: %s" % (scope["path"], error), flush=True)
"""


def test_a_message_that_ends_the_response_while_it_is_read(serve):
    """By what it has of the application's own code: that is told of it, and nothing else happens."""
    server = serve(NESTED, "--workers", "1")
    assert server.get("/more_body").body == b"inner"  # now there is a worker
    pids = server.worker_pids()
    for way in ("/", "/wait/"):
        for which in ("more_body", "path", "trailers", "headers"):
            response = server.get(way + which)
            assert (response.status, response.body) == (200, b"inner"), way + which
        server.get(way + "header")
    assert server.worker_pids() == pids
