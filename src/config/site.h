/*
 * What is served where: the applications of a configuration, and the rules that choose among them
 * and what else answers. Made from the options `app`, `mount`, `route` and `header`.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/time.h"
#include "config/config.h"
#include "config/options.h"

/* When a rule is for a request; what is not set is not asked for. */
struct stk_site_match {
    struct stk_strv hosts;   /* lower case, without port; "*.example.com": every name below */
    struct stk_strv methods; /* upper case */
    char *path;              /* the whole path, decoded */
    char *prefix;            /* "/x": the path itself and all below; "/x/": all below; "": all */
    char *regex;             /* a pattern for the decoded path */
};

enum stk_site_op {
    STK_SITE_SET,     /* in place of what the response has by this name */
    STK_SITE_ADD,     /* beside it */
    STK_SITE_REMOVE,  /* no field of this name */
    STK_SITE_DEFAULT, /* where the response has none */
};

/* A change to the fields of a response. */
struct stk_site_field {
    enum stk_site_op op;
    char *name;
    char *value; /* NULL of STK_SITE_REMOVE */
};

enum stk_site_action {
    STK_SITE_APP,
    STK_SITE_REDIRECT,
    STK_SITE_RETURN,
    STK_SITE_STATIC,
};

enum { STK_SITE_STATUSES = 600, STK_SITE_UNLIMITED = -1 };

struct stk_site_rule {
    enum stk_option_id option; /* and which of its items: where it was written */
    size_t item;
    struct stk_site_match match;
    enum stk_site_action action; /* not of a rule of `header` */
    unsigned app;                /* which application */
    bool strip;                  /* what `prefix` says goes from PATH_INFO to SCRIPT_NAME */
    stk_msec timeout;            /* in place of request-timeout: 0: that one; or _UNLIMITED */
    char *target;                /* where to redirect, or a directory or file */
    char *attempt;               /* a file of that directory for what is not there, or NULL */
    bool next;                   /* what is not there is for the rules that follow */
    unsigned status;             /* of a redirect or an answer */
    char *body, *type;           /* of an answer; may be NULL */
    struct stk_site_field *fields;
    size_t nfields;
    bool *statuses; /* [STK_SITE_STATUSES] of a rule of `header`; NULL: for every status */
};

struct stk_site {
    struct stk_strv apps;        /* what to load, each once; the index is the application's */
    struct stk_strv places;      /* where each is: "", "mount /api" ... */
    bool has_app;                /* apps.items[0] takes what no rule takes */
    struct stk_site_rule *rules; /* of `route` in their order, then of `mount` by precedence */
    size_t nrules;
    struct stk_site_rule *headers; /* of `header`, in their order */
    size_t nheaders;
};

/* Is told of a mistake: of which option, which item of it, and what. */
typedef void (*stk_site_report)(void *arg, enum stk_option_id option, size_t item,
                                const char *text);

/* NULL when there was a mistake; `report` has been told of all. Free with stk_site_free. */
struct stk_site *stk_site_new(const struct stk_config *config, stk_site_report report, void *arg);
/* Accepts NULL; returns NULL. */
struct stk_site *stk_site_free(struct stk_site *site);
static inline void stk_site_freep(struct stk_site **site)
{
    *site = stk_site_free(*site);
}

/* The index of an application, which is added if it is new. `place` is kept for the first one. */
unsigned stk_site_app(struct stk_site *site, const char *target, const char *place);

/*
 * site_rule.c: one text of `route` or of `header` as a rule. 0; -1: mistakes have been reported.
 */
struct stk_site_context {
    struct stk_site *site;
    stk_site_report report;
    void *arg;
    enum stk_option_id option;
    size_t item;
    const char *dir; /* where relative paths begin; NULL: where we are */
    bool failed;
};

/* Reports a mistake in the item that is being read. */
void stk_site_fail(struct stk_site_context *ctx, const char *fmt, ...) STK_PRINTF(2, 3);
void stk_site_read_route(struct stk_site_context *ctx, const char *text,
                         struct stk_site_rule *ret_rule);
void stk_site_read_header(struct stk_site_context *ctx, const char *text,
                          struct stk_site_rule *ret_rule);
/* Adds a host to a match; a mistake is reported. */
void stk_site_add_host(struct stk_site_context *ctx, struct stk_site_match *match, const char *text,
                       size_t len);
/* Whether a text can be a decoded path; a mistake is reported. */
bool stk_site_check_path(struct stk_site_context *ctx, const char *what, const char *path);
