/* Replacing workers: one by one, and all at once when a file was saved. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fixture.h"

static void start_two(struct fixture *f)
{
    fixture_start(f, 2);
    fixture_expect(f, "ready 0 v0");
    fixture_expect(f, "ready 1 v0");
    fixture_expect(f, "start 0");
    fixture_expect(f, "start 1");
}

static void test_rolling(void **state)
{
    struct fixture *f = *state;

    start_two(f);
    atomic_store(&f->control->version, 1);
    fixture_signal(f, SIGHUP);
    fixture_expect(f, "ready 0 v1");
    fixture_expect(f, "drain 0 30000");
    fixture_expect(f, "ready 1 v1");
    fixture_expect(f, "drain 1 30000");
    fixture_wait_log(f, "the reload is complete: 2 new workers");
    assert_false(fixture_log_has(f, "not answered"));
    assert_int_equal(fixture_stop(f), 0);
}

/* The old worker is told to go only when the new one is ready. */
static void test_failed_reload_keeps_the_old(void **state)
{
    struct fixture *f = *state;
    pid_t before;

    start_two(f);
    before = fixture_pid(f, 0, 0);
    atomic_store(&f->control->load[0], FIXTURE_EXIT);
    atomic_store(&f->control->exit_code, 3);
    fixture_signal(f, SIGHUP);
    fixture_expect(f, "start 0");
    for (int i = 0; i < 2000 && fixture_log_count(f, "the reload failed") == 0; i++)
        usleep(10000);
    assert_true(fixture_log_has(f, "the old workers go on"));
    fixture_expect_not(f, "drain 0 30000");
    fixture_expect_not(f, "start 1");
    assert_int_equal(kill(before, 0), 0);

    /* And the next try works. */
    atomic_store(&f->control->load[0], FIXTURE_SERVE);
    atomic_store(&f->control->version, 2);
    fixture_signal(f, SIGHUP);
    fixture_expect(f, "ready 0 v2");
    fixture_expect(f, "ready 1 v2");
    assert_int_equal(fixture_stop(f), 0);
}

/* A second HUP starts over: a replacement that hangs is given up. */
static void test_reload_during_reload(void **state)
{
    struct fixture *f = *state;

    start_two(f);
    atomic_store(&f->control->load[0], FIXTURE_HANG);
    fixture_signal(f, SIGHUP);
    fixture_expect(f, "start 0");
    atomic_store(&f->control->load[0], FIXTURE_SERVE);
    atomic_store(&f->control->version, 3);
    fixture_signal(f, SIGHUP);
    fixture_expect(f, "ready 0 v3");
    fixture_expect(f, "ready 1 v3");
    fixture_expect(f, "drain 0 30000");
    fixture_expect(f, "drain 1 30000");
    assert_int_equal(fixture_stop(f), 0);
}

/* Old workers that take long to drain do not stop further reloads. */
static void test_many_reloads_while_draining(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->control->ignores_drain, true);
    f->config.graceful_timeout = 100;
    f->config.exit_timeout = 100;
    start_two(f);
    for (int v = 1; v <= 5; v++) {
        atomic_store(&f->control->version, v);
        fixture_signal(f, SIGHUP);
        fixture_expect(f, "ready 0 v%d", v);
        fixture_expect(f, "ready 1 v%d", v);
    }
    fixture_signal(f, SIGQUIT);
    assert_int_equal(fixture_wait(f), 0);
}

/* The first new worker is alone, the others follow together. */
static void test_all_at_once(void **state)
{
    struct fixture *f = *state;

    f->config.reload_mode = STK_RELOAD_ALL;
    fixture_start(f, 4);
    for (unsigned i = 0; i < 4; i++) {
        fixture_expect(f, "start %u", i);
        fixture_expect(f, "ready %u v0", i);
    }
    atomic_store(&f->control->load[0], FIXTURE_EXIT);
    atomic_store(&f->control->exit_code, 3);
    fixture_signal(f, SIGHUP);
    fixture_expect(f, "start 0");
    fixture_wait_log(f, "the reload failed, because worker 1");
    fixture_expect_not(f, "start 1");
    atomic_store(&f->control->load[0], FIXTURE_SERVE);
    for (unsigned i = 1; i < 4; i++)
        atomic_store(&f->control->load[i], FIXTURE_HANG);
    fixture_signal(f, SIGHUP);
    for (unsigned i = 0; i < 4; i++)
        fixture_expect(f, "start %u", i);
    fixture_expect(f, "drain 0 30000");
    fixture_expect_not(f, "drain 1 30000");
    assert_int_equal(fixture_stop(f), 0);
}

/* A slot whose worker has died gets a new one that does not load: the reload has failed. */
static void test_reload_of_a_dead_worker(void **state)
{
    struct fixture *f = *state;

    start_two(f);
    atomic_store(&f->control->exit_code, 3);
    atomic_store(&f->control->load[0], FIXTURE_EXIT);
    assert_int_equal(kill(fixture_pid(f, 0, 0), SIGKILL), 0);
    fixture_expect(f, "start 0");
    fixture_signal(f, SIGHUP);
    fixture_wait_log(f, "the reload failed");
    atomic_store(&f->control->load[0], FIXTURE_SERVE);
    fixture_expect(f, "ready 0 v0");
    assert_int_equal(fixture_stop(f), 0);
}

