/* JSON: what the writer makes is JSON, and what the reader takes is one flat object. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../wire/edge.h"
#include "base/json.h"
#include "base/macros.h"
#include "base/mem.h"

/* Ends the document and compares it. */
static void assert_written(struct stk_json *j, const char *wanted)
{
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    size_t len = 0;

    assert_int_equal(stk_json_end(j, &text, &len), 0);
    assert_string_equal(text, wanted);
    assert_int_equal(len, strlen(wanted));
}

static void test_write_nested(void **state)
{
    struct stk_json j = {0};

    stk_json_object_begin(&j);
    stk_json_put_bool(&j, "ok", true);
    stk_json_put_string(&j, "none", NULL);
    stk_json_name(&j, "list");
    stk_json_array_begin(&j);
    stk_json_uint(&j, 1);
    stk_json_object_begin(&j);
    stk_json_object_end(&j);
    stk_json_array_begin(&j);
    stk_json_array_end(&j);
    stk_json_object_begin(&j);
    stk_json_put_bool(&j, "no", false);
    stk_json_object_end(&j);
    stk_json_array_end(&j);
    stk_json_name(&j, "raw");
    stk_json_raw(&j, "[1,2]", 5);
    stk_json_put_int(&j, "last", -3);
    stk_json_object_end(&j);
    assert_written(&j, "{\"ok\":true,\"none\":null,\"list\":[1,{},[],{\"no\":false}],\"raw\":[1,2],"
                       "\"last\":-3}");

    stk_json_string(&j, "used again");
    assert_written(&j, "\"used again\"");
}

static void test_write_numbers(void **state)
{
    struct stk_json j = {0};

    stk_json_array_begin(&j);
    stk_json_uint(&j, 0);
    stk_json_uint(&j, UINT64_MAX);
    stk_json_int(&j, INT64_MIN);
    stk_json_int(&j, INT64_MAX);
    stk_json_fixed(&j, 1250, 3);
    stk_json_fixed(&j, 5, 3);
    stk_json_fixed(&j, 0, 2);
    stk_json_fixed(&j, -5, 1);
    stk_json_fixed(&j, INT64_MIN, 18);
    stk_json_array_end(&j);
    assert_written(&j, "[0,18446744073709551615,-9223372036854775808,9223372036854775807,"
                       "1.250,0.005,0.00,-0.5,-9.223372036854775808]");
}

static void test_write_strings(void **state)
{
    static const struct {
        const char *from, *to;
    } rows[] = {
        {"", ""},
        {"plain /path?x=1", "plain /path?x=1"},
        {"\"\\", "\\\"\\\\"},
        {"\b\f\n\r\t", "\\b\\f\\n\\r\\t"},
        {"\x01\x1f\x7f", "\\u0001\\u001f\\u007f"},
        {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"\xc2\x80\xc2\x9f\xc2\xa0", "\\u0080\\u009f\xc2\xa0"},
        /* no UTF-8: a lone continuation, an overlong form, a surrogate, one cut off */
        {"a\x80z", "a\xef\xbf\xbdz"},
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc2", "\xef\xbf\xbd"},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        size_t len = strlen(rows[i].from);
        struct stk_json j = {0};
        char wanted[64];

        (void)snprintf(wanted, sizeof wanted, "\"%s\"", rows[i].to);
        stk_json_bytes(&j, edge_before(rows[i].from, len), len);
        assert_written(&j, wanted);
    }
}

static void test_write_nul_and_long(void **state)
{
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    char line[3000];
    struct stk_json j = {0};
    size_t len = 0;

    stk_json_bytes(&j, "a\0b", 3);
    assert_written(&j, "\"a\\u0000b\"");

    memset(line, 'x', sizeof line);
    stk_json_array_begin(&j);
    for (int i = 0; i < 100; i++)
        stk_json_bytes(&j, line, sizeof line);
    stk_json_array_end(&j);
    assert_int_equal(stk_json_end(&j, &text, &len), 0);
    assert_int_equal(len, 100 * (sizeof line + 2) + 99 + 2);
    assert_int_equal(strlen(text), len);
}

static void test_write_nothing(void **state)
{
    struct stk_json j = {0};
    char *text = NULL;
    size_t len = 0;

    assert_int_equal(stk_json_end(&j, &text, &len), -ENOMEM);
    assert_null(text);
    stk_json_object_begin(&j);
    stk_json_deinit(&j);
    assert_int_equal(j.depth, 0);
}

/* --- reading --------------------------------------------------------------------------------- */

enum { FIELDS = 4 };

/* Reads a text between unreadable pages. */
static int read_text(const char *text, size_t len, struct stk_json_field *fields, size_t *ret_n)
{
    return stk_json_read_object(edge_before(text, len), len, fields, FIELDS, ret_n);
}

