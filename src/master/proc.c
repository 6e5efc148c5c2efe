/*
 * One child process as the master sees it: a channel, a state, and a clock for its end.
 *
 * A process ends in at most three steps, each with its time: DRAIN (finish), STOP (exit now),
 * SIGKILL. It is gone when it has been waited for; until then it stays in the list, whatever its
 * channel does. Only stk_proc_gone takes it out, and its memory stays until the turn of the loop is
 * over, because events of the same batch may still name it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "ipc/transfer.h"
#include "master/master_priv.h"

/* From SIGABRT to SIGKILL: a report of its stacks is written meanwhile. */
#define PROC_ABORT_MS 3000
/* How long a process may live on without a channel before it is killed. */
#define PROC_ORPHAN_MS 2000
/* A worker ends itself at its deadline; STOP is for one that does not, this much later. */
#define PROC_STOP_AFTER_MS 1500

static void proc_close_channel(struct stk_proc *p)
{
    if (p->channel.fd < 0)
        return;
    stk_loop_del(p->master->loop, &p->channel);
    stk_fd_close(&p->channel.fd);
}

static void proc_set_state(struct stk_proc *p, enum stk_proc_state state)
{
    p->state = state;
    if (p->row == NULL)
        return;
    if (state == STK_PROC_READY)
        atomic_store_explicit(&p->row->state, STK_SCOREBOARD_READY, memory_order_relaxed);
    else if (state >= STK_PROC_DRAINING)
        atomic_store_explicit(&p->row->state, STK_SCOREBOARD_DRAINING, memory_order_relaxed);
}

char *stk_proc_name(const struct stk_proc *p)
{
    if (p->kind == STK_PROC_TEMPLATE)
        return stk_mem_printf("the template (%d)", (int)p->pid);
    if (p->pid == 0)
        return stk_mem_printf("worker %u", p->slot + 1);
    return stk_mem_printf("worker %u (%d)", p->slot + 1, (int)p->pid);
}

bool stk_proc_is_serving(const struct stk_proc *p)
{
    return p != NULL && p->kind == STK_PROC_WORKER && p->state == STK_PROC_READY;
}

void stk_proc_send(struct stk_proc *p, int type, unsigned slot, int64_t value)
{
    int r;

    if (p->channel.fd < 0)
        return;
    r = stk_channel_send_simple(p->channel.fd, (enum stk_message_type)type, slot, value);
    if (r < 0 && r != -EPIPE) {
        STK_CLEANUP(stk_mem_freep) char *name = stk_proc_name(p);

        errno = -r;
        stk_log_warning("%s was not told %s: %m", name, stk_channel_type_name((unsigned)type));
    }
}

/* The first word of a worker that a template forked. */
static void proc_on_forked(struct stk_proc *p, int64_t value)
{
    siginfo_t info = {0};
    pid_t pid = (pid_t)value;

    if (p->pid != 0)
        return;
    if (value <= 1 || value != (int64_t)pid ||
        waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0) {
        STK_CLEANUP(stk_mem_freep) char *name = stk_proc_name(p);

        stk_log_error("%s says that it is process %lld, which is no child of the master's: it is "
                      "given up",
                      name, (long long)value);
        stk_proc_gone(p, -1);
        return;
    }
    p->pid = pid;
    if (p->row != NULL)
        atomic_store_explicit(&p->row->pid, (uint64_t)pid, memory_order_relaxed);
    if (p->state == STK_PROC_FORKING)
        proc_set_state(p, STK_PROC_STARTING);
    else
        stk_proc_kill(p); /* its end was ordered meanwhile */
}

static void proc_on_ready(struct stk_proc *p)
{
    if (p->state != STK_PROC_STARTING)
        return;
    p->was_ready = true;
    stk_timer_stop(p->master->loop, &p->loading);
    proc_set_state(p, STK_PROC_READY);
    stk_notify_on_progress(p);
    if (p->kind == STK_PROC_WORKER)
        stk_slot_on_ready(p);
    else
        stk_slot_on_template_ready(p);
}

