/*
 * The protocols but HTTP/1. They write to the thread's head, so what the memo of HTTP/1 has there
 * is forgotten first.
 */
#include "serve/proto.h"

STK_COLD enum stk_http1_result stk_proto_parse_other(struct stk_conn *conn,
                                                     struct stk_serve_thread *t, const char *buf,
                                                     size_t len)
{
    t->memo.len = 0;
    return stk_http1_parse_memo(&t->memo, &t->head, buf, len, &conn->server->limits);
}
