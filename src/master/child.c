/*
 * Commands beside the workers.
 *
 * Each has a session of its own, so a signal of the terminal does not reach it: when it ends is the
 * master's to say, which signals its whole group. It is gone when the group is: the master is the
 * reaper of what its children leave behind, so that waiting for the group tells, and a group with
 * somebody in it keeps its number, so that no signal can meet strangers.
 *
 * The kernel kills its first process when the master dies, however (PR_SET_PDEATHSIG; that the
 * master is there still is looked at behind it), and the guard kills the others of its group
 * (guard.c). Those that outlive the server have none of this.
 *
 * What it prints comes through a pipe and becomes lines of the log. The pipe is read a piece a
 * turn, and left alone for a while when there is too much of it: then the one who prints waits, and
 * the master does not.
 */
#include "master/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/owner.h"
#include "master/master_priv.h"

enum {
    CHILD_PIECE = 4096,         /* bytes of output a turn */
    CHILD_WINDOW_MS = 100,      /* in which at most ... */
    CHILD_WINDOW_BYTES = 65536, /* ... so many are read */
    CHILD_LAST_PIECES = 32,     /* of one that has ended */
    CHILD_EXIT = 127,           /* as of a shell that cannot execute */
};

/* --- the child's side ------------------------------------------------------------------------- */

STK_NORETURN static void child_fail(const char *what, int error)
{
    dprintf(STDERR_FILENO, "%s: %s\n", what, strerror(error));
    _exit(CHILD_EXIT);
}

void stk_child_close_all(void)
{
    long max;

#ifdef SYS_close_range
    if (syscall(SYS_close_range, 3U, ~0U, 0U) == 0)
        return;
#endif
    max = sysconf(_SC_OPEN_MAX);
    for (int fd = 3; fd < (max > 0 && max < 65536 ? max : 65536); fd++)
        (void)close(fd);
}

/* Signals as a program expects them: none handled, ignored or blocked. */
static void child_reset_signals(void)
{
    struct sigaction sa = {.sa_handler = SIG_DFL};
    sigset_t none;

    sigemptyset(&sa.sa_mask);
    for (int sig = 1; sig < NSIG; sig++)
        if (sig != SIGKILL && sig != SIGSTOP && sigaction(sig, &sa, NULL) < 0) {
            /* libc keeps two of them for itself. */
        }
    sigemptyset(&none);
    if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
        child_fail("signals", errno);
}

static void child_become(const struct stk_child_params *params)
{
    STK_CLEANUP(stk_owner_deinit) struct stk_owner user = {.uid = geteuid(), .gid = getegid()};
    gid_t gid;

    if (params->user == NULL && params->group == NULL)
        return;
    if (params->user != NULL && stk_owner_find_user(params->user, &user) < 0)
        child_fail(params->user, ENOENT);
    gid = user.gid;
    if (params->group != NULL && stk_owner_find_group(params->group, &gid) < 0)
        child_fail(params->group, ENOENT);
    if (gid == (gid_t)-1)
        child_fail("a user that is in no database needs a group", EINVAL);
    if (user.uid == geteuid() && gid == getegid())
        return;
    if ((user.name == NULL || initgroups(user.name, gid) < 0) && setgroups(1, &gid) < 0)
        child_fail("groups", errno);
    if (setresgid(gid, gid, gid) < 0 || setresuid(user.uid, user.uid, user.uid) < 0)
        child_fail("user", errno);
}

static void child_write_pidfile(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);

    if (fd < 0 || dprintf(fd, "%d\n", (int)getpid()) < 0)
        child_fail(path, errno);
    (void)close(fd);
}

static void child_take_descriptors(const struct stk_child_params *params, int output)
{
    int input = params->input;

    if (input < 0)
        input = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (output >= 0 && (dup2(output, STDOUT_FILENO) < 0 || dup2(output, STDERR_FILENO) < 0))
        _exit(CHILD_EXIT);
    if (input < 0 || (input != STDIN_FILENO && dup2(input, STDIN_FILENO) < 0))
        child_fail("standard input", errno);
}

/* Dies with the master; behind a change of user, which takes that back. */
static void child_bind_to(pid_t master)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        child_fail("death signal", errno);
    if (getppid() != master)
        _exit(CHILD_EXIT);
}

/* A process as a worker is one: it goes on in the master's image. */
STK_NORETURN static void child_run_task(struct stk_child *c, const struct stk_child_params *params,
                                        pid_t master, int output)
{
    child_take_descriptors(params, output); /* what it logs goes where workers log */
    if (setsid() < 0)
        child_fail("session", errno);
    child_bind_to(master);
    stk_spawn_run_task(c->master, c->name, params->task);
}

