/*
 * The end of a request on its connection, as far as it does not go through a thread's buffers; and
 * that of a detached request, whose thread may be in the midst of another one.
 */
#include "serve/http1_end.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/log.h"
#include "serve/deadline.h"
#include "serve/detach.h"
#include "serve/websocket.h"

enum { HTTP1_CLIENT_LEFT = 499 }; /* the status that logs show, nginx's number */

/* Makes a connection's end visible as a truncation where the framing does not. */
static void http1_reset_at_close(struct stk_conn *conn)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    if (setsockopt(conn->src.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) < 0)
        stk_log_debug("SO_LINGER: %m");
}

enum stk_close_reason stk_http1_close_reason(struct stk_serve_request *rq,
                                             enum stk_close_reason reason)
{
    struct stk_conn *conn = rq->conn;
    struct stk_server *server = conn->server;

    /* A byte that comes after the close resets the connection: what has not left then is lost. */
    if (rq->body_bytes > STK_HTTP1_LINGER_BYTES)
        conn->lingers = true;
    if (conn->ws != NULL && !rq->gone)
        return STK_CLOSE_WEBSOCKET;
    if (rq->gone)
        reason = conn->stalled ? STK_CLOSE_SEND_TIMEOUT : STK_CLOSE_RESET;
    else if (rq->truncated || (rq->has_length && rq->remaining > 0 && !rq->no_body))
        reason = STK_CLOSE_TRUNCATED;
    else if (atomic_load_explicit(&server->draining, memory_order_relaxed))
        reason = STK_CLOSE_DRAINING;
    else if (!rq->has_length && !rq->chunked && !rq->no_body && reason == STK_CLOSE_REQUESTED)
        reason = STK_CLOSE_RESPONSE_END;
    if (reason == STK_CLOSE_TRUNCATED && !rq->has_length && !rq->chunked)
        http1_reset_at_close(conn);
    return reason;
}

enum stk_close_reason stk_http1_end_expired(struct stk_serve_request *rq)
{
    struct stk_conn *conn = rq->conn;

    if (rq->fate == STK_FATE_LEFT) {
        rq->status = HTTP1_CLIENT_LEFT;
        rq->base.status = HTTP1_CLIENT_LEFT;
        rq->body_bytes = 0;
        rq->failed = false;
    }
    if (rq->fate != STK_FATE_ANSWERED)
        stk_http1_account(rq);
    conn->served = true;
    if (rq->body != NULL)
        conn->body = stk_body_free(rq->body);
    return rq->fate == STK_FATE_LEFT ? STK_CLOSE_RESET : STK_CLOSE_REQUEST_TIMEOUT;
}

void stk_http1_close_sent(struct stk_conn *conn, struct stk_lead_thread *thread,
                          enum stk_close_reason reason)
{
    if (stk_conn_has_output(conn) && !stk_conn_is_gone(conn)) {
        conn->close_reason = (uint8_t)reason;
        conn->close_after_drain = true;
        stk_conn_forget(conn);
        stk_conn_set_state(conn, STK_CONN_DRAIN, conn->server->config->send_timeout);
        if (thread->own)
            stk_conn_check_timer(conn);
        stk_conn_release(conn, thread);
        return;
    }
    stk_conn_close(conn, thread, reason);
}

void stk_http1_keep_rest(struct stk_conn *conn, const char *rest, size_t len)
{
    /* Where nothing is left, what the connection keeps came while the step ran. */
    if (len > 0 && !stk_conn_keep(conn, rest, len)) {
        stk_conn_forget(conn);
        conn->detached->rq.keep_alive = false;
        conn->detached->rq.gone = conn->detached->rq.base.websocket;
    }
    if (conn->detached->behind)
        stk_websocket_take_kept(conn);
}

/* Not stk_http1_job, which is a request that is complete: that one may be moved, or refused. */
static void http1_rest_job(struct stk_job *job, struct stk_lead_thread *thread)
{
    job->run = stk_http1_job;
    job->since = 0;
    stk_http1_job(job, thread);
}

/* What the client has sent behind the request comes next; not within its last step. */
static void http1_post_rest(struct stk_conn *conn)
{
    conn->job.run = http1_rest_job;
    conn->job.loop = true;
    conn->job.gated = false;
    stk_conn_begin_request(conn);
    stk_lead_post(conn->server->lead, &conn->job);
}

void stk_http1_yield(struct stk_conn *conn, struct stk_lead_thread *thread, const char *rest,
                     size_t len)
{
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    bool busy = atomic_load_explicit(&conn->word, memory_order_relaxed) & STK_CONN_BUSY;

    if (t->out.len > 0 && stk_gather_send(t, conn, NULL, 0) < 0) {
        t->out.len = 0;
        stk_conn_close(conn, thread, STK_CLOSE_RESET);
    } else if (!stk_conn_keep(conn, rest, len)) {
        stk_conn_close(conn, thread, STK_CLOSE_NO_MEMORY);
    } else if (stk_conn_has_output(conn)) {
        stk_http1_wait_next(conn, thread, len, false, busy);
    } else {
        stk_conn_acquire(conn);
        http1_post_rest(conn);
    }
}

void stk_http1_finish(struct stk_serve_request *rq, struct stk_lead_thread *thread)
{
    struct stk_conn *conn = rq->conn;
    enum stk_close_reason reason;

    if (stk_unlikely(rq->fate != STK_FATE_NONE)) {
        stk_http1_close_sent(conn, thread, stk_http1_end_expired(rq));
    } else if (!stk_http1_end_call(rq, &reason)) {
        stk_http1_close_sent(conn, thread, reason);
    } else if (conn->in_len > 0 && !stk_conn_has_output(conn)) {
        http1_post_rest(conn);
    } else {
        stk_http1_wait_next(conn, thread, conn->in_len, false, true);
    }
}
