/* The functions in environ that speak of the request in progress: stoker.disconnected() and
 * stoker.set_timeout(seconds). */
#pragma once

#include "pyhost/host.h"

/* The call that runs on this thread, or in this greenlet; NULL: none does. With the GIL. */
struct stk_call *stk_context_current(const struct stk_pyhost *host);
/* Adds them to a dict, one object for all requests. 0 or -1. */
int stk_context_add(struct stk_pyhost *host, PyObject *dict);
/* Puts those for the access log on the module (pyhost/guest.h), after the first. 0 or -1. */
int stk_context_add_log(struct stk_pyhost *host);
/* Cuts those that the application may have kept off the host. */
void stk_context_forget(struct stk_pyhost *host);
