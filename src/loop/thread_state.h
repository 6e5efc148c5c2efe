/*
 * What the kernel knows of a thread: whether it would let it run, which tells a thread that waits
 * for others from one that was put aside in the middle of its work; and whether it waits for
 * events.
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

enum stk_thread_wait {
    STK_THREAD_WAIT_UNKNOWN,
    STK_THREAD_WAIT_EVENTS, /* in epoll */
    STK_THREAD_WAIT_NOT,    /* it runs, or waits for something else */
};

/* The same for stk_thread_wait. */
int stk_thread_wait_open(void);
enum stk_thread_wait stk_thread_wait(int fd);
