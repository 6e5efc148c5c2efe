/*
 * WebSockets: messages, closing, events and time.
 *
 * A message that comes while the application waits for one is shown to it out of the read buffer,
 * in the event that brought it; others wait in the inbox, and when enough do the connection is not
 * read any more, until the application has caught up. What is sent leaves at once, as far as the
 * socket takes it, or behind the turn (ws_held.c).
 *
 * An application that takes each message as it comes asks for the next one just once: what is shown
 * to it need not be asked for again. So a message and its answer lock the mutex once each.
 *
 * Who closes first sends a close frame, and then waits for the other's before the connection ends
 * (RFC 6455 section 7.1): the client's is answered at once; ours is answered by the client while
 * the connection lingers, after the request has ended. The application learns of either as the last
 * thing that it receives.
 */
#include "serve/websocket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "serve/conn.h"
#include "serve/conn_io.h"
#include "serve/detach_priv.h"
#include "serve/websocket_priv.h"
#include "wire/ws_deflate.h"

enum {
    WEBSOCKET_INBOX_HIGH = 64 * 1024, /* waiting bytes beyond which nothing is read ... */
    WEBSOCKET_INBOX_LOW = 16 * 1024,  /* ... until so few are left */
    WEBSOCKET_PENDING_MS = 1000,      /* that the end is put off for a busy application, twice */
    WEBSOCKET_CLOSE_MS = 5000,        /* for the close frame that answers ours */
    WEBSOCKET_LINGER_MS = 2000,       /* for the client's end of the connection */
    WEBSOCKET_COPY_MAX = 8 * 1024,    /* a smaller message is copied behind its head */
    WEBSOCKET_DEFLATE_MIN = 128,      /* a smaller message is not compressed by itself ... */
    WEBSOCKET_TAKEOVER_MIN = 16,      /* ... nor with the help of those before */
};

/* ---- life ---------------------------------------------------------------------------------- */

struct stk_websocket *stk_websocket_free(struct stk_websocket *ws)
{
    if (!ws)
        return NULL;
    if (ws->counts)
        stk_scoreboard_sub(ws->server->row, STK_COUNTER_websockets_open, 1);
    stk_ws_inbox_deinit(&ws->inbox);
    stk_ws_inflater_free(ws->inflater);
    stk_ws_deflater_free(ws->deflater);
    free(ws->end_reason);
    free(ws);
    return NULL;
}

struct stk_ws_shared *stk_ws_shared_free(struct stk_ws_shared *shared)
{
    if (!shared)
        return NULL;
    stk_ws_inflater_free(shared->inflater);
    for (size_t i = 0; i < STK_ARRAY_LEN(shared->deflaters); i++)
        stk_ws_deflater_free(shared->deflaters[i]);
    free(shared);
    return NULL;
}

static struct stk_ws_shared *websocket_shared(const struct stk_websocket *ws)
{
    struct stk_detach *det = ws->server->detach;

    if (!det->ws_shared)
        det->ws_shared = stk_new0(struct stk_ws_shared);
    return det->ws_shared;
}

struct stk_ws_inflater *stk_websocket_inflater(void *arg)
{
    struct stk_websocket *ws = arg;
    struct stk_ws_inflater **z;

    if (ws->params.client_takeover) {
        if (!ws->inflater)
            ws->inflater = stk_ws_inflater_new(ws->params.client_bits, true);
        return ws->inflater;
    }
    z = &websocket_shared(ws)->inflater;
    if (!*z)
        *z = stk_ws_inflater_new(STK_WEBSOCKET_SHARED_BITS, false);
    else
        stk_ws_inflater_reset(*z); /* the last message may have been a broken one */
    return *z;
}

static struct stk_ws_deflater *websocket_deflater(struct stk_websocket *ws)
{
    bool takeover = ws->params.server_takeover;
    struct stk_ws_deflater **z =
        takeover ? &ws->deflater : &websocket_shared(ws)->deflaters[ws->params.server_bits];

    if (!*z)
        *z = stk_ws_deflater_new(ws->params.server_bits, takeover, STK_WEBSOCKET_LEVEL,
                                 STK_WEBSOCKET_MEMORY);
    return *z;
}

/* ---- sending and closing ------------------------------------------------------------------- */

