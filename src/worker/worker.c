/*
 * A worker builds its loop, server and threads from its heritage, and then belongs to the
 * application: the main thread of the process is the interpreter's main thread and runs requests.
 * What the master says comes over the channel, as an event of the loop like any other, so it is
 * heard by whichever thread leads, the stand-by included, while the application is stuck.
 *
 * Signals: the terminal sends INT to the whole group, but stopping is the master's to order, so the
 * worker ignores it by an empty handler (not SIG_IGN, which the application's subprocesses would
 * inherit). TERM sent to a worker alone drains it.
 */
#include "worker/worker.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/title.h"
#include "config/config.h"
#include "config/site.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "ipc/transfer.h"
#include "loop/lead.h"
#include "loop/loop.h"
#include "net/listen.h"
#include "net/tls_store.h"
#include "serve/access_log.h"
#include "serve/deadline.h"
#include "serve/detach.h"
#include "serve/move.h"
#include "serve/secure.h"
#include "serve/server.h"
#include "serve/websocket.h"
#include "services/stats.h"
#include "worker/crash.h"
#include "worker/crew.h"
#include "worker/fork_guard.h"
#include "worker/loading.h"
#include "worker/services.h"
#include "worker/wear.h"

enum {
    WORKER_EXIT_OK = 0,
    WORKER_EXIT_FAILED = 1,
    WORKER_EXIT_LOAD = 3,
    WORKER_FORCE_GRACE_MS = 1000, /* from aborting connections to _exit */
    WORKER_MMAP_THRESHOLD = 8 << 20,
    WORKER_TRIM_THRESHOLD = 64 << 20,
};

struct worker {
    const struct stk_worker_params *params;
    struct stk_heritage *heritage;
    const struct stk_config *config;
    struct stk_loop *loop;
    struct stk_lead *lead;
    struct stk_server *server;
    struct stk_access_log *access_log;
    struct stk_services services;
    struct stk_wear wear;
    struct stk_source channel;
    struct stk_source term;
    struct stk_timer deadline;
    struct stk_site *site; /* NULL: a mistake, which has been told */
    struct stk_crew crew;  /* once the applications are there */
    bool forced;
    bool standby_led; /* when it was looked at last; of the stand-by */
};

/* The descriptor that the TERM handler writes to, and for whom: a handler gets no argument. */
static volatile sig_atomic_t worker_term_fd = -1;
static volatile pid_t worker_pid;

static void worker_on_term(int sig)
{
    uint64_t one = 1;
    int saved = errno;

    if (getpid() != worker_pid) { /* a child of the application, before fork_guard.c has seen it */
        signal(sig, SIG_DFL);
        raise(sig);
        return;
    }
    if (worker_term_fd >= 0 && write(worker_term_fd, &one, sizeof one) < 0) {
        /* The counter is full: the message is there already. */
    }
    errno = saved;
}

static void worker_on_ignored(int sig)
{
}

static int worker_catch_signals(void)
{
    static const int ignored[] = {SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT};
    struct sigaction sa = {.sa_handler = worker_on_term, .sa_flags = SA_RESTART};

    sigemptyset(&sa.sa_mask);
    worker_pid = getpid();
    worker_term_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (worker_term_fd < 0 || sigaction(SIGTERM, &sa, NULL) < 0)
        return -errno;
    sa.sa_handler = worker_on_ignored;
    for (size_t i = 0; i < STK_ARRAY_LEN(ignored); i++) {
        if (sigaction(ignored[i], &sa, NULL) < 0)
            return -errno;
    }
    return 0;
}

/* Says which requests do not get their answer; the stand-by has noted those that last. */
static void worker_name_cut(const struct worker *w)
{
    double now = (double)stk_time_mono_ns();
    struct stk_scoreboard_running request;

    for (unsigned i = 0; i < STK_SCOREBOARD_RUNNING; i++) {
        if (stk_scoreboard_read_running(w->heritage->row, i, &request) &&
            request.thread != STK_SCOREBOARD_WAITING) /* of these stk_server_abort says so */
            stk_log_warning("%s %s: not finished after %.1f s, when graceful-timeout was over: it "
                            "is cut",
                            request.method, request.target,
                            (now - (double)request.started_ns) / 1e9);
    }
}

