/*
 * `server` of a scope: the address that a request has come to.
 *
 * It is the endpoint's, unless the connection tells another one, as a PROXY header or a front end
 * does by SERVER_NAME and SERVER_PORT: what a WSGI application would find in its environ.
 */
#include "pyhost/asgi_priv.h"

/* The number of a port; -1 of anything else. */
static long server_port(stk_span text)
{
    long port = 0;

    if (text.len == 0 || text.len > 5)
        return -1;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return -1;
        port = port * 10 + (text.ptr[i] - '0');
    }
    return port <= UINT16_MAX ? port : -1;
}

static PyObject *server_pair(PyObject *host, long port)
{
    if (!host)
        return NULL;
    return port < 0 ? Py_BuildValue("(NO)", host, Py_None) : Py_BuildValue("(Nl)", host, port);
}

PyObject *stk_scope_server(const struct stk_endpoint *ep)
{
    if (ep->path.len > 0)
        return server_pair(PyUnicode_DecodeFSDefaultAndSize(ep->path.ptr, (Py_ssize_t)ep->path.len),
                           -1);
    return server_pair(
        PyUnicode_DecodeUTF8(ep->server_name.ptr, (Py_ssize_t)ep->server_name.len, NULL),
        ep->is_unix ? -1 : server_port(ep->server_port));
}

PyObject *stk_scope_told_server(const struct stk_request *req)
{
    const struct stk_var *name = NULL;
    stk_span port = {NULL, 0};

    for (size_t i = 0; i < req->nvars; i++) {
        if (stk_span_eq(req->vars[i].name, STK_SPAN_LIT("SERVER_NAME")))
            name = &req->vars[i];
        else if (stk_span_eq(req->vars[i].name, STK_SPAN_LIT("SERVER_PORT")))
            port = req->vars[i].value;
    }
    if (!name || name->value.len == 0)
        return NULL;
    return server_pair(PyUnicode_DecodeLatin1(name->value.ptr, (Py_ssize_t)name->value.len, NULL),
                       server_port(port));
}
