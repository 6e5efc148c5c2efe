/*
 * receive(): the body of the request in as many messages as it comes in, then, when the client has
 * left or the response is complete, http.disconnect. A body that the server has gathered in a bytes
 * object of ours (body_alloc) becomes the message's body without a copy.
 *
 * A body that ends early (the client has left, is too slow, or its chunks are malformed) is told
 * by http.disconnect as well: the server has answered, where it could.
 */
#include "pyhost/asgi_priv.h"

#include <errno.h>

static PyObject *receive_disconnect(const struct stk_state *st)
{
    PyObject *message = PyDict_New();

    if (message && PyDict_SetItem(message, stk_state_name(st, STK_NAME_s_type),
                                  stk_state_name(st, STK_NAME_http_disconnect)) < 0)
        Py_CLEAR(message);
    return message;
}

/* Takes the reference to the body. */
static PyObject *receive_request(const struct stk_state *st, PyObject *body, bool more)
{
    PyObject *message = body ? PyDict_New() : NULL;

    if (message && (PyDict_SetItem(message, stk_state_name(st, STK_NAME_s_type),
                                   stk_state_name(st, STK_NAME_http_request)) < 0 ||
                    PyDict_SetItem(message, stk_state_name(st, STK_NAME_s_body), body) < 0 ||
                    PyDict_SetItem(message, stk_state_name(st, STK_NAME_s_more_body),
                                   more ? Py_True : Py_False) < 0))
        Py_CLEAR(message);
    Py_XDECREF(body);
    return message;
}

/* The bytes of a view, which count as read. */
static PyObject *receive_take(StkExchange *ex, const struct stk_body_view *view)
{
    struct stk_request *req = ex->call.req;
    PyObject *bytes = (PyObject *)(view->buffer ? view->buffer : view->part);

    if (bytes && view->ptr == PyBytes_AS_STRING(bytes) &&
        view->len == (size_t)PyBytes_GET_SIZE(bytes))
        Py_INCREF(bytes);
    else
        bytes = PyBytes_FromStringAndSize(view->ptr, (Py_ssize_t)view->len);
    if (!bytes)
        return NULL;
    ex->body_done = view->buffer != NULL;
    ex->consumed += (int64_t)view->len;
    req->ops->body_skip(req, view->len);
    if (!ex->body_done && req->body_length >= 0)
        ex->body_done = ex->consumed >= req->body_length;
    return bytes;
}

/* Whether more of the body is to come, where only looking tells: what that brings is kept. */
static void receive_look_ahead(StkExchange *ex)
{
    struct stk_request *req = ex->call.req;
    struct stk_body_view view = {.ptr = NULL};

    if (!ex->body_done && req->body_length < 0 && req->ops->body_peek(req, &view) == 0 &&
        view.len == 0)
        ex->body_done = true;
}

/* Whether the caller may not touch the request; with an exception then. */
static bool receive_is_elsewhere(const StkExchange *ex)
{
    if (stk_likely(!stk_host_is_stray(ex->call.host) && PyThreadState_Get() == ex->call.ts))
        return false;
    PyErr_SetString(PyExc_RuntimeError, "receive() was awaited in another thread or process than "
                                        "that of the event loop");
    return true;
}

int stk_receive_next(StkExchange *ex, PyObject **ret_message)
{
    const struct stk_state *st = ex->call.host->st;
    struct stk_request *req = ex->call.req;
    struct stk_body_view view = {.ptr = NULL};
    PyObject *body;
    int r;

    if (stk_unlikely(ex->websocket))
        return receive_is_elsewhere(ex) ? -1 : stk_ws_receive_next(ex, ret_message);
    if (!req || ex->state == STK_ASGI_ENDED || ex->call.gone || ex->call.input_failed) {
        *ret_message = receive_disconnect(st);
        return *ret_message ? 1 : -1;
    }
    if (receive_is_elsewhere(ex))
        return -1;
    if (ex->body_done) {
        if (!ex->left)
            return 0;
        *ret_message = receive_disconnect(st);
        return *ret_message ? 1 : -1;
    }
    if (stk_likely(req->body_length == 0)) {
        ex->body_done = true;
        *ret_message = receive_request(st, PyBytes_FromStringAndSize(NULL, 0), false);
        return *ret_message ? 1 : -1;
    }
    r = req->ops->body_peek(req, &view);
    if (r == -EAGAIN) {
        if (ex->detached)
            req->ops->want(req, STK_WAKE_INPUT);
        return 0;
    }
    if (r != 0) {
        ex->call.input_failed = true;
        if (r == -ECONNRESET || r == -EPIPE)
            ex->left = true;
        *ret_message = receive_disconnect(st);
        return *ret_message ? 1 : -1;
    }
    if (view.len == 0) {
        ex->body_done = true;
        body = PyBytes_FromStringAndSize(NULL, 0);
    } else {
        body = receive_take(ex, &view);
        if (body)
            receive_look_ahead(ex);
    }
    *ret_message = receive_request(st, body, !ex->body_done);
    return *ret_message ? 1 : -1;
}
