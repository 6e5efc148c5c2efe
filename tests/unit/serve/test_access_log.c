/* The access log as a whole: targets, faults, rotation, forks. */
#include "serve/access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "access_entry.h"
#include "base/log.h"

static const char hello[] = "GET /hello HTTP/1.1\r\nHost: a\r\nUser-Agent: test\r\n\r\n";

struct dir {
    char path[64], log[80], old[80];
};

static int setup(void **state)
{
    struct dir *d = calloc(1, sizeof *d);

    if (d == NULL)
        return -1;
    strcpy(d->path, "/tmp/stoker-access-XXXXXX");
    if (mkdtemp(d->path) == NULL)
        return -1;
    snprintf(d->log, sizeof d->log, "%s/log", d->path);
    snprintf(d->old, sizeof d->old, "%s/old", d->path);
    *state = d;
    return 0;
}

static int teardown(void **state)
{
    struct dir *d = *state;

    unlink(d->log);
    unlink(d->old);
    rmdir(d->path);
    free(d);
    return 0;
}

static struct stk_access_log *start(const char *target, const char *format)
{
    char error[STK_ACCESS_ERROR_MAX] = "";
    struct stk_access_log *log = NULL;

    if (stk_access_log_new(&log, target, format, 1, error) != 0)
        fail_msg("%s", error);
    return log;
}

static void request(struct stk_access_log *log, unsigned status)
{
    static _Thread_local struct entry e;

    assert_true(entry_make(&e, hello, sizeof hello - 1));
    e.req.status = status;
    stk_access_log_write(log, &e.entry);
}

static void assert_file(const char *path, const char *expected)
{
    char buf[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    assert_true(fd >= 0);
    n = read(fd, buf, sizeof buf - 1);
    close(fd);
    assert_true(n >= 0);
    buf[n] = '\0';
    assert_string_equal(buf, expected);
}

static void test_file(void **state)
{
    struct dir *d = *state;
    struct stk_access_log *log = start(d->log, "{method} {path} {status} {agent}");

    request(log, 200);
    request(log, 404);
    assert_int_equal(stk_access_log_lost(log), 0);
    assert_null(stk_access_log_free(log));
    assert_file(d->log, "GET /hello 200 test\nGET /hello 404 test\n");
}

/* The time is now, in the default format. */
static void test_now(void **state)
{
    struct dir *d = *state;
    struct stk_access_log *log;
    char buf[256], year[16];
    time_t now = time(NULL);
    struct tm tm;
    int fd;
    ssize_t n;

    log = start(d->log, NULL);
    request(log, 200);
    stk_access_log_free(log);
    fd = open(d->log, O_RDONLY | O_CLOEXEC);
    n = read(fd, buf, sizeof buf - 1);
    close(fd);
    assert_true(n > 0);
    buf[n] = '\0';
    snprintf(year, sizeof year, "/%d:", localtime_r(&now, &tm)->tm_year + 1900);
    assert_non_null(strstr(buf, year));
    assert_non_null(strstr(buf, "] \"GET /hello HTTP/1.1\" 200 5120 \"-\" \"test\"\n"));
}

static void test_off(void **state)
{
    (void)state;
    assert_null(start("off", NULL));
    request(NULL, 200);
    stk_access_log_reopen(NULL);
    assert_int_equal(stk_access_log_after_fork(NULL), 0);
    assert_int_equal(stk_access_log_lost(NULL), 0);
    assert_null(stk_access_log_free(NULL));
}

static void test_faults(void **state)
{
    char error[STK_ACCESS_ERROR_MAX] = "";
    struct stk_access_log *log = NULL;

    (void)state;
    assert_int_equal(stk_access_log_new(&log, "-", "{adr}", 1, error), -EINVAL);
    assert_string_equal(error, "access-log-format: no field \"adr\"; did you mean \"addr\"?");
    assert_int_equal(stk_access_log_new(&log, "off", "{adr}", 1, error), -EINVAL);
    assert_int_equal(stk_access_log_new(&log, "/nonexistent/x", NULL, 1, error), -ENOENT);
    assert_string_equal(error,
                        "access-log: cannot open \"/nonexistent/x\": No such file or directory");
    assert_int_equal(stk_access_log_new(&log, "syslog:what", NULL, 1, error), -EINVAL);
    assert_null(log);
}

static void test_rotation(void **state)
{
    struct dir *d = *state;
    struct stk_access_log *log = start(d->log, "{status}");

    request(log, 200);
    assert_int_equal(rename(d->log, d->old), 0);
    stk_access_log_reopen(log);
    while (access(d->log, F_OK) < 0)
        poll(NULL, 0, 5);
    request(log, 201);
    stk_access_log_free(log);
    assert_file(d->old, "200\n");
    assert_file(d->log, "201\n");
}

static void test_fork(void **state)
{
    struct dir *d = *state;
    struct stk_access_log *log;
    char expected[128];
    int status;
    pid_t pid;

#ifdef __SANITIZE_THREAD__
    skip(); /* it allows no threads after such a fork */
#endif
    log = start(d->log, "{status} {pid}");
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (stk_access_log_after_fork(log) < 0)
            _exit(1);
        request(log, 201);
        stk_access_log_free(log);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    request(log, 202);
    stk_access_log_free(log);
    snprintf(expected, sizeof expected, "201 %d\n202 %d\n", (int)pid, (int)getpid());
    assert_file(d->log, expected);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_file), T(test_now), T(test_off), T(test_faults), T(test_rotation), T(test_fork),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
