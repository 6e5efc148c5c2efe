/* Times by size, and what readers make of rows: sums over slots, quantiles, who is busy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "ipc/scoreboard.h"
#include "loop/lead.h"

static void test_bounds(void **state)
{
    uint64_t start = 0;

    assert_int_equal(stk_scoreboard_bucket_end(0), 2);
    assert_int_equal(stk_scoreboard_bucket_end(1), 3);
    assert_int_equal(stk_scoreboard_bucket_end(2), 4);
    assert_int_equal(stk_scoreboard_bucket_end(3), 6);
    assert_int_equal(stk_scoreboard_bucket_end(10), 64);
    assert_int_equal(stk_scoreboard_bucket_end(11), 96);
    assert_int_equal(stk_scoreboard_bucket_end(52), 1 << 27);
    for (unsigned i = 0; i < STK_SCOREBOARD_BUCKETS; i++) {
        uint64_t end = stk_scoreboard_bucket_end(i);

        assert_true(end > start);
        assert_int_equal(stk_scoreboard_bucket(start), i);
        assert_int_equal(stk_scoreboard_bucket(end - 1), i);
        start = end;
    }
    assert_int_equal(start, UINT64_MAX);
    assert_int_equal(stk_scoreboard_bucket(UINT64_MAX), STK_SCOREBOARD_BUCKETS - 1);
}

static void test_quantiles(void **state)
{
    struct stk_histogram h = {0};

    assert_int_equal(stk_histogram_quantile(&h, 500), 0);
    h.buckets[stk_scoreboard_bucket(100)] = 99;
    h.buckets[stk_scoreboard_bucket(5000)] = 1;
    h.count = 100;
    assert_int_equal(stk_histogram_quantile(&h, 500), 127);
    assert_int_equal(stk_histogram_quantile(&h, 980), 127);
    assert_int_equal(stk_histogram_quantile(&h, 990), 6143);
    assert_int_equal(stk_histogram_quantile(&h, 1000), 6143);
    h = (struct stk_histogram){.count = 1};
    h.buckets[STK_SCOREBOARD_BUCKETS - 1] = 1;
    assert_int_equal(stk_histogram_quantile(&h, 500),
                     stk_scoreboard_bucket_end(STK_SCOREBOARD_BUCKETS - 2));
}

static void test_both_sets_add_up(void **state)
{
    struct stk_scoreboard *sb = NULL;
    struct stk_histogram h = {0};
    struct stk_scoreboard_row *row;

    assert_int_equal(stk_scoreboard_new(1, &sb), 0);
    row = &sb->rows[stk_scoreboard_claim(sb, 0, 0)];
    stk_scoreboard_latency(row, true, 10);
    stk_scoreboard_latency(row, false, 10);
    stk_scoreboard_latency(row, false, 1000);
    stk_scoreboard_add_latency(row, &h);
    assert_int_equal(h.count, 3);
    assert_int_equal(h.sum_us, 1020);
    assert_int_equal(h.buckets[stk_scoreboard_bucket(10)], 2);
    stk_scoreboard_add(row, STK_COUNTER_requests, 3);
    stk_scoreboard_add_owned(row, STK_COUNTER_requests, 4);
    assert_int_equal(stk_scoreboard_get(row, STK_COUNTER_requests), 7);
    stk_scoreboard_free(sb);
}

/* Nothing is lost when a row is used again, and nothing is counted twice. */
static void test_rows_in_turn(void **state)
{
    struct stk_scoreboard *sb = NULL;

    assert_int_equal(stk_scoreboard_new(2, &sb), 0);
    for (unsigned i = 1; i <= 5; i++) {
        struct stk_histogram latency = {0}, waiting = {0};
        struct stk_scoreboard_row *row = &sb->rows[stk_scoreboard_claim(sb, i % 2, i)];

        stk_scoreboard_latency(row, i % 2, 50);
        stk_scoreboard_waiting(row, 7);
        stk_scoreboard_add(row, STK_COUNTER_requests, 10);
        stk_scoreboard_bump(&row->answered[3], 1);
        stk_scoreboard_total_latency(sb, &latency);
        stk_scoreboard_total_waiting(sb, &waiting);
        assert_int_equal(latency.count, i);
        assert_int_equal(latency.sum_us, i * 50);
        assert_int_equal(waiting.count, i);
        assert_int_equal(waiting.sum_us, i * 7);
        assert_int_equal(atomic_load(&row->answered[3]), 1);
        assert_int_equal(stk_scoreboard_total(sb, STK_COUNTER_requests), i * 10);
        stk_scoreboard_retire(row);
    }
    assert_int_equal(stk_scoreboard_slot_total(sb, 0, STK_COUNTER_requests), 20);
    assert_int_equal(stk_scoreboard_slot_total(sb, 1, STK_COUNTER_requests), 30);
    assert_int_equal(stk_scoreboard_slot_total(sb, 2, STK_COUNTER_requests), 0);
    assert_int_equal(atomic_load(&sb->rows[0].slot_starts), 2);
    assert_int_equal(atomic_load(&sb->rows[1].slot_starts), 3);
    stk_scoreboard_free(sb);
}

