/*
 * What the master does for the logs.
 *
 * With loggers, routes or encoders (serve/log_fan.h) the error log of all processes is one pipe,
 * and what they print goes there too. The master reads it in its loop, applies the rules and
 * writes. It does not use a thread (but for the time of a hook): the master forks, and a thread
 * might hold a lock at that moment. What is written is whole lines of at most PIPE_BUF bytes, or
 * what an application prints.
 *
 * A file that is too large is renamed and opened again as after a rotation by others: every process
 * that writes to it goes on in the old file until it has heard of that, so no line is lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "master/master_priv.h"
#include "master/watch.h"
#include "serve/log_fan.h"
#include "serve/log_place.h"

enum {
    LOGS_PIPE = 1024 * 1024,
    LOGS_READ = 64 * 1024,
    LOGS_PUMP_MAX = 64 * 1024 * 1024,
    LOGS_TURN = 16, /* reads in one turn of the loop, at most */
    LOGS_LOOK_MS = 1000,
    LOGS_NAMES = 100, /* tried for a renamed file */
};
#define LOGS_COMPLAIN_EVERY (60 * STK_NSEC_PER_SEC)
#define LOGS_TURN_NS        (50 * STK_NSEC_PER_MSEC) /* a turn ends behind it */

/* Passes on whole lines; `end`: what is left as well. */
static void logs_pass(struct stk_master_logs *l, bool end)
{
    const char *nl = memrchr(l->buf, '\n', l->len);
    size_t len = nl != NULL ? (size_t)(nl - l->buf) + 1 : 0;

    if (end || (len == 0 && l->len >= LOGS_READ))
        len = l->len;
    if (len == 0)
        return;
    (void)stk_log_fan_write(l->fan, l->buf, len); /* which reports what is lost */
    memmove(l->buf, l->buf + len, l->len - len);
    l->len -= len;
}

/* Reads a piece; returns its bytes, or what read says. */
static ssize_t logs_read(struct stk_master_logs *l, int fd, size_t len)
{
    ssize_t n = read(fd, l->buf + l->len, len < LOGS_READ ? len : LOGS_READ);

    if (n > 0) {
        l->len += (size_t)n;
        logs_pass(l, false);
    }
    return n;
}

static void logs_on_pipe(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_master_logs *l = stk_container_of(src, struct stk_master_logs, source);
    stk_nsec begin = stk_time_mono_ns();

    for (int i = 0; i < LOGS_TURN && logs_read(l, src->fd, LOGS_READ) > 0; i++)
        if (stk_time_mono_ns() - begin > LOGS_TURN_NS)
            break;
}

/* What is there now, and no more: whoever is left behind may write for ever. */
static void logs_read_rest(struct stk_master_logs *l)
{
    int left = 0;
    ssize_t n = 1;

    if (ioctl(l->source.fd, FIONREAD, &left) < 0)
        left = LOGS_PIPE;
    for (; left > 0 && n > 0; left -= (int)n)
        n = logs_read(l, l->source.fd, (size_t)left);
    logs_pass(l, true);
}

/*
 * While a hook runs in this process nobody reads the pipe, and what the hook prints, or a program
 * that it waits for, could fill it: the master would wait for itself. So a thread keeps it in a
 * file in memory meanwhile. It takes no lock and no memory, for a hook may fork.
 */
static void *logs_pump(void *arg)
{
    const struct stk_master_logs *l = arg;
    struct pollfd fds[] = {{.fd = l->pump_stop, .events = POLLIN},
                           {.fd = l->source.fd, .events = POLLIN}};
    size_t kept = 0;
    char buf[16 * 1024];

    for (;;) {
        ssize_t n;

        if (poll(fds, STK_ARRAY_LEN(fds), -1) < 0)
            continue; /* for want of memory: all signals are blocked */
        if (fds[0].revents != 0)
            return NULL;
        n = read(l->source.fd, buf, sizeof buf);
        if (n > 0 && kept < LOGS_PUMP_MAX && stk_fd_write_all(l->pump_to, buf, (size_t)n) == 0)
            kept += (size_t)n; /* else it is lost */
    }
}

