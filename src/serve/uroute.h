/*
 * uWSGI's internal routing: the rules of route, error-route, response-route and final-route, for
 * configurations of uWSGI's. docs/moving-from-uwsgi.md is for users.
 *
 * Where there are no rules, nothing of this exists and rq->uroute is NULL.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"
#include "base/span.h"
#include "base/time.h"

struct stk_serve_request;
struct stk_server;
struct stk_uroute;

enum stk_uroute_result {
    STK_UROUTE_GO,       /* on to what answers */
    STK_UROUTE_ANSWERED, /* a response was written */
};

/* Is told of a mistake: in which item, and what. */
typedef void (*stk_uroute_report)(void *arg, size_t item, const char *text);

/*
 * Compiles rules, each an option's name, a blank and its value: "route ^/old redirect:/new". NULL
 * when there is a mistake; `report` has been told of all.
 */
struct stk_uroute *stk_uroute_new(const char *const *rules, size_t n, stk_uroute_report report,
                                  void *arg);
/* The memory of the threads of a server, which exist already. */
void stk_uroute_attach(struct stk_uroute *u, struct stk_server *server);
/* Accepts NULL; returns NULL. */
struct stk_uroute *stk_uroute_free(struct stk_uroute *u);

/* Whether responses are looked at before they leave, and requests when they are over. NULL: no. */
bool stk_uroute_has_heads(const struct stk_uroute *u);
bool stk_uroute_has_ends(const struct stk_uroute *u);
/* The shortest time that a rule gives the application; 0: none does. Accepts NULL. */
stk_msec stk_uroute_least_timeout(const struct stk_uroute *u);

/* Goes through the rules of `route`. May change what rq->base says of the request. */
enum stk_uroute_result stk_uroute_request(struct stk_uroute *u, struct stk_serve_request *rq);
/* The application that a rule names by its mount point; false: none does. */
bool stk_uroute_app(const struct stk_serve_request *rq, stk_span *ret_app);

/*
 * The rest: of a request whose rq->uroute is set. Its response is about to leave: error-route,
 * response-route, and fields that rules add and take away. False: another response has been sent,
 * or none is going to be.
 */
bool stk_uroute_head(struct stk_serve_request *rq);
/* It is over: final-route. Whether it is to be logged. */
bool stk_uroute_end(struct stk_serve_request *rq);
/* Gives a request that outlives its call its own memory; false: there is none. And frees that. */
bool stk_uroute_detach(struct stk_serve_request *rq) STK_MUST_CHECK;
void stk_uroute_drop(struct stk_serve_request *rq);