static void test_read_kinds(void **state)
{
    static const char text[] = " { \"s\" : \"a\\n\\u0041\\\"\" ,\t\"i\":-12,\r\n\"n\":1.5e3, "
                               "\"b\" : true } \n";
    struct stk_json_field fields[FIELDS];
    const struct stk_json_field *f;
    size_t n = 0;

    assert_int_equal(read_text(text, sizeof text - 1, fields, &n), 0);
    assert_int_equal(n, 4);
    f = stk_json_find(fields, n, "s");
    assert_non_null(f);
    assert_int_equal(f->kind, STK_JSON_STRING);
    assert_string_equal(f->text.ptr, "a\nA\"");
    assert_int_equal(f->text.len, 4);
    f = stk_json_find(fields, n, "i");
    assert_int_equal(f->kind, STK_JSON_INTEGER);
    assert_int_equal(f->integer, -12);
    f = stk_json_find(fields, n, "n");
    assert_int_equal(f->kind, STK_JSON_NUMBER);
    assert_true(stk_span_eq(f->text, STK_SPAN_LIT("1.5e3")));
    f = stk_json_find(fields, n, "b");
    assert_int_equal(f->kind, STK_JSON_BOOL);
    assert_true(f->boolean);
    assert_null(stk_json_find(fields, n, "x"));
    assert_null(stk_json_find(fields, n, ""));
}

static void test_read_strings(void **state)
{
    static const struct {
        const char *from, *to; /* to NULL: refused */
    } rows[] = {
        {"", ""},
        {"\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t"},
        {"\\u00e9\\u20AC", "\xc3\xa9\xe2\x82\xac"},
        {"\\ud83d\\ude00", "\xf0\x9f\x98\x80"},
        {"\\udbff\\udfff", "\xf4\x8f\xbf\xbf"},
        {"\xc3\xa9\xc2\x85", "\xc3\xa9\xc2\x85"},
        {"\\u0000", NULL},
        {"\\ud83d", NULL},
        {"\\ud83dx", NULL},
        {"\\ud83d\\n", NULL},
        {"\\ud83d\\u0041", NULL},
        {"\\ude00", NULL},
        {"\\u12", NULL},
        {"\\u12g4", NULL},
        {"\\x", NULL},
        {"\\", NULL},
        {"\t", NULL},
        {"\x80", NULL},
        {"\xed\xa0\x80", NULL},
        {"\xe2\x82", NULL},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_json_field fields[FIELDS];
        char text[64];
        size_t n = 0;
        int len = snprintf(text, sizeof text, "{\"a\":\"%s\"}", rows[i].from);
        int e = read_text(text, (size_t)len, fields, &n);

        if (rows[i].to == NULL) {
            assert_int_not_equal(e, 0);
            assert_int_equal(n, 0);
            continue;
        }
        assert_int_equal(e, 0);
        assert_int_equal(fields[0].text.len, strlen(rows[i].to));
        assert_string_equal(fields[0].text.ptr, rows[i].to);
    }
}

static void test_read_numbers(void **state)
{
    static const struct {
        const char *text;
        enum stk_json_kind kind; /* STK_JSON_NULL: refused */
        int64_t integer;
    } rows[] = {
        {"0", STK_JSON_INTEGER, 0},
        {"-0", STK_JSON_INTEGER, 0},
        {"9223372036854775807", STK_JSON_INTEGER, INT64_MAX},
        {"-9223372036854775808", STK_JSON_INTEGER, INT64_MIN},
        {"9223372036854775808", STK_JSON_NUMBER, 0},
        {"-9223372036854775809", STK_JSON_NUMBER, 0},
        {"99999999999999999999999999", STK_JSON_NUMBER, 0},
        {"1.0", STK_JSON_NUMBER, 0},
        {"1E-2", STK_JSON_NUMBER, 0},
        {"1e+2", STK_JSON_NUMBER, 0},
        {"-", STK_JSON_NULL, 0},
        {"01", STK_JSON_NULL, 0},
        {"-01", STK_JSON_NULL, 0},
        {"1.", STK_JSON_NULL, 0},
        {".5", STK_JSON_NULL, 0},
        {"1e", STK_JSON_NULL, 0},
        {"1e+", STK_JSON_NULL, 0},
        {"1e+-2", STK_JSON_NULL, 0},
        {"+1", STK_JSON_NULL, 0},
        {"0x10", STK_JSON_NULL, 0},
        {"NaN", STK_JSON_NULL, 0},
        {"11111111111111111111111111111111111111111111111111111111111111111", STK_JSON_NULL, 0},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_json_field fields[FIELDS];
        char text[128];
        size_t n = 0;
        int len = snprintf(text, sizeof text, "{\"a\":%s}", rows[i].text);
        int e = read_text(text, (size_t)len, fields, &n);

        if (rows[i].kind == STK_JSON_NULL) {
            assert_int_not_equal(e, 0);
            continue;
        }
        assert_int_equal(e, 0);
        assert_int_equal(fields[0].kind, rows[i].kind);
        if (rows[i].kind == STK_JSON_INTEGER)
            assert_int_equal(fields[0].integer, rows[i].integer);
    }
}

