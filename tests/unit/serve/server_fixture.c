#include "server_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "config/strv.h"
#include "echo_host.h"
#include "ipc/transfer.h"
#include "loop_host.h"
#include "worker/worker.h"

enum { CLIENT_PATIENCE_S = 40, FIXTURE_ROWS = 3 };

/* A forced stop leaves threads behind on purpose. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "report_thread_leaks=0";
}

void nap_ms(long ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&ts, NULL);
}

static void nap(void)
{
    nap_ms(5);
}

void server_fixture_init(struct server_fixture *f, int threads, bool takeover)
{
    *f = (struct server_fixture){.slots = 1};
    echo_host_config(&f->config, threads, takeover);
}

void server_fixture_mix(struct server_fixture *f)
{
    f->hosted = true;
    f->config.app = stk_mem_strdup("async");
    stk_strv_append(&f->config.mount, stk_mem_strdup("/s=sync"));
}

static void fixture_child(struct server_fixture *f, int channel, unsigned slot)
{
    struct stk_worker_params params = {0};
    struct stk_heritage heritage = {
        .config = &f->config,
        .listeners = f->set.items,
        .nlisteners = f->set.n,
        .scoreboard = f->board,
        .row = f->row,
        .transfer = f->transfer,
        .slot = slot,
        .nworkers = 1,
        .channel = channel,
    };
    int code;

    if (f->hosted) {
        params.host_ops = &loop_host_ops;
        params.host = loop_host_new(f->turns);
    } else {
        params.host_ops = &echo_host_ops;
        params.host = echo_host_new();
    }
    close(f->channel);
    code = stk_worker_main(&params, &heritage);
    if (f->hosted)
        loop_host_free(params.host);
    else
        echo_host_free(params.host);
    exit(code);
}

/* Forks a worker for the row `row` and waits until it is ready. */
static void fixture_fork(struct server_fixture *f, unsigned slot)
{
    struct stk_message msg;
    int fds[2], row, r;

    row = stk_scoreboard_claim(f->board, slot, 0);
    assert_true(row >= 0);
    assert_int_equal(stk_channel_pair(fds), 0);
    if (f->channel_sndbuf > 0)
        assert_int_equal(
            setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &f->channel_sndbuf, sizeof f->channel_sndbuf),
            0);
    f->row = &f->board->rows[row];
    f->channel = fds[1];
    fflush(NULL);
    f->pid = fork();
    assert_true(f->pid >= 0);
    if (f->pid == 0)
        fixture_child(f, fds[0], slot);
    close(fds[0]);
    atomic_store(&f->row->pid, (uint64_t)f->pid);
    while ((r = stk_channel_recv(f->channel, STK_CHANNEL_MASTER, &msg)) != 0 ||
           msg.type != STK_MESSAGE_READY) {
        assert_true(r == 0 || r == -EAGAIN);
        nap();
    }
    atomic_store(&f->row->state, STK_SCOREBOARD_READY);
}

void server_fixture_start(struct server_fixture *f)
{
    struct stk_listen_options options = {.backlog = 1024, .socket_mode = -1};
    struct sockaddr_in sin;
    socklen_t len = sizeof sin;
    char *error = NULL;

    assert_int_equal(stk_listen_set_open(&f->set, "127.0.0.1:0", f->slots, &options, &error), 0);
    assert_int_equal(getsockname(f->set.items[0]->slots[0], (struct sockaddr *)&sin, &len), 0);
    f->port = ntohs(sin.sin_port);
    if (f->sndbuf > 0)
        assert_int_equal(setsockopt(f->set.items[0]->slots[0], SOL_SOCKET, SO_SNDBUF, &f->sndbuf,
                                    sizeof f->sndbuf),
                         0);
    assert_int_equal(stk_scoreboard_new(FIXTURE_ROWS, &f->board), 0);
    assert_int_equal(stk_transfer_new(FIXTURE_ROWS, &f->transfer), 0);
    stk_transfer_own_master(f->transfer);
    fixture_fork(f, 0);
}

void server_fixture_start_beside(struct server_fixture *f, struct server_fixture *first)
{
    f->set = first->set;
    f->port = first->port;
    f->board = first->board;
    f->transfer = first->transfer;
    f->beside = true;
    fixture_fork(f, first->slots);
}

