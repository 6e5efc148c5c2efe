/* The error log: the shape of lines, escaping, cutting, targets, and what happens when stalled. */
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>

#include "base/log_sink.h"
#include "log_files.h"

#define STAMP "[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3} "

static void assert_matches(const char *text, const char *pattern)
{
    regex_t re;
    int r;

    assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    r = regexec(&re, text, 0, NULL, 0);
    regfree(&re);
    if (r != 0)
        fail_msg("%s\ndoes not match %s", text, pattern);
}

static void open_file(void **state)
{
    assert_int_equal(stk_log_open(log_dir_file(*state, "log")), 0);
}

static int close_file(void **state)
{
    if (stk_log_open("-") < 0)
        return -1;
    return log_dir_teardown(state);
}

/* The text after "error: " of the n-th line, to be freed with the rest by the caller. */
static void assert_messages(void **state, const char *expected)
{
    char *text = log_dir_read(*state, "log");
    char got[4096] = "";

    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char *message = strstr(line, ": ");

        assert_non_null(message);
        strncat(got, message + 2, sizeof got - strlen(got) - 2);
        strcat(got, "\n");
    }
    assert_string_equal(got, expected);
    free(text);
}

static void test_shape(void **state)
{
    char *text;
    char pattern[256];

    open_file(state);
    stk_log_set_process("worker 1");
    stk_log_error("cannot %s", "do that");
    text = log_dir_read(*state, "log");
    snprintf(pattern, sizeof pattern, "^" STAMP "\\[worker 1 %d\\] error: cannot do that\n$",
             (int)getpid());
    assert_matches(text, pattern);
    free(text);
    stk_log_set_process("a name that is much longer than what fits between the brackets");
    stk_log_error("x");
    text = log_dir_read(*state, "log");
    assert_non_null(strstr(text, "[a name that is much longer than "));
    free(text);
    stk_log_set_process("stoker");
}

static void test_file_mode(void **state)
{
    struct stat st;

    open_file(state);
    assert_int_equal(stat(log_dir_file(*state, "log"), &st), 0);
    assert_int_equal(st.st_mode & 0137, 0);
}

static void test_levels(void **state)
{
    char *text;

    open_file(state);
    assert_false(stk_log_enabled(STK_LOG_DEBUG));
    stk_log_debug("not shown");
    stk_log_set_level(STK_LOG_ERROR);
    stk_log_warning("not shown");
    stk_log_bytes(STK_LOG_INFO, "not shown", 9);
    stk_log_critical("shown");
    stk_log_set_level(STK_LOG_DEBUG);
    stk_log_debug("shown");
    stk_log_set_level(STK_LOG_INFO);
    text = log_dir_read(*state, "log");
    assert_null(strstr(text, "not"));
    assert_non_null(strstr(text, "] critical: shown\n"));
    assert_non_null(strstr(text, "] debug: shown\n"));
    free(text);
    assert_string_equal(stk_log_level_name(STK_LOG_WARNING), "warning");
    assert_null(stk_log_level_name((enum stk_log_level)17));
}

static void test_several_lines(void **state)
{
    open_file(state);
    stk_log_error("Traceback:\n  File\r\n\n\tboom\n\n");
    stk_log_error("%s", "");
    assert_messages(state, "Traceback:\n  File\n\n\tboom\n\n");
}

static void test_escapes(void **state)
{
    static const char bytes[] =
        "nul\0 esc\033[1m cr\rbell\a del\x7f bad\xff\xc3 cut\xe2\x82 c1\xc2\x9b";
    static const char invalid[] =
        "overlong \xc0\xaf surrogate \xed\xa0\x80 beyond \xf4\x90\x80\x80";

    open_file(state);
    stk_log_bytes(STK_LOG_ERROR, bytes, sizeof bytes - 1);
    stk_log_error("%s", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \\ \x1b");
    stk_log_bytes(STK_LOG_ERROR, invalid, sizeof invalid - 1);
    assert_messages(state,
                    "nul\\x00 esc\\x1b[1m cr\\x0dbell\\x07 del\\x7f bad\\xff\\xc3 cut\\xe2\\x82 "
                    "c1\\xc2\\x9b\n"
                    "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \\ \\x1b\n"
                    "overlong \\xc0\\xaf surrogate \\xed\\xa0\\x80 beyond \\xf4\\x90\\x80\\x80\n");
}

/* Nothing of a long line is lost, no line exceeds PIPE_BUF, no character is cut. */
static void test_long_line(void **state)
{
    enum { N = 5000 };
    char *message = malloc(2 * N + 1), *text, *rebuilt = calloc(1, 2 * N + 1);
    unsigned lines = 0;

    for (size_t i = 0; i < N; i++)
        memcpy(message + 2 * i, "\xc3\xa9", 2);
    message[2 * N] = '\0';
    open_file(state);
    stk_log_error("%s", message);
    text = log_dir_read(*state, "log");
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"), lines++) {
        char *part = strstr(line, "error: ");
        size_t len;

        assert_true(strlen(line) < STK_LOG_LINE_MAX);
        assert_non_null(part);
        part += 7;
        if (lines > 0) {
            assert_memory_equal(part, "...", 3);
            part += 3;
        }
        len = strlen(part);
        if (len > 3 && memcmp(part + len - 3, "...", 3) == 0)
            part[len - 3] = '\0';
        strcat(rebuilt, part);
    }
    assert_int_equal(lines, 3);
    assert_string_equal(rebuilt, message);
    free(text);
    free(rebuilt);
    free(message);
}

