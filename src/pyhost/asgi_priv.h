/*
 * What the files asgi*.c share. An *exchange* is one request of an ASGI application: it is the
 * object `receive`, has its `send`, and is what a detached request's host_data points to. A
 * *runner* is what drives an application's coroutine in an asyncio.Task.
 */
#pragma once

#include "pyhost/asgi.h"
#include "pyhost/asgi_task.h"

struct stk_scopes;
struct stk_scope_place;

enum { STK_ASGI_SPARE = 64 };

/* Where a response stands. */
enum stk_asgi_state {
    STK_ASGI_NEW,
    STK_ASGI_STARTED,  /* http.response.start has been sent */
    STK_ASGI_BODY,     /* a part of the body as well */
    STK_ASGI_TRAILERS, /* all of the body; trailers have been announced */
    STK_ASGI_ENDED,
};

/* Where a scope is from. */
struct stk_scope_loan {
    struct stk_scope_place *place; /* NULL: there is none, or it is over */
    bool whole;                    /* the dict itself is lent, and not only those in it */
};

/* receive(), with all that is known of the request. */
typedef struct stk_exchange {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    struct stk_asgi *asgi;            /* NULL when the exchange is over */
    struct stk_call call;             /* call.req: NULL when the request is over */
    struct stk_scope_loan loan;       /* of its scope */
    struct stk_wait_object *waits;    /* who waits in receive() or send() */
    struct stk_wait_object *spare;    /* a wait object that nobody else holds, or NULL */
    struct stk_exchange *prev, *next; /* of the detached ones */
    PyObject *runner; /* borrowed: drives the coroutine once it has waited, or NULL */
    PyObject *held;   /* the runner, held while detached: nothing else may, but what it waits for */
    char *title;      /* "GET /path", once the request may be over before the coroutine; or NULL */
    int64_t consumed; /* bytes of the body that receive() has returned */
    uint8_t state;    /* enum stk_asgi_state */
    bool detached;    /* call.req outlives the call */
    bool in_call;     /* stk_asgi_call is on the stack */
    bool body_done;   /* the last part of the request's body has been received */
    bool left;        /* the client has ended its side */
    bool trailers;    /* http.response.start has announced trailers, which have not come */
    bool trailing;    /* and they are sent: the request takes them */
    bool websocket;   /* asgi_ws.c, as the next three */
    bool asks;        /* the server knows that the next message is wanted, and has none */
    uint8_t ws_state;
    PyObject *ready;   /* what receive() returns next, or NULL */
    PyObject *trailer; /* the list of those fields so far, or NULL */
} StkExchange;

/* send(message). */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    StkExchange *exchange;
} StkSend;

enum stk_wait_kind { STK_WAIT_RECEIVE, STK_WAIT_SEND };

/* What receive() and a congested send() return: waits by futures of the event loop. */
typedef struct stk_wait_object {
    PyObject_HEAD
    StkExchange *exchange; /* NULL: spare */
    PyObject *future;      /* what the task waits for, or NULL */
    struct stk_wait_object *next;
    uint8_t kind;
    bool linked;
    bool direct; /* it is the exchange's runner that waits, and no future */
} StkWait;

/* The ASGI side of a host, from startup to shutdown. */
struct stk_asgi {
    struct stk_pyhost *host;
    struct stk_state *st;
    PyThreadState *ts;                    /* of the main thread */
    struct stk_pythread *thread;          /* while the engine is driven, as the next */
    const struct stk_host_engine *engine; /* NULL: the event loop runs alone */
    PyObject *helpers;                    /* the module stoker._asgi */
    PyObject *loop;
    PyObject *selector; /* ours, where the event loop is asyncio's; or NULL */
    PyObject *select;   /* of the class that ours is derived from */
    int selector_fd;
    PyObject *create_future;
    PyObject *done; /* an awaitable that has finished */
    bool stopped;   /* the engine has */

    /* asgi_runner.c */
    PyObject *task_type;
    PyObject *enter_task, *leave_task;
    PyObject *entered;       /* the runner whose task is the current one, borrowed; or NULL */
    PyObject *entered_task;  /* that one */
    PyObject *current_tasks; /* asyncio's dict of them, by loop; NULL: it is somewhere else */
    unsigned enter_refs;     /* that a task has more while it is the current one */
    struct stk_tasks tasks;
    PyObject *unswept;   /* a list of runners whose contexts are to be restored */
    PyObject *resumable; /* likewise, of those that can go on; and the last one */
    PyObject *resumable_last;
    PyObject *settle;                      /* stk_runner_settle for the event loop */
    bool turning;                          /* the engine is: stk_runner_settle follows */
    StkExchange *driven;                   /* whose coroutine a runner is stepping; or NULL */
    PyObject *driven_task;                 /* of that runner */
    PyObject *current_task;                /* of asyncio */
    PyObject *context;                     /* every request begins in a copy of it */
    PyObject *name;                        /* of pooled tasks */
    PyObject *names_pooled, *names_single; /* of the arguments of Task */
    PyObject **pool;
    size_t npool, pool_size;
    unsigned retired;  /* runners that could not be used again, in a row */
    bool pooled;       /* false: each request gets a task of its own */
    unsigned weakrefs; /* that a task has for itself */
    size_t running;    /* coroutines that have waited and not ended */

