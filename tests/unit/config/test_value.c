/* Every kind of value: what is taken, what is refused, what the refusal says, and the way back. */
#include "config/value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct stk_option row_int = {
    .name = "n", .kind = STK_OPTION_INT, .min = 1, .max = 1024};
static const struct stk_option row_auto = {
    .name = "n", .kind = STK_OPTION_INT, .min = 2, .max = 9, .zero = "auto"};
static const struct stk_option row_size = {
    .name = "s", .kind = STK_OPTION_SIZE, .min = 0, .max = INT64_MAX};
static const struct stk_option row_msec = {
    .name = "t", .kind = STK_OPTION_MSEC, .min = 1, .max = 86400000};
static const struct stk_option row_bool = {.name = "b", .kind = STK_OPTION_BOOL};
static const struct stk_option row_switch = {
    .name = "b", .kind = STK_OPTION_SWITCH, .choices = "buffer,stream"};
static const struct stk_option row_enum = {
    .name = "e", .kind = STK_OPTION_ENUM, .choices = "red,green,blue"};
static const struct stk_option row_mode = {.name = "m", .kind = STK_OPTION_MODE};
static const struct stk_option row_umask = {.name = "u", .kind = STK_OPTION_UMASK};
static const struct stk_option row_string = {.name = "x", .kind = STK_OPTION_STRING};
static const struct stk_option row_empty = {.name = "x", .kind = STK_OPTION_STRING, .empty = true};
static const struct stk_option row_vars = {.name = "v", .kind = STK_OPTION_VARS};
static const struct stk_option row_nets = {.name = "a", .kind = STK_OPTION_NETS};

static void takes(const struct stk_option *opt, const char *text, int64_t number)
{
    struct stk_value value = {-77, NULL};

    if (stk_value_parse(opt, text, &value) != 0 || value.number != number)
        fail_msg("'%s' is not %lld", text, (long long)number);
    assert_null(value.text);
}

static void takes_text(const struct stk_option *opt, const char *text)
{
    struct stk_value value = {0};

    if (stk_value_parse(opt, text, &value) != 0)
        fail_msg("'%s' was refused", text);
    assert_string_equal(value.text, text);
    free(value.text);
}

static void refuses(const struct stk_option *opt, const char *text)
{
    struct stk_value value = {-77, NULL};

    if (stk_value_parse(opt, text, &value) != STK_VALUE_E_INVALID)
        fail_msg("'%s' was taken", text);
    assert_int_equal(value.number, -77);
    assert_null(value.text);
}

static void expects(const struct stk_option *opt, const char *text)
{
    char *expected = stk_value_expected(opt);

    assert_string_equal(expected, text);
    free(expected);
}

static void prints(const struct stk_option *opt, int64_t number, const char *text)
{
    char *printed = stk_value_format(opt, number);

    assert_string_equal(printed, text);
    if (*text)
        takes(opt, printed, number);
    free(printed);
}

static void test_int(void **state)
{
    takes(&row_int, "1", 1);
    takes(&row_int, "0012", 12);
    takes(&row_int, " 7\t", 7);
    takes(&row_int, "4.0", 4);
    takes(&row_int, "1024", 1024);
    refuses(&row_int, "");
    refuses(&row_int, " ");
    refuses(&row_int, "0");
    refuses(&row_int, "1025");
    refuses(&row_int, "-1");
    refuses(&row_int, "+1");
    refuses(&row_int, "0x10");
    refuses(&row_int, "1e2");
    refuses(&row_int, "4.5");
    refuses(&row_int, "4.");
    refuses(&row_int, ".5");
    refuses(&row_int, "1 2");
    refuses(&row_int, "4k");
    refuses(&row_int, "auto");
    refuses(&row_int, "9223372036854775808");
    refuses(&row_int, "18446744073709551617");
    expects(&row_int, "a whole number from 1 to 1024");
    prints(&row_int, 42, "42");
}

