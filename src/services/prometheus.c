/*
 * Metrics. Every row of counter.def that is a counter comes out by itself, as stoker_NAME_total;
 * the table below has those whose name, unit or labels are other. Times are written from whole
 * microseconds: no floating point, and so no locale.
 *
 * The histograms of the scoreboard have two buckets for each doubling from 1 us to over an hour;
 * the ones in the middle are given out, from 64 us to two minutes. Buckets of Prometheus include
 * their bound, ours do not, which makes a difference of less than a microsecond.
 *
 * Proportional memory is costly to find out, milliseconds a worker, and the thread that answers has
 * the network to serve. So a scrape gives out what the last one had measured, by a thread of its
 * own.
 */
#include "services/prometheus.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "ipc/scoreboard.h"
#include "services/caches.h"
#include "services/memory.h"

enum {
    PROMETHEUS_FIRST_BUCKET = 10, /* its bound is 64 us */
    PROMETHEUS_LAST_BUCKET = 52,  /* 134 s */
    PROMETHEUS_MEASURE_MS = 2000, /* between two measurements of memory */
    PROMETHEUS_STACK = 128 * 1024,
    PROMETHEUS_CLASSES = 5,
};

/* Counters that are not written by the common rule; without a name: elsewhere. */
static const struct prometheus_name {
    enum stk_counter counter;
    const char *name;
} prometheus_names[] = {
    {STK_COUNTER_connections, "connections_accepted"},
    {STK_COUNTER_bytes_in, "received_bytes"},
    {STK_COUNTER_bytes_out, "sent_bytes"},
    {STK_COUNTER_handled, "internal_requests"},
    {STK_COUNTER_gil_wait_us, "gil_wait_seconds"},
    {STK_COUNTER_responses_1xx, NULL},
    {STK_COUNTER_responses_2xx, NULL},
    {STK_COUNTER_responses_3xx, NULL},
    {STK_COUNTER_responses_4xx, NULL},
    {STK_COUNTER_responses_5xx, NULL},
};

static uint64_t prometheus_load(const _Atomic uint64_t *p)
{
    return atomic_load_explicit(p, memory_order_relaxed);
}

static void prometheus_head(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# HELP stoker_%s %s\n# TYPE stoker_%s %s\n", name, help, name, type);
}

static void prometheus_value(FILE *f, const char *name, uint64_t value)
{
    fprintf(f, "stoker_%s %llu\n", name, (unsigned long long)value);
}

static void prometheus_labelled(FILE *f, const char *name, const char *label, const char *text,
                                uint64_t value)
{
    fprintf(f, "stoker_%s{%s=\"%s\"} %llu\n", name, label, text, (unsigned long long)value);
}

/* Microseconds as seconds. */
static void prometheus_seconds(FILE *f, uint64_t us)
{
    fprintf(f, "%llu.%06llu", (unsigned long long)(us / 1000000),
            (unsigned long long)(us % 1000000));
}

/* The name of a counter: *ret_name without "_total"; false: it is written elsewhere. */
static bool prometheus_counter_name(unsigned counter, const char **ret_name)
{
    *ret_name = stk_scoreboard_counter_name(counter);
    for (size_t i = 0; i < STK_ARRAY_LEN(prometheus_names); i++) {
        if ((unsigned)prometheus_names[i].counter == counter) {
            *ret_name = prometheus_names[i].name;
            return *ret_name != NULL;
        }
    }
    return true;
}

static void prometheus_counters(FILE *f, const struct stk_scoreboard *sb)
{
    for (unsigned i = 0; i < STK_COUNTERS; i++) {
        const char *own = stk_scoreboard_counter_name(i);
        uint64_t value = stk_scoreboard_total(sb, (enum stk_counter)i);
        size_t len = strlen(own);
        const char *name;
        char total[64];

        if (stk_scoreboard_counter_is_gauge(i) || !prometheus_counter_name(i, &name))
            continue;
        (void)snprintf(total, sizeof total, "%.50s_total", name);
        prometheus_head(f, total, "counter", stk_scoreboard_counter_help(i));
        if (len > 3 && strcmp(own + len - 3, "_us") == 0) {
            fprintf(f, "stoker_%s ", total);
            prometheus_seconds(f, value);
            fputc('\n', f);
        } else {
            prometheus_value(f, total, value);
        }
    }
}

static void prometheus_responses(FILE *f, const struct stk_scoreboard *sb)
{
    prometheus_head(f, "responses_total", "counter", "Responses by the class of their status.");
    for (unsigned i = 0; i < PROMETHEUS_CLASSES; i++) {
        char class[] = {(char)('1' + i), 'x', 'x', '\0'};

        prometheus_labelled(
            f, "responses_total", "class", class,
            stk_scoreboard_total(sb, (enum stk_counter)(STK_COUNTER_responses_1xx + i)));
    }
}

