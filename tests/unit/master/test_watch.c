/* Watching files: the ways in which editors save, by inotify and by polling. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "master/watch.h"

struct fix {
    struct stk_loop *loop;
    struct stk_watch *watch;
    char dir[64];
    char last[256];
    unsigned calls;
};

static void on_change(void *arg, const char *path)
{
    struct fix *f = arg;

    f->calls++;
    snprintf(f->last, sizeof f->last, "%s", path);
}

static int setup(void **state)
{
    struct fix *f = stk_new0(struct fix);

    snprintf(f->dir, sizeof f->dir, "/tmp/stk-watch-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(stk_loop_new(&f->loop), 0);
    assert_int_equal(stk_watch_new(f->loop, on_change, f, &f->watch), 0);
    *state = f;
    return 0;
}

static void remove_all(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *de;

    while (dir != NULL && (de = readdir(dir)) != NULL)
        unlinkat(dirfd(dir), de->d_name, 0);
    if (dir != NULL)
        closedir(dir);
    rmdir(path);
}

static int teardown(void **state)
{
    struct fix *f = *state;

    assert_null(stk_watch_free(f->watch));
    assert_null(stk_watch_free(NULL));
    stk_loop_free(f->loop);
    remove_all(f->dir);
    free(f);
    return 0;
}

static char *path_of(struct fix *f, const char *name)
{
    return stk_mem_printf("%s/%s", f->dir, name);
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void add(struct fix *f, const char *path)
{
    stk_watch_add_files(f->watch, path, strlen(path));
}

/* Turns the loop until there are `calls`; fails after many turns. */
static void turn_until(struct fix *f, unsigned calls)
{
    for (int i = 0; i < 400 && f->calls < calls; i++)
        assert_int_equal(stk_loop_run_once(f->loop, 50, NULL), 0);
    assert_int_equal(f->calls, calls);
}

/* Long enough for what is on its way to arrive. */
static void turn_some(struct fix *f)
{
    for (int i = 0; i < 6; i++)
        assert_int_equal(stk_loop_run_once(f->loop, 50, NULL), 0);
}

static void check_saves(struct fix *f)
{
    char *a = path_of(f, "a.py"), *b = path_of(f, "b.py"), *temp = path_of(f, "a.py~");

    put(a, "1");
    put(b, "1");
    add(f, a);
    add(f, b);
    add(f, a);
    assert_int_equal(stk_watch_count(f->watch), 2);
    /* in place */
    put(a, "22");
    turn_until(f, 1);
    assert_string_equal(f->last, a);
    /* by renaming */
    put(temp, "333");
    assert_int_equal(rename(temp, a), 0);
    turn_until(f, 2);
    assert_string_equal(f->last, a);
    /* away and back */
    assert_int_equal(unlink(b), 0);
    turn_some(f);
    assert_int_equal(f->calls, 2);
    put(b, "4444");
    turn_until(f, 3);
    assert_string_equal(f->last, b);
    free(a);
    free(b);
    free(temp);
}

static void test_saves(void **state)
{
    struct fix *f = *state;

    assert_false(stk_watch_is_polling(f->watch));
    check_saves(f);
}

static void test_saves_polled(void **state)
{
    struct fix *f = *state;

    stk_watch_use_polling(f->watch);
    assert_true(stk_watch_is_polling(f->watch));
    check_saves(f);
}

/* A burst of saves is one change. */
static void test_burst(void **state)
{
    struct fix *f = *state;
    char *a = path_of(f, "a.py");

    put(a, "1");
    add(f, a);
    for (int i = 0; i < 20; i++)
        put(a, i % 2 ? "22" : "333");
    turn_until(f, 1);
    turn_some(f);
    assert_int_equal(f->calls, 1);
    free(a);
}

static void test_other_files(void **state)
{
    struct fix *f = *state;
    char *a = path_of(f, "a.py"), *other = path_of(f, "other.py"), *data = path_of(f, "data.db");

    put(a, "1");
    add(f, a);
    put(other, "x");
    put(data, "x");
    turn_some(f);
    assert_int_equal(f->calls, 0);
    stk_watch_set_eager(f->watch, true);
    put(data, "y");
    turn_some(f);
    assert_int_equal(f->calls, 0);
    put(other, "yy");
    turn_until(f, 1);
    assert_string_equal(f->last, other);
    free(a);
    free(other);
    free(data);
}

