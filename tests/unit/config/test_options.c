/*
 * The table: every row is whole, every field of the configuration has one, names are unique and
 * found by every spelling, and a misspelt name finds the one that was meant.
 */
#include "config/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "config/value.h"

static void test_rows_are_whole(void **state)
{
    const struct stk_option *rows = stk_options_rows();

    for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
        const struct stk_option *opt = &rows[i];

        assert_non_null(opt->name);
        assert_non_null(opt->help);
        assert_in_range(strlen(opt->help), 10, 90);
        assert_int_not_equal(opt->help[strlen(opt->help) - 1], '.');
        if (stk_options_takes_value(opt) && opt->kind != STK_OPTION_COMMAND)
            assert_non_null(opt->metavar);
        if (opt->kind == STK_OPTION_ENUM || opt->kind == STK_OPTION_SWITCH)
            assert_non_null(opt->choices);
        if (opt->kind == STK_OPTION_INT || opt->kind == STK_OPTION_SIZE ||
            opt->kind == STK_OPTION_MSEC) {
            assert_non_null(opt->def);
            assert_true(opt->min < opt->max);
            assert_true(opt->min >= 0);
        }
        if (opt->kind == STK_OPTION_NETS)
            assert_non_null(opt->separators);
    }
}

static size_t field_size(const struct stk_option *opt)
{
    switch ((int)opt->kind) {
    case STK_OPTION_COMMAND:
        return 0;
    case STK_OPTION_BOOL:
    case STK_OPTION_SWITCH:
        return sizeof(bool);
    case STK_OPTION_STRINGS:
    case STK_OPTION_VARS:
    case STK_OPTION_NETS:
        return sizeof(struct stk_strv);
    default:
        return sizeof(int64_t);
    }
}

/* Marks the bytes of each row's field: what stays unmarked can only be padding. */
static void test_every_field_has_a_row(void **state)
{
    unsigned char owner[sizeof(struct stk_config)] = {0};
    const struct stk_option *rows = stk_options_rows();
    size_t gap = 0;

    for (size_t i = 0; i < STK_OPTION_COUNT; i++)
        for (size_t b = 0; b < field_size(&rows[i]); b++) {
            assert_int_equal(owner[rows[i].offset + b], 0);
            owner[rows[i].offset + b] = 1;
        }
    /* What is no option, and is noted beside them. */
    memset(owner + offsetof(struct stk_config, cwd), 1, sizeof(char *));
    for (size_t b = 0; b < sizeof(owner); b++) {
        gap = owner[b] ? 0 : gap + 1;
        assert_true(gap < 8);
    }
}

static void test_names_are_unique(void **state)
{
    const struct stk_option *rows = stk_options_rows();

    for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
        const char *pos = rows[i].aliases, *word;
        size_t len = 0;

        assert_ptr_equal(stk_options_find(rows[i].name, strlen(rows[i].name)), &rows[i]);
        while ((word = stk_options_next_word(&pos, &len)))
            assert_ptr_equal(stk_options_find(word, len), &rows[i]);
        if (rows[i].short_name)
            assert_ptr_equal(stk_options_find_short(rows[i].short_name), &rows[i]);
    }
}

static void test_spellings(void **state)
{
    const struct stk_option *rows = stk_options_rows();

    assert_ptr_equal(stk_options_find("max_connections", 15), &rows[STK_OPTION_ID_MAX_CONNECTIONS]);
    assert_ptr_equal(stk_options_find("processes", 9), &rows[STK_OPTION_ID_WORKERS]);
    assert_ptr_equal(stk_options_find("listen", 6), &rows[STK_OPTION_ID_BACKLOG]);
    assert_null(stk_options_find("Workers", 7));
    assert_null(stk_options_find("worker", 6));
    assert_null(stk_options_find("", 0));
    assert_null(stk_options_find_short('z'));
    assert_null(stk_options_find_short('\0'));
}

static void test_distance(void **state)
{
    assert_int_equal(stk_options_distance("", ""), 0);
    assert_int_equal(stk_options_distance("", "abc"), 3);
    assert_int_equal(stk_options_distance("abc", ""), 3);
    assert_int_equal(stk_options_distance("workers", "workers"), 0);
    assert_int_equal(stk_options_distance("wokers", "workers"), 1);
    assert_int_equal(stk_options_distance("wrokers", "workers"), 1);
    assert_int_equal(stk_options_distance("kitten", "sitting"), 3);
    assert_int_equal(stk_options_distance("a_b", "a-b"), 0);
    assert_int_equal(stk_options_distance("a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
                     SIZE_MAX);
}

static void test_suggestions(void **state)
{
    static const char *const pairs[][2] = {
        {"wokers", "workers"},         {"worker", "workers"},
        {"thread", "threads"},         {"bnid", "bind"},
        {"acess-log", "access-log"},   {"limit_post_", "limit-post"},
        {"python_pth", "python-path"},
    };
    char near[80];

    for (size_t i = 0; i < STK_ARRAY_LEN(pairs); i++) {
        assert_true(stk_options_suggest(pairs[i][0], near, sizeof(near)));
        assert_string_equal(near, pairs[i][1]);
    }
    strcpy(near, "untouched");
    assert_false(stk_options_suggest("enable-everything", near, sizeof(near)));
    assert_false(stk_options_suggest("", near, sizeof(near)));
    assert_false(stk_options_suggest("x", near, sizeof(near)));
    assert_false(stk_options_suggest("wokers", near, 3));
    assert_string_equal(near, "untouched");
}

static void test_hints(void **state)
{
    const struct stk_option *rows = stk_options_rows();
    char near[80];

    assert_true(stk_options_suggest("reload", near, sizeof(near)));
    assert_string_equal(near, "autoreload");
    assert_true(stk_options_suggest("http_socket", near, sizeof(near)));
    assert_string_equal(near, "bind");
    for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
        const char *pos = rows[i].hints, *word;
        size_t len = 0;

        while ((word = stk_options_next_word(&pos, &len)))
            assert_null(stk_options_find(word, len));
    }
}

static void test_log_levels_are_those_of_the_log(void **state)
{
    const struct stk_option *opt = &stk_options_rows()[STK_OPTION_ID_LOG_LEVEL];

    for (int level = STK_LOG_DEBUG; level <= STK_LOG_CRITICAL; level++) {
        struct stk_value value;

        assert_int_equal(
            stk_value_parse(opt, stk_log_level_name((enum stk_log_level)level), &value), 0);
        assert_int_equal(value.number, level);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_whole),
        cmocka_unit_test(test_every_field_has_a_row),
        cmocka_unit_test(test_names_are_unique),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_distance),
        cmocka_unit_test(test_suggestions),
        cmocka_unit_test(test_hints),
        cmocka_unit_test(test_log_levels_are_those_of_the_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
