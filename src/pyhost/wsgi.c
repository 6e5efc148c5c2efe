/*
 * The call: environ, application, blocks of the body, close().
 *
 * Most applications return a list of one block: that goes out in one write which also ends the
 * body, so that the server fills in Content-Length. Other lists and tuples are complete as well:
 * their small blocks are joined. Of everything else each block is handed over before the next is
 * asked for; the first, and those that let the client wait, with the order to send it at once
 * (docs/design.md: responses). close() is called exactly once, after the last block, whatever
 * happens.
 *
 * The application may fork. A child that returns here would answer the same client a second time,
 * so it ends as soon as control comes back.
 */
#include "pyhost/wsgi.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "pyhost/asgi.h"
#include "pyhost/cancel.h"
#include "pyhost/environ.h"
#include "pyhost/errors.h"
#include "pyhost/filewrapper.h"
#include "pyhost/green.h"
#include "pyhost/input.h"
#include "pyhost/report.h"
#include "pyhost/respond.h"

enum {
    WSGI_JOIN_MAX = 64 * 1024,   /* blocks of a list are joined up to this */
    WSGI_JOIN_BLOCK = 16 * 1024, /* a larger block is written from where it lies */
    WSGI_LATE_NS = 50 * 1000,    /* a block later than this is sent at once */
};

/* ---- mistakes ------------------------------------------------------------------------------ */

static STK_COLD int wsgi_raise_block(PyObject *block)
{
    if (PyUnicode_Check(block))
        PyErr_Format(PyExc_TypeError,
                     "the application returned a block of type str (%.100R); WSGI sends bytes: "
                     "encode it, for example with .encode('utf-8')",
                     block);
    else
        PyErr_Format(PyExc_TypeError,
                     "the application returned a block of type %s (%.100R), where WSGI wants bytes",
                     Py_TYPE(block)->tp_name, block);
    return -1;
}

static STK_COLD int wsgi_raise_result(PyObject *result)
{
    if (PyCoro_CheckExact(result))
        PyErr_SetString(PyExc_TypeError,
                        "the application returned a coroutine, so it is an ASGI application: say "
                        "interface = asgi");
    else if (result == Py_None)
        PyErr_SetString(PyExc_TypeError,
                        "the application returned None, where WSGI wants an iterable of bytes; is "
                        "a return statement missing?");
    else if (PyBytes_Check(result) || PyUnicode_Check(result))
        PyErr_Format(PyExc_TypeError,
                     "the application returned a %s (%.100R), where WSGI wants an iterable of "
                     "bytes: return [body]%s",
                     Py_TYPE(result)->tp_name, result, PyUnicode_Check(result) ? ", encoded" : "");
    else
        PyErr_Format(PyExc_TypeError,
                     "the application returned an object of type %s, which is not iterable; WSGI "
                     "wants an iterable of bytes",
                     Py_TYPE(result)->tp_name);
    return -1;
}

STK_COLD STK_NORETURN void stk_wsgi_end_stray(void)
{
    int code = 1;

    if (PyErr_ExceptionMatches(PyExc_SystemExit)) {
        PyObject *exc = stk_py_take_exception();
        PyObject *value = exc ? PyObject_GetAttrString(exc, "code") : NULL;

        code = value == Py_None ? 0 : 1;
        if (value && PyLong_Check(value))
            code = (int)PyLong_AsLong(value);
    } else if (PyErr_Occurred()) {
        stk_report_exception(STK_LOG_ERROR, "unhandled exception in a process that the application "
                                            "forked");
    } else {
        stk_log_warning("a process that the application forked during a request returned to the "
                        "server and was ended; let it call os._exit()");
    }
    _exit(code);
}

static inline void wsgi_check_stray(const struct stk_call *call)
{
    if (stk_unlikely(stk_host_is_stray(call->host)))
        stk_wsgi_end_stray();
}

/* ---- the body ------------------------------------------------------------------------------ */

static inline int wsgi_write_block(struct stk_call *call, PyObject *block, unsigned flags)
{
    if (stk_unlikely(!PyBytes_Check(block)))
        return wsgi_raise_block(block);
    return stk_respond_write(call, PyBytes_AS_STRING(block), (size_t)PyBytes_GET_SIZE(block),
                             flags);
}

