/* The writer thread: nothing lost when the target keeps up, everything counted when it does not. */
#include "base/log_writer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "log_files.h"

static struct stk_log_writer *start(const char *target, size_t size)
{
    struct stk_log_writer *w = NULL;
    struct stk_log_sink sink;

    assert_int_equal(stk_log_sink_open(&sink, target, STDOUT_FILENO), 0);
    assert_int_equal(stk_log_writer_new(&w, "access log", &sink, size), 0);
    return w;
}

/* A writer to a descriptor, which it will close. */
static struct stk_log_writer *start_fd(int fd, size_t size)
{
    struct stk_log_writer *w = NULL;
    struct stk_log_sink sink = {.kind = STK_LOG_SINK_FILE, .fd = fd, .path = strdup("here")};

    stk_log_sink_probe(&sink);
    assert_int_equal(stk_log_writer_new(&w, "access log", &sink, size), 0);
    return w;
}

static void append_number(struct stk_log_writer *w, unsigned i)
{
    char line[64];
    int n = snprintf(line, sizeof line, "line %u of a log that goes on and on\n", i);

    stk_log_writer_append(w, line, (size_t)n);
}

static void wait_for(struct log_dir *d, const char *name, const char *text)
{
    unsigned found = 0;

    while (found == 0) {
        char *have = log_dir_read(d, name);

        found = log_count(have, text);
        free(have);
        poll(NULL, 0, 5);
    }
}

static int error_log_setup(void **state)
{
    if (log_dir_setup(state) < 0)
        return -1;
    return stk_log_open(log_dir_file(*state, "error"));
}

static int error_log_teardown(void **state)
{
    if (stk_log_open("-") < 0)
        return -1;
    return log_dir_teardown(state);
}

/* Around the ring several times, in order, all there after the stop. */
static void test_flush_at_stop(void **state)
{
    struct stk_log_writer *w = start(log_dir_file(*state, "log"), 1 << 20);
    char *text, *line;
    unsigned i;

    for (i = 0; i < 20000; i++)
        append_number(w, i);
    assert_int_equal(stk_log_writer_lost(w), 0);
    assert_null(stk_log_writer_free(w));
    text = log_dir_read(*state, "log");
    i = 0;
    for (line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"), i++) {
        char expected[64];

        snprintf(expected, sizeof expected, "line %u of a log that goes on and on", i);
        assert_string_equal(line, expected);
    }
    assert_int_equal(i, 20000);
    free(text);
}

/* A small ring wraps at every position of a line. */
static void test_wraps(void **state)
{
    struct stk_log_writer *w = start(log_dir_file(*state, "log"), 1);
    unsigned i, taken = 0;
    char *text;

    for (i = 0; i < 3000; i++) {
        char line[512];
        size_t len = 1 + i % 500;

        memset(line, 'a' + (int)(i % 26), len);
        line[len] = '\n';
        while (!stk_log_writer_append(w, line, len + 1))
            poll(NULL, 0, 1);
        taken++;
    }
    stk_log_writer_free(w);
    text = log_dir_read(*state, "log");
    i = 0;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"), i++) {
        assert_int_equal(strlen(line), 1 + i % 500);
        assert_int_equal(strspn(line, (char[]){(char)('a' + (int)(i % 26)), '\0'}), 1 + i % 500);
    }
    assert_int_equal(i, taken);
    free(text);
}

/* Lines appear without a stop. */
static void test_appears(void **state)
{
    struct stk_log_writer *w = start(log_dir_file(*state, "log"), 0);

    stk_log_writer_append(w, "one\n", 4);
    wait_for(*state, "log", "one\n");
    stk_log_writer_append(w, "two\n", 4);
    wait_for(*state, "log", "one\ntwo\n");
    stk_log_writer_free(w);
    stk_log_writer_free(NULL);
}

static unsigned reported(struct log_dir *d, const char *what)
{
    char *text = log_dir_read(d, "error");
    unsigned sum = 0;

    for (char *at = text; (at = strstr(at, "access log: ")) != NULL; at++) {
        unsigned n;

        if (strstr(at, what) != NULL && sscanf(at, "access log: %u lines", &n) == 1)
            sum += n;
    }
    free(text);
    return sum;
}

