/*
 * Replacing single workers.
 *
 * A worker that has reached a limit is marked (retirement.due) and goes on. Its replacement is
 * started beside it, in slot->next, and only when that is ready does the old one drain. At most
 * recycle-parallel are being replaced at a time, draining included: N workers never need the memory
 * of 2 N. A reload replaces everybody and comes first.
 *
 * When replacements do not start, the old ones stay and the pause between attempts doubles up to a
 * minute. The exception is a worker with a request that does not return from its deadline: it goes
 * without a replacement, unless it is the last one that serves.
 *
 * max-requests is counted by the worker. Ages and memory are looked at here, by one timer that runs
 * only where they are limited. Reading the proportional share is expensive, so looks are at least a
 * thousand times as far apart as one takes.
 *
 * Chance lowers each worker's limits by up to recycle-jitter percent, never raises them: a limit is
 * a limit.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "base/mem.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "master/master_priv.h"
#include "services/memory.h"

enum {
    RECYCLE_BACKOFF_MIN_MS = 1000,
    RECYCLE_BACKOFF_MAX_MS = 60000,
    RECYCLE_NO_ROW_MS = 500,
    RECYCLE_MEMORY_MS = 2000, /* between looks at memory, at least */
    RECYCLE_MEMORY_MAX_MS = 60000,
    RECYCLE_EARLY_MS = 60000, /* too large before this age: the limit is too low */
};

/* A limit as it holds for one worker. */
static int64_t recycle_limit(const struct stk_proc *p, int64_t limit)
{
    int64_t percent = p->master->config->recycle_jitter;
    double less = (double)limit * (double)percent / 100 * (double)p->retirement.chance / 1024;

    return limit - (int64_t)less;
}

static double recycle_age(const struct stk_proc *p)
{
    return (double)(stk_time_mono_ns() - p->retirement.since) / 1e9;
}

/* Marks a worker, once. True: it was not marked before. */
static bool recycle_mark(struct stk_proc *p, enum stk_restart cause)
{
    if (p->retirement.due)
        return false;
    p->retirement.due = true;
    p->retirement.cause = cause;
    return true;
}

static void recycle_check_age(struct stk_proc *p)
{
    int64_t limit = recycle_limit(p, p->master->config->max_lifetime);

    if (limit == 0 || stk_time_mono_ns() - p->retirement.since < limit * STK_NSEC_PER_MSEC)
        return;
    if (recycle_mark(p, STK_RESTART_MAX_LIFETIME))
        stk_log_info("worker %u (%d) has served for %.1f s (max-lifetime): a new one is started in "
                     "its place",
                     p->slot + 1, (int)p->pid, recycle_age(p));
}

static double recycle_mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static void recycle_check_size(struct stk_proc *p, enum stk_restart cause, _Atomic uint64_t *shown,
                               uint64_t bytes, int64_t max)
{
    struct stk_master *m = p->master;
    const char *name = stk_scoreboard_restart_name(cause);

    atomic_store_explicit(shown, bytes, memory_order_relaxed);
    if (bytes < (uint64_t)recycle_limit(p, max) || !recycle_mark(p, cause))
        return;
    stk_log_info("worker %u (%d) has grown to %.1f MiB (%s) in %.1f s and %llu requests: a new one "
                 "is started in its place",
                 p->slot + 1, (int)p->pid, recycle_mib(bytes), name, recycle_age(p),
                 (unsigned long long)stk_scoreboard_get(p->row, STK_COUNTER_requests));
    if (p->retirement.memory_from == p->retirement.since || m->recycle.told)
        return;
    m->recycle.told = true;
    stk_log_warning("%s is too low: workers reach it within a minute or two, so each is now left "
                    "alone for its first minute; raise it, or find what takes so much memory",
                    name);
}

static void recycle_check_memory(struct stk_proc *p)
{
    struct stk_master *m = p->master;
    const struct stk_config *config = m->config;
    uint64_t bytes = 0, virtual_size;
    int r = 0;

    if (stk_time_mono_ns() < p->retirement.memory_from)
        return;
    if (config->max_rss > 0 && (r = stk_memory_size(p->pid, &bytes, &virtual_size)) == 0)
        recycle_check_size(p, STK_RESTART_MAX_RSS, &p->row->rss, bytes, config->max_rss);
    if (r == 0 && config->max_pss > 0 && (r = stk_memory_share(p->pid, &bytes)) == 0)
        recycle_check_size(p, STK_RESTART_MAX_PSS, &p->row->pss, bytes, config->max_pss);
    if (r < 0 && r != -ENOENT && r != -ESRCH && !m->recycle.unreadable) {
        m->recycle.unreadable = true;
        stk_log_warning("the memory of worker %u (%d) cannot be looked at (%s): max-rss and "
                        "max-pss have no effect until it can",
                        p->slot + 1, (int)p->pid, strerror(-r));
    }
}

