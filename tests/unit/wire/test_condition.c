/* Conditional requests: the order of the preconditions, and lists of entity-tags. */
#include "edge.h"

#include <stdio.h>

#include "base/macros.h"
#include "wire/condition.h"
#include "wire/http1.h"

#define DATE      "Sun, 06 Nov 1994 08:49:37 GMT"
#define EARLIER   "Sun, 06 Nov 1994 08:49:36 GMT"
#define LATER     "Sun, 06 Nov 1994 08:49:38 GMT"
#define DATE_UNIX INT64_C(784111777)

static const struct stk_http1_limits limits = {8192, 32768, 128, false};

static void parse(struct stk_conditions *c, const char *method, const char *fields)
{
    static struct stk_head head;
    static char text[4096];
    int n = snprintf(text, sizeof text, "%s / HTTP/1.1\r\nHost: x\r\n%s\r\n", method, fields);

    assert_int_equal(stk_http1_parse(&head, text, (size_t)n, &limits), STK_HTTP1_OK);
    stk_conditions_find(c, &head);
}

static void test_preconditions(void **state)
{
    static const struct {
        const char *fields;
        enum stk_condition_result wanted;
    } rows[] = {
        {"", STK_CONDITION_SEND},
        {"If-None-Match: \"a\"\r\n", STK_CONDITION_NOT_MODIFIED},
        {"if-none-match: W/\"a\"\r\n", STK_CONDITION_NOT_MODIFIED},
        {"If-None-Match: \"b\"\r\n", STK_CONDITION_SEND},
        {"If-None-Match: \"b\", \"a\"\r\n", STK_CONDITION_NOT_MODIFIED},
        {"If-None-Match: \"b\"\r\nAccept: */*\r\nIf-None-Match: \"a\"\r\n",
         STK_CONDITION_NOT_MODIFIED},
        {"If-None-Match: *\r\n", STK_CONDITION_NOT_MODIFIED},
        {"If-None-Match: a\r\n", STK_CONDITION_SEND},
        {"If-None-Match:\r\n", STK_CONDITION_SEND},
        {"If-Modified-Since: " DATE "\r\n", STK_CONDITION_NOT_MODIFIED},
        {"If-Modified-Since: " LATER "\r\n", STK_CONDITION_NOT_MODIFIED},
        {"If-Modified-Since: " EARLIER "\r\n", STK_CONDITION_SEND},
        {"If-Modified-Since: yesterday\r\n", STK_CONDITION_SEND},
        {"If-Modified-Since: " DATE "\r\nIf-Modified-Since: " DATE "\r\n", STK_CONDITION_SEND},
        /* If-None-Match stands in for If-Modified-Since. */
        {"If-Modified-Since: " DATE "\r\nIf-None-Match: \"b\"\r\n", STK_CONDITION_SEND},
        {"If-Match: \"a\"\r\n", STK_CONDITION_SEND},
        {"If-Match: \"x\", \"a\"\r\n", STK_CONDITION_SEND},
        {"If-Match: *\r\n", STK_CONDITION_SEND},
        {"If-Match: W/\"a\"\r\n", STK_CONDITION_FAILED},
        {"If-Match: \"b\"\r\n", STK_CONDITION_FAILED},
        {"If-Match: \"b\"\r\nIf-None-Match: \"a\"\r\n", STK_CONDITION_FAILED},
        {"If-Match: \"a\"\r\nIf-None-Match: \"a\"\r\n", STK_CONDITION_NOT_MODIFIED},
        {"If-Unmodified-Since: " DATE "\r\n", STK_CONDITION_SEND},
        {"If-Unmodified-Since: " EARLIER "\r\n", STK_CONDITION_FAILED},
        {"If-Unmodified-Since: never\r\n", STK_CONDITION_SEND},
        /* If-Match stands in for If-Unmodified-Since. */
        {"If-Match: \"a\"\r\nIf-Unmodified-Since: " EARLIER "\r\n", STK_CONDITION_SEND},
    };
    const struct stk_validators v = {STK_SPAN_LIT("\"a\""), DATE_UNIX};

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_conditions c;

        parse(&c, "GET", rows[i].fields);
        assert_int_equal(stk_conditions_are_set(&c), rows[i].fields[0] != '\0');
        assert_int_equal(stk_conditions_check(&c, &v), rows[i].wanted);
    }
}

