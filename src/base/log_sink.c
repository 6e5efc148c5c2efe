/*
 * Targets of logs.
 *
 * A log must never stop the server, and an inherited standard stream must not become non-blocking,
 * because that flag belongs to everyone who shares it (a shell, other workers, the application).
 * So each kind has its own way not to wait: MSG_DONTWAIT for sockets, RWF_NOWAIT for pipes (Linux
 * 6.4), and otherwise a poll before the write, which leaves a window as small as the race of two
 * processes for the last free page of a pipe. Regular files are simply written.
 *
 * Datagrams go to an address that is not connected: a reader that comes later, or again, is found
 * without anybody looking for it.
 *
 * Syslog is spoken here rather than by syslog(3): libc keeps one identity and one lock a process.
 * The application may openlog() under another name, and a fork may inherit the lock taken; neither
 * may change or stop our log. And syslog(3) waits for a stalled daemon.
 */
#include "base/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log_clock.h"
#include "base/mem.h"
#include "base/sigpipe.h"

enum { SINK_FILE_WRITE_MAX = 64 * 1024 };

int stk_log_sink_facility(const char *name)
{
    static const struct {
        const char *name;
        int value;
    } facilities[] = {
        {"daemon", LOG_DAEMON}, {"user", LOG_USER},     {"auth", LOG_AUTH},
        {"cron", LOG_CRON},     {"kern", LOG_KERN},     {"lpr", LOG_LPR},
        {"mail", LOG_MAIL},     {"news", LOG_NEWS},     {"syslog", LOG_SYSLOG},
        {"uucp", LOG_UUCP},     {"local0", LOG_LOCAL0}, {"local1", LOG_LOCAL1},
        {"local2", LOG_LOCAL2}, {"local3", LOG_LOCAL3}, {"local4", LOG_LOCAL4},
        {"local5", LOG_LOCAL5}, {"local6", LOG_LOCAL6}, {"local7", LOG_LOCAL7},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(facilities); i++)
        if (strcmp(name, facilities[i].name) == 0)
            return facilities[i].value;
    return -EINVAL;
}

void stk_log_sink_probe(struct stk_log_sink *sink)
{
    struct stat st;

    sink->type = STK_LOG_SINK_OTHER;
    if (fstat(sink->fd, &st) < 0)
        return; /* the write will say what is wrong */
    if (S_ISREG(st.st_mode))
        sink->type = STK_LOG_SINK_REGULAR;
    else if (S_ISFIFO(st.st_mode))
        sink->type = STK_LOG_SINK_PIPE;
    else if (S_ISSOCK(st.st_mode))
        sink->type = STK_LOG_SINK_SOCKET;
    else if (S_ISCHR(st.st_mode) && isatty(sink->fd))
        sink->type = STK_LOG_SINK_TERMINAL;
}

/* O_NONBLOCK: this description is ours alone, and a named pipe without a reader must not hang us.
 */
static int sink_open_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);

    return fd < 0 ? -errno : fd;
}

/* The application may change its directory before the file is opened again. */
static char *sink_absolute(const char *path)
{
    STK_CLEANUP(stk_mem_freep) char *dir = NULL;

    if (path[0] != '/')
        dir = getcwd(NULL, 0);
    return dir != NULL ? stk_mem_printf("%s/%s", dir, path) : stk_mem_strdup(path);
}

static int sink_connect(const struct stk_log_sink *sink)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(sink->path);

    if (len >= sizeof addr.sun_path)
        return -ENAMETOOLONG;
    memcpy(addr.sun_path, sink->path, len);
    return connect(sink->fd, (const struct sockaddr *)&addr, sizeof addr) < 0 ? -errno : 0;
}

int stk_log_sink_open_syslog(struct stk_log_sink *ret_sink, const char *path, int facility)
{
    struct stk_log_sink sink = {
        .kind = STK_LOG_SINK_SYSLOG, .type = STK_LOG_SINK_SOCKET, .facility = facility};
    int r;

    sink.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sink.fd < 0)
        return -errno;
    sink.path = stk_mem_strdup(path);
    r = sink_connect(&sink);
    if (r < 0) {
        stk_log_sink_close(&sink);
        return r;
    }
    *ret_sink = sink;
    return 0;
}

int stk_log_sink_open_datagram(struct stk_log_sink *ret_sink, const struct sockaddr *peer,
                               socklen_t peer_len, const char *address, const char *ident,
                               int facility, size_t packet_max)
{
    struct stk_log_sink sink = {.kind = STK_LOG_SINK_DATAGRAM,
                                .type = STK_LOG_SINK_SOCKET,
                                .facility = facility,
                                .peer_len = peer_len,
                                .packet_max = packet_max};

    sink.fd = socket(peer->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sink.fd < 0)
        return -errno;
    sink.path = stk_mem_strdup(address);
    sink.ident = ident != NULL ? stk_mem_strdup(ident) : NULL;
    sink.peer = stk_mem_zalloc(peer_len);
    memcpy(sink.peer, peer, peer_len);
    *ret_sink = sink;
    return 0;
}

