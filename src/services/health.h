/*
 * Health of the server, for load balancers and container managers: answered in C by any thread of
 * any worker, whatever the application does.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "app/handler.h"

struct stk_scoreboard;

/* `arg` of the handlers; alive as long as they. */
struct stk_health {
    const struct stk_scoreboard *scoreboard;
    uint64_t queue_limit; /* requests that may wait in a worker; 0: no limit */
};

/*
 * Readiness: 200 while a worker is ready and takes requests, else 503 with one line that says why
 * (a handler's `answer`).
 */
void stk_health_ready(void *arg, const struct stk_handler_request *req,
                      struct stk_handler_response *ret_response);
/* Liveness: 200 always, for an answer shows that the loop turns (likewise). */
void stk_health_live(void *arg, const struct stk_handler_request *req,
                     struct stk_handler_response *ret_response);
