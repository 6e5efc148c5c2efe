/*
 * uWSGI's schema speaks of workers by their number, of which there is one process each; here a
 * worker may have a successor while it finishes its last requests. An entry of "workers" is the
 * process that serves the slot, with the counters of the slot since the server started (so that
 * they never fall, and rates can be taken of them); those that drain are in "stoker".
 *
 * Keys that have no meaning here (signals, offloading) are there with 0, because consumers index
 * them. Nothing here waits: /proc and the kernel's view of the listening sockets are read on the
 * spot.
 */
#include "services/stats.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "net/listen.h"
#include "services/caches.h"
#include "services/memory.h"

/* What all writers need. */
struct stats_ctx {
    struct stk_json *j;
    const struct stk_stats *s;
    const struct stk_scoreboard *sb;
    stk_nsec now;  /* monotonic */
    stk_nsec wall; /* since 1970 */
};

/* What waits in the kernel to be accepted from one address. */
struct stats_queue {
    uint64_t waiting;
    uint64_t room;
};

static uint64_t stats_load(const _Atomic uint64_t *p)
{
    return atomic_load_explicit(p, memory_order_relaxed);
}

/* A point of the monotonic clock in seconds since 1970. */
static uint64_t stats_unix(const struct stats_ctx *c, uint64_t mono)
{
    stk_nsec at = c->wall - (c->now - (stk_nsec)mono);

    return at > 0 ? (uint64_t)(at / STK_NSEC_PER_SEC) : 0;
}

static uint64_t stats_age_ms(const struct stats_ctx *c, uint64_t mono)
{
    stk_nsec age = c->now - (stk_nsec)mono;

    return age > 0 ? (uint64_t)(age / STK_NSEC_PER_MSEC) : 0;
}

/* Sums over the sockets of a listener. The kernel tells it of TCP only. */
static struct stats_queue stats_queue_of(const struct stk_listener *l)
{
    struct stats_queue q = {0};

