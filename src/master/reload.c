/*
 * Replacing all workers.
 *
 * Rolling (HUP): one slot after the other gets a second worker, which shares the slot's sockets;
 * when it is ready the old one drains. If it does not become ready, everything stays as it was: an
 * application that cannot be loaded takes nobody down, and as the first new worker is always alone
 * (reload-mode all starts the others behind it), it leaves one traceback. With preload the new
 * template comes first.
 *
 * A reload that is asked for during a reload begins anew: the code may have changed since. Workers
 * that are ready already are replaced again, those that are loading are dropped.
 *
 * Fresh (autoreload): all workers drain at once and new ones start; what is sent meanwhile waits in
 * the sockets. A developer who has saved a file must not be answered by the old code, which a
 * rolling replacement would do until the import is over.
 *
 * A slot's sockets are shared by its old worker and its new one, and the old one accepts until it
 * has read DRAIN. It answers that, and a rolling reload is complete when all have: whoever hears of
 * it finds the new code on every new connection.
 *
 * How a reload ended is told in one place, reload_close: to the log, to the report that `status`
 * shows, and to those who wait for it.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "master/master_priv.h"
#include "master/watch.h"

/* What a request may still take when its code is replaced during development. */
#define RELOAD_FRESH_DRAIN_MS 2000
/* How long old workers may take to hear that they are to accept nothing any more. One that is stuck
 * with its stand-by, or stopped, must not hold up the report. */
#define RELOAD_HEAR_MS 1000

struct reload_waiter {
    struct stk_list link;
    stk_reload_fn fn;
    void *arg;
};

void stk_reload_notify(struct stk_master *m, stk_reload_fn fn, void *arg)
{
    struct reload_waiter *waiter;

    if (m->stopping != 0) {
        fn(arg, false, "the server is stopping");
        return;
    }
    waiter = stk_new0(struct reload_waiter);
    waiter->fn = fn;
    waiter->arg = arg;
    stk_list_init(&waiter->link);
    stk_list_append(&m->reload.waiters, &waiter->link);
}

void stk_reload_forget(struct stk_master *m, const void *arg)
{
    stk_list_for_each_safe (it, &m->reload.waiters) {
        struct reload_waiter *waiter = stk_container_of(it, struct reload_waiter, link);

        if (waiter->arg != arg)
            continue;
        stk_list_remove(&waiter->link);
        free(waiter);
    }
}

static void reload_tell(struct stk_master *m, bool ok, const char *text)
{
    struct stk_list *node;

    while ((node = stk_list_pop(&m->reload.waiters)) != NULL) {
        struct reload_waiter *waiter = stk_container_of(node, struct reload_waiter, link);

        waiter->fn(waiter->arg, ok, text);
        free(waiter);
    }
}

/* Takes `text`, and a copy of `detail`. */
static void reload_close(struct stk_master *m, bool ok, unsigned worker, unsigned renewed,
                         char *text, const char *detail)
{
    struct stk_reload_report *last = &m->reload.last;
    STK_CLEANUP(stk_mem_freep) char *all = NULL;

    stk_log(ok ? STK_LOG_INFO : STK_LOG_ERROR, "%s", text);
    m->reload.open = false;
    if (!ok && m->reload.cause == STK_RESTART_RELOAD)
        atomic_fetch_add_explicit(&m->scoreboard->reloads_failed, 1, memory_order_relaxed);
    if (m->reload.cause != STK_RESTART_RELOAD) { /* nobody has asked for it */
        free(text);
        return;
    }
    stk_notify_back(m, text);
    free(last->text);
    free(last->detail);
    *last = (struct stk_reload_report){
        .known = true,
        .ok = ok,
        .when = (int64_t)time(NULL),
        .worker = worker,
        .renewed = renewed,
        .text = text,
        .detail = detail != NULL ? stk_mem_strdup(detail) : NULL,
    };
    all = stk_mem_printf("%s%s%s", text, detail != NULL ? "\n" : "", detail != NULL ? detail : "");
    reload_tell(m, ok, all);
}

/* Ends what is not ready yet, or has not been heard of as ready. */
static void reload_drop(struct stk_proc **proc)
{
    struct stk_proc *p = stk_steal(proc);

    if (p != NULL && p->kind == STK_PROC_WORKER)
        stk_proc_drain(p, p->master->config->graceful_timeout);
    else if (p != NULL)
        stk_proc_kill(p);
}

