/* Starting, dying, adopting, stopping: what the master does for its workers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "fixture.h"
#include "net/listen.h"

static void test_start_and_stop(void **state)
{
    struct fixture *f = *state;

    fixture_start(f, 3);
    for (unsigned i = 0; i < 3; i++)
        fixture_expect(f, "ready %u v0", i);
    assert_int_equal(fixture_stop(f), 0);
    for (unsigned i = 0; i < 3; i++)
        fixture_expect(f, "drain %u 30000 last", i);
    assert_true(fixture_log_has(f, "SIGTERM: stopping"));
    assert_true(fixture_log_has(f, "ready after"));
    /* The counters of the workers outlive them. */
    assert_true(fixture_log_has(f, "stopped after 21 requests"));
}

/* The first worker starts alone, adopts the others' sockets, and gives them back. */
static void test_first_start_in_order(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->control->load[1], FIXTURE_HANG);
    fixture_start(f, 3);
    fixture_expect(f, "ready 0 v0");
    fixture_expect(f, "adopt 0 1");
    fixture_expect(f, "adopt 0 2");
    fixture_expect(f, "ready 2 v0");
    fixture_expect(f, "release 0 2");
    fixture_expect_not(f, "release 0 1");
    assert_int_equal(fixture_stop(f), 0);
}

/* A first worker that takes long does not hold the others back for ever. */
static void test_slow_first_worker(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->control->load[0], FIXTURE_HANG);
    fixture_start(f, 2);
    fixture_expect(f, "start 0");
    fixture_expect(f, "ready 1 v0");
    fixture_expect(f, "adopt 1 0");
    assert_int_equal(fixture_stop(f), 0);
}

static void test_crash_is_replaced(void **state)
{
    struct fixture *f = *state;
    pid_t pid;
    char text[64];

    fixture_start(f, 2);
    fixture_expect(f, "ready 0 v0");
    fixture_expect(f, "ready 1 v0");
    fixture_expect(f, "release 0 1");
    pid = fixture_pid(f, 1, 0);
    assert_int_equal(kill(pid, SIGSEGV), 0);
    fixture_expect(f, "adopt 0 1");
    fixture_expect(f, "ready 1 v0");
    fixture_expect(f, "release 0 1");
    snprintf(text, sizeof text, "worker 2 (%d) was killed by SIGSEGV", (int)pid);
    assert_true(fixture_log_has(f, text));
    assert_true(fixture_log_has(f, "and 7 requests"));
    assert_int_equal(fixture_stop(f), 0);
}

/* The adopter dies too: whoever is left adopts everything. */
static void test_adopter_dies(void **state)
{
    struct fixture *f = *state;

    fixture_start(f, 3);
    for (unsigned i = 0; i < 3; i++)
        fixture_expect(f, "ready %u v0", i);
    fixture_expect(f, "release 0 1");
    fixture_expect(f, "release 0 2");
    atomic_store(&f->control->load[2], FIXTURE_HANG);
    assert_int_equal(kill(fixture_pid(f, 2, 0), SIGKILL), 0);
    fixture_expect(f, "adopt 0 2");
    atomic_store(&f->control->load[0], FIXTURE_HANG);
    assert_int_equal(kill(fixture_pid(f, 0, 0), SIGKILL), 0);
    fixture_expect(f, "adopt 1 0");
    fixture_expect(f, "adopt 1 2");
    assert_true(fixture_log_has(f, "was killed by SIGKILL (somebody's"));
    assert_int_equal(fixture_stop(f), 0);
}

/* What dies before it is ready is tried again after pauses that double. */
static void test_backoff(void **state)
{
    struct fixture *f = *state;

    fixture_start(f, 2);
    fixture_expect(f, "ready 0 v0");
    fixture_expect(f, "ready 1 v0");
    fixture_expect(f, "start 1");
    atomic_store(&f->control->load[1], FIXTURE_ABORT);
    assert_int_equal(kill(fixture_pid(f, 1, 0), SIGKILL), 0);
    for (int i = 0; i < 4; i++)
        fixture_expect(f, "start 1");
    atomic_store(&f->control->load[1], FIXTURE_SERVE);
    fixture_expect(f, "ready 1 v0");
    assert_true(fixture_log_has(f, "was killed by SIGABRT"));
    assert_true(fixture_log_has(f, "in 0.2 s"));
    assert_true(fixture_log_has(f, "in 0.4 s"));
    assert_int_equal(fixture_stop(f), 0);
}

