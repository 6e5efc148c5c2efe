/*
 * When a worker is gone: what the log says, and what is done about it.
 *
 * What lived a while is replaced at once; what dies young is replaced after a pause that doubles
 * from 0.1 s to 10 s. If no worker was ever ready, a failed load ends the server: a service manager
 * should see it. Later it does not: the database that the application wants may come back.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/mem.h"
#include "ipc/scoreboard.h"
#include "master/master_priv.h"

/* What lives longer is replaced at once. */
#define DEATH_LONG_LIFE_MS 1000

static double death_uptime(const struct stk_proc *p)
{
    return (double)(stk_time_mono_ns() - p->started) / 1e9;
}

/* Who sent a SIGKILL. */
static const char *death_killer(struct stk_master *m)
{
    uint64_t kills = stk_oom_kills("");
    bool more = kills > m->oom_kills;

    m->oom_kills = kills;
    return more ? " (the kernel's: the control group has reached its memory limit)"
                : " (somebody's, or the kernel's when memory ran out: see its log)";
}

/* The requests that it was in, as far as they had lasted long enough to be noted; free it. */
static char *death_requests(const struct stk_proc *p)
{
    struct stk_scoreboard_running request;
    char *text = stk_mem_strdup("");
    double now = (double)stk_time_mono_ns();

    for (unsigned i = 0; i < STK_SCOREBOARD_RUNNING; i++) {
        char *more;

        if (!stk_scoreboard_read_running(p->row, i, &request))
            continue;
        more = stk_mem_printf("%s%s%s %s for %.1f s", text, *text == '\0' ? ", in " : ", ",
                              request.method, request.target,
                              (now - (double)request.started_ns) / 1e9);
        free(text);
        text = more;
    }
    return text;
}

