/* A span: a pointer and a length into bytes that somebody else owns. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

typedef struct stk_span {
    const char *ptr;
    size_t len;
} stk_span;

#define STK_SPAN_LIT(lit) ((stk_span){(lit), sizeof(lit) - 1})

static inline stk_span stk_span_make(const char *ptr, size_t len)
{
    return (stk_span){ptr, len};
}

static inline stk_span stk_span_str(const char *str)
{
    return (stk_span){str, str ? strlen(str) : 0};
}

static inline bool stk_span_eq(stk_span a, stk_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* ASCII case-insensitive comparison, whatever the locale: field names, tokens, schemes. */
static inline bool stk_span_ieq(stk_span a, stk_span b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        unsigned char x = (unsigned char)a.ptr[i], y = (unsigned char)b.ptr[i];

        if (x != y && ((x ^ y) != 0x20 || (x | 0x20) < 'a' || (x | 0x20) > 'z'))
            return false;
    }
    return true;
}
