/*
 * The chunked decoder. The first byte chooses into which pieces the rest is cut: the result, the
 * data and what is consumed must not depend on it.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "wire/chunked.h"

struct outcome {
    enum stk_chunked_result result;
    size_t consumed, len;
    char *data;
};

static struct outcome decode(const char *bytes, size_t size, size_t piece)
{
    struct outcome o = {.result = STK_CHUNKED_PARTIAL, .data = malloc(size + 1)};
    struct stk_chunked c;
    size_t at = 0;

    FUZZ_CHECK(o.data);
    stk_chunked_init(&c);
    while (at < size && (o.result == STK_CHUNKED_PARTIAL || o.result == STK_CHUNKED_DATA)) {
        size_t len = piece < size - at ? piece : size - at, consumed = SIZE_MAX;
        stk_span data = {NULL, 0};

        o.result = stk_chunked_decode(&c, bytes + at, len, &consumed, &data);
        if (o.result > STK_CHUNKED_END) {
            FUZZ_CHECK(consumed == SIZE_MAX && data.ptr == NULL);
            break;
        }
        FUZZ_CHECK(consumed <= len && (consumed > 0 || o.result == STK_CHUNKED_END));
        FUZZ_CHECK(o.result != STK_CHUNKED_PARTIAL || consumed == len);
        if (o.result == STK_CHUNKED_DATA) {
            FUZZ_CHECK(data.len > 0 && data.len <= consumed);
            FUZZ_CHECK(data.ptr + data.len == bytes + at + consumed);
            memcpy(o.data + o.len, data.ptr, data.len);
            o.len += data.len;
        }
        at += consumed;
    }
    if (o.result == STK_CHUNKED_DATA)
        o.result = STK_CHUNKED_PARTIAL;
    o.consumed = o.result > STK_CHUNKED_END ? 0 : at;
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole, pieces;
    const char *bytes;

    if (size < 1)
        return 0;
    bytes = (const char *)data + 1;
    size--;
    whole = decode(bytes, size, size);
    pieces = decode(bytes, size, (size_t)*data % 16 + 1);
    FUZZ_CHECK(whole.result == pieces.result && whole.consumed == pieces.consumed);
    FUZZ_CHECK(whole.len == pieces.len && memcmp(whole.data, pieces.data, whole.len) == 0);
    if (whole.result == STK_CHUNKED_END) {
        /* The least that a body of chunks is made of: "0", two line ends, and some for the data. */
        FUZZ_CHECK(whole.consumed >= 5 && (whole.len == 0 || whole.consumed >= whole.len + 10));
        FUZZ_CHECK(memcmp(bytes + whole.consumed - 4, "\r\n\r\n", 4) == 0);
    }
    free(whole.data);
    free(pieces.data);
    return 0;
}
