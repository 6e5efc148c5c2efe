/*
 * Memory of processes, from /proc/PID/statm and /proc/PID/smaps_rollup (Linux 4.14). A process that
 * has dropped privileges may hide the latter from others: then there is no share to tell.
 */
#include "services/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"

/* The beginning of a file of /proc/PID, NUL-terminated. 0 or a negative errno. */
static int memory_read(pid_t pid, const char *name, char *buf, size_t size)
{
    STK_CLEANUP(stk_fd_closep) int fd = -1;
    char path[64];
    ssize_t n;

    (void)snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    do
        n = read(fd, buf, size - 1);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    buf[n] = '\0';
    return n > 0 ? 0 : -ESRCH; /* a process that has ended has empty files */
}

int stk_memory_size(pid_t pid, uint64_t *ret_rss, uint64_t *ret_vsz)
{
    unsigned long long vsz, rss;
    char buf[128];
    long page = sysconf(_SC_PAGESIZE);
    char *end;
    int r = memory_read(pid, "statm", buf, sizeof buf);

    if (r < 0)
        return r;
    vsz = strtoull(buf, &end, 10);
    if (end == buf || page <= 0)
        return -EIO;
    rss = strtoull(end, NULL, 10);
    *ret_vsz = (uint64_t)vsz * (uint64_t)page;
    *ret_rss = (uint64_t)rss * (uint64_t)page;
    return 0;
}

int stk_memory_share(pid_t pid, uint64_t *ret_pss)
{
    char buf[1024];
    const char *line;
    int r = memory_read(pid, "smaps_rollup", buf, sizeof buf);

    if (r < 0)
        return r;
    line = strstr(buf, "\nPss:");
    if (line == NULL)
        return -EIO;
    *ret_pss = (uint64_t)strtoull(line + 5, NULL, 10) * 1024;
    return 0;
}
