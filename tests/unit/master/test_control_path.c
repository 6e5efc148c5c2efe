/* Where the control socket is put, and where not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "master/control.h"

static char dir[64];

static int setup(void **state)
{
    (void)snprintf(dir, sizeof dir, "/tmp/stk-control-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return 0;
}

static int teardown(void **state)
{
    STK_CLEANUP(stk_mem_freep) char *command = stk_mem_printf("rm -rf %s", dir);

    return system(command);
}

static char *in_dir(const char *name)
{
    return stk_mem_printf("%s/%s", dir, name);
}

/* Binds; what went wrong must hold `part`. */
static void refuse(const char *value, const char *part)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    char *path = NULL;
    int fd = -1;

    assert_true(stk_control_bind(value, false, &fd, &path, &error) < 0);
    assert_int_equal(fd, -1);
    assert_null(path);
    assert_non_null(error);
    if (strstr(error, part) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", error, part);
}

static int bind_at(const char *value, bool replace, char **ret_path)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    int fd = -1;
    int r = stk_control_bind(value, replace, &fd, ret_path, &error);

    if (r != 0)
        fail_msg("%s", error);
    assert_null(error);
    return fd;
}

static ino_t inode(const char *path)
{
    struct stat st;

    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0600);
    return st.st_ino;
}

static void test_a_place_by_name(void **state)
{
    STK_CLEANUP(stk_mem_freep) char *path = in_dir("control");
    STK_CLEANUP(stk_mem_freep) char *found = NULL;
    mode_t mask = umask(0);
    int fd = bind_at(path, false, &found);
    ino_t first = inode(path);

    umask(mask);
    assert_string_equal(found, path);
    refuse(path, "another server");
    assert_int_equal(inode(path), first);
    /* A successor takes the place while the other listens still. */
    free(stk_steal(&found));
    int second = bind_at(path, true, &found);

    assert_int_not_equal(inode(path), first);
    stk_fd_close(&second);
    stk_fd_close(&fd);
    /* Now it is a leftover. */
    free(stk_steal(&found));
    fd = bind_at(path, false, &found);
    stk_fd_close(&fd);
}

static void test_a_relative_place(void **state)
{
    STK_CLEANUP(stk_mem_freep) char *path = in_dir("control");
    STK_CLEANUP(stk_mem_freep) char *found = NULL;
    int fd;

    assert_int_equal(chdir(dir), 0);
    fd = bind_at("control", false, &found);
    assert_string_equal(found, path);
    assert_int_equal(chdir("/"), 0);
    stk_fd_close(&fd);
}

static void test_places_that_cannot_be(void **state)
{
    STK_CLEANUP(stk_mem_freep) char *file = in_dir("file");
    STK_CLEANUP(stk_mem_freep) char *missing = in_dir("missing/control");
    STK_CLEANUP(stk_mem_freep) char *open_dir = in_dir("open");
    STK_CLEANUP(stk_mem_freep) char *in_open = in_dir("open/control");
    STK_CLEANUP(stk_mem_freep) char *found = NULL;
    char name[200];
    int fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    stk_fd_close(&fd);
    refuse(file, "not a socket");
    refuse(missing, "create the directory");
    assert_int_equal(mkdir(open_dir, 0777), 0);
    assert_int_equal(chmod(open_dir, 0777), 0);
    refuse(in_open, "every user can write");
    /* As in /tmp: nobody may remove what is another's. */
    assert_int_equal(chmod(open_dir, 01777), 0);
    fd = bind_at(in_open, false, &found);
    stk_fd_close(&fd);
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    STK_CLEANUP(stk_mem_freep) char *endless = in_dir(name);
    refuse(endless, "too long");
}

static void test_the_default_place(void **state)
{
    STK_CLEANUP(stk_mem_freep) char *folder = in_dir("stoker");
    STK_CLEANUP(stk_mem_freep)
    char *wanted = stk_mem_printf("%s/stoker/%d.sock", dir, (int)getpid());
    STK_CLEANUP(stk_mem_freep) char *stale = in_dir("stoker/1.sock");
    STK_CLEANUP(stk_mem_freep) char *alive = in_dir("stoker/2.sock");
    STK_CLEANUP(stk_mem_freep) char *other = in_dir("stoker/other.sock");
    STK_CLEANUP(stk_mem_freep) char *found = NULL;
    struct stat st;
    int fd, living;

    assert_int_equal(setenv("XDG_RUNTIME_DIR", dir, 1), 0);
    fd = bind_at("auto", false, &found);
    if (geteuid() == 0) { /* root's is elsewhere */
        assert_int_equal(strncmp(found, "/run/stoker/", 12) == 0 ||
                             strncmp(found, "/tmp/stoker-0/", 14) == 0,
                         1);
        assert_int_equal(unlink(found), 0);
        stk_fd_close(&fd);
        return;
    }
    assert_string_equal(found, wanted);
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    stk_fd_close(&fd);

    /* What dead servers have left goes, and nothing else does. */
    free(stk_steal(&found));
    fd = bind_at(stale, false, &found);
    stk_fd_close(&fd);
    free(stk_steal(&found));
    fd = bind_at(other, false, &found);
    stk_fd_close(&fd);
    free(stk_steal(&found));
    living = bind_at(alive, false, &found);
    free(stk_steal(&found));
    fd = bind_at("auto", false, &found);
    assert_int_equal(access(stale, F_OK), -1);
    assert_int_equal(access(alive, F_OK), 0);
    assert_int_equal(access(other, F_OK), 0);
    stk_fd_close(&fd);
    stk_fd_close(&living);

    /* A folder that others can look into is not used; another is found. */
    assert_int_equal(chmod(folder, 0755), 0);
    free(stk_steal(&found));
    fd = bind_at("auto", false, &found);
    assert_int_equal(strncmp(found, "/tmp/stoker-", 12), 0);
    assert_int_equal(unlink(found), 0);
    stk_fd_close(&fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_place_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_relative_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_places_that_cannot_be, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_default_place, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
