/*
 * The master: one loop over a signalfd, the channels of the children and, for autoreload, inotify.
 * Nothing here is periodic: an idle server's master sleeps until something happens.
 *
 * It is the process that must never crash, so it does little: no request, no application code, no
 * byte from a client. Everything it learns comes as a signal, a checked message, or the death of a
 * child, and every turn ends with waiting for the dead, so that no order of those events matters.
 */
#include "master/master.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "ipc/transfer.h"
#include "master/control.h"
#include "master/master_priv.h"
#include "master/startup.h"
#include "master/watch.h"

/* From STOP to SIGKILL when the server is to stop now. */
#define MASTER_STOP_NOW_MS 1000
/* Signals to stop that come so soon behind the first are the same wish. */
#define MASTER_SAME_STOP (100 * STK_NSEC_PER_MSEC)

static const int master_signals[] = {SIGTERM, SIGINT,  SIGQUIT, SIGHUP, SIGUSR1,
                                     SIGUSR2, SIGTTIN, SIGTTOU, SIGCHLD};

static const char *master_signal_name(uint32_t number)
{
    switch (number) {
    case SIGTERM:
        return "SIGTERM";
    case SIGINT:
        return "SIGINT";
    default:
        return "SIGQUIT";
    }
}

static void master_stop_proc(struct stk_master *m, struct stk_proc *p, bool now)
{
    if (now)
        stk_proc_stop(p, MASTER_STOP_NOW_MS);
    else if (p->kind == STK_PROC_TEMPLATE)
        stk_proc_stop(p, m->config->exit_timeout);
    else if (p->state < STK_PROC_DRAINING)
        stk_proc_drain(p, m->config->graceful_timeout);
    else if (p->state == STK_PROC_DRAINING)
        stk_proc_drain_on(p);
}

/*
 * Applies to all children. What they have said is heard first: one that has become ready a moment
 * ago may have accepted connections, and is drained like the others.
 */
static void master_stop_procs(struct stk_master *m, bool now)
{
    stk_list_for_each_safe (it, &m->procs) {
        struct stk_proc *p = stk_container_of(it, struct stk_proc, link);

        if (p->state < STK_PROC_READY)
            stk_proc_hear(p);
    }
    stk_list_for_each (it, &m->procs) {
        master_stop_proc(m, stk_container_of(it, struct stk_proc, link), now);
    }
}

void stk_master_tell(struct stk_master *m, enum stk_master_event event, unsigned number, pid_t pid)
{
    int code = 0;

    if (m->params->on_event != NULL) {
        stk_logs_lend(m);
        code = m->params->on_event(m->params->on_event_arg, event, number, pid);
        stk_logs_return(m);
    }
    if (code != 0 && event == STK_MASTER_EVENT_START)
        stk_master_fail(m, code);
}

void stk_master_stop(struct stk_master *m, bool now)
{
    if (m->stopping >= (now ? 2 : 1))
        return;
    m->stopping = now ? 2 : 1;
    m->waits_for_save = false;
    stk_notify_stopping(m);
    stk_upgrade_on_stop(m);
    stk_reload_on_stop(m);
    stk_scale_on_stop(m);
    master_stop_procs(m, now);
    stk_beside_on_stop(m, now);
    /* What the workers hold stays open until they have taken what is queued. */
    stk_listen_set_close(&m->listeners);
    stk_report_close(m);
}

void stk_master_fail(struct stk_master *m, int exit_code)
{
    if (m->exit_code == STK_MASTER_EXIT_OK)
        m->exit_code = exit_code;
    stk_master_stop(m, true);
}

