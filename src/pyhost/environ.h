/* The environ dict of PEP 3333, made from templates and caches. */
#pragma once

#include "pyhost/host.h"

struct stk_environ;
struct stk_environ_shape;

/* NULL with an exception. The endpoints must outlive it. */
struct stk_environ *stk_environ_new(struct stk_pyhost *host, const struct stk_host_params *params);
void stk_environ_free(struct stk_environ *env);
/*
 * The environ of a request; `input` is its wsgi.input, NULL for the shared empty one. A new
 * reference, or NULL with an exception; give it back with stk_environ_release.
 */
PyObject *stk_environ_build(struct stk_environ *env, const struct stk_request *req, PyObject *input,
                            struct stk_environ_shape **ret_lender);
/* Takes the environ back, with what stk_environ_build said of its lender (NULL: nobody). */
void stk_environ_release(PyObject *dict, struct stk_environ_shape *lender);
