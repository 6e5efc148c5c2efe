/*
 * Detached requests: how they come to be, how they end, and what happens to them in between.
 *
 * Their services are those of any request (response.c, request.c), which use the buffers of the
 * request's thread. Those of the thread that runs the event loop may hold the response of another
 * request, whose step sends to this one; so all detached requests share a second set of buffers. It
 * is empty between two services, but for a response head that is still being made: that stays there
 * until another request needs the buffer, and is kept by its request then.
 *
 * Nothing is asked of the kernel for a request that just waits for a moment: its connection stays
 * in the epoll set as it was, and is changed to hang-ups only when bytes come that nobody wants yet
 * (a pipelined request, or the end of the client's side).
 */
#include "serve/detach.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "serve/body.h"
#include "serve/cold.h"
#include "serve/compress.h"
#include "serve/conn.h"
#include "serve/conn_io.h"
#include "serve/deadline.h"
#include "serve/detach_priv.h"
#include "serve/fcgi.h"
#include "serve/http1.h"
#include "serve/outq.h"
#include "serve/uroute.h"
#include "serve/websocket.h"
#include "serve/websocket_priv.h"

/* ---- making one ---------------------------------------------------------------------------- */

static size_t detach_align(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

static size_t detach_head_size(const struct stk_head *head)
{
    return detach_align(offsetof(struct stk_head, fields) + head->nfields * sizeof head->fields[0]);
}

/* Copies text to *at and moves that. */
static stk_span detach_copy(char **at, stk_span text)
{
    char *to = *at;

    if (text.len > 0)
        memcpy(to, text.ptr, text.len);
    *at += text.len;
    return stk_span_make(to, text.len);
}

static size_t detach_size(const struct stk_serve_request *rq)
{
    const struct stk_head *head = rq->base.head;
    size_t n = detach_head_size(head) + detach_align(rq->base.nvars * sizeof rq->base.vars[0]);

    for (size_t i = 0; i < rq->base.nvars; i++)
        n += rq->base.vars[i].name.len + rq->base.vars[i].value.len;
    n += stk_head_text_size(head) + rq->base.scheme.len + rq->base.host.len +
         rq->base.script_name.len;
    return n + (rq->body == NULL ? rq->body_left : 0);
}

/* A copy of the request with all that it points to; NULL: no memory. */
static struct stk_detached *detach_new(struct stk_detach *det, const struct stk_serve_request *rq)
{
    const struct stk_head *from = rq->base.head;
    struct stk_detached *d = stk_try_alloc(sizeof *d + detach_size(rq) + 15);
    struct stk_head *head;
    struct stk_var *vars;
    char *at;

    if (d == NULL)
        return NULL;
    *d = (struct stk_detached){.rq = *rq, .lazy = true};
    if (stk_unlikely(rq->uroute != NULL) && !stk_uroute_detach(&d->rq)) {
        free(d);
        return NULL;
    }
    stk_list_init(&d->woken);
    at = (char *)(((uintptr_t)d->memory + 15) & ~(uintptr_t)15);
    head = (void *)at;
    at += detach_head_size(from);
    vars = (void *)at;
    at += detach_align(rq->base.nvars * sizeof *vars);
    stk_head_copy(head, from, at);
    at += stk_head_text_size(from);
    d->rq.base.head = head;
    d->rq.base.vars = vars;
    for (size_t i = 0; i < rq->base.nvars; i++)
        vars[i] = (struct stk_var){detach_copy(&at, rq->base.vars[i].name),
                                   detach_copy(&at, rq->base.vars[i].value)};
    d->rq.base.scheme = detach_copy(&at, rq->base.scheme);
    d->rq.base.host = detach_copy(&at, rq->base.host);
    d->rq.base.script_name = detach_copy(&at, rq->base.script_name);
    if (rq->body == NULL)
        d->rq.body_ptr = detach_copy(&at, stk_span_make(rq->body_ptr, rq->body_left)).ptr;
    d->rq.base.ops = &stk_detached_ops;
    if (d->rq.base.started == 0) /* nobody wanted to know it so far */
        d->rq.base.started = stk_loop_now(det->server->loop) * STK_NSEC_PER_MSEC;
    d->rq.t = &det->t;
    d->rq.head_end = 0;
    d->rq.detached = true;
    return d;
}

/* When the time of a request is over; 0: never. */
static stk_msec detach_due(const struct stk_serve_request *rq)
{
    stk_msec timeout = rq->t->server->config->request_timeout;
    stk_msec due = __atomic_load_n(&rq->due, __ATOMIC_RELAXED);

    if (due != 0)
        return due == INT64_MAX ? 0 : due;
    if (timeout <= 0)
        return 0;
    return (rq->base.started != 0 ? rq->base.started : stk_time_mono_ns()) / STK_NSEC_PER_MSEC +
           timeout;
}

/*
 * Brings the output of its call so far out of the way: what is complete leaves, a head that is
 * still being made goes to the other buffer. Mutex held.
 */
static void detach_move_output(struct stk_detach *det, struct stk_detached *d,
                               struct stk_serve_thread *t)
{
    size_t whole = d->rq.committed || !d->rq.started ? t->out.len : t->out.mark;
    struct iovec iov = {t->out.buf, whole};

    if (whole > 0) {
        if (stk_conn_send(d->rq.conn, &iov, 1) < 0)
            d->rq.gone = true;
        else
            t->bytes_out += whole;
    }
    stk_detach_borrow(det, d);
    memcpy(det->t.out.buf, t->out.buf + whole, t->out.len - whole);
    det->t.out.len = t->out.len - whole;
    det->t.out.mark = 0;
    t->out.len = 0;
}

struct stk_request *stk_detach(struct stk_request *req)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    struct stk_serve_thread *t = rq->t;
    struct stk_detach *det = t->server->detach;
    struct stk_conn *conn = rq->conn;
    struct stk_detached *d = det != NULL ? detach_new(det, rq) : NULL;
    enum stk_fate fate;
    uint32_t word;

    if (d == NULL) {
        stk_response_fail(req);
        return NULL;
    }
    stk_logvars_keep(&t->server->logvars, rq->base.id);
    d->due = detach_due(rq);
    fate = stk_deadline_end(rq);
    stk_gather_end(t);
    pthread_mutex_lock(&det->mutex);
    stk_conn_forget(conn); /* a head that was kept; what lies behind it is in the read buffer */
    d->behind = conn->lingers;
    conn->detached = d;
    stk_list_append(&det->all, &d->link);
    stk_detach_count(det, 1);
    __atomic_store_n(&conn->fresh, false, __ATOMIC_RELAXED); /* several may do so at once */
    stk_detach_occupy(det, d, true);
    word = atomic_fetch_or(&conn->word, STK_CONN_DETACHED);
    if (stk_unlikely(fate != STK_FATE_NONE)) { /* it was answered in its first step */
        d->rq.fate = (uint8_t)fate;
        d->rq.gone = true;
        t->out.len = 0;
        stk_detach_tell(det, d, STK_WAKE_TIMEOUT);
    } else {
        detach_move_output(det, d, t);
    }
    if (stk_unlikely(word & STK_CONN_DISARMED))
        stk_detach_listen(conn);
    pthread_mutex_unlock(&det->mutex);
    if (stk_unlikely(d->rq.coder != NULL) && d->rq.committed && !d->rq.gone &&
        !d->rq.coder->under_way)
        (void)d->rq.base.ops->write(&d->rq.base, "", 0, STK_WRITE_FLUSH); /* what lies in it */
    return &d->rq.base;
}

