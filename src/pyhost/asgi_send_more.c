/*
 * The messages of extensions: files as body (http.response.pathsend, http.response.zerocopysend),
 * http.response.early_hint and http.response.trailers.
 *
 * Trailers are sent to clients that ask for them (TE: trailers). An application that announces them
 * to another one is let do so: its response ends with its body, and the trailers are taken and
 * forgotten, as the extension says. Early hints that come too late are forgotten as well.
 */
#include "pyhost/asgi_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "pyhost/respond.h"

enum { MORE_SHOWN_MAX = 200, MORE_FIELDS_MAX = 4096 };

bool stk_send_is_over(const StkExchange *ex)
{
    if (stk_likely(ex->call.req != NULL && ex->state != STK_ASGI_ENDED))
        return false;
    PyErr_SetString(PyExc_RuntimeError, "send(): the response was ended while it was called");
    return true;
}

/* ---- files --------------------------------------------------------------------------------- */

/* http.response.pathsend: a file by its path, as the whole body. */
int stk_send_path(StkExchange *ex, PyObject *message)
{
    PyObject *path = stk_send_get(ex->call.host->st, message, STK_NAME_s_path);
    PyObject *bytes = NULL;
    STK_CLEANUP(stk_fd_closep) int fd = -1;
    struct stat info;

    if (!path || !PyUnicode_FSConverter(path, &bytes)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "http.response.pathsend has no 'path'");
        return -1;
    }
    fd = open(PyBytes_AS_STRING(bytes), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    Py_DECREF(bytes);
    if (fd < 0 || fstat(fd, &info) < 0) {
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
        return -1;
    }
    if (!S_ISREG(info.st_mode)) {
        PyErr_Format(PyExc_ValueError, "http.response.pathsend: %R is not a regular file", path);
        return -1;
    }
    if (stk_send_is_over(ex))
        return -1;
    return stk_send_file(ex, fd, 0, (uint64_t)info.st_size, true);
}

/* An int member, or `otherwise` where it is absent or None; -2 with an exception. */
static int64_t send_int(const struct stk_state *st, PyObject *message, enum stk_state_name name,
                        int64_t otherwise)
{
    PyObject *value = stk_send_get(st, message, name);
    int64_t n;

    if (!value || value == Py_None)
        return PyErr_Occurred() ? -2 : otherwise;
    n = PyLong_AsLongLong(value);
    if (n < 0) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "http.response.zerocopysend: %R is negative", value);
        return -2;
    }
    return n;
}

/*
 * Where a file object is, or moves it there (offset >= 0). One that reads ahead is further on than
 * its descriptor shows; a descriptor without an object is asked itself. -1 with an exception.
 */
static int64_t zerocopy_seek(const struct stk_state *st, PyObject *file, int fd, int64_t offset)
{
    PyObject *result = NULL;
    int64_t at = -1;

    if (PyLong_Check(file) || !PyObject_HasAttr(file, stk_state_name(st, STK_NAME_tell))) {
        at = lseek(fd, offset < 0 ? 0 : offset, offset < 0 ? SEEK_CUR : SEEK_SET);
        if (at < 0)
            PyErr_SetFromErrno(PyExc_OSError);
        return at;
    }
    if (offset < 0)
        result = PyObject_CallMethodNoArgs(file, stk_state_name(st, STK_NAME_tell));
    else
        result = PyObject_CallMethod(file, "seek", "L", (long long)offset);
    if (result)
        at = offset < 0 ? PyLong_AsLongLong(result) : offset;
    Py_XDECREF(result);
    if (at < 0 && !PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "http.response.zerocopysend: tell() is negative");
    return at;
}

