"""Header fields and Host: RFC 9110 section 5, RFC 9112 sections 2.2, 3.2 and 5."""

import pytest

from tests.front.raw import calls, check_refused, check_served, get

LINE = "GET / HTTP/1.1\r\n"

REFUSED = [
    # names
    ("space before the colon", "Host: x\r\nA : b\r\n"),
    ("tab before the colon", "Host: x\r\nA\t: b\r\n"),
    ("space before the colon of Host", "Host : x\r\n"),
    ("space before the colon of Content-Length", "Host: x\r\nContent-Length : 0\r\n"),
    ("space before the colon of Transfer-Encoding", "Host: x\r\nTransfer-Encoding : chunked\r\n"),
    ("empty name", "Host: x\r\n: b\r\n"),
    ("no colon", "Host: x\r\nabc\r\n"),
    ("no colon in the last line", "Host: x\r\nabc"),
    ("space in the name", "Host: x\r\nA B: c\r\n"),
    ("name in parentheses", "Host: x\r\n(A): b\r\n"),
    ("slash in the name", "Host: x\r\nA/B: c\r\n"),
    ("bracket in the name", "Host: x\r\nA[0]: c\r\n"),
    ("quote in the name", 'Host: x\r\n"A": c\r\n'),
    ("comma in the name", "Host: x\r\nA,B: c\r\n"),
    ("semicolon in the name", "Host: x\r\nA;B: c\r\n"),
    ("equals sign in the name", "Host: x\r\nA=B: c\r\n"),
    ("at sign in the name", "Host: x\r\nA@B: c\r\n"),
    ("backslash in the name", "Host: x\r\nA\\B: c\r\n"),
    ("braces in the name", "Host: x\r\n{A}: c\r\n"),
    ("NUL in the name", "Host: x\r\nA\0B: c\r\n"),
    ("control character in the name", "Host: x\r\nA\x01B: c\r\n"),
    ("DEL in the name", "Host: x\r\nA\x7fB: c\r\n"),
    ("CR in the name", "Host: x\r\nA\rB: c\r\n"),
    ("latin-1 in the name", "Host: x\r\nA\xe9: c\r\n"),
    ("raw UTF-8 in the name", "Host: x\r\n\xc3\xa9: c\r\n"),
    ("vertical tab in the name", "Host: x\r\nA\x0b: c\r\n"),
    # folding and white space
    ("line fold by a space", "Host: x\r\nA: b\r\n c\r\n"),
    ("line fold by a tab", "Host: x\r\nA: b\r\n\tc\r\n"),
    ("line fold of an empty value", "Host: x\r\nA:\r\n b\r\n"),
    ("line fold of Host", "Host:\r\n x\r\n"),
    ("line fold of Transfer-Encoding", "Host: x\r\nTransfer-Encoding:\r\n chunked\r\n"),
    ("line fold of Content-Length", "Host: x\r\nContent-Length:\r\n 0\r\n"),
    ("line fold of nothing", "Host: x\r\nA: b\r\n \r\n"),
    ("space before the first field", " Host: x\r\n"),
    ("tab before the first field", "\tHost: x\r\n"),
    ("space before the first field, Host behind", " A: b\r\nHost: x\r\n"),
    # values
    ("NUL in a value", "Host: x\r\nA: b\0c\r\n"),
    ("bare CR in a value", "Host: x\r\nA: b\rc\r\n"),
    ("bare CR before a field", "Host: x\r\n\rA: b\r\n"),
    ("bare CR that hides a field", "Host: x\r\nA: b\rTransfer-Encoding: chunked\r\n"),
    ("bare LF that hides a field", "Host: x\r\nA: b\nTransfer-Encoding: chunked\r\n"),
    ("bare LF behind a field", "Host: x\nA: b\r\n"),
    ("CR CR LF behind a field", "Host: x\r\nA: b\r\r\n"),
    ("control character in a value", "Host: x\r\nA: b\x01c\r\n"),
    ("escape character in a value", "Host: x\r\nA: b\x1b[0mc\r\n"),
    ("vertical tab in a value", "Host: x\r\nA: b\x0bc\r\n"),
    ("form feed in a value", "Host: x\r\nA: b\x0cc\r\n"),
    ("backspace in a value", "Host: x\r\nA: b\x08\r\n"),
    ("DEL in a value", "Host: x\r\nA: b\x7fc\r\n"),
    ("NUL alone", "Host: x\r\nA: \0\r\n"),
    # Host
    ("no Host", ""),
    ("no Host but others", "A: b\r\n"),
    ("empty Host", "Host:\r\n"),
    ("Host of white space", "Host:  \t \r\n"),
    ("two Hosts", "Host: x\r\nHost: y\r\n"),
    ("two equal Hosts", "Host: x\r\nHost: x\r\n"),
    ("two Hosts in other letters", "Host: x\r\nhOST: x\r\n"),
    ("list of Hosts", "Host: x, y\r\n"),
    ("Host with a path", "Host: x/a\r\n"),
    ("Host with a slash", "Host: x/\r\n"),
    ("Host with a query", "Host: x?a\r\n"),
    ("Host with a fragment", "Host: x#a\r\n"),
    ("Host with user information", "Host: u@x\r\n"),
    ("Host with a password", "Host: u:p@x\r\n"),
    ("Host with a space", "Host: x y\r\n"),
    ("Host with a tab", "Host: x\ty\r\n"),
    ("Host with a scheme", "Host: http://x\r\n"),
    ("Host with a word as port", "Host: x:http\r\n"),
    ("Host with a negative port", "Host: x:-1\r\n"),
    ("Host with a port with a sign", "Host: x:+80\r\n"),
    ("Host with a port too high", "Host: x:65536\r\n"),
    ("Host with a port of many digits", "Host: x:000080000000\r\n"),
    ("Host with two ports", "Host: x:80:81\r\n"),
    ("Host with a port only", "Host: :80\r\n"),
    ("Host with a backslash", "Host: x\\y\r\n"),
    ("Host with a quote", 'Host: x"y\r\n'),
    ("Host in angle brackets", "Host: <x>\r\n"),
    ("Host with a brace", "Host: {x}\r\n"),
    ("Host with a caret", "Host: x^y\r\n"),
    ("Host with a bar", "Host: x|y\r\n"),
    ("Host with a back quote", "Host: `x`\r\n"),
    ("Host of raw UTF-8", "Host: \xc3\xa9\r\n"),
    ("Host of latin-1", "Host: \xe9\r\n"),
    ("Host with a broken escape", "Host: a%2\r\n"),
    ("Host with an open bracket", "Host: [::1\r\n"),
    ("Host with a closing bracket only", "Host: ::1]\r\n"),
    ("Host of IPv6 without brackets", "Host: ::1\r\n"),
    ("Host of bad IPv6", "Host: [:::1]\r\n"),
    ("Host of IPv4 in brackets", "Host: [127.0.0.1]\r\n"),
    ("Host of a name in brackets", "Host: [x]\r\n"),
    ("Host with a zone", "Host: [fe80::1%25eth0]\r\n"),
    ("Host with text behind the bracket", "Host: [::1]x\r\n"),
]


