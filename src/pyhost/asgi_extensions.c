/*
 * The extensions that a request is offered. Each is told by an empty dict, which belongs to the
 * request as all of its scope does: middleware may write into it. So a copy is made of the outer
 * dict only, and the inner ones are new.
 */
#include "pyhost/asgi_extensions.h"

#include <string.h>

#include "app/request.h"

/* The certificates of a text, each by itself. */
static PyObject *extensions_certs(stk_span pem)
{
    static const char end[] = "-----END CERTIFICATE-----\n";
    PyObject *list = PyList_New(0);

    while (list && pem.len > 0) {
        const char *at = memmem(pem.ptr, pem.len, end, sizeof(end) - 1);
        size_t len = at ? (size_t)(at - pem.ptr) + sizeof(end) - 1 : pem.len;
        PyObject *cert = PyUnicode_DecodeASCII(pem.ptr, (Py_ssize_t)len, "replace");

        if (!cert || PyList_Append(list, cert) < 0)
            Py_CLEAR(list);
        Py_XDECREF(cert);
        pem = stk_span_make(pem.ptr + len, pem.len - len);
    }
    return list;
}

/* A text that is None where it is empty. */
static PyObject *extensions_text(stk_span text)
{
    if (text.len == 0)
        return stk_py_newref(Py_None);
    return PyUnicode_DecodeUTF8(text.ptr, (Py_ssize_t)text.len, "replace");
}

/* ASGI TLS extension, 0.2. */
static PyObject *extensions_tls(struct stk_extensions *x, const struct stk_tls_view *view)
{
    stk_span pem = view->server_cert;
    PyObject *cert = x->server_cert;

    if (!cert || (size_t)PyUnicode_GET_LENGTH(cert) != pem.len ||
        memcmp(PyUnicode_1BYTE_DATA(cert), pem.ptr, pem.len) != 0) {
        cert = PyUnicode_DecodeASCII(pem.ptr, (Py_ssize_t)pem.len, "replace");
        Py_XSETREF(x->server_cert, cert);
        if (!cert)
            return NULL;
    }
    if (pem.len == 0)
        cert = Py_None;
    return Py_BuildValue("{s:O,s:N,s:N,s:O,s:I,s:I}", "server_cert", cert, "client_cert_chain",
                         extensions_certs(view->client_certs), "client_cert_name",
                         extensions_text(view->client_name), "client_cert_error", Py_None,
                         "tls_version", view->version, "cipher_suite", view->suite);
}

int stk_extensions_add_tls(struct stk_extensions *x, PyObject *extensions,
                           const struct stk_request *req)
{
    struct stk_tls_view view;
    PyObject *tls;
    int r;

    if (!req->ops->tls(req, &view))
        return 0;
    tls = extensions_tls(x, &view);
    r = tls ? PyDict_SetItem(extensions, stk_state_name(x->st, STK_NAME_s_tls), tls) : -1;
    Py_XDECREF(tls);
    return r;
}

PyObject *stk_extensions_new(const struct stk_extensions *x, enum stk_offer offer,
                             PyObject *ret_inner[STK_EXTENSIONS_MAX])
{
    PyObject *inner[STK_EXTENSIONS_MAX] = {NULL};
    PyObject *dict = PyDict_Copy(x->offers[offer]);
    PyObject *key;
    Py_ssize_t at = 0;

    for (unsigned i = 0; dict && PyDict_Next(x->offers[offer], &at, &key, NULL); i++) {
        PyObject *empty = PyDict_New();

        if (!empty || PyDict_SetItem(dict, key, empty) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(empty);
        inner[i] = empty;
    }
    if (dict)
        memcpy(ret_inner, inner, sizeof(inner));
    return dict;
}

int stk_extensions_init(struct stk_extensions *x, struct stk_state *st)
{
    static const char *const names[STK_EXTENSIONS_MAX] = {
        "http.response.pathsend",
        "http.response.zerocopysend",
        "http.response.early_hint",
        "http.response.trailers",
    };

    *x = (struct stk_extensions){.st = st};
    for (int i = 0; i < STK_OFFERS; i++) {
        x->offers[i] = PyDict_New();
        for (int j = 0; x->offers[i] && j < i + 2; j++)
            if (PyDict_SetItemString(x->offers[i], names[j], Py_None) < 0)
                return -1;
        if (!x->offers[i])
            return -1;
    }
    return 0;
}

void stk_extensions_free(struct stk_extensions *x)
{
    for (int i = 0; i < STK_OFFERS; i++)
        Py_CLEAR(x->offers[i]);
    Py_CLEAR(x->server_cert);
}
