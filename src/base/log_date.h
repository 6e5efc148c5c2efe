/* strftime for log lines: local time by base/log_clock.h, without locale and lock. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * Writes a moment to dst as the format says and ends it with a NUL. The conversions are those of
 * strftime in the C locale, without %E, %O, %G, %g, %U, %V, %W and those for white space, which
 * stand as they are. Returns the length; what does not fit is left out, from the conversion on that
 * does not.
 */
size_t stk_log_date(char *dst, size_t size, const char *format, int64_t unix_seconds);
