"""Where a request ends: RFC 9112 sections 6 and 7, and all the ways to make two servers disagree."""

import os

import pytest

from tests.front.raw import calls, check_refused, check_served, chunked, encode, get, post

CL, TE = "Content-Length: ", "Transfer-Encoding: "

# Heads that are wrong, whatever follows: (name, fields, status)
HEADS = [
    ("CL and TE", CL + "5\r\n" + TE + "chunked\r\n", 400),
    ("TE and CL", TE + "chunked\r\n" + CL + "5\r\n", 400),
    ("TE and CL 0", TE + "chunked\r\n" + CL + "0\r\n", 400),
    ("CL and unknown TE", CL + "5\r\n" + TE + "foo\r\n", 400),
    ("CL and TE in other letters", "content-length: 5\r\ntransfer-encoding: CHUNKED\r\n", 400),
    ("CL and TE with a field between", CL + "5\r\nA: b\r\n" + TE + "chunked\r\n", 400),
    ("two CL that differ", CL + "5\r\n" + CL + "6\r\n", 400),
    ("two CL that agree", CL + "5\r\n" + CL + "5\r\n", 400),
    ("three CL", CL + "5\r\n" + CL + "5\r\n" + CL + "7\r\n", 400),
    ("two CL in other letters", "Content-Length: 5\r\ncontent-length: 6\r\n", 400),
    ("list of equal CL", CL + "5, 5\r\n", 400),
    ("list of CL", CL + "5,6\r\n", 400),
    ("CL with a comma behind", CL + "5,\r\n", 400),
    ("empty CL", CL + "\r\n", 400),
    ("CL with plus", CL + "+5\r\n", 400),
    ("CL with minus", CL + "-5\r\n", 400),
    ("CL of minus zero", CL + "-0\r\n", 400),
    ("CL of minus one", CL + "-1\r\n", 400),
    ("CL in hexadecimal", CL + "0x5\r\n", 400),
    ("CL with an exponent", CL + "5e0\r\n", 400),
    ("CL with a point", CL + "5.0\r\n", 400),
    ("CL with an underscore", CL + "1_0\r\n", 400),
    ("CL with a space within", CL + "1 0\r\n", 400),
    ("CL with a letter behind", CL + "5a\r\n", 400),
    ("CL of letters", CL + "five\r\n", 400),
    ("CL in quotes", CL + '"5"\r\n', 400),
    ("CL with a semicolon", CL + "5;a\r\n", 400),
    ("CL in other digits", CL + "\xb2\r\n", 400),
    ("CL in UTF-8 digits", CL + "\xef\xbc\x95\r\n", 400),
    ("CL over 64 bit", CL + "18446744073709551616\r\n", 400),
    ("CL that wraps to 5", CL + "18446744073709551621\r\n", 400),
    ("CL over 63 bit", CL + "9223372036854775808\r\n", 400),
    ("CL of many digits", CL + "9" * 100 + "\r\n", 400),
    ("CL with a vertical tab", CL + "\x0b5\r\n", 400),
    ("CL with NUL", CL + "5\0\r\n", 400),
    ("TE not chunked", TE + "foo\r\n", 400),
    ("TE identity", TE + "identity\r\n", 400),
    ("TE gzip only", TE + "gzip\r\n", 400),
    ("TE that ends in another", TE + "chunked, gzip\r\n", 400),
    ("TE chunked, identity", TE + "chunked, identity\r\n", 400),
    ("TE chunked twice", TE + "chunked, chunked\r\n", 400),
    ("TE chunked in two fields", TE + "chunked\r\n" + TE + "chunked\r\n", 400),
    ("TE chunked, then another field", TE + "chunked\r\n" + TE + "identity\r\n", 400),
    ("TE gzip, chunked", TE + "gzip, chunked\r\n", 501),
    ("TE identity, chunked", TE + "identity, chunked\r\n", 501),
    ("TE foo, chunked", TE + "foo, chunked\r\n", 501),
    ("TE gzip, then chunked in a second field", TE + "gzip\r\n" + TE + "chunked\r\n", 501),
    ("TE of an unknown coding with parameters", TE + "foo;a=b, chunked\r\n", 501),
    ("empty TE", TE + "\r\n", 400),
    ("TE of a comma", TE + ",\r\n", 400),
    ("TE with an empty element before", TE + ", chunked\r\n", 400),
    ("TE with an empty element behind", TE + "chunked,\r\n", 400),
    ("TE with an empty element between", TE + "gzip,,chunked\r\n", 400),
    ("TE xchunked", TE + "xchunked\r\n", 400),
    ("TE chunkedx", TE + "chunkedx\r\n", 400),
    ("TE chunke", TE + "chunke\r\n", 400),
    ("TE x chunked", TE + "x chunked\r\n", 400),
    ("TE chunked x", TE + "chunked x\r\n", 400),
    ("TE chunked with a parameter", TE + "chunked;a=b\r\n", 400),
    ("TE chunked with a semicolon", TE + "chunked;\r\n", 400),
    ("TE in quotes", TE + '"chunked"\r\n', 400),
    ("TE in single quotes", TE + "'chunked'\r\n", 400),
    ("TE with a vertical tab before", TE + "\x0bchunked\r\n", 400),
    ("TE with a form feed behind", TE + "chunked\x0c\r\n", 400),
    ("TE with NUL behind", TE + "chunked\0\r\n", 400),
    ("TE with a bare CR", TE + "\rchunked\r\n", 400),
    ("TE with a no-break space", TE + "\xa0chunked\r\n", 400),
    ("TE with a dot", TE + "chunked.\r\n", 400),
    ("TE with a space before the colon", "Transfer-Encoding : chunked\r\n", 400),
    ("TE folded", "Transfer-Encoding:\r\n chunked\r\n", 400),
    ("TE with a colon", TE + ": chunked\r\n", 400),
    ("unknown expectation", "Expect: 200-ok\r\n" + CL + "5\r\n", 417),
    ("expectation with more", "Expect: 100-continue, foo\r\n" + CL + "5\r\n", 417),
]  # fmt: skip