/* An item of a list or tuple, as a new reference: while we wait, a thread may change the list. */
static PyObject *wsgi_item(PyObject *seq, Py_ssize_t i)
{
    return i < PySequence_Fast_GET_SIZE(seq) ? stk_py_newref(PySequence_Fast_GET_ITEM(seq, i))
                                             : NULL;
}

/* The bytes of all blocks, or -1 with an exception when one is not a block. */
static int64_t wsgi_sum(PyObject *seq)
{
    int64_t total = 0;

    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(seq); i++) {
        PyObject *block = PySequence_Fast_GET_ITEM(seq, i);

        if (!PyBytes_Check(block))
            return wsgi_raise_block(block);
        total += PyBytes_GET_SIZE(block);
    }
    return total;
}

/* All blocks of a list, together at most WSGI_JOIN_MAX bytes, in one write. */
static int wsgi_send_joined(struct stk_call *call, PyObject *seq, size_t total)
{
    char *joined = stk_try_alloc(total ? total : 1);
    size_t have = 0;
    int r;

    if (!joined) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(seq); i++) {
        PyObject *block = PySequence_Fast_GET_ITEM(seq, i);

        memcpy(joined + have, PyBytes_AS_STRING(block), (size_t)PyBytes_GET_SIZE(block));
        have += (size_t)PyBytes_GET_SIZE(block);
    }
    r = stk_respond_write(call, joined, have, STK_WRITE_END);
    free(joined);
    return r;
}

/* A long list: small blocks are collected in one buffer, large ones written from where they lie. */
static int wsgi_send_blocks(struct stk_call *call, PyObject *seq)
{
    STK_CLEANUP(stk_mem_freep) char *buf = stk_try_alloc(WSGI_JOIN_MAX);
    PyObject *block;
    size_t have = 0;
    int r = 0;

    if (!buf) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; r == 0 && (block = wsgi_item(seq, i)) != NULL; i++) {
        size_t len = PyBytes_Check(block) ? (size_t)PyBytes_GET_SIZE(block) : 0;

        if (!PyBytes_Check(block)) {
            r = wsgi_raise_block(block);
        } else if (have > 0 && (len > WSGI_JOIN_BLOCK || have + len > WSGI_JOIN_MAX)) {
            r = stk_respond_write(call, buf, have, 0);
            have = 0;
        }
        if (r == 0 && len > WSGI_JOIN_BLOCK) {
            r = stk_respond_write(call, PyBytes_AS_STRING(block), len, 0);
        } else if (r == 0 && len > 0) {
            memcpy(buf + have, PyBytes_AS_STRING(block), len);
            have += len;
        }
        Py_DECREF(block);
        if (r == 0 && stk_respond_relax(call) < 0)
            r = -1;
    }
    return r == 0 ? stk_respond_write(call, buf, have, STK_WRITE_END) : r;
}

/* A list or tuple: complete, so its length is known. */
static int wsgi_send_sequence(struct stk_call *call, PyObject *seq)
{
    int64_t total;

    if (stk_likely(PySequence_Fast_GET_SIZE(seq) == 1)) {
        PyObject *block = wsgi_item(seq, 0);
        int r = wsgi_write_block(call, block, STK_WRITE_END);

        Py_DECREF(block);
        return r;
    }
    total = wsgi_sum(seq);
    if (total < 0)
        return -1;
    if (total <= WSGI_JOIN_MAX)
        return wsgi_send_joined(call, seq, (size_t)total);
    if (stk_respond_add_length(call, (uint64_t)total) < 0)
        return -1;
    return wsgi_send_blocks(call, seq);
}

/* The next block that is not empty: NULL at the end, or with an exception. */
static PyObject *wsgi_next_block(struct stk_call *call, PyObject *iter)
{
    for (;;) {
        PyObject *block = PyIter_Next(iter);

        wsgi_check_stray(call);
        if (!block)
            return NULL;
        if (!PyBytes_Check(block)) {
            wsgi_raise_block(block);
            Py_DECREF(block);
            return NULL;
        }
        if (PyBytes_GET_SIZE(block) > 0)
            return block;
        Py_DECREF(block);
    }
}

