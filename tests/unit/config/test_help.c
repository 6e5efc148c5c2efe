/* --help fits a screen and names what it should; the documentation names everything. */
#include "config/help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "config/options.h"

static size_t count_lines(const char *text, size_t *ret_widest)
{
    size_t lines = 0;

    *ret_widest = 0;
    while (*text) {
        size_t len = strcspn(text, "\n");

        if (len > *ret_widest)
            *ret_widest = len;
        assert_int_equal(text[len], '\n');
        assert_true(len == 0 || text[len - 1] != ' ');
        text += len + 1;
        lines++;
    }
    return lines;
}

static void test_short_help_is_one_screen(void **state)
{
    char *text = stk_help_text(false);
    const struct stk_option *rows = stk_options_rows();
    size_t widest = 0;

    assert_in_range(count_lines(text, &widest), 15, 40);
    assert_true(widest < 80);
    for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
        STK_CLEANUP(stk_mem_freep) char *name = stk_mem_printf("--%s ", rows[i].name);

        if (rows[i].common && !rows[i].positional)
            assert_non_null(strstr(text, name));
    }
    assert_null(strstr(text, "--body-timeout"));
    assert_non_null(strstr(text, ": status, top, ping, reload,"));
    assert_non_null(strstr(text, " curl, gunicorn, convert, explain\n"));
    free(text);
}

static void test_whole_help_has_every_option(void **state)
{
    char *text = stk_help_text(true);
    const struct stk_option *rows = stk_options_rows();
    size_t widest = 0;

    assert_true(count_lines(text, &widest) > 60);
    assert_true(widest < 80);
    for (size_t i = 0; i < STK_OPTION_COUNT; i++)
        assert_non_null(strstr(text, rows[i].name));
    assert_non_null(strstr(text, "--no-takeover"));
    assert_non_null(strstr(text, "[75s]"));
    free(text);
}

static void test_markdown_has_every_option(void **state)
{
    char *text = stk_help_markdown();
    const struct stk_option *rows = stk_options_rows();

    for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
        STK_CLEANUP(stk_mem_freep)
        char *heading = stk_mem_printf("\n### `%s`\n%s.\n", rows[i].name, rows[i].help);

        assert_non_null(strstr(text, heading));
    }
    assert_non_null(strstr(text, "`STOKER_MAX_CONNECTIONS`"));
    assert_non_null(strstr(text, "`STOKER_WORKERS`, or `WEB_CONCURRENCY`"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_help_is_one_screen),
        cmocka_unit_test(test_whole_help_has_every_option),
        cmocka_unit_test(test_markdown_has_every_option),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
