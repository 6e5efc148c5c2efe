/* Which requests the access log is about: `access-log-only`. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/time.h"

/* What one must have to be logged; one of them is enough. All 0: every request is logged. */
struct stk_access_filter {
    unsigned classes; /* bit N: statuses N00 to N99 */
    stk_nsec slow;    /* took at least so long; 0: no matter */
    uint64_t big;     /* sent at least so many bytes of a body; 0: no matter */
};

/*
 * Adds a condition: "4xx", "slow=500ms", "big=1m". NULL, or what is wrong with it, for the user.
 */
const char *stk_access_filter_add(struct stk_access_filter *filter, const char *text);

/* Whether any condition is set. */
static inline bool stk_access_filter_is_on(const struct stk_access_filter *filter)
{
    return filter->classes != 0 || filter->slow != 0 || filter->big != 0;
}

/* Whether a request is to be logged. */
static inline bool stk_access_filter_takes(const struct stk_access_filter *filter, unsigned status,
                                           stk_nsec duration, uint64_t bytes)
{
    return (filter->classes >> (status / 100 % 10) & 1U) != 0 ||
           (filter->slow != 0 && duration >= filter->slow) ||
           (filter->big != 0 && bytes >= filter->big);
}
