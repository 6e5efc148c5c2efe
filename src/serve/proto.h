/*
 * What a connection speaks, and the one way in which its bytes become a head (wire/head.h). HTTP/1
 * is parsed here and now; everything else is behind one branch that is not taken for it.
 */
#pragma once

#include <stddef.h>

#include "base/macros.h"
#include "serve/conn.h"
#include "serve/server.h"
#include "wire/http1.h"
#include "wire/proto.h"

/* The protocols but HTTP/1; as stk_proto_parse. */
enum stk_http1_result stk_proto_parse_other(struct stk_conn *conn, struct stk_serve_thread *t,
                                            const char *buf, size_t len);

/*
 * Parses the head at the start of buf into t->head. STK_HTTP1_OK: head.len bytes of buf are it, but
 * head.base need not be buf. STK_HTTP1_PARTIAL: more bytes are needed. Else why it is refused.
 */
static inline enum stk_http1_result stk_proto_parse(struct stk_conn *conn,
                                                    struct stk_serve_thread *t, const char *buf,
                                                    size_t len)
{
    if (stk_unlikely(conn->proto != STK_PROTO_HTTP1))
        return stk_proto_parse_other(conn, t, buf, len);
    return stk_http1_parse_memo(&t->memo, &t->head, buf, len, &conn->server->limits);
}