/* A reader that stalls and comes back: taken + reported = appended, and appending never blocks. */
static void test_stalled_pipe(void **state)
{
    static char buf[1 << 20];
    struct stk_log_writer *w;
    unsigned refused = 0, got = 0;
    int fds[2];
    char line[100];

    memset(line, 'q', sizeof line);
    line[99] = '\n';
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    w = start_fd(fds[1], 1 << 16);
    for (unsigned i = 0; i < 5000; i++)
        refused += !stk_log_writer_append(w, line, sizeof line);
    assert_true(refused > 0);
    wait_for(*state, "error", "lines dropped, the reader of the pipe does not keep up\n");
    assert_int_equal(stk_log_writer_lost(w), refused);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    while (got < 5000 - refused) {
        ssize_t n = read(fds[0], buf, sizeof buf);

        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            poll(NULL, 0, 5);
            continue;
        }
        for (ssize_t i = 0; i < n; i++)
            got += buf[i] == '\n';
    }
    stk_log_writer_append(w, "back\n", 5);
    stk_log_writer_free(w);
    assert_int_equal(read(fds[0], buf, sizeof buf), 5);
    assert_memory_equal(buf, "back\n", 5);
    assert_int_equal(reported(*state, "dropped"), refused);
    close(fds[0]);
}

/* A reader that never comes back delays the stop, but does not prevent it; all losses are told. */
static void test_stalled_at_stop(void **state)
{
    struct stk_log_writer *w;
    unsigned got = 0;
    int fds[2];
    char line[1000];
    static char buf[1 << 17];
    ssize_t n;

    memset(line, 'q', sizeof line);
    line[999] = '\n';
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    w = start_fd(fds[1], 1 << 16);
    for (unsigned i = 0; i < 1000; i++)
        stk_log_writer_append(w, line, sizeof line);
    stk_log_writer_free(w);
    while ((n = read(fds[0], buf, sizeof buf)) > 0)
        for (ssize_t i = 0; i < n; i++)
            got += buf[i] == '\n';
    assert_true(got > 0 && got < 1000);
    assert_int_equal(reported(*state, "dropped"), 1000 - got);
    close(fds[0]);
}

/* Each write to a pipe is of whole lines and no longer than PIPE_BUF. */
static void test_whole_lines(void **state)
{
    struct stk_log_writer *w;
    char buf[8192];
    unsigned lines = 0;
    int fds[2];
    ssize_t n;

    (void)state;
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_DIRECT), 0); /* a read takes one write */
    w = start_fd(fds[1], 0);
    for (unsigned i = 0; i < 1000; i++)
        append_number(w, i);
    while (lines < 1000) {
        n = read(fds[0], buf, sizeof buf);
        assert_true(n > 0 && n <= PIPE_BUF);
        assert_memory_equal(buf, "line ", 5);
        assert_int_equal(buf[n - 1], '\n');
        for (ssize_t i = 0; i < n; i++)
            lines += buf[i] == '\n';
    }
    stk_log_writer_free(w);
    close(fds[0]);
}

static void test_reopen(void **state)
{
    struct log_dir *d = *state;
    char from[128], *text;
    struct stk_log_writer *w;

    strcpy(from, log_dir_file(d, "log"));
    w = start(from, 0);
    stk_log_writer_append(w, "before\n", 7);
    assert_int_equal(rename(from, log_dir_file(d, "old")), 0);
    stk_log_writer_reopen(w);
    wait_for(d, "old", "before\n");
    while (access(from, F_OK) < 0)
        poll(NULL, 0, 5);
    stk_log_writer_append(w, "after\n", 6);
    stk_log_writer_free(w);
    text = log_dir_read(d, "old");
    assert_string_equal(text, "before\n");
    free(text);
    text = log_dir_read(d, "log");
    assert_string_equal(text, "after\n");
    free(text);
}

static void test_reopen_fails(void **state)
{
    struct log_dir *d = *state;
    char from[128], *text;
    struct stk_log_writer *w;

    strcpy(from, log_dir_file(d, "log"));
    w = start(from, 0);
    assert_int_equal(rename(from, log_dir_file(d, "old")), 0);
    assert_int_equal(mkdir(from, 0700), 0);
    stk_log_writer_reopen(w);
    wait_for(d, "error", "so the old one stays in use: Is a directory\n");
    stk_log_writer_append(w, "goes on\n", 8);
    stk_log_writer_free(w);
    assert_int_equal(rmdir(from), 0);
    text = log_dir_read(d, "old");
    assert_string_equal(text, "goes on\n");
    free(text);
}

