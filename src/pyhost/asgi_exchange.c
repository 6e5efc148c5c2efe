/*
 * A request of an ASGI application, from the call to the end of its coroutine.
 *
 * A request that is answered before its coroutine waits lives and ends within the call: nothing is
 * copied, and exchange and send serve the next request if the application has not kept them. One
 * that waits earlier is detached: from then on it is in the list of the detached ones, until its
 * response or its coroutine ends, whichever is first. The coroutine may go on without its request;
 * receive() then says that the client has left, and send() that the response is complete.
 *
 * Waiting is done by objects of their own (asgi_wait.c), which the exchange knows by a list without
 * holding them: what is waited for may be cancelled or forgotten at any time.
 */
#include "pyhost/asgi_priv.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "pyhost/cancel.h"
#include "pyhost/outcast.h"
#include "pyhost/report.h"

enum { EXCHANGE_TARGET_MAX = 256 };

/* ---- the exchange -------------------------------------------------------------------------- */

static PyObject *receive_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf,
                                    PyObject *kwnames)
{
    if (PyVectorcall_NARGS(nargsf) != 0 || (kwnames && PyTuple_GET_SIZE(kwnames) != 0)) {
        PyErr_SetString(PyExc_TypeError, "receive() takes no arguments");
        return NULL;
    }
    return stk_exchange_wait((StkExchange *)op, STK_WAIT_RECEIVE);
}

static StkSend *exchange_new(struct stk_asgi *a)
{
    StkExchange *ex = PyObject_New(StkExchange, a->st->receive_type);
    StkSend *send = ex ? PyObject_New(StkSend, a->st->send_type) : NULL;

    if (!send) {
        Py_XDECREF(ex);
        return NULL;
    }
    memset((char *)ex + sizeof(PyObject), 0, sizeof(*ex) - sizeof(PyObject));
    ex->vectorcall = receive_vectorcall;
    send->vectorcall = stk_send_vectorcall;
    send->exchange = ex;
    return send;
}

StkSend *stk_exchange_acquire(struct stk_asgi *a, struct stk_request *req)
{
    StkSend *send = a->nspare > 0 ? a->spare[--a->nspare] : exchange_new(a);
    StkExchange *ex;

    if (stk_unlikely(!send))
        return NULL;
    ex = send->exchange;
    ex->asgi = a;
    ex->call = (struct stk_call){
        .host = a->host, .app = &a->host->apps[req->app], .ts = a->ts, .req = req, .length = -1};
    ex->loan.place = NULL;
    ex->consumed = 0;
    ex->state = STK_ASGI_NEW;
    ex->detached = ex->body_done = ex->left = ex->trailers = ex->trailing = false;
    ex->websocket = req->websocket;
    ex->asks = false;
    ex->ws_state = 0;
    ex->in_call = true;
    req->host_data = ex;
    return send;
}

void stk_exchange_release(struct stk_asgi *a, StkSend *send)
{
    StkExchange *ex = send->exchange;

    ex->in_call = false;
    if (stk_likely(Py_REFCNT(send) == 1 && Py_REFCNT(ex) == 1 && !ex->waits && !ex->asgi &&
                   a->nspare < STK_ASGI_SPARE))
        a->spare[a->nspare++] = send;
    else
        Py_DECREF(send);
}

static void exchange_link(StkExchange *ex)
{
    struct stk_asgi *a = ex->asgi;

    ex->prev = NULL;
    ex->next = a->detached;
    if (a->detached)
        a->detached->prev = ex;
    a->detached = ex;
    Py_INCREF(ex); /* the request's own */
}

static void exchange_unlink(StkExchange *ex)
{
    if (ex->prev)
        ex->prev->next = ex->next;
    else
        ex->asgi->detached = ex->next;
    if (ex->next)
        ex->next->prev = ex->prev;
    ex->prev = ex->next = NULL;
}

/* Keeps what names the request in messages, which the coroutine may outlive. */
static void exchange_keep_title(StkExchange *ex)
{
    const struct stk_head *head = ex->call.req->head;
    stk_span method = stk_head_method(head);
    stk_span target = stk_head_target(head);

    if (!ex->title)
        ex->title = stk_mem_printf(
            "%.*s %.*s", (int)(method.len < 32 ? method.len : 32), method.ptr,
            (int)(target.len < EXCHANGE_TARGET_MAX ? target.len : EXCHANGE_TARGET_MAX), target.ptr);
}

/* Takes the request off the exchange. */
static struct stk_request *exchange_steal_request(StkExchange *ex)
{
    struct stk_request *req = ex->call.req;
    struct stk_pythread *t = ex->asgi->thread;

    if (t && t->call == &ex->call)
        t->call = NULL;
    ex->call.req = NULL;
    return req;
}

/* A detached request whose end came within its own call, which has to return first. */
static PyObject *exchange_finish_late(PyObject *op, PyObject *unused)
{
    StkExchange *ex = (StkExchange *)op;

    if (ex->call.req)
        stk_exchange_drop(ex);
    if (!ex->runner)
        ex->asgi = NULL;
    Py_RETURN_NONE;
}

