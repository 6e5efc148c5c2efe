/* Loggers, routes, encoders and what is left out; variables of requests for the log. */
#include "serve/log_fan.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/mem.h"
#include "config/config.h"
#include "serve/log_encode.h"
#include "serve/log_place.h"
#include "serve/logvar.h"

static char folder[64];

static int enter_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/stoker-fan-XXXXXX");
    return mkdtemp(folder) != NULL && chdir(folder) == 0 ? 0 : -1;
}

static int leave_folder(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -r %s", folder);
    return chdir("/") == 0 && system(command) == 0 ? 0 : -1;
}

static void add(struct stk_strv *v, const char *text)
{
    v->items = realloc(v->items, (v->n + 2) * sizeof *v->items);
    v->items[v->n++] = stk_mem_strdup(text);
    v->items[v->n] = NULL;
}

static void clear(struct stk_config *config)
{
    struct stk_strv *all[] = {&config->logger,          &config->req_logger,  &config->log_route,
                              &config->log_req_route,   &config->log_encoder, &config->log_drain,
                              &config->log_req_encoder, &config->log_filter};

    for (size_t i = 0; i < STK_ARRAY_LEN(all); i++) {
        for (size_t j = 0; j < all[i]->n; j++)
            free(all[i]->items[j]);
        free(all[i]->items);
    }
}

static void assert_file(const char *path, const char *expected)
{
    char text[65536];
    int fd = open(path, O_RDONLY);
    ssize_t n;

    assert_true(fd >= 0);
    n = read(fd, text, sizeof text - 1);
    assert_true(n >= 0);
    text[n] = '\0';
    close(fd);
    assert_string_equal(text, expected);
}

static struct stk_log_fan *make(const struct stk_config *config, enum stk_log_fan_kind kind)
{
    struct stk_log_fan *fan = NULL;
    struct stk_log_sink raw;
    char *error = NULL;

    assert_int_equal(stk_log_sink_open(&raw, "raw.log", STDOUT_FILENO), 0);
    assert_int_equal(stk_log_fan_new(&fan, config, kind, &raw, &error), 0);
    assert_null(error);
    return fan;
}

static void write_text(struct stk_log_fan *fan, const char *text)
{
    assert_int_equal(stk_log_fan_write(fan, text, strlen(text)), 0);
}

static void test_routes(void **state)
{
    struct stk_config config = {.logfile_chmod = 0604};
    struct stk_log_fan *fan;
    struct stat st;

    (void)state;
    assert_false(stk_log_fan_is_wanted(&config, STK_LOG_FAN_MAIN));
    add(&config.logger, "file:all.log");
    add(&config.logger, "errs file:logfile=errs.log,maxsize=100");
    add(&config.logger, "more file:more.log");
    add(&config.log_route, "errs (?i)error");
    add(&config.log_route, "more error$");
    add(&config.log_drain, "secret");
    add(&config.log_filter, "[a-z]");
    assert_true(stk_log_fan_is_wanted(&config, STK_LOG_FAN_MAIN));
    fan = make(&config, STK_LOG_FAN_MAIN);
    write_text(fan, "one\nAn Error here\nno error\nsecret error\n123\r\ntwo\r\nrest");
    assert_file("all.log", "one\ntwo\nrest\n");
    assert_file("errs.log", "An Error here\nno error\n");
    assert_file("more.log", "no error\n");
    assert_file("raw.log", "");
    assert_int_equal(stat("errs.log", &st), 0);
    assert_int_equal(st.st_mode & 0777, 0604);
    assert_int_equal(rename("all.log", "all.1"), 0);
    write_text(fan, "three\n");
    stk_log_fan_reopen(fan);
    write_text(fan, "four\n");
    assert_file("all.1", "one\ntwo\nrest\nthree\n");
    assert_file("all.log", "four\n");
    stk_log_fan_free(fan);
    clear(&config);
}

