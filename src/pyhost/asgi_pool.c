/*
 * The pool of runners: which may be used again, and which task is the current one.
 *
 * Nothing of a request may reach the next one on the same runner. A runner is used again only if
 * nobody holds its task or its context or watches it by a weak reference, and its callbacks, name,
 * attributes and state of cancellation are those of a new one; variables that were set in its
 * context are taken back. Otherwise the task ends as the task of a request does, callbacks
 * included, and another runner is made. An application that spoils its tasks time and again gets a
 * task for each request, which then is cheaper (and before Python 3.11, where a task takes no
 * context, all have that).
 *
 * Declaring a task the current one costs two calls. So it stays that until another one is, or until
 * the turn ends: between two requests of a turn nothing runs that could ask. Where asyncio keeps
 * the current tasks in a dict that it shows (until Python 3.13), one takes the place of the other
 * there.
 */
#include "pyhost/asgi_runner.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "pyhost/report.h"

enum {
    RUNNER_POOL_MAX = 64, /* parked runners that are kept */
    RUNNER_RETIRED_MAX = 8,
    RUNNER_TASK_REFS = 2,    /* on a task at rest: by the runner, by what will resume it */
    RUNNER_CONTEXT_REFS = 3, /* likewise, and by the task */
};

/* ---- reuse --------------------------------------------------------------------------------- */

static unsigned pool_count_weakrefs(PyObject *task)
{
    unsigned n = 0;

    for (PyWeakReference *ref = stk_py_weakrefs(task); ref; ref = ref->wr_next)
        n++;
    return n;
}

/* Whether nobody but us holds the task and the context of a runner whose task is at rest. */
static inline bool pool_is_alone(const StkRunner *r)
{
    unsigned more = r->asgi->entered == (const PyObject *)r ? r->asgi->enter_refs : 0;

    return Py_REFCNT(r->task) == RUNNER_TASK_REFS + more &&
           Py_REFCNT(r->context) == RUNNER_CONTEXT_REFS;
}

/* Whether its task could be a new one. `stepping`: it runs. */
static inline bool pool_is_unmarked(const StkRunner *r, bool stepping)
{
    const struct stk_tasks *tasks = &r->asgi->tasks;

    if (pool_count_weakrefs(r->task) != r->asgi->weakrefs || stk_py_has_attributes(r->task) ||
        !stk_tasks_is_plain(tasks, r->task))
        return false;
    /* Cancelling an idle task shows in its future, at which stk_pool_take looks; else in what the
     * task is going to do. */
    return (!stepping && r->park) || stk_tasks_is_uncancelled(tasks, r->task);
}

/* Whether nothing of the last request sticks to a runner that is at rest, or not any more. */
bool stk_pool_clean(StkRunner *r)
{
    const struct stk_tasks *tasks = &r->asgi->tasks;

    return !r->dead && r->task && pool_is_alone(r) && pool_is_unmarked(r, false) &&
           (stk_tasks_is_fresh(tasks, r->context) || stk_tasks_restore(tasks, r->context));
}

/* In a step of its task: whether it may be as clean as a new one when the step has ended. */
bool stk_pool_may_be_clean(const StkRunner *r)
{
    return !r->dead && r->task && pool_is_unmarked(r, true) &&
           (r->asgi->tasks.restores || stk_tasks_is_fresh(&r->asgi->tasks, r->context));
}

/* ---- the current task ---------------------------------------------------------------------- */

/* _enter_task or _leave_task. An exception that is pending stays so. */
static int pool_swap(struct stk_asgi *a, PyObject *function, PyObject *task)
{
    PyObject *args[2] = {a->loop, task};
    PyObject *pending = PyErr_Occurred() ? stk_py_take_exception() : NULL;
    PyObject *done = PyObject_Vectorcall(function, args, 2, NULL);

    Py_XDECREF(done);
    if (stk_unlikely(pending != NULL)) {
        if (!done)
            PyErr_Clear();
        stk_py_raise_taken(pending);
    }
    return done ? 0 : -1;
}

static void pool_leave(struct stk_asgi *a)
{
    PyObject *task = stk_steal(&a->entered_task);

    a->entered = NULL;
    if (task && pool_swap(a, a->leave_task, task) < 0)
        stk_report_exception(STK_LOG_ERROR, "the application has left another task behind");
    Py_XDECREF(task);
}

int stk_pool_enter(StkRunner *r)
{
    struct stk_asgi *a = r->asgi;

    if (stk_likely(a->entered == (PyObject *)r))
        return 0;
    if (stk_likely(a->entered_task && a->current_tasks)) {
        if (PyDict_SetItem(a->current_tasks, a->loop, r->task) < 0)
            return -1;
    } else {
        if (a->entered_task)
            pool_leave(a);
        if (pool_swap(a, a->enter_task, r->task) < 0)
            return -1;
    }
    a->entered = (PyObject *)r;
    Py_XSETREF(a->entered_task, stk_py_newref(r->task)); /* what the runner has may change */
    return 0;
}

/* ---- the pool ------------------------------------------------------------------------------ */

