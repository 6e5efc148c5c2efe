/*
 * The host object, and the table by which the worker drives it. What a request costs is in wsgi.c
 * and environ.c; here is only its life.
 */
#include "pyhost/host.h"

#include <errno.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "pyhost/asgi_priv.h"
#include "pyhost/cancel.h"
#include "pyhost/context.h"
#include "pyhost/environ.h"
#include "pyhost/errors.h"
#include "pyhost/fork.h"
#include "pyhost/green.h"
#include "pyhost/guest.h"
#include "pyhost/head_cache.h"
#include "pyhost/input.h"
#include "pyhost/loader.h"
#include "pyhost/pyhost.h"
#include "pyhost/report.h"
#include "pyhost/sources.h"
#include "pyhost/stacks.h"
#include "pyhost/threads.h"
#include "pyhost/warm.h"
#include "pyhost/wsgi.h"

static void *host_body_alloc(void *host, size_t size, char **ret_data)
{
    PyObject *bytes =
        size <= PY_SSIZE_T_MAX ? PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size) : NULL;

    if (!bytes) {
        PyErr_Clear();
        return NULL;
    }
    *ret_data = PyBytes_AS_STRING(bytes);
    return bytes;
}

static void host_body_free(void *host, void *buffer)
{
    Py_DECREF((PyObject *)buffer);
}

/* Calls module.name(); a failure is logged. */
static void host_call_module(const char *module, const char *name, const char *what)
{
    PyObject *object = PyImport_ImportModule(module);
    PyObject *result = object ? PyObject_CallMethod(object, name, NULL) : NULL;

    if (!result)
        stk_report_exception(STK_LOG_ERROR, what);
    Py_XDECREF(result);
    Py_XDECREF(object);
}

static void host_flush(const char *stream)
{
    PyObject *file = PySys_GetObject(stream);
    PyObject *result;

    if (!file || file == Py_None)
        return;
    Py_INCREF(file);
    result = PyObject_CallMethod(file, "flush", NULL);
    if (!result)
        PyErr_Clear(); /* nobody reads it any more: nothing to be done, nothing worth saying */
    Py_XDECREF(result);
    Py_DECREF(file);
}

/* The event loop's end, then the order of the interpreter's own: threads, atexit, standard streams.
 */
static void host_unload(void *host)
{
    stk_asgi_shutdown(host);
    stk_green_shutdown(host);
    host_call_module("threading", "_shutdown", "while the application's threads were joined");
    host_call_module("atexit", "_run_exitfuncs", "unhandled exception in an atexit function");
    host_flush("stdout");
    host_flush("stderr");
}

static int host_startup(void *host)
{
    struct stk_pyhost *h = host;
    int r = stk_guest_startup(h);

    if (r == 0)
        r = h->greens ? stk_green_startup(h) : stk_asgi_startup(h);
    return r;
}

static bool host_has_loop(void *host)
{
    const struct stk_pyhost *h = host;

    return h->greens || stk_asgi_has_loop(host);
}

static bool host_is_async(void *host, unsigned app)
{
    const struct stk_pyhost *h = host;

    return h->greens || stk_asgi_is_async(host, app);
}

static void host_wake(void *host, void *thread, struct stk_request *req, unsigned what)
{
    struct stk_pyhost *h = host;

    if (h->greens)
        stk_green_wake(h, req, what);
    else
        stk_asgi_wake(host, thread, req, what);
}

static bool host_message(void *host, void *thread, struct stk_request *req,
                         const struct stk_ws_view *view)
{
    return stk_asgi_message(req, view);
}

static const struct stk_host_ops host_ops = {
    .name = "wsgi",
    .load = stk_loader_load,
    .enter = stk_guest_enter,
    .metric = stk_guest_metric,
    .startup = host_startup,
    .run = stk_threads_run,
    .has_loop = host_has_loop,
    .is_async = host_is_async,
    .wake = host_wake,
    .message = host_message,
    .unlock = stk_threads_unlock,
    .lock = stk_threads_lock,
    .check_signals = stk_threads_check_signals,
    .call = stk_wsgi_call,
    .body_alloc = host_body_alloc,
    .body_free = host_body_free,
    .unload = host_unload,
    .fork_prepare = stk_fork_prepare,
    .fork_parent = stk_fork_parent,
    .fork_child = stk_fork_child,
    .source_files = stk_sources_list,
    .cancel = stk_cancel_call,
    .step = stk_cancel_step,
    .stacks = stk_stacks_write,
    .tasks = stk_asgi_tasks,
    .freeze = stk_fork_freeze,
    .list_modules = stk_warm_list,
    .import_modules = stk_warm_import,
};

const struct stk_host_ops *stk_pyhost_ops(void)
{
    return &host_ops;
}

void stk_host_clear_apps(struct stk_pyhost *host)
{
    struct stk_pyapp *apps = host->apps;
    size_t n = host->napps;

    host->apps = NULL;
    host->napps = 0;
    for (size_t i = 0; i < n; i++) {
        stk_head_cache_free(apps[i].heads);
        Py_XDECREF(apps[i].callable);
        Py_XDECREF(apps[i].lifespan);
        Py_XDECREF(apps[i].state);
    }
    free(apps);
}

void *stk_pyhost_new(PyObject *module)
{
    struct stk_pyhost *host = stk_new0(struct stk_pyhost);

    host->magic = STK_PYHOST_MAGIC;
    host->st = stk_state_of(module);
    host->module = stk_py_newref(module);
    host->watch = PyList_New(0);
    host->empty_input = stk_input_new_empty(host->st);
    host->errors = stk_errors_new(host->st);
    if (!host->watch || !host->empty_input || !host->errors) {
        stk_pyhost_free(host);
        return NULL;
    }
    host->st->host = host;
    stk_fork_claim(host);
    return host;
}

void stk_pyhost_set_caches(void *host, const struct stk_caches *caches)
{
    struct stk_pyhost *h = host;

    STK_CHECK_MAGIC(h, STK_PYHOST_MAGIC);
    h->caches = caches;
}

void stk_pyhost_free(void *host)
{
    struct stk_pyhost *h = host;

    if (!h)
        return;
    STK_CHECK_MAGIC(h, STK_PYHOST_MAGIC);
    if (h->st->host == h)
        h->st->host = NULL;
    stk_stacks_deinit(h);
    stk_context_forget(h);
    stk_guest_forget(h);
    stk_asgi_shutdown(h);
    stk_green_free(h);
    h->magic = 0;
    stk_scopes_free(h->scopes);
    stk_environ_free(h->environ);
    stk_host_clear_apps(h);
    Py_CLEAR(h->watch);
    Py_CLEAR(h->known);
    Py_CLEAR(h->empty_input);
    Py_CLEAR(h->errors);
    stk_fork_unclaim(h);
    Py_CLEAR(h->module);
    free(h);
}