/* One line on a death that nobody ordered. */
static void death_log(const struct stk_proc *p, int status, const char *then)
{
    STK_CLEANUP(stk_mem_freep) char *name = stk_proc_name(p);
    STK_CLEANUP(stk_mem_freep) char *how = stk_reap_describe(status);
    STK_CLEANUP(stk_mem_freep) char *in = death_requests(p);
    const char *hint = "";
    bool clean = status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    unsigned long long requests = stk_scoreboard_get(p->row, STK_COUNTER_requests);

    if (status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        hint = death_killer(p->master);
    stk_log(clean ? STK_LOG_WARNING : STK_LOG_ERROR,
            "%s %s%s after %.1f s and %llu request%s, with %llu connection%s open%s; %s", name, how,
            hint, death_uptime(p), requests, requests == 1 ? "" : "s", (unsigned long long)p->cut,
            p->cut == 1 ? "" : "s", in, then);
    if (status >= 0 && WIFSIGNALED(status)) {
        STK_CLEANUP(stk_mem_freep)
        char *text = stk_mem_printf("%s %s%s after %.1f s%s", name, how, hint, death_uptime(p), in);

        stk_alarm_on_crash(p->master, text);
    }
}

static void death_log_ordered_end(const struct stk_proc *p, int status)
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

static bool death_has_workers(const struct stk_master *m)
{
    for (unsigned i = 0; i < m->params->nworkers; i++)
        if (m->slots[i].current != NULL || m->slots[i].waits)
            return true;
    return false;
}

bool stk_slot_is_load_failure(int status)
{
    return status >= 0 && WIFEXITED(status) &&
           (WEXITSTATUS(status) == STK_MASTER_EXIT_LOAD ||
            WEXITSTATUS(status) == STK_MASTER_EXIT_CONFIG);
}

/* Before any worker was ready: whether to try on. */
static void death_on_early(struct stk_slot *slot, const struct stk_proc *p, int status)
{
    struct stk_master *m = slot->master;
    unsigned limit = m->params->nworkers > 2 ? m->params->nworkers : 2;

    if (stk_slot_is_load_failure(status)) {
        slot->failed = true;
        if (!death_has_workers(m)) {
            stk_log_critical(WEXITSTATUS(status) == STK_MASTER_EXIT_LOAD
                                 ? "the application cannot be loaded: the server ends"
                                 : "no worker can be started: the server ends");
            stk_master_fail(m, WEXITSTATUS(status));
        }
        return;
    }
    if (++m->early_dead > limit) {
        death_log(p, status, "no worker has ever been ready: the server ends");
        stk_master_fail(m, STK_MASTER_EXIT_LOAD);
        return;
    }
    slot->backoff = stk_slot_next_backoff(slot->backoff);
    death_log(p, status, "it is tried again");
    stk_slot_wait(slot, slot->backoff);
}

/* The worker that served a slot, or was about to, has died by itself. */
static void death_on_late(struct stk_slot *slot, const struct stk_proc *p, int status)
{
    struct stk_master *m = slot->master;
    stk_msec lived = (stk_time_mono_ns() - p->started) / STK_NSEC_PER_MSEC;

    if (m->config->autoreload && stk_slot_is_load_failure(status) && !p->was_ready) {
        stk_reload_wait_for_save(m, p);
        return;
    }
    if (!m->ever_ready) {
        death_on_early(slot, p, status);
        return;
    }
    atomic_fetch_add_explicit(&m->scoreboard->restarts, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->scoreboard->restarts_by[STK_RESTART_CRASH], 1,
                              memory_order_relaxed);
    if (slot->current != NULL) {
        death_log(p, status, "its replacement is being started already");
    } else if (p->was_ready && lived >= DEATH_LONG_LIFE_MS && lived >= slot->backoff) {
        slot->backoff = 0;
        death_log(p, status, "a new one is started");
    } else {
        char then[64];

        slot->backoff = stk_slot_next_backoff(slot->backoff);
        (void)snprintf(then, sizeof then, "a new one is started in %.1f s",
                       (double)slot->backoff / 1000);
        death_log(p, status, then);
        stk_slot_wait(slot, slot->backoff);
    }
}

/* One that was to take over has not become ready: the reload, or its recycling, has failed. */
static void death_on_missed_start(struct stk_slot *slot, const struct stk_proc *p, bool next,
                                  int status)
{
    struct stk_master *m = slot->master;
    STK_CLEANUP(stk_mem_freep)
    char *how = stk_slot_is_load_failure(status) ? stk_mem_strdup("cannot load the application")
                                                 : stk_reap_describe(status);

    if (p->was_ready)
        return;
    if (m->reloading && p->generation == m->generation)
        stk_reload_fail(m, p, how);
    else if (!next)
        stk_scale_on_failed(m, p, how);
    else
        stk_recycle_on_failed(slot, p, how);
}

void stk_slot_on_gone(struct stk_proc *p, int status)
{
    struct stk_master *m = p->master;
    struct stk_slot *slot = &m->slots[p->slot];
    bool current = slot->current == p;
    bool next = slot->next == p;

    if (p->pid > 0)
        stk_master_tell(m, STK_MASTER_EVENT_GONE, p->slot + 1, p->pid);
    if (current)
        slot->current = stk_steal(&slot->next);
    if (next)
        slot->next = NULL;
    for (unsigned i = 0; i < m->nslots; i++)
        if (m->slots[i].adopter == p)
            m->slots[i].adopter = NULL;
    if (p->asked) {
        death_log_ordered_end(p, status);
    } else if (m->stopping != 0) {
        death_log(p, status, "the server is stopping");
    } else {
        if (next || current)
            death_on_missed_start(slot, p, next, status);
        if (current)
            death_on_late(slot, p, status);
    }
    stk_slot_balance(m);
    if (current)
        stk_slot_release(m);
    stk_slot_fill(m);
    if (m->reload_stuck)
        stk_reload_step(m);
    stk_reload_on_drains(m);
    stk_recycle_step(m);
    stk_scale_step(m);
}
