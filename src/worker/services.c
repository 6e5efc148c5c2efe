/*
 * The table of handlers of a worker, from the configuration. All workers answer the same, from the
 * scoreboard: it does not matter which of them is asked.
 */
#include "worker/services.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "config/config.h"
#include "ipc/heritage.h"
#include "serve/server.h"

static void services_add(struct stk_services *s, char *path, const char *endpoint,
                         void (*answer)(void *arg, const struct stk_handler_request *req,
                                        struct stk_handler_response *ret_response),
                         void *arg)
{
    STK_ASSERT(s->n < STK_SERVICES_HANDLERS);
    s->paths[s->n] = path;
    s->handlers[s->n++] =
        (struct stk_handler){.path = path, .endpoint = endpoint, .answer = answer, .arg = arg};
}

/* The path, and two behind it. */
static void services_add_health(struct stk_services *s, const char *path)
{
    size_t len = strlen(path);
    int stem; /* "/" and "/health/" stand for the same paths as "" and "/health" */

    while (len > 0 && path[len - 1] == '/')
        len--;
    stem = (int)len;
    services_add(s, stk_mem_strdup(path), NULL, stk_health_ready, &s->health);
    services_add(s, stk_mem_printf("%.*s/ready", stem, path), NULL, stk_health_ready, &s->health);
    services_add(s, stk_mem_printf("%.*s/live", stem, path), NULL, stk_health_live, &s->health);
}

void stk_services_init(struct stk_services *s, const struct stk_heritage *heritage,
                       const char *runtime)
{
    const struct stk_config *config = heritage->config;

    *s = (struct stk_services){
        .wanted = config->metrics != NULL || config->stats != NULL,
        .health = {.scoreboard = heritage->scoreboard, .queue_limit = (uint64_t)config->max_queue},
    };
    if (config->health_path != NULL)
        services_add_health(s, config->health_path);
    if (config->metrics == NULL)
        return;
    s->prometheus.scoreboard = heritage->scoreboard;
    s->prometheus.caches = heritage->caches;
    s->prometheus.nworkers = heritage->nworkers;
    s->prometheus.runtime = runtime;
    s->prometheus.reason_name = stk_close_reason_name;
    s->prometheus.nreasons = STK_CLOSE_REASONS;
    stk_prometheus_init(&s->prometheus);
    if (config->metrics[0] == '/') {
        services_add(s, stk_mem_strdup(config->metrics), NULL, stk_prometheus_answer,
                     &s->prometheus);
    } else {
        s->address = config->metrics;
        services_add(s, stk_mem_strdup("/metrics"), config->metrics, stk_prometheus_answer,
                     &s->prometheus);
    }
}

void stk_services_deinit(struct stk_services *s)
{
    stk_prometheus_deinit(&s->prometheus);
    for (size_t i = 0; i < s->n; i++)
        free(s->paths[i]);
    s->n = 0;
}
