/*
 * Frames that are held for a moment. When messages have come on many WebSockets at once, their
 * applications go on one behind the other, and most send something: it lies in one buffer and
 * leaves behind the last of them. That costs as many system calls (one a connection), but the code
 * of the application and that of the kernel then run in a row each, which the caches of the
 * processor like much better; and several messages to one client leave in one packet.
 *
 * What is held must not wait for an application that blocks: the stand-by sends it at its next
 * tick. Where it sleeps it is roused, and it does not go to sleep before this is empty; without a
 * stand-by nothing is held. Whatever else is sent on a connection sends what is held first, so no
 * order changes; and a request ends behind what it has sent. So no connection that is named here
 * goes away before.
 *
 * The thread of the event loop adds to it without the mutex, and publishes what it has added.
 * Everything is sent with the mutex; only that thread empties the buffer. Whether a connection
 * takes anything is looked at twice: at a flag when a message is added, and in full when it leaves.
 * A message between the two is lost like one that was sent just before.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/time.h"
#include "ipc/scoreboard.h"
#include "loop/lead.h"
#include "serve/conn.h"
#include "serve/detach_priv.h"
#include "serve/websocket_priv.h"

enum {
    HELD_SIZE = 16 * 1024,   /* of all */
    HELD_MESSAGE = 2 * 1024, /* a larger message leaves at once */
    HELD_PARTS = 64,
    HELD_AGE_NS = 200 * 1000,
};

struct held_part {
    struct stk_conn *conn;
    uint32_t len;     /* of the frame */
    uint32_t payload; /* of that, the message */
};

struct stk_ws_held {
    bool on;               /* of the thread of the event loop, as the next */
    size_t len;            /* of all parts */
    _Atomic unsigned n;    /* parts that are there; by that thread */
    _Atomic unsigned sent; /* of them; under the mutex */
    size_t sent_len;
    _Atomic stk_nsec since; /* when the first came */
    struct held_part parts[HELD_PARTS];
    char buf[HELD_SIZE];
};

void stk_ws_held_init(struct stk_detach *det)
{
    struct stk_ws_held *held;

    if (det->ws_held || !stk_lead_standby(det->server->lead))
        return;
    held = stk_try_alloc(sizeof(*held));
    if (held)
        memset(held, 0, offsetof(struct stk_ws_held, parts));
    __atomic_store_n(&det->ws_held, held, __ATOMIC_RELEASE); /* for the stand-by */
}

struct stk_ws_held *stk_ws_held_free(struct stk_ws_held *held)
{
    free(held);
    return NULL;
}

/* Sends the parts from `from` on that are for the same connection. Gives back the next one. */
static unsigned held_send(struct stk_detach *det, unsigned from, unsigned n)
{
    struct stk_ws_held *held = det->ws_held;
    struct stk_conn *conn = held->parts[from].conn;
    struct stk_detached *d = conn->detached;
    struct stk_websocket *ws = conn->ws;
    size_t len = 0, payload = 0;
    unsigned to = from;

    for (; to < n && held->parts[to].conn == conn; to++) {
        len += held->parts[to].len;
        payload += held->parts[to].payload;
    }
    if (ws->sent_close || ws->ended || d->rq.gone) {
        atomic_store_explicit(&ws->closed, true, memory_order_relaxed);
    } else if (stk_websocket_send_bytes(conn, held->buf + held->sent_len, len) == 0) {
        d->rq.body_bytes += payload;
        stk_scoreboard_bump(&det->server->row->shared[STK_COUNTER_websocket_messages_out],
                            to - from);
    }
    held->sent_len += len;
    return to;
}

