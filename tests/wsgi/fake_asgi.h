/* An engine without a server for asynchronous applications. */
#pragma once

#include "fake_request.h"

struct asgi_request;

struct fake_asgi {
    const struct stk_host_ops *host_ops;
    void *host;
    /* Makes the next request. */
    void (*begin)(struct fake_asgi *run, struct fake_request *r);
    void *arg;
    long n;         /* requests that are to come; of a WebSocket, messages */
    bool websocket; /* one request only */

    char last[4096]; /* the first request's last response, or message */
    size_t last_len;

    /* Its own. */
    struct asgi_request *requests;
    struct stk_request_ops ops;
    void *thread;
};

/* Runs the event loop until all has been answered. The host has been started up. With the GIL. */
void fake_asgi_run(struct fake_asgi *run);