int server_fixture_wait(struct server_fixture *f)
{
    int status = 0;

    for (int i = 0; i < CLIENT_PATIENCE_S * 200; i++) {
        pid_t r = waitpid(f->pid, &status, WNOHANG);

        assert_true(r >= 0);
        if (r == f->pid) {
            f->pid = 0;
            close(f->channel);
            if (!f->beside) {
                stk_listen_set_deinit(&f->set);
                stk_scoreboard_free(f->board);
                stk_transfer_free(f->transfer);
            }
            echo_host_config_deinit(&f->config);
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        nap();
    }
    kill(f->pid, SIGABRT);
    fail_msg("the worker does not end");
    return -1;
}

void server_fixture_send(struct server_fixture *f, enum stk_message_type type, uint32_t slot,
                         int64_t value)
{
    assert_int_equal(stk_channel_send_simple(f->channel, type, slot, value), 0);
}

void server_fixture_stop(struct server_fixture *f)
{
    atomic_store(&f->row->state, STK_SCOREBOARD_DRAINING);
    server_fixture_send(f, STK_MESSAGE_DRAIN, 0, 30000);
    assert_int_equal(server_fixture_wait(f), 0);
}

void server_fixture_await(struct server_fixture *f, enum stk_counter counter, uint64_t n)
{
    for (int i = 0; i < CLIENT_PATIENCE_S * 200; i++) {
        if (stk_scoreboard_get(f->row, counter) >= n)
            return;
        nap();
    }
    fail_msg("%s: %llu, expected at least %llu", stk_scoreboard_counter_name(counter),
             (unsigned long long)stk_scoreboard_get(f->row, counter), (unsigned long long)n);
}

void server_fixture_await_exactly(struct server_fixture *f, enum stk_counter counter, uint64_t n)
{
    for (int i = 0; i < CLIENT_PATIENCE_S * 200; i++) {
        if (stk_scoreboard_get(f->row, counter) == n)
            return;
        nap();
    }
    fail_msg("%s: %llu, expected %llu", stk_scoreboard_counter_name(counter),
             (unsigned long long)stk_scoreboard_get(f->row, counter), (unsigned long long)n);
}

static struct client open_with(struct server_fixture *f, int rcvbuf)
{
    struct sockaddr_in sin = {.sin_family = AF_INET,
                              .sin_port = htons(f->port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = CLIENT_PATIENCE_S};
    struct client c = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    int nodelay = 1;

    assert_true(c.fd >= 0);
    if (rcvbuf > 0)
        assert_int_equal(setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf), 0);
    assert_int_equal(setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    /* Pieces of a request leave at once, not when the piece before them has been acknowledged. */
    assert_int_equal(setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, sizeof nodelay), 0);
    assert_int_equal(connect(c.fd, (struct sockaddr *)&sin, sizeof sin), 0);
    return c;
}

struct client client_open(struct server_fixture *f)
{
    return open_with(f, 0);
}

struct client client_open_slow(struct server_fixture *f)
{
    return open_with(f, 4096);
}

void client_close(struct client *c)
{
    close(c->fd);
    free(c->buf);
    *c = (struct client){.fd = -1};
}

void client_reset(struct client *c)
{
    struct linger linger = {.l_onoff = 1};

    assert_int_equal(setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    client_close(c);
}

void client_send(struct client *c, const char *data, size_t len)
{
    while (len > 0 && !c->reset) {
        ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);

        if (n < 0) {
            assert_true(errno == EPIPE || errno == ECONNRESET);
            c->reset = true;
            return;
        }
        data += n;
        len -= (size_t)n;
    }
}

void client_puts(struct client *c, const char *text)
{
    client_send(c, text, strlen(text));
}

void client_shut(struct client *c)
{
    assert_int_equal(shutdown(c->fd, SHUT_WR), 0);
}

/* Receives more; false at the end. */
static bool client_fill(struct client *c)
{
    ssize_t n;

    if (c->eof)
        return false;
    if (c->cap - c->len < 65536) {
        c->cap = c->cap * 2 + 131072;
        c->buf = realloc(c->buf, c->cap);
        assert_non_null(c->buf);
    }
    n = recv(c->fd, c->buf + c->len, c->cap - c->len, 0);
    if (n < 0) {
        assert_int_equal(errno, ECONNRESET); /* EAGAIN: no answer in time */
        c->reset = true;
    }
    if (n <= 0) {
        c->eof = true;
        return false;
    }
    c->len += (size_t)n;
    return true;
}

static void client_use(struct client *c, size_t n)
{
    assert_true(n <= c->len);
    c->len -= n;
    memmove(c->buf, c->buf + n, c->len);
}

/* Makes n bytes available; false: the connection ended before. */
static bool client_need(struct client *c, size_t n)
{
    while (c->len < n)
        if (!client_fill(c))
            return false;
    return true;
}

/* The position behind the first occurrence of a text; 0: the connection ended before. */
static size_t client_find(struct client *c, const char *text)
{
    size_t n = strlen(text);

    for (;;) {
        char *at = c->len > 0 ? memmem(c->buf, c->len, text, n) : NULL;

        if (at != NULL)
            return (size_t)(at - c->buf) + n;
        if (!client_fill(c))
            return 0;
    }
}

static void reply_add(struct reply *r, const char *data, size_t len)
{
    r->body = realloc(r->body, r->len + len + 1);
    assert_non_null(r->body);
    if (len > 0)
        memcpy(r->body + r->len, data, len);
    r->len += len;
    r->body[r->len] = '\0';
}

static const char *reply_field(const struct reply *r, const char *name)
{
    size_t n = strlen(name);

    for (const char *line = strstr(r->head, "\r\n"); line != NULL; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, n) == 0 && line[2 + n] == ':')
            return line + 2 + n + 2;
    return NULL;
}

