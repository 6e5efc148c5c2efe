/*
 * FastCGI: what a front end sends, given whole, cut at every point, and byte by byte, each time
 * next to an unreadable page, has to come out as the same variables, bodies and answers.
 */
#include "edge.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/macros.h"
#include "wire/fastcgi.h"

#define E(id) STK_FASTCGI_E_##id
enum { BEGIN = 1, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES };

/* ---- what is sent ---------------------------------------------------------------------------- */

struct wire {
    char bytes[96 * 1024];
    size_t len;
};

static void put(struct wire *w, unsigned type, unsigned id, const void *content, size_t len,
                size_t padding)
{
    unsigned char *p = (unsigned char *)w->bytes + w->len;

    assert_true(w->len + 8 + len + padding <= sizeof w->bytes);
    p[0] = 1;
    p[1] = (unsigned char)type;
    p[2] = (unsigned char)(id >> 8);
    p[3] = (unsigned char)id;
    p[4] = (unsigned char)(len >> 8);
    p[5] = (unsigned char)len;
    p[6] = (unsigned char)padding;
    p[7] = 0xee; /* reserved: anything */
    if (len > 0)
        memcpy(p + 8, content, len);
    memset(p + 8 + len, 0x5a, padding);
    w->len += 8 + len + padding;
}

#define PUT(w, type, id, lit, padding) put((w), (type), (id), (lit), sizeof(lit) - 1, (padding))

static void begin(struct wire *w, unsigned id, unsigned role, unsigned flags)
{
    char content[8] = {0, (char)role, (char)flags};

    put(w, BEGIN, id, content, 8, 0);
}

/* ---- what comes of it ------------------------------------------------------------------------ */

/* A connection that does what the server does with its input. */
struct sim {
    char *buf;
    size_t cap, len;
    bool in_body, closed;
    uint16_t id;
    struct stk_fastcgi_body body;
    char out[200 * 1024];
    size_t nout;
};

static void note(struct sim *s, const char *p, size_t len)
{
    assert_true(s->nout + len < sizeof s->out);
    memcpy(s->out + s->nout, p, len);
    s->nout += len;
    s->out[s->nout] = '\0';
}

#define NOTE(s, ...)                                         \
    do {                                                     \
        char note_[128];                                     \
        int n_ = snprintf(note_, sizeof note_, __VA_ARGS__); \
        note((s), note_, (size_t)n_);                        \
    } while (0)

/* Answers are records: their type, id and content in hexadecimal. */
static void note_replies(struct sim *s, struct stk_fastcgi_replies *r)
{
    for (size_t at = 0; at < r->len;) {
        const unsigned char *p = (const unsigned char *)r->bytes + at;
        size_t len = (size_t)p[4] << 8 | p[5];

        assert_int_equal(p[0], 1);
        NOTE(s, "<%u#%u ", p[1], (unsigned)p[2] << 8 | p[3]);
        if (p[1] == 10)
            note(s, (const char *)p + 8, len);
        else
            for (size_t i = 0; i < len; i++)
                NOTE(s, "%02x", p[8 + i]);
        NOTE(s, ">");
        at += 8 + len;
        assert_true(at <= r->len);
    }
    r->len = 0;
}

static void sim_fail(struct sim *s, enum stk_fastcgi_result r)
{
    assert_true(strlen(stk_fastcgi_error_text(r)) > 0);
    NOTE(s, "!%u %s", stk_fastcgi_error_status(r), stk_fastcgi_error_text(r));
    s->closed = true;
}