/* A folder that is removed and made again, as a checkout does. */
static void test_folder_comes_back(void **state)
{
    struct fix *f = *state;
    char *folder = path_of(f, "pkg"), *file = path_of(f, "pkg/m.py");

    assert_int_equal(mkdir(folder, 0700), 0);
    put(file, "1");
    add(f, file);
    remove_all(folder);
    turn_some(f);
    assert_int_equal(f->calls, 0);
    assert_int_equal(mkdir(folder, 0700), 0);
    put(file, "22");
    turn_until(f, 1);
    assert_string_equal(f->last, file);
    put(file, "333");
    turn_until(f, 2);
    remove_all(folder);
    free(folder);
    free(file);
}

/* The list comes from another process: it may hold anything. */
static void test_odd_lists(void **state)
{
    struct fix *f = *state;
    static const char odd[] =
        "\n\nrelative.py\n/\n/x.py\n\0\n//\n/no/such/folder/a.py\n/no newline";
    char *longest = stk_mem_zalloc(9000);

    stk_watch_add_files(f->watch, odd, sizeof odd - 1);
    stk_watch_add_files(f->watch, "", 0);
    memset(longest, '/', 8999);
    stk_watch_add_files(f->watch, longest, 8999);
    turn_some(f);
    assert_int_equal(f->calls, 0);
    free(longest);
}

static void test_many_files(void **state)
{
    struct fix *f = *state;
    char *text = stk_mem_zalloc(1 << 20);
    size_t len = 0;

    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 3000; i++)
            len += (size_t)sprintf(text + len, "%s/f%d.py\n", f->dir, i * 7919 % 3000);
    stk_watch_add_files(f->watch, text, len);
    assert_int_equal(stk_watch_count(f->watch), 3000);
    stk_watch_add_files(f->watch, text, len);
    assert_int_equal(stk_watch_count(f->watch), 3000);
    free(text);
}

/* Files that are touched: by their times alone, when they appear, and behind a link that turns. */
static void test_touch(void **state)
{
    struct fix *f = *state;
    char *path = path_of(f, "touch"), *later = path_of(f, "later");

    put(path, "");
    stk_watch_add_touch(f->watch, path);
    stk_watch_add_touch(f->watch, later);
    assert_int_equal(stk_watch_count(f->watch), 2);
    turn_some(f);
    assert_int_equal(f->calls, 0);
    assert_int_equal(utimensat(AT_FDCWD, path, NULL, 0), 0);
    turn_until(f, 1);
    assert_string_equal(f->last, path);
    put(later, "");
    turn_until(f, 2);
    assert_string_equal(f->last, later);
    assert_int_equal(unlink(later), 0);
    turn_some(f);
    assert_int_equal(f->calls, 2);
    put(later, "again");
    turn_until(f, 3);
    free(path);
    free(later);
}

static void test_touch_behind_a_link(void **state)
{
    struct fix *f = *state;
    char *one = path_of(f, "one"), *two = path_of(f, "two"), *link = path_of(f, "current");
    char *temp = path_of(f, "next"), *touch = path_of(f, "current/touch");
    char *first = path_of(f, "one/touch"), *second = path_of(f, "two/touch");

    assert_int_equal(mkdir(one, 0700), 0);
    assert_int_equal(mkdir(two, 0700), 0);
    put(first, "1");
    put(second, "2");
    assert_int_equal(symlink(one, link), 0);
    stk_watch_add_touch(f->watch, touch);
    assert_int_equal(symlink(two, temp), 0);
    assert_int_equal(rename(temp, link), 0);
    turn_until(f, 1);
    assert_string_equal(f->last, touch);
    remove_all(one);
    remove_all(two);
    unlink(link);
    free(one);
    free(two);
    free(link);
    free(temp);
    free(touch);
    free(first);
    free(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_saves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_saves_polled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_burst, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_folder_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_lists, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_touch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_touch_behind_a_link, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
