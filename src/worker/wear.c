/*
 * A worker looks at its own number of requests, where it publishes it, and tells the master once:
 * to be replaced (max-requests), or what it has imported since it was forked from the template
 * (preload-refresh). Both limits are in one number, so that a turn pays for one comparison.
 *
 * Chance lowers max-requests by up to recycle-jitter percent: workers that were started together
 * are not worn out together.
 */
#include "worker/wear.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/log.h"
#include "ipc/channel.h"

static uint64_t wear_by_chance(const struct stk_config *config)
{
    uint32_t chance = 0;
    double less;

    if (config->max_requests <= 0)
        return UINT64_MAX;
    if (getrandom(&chance, sizeof chance, GRND_NONBLOCK) < 0)
        chance = (uint32_t)getpid() * 2654435761u;
    less = (double)config->max_requests * (double)config->recycle_jitter / 100 *
           (double)(chance & 1023) / 1024;
    return (uint64_t)config->max_requests - (uint64_t)less;
}

static void wear_set_due(struct stk_wear *wear)
{
    atomic_store_explicit(&wear->due, wear->retire < wear->refresh ? wear->retire : wear->refresh,
                          memory_order_relaxed);
}

void stk_wear_init(struct stk_wear *wear, const struct stk_heritage *heritage,
                   const struct stk_host_ops *host_ops, void *host)
{
    const struct stk_config *config = heritage->config;

    wear->heritage = heritage;
    wear->host_ops = host_ops;
    wear->host = host;
    wear->retire = wear_by_chance(config);
    wear->refresh = UINT64_MAX;
    if (config->preload_refresh > 0 && heritage->preloaded && host_ops->list_modules != NULL)
        wear->refresh = (uint64_t)config->preload_refresh;
    wear_set_due(wear);
}

static void wear_send_modules(struct stk_wear *wear)
{
    char **names = wear->host_ops->list_modules(wear->host);
    int r = 0;

    if (names == NULL)
        return;
    if (names[0] != NULL)
        r = stk_channel_send_list(wear->heritage->channel, STK_MESSAGE_MODULES,
                                  (const char *const *)names);
    if (r < 0)
        stk_log_warning("preload-refresh: the master was not told what was imported: %s",
                        strerror(-r));
    for (char **p = names; *p != NULL; p++)
        free(*p);
    free(names);
}

void stk_wear_act(struct stk_wear *wear)
{
    uint64_t n = stk_scoreboard_get(wear->heritage->row, STK_COUNTER_requests);

    /* Threads that come at the same time find nothing to do. */
    if (atomic_exchange(&wear->due, UINT64_MAX) == UINT64_MAX)
        return;
    if (n >= wear->refresh) {
        wear->refresh = UINT64_MAX;
        wear_send_modules(wear);
    }
    if (n >= wear->retire) {
        wear->retire = UINT64_MAX;
        if (stk_channel_send_simple(wear->heritage->channel, STK_MESSAGE_RETIRE,
                                    STK_CHANNEL_RETIRE_REQUESTS, (int64_t)n) < 0)
            stk_log_warning("the master was not told that max-requests is reached");
    }
    wear_set_due(wear);
}
