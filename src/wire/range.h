/* Range (RFC 9110 section 14): which bytes of a representation a client wants. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

enum { STK_RANGE_MAX = 8 }; /* ranges that are answered one by one */

struct stk_range {
    uint64_t first;
    uint64_t len; /* > 0 */
};

enum stk_range_result {
    STK_RANGE_WHOLE,         /* the field does not count: 200 with all bytes */
    STK_RANGE_PARTS,         /* 206 */
    STK_RANGE_UNSATISFIABLE, /* 416 */
};

/*
 * Reads the value for a representation of `size` bytes. On PARTS the ranges, which lie within it
 * and do not overlap, are in the order in which they were asked for. Another unit, bad syntax, more
 * than STK_RANGE_MAX ranges and ranges that overlap (a way to ask for many times the size) are
 * WHOLE, which RFC 9110 14.2 allows.
 */
enum stk_range_result stk_range_parse(stk_span value, uint64_t size,
                                      struct stk_range ret_ranges[STK_RANGE_MAX], size_t *ret_n);