static void test_without_an_unnamed_logger(void **state)
{
    struct stk_config config = {.logfile_chmod = -1};
    struct stk_log_fan *fan;

    (void)state;
    unlink("raw.log");
    add(&config.logger, "posts file:posts.log"); /* of the other log */
    add(&config.log_req_route, "posts ^POST");
    add(&config.log_req_encoder, "prefix:posts > ");
    add(&config.log_req_encoder, "nl");
    add(&config.log_req_encoder, "json {\"m\":\"${msg}\"}");
    add(&config.log_req_encoder, "suffix  !");
    fan = make(&config, STK_LOG_FAN_REQUESTS);
    write_text(fan, "GET /\"\\\nPOST /\n");
    assert_file("raw.log", "{\"m\":\"GET /\\\"\\\\\"} !\n");
    assert_file("posts.log", "{\"m\":\"> POST /\"} !\n");
    stk_log_fan_free(fan);
    clear(&config);
}

/* A place that is not there loses its lines, and nothing else. */
static void test_what_cannot_be_opened(void **state)
{
    struct stk_config config = {.logfile_chmod = -1};
    const char line[] = "a line\n";
    struct stk_log_fan *fan;

    (void)state;
    add(&config.req_logger, "file:missing/a.log");
    add(&config.req_logger, "file:there.log");
    fan = make(&config, STK_LOG_FAN_REQUESTS);
    assert_int_equal(stk_log_fan_write(fan, line, strlen(line)), 1);
    assert_file("there.log", line);
    assert_int_equal(mkdir("missing", 0700), 0);
    stk_log_fan_reopen(fan);
    write_text(fan, line);
    assert_file("missing/a.log", line);
    stk_log_fan_free(fan);
    clear(&config);
}

static void test_long_lines(void **state)
{
    struct stk_config config = {.logfile_chmod = -1};
    static char line[3 * STK_LOG_FAN_LINE_MAX], text[8 * sizeof line];
    struct stk_log_fan *fan;
    struct stat st;
    int fd;

    (void)state;
    add(&config.logger, "file:long.log");
    add(&config.log_encoder, "json {\"m\":\"${msg}\",\"t\":${unix},\"server\":\"here\"}");
    fan = make(&config, STK_LOG_FAN_MAIN);
    memset(line, 1, sizeof line); /* six bytes each */
    line[sizeof line - 1] = '\n';
    assert_int_equal(stk_log_fan_write(fan, line, sizeof line), 0);
    assert_int_equal(stat("long.log", &st), 0);
    assert_in_range(st.st_size, 3 * STK_LOG_FAN_LINE_MAX, 18 * STK_LOG_FAN_LINE_MAX);
    fd = open("long.log", O_RDONLY);
    assert_int_equal(read(fd, text, sizeof text - 1), st.st_size);
    close(fd);
    for (char *at = strtok(text, "\n"); at != NULL; at = strtok(NULL, "\n"))
        assert_string_equal(at + strlen(at) - 16, "\"server\":\"here\"}"); /* cut where it may be */
    stk_log_fan_free(fan);
    clear(&config);
}

/* A disk that is full for a while: the line behind a cut one is one of its own. */
static void test_torn_lines(void **state)
{
    struct stk_config config = {.logfile_chmod = -1};
    struct rlimit all, few;
    struct stk_log_fan *fan;

    (void)state;
    unlink("raw.log");
    add(&config.logger, "file:torn.log");
    fan = make(&config, STK_LOG_FAN_MAIN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &all), 0);
    few = all;
    few.rlim_cur = 10;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &few), 0);
    assert_int_equal(stk_log_fan_write(fan, "first\nsecond\nthird\n", 19), 2);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
    write_text(fan, "fourth\n");
    write_text(fan, "fifth\n");
    assert_file("torn.log", "first\nseco\nfourth\nfifth\n");
    stk_log_fan_free(fan);
    clear(&config);
}

