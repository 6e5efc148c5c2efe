/*
 * What the tasks of the event loop, or greenlets, wait for. Unlike the stacks of threads (stacks.c)
 * that is in objects and not in frames that run, so it takes the interpreter's lock, and then it is
 * a matter of a few lines of Python (stoker._asgi), which know no layout of any version.
 *
 * The event loop's thread has the lock in its turn. When it is blocked the stand-by asks, which is
 * no thread of the interpreter's and may not wait for it: a thread is made that does, and the
 * stand-by waits for that one, for a while. Handlers that compute or block in Python give the lock
 * away; who blocks outside of it without doing so is seen in the stack of its thread.
 */
#include "pyhost/asgi_priv.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "pyhost/green.h"
#include "pyhost/report.h"

enum {
    TASKS_WAIT_MS = 200,
    TASKS_REQUESTS_MAX = 10000,
    TASKS_THREAD_STACK = 512 * 1024,
};

/* The requests that wait, as describe_tasks takes them. */
static PyObject *tasks_requests(const struct stk_asgi *a)
{
    PyObject *list = PyList_New(0);
    stk_nsec now = stk_time_mono_ns();
    unsigned n = 0;

    for (const StkExchange *ex = a->detached; list && ex && n++ < TASKS_REQUESTS_MAX;
         ex = ex->next) {
        const struct stk_request *req = ex->call.req;
        PyObject *item =
            Py_BuildValue("(KsdO)", (unsigned long long)req->id, ex->title ? ex->title : "?",
                          (double)(now - req->started) / 1e9, ex->runner ? ex->runner : Py_None);

        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static void tasks_put(int fd, const char *text, Py_ssize_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, (size_t)len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* the reader is gone */
        text += n;
        len -= n;
    }
}

/* With the interpreter's lock. A new reference; NULL: it could not be made, which is said. */
static PyObject *tasks_describe(struct stk_pyhost *host, uint64_t call)
{
    const struct stk_asgi *a = host->asgi;
    PyObject *requests = a && a->loop && a->helpers ? tasks_requests(a) : NULL;
    PyObject *text = NULL;

    if (host->greens)
        text = stk_green_describe(host, call);
    else if (requests)
        text = PyObject_CallMethod(a->helpers, "describe_tasks", "OOK", a->loop, requests,
                                   (unsigned long long)call);
    Py_XDECREF(requests);
    if (!text && PyErr_Occurred())
        stk_report_exception(STK_LOG_WARNING, "what requests wait for cannot be shown");
    return text;
}

/* One who waits for the interpreter on behalf of the stand-by. */
struct tasks_errand {
    struct stk_pyhost *host;
    uint64_t call;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    char *text; /* what came of it */
    size_t len;
    bool done;
    bool left; /* nobody waits any more: who comes last frees it */
};

static void tasks_errand_free(struct tasks_errand *e)
{
    pthread_cond_destroy(&e->cond);
    pthread_mutex_destroy(&e->mutex);
    free(e->text);
    free(e);
}

/* With the interpreter's lock. */
static void tasks_fetch(struct tasks_errand *e)
{
    PyObject *text = tasks_describe(e->host, e->call);
    Py_ssize_t len = 0;
    const char *utf8 = text ? PyUnicode_AsUTF8AndSize(text, &len) : NULL;

    e->text = utf8 ? stk_try_alloc((size_t)len + 1) : NULL;
    if (e->text) {
        memcpy(e->text, utf8, (size_t)len);
        e->len = (size_t)len;
    }
    if (PyErr_Occurred())
        PyErr_Clear();
    Py_XDECREF(text);
}

static void *tasks_main(void *arg)
{
    struct tasks_errand *e = arg;
    PyGILState_STATE gil = PyGILState_Ensure();
    bool left;

    pthread_mutex_lock(&e->mutex);
    left = e->left;
    pthread_mutex_unlock(&e->mutex);
    if (!left)
        tasks_fetch(e);
    PyGILState_Release(gil);
    pthread_mutex_lock(&e->mutex);
    e->done = true;
    left = e->left;
    pthread_cond_signal(&e->cond);
    pthread_mutex_unlock(&e->mutex);
    if (left)
        tasks_errand_free(e);
    return NULL;
}

/* Starts it, without signals. 0 or an error number. */
static int tasks_send(struct tasks_errand *e)
{
    sigset_t all, old;
    pthread_attr_t attr;
    pthread_t id;
    int r = pthread_attr_init(&attr);

    if (r != 0)
        return r;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_attr_setstacksize(&attr, TASKS_THREAD_STACK);
    if (r == 0)
        r = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (r == 0)
        r = pthread_create(&id, &attr, tasks_main, e);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return r;
}

/* By a thread that is none of the interpreter's. */
static bool tasks_ask(struct stk_pyhost *host, uint64_t call, int fd)
{
    struct tasks_errand *e = stk_new0(struct tasks_errand);
    struct timespec until;
    bool done;

    e->host = host;
    e->call = call;
    pthread_mutex_init(&e->mutex, NULL);
    pthread_cond_init(&e->cond, NULL);
    if (tasks_send(e) != 0) {
        tasks_errand_free(e);
        return false;
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += TASKS_WAIT_MS * STK_NSEC_PER_MSEC;
    until.tv_sec += until.tv_nsec / STK_NSEC_PER_SEC;
    until.tv_nsec %= STK_NSEC_PER_SEC;
    pthread_mutex_lock(&e->mutex);
    while (!e->done && pthread_cond_timedwait(&e->cond, &e->mutex, &until) == 0) {
    }
    done = e->done;
    e->left = true;
    pthread_mutex_unlock(&e->mutex);
    if (!done)
        return false; /* it frees it */
    done = e->text != NULL;
    if (done)
        tasks_put(fd, e->text, (Py_ssize_t)e->len);
    tasks_errand_free(e);
    return done;
}

bool stk_asgi_tasks(void *host, uint64_t call, int fd)
{
    struct stk_pyhost *h = host;
    PyObject *text;
    const char *utf8;
    Py_ssize_t len;

    STK_CHECK_MAGIC(h, STK_PYHOST_MAGIC);
    if (!PyGILState_Check())
        return tasks_ask(h, call, fd);
    text = tasks_describe(h, call);
    utf8 = text ? PyUnicode_AsUTF8AndSize(text, &len) : NULL;
    if (utf8)
        tasks_put(fd, utf8, len);
    else
        PyErr_Clear();
    Py_XDECREF(text);
    return utf8 != NULL;
}

void stk_asgi_log_chain(const StkExchange *ex)
{
    PyObject *text = ex->runner
                         ? PyObject_CallMethod(ex->asgi->helpers, "describe_chain", "O", ex->runner)
                         : NULL;
    const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;

    if (utf8 && *utf8) {
        STK_CLEANUP(stk_mem_freep)
        char *message = stk_mem_printf("%s: its task waits at (most recent call first):\n%s",
                                       ex->title ? ex->title : "a request", utf8);

        stk_log_bytes(STK_LOG_ERROR, message, strlen(message));
    }
    if (PyErr_Occurred())
        PyErr_Clear();
    Py_XDECREF(text);
}
