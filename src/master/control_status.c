/*
 * The answer to `status`: everything that the master and the scoreboard know, and no opinion; rates
 * and percentiles are the business of who asks, and asks again. Costs nothing between two answers:
 * memory is looked up in /proc for each.
 */
#include <unistd.h>

#include "ipc/scoreboard.h"
#include "master/control.h"
#include "master/master_priv.h"
#include "services/caches.h"
#include "services/memory.h"

/* Seconds since a point of the monotonic clock, to the millisecond. */
static void status_put_age(struct stk_json *j, const char *name, stk_nsec now, stk_nsec since)
{
    stk_json_put_fixed(j, name, now > since ? (now - since) / STK_NSEC_PER_MSEC : 0, 3);
}

static void status_put_counters(struct stk_json *j, const struct stk_master *m,
                                const struct stk_scoreboard_row *row)
{
    for (unsigned i = 0; i < STK_COUNTERS; i++)
        stk_json_put_uint(j, stk_scoreboard_counter_name(i),
                          row != NULL ? stk_scoreboard_get(row, (enum stk_counter)i)
                                      : stk_scoreboard_total(m->scoreboard, (enum stk_counter)i));
}

/* The buckets up to the last that is not empty. */
static void status_put_latency(struct stk_json *j, const struct stk_histogram *h)
{
    unsigned n = STK_SCOREBOARD_BUCKETS;

    while (n > 0 && h->buckets[n - 1] == 0)
        n--;
    stk_json_name(j, "latency");
    stk_json_object_begin(j);
    stk_json_name(j, "buckets");
    stk_json_array_begin(j);
    for (unsigned i = 0; i < n; i++)
        stk_json_uint(j, h->buckets[i]);
    stk_json_array_end(j);
    stk_json_put_uint(j, "sum_us", h->sum_us);
    stk_json_object_end(j);
}

/* Where the buckets end; the last has no end. */
static void status_put_bounds(struct stk_json *j)
{
    stk_json_name(j, "latency_bounds_us");
    stk_json_array_begin(j);
    for (unsigned i = 0; i < STK_SCOREBOARD_BUCKETS - 1; i++)
        stk_json_uint(j, stk_scoreboard_bucket_end(i));
    stk_json_array_end(j);
}

static void status_put_running(struct stk_json *j, const struct stk_scoreboard_row *row,
                               stk_nsec now)
{
    stk_json_name(j, "running");
    stk_json_array_begin(j);
    for (unsigned i = 0; i < STK_SCOREBOARD_RUNNING; i++) {
        struct stk_scoreboard_running r;

        if (!stk_scoreboard_read_running(row, i, &r))
            continue;
        stk_json_object_begin(j);
        stk_json_put_bool(j, "waiting", r.thread == STK_SCOREBOARD_WAITING);
        if (r.thread != STK_SCOREBOARD_WAITING)
            stk_json_put_uint(j, "thread", r.thread);
        stk_json_put_uint(j, "id", r.id);
        stk_json_put_string(j, "method", r.method);
        stk_json_put_string(j, "target", r.target);
        status_put_age(j, "age", now, (stk_nsec)r.started_ns);
        stk_json_object_end(j);
    }
    stk_json_array_end(j);
}

/* What a process is to its slot. */
static const char *status_role(const struct stk_proc *p)
{
    const struct stk_slot *slot = &p->master->slots[p->slot];

    if (p == slot->current)
        return "current";
    return p == slot->next ? "next" : "leaving";
}

static const char *status_proc_state(const struct stk_proc *p)
{
    switch (p->state) {
    case STK_PROC_FORKING:
    case STK_PROC_STARTING:
        return "starting";
    case STK_PROC_READY:
        return "ready";
    case STK_PROC_DRAINING:
        return "draining";
    case STK_PROC_STOPPING:
    case STK_PROC_KILLED:
        break;
    }
    return "stopping";
}

static void status_put_worker(struct stk_json *j, const struct stk_proc *p, stk_nsec now)
{
    const struct stk_scoreboard *sb = p->master->scoreboard;
    const struct stk_scoreboard_row *row = p->row;
    uint64_t starts = atomic_load_explicit(&sb->rows[p->slot].slot_starts, memory_order_relaxed);
    uint64_t rss = 0, vsz = 0;
    struct stk_histogram latency = {.count = 0};

    if (p->pid > 0 && stk_memory_size(p->pid, &rss, &vsz) < 0)
        rss = 0; /* it has just ended */
    stk_scoreboard_add_latency(row, &latency);
    stk_json_object_begin(j);
    stk_json_put_uint(j, "worker", p->slot + 1);
    stk_json_put_int(j, "pid", p->pid);
    stk_json_put_string(j, "state", status_proc_state(p));
    stk_json_put_string(j, "role", status_role(p));
    stk_json_put_uint(j, "generation", p->generation);
    status_put_age(j, "uptime", now, p->started);
    stk_json_put_uint(j, "restarts", starts > 0 ? starts - 1 : 0);
    stk_json_put_uint(j, "rss", rss);
    stk_json_put_uint(j, "threads", atomic_load_explicit(&row->threads, memory_order_relaxed));
    stk_json_put_uint(j, "busy", stk_scoreboard_busy(row));
    status_put_counters(j, p->master, row);
    status_put_latency(j, &latency);
    status_put_running(j, row, now);
    stk_json_object_end(j);
}

