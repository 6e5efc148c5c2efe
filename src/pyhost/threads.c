/*
 * The first thread of the engine is Python's main thread, the others are threading.Thread objects
 * that live as long as the worker: an application finds its thread-local data (database
 * connections) again in the next request, and threading.enumerate() shows them by name.
 *
 * The threads wait at a gate until all have been started. If one cannot be, none runs, and
 * the caller learns of it instead of serving with fewer than were asked for.
 */
#include "pyhost/threads.h"

#include <errno.h>
#include <pthread.h>

#include "base/assert.h"
#include "base/log.h"
#include "pyhost/asgi.h"
#include "pyhost/cancel.h"
#include "pyhost/green.h"
#include "pyhost/report.h"
#include "pyhost/respond.h"

enum threads_gate { GATE_SHUT, GATE_OPEN, GATE_ABORT };

/* One run; on the stack of stk_threads_run, which outlives the threads. */
struct threads_run {
    struct stk_pyhost *host;
    bool cancels;                         /* calls of this run can be cancelled */
    const struct stk_host_engine *engine; /* driven by index 0; or NULL */
    int result;                           /* of that */
    stk_host_thread_fn fn;
    void *arg;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    enum threads_gate gate;
    unsigned next; /* index of the next thread to come to the gate */
};

static void threads_set_gate(struct threads_run *run, enum threads_gate gate)
{
    pthread_mutex_lock(&run->mutex);
    run->gate = gate;
    pthread_cond_broadcast(&run->cond);
    pthread_mutex_unlock(&run->mutex);
}

static enum threads_gate threads_wait_gate(struct threads_run *run)
{
    enum threads_gate gate;

    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&run->mutex);
    while (run->gate == GATE_SHUT)
        pthread_cond_wait(&run->cond, &run->mutex);
    gate = run->gate;
    pthread_mutex_unlock(&run->mutex);
    Py_END_ALLOW_THREADS
    return gate;
}

static void threads_enter(struct threads_run *run, unsigned index)
{
    struct stk_pythread thread = {.magic = STK_PYTHREAD_MAGIC, .index = index};

    if (run->cancels)
        stk_cancel_attach(run->host, &thread);
    if (index == 0 && run->engine)
        run->result = run->host->greens ? stk_green_run(run->host, &thread, run->engine)
                                        : stk_asgi_run(run->host, &thread, run->engine);
    else
        run->fn(run->arg, index, &thread);
    if (run->cancels)
        stk_cancel_detach(run->host, &thread);
    stk_respond_forget(&thread);
}

/* The target of a threading.Thread; `capsule` has the run. */
static PyObject *threads_target(PyObject *capsule, PyObject *unused)
{
    struct threads_run *run = PyCapsule_GetPointer(capsule, NULL);
    unsigned index;

    if (!run)
        return NULL;
    index = run->next++; /* under the GIL */
    if (threads_wait_gate(run) == GATE_OPEN)
        threads_enter(run, index);
    Py_RETURN_NONE;
}

/* Starts thread `number` (from 2 on) and returns the Thread, or NULL with an exception. */
static PyObject *threads_start(PyObject *threading, PyObject *target, unsigned number)
{
    PyObject *args = PyTuple_New(0);
    PyObject *kwargs = Py_BuildValue("{s:O,s:N,s:O}", "target", target, "name",
                                     PyUnicode_FromFormat("stoker-%u", number), "daemon", Py_False);
    PyObject *type = PyObject_GetAttrString(threading, "Thread");
    PyObject *thread = args && kwargs && type ? PyObject_Call(type, args, kwargs) : NULL;
    PyObject *started = thread ? PyObject_CallMethod(thread, "start", NULL) : NULL;

    if (!started)
        Py_CLEAR(thread);
    Py_XDECREF(started);
    Py_XDECREF(type);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    return thread;
}

static void threads_join(PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *joined;

        /* A signal handler that raises interrupts a join, and must not leave a thread behind. */
        while (!(joined = PyObject_CallMethod(PyList_GET_ITEM(list, i), "join", NULL)))
            stk_report_exception(STK_LOG_WARNING, "while waiting for the engine's threads");
        Py_DECREF(joined);
    }
}

/* Starts threads 2 .. n into `list`. 0, or -1 with an exception. */
static int threads_start_all(struct threads_run *run, unsigned n, PyObject *list)
{
    static PyMethodDef def = {"run", threads_target, METH_NOARGS, NULL};
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *capsule = threading ? PyCapsule_New(run, NULL, NULL) : NULL;
    PyObject *target = capsule ? PyCFunction_New(&def, capsule) : NULL;
    int r = target ? 0 : -1;

    for (unsigned number = 2; r == 0 && number <= n; number++) {
        PyObject *thread = threads_start(threading, target, number);

        r = thread ? PyList_Append(list, thread) : -1;
        Py_XDECREF(thread);
    }
    Py_XDECREF(target);
    Py_XDECREF(capsule);
    Py_XDECREF(threading);
    return r;
}

int stk_threads_run(void *host, unsigned threads, stk_host_thread_fn fn, void *arg,
                    const struct stk_host_engine *engine)
{
    struct threads_run run = {
        .host = host,
        .fn = fn,
        .arg = arg,
        .engine = engine,
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .cond = PTHREAD_COND_INITIALIZER,
        .next = 1,
    };
    PyObject *list = NULL;
    int r = 0;

    STK_CHECK_MAGIC(run.host, STK_PYHOST_MAGIC);
    run.cancels = stk_cancel_init(run.host, threads);
    if (threads > 1) {
        list = PyList_New(0);
        r = list ? threads_start_all(&run, threads, list) : -1;
        if (r < 0)
            stk_report_exception(STK_LOG_CRITICAL,
                                 "the engine's threads cannot be started; ask for fewer (threads) "
                                 "or raise the limit of processes (ulimit -u)");
        threads_set_gate(&run, r < 0 ? GATE_ABORT : GATE_OPEN);
    }
    if (r == 0)
        threads_enter(&run, 0);
    if (list)
        threads_join(list);
    if (run.cancels)
        stk_cancel_deinit(run.host);
    Py_XDECREF(list);
    return r < 0 ? -EAGAIN : run.result;
}

void stk_threads_unlock(void *host, void *thread)
{
    struct stk_pythread *t = thread;

    STK_CHECK_MAGIC(t, STK_PYTHREAD_MAGIC);
    t->ts = PyEval_SaveThread();
}

void stk_threads_lock(void *host, void *thread)
{
    struct stk_pythread *t = thread;

    STK_CHECK_MAGIC(t, STK_PYTHREAD_MAGIC);
    PyEval_RestoreThread(stk_steal(&t->ts));
}

void stk_threads_check_signals(void *host, void *thread)
{
    if (stk_unlikely(PyErr_CheckSignals() < 0))
        stk_report_exception(STK_LOG_ERROR, "unhandled exception in a signal handler");
}