/* The time to finish is over. First every connection is closed; then the process ends as it is. */
static void worker_on_deadline(struct stk_timer *timer, void *who)
{
    struct worker *w = stk_container_of(timer, struct worker, deadline);

    if (!w->forced) {
        w->forced = true;
        worker_name_cut(w);
        stk_log_warning("stopping took longer than graceful-timeout: %llu connections are closed "
                        "before their end",
                        (unsigned long long)w->server->nconns);
        stk_timer_set(w->loop, timer, WORKER_FORCE_GRACE_MS);
        stk_server_abort(w->server);
        return;
    }
    stk_log_warning("the application does not return from a request: the process ends without it");
    stk_access_log_finish(w->access_log);
    _exit(WORKER_EXIT_OK);
}

/* Closes the listening sockets of all slots, so that the address is free and clients are refused.
 */
static void worker_close_listeners(struct worker *w)
{
    for (size_t i = 0; i < w->heritage->nlisteners; i++) {
        struct stk_listener *l = w->heritage->listeners[i];

        for (unsigned s = 0; s < l->nslots; s++) {
            int fd = l->slots[s];

            if (s == 0 || !l->shared)
                stk_fd_close(&fd);
            l->slots[s] = -1;
        }
    }
}

/* What ps shows. */
static void worker_set_title(const struct worker *w, const char *state)
{
    char role[32];

    (void)snprintf(role, sizeof role, "worker %u", w->heritage->slot + 1);
    stk_title_set_role(w->config->name, role, stk_config_app_name(w->config), state);
}

static void worker_drain(struct worker *w, stk_msec timeout, enum stk_channel_drain kind)
{
    if (!atomic_load(&w->server->draining)) {
        worker_set_title(w, "draining");
        stk_timer_set(w->loop, &w->deadline, timeout);
    }
    stk_server_drain(w->server, kind);
    if (kind == STK_CHANNEL_DRAIN_LAST)
        worker_close_listeners(w);
}

/* A connection for the new server. */
static int worker_carry(void *arg, int fd, bool served)
{
    const struct worker *w = arg;
    const struct stk_message msg = {.type = STK_MESSAGE_CARRY, .slot = served, .fd = fd};

    return stk_channel_send(w->heritage->channel, &msg);
}

static void worker_on_drained(void *arg)
{
    struct worker *w = arg;

    stk_lead_stop(w->lead);
}

/* By the stand-by, as the next one. */
static void worker_on_retire(void *arg, unsigned reason, int64_t value)
{
    struct worker *w = arg;

    if (stk_channel_send_simple(w->heritage->channel, STK_MESSAGE_RETIRE, reason, value) < 0)
        stk_log_warning("the master was not asked to replace this worker");
}

/* A request has raised what reload-on-exception names. */
static void worker_on_exception(void *arg)
{
    worker_on_retire(arg, STK_CHANNEL_RETIRE_EXCEPTION, 0);
}

/* Their threads cannot be ended, nor joined: the process ends with them in it. */
static void worker_on_abandoned(void *arg)
{
    struct worker *w = arg;

    stk_log_warning("only requests are left that were cancelled and do not return: the process "
                    "ends without them");
    stk_access_log_finish(w->access_log);
    _exit(WORKER_EXIT_OK);
}

/* What the event loop waits for; false: there is none, or not this request in it. */
static bool worker_write_tasks(const struct worker *w, int fd, uint64_t id)
{
    const struct stk_host_ops *ops = w->params->host_ops;

    if (!w->crew.hosted || (id != 0 && !stk_detach_has(w->server, id)))
        return false;
    if (id == 0)
        dprintf(fd, "\n");
    if (ops->tasks != NULL && ops->tasks(w->params->host, id, fd))
        return true;
    dprintf(fd, "The interpreter is held by something outside of Python: of tasks only the "
                "requests are known.\n");
    stk_detach_write(w->server, id, fd);
    return true;
}

