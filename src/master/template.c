/*
 * The life of a template: a process that has the application loaded and does nothing but fork
 * workers from itself, so that their memory is shared until it is written.
 *
 * It is a process of its own because an application cannot be loaded a second time beside itself:
 * a reload is a new template, and the master never runs a line of the application. Threads that the
 * application started while loading do not reach the workers; the host's freeze warns of them.
 *
 * A worker is forked twice and its parent ends at once, whereby the master, the reaper of its
 * descendants, becomes its parent. The worker waits for that before it says its process id.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "master/master_priv.h"

/* How long a worker waits to become the master's child, in steps of 0.1 ms. */
#define TEMPLATE_ADOPT_STEPS 50000

struct template
{
    struct stk_master *master;
    int channel;
};

static void template_send_sources(struct template *t)
{
    const struct stk_master_params *params = t->master->params;
    char **paths;
    int r;

    if (!t->master->config->autoreload || params->template_sources == NULL)
        return;
    paths = params->template_sources(params->template_arg);
    if (paths == NULL)
        return;
    r = stk_channel_send_sources(t->channel, (const char *const *)paths);
    if (r < 0) {
        errno = -r;
        stk_log_warning("autoreload: the list of source files was not sent: %m");
    }
    for (char **p = paths; *p != NULL; p++)
        free(*p);
    free(paths);
}

/* In the worker: waits until its parent is not the process that forked it. */
static void template_await_adoption(pid_t between)
{
    const struct timespec step = {.tv_nsec = 100000};

    for (int i = 0; getppid() == between && i < TEMPLATE_ADOPT_STEPS; i++)
        (void)nanosleep(&step, NULL);
}

STK_NORETURN static void template_become_worker(struct template *t, const struct stk_message *msg,
                                                int channel, pid_t between)
{
    struct stk_master *m = t->master;
    char name[32];
    struct stk_heritage heritage = {
        .config = m->config,
        .listeners = m->listeners.items,
        .nlisteners = m->listeners.n,
        .scoreboard = m->scoreboard,
        .row = &m->scoreboard->rows[msg->value],
        .slot = msg->slot,
        .nworkers = m->params->nworkers,
        .generation = m->generation,
        .channel = channel,
        .preloaded = true,
    };

    stk_fd_close(&t->channel);
    (void)snprintf(name, sizeof name, "worker %u", msg->slot + 1);
    stk_spawn_set_name(m->config, name);
    template_await_adoption(between);
    if (stk_channel_send_simple(channel, STK_MESSAGE_FORKED, msg->slot, getpid()) < 0)
        _exit(STK_MASTER_EXIT_OK); /* the master is gone */
    stk_spawn_run_worker(m, &heritage);
}

/* Forks the worker that the master asks for; a failure is heard as the end of its channel. */
static void template_fork(struct template *t, struct stk_message *msg)
{
    const struct stk_master_params *params = t->master->params;
    STK_CLEANUP(stk_fd_closep) int channel = msg->fd;
    pid_t pid;
    int status;

    if (msg->slot >= params->nworkers || msg->value < 0 ||
        msg->value >= t->master->scoreboard->nrows)
        return;
    if (params->fork_prepare != NULL)
        params->fork_prepare(params->fork_arg);
    pid = fork();
    if (pid == 0) {
        pid_t between = getpid();

        pid = fork();
        if (pid != 0) {
            if (pid < 0)
                stk_log_error("worker %u cannot be forked: %m", msg->slot + 1);
            _exit(0);
        }
        if (params->fork_child != NULL)
            params->fork_child(params->fork_arg);
        template_become_worker(t, msg, stk_fd_steal(&channel), between);
    }
    if (pid < 0)
        stk_log_error("worker %u cannot be forked: %m", msg->slot + 1);
    if (params->fork_parent != NULL)
        params->fork_parent(params->fork_arg);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
}

/* Forks until the master says STOP or is gone. */
static void template_serve(struct template *t)
{
    struct stk_message msg;
    int r;

    for (;;) {
        struct pollfd pfd = {.fd = t->channel, .events = POLLIN};

        r = stk_channel_recv(t->channel, STK_CHANNEL_TEMPLATE, &msg);
        if (r == -EAGAIN) {
            if (poll(&pfd, 1, -1) < 0 && errno != EINTR)
                return;
            continue;
        }
        if (r != 0)
            return;
        if (msg.type == STK_MESSAGE_FORK)
            template_fork(t, &msg);
        else if (msg.type == STK_MESSAGE_REOPEN)
            stk_log_reopen();
        else if (msg.type == STK_MESSAGE_STOP)
            return;
    }
}

void stk_template_run(struct stk_master *m, int channel)
{
    const struct stk_master_params *params = m->params;
    struct template t = {.master = m, .channel = channel};
    STK_CLEANUP(stk_fd_closep) int errors = memfd_create("failure", MFD_CLOEXEC);
    int code;

    stk_log_tee(errors);
    code = params->template_load(params->template_arg);
    stk_log_tee(-1);
    template_send_sources(&t);
    if (code != 0) {
        if (stk_channel_send_failure(channel, 0, code, errors) < 0) {
            /* The exit code says the same. */
        }
        _exit(code);
    }
    stk_fd_close(&errors);
    if (params->template_freeze != NULL)
        params->template_freeze(params->template_arg);
    if (stk_channel_send_simple(channel, STK_MESSAGE_READY, 0, getpid()) == 0)
        template_serve(&t);
    if (params->template_unload != NULL)
        params->template_unload(params->template_arg);
    _exit(STK_MASTER_EXIT_OK);
}
