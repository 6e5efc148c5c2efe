/*
 * Cancelling works by raising an exception in the thread that runs the call.
 *
 * The main thread gets a real-time signal, because a signal also ends what blocks: sleeps, locks,
 * recv, select. Python's own machinery delivers it, and calls a handler of ours, which raises only
 * if the call that was meant is still the one in progress. Python loses a signal that arrives
 * between its last look and the system call that then blocks, so the server repeats itself until
 * the handler has run.
 *
 * Other threads get an asynchronous exception, which arrives at their next bytecode. Setting it
 * takes the GIL, for which the caller (the stand-by thread) must never wait: a helper thread does,
 * made when it is first needed.
 *
 * A request for cancelling is one word: the call's id, the number of the try, the reason. Each is
 * carried out once. A call that ends takes it back, together with an exception that was set and has
 * not arrived: the next call on the thread begins clean.
 */
#include "pyhost/cancel.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "pyhost/report.h"
#include "pyhost/stacks.h"

enum {
    CANCEL_WHY = 3, /* bits of the word: enum stk_host_cancel ... */
    CANCEL_BITS = 3,
    CANCEL_STACK = 256 * 1024,
};

struct stk_cancel {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    pthread_t id;
    bool running; /* the helper is */
    bool wanted;
    bool quit;
};

/* ---- exceptions ---------------------------------------------------------------------------- */

int stk_cancel_add_types(PyObject *module, struct stk_state *st)
{
    st->cancelled_type = PyErr_NewExceptionWithDoc(
        "stoker.RequestCancelled",
        "The server gives this request up. A BaseException, so that `except Exception` does not "
        "stop it: clean up and let it pass.",
        PyExc_BaseException, NULL);
    if (!st->cancelled_type)
        return -1;
    st->timeout_type = PyErr_NewExceptionWithDoc(
        "stoker.RequestTimeout", "The request has taken longer than its request-timeout.",
        st->cancelled_type, NULL);
    st->disconnected_type = PyErr_NewExceptionWithDoc(
        "stoker.ClientDisconnected", "The client has left (with cancel-on-disconnect).",
        st->cancelled_type, NULL);
    if (!st->timeout_type || !st->disconnected_type ||
        PyObject_SetAttrString(module, "RequestCancelled", st->cancelled_type) < 0 ||
        PyObject_SetAttrString(module, "RequestTimeout", st->timeout_type) < 0)
        return -1;
    return PyObject_SetAttrString(module, "ClientDisconnected", st->disconnected_type);
}

static PyObject *cancel_type(const struct stk_pyhost *host, uint64_t word)
{
    return (word & CANCEL_WHY) == STK_HOST_CANCEL_DISCONNECTED ? host->st->disconnected_type
                                                               : host->st->timeout_type;
}

static const char *cancel_text(bool left)
{
    return left ? "the client has left" : "the request has taken too long";
}

PyObject *stk_cancel_new(const struct stk_pyhost *host, bool left)
{
    return PyObject_CallFunction(left ? host->st->disconnected_type : host->st->timeout_type, "s",
                                 cancel_text(left));
}

bool stk_cancel_is_own(const struct stk_call *call, PyObject *exc)
{
    return call->cancelled && PyErr_GivenExceptionMatches(exc, call->host->st->cancelled_type);
}

/*
 * What is to be raised on a thread, which counts as raised from here on; 0: nothing, or not in the
 * call that it runs. With the GIL.
 */
static uint64_t cancel_take(struct stk_pythread *t)
{
    uint64_t word = atomic_load(&t->cancel);

    if (word == 0 || word == atomic_load(&t->cancelled) || !t->call ||
        t->call->req->id != word >> CANCEL_BITS)
        return 0;
    atomic_store(&t->cancelled, word);
    t->call->cancelled = true;
    return word;
}

/* ---- the main thread ----------------------------------------------------------------------- */

