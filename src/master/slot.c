/*
 * Slots: who serves which, and what to do when nobody does.
 *
 * First start. Without preload the first worker is started alone, and the others when it is ready,
 * has failed, or a second has passed: an application that does not load leaves one traceback in the
 * log instead of one a worker, and the first worker, with a core to itself, answers sooner. It
 * loses nothing meanwhile, for the sockets of all slots are open and the first worker adopts them.
 *
 * Death. What lived a while is replaced at once; what dies young is replaced after a pause that
 * doubles from 0.1 s to 10 s. If no worker was ever ready, a failed load ends the server: a service
 * manager should see it. Later it does not: the database that the application wants may come back.
 *
 * Orphans. A slot without a ready worker is adopted by the ready worker that has adopted fewest,
 * and given back when its own is ready; both may accept for a moment, which is harmless.
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
    SLOT_LONG_LIFE_MS = 1000,  /* what lives longer is replaced at once */
    SLOT_BACKOFF_MIN_MS = 100, /* doubled with each early death */
    SLOT_BACKOFF_MAX_MS = 10000,
    SLOT_NO_ROW_MS = 500, /* until a draining worker may have left its row */
};

static stk_msec slot_next_backoff(stk_msec backoff)
{
    if (backoff == 0)
        return SLOT_BACKOFF_MIN_MS;
    return backoff * 2 > SLOT_BACKOFF_MAX_MS ? SLOT_BACKOFF_MAX_MS : backoff * 2;
}

static void slot_wait(struct stk_slot *slot, stk_msec pause)
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
    m->slots = stk_new0_array(struct stk_slot, m->params->nworkers);
    for (unsigned i = 0; i < m->params->nworkers; i++) {
        m->slots[i].master = m;
        m->slots[i].index = i;
        stk_timer_init(&m->slots[i].respawn, slot_on_respawn);
    }
    stk_timer_init(&m->release, slot_on_release);
    stk_timer_init(&m->template_retry, slot_on_template_retry);
    m->held = !m->config->preload && m->params->nworkers > 1;
}

/* Whether there is a template to fork from; starts one when there is none. */
static bool slot_need_template(struct stk_master *m)
{
    int r;

    if (!m->config->preload)
        return true;
    if (m->template == NULL && !m->template_waits) {
        r = stk_spawn_template(m, &m->template);
        if (r < 0) {
            errno = -r;
            stk_log_error("the template cannot be forked: %m");
            m->template_backoff = slot_next_backoff(m->template_backoff);
            m->template_waits = true;
            stk_timer_set(m->loop, &m->template_retry, m->template_backoff);
        }
    }
    return m->template != NULL && m->template->state == STK_PROC_READY;
}

