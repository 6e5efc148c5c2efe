/* Replacing single workers: the new one first, not too many at a time, and what happens when it
 * does not start. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "fixture.h"
#include "ipc/channel.h"

static void start(struct fixture *f, unsigned n)
{
    fixture_start(f, n);
    for (unsigned i = 0; i < n; i++) {
        fixture_expect(f, "start %u", i);
        fixture_expect(f, "ready %u v0", i);
    }
}

/* Makes a worker ask for its replacement. */
static void retire(struct fixture *f, unsigned slot, enum stk_channel_retire reason)
{
    pid_t pid = fixture_pid(f, slot, 0);

    atomic_store(&f->control->retire, (int)reason);
    assert_int_equal(kill(pid, SIGUSR2), 0);
}

static void test_replacement_comes_first(void **state)
{
    struct fixture *f = *state;
    pid_t old;

    start(f, 2);
    old = fixture_pid(f, 1, 0);
    atomic_store(&f->control->load[1], FIXTURE_HANG);
    retire(f, 1, STK_CHANNEL_RETIRE_REQUESTS);
    fixture_expect(f, "start 1");
    fixture_expect_not(f, "drain 1 30000");
    assert_true(fixture_log_has(f, "has answered 1234 requests (max-requests)"));

    /* The replacement dies, the old one stays, and the next attempt succeeds. */
    atomic_store(&f->control->load[1], FIXTURE_SERVE);
    atomic_store(&f->control->version, 1);
    fixture_signal(f, SIGHUP); /* drops the replacement that hangs */
    fixture_expect(f, "ready 1 v1");
    fixture_expect(f, "drain 1 30000");
    assert_int_not_equal(fixture_pid(f, 1, old), old);
    assert_int_equal(fixture_stop(f), 0);
}

static void test_ready_replacement(void **state)
{
    struct fixture *f = *state;

    start(f, 2);
    atomic_store(&f->control->version, 5);
    retire(f, 0, STK_CHANNEL_RETIRE_CANCELLED);
    fixture_expect(f, "ready 0 v5");
    fixture_expect(f, "drain 0 30000");
    fixture_wait_log(f, "has cancelled a request");
    fixture_expect_not(f, "start 1");
    assert_int_equal(fixture_stop(f), 0);
}

/* One at a time, draining included. */
static void test_one_at_a_time(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->control->ignores_drain, true);
    start(f, 2);
    retire(f, 0, STK_CHANNEL_RETIRE_REQUESTS);
    fixture_expect(f, "start 0");
    retire(f, 1, STK_CHANNEL_RETIRE_REQUESTS);
    fixture_expect(f, "drain 0 30000");
    for (int i = 0; i < 200 && fixture_log_count(f, "max-requests") < 2; i++)
        usleep(10000);
    fixture_expect_not(f, "start 1");
    fixture_signal(f, SIGQUIT);
    assert_int_equal(fixture_wait(f), 0);
}

static void test_several_at_a_time(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->control->ignores_drain, true);
    f->config.recycle_parallel = 2;
    start(f, 3);
    retire(f, 0, STK_CHANNEL_RETIRE_REQUESTS);
    fixture_expect(f, "drain 0 30000");
    retire(f, 1, STK_CHANNEL_RETIRE_REQUESTS);
    fixture_expect(f, "drain 1 30000");
    retire(f, 2, STK_CHANNEL_RETIRE_REQUESTS);
    for (int i = 0; i < 200 && fixture_log_count(f, "max-requests") < 3; i++)
        usleep(10000);
    fixture_expect_not(f, "start 2");
    fixture_signal(f, SIGQUIT);
    assert_int_equal(fixture_wait(f), 0);
}

static void test_failed_replacement(void **state)
{
    struct fixture *f = *state;

    start(f, 2);
    atomic_store(&f->control->load[0], FIXTURE_EXIT);
    atomic_store(&f->control->exit_code, 3);
    retire(f, 0, STK_CHANNEL_RETIRE_REQUESTS);
    fixture_wait_log(f, "a replacement, cannot load the application: the old worker goes on");
    fixture_expect_not(f, "drain 0 30000");
    atomic_store(&f->control->load[0], FIXTURE_SERVE);
    atomic_store(&f->control->version, 2);
    fixture_expect(f, "ready 0 v2"); /* by itself, after a pause */
    fixture_expect(f, "drain 0 30000");
    assert_int_equal(fixture_stop(f), 0);
}

