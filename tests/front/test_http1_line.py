"""Request lines: RFC 9112 sections 2 and 3."""

import pytest

from tests.front.raw import check_refused, check_served, get

TAIL = "Host: x\r\n\r\n"

REFUSED = [
    # method
    ("empty method", " / HTTP/1.1\r\n", 400),
    ("space before the method", " GET / HTTP/1.1\r\n", 400),
    ("tab before the method", "\tGET / HTTP/1.1\r\n", 400),
    ("NUL in the method", "G\0T / HTTP/1.1\r\n", 400),
    ("control character in the method", "G\x01T / HTTP/1.1\r\n", 400),
    ("method with a colon", "GE:T / HTTP/1.1\r\n", 400),
    ("method in parentheses", "(GET) / HTTP/1.1\r\n", 400),
    ("method with a slash", "GE/T / HTTP/1.1\r\n", 400),
    ("method with a quote", 'GE"T / HTTP/1.1\r\n', 400),
    ("method with a bracket", "GET[ / HTTP/1.1\r\n", 400),
    ("method with an at sign", "GE@T / HTTP/1.1\r\n", 400),
    ("method with raw UTF-8", b"G\xc3\x89T / HTTP/1.1\r\n", 400),
    ("method with DEL", "GE\x7fT / HTTP/1.1\r\n", 400),
    ("method with a comma", "GET,POST / HTTP/1.1\r\n", 400),
    ("method with an equals sign", "GE=T / HTTP/1.1\r\n", 400),
    # white space
    ("tab behind the method", "GET\t/ HTTP/1.1\r\n", 400),
    ("two spaces behind the method", "GET  / HTTP/1.1\r\n", 400),
    ("two spaces behind the target", "GET /  HTTP/1.1\r\n", 400),
    ("tab behind the target", "GET /\tHTTP/1.1\r\n", 400),
    ("space behind the version", "GET / HTTP/1.1 \r\n", 400),
    ("tab behind the version", "GET / HTTP/1.1\t\r\n", 400),
    ("vertical tab between the parts", "GET\x0b/ HTTP/1.1\r\n", 400),
    ("form feed between the parts", "GET /\x0cHTTP/1.1\r\n", 400),
    ("bare CR between the parts", "GET /\rHTTP/1.1\r\n", 400),
    ("space in the target", "GET /a b HTTP/1.1\r\n", 400),
    ("a fourth part", "GET / HTTP/1.1 x\r\n", 400),
    # line ends
    ("bare LF behind the line", "GET / HTTP/1.1\n", 400),
    ("bare CR behind the line", "GET / HTTP/1.1\rHost: x\r\n", 400),
    ("CR CR LF", "GET / HTTP/1.1\r\r\n", 400),
    ("LF CR", "GET / HTTP/1.1\n\r", 400),
    ("bare LF before the line", "\nGET / HTTP/1.1\r\n", 400),
    ("bare CR before the line", "\rGET / HTTP/1.1\r\n", 400),
    ("many empty lines before the line", "\r\n" * 20 + "GET / HTTP/1.1\r\n", 400),
    ("LF within the target", "GET /a\nb HTTP/1.1\r\n", 400),
    # target
    ("no target", "GET HTTP/1.1\r\n", 400),
    ("relative target", "GET index.html HTTP/1.1\r\n", 400),
    ("target of a query only", "GET ?a=b HTTP/1.1\r\n", 400),
    ("fragment", "GET /a#b HTTP/1.1\r\n", 400),
    ("fragment behind the query", "GET /a?b#c HTTP/1.1\r\n", 400),
    ("NUL in the target", "GET /a\0b HTTP/1.1\r\n", 400),
    ("control character in the target", "GET /a\x1fb HTTP/1.1\r\n", 400),
    ("DEL in the target", "GET /a\x7fb HTTP/1.1\r\n", 400),
    ("control character in the query", "GET /?a\x01b HTTP/1.1\r\n", 400),
    ("asterisk with GET", "GET * HTTP/1.1\r\n", 400),
    ("asterisk and more with OPTIONS", "OPTIONS *x HTTP/1.1\r\n", 400),
    ("authority with GET", "GET x:80 HTTP/1.1\r\n", 400),
    ("path with CONNECT", "CONNECT / HTTP/1.1\r\n", 400),
    ("CONNECT without a port", "CONNECT x HTTP/1.1\r\n", 400),
    ("CONNECT with an empty port", "CONNECT x: HTTP/1.1\r\n", 400),
    ("CONNECT with a word as port", "CONNECT x:http HTTP/1.1\r\n", 400),
    ("CONNECT with a port too high", "CONNECT x:65536 HTTP/1.1\r\n", 400),
    ("CONNECT with a path behind", "CONNECT x:80/ HTTP/1.1\r\n", 400),
    ("CONNECT with user information", "CONNECT u@x:80 HTTP/1.1\r\n", 400),
    ("CONNECT with a URL", "CONNECT http://x:80 HTTP/1.1\r\n", 400),
    ("unknown scheme", "GET ftp://x/ HTTP/1.1\r\n", 400),
    ("scheme of a script", "GET javascript:x HTTP/1.1\r\n", 400),
    ("one slash behind the scheme", "GET http:/x/ HTTP/1.1\r\n", 400),
    ("no slash behind the scheme", "GET http:x HTTP/1.1\r\n", 400),
    ("empty authority", "GET http:/// HTTP/1.1\r\n", 400),
    ("empty host before a port", "GET http://:80/ HTTP/1.1\r\n", 400),
    ("user information", "GET http://u:p@x/ HTTP/1.1\r\n", 400),
    ("port that is no number", "GET http://x:8a/ HTTP/1.1\r\n", 400),
    ("port with a sign", "GET http://x:+80/ HTTP/1.1\r\n", 400),
    ("port too high", "GET http://x:99999/ HTTP/1.1\r\n", 400),
    ("open bracket", "GET http://[::1/ HTTP/1.1\r\n", 400),
    ("bad IPv6 address", "GET http://[::g]/ HTTP/1.1\r\n", 400),
    ("backslash in the authority", "GET http://x\\y/ HTTP/1.1\r\n", 400),
    ("fragment in an absolute target", "GET http://x/#a HTTP/1.1\r\n", 400),
    ("absolute target of another host", "GET http://y/ HTTP/1.1\r\n", 400),
    ("absolute target of another port", "GET http://x:81/ HTTP/1.1\r\n", 400),
    ("absolute target of a longer host", "GET http://x.y/ HTTP/1.1\r\n", 400),
    # version
    ("HTTP/0.9 without version", "GET /\r\n", 400),
    ("HTTP/0.9 with a space", "GET / \r\n", 400),
    ("lower-case http", "GET / http/1.1\r\n", 400),
    ("no minor version", "GET / HTTP/1\r\n", 400),
    ("empty minor version", "GET / HTTP/1.\r\n", 400),
    ("minor version of two digits", "GET / HTTP/1.10\r\n", 400),
    ("major version of two digits", "GET / HTTP/11.1\r\n", 400),
    ("major version with a zero before", "GET / HTTP/01.1\r\n", 400),
    ("version with a sign", "GET / HTTP/+1.1\r\n", 400),
    ("version with a comma", "GET / HTTP/1,1\r\n", 400),
    ("version in hexadecimal", "GET / HTTP/1.a\r\n", 400),
    ("no slash in the version", "GET / HTTP1.1\r\n", 400),
    ("another protocol", "GET / ICY/1.1\r\n", 400),
    ("HTTPS as the protocol", "GET / HTTPS/1.1\r\n", 400),
    ("space within the version", "GET / HTTP/ 1.1\r\n", 400),
    ("version with a NUL", "GET / HTTP/1.1\0\r\n", 400),
    ("HTTP/2.0", "GET / HTTP/2.0\r\n", 505),
    ("HTTP/3.0", "GET / HTTP/3.0\r\n", 505),
    ("HTTP/0.9 spelled out", "GET / HTTP/0.9\r\n", 505),
    ("HTTP/9.9", "GET / HTTP/9.9\r\n", 505),
    ("SIP", "REGISTER sip:x SIP/2.0\r\n", 400),
    ("RTSP", "OPTIONS rtsp://x/ RTSP/1.0\r\n", 400),
]