static void reload_drop_next(struct stk_master *m)
{
    /* Whatever is heard of those as they are dropped: nothing goes on, and nothing is complete. */
    m->reloading = m->reload_stuck = m->reload.open = false;
    m->reload.heard = false;
    stk_timer_stop(m->loop, &m->reload.hear);
    for (unsigned i = 0; i < m->params->nworkers; i++)
        reload_drop(&m->slots[i].next);
    reload_drop(&m->template_next);
}

static bool reload_is_new(const struct stk_slot *slot)
{
    return slot->current != NULL && slot->current->generation == slot->master->generation;
}

static bool reload_is_done(const struct stk_slot *slot)
{
    return reload_is_new(slot) && stk_proc_is_serving(slot->current);
}

/* How many slots are done; *ret_all: how many are to be. */
static unsigned reload_count(const struct stk_master *m, unsigned *ret_all)
{
    unsigned done = 0;

    *ret_all = 0;
    for (unsigned i = 0; i < m->params->nworkers; i++) {
        if (!m->slots[i].wanted)
            continue;
        *ret_all += 1;
        done += reload_is_done(&m->slots[i]);
    }
    return done;
}

void stk_reload_fail(struct stk_master *m, const struct stk_proc *p, const char *how)
{
    unsigned n, all;
    const char *what = m->reload.cause == STK_RESTART_REFRESH ? "preload-refresh" : "the reload";
    unsigned worker = p != NULL && p->kind == STK_PROC_WORKER ? p->slot + 1 : 0;
    STK_CLEANUP(stk_mem_freep)
    char *who = p != NULL ? stk_proc_name(p) : stk_mem_strdup("a process");
    char *text;

    if (!m->reloading)
        return;
    reload_drop_next(m);
    n = reload_count(m, &all);
    text = n == 0
               ? stk_mem_printf("%s failed, because %s %s: the old workers go on", what, who, how)
               : stk_mem_printf("%s failed, because %s %s: %u of %u workers are new, the old "
                                "ones go on",
                                what, who, how, n, all);
    reload_close(m, false, worker, n, text, p != NULL ? p->failure : NULL);
    stk_recycle_step(m);
}

/* Starts the new worker of a slot. False: not now. */
static bool reload_start(struct stk_master *m, struct stk_slot *slot)
{
    STK_CLEANUP(stk_mem_freep) char *how = NULL;
    int r;

    if (slot->current != NULL && !stk_proc_is_serving(slot->current)) {
        reload_drop(&slot->current);
        /* It may have been ready, which is a step of its own. */
        if (!m->reloading || slot->current != NULL || slot->next != NULL)
            return m->reloading;
    }
    r = stk_spawn_worker(m, slot->index, slot->current != NULL ? &slot->next : &slot->current);
    m->reload_stuck = r == -ENOSPC;
    if (r == 0)
        return true;
    if (r == -ENOSPC)
        return false; /* until a draining worker has left its row */
    how = stk_mem_printf("could not be forked for worker %u (%s)", slot->index + 1, strerror(-r));
    stk_reload_fail(m, NULL, how);
    return false;
}

/* How many old workers may accept connections still. */
static unsigned reload_unheard(const struct stk_master *m)
{
    unsigned n = 0;

    stk_list_for_each (it, &m->procs) {
        const struct stk_proc *p = stk_container_of(it, struct stk_proc, link);

        n += p->unheard && p->state == STK_PROC_DRAINING && p->generation < m->generation;
    }
    return n;
}

static void reload_on_hear(struct stk_timer *timer, void *who)
{
    struct stk_reload *reload = stk_container_of(timer, struct stk_reload, hear);
    struct stk_master *m = stk_container_of(reload, struct stk_master, reload);

    reload->heard = true;
    stk_reload_step(m);
}

void stk_reload_on_drains(struct stk_master *m)
{
    if (stk_timer_is_set(&m->reload.hear))
        stk_reload_step(m);
}

