/*
 * Runners: how a coroutine gets an asyncio.Task without paying for one.
 *
 * Applications rely on running in a task: current_task(), timeout(), TaskGroup and the libraries
 * built on them need one, and it must be the same before and after the coroutine waits. A task for
 * each request, started by the event loop, costs several times what a short request does. So a few
 * tasks live long: each has a runner for its coroutine, which waits on a future of its own (it is
 * parked). A request is begun by entering a runner's context, declaring its task the current one,
 * and sending into the application's coroutine. Most end in this first step, and the event loop has
 * seen nothing of it. Where the coroutine waits, the runner is woken, hands its task what the
 * coroutine waits for, and from there on drives the coroutine as any task would.
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
 * the turn ends: between two requests of a turn nothing runs that could ask.
 */
#include "pyhost/asgi_priv.h"

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

typedef struct {
    PyObject_HEAD
    struct stk_asgi *asgi;
    PyObject *coro;  /* the application's, while it waits; or NULL */
    PyObject *first; /* what it waited for at first, until the task has taken it; or NULL */
    PyObject *park;  /* the future that the idle task waits for; NULL: it has not begun, or runs */
    PyObject *task;
    PyObject *context;
    StkExchange *exchange; /* that coro is of */
    bool pooled;           /* may be used again */
    bool dead;             /* its task has ended, or is going to */
    PyObject *next;        /* in the list of those that are to be swept */
    bool blocks; /* first was marked as awaited; the mark is put back as the task gets it */
} StkRunner;

static PyObject *runner_name(const StkRunner *r, enum stk_state_name name)
{
    return stk_state_name(r->asgi->st, name);
}

/* ---- reuse --------------------------------------------------------------------------------- */

/* The truth of an attribute; -1 without an exception where that fails. */
static int runner_ask(PyObject *obj, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(obj, name);
    int r = value ? PyObject_IsTrue(value) : -1;

    Py_XDECREF(value);
    if (r < 0)
        PyErr_Clear();
    return r;
}

static inline bool runner_is_parked(const StkRunner *r)
{
    return r->park && stk_tasks_is_done(&r->asgi->tasks, r->park) == 0;
}

static unsigned runner_count_weakrefs(PyObject *task)
{
    unsigned n = 0;

    for (PyWeakReference *ref = stk_py_weakrefs(task); ref; ref = ref->wr_next)
        n++;
    return n;
}

/* Whether nobody but us holds the task and the context of a runner whose task is at rest. */
static inline bool runner_is_alone(const StkRunner *r)
{
    unsigned more = r->asgi->entered == (const PyObject *)r ? r->asgi->enter_refs : 0;

    return Py_REFCNT(r->task) == RUNNER_TASK_REFS + more &&
           Py_REFCNT(r->context) == RUNNER_CONTEXT_REFS;
}

/* Whether its task could be a new one. `stepping`: it runs. */
static bool runner_is_unmarked(const StkRunner *r, bool stepping)
{
    const struct stk_tasks *tasks = &r->asgi->tasks;

    if (runner_count_weakrefs(r->task) != r->asgi->weakrefs || stk_py_has_attributes(r->task) ||
        !stk_tasks_is_plain(tasks, r->task))
        return false;
    /* Cancelling an idle task shows in its future, else in what it is going to do. */
    if (!stepping && r->park)
        return stk_tasks_is_done(tasks, r->park) == 0;
    return stk_tasks_is_uncancelled(tasks, r->task);
}

/* Whether nothing of the last request sticks to a runner that is at rest, or not any more. */
static bool runner_clean(StkRunner *r)
{
    const struct stk_tasks *tasks = &r->asgi->tasks;

    return !r->dead && r->task && runner_is_alone(r) && runner_is_unmarked(r, false) &&
           (stk_tasks_is_fresh(tasks, r->context) || stk_tasks_restore(tasks, r->context));
}

/* ---- the current task ---------------------------------------------------------------------- */

