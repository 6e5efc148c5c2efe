/* The inside of a loop, for loop/lead.c, which turns it on behalf of whichever thread leads. */
#pragma once

#include <sys/epoll.h>

#include "loop/loop.h"

enum {
    STK_LOOP_BATCH = 64,   /* events taken from the kernel at once */
    STK_LOOP_SLOT_MS = 64, /* granularity of timers */
    STK_LOOP_SLOTS = 512,  /* horizon: 32.768 s; later deadlines are looked at again then */
    STK_LOOP_NO_SLOT = 0xffffffff,
};

struct stk_loop {
    int epfd;
    int wakefd;
    struct stk_source wake_src;
    stk_msec now;
    uint64_t tick; /* the slot number up to which timers have fired */
    uint64_t occupied[STK_LOOP_SLOTS / 64];
    struct stk_list slots[STK_LOOP_SLOTS];
    unsigned ntimers;
    struct stk_list deferred;
};

/* Milliseconds until the next occupied timer slot, or -1. */
stk_msec stk_loop_next_timeout(const struct stk_loop *loop);
/* Fires the timers that are due. */
void stk_loop_run_timers(struct stk_loop *loop, void *who);
/* Dispatches one event, unless its source has left the set since. */
static inline void stk_loop_dispatch(struct epoll_event *ev, void *who)
{
    struct stk_source *src = ev->data.ptr;

    if (stk_likely(__atomic_load_n(&src->events, __ATOMIC_RELAXED) != 0))
        src->fn(src, ev->events, who);
}
