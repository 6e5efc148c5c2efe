/*
 * WebSocket frames: sequences of frames and what comes of them, whole, byte by byte, at every split
 * and next to an unreadable page; where a limit is known; and the frames that the server writes.
 */
#include "edge.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/macros.h"
#include "wire/websocket.h"

#define E(id) STK_WS_E_##id

enum { LOG_MAX = 1 << 18 };

/* What came out, as text: "t<...>" pieces joined to messages, "." their end, control frames. */
struct sink {
    char log[LOG_MAX];
    size_t len;
    bool open;
    bool shortens; /* what is one message is taken in the short way */
};

static void sink_add(struct sink *s, const char *data, size_t len)
{
    assert_true(s->len + len < sizeof(s->log));
    memcpy(s->log + s->len, data, len);
    s->len += len;
    s->log[s->len] = '\0';
}

static void sink_event(struct sink *s, const struct stk_ws_event *e)
{
    static const char names[] = "?tb?????cpo?????";

    if (e->opcode >= STK_WS_CLOSE) {
        sink_add(s, &names[e->opcode], 1);
        sink_add(s, "(", 1);
        sink_add(s, e->data.ptr, e->data.len);
        sink_add(s, ")", 1);
        return;
    }
    assert_int_equal(e->begin, !s->open);
    if (e->begin) {
        if (e->compressed)
            sink_add(s, "z", 1);
        sink_add(s, &names[e->opcode], 1);
    }
    sink_add(s, e->data.ptr, e->data.len);
    s->open = !e->end;
    if (e->end)
        sink_add(s, ".", 1);
    else
        assert_true(e->data.len > 0);
}

/* The control frames within a message stand where they came; to compare, pieces are not marked. */
static enum stk_ws_result feed(struct stk_ws_decoder *d, struct sink *s, char *p, size_t len)
{
    struct stk_ws_only only;

    if (s->shortens && stk_ws_decode_only(d, p, len, &only)) {
        assert_true(only.data.ptr == p + 6 && only.data.len == len - 6);
        sink_event(s, &(struct stk_ws_event){
                          .data = only.data, .opcode = only.opcode, .begin = true, .end = true});
        return STK_WS_PARTIAL;
    }
    for (;;) {
        struct stk_ws_event event = {.opcode = 99};
        size_t consumed = SIZE_MAX;
        enum stk_ws_result r = stk_ws_decode(d, p, len, &consumed, &event);

        if (r == STK_WS_PARTIAL) {
            assert_int_equal(consumed, len);
            return r;
        }
        if (r != STK_WS_DATA && r != STK_WS_CONTROL) {
            assert_int_equal(consumed, SIZE_MAX);
            return r;
        }
        assert_true(consumed <= len);
        if (r == STK_WS_DATA)
            assert_true(event.data.ptr >= p && event.data.ptr + event.data.len == p + consumed);
        sink_event(s, &event);
        p += consumed;
        len -= consumed;
    }
}

/*
 * A frame in short: first byte; length as it is written (1, 2 or 8 bytes); payload. Masked, with
 * another mask each time.
 */
struct frame {
    unsigned first;
    unsigned size; /* bytes of the extended length: 0, 2 or 8 */
    uint64_t len;  /* as announced */
    const char *payload;
    bool bare; /* not masked */
};

static size_t put(char *out, const struct frame *f, unsigned n)
{
    const unsigned char mask[4] = {(unsigned char)(17 * n + 3), 0xfe, (unsigned char)n, 0x55};
    size_t at = 0, size = strlen(f->payload);

    out[at++] = (char)f->first;
    out[at++] = (char)((f->bare ? 0 : 0x80) | (f->size == 8   ? 127
                                               : f->size == 2 ? 126
                                                              : (int)f->len));
    for (unsigned i = f->size; i-- > 0;)
        out[at++] = (char)(f->len >> (8 * i));
    if (!f->bare) {
        memcpy(out + at, mask, 4);
        at += 4;
    }
    for (size_t i = 0; i < size; i++)
        out[at++] = (char)((unsigned char)f->payload[i] ^ (f->bare ? 0 : mask[i & 3]));
    return at;
}

#define F(first, text)                        \
    {                                         \
        (first), 0, sizeof(text) - 1, (text), \
    }
#define HUNDRED                                \
    "0123456789012345678901234567890123456789" \
    "012345678901234567890123456789012345678901234567890123456789"

