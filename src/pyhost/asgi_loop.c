/*
 * The event loop of the applications, and how it turns the server's.
 *
 * asyncio's own event loop gets a selector of ours: its select() waits for both epoll sets at once,
 * and handles requests while it is there, so a request costs no iteration of the event loop. Any
 * other (uvloop) watches the server's epoll set as one of its descriptors, and turns it when there
 * is something (docs/design.md).
 *
 * It is made in the process that serves, after the fork, and lives from startup() to the end of the
 * worker: the lifespan of the applications begins before the worker is ready and ends after its
 * last request.
 */
#include "pyhost/asgi_priv.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "pyhost/report.h"
#include "pyhost/wsgi.h"

static struct stk_asgi *loop_asgi(PyObject *capsule)
{
    return PyCapsule_GetPointer(capsule, "asgi");
}

static PyObject *loop_function(struct stk_asgi *a, PyMethodDef *def)
{
    PyObject *capsule = PyCapsule_New(a, "asgi", NULL);
    PyObject *function = capsule ? PyCFunction_New(def, capsule) : NULL;

    Py_XDECREF(capsule);
    return function;
}

/* The event loop is to end: the engine has stopped. 0 or -1. */
static int loop_stop(struct stk_asgi *a)
{
    PyObject *done;

    if (a->stopped)
        return 0;
    a->stopped = true;
    done = PyObject_CallMethod(a->loop, "stop", NULL);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* ---- asyncio: the selector ----------------------------------------------------------------- */

/* A timeout in seconds (None: no limit) as nanoseconds; -2 with an exception. */
static stk_nsec loop_timeout(PyObject *timeout)
{
    double seconds;

    if (timeout == Py_None)
        return -1;
    seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -2;
    if (!(seconds > 0))
        return 0;
    return seconds > 86400.0 ? INT64_C(86400) * STK_NSEC_PER_SEC : (stk_nsec)ceil(seconds * 1e9);
}

/* selector.select(timeout=None) */
static PyObject *loop_select(PyObject *capsule, PyObject *const *args, Py_ssize_t n)
{
    struct stk_asgi *a = loop_asgi(capsule);
    stk_nsec timeout = n > 0 ? loop_timeout(args[0]) : -1;
    PyObject *zero;
    PyObject *list;
    bool own = false;
    bool more;

    if (!a || timeout == -2)
        return NULL;
    if (stk_unlikely(stk_host_is_stray(a->host)))
        stk_wsgi_end_stray();
    if (!a->engine)
        return PyObject_CallFunctionObjArgs(a->select, a->selector, n > 0 ? args[0] : Py_None,
                                            NULL);
    if (stk_unlikely(stk_runner_settle(a)))
        timeout = 0;
    a->turning = true;
    more = a->engine->wait(a->engine->arg, a->selector_fd, timeout, &own);
    a->turning = false;
    (void)stk_runner_settle(a);
    if (stk_unlikely(!more) && loop_stop(a) < 0)
        return NULL;
    if (!own)
        return PyList_New(0);
    zero = PyLong_FromLong(0);
    list = zero ? PyObject_CallFunctionObjArgs(a->select, a->selector, zero, NULL) : NULL;
    Py_XDECREF(zero);
    return list;
}

/* ---- others: a reader ---------------------------------------------------------------------- */

static PyObject *loop_turn(PyObject *capsule, PyObject *unused)
{
    struct stk_asgi *a = loop_asgi(capsule);

    if (!a)
        return NULL;
    if (stk_unlikely(stk_host_is_stray(a->host)))
        stk_wsgi_end_stray();
    if (a->engine && !a->stopped) {
        bool more;

        (void)stk_runner_settle(a);
        a->turning = true;
        more = a->engine->turn(a->engine->arg);
        a->turning = false;
        (void)stk_runner_settle(a);
        if (!more && loop_stop(a) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

static int loop_watch(struct stk_asgi *a, bool on)
{
    static PyMethodDef methods[] = {{"turn", loop_turn, METH_NOARGS, NULL}};
    const int fds[] = {a->engine->fd, a->engine->bell};
    PyObject *turn = on ? loop_function(a, methods) : NULL;
    int r = !on || turn ? 0 : -1;

    for (size_t i = 0; r == 0 && i < STK_ARRAY_LEN(fds); i++) {
        PyObject *done = on ? PyObject_CallMethod(a->loop, "add_reader", "iO", fds[i], turn)
                            : PyObject_CallMethod(a->loop, "remove_reader", "i", fds[i]);

        r = done ? 0 : -1;
        Py_XDECREF(done);
    }
    Py_XDECREF(turn);
    return r;
}

/* ---- run ----------------------------------------------------------------------------------- */

/* Requests that are still detached when the engine ends. */
static void loop_abandon(struct stk_asgi *a)
{
    while (a->detached) {
        StkExchange *ex = a->detached;

        Py_INCREF(ex);
        ex->call.gone = ex->left = true;
        ex->in_call = false;
        if (ex->state != STK_ASGI_ENDED)
            ex->call.req->ops->fail(ex->call.req);
        ex->state = STK_ASGI_ENDED;
        stk_exchange_drop(ex);
        Py_DECREF(ex);
    }
}

/* Runs the event loop until the engine stops, whatever the application raises out of it. */
static int loop_run_forever(struct stk_asgi *a)
{
    while (!a->stopped) {
        PyObject *done;

        if (!a->selector && loop_watch(a, true) < 0)
            return -1;
        done = PyObject_CallMethod(a->loop, "run_forever", NULL);
        Py_XDECREF(done);
        if (!done)
            stk_report_exception(STK_LOG_ERROR, "unhandled exception in the event loop");
        else if (!a->stopped)
            stk_log_warning("the application has stopped the event loop (loop.stop), which belongs "
                            "to the server; it goes on");
    }
    return a->selector ? 0 : loop_watch(a, false);
}

int stk_asgi_run(struct stk_pyhost *host, struct stk_pythread *thread,
                 const struct stk_host_engine *engine)
{
    struct stk_asgi *a = host->asgi;
    int r;

    if (!a)
        return -EINVAL;
    a->thread = thread;
    a->ts = PyThreadState_Get();
    engine->begin(engine->arg, thread);
    a->engine = engine;
    r = loop_run_forever(a);
    if (r < 0)
        stk_report_exception(STK_LOG_CRITICAL, "the event loop cannot watch the server's sockets");
    loop_abandon(a);
    a->engine = NULL;
    engine->end(engine->arg);
    a->thread = NULL;
    return r < 0 ? -EIO : 0;
}

/* ---- startup ------------------------------------------------------------------------------- */

static const char *const loop_kinds[] = {"auto", "asyncio", "uvloop"};
static const char *const lifespan_modes[] = {"auto", "on", "off"};

/* 0, or -1 with an exception. */
static int loop_make(struct stk_asgi *a)
{
    static PyMethodDef methods[] = {
        {"select", (PyCFunction)(void (*)(void))loop_select, METH_FASTCALL, NULL}};
    const char *kind = loop_kinds[a->host->loop_kind];
    PyObject *select = loop_function(a, methods);
    PyObject *pair =
        select ? PyObject_CallMethod(a->helpers, "new_loop", "sO", kind, select) : NULL;

    Py_XDECREF(select);
    if (!pair)
        return -1;
    a->loop = stk_py_newref(PyTuple_GET_ITEM(pair, 0));
    if (PyTuple_GET_ITEM(pair, 1) != Py_None) {
        PyObject *type;

        a->selector = stk_py_newref(PyTuple_GET_ITEM(pair, 1));
        type = (PyObject *)Py_TYPE(a->selector)->tp_base;
        a->select = PyObject_GetAttrString(type, "select");
        a->selector_fd = PyObject_AsFileDescriptor(a->selector);
    }
    Py_DECREF(pair);
    a->create_future = PyObject_GetAttrString(a->loop, "create_future");
    a->done = (PyObject *)PyObject_New(PyObject, a->st->done_type);
    return a->create_future && a->done && (!a->selector || (a->select && a->selector_fd >= 0)) ? 0
                                                                                               : -1;
}

static STK_COLD int loop_fail(struct stk_asgi *a)
{
    if (PyErr_ExceptionMatches(PyExc_ImportError) && a->helpers && !a->loop) {
        PyErr_Clear();
        stk_log_error(
            "loop = uvloop: the package uvloop cannot be imported; install it (pip install "
            "uvloop), or say loop = asyncio");
    } else {
        stk_report_exception(STK_LOG_ERROR, "the event loop cannot be made");
    }
    return STK_HOST_E_IMPORT;
}

/* log(level, text), for the helpers. */
static PyObject *loop_log(PyObject *capsule, PyObject *args)
{
    static const struct {
        const char *name;
        enum stk_log_level level;
    } levels[] = {{"debug", STK_LOG_DEBUG},
                  {"info", STK_LOG_INFO},
                  {"warning", STK_LOG_WARNING},
                  {"error", STK_LOG_ERROR}};
    const char *level, *text;
    Py_ssize_t len;

    if (!PyArg_ParseTuple(args, "ss#", &level, &text, &len))
        return NULL;
    for (size_t i = 0; i < STK_ARRAY_LEN(levels); i++)
        if (strcmp(level, levels[i].name) == 0)
            stk_log_bytes(levels[i].level, text, (size_t)len);
    Py_RETURN_NONE;
}

/* lifespan.startup of one application. 0 or STK_HOST_E_*, logged. */
static int loop_start_app(struct stk_asgi *a, struct stk_pyapp *app)
{
    static PyMethodDef methods[] = {{"log", loop_log, METH_VARARGS, NULL}};
    PyObject *log = loop_function(a, methods);
    PyObject *failure = NULL;
    int r = STK_HOST_E_IMPORT;

    if (log)
        app->lifespan = PyObject_CallMethod(a->helpers, "make_lifespan", "OsO", app->callable,
                                            lifespan_modes[a->host->lifespan], log);
    Py_XDECREF(log);
    if (app->lifespan) {
        app->state = PyObject_GetAttrString(app->lifespan, "state");
        failure = PyObject_CallMethod(a->helpers, "startup", "OO", a->loop, app->lifespan);
    }
    if (failure == Py_None) {
        r = 0;
    } else if (failure) {
        const char *text = PyUnicode_AsUTF8(failure);

        stk_log_error("the application failed to start up (lifespan.startup): %s",
                      text ? text : "");
    }
    if (PyErr_Occurred())
        stk_report_exception(STK_LOG_ERROR,
                             "the application failed to start up (lifespan.startup)");
    Py_XDECREF(failure);
    return r;
}

int stk_asgi_startup(void *host)
{
    struct stk_pyhost *h = host;
    struct stk_asgi *a;
    PyObject *done;
    int r = 0;

    STK_CHECK_MAGIC(h, STK_PYHOST_MAGIC);
    if (!stk_asgi_has_loop(h))
        return 0;
    a = h->asgi = stk_new0(struct stk_asgi);
    a->host = h;
    a->st = h->st;
    a->ts = PyThreadState_Get();
    a->scopes = h->scopes;
    a->helpers = PyImport_ImportModule("stoker._asgi");
    if (!a->helpers || loop_make(a) < 0)
        return loop_fail(a);
    done = PyObject_CallMethod(a->helpers, "register", NULL);
    Py_XDECREF(done);
    if (!done || stk_runner_init(a) < 0)
        return loop_fail(a);
    for (size_t i = 0; r == 0 && i < h->napps; i++)
        if (stk_asgi_is_async(h, (unsigned)i))
            r = loop_start_app(a, &h->apps[i]);
    return r;
}

/* ---- shutdown ------------------------------------------------------------------------------ */

static void loop_log_errors(PyObject *errors)
{
    for (Py_ssize_t i = 0; errors && PyList_Check(errors) && i < PyList_GET_SIZE(errors); i++) {
        const char *text = PyUnicode_AsUTF8(PyList_GET_ITEM(errors, i));

        if (text)
            stk_log_error("%s", text);
        else
            PyErr_Clear();
    }
}

static void loop_close(struct stk_asgi *a)
{
    PyObject *lifespans = PyList_New(0);
    PyObject *errors = NULL;

    for (size_t i = a->host->napps; lifespans && i-- > 0;)
        if (a->host->apps[i].lifespan && PyList_Append(lifespans, a->host->apps[i].lifespan) < 0)
            Py_CLEAR(lifespans);
    if (lifespans)
        errors = PyObject_CallMethod(a->helpers, "shutdown", "OOd", a->loop, lifespans,
                                     (double)a->host->task_grace / 1000.0);
    if (!errors)
        stk_report_exception(STK_LOG_ERROR, "while the event loop was closed");
    loop_log_errors(errors);
    Py_XDECREF(errors);
    Py_XDECREF(lifespans);
}

void stk_asgi_shutdown(struct stk_pyhost *host)
{
    struct stk_asgi *a = stk_steal(&host->asgi);

    if (!a)
        return;
    stk_runner_drain(a);
    if (a->loop && a->helpers)
        loop_close(a);
    stk_runner_deinit(a);
    while (a->nspare > 0)
        Py_DECREF(a->spare[--a->nspare]);
    Py_CLEAR(a->type_start);
    Py_CLEAR(a->type_body);
    Py_CLEAR(a->type_ws_send);
    Py_CLEAR(a->create_future);
    Py_CLEAR(a->select);
    Py_CLEAR(a->selector);
    Py_CLEAR(a->done);
    Py_CLEAR(a->loop);
    Py_CLEAR(a->helpers);
    a->scopes = NULL;
    /* A coroutine that did not let itself be cancelled may still point to it. */
    if (a->running == 0)
        free(a);
}