static void *read_slowly(void *arg)
{
    char page[4096];

    while (read(*(int *)arg, page, sizeof page) > 0)
        usleep(20 * 1000);
    return NULL;
}

/* A reader that takes a page now and then: the master's loop is not its clock. */
static void test_slow_reader(void **state)
{
    struct stk_config config = {.logfile_chmod = -1};
    static char text[60 * 1000];
    struct stk_log_fan *fan;
    pthread_t reader;
    int fd;

    (void)state;
    assert_int_equal(mkfifo("slow", 0600), 0);
    fd = open("slow", O_RDONLY | O_NONBLOCK);
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_SETPIPE_SZ, 4096) >= 0);
    add(&config.logger, "file:slow");
    fan = make(&config, STK_LOG_FAN_MAIN);
    assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
    memset(text, 'x', sizeof text);
    for (size_t i = 99; i < sizeof text; i += 100)
        text[i] = '\n';
    assert_int_equal(pthread_create(&reader, NULL, read_slowly, &fd), 0);
    assert_true(stk_log_fan_write(fan, text, sizeof text) > 0);
    stk_log_fan_free(fan);
    pthread_join(reader, NULL);
    close(fd);
    clear(&config);
}

/* The pipe whose lines it writes has other names than that it is standard output. */
static void test_no_line_comes_back(void **state)
{
    static const char *const loggers[] = {"file:/dev/stdout", "fd:2", "file:/dev/fd/2"};

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(loggers); i++) {
        struct stk_config config = {.logfile_chmod = -1};
        int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
        int to = open("stream.log", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
        struct stk_log_fan *fan;
        int fds[2], left = -1;

        assert_int_equal(pipe(fds), 0);
        assert_true(dup2(fds[1], STDOUT_FILENO) >= 0 && dup2(fds[1], STDERR_FILENO) >= 0);
        add(&config.logger, loggers[i]);
        fan = make(&config, STK_LOG_FAN_MAIN);
        stk_log_fan_set_streams(fan, to, to);
        stk_log_fan_write(fan, "once\n", 5);
        stk_log_fan_reopen(fan);
        stk_log_fan_write(fan, "twice\n", 6);
        (void)ioctl(fds[0], FIONREAD, &left);
        stk_log_fan_free(fan);
        assert_true(dup2(out, STDOUT_FILENO) >= 0 && dup2(err, STDERR_FILENO) >= 0);
        assert_int_equal(left, 0);
        assert_file("stream.log", "once\ntwice\n");
        clear(&config);
        for (int *fd = (int[]){out, err, to, fds[0], fds[1], -1}; *fd >= 0; fd++)
            close(*fd);
    }
}

/* Those of a device are not the log's. */
static void test_permissions_of_devices(void **state)
{
    struct stk_log_sink sink;
    struct stat st;

    (void)state;
    if (mknod("null", S_IFCHR | 0600, makedev(1, 3)) < 0 || chmod("null", 0666) < 0)
        skip(); /* for root only */
    if (stk_log_sink_open(&sink, "null", STDOUT_FILENO) < 0)
        skip(); /* nor where devices do not work */
    assert_int_equal(stk_log_sink_chmod(&sink, 0600), 0);
    assert_int_equal(stk_log_sink_reopen(&sink), 0);
    assert_int_equal(stat("null", &st), 0);
    assert_int_equal(st.st_mode & 0777, 0666);
    stk_log_sink_close(&sink);
}

static void test_datagrams(void **state)
{
    struct stk_config config = {.logfile_chmod = -1, .rsyslog_packet_size = 256};
    struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "reader"};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct stk_log_fan *fan;
    char text[256];
    ssize_t n;

    (void)state;
    add(&config.logger, "socket:reader,PFX ");
    fan = make(&config, STK_LOG_FAN_MAIN);
    assert_int_equal(stk_log_fan_write(fan, "lost\n", 5), 1); /* nobody is there yet */
    assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    write_text(fan, "one\ntwo\n");
    n = recv(fd, text, sizeof text, MSG_DONTWAIT);
    assert_int_equal(n, 7);
    assert_memory_equal(text, "PFX one", 7);
    n = recv(fd, text, sizeof text, MSG_DONTWAIT);
    assert_memory_equal(text, "PFX two", 7);
    close(fd);
    stk_log_fan_free(fan);
    clear(&config);
}

