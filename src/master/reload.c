/*
 * Replacing workers.
 *
 * Rolling (HUP): one slot after the other gets a second worker, which shares the slot's sockets;
 * when it is ready the old one drains. If it does not become ready, everything stays as it was: an
 * application that cannot be loaded takes nobody down. With preload the new template comes first.
 *
 * Fresh (autoreload): all workers drain at once and new ones start; what is sent meanwhile waits in
 * the sockets. A developer who has saved a file must not be answered by the old code, which a
 * rolling replacement would do until the import is over.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "master/master_priv.h"
#include "master/watch.h"

/* What a request may still take when its code is replaced during development. */
#define RELOAD_FRESH_DRAIN_MS 2000

/* Ends a replacement that is not ready yet. */
static void reload_drop(struct stk_proc **proc)
{
    if (*proc != NULL)
        stk_proc_kill(stk_steal(proc));
}

static void reload_drop_next(struct stk_master *m)
{
    for (unsigned i = 0; i < m->params->nworkers; i++)
        reload_drop(&m->slots[i].next);
    reload_drop(&m->template_next);
    m->reloading = m->reload_stuck = false;
}

void stk_reload_abort(struct stk_master *m, const char *who)
{
    unsigned n = m->reload_slot;

    if (!m->reloading)
        return;
    reload_drop_next(m);
    if (n == 0)
        stk_log_error("the reload failed, because %s could not be started: the old workers go on",
                      who);
    else
        stk_log_error(
            "the reload failed, because %s could not be started: %u of %u workers are new, "
            "the old ones go on",
            who, n, m->params->nworkers);
}

/* One slot. True: go on with the next. */
static bool reload_step_slot(struct stk_master *m, struct stk_slot *slot)
{
    int r;

    if (slot->next != NULL || slot->waits)
        return false;
    if (slot->current != NULL && slot->current->generation == m->generation)
        return stk_proc_is_serving(slot->current);
    if (slot->current != NULL && !stk_proc_is_serving(slot->current))
        stk_proc_kill(stk_steal(&slot->current));
    r = stk_spawn_worker(m, slot->index, slot->current != NULL ? &slot->next : &slot->current);
    m->reload_stuck = r == -ENOSPC;
    if (r < 0 && r != -ENOSPC) {
        errno = -r;
        stk_log_error("worker %u cannot be forked: %m", slot->index + 1);
        stk_reload_abort(m, "a worker");
    }
    return false;
}

void stk_reload_step(struct stk_master *m)
{
    if (!m->reloading || m->stopping != 0 || m->template_next != NULL)
        return;
    if (m->config->preload && (m->template == NULL || m->template->state != STK_PROC_READY))
        return;
    while (m->reloading && m->reload_slot < m->params->nworkers) {
        if (!reload_step_slot(m, &m->slots[m->reload_slot]))
            return;
        m->reload_slot++;
    }
    if (!m->reloading)
        return;
    m->reloading = false;
    stk_log_info("the reload is complete: %u new worker%s", m->params->nworkers,
                 m->params->nworkers == 1 ? "" : "s");
}

void stk_reload_rolling(struct stk_master *m)
{
    if (m->stopping != 0)
        return;
    atomic_fetch_add_explicit(&m->scoreboard->reloads, 1, memory_order_relaxed);
    if (m->config->autoreload || !m->ever_ready) {
        stk_reload_fresh(m);
        return;
    }
    reload_drop_next(m);
    stk_slot_reset(m);
    m->generation++;
    m->reloading = true;
    m->reload_slot = 0;
    if (m->config->preload) {
        int r = stk_spawn_template(m, &m->template_next);

        if (r < 0) {
            errno = -r;
            stk_log_error("the template cannot be forked: %m");
            stk_reload_abort(m, "the template");
        }
        return;
    }
    stk_reload_step(m);
    stk_slot_fill(m);
}

void stk_reload_fresh(struct stk_master *m)
{
    stk_msec timeout = m->config->graceful_timeout < RELOAD_FRESH_DRAIN_MS
                           ? m->config->graceful_timeout
                           : RELOAD_FRESH_DRAIN_MS;

    if (m->stopping != 0)
        return;
    reload_drop_next(m);
    stk_slot_reset(m);
    m->generation++;
    m->announced = false;
    m->started = stk_time_mono_ns();
    reload_drop(&m->template);
    for (unsigned i = 0; i < m->params->nworkers; i++) {
        struct stk_slot *slot = &m->slots[i];

        if (slot->current != NULL)
            stk_proc_drain(stk_steal(&slot->current), timeout);
        slot->adopter = NULL;
    }
    m->held = !m->config->preload && m->params->nworkers > 1;
    if (m->watch != NULL)
        stk_watch_set_eager(m->watch, false);
    stk_slot_fill(m);
}

void stk_reload_wait_for_save(struct stk_master *m)
{
    if (m->waits_for_save)
        return;
    m->waits_for_save = true;
    reload_drop_next(m);
    if (m->watch != NULL)
        stk_watch_set_eager(m->watch, true);
    stk_log_error("the application could not be loaded: waiting for the next save");
}

void stk_reload_on_sources(struct stk_proc *p, int file)
{
    struct stk_master *m = p->master;
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    size_t len;
    int r;

    if (m->watch == NULL || file < 0)
        return;
    r = stk_channel_read_sources(file, &text, &len);
    if (r < 0) {
        errno = -r;
        stk_log_warning("autoreload: a list of source files cannot be read: %m");
        return;
    }
    stk_watch_add_files(m->watch, text, len);
    stk_log_debug("autoreload: %zu files are watched%s", stk_watch_count(m->watch),
                  stk_watch_is_polling(m->watch) ? ", once a second" : "");
}

static void reload_on_change(void *arg, const char *path)
{
    struct stk_master *m = arg;
    char cwd[PATH_MAX];
    size_t len;

    if (m->stopping != 0)
        return;
    len = getcwd(cwd, sizeof cwd) != NULL ? strlen(cwd) : 0;
    if (len > 1 && strncmp(path, cwd, len) == 0 && path[len] == '/')
        path += len + 1;
    stk_log_info("%s changed: restarting", path);
    stk_reload_fresh(m);
}

int stk_reload_init(struct stk_master *m)
{
    char cwd[PATH_MAX];
    int r;

    if (!m->config->autoreload)
        return 0;
    r = stk_watch_new(m->loop, reload_on_change, m, &m->watch);
    if (r < 0)
        return r;
    if (getcwd(cwd, sizeof cwd) != NULL)
        stk_watch_add_folder(m->watch, cwd);
    if (stk_watch_is_polling(m->watch))
        stk_log_warning("autoreload: inotify is not available: files are looked at once a second");
    return 0;
}
