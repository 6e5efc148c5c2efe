/*
 * System calls of the request path, without libc's wrappers. As soon as a process has a second
 * thread, glibc makes recv, send and epoll_wait cancellation points: two locked instructions before
 * and after each, 5 % of a small request. Nothing here is ever cancelled. Where the instruction is
 * known it is here, too: syscall(2) moves all arguments by one place, and one of them to the stack.
 * (The static analyzer does not know that the kernel writes where an instruction's operands point.)
 *
 * As the functions of the same name: -1 and errno on failure.
 */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/macros.h"

/* Up to six arguments, of which integers are given as they are and pointers by STK_SYS_PTR. */
#define STK_SYS_PTR(p) ((long)(intptr_t)(p))

static inline long stk_sys_call(long number, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__) && defined(__LP64__) && !defined(__clang_analyzer__)
    long r;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;

    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    if (stk_unlikely((unsigned long)r > -4096UL)) {
        errno = (int)-r;
        return -1;
    }
    return r;
#else
    return syscall(number, a, b, c, d, e, f);
#endif
}

static inline ssize_t stk_sys_recv(int fd, void *buf, size_t len, int flags)
{
    return stk_sys_call(SYS_recvfrom, fd, STK_SYS_PTR(buf), (long)len, flags, 0, 0);
}

static inline ssize_t stk_sys_send(int fd, const void *buf, size_t len, int flags)
{
    return stk_sys_call(SYS_sendto, fd, STK_SYS_PTR(buf), (long)len, flags, 0, 0);
}

static inline ssize_t stk_sys_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return stk_sys_call(SYS_sendmsg, fd, STK_SYS_PTR(msg), flags, 0, 0, 0);
}

static inline int stk_sys_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    return (int)stk_sys_call(SYS_accept4, fd, STK_SYS_PTR(addr), STK_SYS_PTR(len), flags, 0, 0);
}

static inline int stk_sys_close(int fd)
{
    return (int)stk_sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
}

static inline int stk_sys_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout)
{
    return (int)stk_sys_call(SYS_epoll_pwait, epfd, STK_SYS_PTR(events), max, timeout, 0, 8);
}
