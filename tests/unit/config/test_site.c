/* Rows, rules and mounts as texts: what is read, in which order, and which mistakes are told. */
#include "config/site.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "config/row.h"

static char said[1024];

static void on_mistake(void *arg, enum stk_option_id option, size_t item, const char *text)
{
    (void)arg;
    (void)option;
    (void)item;
    strncat(said, text, sizeof said - strlen(said) - 2);
    strcat(said, "\n");
}

static struct stk_strv list(const char **items)
{
    struct stk_strv strv = {0};

    while (items && items[strv.n])
        strv.n++;
    strv.items = (char **)(uintptr_t)items;
    return strv;
}

#define LIST(...) list((const char *[]){__VA_ARGS__, NULL})

static struct stk_site *read_site(struct stk_config config)
{
    said[0] = '\0';
    return stk_site_new(&config, on_mistake, NULL);
}

static void test_rows(void **state)
{
    static const struct {
        const char *text, *pairs;
    } rows[] = {
        {"", ""},
        {" \t\r\n", ""},
        {"a=b", "a=b|"},
        {"a=b  c.d_e-F1=\tg=h", "a=b|c.d_e-F1=|g=h|"},
        {"a=", "a=|"},
        {"a=b=c", "a=b=c|"},
        {"a='b \"c\\'", "a=b \"c\\|"},
        {"a=\"b \\\"c\\\\ \\d\"e", "a=b \"c\\ \\de|"},
        {"a='b'\" c\"d", "a=b cd|"},
        {"regex=^/(\\d+)$", "regex=^/(\\d+)$|"},
        {"a", NULL},
        {"=b", NULL},
        {"a b=c", NULL},
        {"a='b", NULL},
        {"a=\"b\\\"", NULL},
        {"a=b \xc3\xbc=c", NULL},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_row row = {0};
        char *error = NULL, got[256] = "";
        int r = stk_row_parse(rows[i].text, &row, &error);

        if (rows[i].pairs == NULL) {
            assert_int_equal(r, STK_ROW_E_SYNTAX);
            assert_non_null(error);
            free(error);
            continue;
        }
        assert_int_equal(r, 0);
        for (size_t k = 0; k < row.n; k++) {
            strcat(got, row.pairs[k].key);
            strcat(got, "=");
            strcat(got, row.pairs[k].value);
            strcat(got, "|");
        }
        assert_string_equal(got, rows[i].pairs);
        stk_row_deinit(&row);
    }
}

static void test_actions(void **state)
{
    STK_CLEANUP(stk_site_freep)
    struct stk_site *site = read_site((struct stk_config){
        .cwd = (char *)(uintptr_t) "/srv",
        .route =
            LIST("prefix=/a redirect=/b", "path=/c return=410 body=gone type=text/x",
                 "regex=x return.status=204", "host='A.B,*.c.d' method=get,PUT app=m:one",
                 "prefix=/e app=m:one strip=false header='X: y' remove=Z",
                 "prefix=/f static=files try=/index.html", "static=/abs try=next",
                 "app=m:one timeout=300ms", "app=m:one timeout=1.5", "app=m:one timeout=off")});

    (void)state;
    assert_string_equal(said, "");
    assert_non_null(site);
    assert_int_equal(site->nrules, 10);
    assert_int_equal(site->rules[4].timeout, 0);
    assert_int_equal(site->rules[7].timeout, 300);
    assert_int_equal(site->rules[8].timeout, 1500);
    assert_int_equal(site->rules[9].timeout, STK_SITE_UNLIMITED);
    assert_int_equal(site->rules[0].action, STK_SITE_REDIRECT);
    assert_int_equal(site->rules[0].status, 302);
    assert_string_equal(site->rules[0].target, "/b");
    assert_int_equal(site->rules[1].action, STK_SITE_RETURN);
    assert_int_equal(site->rules[1].status, 410);
    assert_string_equal(site->rules[1].body, "gone");
    assert_int_equal(site->rules[2].status, 204);
    assert_int_equal(site->rules[3].match.hosts.n, 2);
    assert_string_equal(site->rules[3].match.hosts.items[0], "a.b");
    assert_string_equal(site->rules[3].match.methods.items[0], "GET");
    assert_int_equal(site->rules[3].app, site->rules[4].app);
    assert_false(site->rules[3].strip);
    assert_false(site->rules[4].strip);
    assert_int_equal(site->rules[4].nfields, 2);
    assert_int_equal(site->rules[4].fields[1].op, STK_SITE_REMOVE);
    assert_int_equal(site->rules[5].action, STK_SITE_STATIC);
    assert_string_equal(site->rules[5].target, "/srv/files");
    assert_string_equal(site->rules[5].attempt, "/index.html");
    assert_string_equal(site->rules[6].target, "/abs");
    assert_true(site->rules[6].next && !site->rules[6].attempt && !site->rules[5].next);
    assert_int_equal(site->apps.n, 1);
}

