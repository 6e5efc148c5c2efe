/*
 * The inbox of a WebSocket: what comes out of frames, in one piece, byte by byte and at every
 * split, taken at once or kept; what closes the connection, with which code; and that nothing is
 * owned when nothing waits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "serve/ws_inbox.h"
#include "wire/ws_deflate.h"

enum { LIMIT = 2000, LOG_MAX = 1 << 16 };

struct input {
    char bytes[1 << 14];
    size_t len;
};

/* Adds a frame whose mask is zero. */
static void put(struct input *in, unsigned first, const void *data, size_t len)
{
    char *p = in->bytes + in->len;

    assert_true(in->len + len + 14 < sizeof(in->bytes));
    *p++ = (char)first;
    if (len < 126) {
        *p++ = (char)(0x80 | len);
    } else {
        *p++ = (char)(0x80 | 126);
        *p++ = (char)(len >> 8);
        *p++ = (char)len;
    }
    memset(p, 0, 4);
    memcpy(p + 4, data, len);
    in->len = (size_t)(p + 4 - in->bytes) + len;
}

#define PUT(in, first, text) put((in), (first), (text), sizeof(text) - 1)

struct output {
    char log[LOG_MAX];
    size_t len;
    bool keeps; /* items are kept, and taken at the end */
    enum stk_ws_code code;
};

static void see(struct output *out, const struct stk_ws_item *item)
{
    static const char names[16] = "?tb?????cpo?????";

    assert_true(out->len + item->data.len + 4 < sizeof(out->log));
    out->log[out->len++] = names[item->opcode];
    out->log[out->len++] = '(';
    memcpy(out->log + out->len, item->data.ptr, item->data.len);
    out->len += item->data.len;
    out->log[out->len++] = ')';
    out->log[out->len] = '\0';
}

static void take_kept(struct stk_ws_inbox *inbox, struct output *out)
{
    struct stk_ws_item item;

    while (stk_ws_inbox_first(inbox, &item)) {
        see(out, &item);
        stk_ws_inbox_pop(inbox);
    }
}

static bool feed(struct stk_ws_inbox *inbox, struct output *out, const char *data, size_t len)
{
    char *copy = malloc(len + 1), *p = copy;
    bool more = true;

    assert_non_null(copy);
    memcpy(copy, data, len);
    while (more) {
        switch (stk_ws_inbox_step(inbox, &p, &len)) {
        case STK_WS_INBOX_MORE:
            assert_int_equal(len, 0);
            free(copy);
            return true;
        case STK_WS_INBOX_MESSAGE:
            if (out->keeps) {
                assert_true(stk_ws_inbox_keep(inbox));
            } else {
                see(out, &inbox->item);
                stk_ws_inbox_drop(inbox);
            }
            break;
        case STK_WS_INBOX_CONTROL:
            if (out->keeps)
                take_kept(inbox, out);
            see(out, &inbox->item);
            break;
        case STK_WS_INBOX_ERROR:
            assert_non_null(inbox->text);
            out->code = inbox->code;
            more = false;
            break;
        }
    }
    free(copy);
    return false;
}

static struct stk_ws_inflater *inflater;

static struct stk_ws_inflater *inflater_of(void *arg)
{
    assert_ptr_equal(arg, &inflater);
    if (!inflater)
        inflater = stk_ws_inflater_new(15, false);
    else
        stk_ws_inflater_reset(inflater);
    return inflater;
}

static void receive(const struct input *in, size_t split, bool keeps, const char *log,
                    unsigned code)
{
    static struct output out;
    struct stk_ws_inbox inbox;

    out.len = 0;
    out.log[0] = '\0';
    out.keeps = keeps;
    out.code = 0;
    stk_ws_inbox_init(&inbox, LIMIT, stk_ws_deflate_is_there() ? inflater_of : NULL, &inflater);
    if (split == SIZE_MAX) {
        for (size_t i = 0; i < in->len; i++)
            if (!feed(&inbox, &out, in->bytes + i, 1))
                break;
    } else if (feed(&inbox, &out, in->bytes, split)) {
        (void)feed(&inbox, &out, in->bytes + split, in->len - split);
    }
    take_kept(&inbox, &out);
    assert_int_equal(out.code, code);
    assert_string_equal(out.log, log);
    if (code == 0)
        assert_null(inbox.buf); /* nothing waits: nothing is owned */
    stk_ws_inbox_deinit(&inbox);
}

