/*
 * The body services of a request, and the table of all services. A body is either a span of the
 * read buffer or an object that has all of it; in stream mode the object is filled as the
 * application reads, and 100 Continue is sent at the first read.
 */
#include "serve/request.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "config/config.h"
#include "loop/loop.h"
#include "serve/body.h"
#include "serve/conn.h"
#include "serve/conn_io.h"
#include "serve/deadline.h"
#include "serve/detach.h"
#include "serve/fcgi.h"
#include "serve/http1.h"
#include "serve/secure.h"
#include "serve/server.h"
#include "serve/take.h"

/* Answers FastCGI records of other requests among the body, between what the response sends. */
static STK_COLD void body_reply(struct stk_serve_request *rq)
{
    struct stk_fastcgi_replies *replies = stk_body_replies(rq->body);

    if (replies == NULL || !stk_deadline_lock(rq))
        return;
    stk_gather_end(rq->t);
    stk_fcgi_reply(rq->conn, replies);
    stk_deadline_unlock(rq);
}

/* Stream mode: makes at least one byte available. 0; -EAGAIN; or the end of the hope for more. */
static int body_receive(struct stk_serve_request *rq)
{
    const struct stk_config *config = rq->t->server->config;
    const struct stk_head *head = rq->base.head;
    stk_msec now = stk_time_mono_coarse_ms();
    size_t offset = rq->head_end;
    size_t rest = 0;
    int r;

    if (!rq->committed) {
        if (!stk_deadline_lock(rq))
            return -ECONNRESET; /* it has been answered */
        stk_http1_continue(rq->conn, head);
        stk_deadline_unlock(rq);
    }
    /* The head in front of the body in the read buffer is still in use. */
    do /* no event would tell of what TLS has still got */
        r = stk_body_recv(rq->body, rq->conn, rq->t->read_buf + offset,
                          STK_SERVE_READ_BUFFER - offset, &rest);
    while (r == STK_BODY_PARTIAL && stk_body_is_drained(rq->body) && stk_conn_io_hides(rq->conn));
    rq->t->bytes_in += stk_body_take_fresh(rq->body);
    if (stk_unlikely(rq->conn->fcgi_id != 0))
        body_reply(rq);
    if (r < 0)
        return r;
    if (stk_body_was_aborted(rq->body))
        return -ECONNRESET;
    if (rest > 0) {
        /* The next request has begun: the thread's buffer is busy with this one, so it ends here,
         * but for a detached one. */
        if (!rq->detached || !stk_conn_keep(rq->conn, rq->t->read_buf + offset, rest))
            rq->keep_alive = false;
    }
    if (r == STK_BODY_COMPLETE)
        rq->base.body_length = stk_body_length(rq->body);
    if (!stk_body_is_drained(rq->body) || r == STK_BODY_COMPLETE) {
        rq->body_wait_since = 0;
        return 0;
    }
    if (rq->body_wait_since == 0)
        rq->body_wait_since = now;
    if (now - rq->body_wait_since >= config->body_timeout ||
        stk_body_is_too_slow(rq->body, config->body_min_rate, now, STK_HTTP1_RATE_GRACE_MS))
        return -ETIMEDOUT;
    return -EAGAIN;
}

static int request_body_ready(struct stk_serve_request *rq)
{
    int r;

    if (stk_body_is_complete(rq->body) || !stk_body_is_drained(rq->body))
        return 0;
    r = body_receive(rq);
    if (r < 0 && r != -EAGAIN) {
        rq->keep_alive = false;
        stk_body_set_fault(rq->body, r);
    }
    return r;
}

static int request_body_peek(struct stk_request *req, struct stk_body_view *ret_view)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    int r;

    if (rq->body == NULL) {
        *ret_view = (struct stk_body_view){.ptr = rq->body_ptr, .len = rq->body_left};
        return 0;
    }
    r = request_body_ready(rq);
    return r < 0 ? r : stk_body_peek(rq->body, ret_view);
}

static void request_body_skip(struct stk_request *req, size_t len)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);

    if (rq->body != NULL) {
        stk_body_skip(rq->body, len);
        return;
    }
    rq->body_ptr += len;
    rq->body_left -= len;
}

static ssize_t request_body_read(struct stk_request *req, char *dst, size_t len)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    int r;

    if (rq->body == NULL) {
        if (len > rq->body_left)
            len = rq->body_left;
        if (len > 0)
            memcpy(dst, rq->body_ptr, len);
        request_body_skip(req, len);
        return (ssize_t)len;
    }
    r = request_body_ready(rq);
    return r < 0 ? r : stk_body_copy(rq->body, dst, len);
}

static bool request_is_disconnected(struct stk_request *req)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    struct pollfd pfd = {.fd = rq->conn->src.fd};

    if (rq->gone || stk_conn_is_gone(rq->conn) || stk_fcgi_is_aborted(rq->conn))
        return true;
    if (poll(&pfd, 1, 0) == 1 && pfd.revents & (POLLHUP | POLLERR))
        rq->gone = true;
    return rq->gone;
}

static void request_wait_for(struct stk_request *req, struct stk_wait *ret_wait)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);

    *ret_wait = (struct stk_wait){.fd = rq->conn->src.fd};
    if (stk_conn_has_output(rq->conn)) {
        ret_wait->events = POLLOUT;
        ret_wait->timeout = stk_conn_send_left(rq->conn) + 1;
    } else {
        ret_wait->events = POLLIN;
        ret_wait->timeout = 1000; /* the minimum rate is looked at as well */
    }
}

static int request_set_timeout(struct stk_request *req, stk_msec timeout)
{
    return stk_deadline_set_timeout(stk_serve_request_of(req), timeout);
}

static int request_set_logvar(struct stk_request *req, stk_span name, stk_span value)
{
    struct stk_serve_thread *t = stk_serve_request_of(req)->t;

    return stk_logvar_set(&t->server->logvars, req->id, t, name, value);
}

size_t stk_request_get_logvar(const struct stk_request *req, stk_span name, char *dst, size_t size)
{
    const struct stk_serve_request *rq = (const void *)req;

    return stk_logvar_get(&rq->t->server->logvars, req->id, name, dst, size);
}

void stk_request_log_this(struct stk_request *req)
{
    stk_serve_request_of(req)->log_this = true;
}

const struct stk_request_ops stk_serve_request_ops = {
    .body_peek = request_body_peek,
    .body_skip = request_body_skip,
    .body_read = request_body_read,
    .start = stk_response_start,
    .header = stk_response_header,
    .head_save = stk_response_head_save,
    .head_load = stk_response_head_load,
    .write = stk_response_write,
    .sendfile = stk_response_sendfile,
    .trailers = stk_response_trailers,
    .early_hint = stk_response_early_hint,
    .tls = stk_secure_view,
    .is_committed = stk_response_is_committed,
    .fail = stk_response_fail,
    .is_disconnected = request_is_disconnected,
    .wait_for = request_wait_for,
    .set_timeout = request_set_timeout,
    .set_logvar = request_set_logvar,
    .get_logvar = stk_request_get_logvar,
    .log_this = stk_request_log_this,
    .take = stk_take,
    .detach = stk_detach,
    .is_congested = stk_detach_is_congested,
};
