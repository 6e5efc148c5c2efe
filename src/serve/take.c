/*
 * An application that takes the connection: WebSockets of WSGI applications in the way of uWSGI
 * and Gunicorn, which hand out the socket itself.
 *
 * A busy connection is read by nobody but its request, so nothing has to be told to the loop: the
 * response counts as given, and the connection ends with the request. What the client has sent
 * behind its request would be lost with the thread's read buffer; but a client that asks for
 * another protocol has to wait for the answer, so such a request is refused.
 */
#include "serve/take.h"

#include <errno.h>

#include "serve/conn.h"
#include "serve/deadline.h"
#include "serve/request.h"

int stk_take_conn(struct stk_request *req, unsigned status)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    struct stk_conn *conn = rq->conn;

    if (rq->started || rq->committed)
        return -EALREADY;
    if (rq->gone || stk_conn_is_gone(conn))
        return -EPIPE;
    if (conn->tls != NULL || conn->proto != STK_PROTO_HTTP1 || rq->base.body_length != 0 ||
        conn->lingers || stk_conn_has_output(conn))
        return -ENOTSUP;
    rq->started = rq->committed = rq->ended = true;
    rq->no_body = true; /* as far as the server knows of one */
    rq->keep_alive = false;
    rq->status = (uint16_t)status;
    rq->base.status = status;
    conn->lingers = true; /* what has been sent last arrives before the end does */
    return conn->src.fd;
}

int stk_take(struct stk_request *req, unsigned status)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    int fd;

    if (rq->t->out.len > 0 && !rq->started && stk_gather_send(rq->t, rq->conn, NULL, 0) < 0) {
        rq->t->out.len = 0;
        rq->gone = true;
    }
    fd = stk_take_conn(req, status);
    if (fd >= 0)
        (void)stk_deadline_set_timeout(rq, 0); /* it may last; without a stand-by nobody minds */
    return fd;
}
