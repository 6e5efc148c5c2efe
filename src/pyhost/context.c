/*
 * environ["stoker.disconnected"]() and environ["stoker.set_timeout"](seconds), and what the module
 * `uwsgi` needs of the request in progress. The first two are values of
 * the template that every environ is copied from, so they cost a request nothing; which request
 * they are about is found when they are called, by the thread that calls.
 */
#include "pyhost/context.h"

#include <errno.h>
#include <math.h>

#include "pyhost/green.h"

/* Days, where the limits of options end too. */
#define CONTEXT_SECONDS_MAX 31536000.0

struct stk_call *stk_context_current(const struct stk_pyhost *host)
{
    PyThreadState *ts = PyThreadState_Get();

    if (stk_host_is_stray(host))
        return NULL;
    if (host->greens)
        return stk_green_current(host);
    for (unsigned i = 0; i < host->nthreads; i++) {
        struct stk_pythread *t = host->threads[i];

        if (t && t->call && t->call->ts == ts)
            return t->call;
    }
    return NULL;
}

/* The call that runs on this thread; NULL with an exception. */
static struct stk_call *context_call(PyObject *capsule, const char *who)
{
    const struct stk_pyhost *host = PyCapsule_GetPointer(capsule, "host");
    struct stk_call *call = NULL;

    if (!host)
        return NULL;
    if (!PyCapsule_GetContext(capsule)) /* else the host is gone */
        call = stk_context_current(host);
    if (call)
        return call;
    PyErr_Format(PyExc_RuntimeError,
                 "environ['stoker.%s'] was called outside of its request, or in another thread (or "
                 "greenlet)",
                 who);
    return NULL;
}

static PyObject *context_disconnected(PyObject *capsule, PyObject *unused)
{
    struct stk_call *call = context_call(capsule, "disconnected");

    return call ? PyBool_FromLong(call->req->ops->is_disconnected(call->req)) : NULL;
}

static PyObject *context_set_timeout(PyObject *capsule, PyObject *seconds)
{
    struct stk_call *call = context_call(capsule, "set_timeout");
    double value;
    int r;

    if (!call)
        return NULL;
    value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred())
        return NULL;
    if (!(value >= 0.0 && value <= CONTEXT_SECONDS_MAX)) {
        PyErr_Format(PyExc_ValueError,
                     "environ['stoker.set_timeout'](seconds) takes 0 (no limit) to a year, got %R",
                     seconds);
        return NULL;
    }
    r = call->req->ops->set_timeout(call->req, (stk_msec)ceil(value * 1000.0));
    if (r < 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "environ['stoker.set_timeout'] needs the stand-by thread, which "
                        "takeover = false has switched off");
        return NULL;
    }
    Py_RETURN_NONE;
}

/* A str, as UTF-8 with what it was decoded from, or bytes. False with an exception. */
static bool context_bytes(PyObject *object, PyObject **ret_owner, stk_span *ret)
{
    char *text;
    Py_ssize_t len;

    *ret_owner = PyUnicode_Check(object)
                     ? PyUnicode_AsEncodedString(object, "utf-8", "surrogateescape")
                     : stk_py_newref(object);
    if (!*ret_owner)
        return false;
    if (PyBytes_AsStringAndSize(*ret_owner, &text, &len) < 0) {
        Py_CLEAR(*ret_owner);
        return false;
    }
    *ret = stk_span_make(text, (size_t)len);
    return true;
}

static PyObject *context_set_logvar(PyObject *capsule, PyObject *args)
{
    struct stk_call *call = context_call(capsule, "set_logvar");
    PyObject *name, *value, *owners[2] = {NULL, NULL};
    stk_span spans[2];
    int r = 0;

    if (!call || !PyArg_ParseTuple(args, "OO:set_logvar", &name, &value))
        return NULL;
    if (!context_bytes(name, &owners[0], &spans[0]))
        return NULL;
    if (context_bytes(value, &owners[1], &spans[1]))
        r = call->req->ops->set_logvar(call->req, spans[0], spans[1]);
    Py_XDECREF(owners[0]);
    Py_XDECREF(owners[1]);
    if (r == -EINVAL)
        PyErr_SetString(PyExc_ValueError, "the name of a log variable has 1 to 255 bytes");
    else if (r == -ENOSPC)
        PyErr_SetString(PyExc_ValueError, "a request has at most 64 log variables");
    else if (r < 0)
        PyErr_NoMemory();
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *context_get_logvar(PyObject *capsule, PyObject *name)
{
    struct stk_call *call = context_call(capsule, "get_logvar");
    char value[1024];
    PyObject *owner;
    stk_span span;
    size_t len;

    if (!call || !context_bytes(name, &owner, &span))
        return NULL;
    len = call->req->ops->get_logvar(call->req, span, value, sizeof value);
    Py_DECREF(owner);
    if (len == 0)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(value, (Py_ssize_t)len);
}

static PyObject *context_log_this(PyObject *capsule, PyObject *unused)
{
    struct stk_call *call = context_call(capsule, "log_this");

    if (!call)
        return NULL;
    call->req->ops->log_this(call->req);
    Py_RETURN_NONE;
}

int stk_context_add_log(struct stk_pyhost *host)
{
    static PyMethodDef methods[] = {
        {"_set_logvar", context_set_logvar, METH_VARARGS,
         "_set_logvar(name, value): a variable of this request for the access log."},
        {"_get_logvar", context_get_logvar, METH_O,
         "_get_logvar(name): what _set_logvar has set, or None."},
        {"_log_this", context_log_this, METH_NOARGS,
         "_log_this(): has this request logged, whatever access-log-only says."},
    };
    int r = host->context ? 0 : -1;

    for (size_t i = 0; r == 0 && i < STK_ARRAY_LEN(methods); i++) {
        PyObject *function = PyCFunction_New(&methods[i], host->context);

        r = function ? PyObject_SetAttrString(host->module, methods[i].ml_name, function) : -1;
        Py_XDECREF(function);
    }
    return r;
}

int stk_context_add(struct stk_pyhost *host, PyObject *dict)
{
    static PyMethodDef methods[] = {
        {"disconnected", context_disconnected, METH_NOARGS,
         "disconnected(): whether the client is known to have left."},
        {"set_timeout", context_set_timeout, METH_O,
         "set_timeout(seconds): the time that this request may take from now on, in place of "
         "request-timeout; 0: no limit."},
    };
    static const enum stk_state_name names[] = {STK_NAME_stoker_disconnected,
                                                STK_NAME_stoker_set_timeout};
    int r = 0;

    if (!host->context)
        host->context = PyCapsule_New(host, "host", NULL);
    for (size_t i = 0; host->context && r == 0 && i < STK_ARRAY_LEN(names); i++) {
        PyObject *function = PyCFunction_New(&methods[i], host->context);

        r = function ? PyDict_SetItem(dict, stk_state_name(host->st, names[i]), function) : -1;
        Py_XDECREF(function);
    }
    return host->context ? r : -1;
}

void stk_context_forget(struct stk_pyhost *host)
{
    if (host->context && PyCapsule_SetContext(host->context, host) < 0)
        PyErr_Clear();
    Py_CLEAR(host->context);
}