/* Lines of every length around the size of a write. */
static void test_every_length(void **state)
{
    char message[4200], *text;

    memset(message, 'x', sizeof message);
    open_file(state);
    for (size_t len = 3900; len < sizeof message; len += 7) {
        assert_int_equal(truncate(log_dir_file(*state, "log"), 0), 0);
        message[len - 100] = '\n'; /* two lines, which may or may not share a write */
        stk_log_bytes(STK_LOG_ERROR, message, len);
        message[len - 100] = 'x';
        text = log_dir_read(*state, "log");
        assert_int_equal(log_count(text, "x"), len - 1);
        assert_int_equal(log_count(text, "error: "), log_count(text, "\n"));
        free(text);
    }
}

static void test_errno(void **state)
{
    char *big = malloc(3000);

    memset(big, 'y', 2999);
    big[2999] = '\0';
    open_file(state);
    errno = ENOENT;
    stk_log_error("%m");
    assert_int_equal(errno, ENOENT);
    errno = EPERM;
    stk_log_error("%s %m", big);
    assert_int_equal(errno, EPERM);
    stk_log_bytes(STK_LOG_ERROR, big, 2999);
    assert_int_equal(errno, EPERM);
    free(big);
    big = log_dir_read(*state, "log");
    assert_non_null(strstr(big, "error: No such file or directory\n"));
    assert_non_null(strstr(big, "y Operation not permitted\n"));
    free(big);
}

static void test_reopen(void **state)
{
    struct log_dir *d = *state;
    char from[128], *text;
    int fd;

    open_file(state);
    fd = stk_log_fd();
    stk_log_info("first");
    strcpy(from, log_dir_file(d, "log"));
    assert_int_equal(rename(from, log_dir_file(d, "old")), 0);
    stk_log_info("second");
    stk_log_reopen();
    stk_log_info("third");
    assert_int_equal(stk_log_fd(), fd);
    text = log_dir_read(d, "old");
    assert_non_null(strstr(text, "second\n"));
    assert_null(strstr(text, "third"));
    free(text);
    text = log_dir_read(d, "log");
    assert_int_equal(log_count(text, "\n"), 1);
    assert_non_null(strstr(text, "third\n"));
    free(text);
}

/* A relative path means the same file after the application has changed its directory. */
static void test_relative(void **state)
{
    struct log_dir *d = *state;
    char before[256], *text;

    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(d->path), 0);
    assert_int_equal(stk_log_open("log"), 0);
    assert_int_equal(chdir("/"), 0);
    stk_log_info("first");
    assert_int_equal(unlink(log_dir_file(d, "log")), 0);
    stk_log_reopen();
    stk_log_info("second");
    assert_int_equal(chdir(before), 0);
    text = log_dir_read(d, "log");
    assert_int_equal(log_count(text, "info: "), 1);
    assert_non_null(strstr(text, "info: second\n"));
    free(text);
}

static void test_reopen_fails(void **state)
{
    struct log_dir *d = *state;
    char from[128], *text;

    open_file(state);
    strcpy(from, log_dir_file(d, "log"));
    assert_int_equal(rename(from, log_dir_file(d, "old")), 0);
    assert_int_equal(mkdir(from, 0700), 0); /* in the way */
    stk_log_reopen();
    stk_log_info("goes on");
    assert_int_equal(rmdir(from), 0);
    text = log_dir_read(d, "old");
    assert_non_null(strstr(text, "Is a directory"));
    assert_non_null(strstr(text, "goes on\n"));
    free(text);
}

static void test_open_fails(void **state)
{
    int fd;

    open_file(state);
    fd = stk_log_fd();
    assert_int_equal(stk_log_open("/nonexistent/directory/log"), -ENOENT);
    assert_int_equal(stk_log_open("syslog:nosuch"), -EINVAL);
    assert_int_equal(stk_log_open(""), -EINVAL);
    assert_int_equal(stk_log_fd(), fd);
    stk_log_info("still here");
    assert_messages(state, "still here\n");
    assert_int_equal(stk_log_open("stdout"), 0);
    assert_int_equal(stk_log_fd(), 1);
    assert_int_equal(stk_log_open("/dev/stderr"), 0);
    assert_int_equal(stk_log_fd(), 2);
}

