/* One request, answered by a WSGI application (PEP 3333). */
#pragma once

#include "pyhost/host.h"

/* host_ops.call. */
enum stk_host_call stk_wsgi_call(void *host, void *thread, struct stk_request *req);
/* Ends a process that the application forked during a request and let return. */
void stk_wsgi_end_stray(void) STK_NORETURN;