/* Notes how it ends; what is said first holds. */
static void websocket_note_end(struct stk_websocket *ws, unsigned code, stk_span reason)
{
    if (ws->end_code != 0)
        return;
    ws->end_code = (uint16_t)code;
    ws->end_reason = reason.len > 0 ? stk_try_alloc(reason.len) : NULL;
    if (ws->end_reason) {
        ws->end_len = (uint8_t)reason.len;
        memcpy(ws->end_reason, reason.ptr, reason.len);
    }
}

/* It is over for the application. */
static void websocket_over(struct stk_conn *conn, unsigned code, stk_span reason)
{
    struct stk_detached *d = conn->detached;

    websocket_note_end(conn->ws, code, reason);
    conn->ws->ended = true;
    atomic_store_explicit(&conn->ws->closed, true, memory_order_relaxed);
    if (d)
        stk_detach_tell(conn->server->detach, d, d->want & (STK_WAKE_INPUT | STK_WAKE_OUTPUT));
}

/* The client is gone without a close frame. */
static void websocket_lost(struct stk_conn *conn)
{
    struct stk_websocket *ws = conn->ws;

    ws->deaf = ws->lost = true;
    ws->pending = false;
    if (conn->detached)
        conn->detached->rq.gone = true;
    websocket_over(conn, STK_WS_CODE_ABNORMAL, stk_span_make("", 0));
}

static int websocket_send_now(struct stk_conn *conn, struct iovec *iov, int n, size_t len)
{
    int r = stk_conn_send(conn, iov, n);

    if (r < 0) { /* a part of the frame may have left: nothing can follow it */
        websocket_lost(conn);
        return -EPIPE;
    }
    conn->server->detach->t.bytes_out += len;
    return 0;
}

int stk_websocket_send_bytes(struct stk_conn *conn, char *buf, size_t len)
{
    struct iovec iov = {buf, len};

    return websocket_send_now(conn, &iov, 1, len);
}

/* Behind what is held. */
static int websocket_send_iov(struct stk_conn *conn, struct iovec *iov, int n, size_t len)
{
    if (stk_unlikely(atomic_load_explicit(&conn->ws->held, memory_order_relaxed)))
        stk_ws_held_flush(conn->server->detach);
    return websocket_send_now(conn, iov, n, len);
}

/* Sends a whole frame, or bytes of one behind its head. */
static int websocket_send_frame(struct stk_conn *conn, enum stk_ws_opcode opcode, bool compressed,
                                const char *data, size_t len)
{
    union {
        const char *c;
        void *v;
    } u = {.c = data};
    char frame[STK_WS_HEAD_MAX + WEBSOCKET_COPY_MAX];
    size_t head = stk_ws_head(frame, opcode, compressed, len);
    struct iovec iov[2] = {{frame, head}, {u.v, len}};

    if (len > WEBSOCKET_COPY_MAX)
        return websocket_send_iov(conn, iov, 2, head + len);
    if (len > 0)
        memcpy(frame + head, data, len);
    iov[0].iov_len += len;
    return websocket_send_iov(conn, iov, 1, head + len);
}

static void websocket_send_close(struct stk_conn *conn, unsigned code, stk_span reason)
{
    char frame[2 + STK_WS_CONTROL_MAX];
    struct iovec iov = {frame, stk_ws_close_frame(frame, code, reason)};

    if (conn->ws->sent_close || conn->ws->lost)
        return;
    if (atomic_load_explicit(&conn->ws->held, memory_order_relaxed))
        stk_ws_held_flush(conn->server->detach);
    conn->ws->sent_close = true;
    atomic_store_explicit(&conn->ws->closed, true, memory_order_relaxed);
    (void)websocket_send_iov(conn, &iov, 1, iov.iov_len);
}

/* Both have said what they had to: ends our direction, once everything has left. */
static void websocket_shut(struct stk_conn *conn)
{
    struct stk_websocket *ws = conn->ws;

    if (ws->shut || !ws->deaf || !ws->sent_close || stk_conn_has_output(conn))
        return;
    ws->shut = true;
    if (stk_conn_io_end(conn) < 0)
        stk_log_debug("shutdown: %m"); /* the client has ended it already */
}