static const struct {
    struct frame frames[6];
    const char *log;
    enum stk_ws_result result;
    bool extension;
    unsigned limit;
    int line;
} cases[] = {
#define CASE(frames, ...)                     \
    {                                         \
        frames, __VA_ARGS__, .line = __LINE__ \
    }
#define FRAMES(...) \
    {               \
        __VA_ARGS__ \
    }
    CASE(FRAMES(F(0x81, "hello")), "thello.", STK_WS_PARTIAL),
    CASE(FRAMES(F(0x82, "")), "b.", STK_WS_PARTIAL),
    CASE(FRAMES(F(0x01, "ab"), F(0x00, ""), F(0x80, "c"), F(0x82, "d")), "tabc.bd.",
         STK_WS_PARTIAL),
    CASE(FRAMES(F(0x01, ""), F(0x00, ""), F(0x80, "")), "t.", STK_WS_PARTIAL),
    CASE(FRAMES(F(0x01, "ab"), F(0x89, "x"), F(0x80, "c"), F(0x8a, "")), "tabp(x)c.o()",
         STK_WS_PARTIAL),
    CASE(FRAMES({0x81, 2, 126, HUNDRED "abcdefghijklmnopqrstuvwxyz"}),
         "t" HUNDRED "abcdefghijklmnopqrstuvwxyz.", STK_WS_PARTIAL),
    CASE(FRAMES(F(0x89, HUNDRED "abcdefghijklmnopqrstuvwxy")),
         "p(" HUNDRED "abcdefghijklmnopqrstuvwxy)", STK_WS_PARTIAL),
    CASE(FRAMES(F(0x88, ""), F(0x81, "late"), F(0xff, "worse")), "c()", STK_WS_PARTIAL),
    CASE(FRAMES(F(0x88, "\x03\xe8")), "c(\x03\xe8)", STK_WS_PARTIAL),
    CASE(FRAMES(F(0x01, "cut"), F(0x88, "\x03\xe8")), "tcutc(\x03\xe8)", STK_WS_PARTIAL),
    /* the extension */
    CASE(FRAMES(F(0xc1, "z"), F(0x81, "y")), "ztz.ty.", STK_WS_PARTIAL, .extension = true),
    CASE(FRAMES(F(0x42, "z"), F(0x89, ""), F(0x80, "y")), "zbzp()y.", STK_WS_PARTIAL,
         .extension = true),
    CASE(FRAMES(F(0xc1, "z")), "", E(RESERVED)),
    CASE(FRAMES(F(0xa1, "z")), "", E(RESERVED), .extension = true),
    CASE(FRAMES(F(0x91, "z")), "", E(RESERVED), .extension = true),
    CASE(FRAMES(F(0xf1, "z")), "", E(RESERVED), .extension = true),
    CASE(FRAMES(F(0xc9, "z")), "", E(RESERVED), .extension = true),
    CASE(FRAMES(F(0x41, "z"), F(0xc0, "y")), "ztz", E(RESERVED), .extension = true),
    /* opcodes */
    CASE(FRAMES(F(0x83, "x")), "", E(OPCODE)),
    CASE(FRAMES(F(0x87, "x")), "", E(OPCODE)),
    CASE(FRAMES(F(0x8b, "x")), "", E(OPCODE)),
    CASE(FRAMES(F(0x8f, "x")), "", E(OPCODE)),
    CASE(FRAMES(F(0x81, "a"), F(0x84, "x")), "ta.", E(OPCODE)),
    /* control frames */
    CASE(FRAMES(F(0x09, "x")), "", E(FRAGMENTED)),
    CASE(FRAMES(F(0x08, "x")), "", E(FRAGMENTED)),
    CASE(FRAMES({0x89, 2, 126, HUNDRED "abcdefghijklmnopqrstuvwxyz"}), "", E(CONTROL_SIZE)),
    CASE(FRAMES({0x88, 8, 1, "x"}), "", E(CONTROL_SIZE)),
    /* fragments */
    CASE(FRAMES(F(0x80, "x")), "", E(CONTINUATION)),
    CASE(FRAMES(F(0x00, "x")), "", E(CONTINUATION)),
    CASE(FRAMES(F(0x81, "a"), F(0x80, "x")), "ta.", E(CONTINUATION)),
    CASE(FRAMES(F(0x01, "a"), F(0x81, "x")), "ta", E(INTERLEAVED)),
    CASE(FRAMES(F(0x01, "a"), F(0x02, "x")), "ta", E(INTERLEAVED)),
    /* masks and lengths */
    CASE(FRAMES({0x81, 0, 5, "hello", true}), "", E(UNMASKED)),
    CASE(FRAMES({0x88, 0, 0, "", true}), "", E(UNMASKED)),
    CASE(FRAMES({0x81, 2, 5, "hello"}), "", E(LENGTH)),
    CASE(FRAMES({0x81, 2, 125, "x"}), "", E(LENGTH)),
    CASE(FRAMES({0x81, 8, 126, "x"}), "", E(LENGTH)),
    CASE(FRAMES({0x81, 8, 65535, "x"}), "", E(LENGTH)),
    CASE(FRAMES({0x82, 8, UINT64_C(1) << 63, "x"}), "", E(LENGTH)),
    CASE(FRAMES({0x82, 8, UINT64_MAX, "x"}), "", E(LENGTH)),
    CASE(FRAMES({0x82, 8, (UINT64_C(1) << 63) - 1, "x"}), "bx", STK_WS_PARTIAL),
    CASE(FRAMES({0x82, 8, 65536, "x"}), "bx", STK_WS_PARTIAL),
    /* the limit */
    CASE(FRAMES(F(0x82, "12345")), "b12345.", STK_WS_PARTIAL, .limit = 5),
    CASE(FRAMES(F(0x82, "123456")), "", E(TOO_BIG), .limit = 5),
    CASE(FRAMES(F(0x02, "123"), F(0x00, "45"), F(0x80, "")), "b12345.", STK_WS_PARTIAL, .limit = 5),
    CASE(FRAMES(F(0x02, "123"), F(0x89, "123456"), F(0x00, "45"), F(0x80, "6")), "b123p(123456)45",
         E(TOO_BIG), .limit = 5),
    CASE(FRAMES(F(0x82, "12345"), F(0x82, "12345")), "b12345.b12345.", STK_WS_PARTIAL, .limit = 5),
    CASE(FRAMES({0x82, 8, (UINT64_C(1) << 63) - 1, "x"}), "", E(TOO_BIG), .limit = 5),
    CASE(FRAMES(F(0xc2, "123456")), "zb123456.", STK_WS_PARTIAL, .limit = 5, .extension = true),
    CASE(FRAMES({0xc2, 2, 126, "1"}), "", E(TOO_BIG), .limit = 5, .extension = true),
};

