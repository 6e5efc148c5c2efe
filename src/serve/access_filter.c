/*
 * The conditions of `access-log-only`. Times and sizes are written as those of any option, so they
 * are read by the same function, through rows that stand for them here.
 */
#include "serve/access_filter.h"

#include <string.h>

#include "config/value.h"

static bool filter_read(const char *text, enum stk_option_kind kind, int64_t *ret_number)
{
    const struct stk_option row = {
        .name = "access-log-only", .kind = kind, .min = 1, .max = INT64_MAX / STK_NSEC_PER_MSEC};
    struct stk_value value = {0};

    if (stk_value_parse(&row, text, &value) != 0)
        return false;
    *ret_number = value.number;
    return true;
}

const char *stk_access_filter_add(struct stk_access_filter *filter, const char *text)
{
    int64_t number;

    if (text[0] >= '1' && text[0] <= '5' && strcmp(text + 1, "xx") == 0) {
        filter->classes |= 1U << (text[0] - '0');
        return NULL;
    }
    if (strcmp(text, "zero") == 0 || strcmp(text, "sendfile") == 0 ||
        strcmp(text, "ioerror") == 0) {
        filter->zero |= *text == 'z';
        filter->file |= *text == 's';
        filter->io_error |= *text == 'i';
        return NULL;
    }
    if (strncmp(text, "slow=", 5) == 0) {
        if (!filter_read(text + 5, STK_OPTION_MSEC, &number))
            return "expected a duration behind slow=, as slow=500ms";
        filter->slow = number * STK_NSEC_PER_MSEC;
        return NULL;
    }
    if (strncmp(text, "big=", 4) == 0) {
        if (!filter_read(text + 4, STK_OPTION_SIZE, &number))
            return "expected a size behind big=, as big=1m";
        filter->big = (uint64_t)number;
        return NULL;
    }
    return "expected 4xx, 5xx or another class of statuses, slow=TIME, big=SIZE, zero, sendfile or "
           "ioerror";
}