static bool slot_is_missing(const struct stk_slot *slot)
{
    return slot->current == NULL && !slot->waits && !slot->failed;
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
        if (!slot_need_template(m))
            return;
        r = stk_spawn_worker(m, i, &slot->current);
        if (r == 0)
            continue;
        if (r != -ENOSPC) {
            errno = -r;
            stk_log_error("worker %u cannot be forked: %m", i + 1);
            slot->backoff = slot_next_backoff(slot->backoff);
        }
        slot_wait(slot, r == -ENOSPC ? SLOT_NO_ROW_MS : slot->backoff);
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

/* The ready worker that has adopted fewest slots, or NULL. */
static struct stk_proc *slot_find_adopter(struct stk_master *m)
{
    struct stk_proc *best = NULL;
    unsigned least = 0;

    for (unsigned i = 0; i < m->params->nworkers; i++) {
        struct stk_proc *p = m->slots[i].current;
        unsigned n = 0;

        if (!stk_proc_is_serving(p))
            continue;
        for (unsigned j = 0; j < m->params->nworkers; j++)
            n += m->slots[j].adopter == p;
        if (best == NULL || n < least) {
            best = p;
            least = n;
        }
    }
    return best;
}

void stk_slot_balance(struct stk_master *m)
{
    if (m->stopping != 0 || !m->has_slots)
        return;
    for (unsigned i = 0; i < m->params->nworkers; i++) {
        struct stk_slot *slot = &m->slots[i];

        if (slot->adopter != NULL && !stk_proc_is_serving(slot->adopter))
            slot->adopter = NULL;
        if (stk_proc_is_serving(slot->current)) {
            if (slot->adopter != NULL)
                stk_proc_send(slot->adopter, STK_MESSAGE_RELEASE, i, 0);
            slot->adopter = NULL;
        } else if (slot->adopter == NULL) {
            slot->adopter = slot_find_adopter(m);
            if (slot->adopter != NULL)
                stk_proc_send(slot->adopter, STK_MESSAGE_ADOPT, i, 0);
        }
    }
}

/* Says once that everybody serves. */
static void slot_announce(struct stk_master *m)
{
    for (unsigned i = 0; i < m->params->nworkers; i++)
        if (!stk_proc_is_serving(m->slots[i].current))
            return;
    if (m->announced)
        return;
    m->announced = true;
    stk_log_info("ready after %.2f s", (double)(stk_time_mono_ns() - m->started) / 1e9);
}

/* An application that could be loaded after all: those that could not try again. */
static void slot_retry_failed(struct stk_master *m)
{
    for (unsigned i = 0; i < m->params->nworkers; i++) {
        struct stk_slot *slot = &m->slots[i];

        if (!slot->failed)
            continue;
        slot->failed = false;
        slot->backoff = slot_next_backoff(slot->backoff);
        slot_wait(slot, slot->backoff);
    }
}

void stk_slot_on_ready(struct stk_proc *p)
{
    struct stk_master *m = p->master;
    struct stk_slot *slot = &m->slots[p->slot];

    if (!m->ever_ready) {
        m->ever_ready = true;
        slot_retry_failed(m);
    }
    if (p == slot->next) {
        struct stk_proc *old = slot->current;

        slot->current = p;
        slot->next = NULL;
        if (old != NULL)
            stk_proc_drain(old, m->config->graceful_timeout);
        m->reload_slot = p->slot + 1;
    }
    stk_slot_balance(m);
    slot_announce(m);
    stk_slot_release(m);
    stk_reload_step(m);
}

static double slot_uptime(const struct stk_proc *p)
{
    return (double)(stk_time_mono_ns() - p->started) / 1e9;
}

/* One line on a death that nobody ordered. */
static void slot_log_death(const struct stk_proc *p, int status, const char *then)
{
    STK_CLEANUP(stk_mem_freep) char *name = stk_proc_name(p);
    STK_CLEANUP(stk_mem_freep) char *how = stk_reap_describe(status);
    const char *hint = "";
    bool clean = status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;

    if (status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        hint = " (somebody's, or the kernel's when memory ran out: see its log)";
    stk_log(clean ? STK_LOG_WARNING : STK_LOG_ERROR,
            "%s %s%s after %.1f s and %llu requests, with %llu connections open; %s", name, how,
            hint, slot_uptime(p),
            (unsigned long long)stk_scoreboard_get(p->row, STK_COUNTER_requests),
            (unsigned long long)p->cut, then);
}

static void slot_log_ordered_end(const struct stk_proc *p, int status)
{
    STK_CLEANUP(stk_mem_freep) char *name = stk_proc_name(p);
    STK_CLEANUP(stk_mem_freep) char *how = stk_reap_describe(status);
    bool clean = status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;

    if (clean || p->state == STK_PROC_KILLED)
        stk_log_debug("%s has finished: it %s", name, how);
    else if (status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        stk_log_warning("%s did not finish its exit handlers within exit-timeout", name);
    else
        stk_log_warning("%s was told to finish and %s", name, how);
}

static bool slot_has_workers(const struct stk_master *m)
{
    for (unsigned i = 0; i < m->params->nworkers; i++)
        if (m->slots[i].current != NULL || m->slots[i].waits)
            return true;
    return false;
}

static bool slot_is_load_failure(int status)
{
    return status >= 0 && WIFEXITED(status) &&
           (WEXITSTATUS(status) == STK_MASTER_EXIT_LOAD ||
            WEXITSTATUS(status) == STK_MASTER_EXIT_CONFIG);
}

/* Before any worker was ready: whether to try on. */
static void slot_on_early_death(struct stk_slot *slot, const struct stk_proc *p, int status)
{
    struct stk_master *m = slot->master;
    unsigned limit = m->params->nworkers > 2 ? m->params->nworkers : 2;

    if (slot_is_load_failure(status)) {
        slot->failed = true;
        if (!slot_has_workers(m)) {
            stk_log_critical(WEXITSTATUS(status) == STK_MASTER_EXIT_LOAD
                                 ? "the application cannot be loaded: the server ends"
                                 : "no worker can be started: the server ends");
            stk_master_fail(m, WEXITSTATUS(status));
        }
        return;
    }
    if (++m->early_dead > limit) {
        slot_log_death(p, status, "no worker has ever been ready: the server ends");
        stk_master_fail(m, STK_MASTER_EXIT_LOAD);
        return;
    }
    slot->backoff = slot_next_backoff(slot->backoff);
    slot_log_death(p, status, "it is tried again");
    slot_wait(slot, slot->backoff);
}

/* The worker that served a slot, or was about to, has died by itself. */
static void slot_on_death(struct stk_slot *slot, const struct stk_proc *p, int status)
{
    struct stk_master *m = slot->master;
    stk_msec lived = (stk_time_mono_ns() - p->started) / STK_NSEC_PER_MSEC;

    if (m->config->autoreload && slot_is_load_failure(status) && !p->was_ready) {
        stk_reload_wait_for_save(m);
        return;
    }
    if (!m->ever_ready) {
        slot_on_early_death(slot, p, status);
        return;
    }
    atomic_fetch_add_explicit(&m->scoreboard->restarts, 1, memory_order_relaxed);
    if (p->was_ready && lived >= SLOT_LONG_LIFE_MS && lived >= slot->backoff) {
        slot->backoff = 0;
        slot_log_death(p, status, "a new one is started");
    } else {
        char then[64];

        slot->backoff = slot_next_backoff(slot->backoff);
        (void)snprintf(then, sizeof then, "a new one is started in %.1f s",
                       (double)slot->backoff / 1000);
        slot_log_death(p, status, then);
        slot_wait(slot, slot->backoff);
    }
}

void stk_slot_on_gone(struct stk_proc *p, int status)
{
    struct stk_master *m = p->master;
    struct stk_slot *slot = &m->slots[p->slot];
    bool current = slot->current == p;
    bool next = slot->next == p;

    if (current)
        slot->current = NULL;
    if (next)
        slot->next = NULL;
    for (unsigned i = 0; i < m->params->nworkers; i++)
        if (m->slots[i].adopter == p)
            m->slots[i].adopter = NULL;
    if (p->asked) {
        slot_log_ordered_end(p, status);
    } else if (m->stopping != 0) {
        slot_log_death(p, status, "the server is stopping");
    } else if (next) {
        STK_CLEANUP(stk_mem_freep) char *name = stk_proc_name(p);

        stk_reload_abort(m, name);
    } else if (current) {
        slot_on_death(slot, p, status);
    }
    stk_slot_balance(m);
    if (current)
        stk_slot_release(m);
    stk_slot_fill(m);
    if (m->reload_stuck)
        stk_reload_step(m);
}

void stk_slot_on_leaving(struct stk_proc *p)
{
    struct stk_master *m = p->master;
    struct stk_slot *slot = &m->slots[p->slot];

    if (slot->current == p)
        slot->current = NULL;
    if (m->stopping == 0)
        stk_log_info("worker %u (%d) finishes its requests and leaves; a new one is started",
                     p->slot + 1, (int)p->pid);
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
        stk_reload_abort(m, name);
    } else if (p->was_ready) {
        stk_log_error("%s %s; a new one is started when a worker has to be", name, how);
    } else if (m->config->autoreload && slot_is_load_failure(status)) {
        stk_reload_wait_for_save(m);
    } else if (next) {
        stk_reload_abort(m, name);
    } else if (!m->ever_ready) {
        stk_log_critical("%s %s: the application cannot be loaded, the server ends", name, how);
        stk_master_fail(m,
                        slot_is_load_failure(status) ? WEXITSTATUS(status) : STK_MASTER_EXIT_LOAD);
    } else {
        m->template_backoff = slot_next_backoff(m->template_backoff);
        stk_log_error("%s %s; it is tried again in %.1f s", name, how,
                      (double)m->template_backoff / 1000);
        m->template_waits = true;
        stk_timer_set(m->loop, &m->template_retry, m->template_backoff);
    }
    stk_slot_fill(m);
}