static size_t render(size_t i, char *out)
{
    size_t len = 0;

    for (unsigned k = 0; k < STK_ARRAY_LEN(cases[i].frames) && cases[i].frames[k].payload; k++)
        len += put(out + len, &cases[i].frames[k], k);
    return len;
}

static void check(size_t i, size_t at, enum stk_ws_result r, const struct sink *s)
{
    if (r != cases[i].result)
        fail_msg("line %d, split %zu: %d (%s)", cases[i].line, at, r, stk_ws_error_text(r));
    if (strcmp(s->log, cases[i].log) != 0)
        fail_msg("line %d, split %zu: %s", cases[i].line, at, s->log);
}

static void check_at_every_split(bool shortens)
{
    static struct sink sink;
    char bytes[1024];

    sink.shortens = shortens;
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        size_t len = render(i, bytes);

        for (size_t at = 0; at <= len; at++) {
            struct stk_ws_decoder d;
            enum stk_ws_result r;

            stk_ws_decoder_init(&d, cases[i].limit, cases[i].extension);
            sink.log[0] = '\0';
            sink.len = 0;
            sink.open = false;
            r = feed(&d, &sink, edge_before(bytes, at), at);
            if (r == STK_WS_PARTIAL)
                r = feed(&d, &sink, edge_before(bytes + at, len - at), len - at);
            check(i, at, r, &sink);
            if (r != STK_WS_PARTIAL) /* errors stay */
                assert_int_equal(feed(&d, &sink, bytes, 1), r);
        }
    }
}

static void test_cases_at_every_split(void **state)
{
    (void)state;
    check_at_every_split(false);
    check_at_every_split(true);
}

