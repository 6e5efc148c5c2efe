/*
 * The host object (one application in one process), its threads, and the call in progress: what the
 * files of this folder share with each other.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "app/host.h"
#include "pyhost/state.h"

struct stk_asgi;
struct stk_caches;
struct stk_cancel;
struct stk_environ;
struct stk_green;
struct stk_greens;
struct stk_head_cache;
struct stk_pythread;
struct stk_scopes;

enum { STK_PYHOST_MAGIC = 0x73746b68, STK_PYTHREAD_MAGIC = 0x73746b74 };

/* One application. */
struct stk_pyapp {
    PyObject *callable;
    struct stk_head_cache *heads; /* of its responses */
    uint8_t interface;            /* enum stk_interface */
    PyObject *lifespan;           /* of ASGI: see stoker._asgi; or NULL */
    PyObject *state;              /* the dict that scopes get copies of; or NULL */
};

struct stk_pyhost {
    uint32_t magic;
    struct stk_state *st;
    PyObject *module;       /* keeps st alive */
    struct stk_pyapp *apps; /* [napps] */
    size_t napps;           /* 0 before load */
    PyObject *empty_input;  /* wsgi.input of every request without body: always at its end */
    PyObject *errors;       /* wsgi.errors */
    PyObject *watch;        /* list: source files of an application that failed to load */
    PyObject *known;        /* set: modules that a template had imported; or NULL */
    struct stk_environ *environ;

    /* asgi*.c */
    struct stk_scopes *scopes; /* NULL: no application is asynchronous */
    struct stk_asgi *asgi;     /* from startup to shutdown */
    uint8_t loop_kind;         /* as struct stk_host_params has them */
    uint8_t lifespan;
    stk_msec task_grace;
    const struct stk_caches *caches; /* cache.c; NULL: there are none */
    struct stk_greens *greens;       /* green*.c; NULL: without gevent */

    /*
     * One byte in a page that the kernel wipes in every child of a fork (MADV_WIPEONFORK): 1 in
     * the process that the host belongs to, 0 in a process that the application forked.
     */
    volatile uint8_t *home;
    pid_t home_pid; /* decides where the kernel has no such pages: home is NULL then */

    /* stacks.c */
    int stacks_signal; /* faulthandler's handler is registered for it; 0: there are no stacks */
    int stacks_fd;     /* where that writes to */
    _Atomic bool stacks_busy;

    /* cancel.c, while the threads run */
    struct stk_pythread **threads; /* [nthreads]; NULL: not there yet */
    unsigned nthreads;
    struct stk_cancel *cancel;
    int cancel_signal; /* raises in the main thread; 0: there is none */
    PyObject *context; /* a capsule: what the functions in environ find their request by */
    struct stk_host_worker worker;    /* guest.c; of no meaning before enter */
    struct stk_guest_metric *metrics; /* likewise */
    size_t nmetrics;
    _Atomic bool outcast; /* outcast.c: the process is to be replaced */
};

/* One thread of the engine; passed as `thread`. */
struct stk_pythread {
    uint32_t magic;
    unsigned index;
    PyThreadState *ts; /* while unlocked */
    PyObject *start;   /* a start_response object nobody else holds, to be used again; or NULL */
    pthread_t id;
    unsigned long ident;   /* as the interpreter names it */
    struct stk_call *call; /* in progress, under the GIL; NULL: none */
    /* Which call is to be cancelled and why, see cancel.c; 0: none. */
    _Atomic uint64_t cancel;
    _Atomic uint64_t cancelled; /* the last such word that was carried out */
    /* Of the event loop's thread: the number of its steps of requests, odd within one, and whose.
     */
    _Atomic uint64_t step;
    _Atomic uint64_t step_call;
};

/* A request being answered; lives on the stack of stk_wsgi_call. */
struct stk_call {
    struct stk_pyhost *host;
    struct stk_pyapp *app;
    struct stk_request *req;
    PyThreadState *ts;       /* of the thread that runs the request */
    struct stk_green *green; /* that runs it under gevent; NULL: none does */
    PyObject *input;         /* wsgi.input, or NULL where the shared empty one serves */
    int64_t length;          /* Content-Length by the application; -1: none */
    int64_t sent;            /* bytes of the body, handed to the server */
    unsigned status;         /* by the application */
    bool started;            /* start_response has been called with success */
    bool wrote;              /* a block has been handed to the server */
    bool ended;              /* the last bytes have been handed over */
    bool gone;               /* the client has left, or was too slow */
    bool cut;                /* the body went beyond its Content-Length */
    bool input_failed; /* reading the body raised; what follows from that is not the app's fault */
    bool cancelled;    /* the server has raised an exception in it */
    bool over;         /* the application has returned */
    bool failed;       /* an exception has come out of it */
    bool taken;        /* the application has the connection; `input` is what goes with it */
};

/* Drops the applications. */
void stk_host_clear_apps(struct stk_pyhost *host);

/* Whether this process is a child that the application forked off the host's. */
static inline bool stk_host_is_stray(const struct stk_pyhost *host)
{
    return host->home ? *host->home == 0 : host->home_pid != getpid();
}
