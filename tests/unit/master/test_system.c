/* The hot upgrade, with this program as the new server, and the service manager. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "fixture.h"
#include "master/startup.h"
#include "master/system.h"

/* --- the new server, in a process of its own ------------------------------------------------- */

/* What it has seen, for the test, in the directory that it was started in. */
static void successor_write(const char *fmt, ...) STK_PRINTF(1, 2);
static void successor_write(const char *fmt, ...)
{
    FILE *f = fopen("successor", "ae");
    va_list args;

    if (f == NULL)
        _exit(70);
    va_start(args, fmt);
    vfprintf(f, fmt, args);
    va_end(args);
    fclose(f);
}

static int successor(const char *mode)
{
    struct stk_startup startup;
    char *error = NULL;
    char buf[64] = "";
    ssize_t n;

    if (strcmp(mode, "exit") == 0)
        return 3;
    if (stk_startup_take(NULL, &startup, &error) < 0)
        return 71;
    if (getenv(STK_STARTUP_UPGRADE) != NULL)
        return 72;
    successor_write("%s: from %d, %zu groups, %zu sockets\n", mode, (int)startup.predecessor,
                    startup.sockets.n, startup.sockets.n > 0 ? startup.sockets.groups[0].n : 0);
    if (strcmp(mode, "ready") == 0 && send(startup.control, "ready", 5, 0) < 0)
        return 73;
    n = recv(startup.control, buf, sizeof buf - 1, 0);
    successor_write("%s\n", n > 0 ? buf : "end");
    if (startup.pidfile >= 0) {
        char pid[32] = "";

        if (pread(startup.pidfile, pid, sizeof pid - 1, 0) > 0)
            successor_write("%s", atoi(pid) == getpid() ? "pidfile is ours\n" : "pidfile is not\n");
    }
    stk_startup_deinit(&startup);
    return 0;
}

static bool successor_has(struct fixture *f, const char *text)
{
    char path[160], buf[512] = "";
    int fd;

    snprintf(path, sizeof path, "%s/successor", f->dir);
    for (int i = 0; i < 20000; i++) {
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && read(fd, buf, sizeof buf - 1) < 0)
            buf[0] = '\0';
        stk_fd_close(&fd);
        if (strstr(buf, text) != NULL)
            return true;
        usleep(1000);
    }
    print_message("the new server has said only: %s", buf);
    return false;
}

static void wait_log(struct fixture *f, const char *text)
{
    for (int i = 0; i < 20000 && fixture_log_count(f, text) == 0; i++)
        usleep(1000);
    assert_true(fixture_log_has(f, text));
}

/* Until the second master of a test knows that its worker is ready. */
static void wait_ready_again(struct fixture *f)
{
    for (int i = 0; i < 20000 && fixture_log_count(f, "ready after") < 2; i++)
        usleep(1000);
}

/* How the fixture's master starts a new one. */
static char *successor_argv[] = {(char *)(uintptr_t) "test", (char *)(uintptr_t) "successor", NULL,
                                 NULL};

static void start(struct fixture *f, struct stk_startup *startup, const char *mode,
                  unsigned nworkers)
{
    static char *none[] = {NULL};

    successor_argv[2] = (char *)(uintptr_t)mode;
    *startup = (struct stk_startup){.path = (char *)(uintptr_t) "/proc/self/exe",
                                    .argv = successor_argv,
                                    .environ = environ != NULL ? environ : none,
                                    .cwd = f->dir,
                                    .umask = 022,
                                    .control = -1,
                                    .pidfile = -1};
    f->params.startup = startup;
    f->config.upgrade_timeout = 20000;
    fixture_start(f, nworkers);
    for (unsigned i = 0; i < nworkers; i++)
        fixture_expect(f, "ready %u v0", i);
    wait_log(f, "ready after");
}

static void test_upgrade(void **state)
{
    struct fixture *f = *state;
    struct stk_startup startup;
    char name[] = "pid", text[64], path[128];
    struct stat st;
    pid_t master;

    f->config.pidfile = name;
    start(f, &startup, "ready", 3);
    master = f->master;
    fixture_signal(f, SIGUSR2);
    assert_int_equal(fixture_wait(f), 0);
    /* What is queued is left to the new one. */
    for (unsigned i = 0; i < 3; i++)
        fixture_expect(f, "drain %u 30000", i);
    snprintf(text, sizeof text, "ready: from %d, 1 groups, 3 sockets\n", (int)master);
    assert_true(successor_has(f, text));
    assert_true(successor_has(f, "go\n"));
    assert_true(successor_has(f, "pidfile is ours\n"));
    assert_true(fixture_log_has(f, "the upgrade is complete"));
    /* It is the new one's. */
    snprintf(path, sizeof path, "%s/pid", f->dir);
    assert_int_equal(stat(path, &st), 0);
}

static void test_upgrade_that_fails(void **state)
{
    struct fixture *f = *state;
    struct stk_startup startup;

    start(f, &startup, "exit", 2);
    fixture_signal(f, SIGUSR2);
    wait_log(f, "ended with exit code 3 before it was ready: this server goes on");
    fixture_expect_not(f, "drain 0 30000");
    assert_int_equal(fixture_stop(f), 0);
    fixture_expect(f, "drain 0 30000 last");
}

static void test_upgrade_that_takes_too_long(void **state)
{
    struct fixture *f = *state;
    struct stk_startup startup;

    start(f, &startup, "hang", 1);
    fixture_signal(f, SIGUSR2);
    wait_log(f, "an upgrade begins");
    assert_true(successor_has(f, "hang: from"));
    fixture_signal(f, SIGUSR2);
    wait_log(f, "no upgrade: one is under way already");
    /* Stopping ends it too, and waits for it. */
    assert_int_equal(fixture_stop(f), 0);
    assert_true(successor_has(f, "abort\n"));
    assert_true(fixture_log_has(f, "because the server was told to stop"));
}

