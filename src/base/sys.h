/*
 * System calls of the request path, without libc's wrappers. As soon as a process has a second
 * thread, glibc makes recv, send and epoll_wait cancellation points: two locked instructions before
 * and after each, 5 % of a small request. Nothing here is ever cancelled.
 *
 * As the functions of the same name: -1 and errno on failure.
 */
#pragma once

#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static inline ssize_t stk_sys_recv(int fd, void *buf, size_t len, int flags)
{
    return syscall(SYS_recvfrom, fd, buf, len, flags, NULL, NULL);
}

static inline ssize_t stk_sys_send(int fd, const void *buf, size_t len, int flags)
{
    return syscall(SYS_sendto, fd, buf, len, flags, NULL, 0);
}

static inline ssize_t stk_sys_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return syscall(SYS_sendmsg, fd, msg, flags);
}

static inline int stk_sys_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    return (int)syscall(SYS_accept4, fd, addr, len, flags);
}

static inline int stk_sys_close(int fd)
{
    return (int)syscall(SYS_close, fd);
}

static inline int stk_sys_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout)
{
    return (int)syscall(SYS_epoll_pwait, epfd, events, max, timeout, NULL, 8);
}
