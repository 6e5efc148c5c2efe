/*
 * Modules of stoker's own that behave as another server's (stoker.compat.uwsgi_module) are Python.
 * They put functions and a dict on the module stoker._core, under names that begin with an
 * underscore, and the engine looks for them where a worker begins; a server without such a module
 * looks three times a start, and never in a request.
 */
#include "pyhost/guest.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "pyhost/cache.h"
#include "pyhost/context.h"
#include "pyhost/pyhost.h"
#include "pyhost/report.h"

/* The attribute of stoker._core, new; NULL without an exception: there is none. */
static PyObject *guest_find(struct stk_pyhost *host, const char *name)
{
    PyObject *found = PyObject_GetAttrString(host->module, name);

    if (!found)
        PyErr_Clear();
    return found;
}

/* Calls it with a number, or with nothing; what it raises is printed. */
static void guest_call(struct stk_pyhost *host, const char *name, long number)
{
    PyObject *function = guest_find(host, name);
    PyObject *result;

    if (!function)
        return;
    result = number > 0 ? PyObject_CallFunction(function, "l", number)
                        : PyObject_CallObject(function, NULL);
    if (!result)
        PyErr_Print();
    Py_XDECREF(result);
    Py_DECREF(function);
}

struct stk_guest_metric {
    char *name;
    const char *value; /* eight bytes in memory that all processes share */
};

/* Takes the names and the memory of metrics: the attribute _metrics is (buffer, {name: offset}). */
static void guest_take_metrics(struct stk_pyhost *host, PyObject *found)
{
    PyObject *places, *name, *offset;
    Py_ssize_t at = 0;
    Py_buffer memory; /* is never released: the numbers are there as long as the process */

    if (!PyArg_ParseTuple(found, "y*O!", &memory, &PyDict_Type, &places)) {
        PyErr_Print();
        return;
    }
    stk_guest_forget(host);
    host->metrics = stk_new0_array(struct stk_guest_metric, (size_t)PyDict_GET_SIZE(places) + 1);
    while (PyDict_Next(places, &at, &name, &offset)) {
        const char *text = PyUnicode_AsUTF8(name);
        size_t place = PyLong_AsSize_t(offset);

        if (!text || PyErr_Occurred()) {
            PyErr_Clear();
            continue;
        }
        if (memory.len < 8 || place > (size_t)memory.len - 8)
            continue;
        host->metrics[host->nmetrics].name = stk_mem_strdup(text);
        host->metrics[host->nmetrics++].value = (const char *)memory.buf + place;
    }
}

void stk_guest_forget(struct stk_pyhost *host)
{
    for (size_t i = 0; i < host->nmetrics; i++)
        free(host->metrics[i].name);
    free(stk_steal(&host->metrics));
    host->nmetrics = 0;
}

bool stk_guest_metric(const void *host, stk_span name, int64_t *ret_value)
{
    const struct stk_pyhost *h = host;

    for (size_t i = 0; i < h->nmetrics; i++) {
        if (!stk_span_eq(name, stk_span_str(h->metrics[i].name)))
            continue;
        memcpy(ret_value, h->metrics[i].value, sizeof *ret_value);
        return true;
    }
    return false;
}

void stk_guest_enter(void *host, const struct stk_host_worker *worker)
{
    struct stk_pyhost *h = host;

    PyObject *metrics = guest_find(h, "_metrics");

    if (metrics)
        guest_take_metrics(h, metrics);
    Py_XDECREF(metrics);
    h->worker = *worker;
    guest_call(h, "_on_enter", (long)worker->slot + 1);
}

int stk_guest_startup(struct stk_pyhost *host)
{
    guest_call(host, "_on_startup", 0);
    return 0;
}

int stk_pyhost_run_task(void *host, const char *name)
{
    struct stk_pyhost *h = host;
    PyObject *function = guest_find(h, "_on_task");
    PyObject *result = function ? PyObject_CallFunction(function, "s", name) : NULL;

    if (!function)
        stk_log_error("task %s: nothing does it here: it is for a program of stoker's own", name);
    else if (!result)
        stk_report_exception(STK_LOG_ERROR, "the task has failed");
    Py_XDECREF(result);
    Py_XDECREF(function);
    return result ? 0 : 1;
}

int stk_guest_add(struct stk_pyhost *host, PyObject *dict)
{
    static const char *const names[] = {"stoker.set_timeout", "stoker.disconnected"};
    static const char *const own[] = {"_set_timeout", "_disconnected"};
    PyObject *more = guest_find(host, "_environ");
    int r = 0;

    if (!more)
        return 0;
    r = PyDict_Update(dict, more);
    Py_DECREF(more);
    for (size_t i = 0; r == 0 && i < STK_ARRAY_LEN(names); i++) {
        PyObject *function = PyDict_GetItemString(dict, names[i]);

        r = function ? PyObject_SetAttrString(host->module, own[i], function) : 0;
    }
    return r == 0 ? stk_context_add_log(host) : r;
}

bool stk_guest_forgives(struct stk_pyhost *host, const char *name, size_t len)
{
    PyObject *function = guest_find(host, "_forgives");
    PyObject *result =
        function ? PyObject_CallFunction(function, "s#", name, (Py_ssize_t)len) : NULL;
    bool forgives = result && PyObject_IsTrue(result) == 1;

    if (function && !result)
        PyErr_Clear();
    Py_XDECREF(result);
    Py_XDECREF(function);
    return forgives;
}

/* The host of this process; NULL with an exception. */
static struct stk_pyhost *guest_host(PyObject *module)
{
    struct stk_pyhost *host = stk_state_of(module)->host;

    if (!host || !host->worker.statistics || stk_host_is_stray(host)) {
        PyErr_SetString(PyExc_RuntimeError, "this process is no worker");
        return NULL;
    }
    return host;
}

static PyObject *guest_statistics(PyObject *module, PyObject *unused)
{
    const struct stk_pyhost *host = guest_host(module);
    PyObject *result;
    char *text = NULL;
    size_t len = 0;

    if (!host)
        return NULL;
    if (host->worker.statistics(host->worker.arg, &text, &len) < 0)
        return PyErr_NoMemory();
    result = PyUnicode_DecodeUTF8(text, (Py_ssize_t)len, "replace");
    free(text);
    return result;
}

static PyObject *guest_log(PyObject *module, PyObject *text)
{
    const char *words = PyUnicode_AsUTF8(text);

    if (!words)
        return NULL;
    stk_log_info("%s", words);
    Py_RETURN_NONE;
}

PyMethodDef *stk_guest_methods(void)
{
    static PyMethodDef methods[] = {
        {"_statistics", guest_statistics, METH_NOARGS,
         "_statistics(): the statistics of all workers as JSON, in a worker."},
        {"_log", guest_log, METH_O, "_log(text): one line in the error log."},
        {"_cache_functions", stk_pycache_functions, METH_NOARGS,
         "_cache_functions(): the functions of caches, by name."},
        {NULL, NULL, 0, NULL},
    };

    return methods;
}
