/*
 * Programs that are kept running.
 *
 * One that ends is started again: at once if it has run for a while, else after pauses that double.
 * There is never a second one while something of the first is there (child.c).
 *
 * A program with a pidfile outlives the server. It is found by that file, before it is started and
 * once a second; one that leaves for the background has some time to write it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/owner.h"
#include "master/beside.h"
#include "master/master_priv.h"

enum {
    PROGRAM_LONG_LIFE_MS = 10000, /* what has run for longer is started again at once */
    PROGRAM_BACKOFF_MS = 100,     /* the first pause */
    PROGRAM_PIDFILE_MAX = 32,     /* bytes */
};

/* --- its pidfile ------------------------------------------------------------------------------ */

/* Whether whoever wrote a pidfile may decide who is signalled. */
static bool program_trusts(const struct stk_program *p, const struct stat *st)
{
    STK_CLEANUP(stk_owner_deinit) struct stk_owner user = {0};

    if (st->st_uid == 0 || st->st_uid == geteuid())
        return true;
    return p->spec->user != NULL && stk_owner_find_user(p->spec->user, &user) == 0 &&
           user.uid == st->st_uid;
}

/*
 * The living process that the pidfile names; 0: there is none. `ret_trusted`: whether it may be
 * signalled, which asks the database of users; or NULL.
 */