/* http.response.zerocopysend: a part of an open file. */
int stk_send_zerocopy(StkExchange *ex, PyObject *message)
{
    const struct stk_state *st = ex->call.host->st;
    PyObject *file = stk_send_get(st, message, STK_NAME_file);
    int64_t offset = send_int(st, message, STK_NAME_s_offset, -1);
    int64_t count = send_int(st, message, STK_NAME_s_count, -1);
    int more = stk_send_flag(st, message, STK_NAME_s_more_body, 0);
    struct stat info;
    bool follows;
    int fd;

    if (!file && !PyErr_Occurred())
        PyErr_SetString(PyExc_KeyError, "http.response.zerocopysend has no 'file'");
    if (!file || offset == -2 || count == -2 || more < 0)
        return -1;
    fd = PyObject_AsFileDescriptor(file);
    if (fd < 0)
        return -1;
    if (fstat(fd, &info) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (!S_ISREG(info.st_mode)) {
        PyErr_SetString(PyExc_ValueError,
                        "http.response.zerocopysend: the file is not a regular file");
        return -1;
    }
    follows = offset < 0; /* the file's position, which moves as with os.sendfile(offset=None) */
    if (follows)
        offset = zerocopy_seek(st, file, fd, -1);
    if (offset < 0)
        return -1;
    if (count < 0 || count > info.st_size - offset)
        count = info.st_size > offset ? info.st_size - offset : 0;
    if (follows && zerocopy_seek(st, file, fd, offset + count) < 0)
        return -1;
    if (stk_send_is_over(ex))
        return -1;
    return stk_send_file(ex, fd, offset, (uint64_t)count, !more);
}

/* ---- early hints --------------------------------------------------------------------------- */

static int more_raise_value(const char *what, stk_span shown, int error)
{
    PyObject *name = PyBytes_FromStringAndSize(
        shown.ptr, (Py_ssize_t)(shown.len < MORE_SHOWN_MAX ? shown.len : MORE_SHOWN_MAX));
    const char *why = error == STK_RESPONSE_E_TRAILER
                          ? "it must not come behind the body (RFC 9110 6.5.1)"
                      : error == STK_RESPONSE_E_HEAD_SIZE ? "with the others it is over 64 KiB"
                                                          : stk_respond_field_fault(error);

    if (name)
        PyErr_Format(PyExc_ValueError, "%s %R: %s", what, name, why);
    Py_XDECREF(name);
    return -1;
}

/* The items of a member as a list of at most MORE_FIELDS_MAX; NULL with an exception. */
static PyObject *more_list(PyObject *value, const char *what)
{
    PyObject *list = value && value != Py_None ? PySequence_List(value) : NULL;

    if (!value || value == Py_None)
        return PyErr_Occurred() ? NULL : PyList_New(0);
    if (list && PyList_GET_SIZE(list) > MORE_FIELDS_MAX) {
        PyErr_Format(PyExc_ValueError, "%s: there are more than %d", what, MORE_FIELDS_MAX);
        Py_CLEAR(list);
    }
    return list;
}

static int hint_send(StkExchange *ex, const stk_span *links, size_t n)
{
    struct stk_request *req = ex->call.req;
    int r = req->ops->early_hint(req, links, n);

    if (stk_likely(r == 0))
        return 0;
    if (r == STK_RESPONSE_E_VALUE)
        for (size_t i = 0; i < n; i++)
            if (links[i].len == 0 || req->ops->early_hint(req, &links[i], 1) == r)
                return more_raise_value("http.response.early_hint: link", links[i], r);
    if (r == STK_RESPONSE_E_HEAD_SIZE)
        return more_raise_value("http.response.early_hint: link", links[n - 1], r);
    return stk_send_failed(ex, r);
}

int stk_send_early_hint(StkExchange *ex, PyObject *message)
{
    PyObject *list = more_list(stk_send_get(ex->call.host->st, message, STK_NAME_s_links),
                               "http.response.early_hint: links");
    size_t n = list ? (size_t)PyList_GET_SIZE(list) : 0;
    STK_CLEANUP(stk_mem_freep) stk_span *links = stk_try_alloc((n + 1) * sizeof *links);
    int r = list && links ? 0 : -1;

    if (list && !links)
        PyErr_NoMemory();
    for (size_t i = 0; r == 0 && i < n; i++) {
        PyObject *link = PyList_GET_ITEM(list, (Py_ssize_t)i);

        if (PyBytes_Check(link)) {
            links[i] = stk_span_make(PyBytes_AS_STRING(link), (size_t)PyBytes_GET_SIZE(link));
        } else {
            PyErr_Format(PyExc_TypeError,
                         "http.response.early_hint: each link must be bytes, got %.200R", link);
            r = -1;
        }
    }
    if (r == 0 && ex->state <= STK_ASGI_STARTED)
        r = stk_send_is_over(ex) ? -1 : hint_send(ex, links, n);
    Py_XDECREF(list);
    return r;
}

/* ---- trailers ------------------------------------------------------------------------------ */

static bool scope_has_word(stk_span list, stk_span word)
{
    while (list.len > 0) {
        const char *comma = memchr(list.ptr, ',', list.len);
        stk_span item = stk_span_make(list.ptr, comma ? (size_t)(comma - list.ptr) : list.len);

        list = stk_span_make(list.ptr + item.len + (comma ? 1 : 0),
                             list.len - item.len - (comma ? 1 : 0));
        while (item.len > 0 && (*item.ptr == ' ' || *item.ptr == '\t'))
            item = stk_span_make(item.ptr + 1, item.len - 1);
        if (item.len >= word.len && stk_span_ieq(stk_span_make(item.ptr, word.len), word) &&
            (item.len == word.len || strchr(" \t;", item.ptr[word.len])))
            return true;
    }
    return false;
}

bool stk_scope_takes_trailers(const struct stk_head *head)
{
    if (head->path_apart || head->version_minor == 0)
        return false;
    for (unsigned i = 0; i < head->nfields; i++) {
        const struct stk_head_field *f = &head->fields[i];

        if (f->name_len == 2 && stk_span_ieq(stk_head_field_name(head, f), STK_SPAN_LIT("te")) &&
            scope_has_word(stk_head_field_value(head, f), STK_SPAN_LIT("trailers")))
            return true;
    }
    return false;
}

/* Adds the fields of a message to those of the ones before. 0, or -1 with an exception. */
static int trailers_add(StkExchange *ex, PyObject *message)
{
    PyObject *list = more_list(stk_send_get(ex->call.host->st, message, STK_NAME_headers),
                               "http.response.trailers: headers");
    int r = list ? 0 : -1;

    if (r == 0 && !ex->trailer)
        r = (ex->trailer = PyList_New(0)) ? 0 : -1;
    for (Py_ssize_t i = 0; r == 0 && i < PyList_GET_SIZE(list); i++) {
        PyObject *pair = PySequence_Tuple(PyList_GET_ITEM(list, i));

        if (!pair)
            PyErr_Clear();
        if (stk_unlikely(!ex->trailer)) { /* the iterator of a pair has sent them */
            PyErr_SetString(PyExc_RuntimeError, "send(): trailers were sent while it was called");
            r = -1;
        } else if (pair && PyTuple_GET_SIZE(pair) == 2 &&
                   PyBytes_Check(PyTuple_GET_ITEM(pair, 0)) &&
                   PyBytes_Check(PyTuple_GET_ITEM(pair, 1))) {
            r = PyList_Append(ex->trailer, pair);
        } else {
            PyErr_Format(PyExc_TypeError,
                         "http.response.trailers: each header must be a pair of bytes (name, "
                         "value), got %.200R",
                         PyList_GET_ITEM(list, i));
            r = -1;
        }
        Py_XDECREF(pair);
    }
    if (r == 0 && PyList_GET_SIZE(ex->trailer) > MORE_FIELDS_MAX) {
        PyErr_Format(PyExc_ValueError, "http.response.trailers: there are more than %d",
                     MORE_FIELDS_MAX);
        r = -1;
    }
    Py_XDECREF(list);
    return r;
}

/* All are there: sends them, and ends the response. 0, or -1 with an exception. */
static int trailers_send(StkExchange *ex)
{
    struct stk_request *req = ex->call.req;
    size_t n = (size_t)PyList_GET_SIZE(ex->trailer), bad = 0;
    STK_CLEANUP(stk_mem_freep) struct stk_var *fields = stk_try_alloc((n + 1) * sizeof *fields);
    int r;

    if (!fields) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        PyObject *pair = PyList_GET_ITEM(ex->trailer, (Py_ssize_t)i);
        PyObject *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);

        fields[i] = (struct stk_var){
            stk_span_make(PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name)),
            stk_span_make(PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value))};
    }
    r = req->ops->trailers(req, fields, n, &bad);
    if (r == -EAGAIN && !ex->detached) {
        if (stk_exchange_detach(ex) < 0) {
            stk_send_raise_gone();
            return -1;
        }
        req = ex->call.req;
        r = req->ops->trailers(req, fields, n, &bad);
    }
    if (r > 0 && bad < n)
        return more_raise_value("http.response.trailers: header", fields[bad].name, r);
    return r == 0 ? 0 : stk_send_failed(ex, r);
}

int stk_send_trailers(StkExchange *ex, PyObject *message, PyObject *type)
{
    int more = stk_send_flag(ex->call.host->st, message, STK_NAME_s_more_trailers, 0);
    int r;

    if (more < 0)
        return -1;
    if (!ex->trailers || ex->state < STK_ASGI_TRAILERS)
        return stk_send_raise_order(ex, type);
    r = trailers_add(ex, message);
    if (r == 0 && ex->state == STK_ASGI_TRAILERS && ex->call.req && !more) {
        r = trailers_send(ex);
        if (r == 0)
            stk_exchange_answered(ex);
    }
    if (r == 0 && !more)
        ex->trailers = false;
    if (r < 0 || !more || ex->state == STK_ASGI_ENDED)
        Py_CLEAR(ex->trailer);
    return r;
}
