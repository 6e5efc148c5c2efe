/* Texts of addresses: what users write, what is refused and how it is said, what comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/macros.h"
#include "config/config.h"
#include "net/addr.h"

static struct stk_addr addr_of(const char *text, uint16_t port)
{
    struct stk_addr addr = {0};
    struct sockaddr_in *in4 = (struct sockaddr_in *)&addr.ss;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&addr.ss;

    if (inet_pton(AF_INET, text, &in4->sin_addr) == 1) {
        in4->sin_family = AF_INET;
        addr.len = sizeof *in4;
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
        in6->sin6_family = AF_INET6;
        addr.len = sizeof *in6;
    }
    stk_addr_set_port(&addr, port);
    return addr;
}

static void test_tcp_specs(void **state)
{
    static const struct {
        const char *text, *host;
        uint16_t port;
    } rows[] = {
        {"127.0.0.1:8000", "127.0.0.1", 8000},
        {"localhost:80", "localhost", 80},
        {"my-host_1.example:65535", "my-host_1.example", 65535},
        {":8000", NULL, 8000},
        {"*:8000", NULL, 8000},
        {":0", NULL, 0},
        {"[::1]:9000", "::1", 9000},
        {"[::]:9000", "::", 9000},
        {"[fe80::1%lo]:9000", "fe80::1%lo", 9000},
        {"0.0.0.0", "0.0.0.0", STK_ADDR_DEFAULT_PORT},
        {"[::1]", "::1", STK_ADDR_DEFAULT_PORT},
        {"http://127.0.0.1:8000", "127.0.0.1", 8000},
        {"HTTP://127.0.0.1:8000/", "127.0.0.1", 8000},
        {"tcp://127.0.0.1:8000", "127.0.0.1", 8000},
        {"http://[::1]:8000/", "::1", 8000},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_addr_spec spec;
        char *error = NULL;

        assert_int_equal(stk_addr_spec_parse(rows[i].text, &spec, &error), 0);
        assert_int_equal(spec.kind, STK_ADDR_TCP);
        assert_string_equal(spec.scheme, "http");
        assert_int_equal(spec.port, rows[i].port);
        if (rows[i].host == NULL)
            assert_null(spec.host);
        else
            assert_string_equal(spec.host, rows[i].host);
        stk_addr_spec_deinit(&spec);
        stk_addr_spec_deinit(&spec);
    }
}

static void test_unix_specs(void **state)
{
    static const struct {
        const char *text, *path, *owner;
        int64_t mode;
    } rows[] = {
        {"unix:/run/a.sock", "/run/a.sock", NULL, -1},
        {"unix:///run/a.sock", "/run/a.sock", NULL, -1},
        {"unix:a.sock", "a.sock", NULL, -1},
        {"/run/a.sock", "/run/a.sock", NULL, -1},
        {"./a.sock", "./a.sock", NULL, -1},
        {"http:///run/a.sock", "/run/a.sock", NULL, -1},
        {"unix:@name", "@name", NULL, -1},
        {"@name", "@name", NULL, -1},
        {"unix:/a?mode=660", "/a", NULL, 0660},
        {"unix:/a?mode=0&owner=www", "/a", "www", 0},
        {"unix:/a?owner=www:web&mode=0777", "/a", "www:web", 0777},
        {"unix:/a?owner=www&owner=:web", "/a", ":web", -1},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_addr_spec spec;
        char *error = NULL;
        assert_int_equal(stk_addr_spec_parse(rows[i].text, &spec, &error), 0);
        assert_int_equal(spec.kind, STK_ADDR_UNIX);
        assert_string_equal(spec.path, rows[i].path);
        assert_int_equal(spec.mode, rows[i].mode);
        if (rows[i].owner == NULL)
            assert_null(spec.owner);
        else
            assert_string_equal(spec.owner, rows[i].owner);
        stk_addr_spec_deinit(&spec);
    }
}

static void test_proxy_protocol(void **state)
{
    static const struct {
        const char *text;
        enum stk_addr_kind kind;
        int how;
    } rows[] = {
        {"127.0.0.1:80", STK_ADDR_TCP, -1},
        {"127.0.0.1:80?proxy-protocol=required", STK_ADDR_TCP, STK_PROXY_PROTOCOL_REQUIRED},
        {"https://:443?proxy-protocol=optional", STK_ADDR_TCP, STK_PROXY_PROTOCOL_OPTIONAL},
        {"[::1]:80?proxy-protocol=off", STK_ADDR_TCP, STK_PROXY_PROTOCOL_OFF},
        {"unix:/a?mode=660&proxy-protocol=required", STK_ADDR_UNIX, STK_PROXY_PROTOCOL_REQUIRED},
        {"@a?proxy-protocol=required", STK_ADDR_UNIX, STK_PROXY_PROTOCOL_REQUIRED},
        {"fd://web?proxy-protocol=required", STK_ADDR_FD, STK_PROXY_PROTOCOL_REQUIRED},
        {"fd://3?proxy-protocol=off", STK_ADDR_FD, STK_PROXY_PROTOCOL_OFF},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_addr_spec spec;
        char *error = NULL;

        assert_int_equal(stk_addr_spec_parse(rows[i].text, &spec, &error), 0);
        assert_int_equal(spec.kind, rows[i].kind);
        assert_int_equal(spec.proxy_protocol, rows[i].how);
        stk_addr_spec_deinit(&spec);
    }
}

static void test_fd_specs(void **state)
{
    struct stk_addr_spec spec;
    char *error = NULL;

    assert_int_equal(stk_addr_spec_parse("fd://3", &spec, &error), 0);
    assert_int_equal(spec.kind, STK_ADDR_FD);
    assert_int_equal(spec.fd, 3);
    assert_int_equal(stk_addr_spec_parse("fd:17", &spec, &error), 0);
    assert_int_equal(spec.fd, 17);
    assert_null(spec.path);
    assert_int_equal(stk_addr_spec_parse("fd://web-1", &spec, &error), 0);
    assert_int_equal(spec.fd, -1);
    assert_string_equal(spec.path, "web-1");
    stk_addr_spec_deinit(&spec);
}

/* Each mistake is named in the sentence, and nothing is written to the outputs. */
static void test_refused(void **state)
{
    static const struct {
        const char *text, *says;
        int code;
    } rows[] = {
        {"", "missing", STK_ADDR_E_INVALID},
        {"http://", "missing", STK_ADDR_E_INVALID},
        {"8000", "write :8000", STK_ADDR_E_INVALID},
        {"127.0.0.1:", "port", STK_ADDR_E_INVALID},
        {"127.0.0.1:65536", "65535", STK_ADDR_E_INVALID},
        {"127.0.0.1:-1", "port", STK_ADDR_E_INVALID},
        {"127.0.0.1:80a", "port", STK_ADDR_E_INVALID},
        {"127.0.0.1:99999999999999999999", "port", STK_ADDR_E_INVALID},
        {"127.0.0.1.5:80", "IPv4", STK_ADDR_E_INVALID},
        {"999.0.0.1:80", "IPv4", STK_ADDR_E_INVALID},
        {"::1:8000", "[::1]:8000", STK_ADDR_E_INVALID},
        {"[::1:8000", "[::1]:8000", STK_ADDR_E_INVALID},
        {"[::1]8000", "[::1]:8000", STK_ADDR_E_INVALID},
        {"[zz]:8000", "IPv6", STK_ADDR_E_INVALID},
        {"[127.0.0.1]:8000", "IPv6", STK_ADDR_E_INVALID},
        {"host/path:80", "not an address", STK_ADDR_E_INVALID},
        {"user@host:80", "not an address", STK_ADDR_E_INVALID},
        {"a b:80", "not an address", STK_ADDR_E_INVALID},
        {"unix:", "path", STK_ADDR_E_INVALID},
        {"@", "path", STK_ADDR_E_INVALID},
        {"unix:/a?mode=888", "octal", STK_ADDR_E_INVALID},
        {"unix:/a?mode=", "no option", STK_ADDR_E_INVALID},
        {"unix:/a?mode=1777", "777", STK_ADDR_E_INVALID},
        {"unix:/a?mode=66000000000000000000000", "octal", STK_ADDR_E_INVALID},
        {"unix:/a?", "no option", STK_ADDR_E_INVALID},
        {"unix:/a?user=www", "no option", STK_ADDR_E_INVALID},
        {"unix:@a?mode=660", "abstract", STK_ADDR_E_INVALID},
        {"127.0.0.1:80?", "no option", STK_ADDR_E_INVALID},
        {"127.0.0.1:80?mode=660", "no option", STK_ADDR_E_INVALID},
        {"fd://3?owner=www", "no option", STK_ADDR_E_INVALID},
        {":80?proxy-protocol=", "no option", STK_ADDR_E_INVALID},
        {":80?proxy-protocol=on", "off, optional or required", STK_ADDR_E_INVALID},
        {"fd://", "fd://3", STK_ADDR_E_INVALID},
        {"fd://a/b", "fd://3", STK_ADDR_E_INVALID},
        {"fd://-1", "fd://3", STK_ADDR_E_INVALID},
        {"gopher://:70", "gopher", STK_ADDR_E_INVALID},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_addr_spec spec, before;
        char *error = NULL;

        memset(&spec, 0x5a, sizeof spec);
        before = spec;
        assert_int_equal(stk_addr_spec_parse(rows[i].text, &spec, &error), rows[i].code);
        assert_memory_equal(&spec, &before, sizeof spec);
        assert_non_null(error);
        if (strstr(error, rows[i].says) == NULL)
            fail_msg("%s: \"%s\" lacks \"%s\"", rows[i].text, error, rows[i].says);
        free(error);
    }
}