static void test_upgrade_timeout(void **state)
{
    struct fixture *f = *state;
    struct stk_startup startup;

    start(f, &startup, "hang", 1);
    fixture_stop(f);
    f->config.upgrade_timeout = 100;
    fixture_start(f, 1);
    fixture_expect(f, "ready 0 v0");
    wait_ready_again(f);
    fixture_signal(f, SIGUSR2);
    wait_log(f, "was not ready within 0.1 s, the time of upgrade-timeout: this server goes on");
    assert_true(successor_has(f, "abort\n"));
    assert_int_equal(fixture_stop(f), 0);
}

static void test_upgrade_that_cannot_be_executed(void **state)
{
    struct fixture *f = *state;
    struct stk_startup startup;

    start(f, &startup, "exit", 1);
    fixture_stop(f);
    startup.path = (char *)(uintptr_t) "/nonexistent/python";
    fixture_start(f, 1);
    fixture_expect(f, "ready 0 v0");
    wait_ready_again(f);
    fixture_signal(f, SIGUSR2);
    wait_log(f, "could not be started (/nonexistent/python: No such file");
    assert_int_equal(fixture_stop(f), 0);
}

static void test_upgrade_without_a_command_line(void **state)
{
    struct fixture *f = *state;

    fixture_start(f, 1);
    fixture_expect(f, "ready 0 v0");
    wait_log(f, "ready after");
    fixture_signal(f, SIGUSR2);
    wait_log(f, "no upgrade: the command line");
    assert_int_equal(fixture_stop(f), 0);
}

/* --- the service manager ---------------------------------------------------------------------- */

static int manager_bind(struct fixture *f, char path[128])
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    snprintf(path, 128, "%s/notify", f->dir);
    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    return fd;
}

/* Waits for a datagram that holds the text. */
static void manager_expect(int fd, const char *text)
{
    for (;;) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        char buf[1024];
        ssize_t n;

        if (poll(&pfd, 1, 20000) <= 0)
            fail_msg("the service manager was not told \"%s\"", text);
        n = recv(fd, buf, sizeof buf - 1, 0);
        buf[n > 0 ? n : 0] = '\0';
        if (strstr(buf, text) != NULL)
            return;
    }
}

static void test_notify(void **state)
{
    struct fixture *f = *state;
    struct stk_startup startup = {.control = -1, .pidfile = -1};
    char path[128], text[64];
    int fd = manager_bind(f, path);

    startup.notify_socket = path;
    f->params.startup = &startup;
    fixture_start(f, 2);
    snprintf(text, sizeof text, "READY=1\nMAINPID=%d\n", (int)f->master);
    manager_expect(fd, text);
    fixture_signal(f, SIGHUP);
    manager_expect(fd, "RELOADING=1\nMONOTONIC_USEC=");
    manager_expect(fd, "READY=1\nSTATUS=the reload is complete");
    fixture_signal(f, SIGTERM);
    manager_expect(fd, "STOPPING=1");
    assert_int_equal(fixture_wait(f), 0);
    close(fd);
}

static void test_watchdog(void **state)
{
    struct fixture *f = *state;
    struct stk_startup startup = {.control = -1, .pidfile = -1, .watchdog = 300};
    char path[128];
    int fd = manager_bind(f, path);
    pid_t pid;

    startup.notify_socket = path;
    f->params.startup = &startup;
    fixture_start(f, 1);
    manager_expect(fd, "READY=1");
    for (int i = 0; i < 8; i++)
        manager_expect(fd, "WATCHDOG=1");
    assert_int_equal(fixture_log_count(f, "has not answered"), 0);
    /* It hears nothing any more, and is replaced by one that does. */
    pid = fixture_pid(f, 0, 0);
    atomic_store(&f->control->ignores_all, true);
    wait_log(f, "has not answered for");
    atomic_store(&f->control->ignores_all, false);
    assert_true(fixture_pid(f, 0, pid) != pid);
    manager_expect(fd, "WATCHDOG=1");
    assert_int_equal(fixture_stop(f), 0);
    close(fd);
}

/* --- the kernel --------------------------------------------------------------------------------
 */

static void put(const char *root, const char *name, const char *text)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s%s", root, name);
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
        *slash = '/';
    }
    f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static void test_oom_kills(void **state)
{
    char root[] = "/tmp/stk-oom-XXXXXX";

    assert_non_null(mkdtemp(root));
    assert_int_equal(stk_oom_kills(root), 0);
    put(root, "/proc/self/cgroup", "1:name=systemd:/x\n0::/app\n");
    put(root, "/sys/fs/cgroup/memory.events", "low 0\noom 9\noom_kill 2\n");
    assert_int_equal(stk_oom_kills(root), 2);
    put(root, "/sys/fs/cgroup/app/memory.events", "oom_kill 5\noom_group_kill 7\n");
    assert_int_equal(stk_oom_kills(root), 5);
    assert_int_equal(nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

#define SYSTEM_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        SYSTEM_TEST(test_upgrade),
        SYSTEM_TEST(test_upgrade_that_fails),
        SYSTEM_TEST(test_upgrade_that_takes_too_long),
        SYSTEM_TEST(test_upgrade_timeout),
        SYSTEM_TEST(test_upgrade_that_cannot_be_executed),
        SYSTEM_TEST(test_upgrade_without_a_command_line),
        SYSTEM_TEST(test_notify),
        SYSTEM_TEST(test_watchdog),
        cmocka_unit_test(test_oom_kills),
    };

    if (argc > 2 && strcmp(argv[1], "successor") == 0)
        return successor(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