static void test_zero_word(void **state)
{
    takes(&row_auto, "auto", 0);
    takes(&row_auto, "AUTO", 0);
    refuses(&row_auto, "0"); /* none is not what is meant by it */
    takes(&row_auto, "2", 2);
    refuses(&row_auto, "1");
    refuses(&row_auto, "10");
    expects(&row_auto, "a whole number from 2 to 9, or 'auto'");
    prints(&row_auto, 0, "auto");
}

static void test_size(void **state)
{
    takes(&row_size, "0", 0);
    takes(&row_size, "4096", 4096);
    takes(&row_size, "4k", 4096);
    takes(&row_size, "4K", 4096);
    takes(&row_size, "4 KiB", 4096);
    takes(&row_size, "1.5k", 1536);
    takes(&row_size, "10m", 10 << 20);
    takes(&row_size, "10MB", 10 << 20);
    takes(&row_size, "2g", INT64_C(2) << 30);
    takes(&row_size, "9223372036854775807", INT64_MAX);
    refuses(&row_size, "9223372036854775808");
    refuses(&row_size, "9007199254740992k");
    refuses(&row_size, "8589934592g");
    refuses(&row_size, "0.1k");
    refuses(&row_size, "4 k b");
    refuses(&row_size, "4t");
    refuses(&row_size, "k");
    refuses(&row_size, "-1k");
    refuses(&row_size, "1.00000000000000000001k");
    expects(&row_size, "a size of at least 0 (as 4096, 64k, 10m, 1g)");
    prints(&row_size, 0, "0");
    prints(&row_size, 1000, "1000");
    prints(&row_size, 1024, "1k");
    prints(&row_size, 32768, "32k");
    prints(&row_size, 1 << 20, "1m");
    prints(&row_size, (1 << 20) + 1024, "1025k");
    prints(&row_size, INT64_C(3) << 30, "3g");
}

static void test_msec(void **state)
{
    takes(&row_msec, "10", 10000);
    takes(&row_msec, "10s", 10000);
    takes(&row_msec, "10 s", 10000);
    takes(&row_msec, "500ms", 500);
    takes(&row_msec, "2m", 120000);
    takes(&row_msec, "1h", 3600000);
    takes(&row_msec, "1d", 86400000);
    takes(&row_msec, "0.5", 500);
    takes(&row_msec, "2.25s", 2250);
    takes(&row_msec, "0.001", 1);
    refuses(&row_msec, "0");
    refuses(&row_msec, "0.0001");
    refuses(&row_msec, "0.5ms");
    refuses(&row_msec, "86401");
    refuses(&row_msec, "ten");
    refuses(&row_msec, "10 seconds");
    refuses(&row_msec, "-10s");
    refuses(&row_msec, "9223372036854775807h");
    expects(&row_msec, "a duration from 1ms to 24h (as 10, 10s, 500ms, 2m)");
    prints(&row_msec, 75000, "75s");
    prints(&row_msec, 120000, "2m");
    prints(&row_msec, 1500, "1500ms");
    prints(&row_msec, 3600000, "1h");
}

static void test_bool(void **state)
{
    static const char *const yes[] = {"true", "yes", "on", "1", "True", "YES"};
    static const char *const no[] = {"false", "no", "off", "0", "False"};
    static const char *const bad[] = {"", "2", "y", "t", "truee", "enabled"};

    for (size_t i = 0; i < STK_ARRAY_LEN(yes); i++)
        takes(&row_bool, yes[i], 1);
    for (size_t i = 0; i < STK_ARRAY_LEN(no); i++)
        takes(&row_bool, no[i], 0);
    for (size_t i = 0; i < STK_ARRAY_LEN(bad); i++)
        refuses(&row_bool, bad[i]);
    expects(&row_bool, "true or false");
    prints(&row_bool, 1, "true");
    prints(&row_bool, 0, "false");
}

