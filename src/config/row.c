/*
 * The reader of rows. What is written in them are paths, patterns and URLs, so nearly every
 * character stands for itself: only blanks and quotes do not, and a backslash only where it has to.
 */
#include "config/row.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static bool row_is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool row_is_key(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

/* Copies what stands in quotes at `p`; behind them, or NULL when they are not closed. */
static const char *row_quoted(const char *p, char **out)
{
    char quote = *p++;

    while (*p && *p != quote) {
        if (quote == '"' && *p == '\\' && (p[1] == '"' || p[1] == '\\'))
            p++;
        *(*out)++ = *p++;
    }
    return *p ? p + 1 : NULL;
}

/* Copies a value to `out`; behind it, or NULL. */
static const char *row_value(const char *p, char *out)
{
    while (p && *p && !row_is_blank(*p)) {
        if (*p == '"' || *p == '\'')
            p = row_quoted(p, &out);
        else
            *out++ = *p++;
    }
    *out = '\0';
    return p;
}

static void row_add(struct stk_row *row, char *key, char *value)
{
    struct stk_row_pair *pairs = stk_new0_array(struct stk_row_pair, row->n + 1);

    if (row->n > 0)
        memcpy(pairs, row->pairs, row->n * sizeof *pairs);
    pairs[row->n++] = (struct stk_row_pair){.key = key, .value = value};
    free(row->pairs);
    row->pairs = pairs;
}

/* One pair; behind it, or NULL and an error. */
static const char *row_pair(struct stk_row *row, const char *p, char **ret_error)
{
    const char *begin = p;
    char *key, *value;

    while (row_is_key(*p))
        p++;
    if (p == begin || *p != '=') {
        *ret_error = stk_mem_printf("expected key=value at '%.60s'", begin);
        return NULL;
    }
    key = stk_mem_strndup(begin, (size_t)(p - begin));
    value = stk_mem_zalloc(strlen(p) + 1);
    p = row_value(p + 1, value);
    if (!p) {
        *ret_error = stk_mem_printf("the quote in the value of %s is not closed", key);
        free(key);
        free(value);
        return NULL;
    }
    row_add(row, key, value);
    return p;
}

int stk_row_parse(const char *text, struct stk_row *ret_row, char **ret_error)
{
    struct stk_row row = {0};
    const char *p = text;

    for (;;) {
        while (row_is_blank(*p))
            p++;
        if (!*p)
            break;
        p = row_pair(&row, p, ret_error);
        if (!p) {
            stk_row_deinit(&row);
            return STK_ROW_E_SYNTAX;
        }
    }
    *ret_row = row;
    return 0;
}

void stk_row_deinit(struct stk_row *row)
{
    for (size_t i = 0; i < row->n; i++) {
        free(row->pairs[i].key);
        free(row->pairs[i].value);
    }
    free(row->pairs);
    *row = (struct stk_row){0};
}
