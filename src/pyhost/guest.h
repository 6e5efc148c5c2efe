/*
 * What Python modules of stoker's own (the module uwsgi) hang into the life of a worker, and what
 * they can ask.
 */
#pragma once

#include "pyhost/host.h"

/*
 * Of struct stk_host_ops: notes which worker this is, and calls stoker._core._on_enter(number), if
 * a module has put that there.
 */
void stk_guest_enter(void *host, const struct stk_host_worker *worker);
/* Of struct stk_host_ops: stoker._core._metrics, (buffer, {name: offset}), as it was at enter. */
bool stk_guest_metric(const void *host, stk_span name, int64_t *ret_value);
/* Frees what enter has noted. */
void stk_guest_forget(struct stk_pyhost *host);
/* The application is loaded, here or ahead: calls stoker._core._on_startup(). 0. */
int stk_guest_startup(struct stk_pyhost *host);
/* Adds stoker._core._environ, a dict, to a template of environs. 0, or -1 with an exception. */
int stk_guest_add(struct stk_pyhost *host, PyObject *dict);
/* Whether a field of a response that is the server's to say is left out, and no error: what
 * stoker._core._forgives(name) says. */
bool stk_guest_forgives(struct stk_pyhost *host, const char *name, size_t len);
/* The functions that they call, for the module's table. */
PyMethodDef *stk_guest_methods(void) __attribute__((returns_nonnull));
