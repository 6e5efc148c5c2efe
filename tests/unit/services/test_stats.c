/* The document of the stats server; its consumers are in tests/life. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/config.h"
#include "ipc/scoreboard.h"
#include "net/listen.h"
#include "services/stats.h"

static const char *reason_name(unsigned reason)
{
    return reason == 0 ? "client" : "reset";
}

static void expect(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("no %s", part);
}

static char *make(struct stk_scoreboard *sb, const struct stk_config *config,
                  const struct stk_listen_set *set)
{
    const struct stk_stats stats = {
        .scoreboard = sb,
        .config = config,
        .nworkers = 2,
        .listeners = set->items,
        .nlisteners = set->n,
        .reason_name = reason_name,
        .nreasons = 2,
        .state = "serving",
    };
    size_t len = 0;
    char *text = NULL;

    assert_int_equal(stk_stats_text(&stats, &text, &len), 0);
    assert_int_equal(text[len - 1], '\n');
    text[len - 1] = '\0';
    assert_int_equal(strlen(text), len - 1);
    return text;
}

static void test_document(void **state)
{
    const struct stk_config config = {.threads = 2};
    const struct stk_listen_options options = {.backlog = 5, .socket_mode = -1};
    struct stk_listen_set set = {0};
    struct stk_scoreboard *sb = NULL;
    struct stk_scoreboard_row *row;
    char *error = NULL, *text;

    assert_int_equal(stk_listen_set_open(&set, "127.0.0.1:0", 2, &options, &error), 0);
    assert_int_equal(stk_scoreboard_new(4, &sb), 0);
    row = &sb->rows[stk_scoreboard_claim(sb, 0, 7)];
    atomic_store(&row->state, STK_SCOREBOARD_READY);
    atomic_store(&row->pid, (uint64_t)getpid());
    stk_scoreboard_add(row, STK_COUNTER_requests, 4);
    stk_scoreboard_add(row, STK_COUNTER_bytes_out, 999);
    stk_scoreboard_latency(row, true, 20);
    stk_scoreboard_latency(row, true, 40);
    stk_scoreboard_set(row, STK_COUNTER_threads_busy, 1);
    row->running[0].thread = 1;
    row->running[0].started_ns = atomic_load(&row->started_ns);
    (void)snprintf(row->running[0].method, sizeof row->running[0].method, "GET");
    (void)snprintf(row->running[0].target, sizeof row->running[0].target, "/a\"b");
    row->running[1].thread = STK_SCOREBOARD_WAITING;
    row->running[1].started_ns = atomic_load(&row->started_ns);
    (void)snprintf(row->running[1].method, sizeof row->running[1].method, "PUT");
    (void)snprintf(row->running[1].target, sizeof row->running[1].target, "/waits");
    stk_scoreboard_set(row, STK_COUNTER_requests_suspended, 5);
    text = make(sb, &config, &set);
    expect(text, "{\"version\":\"stoker-");
    expect(text, "\"proto\":\"http\",\"queue\":0,\"max_queue\":10,");
    expect(text, "\"id\":1,\"pid\":");
    expect(text, "\"accepting\":1,\"requests\":4,\"delta_requests\":4,");
    expect(text, "\"status\":\"busy\"");
    expect(text, "\"running_time\":60,");
    expect(text, "\"tx\":999,\"avg_rt\":30,");
    expect(text, "\"in_request\":0,\"vars\":[]");
    expect(text, "\"in_request\":1,\"vars\":[\"REQUEST_METHOD=GET\",\"REQUEST_URI=/a\\\"b\"]");
    expect(text, "\"suspended\":5,");
    expect(text, "\"running\":[{\"waiting\":false,\"thread\":1,");
    expect(text, "{\"waiting\":true,\"id\":0,");
    expect(text, "\"id\":2,\"pid\":0,\"accepting\":0,\"requests\":0,");
    expect(text, "\"status\":\"cheap\"");
    expect(text, "\"closed\":{\"client\":0,\"reset\":0}");
    expect(text, "\"draining\":[]");
    free(text);
    atomic_store(&row->state, STK_SCOREBOARD_DRAINING);
    assert_int_equal(stk_scoreboard_claim(sb, 0, 8), 1);
    text = make(sb, &config, &set);
    expect(text, "\"requests\":4,\"delta_requests\":0,"); /* the successor's */
    expect(text, "\"draining\":[{\"id\":1,");
    free(text);
    stk_scoreboard_free(sb);
    stk_listen_set_deinit(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_document)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
