/*
 * Commands at times of the day, and when files are touched. The clock is looked at once a minute
 * (beside.c); each command that is due becomes a process of its own.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/mem.h"
#include "master/beside.h"
#include "master/master_priv.h"

enum {
    CRON_RUNS_MAX = 16, /* of one entry at a time */
    CRON_GRACE_MS = 5000,
};

struct cron_run {
    struct stk_child child;
    struct stk_list link;
    struct stk_cron *cron;
    struct stk_timer timeout;
    bool late;
};

static void cron_on_timeout(struct stk_timer *timer, void *who)
{
    struct cron_run *run = stk_container_of(timer, struct cron_run, timeout);

    run->late = true;
    stk_log_error("%s (%d) runs for more than %.1f s, its time: it is stopped", run->cron->name,
                  (int)run->child.group, (double)run->cron->spec->timeout / 1000);
    stk_child_stop(&run->child, SIGTERM, CRON_GRACE_MS);
}

static void cron_free_run(struct cron_run *run)
{
    stk_timer_stop(run->cron->master->loop, &run->timeout);
    stk_list_remove(&run->link);
    run->cron->nruns--;
    free(run);
}

static void cron_on_gone(struct stk_child *c, int status)
{
    struct cron_run *run = stk_container_of(c, struct cron_run, child);
    const char *name = run->cron->name;
    STK_CLEANUP(stk_mem_freep) char *how = stk_reap_describe(status);
    bool clean = status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;

    if (clean || (c->asked && !run->late))
        stk_log_info("%s (%d) has ended after %.1f s", name, (int)c->gone,
                     (double)stk_child_age(c) / 1000);
    else
        stk_log_error("%s (%d) %s after %.1f s", name, (int)c->gone, how,
                      (double)stk_child_age(c) / 1000);
    cron_free_run(run);
}

static void cron_start(struct stk_cron *c)
{
    const struct stk_child_params params = {.command = c->spec->command, .input = -1};
    struct cron_run *run = stk_new0(struct cron_run);
    int r;

    run->cron = c;
    stk_list_init(&run->link);
    stk_timer_init(&run->timeout, cron_on_timeout);
    stk_child_init(&run->child, c->master, c->spec->name, cron_on_gone, SIGTERM, CRON_GRACE_MS);
    r = stk_child_start(&run->child, &params);
    if (r < 0) {
        stk_log_error("%s cannot be started: %s", c->name, strerror(-r));
        free(run);
        return;
    }
    stk_list_append(&c->runs, &run->link);
    c->nruns++;
    c->started++;
    c->last = time(NULL);
    if (c->spec->timeout > 0)
        stk_timer_set(c->master->loop, &run->timeout, c->spec->timeout);
    stk_log_info("%s is process %d: %s", c->name, (int)run->child.pid, c->spec->command);
}

void stk_cron_run(struct stk_cron *c)
{
    if (c->spec->unique && c->nruns > 0)
        stk_log_warning("%s runs still: it is not started a second time", c->name);
    else if (c->nruns >= CRON_RUNS_MAX)
        stk_log_error("%s: %u of it run still: no more are started", c->name, c->nruns);
    else
        cron_start(c);
}

void stk_cron_stop(struct stk_cron *c, stk_msec grace)
{
    stk_list_for_each (it, &c->runs) {
        stk_child_stop(&stk_container_of(it, struct cron_run, link)->child, SIGTERM, grace);
    }
}

void stk_cron_init(struct stk_cron *c, struct stk_master *m, const struct stk_cron_spec *spec)
{
    c->master = m;
    c->spec = spec;
    c->name = stk_mem_printf("%s %s", spec->touch != NULL ? "touch-exec" : "cron", spec->name);
    stk_list_init(&c->runs);
}

void stk_cron_deinit(struct stk_cron *c)
{
    struct stk_list *node;

    while ((node = stk_list_pop(&c->runs)) != NULL) {
        struct cron_run *run = stk_container_of(node, struct cron_run, link);

        stk_child_forget(&run->child);
        cron_free_run(run);
    }
    free(c->name);
}

void stk_cron_put_status(struct stk_json *j, const struct stk_cron *c)
{
    stk_json_object_begin(j);
    stk_json_put_string(j, "name", c->spec->name);
    stk_json_name(j, "time");
    stk_json_array_begin(j);
    for (size_t i = 0; i < STK_ARRAY_LEN(c->spec->text); i++)
        stk_json_string(j, c->spec->text[i]);
    stk_json_array_end(j);
    stk_json_put_string(j, "command", c->spec->command);
    stk_json_put_string(j, "touch", c->spec->touch);
    stk_json_put_bool(j, "unique", c->spec->unique);
    stk_json_put_uint(j, "started", c->started);
    stk_json_put_int(j, "last", (int64_t)c->last);
    stk_json_name(j, "pids");
    stk_json_array_begin(j);
    stk_list_for_each (it, &c->runs) {
        stk_json_int(j, stk_container_of(it, struct cron_run, link)->child.pid);
    }
    stk_json_array_end(j);
    stk_json_object_end(j);
}

void stk_cron_put_stats(struct stk_json *j, const struct stk_cron *c)
{
    static const char *const names[] = {"minute", "hour", "day", "month", "week"};
    pid_t pid = -1;

    stk_list_for_each (it, &c->runs) {
        pid = stk_container_of(it, struct cron_run, link)->child.pid;
    }
    stk_json_object_begin(j);
    /* What is no number there, as a list, is -1: not one time. */
    for (size_t i = 0; i < STK_ARRAY_LEN(names); i++) {
        char *end = NULL;
        long value = strtol(c->spec->text[i], &end, 10);

        stk_json_put_int(j, names[i], end != c->spec->text[i] && *end == '\0' ? value : -1);
    }
    stk_json_put_string(j, "command", c->spec->command);
    stk_json_put_uint(j, "unique", c->spec->unique);
    stk_json_put_int(j, "pid", pid);
    stk_json_put_int(j, "started_at", pid > 0 ? (int64_t)c->last : 0);
    stk_json_object_end(j);
}
