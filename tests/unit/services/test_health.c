/* Readiness by what the rows say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "ipc/scoreboard.h"
#include "services/health.h"

static void expect(struct stk_health *health, bool draining, unsigned status, const char *text)
{
    const struct stk_handler_request req = {.draining = draining};
    struct stk_handler_response r = {0};

    stk_health_ready(health, &req, &r);
    assert_int_equal(r.status, status);
    assert_int_equal(r.len, strlen(r.body));
    assert_string_equal(r.body, text);
    free(r.body);
    r = (struct stk_handler_response){0};
    stk_health_live(health, &req, &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body, "live\n");
    free(r.body);
}

static void test_readiness(void **state)
{
    struct stk_scoreboard *sb = NULL;
    struct stk_health health = {0};
    struct stk_scoreboard_row *rows;

    assert_int_equal(stk_scoreboard_new(2, &sb), 0);
    health.scoreboard = sb;
    rows = sb->rows;
    expect(&health, false, 503, "not ready: there is no worker\n");
    atomic_store(&rows[0].state, STK_SCOREBOARD_STARTING);
    expect(&health, true, 503, "not ready: the workers are starting\n");
    expect(&health, false, 200, "ready\n"); /* who is asked serves */
    atomic_store(&rows[0].state, STK_SCOREBOARD_READY);
    expect(&health, false, 200, "ready\n");
    expect(&health, true, 200, "ready\n"); /* this one drains, the other serves */
    atomic_store(&rows[1].state, STK_SCOREBOARD_DRAINING);
    expect(&health, true, 200, "ready\n");
    atomic_store(&rows[0].state, STK_SCOREBOARD_DRAINING);
    expect(&health, true, 503, "not ready: the server is stopping\n");
    stk_scoreboard_free(sb);
}

static void test_full_queue(void **state)
{
    struct stk_scoreboard *sb = NULL;
    struct stk_health health = {.queue_limit = 3};

    assert_int_equal(stk_scoreboard_new(2, &sb), 0);
    health.scoreboard = sb;
    for (unsigned i = 0; i < 2; i++)
        atomic_store(&sb->rows[i].state, STK_SCOREBOARD_READY);
    stk_scoreboard_set(&sb->rows[0], STK_COUNTER_requests_queued, 3);
    expect(&health, false, 200, "ready\n");
    stk_scoreboard_set(&sb->rows[1], STK_COUNTER_requests_queued, 4);
    expect(&health, false, 503, "not ready: the queue of every worker is full\n");
    health.queue_limit = 0;
    expect(&health, false, 200, "ready\n");
    stk_scoreboard_free(sb);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readiness),
        cmocka_unit_test(test_full_queue),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
