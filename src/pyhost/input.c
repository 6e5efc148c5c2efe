/*
 * wsgi.input.
 *
 * An input is LIVE while its request runs: it reads through the services of the request, straight
 * from the server's buffers, or from the socket into the bytes object that is returned. It is OWNED
 * when all that is left lies in a bytes object of its own: either the one that the server filled
 * for us (body_alloc), which read() then returns without a copy, or a copy made at the end of the
 * request for an application that kept the input. It is LOST when the request has ended and the
 * rest was too large, or had not arrived.
 *
 * All services run with the GIL, and waiting gives it up: after each wait the state is looked at
 * again, because the request may have ended (a thread of the application may be reading).
 *
 * Memory grows with what has arrived, not with what a client announces.
 */
#include "pyhost/input.h"

#include <errno.h>
#include <string.h>

#include "pyhost/respond.h"

enum input_state { INPUT_LIVE, INPUT_OWNED, INPUT_LOST };

typedef struct {
    PyObject_HEAD
    struct stk_call *call; /* while LIVE */
    PyObject *data;        /* bytes, while OWNED; NULL: empty */
    Py_ssize_t pos;        /* of data */
    int64_t consumed;      /* bytes of the body read so far, while LIVE */
    enum input_state state;
} StkInputObject;

enum {
    INPUT_KEEP_MAX = 1024 * 1024, /* copied for an application that keeps its input */
    INPUT_STEP_MIN = 64 * 1024,   /* first size of a buffer for a body of unknown length */
    INPUT_STEP_MAX = 1024 * 1024, /* the most that is allocated on a client's word alone */
};

/* ---- errors and waiting -------------------------------------------------------------------- */

static STK_COLD int input_raise(StkInputObject *self, int error)
{
    if (self->call)
        self->call->input_failed = true;
    switch (error) {
    case -ECONNRESET:
    case -EPIPE:
        stk_py_raise_errno(ECONNRESET, "the client has left before its request body was complete");
        break;
    case -ETIMEDOUT:
        stk_py_raise_errno(ETIMEDOUT, "the client sent its request body too slowly");
        break;
    case -EPROTO:
        stk_py_raise_errno(EPROTO, "the request body is malformed (chunked transfer coding)");
        break;
    default:
        stk_py_raise_errno(-error, "the request body cannot be read");
        break;
    }
    return -1;
}

static STK_COLD int input_raise_lost(void)
{
    PyErr_SetString(PyExc_ValueError,
                    "wsgi.input is read after its request has ended, and the rest of the body is "
                    "no longer there; read it before the response is complete");
    return -1;
}

/* 0 when reading may go on; the state may have changed meanwhile. */
static int input_wait(StkInputObject *self)
{
    return stk_respond_wait(self->call, STK_WAKE_INPUT);
}

/*
 * Shows unread bytes: 1 and *ret_view, 0 at the end, -1 with an exception. May turn the input from
 * LIVE to OWNED.
 */
static int input_view(StkInputObject *self, stk_span *ret_view)
{
    struct stk_body_view view;
    int r;

    while (self->state == INPUT_LIVE) {
        struct stk_request *req = self->call->req;

        if (stk_host_is_stray(self->call->host)) {
            PyErr_SetString(PyExc_RuntimeError, "wsgi.input is read in a forked process; the "
                                                "connection belongs to its parent");
            return -1;
        }
        view = (struct stk_body_view){.ptr = NULL};
        r = req->ops->body_peek(req, &view);
        if (r == 0) {
            if (view.buffer) {
                /* All of the body, in an object that we made for the server (body_alloc). */
                self->data = stk_py_newref((PyObject *)view.buffer);
                self->pos = view.ptr - PyBytes_AS_STRING(self->data);
                self->state = INPUT_OWNED;
                req->ops->body_skip(req, view.len);
                break;
            }
            *ret_view = stk_span_make(view.ptr, view.len);
            return view.len > 0;
        }
        if (r != -EAGAIN)
            return input_raise(self, r);
        if (input_wait(self) < 0)
            return -1;
    }
    if (self->state == INPUT_LOST)
        return input_raise_lost();
    if (!self->data)
        return 0;
    *ret_view = stk_span_make(PyBytes_AS_STRING(self->data) + self->pos,
                              (size_t)(PyBytes_GET_SIZE(self->data) - self->pos));
    return ret_view->len > 0;
}

/* Marks bytes of the last view as read. */
static void input_skip(StkInputObject *self, size_t len)
{
    if (self->state == INPUT_LIVE) {
        self->call->req->ops->body_skip(self->call->req, len);
        self->consumed += (int64_t)len;
    } else {
        self->pos += (Py_ssize_t)len;
    }
}

/*
 * Reads 1..len bytes into dst, straight from the socket where the server can: their number, 0 at
 * the end, -1 with an exception.
 */
