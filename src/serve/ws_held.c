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
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/time.h"
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
    size_t len;
};

struct stk_ws_held {
    bool on;            /* of the thread of the event loop */
    _Atomic unsigned n; /* parts; more of them are by that thread only */
    size_t len;
    stk_nsec since; /* when the first came */
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

void stk_ws_held_flush(struct stk_detach *det)
{
    struct stk_ws_held *held = det->ws_held;
    unsigned n = atomic_load_explicit(&held->n, memory_order_relaxed);
    char *at = held->buf;

    if (n == 0)
        return;
    for (unsigned i = 0; i < n; i++)
        held->parts[i].conn->ws->held = false;
    for (unsigned i = 0; i < n; i++) {
        (void)stk_websocket_send_bytes(held->parts[i].conn, at, held->parts[i].len);
        at += held->parts[i].len;
    }
    held->len = 0;
    atomic_store_explicit(&held->n, 0, memory_order_relaxed);
    stk_lead_mind(det->server->lead, false);
}

bool stk_ws_hold(struct stk_conn *conn, enum stk_ws_opcode opcode, bool compressed,
                 const char *data, size_t len)
{
    struct stk_detach *det = conn->server->detach;
    struct stk_ws_held *held = det->ws_held;
    struct held_part *part;
    unsigned n;
    size_t more;

    if (!held || !held->on || len > HELD_MESSAGE || stk_conn_has_output(conn))
        return false;
    if (HELD_SIZE - held->len < len + STK_WS_HEAD_MAX)
        stk_ws_held_flush(det);
    n = atomic_load_explicit(&held->n, memory_order_relaxed);
    if (n == 0 || held->parts[n - 1].conn != conn) {
        if (n == HELD_PARTS) {
            stk_ws_held_flush(det);
            n = 0;
        }
        if (n == 0) {
            held->since = stk_time_mono_ns();
            stk_lead_mind(det->server->lead, true);
        }
        held->parts[n] = (struct held_part){.conn = conn};
        conn->ws->held = true;
        atomic_store_explicit(&held->n, ++n, memory_order_relaxed);
    }
    part = &held->parts[n - 1];
    more = stk_ws_head(held->buf + held->len, opcode, compressed, len);
    memcpy(held->buf + held->len + more, data, len);
    part->len += more + len;
    held->len += more + len;
    return true;
}

void stk_websocket_gather(struct stk_server *server, bool on)
{
    struct stk_detach *det = server->detach;
    struct stk_ws_held *held = det ? det->ws_held : NULL;
    bool first = held && !held->on;

    if (!held)
        return;
    held->on = on;
    if (first || atomic_load_explicit(&held->n, memory_order_relaxed) == 0)
        return;
    pthread_mutex_lock(&det->mutex);
    if (!on || stk_time_mono_ns() - held->since >= HELD_AGE_NS)
        stk_ws_held_flush(det);
    pthread_mutex_unlock(&det->mutex);
}

static struct stk_ws_held *held_of(const struct stk_server *server)
{
    return server->detach ? __atomic_load_n(&server->detach->ws_held, __ATOMIC_ACQUIRE) : NULL;
}

bool stk_websocket_has_held(const struct stk_server *server)
{
    const struct stk_ws_held *held = held_of(server);

    return held && atomic_load_explicit(&held->n, memory_order_relaxed) > 0;
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
    if (now - held->since >= HELD_AGE_NS)
        stk_ws_held_flush(det);
    left = atomic_load_explicit(&held->n, memory_order_relaxed) > 0;
    pthread_mutex_unlock(&det->mutex);
    return left;
}
