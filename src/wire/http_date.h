/* Dates of HTTP (RFC 9110 section 5.6.7). */
#pragma once

#include <stdint.h>

#include "base/span.h"

enum { STK_HTTP_DATE_LEN = 29 };

/* "Sun, 06 Nov 1994 08:49:37 GMT" into out[29], not NUL-terminated; independent of the locale. */
void stk_http_date_format(char out[STK_HTTP_DATE_LEN], int64_t unix_seconds);
/* Parses any of the three formats; 0 and *ret_seconds, or -EINVAL. */
int stk_http_date_parse(stk_span text, int64_t *ret_seconds);