static void test_full_disk(void **state)
{
    struct stk_log_writer *w = start("/dev/full", 0);

    for (unsigned i = 0; i < 10; i++)
        append_number(w, i);
    wait_for(*state, "error", "10 lines lost, cannot write to /dev/full: No space left on device");
    assert_int_equal(stk_log_writer_lost(w), 10);
    stk_log_writer_free(w);
}

/* A line that the disk took half of is ended before the next; the loss is told. */
static void test_torn_line(void **state)
{
    struct stk_log_writer *w = start(log_dir_file(*state, "log"), 0);
    struct rlimit old, limit;
    uint64_t lost;
    char *text;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 2000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (unsigned i = 0; i < 100; i++)
        append_number(w, i);
    while (stk_log_writer_lost(w) == 0)
        poll(NULL, 0, 5);
    lost = stk_log_writer_lost(w);
    append_number(w, 100); /* fails as a whole */
    while (stk_log_writer_lost(w) == lost)
        poll(NULL, 0, 5);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    append_number(w, 100);
    stk_log_writer_free(w);
    text = log_dir_read(*state, "log");
    assert_int_equal(strlen(text), 2000 + 1 + strlen("line 100 of a log that goes on and on\n"));
    assert_string_equal(text + 2000, "\nline 100 of a log that goes on and on\n");
    text[2000] = '\0';
    assert_int_equal(reported(*state, "lost, cannot write"), 101 - log_count(text, "\n"));
    free(text);
}

static void test_reader_gone(void **state)
{
    struct stk_log_writer *w;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    close(fds[0]);
    w = start_fd(fds[1], 0);
    append_number(w, 1);
    stk_log_writer_free(w);
    assert_int_equal(reported(*state, "lost, cannot write to here: Broken pipe"), 1);
}

static void test_fork(void **state)
{
    struct stk_log_writer *w;
    int status;
    char *text;
    pid_t pid;

#ifdef __SANITIZE_THREAD__
    skip(); /* it allows no threads after such a fork */
#endif
    w = start(log_dir_file(*state, "log"), 0);
    stk_log_writer_append(w, "parent 1\n", 9);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (stk_log_writer_after_fork(w) < 0)
            _exit(1);
        stk_log_writer_append(w, "child\n", 6);
        stk_log_writer_free(w);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) { /* may free without having started */
        stk_log_writer_free(w);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    stk_log_writer_append(w, "parent 2\n", 9);
    stk_log_writer_free(w);
    text = log_dir_read(*state, "log");
    assert_int_equal(log_count(text, "parent 1\n"), 1);
    assert_int_equal(log_count(text, "parent 2\n"), 1);
    assert_int_equal(log_count(text, "child\n"), 1);
    assert_int_equal(log_count(text, "\n"), 3);
    free(text);
}

/* The thread takes no signal that is meant for the process. */
static void test_signals(void **state)
{
    struct stk_log_writer *w = start(log_dir_file(*state, "log"), 0);
    char path[64], line[256];
    unsigned long long blocked = 0;
    FILE *f;

    for (int tid = (int)getpid() + 1; tid < (int)getpid() + 1000; tid++) {
        snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
        f = fopen(path, "re");
        if (f == NULL)
            continue;
        while (fgets(line, sizeof line, f) != NULL)
            if (sscanf(line, "SigBlk: %llx", &blocked) == 1)
                break;
        fclose(f);
        if (blocked & 1ULL << (SIGTERM - 1))
            break;
    }
    assert_true(blocked & 1ULL << (SIGTERM - 1));
    assert_true(blocked & 1ULL << (SIGCHLD - 1));
    assert_true(blocked & 1ULL << (SIGUSR1 - 1));
    stk_log_writer_free(w);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, error_log_setup, error_log_teardown)
    const struct CMUnitTest tests[] = {
        T(test_flush_at_stop),   T(test_wraps),       T(test_appears),     T(test_stalled_pipe),
        T(test_stalled_at_stop), T(test_whole_lines), T(test_reopen),      T(test_reopen_fails),
        T(test_full_disk),       T(test_torn_line),   T(test_reader_gone), T(test_fork),
        T(test_signals),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