/* By whichever thread turns the loop: the application may be stuck, with the interpreter. */
static void worker_write_stacks(struct worker *w, int fd, uint64_t id)
{
    struct stk_scoreboard_running request;
    void *thread = NULL;

    for (unsigned i = 0; id != 0 && thread == NULL && i < STK_SCOREBOARD_RUNNING; i++) {
        if (stk_scoreboard_read_running(w->heritage->row, i, &request) && request.id == id &&
            request.thread != STK_SCOREBOARD_WAITING)
            thread = stk_lead_thread_get(w->lead, request.thread)->host_thread;
    }
    if ((id == 0 || thread != NULL) && w->params->host_ops->stacks != NULL)
        w->params->host_ops->stacks(w->params->host, thread, fd);
    if (thread == NULL && !worker_write_tasks(w, fd, id) && id != 0)
        dprintf(fd, "request %llu is not running here, or not for 0.1 s yet\n",
                (unsigned long long)id);
    stk_fd_close(&fd);
}

/* The master has read other certificates, which fit. */
static void worker_take_certs(struct worker *w, int fd)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    struct stk_tls_files files = {0};
    struct stk_tls_store *store;
    int r = stk_tls_files_load(fd, &files);

    stk_fd_close(&fd);
    if (r < 0)
        stk_log_error("the new TLS certificates cannot be read: %s", strerror(-r));
    else if (stk_tls_store_new(&store, &files, w->config, w->heritage->tickets, &error) != 0)
        stk_log_error("the new TLS certificates are not taken: %s", error);
    else
        stk_secure_set_store(w->server, store);
    stk_tls_files_deinit(&files);
}

static void worker_on_message(struct worker *w, const struct stk_message *msg)
{
    switch (msg->type) {
    case STK_MESSAGE_PING:
        if (stk_channel_send_simple(w->heritage->channel, STK_MESSAGE_PONG, msg->slot, msg->value) <
            0)
            stk_log_debug("the master was not answered");
        break;
    case STK_MESSAGE_DRAIN:
        worker_drain(w, msg->value, (enum stk_channel_drain)msg->slot);
        if (stk_channel_send_simple(w->heritage->channel, STK_MESSAGE_DRAINS, w->heritage->slot,
                                    0) < 0)
            stk_log_debug("the master was not told that this worker drains");
        break;
    case STK_MESSAGE_STOP:
        stk_access_log_finish(w->access_log);
        _exit(WORKER_EXIT_OK);
    case STK_MESSAGE_ADOPT:
        if (stk_server_listen(w->server, msg->slot) < 0)
            stk_log_error("the sockets of slot %u could not be adopted", msg->slot);
        break;
    case STK_MESSAGE_RELEASE:
        stk_server_unlisten(w->server, msg->slot);
        break;
    case STK_MESSAGE_REOPEN:
        stk_log_reopen();
        stk_access_log_reopen(w->access_log);
        break;
    case STK_MESSAGE_CERTS:
        worker_take_certs(w, msg->fd);
        break;
    case STK_MESSAGE_STACK:
        worker_write_stacks(w, msg->fd, (uint64_t)msg->value);
        break;
    default:
        break;
    }
}

static void worker_on_channel(struct stk_source *src, uint32_t events, void *who)
{
    struct worker *w = stk_container_of(src, struct worker, channel);
    struct stk_message msg;
    int r;

    while ((r = stk_channel_recv(src->fd, STK_CHANNEL_WORKER, &msg)) == 0)
        worker_on_message(w, &msg);
    if (r == -EAGAIN)
        return;
    stk_loop_del(w->loop, src);
    stk_log_fall_back();
    if (!atomic_load(&w->server->draining)) {
        stk_log_error("the master is gone: finishing what was begun");
        worker_drain(w, w->config->graceful_timeout, STK_CHANNEL_DRAIN_LAST);
    }
}

static void worker_on_term_event(struct stk_source *src, uint32_t events, void *who)
{
    struct worker *w = stk_container_of(src, struct worker, term);
    uint64_t n;

    if (read(src->fd, &n, sizeof n) <= 0 || atomic_load(&w->server->draining))
        return;
    if (stk_channel_send_simple(w->heritage->channel, STK_MESSAGE_LEAVING, w->heritage->slot, 0) <
        0)
        stk_log_warning("the master was not told that this worker leaves");
    worker_drain(w, w->config->graceful_timeout, STK_CHANNEL_DRAIN_SUCCESSOR);
}

