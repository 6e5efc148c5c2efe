/* The pidfile: leftovers are replaced, the living are respected, others' files stay. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "master/pidfile.h"

static char *path_new(void)
{
    char *path = stk_mem_printf("/tmp/stk-pidfile-%d", (int)getpid());

    unlink(path);
    return path;
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static int get(const char *path)
{
    char buf[64] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_true(read(fd, buf, sizeof buf - 1) >= 0);
    close(fd);
    return atoi(buf);
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static void must_write(const char *path, struct stk_pidfile *pidfile)
{
    char *error = NULL;

    if (stk_pidfile_write(path, pidfile, &error) != 0)
        fail_msg("%s", error);
    assert_int_equal(get(path), getpid());
}

static void test_write_and_remove(void **state)
{
    struct stk_pidfile pidfile = {.fd = -1};
    char *path = path_new();

    must_write(path, &pidfile);
    stk_pidfile_remove(&pidfile);
    assert_false(exists(path));
    stk_pidfile_remove(&pidfile);
    free(path);
}

static void test_leftovers(void **state)
{
    static const char *const rows[] = {"", "x", "-5", "99999999999999999999", "0\n"};
    char *path = path_new();
    char dead[32];
    pid_t child = fork();

    if (child == 0)
        _exit(0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    for (size_t i = 0; i <= sizeof rows / sizeof rows[0]; i++) {
        struct stk_pidfile pidfile = {.fd = -1};

        snprintf(dead, sizeof dead, "%d\n", (int)child);
        put(path, i < sizeof rows / sizeof rows[0] ? rows[i] : dead);
        must_write(path, &pidfile);
        stk_pidfile_remove(&pidfile);
    }
    free(path);
}

/* Another program's server, which does not lock its file. */
static void test_living_process(void **state)
{
    struct stk_pidfile pidfile = {.fd = 77};
    char *path = path_new();
    char *error = NULL;
    char text[32];
    struct timespec past[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};

    snprintf(text, sizeof text, "%d\n", (int)getppid());
    put(path, text);
    assert_int_equal(stk_pidfile_write(path, &pidfile, &error), -EEXIST);
    assert_int_equal(pidfile.fd, 77);
    assert_non_null(strstr(error, "which lives"));
    assert_int_equal(get(path), getppid());
    free(error);
    /* A file older than the process cannot be its own: the id was given again. */
    assert_int_equal(utimensat(AT_FDCWD, path, past, 0), 0);
    must_write(path, &pidfile);
    stk_pidfile_remove(&pidfile);
    free(path);
}

static void test_second_server(void **state)
{
    struct stk_pidfile pidfile = {.fd = -1};
    char *path = path_new();
    int status;
    pid_t child;

    must_write(path, &pidfile);
    child = fork();
    if (child == 0) {
        struct stk_pidfile other = {.fd = -1};
        char *error = NULL;

        _exit(stk_pidfile_write(path, &other, &error) == -EEXIST && error != NULL ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(get(path), getpid());
    stk_pidfile_remove(&pidfile);
    free(path);
}

static void test_replaced_file_stays(void **state)
{
    struct stk_pidfile pidfile = {.fd = -1};
    char *path = path_new();

    must_write(path, &pidfile);
    assert_int_equal(unlink(path), 0);
    put(path, "1\n");
    stk_pidfile_remove(&pidfile);
    assert_true(exists(path));
    assert_int_equal(unlink(path), 0);
    free(path);
}

static void test_child_removes_nothing(void **state)
{
    struct stk_pidfile pidfile = {.fd = -1};
    char *path = path_new();
    pid_t child;

    must_write(path, &pidfile);
    child = fork();
    if (child == 0) {
        stk_pidfile_remove(&pidfile);
        _exit(0);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_true(exists(path));
    stk_pidfile_remove(&pidfile);
    free(path);
}

static void test_refused(void **state)
{
    struct stk_pidfile pidfile = {.fd = -1};
    char *path = path_new();
    char *error = NULL;

    assert_int_equal(stk_pidfile_write("/nonexistent/pid", &pidfile, &error), -ENOENT);
    assert_non_null(strstr(error, "/nonexistent/pid"));
    free(error);
    /* A link in a folder that others can write to must not be followed. */
    assert_int_equal(symlink("/tmp/stk-pidfile-target", path), 0);
    assert_true(stk_pidfile_write(path, &pidfile, &error) < 0);
    free(error);
    assert_int_equal(unlink(path), 0);
    free(path);
}

/* One server after another, by the same open file: the lock is never let go. */
static void test_handed_over(void **state)
{
    char *path = path_new();
    struct stk_pidfile old, new;
    char *error = NULL;
    int status, fd;
    pid_t pid;

    put(path, "123456789\n"); /* longer than what follows */
    must_write(path, &old);
    fd = fcntl(old.fd, F_DUPFD_CLOEXEC, 0);
    assert_false(stk_pidfile_adopt("/dev/null", fd, &new));
    pid = fork();
    if (pid == 0) {
        char text[64] = "";

        if (!stk_pidfile_adopt(path, fd, &new))
            _exit(1);
        while (get(path) != getpid())
            usleep(1000);
        if (pread(new.fd, text, sizeof text, 0) != snprintf(NULL, 0, "%d\n", (int)getpid()))
            _exit(2);
        if (stk_pidfile_write(path, &old, &error) != -EEXIST) /* somebody else cannot */
            _exit(3);
        stk_pidfile_remove(&new);
        _exit(exists(path) ? 4 : 0);
    }
    stk_pidfile_hand_over(&old, pid);
    assert_null(old.path);
    stk_pidfile_remove(&old); /* not ours any more */
    close(fd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_and_remove),
        cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_living_process),
        cmocka_unit_test(test_second_server),
        cmocka_unit_test(test_replaced_file_stays),
        cmocka_unit_test(test_child_removes_nothing),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_handed_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
