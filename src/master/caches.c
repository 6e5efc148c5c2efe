/*
 * The master's part in the caches: it makes them before anything is forked, with the rights that
 * the server has in the end, sweeps them, and hands them to the server that follows.
 */
#include <stdlib.h>

#include "base/fd.h"
#include "base/mem.h"
#include "master/master_priv.h"
#include "master/startup.h"
#include "services/caches.h"

static void caches_on_timer(struct stk_timer *timer, void *who)
{
    struct stk_master *m = stk_container_of(timer, struct stk_master, sweep);

    bool more = stk_caches_tick(m->caches);

    stk_timer_set(m->loop, timer, more ? STK_CACHES_SOON_MS : STK_CACHES_TICK_MS);
}

int stk_master_open_caches(struct stk_master *m)
{
    struct stk_startup *startup = m->params->startup;
    bool successor = startup != NULL && startup->predecessor > 0;
    const struct stk_caches_start start = {
        .old = successor ? startup->caches : NULL,
        .nold = successor ? startup->ncaches : 0,
    };

    if (stk_caches_new(m->config, &start, &m->caches) < 0)
        return STK_MASTER_EXIT_CONFIG;
    if (m->params->on_caches != NULL)
        m->params->on_caches(m->params->on_listening_arg, m->caches);
    return 0;
}

void stk_master_sweep_caches(struct stk_master *m)
{
    stk_timer_init(&m->sweep, caches_on_timer);
    if (m->caches != NULL)
        stk_timer_set(m->loop, &m->sweep, STK_CACHES_TICK_MS);
}

void stk_master_close_caches(struct stk_master *m)
{
    if (m->caches != NULL && m->params->on_caches != NULL)
        m->params->on_caches(m->params->on_listening_arg, NULL);
    m->caches = stk_caches_free(m->caches);
}

char *stk_master_hand_caches_over(const struct stk_master *m, char *text)
{
    for (size_t i = 0; m->caches != NULL && i < m->caches->n; i++) {
        struct stk_cache_fds fds = stk_cache_fds(m->caches->items[i]);
        char *more;

        if (stk_fd_set_cloexec(fds.memory, false) < 0 ||
            (fds.store >= 0 && stk_fd_set_cloexec(fds.store, false) < 0))
            continue; /* it begins with an empty one */
        more = stk_mem_printf("%s " STK_STARTUP_CACHE "=%d,%d", text, fds.memory, fds.store);
        free(text);
        text = more;
    }
    return text;
}