/* Blocks as they come. */
static int wsgi_send_iterator(struct stk_call *call, PyObject *iter)
{
    stk_nsec last = 0;
    PyObject *block;
    int r = 0;

    while (r == 0 && (block = wsgi_next_block(call, iter)) != NULL) {
        stk_nsec now = stk_time_mono_ns();
        unsigned flags = now - last > WSGI_LATE_NS ? STK_WRITE_FLUSH : 0;

        last = now;
        r = wsgi_write_block(call, block, flags);
        Py_DECREF(block);
        if (r == 0 && stk_respond_relax(call) < 0)
            return -1;
        if (call->req->head->is_head && r == 0)
            break; /* the head is out, and there is no body to send */
    }
    if (PyErr_Occurred())
        return -1;
    return r == 0 ? stk_respond_write(call, "", 0, STK_WRITE_END) : r;
}

/*
 * An iterable that says it has one block (PEP 3333, "Handling the Content-Length Header"): the
 * block ends the body if the iterable keeps its word.
 */
static int wsgi_send_single(struct stk_call *call, PyObject *iter)
{
    PyObject *first = wsgi_next_block(call, iter);
    PyObject *second;
    int r;

    if (!first)
        return PyErr_Occurred() ? -1 : stk_respond_write(call, "", 0, STK_WRITE_END);
    second = wsgi_next_block(call, iter);
    if (!second && PyErr_Occurred())
        r = -1;
    else
        r = wsgi_write_block(call, first, second ? 0 : STK_WRITE_END);
    if (second && r == 0) {
        r = wsgi_write_block(call, second, 0);
        if (r == 0)
            r = wsgi_send_iterator(call, iter);
    }
    Py_XDECREF(second);
    Py_DECREF(first);
    return r;
}

/* Whether an object has a length, and it is 1. */
static bool wsgi_is_single(PyObject *result)
{
    const PySequenceMethods *seq = Py_TYPE(result)->tp_as_sequence;
    Py_ssize_t len;

    if (!seq || !seq->sq_length)
        return false;
    len = PyObject_Size(result);
    if (len < 0)
        PyErr_Clear();
    return len == 1;
}

static int wsgi_send_iterable(struct stk_call *call, PyObject *result)
{
    bool single;
    PyObject *iter;
    int r;

    if (stk_unlikely(call->taken))
        return STK_RESPOND_STOP;
    if (PyBytes_Check(result) || PyUnicode_Check(result))
        return wsgi_raise_result(result);
    single = !call->wrote && wsgi_is_single(result);
    iter = PyObject_GetIter(result);
    if (!iter) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError) || Py_TYPE(result)->tp_iter)
            return -1;
        PyErr_Clear();
        return wsgi_raise_result(result);
    }
    r = single ? wsgi_send_single(call, iter) : wsgi_send_iterator(call, iter);
    Py_DECREF(iter);
    return r;
}

static int wsgi_send_any(struct stk_call *call, PyObject *result)
{
    if (stk_likely(PyList_CheckExact(result) || PyTuple_CheckExact(result)))
        return wsgi_send_sequence(call, result);
    if (Py_TYPE(result) == call->host->st->file_wrapper_type) {
        bool sent = false;
        int r = stk_filewrapper_send(call, result, &sent);

        if (sent || r < 0)
            return r;
    }
    return wsgi_send_iterable(call, result);
}

/* The server closes the connection, so that the client sees it; the log names the cause. */
static STK_COLD void wsgi_log_short(const struct stk_call *call)
{
    stk_span method = stk_head_method(call->req->head);
    stk_span target = stk_head_target(call->req->head);

    if (call->status == 304 || call->status == 204 || call->req->head->is_head ||
        call->req->replaced)
        return;
    stk_log_error("%.*s %.*s: the response is shorter than its Content-Length (%" PRId64
                  " of %" PRId64 " bytes)",
                  (int)(method.len < 32 ? method.len : 32), method.ptr,
                  (int)(target.len < 256 ? target.len : 256), target.ptr, call->sent, call->length);
}

static inline int wsgi_send(struct stk_call *call, PyObject *result)
{
    int r = wsgi_send_any(call, result);

    if (stk_unlikely(r == STK_RESPOND_SENT && call->sent < call->length))
        wsgi_log_short(call);

    /* A body that was cut at its Content-Length is complete for the client. */
    if (stk_unlikely(r == STK_RESPOND_STOP && call->cut && !call->ended))
        r = stk_respond_write(call, "", 0, STK_WRITE_END);
    return r;
}