static void test_long_unix_path(void **state)
{
    char text[200] = "unix:/";
    struct stk_addr_spec spec;
    char *error = NULL;

    memset(text + 6, 'x', 106);
    assert_int_equal(stk_addr_spec_parse(text, &spec, &error), 0);
    stk_addr_spec_deinit(&spec);
    memset(text + 6, 'x', 107);
    assert_int_equal(stk_addr_spec_parse(text, &spec, &error), STK_ADDR_E_INVALID);
    assert_non_null(strstr(error, "107"));
    free(error);
}

static size_t resolve(const char *text, struct stk_addr **ret_addrs)
{
    struct stk_addr_spec spec;
    char *error = NULL;
    size_t n = 0;

    assert_int_equal(stk_addr_spec_parse(text, &spec, &error), 0);
    assert_int_equal(stk_addr_resolve(&spec, ret_addrs, &n, &error), 0);
    stk_addr_spec_deinit(&spec);
    return n;
}

static void test_resolve(void **state)
{
    struct stk_addr *addrs = NULL;
    char *text;

    assert_int_equal(resolve("127.0.0.1:81", &addrs), 1);
    text = stk_addr_text(&addrs[0]);
    assert_string_equal(text, "127.0.0.1:81");
    free(text);
    free(addrs);

    assert_int_equal(resolve(":81", &addrs), 2);
    assert_int_equal(addrs[0].ss.ss_family, AF_INET6);
    assert_int_equal(addrs[1].ss.ss_family, AF_INET);
    assert_true(stk_addr_is_wildcard(&addrs[0]) && stk_addr_is_wildcard(&addrs[1]));
    assert_int_equal(stk_addr_port(&addrs[1]), 81);
    free(addrs);

    assert_true(resolve("localhost:81", &addrs) >= 1);
    assert_int_equal(stk_addr_port(&addrs[0]), 81);
    assert_false(stk_addr_is_wildcard(&addrs[0]));
    free(addrs);

    assert_int_equal(resolve("unix:/tmp/x", &addrs), 1);
    text = stk_addr_text(&addrs[0]);
    assert_string_equal(text, "unix:/tmp/x");
    free(text);
    free(addrs);

    assert_int_equal(resolve("@x", &addrs), 1);
    assert_int_equal(addrs[0].len, offsetof(struct sockaddr_un, sun_path) + 2);
    text = stk_addr_text(&addrs[0]);
    assert_string_equal(text, "unix:@x");
    free(text);
    free(addrs);
}

