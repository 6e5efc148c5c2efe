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
    bool zero;        /* sent no byte of a body */
    bool file;        /* sent a file by sendfile */
    bool io_error;    /* the client left before the end of its body, or of the response */
};

/* What is known of a request. */
struct stk_access_facts {
    unsigned status;
    stk_nsec duration;
    uint64_t bytes;
    bool file;
    bool io_error;
};

/*
 * Adds a condition: "4xx", "slow=500ms", "big=1m". NULL, or what is wrong with it, for the user.
 */
const char *stk_access_filter_add(struct stk_access_filter *filter, const char *text);

/* Whether any condition is set. */
static inline bool stk_access_filter_is_on(const struct stk_access_filter *filter)
{
    return filter->classes != 0 || filter->slow != 0 || filter->big != 0 || filter->zero ||
           filter->file || filter->io_error;
}

/* Whether a request is to be logged. */
static inline bool stk_access_filter_takes(const struct stk_access_filter *filter,
                                           const struct stk_access_facts *facts)
{
    return (filter->classes >> (facts->status / 100 % 10) & 1U) != 0 ||
           (filter->slow != 0 && facts->duration >= filter->slow) ||
           (filter->big != 0 && facts->bytes >= filter->big) ||
           (filter->zero && facts->bytes == 0) || (filter->file && facts->file) ||
           (filter->io_error && facts->io_error);
}
