/*
 * Forking.
 *
 * The master makes the channel, then either forks the worker itself, or sends the worker's end of
 * the channel to the template, which forks twice so that the worker becomes the master's child. The
 * worker names its process id on its own channel: a report by the template could be lost with it.
 *
 * A child first undoes what the master did to the process: descriptors, signals, name. Between that
 * and the worker's own handlers INT, TERM and HUP do nothing, because a terminal or a service
 * manager sends them to the whole group while stopping is the master's to order. They are caught
 * and not ignored, so that what the application executes finds them at their defaults. A task is
 * stopped by TERM at any time, and has nothing to finish before it handles that.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/title.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "ipc/transfer.h"
#include "master/control.h"
#include "master/master_priv.h"
#include "master/watch.h"
#include "services/caches.h"

static void spawn_on_ignored(int sig)
{
}

/* `ends`: a process that SIGTERM and SIGINT end until it handles them itself. */
static void spawn_restore_signals(struct stk_master *m, bool ends)
{
    static const int ours[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
    struct sigaction sa = {.sa_handler = spawn_on_ignored, .sa_flags = SA_RESTART};

    sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < STK_ARRAY_LEN(ours); i++)
        STK_ASSERT(sigaction(ours[i], &sa, NULL) == 0);
    /* Before they are let in: what has come since the fork counts. */
    if (ends)
        STK_ASSERT(signal(SIGTERM, SIG_DFL) != SIG_ERR && signal(SIGINT, SIG_DFL) != SIG_ERR);
    STK_ASSERT(sigaction(SIGCHLD, &m->saved_chld, NULL) == 0);
    STK_ASSERT(sigaction(SIGPIPE, &m->saved_pipe, NULL) == 0);
    STK_ASSERT(sigprocmask(SIG_SETMASK, &m->saved_mask, NULL) == 0);
}

void stk_spawn_set_name(const struct stk_config *config, const char *name)
{
    const char *server = config->name != NULL && *config->name != '\0' ? config->name : "stoker";
    char title[16];

    /* The kernel keeps 15 bytes: "stoker w12", "stoker template". */
    if (strncmp(name, "worker ", 7) == 0)
        (void)snprintf(title, sizeof title, "%.6s w%.6s", server, name + 7);
    else
        (void)snprintf(title, sizeof title, "%.6s %.8s", server, name);
    stk_title_set_role(config->name, name, stk_config_app_name(config), NULL);
    if (prctl(PR_SET_NAME, title) < 0) {
        /* Only the name in ps. */
    }
    stk_log_set_process(name);
}

static void spawn_setup(struct stk_master *m, int keep, const char *name, bool ends)
{
    stk_list_for_each (it, &m->procs) {
        struct stk_proc *p = stk_container_of(it, struct stk_proc, link);

        if (p->channel.fd != keep)
            stk_fd_close(&p->channel.fd);
    }
    /* Closing is all: epoll_ctl here would act on the master's set, which is shared. */
    stk_fd_close(&m->signals.fd);
    if (m->watch != NULL)
        stk_watch_close(m->watch);
    stk_tls_leave(m);
    stk_fd_close(&m->pidfile.fd);
    stk_fifo_leave(m);
    stk_notify_close(m);
    stk_upgrade_close(m);
    stk_control_forget(m);
    stk_report_leave(m);
    stk_caches_leave(m->caches);
    stk_beside_leave(m);
    stk_logs_leave(m);
    m->loop = stk_loop_free(m->loop);
    spawn_restore_signals(m, ends);
    stk_spawn_set_name(m->config, name);
}

void stk_spawn_child_setup(struct stk_master *m, int keep, const char *name)
{
    spawn_setup(m, keep, name, false);
}

void stk_spawn_run_worker(struct stk_master *m, const struct stk_heritage *heritage)
{
    struct stk_heritage h = *heritage;

    _exit(m->params->worker_main(m->params->worker_arg, &h));
}

void stk_spawn_run_task(struct stk_master *m, const char *name, const char *task)
{
    spawn_setup(m, -1, name, true);
    stk_listen_set_close(&m->listeners);
    m->transfer = stk_transfer_free(m->transfer);
    _exit(m->params->task_main(m->params->task_arg, task));
}

pid_t stk_spawn_fork(struct stk_master *m)
{
    const struct stk_master_params *params = m->params;
    pid_t pid;
    int r;

    if (params->fork_prepare != NULL)
        params->fork_prepare(params->fork_arg);
    pid = fork();
    r = pid < 0 ? -errno : 0;
    if (pid == 0) {
        if (params->fork_child != NULL)
            params->fork_child(params->fork_arg);
        return 0;
    }
    if (params->fork_parent != NULL)
        params->fork_parent(params->fork_arg);
    return r < 0 ? r : pid;
}