static void master_on_stop_signal(struct stk_master *m, uint32_t number)
{
    const char *name = master_signal_name(number);

    if (m->finishing && number != SIGQUIT && m->stopping == 1) {
        m->finishing = false; /* the next one is meant */
        m->stop_asked = stk_time_mono_ns();
        stk_log_info("%s: finishing already", name);
        return;
    }
    if (number != SIGQUIT && m->stopping == 1 && m->stop_asked > 0 &&
        stk_time_mono_ns() - m->stop_asked < MASTER_SAME_STOP)
        return; /* one wish: a wrapper passes on what the whole group has got as well */
    if (number == SIGQUIT || m->stopping > 0) {
        if (m->stopping < 2)
            stk_log_warning("%s: stopping now", name);
        stk_master_stop(m, true);
        return;
    }
    m->stop_asked = stk_time_mono_ns();
    stk_log_info("%s: stopping, requests in progress have %.0f s", name,
                 (double)m->config->graceful_timeout / 1000);
    stk_master_stop(m, false);
}

static void master_on_hup(struct stk_master *m, const struct signalfd_siginfo *info)
{
    /* The kernel sends it when the terminal is closed; a person or a tool means a reload. */
    if (info->ssi_code == SI_KERNEL) {
        if (m->hup_ignored)
            return;
        stk_log_info("the terminal was closed: stopping");
        stk_master_stop(m, false);
        return;
    }
    stk_log_info("SIGHUP: restarting the workers");
    stk_reload_rolling(m);
}

void stk_master_reopen_logs(struct stk_master *m)
{
    stk_log_reopen();
    stk_logs_reopen(m);
    stk_list_for_each (it, &m->procs) {
        /* One that a template is to fork yet has its files as they are open there. */
        stk_proc_send(stk_container_of(it, struct stk_proc, link), STK_MESSAGE_REOPEN, 0, 0);
    }
    stk_log_info("the log files are opened again");
}

static void master_on_signal(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_master *m = stk_container_of(src, struct stk_master, signals);
    struct signalfd_siginfo info;

    STK_CHECK_MAGIC(m, STK_MASTER_MAGIC);
    while (read(src->fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo != SIGCHLD && stk_upgrade_forward(m, info.ssi_signo))
            continue;
        switch (info.ssi_signo) {
        case SIGTERM:
        case SIGINT:
        case SIGQUIT:
            master_on_stop_signal(m, info.ssi_signo);
            break;
        case SIGHUP:
            master_on_hup(m, &info);
            break;
        case SIGUSR1:
            stk_master_reopen_logs(m);
            break;
        case SIGUSR2:
            if (stk_upgrade_start(m) < 0) {
                /* The reason has been logged. */
            }
            break;
        case SIGTTIN:
        case SIGTTOU:
            stk_scale_by_one(m, info.ssi_signo == SIGTTIN ? 1 : -1);
            break;
        default: /* SIGCHLD: the end of the turn waits for the dead */
            break;
        }
    }
}

/*
 * From here on they wait until the loop reads them: whoever sees that an address is open, or finds
 * the pidfile, may send one, and the start must neither die of it nor miss it. Only SIGQUIT is left
 * alone still, for a start that hangs at the name of a host.
 */
static void master_hold_signals(struct stk_master *m)
{
    struct sigaction sa = {.sa_handler = SIG_DFL};
    struct sigaction hup;
    sigset_t set;

    sigemptyset(&sa.sa_mask);
    sigemptyset(&set);
    for (size_t i = 0; i < STK_ARRAY_LEN(master_signals); i++)
        sigaddset(&set, master_signals[i]);
    sigdelset(&set, SIGQUIT);
    if (sigaction(SIGHUP, NULL, &hup) == 0)
        m->hup_ignored = hup.sa_handler == SIG_IGN;
    /* An inherited SIG_IGN would let the kernel wait for our children itself. */
    STK_ASSERT(sigaction(SIGCHLD, &sa, &m->saved_chld) == 0);
    sa.sa_handler = SIG_IGN;
    STK_ASSERT(sigaction(SIGPIPE, &sa, &m->saved_pipe) == 0);
    STK_ASSERT(sigprocmask(SIG_BLOCK, &set, &m->saved_mask) == 0);
    m->signals_taken = true;
}

static int master_take_signals(struct stk_master *m)
{
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < STK_ARRAY_LEN(master_signals); i++)
        sigaddset(&set, master_signals[i]);
    STK_ASSERT(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    m->signals.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (m->signals.fd < 0)
        return -errno;
    return stk_loop_add(m->loop, &m->signals, EPOLLIN);
}

