/*
 * What the service manager hears (sd_notify(3)): datagrams of VARIABLE=value lines to the socket
 * that NOTIFY_SOCKET names. The protocol is three pages long and stable, so no library is linked.
 *
 * The watchdog is tied to work: each ready worker is asked with PING, and answers from its loop,
 * whichever thread turns it. One that leaves a PING unanswered for the whole time is ended with
 * SIGABRT, so that it leaves a report of where it hung, and replaced. Only when that does not help,
 * because no worker has answered or become ready for twice the time, is the service manager left
 * without its WATCHDOG=1, and restarts the server.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "master/master_priv.h"
#include "master/startup.h"

enum {
    NOTIFY_SEND_S = 1,         /* a service manager that does not read is not waited for longer */
    NOTIFY_BARRIER_MS = 2000,  /* likewise when it has to have read */
    NOTIFY_WATCHDOG_PARTS = 4, /* looks in the watchdog's time */
    NOTIFY_WATCHDOG_MIN_MS = 100,
};

struct stk_notify {
    struct stk_master *master;
    int fd;
    struct sockaddr_un addr;
    socklen_t addr_len;
    stk_msec watchdog; /* 0: none */
    struct stk_timer timer;
    stk_msec progress; /* when a worker last answered or became ready */
    int64_t number;    /* of the last PING */
    bool failed;       /* said so */
};

