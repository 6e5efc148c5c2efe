/* X-Forwarded-For and Forwarded, element by element from the right. */
#include "edge.h"

#include "base/macros.h"
#include "wire/forwarded.h"

#define MAX 6

struct row {
    const char *list;
    /* From the right: "addr port proto host", "-" for an empty one; NULL where the list ends. */
    const char *elements[MAX];
};

typedef bool (*pop_fn)(stk_span *list, struct stk_forwarded *ret);

static const char *part(char *out, stk_span s, char end)
{
    if (s.len == 0)
        s = STK_SPAN_LIT("-");
    memcpy(out, s.ptr, s.len);
    out[s.len] = end;
    return out + s.len + 1;
}

static void check(const struct row *row, pop_fn pop)
{
    size_t len = strlen(row->list);
    stk_span list = {edge_before(row->list, len), len};

    for (unsigned i = 0;; i++) {
        struct stk_forwarded f, untouched;
        char text[512], *p = text;
        size_t before = list.len;

        memset(&f, 0x5a, sizeof(f));
        untouched = f;
        if (!pop(&list, &f)) {
            assert_memory_equal(&f, &untouched, sizeof(f));
            assert_int_equal(list.len, 0);
            if (row->elements[i])
                fail_msg("\"%s\" ends before element %u", row->list, i);
            return;
        }
        assert_true(list.len < before);
        p += part(p, f.addr, ' ') - p;
        p += part(p, f.port, ' ') - p;
        p += part(p, f.proto, ' ') - p;
        (void)part(p, f.host, 0);
        if (!row->elements[i] || strcmp(text, row->elements[i]) != 0)
            fail_msg("\"%s\", element %u: %s", row->list, i, text);
    }
}

static void test_xff(void **state)
{
    static const struct row rows[] = {
        {"", {NULL}},
        {" , ,\t", {NULL}},
        {"1.2.3.4", {"1.2.3.4 - - -"}},
        {"1.2.3.4, 10.0.0.1 ,\t127.0.0.1 ", {"127.0.0.1 - - -", "10.0.0.1 - - -", "1.2.3.4 - - -"}},
        {",,1.2.3.4,,", {"1.2.3.4 - - -"}},
        {"1.2.3.4:5678", {"1.2.3.4 5678 - -"}},
        {"2001:db8::1", {"2001:db8::1 - - -"}},
        {"[2001:db8::1]", {"2001:db8::1 - - -"}},
        {"[2001:db8::1]:443,::1", {"::1 - - -", "2001:db8::1 443 - -"}},
        {"unknown, 1.2.3.4", {"1.2.3.4 - - -", "- - - -"}},
        {"evil\"quote, 1.2.3.4", {"1.2.3.4 - - -", "- - - -"}},
        {"1.2.3.4:", {"- - - -"}},
        {"1.2.3.4:x", {"- - - -"}},
        {"1.2.3.4:65535", {"1.2.3.4 65535 - -"}},
        {"1.2.3.4:65536", {"- - - -"}},
        {"1.2.3.4:123456", {"- - - -"}},
        {"1.2.3", {"- - - -"}},
        {"1.2.3.256", {"- - - -"}},
        {"1.2.3.4 5.6.7.8", {"- - - -"}},
        {"[::1", {"- - - -"}},
        {"[::1]x", {"- - - -"}},
        {"[]", {"- - - -"}},
        {"[1.2.3.4]", {"- - - -"}},
        {"::1%eth0", {"- - - -"}},
        {":", {"- - - -"}},
        {"1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc", {"- - - -"}},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++)
        check(&rows[i], stk_forwarded_pop_xff);
}

static void test_forwarded(void **state)
{
    static const struct row rows[] = {
        {"", {NULL}},
        {", ,", {NULL}},
        {"for=1.2.3.4", {"1.2.3.4 - - -"}},
        {"For=\"[2001:db8:cafe::17]:4711\"", {"2001:db8:cafe::17 4711 - -"}},
        {"for=192.0.2.60;proto=http;by=203.0.113.43;host=example.com",
         {"192.0.2.60 - http example.com"}},
        {"FOR=192.0.2.43, for=\"198.51.100.17:80\";Proto=https",
         {"198.51.100.17 80 https -", "192.0.2.43 - - -"}},
        {"for=1.2.3.4 ; proto=https ;", {"1.2.3.4 - https -"}},
        {"for=1.2.3.4;;proto=https", {"1.2.3.4 - https -"}},
        {"for=unknown;proto=https", {"- - https -"}},
        {"for=_hidden, for=\"_a:_b\"", {"- - - -", "- - - -"}},
        {"for=\"1.2.3.4:_x\"", {"1.2.3.4 - - -"}},
        {"host=\"example.com:8080\"", {"- - - example.com:8080"}},
        {"secret=\"a,b;c=\\\"d\\\\\";for=1.2.3.4", {"- - - -"}},
        {"secret=\"a,b;c=d\";for=1.2.3.4, for=::1", {"::1 - - -", "1.2.3.4 - - -"}},
        /* What the client wrote cannot reach over what a proxy appended. */
        {"for=\"evil, for=1.2.3.4", {"1.2.3.4 - - -", "- - - -"}},
        {"for=\"a\\\", for=1.2.3.4", {"1.2.3.4 - - -", "- - - -"}},
        {"for=9.9.9.9;x=\", for=\"1.2.3.4\"", {"1.2.3.4 - - -", "- - - -"}},
        /* malformed: nothing of the element counts */
        {"for", {"- - - -"}},
        {"for=", {"- - - -"}},
        {"x=;for=1.2.3.4", {"- - - -"}},
        {"x=a\"b\";for=1.2.3.4", {"- - - -"}},
        {"=1.2.3.4", {"- - - -"}},
        {"for =1.2.3.4", {"- - - -"}},
        {"for=1.2.3.4;for=5.6.7.8", {"- - - -"}},
        {"for=\"1.2.3.4\"x;proto=https", {"- - - -"}},
        {"for=1.2.3.4\"", {"- - - -"}},
        {"for=\"1.2.3.4", {"- - - -"}},
        {"proto=https;for=banana", {"- - - -"}},
        {"for=1.2.3.4;proto=\"ht tp\"", {"- - - -"}},
        {"for=1.2.3.4;host=\"a/b\"", {"- - - -"}},
        {"for=1.2.3.4;host=\"\"", {"- - - -"}},
        {"for=\"\"", {"- - - -"}},
        {"\"", {"- - - -"}},
        {"\"\"", {"- - - -"}},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++)
        check(&rows[i], stk_forwarded_pop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xff),
        cmocka_unit_test(test_forwarded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
