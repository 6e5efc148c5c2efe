/* Request bodies over real connections: framing at every split, limits, timeouts, 100-continue. */
#include <stdio.h>

#include "base/macros.h"
#include "base/mem.h"
#include "server_fixture.h"

#define HELLO "GET / HTTP/1.1\r\nHost: test\r\n\r\n"

static void expect_body(struct client *c, const char *body, size_t len)
{
    struct reply r = client_reply(c, false);

    assert_int_equal(r.status, 200);
    assert_true(r.complete);
    assert_int_equal(r.len, len);
    assert_memory_equal(r.body, body, len);
    reply_free(&r);
}

/* An answer that ends the connection, however much the client still sends. */
static void expect_refusal(struct client *c, unsigned status)
{
    struct reply r = client_reply(c, false);

    assert_int_equal(r.status, status);
    assert_true(r.complete && r.close);
    reply_free(&r);
    client_expect_end(c);
    assert_false(c->reset);
}

static void put_length(struct client *c, size_t len, const char *more)
{
    char head[200];

    snprintf(head, sizeof head, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: %zu\r\n%s\r\n",
             len, more);
    client_puts(c, head);
}

static void lengths_come_back(struct server_fixture *f)
{
    static const size_t lengths[] = {0, 1, 1000, 65536, 1 << 20, (1 << 20) + 1, 3 << 20};
    char *pattern = pattern_new(3 << 20);
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(lengths); i++) {
        put_length(&c, lengths[i], "");
        client_send(&c, pattern, lengths[i]);
        client_puts(&c, HELLO);
        expect_body(&c, pattern, lengths[i]);
        client_expect_hello(&c);
        /* in two parts */
        put_length(&c, lengths[i], "");
        client_send(&c, pattern, lengths[i] / 2);
        nap_ms(2);
        client_send(&c, pattern + lengths[i] / 2, lengths[i] - lengths[i] / 2);
        expect_body(&c, pattern, lengths[i]);
    }
    client_close(&c);
    free(pattern);
    server_fixture_stop(f);
}

static void chunked_split_at_every_byte(struct server_fixture *f)
{
    static const char text[] =
        "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5\r\nhello\r\n8;a=\"b\"\r\n, chunks\r\n0\r\nX-Trailer: y\r\n\r\n" HELLO
        "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc";
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    for (size_t i = 1; i < sizeof text - 1; i++) {
        client_send(&c, text, i);
        if (i > 60 && i % 2 == 0)
            nap_ms(1);
        client_send(&c, text + i, sizeof text - 1 - i);
        expect_body(&c, "hello, chunks", 13);
        client_expect_hello(&c);
        expect_body(&c, "abc", 3);
    }
    for (size_t i = 0; i < sizeof text - 1; i++)
        client_send(&c, text + i, 1);
    expect_body(&c, "hello, chunks", 13);
    client_expect_hello(&c);
    expect_body(&c, "abc", 3);
    client_close(&c);
    server_fixture_stop(f);
}

/* What fills the read buffer behind the end of a chunked body is the next requests', all of it. */
static void a_flood_behind_a_chunked_body(struct server_fixture *f)
{
    struct client c;
    size_t n = 5000, one = strlen(HELLO);
    char *flood = malloc(n * one + 6);
    char *head = pattern_new(20000);

    assert_non_null(flood);
    memcpy(flood, "0\r\n\r\n", 5);
    for (size_t i = 0; i < n; i++)
        memcpy(flood + 5 + i * one, HELLO, one);
    memset(head, 'h', 20000);
    server_fixture_start(f);
    for (int round = 0; round < 3; round++) {
        c = client_open(f);
        client_puts(&c, "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nX: ");
        client_send(&c, head, 20000);
        client_puts(&c, "\r\n\r\n3\r\nabc\r\n");
        nap_ms(round * 3);
        client_send(&c, flood, 5 + n * one);
        expect_body(&c, "abc", 3);
        for (size_t i = 0; i < n; i++)
            client_expect_hello(&c);
        client_close(&c);
    }
    free(flood);
    free(head);
    server_fixture_stop(f);
}

