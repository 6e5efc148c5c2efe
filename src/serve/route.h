/*
 * Paths that are answered in C (app/handler.h), by whichever thread has the request: also while
 * every thread of the application is busy, or the worker drains.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "app/handler.h"
#include "base/macros.h"

struct stk_listener;
struct stk_request;
struct stk_serve_request;
struct stk_server;

enum { STK_ROUTE_PATH_MAX = 1024 }; /* of a handler, decoded */

/* The handlers of a server, by endpoint. */
struct stk_route;

/*
 * For the listeners of a server, whose endpoints have the same numbers. On the address whose spec
 * is `own` (may be NULL) there is no application: what no handler answers is not found. NULL where
 * there is nothing to answer (unless `always`), and that is what the server looks at.
 */
struct stk_route *stk_route_new(const struct stk_handler *handlers, size_t nhandlers,
                                struct stk_listener *const *listeners, size_t nlisteners,
                                const char *own, bool always);
/* Accepts NULL; returns NULL. */
struct stk_route *stk_route_free(struct stk_route *route);

/*
 * The handler of a request; `*ret_own`: there is no application to ask instead. NULL: none.
 */
const struct stk_handler *stk_route_find(const struct stk_route *route,
                                         const struct stk_request *req, bool *ret_own);
/* Answers a request: 405 for other methods than GET and HEAD, 404 without handler. */
void stk_route_answer(const struct stk_route *route, struct stk_serve_request *rq,
                      const struct stk_handler *handler);