static int exchange_defer_finish(StkExchange *ex)
{
    static PyMethodDef methods[] = {{"finish", exchange_finish_late, METH_NOARGS, NULL}};
    PyObject *fn = PyCFunction_New(methods, (PyObject *)ex);
    PyObject *name = stk_state_name(ex->asgi->st, STK_NAME_s_call_soon);
    PyObject *handle = fn ? PyObject_CallMethodOneArg(ex->asgi->loop, name, fn) : NULL;

    if (!handle)
        stk_report_exception(STK_LOG_ERROR, "the end of a request cannot be put off");
    Py_XDECREF(fn);
    Py_XDECREF(handle);
    return handle ? 0 : -1;
}

void stk_exchange_drop(StkExchange *ex)
{
    struct stk_request *req;

    if (!ex->call.req)
        return;
    if (ex->detached && ex->in_call) {
        (void)exchange_defer_finish(ex);
        return;
    }
    req = exchange_steal_request(ex);
    if (ex->detached) {
        exchange_unlink(ex);
        ex->detached = false;
        req->host_data = NULL;
        req->ops->finish(req);
        stk_exchange_wake(ex, -1);
        Py_CLEAR(ex->held);
        Py_DECREF(ex);
    } else if (ex->waits) {
        stk_exchange_wake(ex, -1);
    }
}

void stk_exchange_answered(StkExchange *ex)
{
    ex->state = STK_ASGI_ENDED;
    ex->call.ended = true;
    if (ex->detached)
        stk_exchange_drop(ex);
    else if (ex->waits)
        stk_exchange_wake(ex, STK_WAIT_RECEIVE);
}

int stk_exchange_detach(StkExchange *ex)
{
    struct stk_request *req;

    exchange_keep_title(ex);
    req = ex->call.req->ops->detach(ex->call.req);
    if (!req) {
        (void)exchange_steal_request(ex);
        ex->call.gone = ex->left = true;
        ex->state = STK_ASGI_ENDED;
        stk_log_error("%s: there is no memory to let the request wait; it was failed", ex->title);
        return -1;
    }
    ex->call.req = req;
    ex->detached = true;
    req->host_data = ex;
    exchange_link(ex);
    for (StkWait *w = ex->waits; w; w = w->next) {
        if (w->kind == STK_WAIT_SEND)
            req->ops->want(req, STK_WAKE_OUTPUT);
        else if (!ex->body_done)
            req->ops->want(req, STK_WAKE_INPUT);
    }
    return 0;
}

void stk_exchange_suspended(StkExchange *ex, PyObject *runner)
{
    ex->runner = runner;
    ex->asgi->running++;
    if (ex->call.req && ex->detached)
        ex->held = stk_py_newref(runner);
    if (!ex->call.req || ex->detached)
        return;
    if (ex->state == STK_ASGI_ENDED) {
        /* The call returns: the response leaves, the coroutine goes on without the request. */
        exchange_keep_title(ex);
        stk_exchange_drop(ex);
    } else if (stk_exchange_detach(ex) < 0) {
        stk_runner_cancel(runner, "there is no memory for the request");
    } else {
        ex->held = stk_py_newref(runner);
    }
}

/* ---- the end ------------------------------------------------------------------------------- */

/* Whether an exception only tells what the client or the server has done. */
static bool exchange_is_noise(const StkExchange *ex, PyObject *exc)
{
    const char *name = Py_TYPE(exc)->tp_name;

    if (ex->call.cancelled &&
        (stk_cancel_is_own(&ex->call, exc) || strcmp(name, "CancelledError") == 0 ||
         strcmp(name, "asyncio.exceptions.CancelledError") == 0))
        return true;
    if (!ex->call.gone && !ex->left && !ex->call.input_failed)
        return false;
    return PyErr_GivenExceptionMatches(exc, PyExc_OSError) || strstr(name, "Disconnect") ||
           strstr(name, "RequestAborted") || strstr(name, "CancelledError");
}

/* Logs the pending exception. */
static STK_COLD void exchange_report(StkExchange *ex)
{
    PyObject *exc = stk_py_take_exception();
    STK_CLEANUP(stk_mem_freep) char *text = NULL;

    if (!exc)
        return;
    if (ex->call.req)
        exchange_keep_title(ex);
    text = stk_mem_printf(
        "%s: unhandled exception in the application%s", ex->title ? ex->title : "a request",
        ex->call.req && ex->state != STK_ASGI_ENDED ? "" : ", after its response");
    if (exchange_is_noise(ex, exc)) {
        stk_log_debug("%s: %s: %s", text, Py_TYPE(exc)->tp_name,
                      ex->call.cancelled ? "cancelled" : "the client has left");
    } else {
        stk_py_raise_taken(stk_py_newref(exc));
        stk_report_exception(STK_LOG_ERROR, text);
        stk_outcast_check(ex->call.host, exc);
    }
    Py_DECREF(exc);
}

