/*
 * A socket pair of the kernel holds some 300 descriptors, and a server may have ten thousand idle
 * connections. What does not fit waits, and whoever is in front of what waits stops as well: the
 * new master leaves the socket unread while its workers have not taken what it has, the old one
 * keeps a few and then leaves the channels of its workers unread, and these keep their connections,
 * which they go on serving, and try again.
 *
 * Who has sent a descriptor may forget it when the receiver is a master, which takes it when it
 * reads it. A worker may be killed with the connection in a queue that it has not read. So the new
 * master offers it, as workers do among themselves (ipc/transfer.h), and keeps it until it has been
 * taken: a worker that dies, drains or hangs before that costs nothing but time.
 */
#include "master/handoff.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "ipc/transfer.h"
#include "master/master_priv.h"

enum {
    HANDOFF_MOST = 64,                 /* that wait in the old master */
    HANDOFF_KEPT = STK_TRANSFER_SLOTS, /* in the new one, until workers have taken them */
    HANDOFF_LOOK_EVERY = 32,           /* connections */
    HANDOFF_LOOK_MS = 10,
    HANDOFF_TAKE_NS = 1000 * 1000 * 1000, /* for a worker to take one */
    HANDOFF_PATIENCE_MS = 3000,           /* with workers that do not, at least */
};

struct handoff_item {
    struct stk_list link;
    int fd;
    bool served;

    /* in the new server */
    stk_msec until; /* when it is given up */
    pid_t pid;      /* of the worker that it was offered to last; 0: none */
    stk_nsec since;
    struct stk_transfer_ticket ticket;
};

