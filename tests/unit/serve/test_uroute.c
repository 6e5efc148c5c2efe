/* Rules of uWSGI's routing: what texts become, what rules are, and who gets in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the ones above */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/macros.h"
#include "serve/uroute.h"
#include "serve/uroute_priv.h"

/* ${NAME} is <NAME>. */
static void give_name(void *arg, stk_span name, struct stk_utext_out *out)
{
    (void)arg;
    stk_utext_put(out, STK_SPAN_LIT("<"));
    stk_utext_put(out, name);
    stk_utext_put(out, STK_SPAN_LIT(">"));
}

static void assert_filled(const char *text, bool groups, const char *expected)
{
    stk_span given[STK_REGEX_GROUPS] = {0};
    struct stk_utext_source source = {.groups = given, .value = give_name};
    char *error = NULL;
    struct stk_utext *t = stk_utext_new(stk_span_str(text), groups, &error);

    assert_non_null(t);
    for (size_t i = 0; i < STK_REGEX_GROUPS; i++)
        given[i] = stk_span_make("", 0);
    given[0] = STK_SPAN_LIT("all");
    given[1] = STK_SPAN_LIT("one");
    given[2] = STK_SPAN_LIT("${TWO}$1");
    for (size_t cap = 0; cap <= strlen(expected); cap++) {
        char *room = malloc(cap + 1);
        struct stk_utext_out out = {.buf = room, .cap = cap};
        bool fits = cap == strlen(expected);

        assert_non_null(room);
        assert_int_equal(stk_utext_fill(t, &source, &out), fits);
        assert_int_equal(out.full, !fits);
        if (fits)
            assert_memory_equal(room, expected, cap);
        free(room);
    }
    stk_utext_free(t);
}

static void test_texts(void **state)
{
    (void)state;
    assert_filled("", true, "");
    assert_filled("plain", true, "plain");
    assert_filled("$1-$0-$3", true, "one-all-");
    assert_filled("$2", true, "${TWO}$1"); /* what a client sends names no variable */
    assert_filled("a${B}c", true, "a<B>c");
    assert_filled("${cookie[$1]}", true, "<cookie[one]>");
    assert_filled("${cookie[$1]}", false, "<cookie[$1]>");
    assert_filled("$$ $x $${A}", true, "$$ $x $${A}");
    assert_filled("$1", false, "$1");
    assert_filled("end$", true, "end");
    assert_filled("end$", false, "end$");
    assert_filled("open ${A", true, "open ${A");
    assert_filled("${}", true, "<>");
}

static void test_rules_that_are_none(void **state)
{
    static const struct {
        const char *rule, *says;
    } rows[] = {
        {"", "expected an option"},
        {"mount ^/ log:x", "expected an option"},
        {"routes ^/ log:x", "expected an option"},
        {"route-status 404 log:x", "expected an option"},
        {"route", "expected what it is for"},
        {"route ^/", "expected what it is for"},
        {"route ^/ log", "expected an action"},
        {"route ^/ nothing:x", "there is no action 'nothing'"},
        {"route ^/( log:x", "the pattern '^/('"},
        {"route-if x log:x", "a condition is"},
        {"route-if lord:x log:x", "there is no condition 'lord'"},
        {"route-if regexp:a;( log:x", "the pattern '('"},
        {"error-route-status x log:x", "expected a status"},
        {"final-route ^/ redirect:/x", "has no effect in final-route"},
        {"response-route ^/ basicauth:a,b:c", "has no effect in response-route"},
        {"route ^/ addvar:x", "expected NAME=VALUE"},
        {"route ^/ addvar:=x", "expected NAME=VALUE"},
        {"route ^/ file:status=200", "expected filename="},
        {"route ^/ file:filename=/x,no_headers=1", "there is no argument 'no_headers'"},
        {"route ^/ basicauth:realm", "expected REALM"},
        {"route ^/ basicauth:re\"alm,a:b", "a realm holds no quotes"},
        {"route ^/ basicauth:realm,:b", "expected a user"},
        {"route-run log:${math[1+1]}", "${math[...]} is not there"},
        {"route-if equal:${geoip[x]};y log:", "${geoip[...]} is not there"},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct uroute_rule rule;
        char *error = NULL;

        assert_int_equal(stk_uroute_rule_parse(&rule, stk_span_str(rows[i].rule), &error), -1);
        assert_non_null(error);
        if (strstr(error, rows[i].says) == NULL)
            fail_msg("'%s' is refused by '%s'", rows[i].rule, error);
        free(error);
        stk_uroute_rule_deinit(&rule);
    }
}

static void test_rules(void **state)
{
    static const struct {
        const char *rule;
        enum uroute_chain chain;
        enum uroute_subject subject;
        enum uroute_action action;
    } rows[] = {
        {"route ^/ donotlog:", UROUTE_REQUEST, UROUTE_PATH, UROUTE_DO_DONOTLOG},
        {"route-host ^a last:", UROUTE_REQUEST, UROUTE_HOST, UROUTE_DO_CONTINUE},
        {"route-if-not ==:a;b break:403 No", UROUTE_REQUEST, UROUTE_IF, UROUTE_DO_BREAK},
        {"final-route-status 404 donotlog:", UROUTE_FINAL, UROUTE_STATUS, UROUTE_DO_DONOTLOG},
        {"error-route-run log:a b", UROUTE_ERROR, UROUTE_NOTHING, UROUTE_DO_LOG},
        {"response-route-remote-user . delheader:X", UROUTE_RESPONSE, UROUTE_USER,
         UROUTE_DO_DELHEADER},
        {"route-run +:N", UROUTE_REQUEST, UROUTE_NOTHING, UROUTE_DO_MATH},
        {"route-label a label", UROUTE_REQUEST, UROUTE_LABEL, UROUTE_DO_CONTINUE},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        struct uroute_rule rule;
        char *error = NULL;

        assert_int_equal(stk_uroute_rule_parse(&rule, stk_span_str(rows[i].rule), &error), 0);
        assert_null(error);
        assert_int_equal(rule.chain, rows[i].chain);
        assert_int_equal(rule.subject, rows[i].subject);
        if (rule.subject != UROUTE_LABEL)
            assert_int_equal(rule.action, rows[i].action);
        assert_int_equal(rule.negate, i == 2);
        stk_uroute_rule_deinit(&rule);
    }
}

