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

/* ---- reading messages ---------------------------------------------------------------------- */

/* Messages as they need not be: with other members, or a key that is not the interned str. */
static STK_COLD int message_look_up(const struct stk_state *st, PyObject *dict,
                                    struct stk_message *m)
{
    m->type = stk_send_get(st, dict, STK_NAME_s_type);
    m->status = stk_send_get(st, dict, STK_NAME_status);
    m->headers = stk_send_get(st, dict, STK_NAME_headers);
    m->trailers = stk_send_get(st, dict, STK_NAME_s_trailers);
    m->body = stk_send_get(st, dict, STK_NAME_s_body);
    m->more_body = stk_send_get(st, dict, STK_NAME_s_more_body);
    return PyErr_Occurred() ? -1 : 0;
}

int stk_message_read(const struct stk_state *st, PyObject *dict, struct stk_message *ret_message)
{
    PyObject *const *names = st->names;
    Py_ssize_t at = 0;
    PyObject *key, *value;

    *ret_message = (struct stk_message){NULL};
    /* Going through the few members is cheaper than looking for those that may be there. */
    while (PyDict_Next(dict, &at, &key, &value)) {
        if (key == names[STK_NAME_s_type])
            ret_message->type = value;
        else if (key == names[STK_NAME_s_body])
            ret_message->body = value;
        else if (key == names[STK_NAME_headers])
            ret_message->headers = value;
        else if (key == names[STK_NAME_status])
            ret_message->status = value;
        else if (key == names[STK_NAME_s_more_body])
            ret_message->more_body = value;
        else if (key == names[STK_NAME_s_trailers])
            ret_message->trailers = value;
        else
            return message_look_up(st, dict, ret_message);
    }
    return 0;
}

/* A boolean member, false where it is absent: -1 with an exception. */
static inline int send_flag(PyObject *value)
{
    if (!value || value == Py_False)
        return 0;
    return value == Py_True ? 1 : PyObject_IsTrue(value);
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
        PyErr_SetString(PyExc_ValueError, "http.response.start: the response head is over 64 KiB, "
                                          "with the fields that the server adds");
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
        if (!call->req)
            PyErr_SetString(PyExc_RuntimeError,
                            "send(): it was called by the iterator of a header");
        else if (PyTuple_GET_SIZE(fast) == 2)
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

/* Trailers are going to follow the body: the head is made for that. */
static STK_COLD bool send_expect_trailers(StkExchange *ex)
{
    struct stk_request *req = ex->call.req;

    ex->trailers = !ex->websocket;
    ex->trailing = ex->trailers && stk_scope_takes_trailers(req->head) && !req->head->is_head;
    req->trailers = ex->trailing;
    return ex->trailing;
}

/* Headers that are no list: a new one, or NULL with an exception. */
static STK_COLD PyObject *send_list_headers(PyObject *headers)
{
    PyObject *list = headers ? PySequence_List(headers) : PyList_New(0);

    if (!list && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError,
                     "http.response.start: headers must be an iterable of pairs of bytes, got "
                     "%.200R",
                     headers);
    }
    return list;
}

int stk_send_start(StkExchange *ex, const struct stk_message *message)
{
    PyObject *status = message->status;
    PyObject *headers = message->headers;
    int trailers = send_flag(message->trailers);
    PyObject *list = NULL;
    int r;

    if (!status || trailers < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "http.response.start has no 'status'");
        return -1;
    }
    if (stk_unlikely(ex->state != STK_ASGI_NEW)) { /* and it may be over */
        PyErr_SetString(PyExc_RuntimeError, "send(): it was called by the value of 'trailers'");
        return -1;
    }
    ex->call.length = -1;
    if (stk_unlikely(!headers || !PyList_CheckExact(headers))) {
        list = send_list_headers(headers);
        if (!list)
            return -1;
        if (!ex->call.req || ex->state != STK_ASGI_NEW) {
            Py_DECREF(list);
            PyErr_SetString(PyExc_RuntimeError, "send(): it was called by the iterator of headers");
            return -1;
        }
        headers = list;
    }
    if (stk_unlikely(trailers) && send_expect_trailers(ex))
        r = send_state_head(&ex->call, status, headers);
    else
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

