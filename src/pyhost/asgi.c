/*
 * The call of an ASGI application: scope, receive and send, and the first step of its coroutine,
 * all on the stack of the server's turn. Most requests end here; the others are detached and go on
 * from the event loop (asgi_exchange.c).
 *
 * Which interface an application has is seen from its code: a coroutine function, or an object
 * whose __call__ is one, is ASGI 3; otherwise the number of arguments decides, two being WSGI's.
 */
#include "pyhost/asgi_priv.h"

#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "pyhost/cancel.h"
#include "pyhost/errors.h"
#include "pyhost/wsgi.h"

/* ---- detection ----------------------------------------------------------------------------- */

enum {
    DETECT_DEPTH = 16, /* of wrappers around wrappers */
    DETECT_CO_VARARGS = 0x04,
    DETECT_CO_COROUTINE = 0x80 | 0x100, /* CO_COROUTINE, CO_ITERABLE_COROUTINE */
};

/* What is seen of a function. */
struct detect_code {
    long flags;    /* co_flags; -1: there is no code to see */
    long required; /* positional arguments that have to be given */
    long most;     /* those that can be given */
};

static PyObject *detect_attr(PyObject *obj, const char *name)
{
    PyObject *value = PyObject_GetAttrString(obj, name);

    if (!value)
        PyErr_Clear();
    return value;
}

static long detect_long(PyObject *obj, const char *name)
{
    PyObject *value = detect_attr(obj, name);
    long n = value && PyLong_Check(value) ? PyLong_AsLong(value) : -1;

    Py_XDECREF(value);
    if (PyErr_Occurred())
        PyErr_Clear();
    return n;
}

/* Of a function or method, `bound` arguments of which are given already. */
static struct detect_code detect_function(PyObject *function, long bound)
{
    struct detect_code found = {.flags = -1};
    PyObject *code = detect_attr(function, "__code__");
    PyObject *defaults = detect_attr(function, "__defaults__");

    if (code) {
        found.flags = detect_long(code, "co_flags");
        found.most = detect_long(code, "co_argcount") - bound;
        found.required = found.most;
        if (defaults && PyTuple_Check(defaults))
            found.required -= PyTuple_GET_SIZE(defaults);
    }
    Py_XDECREF(defaults);
    Py_XDECREF(code);
    return found;
}

/* Follows functools.partial and functools.wraps: what is called in the end, a new reference. */
static PyObject *detect_unwrap(PyObject *app, long *ret_bound)
{
    PyObject *at = stk_py_newref(app);

    for (int depth = 0; depth < DETECT_DEPTH; depth++) {
        bool partial = strcmp(Py_TYPE(at)->tp_name, "functools.partial") == 0;
        PyObject *args = partial ? detect_attr(at, "args") : NULL;
        PyObject *inner = detect_attr(at, partial ? "func" : "__wrapped__");

        if (args && PyTuple_Check(args))
            *ret_bound += PyTuple_GET_SIZE(args);
        Py_XDECREF(args);
        if (!inner || !PyCallable_Check(inner) ||
            (!partial && detect_function(at, 0).flags >= 0 &&
             (detect_function(at, 0).flags & DETECT_CO_COROUTINE))) {
            Py_XDECREF(inner);
            break;
        }
        Py_SETREF(at, inner);
    }
    return at;
}

/* What the object does when it is called. */
static struct detect_code detect_callable(PyObject *at, long bound)
{
    struct detect_code found;
    PyObject *call;

    if (PyMethod_Check(at))
        return detect_function(PyMethod_GET_FUNCTION(at), bound + 1);
    found = detect_function(at, bound);
    if (found.flags >= 0)
        return found;
    call = detect_attr(at, "__call__");
    if (call && PyMethod_Check(call))
        found = detect_function(PyMethod_GET_FUNCTION(call), bound + 1);
    Py_XDECREF(call);
    return found;
}

enum stk_interface stk_asgi_detect(PyObject *app, bool *ret_sure)
{
    enum stk_interface interface = STK_INTERFACE_WSGI;
    struct detect_code code = {.flags = -1};
    long bound = 0;
    PyObject *at = detect_unwrap(app, &bound);
    PyObject *call;

