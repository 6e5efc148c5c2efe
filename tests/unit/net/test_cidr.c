/* Networks: parsing, and who is in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "net/cidr.h"

static struct stk_addr addr_of(const char *text)
{
    struct stk_addr addr = {0};
    struct sockaddr_in *in4 = (struct sockaddr_in *)&addr.ss;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&addr.ss;

    if (strcmp(text, "unix") == 0) {
        addr.ss.ss_family = AF_UNIX;
    } else if (inet_pton(AF_INET, text, &in4->sin_addr) == 1) {
        in4->sin_family = AF_INET;
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
        in6->sin6_family = AF_INET6;
    }
    return addr;
}

static void test_match(void **state)
{
    static const struct {
        const char *net, *peer;
        bool in;
    } rows[] = {
        {"127.0.0.1", "127.0.0.1", true},
        {"127.0.0.1", "127.0.0.2", false},
        {"127.0.0.1", "::ffff:127.0.0.1", true},
        {"::ffff:127.0.0.1", "127.0.0.1", true},
        {"127.0.0.1", "::1", false},
        {"127.0.0.1", "unix", false},
        {"10.0.0.0/8", "10.255.255.255", true},
        {"10.0.0.0/8", "11.0.0.0", false},
        {"10.0.0.0/8", "::ffff:10.9.9.9", true},
        {"10.1.2.3/8", "10.9.9.9", true},
        {"192.168.4.0/22", "192.168.7.255", true},
        {"192.168.4.0/22", "192.168.8.0", false},
        {"192.168.4.0/22", "192.168.3.255", false},
        {"1.2.3.4/31", "1.2.3.5", true},
        {"1.2.3.4/31", "1.2.3.6", false},
        {"1.2.3.4/32", "1.2.3.4", true},
        {"0.0.0.0/0", "255.1.2.3", true},
        {"0.0.0.0/0", "::1", false},
        {"::/0", "::1", true},
        {"::/0", "1.2.3.4", true},
        {"::1", "::1", true},
        {"::1", "::2", false},
        {"fd00::/8", "fdff::1", true},
        {"fd00::/8", "fe00::1", false},
        {"2001:db8::/33", "2001:db8:7fff::", true},
        {"2001:db8::/33", "2001:db8:8000::", false},
        {"unix", "unix", true},
        {"unix:", "unix", true},
        {"unix", "127.0.0.1", false},
        {"*", "9.9.9.9", true},
        {"*", "unix", true},
        {"*", "2001::1", true},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_cidr_set set = {0};
        struct stk_addr peer = addr_of(rows[i].peer);
        char *error = NULL;

        assert_false(stk_cidr_set_match(&set, &peer));
        assert_int_equal(stk_cidr_set_add(&set, rows[i].net, &error), 0);
        if (stk_cidr_set_match(&set, &peer) != rows[i].in)
            fail_msg("%s in %s", rows[i].peer, rows[i].net);
        if (strcmp(rows[i].peer, "unix") != 0)
            assert_int_equal(stk_cidr_set_match_text(&set, stk_span_str(rows[i].peer)), rows[i].in);
        stk_cidr_set_deinit(&set);
        stk_cidr_set_deinit(&set);
    }
}

static void test_refused(void **state)
{
    static const char *const rows[] = {
        "",
        "localhost",
        "10.0.0",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/8x",
        "::/129",
        "/8",
        "10.0.0.0/ 8",
        "1.2.3.4/08888",
        "[::1]",
        "1.2.3.4:80",
        "UNIX",
        "**",
        "::1%lo",
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_cidr_set set = {0};
        struct stk_cidr cidr = {.bits = 77};
        char *error = NULL;

        assert_true(stk_cidr_parse(rows[i], &cidr, &error) < 0);
        assert_int_equal(cidr.bits, 77);
        assert_non_null(error);
        free(error);
        error = NULL;
        assert_true(stk_cidr_set_add(&set, rows[i], &error) < 0);
        assert_int_equal(set.n, 0);
        free(error);
    }
}

static void test_several(void **state)
{
    struct stk_cidr_set set = {0};
    char *error = NULL;
    struct stk_addr in = addr_of("172.16.1.1"), also = addr_of("::1"), out = addr_of("8.8.8.8");

    assert_int_equal(stk_cidr_set_add(&set, "172.16.0.0/12", &error), 0);
    assert_int_equal(stk_cidr_set_add(&set, "::1", &error), 0);
    assert_true(stk_cidr_set_match(&set, &in));
    assert_true(stk_cidr_set_match(&set, &also));
    assert_false(stk_cidr_set_match(&set, &out));
    stk_cidr_set_deinit(&set);
}

/* What stands in X-Forwarded-For may be anything. */
static void test_match_text_is_strict(void **state)
{
    static const char *const rows[] = {"",
                                       "unknown",
                                       "_hidden",
                                       "10.0.0.1:80",
                                       "[::1]",
                                       "10.0.0.1 ",
                                       "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb"};
    struct stk_cidr_set set = {0};
    char *error = NULL;

    assert_int_equal(stk_cidr_set_add(&set, "::/0", &error), 0);
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++)
        assert_false(stk_cidr_set_match_text(&set, stk_span_str(rows[i])));
    assert_false(stk_cidr_set_match_text(&set, stk_span_make("10.0.0.1\0x", 10)));
    assert_true(stk_cidr_set_match_text(&set, stk_span_make("10.0.0.1, 2", 8)));
    stk_cidr_set_deinit(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_several),
        cmocka_unit_test(test_match_text_is_strict),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
