/*
 * Slots: who serves which, and what to do when nobody does.
 *
 * First start. Without preload the first worker is started alone, and the others when it is ready,
 * has failed, or a second has passed: an application that does not load leaves one traceback in the
 * log instead of one a worker, and the first worker, with a core to itself, answers sooner. It
 * loses nothing meanwhile, for the sockets of all slots are open and the first worker adopts them.
 *
 * Death is in death.c.
 *
 * Orphans. A slot without a ready worker (which died, is loading, or is not wanted by scale.c) is
 * adopted by the ready worker that has adopted fewest, and given back when its own is ready; when a
 * worker has become ready that has adopted less than others, it takes some over. Both may accept
 * for a moment, which is harmless.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "master/master_priv.h"

enum {
    SLOT_RELEASE_MS = 1000,    /* the first worker's head start at most */
    SLOT_BACKOFF_MIN_MS = 100, /* doubled with each early death */
    SLOT_BACKOFF_MAX_MS = 10000,
    SLOT_NO_ROW_MS = 500, /* until a draining worker may have left its row */
};

stk_msec stk_slot_next_backoff(stk_msec backoff)
{
    if (backoff == 0)
        return SLOT_BACKOFF_MIN_MS;
    return backoff * 2 > SLOT_BACKOFF_MAX_MS ? SLOT_BACKOFF_MAX_MS : backoff * 2;
}

void stk_slot_wait(struct stk_slot *slot, stk_msec pause)
{
    slot->waits = true;
    stk_timer_set(slot->master->loop, &slot->respawn, pause);
}

static void slot_on_respawn(struct stk_timer *timer, void *who)
{
    struct stk_slot *slot = stk_container_of(timer, struct stk_slot, respawn);

    slot->waits = false;
    stk_slot_fill(slot->master);
    if (slot->master->reload_stuck)
        stk_reload_step(slot->master);
}

static void slot_on_release(struct stk_timer *timer, void *who)
{
    stk_slot_release(stk_container_of(timer, struct stk_master, release));
}

static void slot_on_template_retry(struct stk_timer *timer, void *who)
{
    struct stk_master *m = stk_container_of(timer, struct stk_master, template_retry);

    m->template_waits = false;
    stk_slot_fill(m);
}

void stk_slot_init(struct stk_master *m)
{
    if (m->nslots < m->params->nworkers)
        m->nslots = m->params->nworkers;
    m->slots = stk_new0_array(struct stk_slot, m->nslots);
    for (unsigned i = 0; i < m->nslots; i++) {
        m->slots[i].master = m;
        m->slots[i].index = i;
        stk_timer_init(&m->slots[i].respawn, slot_on_respawn);
    }
    stk_timer_init(&m->release, slot_on_release);
    stk_timer_init(&m->template_retry, slot_on_template_retry);
    stk_scale_init(m);
    stk_recycle_init(m);
    m->held = !m->config->preload && m->scale.target > 1;
}

bool stk_slot_can_fork(struct stk_master *m)
{
    int r;

    if (!m->config->preload)
        return true;
    if (m->template == NULL && !m->template_waits) {
        r = stk_spawn_template(m, &m->template);
        if (r < 0) {
            errno = -r;
            stk_log_error("the template cannot be forked: %m");
            m->template_backoff = stk_slot_next_backoff(m->template_backoff);
            m->template_waits = true;
            stk_timer_set(m->loop, &m->template_retry, m->template_backoff);
        }
    }
    return m->template != NULL && m->template->state == STK_PROC_READY;
}

static bool slot_is_missing(const struct stk_slot *slot)
{
    return slot->wanted && slot->current == NULL && !slot->waits && !slot->failed;
}

void stk_slot_fill(struct stk_master *m)
{
    unsigned last = m->held ? 1 : m->params->nworkers;

    if (m->stopping != 0 || m->waits_for_save)
        return;
    for (unsigned i = 0; i < last; i++) {
        struct stk_slot *slot = &m->slots[i];
        int r;

        if (!slot_is_missing(slot))
            continue;
        if (!stk_slot_can_fork(m))
            return;
        r = stk_spawn_worker(m, i, &slot->current);
        if (r == 0)
            continue;
        if (r != -ENOSPC) {
            errno = -r;
            stk_log_error("worker %u cannot be forked: %m", i + 1);
            slot->backoff = stk_slot_next_backoff(slot->backoff);
        }
        stk_slot_wait(slot, r == -ENOSPC ? SLOT_NO_ROW_MS : slot->backoff);
    }
    if (m->held)
        stk_timer_set(m->loop, &m->release, SLOT_RELEASE_MS);
}