/* The end that has been noted comes: the client is told, and the application. */
static void websocket_settle(struct stk_conn *conn)
{
    struct stk_websocket *ws = conn->ws;
    stk_span reason = stk_span_make(ws->end_reason, ws->got_close ? 0 : ws->end_len);

    ws->pending = false;
    websocket_send_close(conn, ws->end_code, reason);
    websocket_over(conn, ws->end_code, stk_span_make("", 0));
    websocket_shut(conn);
}

/*
 * Nothing that the client sends counts from here on. An application that is busy with what came
 * before answers that first: the end comes when it asks for more, or after a while.
 */
static void websocket_end_input(struct stk_conn *conn, unsigned code, stk_span reason)
{
    struct stk_websocket *ws = conn->ws;

    ws->deaf = true;
    websocket_note_end(ws, code, reason);
    ws->pending =
        (atomic_load_explicit(&ws->busy, memory_order_relaxed) || ws->inbox.waiting > 0) &&
        !ws->sent_close && !ws->ended;
    ws->pending_from = stk_loop_now(conn->server->loop);
    ws->pending_late = false;
    if (!ws->pending)
        websocket_settle(conn);
    else if (conn->detached) /* it may have begun to wait, without a word */
        stk_detach_tell(conn->server->detach, conn->detached,
                        conn->detached->want & STK_WAKE_INPUT);
}

/* The client has broken the protocol, or a limit (section 7.1.7). */
static void websocket_fail(struct stk_conn *conn, enum stk_ws_code code, const char *text)
{
    stk_log_debug("%.*s:%u: WebSocket closed with %u: %s", conn->peer.addr_len, conn->peer.addr,
                  conn->peer.port, (unsigned)code, text);
    websocket_end_input(conn, code, stk_span_str(text));
}

static void websocket_on_close(struct stk_conn *conn, stk_span payload)
{
    unsigned code;
    stk_span reason;
    int r = stk_ws_close_read(payload, &code, &reason);

    if (r != 0) {
        websocket_fail(conn, (enum stk_ws_code)r,
                       r == STK_WS_CODE_DATA ? "close reason that is not UTF-8"
                                             : "malformed close frame");
        return;
    }
    conn->ws->got_close = true;
    websocket_end_input(conn, code, reason);
}

/* ---- input --------------------------------------------------------------------------------- */

/* Whether a message may be shown to the application in this event. */
static bool websocket_may_show(const struct stk_conn *conn, const struct stk_lead_thread *thread)
{
    return thread && !thread->standby && conn->ws->inbox.waiting == 0 &&
           conn->detached->want & STK_WAKE_INPUT && conn->server->host_ops->message;
}

/* Without the mutex; as host_ops.message. */
static inline bool websocket_show(struct stk_conn *conn, struct stk_detached *d,
                                  struct stk_lead_thread *thread)
{
    const struct stk_ws_item *item = &conn->ws->inbox.item;
    struct stk_ws_view view = {.ptr = item->data.ptr,
                               .len = item->data.len,
                               .text = item->opcode == STK_WS_TEXT,
                               .ascii = item->ascii};

    return conn->server->host_ops->message(conn->server->host, thread->host_thread, &d->rq.base,
                                           &view);
}

/* Lets the inbox's item wait for the application. */
static void websocket_keep(struct stk_conn *conn)
{
    struct stk_detached *d = conn->detached;
    struct stk_websocket *ws = conn->ws;

    if (!stk_ws_inbox_keep(&ws->inbox)) {
        websocket_fail(conn, STK_WS_CODE_INTERNAL, "no memory for the message");
        return;
    }
    stk_detach_tell(conn->server->detach, d, d->want & STK_WAKE_INPUT);
    ws->paused = stk_ws_inbox_size(&ws->inbox) > WEBSOCKET_INBOX_HIGH;
}

/* `last`: nothing has come behind it. */
static void websocket_on_message(struct stk_conn *conn, struct stk_lead_thread *thread, bool last)
{
    struct stk_detached *d = conn->detached;
    struct stk_detach *det = conn->server->detach;
    struct stk_websocket *ws = conn->ws;
    bool taken = ws->sent_close;

    stk_scoreboard_bump(&conn->server->row->shared[STK_COUNTER_websocket_messages_in], 1);
    atomic_store_explicit(&ws->busy, true, memory_order_relaxed);
    if (!taken && websocket_may_show(conn, thread)) {
        if (stk_likely(last && ws->inbox.apart)) {
            ws->shows = true;
            return;
        }
        pthread_mutex_unlock(&det->mutex);
        taken = websocket_show(conn, d, thread);
        pthread_mutex_lock(&det->mutex);
        if (conn->detached != d)
            return;
        if (!taken)
            d->want &= (uint8_t)~STK_WAKE_INPUT;
    }
    if (taken)
        stk_ws_inbox_drop(&ws->inbox);
    else
        websocket_keep(conn);
}

