/*
 * Descriptor helpers. Everything here is opened close-on-exec, so that the subprocesses of an
 * application never inherit a socket or a spool file of the server.
 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void stk_fd_close(int *fd)
{
    int saved = errno;

    if (*fd >= 0 && close(*fd) < 0) {
        /* Linux releases the descriptor even when close() reports an error. */
    }
    *fd = -1;
    errno = saved;
}

int stk_fd_set_nonblock(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0)
        return -errno;
    flags = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    return fcntl(fd, F_SETFL, flags) < 0 ? -errno : 0;
}

int stk_fd_set_cloexec(int fd, bool on)
{
    return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0) < 0 ? -errno : 0;
}

int stk_fd_fill_standard(void)
{
    int fd;

    do {                                /* the lowest that is free is what open() returns */
        fd = open("/dev/null", O_RDWR); /* NOLINT(android-cloexec-open): for children as well */
        if (fd < 0)
            return -errno;
    } while (fd <= STDERR_FILENO);
    stk_fd_close(&fd);
    return 0;
}

unsigned stk_fd_take(struct msghdr *msg, int *ret_fd)
{
    unsigned count = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        size_t n;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (count++ == 0)
                *ret_fd = fd;
            else
                stk_fd_close(&fd);
        }
    }
    return count;
}

void stk_fd_put(struct msghdr *msg, int fd)
{
    struct cmsghdr *cmsg;

    memset(msg->msg_control, 0, CMSG_SPACE(sizeof(int)));
    msg->msg_controllen = CMSG_SPACE(sizeof(int));
    cmsg = CMSG_FIRSTHDR(msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
}

int stk_fd_write_all(int fd, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

int stk_fd_tempfile(const char *dir, int *ret_fd)
{
    char path[4096];
    int fd, n;

    if (dir == NULL)
        dir = getenv("TMPDIR");
    if (dir == NULL || *dir == '\0')
        dir = "/tmp";
    fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
    if (fd < 0) {
        if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL)
            return -errno;
        n = snprintf(path, sizeof path, "%s/stoker-XXXXXX", dir);
        if (n < 0 || n >= (int)sizeof path)
            return -ENAMETOOLONG;
        fd = mkostemp(path, O_CLOEXEC);
        if (fd < 0)
            return -errno;
        if (unlink(path) < 0) {
            int r = -errno;

            stk_fd_close(&fd);
            return r;
        }
    }
    *ret_fd = fd;
    return 0;
}

bool stk_fd_read_whole(int fd, char *buf, uint64_t size)
{
    uint64_t done = 0;

    while (done < size) {
        ssize_t n = pread(fd, buf + done, (size_t)(size - done), (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (uint64_t)n;
    }
    return true;
}