/* Takes a head; false: nothing more to be done with this input. */
static bool sim_head(struct sim *s)
{
    char *input = edge_before(s->buf, s->len);
    struct stk_fastcgi_replies replies = {.max_conns = 1000, .max_reqs = 4};
    struct stk_fastcgi_head head;
    size_t off = 0;
    enum stk_fastcgi_result r = stk_fastcgi_head(input, s->len, &off, &head, &replies);

    assert_true(off <= s->len);
    note_replies(s, &replies);
    if (r == STK_FASTCGI_OK) {
        stk_span vars = head.vars, name, value;

        NOTE(s, "[%u%s", head.id, head.keep ? "+" : "");
        while (vars.len > 0) {
            enum stk_fastcgi_result p = stk_fastcgi_pair(&vars, &name, &value);

            if (p != STK_FASTCGI_OK) {
                sim_fail(s, p);
                return false;
            }
            NOTE(s, " ");
            note(s, name.ptr, name.len);
            NOTE(s, "=");
            note(s, value.ptr, value.len);
        }
        NOTE(s, "]");
        off += head.len;
        s->in_body = true;
        stk_fastcgi_body_init(&s->body, head.id);
        s->body.replies.max_conns = 1000;
        s->body.replies.max_reqs = 4;
    }
    memcpy(s->buf, input + off, s->len - off);
    s->len -= off;
    if (r == STK_FASTCGI_CLOSE) {
        NOTE(s, "/");
        s->closed = true;
    } else if (r > STK_FASTCGI_ABORTED) {
        NOTE(s, "#%u", head.id);
        sim_fail(s, r);
    }
    return !s->closed && r != STK_FASTCGI_PARTIAL && (s->len > 0 || s->in_body);
}

static bool sim_body(struct sim *s)
{
    const char *input = edge_before(s->buf, s->len);
    size_t consumed = SIZE_MAX;
    stk_span data = {0};
    enum stk_fastcgi_result r = stk_fastcgi_body_decode(&s->body, input, s->len, &consumed, &data);

    note_replies(s, &s->body.replies);
    if (r > STK_FASTCGI_ABORTED) {
        sim_fail(s, r);
        return false;
    }
    assert_true(consumed <= s->len);
    if (r == STK_FASTCGI_PARTIAL)
        assert_int_equal(consumed, s->len);
    if (r == STK_FASTCGI_PIECE) {
        assert_true(data.len > 0 && data.ptr + data.len == input + consumed);
        note(s, data.ptr, data.len);
    }
    if (r == STK_FASTCGI_OK || r == STK_FASTCGI_ABORTED) {
        NOTE(s, r == STK_FASTCGI_OK ? "$" : "~");
        s->in_body = false;
    }
    memmove(s->buf, s->buf + consumed, s->len - consumed);
    s->len -= consumed;
    return r != STK_FASTCGI_PARTIAL && s->len > 0;
}

static void sim_feed(struct sim *s, const char *p, size_t len)
{
    if (s->closed)
        return;
    assert_true(s->len + len <= s->cap);
    memcpy(s->buf + s->len, p, len);
    s->len += len;
    while (s->in_body ? sim_body(s) : sim_head(s)) {
    }
}

static struct sim *sim_new(void)
{
    struct sim *s = calloc(1, sizeof *s);

    assert_non_null(s);
    s->cap = 96 * 1024;
    s->buf = malloc(s->cap);
    assert_non_null(s->buf);
    return s;
}

static void sim_free(struct sim *s)
{
    free(s->buf);
    free(s);
}

static void sim_reset(struct sim *s)
{
    s->len = s->nout = 0;
    s->in_body = s->closed = false;
    s->out[0] = '\0';
}

/* The same outcome whole, at every cut (of short input), and in pieces of one size. */
static void check(const struct wire *w, const char *expected)
{
    struct sim *s = sim_new();
    size_t step = w->len > 2000 ? 997 : 1;

    for (size_t cut = 0; cut <= w->len; cut += step) {
        sim_reset(s);
        sim_feed(s, w->bytes, cut);
        sim_feed(s, w->bytes + cut, w->len - cut);
        if (strcmp(s->out, expected) != 0)
            fail_msg("cut at %zu: %s\nexpected: %s", cut, s->out, expected);
    }
    for (size_t piece = 1; piece <= 17; piece += 4) {
        size_t size = piece * (w->len > 2000 ? 251 : 1);

        sim_reset(s);
        for (size_t at = 0; at < w->len; at += size)
            sim_feed(s, w->bytes + at, w->len - at < size ? w->len - at : size);
        if (strcmp(s->out, expected) != 0)
            fail_msg("pieces of %zu: %s\nexpected: %s", size, s->out, expected);
    }
    sim_free(s);
}

/* ---- the tests ------------------------------------------------------------------------------- */

