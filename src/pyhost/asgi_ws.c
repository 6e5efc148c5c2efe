/*
 * WebSockets of ASGI applications. The request is detached before the application is called; the
 * handshake is answered by websocket.accept, by websocket.close (403) or, as the extension
 * websocket.http.response has it, by a response of the application's own.
 *
 * A message that comes while receive() waits becomes its dict in the event that brought it, out of
 * the server's read buffer; the task gets it when its turn comes. As long as that goes on the
 * server need not be asked again: who waits next just waits.
 */
#include "pyhost/asgi_priv.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "wire/ws_handshake.h"

/* Where a WebSocket stands. */
enum ws_state {
    WS_NEW,     /* websocket.connect is to be received */
    WS_CONNECT, /* it has been; the handshake is not answered */
    WS_OPEN,
    WS_CLOSED,  /* by the application */
    WS_REFUSED, /* answered by an HTTP response, or about to be */
};

/* ---- the scope ----------------------------------------------------------------------------- */

static PyObject *ws_subprotocols(const struct stk_request *req)
{
    struct stk_ws_protocols walk = {0};
    PyObject *list = PyList_New(0);
    stk_span name;

    while (list && stk_ws_protocol_next(req->head, &walk, &name)) {
        PyObject *text = PyUnicode_DecodeLatin1(name.ptr, (Py_ssize_t)name.len, NULL);

        if (!text || PyList_Append(list, text) < 0)
            Py_CLEAR(list);
        Py_XDECREF(text);
    }
    return list;
}

/* Sets a key and takes the reference to the value, which may be NULL after an error. */
static int ws_put(const struct stk_state *st, PyObject *dict, enum stk_state_name name,
                  PyObject *value)
{
    int r;

    if (!value)
        return -1;
    r = PyDict_SetItem(dict, stk_state_name(st, name), value);
    Py_DECREF(value);
    return r;
}

int stk_ws_scope(struct stk_asgi *a, PyObject *scope, const struct stk_request *req)
{
    const struct stk_state *st = a->st;
    PyObject *scheme = stk_state_name(st, req->scheme.len == 5 ? STK_NAME_wss : STK_NAME_ws);
    PyObject *extensions = Py_BuildValue("{s:{}}", "websocket.http.response");

    if (stk_scope_add_tls(a->scopes, extensions, req) < 0)
        Py_CLEAR(extensions);

    if (ws_put(st, scope, STK_NAME_s_extensions, extensions) < 0 ||
        ws_put(st, scope, STK_NAME_s_type, stk_py_newref(stk_state_name(st, STK_NAME_websocket))) <
            0 ||
        ws_put(st, scope, STK_NAME_s_scheme, stk_py_newref(scheme)) < 0 ||
        ws_put(st, scope, STK_NAME_s_subprotocols, ws_subprotocols(req)) < 0)
        return -1;
    return PyDict_DelItem(scope, stk_state_name(st, STK_NAME_s_method));
}

/* ---- receive() ----------------------------------------------------------------------------- */

static PyObject *ws_message(const struct stk_state *st, enum stk_state_name type)
{
    PyObject *message = PyDict_New();

    if (message &&
        PyDict_SetItem(message, stk_state_name(st, STK_NAME_s_type), stk_state_name(st, type)) < 0)
        Py_CLEAR(message);
    return message;
}

static PyObject *ws_disconnect(StkExchange *ex, long code, const char *reason, size_t len)
{
    const struct stk_state *st = ex->call.host->st;
    PyObject *message = ws_message(st, STK_NAME_websocket_disconnect);

    ex->left = true;
    if (message &&
        (ws_put(st, message, STK_NAME_s_code, PyLong_FromLong(code)) < 0 ||
         ws_put(st, message, STK_NAME_s_reason,
                PyUnicode_DecodeUTF8(reason ? reason : "", (Py_ssize_t)len, "replace")) < 0))
        Py_CLEAR(message);
    return message;
}

/* Valid UTF-8 as a str. NULL with an exception. */
static PyObject *ws_text(const struct stk_ws_view *view)
{
    PyObject *text;

    if (!view->ascii || view->len == 0)
        return PyUnicode_DecodeUTF8(view->ptr, (Py_ssize_t)view->len, NULL);
    text = PyUnicode_New((Py_ssize_t)view->len, 127);
    if (text)
        memcpy(PyUnicode_1BYTE_DATA(text), view->ptr, view->len);
    return text;
}

