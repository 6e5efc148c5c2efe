/*
 * The event loop: an epoll set, coarse timers, and a wake-up. Driven by one thread at a time; which
 * thread that is, is the business of loop/lead.h.
 *
 * Level-triggered. Events of a turn are dispatched one by one; a handler may close other sources of
 * the same batch: their events are dropped, and their memory stays valid until stk_loop_reap.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/macros.h"
#include "base/time.h"

struct stk_loop;
struct stk_source;
struct stk_timer;

/*
 * Called with the ready events (EPOLLIN ...). `who` is what was given to stk_loop_dispatch: the
 * thread that drives the loop.
 */
typedef void (*stk_source_fn)(struct stk_source *src, uint32_t events, void *who);
typedef void (*stk_timer_fn)(struct stk_timer *timer, void *who);

/* A descriptor in the loop. Embedded in its owner; the loop does not own the descriptor. */
struct stk_source {
    stk_source_fn fn;
    int fd;
    uint32_t events; /* what is asked for; 0 when not in the set */
};

/* A coarse timer (granularity 64 ms, never early). Embedded in its owner. */
struct stk_timer {
    struct stk_list link;
    stk_timer_fn fn;
    stk_msec deadline; /* absolute, as stk_loop_now */
    uint32_t slot;
};

int stk_loop_new(struct stk_loop **ret_loop) STK_MUST_CHECK;
/* Frees the loop; sources and timers of others are forgotten, not touched. Accepts NULL; returns
 * NULL. */
struct stk_loop *stk_loop_free(struct stk_loop *loop);
/* The epoll descriptor, to nest this loop in another. */
int stk_loop_fd(const struct stk_loop *loop);

/* Adds, changes and removes. 0 or a negative errno. */
int stk_loop_add(struct stk_loop *loop, struct stk_source *src, uint32_t events) STK_MUST_CHECK;
int stk_loop_mod(struct stk_loop *loop, struct stk_source *src, uint32_t events) STK_MUST_CHECK;
void stk_loop_del(struct stk_loop *loop, struct stk_source *src);

void stk_timer_init(struct stk_timer *timer, stk_timer_fn fn);
/* (Re)arms for `timeout` milliseconds from now. */
void stk_timer_set(struct stk_loop *loop, struct stk_timer *timer, stk_msec timeout);
/* The same of one that is not set. */
void stk_timer_start(struct stk_loop *loop, struct stk_timer *timer, stk_msec timeout);
void stk_timer_stop(struct stk_loop *loop, struct stk_timer *timer);
/* Whether it is going to fire. */
bool stk_timer_is_set(const struct stk_timer *timer);

/* Time of the current turn, monotonic milliseconds; may be read by any thread. */
stk_msec stk_loop_now(const struct stk_loop *loop);
/* Reads the clock again; by the owner of the loop, after what may have taken long. */
void stk_loop_refresh(struct stk_loop *loop);

/* Ends a wait early; from any thread or signal handler. */
void stk_loop_wake(struct stk_loop *loop);

/* An object whose memory must outlive the current batch of events. */
struct stk_deferred {
    struct stk_list link;
    void (*free_fn)(struct stk_deferred *deferred);
};

/* Calls free_fn before the next batch is taken. */
void stk_loop_defer(struct stk_loop *loop, struct stk_deferred *deferred);
/* Frees what stk_loop_defer has gathered: only between two batches. */
void stk_loop_reap(struct stk_loop *loop);

/*
 * One turn, for those who drive a loop alone (the master): waits at most `timeout` milliseconds
 * (-1: until something happens), dispatches events and timers. 0 or a negative errno.
 */
int stk_loop_run_once(struct stk_loop *loop, stk_msec timeout, void *who) STK_MUST_CHECK;
