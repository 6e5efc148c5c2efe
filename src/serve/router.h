/*
 * What answers a request: handlers of services, redirects, the rules of `route` and `mount`, or an
 * application. Asked before the body is received, by whichever thread has the request.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"
#include "config/site.h"

struct stk_config;
struct stk_router;
struct stk_serve_request;
struct stk_server;
struct stk_server_params;

enum stk_router_result {
    STK_ROUTER_PASS,     /* to the application rq->base.app, with rq->base.script_name */
    STK_ROUTER_ANSWERED, /* by us, to be counted and logged */
    STK_ROUTER_UNLOGGED, /* by a handler whose requests are not */
};

/*
 * Of the handlers and the configuration in params; the server's threads exist already. *ret_router
 * is NULL where there is nothing to route, and that is what the server looks at. 0, or -EINVAL, the
 * reason logged.
 */
int stk_router_new(struct stk_router **ret_router, struct stk_server *server,
                   const struct stk_server_params *params) STK_MUST_CHECK;
/* Accepts NULL; returns NULL. */
struct stk_router *stk_router_free(struct stk_router *router);
/* Whether fields of responses are changed. Accepts NULL. */
bool stk_router_has_fields(const struct stk_router *router);
/* The shortest time that a rule gives the application; 0: none does. Accepts NULL. */
stk_msec stk_router_least_timeout(const struct stk_router *router);
/* Answers a request, or says which application is to. */
enum stk_router_result stk_router_decide(struct stk_serve_request *rq);
/* Whether heads of responses are looked at before they leave, and requests when they are over.
 * Accept NULL. */
bool stk_router_has_heads(const struct stk_router *router);
bool stk_router_has_ends(const struct stk_router *router);
/* The text of an application, "-" of none. Accepts NULL. */
const char *stk_router_app_name(const struct stk_router *router, unsigned app);
/* Reports what of uWSGI's rules cannot be used. False: something. */
bool stk_router_check_uwsgi(const struct stk_config *config, stk_site_report report, void *arg);
/* Reports what of the rules cannot be compiled: patterns and redirects. False: something. */
bool stk_router_check(const struct stk_site *site, stk_site_report report, void *arg);

/*
 * router_header.c: changes the fields of a response whose head is about to be completed, as the
 * rules say. False: there is no room for them.
 */
bool stk_router_change_fields(struct stk_serve_request *rq);
