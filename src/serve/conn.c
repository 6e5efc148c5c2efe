/*
 * Connections. The request path touches no timer and no list: a connection's deadline is a number
 * that its timer looks at when it fires, at most conn_look() later.
 *
 * A busy connection (see conn.h) is released by compare-and-swap. The order of the two sides keeps
 * an event from being lost: the owner of the loop takes the connection out of the epoll set first
 * and sets DISARMED then; the releasing thread puts it back as long as it finds DISARMED, and
 * leaves BUSY only when it does not; and an owner that finds the connection no longer busy puts it
 * back itself.
 */
#include "serve/conn.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/sys.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "serve/body.h"
#include "serve/cold.h"
#include "serve/conn_io.h"
#include "serve/detach.h"
#include "serve/http1.h"
#include "serve/outq.h"
#include "serve/proxied.h"
#include "serve/secure.h"
#include "serve/websocket.h"

enum {
    /* how late a deadline may be seen that was set while busy */
    STK_CONN_LOOK_MS = 10 * 1000,
    STK_CONN_LOOK_MIN_MS = 500,
    STK_CONN_LAST_MS = 100,
    STK_CONN_LINGER_MS = 2000,          /* without a byte of the client */
    STK_CONN_LINGER_MAX_MS = 30 * 1000, /* in all */
    STK_CONN_LINGER_BYTES = 1 << 20,    /* a turn */
};

/* Connections whose memory is kept; none where a checker is to see who touches it afterwards. */
#ifdef __SANITIZE_ADDRESS__
#    define CONN_SPARE 0
#else
#    define CONN_SPARE STK_SERVE_SPARE_CONNS
#endif

_Static_assert((int)STK_CLOSE_WORKER_DIED == STK_SCOREBOARD_REASON_DIED, "the master's reason");

static const bool close_lingers[STK_CLOSE_REASONS] = {
#define STK_CLOSE(id, name, linger, description) [STK_CLOSE_##id] = linger,
#include "serve/close_reason.def"
#undef STK_CLOSE
};

const char *stk_close_reason_name(unsigned reason)
{
    static const char *const names[STK_CLOSE_REASONS] = {
#define STK_CLOSE(id, name, linger, description) [STK_CLOSE_##id] = name,
#include "serve/close_reason.def"
#undef STK_CLOSE
    };

    return reason < STK_CLOSE_REASONS ? names[reason] : "?";
}

void stk_conn_count(struct stk_conn *conn, enum stk_conn_state state)
{
    static const uint8_t levels[] = {
        [STK_CONN_IDLE] = 0,
        [STK_CONN_HEAD] = STK_COUNTER_connections_reading,
        [STK_CONN_BODY] = STK_COUNTER_connections_reading,
        [STK_CONN_REQUEST] = 0,
        [STK_CONN_DRAIN] = STK_COUNTER_connections_sending,
        [STK_CONN_LINGER] = STK_COUNTER_connections_closing,
        [STK_CONN_CLOSE] = 0,
        [STK_CONN_HANDSHAKE] = STK_COUNTER_connections_reading,
        [STK_CONN_PREFACE] = 0,
    };
    struct stk_scoreboard_row *row = conn->server->row;

    if (conn->counted == levels[state])
        return;
    if (conn->counted != 0)
        stk_scoreboard_sub(row, (enum stk_counter)conn->counted, 1);
    conn->counted = levels[state];
    if (conn->counted != 0)
        stk_scoreboard_add(row, (enum stk_counter)conn->counted, 1);
}

void stk_conn_set_state(struct stk_conn *conn, enum stk_conn_state state, stk_msec timeout)
{
    STK_ASSERT(conn->state != STK_CONN_CLOSE || state == STK_CONN_CLOSE);
    conn->state = (uint8_t)state;
    if (stk_unlikely(state != STK_CONN_IDLE || conn->counted != 0))
        stk_conn_count(conn, state);
    stk_conn_set_deadline(conn, timeout == STK_CONN_NEVER
                                    ? STK_CONN_NEVER
                                    : stk_loop_now(conn->server->loop) + timeout);
}

