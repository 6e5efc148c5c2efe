/*
 * Rules of uWSGI's routing, as an administrator writes them, and what their texts become with the
 * groups and values of a request. A line of the input that begins with "!" is a value.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "serve/uroute_rule.h"

struct values {
    stk_span value;
    unsigned asked;
};

static void give_value(void *arg, stk_span name, struct stk_utext_out *out)
{
    struct values *values = arg;

    FUZZ_CHECK(name.len <= STK_UTEXT_NAME_MAX);
    values->asked++;
    stk_utext_put(out, values->value);
}

/* What comes out is what went in, with values in it, and never more than there is room for. */
static void fill(const struct stk_utext *text, stk_span value)
{
    char room[512], small[8];
    struct stk_utext_out out = {.buf = room, .cap = sizeof room};
    struct stk_utext_out tight = {.buf = small, .cap = sizeof small};
    struct values values = {.value = value};
    stk_span groups[STK_REGEX_GROUPS];
    struct stk_utext_source source = {.groups = groups, .value = give_value, .arg = &values};

    if (text == NULL)
        return;
    for (size_t i = 0; i < STK_REGEX_GROUPS; i++)
        groups[i] = i % 2 ? value : stk_span_make("", 0);
    FUZZ_CHECK(stk_utext_fill(text, &source, &out) == !out.full && out.len <= out.cap);
    FUZZ_CHECK(stk_utext_fill(text, &source, &tight) == !tight.full && tight.len <= tight.cap);
    if (stk_utext_is_literal(text) && !out.full) {
        FUZZ_CHECK(values.asked == 0);
        FUZZ_CHECK(stk_span_eq(stk_utext_literal(text), stk_span_make(room, out.len)));
    }
}

static void fuzz_rule(stk_span line, stk_span value)
{
    struct uroute_rule rule;
    char *error = NULL;

    if (stk_uroute_rule_parse(&rule, line, &error) < 0) {
        FUZZ_CHECK(error && *error);
        free(error);
    } else {
        FUZZ_CHECK(error == NULL && (rule.subject == UROUTE_LABEL) == (rule.label != NULL));
        FUZZ_CHECK(rule.subject < UROUTE_PATH || rule.regex != NULL);
        FUZZ_CHECK(rule.action != UROUTE_DO_BASICAUTH || (rule.key && *rule.secret));
        fill(rule.left, value);
        fill(rule.right, value);
        fill(rule.arg, value);
        for (size_t i = 0; i < UROUTE_KEYS; i++)
            fill(rule.keys[i], value);
    }
    stk_uroute_rule_deinit(&rule);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stk_span value = stk_span_make("${X}$1", 6);
    const char *p = (const char *)data, *end = p + size;

    while (p < end) {
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((eol ? eol : end) - p);

        if (*p == '!')
            value = stk_span_make(p + 1, len - (len > 0));
        else
            fuzz_rule(stk_span_make(p, len), value);
        p += len + 1;
    }
    return 0;
}
