/*
 * Range. Every number is bounded while it is read: one that is too large for 64 bits is the largest
 * of these, which is beyond every file. What is not understood makes the whole field count for
 * nothing, as RFC 9110 14.2 has it, so no answer depends on a guess.
 */
#include "wire/range.h"

#include <stdbool.h>

static bool range_is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* 1*DIGIT at *p; false: there is none. */
static bool range_number(const char **p, const char *end, uint64_t *ret_value)
{
    const char *start = *p;
    uint64_t v = 0;

    for (; *p < end && **p >= '0' && **p <= '9'; (*p)++) {
        unsigned digit = (unsigned)(**p - '0');

        v = v > (UINT64_MAX - digit) / 10 ? UINT64_MAX : v * 10 + digit;
    }
    *ret_value = v;
    return *p > start;
}

/* One range at *p. False: bad syntax. `len` 0: it is not satisfiable. */
static bool range_one(const char **p, const char *end, uint64_t size, struct stk_range *ret_range)
{
    uint64_t first = 0, last = 0;
    bool has_first = range_number(p, end, &first), has_last;

    if (*p == end || **p != '-')
        return false;
    ++*p;
    has_last = range_number(p, end, &last);
    *ret_range = (struct stk_range){0};
    if (!has_first) {
        if (!has_last)
            return false;
        ret_range->len = last < size ? last : size;
        ret_range->first = size - ret_range->len;
        return true;
    }
    if (has_last && last < first)
        return false;
    if (first >= size)
        return true;
    if (!has_last || last >= size)
        last = size - 1;
    *ret_range = (struct stk_range){.first = first, .len = last - first + 1};
    return true;
}

static bool range_overlap(const struct stk_range *a, const struct stk_range *b)
{
    return a->first < b->first + b->len && b->first < a->first + a->len;
}

/* Adds a range; false: there are too many, or it overlaps another. */
static bool range_add(struct stk_range *ranges, size_t *n, const struct stk_range *range)
{
    for (size_t i = 0; i < *n; i++)
        if (range_overlap(&ranges[i], range))
            return false;
    ranges[(*n)++] = *range;
    return true;
}

enum stk_range_result stk_range_parse(stk_span value, uint64_t size,
                                      struct stk_range ret_ranges[STK_RANGE_MAX], size_t *ret_n)
{
    static const stk_span unit = STK_SPAN_LIT("bytes=");
    const char *p, *end = value.ptr + value.len;
    size_t n = 0, seen = 0;

    if (size == 0 || value.len <= unit.len ||
        !stk_span_ieq(stk_span_make(value.ptr, unit.len), unit))
        return STK_RANGE_WHOLE;
    p = value.ptr + unit.len;
    for (;;) {
        struct stk_range range;

        while (p < end && (range_is_blank(*p) || *p == ','))
            p++; /* empty members are allowed: RFC 9110 5.6.1.2 */
        if (p == end)
            break;
        if (!range_one(&p, end, size, &range) || ++seen > STK_RANGE_MAX)
            return STK_RANGE_WHOLE;
        while (p < end && range_is_blank(*p))
            p++;
        if (p < end && *p != ',')
            return STK_RANGE_WHOLE;
        if (range.len > 0 && !range_add(ret_ranges, &n, &range))
            return STK_RANGE_WHOLE;
    }
    if (seen == 0)
        return STK_RANGE_WHOLE;
    *ret_n = n;
    return n > 0 ? STK_RANGE_PARTS : STK_RANGE_UNSATISFIABLE;
}
