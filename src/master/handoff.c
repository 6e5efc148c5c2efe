/*
 * A socket pair of the kernel holds some 300 descriptors, and a server may have ten thousand idle
 * connections. What does not fit waits, and whoever is in front of what waits stops as well: the
 * new master leaves the socket unread while none of its workers has room, the old one keeps a few
 * and then leaves the channels of its workers unread, and these keep their connections, which they
 * go on serving, and try again.
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
#include "master/master_priv.h"

enum {
    HANDOFF_MOST = 64,      /* that wait in the old master */
    HANDOFF_RETRY_MS = 10,  /* until workers of the new one have read */
    HANDOFF_TRIES_MAX = 50, /* the coarse timer makes that 3 s and more */
};

struct handoff_item {
    struct stk_list link;
    int fd;
    bool served;
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

/* False: no worker has room. */
static bool handoff_try(struct stk_handoff_in *in, int fd, bool served)
{
    const struct stk_master *m = in->master;
    const struct stk_message msg = {.type = STK_MESSAGE_CARRY, .slot = served, .fd = fd};

    for (unsigned i = 0; i < m->nslots; i++) {
        const struct stk_proc *p = m->slots[++in->turn % m->nslots].current;

        if (stk_proc_is_serving(p) && stk_channel_send(p->channel.fd, &msg) == 0)
            return true;
    }
    return false;
}

static void handoff_on_timer(struct stk_timer *timer, void *who)
{
    struct stk_handoff_in *in = stk_container_of(timer, struct stk_handoff_in, timer);

    if (!handoff_try(in, in->fd, in->served)) {
        if (++in->tries < HANDOFF_TRIES_MAX && in->master->stopping == 0) {
            stk_timer_set(in->master->loop, timer, HANDOFF_RETRY_MS);
            return;
        }
        stk_log_warning("an idle connection of the old server was closed: no worker could take it");
    }
    stk_fd_close(&in->fd);
    if (in->source->fd >= 0 && stk_loop_add(in->master->loop, in->source, EPOLLIN) < 0)
        stk_log_error("the old server cannot be heard: %m");
}

void stk_handoff_in_init(struct stk_handoff_in *in, struct stk_master *m, struct stk_source *source)
{
    *in = (struct stk_handoff_in){.master = m, .source = source, .fd = -1};
    stk_timer_init(&in->timer, handoff_on_timer);
}

void stk_handoff_place(struct stk_handoff_in *in, int fd, bool served)
{
    if (handoff_try(in, fd, served)) {
        stk_fd_close(&fd);
        return;
    }
    in->fd = fd;
    in->served = served;
    in->tries = 0;
    stk_loop_del(in->master->loop, in->source);
    stk_timer_set(in->master->loop, &in->timer, HANDOFF_RETRY_MS);
}

void stk_handoff_in_deinit(struct stk_handoff_in *in)
{
    stk_timer_stop(in->master->loop, &in->timer);
    stk_fd_close(&in->fd);
}
