/*
 * wsgi.file_wrapper: FileWrapper(filelike, blksize=8192), an iterator over blocks of a file, which
 * the server sends by its descriptor when it is what the application returns.
 *
 * A fileno() alone does not say that the descriptor holds what read() returns: a GzipFile has one,
 * too. So only the io module's own binary files are sent by descriptor (also inside of a
 * tempfile wrapper), from their logical position, which for a buffered reader differs from the
 * descriptor's; all others are read block by block.
 */
#include "pyhost/filewrapper.h"

#include <sys/stat.h>

typedef struct {
    PyObject_HEAD
    PyObject *filelike;
    Py_ssize_t blksize;
} StkFileWrapperObject;

enum { FILEWRAPPER_BLOCK = 8192 };

static PyObject *filewrapper_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char filelike_name[] = "filelike";
    static char blksize_name[] = "blksize";
    static char *keywords[] = {filelike_name, blksize_name, NULL};
    StkFileWrapperObject *self;
    PyObject *filelike;
    Py_ssize_t blksize = FILEWRAPPER_BLOCK;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|n:FileWrapper", keywords, &filelike,
                                     &blksize))
        return NULL;
    self = (StkFileWrapperObject *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->filelike = stk_py_newref(filelike);
    self->blksize = blksize > 0 ? blksize : FILEWRAPPER_BLOCK;
    return (PyObject *)self;
}

static int filewrapper_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((StkFileWrapperObject *)op)->filelike);
    return 0;
}

static int filewrapper_clear(PyObject *op)
{
    Py_CLEAR(((StkFileWrapperObject *)op)->filelike);
    return 0;
}

static void filewrapper_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);

    PyObject_GC_UnTrack(op);
    filewrapper_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *filewrapper_iter(PyObject *op)
{
    return stk_py_newref(op);
}

static PyObject *filewrapper_next(PyObject *op)
{
    StkFileWrapperObject *self = (StkFileWrapperObject *)op;
    PyObject *block = PyObject_CallMethod(self->filelike, "read", "n", self->blksize);
    int more;

    if (!block)
        return NULL;
    more = PyObject_IsTrue(block);
    if (more <= 0)
        Py_CLEAR(block);
    return block;
}

static PyObject *filewrapper_close(PyObject *op, PyObject *unused)
{
    struct stk_state *st = (struct stk_state *)PyType_GetModuleState(Py_TYPE(op));
    PyObject *filelike = ((StkFileWrapperObject *)op)->filelike;
    PyObject *close;
    PyObject *result;

    if (!st || !stk_state_name(st, STK_NAME_close) || !filelike) /* the interpreter ends */
        Py_RETURN_NONE;
    switch (stk_py_lookup_attr(filelike, stk_state_name(st, STK_NAME_close), &close)) {
    case 0:
        Py_RETURN_NONE;
    case 1:
        result = PyObject_CallNoArgs(close);
        Py_DECREF(close);
        return result;
    default:
        return NULL;
    }
}

/* ---- by descriptor ------------------------------------------------------------------------- */

/* 1 if the object is exactly io.`name`, 0 if not, -1 with an exception. */
static int filewrapper_is_io(PyObject *io, PyObject *file, const char *name)
{
    PyObject *type = PyObject_GetAttrString(io, name);
    int r = type ? (PyObject *)Py_TYPE(file) == type : -1;

    Py_XDECREF(type);
    return r;
}

/* The binary file of the io module that `filelike` is or wraps: 1 and *ret_file, 0, or -1. */
static int filewrapper_find_io(const struct stk_state *st, PyObject *filelike, PyObject **ret_file)
{
    static const char *const names[] = {"BufferedReader", "FileIO", "BufferedRandom"};
    PyObject *io = PyImport_ImportModule("io");
    PyObject *file = stk_py_newref(filelike);
    int r = io ? 0 : -1;

    /* tempfile.NamedTemporaryFile is a Python object around a file. */
    if (r == 0 && strcmp(Py_TYPE(filelike)->tp_name, "_TemporaryFileWrapper") == 0) {
        PyObject *inner = NULL;

        r = stk_py_lookup_attr(filelike, stk_state_name(st, STK_NAME_file), &inner);
        if (r > 0)
            Py_SETREF(file, inner);
        r = r < 0 ? -1 : 0;
    }
    for (size_t i = 0; r == 0 && i < STK_ARRAY_LEN(names); i++)
        r = filewrapper_is_io(io, file, names[i]);
    Py_XDECREF(io);
    if (r > 0)
        *ret_file = file;
    else
        Py_DECREF(file);
    return r;
}