/* It drains without having been asked: SIGTERM to the worker alone. */
static void proc_on_leaving(struct stk_proc *p)
{
    struct stk_master *m = p->master;

    if (p->kind != STK_PROC_WORKER || p->state != STK_PROC_READY)
        return;
    p->asked = true;
    proc_set_state(p, STK_PROC_DRAINING);
    stk_timer_set(m->loop, &p->deadline, m->config->graceful_timeout + PROC_STOP_AFTER_MS);
    stk_slot_on_leaving(p);
}

/* Keeps why; that it could not be loaded is said by its exit code, which is not lost. */
static void proc_on_load_failed(struct stk_proc *p, int file)
{
    size_t len;

    if (p->failure == NULL && stk_channel_read_sources(file, &p->failure, &len) < 0)
        p->failure = NULL;
    if (p->failure != NULL && !p->master->ever_ready)
        stk_upgrade_on_load_failed(p->master, p->failure);
    if (p->failure != NULL && !p->master->ever_ready && p->master->params->on_load_failed != NULL)
        p->master->params->on_load_failed(p->master->params->on_start_arg, p->failure);
}

static void proc_on_message(struct stk_proc *p, struct stk_message *msg)
{
    STK_CLEANUP(stk_fd_closep) int file = msg->fd;

    switch (msg->type) {
    case STK_MESSAGE_FORKED:
        proc_on_forked(p, msg->value);
        break;
    case STK_MESSAGE_READY:
        proc_on_ready(p);
        break;
    case STK_MESSAGE_SOURCES:
        stk_reload_on_sources(p, file);
        break;
    case STK_MESSAGE_LEAVING:
        proc_on_leaving(p);
        break;
    case STK_MESSAGE_LOAD_FAILED:
        proc_on_load_failed(p, file);
        break;
    case STK_MESSAGE_MODULES:
        stk_refresh_on_modules(p, file);
        break;
    case STK_MESSAGE_RETIRE:
        stk_recycle_on_retire(p, msg->slot, msg->value);
        break;
    case STK_MESSAGE_CARRY:
        stk_upgrade_carry(p->master, file, msg->slot != 0);
        break;
    case STK_MESSAGE_DRAINS:
        p->unheard = false;
        stk_reload_on_drains(p->master);
        break;
    case STK_MESSAGE_PONG:
        stk_notify_on_progress(p);
        break;
    case STK_MESSAGE_DRAINED:
    default:
        break;
    }
}

static void proc_on_deadline(struct stk_timer *timer, void *who)
{
    struct stk_proc *p = stk_container_of(timer, struct stk_proc, deadline);
    STK_CLEANUP(stk_mem_freep) char *name = stk_proc_name(p);

    STK_CHECK_MAGIC(p, STK_PROC_MAGIC);
    switch (p->state) {
    case STK_PROC_DRAINING:
        stk_proc_stop(p, p->master->config->exit_timeout + 1000);
        break;
    case STK_PROC_STOPPING:
        stk_log_warning("%s does not exit: it is killed", name);
        stk_proc_kill(p);
        break;
    case STK_PROC_FORKING:
    case STK_PROC_KILLED:
        if (p->pid == 0)
            stk_proc_gone(p, -1);
        break;
    case STK_PROC_STARTING:
    case STK_PROC_READY:
        stk_log_error("%s lives without its channel to the master: it is killed", name);
        stk_proc_kill(p);
        break;
    }
}

/* After 10 and 30 seconds, and then every minute: an import that hangs would hold up all silently.
 */
static stk_msec proc_patience(const struct stk_proc *p)
{
    static const stk_msec ms[] = {10 * 1000, 20 * 1000, 30 * 1000, 60 * 1000};

    return ms[p->warned < STK_ARRAY_LEN(ms) ? p->warned : STK_ARRAY_LEN(ms) - 1];
}

