/* What the files of serve/http1 have in common. */
#pragma once

#include "base/macros.h"
#include "serve/http1.h"
#include "serve/server.h"

struct stk_head;
struct stk_serve_request;

/* How a piece of input was dealt with. */
enum http1_step {
    STEP_ANSWERED, /* a request has been answered: go on with what follows */
    STEP_MORE,     /* more bytes are needed; the rest of the input is to be kept */
    STEP_KEPT,     /* the connection has kept what it needs, and is to be released */
    STEP_DETACHED, /* a request waits in the application's event loop: the rest is to be kept */
    STEP_DONE,     /* the connection was closed or given to another thread: hands off */
};

/* Begins a request on the connection. */
void stk_http1_init_request(struct stk_serve_request *rq, struct stk_conn *conn,
                            struct stk_serve_thread *t, const struct stk_head *head);
/* Sends what the thread's buffer holds and closes; the connection is not to be touched afterwards.
 */
enum http1_step stk_http1_finish_close(struct stk_conn *conn, struct stk_lead_thread *thread,
                                       enum stk_close_reason reason);

/* http1_refuse.c; each of them ends the connection. */
/* Answers a request that cannot be served with a plain text. `head` may be NULL. */
enum http1_step stk_http1_refuse(struct stk_conn *conn, struct stk_lead_thread *thread,
                                 const struct stk_head *head, unsigned status, const char *text,
                                 enum stk_close_reason reason);
/* Bytes that are no request: another protocol's, or malformed. */
enum http1_step stk_http1_refuse_parse(struct stk_conn *conn, struct stk_lead_thread *thread,
                                       enum stk_http1_result result, const char *buf, size_t len);
/* A body with which something is wrong, by a negative errno of stk_body_feed. */
enum http1_step stk_http1_refuse_body(struct stk_conn *conn, struct stk_lead_thread *thread,
                                      const struct stk_head *head, int error);
/* The head that the connection keeps while it gathers a body, or NULL. */
const struct stk_head *stk_http1_kept_head(struct stk_conn *conn, struct stk_serve_thread *t);
