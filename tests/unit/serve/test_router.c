/* For whom rules are, where redirects lead, and what becomes of the names of files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "serve/location.h"
#include "serve/regex.h"
#include "serve/router_priv.h"
#include "serve/sendfile.h"

static void test_prefixes(void **state)
{
    static const struct {
        const char *prefix, *path;
        bool fits;
    } rows[] = {
        {"", "", true},           {"", "/a", true},          {"/api", "/api", true},
        {"/api", "/api/", true},  {"/api", "/api/x", true},  {"/api", "/apix", false},
        {"/api", "/ap", false},   {"/api", "/API", false},   {"/api/", "/api", false},
        {"/api/", "/api/", true}, {"/api/", "/api/x", true}, {"/", "/x", true},
        {"/", "", false},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++)
        assert_int_equal(stk_router_prefix_fits(rows[i].prefix, strlen(rows[i].prefix),
                                                stk_span_str(rows[i].path)),
                         rows[i].fits);
}

static void test_hosts(void **state)
{
    static const struct {
        const char *pattern, *host;
        bool fits;
    } rows[] = {
        {"example.com", "example.com", true},
        {"example.com", "EXAMPLE.com:81", true},
        {"example.com", "example.com.", true},
        {"example.com", "example.com.:8000", true},
        {"example.com", "www.example.com", false},
        {"example.com", "", false},
        {"*.example.com", "a.example.com", true},
        {"*.example.com", "a.b.example.com.", true},
        {"*.example.com", "example.com", false},
        {"*.example.com", ".example.com", false},
        {"*.example.com", "aexample.com", false},
        {"[::1]", "[::1]", true},
        {"[::1]", "[::1]:8000", true},
        {"[::1]", "[::2]:8000", false},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++)
        assert_int_equal(stk_router_host_fits(rows[i].pattern, stk_span_str(rows[i].host)),
                         rows[i].fits);
}

static void fill(const char *text, const struct stk_location_values *values, const char *expected)
{
    char *error = NULL, out[256];
    struct stk_location *location = stk_location_new(text, 9, &error);
    size_t len;

    assert_non_null(location);
    len = stk_location_fill(location, values, out, sizeof out);
    assert_int_equal(len, strlen(expected));
    assert_memory_equal(out, expected, len);
    /* It fits, or there is nothing. */
    for (size_t cap = 0; cap < len; cap++)
        assert_int_equal(stk_location_fill(location, values, out, cap), 0);
    stk_location_free(location);
}

static void test_redirects(void **state)
{
    const stk_span groups[STK_REGEX_GROUPS] = {
        STK_SPAN_LIT("all"),
        STK_SPAN_LIT("//evil.example/x"),
        STK_SPAN_LIT(".evil.example"),
        STK_SPAN_LIT("@evil.example"),
        STK_SPAN_LIT("a b?c#d%\r\n"),
        STK_SPAN_LIT("\\evil"),
        STK_SPAN_LIT(""),
        STK_SPAN_LIT("\xc3\xbc"),
    };
    const struct stk_location_values values = {
        .groups = groups,
        .host = STK_SPAN_LIT("example.org:81"),
        .path = STK_SPAN_LIT("/a%20b/\"<c>"),
        .query = STK_SPAN_LIT("x=1&y=%0d?\" #"),
    };

    (void)state;
    fill("/new/$0", &values, "/new/all");
    fill("/$1", &values, "/evil.example/x");
    fill("/$5/x", &values, "/%5Cevil/x");
    fill("https://example.com$1", &values, "https://example.com//evil.example/x");
    fill("https://example.com$2", &values, "https://example.com/.evil.example");
    fill("https://example.com$3", &values, "https://example.com/@evil.example");
    fill("https://example.com:80$2", &values, "https://example.com:80/.evil.example");
    fill("https://example.com$6", &values, "https://example.com");
    fill("https://example.com/$6$2", &values, "https://example.com/.evil.example");
    fill("https://example.com$6$2", &values, "https://example.com/.evil.example");
    fill("https://example.com$6$6x$2", &values, "https://example.com/x.evil.example");
    fill("https://example.com$6?a=$2", &values, "https://example.com?a=.evil.example");
    fill("https://example.com$6$query", &values, "https://example.com?x=1&y=%0d?%22%20%23");
    fill("//example.com$6$3", &values, "//example.com/@evil.example");
    fill("https://$host$2", &values, "https://example.org:81/.evil.example");
    fill("/$4", &values, "/a%20b%3Fc%23d%25%0D%0A");
    fill("/$7", &values, "/%C3%BC");
    fill("/x$path$query", &values, "/x/a%20b/%22%3Cc%3E?x=1&y=%0d?%22%20%23");
    fill("/a$$1", &values, "/a$1");
    fill("https://$host$uri", &values,
         "https://example.org:81/a%20b/%22%3Cc%3E?x=1&y=%0d?%22%20%23");
}