/* What the short way takes, and what it leaves as it was. */
static void test_only(void **state)
{
    static const struct {
        struct frame frame;
        const char *text; /* NULL: it is left */
    } only[] = {
        {F(0x81, "hello"), "hello"},
        {F(0x82, "\xff\xfe"), "\xff\xfe"},
        {F(0x81, "\xc3\xa9"), "\xc3\xa9"},
        {F(0x81, "\xc3"), NULL}, /* half a character, and none */
        {F(0x81, "ab\xff"), NULL},
        {F(0x01, "ab"), NULL},
        {F(0x89, "ab"), NULL},
        {F(0xc1, "ab"), NULL},
        {F(0x81, "123456"), NULL}, /* beyond the limit */
        {{0x81, 0, 2, "ab", true}, NULL},
        {{0x81, 0, 3, "ab"}, NULL},
        {{0x81, 0, 1, "ab"}, NULL},
        {{0x81, 2, 126, HUNDRED "abcdefghijklmnopqrstuvwxyz"}, NULL},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(only); i++) {
        char bytes[256], *p;
        size_t len = put(bytes, &only[i].frame, 7);
        struct stk_ws_decoder d, before;
        struct stk_ws_only found = {.opcode = 0};

        stk_ws_decoder_init(&d, 5, true);
        before = d;
        p = edge_before(bytes, len);
        assert_int_equal(stk_ws_decode_only(&d, p, len, &found), only[i].text != NULL);
        assert_memory_equal(&d, &before, sizeof(d));
        if (only[i].text) {
            assert_true(stk_span_eq(found.data, stk_span_str(only[i].text)));
            assert_int_equal(found.opcode, only[i].frame.first & 0x0f);
        } else {
            assert_memory_equal(p, bytes, len);
        }
    }
}

/* Of each length, with one byte that is not ASCII at each place, or none. */
static void test_only_of_each_length(void **state)
{
    static char text[STK_WS_CONTROL_MAX + 1], bytes[256];
    struct stk_ws_decoder d;

    (void)state;
    stk_ws_decoder_init(&d, 0, false);
    for (size_t n = 1; n <= STK_WS_CONTROL_MAX; n++) {
        for (size_t at = 0; at <= n; at++) {
            struct stk_ws_only only;
            size_t len;

            memset(text, 'a', n);
            text[n / 2] = 'b';
            text[at] = (char)(at < n ? 0x80 : 0);
            text[n] = '\0';
            len = put(bytes, &(struct frame){0x82, 0, n, text}, (unsigned)n);
            assert_true(stk_ws_decode_only(&d, edge_before(bytes, len), len, &only));
            assert_int_equal(only.ascii, at == n);
            assert_int_equal(only.data.len, n);
            assert_memory_equal(only.data.ptr, text, n);
        }
    }
}

static void test_cases_byte_by_byte(void **state)
{
    static struct sink sink;
    char bytes[1024];

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        enum stk_ws_result r = STK_WS_PARTIAL;
        size_t len = render(i, bytes);
        struct stk_ws_decoder d;

        stk_ws_decoder_init(&d, cases[i].limit, cases[i].extension);
        sink.log[0] = '\0';
        sink.len = 0;
        sink.open = false;
        for (size_t at = 0; at < len && r == STK_WS_PARTIAL; at++)
            r = feed(&d, &sink, edge_before(bytes + at, 1), 1);
        check(i, 0, r, &sink);
    }
}

static void test_masks(void **state)
{
    const unsigned char key[4] = {0x12, 0xff, 0x00, 0xa7};
    char data[200], want[200];
    uint32_t mask;

    (void)state;
    memcpy(&mask, key, 4);
    for (size_t len = 0; len <= sizeof(data); len++) {
        for (size_t at = 0; at <= len && at < 70; at++) {
            char *p;

            for (size_t i = 0; i < len; i++) {
                data[i] = (char)(i * 7);
                want[i] = (char)((unsigned char)data[i] ^ key[i & 3]);
            }
            p = edge_before(data, len);
            (void)stk_ws_mask(p + at, len - at, stk_ws_mask(p, at, mask));
            assert_memory_equal(p, want, len);
        }
    }
}

static void test_large_messages(void **state)
{
    static const size_t sizes[] = {125, 126, 127, 65535, 65536, 100000};
    static struct sink sink;

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(sizes); i++) {
        size_t n = sizes[i], len;
        unsigned size = n < 126 ? 0 : n < 65536 ? 2 : 8;
        char *text = malloc(n + 1), *bytes = malloc(n + 32);
        struct stk_ws_decoder d;

        assert_true(text && bytes);
        memset(text, 'm', n);
        text[n] = '\0';
        len = put(bytes, &(struct frame){0x82, size, n, text}, 1);
        stk_ws_decoder_init(&d, n, false);
        sink.len = 0;
        for (size_t at = 0; at < len; at += 4099) {
            size_t part = len - at < 4099 ? len - at : 4099;

            assert_int_equal(feed(&d, &sink, bytes + at, part), STK_WS_PARTIAL);
        }
        assert_int_equal(sink.len, n + 2);
        assert_memory_equal(sink.log + 1, text, n);
        assert_true(stk_ws_decoder_is_idle(&d));
        free(text);
        free(bytes);
    }
}

