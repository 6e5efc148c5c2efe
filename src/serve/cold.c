/*
 * One byte is read without waiting: at the end of what is to be sent, and at its beginning where
 * both are not in one window of the kernel's own reading ahead. That costs a tenth of what sending
 * them costs. Nothing is handed to other threads: the kernel reads, and the loop looks again in a
 * few milliseconds, as if the client had taken nothing meanwhile. The timers of the loop are too
 * coarse for that; one of our own is made when a disk is waited for the first time.
 */
#include "serve/cold.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/list.h"
#include "base/mem.h"
#include "serve/conn.h"
#include "serve/server.h"

enum {
    COLD_WINDOW = 128 * 1024, /* what kernels read ahead at once, as a rule */
    COLD_AHEAD = 4 << 20,
};

struct stk_cold {
    struct stk_loop *loop;
    struct stk_source timer;
    struct stk_list waiting; /* struct stk_conn.disk */
};

static bool cold_look(int fd, int64_t off)
{
    char byte;
    struct iovec iov = {&byte, 1};

    return preadv2(fd, &iov, 1, (off_t)off, RWF_NOWAIT) < 0 && errno == EAGAIN;
}

bool stk_cold_ask(int fd, int64_t off, uint64_t len)
{
    if (len == 0 || (stk_likely(!cold_look(fd, off + (int64_t)len - 1)) &&
                     (len <= COLD_WINDOW || stk_likely(!cold_look(fd, off)))))
        return false;
    (void)posix_fadvise(fd, (off_t)off, COLD_AHEAD, POSIX_FADV_WILLNEED);
    return true;
}

static void cold_on_timer(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_cold *cold = stk_container_of(src, struct stk_cold, timer);
    struct stk_list *node;
    uint64_t n;

    if (read(src->fd, &n, sizeof n) < 0)
        return; /* nothing has come: it comes again */
    while ((node = stk_list_pop(&cold->waiting)) != NULL)
        stk_conn_look_again(stk_container_of(node, struct stk_conn, disk));
}

static int cold_new(struct stk_cold **ret_cold, struct stk_loop *loop)
{
    struct stk_cold *cold = stk_new0(struct stk_cold);
    int r;

    cold->loop = loop;
    stk_list_init(&cold->waiting);
    cold->timer = (struct stk_source){
        .fn = cold_on_timer, .fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)};
    r = cold->timer.fd < 0 ? -errno : stk_loop_add(loop, &cold->timer, EPOLLIN);
    if (r < 0) {
        stk_cold_free(cold);
        return r;
    }
    *ret_cold = cold;
    return 0;
}

int stk_cold_wait(struct stk_conn *conn)
{
    struct itimerspec its = {.it_value.tv_nsec = STK_COLD_LOOK_MS * 1000 * 1000};
    struct stk_server *server = conn->server;
    bool first;

    if (server->cold == NULL) {
        int r = cold_new(&server->cold, server->loop);

        if (r < 0)
            return r;
    }
    first = stk_list_is_empty(&server->cold->waiting);
    if (first && timerfd_settime(server->cold->timer.fd, 0, &its, NULL) < 0)
        return -errno;
    stk_list_remove(&conn->disk);
    stk_list_append(&server->cold->waiting, &conn->disk);
    return 0;
}

void stk_cold_forget(struct stk_conn *conn)
{
    stk_list_remove(&conn->disk);
}

struct stk_cold *stk_cold_free(struct stk_cold *cold)
{
    if (cold == NULL)
        return NULL;
    if (cold->timer.events != 0)
        stk_loop_del(cold->loop, &cold->timer);
    stk_fd_close(&cold->timer.fd);
    free(cold);
    return NULL;
}
