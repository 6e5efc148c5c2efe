/*
 * The compressors: what comes out is decoded by the libraries' own decoders, for output buffers of
 * all small sizes, with flushes between any two pieces, and again and again with one encoder.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifdef STK_HAVE_ZLIB
#    include <zlib.h>
#endif
#ifdef STK_HAVE_BROTLI_DECODER
#    include <brotli/decode.h>
#endif
#ifdef STK_HAVE_ZSTD
#    include <zstd.h>
#endif

#include "serve/encoder.h"

enum { TEXT = 200 * 1000, CODED = 2 * TEXT };

static char text[TEXT], coded[CODED], plain[TEXT + 1];

/* Text of some entropy: a generator of its own, so that every run is the same. */
static void make_text(void)
{
    static const char *const words[] = {"alpha ", "beta\n", "{\"id\": ", "<td>", "omega ", "0x"};
    uint32_t seed = 12345;
    size_t n = 0;

    while (n + 16 < TEXT) {
        const char *word;

        seed = seed * 1664525u + 1013904223u;
        word = words[(seed >> 16) % 6];
        memcpy(text + n, word, strlen(word));
        n += strlen(word);
        text[n++] = (char)('0' + (seed >> 20) % 10);
    }
    memset(text + n, 'z', TEXT - n);
}

/* Decodes all that is there: its length; *ret_end: the coded body is complete. */
static size_t decode(enum stk_coding coding, size_t len, bool *ret_end)
{
    switch (coding) {
#ifdef STK_HAVE_ZLIB
    case STK_CODING_GZIP: {
        z_stream z = {0};
        int r;

        assert_int_equal(inflateInit2(&z, 31), Z_OK);
        z.next_in = (Bytef *)coded;
        z.avail_in = (uInt)len;
        z.next_out = (Bytef *)plain;
        z.avail_out = sizeof plain;
        r = inflate(&z, Z_SYNC_FLUSH);
        assert_true(r == Z_OK || r == Z_STREAM_END || r == Z_BUF_ERROR);
        *ret_end = r == Z_STREAM_END;
        assert_int_equal(inflateEnd(&z), Z_OK);
        return sizeof plain - z.avail_out;
    }
#endif
#ifdef STK_HAVE_BROTLI_DECODER
    case STK_CODING_BR: {
        BrotliDecoderState *s = BrotliDecoderCreateInstance(NULL, NULL, NULL);
        const uint8_t *in = (const uint8_t *)coded;
        uint8_t *out = (uint8_t *)plain;
        size_t room = sizeof plain;
        BrotliDecoderResult r = BrotliDecoderDecompressStream(s, &len, &in, &room, &out, NULL);

        assert_true(r == BROTLI_DECODER_RESULT_SUCCESS ||
                    r == BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT);
        *ret_end = r == BROTLI_DECODER_RESULT_SUCCESS;
        BrotliDecoderDestroyInstance(s);
        return sizeof plain - room;
    }
#endif
#ifdef STK_HAVE_ZSTD
    case STK_CODING_ZSTD: {
        ZSTD_DCtx *d = ZSTD_createDCtx();
        ZSTD_inBuffer in = {coded, len, 0};
        ZSTD_outBuffer out = {plain, sizeof plain, 0};
        size_t r = 1;

        while (in.pos < in.size && r != 0) {
            r = ZSTD_decompressStream(d, &out, &in);
            assert_false(ZSTD_isError(r));
        }
        *ret_end = r == 0 && len > 0;
        ZSTD_freeDCtx(d);
        return out.pos;
    }
#endif
    default:
        return SIZE_MAX;
    }
}

static bool can_decode(enum stk_coding coding)
{
    if (!stk_encoder_has(coding))
        return false;
#ifndef STK_HAVE_BROTLI_DECODER
    if (coding == STK_CODING_BR)
        return false;
#endif
    return true;
}

/* Runs one op to its end through a buffer of `room` bytes at a time. */
static void run(struct stk_encoder *e, const char *data, size_t len, enum stk_encoder_op op,
                size_t room, size_t *total)
{
    int r;

    do {
        size_t used = *total, cap = used + room;

        assert_true(cap <= CODED);
        r = stk_encoder_run(e, &data, &len, op, coded, cap, total);
        assert_true(r == 0 || (r == 1 && *total + STK_ENCODER_ROOM > cap));
        assert_true(*total >= used);
    } while (r == 1);
    assert_int_equal(len, 0);
}

static void check(enum stk_coding coding, size_t len, size_t got, bool end, bool want_end)
{
    if (!can_decode(coding))
        return;
    assert_int_equal(got, len);
    assert_memory_equal(plain, text, len);
    assert_int_equal(end, want_end);
}

static void check_body(struct stk_encoder *e, enum stk_coding coding, size_t len, size_t piece,
                       size_t room, bool flushes)
{
    size_t total = 0, got;
    bool end = false;

    assert_int_equal(stk_encoder_begin(e, flushes ? -1 : (int64_t)len), 0);
    assert_false(stk_encoder_is_dirty(e));
    for (size_t at = 0; at < len; at += piece) {
        size_t n = len - at < piece ? len - at : piece;

        run(e, text + at, n, flushes ? STK_ENCODER_FLUSH : STK_ENCODER_RUN, room, &total);
        assert_int_equal(stk_encoder_is_dirty(e), !flushes);
        if (!flushes)
            continue;
        got = decode(coding, total, &end);
        check(coding, at + n, got, end, false);
    }
    run(e, "", 0, STK_ENCODER_END, room, &total);
    got = decode(coding, total, &end);
    check(coding, len, got, end, true);
}

