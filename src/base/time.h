/* Clocks and units. Durations carry their unit in the type's name. */
#pragma once

#include <stdint.h>
#include <time.h>

typedef int64_t stk_msec; /* milliseconds: a duration, or a point of the monotonic clock */
typedef int64_t stk_nsec; /* nanoseconds: likewise */

#define STK_NSEC_PER_MSEC INT64_C(1000000)
#define STK_NSEC_PER_USEC INT64_C(1000)
#define STK_NSEC_PER_SEC  INT64_C(1000000000)

/* The monotonic clock; about 20 ns by the vDSO. */
static inline stk_nsec stk_time_mono_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (stk_nsec)ts.tv_sec * STK_NSEC_PER_SEC + ts.tv_nsec;
}

/* The monotonic clock as of the last kernel tick (1-4 ms old); about 5 ns. */
static inline stk_msec stk_time_mono_coarse_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (stk_msec)ts.tv_sec * 1000 + ts.tv_nsec / STK_NSEC_PER_MSEC;
}
