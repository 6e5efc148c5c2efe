/*
 * The statistics as JSON, in the schema of uWSGI's stats server, so that uwsgitop and the exporters
 * for it find what they look for; what that schema has no place for is under "stoker".
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/macros.h"
#include "base/time.h"

struct stk_caches;
struct stk_config;
struct stk_listener;
struct stk_scoreboard;

/* Where the numbers come from; the process that writes is the master. */
struct stk_stats {
    const struct stk_scoreboard *scoreboard;
    const struct stk_config *config;
    unsigned nworkers;
    struct stk_listener *const *listeners; /* with open descriptors */
    size_t nlisteners;
    const struct stk_caches *caches;             /* NULL: none */
    const char *(*reason_name)(unsigned reason); /* of closed connections */
    unsigned nreasons;
    const char *state;                                 /* "serving", "stopping" ... */
    void (*more)(struct stk_json *j, const void *arg); /* writes fields of the master's; or NULL */
    const void *more_arg;
};

/* Writes one object. */
void stk_stats_write(struct stk_json *j, const struct stk_stats *stats);
/* The same as text (free it), with a new line behind it. 0 or -ENOMEM. */
int stk_stats_text(const struct stk_stats *stats, char **ret_text, size_t *ret_len) STK_MUST_CHECK;
