/*
 * start_response and write() of PEP 3333, and the one way by which response bytes leave this
 * folder.
 */
#pragma once

#include "pyhost/host.h"

PyType_Spec *stk_respond_start_spec(void);
PyType_Spec *stk_respond_write_spec(void);

/* Outcomes of sending; -1 is a Python exception. */
enum stk_respond_result {
    STK_RESPOND_SENT = 0,
    STK_RESPOND_STOP = 1, /* nobody wants more: the client has left, or the length is reached */
};

/*
 * The start_response object of a call: the thread's own if it has one, else a new one. NULL with an
 * exception. Give it back with stk_respond_release, which cuts it off the call and keeps it for the
 * thread's next one if the application has not kept it.
 */
PyObject *stk_respond_acquire(struct stk_pythread *thread, struct stk_call *call);
void stk_respond_release(struct stk_pythread *thread, PyObject *op);
/* Frees what the thread has kept. */
void stk_respond_forget(struct stk_pythread *thread);

/* Sends body bytes with the flags of enum stk_write_flags, waiting without the GIL where needed. */
int stk_respond_write(struct stk_call *call, const char *data, size_t len, unsigned flags);
/* Sends a part of a file as the whole rest of the body. */
int stk_respond_sendfile(struct stk_call *call, int fd, int64_t off, uint64_t len);
/* Adds Content-Length where the application gave none and the status allows one. 0 or -1. */
int stk_respond_add_length(struct stk_call *call, uint64_t length);
/*
 * Waits, without the GIL or letting other greenlets run, for what the request's last -EAGAIN was
 * about (STK_WAKE_INPUT, STK_WAKE_OUTPUT). 0, and call->req may be another one; or -1: a signal
 * handler raised, or the greenlet was thrown an exception.
 */
int stk_respond_wait(struct stk_call *call, unsigned what);
/* After a block that is not the last: under gevent, waits while the client takes too little. 0 or
 * -1. */
int stk_respond_relax(struct stk_call *call);
/* Why the server refuses a field: the end of a sentence, for an enum stk_response_error. */
const char *stk_respond_field_fault(int error);
