/* Fields of a rendered head: found, taken out, put in, at every place and of every form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "serve/head_edit.h"

static const char before[] = "HTTP/1.1 200 OK\r\nA: earlier\r\n\r\nbody";
static const char *const lines[] = {
    "Server: x\r\n", "ETag: \"a, b\"\r\n", "Empty:\r\n", "Blank: \t \r\n", "A:b\r\n", "A:  c \r\n",
};
enum { LINES = sizeof lines / sizeof lines[0], ROOM = 1024 };

/* A head of the lines that have a bit, behind a response that is in the buffer already. */
static void make(struct stk_out *out, char buf[ROOM], const char *status, unsigned bits)
{
    memcpy(buf, before, sizeof before - 1);
    *out = (struct stk_out){.buf = buf, .cap = ROOM, .mark = sizeof before - 1};
    out->len = out->mark;
    memcpy(buf + out->len, status, strlen(status));
    out->len += strlen(status);
    for (unsigned i = 0; i < LINES; i++)
        if (bits & 1u << i) {
            memcpy(buf + out->len, lines[i], strlen(lines[i]));
            out->len += strlen(lines[i]);
        }
}

static void expect(const struct stk_out *out, const char *status, unsigned bits, const char *more)
{
    char buf[ROOM];
    struct stk_out want;

    make(&want, buf, status, bits);
    memcpy(buf + want.len, more, strlen(more));
    want.len += strlen(more);
    assert_int_equal(out->mark, want.mark);
    assert_int_equal(out->len, want.len);
    assert_memory_equal(out->buf, want.buf, want.len);
}

static void test_lines(void **state)
{
    static const struct {
        const char *name, *value;
    } found[] = {
        {"Server", "x"}, {"ETag", "\"a, b\""}, {"Empty", ""}, {"Blank", ""}, {"A", "b"}, {"A", "c"},
    };
    static const char *const statuses[] = {"HTTP/1.1 200 OK\r\n", "Status: 200 OK\r\n",
                                           "HTTP/1.1 200 \r\n"};
    char buf[ROOM];
    struct stk_out out;

    (void)state;
    for (size_t s = 0; s < STK_ARRAY_LEN(statuses); s++)
        for (unsigned bits = 0; bits < 1u << LINES; bits++) {
            struct stk_head_line line = {0};

            make(&out, buf, statuses[s], bits);
            for (unsigned i = 0; i < LINES; i++) {
                if (!(bits & 1u << i))
                    continue;
                assert_true(stk_head_edit_next(&out, &line));
                assert_true(stk_span_eq(line.name, stk_span_str(found[i].name)));
                assert_true(stk_span_eq(line.value, stk_span_str(found[i].value)));
                assert_memory_equal(buf + line.off, lines[i], line.len);
            }
            assert_false(stk_head_edit_next(&out, &line));
        }
    out.len = out.mark; /* no head yet */
    assert_false(stk_head_edit_next(&out, &(struct stk_head_line){0}));
}

/* Every set of lines is taken out of every head. */
static void test_remove(void **state)
{
    static const char status[] = "HTTP/1.1 200 OK\r\n";
    char buf[ROOM];
    struct stk_out out;

    (void)state;
    for (unsigned bits = 0; bits < 1u << LINES; bits++)
        for (unsigned gone = 0; gone < 1u << LINES; gone++) {
            struct stk_head_line line = {0};
            unsigned i = 0;

            make(&out, buf, status, bits);
            while (stk_head_edit_next(&out, &line)) {
                while (!(bits & 1u << i))
                    i++;
                if (gone & 1u << i++)
                    stk_head_edit_remove(&out, &line);
            }
            expect(&out, status, bits & ~gone, "");
        }
}

static void test_insert_and_add(void **state)
{
    static const char status[] = "HTTP/1.1 200 OK\r\n";
    char buf[ROOM], model[ROOM];
    struct stk_out out;

    (void)state;
    make(&out, buf, status, (1u << LINES) - 1);
    stk_head_edit_add(&out, STK_SPAN_LIT("Vary"), STK_SPAN_LIT("Accept-Encoding"));
    expect(&out, status, (1u << LINES) - 1, "Vary: Accept-Encoding\r\n");
    /* At every offset, and nothing else moves. */
    for (size_t at = out.mark; at <= out.len; at++) {
        size_t len = out.len;

        memcpy(model, buf, len);
        stk_head_edit_insert(&out, at, STK_SPAN_LIT("W/"));
        assert_int_equal(out.len, len + 2);
        assert_memory_equal(buf, model, at);
        assert_memory_equal(buf + at, "W/", 2);
        assert_memory_equal(buf + at + 2, model + at, len - at);
        memcpy(buf, model, len);
        out.len = len;
    }
    /* Up to the last byte of the buffer. */
    out.cap = out.len + 2;
    stk_head_edit_insert(&out, out.len, STK_SPAN_LIT("ab"));
    assert_int_equal(out.len, out.cap);
}

static void test_members(void **state)
{
    static const struct {
        const char *list, *members;
    } rows[] = {
        {"", ""},
        {",, ,\t,", ""},
        {"a", "a|"},
        {" a , b,c ", "a|b|c|"},
        {"\"a,b\", W/\"c\"", "\"a,b\"|W/\"c\"|"},
        {"\"a\\\",b\",c", "\"a\\\",b\"|c|"},
        {"\"open, b", "\"open, b|"},
        {"a \"b\\", "a \"b\\|"},
        {"*", "*|"},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        stk_span list = stk_span_str(rows[i].list), member;
        char got[256] = "";

        while (stk_head_edit_member(&list, &member)) {
            strncat(got, member.ptr, member.len);
            strcat(got, "|");
        }
        assert_string_equal(got, rows[i].members);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_remove),
        cmocka_unit_test(test_insert_and_add),
        cmocka_unit_test(test_members),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
