/*
 * The numbers of the scoreboard in the text format of Prometheus, version 0.0.4: summed over all
 * workers, so that any of them can answer; no interpreter is involved.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "app/handler.h"
#include "base/macros.h"
#include "base/time.h"

struct stk_caches;
struct stk_scoreboard;

/* `arg` of the handler; alive as long as it. */
struct stk_prometheus {
    struct stk_scoreboard *scoreboard;
    const struct stk_caches *caches; /* NULL: none */
    unsigned nworkers;
    const char *runtime;                         /* version of Python; NULL: not known */
    const char *(*reason_name)(unsigned reason); /* of closed connections */
    unsigned nreasons;

    /* The proportional shares of memory are measured by a thread that lives for a moment. */
    pthread_mutex_t mutex;
    pthread_t measurer;
    bool measuring; /* there is one, or was and was not joined */
    stk_msec measured;
};

/* Prepares what is not in the hands of the caller. */
void stk_prometheus_init(struct stk_prometheus *p);
/* Waits for its thread. Harmless for a zeroed structure. */
void stk_prometheus_deinit(struct stk_prometheus *p);
/* The text (free it), or NULL without memory. */
char *stk_prometheus_text(struct stk_prometheus *p, size_t *ret_len) STK_MUST_CHECK;
/* The handler of /metrics. */
void stk_prometheus_answer(void *arg, const struct stk_handler_request *req,
                           struct stk_handler_response *ret_response);
