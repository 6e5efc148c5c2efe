/*
 * Runners: how a coroutine gets an asyncio.Task without paying for one.
 *
 * Applications rely on running in a task: current_task(), timeout(), TaskGroup and the libraries
 * built on them need one, and it must be the same before and after the coroutine waits. A task for
 * each request, started by the event loop, costs several times what a short request does. So a few
 * tasks live long: each has a runner for its coroutine, which waits on a future of its own (it is
 * parked). A request is begun by entering a runner's context, declaring its task the current one,
 * and sending into the application's coroutine. Most end in this first step, and the event loop has
 * seen nothing of it. Where the coroutine waits for a message of the server's, its runner stays
 * parked, and steps through it again when that has come. Where it waits for anything else, the
 * runner is woken, hands its task what the coroutine waits for, and from there on the task drives
 * the coroutine as any task would.
 *
 * When the request has ended, the runner goes back to the pool (asgi_pool.c).
 */
#include "pyhost/asgi_runner.h"

#include "base/log.h"
#include "pyhost/cancel.h"
#include "pyhost/report.h"

enum { RUNNER_GATHER = 8 }; /* steps between two looks at what they have sent */

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

/* ---- stepping the application's coroutine --------------------------------------------------- */

bool stk_runner_steps(StkExchange *ex)
{
    struct stk_asgi *a = ex->asgi;

    if (!a || a->driven != ex)
        return false;
#if STK_PY_TASK_EAGER
    {
        /* A task of the application may have begun at once, and await this in its first step. */
        PyObject *task = PyObject_CallOneArg(a->current_task, a->loop);

        if (!task)
            PyErr_Clear();
        Py_XDECREF(task);
        return task == a->driven_task;
    }
#else
    return true;
#endif
}

/* A step: awaitables of ours that are in it may have the runner wait without a future. */
static inline PySendResult runner_step(StkRunner *r, StkExchange *ex, PyObject *coro, PyObject *arg,
                                       PyObject **ret_value)
{
    struct stk_asgi *a = r->asgi;
    StkExchange *outer = a->driven;
    PyObject *outer_task = a->driven_task;
    struct stk_pythread *thread = a->thread;
    bool steps = stk_cancel_begin_step(thread, &ex->call);
    PySendResult result;

    a->driven = r->context && r->task ? ex : NULL;
    a->driven_task = r->task;
    result = stk_py_send_coro(coro, arg, ret_value);
    if (steps)
        stk_cancel_end_step(thread);
    a->driven = outer;
    a->driven_task = outer_task;
    return result;
}

/* Whether what a step has yielded is an awaitable of ours that will have the runner go on. */
static inline bool runner_has_wait(const StkRunner *r, PyObject *value)
{
    return Py_TYPE(value) == r->asgi->st->wait_type && ((StkWait *)value)->direct;
}

/* Enters context and task for a step without the task. 0, or -1 with an exception. */
static inline int runner_begin(StkRunner *r)
{
    if (stk_unlikely(PyContext_Enter(r->context) < 0))
        return -1;
    if (stk_likely(stk_pool_enter(r) == 0))
        return 0;
    PyContext_Exit(r->context);
    return -1;
}

/* Leaves the context; the exception of a step stays pending. */
static inline void runner_leave(StkRunner *r, PySendResult result)
{
    if (stk_unlikely(result == PYGEN_ERROR)) {
        PyObject *exc = stk_py_take_exception();

        if (PyContext_Exit(r->context) < 0)
            PyErr_Clear();
        stk_py_raise_taken(exc);
    } else if (stk_unlikely(PyContext_Exit(r->context) < 0)) {
        stk_report_exception(STK_LOG_ERROR, "the application has left another context behind");
    }
}

