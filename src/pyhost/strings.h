/* A cache of str objects by their latin-1 bytes: bounded, lossy, one comparison a lookup. */
#pragma once

#include <stdint.h>
#include <string.h>

#include "base/macros.h"
#include "base/span.h"
#include "pyhost/compat.h"

struct stk_strings;

/* `slots` is a power of two. Aborts without memory. */
struct stk_strings *stk_strings_new(size_t slots);
/* Accepts NULL. With the GIL. */
void stk_strings_free(struct stk_strings *cache);
/* A str of these bytes: a new reference, or NULL with an exception. */
PyObject *stk_strings_get(struct stk_strings *cache, stk_span text);

/* memcmp() == 0 where most texts are of a few bytes: without a call up to 32 of them. */
static inline bool stk_strings_same(const char *a, const char *b, size_t len)
{
    uint64_t x[4], y[4];

    if (len > 32)
        return memcmp(a, b, len) == 0;
    if (len < 8) {
        for (size_t i = 0; i < len; i++)
            if (a[i] != b[i])
                return false;
        return true;
    }
    /* Both ends, which overlap in the middle. */
    memcpy(&x[0], a, 8);
    memcpy(&y[0], b, 8);
    memcpy(&x[1], a + len - 8, 8);
    memcpy(&y[1], b + len - 8, 8);
    if (((x[0] ^ y[0]) | (x[1] ^ y[1])) != 0 || len <= 16)
        return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
    memcpy(&x[2], a + 8, 8);
    memcpy(&y[2], b + 8, 8);
    memcpy(&x[3], a + len - 16, 8);
    memcpy(&y[3], b + len - 16, 8);
    return ((x[2] ^ y[2]) | (x[3] ^ y[3])) == 0;
}

/* Whether a str of latin-1 characters (one byte each, as all that come from bytes) has these bytes.
 */
static inline bool stk_strings_is(PyObject *str, stk_span text)
{
    return (size_t)PyUnicode_GET_LENGTH(str) == text.len &&
           stk_strings_same((const char *)PyUnicode_1BYTE_DATA(str), text.ptr, text.len);
}