/* Lets the task of an idle runner end. */
static void pool_retire(StkRunner *r)
{
    PyObject *done;

    r->dead = true;
    if (r->asgi->entered == (PyObject *)r)
        pool_leave(r->asgi);
    if (stk_runner_is_parked(r)) {
        done =
            PyObject_CallMethodOneArg(r->park, stk_runner_name(r, STK_NAME_s_set_result), Py_None);
        Py_XDECREF(done);
        if (PyErr_Occurred())
            stk_report_exception(STK_LOG_ERROR, "a task cannot be ended");
    }
    Py_CLEAR(r->task);
}

void stk_pool_note_retired(struct stk_asgi *a)
{
    if (!a->pooled || ++a->retired < RUNNER_RETIRED_MAX)
        return;
    a->pooled = false;
    stk_log_debug("the application leaves something on its tasks (context variables, callbacks, "
                  "references): each request gets a task of its own from now on");
    stk_runner_drain(a);
}

/* Puts an idle runner into the pool, or retires it. Takes the reference. */
void stk_pool_give_back(StkRunner *r, bool clean)
{
    struct stk_asgi *a = r->asgi;

    if (stk_likely(clean && a->pooled && a->npool < a->pool_size)) {
        a->retired = 0;
        a->pool[a->npool++] = (PyObject *)r;
        return;
    }
    if (!r->dead)
        pool_retire(r);
    Py_DECREF(r);
    if (!clean)
        stk_pool_note_retired(a);
}

/* ---- after a step of a task ---------------------------------------------------------------- */

/*
 * Runners whose task was in a step when their request ended: only behind it can be seen who else
 * holds what is theirs, and their contexts be restored.
 */
static void pool_sweep(struct stk_asgi *a)
{
    while (a->unswept) {
        StkRunner *r = (StkRunner *)a->unswept;

        a->unswept = stk_steal(&r->next);
        stk_pool_give_back(r, stk_pool_clean(r));
    }
}

static PyObject *pool_settle(PyObject *capsule, PyObject *unused)
{
    struct stk_asgi *a = PyCapsule_GetPointer(capsule, "asgi");

    if (!a)
        return NULL;
    (void)stk_runner_settle(a);
    Py_RETURN_NONE;
}

void stk_runner_settle_soon(struct stk_asgi *a)
{
    static PyMethodDef methods[] = {{"settle", pool_settle, METH_NOARGS, NULL}};
    PyObject *handle = NULL;

    if (!a->settle) {
        PyObject *capsule = PyCapsule_New(a, "asgi", NULL);

        a->settle = capsule ? PyCFunction_New(methods, capsule) : NULL;
        Py_XDECREF(capsule);
    }
    if (a->settle)
        handle = PyObject_CallMethodOneArg(a->loop, stk_state_name(a->st, STK_NAME_s_call_soon),
                                           a->settle);
    if (!handle)
        PyErr_Clear(); /* the next turn does it */
    Py_XDECREF(handle);
}

void stk_pool_give_back_stepping(StkRunner *r)
{
    struct stk_asgi *a = r->asgi;

    Py_INCREF(r);
    if (stk_tasks_is_fresh(&a->tasks, r->context)) {
        stk_pool_give_back(r, true);
        return;
    }
    if (!a->unswept && !a->selector) /* with a selector of ours the next turn is near */
        stk_runner_settle_soon(a);
    r->next = a->unswept;
    a->unswept = (PyObject *)r;
}

bool stk_runner_settle(struct stk_asgi *a)
{
    bool busy = a->resumable || a->unswept;

    if (a->resumable)
        stk_runner_drive(a);
    if (a->entered_task)
        pool_leave(a);
    if (stk_unlikely(a->unswept != NULL))
        pool_sweep(a);
    return busy;
}

void stk_runner_drain(struct stk_asgi *a)
{
    pool_sweep(a);
    while (a->npool > 0) {
        StkRunner *r = (StkRunner *)a->pool[--a->npool];

        if (!r->dead)
            pool_retire(r);
        Py_DECREF(r);
    }
}

/* ---- life of a runner ---------------------------------------------------------------------- */

StkRunner *stk_pool_alloc(struct stk_asgi *a)
{
    StkRunner *r = PyObject_GC_New(StkRunner, a->st->runner_type);

    if (!r)
        return NULL;
    memset((char *)r + sizeof(PyObject), 0, sizeof(*r) - sizeof(PyObject));
    r->asgi = a;
    PyObject_GC_Track(r);
    return r;
}

/* A runner whose task has not begun. NULL with an exception. */
static StkRunner *pool_new(struct stk_asgi *a)
{
    StkRunner *r = stk_pool_alloc(a);

    if (!r)
        return NULL;
    r->pooled = true;
    r->context = PyContext_Copy(a->context);
    if (r->context) {
        PyObject *args[5] = {NULL, (PyObject *)r, a->loop, a->name, r->context};

        r->task = PyObject_Vectorcall(a->task_type, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                      a->names_pooled);
    }
    if (!r->task)
        Py_CLEAR(r);
    return r;
}

