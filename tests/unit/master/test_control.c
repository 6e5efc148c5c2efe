/* The control socket of a real master: requests in every shape, and clients of every kind. */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "ipc/channel.h"
#include "master/control.h"

static char answer[4 << 20];

static void start(struct fixture *f, unsigned nworkers)
{
    static char name[] = "control";

    f->config.control = name;
    fixture_start(f, nworkers);
    for (unsigned i = 0; i < nworkers; i++)
        fixture_expect(f, "ready %u v0", i);
}

static int dial(struct fixture *f)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    (void)snprintf(addr.sun_path, sizeof addr.sun_path, "%s/control", f->dir);
    for (int i = 0; connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0; i++) {
        assert_true(i < 10000);
        usleep(1000);
    }
    return fd;
}

static void say(int fd, const char *text, size_t len)
{
    assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), len);
}

/* One line, without its end; "" when the connection has ended. */
static const char *hear(int fd)
{
    size_t n = 0;

    for (; n < sizeof answer - 1; n++) {
        ssize_t r = recv(fd, answer + n, 1, 0);

        if (r <= 0 || answer[n] == '\n')
            break;
    }
    answer[n] = '\0';
    return answer;
}

static const char *ask(int fd, const char *text)
{
    say(fd, text, strlen(text));
    return hear(fd);
}

static void assert_ok(const char *line)
{
    if (strncmp(line, "{\"ok\":true", 10) != 0)
        fail_msg("not ok: %.300s", line);
}

static void assert_error(const char *line, const char *part)
{
    if (strncmp(line, "{\"ok\":false,\"error\":\"", 21) != 0 || strstr(line, part) == NULL)
        fail_msg("not the error \"%s\": %.300s", part, line);
}

static void end(struct fixture *f)
{
    struct stat st;
    char path[128];

    assert_int_equal(fixture_stop(f), 0);
    (void)snprintf(path, sizeof path, "%s/control", f->dir);
    assert_int_equal(stat(path, &st), -1);
}

static void test_answers(void **state)
{
    struct fixture *f = *state;
    int fd;

    start(f, 2);
    fd = dial(f);
    assert_ok(ask(fd, "{\"command\":\"ping\"}\n"));
    assert_non_null(strstr(answer, "\"state\":\"serving\""));
    assert_ok(ask(fd, "{\"command\":\"status\"}\n"));
    assert_non_null(strstr(answer, "\"worker\":2"));
    assert_non_null(strstr(answer, "\"requests\":14"));
    assert_error(ask(fd, "{\"command\":\"config\"}\n"), "does not know");
    assert_ok(ask(fd, "{\"command\":\"logs\",\"action\":\"reopen\"}\n"));
    fixture_expect(f, "reopen 0");
    fixture_expect(f, "reopen 1");
    close(fd);
    end(f);
}

/* A request that arrives in two parts, wherever it is cut, is the same request. */
static void test_every_split(void **state)
{
    static const char text[] = " {\"command\":\"ping\"}\r\n\n{\"command\" : \"nothing\"}\n";
    struct fixture *f = *state;
    int fd;

    start(f, 1);
    fd = dial(f);
    for (size_t cut = 1; cut < sizeof text - 1; cut++) {
        say(fd, text, cut);
        usleep(200);
        say(fd, text + cut, sizeof text - 1 - cut);
        assert_ok(hear(fd));
        assert_error(hear(fd), "unknown command");
    }
    close(fd);
    end(f);
}

