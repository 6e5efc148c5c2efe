/*
 * gevent: found, started, and how its hub turns the engine.
 *
 * The hub watches the engine's epoll set, and the bell, as it watches any descriptor (libev and
 * libuv can both wait for an epoll set), and turns the engine without waiting in it. It cannot be
 * told to wait in the engine's place: when its next timer is due is known to libev only.
 *
 * The hub's greenlet has to be begun below what this process has on its stack by then, because it
 * stays while the hub runs and the stand-by thread uses it. So it is started before the
 * application can do that, from far down.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "pyhost/green_priv.h"
#include "pyhost/report.h"
#include "pyhost/wsgi.h"

enum {
    LOOP_DEPTH = 256 * 1024, /* of the hub's stack below that of the loader */
    LOOP_STEP = 4 * 1024,
    LOOP_IDLE_MAX = 256, /* greenlets that wait for requests; each has some 20 KiB */
    LOOP_TITLE_MAX = 200,
};

/* ---- starting ------------------------------------------------------------------------------ */

/* greenlet.h: PyExc_GreenletExit_NUM, PyGreenlet_GetCurrent_NUM, ... */
static int loop_find_api(struct stk_greens *a)
{
    enum { EXIT = 2, CURRENT = 4, RAISE = 5, SWITCH = 6 };
    void **table = PyCapsule_Import("greenlet._C_API", 0);

    if (!table)
        return -1;
    a->api.exit = table[EXIT];
    memcpy(&a->api.current, &table[CURRENT], sizeof table[CURRENT]);
    memcpy(&a->api.raise, &table[RAISE], sizeof table[RAISE]);
    memcpy(&a->api.switch_to, &table[SWITCH], sizeof table[SWITCH]);
    return 0;
}

static struct stk_greens *loop_of(PyObject *capsule)
{
    return PyCapsule_GetPointer(capsule, "greens");
}

static PyObject *loop_function(struct stk_greens *a, PyMethodDef *def)
{
    PyObject *capsule = PyCapsule_New(a, "greens", NULL);
    PyObject *function = capsule ? PyCFunction_New(def, capsule) : NULL;

    Py_XDECREF(capsule);
    return function;
}

static PyObject *loop_on_start(PyObject *capsule, PyObject *unused)
{
    struct stk_greens *a = loop_of(capsule);

    if (!a)
        return NULL;
    a->hub_at = __builtin_frame_address(0);
    Py_RETURN_NONE;
}

/* Starts the hub with its stack at `to` or below. */
static STK_COLD PyObject *loop_start_hub(struct stk_greens *a, PyObject *note, const char *to)
{
    volatile char room[LOOP_STEP];
    PyObject *r;

    room[0] = 0;
    if ((uintptr_t)room > (uintptr_t)to)
        r = loop_start_hub(a, note, to);
    else
        r = PyObject_CallMethod(a->helpers, "start", "O", note);
    room[1] = 0; /* or the room would be given up before the call */
    return r;
}

static int loop_prepare(struct stk_greens *a, bool patch)
{
    static PyMethodDef methods[] = {{"note", loop_on_start, METH_NOARGS, NULL}};
    PyObject *note = loop_function(a, methods);
    PyObject *started = NULL;
    PyObject *parts = PyObject_CallMethod(a->helpers, "prepare", "O", patch ? Py_True : Py_False);

    if (parts && PyArg_ParseTuple(parts, "OOOO", &a->hub, &a->run_callback, &a->waiter_type,
                                  &a->greenlet_type)) {
        Py_INCREF(a->hub);
        Py_INCREF(a->run_callback);
        Py_INCREF(a->waiter_type);
        Py_INCREF(a->greenlet_type);
        if (note)
            started =
                loop_start_hub(a, note, (const char *)__builtin_frame_address(0) - LOOP_DEPTH);
    }
    Py_XDECREF(parts);
    Py_XDECREF(note);
    Py_XDECREF(started);
    return started ? 0 : -1;
}

static STK_COLD int loop_fail(const struct stk_greens *a)
{
    if (!a->helpers && PyErr_ExceptionMatches(PyExc_ImportError)) {
        PyErr_Clear();
        stk_log_error("gevent: the package gevent cannot be imported; install it (pip install "
                      "gevent), or leave out gevent");
    } else {
        stk_report_exception(STK_LOG_ERROR, "gevent cannot be started");
    }
    return STK_HOST_E_IMPORT;
}

int stk_green_prepare(struct stk_pyhost *host, bool patch)
{
    struct stk_greens *a = host->greens;

    if (a)
        return 0;
    a = host->greens = stk_new0(struct stk_greens);
    a->host = host;
    a->pid = getpid();
    a->keeper.magic = STK_PYTHREAD_MAGIC;
    a->helpers = PyImport_ImportModule("stoker._gevent");
    if (!a->helpers || loop_find_api(a) < 0 || loop_prepare(a, patch) < 0)
        return loop_fail(a);
    return 0;
}

int stk_green_startup(struct stk_pyhost *host)
{
    struct stk_greens *a = host->greens;
    PyObject *done;

    if (a->pid != getpid()) {
        done = PyObject_CallMethod(a->helpers, "restart", NULL);
        Py_XDECREF(done);
        if (!done)
            return loop_fail(a);
        a->pid = getpid();
    }
    a->context = PyContext_CopyCurrent();
    a->idle_max = LOOP_IDLE_MAX;
    a->pooled = true;
    return a->context ? 0 : loop_fail(a);
}

/* ---- turning ------------------------------------------------------------------------------- */