/* In the child of the master. */
STK_NORETURN static void spawn_become_worker(struct stk_master *m, unsigned slot, int row,
                                             int channel)
{
    char name[32];
    struct stk_heritage heritage = {
        .config = m->config,
        .listeners = m->listeners.items,
        .nlisteners = m->listeners.n,
        .scoreboard = m->scoreboard,
        .transfer = m->transfer,
        .row = &m->scoreboard->rows[row],
        .tls = m->tls.store,
        .tickets = m->tls.tickets,
        .caches = m->caches,
        .slot = slot,
        .nworkers = m->params->nworkers,
        .generation = m->generation,
        .channel = channel,
    };

    (void)snprintf(name, sizeof name, "worker %u", slot + 1);
    stk_spawn_child_setup(m, channel, name);
    stk_spawn_run_worker(m, &heritage);
}

static struct stk_proc *spawn_add_worker(struct stk_master *m, unsigned slot, int row, int channel,
                                         pid_t pid)
{
    struct stk_proc *p = stk_proc_new(m, STK_PROC_WORKER, slot, channel);

    p->row = &m->scoreboard->rows[row];
    p->pid = pid;
    atomic_store_explicit(&p->row->pid, (uint64_t)pid, memory_order_relaxed);
    if (pid == 0)
        p->state = STK_PROC_FORKING;
    return p;
}

int stk_spawn_worker(struct stk_master *m, unsigned slot, struct stk_proc **ret_proc)
{
    STK_CLEANUP(stk_fd_closep) int ours = -1;
    STK_CLEANUP(stk_fd_closep) int theirs = -1;
    int fds[2];
    pid_t pid = 0;
    int row = stk_scoreboard_claim(m->scoreboard, slot, m->generation);
    int r = row;

    if (row < 0)
        return row;
    r = stk_channel_pair(fds);
    if (r == 0) {
        ours = fds[0];
        theirs = fds[1];
        stk_master_tell(m, STK_MASTER_EVENT_FORK, slot + 1, 0);
        if (m->config->preload) {
            const struct stk_message msg = {
                .type = STK_MESSAGE_FORK, .slot = slot, .value = row, .fd = theirs};

            r = stk_channel_send(m->template->channel.fd, &msg);
        } else {
            pid = stk_spawn_fork(m);
            if (pid == 0) {
                stk_fd_close(&ours);
                spawn_become_worker(m, slot, row, stk_fd_steal(&theirs));
            }
            r = pid < 0 ? (int)pid : 0;
        }
    }
    if (r < 0) {
        stk_scoreboard_retire(&m->scoreboard->rows[row]);
        return r;
    }
    *ret_proc = spawn_add_worker(m, slot, row, stk_fd_steal(&ours), pid);
    return 0;
}

int stk_spawn_template(struct stk_master *m, struct stk_proc **ret_proc)
{
    STK_CLEANUP(stk_fd_closep) int ours = -1;
    STK_CLEANUP(stk_fd_closep) int theirs = -1;
    int fds[2];
    pid_t pid;
    int r = stk_channel_pair(fds);

    if (r < 0)
        return r;
    ours = fds[0];
    theirs = fds[1];
    pid = stk_spawn_fork(m);
    if (pid < 0)
        return (int)pid;
    if (pid == 0) {
        stk_fd_close(&ours);
        stk_spawn_child_setup(m, theirs, "template");
        stk_template_run(m, stk_fd_steal(&theirs));
    }
    *ret_proc = stk_proc_new(m, STK_PROC_TEMPLATE, 0, stk_fd_steal(&ours));
    (*ret_proc)->pid = pid;
    return 0;
}

int stk_spawn_refork(struct stk_master *m, int modules, struct stk_proc **ret_proc)
{
    STK_CLEANUP(stk_fd_closep) int ours = -1;
    STK_CLEANUP(stk_fd_closep) int theirs = -1;
    struct stk_message msg = {.type = STK_MESSAGE_MODULES, .fd = modules};
    int fds[2];
    int r = stk_channel_pair(fds);

    if (r < 0)
        return r;
    ours = fds[0];
    theirs = fds[1];
    r = stk_channel_send(ours, &msg); /* it lies there until the new template reads it */
    msg = (struct stk_message){.type = STK_MESSAGE_REFORK, .fd = theirs};
    if (r == 0)
        r = stk_channel_send(m->template->channel.fd, &msg);
    if (r < 0)
        return r;
    *ret_proc = stk_proc_new(m, STK_PROC_TEMPLATE, 0, stk_fd_steal(&ours));
    (*ret_proc)->state = STK_PROC_FORKING;
    return 0;
}
