/*
 * Patterns for paths, by PCRE2 where the build has it. A path is bytes that a client chose: a match
 * is bounded in time and memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"
#include "base/span.h"

enum { STK_REGEX_GROUPS = 10 }; /* $0 to $9 */

struct stk_regex;

/* What a thread needs to match; one a thread. */
struct stk_regex_scratch;

enum stk_regex_result {
    STK_REGEX_NONE,
    STK_REGEX_MATCH,
    STK_REGEX_LIMIT, /* could not be decided within the limits, or for want of memory */
};

/* NULL and a sentence in *ret_error, to be freed, when the pattern is wrong or there is no PCRE2.
 */
struct stk_regex *stk_regex_new(const char *pattern, char **ret_error);
/* Accepts NULL; returns NULL. */
struct stk_regex *stk_regex_free(struct stk_regex *regex);
/* The number of groups in the pattern. */
unsigned stk_regex_groups(const struct stk_regex *regex);

/* NULL when there is no memory (or no PCRE2). */
struct stk_regex_scratch *stk_regex_scratch_new(void);
/* Accepts NULL; returns NULL. */
struct stk_regex_scratch *stk_regex_scratch_free(struct stk_regex_scratch *scratch);

/*
 * Looks for the pattern anywhere in the text. With STK_REGEX_MATCH ret_groups holds the whole match
 * and the groups, as spans of the text; of length 0 for those that took no part.
 */
enum stk_regex_result stk_regex_match(const struct stk_regex *regex,
                                      struct stk_regex_scratch *scratch, stk_span text,
                                      stk_span ret_groups[STK_REGEX_GROUPS]);
