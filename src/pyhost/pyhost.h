/*
 * The WSGI host: a Python application behind the contract of app/host.h. This header is all that
 * cli/ sees of the folder.
 */
#pragma once

#include "app/host.h"
#include "pyhost/compat.h"

/* The operations, for the worker. */
const struct stk_host_ops *stk_pyhost_ops(void);
/*
 * A host without an application yet; `module` is stoker._core, which stays referenced. With the GIL
 * held. NULL with a Python exception.
 */
void *stk_pyhost_new(PyObject *module);
/* The caches of the server, for applications; alive as long as the host. May be NULL. */
struct stk_caches;
void stk_pyhost_set_caches(void *host, const struct stk_caches *caches);
/*
 * Calls stoker._core._on_task(name), which a module of ours has put there. The exit code of this
 * process; an exception is printed.
 */
int stk_pyhost_run_task(void *host, const char *name);
/* Drops the application and all caches, with the GIL held. Accepts NULL. */
void stk_pyhost_free(void *host);