static Py_ssize_t input_take(StkInputObject *self, char *dst, size_t len)
{
    stk_span view;
    ssize_t n;
    int r;

    while (self->state == INPUT_LIVE && !stk_host_is_stray(self->call->host)) {
        struct stk_request *req = self->call->req;

        n = req->ops->body_read(req, dst, len);
        if (n >= 0) {
            self->consumed += n;
            return n;
        }
        if (n != -EAGAIN)
            return input_raise(self, (int)n);
        if (input_wait(self) < 0)
            return -1;
    }
    r = input_view(self, &view);
    if (r <= 0)
        return r;
    if (view.len > len)
        view.len = len;
    memcpy(dst, view.ptr, view.len);
    input_skip(self, view.len);
    return (Py_ssize_t)view.len;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* How many bytes to make room for, of `want` (-1: all) with `have` read already. */
static Py_ssize_t input_room(const StkInputObject *self, Py_ssize_t want, Py_ssize_t have)
{
    Py_ssize_t room = have > 0 ? have : INPUT_STEP_MIN; /* doubling */
    int64_t left = -1;

    if (self->state == INPUT_OWNED)
        left = self->data ? PyBytes_GET_SIZE(self->data) - self->pos : 0;
    else if (self->state == INPUT_LIVE && self->call->req->body_length >= 0)
        left = self->call->req->body_length - self->consumed;
    if (left >= 0 && left <= INPUT_STEP_MAX)
        room = (Py_ssize_t)left;
    else if (left > 0 && room < INPUT_STEP_MAX)
        room = INPUT_STEP_MAX;
    if (left > 0 && room > left)
        room = (Py_ssize_t)left;
    if (want >= 0 && room > want - have)
        room = want - have;
    return room;
}

/* Whether the end is known to be reached, without asking. */
static bool input_is_done(const StkInputObject *self)
{
    if (self->state == INPUT_OWNED)
        return !self->data || self->pos == PyBytes_GET_SIZE(self->data);
    return self->state == INPUT_LIVE && self->call->req->body_length >= 0 &&
           self->consumed >= self->call->req->body_length;
}

/* A whole bytes object that nobody has read from is given away as it is. */
static PyObject *input_give_all(StkInputObject *self)
{
    PyObject *data = self->data;

    if (self->pos == 0) {
        self->data = NULL;
        return data ? data : PyBytes_FromStringAndSize(NULL, 0);
    }
    data = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + self->pos,
                                     PyBytes_GET_SIZE(data) - self->pos);
    if (data) {
        Py_CLEAR(self->data);
        self->pos = 0;
    }
    return data;
}

/* read(want), -1: to the end. */
static PyObject *input_read_bytes(StkInputObject *self, Py_ssize_t want)
{
    PyObject *out = NULL;
    Py_ssize_t have = 0;
    Py_ssize_t size = 0;
    stk_span view;
    int r;

    if (want == 0)
        return PyBytes_FromStringAndSize(NULL, 0);
    r = input_view(self, &view);
    if (r <= 0)
        return r < 0 ? NULL : PyBytes_FromStringAndSize(NULL, 0);
    if (self->state == INPUT_OWNED && (want < 0 || (size_t)want >= view.len))
        return input_give_all(self);
    for (;;) {
        Py_ssize_t n;

        if (have == size) {
            Py_ssize_t room = input_room(self, want, have);

            if (want >= 0 && have == want)
                return out;
            /* Room for one more byte asks whether that was all. */
            size += room > 0 ? room : 1;
            if (!out)
                out = PyBytes_FromStringAndSize(NULL, size);
            else if (_PyBytes_Resize(&out, size) < 0)
                return NULL;
            if (!out)
                return NULL;
        }
        n = input_take(self, PyBytes_AS_STRING(out) + have, (size_t)(size - have));
        if (n < 0) {
            Py_DECREF(out);
            return NULL;
        }
        have += n;
        if (n == 0 || have == want || input_is_done(self))
            break;
    }
    if (have < size && _PyBytes_Resize(&out, have) < 0)
        return NULL;
    return out;
}

/* Appends a view to a bytes object under construction. */
static int input_append(PyObject **out, stk_span view)
{
    Py_ssize_t have = *out ? PyBytes_GET_SIZE(*out) : 0;

    if (!*out)
        *out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)view.len);
    else if (_PyBytes_Resize(out, have + (Py_ssize_t)view.len) < 0)
        return -1;
    if (!*out)
        return -1;
    memcpy(PyBytes_AS_STRING(*out) + have, view.ptr, view.len);
    return 0;
}

