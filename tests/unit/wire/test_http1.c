/*
 * Request heads: a table of good and bad ones, each fed whole, at every split point, next to an
 * unreadable page and with more bytes behind; and what is found in the good ones.
 */
#include "edge.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/macros.h"
#include "http1_cases.h"
#include "wire/http1.h"

static const struct stk_http1_limits limits = {
    .line_max = 8192, .head_max = 32768, .fields_max = 128};

static enum stk_http1_result parse(struct stk_head *head, const char *bytes, size_t len)
{
    memset(head, 0xa5, sizeof(*head));
    return stk_http1_parse(head, bytes, len, &limits);
}

static const char *name_of(enum stk_http1_result result)
{
    static const char *const names[] = {"OK", "PARTIAL",
#define X(id, status, text) #id,
                                        STK_HTTP1_ERRORS(X)
#undef X
    };

    return names[result];
}

static void expect(const struct case_ *c, const char *what, size_t at, enum stk_http1_result got,
                   enum stk_http1_result wanted)
{
    if (got != wanted)
        fail_msg("line %d, %s %zu: %s instead of %s", c->line, what, at, name_of(got),
                 name_of(wanted));
}

static void test_cases_whole(void **state)
{
    static struct stk_head head;

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        const struct case_ *c = &cases[i];

        expect(c, "before a page", 0, parse(&head, edge_before(c->bytes, c->len), c->len),
               c->result);
        if (c->result == OK)
            assert_int_equal(head.len, c->len);
        expect(c, "behind a page", 0, parse(&head, edge_behind(c->bytes, c->len), c->len),
               c->result);
    }
}

static void test_cases_at_every_split(void **state)
{
    static struct stk_head head;

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        const struct case_ *c = &cases[i];
        bool failed = false;

        for (size_t len = 0; len < c->len; len++) {
            enum stk_http1_result r = parse(&head, edge_before(c->bytes, len), len);

            /* Once an error has been told, it stays. */
            if (failed || r != PARTIAL)
                expect(c, "prefix", len, r, c->result);
            failed = r != PARTIAL;
            if (c->result == OK)
                assert_false(failed);
        }
    }
}

static void test_more_bytes_behind_change_nothing(void **state)
{
    static const char tail[] = "\0\r\n\r\nPOST / HTTP/1.1\r\n :";
    static struct stk_head head;
    char bytes[512];

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        const struct case_ *c = &cases[i];

        assert_true(c->len + sizeof(tail) <= sizeof(bytes));
        memcpy(bytes, c->bytes, c->len);
        memcpy(bytes + c->len, tail, sizeof(tail));
        expect(c, "with a tail", 0, parse(&head, bytes, c->len + sizeof(tail)), c->result);
        if (c->result == OK)
            assert_int_equal(head.len, c->len);
    }
}

/* Every byte value at every position of a request: only the outcome's kind is known, but it must
   be the same next to a page, and prefixes must agree. */
static void test_every_byte_everywhere(void **state)
{
    static const char good[] = "PUT /a%20b?c=d HTTP/1.1\r\nHost: [::1]:80\r\n"
                               "Connection: keep-alive\r\nX-Long-Field-Name: value value value\r\n"
                               "Content-Length: 12\r\n\r\n";
    static struct stk_head head;
    size_t len = sizeof(good) - 1;

    (void)state;
    for (size_t at = 0; at < len; at++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            char *p = edge_before(good, len);
            enum stk_http1_result whole, part;

            p[at] = (char)byte;
            whole = parse(&head, p, len);
            /* The error, if the byte is one, must be told at the end of its line at the latest. */
            part = stk_http1_parse(&head, p, at + 1, &limits);
            if (part != PARTIAL)
                assert_int_equal(part, whole);
            if (byte < 0x16 && byte != '\t' && byte != '\r' && byte != '\n')
                assert_true(whole != OK && part == whole);
        }
    }
}

#define assert_span(span, text)                                          \
    do {                                                                 \
        stk_span s_ = (span);                                            \
        assert_int_equal(s_.len, strlen(text));                          \
        assert_memory_equal(s_.ptr ? s_.ptr : "", (text), strlen(text)); \
    } while (0)

