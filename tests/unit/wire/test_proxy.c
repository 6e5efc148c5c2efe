/* PROXY headers: at every split point, what they say, and what is refused. */
#include "edge.h"

#include <stdio.h>

#include "base/macros.h"
#include "wire/proxy.h"

static const char signature[] = "\r\n\r\n\0\r\nQUIT\n";

/* A header of version 2 with room for more. */
struct block {
    char bytes[STK_PROXY_MAX + 64];
    size_t len;
};

static void put(struct block *b, const void *data, size_t n)
{
    assert_true(b->len + n <= sizeof b->bytes);
    memcpy(b->bytes + b->len, data, n);
    b->len += n;
}

static void put_tlv(struct block *b, unsigned type, const void *value, size_t n)
{
    const char head[3] = {(char)type, (char)(n >> 8), (char)n};

    put(b, head, sizeof head);
    put(b, value, n);
}

static void begin(struct block *b, unsigned command, unsigned family)
{
    const char rest[4] = {(char)command, (char)family, 0, 0};

    b->len = 0;
    put(b, signature, 12);
    put(b, rest, sizeof rest);
}

static void finish(struct block *b)
{
    b->bytes[14] = (char)((b->len - 16) >> 8);
    b->bytes[15] = (char)(b->len - 16);
}

static void begin_inet(struct block *b)
{
    begin(b, 0x21, 0x11);
    put(b, "\xc0\0\2\1\xc6\x33\x64\7\xdc\4\1\xbb", 12);
}

/* Every prefix is PARTIAL or the error of the whole; what follows a header does not matter. */
static enum stk_proxy_result parse(const char *bytes, size_t len, struct stk_proxy *ret)
{
    enum stk_proxy_result whole;
    struct stk_proxy p;

    memset(ret, 0, sizeof *ret);
    whole = stk_proxy_parse(ret, edge_behind(bytes, len), len);
    for (size_t n = 0; n < len; n++) {
        enum stk_proxy_result r = stk_proxy_parse(&p, edge_before(bytes, n), n);

        if (whole == STK_PROXY_OK && n >= ret->len)
            assert_int_equal(r, STK_PROXY_OK);
        else if (r != whole || whole == STK_PROXY_OK)
            assert_int_equal(r, STK_PROXY_PARTIAL);
    }
    if (whole == STK_PROXY_OK) { /* spans of the caller's bytes, not of those between the pages */
        assert_true(ret->len <= len);
        assert_int_equal(stk_proxy_parse(ret, bytes, len), STK_PROXY_OK);
    }
    return whole;
}

static enum stk_proxy_result parse_text(const char *text, struct stk_proxy *ret)
{
    return parse(text, strlen(text), ret);
}

static void assert_span(stk_span span, const char *text)
{
    assert_int_equal(span.len, strlen(text));
    assert_memory_equal(span.ptr, text, span.len);
}

static void test_v1(void **state)
{
    static const struct {
        const char *text, *client, *server;
        unsigned client_port, server_port;
    } cases[] = {
        {"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", "192.0.2.1", "198.51.100.7", 56324,
         443},
        {"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\nGET / HTTP/1.1\r\n", "0.0.0.0",
         "255.255.255.255", 0, 65535},
        {"PROXY TCP6 2001:db8::1 2001:0db8:0000:0000:0000:0000:0000:0002 1 2\r\n", "2001:db8::1",
         "2001:db8::2", 1, 2},
        {"PROXY TCP6 ::ffff:192.0.2.9 ::1 4711 80\r\n", "192.0.2.9", "::1", 4711, 80},
    };
    struct stk_proxy p;

    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        assert_int_equal(parse_text(cases[i].text, &p), STK_PROXY_OK);
        assert_int_equal(p.source, STK_PROXY_IP);
        assert_int_equal(p.len, strstr(cases[i].text, "\r\n") + 2 - cases[i].text);
        assert_string_equal(p.client.text, cases[i].client);
        assert_int_equal(p.client.len, strlen(cases[i].client));
        assert_string_equal(p.server.text, cases[i].server);
        assert_int_equal(p.client.port, cases[i].client_port);
        assert_int_equal(p.server.port, cases[i].server_port);
        assert_false(p.tls);
    }
    assert_int_equal(parse_text("PROXY UNKNOWN\r\nx", &p), STK_PROXY_OK);
    assert_int_equal(p.source, STK_PROXY_UNKNOWN);
    assert_int_equal(p.len, 15);
    assert_int_equal(parse_text("PROXY UNKNOWN any thing ~ at all\r\n", &p), STK_PROXY_OK);
    assert_int_equal(p.source, STK_PROXY_UNKNOWN);
}