static void test_plain_request(void **state)
{
    struct wire w = {.len = 0};

    (void)state;
    begin(&w, 1, 1, 0);
    PUT(&w, PARAMS, 1,
        "\x01\x02"
        "abc"
        "\x01\x00"
        "d"
        "\x00\x01"
        "e",
        0);
    PUT(&w, PARAMS, 1, "", 0);
    PUT(&w, STDIN, 1, "", 0);
    check(&w, "[1 a=bc d= =e]$");
}

static void test_padding_and_high_ids(void **state)
{
    struct wire w = {.len = 0};

    (void)state;
    begin(&w, 0xfedc, 1, 1);
    PUT(&w, PARAMS, 0xfedc,
        "\x01\x02"
        "abc",
        3);
    PUT(&w, PARAMS, 0xfedc, "", 255);
    PUT(&w, STDIN, 0xfedc, "hello ", 7);
    PUT(&w, STDIN, 0xfedc, "world", 0);
    PUT(&w, STDIN, 0xfedc, "", 9);
    begin(&w, 2, 1, 0xff);
    PUT(&w, PARAMS, 2, "", 0);
    PUT(&w, STDIN, 2, "", 0);
    check(&w, "[65244+ a=bc]hello world$[2+]$");
}

static void test_params_over_records_anywhere(void **state)
{
    static const char params[] = "\x01\x02"
                                 "abc"
                                 "\x80\x00\x00\x05\x04"
                                 "lengtwide"
                                 "\x03\x00"
                                 "end";
    const size_t len = sizeof params - 1;

    (void)state;
    for (size_t a = 1; a < len; a++) {
        for (size_t b = a; b < len; b += 3) {
            struct wire w = {.len = 0};

            begin(&w, 7, 1, 1);
            put(&w, PARAMS, 7, params, a, a % 4);
            if (b > a)
                put(&w, PARAMS, 7, params + a, b - a, b % 3);
            put(&w, PARAMS, 7, params + b, len - b, 5);
            PUT(&w, PARAMS, 7, "", 1);
            PUT(&w, STDIN, 7, "", 0);
            check(&w, "[7+ a=bc lengt=wide end=]$");
        }
    }
}

static void test_params_of_one_byte_each(void **state)
{
    static const char params[] = "\x04\x05"
                                 "NAMEvalue"
                                 "\x01\x01"
                                 "xy";
    struct wire w = {.len = 0};

    (void)state;
    begin(&w, 7, 1, 0);
    for (size_t i = 0; i + 1 < sizeof params; i++)
        put(&w, PARAMS, 7, params + i, 1, i % 7);
    PUT(&w, PARAMS, 7, "", 0);
    PUT(&w, STDIN, 7, "b", 0);
    PUT(&w, STDIN, 7, "", 0);
    check(&w, "[7 NAME=value x=y]b$");
}

static void test_management_anywhere(void **state)
{
    static const char values[] = "\x0e\x00"
                                 "FCGI_MAX_CONNS"
                                 "\x0f\x00"
                                 "FCGI_MPXS_CONNS"
                                 "\x03\x01"
                                 "oddx"
                                 "\x0d\x00"
                                 "FCGI_MAX_REQS"
                                 "\x0d\x00"
                                 "FCGI_MAX_REQS";
    static const char answer[] = "<10#0 \x0e\x04"
                                 "FCGI_MAX_CONNS1000"
                                 "\x0f\x01"
                                 "FCGI_MPXS_CONNS0"
                                 "\x0d\x01"
                                 "FCGI_MAX_REQS4>";
    char expected[1024];
    struct wire w = {.len = 0};

    (void)state;
    PUT(&w, GET_VALUES, 0, values, 0);
    PUT(&w, 77, 0, "whatever", 3);
    begin(&w, 3, 1, 1);
    PUT(&w, GET_VALUES, 0, values, 1);
    PUT(&w, PARAMS, 3,
        "\x01\x02"
        "a",
        0);
    PUT(&w, BEGIN, 0, "", 0);
    PUT(&w, PARAMS, 3, "bc", 0);
    PUT(&w, GET_VALUES, 0, "", 0);
    PUT(&w, PARAMS, 3, "", 0);
    PUT(&w, GET_VALUES, 0, values, 2);
    PUT(&w, STDIN, 3, "bo", 0);
    PUT(&w, 12, 0, "", 4);
    PUT(&w, GET_VALUES, 0,
        "\x0d\x05"
        "FCGI_MAX_REQS",
        0);
    PUT(&w, STDIN, 3, "dy", 0);
    PUT(&w, STDIN, 3, "", 0);
    PUT(&w, 99, 0, "", 0);
    snprintf(expected, sizeof expected,
             "%s<11#0 4d00000000000000>%s<11#0 0100000000000000><10#0 >[3+ a=bc]"
             "%sbo<11#0 0c00000000000000><10#0 >dy$<11#0 6300000000000000>",
             answer, answer, answer);
    check(&w, expected);
}

