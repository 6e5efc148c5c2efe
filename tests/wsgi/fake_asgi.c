/*
 * Many requests of an asynchronous application, for bench/instructions: an engine of which each
 * wait is a turn with a batch of requests, driven by the application's event loop as the server's
 * is. Requests that wait are detached; one that is a WebSocket gets a message a turn.
 */
#include "fake_asgi.h"

#include <errno.h>
#include <string.h>

#include "base/mem.h"

enum { ASGI_BATCH = 64 }; /* requests of a turn */

struct asgi_request {
    struct fake_request fake; /* first */
    struct fake_asgi *run;
    bool busy; /* detached, and not at its end */
    bool asks; /* a message of the WebSocket is wanted */
};

static const struct stk_ws_view asgi_message = {
    .ptr = "Hello, World!", .len = 13, .text = true, .ascii = true};

static struct asgi_request *asgi_of(struct stk_request *req)
{
    return (struct asgi_request *)(void *)req;
}

/* ---- services ------------------------------------------------------------------------------ */

static struct stk_request *asgi_detach(struct stk_request *req)
{
    asgi_of(req)->busy = true;
    return req;
}

static void asgi_want(struct stk_request *req, unsigned what)
{
}

static bool asgi_is_congested(struct stk_request *req)
{
    return false;
}

static void asgi_finish(struct stk_request *req)
{
    asgi_of(req)->busy = false;
}

static bool asgi_tls(const struct stk_request *req, struct stk_tls_view *ret_view)
{
    return false;
}

static int asgi_ws_accept(struct stk_request *req, stk_span subprotocol,
                          const struct stk_var *fields, size_t nfields, size_t *ret_bad)
{
    return 0;
}

static int asgi_ws_send(struct stk_request *req, const char *data, size_t len, bool text)
{
    struct fake_request *r = &asgi_of(req)->fake;

    if (len > FAKE_OUT_SIZE)
        return -ENOMEM;
    memcpy(r->out, data, len);
    r->out_len = len;
    return 0;
}

static int asgi_ws_peek(struct stk_request *req, struct stk_ws_view *ret_view)
{
    asgi_of(req)->asks = true;
    return -EAGAIN;
}

static void asgi_ws_skip(struct stk_request *req)
{
}

static void asgi_ws_wait(struct stk_request *req)
{
}

static int asgi_ws_close(struct stk_request *req, unsigned code, stk_span reason)
{
    return 0;
}

/* ---- the engine ---------------------------------------------------------------------------- */

static void asgi_begin(void *arg, void *thread)
{
    struct fake_asgi *run = arg;

    run->thread = thread;
}

static void asgi_end(void *arg)
{
}

static bool asgi_turn(void *arg)
{
    return false; /* the event loop is asyncio's */
}

/* As many requests as are free; false: all have been begun and have ended. */
static bool asgi_turn_requests(struct fake_asgi *run)
{
    bool any = false;

    for (unsigned i = 0; i < ASGI_BATCH; i++) {
        struct asgi_request *r = &run->requests[i];

        if (r->busy || run->n == 0) {
            any = any || r->busy;
            continue;
        }
        run->n--;
        any = true;
        run->begin(run, &r->fake);
        r->fake.base.websocket = run->websocket;
        r->fake.base.ops = &run->ops;
        run->host_ops->call(run->host, run->thread, &r->fake.base);
    }
    return any;
}

/* A message for the WebSocket, if it waits for one. */
static bool asgi_turn_message(struct fake_asgi *run)
{
    struct asgi_request *r = &run->requests[0];

    if (run->n == 0 || !r->busy)
        return false;
    if (r->asks) {
        run->n--;
        r->asks = run->host_ops->message(run->host, run->thread, &r->fake.base, &asgi_message);
    }
    return true;
}

static bool asgi_wait(void *arg, int own_fd, stk_nsec timeout, bool *ret_own)
{
    struct fake_asgi *run = arg;

    *ret_own = false;
    if (run->websocket && run->requests[0].busy)
        return asgi_turn_message(run);
    return asgi_turn_requests(run);
}

static void asgi_gather(void *arg, bool on)
{
}

void fake_asgi_run(struct fake_asgi *run)
{
    const struct stk_host_engine engine = {.arg = run,
                                           .fd = -1,
                                           .bell = -1,
                                           .begin = asgi_begin,
                                           .end = asgi_end,
                                           .turn = asgi_turn,
                                           .wait = asgi_wait,
                                           .gather = asgi_gather};

    run->ops = fake_request_ops;
    run->ops.detach = asgi_detach;
    run->ops.want = asgi_want;
    run->ops.is_congested = asgi_is_congested;
    run->ops.finish = asgi_finish;
    run->ops.tls = asgi_tls;
    run->ops.ws_accept = asgi_ws_accept;
    run->ops.ws_send = asgi_ws_send;
    run->ops.ws_peek = asgi_ws_peek;
    run->ops.ws_skip = asgi_ws_skip;
    run->ops.ws_wait = asgi_ws_wait;
    run->ops.ws_close = asgi_ws_close;
    run->requests = stk_new0_array(struct asgi_request, ASGI_BATCH);
    for (unsigned i = 0; i < ASGI_BATCH; i++)
        run->requests[i].fake.out = stk_mem_zalloc(FAKE_OUT_SIZE);
    run->host_ops->run(run->host, 1, NULL, NULL, &engine);
    run->last_len = run->requests[0].fake.out_len;
    memcpy(run->last, run->requests[0].fake.out,
           run->last_len < sizeof(run->last) ? run->last_len : sizeof(run->last));
    for (unsigned i = 0; i < ASGI_BATCH; i++)
        free(run->requests[i].fake.out);
    free(run->requests);
}
