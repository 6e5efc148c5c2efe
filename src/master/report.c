/*
 * What the master tells of the server without being a party to it: the statistics, at the address
 * of `stats`. Nothing here happens unless somebody connects.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "master/master_priv.h"
#include "serve/server.h"
#include "services/stats.h"
#include "services/stats_server.h"

static const char *report_state(const struct stk_master *m)
{
    if (m->stopping != 0)
        return "stopping";
    if (m->reloading)
        return "reloading";
    return m->ever_ready ? "serving" : "starting";
}

/* In uWSGI's schema, which has them only where there are any. */
static void report_crons(struct stk_json *j, const void *arg)
{
    const struct stk_master *m = arg;

    if (m->beside.config != NULL && m->beside.config->ncrons > 0)
        stk_beside_put_crons(j, m);
}

void stk_report_stats(const struct stk_master *m, struct stk_stats *ret_stats)
{
    *ret_stats = (struct stk_stats){
        .scoreboard = m->scoreboard,
        .config = m->config,
        .nworkers = m->params->nworkers,
        .listeners = m->listeners.items,
        .nlisteners = m->listeners.n,
        .caches = m->caches,
        .reason_name = stk_close_reason_name,
        .nreasons = STK_CLOSE_REASONS,
        .state = report_state(m),
        .more = report_crons,
        .more_arg = m,
    };
}

static int report_text(void *arg, char **ret_text, size_t *ret_len)
{
    struct stk_stats stats;

    stk_report_stats(arg, &stats);
    return stk_stats_text(&stats, ret_text, ret_len);
}

int stk_report_open(struct stk_master *m)
{
    const struct stk_stats_server_params params = {
        .loop = m->loop,
        .listeners = m->stats_listeners.items,
        .nlisteners = m->stats_listeners.n,
        .http = m->config->stats_http,
        .text = report_text,
        .arg = m,
    };
    int r;

    if (m->stats_listeners.n == 0)
        return 0;
    r = stk_stats_server_new(&m->stats_server, &params);
    if (r == 0)
        return 0;
    errno = -r;
    stk_log_critical("the statistics cannot be served: %m");
    return STK_MASTER_EXIT_CONFIG;
}

void stk_report_close(struct stk_master *m)
{
    m->stats_server = stk_stats_server_free(m->stats_server);
    stk_listen_set_close(&m->stats_listeners);
}

void stk_report_leave(struct stk_master *m)
{
    stk_stats_server_leave(m->stats_server);
    stk_listen_set_close(&m->stats_listeners);
}
