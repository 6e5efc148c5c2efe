/*
 * An application with an event loop, and another beside it that has threads: which thread runs
 * what, when one waits for the other, and how requests go from one to the other.
 */
#include <stdio.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/mem.h"
#include "loop_host.h"
#include "server_fixture.h"

enum { CONNECTIONS = 12, ROUNDS = 40, THREADS_MAX = 8 };

static void put_get(struct client *c, const char *path)
{
    char text[512];

    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path);
    client_puts(c, text);
}

static void expect_begin(struct client *c, unsigned status, const char *begin)
{
    struct reply r = client_reply(c, false);

    assert_int_equal(r.status, status);
    assert_true(r.complete);
    assert_int_equal(strncmp(r.body, begin, strlen(begin)), 0);
    reply_free(&r);
}

static void expect_hello(struct client *c)
{
    expect_begin(c, 200, "Hello, World!");
}

static void make_gate(void)
{
    if (loop_host_gate[0] >= 0) {
        close(loop_host_gate[0]);
        close(loop_host_gate[1]);
    }
    assert_int_equal(pipe(loop_host_gate), 0);
}

static void let_go(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(write(loop_host_gate[1], "x", 1), 1);
}

/* All threads beside the event loop are held up. */
static void hold_up(struct server_fixture *f, struct client *holders)
{
    for (int i = 0; i < f->config.threads; i++) {
        holders[i] = client_open(f);
        put_get(&holders[i], "/s/hold/0");
    }
    server_fixture_await(f, STK_COUNTER_threads_busy, (uint64_t)f->config.threads);
}

static void end_hold(struct server_fixture *f, struct client *holders)
{
    let_go((unsigned)f->config.threads);
    for (int i = 0; i < f->config.threads; i++) {
        expect_hello(&holders[i]);
        client_close(&holders[i]);
    }
}

static void each_has_its_thread(struct server_fixture *f)
{
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    for (int i = 0; i < 5; i++) {
        put_get(&c, "/where");
        expect_begin(&c, 200, "app 0 on thread 0");
        put_get(&c, "/s/where");
        expect_begin(&c, 200, "app 1 on thread ");
        put_get(&c, "/nap/1");
        expect_hello(&c);
    }
    client_close(&c);
    server_fixture_stop(f);
}

/* Pipelined requests come to the thread of the one before, which is the wrong one for each. */
static void pipelined_requests_change_threads(struct server_fixture *f)
{
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    for (int i = 0; i < 20; i++) {
        put_get(&c, "/where");
        put_get(&c, "/s/where");
        put_get(&c, "/yield");
        put_get(&c, "/s/");
        put_get(&c, "/s/where");
    }
    for (int i = 0; i < 20; i++) {
        expect_begin(&c, 200, "app 0");
        expect_begin(&c, 200, "app 1");
        expect_hello(&c);
        expect_hello(&c);
        expect_begin(&c, 200, "app 1");
    }
    client_close(&c);
    server_fixture_stop(f);
}

static void bodies_go_along(struct server_fixture *f)
{
    struct client c;
    char *body = pattern_new(300000);

    server_fixture_start(f);
    c = client_open(f);
    for (int i = 0; i < 3; i++) {
        struct reply r;

        client_puts(&c, "POST /s/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 300000\r\n\r\n");
        client_send(&c, body, 300000);
        r = client_reply(&c, false);
        assert_true(reply_is_pattern(&r, 300000));
        reply_free(&r);
        client_puts(&c, "POST /s/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
        expect_begin(&c, 200, "hello");
        client_puts(&c, "POST /s/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "5\r\nthere\r\n0\r\n\r\n");
        expect_begin(&c, 200, "there");
    }
    free(body);
    client_close(&c);
    server_fixture_stop(f);
}

static void busy_threads_do_not_stop_the_event_loop(struct server_fixture *f)
{
    struct client holders[THREADS_MAX], waiting, c;

    make_gate();
    server_fixture_start(f);
    hold_up(f, holders);
    waiting = client_open(f);
    put_get(&waiting, "/s/where");
    c = client_open(f);
    for (int i = 0; i < 20; i++) {
        put_get(&c, i % 2 ? "/" : "/nap/1");
        expect_hello(&c);
    }
    end_hold(f, holders);
    expect_begin(&waiting, 200, "app 1");
    client_close(&waiting);
    client_close(&c);
    server_fixture_stop(f);
}

/* The stand-by leads then, and gives each request to a thread that can run it. */
static void a_blocked_event_loop_does_not_stop_the_threads(struct server_fixture *f)
{
    struct client blocker, waiting, c;

    make_gate();
    server_fixture_start(f);
    blocker = client_open(f);
    waiting = client_open(f);
    c = client_open(f);
    /* With the application's lock held: so the threads get on when it is given back. */
    put_get(&blocker, "/block/100");
    put_get(&waiting, "/where");
    for (int i = 0; i < 5; i++) {
        put_get(&c, "/s/where");
        expect_begin(&c, 200, "app 1");
    }
    expect_hello(&blocker);
    expect_begin(&waiting, 200, "app 0");
    client_close(&blocker);
    client_close(&waiting);
    client_close(&c);
    server_fixture_stop(f);
}

static void load_on_connections_that_alternate(struct server_fixture *f)
{
    static const char *const paths[] = {"/", "/s/", "/s/hold/1", "/yield", "/s/where", "/nap/1"};
    struct client c[CONNECTIONS];

    server_fixture_start(f);
    for (int i = 0; i < CONNECTIONS; i++)
        c[i] = client_open(f);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < CONNECTIONS; i++)
            put_get(&c[i], paths[(unsigned)(i * 7 + round) % STK_ARRAY_LEN(paths)]);
        for (int i = 0; i < CONNECTIONS; i++)
            expect_begin(&c[i], 200,
                         (i * 7 + round) % (int)STK_ARRAY_LEN(paths) == 4 ? "app 1" : "Hello");
    }
    for (int i = 0; i < CONNECTIONS; i++)
        client_close(&c[i]);
    server_fixture_stop(f);
}