    /* strs that messages of these types had last, or NULL */
    PyObject *type_start, *type_body, *type_ws_send;
    StkSend *spare[STK_ASGI_SPARE];
    size_t nspare;
    StkExchange *detached; /* the first */
    struct stk_scopes *scopes;
};

PyType_Spec *stk_asgi_receive_spec(void);
PyType_Spec *stk_asgi_send_spec(void);
PyType_Spec *stk_asgi_wait_spec(void);
PyType_Spec *stk_asgi_done_spec(void);
PyType_Spec *stk_asgi_runner_spec(void);

/* ---- asgi_exchange.c ----------------------------------------------------------------------- */

/* The send object of a new exchange (its ->exchange is the receive). NULL with an exception. */
StkSend *stk_exchange_acquire(struct stk_asgi *a, struct stk_request *req);
/* After stk_exchange_end and the call: keeps what the application has not kept. Takes the
 * reference. */
void stk_exchange_release(struct stk_asgi *a, StkSend *send);
/* Makes the request outlive its call. 0, or -1: it is over (without an exception). */
int stk_exchange_detach(StkExchange *ex);
/* The coroutine waits, in its first step or later on. */
void stk_exchange_suspended(StkExchange *ex, PyObject *runner);
/* The coroutine has ended; with an exception pending it has failed. */
void stk_exchange_end(StkExchange *ex);
/* The response has ended: so has a detached request. */
void stk_exchange_answered(StkExchange *ex);
/* Ends a request whose application goes on: what waits goes on. */
void stk_exchange_drop(StkExchange *ex);
/* Lets those waits go on that are of a kind, or of both (-1). */
void stk_exchange_wake(StkExchange *ex, int kind);
/* An awaitable for receive(), or for a send() that is to wait. */
PyObject *stk_exchange_wait(StkExchange *ex, enum stk_wait_kind kind);
/* Whether nobody reads any more what is sent. */
static inline bool stk_exchange_is_gone(const StkExchange *ex)
{
    return ex->call.gone;
}

/* ---- asgi_stacks.c ------------------------------------------------------------------------- */

/* Logs where the coroutine of a request waits. */
void stk_asgi_log_chain(const StkExchange *ex);

/* ---- asgi_receive.c ------------------------------------------------------------------------ */

/* The next message for receive(): 1 and *ret_message, 0: there is none yet, -1 with an exception.
 */
int stk_receive_next(StkExchange *ex, PyObject **ret_message);

/* ---- asgi_send.c --------------------------------------------------------------------------- */

PyObject *stk_send_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf,
                              PyObject *kwnames);
/* Raises that the client has left. */
void stk_send_raise_gone(void);

/* A member of a message, borrowed; NULL with or without an exception. */
static inline PyObject *stk_send_get(const struct stk_state *st, PyObject *message,
                                     enum stk_state_name name)
{
    return PyDict_GetItemWithError(message, stk_state_name(st, name));
}
/* A boolean member: its value, `otherwise` where it is absent, -1 with an exception. */
static inline int stk_send_flag(const struct stk_state *st, PyObject *message,
                                enum stk_state_name name, int otherwise)
{
    PyObject *value = stk_send_get(st, message, name);

    if (stk_likely(value == Py_False))
        return 0;
    if (value == Py_True)
        return 1;
    if (!value)
        return PyErr_Occurred() ? -1 : otherwise;
    return PyObject_IsTrue(value);
}
/* What a message of send() has, borrowed from it; NULL: it is not there. */
struct stk_message {
    PyObject *type, *status, *headers, *trailers, *body, *more_body;
};

/* What a service returned that is not 0. 0, or -1 with an exception. */
int stk_send_failed(StkExchange *ex, int r);
/* Whether code of the application's that ran while a message was read (an iterator, a __bool__) has
 * ended the response; with an exception then. */
bool stk_send_is_over(const StkExchange *ex);
/* That the message `type` is out of order. Returns -1. */
int stk_send_raise_order(const StkExchange *ex, PyObject *type);

