/*
 * PCRE2 for paths. Bytes and not characters: a path need not be UTF-8, and a rule that says "refuse
 * this" must not be got round by a byte that is none. "$" is the very end and "." takes a new line
 * too, for the same reason (a path may hold %0A).
 *
 * A match that reaches a limit is an error and not "no match": whoever asked decides, and a request
 * for which a rule cannot be decided is not to slip past it.
 */
#include "serve/regex.h"

#include <stdlib.h>

#include "base/mem.h"

#ifdef STK_HAVE_PCRE2

#    define PCRE2_CODE_UNIT_WIDTH 8
#    include <pcre2.h>

enum {
    REGEX_MATCH_LIMIT = 100 * 1000, /* steps: about a millisecond */
    REGEX_HEAP_LIMIT = 1024,        /* KiB */
    REGEX_STACK_MIN = 32 * 1024,
    REGEX_STACK_MAX = 512 * 1024,
};

struct stk_regex {
    pcre2_code *code;
    unsigned groups;
};

struct stk_regex_scratch {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

struct stk_regex *stk_regex_new(const char *pattern, char **ret_error)
{
    union {
        const char *c;
        PCRE2_SPTR u;
    } text = {.c = pattern};
    struct stk_regex *regex;
    uint32_t groups = 0;
    PCRE2_SIZE at = 0;
    int error = 0;
    pcre2_code *code = pcre2_compile(text.u, PCRE2_ZERO_TERMINATED,
                                     PCRE2_DOLLAR_ENDONLY | PCRE2_DOTALL | PCRE2_NEVER_UTF |
                                         PCRE2_NEVER_BACKSLASH_C,
                                     &error, &at, NULL);

    if (!code) {
        PCRE2_UCHAR message[160] = {0};

        pcre2_get_error_message(error, message, sizeof message);
        *ret_error = stk_mem_printf("%s at '%.40s'", (const char *)message, pattern + at);
        return NULL;
    }
    /* Without JIT (a kernel that forbids it) the same limits hold, only slower. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    (void)pcre2_pattern_info(code, PCRE2_INFO_CAPTURECOUNT, &groups);
    regex = stk_new0(struct stk_regex);
    regex->code = code;
    regex->groups = groups;
    return regex;
}

struct stk_regex *stk_regex_free(struct stk_regex *regex)
{
    if (regex)
        pcre2_code_free(regex->code);
    free(regex);
    return NULL;
}

unsigned stk_regex_groups(const struct stk_regex *regex)
{
    return regex->groups;
}

struct stk_regex_scratch *stk_regex_scratch_new(void)
{
    struct stk_regex_scratch *scratch = stk_new0(struct stk_regex_scratch);

    scratch->data = pcre2_match_data_create(STK_REGEX_GROUPS, NULL);
    scratch->context = pcre2_match_context_create(NULL);
    scratch->stack = pcre2_jit_stack_create(REGEX_STACK_MIN, REGEX_STACK_MAX, NULL);
    if (!scratch->data || !scratch->context || !scratch->stack)
        return stk_regex_scratch_free(scratch);
    pcre2_jit_stack_assign(scratch->context, NULL, scratch->stack);
    pcre2_set_match_limit(scratch->context, REGEX_MATCH_LIMIT);
    pcre2_set_heap_limit(scratch->context, REGEX_HEAP_LIMIT);
    return scratch;
}

struct stk_regex_scratch *stk_regex_scratch_free(struct stk_regex_scratch *scratch)
{
    if (scratch) {
        pcre2_match_data_free(scratch->data);
        pcre2_match_context_free(scratch->context);
        pcre2_jit_stack_free(scratch->stack);
        free(scratch);
    }
    return NULL;
}

enum stk_regex_result stk_regex_match(const struct stk_regex *regex,
                                      struct stk_regex_scratch *scratch, stk_span text,
                                      stk_span ret_groups[STK_REGEX_GROUPS])
{
    union {
        const char *c;
        PCRE2_SPTR u;
    } subject = {.c = text.ptr != NULL ? text.ptr : ""}; /* before PCRE2 10.40 NULL is an error */
    const PCRE2_SIZE *at;
    uint32_t n;
    int r = pcre2_match(regex->code, subject.u, text.len, 0, 0, scratch->data, scratch->context);

    if (r == PCRE2_ERROR_NOMATCH)
        return STK_REGEX_NONE;
    if (r < 0)
        return STK_REGEX_LIMIT;
    n = r > 0 ? (uint32_t)r : STK_REGEX_GROUPS; /* 0: the pattern has more groups than we ask for */
    at = pcre2_get_ovector_pointer(scratch->data);
    for (uint32_t i = 0; i < STK_REGEX_GROUPS; i++) {
        bool set = i < n && at[2 * i] != PCRE2_UNSET && at[2 * i] <= at[2 * i + 1];

        ret_groups[i] = set ? stk_span_make(text.ptr + at[2 * i], at[2 * i + 1] - at[2 * i])
                            : stk_span_make(text.ptr, 0);
    }
    return STK_REGEX_MATCH;
}

#else

struct stk_regex *stk_regex_new(const char *pattern, char **ret_error)
{
    *ret_error = stk_mem_strdup("this stoker was built without PCRE2: install libpcre2-dev and "
                                "build it again");
    return NULL;
}

struct stk_regex *stk_regex_free(struct stk_regex *regex)
{
    return NULL;
}

unsigned stk_regex_groups(const struct stk_regex *regex)
{
    return 0;
}

struct stk_regex_scratch *stk_regex_scratch_new(void)
{
    return NULL;
}

struct stk_regex_scratch *stk_regex_scratch_free(struct stk_regex_scratch *scratch)
{
    return NULL;
}

enum stk_regex_result stk_regex_match(const struct stk_regex *regex,
                                      struct stk_regex_scratch *scratch, stk_span text,
                                      stk_span ret_groups[STK_REGEX_GROUPS])
{
    return STK_REGEX_LIMIT;
}

#endif
