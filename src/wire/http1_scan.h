/*
 * The inner loops of the HTTP/1 parser: character classes, scanning, hashing and recognising of
 * names. Private to http1.c, which includes it once; a file of its own to keep both readable.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__) && defined(__x86_64__) && !defined(STK_HTTP1_PORTABLE)
#    include <emmintrin.h>
#    define H1_SSE2 1
#endif

#include "base/macros.h"
#include "wire/head.h"

#define H1_HASH_SEED UINT64_C(0x9e3779b97f4a7c15)
#define H1_HASH_LOW  UINT64_C(0xd6e8feb86659fd93)
#define H1_HASH_HIGH UINT64_C(0xa0761d6478bd642f)

/* Token characters but "_", folded to lower case; 0 for all others. */
#define S(c) [c] = (c)
#define L(c) [c] = (c), [(c)-0x20] = (c)
static const unsigned char h1_lower[256] = {
    S('!'), S('#'), S('$'), S('%'), S('&'), S('\''), S('*'), S('+'), S('-'), S('.'),
    S('^'), S('`'), S('|'), S('~'), S('0'), S('1'),  S('2'), S('3'), S('4'), S('5'),
    S('6'), S('7'), S('8'), S('9'), L('a'), L('b'),  L('c'), L('d'), L('e'), L('f'),
    L('g'), L('h'), L('i'), L('j'), L('k'), L('l'),  L('m'), L('n'), L('o'), L('p'),
    L('q'), L('r'), L('s'), L('t'), L('u'), L('v'),  L('w'), L('x'), L('y'), L('z'),
};
#undef S
#undef L

/* Characters of a field value: tab, space, visible and obs-text (RFC 9110 5.5). */
static const bool h1_value[256] = {
    ['\t'] = true,
    [0x20 ... 0x7e] = true,
    [0x80 ... 0xff] = true,
};

enum { H1_T_END, H1_T_PLAIN, H1_T_QUERY, H1_T_ESCAPE };

/* Characters of a target: neither control, space nor "#"; bytes over 0x7f are raw UTF-8. */
static const unsigned char h1_target[256] = {
    [0x21 ... 0x22] = H1_T_PLAIN, [0x24] = H1_T_PLAIN, ['%'] = H1_T_ESCAPE,
    [0x26 ... 0x3e] = H1_T_PLAIN, ['?'] = H1_T_QUERY,  [0x40 ... 0x7e] = H1_T_PLAIN,
    [0x80 ... 0xff] = H1_T_PLAIN,
};

static inline unsigned char h1_byte(const char *p)
{
    return (unsigned char)*p;
}

static inline uint64_t h1_load64(const char *p)
{
    uint64_t w;

    memcpy(&w, p, sizeof(w));
    return w;
}

static inline uint32_t h1_load32(const char *p)
{
    uint32_t w;

    memcpy(&w, p, sizeof(w));
    return w;
}

/*
 * Whether [p, p + len), which has no control characters, is `name` in any case. A name is of at
 * least 4 lower-case letters, digits and "-": onto these only the letters' upper case folds.
 */
static inline bool h1_name_is(const char *p, const char *name, size_t len)
{
    const uint64_t fold = ~UINT64_C(0) / 255 * 0x20;

    if (len < 8)
        return (h1_load32(p) | (uint32_t)fold) == h1_load32(name) &&
               (h1_load32(p + len - 4) | (uint32_t)fold) == h1_load32(name + len - 4);
    for (size_t i = 0; i + 8 < len; i += 8)
        if ((h1_load64(p + i) | fold) != h1_load64(name + i))
            return false;
    return (h1_load64(p + len - 8) | fold) == h1_load64(name + len - 8);
}

static inline bool h1_value_is(stk_span value, stk_span name)
{
    return value.len == name.len && h1_name_is(value.ptr, name.ptr, name.len);
}

static inline bool h1_scheme_is(const char *p, const char *scheme, size_t len)
{
    return h1_name_is(p, scheme, len) && memcmp(p + len, "://", 3) == 0;
}