void stk_websocket_show(struct stk_conn *conn, struct stk_detached *d,
                        struct stk_lead_thread *thread)
{
    struct stk_detach *det = conn->server->detach;

    if (stk_likely(websocket_show(conn, d, thread)))
        return;
    pthread_mutex_lock(&det->mutex);
    if (conn->detached == d) {
        d->want &= (uint8_t)~STK_WAKE_INPUT;
        websocket_keep(conn);
        stk_detach_listen(conn);
    }
    pthread_mutex_unlock(&det->mutex);
}

static void websocket_on_control(struct stk_conn *conn, const struct stk_ws_item *item)
{
    switch (item->opcode) {
    case STK_WS_PING:
        /* A client that does not read gets no further answers. */
        if (!conn->ws->sent_close && stk_detach_queued(conn) < STK_DETACH_HIGH)
            (void)websocket_send_frame(conn, STK_WS_PONG, false, item->data.ptr, item->data.len);
        break;
    case STK_WS_CLOSE:
        websocket_on_close(conn, item->data);
        break;
    default:
        break; /* a pong: that it has come is all that it says */
    }
}

/* Works on bytes of the client. With a thread of the application messages may be shown to it. */
static void websocket_input(struct stk_conn *conn, struct stk_lead_thread *thread, char *buf,
                            size_t len)
{
    struct stk_detached *d = conn->detached;
    struct stk_websocket *ws = conn->ws;

    while (!ws->deaf && conn->detached == d) {
        if (ws->paused) { /* the rest, in which a little may inflate to a lot, waits as it came */
            if (stk_conn_keep(conn, buf, len))
                return;
            websocket_fail(conn, STK_WS_CODE_INTERNAL, "no memory for the message");
            break;
        }
        switch (stk_ws_inbox_step(&ws->inbox, &buf, &len)) {
        case STK_WS_INBOX_MORE:
            stk_conn_forget(conn);
            return;
        case STK_WS_INBOX_MESSAGE:
            websocket_on_message(conn, thread, len == 0);
            break;
        case STK_WS_INBOX_CONTROL:
            websocket_on_control(conn, &ws->inbox.item);
            break;
        case STK_WS_INBOX_ERROR:
            websocket_fail(conn, ws->inbox.code, ws->inbox.text);
            break;
        }
    }
}

void stk_websocket_take_kept_locked(struct stk_conn *conn)
{
    websocket_input(conn, NULL, conn->in, conn->in_len);
}

void stk_websocket_take_kept(struct stk_conn *conn)
{
    struct stk_detach *det = conn->server->detach;

    pthread_mutex_lock(&det->mutex);
    if (conn->detached) {
        conn->detached->behind = false;
        if (conn->detached->rq.gone) /* for want of memory, too */
            stk_detach_hang(det, conn->detached);
        else if (conn->ws) /* accepted in its call */
            stk_websocket_take_kept_locked(conn);
        stk_detach_listen(conn);
    }
    pthread_mutex_unlock(&det->mutex);
}

static bool websocket_reads(const struct stk_conn *conn)
{
    return !conn->ws->deaf && !conn->ws->paused && !conn->detached->behind;
}

static void websocket_read(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    struct stk_serve_thread *t = stk_serve_thread_of(thread);
    ssize_t n;

    do
        n = stk_conn_io_recv(conn, t->read_buf, STK_SERVE_READ_BUFFER);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        t->bytes_in += (uint64_t)n;
        conn->ws->heard = stk_loop_now(conn->server->loop);
        conn->ws->pinged = 0;
        if (stk_likely(conn->in_len == 0 &&
                       stk_ws_inbox_take_only(&conn->ws->inbox, t->read_buf, (size_t)n)))
            websocket_on_message(conn, thread, true);
        else
            websocket_input(conn, thread, t->read_buf, (size_t)n);
    } else if (n == 0 || errno != EAGAIN) {
        conn->eof = n == 0;
        websocket_lost(conn);
    }
}

