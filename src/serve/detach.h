/*
 * Requests that outlive their call: the application waits for something in its event loop, and the
 * request waits with it (app/request.h, "detached").
 *
 * Such a request has everything that it needs on the heap: its head, its texts, what is left of its
 * body. Its connection stays busy, and belongs to the thread of the event loop. Who owns the loop
 * handles its events: they become reasons to wake it, which that thread tells the host in its next
 * turn. A mutex of the server's keeps the two apart.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/host.h"
#include "base/list.h"
#include "serve/request.h"
#include "serve/server.h"

enum {
    STK_DETACH_BODY = 64 * 1024, /* a larger body is not gathered before an async call */
    STK_DETACH_HIGH = 64 * 1024, /* queued output beyond which the application should wait ... */
    STK_DETACH_LOW = 16 * 1024,  /* ... until it is below this */
};

/* A detached request. All under the mutex, as far as another thread may look at it. */
struct stk_detached {
    struct stk_serve_request rq; /* first */
    struct stk_list link;        /* of all */
    struct stk_list woken;       /* of those to be woken */
    stk_msec due;                /* monotonic clock; 0: no limit */
    char *held;                  /* the head that is being made, while others use the buffer */
    uint32_t held_len;
    uint8_t want;  /* enum stk_wake: is to be told */
    uint8_t tell;  /* is going to be told */
    uint8_t told;  /* of what is told once */
    uint8_t named; /* its place in the scoreboard, from 1 on; 0: it has none */
    bool occupies; /* it counts for the limit (gevent, max-concurrency) */
    bool lazy;     /* input events are asked for until one comes that nobody wants */
    bool disk;     /* queued output waits for a disk, not for the client */
    bool hung;     /* the connection is out of the epoll set for good */
    bool behind;   /* bytes came behind it that are not kept yet, and precede what is read next */
    char memory[]; /* the head, texts, the body */
};

/* As stk_request_ops.detach, and is_congested. */
struct stk_request *stk_detach(struct stk_request *req);
bool stk_detach_is_congested(struct stk_request *req);

/*
 * Of a server with a lead whose host has an event loop; napps applications are loaded. By the
 * thread that is going to drive it, locked.
 */
void stk_detach_init(struct stk_server *server, unsigned napps);
/* Forgets all detached requests; before the server is freed. */
void stk_detach_deinit(struct stk_server *server);
/* Whether the server has detached requests, and this application is asynchronous. */
bool stk_detach_is_async(const struct stk_server *server, unsigned app);
/*
 * The event loop runs from here on, with the host's object of its thread; or no longer (NULL).
 */
void stk_detach_set_driver(struct stk_server *server, void *thread);
/*
 * Looks at an event loop that does not come back, by the stand-by once a tick: a step of a request
 * whose time is over is cancelled. Returns when to look again (INT64_MAX: no need).
 */
stk_msec stk_detach_watch(struct stk_server *server, stk_msec now);
/* Writes a line for each that waits, the oldest first; or of one (by its id, 0: all). From any
 * thread. */
void stk_detach_write(struct stk_server *server, uint64_t id, int fd);
/* Whether this one waits. From any thread. */
bool stk_detach_has(struct stk_server *server, uint64_t id);
/* Requests that wait in an event loop that will not come back. */
unsigned stk_detach_stuck(struct stk_server *server);
/* Tells the host why requests can go on; by the thread that drives the event loop, in a turn. */
void stk_detach_wake(struct stk_server *server, struct stk_lead_thread *thread);

/* By the owner of the loop: an event of the connection of a detached request. */
void stk_detach_on_event(struct stk_conn *conn, struct stk_lead_thread *thread, uint32_t events);
/* Its connection's timer; milliseconds until it is to fire again, at most `most`. */
stk_msec stk_detach_on_timer(struct stk_conn *conn, struct stk_lead_thread *thread, stk_msec most);
/* Has the timer fire in time; on the thread of the event loop, now or when it leads. */
void stk_detach_time(struct stk_conn *conn, struct stk_lead_thread *thread);
/* Asks for the events that it needs; by whoever has sent on the connection, mutex held. */
void stk_detach_listen(struct stk_conn *conn);
/* The connection was taken out of the set while the request was being detached, or the disk that it
 * waits for is to be looked at; by the owner of the loop. */
void stk_detach_relisten(struct stk_conn *conn);
/* The worker drains, as it is replaced or for good: tells all; and later cuts a busy connection's
 * that has not finished, and says so where not `most` have been *said. By the owner of the loop. */
void stk_detach_drain(struct stk_server *server, bool restart);
void stk_detach_abort(struct stk_conn *conn, unsigned *said, unsigned most);