/* readline(limit), -1: none. Empty at the end. */
static PyObject *input_read_line(StkInputObject *self, Py_ssize_t limit)
{
    PyObject *out = NULL;
    stk_span view;
    int r;

    while (limit != 0 && (r = input_view(self, &view)) != 0) {
        const char *nl;

        if (r < 0) {
            Py_XDECREF(out);
            return NULL;
        }
        if (limit > 0 && view.len > (size_t)limit)
            view.len = (size_t)limit;
        nl = memchr(view.ptr, '\n', view.len);
        if (nl)
            view.len = (size_t)(nl - view.ptr) + 1;
        if (input_append(&out, view) < 0)
            return NULL;
        input_skip(self, view.len);
        if (nl)
            break;
        if (limit > 0)
            limit -= (Py_ssize_t)view.len;
    }
    return out ? out : PyBytes_FromStringAndSize(NULL, 0);
}

/* An optional integer argument: None and absent are -1, every negative number too. */
static int input_size_arg(const char *name, PyObject *const *args, Py_ssize_t nargs,
                          Py_ssize_t *ret_size)
{
    Py_ssize_t size = -1;

    if (nargs > 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most 1 argument (%zd given)", name, nargs);
        return -1;
    }
    if (nargs == 1 && args[0] != Py_None) {
        size = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
        if (size == -1 && PyErr_Occurred())
            return -1;
    }
    *ret_size = size < 0 ? -1 : size;
    return 0;
}

/* ---- methods ------------------------------------------------------------------------------- */

static PyObject *input_read(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t size;

    if (input_size_arg("read", args, nargs, &size) < 0)
        return NULL;
    return input_read_bytes((StkInputObject *)op, size);
}

/* At most one view: what is there without waiting for more. */
static PyObject *input_read1(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    StkInputObject *self = (StkInputObject *)op;
    PyObject *out = NULL;
    Py_ssize_t size;
    stk_span view;
    int r;

    if (input_size_arg("read1", args, nargs, &size) < 0)
        return NULL;
    r = size == 0 ? 0 : input_view(self, &view);
    if (r <= 0)
        return r < 0 ? NULL : PyBytes_FromStringAndSize(NULL, 0);
    if (size > 0 && view.len > (size_t)size)
        view.len = (size_t)size;
    if (input_append(&out, view) < 0)
        return NULL;
    input_skip(self, view.len);
    return out;
}

static PyObject *input_readinto(PyObject *op, PyObject *arg)
{
    StkInputObject *self = (StkInputObject *)op;
    Py_buffer buffer;
    Py_ssize_t have = 0;

    if (!PyArg_Parse(arg, "w*:readinto", &buffer))
        return NULL;
    while (have < buffer.len) {
        Py_ssize_t n = input_take(self, (char *)buffer.buf + have, (size_t)(buffer.len - have));

        if (n < 0) {
            PyBuffer_Release(&buffer);
            return NULL;
        }
        if (n == 0)
            break;
        have += n;
    }
    PyBuffer_Release(&buffer);
    return PyLong_FromSsize_t(have);
}

static PyObject *input_readline(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t size;

    if (input_size_arg("readline", args, nargs, &size) < 0)
        return NULL;
    return input_read_line((StkInputObject *)op, size);
}

static PyObject *input_readlines(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    StkInputObject *self = (StkInputObject *)op;
    Py_ssize_t hint;
    Py_ssize_t total = 0;
    PyObject *list;

    if (input_size_arg("readlines", args, nargs, &hint) < 0)
        return NULL;
    list = PyList_New(0);
    while (list && (hint <= 0 || total < hint)) {
        PyObject *line = input_read_line(self, -1);
        Py_ssize_t len = line ? PyBytes_GET_SIZE(line) : -1;

        if (len > 0 && PyList_Append(list, line) < 0)
            len = -1;
        Py_XDECREF(line);
        if (len < 0)
            Py_CLEAR(list);
        if (len <= 0)
            break;
        total += len;
    }
    return list;
}

static PyObject *input_next(PyObject *op)
{
    PyObject *line = input_read_line((StkInputObject *)op, -1);

    if (line && PyBytes_GET_SIZE(line) == 0)
        Py_CLEAR(line);
    return line;
}

static PyObject *input_self(PyObject *op, PyObject *unused)
{
    return stk_py_newref(op);
}

static PyObject *input_iter(PyObject *op)
{
    return stk_py_newref(op);
}

static PyObject *input_true(PyObject *op, PyObject *unused)
{
    Py_RETURN_TRUE;
}

static PyObject *input_false(PyObject *op, PyObject *unused)
{
    Py_RETURN_FALSE;
}

/* close, flush, __exit__: the connection is the server's, so there is nothing to do. */
static PyObject *input_nothing(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    Py_RETURN_NONE;
}

static PyObject *input_get_closed(PyObject *op, void *unused)
{
    Py_RETURN_FALSE;
}

