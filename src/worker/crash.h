/* Crash reports: what a fatal signal leaves in the error log. */
#pragma once

#include "app/host.h"

struct stk_server;

/*
 * From now on SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT write the C backtrace, the stacks of
 * the application and its requests to the error log; the process then dies of the signal, after
 * whoever handled it before. `name` is the process in the log. Host as of worker.h. 0 or a negative
 * errno.
 */
int stk_crash_init(const char *name, const struct stk_host_ops *ops, void *host) STK_MUST_CHECK;
/* Whose requests a report names, and whose access log is written out; NULL: none. */
void stk_crash_set_server(struct stk_server *server);
/*
 * Gives the calling thread a stack for the report, so that it comes although the thread's own has
 * overflowed. Once a thread; it is never freed. A failure costs only that.
 */
void stk_crash_thread(void);