void stk_conn_forget(struct stk_conn *conn)
{
    free(conn->in);
    conn->in = NULL;
    conn->in_len = conn->in_cap = 0;
}

bool stk_conn_keep(struct stk_conn *conn, const char *data, size_t len)
{
    if (len == 0) {
        stk_conn_forget(conn);
        return true;
    }
    if (len > conn->in_cap) {
        size_t cap = 256;
        char *copy;

        while (cap < len)
            cap *= 2;
        copy = stk_try_alloc(cap);
        if (copy == NULL)
            return false;
        memcpy(copy, data, len);
        free(conn->in);
        conn->in = copy;
        conn->in_cap = (uint32_t)cap;
    } else {
        memmove(conn->in, data, len);
    }
    conn->in_len = (uint32_t)len;
    return true;
}

static inline bool conn_owns_memory(struct stk_conn *conn)
{
    return atomic_load_explicit(&conn->outq, memory_order_relaxed) != NULL || conn->tls != NULL ||
           conn->ws != NULL || conn->proxied != NULL || conn->in != NULL;
}

static void conn_free(struct stk_deferred *deferred)
{
    struct stk_conn *conn = stk_container_of(deferred, struct stk_conn, deferred);
    struct stk_server *server = conn->server;

    STK_CHECK_MAGIC(conn, STK_CONN_MAGIC);
    conn->magic = 0;
    if (stk_unlikely(conn_owns_memory(conn))) {
        stk_outq_free(atomic_load_explicit(&conn->outq, memory_order_relaxed));
        stk_tls_free(conn->tls);
        stk_websocket_free(conn->ws);
        stk_proxied_free(conn->proxied);
        free(conn->in);
    }
    if (server->nspare != CONN_SPARE) /* 0 with sanitizers */
        server->spare[server->nspare++] = conn;
    else
        free(conn);
}

/* Memory for a connection: that of one which has ended, where a front end opens one a request. */
static struct stk_conn *conn_alloc(struct stk_server *server)
{
    return stk_likely(server->nspare > 0) ? server->spare[--server->nspare]
                                          : stk_try_alloc(sizeof(struct stk_conn));
}

/* Takes the connection out of everything; by the owner of the loop, not busy. */
static void conn_destroy(struct stk_conn *conn)
{
    struct stk_server *server = conn->server;

    if (stk_unlikely(conn->tls != NULL))
        stk_secure_end(conn);
    if (stk_unlikely(!conn->fresh)) {
        stk_loop_del(server->loop, &conn->src);
        stk_cold_forget(conn);
    }
    stk_timer_stop(server->loop, &conn->timer);
    stk_list_remove(&conn->link);
    server->nconns--;
    if (stk_unlikely(conn->counted != 0))
        stk_conn_count(conn, STK_CONN_CLOSE);
    stk_server_note_fd(server, conn->src.fd, false);
    if (conn->copied && shutdown(conn->src.fd, SHUT_RDWR) < 0) {
        /* The client has left first. */
    }
    (void)stk_sys_close(conn->src.fd); /* Linux releases it even when that fails */
    conn->src.fd = -1;
    if (stk_unlikely(conn->body != NULL))
        conn->body = stk_body_free(conn->body);
    stk_scoreboard_set(server->row, STK_COUNTER_connections_open, server->nconns);
    stk_scoreboard_close_reason(server->row, conn->close_reason);
    if (stk_likely(conn->fresh)) /* the next one of this turn has it while the caches do */
        conn_free(&conn->deferred);
    else
        stk_loop_defer(server->loop, &conn->deferred);
    if (stk_unlikely(server->accept_paused))
        stk_server_resume(server);
    if (server->nconns == 0 && atomic_load(&server->draining) && server->on_drained != NULL)
        server->on_drained(server->on_drained_arg);
}

bool stk_conn_has_input(struct stk_conn *conn)
{
    int n = 0;

    if (conn->in_len > 0 || stk_conn_io_hides(conn))
        return true;
    return ioctl(conn->src.fd, FIONREAD, &n) == 0 && n > 0;
}