static void test_other_requests(void **state)
{
    struct wire w = {.len = 0};

    (void)state;
    PUT(&w, PARAMS, 5, "nobody began it", 0);
    PUT(&w, ABORT, 5, "", 0);
    begin(&w, 3, 1, 1);
    begin(&w, 4, 1, 0);
    PUT(&w, PARAMS, 4, "of the other", 0);
    PUT(&w, PARAMS, 3,
        "\x01\x01"
        "ab",
        0);
    begin(&w, 5, 2, 0);
    PUT(&w, PARAMS, 4, "", 0);
    PUT(&w, PARAMS, 3, "", 0);
    PUT(&w, STDIN, 4, "of the other", 2);
    PUT(&w, STDIN, 3, "mi", 0);
    begin(&w, 6, 1, 0);
    PUT(&w, ABORT, 6, "", 0);
    PUT(&w, STDIN, 3, "ne", 0);
    PUT(&w, STDIN, 3, "", 0);
    PUT(&w, STDIN, 3, "late", 0);
    begin(&w, 3, 1, 0);
    PUT(&w, PARAMS, 3, "", 0);
    PUT(&w, STDIN, 3, "", 0);
    check(&w, "<3#4 0000000001000000><3#5 0000000001000000>[3+ a=b]"
              "mi<3#6 0000000001000000>ne$[3]$");
}

static void test_roles(void **state)
{
    struct wire w = {.len = 0};

    (void)state;
    begin(&w, 1, 2, 1);
    PUT(&w, PARAMS, 1,
        "\x01\x01"
        "ab",
        0);
    PUT(&w, PARAMS, 1, "", 0);
    PUT(&w, STDIN, 1, "", 0);
    begin(&w, 2, 1, 1);
    PUT(&w, PARAMS, 2, "", 0);
    PUT(&w, STDIN, 2, "", 0);
    begin(&w, 3, 3, 0);
    begin(&w, 4, 1, 1);
    check(&w, "<3#1 0000000003000000>[2+]$<3#3 0000000003000000>/");
}

static void test_abort(void **state)
{
    struct wire w = {.len = 0};

    (void)state;
    begin(&w, 1, 1, 1);
    PUT(&w, PARAMS, 1,
        "\x01\x01"
        "ab",
        0);
    PUT(&w, ABORT, 1, "", 3);
    PUT(&w, PARAMS, 1, "", 0);
    begin(&w, 1, 1, 1);
    PUT(&w, PARAMS, 1, "", 0);
    PUT(&w, STDIN, 1, "da", 0);
    PUT(&w, ABORT, 1, "", 2);
    PUT(&w, STDIN, 1, "ta", 0);
    begin(&w, 2, 1, 0);
    PUT(&w, ABORT, 2, "", 0);
    begin(&w, 3, 1, 0);
    check(&w, "<3#1 0000000000000000>[1+]da~<3#2 0000000000000000>/");
}

static void test_out_of_order(void **state)
{
    static const char order[] = "!400 a FastCGI record of the request where it does not belong";
    static const unsigned in_head[] = {BEGIN, END, STDIN, STDOUT, STDERR, DATA, GET_VALUES, 12};
    static const unsigned in_body[] = {BEGIN, END, PARAMS, STDOUT, STDERR, DATA, GET_VALUES, 12};
    char expected[128];

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(in_head); i++) {
        struct wire w = {.len = 0};

        begin(&w, 9, 1, 1);
        put(&w, in_head[i], 9, "\0\1\0\0\0\0\0", 8, 0);
        snprintf(expected, sizeof expected, "#9%s", order);
        check(&w, expected);
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(in_body); i++) {
        struct wire w = {.len = 0};

        begin(&w, 9, 1, 1);
        PUT(&w, PARAMS, 9, "", 0);
        put(&w, in_body[i], 9, "\0\1\0\0\0\0\0", 8, 0);
        snprintf(expected, sizeof expected, "[9+]%s", order);
        check(&w, expected);
    }
}

