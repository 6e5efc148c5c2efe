/*
 * Looking up and answering the paths of handlers. There are a handful of them, so the look-up is a
 * comparison of lengths and bytes with each; a path with escapes is decoded first, on the stack.
 *
 * The response goes the way of every other: the services of response.c frame it, and what the
 * socket does not take is queued.
 */
#include "serve/route.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "net/listen.h"
#include "serve/conn.h"
#include "serve/http1.h"
#include "serve/request.h"
#include "serve/server.h"
#include "wire/head.h"
#include "wire/http_status.h"
#include "wire/uri.h"

struct stk_route {
    const struct stk_handler *handlers;
    size_t n;
    size_t path_max; /* the longest path of a handler */
    size_t nendpoints;
    bool *own;    /* by endpoint: there is no application */
    bool *serves; /* [endpoint * n + handler]: answers there */
};

struct stk_route *stk_route_new(const struct stk_handler *handlers, size_t nhandlers,
                                struct stk_listener *const *listeners, size_t nlisteners,
                                const char *own, bool always)
{
    struct stk_route *route;

    if (nhandlers == 0 && own == NULL && !always)
        return NULL;
    route = stk_new0(struct stk_route);
    route->handlers = handlers;
    route->n = nhandlers;
    route->nendpoints = nlisteners;
    route->own = stk_new0_array(bool, nlisteners);
    route->serves = stk_new0_array(bool, nlisteners *nhandlers + 1);
    for (size_t h = 0; h < nhandlers; h++) {
        size_t len = strlen(handlers[h].path);

        STK_ASSERT(len <= STK_ROUTE_PATH_MAX);
        if (len > route->path_max)
            route->path_max = len;
    }
    for (size_t i = 0; i < nlisteners; i++) {
        route->own[i] = own != NULL && strcmp(listeners[i]->spec, own) == 0;
        for (size_t h = 0; h < nhandlers; h++)
            route->serves[i * nhandlers + h] =
                handlers[h].endpoint == NULL ||
                strcmp(listeners[i]->spec, handlers[h].endpoint) == 0;
    }
    return route;
}

struct stk_route *stk_route_free(struct stk_route *route)
{
    if (route != NULL) {
        free(route->own);
        free(route->serves);
        free(route);
    }
    return NULL;
}

/* The decoded path; `buf` has STK_ROUTE_PATH_MAX * 3 bytes. Of length 0: it is no handler's. */
static stk_span route_path(const struct stk_route *route, const struct stk_head *head, char *buf)
{
    stk_span path = stk_head_path(head);

    if (!head->path_escaped)
        return path;
    if (path.len > route->path_max * 3)
        return stk_span_make("", 0);
    return stk_span_make(buf, stk_uri_unescape(buf, path));
}

const struct stk_handler *stk_route_find(const struct stk_route *route,
                                         const struct stk_request *req, bool *ret_own)
{
    char buf[STK_ROUTE_PATH_MAX * 3];
    stk_span path = route_path(route, req->head, buf);
    unsigned endpoint = req->endpoint->index;

    STK_ASSERT(endpoint < route->nendpoints);
    *ret_own = route->own[endpoint];
    for (size_t h = 0; h < route->n; h++) {
        if (route->serves[endpoint * route->n + h] &&
            stk_span_eq(path, stk_span_str(route->handlers[h].path)))
            return &route->handlers[h];
    }
    return NULL;
}

/* A response whose fields are not the application's. */
static void route_send(struct stk_serve_request *rq, const struct stk_handler_response *r)
{
    if (stk_response_start(&rq->base, r->status, stk_http_status_reason(r->status)) != 0 ||
        stk_response_header(&rq->base, STK_SPAN_LIT("Content-Type"),
                            stk_span_str(r->content_type)) != 0 ||
        stk_response_header(&rq->base, STK_SPAN_LIT("Cache-Control"), STK_SPAN_LIT("no-store")) !=
            0 ||
        stk_response_write(&rq->base, r->body, r->len, STK_WRITE_END) < 0)
        rq->keep_alive = false;
}

static void route_send_text(struct stk_serve_request *rq, unsigned status, const char *text)
{
    union {
        const char *c;
        char *v;
    } body = {.c = text};
    const struct stk_handler_response r = {.status = status,
                                           .content_type = "text/plain; charset=utf-8",
                                           .body = body.v,
                                           .len = strlen(text)};

    route_send(rq, &r);
}

static void route_refuse_method(struct stk_serve_request *rq)
{
    static const char text[] = "405 Method Not Allowed: GET and HEAD are answered here\n";

    if (stk_response_start(&rq->base, 405, stk_http_status_reason(405)) != 0 ||
        stk_response_header(&rq->base, STK_SPAN_LIT("Allow"), STK_SPAN_LIT("GET, HEAD")) != 0 ||
        stk_response_header(&rq->base, STK_SPAN_LIT("Content-Type"),
                            STK_SPAN_LIT("text/plain; charset=utf-8")) != 0 ||
        stk_response_write(&rq->base, text, sizeof text - 1, STK_WRITE_END) < 0)
        rq->keep_alive = false;
}

void stk_route_answer(const struct stk_route *route, struct stk_serve_request *rq,
                      const struct stk_handler *handler)
{
    const struct stk_server *server = rq->t->server;
    const struct stk_head *head = rq->base.head;
    struct stk_handler_response r = {.status = 500, .content_type = "text/plain; charset=utf-8"};
    char buf[STK_ROUTE_PATH_MAX * 3];
    struct stk_handler_request req;

    if (handler == NULL) {
        route_send_text(rq, 404, "404 Not Found: only metrics and health are served here\n");
        return;
    }
    if (!head->is_get && !head->is_head) {
        route_refuse_method(rq);
        return;
    }
    req = (struct stk_handler_request){
        .path = route_path(route, head, buf),
        .query = stk_head_query(head),
        .slot = server->slot,
        .draining = atomic_load_explicit(&server->draining, memory_order_relaxed),
    };
    handler->answer(handler->arg, &req, &r);
    if (r.body == NULL)
        route_send_text(rq, r.status, "");
    else
        route_send(rq, &r);
    free(r.body);
}