void stk_logs_lend(struct stk_master *m)
{
    struct stk_master_logs *l = &m->logs;
    sigset_t all, old;
    int r;

    if (l->fan == NULL || l->pump_to >= 0)
        return;
    l->pump_to = memfd_create("stoker log", MFD_CLOEXEC);
    l->pump_stop = eventfd(0, EFD_CLOEXEC);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = l->pump_to < 0 || l->pump_stop < 0 ? -1 : pthread_create(&l->pump, NULL, logs_pump, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r == 0)
        return;
    stk_fd_close(&l->pump_to); /* the pipe has to do */
    stk_fd_close(&l->pump_stop);
}

void stk_logs_return(struct stk_master *m)
{
    struct stk_master_logs *l = &m->logs;

    if (l->fan == NULL || l->pump_to < 0)
        return;
    STK_ASSERT(eventfd_write(l->pump_stop, 1) == 0);
    pthread_join(l->pump, NULL);
    if (lseek(l->pump_to, 0, SEEK_SET) == 0)
        while (logs_read(l, l->pump_to, LOGS_READ) > 0)
            continue;
    stk_fd_close(&l->pump_to);
    stk_fd_close(&l->pump_stop);
}

/* Standard output and error as they were. */
static void logs_restore_streams(struct stk_master_logs *l)
{
    if ((l->out >= 0 && dup2(l->out, STDOUT_FILENO) < 0) ||
        (l->err >= 0 && dup2(l->err, STDERR_FILENO) < 0))
        stk_log_error("the standard streams cannot be restored: %m");
}

/* Makes the pipe that everybody's standard output and error are from now on. */
static int logs_make_pipe(struct stk_master_logs *l)
{
    char path[64];
    int fds[2];
    int r = 0;

    l->out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    l->err = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    (void)fcntl(fds[1], F_SETPIPE_SZ, LOGS_PIPE); /* else 64 KiB have to do */
    /* For what the server logs: a write of the master's must not wait for the master. */
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fds[1]);
    l->own = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0 || dup2(fds[1], STDOUT_FILENO) < 0 ||
        dup2(fds[1], STDERR_FILENO) < 0)
        r = -errno;
    stk_fd_close(&fds[1]);
    l->source = (struct stk_source){.fn = logs_on_pipe, .fd = fds[0]};
    return r;
}

/* The sink that the log had, with the stream that it was, if it was one. */
static struct stk_log_sink logs_take_sink(const struct stk_master_logs *l)
{
    struct stk_log_sink sink;

    stk_log_divert(&sink, l->own);
    if (sink.kind == STK_LOG_SINK_STREAM)
        sink.fd = sink.fd == STDOUT_FILENO ? l->out : sink.fd == STDERR_FILENO ? l->err : sink.fd;
    return sink;
}

static int logs_collect(struct stk_master *m)
{
    struct stk_master_logs *l = &m->logs;
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    struct stk_log_sink raw;
    int r = logs_make_pipe(l);

    if (r < 0)
        return r;
    l->buf = stk_new0_array(char, 2 * LOGS_READ);
    raw = logs_take_sink(l);
    r = stk_log_fan_new(&l->fan, m->config, STK_LOG_FAN_MAIN, &raw, &error);
    if (r == 0) {
        stk_log_fan_set_streams(l->fan, l->out, l->err);
        return stk_loop_add(m->loop, &l->source, EPOLLIN);
    }
    logs_restore_streams(l);
    stk_log_divert(&raw, -1);
    stk_log_error("logs: %s", error);
    return r;
}

static void logs_on_touch(void *arg, const char *path)
{
    struct stk_master *m = arg;

    for (size_t i = 0; i < m->config->touch_logrotate.n; i++) {
        const char *one = m->config->touch_logrotate.items[i];
        size_t len = strlen(one), whole = strlen(path);

        if (len <= whole && strcmp(path + whole - len, one) == 0 &&
            (len == whole || path[whole - len - 1] == '/')) {
            stk_logs_rotate(m);
            return;
        }
    }
    stk_master_reopen_logs(m);
}

