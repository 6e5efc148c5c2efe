/*
 * SipHash with one round a word and three at the end (Aumasson and Bernstein, "SipHash: a fast
 * short-input PRF"). Tables whose keys come from clients need a hash of this kind: with any that is
 * known from outside, keys can be chosen that all lie in one chain.
 */
#include "base/siphash.h"

#include <string.h>

static inline uint64_t siphash_rotl(uint64_t v, unsigned bits)
{
    return v << bits | v >> (64 - bits);
}

static inline void siphash_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = siphash_rotl(v[1], 13) ^ v[0];
    v[3] = siphash_rotl(v[3], 16) ^ v[2];
    v[0] = siphash_rotl(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = siphash_rotl(v[1], 17) ^ v[2];
    v[3] = siphash_rotl(v[3], 21) ^ v[0];
    v[2] = siphash_rotl(v[2], 32);
}

uint64_t stk_siphash(const uint64_t key[2], const void *data, size_t len)
{
    uint64_t v[4] = {
        key[0] ^ UINT64_C(0x736f6d6570736575),
        key[1] ^ UINT64_C(0x646f72616e646f6d),
        key[0] ^ UINT64_C(0x6c7967656e657261),
        key[1] ^ UINT64_C(0x7465646279746573),
    };
    const char *p = data;
    uint64_t last = (uint64_t)len << 56, word = 0;

    for (size_t rest = len; rest >= 8; rest -= 8, p += 8) {
        memcpy(&word, p, 8);
        v[3] ^= word;
        siphash_round(v);
        v[0] ^= word;
    }
    word = 0;
    memcpy(&word, p, len & 7);
    last |= word;
    v[3] ^= last;
    siphash_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        siphash_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
