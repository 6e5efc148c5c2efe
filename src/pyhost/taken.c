/*
 * stoker._core._connection(), _field(), _take() and _taken(). An object goes with a connection that
 * is taken: what speaks on it. It is kept in the place of wsgi.input, which there is none of
 * without a body, and let go of as that is, at the end of the request. So no request pays for
 * these.
 */
#include "pyhost/taken.h"

#include <errno.h>

#include "pyhost/context.h"
#include "pyhost/state.h"

/* The request in progress; NULL with an exception. */
static struct stk_call *taken_call(PyObject *module)
{
    const struct stk_pyhost *host = stk_state_of(module)->host;
    struct stk_call *call = host ? stk_context_current(host) : NULL;

    if (!call || call->over)
        PyErr_SetString(PyExc_RuntimeError, "there is no request in this thread or greenlet");
    return call && !call->over ? call : NULL;
}

static PyObject *taken_connection(PyObject *module, PyObject *unused)
{
    struct stk_call *call = taken_call(module);
    struct stk_wait wait;

    if (!call)
        return NULL;
    call->req->ops->wait_for(call->req, &wait);
    return Py_BuildValue("iL", wait.fd, (long long)call->req->body_length);
}

static PyObject *taken_field(PyObject *module, PyObject *name)
{
    const struct stk_call *call = taken_call(module);
    const struct stk_head *head;
    stk_span wanted;
    Py_ssize_t len;

    if (!call)
        return NULL;
    wanted.ptr = PyUnicode_AsUTF8AndSize(name, &len);
    if (!wanted.ptr)
        return NULL;
    wanted.len = (size_t)len;
    head = call->req->head;
    for (unsigned i = 0; i < head->nfields; i++) {
        stk_span value = stk_head_field_value(head, &head->fields[i]);

        if (stk_span_ieq(stk_head_field_name(head, &head->fields[i]), wanted))
            return PyBytes_FromStringAndSize(value.ptr, (Py_ssize_t)value.len);
    }
    Py_RETURN_NONE;
}

static PyObject *taken_raise(int error)
{
    switch (error) {
    case -EALREADY:
        PyErr_SetString(PyExc_OSError, "the response has begun");
        break;
    case -ENOTSUP:
        PyErr_SetString(PyExc_OSError, "only a plain HTTP/1.1 connection can be taken, and a "
                                       "request without a body");
        break;
    default:
        errno = -error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return NULL;
}

static PyObject *taken_take(PyObject *module, PyObject *args)
{
    struct stk_call *call = taken_call(module);
    PyObject *make, *made;
    unsigned status;
    int fd;

    if (!call || !PyArg_ParseTuple(args, "IO", &status, &make))
        return NULL;
    if (call->input || call->taken || call->started || !call->req->ops->take)
        return taken_raise(call->started || call->taken ? -EALREADY : -ENOTSUP);
    fd = call->req->ops->take(call->req, status);
    if (fd < 0)
        return taken_raise(fd);
    call->taken = call->started = call->gone = true;
    call->status = status;
    made = PyObject_CallFunction(make, "i", fd);
    call->input = made;
    return made ? stk_py_newref(made) : NULL;
}

static PyObject *taken_taken(PyObject *module, PyObject *unused)
{
    const struct stk_pyhost *host = stk_state_of(module)->host;
    const struct stk_call *call = host ? stk_context_current(host) : NULL;

    if (!call || !call->taken || !call->input)
        Py_RETURN_NONE;
    return stk_py_newref(call->input);
}

PyMethodDef *stk_taken_methods(void)
{
    static PyMethodDef methods[] = {
        {"_connection", taken_connection, METH_NOARGS,
         "_connection(): the descriptor of the request's connection, and the length of its body "
         "(-1: not known)."},
        {"_field", taken_field, METH_O,
         "_field(name): the first field of the request with that name, in bytes, or None."},
        {"_take", taken_take, METH_VARARGS,
         "_take(status, make): takes the connection of the request; what make(descriptor) returns "
         "goes with it until the request ends."},
        {"_taken", taken_taken, METH_NOARGS,
         "_taken(): what goes with the connection that the request has taken, or None."},
        {NULL, NULL, 0, NULL},
    };

    return methods;
}
