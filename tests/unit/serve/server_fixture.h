/*
 * For tests of the whole server: a worker with the C application in a process of its own, and HTTP
 * clients that look at every byte. The worker's counters are read from the scoreboard.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <cmocka.h>

#include "config/config.h"
#include "ipc/channel.h"
#include "ipc/scoreboard.h"
#include "net/listen.h"

struct server_fixture {
    struct stk_config config; /* to be changed before the start */
    struct stk_listen_set set;
    struct stk_scoreboard *board;
    struct stk_scoreboard_row *row;
    unsigned slots; /* of the listening socket, 1 unless changed */
    int channel;    /* the master's end */
    pid_t pid;
    uint16_t port;
    int sndbuf;         /* of the listening socket; 0: as it is */
    int channel_sndbuf; /* of the worker's end of the channel; 0: as it is */
    struct stk_transfer *transfer;
    bool beside; /* what is shared belongs to another fixture */
    bool hosted; /* the application has an event loop (loop_host.h); `turns` says of which kind */
    bool turns;
};

/* Short timeouts are for the test to set; threads and take-over come from the variant. */
void server_fixture_init(struct server_fixture *f, int threads, bool takeover);
/* An asynchronous application, and one that is not at /s, on threads of its own (loop_host.h). */
void server_fixture_mix(struct server_fixture *f);
void server_fixture_start(struct server_fixture *f);
/* Starts another worker beside one: it accepts nothing, and can take connections over. */
void server_fixture_start_beside(struct server_fixture *f, struct server_fixture *first);
/* Drains the worker; it has to end with 0 and without connections. */
void server_fixture_stop(struct server_fixture *f);
/* Waits for the worker's end; its exit code. */
int server_fixture_wait(struct server_fixture *f);
void server_fixture_send(struct server_fixture *f, enum stk_message_type type, uint32_t slot,
                         int64_t value);
/* Waits until a counter is at least, or exactly, n. */
void server_fixture_await(struct server_fixture *f, enum stk_counter counter, uint64_t n);
void server_fixture_await_exactly(struct server_fixture *f, enum stk_counter counter, uint64_t n);

void nap_ms(long ms);

struct client {
    int fd;
    char *buf;
    size_t len, cap;
    bool eof, reset;
};

struct reply {
    unsigned status;
    char *head; /* NUL-terminated, with its final empty line */
    char *body; /* NUL-terminated */
    size_t len;
    bool complete; /* framed to its end */
    bool close;    /* Connection: close */
    bool chunked;
    int64_t length; /* Content-Length, -1: none */
};

struct client client_open(struct server_fixture *f);
/* The same with a small receive buffer. */
struct client client_open_slow(struct server_fixture *f);
void client_close(struct client *c);
/* Ends with a reset. */
void client_reset(struct client *c);
/* Sends all; a connection that was reset meanwhile is noted, not asserted. */
void client_send(struct client *c, const char *data, size_t len);
void client_puts(struct client *c, const char *text);
/* The end of what this side sends. */
void client_shut(struct client *c);
/* One response; `head`: to a HEAD request. status 0: the connection ended before it. */
struct reply client_reply(struct client *c, bool head);
void reply_free(struct reply *r);
/* Reads to the end: nothing may come. */
void client_expect_end(struct client *c);
/* One response with the C application's greeting. */
void client_expect_hello(struct client *c);
/* One request and its answer. */
struct reply client_get(struct client *c, const char *path);
/* Whether the body is the pattern of the C application. */
bool reply_is_pattern(const struct reply *r, size_t len);
/* len bytes of text that differ everywhere; free() them. */
char *pattern_new(size_t len);

/* A test of the server; it is run with 1 and 4 threads, with and without take-over. */
struct server_test {
    const char *name;
    void (*fn)(struct server_fixture *f);
    bool only_takeover;
};

#define SERVER_TEST(fn) \
    {                   \
#        fn, fn, false  \
    }
/* Needs a loop that turns while the application runs. */
#define SERVER_TEST_TAKEOVER(fn) \
    {                            \
#        fn, fn, true            \
    }

/* Runs them all; the result of main(). */
int server_fixture_run(const char *group, const struct server_test *tests, size_t n);
/* The same with event loops of both kinds in place of the numbers of threads. */
int server_fixture_run_hosted(const char *group, const struct server_test *tests, size_t n);
/* The same with threads beside them. */
int server_fixture_run_mixed(const char *group, const struct server_test *tests, size_t n);