void stk_slot_release(struct stk_master *m)
{
    if (!m->held)
        return;
    m->held = false;
    stk_timer_stop(m->loop, &m->release);
    stk_slot_fill(m);
}

void stk_slot_reset(struct stk_master *m)
{
    for (unsigned i = 0; i < m->params->nworkers; i++) {
        struct stk_slot *slot = &m->slots[i];

        stk_timer_stop(m->loop, &slot->respawn);
        slot->waits = slot->failed = false;
        slot->backoff = 0;
    }
    stk_timer_stop(m->loop, &m->template_retry);
    m->template_waits = false;
    m->template_backoff = 0;
    m->waits_for_save = false;
}

static unsigned slot_count_adopted(const struct stk_master *m, const struct stk_proc *p)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->nslots; i++)
        n += m->slots[i].adopter == p;
    return n;
}

/* The ready worker that has adopted fewest slots, or NULL. */
static struct stk_proc *slot_find_adopter(struct stk_master *m)
{
    struct stk_proc *best = NULL;
    unsigned least = 0;

    for (unsigned i = 0; i < m->params->nworkers; i++) {
        struct stk_proc *p = m->slots[i].current;
        unsigned n;

        if (!stk_proc_is_serving(p))
            continue;
        n = slot_count_adopted(m, p);
        if (best == NULL || n < least) {
            best = p;
            least = n;
        }
    }
    return best;
}

/* Gives an orphan slot to the worker that has adopted fewest, unless that would change little. */
static void slot_find_home(struct stk_master *m, struct stk_slot *slot)
{
    struct stk_proc *best = slot_find_adopter(m);

    if (best == NULL || best == slot->adopter)
        return;
    if (slot->adopter != NULL) {
        if (slot_count_adopted(m, slot->adopter) < slot_count_adopted(m, best) + 2)
            return;
        stk_proc_send(slot->adopter, STK_MESSAGE_RELEASE, slot->index, 0);
    }
    slot->adopter = best;
    stk_proc_send(best, STK_MESSAGE_ADOPT, slot->index, 0);
}

void stk_slot_balance(struct stk_master *m)
{
    if (m->stopping != 0 || !m->has_slots)
        return;
    for (unsigned i = 0; i < m->nslots; i++) {
        struct stk_slot *slot = &m->slots[i];

        if (slot->adopter != NULL && !stk_proc_is_serving(slot->adopter))
            slot->adopter = NULL;
        if (!stk_proc_is_serving(slot->current))
            continue;
        if (slot->adopter != NULL)
            stk_proc_send(slot->adopter, STK_MESSAGE_RELEASE, i, 0);
        slot->adopter = NULL;
    }
    for (unsigned i = 0; i < m->nslots; i++)
        if (!stk_proc_is_serving(m->slots[i].current))
            slot_find_home(m, &m->slots[i]);
}

/* Says once that everybody serves. */
static void slot_announce(struct stk_master *m)
{
    for (unsigned i = 0; i < m->params->nworkers; i++)
        if (m->slots[i].wanted && !stk_proc_is_serving(m->slots[i].current))
            return;
    stk_reload_on_all_ready(m);
    if (m->announced)
        return;
    m->announced = true;
    stk_log_info("ready after %.2f s", (double)(stk_time_mono_ns() - m->started) / 1e9);
    stk_upgrade_on_ready(m);
    stk_notify_ready(m);
    stk_master_tell(m, STK_MASTER_EVENT_READY, 0, 0);
    if (m->params->on_ready != NULL)
        m->params->on_ready(m->params->on_start_arg);
}

/* An application that could be loaded after all: those that could not try again. */
static void slot_retry_failed(struct stk_master *m)
{
    for (unsigned i = 0; i < m->params->nworkers; i++) {
        struct stk_slot *slot = &m->slots[i];

        if (!slot->failed)
            continue;
        slot->failed = false;
        slot->backoff = stk_slot_next_backoff(slot->backoff);
        stk_slot_wait(slot, slot->backoff);
    }
}

