/* The Python stacks of a running or dying process, taken without the interpreter. */
#pragma once

#include "pyhost/host.h"

/*
 * Makes stk_stacks_write possible, with the GIL: before the application is loaded, so that a crash
 * of its import is told as well. Where that fails stacks are not to be had, and say so.
 */
void stk_stacks_init(struct stk_pyhost *host);
/* Undoes it, with the GIL. */
void stk_stacks_deinit(struct stk_pyhost *host);
/* host_ops.stacks: see app/host.h. Also in a signal handler. */
void stk_stacks_write(void *host, void *thread, int fd);
/* The highest real-time signal that nobody uses, so far; 0: there is none. */
int stk_stacks_free_signal(void);