static int logs_watch(struct stk_master *m)
{
    const struct stk_strv *all[] = {&m->config->touch_logrotate, &m->config->touch_logreopen};
    char cwd[PATH_MAX];
    int r;

    if (all[0]->n + all[1]->n == 0)
        return 0;
    r = stk_watch_new(m->loop, logs_on_touch, m, &m->logs.watch);
    if (r < 0)
        return r;
    if (getcwd(cwd, sizeof cwd) == NULL)
        return -errno;
    for (size_t i = 0; i < STK_ARRAY_LEN(all); i++) {
        for (size_t j = 0; j < all[i]->n; j++) {
            const char *path = all[i]->items[j];
            STK_CLEANUP(stk_mem_freep)
            char *whole =
                path[0] == '/' ? stk_mem_strdup(path) : stk_mem_printf("%s/%s", cwd, path);

            stk_watch_add_touch(m->logs.watch, whole);
        }
    }
    return 0;
}

/* Renames a file to a name that is not there yet: PATH.TIME. */
static int logs_rename(const char *path, const char *backup, char **ret_name)
{
    for (int i = 0; i < LOGS_NAMES; i++) {
        STK_CLEANUP(stk_mem_freep) char *name = NULL;
        struct stat st;

        if (backup != NULL)
            name = stk_mem_strdup(backup);
        else if (i == 0)
            name = stk_mem_printf("%s.%lld", path, (long long)time(NULL));
        else
            name = stk_mem_printf("%s.%lld.%d", path, (long long)time(NULL), i);
        if (backup == NULL && lstat(name, &st) == 0)
            continue;
        if (rename(path, name) < 0)
            return -errno;
        *ret_name = stk_steal(&name);
        return 0;
    }
    return -EEXIST;
}

/* Rotates a file that has more than `limit` bytes. True: it was renamed. */
static bool logs_rotate_file(struct stk_master *m, const char *path, const char *backup,
                             uint64_t limit)
{
    STK_CLEANUP(stk_mem_freep) char *name = NULL;
    struct stat st;
    stk_nsec now;
    int r;

    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size <= limit)
        return false;
    r = logs_rename(path, backup, &name);
    if (r == 0) {
        stk_log_info("%s had %llu bytes: it is %s now", path, (unsigned long long)st.st_size, name);
        return true;
    }
    now = stk_time_mono_ns();
    if (m->logs.complained != 0 && now - m->logs.complained < LOGS_COMPLAIN_EVERY)
        return false;
    m->logs.complained = now;
    stk_log_error("%s is too large and cannot be renamed%s%s: %s", path,
                  backup != NULL ? " to " : "", backup != NULL ? backup : "", strerror(-r));
    return false;
}

/* Looks at the files of loggers; `force`: rotates all that have something in them. */
static bool logs_rotate_loggers(struct stk_master *m, const struct stk_strv *loggers, bool force)
{
    bool renamed = false;

    for (size_t i = 0; i < loggers->n; i++) {
        STK_CLEANUP(stk_mem_freep) char *error = NULL;
        struct stk_log_place p = {0};
        uint64_t limit;

        if (stk_log_place_parse(&p, loggers->items[i], &error) < 0)
            continue;
        limit = force ? 0 : p.maxsize > 0 ? p.maxsize : (uint64_t)m->config->log_maxsize;
        if (p.method == STK_LOG_METHOD_FILE && (force || limit > 0))
            renamed |= logs_rotate_file(m, p.target, p.backup, limit);
        stk_log_place_deinit(&p);
    }
    return renamed;
}

static bool logs_rotate(struct stk_master *m, bool force)
{
    const struct stk_config *c = m->config;
    const char *errors = stk_privilege_log_path(c->error_log);
    const char *access = stk_privilege_log_path(c->access_log);
    uint64_t limit = force ? 0 : (uint64_t)c->log_maxsize;
    bool renamed = false;

    if (force || limit > 0) {
        if (errors != NULL)
            renamed |= logs_rotate_file(m, errors, c->log_backupname, limit);
        if (access != NULL && (errors == NULL || strcmp(access, errors) != 0))
            renamed |= logs_rotate_file(m, access, NULL, limit);
    }
    renamed |= logs_rotate_loggers(m, &c->logger, force);
    renamed |= logs_rotate_loggers(m, &c->req_logger, force);
    return renamed;
}