    if (l->is_unix)
        return q;
    for (unsigned i = 0; i < l->nslots; i++) {
        struct tcp_info info;
        socklen_t len = sizeof info;

        if (l->slots[i] < 0 || (l->shared && i > 0) ||
            getsockopt(l->slots[i], IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
            info.tcpi_state != TCP_LISTEN)
            continue;
        q.waiting += info.tcpi_unacked; /* of a listening socket: the length of its queue ... */
        q.room += info.tcpi_sacked;     /* ... and its limit */
    }
    return q;
}

static void stats_put_sockets(const struct stats_ctx *c)
{
    stk_json_name(c->j, "sockets");
    stk_json_array_begin(c->j);
    for (size_t i = 0; i < c->s->nlisteners; i++) {
        const struct stk_listener *l = c->s->listeners[i];
        struct stats_queue q = stats_queue_of(l);

        stk_json_object_begin(c->j);
        stk_json_put_string(c->j, "name", l->display);
        stk_json_put_string(c->j, "proto", "http");
        stk_json_put_uint(c->j, "queue", q.waiting);
        stk_json_put_uint(c->j, "max_queue", q.room);
        stk_json_put_uint(c->j, "shared", l->shared ? 1 : 0);
        stk_json_put_uint(c->j, "can_offload", 0);
        stk_json_object_end(c->j);
    }
    stk_json_array_end(c->j);
}

static void stats_put_head(const struct stats_ctx *c)
{
    char cwd[PATH_MAX];
    uint64_t waiting = 0;

    for (size_t i = 0; i < c->s->nlisteners; i++)
        waiting += stats_queue_of(c->s->listeners[i]).waiting;
    stk_json_put_string(c->j, "version", "stoker-" STK_VERSION);
    stk_json_put_uint(c->j, "listen_queue", waiting);
    stk_json_put_uint(c->j, "listen_queue_errors", 0);
    stk_json_put_uint(c->j, "signal_queue", 0);
    stk_json_put_uint(c->j, "load", waiting);
    stk_json_put_int(c->j, "pid", getpid());
    stk_json_put_uint(c->j, "uid", getuid());
    stk_json_put_uint(c->j, "gid", getgid());
    stk_json_put_string(c->j, "cwd", getcwd(cwd, sizeof cwd) != NULL ? cwd : "");
    stk_json_name(c->j, "locks");
    stk_json_array_begin(c->j);
    stk_json_array_end(c->j);
    stk_caches_write(c->j, c->s->caches);
}

/* "NAME=value", an item of an array. */
static void stats_var(struct stk_json *j, const char *name, const char *value)
{
    char text[STK_SCOREBOARD_TARGET + 32];
    size_t len = strlen(name), rest = strlen(value);

    memcpy(text, name, len);
    if (rest > sizeof text - len)
        rest = sizeof text - len;
    memcpy(text + len, value, rest);
    stk_json_bytes(j, text, len + rest);
}

static void stats_put_core(const struct stats_ctx *c, const struct stk_scoreboard_row *row,
                           unsigned thread, const struct stk_scoreboard_running *running,
                           bool in_request)
{
    stk_json_object_begin(c->j);
    stk_json_put_uint(c->j, "id", thread);
    stk_json_put_uint(
        c->j, "requests",
        row != NULL && thread < STK_SCOREBOARD_RUNNING ? stats_load(&row->answered[thread]) : 0);
    stk_json_put_uint(c->j, "static_requests", 0);
    stk_json_put_uint(c->j, "routed_requests", 0);
    stk_json_put_uint(c->j, "offloaded_requests", 0);
    stk_json_put_uint(c->j, "write_errors", 0);
    stk_json_put_uint(c->j, "read_errors", 0);
    stk_json_put_uint(c->j, "in_request", in_request ? 1 : 0);
    stk_json_name(c->j, "vars");
    stk_json_array_begin(c->j);
    if (running != NULL) {
        stats_var(c->j, "REQUEST_METHOD=", running->method);
        stats_var(c->j, "REQUEST_URI=", running->target);
    }
    stk_json_array_end(c->j);
    stk_json_name(c->j, "req_info");
    stk_json_object_begin(c->j);
    if (running != NULL)
        stk_json_put_uint(c->j, "request_start", stats_unix(c, running->started_ns));
    stk_json_object_end(c->j);
    stk_json_object_end(c->j);
}

/* The requests that a row names; their number. */
static unsigned stats_read_running(const struct stk_scoreboard_row *row,
                                   struct stk_scoreboard_running *running)
{
    unsigned n = 0;

