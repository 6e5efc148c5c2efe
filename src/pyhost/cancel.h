/*
 * Cancelling a call of the application from outside: stoker.RequestTimeout and
 * stoker.ClientDisconnected, subclasses of stoker.RequestCancelled.
 */
#pragma once

#include "pyhost/host.h"

/* Adds the exception classes to the module and its state. 0 or -1. */
int stk_cancel_add_types(PyObject *module, struct stk_state *st);

/* Before the engine's threads run, with the GIL. A failure is logged. False: the host has others
 * that run; calls of these cannot be cancelled. */
bool stk_cancel_init(struct stk_pyhost *host, unsigned threads);
/* After they have ended, with the GIL. */
void stk_cancel_deinit(struct stk_pyhost *host);
/* Around the life of an engine's thread, by that thread, with the GIL. */
void stk_cancel_attach(struct stk_pyhost *host, struct stk_pythread *thread);
void stk_cancel_detach(struct stk_pyhost *host, struct stk_pythread *thread);

/* host_ops.cancel: see app/host.h. */
void stk_cancel_call(void *host, void *thread, uint64_t call, int why);

/* Around a call, with the GIL: what is pending at its end reaches nobody else. */
static inline void stk_cancel_begin(struct stk_pythread *thread, struct stk_call *call)
{
    thread->call = call;
}
void stk_cancel_clear(struct stk_pythread *thread);
static inline void stk_cancel_end(struct stk_pythread *thread)
{
    thread->call = NULL;
    if (stk_unlikely(atomic_load_explicit(&thread->cancel, memory_order_relaxed) != 0))
        stk_cancel_clear(thread);
}

/* The exception for a call that is cancelled because its client has left, or for its time; NULL
 * with another one. */
PyObject *stk_cancel_new(const struct stk_pyhost *host, bool left);
/*
 * Around a step of a request's coroutine, outside of a call: what is raised from outside meanwhile
 * is for this request. begin returns whether there is one to end.
 */
static inline bool stk_cancel_begin_step(struct stk_pythread *thread, struct stk_call *call)
{
    if (!thread || thread->call || !call->req)
        return false;
    thread->call = call;
    atomic_store_explicit(&thread->step_call, call->req->id, memory_order_relaxed);
    atomic_store_explicit(&thread->step,
                          atomic_load_explicit(&thread->step, memory_order_relaxed) + 1,
                          memory_order_release);
    return true;
}
static inline void stk_cancel_end_step(struct stk_pythread *thread)
{
    atomic_store_explicit(&thread->step,
                          atomic_load_explicit(&thread->step, memory_order_relaxed) + 1,
                          memory_order_release);
    stk_cancel_end(thread);
}
/* host_ops.step: see app/host.h. */
uint64_t stk_cancel_step(void *host, void *thread, uint64_t *ret_call);

/* Whether an exception is the server's own, raised in this call. */
bool stk_cancel_is_own(const struct stk_call *call, PyObject *exc);