/* A line for a daemon elsewhere that is too long for a datagram. */
static void test_pieces(void **state)
{
    struct stk_config config = {
        .logfile_chmod = -1, .rsyslog_packet_size = 256, .rsyslog_split_messages = true};
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    char text[512], line[402], logger[64];
    struct stk_log_fan *fan;
    size_t seen = 0;

    (void)state;
    assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    snprintf(logger, sizeof logger, "rsyslog:127.0.0.1:%d,host tag", ntohs(addr.sin_port));
    add(&config.logger, logger);
    fan = make(&config, STK_LOG_FAN_MAIN);
    memset(line, 'x', 400);
    strcpy(line + 400, "\n");
    write_text(fan, line);
    for (int i = 0; i < 2; i++) {
        ssize_t n = recv(fd, text, sizeof text - 1, 0);

        assert_in_range(n, 1, 256);
        text[n] = '\0';
        assert_memory_equal(text, "<29>", 4);
        assert_non_null(strstr(text, " host tag: x"));
        seen += strlen(strstr(text, ": x") + 2);
    }
    assert_int_equal(seen, 400);
    close(fd);
    stk_log_fan_free(fan);
    clear(&config);
}

static void assert_refused(const char *what, int r, char *error, const char *expected)
{
    if (r != -EINVAL)
        fail_msg("%s was taken", what);
    assert_non_null(error);
    if (strstr(error, expected) == NULL)
        fail_msg("%s: %s", what, error);
    free(error);
}

static void test_mistakes(void **state)
{
    static const char *const places[][2] = {
        {"zeromq:tcp://127.0.0.1", "zeromq is not there"},
        {"name redislog:x", "redislog is not there"},
        {"fiel:x", "no method 'fiel'"},
        {"", "no method ''"},
        {"file", "file needs a path"},
        {"file:", "file needs a path"},
        {"file:logfile=x,maxsize=1q", "no number"},
        {"file:maxsize=1", "logfile=PATH is missing"},
        {"file:logfile=x,colour=red", "are the keys"},
        {"fd:x", "no descriptor"},
        {"syslog:me,nowhere", "no facility nowhere"},
        {"socket:", "socket needs an address"},
    };
    static const char *const encoders[][2] = {
        {"gzip", "compress it when"},     {"jsn", "no encoder 'jsn'"}, {"", "no encoder"},
        {"format ${nope}", "no ${nope}"}, {"suffix a\nb", "new line"},
    };
    struct stk_config config = {0};
    struct stk_log_encoder *encoder;
    struct stk_log_place place;

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(places); i++) {
        char *error = NULL;
        int r = stk_log_place_parse(&place, places[i][0], &error);

        assert_refused(places[i][0], r, error, places[i][1]);
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(encoders); i++) {
        char *error = NULL;
        int r = stk_log_encoder_new(&encoder, encoders[i][0], &error);

        assert_refused(encoders[i][0], r, error, encoders[i][1]);
    }
    for (size_t i = 0; i < 3; i++) {
        static const char *const routes[][2] = {
            {"only", "expected the name"}, {"no x", "no logger 'no'"}, {"a (", "at '"}};
        char *error = NULL;
        int r;

        if (i == 2)
            add(&config.logger, "a stdio");
        r = stk_log_fan_check_route(&config, routes[i][0], &error);
        assert_refused(routes[i][0], r, error, routes[i][1]);
    }
    clear(&config);
}