static void test_garbage(void **state)
{
    static const struct {
        const char *line, *error;
    } rows[] = {
        {"x", "is not a JSON object"},
        {"{}", "names no command"},
        {"{\"command\":1}", "names no command"},
        {"{\"command\":\"ping\",\"now\":true}", "does not take"},
        {"{\"command\":\"ping\",\"x\":{}}", "an object or an array"},
        {"{\"command\":\"stop\",\"now\":1}", "true or false"},
        {"{\"command\":\"scale\"}", "a number, or"},
        {"{\"command\":\"scale\",\"workers\":2}", "from 1 to 1"},
        {"{\"command\":\"scale\",\"workers\":\"2\"}", "from 1 to 1"},
        {"{\"command\":\"recycle\"}", "which one"},
        {"{\"command\":\"recycle\",\"worker\":0}", "from 1 to 1"},
        {"{\"command\":\"stack\",\"pid\":1}", "is no worker"},
        {"{\"command\":\"stack\",\"pid\":1,\"worker\":1}", "either"},
        {"{\"command\":\"logs\",\"action\":null}", "must be"},
        {"\xff\xfe", "is not a JSON object"},
    };
    struct fixture *f = *state;
    char line[STK_CONTROL_LINE * 2];
    int fd;

    start(f, 1);
    fd = dial(f);
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        say(fd, rows[i].line, strlen(rows[i].line));
        assert_error(ask(fd, "\n"), rows[i].error);
    }
    assert_ok(ask(fd, "{\"command\":\"ping\"}\n"));
    /* The longest line that there can be, and one byte more. */
    memset(line, ' ', sizeof line);
    memcpy(line, "{\"command\":\"ping\"}", 18);
    say(fd, line, STK_CONTROL_LINE - 1);
    assert_ok(ask(fd, "\n"));
    say(fd, line, STK_CONTROL_LINE);
    assert_error(hear(fd), "at most");
    assert_string_equal(hear(fd), "");
    close(fd);
    end(f);
}

static void test_reload_and_its_failure(void **state)
{
    struct fixture *f = *state;
    int fd, other;

    start(f, 2);
    fd = dial(f);
    other = dial(f);
    say(other, "{\"command\":\"reload\"}\n", 21);
    assert_ok(ask(fd, "{\"command\":\"reload\"}\n"));
    assert_ok(hear(other));
    atomic_store(&f->control->load[0], FIXTURE_EXIT);
    atomic_store(&f->control->exit_code, STK_MASTER_EXIT_LOAD);
    assert_error(ask(fd, "{\"command\":\"reload\"}\n"), "the old workers go on");
    assert_ok(ask(fd, "{\"command\":\"status\"}\n"));
    assert_non_null(strstr(answer, "\"last_reload\":{\"ok\":false"));
    atomic_store(&f->control->load[0], FIXTURE_SERVE);
    /* Clients that do not wait for their answer, and then the server ends. */
    for (int i = 0; i < 20; i++) {
        int gone = dial(f);

        say(gone, "{\"command\":\"reload\"}\n", 21);
        close(gone);
    }
    assert_ok(ask(fd, "{\"command\":\"reload\"}\n"));
    close(fd);
    close(other);
    end(f);
}

static void test_scale_and_recycle(void **state)
{
    struct fixture *f = *state;
    pid_t before;
    int fd;

    start(f, 3);
    fd = dial(f);
    assert_ok(ask(fd, "{\"command\":\"scale\",\"workers\":1}\n"));
    assert_non_null(strstr(answer, "1 worker serves"));
    assert_ok(ask(fd, "{\"command\":\"scale\",\"workers\":\"auto\"}\n"));
    before = fixture_pid(f, 1, 0);
    assert_ok(ask(fd, "{\"command\":\"recycle\",\"worker\":2}\n"));
    assert_int_not_equal(fixture_pid(f, 1, before), before);
    atomic_store(&f->control->load[2], FIXTURE_EXIT);
    atomic_store(&f->control->exit_code, STK_MASTER_EXIT_LOAD);
    assert_error(ask(fd, "{\"command\":\"recycle\",\"worker\":3}\n"), "cannot be started");
    close(fd);
    end(f);
}

static void test_stacks(void **state)
{
    struct fixture *f = *state;
    int fd;

    start(f, 2);
    fd = dial(f);
    atomic_store(&f->control->stacks, 160);
    assert_ok(ask(fd, "{\"command\":\"stack\",\"worker\":2}\n"));
    assert_non_null(strstr(answer, "\"worker\":2"));
    assert_non_null(strstr(answer, "in a function()\\nin a function()\\n"));
    assert_non_null(strstr(answer, "\"complete\":true"));
    /* More than is kept: the rest is read, so that the worker is not held up, and dropped. */
    atomic_store(&f->control->stacks, STK_CONTROL_STACKS + (1 << 20));
    assert_ok(ask(fd, "{\"command\":\"stack\",\"worker\":1}\n"));
    assert_non_null(strstr(answer, "\"complete\":false"));
    assert_ok(ask(fd, "{\"command\":\"ping\"}\n"));
    /* The worker dies of it. */
    atomic_store(&f->control->stacks, 0);
    assert_error(ask(fd, "{\"command\":\"stack\",\"worker\":1}\n"), "has ended");
    close(fd);
    end(f);
}

