/* Replacing single workers: worn out, too old, too large, or with a request that does not end. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/time.h"
#include "ipc/scoreboard.h"
#include "loop/loop.h"

struct stk_master;
struct stk_proc;
struct stk_slot;

struct stk_recycle {
    struct stk_timer look;  /* at ages and memory; only where config asks for it */
    struct stk_timer retry; /* after a replacement that failed */
    stk_msec backoff;
    stk_nsec memory_due; /* when memory is looked at next */
    bool waits;          /* retry is armed */
    bool unreadable;     /* memory could not be looked at, and the log said so */
    bool told;           /* of a memory limit that is too low */
};

/* What is remembered of one worker. */
struct stk_retirement {
    bool due; /* it is to be replaced */
    bool stuck;
    enum stk_restart cause;
    uint32_t chance;      /* of this worker, 0 .. 1023: how much of the jitter it gets */
    stk_nsec since;       /* when it became ready */
    stk_nsec memory_from; /* its memory does not count before */
};

void stk_recycle_init(struct stk_master *m);
/* Whether a worker is replaced for its memory soon after its start. */
bool stk_recycle_is_early(const struct stk_proc *p);
/* A worker is ready: `early` when it replaces one that grew too large too soon. */
void stk_recycle_on_ready(struct stk_proc *p, bool early);
/* RETIRE: reason is an enum stk_channel_retire, as received. */
void stk_recycle_on_retire(struct stk_proc *p, uint32_t reason, int64_t value);
/* The replacement of a slot's worker is gone before it was ready. */
void stk_recycle_on_failed(struct stk_slot *slot, const struct stk_proc *p, const char *how);
/* A replacement is ready and the old worker drains. */
void stk_recycle_on_replaced(struct stk_slot *slot, const struct stk_proc *old);
/* Starts replacements that are due and allowed. */
void stk_recycle_step(struct stk_master *m);
/* Has the worker of a slot replaced, by order of a person. 0; -ENOENT: it has none that serves. */
int stk_recycle_worker(struct stk_master *m, unsigned slot) STK_MUST_CHECK;
