/*
 * Chunked bodies: good and bad ones, decoded whole, byte by byte, at every split and next to an
 * unreadable page, with the same data each time; and the limits.
 */
#include "edge.h"

#include <stdlib.h>

#include "base/macros.h"
#include "wire/chunked.h"

#define DIGITS_63 "000000000000000000000000000000000000000000000000000000000000000"
#define E(id)     STK_CHUNKED_E_##id
#define C(s, r, d)                             \
    {                                          \
        (s), sizeof(s) - 1, (r), (d), __LINE__ \
    }

struct case_ {
    const char *bytes;
    size_t len;
    enum stk_chunked_result result;
    const char *data;
    int line;
};

static const struct case_ cases[] = {
    C("0\r\n\r\n", STK_CHUNKED_END, ""),
    C("5\r\nhello\r\n0\r\n\r\n", STK_CHUNKED_END, "hello"),
    C("1\r\na\r\n2\r\nbc\r\n000\r\n\r\n", STK_CHUNKED_END, "abc"),
    C("A\r\n0123456789\r\na\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", STK_CHUNKED_END,
      "0123456789\r\n\r\n\r\n\r\n\r\n"),
    C("a\r\n0\r\n\r\n01234\r\n0\r\n\r\n", STK_CHUNKED_END, "0\r\n\r\n01234"),
    C("0000000000000000000000005\r\nhello\r\n0\r\n\r\n", STK_CHUNKED_END, "hello"),
    C("9\r\n012345678\r\nf\r\n012345678901234\r\nF\r\n012345678901234\r\n0\r\n\r\n",
      STK_CHUNKED_END, "012345678012345678901234012345678901234"),
    C(DIGITS_63 "1\r\nx\r\n" DIGITS_63 "2\r\nyz\r\n" DIGITS_63 "0\r\n\r\n", STK_CHUNKED_END, "xyz"),
    C(":\r\n", E(SIZE), ""),
    C("/\r\n", E(SIZE), ""),
    C("`\r\n", E(SIZE), ""),
    C("5", STK_CHUNKED_PARTIAL, ""),
    C("5\r\nhel", STK_CHUNKED_PARTIAL, "hel"),
    C("5\r\nhello\r\n0\r\n", STK_CHUNKED_PARTIAL, "hello"),
    /* sizes */
    C("\r\n", E(SIZE), ""),
    C("\n", E(SIZE), ""),
    C("+5\r\n", E(SIZE), ""),
    C("-5\r\n", E(SIZE), ""),
    C("0x5\r\n", E(SIZE), ""),
    C(" 5\r\n", E(SIZE), ""),
    C("g\r\n", E(SIZE), ""),
    C("5g\r\n", E(SIZE), ""),
    C("5,5\r\n", E(SIZE), ""),
    C("5\0\r\n", E(SIZE), ""),
    C("\xb5\r\n", E(SIZE), ""),
    C("1000000000000000\r\nx", STK_CHUNKED_PARTIAL, "x"),
    C("1000000000000001\r\n", E(SIZE), ""),
    C("10000000000000000\r\n", E(SIZE), ""),
    C("10000000000000005\r\nhello\r\n", E(SIZE), ""),
    C("ffffffffffffffff\r\n", E(SIZE), ""),
    C("fffffffffffffffffffff\r\n", E(SIZE), ""),
    C(DIGITS_63 "01\r\n", E(SIZE), ""),
    /* line ends */
    C("5\nhello\r\n0\r\n\r\n", E(LINE_END), ""),
    C("5\rhello\r\n0\r\n\r\n", E(LINE_END), ""),
    C("5\r\r\nhello\r\n0\r\n\r\n", E(LINE_END), ""),
    C("5\r\nhello\n0\r\n\r\n", E(LINE_END), "hello"),
    C("5\r\nhello0\r\n\r\n", E(LINE_END), "hello"),
    C("5\r\nhellox\r\n0\r\n\r\n", E(LINE_END), "hello"),
    C("5\r\nhello\r0\r\n\r\n", E(LINE_END), "hello"),
    C("0\r\n\n", E(LINE_END), ""),
    C("0\r\n\rx", E(LINE_END), ""),
    C("0\n\n", E(LINE_END), ""),
    /* extensions */
    C("1;a\r\nx\r\n0;b=c;d=\"e\\\"\xff;\"\r\n\r\n", STK_CHUNKED_END, "x"),
    C("1 ;\ta = b ; c = \"d\" ;e\r\nx\r\n0\r\n\r\n", STK_CHUNKED_END, "x"),
    C("1 \r\n", E(EXTENSION), ""),
    C("1 x\r\n", E(EXTENSION), ""),
    C("1;\r\n", E(EXTENSION), ""),
    C("1;a=\r\n", E(EXTENSION), ""),
    C("1;=b\r\n", E(EXTENSION), ""),
    C("1;a b\r\n", E(EXTENSION), ""),
    C("1;a=b c\r\n", E(EXTENSION), ""),
    C("1;a=\"b\"c\r\n", E(EXTENSION), ""),
    C("1;a \r\n", E(EXTENSION), ""),
    C("1;;a\r\n", E(EXTENSION), ""),
    C("1;a=\"\0\"\r\n", E(EXTENSION), ""),
    C("1;a\x01\r\n", E(EXTENSION), ""),
    C("1;a\nx\r\n", E(LINE_END), ""),
    C("1;a\rx\r\n", E(LINE_END), ""),
    C("1;a=\"\r\n", E(LINE_END), ""),
    C("1;a=\"\n\"\r\n", E(LINE_END), ""),
    C("1;a=\"\\\r\n\"\r\n", E(LINE_END), ""),
    C("1 \n", E(LINE_END), ""),
    /* trailers */
    C("0\r\nA: b\r\nContent-Length: 5\r\nC:\r\n\r\n", STK_CHUNKED_END, ""),
    C("0\r\nA\r\n\r\n", E(TRAILER), ""),
    C("0\r\n: b\r\n\r\n", E(TRAILER), ""),
    C("0\r\n A: b\r\n\r\n", E(TRAILER), ""),
    C("0\r\nA: b\r\n c\r\n\r\n", E(TRAILER), ""),
    C("0\r\nA : b\r\n\r\n", E(TRAILER), ""),
    C("0\r\nA: \0\r\n\r\n", E(TRAILER), ""),
    C("0\r\nA: b\n\r\n", E(LINE_END), ""),
    C("0\r\nA: b\rc\r\n\r\n", E(LINE_END), ""),
    C("0\r\nGET / HTTP/1.1\r\n", E(TRAILER), ""),
};

