/* Finding and importing the application. */
#pragma once

#include "pyhost/host.h"

/* host_ops.load. */
int stk_loader_load(void *host, const struct stk_host_params *params);
