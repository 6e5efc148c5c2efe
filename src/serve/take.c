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

static int take_check(struct stk_serve_request *rq)
{
    struct stk_conn *conn = rq->conn;

    if (rq->started || rq->committed)
        return -EALREADY;
    if (rq->gone || stk_conn_is_gone(conn))
        return -EPIPE;
    if (conn->tls != NULL || conn->proto != STK_PROTO_HTTP1 || rq->base.body_length != 0 ||
        conn->lingers || stk_conn_has_output(conn))
        return -ENOTSUP;
    return 0;
}

static int take_note(struct stk_serve_request *rq, unsigned status)
{
    rq->started = rq->committed = rq->ended = true;
    rq->no_body = true; /* as far as the server knows of one */
    rq->keep_alive = false;
    rq->status = (uint16_t)status;
    rq->base.status = status;
    rq->conn->lingers = true; /* what has been sent last arrives before the end does */
    return rq->conn->src.fd;
}

int stk_take_detached(struct stk_request *req, unsigned status)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    int r = take_check(rq);

    return r < 0 ? r : take_note(rq, status);
}

int stk_take(struct stk_request *req, unsigned status)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    int r = rq->t->out.len > 0 ? -ENOTSUP : take_check(rq); /* answers that came before are there */

    if (r < 0)
        return r;
    if (!stk_deadline_commit(rq)) /* its time is over, and it has been answered */
        return -EPIPE;
    r = take_note(rq, status);
    (void)stk_deadline_set_timeout(rq, 0); /* it may last; without a stand-by nobody minds */
    return r;
}
