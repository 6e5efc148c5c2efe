/* UTF-8 (RFC 3629): which bytes a log may show as they are, and whether a text in pieces is valid.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The length (2 to 4) of the valid multi-byte character at the start of `text`, or 0: ASCII, an
 * overlong form, a surrogate, beyond U+10FFFF, cut off, or one of the controls U+0080 to U+009F.
 */
static inline size_t stk_utf8_wide_len(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t n;

    if (len < 2 || p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (len < n)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xc2 && p[1] < 0xa0) || (p[0] == 0xe0 && p[1] < 0xa0) ||
        (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

/* A text that comes in pieces, so far. All zero: nothing has come. */
struct stk_utf8 {
    uint8_t need;      /* bytes that the last character wants still */
    uint8_t low, high; /* what the next of them may be */
};

/*
 * Whether the text is still valid with these bytes behind it: no overlong form, no surrogate,
 * nothing beyond U+10FFFF, each judged at the first byte that makes it wrong. After false the state
 * is of no use.
 */
bool stk_utf8_feed(struct stk_utf8 *u, const char *text, size_t len);
/* Whether the text may end here, not within a character. */
static inline bool stk_utf8_is_whole(const struct stk_utf8 *u)
{
    return u->need == 0;
}
