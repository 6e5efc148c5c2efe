/* The scoreboard: rows are shared with children, and no count is lost when a row is used again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/scoreboard.h"

static void test_claim_until_full(void **state)
{
    struct stk_scoreboard *sb = NULL;

    assert_int_equal(stk_scoreboard_new(2, &sb), 0);
    assert_int_equal(stk_scoreboard_claim(sb, 5, 1), 0);
    assert_int_equal(stk_scoreboard_claim(sb, 6, 2), 1);
    assert_int_equal(stk_scoreboard_claim(sb, 7, 3), -ENOSPC);
    assert_int_equal(atomic_load(&sb->rows[1].slot), 6);
    assert_int_equal(atomic_load(&sb->rows[1].generation), 2);
    assert_int_equal(atomic_load(&sb->rows[1].state), STK_SCOREBOARD_STARTING);
    stk_scoreboard_retire(&sb->rows[0]);
    assert_int_equal(atomic_load(&sb->rows[0].state), STK_SCOREBOARD_GONE);
    assert_int_equal(stk_scoreboard_claim(sb, 7, 3), 0);
    assert_null(stk_scoreboard_free(sb));
    assert_null(stk_scoreboard_free(NULL));
}

static void test_rows_are_apart(void **state)
{
    struct stk_scoreboard *sb = NULL;

    assert_int_equal(stk_scoreboard_new(2, &sb), 0);
    assert_int_equal((uintptr_t)&sb->rows[0] % 64, 0);
    assert_true((uintptr_t)&sb->rows[1].state / 64 !=
                (uintptr_t)&sb->rows[0].close_reasons[63] / 64);
    stk_scoreboard_free(sb);
}

static void test_child_counts_survive_it(void **state)
{
    struct stk_scoreboard *sb = NULL;
    int status, row;
    pid_t child;

    assert_int_equal(stk_scoreboard_new(1, &sb), 0);
    for (int i = 0; i < 3; i++) {
        row = stk_scoreboard_claim(sb, 0, 0);
        assert_int_equal(row, 0);
        child = fork();
        if (child == 0) {
            stk_scoreboard_add(&sb->rows[row], STK_COUNTER_requests, 10);
            stk_scoreboard_add_owned(&sb->rows[row], STK_COUNTER_bytes_out, 1000);
            stk_scoreboard_add(&sb->rows[row], STK_COUNTER_connections_open, 3);
            stk_scoreboard_sub(&sb->rows[row], STK_COUNTER_connections_open, 1);
            stk_scoreboard_set(&sb->rows[row], STK_COUNTER_requests_queued, 4);
            stk_scoreboard_close_reason(&sb->rows[row], 63);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(stk_scoreboard_get(&sb->rows[row], STK_COUNTER_requests), 10);
        assert_int_equal(stk_scoreboard_total(sb, STK_COUNTER_connections_open), 2);
        assert_int_equal(stk_scoreboard_total(sb, STK_COUNTER_requests_queued), 4);
        stk_scoreboard_retire(&sb->rows[row]);
        assert_int_equal(stk_scoreboard_total(sb, STK_COUNTER_connections_open), 0);
        assert_int_equal(stk_scoreboard_total(sb, STK_COUNTER_requests), 10 * (i + 1));
        assert_int_equal(stk_scoreboard_total(sb, STK_COUNTER_bytes_out), 1000 * (i + 1));
        assert_int_equal(stk_scoreboard_total_reason(sb, 63), i + 1);
    }
    stk_scoreboard_free(sb);
}

static void test_tables(void **state)
{
    assert_string_equal(stk_scoreboard_counter_name(STK_COUNTER_requests), "requests");
    assert_true(strlen(stk_scoreboard_counter_help(STK_COUNTER_requests)) > 0);
    assert_null(stk_scoreboard_counter_name(STK_COUNTERS));
    assert_null(stk_scoreboard_counter_help(STK_COUNTERS));
    assert_true(stk_scoreboard_counter_is_gauge(STK_COUNTER_threads_busy));
    assert_false(stk_scoreboard_counter_is_gauge(STK_COUNTER_requests));
    assert_string_equal(stk_scoreboard_state_name(STK_SCOREBOARD_DRAINING), "draining");
    assert_null(stk_scoreboard_state_name(STK_SCOREBOARD_STATES));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_claim_until_full),
        cmocka_unit_test(test_rows_are_apart),
        cmocka_unit_test(test_child_counts_survive_it),
        cmocka_unit_test(test_tables),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
