/* The server over real connections: persistence, pipelining, framing, take-over, draining. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/mem.h"
#include "server_fixture.h"

#define HELLO "GET / HTTP/1.1\r\nHost: test\r\n\r\n"

static void expect_status(struct client *c, unsigned status, bool close)
{
    struct reply r = client_reply(c, false);

    assert_int_equal(r.status, status);
    assert_true(r.complete);
    assert_int_equal(r.close, close);
    reply_free(&r);
}

/* An answer and the end of the connection, which it announces if `told`. */
static void expect_last(struct client *c, bool told)
{
    struct reply r = client_reply(c, false);

    assert_int_equal(r.status, 200);
    assert_true(r.complete);
    assert_true(r.close || !told);
    client_expect_end(c);
    reply_free(&r);
}

static void keep_alive_and_close(struct server_fixture *f)
{
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    for (int i = 0; i < 3; i++) {
        client_puts(&c, HELLO);
        client_expect_hello(&c);
    }
    client_puts(&c, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    expect_status(&c, 200, true);
    client_expect_end(&c);
    client_close(&c);

    c = client_open(f);
    client_puts(&c, "GET / HTTP/1.0\r\n\r\n");
    expect_status(&c, 200, true);
    client_expect_end(&c);
    client_close(&c);

    c = client_open(f);
    client_puts(&c, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    expect_status(&c, 200, false);
    client_puts(&c, "GET / HTTP/1.0\r\n\r\n");
    expect_status(&c, 200, true);
    client_expect_end(&c);
    client_close(&c);
    server_fixture_stop(f);
}

static void keep_alive_off(struct server_fixture *f)
{
    struct client c;

    f->config.keepalive_timeout = 0;
    server_fixture_start(f);
    c = client_open(f);
    client_puts(&c, HELLO);
    expect_status(&c, 200, true);
    client_expect_end(&c);
    client_close(&c);
    server_fixture_stop(f);
}

static void pipelines(struct server_fixture *f)
{
    static const int depths[] = {2, 16, 100, 2000};
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    for (size_t d = 0; d < STK_ARRAY_LEN(depths); d++) {
        size_t len = strlen(HELLO) * (size_t)depths[d];
        char *all = malloc(len + 1);

        assert_non_null(all);
        for (int i = 0; i < depths[d]; i++)
            memcpy(all + (size_t)i * strlen(HELLO), HELLO, strlen(HELLO) + 1);
        client_send(&c, all, len);
        for (int i = 0; i < depths[d]; i++)
            client_expect_hello(&c);
        free(all);
    }
    client_close(&c);
    server_fixture_stop(f);
}

/* The answer of the first does not wait for the second, and neither is spoilt. */
static void pipelined_slow_requests(struct server_fixture *f)
{
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    for (int round = 0; round < 5; round++) {
        client_puts(&c, HELLO "GET /sleep HTTP/1.1\r\nHost: t\r\n\r\n"
                              "GET /lines/20 HTTP/1.1\r\nHost: t\r\n\r\n" HELLO
                              "GET /spin HTTP/1.1\r\nHost: t\r\n\r\n"
                              "GET /size/40000 HTTP/1.1\r\nHost: t\r\n\r\n" HELLO);
        for (int i = 0; i < 7; i++) {
            struct reply r = client_reply(&c, false);

            assert_int_equal(r.status, 200);
            assert_true(r.complete);
            if (i == 2)
                assert_true(reply_is_pattern(&r, 20 * 1024));
            else if (i == 5)
                assert_true(reply_is_pattern(&r, 40000));
            else
                assert_string_equal(r.body, "Hello, World!");
            reply_free(&r);
        }
    }
    client_close(&c);
    server_fixture_stop(f);
}

static void split_at_every_byte(struct server_fixture *f)
{
    static const char two[] =
        HELLO "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nabcde";
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    for (size_t i = 1; i < sizeof two - 1; i++) {
        struct reply r;

        client_send(&c, two, i);
        if (i % 8 == 0)
            nap_ms(1); /* the first part by itself, often enough */
        client_send(&c, two + i, sizeof two - 1 - i);
        client_expect_hello(&c);
        r = client_reply(&c, false);
        assert_string_equal(r.body, "abcde");
        reply_free(&r);
    }
    for (size_t i = 0; i < sizeof two - 1; i++)
        client_send(&c, two + i, 1);
    client_expect_hello(&c);
    expect_status(&c, 200, false);
    client_close(&c);
    server_fixture_stop(f);
}

static void head_has_no_body(struct server_fixture *f)
{
    static const char *const paths[] = {"/",         "/size/100", "/size/1000000",
                                        "/blocks/3", "/stream",   "/file/1000"};
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(paths); i++) {
        struct reply r;
        char text[100];

        snprintf(text, sizeof text, "HEAD %s HTTP/1.1\r\nHost: t\r\n\r\n" HELLO, paths[i]);
        client_puts(&c, text);
        r = client_reply(&c, true);
        assert_int_equal(r.status, 200);
        if (i < 3)
            assert_true(r.length > 0);
        reply_free(&r);
        client_expect_hello(&c);
    }
    client_close(&c);
    server_fixture_stop(f);
}

static void bodies_are_framed(struct server_fixture *f)
{
    struct client c;
    struct reply r;

    server_fixture_start(f);
    c = client_open(f);
    for (int i = 0; i < 20; i++) {
        r = client_get(&c, "/lines/100");
        assert_true(r.complete && r.chunked && reply_is_pattern(&r, 100 * 1024));
        reply_free(&r);
        r = client_get(&c, "/blocks/5");
        assert_true(r.complete && r.chunked && reply_is_pattern(&r, 5 * 65536));
        reply_free(&r);
        r = client_get(&c, "/size/16384");
        assert_true(r.complete && r.length == 16384 && reply_is_pattern(&r, 16384));
        reply_free(&r);
        r = client_get(&c, "/size/3000000");
        assert_true(r.complete && r.length == 3000000 && reply_is_pattern(&r, 3000000));
        reply_free(&r);
        r = client_get(&c, "/file/200000");
        assert_true(r.complete && r.chunked && r.len == 200003);
        assert_string_equal(r.body + 200000, "end");
        r.len -= 3;
        assert_true(reply_is_pattern(&r, 200000));
        reply_free(&r);
    }
    client_puts(&c, "GET /blocks/5 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    r = client_reply(&c, false);
    assert_true(r.complete && !r.chunked && r.close && reply_is_pattern(&r, 5 * 65536));
    reply_free(&r);
    client_close(&c);
    server_fixture_stop(f);
}

/* What is cut looks cut in each framing. */
static void failures_are_seen(struct server_fixture *f)
{
    struct client c;
    struct reply r;

    server_fixture_start(f);
    c = client_open(f);
    r = client_get(&c, "/fail");
    assert_true(r.complete && r.status == 500 && !r.close);
    reply_free(&r);
    r = client_get(&c, "/cut");
    assert_true(r.status == 200 && !r.complete);
    reply_free(&r);
    client_close(&c);

    c = client_open(f);
    r = client_get(&c, "/short");
    assert_true(r.status == 200 && !r.complete && r.len == 5);
    reply_free(&r);
    client_close(&c);

    c = client_open(f);
    client_puts(&c, "GET /cut HTTP/1.0\r\n\r\n");
    r = client_reply(&c, false);
    assert_true(c.reset && !r.complete);
    reply_free(&r);
    client_close(&c);
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    server_fixture_stop(f);
}

static void bad_requests_are_answered(struct server_fixture *f)
{
    static const struct {
        unsigned status;
        const char *text;
    } bad[] = {
        {400, "GET / HTTP/1.1\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
        {400, "G@T / HTTP/1.1\r\nHost: a\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"},
        {400,
         "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"},
        {501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"},
        {400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"},
        {505, "GET / HTTP/3.0\r\nHost: a\r\n\r\n"},
        {400, "\x16\x03\x01\x02"},
    };

    server_fixture_start(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(bad); i++) {
        for (int before = 0; before < 2; before++) {
            struct client c = client_open(f);
            size_t more = 2 * 1000 * 1000;
            char *junk = calloc(1, more);

            /* However much follows, the client gets the whole answer and a clean end. */
            if (before)
                client_puts(&c, HELLO);
            client_puts(&c, bad[i].text);
            client_send(&c, junk, more);
            client_shut(&c);
            if (before)
                client_expect_hello(&c);
            expect_status(&c, bad[i].status, true);
            client_expect_end(&c);
            assert_false(c.reset);
            free(junk);
            client_close(&c);
        }
    }
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    server_fixture_stop(f);
}

static void large_heads_are_refused(struct server_fixture *f)
{
    struct client c;
    char *junk = malloc(200000);

    assert_non_null(junk);
    memset(junk, 'a', 200000);
    server_fixture_start(f);
    c = client_open(f);
    client_puts(&c, "GET /");
    client_send(&c, junk, 200000);
    expect_status(&c, 414, true);
    client_close(&c);
    c = client_open(f);
    client_puts(&c, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    client_send(&c, junk, 200000);
    expect_status(&c, 431, true);
    client_close(&c);
    free(junk);
    server_fixture_stop(f);
}

static void half_closed_clients_are_answered(struct server_fixture *f)
{
    struct client c;
    struct reply r;

    server_fixture_start(f);
    c = client_open(f);
    client_puts(&c, "GET /sleep HTTP/1.1\r\nHost: t\r\n\r\n" HELLO);
    client_shut(&c);
    client_expect_hello(&c);
    client_expect_hello(&c);
    client_expect_end(&c);
    assert_false(c.reset);
    client_close(&c);

    c = client_open_slow(f);
    client_puts(&c, "GET /size/5000000 HTTP/1.1\r\nHost: t\r\n\r\n" HELLO);
    client_shut(&c);
    nap_ms(50);
    r = client_reply(&c, false);
    assert_true(r.complete && reply_is_pattern(&r, 5000000));
    reply_free(&r);
    client_expect_hello(&c);
    client_expect_end(&c);
    client_close(&c);
    server_fixture_stop(f);
}

/* Resets at every stage: the worker survives, and forgets the connections. */
static void resets_are_survived(struct server_fixture *f)
{
    static const char *const begun[] = {
        "",
        "GET / HT",
        HELLO,
        "GET /sleep HTTP/1.1\r\nHost: t\r\n\r\n",
        "GET /spin HTTP/1.1\r\nHost: t\r\n\r\n" HELLO,
        "GET /size/20000000 HTTP/1.1\r\nHost: t\r\n\r\n",
        "GET /blocks/300 HTTP/1.1\r\nHost: t\r\n\r\n" HELLO,
        "GET /lines/300 HTTP/1.1\r\nHost: t\r\n\r\n",
        "GET /file/3000000 HTTP/1.1\r\nHost: t\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\nbegun",
        "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbeg",
        "\x16\x03",
    };
    struct client c;

    server_fixture_start(f);
    for (int ms = 0; ms < 3; ms++) {
        for (size_t i = 0; i < STK_ARRAY_LEN(begun); i++) {
            c = client_open_slow(f);
            client_puts(&c, begun[i]);
            nap_ms(ms * 5);
            client_reset(&c);
        }
    }
    c = client_open(f);
    client_puts(&c, HELLO);
    client_expect_hello(&c);
    client_close(&c);
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    server_fixture_stop(f);
}

/* A client that does not read its 20 MiB is not noticed by others, and gets it whole. */
static void slow_readers_are_alone(struct server_fixture *f)
{
    static const char *const paths[] = {"/size/20971520", "/blocks/320", "/file/20971520"};
    struct client slow[3];
    struct client c;

    f->config.response_file_max = 100 << 20;
    server_fixture_start(f);
    for (int i = 0; i < 3; i++) {
        char text[100];

        slow[i] = client_open_slow(f);
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: t\r\n\r\n" HELLO, paths[i]);
        client_puts(&slow[i], text);
    }
    c = client_open(f);
    for (int i = 0; i < 20; i++) {
        client_puts(&c, HELLO);
        client_expect_hello(&c);
    }
    client_close(&c);
    for (int i = 0; i < 3; i++) {
        struct reply r = client_reply(&slow[i], false);

        assert_true(r.complete);
        if (i == 2)
            r.len -= 3;
        assert_true(reply_is_pattern(&r, 20971520));
        reply_free(&r);
        client_expect_hello(&slow[i]);
        client_close(&slow[i]);
    }
    server_fixture_stop(f);
}

/* With small limits the application waits for the client, and goes on. */
static void full_queues_make_the_application_wait(struct server_fixture *f)
{
    struct client c;
    struct reply r;

    f->config.response_buffer = 65536;
    f->config.response_file_max = 200000;
    server_fixture_start(f);
    c = client_open_slow(f);
    client_puts(&c, "GET /blocks/150 HTTP/1.1\r\nHost: t\r\n\r\n" HELLO);
    nap_ms(100);
    r = client_reply(&c, false);
    assert_true(r.complete && reply_is_pattern(&r, 150 * 65536));
    reply_free(&r);
    client_expect_hello(&c);
    client_close(&c);
    server_fixture_stop(f);
}

/* ... but not for ever for one that takes nothing. */
static void clients_that_take_nothing_are_given_up(struct server_fixture *f)
{
    struct client c, waiting;

    f->config.response_buffer = 65536;
    f->config.response_file_max = 0;
    f->config.send_timeout = 300;
    server_fixture_start(f);
    c = client_open_slow(f);
    client_puts(&c, "GET /blocks/1000 HTTP/1.1\r\nHost: t\r\n\r\n");
    server_fixture_await(f, STK_COUNTER_responses_2xx, 1);
    waiting = client_open(f);
    client_puts(&waiting, HELLO);
    client_expect_hello(&waiting);
    client_close(&waiting);
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    client_close(&c);
    server_fixture_stop(f);
}

/* While the application is held up, others connect, send, and are answered afterwards. */
static void others_are_answered_behind_a_slow_request(struct server_fixture *f)
{
    static const char *const slow[] = {"/sleep", "/spin"};
    struct client c[50], first;

    server_fixture_start(f);
    for (int round = 0; round < 6; round++) {
        char text[100];

        first = client_open(f);
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: t\r\n\r\n", slow[round % 2]);
        client_puts(&first, text);
        for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
            c[i] = client_open(f);
            client_puts(&c[i], HELLO HELLO);
        }
        for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
            client_expect_hello(&c[i]);
            client_expect_hello(&c[i]);
            client_close(&c[i]);
        }
        client_expect_hello(&first);
        client_close(&first);
    }
    server_fixture_stop(f);
}

/* The network goes on while every thread is in the application. */
static void bad_requests_do_not_wait_for_the_application(struct server_fixture *f)
{
    struct client busy[8], c;

    server_fixture_start(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(busy); i++) {
        busy[i] = client_open(f);
        client_puts(&busy[i], "GET /sleep HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    c = client_open(f);
    client_puts(&c, "nonsense\r\n\r\n");
    expect_status(&c, 400, true);
    client_close(&c);
    for (size_t i = 0; i < STK_ARRAY_LEN(busy); i++) {
        client_expect_hello(&busy[i]);
        client_close(&busy[i]);
    }
    server_fixture_stop(f);
}

static void draining_finishes_what_was_begun(struct server_fixture *f)
{
    struct client idle, fresh, busy, half, slow;
    struct reply r;

    f->config.graceful_timeout = 4000; /* idle connections have half of it for one more request */
    server_fixture_start(f);
    idle = client_open(f);
    client_puts(&idle, HELLO);
    client_expect_hello(&idle);
    fresh = client_open(f);
    half = client_open(f);
    client_puts(&half, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n12345");
    slow = client_open_slow(f);
    client_puts(&slow, "GET /size/5000000 HTTP/1.1\r\nHost: t\r\n\r\n");
    server_fixture_await(f, STK_COUNTER_responses_2xx, 2);
    busy = client_open(f);
    client_puts(&busy, "GET /sleep HTTP/1.1\r\nHost: t\r\n\r\n");
    server_fixture_await(f, STK_COUNTER_connections, 5);
    server_fixture_send(f, STK_MESSAGE_DRAIN, 0, 30000);
    client_puts(&fresh, HELLO);
    client_expect_end(&idle);
    /* Without take-over the order may come behind these two answers. */
    expect_last(&busy, f->config.takeover);
    expect_last(&fresh, f->config.takeover);
    client_puts(&half, "67890");
    expect_status(&half, 200, true);
    r = client_reply(&slow, false);
    assert_true(r.complete && reply_is_pattern(&r, 5000000));
    reply_free(&r);
    client_close(&idle);
    client_close(&fresh);
    client_close(&busy);
    client_close(&half);
    client_close(&slow);
    assert_int_equal(server_fixture_wait(f), 0);
}

static void a_forced_stop_ends(struct server_fixture *f)
{
    struct client half, slow;

    server_fixture_start(f);
    half = client_open(f);
    client_puts(&half, "GET / HT");
    slow = client_open_slow(f);
    client_puts(&slow, "GET /size/20000000 HTTP/1.1\r\nHost: t\r\n\r\n");
    server_fixture_await(f, STK_COUNTER_responses_2xx, 1);
    server_fixture_send(f, STK_MESSAGE_DRAIN, 0, 100);
    assert_int_equal(server_fixture_wait(f), 0);
    client_close(&half);
    client_close(&slow);
}

/* Whether by its deadline or by the order to stop at once, and whatever the application does. */
static void a_hanging_application_is_left(struct server_fixture *f)
{
    struct client hanging, other;

    free(f->config.access_log);
    f->config.access_log = stk_mem_strdup("/dev/null");
    server_fixture_start(f);
    hanging = client_open(f);
    client_puts(&hanging, "GET /hang HTTP/1.1\r\nHost: t\r\n\r\n");
    nap_ms(30);
    other = client_open(f);
    client_puts(&other, "nonsense\r\n\r\n");
    expect_status(&other, 400, true);
    client_close(&other);
    if (f->config.threads == 1)
        server_fixture_send(f, STK_MESSAGE_DRAIN, 0, 100);
    else
        server_fixture_send(f, STK_MESSAGE_STOP, 0, 0);
    assert_int_equal(server_fixture_wait(f), 0);
    client_expect_end(&hanging);
    client_close(&hanging);
}

static void term_and_a_lost_master_drain(struct server_fixture *f)
{
    struct client c;
    int channel;

    f->config.graceful_timeout = 4000;
    server_fixture_start(f);
    c = client_open(f);
    client_puts(&c, "GET /sleep HTTP/1.1\r\nHost: t\r\n\r\n");
    server_fixture_await(f, STK_COUNTER_connections, 1);
    nap_ms(20);
    if (f->config.takeover) {
        kill(f->pid, SIGTERM);
    } else {
        channel = f->channel;
        f->channel = dup(0);
        close(channel);
    }
    client_expect_hello(&c);
    client_expect_end(&c);
    client_close(&c);
    assert_int_equal(server_fixture_wait(f), 0);
}

static void sockets_are_adopted_and_released(struct server_fixture *f)
{
    struct client c[40];

    f->slots = 4;
    server_fixture_start(f);
    /* Three of four connections go to slots that nobody serves, until they are adopted. */
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
        c[i] = client_open(f);
        client_puts(&c[i], HELLO);
    }
    for (unsigned slot = 1; slot < 4; slot++)
        server_fixture_send(f, STK_MESSAGE_ADOPT, slot, 0);
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
        client_expect_hello(&c[i]);
        client_puts(&c[i], HELLO);
        client_expect_hello(&c[i]);
        client_close(&c[i]);
    }
    for (unsigned slot = 1; slot < 4; slot++)
        server_fixture_send(f, STK_MESSAGE_RELEASE, slot, 0);
    server_fixture_stop(f);
}

static void max_connections_closes_idle_ones(struct server_fixture *f)
{
    struct client c[30];

    f->config.max_connections = 5;
    server_fixture_start(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
        c[i] = client_open(f);
        client_puts(&c[i], HELLO);
        client_expect_hello(&c[i]);
    }
    assert_true(stk_scoreboard_get(f->row, STK_COUNTER_connections_open) <= 5);
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++)
        client_close(&c[i]);
    server_fixture_stop(f);
}

/* A child of the application keeps no connection open. */
static void children_do_not_hold_connections(struct server_fixture *f)
{
    struct client c, other;
    struct reply r;

    server_fixture_start(f);
    other = client_open(f);
    client_puts(&other, HELLO);
    client_expect_hello(&other);
    c = client_open(f);
    client_puts(&c, "GET /fork HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    r = client_reply(&c, false);
    assert_true(r.complete && atoi(r.body) > 1);
    client_expect_end(&c);
    client_puts(&other, "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    expect_status(&other, 200, true);
    client_expect_end(&other);
    assert_int_equal(kill(atoi(r.body), SIGKILL), 0);
    reply_free(&r);
    client_close(&c);
    client_close(&other);
    server_fixture_stop(f);
}

int main(void)
{
    static const struct server_test tests[] = {
        SERVER_TEST(keep_alive_and_close),
        SERVER_TEST(keep_alive_off),
        SERVER_TEST(pipelines),
        SERVER_TEST(pipelined_slow_requests),
        SERVER_TEST(split_at_every_byte),
        SERVER_TEST(head_has_no_body),
        SERVER_TEST(bodies_are_framed),
        SERVER_TEST(failures_are_seen),
        SERVER_TEST(bad_requests_are_answered),
        SERVER_TEST(large_heads_are_refused),
        SERVER_TEST(half_closed_clients_are_answered),
        SERVER_TEST(resets_are_survived),
        SERVER_TEST(slow_readers_are_alone),
        SERVER_TEST(full_queues_make_the_application_wait),
        SERVER_TEST(clients_that_take_nothing_are_given_up),
        SERVER_TEST(others_are_answered_behind_a_slow_request),
        SERVER_TEST_TAKEOVER(bad_requests_do_not_wait_for_the_application),
        SERVER_TEST(draining_finishes_what_was_begun),
        SERVER_TEST(a_forced_stop_ends),
        SERVER_TEST_TAKEOVER(a_hanging_application_is_left),
        SERVER_TEST(term_and_a_lost_master_drain),
        SERVER_TEST(sockets_are_adopted_and_released),
        SERVER_TEST(max_connections_closes_idle_ones),
        SERVER_TEST(children_do_not_hold_connections),
    };

    return server_fixture_run("server", tests, STK_ARRAY_LEN(tests));
}
