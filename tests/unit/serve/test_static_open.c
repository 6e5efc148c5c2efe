/* The walk that stands in for openat2, and what a path of a URL becomes before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macros.h"
#include "serve/static_priv.h"

static void test_clean(void **state)
{
    static const struct {
        const char *below, *rel;
        bool dotfiles, well_known, slash;
    } rows[] = {
        {"", "", false, false, false},
        {"/", "", false, false, true},
        {"/a/b.txt", "a/b.txt", false, false, false},
        {"//a///b//", "a/b", false, false, true},
        {"/..", NULL, true, true, false},
        {"/a/../b", NULL, true, true, false},
        {"/.", NULL, true, true, false},
        {"/a\\b", NULL, true, true, false},
        {"/.env", NULL, false, true, false},
        {"/.env", ".env", true, false, false},
        {"/...", NULL, false, false, false},
        {"/.well-known/x", ".well-known/x", false, true, false},
        {"/.well-known/x", NULL, false, false, false},
        {"/a/.well-known/x", NULL, false, true, false},
    };
    char rel[STK_STATIC_PATH_MAX + 2], longest[STK_STATIC_PATH_MAX + 1];
    bool slash;

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        bool good = stk_static_clean(stk_span_str(rows[i].below), rows[i].dotfiles,
                                     rows[i].well_known, rel, &slash);

        assert_int_equal(good, rows[i].rel != NULL);
        if (good) {
            assert_string_equal(rel, rows[i].rel);
            assert_int_equal(slash, rows[i].slash);
        }
    }
    assert_false(stk_static_clean(stk_span_make("/a\0b", 4), true, true, rel, &slash));
    memset(longest, 'a', sizeof longest);
    assert_false(stk_static_clean(stk_span_make(longest, sizeof longest), true, true, rel, &slash));
    assert_false(stk_static_clean(stk_span_make(longest, 256), true, true, rel, &slash));
    assert_true(stk_static_clean(stk_span_make(longest, 255), true, true, rel, &slash));
}

static void opens(int dir, const char *rel, bool links, bool walk_links)
{
    _Atomic bool none = true, some = false;
    int fd = stk_static_open_walk(dir, rel);

    assert_int_equal(fd >= 0, walk_links);
    if (fd >= 0)
        close(fd);
    fd = stk_static_open(dir, rel, STK_STATIC_LINKS_BENEATH, &none);
    assert_int_equal(fd >= 0, walk_links);
    if (fd >= 0)
        close(fd);
    fd = stk_static_open(dir, rel, STK_STATIC_LINKS_BENEATH, &some);
    assert_int_equal(fd >= 0, atomic_load(&some) ? walk_links : links);
    if (fd >= 0)
        close(fd);
}

static void test_open(void **state)
{
    char base[] = "/tmp/stoker-static-XXXXXX";
    int dir, fd;

    (void)state;
    assert_non_null(mkdtemp(base));
    dir = open(base, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir >= 0);
    assert_int_equal(mkdirat(dir, "sub", 0700), 0);
    fd = openat(dir, "sub/file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(symlinkat("file", dir, "sub/link"), 0);
    assert_int_equal(symlinkat("sub", dir, "dirlink"), 0);
    assert_int_equal(symlinkat("/etc/passwd", dir, "out"), 0);
    assert_int_equal(symlinkat("..", dir, "up"), 0);
    opens(dir, "sub/file", true, true);
    opens(dir, "sub/link", true, false);
    opens(dir, "dirlink/file", true, false);
    opens(dir, "out", false, false);
    opens(dir, "up/etc", false, false);
    opens(dir, "sub/none", false, false);
    opens(dir, "sub/file/x", false, false);
    assert_int_equal(unlinkat(dir, "sub/file", 0), 0);
    assert_int_equal(unlinkat(dir, "sub/link", 0), 0);
    assert_int_equal(unlinkat(dir, "dirlink", 0), 0);
    assert_int_equal(unlinkat(dir, "out", 0), 0);
    assert_int_equal(unlinkat(dir, "up", 0), 0);
    assert_int_equal(unlinkat(dir, "sub", AT_REMOVEDIR), 0);
    close(dir);
    assert_int_equal(rmdir(base), 0);
}

static void test_patterns(void **state)
{
    (void)state;
    assert_true(stk_static_glob(STK_SPAN_LIT("*.css"), STK_SPAN_LIT("a.b.css")));
    assert_true(stk_static_glob(STK_SPAN_LIT("*"), STK_SPAN_LIT("")));
    assert_true(stk_static_glob(STK_SPAN_LIT("/a/*/c?"), STK_SPAN_LIT("/a/x/y/cd")));
    assert_false(stk_static_glob(STK_SPAN_LIT("*.css"), STK_SPAN_LIT("a.css.map")));
    assert_false(stk_static_glob(STK_SPAN_LIT("?"), STK_SPAN_LIT("")));
    assert_false(stk_static_glob(STK_SPAN_LIT(""), STK_SPAN_LIT("a")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_patterns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