static void test_v1_longest(void **state)
{
    char text[128] = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
                     "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    struct stk_proxy p;

    assert_int_equal(strlen(text), STK_PROXY_V1_MAX);
    assert_int_equal(parse_text(text, &p), STK_PROXY_OK);
    assert_int_equal(p.len, STK_PROXY_V1_MAX);
    memcpy(text + 105, "5\r\n", 4);
    assert_int_equal(parse_text(text, &p), STK_PROXY_E_TOO_LONG);
    memset(text + 14, 'x', sizeof text - 15);
    assert_int_equal(parse_text(text, &p), STK_PROXY_E_TOO_LONG);
}

static void test_v1_refused(void **state)
{
    static const struct {
        const char *text;
        enum stk_proxy_result result;
    } cases[] = {
        {"PROXY \r\n", STK_PROXY_E_MALFORMED},
        {"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", STK_PROXY_E_MALFORMED},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", STK_PROXY_E_MALFORMED},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rx", STK_PROXY_E_MALFORMED},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", STK_PROXY_E_MALFORMED},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", STK_PROXY_E_MALFORMED},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", STK_PROXY_E_MALFORMED},
        {"PROXY TCP4 192.0.2.1\t192.0.2.2 1 2\r\n", STK_PROXY_E_MALFORMED},
        {"PROXY TCP4\r\n", STK_PROXY_E_MALFORMED},
        {"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", STK_PROXY_E_MALFORMED},
        {"PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", STK_PROXY_E_MALFORMED},
        {"PROXY UNKNOWNx\r\n", STK_PROXY_E_MALFORMED},
        {"PROXY / HTTP/1.1\r\n", STK_PROXY_E_MALFORMED},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 1 \xc3\xa4\r\n", STK_PROXY_E_MALFORMED},
        {"PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n", STK_PROXY_E_ADDRESS},
        {"PROXY TCP6 192.0.2.1 ::1 1 2\r\n", STK_PROXY_E_ADDRESS},
        {"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", STK_PROXY_E_ADDRESS},
        {"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n", STK_PROXY_E_ADDRESS},
        {"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", STK_PROXY_E_ADDRESS},
        {"PROXY TCP6 fe80::1%lo ::1 1 2\r\n", STK_PROXY_E_ADDRESS},
        {"PROXY TCP6 0000000000000000000000000000000000000000000000000001 ::1 1 2\r\n",
         STK_PROXY_E_ADDRESS},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", STK_PROXY_E_ADDRESS},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", STK_PROXY_E_ADDRESS},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", STK_PROXY_E_ADDRESS},
        {"PROXY TCP4 192.0.2.1 192.0.2.2 1 100000\r\n", STK_PROXY_E_ADDRESS},
    };
    struct stk_proxy p;

    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        assert_int_equal(parse_text(cases[i].text, &p), cases[i].result);
        assert_non_null(stk_proxy_error_text(cases[i].result));
    }
}

static void test_none(void **state)
{
    static const char *const texts[] = {
        "GET / HTTP/1.1\r\n", "POST /", "PRI * HTTP/2.0\r\n", "PROXY", "PROXYX", "\r\nGET",
        "\x16\3\1",
    };
    struct stk_proxy p;

    for (size_t i = 0; i < STK_ARRAY_LEN(texts); i++) {
        bool front = strcmp(texts[i], "PROXY") == 0;

        assert_int_equal(parse_text(texts[i], &p), front ? STK_PROXY_PARTIAL : STK_PROXY_NONE);
    }
    assert_null(stk_proxy_error_text(STK_PROXY_NONE));
}