static void test_codings(void **state)
{
    static const size_t rooms[] = {64, 65, 66, 67, 68, 69, 70, 71, 100, 4096, CODED / 2};

    for (int c = STK_CODING_GZIP; c < STK_CODINGS; c++) {
        enum stk_coding coding = (enum stk_coding)c;
        int lowest, highest, level;

        if (!stk_encoder_has(coding))
            continue;
        stk_encoder_levels(coding, &lowest, &highest, &level);
        for (int pass = 0; pass < 2; pass++) {
            struct stk_encoder *e = stk_encoder_new(coding, pass == 0 ? level : lowest);

            assert_non_null(e);
            for (size_t i = 0; i < sizeof rooms / sizeof rooms[0]; i++) {
                check_body(e, coding, 3000, 3000, rooms[i], false);
                check_body(e, coding, 3000, 500, rooms[i], true);
                check_body(e, coding, 0, 1, rooms[i], false);
                check_body(e, coding, 40, 1, rooms[i], true);
            }
            check_body(e, coding, TEXT, TEXT, CODED / 2, false);
            check_body(e, coding, TEXT, 60 * 1000, 1000, false);
            check_body(e, coding, TEXT, 60 * 1000, 1000, true);
            stk_encoder_free(e);
        }
    }
}

/* Two blocks, cut at every byte, with and without a flush between them. */
static void test_every_split(void **state)
{
    enum { LEN = 400 };

    for (int c = STK_CODING_GZIP; c < STK_CODINGS; c++) {
        enum stk_coding coding = (enum stk_coding)c;
        int lowest, highest, level;
        struct stk_encoder *e;

        if (!stk_encoder_has(coding))
            continue;
        stk_encoder_levels(coding, &lowest, &highest, &level);
        e = stk_encoder_new(coding, lowest);
        assert_non_null(e);
        for (size_t cut = 0; cut <= LEN; cut++)
            for (int flush = 0; flush < 2; flush++) {
                size_t total = 0, got;
                bool end = false;

                assert_int_equal(stk_encoder_begin(e, flush ? -1 : LEN), 0);
                run(e, text, cut, flush ? STK_ENCODER_FLUSH : STK_ENCODER_RUN, CODED / 4, &total);
                if (flush) {
                    got = decode(coding, total, &end);
                    check(coding, cut, got, end, false);
                }
                run(e, text + cut, LEN - cut, STK_ENCODER_END, CODED / 4, &total);
                got = decode(coding, total, &end);
                check(coding, LEN, got, end, true);
            }
        stk_encoder_free(e);
    }
}

/* A whole body in one call, and one that is given up in the middle. */
static void test_reuse(void **state)
{
    for (int c = STK_CODING_GZIP; c < STK_CODINGS; c++) {
        enum stk_coding coding = (enum stk_coding)c;
        int lowest, highest, level;
        struct stk_encoder *e;

        if (!stk_encoder_has(coding))
            continue;
        stk_encoder_levels(coding, &lowest, &highest, &level);
        e = stk_encoder_new(coding, level);
        for (int i = 0; i < 20; i++) {
            size_t total = 0, got;
            bool end = false;

            assert_int_equal(stk_encoder_begin(e, -1), 0);
            run(e, text, 5000, STK_ENCODER_RUN, CODED / 2, &total);
            assert_int_equal(stk_encoder_begin(e, 5000), 0);
            total = 0;
            run(e, text, 5000, STK_ENCODER_END, CODED / 2, &total);
            assert_true(total < 2500);
            got = decode(coding, total, &end);
            check(coding, 5000, got, end, true);
        }
        stk_encoder_free(e);
    }
    assert_null(stk_encoder_free(NULL));
}

/* A flush whose output does not fit is completed by whatever comes next. */
static void test_flush_left(void **state)
{
    for (int c = STK_CODING_GZIP; c < STK_CODINGS; c++) {
        enum stk_coding coding = (enum stk_coding)c;
        int lowest, highest, level;
        struct stk_encoder *e;

        if (!stk_encoder_has(coding))
            continue;
        stk_encoder_levels(coding, &lowest, &highest, &level);
        e = stk_encoder_new(coding, level);
        for (size_t cap = 64; cap < 104; cap++) {
            const char *data = text;
            size_t len = 2000, total = 0, got;
            bool end = false;
            int r;

            assert_int_equal(stk_encoder_begin(e, -1), 0);
            r = stk_encoder_run(e, &data, &len, STK_ENCODER_RUN, coded, CODED, &total);
            assert_int_equal(r, 0);
            r = stk_encoder_run(e, &data, &len, STK_ENCODER_FLUSH, coded, total + cap, &total);
            assert_int_equal(r, 1);
            run(e, text + 2000, 1000, STK_ENCODER_FLUSH, CODED - total, &total);
            got = decode(coding, total, &end);
            check(coding, 3000, got, end, false);
            run(e, "", 0, STK_ENCODER_END, CODED - total, &total);
            got = decode(coding, total, &end);
            check(coding, 3000, got, end, true);
        }
        stk_encoder_free(e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codings),
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_reuse),
        cmocka_unit_test(test_flush_left),
    };

    make_text();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