#define PARSE(head, s) assert_int_equal(parse((head), (s), sizeof(s) - 1), OK)

static void test_parts_of_a_request(void **state)
{
    static struct stk_head head;

    (void)state;
    PARSE(&head, "\r\nPOST /a%20b/?x=1&y=%20?z HTTP/1.1\r\n"
                 "Host: Example.com:8000\r\n"
                 "Content-Length:  42 \t\r\n"
                 "A:\r\n"
                 "Upgrade-Insecure-Requests:\t1\t2 \r\n"
                 "Content-Type: text/plain\r\n"
                 "CONTENT-TYPE: text/html\r\n\r\n");
    assert_span(stk_head_method(&head), "POST");
    assert_span(stk_head_target(&head), "/a%20b/?x=1&y=%20?z");
    assert_span(stk_head_path(&head), "/a%20b/");
    assert_span(stk_head_query(&head), "x=1&y=%20?z");
    assert_span(stk_head_host(&head), "Example.com:8000");
    assert_int_equal(head.target_form, STK_TARGET_ORIGIN);
    assert_int_equal(head.version_minor, 1);
    assert_true(head.path_escaped && head.keep_alive && head.has_content_length);
    assert_false(head.chunked || head.expect_continue || head.has_upgrade);
    assert_false(head.is_get || head.is_head);
    assert_int_equal(head.content_length, 42);
    assert_int_equal(head.authority_len, 0);
    assert_int_equal(head.nfields, 6);
    assert_span(stk_head_field_name(&head, &head.fields[1]), "Content-Length");
    assert_span(stk_head_field_value(&head, &head.fields[1]), "42");
    assert_span(stk_head_field_name(&head, &head.fields[2]), "A");
    assert_span(stk_head_field_value(&head, &head.fields[2]), "");
    assert_span(stk_head_field_name(&head, &head.fields[3]), "Upgrade-Insecure-Requests");
    assert_span(stk_head_field_value(&head, &head.fields[3]), "1\t2");
    assert_int_equal(head.fields[3].known, STK_HEAD_OTHER);
    assert_int_equal(head.fields[4].known, STK_HEAD_CONTENT_TYPE);
    assert_int_equal(head.known[STK_HEAD_HOST], 1);
    assert_span(stk_head_known_value(&head, STK_HEAD_CONTENT_TYPE), "text/html");
    assert_null(stk_head_known_value(&head, STK_HEAD_EXPECT).ptr);
}

static void test_query_only_escapes_leave_the_path_plain(void **state)
{
    static struct stk_head head;

    (void)state;
    PARSE(&head, "GET /a?%20 HTTP/1.1\r\n" HOST "\r\n");
    assert_false(head.path_escaped);
    assert_true(head.is_get);
    PARSE(&head, "HEAD /? HTTP/1.1\r\n" HOST "\r\n");
    assert_span(stk_head_path(&head), "/");
    assert_int_equal(head.query_len, 0);
    assert_true(head.is_head && !head.is_get);
    PARSE(&head, "PUT / HTTP/1.1\r\n" HOST "\r\n");
    assert_true(!head.is_head && !head.is_get);
    PARSE(&head, "GETS / HTTP/1.1\r\n" HOST "\r\n");
    assert_true(!head.is_head && !head.is_get);
    PARSE(&head, "POST / HTTP/1.1\r\n" HOST "\r\n");
    assert_true(!head.is_head && !head.is_get);
}

