/*
 * The awaitables of ASGI. What has nothing to wait for ends in its first step, without a future and
 * without the event loop: one finished object serves all of send(), and receive() looks for its
 * message when it is awaited, in an object that is used again. Where there is nothing yet, and it
 * is the request's runner that steps through the application's coroutines, the awaitable just
 * yields itself, and wake() has the runner go on (asgi_runner.c). Where it is awaited by another
 * task, a future is made, which that waits for; wake() completes it, and the awaitable looks again.
 *
 * They are registered as collections.abc.Coroutine (asgi_loop.c), so that they can be given to
 * create_task() or ensure_future(), as those of servers can whose receive is a coroutine function.
 */
#include "pyhost/asgi_priv.h"

/* Ends an iteration by StopIteration(value); takes the reference. */
static PyObject *wait_stop(PyObject *value)
{
    if (value != Py_None) {
        PyObject *exc = PyObject_CallOneArg(PyExc_StopIteration, value);

        if (exc)
            PyErr_SetObject(PyExc_StopIteration, exc);
        Py_XDECREF(exc);
    } else {
        PyErr_SetNone(PyExc_StopIteration);
    }
    Py_DECREF(value);
    return NULL;
}

static PyObject *wait_self(PyObject *op)
{
    return stk_py_newref(op);
}

/* throw(type, value, traceback) or throw(exception): raises that here. */
static void wait_raise(PyObject *args)
{
    PyObject *type = NULL;
    PyObject *value = NULL;
    PyObject *tb = NULL;

    if (!PyArg_UnpackTuple(args, "throw", 1, 3, &type, &value, &tb))
        return;
    if (PyExceptionInstance_Check(type)) {
        stk_py_raise_taken(stk_py_newref(type));
    } else if (PyExceptionClass_Check(type)) {
        if (value && PyExceptionInstance_Check(value))
            stk_py_raise_taken(stk_py_newref(value));
        else if (value && value != Py_None)
            PyErr_SetObject(type, value);
        else
            PyErr_SetNone(type);
    } else {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
    }
}

/* ---- what has finished --------------------------------------------------------------------- */

#if PY_VERSION_HEX >= 0x030A0000
static PySendResult done_am_send(PyObject *op, PyObject *arg, PyObject **ret_value)
{
    *ret_value = stk_py_newref(Py_None);
    return PYGEN_RETURN;
}
#endif

static PyObject *done_next(PyObject *op)
{
    return NULL; /* StopIteration */
}

static PyObject *done_send(PyObject *op, PyObject *arg)
{
    PyErr_SetNone(PyExc_StopIteration);
    return NULL;
}

static PyObject *done_throw(PyObject *op, PyObject *args)
{
    wait_raise(args);
    return NULL;
}

static PyObject *done_close(PyObject *op, PyObject *unused)
{
    Py_RETURN_NONE;
}

static void done_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);

    PyObject_Free(op);
    Py_DECREF(type);
}

PyType_Spec *stk_asgi_done_spec(void)
{
    static char doc[] = "What send() returns: an awaitable that has finished.";
    static PyMethodDef methods[] = {
        {"send", done_send, METH_O, NULL},
        {"throw", done_throw, METH_VARARGS, NULL},
        {"close", done_close, METH_NOARGS, NULL},
        {NULL, NULL, 0, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, done_dealloc},
        {Py_tp_iter, wait_self},
        {Py_tp_iternext, done_next},
        {Py_am_await, wait_self},
        STK_PY_AM_SEND(done_am_send){Py_tp_methods, methods},
        {Py_tp_doc, doc},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "stoker._core.done",
        .basicsize = sizeof(PyObject),
        .flags = Py_TPFLAGS_DEFAULT | STK_PY_TYPE_NO_NEW,
        .slots = slots,
    };

    return &spec;
}

/* ---- what may have to wait ----------------------------------------------------------------- */

