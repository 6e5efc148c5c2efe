/*
 * The inside of detached requests:
 *   detach.c         how they come to be, events, time, draining
 *   detach_serve.c   their services, and their end
 *   detach_watch.c   the stand-by's look at an event loop that does not come back
 */
#pragma once

#include <pthread.h>

#include "serve/detach.h"

/* The stand-by's notes on the step that runs in the event loop. Times are monotonic milliseconds.
 */
struct stk_detach_watch {
    uint64_t step; /* of stk_host_ops.step; 0: none */
    uint64_t id;   /* of its request */
    stk_msec look;
    stk_msec cancelled_at; /* 0: it has not been */
    bool again;            /* it has been cancelled a second time */
    bool stuck;            /* and goes on */
};

enum {
    STK_DETACH_NAMED = 8
}; /* places of the scoreboard that may be used: the rest is for threads */

struct stk_detach {
    struct stk_server *server;
    pthread_mutex_t mutex;
    struct stk_list all, woken;
    unsigned n, occupied; /* of them; and those that count */
    unsigned limit;       /* how many of the latter there may be; 0: any number */
    void *driver;         /* the host's object of the event loop's thread, while that runs */
    stk_msec due_back;    /* since when it has not come to hear that a request is too late; 0 */
    bool away;            /* for so long that the worker is replaced */
    unsigned nnamed;      /* in the scoreboard */
    struct stk_detach_watch watch;
    pthread_t thread; /* of the event loop; what follows is its */
    bool untimed;     /* somebody's timer may be late */
    _Atomic bool has_woken;
    struct stk_serve_thread t;       /* the buffers that they share; of the event loop's thread */
    struct stk_detached *holder;     /* whose head may be in t.out */
    struct stk_ws_shared *ws_shared; /* NULL: none was needed */
    struct stk_ws_held *ws_held;     /* NULL: nothing is held */
    unsigned napps;
    bool *async; /* by application */
};

extern const struct stk_request_ops stk_detached_ops;

/* Has the timer of the connection fire in time; by the owner of the loop. */
void stk_detach_check_timer(struct stk_conn *conn);
/* The name of one in the scoreboard goes, with it: somebody else may get its place. Mutex held. */
void stk_detach_unname(struct stk_detach *det, struct stk_detached *d);
/* Makes the shared buffers those of the request. Mutex held, on the thread of the event loop. */
void stk_detach_borrow(struct stk_detach *det, struct stk_detached *d);
/* Bytes of queued output of a connection; what TLS has taken does not count. */
uint64_t stk_detach_queued(struct stk_conn *conn);
/* The socket takes bytes again; the connection is gone, and out of the epoll set. Mutex held. */
void stk_detach_drain_output(struct stk_detach *det, struct stk_detached *d);
void stk_detach_hang(struct stk_detach *det, struct stk_detached *d);
/* One more, or one less. Mutex held. */
void stk_detach_count(struct stk_detach *det, int change);
/* Whether it is one of those that count for the limit. Mutex held. */
void stk_detach_occupy(struct stk_detach *det, struct stk_detached *d, bool on);
/* Notes that the host is to be told. Mutex held. */
void stk_detach_tell(struct stk_detach *det, struct stk_detached *d, unsigned what);