/* The coroutine has returned, and the response is not complete. */
static STK_COLD void exchange_report_incomplete(StkExchange *ex)
{
    if (ex->call.gone || ex->left || ex->call.cancelled)
        return;
    exchange_keep_title(ex);
    if (ex->state == STK_ASGI_NEW)
        stk_log_error("%s: the ASGI application returned without sending a response "
                      "(http.response.start)",
                      ex->title);
    else
        stk_log_error("%s: the ASGI application returned before its response was complete "
                      "(http.response.body without more_body)",
                      ex->title);
}

void stk_exchange_end(StkExchange *ex)
{
    bool failed = PyErr_Occurred() != NULL;

    if (stk_unlikely(ex->trailing))
        Py_CLEAR(ex->trailer);
    if (ex->runner) {
        ex->runner = NULL;
        ex->asgi->running--;
        Py_CLEAR(ex->held);
    }
    if (stk_unlikely(failed))
        exchange_report(ex);
    if (ex->call.req) {
        if (stk_unlikely(ex->websocket)) {
            stk_ws_end(ex, failed);
        } else if (stk_unlikely(ex->state != STK_ASGI_ENDED)) {
            if (!failed)
                exchange_report_incomplete(ex);
            ex->call.req->ops->fail(ex->call.req);
            ex->state = STK_ASGI_ENDED;
        }
        stk_exchange_drop(ex);
    }
    if (stk_likely(ex->loan.place && ex->asgi->scopes)) {
        stk_scope_release(ex->asgi->scopes, &ex->loan);
        ex->loan.place = NULL;
    }
    if (stk_likely(!ex->call.req))
        ex->asgi = NULL;
    if (stk_unlikely(ex->title != NULL)) {
        free(ex->title);
        ex->title = NULL;
    }
}

void stk_asgi_wake(void *host, void *thread, struct stk_request *req, unsigned what)
{
    StkExchange *ex = req->host_data;

    if (!ex || ex->call.req != req)
        return;
    Py_INCREF(ex);
    if (what & STK_WAKE_GONE) {
        ex->left = true;
        if (req->ops->is_disconnected(req))
            ex->call.gone = true;
    }
    if (what & (STK_WAKE_TIMEOUT | STK_WAKE_CANCEL)) {
        ex->call.cancelled = true;
        if (what & STK_WAKE_TIMEOUT)
            stk_asgi_log_chain(ex);
        if (ex->runner)
            stk_runner_cancel(ex->runner, what & STK_WAKE_TIMEOUT
                                              ? "the request has taken longer than request-timeout"
                                              : "the client has left");
    }
    if (stk_unlikely(ex->websocket) && what & STK_WAKE_INPUT)
        stk_ws_woken(ex);
    if (what & STK_WAKE_GONE)
        stk_exchange_wake(ex, -1);
    else if (what & STK_WAKE_INPUT)
        stk_exchange_wake(ex, STK_WAIT_RECEIVE);
    if (what & STK_WAKE_OUTPUT)
        stk_exchange_wake(ex, STK_WAIT_SEND);
    Py_DECREF(ex);
}

/* ---- types --------------------------------------------------------------------------------- */

static void receive_dealloc(PyObject *op)
{
    StkExchange *ex = (StkExchange *)op;
    PyTypeObject *type = Py_TYPE(op);

    free(ex->title);
    Py_XDECREF(ex->ready);
    Py_XDECREF(ex->trailer);
    Py_XDECREF(ex->held);
    Py_XDECREF(ex->spare);
    PyObject_Free(op);
    Py_DECREF(type);
}

static void send_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);

    Py_XDECREF(((StkSend *)op)->exchange);
    PyObject_Free(op);
    Py_DECREF(type);
}

PyType_Spec *stk_asgi_receive_spec(void)
{
    static char doc[] = "await receive(): the next message of an ASGI request.";
    static PyMemberDef members[] = {
        {"__vectorcalloffset__", STK_PY_SSIZE_MEMBER, offsetof(StkExchange, vectorcall),
         STK_PY_READONLY, NULL},
        {NULL, 0, 0, 0, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, receive_dealloc},
        {Py_tp_call, PyVectorcall_Call},
        {Py_tp_members, members},
        {Py_tp_doc, doc},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "stoker._core.receive",
        .basicsize = sizeof(StkExchange),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | STK_PY_TYPE_NO_NEW,
        .slots = slots,
    };

    return &spec;
}

PyType_Spec *stk_asgi_send_spec(void)
{
    static char doc[] = "await send(message): a message of an ASGI response.";
    static PyMemberDef members[] = {
        {"__vectorcalloffset__", STK_PY_SSIZE_MEMBER, offsetof(StkSend, vectorcall),
         STK_PY_READONLY, NULL},
        {NULL, 0, 0, 0, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, send_dealloc},
        {Py_tp_call, PyVectorcall_Call},
        {Py_tp_members, members},
        {Py_tp_doc, doc},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "stoker._core.send",
        .basicsize = sizeof(StkSend),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | STK_PY_TYPE_NO_NEW,
        .slots = slots,
    };

    return &spec;
}
