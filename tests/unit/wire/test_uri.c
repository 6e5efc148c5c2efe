/* Percent-decoding, and what may stand in Host. */
#include "edge.h"

#include <stdio.h>

#include "base/macros.h"
#include "wire/uri.h"

static void test_unescape(void **state)
{
    static const struct {
        const char *from, *to;
        bool valid;
    } rows[] = {
        {"", "", true},
        {"/plain/path", "/plain/path", true},
        {"%41", "A", true},
        {"/a%20b%2Fc%2fd", "/a b/c/d", true},
        {"%e2%82%ac", "\xe2\x82\xac", true},
        {"%", "%", false},
        {"%4", "%4", false},
        {"%4g", "%4g", false},
        {"%g4", "%g4", false},
        {"%%41", "%A", false},
        {"%41%", "A%", false},
        {"a%zzb%20", "a%zzb ", false},
        {"%2541", "%41", true},
        {"+", "+", true},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        size_t len = strlen(rows[i].from), wanted = strlen(rows[i].to);
        char *in = edge_before(rows[i].from, len), out[64];

        assert_int_equal(stk_uri_escapes_are_valid(stk_span_make(in, len)), rows[i].valid);
        memset(out, 'x', sizeof(out));
        assert_int_equal(stk_uri_unescape(out, stk_span_make(in, len)), wanted);
        assert_memory_equal(out, rows[i].to, wanted);
        /* No more than the source's length is ever written. */
        assert_int_equal(out[len], 'x');
        assert_int_equal(stk_uri_unescape(in, stk_span_make(in, len)), wanted);
        assert_memory_equal(in, rows[i].to, wanted);
    }
}

static void test_unescape_every_byte(void **state)
{
    char text[4], out[4];

    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        (void)snprintf(text, sizeof(text), "%%%02x", byte);
        assert_int_equal(stk_uri_unescape(out, stk_span_make(text, 3)), 1);
        assert_int_equal((unsigned char)out[0], byte);
        (void)snprintf(text, sizeof(text), "%%%02X", byte);
        assert_int_equal(stk_uri_unescape(out, stk_span_make(text, 3)), 1);
        assert_int_equal((unsigned char)out[0], byte);
    }
}

static void test_hosts(void **state)
{
    static const struct {
        const char *text, *host, *port;
    } rows[] = {
        {"a", "a", ""},
        {"example.com", "example.com", ""},
        {"example.com:80", "example.com", "80"},
        {"example.com:", "example.com", ""},
        {"EXAMPLE.com.:00080", "EXAMPLE.com.", "00080"},
        {"127.0.0.1:65535", "127.0.0.1", "65535"},
        {"my_host-1", "my_host-1", ""},
        {"xn--bcher-kva.example", "xn--bcher-kva.example", ""},
        {"a!$&'()*+,;=~", "a!$&'()*+,;=~", ""},
        {"%C3%A9:1", "%C3%A9", "1"},
        {"[::1]", "[::1]", ""},
        {"[2001:DB8::1]:8080", "[2001:DB8::1]", "8080"},
        {"[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", ""},
        {"[v1.a:b]:1", "[v1.a:b]", "1"},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        size_t len = strlen(rows[i].text);
        char *in = edge_before(rows[i].text, len);
        stk_span host, port;

        assert_true(stk_uri_split_host(stk_span_make(in, len), &host, &port));
        assert_true(stk_span_eq(host, stk_span_str(rows[i].host)));
        assert_true(stk_span_eq(port, stk_span_str(rows[i].port)));
        assert_true(port.ptr >= in && port.ptr <= in + len);
        assert_true(stk_uri_split_host(stk_span_make(in, len), NULL, NULL));
        in = edge_behind(rows[i].text, len);
        assert_true(stk_uri_split_host(stk_span_make(in, len), &host, NULL));
    }
}

static void test_bad_hosts(void **state)
{
    static const char *const rows[] = {
        "",
        ":",
        ":80",
        "a b",
        " a",
        "a ",
        "a\tb",
        "a/",
        "a?",
        "a#",
        "u@a",
        "u:p@a",
        "a:b",
        "a:80x",
        "a:+80",
        "a: 80",
        "a:65536",
        "a:000080",
        "a:99999",
        "a:80:90",
        "a\\b",
        "a\"b",
        "a<b>",
        "a^b",
        "a`b",
        "a{b}",
        "a|b",
        "\xc3\xa9",
        "%",
        "%4",
        "%zz",
        "a%4",
        "[",
        "[]",
        "[]:80",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]80",
        "[::1]::",
        "[:::1]",
        "[1.2.3.4]",
        "[12345::]",
        "[fe80::1%eth0]",
        "[fe80::1%25eth0]",
        "[v.a]",
        "[v1.]",
        "[vg.a]",
        "[v1.a/b]",
        "x[::1]",
        "[::1]]",
        "a]",
        "[v1a]",
        "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]",
    };
    stk_span host = {"h", 1}, port = {"p", 1};

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        size_t len = strlen(rows[i]);

        if (stk_uri_split_host(stk_span_make(edge_before(rows[i], len), len), &host, &port))
            fail_msg("accepted: %s", rows[i]);
    }
    assert_false(stk_uri_split_host(stk_span_make("[::1\0]", 6), &host, &port));
    assert_false(stk_uri_split_host(stk_span_make("a\0b", 3), &host, &port));
    assert_false(stk_uri_split_host(stk_span_make(NULL, 0), &host, &port));
    /* Outputs are untouched by all these failures. */
    assert_true(stk_span_eq(host, STK_SPAN_LIT("h")) && stk_span_eq(port, STK_SPAN_LIT("p")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unescape),
        cmocka_unit_test(test_unescape_every_byte),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_bad_hosts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
