/*
 * A client's connection: its life, its deadline, its one way to be closed, and the question who may
 * touch it.
 *
 * The owner of the loop may touch a connection that is not busy. A busy one belongs to the thread
 * that runs its request, until that releases it; the owner of the loop only takes it out of the
 * epoll set when it has an event (STK_CONN_DISARMED), and remembers a hang-up (STK_CONN_GONE).
 * While its request is detached (STK_CONN_DETACHED) both handle its events, under a mutex:
 * serve/detach.h.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "app/request.h"
#include "base/list.h"
#include "loop/lead.h"
#include "loop/loop.h"
#include "serve/server.h"

struct stk_body;
struct stk_detached;
struct stk_outq;
struct stk_proxied;
struct stk_tls;
struct stk_websocket;

enum {
    STK_CONN_BUSY = 1,
    STK_CONN_DISARMED = 2,
    STK_CONN_GONE = 4,
    STK_CONN_DETACHED = 8, /* and busy: `detached` waits in the application's event loop */
};

enum stk_conn_state {
    STK_CONN_IDLE,      /* between requests, no byte of a next one */
    STK_CONN_HEAD,      /* a part of a head is there */
    STK_CONN_BODY,      /* the head is there, the body is not */
    STK_CONN_REQUEST,   /* in the application, or waiting for a thread of it */
    STK_CONN_DRAIN,     /* the response is complete and not all sent */
    STK_CONN_LINGER,    /* shut down for writing: waits for the client's end */
    STK_CONN_CLOSE,     /* to be closed by the owner of the loop */
    STK_CONN_HANDSHAKE, /* TLS is being agreed on */
    STK_CONN_PREFACE,   /* a PROXY header comes first, and is not complete */
};

#define STK_CONN_MAGIC 0x4e4e4f43

struct stk_conn {
    uint32_t magic;
    _Atomic uint32_t word;
    struct stk_source src;
    struct stk_server *server;
    const struct stk_endpoint *endpoint;
    struct stk_timer timer;
    struct stk_list link;
    struct stk_list disk; /* while its output waits for one: serve/cold.c */
    struct stk_deferred deferred;
    struct stk_job job;

    uint8_t state;          /* enum stk_conn_state; written by conn_set_state only */
    uint8_t close_reason;   /* enum stk_close_reason */
    bool trusted;           /* the peer is a trusted proxy */
    bool eof;               /* the client has shut down its side */
    bool served;            /* has had a response */
    bool continued;         /* 100 Continue has been sent for this request */
    uint8_t proto;          /* enum stk_proto */
    uint16_t fcgi_id;       /* of the request, whose answer goes in records; 0: not FastCGI */
    bool pinned;            /* more than plain HTTP/1.1: it stays in this process */
    uint8_t hops;           /* how often this request has moved from worker to worker */
    bool close_after_drain; /* the response that drains is the last one */
    bool body_after_drain;  /* a body is awaited behind the output that drains */
    bool lingers;           /* closing waits for the client's end in any case */
    bool copied;            /* another process may have the socket as well */
    bool stalled;           /* the client took nothing of a full queue for send-timeout */
    bool fresh;             /* in its first turn: nothing but its thread's stack points to it */
    uint8_t counted;        /* the level of the scoreboard it counts in; 0: none */
    struct stk_peer peer;

    uint32_t src_events; /* what the source is, or will be, in the epoll set with */
    stk_msec deadline;   /* of the current state; STK_CONN_NEVER */
    stk_msec linger_end; /* of state LINGER in all */
    char *in;            /* bytes of an incomplete or waiting request */
    uint32_t in_len, in_cap;
    uint32_t head_len; /* in state BODY: bytes of the head at in */
    struct stk_body *body;
    struct stk_detached *detached;   /* its mutex */
    struct stk_websocket *ws;        /* NULL: it speaks HTTP */
    struct stk_tls *tls;             /* NULL: plain */
    struct stk_proxied *proxied;     /* what a PROXY header said; NULL: there was none */
    _Atomic(struct stk_outq *) outq; /* made by the first short write */
};

#define STK_CONN_NEVER INT64_MAX

/*
 * Takes over an accepted socket; it is not in the epoll set yet (DISARMED): the caller looks for a
 * request at once, and what becomes of that adds it. 0, or a negative errno and the socket is
 * closed.
 */
int stk_conn_open(struct stk_server *server, const struct stk_endpoint *endpoint, int fd,
                  const struct stk_peer *peer, bool trusted, struct stk_conn **ret_conn)
    STK_MUST_CHECK;
/*
 * The one way to end a connection. By its owner (busy or not); it may not be touched afterwards
 * unless the thread is still its busy owner, and then only released. Pending output is sent first
 * in state DRAIN.
 */
void stk_conn_close(struct stk_conn *conn, struct stk_lead_thread *thread,
                    enum stk_close_reason reason);
/* Forgets a busy connection that is another worker's now; by the owner of the loop. */
void stk_conn_leave(struct stk_conn *conn, struct stk_lead_thread *thread);

