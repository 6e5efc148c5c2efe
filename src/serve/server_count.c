/*
 * What threads have counted for themselves, brought to the scoreboard: by each thread between its
 * turns, so that a request pays for a plain increment.
 */
#include <string.h>

#include "ipc/scoreboard.h"
#include "loop/lead.h"
#include "serve/server.h"

/* Adds to a counter, without a locked instruction where the thread owns the loop. */
static inline void server_count(struct stk_serve_thread *t, bool own, enum stk_counter counter,
                                uint64_t n)
{
    if (n == 0)
        return;
    if (own)
        stk_scoreboard_add_owned(t->server->row, counter, n);
    else
        stk_scoreboard_add(t->server->row, counter, n);
}

void stk_server_publish(struct stk_serve_thread *t)
{
    static const enum stk_counter classes[6] = {
        STK_COUNTER_requests,      STK_COUNTER_responses_1xx, STK_COUNTER_responses_2xx,
        STK_COUNTER_responses_3xx, STK_COUNTER_responses_4xx, STK_COUNTER_responses_5xx,
    };
    bool own = t->lead_thread->own;

    if ((t->answered[0] | t->bytes_in | t->bytes_out) == 0)
        return;
    for (size_t i = 0; i < STK_ARRAY_LEN(classes); i++)
        server_count(t, own, classes[i], t->answered[i]);
    server_count(t, own, STK_COUNTER_exceptions, t->exceptions);
    server_count(t, own, STK_COUNTER_handled, t->handled);
    server_count(t, own, STK_COUNTER_bytes_in, t->bytes_in);
    server_count(t, own, STK_COUNTER_bytes_out, t->bytes_out);
    server_count(t, own, STK_COUNTER_gil_wait_us, t->gil_wait_us);
    if (t->lead_thread->index < STK_SCOREBOARD_RUNNING)
        stk_scoreboard_bump(&t->server->row->answered[t->lead_thread->index], t->answered[0]);
    memset(t->answered, 0, sizeof t->answered);
    t->exceptions = t->handled = 0;
    t->bytes_in = t->bytes_out = t->gil_wait_us = 0;
}

void stk_server_gauge(struct stk_server *server)
{
    uint64_t busy = 0;

    for (unsigned i = 0; i + 1 < server->nthreads; i++)
        busy +=
            atomic_load_explicit(&server->threads[i].lead_thread->calls, memory_order_relaxed) & 1;
    stk_scoreboard_set(server->row, STK_COUNTER_threads_busy, busy);
    stk_scoreboard_set(server->row, STK_COUNTER_requests_queued, stk_lead_jobs(server->lead));
}
