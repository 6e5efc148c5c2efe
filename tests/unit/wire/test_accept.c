/* Which codings a client takes. */
#include "edge.h"

#include "base/macros.h"
#include "wire/accept.h"

struct row {
    const char *value;
    unsigned identity, gzip, br, zstd;
};

static void check(const struct stk_accept *a, const struct row *row)
{
    assert_int_equal(stk_accept_quality(a, STK_CODING_IDENTITY), row->identity);
    assert_int_equal(stk_accept_quality(a, STK_CODING_GZIP), row->gzip);
    assert_int_equal(stk_accept_quality(a, STK_CODING_BR), row->br);
    assert_int_equal(stk_accept_quality(a, STK_CODING_ZSTD), row->zstd);
}

static void test_qualities(void **state)
{
    static const struct row rows[] = {
        {"", 1, 0, 0, 0},
        {"gzip, deflate, br, zstd", 1, 1000, 1000, 1000},
        {"gzip", 1, 1000, 0, 0},
        {"GZip;Q=0.5 , BR; q=0.25", 1, 500, 250, 0},
        {"x-gzip", 1, 1000, 0, 0},
        {"*", 1000, 1000, 1000, 1000},
        {"*;q=0", 0, 0, 0, 0},
        {"gzip, *;q=0", 0, 1000, 0, 0},
        {"identity;q=0, br", 0, 0, 1000, 0},
        {"identity;q=0", 0, 0, 0, 0},
        {"identity, gzip;q=0.001", 1000, 1, 0, 0},
        {"gzip;q=0", 1, 0, 0, 0},
        {"gzip;q=1.000, br;q=0.999", 1, 1000, 999, 0},
        /* What is malformed does not count. */
        {"gzip;q=1.001", 1, 0, 0, 0},
        {"gzip;q=2", 1, 0, 0, 0},
        {"gzip;q=0.1234", 1, 0, 0, 0},
        {"gzip;q=", 1, 0, 0, 0},
        {"gzip;q", 1, 0, 0, 0},
        {"gzip;level=9", 1, 0, 0, 0},
        {"gzip;q=-1, br;q=.5, zstd;q=1.", 1, 0, 0, 1000},
        {",, ,\t,br,,", 1, 0, 1000, 0},
        {"gzipp, brr, gz", 1, 0, 0, 0},
        {"gzip br", 1, 0, 0, 0},
    };
    struct stk_accept a;

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        size_t len = strlen(rows[i].value);

        stk_accept_init(&a);
        stk_accept_add(&a, stk_span_make(edge_before(rows[i].value, len), len));
        check(&a, &rows[i]);
        stk_accept_init(&a);
        stk_accept_add(&a, stk_span_make(edge_behind(rows[i].value, len), len));
        check(&a, &rows[i]);
    }
}

static void test_without_field(void **state)
{
    const struct row row = {NULL, 1000, 0, 0, 0};
    struct stk_accept a;

    (void)state;
    stk_accept_init(&a);
    check(&a, &row);
}

static void test_several_fields(void **state)
{
    const struct row row = {NULL, 1, 500, 1000, 0};
    struct stk_accept a;

    (void)state;
    stk_accept_init(&a);
    stk_accept_add(&a, STK_SPAN_LIT("gzip;q=0.5"));
    stk_accept_add(&a, STK_SPAN_LIT("br"));
    check(&a, &row);
}

/* A value that is cut anywhere means what its whole members mean, and nothing is read behind it. */
static void test_every_split(void **state)
{
    static const char value[] = "zstd;q=0.75, br;q=0.5, gzip;q=0.25, identity;q=0";
    struct stk_accept a;

    (void)state;
    for (size_t len = 0; len < sizeof value; len++) {
        stk_accept_init(&a);
        stk_accept_add(&a, stk_span_make(edge_before(value, len), len));
        assert_true(stk_accept_quality(&a, STK_CODING_ZSTD) == 750 || len < 11);
        assert_true(stk_accept_quality(&a, STK_CODING_BR) == 500 || len < 21);
        assert_true(stk_accept_quality(&a, STK_CODING_GZIP) == 250 || len < 34);
    }
    assert_int_equal(stk_accept_quality(&a, STK_CODING_IDENTITY), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qualities),
        cmocka_unit_test(test_without_field),
        cmocka_unit_test(test_several_fields),
        cmocka_unit_test(test_every_split),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