static size_t drain(int fd, char *buf, size_t size)
{
    size_t len = 0;
    ssize_t n;

    while (len < size && (n = read(fd, buf + len, size - len)) > 0)
        len += (size_t)n;
    return len;
}

/* A reader that reads nothing costs lines, which are counted and told, and never blocks. */
static void test_stalled_pipe(void **state)
{
    struct log_dir *d = *state;
    static char buf[1 << 20];
    unsigned written, got, told = 0;
    const char *report;
    char line[1000];
    int reader;

    memset(line, 'z', sizeof line);
    assert_int_equal(mkfifo(log_dir_file(d, "fifo"), 0600), 0);
    assert_int_equal(stk_log_open(d->name), -ENXIO); /* nobody reads it: no hanging */
    reader = open(d->name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(reader >= 0);
    assert_int_equal(stk_log_open(d->name), 0);
    for (written = 0; written < 200; written++)
        stk_log_bytes(STK_LOG_INFO, line, sizeof line);
    buf[drain(reader, buf, sizeof buf - 1)] = '\0';
    got = log_count(buf, "info: zzz");
    assert_true(got > 0 && got < written);
    stk_log_info("after");
    buf[drain(reader, buf, sizeof buf - 1)] = '\0';
    report = strstr(buf, "] warning: ");
    assert_non_null(report);
    assert_int_equal(sscanf(report,
                            "] warning: %u lines of this log were dropped, the reader of "
                            "the pipe did not keep up\n",
                            &told),
                     1);
    assert_int_equal(told, written - got);
    assert_non_null(strstr(buf, "info: after\n"));
    stk_log_info("once more");
    buf[drain(reader, buf, sizeof buf - 1)] = '\0';
    assert_null(strstr(buf, "dropped"));
    close(reader);
    stk_log_info("nobody reads"); /* must not kill: SIGPIPE is ignored */
}

static void test_colour(void **state)
{
    char buf[1024];
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    const char *name;

    (void)state;
    assert_true(master >= 0);
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    name = ptsname(master);
    setenv("TERM", "xterm", 1);
    unsetenv("NO_COLOR");
    assert_int_equal(stk_log_open(name), 0);
    stk_log_error("red");
    buf[drain(master, buf, sizeof buf - 1)] = '\0';
    assert_non_null(strstr(buf, "] \033[31merror\033[0m: red"));
    setenv("NO_COLOR", "1", 1);
    stk_log_error("plain");
    buf[drain(master, buf, sizeof buf - 1)] = '\0';
    assert_non_null(strstr(buf, "] error: plain"));
    unsetenv("NO_COLOR");
    assert_int_equal(stk_log_open("-"), 0);
    close(master);
}

static int bind_daemon(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    strcpy(addr.sun_path, path);
    unlink(path);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

static void assert_datagram(int fd, const char *pattern)
{
    char buf[1024];
    ssize_t n = recv(fd, buf, sizeof buf - 1, 0);

    assert_true(n > 0);
    buf[n] = '\0';
    assert_matches(buf, pattern);
}

static void test_syslog(void **state)
{
    struct log_dir *d = *state;
    struct stk_log_sink sink;
    int daemon_fd, full = 0;
    ssize_t n = 0;

    log_dir_file(d, "socket");
    assert_int_equal(stk_log_sink_open_syslog(&sink, d->name, LOG_LOCAL3), -ENOENT);
    daemon_fd = bind_daemon(d->name);
    assert_int_equal(stk_log_sink_open_syslog(&sink, d->name, LOG_LOCAL3), 0);
    assert_int_equal(stk_log_sink_write(&sink, STK_LOG_ERROR, "what\n", 5), 5);
    assert_datagram(daemon_fd, /* 19 * 8 + 3 */
                    "^<155>[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} stoker\\[[0-9]+\\]: what$");
    close(daemon_fd); /* the daemon restarts */
    daemon_fd = bind_daemon(d->name);
    assert_int_equal(stk_log_sink_write(&sink, STK_LOG_DEBUG, "again\n", 6), 6);
    assert_datagram(daemon_fd, "^<159>.*: again$");
    while (full < 100000 && (n = stk_log_sink_write(&sink, STK_LOG_INFO, "full\n", 5)) == 5)
        full++; /* a stalled daemon does not stop us */
    assert_int_equal(n, -EAGAIN);
    stk_log_sink_close(&sink);
    stk_log_sink_close(&sink);
    close(daemon_fd);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, log_dir_setup, close_file)
    const struct CMUnitTest tests[] = {
        T(test_shape),        T(test_file_mode), T(test_levels),       T(test_several_lines),
        T(test_escapes),      T(test_long_line), T(test_every_length), T(test_errno),
        T(test_reopen),       T(test_relative),  T(test_reopen_fails), T(test_open_fails),
        T(test_stalled_pipe), T(test_colour),    T(test_syslog),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
