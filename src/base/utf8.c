/*
 * UTF-8 in pieces. Most text is ASCII, which is skipped 32 bytes at a time; of other characters the
 * first byte tells how many follow and what the second may be (RFC 3629 section 4), so that a wrong
 * character is found at its first wrong byte, wherever the pieces end.
 */
#include "base/utf8.h"

#include <string.h>

static uint64_t utf8_load(const unsigned char *p)
{
    uint64_t x;

    memcpy(&x, p, sizeof(x));
    return x;
}

static const unsigned char *utf8_skip_ascii(const unsigned char *p, const unsigned char *end)
{
    const uint64_t high = 0x8080808080808080;

    for (; end - p >= 32; p += 32)
        if ((utf8_load(p) | utf8_load(p + 8) | utf8_load(p + 16) | utf8_load(p + 24)) & high)
            break;
    for (; end - p >= 8; p += 8)
        if (utf8_load(p) & high)
            break;
    while (p < end && *p < 0x80)
        p++;
    return p;
}

/* The first byte of a character of more than one; false: it is none. */
static bool utf8_begin(struct stk_utf8 *u, unsigned char c)
{
    if (c < 0xc2 || c > 0xf4)
        return false;
    u->need = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    u->low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    u->high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return true;
}

bool stk_utf8_feed(struct stk_utf8 *u, const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + len;

    for (;;) {
        for (; u->need > 0 && p < end; p++, u->need--) {
            if (*p < u->low || *p > u->high)
                return false;
            u->low = 0x80;
            u->high = 0xbf;
        }
        if (p < end && *p < 0x80)
            p = utf8_skip_ascii(p, end);
        if (p == end)
            return true;
        if (!utf8_begin(u, *p++))
            return false;
    }
}