static void test_resolve_unknown(void **state)
{
    struct stk_addr_spec spec = {.kind = STK_ADDR_TCP, .port = 81};
    struct stk_addr *addrs = NULL;
    char name[] = "nowhere.invalid";
    char *error = NULL;
    size_t n = 77;

    spec.host = name;
    assert_int_equal(stk_addr_resolve(&spec, &addrs, &n, &error), STK_ADDR_E_UNRESOLVED);
    assert_null(addrs);
    assert_int_equal(n, 77);
    assert_non_null(strstr(error, "nowhere.invalid"));
    free(error);
}

static void test_format(void **state)
{
    static const struct {
        const char *text, *peer, *full;
    } rows[] = {
        {"0.0.0.0", "0.0.0.0", "0.0.0.0:7"},
        {"1.20.255.100", "1.20.255.100", "1.20.255.100:7"},
        {"10.200.30.99", "10.200.30.99", "10.200.30.99:7"},
        {"::1", "::1", "[::1]:7"},
        {"::", "::", "[::]:7"},
        {"2001:db8::ff", "2001:db8::ff", "[2001:db8::ff]:7"},
        {"::ffff:10.1.2.3", "10.1.2.3", "10.1.2.3:7"},
        {"1111:2222:3333:4444:5555:6666:7777:8888", "1111:2222:3333:4444:5555:6666:7777:8888",
         "[1111:2222:3333:4444:5555:6666:7777:8888]:7"},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_addr addr = addr_of(rows[i].text, 7);
        char buf[STK_ADDR_TEXT_MAX];
        uint16_t port = 0;
        char *full = stk_addr_text(&addr);

        assert_int_equal(stk_addr_format(&addr, buf, &port), strlen(rows[i].peer));
        assert_string_equal(buf, rows[i].peer);
        assert_int_equal(port, 7);
        assert_string_equal(full, rows[i].full);
        free(full);
    }
}