/* An event that is not just input. */
static void websocket_on_more(struct stk_conn *conn, struct stk_lead_thread *thread,
                              uint32_t events)
{
    struct stk_detach *det = conn->server->detach;
    struct stk_detached *d = conn->detached;

    if (events & EPOLLOUT)
        stk_detach_drain_output(det, d);
    if (!(events & ~(uint32_t)EPOLLOUT) && !stk_conn_io_hides(conn))
        return;
    if (websocket_reads(conn))
        websocket_read(conn, thread);
    else if (events & EPOLLRDHUP)
        stk_detach_tell(det, d, STK_WAKE_GONE);
    if (conn->detached == d && events & (EPOLLHUP | EPOLLERR) && !websocket_reads(conn))
        stk_detach_hang(det, d);
}

bool stk_websocket_on_event(struct stk_conn *conn, struct stk_lead_thread *thread, uint32_t events)
{
    struct stk_detached *d = conn->detached;
    struct stk_websocket *ws = conn->ws;
    bool shows;

    if (d->hung)
        return false;
    if (stk_likely(events == EPOLLIN && websocket_reads(conn)))
        websocket_read(conn, thread);
    else
        websocket_on_more(conn, thread, events);
    if (conn->detached != d)
        return false;
    shows = ws->shows;
    ws->shows = false;
    if (stk_likely(shows && events == EPOLLIN && !stk_conn_io_hides(conn)))
        return true; /* nothing has changed */
    if (ws->pending && conn->timer.deadline > ws->pending_from + WEBSOCKET_PENDING_MS)
        stk_timer_set(conn->server->loop, &conn->timer, WEBSOCKET_PENDING_MS);
    websocket_shut(conn);
    stk_detach_listen(conn);
    return shows;
}

uint32_t stk_websocket_events(const struct stk_conn *conn)
{
    if (!websocket_reads(conn))
        return conn->detached->told & STK_WAKE_GONE || conn->eof ? 0 : EPOLLRDHUP;
    return stk_conn_io_hides(conn) ? EPOLLIN | EPOLLOUT : EPOLLIN;
}

bool stk_websocket_has_input(const struct stk_conn *conn)
{
    const struct stk_websocket *ws = conn->ws;

    return ws->inbox.waiting > 0 || ws->pending || ws->ended;
}

/* ---- time ---------------------------------------------------------------------------------- */

stk_msec stk_websocket_on_timer(struct stk_conn *conn, stk_msec most)
{
    const struct stk_config *config = conn->server->config;
    stk_msec now = stk_loop_now(conn->server->loop);
    struct stk_websocket *ws = conn->ws;
    stk_msec left;

    /* The first time may have passed while the whole process was kept from running: then the
     * application has had no time at all. */
    if (ws->pending && !ws->pending_late && ws->pending_from + WEBSOCKET_PENDING_MS <= now) {
        ws->pending_late = true;
        ws->pending_from = now;
    }
    if (ws->pending && ws->pending_from + WEBSOCKET_PENDING_MS <= now) {
        websocket_settle(conn);
        stk_detach_listen(conn);
    } else if (ws->pending) {
        left = ws->pending_from + WEBSOCKET_PENDING_MS - now;
        return left < most ? left : most;
    }
    if (config->websocket_ping_interval == 0 || ws->deaf)
        return most;
    if (ws->paused || stk_conn_has_output(conn)) { /* whose turn it is shows otherwise */
        ws->heard = now;
        ws->pinged = 0;
    }
    if (ws->pinged == 0 && ws->heard + config->websocket_ping_interval <= now) {
        ws->pinged = now;
        if (!ws->sent_close)
            (void)websocket_send_frame(conn, STK_WS_PING, false, "stoker", 6);
    }
    left = (ws->pinged != 0 ? ws->pinged + config->websocket_ping_timeout
                            : ws->heard + config->websocket_ping_interval) -
           now;
    if (left <= 0) {
        atomic_store_explicit(&ws->busy, false, memory_order_relaxed);
        websocket_fail(conn, STK_WS_CODE_INTERNAL, "no answer to a ping");
        stk_detach_listen(conn);
        return most;
    }
    return left < most ? left : most;
}