/* By the hub: one of the descriptors is readable. */
static PyObject *loop_turn(PyObject *capsule, PyObject *unused)
{
    struct stk_greens *a = loop_of(capsule);

    if (!a)
        return NULL;
    if (stk_unlikely(stk_host_is_stray(a->host)))
        stk_wsgi_end_stray();
    if (a->engine && !a->stopped && !a->engine->turn(a->engine->arg)) {
        a->stopped = true;
        return PyObject_CallMethod(a->driver, "stop", NULL);
    }
    Py_RETURN_NONE;
}

static int loop_watch(struct stk_greens *a)
{
    static PyMethodDef methods[] = {{"turn", loop_turn, METH_NOARGS, NULL}};
    PyObject *turn = loop_function(a, methods);

    if (turn)
        a->driver = PyObject_CallMethod(a->helpers, "Driver", "(ii)O", a->engine->fd,
                                        a->engine->bell, turn);
    Py_XDECREF(turn);
    return a->driver ? 0 : -1;
}

/* Lets the hub run until the engine has stopped, whatever is raised out of it. */
static int loop_run(struct stk_greens *a)
{
    PyObject *done;

    if (loop_watch(a) < 0)
        return -1;
    while (!a->stopped) {
        done = PyObject_CallMethod(a->driver, "run", NULL);
        Py_XDECREF(done);
        if (!done)
            stk_report_exception(STK_LOG_ERROR, "unhandled exception in gevent's hub");
    }
    done = PyObject_CallMethod(a->driver, "close", NULL);
    Py_XDECREF(done);
    Py_CLEAR(a->driver);
    return done ? 0 : -1;
}

int stk_green_run(struct stk_pyhost *host, struct stk_pythread *thread,
                  const struct stk_host_engine *engine)
{
    struct stk_greens *a = host->greens;
    int r;

    if (!a->hub_at || a->hub_at > (const char *)__builtin_frame_address(0)) {
        stk_log_critical("gevent's hub was started before stoker could do that (by sitecustomize, "
                         "or a .pth file?), and so it cannot be used");
        return -EINVAL;
    }
    engine->begin(engine->arg, thread);
    a->engine = engine;
    r = loop_run(a);
    if (r < 0)
        stk_report_exception(STK_LOG_CRITICAL, "gevent cannot watch the server's sockets");
    stk_green_abandon(a);
    a->engine = NULL;
    engine->end(engine->arg);
    return r < 0 ? -EIO : 0;
}

/* ---- the end ------------------------------------------------------------------------------- */

void stk_green_shutdown(struct stk_pyhost *host)
{
    struct stk_greens *a = host->greens;
    PyObject *done;

    if (!a || !a->left)
        return;
    for (struct stk_green *g = a->idle; g; g = g->next)
        if (PyList_Append(a->left, g->greenlet) < 0)
            PyErr_Clear();
    done = PyObject_CallMethod(a->helpers, "shutdown", "Od", a->left,
                               (double)host->task_grace / 1000.0);
    if (!done)
        stk_report_exception(STK_LOG_ERROR, "while greenlets were ended");
    Py_XDECREF(done);
    Py_CLEAR(a->left);
}

void stk_green_free(struct stk_pyhost *host)
{
    struct stk_greens *a = stk_steal(&host->greens);

    if (!a)
        return;
    Py_CLEAR(a->keeper.start);
    Py_CLEAR(a->context);
    Py_CLEAR(a->left);
    Py_CLEAR(a->greenlet_type);
    Py_CLEAR(a->waiter_type);
    Py_CLEAR(a->run_callback);
    Py_CLEAR(a->hub);
    Py_CLEAR(a->helpers);
    /* Greenlets that did not let themselves be ended still point to it. */
    if (a->lives == 0)
        free(a);
}

/* ---- stacks -------------------------------------------------------------------------------- */

PyObject *stk_green_title(const struct stk_request *req)
{
    stk_span method = stk_head_method(req->head);
    stk_span target = stk_head_target(req->head);
    char text[LOOP_TITLE_MAX + 64];
    int n = snprintf(text, sizeof text, "%.*s %.*s", (int)(method.len < 32 ? method.len : 32),
                     method.ptr, (int)(target.len < LOOP_TITLE_MAX ? target.len : LOOP_TITLE_MAX),
                     target.ptr);

    return PyUnicode_DecodeLatin1(text, n, NULL);
}

PyObject *stk_green_describe(const struct stk_pyhost *host, uint64_t call)
{
    const struct stk_greens *a = host->greens;
    stk_nsec now = stk_time_mono_ns();
    PyObject *list = PyList_New(0);
    PyObject *text = NULL;

    for (const struct stk_green *g = a->detached; list && g; g = g->next) {
        const struct stk_request *req = g->call.req;
        PyObject *item =
            Py_BuildValue("KNdO", (unsigned long long)req->id, stk_green_title(req),
                          (double)(now - req->started) / (double)STK_NSEC_PER_SEC, g->greenlet);

        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    if (list)
        text = PyObject_CallMethod(a->helpers, "describe", "OK", list, (unsigned long long)call);
    Py_XDECREF(list);
    return text;
}

void stk_green_log_stack(const struct stk_green *g)
{
    PyObject *title = stk_green_title(g->call.req);
    PyObject *text =
        title ? PyObject_CallMethod(g->all->helpers, "describe_late", "OO", title, g->greenlet)
              : NULL;
    Py_ssize_t len;
    const char *utf8 = text ? PyUnicode_AsUTF8AndSize(text, &len) : NULL;

    if (utf8)
        stk_log_bytes(STK_LOG_ERROR, utf8, (size_t)len);
    else
        PyErr_Clear();
    Py_XDECREF(text);
    Py_XDECREF(title);
}