/* The dict of a message, or NULL with an exception. */
static PyObject *ws_received(const struct stk_state *st, const struct stk_ws_view *view)
{
    PyObject *message = ws_message(st, STK_NAME_websocket_receive);
    int r;

    if (!message)
        return NULL;
    if (view->text)
        r = ws_put(st, message, STK_NAME_s_text, ws_text(view));
    else
        r = ws_put(st, message, STK_NAME_s_bytes,
                   PyBytes_FromStringAndSize(view->ptr, (Py_ssize_t)view->len));
    if (r < 0)
        Py_CLEAR(message);
    return message;
}

/* What has come: 1 and *ret_message, 0: nothing yet, -1 with an exception. */
static int ws_take(StkExchange *ex, PyObject **ret_message)
{
    struct stk_request *req = ex->call.req;
    struct stk_ws_view view;
    PyObject *message;
    int r = req->ops->ws_peek(req, &view);

    ex->asks = r == -EAGAIN;
    if (ex->asks)
        return 0;
    if (view.end) {
        *ret_message = ws_disconnect(ex, view.code, view.ptr, view.len);
        return *ret_message ? 1 : -1;
    }
    message = ws_received(ex->call.host->st, &view);
    if (!message)
        return -1;
    req->ops->ws_skip(req);
    *ret_message = message;
    return 1;
}

int stk_ws_receive_next(StkExchange *ex, PyObject **ret_message)
{
    const struct stk_state *st = ex->call.host->st;
    struct stk_request *req = ex->call.req;

    if (ex->ready) {
        *ret_message = ex->ready;
        ex->ready = NULL;
        return 1;
    }
    if (ex->ws_state == WS_NEW) {
        ex->ws_state = WS_CONNECT;
        *ret_message = ws_message(st, STK_NAME_websocket_connect);
        return *ret_message ? 1 : -1;
    }
    if (!req || ex->ws_state == WS_REFUSED ||
        (ex->ws_state == WS_CONNECT && (ex->left || ex->call.gone))) {
        *ret_message = ws_disconnect(ex, 1006, "", 0);
        return *ret_message ? 1 : -1;
    }
    if (ex->ws_state == WS_CONNECT)
        return 0; /* it is the application's turn */
    if (stk_likely(ex->asks)) {
        req->ops->ws_wait(req);
        return 0;
    }
    return ws_take(ex, ret_message);
}

/* Whether a message can be handed to a receive() that waits. */
static bool ws_takes(const StkExchange *ex)
{
    return !ex->ready && ex->waits && (ex->ws_state == WS_OPEN || ex->ws_state == WS_CLOSED);
}

void stk_ws_woken(StkExchange *ex)
{
    PyObject *message = NULL;

    ex->asks = false;
    if (!ws_takes(ex))
        return;
    if (ws_take(ex, &message) > 0)
        ex->ready = message;
    else if (PyErr_Occurred())
        PyErr_Clear(); /* receive() tries again */
}

bool stk_asgi_message(struct stk_request *req, const struct stk_ws_view *view)
{
    StkExchange *ex = req->host_data;
    PyObject *message;
    bool taken = false;

    if (!ex || ex->call.req != req)
        return false;
    if (stk_unlikely(!ws_takes(ex))) {
        ex->asks = false;
        return false;
    }
    Py_INCREF(ex);
    message = ws_received(ex->call.host->st, view);
    /* Finalizers may have run meanwhile. */
    if (stk_likely(message && ex->call.req == req && ws_takes(ex))) {
        ex->ready = message;
        taken = true;
    } else {
        Py_XDECREF(message);
        PyErr_Clear(); /* receive() tries again */
        ex->asks = false;
    }
    stk_exchange_wake(ex, STK_WAIT_RECEIVE);
    Py_DECREF(ex);
    return taken;
}

/* ---- send() -------------------------------------------------------------------------------- */

static PyObject *ws_get(const StkExchange *ex, PyObject *message, enum stk_state_name name)
{
    PyObject *value = PyDict_GetItemWithError(message, stk_state_name(ex->call.host->st, name));

    return value == Py_None ? NULL : value;
}

