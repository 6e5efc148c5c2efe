/* Wall-clock time for log lines: local time without the lock and the file look-ups of localtime. */
#pragma once

#include <stdint.h>

struct stk_log_clock {
    int year;
    unsigned month; /* 1 to 12 */
    unsigned day;   /* 1 to 31 */
    unsigned hour;
    unsigned minute;
    unsigned second;
    int offset; /* seconds east of UTC */
};

/* Seconds that local time is ahead of UTC at a moment; from any thread, about 5 ns. */
int stk_log_clock_offset(int64_t unix_seconds);
/* Local date and time of a moment. */
void stk_log_clock_local(int64_t unix_seconds, struct stk_log_clock *ret_clock);
/* "Jan" for 1 to "Dec" for 12, whatever the locale. */
const char *stk_log_clock_month(unsigned month);