/* The first byte that is not of a field value, or end. */
static inline const char *h1_skip_value(const char *p, const char *end)
{
#ifdef H1_SSE2
    const __m128i last_ctl = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8('\t');
    const __m128i del = _mm_set1_epi8(0x7f);

    for (; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i ctl = _mm_cmpeq_epi8(_mm_min_epu8(v, last_ctl), v);
        __m128i bad =
            _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(v, tab), ctl), _mm_cmpeq_epi8(v, del));
        unsigned mask = (unsigned)_mm_movemask_epi8(bad);

        if (mask)
            return p + __builtin_ctz(mask);
    }
#else
    const uint64_t ones = ~UINT64_C(0) / 255, tops = ones * 0x80;

    for (; end - p >= 8; p += 8) {
        uint64_t w = h1_load64(p), del = w ^ (ones * 0x7f);

        if ((((w - ones * 0x20) & ~w) | ((del - ones) & ~del)) & tops) {
            for (unsigned i = 0; i < 8; i++)
                if (!h1_value[h1_byte(p + i)])
                    return p + i;
        }
    }
#endif
    while (p < end && h1_value[h1_byte(p)])
        p++;
    return p;
}

/* Whether len > 0 bytes are letters, digits and "-"; up to 15 bytes behind them are read. */
static inline bool h1_is_plain_name_padded(const char *p, size_t len)
{
#ifdef H1_SSE2
    const __m128i fold = _mm_set1_epi8(0x20);
    const char *end = p + len;

    for (; p < end; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i letter = _mm_sub_epi8(_mm_or_si128(v, fold), _mm_set1_epi8('a'));
        __m128i digit = _mm_sub_epi8(v, _mm_set1_epi8('0'));
        __m128i good = _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter),
                                    _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit));
        unsigned others;

        good = _mm_or_si128(good, _mm_cmpeq_epi8(v, _mm_set1_epi8('-')));
        others = (unsigned)_mm_movemask_epi8(good) ^ 0xffff;
        if (end - p < 16)
            others &= (1u << (end - p)) - 1;
        if (others)
            return false;
    }
    return len > 0;
#else
    return false;
#endif
}

/* Whether all bytes are of a field value; up to 15 bytes behind them are read. */
static inline bool h1_is_value_padded(const char *p, size_t len)
{
#ifdef H1_SSE2
    const __m128i last_ctl = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8('\t');
    const __m128i del = _mm_set1_epi8(0x7f);
    const char *end = p + len;

    for (; p < end; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i ctl = _mm_cmpeq_epi8(_mm_min_epu8(v, last_ctl), v);
        __m128i bad =
            _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(v, tab), ctl), _mm_cmpeq_epi8(v, del));
        unsigned mask = (unsigned)_mm_movemask_epi8(bad);

        if (end - p < 16)
            mask &= (1u << (end - p)) - 1;
        if (mask)
            return false;
    }
    return true;
#else
    return h1_skip_value(p, p + len) == p + len;
#endif
}

enum { H1_KNOWN_LEN_MAX = 17 };

/* The known fields by the length of their name, at most two of a length. */
static const unsigned char h1_known_by_len[H1_KNOWN_LEN_MAX + 1][2] = {
    [4] = {STK_HEAD_HOST},
    [6] = {STK_HEAD_EXPECT},
    [7] = {STK_HEAD_REFERER, STK_HEAD_UPGRADE},
    [9] = {STK_HEAD_FORWARDED},
    [10] = {STK_HEAD_CONNECTION, STK_HEAD_USER_AGENT},
    [12] = {STK_HEAD_CONTENT_TYPE},
    [13] = {STK_HEAD_AUTHORIZATION},
    [14] = {STK_HEAD_CONTENT_LENGTH},
    [15] = {STK_HEAD_X_FORWARDED_FOR},
    [16] = {STK_HEAD_X_FORWARDED_HOST, STK_HEAD_X_FORWARDED_PORT},
    [17] = {STK_HEAD_TRANSFER_ENCODING, STK_HEAD_X_FORWARDED_PROTO},
};