static void read_chunks(struct client *c, struct reply *r)
{
    for (;;) {
        size_t line = client_find(c, "\r\n");
        size_t size;
        char *end;

        if (line == 0)
            return;
        size = strtoul(c->buf, &end, 16);
        assert_true(end > c->buf && *end == '\r');
        client_use(c, line);
        if (!client_need(c, size + 2))
            return;
        reply_add(r, c->buf, size);
        assert_memory_equal(c->buf + size, "\r\n", 2);
        client_use(c, size + 2);
        if (size == 0) {
            r->complete = true;
            return;
        }
    }
}

struct reply client_reply(struct client *c, bool head)
{
    struct reply r = {.length = -1};
    size_t n = client_find(c, "\r\n\r\n");
    const char *field;

    reply_add(&r, NULL, 0);
    if (n == 0) {
        assert_int_equal(c->len, 0);
        return r;
    }
    r.head = stk_mem_strndup(c->buf, n);
    client_use(c, n);
    assert_int_equal(sscanf(r.head, "HTTP/1.1 %u ", &r.status), 1);
    field = reply_field(&r, "Connection");
    r.close = field != NULL && strncasecmp(field, "close", 5) == 0;
    field = reply_field(&r, "Content-Length");
    r.length = field != NULL ? atoll(field) : -1;
    r.chunked = reply_field(&r, "Transfer-Encoding") != NULL;
    assert_false(r.chunked && field != NULL);
    if (head || r.status < 200 || r.status == 204 || r.status == 304) {
        r.complete = true;
    } else if (r.chunked) {
        read_chunks(c, &r);
    } else if (r.length >= 0) {
        r.complete = client_need(c, (size_t)r.length);
        n = r.complete ? (size_t)r.length : c->len;
        reply_add(&r, c->buf, n);
        client_use(c, n);
    } else {
        while (client_fill(c)) {
        }
        reply_add(&r, c->buf, c->len);
        client_use(c, c->len);
        r.complete = !c->reset;
    }
    return r;
}

void client_expect_hello(struct client *c)
{
    struct reply r = client_reply(c, false);

    assert_int_equal(r.status, 200);
    assert_true(r.complete);
    assert_string_equal(r.body, "Hello, World!");
    reply_free(&r);
}

void reply_free(struct reply *r)
{
    free(r->head);
    free(r->body);
    *r = (struct reply){0};
}

