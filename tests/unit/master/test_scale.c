/* The number of workers follows the load. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "fixture.h"

static void set_busy(struct fixture *f, bool busy)
{
    for (unsigned i = 0; i < FIXTURE_SLOTS; i++)
        atomic_store(&f->control->busy[i], busy);
}

static void test_begins_with_the_fewest(void **state)
{
    struct fixture *f = *state;

    f->config.workers_min = 2;
    fixture_start(f, 4);
    fixture_expect(f, "ready 0 v0");
    fixture_expect(f, "ready 1 v0");
    for (unsigned slot = 2; slot < 4; slot++)
        fixture_expect(f, "adopt 0 %u", slot);
    fixture_wait_log(f, "ready after");
    fixture_expect(f, "release 0 1");
    /* What nobody serves is shared out. */
    fixture_expect(f, "adopt 1 2");
    fixture_expect(f, "release 0 2");
    fixture_expect_not(f, "start 2");
    assert_int_equal(fixture_stop(f), 0);
}

/* All busy: more workers, up to the number of slots; little to do: an idle one goes, no busy one.
 */
static void test_grows_and_shrinks(void **state)
{
    struct fixture *f = *state;

    f->config.workers_min = 1;
    set_busy(f, true);
    fixture_start(f, 4);
    for (unsigned i = 0; i < 4; i++)
        fixture_expect(f, "ready %u v0", i);
    set_busy(f, false);
    atomic_store(&f->control->busy[3], true);
    fixture_expect(f, "drain 2 30000");
    fixture_expect_not(f, "drain 3 30000");
    assert_true(fixture_log_has(f, "because there is little to do: 3 of 4 slots have workers"));
    assert_int_equal(fixture_stop(f), 0);
}

/* An idle server stays at its fewest, a worker that dies there is replaced, and a reload renews no
 * more than there are. */
static void test_stays(void **state)
{
    struct fixture *f = *state;

    f->config.workers_min = 1;
    fixture_start(f, 3);
    fixture_expect(f, "start 0");
    fixture_expect(f, "ready 0 v0");
    assert_int_equal(kill(fixture_pid(f, 0, 0), SIGKILL), 0);
    fixture_expect(f, "ready 0 v0");
    atomic_store(&f->control->version, 1);
    fixture_signal(f, SIGHUP);
    fixture_expect(f, "ready 0 v1");
    fixture_wait_log(f, "the reload is complete: 1 new worker");
    fixture_expect_not(f, "start 1");
    fixture_expect_not(f, "start 2");
    assert_int_equal(fixture_stop(f), 0);
}

/* Two slots, of which the second one's worker does not load when it is asked for. */
static void start_with_failing_growth(struct fixture *f)
{
    f->config.workers_min = 1;
    atomic_store(&f->control->load[1], FIXTURE_EXIT);
    atomic_store(&f->control->exit_code, 3);
    fixture_start(f, 2);
    fixture_expect(f, "ready 0 v0");
    set_busy(f, true);
    fixture_expect(f, "start 1");
}

/* A worker that is added and does not load is tried again, and the first goes on. */
static void test_failing_growth(void **state)
{
    struct fixture *f = *state;

    start_with_failing_growth(f);
    fixture_expect(f, "start 1");
    atomic_store(&f->control->load[1], FIXTURE_SERVE);
    fixture_expect(f, "ready 1 v0");
    fixture_expect(f, "release 0 1");
    assert_int_equal(fixture_stop(f), 0);
}

/* One that never loads is given up when it is not needed any more. */
static void test_failing_growth_is_given_up(void **state)
{
    struct fixture *f = *state;

    start_with_failing_growth(f);
    set_busy(f, false);
    fixture_wait_log(f, "because there is little to do: 1 of 2 slots have workers");
    fixture_expect_not(f, "drain 0 30000");
    assert_int_equal(fixture_stop(f), 0);
}

static void test_more_than_there_are(void **state)
{
    struct fixture *f = *state;

    f->config.workers_min = 5;
    fixture_start(f, 2);
    fixture_expect(f, "ready 0 v0");
    fixture_expect(f, "ready 1 v0");
    assert_true(fixture_log_has(f, "workers-min is 5, but there are 2 workers at most"));
    assert_int_equal(fixture_stop(f), 0);
}

#define MASTER_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MASTER_TEST(test_begins_with_the_fewest),
        MASTER_TEST(test_grows_and_shrinks),
        MASTER_TEST(test_stays),
        MASTER_TEST(test_failing_growth),
        MASTER_TEST(test_more_than_there_are),
        MASTER_TEST(test_failing_growth_is_given_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