void stk_websocket_drain(struct stk_conn *conn, bool restart)
{
    unsigned code = restart ? STK_WS_CODE_RESTART : STK_WS_CODE_GOING_AWAY;

    if (conn->ws->ended || conn->ws->sent_close || conn->ws->pending)
        return;
    websocket_send_close(conn, code, stk_span_make("", 0));
    websocket_over(conn, code, stk_span_make("", 0));
    stk_detach_listen(conn);
}

/* ---- the end ------------------------------------------------------------------------------- */

void stk_websocket_end(struct stk_serve_request *rq)
{
    struct stk_conn *conn = rq->conn;

    if (atomic_load_explicit(&conn->ws->held, memory_order_relaxed))
        stk_ws_held_flush(conn->server->detach);
    if (conn->ws->pending)
        websocket_settle(conn);
    if (!rq->gone)
        websocket_send_close(conn, rq->failed ? STK_WS_CODE_INTERNAL : STK_WS_CODE_NORMAL,
                             stk_span_make("", 0));
    rq->ended = true;
    rq->keep_alive = false;
    stk_conn_forget(conn);
}

/* Whether the client's close frame is still to come. */
static bool websocket_awaits_close(const struct stk_websocket *ws)
{
    return ws->sent_close && !ws->deaf;
}

bool stk_websocket_begin_linger(struct stk_conn *conn)
{
    bool awaits = websocket_awaits_close(conn->ws);

    if (!awaits && !conn->ws->shut && stk_conn_io_end(conn) < 0)
        return false;
    stk_conn_set_state(conn, STK_CONN_LINGER, awaits ? WEBSOCKET_CLOSE_MS : WEBSOCKET_LINGER_MS);
    conn->linger_end = stk_loop_now(conn->server->loop) + WEBSOCKET_CLOSE_MS;
    return true;
}

/* Input of a client that closes: whether its close frame was among it, or it broke the protocol. */
static bool websocket_closes(struct stk_websocket *ws, char *buf, size_t len)
{
    while (!ws->deaf) { /* frames only: no mutex, no shared inflater, no memory */
        struct stk_ws_event event;
        size_t used = 0;
        enum stk_ws_result r = stk_ws_decode(&ws->inbox.decoder, buf, len, &used, &event);

        if (r == STK_WS_PARTIAL)
            return false;
        buf += used;
        len -= used;
        ws->deaf = r == STK_WS_CONTROL ? event.opcode == STK_WS_CLOSE : r != STK_WS_DATA;
    }
    return true;
}

ssize_t stk_websocket_linger(struct stk_conn *conn, char *buf, size_t len)
{
    ssize_t n = stk_conn_io_recv(conn, buf, len);

    return n > 0 && websocket_awaits_close(conn->ws) && websocket_closes(conn->ws, buf, (size_t)n)
               ? 0
               : n;
}

/* ---- services ------------------------------------------------------------------------------ */

static struct stk_conn *websocket_enter(struct stk_request *req)
{
    struct stk_conn *conn = stk_serve_request_of(req)->conn;

    pthread_mutex_lock(&conn->server->detach->mutex);
    return conn;
}

static void websocket_leave(struct stk_conn *conn)
{
    struct stk_serve_thread *t = &conn->server->threads[0];
    struct stk_detach *det = conn->server->detach;

    t->bytes_out += det->t.bytes_out;
    det->t.bytes_out = 0;
    pthread_mutex_unlock(&det->mutex);
}

/* Compresses a message and sends it. */
static int websocket_send_packed(struct stk_conn *conn, enum stk_ws_opcode opcode, const char *data,
                                 size_t len)
{
    struct stk_ws_deflater *z = websocket_deflater(conn->ws);
    STK_CLEANUP(stk_mem_freep) char *packed = NULL;
    size_t cap;

    if (!z)
        return -ENOMEM;
    cap = stk_ws_deflate_bound(z, len);
    packed = stk_try_alloc(cap);
    if (!packed)
        return -ENOMEM;
    return websocket_send_frame(conn, opcode, true, packed,
                                stk_ws_deflate(z, data, len, packed, cap));
}

static bool websocket_compresses(const struct stk_websocket *ws, size_t len)
{
    return ws->compresses &&
           len >= (ws->params.server_takeover ? WEBSOCKET_TAKEOVER_MIN : WEBSOCKET_DEFLATE_MIN);
}

