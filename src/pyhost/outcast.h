/* Exceptions after which the process is to be replaced (reload-on-exception). */
#pragma once

#include "pyhost/host.h"

/* A request has raised `exc`, and the server has not caused it. Never fails, raises nothing. */
void stk_outcast_check(struct stk_pyhost *host, PyObject *exc);