/* _enter_task or _leave_task. An exception that is pending stays so. */
static int runner_swap(PyObject *function, StkRunner *r)
{
    PyObject *args[2] = {r->asgi->loop, r->task};
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

static void runner_leave(struct stk_asgi *a)
{
    StkRunner *r = (StkRunner *)stk_steal(&a->entered);

    if (r && r->task && runner_swap(a->leave_task, r) < 0)
        stk_report_exception(STK_LOG_ERROR, "the application has left another task behind");
}

/* Makes the task of a runner the current one, until runner_leave. 0, or -1 with an exception. */
static inline int runner_enter(StkRunner *r)
{
    struct stk_asgi *a = r->asgi;

    if (stk_likely(a->entered == (PyObject *)r))
        return 0;
    if (a->entered)
        runner_leave(a);
    if (runner_swap(a->enter_task, r) < 0)
        return -1;
    a->entered = (PyObject *)r;
    return 0;
}

/* ---- the pool ------------------------------------------------------------------------------ */

/* Lets the task of an idle runner end. */
static void runner_retire(StkRunner *r)
{
    PyObject *done;

    r->dead = true;
    if (r->asgi->entered == (PyObject *)r)
        runner_leave(r->asgi);
    if (runner_is_parked(r)) {
        done = PyObject_CallMethodOneArg(r->park, runner_name(r, STK_NAME_s_set_result), Py_None);
        Py_XDECREF(done);
        if (PyErr_Occurred())
            stk_report_exception(STK_LOG_ERROR, "a task cannot be ended");
    }
    Py_CLEAR(r->task);
}

static void runner_note_retired(struct stk_asgi *a)
{
    if (!a->pooled || ++a->retired < RUNNER_RETIRED_MAX)
        return;
    a->pooled = false;
    stk_log_debug("the application leaves something on its tasks (context variables, callbacks, "
                  "references): each request gets a task of its own from now on");
    stk_runner_drain(a);
}

/* Puts an idle runner into the pool, or retires it. Takes the reference. */
static void runner_give_back(StkRunner *r, bool clean)
{
    struct stk_asgi *a = r->asgi;

    if (stk_likely(clean && a->pooled && a->npool < a->pool_size)) {
        a->retired = 0;
        a->pool[a->npool++] = (PyObject *)r;
        return;
    }
    if (!r->dead)
        runner_retire(r);
    Py_DECREF(r);
    if (!clean)
        runner_note_retired(a);
}

/* ---- after a step of a task ---------------------------------------------------------------- */

/*
 * Runners whose task was in a step when their request ended: only behind it can be seen who else
 * holds what is theirs, and their contexts be restored.
 */
static void runner_sweep(struct stk_asgi *a)
{
    while (a->unswept) {
        StkRunner *r = (StkRunner *)a->unswept;

        a->unswept = stk_steal(&r->next);
        runner_give_back(r, runner_clean(r));
    }
}

static PyObject *runner_sweep_late(PyObject *capsule, PyObject *unused)
{
    struct stk_asgi *a = PyCapsule_GetPointer(capsule, "asgi");

    if (!a)
        return NULL;
    runner_sweep(a);
    Py_RETURN_NONE;
}

/* A function that sweeps; NULL with an exception. */
static PyObject *runner_new_sweep(struct stk_asgi *a)
{
    static PyMethodDef methods[] = {{"sweep", runner_sweep_late, METH_NOARGS, NULL}};
    PyObject *capsule = PyCapsule_New(a, "asgi", NULL);
    PyObject *function = capsule ? PyCFunction_New(methods, capsule) : NULL;

    Py_XDECREF(capsule);
    return function;
}

/* Gives a runner back, in a step of its task. */
static void runner_give_back_stepping(StkRunner *r)
{
    struct stk_asgi *a = r->asgi;
    PyObject *handle;

    Py_INCREF(r);
    if (stk_tasks_is_fresh(&a->tasks, r->context)) {
        runner_give_back(r, true);
        return;
    }
    if (!a->unswept && !a->selector) {
        if (!a->sweep)
            a->sweep = runner_new_sweep(a);
        handle = a->sweep ? PyObject_CallMethodOneArg(a->loop, runner_name(r, STK_NAME_s_call_soon),
                                                      a->sweep)
                          : NULL;
        if (!handle)
            PyErr_Clear(); /* the next turn does it */
        Py_XDECREF(handle);
    }
    r->next = a->unswept;
    a->unswept = (PyObject *)r;
}

void stk_runner_settle(struct stk_asgi *a)
{
    if (a->entered)
        runner_leave(a);
    if (stk_unlikely(a->unswept != NULL))
        runner_sweep(a);
}

void stk_runner_drain(struct stk_asgi *a)
{
    runner_sweep(a);
    while (a->npool > 0) {
        StkRunner *r = (StkRunner *)a->pool[--a->npool];

        if (!r->dead)
            runner_retire(r);
        Py_DECREF(r);
    }
}

/* ---- life of a runner ---------------------------------------------------------------------- */

static StkRunner *runner_alloc(struct stk_asgi *a)
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
static StkRunner *runner_new(struct stk_asgi *a)
{
    StkRunner *r = runner_alloc(a);

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
static StkRunner *runner_take(struct stk_asgi *a)
{
    while (a->npool > 0) {
        StkRunner *r = (StkRunner *)a->pool[--a->npool];

        /* Since it was given back the task may have been found by all_tasks(). */
        if (stk_likely(!r->dead && runner_is_alone(r) && (!r->park || runner_is_parked(r)) &&
                       stk_tasks_is_fresh(&a->tasks, r->context)))
            return r;
        if (!r->dead)
            runner_retire(r);
        Py_DECREF(r);
    }
    return runner_new(a);
}

/*
 * What the coroutine waits for at first, for the task. The mark was off meanwhile: another
 * coroutine that awaits the same future (a shared task) would be told that it is awaited wrongly.
 */
static PyObject *runner_take_first(StkRunner *r)
{
    PyObject *first = stk_steal(&r->first);

    if (r->blocks &&
        PyObject_SetAttr(first, runner_name(r, STK_NAME_s__asyncio_future_blocking), Py_True) < 0)
        PyErr_Clear(); /* the task says what is wrong with it */
    return first;
}

/* In a step of its task: whether it may be as clean as a new one when the step has ended. */
static bool runner_may_be_clean(const StkRunner *r)
{
    return !r->dead && r->task && runner_is_unmarked(r, true) &&
           (r->asgi->tasks.restores || stk_tasks_is_fresh(&r->asgi->tasks, r->context));
}

/* Parks: the future that the task is to wait for, or NULL with an exception. */
static PyObject *runner_park(StkRunner *r)
{
    PyObject *future = PyObject_CallNoArgs(r->asgi->create_future);

    if (future &&
        PyObject_SetAttr(future, runner_name(r, STK_NAME_s__asyncio_future_blocking), Py_True) < 0)
        Py_CLEAR(future);
    if (future)
        Py_XSETREF(r->park, stk_py_newref(future));
    return future;
}

/*
 * The coroutine has ended within a step of the task, with an exception pending or not. PYGEN_NEXT:
 * the task parks; PYGEN_RETURN: it ends.
 */
static PySendResult runner_end_step(StkRunner *r, PyObject **ret_value)
{
    StkExchange *ex = stk_steal(&r->exchange);
    PyObject *future;

    Py_CLEAR(r->coro);
    stk_exchange_end(ex);
    Py_DECREF(ex);
    if (r->pooled) {
        if (r->asgi->pooled && runner_may_be_clean(r)) {
            future = runner_park(r);
            if (future) {
                runner_give_back_stepping(r);
                *ret_value = future;
                return PYGEN_NEXT;
            }
            PyErr_Clear();
        } else {
            runner_note_retired(r->asgi);
        }
    }
    r->dead = true;
    Py_CLEAR(r->task);
    *ret_value = stk_py_newref(Py_None);
    return PYGEN_RETURN;
}

static PySendResult runner_am_send(PyObject *op, PyObject *arg, PyObject **ret_value)
{
    StkRunner *r = (StkRunner *)op;
    PySendResult result;

    if (r->first == Py_None) { /* it gave way for one iteration of the event loop: this one */
        Py_CLEAR(r->park);
        Py_CLEAR(r->first);
    } else if (r->first) {
        Py_CLEAR(r->park);
        *ret_value = runner_take_first(r);
        return PYGEN_NEXT;
    }
    if (!r->coro) {
        Py_CLEAR(r->park);
        if (r->dead) {
            *ret_value = stk_py_newref(Py_None);
            return PYGEN_RETURN;
        }
        *ret_value = runner_park(r);
        return *ret_value ? PYGEN_NEXT : PYGEN_ERROR;
    }
    result = stk_py_send(r->coro, arg, ret_value);
    if (result == PYGEN_NEXT)
        return result;
    if (result == PYGEN_RETURN)
        Py_CLEAR(*ret_value);
    return runner_end_step(r, ret_value);
}

/* A result of the function above, as a method returns it. */
static PyObject *runner_result(PySendResult result, PyObject *value)
{
    if (result == PYGEN_NEXT)
        return value;
    if (result == PYGEN_RETURN) {
        Py_XDECREF(value);
        PyErr_SetNone(PyExc_StopIteration);
    }
    return NULL;
}

static PyObject *runner_send(PyObject *op, PyObject *arg)
{
    PyObject *value = NULL;
    PySendResult result = runner_am_send(op, arg, &value);

    return runner_result(result, value);
}

static PyObject *runner_next(PyObject *op)
{
    return runner_send(op, Py_None);
}

/* Throws into the application's coroutine. */
static PyObject *runner_throw_on(StkRunner *r, PyObject *args)
{
    PyObject *throw = PyObject_GetAttr(r->coro, runner_name(r, STK_NAME_s_throw));
    PyObject *value = throw ? PyObject_CallObject(throw, args) : NULL;
    PySendResult result;

    Py_XDECREF(throw);
    if (value)
        return value;
    if (PyErr_ExceptionMatches(PyExc_StopIteration))
        PyErr_Clear();
    result = runner_end_step(r, &value);
    return runner_result(result, value);
}

/*
 * An exception from the task, as a rule that of its cancellation. Where the coroutine has begun to
 * wait and the task does not know for what, this is cancelled first, as the task would have done:
 * then the task waits for it, and gets the exception from there.
 */
static PyObject *runner_throw(PyObject *op, PyObject *args)
{
    StkRunner *r = (StkRunner *)op;
    PyObject *cancelled;
    PyObject *exc;

    if (r->coro && r->first) {
        PyObject *first = runner_take_first(r);

        Py_CLEAR(r->park);
        cancelled = PyObject_CallMethodNoArgs(first, runner_name(r, STK_NAME_s_cancel));
        if (!cancelled)
            PyErr_Clear(); /* it is none of asyncio's: None, as of sleep(0) */
        if (cancelled == Py_True) {
            Py_DECREF(cancelled);
            return first;
        }
        Py_XDECREF(cancelled);
        Py_DECREF(first);
    }
    if (r->coro)
        return runner_throw_on(r, args);
    r->dead = true;
    Py_CLEAR(r->park);
    Py_CLEAR(r->task);
    exc = PyTuple_GET_SIZE(args) > 0 ? PyTuple_GET_ITEM(args, 0) : NULL;
    if (exc && PyTuple_GET_SIZE(args) > 1 && PyExceptionInstance_Check(PyTuple_GET_ITEM(args, 1)))
        exc = PyTuple_GET_ITEM(args, 1);
    if (exc && PyExceptionInstance_Check(exc))
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    else if (exc && PyExceptionClass_Check(exc))
        PyErr_SetNone(exc);
    else
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
    return NULL;
}

static PyObject *runner_close(PyObject *op, PyObject *unused)
{
    StkRunner *r = (StkRunner *)op;
    PyObject *closed =
        r->coro ? PyObject_CallMethod(r->coro, "close", NULL) : stk_py_newref(Py_None);

    return closed;
}

/* ---- starting ------------------------------------------------------------------------------ */

/* The coroutine waits: its task takes over in the next iteration of the event loop. */
static void runner_resume_by_task(StkRunner *r, PyObject *coro, PyObject *first, StkExchange *ex)
{
    PyObject *done;

    r->coro = stk_py_newref(coro);
    r->first = first;
    r->blocks = runner_ask(first, runner_name(r, STK_NAME_s__asyncio_future_blocking)) == 1;
    if (r->blocks &&
        PyObject_SetAttr(first, runner_name(r, STK_NAME_s__asyncio_future_blocking), Py_False) < 0)
        PyErr_Clear();
    r->exchange = (StkExchange *)stk_py_newref((PyObject *)ex);
    if (runner_is_parked(r)) {
        done = PyObject_CallMethodOneArg(r->park, runner_name(r, STK_NAME_s_set_result), Py_None);
        if (!done)
            stk_report_exception(STK_LOG_ERROR, "a task cannot be resumed");
        Py_XDECREF(done);
    }
    stk_exchange_suspended(ex, (PyObject *)r);
    Py_DECREF(r); /* its task holds it */
}

static int runner_start_pooled(struct stk_asgi *a, PyObject *coro, StkExchange *ex)
{
    StkRunner *r = runner_take(a);
    PyObject *value = NULL;
    PySendResult result;

    if (stk_unlikely(!r))
        return -1;
    if (stk_unlikely(PyContext_Enter(r->context) < 0)) {
        runner_give_back(r, false);
        return -1;
    }
    if (stk_unlikely(runner_enter(r) < 0)) {
        PyContext_Exit(r->context);
        runner_give_back(r, false);
        return -1;
    }
    result = stk_py_send(coro, Py_None, &value);
    if (stk_unlikely(result == PYGEN_ERROR)) {
        PyObject *exc = stk_py_take_exception();

        if (PyContext_Exit(r->context) < 0)
            PyErr_Clear();
        stk_py_raise_taken(exc);
    } else if (stk_unlikely(PyContext_Exit(r->context) < 0)) {
        stk_report_exception(STK_LOG_ERROR, "the application has left another context behind");
    }
    if (result == PYGEN_NEXT) {
        runner_resume_by_task(r, coro, value, ex);
        return 0;
    }
    if (result == PYGEN_RETURN)
        Py_DECREF(value);
    stk_exchange_end(ex);
    runner_give_back(r, runner_clean(r));
    return 0;
}

/* A task for this coroutine alone: begun at once since 3.12, before that by the event loop. */
static int runner_start_single(struct stk_asgi *a, PyObject *coro, StkExchange *ex)
{
    StkRunner *r = runner_alloc(a);
    PyObject *task = NULL;

    if (!r)
        return -1;
    r->coro = stk_py_newref(coro);
    r->exchange = (StkExchange *)stk_py_newref((PyObject *)ex);
#if STK_PY_TASK_CONTEXT
    r->context = PyContext_Copy(a->context);
    if (r->context) {
        PyObject *args[5] = {NULL, (PyObject *)r, a->loop, r->context, Py_True};

        task = PyObject_Vectorcall(a->task_type, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                   a->names_single);
    }
#else
    /* It copies the context that it is made in. */
    if (PyContext_Enter(a->context) == 0) {
        PyObject *args[3] = {NULL, (PyObject *)r, a->loop};

        task = PyObject_Vectorcall(a->task_type, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                   a->names_single);
        if (PyContext_Exit(a->context) < 0)
            PyErr_Clear();
    }
#endif
    if (!task) {
        Py_CLEAR(r->coro);
        Py_CLEAR(r->exchange);
        Py_DECREF(r);
        return -1;
    }
    if (r->exchange) { /* it waits, or has not begun */
        r->task = task;
        stk_exchange_suspended(ex, (PyObject *)r);
    } else {
        Py_DECREF(task);
    }
    Py_DECREF(r);
    return 0;
}

int stk_runner_start(struct stk_asgi *a, PyObject *coro, StkExchange *ex)
{
    return stk_likely(a->pooled) ? runner_start_pooled(a, coro, ex)
                                 : runner_start_single(a, coro, ex);
}

void stk_runner_cancel(PyObject *runner, const char *why)
{
    StkRunner *r = (StkRunner *)runner;
    PyObject *done = r->task ? PyObject_CallMethod(r->task, "cancel", "s", why) : NULL;

    if (!done && PyErr_Occurred())
        stk_report_exception(STK_LOG_ERROR, "a task cannot be cancelled");
    Py_XDECREF(done);
}

/* ---- set-up -------------------------------------------------------------------------------- */

/* What a new task has of references is what the rules of this file are written for; if it is
 * otherwise (another implementation of tasks), none is used twice. */
static int runner_learn(struct stk_asgi *a)
{
    StkRunner *r = runner_new(a);
    Py_ssize_t refs;

    if (!r)
        return -1;
    a->weakrefs = runner_count_weakrefs(r->task);
    refs = Py_REFCNT(r->task);
    if (runner_enter(r) < 0) {
        Py_DECREF(r);
        return -1;
    }
    a->enter_refs = (unsigned)(Py_REFCNT(r->task) - refs);
    runner_leave(a);
    a->pooled = runner_clean(r);
    if (a->pooled)
        runner_give_back(r, true);
    else
        runner_give_back(r, false);
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
        a->enter_task = PyObject_GetAttrString(tasks, "_enter_task");
        a->leave_task = PyObject_GetAttrString(tasks, "_leave_task");
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
    if (!a->task_type || !a->enter_task || !a->leave_task || !a->context || !a->name ||
        !a->names_pooled || !a->names_single || !future_type) {
        Py_XDECREF(future_type);
        return -1;
    }
    stk_tasks_init(&a->tasks, a->st, a->task_type, future_type, a->name, a->context);
    Py_DECREF(future_type); /* a class of a module that stays */
    a->pool_size = RUNNER_POOL_MAX;
    a->pool = stk_new0_array(PyObject *, a->pool_size);
    return STK_PY_TASK_CONTEXT ? runner_learn(a) : 0;
}

void stk_runner_deinit(struct stk_asgi *a)
{
    stk_runner_drain(a);
    free(a->pool);
    a->pool = NULL;
    a->pool_size = 0;
    a->pooled = false;
    Py_CLEAR(a->sweep);
    Py_CLEAR(a->task_type);
    Py_CLEAR(a->enter_task);
    Py_CLEAR(a->leave_task);
    Py_CLEAR(a->context);
    Py_CLEAR(a->name);
    Py_CLEAR(a->names_pooled);
    Py_CLEAR(a->names_single);
}

/* ---- the type ------------------------------------------------------------------------------ */

static int runner_traverse(PyObject *op, visitproc visit, void *arg)
{
    StkRunner *r = (StkRunner *)op;

    Py_VISIT(Py_TYPE(op));
    Py_VISIT(r->coro);
    Py_VISIT(r->first);
    Py_VISIT(r->park);
    Py_VISIT(r->task);
    Py_VISIT(r->context);
    return 0;
}

static int runner_clear(PyObject *op)
{
    StkRunner *r = (StkRunner *)op;

    Py_CLEAR(r->coro);
    Py_CLEAR(r->first);
    Py_CLEAR(r->park);
    Py_CLEAR(r->task);
    Py_CLEAR(r->context);
    return 0;
}

/* A coroutine that nobody will ever resume has ended, and its request has failed. */
static void runner_dealloc(PyObject *op)
{
    StkRunner *r = (StkRunner *)op;
    PyTypeObject *type = Py_TYPE(op);
    StkExchange *ex = stk_steal(&r->exchange);

    PyObject_GC_UnTrack(op);
    runner_clear(op);
    if (ex) {
        PyObject *pending = stk_py_take_exception();

        stk_exchange_end(ex);
        Py_DECREF(ex);
        if (pending)
            stk_py_raise_taken(pending);
    }
    PyObject_GC_Del(op);
    Py_DECREF(type);
}

PyType_Spec *stk_asgi_runner_spec(void)
{
    static char doc[] = "The coroutine of the tasks that run ASGI requests.";
    static PyMethodDef methods[] = {
        {"send", runner_send, METH_O, NULL},
        {"throw", runner_throw, METH_VARARGS, NULL},
        {"close", runner_close, METH_NOARGS, NULL},
        {NULL, NULL, 0, NULL},
    };
    static PyMemberDef members[] = {
        {"cr_await", STK_PY_OBJECT_MEMBER, offsetof(StkRunner, coro), STK_PY_READONLY, NULL},
        {NULL, 0, 0, 0, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, runner_dealloc},
        {Py_tp_traverse, runner_traverse},
        {Py_tp_clear, runner_clear},
        {Py_tp_iter, PyObject_SelfIter},
        {Py_tp_iternext, runner_next},
        {Py_am_await, PyObject_SelfIter},
        STK_PY_AM_SEND(runner_am_send){Py_tp_methods, methods},
        {Py_tp_members, members},
        {Py_tp_doc, doc},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "stoker._core.runner",
        .basicsize = sizeof(StkRunner),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | STK_PY_TYPE_NO_NEW,
        .slots = slots,
    };

    return &spec;
}