static const char h1_known_name[STK_HEAD_KNOWN_COUNT][24] = {
#define X(id, name) [STK_HEAD_##id] = name,
    STK_HEAD_KNOWN(X)
#undef X
};

static inline unsigned char h1_known(const char *name, size_t len)
{
    const unsigned char *ids;

    if (len > H1_KNOWN_LEN_MAX)
        return STK_HEAD_OTHER;
    ids = h1_known_by_len[len];
    if (!ids[0])
        return STK_HEAD_OTHER;
    if (h1_name_is(name, h1_known_name[ids[0]], len))
        return ids[0];
    if (ids[1] && h1_name_is(name, h1_known_name[ids[1]], len))
        return ids[1];
    return STK_HEAD_OTHER;
}

/*
 * The hash of a name: its bytes, each with 0x20 set, in blocks of 16 of which the last is
 * always an incomplete one filled up with zeros.
 */
static inline uint64_t h1_hash_block(uint64_t hash, uint64_t low, uint64_t high)
{
    hash = (hash ^ low) * H1_HASH_LOW;
    return (hash ^ (hash >> 32) ^ high) * H1_HASH_HIGH;
}

static inline uint32_t h1_hash_end(uint64_t hash)
{
    return (uint32_t)((hash ^ (hash >> 32)) * H1_HASH_LOW >> 32);
}

static uint32_t h1_hash(const char *name, size_t len)
{
    uint64_t hash = H1_HASH_SEED;

    for (;;) {
        size_t n = len < 16 ? len : 16;
        char block[16] = {0};

        for (size_t i = 0; i < n; i++)
            block[i] = (char)(name[i] | 0x20);
        hash = h1_hash_block(hash, h1_load64(block), h1_load64(block + 8));
        if (n < 16)
            return h1_hash_end(hash);
        name += n;
        len -= n;
    }
}

/* Names with other characters than letters, digits and "-", and those near the end. */
static const char *h1_name_bytewise(const char *name, const char *end, uint32_t *ret_hash,
                                    bool *ret_underscore)
{
    const char *p = name;
    bool underscore = false;

    for (; p < end && (h1_lower[h1_byte(p)] || *p == '_'); p++)
        underscore |= *p == '_';
    *ret_hash = p < end && *p == ':' ? h1_hash(name, (size_t)(p - name)) : 0;
    *ret_underscore = underscore;
    return p;
}

/* The first byte from `name` on that is not of a token; the hash, if that is a colon. */
static inline const char *h1_name(const char *name, const char *end, uint32_t *ret_hash,
                                  bool *ret_underscore)
{
#ifdef H1_SSE2
    static const unsigned char keep[32] = {[0 ... 15] = 0xff};
    const __m128i fold = _mm_set1_epi8(0x20);
    uint64_t hash = H1_HASH_SEED;

    for (const char *p = name; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i lower = _mm_or_si128(v, fold), letter = _mm_sub_epi8(lower, _mm_set1_epi8('a'));
        __m128i digit = _mm_sub_epi8(v, _mm_set1_epi8('0'));
        __m128i good = _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter),
                                    _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit));
        unsigned others, n;

        good = _mm_or_si128(good, _mm_cmpeq_epi8(v, _mm_set1_epi8('-')));
        others = (unsigned)_mm_movemask_epi8(good) ^ 0xffff;
        n = (unsigned)__builtin_ctz(others | 0x10000);
        if (stk_likely(n < 16)) {
            if (stk_unlikely(p[n] != ':'))
                break;
            lower = _mm_and_si128(lower,
                                  _mm_loadu_si128((const __m128i *)(const void *)(keep + 16 - n)));
        }
        hash = h1_hash_block(hash, (uint64_t)_mm_cvtsi128_si64(lower),
                             (uint64_t)_mm_cvtsi128_si64(_mm_unpackhi_epi64(lower, lower)));
        if (stk_likely(n < 16)) {
            *ret_hash = h1_hash_end(hash);
            *ret_underscore = false;
            return p + n;
        }
    }
#endif
    return h1_name_bytewise(name, end, ret_hash, ret_underscore);
}
