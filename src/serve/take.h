/* The connection as a service: the application speaks a protocol of its own on it (app/request.h).
 */
#pragma once

#include "app/request.h"

/* As stk_request_ops.take, of a request in its call. */
int stk_take(struct stk_request *req, unsigned status);
/* Likewise, of a detached one; mutex held. */
int stk_take_detached(struct stk_request *req, unsigned status);
