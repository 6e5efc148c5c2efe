/*
 * The contract by which services answer HTTP themselves, without the application: a handler is
 * called by whichever thread turns the loop, the stand-by included, so it never blocks and never
 * touches the interpreter. worker/ gives handlers to serve/, which knows no service.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

/* What a handler sees of a request: GET or HEAD; others are answered 405 before it is called. */
struct stk_handler_request {
    stk_span path;  /* decoded */
    stk_span query; /* as received */
    unsigned slot;  /* of the worker that answers */
    bool draining;  /* this worker is going to stop */
};

/* What it answers; the body is free()d after it was sent. */
struct stk_handler_response {
    unsigned status;
    const char *content_type;
    char *body;
    size_t len;
};

/* One path that is answered in C. */
struct stk_handler {
    const char *path;     /* compared whole with the decoded path */
    const char *endpoint; /* only on the address bound as this (the value of `bind` or `metrics`);
                             NULL: on every one */
    bool logged;          /* whether its requests go to the access log */
    void (*answer)(void *arg, const struct stk_handler_request *req,
                   struct stk_handler_response *ret_response);
    void *arg;
};
