/* Dates of log lines, against libc's strftime in the C locale. */
#include "base/log_date.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/macros.h"

/* The formats of this test are its own. */
#pragma GCC diagnostic ignored "-Wformat-nonliteral"

static void assert_same(const char *format, int64_t when)
{
    char expected[128], found[128];
    time_t seconds = (time_t)when;
    struct tm tm;

    assert_non_null(localtime_r(&seconds, &tm));
    expected[strftime(expected, sizeof expected, format, &tm)] = '\0';
    assert_int_equal(stk_log_date(found, sizeof found, format, when), strlen(expected));
    assert_string_equal(found, expected);
}

static void test_conversions(void **state)
{
    static const char *const formats[] = {
        "%a %A %b %B %h",
        "%c",
        "%C %d %D %e",
        "%F %H %I",
        "%j",
        "%k %l %m %M",
        "%p %P %r %R",
        "%s %S %T",
        "%u %w",
        "%x %X %y %Y",
        "%z",
        "%Z",
        "plain 100%% text",
        "[%d/%b/%Y:%T %z]",
    };
    static const char *const zones[] = {"UTC", "Europe/Berlin", "America/St_Johns"};

    (void)state;
    for (size_t z = 0; z < STK_ARRAY_LEN(zones); z++) {
        setenv("TZ", zones[z], 1);
        tzset();
        for (size_t i = 0; i < STK_ARRAY_LEN(formats); i++)
            for (int64_t when = 0; when < INT64_C(4102444800); when += 86400 * 17 + 3607)
                assert_same(formats[i], when);
    }
}

static void test_what_stands_as_it_is(void **state)
{
    char found[64];

    (void)state;
    setenv("TZ", "UTC", 1);
    tzset();
    stk_log_date(found, sizeof found, "%Ey %n %", 0);
    assert_string_equal(found, "%Ey %n %");
    assert_int_equal(stk_log_date(found, 8, "%Y-%m-%d", 0), 7); /* what fits */
    assert_string_equal(found, "1970-01");
    assert_int_equal(stk_log_date(found, 1, "%Y", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_what_stands_as_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
