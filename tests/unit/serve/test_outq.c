/* The output queue: order, limits, files, and a reader on the other end of a socket pair. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "echo_host.h"
#include "serve/outq.h"

static const struct stk_outq_limits roomy = {.memory = 1 << 20, .file = 1 << 30};

struct pair {
    int in, out;
    size_t read; /* bytes of the pattern read so far */
};

static struct pair pair_open(void)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    return (struct pair){fds[0], fds[1], 0};
}

/* Reads what is there and compares it with the pattern. */
static size_t pair_read(struct pair *p)
{
    static char buf[65536];
    size_t total = 0;
    ssize_t n;

    while ((n = recv(p->out, buf, sizeof buf, 0)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            if (buf[i] != echo_pattern(p->read + (size_t)i))
                fail_msg("byte %zu differs", p->read + (size_t)i);
        p->read += (size_t)n;
        total += (size_t)n;
    }
    assert_true(n < 0 && errno == EAGAIN);
    return total;
}

/* Appends bytes [at, at + len) of the pattern, in three parts, with `skip` others in front. */
static int append(struct stk_outq *q, size_t at, size_t len, size_t skip,
                  const struct stk_outq_limits *limits)
{
    char *data = stk_mem_zalloc(len + skip);
    struct iovec iov[3];
    int r;

    for (size_t i = 0; i < len; i++)
        data[skip + i] = echo_pattern(at + i);
    iov[0] = (struct iovec){data, (len + skip) / 3};
    iov[1] = (struct iovec){data + iov[0].iov_len, (len + skip) / 2};
    iov[2] = (struct iovec){data + iov[0].iov_len + iov[1].iov_len,
                            len + skip - iov[0].iov_len - iov[1].iov_len};
    r = stk_outq_append(q, iov, 3, skip, limits);
    free(data);
    return r;
}

static void drain_all(struct stk_outq *q, struct pair *p)
{
    bool sent;
    int r;

    while ((r = stk_outq_drain(q, p->in, NULL, &sent)) == 1)
        assert_true(pair_read(p) > 0 || sent);
    assert_int_equal(r, 0);
    (void)pair_read(p);
}

static void bytes_keep_their_order(void **state)
{
    static const size_t sizes[] = {1, 100, 65536, 3, 200000, 1 << 20, 7, 5 << 20, 65535, 2};

    for (uint64_t memory = 1024; memory < 100 << 20; memory *= 32) {
        struct stk_outq_limits limits = {.memory = memory, .file = 1 << 30};
        struct stk_outq *q = stk_outq_new();
        struct pair p = pair_open();
        size_t at = 0;

        assert_non_null(q);
        for (int round = 0; round < 3; round++) {
            for (size_t i = 0; i < STK_ARRAY_LEN(sizes); i++) {
                bool sent;

                assert_int_equal(append(q, at, sizes[i], i * 1000, &limits), 0);
                at += sizes[i];
                if (i % 4 == 3) {
                    assert_true(stk_outq_drain(q, p.in, NULL, &sent) >= 0);
                    (void)pair_read(&p);
                }
            }
            assert_false(stk_outq_is_empty(q));
            drain_all(q, &p);
            assert_int_equal(p.read, at);
            assert_true(stk_outq_is_empty(q));
        }
        stk_outq_free(q);
        close(p.in);
        close(p.out);
    }
}

static void a_full_queue_takes_nothing(void **state)
{
    static const struct stk_outq_limits all_limits[] = {{.memory = 100000, .file = 200000},
                                                        {.memory = 100000, .file = 0}};

    for (size_t l = 0; l < STK_ARRAY_LEN(all_limits); l++) {
        struct stk_outq *q = stk_outq_new();
        struct pair p = pair_open();
        size_t at = 0;
        int r;

        assert_non_null(q);
        while ((r = append(q, at, 10000, 0, &all_limits[l])) == 0)
            at += 10000;
        assert_int_equal(r, -EAGAIN);
        assert_true(at <= all_limits[l].memory + all_limits[l].file);
        drain_all(q, &p);
        assert_int_equal(p.read, at);
        /* An empty one takes any block. */
        assert_int_equal(append(q, at, 1000000, 5, &all_limits[l]), 0);
        assert_int_equal(append(q, at, 1000000, 0, &all_limits[l]), -EAGAIN);
        drain_all(q, &p);
        assert_int_equal(p.read, at + 1000000);
        stk_outq_free(q);
        close(p.in);
        close(p.out);
    }
}

static int pattern_file(size_t at, size_t len)
{
    FILE *file = tmpfile();
    int fd;

    assert_non_null(file);
    for (size_t i = 0; i < len; i++)
        fputc(echo_pattern(at + i), file);
    assert_int_equal(fflush(file), 0);
    fd = dup(fileno(file));
    assert_true(fd >= 0);
    fclose(file);
    return fd;
}

static void files_stand_in_line(void **state)
{
    struct stk_outq *q = stk_outq_new();
    struct pair p = pair_open();
    char tail[3] = {echo_pattern(300100), echo_pattern(300101), echo_pattern(300102)};
    int fd = pattern_file(90, 300010);

    assert_non_null(q);
    assert_int_equal(append(q, 0, 100, 0, &roomy), 0);
    /* The descriptor is the caller's to close at once. */
    assert_int_equal(stk_outq_append_file(q, fd, 10, 300000, stk_span_make(tail, 3), 0), 0);
    close(fd);
    assert_int_equal(append(q, 300103, 5000, 0, &roomy), 0);
    drain_all(q, &p);
    assert_int_equal(p.read, 305103);
    stk_outq_free(q);
    close(p.in);
    close(p.out);
}

/* A reader that takes a few bytes at a time sees whole records. */
static void files_go_out_in_records(void **state)
{
    static const size_t lengths[] = {1, 61439, 61440, 61441, 200000};
    struct stk_outq *q = stk_outq_new();
    struct pair p = pair_open();
    char *got = stk_mem_zalloc(1 << 20);
    int fd = pattern_file(0, 200000);

    assert_non_null(q);
    for (size_t i = 0; i < STK_ARRAY_LEN(lengths); i++) {
        size_t have = 0, at = 0, content = 0;
        bool sent;
        int r;

        assert_int_equal(stk_outq_append_file(q, fd, 0, lengths[i], stk_span_make("", 0), 0x1234),
                         0);
        do {
            ssize_t n;

            r = stk_outq_drain(q, p.in, NULL, &sent);
            assert_true(r >= 0);
            while ((n = read(p.out, got + have, r == 1 && have % 3 != 0 ? 4099 : 65536)) > 0)
                have += (size_t)n;
        } while (r == 1);
        while (at < have) {
            size_t len = (size_t)(unsigned char)got[at + 4] << 8 | (unsigned char)got[at + 5];

            assert_memory_equal(got + at, "\x01\x06\x12\x34", 4);
            assert_int_equal(got[at + 6], 0);
            assert_true(at + 8 + len <= have);
            for (size_t k = 0; k < len; k++)
                assert_int_equal(got[at + 8 + k], echo_pattern(content + k));
            content += len;
            at += 8 + len;
        }
        assert_int_equal(content, lengths[i]);
        assert_true(stk_outq_is_empty(q));
    }
    free(got);
    close(fd);
    stk_outq_free(q);
    close(p.in);
    close(p.out);
}

static void a_file_that_shrank_is_an_error_for_good(void **state)
{
    struct stk_outq *q = stk_outq_new();
    struct pair p = pair_open();
    int fd = pattern_file(0, 1000);
    bool sent;
    int r;

    assert_non_null(q);
    assert_int_equal(stk_outq_append_file(q, fd, 0, 2000, stk_span_make("", 0), 0), 0);
    close(fd);
    r = stk_outq_drain(q, p.in, NULL, &sent);
    assert_int_equal(r, -EIO);
    assert_int_equal(pair_read(&p), 1000);
    assert_int_equal(append(q, 1000, 10, 0, &roomy), -EIO);
    assert_int_equal(stk_outq_drain(q, p.in, NULL, &sent), -EIO);
    stk_outq_free(q);
    close(p.in);
    close(p.out);
}

static void a_reader_that_left_is_an_error(void **state)
{
    struct stk_outq *q = stk_outq_new();
    struct pair p = pair_open();
    bool sent;

    assert_non_null(q);
    assert_int_equal(append(q, 0, 1000, 0, &roomy), 0);
    close(p.out);
    assert_int_equal(stk_outq_drain(q, p.in, NULL, &sent), -EPIPE);
    assert_false(sent);
    assert_null(stk_outq_free(q));
    close(p.in);
    assert_null(stk_outq_free(NULL));
}

static void a_directory_that_is_missing_is_an_error(void **state)
{
    struct stk_outq_limits limits = {.memory = 1000, .file = 1 << 20, .tmpdir = "/nonexistent/dir"};
    struct stk_outq *q = stk_outq_new();

    assert_non_null(q);
    assert_int_equal(append(q, 0, 5000, 0, &limits), -ENOENT);
    assert_int_equal(append(q, 0, 1, 0, &limits), -ENOENT);
    stk_outq_free(q);
}

/* A queue that never runs dry for a fast reader gives others their turn. */
static void a_turn_is_limited(void **state)
{
    struct stk_outq *q = stk_outq_new();
    int fd = pattern_file(0, 16 << 20);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    bool sent;
    int turns = 0, r;

    assert_non_null(q);
    assert_true(null >= 0);
    assert_int_equal(stk_outq_append_file(q, fd, 0, 16 << 20, stk_span_make("", 0), 0), 0);
    close(fd);
    while ((r = stk_outq_drain(q, null, NULL, &sent)) == 1) {
        assert_true(sent);
        turns++;
    }
    assert_int_equal(r, 0);
    assert_true(turns >= 2);
    stk_outq_free(q);
    close(null);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_keep_their_order),
        cmocka_unit_test(a_full_queue_takes_nothing),
        cmocka_unit_test(files_stand_in_line),
        cmocka_unit_test(files_go_out_in_records),
        cmocka_unit_test(a_file_that_shrank_is_an_error_for_good),
        cmocka_unit_test(a_reader_that_left_is_an_error),
        cmocka_unit_test(a_directory_that_is_missing_is_an_error),
        cmocka_unit_test(a_turn_is_limited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