static int ws_raise_accept(int r, const struct stk_var *field)
{
    const char *text = "its value has a line break or another control character";
    PyObject *shown;

    switch (r) {
    case STK_RESPONSE_E_SUBPROTOCOL:
        PyErr_SetString(PyExc_ValueError,
                        "websocket.accept: the subprotocol is not one that the client offers");
        return -1;
    case STK_RESPONSE_E_HEAD_SIZE:
        PyErr_SetString(PyExc_ValueError, "websocket.accept: the headers are over 64 KiB");
        return -1;
    case STK_RESPONSE_E_NAME:
        text = "its name is not a token of RFC 9110 (letters, digits and !#$%&'*+-.^_`|~)";
        break;
    case STK_RESPONSE_E_HOP_BY_HOP:
        text = "it is the server's to say";
        break;
    case -ENOMEM:
        PyErr_NoMemory();
        return -1;
    case -EPIPE:
        stk_send_raise_gone();
        return -1;
    default:
        break;
    }
    shown = field ? PyBytes_FromStringAndSize(field->name.ptr, (Py_ssize_t)field->name.len)
                  : PyUnicode_FromString("?");
    if (shown)
        PyErr_Format(PyExc_ValueError, "websocket.accept: header %.200R: %s", shown, text);
    Py_XDECREF(shown);
    return -1;
}

/* One (name, value) pair of bytes, of which a tuple is put in its place: that keeps them alive. 0,
 * or -1 with an exception. */
static int ws_read_field(PyObject *list, Py_ssize_t at, struct stk_var *ret_field)
{
    PyObject *given = PyList_GET_ITEM(list, at);
    PyObject *pair = PySequence_Tuple(given);
    PyObject *name, *value;

    if (!pair || PyTuple_GET_SIZE(pair) != 2 || !PyBytes_Check(name = PyTuple_GET_ITEM(pair, 0)) ||
        !PyBytes_Check(value = PyTuple_GET_ITEM(pair, 1))) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError,
                     "websocket.accept: each header must be a pair of bytes (name, value), got "
                     "%.200R",
                     given);
        Py_XDECREF(pair);
        return -1;
    }
    ret_field->name = stk_span_make(PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name));
    ret_field->value = stk_span_make(PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value));
    return PyList_SetItem(list, at, pair);
}

static int ws_accept_fields(StkExchange *ex, stk_span subprotocol, PyObject *list)
{
    size_t n = list ? (size_t)PyList_GET_SIZE(list) : 0, bad = 0;
    STK_CLEANUP(stk_mem_freep) struct stk_var *fields = stk_try_alloc((n + 1) * sizeof *fields);
    int r;

    if (!fields) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < n; i++)
        if (ws_read_field(list, (Py_ssize_t)i, &fields[i]) < 0)
            return -1;
    if (!ex->call.req) { /* it has ended while the application's iterators ran */
        stk_send_raise_gone();
        return -1;
    }
    r = ex->call.req->ops->ws_accept(ex->call.req, subprotocol, fields, n, &bad);
    return r == 0 ? 0 : ws_raise_accept(r, bad < n ? &fields[bad] : NULL);
}

/* The list of a message's headers: NULL with an exception. */
static PyObject *ws_list(PyObject *headers)
{
    PyObject *list = PySequence_List(headers);

    if (!list && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError,
                     "websocket.accept: headers must be an iterable of pairs of bytes, got %.200R",
                     headers);
    }
    return list;
}

static int ws_accept(StkExchange *ex, PyObject *message)
{
    PyObject *subprotocol = ws_get(ex, message, STK_NAME_s_subprotocol);
    PyObject *headers = ws_get(ex, message, STK_NAME_headers);
    PyObject *list = NULL;
    const char *text = "";
    Py_ssize_t len = 0;
    int r;

    if (PyErr_Occurred())
        return -1;
    if (subprotocol) {
        text = PyUnicode_Check(subprotocol) ? PyUnicode_AsUTF8AndSize(subprotocol, &len) : NULL;
        if (!text) {
            if (!PyErr_Occurred())
                PyErr_Format(PyExc_TypeError,
                             "websocket.accept: the subprotocol must be a str, got %.200R",
                             subprotocol);
            return -1;
        }
    }
    if (headers) {
        list = ws_list(headers);
        if (!list)
            return -1;
    }
    r = ws_accept_fields(ex, stk_span_make(text, (size_t)len), list);
    Py_XDECREF(list);
    if (r == 0) {
        ex->ws_state = WS_OPEN;
        stk_exchange_wake(ex, STK_WAIT_RECEIVE); /* who waits since before asks for input now */
    }
    return r;
}

/* What ws_send and ws_close returned. 0, or -1 with an exception. */
static int ws_sent(StkExchange *ex, int r)
{
    if (stk_likely(r == 0))
        return 0;
    if (r == -ENOMEM) {
        PyErr_NoMemory();
        return -1;
    }
    ex->left = true;
    stk_exchange_wake(ex, -1);
    stk_send_raise_gone();
    return -1;
}