/* The client is gone before the worker has answered. */
static void test_stacks_for_nobody(void **state)
{
    struct fixture *f = *state;
    pid_t pid;
    int fd;

    start(f, 2);
    pid = fixture_pid(f, 0, 0);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    atomic_store(&f->control->stacks, 1 << 20);
    for (int i = 0; i < 10; i++) {
        fd = dial(f);
        say(fd, "{\"command\":\"stack\",\"worker\":1}\n", 31);
        close(fd);
    }
    fd = dial(f);
    assert_ok(ask(fd, "{\"command\":\"ping\"}\n"));
    /* What it writes now nobody reads: it gets EPIPE, which ends this worker (not a real one). */
    assert_int_equal(kill(pid, SIGCONT), 0);
    (void)fixture_pid(f, 0, pid);
    assert_ok(ask(fd, "{\"command\":\"ping\"}\n"));
    close(fd);
    end(f);
}

/* More clients than there is room for: the oldest idle ones go, waiting ones stay. */
static void test_crowd(void **state)
{
    enum { CROWD = STK_CONTROL_CLIENTS * 2 };
    struct fixture *f = *state;
    int fds[CROWD], first;

    start(f, 1);
    first = dial(f);
    atomic_store(&f->control->load[0], FIXTURE_HANG);
    say(first, "{\"command\":\"reload\"}\n", 21);
    fixture_expect(f, "start 0");
    fixture_expect(f, "start 0");
    for (int i = 0; i < CROWD; i++) {
        fds[i] = dial(f);
        assert_ok(ask(fds[i], "{\"command\":\"ping\"}\n"));
    }
    assert_string_equal(hear(fds[0]), "");
    assert_ok(ask(fds[CROWD - 1], "{\"command\":\"ping\"}\n"));
    assert_ok(ask(fds[CROWD - 1], "{\"command\":\"stop\"}\n"));
    assert_error(hear(first), "stop");
    for (int i = 0; i < CROWD; i++)
        close(fds[i]);
    close(first);
    assert_int_equal(fixture_wait(f), 0);
}

/* A client that asks and does not read holds up nobody. */
static void test_deaf_client(void **state)
{
    struct fixture *f = *state;
    int deaf, fd;

    start(f, 2);
    deaf = dial(f);
    for (int i = 0; i < 100000; i++)
        if (send(deaf, "{\"command\":\"status\"}\n", 21, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
    assert_int_equal(errno, EAGAIN);
    fd = dial(f);
    assert_ok(ask(fd, "{\"command\":\"reload\"}\n"));
    close(deaf);
    assert_ok(ask(fd, "{\"command\":\"ping\"}\n"));
    close(fd);
    end(f);
}

static void test_stop(void **state)
{
    struct fixture *f = *state;
    int fd, other;

    start(f, 2);
    atomic_store(&f->control->ignores_drain, true);
    fd = dial(f);
    say(fd, "{\"command\":\"stop\"}\n", 19);
    fixture_expect(f, "drain 0 30000 last");
    other = dial(f);
    assert_error(ask(other, "{\"command\":\"reload\"}\n"), "stopping");
    assert_ok(ask(other, "{\"command\":\"stop\",\"now\":true}\n"));
    assert_ok(hear(fd));
    assert_string_equal(hear(fd), "");
    close(fd);
    close(other);
    assert_int_equal(fixture_wait(f), 0);
}

/* The end of the requests is not the end of the answers. */
static void test_half_closed(void **state)
{
    static const char text[] = "{\"command\":\"reload\"}\n{\"command\":\"ping\"}";
    struct fixture *f = *state;
    int fd;

    start(f, 1);
    fd = dial(f);
    say(fd, text, sizeof text - 1);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    assert_ok(hear(fd));
    assert_ok(hear(fd));
    assert_string_equal(hear(fd), "");
    close(fd);
    end(f);
}

#define control_test(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        control_test(test_answers),           control_test(test_every_split),
        control_test(test_garbage),           control_test(test_reload_and_its_failure),
        control_test(test_scale_and_recycle), control_test(test_stacks),
        control_test(test_stacks_for_nobody), control_test(test_crowd),
        control_test(test_deaf_client),       control_test(test_stop),
        control_test(test_half_closed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
