/*
 * Memory. Two spellings for two policies: small fixed-size objects (stk_new0 and friends)
 * never fail, they abort; whatever a peer can size goes through stk_try_alloc and
 * stk_try_realloc, whose NULL is an ordinary error of the request.
 */
#pragma once

#include <stddef.h>
#include <stdlib.h>

#include "base/macros.h"

/* Zeroed memory of `size` bytes; aborts when there is none. Free with free(). */
void *stk_mem_zalloc(size_t size) __attribute__((malloc, returns_nonnull, alloc_size(1)));
/* A copy of a string; aborts when there is no memory. Free with free(). */
char *stk_mem_strdup(const char *str) __attribute__((malloc, returns_nonnull));
/* A NUL-terminated copy of `len` bytes; aborts when there is no memory. Free with free(). */
char *stk_mem_strndup(const char *str, size_t len) __attribute__((malloc, returns_nonnull));
/* A formatted string; aborts when there is no memory. Free with free(). */
char *stk_mem_printf(const char *fmt, ...) STK_PRINTF(1, 2) __attribute__((returns_nonnull));

/* Uninitialised memory whose size a peer may choose, or NULL. Free with free(). */
void *stk_try_alloc(size_t size) STK_MUST_CHECK __attribute__((malloc, alloc_size(1)));
/* As realloc: NULL leaves the old block as it was. */
void *stk_try_realloc(void *ptr, size_t size) STK_MUST_CHECK __attribute__((alloc_size(2)));

#define stk_new0(type)          ((type *)stk_mem_zalloc(sizeof(type)))
#define stk_new0_array(type, n) ((type *)stk_mem_zalloc(sizeof(type) * (n)))

/* For STK_CLEANUP on a pointer variable that owns malloc'ed memory. */
static inline void stk_mem_freep(void *pp)
{
    free(*(void **)pp);
}