static void large_chunked_bodies(struct server_fixture *f)
{
    size_t len = 3000000;
    char *pattern = pattern_new(len);
    struct client c;

    server_fixture_start(f);
    c = client_open(f);
    for (size_t block = 1000; block < 2000000; block *= 11) {
        client_puts(&c, "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (size_t at = 0; at < len; at += block) {
            size_t n = len - at < block ? len - at : block;
            char line[32];

            snprintf(line, sizeof line, "%zx\r\n", n);
            client_puts(&c, line);
            client_send(&c, pattern + at, n);
            client_puts(&c, "\r\n");
        }
        client_puts(&c, "0\r\n\r\n" HELLO);
        expect_body(&c, pattern, len);
        client_expect_hello(&c);
    }
    client_close(&c);
    free(pattern);
    server_fixture_stop(f);
}

static void continue_is_sent_once(struct server_fixture *f)
{
    struct client c;
    struct reply r;

    server_fixture_start(f);
    c = client_open(f);
    for (int pipelined = 0; pipelined < 2; pipelined++) {
        /* The answer to what came before precedes it. */
        if (pipelined)
            client_puts(&c, HELLO);
        put_length(&c, 6, "Expect: 100-continue\r\n");
        if (pipelined)
            client_expect_hello(&c);
        r = client_reply(&c, false);
        assert_int_equal(r.status, 100);
        reply_free(&r);
        client_puts(&c, "abc");
        nap_ms(2);
        client_puts(&c, "def");
        expect_body(&c, "abcdef", 6);
    }
    /* None when the body is there. */
    client_puts(&c, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n"
                    "Expect: 100-continue\r\n\r\nabc");
    expect_body(&c, "abc", 3);
    client_close(&c);
    server_fixture_stop(f);
}

static void bodies_over_the_limit_are_refused(struct server_fixture *f)
{
    char *pattern = pattern_new(3 << 20);
    struct client c;

    f->config.limit_request_body = 100000;
    server_fixture_start(f);
    c = client_open(f);
    put_length(&c, 100000, "");
    client_send(&c, pattern, 100000);
    expect_body(&c, pattern, 100000);
    put_length(&c, 100001, "Expect: 100-continue\r\n");
    expect_refusal(&c, 413);
    client_close(&c);

    c = client_open(f);
    put_length(&c, 3 << 20, "");
    client_send(&c, pattern, 3 << 20);
    client_shut(&c);
    expect_refusal(&c, 413);
    client_close(&c);

    c = client_open(f);
    client_puts(&c,
                "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n300000\r\n");
    client_send(&c, pattern, 3 << 20);
    client_shut(&c);
    expect_refusal(&c, 413);
    client_close(&c);
    free(pattern);
    server_fixture_stop(f);
}