static void check(const struct input *in, const char *log, unsigned code)
{
    for (int keeps = 0; keeps <= 1; keeps++) {
        receive(in, SIZE_MAX, keeps, log, code);
        for (size_t split = 0; split <= in->len; split += in->len < 600 ? 1 : 97)
            receive(in, split, keeps, log, code);
    }
}

static void test_messages(void **state)
{
    static struct input in;

    (void)state;
    in.len = 0;
    PUT(&in, 0x81, "hello");
    PUT(&in, 0x82, "\xff\xfe");
    PUT(&in, 0x81, "");
    PUT(&in, 0x01, "\xce");
    PUT(&in, 0x89, "ping");
    PUT(&in, 0x00, "\xba and");
    PUT(&in, 0x00, "");
    PUT(&in, 0x80, " more");
    PUT(&in, 0x01, "");
    PUT(&in, 0x80, "");
    PUT(&in, 0x88, "\x03\xe8");
    PUT(&in, 0x81, "late");
    check(&in, "t(hello)b(\xff\xfe)t()p(ping)t(\xce\xba and more)t()c(\x03\xe8)", 0);
}

static void test_text_is_judged_early(void **state)
{
    static struct input in;

    (void)state;
    in.len = 0;
    PUT(&in, 0x81, "fine");
    PUT(&in, 0x01, "\xf4");
    PUT(&in, 0x00, "\x90"); /* beyond U+10FFFF, and nothing has to come behind to say so */
    check(&in, "t(fine)", STK_WS_CODE_DATA);
    in.len = 0;
    PUT(&in, 0x01, "cut \xe2\x82");
    PUT(&in, 0x80, "");
    check(&in, "", STK_WS_CODE_DATA);
    in.len = 0;
    PUT(&in, 0x81, "cut \xe2\x82");
    check(&in, "", STK_WS_CODE_DATA);
}

static void test_errors(void **state)
{
    static struct input in;
    char large[LIMIT + 1];

    (void)state;
    memset(large, 'x', sizeof(large));
    in.len = 0;
    PUT(&in, 0x81, "fine");
    PUT(&in, 0x83, "");
    check(&in, "t(fine)", STK_WS_CODE_PROTOCOL);
    in.len = 0;
    put(&in, 0x82, large, LIMIT + 1);
    check(&in, "", STK_WS_CODE_TOO_BIG);
    in.len = 0;
    put(&in, 0x02, large, LIMIT);
    PUT(&in, 0x80, "x");
    check(&in, "", STK_WS_CODE_TOO_BIG);
}

static void test_large_messages(void **state)
{
    static struct input in;
    static char log[LOG_MAX];
    char large[LIMIT];
    size_t n = 0;

    (void)state;
    in.len = 0;
    for (unsigned i = 0; i < 4; i++) {
        memset(large, 'a' + (int)i, sizeof(large));
        put(&in, 0x01, large, i * 300);
        put(&in, 0x80, large, LIMIT - i * 300);
        n += (size_t)snprintf(log + n, sizeof(log) - n, "t(%.*s)", LIMIT, large);
    }
    check(&in, log, 0);
}

static void put_packed(struct input *in, unsigned opcode, const char *data, size_t len,
                       size_t fragment)
{
    struct stk_ws_deflater *z = stk_ws_deflater_new(15, false, 6, 8);
    static char packed[1 << 16];
    size_t n, at = 0;

    assert_non_null(z);
    assert_true(stk_ws_deflate_bound(z, len) <= sizeof(packed));
    n = stk_ws_deflate(z, data, len, packed, sizeof(packed));
    stk_ws_deflater_free(z);
    do {
        size_t part = n - at < fragment ? n - at : fragment;
        unsigned first = (at == 0 ? 0x40 | opcode : 0) | (at + part == n ? 0x80 : 0);

        put(in, first, packed + at, part);
        at += part;
    } while (at < n);
}

static void test_compressed_messages(void **state)
{
    static struct input in;
    static char log[LOG_MAX];
    char text[LIMIT];
    size_t n = 0;

    (void)state;
    if (!stk_ws_deflate_is_there())
        skip();
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)('a' + i * i / 7 % 20);
    in.len = 0;
    put_packed(&in, STK_WS_TEXT, text, 0, 100);
    put_packed(&in, STK_WS_TEXT, text, 5, 100);
    put_packed(&in, STK_WS_BINARY, text, LIMIT, 100);
    PUT(&in, 0x81, "plain");
    put_packed(&in, STK_WS_TEXT, text, LIMIT, 100000);
    n += (size_t)snprintf(log, sizeof(log), "t()t(%.5s)b(%.*s)t(plain)t(%.*s)", text, LIMIT, text,
                          LIMIT, text);
    assert_true(n < sizeof(log));
    check(&in, log, 0);
}