@pytest.mark.parametrize("fields", [case[1] for case in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused(probe, fields):
    check_refused(probe, LINE + fields + "\r\n", 400)


@pytest.mark.parametrize("end", ["\n\r\n", "\n\n", "\r\n\n", "\r\r\n", "\n"], ids=repr)
def test_ends_of_the_head_that_are_none(probe, end):
    check_refused(probe, LINE + "Host: x" + end, 400)


# (name, field lines beside Host, what environ has; None: the key is absent)
SERVED = [
    ("plain", "A: b\r\n", {"HTTP_A": "b"}),
    ("no space behind the colon", "A:b\r\n", {"HTTP_A": "b"}),
    ("much space round the value", "A: \t  b \t \r\n", {"HTTP_A": "b"}),
    ("space within the value", "A: b \t c\r\n", {"HTTP_A": "b \t c"}),
    ("empty value", "A:\r\nB: c\r\n", {"HTTP_A": "", "HTTP_B": "c"}),
    ("value of white space", "A:  \t\r\n", {"HTTP_A": ""}),
    ("colons in the value", "A: b:c::\r\n", {"HTTP_A": "b:c::"}),
    ("value that begins with a colon", "A:: b\r\n", {"HTTP_A": ": b"}),
    ("latin-1 in the value", "A: \xe9\xff\x80\r\n", {"HTTP_A": "\xe9\xff\x80"}),
    ("UTF-8 in the value", "A: \xc3\xa9\r\n", {"HTTP_A": "\xc3\xa9"}),
    ("quotes in the value", 'A: "b, c"\r\n', {"HTTP_A": '"b, c"'}),
    ("names in any case", "x-ABC-d: e\r\n", {"HTTP_X_ABC_D": "e"}),
    ("name of one letter", "z: e\r\n", {"HTTP_Z": "e"}),
    ("digits in the name", "X-1-2: e\r\n", {"HTTP_X_1_2": "e"}),
    ("characters of a token in the name", "!#$%&'*+.^`|~: e\r\n", {"HTTP_!#$%&'*+.^`|~": "e"}),
    ("repeated", "A: b\r\nA: c\r\na: d\r\n", {"HTTP_A": "b, c, d"}),
    ("repeated, one of them empty", "A:\r\nA: c\r\n", {"HTTP_A": ", c"}),
    ("repeated, others between", "A: b\r\nB: x\r\nA: c\r\n", {"HTTP_A": "b, c", "HTTP_B": "x"}),
    ("repeated cookies", "Cookie: a=b\r\nCookie: c=d; e=f\r\n", {"HTTP_COOKIE": "a=b; c=d; e=f"}),
    ("Content-Type has no prefix", "Content-Type: text/x\r\n", {"CONTENT_TYPE": "text/x", "HTTP_CONTENT_TYPE": None}),
    ("Content-Length has no prefix", "Content-Length: 0\r\n", {"CONTENT_LENGTH": "0", "HTTP_CONTENT_LENGTH": None}),
    ("Authorization is there", "Authorization: Basic abc=\r\n", {"HTTP_AUTHORIZATION": "Basic abc="}),
    ("Proxy is not", "Proxy: http://evil/\r\n", {"HTTP_PROXY": None}),
    ("name with an underscore is dropped", "A_B: c\r\n", {"HTTP_A_B": None}),
    ("underscore beside the real one", "X-A: b\r\nX_A: c\r\n", {"HTTP_X_A": "b"}),
    ("underscore before the real one", "X_A: c\r\nX-A: b\r\n", {"HTTP_X_A": "b"}),
    ("spoofed X_Forwarded_For", "X_Forwarded_For: 1.2.3.4\r\n", {"HTTP_X_FORWARDED_FOR": None, "REMOTE_ADDR": "127.0.0.1"}),
    ("spoofed Content_Length", "Content_Length: 5\r\n", {"CONTENT_LENGTH": None, "HTTP_CONTENT_LENGTH": None}),
    ("spoofed Content_Type", "Content_Type: 5\r\n", {"CONTENT_TYPE": None, "HTTP_CONTENT_TYPE": None}),
    ("spoofed Transfer_Encoding", "Transfer_Encoding: chunked\r\n", {"HTTP_TRANSFER_ENCODING": None, "body": ""}),
    ("underscore first", "_A: c\r\n", {"HTTP__A": None}),
    ("underscore last", "A_: c\r\n", {"HTTP_A_": None}),
    ("long name", "A" * 300 + ": c\r\n", {"HTTP_" + "A" * 300: "c"}),
    ("long value", "A: " + "b" * 9000 + "\r\n", {"HTTP_A": "b" * 9000}),
    ("User-Agent", "User-Agent: x/1 (y; z)\r\n", {"HTTP_USER_AGENT": "x/1 (y; z)"}),
    ("Upgrade that nobody speaks", "Connection: Upgrade\r\nUpgrade: foo\r\n", {"PATH_INFO": "/"}),
    ("offer of h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", {"PATH_INFO": "/"}),
    ("unknown Connection option", "Connection: foo, bar\r\n", {"HTTP_CONNECTION": "foo, bar"}),
    ("empty elements in Connection", "Connection: , ,,\r\n", {"PATH_INFO": "/"}),
    ("TE", "TE: trailers\r\n", {"HTTP_TE": "trailers"}),
    ("Range", "Range: bytes=0-5\r\n", {"HTTP_RANGE": "bytes=0-5"}),
]


@pytest.mark.parametrize("fields, wanted", [case[1:] for case in SERVED], ids=[c[0] for c in SERVED])
def test_served(probe, fields, wanted):
    (response,) = check_served(probe, get(fields))
    found = response.json()
    assert {key: found.get(key) for key in wanted} == wanted


HOSTS = [
    "x", "example.org", "example.org.", "example.org:8080", "EXAMPLE.org", "x:", "x:0", "x:65535", "127.0.0.1",
    "127.0.0.1:80", "[::1]", "[::1]:80", "[2001:db8::ff00:42:8329]", "[::ffff:1.2.3.4]", "[v1.a:b]", "a_b.example",
    "xn--mnchen-3ya.de", "a%20b", "1", "-a", "a..b", "a!$&'()*+,;=b", "~x",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_hosts(probe, host):
    (response,) = check_served(probe, get(host="Host: %s\r\n" % host))
    assert response.json()["HTTP_HOST"] == host


def test_http10_needs_no_host(probe):
    (response,) = probe.send_raw("GET /a HTTP/1.0\r\n\r\n")
    assert response.status == 200 and "HTTP_HOST" not in response.json()


@pytest.mark.parametrize("host", ["Host: x/y\r\n", "Host: x\r\nHost: x\r\n", "Host: u@x\r\n"])
def test_a_bad_host_is_bad_in_http10_too(probe, host):
    check_refused(probe, "GET /a HTTP/1.0\r\n%s\r\n" % host, 400)


def test_the_application_sees_no_field_of_another_request(probe):
    """Names and values are cached: one request must never see those of another."""
    first, second, third = probe.send_raw(
        get("A: b\r\nCookie: secret=1\r\nContent-Type: x/y\r\n") + get() + get("a: c\r\n"), expect=3
    )
    assert first.json()["HTTP_A"] == "b"
    assert not {"HTTP_A", "HTTP_COOKIE", "CONTENT_TYPE"} & set(second.json())
    assert third.json()["HTTP_A"] == "c"


def test_many_names_that_a_client_makes_up(probe):
    for start in range(0, 2000, 100):
        fields = "".join("X-%d-y: %d\r\n" % (n, n) for n in range(start, start + 100))
        found = probe.send_raw(get(fields))[0].json()
        assert all(found["HTTP_X_%d_Y" % n] == str(n) for n in range(start, start + 100))


def test_a_refused_request_is_logged(probe):
    check_refused(probe, LINE + "Host: x\r\nA : b\r\n\r\n", 400)
    probe.wait_log(r"answered 400: white space between field name and colon")
    calls(probe)