/* Decides how a connection without output left ends: the state to go to. */
static enum stk_conn_state conn_ending(struct stk_conn *conn)
{
    enum stk_close_reason reason = conn->close_reason;

    if (!close_lingers[reason] || conn->eof || stk_conn_is_gone(conn))
        return STK_CONN_CLOSE;
    /* A front end sends nothing behind the only request of a connection: it need not be asked. */
    if ((reason == STK_CLOSE_REQUESTED || reason == STK_CLOSE_RESPONSE_END) && !conn->lingers &&
        (stk_conn_is_single(conn) || !stk_conn_has_input(conn)))
        return STK_CONN_CLOSE;
    return STK_CONN_LINGER;
}

void stk_conn_close(struct stk_conn *conn, struct stk_lead_thread *thread,
                    enum stk_close_reason reason)
{
    bool busy = atomic_load_explicit(&conn->word, memory_order_relaxed) & STK_CONN_BUSY;
    enum stk_conn_state ending;

    conn->close_reason = (uint8_t)reason;
    ending = conn_ending(conn);
    if (conn->src_events != EPOLLIN)
        stk_conn_want_output(conn, false);
    if (ending == STK_CONN_LINGER && stk_unlikely(conn->ws != NULL)) {
        ending = stk_websocket_begin_linger(conn) ? STK_CONN_LINGER : STK_CONN_CLOSE;
    } else if (ending == STK_CONN_LINGER) {
        if (stk_conn_io_end(conn) < 0)
            ending = STK_CONN_CLOSE;
        else
            stk_conn_set_state(conn, STK_CONN_LINGER, STK_CONN_LINGER_MS);
        conn->linger_end = stk_loop_now(conn->server->loop) + STK_CONN_LINGER_MAX_MS;
        stk_conn_forget(conn);
    }
    if (!busy || thread->own) {
        uint32_t word;

        if (stk_likely(ending == STK_CONN_CLOSE)) {
            conn_destroy(conn);
            return;
        }
        word = atomic_exchange(&conn->word, 0);
        if (word & STK_CONN_DISARMED && stk_conn_listen(conn, EPOLLIN) < 0)
            conn_destroy(conn);
        else
            stk_timer_set(conn->server->loop, &conn->timer, STK_CONN_LINGER_MS);
        return;
    }
    if (ending == STK_CONN_CLOSE)
        stk_conn_set_state(conn, STK_CONN_CLOSE, 0);
    /* The owner of the loop has to do it: the end of input is an event for it. The other direction
     * is left to close(), which may have to reset the connection. */
    if (ending == STK_CONN_CLOSE && shutdown(conn->src.fd, SHUT_RD) < 0) {
        /* ENOTCONN: reset already, which is an event as well. */
    }
    stk_conn_release(conn, thread);
}

void stk_conn_leave(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    STK_ASSERT(thread->own);
    conn->close_reason = STK_CLOSE_MOVED;
    conn->copied = false; /* it is not ours to end */
    atomic_store(&conn->word, 0);
    conn_destroy(conn);
}

void stk_conn_release(struct stk_conn *conn, struct stk_lead_thread *thread)
{
    uint32_t word;

    if (thread->own) {
        /* Nobody else has looked at it unless the loop was away in between: then DISARMED may be
         * set. */
        word = atomic_load_explicit(&conn->word, memory_order_relaxed);
        atomic_store_explicit(&conn->word, word & STK_CONN_GONE, memory_order_relaxed);
        if (stk_unlikely(word & STK_CONN_DISARMED) && stk_conn_listen(conn, conn->src_events) < 0)
            stk_conn_close(conn, thread, STK_CLOSE_IO_ERROR);
        return;
    }
    word = atomic_load(&conn->word);
    for (;;) {
        if (word & STK_CONN_DISARMED) {
            word = atomic_fetch_and(&conn->word, ~(uint32_t)STK_CONN_DISARMED);
            if (word & STK_CONN_DISARMED && /* else stk_conn_look_again was quicker */
                stk_conn_listen(conn, conn->src_events) < 0) {
                /* The timer finds it: without events nothing else would. */
                conn->state = STK_CONN_CLOSE;
                conn->deadline = 0;
            }
            word &= ~(uint32_t)STK_CONN_DISARMED;
        }
        if (atomic_compare_exchange_strong(&conn->word, &word, word & ~(uint32_t)STK_CONN_BUSY))
            return;
    }
}

