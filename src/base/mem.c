/*
 * The allocators behind base/mem.h. They are thin on purpose: glibc's malloc measured as good
 * as jemalloc and mimalloc for this server, so what is left to add is the policy on failure.
 */
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

void *stk_mem_zalloc(size_t size)
{
    void *ptr = calloc(1, size ? size : 1);

    STK_ASSERT(ptr != NULL);
    return ptr;
}

char *stk_mem_strdup(const char *str)
{
    return stk_mem_strndup(str, strlen(str));
}

char *stk_mem_strndup(const char *str, size_t len)
{
    char *copy = malloc(len + 1);

    STK_ASSERT(copy != NULL);
    memcpy(copy, str, len);
    copy[len] = '\0';
    return copy;
}

char *stk_mem_printf(const char *fmt, ...)
{
    char *str = NULL;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&str, fmt, ap);
    va_end(ap);
    STK_ASSERT(n >= 0 && str != NULL);
    return str;
}

void *stk_try_alloc(size_t size)
{
    return malloc(size ? size : 1);
}

void *stk_try_realloc(void *ptr, size_t size)
{
    return realloc(ptr, size ? size : 1);
}
