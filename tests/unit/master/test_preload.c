/* Templates: workers forked from a process that has the application loaded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fixture.h"

static void start_preloaded(struct fixture *f, unsigned n)
{
    f->config.preload = true;
    fixture_start(f, n);
    fixture_expect(f, "load");
    fixture_expect(f, "freeze");
    for (unsigned i = 0; i < n; i++) {
        fixture_expect(f, "start %u preloaded", i);
        fixture_expect(f, "ready %u v0", i);
    }
}

static pid_t parent_of(pid_t pid)
{
    char path[64], buf[512];
    char *p;
    FILE *file;
    size_t n;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    assert_non_null(file);
    n = fread(buf, 1, sizeof buf - 1, file);
    fclose(file);
    buf[n] = '\0';
    p = strrchr(buf, ')');
    assert_non_null(p);
    return (pid_t)strtol(p + 4, NULL, 10);
}

static void test_workers_are_the_masters_children(void **state)
{
    struct fixture *f = *state;

    start_preloaded(f, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(parent_of(fixture_pid(f, i, 0)), f->master);
    assert_int_equal(atomic_load(&f->control->templates), 1);
    assert_int_equal(fixture_stop(f), 0);
    fixture_expect(f, "unload");
    for (unsigned i = 0; i < 3; i++)
        fixture_expect(f, "drain %u 30000 last", i);
}

static void test_crash_is_replaced_from_the_template(void **state)
{
    struct fixture *f = *state;

    start_preloaded(f, 2);
    assert_int_equal(kill(fixture_pid(f, 1, 0), SIGSEGV), 0);
    fixture_expect(f, "adopt 0 1");
    fixture_expect(f, "start 1 preloaded");
    fixture_expect(f, "ready 1 v0");
    assert_int_equal(atomic_load(&f->control->templates), 1);
    assert_true(fixture_log_has(f, "was killed by SIGSEGV"));
    assert_int_equal(fixture_stop(f), 0);
}

/* A template that dies harms no worker, and comes back when one is needed. */
static void test_template_dies(void **state)
{
    struct fixture *f = *state;

    start_preloaded(f, 1);
    assert_int_equal(kill(atomic_load(&f->control->template_pid), SIGKILL), 0);
    for (int i = 0; i < 2000 && fixture_log_count(f, "a new one is started when") == 0; i++)
        usleep(10000);
    assert_true(fixture_log_has(f, "a new one is started when a worker has to be"));
    assert_int_equal(atomic_load(&f->control->templates), 1);
    assert_int_equal(kill(fixture_pid(f, 0, 0), SIGKILL), 0);
    fixture_expect(f, "load");
    fixture_expect(f, "ready 0 v0");
    assert_int_equal(atomic_load(&f->control->templates), 2);
    assert_int_equal(fixture_stop(f), 0);
}

static void test_load_failure(void **state)
{
    struct fixture *f = *state;

    f->config.preload = true;
    atomic_store(&f->control->template_code, 3);
    fixture_start(f, 4);
    assert_int_equal(fixture_wait(f), 3);
    fixture_expect(f, "load");
    fixture_expect_not(f, "load");
    fixture_expect_not(f, "start 0 preloaded");
}

static void test_reload(void **state)
{
    struct fixture *f = *state;

    start_preloaded(f, 2);
    atomic_store(&f->control->version, 1);
    fixture_signal(f, SIGHUP);
    fixture_expect(f, "load");
    fixture_expect(f, "unload");
    fixture_expect(f, "ready 0 v1");
    fixture_expect(f, "drain 0 30000");
    fixture_expect(f, "ready 1 v1");
    fixture_expect(f, "drain 1 30000");
    assert_int_equal(fixture_stop(f), 0);
    assert_int_equal(atomic_load(&f->control->templates), 2);
}

/* A new template that cannot load leaves the old one, which still replaces workers. */
static void test_failed_reload(void **state)
{
    struct fixture *f = *state;

    start_preloaded(f, 1);
    atomic_store(&f->control->template_code, 3);
    fixture_signal(f, SIGHUP);
    fixture_expect(f, "load");
    for (int i = 0; i < 2000 && fixture_log_count(f, "the reload failed") == 0; i++)
        usleep(10000);
    assert_true(fixture_log_has(f, "the old workers go on"));
    fixture_expect_not(f, "drain 0 30000");
    assert_int_equal(kill(fixture_pid(f, 0, 0), SIGKILL), 0);
    fixture_expect(f, "start 0 preloaded");
    fixture_expect(f, "ready 0 v0");
    assert_int_equal(atomic_load(&f->control->templates), 2);
    assert_int_equal(fixture_stop(f), 0);
}

