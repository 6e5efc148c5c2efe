/*
 * Escaping for the access log. Nearly all values are plain, so a first pass copies sixteen bytes at
 * a time and only notes whether one of them needs an escape. If one does, or the value has to be
 * cut, a second pass does it properly, by eight bytes and around an escape one by one.
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

typedef uint8_t escape_vec __attribute__((vector_size(16)));

/* Copies sixteen bytes; returns a vector that is zero where they are plain. */
static inline escape_vec escape_copy16(char *dst, const char *src)
{
    escape_vec x;

    memcpy(&x, src, sizeof x);
    memcpy(dst, &x, sizeof x);
    return (escape_vec)(x - (uint8_t)0x20 > (uint8_t)0x5e) | (escape_vec)(x == (uint8_t)'"') |
           (escape_vec)(x == (uint8_t)'\\');
}

static inline uint64_t escape_load32(const char *src)
{
    uint32_t x;

    memcpy(&x, src, sizeof x);
    return x;
}

/* Copies 1 to 15 bytes as two pieces that may overlap. Whether all are plain. */
static inline bool escape_copy_short(char *dst, const char *src, size_t len)
{
    uint64_t x, y;

    if (len >= 8) {
        memcpy(&x, src, 8);
        memcpy(&y, src + len - 8, 8);
        memcpy(dst, &x, 8);
        memcpy(dst + len - 8, &y, 8);
        return escape_is_plain(x) && escape_is_plain(y);
    }
    if (len >= 4) {
        x = escape_load32(src);
        y = escape_load32(src + len - 4);
        memcpy(dst, src, 4);
        memcpy(dst + len - 4, src + len - 4, 4);
        return escape_is_plain(x | y << 32);
    }
    x = (unsigned char)src[0] | (uint64_t)(unsigned char)src[len / 2] << 8 |
        (uint64_t)(unsigned char)src[len - 1] << 16;
    dst[0] = src[0];
    dst[len / 2] = src[len / 2];
    dst[len - 1] = src[len - 1];
    return escape_is_plain(x | (ESCAPE_ONES * 'a') << 24);
}

/* Copies a value that fits. Whether it is all plain; if not, what was copied is of no use. */
static bool escape_copy(char *dst, const char *src, size_t len)
{
    escape_vec bad = {0};
    uint64_t words[2];

    if (len < 16)
        return len == 0 || escape_copy_short(dst, src, len);
    for (size_t i = 0; i + 16 < len; i += 16)
        bad |= escape_copy16(dst + i, src + i);
    bad |= escape_copy16(dst + len - 16, src + len - 16);
    memcpy(words, &bad, sizeof words);
    return (words[0] | words[1]) == 0;
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

    if (stk_likely(left <= (size_t)(limit - dst) && style != STK_ACCESS_WORD) &&
        stk_likely(escape_copy(dst, src, left)))
        return dst + left;
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