/* Whether the request that a front end has sent is the only one of the connection. */
static inline bool stk_conn_is_single(const struct stk_conn *conn)
{
    return conn->proto == STK_PROTO_SCGI ||
           (conn->proto == STK_PROTO_UWSGI && !conn->endpoint->persistent);
}

/* Puts it into the epoll set. 0 or a negative errno. */
static inline int stk_conn_listen(struct stk_conn *conn, uint32_t events)
{
    __atomic_store_n(&conn->fresh, false, __ATOMIC_RELAXED); /* several may do so at once */
    return stk_loop_add(conn->server->loop, &conn->src, events);
}

/*
 * Marks the connection busy; by the owner of the loop, or by the thread that has made it busy
 * already: the word of a busy connection may be changed by the owner of the loop at any time.
 */
static inline void stk_conn_acquire(struct stk_conn *conn)
{
    uint32_t word = atomic_load_explicit(&conn->word, memory_order_relaxed);

    if (!(word & STK_CONN_BUSY))
        atomic_store_explicit(&conn->word, word | STK_CONN_BUSY, memory_order_relaxed);
}
/* Gives a busy connection back to the loop. It may not be touched afterwards, unless the thread
 * owns the loop. */
void stk_conn_release(struct stk_conn *conn, struct stk_lead_thread *thread);
/* Sets the state and its deadline, in milliseconds from now (STK_CONN_NEVER: none). */
void stk_conn_set_state(struct stk_conn *conn, enum stk_conn_state state, stk_msec timeout);
/* Changes the level of the scoreboard that the connection counts in. */
void stk_conn_count(struct stk_conn *conn, enum stk_conn_state state);
/* Enters state REQUEST, which has no deadline here. */
static inline void stk_conn_begin_request(struct stk_conn *conn)
{
    conn->state = STK_CONN_REQUEST;
    if (stk_unlikely(conn->counted != 0))
        stk_conn_count(conn, STK_CONN_REQUEST);
}
/* Makes the timer fire no later than the deadline; by the owner of the loop. */
void stk_conn_check_timer(struct stk_conn *conn);
/* Keeps bytes for later (a part of a request); false: no memory. `data` may be within conn->in. */
bool stk_conn_keep(struct stk_conn *conn, const char *data, size_t len) STK_MUST_CHECK;
/* Forgets kept bytes and their memory. */
void stk_conn_forget(struct stk_conn *conn);
/* Sets the end of the present state, on the monotonic clock. Also of a busy connection, by the
 * owner of the loop that drains its output. */
static inline void stk_conn_set_deadline(struct stk_conn *conn, stk_msec deadline)
{
    __atomic_store_n(&conn->deadline, deadline, __ATOMIC_RELAXED);
}
/* Notes that the client is gone. */
static inline void stk_conn_set_gone(struct stk_conn *conn)
{
    atomic_fetch_or(&conn->word, STK_CONN_GONE);
}
/* Whether the client is known to be gone (reset or hung up). */
static inline bool stk_conn_is_gone(struct stk_conn *conn)
{
    return atomic_load_explicit(&conn->word, memory_order_relaxed) & STK_CONN_GONE;
}
/* Whether bytes of the client are there that no request has used. */
bool stk_conn_has_input(struct stk_conn *conn);
/* Asks for output events (and no input) or the other way round. 0 or a negative errno. */
void stk_conn_want_output(struct stk_conn *conn, bool output);
/* Looks whether a disk has brought what comes next in the queue; by the owner of the loop. */
void stk_conn_look_again(struct stk_conn *conn);
/* Asks for input events, and makes one happen where TLS has input that the socket does not show. */
void stk_conn_want_input(struct stk_conn *conn);

/*
 * Sends now what the socket takes and queues the rest. Bytes are taken in any case, unless:
 * -EPIPE: the client is gone; -EAGAIN: the queue is full (nothing taken); -ENOMEM, -ENOSPC ...
 */
struct iovec;
int stk_conn_send(struct stk_conn *conn, struct iovec *iov, int iovcnt) STK_MUST_CHECK;
/* The same of bytes that are in the protocol's records already; `last`: never -EAGAIN. */
int stk_conn_send_raw(struct stk_conn *conn, struct iovec *iov, int iovcnt, bool last)
    STK_MUST_CHECK;
/* The same of len bytes of a file, with a tail of some bytes behind them; never -EAGAIN. */
int stk_conn_sendfile(struct stk_conn *conn, int fd, int64_t off, uint64_t len, stk_span tail)
    STK_MUST_CHECK;
/* Milliseconds until a client that takes none of the queued output is given up; >= 0. */
stk_msec stk_conn_send_left(struct stk_conn *conn);
/* Sends queued output. As stk_outq_drain. */
int stk_conn_drain_queue(struct stk_conn *conn, bool *ret_sent) STK_MUST_CHECK;
/* Whether queued output is left. */
bool stk_conn_has_queued(struct stk_conn *conn);
static inline bool stk_conn_has_output(struct stk_conn *conn)
{
    return stk_unlikely(atomic_load_explicit(&conn->outq, memory_order_relaxed) != NULL) &&
           stk_conn_has_queued(conn);
}