/* When there is something to look at again, in ms from now; -1: never. */
static stk_msec recycle_next_look(const struct stk_master *m, stk_nsec now)
{
    stk_nsec next = -1;

    for (unsigned i = 0; m->config->max_lifetime > 0 && i < m->params->nworkers; i++) {
        const struct stk_proc *p = m->slots[i].current;
        stk_nsec due;

        if (!stk_proc_is_serving(p) || p->retirement.due)
            continue;
        due = p->retirement.since + recycle_limit(p, m->config->max_lifetime) * STK_NSEC_PER_MSEC;
        if (next < 0 || due < next)
            next = due;
    }
    if ((m->config->max_rss > 0 || m->config->max_pss > 0) &&
        (next < 0 || m->recycle.memory_due < next))
        next = m->recycle.memory_due;
    if (next < 0)
        return -1;
    return next <= now ? 0 : (next - now) / STK_NSEC_PER_MSEC + 1;
}

static void recycle_arm(struct stk_master *m)
{
    stk_msec pause = recycle_next_look(m, stk_time_mono_ns());

    if (pause >= 0)
        stk_timer_set(m->loop, &m->recycle.look, pause);
}

static void recycle_on_look(struct stk_timer *timer, void *who)
{
    struct stk_master *m = stk_container_of(timer, struct stk_master, recycle.look);
    stk_nsec begin = stk_time_mono_ns();
    bool memory =
        (m->config->max_rss > 0 || m->config->max_pss > 0) && begin >= m->recycle.memory_due;
    stk_msec pause;

    if (m->stopping != 0)
        return;
    for (unsigned i = 0; i < m->params->nworkers; i++) {
        struct stk_proc *p = m->slots[i].current;

        if (!stk_proc_is_serving(p) || p->retirement.due)
            continue;
        recycle_check_age(p);
        if (memory && !p->retirement.due)
            recycle_check_memory(p);
    }
    if (memory) {
        stk_nsec now = stk_time_mono_ns();

        pause = (now - begin) * 1000 / STK_NSEC_PER_MSEC;
        if (pause < RECYCLE_MEMORY_MS)
            pause = RECYCLE_MEMORY_MS;
        if (pause > RECYCLE_MEMORY_MAX_MS)
            pause = RECYCLE_MEMORY_MAX_MS;
        m->recycle.memory_due = now + pause * STK_NSEC_PER_MSEC;
    }
    recycle_arm(m);
    stk_recycle_step(m);
}

static void recycle_on_retry(struct stk_timer *timer, void *who)
{
    struct stk_master *m = stk_container_of(timer, struct stk_master, recycle.retry);

    m->recycle.waits = false;
    stk_recycle_step(m);
}

void stk_recycle_init(struct stk_master *m)
{
    stk_timer_init(&m->recycle.look, recycle_on_look);
    stk_timer_init(&m->recycle.retry, recycle_on_retry);
}

bool stk_recycle_is_early(const struct stk_proc *p)
{
    return p->retirement.due &&
           (p->retirement.cause == STK_RESTART_MAX_RSS ||
            p->retirement.cause == STK_RESTART_MAX_PSS) &&
           stk_time_mono_ns() - p->retirement.since < RECYCLE_EARLY_MS * 2 * STK_NSEC_PER_MSEC;
}

void stk_recycle_on_ready(struct stk_proc *p, bool early)
{
    uint32_t chance = 0;

    if (getrandom(&chance, sizeof chance, GRND_NONBLOCK) < 0)
        chance = (uint32_t)p->pid * 2654435761u;
    p->retirement.chance = chance & 1023;
    p->retirement.since = stk_time_mono_ns();
    p->retirement.memory_from =
        p->retirement.since + (early ? RECYCLE_EARLY_MS * STK_NSEC_PER_MSEC : 0);
    recycle_arm(p->master);
}

void stk_recycle_on_retire(struct stk_proc *p, uint32_t reason, int64_t value)
{
    if (p->kind != STK_PROC_WORKER || p->state != STK_PROC_READY)
        return;
    switch (reason) {
    case STK_CHANNEL_RETIRE_REQUESTS:
        if (recycle_mark(p, STK_RESTART_MAX_REQUESTS))
            stk_log_info("worker %u (%d) has answered %lld requests (max-requests) in %.1f s: a "
                         "new one is started in its place",
                         p->slot + 1, (int)p->pid, (long long)value, recycle_age(p));
        break;
    case STK_CHANNEL_RETIRE_CANCELLED:
        if (recycle_mark(p, STK_RESTART_TIMEOUT))
            stk_log_info("worker %u (%d) has cancelled a request: a new one is started in its "
                         "place",
                         p->slot + 1, (int)p->pid);
        break;
    case STK_CHANNEL_RETIRE_EXCEPTION:
        if (recycle_mark(p, STK_RESTART_EXCEPTION))
            stk_log_info("worker %u (%d) has raised an exception (reload-on-exception): a new one "
                         "is started in its place",
                         p->slot + 1, (int)p->pid);
        break;
    case STK_CHANNEL_RETIRE_STUCK:
        if (p->retirement.stuck)
            return;
        p->retirement.stuck = true;
        p->retirement.due = true;
        p->retirement.cause = STK_RESTART_TIMEOUT;
        stk_log_warning("worker %u (%d) has a request that does not return %.1f s after it began: "
                        "a new one is started in its place",
                        p->slot + 1, (int)p->pid, (double)value / 1000);
        break;
    default:
        return;
    }
    stk_recycle_step(p->master);
}

