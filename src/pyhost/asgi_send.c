/*
 * send(message): the response.
 *
 * A message is carried out when send() is called, not when its result is awaited, so that awaiting
 * costs nothing: the result is one finished object. Only a response whose client takes less than
 * the application sends makes it wait (asgi_wait.c). The head is handed to the server with
 * http.response.start, which holds it back until the first part of the body, so that a small
 * response leaves in one piece.
 *
 * Mistakes (a body before the start, a second start, a value of the wrong type) raise in the
 * application, where they are made.
 */
#include "pyhost/asgi_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "pyhost/head_cache.h"
#include "pyhost/respond.h"
#include "wire/http_status.h"

enum { SEND_SHOWN_MAX = 200 };

void stk_send_raise_gone(void)
{
    stk_py_raise_errno(EPIPE, "send(): the client has left");
}

static inline PyObject *send_get(const struct stk_state *st, PyObject *message,
                                 enum stk_state_name name)
{
    return PyDict_GetItemWithError(message, stk_state_name(st, name));
}

/* A boolean member: its value, `otherwise` where it is absent, -1 with an exception. */
static inline int send_flag(const struct stk_state *st, PyObject *message, enum stk_state_name name,
                            int otherwise)
{
    PyObject *value = send_get(st, message, name);

    if (stk_likely(value == Py_False))
        return 0;
    if (value == Py_True)
        return 1;
    if (!value)
        return PyErr_Occurred() ? -1 : otherwise;
    return PyObject_IsTrue(value);
}

/* ---- the head ------------------------------------------------------------------------------ */

static STK_COLD int send_raise_head(int error, stk_span name)
{
    PyObject *shown;

    switch (error) {
    case STK_RESPONSE_E_STATUS:
        PyErr_SetString(PyExc_ValueError,
                        "http.response.start: the status must be within 200..599");
        return -1;
    case STK_RESPONSE_E_HEAD_SIZE:
        PyErr_SetString(PyExc_ValueError, "http.response.start: the response head is over 64 KiB");
        return -1;
    case STK_RESPONSE_E_STARTED:
        PyErr_SetString(PyExc_RuntimeError, "http.response.start: the head has already been sent");
        return -1;
    default:
        break;
    }
    shown = PyBytes_FromStringAndSize(
        name.ptr, (Py_ssize_t)(name.len < SEND_SHOWN_MAX ? name.len : SEND_SHOWN_MAX));
    if (shown)
        PyErr_Format(PyExc_ValueError, "http.response.start: header %R: %s", shown,
                     stk_respond_field_fault(error));
    Py_XDECREF(shown);
    return -1;
}

static STK_COLD int send_raise_pair(const char *what, PyObject *pair)
{
    PyErr_Format(PyExc_TypeError,
                 "%s: each header must be a pair of bytes (name, value), got %.200R", what, pair);
    return -1;
}

static int64_t send_parse_length(stk_span text)
{
    int64_t n = 0;

    for (size_t i = 0; i < text.len; i++)
        n = n * 10 + (text.ptr[i] - '0');
    return n;
}

static bool send_name_is(stk_span name, const char *text)
{
    return name.len == strlen(text) && strncasecmp(name.ptr, text, name.len) == 0;
}

/* One field. The framing is the server's: Transfer-Encoding and Connection are left out. */
static int send_field(struct stk_call *call, stk_span name, stk_span value)
{
    int r = call->req->ops->header(call->req, name, value);

    if (stk_unlikely(r == STK_RESPONSE_E_HOP_BY_HOP))
        return 0;
    if (stk_unlikely(r != 0))
        return send_raise_head(r, name);
    if (name.len == 14 && send_name_is(name, "content-length"))
        call->length = send_parse_length(value);
    return 0;
}

static int send_pair(struct stk_call *call, PyObject *pair)
{
    PyObject *name;
    PyObject *value;

    if (stk_likely((PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2) ||
                   (PyList_CheckExact(pair) && PyList_GET_SIZE(pair) == 2))) {
        name = PySequence_Fast_GET_ITEM(pair, 0);
        value = PySequence_Fast_GET_ITEM(pair, 1);
        if (stk_likely(PyBytes_Check(name) && PyBytes_Check(value)))
            return send_field(
                call, stk_span_make(PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name)),
                stk_span_make(PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)));
        return send_raise_pair("http.response.start", pair);
    } else {
        PyObject *fast = PySequence_Tuple(pair);
        int r = -1;

        if (!fast) {
            PyErr_Clear();
            return send_raise_pair("http.response.start", pair);
        }
        if (PyTuple_GET_SIZE(fast) == 2)
            r = send_pair(call, fast);
        else
            send_raise_pair("http.response.start", pair);
        Py_DECREF(fast);
        return r;
    }
}