STK_NORETURN static void child_exec(const struct stk_child_params *params, pid_t master, int output)
{
    child_take_descriptors(params, output);
    stk_child_close_all();
    if (setsid() < 0)
        child_fail("session", errno);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): this process has one thread */
    for (size_t i = 0; params->env != NULL && i < params->env->n; i++)
        if (putenv(params->env->items[i]) != 0)
            child_fail("environment", errno);
    if (params->directory != NULL && chdir(params->directory) < 0)
        child_fail(params->directory, errno);
    child_become(params);
    if (params->pidfile != NULL)
        child_write_pidfile(params->pidfile);
    if (!params->outlives)
        child_bind_to(master);
    child_reset_signals();
    execl("/bin/sh", "sh", "-c", params->command, (char *)NULL);
    child_fail("/bin/sh", errno);
}

/* --- output ----------------------------------------------------------------------------------- */

static void child_log_line(struct stk_child *c)
{
    if (c->nline > 0)
        stk_log_info("%s: %.*s", c->name, (int)c->nline, c->line);
    c->nline = 0;
}

static void child_take(struct stk_child *c, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\n') {
            child_log_line(c);
            continue;
        }
        if (c->nline == sizeof c->line)
            child_log_line(c);
        if (text[i] != '\r' && text[i] != '\0')
            c->line[c->nline++] = text[i];
    }
}

static void child_close_output(struct stk_child *c)
{
    if (c->output.fd >= 0) {
        stk_loop_del(c->master->loop, &c->output);
        stk_fd_close(&c->output.fd);
    }
    stk_timer_stop(c->master->loop, &c->pause);
    child_log_line(c);
}

/* One piece. False: there is no more now. */
static bool child_read(struct stk_child *c)
{
    char buf[CHILD_PIECE];
    ssize_t n;

    if (c->output.fd < 0)
        return false;
    do
        n = read(c->output.fd, buf, sizeof buf);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) {
        child_close_output(c);
        return false;
    }
    child_take(c, buf, (size_t)n);
    c->taken += (size_t)n;
    return true;
}

/* What is there still of one that has ended, within bounds. */
static void child_read_last(struct stk_child *c)
{
    for (unsigned i = 0; i < CHILD_LAST_PIECES && child_read(c); i++) {
    }
}

static void child_on_output(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_child *c = stk_container_of(src, struct stk_child, output);
    stk_msec now = stk_loop_now(c->master->loop);

    STK_CHECK_MAGIC(c, STK_CHILD_MAGIC);
    if (now - c->window >= CHILD_WINDOW_MS) {
        c->window = now;
        c->taken = 0;
    }
    if (!child_read(c) || c->taken < CHILD_WINDOW_BYTES)
        return;
    stk_loop_del(c->master->loop, src);
    stk_timer_set(c->master->loop, &c->pause, CHILD_WINDOW_MS);
}

static void child_on_pause(struct stk_timer *timer, void *who)
{
    struct stk_child *c = stk_container_of(timer, struct stk_child, pause);

    if (c->output.fd >= 0 && stk_loop_add(c->master->loop, &c->output, EPOLLIN) < 0)
        child_close_output(c);
}

/* --- the master's side ------------------------------------------------------------------------ */

void stk_child_signal(const struct stk_child *c, int sig)
{
    if (c->group == 0 || kill(-c->group, sig) == 0)
        return;
    /* It has not made its group yet. */
    if (errno == ESRCH && c->pid > 0 && kill(c->pid, sig) == 0)
        return;
    stk_log_warning("%s (%d) cannot be signalled: %m", c->name, (int)c->group);
}

static void child_clear(struct stk_child *c)
{
    stk_timer_stop(c->master->loop, &c->deadline);
    child_close_output(c);
    stk_guard_remove(c->master, c->group);
    stk_list_remove(&c->link);
    c->gone = c->group;
    c->pid = c->group = 0;
}

static void child_on_deadline(struct stk_timer *timer, void *who)
{
    struct stk_child *c = stk_container_of(timer, struct stk_child, deadline);

    if (c->group == 0)
        return;
    if (c->pid > 0)
        stk_log_warning("%s (%d) does not end: it is killed", c->name, (int)c->pid);
    else
        stk_log_warning("%s: processes that it has left behind do not end: they are killed",
                        c->name);
    c->killed = true;
    if (kill(-c->group, SIGKILL) == 0 || errno != EPERM) {
        stk_child_signal(c, SIGKILL);
        return;
    }
    stk_log_error("%s (%d) cannot be killed: it has become another user's", c->name, (int)c->group);
    c->asked = c->killed = false;
    /* A server that ends does not wait for it. */
    if (c->master->beside.ending) {
        child_clear(c);
        c->fn(c, -1);
    }
}

void stk_child_stop(struct stk_child *c, int sig, stk_msec grace)
{
    if (c->group == 0 || c->killed)
        return;
    if (!c->asked || sig == SIGKILL)
        stk_child_signal(c, sig);
    /* A process that has been stopped (SIGSTOP) hears of it only when it goes on. */
    if (!c->asked && sig != SIGKILL)
        stk_child_signal(c, SIGCONT);
    c->killed = sig == SIGKILL;
    if (!c->killed && (!c->asked || c->deadline.deadline > stk_loop_now(c->master->loop) + grace))
        stk_timer_set(c->master->loop, &c->deadline, grace);
    c->asked = true;
}