/* The handler: called by the interpreter on the main thread. */
static PyObject *cancel_on_signal(PyObject *capsule, PyObject *args)
{
    struct stk_pyhost *host = PyCapsule_GetPointer(capsule, NULL);
    struct stk_pythread *t = host && host->nthreads > 0 ? host->threads[0] : NULL;
    uint64_t word = t ? cancel_take(t) : 0;

    if (word != 0) {
        bool left = (word & CANCEL_WHY) == STK_HOST_CANCEL_DISCONNECTED;

        PyErr_SetString(cancel_type(host, word), cancel_text(left));
        return NULL;
    }
    if (!host)
        return NULL;
    Py_RETURN_NONE;
}

/* signal.signal(sig, handler); 0 or -1. */
static int cancel_set_handler(int sig, PyObject *handler)
{
    PyObject *module = PyImport_ImportModule("_signal");
    PyObject *done = module ? PyObject_CallMethod(module, "signal", "iO", sig, handler) : NULL;

    Py_XDECREF(done);
    Py_XDECREF(module);
    return done ? 0 : -1;
}

static void cancel_init_signal(struct stk_pyhost *host)
{
    static PyMethodDef methods[] = {{"cancel", cancel_on_signal, METH_VARARGS, NULL}};
    int sig = stk_stacks_free_signal();
    PyObject *capsule = PyCapsule_New(host, NULL, NULL);
    PyObject *handler = capsule ? PyCFunction_New(methods, capsule) : NULL;

    if (sig > 0 && handler && cancel_set_handler(sig, handler) == 0)
        host->cancel_signal = sig;
    else if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_ValueError))
        PyErr_Clear(); /* not the main thread: it gets exceptions as the others do */
    else if (PyErr_Occurred())
        stk_report_exception(STK_LOG_WARNING, "requests that block cannot be cancelled");
    Py_XDECREF(handler);
    Py_XDECREF(capsule);
}

/* From now on the signal is ignored, not its default, which is death: one may be on its way. */
static void cancel_deinit_signal(struct stk_pyhost *host)
{
    PyObject *ignore = PyLong_FromLong((long)(intptr_t)SIG_IGN);

    if (host->cancel_signal > 0 && (!ignore || cancel_set_handler(host->cancel_signal, ignore) < 0))
        stk_report_exception(STK_LOG_WARNING, "a signal handler cannot be removed");
    Py_XDECREF(ignore);
    host->cancel_signal = 0;
}

/* ---- other threads ------------------------------------------------------------------------- */

/* Sets the exceptions that are wanted. With the GIL. */
static void cancel_set_all(struct stk_pyhost *host)
{
    for (unsigned i = 0; i < host->nthreads; i++) {
        struct stk_pythread *t = host->threads[i];
        uint64_t word;

        if (!t || (i == 0 && host->cancel_signal > 0))
            continue;
        word = cancel_take(t);
        if (word != 0)
            (void)PyThreadState_SetAsyncExc(t->ident, cancel_type(host, word));
    }
}

static void *cancel_main(void *arg)
{
    struct stk_pyhost *host = arg;
    struct stk_cancel *c = host->cancel;

    for (;;) {
        bool quit;
        PyGILState_STATE gil;

        pthread_mutex_lock(&c->mutex);
        while (!c->wanted && !c->quit)
            pthread_cond_wait(&c->cond, &c->mutex);
        quit = c->quit;
        c->wanted = false;
        pthread_mutex_unlock(&c->mutex);
        if (quit)
            return NULL;
        gil = PyGILState_Ensure();
        cancel_set_all(host);
        PyGILState_Release(gil);
    }
}