static void test_row_of_a_slot(void **state)
{
    struct stk_scoreboard *sb = NULL;
    struct stk_scoreboard_row *old, *new;

    assert_int_equal(stk_scoreboard_new(4, &sb), 0);
    assert_null(stk_scoreboard_slot_row(sb, 0));
    old = &sb->rows[stk_scoreboard_claim(sb, 0, 0)];
    assert_ptr_equal(stk_scoreboard_slot_row(sb, 0), old);
    assert_null(stk_scoreboard_slot_row(sb, 1));
    atomic_store(&old->state, STK_SCOREBOARD_READY);
    new = &sb->rows[stk_scoreboard_claim(sb, 0, 1)];
    assert_ptr_equal(stk_scoreboard_slot_row(sb, 0), old);
    atomic_store(&new->state, STK_SCOREBOARD_READY);
    atomic_store(&new->started_ns, atomic_load(&old->started_ns) + 1);
    assert_ptr_equal(stk_scoreboard_slot_row(sb, 0), new);
    atomic_store(&old->state, STK_SCOREBOARD_DRAINING);
    assert_ptr_equal(stk_scoreboard_slot_row(sb, 0), new);
    stk_scoreboard_retire(new);
    assert_ptr_equal(stk_scoreboard_slot_row(sb, 0), old);
    stk_scoreboard_free(sb);
}

static void expect_busy(struct stk_scoreboard_row *row, enum stk_lead_state state, unsigned parked,
                        unsigned busy)
{
    atomic_store(&row->lead_word, 8 * 5 + state);
    atomic_store(&row->parked, parked);
    assert_int_equal(stk_scoreboard_busy(row), busy);
}

static void test_busy(void **state)
{
    struct stk_scoreboard *sb = NULL;
    struct stk_scoreboard_row *row;

    assert_int_equal(stk_scoreboard_new(1, &sb), 0);
    row = &sb->rows[0];
    assert_int_equal(stk_scoreboard_busy(row), 0);
    stk_scoreboard_set(row, STK_COUNTER_threads_busy, 2);
    assert_int_equal(stk_scoreboard_busy(row), 2);
    atomic_store(&row->threads, 4);
    expect_busy(row, STK_LEAD_BLOCKED, 3, 0);
    expect_busy(row, STK_LEAD_TURNING, 3, 0);
    expect_busy(row, STK_LEAD_IN_APP, 3, 1);
    expect_busy(row, STK_LEAD_SB_BLOCKED, 0, 4);
    expect_busy(row, STK_LEAD_SB_TURNING, 1, 3);
    expect_busy(row, STK_LEAD_BLOCKED, 1, 2);
    expect_busy(row, STK_LEAD_BLOCKED, 9, 0);
    stk_scoreboard_free(sb);
}

static void test_running(void **state)
{
    struct stk_scoreboard *sb = NULL;
    struct stk_scoreboard_running running;
    struct stk_scoreboard_request *r;

    assert_int_equal(stk_scoreboard_new(1, &sb), 0);
    r = &sb->rows[0].running[5];
    assert_false(stk_scoreboard_read_running(&sb->rows[0], 5, &running));
    r->thread = 2;
    r->id = 77;
    r->started_ns = 123;
    memset(r->method, 'M', sizeof r->method); /* both without an end */
    memset(r->target, 't', sizeof r->target);
    assert_true(stk_scoreboard_read_running(&sb->rows[0], 5, &running));
    assert_int_equal(running.thread, 2);
    assert_int_equal(running.id, 77);
    assert_int_equal(strlen(running.method), STK_SCOREBOARD_METHOD);
    assert_int_equal(strlen(running.target), STK_SCOREBOARD_TARGET);
    atomic_store(&r->seq, 3); /* being written */
    assert_false(stk_scoreboard_read_running(&sb->rows[0], 5, &running));
    stk_scoreboard_free(sb);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),           cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_both_sets_add_up), cmocka_unit_test(test_rows_in_turn),
        cmocka_unit_test(test_row_of_a_slot),    cmocka_unit_test(test_busy),
        cmocka_unit_test(test_running),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