static void test_malformed(void **state)
{
    struct wire w = {.len = 0};

    (void)state;
    memcpy(w.bytes, "GET / HTTP/1.1\r\n\r\n", w.len = 18);
    check(&w, "#0!400 not a FastCGI record of version 1");

    w.len = 0;
    begin(&w, 1, 1, 1);
    PUT(&w, PARAMS, 1, "", 0);
    w.bytes[w.len++] = 2;
    check(&w, "[1+]!400 not a FastCGI record of version 1");

    w.len = 0;
    put(&w, BEGIN, 1, "\0\1\0\0\0\0", 7, 0);
    check(&w, "#0!400 malformed FastCGI BEGIN_REQUEST record");

    w.len = 0;
    begin(&w, 1, 1, 1);
    PUT(&w, PARAMS, 1, "", 0);
    put(&w, BEGIN, 2, "\0\1\0\0\0\0\0\0", 9, 0);
    check(&w, "[1+]!400 malformed FastCGI BEGIN_REQUEST record");
}

static void test_malformed_pairs(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        {"\x01", 1},
        {"\x01\x01"
         "a",
         3},
        {"\x80\x00\x00", 3},
        {"\x01\x80\x00\x00", 4},
        {"\xff\xff\xff\xff\x01"
         "a",
         6},
        {"\x01\xff\xff\xff\xff"
         "a",
         6},
        {"\xff\xff\xff\xff\xff\xff\xff\xff", 8},
        {"\x00\x02"
         "a",
         3},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        stk_span vars = {edge_before(cases[i].bytes, cases[i].len), cases[i].len}, name, value;

        assert_int_equal(stk_fastcgi_pair(&vars, &name, &value), E(PAIR));
        assert_int_equal(vars.len, cases[i].len);
    }
}

static void test_head_limit(void **state)
{
    static char zeros[STK_FASTCGI_CONTENT_MAX];
    struct wire w = {.len = 0};
    struct sim *s = sim_new();

    (void)state;
    /* Known by the header: the rest need not come. */
    begin(&w, 1, 1, 1);
    put(&w, PARAMS, 1, zeros, STK_FASTCGI_HEAD_MAX - 16 - 8 + 1, 0);
    sim_feed(s, w.bytes, 24);
    assert_string_equal(s->out, "#1!431 the variables of the FastCGI request are too many");

    /* Many small records count joined. */
    w.len = 0;
    begin(&w, 1, 1, 1);
    for (size_t i = 0; i < 30; i++)
        put(&w, PARAMS, 1, zeros, 2000, 100);
    PUT(&w, PARAMS, 1, "", 0);
    sim_reset(s);
    sim_feed(s, w.bytes, w.len);
    assert_int_equal(s->nout, strlen("[1+") + 30000 * 2 + 1);

    /* The greatest one. */
    w.len = 0;
    begin(&w, 1, 1, 1);
    put(&w, PARAMS, 1, zeros, STK_FASTCGI_HEAD_MAX - 16 - 16, 0);
    PUT(&w, PARAMS, 1, "", 0);
    sim_reset(s);
    sim_feed(s, w.bytes, w.len);
    assert_true(s->in_body);
    sim_free(s);
}

static void test_many_others(void **state)
{
    struct wire w = {.len = 0};
    struct sim *s = sim_new();
    size_t answers = 0;

    (void)state;
    /* Before and in a head they are answered in portions. */
    for (size_t i = 0; i < 200; i++)
        PUT(&w, 50, 0, "", 0);
    begin(&w, 1, 1, 1);
    for (size_t i = 0; i < 200; i++)
        begin(&w, 2, 1, 1);
    PUT(&w, PARAMS, 1, "", 0);
    sim_feed(s, w.bytes, w.len);
    for (const char *p = s->out; (p = strchr(p, '<')) != NULL; p++)
        answers++;
    assert_int_equal(answers, 400);
    assert_true(s->in_body);

    /* In a body only so many at once. */
    w.len = 0;
    for (size_t i = 0; i < 40; i++)
        PUT(&w, 50, 0, "", 0);
    sim_feed(s, w.bytes, w.len);
    assert_non_null(strstr(s->out, "!400 too many"));
    sim_free(s);
}