static void test_heads(void **state)
{
    char head[STK_WS_HEAD_MAX];

    (void)state;
    assert_int_equal(stk_ws_head(head, STK_WS_TEXT, false, 0), 2);
    assert_memory_equal(head, "\x81\x00", 2);
    assert_int_equal(stk_ws_head(head, STK_WS_BINARY, true, 125), 2);
    assert_memory_equal(head, "\xc2\x7d", 2);
    assert_int_equal(stk_ws_head(head, STK_WS_BINARY, false, 126), 4);
    assert_memory_equal(head, "\x82\x7e\x00\x7e", 4);
    assert_int_equal(stk_ws_head(head, STK_WS_BINARY, false, 65535), 4);
    assert_memory_equal(head, "\x82\x7e\xff\xff", 4);
    assert_int_equal(stk_ws_head(head, STK_WS_TEXT, false, 65536), 10);
    assert_memory_equal(head, "\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10);
    assert_int_equal(stk_ws_head(head, STK_WS_PONG, false, 4), 2);
    assert_memory_equal(head, "\x8a\x04", 2);
}

static void test_close_frames(void **state)
{
    char frame[2 + STK_WS_CONTROL_MAX], reason[200];

    (void)state;
    assert_int_equal(stk_ws_close_frame(frame, STK_WS_CODE_NONE, STK_SPAN_LIT("x")), 2);
    assert_memory_equal(frame, "\x88\x00", 2);
    assert_int_equal(stk_ws_close_frame(frame, 1001, STK_SPAN_LIT("bye")), 7);
    assert_memory_equal(frame,
                        "\x88\x05\x03\xe9"
                        "bye",
                        7);
    memset(reason, 'r', sizeof(reason));
    assert_int_equal(stk_ws_close_frame(frame, 1000, stk_span_make(reason, 123)), 127);
    assert_int_equal(stk_ws_close_frame(frame, 1000, stk_span_make(reason, 200)), 127);
    memcpy(reason + 121, "\xe2\x82\xac", 3);
    assert_int_equal(stk_ws_close_frame(frame, 1000, stk_span_make(reason, 200)), 125);
    assert_int_equal(frame[1], 123);
}

static void test_close_payloads(void **state)
{
    static const unsigned right[] = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010,
                                     1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999};
    static const unsigned wrong[] = {0,    1,    999,  1004, 1005, 1006, 1015,
                                     1016, 1100, 2000, 2999, 5000, 65535};
    unsigned code;
    stk_span reason;
    char payload[8] = {0};

    (void)state;
    assert_int_equal(stk_ws_close_read(stk_span_make("", 0), &code, &reason), 0);
    assert_int_equal(code, STK_WS_CODE_NONE);
    assert_int_equal(reason.len, 0);
    assert_int_equal(stk_ws_close_read(stk_span_make("\x03", 1), &code, &reason), 1002);
    for (size_t i = 0; i < STK_ARRAY_LEN(right); i++) {
        payload[0] = (char)(right[i] >> 8);
        payload[1] = (char)right[i];
        memcpy(payload + 2, "\xc3\xa4!", 3);
        assert_int_equal(stk_ws_close_read(stk_span_make(payload, 5), &code, &reason), 0);
        assert_int_equal(code, right[i]);
        assert_true(stk_span_eq(reason, STK_SPAN_LIT("\xc3\xa4!")));
        assert_int_equal(stk_ws_close_read(stk_span_make(payload, 3), &code, &reason), 1007);
        payload[2] = (char)0xff;
        assert_int_equal(stk_ws_close_read(stk_span_make(payload, 5), &code, &reason), 1007);
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(wrong); i++) {
        payload[0] = (char)(wrong[i] >> 8);
        payload[1] = (char)wrong[i];
        assert_int_equal(stk_ws_close_read(stk_span_make(payload, 2), &code, &reason), 1002);
    }
}

static void test_texts(void **state)
{
    (void)state;
    for (int r = STK_WS_PARTIAL; r <= STK_WS_E_TOO_BIG; r++)
        assert_true(strlen(stk_ws_error_text((enum stk_ws_result)r)) > 0);
    assert_int_equal(stk_ws_error_code(STK_WS_E_TOO_BIG), 1009);
    assert_int_equal(stk_ws_error_code(STK_WS_E_OPCODE), 1002);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases_at_every_split),
        cmocka_unit_test(test_cases_byte_by_byte),
        cmocka_unit_test(test_only),
        cmocka_unit_test(test_only_of_each_length),
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_large_messages),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_close_frames),
        cmocka_unit_test(test_close_payloads),
        cmocka_unit_test(test_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