static void prometheus_histogram(FILE *f, const char *name, const char *help,
                                 const struct stk_histogram *h)
{
    uint64_t below = 0;

    prometheus_head(f, name, "histogram", help);
    for (unsigned i = 0; i <= PROMETHEUS_LAST_BUCKET; i++) {
        below += h->buckets[i];
        if (i < PROMETHEUS_FIRST_BUCKET)
            continue;
        fprintf(f, "stoker_%s_bucket{le=\"", name);
        prometheus_seconds(f, stk_scoreboard_bucket_end(i));
        fprintf(f, "\"} %llu\n", (unsigned long long)below);
    }
    fprintf(f, "stoker_%s_bucket{le=\"+Inf\"} %llu\nstoker_%s_sum ", name,
            (unsigned long long)h->count, name);
    prometheus_seconds(f, h->sum_us);
    fprintf(f, "\nstoker_%s_count %llu\n", name, (unsigned long long)h->count);
}

static bool prometheus_is_alive(const struct stk_scoreboard_row *row)
{
    uint64_t state = prometheus_load(&row->state);

    return state == STK_SCOREBOARD_READY || state == STK_SCOREBOARD_DRAINING;
}

/* A gauge that is no more than the sum of a counter over the workers. */
static void prometheus_gauge(FILE *f, const struct stk_scoreboard *sb, const char *name,
                             enum stk_counter counter)
{
    prometheus_head(f, name, "gauge", stk_scoreboard_counter_help(counter));
    prometheus_value(f, name, stk_scoreboard_total(sb, counter));
}

static void prometheus_threads(FILE *f, const struct stk_scoreboard *sb)
{
    uint64_t threads = 0, busy = 0;

    for (unsigned i = 0; i < sb->nrows; i++) {
        const struct stk_scoreboard_row *row = &sb->rows[i];

        if (!prometheus_is_alive(row))
            continue;
        threads += atomic_load_explicit(&row->threads, memory_order_relaxed);
        busy += stk_scoreboard_busy(row);
    }
    prometheus_head(f, "threads", "gauge", "Threads of the application.");
    prometheus_value(f, "threads", threads);
    prometheus_head(f, "threads_busy", "gauge", "Threads that are in the application.");
    prometheus_value(f, "threads_busy", busy);
    prometheus_gauge(f, sb, "requests_queued", STK_COUNTER_requests_queued);
    prometheus_gauge(f, sb, "requests_suspended", STK_COUNTER_requests_suspended);
    prometheus_gauge(f, sb, "websockets_open", STK_COUNTER_websockets_open);
}

static void prometheus_connections(FILE *f, const struct stk_scoreboard *sb)
{
    uint64_t open = stk_scoreboard_total(sb, STK_COUNTER_connections_open);
    uint64_t reading = stk_scoreboard_total(sb, STK_COUNTER_connections_reading);
    uint64_t sending = stk_scoreboard_total(sb, STK_COUNTER_connections_sending);
    uint64_t closing = stk_scoreboard_total(sb, STK_COUNTER_connections_closing);
    uint64_t active = stk_scoreboard_total(sb, STK_COUNTER_requests_queued) +
                      stk_scoreboard_total(sb, STK_COUNTER_requests_suspended);
    uint64_t rest = reading + sending + closing;

    for (unsigned i = 0; i < sb->nrows; i++)
        if (prometheus_is_alive(&sb->rows[i]))
            active += stk_scoreboard_busy(&sb->rows[i]);
    rest = rest < open ? open - rest : 0; /* the numbers are of slightly different moments */
    if (active > rest)
        active = rest;
    prometheus_head(f, "connections", "gauge",
                    "Open connections: idle, with a part of a request (reading), with a request "
                    "in or before the application (active), with a response that the client has "
                    "yet to take (sending), waiting for the client's end (closing).");
    prometheus_labelled(f, "connections", "state", "idle", rest - active);
    prometheus_labelled(f, "connections", "state", "reading", reading);
    prometheus_labelled(f, "connections", "state", "active", active);
    prometheus_labelled(f, "connections", "state", "sending", sending);
    prometheus_labelled(f, "connections", "state", "closing", closing);
}

static void prometheus_reasons(FILE *f, const struct stk_prometheus *p)
{
    prometheus_head(f, "connections_closed_total", "counter", "Closed connections, by reason.");
    for (unsigned i = 0; i < p->nreasons && i < STK_SCOREBOARD_REASONS; i++)
        prometheus_labelled(f, "connections_closed_total", "reason", p->reason_name(i),
                            stk_scoreboard_total_reason(p->scoreboard, i));
}