static void test_absolute_target(void **state)
{
    static struct stk_head head;

    (void)state;
    PARSE(&head, "GET hTTp://Example.com:80/a%41?b HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(head.target_form, STK_TARGET_ABSOLUTE);
    assert_span(stk_head_path(&head), "/a%41");
    assert_span(stk_head_query(&head), "b");
    assert_span(stk_head_host(&head), "Example.com:80");
    assert_true(head.path_escaped);
    assert_int_equal(head.authority_len, 14);

    PARSE(&head, "GET http://%65xample.com?b=%20 HTTP/1.0\r\n\r\n");
    assert_int_equal(head.path_len, 0);
    assert_span(stk_head_query(&head), "b=%20");
    assert_span(stk_head_host(&head), "%65xample.com");
    assert_false(head.path_escaped);

    PARSE(&head, "GET http://[::1]:8000 HTTP/1.0\r\n\r\n");
    assert_int_equal(head.path_len, 0);
    assert_int_equal(head.query_len, 0);
    assert_span(stk_head_host(&head), "[::1]:8000");
}

static void test_asterisk_and_authority_targets(void **state)
{
    static struct stk_head head;

    (void)state;
    PARSE(&head, "OPTIONS * HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(head.target_form, STK_TARGET_ASTERISK);
    assert_span(stk_head_path(&head), "*");
    PARSE(&head, "CONNECT %65xample.org:443 HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(head.target_form, STK_TARGET_AUTHORITY);
    assert_int_equal(head.path_len, 0);
    assert_span(stk_span_make(head.base + head.authority_off, head.authority_len),
                "%65xample.org:443");
    assert_false(head.path_escaped);
    assert_int_equal(head.query_len, 0);
    assert_span(stk_head_host(&head), "example.com");
}

static void test_connection(void **state)
{
    static const struct {
        const char *bytes;
        bool keep_alive, upgrade;
    } rows[] = {
        {HEAD "\r\n", true, false},
        {HEAD "Connection: close\r\n\r\n", false, false},
        {HEAD "Connection: CLOSE\r\n\r\n", false, false},
        {HEAD "Connection: keep-alive, close\r\n\r\n", false, false},
        {HEAD "Connection: close\r\nConnection: keep-alive\r\n\r\n", false, false},
        {HEAD "Connection: x,,close ,\r\n\r\n", false, false},
        {HEAD "Connection: closed\r\n\r\n", true, false},
        {HEAD "Connection:\r\n\r\n", true, false},
        {HEAD "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", true, true},
        {HEAD "Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\n\r\n", true, true},
        {HEAD "Connection: Upgrade\r\n\r\n", true, false},
        {HEAD "Upgrade: websocket\r\n\r\n", true, false},
        {GET10 "\r\n", false, false},
        {GET10 "Connection: Keep-Alive\r\n\r\n", true, false},
        {GET10 "Connection: keep-alive, close\r\n\r\n", false, false},
        {GET10 "Connection: keep-alive, upgrade\r\nUpgrade: x\r\n\r\n", true, false},
    };
    static struct stk_head head;

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        assert_int_equal(parse(&head, rows[i].bytes, strlen(rows[i].bytes)), OK);
        assert_int_equal(head.keep_alive, rows[i].keep_alive);
        assert_int_equal(head.has_upgrade, rows[i].upgrade);
    }
}

static void test_framing_and_expect(void **state)
{
    static struct stk_head head;

    (void)state;
    PARSE(&head, POST "Transfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n");
    assert_true(head.chunked && head.expect_continue && !head.has_content_length);
    PARSE(&head, "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\n");
    assert_true(!head.chunked && !head.expect_continue && head.has_content_length);
    PARSE(&head, "GET / HTTP/1.7\r\n" HOST "\r\n");
    assert_int_equal(head.version_minor, 1);
}

static void test_underscores_are_dropped(void **state)
{
    static const char bytes[] = HEAD "X_Forwarded_For: evil\r\nContent_Length: 5\r\n"
                                     "A-Name-Longer-Than_Sixteen_Bytes: x\r\nB: c\r\n\r\n";
    struct stk_http1_limits keep = limits;
    static struct stk_head head;

    (void)state;
    PARSE(&head, bytes);
    assert_int_equal(head.nfields, 2);
    assert_span(stk_head_field_name(&head, &head.fields[1]), "B");
    assert_false(head.has_content_length);
    keep.underscores = true;
    assert_int_equal(stk_http1_parse(&head, bytes, sizeof(bytes) - 1, &keep), OK);
    assert_int_equal(head.nfields, 5);
    assert_span(stk_head_field_name(&head, &head.fields[1]), "X_Forwarded_For");
    assert_int_equal(head.fields[1].known, STK_HEAD_OTHER);
    assert_false(head.has_content_length);
    /* They count as fields all the same. */
    keep.underscores = false;
    keep.fields_max = 4;
    assert_int_equal(stk_http1_parse(&head, bytes, sizeof(bytes) - 1, &keep), R(TOO_MANY_FIELDS));
}

static void test_moving_the_buffer(void **state)
{
    static const char bytes[] = HEAD "A: b\r\n\r\n";
    static struct stk_head head;
    char copy[sizeof(bytes)];

    (void)state;
    PARSE(&head, bytes);
    memcpy(copy, bytes, sizeof(bytes));
    head.base = copy;
    assert_span(stk_head_host(&head), "example.com");
    assert_ptr_equal(stk_head_method(&head).ptr, copy);
}

/* Feeds all prefixes up to `len`; the first that is not PARTIAL must be at `at` with `result`. */
static void expect_first(const char *bytes, size_t len, const struct stk_http1_limits *lim,
                         size_t at, enum stk_http1_result result)
{
    static struct stk_head head;

    for (size_t n = 0; n <= len; n++) {
        enum stk_http1_result r = stk_http1_parse(&head, edge_before(bytes, n), n, lim);

        if (r != (n < at ? PARTIAL : result))
            fail_msg("%s at %zu of %zu, wanted %s at %zu", name_of(r), n, len, name_of(result), at);
    }
}

static void test_line_limit(void **state)
{
    static const char bytes[] = "GET /0123456789 HTTP/1.1\r\n" HOST "\r\n";
    static const char old[] = "GET /0123456789 HTTP/1.0\r\n" HOST "\r\n";
    struct stk_http1_limits lim = limits;
    char endless[256];

    (void)state;
    lim.line_max = 24;
    expect_first(bytes, sizeof(bytes) - 1, &lim, sizeof(bytes) - 1, OK);
    expect_first(old, sizeof(old) - 1, &lim, sizeof(old) - 1, OK);
    /* Known to be too long as soon as the version has no room any more. */
    lim.line_max = 23;
    expect_first(bytes, sizeof(bytes) - 1, &lim, 16, R(LINE_TOO_LONG));
    lim.line_max = 15;
    expect_first(bytes, sizeof(bytes) - 1, &lim, 15, R(LINE_TOO_LONG));
    lim.line_max = 2;
    expect_first(bytes, sizeof(bytes) - 1, &lim, 2, R(LINE_TOO_LONG));
    lim.line_max = 100;
    memset(endless, 'a', sizeof(endless));
    expect_first(endless, sizeof(endless), &lim, 100, R(LINE_TOO_LONG));
    memcpy(endless, "GET /?", 6);
    expect_first(endless, sizeof(endless), &lim, 100, R(LINE_TOO_LONG));
    /* Empty lines before it do not count. */
    lim.line_max = 14;
    expect_first("\r\n" HEAD "\r\n", sizeof("\r\n" HEAD), &lim, sizeof("\r\n" HEAD), PARTIAL);
}

static void test_head_limit(void **state)
{
    static const char bytes[] = HEAD "Field: value\r\n\r\n";
    struct stk_http1_limits lim = limits;
    size_t len = sizeof(bytes) - 1;

    (void)state;
    lim.head_max = (uint32_t)len;
    expect_first(bytes, len, &lim, len, OK);
    for (uint32_t max = 0; max < len; max++) {
        lim.head_max = max;
        expect_first(bytes, len, &lim, max, R(HEAD_TOO_LARGE));
    }
    /* An error beyond the limit is not seen. */
    lim.head_max = 20;
    expect_first(LINE "Host: \0", sizeof(LINE "Host: \0") - 1, &lim, 20, R(HEAD_TOO_LARGE));
}

static void test_field_limits(void **state)
{
    static struct stk_head head;
    struct stk_http1_limits lim = limits;
    char *bytes = malloc(1 << 17);
    size_t len;

    (void)state;
    assert_non_null(bytes);
    lim.fields_max = 2;
    assert_int_equal(
        stk_http1_parse(&head, HEAD "A: b\r\n\r\n", sizeof(HEAD "A: b\r\n\r\n") - 1, &lim), OK);
    expect_first(HEAD "A: b\r\nC: d\r\n\r\n", sizeof(HEAD "A: b\r\nC: d\r\n\r\n") - 1, &lim,
                 sizeof(HEAD "A: b\r\nC:") - 1, R(TOO_MANY_FIELDS));
    lim.fields_max = 0;
    assert_int_equal(stk_http1_parse(&head, GET10 "\r\n", sizeof(GET10 "\r\n") - 1, &lim), OK);

    /* The struct's own limit holds whatever the configuration says. */
    lim.fields_max = UINT16_MAX;
    memcpy(bytes, HEAD, sizeof(HEAD) - 1);
    len = sizeof(HEAD) - 1;
    for (unsigned i = 1; i < STK_HEAD_FIELDS_MAX; i++) {
        memcpy(bytes + len, "a_b: c\r\n", 8);
        bytes[len + 1] = 'x';
        len += 8;
    }
    memcpy(bytes + len, "\r\n", 2);
    assert_int_equal(stk_http1_parse(&head, bytes, len + 2, &lim), OK);
    assert_int_equal(head.nfields, STK_HEAD_FIELDS_MAX);
    memcpy(bytes + len, "a:\r\n\r\n", 6);
    assert_int_equal(stk_http1_parse(&head, bytes, len + 6, &lim), R(TOO_MANY_FIELDS));

    /* A name longer than its length can say. */
    lim.head_max = 1 << 20;
    memset(bytes, 'a', 1 << 17);
    memcpy(bytes, HEAD, sizeof(HEAD) - 1);
    memcpy(bytes + sizeof(HEAD) - 1 + UINT16_MAX + 1, ": b\r\n\r\n", 7);
    assert_int_equal(stk_http1_parse(&head, bytes, 1 << 17, &lim), R(BAD_FIELD_NAME));
    memcpy(bytes + sizeof(HEAD) - 1 + UINT16_MAX, ": b\r\n\r\n", 7);
    assert_int_equal(stk_http1_parse(&head, bytes, 1 << 17, &lim), OK);
    assert_int_equal(head.fields[1].name_len, UINT16_MAX);
    free(bytes);
}

static void test_known_names_and_hashes(void **state)
{
    static const char *const names[] = {
#define X(id, name) [STK_HEAD_##id] = name,
        STK_HEAD_KNOWN(X)
#undef X
    };
    static struct stk_head head;
    char upper[32], bytes[128];

    (void)state;
    for (unsigned id = 1; id < STK_ARRAY_LEN(names); id++) {
        size_t len = strlen(names[id]);
        stk_span span = stk_span_make(upper, len);

        for (size_t i = 0; i <= len; i++)
            upper[i] = (char)(names[id][i] >= 'a' ? names[id][i] - 0x20 : names[id][i]);
        assert_int_equal(stk_http1_known_field(stk_span_str(names[id])), id);
        assert_int_equal(stk_http1_known_field(span), id);
        assert_int_equal(stk_http1_field_hash(span), stk_http1_field_hash(stk_span_str(names[id])));
        for (size_t i = 0; i < len; i++) {
            upper[i] ^= 1;
            assert_int_not_equal(stk_http1_known_field(span), id);
            assert_int_not_equal(stk_http1_field_hash(span),
                                 stk_http1_field_hash(stk_span_str(names[id])));
            upper[i] ^= 1;
        }
        assert_int_equal(stk_http1_known_field(stk_span_make(names[id], len - 1)), 0);
    }
    assert_int_equal(stk_http1_known_field(stk_span_make("", 0)), STK_HEAD_OTHER);
    assert_int_equal(stk_http1_known_field(stk_span_str("con\rection")), STK_HEAD_OTHER);

    /* The hash that the parser finds is the one that the function gives, at every length, far from
       the end of the input and close to it. */
    for (unsigned len = 1; len < 64; len++) {
        for (unsigned tail = 0; tail < 2; tail++) {
            size_t n = sizeof(GET10) - 1;

            memcpy(bytes, GET10, n);
            for (unsigned i = 0; i < len; i++)
                bytes[n++] = (char)(i % 3 ? 'A' + i % 26 : 'a' + i % 26);
            n += (size_t)sprintf(bytes + n, ":%s\r\n\r\n", tail ? " value value value" : "");
            assert_int_equal(parse(&head, edge_before(bytes, n), n), OK);
            assert_int_equal(head.fields[0].name_len, len);
            assert_int_equal(head.fields[0].hash,
                             stk_http1_field_hash(stk_head_field_name(&head, &head.fields[0])));
        }
    }
}

/* Tables of names are keyed by the hash: those in daily use do not collide, nor in its low bits. */
static void test_hashes_of_common_names_differ(void **state)
{
    static const char *const names[] = {
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "access-control-request-method",
        "access-control-request-headers",
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "dnt",
        "expect",
        "forwarded",
        "from",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "max-forwards",
        "origin",
        "pragma",
        "priority",
        "proxy-authorization",
        "range",
        "referer",
        "sec-ch-ua",
        "sec-ch-ua-mobile",
        "sec-ch-ua-platform",
        "sec-fetch-dest",
        "sec-fetch-mode",
        "sec-fetch-site",
        "sec-fetch-user",
        "sec-gpc",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "upgrade-insecure-requests",
        "user-agent",
        "via",
        "x-csrftoken",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
        "x-requested-with",
    };
    unsigned slots[256] = {0}, most = 0;

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(names); i++) {
        uint32_t hash = stk_http1_field_hash(stk_span_str(names[i]));
        unsigned *slot = &slots[hash & 255];

        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(hash, stk_http1_field_hash(stk_span_str(names[j])));
        if (++*slot > most)
            most = *slot;
    }
    assert_true(most <= 3);
}

static void test_characters(void **state)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        char text[24];
        bool is_token = c != 0 && strchr(token, (int)c) != NULL;
        bool is_value = c == '\t' || (c >= 0x20 && c != 0x7f);

        memset(text, 'x', sizeof(text));
        for (size_t at = 0; at < sizeof(text); at++) {
            text[at] = (char)c;
            assert_int_equal(stk_http1_is_token(stk_span_make(text, sizeof(text))), is_token);
            assert_int_equal(stk_http1_is_field_value(stk_span_make(text, sizeof(text))), is_value);
            text[at] = 'x';
        }
    }
    assert_false(stk_http1_is_token(stk_span_make("", 0)));
    assert_true(stk_http1_is_field_value(stk_span_make(NULL, 0)));
}