static void test_read_errors(void **state)
{
    static const struct {
        const char *text;
        int error;
    } rows[] = {
        {"", STK_JSON_E_SYNTAX},
        {"  ", STK_JSON_E_SYNTAX},
        {"null", STK_JSON_E_SYNTAX},
        {"[]", STK_JSON_E_SYNTAX},
        {"{", STK_JSON_E_SYNTAX},
        {"{}x", STK_JSON_E_SYNTAX},
        {"{}{}", STK_JSON_E_SYNTAX},
        {"{a:1}", STK_JSON_E_SYNTAX},
        {"{'a':1}", STK_JSON_E_SYNTAX},
        {"{\"a\"}", STK_JSON_E_SYNTAX},
        {"{\"a\":}", STK_JSON_E_SYNTAX},
        {"{\"a\":1,}", STK_JSON_E_SYNTAX},
        {"{,\"a\":1}", STK_JSON_E_SYNTAX},
        {"{\"a\":1 \"b\":2}", STK_JSON_E_SYNTAX},
        {"{\"a\":tru}", STK_JSON_E_SYNTAX},
        {"{\"a\":truex}", STK_JSON_E_SYNTAX},
        {"{\"a\":{}}", STK_JSON_E_NESTED},
        {"{\"a\":[1]}", STK_JSON_E_NESTED},
        {"{\"a\":1,\"\\u0061\":2}", STK_JSON_E_TWICE},
        {"{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1}", STK_JSON_E_FIELDS},
        {"GET / HTTP/1.1\r\n", STK_JSON_E_SYNTAX},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_json_field fields[FIELDS];
        size_t n = 99;

        assert_int_equal(read_text(rows[i].text, strlen(rows[i].text), fields, &n), rows[i].error);
        assert_int_equal(n, 99);
        assert_non_null(stk_json_error_text(rows[i].error));
    }
}

/* Every beginning of a valid text but the whole is refused, next to unreadable pages. */
static void test_read_every_split(void **state)
{
    static const char text[] =
        "{\"one\":\"\\ud83d\\ude00 \xe2\x82\xac\",\"two\":-1.5e+2,\"three\":false,\"four\":null}";
    struct stk_json_field fields[FIELDS];
    size_t n = 0;

    for (size_t len = 0; len < sizeof text - 1; len++) {
        assert_int_not_equal(read_text(text, len, fields, &n), 0);
        assert_int_not_equal(stk_json_read_object(edge_behind(text, len), len, fields, FIELDS, &n),
                             0);
    }
    assert_int_equal(read_text(text, sizeof text - 1, fields, &n), 0);
    assert_int_equal(n, 4);
}

/* Any byte changed to any other never reads outside, and never yields what was not written. */
static void test_read_garbage(void **state)
{
    static const char text[] = "{\"a\":\"\\u20ac\",\"b\":-12.5,\"c\":true}";

    for (size_t at = 0; at < sizeof text - 1; at++)
        for (int byte = 0; byte < 256; byte++) {
            struct stk_json_field fields[FIELDS];
            char copy[sizeof text];
            size_t n = 0;

            memcpy(copy, text, sizeof text);
            copy[at] = (char)byte;
            if (read_text(copy, sizeof text - 1, fields, &n) != 0)
                assert_int_equal(n, 0);
            else
                assert_true(n >= 1 && n <= 3);
        }
}

/* What is written is read as the same. */
static void test_round_trip(void **state)
{
    static const char odd[] = "\x01\x7f\"\\/ \xc3\xa9\xc2\x85\xf0\x9f\x98\x80\n";
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    struct stk_json_field fields[FIELDS];
    struct stk_json j = {0};
    size_t len = 0, n = 0;

    stk_json_object_begin(&j);
    stk_json_put_string(&j, odd, odd);
    stk_json_put_int(&j, "i", INT64_MIN);
    stk_json_object_end(&j);
    assert_int_equal(stk_json_end(&j, &text, &len), 0);
    assert_int_equal(stk_json_read_object(text, len, fields, FIELDS, &n), 0);
    assert_int_equal(n, 2);
    assert_string_equal(fields[0].name.ptr, odd);
    assert_string_equal(fields[0].text.ptr, odd);
    assert_int_equal(fields[1].integer, INT64_MIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_nested),  cmocka_unit_test(test_write_numbers),
        cmocka_unit_test(test_write_strings), cmocka_unit_test(test_write_nul_and_long),
        cmocka_unit_test(test_write_nothing), cmocka_unit_test(test_read_kinds),
        cmocka_unit_test(test_read_strings),  cmocka_unit_test(test_read_numbers),
        cmocka_unit_test(test_read_errors),   cmocka_unit_test(test_read_every_split),
        cmocka_unit_test(test_read_garbage),  cmocka_unit_test(test_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
