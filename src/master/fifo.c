/*
 * Commands of one character through a named pipe, as uWSGI takes them: `echo r > app.fifo`.
 *
 * Of several pipes one exists at a time, and a digit says which; that is how two servers of uWSGI's
 * swap names. The pipe is open for reading and writing here, so its end is never seen, and a writer
 * never waits for a reader as long as the file is there. Whoever may write may stop the server, so
 * only its owner may, and a file that is no pipe is left alone.
 *
 * At an upgrade the pipe stays and its reader changes: the old server stops reading and keeps it
 * open, so what is written meanwhile waits in it, and the new one opens the same file.
 */
#include "master/fifo.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "ipc/scoreboard.h"
#include "master/master_priv.h"
#include "master/startup.h"

#define FIFO_READ_MAX 64

/* Opens the pipe at the path. The descriptor, or -errno; -EEXIST: it is no pipe of ours. */
static int fifo_open_file(const char *path)
{
    STK_CLEANUP(stk_fd_closep)
    int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISFIFO(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0)
        return -EEXIST;
    return stk_fd_steal(&fd);
}

/* Makes it; what a server that was killed has left behind is replaced. As above. */
static int fifo_make_file(const char *path)
{
    struct stat st;

    if (lstat(path, &st) == 0) {
        if (!S_ISFIFO(st.st_mode))
            return -EEXIST;
        if (unlink(path) < 0 && errno != ENOENT)
            return -errno;
    }
    if (mkfifo(path, 0600) < 0)
        return -errno;
    return fifo_open_file(path);
}

static char *fifo_path(const struct stk_master *m, size_t slot)
{
    const char *path = m->config->master_fifo.items[slot];
    char cwd[PATH_MAX];

    if (*path == '/' || getcwd(cwd, sizeof cwd) == NULL)
        return stk_mem_strdup(path);
    return stk_mem_printf("%s/%s", cwd, path);
}

static void fifo_on_event(struct stk_source *src, uint32_t events, void *who);

/* Reads this one from now on; takes the descriptor. 0 or a negative errno, the reason logged. */
static int fifo_use(struct stk_master *m, size_t slot, int fd)
{
    struct stk_fifo *f = &m->fifo;
    char *path = fifo_path(m, slot);
    int r = fd;

    if (fd >= 0) {
        f->source = (struct stk_source){.fn = fifo_on_event, .fd = fd};
        r = stk_loop_add(m->loop, &f->source, EPOLLIN);
        if (r < 0)
            stk_fd_close(&f->source.fd);
    }
    if (r < 0) {
        errno = -r;
        if (r == -EEXIST)
            stk_log_error("master-fifo: %s is there already, and no named pipe of this user", path);
        else
            stk_log_error("master-fifo: %s cannot be made: %m", path);
        free(path);
        return r;
    }
    f->path = path;
    f->slot = slot;
    f->handed = false;
    return 0;
}

int stk_fifo_open(struct stk_master *m)
{
    const struct stk_startup *startup = m->params->startup;
    STK_CLEANUP(stk_mem_freep) char *path = NULL;

    if (m->config->master_fifo.n == 0 || (startup != NULL && startup->predecessor > 0))
        return 0;
    path = fifo_path(m, 0);
    return fifo_use(m, 0, fifo_make_file(path)) == 0 ? 0 : STK_MASTER_EXIT_CONFIG;
}

void stk_fifo_take(struct stk_master *m)
{
    /* The one that is there is the one that was in use. */
    for (size_t i = 0; i < m->config->master_fifo.n; i++) {
        STK_CLEANUP(stk_mem_freep) char *path = fifo_path(m, i);
        int fd = fifo_open_file(path);

        if (fd >= 0) {
            if (fifo_use(m, i, fd) < 0) {
                /* Logged; the server is reached by signals and its control socket. */
            }
            return;
        }
    }
    if (m->config->master_fifo.n > 0) {
        STK_CLEANUP(stk_mem_freep) char *path = fifo_path(m, 0);

        if (fifo_use(m, 0, fifo_make_file(path)) < 0) {
            /* As above. */
        }
    }
}