/* A worker's replacement is ready: it goes. */
static void slot_replace(struct stk_master *m, struct stk_slot *slot, struct stk_proc *old)
{
    enum stk_restart cause = m->reload.cause;

    if (old == NULL)
        return;
    if (!m->reloading) {
        cause = old->retirement.cause;
        stk_recycle_on_replaced(slot, old);
    }
    atomic_fetch_add_explicit(&m->scoreboard->restarts_by[cause], 1, memory_order_relaxed);
    stk_proc_drain(old, m->config->graceful_timeout);
}

void stk_slot_on_ready(struct stk_proc *p)
{
    struct stk_master *m = p->master;
    struct stk_slot *slot = &m->slots[p->slot];
    bool early = slot->next == p && slot->current != NULL && !m->reloading &&
                 stk_recycle_is_early(slot->current);

    stk_recycle_on_ready(p, early);

    if (!m->ever_ready) {
        m->ever_ready = true;
        slot_retry_failed(m);
    }
    if (p == slot->next) {
        struct stk_proc *old = slot->current;

        slot->current = p;
        slot->next = NULL;
        slot->backoff = 0;
        slot_replace(m, slot, old);
    }
    stk_slot_balance(m);
    slot_announce(m);
    stk_slot_release(m);
    stk_reload_step(m);
    stk_recycle_step(m);
    stk_scale_step(m);
}

void stk_slot_vacate(struct stk_slot *slot)
{
    struct stk_master *m = slot->master;

    if (slot->next != NULL)
        stk_proc_drain(stk_steal(&slot->next), m->config->graceful_timeout);
    if (slot->current != NULL)
        stk_proc_drain(stk_steal(&slot->current), m->config->graceful_timeout);
    stk_timer_stop(m->loop, &slot->respawn);
    slot->waits = slot->failed = false;
    slot->backoff = 0;
    stk_slot_balance(m);
}

void stk_slot_on_leaving(struct stk_proc *p)
{
    struct stk_master *m = p->master;
    struct stk_slot *slot = &m->slots[p->slot];

    if (slot->current == p)
        slot->current = stk_steal(&slot->next); /* being replaced anyhow */
    if (m->stopping == 0 && slot->wanted) {
        stk_log_info("worker %u (%d) finishes its requests and leaves; a new one is started",
                     p->slot + 1, (int)p->pid);
        atomic_fetch_add_explicit(&m->scoreboard->restarts_by[STK_RESTART_ASKED], 1,
                                  memory_order_relaxed);
    }
    stk_slot_balance(m);
    stk_slot_fill(m);
}

void stk_slot_on_template_ready(struct stk_proc *p)
{
    struct stk_master *m = p->master;

    m->template_backoff = 0;
    if (p == m->template_next) {
        struct stk_proc *old = m->template;

        m->template = p;
        m->template_next = NULL;
        if (old != NULL)
            stk_proc_stop(old, m->config->exit_timeout);
    }
    stk_reload_step(m);
    stk_slot_fill(m);
    stk_recycle_step(m);
}

void stk_slot_on_template_gone(struct stk_proc *p, int status)
{
    struct stk_master *m = p->master;
    STK_CLEANUP(stk_mem_freep) char *name = stk_proc_name(p);
    STK_CLEANUP(stk_mem_freep) char *how = stk_reap_describe(status);
    bool next = m->template_next == p;

    if (m->template != p && !next)
        return;
    if (next)
        m->template_next = NULL;
    else
        m->template = NULL;
    if (p->asked || m->stopping != 0)
        return;
    if (p->was_ready && m->reloading) {
        stk_reload_fail(m, p, how);
    } else if (p->was_ready) {
        stk_log_error("%s %s; a new one is started when a worker has to be", name, how);
    } else if (m->config->autoreload && stk_slot_is_load_failure(status)) {
        stk_reload_wait_for_save(m, p);
    } else if (next) {
        stk_reload_fail(m, p,
                        stk_slot_is_load_failure(status) ? "cannot load the application" : how);
    } else if (!m->ever_ready) {
        stk_log_critical("%s %s: the application cannot be loaded, the server ends", name, how);
        stk_master_fail(m, stk_slot_is_load_failure(status) ? WEXITSTATUS(status)
                                                            : STK_MASTER_EXIT_LOAD);
    } else {
        m->template_backoff = stk_slot_next_backoff(m->template_backoff);
        stk_log_error("%s %s; it is tried again in %.1f s", name, how,
                      (double)m->template_backoff / 1000);
        m->template_waits = true;
        stk_timer_set(m->loop, &m->template_retry, m->template_backoff);
    }
    stk_slot_fill(m);
}