void stk_master_restore_signals(struct stk_master *m)
{
    STK_ASSERT(sigaction(SIGCHLD, &m->saved_chld, NULL) == 0);
    STK_ASSERT(sigaction(SIGPIPE, &m->saved_pipe, NULL) == 0);
    STK_ASSERT(sigprocmask(SIG_SETMASK, &m->saved_mask, NULL) == 0);
}

static void master_give_signals_back(struct stk_master *m)
{
    static const int late[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU};
    struct signalfd_siginfo info;

    /* What came while stopping was meant for the server, not for what runs after it; and what comes
     * now finds a process that only ends, which must not seem to die of it. */
    while (m->signals.fd >= 0 && read(m->signals.fd, &info, sizeof info) > 0) {
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(late); i++)
        STK_ASSERT(signal(late[i], SIG_IGN) != SIG_ERR);
    stk_fd_close(&m->signals.fd);
    stk_master_restore_signals(m);
    if (m->subreaper_set && prctl(PR_SET_CHILD_SUBREAPER, 0) < 0) {
        /* It stays the reaper of what is left, which is harmless. */
    }
}

/* Opens one address. 0, or the exit code, the reason logged. */
static int master_listen_on(struct stk_master *m, const char *spec,
                            const struct stk_listen_options *options)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;

    if (stk_listen_set_open(&m->listeners, spec, m->params->nworkers, options, &error) == 0)
        return 0;
    stk_log_critical("%s", error);
    return STK_MASTER_EXIT_CONFIG;
}

/* Opens that of the metrics, where the application does not answer. */
static int master_listen_metrics(struct stk_master *m, const struct stk_listen_options *options)
{
    size_t before = m->listeners.n;
    int code = master_listen_on(m, m->config->metrics, options);

    if (code != 0 || m->listeners.n > before)
        return code;
    stk_log_critical("metrics: %s is the application's address: give the metrics one of their own, "
                     "or a path of it, as /metrics",
                     m->config->metrics);
    return STK_MASTER_EXIT_CONFIG;
}

/* Opens that of the statistics: one socket, which is the master's own. */
static int master_listen_stats(struct stk_master *m, const struct stk_listen_options *options)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;

    if (stk_listen_set_open(&m->stats_listeners, m->config->stats, 1, options, &error) == 0)
        return 0;
    stk_log_critical("stats: %s", error);
    return STK_MASTER_EXIT_CONFIG;
}

/*
 * Opens the addresses of --bind; without any, the sockets that a service manager has passed in.
 */
static int master_listen_all(struct stk_master *m, const struct stk_listen_options *options)
{
    const struct stk_config *config = m->config;
    struct stk_inherit *inherit = options->inherit;
    bool passed_in = false;
    int code = 0;

    for (size_t i = 0; inherit != NULL && i < inherit->n && m->params->bind_is_default; i++) {
        if (code != 0 || !stk_inherit_is_fd(&inherit->groups[i]))
            continue;
        passed_in = true;
        code = master_listen_on(m, inherit->groups[i].spec, options);
    }
    for (size_t i = 0; code == 0 && !passed_in && i < config->bind.n; i++)
        code = master_listen_on(m, config->bind.items[i], options);
    if (code == 0 && config->metrics != NULL && config->metrics[0] != '/')
        code = master_listen_metrics(m, options);
    if (code == 0 && config->stats != NULL)
        code = master_listen_stats(m, options);
    return code;
}

/* Says which sockets of a service manager are not used, and closes them. */
static void master_drop_unused(struct stk_master *m)
{
    struct stk_startup *startup = m->params->startup;

    if (startup == NULL || startup->predecessor > 0)
        return;
    for (size_t i = 0; i < startup->sockets.n; i++)
        if (!startup->sockets.groups[i].taken)
            stk_log_warning("the socket %s that was passed in is not used: --bind does not name it",
                            startup->sockets.groups[i].spec);
    stk_inherit_deinit(&startup->sockets);
}