/* An event on a busy connection: out of the set until its thread releases it. */
static void conn_disarm(struct stk_conn *conn, uint32_t events)
{
    uint32_t add = STK_CONN_DISARMED;
    uint32_t old;

    if (events & (EPOLLHUP | EPOLLERR))
        add |= STK_CONN_GONE;
    stk_loop_del(conn->server->loop, &conn->src);
    old = atomic_fetch_or(&conn->word, add);
    if (stk_unlikely(old & STK_CONN_DETACHED)) {
        stk_detach_relisten(conn);
    } else if (!(old & STK_CONN_BUSY)) {
        atomic_fetch_and(&conn->word, ~(uint32_t)STK_CONN_DISARMED);
        if (stk_conn_listen(conn, conn->src_events) < 0) {
            conn->close_reason = STK_CLOSE_IO_ERROR;
            conn_destroy(conn);
        }
    }
}

/*
 * Reads and throws away what a closing client still sends. As long as it does, it has not read its
 * answer, which an early close would destroy by a reset.
 */
static void conn_linger(struct stk_conn *conn, struct stk_serve_thread *t)
{
    stk_msec now = stk_loop_now(conn->server->loop);
    uint32_t total = 0;
    ssize_t n;

    do {
        n = conn->ws != NULL
                ? stk_websocket_linger(conn, t->read_buf, STK_SERVE_READ_BUFFER)
                : stk_sys_recv(conn->src.fd, t->read_buf, STK_SERVE_READ_BUFFER, MSG_DONTWAIT);
        if (n > 0)
            total += (uint32_t)n;
    } while ((n > 0 && total < STK_CONN_LINGER_BYTES) || (n < 0 && errno == EINTR));
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        conn_destroy(conn);
        return;
    }
    if (total > 0)
        stk_conn_set_deadline(conn, now + STK_CONN_LINGER_MS < conn->linger_end
                                        ? now + STK_CONN_LINGER_MS
                                        : conn->linger_end);
}

static void conn_want(struct stk_conn *conn, uint32_t events);

int stk_conn_drain_queue(struct stk_conn *conn, bool *ret_sent)
{
    struct stk_server *server = conn->server;
    struct stk_outq *q = atomic_load_explicit(&conn->outq, memory_order_acquire);
    int r = q != NULL ? stk_outq_drain(q, conn->src.fd, conn->tls, ret_sent) : 0;

    if (r >= 1 && *ret_sent)
        stk_conn_set_deadline(conn, stk_loop_now(server->loop) + server->config->send_timeout);
    return r;
}

/* The socket takes bytes again: of a complete response, or of one that is still being written. */
static void conn_drain(struct stk_conn *conn, struct stk_lead_thread *thread, bool busy)
{
    bool sent = false;
    int r = stk_conn_drain_queue(conn, &sent);

    if (r >= 1 && (r != STK_OUTQ_DISK || stk_cold_wait(conn) != 0))
        return;
    if (busy) /* the writer sees the error, or the empty queue, at its next write */
        conn_disarm(conn, 0);
    else if (r >= 1) /* the socket has room, and would say so all the time: only hang-ups count */
        conn_want(conn, EPOLLERR);
    else if (r < 0)
        stk_conn_close(conn, thread,
                       r == -EPIPE || r == -ECONNRESET ? STK_CLOSE_RESET : STK_CLOSE_IO_ERROR);
    else
        stk_http1_drained(conn, thread);
}