/* Has a worker name what it has imported. */
static void name_modules(struct fixture *f, unsigned slot)
{
    atomic_store(&f->control->modules, true);
    assert_int_equal(kill(fixture_pid(f, slot, 0), SIGUSR2), 0);
}

/* A template is forked from the template, imports what a worker has imported, and replaces it. */
static void test_refresh(void **state)
{
    struct fixture *f = *state;

    f->config.preload_refresh = 1;
    start_preloaded(f, 2);
    atomic_store(&f->control->version, 1);
    name_modules(f, 1);
    fixture_expect(f, "import one");
    fixture_expect(f, "import two.three");
    fixture_expect(f, "freeze");
    fixture_expect(f, "unload");
    fixture_expect(f, "ready 0 v1");
    fixture_expect(f, "drain 0 30000");
    fixture_expect(f, "ready 1 v1");
    fixture_expect(f, "drain 1 30000");
    fixture_wait_log(f, "preload-refresh is complete: 2 new workers");
    assert_int_equal(parent_of(fixture_pid(f, 0, 0)), f->master);
    assert_int_equal(atomic_load(&f->control->templates), 1); /* nothing was loaded again */
    fixture_expect(f, "start 0 preloaded");
    fixture_expect(f, "start 1 preloaded");

    /* It forks on, and can be forked from in its turn. */
    assert_int_equal(kill(fixture_pid(f, 0, 0), SIGKILL), 0);
    fixture_expect(f, "start 0 preloaded");
    fixture_expect(f, "ready 0 v1");
    atomic_store(&f->control->version, 2);
    name_modules(f, 0);
    fixture_expect(f, "ready 1 v2");
    assert_int_equal(fixture_stop(f), 0);
}

static void test_failed_refresh(void **state)
{
    struct fixture *f = *state;

    f->config.preload_refresh = 1;
    start_preloaded(f, 1);
    atomic_store(&f->control->template_code, 3);
    name_modules(f, 0);
    fixture_wait_log(f, "preload-refresh failed, because the template");
    fixture_expect_not(f, "drain 0 30000");
    assert_int_equal(kill(fixture_pid(f, 0, 0), SIGKILL), 0);
    fixture_expect(f, "start 0 preloaded");
    fixture_expect(f, "ready 0 v0");
    assert_int_equal(fixture_stop(f), 0);
}

/* A reload comes first: it loads everything anew. */
static void test_reload_during_refresh(void **state)
{
    struct fixture *f = *state;

    f->config.preload_refresh = 1;
    start_preloaded(f, 2);
    atomic_store(&f->control->load[0], FIXTURE_HANG);
    name_modules(f, 0);
    fixture_expect(f, "start 0 preloaded");
    atomic_store(&f->control->load[0], FIXTURE_SERVE);
    atomic_store(&f->control->version, 4);
    fixture_signal(f, SIGHUP);
    fixture_expect(f, "ready 0 v4");
    fixture_expect(f, "ready 1 v4");
    fixture_wait_log(f, "the reload is complete: 2 new workers");
    assert_int_equal(atomic_load(&f->control->templates), 2);
    assert_int_equal(fixture_stop(f), 0);
}

static void test_master_killed(void **state)
{
    struct fixture *f = *state;

    start_preloaded(f, 2);
    fixture_signal(f, SIGKILL);
    assert_int_equal(fixture_wait(f), -SIGKILL);
    fixture_expect(f, "eof 0");
    fixture_expect(f, "eof 1");
    fixture_expect(f, "unload");
}

#define MASTER_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MASTER_TEST(test_workers_are_the_masters_children),
        MASTER_TEST(test_crash_is_replaced_from_the_template),
        MASTER_TEST(test_template_dies),
        MASTER_TEST(test_load_failure),
        MASTER_TEST(test_reload),
        MASTER_TEST(test_failed_reload),
        MASTER_TEST(test_refresh),
        MASTER_TEST(test_failed_refresh),
        MASTER_TEST(test_reload_during_refresh),
        MASTER_TEST(test_master_killed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