/* Whether two results of parsing the same bytes say the same. */
static void expect_same_head(const struct stk_head *a, const struct stk_head *b)
{
    size_t first = offsetof(struct stk_head, len), fields = offsetof(struct stk_head, fields);

    assert_memory_equal((const char *)a + first, (const char *)b + first, fields - first);
    assert_memory_equal(a->fields, b->fields, a->nfields * sizeof(a->fields[0]));
}

static void test_memo_says_what_parsing_says(void **state)
{
    static struct stk_http1_memo memo;
    static struct stk_head head, plain;
    uint64_t last = 0;

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        const struct case_ *c = &cases[i];

        memo.len = 0;
        memset(&head, 0xa5, sizeof(head)); /* what is not set for a head is left alike in both */
        for (unsigned round = 0; round < 2; round++) {
            const char *bytes = edge_before(c->bytes, c->len);
            enum stk_http1_result r = stk_http1_parse_memo(&memo, &head, bytes, c->len, &limits);

            memset(&plain, 0xa5, sizeof(plain));
            expect(c, "memo, round", round, r, stk_http1_parse(&plain, bytes, c->len, &limits));
            if (r != OK)
                continue;
            assert_ptr_equal(head.base, bytes);
            expect_same_head(&head, &plain);
            if (round == 0)
                assert_true(head.serial > last);
            last = head.serial;
        }
    }
}