/* Reads a dict. 0, or -1 with an exception. */
int stk_message_read(const struct stk_state *st, PyObject *dict, struct stk_message *ret_message);
/* http.response.start, http.response.body: 0, or -1 with an exception. */
int stk_send_start(StkExchange *ex, const struct stk_message *message);
int stk_send_body(StkExchange *ex, const struct stk_message *message);
/* A part of an open file as body; `end`: the last one. Likewise. */
int stk_send_file(StkExchange *ex, int fd, int64_t off, uint64_t len, bool end);

/* ---- asgi_send_more.c ---------------------------------------------------------------------- */

/* http.response.early_hint, .trailers, .pathsend, .zerocopysend; as stk_send_body. */
int stk_send_early_hint(StkExchange *ex, PyObject *message);
int stk_send_trailers(StkExchange *ex, PyObject *message, PyObject *type);
int stk_send_path(StkExchange *ex, PyObject *message);
int stk_send_zerocopy(StkExchange *ex, PyObject *message);

/* ---- asgi_ws.c ----------------------------------------------------------------------------- */

/* Makes the scope of a request that of its WebSocket. 0, or -1 with an exception. */
int stk_ws_scope(struct stk_asgi *a, PyObject *scope, const struct stk_request *req);
/* As stk_receive_next. */
int stk_ws_receive_next(StkExchange *ex, PyObject **ret_message);
/* A websocket.send like the last one: *ret_result is as of the next. False: it is something else.
 */
bool stk_ws_try_send(StkExchange *ex, PyObject *message, int *ret_result);
/* A message of the type `type`. 0, or -1 with an exception. */
int stk_ws_send_message(StkExchange *ex, PyObject *message, PyObject *type);
/* Input is there, or has been refused: takes a message for the receive() that waits. */
void stk_ws_woken(StkExchange *ex);
/* The application has ended. */
void stk_ws_end(StkExchange *ex, bool failed);

/* ---- asgi_runner.c ------------------------------------------------------------------------- */

/* 0 or -1 with an exception. */
int stk_runner_init(struct stk_asgi *a);
void stk_runner_deinit(struct stk_asgi *a);
/*
 * Runs the first step of a coroutine for an exchange, or has it run (then the exchange is
 * suspended). The coroutine's end is told by stk_exchange_end. 0, or -1 with an exception: it has
 * not begun.
 */
int stk_runner_start(struct stk_asgi *a, PyObject *coro, StkExchange *ex);
/* Cancels the task of a runner. */
void stk_runner_cancel(PyObject *runner, const char *why);
/* Lets the tasks that wait for requests end. */
void stk_runner_drain(struct stk_asgi *a);
/* Whether it is the runner of an exchange itself that steps through an awaitable, and can go on
 * without its task. */
bool stk_runner_steps(StkExchange *ex);
/* Lets a coroutine go on that waits without a future: after the turn, or soon. */
void stk_runner_resume(PyObject *runner);
/*
 * The end of a turn: lets coroutines go on, and leaves nothing behind; what runs next is the event
 * loop's. Whether that may have something to do now.
 */
bool stk_runner_settle(struct stk_asgi *a);
/* stk_runner_settle as soon as the event loop comes to it. */
void stk_runner_settle_soon(struct stk_asgi *a);

/* ---- asgi_scope.c -------------------------------------------------------------------------- */

struct stk_scopes *stk_scopes_new(struct stk_pyhost *host, const struct stk_endpoint *endpoints,
                                  size_t nendpoints);
void stk_scopes_free(struct stk_scopes *scopes);
/* Whether the client takes trailers (TE: trailers), and there is room for them. */
bool stk_scope_takes_trailers(const struct stk_head *head);
/* `server` of a scope: (host, port), or (path, None) of a unix socket. A new reference or NULL. */
PyObject *stk_scope_server(const struct stk_endpoint *ep);
/* What a front end or a PROXY header tells in its place; NULL with no exception: nothing. */
PyObject *stk_scope_told_server(const struct stk_request *req);
/* Sets the extension tls in a dict of extensions where the client speaks TLS with this server. 0,
 * or -1 with an exception. */
int stk_scope_add_tls(struct stk_scopes *scopes, PyObject *extensions,
                      const struct stk_request *req);
/*
 * The scope of a request: a new reference to a dict that nobody else has, or NULL with an
 * exception. The loan is ended once the coroutine has.
 */
PyObject *stk_scope_build(struct stk_scopes *scopes, const struct stk_request *req,
                          struct stk_scope_loan *ret_loan);
void stk_scope_release(struct stk_scopes *scopes, const struct stk_scope_loan *loan);
