/*
 * A request under gevent.
 *
 * The server's turn runs in the hub's greenlet. A call switches from there to a greenlet of its
 * own, in which the application runs as it does without gevent. Most requests end before that
 * greenlet switches back: then all has happened on the stack, as in a plain call, for two switches
 * more. When the hub gets control back earlier, because the application waits for something, the
 * request is detached, the call returns, and gevent goes on with the greenlet when it has what it
 * waits for.
 *
 * What an application waits for on its own connection (bytes of the body, a client that takes too
 * little) lets it wait in the same way: by one of gevent's waiters, which is switched to from the
 * hub once the server has woken the request.
 *
 * An exception that ends a request from outside (request-timeout, cancel-on-disconnect) is thrown
 * by the hub into just its greenlet. During the first step, in which the request may block the
 * thread, it comes as everywhere (cancel.c).
 */
#include <errno.h>

#include "base/assert.h"
#include "base/log.h"
#include "pyhost/cancel.h"
#include "pyhost/green_priv.h"
#include "pyhost/report.h"
#include "pyhost/wsgi.h"

/* ---- a request that is no more ------------------------------------------------------------- */

static int dead_body_peek(struct stk_request *req, struct stk_body_view *ret_view)
{
    return -ECONNRESET;
}

static void dead_body_skip(struct stk_request *req, size_t len)
{
}

static ssize_t dead_body_read(struct stk_request *req, char *dst, size_t len)
{
    return -ECONNRESET;
}

static int dead_start(struct stk_request *req, unsigned status, stk_span reason)
{
    return 0;
}

static int dead_header(struct stk_request *req, stk_span name, stk_span value)
{
    return 0;
}

static bool dead_head_save(const struct stk_request *req, struct stk_response_head *ret_head)
{
    return false;
}

static int dead_head_load(struct stk_request *req, const struct stk_response_head *head)
{
    return 0;
}

static int dead_write(struct stk_request *req, const char *data, size_t len, unsigned flags)
{
    return -EPIPE;
}

static int dead_sendfile(struct stk_request *req, int fd, int64_t off, uint64_t len, unsigned flags)
{
    return -EPIPE;
}

static bool dead_is_committed(const struct stk_request *req)
{
    return true;
}

static void dead_fail(struct stk_request *req)
{
}

static bool dead_is_disconnected(struct stk_request *req)
{
    return true;
}

static void dead_wait_for(struct stk_request *req, struct stk_wait *ret_wait)
{
    *ret_wait = (struct stk_wait){.fd = -1};
}

static int dead_set_timeout(struct stk_request *req, stk_msec timeout)
{
    return 0;
}

static int dead_set_logvar(struct stk_request *req, stk_span name, stk_span value)
{
    return 0;
}

static size_t dead_get_logvar(const struct stk_request *req, stk_span name, char *dst, size_t size)
{
    return 0;
}

static void dead_log_this(struct stk_request *req)
{
}

static bool dead_is_congested(struct stk_request *req)
{
    return false;
}

/* What a greenlet has whose request is over before it is: there was no memory to let it wait, or
 * the server has stopped. */
static struct stk_request *green_dead(void)
{
    static const struct stk_request_ops ops = {
        .body_peek = dead_body_peek,
        .body_skip = dead_body_skip,
        .body_read = dead_body_read,
        .start = dead_start,
        .header = dead_header,
        .head_save = dead_head_save,
        .head_load = dead_head_load,
        .write = dead_write,
        .sendfile = dead_sendfile,
        .is_committed = dead_is_committed,
        .fail = dead_fail,
        .is_disconnected = dead_is_disconnected,
        .wait_for = dead_wait_for,
        .set_timeout = dead_set_timeout,
        .set_logvar = dead_set_logvar,
        .get_logvar = dead_get_logvar,
        .log_this = dead_log_this,
        .is_congested = dead_is_congested,
    };
    static const struct stk_head head = {.base = ""};
    static const struct stk_request request = {.ops = &ops, .head = &head};
    union {
        const struct stk_request *c;
        struct stk_request *v;
    } u = {.c = &request}; /* nobody writes to it */

    return u.v;
}

/* ---- the hub ------------------------------------------------------------------------------- */