static int send_state_head(struct stk_call *call, PyObject *status, PyObject *headers)
{
    long code = PyLong_Check(status) ? PyLong_AsLong(status) : -1;
    int r;

    if (code < 0 || code > 999) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_TypeError,
                         "http.response.start: status must be an int like 200, got %.200R", status);
        return -1;
    }
    r = call->req->ops->start(call->req, (unsigned)code, stk_http_status_reason((unsigned)code));
    if (r != 0)
        return send_raise_head(r, stk_span_make("", 0));
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
        PyObject *pair = stk_py_newref(PyList_GET_ITEM(headers, i));

        r = send_pair(call, pair);
        Py_DECREF(pair);
        if (r < 0)
            return -1;
    }
    call->status = (unsigned)code;
    return 0;
}

static int send_list_head(struct stk_call *call, PyObject *status, PyObject *headers)
{
    bool found;
    struct stk_head_entry *entry = stk_head_cache_find(call->app->heads, status, headers, &found);

    if (stk_likely(found && call->req->ops->head_load(call->req, &entry->head) == 0)) {
        call->length = entry->length;
        call->status = entry->head.status;
        return 0;
    }
    if (send_state_head(call, status, headers) < 0)
        return -1;
    if (entry && !found)
        stk_head_cache_put(entry, call, status, headers);
    return 0;
}

int stk_send_start(StkExchange *ex, PyObject *message)
{
    const struct stk_state *st = ex->call.host->st;
    PyObject *status = send_get(st, message, STK_NAME_status);
    PyObject *headers = send_get(st, message, STK_NAME_headers);
    int trailers = send_flag(st, message, STK_NAME_s_trailers, 0);
    PyObject *list = NULL;
    int r;

    if (!status || trailers < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "http.response.start has no 'status'");
        return -1;
    }
    ex->call.length = -1;
    ex->trailers = trailers != 0;
    if (stk_unlikely(!headers || !PyList_CheckExact(headers))) {
        list = headers ? PySequence_List(headers) : PyList_New(0);
        if (!list)
            return -1;
        headers = list;
    }
    r = send_list_head(&ex->call, status, headers);
    Py_XDECREF(list);
    if (r < 0)
        return -1;
    ex->call.started = true;
    ex->state = STK_ASGI_STARTED;
    return 0;
}

/* ---- the body ------------------------------------------------------------------------------ */

static STK_COLD void send_log_length(const StkExchange *ex, const char *what)
{
    stk_span target = stk_head_target(ex->call.req->head);

    stk_log_error("%.*s: the response is %s than its Content-Length of %" PRId64 "%s",
                  (int)(target.len < SEND_SHOWN_MAX ? target.len : SEND_SHOWN_MAX), target.ptr,
                  what, ex->call.length,
                  strcmp(what, "longer") == 0 ? "; the rest was cut off" : " bytes");
}

