/*
 * Escaping for the access log. Nearly all values are nearly all plain, so eight bytes are examined
 * and copied at a time; only around a byte that needs an escape it goes one by one.
 */
#include "serve/access_escape.h"

#include <stdbool.h>
#include <stdint.h>

#include "base/utf8.h"

#define ESCAPE_ONES UINT64_C(0x0101010101010101)
#define ESCAPE_TOPS UINT64_C(0x8080808080808080)

/* Has the top bit of some byte set if, and only if, a byte of x (all below 0x80) equals c. */
static inline uint64_t escape_has(uint64_t x, unsigned c)
{
    x ^= ESCAPE_ONES * c;
    return (x - ESCAPE_ONES) & ~x & ESCAPE_TOPS;
}

/* Whether each of eight bytes stands for itself in every style but WORD. */
static inline bool escape_is_plain(uint64_t x)
{
    uint64_t control = (x - ESCAPE_ONES * 0x20) & ~x & ESCAPE_TOPS;

    return ((x & ESCAPE_TOPS) | control | escape_has(x, '"') | escape_has(x, '\\') |
            escape_has(x, 0x7f)) == 0;
}

/* One character, as it is to be shown: at most 6 bytes. *ret_taken: how many bytes it was. */
static size_t escape_one(const char *src, size_t len, enum stk_access_style style, char out[6],
                         size_t *ret_taken)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char c = (unsigned char)src[0];
    size_t n = 0;

    *ret_taken = 1;
    if (c == '"' || c == '\\') {
        out[0] = '\\';
        out[1] = (char)c;
        return 2;
    }
    if (c >= 0x20 && c < 0x7f && (c != ' ' || style != STK_ACCESS_WORD)) {
        out[0] = (char)c;
        return 1;
    }
    if (style == STK_ACCESS_JSON) {
        size_t wide = stk_utf8_wide_len(src, len);

        if (wide > 0) {
            memcpy(out, src, wide);
            *ret_taken = wide;
            return wide;
        }
        memcpy(out, "\\u00", 4);
        n = 4;
    } else {
        memcpy(out, "\\x", 2);
        n = 2;
    }
    out[n] = hex[c >> 4];
    out[n + 1] = hex[c & 15];
    return n + 2;
}

char *stk_access_escape(char *dst, char *limit, stk_span value, enum stk_access_style style)
{
    const char *src = value.ptr;
    size_t left = value.len;
    char *mark = dst; /* the last end of a character that leaves room for "..." */

    while (left > 0) {
        char out[6];
        size_t taken, n;

        if (left >= 8 && limit - dst >= 8 + 3 && style != STK_ACCESS_WORD) {
            uint64_t x;

            memcpy(&x, src, 8);
            if (stk_likely(escape_is_plain(x))) {
                memcpy(dst, &x, 8);
                dst += 8;
                src += 8;
                left -= 8;
                mark = dst;
                continue;
            }
        }
        n = escape_one(src, left, style, out, &taken);
        if (n > (size_t)(limit - dst)) {
            memcpy(mark, "...", 3);
            return mark + 3;
        }
        memcpy(dst, out, n);
        dst += n;
        src += taken;
        left -= taken;
        if (limit - dst >= 3)
            mark = dst;
    }
    return dst;
}
