/*
 * Requests that wait in an event loop of the application's, which turns the engine: by its own
 * selector (turns) or by the engine's (waits), with and without take-over.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/mem.h"
#include "loop_host.h"
#include "server_fixture.h"

#define HELLO "GET / HTTP/1.1\r\nHost: test\r\n\r\n"

static void put_get(struct client *c, const char *path)
{
    char text[512];

    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path);
    client_puts(c, text);
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

static void expect_hello(struct client *c)
{
    expect(c, 200, "Hello, World!");
}

/* What requests were woken for, of one kind. */
static unsigned seen(struct server_fixture *f, const char *what)
{
    struct client c = client_open(f);
    struct reply r = client_get(&c, "/seen");
    char *at = strstr(r.body, what);
    unsigned n = at != NULL ? (unsigned)atoi(at + strlen(what) + 1) : 0; /* else it was late */

    reply_free(&r);
    client_close(&c);
    return n;
}

static void await_seen(struct server_fixture *f, const char *what, unsigned n)
{
    for (int i = 0; i < 4000 && seen(f, what) < n; i++)
        nap_ms(10);
    assert_true(seen(f, what) >= n);
}

/* ---- responses ----------------------------------------------------------------------------- */

static void answers_at_once_and_later(struct server_fixture *f)
{
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    for (int i = 0; i < 3; i++) {
        put_get(&c, "/");
        expect_hello(&c);
        put_get(&c, "/yield");
        expect_hello(&c);
        put_get(&c, "/nap/20");
        expect_hello(&c);
    }
    client_puts(&c, "GET /yield HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    expect_hello(&c);
    client_expect_end(&c);
    client_close(&c);
    server_fixture_await_exactly(f, STK_COUNTER_requests_suspended, 0);
    server_fixture_stop(f);
}

static void others_are_served_meanwhile(struct server_fixture *f)
{
    struct client slow[8], c;

    server_fixture_start(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(slow); i++) {
        slow[i] = client_open(f);
        put_get(&slow[i], "/nap/300");
    }
    server_fixture_await(f, STK_COUNTER_requests_suspended, STK_ARRAY_LEN(slow));
    c = client_open(f);
    for (int i = 0; i < 20; i++) {
        put_get(&c, "/");
        expect_hello(&c);
    }
    assert_true(stk_scoreboard_get(f->row, STK_COUNTER_requests) >= 19);
    for (size_t i = 0; i < STK_ARRAY_LEN(slow); i++) {
        expect_hello(&slow[i]);
        client_close(&slow[i]);
    }
    client_close(&c);
    server_fixture_stop(f);
}

static void pipelined_requests_keep_their_order(struct server_fixture *f)
{
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    client_puts(&c, HELLO);
    put_get(&c, "/part/10");
    put_get(&c, "/nap/10");
    client_puts(&c, HELLO);
    put_get(&c, "/head/10");
    client_puts(&c, "GET /yield HTTP/1.1\r\nHo");
    expect_hello(&c);
    expect(&c, 200, "somemore");
    expect_hello(&c);
    expect_hello(&c);
    expect(&c, 200, "late");
    client_puts(&c, "st: test\r\n\r\n");
    expect_hello(&c);
    client_close(&c);
    server_fixture_stop(f);
}

/* Heads that are begun before the request is detached, while others begin theirs. */
static void heads_do_not_mix(struct server_fixture *f)
{
    struct client c[6];

    server_fixture_start(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
        c[i] = client_open(f);
        put_get(&c[i], i % 2 ? "/head/50" : "/head/30");
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
        struct reply r = client_reply(&c[i], false);

        assert_int_equal(r.status, 200);
        assert_string_equal(r.body, "late");
        assert_non_null(strstr(r.head, "Content-Type: text/plain\r\nX-Late: yes\r\n"));
        assert_int_equal(r.length, 4);
        reply_free(&r);
        client_close(&c[i]);
    }
    server_fixture_stop(f);
}

static void failures_are_answered(struct server_fixture *f)
{
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    put_get(&c, "/fail");
    expect(&c, 500, NULL);
    put_get(&c, "/nothing");
    expect(&c, 500, NULL);
    put_get(&c, "/");
    expect_hello(&c);
    client_close(&c);
    server_fixture_await_exactly(f, STK_COUNTER_exceptions, 2);
    server_fixture_stop(f);
}

/* One request's step sends on the connections of others. */
static void broadcasts(struct server_fixture *f)
{
    struct client c[5], speaker;

    server_fixture_start(f);
    speaker = client_open(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
        c[i] = client_open(f);
        put_get(&c[i], "/join");
    }
    server_fixture_await(f, STK_COUNTER_requests_suspended, STK_ARRAY_LEN(c));
    put_get(&speaker, "/say/one");
    expect_hello(&speaker);
    put_get(&speaker, "/say/two");
    put_get(&speaker, "/leave");
    expect_hello(&speaker);
    expect_hello(&speaker);
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
        expect(&c[i], 200, "joined\nonetwo");
        put_get(&c[i], "/");
        expect_hello(&c[i]);
        client_close(&c[i]);
    }
    client_close(&speaker);
    server_fixture_stop(f);
}

