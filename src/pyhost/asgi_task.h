/*
 * What a runner asks of its task and of its context after each request, without the detours of
 * attributes and calls.
 */
#pragma once

#include "pyhost/compat.h"
#include "pyhost/state.h"

/* A method without arguments, or the getter of an attribute, of instances of just this type. */
struct stk_task_method {
    PyTypeObject *type; /* NULL: it is asked for by its name */
    PyCFunction fn;
};

struct stk_task_getter {
    PyTypeObject *type;
    getter fn;
    void *closure;
};

struct stk_tasks {
    struct stk_state *st;
    PyObject *name;    /* of tasks that are used again */
    PyObject *context; /* that of each request is a copy of */
    struct stk_task_method get_name, cancelling, future_done;
    struct stk_task_getter callbacks, must_cancel;
    bool restores; /* contexts are built as this file believes */
};

/* `task_type` is asyncio's, `context` what contexts are to be like, both held by the caller. */
void stk_tasks_init(struct stk_tasks *tasks, struct stk_state *st, PyObject *task_type,
                    PyObject *future_type, PyObject *name, PyObject *context);

/* Whether a future is done; -1 without an exception where that cannot be told. */
int stk_tasks_is_done(const struct stk_tasks *tasks, PyObject *future);
/* Whether a task has no callback, and its name. */
bool stk_tasks_is_plain(const struct stk_tasks *tasks, PyObject *task);
/* Whether it is not about to be cancelled. */
bool stk_tasks_is_uncancelled(const struct stk_tasks *tasks, PyObject *task);
/* Whether a context has the variables that it began with. */
bool stk_tasks_is_fresh(const struct stk_tasks *tasks, PyObject *context);
/*
 * Gives a context that is entered nowhere, and that nobody else knows, the variables back that it
 * began with, with what they had as values. False: that cannot be done here.
 */
bool stk_tasks_restore(const struct stk_tasks *tasks, PyObject *context);
