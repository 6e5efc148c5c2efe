/* The environ dict of PEP 3333, made from templates and caches. */
#pragma once

#include "pyhost/host.h"

struct stk_environ;

/* NULL with an exception. The endpoints must outlive it. */
struct stk_environ *stk_environ_new(const struct stk_pyhost *host,
                                    const struct stk_host_params *params);
void stk_environ_free(struct stk_environ *env);
/* The environ of a request; `input` is its wsgi.input, NULL for the shared empty one. A new dict,
 * or NULL with an exception. */
PyObject *stk_environ_build(struct stk_environ *env, const struct stk_request *req,
                            PyObject *input);
