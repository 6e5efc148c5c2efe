/* Values of options: from text to a checked value, and back. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/macros.h"
#include "config/options.h"

enum stk_value_error {
    STK_VALUE_E_INVALID = 1, /* stk_value_expected says what it should have been */
};

struct stk_value {
    int64_t number; /* numbers, and 0 or 1 of STK_OPTION_BOOL and STK_OPTION_SWITCH */
    char *text;     /* texts, one item of a list; free() it; NULL of others */
};

/*
 * Reads one value (of a list: one item) as the row says. Leading and trailing blanks of numbers do
 * not count. Returns 0 or STK_VALUE_E_INVALID.
 */
int stk_value_parse(const struct stk_option *opt, const char *text, struct stk_value *ret_value)
    STK_MUST_CHECK;
/* What a value of the row looks like: "a whole number from 1 to 1024, or 'auto'"; free() it. */
char *stk_value_expected(const struct stk_option *opt) __attribute__((returns_nonnull));
/* A number of the row as a user would write it: "75s", "32k", "660", "auto"; free() it. */
char *stk_value_format(const struct stk_option *opt, int64_t number)
    __attribute__((returns_nonnull));
