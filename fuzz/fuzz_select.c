/*
 * What a client chooses with: codings, ranges, entity-tags, and the tables of media types. The
 * first byte says which.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "wire/accept.h"
#include "wire/condition.h"
#include "wire/mime.h"
#include "wire/range.h"

static void fuzz_accept(stk_span text)
{
    struct stk_accept a, again;

    stk_accept_init(&a);
    stk_accept_add(&a, text);
    again = a;
    for (int i = 0; i < STK_CODINGS; i++)
        FUZZ_CHECK(stk_accept_quality(&a, (enum stk_coding)i) <= STK_ACCEPT_MAX);
    /* The same once more changes nothing; a further member adds to it. */
    stk_accept_add(&again, text);
    for (int i = 0; i < STK_CODINGS; i++)
        FUZZ_CHECK(a.q[i] == again.q[i]);
    stk_accept_add(&a, STK_SPAN_LIT("br"));
    FUZZ_CHECK(stk_accept_quality(&a, STK_CODING_BR) == STK_ACCEPT_MAX);
}

static void fuzz_range(stk_span text, uint64_t size)
{
    struct stk_range ranges[STK_RANGE_MAX];
    uint64_t total = 0;
    size_t n = 0;

    switch (stk_range_parse(text, size, ranges, &n)) {
    case STK_RANGE_WHOLE:
        FUZZ_CHECK(n == 0);
        return;
    case STK_RANGE_UNSATISFIABLE:
        FUZZ_CHECK(n == 0 && size > 0);
        return;
    case STK_RANGE_PARTS:
        break;
    }
    FUZZ_CHECK(n > 0 && n <= STK_RANGE_MAX);
    for (size_t i = 0; i < n; i++) {
        FUZZ_CHECK(ranges[i].len > 0 && ranges[i].first < size);
        FUZZ_CHECK(ranges[i].len <= size - ranges[i].first);
        total += ranges[i].len;
    }
    FUZZ_CHECK(total <= size);
}

static void fuzz_etags(stk_span text)
{
    stk_span etag = STK_SPAN_LIT("\"5\"");
    bool strong = stk_etag_list_has(text, etag, false);

    FUZZ_CHECK(!strong || stk_etag_list_has(text, etag, true));
    FUZZ_CHECK(!strong || text.len >= etag.len || text.len == 1);
}

static void fuzz_mime(stk_span text)
{
    stk_span pos = text, type, endings, word, ending = stk_mime_ending(text);

    FUZZ_CHECK(ending.len < text.len || text.len == 0);
    (void)stk_mime_builtin(ending);
    (void)stk_mime_builtin(text);
    while (stk_mime_next_line(&pos, &type, &endings)) {
        FUZZ_CHECK(stk_mime_is_type(type));
        FUZZ_CHECK(type.ptr >= text.ptr && endings.ptr + endings.len <= text.ptr + text.len);
        while ((word = stk_mime_next_word(&endings)).len > 0)
            FUZZ_CHECK(memchr(word.ptr, '\n', word.len) == NULL);
    }
    FUZZ_CHECK(pos.len == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stk_span text;

    if (size < 2)
        return 0;
    text = stk_span_make((const char *)data + 2, size - 2);
    switch (*data % 4) {
    case 0:
        fuzz_accept(text);
        break;
    case 1:
        fuzz_range(text, data[1] == 255 ? UINT64_MAX : data[1]);
        break;
    case 2:
        fuzz_etags(text);
        break;
    default:
        fuzz_mime(text);
        break;
    }
    return 0;
}