static void worker_unlock(void *arg, struct stk_lead_thread *thread)
{
    struct worker *w = arg;

    w->params->host_ops->unlock(w->params->host, thread->host_thread);
}

static void worker_lock(void *arg, struct stk_lead_thread *thread)
{
    struct worker *w = arg;
    stk_nsec from = stk_unlikely(w->services.wanted) ? stk_time_mono_ns() : 0;

    w->params->host_ops->lock(w->params->host, thread->host_thread);
    if (stk_unlikely(from != 0))
        stk_serve_thread_of(thread)->gil_wait_us +=
            (uint64_t)((stk_time_mono_ns() - from) / STK_NSEC_PER_USEC);
}

static void worker_on_turn(void *arg, struct stk_lead_thread *thread)
{
    struct worker *w = arg;

    stk_detach_wake(w->server, thread);
    if (stk_unlikely(thread->picky))
        stk_move_turn(w->server->move, thread);
    stk_server_publish(stk_serve_thread_of(thread));
    stk_wear_check(&w->wear);
    stk_server_collect(w->server);
    if (thread->index == 0)
        w->params->host_ops->check_signals(w->params->host, thread->host_thread);
}

/* The stand-by looks once before it takes the loop, and once as its owner. */
static void worker_count_takeover(struct worker *w)
{
    bool own = stk_lead_standby(w->lead)->own;

    if (own && !w->standby_led)
        stk_scoreboard_add_owned(w->heritage->row, STK_COUNTER_takeovers, 1);
    w->standby_led = own;
}

static bool worker_on_tick(void *arg)
{
    struct worker *w = arg;
    bool pending;

    stk_server_gauge(w->server);
    stk_scoreboard_set(w->heritage->row, STK_COUNTER_log_lines_lost,
                       stk_access_log_lost(w->access_log));
    worker_count_takeover(w);
    pending = stk_server_flush_gathered(w->server);
    if (w->server->move != NULL && stk_move_tick(w->server->move, stk_lead_standby(w->lead)))
        pending = true;
    stk_deadline_tick(w->server->deadline);
    stk_server_publish(stk_serve_thread_of(stk_lead_standby(w->lead)));
    return pending;
}

static void worker_thread(void *arg, unsigned index, void *host_thread)
{
    struct worker *w = arg;
    struct stk_lead_thread *thread = stk_lead_thread_get(w->lead, index);

    thread->host_thread = host_thread;
    stk_crash_thread();
    stk_lead_run(thread);
}

/* ---- an event loop of the application's, that turns ours (struct stk_host_engine) ----------- */

static void worker_engine_begin(void *arg, void *host_thread)
{
    struct worker *w = arg;
    struct stk_lead_thread *thread = stk_lead_thread_get(w->lead, 0);

    thread->host_thread = host_thread;
    stk_crash_thread();
    stk_detach_set_driver(w->server, host_thread);
    stk_lead_hosted_begin(thread);
}

static void worker_engine_end(void *arg)
{
    struct worker *w = arg;

    stk_detach_set_driver(w->server, NULL);
    stk_lead_hosted_end(stk_lead_thread_get(w->lead, 0));
}

static bool worker_engine_turn(void *arg)
{
    struct worker *w = arg;

    return stk_lead_hosted_turn(stk_lead_thread_get(w->lead, 0));
}

static bool worker_engine_wait(void *arg, int own_fd, stk_nsec timeout, bool *ret_own)
{
    struct worker *w = arg;

    return stk_lead_hosted_wait(stk_lead_thread_get(w->lead, 0), own_fd, timeout, ret_own);
}

static void worker_engine_gather(void *arg, bool on)
{
    struct worker *w = arg;

    stk_websocket_gather(w->server, on);
}