/* ---- bodies -------------------------------------------------------------------------------- */

static void put_post(struct client *c, const char *path, const char *field)
{
    char text[512];

    snprintf(text, sizeof text, "POST %s HTTP/1.1\r\nHost: test\r\n%s\r\n\r\n", path, field);
    client_puts(c, text);
}

static void bodies_come_in_pieces(struct server_fixture *f)
{
    static const size_t lengths[] = {0, 1, 1000, 65536, 65537, 300000};
    char *pattern = pattern_new(300000), field[64];
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(lengths); i++) {
        for (size_t pieces = 1; pieces <= 3; pieces += 2) {
            size_t part = lengths[i] / pieces;
            struct reply r;

            snprintf(field, sizeof field, "Content-Length: %zu", lengths[i]);
            put_post(&c, pieces == 1 ? "/echo" : "/pump", field);
            for (size_t k = 0; k < pieces; k++) {
                size_t end = k + 1 == pieces ? lengths[i] : (k + 1) * part;

                client_send(&c, pattern + k * part, end - k * part);
                nap_ms(pieces > 1 ? 10 : 0);
            }
            r = client_reply(&c, false);
            assert_int_equal(r.status, 200);
            assert_true(r.complete && reply_is_pattern(&r, lengths[i]));
            reply_free(&r);
        }
    }
    client_close(&c);
    free(pattern);
    server_fixture_stop(f);
}

static void chunked_bodies_stream(struct server_fixture *f)
{
    struct client c;
    struct reply r;

    server_fixture_start(f);
    c = client_open(f);
    put_post(&c, "/pump", "Transfer-Encoding: chunked");
    server_fixture_await(f, STK_COUNTER_requests_suspended, 1);
    client_puts(&c, "5\r\nHello\r\n");
    nap_ms(20);
    client_puts(&c, "8\r\n, Wor");
    nap_ms(20);
    client_puts(&c, "ld!\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n");
    r = client_reply(&c, false);
    assert_string_equal(r.body, "Hello, World!");
    reply_free(&r);
    expect_hello(&c);
    client_close(&c);
    server_fixture_stop(f);
}

static void malformed_chunks_are_refused(struct server_fixture *f)
{
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    put_post(&c, "/echo", "Transfer-Encoding: chunked");
    server_fixture_await(f, STK_COUNTER_requests_suspended, 1);
    client_puts(&c, "zz\r\n");
    expect(&c, 400, NULL);
    client_expect_end(&c);
    client_close(&c);
    server_fixture_stop(f);
}

static void a_silent_body_times_out(struct server_fixture *f)
{
    struct client c;

    f->config.body_timeout = 200;
    f->config.keepalive_timeout = 500;
    server_fixture_start(f);
    c = client_open(f);
    put_post(&c, "/echo", "Content-Length: 100000");
    expect(&c, 408, NULL);
    client_close(&c);
    server_fixture_stop(f);
}

/* ---- output -------------------------------------------------------------------------------- */

static void slow_readers_hold_back_their_stream_only(struct server_fixture *f)
{
    struct client slow, c;
    struct reply r;

    f->sndbuf = 8192;
    server_fixture_start(f);
    slow = client_open_slow(f);
    put_get(&slow, "/stream/64");
    server_fixture_await(f, STK_COUNTER_requests_suspended, 1);
    c = client_open(f);
    put_get(&c, "/stream/4");
    r = client_reply(&c, false);
    assert_true(r.complete && reply_is_pattern(&r, 4 * 65536));
    reply_free(&r);
    nap_ms(50);
    assert_int_equal(stk_scoreboard_get(f->row, STK_COUNTER_requests_suspended), 1);
    r = client_reply(&slow, false);
    assert_true(r.complete && reply_is_pattern(&r, 64 * 65536));
    reply_free(&r);
    assert_true(seen(f, "output") > 0);
    client_close(&slow);
    client_close(&c);
    server_fixture_stop(f);
}

static void a_client_that_takes_nothing_is_given_up(struct server_fixture *f)
{
    struct client c;

    f->sndbuf = 8192;
    f->config.send_timeout = 300;
    f->config.keepalive_timeout = 500;
    server_fixture_start(f);
    c = client_open_slow(f);
    put_get(&c, "/stream/64");
    server_fixture_await(f, STK_COUNTER_requests_suspended, 1);
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    client_close(&c);
    server_fixture_stop(f);
}

/* ---- clients that leave -------------------------------------------------------------------- */