/* Has the task take a step in the next iteration of the event loop. */
static void runner_unpark(StkRunner *r)
{
    PyObject *done;

    if (!stk_runner_is_parked(r))
        return; /* it is going to */
    done = PyObject_CallMethodOneArg(r->park, stk_runner_name(r, STK_NAME_s_set_result), Py_None);
    if (!done)
        stk_report_exception(STK_LOG_ERROR, "a task cannot be resumed");
    Py_XDECREF(done);
}

/*
 * The coroutine waits, behind a step without the task. For what is not ours the task takes over.
 * Takes the reference.
 */
static void runner_suspend(StkRunner *r, PyObject *value)
{
    if (stk_likely(runner_has_wait(r, value))) {
        r->waits = true;
        Py_DECREF(value);
        return;
    }
    r->first = value;
    r->blocks = runner_ask(value, stk_runner_name(r, STK_NAME_s__asyncio_future_blocking)) == 1;
    if (r->blocks &&
        PyObject_SetAttr(value, stk_runner_name(r, STK_NAME_s__asyncio_future_blocking), Py_False) <
            0)
        PyErr_Clear();
    runner_unpark(r);
}

/* The coroutine has ended, behind a step without the task. */
static void runner_end(StkRunner *r)
{
    StkExchange *ex = stk_steal(&r->exchange);

    Py_CLEAR(r->coro);
    stk_exchange_end(ex);
    Py_DECREF(ex);
    if (r->pooled) {
        Py_INCREF(r);
        stk_pool_give_back(r, stk_pool_clean(r));
        return;
    }
    r->dead = true;
    runner_unpark(r);
    Py_CLEAR(r->task);
}

/* Lets a coroutine go on that waits for an awaitable of ours. */
static void runner_drive_one(StkRunner *r)
{
    PyObject *value = NULL;
    PySendResult result;

    if (!r->waits || !r->coro || r->dead || (r->park && !stk_runner_is_parked(r)))
        return; /* it has gone on, or its task is going to (it has been cancelled) */
    if (stk_unlikely(runner_begin(r) < 0)) { /* somebody runs in its context */
        PyErr_Clear();
        runner_unpark(r);
        return;
    }
    r->waits = false;
    result = runner_step(r, r->exchange, r->coro, Py_None, &value);
    runner_leave(r, result);
    if (result == PYGEN_NEXT) {
        runner_suspend(r, value);
        return;
    }
    if (result == PYGEN_RETURN)
        Py_DECREF(value);
    runner_end(r);
}

void stk_runner_drive(struct stk_asgi *a)
{
    StkRunner *r = (StkRunner *)stk_steal(&a->resumable);
    const struct stk_host_engine *engine = r->next_resumable ? a->engine : NULL;

    a->resumable_last = NULL;
    for (unsigned i = 0; r; i++) {
        StkRunner *next = (StkRunner *)stk_steal(&r->next_resumable);

        if (engine && i % RUNNER_GATHER == 0)
            engine->gather(engine->arg, true);
        r->resumable = false;
        runner_drive_one(r);
        Py_DECREF(r);
        r = next;
    }
    if (engine)
        engine->gather(engine->arg, false);
}

void stk_runner_resume(PyObject *runner)
{
    StkRunner *r = (StkRunner *)runner;
    struct stk_asgi *a = r->asgi;

    if (r->resumable)
        return;
    r->resumable = true;
    if (!a->resumable && !a->turning)
        stk_runner_settle_soon(a);
    Py_INCREF(r);
    if (a->resumable)
        ((StkRunner *)a->resumable_last)->next_resumable = runner;
    else
        a->resumable = runner;
    a->resumable_last = runner;
}

/* ---- the coroutine of a task ---------------------------------------------------------------- */

/*
 * What the coroutine waits for at first, for the task. The mark was off meanwhile: another
 * coroutine that awaits the same future (a shared task) would be told that it is awaited wrongly.
 */
