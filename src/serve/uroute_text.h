/*
 * Texts of uWSGI's internal routing with $1 and ${NAME} in them: compiled once, filled for each
 * request. What comes out of a request is never looked at for a $ of its own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"
#include "base/span.h"
#include "serve/regex.h"

enum {
    STK_UTEXT_MAX = 16 * 1024, /* bytes of a text that is filled */
    STK_UTEXT_NAME_MAX = 256,  /* bytes of a variable's name */
};

struct stk_utext;

/* Where a text is written; `full`: it did not fit, and is not to be used. */
struct stk_utext_out {
    char *buf;
    size_t len, cap;
    bool full;
};

/* What a text is filled from. */
struct stk_utext_source {
    const stk_span *groups; /* [STK_REGEX_GROUPS] */
    /* Adds the value of a variable; nothing where there is none. */
    void (*value)(void *arg, stk_span name, struct stk_utext_out *out);
    void *arg;
};

/*
 * With `groups` $0 to $9 stand for groups; without, only ${NAME} means something. NULL and a
 * sentence in *ret_error, to be freed, where the text needs what is not there.
 */
struct stk_utext *stk_utext_new(stk_span text, bool groups, char **ret_error);
/* Accepts NULL; returns NULL. */
struct stk_utext *stk_utext_free(struct stk_utext *text);
/* The bytes that stand before the first variable or group. */
stk_span stk_utext_literal(const struct stk_utext *text);
/* Whether there is nothing in it but bytes. */
bool stk_utext_is_literal(const struct stk_utext *text);
/* Writes it behind what is in *out; false: it is full. */
bool stk_utext_fill(const struct stk_utext *text, const struct stk_utext_source *source,
                    struct stk_utext_out *out);

/* Adds bytes to an output, or makes it full. */
void stk_utext_put(struct stk_utext_out *out, stk_span bytes);
void stk_utext_put_number(struct stk_utext_out *out, long long number);
