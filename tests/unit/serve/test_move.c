/* Two workers: requests that move from the one that accepts to the other, and connections that
 * outlive it. */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/mem.h"
#include "ipc/transfer.h"
#include "server_fixture.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: test\r\n\r\n"

static void expect_body(struct client *c, const char *body)
{
    struct reply r = client_reply(c, false);

    assert_int_equal(r.status, 200);
    assert_true(r.complete);
    assert_false(r.close);
    assert_string_equal(r.body, body);
    reply_free(&r);
}

/* A second worker with the same threads beside a started one. */
static void start_both(struct server_fixture *f, struct server_fixture *g)
{
    server_fixture_start(f);
    server_fixture_init(g, (int)f->config.threads, f->config.takeover);
    g->config.max_connections = f->config.max_connections;
    server_fixture_start_beside(g, f);
}

/* The first one drains first, or the second, and each ends by itself. */
static void stop_both(struct server_fixture *f, struct server_fixture *g)
{
    server_fixture_stop(g);
    server_fixture_stop(f);
}

static uint64_t moved(const struct server_fixture *f)
{
    return stk_scoreboard_get(f->row, STK_COUNTER_requests_moved_in);
}

/* All threads of the first worker are away for a while. */
static void hold_up(struct server_fixture *f, struct client *holders)
{
    for (int i = 0; i < f->config.threads; i++) {
        holders[i] = client_open(f);
        client_puts(&holders[i], GET("/sleep"));
        nap_ms(2);
    }
}

static void let_go(struct server_fixture *f, struct client *holders)
{
    for (int i = 0; i < f->config.threads; i++) {
        expect_body(&holders[i], "Hello, World!");
        client_close(&holders[i]);
    }
}

static void waiting_requests_move(struct server_fixture *f)
{
    struct server_fixture g;
    struct client holders[4], c[6];

    start_both(f, &g);
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < STK_ARRAY_LEN(c); i++)
            c[i] = client_open(f);
        hold_up(f, holders);
        for (size_t i = 0; i < STK_ARRAY_LEN(c); i++)
            client_puts(&c[i], GET("/"));
        for (size_t i = 0; i < STK_ARRAY_LEN(c); i++)
            expect_body(&c[i], "Hello, World!");
        let_go(f, holders);
        for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
            client_puts(&c[i], GET("/"));
            expect_body(&c[i], "Hello, World!");
            client_close(&c[i]);
        }
    }
    assert_true(moved(&g) > 0);
    stop_both(f, &g);
}

static void bodies_move(struct server_fixture *f)
{
    static const struct {
        const char *first, *second, *body;
    } cases[] = {
        {"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nabcde" GET("/"), "", "abcde"},
        {"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nab", "cde" GET("/"), "abcde"},
        {"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
         "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n" GET("/"),
         "", "abcde"},
        {"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na",
         "b\r\n3\r\ncde\r\n0\r\nX: y\r\n\r\n" GET("/"), "abcde"},
        {"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n",
         "0\r\n\r\n" GET("/"), ""},
    };
    struct server_fixture g;
    struct client holders[4], c[STK_ARRAY_LEN(cases)];

    start_both(f, &g);
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++)
        c[i] = client_open(f);
    hold_up(f, holders);
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++)
        client_puts(&c[i], cases[i].first);
    nap_ms(5);
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++)
        client_puts(&c[i], cases[i].second);
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        expect_body(&c[i], cases[i].body);
        expect_body(&c[i], "Hello, World!");
        client_close(&c[i]);
    }
    let_go(f, holders);
    stop_both(f, &g);
}

/* The worker drains, and its connections go on: idle, new, and with a part of a head. */
static void connections_are_handed_over(struct server_fixture *f)
{
    struct server_fixture g;
    struct client idle[300], fresh, begun, busy;

    start_both(f, &g);
    for (size_t i = 0; i < STK_ARRAY_LEN(idle); i++) {
        idle[i] = client_open(f);
        client_puts(&idle[i], GET("/"));
        expect_body(&idle[i], "Hello, World!");
    }
    fresh = client_open(f);
    begun = client_open(f);
    client_puts(&begun, "GET / HTTP/1.1\r\nHo");
    busy = client_open(f);
    client_puts(&busy, GET("/sleep"));
    server_fixture_await(f, STK_COUNTER_connections, STK_ARRAY_LEN(idle) + 3);
    nap_ms(10);
    atomic_store(&f->row->state, STK_SCOREBOARD_DRAINING);
    server_fixture_send(f, STK_MESSAGE_DRAIN, STK_CHANNEL_DRAIN_SUCCESSOR, 30000);
    for (size_t i = 0; i < STK_ARRAY_LEN(idle); i++) {
        client_puts(&idle[i], GET("/"));
        expect_body(&idle[i], "Hello, World!");
    }
    expect_body(&busy, "Hello, World!");
    client_puts(&begun, "st: test\r\n\r\n");
    expect_body(&begun, "Hello, World!");
    for (size_t i = 0; i < STK_ARRAY_LEN(idle); i++) {
        client_puts(&idle[i], GET("/"));
        expect_body(&idle[i], "Hello, World!");
        client_close(&idle[i]);
    }
    client_puts(&fresh, GET("/"));
    expect_body(&fresh, "Hello, World!");
    client_puts(&busy, GET("/"));
    expect_body(&busy, "Hello, World!");
    client_close(&busy);
    client_close(&begun);
    client_close(&fresh);
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    /* Only now what both share may go: the second one uses it still. */
    server_fixture_stop(&g);
    assert_int_equal(server_fixture_wait(f), 0);
}