    for (unsigned i = 0; row != NULL && i < STK_SCOREBOARD_RUNNING; i++)
        if (stk_scoreboard_read_running(row, i, &running[n]))
            n++;
    return n;
}

static const struct stk_scoreboard_running *stats_find_running(
    const struct stk_scoreboard_running *running, unsigned n, unsigned thread)
{
    for (unsigned i = 0; i < n; i++)
        if (running[i].thread == thread)
            return &running[i];
    return NULL;
}

/*
 * One for each thread. Requests are named when they have run for a while; of the others only the
 * number is known, so that many of the remaining threads are said to run one.
 */
static void stats_put_cores(const struct stats_ctx *c, const struct stk_scoreboard_row *row)
{
    struct stk_scoreboard_running running[STK_SCOREBOARD_RUNNING];
    unsigned n = stats_read_running(row, running);
    unsigned threads = row != NULL ? atomic_load_explicit(&row->threads, memory_order_relaxed) : 0;
    unsigned unnamed = row != NULL ? stk_scoreboard_busy(row) : 0;

    if (threads == 0) /* it does not say yet */
        threads = (unsigned)c->s->config->threads;
    for (unsigned i = n; i-- > 0;)
        if (running[i].thread == STK_SCOREBOARD_WAITING)
            running[i] = running[--n];
    unnamed = unnamed > n ? unnamed - n : 0;
    stk_json_name(c->j, "cores");
    stk_json_array_begin(c->j);
    for (unsigned i = 0; i < threads; i++) {
        const struct stk_scoreboard_running *r = stats_find_running(running, n, i);
        bool in_request = r != NULL;

        if (r == NULL && unnamed > 0) {
            in_request = true;
            unnamed--;
        }
        stats_put_core(c, row, i, r, in_request);
    }
    stk_json_array_end(c->j);
}

static void stats_put_app(const struct stats_ctx *c, const struct stk_scoreboard_row *row,
                          unsigned slot)
{
    stk_json_name(c->j, "apps");
    stk_json_array_begin(c->j);
    if (row != NULL) {
        stk_json_object_begin(c->j);
        stk_json_put_uint(c->j, "id", 0);
        stk_json_put_uint(c->j, "modifier1", 0);
        stk_json_put_string(c->j, "mountpoint", "");
        stk_json_put_uint(c->j, "startup_time", 0);
        stk_json_put_uint(c->j, "requests",
                          stk_scoreboard_slot_total(c->sb, slot, STK_COUNTER_requests));
        stk_json_put_uint(c->j, "exceptions",
                          stk_scoreboard_slot_total(c->sb, slot, STK_COUNTER_exceptions));
        stk_json_put_string(c->j, "chdir", c->s->config->chdir != NULL ? c->s->config->chdir : "");
        stk_json_object_end(c->j);
    }
    stk_json_array_end(c->j);
}

static const char *stats_status(const struct stk_scoreboard_row *row)
{
    if (row == NULL)
        return "cheap"; /* uWSGI's word for a worker that does not run */
    return stk_scoreboard_busy(row) > 0 ? "busy" : "idle";
}

/* Percentiles and sums of a histogram, in microseconds. */
static void stats_put_times(struct stk_json *j, const char *name, const struct stk_histogram *h)
{
    stk_json_name(j, name);
    stk_json_object_begin(j);
    stk_json_put_uint(j, "count", h->count);
    stk_json_put_uint(j, "sum_us", h->sum_us);
    stk_json_put_uint(j, "p50_us", stk_histogram_quantile(h, 500));
    stk_json_put_uint(j, "p90_us", stk_histogram_quantile(h, 900));
    stk_json_put_uint(j, "p99_us", stk_histogram_quantile(h, 990));
    stk_json_object_end(j);
}

static void stats_put_running(const struct stats_ctx *c, const struct stk_scoreboard_row *row)
{
    struct stk_scoreboard_running running[STK_SCOREBOARD_RUNNING];
    unsigned n = stats_read_running(row, running);

    stk_json_name(c->j, "running");
    stk_json_array_begin(c->j);
    for (unsigned i = 0; i < n; i++) {
        stk_json_object_begin(c->j);
        stk_json_put_bool(c->j, "waiting", running[i].thread == STK_SCOREBOARD_WAITING);
        if (running[i].thread != STK_SCOREBOARD_WAITING)
            stk_json_put_uint(c->j, "thread", running[i].thread);
        stk_json_put_uint(c->j, "id", running[i].id);
        stk_json_put_uint(c->j, "age_ms", stats_age_ms(c, running[i].started_ns));
        stk_json_put_string(c->j, "method", running[i].method);
        stk_json_put_string(c->j, "target", running[i].target);
        stk_json_object_end(c->j);
    }
    stk_json_array_end(c->j);
}

/* What uWSGI has no key for, of one process. */
static void stats_put_process(const struct stats_ctx *c, const struct stk_scoreboard_row *row)
{
    struct stk_histogram latency = {0}, waiting = {0};

    stk_scoreboard_add_latency(row, &latency);
    stk_scoreboard_add_histogram(&row->waiting, &waiting);
    stk_json_put_string(c->j, "state",
                        stk_scoreboard_state_name((unsigned)stats_load(&row->state)));
    stk_json_put_uint(c->j, "generation", stats_load(&row->generation));
    stk_json_put_uint(c->j, "uptime_ms", stats_age_ms(c, stats_load(&row->started_ns)));
    stk_json_put_uint(c->j, "threads_busy", stk_scoreboard_busy(row));
    stk_json_put_uint(c->j, "suspended", stk_scoreboard_get(row, STK_COUNTER_requests_suspended));
    stk_json_put_uint(c->j, "queued", stk_scoreboard_get(row, STK_COUNTER_requests_queued));
    stk_json_put_uint(c->j, "connections", stk_scoreboard_get(row, STK_COUNTER_connections_open));
    stats_put_times(c->j, "latency", &latency);
    stats_put_times(c->j, "waiting", &waiting);
    stats_put_running(c, row);
}

/* Microseconds that the requests of a slot have taken. */
static uint64_t stats_slot_us(const struct stats_ctx *c, unsigned slot)
{
    uint64_t us = slot < c->sb->nrows ? stats_load(&c->sb->rows[slot].slot_past_us) : 0;

    for (unsigned i = 0; i < c->sb->nrows; i++) {
        const struct stk_scoreboard_row *row = &c->sb->rows[i];

        if (stats_load(&row->state) != STK_SCOREBOARD_FREE && stats_load(&row->slot) == slot)
            us += stats_load(&row->latency.sum_us) + stats_load(&row->latency_shared.sum_us);
    }
    return us;
}

static void stats_put_worker(const struct stats_ctx *c, unsigned slot)
{
    const struct stk_scoreboard_row *row = stk_scoreboard_slot_row(c->sb, slot);
    uint64_t rss = 0, vsz = 0, requests = row ? stk_scoreboard_get(row, STK_COUNTER_requests) : 0;
    struct stk_histogram latency = {0};
    pid_t pid = row != NULL ? (pid_t)stats_load(&row->pid) : 0;

    if (row != NULL)
        stk_scoreboard_add_latency(row, &latency);
    if (pid <= 0 || stk_memory_size(pid, &rss, &vsz) < 0)
        rss = vsz = 0;
    stk_json_object_begin(c->j);
    stk_json_put_uint(c->j, "id", slot + 1);
    stk_json_put_int(c->j, "pid", pid);
    stk_json_put_uint(c->j, "accepting",
                      row != NULL && stats_load(&row->state) == STK_SCOREBOARD_READY);
    stk_json_put_uint(c->j, "requests",
                      stk_scoreboard_slot_total(c->sb, slot, STK_COUNTER_requests));
    stk_json_put_uint(c->j, "delta_requests", requests);
    stk_json_put_uint(c->j, "exceptions",
                      stk_scoreboard_slot_total(c->sb, slot, STK_COUNTER_exceptions));
    stk_json_put_uint(c->j, "harakiri_count",
                      stk_scoreboard_slot_total(c->sb, slot, STK_COUNTER_request_timeouts));
    stk_json_put_uint(c->j, "signals", 0);
    stk_json_put_uint(c->j, "signal_queue", 0);
    stk_json_put_string(c->j, "status", stats_status(row));
    stk_json_put_uint(c->j, "rss", rss);
    stk_json_put_uint(c->j, "vsz", vsz);
    stk_json_put_uint(c->j, "running_time", stats_slot_us(c, slot));
    stk_json_put_uint(c->j, "last_spawn",
                      row != NULL ? stats_unix(c, stats_load(&row->started_ns)) : 0);
    stk_json_put_uint(c->j, "respawn_count",
                      slot < c->sb->nrows ? stats_load(&c->sb->rows[slot].slot_starts) : 0);
    stk_json_put_uint(c->j, "tx", stk_scoreboard_slot_total(c->sb, slot, STK_COUNTER_bytes_out));
    stk_json_put_uint(c->j, "avg_rt", latency.count > 0 ? latency.sum_us / latency.count : 0);
    stats_put_app(c, row, slot);
    stats_put_cores(c, row);
    if (row != NULL) {
        stk_json_name(c->j, "stoker");
        stk_json_object_begin(c->j);
        stats_put_process(c, row);
        stk_json_object_end(c->j);
    }
    stk_json_object_end(c->j);
}

/* Processes that finish their last requests while others serve their slots. */
static void stats_put_draining(const struct stats_ctx *c)
{
    stk_json_name(c->j, "draining");
    stk_json_array_begin(c->j);
    for (unsigned i = 0; i < c->sb->nrows; i++) {
        const struct stk_scoreboard_row *row = &c->sb->rows[i];

        if (stats_load(&row->state) != STK_SCOREBOARD_DRAINING)
            continue;
        stk_json_object_begin(c->j);
        stk_json_put_uint(c->j, "id", stats_load(&row->slot) + 1);
        stk_json_put_uint(c->j, "pid", stats_load(&row->pid));
        stats_put_process(c, row);
        stk_json_object_end(c->j);
    }
    stk_json_array_end(c->j);
}

static void stats_put_totals(const struct stats_ctx *c)
{
    stk_json_name(c->j, "totals");
    stk_json_object_begin(c->j);
    for (unsigned i = 0; i < STK_COUNTERS; i++)
        stk_json_put_uint(c->j, stk_scoreboard_counter_name(i),
                          stk_scoreboard_total(c->sb, (enum stk_counter)i));
    stk_json_object_end(c->j);
    stk_json_name(c->j, "closed");
    stk_json_object_begin(c->j);
    for (unsigned i = 0; i < c->s->nreasons && i < STK_SCOREBOARD_REASONS; i++)
        stk_json_put_uint(c->j, c->s->reason_name(i), stk_scoreboard_total_reason(c->sb, i));
    stk_json_object_end(c->j);
    stk_json_name(c->j, "restarts");
    stk_json_object_begin(c->j);
    for (unsigned i = 0; i < STK_RESTARTS; i++)
        stk_json_put_uint(c->j, stk_scoreboard_restart_name(i), stats_load(&c->sb->restarts_by[i]));
    stk_json_object_end(c->j);
}

static void stats_put_own(const struct stats_ctx *c)
{
    struct stk_histogram latency = {0}, waiting = {0};

    stk_scoreboard_total_latency(c->sb, &latency);
    stk_scoreboard_total_waiting(c->sb, &waiting);
    stk_json_name(c->j, "stoker");
    stk_json_object_begin(c->j);
    stk_json_put_string(c->j, "version", STK_VERSION);
    stk_json_put_string(c->j, "state", c->s->state);
    stk_json_put_uint(c->j, "started", stats_unix(c, stats_load(&c->sb->started_ns)));
    stk_json_put_uint(c->j, "uptime_ms", stats_age_ms(c, stats_load(&c->sb->started_ns)));
    stk_json_put_uint(c->j, "reloads", stats_load(&c->sb->reloads));
    stk_json_put_uint(c->j, "reloads_failed", stats_load(&c->sb->reloads_failed));
    stats_put_totals(c);
    stats_put_times(c->j, "latency", &latency);
    stats_put_times(c->j, "waiting", &waiting);
    stats_put_draining(c);
    stk_json_object_end(c->j);
}

void stk_stats_write(struct stk_json *j, const struct stk_stats *stats)
{
    struct stats_ctx c = {.j = j, .s = stats, .sb = stats->scoreboard, .now = stk_time_mono_ns()};
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    c.wall = (stk_nsec)ts.tv_sec * STK_NSEC_PER_SEC + ts.tv_nsec;
    stk_json_object_begin(j);
    stats_put_head(&c);
    stats_put_sockets(&c);
    stk_json_name(j, "workers");
    stk_json_array_begin(j);
    for (unsigned i = 0; i < stats->nworkers; i++)
        stats_put_worker(&c, i);
    stk_json_array_end(j);
    if (stats->more != NULL)
        stats->more(j, stats->more_arg);
    stats_put_own(&c);
    stk_json_object_end(j);
}

int stk_stats_text(const struct stk_stats *stats, char **ret_text, size_t *ret_len)
{
    struct stk_json j = {0};
    char *text = NULL, *line;
    size_t len = 0;
    int r;

    stk_stats_write(&j, stats);
    r = stk_json_end(&j, &text, &len);
    if (r < 0)
        return r;
    line = stk_try_realloc(text, len + 1);
    if (line == NULL) {
        free(text);
        return -ENOMEM;
    }
    line[len] = '\n'; /* in the place of the NUL */
    *ret_text = line;
    *ret_len = len + 1;
    return 0;
}
