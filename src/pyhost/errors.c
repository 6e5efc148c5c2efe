/*
 * wsgi.errors: what an application writes there becomes lines of the error log.
 *
 * A line goes out when its line feed comes, so that a traceback printed piece by piece is not torn
 * into a message per piece; the piece waits in one buffer of bounded size. All threads share the
 * object: when another one writes, the waiting piece goes out first as a line of its own, so words
 * of two threads never mix in a line. The GIL is given up while the log is written, since its
 * reader may be slow.
 */
#include "pyhost/errors.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"

enum { ERRORS_LINE_MAX = 8192 }; /* a longer line goes out in pieces of this size */

typedef struct {
    PyObject_HEAD
    char *line; /* ERRORS_LINE_MAX bytes, or NULL before the first piece */
    size_t len;
    unsigned long thread; /* who began the line */
} StkErrorsObject;

static void errors_log(const char *text, size_t len)
{
    Py_BEGIN_ALLOW_THREADS
    stk_log_bytes(STK_LOG_ERROR, text, len);
    Py_END_ALLOW_THREADS
}

static void errors_flush_line(StkErrorsObject *self)
{
    char *line = self->line;
    size_t len = self->len;

    if (len == 0)
        return;
    /* Taken out first: while the GIL is away, another thread may begin its line. */
    self->line = NULL;
    self->len = 0;
    errors_log(line, len);
    if (self->line)
        free(line);
    else
        self->line = line;
}

void stk_errors_flush(PyObject *errors)
{
    StkErrorsObject *self = (StkErrorsObject *)errors;

    if (stk_unlikely(self->len != 0) && self->thread == PyThread_get_thread_ident())
        errors_flush_line(self);
}

static void errors_keep(StkErrorsObject *self, const char *text, size_t len)
{
    while (len > 0) {
        size_t n;

        if (!self->line)
            self->line = stk_mem_zalloc(ERRORS_LINE_MAX);
        n = ERRORS_LINE_MAX - self->len;
        if (n > len)
            n = len;
        memcpy(self->line + self->len, text, n);
        self->len += n;
        self->thread = PyThread_get_thread_ident();
        text += n;
        len -= n;
        if (self->len == ERRORS_LINE_MAX)
            errors_flush_line(self);
    }
}

static void errors_write_text(StkErrorsObject *self, const char *text, size_t len)
{
    const char *nl = len ? memrchr(text, '\n', len) : NULL;

    if (self->len != 0 && self->thread != PyThread_get_thread_ident())
        errors_flush_line(self);
    if (nl && self->len != 0) {
        /* Ends the waiting line with the first of the new ones. */
        const char *first = memchr(text, '\n', len);

        errors_keep(self, text, (size_t)(first - text));
        errors_flush_line(self);
        len -= (size_t)(first + 1 - text);
        text = first + 1;
        nl = len ? memrchr(text, '\n', len) : NULL;
    }
    if (nl) {
        errors_log(text, (size_t)(nl - text));
        len -= (size_t)(nl + 1 - text);
        text = nl + 1;
    }
    errors_keep(self, text, len);
}

static int errors_write_object(StkErrorsObject *self, PyObject *text)
{
    PyObject *bytes;

    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "wsgi.errors: write() takes a str, got %s",
                     Py_TYPE(text)->tp_name);
        return -1;
    }
    bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
    if (!bytes)
        return -1;
    errors_write_text(self, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    Py_DECREF(bytes);
    return 0;
}

static PyObject *errors_write(PyObject *op, PyObject *text)
{
    if (errors_write_object((StkErrorsObject *)op, text) < 0)
        return NULL;
    return PyLong_FromSsize_t(PyUnicode_GET_LENGTH(text));
}

static PyObject *errors_writelines(PyObject *op, PyObject *lines)
{
    PyObject *iter = PyObject_GetIter(lines);
    PyObject *line;

    if (!iter)
        return NULL;
    while ((line = PyIter_Next(iter))) {
        int r = errors_write_object((StkErrorsObject *)op, line);

        Py_DECREF(line);
        if (r < 0)
            break;
    }
    Py_DECREF(iter);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *errors_flush(PyObject *op, PyObject *unused)
{
    errors_flush_line((StkErrorsObject *)op);
    Py_RETURN_NONE;
}

static PyObject *errors_true(PyObject *op, PyObject *unused)
{
    Py_RETURN_TRUE;
}

static PyObject *errors_false(PyObject *op, PyObject *unused)
{
    Py_RETURN_FALSE;
}

static PyObject *errors_none(PyObject *op, PyObject *unused)
{
    Py_RETURN_NONE;
}

static PyObject *errors_get_text(PyObject *op, void *text)
{
    return PyUnicode_FromString((const char *)text);
}

static PyObject *errors_get_closed(PyObject *op, void *unused)
{
    Py_RETURN_FALSE;
}

PyObject *stk_errors_new(struct stk_state *st)
{
    StkErrorsObject *self = PyObject_New(StkErrorsObject, st->errors_type);

    if (!self)
        return NULL;
    self->line = NULL;
    self->len = 0;
    self->thread = 0;
    return (PyObject *)self;
}

static void errors_dealloc(PyObject *op)
{
    StkErrorsObject *self = (StkErrorsObject *)op;
    PyTypeObject *type = Py_TYPE(op);

    if (self->len)
        stk_log_bytes(STK_LOG_ERROR, self->line, self->len);
    free(self->line);
    PyObject_Free(op);
    Py_DECREF(type);
}

PyType_Spec *stk_errors_spec(void)
{
    static char doc[] = "A text stream into the server's error log.";
    static char encoding[] = "utf-8";
    static char mode[] = "w";
    static char name[] = "wsgi.errors";
    static PyMethodDef methods[] = {
        {"write", errors_write, METH_O, "write(text): text for the error log, line by line."},
        {"writelines", errors_writelines, METH_O, "writelines(lines): writes each of them."},
        {"flush", errors_flush, METH_NOARGS, "Logs a line that has no line feed yet."},
        {"close", errors_none, METH_NOARGS, "Does nothing."},
        {"isatty", errors_false, METH_NOARGS, "False."},
        {"readable", errors_false, METH_NOARGS, "False."},
        {"seekable", errors_false, METH_NOARGS, "False."},
        {"writable", errors_true, METH_NOARGS, "True."},
        {NULL, NULL, 0, NULL},
    };
    static PyGetSetDef getset[] = {
        {"encoding", errors_get_text, NULL, NULL, encoding},
        {"mode", errors_get_text, NULL, NULL, mode},
        {"name", errors_get_text, NULL, NULL, name},
        {"closed", errors_get_closed, NULL, NULL, NULL},
        {NULL, NULL, NULL, NULL, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, errors_dealloc},
        {Py_tp_methods, methods},
        {Py_tp_getset, getset},
        {Py_tp_doc, doc},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "stoker._core.Errors",
        .basicsize = sizeof(StkErrorsObject),
        .flags = Py_TPFLAGS_DEFAULT | STK_PY_TYPE_NO_NEW,
        .slots = slots,
    };

    return &spec;
}