/* A worker that is stuck goes all the same, for the others serve. */
static void test_stuck_without_replacement(void **state)
{
    struct fixture *f = *state;

    start(f, 2);
    atomic_store(&f->control->load[0], FIXTURE_EXIT);
    atomic_store(&f->control->exit_code, 3);
    retire(f, 0, STK_CHANNEL_RETIRE_STUCK);
    fixture_expect(f, "drain 0 30000");
    fixture_expect(f, "adopt 1 0");
    assert_true(fixture_log_has(f, "goes without one"));
    atomic_store(&f->control->load[0], FIXTURE_SERVE);
    atomic_store(&f->control->version, 1);
    fixture_expect(f, "ready 0 v1");
    fixture_expect(f, "release 1 0");
    assert_int_equal(fixture_stop(f), 0);
}

/* The last one stays until there is another. */
static void test_stuck_and_alone(void **state)
{
    struct fixture *f = *state;

    start(f, 1);
    atomic_store(&f->control->load[0], FIXTURE_EXIT);
    atomic_store(&f->control->exit_code, 3);
    retire(f, 0, STK_CHANNEL_RETIRE_STUCK);
    fixture_wait_log(f, "the old worker goes on");
    fixture_expect_not(f, "drain 0 30000");
    assert_int_equal(fixture_stop(f), 0);
}

/* What is to be replaced dies: its replacement takes the place, and no third one is started. */
static void test_death_during_replacement(void **state)
{
    struct fixture *f = *state;
    pid_t old;

    start(f, 2);
    old = fixture_pid(f, 0, 0);
    atomic_store(&f->control->load[0], FIXTURE_HANG);
    retire(f, 0, STK_CHANNEL_RETIRE_REQUESTS);
    fixture_expect(f, "start 0");
    assert_int_equal(kill(old, SIGKILL), 0);
    fixture_expect(f, "adopt 1 0");
    fixture_wait_log(f, "its replacement is being started already");
    fixture_expect_not(f, "start 0");
    assert_int_equal(fixture_stop(f), 0);
}

static void test_lifetime(void **state)
{
    struct fixture *f = *state;

    f->config.max_lifetime = 400;
    start(f, 2);
    fixture_expect(f, "drain 0 30000");
    fixture_expect(f, "drain 1 30000");
    assert_true(fixture_log_has(f, "(max-lifetime): a new one is started in its place"));
    assert_int_equal(fixture_stop(f), 0);
}

/* Too large: replaced; too large again at once: left alone for a minute. */
static void test_memory(void **state)
{
    struct fixture *f = *state;

    f->config.max_rss = FIXTURE_HOG;
    atomic_store(&f->control->hog, true);
    start(f, 1);
    fixture_expect(f, "start 0");
    fixture_expect(f, "ready 0 v0");
    fixture_expect(f, "drain 0 30000");
    assert_true(fixture_log_has(f, "(max-rss) in"));
    usleep(300000);
    fixture_expect_not(f, "start 0");
    assert_int_equal(fixture_stop(f), 0);
}

static void test_proportional_share(void **state)
{
    struct fixture *f = *state;

    f->config.max_pss = FIXTURE_HOG;
    atomic_store(&f->control->hog, true);
    start(f, 1);
    fixture_expect(f, "drain 0 30000");
    assert_true(fixture_log_has(f, "(max-pss) in"));
    assert_int_equal(fixture_stop(f), 0);
}

static void test_stop_during_replacement(void **state)
{
    struct fixture *f = *state;

    start(f, 1);
    atomic_store(&f->control->load[0], FIXTURE_HANG);
    retire(f, 0, STK_CHANNEL_RETIRE_REQUESTS);
    fixture_expect(f, "start 0");
    assert_int_equal(fixture_stop(f), 0);
    fixture_expect(f, "drain 0 30000 last");
}

#define MASTER_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MASTER_TEST(test_replacement_comes_first),
        MASTER_TEST(test_ready_replacement),
        MASTER_TEST(test_one_at_a_time),
        MASTER_TEST(test_several_at_a_time),
        MASTER_TEST(test_failed_replacement),
        MASTER_TEST(test_stuck_without_replacement),
        MASTER_TEST(test_stuck_and_alone),
        MASTER_TEST(test_death_during_replacement),
        MASTER_TEST(test_lifetime),
        MASTER_TEST(test_memory),
        MASTER_TEST(test_proportional_share),
        MASTER_TEST(test_stop_during_replacement),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
