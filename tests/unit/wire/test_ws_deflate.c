/*
 * permessage-deflate: RFC 7692's examples; messages there and back with every window, with and
 * without a context that lasts; pieces of output of every size; broken, cut and endless ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "wire/ws_deflate.h"

#define HELLO "\xf2\x48\xcd\xc9\xc9\x07\x00"

static char out[1 << 20];

/* Inflates with room for `piece` bytes at a time; the length, or -1 - result. */
static long inflate_by(struct stk_ws_inflater *z, const char *data, size_t len, size_t piece)
{
    stk_span in = stk_span_make(data, len);
    size_t total = 0;

    for (;;) {
        size_t n = SIZE_MAX;
        enum stk_ws_inflate_result r;

        assert_true(total + piece <= sizeof(out));
        r = stk_ws_inflate(z, &in, out + total, piece, &n);
        if (r > STK_WS_INFLATE_ROOM)
            return -1 - (long)r;
        assert_true(n <= piece);
        total += n;
        if (r == STK_WS_INFLATE_DONE) {
            assert_int_equal(in.len, 0);
            return (long)total;
        }
        assert_int_equal(n, piece);
    }
}

static void expect(struct stk_ws_inflater *z, const char *data, size_t len, const char *text)
{
    assert_int_equal(inflate_by(z, data, len, 4096), strlen(text));
    assert_memory_equal(out, text, strlen(text));
}

#define EXPECT(z, bytes, text) expect((z), (bytes), sizeof(bytes) - 1, (text))

