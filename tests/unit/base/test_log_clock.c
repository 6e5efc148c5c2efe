/* Local time, against libc's. */
#include "base/log_clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/macros.h"

static void assert_same(int64_t when)
{
    struct stk_log_clock clock;
    time_t seconds = (time_t)when;
    struct tm tm;

    assert_non_null(localtime_r(&seconds, &tm));
    stk_log_clock_local(when, &clock);
    assert_int_equal(clock.year, tm.tm_year + 1900);
    assert_int_equal(clock.month, tm.tm_mon + 1);
    assert_int_equal(clock.day, tm.tm_mday);
    assert_int_equal(clock.hour, tm.tm_hour);
    assert_int_equal(clock.minute, tm.tm_min);
    assert_int_equal(clock.second, tm.tm_sec);
    assert_int_equal(clock.offset, tm.tm_gmtoff);
}

static void test_zones(void **state)
{
    static const char *const zones[] = {
        "UTC",
        "Europe/Berlin",
        "America/St_Johns",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "CET-1CEST,M3.5.0,M10.5.0/3",
        "XXX+12",
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(zones); i++) {
        setenv("TZ", zones[i], 1);
        tzset();
        for (int64_t when = 0; when < INT64_C(4102444800); when += 86400 * 3 + 3607)
            assert_same(when);
        assert_same(951782399); /* leap days */
        assert_same(951782400);
        assert_same(4107542399);
        for (int64_t when = 1792890000 - 3600; when < 1792890000 + 3600; when += 1)
            assert_same(when); /* the end of summer time 2026 in Europe */
    }
}

/* An application sets its zone: the next line follows. */
static void test_zone_changes(void **state)
{
    const int64_t when = 1795400000;

    (void)state;
    setenv("TZ", "XXX-1", 1);
    tzset();
    assert_int_equal(stk_log_clock_offset(when), 3600);
    setenv("TZ", "XXX+5", 1);
    tzset();
    assert_int_equal(stk_log_clock_offset(when), -5 * 3600);
}

static void test_months(void **state)
{
    (void)state;
    assert_string_equal(stk_log_clock_month(1), "Jan");
    assert_string_equal(stk_log_clock_month(12), "Dec");
    assert_string_equal(stk_log_clock_month(13), "???");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zones),
        cmocka_unit_test(test_zone_changes),
        cmocka_unit_test(test_months),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