static PyObject *runner_take_first(StkRunner *r)
{
    PyObject *first = stk_steal(&r->first);

    if (r->blocks &&
        PyObject_SetAttr(first, stk_runner_name(r, STK_NAME_s__asyncio_future_blocking), Py_True) <
            0)
        PyErr_Clear(); /* the task says what is wrong with it */
    return first;
}

/* Parks: the future that the task is to wait for, or NULL with an exception. */
static PyObject *runner_park(StkRunner *r)
{
    PyObject *future = PyObject_CallNoArgs(r->asgi->create_future);

    if (future && PyObject_SetAttr(future, stk_runner_name(r, STK_NAME_s__asyncio_future_blocking),
                                   Py_True) < 0)
        Py_CLEAR(future);
    if (future)
        Py_XSETREF(r->park, stk_py_newref(future));
    return future;
}

/* What a step of the task has yielded, for the task: for what is ours it parks. Takes the
 * reference. NULL with an exception. */
static PyObject *runner_pass_on(StkRunner *r, PyObject *value)
{
    if (!runner_has_wait(r, value))
        return value;
    r->waits = true;
    Py_DECREF(value);
    return runner_park(r);
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
        if (r->asgi->pooled && stk_pool_may_be_clean(r)) {
            future = runner_park(r);
            if (future) {
                stk_pool_give_back_stepping(r);
                *ret_value = future;
                return PYGEN_NEXT;
            }
            PyErr_Clear();
        } else {
            stk_pool_note_retired(r->asgi);
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
    if (r->waits && !r->park) { /* the task has not been needed so far: it begins */
        *ret_value = runner_park(r);
        return *ret_value ? PYGEN_NEXT : PYGEN_ERROR;
    }
    Py_CLEAR(r->park);
    r->waits = false;
    result = runner_step(r, r->exchange, r->coro, arg, ret_value);
    if (result == PYGEN_NEXT) {
        *ret_value = runner_pass_on(r, *ret_value);
        return *ret_value ? PYGEN_NEXT : PYGEN_ERROR;
    }
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
    PyObject *throw = PyObject_GetAttr(r->coro, stk_runner_name(r, STK_NAME_s_throw));
    struct stk_pythread *thread = r->asgi->thread;
    PyObject *value;
    PySendResult result;
    bool steps;

    Py_CLEAR(r->park);
    r->waits = false;
    steps = stk_cancel_begin_step(thread, &r->exchange->call);
    value = throw ? PyObject_CallObject(throw, args) : NULL; /* waits by futures: nothing drives */
    if (steps)
        stk_cancel_end_step(thread);
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
        cancelled = PyObject_CallMethodNoArgs(first, stk_runner_name(r, STK_NAME_s_cancel));
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

static int runner_start_pooled(struct stk_asgi *a, PyObject *coro, StkExchange *ex)
{
    StkRunner *r = stk_pool_take(a);
    PyObject *value = NULL;
    PySendResult result;

    if (stk_unlikely(!r))
        return -1;
    if (stk_unlikely(runner_begin(r) < 0)) {
        stk_pool_give_back(r, false);
        return -1;
    }
    result = runner_step(r, ex, coro, Py_None, &value);
    runner_leave(r, result);
    if (result == PYGEN_NEXT) {
        r->coro = stk_py_newref(coro);
        r->exchange = (StkExchange *)stk_py_newref((PyObject *)ex);
        runner_suspend(r, value);
        stk_exchange_suspended(ex, (PyObject *)r);
        Py_DECREF(r); /* its task holds it, and the exchange */
        return 0;
    }
    if (result == PYGEN_RETURN)
        Py_DECREF(value);
    stk_exchange_end(ex);
    stk_pool_give_back(r, stk_pool_clean(r));
    return 0;
}

/* A task for this coroutine alone: begun at once since 3.12, before that by the event loop. */
static int runner_start_single(struct stk_asgi *a, PyObject *coro, StkExchange *ex)
{
    StkRunner *r = stk_pool_alloc(a);
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