static void test_redirects_that_are_refused(void **state)
{
    static const struct {
        const char *text;
        unsigned groups;
        const char *said;
    } rows[] = {
        {"new", 9, "expected a URL"},
        {"$1", 9, "expected a URL"},
        {"$1://example.com", 9, "expected a URL"},
        {"https://$1/", 9, "no host is named"},
        {"https://$path", 9, "no host is named"},
        {"//$1", 9, "no host is named"},
        {"/$x", 9, "is none of"},
        {"/$", 9, "is none of"},
        {"/$hosts", 9, "is none of"},
        {"/$2", 1, "there is only 1"},
        {"/$3", 2, "there are only 2"},
        {"/$1", 0, "it needs a regex"},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        char *error = NULL;

        assert_null(stk_location_new(rows[i].text, rows[i].groups, &error));
        assert_non_null(error);
        if (!strstr(error, rows[i].said))
            fail_msg("%s: %s", rows[i].text, error);
        free(error);
    }
}

static void test_patterns(void **state)
{
    struct stk_regex_scratch *scratch;
    struct stk_regex *regex;
    stk_span groups[STK_REGEX_GROUPS];
    char *error = NULL, path[4096];

    (void)state;
    regex = stk_regex_new("^/(a+)+(b)?$", &error);
    if (regex == NULL) { /* a build without PCRE2 */
        assert_non_null(strstr(error, "built without PCRE2"));
        free(error);
        assert_null(stk_regex_scratch_new());
        return;
    }
    scratch = stk_regex_scratch_new();
    assert_non_null(scratch);
    assert_int_equal(stk_regex_groups(regex), 2);
    assert_int_equal(stk_regex_match(regex, scratch, STK_SPAN_LIT("/aa"), groups), STK_REGEX_MATCH);
    assert_true(stk_span_eq(groups[0], STK_SPAN_LIT("/aa")));
    assert_int_equal(groups[2].len, 0);
    assert_int_equal(groups[9].len, 0);
    /* "$" is the very end, and bytes need not be UTF-8. */
    assert_int_equal(stk_regex_match(regex, scratch, STK_SPAN_LIT("/aa\n"), groups),
                     STK_REGEX_NONE);
    assert_int_equal(stk_regex_match(regex, scratch, STK_SPAN_LIT("/\xff"), groups),
                     STK_REGEX_NONE);
    assert_int_equal(stk_regex_match(regex, scratch, STK_SPAN_LIT(""), groups), STK_REGEX_NONE);
    memset(path, 'a', sizeof path);
    path[0] = '/';
    path[sizeof path - 1] = '!';
    for (int i = 0; i < 3; i++)
        assert_int_equal(stk_regex_match(regex, scratch, stk_span_make(path, sizeof path), groups),
                         STK_REGEX_LIMIT);
    stk_regex_free(regex);
    /* More groups than there are variables for. */
    regex = stk_regex_new("(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)", &error);
    assert_non_null(regex);
    assert_int_equal(stk_regex_match(regex, scratch, STK_SPAN_LIT("abcdefghijk"), groups),
                     STK_REGEX_MATCH);
    assert_true(stk_span_eq(groups[9], STK_SPAN_LIT("i")));
    stk_regex_free(regex);
    stk_regex_scratch_free(scratch);
    assert_null(stk_regex_new("(a", &error));
    assert_non_null(strstr(error, "at ''"));
    free(error);
}

static void test_names_of_files(void **state)
{
    static const struct {
        const char *path, *tidy;
    } rows[] = {
        {"", ""},
        {"/", ""},
        {"a", "a"},
        {"/a", "/a"},
        {"//a///b/", "/a/b"},
        {"./a/./b/.", "a/b"},
        {"/a/../b", "/b"},
        {"a/../b", "b"},
        {"/a/b/../../c", "/c"},
        {"/a/..", ""},
        {"/..", NULL},
        {"..", NULL},
        {"a/../../b", NULL},
        {"/a/..b/...", "/a/..b/..."},
    };
    char out[PATH_MAX];

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        bool good = stk_sendfile_tidy(rows[i].path, strlen(rows[i].path), out);

        assert_int_equal(good, rows[i].tidy != NULL);
        if (good)
            assert_string_equal(out, rows[i].tidy);
    }
    assert_false(stk_sendfile_tidy("/a\0b", 4, out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefixes),  cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_redirects), cmocka_unit_test(test_redirects_that_are_refused),
        cmocka_unit_test(test_patterns),  cmocka_unit_test(test_names_of_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
