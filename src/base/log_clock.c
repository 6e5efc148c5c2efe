/*
 * Local time for log lines.
 *
 * localtime_r takes a lock (which a fork may inherit locked) and costs some 200 ns, so it is asked
 * for nothing but the offset from UTC, which changes at full quarters of an hour only. The answer
 * is kept in one atomic word together with the quarter and with libc's idea of the zone: an
 * application that calls tzset() (Django does, after reading its settings) changes the latter, and
 * the next line follows it.
 */
#include "base/log_clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

enum {
    LOG_CLOCK_QUARTER = 900,
    LOG_CLOCK_BIAS = 1 << 17, /* makes offsets and zones, within +-26 hours, positive */
    LOG_CLOCK_BITS = 18,
};

/* quarter (28 bits) | zone (18 bits) | offset (18 bits); 0: empty */
static _Atomic uint64_t log_clock_cache;

static uint64_t log_clock_biased(long seconds)
{
    return (uint64_t)(seconds + LOG_CLOCK_BIAS) & ((1U << LOG_CLOCK_BITS) - 1);
}

static uint64_t log_clock_key(int64_t unix_seconds)
{
    uint64_t quarter = (uint64_t)(unix_seconds / LOG_CLOCK_QUARTER) & ((1U << 28) - 1);

    return quarter << LOG_CLOCK_BITS | log_clock_biased(timezone);
}

int stk_log_clock_offset(int64_t unix_seconds)
{
    uint64_t cached = atomic_load_explicit(&log_clock_cache, memory_order_relaxed);
    time_t seconds = (time_t)unix_seconds;
    struct tm tm;

    if (cached != 0 && cached >> LOG_CLOCK_BITS == log_clock_key(unix_seconds))
        return (int)(cached & ((1U << LOG_CLOCK_BITS) - 1)) - LOG_CLOCK_BIAS;
    if (localtime_r(&seconds, &tm) == NULL)
        return 0;
    /* localtime_r may itself have set `timezone`, so the key is made after it. */
    cached = log_clock_key(unix_seconds) << LOG_CLOCK_BITS | log_clock_biased(tm.tm_gmtoff);
    atomic_store_explicit(&log_clock_cache, cached, memory_order_relaxed);
    return (int)tm.tm_gmtoff;
}

/* Days since 1970-01-01 to a date of the Gregorian calendar, counting in years that begin in March.
 */
static void log_clock_date(int64_t days, struct stk_log_clock *ret)
{
    int64_t shifted = days + 719468; /* since 0000-03-01 */
    int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    unsigned in_era = (unsigned)(shifted - era * 146097);
    unsigned year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    unsigned in_year = in_era - (365 * year + year / 4 - year / 100);
    unsigned month = (5 * in_year + 2) / 153; /* 0: March */

    ret->day = in_year - (153 * month + 2) / 5 + 1;
    ret->month = month < 10 ? month + 3 : month - 9;
    ret->year = (int)(era * 400) + (int)year + (ret->month <= 2);
}

void stk_log_clock_local(int64_t unix_seconds, struct stk_log_clock *ret_clock)
{
    int offset = stk_log_clock_offset(unix_seconds);
    int64_t local = unix_seconds + offset;
    int64_t days = local / 86400;
    int64_t rest = local % 86400;
    unsigned in_day;

    if (rest < 0) {
        rest += 86400;
        days--;
    }
    in_day = (unsigned)rest;
    log_clock_date(days, ret_clock);
    ret_clock->hour = in_day / 3600;
    ret_clock->minute = in_day / 60 % 60;
    ret_clock->second = in_day % 60;
    ret_clock->offset = offset;
}

const char *stk_log_clock_month(unsigned month)
{
    static const char names[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

    return month >= 1 && month <= 12 ? names[month - 1] : "???";
}
