/*
 * Changes of a rendered head, against a plain list of its lines; and lists that commas separate,
 * which come from clients too. Input: operations in one line, then the lines of a head.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "serve/head_edit.h"

enum { LINES_MAX = 64, ROOM = 16 * 1024 };

struct model {
    stk_span lines[LINES_MAX]; /* without CRLF */
    size_t n;
};

/* Renders a head of the lines that are fields. */
static void render(struct stk_out *out, struct model *m, stk_span text)
{
    static const char status[] = "HTTP/1.1 200 OK\r\n";

    out->len = out->mark;
    memcpy(out->buf + out->len, status, sizeof status - 1);
    out->len += sizeof status - 1;
    while (text.len > 0 && m->n < LINES_MAX) {
        const char *end = memchr(text.ptr, '\n', text.len);
        size_t len = end ? (size_t)(end - text.ptr) : text.len;
        const char *colon = memchr(text.ptr, ':', len);

        if (colon != NULL && colon > text.ptr && !memchr(text.ptr, '\r', len)) {
            m->lines[m->n++] = stk_span_make(text.ptr, len);
            memcpy(out->buf + out->len, text.ptr, len);
            memcpy(out->buf + out->len + len, "\r\n", 2);
            out->len += len + 2;
        }
        text.ptr += len + (end != NULL);
        text.len -= len + (end != NULL);
    }
}

static void check_same(const struct stk_out *out, const struct model *m)
{
    struct stk_head_line line = {0};
    size_t i = 0;

    while (stk_head_edit_next(out, &line)) {
        const char *colon;

        FUZZ_CHECK(i < m->n && line.len == m->lines[i].len + 2);
        FUZZ_CHECK(memcmp(out->buf + line.off, m->lines[i].ptr, line.len - 2) == 0);
        colon = memchr(m->lines[i].ptr, ':', m->lines[i].len);
        FUZZ_CHECK(line.name.len == (size_t)(colon - m->lines[i].ptr));
        FUZZ_CHECK(line.value.len <= line.len && (line.value.len == 0 || line.value.ptr[0] != ' '));
        i++;
    }
    FUZZ_CHECK(i == m->n);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static void fuzz_list(stk_span list)
{
    stk_span member, before = list;

    while (stk_head_edit_member(&list, &member)) {
        FUZZ_CHECK(member.len > 0 && member.ptr >= before.ptr);
        FUZZ_CHECK(list.len < before.len && list.ptr + list.len == before.ptr + before.len);
        FUZZ_CHECK(member.ptr + member.len <= list.ptr);
        FUZZ_CHECK(!is_blank(member.ptr[0]) && !is_blank(member.ptr[member.len - 1]));
        before = list;
    }
    FUZZ_CHECK(list.len == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, '\n', size) : NULL;
    struct stk_out out = {.cap = ROOM, .mark = 7};
    struct model m = {0};
    size_t nops;

    if (end == NULL || size > 4096)
        return 0;
    nops = (size_t)(end - data);
    out.buf = malloc(ROOM);
    FUZZ_CHECK(out.buf);
    render(&out, &m, stk_span_make((const char *)end + 1, size - nops - 1));
    check_same(&out, &m);
    for (size_t i = 0; i < nops; i++) {
        size_t at = data[i] % LINES_MAX;

        if (data[i] >= 192 && m.n < LINES_MAX) {
            stk_head_edit_add(&out, STK_SPAN_LIT("Added"), STK_SPAN_LIT("x"));
            m.lines[m.n++] = STK_SPAN_LIT("Added: x");
        } else if (at < m.n) {
            struct stk_head_line line = {0};

            for (size_t k = 0; k <= at; k++)
                FUZZ_CHECK(stk_head_edit_next(&out, &line));
            stk_head_edit_remove(&out, &line);
            memmove(&m.lines[at], &m.lines[at + 1], (m.n - at - 1) * sizeof m.lines[0]);
            m.n--;
            FUZZ_CHECK(stk_head_edit_next(&out, &line) == (at < m.n));
        }
        check_same(&out, &m);
    }
    fuzz_list(stk_span_make((const char *)end + 1, size - nops - 1));
    free(out.buf);
    return 0;
}
