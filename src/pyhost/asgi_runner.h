/*
 * A runner, and the pool of those that may be used again: what asgi_runner.c and asgi_pool.c share.
 */
#pragma once

#include "pyhost/asgi_priv.h"

typedef struct {
    PyObject_HEAD
    struct stk_asgi *asgi;
    PyObject *coro;  /* the application's, while it waits; or NULL */
    PyObject *first; /* what it waited for at first, until the task has taken it; or NULL */
    PyObject *park;  /* the future that the idle task waits for; NULL: it has not begun, or runs */
    PyObject *task;
    PyObject *context;
    StkExchange *exchange;    /* that coro is of */
    bool pooled;              /* may be used again */
    bool dead;                /* its task has ended, or is going to */
    PyObject *next;           /* in the list of those that are to be swept */
    PyObject *next_resumable; /* in the list of those that can go on */
    bool resumable;           /* it is there */
    bool waits;               /* for an awaitable of ours, which wakes it without its task */
    bool blocks; /* first was marked as awaited; the mark is put back as the task gets it */
} StkRunner;

static inline PyObject *stk_runner_name(const StkRunner *r, enum stk_state_name name)
{
    return stk_state_name(r->asgi->st, name);
}

/* Whether its task waits on its future, and nothing has completed that yet. */
static inline bool stk_runner_is_parked(const StkRunner *r)
{
    return r->park && stk_tasks_is_done(&r->asgi->tasks, r->park) == 0;
}

/* A runner without a task. NULL with an exception. */
StkRunner *stk_pool_alloc(struct stk_asgi *a);
/* One that is ready for a request. NULL with an exception. */
StkRunner *stk_pool_take(struct stk_asgi *a);
/* Puts one whose task is at rest into the pool, if it is clean, or lets its task end. Takes the
 * reference. */
void stk_pool_give_back(StkRunner *r, bool clean);
/* Whether nothing of the last request sticks to a runner whose task is at rest, or not any more. */
bool stk_pool_clean(StkRunner *r);
/* The same in a step of its task: whether it may be clean behind that; and puts it back then. */
bool stk_pool_may_be_clean(const StkRunner *r);
void stk_pool_give_back_stepping(StkRunner *r);
/* Lets those coroutines go on that can without their tasks. */
void stk_runner_drive(struct stk_asgi *a);
/* A runner was not clean. */
void stk_pool_note_retired(struct stk_asgi *a);
/* Makes the task of a runner the current one, until another is or the turn ends. 0, or -1 with an
 * exception. */
int stk_pool_enter(StkRunner *r);
