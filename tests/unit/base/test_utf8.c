/*
 * UTF-8 in pieces: every character there is; every sequence of bytes at the borders of RFC 3629's
 * table; at which byte a wrong one is found; at every split and behind ASCII of every length.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <string.h>

#include "base/macros.h"
#include "base/utf8.h"

#define C(text, wrong)                    \
    {                                     \
        (text), sizeof(text) - 1, (wrong) \
    }

/* `wrong` is the first byte (from 0) that makes the text wrong; WHOLE; CUT: the end is missing. */
enum { WHOLE = -1, CUT = -2 };

static const struct {
    const char *text;
    size_t len;
    int wrong;
} cases[] = {
    C("", WHOLE),
    C("plain", WHOLE),
    C("nul \0 is a character", WHOLE),
    C("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", WHOLE),
    C("\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", WHOLE),
    C("\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd\xef\xbf\xbe", WHOLE),
    C("\xce", CUT),
    C("a\xe2\x82", CUT),
    C("\xf4\x8f\xbf", CUT),
    C("\x80", 0),
    C("\xbf", 0),
    C("ab\xc0\x80", 2),
    C("\xc1\xbf", 0),
    C("\xf5\x80\x80\x80", 0),
    C("\xfe", 0),
    C("\xff", 0),
    C("\xe0\x80\x80", 1),
    C("\xe0\x9f\xbf", 1),
    C("\xed\xa0\x80", 1),
    C("\xed\xbf\xbf", 1),
    C("\xf0\x80\x80\x80", 1),
    C("\xf0\x8f\xbf\xbf", 1),
    C("\xf4\x90\x80\x80", 1),
    C("\xf1\x80\xc0\x80", 2),
    C("\xf1\x80\x80\x7f", 3),
    C("\xe2\x82z", 2),
    C("\xc2\xc2", 1),
};

static void check(const char *text, size_t len, size_t split, int wrong)
{
    struct stk_utf8 u = {0};
    bool first = stk_utf8_feed(&u, text, split);

    if (wrong >= 0) {
        assert_int_equal(first, (size_t)wrong >= split);
        if (first)
            assert_false(stk_utf8_feed(&u, text + split, len - split));
        return;
    }
    assert_true(first);
    assert_true(stk_utf8_feed(&u, text + split, len - split));
    assert_int_equal(stk_utf8_is_whole(&u), wrong == WHOLE);
}

static void test_cases_at_every_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++)
        for (size_t split = 0; split <= cases[i].len; split++)
            check(cases[i].text, cases[i].len, split, cases[i].wrong);
}

static void test_behind_ascii_of_every_length(void **state)
{
    char text[128];

    (void)state;
    for (size_t before = 0; before <= 70; before++) {
        for (size_t i = 0; i < STK_ARRAY_LEN(cases); i++) {
            int wrong = cases[i].wrong >= 0 ? cases[i].wrong + (int)before : cases[i].wrong;

            memset(text, 'x', before);
            memcpy(text + before, cases[i].text, cases[i].len);
            check(text, before + cases[i].len, 0, wrong);
            check(text, before + cases[i].len, before, wrong);
            check(text, before + cases[i].len, before / 2, wrong);
        }
    }
}

static void test_every_character(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x120000; c++) {
        bool right = c < 0x110000 && (c < 0xd800 || c > 0xdfff);
        struct stk_utf8 u = {0};
        unsigned char text[4];
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

        text[0] = (unsigned char)(n == 1 ? c : (0xf00U >> n & 0xff) | c >> (6 * (n - 1)));
        for (size_t i = 1; i < n; i++)
            text[i] = (unsigned char)(0x80 | (c >> (6 * (n - 1 - i)) & 0x3f));
        assert_int_equal(stk_utf8_feed(&u, (char *)text, n) && stk_utf8_is_whole(&u), right);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases_at_every_split),
        cmocka_unit_test(test_behind_ascii_of_every_length),
        cmocka_unit_test(test_every_character),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
