/*
 * What a FastCGI connection receives. The first byte chooses into which pieces the rest is cut: the
 * variables, bodies and answers that come of it must not depend on it.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "wire/fastcgi.h"

enum { INPUT_MAX = 48 * 1024 };

struct conn {
    char *buf;
    size_t len;
    bool in_body, closed;
    struct stk_fastcgi_body body;
    uint64_t seen; /* a checksum of all that has come out */
    size_t bytes;
};

static void see(struct conn *c, const void *data, size_t len)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i++)
        c->seen = (c->seen ^ p[i]) * 0x100000001b3;
    c->bytes += len;
}

static void see_replies(struct conn *c, struct stk_fastcgi_replies *r)
{
    FUZZ_CHECK(r->len <= sizeof r->bytes);
    see(c, r->bytes, r->len);
    r->len = 0;
}

static void see_vars(struct conn *c, const struct stk_fastcgi_head *head)
{
    stk_span vars = head->vars, name, value;

    see(c, &head->id, sizeof head->id);
    see(c, &head->keep, sizeof head->keep);
    while (vars.len > 0) {
        size_t before = vars.len;
        enum stk_fastcgi_result r = stk_fastcgi_pair(&vars, &name, &value);

        if (r != STK_FASTCGI_OK) {
            FUZZ_CHECK(r == STK_FASTCGI_E_PAIR && vars.len == before);
            c->closed = true;
            return;
        }
        FUZZ_CHECK(vars.len + name.len + value.len + 2 <= before);
        see(c, name.ptr, name.len);
        see(c, "=", 1);
        see(c, value.ptr, value.len);
    }
}

/* The body of a request whose head has just been taken: whole at once if it can be. */
static void take_whole(struct conn *c, uint16_t id)
{
    char *copy = malloc(c->len + 1);
    stk_span body, shown;
    size_t used, n;

    FUZZ_CHECK(copy);
    memcpy(copy, c->buf, c->len);
    if (stk_fastcgi_whole(c->buf, c->len, id, false, &shown, &n) == STK_FASTCGI_OK) {
        FUZZ_CHECK(memcmp(copy, c->buf, c->len) == 0);
        FUZZ_CHECK(stk_fastcgi_whole(c->buf, c->len, id, true, &body, &used) == STK_FASTCGI_OK);
        FUZZ_CHECK(used == n && used <= c->len && body.len == shown.len);
        FUZZ_CHECK(body.len + 8 <= used);
        FUZZ_CHECK(memcmp(copy + used, c->buf + used, c->len - used) == 0);
        see(c, body.ptr, body.len);
        see(c, "$", 1);
        c->in_body = false;
        c->len -= used;
        memmove(c->buf, c->buf + used, c->len);
    }
    free(copy);
}

static bool take_head(struct conn *c)
{
    struct stk_fastcgi_replies replies = {.max_conns = 100000, .max_reqs = UINT32_MAX};
    struct stk_fastcgi_head head;
    size_t off = 0;
    enum stk_fastcgi_result r = stk_fastcgi_head(c->buf, c->len, &off, &head, &replies);

    FUZZ_CHECK(off <= c->len);
    FUZZ_CHECK(r != STK_FASTCGI_REPLY || replies.len > 0);
    see_replies(c, &replies);
    if (r > STK_FASTCGI_ABORTED || r == STK_FASTCGI_CLOSE) {
        see(c, &r, sizeof r);
        c->closed = true;
        return false;
    }
    if (r == STK_FASTCGI_OK) {
        FUZZ_CHECK(head.id != 0 && head.len <= c->len - off && head.len >= 24);
        FUZZ_CHECK(head.len <= STK_FASTCGI_HEAD_MAX);
        see_vars(c, &head);
        off += head.len;
        c->in_body = true;
        stk_fastcgi_body_init(&c->body, head.id);
    }
    memmove(c->buf, c->buf + off, c->len - off);
    c->len -= off;
    if (r == STK_FASTCGI_OK && !c->closed)
        take_whole(c, head.id);
    return !c->closed && r != STK_FASTCGI_PARTIAL;
}

static bool take_body(struct conn *c)
{
    size_t consumed = SIZE_MAX;
    stk_span data = {NULL, 0};
    enum stk_fastcgi_result r = stk_fastcgi_body_decode(&c->body, c->buf, c->len, &consumed, &data);

    see_replies(c, &c->body.replies);
    if (r > STK_FASTCGI_ABORTED) {
        see(c, &r, sizeof r);
        c->closed = true;
        return false;
    }
    FUZZ_CHECK(consumed <= c->len);
    FUZZ_CHECK(r != STK_FASTCGI_PARTIAL || consumed == c->len);
    if (r == STK_FASTCGI_PIECE) {
        FUZZ_CHECK(data.len > 0 && data.ptr + data.len == c->buf + consumed);
        see(c, data.ptr, data.len);
    } else if (r != STK_FASTCGI_PARTIAL) {
        FUZZ_CHECK(r == STK_FASTCGI_OK || r == STK_FASTCGI_ABORTED);
        see(c, r == STK_FASTCGI_OK ? "$" : "~", 1);
        c->in_body = false;
    }
    memmove(c->buf, c->buf + consumed, c->len - consumed);
    c->len -= consumed;
    return r != STK_FASTCGI_PARTIAL;
}

static void receive(struct conn *c, const char *bytes, size_t size, size_t piece)
{
    *c = (struct conn){.buf = malloc(size + 1)};
    FUZZ_CHECK(c->buf);
    for (size_t at = 0; at < size && !c->closed; at += piece) {
        size_t len = size - at < piece ? size - at : piece;

        memcpy(c->buf + c->len, bytes + at, len);
        c->len += len;
        while (!c->closed && (c->in_body ? take_body(c) : take_head(c))) {
        }
    }
    free(c->buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conn whole, pieces;

    if (size < 1 || size > INPUT_MAX)
        return 0;
    receive(&whole, (const char *)data + 1, size - 1, size);
    receive(&pieces, (const char *)data + 1, size - 1, (size_t)*data % 32 + 1);
    /* Where a body holds so much of others that it is refused depends on how much comes at once. */
    if (whole.closed != pieces.closed && (whole.body.replies.len + pieces.body.replies.len) > 0)
        return 0;
    FUZZ_CHECK(whole.closed == pieces.closed && whole.bytes == pieces.bytes);
    FUZZ_CHECK(whole.seen == pieces.seen);
    return 0;
}