int stk_log_sink_open(struct stk_log_sink *ret_sink, const char *target, int dash_fd)
{
    struct stk_log_sink sink = {.kind = STK_LOG_SINK_STREAM, .fd = -1};

    if (strcmp(target, "syslog") == 0)
        return stk_log_sink_open_syslog(ret_sink, "/dev/log", LOG_DAEMON);
    if (strncmp(target, "syslog:", 7) == 0) {
        int facility = stk_log_sink_facility(target + 7);

        return facility < 0 ? facility : stk_log_sink_open_syslog(ret_sink, "/dev/log", facility);
    }
    if (*target == '\0')
        return -EINVAL;
    /* The names under /dev cannot be opened when the stream is a socket, as under systemd. */
    if (strcmp(target, "-") == 0)
        sink.fd = dash_fd;
    else if (strcmp(target, "stdout") == 0 || strcmp(target, "/dev/stdout") == 0)
        sink.fd = STDOUT_FILENO;
    else if (strcmp(target, "stderr") == 0 || strcmp(target, "/dev/stderr") == 0)
        sink.fd = STDERR_FILENO;
    if (sink.fd < 0) {
        sink.fd = sink_open_file(target);
        if (sink.fd < 0)
            return sink.fd;
        sink.kind = STK_LOG_SINK_FILE;
        sink.path = sink_absolute(target);
    }
    stk_log_sink_probe(&sink);
    *ret_sink = sink;
    return 0;
}

/* Not of devices: /dev/null is everybody's. */
static int sink_chmod(int fd, mode_t mode)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
        return 0;
    return fchmod(fd, mode) < 0 ? -errno : 0;
}

int stk_log_sink_reopen(struct stk_log_sink *sink)
{
    STK_CLEANUP(stk_fd_closep) int fd = -1;
    int r;

    if (sink->kind == STK_LOG_SINK_SYSLOG)
        return sink_connect(sink);
    if (sink->kind != STK_LOG_SINK_FILE)
        return 0;
    fd = sink_open_file(sink->path);
    if (fd < 0)
        return fd;
    r = sink->mode != 0 ? sink_chmod(fd, sink->mode) : 0;
    if (r < 0 && r != -EPERM) /* EPERM: another user has made it again */
        return r;
    if (dup3(fd, sink->fd, O_CLOEXEC) < 0)
        return -errno;
    stk_log_sink_probe(sink);
    return 0;
}

int stk_log_sink_chmod(struct stk_log_sink *sink, mode_t mode)
{
    if (sink->kind != STK_LOG_SINK_FILE || mode == 0)
        return 0;
    sink->mode = mode;
    return sink_chmod(sink->fd, mode);
}

void stk_log_sink_close(struct stk_log_sink *sink)
{
    if (sink->kind != STK_LOG_SINK_STREAM)
        stk_fd_close(&sink->fd);
    sink->fd = -1;
    free(stk_steal(&sink->path));
    free(stk_steal(&sink->ident));
    free(stk_steal(&sink->peer));
}

size_t stk_log_sink_write_max(const struct stk_log_sink *sink)
{
    return sink->type == STK_LOG_SINK_REGULAR ? SINK_FILE_WRITE_MAX : STK_LOG_LINE_MAX;
}

static int sink_priority(const struct stk_log_sink *sink, enum stk_log_level level)
{
    static const int severities[] = {
        [STK_LOG_DEBUG] = LOG_DEBUG, [STK_LOG_INFO] = LOG_INFO,     [STK_LOG_WARNING] = LOG_WARNING,
        [STK_LOG_ERROR] = LOG_ERR,   [STK_LOG_CRITICAL] = LOG_CRIT,
    };

    return sink->facility | severities[level];
}

