/*
 * --daemon: two forks and a session of its own, so that no terminal can reach the server.
 *
 * The command does not return before the server is ready, because a start script that has seen exit
 * code 0 goes on as if there were one. Over a pipe it hears what the server logs as an error, which
 * it prints, and at the end a NUL byte and the exit code.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "cli/cli.h"

/* The standard stream that a log goes to, or -1. */
static int daemon_stream(const char *target, int dash_fd)
{
    if (strcmp(target, "-") == 0)
        return dash_fd;
    if (strcmp(target, "stdout") == 0 || strcmp(target, "/dev/stdout") == 0)
        return STDOUT_FILENO;
    if (strcmp(target, "stderr") == 0 || strcmp(target, "/dev/stderr") == 0)
        return STDERR_FILENO;
    return -1;
}

/* Refuses a log that would go to the terminal. */
static bool daemon_check_log(const char *option, const char *target, int dash_fd, const char *other)
{
    int fd = daemon_stream(target, dash_fd);

    if (fd < 0 || !isatty(fd))
        return true;
    fprintf(stderr,
            "daemon: %s goes to the terminal, which the server leaves: give %s a path, %s\n",
            option, option, other);
    return false;
}

/* Standard input, and what no log goes to, are closed to the world. */
static int daemon_redirect(const struct stk_config *config)
{
    STK_CLEANUP(stk_fd_closep) int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int access_fd = daemon_stream(config->access_log, STDOUT_FILENO);
    int error_fd = daemon_stream(config->error_log, STDERR_FILENO);

    if (null < 0)
        return -errno;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fd != access_fd && fd != error_fd && dup2(null, fd) < 0)
            return -errno;
    return 0;
}

/* Prints what the server says until it says its exit code. */
static int daemon_wait(int fd)
{
    char buf[4096];

    for (;;) {
        ssize_t n = read(fd, buf, sizeof buf);
        const char *end = n > 0 ? memchr(buf, '\0', (size_t)n) : NULL;
        size_t len = end != NULL ? (size_t)(end - buf) : (size_t)(n > 0 ? n : 0);

        if (n < 0 && errno == EINTR) {
            if (PyErr_CheckSignals() == 0)
                continue;
            PyErr_Clear();
            fputs("the server goes on starting without a terminal\n", stderr);
            return STK_CLI_EXIT_CONFIG;
        }
        if (len > 0 && fwrite(buf, 1, len, stderr) < len)
            return STK_CLI_EXIT_CONFIG;
        if (end != NULL)
            return end + 1 < buf + n ? (unsigned char)end[1] : STK_CLI_EXIT_CONFIG;
        if (n <= 0) {
            fputs("the server ended before it was ready: see its error log\n", stderr);
            return STK_CLI_EXIT_CONFIG;
        }
    }
}

/* As fork(), with Python told of it. */
static pid_t daemon_fork(void)
{
    pid_t pid;
    int saved;

    PyOS_BeforeFork();
    pid = fork();
    saved = errno;
    if (pid == 0)
        PyOS_AfterFork_Child();
    else
        PyOS_AfterFork_Parent();
    errno = saved;
    return pid;
}

static int daemon_fail(const char *what)
{
    fprintf(stderr, "daemon: %s: %s\n", what, strerror(errno));
    return STK_CLI_EXIT_CONFIG;
}

/* In the first child: the server is its child, and it is gone. */
static void daemon_leave(void)
{
    pid_t pid;

    if (setsid() < 0)
        _exit(STK_CLI_EXIT_CONFIG);
    pid = daemon_fork();
    if (pid != 0)
        _exit(pid < 0 ? STK_CLI_EXIT_CONFIG : STK_CLI_EXIT_OK);
}

int stk_daemon_detach(const struct stk_config *config, int *ret_fd)
{
    STK_CLEANUP(stk_fd_closep) int ours = -1;
    STK_CLEANUP(stk_fd_closep) int theirs = -1;
    int fds[2], status, r;
    pid_t pid;

    if (!daemon_check_log("error-log", config->error_log, STDERR_FILENO, "or syslog") ||
        !daemon_check_log("access-log", config->access_log, STDOUT_FILENO, "syslog, or off"))
        return STK_CLI_EXIT_CONFIG;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return daemon_fail("no pipe");
    ours = fds[0];
    theirs = fds[1];
    pid = daemon_fork();
    if (pid < 0)
        return daemon_fail("it cannot be forked");
    if (pid > 0) {
        stk_fd_close(&theirs);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        return daemon_wait(ours);
    }
    daemon_leave();
    stk_log_tee(theirs);
    *ret_fd = stk_fd_steal(&theirs);
    r = daemon_redirect(config);
    if (r < 0)
        stk_log_error("/dev/null cannot be used: %s", strerror(-r));
    if (r < 0) {
        stk_daemon_report(ret_fd, STK_CLI_EXIT_CONFIG);
        _exit(STK_CLI_EXIT_CONFIG);
    }
    return -1;
}

void stk_daemon_tell(int fd, const char *text)
{
    if (fd >= 0 && stk_fd_write_all(fd, text, strlen(text)) < 0) {
        /* Nobody waits any more; the log has it too. */
    }
}

void stk_daemon_report(int *fd, int code)
{
    const char message[2] = {'\0', (char)code};

    if (*fd < 0)
        return;
    stk_log_tee(-1);
    if (stk_fd_write_all(*fd, message, sizeof message) < 0) {
        /* Nobody waits any more. */
    }
    stk_fd_close(fd);
}