/* ---- waking -------------------------------------------------------------------------------- */

void stk_detach_tell(struct stk_detach *det, struct stk_detached *d, unsigned what)
{
    enum { ONCE = STK_WAKE_GONE | STK_WAKE_TIMEOUT | STK_WAKE_DRAIN | STK_WAKE_CANCEL };

    what &= ~(d->told & (unsigned)ONCE);
    if (what == 0)
        return;
    d->told |= (uint8_t)(what & ONCE);
    d->want &= (uint8_t)~what;
    d->tell |= (uint8_t)what;
    if (what & (STK_WAKE_TIMEOUT | STK_WAKE_CANCEL) && det->due_back == 0)
        det->due_back = stk_time_mono_ns() / STK_NSEC_PER_MSEC;
    if (!stk_list_is_empty(&d->woken))
        return;
    stk_list_append(&det->woken, &d->woken);
    atomic_store_explicit(&det->has_woken, true, memory_order_relaxed);
    if (pthread_equal(pthread_self(), det->thread))
        stk_lead_note(det->server->lead);
    else
        stk_lead_ring(det->server->lead);
}

/* Sets the timers that could not be set when another thread led. */
static void detach_set_timers(struct stk_detach *det)
{
    det->untimed = false;
    stk_list_for_each (it, &det->all)
        stk_detach_check_timer(stk_container_of(it, struct stk_detached, link)->rq.conn);
}