/* RFC 7692 section 7.2.3. */
static void test_examples(void **state)
{
    struct stk_ws_inflater *z = stk_ws_inflater_new(15, true);

    (void)state;
    assert_non_null(z);
    EXPECT(z, HELLO, "Hello");
    EXPECT(z, "\xf2\x00\x11\x00\x00", "Hello"); /* by the window */
    EXPECT(z, "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", "Hello");
    EXPECT(z, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "Hello"); /* a final block */
    EXPECT(z, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", "Hello");
    EXPECT(z, "\xf2\x00\x11\x00\x00", "Hello");
    EXPECT(z, "\x00", "");
    EXPECT(z, "\x02\x00", "");
    EXPECT(z, HELLO, "Hello");
    stk_ws_inflater_free(z);
}

static void test_final_block_without_its_byte(void **state)
{
    struct stk_ws_inflater *z = stk_ws_inflater_new(15, true);

    (void)state;
    assert_non_null(z);
    EXPECT(z, "\xf3\x48\xcd\xc9\xc9\x07\x00", "Hello");
    EXPECT(z, "\xf2\x00\x11\x00\x00", "Hello");
    stk_ws_inflater_free(z);
}

static void test_without_takeover_the_window_is_empty(void **state)
{
    struct stk_ws_inflater *z = stk_ws_inflater_new(15, false);

    (void)state;
    assert_non_null(z);
    EXPECT(z, HELLO, "Hello");
    assert_int_equal(inflate_by(z, "\xf2\x00\x11\x00\x00", 5, 100), -1 - STK_WS_INFLATE_E_DATA);
    stk_ws_inflater_reset(z);
    EXPECT(z, HELLO, "Hello");
    stk_ws_inflater_free(z);
}

static void test_output_in_pieces_of_every_size(void **state)
{
    static const char bytes[] = "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00";
    struct stk_ws_inflater *z = stk_ws_inflater_new(15, true);

    (void)state;
    assert_non_null(z);
    for (size_t piece = 1; piece < 12; piece++) {
        assert_int_equal(inflate_by(z, HELLO, sizeof(HELLO) - 1, piece), 5);
        assert_int_equal(inflate_by(z, bytes, sizeof(bytes) - 1, piece), 5);
        assert_memory_equal(out, "Hello", 5);
        assert_int_equal(inflate_by(z, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", 8, piece), 5);
        assert_int_equal(inflate_by(z, "\xf3\x48\xcd\xc9\xc9\x07\x00", 7, piece), 5);
        assert_int_equal(inflate_by(z, "\x00", 1, piece), 0);
    }
    stk_ws_inflater_free(z);
}

static void test_broken_ones(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        {"\xf2\x48\xcd", 3},             /* cut within a block */
        {"\x06", 1},                     /* a reserved type of block */
        {"\x00\x05\x00\xfa\xfe", 5},     /* a stored block whose lengths differ */
        {"\x00\x05\x00\xfa\xff Hel", 9}, /* and one that is cut */
        {"\xff\xff\xff\xff\xff", 5},
        {"\xf2\x48\xcd\xc9\xc9\x07", 6}, /* without its last byte */
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
        struct stk_ws_inflater *z = stk_ws_inflater_new(15, true);

        assert_non_null(z);
        assert_int_equal(inflate_by(z, cases[i].bytes, cases[i].len, 100),
                         -1 - STK_WS_INFLATE_E_DATA);
        stk_ws_inflater_free(z);
    }
}

/* Bytes that compress to about half. */
static void fill(char *data, size_t len, uint32_t seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525 + 1013904223;
        data[i] = (char)('a' + (seed >> 24) % 16);
    }
}

static void there_and_back(unsigned bits, bool takeover, size_t len, bool random)
{
    struct stk_ws_deflater *d = stk_ws_deflater_new(bits, takeover, 1 + (int)(bits % 9), 5);
    struct stk_ws_inflater *z = stk_ws_inflater_new(bits, takeover);
    size_t cap = stk_ws_deflate_bound(d, len), n;
    char *data = malloc(len + 1), *packed = malloc(cap);

    assert_true(d && z && data && packed);
    for (uint32_t message = 0; message < 4; message++) {
        fill(data, len, random ? message : 1);
        n = stk_ws_deflate(d, data, len, packed, cap);
        assert_true(n > 0 && n < cap);
        if (takeover && message > 0 && !random && len > 40 && len < 400 && bits > 9)
            assert_true(n < 20);
        assert_int_equal(inflate_by(z, packed, n, 65536), len);
        assert_memory_equal(out, data, len);
    }
    stk_ws_deflater_free(d);
    stk_ws_inflater_free(z);
    free(data);
    free(packed);
}

static void test_there_and_back(void **state)
{
    static const size_t sizes[] = {0, 1, 5, 100, 300, 5000, 70000, 300000};

    (void)state;
    for (unsigned bits = 9; bits <= 15; bits++)
        for (size_t i = 0; i < STK_ARRAY_LEN(sizes); i++)
            for (unsigned how = 0; how < 4; how++)
                there_and_back(bits, how & 1, sizes[i], how & 2);
}

static void test_a_bomb_is_the_callers_to_end(void **state)
{
    static char zeros[1000000];
    struct stk_ws_deflater *d = stk_ws_deflater_new(15, false, 9, 8);
    struct stk_ws_inflater *z = stk_ws_inflater_new(15, false);
    char packed[8192];
    size_t n, got;
    stk_span in;

    (void)state;
    assert_true(d && z);
    assert_true(stk_ws_deflate_bound(d, sizeof(zeros)) > sizeof(packed));
    n = stk_ws_deflate(d, zeros, sizeof(zeros), packed, sizeof(packed));
    assert_true(n < 2000);
    in = stk_span_make(packed, n);
    assert_int_equal(stk_ws_inflate(z, &in, out, 1000, &got), STK_WS_INFLATE_ROOM);
    assert_int_equal(got, 1000);
    stk_ws_inflater_reset(z);
    EXPECT(z, HELLO, "Hello");
    stk_ws_deflater_free(d);
    stk_ws_inflater_free(z);
}

static void test_free_of_nothing(void **state)
{
    (void)state;
    assert_null(stk_ws_inflater_free(NULL));
    assert_null(stk_ws_deflater_free(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_final_block_without_its_byte),
        cmocka_unit_test(test_without_takeover_the_window_is_empty),
        cmocka_unit_test(test_output_in_pieces_of_every_size),
        cmocka_unit_test(test_broken_ones),
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_a_bomb_is_the_callers_to_end),
        cmocka_unit_test(test_free_of_nothing),
    };

    return stk_ws_deflate_is_there() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
