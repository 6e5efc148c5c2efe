/* Reason phrases. */
#include "edge.h"

#include "wire/http1.h"
#include "wire/http_status.h"

static void expect(unsigned status, const char *phrase)
{
    assert_true(stk_span_eq(stk_http_status_reason(status), stk_span_str(phrase)));
}

static void test_phrases(void **state)
{
    (void)state;
    expect(100, "Continue");
    expect(200, "OK");
    expect(404, "Not Found");
    expect(413, "Content Too Large");
    expect(431, "Request Header Fields Too Large");
    expect(511, "Network Authentication Required");
    expect(0, "Unknown");
    expect(299, "Unknown");
    expect(418, "Unknown");
    expect(999, "Unknown");
}

static void test_every_phrase_can_be_sent(void **state)
{
    (void)state;
    for (unsigned status = 0; status < 1000; status++) {
        stk_span phrase = stk_http_status_reason(status);

        assert_true(phrase.len > 0 && stk_http1_is_field_value(phrase));
    }
    for (unsigned r = STK_HTTP1_PARTIAL + 1; r < STK_HTTP1_RESULT_COUNT; r++) {
        unsigned status = stk_http1_error_status((enum stk_http1_result)r);

        assert_false(stk_span_eq(stk_http_status_reason(status), STK_SPAN_LIT("Unknown")));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_phrases),
        cmocka_unit_test(test_every_phrase_can_be_sent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
