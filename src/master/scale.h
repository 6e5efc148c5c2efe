/* How many workers there are: between config->workers_min and the number of slots. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/time.h"
#include "loop/loop.h"

struct stk_master;
struct stk_proc;

/* Called when the number of workers is the one that was asked for, or that cannot be. */
typedef void (*stk_scale_fn)(void *arg, bool ok, const char *text);

struct stk_scale {
    struct stk_timer tick;
    unsigned min, target; /* target: how many slots are to have a worker */
    unsigned pinned;      /* by stk_scale_set; 0: by the load */
    unsigned serving;     /* at the last tick */
    bool idle;            /* nobody had anything to do then */
    double load;          /* busy and queued work per thread, averaged over a second */
    stk_nsec calm_since;  /* 0: not calm */
    stk_nsec shrunk_at;   /* 0: never */
    stk_nsec patience;    /* calm for so long: one goes */
    stk_nsec pinned_at;
    struct stk_list waiters;
};

/* Decides which slots have a worker at the start. */
void stk_scale_init(struct stk_master *m);
void stk_scale_deinit(struct stk_master *m);
/* Whether this number of workers is scaled by the load. */
bool stk_scale_is_automatic(const struct stk_master *m);
/*
 * `stoker scale N`: so many workers from now on, at least one and at most as many as there are
 * slots; 0: by the load again (or all of them, without workers-min).
 */
void stk_scale_set(struct stk_master *m, unsigned n);
/* SIGTTIN and SIGTTOU: one worker more (1) or less (-1), within the bounds of stk_scale_set. */
void stk_scale_by_one(struct stk_master *m, int step);
/* Calls fn(arg, ...) once: when as many workers serve as are to. */
void stk_scale_notify(struct stk_master *m, stk_scale_fn fn, void *arg);
/* Forgets all calls with this argument. */
void stk_scale_forget(struct stk_master *m, const void *arg);
/* Something has changed: a worker is ready, or gone. */
void stk_scale_step(struct stk_master *m);
/* A worker that was to be one more did not become ready. */
void stk_scale_on_failed(struct stk_master *m, const struct stk_proc *p, const char *how);
/* The server stops: whoever waits hears of it. */
void stk_scale_on_stop(struct stk_master *m);
/* Workers that serve. */
unsigned stk_scale_serving(const struct stk_master *m);