static void test_v2(void **state)
{
    struct stk_proxy p;
    struct block b;
    char path[216] = "/run/client";

    begin_inet(&b);
    finish(&b);
    put(&b, "GET /", 5);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_OK);
    assert_int_equal(p.len, 28);
    assert_int_equal(p.source, STK_PROXY_IP);
    assert_string_equal(p.client.text, "192.0.2.1");
    assert_string_equal(p.server.text, "198.51.100.7");
    assert_int_equal(p.client.port, 56324);
    assert_int_equal(p.server.port, 443);

    begin(&b, 0x21, 0x21);
    put(&b,
        "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\7\0\1\x1f\x90",
        36);
    finish(&b);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_OK);
    assert_string_equal(p.client.text, "2001:db8::1");
    assert_string_equal(p.server.text, "192.0.2.7");
    assert_int_equal(p.server.port, 8080);

    begin(&b, 0x21, 0x31);
    put(&b, path, sizeof path);
    finish(&b);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_OK);
    assert_int_equal(p.source, STK_PROXY_UNIX);

    begin(&b, 0x21, 0x00);
    put(&b, "whatever", 8);
    finish(&b);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_OK);
    assert_int_equal(p.source, STK_PROXY_UNKNOWN);
    assert_int_equal(p.len, 24);

    begin(&b, 0x20, 0xff); /* LOCAL: the rest is not looked at */
    put(&b, "\1\2\3", 3);
    finish(&b);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_OK);
    assert_int_equal(p.source, STK_PROXY_LOCAL);
    assert_int_equal(p.len, 19);
}

static void test_v2_refused(void **state)
{
    struct stk_proxy p;
    struct block b;

    begin(&b, 0x11, 0x11);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_E_VERSION);
    begin(&b, 0x22, 0x11);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_E_COMMAND);
    begin(&b, 0x21, 0x41);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_E_FAMILY);
    begin(&b, 0x21, 0x13);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_E_FAMILY);
    for (unsigned family = 0x11; family <= 0x31; family += 0x10) {
        begin(&b, 0x21, family);
        put(&b, "\0\0\0\0\0\0\0\0\0\0\0", 11);
        finish(&b);
        assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_E_LENGTH);
    }
    begin_inet(&b);
    finish(&b);
    b.bytes[14] = 0x10;
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_E_TOO_LONG);
    begin_inet(&b);
    while (b.len < STK_PROXY_MAX)
        put_tlv(&b, 4, "", 0);
    b.len = STK_PROXY_MAX - 3 - (STK_PROXY_MAX - 28) % 3;
    put_tlv(&b, 4, "xx", (STK_PROXY_MAX - 28) % 3);
    finish(&b);
    assert_int_equal(b.len, STK_PROXY_MAX);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_OK);
}

static void ssl(struct block *b, unsigned flags, unsigned verify, const char *cn, size_t cn_len)
{
    const char head[5] = {(char)flags, 0, 0, 0, (char)verify};
    struct block inner = {.len = 0};

    put(&inner, head, sizeof head);
    put_tlv(&inner, 0x21, "TLSv1.3", 7);
    if (cn != NULL)
        put_tlv(&inner, 0x22, cn, cn_len);
    put_tlv(&inner, 0x23, "TLS_AES_128_GCM_SHA256", 22);
    put_tlv(&inner, 0x25, "RSA2048", 7);
    put_tlv(b, 0x20, inner.bytes, inner.len);
}

static void test_tls(void **state)
{
    struct stk_proxy p;
    struct block b;

    begin_inet(&b);
    put_tlv(&b, 1, "http/1.1", 8);
    put_tlv(&b, 2, "example.org", 11);
    ssl(&b, 7, 0, "alice", 5);
    put_tlv(&b, 0xea, "\1vpce", 5);
    finish(&b);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_OK);
    assert_true(p.tls && p.certificate);
    assert_int_equal(p.verify, 0);
    assert_span(p.tls_version, "TLSv1.3");
    assert_span(p.tls_cipher, "TLS_AES_128_GCM_SHA256");
    assert_span(p.common_name, "alice");
    assert_span(p.authority, "example.org");

    begin_inet(&b);
    ssl(&b, 1, 1, NULL, 0);
    finish(&b);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_OK);
    assert_true(p.tls && !p.certificate);
    begin_inet(&b);
    ssl(&b, 6, 0, NULL, 0); /* a certificate without TLS */
    finish(&b);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_OK);
    assert_true(!p.tls && !p.certificate);
}

