/*
 * Where a redirect leads: a text with $1 to $9, $host, $path, $uri, $query in it, compiled once and
 * filled for each request.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"
#include "base/span.h"

struct stk_location;

/* What the variables stand for. */
struct stk_location_values {
    const stk_span *groups; /* [10]: $0 to $9, decoded: they are escaped again */
    stk_span host;          /* as in a URL */
    stk_span path;          /* as sent */
    stk_span query;         /* as sent, without the question mark */
};

enum { STK_LOCATION_MAX = 32 * 1024 };

/*
 * `groups` is how many groups there are to refer to. NULL and a sentence in *ret_error, to be
 * freed, when the text is wrong.
 */
struct stk_location *stk_location_new(const char *text, unsigned groups, char **ret_error);
/* Accepts NULL; returns NULL. */
struct stk_location *stk_location_free(struct stk_location *location);
/*
 * Writes it to `out` of `cap` bytes; the length, or 0 when it does not fit. What comes from the
 * request never decides which host the redirect leads to, but for $host.
 */
size_t stk_location_fill(const struct stk_location *location,
                         const struct stk_location_values *values, char *out, size_t cap);