void stk_ws_held_flush(struct stk_detach *det)
{
    struct stk_ws_held *held = det->ws_held;
    unsigned n = atomic_load_explicit(&held->n, memory_order_acquire);
    unsigned sent = atomic_load_explicit(&held->sent, memory_order_relaxed);

    while (sent < n)
        sent = held_send(det, sent, n);
    atomic_store_explicit(&held->sent, sent, memory_order_relaxed);
    if (n == 0 || !pthread_equal(pthread_self(), det->thread))
        return;
    for (unsigned i = 0; i < n; i++)
        atomic_store_explicit(&held->parts[i].conn->ws->held, false, memory_order_relaxed);
    held->len = held->sent_len = 0;
    atomic_store_explicit(&held->sent, 0, memory_order_relaxed);
    atomic_store_explicit(&held->n, 0, memory_order_relaxed);
    stk_lead_mind(det->server->lead, false);
}

void stk_ws_held_make_room(struct stk_detach *det)
{
    struct stk_ws_held *held = det->ws_held;

    if (held && held->on &&
        (atomic_load_explicit(&held->n, memory_order_relaxed) == HELD_PARTS ||
         HELD_SIZE - held->len < HELD_MESSAGE + STK_WS_HEAD_MAX))
        stk_ws_held_flush(det);
}

bool stk_ws_hold(struct stk_conn *conn, enum stk_ws_opcode opcode, const char *data, size_t len)
{
    struct stk_detach *det = conn->server->detach;
    struct stk_ws_held *held = det->ws_held;
    unsigned n;
    size_t head;

    if (!held || !held->on || len > HELD_MESSAGE || HELD_SIZE - held->len < len + STK_WS_HEAD_MAX ||
        atomic_load_explicit(&conn->ws->closed, memory_order_relaxed) || stk_conn_has_output(conn))
        return false;
    n = atomic_load_explicit(&held->n, memory_order_relaxed);
    if (n == HELD_PARTS)
        return false;
    head = stk_ws_head(held->buf + held->len, opcode, false, len);
    memcpy(held->buf + held->len + head, data, len);
    held->parts[n] = (struct held_part){conn, (uint32_t)(head + len), (uint32_t)len};
    held->len += head + len;
    atomic_store_explicit(&conn->ws->held, true, memory_order_relaxed);
    if (n == 0)
        atomic_store_explicit(&held->since, stk_time_mono_ns(), memory_order_relaxed);
    atomic_store_explicit(&held->n, n + 1, memory_order_release);
    if (n == 0)
        stk_lead_mind(det->server->lead, true);
    return true;
}

void stk_websocket_gather(struct stk_server *server, bool on)
{
    struct stk_detach *det = server->detach;
    struct stk_ws_held *held = det ? det->ws_held : NULL;

    if (!held)
        return;
    held->on = on;
    if (atomic_load_explicit(&held->n, memory_order_relaxed) == 0 ||
        (on && stk_time_mono_ns() - atomic_load(&held->since) < HELD_AGE_NS))
        return;
    pthread_mutex_lock(&det->mutex);
    stk_ws_held_flush(det);
    server->threads[0].bytes_out += det->t.bytes_out;
    det->t.bytes_out = 0;
    pthread_mutex_unlock(&det->mutex);
}

static bool held_has(const struct stk_ws_held *held)
{
    return atomic_load_explicit(&held->sent, memory_order_relaxed) <
           atomic_load_explicit(&held->n, memory_order_relaxed);
}

static struct stk_ws_held *held_of(const struct stk_server *server)
{
    return server->detach ? __atomic_load_n(&server->detach->ws_held, __ATOMIC_ACQUIRE) : NULL;
}

bool stk_websocket_has_held(const struct stk_server *server)
{
    const struct stk_ws_held *held = held_of(server);

    return held && held_has(held);
}

bool stk_websocket_flush_held(struct stk_server *server, stk_nsec now)
{
    struct stk_detach *det = server->detach;
    struct stk_ws_held *held = held_of(server);
    bool left;

    if (!held)
        return false;
    if (pthread_mutex_trylock(&det->mutex) != 0)
        return true;
    if (now - atomic_load(&held->since) >= HELD_AGE_NS)
        stk_ws_held_flush(det);
    left = held_has(held);
    pthread_mutex_unlock(&det->mutex);
    return left;
}