static void leaving_is_told(struct server_fixture *f)
{
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    put_get(&c, "/wait");
    server_fixture_await(f, STK_COUNTER_requests_suspended, 1);
    client_close(&c);
    await_seen(f, "gone", 1);
    c = client_open(f);
    put_get(&c, "/wait");
    server_fixture_await(f, STK_COUNTER_requests_suspended, 1);
    client_puts(&c, HELLO); /* behind it */
    nap_ms(20);
    client_reset(&c);
    await_seen(f, "gone", 2);
    assert_int_equal(seen(f, "cancel"), 0);
    server_fixture_await_exactly(f, STK_COUNTER_requests_suspended, 0);
    server_fixture_stop(f);
}

static void leaving_cancels_where_asked(struct server_fixture *f)
{
    struct client c;

    f->config.cancel_on_disconnect = true;
    server_fixture_start(f);
    c = client_open(f);
    put_get(&c, "/wait");
    server_fixture_await(f, STK_COUNTER_requests_suspended, 1);
    client_reset(&c);
    await_seen(f, "cancel", 1);
    server_fixture_await_exactly(f, STK_COUNTER_requests_left, 1);
    server_fixture_stop(f);
}

/* A client that has ended its side takes its response. */
static void half_closed_clients_are_answered(struct server_fixture *f)
{
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    put_get(&c, "/nap/100");
    client_shut(&c);
    expect_hello(&c);
    client_expect_end(&c);
    client_close(&c);
    c = client_open(f);
    put_post(&c, "/echo", "Content-Length: 100000");
    server_fixture_await(f, STK_COUNTER_requests_suspended, 1);
    client_shut(&c);
    expect(&c, 400, NULL);
    client_close(&c);
    server_fixture_stop(f);
}

/* ---- time ---------------------------------------------------------------------------------- */

static void late_requests_are_answered(struct server_fixture *f)
{
    struct client c, part;

    f->config.request_timeout = 100;
    server_fixture_start(f);
    c = client_open(f);
    part = client_open(f);
    put_get(&c, "/wait");
    put_get(&part, "/part/500");
    expect(&c, 504, NULL);
    client_expect_end(&c);
    {
        struct reply r = client_reply(&part, false);

        assert_false(r.complete);
        reply_free(&r);
    }
    client_close(&c);
    client_close(&part);
    await_seen(f, "timeout", 2);
    server_fixture_await_exactly(f, STK_COUNTER_request_timeouts, 2);
    server_fixture_stop(f);
}

static void a_request_limits_itself(struct server_fixture *f)
{
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    put_get(&c, "/limit/100");
    expect(&c, 504, NULL);
    client_close(&c);
    server_fixture_stop(f);
}

static void close_gate(void)
{
    close(loop_host_gate[0]);
    close(loop_host_gate[1]);
}

/* A callback that blocks stops nothing but the application. */
static void a_blocked_loop_is_taken_over(struct server_fixture *f)
{
    static const char *const paths[] = {"/block/0", "/hold/0"};

    assert_int_equal(pipe2(loop_host_gate, O_CLOEXEC), 0);
    f->config.head_timeout = 300;
    server_fixture_start(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(paths); i++) {
        struct client blocker = client_open(f), silent, c[4];
        uint64_t requests;

        put_get(&blocker, paths[i]);
        nap_ms(20);
        requests = stk_scoreboard_get(f->row, STK_COUNTER_responses_2xx);
        silent = client_open(f);
        client_puts(&silent, "GET / HT");
        for (size_t k = 0; k < STK_ARRAY_LEN(c); k++) {
            c[k] = client_open(f);
            put_get(&c[k], k % 2 ? "/" : "/yield");
        }
        expect(&silent, 408, NULL); /* by the stand-by */
        assert_int_equal(stk_scoreboard_get(f->row, STK_COUNTER_responses_2xx), requests);
        assert_int_equal(write(loop_host_gate[1], "x", 1), 1);
        for (size_t k = 0; k < STK_ARRAY_LEN(c); k++) {
            expect_hello(&c[k]);
            client_close(&c[k]);
        }
        expect_hello(&blocker);
        client_close(&blocker);
        client_close(&silent);
    }
    assert_true(stk_scoreboard_get(f->row, STK_COUNTER_takeovers) >= 2);
    server_fixture_stop(f);
    close_gate();
}