/* ---- life ---------------------------------------------------------------------------------- */

static StkInputObject *input_alloc(struct stk_state *st, struct stk_call *call)
{
    StkInputObject *self = PyObject_New(StkInputObject, st->input_type);

    if (!self)
        return NULL;
    self->call = call;
    self->data = NULL;
    self->pos = 0;
    self->consumed = 0;
    self->state = call ? INPUT_LIVE : INPUT_OWNED;
    return self;
}

PyObject *stk_input_new_empty(struct stk_state *st)
{
    return (PyObject *)input_alloc(st, NULL);
}

PyObject *stk_input_new(struct stk_call *call)
{
    return (PyObject *)input_alloc(call->host->st, call);
}

/* Collects what lies in memory of the rest; true when that is all of it. */
static bool input_keep_rest(StkInputObject *self)
{
    struct stk_request *req = self->call->req;
    PyObject *kept = NULL;

    for (;;) {
        struct stk_body_view view = {.ptr = NULL};
        Py_ssize_t have = kept ? PyBytes_GET_SIZE(kept) : 0;
        int r = req->ops->body_peek(req, &view);

        if (r == 0 && view.len == 0)
            break;
        if (r == 0 && view.buffer) {
            Py_XDECREF(kept); /* always NULL: the buffer is the whole body */
            self->pos = view.ptr - PyBytes_AS_STRING((PyObject *)view.buffer);
            self->data = stk_py_newref((PyObject *)view.buffer);
            req->ops->body_skip(req, view.len);
            return true;
        }
        if (r != 0 || (size_t)have + view.len > INPUT_KEEP_MAX ||
            input_append(&kept, stk_span_make(view.ptr, view.len)) < 0) {
            PyErr_Clear();
            Py_XDECREF(kept);
            return false;
        }
        req->ops->body_skip(req, view.len);
    }
    self->data = kept;
    self->pos = 0;
    return true;
}

void stk_input_release(PyObject *op)
{
    StkInputObject *self = (StkInputObject *)op;

    if (self->state == INPUT_LIVE && Py_REFCNT(op) > 1)
        self->state = input_keep_rest(self) ? INPUT_OWNED : INPUT_LOST;
    else if (self->state == INPUT_LIVE)
        self->state = INPUT_LOST;
    self->call = NULL;
    Py_DECREF(op);
}

static void input_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);

    Py_XDECREF(((StkInputObject *)op)->data);
    PyObject_Free(op);
    Py_DECREF(type);
}

#define INPUT_FAST(fn) (PyCFunction)(void (*)(void))(fn)

PyType_Spec *stk_input_spec(void)
{
    static char doc[] = "The body of a request, as a binary file object.";
    static PyMethodDef methods[] = {
        {"read", INPUT_FAST(input_read), METH_FASTCALL,
         "read(size=-1): size bytes of the body, fewer only at its end; -1 or None: all the rest."},
        {"read1", INPUT_FAST(input_read1), METH_FASTCALL,
         "read1(size=-1): what has arrived, at least one byte unless at the end."},
        {"readinto", input_readinto, METH_O, "readinto(buffer): fills it, returns how many bytes."},
        {"readline", INPUT_FAST(input_readline), METH_FASTCALL,
         "readline(size=-1): bytes up to and with the next line feed, at most size."},
        {"readlines", INPUT_FAST(input_readlines), METH_FASTCALL,
         "readlines(hint=-1): a list of lines, until they have hint bytes or more."},
        {"readable", input_true, METH_NOARGS, "True."},
        {"writable", input_false, METH_NOARGS, "False."},
        {"seekable", input_false, METH_NOARGS, "False."},
        {"isatty", input_false, METH_NOARGS, "False."},
        {"flush", INPUT_FAST(input_nothing), METH_FASTCALL, "Does nothing."},
        {"close", INPUT_FAST(input_nothing), METH_FASTCALL,
         "Does nothing: the body stays readable."},
        {"__enter__", input_self, METH_NOARGS, NULL},
        {"__exit__", INPUT_FAST(input_nothing), METH_FASTCALL, NULL},
        {NULL, NULL, 0, NULL},
    };
    static PyGetSetDef getset[] = {
        {"closed", input_get_closed, NULL, "False.", NULL},
        {NULL, NULL, NULL, NULL, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, input_dealloc},
        {Py_tp_iter, input_iter},
        {Py_tp_iternext, input_next},
        {Py_tp_methods, methods},
        {Py_tp_getset, getset},
        {Py_tp_doc, doc},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "stoker._core.Input",
        .basicsize = sizeof(StkInputObject),
        .flags = Py_TPFLAGS_DEFAULT | STK_PY_TYPE_NO_NEW,
        .slots = slots,
    };

    return &spec;
}