/* Binds everything. 0, or the exit code, the reason logged. */
static int master_listen(struct stk_master *m)
{
    const struct stk_config *config = m->config;
    STK_CLEANUP(stk_mem_freep) char *owner = stk_privilege_owner(config);
    const struct stk_listen_options options = {
        .backlog = (int)config->backlog,
        .socket_mode = config->socket_mode,
        .socket_owner = config->socket_owner != NULL ? config->socket_owner : owner,
        .inherit = m->params->startup != NULL ? &m->params->startup->sockets : NULL,
    };
    int code = master_listen_all(m, &options);

    if (code != 0)
        return code;
    for (size_t i = 0; i < m->listeners.nwarnings; i++)
        stk_log_warning("%s", m->listeners.warnings[i]);
    m->nslots = m->params->nworkers;
    for (size_t i = 0; i < m->listeners.n; i++) {
        const struct stk_listener *l = m->listeners.items[i];

        m->has_slots = m->has_slots || !l->shared;
        m->nslots = l->nslots > m->nslots ? l->nslots : m->nslots;
    }
    master_drop_unused(m);
    if (m->listeners.n == 0) {
        stk_log_critical("there is no address to listen on: give one by --bind");
        return STK_MASTER_EXIT_CONFIG;
    }
    return 0;
}

static int master_write_pidfile(struct stk_master *m)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    struct stk_startup *startup = m->params->startup;

    if (m->config->pidfile == NULL || m->config->pidfile[0] == '\0')
        return 0;
    /* The predecessor writes our number into it when it goes. */
    if (startup != NULL && startup->predecessor > 0 && startup->pidfile >= 0 &&
        stk_pidfile_adopt(m->config->pidfile, startup->pidfile, &m->pidfile)) {
        startup->pidfile = -1;
        return 0;
    }
    if (stk_pidfile_write(m->config->pidfile, &m->pidfile, &error) == 0)
        return 0;
    stk_log_critical("%s", error);
    return STK_MASTER_EXIT_CONFIG;
}

/* Loop, signals, shared memory. 0, or a negative errno. */
static int master_build(struct stk_master *m)
{
    /* Each slot's worker, its replacement, and two that drain still. */
    unsigned rows = m->params->nworkers * 4 + 4;
    int r = stk_loop_new(&m->loop);

    if (r == 0)
        r = master_take_signals(m);
    if (r == 0)
        r = stk_scoreboard_new(rows, &m->scoreboard);
    if (r == 0)
        r = stk_transfer_new(rows, &m->transfer);
    if (r < 0)
        return r;
    stk_transfer_own_master(m->transfer);
    stk_reap_init(m);
    m->oom_kills = stk_oom_kills("");
    stk_slot_init(m);
    r = stk_upgrade_init(m);
    if (r < 0)
        return r;
    stk_notify_init(m);
    stk_master_sweep_caches(m);
    r = stk_beside_init(m);
    if (r == 0)
        r = stk_tls_watch(m);
    return r < 0 ? r : stk_reload_init(m);
}

static void master_free_dead(struct stk_master *m)
{
    struct stk_list *node;

    while ((node = stk_list_pop(&m->dead)) != NULL) {
        struct stk_proc *p = stk_container_of(node, struct stk_proc, link);

        STK_CHECK_MAGIC(p, STK_PROC_MAGIC);
        p->magic = 0;
        free(p);
    }
}