/* Mutex held. */
static int websocket_send_message(struct stk_conn *conn, enum stk_ws_opcode opcode,
                                  const char *data, size_t len)
{
    struct stk_websocket *ws = conn->ws;
    int r;

    if (!ws || ws->sent_close || ws->ended || conn->detached->rq.gone)
        return -EPIPE;
    stk_ws_held_make_room(conn->server->detach);
    r = websocket_compresses(ws, len) ? websocket_send_packed(conn, opcode, data, len)
                                      : websocket_send_frame(conn, opcode, false, data, len);
    if (r == 0) {
        conn->detached->rq.body_bytes += len;
        stk_scoreboard_bump(&conn->server->row->shared[STK_COUNTER_websocket_messages_out], 1);
    }
    return r;
}

int stk_websocket_send(struct stk_request *req, const char *data, size_t len, bool text)
{
    enum stk_ws_opcode opcode = text ? STK_WS_TEXT : STK_WS_BINARY;
    struct stk_conn *conn = stk_serve_request_of(req)->conn;
    int r;

    if (stk_likely(conn->ws && !websocket_compresses(conn->ws, len) &&
                   stk_ws_hold(conn, opcode, data, len)))
        return 0;
    conn = websocket_enter(req);
    r = websocket_send_message(conn, opcode, data, len);
    websocket_leave(conn);
    return r;
}

int stk_websocket_peek(struct stk_request *req, struct stk_ws_view *ret_view)
{
    struct stk_conn *conn = websocket_enter(req);
    struct stk_websocket *ws = conn->ws;
    struct stk_ws_item item;
    int r = 0;

    if (ws && ws->pending && ws->inbox.waiting == 0)
        websocket_settle(conn);
    if (ws && stk_ws_inbox_first(&ws->inbox, &item)) {
        *ret_view = (struct stk_ws_view){
            .ptr = item.data.ptr, .len = item.data.len, .text = item.opcode == STK_WS_TEXT};
    } else if (ws && ws->ended) {
        *ret_view = (struct stk_ws_view){
            .ptr = ws->end_reason, .len = ws->end_len, .end = true, .code = ws->end_code};
    } else if (conn->detached->rq.gone || conn->detached->hung) {
        *ret_view = (struct stk_ws_view){.ptr = "", .end = true, .code = STK_WS_CODE_ABNORMAL};
    } else {
        r = -EAGAIN;
        conn->detached->want |= STK_WAKE_INPUT;
        if (ws)
            atomic_store_explicit(&ws->busy, false, memory_order_relaxed);
        stk_detach_listen(conn);
    }
    websocket_leave(conn);
    return r;
}

void stk_websocket_wait(struct stk_request *req)
{
    struct stk_websocket *ws = stk_serve_request_of(req)->conn->ws;

    /* One that comes at the same time is in the inbox then, which counts as busy, too. */
    if (ws)
        atomic_store_explicit(&ws->busy, false, memory_order_relaxed);
}

void stk_websocket_skip(struct stk_request *req)
{
    struct stk_conn *conn = websocket_enter(req);
    struct stk_websocket *ws = conn->ws;

    if (ws->inbox.waiting > 0)
        stk_ws_inbox_pop(&ws->inbox);
    atomic_store_explicit(&ws->busy, true, memory_order_relaxed);
    if (ws->paused && stk_ws_inbox_size(&ws->inbox) < WEBSOCKET_INBOX_LOW) {
        ws->paused = false;
        if (conn->in_len > 0)
            stk_websocket_take_kept_locked(conn);
        stk_detach_listen(conn);
    }
    websocket_leave(conn);
}

int stk_websocket_close(struct stk_request *req, unsigned code, stk_span reason)
{
    struct stk_conn *conn = websocket_enter(req);
    struct stk_websocket *ws = conn->ws;
    int r = -EPIPE;

    if (!stk_ws_code_is_valid(code)) {
        r = STK_RESPONSE_E_WS_CODE;
    } else if (ws && !ws->sent_close && !ws->ended && !conn->detached->rq.gone) {
        websocket_send_close(conn, code, reason);
        r = ws->lost ? -EPIPE : 0;
        if (ws->pending)
            websocket_settle(conn);
    }
    websocket_leave(conn);
    return r;
}
