/* Dates, held against libc's calendar, and what is not a date. */
#include "edge.h"

#include <errno.h>
#include <time.h>

#include "base/macros.h"
#include "wire/http_date.h"

static void format(char out[STK_HTTP_DATE_LEN + 1], int64_t seconds)
{
    memset(out, 0x7e, STK_HTTP_DATE_LEN + 1);
    stk_http_date_format(out, seconds);
    /* Not a byte more than promised is written. */
    assert_int_equal(out[STK_HTTP_DATE_LEN], 0x7e);
    out[STK_HTTP_DATE_LEN] = 0;
}

static void test_format(void **state)
{
    char out[STK_HTTP_DATE_LEN + 1];

    (void)state;
    format(out, 784111777);
    assert_string_equal(out, "Sun, 06 Nov 1994 08:49:37 GMT");
    format(out, 0);
    assert_string_equal(out, "Thu, 01 Jan 1970 00:00:00 GMT");
    format(out, -1);
    assert_string_equal(out, "Wed, 31 Dec 1969 23:59:59 GMT");
    format(out, 951827696);
    assert_string_equal(out, "Tue, 29 Feb 2000 12:34:56 GMT");
    format(out, INT64_MAX);
    assert_string_equal(out, "Fri, 31 Dec 9999 23:59:59 GMT");
    format(out, INT64_MIN);
    assert_string_equal(out, "Sat, 01 Jan 0000 00:00:00 GMT");
}

static void test_round_trips_agree_with_libc(void **state)
{
    (void)state;
    /* Every 11 days and some seconds from the year 1 to 9990. */
    for (int64_t t = INT64_C(-62135596800); t < INT64_C(253086000000); t += 11 * 86400 + 3671) {
        char out[STK_HTTP_DATE_LEN + 1], wanted[64];
        time_t seconds = (time_t)t;
        int64_t back = 0;
        struct tm tm;

        assert_non_null(gmtime_r(&seconds, &tm));
        format(out, t);
        (void)strftime(wanted, sizeof(wanted), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        if (tm.tm_year >= -900) /* years below 1000 are not padded by strftime */
            assert_string_equal(out, wanted);
        assert_int_equal(stk_http_date_parse(stk_span_make(out, STK_HTTP_DATE_LEN), &back), 0);
        assert_true(back == t);
    }
}

static void test_parse(void **state)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } rows[] = {
        {"Sun, 06 Nov 1994 08:49:37 GMT", 784111777},
        {"Sunday, 06-Nov-94 08:49:37 GMT", 784111777},
        {"Sun Nov  6 08:49:37 1994", 784111777},
        {"Sun Nov 16 08:49:37 1994", 784975777},
        {"Thursday, 01-Jan-70 00:00:00 GMT", 0},
        {"Wednesday, 31-Dec-69 00:00:00 GMT", INT64_C(3155673600)},
        {"Tue, 29 Feb 2000 12:34:56 GMT", 951827696},
        {"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        size_t len = strlen(rows[i].text);
        int64_t seconds = -7;

        assert_int_equal(
            stk_http_date_parse(stk_span_make(edge_before(rows[i].text, len), len), &seconds), 0);
        assert_true(seconds == rows[i].seconds);
        seconds = -7;
        for (size_t n = 0; n < len; n++)
            assert_int_equal(
                stk_http_date_parse(stk_span_make(edge_before(rows[i].text, n), n), &seconds),
                -EINVAL);
        assert_true(seconds == -7);
    }
}

static void test_not_dates(void **state)
{
    static const char *const rows[] = {
        "0",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "sun, 06 nov 1994 08:49:37 GMT",
        "Xyz, 06 Nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 0x Nov 1994 08:49:37 GMT",
        "Sun, 0/ Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 199: 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Wed, 29 Feb 1995 08:49:37 GMT",
        "Thu, 29 Feb 1900 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "Sunday Nov  6 08:49:37 1994",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov 06 08:49:37 94",
        "Sun,06 Nov 1994 08:49:37 GMT",
    };
    int64_t seconds = -7;

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        size_t len = strlen(rows[i]);

        if (stk_http_date_parse(stk_span_make(edge_before(rows[i], len), len), &seconds) != -EINVAL)
            fail_msg("accepted: %s", rows[i]);
    }
    assert_true(seconds == -7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_round_trips_agree_with_libc),
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_not_dates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