static void malformed_chunks_are_refused(struct server_fixture *f)
{
    static const char *const bad[] = {"x\r\n", "-1\r\n", "3\r\nabcd\r\n", "3\nabc\n",
                                      "0\r\nbad trailer\r\n\r\n"};
    struct client c;

    server_fixture_start(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(bad); i++) {
        for (int later = 0; later < 2; later++) {
            c = client_open(f);
            client_puts(&c,
                        HELLO "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                              "2\r\nok\r\n");
            if (later)
                nap_ms(10);
            client_puts(&c, bad[i]);
            client_expect_hello(&c);
            expect_refusal(&c, 400);
            client_close(&c);
        }
    }
    server_fixture_stop(f);
}

static void silent_clients_time_out(struct server_fixture *f)
{
    struct client head, body, chunked, nothing, idle;

    f->config.head_timeout = 200;
    f->config.body_timeout = 200;
    f->config.keepalive_timeout = 200;
    server_fixture_start(f);
    nothing = client_open(f);
    head = client_open(f);
    client_puts(&head, "GET / HTTP/1.1\r\nHo");
    body = client_open(f);
    put_length(&body, 100, "");
    client_puts(&body, "begun");
    chunked = client_open(f);
    client_puts(&chunked,
                "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
    idle = client_open(f);
    client_puts(&idle, HELLO);
    client_expect_hello(&idle);
    expect_refusal(&head, 408);
    expect_refusal(&body, 408);
    expect_refusal(&chunked, 408);
    client_expect_end(&nothing);
    client_expect_end(&idle);
    client_close(&nothing);
    client_close(&head);
    client_close(&body);
    client_close(&chunked);
    client_close(&idle);
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    server_fixture_stop(f);
}

static void clients_that_vanish_in_a_body(struct server_fixture *f)
{
    struct client c;

    server_fixture_start(f);
    for (int i = 0; i < 10; i++) {
        c = client_open(f);
        put_length(&c, 100000, "");
        client_puts(&c, "begun");
        if (i % 2)
            nap_ms(i);
        if (i % 3 == 0)
            client_reset(&c);
        else
            client_close(&c);
    }
    server_fixture_await(f, STK_COUNTER_connections, 7);
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    server_fixture_stop(f);
}

static void temporary_files_that_cannot_be_made(struct server_fixture *f)
{
    char *pattern = pattern_new(3 << 20);
    struct client c;

    f->config.tmpdir = stk_mem_strdup("/nonexistent/for/this/test");
    server_fixture_start(f);
    c = client_open(f);
    put_length(&c, 3 << 20, "");
    client_send(&c, pattern, 3 << 20);
    client_shut(&c);
    expect_refusal(&c, 500);
    client_close(&c);
    free(pattern);
    server_fixture_stop(f);
}

/* Stream mode: the application is called at once and reads what arrives. */
static void streamed_bodies(struct server_fixture *f)
{
    static const size_t lengths[] = {1, 1000, 200000, 3 << 20};
    char *pattern = pattern_new(3 << 20);
    struct client c;
    struct reply r;

    f->config.body_stream = true;
    server_fixture_start(f);
    c = client_open(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(lengths); i++) {
        put_length(&c, lengths[i], "");
        client_send(&c, pattern, lengths[i] / 3);
        nap_ms(3);
        client_send(&c, pattern + lengths[i] / 3, lengths[i] - lengths[i] / 3);
        expect_body(&c, pattern, lengths[i]);
    }
    client_puts(&c, "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe");
    nap_ms(3);
    client_puts(&c, "llo\r\n");
    nap_ms(3);
    client_puts(&c, "0\r\n\r\n");
    expect_body(&c, "hello", 5);
    client_puts(&c, HELLO);
    put_length(&c, 6, "Expect: 100-continue\r\n");
    client_expect_hello(&c);
    r = client_reply(&c, false);
    assert_int_equal(r.status, 100);
    reply_free(&r);
    client_puts(&c, "abcdef");
    expect_body(&c, "abcdef", 6);
    /* not read by the application: the connection ends behind the answer */
    client_puts(&c, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nbegun");
    client_expect_hello(&c);
    client_shut(&c);
    client_expect_end(&c);
    client_close(&c);
    free(pattern);
    server_fixture_stop(f);
}

int main(void)
{
    static const struct server_test tests[] = {
        SERVER_TEST(lengths_come_back),
        SERVER_TEST(chunked_split_at_every_byte),
        SERVER_TEST(a_flood_behind_a_chunked_body),
        SERVER_TEST(large_chunked_bodies),
        SERVER_TEST(continue_is_sent_once),
        SERVER_TEST(bodies_over_the_limit_are_refused),
        SERVER_TEST(malformed_chunks_are_refused),
        SERVER_TEST(silent_clients_time_out),
        SERVER_TEST(clients_that_vanish_in_a_body),
        SERVER_TEST(temporary_files_that_cannot_be_made),
        SERVER_TEST(streamed_bodies),
    };

    return server_fixture_run("server bodies", tests, STK_ARRAY_LEN(tests));
}