void stk_fifo_hand_over(struct stk_master *m)
{
    struct stk_fifo *f = &m->fifo;

    if (f->path == NULL)
        return;
    stk_loop_del(m->loop, &f->source);
    f->handed = true;
}

void stk_fifo_leave(struct stk_master *m)
{
    stk_fd_close(&m->fifo.source.fd);
}

void stk_fifo_close(struct stk_master *m)
{
    struct stk_fifo *f = &m->fifo;
    struct stat ours, there;

    if (f->path == NULL)
        return;
    if (!f->handed) {
        stk_loop_del(m->loop, &f->source);
        if (fstat(f->source.fd, &ours) == 0 && lstat(f->path, &there) == 0 &&
            ours.st_ino == there.st_ino && ours.st_dev == there.st_dev && unlink(f->path) < 0) {
            /* The next start replaces it. */
        }
    }
    stk_fd_close(&f->source.fd);
    free(stk_steal(&f->path));
}

static void fifo_switch(struct stk_master *m, size_t slot)
{
    size_t before = m->fifo.slot;
    STK_CLEANUP(stk_mem_freep) char *path = NULL;
    STK_CLEANUP(stk_mem_freep) char *old = NULL;

    if (slot >= m->config->master_fifo.n) {
        stk_log_warning("master-fifo: there is no pipe %u", (unsigned)slot);
        return;
    }
    if (slot == before)
        return;
    path = fifo_path(m, slot);
    stk_fifo_close(m);
    if (fifo_use(m, slot, fifo_make_file(path)) == 0) {
        stk_log_info("master-fifo: %s is read now", path);
        return;
    }
    old = fifo_path(m, before);
    if (fifo_use(m, before, fifo_make_file(old)) < 0) {
        /* Logged: there is none from now on. */
    }
}

static void fifo_log_state(const struct stk_master *m)
{
    stk_log_info("master-fifo: %s, %u of %u workers serve, %llu requests",
                 m->reloading ? "reloading" : "serving", stk_scale_serving(m), m->params->nworkers,
                 (unsigned long long)stk_scoreboard_total(m->scoreboard, STK_COUNTER_requests));
}

static void fifo_stop(struct stk_master *m, char c)
{
    if (c == 'Q')
        stk_log_warning("master-fifo: Q: stopping now");
    else
        stk_log_info("master-fifo: q: stopping, requests in progress have %.0f s",
                     (double)m->config->graceful_timeout / 1000);
    stk_master_stop(m, c == 'Q');
}

static void fifo_command(struct stk_master *m, char c)
{
    if (m->stopping != 0 && c != 'Q')
        return;
    switch (c) {
    case 'q':
    case 'Q':
        fifo_stop(m, c);
        break;
    case 'r':
    case 'R':
    case 'c':
    case 'w':
    case 'W':
        stk_log_info("master-fifo: %c: restarting the workers", c);
        stk_reload_rolling(m);
        break;
    case 'l':
        stk_master_reopen_logs(m);
        break;
    case 'L':
        stk_logs_rotate(m);
        break;
    case '+':
    case '-':
        stk_scale_by_one(m, c == '+' ? 1 : -1);
        break;
    case 's':
        fifo_log_state(m);
        break;
    case 'P':
        stk_pidfile_hand_over(&m->pidfile, getpid());
        break;
    default:
        if (c >= '0' && c <= '9')
            fifo_switch(m, (size_t)(c - '0'));
        else if (c > ' ' && c < 127)
            stk_log_warning("master-fifo: there is no command %c", c);
        break;
    }
}

static void fifo_on_event(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_fifo *f = stk_container_of(src, struct stk_fifo, source);
    struct stk_master *m = stk_container_of(f, struct stk_master, fifo);
    char buf[FIFO_READ_MAX];
    ssize_t n = read(src->fd, buf, sizeof buf);

    STK_CHECK_MAGIC(m, STK_MASTER_MAGIC);
    for (ssize_t i = 0; i < n; i++)
        fifo_command(m, buf[i]);
}
