/* The stats server in a loop: whole documents, and readers that do not read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/mem.h"
#include "loop/loop.h"
#include "net/listen.h"
#include "services/stats_server.h"

enum { MANY = 24 };

struct fixture {
    struct stk_loop *loop;
    struct stk_listen_set set;
    struct stk_stats_server *server;
    size_t len; /* of the document */
    unsigned made;
    int result; /* of making it */
};

static int fixture_text(void *arg, char **ret_text, size_t *ret_len)
{
    struct fixture *f = arg;

    f->made++;
    if (f->result < 0)
        return f->result;
    *ret_text = stk_mem_zalloc(f->len);
    memset(*ret_text, 'x', f->len);
    *ret_len = f->len;
    return 0;
}

static void fixture_open(struct fixture *f, size_t len, bool http)
{
    const struct stk_listen_options options = {.backlog = 64, .socket_mode = -1};
    struct stk_stats_server_params params = {.http = http, .text = fixture_text, .arg = f};
    char *error = NULL;

    *f = (struct fixture){.len = len};
    assert_int_equal(stk_loop_new(&f->loop), 0);
    assert_int_equal(stk_listen_set_open(&f->set, "127.0.0.1:0", 1, &options, &error), 0);
    params.loop = f->loop;
    params.listeners = f->set.items;
    params.nlisteners = f->set.n;
    assert_int_equal(stk_stats_server_new(&f->server, &params), 0);
}

static void fixture_close(struct fixture *f)
{
    assert_null(stk_stats_server_free(f->server));
    assert_null(stk_stats_server_free(NULL));
    stk_listen_set_deinit(&f->set);
    stk_loop_free(f->loop);
}

static void fixture_turn(struct fixture *f)
{
    assert_int_equal(stk_loop_run_once(f->loop, 20, NULL), 0);
}

static int client_open(struct fixture *f, int rcvbuf)
{
    const struct stk_addr *addr = &f->set.items[0]->addr;
    int fd = socket(addr->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    if (rcvbuf > 0)
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf), 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&addr->ss, addr->len), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* Reads to the end while the loop turns; the number of bytes, and the first of them. */
static size_t client_read(struct fixture *f, int fd, char *first, size_t size)
{
    static char buf[1 << 16];
    size_t total = 0;

    for (int i = 0; i < 5000; i++) {
        ssize_t n = recv(fd, buf, sizeof buf, 0);

        if (n == 0) {
            close(fd);
            return total;
        }
        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            fixture_turn(f);
            continue;
        }
        for (size_t k = 0; k < (size_t)n && total + k + 1 < size; k++)
            first[total + k] = buf[k];
        total += (size_t)n;
    }
    fail_msg("no end after %zu bytes", total);
    return 0;
}

static void test_documents(void **state)
{
    static const size_t sizes[] = {1, 1000, 20 << 20}; /* the last does not fit any buffer */
    struct fixture f;

    for (size_t i = 0; i < STK_ARRAY_LEN(sizes); i++) {
        char first[2] = "";

        fixture_open(&f, sizes[i], false);
        assert_int_equal(client_read(&f, client_open(&f, 0), first, sizeof first), sizes[i]);
        assert_string_equal(first, "x");
        fixture_close(&f);
    }
}

static void test_http(void **state)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    char first[64] = "";
    struct fixture f;
    int fd;

    fixture_open(&f, 100, true);
    fd = client_open(&f, 0);
    assert_int_equal(send(fd, request, sizeof request - 1, 0), sizeof request - 1);
    assert_true(client_read(&f, fd, first, sizeof first) > 100); /* no reset */
    assert_memory_equal(first, "HTTP/1.0 200 OK\r\n", 17);
    fixture_close(&f);
}

static void test_failure_closes(void **state)
{
    struct fixture f;

    fixture_open(&f, 1, false);
    f.result = -ENOMEM;
    assert_int_equal(client_read(&f, client_open(&f, 0), NULL, 0), 0);
    f.result = 0;
    assert_int_equal(client_read(&f, client_open(&f, 0), NULL, 0), 1);
    fixture_close(&f);
}

/* So many are served at a time; who comes later is served when the first have gone. */
static void test_lazy_readers(void **state)
{
    struct fixture f;
    int fds[MANY];
    unsigned made;

    fixture_open(&f, 20 << 20, false);
    for (int i = 0; i < MANY; i++)
        fds[i] = client_open(&f, 4096);
    for (int i = 0; i < 2 * MANY; i++)
        fixture_turn(&f);
    made = f.made;
    assert_true(made > 0 && made < MANY);
    for (int i = 0; i < MANY; i++)
        close(fds[i]);
    assert_int_equal(client_read(&f, client_open(&f, 0), NULL, 0), 20 << 20);
    assert_int_equal(f.made, MANY + 1);
    fixture_close(&f);
}

static void test_free_with_readers(void **state)
{
    struct fixture f;
    int fd;

    fixture_open(&f, 20 << 20, false);
    fd = client_open(&f, 4096);
    for (int i = 0; i < 3; i++)
        fixture_turn(&f);
    assert_int_equal(f.made, 1);
    fixture_close(&f);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents),         cmocka_unit_test(test_http),
        cmocka_unit_test(test_failure_closes),    cmocka_unit_test(test_lazy_readers),
        cmocka_unit_test(test_free_with_readers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
