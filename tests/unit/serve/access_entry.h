/* Makes entries of the access log from the text of a request. */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "serve/access_format.h"
#include "wire/http1.h"

struct entry {
    struct stk_head head;
    struct stk_request req;
    struct stk_access_entry entry;
};

/* 2026-11-23 02:10:00.123456789 UTC */
#define ENTRY_NOW INT64_C(1795399800123456789)

/* False: the request was not understood, and the entry has no head. */
static inline bool entry_make(struct entry *e, const char *request, size_t len)
{
    static const struct stk_http1_limits limits = {
        .line_max = 65536, .head_max = 1 << 20, .fields_max = 100};
    bool ok = stk_http1_parse(&e->head, request, len, &limits) == STK_HTTP1_OK;

    memset(&e->req, 0, sizeof e->req);
    e->req.head = ok ? &e->head : NULL;
    strcpy(e->req.peer.addr, "192.0.2.7");
    e->req.peer.addr_len = 9;
    e->req.peer.port = 40123;
    e->req.scheme = STK_SPAN_LIT("http");
    e->req.host = ok ? stk_head_host(&e->head) : stk_span_make("", 0);
    e->req.status = ok ? 200 : 400;
    e->req.id = 42;
    e->entry.req = &e->req;
    e->entry.body_bytes = 5120;
    e->entry.duration = 1234567;
    return ok;
}