static void test_ranges(void **state)
{
    static const struct {
        const char *method, *fields;
        bool counts;
    } rows[] = {
        {"GET", "", false},
        {"GET", "Range: bytes=0-1\r\n", true},
        {"HEAD", "Range: bytes=0-1\r\n", false},
        {"GET", "Range: bytes=0-1\r\nRange: bytes=2-3\r\n", false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: \"a\"\r\n", true},
        {"GET", "Range: bytes=0-1\r\nIf-Range: \"b\"\r\n", false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: W/\"a\"\r\n", false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: " DATE "\r\n", true},
        {"GET", "Range: bytes=0-1\r\nIf-Range: " LATER "\r\n", false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: " EARLIER "\r\n", false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: \r\n", false},
        {"GET", "Range: bytes=0-1\r\nIf-Range: \"a\"\r\nIf-Range: \"a\"\r\n", false},
    };
    const struct stk_validators v = {STK_SPAN_LIT("\"a\""), DATE_UNIX};
    struct stk_conditions c;

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        parse(&c, rows[i].method, rows[i].fields);
        assert_int_equal(stk_conditions_range(&c, &v, DATE_UNIX + 60).len > 0, rows[i].counts);
    }
    /* The file may have changed again within the second of its date. */
    parse(&c, "GET", "Range: bytes=0-1\r\nIf-Range: " DATE "\r\n");
    assert_int_equal(stk_conditions_range(&c, &v, DATE_UNIX + 1).len, 0);
}

static void test_etag_lists(void **state)
{
    static const struct {
        const char *list;
        bool strong, weak;
    } rows[] = {
        {"\"a,b\"", true, true},
        {"W/\"a,b\"", false, true},
        {"\"x\", W/\"a,b\" , \"y\"", false, true},
        {"*", true, true},
        {"", false, false},
        {"\"a,b", false, false},
        {"a,b", false, false},
        {"w/\"a,b\"", false, false},
        {"\"x\"\"a,b\"", false, false},
        {"\"x y\", \"a,b\"", false, false},
        {",,\t\"a,b\"", true, true},
        {"W/", false, false},
        {"\"", false, false},
        {"*, \"a,b\"", false, false},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        size_t len = strlen(rows[i].list);
        stk_span list = stk_span_make(edge_before(rows[i].list, len), len);

        assert_int_equal(stk_etag_list_has(list, STK_SPAN_LIT("\"a,b\""), false), rows[i].strong);
        assert_int_equal(stk_etag_list_has(list, STK_SPAN_LIT("\"a,b\""), true), rows[i].weak);
        assert_int_equal(stk_etag_list_has(list, STK_SPAN_LIT("W/\"a,b\""), true), rows[i].weak);
    }
    assert_true(stk_etag_list_has(STK_SPAN_LIT("*"), STK_SPAN_LIT(""), false));
    assert_false(stk_etag_list_has(STK_SPAN_LIT("\"\""), STK_SPAN_LIT(""), true));
}

static void test_etag_every_split(void **state)
{
    static const char list[] = "W/\"x\", \"a,b\",\"c\"";

    (void)state;
    for (size_t len = 0; len < sizeof list; len++) {
        stk_span cut = stk_span_make(edge_before(list, len), len);

        assert_int_equal(stk_etag_list_has(cut, STK_SPAN_LIT("\"a,b\""), false), len >= 12);
    }
}

static void test_accept(void **state)
{
    struct stk_conditions c;
    struct stk_accept a;

    (void)state;
    parse(&c, "GET",
          "Accept-Encoding: gzip\r\nAccept-Language: br\r\nAccept-Encoding: br;q=0.5\r\n");
    assert_false(stk_conditions_are_set(&c));
    stk_conditions_accept(&c, &a);
    assert_int_equal(stk_accept_quality(&a, STK_CODING_GZIP), 1000);
    assert_int_equal(stk_accept_quality(&a, STK_CODING_BR), 500);
    parse(&c, "GET", "Accept: text/html\r\n");
    stk_conditions_accept(&c, &a);
    assert_int_equal(stk_accept_quality(&a, STK_CODING_IDENTITY), 1000);
    assert_int_equal(stk_accept_quality(&a, STK_CODING_GZIP), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preconditions), cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_etag_lists),    cmocka_unit_test(test_etag_every_split),
        cmocka_unit_test(test_accept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
