/* The text for Prometheus; its grammar is checked by the real parser in tests/life. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ipc/scoreboard.h"
#include "services/prometheus.h"

static const char *reason_name(unsigned reason)
{
    return reason == 0 ? "client" : "reset";
}

static void expect_line(const char *text, const char *line)
{
    const char *at = strstr(text, line);

    if (at == NULL || (at != text && at[-1] != '\n') || at[strlen(line)] != '\n')
        fail_msg("no line %s in:\n%s", line, text);
}

static struct stk_prometheus make(struct stk_scoreboard *sb)
{
    struct stk_prometheus p = {.scoreboard = sb,
                               .nworkers = 2,
                               .runtime = "3.11.7",
                               .reason_name = reason_name,
                               .nreasons = 2};

    stk_prometheus_init(&p);
    return p;
}

static void test_text(void **state)
{
    struct stk_scoreboard *sb = NULL;
    struct stk_prometheus p;
    struct stk_scoreboard_row *row;
    size_t len = 0;
    char *text;

    (void)setlocale(LC_ALL, "de_DE.UTF-8"); /* numbers keep their point */
    assert_int_equal(stk_scoreboard_new(4, &sb), 0);
    p = make(sb);
    row = &sb->rows[stk_scoreboard_claim(sb, 1, 0)];
    atomic_store(&row->state, STK_SCOREBOARD_READY);
    atomic_store(&row->pid, (uint64_t)getpid());
    atomic_store(&row->pss, 4096);
    stk_scoreboard_add(row, STK_COUNTER_requests, 5);
    stk_scoreboard_add(row, STK_COUNTER_responses_2xx, 4);
    stk_scoreboard_add(row, STK_COUNTER_gil_wait_us, 1500042);
    stk_scoreboard_set(row, STK_COUNTER_connections_open, 16);
    stk_scoreboard_add(row, STK_COUNTER_connections_reading, 2);
    stk_scoreboard_set(row, STK_COUNTER_threads_busy, 3);
    stk_scoreboard_set(row, STK_COUNTER_requests_suspended, 7);
    stk_scoreboard_add(row, STK_COUNTER_websockets_open, 6);
    stk_scoreboard_close_reason(row, 1);
    stk_scoreboard_latency(row, true, 70);
    stk_scoreboard_latency(row, true, 1u << 30);
    atomic_fetch_add(&sb->restarts_by[STK_RESTART_CRASH], 2);
    text = stk_prometheus_text(&p, &len);
    assert_non_null(text);
    assert_int_equal(len, strlen(text));
    expect_line(text, "stoker_build_info{version=\"" STK_VERSION "\",python=\"3.11.7\"} 1");
    expect_line(text, "# TYPE stoker_requests_total counter");
    expect_line(text, "stoker_requests_total 5");
    expect_line(text, "stoker_responses_total{class=\"2xx\"} 4");
    expect_line(text, "stoker_requests_suspended 7");
    expect_line(text, "stoker_websockets_open 6");
    expect_line(text, "# TYPE stoker_websockets_open gauge");
    expect_line(text, "stoker_gil_wait_seconds_total 1.500042");
    expect_line(text, "stoker_request_duration_seconds_bucket{le=\"0.000064\"} 0");
    expect_line(text, "stoker_request_duration_seconds_bucket{le=\"0.000096\"} 1");
    expect_line(text, "stoker_request_duration_seconds_bucket{le=\"134.217728\"} 1");
    expect_line(text, "stoker_request_duration_seconds_bucket{le=\"+Inf\"} 2");
    expect_line(text, "stoker_request_duration_seconds_sum 1073.741894");
    expect_line(text, "stoker_request_duration_seconds_count 2");
    expect_line(text, "stoker_connections{state=\"reading\"} 2");
    expect_line(text, "stoker_connections{state=\"active\"} 10"); /* busy and suspended */
    expect_line(text, "stoker_connections{state=\"idle\"} 4");
    expect_line(text, "stoker_connections_closed_total{reason=\"reset\"} 1");
    expect_line(text, "stoker_workers{state=\"ready\"} 1");
    expect_line(text, "stoker_worker_restarts_total{cause=\"crash\"} 2");
    expect_line(text, "stoker_worker_proportional_memory_bytes{worker=\"2\"} 4096");
    assert_non_null(strstr(text, "stoker_worker_resident_memory_bytes{worker=\"2\"} "));
    assert_null(strstr(text, "{worker=\"1\"}")); /* there is none */
    assert_null(strstr(text, "responses_2xx"));
    free(text);
    stk_prometheus_deinit(&p);
    stk_prometheus_deinit(&p);
    stk_scoreboard_free(sb);
}

/* Levels of slightly different moments never give a number below zero. */
static void test_levels_that_contradict(void **state)
{
    struct stk_scoreboard *sb = NULL;
    struct stk_prometheus p;
    size_t len = 0;
    char *text;

    assert_int_equal(stk_scoreboard_new(1, &sb), 0);
    p = make(sb);
    atomic_store(&sb->rows[0].state, STK_SCOREBOARD_READY);
    stk_scoreboard_set(&sb->rows[0], STK_COUNTER_connections_open, 1);
    stk_scoreboard_add(&sb->rows[0], STK_COUNTER_connections_sending, 3);
    stk_scoreboard_set(&sb->rows[0], STK_COUNTER_threads_busy, 2);
    text = stk_prometheus_text(&p, &len);
    expect_line(text, "stoker_connections{state=\"idle\"} 0");
    expect_line(text, "stoker_connections{state=\"active\"} 0");
    free(text);
    stk_prometheus_deinit(&p);
    stk_scoreboard_free(sb);
}

static void test_shares_are_measured_behind(void **state)
{
    const struct stk_handler_request req = {0};
    struct stk_scoreboard *sb = NULL;
    struct stk_prometheus p;

    assert_int_equal(stk_scoreboard_new(1, &sb), 0);
    p = make(sb);
    atomic_store(&sb->rows[0].state, STK_SCOREBOARD_READY);
    atomic_store(&sb->rows[0].pid, (uint64_t)getpid());
    for (int i = 0; i < 3; i++) {
        struct stk_handler_response r = {0};

        stk_prometheus_answer(&p, &req, &r);
        assert_int_equal(r.status, 200);
        assert_int_equal(r.len, strlen(r.body));
        free(r.body);
    }
    for (int i = 0; i < 2000 && atomic_load(&sb->rows[0].pss) == 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    assert_true(atomic_load(&sb->rows[0].pss) > 4096);
    stk_prometheus_deinit(&p);
    stk_scoreboard_free(sb);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_levels_that_contradict),
        cmocka_unit_test(test_shares_are_measured_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
