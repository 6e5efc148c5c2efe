/*
 * The inside of green*.c:
 *   green.c        a request in its greenlet: call, waiting, waking, the end
 *   green_pool.c   greenlets that serve one request after the other
 *   green_loop.c   gevent, its hub, and how that turns the engine
 */
#pragma once

#include "pyhost/green.h"

/* What greenlet's own C interface has (a capsule, greenlet._C_API), of which this is used. */
struct stk_greenlet_api {
    PyObject *(*current)(void);
    PyObject *(*raise)(PyObject *greenlet, PyObject *type, PyObject *value, PyObject *tb);
    PyObject *(*switch_to)(PyObject *greenlet, PyObject *args, PyObject *kwargs);
    PyObject *exit; /* class GreenletExit */
};

/*
 * A greenlet for requests. It lives as long as its capsule, which its function, what is scheduled
 * for it, and it itself until its end hold.
 */
struct stk_green {
    struct stk_greens *all;
    PyObject *capsule; /* borrowed */
    PyObject *greenlet;
    PyObject *context;      /* entered while the greenlet lives */
    PyObject *links;        /* list: whom to tell of the end of a request, see stoker._gevent */
    PyObject *tree;         /* dict: its spawn_tree_locals */
    PyObject *waits;        /* list: gevent's waiters of those who wait in a service; or NULL */
    struct stk_call call;   /* here, because the stack of a greenlet is not always in its place */
    struct stk_green *prev; /* of the detached ones */
    struct stk_green *next; /* of the detached, or of the idle ones */
    const char *base;       /* of its stack */
    Py_ssize_t context_refs;
    unsigned waiting; /* greenlets that wait in a service */
    unsigned cancel;  /* enum stk_host_cancel: is to be raised */
    bool started;
    bool busy;     /* has a request */
    bool idle;     /* is in the list of those that have none */
    bool quit;     /* is to end */
    bool in_call;  /* stk_green_call is on the stack of the hub */
    bool detached; /* call.req outlives the call */
    bool done;     /* the request has ended */
    bool yields;   /* waits for its next turn */
};

/* The gevent side of a host. */
struct stk_greens {
    struct stk_pyhost *host;
    struct stk_greenlet_api api;
    PyObject *helpers; /* the module stoker._gevent */
    PyObject *hub;
    PyObject *run_callback; /* of the hub's loop */
    PyObject *waiter_type;
    PyObject *greenlet_type;
    PyObject *driver;                     /* while the hub turns the engine */
    PyObject *context;                    /* every request begins in a copy of it */
    const char *hub_at;                   /* the stack of the hub is here */
    const char *floor;                    /* those of requests begin here, or below */
    pid_t pid;                            /* in which the hub works */
    const struct stk_host_engine *engine; /* NULL: the hub runs alone */
    bool stopped;                         /* the engine has */
    struct stk_pythread keeper; /* of a start_response object; outlives the engine's thread */

    size_t lives;               /* records of greenlets */
    PyObject *left;             /* list: what goes on when the engine has stopped; or NULL */
    struct stk_green *detached; /* the first */
    struct stk_green *idle;     /* likewise */
    size_t nidle, idle_max;
    Py_ssize_t refs;  /* on an idle greenlet; 0: not known yet */
    unsigned retired; /* greenlets that could not be used again, in a row */
    bool pooled;      /* false: each request gets a greenlet of its own */
};

/* Switches to a greenlet and comes back when something switches to this one. */
static inline PyObject *stk_green_switch(const struct stk_greens *a, PyObject *greenlet)
{
    return a->api.switch_to(greenlet, NULL, NULL);
}

/* ---- green.c ------------------------------------------------------------------------------- */

/* The function of a greenlet: one request after the other. `capsule` has the struct stk_green. */
PyObject *stk_green_main(PyObject *capsule, PyObject *unused);
/* Takes the requests off all greenlets that wait: the engine has stopped. */
void stk_green_abandon(struct stk_greens *a);
/* Calls fn(capsule) in the hub, in its next turn. 0 or -1 with an exception. */
int stk_green_schedule(struct stk_green *g, PyMethodDef *fn);

/* ---- green_loop.c -------------------------------------------------------------------------- */

/* "GET /path": a new str, or NULL with an exception. */
PyObject *stk_green_title(const struct stk_request *req);
/* Says in the log where a request waits whose time is over. */
void stk_green_log_stack(const struct stk_green *g);

/* ---- green_pool.c -------------------------------------------------------------------------- */

/* A greenlet that is ready for a request; in the hub. NULL with an exception. */
struct stk_green *stk_green_take(struct stk_greens *a);
/* Behind a request, in the hub, whose caller holds the capsule: one that somebody holds ends. */
void stk_green_check(struct stk_green *g);
/* Prepares the calling greenlet for requests, and waits for the first one. False: it is to end. */
bool stk_green_begin(struct stk_green *g);
/* Waits for the next request. False: the greenlet is not to be used again, and is to end. */
bool stk_green_rest(struct stk_green *g);
/* The greenlet ends. */
void stk_green_end(struct stk_green *g);
/* Lets the idle ones end; in the hub. */
void stk_green_drain(struct stk_greens *a);