static pid_t program_find(const struct stk_program *p, bool *ret_trusted)
{
    STK_CLEANUP(stk_fd_closep)
    int fd = open(p->spec->pidfile, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    bool link = fd < 0 && errno == ELOOP;
    char text[PROGRAM_PIDFILE_MAX + 1] = "";
    struct stat st;
    long pid;
    ssize_t n;

    /* Whoever has made a link has not written what it leads to. */
    if (link)
        fd = open(p->spec->pidfile, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return 0;
    if (ret_trusted != NULL)
        *ret_trusted = !link && program_trusts(p, &st);
    n = read(fd, text, PROGRAM_PIDFILE_MAX);
    if (n <= 0)
        return 0;
    pid = strtol(text, NULL, 10);
    if (pid <= 1 || pid > INT32_MAX || (pid_t)pid == getpid())
        return 0;
    return kill((pid_t)pid, 0) == 0 || errno == EPERM ? (pid_t)pid : 0;
}

/* --- starting --------------------------------------------------------------------------------- */

static void program_wait(struct stk_program *p, stk_msec pause)
{
    p->waits = true;
    stk_timer_set(p->child.master->loop, &p->again, pause);
}

static stk_msec program_back_off(struct stk_program *p)
{
    p->backoff = p->backoff > 0 ? p->backoff * 2 : PROGRAM_BACKOFF_MS;
    if (p->backoff > p->spec->backoff)
        p->backoff = p->spec->backoff;
    return p->backoff;
}

static void program_take_found(struct stk_program *p, pid_t pid)
{
    p->found = pid;
    p->since = stk_time_mono_ns();
    p->expecting = 0;
    p->starts++;
}

void stk_program_start(struct stk_program *p)
{
    const struct stk_program_spec *spec = p->spec;
    const struct stk_child_params params = {
        .command = spec->command,
        .task = spec->task,
        .directory = spec->directory,
        .env = &spec->env,
        .user = spec->user,
        .group = spec->group,
        .pidfile = spec->background ? NULL : spec->pidfile,
        .input = spec->keep_stdin ? STDIN_FILENO : -1,
        .outlives = spec->pidfile != NULL,
    };
    pid_t pid = spec->pidfile != NULL ? program_find(p, NULL) : 0;
    int r;

    p->restart = p->waits = false;
    if (pid > 0) {
        program_take_found(p, pid);
        stk_log_info("%s runs already: it is process %d of %s", p->name, (int)pid, spec->pidfile);
        return;
    }
    r = stk_child_start(&p->child, &params);
    if (r < 0) {
        stk_msec pause = program_back_off(p);

        stk_log_error("%s cannot be started (%s): it is tried again in %.1f s", p->name,
                      strerror(-r), (double)pause / 1000);
        program_wait(p, pause);
        return;
    }
    p->starts++;
    p->since = p->child.started;
    stk_log_info("%s is process %d: %s", p->name, (int)p->child.pid,
                 spec->task != NULL ? spec->task : spec->command);
}

static void program_on_again(struct stk_timer *timer, void *who)
{
    stk_program_start(stk_container_of(timer, struct stk_program, again));
}

/* --- its end ---------------------------------------------------------------------------------- */

/* It has ended by itself, after `lived`. */
static void program_respawn(struct stk_program *p, pid_t pid, const char *how, bool clean,
                            stk_msec lived)
{
    struct stk_master *m = p->child.master;
    enum stk_log_level level = clean ? STK_LOG_WARNING : STK_LOG_ERROR;

    if (p->spec->vital) {
        stk_log(level, "%s (%d) %s after %.1f s: the server stops with it", p->name, (int)pid, how,
                (double)lived / 1000);
        stk_master_stop(m, false);
        return;
    }
    if (lived >= PROGRAM_LONG_LIFE_MS && lived >= p->backoff) {
        p->backoff = 0;
        stk_log(level, "%s (%d) %s after %.1f s: it is started again", p->name, (int)pid, how,
                (double)lived / 1000);
        stk_program_start(p);
        return;
    }
    (void)program_back_off(p);
    stk_log(level, "%s (%d) %s after %.1f s: it is started again in %.1f s", p->name, (int)pid, how,
            (double)lived / 1000, (double)p->backoff / 1000);
    program_wait(p, p->backoff);
}

static void program_on_gone(struct stk_child *c, int status)
{
    struct stk_program *p = stk_container_of(c, struct stk_program, child);
    STK_CLEANUP(stk_mem_freep) char *how = stk_reap_describe(status);
    bool clean = status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    pid_t pid = p->child.gone;
    stk_msec lived = stk_child_age(c);

    if (c->master->beside.ending) {
        stk_log_info("%s (%d) has ended: it %s", p->name, (int)pid, how);
        if (p->leaving > 0 && clean)
            stk_program_look(p);
        else
            p->leaving = 0;
    } else if (p->restart) {
        stk_log_info("%s (%d) %s, as it was told to: it is started again", p->name, (int)pid, how);
        p->backoff = 0;
        stk_program_start(p);
    } else if (p->spec->task != NULL && clean && !p->spec->vital) {
        /* It has done its most, as it was told to. */
        stk_log_info("%s (%d) has ended after %.1f s: it is started again", p->name, (int)pid,
                     (double)lived / 1000);
        p->backoff = 0;
        stk_program_start(p);
    } else if (p->spec->background && clean) {
        p->expecting = stk_time_mono_ns();
        stk_program_look(p);
    } else {
        program_respawn(p, pid, how, clean, lived);
    }
}

static void program_let_go(struct stk_program *p)
{
    stk_child_forget(&p->child);
    p->found = 0;
    p->expecting = p->leaving = 0;
}

void stk_program_look(struct stk_program *p)
{
    const struct stk_program_spec *spec = p->spec;
    stk_nsec now = stk_time_mono_ns();
    pid_t pid;

    if (p->leaving > 0) {
        if (program_find(p, NULL) > 0 || now - p->leaving >= spec->pidfile_wait * STK_NSEC_PER_MSEC)
            program_let_go(p);
        return;
    }
    if (spec->pidfile == NULL || p->child.master->beside.ending || p->waits ||
        stk_child_is_there(&p->child) || (p->found == 0 && p->expecting == 0))
        return;
    pid = program_find(p, NULL);
    if (pid > 0 && pid == p->found)
        return;
    if (pid > 0) {
        stk_log_info("%s is process %d, as %s says", p->name, (int)pid, spec->pidfile);
        program_take_found(p, pid);
    } else if (p->found > 0) {
        pid = p->found;
        p->found = 0;
        if (p->restart)
            stk_program_start(p);
        else
            program_respawn(p, pid, "is gone", false,
                            (stk_msec)((now - p->since) / STK_NSEC_PER_MSEC));
    } else if (now - p->expecting >= spec->pidfile_wait * STK_NSEC_PER_MSEC) {
        stk_msec pause = program_back_off(p);

        p->expecting = 0;
        stk_log_error("%s went into the background and %s names no process %.0f s later: it is "
                      "started again in %.1f s",
                      p->name, spec->pidfile, (double)spec->pidfile_wait / 1000,
                      (double)pause / 1000);
        program_wait(p, pause);
    }
}

/* --- by order --------------------------------------------------------------------------------- */

/* The process that is signalled where there is a pidfile. */
static pid_t program_own(const struct stk_program *p)
{
    return p->found > 0 ? p->found : p->child.pid;
}

static void program_signal(const struct stk_program *p, int sig)
{
    bool trusted = false;

    if (p->found == 0) {
        stk_child_signal(&p->child, sig);
    } else if (p->found != program_find(p, &trusted) || !trusted) {
        stk_log_warning("%s (%d) is not signalled: %s is gone, or is not the server's user's",
                        p->name, (int)p->found, p->spec->pidfile);
    } else if (kill(p->found, sig) < 0) {
        stk_log_warning("%s (%d) cannot be signalled: %m", p->name, (int)p->found);
    }
}

void stk_program_stop(struct stk_program *p, stk_msec most, bool upgraded)
{
    stk_timer_stop(p->child.master->loop, &p->again);
    p->waits = false;
    if (p->spec->pidfile == NULL) {
        stk_child_stop(&p->child, p->spec->stop_signal,
                       p->spec->grace < most ? p->spec->grace : most);
        return;
    }
    if (p->spec->notify && !upgraded && program_own(p) > 0) {
        stk_log_info("%s (%d) is told that the server ends", p->name, (int)program_own(p));
        program_signal(p, p->spec->stop_signal);
    }
    /* The server that follows would not find it yet, and start another one. */
    if (upgraded && p->spec->background && (p->child.pid > 0 || p->expecting > 0))
        p->leaving = stk_time_mono_ns();
    else
        program_let_go(p);
}

void stk_program_restart(struct stk_program *p, const char *why)
{
    if (p->waits) {
        stk_timer_set(p->child.master->loop, &p->again, 0);
        return;
    }
    if (program_own(p) <= 0)
        return;
    stk_log_info("%s (%d) is started again: %s", p->name, (int)program_own(p), why);
    p->restart = true;
    if (p->found > 0)
        program_signal(p, p->spec->stop_signal);
    else
        stk_child_stop(&p->child, p->spec->stop_signal, p->spec->grace);
}

void stk_program_on_reload(struct stk_program *p)
{
    if (p->spec->reload == STK_PROGRAM_RESTART)
        stk_program_restart(p, "the server is reloaded");
    else if (p->spec->reload == STK_PROGRAM_SIGNAL && program_own(p) > 0)
        program_signal(p, p->spec->reload_signal);
}

const char *stk_program_state(const struct stk_program *p)
{
    if (p->child.asked && stk_child_is_there(&p->child))
        return "stopping";
    if (program_own(p) > 0 || stk_child_is_there(&p->child))
        return "running";
    if (p->expecting > 0)
        return "starting";
    return p->waits ? "waiting" : "stopped";
}

void stk_program_init(struct stk_program *p, struct stk_master *m,
                      const struct stk_program_spec *spec)
{
    p->spec = spec;
    p->name = stk_mem_printf("program %s", spec->name);
    stk_child_init(&p->child, m, spec->name, program_on_gone, spec->stop_signal, spec->grace);
    stk_timer_init(&p->again, program_on_again);
}

void stk_program_deinit(struct stk_program *p)
{
    stk_timer_stop(p->child.master->loop, &p->again);
    stk_child_forget(&p->child);
    free(p->name);
}
