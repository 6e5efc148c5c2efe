/*
 * The state of a thread as /proc has it (proc_pid_stat(5)): the letter behind the name; and the
 * system call that it is in (proc_pid_syscall(5)). A read takes some microseconds, so it is for
 * decisions that cost more when they are wrong.
 */
#include "loop/thread_state.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/macros.h"

int stk_thread_state_open(void)
{
    return open("/proc/thread-self/stat", O_RDONLY | O_CLOEXEC);
}

bool stk_thread_is_runnable(int fd)
{
    char text[64]; /* process id, 15 bytes of name in parentheses, the letter */
    const char *name_end;
    ssize_t n;

    if (fd < 0)
        return false;
    n = pread(fd, text, sizeof text, 0);
    if (n <= 0)
        return false;
    name_end = memrchr(text, ')', (size_t)n);
    return name_end != NULL && name_end + 2 < text + n && name_end[2] == 'R';
}

int stk_thread_wait_open(void)
{
    return open("/proc/thread-self/syscall", O_RDONLY | O_CLOEXEC);
}

enum stk_thread_wait stk_thread_wait(int fd)
{
    static const long calls[] = {
#ifdef SYS_epoll_wait
        SYS_epoll_wait,
#endif
#ifdef SYS_epoll_pwait2
        SYS_epoll_pwait2,
#endif
        SYS_epoll_pwait,
    };
    char text[32]; /* the number, then arguments; or "running" */
    char *end;
    ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
    long call;

    if (n <= 0)
        return STK_THREAD_WAIT_UNKNOWN;
    text[n] = '\0';
    call = strtol(text, &end, 10);
    for (size_t i = 0; end != text && i < STK_ARRAY_LEN(calls); i++)
        if (call == calls[i])
            return STK_THREAD_WAIT_EVENTS;
    return STK_THREAD_WAIT_NOT;
}