static void assert_encoded(const char *text, const char *line, const char *expected)
{
    struct stk_log_encoder *e = NULL;
    char found[256], *error = NULL;
    size_t n;

    assert_int_equal(stk_log_encoder_new(&e, text, &error), 0);
    n = stk_log_encode(e, stk_span_str(line), INT64_C(1795399800123456), found, sizeof found);
    assert_int_equal(n, strlen(expected));
    assert_memory_equal(found, expected, n);
    n = stk_log_encode(e, stk_span_str(line), 0, found, 4); /* cut, not overrun */
    assert_true(n <= 4);
    stk_log_encoder_free(e);
}

static void test_encoders(void **state)
{
    (void)state;
    setenv("TZ", "UTC", 1);
    assert_encoded("prefix [x] ", "line", "[x] line");
    assert_encoded("suffix:name  end", "line", "line end");
    assert_encoded("nl", "line", "line");
    assert_encoded("format a ${msg} ${unix} ${millis} ${micros}", "line",
                   "a line 1795399800 1795399800123 1795399800123456");
    assert_encoded("format ${strftime:%Y-%m-%d}|${msgnl}|$x ${", "l", "2026-11-23|l|$x ${");
    assert_encoded("json {\"m\":\"${msg}\",\"d\":\"${strftime:\"%Y}\"}", "a\"\\\t\x01\xff",
                   "{\"m\":\"a\\\"\\\\\\u0009\\u0001\\u00ff\",\"d\":\"\\\"2026\"}");
    assert_encoded("format", "line", "");
}

static void test_logvars(void **state)
{
    struct stk_logvars vars;
    char value[STK_LOGVAR_VALUE_MAX], name[8];
    const int a = 0, b = 0;
    static char large[4096];

#define SET(id, thread, n, v) stk_logvar_set(&vars, id, thread, stk_span_str(n), stk_span_str(v))
#define GET(id, n)            stk_logvar_get(&vars, id, stk_span_str(n), value, sizeof value)
    (void)state;
    stk_logvars_init(&vars);
    stk_logvars_forget(&vars, 1);
    assert_int_equal(GET(1, "x"), 0);
    assert_int_equal(SET(1, &a, "x", "one"), 0);
    assert_int_equal(SET(2, &b, "x", "two"), 0);
    assert_int_equal(GET(1, "x"), 3);
    assert_memory_equal(value, "one", 3);
    assert_int_equal(SET(1, &a, "x", "again"), 0);
    assert_int_equal(GET(1, "x"), 5);
    stk_logvars_keep(&vars, 1); /* detached */
    assert_int_equal(SET(3, &a, "y", "next"), 0);
    assert_int_equal(GET(1, "x"), 5);
    assert_int_equal(SET(4, &a, "z", "next"), 0); /* ends the one before it */
    assert_int_equal(GET(3, "y"), 0);
    stk_logvars_forget(&vars, 1);
    assert_int_equal(GET(1, "x"), 0);
    assert_int_equal(SET(2, &b, "", "v"), -EINVAL);
    memset(large, 'v', sizeof large - 1);
    assert_int_equal(SET(2, &b, large, "v"), -EINVAL);
    assert_int_equal(SET(2, &b, "x", large), 0);
    assert_int_equal(GET(2, "x"), STK_LOGVAR_VALUE_MAX);
    for (unsigned i = 1; i < STK_LOGVAR_MAX; i++) {
        snprintf(name, sizeof name, "n%u", i);
        assert_int_equal(SET(2, &b, name, "v"), 0);
    }
    assert_int_equal(SET(2, &b, "more", "v"), -ENOSPC);
    stk_logvars_deinit(&vars);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_without_an_unnamed_logger),
        cmocka_unit_test(test_what_cannot_be_opened),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_torn_lines),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_no_line_comes_back),
        cmocka_unit_test(test_permissions_of_devices),
        cmocka_unit_test(test_datagrams),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_encoders),
        cmocka_unit_test(test_logvars),
    };

    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
