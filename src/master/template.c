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
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
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
        .transfer = m->transfer,
        .row = &m->scoreboard->rows[msg->value],
        .tls = m->tls.store,
        .tickets = m->tls.tickets,
        .slot = msg->slot,
        .nworkers = m->params->nworkers,
        .generation = (uint32_t)m->scoreboard->rows[msg->value].generation,
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

/*
 * Forks twice. True in the grandchild, whose parent *ret_between ends at once. A failure is heard
 * by the master as the end of the channel.
 */
static bool template_fork_twice(const struct template *t, const char *what, pid_t *ret_between)
{
    const struct stk_master_params *params = t->master->params;
    pid_t pid;
    int status;

    if (params->fork_prepare != NULL)
        params->fork_prepare(params->fork_arg);
    pid = fork();
    if (pid == 0) {
        *ret_between = getpid();
        pid = fork();
        if (pid != 0) {
            if (pid < 0)
                stk_log_error("%s cannot be forked: %m", what);
            _exit(0);
        }
        if (params->fork_child != NULL)
            params->fork_child(params->fork_arg);
        return true;
    }
    if (pid < 0)
        stk_log_error("%s cannot be forked: %m", what);
    if (params->fork_parent != NULL)
        params->fork_parent(params->fork_arg);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return false;
}

/* Forks the worker that the master asks for. */
static void template_fork(struct template *t, struct stk_message *msg)
{
    STK_CLEANUP(stk_fd_closep) int channel = msg->fd;
    char name[32];
    pid_t between;

    if (msg->slot >= t->master->params->nworkers || msg->value < 0 ||
        msg->value >= t->master->scoreboard->nrows)
        return;
    (void)snprintf(name, sizeof name, "worker %u", msg->slot + 1);
    if (template_fork_twice(t, name, &between))
        template_become_worker(t, msg, stk_fd_steal(&channel), between);
}

/* Waits for a message. False: the master is gone, or does not speak sense. */
static bool template_receive(const struct template *t, struct stk_message *msg)
{
    for (;;) {
        struct pollfd pfd = {.fd = t->channel, .events = POLLIN};
        int r = stk_channel_recv(t->channel, STK_CHANNEL_TEMPLATE, msg);

        if (r != -EAGAIN)
            return r == 0;
        if (poll(&pfd, 1, -1) < 0 && errno != EINTR)
            return false;
    }
}

/* Imports what a file names, one module a line. */
static void template_import(struct template *t, int file)
{
    const struct stk_master_params *params = t->master->params;
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    STK_CLEANUP(stk_mem_freep) const char **names = NULL;
    size_t len, n = 0;
    char *save = NULL;

    if (params->template_import == NULL || stk_channel_read_sources(file, &text, &len) < 0)
        return;
    names = stk_new0_array(const char *, len / 2 + 2);
    for (char *name = strtok_r(text, "\n", &save); name != NULL; name = strtok_r(NULL, "\n", &save))
        names[n++] = name;
    params->template_import(params->template_arg, names);
}

STK_NORETURN static void template_live(struct template *t);

/* A new template, forked from this one: it imports what workers have imported. */
static void template_refork(struct template *t, struct stk_message *msg)
{
    STK_CLEANUP(stk_fd_closep) int channel = msg->fd;
    struct stk_message modules = {.fd = -1};
    pid_t between;

    if (!template_fork_twice(t, "the template", &between))
        return;
    stk_fd_close(&t->channel);
    t->channel = stk_fd_steal(&channel);
    template_await_adoption(between);
    if (stk_channel_send_simple(t->channel, STK_MESSAGE_FORKED, 0, getpid()) < 0 ||
        !template_receive(t, &modules) || modules.type != STK_MESSAGE_MODULES)
        _exit(STK_MASTER_EXIT_OK); /* the master is gone, or stops */
    template_import(t, modules.fd);
    stk_fd_close(&modules.fd);
    template_live(t);
}

/* Forks until the master says STOP or is gone. */
static void template_serve(struct template *t)
{
    struct stk_message msg;

    while (template_receive(t, &msg)) {
        if (msg.type == STK_MESSAGE_FORK)
            template_fork(t, &msg);
        else if (msg.type == STK_MESSAGE_REFORK)
            template_refork(t, &msg);
        else if (msg.type == STK_MESSAGE_REOPEN)
            stk_log_reopen();
        else if (msg.type == STK_MESSAGE_STOP)
            return;
        else if (msg.type == STK_MESSAGE_CERTS)
            stk_tls_take(t->master, msg.fd);
        if (msg.type != STK_MESSAGE_FORK && msg.type != STK_MESSAGE_REFORK)
            stk_fd_close(&msg.fd);
    }
}

/* From the moment in which everything is loaded. */
static void template_live(struct template *t)
{
    const struct stk_master_params *params = t->master->params;

    if (params->template_freeze != NULL)
        params->template_freeze(params->template_arg);
    if (stk_channel_send_simple(t->channel, STK_MESSAGE_READY, 0, getpid()) == 0)
        template_serve(t);
    if (params->template_unload != NULL)
        params->template_unload(params->template_arg);
    _exit(STK_MASTER_EXIT_OK);
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
    template_live(&t);
}