static void wait_link(StkWait *w)
{
    if (w->linked)
        return;
    w->linked = true;
    w->next = w->exchange->waits;
    w->exchange->waits = w;
}

static void wait_unlink(StkWait *w)
{
    if (!w->linked)
        return;
    for (StkWait **at = &w->exchange->waits; *at; at = &(*at)->next) {
        if (*at == w) {
            *at = w->next;
            break;
        }
    }
    w->linked = false;
    w->next = NULL;
}

/* Gives the exchange back, and the object itself if nobody else holds it. */
static void wait_end(StkWait *w)
{
    StkExchange *ex = w->exchange;

    if (!ex)
        return;
    wait_unlink(w);
    w->exchange = NULL;
    w->direct = false;
    Py_CLEAR(w->future);
    if (!ex->spare)
        ex->spare = (StkWait *)stk_py_newref((PyObject *)w);
    Py_DECREF(ex);
}

PyObject *stk_exchange_wait(StkExchange *ex, enum stk_wait_kind kind)
{
    StkWait *w = ex->spare;

    if (stk_likely(w && Py_REFCNT(w) == 1)) {
        ex->spare = NULL;
    } else {
        PyTypeObject *type = ex->call.host ? ex->call.host->st->wait_type : NULL;

        w = type ? PyObject_GC_New(StkWait, type) : NULL;
        if (!w) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_RuntimeError, "the request is over");
            return NULL;
        }
        w->future = NULL;
        w->next = NULL;
        w->linked = w->direct = false;
        w->exchange = NULL;
        PyObject_GC_Track(w);
    }
    w->exchange = (StkExchange *)stk_py_newref((PyObject *)ex);
    w->kind = (uint8_t)kind;
    return (PyObject *)w;
}

/* Whether a send() may go on: 1, 0, or -1 with an exception. */
static int wait_check_send(const StkExchange *ex)
{
    struct stk_request *req = ex->call.req;

    if (!req || ex->state == STK_ASGI_ENDED)
        return 1;
    if (ex->call.gone) {
        stk_send_raise_gone();
        return -1;
    }
    if (!req->ops->is_congested(req))
        return 1;
    if (ex->detached) /* else it is going to be */
        req->ops->want(req, STK_WAKE_OUTPUT);
    return 0;
}

/* A new future of the event loop, marked as one that a task is to wait for. */
static PyObject *wait_new_future(StkWait *w)
{
    struct stk_asgi *a = w->exchange->asgi;
    PyObject *future;

    if (!a || !a->create_future) {
        PyErr_SetString(PyExc_RuntimeError, "the request is over");
        return NULL;
    }
    future = PyObject_CallNoArgs(a->create_future);
    if (future &&
        PyObject_SetAttr(future, stk_state_name(a->st, STK_NAME_s__asyncio_future_blocking),
                         Py_True) < 0)
        Py_CLEAR(future);
    return future;
}

/* Whether it is the coroutine of the exchange that runs, in the thread that it belongs to. */
static inline bool wait_is_stepped(const StkExchange *ex)
{
    return ex->asgi && ex->asgi->driven == ex && PyThreadState_Get() == ex->call.ts;
}

static PySendResult wait_am_send(PyObject *op, PyObject *arg, PyObject **ret_value)
{
    StkWait *w = (StkWait *)op;
    StkExchange *ex = w->exchange;
    PyObject *value = NULL;
    int r;

    if (stk_unlikely(!ex)) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    if (ex->ready && wait_is_stepped(ex) && w->kind == STK_WAIT_RECEIVE) {
        value = ex->ready;
        ex->ready = NULL;
        r = 1;
    } else if (w->kind == STK_WAIT_RECEIVE) {
        r = stk_receive_next(ex, &value);
    } else {
        r = wait_check_send(ex);
        if (r > 0)
            value = stk_py_newref(Py_None);
    }
    if (stk_likely(r > 0)) {
        wait_end(w);
        *ret_value = value;
        return PYGEN_RETURN;
    }
    w->direct = r == 0 && stk_runner_steps(ex);
    if (stk_likely(w->direct)) { /* the runner knows what this means */
        wait_link(w);
        *ret_value = stk_py_newref(op);
        return PYGEN_NEXT;
    }
    if (r == 0) {
        Py_XSETREF(w->future, wait_new_future(w));
        if (w->future) {
            wait_link(w);
            *ret_value = stk_py_newref(w->future);
            return PYGEN_NEXT;
        }
    }
    wait_end(w);
    return PYGEN_ERROR;
}

