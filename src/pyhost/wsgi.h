/* One request, answered by a WSGI application (PEP 3333). */
#pragma once

#include "pyhost/host.h"

/* host_ops.call. */
enum stk_host_call stk_wsgi_call(void *host, void *thread, struct stk_request *req);
/* Its inside, for a call that is prepared: the environ, the application, what it returns, close().
 * `thread` keeps the start_response object. No exception is left. */
void stk_wsgi_answer(struct stk_call *call, struct stk_pythread *thread);
/* Ends a process that the application forked during a request and let return. */
void stk_wsgi_end_stray(void) STK_NORETURN;
