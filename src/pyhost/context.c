/*
 * environ["stoker.disconnected"]() and environ["stoker.set_timeout"](seconds). They are values of
 * the template that every environ is copied from, so they cost a request nothing; which request
 * they are about is found when they are called, by the thread that calls.
 */
#include "pyhost/context.h"

#include <errno.h>
#include <math.h>

#include "pyhost/green.h"

/* Days, where the limits of options end too. */
#define CONTEXT_SECONDS_MAX 31536000.0

/* The call that runs on this thread; NULL with an exception. */
static struct stk_call *context_call(PyObject *capsule, const char *who)
{
    struct stk_pyhost *host = PyCapsule_GetPointer(capsule, "host");
    PyThreadState *ts = PyThreadState_Get();

    if (!host)
        return NULL;
    if (PyCapsule_GetContext(capsule)) /* the host is gone */
        host = NULL;
    if (host && host->greens && !stk_host_is_stray(host)) {
        struct stk_call *call = stk_green_current(host);

        if (call)
            return call;
        host = NULL;
    }
    for (unsigned i = 0; host && i < host->nthreads; i++) {
        struct stk_pythread *t = host->threads[i];

        if (t && t->call && t->call->ts == ts && !stk_host_is_stray(host))
            return t->call;
    }
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