static void conn_on_event(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_conn *conn = stk_container_of(src, struct stk_conn, src);
    struct stk_lead_thread *thread = who;
    uint32_t word = atomic_load_explicit(&conn->word, memory_order_acquire);

    if (stk_unlikely(word & STK_CONN_BUSY)) {
        if (word & STK_CONN_DETACHED)
            stk_detach_on_event(conn, thread, events);
        else if (events == EPOLLOUT)
            conn_drain(conn, thread, true);
        else
            conn_disarm(conn, events);
        return;
    }
    switch (conn->state) {
    case STK_CONN_IDLE:
    case STK_CONN_HEAD:
    case STK_CONN_BODY:
        stk_http1_readable(conn, thread);
        break;
    case STK_CONN_DRAIN:
        if (events & (EPOLLHUP | EPOLLERR))
            stk_conn_close(conn, thread, STK_CLOSE_RESET);
        else
            conn_drain(conn, thread, false);
        break;
    case STK_CONN_HANDSHAKE:
        stk_secure_go_on(conn, thread);
        break;
    case STK_CONN_PREFACE:
        stk_proxied_readable(conn, thread);
        break;
    case STK_CONN_LINGER:
        conn_linger(conn, stk_serve_thread_of(thread));
        break;
    default:
        conn_destroy(conn);
        break;
    }
}

/* The longest time between two looks at a deadline: as short as the one that every request sets. */
static stk_msec conn_look(const struct stk_server *server)
{
    stk_msec timeout = server->config->keepalive_timeout;

    if (timeout == 0 || timeout > STK_CONN_LOOK_MS)
        return STK_CONN_LOOK_MS;
    return timeout < STK_CONN_LOOK_MIN_MS ? STK_CONN_LOOK_MIN_MS : timeout;
}

static void conn_on_timer(struct stk_timer *timer, void *who)
{
    struct stk_conn *conn = stk_container_of(timer, struct stk_conn, timer);
    struct stk_server *server = conn->server;
    stk_msec look = conn_look(server);
    uint32_t word = atomic_load_explicit(&conn->word, memory_order_acquire);
    stk_msec left;

    if (word & STK_CONN_BUSY) {
        if (word & STK_CONN_DETACHED)
            look = stk_detach_on_timer(conn, who, look);
        stk_timer_set(server->loop, timer, look);
        return;
    }
    left = conn->deadline == STK_CONN_NEVER ? look : conn->deadline - stk_loop_now(server->loop);
    if (left > 0) {
        stk_timer_set(server->loop, timer, left < look ? left : look);
        return;
    }
    switch (conn->state) {
    case STK_CONN_IDLE:
        if (stk_conn_has_input(conn)) { /* a request came at the last moment: its event is near */
            stk_timer_set(server->loop, timer, STK_CONN_LAST_MS);
            break;
        }
        stk_conn_close(conn, who, conn->served ? STK_CLOSE_IDLE : STK_CLOSE_NO_REQUEST);
        break;
    case STK_CONN_HEAD:
    case STK_CONN_BODY:
        stk_http1_timed_out(conn, who);
        break;
    case STK_CONN_HANDSHAKE:
        stk_conn_close(conn, who, STK_CLOSE_TLS_TIMEOUT);
        break;
    case STK_CONN_PREFACE:
        stk_conn_close(conn, who, STK_CLOSE_NO_REQUEST);
        break;
    case STK_CONN_DRAIN:
        stk_conn_close(conn, who, STK_CLOSE_SEND_TIMEOUT);
        break;
    default:
        conn_destroy(conn);
        break;
    }
}

/* Makes sure that the timer fires no later than the deadline; by the owner of the loop. */
void stk_conn_check_timer(struct stk_conn *conn)
{
    if (conn->deadline != STK_CONN_NEVER &&
        (!stk_timer_is_set(&conn->timer) || conn->timer.deadline > conn->deadline + 500))
        stk_timer_set(conn->server->loop, &conn->timer,
                      conn->deadline - stk_loop_now(conn->server->loop));
}