static int handoff_send(int sock, int fd, bool served)
{
    const char *text = served ? "connection served" : "connection new";
    struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf};
    ssize_t n;

    stk_fd_put(&hdr, fd);
    do
        n = sendmsg(sock, &hdr, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

void stk_handoff_out_init(struct stk_handoff_out *out, struct stk_master *m,
                          struct stk_source *source)
{
    *out = (struct stk_handoff_out){.master = m, .source = source};
    stk_list_init(&out->waiting);
}

static void handoff_pause(struct stk_handoff_out *out, bool paused)
{
    if (out->paused == paused)
        return;
    out->paused = paused;
    stk_proc_listen(out->master, !paused);
}

int stk_handoff_give(struct stk_handoff_out *out, int fd, bool served)
{
    struct handoff_item *item;
    int r = out->n == 0 ? handoff_send(out->source->fd, fd, served) : -EAGAIN;

    if (r != -EAGAIN)
        return r;
    fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (out->n == 0) {
        r = stk_loop_mod(out->master->loop, out->source, EPOLLIN | EPOLLOUT);
        if (r < 0) {
            stk_fd_close(&fd);
            return r;
        }
    }
    item = stk_new0(struct handoff_item);
    item->fd = fd;
    item->served = served;
    stk_list_init(&item->link);
    stk_list_append(&out->waiting, &item->link);
    if (++out->n >= HANDOFF_MOST)
        handoff_pause(out, true);
    return 0;
}

static void handoff_pop(struct stk_handoff_out *out)
{
    struct handoff_item *item =
        stk_container_of(stk_list_pop(&out->waiting), struct handoff_item, link);

    stk_fd_close(&item->fd);
    free(item);
    out->n--;
}

int stk_handoff_flush(struct stk_handoff_out *out)
{
    int r = 0;

    while (out->n > 0) {
        const struct handoff_item *item =
            stk_container_of(out->waiting.next, struct handoff_item, link);

        r = handoff_send(out->source->fd, item->fd, item->served);
        if (r == -EAGAIN)
            return 0;
        if (r < 0)
            break;
        handoff_pop(out);
    }
    if (r == 0)
        r = stk_loop_mod(out->master->loop, out->source, EPOLLIN);
    handoff_pause(out, false);
    return r;
}

unsigned stk_handoff_drop(struct stk_handoff_out *out)
{
    unsigned n = out->n;

    while (out->n > 0)
        handoff_pop(out);
    handoff_pause(out, false);
    return n;
}

/* --- the new server ------------------------------------------------------------------------- */

/* Offers a connection to a worker, but not to the process `but`. False: none has room. */
static bool handoff_offer(struct stk_handoff_in *in, struct handoff_item *item, pid_t but)
{
    const struct stk_master *m = in->master;
    const struct stk_transfer_conn conn = {
        .fd = item->fd,
        .flags = STK_TRANSFER_CARRIED | (item->served ? STK_TRANSFER_SERVED : 0),
    };

    for (unsigned i = 0; i < m->nslots; i++) {
        const struct stk_proc *p = m->slots[++in->turn % m->nslots].current;

        if (!stk_proc_is_serving(p) || p->pid == but ||
            stk_transfer_send(m->transfer, (unsigned)(p->row - m->scoreboard->rows), p->pid, &conn,
                              NULL, &item->ticket) < 0)
            continue;
        item->pid = p->pid;
        item->since = stk_time_mono_ns();
        return true;
    }
    return false;
}

/* A worker that has not taken it is asked again only where there is no other. */
static bool handoff_try(struct stk_handoff_in *in, struct handoff_item *item)
{
    return handoff_offer(in, item, item->pid) || (item->pid != 0 && handoff_offer(in, item, 0));
}

static bool handoff_is_over(const struct stk_handoff_in *in, const struct handoff_item *item)
{
    const struct stk_master *m = in->master;

    if (m->stopping != 0 || stk_time_mono_ns() - item->since > HANDOFF_TAKE_NS)
        return true;
    for (unsigned i = 0; i < m->nslots; i++) {
        const struct stk_proc *p = m->slots[i].current;

        if (stk_proc_is_serving(p) && p->pid == item->pid)
            return false;
    }
    return true; /* it is gone, or drains */
}

static void handoff_end(struct stk_handoff_in *in, struct handoff_item *item)
{
    stk_list_remove(&item->link);
    stk_fd_close(&item->fd);
    free(item);
    in->n--;
}

/* Sees what has become of what was offered. */
static void handoff_settle(struct stk_handoff_in *in)
{
    struct stk_transfer *transfer = in->master->transfer;

    stk_list_for_each_safe (it, &in->offered) {
        struct handoff_item *item = stk_container_of(it, struct handoff_item, link);
        enum stk_transfer_state state = stk_transfer_look(transfer, &item->ticket);

        if (state == STK_TRANSFER_OFFERED) {
            if (!handoff_is_over(in, item))
                continue;
            state = stk_transfer_withdraw(transfer, &item->ticket)
                        ? STK_TRANSFER_WITHDRAWN
                        : stk_transfer_look(transfer, &item->ticket);
        }
        stk_transfer_settle(transfer, &item->ticket);
        if (state == STK_TRANSFER_TAKEN) {
            handoff_end(in, item);
        } else {
            stk_list_remove(&item->link);
            stk_list_append(&in->waiting, &item->link);
        }
    }
}

/* Ends a connection that nobody serves. A worker that did not answer has copies of the descriptor
 * in its inbox, with which its client would wait for an answer for as long as that worker lives. */
static void handoff_give_up(struct stk_handoff_in *in, struct handoff_item *item)
{
    if (shutdown(item->fd, SHUT_RDWR) < 0) {
        /* The client has left first. */
    }
    handoff_end(in, item);
}

/* What a server does that stops itself: its own successor gets the connection, if there is one. */
static void handoff_send_on(struct stk_handoff_in *in, struct handoff_item *item)
{
    if (stk_upgrade_drain_kind(in->master) != STK_CHANNEL_DRAIN_CARRY)
        handoff_give_up(in, item);
    else if (!stk_upgrade_is_full(in->master)) {
        stk_upgrade_carry(in->master, item->fd, item->served);
        handoff_end(in, item);
    }
}

/* Finds places for what has none. */
static void handoff_distribute(struct stk_handoff_in *in)
{
    unsigned closed = 0;

    stk_list_for_each_safe (it, &in->waiting) {
        struct handoff_item *item = stk_container_of(it, struct handoff_item, link);
        bool late = stk_time_mono_coarse_ms() > item->until;

        if (in->master->stopping != 0) {
            handoff_send_on(in, item);
        } else if ((!late || item->pid == 0) && handoff_try(in, item)) {
            stk_list_remove(&item->link);
            stk_list_append(&in->offered, &item->link);
        } else if (late) { /* and asked in vain: an inbox has room long after its worker hangs */
            handoff_give_up(in, item);
            closed++;
        }
    }
    if (closed > 0)
        stk_log_warning("%u idle connection%s of the old server %s closed: no worker could take %s",
                        closed, closed == 1 ? "" : "s", closed == 1 ? "was" : "were",
                        closed == 1 ? "it" : "them");
}

static void handoff_look(struct stk_handoff_in *in)
{
    handoff_settle(in);
    handoff_distribute(in);
    if (in->n > 0)
        stk_timer_set(in->master->loop, &in->timer, HANDOFF_LOOK_MS);
}

bool stk_handoff_is_blocked(const struct stk_handoff_in *in)
{
    return in->n >= HANDOFF_KEPT;
}

static void handoff_on_timer(struct stk_timer *timer, void *who)
{
    struct stk_handoff_in *in = stk_container_of(timer, struct stk_handoff_in, timer);

    handoff_look(in);
    if (!stk_handoff_is_blocked(in) && in->source->fd >= 0 && in->source->events == 0 &&
        stk_loop_add(in->master->loop, in->source, EPOLLIN) < 0)
        stk_log_error("the old server cannot be heard: %m");
}

void stk_handoff_in_init(struct stk_handoff_in *in, struct stk_master *m, struct stk_source *source)
{
    *in = (struct stk_handoff_in){.master = m, .source = source};
    stk_list_init(&in->offered);
    stk_list_init(&in->waiting);
    stk_timer_init(&in->timer, handoff_on_timer);
}

void stk_handoff_place(struct stk_handoff_in *in, int fd, bool served)
{
    struct handoff_item *item = stk_new0(struct handoff_item);
    stk_msec patience = in->master->config->graceful_timeout;

    item->fd = fd;
    item->served = served;
    item->until = stk_time_mono_coarse_ms() +
                  (patience > HANDOFF_PATIENCE_MS ? patience : HANDOFF_PATIENCE_MS);
    stk_list_init(&item->link);
    stk_list_append(&in->waiting, &item->link);
    /* Workers take what they are offered at once: with some on their way, most have been taken. */
    if (++in->n % HANDOFF_LOOK_EVERY == 0)
        handoff_settle(in);
    handoff_distribute(in);
    if (stk_handoff_is_blocked(in))
        stk_loop_del(in->master->loop, in->source);
    if (in->n > 0 && !stk_timer_is_set(&in->timer))
        stk_timer_set(in->master->loop, &in->timer, HANDOFF_LOOK_MS);
}

static void handoff_close_all(struct stk_list *items)
{
    stk_list_for_each (it, items)
        stk_fd_close(&stk_container_of(it, struct handoff_item, link)->fd);
}

void stk_handoff_leave(struct stk_handoff_out *out, struct stk_handoff_in *in)
{
    handoff_close_all(&out->waiting);
    handoff_close_all(&in->offered);
    handoff_close_all(&in->waiting);
}

void stk_handoff_in_deinit(struct stk_handoff_in *in)
{
    stk_timer_stop(in->master->loop, &in->timer);
    stk_list_for_each_safe (it, &in->offered)
        handoff_end(in, stk_container_of(it, struct handoff_item, link));
    stk_list_for_each_safe (it, &in->waiting)
        handoff_end(in, stk_container_of(it, struct handoff_item, link));
}
