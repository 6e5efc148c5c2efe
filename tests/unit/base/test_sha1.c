/* SHA-1: the vectors of FIPS 180-4, and lengths around the end of a block. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "base/sha1.h"

static void check(const char *text, size_t len, const char *hex)
{
    uint8_t digest[STK_SHA1_SIZE];
    char got[2 * STK_SHA1_SIZE + 1];

    stk_sha1(text, len, digest);
    for (unsigned i = 0; i < STK_SHA1_SIZE; i++)
        (void)snprintf(got + (size_t)2 * i, 3, "%02x", digest[i]);
    assert_string_equal(got, hex);
}

static void test_vectors(void **state)
{
    static char million[1000000];

    (void)state;
    check("", 0, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    check("abc", 3, "a9993e364706816aba3e25717850c26c9cd0d89d");
    check("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
          "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    check("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmno"
          "ijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
          112, "a49b2446a02c645bf419f995b67091253a04a259");
    memset(million, 'a', sizeof(million));
    check(million, sizeof(million), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
}

static void test_lengths_around_a_block(void **state)
{
    static const struct {
        size_t len;
        const char *hex;
    } cases[] = {
        {55, "c1c8bbdc22796e28c0e15163d20899b65621d65a"},
        {56, "c2db330f6083854c99d4b5bfb6e8f29f201be699"},
        {63, "03f09f5b158a7a8cdad920bddc29b81c18a551f5"},
        {64, "0098ba824b5c16427bd7a1122a5a442a25ec644d"},
        {65, "11655326c708d70319be2610e8a57d9a5b959d3b"},
    };
    char text[65];

    (void)state;
    memset(text, 'a', sizeof(text));
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++)
        check(text, cases[i].len, cases[i].hex);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_lengths_around_a_block),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
