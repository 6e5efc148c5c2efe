/*
 * The configuration while it is being put together: values from several sources, the one with the
 * highest precedence kept, each with its origin, and all errors collected as text.
 *
 * Precedence: command line, environment, files, defaults; the sources may be given in any order.
 * Nothing here logs or exits.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"
#include "config/config.h"
#include "config/options.h"

enum stk_origin_kind {
    STK_ORIGIN_DEFAULT,
    STK_ORIGIN_FILE,
    STK_ORIGIN_ENVIRONMENT,
    STK_ORIGIN_COMMAND_LINE,
};

/* Where a value came from. */
struct stk_origin {
    enum stk_origin_kind kind;
    unsigned line;    /* of a file; 0: unknown */
    const char *name; /* the path of a file or the name of a variable; NULL of the other kinds */
};

/* The origins of an option: one of a scalar, one for each item of a list (none of an empty one). */
struct stk_provenance {
    struct stk_origin *items;
    size_t n;
    struct stk_origin top; /* of the option as a whole: the highest */
};

struct stk_load;

/* A configuration that holds the defaults. */
struct stk_load *stk_load_new(void) __attribute__((returns_nonnull));
/* Frees it and the configuration in it; accepts NULL, returns NULL. */
struct stk_load *stk_load_free(struct stk_load *load);
static inline void stk_load_freep(struct stk_load **load)
{
    *load = stk_load_free(*load);
}
/* The configuration, owned by `load`. */
struct stk_config *stk_load_config(struct stk_load *load);

/*
 * Gives an option, by name or alias, a value; of a list, adds one. A value of a lower source than
 * the present one is checked and then dropped; one of a higher source replaces it. `value` NULL is
 * an option that was given without one. Strings are copied. Mistakes are added to the errors.
 */
void stk_load_set(struct stk_load *load, const char *name, const char *value,
                  const struct stk_origin *origin);
/* The same with several values (an array of a file); n may be 0. */
void stk_load_set_list(struct stk_load *load, const char *name, const char *const *values, size_t n,
                       const struct stk_origin *origin);
/* Reads STOKER_* and the other variables that rows name out of a NULL-terminated environment. */
void stk_load_environ(struct stk_load *load, const char *const *environment);
/* STOKER_* only: for a configuration of another server, which has read the others or has not. */
void stk_load_environ_own(struct stk_load *load, const char *const *environment);
/*
 * Checks what needs more than one option: limits that fit each other, and that an application is
 * given (unless there are errors, of which its absence may be one's effect).
 */
void stk_load_validate(struct stk_load *load);

/*
 * Adds an error about a value of the option, with its origin in front:
 * "stoker.toml:3: workers = 'abc': expected ..."; `item` is the index in a list.
 */
void stk_load_reject(struct stk_load *load, const struct stk_option *opt, size_t item,
                     const char *fmt, ...) STK_PRINTF(4, 5);
/* Adds an error with the origin in front. */
void stk_load_fail(struct stk_load *load, const struct stk_origin *origin, const char *fmt, ...)
    STK_PRINTF(3, 4);
/* All errors so far, one line each, in the order found. */
const struct stk_strv *stk_load_errors(const struct stk_load *load);
/* What is suspicious and does not stop the start. */
const struct stk_strv *stk_load_warnings(const struct stk_load *load);

/* Where the value of a row came from. */
const struct stk_provenance *stk_load_provenance(const struct stk_load *load,
                                                 const struct stk_option *opt);
/* "stoker.toml:3", "environment STOKER_BIND", "command line", "default"; free() it. */
char *stk_load_origin_text(const struct stk_origin *origin) __attribute__((returns_nonnull));
/* The number of values: 1 of a scalar that is set, 0 of one that is not, the items of a list. */
size_t stk_load_count(const struct stk_load *load, const struct stk_option *opt);
/* One value as a user would write it; free() it. */
char *stk_load_text(const struct stk_load *load, const struct stk_option *opt, size_t item)
    __attribute__((returns_nonnull));