void stk_child_forget(struct stk_child *c)
{
    if (c->group != 0)
        child_clear(c);
}

void stk_child_init(struct stk_child *c, struct stk_master *m, const char *name, stk_child_fn fn,
                    int stop_signal, stk_msec grace)
{
    *c = (struct stk_child){
        .magic = STK_CHILD_MAGIC,
        .master = m,
        .name = name,
        .fn = fn,
        .stop_signal = stop_signal,
        .grace = grace,
        .output = {.fn = child_on_output, .fd = -1},
    };
    stk_list_init(&c->link);
    stk_timer_init(&c->deadline, child_on_deadline);
    stk_timer_init(&c->pause, child_on_pause);
}

/*
 * The pipe of what it prints; *ret_output is the end for the child, -1 for a task, which prints as
 * a worker does. 0 or a negative errno.
 */
static int child_pipe(struct stk_child *c, const struct stk_child_params *params, int *ret_output)
{
    int fds[2], r;

    if (params->task != NULL)
        return 0;
    if (params->outlives) {
        /* Not the pipe that the master reads: that ends with it. */
        const struct stk_master_logs *logs = &c->master->logs;
        int fd = logs->fan != NULL && logs->err >= 0 ? logs->err : stk_log_fd();

        *ret_output = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return *ret_output < 0 ? -errno : 0;
    }
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    c->output.fd = fds[0];
    *ret_output = fds[1];
    r = stk_fd_set_nonblock(fds[0], true);
    return r < 0 ? r : stk_loop_add(c->master->loop, &c->output, EPOLLIN);
}

int stk_child_start(struct stk_child *c, const struct stk_child_params *params)
{
    STK_CLEANUP(stk_fd_closep) int output = -1;
    pid_t master = getpid();
    pid_t pid = -1;
    int r;

    STK_ASSERT(c->group == 0);
    r = child_pipe(c, params, &output);
    if (r == 0) {
        pid = params->task != NULL ? stk_spawn_fork(c->master) : fork();
        if (pid == 0 && params->task != NULL)
            child_run_task(c, params, master, output);
        if (pid == 0)
            child_exec(params, master, output);
        r = pid < 0 ? -errno : 0;
    }
    if (r < 0) {
        child_close_output(c);
        return r;
    }
    c->pid = c->group = pid;
    c->status = -1;
    c->started = stk_time_mono_ns();
    c->outlives = params->outlives;
    c->asked = c->killed = false;
    c->taken = 0;
    stk_list_append(&c->master->children, &c->link);
    if (!c->outlives)
        stk_guard_add(c->master, c->group);
    return 0;
}

bool stk_child_is_there(const struct stk_child *c)
{
    return c->group != 0;
}

stk_msec stk_child_age(const struct stk_child *c)
{
    return (stk_msec)((stk_time_mono_ns() - c->started) / STK_NSEC_PER_MSEC);
}

bool stk_child_is_ours(const struct stk_master *m, pid_t pid)
{
    if (m->beside.guard == pid)
        return true;
    stk_list_for_each (it, &m->children) {
        if (stk_container_of(it, struct stk_child, link)->pid == pid)
            return true;
    }
    return false;
}

/* Whether nobody of its group is left; says who is left to end. */
static bool child_is_group_gone(struct stk_child *c)
{
    pid_t r;

    if (c->outlives)
        return true;
    do
        r = waitpid(-c->group, NULL, WNOHANG);
    while (r > 0);
    if (r < 0)
        return true;
    stk_child_stop(c, c->stop_signal, c->grace);
    return false;
}

/* Whether one has gone since the last look, with all that belongs to it. */
static bool child_has_gone(struct stk_child *c)
{
    if (c->pid > 0) {
        pid_t r = waitpid(c->pid, &c->status, WNOHANG);

        if (r != c->pid && !(r < 0 && errno == ECHILD))
            return false;
        if (r != c->pid)
            c->status = -1;
        c->pid = 0;
        child_read_last(c);
    }
    return child_is_group_gone(c);
}

static struct stk_child *child_next_gone(struct stk_master *m)
{
    stk_list_for_each (it, &m->children) {
        struct stk_child *c = stk_container_of(it, struct stk_child, link);

        STK_CHECK_MAGIC(c, STK_CHILD_MAGIC);
        if (child_has_gone(c))
            return c;
    }
    return NULL;
}

void stk_child_reap(struct stk_master *m)
{
    struct stk_child *c;

    stk_guard_reap(m);
    while ((c = child_next_gone(m)) != NULL) {
        child_read_last(c);
        child_clear(c);
        c->fn(c, c->status);
    }
}

void stk_child_leave(struct stk_master *m)
{
    stk_list_for_each (it, &m->children) {
        stk_fd_close(&stk_container_of(it, struct stk_child, link)->output.fd);
    }
}
