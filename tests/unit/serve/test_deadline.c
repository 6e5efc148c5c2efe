/* Requests that take too long, and requests whose client has left. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/macros.h"
#include "server_fixture.h"

static void ask(struct client *c, const char *path)
{
    char text[128];

    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path);
    client_puts(c, text);
}

/* 504 and the end of the connection. */
static void expect_timeout(struct client *c)
{
    struct reply r = client_reply(c, false);

    assert_int_equal(r.status, 504);
    assert_true(r.complete);
    assert_true(r.close);
    client_expect_end(c);
    reply_free(&r);
}

/* The next request to be replaced; its value. */
static int64_t await_retire(struct server_fixture *f, enum stk_channel_retire reason)
{
    struct stk_message msg;
    int r;

    while ((r = stk_channel_recv(f->channel, STK_CHANNEL_MASTER, &msg)) == -EAGAIN)
        nap_ms(2);
    assert_int_equal(r, 0);
    assert_int_equal(msg.type, STK_MESSAGE_RETIRE);
    assert_int_equal(msg.slot, reason);
    return msg.value;
}

static void start(struct server_fixture *f, stk_msec timeout)
{
    f->config.request_timeout = timeout;
    f->config.cancel_grace = 200;
    server_fixture_start(f);
}

static void answers_in_its_place(struct server_fixture *f)
{
    struct client c, other;

    start(f, 150);
    c = client_open(f);
    ask(&c, "/wait");
    expect_timeout(&c);
    client_close(&c);
    await_retire(f, STK_CHANNEL_RETIRE_CANCELLED);
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    assert_int_equal(stk_scoreboard_get(f->row, STK_COUNTER_requests), 1);
    assert_int_equal(stk_scoreboard_get(f->row, STK_COUNTER_responses_5xx), 1);
    other = client_open(f);
    ask(&other, "/");
    client_expect_hello(&other);
    client_close(&other);
    server_fixture_stop(f);
}

static void head_has_no_body(struct server_fixture *f)
{
    struct client c;
    struct reply r;

    start(f, 100);
    c = client_open(f);
    client_puts(&c, "HEAD /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    r = client_reply(&c, true);
    assert_int_equal(r.status, 504);
    client_expect_end(&c);
    reply_free(&r);
    client_close(&c);
    server_fixture_stop(f);
}

static void earlier_answers_leave_first(struct server_fixture *f)
{
    struct client c;

    start(f, 150);
    c = client_open(f);
    client_puts(&c, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"
                    "GET /wait HTTP/1.1\r\nHost: test\r\n\r\n"
                    "GET /late HTTP/1.1\r\nHost: test\r\n\r\n");
    client_expect_hello(&c);
    expect_timeout(&c);
    client_close(&c);
    server_fixture_stop(f);
}

static void begun_response_is_cut(struct server_fixture *f)
{
    struct client c;
    struct reply r;

    start(f, 150);
    c = client_open(f);
    ask(&c, "/part");
    r = client_reply(&c, false);
    assert_int_equal(r.status, 200);
    assert_true(r.chunked);
    assert_false(r.complete);
    reply_free(&r);
    client_close(&c);
    /* Without framing only a reset can tell. */
    c = client_open(f);
    client_puts(&c, "GET /part HTTP/1.0\r\n\r\n");
    r = client_reply(&c, false);
    assert_true(c.reset);
    reply_free(&r);
    client_close(&c);
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    server_fixture_stop(f);
}

static void limit_of_one_request(struct server_fixture *f)
{
    struct client c;

    start(f, 0);
    c = client_open(f);
    ask(&c, "/limit/120");
    expect_timeout(&c);
    client_close(&c);
    c = client_open(f);
    ask(&c, "/nap/200");
    client_expect_hello(&c);
    client_close(&c);
    server_fixture_stop(f);
}

static void limit_of_one_request_is_lifted(struct server_fixture *f)
{
    struct client c;

    start(f, 150);
    c = client_open(f);
    client_puts(&c, "GET /limit/0 HTTP/1.1\r\nHost: test\r\n\r\n");
    nap_ms(500);
    client_reset(&c);
    server_fixture_send(f, STK_MESSAGE_STOP, 0, 0);
    assert_int_equal(server_fixture_wait(f), 0);
}

/* As many requests as there are threads, and one more, which is not called at all. */
static void waiting_counts(struct server_fixture *f)
{
    struct client c[5];
    size_t n = (size_t)f->config.threads + 1;

    start(f, 200);
    for (size_t i = 0; i < n; i++) {
        c[i] = client_open(f);
        ask(&c[i], "/stuck");
    }
    for (size_t i = 0; i < n; i++) {
        expect_timeout(&c[i]);
        client_close(&c[i]);
    }
    assert_true(await_retire(f, STK_CHANNEL_RETIRE_STUCK) >= 200);
    /* Nothing is left but what does not return. */
    server_fixture_stop(f);
}

static void others_go_on(struct server_fixture *f)
{
    struct client stuck, c;

    if (f->config.threads == 1)
        f->config.threads = 2;
    start(f, 20000);
    stuck = client_open(f);
    ask(&stuck, "/mire/100");
    expect_timeout(&stuck);
    client_close(&stuck);
    c = client_open(f);
    for (int i = 0; i < 20; i++) {
        ask(&c, i % 2 ? "/" : "/nap/10");
        client_expect_hello(&c);
    }
    await_retire(f, STK_CHANNEL_RETIRE_STUCK);
    ask(&c, "/nap/100");
    server_fixture_send(f, STK_MESSAGE_DRAIN, 0, 30000);
    client_expect_hello(&c);
    client_expect_end(&c);
    client_close(&c);
    assert_int_equal(server_fixture_wait(f), 0);
}

/* While the interpreter's lock is held nobody else can run, but the answers leave in time. */
static void lock_is_held(struct server_fixture *f)
{
    struct client c;

    start(f, 100);
    c = client_open(f);
    ask(&c, "/hold");
    expect_timeout(&c);
    client_close(&c);
    server_fixture_stop(f);
}

/* Calls that end at their deadline: each is answered once, by one of the two. */
static void many_at_the_deadline(struct server_fixture *f)
{
    enum { CLIENTS = 8, ROUNDS = 15 };
    static const char *const paths[] = {"/nap/40", "/nap/49", "/nap/50", "/nap/51"};
    struct client c[CLIENTS];
    uint64_t counted;

    start(f, 50);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < CLIENTS; i++) {
            c[i] = client_open(f);
            ask(&c[i], paths[(i + round) % (int)STK_ARRAY_LEN(paths)]);
        }
        for (int i = 0; i < CLIENTS; i++) {
            struct reply r = client_reply(&c[i], false);

            assert_true(r.status == 200 || r.status == 504);
            assert_true(r.complete);
            reply_free(&r);
            client_close(&c[i]);
        }
    }
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    counted = stk_scoreboard_get(f->row, STK_COUNTER_responses_2xx) +
              stk_scoreboard_get(f->row, STK_COUNTER_responses_5xx);
    assert_int_equal(counted, CLIENTS * ROUNDS);
    server_fixture_stop(f);
}

