/*
 * Readiness is the server's, not that of the worker which happens to answer: a client that asks
 * while one of several workers is replaced must not conclude that the server is down. All of it is
 * in the scoreboard.
 *
 * Full is not ready: a balancer that has other servers should use them.
 */
#include "services/health.h"

#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "ipc/scoreboard.h"

/* What the workers are doing, as far as readiness goes. */
struct health_view {
    unsigned ready;    /* serve */
    unsigned open;     /* of these, those with room in their queue */
    unsigned starting; /* load the application */
    unsigned draining;
};

static struct health_view health_look(const struct stk_health *health)
{
    const struct stk_scoreboard *sb = health->scoreboard;
    struct health_view view = {0};

    for (unsigned i = 0; i < sb->nrows; i++) {
        const struct stk_scoreboard_row *row = &sb->rows[i];

        switch (atomic_load_explicit(&row->state, memory_order_relaxed)) {
        case STK_SCOREBOARD_READY:
            view.ready++;
            if (health->queue_limit == 0 ||
                stk_scoreboard_get(row, STK_COUNTER_requests_queued) < health->queue_limit)
                view.open++;
            break;
        case STK_SCOREBOARD_STARTING:
            view.starting++;
            break;
        case STK_SCOREBOARD_DRAINING:
            view.draining++;
            break;
        default:
            break;
        }
    }
    return view;
}

static void health_say(struct stk_handler_response *ret_response, unsigned status, const char *text)
{
    ret_response->status = status;
    ret_response->content_type = "text/plain; charset=utf-8";
    ret_response->body = stk_mem_strdup(text);
    ret_response->len = strlen(text);
}

void stk_health_ready(void *arg, const struct stk_handler_request *req,
                      struct stk_handler_response *ret_response)
{
    const struct stk_health *health = arg;
    struct health_view view = health_look(health);

    if (view.open > 0)
        health_say(ret_response, 200, "ready\n");
    else if (view.ready > 0)
        health_say(ret_response, 503, "not ready: the queue of every worker is full\n");
    else if (view.starting > 0 && !req->draining)
        health_say(ret_response, 200,
                   "ready\n"); /* this one is; the master has yet to hear of it */
    else if (view.starting > 0)
        health_say(ret_response, 503, "not ready: the workers are starting\n");
    else if (view.draining > 0 || req->draining)
        health_say(ret_response, 503, "not ready: the server is stopping\n");
    else
        health_say(ret_response, 503, "not ready: there is no worker\n");
}

void stk_health_live(void *arg, const struct stk_handler_request *req,
                     struct stk_handler_response *ret_response)
{
    health_say(ret_response, 200, "live\n");
}