/* Every value of a byte, against the C library. */
static void test_format_all_bytes(void **state)
{
    for (unsigned v = 0; v < 256; v++) {
        struct stk_addr addr = addr_of("0.0.0.0", 1);
        struct sockaddr_in *in4 = (struct sockaddr_in *)&addr.ss;
        char want[INET_ADDRSTRLEN], buf[STK_ADDR_TEXT_MAX];
        uint16_t port;

        in4->sin_addr.s_addr = htonl(v << 24 | (255 - v) << 16 | v << 8 | (v ^ 0x55));
        assert_non_null(inet_ntop(AF_INET, &in4->sin_addr, want, sizeof want));
        assert_int_equal(stk_addr_format(&addr, buf, &port), strlen(want));
        assert_string_equal(buf, want);
    }
}

static void test_format_unix_peer(void **state)
{
    struct stk_addr addr = {.len = sizeof(sa_family_t)};
    char buf[STK_ADDR_TEXT_MAX] = "x";
    uint16_t port = 9;
    char *text;

    addr.ss.ss_family = AF_UNIX;
    assert_int_equal(stk_addr_format(&addr, buf, &port), 0);
    assert_string_equal(buf, "");
    assert_int_equal(port, 0);
    text = stk_addr_text(&addr);
    assert_string_equal(text, "unix:");
    free(text);
}

static void test_eq(void **state)
{
    struct stk_addr a = addr_of("127.0.0.1", 1), b = addr_of("127.0.0.1", 1);
    struct stk_addr c = addr_of("127.0.0.1", 2), d = addr_of("127.0.0.2", 1);
    struct stk_addr e = addr_of("::1", 1), f = addr_of("::1", 1), g = addr_of("::2", 1);

    assert_true(stk_addr_eq(&a, &b));
    assert_false(stk_addr_eq(&a, &c));
    assert_false(stk_addr_eq(&a, &d));
    assert_false(stk_addr_eq(&a, &e));
    assert_true(stk_addr_eq(&e, &f));
    assert_false(stk_addr_eq(&e, &g));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp_specs),        cmocka_unit_test(test_unix_specs),
        cmocka_unit_test(test_proxy_protocol),   cmocka_unit_test(test_fd_specs),
        cmocka_unit_test(test_refused),          cmocka_unit_test(test_long_unix_path),
        cmocka_unit_test(test_resolve),          cmocka_unit_test(test_resolve_unknown),
        cmocka_unit_test(test_format),           cmocka_unit_test(test_format_all_bytes),
        cmocka_unit_test(test_format_unix_peer), cmocka_unit_test(test_eq),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