/* A runner that is ready for a request. NULL with an exception. */
StkRunner *stk_pool_take(struct stk_asgi *a)
{
    while (a->npool > 0) {
        StkRunner *r = (StkRunner *)a->pool[--a->npool];

        /* Since it was given back the task may have been found by all_tasks(). */
        if (stk_likely(!r->dead && pool_is_alone(r) && (!r->park || stk_runner_is_parked(r)) &&
                       stk_tasks_is_fresh(&a->tasks, r->context)))
            return r;
        if (!r->dead)
            pool_retire(r);
        Py_DECREF(r);
    }
    return pool_new(a);
}

/* ---- set-up -------------------------------------------------------------------------------- */

/* Python 3.14 lets a task be the current one of the running loop only, which ours is not yet. */
static int pool_set_running(PyObject *loop)
{
    PyObject *events = PyImport_ImportModule("asyncio.events");
    PyObject *done = events ? PyObject_CallMethod(events, "_set_running_loop", "O", loop) : NULL;

    Py_XDECREF(done);
    Py_XDECREF(events);
    return done ? 0 : -1;
}

/* What a new task has of references is what the rules of this file are written for; if it is
 * otherwise (another implementation of tasks), none is used twice. */
static int pool_learn(struct stk_asgi *a)
{
    StkRunner *r = pool_new(a);
    Py_ssize_t refs;

    if (!r)
        return -1;
    a->weakrefs = pool_count_weakrefs(r->task);
    refs = Py_REFCNT(r->task);
    if (pool_set_running(a->loop) < 0 || stk_pool_enter(r) < 0) {
        Py_DECREF(r);
        return -1;
    }
    a->enter_refs = (unsigned)(Py_REFCNT(r->task) - refs);
    if (a->current_tasks && PyDict_GetItemWithError(a->current_tasks, a->loop) != r->task)
        Py_CLEAR(a->current_tasks);
    pool_leave(a);
    if (a->current_tasks && PyDict_GET_SIZE(a->current_tasks) != 0)
        Py_CLEAR(a->current_tasks);
    if (pool_set_running(Py_None) < 0) {
        Py_DECREF(r);
        return -1;
    }
    a->pooled = stk_pool_clean(r);
    if (a->pooled)
        stk_pool_give_back(r, true);
    else
        stk_pool_give_back(r, false);
    return 0;
}

int stk_runner_init(struct stk_asgi *a)
{
    PyObject *tasks = PyImport_ImportModule("asyncio.tasks");
    PyObject *future_type = NULL;

    if (tasks) {
        PyObject *futures = PyObject_GetAttrString(tasks, "futures");

        future_type = futures ? PyObject_GetAttrString(futures, "Future") : NULL;
        Py_XDECREF(futures);
        a->task_type = PyObject_GetAttrString(tasks, "Task");
        a->current_task = PyObject_GetAttrString(tasks, "current_task");
        a->enter_task = PyObject_GetAttrString(tasks, "_enter_task");
        a->leave_task = PyObject_GetAttrString(tasks, "_leave_task");
        a->current_tasks = PyObject_GetAttrString(tasks, "_current_tasks");
        if (!a->current_tasks)
            PyErr_Clear();
        else if (!PyDict_CheckExact(a->current_tasks))
            Py_CLEAR(a->current_tasks);
        Py_DECREF(tasks);
    }
    a->context = PyContext_CopyCurrent();
    a->name = PyUnicode_InternFromString("stoker-request");
    a->names_pooled = Py_BuildValue("(sss)", "loop", "name", "context");
#if STK_PY_TASK_EAGER
    a->names_single = Py_BuildValue("(sss)", "loop", "context", "eager_start");
#elif STK_PY_TASK_CONTEXT
    a->names_single = Py_BuildValue("(ss)", "loop", "context");
#else
    a->names_single = Py_BuildValue("(s)", "loop");
#endif
    if (!a->task_type || !a->current_task || !a->enter_task || !a->leave_task || !a->context ||
        !a->name || !a->names_pooled || !a->names_single || !future_type) {
        Py_XDECREF(future_type);
        return -1;
    }
    stk_tasks_init(&a->tasks, a->st, a->task_type, future_type, a->name, a->context);
    Py_DECREF(future_type); /* a class of a module that stays */
    a->pool_size = RUNNER_POOL_MAX;
    a->pool = stk_new0_array(PyObject *, a->pool_size);
    return STK_PY_TASK_CONTEXT ? pool_learn(a) : 0;
}

void stk_runner_deinit(struct stk_asgi *a)
{
    stk_runner_drain(a);
    free(a->pool);
    a->pool = NULL;
    a->pool_size = 0;
    a->pooled = false;
    Py_CLEAR(a->settle);
    Py_CLEAR(a->current_task);
    Py_CLEAR(a->current_tasks);
    Py_CLEAR(a->task_type);
    Py_CLEAR(a->enter_task);
    Py_CLEAR(a->leave_task);
    Py_CLEAR(a->context);
    Py_CLEAR(a->name);
    Py_CLEAR(a->names_pooled);
    Py_CLEAR(a->names_single);
}
