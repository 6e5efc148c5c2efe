/*
 * What is said to a client whose request is not served: it is malformed, too large or too slow, or
 * its body cannot be stored. A plain text, and the connection ends.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "config/config.h"
#include "serve/body.h"
#include "serve/conn.h"
#include "serve/fcgi.h"
#include "serve/http1_priv.h"
#include "serve/proto.h"
#include "serve/proxied.h"
#include "serve/request.h"
#include "serve/secure.h"
#include "serve/server.h"
#include "wire/uwsgi.h"

/* The head that the connection keeps while it gathers a body, for what is said of the request. */
const struct stk_head *stk_http1_kept_head(struct stk_conn *conn, struct stk_serve_thread *t)
{
    size_t off = 0;

    if (conn->state != STK_CONN_BODY || conn->in == NULL || conn->head_len > conn->in_len)
        return NULL;
    return stk_proto_parse(conn, t, conn->in, conn->head_len, &off) == STK_HTTP1_OK ? &t->head
                                                                                    : NULL;
}

/* Answers a request that cannot be served with a plain text, and closes. */
enum http1_step stk_http1_refuse(struct stk_conn *conn, struct stk_lead_thread *thread,
                                 const struct stk_head *head, unsigned status, const char *text,
                                 enum stk_close_reason reason)
{
    static const struct stk_head none = {
        .base = "-", .method_len = 1, .target_len = 1, .version_minor = 1};
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    struct stk_serve_request rq;

    stk_http1_init_request(&rq, conn, t, head ? head : &none);
    rq.keep_alive = false;
    stk_response_plain(&rq, status, text);
    stk_fcgi_end(&rq);
    stk_log_debug("%.*s:%u: answered %u: %s", conn->peer.addr_len, conn->peer.addr, conn->peer.port,
                  status, text);
    stk_http1_account(&rq);
    return stk_http1_finish_close(conn, thread, reason);
}

/* Answers a uwsgi ping. */
static enum http1_step http1_pong(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    char pong[STK_UWSGI_HEADER];
    struct iovec iov = {pong, sizeof pong};

    memcpy(pong, stk_uwsgi_pong, sizeof pong);
    if (stk_conn_send(conn, &iov, 1) < 0) {
        stk_conn_close(conn, thread, STK_CLOSE_RESET);
        return STEP_DONE;
    }
    conn->served = true;
    return stk_http1_finish_close(conn, thread, STK_CLOSE_REQUESTED);
}

/* Bytes that are no request: another protocol's, or malformed. */
STK_COLD enum http1_step stk_http1_refuse_parse(struct stk_conn *conn,
                                                struct stk_lead_thread *thread,
                                                enum stk_http1_result result, const char *buf,
                                                size_t len)
{
    if (result == STK_HTTP1_E_UWSGI_PING)
        return http1_pong(conn, thread);
    if (result == STK_HTTP1_E_TLS_BYTES && !conn->served && conn->tls == NULL &&
        stk_proto_takes_tls(conn)) {
        stk_conn_forget(conn);
        stk_secure_begin(conn, thread, buf, len);
        return STEP_DONE;
    }
    if (!stk_proxied_log_unexpected(conn, buf, len))
        stk_proto_log_refusal(conn, result, buf, len);
    if (result == STK_HTTP1_E_FASTCGI_ENDED)
        return stk_http1_finish_close(conn, thread,
                                      STK_CLOSE_BAD_REQUEST); /* it has been answered */
    return stk_http1_refuse(conn, thread, NULL, stk_http1_error_status(result),
                            stk_http1_error_text(result), STK_CLOSE_BAD_REQUEST);
}

enum http1_step stk_http1_refuse_body(struct stk_conn *conn, struct stk_lead_thread *thread,
                                      const struct stk_head *head, int error)
{
    const char *text = "";
    stk_span method = STK_SPAN_LIT("?"), target = STK_SPAN_LIT("?");

    switch (error) {
    case -EPROTO:
        text = stk_body_error_text(conn->body);
        return stk_http1_refuse(conn, thread, head, 400, text, STK_CLOSE_BAD_REQUEST);
    case -EFBIG:
        return stk_http1_refuse(conn, thread, head, 413, "the request body is over the limit",
                                STK_CLOSE_TOO_LARGE);
    case -ECONNRESET:
        stk_conn_close(conn, thread, STK_CLOSE_RESET);
        return STEP_DONE;
    default:
        if (head != NULL) {
            method = stk_head_method(head);
            target = stk_head_target(head);
        }
        stk_log_error("%.*s %.*s: the request body could not be stored: %s",
                      (int)(method.len < 32 ? method.len : 32), method.ptr,
                      (int)(target.len < 200 ? target.len : 200), target.ptr, strerror(-error));
        return stk_http1_refuse(conn, thread, head, error == -ENOMEM ? 503 : 500, "",
                                STK_CLOSE_NOT_STORED);
    }
}

void stk_http1_refuse_bytes(struct stk_conn *conn, struct stk_lead_thread *thread, const char *text,
                            enum stk_close_reason reason)
{
    stk_conn_set_state(conn, STK_CONN_HEAD, conn->server->config->head_timeout);
    (void)stk_http1_refuse(conn, thread, NULL, 400, text, reason);
}

void stk_http1_timed_out(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    if (conn->proto == STK_PROTO_FCGI && conn->fcgi_id == 0)
        stk_conn_close(conn, thread, STK_CLOSE_HEAD_TIMEOUT); /* nobody has asked for an answer */
    else if (conn->state == STK_CONN_HEAD)
        (void)stk_http1_refuse(conn, thread, NULL, 408, "the request head took too long",
                               STK_CLOSE_HEAD_TIMEOUT);
    else
        (void)stk_http1_refuse(conn, thread, stk_http1_kept_head(conn, stk_serve_thread_of(thread)),
                               408, "the request body took too long", STK_CLOSE_BODY_TIMEOUT);
}
