/* ASGI 3 (and 2): asynchronous applications, their event loop and their requests. */
#pragma once

#include "pyhost/host.h"

/* How applications are called. */
enum stk_interface {
    STK_INTERFACE_WSGI,
    STK_INTERFACE_ASGI,  /* app(scope, receive, send) */
    STK_INTERFACE_ASGI2, /* app(scope)(receive, send) */
    STK_INTERFACE_GREEN, /* WSGI in a greenlet */
};

/*
 * Which interface a callable has, and whether that is to be seen from it beyond doubt (code,
 * signature), or only the most likely. No exception is left.
 */
enum stk_interface stk_asgi_detect(PyObject *app, bool *ret_sure);

/* In the process that will serve, after load: the event loop is made, and the applications are
 * told of the startup (lifespan). 0 or STK_HOST_E_*, logged. */
int stk_asgi_startup(void *host);
/* The other end: lifespan shutdown, tasks cancelled, event loop closed. Accepts a host that has not
 * started. */
void stk_asgi_shutdown(struct stk_pyhost *host);

/* host_ops.has_loop, is_async, wake, message, and the body of run and call where the application is
 * asynchronous. */
bool stk_asgi_has_loop(void *host);
bool stk_asgi_is_async(void *host, unsigned app);
void stk_asgi_wake(void *host, void *thread, struct stk_request *req, unsigned what);
bool stk_asgi_message(struct stk_request *req, const struct stk_ws_view *view);
/* host_ops.tasks */
bool stk_asgi_tasks(void *host, uint64_t call, int fd);
int stk_asgi_run(struct stk_pyhost *host, struct stk_pythread *thread,
                 const struct stk_host_engine *engine);
enum stk_host_call stk_asgi_call(struct stk_pyhost *host, struct stk_pythread *thread,
                                 struct stk_request *req);