static void test_order_of_mounts(void **state)
{
    static const char *const order[] = {"h.i/long/er", "h.i",  "*.much.longer.b",
                                        "*.b/x",       "/x/y", "/x"};
    STK_CLEANUP(stk_site_freep)
    struct stk_site *site =
        read_site((struct stk_config){.app = (char *)(uintptr_t) "m:main",
                                      .mount = LIST("/x=m:e", "*.b/x=m:d", "/x/y/=m:f", "h.i=m:b",
                                                    "*.much.longer.b=m:c", "H.I/long/er=m:a")});

    (void)state;
    assert_non_null(site);
    for (size_t i = 0; i < STK_ARRAY_LEN(order); i++) {
        const struct stk_site_match *match = &site->rules[i].match;
        STK_CLEANUP(stk_mem_freep)
        char *text =
            stk_mem_printf("%s%s", match->hosts.n ? match->hosts.items[0] : "", match->prefix);

        assert_string_equal(text, order[i]);
        assert_true(site->rules[i].strip);
    }
    assert_true(site->has_app);
    assert_string_equal(site->apps.items[0], "m:main");
    assert_string_equal(site->places.items[1], "mount /x");
}

static void test_fields(void **state)
{
    STK_CLEANUP(stk_site_freep)
    struct stk_site *site = read_site((struct stk_config){
        .header = LIST("X-A:  b: c", "set='X: y' default='D:' status=404,5xx prefix=/p")});

    (void)state;
    assert_non_null(site);
    assert_string_equal(site->headers[0].fields[0].name, "X-A");
    assert_string_equal(site->headers[0].fields[0].value, "b: c");
    assert_null(site->headers[0].statuses);
    assert_string_equal(site->headers[1].fields[1].value, "");
    assert_true(site->headers[1].statuses[404] && site->headers[1].statuses[599]);
    assert_false(site->headers[1].statuses[403] || site->headers[1].statuses[499]);
}

static void test_mistakes(void **state)
{
    static const struct {
        const char *route, *mount, *header, *said;
    } rows[] = {
        {"prefix=/a", NULL, NULL, "nothing to do"},
        {"prefix=/a return=404 app=x", NULL, NULL, "give one of them"},
        {"prefix=/a path=/b return=404", NULL, NULL, "three ways to say the same"},
        {"path=/a path=/b return=404", NULL, NULL, "path is given twice"},
        {"prefix=a return=404", NULL, NULL, "expected a path"},
        {"path=/a?b return=404", NULL, NULL, "without ? and #"},
        {"host=a:80 return=404", NULL, NULL, "has a port"},
        {"host=a/b return=404", NULL, NULL, "is not a host"},
        {"method=G,(T) return=404", NULL, NULL, "is not a method"},
        {"return=600", NULL, NULL, "200 to 599"},
        {"return=abc", NULL, NULL, "200 to 599"},
        {"return=204 body=x", NULL, NULL, "has no body"},
        {"redirect=/x status=200", NULL, NULL, "a redirect has 301"},
        {"redirect=/x body=y", NULL, NULL, "belong to return"},
        {"app=x status=301", NULL, NULL, "status belongs to redirect"},
        {"app=x strip=maybe prefix=/a", NULL, NULL, "expected true or false"},
        {"static=x try=y", NULL, NULL, "expected a file of the directory"},
        {"return=404 try=/y", NULL, NULL, "try belongs to static"},
        {"return=404 timeout=1", NULL, NULL, "timeout belongs to app"},
        {"app=x timeout=-1", NULL, NULL, "timeout = '-1': expected a duration"},
        {"app=x timeout=soon", NULL, NULL, "expected a duration"},
        {"static= prefix=/a", NULL, NULL, "static is empty"},
        {"return=404 header='Content-Length: 3'", NULL, NULL, "the server's own field"},
        {"return=404 header='X y: z'", NULL, NULL, "expected a field"},
        {"return=404 add='X: a\x01'", NULL, NULL, "control character"},
        {"retrun=404", NULL, NULL, "did you mean 'return'"},
        {"quite=other return=404", NULL, NULL, "has no key 'quite'"},
        {NULL, "/a", NULL, "expected /prefix=application"},
        {NULL, "=m:a", NULL, "expected /prefix=application"},
        {NULL, "/a=", NULL, "expected /prefix=application"},
        {NULL, "a b=m:a", NULL, "is not a host"},
        {NULL, NULL, "nothing", "expected a field"},
        {NULL, NULL, "status=404", "nothing to do"},
        {NULL, NULL, "status=1xx set='X: y'", "status of 200 to 599, or 4xx"},
        {NULL, NULL, "app=x set='X: y'", "a header has no key 'app'"},
        {NULL, NULL, "remove=Connection", "the server's own field"},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct stk_config config = {0};
        const char *route[] = {rows[i].route, NULL}, *mount[] = {rows[i].mount, NULL},
                   *header[] = {rows[i].header, NULL};

        config.route = list(route);
        config.mount = list(mount);
        config.header = list(header);
        assert_null(read_site(config));
        if (!strstr(said, rows[i].said))
            fail_msg("%s: '%s' is not in '%s'",
                     rows[i].route   ? rows[i].route
                     : rows[i].mount ? rows[i].mount
                                     : rows[i].header,
                     rows[i].said, said);
    }
    assert_null(read_site((struct stk_config){.mount = LIST("/a=m:x", "/b=m:y", "/a/=m:z")}));
    assert_non_null(strstr(said, "something is mounted there already"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_actions),
        cmocka_unit_test(test_order_of_mounts),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_mistakes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
