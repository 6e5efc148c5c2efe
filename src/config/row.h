/*
 * Rows of routing tables as text: `prefix=/old redirect="https://example.com/$1" status=301`. The
 * command line takes them as they are, and a table of a file is handed on as such a text, so that
 * there is one grammar.
 */
#pragma once

#include <stddef.h>

#include "base/macros.h"

struct stk_row_pair {
    char *key;
    char *value;
};

struct stk_row {
    struct stk_row_pair *pairs;
    size_t n;
};

enum { STK_ROW_E_SYNTAX = 1 };

/*
 * Reads pairs of key=value with blanks between them. A key is of letters, digits, "-", "_" and ".";
 * a value ends at a blank, unless that stands in quotes: within "..." a backslash takes the meaning
 * from a quote or a backslash and stands for itself before all else, within '...' everything stands
 * for itself. Returns 0, or STK_ROW_E_SYNTAX and a sentence in *ret_error to be freed.
 */
int stk_row_parse(const char *text, struct stk_row *ret_row, char **ret_error) STK_MUST_CHECK;
void stk_row_deinit(struct stk_row *row);
