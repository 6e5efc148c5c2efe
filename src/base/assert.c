/*
 * The failing side of STK_ASSERT. It uses nothing but write(2), so that it works in any
 * state of the process: with a lock held, with a full heap, or in a signal handler.
 */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void stk_assert_fail(const char *what, const char *file, int line, const char *func)
{
    char buf[512];
    int n = snprintf(buf, sizeof buf, "stoker: %s:%d: %s: assertion failed: %s\n", file, line, func,
                     what);

    if (n > (int)sizeof buf - 1)
        n = (int)sizeof buf - 1;
    if (n > 0 && write(STDERR_FILENO, buf, (size_t)n) < 0) {
        /* Nothing is left to report a failed report to. */
    }
    abort();
}
