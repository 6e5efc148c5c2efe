/*
 * The escaping of the access log. The first byte chooses the style, the second the room; the rest
 * is the value. What is written must read back as the value, or as the begin of it where it was
 * cut, must stay within the room, and must be harmless in a line.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "serve/access_escape.h"

enum { FUZZ_MIN_ROOM = 3, FUZZ_LONGEST = 6 };

static unsigned hex_value(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = memchr(digits, c, 16);

    FUZZ_CHECK(at != NULL);
    return (unsigned)(at - digits);
}

/* Undoes one character: the number of bytes read; what they stand for goes to *ret_byte. */
static size_t unescape_one(const char *at, size_t left, bool json, char *ret_byte)
{
    size_t digits = json ? 4 : 2;

    if (*at != '\\') {
        *ret_byte = *at;
        return 1;
    }
    FUZZ_CHECK(left >= 2);
    if (at[1] == '"' || at[1] == '\\') {
        *ret_byte = at[1];
        return 2;
    }
    FUZZ_CHECK(at[1] == (json ? 'u' : 'x') && left >= 2 + digits);
    FUZZ_CHECK(!json || (at[2] == '0' && at[3] == '0'));
    *ret_byte = (char)(hex_value(at[digits]) << 4 | hex_value(at[digits + 1]));
    return 2 + digits;
}

/* Every byte may stand in a line of this style; in JSON those beyond ASCII are whole characters. */
static void check_harmless(stk_span text, enum stk_access_style style)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];

        FUZZ_CHECK(c >= 0x20 && c != 0x7f);
        FUZZ_CHECK(c != ' ' || style != STK_ACCESS_WORD);
        if (c >= 0x80) {
            size_t wide = stk_utf8_wide_len(text.ptr + i, text.len - i);

            FUZZ_CHECK(style == STK_ACCESS_JSON && wide > 0);
            i += wide - 1;
        }
    }
}

/* `text` stands for the first bytes of `value`; returns how many. */
static size_t check_reads_back(stk_span text, stk_span value, enum stk_access_style style)
{
    size_t done = 0;

    for (size_t at = 0; at < text.len; done++) {
        char byte = 0;

        FUZZ_CHECK(text.ptr[at] != '"');
        at += unescape_one(text.ptr + at, text.len - at, style == STK_ACCESS_JSON, &byte);
        FUZZ_CHECK(done < value.len && value.ptr[done] == byte);
    }
    return done;
}

/* Into exactly `room` bytes: one more is a finding of the sanitizer. */
static stk_span escape(stk_span value, size_t room, enum stk_access_style style, char **ret_place)
{
    char *place = malloc(room), *end;

    FUZZ_CHECK(place != NULL);
    end = stk_access_escape(place, place + room, value, style);
    FUZZ_CHECK(end >= place && end <= place + room);
    *ret_place = place;
    return stk_span_make(place, (size_t)(end - place));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum stk_access_style style;
    char *copy, *whole_place, *place;
    stk_span value, whole, text;
    size_t room;

    if (size < 2)
        return 0;
    style = (enum stk_access_style)(data[0] % 3);
    room = FUZZ_MIN_ROOM + (size_t)data[1];
    /* A copy of just the value's size: reading beyond it is a finding too. */
    copy = malloc(size - 2 > 0 ? size - 2 : 1);
    FUZZ_CHECK(copy != NULL);
    memcpy(copy, data + 2, size - 2);
    value = stk_span_make(copy, size - 2);

    whole = escape(value, value.len * FUZZ_LONGEST + FUZZ_MIN_ROOM, style, &whole_place);
    check_harmless(whole, style);
    FUZZ_CHECK(check_reads_back(whole, value, style) == value.len);

    text = escape(value, room, style, &place);
    if (whole.len <= room) {
        FUZZ_CHECK(stk_span_eq(text, whole));
    } else {
        FUZZ_CHECK(text.len >= 3 && memcmp(text.ptr + text.len - 3, "...", 3) == 0);
        FUZZ_CHECK(text.len + FUZZ_LONGEST > room);
        text.len -= 3;
        FUZZ_CHECK(text.len <= whole.len && memcmp(text.ptr, whole.ptr, text.len) == 0);
        check_harmless(text, style);
        (void)check_reads_back(text, value, style);
    }
    free(place);
    free(whole_place);
    free(copy);
    return 0;
}