/* All workers are new. */
static void reload_complete(struct stk_master *m, unsigned done)
{
    const char *what = m->reload.cause == STK_RESTART_REFRESH ? "preload-refresh" : "the reload";
    unsigned unheard = reload_unheard(m);
    char *text;

    if (unheard > 0 && !m->reload.heard) {
        if (!stk_timer_is_set(&m->reload.hear))
            stk_timer_set(m->loop, &m->reload.hear, RELOAD_HEAR_MS);
        return;
    }
    stk_timer_stop(m->loop, &m->reload.hear);
    m->reloading = m->reload.heard = false;
    text = stk_mem_printf("%s is complete: %u new worker%s", what, done, done == 1 ? "" : "s");
    if (unheard > 0) {
        char *all =
            stk_mem_printf("%s; %u old one%s not answered, and may still accept connections", text,
                           unheard, unheard == 1 ? " has" : "s have");

        free(text);
        text = all;
    }
    reload_close(m, true, 0, done, text, NULL);
    stk_recycle_step(m);
}

void stk_reload_step(struct stk_master *m)
{
    unsigned all, done, most, under_way = 0;

    if (!m->reloading || m->stopping != 0 || m->template_next != NULL || !stk_slot_can_fork(m))
        return;
    done = reload_count(m, &all);
    most = done > 0 && m->config->reload_mode == STK_RELOAD_ALL ? all : 1;
    for (unsigned i = 0; i < m->params->nworkers; i++) {
        const struct stk_slot *slot = &m->slots[i];

        under_way += slot->wanted && !reload_is_done(slot) &&
                     (slot->next != NULL || slot->waits || reload_is_new(slot));
    }
    for (unsigned i = 0; i < m->params->nworkers && under_way < most; i++) {
        struct stk_slot *slot = &m->slots[i];

        if (!slot->wanted || slot->next != NULL || slot->waits || reload_is_new(slot))
            continue;
        if (!reload_start(m, slot))
            return;
        under_way++;
    }
    if (under_way > 0 || done < all)
        return;
    reload_complete(m, done);
}

static void reload_begin(struct stk_master *m, enum stk_restart cause)
{
    reload_drop_next(m);
    stk_slot_reset(m);
    m->generation++;
    if (cause == STK_RESTART_RELOAD)
        stk_master_tell(m, STK_MASTER_EVENT_RELOAD, 0, 0);
    m->reload.cause = cause;
    m->reload.open = m->reloading = true;
}

void stk_reload_rolling(struct stk_master *m)
{
    int r;

    if (m->stopping != 0)
        return;
    atomic_fetch_add_explicit(&m->scoreboard->reloads, 1, memory_order_relaxed);
    stk_tls_reload(m);
    stk_beside_on_reload(m);
    if (m->config->log_reopen)
        stk_master_reopen_logs(m);
    if (m->config->autoreload || !m->ever_ready) {
        stk_reload_fresh(m);
        return;
    }
    stk_notify_reloading(m, "reloading: new workers load the application");
    reload_begin(m, STK_RESTART_RELOAD);
    if (m->config->preload) {
        r = stk_spawn_template(m, &m->template_next);
        if (r < 0) {
            STK_CLEANUP(stk_mem_freep)
            char *how = stk_mem_printf("could not be forked for the template (%s)", strerror(-r));

            stk_reload_fail(m, NULL, how);
        }
        return;
    }
    stk_reload_step(m);
    stk_slot_fill(m);
}

void stk_reload_refresh(struct stk_master *m)
{
    struct stk_proc *template_next = stk_steal(&m->template_next);

    reload_begin(m, STK_RESTART_REFRESH);
    m->template_next = template_next;
}

void stk_reload_fresh(struct stk_master *m)
{
    stk_msec timeout = m->config->graceful_timeout < RELOAD_FRESH_DRAIN_MS
                           ? m->config->graceful_timeout
                           : RELOAD_FRESH_DRAIN_MS;

    if (m->stopping != 0)
        return;
    reload_begin(m, STK_RESTART_RELOAD);
    m->reloading = false;
    m->announced = false;
    m->started = stk_time_mono_ns();
    reload_drop(&m->template);
    for (unsigned i = 0; i < m->params->nworkers; i++) {
        struct stk_slot *slot = &m->slots[i];

        if (slot->current != NULL)
            stk_proc_drain(stk_steal(&slot->current), timeout);
        slot->adopter = NULL;
    }
    m->held = !m->config->preload && m->scale.target > 1;
    if (m->watch != NULL)
        stk_watch_set_eager(m->watch, false);
    stk_slot_fill(m);
}