static void prometheus_workers(FILE *f, const struct stk_prometheus *p)
{
    const struct stk_scoreboard *sb = p->scoreboard;
    uint64_t states[STK_SCOREBOARD_STATES] = {0};

    for (unsigned i = 0; i < sb->nrows; i++) {
        uint64_t state = prometheus_load(&sb->rows[i].state);

        if (state < STK_SCOREBOARD_STATES)
            states[state]++;
    }
    prometheus_head(f, "workers", "gauge", "Worker processes, by state.");
    for (unsigned i = STK_SCOREBOARD_STARTING; i <= STK_SCOREBOARD_DRAINING; i++)
        prometheus_labelled(f, "workers", "state", stk_scoreboard_state_name(i), states[i]);
    prometheus_head(f, "workers_configured", "gauge", "Worker processes as configured.");
    prometheus_value(f, "workers_configured", p->nworkers);
    prometheus_head(f, "worker_restarts_total", "counter",
                    "Workers started in place of others, by cause.");
    for (unsigned i = 0; i < STK_RESTARTS; i++)
        prometheus_labelled(f, "worker_restarts_total", "cause", stk_scoreboard_restart_name(i),
                            prometheus_load(&sb->restarts_by[i]));
    prometheus_head(f, "reloads_total", "counter", "Reloads asked for.");
    prometheus_value(f, "reloads_total", prometheus_load(&sb->reloads));
    prometheus_head(f, "reloads_failed_total", "counter",
                    "Reloads that left the old workers in place.");
    prometheus_value(f, "reloads_failed_total", prometheus_load(&sb->reloads_failed));
}

/* One metric of all caches. */
static void prometheus_cache(FILE *f, const struct stk_caches *caches, const char *name,
                             const char *type, const char *help, size_t field)
{
    prometheus_head(f, name, type, help);
    for (size_t i = 0; i < caches->n; i++) {
        struct stk_cache_stats st;

        stk_cache_stat(caches->items[i], &st);
        prometheus_labelled(f, name, "cache", st.name,
                            *(const uint64_t *)(const void *)((const char *)&st + field));
    }
}

static void prometheus_caches(FILE *f, const struct stk_caches *caches)
{
    static const struct {
        const char *name, *type, *help;
        size_t field;
    } rows[] = {
#define ROW(name, type, field, help) {name, type, help, offsetof(struct stk_cache_stats, field)}
        ROW("cache_items", "gauge", items, "Entries of a cache."),
        ROW("cache_items_max", "gauge", max_items, "Entries that a cache has room for."),
        ROW("cache_blocks", "gauge", blocks_used, "Blocks of a cache that are in use."),
        ROW("cache_blocks_max", "gauge", blocks, "Blocks of a cache."),
        ROW("cache_hits_total", "counter", hits, "Entries that were found."),
        ROW("cache_misses_total", "counter", miss, "Entries that were not found."),
        ROW("cache_full_total", "counter", full, "Entries that met a full cache."),
        ROW("cache_evicted_total", "counter", evicted, "Entries that made room for others."),
        ROW("cache_expired_total", "counter", expired, "Entries that were freed after their time."),
#undef ROW
    };

    for (size_t i = 0; caches != NULL && i < STK_ARRAY_LEN(rows); i++)
        prometheus_cache(f, caches, rows[i].name, rows[i].type, rows[i].help, rows[i].field);
}

static void prometheus_memory(FILE *f, const struct stk_prometheus *p)
{
    prometheus_head(f, "worker_resident_memory_bytes", "gauge",
                    "Resident memory of a worker, by its number.");
    for (unsigned i = 0; i < p->nworkers; i++) {
        const struct stk_scoreboard_row *row = stk_scoreboard_slot_row(p->scoreboard, i);
        uint64_t rss, vsz;

        if (row != NULL && stk_memory_size((pid_t)prometheus_load(&row->pid), &rss, &vsz) == 0)
            fprintf(f, "stoker_worker_resident_memory_bytes{worker=\"%u\"} %llu\n", i + 1,
                    (unsigned long long)rss);
    }
    prometheus_head(f, "worker_proportional_memory_bytes", "gauge",
                    "Memory of a worker in which what n processes share counts as an n-th, as "
                    "measured after the last scrape.");
    for (unsigned i = 0; i < p->nworkers; i++) {
        const struct stk_scoreboard_row *row = stk_scoreboard_slot_row(p->scoreboard, i);
        uint64_t pss = row != NULL ? prometheus_load(&row->pss) : 0;

        if (pss > 0)
            fprintf(f, "stoker_worker_proportional_memory_bytes{worker=\"%u\"} %llu\n", i + 1,
                    (unsigned long long)pss);
    }
}

