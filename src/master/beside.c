/*
 * What runs beside the workers: when it starts and ends.
 *
 * Programs are there before the workers are forked and end when these are gone, so that a request
 * that is in progress finds them; a reload of the workers does not touch them. A server that hands
 * over to another one has them end at once, and says so when they are gone: only then the other one
 * starts its own. So there are never two of them, and none for no longer than it takes one to end
 * and the other to begin; only a program with a pidfile goes on. Commands of crons are let run for
 * as long as requests are; the other server starts its own when those are gone.
 *
 * Nothing here is periodic that nobody has asked for: the clock is looked at once a minute if there
 * is a cron, pidfiles and queues once a second if there are any to look at.
 */
#include "master/beside.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "master/master_priv.h"
#include "master/watch.h"

enum {
    BESIDE_LOOK_MS = 1000,
    BESIDE_NOW_MS = 1000, /* to end, when the server is to stop now */
    BESIDE_GRACE_MS = 5000,
    BESIDE_MINUTES_MAX = 60, /* that are made up for; more of them are a clock that was set */
};
#define BESIDE_NO_LIMIT INT64_MAX

/* Words from an old server to the new one: before "go", and when it is so. */
#define BESIDE_PROGRAMS_END   "programs end"
#define BESIDE_PROGRAMS_ENDED "programs ended"
#define BESIDE_COMMANDS_END   "commands end"
#define BESIDE_COMMANDS_ENDED "commands ended"

/* --- the clock -------------------------------------------------------------------------------- */

/* Sets the timer to the beginning of the next minute. */
static void beside_wait_minute(struct stk_master *m)
{
    struct timespec now;
    stk_msec gone;

    clock_gettime(CLOCK_REALTIME, &now);
    gone = (stk_msec)(now.tv_sec % 60) * 1000 + now.tv_nsec / STK_NSEC_PER_MSEC;
    stk_timer_set(m->loop, &m->beside.minute, 60000 - gone);
}

/* Runs what is due in a minute since 1970. */
static void beside_do_minute(struct stk_beside *b, time_t minute)
{
    time_t when = minute * 60;
    struct tm tm;

    b->minute_done = minute;
    if (localtime_r(&when, &tm) == NULL)
        return;
    for (size_t i = 0; i < b->config->ncrons; i++)
        if (stk_cron_is_due(b->crons[i].spec, &tm))
            stk_cron_run(&b->crons[i]);
}

static void beside_on_minute(struct stk_timer *timer, void *who)
{
    struct stk_beside *b = stk_container_of(timer, struct stk_beside, minute);
    struct stk_master *m = stk_container_of(b, struct stk_master, beside);
    time_t minute = time(NULL) / 60;

    if (minute != b->minute_done)
        beside_do_minute(b, minute);
    beside_wait_minute(m);
}

static void beside_on_look(struct stk_timer *timer, void *who)
{
    struct stk_beside *b = stk_container_of(timer, struct stk_beside, look);
    struct stk_master *m = stk_container_of(b, struct stk_master, beside);

    for (size_t i = 0; b->programs_started && i < b->config->nprograms; i++)
        stk_program_look(&b->programs[i]);
    if (m->stopping == 0)
        stk_alarm_look(m);
    stk_timer_set(m->loop, timer, BESIDE_LOOK_MS);
}

/* --- files that restart programs -------------------------------------------------------------- */