STK_COLD int stk_send_failed(StkExchange *ex, int r)
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

/* The body is complete: so is the response, unless trailers follow. */
static void send_end(StkExchange *ex)
{
    struct stk_call *call = &ex->call;

    if (stk_unlikely(ex->trailing)) {
        ex->state = STK_ASGI_TRAILERS;
        return;
    }
    if (stk_unlikely(call->length > call->sent) && !call->req->head->is_head &&
        call->status != 304 && call->status != 204)
        send_log_length(ex, "shorter");
    stk_exchange_answered(ex);
}

/* Bytes of the body; `end`: the last ones. 0, or -1 with an exception. */
static inline int send_bytes(StkExchange *ex, const char *data, size_t len, bool end)
{
    struct stk_request *req = ex->call.req;
    unsigned flags = end && stk_likely(!ex->trailing) ? STK_WRITE_END : 0;
    int r = 0;

    if (stk_likely(len > 0 || flags)) {
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
    if (stk_unlikely(r != 0) && stk_send_failed(ex, r) < 0)
        return -1;
    if (end)
        send_end(ex);
    return 0;
}

int stk_send_body(StkExchange *ex, const struct stk_message *message)
{
    PyObject *body = message->body;
    int more = send_flag(message->more_body);
    Py_buffer view;
    int r;

    if (stk_unlikely(more < 0))
        return -1;
    if (stk_unlikely(message->more_body && !PyBool_Check(message->more_body)) &&
        stk_send_is_over(ex))
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
    r = stk_send_is_over(ex) ? -1 : send_bytes(ex, view.buf, (size_t)view.len, !more);
    PyBuffer_Release(&view);
    return r;
}

/* ---- files --------------------------------------------------------------------------------- */

int stk_send_file(StkExchange *ex, int fd, int64_t off, uint64_t len, bool end)
{
    struct stk_request *req = ex->call.req;
    unsigned flags = end && !ex->trailing ? STK_WRITE_END : 0;
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
    if (r != 0 && stk_send_failed(ex, r) < 0)
        return -1;
    if (end)
        send_end(ex);
    return 0;
}

/* ---- messages ------------------------------------------------------------------------------ */

enum send_type {
    SEND_UNKNOWN,
    SEND_START,
    SEND_BODY,
    SEND_PATH,
    SEND_ZEROCOPY,
    SEND_TRAILERS,
    SEND_EARLY_HINT,
};

static enum send_type send_type_of(PyObject *type)
{
    static const struct {
        stk_span name;
        enum send_type type;
    } more[] = {
        {STK_SPAN_LIT("pathsend"), SEND_PATH},
        {STK_SPAN_LIT("zerocopysend"), SEND_ZEROCOPY},
        {STK_SPAN_LIT("trailers"), SEND_TRAILERS},
        {STK_SPAN_LIT("early_hint"), SEND_EARLY_HINT},
    };
    const char *text;
    size_t len;

    if (stk_unlikely(!PyUnicode_Check(type) || !stk_py_latin1(type, &text, &len)) || len < 18 ||
        memcmp(text, "http.response.", 14) != 0)
        return SEND_UNKNOWN;
    text += 14;
    len -= 14;
    if (stk_likely(len == 5 && memcmp(text, "start", 5) == 0))
        return SEND_START;
    if (stk_likely(len == 4 && memcmp(text, "body", 4) == 0))
        return SEND_BODY;
    for (size_t i = 0; i < STK_ARRAY_LEN(more); i++)
        if (stk_span_eq(stk_span_make(text, len), more[i].name))
            return more[i].type;
    return SEND_UNKNOWN;
}

STK_COLD int stk_send_raise_order(const StkExchange *ex, PyObject *type)
{
    static const char *const expected[] = {
        [STK_ASGI_NEW] = "'http.response.start' has to come first",
        [STK_ASGI_STARTED] = "'http.response.body' has to follow 'http.response.start'",
        [STK_ASGI_BODY] = "the response has begun, 'http.response.body' has to follow",
        [STK_ASGI_TRAILERS] = "the body is complete, 'http.response.trailers' has to follow",
        [STK_ASGI_ENDED] = "the response is complete already",
    };

    PyErr_Format(PyExc_RuntimeError, "unexpected ASGI message %.100R: %s", type,
                 expected[ex->state]);
    return -1;
}

static STK_COLD int send_raise_unknown(PyObject *type)
{
    const char *why = "it is none of an HTTP response";

    if (!PyUnicode_Check(type))
        why = "the type has to be a str";
    else if (PyUnicode_CompareWithASCIIString(type, "http.response.debug") == 0 ||
             PyUnicode_CompareWithASCIIString(type, "http.response.push") == 0)
        why = "scope['extensions'] does not offer it";
    PyErr_Format(PyExc_RuntimeError, "unexpected ASGI message %.100R: %s", type, why);
    return -1;
}

static STK_COLD int send_raise_message(PyObject *message)
{
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_TypeError, "send() takes a dict with a 'type', got %.200R", message);
    return -1;
}