/* Starts the helper, which gets no signals. Mutex held. */
static void cancel_start(struct stk_pyhost *host)
{
    struct stk_cancel *c = host->cancel;
    sigset_t all, old;
    pthread_attr_t attr;
    int r;

    if (c->running || c->quit)
        return;
    r = pthread_attr_init(&attr);
    if (r == 0) {
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        r = pthread_attr_setstacksize(&attr, CANCEL_STACK);
        if (r == 0)
            r = pthread_create(&c->id, &attr, cancel_main, host);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_attr_destroy(&attr);
    }
    c->running = r == 0;
    if (r == 0)
        (void)pthread_setname_np(c->id, "stoker-cancel");
    else
        stk_log_error("requests cannot be cancelled, a thread for it cannot be started: %s",
                      strerror(r));
}

static void cancel_wake(struct stk_pyhost *host)
{
    struct stk_cancel *c = host->cancel;

    pthread_mutex_lock(&c->mutex);
    cancel_start(host);
    c->wanted = true;
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->mutex);
}

/* ---- calls --------------------------------------------------------------------------------- */

void stk_cancel_call(void *host, void *thread, uint64_t call, int why)
{
    struct stk_pyhost *h = host;
    struct stk_pythread *t = thread;
    uint64_t word = call << CANCEL_BITS | (uint64_t)(unsigned)why;

    STK_CHECK_MAGIC(h, STK_PYHOST_MAGIC);
    STK_CHECK_MAGIC(t, STK_PYTHREAD_MAGIC);
    if (atomic_load(&t->cancelled) == word)
        return;
    atomic_store(&t->cancel, word);
    if (t->index > 0 || h->cancel_signal == 0)
        cancel_wake(h);
    else if (pthread_kill(t->id, h->cancel_signal) != 0)
        stk_log_error("a request cannot be cancelled: its thread gets no signal");
}

uint64_t stk_cancel_step(void *host, void *thread, uint64_t *ret_call)
{
    struct stk_pythread *t = thread;
    uint64_t step = atomic_load_explicit(&t->step, memory_order_acquire);
    uint64_t call = atomic_load_explicit(&t->step_call, memory_order_acquire);

    STK_CHECK_MAGIC(t, STK_PYTHREAD_MAGIC);
    if (!(step & 1) || atomic_load_explicit(&t->step, memory_order_acquire) != step)
        return 0;
    *ret_call = call;
    return step;
}

STK_COLD void stk_cancel_clear(struct stk_pythread *thread)
{
    atomic_store(&thread->cancel, 0);
    (void)PyThreadState_SetAsyncExc(thread->ident, NULL);
}

/* ---- life ---------------------------------------------------------------------------------- */

bool stk_cancel_init(struct stk_pyhost *host, unsigned threads)
{
    if (host->cancel)
        return false;
    host->cancel = stk_new0(struct stk_cancel);
    pthread_mutex_init(&host->cancel->mutex, NULL);
    pthread_cond_init(&host->cancel->cond, NULL);
    host->threads = stk_new0_array(struct stk_pythread *, threads);
    host->nthreads = threads;
    cancel_init_signal(host);
    return true;
}

void stk_cancel_attach(struct stk_pyhost *host, struct stk_pythread *thread)
{
    thread->id = pthread_self();
    thread->ident = PyThread_get_thread_ident();
    host->threads[thread->index] = thread;
}

void stk_cancel_detach(struct stk_pyhost *host, struct stk_pythread *thread)
{
    host->threads[thread->index] = NULL;
}

void stk_cancel_deinit(struct stk_pyhost *host)
{
    struct stk_cancel *c = host->cancel;

    cancel_deinit_signal(host);
    pthread_mutex_lock(&c->mutex);
    c->quit = true;
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->mutex);
    if (c->running) {
        Py_BEGIN_ALLOW_THREADS
        pthread_join(c->id, NULL);
        Py_END_ALLOW_THREADS
    }
    host->nthreads = 0;
    free(host->threads);
    host->threads = NULL;
    pthread_cond_destroy(&c->cond);
    pthread_mutex_destroy(&c->mutex);
    free(c);
    host->cancel = NULL;
}
