/*
 * The services of a detached request, and its end. Each takes the mutex, borrows the shared
 * buffers, and does what the service of any request does. What it has written leaves at once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/scoreboard.h"
#include "serve/body.h"
#include "serve/compress.h"
#include "serve/conn.h"
#include "serve/conn_io.h"
#include "serve/deadline.h"
#include "serve/detach_priv.h"
#include "serve/http1.h"
#include "serve/outq.h"
#include "serve/secure.h"
#include "serve/take.h"
#include "serve/uroute.h"
#include "serve/websocket.h"

static struct stk_detached *detached_of(const struct stk_request *req)
{
    union {
        const struct stk_request *c;
        struct stk_detached *d;
    } u = {.c = req};

    return u.d;
}

static struct stk_detach *detach_of(const struct stk_detached *d)
{
    return d->rq.t->server->detach;
}

void stk_detach_count(struct stk_detach *det, int change)
{
    det->n += (unsigned)change;
    stk_scoreboard_set(det->server->row, STK_COUNTER_requests_suspended, det->n);
    stk_lead_set_waiting(det->server->lead, det->n);
}

void stk_detach_occupy(struct stk_detach *det, struct stk_detached *d, bool on)
{
    struct stk_lead *lead = det->server->lead;

    if (det->limit == 0 || d->occupies == on)
        return;
    d->occupies = on;
    det->occupied += on ? 1 : -1u;
    if (stk_lead_is_held(lead) != (det->occupied >= det->limit))
        stk_lead_hold(lead, det->occupied >= det->limit);
}

uint64_t stk_detach_queued(struct stk_conn *conn)
{
    struct stk_outq *q = atomic_load_explicit(&conn->outq, memory_order_acquire);

    return q != NULL ? stk_outq_size(q) : 0;
}

/* Keeps the head that the holder of the buffer is making. */
static void detach_hold(struct stk_detach *det)
{
    struct stk_detached *d = det->holder;
    struct stk_out *out = &det->t.out;

    if (d == NULL || out->len == 0)
        return;
    d->held = stk_try_alloc(out->len);
    if (d->held != NULL) {
        memcpy(d->held, out->buf, out->len);
        d->held_len = (uint32_t)out->len;
    } else {
        d->rq.gone = true; /* its writes fail, and so does the response */
    }
}

void stk_detach_borrow(struct stk_detach *det, struct stk_detached *d)
{
    struct stk_out *out = &det->t.out;

    if (det->holder != d) {
        detach_hold(det);
        det->holder = d;
        out->len = out->mark = 0;
        if (d->held != NULL) {
            memcpy(out->buf, d->held, d->held_len);
            out->len = d->held_len;
            free(stk_steal(&d->held));
        }
    }
    atomic_store_explicit(&det->t.running, &d->rq, memory_order_relaxed);
}

static struct stk_detach *detached_enter(struct stk_detached *d)
{
    struct stk_detach *det = detach_of(d);

    pthread_mutex_lock(&det->mutex);
    stk_detach_borrow(det, d);
    return det;
}

/* What has been counted goes to the thread that counts. */
static void detached_leave(struct stk_detach *det)
{
    struct stk_serve_thread *t = &det->server->threads[0];

    t->bytes_in += det->t.bytes_in;
    t->bytes_out += det->t.bytes_out;
    det->t.bytes_in = det->t.bytes_out = 0;
    pthread_mutex_unlock(&det->mutex);
}

/* Sends what a service has left in the buffer, but for a head that is being made. */
static void detached_flush(struct stk_detach *det, struct stk_detached *d)
{
    if (!d->rq.committed || det->t.out.len == 0)
        return;
    if (stk_gather_send(&det->t, d->rq.conn, NULL, 0) < 0) {
        det->t.out.len = 0;
        d->rq.gone = true;
    }
}

/* ---- services ------------------------------------------------------------------------------ */

static int detached_body_peek(struct stk_request *req, struct stk_body_view *ret_view)
{
    struct stk_detach *det = detached_enter(detached_of(req));
    int r = stk_serve_request_ops.body_peek(req, ret_view);

    detached_leave(det);
    return r;
}

static void detached_body_skip(struct stk_request *req, size_t len)
{
    struct stk_detach *det = detached_enter(detached_of(req));

    stk_serve_request_ops.body_skip(req, len);
    detached_leave(det);
}

static ssize_t detached_body_read(struct stk_request *req, char *dst, size_t len)
{
    struct stk_detach *det = detached_enter(detached_of(req));
    ssize_t r = stk_serve_request_ops.body_read(req, dst, len);

    detached_leave(det);
    return r;
}

static int detached_start(struct stk_request *req, unsigned status, stk_span reason)
{
    struct stk_detach *det = detached_enter(detached_of(req));
    int r = stk_response_start(req, status, reason);

    detached_leave(det);
    return r;
}

