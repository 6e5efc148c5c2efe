/* Requests of many threads in one access log, across seconds: for the thread sanitizer. */
#include "serve/access_log.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "access_entry.h"

enum { THREADS = 4, LINES = 4000 };

static const char hello[] = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";

static void *log_requests(void *arg)
{
    struct entry *e = calloc(1, sizeof *e);

    if (e == NULL || !entry_make(e, hello, sizeof hello - 1))
        abort();
    for (unsigned i = 0; i < LINES; i++)
        stk_access_log_write(arg, &e->entry);
    free(e);
    return NULL;
}

static void test_threads(void **state)
{
    static const char line[] = "200 /hello\n";
    char path[] = "/tmp/stoker-access-XXXXXX", error[STK_ACCESS_ERROR_MAX];
    struct stk_access_log *log = NULL;
    pthread_t threads[THREADS];
    struct stat st;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(stk_access_log_new(&log, path, "{status} {path}", 1, error), 0);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_requests, log), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(stk_access_log_lost(log), 0);
    stk_access_log_free(log);
    assert_int_equal(stat(path, &st), 0);
    unlink(path);
    assert_int_equal(st.st_size, THREADS * LINES * (sizeof line - 1));
}

/* Threads that are at different seconds never get the text of another. */
static void *format_seconds(void *arg)
{
    struct entry *e = calloc(1, sizeof *e);
    char out[STK_LOG_LINE_MAX], expected[64];
    unsigned seed = (unsigned)pthread_self();
    uintptr_t wrong = 0;

    if (e == NULL || !entry_make(e, hello, sizeof hello - 1))
        abort();
    for (unsigned i = 0; i < LINES; i++) {
        unsigned second = (unsigned)rand_r(&seed) % 4;
        size_t n = stk_access_format_line(arg, &e->entry, second * STK_NSEC_PER_SEC, out);

        snprintf(expected, sizeof expected,
                 "01/Jan/1970:00:00:%02u +0000 1970-01-01T00:00:%02u.000+00:00\n", second, second);
        wrong += n != strlen(expected) || memcmp(out, expected, n) != 0;
    }
    free(e);
    return (void *)wrong;
}

static void test_seconds(void **state)
{
    char error[STK_ACCESS_ERROR_MAX];
    struct stk_access_format *f = NULL;
    pthread_t threads[THREADS];

    (void)state;
    setenv("TZ", "UTC", 1);
    tzset();
    assert_int_equal(stk_access_format_new(&f, "{time} {time_iso}", 1, error), 0);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, format_seconds, f), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        void *wrong = NULL;

        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    stk_access_format_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_seconds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