/* The result of file.name() as an integer; -1 with an exception. */
static long long filewrapper_ask(const struct stk_state *st, PyObject *file,
                                 enum stk_state_name name)
{
    PyObject *value = PyObject_CallMethodNoArgs(file, stk_state_name(st, name));
    long long n = -1;

    if (value)
        n = PyLong_AsLongLong(value);
    Py_XDECREF(value);
    return n;
}

/* Descriptor, position and length of what is left of a regular file. 1, or 0 when there is none. */
static int filewrapper_locate(const struct stk_state *st, PyObject *file, int *ret_fd,
                              int64_t *ret_off, uint64_t *ret_len)
{
    PyObject *flushed = PyObject_CallMethodNoArgs(file, stk_state_name(st, STK_NAME_flush));
    long long fd = flushed ? filewrapper_ask(st, file, STK_NAME_fileno) : -1;
    long long pos = fd >= 0 ? filewrapper_ask(st, file, STK_NAME_tell) : -1;
    struct stat stat;

    Py_XDECREF(flushed);
    if (PyErr_Occurred()) {
        /* Closed, detached, not seekable: reading it will say so, if it matters. */
        PyErr_Clear();
        return 0;
    }
    /* A file of /proc or /sys says that it is empty: only reading it tells. */
    if (fd < 0 || fd > INT_MAX || pos < 0 || fstat((int)fd, &stat) < 0 || !S_ISREG(stat.st_mode) ||
        stat.st_size == 0)
        return 0;
    *ret_fd = (int)fd;
    *ret_off = pos;
    *ret_len = stat.st_size > pos ? (uint64_t)(stat.st_size - pos) : 0;
    return 1;
}

int stk_filewrapper_send(struct stk_call *call, PyObject *wrapper, bool *ret_sent)
{
    const struct stk_state *st = call->host->st;
    PyObject *file;
    int fd;
    int64_t off;
    uint64_t len;
    int r;

    r = filewrapper_find_io(st, ((StkFileWrapperObject *)wrapper)->filelike, &file);
    if (r <= 0)
        return r;
    r = filewrapper_locate(st, file, &fd, &off, &len);
    if (r > 0) {
        if (call->length >= 0 && len > (uint64_t)call->length)
            len = (uint64_t)call->length;
        *ret_sent = true;
        r = len > 0 ? stk_respond_sendfile(call, fd, off, len)
                    : stk_respond_write(call, "", 0, STK_WRITE_END);
    }
    Py_DECREF(file);
    return r;
}

/* ---- the type ------------------------------------------------------------------------------ */

PyType_Spec *stk_filewrapper_spec(void)
{
    static char doc[] = "FileWrapper(filelike, blksize=8192): wsgi.file_wrapper of PEP 3333.";
    static PyMemberDef members[] = {
        {"filelike", STK_PY_OBJECT_MEMBER, offsetof(StkFileWrapperObject, filelike),
         STK_PY_READONLY, "The wrapped file."},
        {"blksize", STK_PY_SSIZE_MEMBER, offsetof(StkFileWrapperObject, blksize), STK_PY_READONLY,
         "How many bytes are read at a time."},
        {NULL, 0, 0, 0, NULL},
    };
    static PyMethodDef methods[] = {
        {"close", filewrapper_close, METH_NOARGS, "Closes the wrapped file, if it can be closed."},
        {NULL, NULL, 0, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_new, filewrapper_new},
        {Py_tp_dealloc, filewrapper_dealloc},
        {Py_tp_traverse, filewrapper_traverse},
        {Py_tp_clear, filewrapper_clear},
        {Py_tp_iter, filewrapper_iter},
        {Py_tp_iternext, filewrapper_next},
        {Py_tp_methods, methods},
        {Py_tp_members, members},
        {Py_tp_doc, doc},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "stoker._core.FileWrapper",
        .basicsize = sizeof(StkFileWrapperObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
        .slots = slots,
    };

    return &spec;
}