static void test_load_failure_ends_the_server(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 4; i++)
        atomic_store(&f->control->load[i], FIXTURE_EXIT);
    atomic_store(&f->control->exit_code, 3);
    fixture_start(f, 4);
    assert_int_equal(fixture_wait(f), 3);
    fixture_expect(f, "start 0");
    /* The others are spared the same traceback. */
    fixture_expect_not(f, "start 1");
    assert_int_equal(fixture_log_count(f, "cannot be loaded"), 1);
}

/* One that cannot load does not end a server that serves. */
static void test_later_load_failure(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->control->load[1], FIXTURE_EXIT);
    atomic_store(&f->control->exit_code, 3);
    fixture_start(f, 2);
    fixture_expect(f, "ready 0 v0");
    fixture_expect(f, "start 1");
    fixture_expect(f, "start 1");
    atomic_store(&f->control->load[1], FIXTURE_SERVE);
    fixture_expect(f, "ready 1 v0");
    assert_true(fixture_log_has(f, "ended with exit code 3"));
    assert_int_equal(fixture_stop(f), 0);
}

static void test_crashing_at_start_ends_the_server(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->control->load[0], FIXTURE_ABORT);
    fixture_start(f, 1);
    assert_int_equal(fixture_wait(f), 3);
    assert_true(fixture_log_has(f, "no worker has ever been ready"));
}

static void test_worker_that_leaves(void **state)
{
    struct fixture *f = *state;
    pid_t pid;

    atomic_store(&f->control->ignores_drain, true);
    fixture_start(f, 2);
    fixture_expect(f, "ready 0 v0");
    fixture_expect(f, "ready 1 v0");
    pid = fixture_pid(f, 1, 0);
    assert_int_equal(kill(pid, SIGTERM), 0);
    fixture_expect(f, "ready 1 v0");
    assert_true(fixture_pid(f, 1, pid) != pid);
    assert_true(fixture_log_has(f, "leaves"));
    assert_int_equal(kill(pid, 0), 0);
    atomic_store(&f->control->ignores_drain, false);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(fixture_stop(f), 0);
}

static void test_quit_is_now(void **state)
{
    struct fixture *f = *state;

    fixture_start(f, 2);
    fixture_expect(f, "ready 0 v0");
    fixture_expect(f, "ready 1 v0");
    fixture_signal(f, SIGQUIT);
    assert_int_equal(fixture_wait(f), 0);
    fixture_expect(f, "stop 0");
    fixture_expect(f, "stop 1");
    fixture_expect_not(f, "drain 0 30000 last");
}

static void test_second_interrupt_is_now(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->control->ignores_drain, true);
    fixture_start(f, 1);
    fixture_expect(f, "ready 0 v0");
    fixture_signal(f, SIGINT);
    fixture_expect(f, "drain 0 30000 last");
    usleep(150 * 1000); /* sooner it would be taken for the first */
    fixture_signal(f, SIGINT);
    assert_int_equal(fixture_wait(f), 0);
    fixture_expect(f, "stop 0");
    assert_true(fixture_log_has(f, "stopping now"));
}

/* A worker that hears nothing is killed, and says so in the log. */
static void test_deaf_worker_is_killed(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->control->ignores_all, true);
    f->config.graceful_timeout = 50;
    f->config.exit_timeout = 50;
    fixture_start(f, 1);
    fixture_expect(f, "ready 0 v0");
    assert_int_equal(fixture_stop(f), 0);
    assert_true(fixture_log_has(f, "does not exit: it is killed"));
}

static void test_stop_while_loading(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->control->load[0], FIXTURE_HANG);
    fixture_start(f, 1);
    fixture_expect(f, "start 0");
    assert_int_equal(fixture_stop(f), 0);
}