/* What a service returned that is not 0. 0, or -1 with an exception. */
static STK_COLD int send_failed(StkExchange *ex, int r)
{
    switch (r) {
    case STK_RESPONSE_E_TOO_LONG:
        if (!ex->call.cut)
            send_log_length(ex, "longer");
        ex->call.cut = true;
        return 0;
    case -EPIPE:
    case -ECONNRESET:
    case -ECONNABORTED:
    case -ETIMEDOUT:
        ex->call.gone = ex->left = true;
        stk_exchange_wake(ex, -1);
        stk_send_raise_gone();
        return -1;
    default:
        if (r > 0)
            return send_raise_head(r, stk_span_make("", 0));
        errno = -r;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
}

/* The body is complete: so is the response, unless trailers were announced. */
static void send_end(StkExchange *ex)
{
    struct stk_call *call = &ex->call;

    if (stk_unlikely(call->length > call->sent) && !call->req->head->is_head &&
        call->status != 304 && call->status != 204)
        send_log_length(ex, "shorter");
    stk_exchange_answered(ex);
}

/* Bytes of the body; `end`: the last ones. 0, or -1 with an exception. */
static inline int send_bytes(StkExchange *ex, const char *data, size_t len, bool end)
{
    struct stk_request *req = ex->call.req;
    unsigned flags = end ? STK_WRITE_END : 0;
    int r = 0;

    if (stk_likely(len > 0 || end)) {
        r = req->ops->write(req, data, len, flags);
        if (stk_unlikely(r == -EAGAIN) && !ex->detached) {
            if (stk_exchange_detach(ex) < 0) {
                stk_send_raise_gone();
                return -1;
            }
            req = ex->call.req;
            r = req->ops->write(req, data, len, flags);
        }
    }
    ex->call.wrote = true;
    ex->call.sent += (int64_t)len;
    ex->state = STK_ASGI_BODY;
    if (stk_unlikely(r != 0) && send_failed(ex, r) < 0)
        return -1;
    if (end)
        send_end(ex);
    return 0;
}

int stk_send_body(StkExchange *ex, PyObject *message)
{
    const struct stk_state *st = ex->call.host->st;
    PyObject *body = send_get(st, message, STK_NAME_s_body);
    int more = send_flag(st, message, STK_NAME_s_more_body, 0);
    Py_buffer view;
    int r;

    if (stk_unlikely(more < 0 || (!body && PyErr_Occurred())))
        return -1;
    if (stk_likely(body && PyBytes_Check(body)))
        return send_bytes(ex, PyBytes_AS_STRING(body), (size_t)PyBytes_GET_SIZE(body), !more);
    if (!body)
        return send_bytes(ex, "", 0, !more);
    if (!PyObject_CheckBuffer(body)) {
        PyErr_Format(PyExc_TypeError, "http.response.body: the body must be bytes, got %s",
                     Py_TYPE(body)->tp_name);
        return -1;
    }
    if (PyObject_GetBuffer(body, &view, PyBUF_SIMPLE) < 0)
        return -1;
    r = send_bytes(ex, view.buf, (size_t)view.len, !more);
    PyBuffer_Release(&view);
    return r;
}

/* ---- files --------------------------------------------------------------------------------- */

/* A part of an open file as body. 0, or -1 with an exception. */
static int send_file(StkExchange *ex, int fd, int64_t off, uint64_t len, bool end)
{
    struct stk_request *req = ex->call.req;
    unsigned flags = end ? STK_WRITE_END : 0;
    int r;

    if (len == 0)
        return send_bytes(ex, "", 0, end);
    r = req->ops->sendfile(req, fd, off, len, flags);
    if (r == -EAGAIN && !ex->detached) {
        if (stk_exchange_detach(ex) < 0) {
            stk_send_raise_gone();
            return -1;
        }
        req = ex->call.req;
        r = req->ops->sendfile(req, fd, off, len, flags);
    }
    ex->call.wrote = true;
    ex->call.sent += (int64_t)len;
    ex->state = STK_ASGI_BODY;
    if (r != 0 && send_failed(ex, r) < 0)
        return -1;
    if (end)
        send_end(ex);
    return 0;
}

/* http.response.pathsend: a file by its path, as the whole body. */
static int send_path(StkExchange *ex, PyObject *message)
{
    PyObject *path = send_get(ex->call.host->st, message, STK_NAME_s_path);
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
    return send_file(ex, fd, 0, (uint64_t)info.st_size, true);
}

/* An int member, or `otherwise` where it is absent or None; -2 with an exception. */
static int64_t send_int(const struct stk_state *st, PyObject *message, enum stk_state_name name,
                        int64_t otherwise)
{
    PyObject *value = send_get(st, message, name);
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

/* http.response.zerocopysend: a part of an open file. */
static int send_zerocopy(StkExchange *ex, PyObject *message)
{
    const struct stk_state *st = ex->call.host->st;
    PyObject *file = send_get(st, message, STK_NAME_file);
    int64_t offset = send_int(st, message, STK_NAME_s_offset, -1);
    int64_t count = send_int(st, message, STK_NAME_s_count, -1);
    int more = send_flag(st, message, STK_NAME_s_more_body, 0);
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
    follows = offset < 0; /* the file's position, which moves as with os.sendfile(offset=None) */
    if (follows)
        offset = lseek(fd, 0, SEEK_CUR);
    if (offset < 0 || fstat(fd, &info) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (!S_ISREG(info.st_mode)) {
        PyErr_SetString(PyExc_ValueError,
                        "http.response.zerocopysend: the file is not a regular file");
        return -1;
    }
    if (count < 0 || count > info.st_size - offset)
        count = info.st_size > offset ? info.st_size - offset : 0;
    if (follows && lseek(fd, offset + count, SEEK_SET) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return send_file(ex, fd, offset, (uint64_t)count, !more);
}

/* ---- messages ------------------------------------------------------------------------------ */

enum send_type {
    SEND_UNKNOWN,
    SEND_START,
    SEND_BODY,
    SEND_PATH,
    SEND_ZEROCOPY,
};

static enum send_type send_type_of(PyObject *type)
{
    const char *text;
    size_t len;

    if (stk_unlikely(!PyUnicode_Check(type) || !stk_py_latin1(type, &text, &len)) || len < 18 ||
        memcmp(text, "http.response.", 14) != 0)
        return SEND_UNKNOWN;
    text += 14;
    len -= 14;
    if (len == 5 && memcmp(text, "start", 5) == 0)
        return SEND_START;
    if (len == 4 && memcmp(text, "body", 4) == 0)
        return SEND_BODY;
    if (len == 8 && memcmp(text, "pathsend", 8) == 0)
        return SEND_PATH;
    if (len == 12 && memcmp(text, "zerocopysend", 12) == 0)
        return SEND_ZEROCOPY;
    return SEND_UNKNOWN;
}

static STK_COLD int send_raise_order(const StkExchange *ex, PyObject *type)
{
    static const char *const expected[] = {
        [STK_ASGI_NEW] = "'http.response.start' has to come first",
        [STK_ASGI_STARTED] = "'http.response.body' has to follow 'http.response.start'",
        [STK_ASGI_BODY] = "the response has begun, 'http.response.body' has to follow",
        [STK_ASGI_TRAILERS] = "'http.response.trailers' has to follow",
        [STK_ASGI_ENDED] = "the response is complete already",
    };

    PyErr_Format(PyExc_RuntimeError, "unexpected ASGI message %.100R: %s", type,
                 expected[ex->state]);
    return -1;
}

static STK_COLD int send_raise_message(PyObject *message)
{
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_TypeError, "send() takes a dict with a 'type', got %.200R", message);
    return -1;
}

/* 0, or -1 with an exception. */
static int send_message(StkExchange *ex, PyObject *message)
{
    PyObject *type =
        PyDict_Check(message) ? send_get(ex->call.host->st, message, STK_NAME_s_type) : NULL;
    enum send_type what;

    if (stk_unlikely(!type))
        return send_raise_message(message);
    if (stk_unlikely(ex->websocket))
        return stk_ws_send_message(ex, message, type);
    what = send_type_of(type);
    if (stk_unlikely(ex->call.gone) && ex->state != STK_ASGI_ENDED) {
        stk_send_raise_gone();
        return -1;
    }
    if (what == SEND_START && ex->state == STK_ASGI_NEW)
        return stk_send_start(ex, message);
    if (stk_unlikely(ex->state == STK_ASGI_NEW || ex->state > STK_ASGI_BODY || !ex->call.req))
        return send_raise_order(ex, type);
    switch (what) {
    case SEND_BODY:
        return stk_send_body(ex, message);
    case SEND_PATH:
        if (ex->state == STK_ASGI_STARTED)
            return send_path(ex, message);
        return send_raise_order(ex, type);
    case SEND_ZEROCOPY:
        return send_zerocopy(ex, message);
    default:
        return send_raise_order(ex, type);
    }
}

PyObject *stk_send_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    StkExchange *ex = ((StkSend *)op)->exchange;
    PyObject *result;

    if (stk_unlikely(PyVectorcall_NARGS(nargsf) + (kwnames ? PyTuple_GET_SIZE(kwnames) : 0) != 1)) {
        PyErr_SetString(PyExc_TypeError, "send(message) takes one argument");
        return NULL;
    }
    if (stk_unlikely(!ex->asgi)) {
        PyErr_SetString(PyExc_RuntimeError, "send() was called after its request had ended");
        return NULL;
    }
    if (stk_unlikely(PyThreadState_Get() != ex->call.ts || stk_host_is_stray(ex->call.host))) {
        PyErr_SetString(PyExc_RuntimeError, "send() was called in another thread or process than "
                                            "that of the event loop");
        return NULL;
    }
    Py_INCREF(ex);
    if (stk_unlikely(send_message(ex, args[0]) < 0))
        result = NULL;
    else if ((ex->state == STK_ASGI_BODY || ex->websocket) && ex->call.req &&
             stk_unlikely(ex->call.req->ops->is_congested(ex->call.req)))
        result = stk_exchange_wait(ex, STK_WAIT_SEND);
    else
        result = stk_py_newref(ex->asgi->done);
    Py_DECREF(ex);
    return result;
}