static void test_memo_sees_every_changed_byte(void **state)
{
    static const char bytes[] = "GET /a?b HTTP/1.1\r\nHost: h\r\nCookie: secret=1\r\n\r\n";
    static struct stk_http1_memo memo;
    static struct stk_head head, plain;
    char changed[sizeof(bytes)];
    size_t len = sizeof(bytes) - 1;

    (void)state;
    for (size_t at = 0; at < len; at++) {
        enum stk_http1_result r;

        assert_int_equal(stk_http1_parse_memo(&memo, &head, bytes, len, &limits), OK);
        assert_int_equal(stk_http1_parse_memo(&memo, &head, bytes, at, &limits),
                         stk_http1_parse(&plain, bytes, at, &limits));
        assert_int_equal(stk_http1_parse_memo(&memo, &head, bytes, len, &limits), OK);
        memcpy(changed, bytes, sizeof(bytes));
        changed[at] ^= 1;
        r = stk_http1_parse_memo(&memo, &head, changed, len, &limits);
        assert_int_equal(r, stk_http1_parse(&plain, changed, len, &limits));
        if (r == OK)
            expect_same_head(&head, &plain);
    }
}

static void test_memo_serials(void **state)
{
    static const char one[] = HEAD "A: 1\r\n\r\n", two[] = HEAD "A: 2\r\n\r\n";
    static struct stk_http1_memo memo;
    static struct stk_head head;
    uint64_t serial = 0;

    (void)state;
    for (unsigned i = 0; i < 100; i++) { /* without a hit few are remembered, but told apart */
        assert_int_equal(
            stk_http1_parse_memo(&memo, &head, i & 1 ? two : one, sizeof(one) - 1, &limits), OK);
        assert_true(head.serial > serial);
        serial = head.serial;
    }
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(stk_http1_parse_memo(&memo, &head, one, sizeof(one) - 1, &limits), OK);
    serial = head.serial;
    assert_int_equal(stk_http1_parse_memo(&memo, &head, one, sizeof(one) + 0, &limits), OK);
    assert_int_equal(head.serial, serial);
    assert_int_equal(stk_http1_parse(&head, one, sizeof(one) - 1, &limits), OK);
    assert_int_equal(head.serial, 0);
}

