/*
 * The connection of the request in progress, for Python modules of stoker's own: WebSockets of WSGI
 * applications in the manner of other servers (stoker.compat).
 */
#pragma once

#include "pyhost/host.h"

/* The functions, for the module's table. */
PyMethodDef *stk_taken_methods(void) __attribute__((returns_nonnull));
