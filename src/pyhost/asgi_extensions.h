/*
 * scope["extensions"]: which extensions of ASGI a request is offered. The dict and those in it are
 * the request's own.
 */
#pragma once

#include "pyhost/state.h"

struct stk_request;

enum stk_offer {
    STK_OFFER_FILES,    /* behind a gateway, or to HTTP/1.0 */
    STK_OFFER_HINTS,    /* early hints as well */
    STK_OFFER_TRAILERS, /* and trailers */
    STK_OFFERS,
};

enum { STK_EXTENSIONS_MAX = 4 }; /* that a request is offered, without TLS's */

struct stk_extensions {
    struct stk_state *st;
    PyObject *offers[STK_OFFERS]; /* what each dict is a copy of, but for the dicts in it */
    PyObject *server_cert;        /* of the last request by TLS, as str; or NULL */
};

/* 0, or -1 with an exception. Either way to be freed. */
int stk_extensions_init(struct stk_extensions *x, struct stk_state *st);
void stk_extensions_free(struct stk_extensions *x);
/* A dict, and what is in it (borrowed from it; the rest is NULL). NULL with an exception. */
PyObject *stk_extensions_new(const struct stk_extensions *x, enum stk_offer offer,
                             PyObject *ret_inner[STK_EXTENSIONS_MAX]);
/* Adds "tls" for a request that has come by TLS. 0, or -1 with an exception. */
int stk_extensions_add_tls(struct stk_extensions *x, PyObject *extensions,
                           const struct stk_request *req);

/* Whether the dicts in one are empty, and nobody else's. */
static inline bool stk_extensions_are_fresh(PyObject *const inner[STK_EXTENSIONS_MAX])
{
    for (unsigned i = 0; i < STK_EXTENSIONS_MAX && inner[i]; i++)
        if (Py_REFCNT(inner[i]) != 1 || PyDict_GET_SIZE(inner[i]) != 0)
            return false;
    return true;
}