static int detached_header(struct stk_request *req, stk_span name, stk_span value)
{
    struct stk_detach *det = detached_enter(detached_of(req));
    int r = stk_response_header(req, name, value);

    detached_leave(det);
    return r;
}

static bool detached_head_save(const struct stk_request *req, struct stk_response_head *ret_head)
{
    struct stk_detach *det = detached_enter(detached_of(req));
    bool r = stk_response_head_save(req, ret_head);

    detached_leave(det);
    return r;
}

static int detached_head_load(struct stk_request *req, const struct stk_response_head *head)
{
    struct stk_detach *det = detached_enter(detached_of(req));
    int r = stk_response_head_load(req, head);

    detached_leave(det);
    return r;
}

static int detached_write(struct stk_request *req, const char *data, size_t len, unsigned flags)
{
    struct stk_detached *d = detached_of(req);
    struct stk_detach *det = detached_enter(d);
    int r = stk_response_write(req, data, len, flags);

    detached_flush(det, d);
    detached_leave(det);
    return r;
}

static int detached_sendfile(struct stk_request *req, int fd, int64_t off, uint64_t len,
                             unsigned flags)
{
    struct stk_detached *d = detached_of(req);
    struct stk_detach *det = detached_enter(d);
    int r = stk_response_sendfile(req, fd, off, len, flags);

    detached_flush(det, d);
    detached_leave(det);
    return r;
}

static int detached_trailers(struct stk_request *req, const struct stk_var *fields, size_t nfields,
                             size_t *ret_bad)
{
    struct stk_detached *d = detached_of(req);
    struct stk_detach *det = detached_enter(d);
    int r = stk_response_trailers(req, fields, nfields, ret_bad);

    detached_flush(det, d);
    detached_leave(det);
    return r;
}

static int detached_early_hint(struct stk_request *req, const stk_span *links, size_t nlinks)
{
    struct stk_detach *det = detached_enter(detached_of(req));
    int r = stk_response_early_hint(req, links, nlinks);

    detached_leave(det);
    return r;
}

static void detached_fail(struct stk_request *req)
{
    struct stk_detached *d = detached_of(req);
    struct stk_detach *det = detached_enter(d);

    if (d->rq.conn->ws != NULL)
        d->rq.failed = true; /* finish says so to the client */
    else
        stk_response_fail(req);
    detached_flush(det, d);
    detached_leave(det);
}

static bool detached_is_disconnected(struct stk_request *req)
{
    struct stk_detach *det = detached_enter(detached_of(req));
    bool r = stk_serve_request_ops.is_disconnected(req);

    detached_leave(det);
    return r;
}

static void detached_wait_for(struct stk_request *req, struct stk_wait *ret_wait)
{
    stk_serve_request_ops.wait_for(req, ret_wait);
}

static int detached_set_logvar(struct stk_request *req, stk_span name, stk_span value)
{
    return stk_logvar_set(&detached_of(req)->rq.t->server->logvars, req->id, NULL, name, value);
}

static int detached_set_timeout(struct stk_request *req, stk_msec timeout)
{
    struct stk_detached *d = detached_of(req);
    struct stk_lead_thread *thread = d->rq.t->lead_thread;
    struct stk_detach *det = detach_of(d);
    bool claimed;

    pthread_mutex_lock(&det->mutex);
    d->due = timeout > 0 ? stk_time_mono_ns() / STK_NSEC_PER_MSEC + timeout : 0;
    pthread_mutex_unlock(&det->mutex);
    claimed = stk_lead_claim(thread);
    stk_detach_time(d->rq.conn, thread);
    stk_lead_unclaim(thread, claimed);
    return 0;
}

static int detached_take(struct stk_request *req, unsigned status)
{
    struct stk_detached *d = detached_of(req);
    struct stk_detach *det = detached_enter(d);
    int fd = stk_take_detached(req, status);

    if (fd >= 0)
        d->due = 0; /* it may last */
    detached_leave(det);
    return fd;
}

static struct stk_request *detached_detach(struct stk_request *req)
{
    return req; /* it is */
}

/* Whether body_read would say something now. */
static bool detached_has_input(const struct stk_detached *d)
{
    const struct stk_body *body = d->rq.body;
    const char *text;

    if (d->rq.conn->ws != NULL)
        return stk_websocket_has_input(d->rq.conn) || d->hung || d->rq.gone;
    return body == NULL || stk_body_is_complete(body) || !stk_body_is_drained(body) ||
           stk_body_fault(body, &text) != 0 || d->hung || d->rq.gone ||
           stk_conn_io_hides(d->rq.conn);
}

