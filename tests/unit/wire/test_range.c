/* Ranges of bytes. */
#include "edge.h"

#include <stdio.h>

#include "base/macros.h"
#include "wire/range.h"

struct row {
    const char *value;
    uint64_t size;
    const char *wanted; /* "first+len ...", "whole" or "none" */
};

static void describe(enum stk_range_result r, const struct stk_range *ranges, size_t n, char *out,
                     size_t cap)
{
    size_t len = 0;

    if (r != STK_RANGE_PARTS) {
        (void)snprintf(out, cap, "%s", r == STK_RANGE_WHOLE ? "whole" : "none");
        return;
    }
    out[0] = '\0';
    for (size_t i = 0; i < n; i++)
        len += (size_t)snprintf(out + len, cap - len, "%s%llu+%llu", i > 0 ? " " : "",
                                (unsigned long long)ranges[i].first,
                                (unsigned long long)ranges[i].len);
}

static void test_rows(void **state)
{
    static const struct row rows[] = {
        {"bytes=0-9", 100, "0+10"},
        {"bytes=90-", 100, "90+10"},
        {"bytes=-10", 100, "90+10"},
        {"bytes=-1000", 100, "0+100"},
        {"bytes=0-1000", 100, "0+100"},
        {"bytes=99-99", 100, "99+1"},
        {"BYTES=0-0", 100, "0+1"},
        {"bytes= 0-0 , 5-6 ,-1", 100, "0+1 5+2 99+1"},
        {"bytes=,0-0,,", 100, "0+1"},
        {"bytes=50-59,0-9", 100, "50+10 0+10"},
        {"bytes=0-9,10-19", 100, "0+10 10+10"},
        {"bytes=200-300,0-0", 100, "0+1"},
        {"bytes=0-18446744073709551615", 100, "0+100"},
        {"bytes=0-99999999999999999999999", 100, "0+100"},
        {"bytes=-99999999999999999999999", 100, "0+100"},
        /* Nothing of it is there. */
        {"bytes=100-", 100, "none"},
        {"bytes=100-200,300-400", 100, "none"},
        {"bytes=-0", 100, "none"},
        {"bytes=99999999999999999999999-", 100, "none"},
        /* It does not count. */
        {"bytes=", 100, "whole"},
        {"bytes=,", 100, "whole"},
        {"bytes=-", 100, "whole"},
        {"bytes=5-4", 100, "whole"},
        {"bytes=0-9,5-4", 100, "whole"},
        {"bytes=0-9;", 100, "whole"},
        {"bytes=0 - 9", 100, "whole"},
        {"bytes=0-9 10-19", 100, "whole"},
        {"bytes=a-b", 100, "whole"},
        {"bytes=+1-2", 100, "whole"},
        {"bytes=0x0-5", 100, "whole"},
        {"bytes 0-9", 100, "whole"},
        {"items=0-9", 100, "whole"},
        {"", 100, "whole"},
        {"bytes=0-0", 0, "whole"},
        {"bytes=-1", 0, "whole"},
        /* Ranges that would send more than there is. */
        {"bytes=0-,0-", 100, "whole"},
        {"bytes=0-10,10-20", 100, "whole"},
        {"bytes=0-,-1", 100, "whole"},
        {"bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14", 100, "0+1 2+1 4+1 6+1 8+1 10+1 12+1 14+1"},
        {"bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16", 100, "whole"},
        {"bytes=200-,201-,202-,203-,204-,205-,206-,207-,208-", 100, "whole"},
        {"bytes=18446744073709551613-", UINT64_MAX, "18446744073709551613+2"},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_range ranges[STK_RANGE_MAX];
        size_t n = 0, len = strlen(rows[i].value);
        enum stk_range_result r;
        char text[512];

        r = stk_range_parse(stk_span_make(edge_before(rows[i].value, len), len), rows[i].size,
                            ranges, &n);
        describe(r, ranges, n, text, sizeof text);
        assert_string_equal(text, rows[i].wanted);
    }
}

/* Cut anywhere, a value never yields a range outside of the file, and nothing behind it is read. */
static void test_every_split(void **state)
{
    static const char value[] = "bytes=0-4, 10-19, -3, 1000-2000, 40-";

    (void)state;
    for (size_t len = 0; len < sizeof value; len++) {
        struct stk_range ranges[STK_RANGE_MAX];
        size_t n = 0;

        if (stk_range_parse(stk_span_make(edge_before(value, len), len), 50, ranges, &n) !=
            STK_RANGE_PARTS)
            continue;
        assert_in_range(n, 1, STK_RANGE_MAX);
        for (size_t i = 0; i < n; i++) {
            assert_true(ranges[i].len > 0);
            assert_true(ranges[i].first + ranges[i].len <= 50);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_every_split),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