static void master_serve(struct stk_master *m)
{
    int r;

    stk_master_tell(m, STK_MASTER_EVENT_START, 0, 0);
    r = stk_logs_begin(m);
    if (r < 0) {
        errno = -r;
        stk_log_critical("the logs cannot be set up: %m");
        stk_master_fail(m, STK_MASTER_EXIT_CONFIG);
    }
    stk_beside_start(m);
    stk_slot_fill(m);
    while (m->stopping == 0 || !stk_list_is_empty(&m->procs) || stk_upgrade_holds(m) ||
           stk_beside_holds(m)) {
        r = stk_loop_run_once(m->loop, -1, m);
        if (r < 0) {
            errno = -r;
            stk_log_critical("the master's event loop failed: %m");
            stk_master_fail(m, STK_MASTER_EXIT_CONFIG);
        }
        stk_upgrade_reap(m);
        stk_reap_all(m);
        stk_beside_on_turn(m);
        stk_upgrade_on_turn(m);
        stk_control_settle(m);
        master_free_dead(m);
    }
    stk_master_tell(m, STK_MASTER_EVENT_EXIT, 0, 0);
    if (m->exit_code == STK_MASTER_EXIT_OK)
        stk_log_info("stopped after %llu requests",
                     (unsigned long long)stk_scoreboard_total(m->scoreboard, STK_COUNTER_requests));
    stk_logs_end(m);
}

static void master_destroy(struct stk_master *m)
{
    stk_control_close(m);
    stk_fifo_close(m);
    stk_report_close(m);
    stk_beside_close(m);
    m->watch = stk_watch_free(m->watch);
    stk_tls_close(m);
    stk_reload_deinit(m);
    stk_scale_deinit(m);
    stk_pidfile_remove(&m->pidfile);
    stk_listen_set_deinit(&m->listeners);
    stk_listen_set_deinit(&m->stats_listeners);
    if (m->signals_taken)
        master_give_signals_back(m);
    m->scoreboard = stk_scoreboard_free(m->scoreboard);
    m->transfer = stk_transfer_free(m->transfer);
    stk_master_close_caches(m);
    m->loop = stk_loop_free(m->loop);
    free(m->slots);
    free(m->prior);
    m->magic = 0;
    free(m);
}

/* The last moment with all rights. 0, or the exit code, the reason logged. */
static int master_tell_root(struct stk_master *m)
{
    const struct stk_master_params *params = m->params;

    if (params->on_event == NULL || (params->startup != NULL && params->startup->predecessor > 0))
        return 0;
    return params->on_event(params->on_event_arg, STK_MASTER_EVENT_ROOT, 0, 0);
}

int stk_master_run(const struct stk_master_params *params)
{
    struct stk_master *m = stk_new0(struct stk_master);
    int code, r;

    STK_ASSERT(params->nworkers > 0 && params->worker_main != NULL);
    STK_ASSERT(!params->config->preload || params->template_load != NULL);
    m->magic = STK_MASTER_MAGIC;
    m->params = params;
    m->config = params->config;
    m->started = stk_time_mono_ns();
    m->signals = (struct stk_source){.fn = master_on_signal, .fd = -1};
    m->pidfile.fd = -1;
    m->fifo.source.fd = -1;
    stk_list_init(&m->procs);
    stk_list_init(&m->dead);
    stk_list_init(&m->children);
    m->beside.lines.fd = m->beside.guard_ours = m->beside.guard_theirs = -1;
    stk_spawn_set_name(m->config, "master");
    master_hold_signals(m);
    code = master_listen(m);
    if (code == 0)
        code = master_write_pidfile(m);
    if (code == 0)
        code = stk_tls_open(m);
    if (code == 0)
        code = master_tell_root(m);
    if (code == 0)
        code = stk_privilege_drop(m->config);
    if (code == 0)
        code = stk_master_open_caches(m);
    if (code == 0) {
        r = master_build(m);
        if (r < 0) {
            errno = -r;
            stk_log_critical("the master cannot be set up: %m");
            code = STK_MASTER_EXIT_CONFIG;
        }
    }
    if (code == 0)
        code = stk_control_open(m);
    if (code == 0)
        code = stk_fifo_open(m);
    if (code == 0)
        code = stk_report_open(m);
    if (code == 0) {
        if (params->on_listening != NULL)
            params->on_listening(params->on_listening_arg, m->listeners.items, m->listeners.n);
        master_serve(m);
        code = m->exit_code;
    }
    if (code != 0)
        stk_upgrade_say_why(m);
    master_destroy(m);
    return code;
}