int stk_conn_open(struct stk_server *server, const struct stk_endpoint *endpoint, int fd,
                  const struct stk_peer *peer, bool trusted, struct stk_conn **ret_conn)
{
    struct stk_conn *conn = conn_alloc(server);
    stk_msec timeout = server->config->head_timeout, look = conn_look(server);

    if (conn == NULL) {
        stk_fd_close(&fd);
        return -ENOMEM;
    }
    memset(conn, 0, sizeof *conn);
    conn->magic = STK_CONN_MAGIC;
    conn->server = server;
    conn->endpoint = endpoint;
    conn->proto = endpoint->proto;
    conn->trusted = trusted;
    conn->peer = *peer;
    conn->src = (struct stk_source){.fn = conn_on_event, .fd = fd};
    conn->deferred.free_fn = conn_free;
    conn->job.run = stk_http1_job;
    conn->src_events = EPOLLIN;
    stk_list_init(&conn->disk);
    stk_timer_init(&conn->timer, conn_on_timer);
    atomic_store_explicit(&conn->word, STK_CONN_DISARMED, memory_order_relaxed);
    stk_list_append(&server->conns, &conn->link);
    server->nconns++;
    stk_server_note_fd(server, fd, true);
    conn->state = STK_CONN_IDLE;
    conn->deadline = stk_loop_now(server->loop) + timeout;
    stk_timer_start(server->loop, &conn->timer, timeout < look ? timeout : look);
    stk_scoreboard_set(server->row, STK_COUNTER_connections_open, server->nconns);
    *ret_conn = conn;
    return 0;
}

/* Whoever ends DISARMED puts it back: of a busy connection that may be two. */
static void conn_arm_output(struct stk_conn *conn)
{
    if (atomic_fetch_and(&conn->word, ~(uint32_t)STK_CONN_DISARMED) & STK_CONN_DISARMED &&
        stk_conn_listen(conn, EPOLLOUT) < 0)
        stk_conn_set_gone(conn);
}

/* Asks for other events than before. */
static void conn_want(struct stk_conn *conn, uint32_t events)
{
    struct stk_loop *loop = conn->server->loop;
    bool output = events == EPOLLOUT;

    if (stk_unlikely(atomic_load_explicit(&conn->word, memory_order_relaxed) & STK_CONN_DETACHED)) {
        stk_detach_listen(conn);
        return;
    }
    conn->src_events = events;
    for (int tries = 0; tries < 1000; tries++) {
        if (atomic_load(&conn->word) & STK_CONN_DISARMED) {
            if (!output)
                return; /* release puts it back */
            /* Only output and hang-ups are reported from here on: pending input stays unseen. */
            conn_arm_output(conn);
            return;
        }
        if (stk_loop_mod(loop, &conn->src, conn->src_events) != -ENOENT)
            return;
        sched_yield(); /* the owner of the loop is between taking it out and saying so */
    }
}

void stk_conn_want_output(struct stk_conn *conn, bool output)
{
    conn_want(conn, output ? EPOLLOUT : EPOLLIN);
}

void stk_conn_look_again(struct stk_conn *conn)
{
    uint32_t word = atomic_load_explicit(&conn->word, memory_order_acquire);

    if (word & STK_CONN_DETACHED)
        stk_detach_relisten(conn);
    else if (word & STK_CONN_BUSY && stk_conn_has_queued(conn))
        conn_arm_output(conn); /* an event of the next turn */
    else if (!(word & STK_CONN_BUSY) && conn->state == STK_CONN_DRAIN && stk_conn_has_queued(conn))
        stk_conn_want_output(conn, true);
}

void stk_conn_want_input(struct stk_conn *conn)
{
    uint32_t events = stk_conn_io_hides(conn) ? EPOLLIN | EPOLLOUT : EPOLLIN;
    uint32_t now = __atomic_load_n(&conn->src.events, __ATOMIC_RELAXED);

    /* The second: it was put back for output that its request has then sent by itself. */
    if (conn->src_events != events || (now != 0 && now != events))
        conn_want(conn, events);
}
