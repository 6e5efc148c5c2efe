/*
 * The pidfile.
 *
 * The lock says whether a server of ours lives, whatever the file holds: it ends with its process,
 * so a leftover is never mistaken for a server, and an id that the kernel has given to another
 * process meanwhile does no harm. A server that does not lock (another program's) is found by the
 * id in the file, unless the process with that id is younger than the file and so cannot have
 * written it.
 */
#include "master/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"

/* Clocks differ by their granularity. */
#define PIDFILE_SLACK_S 2

static int pidfile_fail(char **ret_error, int code, char *error)
{
    *ret_error = error;
    return code;
}

static ssize_t pidfile_read_text(const char *path, char *buf, size_t size)
{
    STK_CLEANUP(stk_fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

    buf[n > 0 ? n : 0] = '\0';
    return n;
}

/* When a process started, in seconds of the real-time clock; -1: unknown. */
static time_t pidfile_started(pid_t pid)
{
    char path[64], buf[1024];
    struct timespec real, boot;
    const char *p;
    long hz = sysconf(_SC_CLK_TCK);

    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (hz <= 0 || pidfile_read_text(path, buf, sizeof buf) <= 0)
        return -1;
    p = strrchr(buf, ')'); /* the name may hold anything */
    for (int field = 2; p != NULL && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (p == NULL || clock_gettime(CLOCK_REALTIME, &real) < 0 ||
        clock_gettime(CLOCK_BOOTTIME, &boot) < 0)
        return -1;
    return real.tv_sec - boot.tv_sec + (time_t)(strtoll(p + 1, NULL, 10) / hz);
}

/* Whether the process that the file names may have written it, and lives. */
static bool pidfile_is_alive(int fd, pid_t pid)
{
    struct stat st;
    time_t started;

    if (pid <= 0 || pid == getpid() || (kill(pid, 0) < 0 && errno == ESRCH))
        return false;
    started = pidfile_started(pid);
    return started < 0 || fstat(fd, &st) < 0 || started <= st.st_mtim.tv_sec + PIDFILE_SLACK_S;
}

static pid_t pidfile_read_pid(int fd)
{
    char buf[32];
    ssize_t n = pread(fd, buf, sizeof buf - 1, 0);
    long v;

    if (n <= 0)
        return 0;
    buf[n] = '\0';
    v = strtol(buf, NULL, 10);
    return v > 0 && v <= INT_MAX ? (pid_t)v : 0;
}

static int pidfile_put(int fd, pid_t pid)
{
    char buf[32];
    int n = snprintf(buf, sizeof buf, "%d\n", (int)pid);

    errno = 0;
    /* In this order nobody finds the file empty, or another number in its first line. */
    if (pwrite(fd, buf, (size_t)n, 0) != n)
        return errno != 0 ? -errno : -EIO;
    return ftruncate(fd, n) < 0 ? -errno : 0;
}

static char *pidfile_absolute(const char *path)
{
    char cwd[PATH_MAX];

    if (*path == '/' || getcwd(cwd, sizeof cwd) == NULL)
        return stk_mem_strdup(path);
    return stk_mem_printf("%s/%s", cwd, path);
}

int stk_pidfile_write(const char *path, struct stk_pidfile *ret_pidfile, char **ret_error)
{
    STK_CLEANUP(stk_fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    pid_t pid;
    int r;

    if (fd < 0) {
        r = -errno;
        return pidfile_fail(ret_error, r, stk_mem_printf("the pidfile %s: %m", path));
    }
    pid = pidfile_read_pid(fd);
    if ((flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) || pidfile_is_alive(fd, pid))
        return pidfile_fail(
            ret_error, -EEXIST,
            stk_mem_printf("the pidfile %s is held by process %d, which lives: stop "
                           "it, or choose another --pidfile",
                           path, (int)pid));
    r = pidfile_put(fd, getpid());
    if (r < 0) {
        errno = -r;
        return pidfile_fail(ret_error, r,
                            stk_mem_printf("the pidfile %s cannot be written: %m", path));
    }
    *ret_pidfile = (struct stk_pidfile){.fd = stk_fd_steal(&fd), .pid = getpid()};
    ret_pidfile->path = pidfile_absolute(path);
    return 0;
}

bool stk_pidfile_adopt(const char *path, int fd, struct stk_pidfile *ret_pidfile)
{
    struct stat ours, there;

    if (fstat(fd, &ours) < 0 || lstat(path, &there) < 0 || ours.st_ino != there.st_ino ||
        ours.st_dev != there.st_dev)
        return false;
    *ret_pidfile = (struct stk_pidfile){.fd = fd, .pid = getpid(), .path = pidfile_absolute(path)};
    return true;
}

void stk_pidfile_hand_over(struct stk_pidfile *pidfile, pid_t pid)
{
    if (pidfile->path == NULL)
        return;
    if (pidfile_put(pidfile->fd, pid) < 0) {
        /* The disk is full: the server runs, and its process id is in the log. */
    }
    if (pid == pidfile->pid)
        return;
    stk_fd_close(&pidfile->fd);
    free(stk_steal(&pidfile->path));
}

void stk_pidfile_remove(struct stk_pidfile *pidfile)
{
    struct stat ours, there;

    if (pidfile->path == NULL)
        return;
    if (pidfile->pid == getpid() && pidfile_read_pid(pidfile->fd) == pidfile->pid &&
        fstat(pidfile->fd, &ours) == 0 && lstat(pidfile->path, &there) == 0 &&
        ours.st_ino == there.st_ino && ours.st_dev == there.st_dev && unlink(pidfile->path) < 0) {
        /* A leftover does no harm: the next start replaces it. */
    }
    stk_fd_close(&pidfile->fd);
    free(stk_steal(&pidfile->path));
}