struct sink {
    char data[4096];
    size_t len, consumed;
};

/* Decodes one piece of the input until there is nothing left of it. */
static enum stk_chunked_result feed(struct stk_chunked *c, struct sink *sink, const char *p,
                                    size_t len)
{
    for (;;) {
        size_t consumed = SIZE_MAX;
        stk_span data = {NULL, SIZE_MAX};
        enum stk_chunked_result r = stk_chunked_decode(c, p, len, &consumed, &data);

        if (r != STK_CHUNKED_DATA)
            assert_true(data.ptr == NULL && data.len == SIZE_MAX);
        if (r == STK_CHUNKED_PARTIAL)
            assert_int_equal(consumed, len);
        if (r != STK_CHUNKED_DATA && r != STK_CHUNKED_PARTIAL && r != STK_CHUNKED_END) {
            assert_int_equal(consumed, SIZE_MAX);
            return r;
        }
        assert_true(consumed <= len);
        sink->consumed += consumed;
        if (r != STK_CHUNKED_DATA)
            return r;
        assert_true(data.len > 0 && data.ptr >= p && data.ptr + data.len == p + consumed);
        assert_true(sink->len + data.len <= sizeof(sink->data));
        memcpy(sink->data + sink->len, data.ptr, data.len);
        sink->len += data.len;
        p += consumed;
        len -= consumed;
    }
}

static void check(const struct case_ *c, const char *how, size_t at, enum stk_chunked_result r,
                  const struct sink *sink)
{
    if (r != c->result)
        fail_msg("line %d, %s %zu: %d (%s)", c->line, how, at, r, stk_chunked_error_text(r));
    assert_int_equal(sink->len, strlen(c->data));
    assert_memory_equal(sink->data, c->data, sink->len);
    if (r == STK_CHUNKED_END)
        assert_int_equal(sink->consumed, c->len);
}

static void test_cases_at_every_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        const struct case_ *c = &cases[i];

        for (size_t at = 0; at <= c->len; at++) {
            struct stk_chunked chunked;
            struct sink sink = {.len = 0};
            enum stk_chunked_result r;

            stk_chunked_init(&chunked);
            r = feed(&chunked, &sink, edge_before(c->bytes, at), at);
            if (r == STK_CHUNKED_PARTIAL)
                r = feed(&chunked, &sink, edge_before(c->bytes + at, c->len - at), c->len - at);
            check(c, "split at", at, r, &sink);
        }
    }
}