/* One datagram, with a descriptor unless it is -1. */
static void notify_send_fd(struct stk_notify *n, const char *text, int fd)
{
    union {
        struct cmsghdr head;
        char buf[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
    struct msghdr msg = {
        .msg_name = &n->addr, .msg_namelen = n->addr_len, .msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        struct cmsghdr *c = &control.head;

        msg.msg_control = control.buf;
        msg.msg_controllen = sizeof control.buf;
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    if (sendmsg(n->fd, &msg, MSG_NOSIGNAL) < 0 && !n->failed) {
        n->failed = true;
        stk_log_warning("the service manager cannot be told of the server's state: %m");
    }
}

STK_PRINTF(2, 3) static void notify_send(struct stk_master *m, const char *fmt, ...)
{
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    va_list args;

    if (m->notify == NULL || stk_upgrade_is_waiting(m)) /* it listens to the old server */
        return;
    va_start(args, fmt);
    STK_ASSERT(vasprintf(&text, fmt, args) >= 0);
    va_end(args);
    notify_send_fd(m->notify, text, -1);
}

void stk_notify_ready(struct stk_master *m)
{
    if (m->notify != NULL)
        m->notify->progress = stk_loop_now(m->loop);
    notify_send(m, "READY=1\nMAINPID=%d\nSTATUS=%u worker%s serve%s %s", (int)getpid(),
                m->params->nworkers, m->params->nworkers == 1 ? "" : "s",
                m->params->nworkers == 1 ? "s" : "", stk_config_app_name(m->config));
}

void stk_notify_reloading(struct stk_master *m, const char *status)
{
    notify_send(m, "RELOADING=1\nMONOTONIC_USEC=%llu\nSTATUS=%s",
                (unsigned long long)(stk_time_mono_ns() / 1000), status);
}

void stk_notify_back(struct stk_master *m, const char *status)
{
    notify_send(m, "READY=1\nSTATUS=%s", status);
}

void stk_notify_stopping(struct stk_master *m)
{
    notify_send(m, "STOPPING=1\nSTATUS=finishing the requests in progress");
}

/* Waits until all that was sent has been read: this process may be gone before. */
static void notify_barrier(struct stk_notify *n)
{
    struct pollfd pfd = {.events = 0};
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return;
    notify_send_fd(n, "BARRIER=1", fds[1]);
    stk_fd_close(&fds[1]);
    pfd.fd = fds[0];
    if (poll(&pfd, 1, NOTIFY_BARRIER_MS) <= 0)
        stk_log_debug("the service manager has not confirmed what it was told");
    stk_fd_close(&fds[0]);
}

void stk_notify_successor(struct stk_master *m, pid_t pid)
{
    if (m->notify == NULL)
        return;
    notify_send(m, "READY=1\nMAINPID=%d\nSTATUS=upgraded", (int)pid);
    notify_barrier(m->notify);
    /* From here on the successor speaks. */
    stk_notify_free(m);
}

void stk_notify_on_progress(struct stk_proc *p)
{
    p->pinged = 0;
    if (p->master->notify != NULL)
        p->master->notify->progress = stk_loop_now(p->master->loop);
}

static void notify_look_at(struct stk_notify *n, struct stk_proc *p, stk_msec now)
{
    struct stk_master *m = n->master;

    if (!stk_proc_is_serving(p))
        return;
    if (p->pinged == 0) {
        p->pinged = now;
        stk_proc_send(p, STK_MESSAGE_PING, p->slot, ++n->number);
    } else if (now - p->pinged >= n->watchdog) {
        STK_CLEANUP(stk_mem_freep) char *name = stk_proc_name(p);

        stk_log_error("%s has not answered for %.1f s, the watchdog's time: it is killed and "
                      "replaced",
                      name, (double)(now - p->pinged) / 1000);
        atomic_fetch_add_explicit(&m->scoreboard->restarts, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&m->scoreboard->restarts_by[STK_RESTART_WATCHDOG], 1,
                                  memory_order_relaxed);
        stk_proc_abort(p);
    }
}

static void notify_on_timer(struct stk_timer *timer, void *who)
{
    struct stk_notify *n = stk_container_of(timer, struct stk_notify, timer);
    struct stk_master *m = n->master;
    stk_msec now = stk_loop_now(m->loop);
    stk_msec part = n->watchdog / NOTIFY_WATCHDOG_PARTS;

    stk_timer_set(m->loop, timer, part > NOTIFY_WATCHDOG_MIN_MS ? part : NOTIFY_WATCHDOG_MIN_MS);
    stk_list_for_each (it, &m->procs) {
        notify_look_at(n, stk_container_of(it, struct stk_proc, link), now);
    }
    if (m->stopping != 0 || now - n->progress < 2 * n->watchdog)
        notify_send(m, "WATCHDOG=1");
}

/* 0 or a negative errno. */
static int notify_open(struct stk_notify *n, const char *path)
{
    struct timeval patience = {.tv_sec = NOTIFY_SEND_S};
    size_t len = strlen(path);

    if ((*path != '/' && *path != '@') || len >= sizeof n->addr.sun_path)
        return -EINVAL;
    n->addr.sun_family = AF_UNIX;
    memcpy(n->addr.sun_path, path, len);
    if (*path == '@')
        n->addr.sun_path[0] = '\0';
    n->addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (n->fd < 0 || setsockopt(n->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) < 0)
        return -errno;
    return 0;
}

void stk_notify_init(struct stk_master *m)
{
    const struct stk_startup *startup = m->params->startup;
    struct stk_notify *n;
    int r;

    if (startup == NULL || startup->notify_socket == NULL)
        return;
    n = stk_new0(struct stk_notify);
    n->master = m;
    n->fd = -1;
    r = notify_open(n, startup->notify_socket);
    m->notify = n;
    stk_timer_init(&n->timer, notify_on_timer);
    if (r < 0) {
        errno = -r;
        stk_log_warning("the service manager's socket %s cannot be used: %m",
                        startup->notify_socket);
        stk_notify_free(m);
        return;
    }
    n->watchdog = startup->watchdog;
    n->progress = stk_loop_now(m->loop);
    if (n->watchdog > 0)
        stk_timer_set(m->loop, &n->timer, NOTIFY_WATCHDOG_MIN_MS);
    notify_send(m, "STATUS=loading the application");
}

void stk_notify_free(struct stk_master *m)
{
    struct stk_notify *n = m->notify;

    if (n == NULL)
        return;
    m->notify = NULL;
    if (m->loop != NULL)
        stk_timer_stop(m->loop, &n->timer);
    stk_fd_close(&n->fd);
    free(n);
}

void stk_notify_close(struct stk_master *m)
{
    if (m->notify != NULL)
        stk_fd_close(&m->notify->fd);
}