static void proc_on_loading(struct stk_timer *timer, void *who)
{
    struct stk_proc *p = stk_container_of(timer, struct stk_proc, loading);
    STK_CLEANUP(stk_mem_freep) char *name = stk_proc_name(p);

    STK_CHECK_MAGIC(p, STK_PROC_MAGIC);
    if (p->state >= STK_PROC_READY)
        return;
    stk_log_warning("%s has been loading the application for %.0f s: an import may hang", name,
                    (double)(stk_time_mono_ns() - p->started) / 1e9);
    p->warned++;
    stk_timer_set(p->master->loop, timer, proc_patience(p));
}

/* The other end is closed: the process is dead, or about to be, or has lost its descriptors. */
static void proc_on_eof(struct stk_proc *p)
{
    proc_close_channel(p);
    if (p->pid == 0)
        stk_proc_gone(p, -1);
    else if (p->state == STK_PROC_STARTING || p->state == STK_PROC_READY)
        stk_timer_set(p->master->loop, &p->deadline, PROC_ORPHAN_MS);
}

/* Handles what has arrived, all of it or until its channel is left alone. False when nothing more
 * will. */
static bool proc_receive(struct stk_proc *p, bool all)
{
    struct stk_message msg;
    int r = 0;

    while (p->channel.fd >= 0 && (all || p->channel.events != 0) &&
           (r = stk_channel_recv(p->channel.fd, STK_CHANNEL_MASTER, &msg)) == 0)
        proc_on_message(p, &msg);
    if (p->channel.fd < 0 || r == -EAGAIN || r == 0)
        return true;
    if (r == STK_CHANNEL_E_BAD) {
        STK_CLEANUP(stk_mem_freep) char *name = stk_proc_name(p);

        stk_log_error("%s sent what is no message: its channel is closed", name);
    }
    return false;
}

static void proc_on_channel(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_proc *p = stk_container_of(src, struct stk_proc, channel);

    STK_CHECK_MAGIC(p, STK_PROC_MAGIC);
    if (!proc_receive(p, false))
        proc_on_eof(p);
}

void stk_proc_listen(struct stk_master *m, bool on)
{
    stk_list_for_each (it, &m->procs) {
        struct stk_proc *p = stk_container_of(it, struct stk_proc, link);

        if (p->channel.fd < 0 || on == (p->channel.events != 0))
            continue;
        if (!on)
            stk_loop_del(m->loop, &p->channel);
        else if (stk_loop_add(m->loop, &p->channel, EPOLLIN) < 0)
            stk_log_error("a channel cannot be watched: %m");
    }
}

void stk_proc_hear(struct stk_proc *p)
{
    STK_CHECK_MAGIC(p, STK_PROC_MAGIC);
    (void)proc_receive(p, true);
}

void stk_proc_exited(struct stk_proc *p, int status)
{
    stk_proc_hear(p);
    stk_proc_gone(p, status);
}

struct stk_proc *stk_proc_new(struct stk_master *m, enum stk_proc_kind kind, unsigned slot,
                              int channel)
{
    struct stk_proc *p = stk_new0(struct stk_proc);

    p->magic = STK_PROC_MAGIC;
    p->kind = kind;
    p->state = STK_PROC_STARTING;
    p->master = m;
    p->slot = slot;
    p->generation = m->generation;
    p->started = stk_time_mono_ns();
    p->channel = (struct stk_source){.fn = proc_on_channel, .fd = channel};
    stk_timer_init(&p->deadline, proc_on_deadline);
    stk_timer_init(&p->loading, proc_on_loading);
    stk_timer_set(m->loop, &p->loading, proc_patience(p));
    stk_list_init(&p->link);
    stk_list_append(&m->procs, &p->link);
    if (stk_loop_add(m->loop, &p->channel, EPOLLIN) < 0) {
        stk_log_error("a channel cannot be watched: %m");
        stk_fd_close(&p->channel.fd);
    }
    return p;
}