static void test_compressed_errors(void **state)
{
    static struct input in;
    static char zeros[60000];

    (void)state;
    if (!stk_ws_deflate_is_there())
        skip();
    in.len = 0;
    put_packed(&in, STK_WS_BINARY, zeros, LIMIT + 1, 100000);
    check(&in, "", STK_WS_CODE_TOO_BIG);
    in.len = 0;
    put_packed(&in, STK_WS_BINARY, zeros, sizeof(zeros), 7);
    check(&in, "", STK_WS_CODE_TOO_BIG);
    in.len = 0;
    PUT(&in, 0xc2, "\x06");
    check(&in, "", STK_WS_CODE_DATA);
    in.len = 0;
    put_packed(&in, STK_WS_TEXT, "\xed\xa0\x80", 3, 100);
    check(&in, "", STK_WS_CODE_DATA);
    in.len = 0;
    put_packed(&in, STK_WS_TEXT, "\xe2\x82", 2, 100);
    check(&in, "", STK_WS_CODE_DATA);
}

/* Messages that are taken while others come: the buffer does not grow. */
static void test_the_buffer_is_used_again(void **state)
{
    static struct input in;
    static struct output out;
    struct stk_ws_inbox inbox;
    struct stk_ws_item item;
    size_t cap = 0;

    (void)state;
    in.len = 0;
    PUT(&in, 0x01, "some bytes of ");
    PUT(&in, 0x80, "a message");
    out.keeps = true;
    stk_ws_inbox_init(&inbox, LIMIT, NULL, NULL);
    for (unsigned i = 0; i < 1000; i++) {
        out.len = 0;
        assert_true(feed(&inbox, &out, in.bytes, in.len));
        if (i < 4)
            continue;
        assert_true(stk_ws_inbox_first(&inbox, &item));
        assert_true(stk_span_eq(item.data, STK_SPAN_LIT("some bytes of a message")));
        stk_ws_inbox_pop(&inbox);
        if (i == 100)
            cap = inbox.cap;
        if (i > 100)
            assert_int_equal(inbox.cap, cap);
    }
    assert_int_equal(inbox.waiting, 4);
    stk_ws_inbox_deinit(&inbox);
}

/* What is shown stays where it is, whatever comes meanwhile by another thread. */
static void test_what_is_shown_stays(void **state)
{
    static struct input in;
    static struct output out;
    struct stk_ws_inbox inbox;
    struct stk_ws_item item;

    (void)state;
    in.len = out.len = 0;
    out.keeps = true;
    stk_ws_inbox_init(&inbox, LIMIT, NULL, NULL);
    PUT(&in, 0x82, "popped");
    PUT(&in, 0x82, "shown");
    assert_true(feed(&inbox, &out, in.bytes, in.len));
    assert_true(stk_ws_inbox_first(&inbox, &item));
    stk_ws_inbox_pop(&inbox);
    for (unsigned again = 0; again < 2; again++) {
        assert_true(stk_ws_inbox_first(&inbox, &item));
        in.len = 0;
        for (unsigned i = 0; i < 200; i++)
            PUT(&in, 0x82, "more of it");
        PUT(&in, 0x02, "begun ");
        PUT(&in, 0x80, "and ended");
        assert_true(feed(&inbox, &out, in.bytes, in.len));
        assert_true(stk_span_eq(item.data, STK_SPAN_LIT("shown")));
    }
    take_kept(&inbox, &out);
    assert_int_equal(strncmp(out.log, "b(shown)b(more of it)", 21), 0);
    assert_int_equal(out.len, 8 + 2 * (200 * 13 + 18));
    assert_null(inbox.buf);
    stk_ws_inbox_deinit(&inbox);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_text_is_judged_early),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_large_messages),
        cmocka_unit_test(test_compressed_messages),
        cmocka_unit_test(test_compressed_errors),
        cmocka_unit_test(test_the_buffer_is_used_again),
        cmocka_unit_test(test_what_is_shown_stays),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    stk_ws_inflater_free(inflater);
    return failed;
}