static char *beside_absolute(const char *path)
{
    char cwd[PATH_MAX];

    if (path[0] == '/' || getcwd(cwd, sizeof cwd) == NULL)
        return stk_mem_strdup(path);
    return stk_mem_printf("%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, path);
}

static void beside_on_touch(void *arg, const char *path)
{
    struct stk_master *m = arg;
    STK_CLEANUP(stk_mem_freep) char *why = stk_mem_printf("%s was touched", path);

    for (size_t i = 0; i < m->beside.config->nprograms && !m->beside.ending; i++) {
        struct stk_program *p = &m->beside.programs[i];

        for (size_t f = 0; f < p->spec->touch.n; f++) {
            STK_CLEANUP(stk_mem_freep) char *touch = beside_absolute(p->spec->touch.items[f]);

            if (strcmp(touch, path) == 0)
                stk_program_restart(p, why);
        }
    }
    for (size_t i = 0; i < m->beside.config->ncrons && m->beside.crons_started; i++) {
        struct stk_cron *c = &m->beside.crons[i];
        STK_CLEANUP(stk_mem_freep)
        char *touch = c->spec->touch != NULL ? beside_absolute(c->spec->touch) : NULL;

        if (touch != NULL && strcmp(touch, path) == 0 && !m->beside.ending)
            stk_cron_run(c);
    }
}

/* Watches one file. 0 or a negative errno. */
static int beside_watch_file(struct stk_master *m, const char *name)
{
    STK_CLEANUP(stk_mem_freep) char *path = beside_absolute(name);
    int r;

    if (m->beside.watch == NULL) {
        r = stk_watch_new(m->loop, beside_on_touch, m, &m->beside.watch);
        if (r < 0)
            return r;
        stk_watch_tell_each(m->beside.watch);
    }
    stk_watch_add_touch(m->beside.watch, path);
    return 0;
}

static int beside_watch(struct stk_master *m)
{
    const struct stk_programs *config = m->beside.config;
    int r = 0;

    for (size_t i = 0; i < config->nprograms; i++)
        for (size_t f = 0; f < config->programs[i].touch.n && r == 0; f++)
            r = beside_watch_file(m, config->programs[i].touch.items[f]);
    for (size_t i = 0; i < config->ncrons && r == 0; i++)
        if (config->crons[i].touch != NULL)
            r = beside_watch_file(m, config->crons[i].touch);
    return r;
}

/* --- the beginning ---------------------------------------------------------------------------- */

static void beside_on_mistake(void *arg, enum stk_option_id option, size_t item, const char *text)
{
    stk_log_error("%s: %s", stk_options_rows()[option].name, text);
}

static void beside_on_hurry(struct stk_timer *timer, void *who)
{
    struct stk_beside *b = stk_container_of(timer, struct stk_beside, hurry);

    for (size_t i = 0; i < b->config->ncrons; i++)
        stk_cron_stop(&b->crons[i], BESIDE_GRACE_MS);
}

static bool beside_has_pidfiles(const struct stk_programs *programs)
{
    for (size_t i = 0; i < programs->nprograms; i++)
        if (programs->programs[i].pidfile != NULL)
            return true;
    return false;
}

/* Becomes the one who waits for what its children leave behind. */
static void beside_become_reaper(struct stk_master *m)
{
    int was = 0;

    if (prctl(PR_GET_CHILD_SUBREAPER, &was) == 0 && was == 0)
        m->subreaper_set = prctl(PR_SET_CHILD_SUBREAPER, 1) == 0;
    m->reaps_strangers = true;
}

int stk_beside_init(struct stk_master *m)
{
    struct stk_beside *b = &m->beside;
    int r;

    stk_list_init(&b->alarm_runs);
    stk_timer_init(&b->look, beside_on_look);
    stk_timer_init(&b->minute, beside_on_minute);
    stk_timer_init(&b->hurry, beside_on_hurry);
    b->minute_done = -1;
    b->config = stk_programs_new(m->config, beside_on_mistake, NULL);
    if (b->config == NULL)
        return -EINVAL;
    if (!stk_programs_any(b->config)) {
        b->config = stk_programs_free(b->config);
        return 0;
    }
    beside_become_reaper(m);
    b->programs = stk_new0_array(struct stk_program, b->config->nprograms + 1);
    for (size_t i = 0; i < b->config->nprograms; i++)
        stk_program_init(&b->programs[i], m, &b->config->programs[i]);
    b->crons = stk_new0_array(struct stk_cron, b->config->ncrons + 1);
    for (size_t i = 0; i < b->config->ncrons; i++)
        stk_cron_init(&b->crons[i], m, &b->config->crons[i]);
    b->alarms = stk_new0_array(struct stk_alarm, b->config->nalarms + 1);
    for (size_t i = 0; i < b->config->nalarms; i++) {
        b->alarms[i].spec = &b->config->alarms[i];
        b->alarms[i].name = stk_mem_printf("alarm %s", b->config->alarms[i].name);
    }
    r = beside_watch(m);
    if (r == 0 && b->config->nrules > 0)
        r = stk_watchman_start(m);
    if (r == 0 && (beside_has_pidfiles(b->config) || b->config->on_backlog != 0))
        stk_timer_set(m->loop, &b->look, BESIDE_LOOK_MS);
    return r;
}

static void beside_start_programs(struct stk_master *m)
{
    struct stk_beside *b = &m->beside;

    if (b->config == NULL || b->programs_started || b->ending || m->stopping != 0)
        return;
    b->programs_started = true;
    for (size_t i = 0; i < b->config->nprograms; i++)
        stk_program_start(&b->programs[i]);
}

/* `again`: another server has had `minute_had`. */
static void beside_start_crons(struct stk_master *m, bool again)
{
    struct stk_beside *b = &m->beside;
    time_t minute = time(NULL) / 60;

    if (b->config == NULL || b->config->ncrons == 0 || b->crons_started || b->ending ||
        m->stopping != 0)
        return;
    b->crons_started = true;
    /* While the commands of that one have ended minutes may have passed, and nobody had them. */
    if (again && minute - b->minute_had <= BESIDE_MINUTES_MAX)
        for (b->minute_done = b->minute_had; b->minute_done < minute - 1;)
            beside_do_minute(b, b->minute_done + 1);
    beside_on_minute(&b->minute, m);
}

void stk_beside_start(struct stk_master *m)
{
    if (stk_upgrade_is_waiting(m))
        return;
    beside_start_programs(m);
    beside_start_crons(m, false);
}

static bool beside_has_programs(const struct stk_master *m)
{
    const struct stk_beside *b = &m->beside;

    for (size_t i = 0; b->config != NULL && i < b->config->nprograms; i++)
        if (stk_child_is_there(&b->programs[i].child) || b->programs[i].leaving > 0)
            return true;
    return false;
}

static bool beside_has_crons(const struct stk_master *m)
{
    const struct stk_beside *b = &m->beside;

    for (size_t i = 0; b->config != NULL && i < b->config->ncrons; i++)
        if (b->crons[i].nruns > 0)
            return true;
    return false;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void beside_stop_programs(struct stk_master *m, stk_msec most, bool upgraded)
{
    struct stk_beside *b = &m->beside;

    if (b->programs_told && most != BESIDE_NOW_MS)
        return;
    b->programs_told = true;
    for (size_t i = 0; i < b->config->nprograms; i++)
        stk_program_stop(&b->programs[i], most, upgraded);
}

/* Nothing begins any more; commands have as long as requests. */
static void beside_end(struct stk_master *m)
{
    struct stk_beside *b = &m->beside;

    if (b->ending)
        return;
    b->ending = true;
    stk_timer_stop(m->loop, &b->minute);
    for (size_t i = 0; i < b->config->nprograms; i++) {
        stk_timer_stop(m->loop, &b->programs[i].again);
        b->programs[i].waits = false;
    }
    if (beside_has_crons(m))
        stk_timer_set(m->loop, &b->hurry, m->config->graceful_timeout);
}

void stk_beside_on_stop(struct stk_master *m, bool now)
{
    struct stk_beside *b = &m->beside;

    if (b->config == NULL)
        return;
    beside_end(m);
    if (!now)
        return;
    beside_stop_programs(m, BESIDE_NOW_MS, false);
    for (size_t i = 0; i < b->config->ncrons; i++)
        stk_cron_stop(&b->crons[i], BESIDE_NOW_MS);
    stk_alarm_stop(m, BESIDE_NOW_MS);
}

/* --- from one server to the next -------------------------------------------------------------- */

void stk_beside_hand_over(struct stk_master *m, stk_beside_say_fn say)
{
    struct stk_beside *b = &m->beside;

    if (b->config != NULL) {
        beside_end(m);
        beside_stop_programs(m, BESIDE_NO_LIMIT, true);
    }
    /* Also what the server before this one has still to end. */
    b->programs_end = b->awaits_programs || beside_has_programs(m);
    b->commands_end = b->awaits_commands || beside_has_crons(m);
    if (b->programs_end)
        say(m, BESIDE_PROGRAMS_END);
    if (b->commands_end)
        say(m, BESIDE_COMMANDS_END);
}

void stk_beside_tell(struct stk_master *m, stk_beside_say_fn say)
{
    struct stk_beside *b = &m->beside;

    if (b->programs_end && !b->awaits_programs && !beside_has_programs(m)) {
        b->programs_end = false;
        say(m, BESIDE_PROGRAMS_ENDED);
    }
    if (b->commands_end && !b->awaits_commands && !beside_has_crons(m)) {
        b->commands_end = false;
        say(m, BESIDE_COMMANDS_ENDED);
    }
}

void stk_beside_take_over(struct stk_master *m)
{
    if (!m->beside.awaits_programs)
        beside_start_programs(m);
    /* The old server has had the minute in which it has handed over. */
    if (m->beside.minute_had == 0)
        m->beside.minute_had = time(NULL) / 60;
    if (!m->beside.awaits_commands)
        beside_start_crons(m, true);
}

void stk_beside_hear(struct stk_master *m, const char *word)
{
    struct stk_beside *b = &m->beside;

    if (word == NULL)
        b->awaits_programs = b->awaits_commands = false;
    else if (strcmp(word, BESIDE_PROGRAMS_END) == 0)
        b->awaits_programs = true;
    else if (strcmp(word, BESIDE_COMMANDS_END) == 0)
        b->awaits_commands = true;
    else if (strcmp(word, BESIDE_PROGRAMS_ENDED) == 0)
        b->awaits_programs = false;
    else if (strcmp(word, BESIDE_COMMANDS_ENDED) == 0)
        b->awaits_commands = false;
    else
        return;
    if (!stk_upgrade_is_waiting(m))
        stk_beside_take_over(m);
}

/* --- while it runs ---------------------------------------------------------------------------- */

void stk_beside_on_turn(struct stk_master *m)
{
    const struct stk_beside *b = &m->beside;

    if (b->config == NULL || !b->ending || b->programs_told || !stk_list_is_empty(&m->procs))
        return;
    beside_stop_programs(m, BESIDE_NO_LIMIT, false);
    stk_alarm_stop(m, BESIDE_GRACE_MS);
}

void stk_beside_on_reload(struct stk_master *m)
{
    for (size_t i = 0; m->beside.config != NULL && i < m->beside.config->nprograms; i++)
        stk_program_on_reload(&m->beside.programs[i]);
}

/* Whether a server has still to hear from the one before, for the one behind. */
static bool beside_passes_on(const struct stk_master *m)
{
    const struct stk_beside *b = &m->beside;

    return m->stopping < 2 &&
           ((b->programs_end && b->awaits_programs) || (b->commands_end && b->awaits_commands));
}

bool stk_beside_holds(const struct stk_master *m)
{
    const struct stk_beside *b = &m->beside;

    return !stk_list_is_empty(&m->children) || beside_has_programs(m) ||
           (b->config != NULL && b->ending && !b->programs_told) || beside_passes_on(m);
}

void stk_beside_leave(struct stk_master *m)
{
    stk_child_leave(m);
    if (m->beside.watch != NULL)
        stk_watch_close(m->beside.watch);
    stk_fd_close(&m->beside.lines.fd);
    stk_guard_leave(m);
}

void stk_beside_close(struct stk_master *m)
{
    struct stk_beside *b = &m->beside;

    if (b->config == NULL)
        return;
    stk_watchman_stop(m);
    b->watch = stk_watch_free(b->watch);
    for (size_t i = 0; i < b->config->nprograms; i++)
        stk_program_deinit(&b->programs[i]);
    for (size_t i = 0; i < b->config->ncrons; i++)
        stk_cron_deinit(&b->crons[i]);
    stk_alarm_deinit(m);
    for (size_t i = 0; i < b->config->nalarms; i++) {
        free(b->alarms[i].name);
        free(b->alarms[i].said);
    }
    stk_guard_stop(m);
    stk_timer_stop(m->loop, &b->look);
    stk_timer_stop(m->loop, &b->minute);
    stk_timer_stop(m->loop, &b->hurry);
    free(b->programs);
    free(b->crons);
    free(b->alarms);
    b->config = stk_programs_free(b->config);
}

/* --- what is told of it ----------------------------------------------------------------------- */

static void beside_put_program(struct stk_json *j, const struct stk_program *p, stk_nsec now)
{
    pid_t pid = p->found > 0 ? p->found : p->child.pid;

    stk_json_object_begin(j);
    stk_json_put_string(j, "name", p->spec->name);
    stk_json_put_string(j, "state", stk_program_state(p));
    stk_json_put_int(j, "pid", pid);
    stk_json_put_fixed(j, "uptime", pid > 0 ? (now - p->since) / STK_NSEC_PER_MSEC : 0, 3);
    stk_json_put_uint(j, "restarts", p->starts > 0 ? p->starts - 1 : 0);
    stk_json_put_string(j, "command", p->spec->task != NULL ? p->spec->task : p->spec->command);
    stk_json_put_string(j, "pidfile", p->spec->pidfile);
    stk_json_object_end(j);
}

void stk_beside_put_crons(struct stk_json *j, const struct stk_master *m)
{
    stk_json_name(j, "crons");
    stk_json_array_begin(j);
    for (size_t i = 0; i < m->beside.config->ncrons; i++)
        if (m->beside.crons[i].spec->touch == NULL)
            stk_cron_put_stats(j, &m->beside.crons[i]);
    stk_json_array_end(j);
}

void stk_beside_put_status(struct stk_json *j, const struct stk_master *m)
{
    const struct stk_beside *b = &m->beside;
    stk_nsec now = stk_time_mono_ns();

    stk_json_name(j, "programs");
    stk_json_array_begin(j);
    for (size_t i = 0; b->config != NULL && i < b->config->nprograms; i++)
        beside_put_program(j, &b->programs[i], now);
    stk_json_array_end(j);
    stk_json_name(j, "crons");
    stk_json_array_begin(j);
    for (size_t i = 0; b->config != NULL && i < b->config->ncrons; i++)
        stk_cron_put_status(j, &b->crons[i]);
    stk_json_array_end(j);
    stk_json_name(j, "alarms");
    stk_json_array_begin(j);
    for (size_t i = 0; b->config != NULL && i < b->config->nalarms; i++) {
        stk_json_object_begin(j);
        stk_json_put_string(j, "name", b->alarms[i].spec->name);
        stk_json_put_uint(j, "raised", b->alarms[i].raised);
        stk_json_object_end(j);
    }
    stk_json_array_end(j);
}