/* Runs the application's threads, or its event loop, to the end. 0 or a negative errno. */
static int worker_run(struct worker *w)
{
    const struct stk_host_ops *ops = w->params->host_ops;
    void *host = w->params->host;
    struct stk_host_engine engine = {
        .arg = w,
        .fd = stk_loop_fd(w->loop),
        .begin = worker_engine_begin,
        .end = worker_engine_end,
        .turn = worker_engine_turn,
        .wait = worker_engine_wait,
        .gather = worker_engine_gather,
    };
    int r;

    if (!w->crew.hosted)
        return ops->run(host, w->crew.threads, worker_thread, w, NULL);
    r = stk_lead_host(w->lead);
    if (r < 0) {
        stk_log_error("the event loop of the application could not be tied to the server's: %s",
                      strerror(-r));
        return r;
    }
    engine.bell = stk_lead_bell(w->lead);
    stk_detach_init(w->server, w->crew.napps);
    return ops->run(host, w->crew.threads, worker_thread, w, &engine);
}

/* Now that the applications are there it is known which threads there will be. */
static void worker_count_threads(struct worker *w)
{
    stk_crew_find(&w->crew, w->site, w->params->host_ops, w->params->host,
                  (unsigned)w->config->threads);
    stk_lead_limit(w->lead, w->crew.threads);
    atomic_store(&w->heritage->row->threads, w->crew.threads);
    if (w->heritage->slot == 0)
        stk_crew_log(&w->crew, w->site, w->params->host_ops, w->params->host);
}

/* Tells the master what the application is made of, so that it can watch it. */
static void worker_send_sources(struct worker *w)
{
    char **paths;
    int r;

    if (!w->config->autoreload || w->params->host_ops->source_files == NULL)
        return;
    paths = w->params->host_ops->source_files(w->params->host);
    if (paths == NULL)
        return;
    r = stk_channel_send_sources(w->heritage->channel, (const char *const *)paths);
    if (r < 0)
        stk_log_warning("autoreload: the list of source files was not sent: %s", strerror(-r));
    for (char **p = paths; *p != NULL; p++)
        free(*p);
    free(paths);
}

static void worker_on_mistake(void *arg, enum stk_option_id option, size_t item, const char *text)
{
    stk_log_error("%s: %s", stk_options_rows()[option].name, text);
}

static int worker_statistics(void *arg, char **ret_text, size_t *ret_len)
{
    const struct worker *w = arg;
    const struct stk_stats stats = {
        .scoreboard = w->heritage->scoreboard,
        .config = w->config,
        .nworkers = w->heritage->nworkers,
        .caches = w->heritage->caches,
        .state = "serving",
    };

    return stk_stats_text(&stats, ret_text, ret_len);
}

static int worker_load(struct worker *w)
{
    const struct stk_site *site = w->site;
    struct stk_host_params params = {
        .targets = site ? (const char *const *)site->apps.items : NULL,
        .places = site ? (const char *const *)site->places.items : NULL,
        .ntargets = site ? site->apps.n : 0,
        .pythonpath = (const char *const *)w->config->pythonpath.items,
        .endpoints = w->server->endpoints,
        .nendpoints = w->server->nendpoints,
        .threads = (unsigned)w->config->threads,
        .workers = w->heritage->nworkers,
        .interface = (uint8_t)w->config->interface,
        .loop = (uint8_t)w->config->loop,
        .lifespan = (uint8_t)w->config->lifespan,
        .task_grace = w->config->exit_timeout / 2,
        .gevent = (unsigned)w->config->gevent,
        .monkey_patch = w->config->gevent_monkey_patch,
        .limits_async = w->config->max_concurrency > 0,
    };
    const struct stk_host_worker who = {
        .outcasts = {.any = w->config->reload_on_exception,
                     .types = (const char *const *)w->config->reload_on_exception_type.items,
                     .values = (const char *const *)w->config->reload_on_exception_value.items,
                     .reprs = (const char *const *)w->config->reload_on_exception_repr.items},
        .replace = worker_on_exception,
        .slot = w->heritage->slot,
        .statistics = worker_statistics,
        .arg = w,
    };
    STK_CLEANUP(stk_fd_closep) int errors = memfd_create("failure", MFD_CLOEXEC);
    int r;

    stk_log_tee(errors);
    if (w->params->host_ops->enter != NULL)
        w->params->host_ops->enter(w->params->host, &who);
    stk_loading_begin(w->heritage->channel, w->params->host_ops, w->params->host);
    r = w->heritage->preloaded ? 0 : w->params->host_ops->load(w->params->host, &params);
    if (r == 0 && w->params->host_ops->startup != NULL)
        r = w->params->host_ops->startup(w->params->host);
    if (r == 0)
        worker_count_threads(w);
    stk_loading_end();
    stk_log_tee(-1);
    worker_send_sources(w);
    if (r != 0 && stk_channel_send_failure(w->heritage->channel, w->heritage->slot,
                                           WORKER_EXIT_LOAD, errors) < 0)
        stk_log_debug("the master was not told of the failed start");
    return r;
}

