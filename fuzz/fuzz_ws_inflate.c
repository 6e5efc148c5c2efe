/*
 * Compressed messages. The first byte chooses window, takeover and the room for output; then come
 * messages, each with its length before it. A message comes out the same whatever the room; and
 * what was inflated is deflated and inflated to the same again.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "wire/ws_deflate.h"

enum { INPUT_MAX = 16 * 1024, OUTPUT_MAX = 64 * 1024 };

/* The length of a message; -1: broken, -2: more than OUTPUT_MAX. */
static long inflate_to(struct stk_ws_inflater *z, stk_span in, size_t piece, char *out)
{
    size_t total = 0;

    for (;;) {
        size_t room = OUTPUT_MAX - total < piece ? OUTPUT_MAX - total : piece, n = SIZE_MAX;
        enum stk_ws_inflate_result r;

        if (room == 0)
            return -2;
        r = stk_ws_inflate(z, &in, out + total, room, &n);
        if (r == STK_WS_INFLATE_E_DATA || r == STK_WS_INFLATE_E_MEMORY)
            return -1;
        FUZZ_CHECK(n <= room && (r == STK_WS_INFLATE_DONE || n == room));
        total += n;
        if (r == STK_WS_INFLATE_DONE) {
            FUZZ_CHECK(in.len == 0);
            return (long)total;
        }
    }
}

static void back_and_there(const char *data, size_t len, unsigned bits, char *out)
{
    struct stk_ws_deflater *d = stk_ws_deflater_new(bits, false, 1, 5);
    struct stk_ws_inflater *z = stk_ws_inflater_new(bits, false);
    size_t cap, n;
    char *packed;

    FUZZ_CHECK(d && z);
    cap = stk_ws_deflate_bound(d, len);
    packed = malloc(cap);
    FUZZ_CHECK(packed);
    n = stk_ws_deflate(d, data, len, packed, cap);
    FUZZ_CHECK(inflate_to(z, stk_span_make(packed, n), OUTPUT_MAX, out) == (long)len);
    FUZZ_CHECK(memcmp(out, data, len) == 0);
    free(packed);
    stk_ws_deflater_free(d);
    stk_ws_inflater_free(z);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char whole[OUTPUT_MAX], pieces[OUTPUT_MAX], again[OUTPUT_MAX];
    struct stk_ws_inflater *one, *other;
    unsigned bits;
    size_t piece, at = 1;

    if (size < 2 || size > INPUT_MAX || !stk_ws_deflate_is_there())
        return 0;
    bits = 9 + *data % 7;
    piece = (size_t)1 << (*data >> 4);
    one = stk_ws_inflater_new(bits, *data & 8);
    other = stk_ws_inflater_new(bits, *data & 8);
    FUZZ_CHECK(one && other);
    while (at < size) {
        size_t len = data[at++];
        long n;

        if (len > size - at)
            len = size - at;
        n = inflate_to(one, stk_span_make((const char *)data + at, len), OUTPUT_MAX, whole);
        FUZZ_CHECK(inflate_to(other, stk_span_make((const char *)data + at, len), piece, pieces) ==
                   n);
        if (n < 0)
            break;
        FUZZ_CHECK(memcmp(whole, pieces, (size_t)n) == 0);
        back_and_there(whole, (size_t)n, bits, again);
        at += len;
    }
    stk_ws_inflater_free(one);
    stk_ws_inflater_free(other);
    return 0;
}