static void detached_want(struct stk_request *req, unsigned what)
{
    struct stk_detached *d = detached_of(req);
    struct stk_detach *det = detach_of(d);
    struct stk_conn *conn = d->rq.conn;

    pthread_mutex_lock(&det->mutex);
    d->want |= (uint8_t)(what & (STK_WAKE_INPUT | STK_WAKE_OUTPUT));
    if (what & STK_WAKE_INPUT && detached_has_input(d))
        stk_detach_tell(det, d, STK_WAKE_INPUT);
    if (what & STK_WAKE_OUTPUT &&
        (d->hung || d->rq.gone || stk_detach_queued(conn) < STK_DETACH_LOW))
        stk_detach_tell(det, d, STK_WAKE_OUTPUT);
    stk_detach_listen(conn);
    pthread_mutex_unlock(&det->mutex);
}

bool stk_detach_is_congested(struct stk_request *req)
{
    const struct stk_serve_request *rq = stk_serve_request_of(req);

    return stk_conn_has_output(rq->conn) && stk_detach_queued(rq->conn) > STK_DETACH_HIGH &&
           !rq->gone && !stk_conn_is_gone(rq->conn); /* else write says so */
}

/* ---- the end ------------------------------------------------------------------------------- */

/* Ends the response, and leaves the connection as one that is merely busy. Mutex held. */
static void detached_close(struct stk_detach *det, struct stk_detached *d)
{
    struct stk_conn *conn = d->rq.conn;

    if (conn->ws != NULL)
        stk_websocket_end(&d->rq);
    if (d->rq.fate == STK_FATE_NONE) {
        stk_response_end(&d->rq);
        if (!d->rq.gone)
            detached_flush(det, d);
        d->rq.keep_alive = d->rq.keep_alive && !d->rq.gone;
    } else {
        stk_compress_release(&d->rq);
    }
    det->t.out.len = det->t.out.mark = 0;
    det->holder = NULL;
    free(stk_steal(&d->held));
    stk_list_remove(&d->link);
    stk_list_remove(&d->woken);
    stk_detach_count(det, -1);
    stk_detach_unname(det, d);
    stk_detach_occupy(det, d, false);
    conn->src_events = stk_conn_has_output(conn) ? EPOLLOUT : EPOLLIN;
    if (!d->hung && __atomic_load_n(&conn->src.events, __ATOMIC_RELAXED) != conn->src_events &&
        !(atomic_load(&conn->word) & STK_CONN_DISARMED) &&
        stk_loop_mod(det->server->loop, &conn->src, conn->src_events) < 0)
        stk_log_debug("epoll: %m"); /* the timer finds it */
    conn->detached = NULL;
    atomic_fetch_and(&conn->word, ~(uint32_t)STK_CONN_DETACHED);
}

static void detached_finish(struct stk_request *req)
{
    struct stk_detached *d = detached_of(req);
    struct stk_detach *det = detached_enter(d);
    struct stk_lead_thread *thread = det->t.lead_thread;
    bool claimed, named = d->named != 0;
    uint64_t id;

    detached_close(det, d);
    detached_leave(det);
    claimed = stk_lead_claim(thread);
    d->rq.t = stk_serve_thread_of(thread);
    if (stk_unlikely(named))
        stk_deadline_expect(det->server->deadline, thread);
    id = d->rq.base.id;
    stk_http1_finish(&d->rq, thread);
    stk_logvars_forget(&det->server->logvars, id);
    stk_lead_unclaim(thread, claimed);
    stk_uroute_drop(&d->rq);
    free(d);
}

const struct stk_request_ops stk_detached_ops = {
    .body_peek = detached_body_peek,
    .body_skip = detached_body_skip,
    .body_read = detached_body_read,
    .start = detached_start,
    .header = detached_header,
    .head_save = detached_head_save,
    .head_load = detached_head_load,
    .write = detached_write,
    .sendfile = detached_sendfile,
    .trailers = detached_trailers,
    .early_hint = detached_early_hint,
    .tls = stk_secure_view,
    .is_committed = stk_response_is_committed,
    .fail = detached_fail,
    .is_disconnected = detached_is_disconnected,
    .wait_for = detached_wait_for,
    .set_timeout = detached_set_timeout,
    .set_logvar = detached_set_logvar,
    .get_logvar = stk_request_get_logvar,
    .log_this = stk_request_log_this,
    .take = detached_take,
    .detach = detached_detach,
    .want = detached_want,
    .is_congested = stk_detach_is_congested,
    .ws_accept = stk_websocket_accept,
    .ws_send = stk_websocket_send,
    .ws_peek = stk_websocket_peek,
    .ws_skip = stk_websocket_skip,
    .ws_wait = stk_websocket_wait,
    .ws_close = stk_websocket_close,
    .finish = detached_finish,
};