static void test_stop_during_reload(void **state)
{
    struct fixture *f = *state;

    start_two(f);
    atomic_store(&f->control->load[0], FIXTURE_HANG);
    fixture_signal(f, SIGHUP);
    fixture_expect(f, "start 0");
    assert_int_equal(fixture_stop(f), 0);
}

static void save(struct fixture *f, const char *name, const char *text)
{
    char path[192], temp[192];
    int fd;

    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    snprintf(temp, sizeof temp, "%s/%s~", f->dir, name);
    fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    assert_int_equal(rename(temp, path), 0);
}

static void prepare_source(struct fixture *f)
{
    f->config.autoreload = true;
    save(f, "app.py", "one");
    snprintf(f->control->source, sizeof f->control->source, "%s/app.py", f->dir);
}

static void test_autoreload(void **state)
{
    struct fixture *f = *state;

    prepare_source(f);
    start_two(f);
    atomic_store(&f->control->version, 1);
    save(f, "app.py", "two!");
    fixture_expect(f, "drain 0 2000");
    fixture_expect(f, "drain 1 2000");
    fixture_expect(f, "ready 0 v1");
    fixture_expect(f, "ready 1 v1");
    assert_true(fixture_log_has(f, "app.py changed: restarting"));
    /* Files that are not the application's do not count. */
    fixture_expect(f, "start 0");
    fixture_expect(f, "start 1");
    save(f, "other.py", "x");
    save(f, "data.db", "x");
    atomic_store(&f->control->version, 2);
    save(f, "app.py", "three");
    fixture_expect(f, "ready 0 v2");
    fixture_expect(f, "ready 1 v2");
    assert_int_equal(fixture_log_count(f, "changed: restarting"), 2);
    assert_int_equal(fixture_stop(f), 0);
}

static void test_autoreload_waits_after_failure(void **state)
{
    struct fixture *f = *state;

    prepare_source(f);
    atomic_store(&f->control->load[0], FIXTURE_EXIT);
    atomic_store(&f->control->exit_code, 3);
    fixture_start(f, 2);
    fixture_expect(f, "start 0");
    for (int i = 0; i < 2000 && fixture_log_count(f, "waiting for the next save") == 0; i++)
        usleep(10000);
    assert_true(fixture_log_has(f, "waiting for the next save"));
    fixture_expect_not(f, "start 1");
    atomic_store(&f->control->load[0], FIXTURE_SERVE);
    atomic_store(&f->control->version, 1);
    save(f, "app.py", "mended");
    fixture_expect(f, "ready 0 v1");
    fixture_expect(f, "ready 1 v1");
    assert_int_equal(fixture_stop(f), 0);
}

/* The file that was missing is on no list, and yet its appearance is a reason to try again. */
static void test_autoreload_new_file(void **state)
{
    struct fixture *f = *state;

    prepare_source(f);
    atomic_store(&f->control->load[0], FIXTURE_EXIT);
    atomic_store(&f->control->exit_code, 3);
    fixture_start(f, 1);
    for (int i = 0; i < 2000 && fixture_log_count(f, "waiting for the next save") == 0; i++)
        usleep(10000);
    atomic_store(&f->control->load[0], FIXTURE_SERVE);
    save(f, "helper.py", "new");
    fixture_expect(f, "ready 0 v0");
    assert_int_equal(fixture_stop(f), 0);
}

/* A file that is touched, changed or made. */
static void test_touch(void **state)
{
    struct fixture *f = *state;
    char there[] = "there.txt", later[192];
    char *paths[] = {there, later, NULL};

    snprintf(later, sizeof later, "%s/later.txt", f->dir);
    f->config.touch_reload = (struct stk_strv){.items = paths, .n = 2};
    save(f, "there.txt", "x");
    start_two(f);
    atomic_store(&f->control->version, 1);
    save(f, "there.txt", "xy");
    fixture_expect(f, "ready 0 v1");
    fixture_expect(f, "drain 0 30000");
    fixture_expect(f, "ready 1 v1");
    fixture_wait_log(f, "there.txt was touched: restarting the workers");
    atomic_store(&f->control->version, 2);
    save(f, "later.txt", "");
    fixture_expect(f, "ready 0 v2");
    fixture_expect(f, "ready 1 v2");
    fixture_wait_log(f, "later.txt was touched");
    assert_int_equal(fixture_stop(f), 0);
}

#define MASTER_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MASTER_TEST(test_rolling),
        MASTER_TEST(test_failed_reload_keeps_the_old),
        MASTER_TEST(test_reload_during_reload),
        MASTER_TEST(test_many_reloads_while_draining),
        MASTER_TEST(test_all_at_once),
        MASTER_TEST(test_reload_of_a_dead_worker),
        MASTER_TEST(test_stop_during_reload),
        MASTER_TEST(test_autoreload),
        MASTER_TEST(test_autoreload_waits_after_failure),
        MASTER_TEST(test_autoreload_new_file),
        MASTER_TEST(test_touch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
