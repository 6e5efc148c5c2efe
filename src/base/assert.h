/*
 * Assertions, which stay on in production: a broken invariant ends the worker with one line
 * that names it, instead of serving wrong answers.
 */
#pragma once

#include "base/macros.h"

/* Writes "file:line: function: assertion failed: what" to standard error and aborts. */
STK_NORETURN STK_COLD void stk_assert_fail(const char *what, const char *file, int line,
                                           const char *func);

#define STK_ASSERT(cond)                                          \
    do {                                                          \
        if (stk_unlikely(!(cond)))                                \
            stk_assert_fail(#cond, __FILE__, __LINE__, __func__); \
    } while (0)

/* Checks the tag that every long-lived heap object carries as its first member `magic`. */
#define STK_CHECK_MAGIC(obj, tag) STK_ASSERT((obj) != NULL && (obj)->magic == (tag))