/* Connections to and from other workers. 0 or a negative errno, logged. */
static int worker_build_move(struct worker *w)
{
    struct stk_heritage *h = w->heritage;
    const struct stk_move_params params = {
        .server = w->server,
        .scoreboard = h->scoreboard,
        .transfer = h->transfer,
        .row = (unsigned)(h->row - h->scoreboard->rows),
    };
    int r;

    if (h->transfer == NULL)
        return 0;
    stk_transfer_own(h->transfer, params.row);
    r = stk_move_new(&w->server->move, &params);
    if (r < 0)
        stk_log_error("the inbox for connections of other workers: %s", strerror(-r));
    return r;
}

static int worker_build_lead(struct worker *w)
{
    static const struct stk_lead_ops lead_ops = {
        .unlock = worker_unlock,
        .lock = worker_lock,
        .on_turn = worker_on_turn,
        .on_tick = worker_on_tick,
    };
    struct stk_scoreboard_row *row = w->heritage->row;
    const struct stk_lead_params lead = {
        .loop = w->loop,
        .threads = stk_crew_most(w->site, (unsigned)w->config->threads),
        .standby = w->config->takeover,
        .share = {.word = &row->lead_word,
                  .calls = &row->calls,
                  .parked = &row->parked,
                  .backlog = &row->backlog,
                  .resting = &row->resting},
        .bounded = w->config->max_queue > 0 || w->config->max_queue_age > 0,
        .shares = w->heritage->transfer != NULL,
        .ops = &lead_ops,
        .arg = w,
    };
    int r = stk_lead_new(&w->lead, &lead);

    if (r < 0)
        stk_log_error("the stand-by thread could not be started: %s", strerror(-r));
    return r;
}

/* Loop, server, lead, log. 0 or a negative errno, logged. */
static int worker_build(struct worker *w)
{
    struct stk_heritage *h = w->heritage;
    struct stk_server_params server = {
        .config = w->config,
        .host_ops = w->params->host_ops,
        .host = w->params->host,
        .listeners = h->listeners,
        .nlisteners = h->nlisteners,
        .slot = h->slot,
        .threads = stk_crew_most(w->site, (unsigned)w->config->threads),
        .row = h->row,
        .tls = h->tls,
        .timed = w->services.wanted,
        .handlers = w->services.handlers,
        .nhandlers = w->services.n,
        .handlers_address = w->services.address,
    };
    int r = stk_access_log_open(&w->access_log, w->config, h->slot + 1);

    if (r < 0)
        return r;
    r = stk_loop_new(&w->loop);
    if (r < 0) {
        stk_log_error("the event loop could not be made: %s", strerror(-r));
        return r;
    }
    server.loop = w->loop;
    server.access_log = w->access_log;
    atomic_store(&h->row->threads, (uint32_t)w->config->threads);
    r = stk_server_new(&w->server, &server);
    if (r < 0)
        return r;
    w->server->on_drained = worker_on_drained;
    w->server->on_drained_arg = w;
    w->server->carry = worker_carry;
    w->server->carry_arg = w;
    w->server->on_retire = worker_on_retire;
    w->server->on_retire_arg = w;
    w->server->on_abandoned = worker_on_abandoned;
    w->server->on_abandoned_arg = w;
    stk_timer_init(&w->deadline, worker_on_deadline);
    stk_wear_init(&w->wear, h, w->params->host_ops, w->params->host);
    r = worker_build_lead(w);
    if (r < 0)
        return r;
    stk_server_attach_lead(w->server, w->lead);
    stk_crash_set_server(w->server);
    return worker_build_move(w);
}