int stk_recycle_worker(struct stk_master *m, unsigned slot)
{
    struct stk_proc *p = slot < m->params->nworkers ? m->slots[slot].current : NULL;

    if (p == NULL || !stk_proc_is_serving(p))
        return -ENOENT;
    if (recycle_mark(p, STK_RESTART_ASKED))
        stk_log_info("worker %u (%d) is to be replaced: a new one is started in its place",
                     p->slot + 1, (int)p->pid);
    stk_recycle_step(m);
    return 0;
}

/* The worker that is to be replaced next: one with a stuck request, then the oldest. */
static struct stk_slot *recycle_pick(struct stk_master *m)
{
    struct stk_slot *best = NULL;

    for (unsigned i = 0; i < m->params->nworkers; i++) {
        struct stk_slot *slot = &m->slots[i];
        const struct stk_retirement *r;

        if (!stk_proc_is_serving(slot->current) || slot->next != NULL)
            continue;
        r = &slot->current->retirement;
        if (!r->due)
            continue;
        if (best == NULL || (r->stuck && !best->current->retirement.stuck) ||
            (r->stuck == best->current->retirement.stuck &&
             r->since < best->current->retirement.since))
            best = slot;
    }
    return best;
}

/* Replacements that are under way: new ones that load, old ones that drain. */
static int64_t recycle_under_way(const struct stk_master *m)
{
    int64_t n = 0;

    for (unsigned i = 0; i < m->params->nworkers; i++)
        n += m->slots[i].next != NULL;
    stk_list_for_each (it, &m->procs) {
        const struct stk_proc *p = stk_container_of(it, struct stk_proc, link);

        /* What a stuck request holds up is not to hold up the others. */
        n += p->state >= STK_PROC_DRAINING && p->retirement.due && !p->retirement.stuck;
    }
    return n;
}

static void recycle_pause(struct stk_master *m, stk_msec pause)
{
    m->recycle.waits = true;
    stk_timer_set(m->loop, &m->recycle.retry, pause);
}

static stk_msec recycle_back_off(struct stk_master *m)
{
    stk_msec backoff = m->recycle.backoff * 2;

    if (backoff < RECYCLE_BACKOFF_MIN_MS)
        backoff = RECYCLE_BACKOFF_MIN_MS;
    if (backoff > RECYCLE_BACKOFF_MAX_MS)
        backoff = RECYCLE_BACKOFF_MAX_MS;
    m->recycle.backoff = backoff;
    recycle_pause(m, backoff);
    return backoff;
}

/* Starts one replacement. False: no more now. */
static bool recycle_start(struct stk_master *m, struct stk_slot *slot)
{
    int r = stk_spawn_worker(m, slot->index, &slot->next);

    if (r == 0)
        return true;
    if (r == -ENOSPC) {
        recycle_pause(m, RECYCLE_NO_ROW_MS);
    } else {
        STK_CLEANUP(stk_mem_freep)
        char *how = stk_mem_printf("cannot be forked (%s)", strerror(-r));

        stk_recycle_on_failed(slot, NULL, how);
    }
    return false;
}

void stk_recycle_step(struct stk_master *m)
{
    int64_t most = m->config->recycle_parallel > 1 ? m->config->recycle_parallel : 1;

    while (m->stopping == 0 && !m->reloading && !m->waits_for_save && !m->recycle.waits) {
        struct stk_slot *slot = recycle_pick(m);

        if (slot == NULL || recycle_under_way(m) >= most)
            return;
        if (!stk_slot_can_fork(m) || !recycle_start(m, slot))
            return;
    }
}

void stk_recycle_on_replaced(struct stk_slot *slot, const struct stk_proc *old)
{
    struct stk_master *m = slot->master;

    m->recycle.backoff = 0;
    stk_log_debug("worker %u (%d) takes the place of %d (%s)", slot->index + 1,
                  (int)slot->current->pid, (int)old->pid,
                  stk_scoreboard_restart_name(old->retirement.cause));
}

void stk_recycle_on_failed(struct stk_slot *slot, const struct stk_proc *p, const char *how)
{
    struct stk_master *m = slot->master;
    struct stk_proc *old = slot->current;
    STK_CLEANUP(stk_mem_freep)
    char *who = p != NULL ? stk_proc_name(p) : stk_mem_strdup("a worker");
    double pause = (double)recycle_back_off(m) / 1000;

    if (stk_proc_is_serving(old) && old->retirement.stuck && stk_scale_serving(m) > 1) {
        stk_log_error("%s, a replacement, %s: worker %u (%d), which has a request that does not "
                      "return, goes without one",
                      who, how, slot->index + 1, (int)old->pid);
        stk_slot_vacate(slot);
        slot->backoff = m->recycle.backoff;
        stk_slot_wait(slot, slot->backoff);
        return;
    }
    stk_log_error("%s, a replacement, %s: the old worker goes on, and it is tried again in %.0f s",
                  who, how, pause);
}