static void test_master_killed(void **state)
{
    struct fixture *f = *state;

    fixture_start(f, 2);
    fixture_expect(f, "ready 0 v0");
    fixture_expect(f, "ready 1 v0");
    fixture_signal(f, SIGKILL);
    assert_int_equal(fixture_wait(f), -SIGKILL);
    /* Nobody but the master holds the other ends, so each worker hears of it. */
    fixture_expect(f, "eof 0");
    fixture_expect(f, "eof 1");
}

static void test_logs_are_reopened(void **state)
{
    struct fixture *f = *state;
    char moved[160];
    struct stat st;

    fixture_start(f, 1);
    fixture_expect(f, "ready 0 v0");
    snprintf(moved, sizeof moved, "%s.1", f->log);
    assert_int_equal(rename(f->log, moved), 0);
    fixture_signal(f, SIGUSR1);
    fixture_expect(f, "reopen 0");
    assert_int_equal(stat(f->log, &st), 0);
    assert_int_equal(fixture_stop(f), 0);
    assert_true(fixture_log_has(f, "opened again"));
}

static void test_port_in_use(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_in in4 = {.sin_family = AF_INET};
    socklen_t len = sizeof in4;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    in4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&in4, len), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in4, &len), 0);
    free(f->bind[0]);
    f->bind[0] = stk_mem_printf("127.0.0.1:%u", ntohs(in4.sin_port));
    fixture_start(f, 2);
    assert_int_equal(fixture_wait(f), 1);
    assert_true(fixture_log_has(f, "in use by another process"));
    close(fd);
}

static void test_pidfile(void **state)
{
    struct fixture *f = *state;
    char name[] = "pid";
    char path[128], text[32] = "";
    struct stat st;
    int fd;

    f->config.pidfile = name;
    fixture_start(f, 1);
    fixture_expect(f, "ready 0 v0");
    snprintf(path, sizeof path, "%s/pid", f->dir);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    assert_int_equal(atoi(text), f->master);
    assert_int_equal(fixture_stop(f), 0);
    assert_int_equal(stat(path, &st), -1);
}

/* The socket file is there while serving, and is not taken away by a worker's end. */
static void test_unix_socket(void **state)
{
    struct fixture *f = *state;
    char path[128];
    struct stat st;

    snprintf(path, sizeof path, "%s/sock", f->dir);
    free(f->bind[0]);
    f->bind[0] = stk_mem_printf("unix:%s", path);
    fixture_start(f, 2);
    fixture_expect(f, "ready 0 v0");
    fixture_expect(f, "ready 1 v0");
    assert_int_equal(kill(fixture_pid(f, 1, 0), SIGKILL), 0);
    fixture_expect(f, "ready 1 v0");
    assert_int_equal(stat(path, &st), 0);
    /* All workers share the socket: there is nothing to adopt. */
    fixture_expect_not(f, "adopt 0 1");
    assert_int_equal(fixture_stop(f), 0);
    assert_int_equal(stat(path, &st), -1);
}

#define MASTER_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MASTER_TEST(test_start_and_stop),
        MASTER_TEST(test_first_start_in_order),
        MASTER_TEST(test_slow_first_worker),
        MASTER_TEST(test_crash_is_replaced),
        MASTER_TEST(test_adopter_dies),
        MASTER_TEST(test_backoff),
        MASTER_TEST(test_load_failure_ends_the_server),
        MASTER_TEST(test_later_load_failure),
        MASTER_TEST(test_crashing_at_start_ends_the_server),
        MASTER_TEST(test_worker_that_leaves),
        MASTER_TEST(test_quit_is_now),
        MASTER_TEST(test_second_interrupt_is_now),
        MASTER_TEST(test_deaf_worker_is_killed),
        MASTER_TEST(test_stop_while_loading),
        MASTER_TEST(test_master_killed),
        MASTER_TEST(test_logs_are_reopened),
        MASTER_TEST(test_port_in_use),
        MASTER_TEST(test_pidfile),
        MASTER_TEST(test_unix_socket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