static PyObject *wait_send(PyObject *op, PyObject *arg)
{
    PyObject *value = NULL;

    switch (wait_am_send(op, arg, &value)) {
    case PYGEN_NEXT:
        return value;
    case PYGEN_RETURN:
        return wait_stop(value);
    default:
        return NULL;
    }
}

static PyObject *wait_next(PyObject *op)
{
    return wait_send(op, Py_None);
}

static PyObject *wait_throw(PyObject *op, PyObject *args)
{
    wait_end((StkWait *)op);
    wait_raise(args);
    return NULL;
}

static PyObject *wait_close(PyObject *op, PyObject *unused)
{
    wait_end((StkWait *)op);
    Py_RETURN_NONE;
}

void stk_exchange_wake(StkExchange *ex, int kind)
{
    struct stk_asgi *a = ex->asgi;
    StkWait **at = &ex->waits;

    while (a && *at) {
        StkWait *w = *at;
        PyObject *done;
        int is_done;

        if (kind >= 0 && w->kind != kind) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->linked = false;
        w->next = NULL;
        if (stk_likely(w->direct)) {
            w->direct = false;
            if (stk_likely(ex->runner != NULL))
                stk_runner_resume(ex->runner);
            continue;
        }
        if (!w->future)
            continue;
        done = PyObject_CallMethodNoArgs(w->future, stk_state_name(a->st, STK_NAME_s_done));
        is_done = done ? PyObject_IsTrue(done) : -1;
        Py_XDECREF(done);
        if (is_done == 0) {
            done = PyObject_CallMethodOneArg(w->future,
                                             stk_state_name(a->st, STK_NAME_s_set_result), Py_None);
            Py_XDECREF(done);
        }
        if (PyErr_Occurred())
            PyErr_WriteUnraisable(w->future);
    }
}

static int wait_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((StkWait *)op)->future);
    return 0;
}

static int wait_clear(PyObject *op)
{
    Py_CLEAR(((StkWait *)op)->future);
    return 0;
}

static void wait_dealloc(PyObject *op)
{
    StkWait *w = (StkWait *)op;
    PyTypeObject *type = Py_TYPE(op);
    StkExchange *ex = w->exchange;

    PyObject_GC_UnTrack(op);
    if (ex) {
        wait_unlink(w);
        w->exchange = NULL;
        Py_DECREF(ex);
    }
    Py_CLEAR(w->future);
    PyObject_GC_Del(op);
    Py_DECREF(type);
}

PyType_Spec *stk_asgi_wait_spec(void)
{
    static char doc[] = "What receive() returns, and send() where it waits for the client.";
    static PyMethodDef methods[] = {
        {"send", wait_send, METH_O, NULL},
        {"throw", wait_throw, METH_VARARGS, NULL},
        {"close", wait_close, METH_NOARGS, NULL},
        {NULL, NULL, 0, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, wait_dealloc},
        {Py_tp_traverse, wait_traverse},
        {Py_tp_clear, wait_clear},
        {Py_tp_iter, wait_self},
        {Py_tp_iternext, wait_next},
        {Py_am_await, wait_self},
        STK_PY_AM_SEND(wait_am_send){Py_tp_methods, methods},
        {Py_tp_doc, doc},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "stoker._core.wait",
        .basicsize = sizeof(StkWait),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | STK_PY_TYPE_NO_NEW,
        .slots = slots,
    };

    return &spec;
}