/*
 * Only the server rotates, and not one that has been replaced, or that is to replace it: processes
 * of the other would go on in the file that was renamed, whatever its size.
 */
void stk_logs_rotate(struct stk_master *m)
{
    if (!stk_upgrade_is_server(m))
        return;
    if (logs_rotate(m, true))
        stk_master_reopen_logs(m);
    else
        stk_log_info("there is no log file to rotate");
}

static void logs_on_look(struct stk_timer *timer, void *who)
{
    struct stk_master *m = stk_container_of(timer, struct stk_master, logs.look);

    if (stk_upgrade_is_server(m) && logs_rotate(m, false))
        stk_master_reopen_logs(m);
    stk_timer_set(m->loop, timer, LOGS_LOOK_MS);
}

/* Whether some file has a largest size. */
static bool logs_are_limited(const struct stk_config *c)
{
    const struct stk_strv *all[] = {&c->logger, &c->req_logger};

    for (size_t i = 0; i < STK_ARRAY_LEN(all); i++)
        for (size_t j = 0; j < all[i]->n; j++)
            if (strstr(all[i]->items[j], "maxsize=") != NULL)
                return true;
    return c->log_maxsize > 0;
}

int stk_logs_begin(struct stk_master *m)
{
    int r = 0;

    m->logs.out = m->logs.err = m->logs.own = -1;
    m->logs.source.fd = m->logs.pump_to = m->logs.pump_stop = -1;
    stk_timer_init(&m->logs.look, logs_on_look);
    if (stk_log_fan_is_wanted(m->config, STK_LOG_FAN_MAIN))
        r = logs_collect(m);
    if (r == 0)
        r = logs_watch(m);
    if (r == 0 && logs_are_limited(m->config))
        stk_timer_set(m->loop, &m->logs.look, LOGS_LOOK_MS);
    return r;
}

void stk_logs_reopen(struct stk_master *m)
{
    if (m->logs.fan != NULL)
        stk_log_fan_reopen(m->logs.fan);
}

void stk_logs_restore(struct stk_master *m)
{
    if (m->logs.fan != NULL)
        logs_restore_streams(&m->logs);
}

void stk_logs_leave(struct stk_master *m)
{
    struct stk_master_logs *l = &m->logs;

    if (l->watch != NULL)
        stk_watch_close(l->watch);
    if (l->fan == NULL)
        return;
    l->fan = stk_log_fan_free(l->fan); /* its files are not to be held by who does not write them */
    free(stk_steal(&l->buf));
    stk_fd_close(&l->source.fd);
    /* Should the master be killed, what is printed to its pipe would fail, and requests with it. */
    stk_log_keep_streams(l->out, l->err);
    l->out = l->err = -1;
}

void stk_logs_end(struct stk_master *m)
{
    struct stk_master_logs *l = &m->logs;

    stk_timer_stop(m->loop, &l->look);
    l->watch = stk_watch_free(l->watch);
    if (l->fan != NULL) {
        struct stk_log_sink raw;

        logs_restore_streams(l); /* from here on nobody of ours writes to the pipe */
        stk_loop_del(m->loop, &l->source);
        logs_read_rest(l);
        raw = stk_log_fan_release(l->fan);
        if (raw.kind == STK_LOG_SINK_STREAM && (raw.fd == l->out || raw.fd == l->err))
            raw.fd = raw.fd == l->out ? STDOUT_FILENO : STDERR_FILENO;
        stk_log_restore(&raw);
        l->fan = NULL;
    }
    stk_fd_close(&l->source.fd);
    stk_fd_close(&l->own);
    stk_fd_close(&l->out);
    stk_fd_close(&l->err);
    free(stk_steal(&l->buf));
}