@pytest.mark.parametrize("fields, status", [c[1:] for c in HEADS], ids=[c[0] for c in HEADS])
def test_heads_refused(probe, fields, status):
    check_refused(probe, post(fields, "5\r\nhello\r\n0\r\n\r\n"), status)


@pytest.mark.parametrize("value", ["chunked", "gzip, chunked", "identity"])
def test_transfer_encoding_in_http10(probe, value):
    check_refused(probe, post(TE + value + "\r\n", "5\r\nhello\r\n0\r\n\r\n", version="1.0"), 400)


@pytest.mark.parametrize("value", ["chunked", "Chunked", "CHUNKED", "  chunked  ", "\tchunked\t"])
def test_spellings_of_chunked(probe, value):
    data = post("Transfer-Encoding:%s\r\n" % value, "5\r\nhello\r\n0\r\n\r\n")
    assert check_served(probe, data)[0].body == b"hello"


# Chunked bodies that are wrong: (name, the coded body)
BODIES = [
    ("no size", "\r\nhello\r\n0\r\n\r\n"),
    ("size with plus", "+5\r\nhello\r\n0\r\n\r\n"),
    ("size with minus", "-5\r\nhello\r\n0\r\n\r\n"),
    ("size of minus zero", "-0\r\n\r\n"),
    ("size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("size with 0X", "0X5\r\nhello\r\n0\r\n\r\n"),
    ("size with x", "x5\r\nhello\r\n0\r\n\r\n"),
    ("size with h", "5h\r\nhello\r\n0\r\n\r\n"),
    ("size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
    ("size with a point", "5.0\r\nhello\r\n0\r\n\r\n"),
    ("size with a comma", "5,\r\nhello\r\n0\r\n\r\n"),
    ("size of no hexadecimal digit", "g\r\nhello\r\n0\r\n\r\n"),
    ("size with a space before", " 5\r\nhello\r\n0\r\n\r\n"),
    ("size with a tab before", "\t5\r\nhello\r\n0\r\n\r\n"),
    ("size with a space within", "0 5\r\nhello\r\n0\r\n\r\n"),
    ("size with a space behind", "5 \r\nhello\r\n0\r\n\r\n"),
    ("size with a tab behind", "5\t\r\nhello\r\n0\r\n\r\n"),
    ("size with a NUL behind", "5\0\r\nhello\r\n0\r\n\r\n"),
    ("size with a vertical tab behind", "5\x0b\r\nhello\r\n0\r\n\r\n"),
    ("size in other digits", "\xb5\r\nhello\r\n0\r\n\r\n"),
    ("size over 64 bit", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("size of 64 bit", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    ("size of 63 bit", "8000000000000000\r\nhello\r\n0\r\n\r\n"),
    ("size over 32 bit that wraps", "10000000000000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("size of many zeros", "0" * 5000 + "5\r\nhello\r\n0\r\n\r\n"),
    ("size ended by LF", "5\nhello\r\n0\r\n\r\n"),
    ("size ended by CR", "5\rhello\r\n0\r\n\r\n"),
    ("size ended by CR CR LF", "5\r\r\nhello\r\n0\r\n\r\n"),
    ("size ended by LF CR", "5\n\rhello\r\n0\r\n\r\n"),
    ("data without CR LF", "5\r\nhello0\r\n\r\n"),
    ("data ended by LF", "5\r\nhello\n0\r\n\r\n"),
    ("data ended by CR", "5\r\nhello\r0\r\n\r\n"),
    ("data ended by LF CR", "5\r\nhello\n\r0\r\n\r\n"),
    ("data ended by two bytes", "5\r\nhelloXX0\r\n\r\n"),
    ("data longer than its size", "4\r\nhello\r\n0\r\n\r\n"),
    ("data shorter than its size", "6\r\nhello\r\n0\r\n\r\n"),
    ("an empty line behind the data", "5\r\nhello\r\n\r\n0\r\n\r\n"),
    ("an empty line before the size", "\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("last chunk ended by LF", "5\r\nhello\r\n0\n\r\n"),
    ("last line ended by LF", "5\r\nhello\r\n0\r\n\n"),
    ("last line ended by CR", "5\r\nhello\r\n0\r\n\rX"),
    ("extension ended by LF", "5;a=b\nhello\r\n0\r\n\r\n"),
    ("extension with a bare CR", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("extension with NUL", "5;a=\0\r\nhello\r\n0\r\n\r\n"),
    ("extension with a line break in quotes", '5;a="\r\n"\r\nhello\r\n0\r\n\r\n'),
    ("extension with open quotes", '5;a="b\r\nhello\r\n0\r\n\r\n'),
    ("extension without semicolon", "5 a\r\nhello\r\n0\r\n\r\n"),
    ("extension without a name", "5;\r\nhello\r\n0\r\n\r\n"),
    ("extension of a bad name", "5;a(b)\r\nhello\r\n0\r\n\r\n"),
    ("extension over the limit", "5;a=" + "b" * 300 + "\r\nhello\r\n0\r\n\r\n"),
    ("extensions over the limit together", ("1;a=" + "b" * 200 + "\r\nx\r\n") * 100 + "0\r\n\r\n"),
    ("extension on the last chunk with LF", "5\r\nhello\r\n0;a\n\r\n"),
    ("trailer with a space before the colon", "0\r\nA : b\r\n\r\n"),
    ("trailer with a fold", "0\r\nA: b\r\n c\r\n\r\n"),
    ("trailer that begins with a space", "0\r\n A: b\r\n\r\n"),
    ("trailer without a colon", "0\r\nabc\r\n\r\n"),
    ("trailer without a name", "0\r\n: b\r\n\r\n"),
    ("trailer with a NUL", "0\r\nA: \0\r\n\r\n"),
    ("trailer with a bare CR", "0\r\nA: b\rc\r\n\r\n"),
    ("trailer with a bare LF", "0\r\nA: b\nC: d\r\n\r\n"),
    ("trailers over the limit", "0\r\nA: " + "b" * 9000 + "\r\n\r\n"),
    ("too many trailers", "0\r\n" + "A: b\r\n" * 40 + "\r\n"),
    ("the next request in place of trailers", "0\r\nGET /x HTTP/1.1\r\nHost: x\r\n\r\n"),
]


@pytest.mark.parametrize("body", [case[1] for case in BODIES], ids=[case[0] for case in BODIES])
def test_bodies_refused(probe, body):
    begun = probe.mode == "body-stream"
    if begun:
        # The application asks for the body and fails: the answer names the client's fault.
        calls(probe)
        responses = probe.send_raw(chunked(encode(body)), expect=None)
        assert [response.status for response in responses] == [400]
        assert responses[0].will_close
    else:
        check_refused(probe, chunked(encode(body)), 400)


# Chunked bodies that are fine: (name, the coded body, what it says)
GOOD = [
    ("empty", "0\r\n\r\n", ""),
    ("one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello"),
    ("two chunks", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello"),
    ("hexadecimal", "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a"),
    ("leading zeros", "0005\r\nhello\r\n000\r\n\r\n", "hello"),
    ("extension without value", "5;a\r\nhello\r\n0\r\n\r\n", "hello"),
    ("extension with value", "5;a=b\r\nhello\r\n0;c=d\r\n\r\n", "hello"),
    ("extension in quotes", '5;a="b; \\" c"\r\nhello\r\n0\r\n\r\n', "hello"),
    ("several extensions", "5;a;b=c;d\r\nhello\r\n0\r\n\r\n", "hello"),
    ("extension with white space round it", "5 ; a = b\r\nhello\r\n0\r\n\r\n", "hello"),
    ("trailer", "5\r\nhello\r\n0\r\nA: b\r\n\r\n", "hello"),
    ("trailers", "5\r\nhello\r\n0\r\nA: b\r\nC:d\r\nE:\r\n\r\n", "hello"),
    ("data that looks like a chunk", "9\r\n\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n\r\n"),
    ("binary", "4\r\n\0\r\n\xff\r\n0\r\n\r\n", "\0\r\n\xff"),
    ("many small ones", "1\r\nx\r\n" * 3000 + "0\r\n\r\n", "x" * 3000),
]


@pytest.mark.parametrize("body, text", [case[1:] for case in GOOD], ids=[case[0] for case in GOOD])
def test_bodies_served(probe, body, text):
    assert check_served(probe, chunked(encode(body)))[0].body == text.encode("latin-1")


def test_trailers_do_not_become_fields(probe):
    body = "0\r\nA: b\r\nHost: evil\r\nContent-Length: 7\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
    data = post("Transfer-Encoding: chunked\r\nTrailer: A\r\n", body, target="/")
    found = check_served(probe, data)[0].json()
    assert "HTTP_A" not in found and "HTTP_X_FORWARDED_FOR" not in found
    assert found["HTTP_HOST"] == "x"
    assert "CONTENT_LENGTH" not in found or found["CONTENT_LENGTH"] == "0"


@pytest.mark.parametrize("size", [0, 1, 2, 100, 4095, 4096, 65535, 65536, 65537, 200_000, 1_048_576, 1_048_577])
def test_sizes(probe, size):
    data = os.urandom(size)
    by_length = post("Content-Length: %d\r\n" % size, data)
    coded = b"".join(
        b"%x\r\n%s\r\n" % (len(data[at : at + 9999]), data[at : at + 9999])
        for at in range(0, size, 9999)
    )
    by_chunks = chunked(coded + b"0\r\n\r\n")
    if probe.mode == "body-stream":
        # A body that is read while it comes ends the connection when more has come behind it.
        with probe.connect() as conn:
            for request in (by_length, by_chunks, by_length):
                conn.send(request)
                assert conn.read_response("POST").body == data
    else:
        for response in check_served(probe, by_length + by_chunks + by_length, count=3):
            assert response.body == data


@pytest.mark.parametrize("value", ["5", "05", "0000000000000000005", " 5", "5 ", "\t5\t"])
def test_spellings_of_a_length(probe, value):
    data = post("Content-Length:%s\r\n" % value, "hello")
    assert check_served(probe, data)[0].body == b"hello"


def test_content_length_of_http10(probe):
    (response,) = probe.send_raw(post("Content-Length: 5\r\n", "hello", version="1.0"))
    assert response.body == b"hello"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PUT", "FOO"])
def test_a_body_with_any_method(probe, method):
    """The framing does not depend on the method."""
    data = "%s /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" % method
    (response,) = check_served(probe, data, methods=[method])
    assert response.status == 200
    assert response.body == (b"" if method == "HEAD" else b"hello")
    data = "%s /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    (response,) = check_served(probe, data % method, methods=[method])
    assert response.body == (b"" if method == "HEAD" else b"hello")


def test_body_without_framing_is_the_next_request(probe):
    """A POST without Content-Length has no body: what follows is judged as a request."""
    calls(probe)
    responses = probe.send_raw(post("", "hello=world\r\n\r\n", target="/"), expect=None)
    assert [response.status for response in responses] == [200, 400]
    assert calls(probe) == [["POST", "/"]]


@pytest.mark.parametrize(
    "body", ["GET /evil HTTP/1.1\r\nHost: x\r\n\r\n", "0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n"]
)
def test_a_body_that_looks_like_a_request_is_a_body(probe, body):
    calls(probe)
    data = post("Content-Length: %d\r\n" % len(body), body)
    assert check_served(probe, data)[0].body == body.encode()
    data = post("Content-Length: %d\r\n" % len(body), body, target="/unread")
    assert check_served(probe, data)[0].body == b"unread"
    assert ["GET", "/evil"] not in calls(probe)


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
def test_unread_bodies_are_not_the_next_request(probe, size):
    """The application reads nothing; the connection goes on at the right place, or ends."""
    data = post("Content-Length: %d\r\n" % size, b"GET /evil HTTP/1.1\r\n"[:10] * (size // 10), target="/unread")
    with probe.connect() as conn:
        conn.send(data)
        response = conn.read_response()
        assert response.body == b"unread"
        if not response.will_close:
            conn.send(get("", "/second"))
            assert conn.read_response().json()["REQUEST_URI"] == "/second"


@pytest.mark.parametrize(
    "data",
    [
        post("Content-Length: 10\r\n", "12345"),
        chunked("5\r\nhel"),
        chunked("5\r\nhello\r\n"),
        chunked("5\r\nhello\r\n0\r\n"),
        chunked("5"),
        get()[:-2],
        b"GET / HTTP/1.1\r\nHost: x",
        b"GET",
    ],
    ids=["length", "in a chunk", "no last chunk", "no last line", "in a size", "head", "field", "method"],
)
def test_a_client_that_leaves_too_early(probe, data):
    """An incomplete request is never served as if it were complete."""
    calls(probe)
    with probe.connect() as conn:
        conn.send(data)
        conn.half_close()
        rest = conn.read_to_end()
    assert b" 200 " not in rest
    if probe.mode != "body-stream":
        assert calls(probe) == []
