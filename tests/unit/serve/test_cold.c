/*
 * Files that are not in the page cache: nobody waits for the disk but those who asked for them. The
 * disk is played by a preadv2() of our own, which has nothing in memory as often as a test wants.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/macros.h"
#include "serve/cold.h"
#include "server_fixture.h"

enum { SIZE = 5000000 };

struct disk {
    _Atomic int cold;  /* so many looks find nothing */
    _Atomic int looks; /* all of them */
    _Atomic int rash;  /* sendfile() that would have waited */
};

static struct disk *disk; /* shared with the worker */

ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
    atomic_fetch_add(&disk->looks, 1);
    if (atomic_load(&disk->cold) > 0) {
        atomic_fetch_sub(&disk->cold, 1);
        errno = EAGAIN;
        return -1;
    }
    assert_int_equal(flags, RWF_NOWAIT);
    return pread(fd, iov[0].iov_base, iov[0].iov_len, off);
}

ssize_t sendfile(int out, int in, off_t *off, size_t len)
{
    if (atomic_load(&disk->cold) > 0)
        atomic_fetch_add(&disk->rash, 1);
    return syscall(SYS_sendfile, out, in, off, len);
}

static void start(struct server_fixture *f, int cold)
{
    atomic_store(&disk->cold, cold);
    atomic_store(&disk->looks, 0);
    atomic_store(&disk->rash, 0);
    server_fixture_start(f);
}

static void ask(struct client *c)
{
    char text[80];

    (void)snprintf(text, sizeof text, "GET /file/%d HTTP/1.1\r\nHost: t\r\n\r\n", SIZE);
    client_puts(c, text);
}

static void expect_file(struct client *c)
{
    struct reply r = client_reply(c, false);

    assert_int_equal(r.status, 200);
    assert_true(r.complete && r.len == SIZE + 3);
    assert_string_equal(r.body + SIZE, "end");
    r.len -= 3;
    assert_true(reply_is_pattern(&r, SIZE));
    reply_free(&r);
}

static void expect_hello(struct client *c)
{
    struct reply r = client_reply(c, false);

    assert_int_equal(r.status, 200);
    assert_string_equal(r.body, "Hello, World!");
    reply_free(&r);
}

static void warm(struct server_fixture *f)
{
    struct client c;

    start(f, 0);
    c = client_open(f);
    ask(&c);
    expect_file(&c);
    assert_true(atomic_load(&disk->looks) > 0);
    client_close(&c);
    server_fixture_stop(f);
}

/* The first looks find nothing; others are served meanwhile, and what follows keeps its order. */
static void cold_for_a_while(struct server_fixture *f)
{
    struct client c, other;

    start(f, 60);
    c = client_open(f);
    other = client_open(f);
    ask(&c);
    client_puts(&c, "GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    for (int i = 0; i < 20; i++) {
        client_puts(&other, "GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        expect_hello(&other);
    }
    ask(&c);
    expect_file(&c);
    expect_hello(&c);
    expect_file(&c);
    assert_int_equal(atomic_load(&disk->rash), 0);
    assert_int_equal(atomic_load(&disk->cold), 0);
    client_close(&c);
    client_close(&other);
    server_fixture_stop(f);
}

/* Cold again in the middle, with a client that is slow itself. */
static void cold_in_between(struct server_fixture *f)
{
    struct client c;

    f->sndbuf = 16384;
    start(f, 0);
    c = client_open_slow(f);
    ask(&c);
    server_fixture_await(f, STK_COUNTER_requests, 1);
    atomic_store(&disk->cold, 20);
    expect_file(&c);
    assert_int_equal(atomic_load(&disk->rash), 0);
    client_close(&c);
    server_fixture_stop(f);
}

/* Whatever takes the pages away is faster than we are: then the disk is waited for. */
static void cold_for_ever(struct server_fixture *f)
{
    struct client c;

    start(f, INT32_MAX);
    c = client_open(f);
    ask(&c);
    expect_file(&c);
    assert_true(atomic_load(&disk->rash) > 0);
    assert_true(atomic_load(&disk->looks) >= STK_COLD_LOOKS);
    client_close(&c);
    server_fixture_stop(f);
}

/* Clients that leave meanwhile are noticed, by their hang-up. */
static void gone_while_cold(struct server_fixture *f)
{
    struct client c[6], other;

    start(f, 2000);
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++) {
        c[i] = client_open(f);
        ask(&c[i]);
    }
    server_fixture_await(f, STK_COUNTER_requests, STK_ARRAY_LEN(c));
    for (size_t i = 0; i < STK_ARRAY_LEN(c); i++)
        client_reset(&c[i]);
    server_fixture_await_exactly(f, STK_COUNTER_connections_open, 0);
    atomic_store(&disk->cold, 0);
    other = client_open(f);
    ask(&other);
    expect_file(&other);
    client_close(&other);
    server_fixture_stop(f);
}

int main(void)
{
    static const struct server_test tests[] = {
        SERVER_TEST(warm),          SERVER_TEST(cold_for_a_while), SERVER_TEST(cold_in_between),
        SERVER_TEST(cold_for_ever), SERVER_TEST(gone_while_cold),
    };

    disk = mmap(NULL, sizeof *disk, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (disk == MAP_FAILED)
        return 1;
    return server_fixture_run("cold", tests, STK_ARRAY_LEN(tests));
}