static int worker_connect(struct worker *w)
{
    int r;

    w->channel = (struct stk_source){.fn = worker_on_channel, .fd = w->heritage->channel};
    w->term = (struct stk_source){.fn = worker_on_term_event, .fd = worker_term_fd};
    r = stk_deadline_new(&w->server->deadline, w->server);
    if (r == 0)
        r = stk_loop_add(w->loop, &w->channel, EPOLLIN);
    if (r == 0)
        r = stk_loop_add(w->loop, &w->term, EPOLLIN);
    if (r == 0)
        r = stk_server_listen(w->server, w->heritage->slot);
    worker_set_title(w, "ready");
    if (r == 0)
        r = stk_channel_send_simple(w->heritage->channel, STK_MESSAGE_READY, w->heritage->slot,
                                    getpid());
    if (r < 0)
        stk_log_error("the worker could not be started: %s", strerror(-r));
    return r;
}

/* Frees what the worker has; the application's own end comes before, with a limit on its time. */
static void worker_destroy(struct worker *w)
{
    stk_fork_guard_clear();
    stk_crash_set_server(NULL);
    w->lead = stk_lead_free(w->lead);
    if (w->server != NULL)
        w->server->move = stk_move_free(w->server->move);
    if (w->server != NULL)
        stk_detach_deinit(w->server);
    w->server = stk_server_free(w->server);
    w->loop = stk_loop_free(w->loop);
    w->access_log = stk_access_log_free(w->access_log);
    w->site = stk_site_free(w->site);
    stk_services_deinit(&w->services);
}

/*
 * Keeps memory of request bodies and large responses in the heap. By glibc's defaults a buffer of 1
 * MB is mapped, faulted in page by page and unmapped for every request, which costs three times
 * what the upload itself does. Whoever sets MALLOC_* in the environment has decided otherwise.
 */
static void worker_tune_heap(void)
{
    if (getenv("MALLOC_MMAP_THRESHOLD_") == NULL)
        (void)mallopt(M_MMAP_THRESHOLD, WORKER_MMAP_THRESHOLD);
    if (getenv("MALLOC_TRIM_THRESHOLD_") == NULL)
        (void)mallopt(M_TRIM_THRESHOLD, WORKER_TRIM_THRESHOLD);
}

int stk_worker_main(void *arg, struct stk_heritage *heritage)
{
    struct worker w = {.params = arg, .heritage = heritage, .config = heritage->config};
    char name[32];
    int r, code = WORKER_EXIT_FAILED;

    snprintf(name, sizeof name, "worker %u", heritage->slot + 1);
    stk_log_set_process(name);
    worker_set_title(&w, "loading");
    worker_tune_heap();
    r = worker_catch_signals();
    if (r == 0)
        r = stk_crash_init(name, w.params->host_ops, w.params->host);
    if (r < 0)
        stk_log_error("signals: %s", strerror(-r));
    stk_services_init(&w.services, heritage, w.params->runtime);
    w.site = stk_site_new(w.config, worker_on_mistake, NULL);
    if (r == 0 && worker_build(&w) == 0) {
        code = WORKER_EXIT_LOAD;
        if (worker_load(&w) == 0) {
            code = WORKER_EXIT_FAILED;
            stk_fork_guard_set(w.server, heritage, stk_loop_fd(w.loop), worker_term_fd,
                               (void (*const[])(int)){worker_on_term, worker_on_ignored});
            if (worker_connect(&w) == 0) {
                r = worker_run(&w);
                code = r == 0 ? WORKER_EXIT_OK : WORKER_EXIT_FAILED;
            }
        }
    }
    worker_destroy(&w);
    if (code == WORKER_EXIT_OK) {
        /* alarm() ends the process if atexit handlers or threads of the application do not return.
         */
        signal(SIGALRM, SIG_DFL);
        alarm((unsigned)((w.config->exit_timeout + 999) / 1000));
        w.params->host_ops->unload(w.params->host);
    }
    return code;
}