@pytest.mark.parametrize("line, status", [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused(probe, line, status):
    data = line.encode("latin-1") if isinstance(line, str) else line
    check_refused(probe, data + TAIL.encode(), status)


# (name, request line, what environ has)
SERVED = [
    ("plain", "GET / HTTP/1.1", {"PATH_INFO": "/", "QUERY_STRING": "", "REQUEST_URI": "/"}),
    ("HTTP/1.2 is 1.1", "GET / HTTP/1.2", {"SERVER_PROTOCOL": "HTTP/1.1"}),
    ("HTTP/1.9 is 1.1", "GET / HTTP/1.9", {"SERVER_PROTOCOL": "HTTP/1.1"}),
    ("own method", "PURGE /a HTTP/1.1", {"REQUEST_METHOD": "PURGE"}),
    ("lower-case method is another one", "get / HTTP/1.1", {"REQUEST_METHOD": "get"}),
    ("PATCH", "PATCH /a HTTP/1.1", {"REQUEST_METHOD": "PATCH"}),
    ("DELETE", "DELETE /a HTTP/1.1", {"REQUEST_METHOD": "DELETE"}),
    ("PUT without a body", "PUT /a HTTP/1.1", {"REQUEST_METHOD": "PUT", "body": ""}),
    ("TRACE", "TRACE /a HTTP/1.1", {"REQUEST_METHOD": "TRACE"}),
    ("WebDAV", "PROPFIND /a HTTP/1.1", {"REQUEST_METHOD": "PROPFIND"}),
    ("M-SEARCH", "M-SEARCH /a HTTP/1.1", {"REQUEST_METHOD": "M-SEARCH"}),
    ("all characters of a token", "!#$%&'*+-.^_`|~09Az /a HTTP/1.1", {"REQUEST_METHOD": "!#$%&'*+-.^_`|~09Az"}),
    ("query", "GET /a?b=c&d HTTP/1.1", {"PATH_INFO": "/a", "QUERY_STRING": "b=c&d"}),
    ("empty query", "GET /a? HTTP/1.1", {"PATH_INFO": "/a", "QUERY_STRING": ""}),
    ("question marks in the query", "GET /a?b?c HTTP/1.1", {"QUERY_STRING": "b?c"}),
    ("slashes in the query", "GET /a?/b/../c HTTP/1.1", {"QUERY_STRING": "/b/../c"}),
    ("query is not decoded", "GET /?a=%41%2f+b HTTP/1.1", {"QUERY_STRING": "a=%41%2f+b"}),
    ("escapes", "GET /%41%2f%62%20c HTTP/1.1", {"PATH_INFO": "/A/b c"}),
    ("decoded only once", "GET /%2541 HTTP/1.1", {"PATH_INFO": "/%41"}),
    ("escape of a percent sign", "GET /100%25 HTTP/1.1", {"PATH_INFO": "/100%"}),
    ("escaped question mark", "GET /a%3Fb?c HTTP/1.1", {"PATH_INFO": "/a?b", "QUERY_STRING": "c"}),
    ("plus is a plus in a path", "GET /a+b HTTP/1.1", {"PATH_INFO": "/a+b"}),
    ("UTF-8 becomes latin-1", "GET /%C3%A9 HTTP/1.1", {"PATH_INFO": "/\xc3\xa9"}),
    ("latin-1", "GET /%e9 HTTP/1.1", {"PATH_INFO": "/\xe9"}),
    ("escapes of control characters", "GET /%00%0A%7f HTTP/1.1", {"PATH_INFO": "/\0\n\x7f"}),
    ("dots are left alone", "GET /a/../b/./c HTTP/1.1", {"PATH_INFO": "/a/../b/./c"}),
    ("double slashes are left alone", "GET //a//b HTTP/1.1", {"PATH_INFO": "//a//b"}),
    ("path that looks like a URL", "GET /http://y/ HTTP/1.1", {"PATH_INFO": "/http://y/"}),
    ("path that looks like an authority", "GET //y/a HTTP/1.1", {"PATH_INFO": "//y/a"}),
    ("path parameters", "GET /a;b=c/d;e HTTP/1.1", {"PATH_INFO": "/a;b=c/d;e"}),
    ("colon and at sign", "GET /a:b@c HTTP/1.1", {"PATH_INFO": "/a:b@c"}),
    ("the target stays as it was sent", "GET /%61?%62 HTTP/1.1", {"REQUEST_URI": "/%61?%62", "RAW_URI": "/%61?%62"}),
    ("absolute target", "GET http://x/a?b HTTP/1.1", {"PATH_INFO": "/a", "QUERY_STRING": "b", "HTTP_HOST": "x"}),
    ("absolute target in capitals", "GET HTTP://X/a HTTP/1.1", {"PATH_INFO": "/a", "HTTP_HOST": "X"}),
    ("absolute target without a path", "GET http://x HTTP/1.1", {"PATH_INFO": "/", "HTTP_HOST": "x"}),
    ("absolute target of a query", "GET http://x?a HTTP/1.1", {"PATH_INFO": "/", "QUERY_STRING": "a"}),
    ("absolute target with the default port", "GET http://x:80/a HTTP/1.1", {"PATH_INFO": "/a"}),
    ("absolute target with an empty port", "GET http://x:/a HTTP/1.1", {"PATH_INFO": "/a"}),
    ("asterisk", "OPTIONS * HTTP/1.1", {"REQUEST_METHOD": "OPTIONS", "PATH_INFO": "", "REQUEST_URI": "*"}),
    ("OPTIONS of a path", "OPTIONS /a HTTP/1.1", {"REQUEST_METHOD": "OPTIONS", "PATH_INFO": "/a"}),
    ("CONNECT", "CONNECT x:443 HTTP/1.1", {"REQUEST_METHOD": "CONNECT", "REQUEST_URI": "x:443"}),
    ("CONNECT of IPv6", "CONNECT [::1]:443 HTTP/1.1", {"REQUEST_URI": "[::1]:443"}),
    ("an empty line before", "\r\nGET /a HTTP/1.1", {"PATH_INFO": "/a"}),
    ("two empty lines before", "\r\n\r\nGET /a HTTP/1.1", {"PATH_INFO": "/a"}),
    ("PRI that is not HTTP/2", "PRI /a HTTP/1.1", {"REQUEST_METHOD": "PRI"}),
    ("POST of no length", "POST /a HTTP/1.1", {"REQUEST_METHOD": "POST", "body": ""}),
]


@pytest.mark.parametrize("line, wanted", [case[1:] for case in SERVED], ids=[c[0] for c in SERVED])
def test_served(probe, line, wanted):
    (response,) = check_served(probe, "%s\r\n%s" % (line, TAIL))
    found = response.json()
    assert {key: found.get(key) for key in wanted} == wanted


@pytest.mark.parametrize("byte", [34, 60, 62, 92, 94, 96, 123, 124, 125] + list(range(128, 256, 17)))
def test_bytes_outside_the_grammar_of_targets(probe, byte):
    """Browsers send some of these as they are. They are served with the same text or refused, and
    never become something else."""
    target = b"/a" + bytes([byte]) + b"?" + bytes([byte])
    (response,) = probe.send_raw(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    if response.status == 200:
        found = response.json()
        assert found["PATH_INFO"] == "/a" + chr(byte)
        assert found["QUERY_STRING"] == chr(byte)
        assert found["REQUEST_URI"] == target.decode("latin-1")
    else:
        assert response.status == 400 and response.will_close


@pytest.mark.parametrize("target", ["/%", "/%4", "/%zz", "/a%g1b", "/%%41", "/%u0041"])
def test_broken_escapes_are_text(probe, target):
    """Nothing that is not an escape is decoded."""
    (response,) = probe.send_raw(get(target=target))
    if response.status == 200:
        wanted = {"/%%41": "/%A"}.get(target, target)
        assert response.json()["PATH_INFO"] == wanted
    else:
        assert response.status == 400 and response.will_close


def test_absolute_target_without_host_in_http10(probe):
    (response,) = probe.send_raw("GET http://y/a HTTP/1.0\r\n\r\n")
    assert response.json()["HTTP_HOST"] == "y"


def test_http2_preface_is_refused_cleanly(probe):
    check_refused(probe, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 505)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,
        b"\x16\x03\x03\x00\x50\x01" + b"\0" * 75,
    ],
    ids=["TLS 1.0 record", "TLS 1.2 record"],
)
def test_tls_on_a_plain_port_is_hinted_at(probe, data):
    check_refused(probe, data, 400)
    probe.wait_log(r"speaks TLS to the plain HTTP address")


def test_bytes_of_no_protocol(probe):
    for data in (b"\x80\x2e\x01\x03\x01", b"\0\0\0\0", b"\xff\xfe\xfd", b"SSH-2.0-x\r\n\r\n", b"\x05\x01\x00\r\n\r\n"):
        check_refused(probe, data + b" / HTTP/1.1\r\n\r\n", 400)