int stk_green_schedule(struct stk_green *g, PyMethodDef *fn)
{
    PyObject *function = PyCFunction_New(fn, g->capsule);
    PyObject *done =
        function ? PyObject_CallFunctionObjArgs(g->all->run_callback, function, NULL) : NULL;

    Py_XDECREF(function);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* Goes on with a greenlet, in the hub. */
static PyObject *green_go_on(struct stk_green *g, PyObject *raise)
{
    PyObject *capsule = stk_py_newref(g->capsule);
    PyObject *r = raise ? g->all->api.raise(g->greenlet, (PyObject *)Py_TYPE(raise), raise, NULL)
                        : stk_green_switch(g->all, g->greenlet);

    Py_DECREF(capsule);
    if (!r)
        return NULL;
    Py_DECREF(r);
    Py_RETURN_NONE;
}

static PyObject *green_on_yield(PyObject *capsule, PyObject *unused)
{
    struct stk_green *g = PyCapsule_GetPointer(capsule, "green");

    if (!g)
        return NULL;
    if (!g->yields || !g->greenlet)
        Py_RETURN_NONE;
    g->yields = false;
    return green_go_on(g, NULL);
}

/* Lets the hub go on, and comes back in its next turn, whatever is thrown meanwhile. */
static void green_yield(struct stk_green *g)
{
    static PyMethodDef methods[] = {{"yield", green_on_yield, METH_NOARGS, NULL}};

    g->yields = true;
    if (stk_green_schedule(g, methods) < 0) {
        stk_report_exception(STK_LOG_ERROR, "a greenlet cannot wait for its turn");
        g->yields = false;
    }
    while (g->yields) {
        PyObject *r = stk_green_switch(g->all, g->all->hub);

        if (!r)
            PyErr_Clear();
        Py_XDECREF(r);
    }
}

/* ---- detaching ----------------------------------------------------------------------------- */

static void green_link(struct stk_green *g)
{
    struct stk_greens *a = g->all;

    g->prev = NULL;
    g->next = a->detached;
    if (a->detached)
        a->detached->prev = g;
    a->detached = g;
}

static void green_unlink(struct stk_green *g)
{
    if (g->prev)
        g->prev->next = g->next;
    else
        g->all->detached = g->next;
    if (g->next)
        g->next->prev = g->prev;
    g->prev = g->next = NULL;
}

static PyObject *green_on_cancel(PyObject *capsule, PyObject *unused);

/* Has the hub raise the exception in the greenlet. */
static void green_cancel(struct stk_green *g, unsigned why)
{
    static PyMethodDef methods[] = {{"cancel", green_on_cancel, METH_NOARGS, NULL}};

    g->cancel = why;
    if (stk_green_schedule(g, methods) < 0)
        stk_report_exception(STK_LOG_ERROR, "a request cannot be cancelled");
}

/* Makes the request outlive its call. 0; -1: it is over, and its greenlet is cancelled. */
static STK_COLD int green_detach(struct stk_green *g)
{
    struct stk_request *req = g->call.req->ops->detach(g->call.req);

    if (!req) {
        stk_log_error("there is no memory to let a request wait; it was failed");
        g->call.req = green_dead();
        g->call.gone = true;
        green_cancel(g, STK_HOST_CANCEL_DISCONNECTED);
        return -1;
    }
    req->host_data = g;
    g->call.req = req;
    g->detached = true;
    green_link(g);
    return 0;
}

/* Ends a detached request. */
static void green_finish(struct stk_green *g)
{
    struct stk_request *req = g->call.req;

    green_unlink(g);
    g->detached = false;
    g->call.req = green_dead();
    req->host_data = NULL;
    req->ops->finish(req);
}

void stk_green_abandon(struct stk_greens *a)
{
    a->left = PyList_New(0);
    while (a->detached) {
        struct stk_green *g = a->detached;

        if (a->left && PyList_Append(a->left, g->greenlet) < 0)
            PyErr_Clear();
        g->call.gone = true;
        g->call.req->ops->fail(g->call.req);
        green_finish(g);
    }
}

/* ---- waiting ------------------------------------------------------------------------------- */

/* Has those who wait in a service look again, by the hub. */
static void green_wake_waits(struct stk_green *g)
{
    PyObject *waits = stk_steal(&g->waits);

    for (Py_ssize_t i = 0; waits && i < PyList_GET_SIZE(waits); i++) {
        PyObject *go = PyObject_GetAttrString(PyList_GET_ITEM(waits, i), "switch");
        PyObject *done =
            go ? PyObject_CallFunctionObjArgs(g->all->run_callback, go, Py_None, NULL) : NULL;

        if (!done)
            stk_report_exception(STK_LOG_ERROR, "a greenlet cannot be woken");
        Py_XDECREF(done);
        Py_XDECREF(go);
    }
    Py_XDECREF(waits);
}

int stk_green_wait(struct stk_call *call, unsigned what)
{
    struct stk_green *g = call->green;
    PyObject *waiter;
    PyObject *r = NULL;

    if (!g->detached) { /* then the service is to be asked again */
        (void)green_detach(g);
        return 0;
    }
    waiter = PyObject_CallNoArgs(g->all->waiter_type);
    if (!g->waits)
        g->waits = PyList_New(0);
    if (waiter && g->waits && PyList_Append(g->waits, waiter) == 0) {
        call->req->ops->want(call->req, what);
        g->waiting++;
        r = PyObject_CallMethod(waiter, "get", NULL);
        g->waiting--;
    }
    Py_XDECREF(waiter);
    if (r && call->over) {
        PyErr_SetString(PyExc_RuntimeError, "the request has ended");
        Py_CLEAR(r);
    }
    Py_XDECREF(r);
    return r ? 0 : -1;
}

int stk_green_relax(struct stk_call *call)
{
    while (stk_unlikely(!call->gone && call->req->ops->is_congested(call->req))) {
        if (stk_green_wait(call, STK_WAKE_OUTPUT) < 0)
            return -1;
    }
    return 0;
}

/* ---- waking -------------------------------------------------------------------------------- */

static PyObject *green_on_cancel(PyObject *capsule, PyObject *unused)
{
    struct stk_green *g = PyCapsule_GetPointer(capsule, "green");
    PyObject *exc;
    PyObject *r;

    if (!g)
        return NULL;
    if (g->cancel == 0 || !g->busy || g->call.over || !g->greenlet)
        Py_RETURN_NONE;
    exc = stk_cancel_new(g->all->host, g->cancel == STK_HOST_CANCEL_DISCONNECTED);
    if (g->cancel == STK_HOST_CANCEL_TIMEOUT)
        stk_green_log_stack(g);
    g->cancel = 0;
    if (!exc)
        return NULL;
    g->call.cancelled = true;
    r = green_go_on(g, exc);
    Py_DECREF(exc);
    return r;
}

void stk_green_wake(struct stk_pyhost *host, struct stk_request *req, unsigned what)
{
    struct stk_green *g = req->host_data;

    if (!g || g->call.req != req)
        return;
    if (what & STK_WAKE_GONE && req->ops->is_disconnected(req))
        g->call.gone = true;
    if (what & STK_WAKE_TIMEOUT)
        green_cancel(g, STK_HOST_CANCEL_TIMEOUT);
    else if (what & STK_WAKE_CANCEL)
        green_cancel(g, STK_HOST_CANCEL_DISCONNECTED);
    if (what & (STK_WAKE_INPUT | STK_WAKE_OUTPUT | STK_WAKE_GONE))
        green_wake_waits(g);
}

/* ---- the request --------------------------------------------------------------------------- */

/* The application has returned. */
static void green_end_request(struct stk_green *g)
{
    g->call.over = true;
    g->cancel = 0;
    /* Other greenlets of the application, which read its body or write: they are told. */
    while (stk_unlikely(g->waiting > 0)) {
        green_wake_waits(g);
        green_yield(g);
    }
    if (stk_unlikely(g->detached && g->in_call))
        green_yield(g); /* the call has to return first */
    if (g->detached)
        green_finish(g);
    g->done = true;
}

PyObject *stk_green_main(PyObject *capsule, PyObject *unused)
{
    struct stk_green *g = PyCapsule_GetPointer(capsule, "green");

    if (!g)
        return NULL;
    for (bool more = stk_green_begin(g); more; more = stk_green_rest(g)) {
        stk_wsgi_answer(&g->call, &g->all->keeper);
        green_end_request(g);
    }
    stk_green_end(g);
    Py_RETURN_NONE;
}

/* What the hub does once it has control again, with the request not at its end. */
static STK_COLD enum stk_host_call green_suspended(struct stk_green *g)
{
    if (g->detached)
        return STK_HOST_PENDING;
    if (g->call.req->host_data != g) /* it has been failed */
        return STK_HOST_DONE;
    return green_detach(g) < 0 ? STK_HOST_DONE : STK_HOST_PENDING;
}

STK_HOT enum stk_host_call stk_green_call(struct stk_pyhost *host, struct stk_pythread *thread,
                                          struct stk_request *req)
{
    struct stk_greens *a = host->greens;
    struct stk_green *g = stk_green_take(a);
    enum stk_host_call how = STK_HOST_DONE;
    PyObject *capsule;
    PyObject *r;

    if (stk_unlikely(!g)) {
        stk_report_exception(STK_LOG_ERROR, "a request was failed: there is no greenlet for it");
        req->ops->fail(req);
        return STK_HOST_DONE;
    }
    capsule = stk_py_newref(g->capsule);
    g->call = (struct stk_call){.host = host,
                                .app = &host->apps[req->app],
                                .ts = PyThreadState_Get(),
                                .req = req,
                                .green = g,
                                .length = -1};
    req->host_data = g;
    g->busy = g->in_call = true;
    g->done = false;
    stk_cancel_begin(thread, &g->call);
    r = stk_green_switch(a, g->greenlet);
    if (stk_unlikely(stk_host_is_stray(host)))
        stk_wsgi_end_stray();
    if (stk_unlikely(!r)) /* thrown into the hub */
        stk_report_exception(STK_LOG_ERROR, "unhandled exception in gevent's hub");
    Py_XDECREF(r);
    stk_cancel_end(thread);
    g->in_call = false;
    if (stk_likely(g->done))
        stk_green_check(g);
    else
        how = green_suspended(g);
    Py_DECREF(capsule);
    return how;
}

bool stk_green_is_exit(const struct stk_call *call, PyObject *exc)
{
    return PyErr_GivenExceptionMatches(exc, call->green->all->api.exit);
}

struct stk_call *stk_green_current(const struct stk_pyhost *host)
{
    const struct stk_greens *a = host->greens;
    PyObject *current = a->api.current();
    struct stk_pythread *t = host->nthreads > 0 ? host->threads[0] : NULL;
    struct stk_green *g = t && t->call ? t->call->green : NULL;

    if (!g || g->greenlet != current)
        for (g = a->detached; g && g->greenlet != current; g = g->next) {
        }
    Py_XDECREF(current);
    return g && !g->call.over ? &g->call : NULL;
}
