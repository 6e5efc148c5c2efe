/* Paths that are answered in C, over real connections, beside those of the application. */
#include <stdio.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/mem.h"
#include "server_fixture.h"

static void start_server(struct server_fixture *f)
{
    f->config.health_path = stk_mem_strdup("/health");
    f->config.metrics = stk_mem_strdup("/metrics");
    server_fixture_start(f);
}

static void stop_server(struct server_fixture *f)
{
    char *health = f->config.health_path, *metrics = f->config.metrics;

    server_fixture_stop(f);
    free(health);
    free(metrics);
}

static void expect(struct client *c, unsigned status, const char *body)
{
    struct reply r = client_reply(c, false);

    assert_int_equal(r.status, status);
    assert_true(r.complete);
    if (body != NULL)
        assert_string_equal(r.body, body);
    reply_free(&r);
}

static void pipeline_of_both(struct server_fixture *f)
{
    struct client c;

    start_server(f);
    c = client_open(f);
    for (int i = 0; i < 3; i++) {
        client_puts(&c, "GET /health HTTP/1.1\r\nHost: t\r\n\r\n"
                        "GET / HTTP/1.1\r\nHost: t\r\n\r\n"
                        "GET /%6detrics HTTP/1.1\r\nHost: t\r\n\r\n"
                        "GET /health/live?x=1 HTTP/1.1\r\nHost: t\r\n\r\n");
        expect(&c, 200, "ready\n");
        expect(&c, 200, "Hello, World!");
        expect(&c, 200, NULL);
        expect(&c, 200, "live\n");
    }
    client_close(&c);
    server_fixture_await_exactly(f, STK_COUNTER_requests, 3);
    server_fixture_await_exactly(f, STK_COUNTER_handled, 9);
    stop_server(f);
}

static void methods_and_bodies(struct server_fixture *f)
{
    struct client c;
    struct reply r;

    start_server(f);
    c = client_open(f);
    client_puts(&c, "HEAD /health HTTP/1.1\r\nHost: t\r\n\r\n");
    r = client_reply(&c, true);
    assert_int_equal(r.status, 200);
    assert_int_equal(r.length, 6);
    reply_free(&r);
    client_puts(&c, "DELETE /health HTTP/1.1\r\nHost: t\r\n\r\n");
    r = client_reply(&c, false);
    assert_int_equal(r.status, 405);
    assert_non_null(strstr(r.head, "\r\nAllow: GET, HEAD\r\n"));
    reply_free(&r);
    client_puts(&c, "GET /health HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    r = client_reply(&c, false);
    assert_int_equal(r.status, 200);
    assert_true(r.close);
    reply_free(&r);
    client_expect_end(&c);
    client_close(&c);
    stop_server(f);
}

static void while_threads_are_busy(struct server_fixture *f)
{
    struct client busy[6], c;

    start_server(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(busy); i++) {
        busy[i] = client_open(f);
        client_puts(&busy[i], "GET /spin HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    c = client_open(f);
    for (int i = 0; i < 20; i++) {
        client_puts(&c, "GET /health/ready HTTP/1.1\r\nHost: t\r\n\r\n");
        expect(&c, 200, "ready\n");
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(busy); i++) {
        expect(&busy[i], 200, "Hello, World!");
        client_close(&busy[i]);
    }
    client_close(&c);
    server_fixture_await_exactly(f, STK_COUNTER_requests, STK_ARRAY_LEN(busy));
    stop_server(f);
}

/* What is counted of connections and bytes, whoever serves them. */
static void connections_and_bytes(struct server_fixture *f)
{
    struct client idle, half;

    start_server(f);
    idle = client_open(f);
    client_puts(&idle, "GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    expect(&idle, 200, "Hello, World!");
    half = client_open(f);
    client_puts(&half, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nab");
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 2);
    server_fixture_await_exactly(f, STK_COUNTER_connections_reading, 1);
    client_puts(&half, "cd");
    expect(&half, 200, "abcd");
    server_fixture_await_exactly(f, STK_COUNTER_connections_reading, 0);
    server_fixture_await_exactly(f, STK_COUNTER_bytes_in, 27 + 53 + 2);
    server_fixture_await(f, STK_COUNTER_bytes_out, 100);
    client_close(&idle);
    client_close(&half);
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    stop_server(f);
}

static void latencies_are_counted_without_a_log(struct server_fixture *f)
{
    struct stk_histogram h = {0};
    struct client c;

    start_server(f);
    c = client_open(f);
    for (int i = 0; i < 5; i++) {
        client_puts(&c, "GET /sleep HTTP/1.1\r\nHost: t\r\n\r\n");
        expect(&c, 200, "Hello, World!");
    }
    client_close(&c);
    server_fixture_await_exactly(f, STK_COUNTER_requests, 5);
    stk_scoreboard_add_latency(f->row, &h);
    assert_int_equal(h.count, 5);
    assert_true(h.sum_us >= 5 * 50000);
    stop_server(f);
}

int main(void)
{
    static const struct server_test tests[] = {
        SERVER_TEST(pipeline_of_both),
        SERVER_TEST(methods_and_bodies),
        SERVER_TEST_TAKEOVER(while_threads_are_busy),
        SERVER_TEST(connections_and_bytes),
        SERVER_TEST(latencies_are_counted_without_a_log),
    };

    return server_fixture_run("route", tests, STK_ARRAY_LEN(tests));
}