/* ---- the end ------------------------------------------------------------------------------- */

/* result.close(), where there is one. */
static void wsgi_close(struct stk_call *call, PyObject *result)
{
    PyObject *close = NULL;
    PyObject *value = NULL;
    int r = stk_py_lookup_attr(result, stk_state_name(call->host->st, STK_NAME_close), &close);

    if (r > 0) {
        /* The client need not wait for what the application does there. */
        if (call->ended && !call->gone)
            (void)call->req->ops->write(call->req, "", 0, STK_WRITE_FLUSH);
        value = PyObject_CallNoArgs(close);
        wsgi_check_stray(call);
    }
    if (r < 0 || (r > 0 && !value)) {
        call->failed = true;
        stk_report_request(call, "unhandled exception in close() of the response");
    }
    Py_XDECREF(value);
    Py_XDECREF(close);
}

static STK_COLD void wsgi_fail(struct stk_call *call)
{
    if (call->taken && PyErr_ExceptionMatches(PyExc_StopIteration)) {
        PyErr_Clear(); /* how one says that there is nothing to answer: Gunicorn's custom */
        return;
    }
    call->failed = true;
    stk_report_request(call, "unhandled exception in the application");
    call->req->ops->fail(call->req);
}

/* Runs the application, and sends what it returns. */
static inline void wsgi_run(struct stk_call *call, PyObject *env, PyObject *start)
{
    PyObject *args[3] = {NULL, env, start};
    PyObject *result = PyObject_Vectorcall(call->app->callable, args + 1,
                                           2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);

    wsgi_check_stray(call);
    if (stk_unlikely(!result)) {
        wsgi_fail(call);
        return;
    }
    if (stk_unlikely(wsgi_send(call, result) < 0))
        wsgi_fail(call);
    if (!PyList_CheckExact(result) && !PyTuple_CheckExact(result))
        wsgi_close(call, result);
    Py_DECREF(result);
}

static void wsgi_release_input(struct stk_call *call)
{
    if (stk_unlikely(call->taken))
        Py_CLEAR(call->input);
    else
        stk_input_release(call->input);
}

/* Builds the environ, runs the application, and sends what it returns. */
static inline void wsgi_answer(struct stk_call *call, struct stk_pythread *t)
{
    struct stk_pyhost *h = call->host;
    struct stk_environ_shape *lender = NULL;
    PyObject *start = NULL;
    PyObject *env = NULL;

    if (call->req->body_length == 0 || (call->input = stk_input_new(call)) != NULL)
        env = stk_environ_build(h->environ, call->req, call->input, &lender);
    if (env)
        start = stk_respond_acquire(t, call);
    if (stk_likely(start != NULL)) {
        wsgi_run(call, env, start);
        stk_respond_release(t, start);
    } else {
        wsgi_fail(call);
    }
    if (stk_likely(env != NULL))
        stk_environ_release(env, lender);
    if (call->input)
        wsgi_release_input(call);
    stk_errors_flush(h->errors);
}

void stk_wsgi_answer(struct stk_call *call, struct stk_pythread *thread)
{
    wsgi_answer(call, thread);
}

STK_HOT enum stk_host_call stk_wsgi_call(void *host, void *thread, struct stk_request *req)
{
    struct stk_pyhost *h = host;
    struct stk_pythread *t = thread;
    struct stk_call call = {.host = h, .ts = PyThreadState_Get(), .req = req, .length = -1};

    STK_CHECK_MAGIC(h, STK_PYHOST_MAGIC);
    STK_CHECK_MAGIC(t, STK_PYTHREAD_MAGIC);
    STK_ASSERT(req->app < h->napps);
    call.app = &h->apps[req->app];
    if (call.app->interface != STK_INTERFACE_WSGI)
        return call.app->interface == STK_INTERFACE_GREEN ? stk_green_call(h, t, req)
                                                          : stk_asgi_call(h, t, req);
    stk_cancel_begin(t, &call);
    wsgi_answer(&call, t);
    stk_cancel_end(t);
    return STK_HOST_DONE;
}
