/* The title in ps, and that the environment survives it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/title.h"

/* What ps reads, with the padding behind it. */
static void must_show(const char *title)
{
    char buf[65536] = "";
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, buf, sizeof buf - 1);

    close(fd);
    assert_true(n > 0);
    assert_string_equal(buf, title);
    for (ssize_t i = (ssize_t)strlen(buf); i < n; i++)
        assert_int_equal(buf[i], 0);
}

static void test_titles(void **state)
{
    STK_CLEANUP(stk_mem_freep) char *path = stk_mem_strdup(getenv("PATH"));
    STK_CLEANUP(stk_mem_freep) char *name = stk_mem_strdup(program_invocation_name);
    char *longest = stk_mem_zalloc(200000);

    stk_title_set("not yet"); /* nothing happens */
    stk_title_init();
    stk_title_init();
    stk_title_set_role(NULL, "worker 2", "app:app", "ready");
    must_show("stoker: worker 2 app:app [ready]");
    stk_title_set_role("site", "master", "app:app", NULL);
    must_show("site: master app:app");
    memset(longest, 'x', 199999);
    stk_title_set("%s", longest);
    stk_title_set("short");
    must_show("short");
    free(longest);
    assert_string_equal(getenv("PATH"), path);
    assert_string_equal(program_invocation_name, name);
    assert_int_equal(setenv("STK_TITLE_TEST", "1", 1), 0);
    assert_string_equal(getenv("STK_TITLE_TEST"), "1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_titles)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