void stk_detach_wake(struct stk_server *server, struct stk_lead_thread *thread)
{
    struct stk_detach *det = server->detach;
    struct stk_list now;

    if (det == NULL || thread->index != 0) /* a thread beside that of the event loop */
        return;
    if (stk_unlikely(det->untimed) && thread->own)
        detach_set_timers(det);
    if (stk_likely(!atomic_load_explicit(&det->has_woken, memory_order_relaxed)))
        return;
    stk_list_init(&now);
    pthread_mutex_lock(&det->mutex);
    atomic_store_explicit(&det->has_woken, false, memory_order_relaxed);
    det->due_back = 0;
    det->away = false;
    while (!stk_list_is_empty(&det->woken))
        stk_list_append(&now, stk_list_pop(&det->woken));
    /* What a wake ends is taken off the list that it is on, this one too. */
    while (!stk_list_is_empty(&now)) {
        struct stk_detached *d = stk_container_of(stk_list_pop(&now), struct stk_detached, woken);
        unsigned what = d->tell;

        stk_list_init(&d->woken);
        d->tell = 0;
        pthread_mutex_unlock(&det->mutex);
        server->host_ops->wake(server->host, thread->host_thread, &d->rq.base, what);
        pthread_mutex_lock(&det->mutex);
    }
    pthread_mutex_unlock(&det->mutex);
    if (atomic_load_explicit(&det->has_woken, memory_order_relaxed)) /* by what was woken */
        stk_lead_ring(server->lead);
}

/* ---- events -------------------------------------------------------------------------------- */

/* The client is gone for good. Mutex held. */
static void detach_lost(struct stk_detach *det, struct stk_detached *d)
{
    bool cancels = det->server->config->cancel_on_disconnect;

    if (cancels && !(d->told & STK_WAKE_CANCEL)) {
        stk_scoreboard_add(det->server->row, STK_COUNTER_requests_left, 1);
        if (!d->rq.committed && d->rq.fate == STK_FATE_NONE) {
            d->rq.fate = STK_FATE_LEFT;
            d->rq.gone = true;
        }
    }
    stk_detach_tell(det, d, STK_WAKE_GONE | (cancels ? STK_WAKE_CANCEL : 0));
    /* A body that will not be whole, and output that nobody will take. */
    stk_detach_tell(det, d, d->want & (STK_WAKE_INPUT | STK_WAKE_OUTPUT));
}