static void test_cases_byte_by_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        const struct case_ *c = &cases[i];
        enum stk_chunked_result r = STK_CHUNKED_PARTIAL;
        struct stk_chunked chunked;
        struct sink sink = {.len = 0};

        stk_chunked_init(&chunked);
        for (size_t at = 0; at < c->len && r == STK_CHUNKED_PARTIAL; at++)
            r = feed(&chunked, &sink, edge_before(c->bytes + at, 1), 1);
        check(c, "byte by byte", 0, r, &sink);
    }
}

static void test_what_follows_the_end_stays(void **state)
{
    static const char bytes[] = "1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n";
    struct stk_chunked c;
    struct sink sink = {.len = 0};

    (void)state;
    stk_chunked_init(&c);
    assert_int_equal(feed(&c, &sink, bytes, sizeof(bytes) - 1), STK_CHUNKED_END);
    assert_int_equal(sink.consumed, 11);
    assert_int_equal(feed(&c, &sink, bytes, sizeof(bytes) - 1), STK_CHUNKED_END);
    assert_int_equal(sink.consumed, 11);
}

static void test_errors_stay(void **state)
{
    struct stk_chunked c;
    struct sink sink = {.len = 0};

    (void)state;
    stk_chunked_init(&c);
    assert_int_equal(feed(&c, &sink, "x", 1), E(SIZE));
    assert_int_equal(feed(&c, &sink, "0\r\n\r\n", 5), E(SIZE));
}

static void test_nothing_is_partial(void **state)
{
    struct stk_chunked c;
    struct sink sink = {.len = 0};

    (void)state;
    stk_chunked_init(&c);
    assert_int_equal(feed(&c, &sink, "", 0), STK_CHUNKED_PARTIAL);
}

/* "1;aaa..." with an extension of `len` bytes, its semicolon included, on each of `chunks`. */
static enum stk_chunked_result feed_extensions(size_t len, unsigned chunks)
{
    static struct sink sink;
    enum stk_chunked_result r = STK_CHUNKED_PARTIAL;
    struct stk_chunked c;
    char line[1024];

    stk_chunked_init(&c);
    sink.len = 0;
    memset(line, 'a', sizeof(line));
    memcpy(line, "1;", 2);
    memcpy(line + 1 + len, "\r\nx\r\n", 5);
    for (unsigned i = 0; i < chunks && r == STK_CHUNKED_PARTIAL; i++)
        r = feed(&c, &sink, line, len + 6);
    return r;
}

static void test_extension_limits(void **state)
{
    (void)state;
    assert_int_equal(feed_extensions(256, 1), STK_CHUNKED_PARTIAL);
    assert_int_equal(feed_extensions(257, 1), E(EXTENSION));
    assert_int_equal(feed_extensions(256, 64), STK_CHUNKED_PARTIAL);
    assert_int_equal(feed_extensions(256, 65), E(EXTENSION));
}

static enum stk_chunked_result feed_trailers(size_t len, unsigned lines)
{
    static struct sink sink;
    enum stk_chunked_result r;
    struct stk_chunked c;
    char *line = malloc(len);

    assert_non_null(line);
    stk_chunked_init(&c);
    memset(line, 'a', len);
    line[1] = ':';
    memcpy(line + len - 2, "\r\n", 2);
    r = feed(&c, &sink, "0\r\n", 3);
    for (unsigned i = 0; i < lines && r == STK_CHUNKED_PARTIAL; i++)
        r = feed(&c, &sink, line, len);
    free(line);
    return r == STK_CHUNKED_PARTIAL ? feed(&c, &sink, "\r\n", 2) : r;
}

static void test_trailer_limits(void **state)
{
    (void)state;
    assert_int_equal(feed_trailers(100, 32), STK_CHUNKED_END);
    assert_int_equal(feed_trailers(100, 33), E(TRAILER));
    assert_int_equal(feed_trailers(8193, 1), STK_CHUNKED_END); /* the LF is not counted */
    assert_int_equal(feed_trailers(8194, 1), E(TRAILER));
    assert_int_equal(feed_trailers(1000, 9), E(TRAILER));
}

static void test_texts(void **state)
{
    (void)state;
    for (int r = STK_CHUNKED_DATA; r <= STK_CHUNKED_E_TRAILER; r++)
        assert_true(strlen(stk_chunked_error_text((enum stk_chunked_result)r)) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases_at_every_split),
        cmocka_unit_test(test_cases_byte_by_byte),
        cmocka_unit_test(test_what_follows_the_end_stays),
        cmocka_unit_test(test_errors_stay),
        cmocka_unit_test(test_nothing_is_partial),
        cmocka_unit_test(test_extension_limits),
        cmocka_unit_test(test_trailer_limits),
        cmocka_unit_test(test_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