static void carry_in(struct server_fixture *g, int fd)
{
    const struct stk_transfer_conn conn = {.fd = fd,
                                           .flags = STK_TRANSFER_CARRIED | STK_TRANSFER_SERVED};
    struct stk_transfer_ticket ticket;

    assert_int_equal(stk_transfer_send(g->transfer, (unsigned)(g->row - g->board->rows), g->pid,
                                       &conn, NULL, &ticket),
                     0);
    while (stk_transfer_look(g->transfer, &ticket) == STK_TRANSFER_OFFERED)
        nap_ms(1);
    assert_int_equal(stk_transfer_look(g->transfer, &ticket), STK_TRANSFER_TAKEN);
    stk_transfer_settle(g->transfer, &ticket);
}

/* The part of the two masters in an upgrade: what f gives goes to g, until it is n connections. */
static void carry_over(struct server_fixture *f, struct server_fixture *g, unsigned n)
{
    struct stk_message msg;
    int r;

    while (n > 0) {
        r = stk_channel_recv(f->channel, STK_CHANNEL_MASTER, &msg);
        if (r == 0 && msg.type == STK_MESSAGE_CARRY) {
            assert_int_equal(msg.slot, 1); /* all have had a response */
            carry_in(g, msg.fd);
            close(msg.fd);
            n--;
        } else if (r == -EAGAIN) {
            nap_ms(1);
            r = 0;
        }
        assert_int_equal(r, 0);
    }
}

/* An upgrade: the channel takes a few at a time, and the rest is tried again. */
static void idle_connections_are_carried(struct server_fixture *f)
{
    struct server_fixture g;
    struct client idle[60], busy;

    f->channel_sndbuf = 1;
    start_both(f, &g);
    for (size_t i = 0; i < STK_ARRAY_LEN(idle); i++) {
        idle[i] = client_open(f);
        client_puts(&idle[i], GET("/"));
        expect_body(&idle[i], "Hello, World!");
    }
    busy = client_open(f);
    client_puts(&busy, GET("/sleep"));
    server_fixture_await(f, STK_COUNTER_connections, STK_ARRAY_LEN(idle) + 1);
    nap_ms(10);
    atomic_store(&f->row->state, STK_SCOREBOARD_DRAINING);
    server_fixture_send(f, STK_MESSAGE_DRAIN, STK_CHANNEL_DRAIN_CARRY, 30000);
    server_fixture_await(f, STK_COUNTER_connections_handed_over, 1);
    expect_body(&busy, "Hello, World!");
    assert_true(stk_scoreboard_get(f->row, STK_COUNTER_connections_handed_over) <
                STK_ARRAY_LEN(idle));
    carry_over(f, &g, STK_ARRAY_LEN(idle) + 1);
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    assert_int_equal(stk_scoreboard_get(f->row, STK_COUNTER_connections_handed_over),
                     STK_ARRAY_LEN(idle) + 1);
    for (size_t i = 0; i < STK_ARRAY_LEN(idle); i++) {
        client_puts(&idle[i], GET("/"));
        expect_body(&idle[i], "Hello, World!");
        client_close(&idle[i]);
    }
    client_puts(&busy, GET("/"));
    expect_body(&busy, "Hello, World!");
    client_close(&busy);
    server_fixture_await_exactly(&g, STK_COUNTER_connections_open, 0);
    server_fixture_stop(&g);
    assert_int_equal(server_fixture_wait(f), 0);
}