static void test_fields_refused(void **state)
{
    char name[STK_PROXY_NAME_MAX + 1];
    struct stk_proxy p;
    struct block b;

    memset(name, 'x', sizeof name);
    for (size_t n = 1; n < 60; n++) { /* cut anywhere, and the length says so */
        begin_inet(&b);
        ssl(&b, 7, 0, "alice", 5);
        if (n >= b.len - 28)
            break;
        b.len -= n;
        finish(&b);
        assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_E_TLV);
    }
    for (size_t n = 0; n < 5; n++) {
        begin_inet(&b);
        put_tlv(&b, 0x20, "\1\0\0\0", n < 4 ? n : 4);
        finish(&b);
        assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_E_TLV);
    }
    begin_inet(&b);
    ssl(&b, 1, 1, NULL, 0);
    ssl(&b, 1, 1, NULL, 0);
    finish(&b);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_E_TLV);
    begin_inet(&b);
    put_tlv(&b, 2, "", 0);
    put_tlv(&b, 2, "a", 1);
    finish(&b);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_E_TLV);
    for (size_t n = 0; n < 3; n++) {
        static const char *const bad[] = {"al\nice", "al\0ice", "al\x7fice"};

        begin_inet(&b);
        ssl(&b, 7, 0, bad[n], 6);
        finish(&b);
        assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_E_TEXT);
    }
    for (size_t n = STK_PROXY_NAME_MAX; n <= sizeof name; n++) {
        begin_inet(&b);
        ssl(&b, 7, 0, name, n);
        finish(&b);
        assert_int_equal(parse(b.bytes, b.len, &p),
                         n == sizeof name ? STK_PROXY_E_TEXT : STK_PROXY_OK);
    }
}

static uint32_t crc32c(const char *bytes, size_t len)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < len; i++) {
        crc ^= (uint8_t)bytes[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

static void test_checksum(void **state)
{
    struct stk_proxy p;
    struct block b;
    uint32_t crc;
    size_t at;

    assert_int_equal(crc32c("123456789", 9), 0xe3069283); /* the check value of CRC-32C */
    begin_inet(&b);
    ssl(&b, 1, 1, NULL, 0);
    at = b.len + 3;
    put_tlv(&b, 3, "\0\0\0\0", 4);
    put_tlv(&b, 5, "id", 2);
    finish(&b);
    crc = crc32c(b.bytes, b.len);
    for (size_t i = 0; i < 4; i++)
        b.bytes[at + i] = (char)(crc >> (24 - 8 * i));
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_OK);
    for (size_t i = 16; i < b.len; i++) { /* a bit that has changed on the way */
        b.bytes[i] ^= 1;
        if (i != at - 3) /* the type of the checksum itself: there is none then */
            assert_int_not_equal(stk_proxy_parse(&p, b.bytes, b.len), STK_PROXY_OK);
        b.bytes[i] ^= 1;
    }
    b.bytes[20] ^= 4;
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_E_CHECKSUM);
    begin_inet(&b);
    put_tlv(&b, 3, "\0\0\0", 3);
    finish(&b);
    assert_int_equal(parse(b.bytes, b.len, &p), STK_PROXY_E_TLV);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v1),         cmocka_unit_test(test_v1_longest),
        cmocka_unit_test(test_v1_refused), cmocka_unit_test(test_none),
        cmocka_unit_test(test_v2),         cmocka_unit_test(test_v2_refused),
        cmocka_unit_test(test_tls),        cmocka_unit_test(test_fields_refused),
        cmocka_unit_test(test_checksum),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