/* Takes the connection out of the epoll set: the kernel has nothing more to tell. Mutex held. */
void stk_detach_hang(struct stk_detach *det, struct stk_detached *d)
{
    struct stk_conn *conn = d->rq.conn;

    if (!d->hung) {
        d->hung = true;
        stk_loop_del(det->server->loop, &conn->src);
        atomic_fetch_or(&conn->word, STK_CONN_DISARMED | STK_CONN_GONE);
    }
    detach_lost(det, d);
}

void stk_detach_listen(struct stk_conn *conn)
{
    struct stk_detached *d = conn->detached;
    struct stk_loop *loop = conn->server->loop;
    uint32_t events = stk_conn_has_output(conn) && !d->disk ? EPOLLOUT : 0;
    bool out = atomic_load(&conn->word) & STK_CONN_DISARMED;
    int r = 0;

    if (d->hung)
        return;
    if (conn->ws != NULL)
        events |= stk_websocket_events(conn);
    else if (d->lazy || d->want & STK_WAKE_INPUT)
        events |= EPOLLIN;
    else if (!(d->told & STK_WAKE_GONE))
        events |= EPOLLRDHUP;
    conn->src_events = events;
    if (out) {
        atomic_fetch_and(&conn->word, ~(uint32_t)STK_CONN_DISARMED);
        r = stk_conn_listen(conn, events);
    } else if (__atomic_load_n(&conn->src.events, __ATOMIC_RELAXED) != events) {
        r = stk_loop_mod(loop, &conn->src, events);
    }
    /* -ENOENT: the owner of the loop has taken it out, and is going to say so (relisten). */
    if (r < 0 && r != -ENOENT) {
        d->rq.gone = true;
        stk_detach_hang(conn->server->detach, d);
    }
}

void stk_detach_relisten(struct stk_conn *conn)
{
    struct stk_detach *det = conn->server->detach;

    pthread_mutex_lock(&det->mutex);
    if (conn->detached != NULL) {
        conn->detached->disk = false;
        stk_detach_listen(conn);
    }
    pthread_mutex_unlock(&det->mutex);
}

/* The socket takes bytes again. Mutex held. */
void stk_detach_drain_output(struct stk_detach *det, struct stk_detached *d)
{
    struct stk_conn *conn = d->rq.conn;
    bool progress = false;
    int r = stk_conn_drain_queue(conn, &progress);

    if (r < 0) {
        stk_detach_hang(det, d);
        return;
    }
    d->disk = r == STK_OUTQ_DISK && stk_cold_wait(conn) == 0;
    if (d->want & STK_WAKE_OUTPUT && stk_detach_queued(conn) < STK_DETACH_LOW)
        stk_detach_tell(det, d, STK_WAKE_OUTPUT);
}

void stk_detach_on_event(struct stk_conn *conn, struct stk_lead_thread *thread, uint32_t events)
{
    struct stk_detach *det = conn->server->detach;
    struct stk_detached *d;
    bool shows = false;

    pthread_mutex_lock(&det->mutex);
    d = conn->detached;
    if (d != NULL && conn->ws != NULL) {
        shows = stk_websocket_on_event(conn, thread, events);
    } else if (d != NULL && !d->hung) {
        if (events & EPOLLOUT)
            stk_detach_drain_output(det, d);
        if (events & EPOLLRDHUP)
            stk_detach_tell(det, d, STK_WAKE_GONE);
        if (events & EPOLLIN) {
            if (d->want & STK_WAKE_INPUT)
                stk_detach_tell(det, d, STK_WAKE_INPUT); /* and stays as it is: more may come */
            else
                d->lazy = false;
            if (stk_fcgi_is_aborted(conn))
                stk_detach_tell(det, d, STK_WAKE_GONE);
        }
        if (events & (EPOLLHUP | EPOLLERR))
            stk_detach_hang(det, d);
        stk_detach_listen(conn);
    }
    pthread_mutex_unlock(&det->mutex);
    if (shows)
        stk_websocket_show(conn, d, thread);
}

/* ---- time ---------------------------------------------------------------------------------- */