/* What happens to detached requests while the loop is blocked is told afterwards. */
static void a_blocked_loop_learns_what_it_missed(struct server_fixture *f)
{
    struct client wait, late, upload, blocker;

    assert_int_equal(pipe2(loop_host_gate, O_CLOEXEC), 0);
    f->config.request_timeout = 500;
    server_fixture_start(f);
    late = client_open(f);
    put_get(&late, "/wait");
    wait = client_open(f);
    put_get(&wait, "/wait");
    upload = client_open(f);
    put_post(&upload, "/echo", "Transfer-Encoding: chunked");
    server_fixture_await(f, STK_COUNTER_requests_suspended, 3);
    blocker = client_open(f);
    put_get(&blocker, "/block/0");
    nap_ms(50);
    client_puts(&upload, "5\r\nHello\r\n0\r\n\r\n");
    client_close(&wait);
    expect(&late, 504, NULL); /* in the meantime */
    assert_int_equal(write(loop_host_gate[1], "x", 1), 1);
    client_close(&late);
    client_close(&upload);
    client_close(&blocker);
    await_seen(f, "gone", 1);
    await_seen(f, "input", 1);
    await_seen(f, "timeout", 1);
    server_fixture_await_exactly(f, STK_COUNTER_requests_suspended, 0);
    server_fixture_stop(f);
    close_gate();
}

/* ---- the end ------------------------------------------------------------------------------- */

static void draining_waits_for_them(struct server_fixture *f)
{
    struct client nap, wait;

    server_fixture_start(f);
    nap = client_open(f);
    put_get(&nap, "/nap/300");
    wait = client_open(f);
    put_get(&wait, "/wait");
    server_fixture_await(f, STK_COUNTER_requests_suspended, 2);
    server_fixture_send(f, STK_MESSAGE_DRAIN, 0, 30000);
    expect_hello(&wait); /* it was told */
    client_expect_end(&wait);
    expect_hello(&nap);
    client_expect_end(&nap);
    client_close(&nap);
    client_close(&wait);
    assert_int_equal(server_fixture_wait(f), 0);
}

static void what_does_not_finish_is_cut(struct server_fixture *f)
{
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    put_get(&c, "/nap/500");
    server_fixture_await(f, STK_COUNTER_requests_suspended, 1);
    server_fixture_send(f, STK_MESSAGE_DRAIN, 0, 100);
    client_expect_end(&c);
    client_close(&c);
    assert_int_equal(server_fixture_wait(f), 0);
}

/* ---- all at once --------------------------------------------------------------------------- */

static void everything_at_once(struct server_fixture *f)
{
    static const char *const paths[] = {"/",        "/yield",    "/nap/3", "/part/2", "/head/4",
                                        "/block/3", "/stream/2", "/say/x", "/hold/2", "/join"};
    enum { CLIENTS = 24, ROUNDS = 12 };
    struct client c[CLIENTS];

    server_fixture_start(f);
    for (size_t i = 0; i < CLIENTS; i++)
        c[i] = client_open(f);
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < CLIENTS; i++)
            put_get(&c[i], paths[(i + round) % (STK_ARRAY_LEN(paths) - 1)]);
        if (round % 4 == 3) { /* some leave in the midst */
            size_t i = round % CLIENTS;

            client_reset(&c[i]);
            c[i] = client_open(f);
            put_get(&c[i], "/nap/1");
        }
        for (size_t i = 0; i < CLIENTS; i++)
            expect(&c[i], 200, NULL);
    }
    for (size_t i = 0; i < CLIENTS; i++)
        client_close(&c[i]);
    server_fixture_await_exactly(f, STK_COUNTER_requests_suspended, 0);
    server_fixture_stop(f);
}

int main(int argc, char **argv)
{
    static const struct server_test tests[] = {
        SERVER_TEST(answers_at_once_and_later),
        SERVER_TEST(others_are_served_meanwhile),
        SERVER_TEST(pipelined_requests_keep_their_order),
        SERVER_TEST(heads_do_not_mix),
        SERVER_TEST(failures_are_answered),
        SERVER_TEST(broadcasts),
        SERVER_TEST(bodies_come_in_pieces),
        SERVER_TEST(chunked_bodies_stream),
        SERVER_TEST(malformed_chunks_are_refused),
        SERVER_TEST_TAKEOVER(a_silent_body_times_out),
        SERVER_TEST(slow_readers_hold_back_their_stream_only),
        SERVER_TEST_TAKEOVER(a_client_that_takes_nothing_is_given_up),
        SERVER_TEST(leaving_is_told),
        SERVER_TEST(leaving_cancels_where_asked),
        SERVER_TEST(half_closed_clients_are_answered),
        SERVER_TEST_TAKEOVER(late_requests_are_answered),
        SERVER_TEST(a_request_limits_itself),
        SERVER_TEST_TAKEOVER(a_blocked_loop_is_taken_over),
        SERVER_TEST_TAKEOVER(a_blocked_loop_learns_what_it_missed),
        SERVER_TEST(draining_waits_for_them),
        SERVER_TEST_TAKEOVER(what_does_not_finish_is_cut),
        SERVER_TEST(everything_at_once),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return server_fixture_run_hosted("detached requests", tests, STK_ARRAY_LEN(tests));
}
