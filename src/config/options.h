/*
 * The table of options: everything that the command line, the environment and configuration files
 * can set is one row here, and parsing, --help, --check and docs/options.md are made from the rows.
 * The rows themselves are in options.def.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "config/config.h"

/* How the text of a value is read, and what C type it fills. */
enum stk_option_kind {
    STK_OPTION_STRING,  /* char * */
    STK_OPTION_STRINGS, /* struct stk_strv; may be given several times */
    STK_OPTION_VARS,    /* struct stk_strv of NAME=value; sources add up, by name */
    STK_OPTION_NETS,    /* struct stk_strv of addresses and networks; commas separate */
    STK_OPTION_BOOL,    /* bool */
    STK_OPTION_SWITCH,  /* bool with two words: choices "false word,true word" */
    STK_OPTION_INT,     /* int64_t */
    STK_OPTION_SIZE,    /* int64_t, bytes: 512, 64k, 10m, 1g */
    STK_OPTION_MSEC,    /* stk_msec: 10 (seconds), 10s, 500ms, 2m, 1h */
    STK_OPTION_ENUM,    /* int64_t, the index in choices */
    STK_OPTION_MODE,    /* int64_t, octal permission bits; -1: unset */
    STK_OPTION_UMASK,   /* char *, octal text */
    STK_OPTION_COMMAND, /* no field: only on the command line (stk_args) */
};

enum stk_option_group {
    STK_OPTION_GROUP_APPLICATION,
    STK_OPTION_GROUP_ROUTING,
    STK_OPTION_GROUP_SOCKETS,
    STK_OPTION_GROUP_TLS,
    STK_OPTION_GROUP_PROCESSES,
    STK_OPTION_GROUP_LIMITS,
    STK_OPTION_GROUP_TIMEOUTS,
    STK_OPTION_GROUP_PROXIES,
    STK_OPTION_GROUP_STATIC,
    STK_OPTION_GROUP_RESPONSES,
    STK_OPTION_GROUP_CACHE,
    STK_OPTION_GROUP_WEBSOCKETS,
    STK_OPTION_GROUP_LOGGING,
    STK_OPTION_GROUP_METRICS,
    STK_OPTION_GROUP_PROGRAMS,
    STK_OPTION_GROUP_HELP,
    STK_OPTION_NGROUPS,
};

/* When a changed value is taken up. */
enum stk_option_scope {
    STK_OPTION_SCOPE_START,  /* when the master starts */
    STK_OPTION_SCOPE_WORKER, /* when a worker starts */
};

/* One identifier a row: STK_OPTION_ID_WORKERS ... */
enum stk_option_id {
#define STK_OPTION(id, ...) STK_OPTION_ID_##id,
#include "config/options.def"
#undef STK_OPTION
    STK_OPTION_COUNT,
};

struct stk_option {
    const char *name;
    const char *aliases; /* "a,b" or NULL */
    const char *uwsgi;   /* which of name and aliases uWSGI has for the same thing, "a,b" or NULL */
    const char *hints;   /* other names that people may try: suggested, not taken; or NULL */
    char short_name;     /* 'w' or 0 */
    bool common;         /* in the short --help */
    bool empty;          /* an empty text is a value; of a list, having no item is */
    bool positional;     /* filled by an argument without a dash */
    bool takes_value;    /* of STK_OPTION_COMMAND */
    enum stk_option_kind kind;
    enum stk_option_group group;
    enum stk_option_scope scope;
    size_t offset;   /* in struct stk_config; of no meaning for STK_OPTION_COMMAND */
    const char *def; /* as the user would write it; several separated by a space; or NULL */
    int64_t min;     /* in the unit of the field */
    int64_t max;
    const char
        *zero; /* the word for 0, allowed below min (as a number: unless it is "auto"), or NULL */
    const char *choices;    /* of STK_OPTION_SWITCH and STK_OPTION_ENUM, "a,b" */
    const char *separators; /* between several values of an environment variable */
    const char *variable;   /* one more environment variable, after STOKER_NAME; or NULL */
    const char *metavar;    /* "N", "PATH" */
    const char *help;       /* one sentence without a full stop */
    const char *doc;        /* what docs/options.md adds; or NULL */
};

/* The rows, STK_OPTION_COUNT of them, indexed by enum stk_option_id. */
const struct stk_option *stk_options_rows(void) __attribute__((returns_nonnull));
/* The row of a name or alias ("-" and "_" are the same), or NULL. */
const struct stk_option *stk_options_find(const char *name, size_t len);
/* The row of a short flag, or NULL. */
const struct stk_option *stk_options_find_short(char flag);
/*
 * The name for one that is not there, written to buf: of the row that has it among its hints, or
 * the nearest name or alias. False when none is near.
 */
bool stk_options_suggest(const char *name, char *buf, size_t size);
/* "Application", "Sockets" ... */
const char *stk_options_group_name(enum stk_option_group group);
/* Does the option hold a list? */
bool stk_options_is_list(const struct stk_option *opt);
/* Does the option need a value on the command line? */
bool stk_options_takes_value(const struct stk_option *opt);
/*
 * Steps through a list of words "a,b": yields the next word and its length, or NULL. Start with
 * *pos = list.
 */
const char *stk_options_next_word(const char **pos, size_t *ret_len);
/*
 * Damerau-Levenshtein distance (adjacent swaps count once), "-" and "_" being the same; SIZE_MAX
 * when a word is over 64 bytes.
 */
size_t stk_options_distance(const char *a, const char *b);