static void prometheus_build(FILE *f, const struct stk_prometheus *p)
{
    struct timespec now;
    stk_nsec age = stk_time_mono_ns() - (stk_nsec)prometheus_load(&p->scoreboard->started_ns);
    stk_nsec started;

    clock_gettime(CLOCK_REALTIME, &now);
    started = (stk_nsec)now.tv_sec * STK_NSEC_PER_SEC + now.tv_nsec - age;
    prometheus_head(f, "build_info", "gauge", "Versions of stoker and of its Python; always 1.");
    fprintf(f, "stoker_build_info{version=\"%s\",python=\"%s\"} 1\n", STK_VERSION,
            p->runtime != NULL ? p->runtime : "");
    prometheus_head(f, "start_time_seconds", "gauge", "When the server started, since 1970.");
    fputs("stoker_start_time_seconds ", f);
    prometheus_seconds(f, (uint64_t)(started / STK_NSEC_PER_USEC));
    fputc('\n', f);
}

char *stk_prometheus_text(struct stk_prometheus *p, size_t *ret_len)
{
    struct stk_histogram latency = {0}, waiting = {0};
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    bool failed;

    if (f == NULL)
        return NULL;
    stk_scoreboard_total_latency(p->scoreboard, &latency);
    stk_scoreboard_total_waiting(p->scoreboard, &waiting);
    prometheus_build(f, p);
    prometheus_counters(f, p->scoreboard);
    prometheus_responses(f, p->scoreboard);
    prometheus_histogram(f, "request_duration_seconds",
                         "From a complete request to the response handed over.", &latency);
    prometheus_histogram(f, "request_queue_seconds",
                         "Waiting for a thread, of the requests that found none free.", &waiting);
    prometheus_threads(f, p->scoreboard);
    prometheus_connections(f, p->scoreboard);
    prometheus_reasons(f, p);
    prometheus_workers(f, p);
    prometheus_memory(f, p);
    prometheus_caches(f, p->caches);
    failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed) {
        free(text);
        return NULL;
    }
    *ret_len = len;
    return text;
}

/* Measures the shares of all workers. */
static void *prometheus_measure(void *arg)
{
    struct stk_scoreboard *sb = arg;

    for (unsigned i = 0; i < sb->nrows; i++) {
        struct stk_scoreboard_row *row = &sb->rows[i];
        uint64_t pss;

        if (prometheus_is_alive(row) &&
            stk_memory_share((pid_t)prometheus_load(&row->pid), &pss) == 0)
            atomic_store_explicit(&row->pss, pss, memory_order_relaxed);
    }
    return NULL;
}

/* Starts a measurement for the next scrape, unless one is under way. Mutex held. */
static void prometheus_begin_measuring(struct stk_prometheus *p)
{
    stk_msec now = stk_time_mono_coarse_ms();
    pthread_attr_t attr;
    sigset_t all, old;

    if (p->measured != 0 && now - p->measured < PROMETHEUS_MEASURE_MS)
        return;
    if (p->measuring && pthread_tryjoin_np(p->measurer, NULL) != 0)
        return;
    p->measuring = false;
    p->measured = now;
    if (pthread_attr_init(&attr) != 0)
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    p->measuring = pthread_attr_setstacksize(&attr, PROMETHEUS_STACK) == 0 &&
                   pthread_create(&p->measurer, &attr, prometheus_measure, p->scoreboard) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
}

void stk_prometheus_init(struct stk_prometheus *p)
{
    int r = pthread_mutex_init(&p->mutex, NULL);

    STK_ASSERT(r == 0);
    p->measuring = false;
    p->measured = 0;
}

void stk_prometheus_deinit(struct stk_prometheus *p)
{
    if (p->scoreboard == NULL)
        return;
    if (p->measuring)
        pthread_join(p->measurer, NULL);
    p->measuring = false;
    pthread_mutex_destroy(&p->mutex);
    p->scoreboard = NULL;
}

void stk_prometheus_answer(void *arg, const struct stk_handler_request *req,
                           struct stk_handler_response *ret_response)
{
    struct stk_prometheus *p = arg;

    ret_response->body = stk_prometheus_text(p, &ret_response->len);
    if (ret_response->body == NULL) {
        ret_response->status = 503;
        return;
    }
    ret_response->status = 200;
    ret_response->content_type = "text/plain; version=0.0.4; charset=utf-8";
    pthread_mutex_lock(&p->mutex);
    prometheus_begin_measuring(p);
    pthread_mutex_unlock(&p->mutex);
}