static void test_error_texts(void **state)
{
    (void)state;
    for (unsigned r = 0; r < STK_HTTP1_RESULT_COUNT; r++) {
        assert_true(strlen(stk_http1_error_text((enum stk_http1_result)r)) > 0);
        assert_in_range(stk_http1_error_status((enum stk_http1_result)r), 200, 599);
    }
    assert_int_equal(stk_http1_error_status(R(LINE_TOO_LONG)), 414);
    assert_int_equal(stk_http1_error_status(R(ENCODING_UNKNOWN)), 501);
    assert_int_equal(stk_http1_error_status(R(BAD_EXPECT)), 417);
    assert_string_equal(stk_http1_error_text(R(BAD_HOST)), "malformed Host");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases_whole),
        cmocka_unit_test(test_cases_at_every_split),
        cmocka_unit_test(test_more_bytes_behind_change_nothing),
        cmocka_unit_test(test_every_byte_everywhere),
        cmocka_unit_test(test_parts_of_a_request),
        cmocka_unit_test(test_query_only_escapes_leave_the_path_plain),
        cmocka_unit_test(test_absolute_target),
        cmocka_unit_test(test_asterisk_and_authority_targets),
        cmocka_unit_test(test_connection),
        cmocka_unit_test(test_framing_and_expect),
        cmocka_unit_test(test_underscores_are_dropped),
        cmocka_unit_test(test_moving_the_buffer),
        cmocka_unit_test(test_line_limit),
        cmocka_unit_test(test_head_limit),
        cmocka_unit_test(test_field_limits),
        cmocka_unit_test(test_known_names_and_hashes),
        cmocka_unit_test(test_hashes_of_common_names_differ),
        cmocka_unit_test(test_characters),
        cmocka_unit_test(test_memo_says_what_parsing_says),
        cmocka_unit_test(test_memo_sees_every_changed_byte),
        cmocka_unit_test(test_memo_serials),
        cmocka_unit_test(test_error_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