/* A message of an extension, or of none. */
static STK_COLD int send_more(StkExchange *ex, PyObject *message, PyObject *type,
                              enum send_type what)
{
    bool open = ex->call.req && ex->state <= STK_ASGI_BODY;

    switch (what) {
    case SEND_PATH:
        return open && ex->state == STK_ASGI_STARTED ? stk_send_path(ex, message)
                                                     : stk_send_raise_order(ex, type);
    case SEND_ZEROCOPY:
        return open && ex->state >= STK_ASGI_STARTED ? stk_send_zerocopy(ex, message)
                                                     : stk_send_raise_order(ex, type);
    case SEND_TRAILERS:
        return stk_send_trailers(ex, message, type);
    case SEND_EARLY_HINT:
        return open ? stk_send_early_hint(ex, message) : stk_send_raise_order(ex, type);
    default:
        return send_raise_unknown(type);
    }
}

/* The type of a message, which is the very str of the last one as a rule. */
static inline enum send_type send_type_known(struct stk_asgi *a, PyObject *type)
{
    enum send_type what;

    if (stk_likely(type == a->type_body))
        return SEND_BODY;
    if (stk_likely(type == a->type_start))
        return SEND_START;
    what = send_type_of(type);
    if (what == SEND_BODY && PyUnicode_CheckExact(type))
        Py_XSETREF(a->type_body, stk_py_newref(type));
    if (what == SEND_START && PyUnicode_CheckExact(type))
        Py_XSETREF(a->type_start, stk_py_newref(type));
    return what;
}

/* 0, or -1 with an exception. */
static int send_message(StkExchange *ex, PyObject *dict)
{
    struct stk_message message = {NULL};
    enum send_type what;
    int r;

    if (stk_unlikely(ex->websocket) && PyDict_Check(dict) && stk_ws_try_send(ex, dict, &r))
        return r;
    if (stk_unlikely(!PyDict_Check(dict) ||
                     stk_message_read(ex->call.host->st, dict, &message) < 0 || !message.type))
        return send_raise_message(dict);
    if (stk_unlikely(ex->websocket))
        return stk_ws_send_message(ex, dict, message.type);
    what = send_type_known(ex->asgi, message.type);
    if (stk_unlikely(ex->call.gone) && ex->state != STK_ASGI_ENDED) {
        stk_send_raise_gone();
        return -1;
    }
    if (what == SEND_START && ex->state == STK_ASGI_NEW)
        return stk_send_start(ex, &message);
    if (stk_unlikely(what > SEND_BODY || what == SEND_UNKNOWN))
        return send_more(ex, dict, message.type, what);
    if (stk_unlikely(ex->state == STK_ASGI_NEW || ex->state > STK_ASGI_BODY || !ex->call.req ||
                     what != SEND_BODY))
        return stk_send_raise_order(ex, message.type);
    return stk_send_body(ex, &message);
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
    if (stk_unlikely(stk_host_is_stray(ex->call.host))) {
        PyErr_SetString(PyExc_RuntimeError, "send() was called in another process than that of the "
                                            "event loop");
        return NULL;
    }
    /* As a coroutine function's: called anywhere (asgiref's async_to_sync), awaited in the loop. */
    if (stk_unlikely(PyThreadState_Get() != ex->call.ts))
        return PyObject_CallMethod(ex->asgi->helpers, "send_later", "OO", op, args[0]);
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
