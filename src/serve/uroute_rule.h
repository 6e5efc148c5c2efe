/*
 * A rule of uWSGI's internal routing: what an option as `route-host` and its value say, compiled.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "serve/regex.h"
#include "serve/uroute_text.h"

/* When rules are looked at. */
enum uroute_chain {
    UROUTE_REQUEST,  /* route: before the application */
    UROUTE_ERROR,    /* error-route: when a response has a status */
    UROUTE_RESPONSE, /* response-route: before its head leaves */
    UROUTE_FINAL,    /* final-route: when it is over */
    UROUTE_CHAINS,
};

/* What a rule looks at. */
enum uroute_subject {
    UROUTE_NOTHING, /* -run: it always acts */
    UROUTE_LABEL,   /* a place to go to */
    UROUTE_IF,
    UROUTE_STATUS,
    UROUTE_PATH,
    UROUTE_URI,
    UROUTE_QUERY,
    UROUTE_HOST,
    UROUTE_ADDR,
    UROUTE_USER,
    UROUTE_REFERER,
    UROUTE_AGENT,
};

enum uroute_condition {
    UROUTE_EXISTS,
    UROUTE_ISFILE,
    UROUTE_ISDIR,
    UROUTE_ISLINK,
    UROUTE_ISEXEC,
    UROUTE_EMPTY,
    UROUTE_EQUAL, /* from here on with two texts */
    UROUTE_STARTS,
    UROUTE_ENDS,
    UROUTE_CONTAINS,
    UROUTE_HIGHER,
    UROUTE_HIGHER_EQUAL,
    UROUTE_LOWER,
    UROUTE_LOWER_EQUAL,
    UROUTE_IPV4,
    UROUTE_IPV6,
    UROUTE_REGEXP,
};

enum uroute_action {
    UROUTE_DO_CONTINUE,
    UROUTE_DO_BREAK,
    UROUTE_DO_RETURN,
    UROUTE_DO_GOTO,
    UROUTE_DO_LOG,
    UROUTE_DO_DONOTLOG,
    UROUTE_DO_LOGVAR,
    UROUTE_DO_HARAKIRI,
    UROUTE_DO_ADDVAR,
    UROUTE_DO_MATH,
    UROUTE_DO_ADDHEADER,
    UROUTE_DO_DELHEADER,
    UROUTE_DO_CLEARHEADERS,
    UROUTE_DO_SEND,
    UROUTE_DO_EXPIRES,
    UROUTE_DO_SET, /* setuser, setmethod ... */
    UROUTE_DO_FIXPATHINFO,
    UROUTE_DO_REWRITE,
    UROUTE_DO_REDIRECT,
    UROUTE_DO_STATIC,
    UROUTE_DO_FILE,
    UROUTE_DO_BASICAUTH,
};

/* What UROUTE_DO_SET sets: the variant of an action. */
enum uroute_set {
    UROUTE_SET_APP,
    UROUTE_SET_USER,
    UROUTE_SET_SCRIPT,
    UROUTE_SET_METHOD,
    UROUTE_SET_URI,
    UROUTE_SET_ADDR,
    UROUTE_SET_PATH,
    UROUTE_SET_DOCROOT,
    UROUTE_SET_SCHEME,
};

/* Of UROUTE_DO_FILE, by name: filename=, status= ... */
enum uroute_key {
    UROUTE_KEY_NAME,
    UROUTE_KEY_STATUS,
    UROUTE_KEY_TYPE,
    UROUTE_KEY_UNIX,
    UROUTE_KEY_VALUE,
    UROUTE_KEYS,
};

enum { UROUTE_LINE_MAX = 8 * 1024 };

struct uroute_rule {
    enum uroute_chain chain;
    enum uroute_subject subject;
    char *label;

    /* when */
    struct stk_regex *regex; /* of a subject, or of UROUTE_REGEXP */
    unsigned status;         /* of UROUTE_STATUS */
    enum uroute_condition condition;
    bool negate;
    bool never; /* a condition that lacks its second text */
    struct stk_utext *left, *right;

    /* what */
    enum uroute_action action;
    int variant;           /* of the action: enum uroute_set, a sign, whether it is the "-next" */
    char *key;             /* of addvar and the like: a name; of basicauth: the realm */
    char *secret;          /* of basicauth: user:password, or a file */
    struct stk_utext *arg; /* the argument of most actions */
    struct stk_utext *keys[UROUTE_KEYS];
    bool mime;     /* of UROUTE_DO_FILE: the type is that of its name */
    bool file;     /* of UROUTE_DO_BASICAUTH: `secret` is a file */
    int64_t limit; /* of harakiri: seconds */
};

/*
 * Compiles "OPTION VALUE", the name of an option without dashes before it. 0; -1 and a sentence in
 * *ret_error, to be freed. stk_uroute_rule_deinit in any case.
 */
int stk_uroute_rule_parse(struct uroute_rule *rule, stk_span text, char **ret_error);
void stk_uroute_rule_deinit(struct uroute_rule *rule);