/* Either may be NULL. */
static int ws_send(StkExchange *ex, PyObject *text, PyObject *bytes)
{
    struct stk_request *req = ex->call.req;
    Py_buffer view;
    int r;

    if (stk_unlikely(text && bytes)) {
        PyErr_SetString(PyExc_ValueError, "websocket.send has both 'bytes' and 'text'");
        return -1;
    }
    if (text && PyUnicode_Check(text)) {
        Py_ssize_t len;
        const char *utf8 = PyUnicode_AsUTF8AndSize(text, &len);

        return utf8 ? ws_sent(ex, req->ops->ws_send(req, utf8, (size_t)len, true)) : -1;
    }
    if (bytes && PyBytes_Check(bytes))
        return ws_sent(ex, req->ops->ws_send(req, PyBytes_AS_STRING(bytes),
                                             (size_t)PyBytes_GET_SIZE(bytes), false));
    if (!bytes || !PyObject_CheckBuffer(bytes)) {
        PyErr_SetString(PyExc_TypeError,
                        "websocket.send needs a 'bytes' of bytes or a 'text' of str");
        return -1;
    }
    if (PyObject_GetBuffer(bytes, &view, PyBUF_SIMPLE) < 0)
        return -1;
    r = req->ops->ws_send(req, view.buf, (size_t)view.len, false);
    PyBuffer_Release(&view);
    return ws_sent(ex, r);
}

bool stk_ws_try_send(StkExchange *ex, PyObject *message, int *ret_result)
{
    PyObject *const *names = ex->call.host->st->names;
    PyObject *type = NULL, *text = NULL, *bytes = NULL;
    PyObject *key, *value;
    Py_ssize_t at = 0;

    if (ex->ws_state != WS_OPEN || !ex->call.req)
        return false;
    while (PyDict_Next(message, &at, &key, &value)) {
        if (key == names[STK_NAME_s_type])
            type = value;
        else if (key == names[STK_NAME_s_text])
            text = value == Py_None ? NULL : value;
        else if (key == names[STK_NAME_s_bytes])
            bytes = value == Py_None ? NULL : value;
        else
            return false;
    }
    if (!type || type != ex->asgi->type_ws_send)
        return false;
    *ret_result = ws_send(ex, text, bytes);
    return true;
}

/* The same, in the long way. */
static int ws_look_up_send(StkExchange *ex, PyObject *message, PyObject *type)
{
    PyObject *bytes = ws_get(ex, message, STK_NAME_s_bytes);
    PyObject *text = PyErr_Occurred() ? NULL : ws_get(ex, message, STK_NAME_s_text);

    if (PyErr_Occurred())
        return -1;
    if (PyUnicode_CheckExact(type))
        Py_XSETREF(ex->asgi->type_ws_send, stk_py_newref(type));
    return ws_send(ex, text, bytes);
}

static int ws_close(StkExchange *ex, PyObject *message)
{
    struct stk_request *req = ex->call.req;
    PyObject *code = ws_get(ex, message, STK_NAME_s_code);
    PyObject *reason = code || !PyErr_Occurred() ? ws_get(ex, message, STK_NAME_s_reason) : NULL;
    const char *text = "";
    Py_ssize_t len = 0;
    long number = 1000;

    if (PyErr_Occurred())
        return -1;
    if (code && !PyLong_Check(code)) {
        PyErr_Format(PyExc_TypeError, "websocket.close: the code must be an int, got %.200R", code);
        return -1;
    }
    if (code)
        number = PyLong_AsLong(code);
    if (number == -1 && PyErr_Occurred())
        PyErr_Clear(); /* beyond all codes */
    if (reason)
        text = PyUnicode_Check(reason) ? PyUnicode_AsUTF8AndSize(reason, &len) : NULL;
    if (!text) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_TypeError, "websocket.close: the reason must be a str, got %.200R",
                         reason);
        return -1;
    }
    if (number < 0 || number > UINT16_MAX ||
        req->ops->ws_close(req, (unsigned)number, stk_span_make(text, (size_t)len)) ==
            STK_RESPONSE_E_WS_CODE) {
        PyErr_Format(PyExc_ValueError,
                     "websocket.close: %ld is not a close code that may be sent (RFC 6455 7.4)",
                     number);
        return -1;
    }
    ex->ws_state = WS_CLOSED; /* the client may have closed it first: no mistake */
    return 0;
}