static void long_requests_are_named(struct server_fixture *f)
{
    struct stk_scoreboard_running running;
    struct client c;

    start(f, 0);
    c = client_open(f);
    ask(&c, "/nap/600?secret");
    while (!stk_scoreboard_read_running(f->row, 0, &running))
        nap_ms(2);
    assert_string_equal(running.method, "GET");
    assert_string_equal(running.target, "/nap/600");
    assert_true(running.started_ns > 0);
    assert_true(running.id > 0);
    assert_true(running.thread < (uint32_t)f->config.threads);
    client_expect_hello(&c);
    assert_false(stk_scoreboard_read_running(f->row, 0, &running));
    client_close(&c);
    server_fixture_stop(f);
}

static void disconnect_cancels(struct server_fixture *f)
{
    struct client c;

    f->config.cancel_on_disconnect = true;
    start(f, 0);
    c = client_open(f);
    ask(&c, "/wait");
    nap_ms(200);
    client_reset(&c);
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    /* A half-close is not leaving. */
    c = client_open(f);
    ask(&c, "/nap/500");
    client_shut(&c);
    client_expect_hello(&c);
    client_close(&c);
    server_fixture_stop(f);
}

int main(void)
{
    static const struct server_test tests[] = {
        SERVER_TEST_TAKEOVER(answers_in_its_place),
        SERVER_TEST_TAKEOVER(head_has_no_body),
        SERVER_TEST_TAKEOVER(earlier_answers_leave_first),
        SERVER_TEST_TAKEOVER(begun_response_is_cut),
        SERVER_TEST_TAKEOVER(limit_of_one_request),
        SERVER_TEST_TAKEOVER(limit_of_one_request_is_lifted),
        SERVER_TEST_TAKEOVER(waiting_counts),
        SERVER_TEST_TAKEOVER(others_go_on),
        SERVER_TEST_TAKEOVER(lock_is_held),
        SERVER_TEST_TAKEOVER(many_at_the_deadline),
        SERVER_TEST_TAKEOVER(long_requests_are_named),
        SERVER_TEST_TAKEOVER(disconnect_cancels),
    };

    return server_fixture_run("deadlines", tests, STK_ARRAY_LEN(tests));
}