static void test_long_values_record(void **state)
{
    static const char ask[] = "\x0d\x00"
                              "FCGI_MAX_REQS";
    char content[STK_FASTCGI_VALUES_MAX + 100];
    struct wire w = {.len = 0};

    (void)state;
    memset(content, 0, sizeof content);
    memcpy(content + 2, ask, sizeof ask - 1);
    begin(&w, 1, 1, 1);
    PUT(&w, PARAMS, 1, "", 0);
    put(&w, GET_VALUES, 0, content, sizeof content, 3);
    PUT(&w, STDIN, 1, "", 0);
    check(&w, "[1+]<10#0 \x0d\x01"
              "FCGI_MAX_REQS4>$");
}

static void test_whole_bodies(void **state)
{
    struct wire w = {.len = 0};
    stk_span body;
    size_t used, len;
    char *p;

    (void)state;
    PUT(&w, STDIN, 4, "hello ", 3);
    PUT(&w, STDIN, 4, "wor", 0);
    PUT(&w, STDIN, 4, "ld", 255);
    PUT(&w, STDIN, 4, "", 2);
    len = w.len;
    for (size_t cut = 0; cut < len; cut++) {
        p = edge_before(w.bytes, cut);
        assert_int_equal(stk_fastcgi_whole(p, cut, 4, true, &body, &used), STK_FASTCGI_PARTIAL);
        assert_memory_equal(p, w.bytes, cut);
    }
    p = edge_before(w.bytes, len);
    assert_int_equal(stk_fastcgi_whole(p, len, 4, false, &body, &used), STK_FASTCGI_OK);
    assert_memory_equal(p, w.bytes, len);
    assert_int_equal(body.len, 11);
    assert_int_equal(used, len);
    assert_int_equal(stk_fastcgi_whole(p, len, 5, true, &body, &used), STK_FASTCGI_PARTIAL);
    assert_int_equal(stk_fastcgi_whole(p, len, 4, true, &body, &used), STK_FASTCGI_OK);
    assert_int_equal(body.len, 11);
    assert_memory_equal(body.ptr, "hello world", 11);

    w.len = 0;
    PUT(&w, STDIN, 4, "", 0);
    begin(&w, 5, 1, 1);
    p = edge_before(w.bytes, w.len);
    assert_int_equal(stk_fastcgi_whole(p, w.len, 4, true, &body, &used), STK_FASTCGI_OK);
    assert_int_equal(body.len, 0);
    assert_int_equal(used, 8);

    w.len = 0;
    PUT(&w, STDIN, 4, "x", 0);
    PUT(&w, GET_VALUES, 0, "", 0);
    PUT(&w, STDIN, 4, "", 0);
    p = edge_before(w.bytes, w.len);
    assert_int_equal(stk_fastcgi_whole(p, w.len, 4, true, &body, &used), STK_FASTCGI_PARTIAL);
}

static void test_the_end(void **state)
{
    static const char expected[] = "\x01\x06\xab\xcd\0\0\0\0"
                                   "\x01\x03\xab\xcd\0\x08\0\0"
                                   "\0\0\0\0\0\0\0";
    char end[STK_FASTCGI_END];

    (void)state;
    _Static_assert(sizeof expected == STK_FASTCGI_END, "with its last zero");
    stk_fastcgi_put_end(end, 0xabcd);
    assert_memory_equal(end, expected, sizeof end);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_request),
        cmocka_unit_test(test_padding_and_high_ids),
        cmocka_unit_test(test_params_over_records_anywhere),
        cmocka_unit_test(test_params_of_one_byte_each),
        cmocka_unit_test(test_management_anywhere),
        cmocka_unit_test(test_other_requests),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_out_of_order),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_malformed_pairs),
        cmocka_unit_test(test_head_limit),
        cmocka_unit_test(test_many_others),
        cmocka_unit_test(test_long_values_record),
        cmocka_unit_test(test_whole_bodies),
        cmocka_unit_test(test_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
