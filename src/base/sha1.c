/*
 * SHA-1 of a message that is there as a whole. The WebSocket handshake wants it of 60 bytes, once a
 * connection: it is written to be short, so that the handshake does not depend on a library of
 * cryptography.
 */
#include "base/sha1.h"

#include <string.h>

enum { SHA1_BLOCK = 64 };

static uint32_t sha1_rotate(uint32_t x, unsigned n)
{
    return (x << n) | (x >> (32 - n));
}

static uint32_t sha1_load(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The function and the constant of round i (FIPS 180-4, 4.1.1 and 4.2.1). */
static uint32_t sha1_round(unsigned i, uint32_t b, uint32_t c, uint32_t d)
{
    if (i < 20)
        return ((b & c) ^ (~b & d)) + 0x5a827999;
    if (i < 40)
        return (b ^ c ^ d) + 0x6ed9eba1;
    if (i < 60)
        return ((b & c) ^ (b & d) ^ (c & d)) + 0x8f1bbcdc;
    return (b ^ c ^ d) + 0xca62c1d6;
}

static void sha1_block(uint32_t h[5], const uint8_t *p)
{
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];

    for (unsigned i = 0; i < 16; i++)
        w[i] = sha1_load(p + (size_t)i * 4);
    for (unsigned i = 16; i < 80; i++)
        w[i] = sha1_rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (unsigned i = 0; i < 80; i++) {
        uint32_t t = sha1_rotate(a, 5) + sha1_round(i, b, c, d) + e + w[i];

        e = d;
        d = c;
        c = sha1_rotate(b, 30);
        b = a;
        a = t;
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
}

void stk_sha1(const void *data, size_t len, uint8_t ret_digest[STK_SHA1_SIZE])
{
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    const uint8_t *p = data;
    uint64_t bits = (uint64_t)len * 8;
    uint8_t last[SHA1_BLOCK * 2] = {0};
    size_t left = len, size;

    for (; left >= SHA1_BLOCK; p += SHA1_BLOCK, left -= SHA1_BLOCK)
        sha1_block(h, p);
    if (left > 0)
        memcpy(last, p, left);
    last[left] = 0x80;
    size = left + 1 + 8 > SHA1_BLOCK ? SHA1_BLOCK * 2 : SHA1_BLOCK;
    for (unsigned i = 0; i < 8; i++)
        last[size - 1 - i] = (uint8_t)(bits >> (8 * i));
    sha1_block(h, last);
    if (size > SHA1_BLOCK)
        sha1_block(h, last + SHA1_BLOCK);
    for (unsigned i = 0; i < STK_SHA1_SIZE; i++)
        ret_digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}