static void requests_of_the_threads_have_deadlines(struct server_fixture *f)
{
    struct client holders[THREADS_MAX], waiting;

    make_gate();
    f->config.request_timeout = 200;
    server_fixture_start(f);
    for (int i = 0; i < f->config.threads; i++) {
        holders[i] = client_open(f);
        put_get(&holders[i], "/s/hold/0");
    }
    waiting = client_open(f);
    put_get(&waiting, "/s/");
    for (int i = 0; i < f->config.threads; i++) {
        expect_begin(&holders[i], 504, "");
        client_close(&holders[i]);
    }
    expect_begin(&waiting, 504, "");
    client_close(&waiting);
    let_go((unsigned)f->config.threads);
    server_fixture_stop(f);
}

static void the_queue_is_bounded(struct server_fixture *f)
{
    struct client holders[THREADS_MAX], c[3];
    unsigned refused = 0;

    make_gate();
    f->config.max_queue = 1;
    server_fixture_start(f);
    hold_up(f, holders);
    for (int i = 0; i < 3; i++) {
        c[i] = client_open(f);
        put_get(&c[i], "/s/");
    }
    server_fixture_await(f, STK_COUNTER_requests_refused, 2);
    end_hold(f, holders);
    for (int i = 0; i < 3; i++) {
        struct reply r = client_reply(&c[i], false);

        refused += r.status == 503;
        reply_free(&r);
        client_close(&c[i]);
    }
    assert_int_equal(refused, 2);
    server_fixture_stop(f);
}

static void requests_move_to_idle_threads(struct server_fixture *f)
{
    struct client holders[THREADS_MAX], c;
    struct server_fixture g;

    make_gate();
    server_fixture_start(f);
    hold_up(f, holders);
    server_fixture_init(&g, (int)f->config.threads, f->config.takeover);
    g.turns = f->turns;
    server_fixture_mix(&g);
    server_fixture_start_beside(&g, f);
    c = client_open(f);
    put_get(&c, "/s/where");
    expect_begin(&c, 200,
                 "app 1"); /* although every thread of the worker that has read it is busy */
    assert_int_equal(stk_scoreboard_get(g.row, STK_COUNTER_requests_moved_in), 1);
    client_close(&c);
    end_hold(f, holders);
    server_fixture_stop(&g);
    server_fixture_stop(f);
}

static void what_was_begun_is_finished(struct server_fixture *f)
{
    struct client holders[THREADS_MAX], waiting;

    make_gate();
    server_fixture_start(f);
    hold_up(f, holders);
    waiting = client_open(f);
    put_get(&waiting, "/s/where");
    server_fixture_await(f, STK_COUNTER_requests_queued, 1);
    server_fixture_send(f, STK_MESSAGE_DRAIN, 0, 20000);
    end_hold(f, holders);
    expect_begin(&waiting, 200, "app 1");
    client_close(&waiting);
    assert_int_equal(server_fixture_wait(f), 0);
}

int main(void)
{
    static const struct server_test tests[] = {
        SERVER_TEST(each_has_its_thread),
        SERVER_TEST(pipelined_requests_change_threads),
        SERVER_TEST(bodies_go_along),
        SERVER_TEST_TAKEOVER(busy_threads_do_not_stop_the_event_loop),
        SERVER_TEST_TAKEOVER(a_blocked_event_loop_does_not_stop_the_threads),
        SERVER_TEST(load_on_connections_that_alternate),
        SERVER_TEST_TAKEOVER(requests_of_the_threads_have_deadlines),
        SERVER_TEST_TAKEOVER(the_queue_is_bounded),
        SERVER_TEST_TAKEOVER(requests_move_to_idle_threads),
        SERVER_TEST_TAKEOVER(what_was_begun_is_finished),
    };

    return server_fixture_run_mixed("mixed", tests, STK_ARRAY_LEN(tests));
}
