/* Media types by the endings of names, and tables of them. */
#include "edge.h"

#include "base/macros.h"
#include "wire/mime.h"

static void test_endings(void **state)
{
    static const struct {
        const char *name, *ending;
    } rows[] = {
        {"a.css", "css"},  {"dir.d/file", ""}, {"dir/a.tar.gz", "gz"},
        {"file", ""},      {".profile", ""},   {"dir/.env", ""},
        {"a.", ""},        {"", ""},           {"/a/b.WOFF2", "WOFF2"},
        {"a..css", "css"},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        size_t len = strlen(rows[i].name);
        stk_span ending = stk_mime_ending(stk_span_make(edge_behind(rows[i].name, len), len));

        assert_int_equal(ending.len, strlen(rows[i].ending));
        assert_memory_equal(ending.ptr, rows[i].ending, ending.len);
    }
    assert_int_equal(stk_mime_ending(STK_SPAN_LIT("a.123456789012345678901234567890123")).len, 0);
}

static void type_is(const char *ending, const char *type)
{
    stk_span found = stk_mime_builtin(stk_span_str(ending));

    assert_int_equal(found.len, strlen(type));
    assert_memory_equal(found.ptr ? found.ptr : "", type, found.len);
}

static void test_builtin(void **state)
{
    (void)state;
    type_is("html", "text/html; charset=utf-8");
    type_is("CSS", "text/css; charset=utf-8");
    type_is("js", "text/javascript; charset=utf-8");
    type_is("mjs", "text/javascript; charset=utf-8");
    type_is("wasm", "application/wasm");
    type_is("json", "application/json");
    type_is("map", "application/json");
    type_is("webmanifest", "application/manifest+json");
    type_is("avif", "image/avif");
    type_is("webp", "image/webp");
    type_is("svg", "image/svg+xml");
    type_is("woff2", "font/woff2");
    type_is("xml", "text/xml");
    type_is("zst", "application/zstd");
    type_is("3gp", "video/3gpp");
    type_is("nothing", "");
    type_is("", "");
    type_is("xmlx", "");
}

static void test_types(void **state)
{
    (void)state;
    assert_true(stk_mime_is_type(STK_SPAN_LIT("text/plain")));
    assert_true(stk_mime_is_type(STK_SPAN_LIT("text/plain; charset=latin1")));
    assert_true(stk_mime_is_type(STK_SPAN_LIT("application/vnd.x+json")));
    assert_false(stk_mime_is_type(STK_SPAN_LIT("")));
    assert_false(stk_mime_is_type(STK_SPAN_LIT("text")));
    assert_false(stk_mime_is_type(STK_SPAN_LIT("text/")));
    assert_false(stk_mime_is_type(STK_SPAN_LIT("/plain")));
    assert_false(stk_mime_is_type(STK_SPAN_LIT("text/plain/x")));
    assert_false(stk_mime_is_type(STK_SPAN_LIT("text/plain\r\nX: y")));
    assert_true(stk_mime_is_text(STK_SPAN_LIT("text/x-python")));
    assert_true(stk_mime_is_text(STK_SPAN_LIT("Application/JavaScript")));
    assert_false(stk_mime_is_text(STK_SPAN_LIT("text/plain; charset=latin1")));
    assert_false(stk_mime_is_text(STK_SPAN_LIT("text/xml")));
    assert_false(stk_mime_is_text(STK_SPAN_LIT("application/json")));
}

static size_t count(const char *text, size_t len, char *out)
{
    stk_span pos = stk_span_make(edge_before(text, len), len), type, endings, word;
    size_t n = 0;

    out[0] = '\0';
    while (stk_mime_next_line(&pos, &type, &endings)) {
        strncat(out, type.ptr, type.len);
        while ((word = stk_mime_next_word(&endings)).len > 0) {
            strcat(out, ":");
            strncat(out, word.ptr, word.len);
        }
        strcat(out, "|");
        n++;
    }
    return n;
}

static void test_table(void **state)
{
    static const char text[] = "# a comment\n\ntypes {\n  text/html html  htm; # more\r\n"
                               "application/x-none\nimage/png\tpng\n}\nbad line here\n"
                               "audio/x a;b b;;\nvideo/y\ty";
    char out[256];

    (void)state;
    assert_int_equal(count(text, sizeof text - 1, out), 4);
    assert_string_equal(out, "text/html:html:htm|image/png:png|audio/x:a;b:b|video/y:y|");
    for (size_t len = 0; len < sizeof text; len++)
        assert_in_range(count(text, len, out), 0, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_endings),
        cmocka_unit_test(test_builtin),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