void stk_reload_on_all_ready(struct stk_master *m)
{
    unsigned n = stk_scale_serving(m);

    if (m->reload.open && !m->reloading)
        reload_close(
            m, true, 0, n,
            stk_mem_printf("the reload is complete: %u new worker%s", n, n == 1 ? "" : "s"), NULL);
}

void stk_reload_on_stop(struct stk_master *m)
{
    m->reload.open = false;
    reload_tell(m, false, "the server is stopping");
}

void stk_reload_wait_for_save(struct stk_master *m, const struct stk_proc *p)
{
    static const char text[] = "the application could not be loaded: waiting for the next save";

    if (m->waits_for_save)
        return;
    m->waits_for_save = true;
    reload_drop_next(m);
    if (m->watch != NULL)
        stk_watch_set_eager(m->watch, true);
    if (!m->reload.open) {
        stk_log_error("%s", text);
        return;
    }
    reload_close(m, false, p->kind == STK_PROC_WORKER ? p->slot + 1 : 0, 0, stk_mem_strdup(text),
                 p->failure);
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

/* An absolute path, with links and dots left as they are: a link may be turned later. */
static char *reload_absolute(const char *path, const char *cwd)
{
    if (path[0] == '/')
        return stk_mem_strdup(path);
    return stk_mem_printf("%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, path);
}

static bool reload_is_touch(const struct stk_master *m, const char *path, const char *cwd)
{
    for (size_t i = 0; i < m->config->touch_reload.n; i++) {
        STK_CLEANUP(stk_mem_freep)
        char *touch = reload_absolute(m->config->touch_reload.items[i], cwd);

        if (strcmp(touch, path) == 0)
            return true;
    }
    return false;
}

static void reload_on_change(void *arg, const char *path)
{
    struct stk_master *m = arg;
    const char *shown = path;
    char cwd[PATH_MAX];
    size_t len;

    if (m->stopping != 0)
        return;
    if (getcwd(cwd, sizeof cwd) == NULL)
        cwd[0] = '\0';
    len = strlen(cwd);
    if (len > 1 && strncmp(path, cwd, len) == 0 && path[len] == '/')
        shown += len + 1;
    if (reload_is_touch(m, path, cwd)) {
        stk_log_info("%s was touched: restarting the workers", shown);
        stk_reload_rolling(m);
        return;
    }
    stk_log_info("%s changed: restarting", shown);
    stk_reload_fresh(m);
}

int stk_reload_init(struct stk_master *m)
{
    const struct stk_strv *touch = &m->config->touch_reload;
    char cwd[PATH_MAX];
    int r;

    stk_list_init(&m->reload.waiters);
    stk_timer_init(&m->reload.hear, reload_on_hear);
    m->reload.cause = STK_RESTART_RELOAD;
    if (!m->config->autoreload && touch->n == 0)
        return 0;
    r = stk_watch_new(m->loop, reload_on_change, m, &m->watch);
    if (r < 0)
        return r;
    if (getcwd(cwd, sizeof cwd) == NULL)
        cwd[0] = '\0';
    if (m->config->autoreload && cwd[0] != '\0')
        stk_watch_add_folder(m->watch, cwd);
    for (size_t i = 0; i < touch->n; i++) {
        STK_CLEANUP(stk_mem_freep) char *path = reload_absolute(touch->items[i], cwd);

        stk_watch_add_touch(m->watch, path);
    }
    if (stk_watch_is_polling(m->watch))
        stk_log_warning("inotify is not available: %s are looked at once a second",
                        m->config->autoreload ? "source files" : "the files of touch-reload");
    return 0;
}

void stk_reload_deinit(struct stk_master *m)
{
    struct stk_list *node;

    if (m->reload.waiters.next != NULL) {
        stk_timer_stop(m->loop, &m->reload.hear);
        while ((node = stk_list_pop(&m->reload.waiters)) != NULL)
            free(stk_container_of(node, struct reload_waiter, link));
    }
    free(m->reload.last.text);
    free(m->reload.last.detail);
}