/* websocket.close in the place of websocket.accept. */
static int ws_refuse(StkExchange *ex)
{
    struct stk_request *req = ex->call.req;

    ex->ws_state = WS_REFUSED;
    if (req->ops->start(req, 403, STK_SPAN_LIT("Forbidden")) != 0 ||
        req->ops->write(req, "", 0, STK_WRITE_END) < 0)
        ex->call.gone = true;
    stk_exchange_answered(ex);
    return 0;
}

static int ws_raise_order(const StkExchange *ex, PyObject *type)
{
    static const char *const expected[] = {
        [WS_NEW] = "'websocket.accept', 'websocket.close' or 'websocket.http.response.start' has "
                   "to come first",
        [WS_CONNECT] = "'websocket.accept', 'websocket.close' or 'websocket.http.response.start' "
                       "has to come first",
        [WS_OPEN] = "'websocket.send' or 'websocket.close' has to follow",
        [WS_CLOSED] = "'websocket.close' has been sent already",
        [WS_REFUSED] = "the WebSocket has been refused",
    };

    PyErr_Format(PyExc_RuntimeError, "unexpected ASGI message %.100R: %s", type,
                 expected[ex->ws_state]);
    return -1;
}

static int ws_raise_unknown(PyObject *type)
{
    PyErr_Format(PyExc_RuntimeError, "unexpected ASGI message %.100R: %s", type,
                 PyUnicode_Check(type) ? "it is none of a WebSocket" : "the type has to be a str");
    return -1;
}

static bool ws_type_is(stk_span type, const char *text)
{
    return stk_span_eq(type, stk_span_str(text));
}

/* The response of the application's own that refuses it. */
static int ws_send_response(StkExchange *ex, PyObject *dict, stk_span type, PyObject *object)
{
    struct stk_message message;

    if (stk_message_read(ex->call.host->st, dict, &message) < 0)
        return -1;
    if (ws_type_is(type, "http.response.start") && ex->ws_state <= WS_CONNECT) {
        if (stk_send_start(ex, &message) < 0)
            return -1;
        ex->ws_state = WS_REFUSED;
        return 0;
    }
    if (ws_type_is(type, "http.response.body") && ex->ws_state == WS_REFUSED && ex->call.req &&
        ex->state != STK_ASGI_ENDED)
        return stk_send_body(ex, &message);
    if (!ws_type_is(type, "http.response.start") && !ws_type_is(type, "http.response.body") &&
        !ws_type_is(type, "accept") && !ws_type_is(type, "send") && !ws_type_is(type, "close"))
        return ws_raise_unknown(object);
    return ws_raise_order(ex, object);
}

int stk_ws_send_message(StkExchange *ex, PyObject *message, PyObject *type)
{
    stk_span name = {NULL, 0};
    bool fresh = ex->ws_state <= WS_CONNECT;
    size_t len = 0;

    if (!PyUnicode_Check(type) || !stk_py_latin1(type, &name.ptr, &len) || len < 10 ||
        memcmp(name.ptr, "websocket.", 10) != 0)
        return ws_raise_unknown(type);
    name = stk_span_make(name.ptr + 10, len - 10);
    if (stk_likely(ws_type_is(name, "send") && ex->ws_state == WS_OPEN)) {
        if (stk_likely(ex->call.req != NULL))
            return ws_look_up_send(ex, message, type);
        stk_send_raise_gone();
        return -1;
    }
    if (fresh && (ex->call.gone || !ex->call.req)) {
        stk_send_raise_gone();
        return -1;
    }
    if (ws_type_is(name, "accept") && fresh)
        return ws_accept(ex, message);
    if (ws_type_is(name, "close") && fresh)
        return ws_refuse(ex);
    if (ws_type_is(name, "close") && ex->ws_state == WS_OPEN)
        return ex->call.req ? ws_close(ex, message) : 0;
    return ws_send_response(ex, message, name, type);
}

/* ---- the end ------------------------------------------------------------------------------- */

void stk_ws_end(StkExchange *ex, bool failed)
{
    bool answered = ex->ws_state == WS_OPEN || ex->ws_state == WS_CLOSED;

    Py_CLEAR(ex->ready);
    if (!ex->call.req || ex->state == STK_ASGI_ENDED || (answered && !failed))
        return;
    if (!failed && !ex->call.gone && !ex->left && !ex->call.cancelled)
        stk_log_error("%s: the ASGI application returned without websocket.accept or "
                      "websocket.close",
                      ex->title ? ex->title : "a WebSocket");
    ex->call.req->ops->fail(ex->call.req);
    ex->state = STK_ASGI_ENDED;
}