/* By slots; the processes of a slot in the order in which they were started. */
static void status_put_workers(struct stk_json *j, struct stk_master *m, stk_nsec now)
{
    stk_json_name(j, "workers");
    stk_json_array_begin(j);
    for (unsigned slot = 0; slot < m->params->nworkers; slot++) {
        stk_list_for_each (it, &m->procs) {
            const struct stk_proc *p = stk_container_of(it, struct stk_proc, link);

            if (p->kind == STK_PROC_WORKER && p->slot == slot)
                status_put_worker(j, p, now);
        }
    }
    stk_json_array_end(j);
}

const char *stk_control_state(const struct stk_master *m)
{
    if (m->stopping != 0)
        return "stopping";
    if (m->reloading)
        return "reloading";
    if (m->waits_for_save)
        return "waiting for a save";
    return m->ever_ready ? "serving" : "starting";
}

static void status_put_reload(struct stk_json *j, const struct stk_reload_report *last)
{
    stk_json_name(j, "last_reload");
    if (!last->known) {
        stk_json_null(j);
        return;
    }
    stk_json_object_begin(j);
    stk_json_put_bool(j, "ok", last->ok);
    stk_json_put_int(j, "when", last->when);
    stk_json_put_uint(j, "worker", last->worker);
    stk_json_put_uint(j, "renewed", last->renewed);
    stk_json_put_string(j, "text", last->text);
    stk_json_put_string(j, "detail", last->detail);
    stk_json_object_end(j);
}

static void status_put_scale(struct stk_json *j, const struct stk_master *m)
{
    stk_json_name(j, "scale");
    stk_json_object_begin(j);
    stk_json_put_bool(j, "automatic", stk_scale_is_automatic(m));
    stk_json_put_uint(j, "least", m->scale.min);
    stk_json_put_uint(j, "most", m->params->nworkers);
    stk_json_put_uint(j, "wanted", m->scale.target);
    stk_json_put_uint(j, "serving", stk_scale_serving(m));
    stk_json_object_end(j);
}

static void status_put_restarts(struct stk_json *j, const struct stk_scoreboard *sb)
{
    stk_json_name(j, "restarts_by");
    stk_json_object_begin(j);
    for (unsigned i = 0; i < STK_RESTARTS; i++)
        stk_json_put_uint(j, stk_scoreboard_restart_name(i),
                          atomic_load_explicit(&sb->restarts_by[i], memory_order_relaxed));
    stk_json_object_end(j);
}

void stk_control_put_status(struct stk_json *j, struct stk_master *m)
{
    const struct stk_scoreboard *sb = m->scoreboard;
    stk_nsec now = stk_time_mono_ns();

    stk_json_put_string(j, "version", STK_VERSION);
    stk_json_put_int(j, "pid", getpid());
    stk_json_put_string(j, "state", stk_control_state(m));
    stk_json_put_string(j, "app", stk_config_app_name(m->config));
    stk_json_name(j, "addresses");
    stk_json_array_begin(j);
    for (size_t i = 0; i < m->listeners.n; i++)
        stk_json_string(j, m->listeners.items[i]->display);
    stk_json_array_end(j);
    status_put_age(j, "uptime", now, (stk_nsec)atomic_load(&sb->started_ns));
    stk_json_put_uint(j, "generation", m->generation);
    stk_json_put_uint(j, "restarts", atomic_load(&sb->restarts));
    stk_json_put_uint(j, "reloads", atomic_load(&sb->reloads));
    status_put_scale(j, m);
    status_put_restarts(j, sb);
    status_put_reload(j, &m->reload.last);
    stk_json_name(j, "totals");
    stk_json_object_begin(j);
    status_put_counters(j, m, NULL);
    stk_json_object_end(j);
    status_put_bounds(j);
    status_put_workers(j, m, now);
    stk_caches_write(j, m->caches);
    stk_beside_put_status(j, m);
}