/* An upgrade whose new server takes nothing: one more request each, whose answer is the last. */
static void connections_that_nobody_takes_are_ended(struct server_fixture *f)
{
    struct client idle[4];
    struct reply r;
    bool ends = false;

    f->config.graceful_timeout = 60000;
    server_fixture_start(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(idle); i++) {
        idle[i] = client_open(f);
        client_puts(&idle[i], GET("/"));
        expect_body(&idle[i], "Hello, World!");
    }
    assert_int_equal(shutdown(f->channel, SHUT_RD), 0); /* what is given fails with EPIPE */
    atomic_store(&f->row->state, STK_SCOREBOARD_DRAINING);
    server_fixture_send(f, STK_MESSAGE_DRAIN, STK_CHANNEL_DRAIN_CARRY, 60000);
    while (!ends) { /* it may not have heard of it yet */
        r = client_get(&idle[0], "/");
        assert_int_equal(r.status, 200);
        ends = r.close;
        reply_free(&r);
    }
    for (size_t i = 1; i < STK_ARRAY_LEN(idle); i++) {
        r = client_get(&idle[i], "/");
        assert_int_equal(r.status, 200);
        assert_true(r.close);
        reply_free(&r);
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(idle); i++) {
        client_expect_end(&idle[i]);
        client_close(&idle[i]);
    }
    assert_int_equal(stk_scoreboard_get(f->row, STK_COUNTER_connections_handed_over), 0);
    assert_int_equal(server_fixture_wait(f), 0);
}

/* A receiver that has no room refuses, and everything is served where it is. */
static void a_full_worker_takes_nothing(struct server_fixture *f)
{
    struct server_fixture g;
    struct client holders[4], c[8];

    f->config.max_connections = 20;
    server_fixture_start(f);
    server_fixture_init(&g, (int)f->config.threads, f->config.takeover);
    g.config.max_connections = 1;
    server_fixture_start_beside(&g, f);
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++)
        c[i] = client_open(f);
    hold_up(f, holders);
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++)
        client_puts(&c[i], GET("/"));
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
        expect_body(&c[i], "Hello, World!");
        assert_true(stk_scoreboard_get(g.row, STK_COUNTER_connections_open) <= 1);
    }
    let_go(f, holders);
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++)
        client_close(&c[i]);
    stop_both(f, &g);
}

static void the_queue_has_an_end(struct server_fixture *f)
{
    struct client holders[4], c[6];
    unsigned busy = 0;

    f->config.max_queue = 2;
    server_fixture_start(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++)
        c[i] = client_open(f);
    hold_up(f, holders);
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
        client_puts(&c[i], "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc");
        nap_ms(1);
    }
    for (size_t i = STK_ARRAY_LEN(c); i-- > 0;) {
        struct reply r = client_reply(&c[i], false);

        assert_true(r.status == 503 || r.status == 200);
        assert_false(r.close);
        busy += r.status == 503;
        reply_free(&r);
    }
    for (int i = 0; i < f->config.threads; i++) { /* one may have met the others in the queue */
        struct reply r = client_reply(&holders[i], false);

        busy += r.status == 503;
        reply_free(&r);
        client_close(&holders[i]);
    }
    server_fixture_await_exactly(f, STK_COUNTER_requests_refused, busy);
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
        client_puts(&c[i], GET("/"));
        expect_body(&c[i], "Hello, World!");
        client_close(&c[i]);
    }
    server_fixture_stop(f);
}

/* Whether a client is refused; its connection stays. */
static bool is_busy(struct client *c)
{
    struct reply r = client_reply(c, false);
    bool busy = r.status == 503;

    assert_true(busy || r.status == 200);
    assert_false(r.close);
    reply_free(&r);
    return busy;
}

/* Whoever waits longer than that is refused, those who were to keep the threads busy included. */
static void old_requests_are_refused(struct server_fixture *f)
{
    struct client holders[4], c;
    uint64_t busy = 0;
    bool first, second;

    f->config.max_queue_age = 5;
    server_fixture_start(f);
    c = client_open(f);
    do {
        hold_up(f, holders);
        client_puts(&c, GET("/") GET("/"));
        first = is_busy(&c);
        second = is_busy(&c);
        busy += first + second;
        for (int i = 0; i < f->config.threads; i++) {
            busy += is_busy(&holders[i]);
            client_close(&holders[i]);
        }
    } while (!first || !second); /* a machine that stood still for so long */
    server_fixture_await_exactly(f, STK_COUNTER_requests_refused, busy);
    do
        client_puts(&c, GET("/"));
    while (is_busy(&c));
    client_close(&c);
    server_fixture_stop(f);
}

int main(void)
{
    static const struct server_test tests[] = {
        SERVER_TEST_TAKEOVER(waiting_requests_move),
        SERVER_TEST(bodies_move),
        SERVER_TEST(connections_are_handed_over),
        SERVER_TEST(a_full_worker_takes_nothing),
        SERVER_TEST(idle_connections_are_carried),
        SERVER_TEST(connections_that_nobody_takes_are_ended),
        SERVER_TEST_TAKEOVER(the_queue_has_an_end),
        SERVER_TEST_TAKEOVER(old_requests_are_refused),
    };

    return server_fixture_run("serve/move", tests, STK_ARRAY_LEN(tests));
}