static bool gets_in(const char *rule_text, const char *authorization)
{
    struct uroute_rule rule;
    char *error = NULL, buf[UROUTE_AUTH_MAX];
    stk_span user = {0};
    bool in;

    assert_int_equal(stk_uroute_rule_parse(&rule, stk_span_str(rule_text), &error), 0);
    in = stk_uroute_auth(&rule, stk_span_str(authorization), buf, &user) == UROUTE_LOGIN_GOOD;
    if (in)
        assert_memory_equal(user.ptr, "user", 4);
    stk_uroute_rule_deinit(&rule);
    return in;
}

static void test_passwords(void **state)
{
    static const char *const bad[] = {
        "",
        "Basic",
        "Basic ",
        "Basic dXNlcg==",          /* user */
        "Basic dXNlcjo=",          /* user: */
        "Basic dXNlcjpwdwA=",      /* user:pw and a NUL */
        "Basic dXNlcjpwd3g=",      /* user:pwx */
        "Basic dXNlcjpw",          /* user:p */
        "Basic dXNlcjpwd=dXNlcjp", /* no base64 */
        "Basic OnB3",              /* :pw */
        "Bearer dXNlcjpwdw==",
    };
    char file[] = "test-uroute-XXXXXX", rule[100];
    int fd = mkstemp(file);
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;

    (void)state;
    assert_true(gets_in("route ^/ basicauth:r,user:pw", "Basic dXNlcjpwdw=="));
    assert_true(gets_in("route ^/ basicauth:r,user:pw", "basic dXNlcjpwdw"));
    for (size_t i = 0; i < STK_ARRAY_LEN(bad); i++)
        assert_false(gets_in("route ^/ basicauth:r,user:pw", bad[i]));
    assert_non_null(out);
    /* The password of each is secret: {SHA}, traditional with a line's rest, SHA-512. */
    fputs(
        "# "
        "nobody\nother:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\nuser:{SHA}AAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
        "user:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n",
        out);
    assert_int_equal(fclose(out), 0);
    snprintf(rule, sizeof rule, "route ^/ basicauth:r,%s", file);
    assert_true(gets_in(rule, "Basic dXNlcjpzZWNyZXQ="));
    assert_false(gets_in(rule, "Basic dXNlcjpTZWNyZXQ="));
    assert_false(gets_in(rule, "Basic bm9ib2R5OnNlY3JldA==")); /* nobody */
    assert_null(stk_uroute_auth_check(file));
    /* A line that is too long is none, and so is its end. */
    out = fopen(file, "w");
    assert_non_null(out);
    fprintf(out, "#%01022duser:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n", 0);
    assert_int_equal(fclose(out), 0);
    assert_false(gets_in(rule, "Basic dXNlcjpzZWNyZXQ="));
    out = fopen(file, "a");
    assert_non_null(out);
    fputs("user:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", out);
    assert_int_equal(fclose(out), 0);
    assert_true(gets_in(rule, "Basic dXNlcjpzZWNyZXQ="));
#ifdef STK_HAVE_CRYPT
    out = fopen(file, "w");
    assert_non_null(out);
    fputs("user:abNANd1rDfiNc:a comment\n", out);
    assert_int_equal(fclose(out), 0);
    assert_true(gets_in(rule, "Basic dXNlcjpzZWNyZXQ="));
    assert_false(gets_in(rule, "Basic dXNlcjpTZWNyZXQ="));
    out = fopen(file, "w");
    assert_non_null(out);
    fputs("user:$apr1$abcdefgh$1234567890123456789012\n", out);
    assert_int_equal(fclose(out), 0);
    assert_false(gets_in(rule, "Basic dXNlcjpzZWNyZXQ="));
    assert_non_null(strstr(stk_uroute_auth_check(file), "$apr1$"));
#endif
    assert_int_equal(unlink(file), 0);
    assert_false(gets_in(rule, "Basic dXNlcjpzZWNyZXQ="));
    assert_non_null(stk_uroute_auth_check(file));
}

static void count_mistake(void *arg, size_t item, const char *text)
{
    assert_non_null(text);
    *(size_t *)arg = *(size_t *)arg * 10 + item;
}

static void test_tables(void **state)
{
    const char *good[] = {"route ^/ harakiri:30", "route-run harakiri:7", "final-route ^/ log:x"};
    const char *bad[] = {"route ^/ log:", "route x", "route-run log:", "nothing"};
    size_t mistakes = 0;
    struct stk_uroute *u = stk_uroute_new(good, 3, count_mistake, &mistakes);

    (void)state;
    assert_non_null(u);
    assert_int_equal(mistakes, 0);
    assert_int_equal(stk_uroute_least_timeout(u), 7000);
    assert_true(stk_uroute_has_ends(u));
    assert_false(stk_uroute_has_heads(u));
    assert_null(stk_uroute_free(u));
    assert_null(stk_uroute_new(bad, 4, count_mistake, &mistakes));
    assert_int_equal(mistakes, 13);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),  cmocka_unit_test(test_rules_that_are_none),
        cmocka_unit_test(test_rules),  cmocka_unit_test(test_passwords),
        cmocka_unit_test(test_tables),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