static ssize_t sink_write_syslog(const struct stk_log_sink *sink, enum stk_log_level level,
                                 const char *data, size_t len)
{
    struct stk_log_clock clock;
    struct msghdr msg = {0};
    struct iovec iov[2];
    char head[128];
    int n;

    stk_log_clock_local(time(NULL), &clock);
    n = snprintf(head, sizeof head,
                 "<%d>%s %2u %02u:%02u:%02u %.31s[%d]: ", sink_priority(sink, level),
                 stk_log_clock_month(clock.month), clock.day, clock.hour, clock.minute,
                 clock.second, sink->ident != NULL ? sink->ident : "stoker", (int)getpid());
    iov[0] = (struct iovec){.iov_base = head, .iov_len = (size_t)n};
    iov[1] = (struct iovec){.iov_base = (void *)(uintptr_t)data,
                            .iov_len = len > 0 && data[len - 1] == '\n' ? len - 1 : len};
    msg.msg_iov = iov;
    msg.msg_iovlen = 2;
    for (int attempt = 0;; attempt++) {
        if (sendmsg(sink->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return (ssize_t)len;
        if (errno == ENOBUFS)
            return -EAGAIN;
        if (errno != EINTR && (errno == EAGAIN || attempt > 0 || sink_connect(sink) < 0))
            return -errno; /* a restarted daemon has a new socket: hence the connect */
    }
}

/* As uWSGI sends them: a line is a notice, if it is nothing worse. */
static int sink_notice(const struct stk_log_sink *sink, enum stk_log_level level)
{
    return level > STK_LOG_INFO ? sink_priority(sink, level) : sink->facility | LOG_NOTICE;
}

static ssize_t sink_write_datagram(const struct stk_log_sink *sink, enum stk_log_level level,
                                   const char *data, size_t len)
{
    struct stk_log_clock clock;
    size_t text = len > 0 && data[len - 1] == '\n' ? len - 1 : len;
    struct msghdr msg = {.msg_name = sink->peer, .msg_namelen = sink->peer_len};
    size_t room = SIZE_MAX, at = 0;
    struct iovec iov[2];
    char head[320];
    int n = 0;

    if (sink->facility >= 0) {
        stk_log_clock_local(time(NULL), &clock);
        n = snprintf(head, sizeof head,
                     "<%d>%s %2u %02u:%02u:%02u %.255s: ", sink_notice(sink, level),
                     stk_log_clock_month(clock.month), clock.day, clock.hour, clock.minute,
                     clock.second, sink->ident != NULL ? sink->ident : "stoker");
    } else if (sink->ident != NULL) {
        n = snprintf(head, sizeof head, "%.255s", sink->ident);
    }
    if (sink->packet_max > 0)
        room = sink->packet_max > (size_t)n ? sink->packet_max - (size_t)n : 0;
    iov[0] = (struct iovec){.iov_base = head, .iov_len = (size_t)n};
    msg.msg_iov = iov;
    msg.msg_iovlen = 2;
    do {
        size_t piece = text - at < room ? text - at : room;

        iov[1] = (struct iovec){.iov_base = (void *)(uintptr_t)(data + at), .iov_len = piece};
        if (sendmsg(sink->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            return errno == ENOBUFS ? -EAGAIN : -errno;
        at += piece;
    } while (sink->split && at < text && room > 0);
    return (ssize_t)len;
}

static ssize_t sink_write_polled(const struct stk_log_sink *sink, const char *data, size_t len)
{
    struct pollfd pfd = {.fd = sink->fd, .events = POLLOUT};
    int ready = poll(&pfd, 1, 0);

    if (ready < 0 && errno != EINTR)
        return -1;
    if (ready <= 0 || (pfd.revents & (POLLOUT | POLLERR | POLLHUP | POLLNVAL)) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(sink->fd, data, len);
}

/* As write(2), but it never waits. */
static ssize_t sink_write_once(const struct stk_log_sink *sink, const char *data, size_t len)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    ssize_t n;

    switch (sink->type) {
    case STK_LOG_SINK_REGULAR:
        return write(sink->fd, data, len);
    case STK_LOG_SINK_SOCKET:
        return send(sink->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    case STK_LOG_SINK_PIPE:
        n = pwritev2(sink->fd, &iov, 1, -1, RWF_NOWAIT);
        if (n >= 0 || errno == EAGAIN || errno == EPIPE || errno == EINTR)
            return n;
        break; /* an older kernel */
    case STK_LOG_SINK_TERMINAL:
    case STK_LOG_SINK_OTHER:
        break;
    }
    return sink_write_polled(sink, data, len);
}

ssize_t stk_log_sink_write(const struct stk_log_sink *sink, enum stk_log_level level,
                           const char *data, size_t len)
{
    bool pipe = sink->type == STK_LOG_SINK_PIPE;
    struct stk_sigpipe guard;
    ssize_t n;

    if (sink->kind == STK_LOG_SINK_SYSLOG)
        return sink_write_syslog(sink, level, data, len);
    if (sink->kind == STK_LOG_SINK_DATAGRAM)
        return sink_write_datagram(sink, level, data, len);
    if (pipe)
        stk_sigpipe_hold(&guard);
    do {
        n = sink_write_once(sink, data, len);
    } while (n < 0 && errno == EINTR);
    if (pipe)
        stk_sigpipe_release(&guard, n < 0 && errno == EPIPE);
    return n < 0 ? -errno : n;
}

void stk_log_sink_wait(const struct stk_log_sink *sink, int timeout_ms)
{
    struct pollfd pfd = {.fd = sink->fd, .events = POLLOUT};

    if (poll(&pfd, 1, timeout_ms) < 0) {
        /* Interrupted or out of memory: the caller tries to write and comes back. */
    }
}

const char *stk_log_sink_reader(const struct stk_log_sink *sink)
{
    if (sink->kind == STK_LOG_SINK_SYSLOG)
        return "the syslog daemon";
    switch (sink->type) {
    case STK_LOG_SINK_REGULAR:
        return "the disk";
    case STK_LOG_SINK_PIPE:
        return "the reader of the pipe";
    case STK_LOG_SINK_SOCKET:
        return "the reader of the socket";
    case STK_LOG_SINK_TERMINAL:
        return "the terminal";
    case STK_LOG_SINK_OTHER:
        break;
    }
    return "the device";
}