    *ret_sure = true;
    if (PyType_Check(at)) {
        /* A class: app(scope)(receive, send), unless its instances are what WSGI iterates over. */
        call = detect_attr(at, "__call__");
        code = call ? detect_function(call, 1) : code;
        if (code.flags >= 0 && (code.flags & DETECT_CO_COROUTINE))
            interface = STK_INTERFACE_ASGI2;
        Py_XDECREF(call);
    } else {
        code = detect_callable(at, bound);
        if (code.flags >= 0 && (code.flags & DETECT_CO_COROUTINE))
            interface = STK_INTERFACE_ASGI;
        else if (code.flags < 0 || (code.flags & DETECT_CO_VARARGS))
            *ret_sure = false;
        else if (code.required == 3 || (code.required < 3 && code.most == 3 && code.required != 2))
            interface = STK_INTERFACE_ASGI;
        else if (code.most == 1)
            interface = STK_INTERFACE_ASGI2;
    }
    Py_DECREF(at);
    return interface;
}

bool stk_asgi_is_async(void *host, unsigned app)
{
    struct stk_pyhost *h = host;

    return app < h->napps && (h->apps[app].interface == STK_INTERFACE_ASGI ||
                              h->apps[app].interface == STK_INTERFACE_ASGI2);
}

bool stk_asgi_has_loop(void *host)
{
    struct stk_pyhost *h = host;

    for (unsigned i = 0; i < h->napps; i++)
        if (stk_asgi_is_async(h, i))
            return true;
    return false;
}

/* ---- the call ------------------------------------------------------------------------------ */

/* What the application returned as a coroutine: takes the reference. NULL with an exception. */
static STK_COLD PyObject *asgi_adapt(struct stk_asgi *a, PyObject *result)
{
    const PyAsyncMethods *async = Py_TYPE(result)->tp_as_async;
    PyObject *coro = NULL;

    if (PyGen_CheckExact(result) || (async && async->am_await))
        coro = PyObject_CallMethod(a->helpers, "run_awaitable", "O", result);
    else
        PyErr_Format(PyExc_TypeError,
                     "the ASGI application returned an object of type %s, which cannot be awaited; "
                     "if it is a WSGI application, say interface = wsgi",
                     Py_TYPE(result)->tp_name);
    Py_DECREF(result);
    return coro;
}

/* Calls the application and runs its first step. 0, or -1 with an exception. */
static inline int asgi_run(struct stk_asgi *a, StkSend *send)
{
    StkExchange *ex = send->exchange;
    PyObject *scope = stk_scope_build(a->scopes, ex->call.req, &ex->loan);
    PyObject *args[4] = {NULL, scope, (PyObject *)ex, (PyObject *)send};
    PyObject *coro;
    int r;

    if (stk_unlikely(!scope))
        return -1;
    if (stk_unlikely(ex->websocket) && stk_ws_scope(a, scope, ex->call.req) < 0) {
        Py_DECREF(scope);
        return -1;
    }
    coro = PyObject_Vectorcall(ex->call.app->callable, args + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                               NULL);
    Py_DECREF(scope);
    if (stk_unlikely(coro && !PyCoro_CheckExact(coro)))
        coro = asgi_adapt(a, coro);
    if (stk_unlikely(!coro))
        return -1;
    r = stk_runner_start(a, coro, ex);
    Py_DECREF(coro);
    return r;
}

STK_HOT enum stk_host_call stk_asgi_call(struct stk_pyhost *host, struct stk_pythread *thread,
                                         struct stk_request *req)
{
    struct stk_asgi *a = host->asgi;
    StkSend *send;
    StkExchange *ex;
    bool pending;

    STK_ASSERT(a != NULL);
    send = stk_exchange_acquire(a, req);
    if (stk_unlikely(!send)) {
        PyErr_Clear();
        stk_log_error("a request was failed: there is no memory");
        req->ops->fail(req);
        return STK_HOST_DONE;
    }
    ex = send->exchange;
    stk_cancel_begin(thread, &ex->call);
    /* A WebSocket lasts longer than its call. */
    if (stk_unlikely(ex->websocket && stk_exchange_detach(ex) < 0))
        ex->asgi = NULL;
    else if (stk_unlikely(asgi_run(a, send) < 0))
        stk_exchange_end(ex);
    if (stk_unlikely(stk_host_is_stray(host)))
        stk_wsgi_end_stray();
    pending = ex->detached;
    stk_cancel_end(thread);
    stk_exchange_release(a, send);
    return pending ? STK_HOST_PENDING : STK_HOST_DONE;
}