static void test_choices(void **state)
{
    takes(&row_enum, "red", 0);
    takes(&row_enum, "Blue", 2);
    refuses(&row_enum, "redd");
    refuses(&row_enum, "re");
    refuses(&row_enum, "red,green");
    refuses(&row_enum, "");
    expects(&row_enum, "red, green or blue");
    prints(&row_enum, 1, "green");
    takes(&row_switch, "stream", 1);
    takes(&row_switch, "buffer", 0);
    refuses(&row_switch, "true");
    expects(&row_switch, "buffer or stream");
    prints(&row_switch, 1, "stream");
}

static void test_octal(void **state)
{
    takes(&row_mode, "660", 0660);
    takes(&row_mode, "0660", 0660);
    takes(&row_mode, "0o660", 0660);
    takes(&row_mode, "0", 0);
    takes(&row_mode, "777", 0777);
    refuses(&row_mode, "");
    refuses(&row_mode, "0o");
    refuses(&row_mode, "888");
    refuses(&row_mode, "1777");
    refuses(&row_mode, "-660");
    refuses(&row_mode, "rw");
    expects(&row_mode, "octal permissions from 0 to 777");
    prints(&row_mode, 0660, "660");
    prints(&row_mode, 07, "007");
    prints(&row_mode, -1, "");
    takes_text(&row_umask, "027");
    refuses(&row_umask, "9");
    refuses(&row_umask, "");
}

static void test_text(void **state)
{
    takes_text(&row_string, " a b ");
    refuses(&row_string, "");
    takes_text(&row_empty, "");
    expects(&row_string, "a text that is not empty");
}

static void test_vars(void **state)
{
    takes_text(&row_vars, "A=1");
    takes_text(&row_vars, "A=");
    takes_text(&row_vars, "A=b=c d");
    refuses(&row_vars, "A");
    refuses(&row_vars, "=1");
    refuses(&row_vars, "");
    refuses(&row_vars, "A B=1");
    expects(&row_vars, "NAME=value");
}

static void test_nets(void **state)
{
    static const char *const good[] = {"127.0.0.1",     "10.0.0.0/8", "0.0.0.0/0", "::1",
                                       "2001:db8::/32", "::/128",     "unix",      "*"};
    static const char *const bad[] = {
        "",
        "localhost",
        "10.0.0",
        "10.0.0.0/33",
        "10.0.0.0/",
        "::1/129",
        "10.0.0.0/-1",
        "10.0.0.0/8/8",
        "**",
        "Unix",
        "[::1]",
        "/8",
        "10.0.0.0/8.0.0",
        "1111111111111111111111111111111111111111111111111111111111111111111111/8",
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(good); i++)
        takes_text(&row_nets, good[i]);
    for (size_t i = 0; i < STK_ARRAY_LEN(bad); i++)
        refuses(&row_nets, bad[i]);
    expects(&row_nets, "an address, a network as 10.0.0.0/8, 'unix' or '*'");
}

/* The default of each row is a value of that row, and printing gives it back. */
static void test_defaults_are_values(void **state)
{
    const struct stk_option *rows = stk_options_rows();

    for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
        struct stk_value value = {0};
        char *expected = stk_value_expected(&rows[i]);

        assert_true(*expected);
        free(expected);
        if (!rows[i].def || stk_options_is_list(&rows[i]))
            continue;
        assert_int_equal(stk_value_parse(&rows[i], rows[i].def, &value), 0);
        if (!value.text) {
            char *printed = stk_value_format(&rows[i], value.number);
            struct stk_value again = {0};

            assert_int_equal(stk_value_parse(&rows[i], printed, &again), 0);
            assert_int_equal(again.number, value.number);
            free(printed);
        }
        free(value.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_int),
        cmocka_unit_test(test_zero_word),
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_msec),
        cmocka_unit_test(test_bool),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_octal),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_vars),
        cmocka_unit_test(test_nets),
        cmocka_unit_test(test_defaults_are_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