/* The time of a request is over. Mutex held. */
static void detach_expire(struct stk_detach *det, struct stk_detached *d,
                          struct stk_lead_thread *thread)
{
    struct stk_server *server = det->server;
    struct stk_serve_request *rq = &d->rq;
    const char *done = "its response had been handed over for";

    d->due = 0;
    if (rq->fate != STK_FATE_NONE)
        return;
    stk_scoreboard_add(server->row, STK_COUNTER_request_timeouts, 1);
    if (!rq->committed) {
        stk_deadline_answer(stk_serve_thread_of(thread), rq);
        done = rq->fate == STK_FATE_ANSWERED ? "504 was sent to" : "the connection was closed to";
    } else if (!rq->ended) {
        rq->fate = STK_FATE_CUT;
        stk_deadline_cut(rq, true);
        done = "its response had begun, so the connection was closed to";
    }
    rq->gone = true;
    stk_deadline_log_late(rq, done);
    stk_detach_tell(det, d, STK_WAKE_TIMEOUT | (d->want & (STK_WAKE_INPUT | STK_WAKE_OUTPUT)));
}

/* The client has taken nothing of its output for send-timeout. Mutex held. */
static void detach_stall(struct stk_detach *det, struct stk_detached *d)
{
    d->rq.conn->stalled = true;
    d->rq.gone = true;
    stk_deadline_cut(&d->rq, true);
    stk_detach_hang(det, d);
}

/* Milliseconds until a body that is waited for is too late; < 0: it is. Mutex held. */
static stk_msec detach_body_left(const struct stk_detach *det, const struct stk_detached *d,
                                 stk_msec now)
{
    const struct stk_config *config = det->server->config;

    if (d->rq.body == NULL || d->rq.body_wait_since == 0 || !(d->want & STK_WAKE_INPUT))
        return INT64_MAX;
    if (stk_body_is_too_slow(d->rq.body, config->body_min_rate, now, STK_HTTP1_RATE_GRACE_MS))
        return -1;
    return d->rq.body_wait_since + config->body_timeout - now;
}

stk_msec stk_detach_on_timer(struct stk_conn *conn, struct stk_lead_thread *thread, stk_msec most)
{
    struct stk_detach *det = conn->server->detach;
    stk_msec now = stk_loop_now(conn->server->loop);
    struct stk_detached *d;

    pthread_mutex_lock(&det->mutex);
    d = conn->detached;
    if (d != NULL) {
        stk_msec body = detach_body_left(det, d, now);

        if (d->due != 0 && d->due <= now)
            detach_expire(det, d, thread);
        if (d->due != 0 && d->due - now < most)
            most = d->due - now;
        if (!d->hung && stk_conn_has_output(conn)) {
            stk_msec left = stk_conn_send_left(conn);

            if (left == 0)
                detach_stall(det, d);
            else if (left < most)
                most = left;
        }
        if (conn->ws != NULL && !d->hung)
            most = stk_websocket_on_timer(conn, most);
        if (body <= 0) /* whoever reads is told so */
            stk_detach_tell(det, d, STK_WAKE_INPUT);
        else if (body < most)
            most = body;
    }
    pthread_mutex_unlock(&det->mutex);
    return most;
}

void stk_detach_time(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    stk_deadline_expect(conn->server->deadline, thread); /* who names those that last */
    if (stk_likely(thread->own))
        stk_detach_check_timer(conn);
    else
        conn->server->detach->untimed = true;
}

void stk_detach_check_timer(struct stk_conn *conn)
{
    const struct stk_detached *d = conn->detached;
    struct stk_loop *loop = conn->server->loop;

    if (d != NULL && d->due != 0 &&
        (!stk_timer_is_set(&conn->timer) || conn->timer.deadline > d->due))
        stk_timer_set(loop, &conn->timer, d->due - stk_loop_now(loop));
}

/* ---- draining ------------------------------------------------------------------------------ */

