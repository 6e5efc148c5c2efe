/*
 * WSGI under gevent: each request runs in a greenlet, and the hub (gevent's event loop, on the main
 * thread) turns the engine. What is specific to a request is in struct stk_green.
 */
#pragma once

#include "pyhost/host.h"

struct stk_green;
struct stk_greens;

/*
 * Before applications are loaded: imports gevent, patches the standard library where `patch` says
 * so, and starts the hub. 0 or STK_HOST_E_*, logged.
 */
int stk_green_prepare(struct stk_pyhost *host, bool patch);
/* In the process that will serve, after load. 0 or STK_HOST_E_*, logged. */
int stk_green_startup(struct stk_pyhost *host);
/* Ends the greenlets that are left; frees all. Both accept a host without gevent. */
void stk_green_shutdown(struct stk_pyhost *host);
void stk_green_free(struct stk_pyhost *host);

/* host_ops.run, call and wake with gevent. */
int stk_green_run(struct stk_pyhost *host, struct stk_pythread *thread,
                  const struct stk_host_engine *engine);
enum stk_host_call stk_green_call(struct stk_pyhost *host, struct stk_pythread *thread,
                                  struct stk_request *req);
void stk_green_wake(struct stk_pyhost *host, struct stk_request *req, unsigned what);

/*
 * Lets the current greenlet wait for what the last -EAGAIN of a service was about (STK_WAKE_INPUT,
 * STK_WAKE_OUTPUT); the service is to be called again with call->req, which may be another one. 0;
 * -1 with an exception.
 */
int stk_green_wait(struct stk_call *call, unsigned what);
/* After a block was sent: lets the current greenlet wait while too much is queued. 0 or -1. */
int stk_green_relax(struct stk_call *call);
/* Whether an exception ends a greenlet without being an error (greenlet.GreenletExit). */
bool stk_green_is_exit(const struct stk_call *call, PyObject *exc);
/* The call that the current greenlet runs, or NULL. */
struct stk_call *stk_green_current(const struct stk_pyhost *host);
/* Where the requests are that wait, or the one with this id: a str, or NULL with an exception. */
PyObject *stk_green_describe(const struct stk_pyhost *host, uint64_t call);