void client_expect_end(struct client *c)
{
    while (client_fill(c)) {
    }
    assert_int_equal(c->len, 0);
}

struct reply client_get(struct client *c, const char *path)
{
    char text[512];

    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path);
    client_puts(c, text);
    return client_reply(c, false);
}

bool reply_is_pattern(const struct reply *r, size_t len)
{
    if (r->len != len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (r->body[i] != echo_pattern(i))
            return false;
    return true;
}

char *pattern_new(size_t len)
{
    char *p = stk_mem_zalloc(len + 1);

    for (size_t i = 0; i < len; i++)
        p[i] = echo_pattern(i);
    return p;
}

struct variant {
    int threads;
    bool takeover;
    bool hosted, turns, mixed;
};

struct running {
    const struct server_test *test;
    struct variant variant;
};

static void run_one(void **state)
{
    struct running *running = *state;
    struct server_fixture f;

    server_fixture_init(&f, running->variant.threads, running->variant.takeover);
    f.hosted = running->variant.hosted;
    f.turns = running->variant.turns;
    if (running->variant.mixed)
        server_fixture_mix(&f);
    running->test->fn(&f);
}

static const char *variant_name(const struct variant *v)
{
    if (v->mixed)
        return v->threads == 1 ? v->turns ? "turns, 1 thread beside" : "waits, 1 thread beside"
               : v->turns      ? "turns, 3 threads beside"
                               : "waits, 3 threads beside";
    if (v->hosted)
        return v->turns ? "turns" : "waits";
    return v->threads == 1 ? "1 threads" : "4 threads";
}

static int run_variants(const char *group, const struct server_test *tests, size_t n,
                        const struct variant *variants, size_t nvariants)
{
    size_t total = n * nvariants, count = 0;
    struct CMUnitTest *units = stk_new0_array(struct CMUnitTest, total);
    struct running *running = stk_new0_array(struct running, total);
    int r;

    for (size_t v = 0; v < nvariants; v++) {
        for (size_t i = 0; i < n; i++) {
            if (tests[i].only_takeover && !variants[v].takeover)
                continue;
            running[count] = (struct running){&tests[i], variants[v]};
            units[count].name =
                stk_mem_printf("%s, %s%s", tests[i].name, variant_name(&variants[v]),
                               variants[v].takeover ? "" : ", no take-over");
            units[count].test_func = run_one;
            units[count].initial_state = &running[count];
            count++;
        }
    }
    r = _cmocka_run_group_tests(group, units, count, NULL, NULL);
    for (size_t i = 0; i < count; i++) {
        union {
            const char *c;
            void *v;
        } name = {.c = units[i].name};

        free(name.v);
    }
    free(units);
    free(running);
    return r;
}

int server_fixture_run(const char *group, const struct server_test *tests, size_t n)
{
    static const struct variant variants[] = {
        {.threads = 1, .takeover = true},
        {.threads = 1},
        {.threads = 4, .takeover = true},
        {.threads = 4},
    };

    return run_variants(group, tests, n, variants, STK_ARRAY_LEN(variants));
}

int server_fixture_run_hosted(const char *group, const struct server_test *tests, size_t n)
{
    static const struct variant variants[] = {
        {.threads = 1, .takeover = true, .hosted = true},
        {.threads = 1, .takeover = true, .hosted = true, .turns = true},
        {.threads = 1, .hosted = true},
        {.threads = 1, .hosted = true, .turns = true},
    };

    return run_variants(group, tests, n, variants, STK_ARRAY_LEN(variants));
}

int server_fixture_run_mixed(const char *group, const struct server_test *tests, size_t n)
{
    static const struct variant variants[] = {
        {.threads = 1, .takeover = true, .mixed = true},
        {.threads = 3, .takeover = true, .mixed = true},
        {.threads = 1, .takeover = true, .mixed = true, .turns = true},
        {.threads = 3, .takeover = true, .mixed = true, .turns = true},
        {.threads = 3, .mixed = true},
        {.threads = 3, .mixed = true, .turns = true},
    };

    return run_variants(group, tests, n, variants, STK_ARRAY_LEN(variants));
}