void stk_detach_drain(struct stk_server *server, bool restart)
{
    struct stk_detach *det = server->detach;

    if (det == NULL)
        return;
    pthread_mutex_lock(&det->mutex);
    stk_list_for_each (it, &det->all) {
        struct stk_detached *d = stk_container_of(it, struct stk_detached, link);

        if (d->rq.conn->ws != NULL)
            stk_websocket_drain(d->rq.conn, restart);
        stk_detach_tell(det, d, STK_WAKE_DRAIN);
    }
    pthread_mutex_unlock(&det->mutex);
}

void stk_detach_abort(struct stk_conn *conn, unsigned *said, unsigned most)
{
    struct stk_detach *det = conn->server->detach;
    struct stk_detached *d;

    if (det == NULL)
        return;
    pthread_mutex_lock(&det->mutex);
    d = conn->detached;
    if (d != NULL && d->rq.fate == STK_FATE_NONE) {
        d->rq.fate = STK_FATE_CUT;
        d->rq.gone = true;
        stk_deadline_cut(&d->rq, d->rq.committed);
        if ((*said)++ < most)
            stk_deadline_log_cut(&d->rq);
        stk_detach_tell(det, d, STK_WAKE_TIMEOUT | (d->want & (STK_WAKE_INPUT | STK_WAKE_OUTPUT)));
    }
    pthread_mutex_unlock(&det->mutex);
}

/* ---- life ---------------------------------------------------------------------------------- */

void stk_detach_init(struct stk_server *server, unsigned napps)
{
    struct stk_detach *det = stk_new0(struct stk_detach);
    struct stk_serve_thread *t = &det->t;

    det->server = server;
    det->thread = pthread_self();
    pthread_mutex_init(&det->mutex, NULL);
    stk_list_init(&det->all);
    stk_list_init(&det->woken);
    t->server = server;
    t->lead_thread = server->threads[0].lead_thread;
    t->read_buf = stk_new0_array(char, STK_SERVE_READ_BUFFER);
    t->out.buf = stk_new0_array(char, STK_SERVE_OUT_BUFFER);
    t->out.cap = STK_SERVE_OUT_BUFFER;
    pthread_mutex_init(&t->gather_mutex, NULL);
    pthread_mutex_init(&t->interfere_mutex, NULL);
    det->napps = napps;
    det->limit = (unsigned)(server->config->gevent > 0 ? server->config->gevent
                                                       : server->config->max_concurrency);
    det->async = stk_new0_array(bool, napps + 1);
    /* WSGI in greenlets is called like WSGI. */
    for (unsigned i = 0; i < napps && server->config->gevent == 0; i++)
        det->async[i] =
            server->host_ops->is_async == NULL || server->host_ops->is_async(server->host, i);
    server->detach = det;
}

void stk_detach_deinit(struct stk_server *server)
{
    struct stk_detach *det = server->detach;

    if (det == NULL)
        return;
    stk_list_for_each_safe (it, &det->all) {
        struct stk_detached *d = stk_container_of(it, struct stk_detached, link);

        d->rq.conn->detached = NULL;
        stk_compress_release(&d->rq);
        stk_list_remove(&d->link);
        free(d->held);
        stk_uroute_drop(&d->rq);
        free(d);
    }
    det->ws_shared = stk_ws_shared_free(det->ws_shared);
    det->ws_held = stk_ws_held_free(det->ws_held);
    server->detach = NULL;
    pthread_mutex_destroy(&det->t.gather_mutex);
    pthread_mutex_destroy(&det->t.interfere_mutex);
    pthread_mutex_destroy(&det->mutex);
    free(det->t.read_buf);
    free(det->t.out.buf);
    free(det->async);
    free(det);
}

bool stk_detach_is_async(const struct stk_server *server, unsigned app)
{
    const struct stk_detach *det = server->detach;

    return det != NULL && app < det->napps && det->async[app];
}
