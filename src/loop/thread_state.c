/*
 * The state of a thread as /proc has it (proc_pid_stat(5)): the letter behind the name. A read
 * takes some microseconds, so it is for decisions that cost more when they are wrong.
 */
#include "loop/thread_state.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

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
