/* A cache of str objects by their latin-1 bytes: bounded, lossy, one comparison a lookup. */
#pragma once

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

/* Whether a str of latin-1 characters (one byte each, as all that come from bytes) has these bytes.
 */
static inline bool stk_strings_is(PyObject *str, stk_span text)
{
    return (size_t)PyUnicode_GET_LENGTH(str) == text.len &&
           (text.len == 0 || memcmp(PyUnicode_1BYTE_DATA(str), text.ptr, text.len) == 0);
}
