/* What the files of the router share. */
#pragma once

#include "app/request.h"
#include "config/site.h"
#include "serve/location.h"
#include "serve/regex.h"
#include "serve/router.h"
#include "serve/uroute.h"

/* A rule with what was compiled of it. */
struct router_rule {
    const struct stk_site_rule *site;
    struct stk_regex *regex;
    struct stk_location *location;
    struct stk_static *files;
    bool one_file; /* `files` is one, and not a directory */
};

/* The memory of one thread. */
struct router_scratch {
    char *path; /* the whole path, decoded */
    size_t path_cap;
    char *script; /* SCRIPT_NAME where it is made of two parts */
    struct stk_regex_scratch *regex;
    char *location;
    stk_span groups[STK_REGEX_GROUPS];
};

struct stk_router {
    struct stk_server *server;
    struct stk_site *site;
    struct stk_route *handlers;
    struct stk_uroute *uroute;      /* uWSGI's rules, or NULL */
    struct router_rule *rules;      /* [site->nrules] */
    struct router_rule *headers;    /* [site->nheaders] */
    struct router_scratch *scratch; /* [server->nthreads] */
    stk_span canonical_name;        /* without port */
    bool canonical_port;
    stk_msec least_timeout; /* of all rules; 0: none has one */
    bool has_fields;
};

/* A path as the rules see it. */
struct router_path {
    stk_span whole;   /* SCRIPT_NAME of a gateway, then the path below it */
    size_t script;    /* so much of it is that SCRIPT_NAME */
    uint32_t skipped; /* so many bytes of the request's own path are in that SCRIPT_NAME */
};

/* The scratch memory of the thread that has the request. */
struct router_scratch *stk_router_scratch(struct stk_serve_request *rq);
/* The path of a request, in the thread's memory; false: it is too long for that. */
bool stk_router_path(const struct stk_request *req, struct router_scratch *s,
                     struct router_path *ret_path);
/* Whether a mount at the prefix takes the path. "": every path. */
bool stk_router_prefix_fits(const char *prefix, size_t len, stk_span path);
/* Whether a host (with or without port) is one that a rule names. */
bool stk_router_host_fits(const char *pattern, stk_span host);
/* The name in a host, without port and final dot. */
stk_span stk_router_host_name(stk_span host);
/* Whether the rule is for the request; groups are those of its pattern, or the rest behind its
 * prefix as $1. */
enum stk_regex_result stk_router_fits(const struct router_rule *rule, const struct stk_request *req,
                                      struct router_scratch *s, const struct router_path *path);