void stk_proc_drain(struct stk_proc *p, stk_msec timeout)
{
    /* One that has become ready a moment ago may have accepted connections. */
    if (p->state < STK_PROC_READY) {
        stk_proc_hear(p);
        if (p->pid == 0 && p->channel.fd < 0)
            return; /* and one that is no child of ours is gone already */
    }
    if (p->state != STK_PROC_READY) {
        if (p->state < STK_PROC_READY)
            stk_proc_kill(p); /* it serves nobody */
        return;
    }
    p->asked = p->unheard = true;
    proc_set_state(p, STK_PROC_DRAINING);
    stk_proc_send(p, STK_MESSAGE_DRAIN, stk_upgrade_drain_kind(p->master), timeout);
    stk_timer_set(p->master->loop, &p->deadline, timeout + PROC_STOP_AFTER_MS);
}

void stk_proc_drain_on(struct stk_proc *p)
{
    stk_proc_send(p, STK_MESSAGE_DRAIN, stk_upgrade_drain_kind(p->master), 0);
}

void stk_proc_stop(struct stk_proc *p, stk_msec grace)
{
    if (p->state == STK_PROC_KILLED)
        return;
    if (p->state < STK_PROC_READY) {
        stk_proc_kill(p);
        return;
    }
    p->asked = true;
    proc_set_state(p, STK_PROC_STOPPING);
    stk_proc_send(p, STK_MESSAGE_STOP, p->slot, 0);
    stk_timer_set(p->master->loop, &p->deadline, grace);
}

void stk_proc_kill(struct stk_proc *p)
{
    p->asked = true;
    proc_set_state(p, STK_PROC_KILLED);
    if (p->pid != 0) {
        if (kill(p->pid, SIGKILL) < 0 && errno != ESRCH)
            stk_log_error("worker %d cannot be killed: %m", (int)p->pid);
        stk_timer_stop(p->master->loop, &p->deadline);
        return;
    }
    /* Not forked yet, or not heard of: the end of its channel ends it, else the deadline here. */
    stk_proc_send(p, STK_MESSAGE_STOP, p->slot, 0);
    stk_timer_set(p->master->loop, &p->deadline, PROC_ORPHAN_MS);
}

void stk_proc_abort(struct stk_proc *p)
{
    p->asked = true;
    proc_set_state(p, STK_PROC_STOPPING);
    if (p->pid != 0 && kill(p->pid, SIGABRT) < 0 && errno != ESRCH)
        stk_log_error("worker %d cannot be ended: %m", (int)p->pid);
    stk_timer_set(p->master->loop, &p->deadline, PROC_ABORT_MS);
}

void stk_proc_gone(struct stk_proc *p, int status)
{
    struct stk_master *m = p->master;

    STK_CHECK_MAGIC(p, STK_PROC_MAGIC);
    stk_list_remove(&p->link);
    stk_list_append(&m->dead, &p->link);
    stk_timer_stop(m->loop, &p->deadline);
    stk_timer_stop(m->loop, &p->loading);
    proc_close_channel(p);
    if (p->row != NULL) {
        p->cut = stk_scoreboard_get(p->row, STK_COUNTER_connections_open);
        if (!p->asked || p->state == STK_PROC_KILLED)
            atomic_fetch_add_explicit(&p->row->close_reasons[STK_SCOREBOARD_REASON_DIED], p->cut,
                                      memory_order_relaxed);
        stk_scoreboard_retire(p->row);
        /* Copies of connections that it has not looked at would keep them open. */
        stk_transfer_drain(m->transfer, (unsigned)(p->row - m->scoreboard->rows));
    }
    if (p->kind == STK_PROC_WORKER)
        stk_slot_on_gone(p, status);
    else
        stk_slot_on_template_gone(p, status);
    free(stk_steal(&p->failure));
}
