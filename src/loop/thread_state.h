/*
 * Whether the kernel would let a thread run: what tells a thread that waits for others from one
 * that was put aside in the middle of its work.
 */
#pragma once

#include <stdbool.h>

/*
 * Opens what stk_thread_is_runnable reads of the calling thread; the caller closes it. -1 where
 * /proc does not tell.
 */
int stk_thread_state_open(void);
/* Whether the thread runs or waits for a processor only; false for fd -1. Any thread may ask. */
bool stk_thread_is_runnable(int fd);
