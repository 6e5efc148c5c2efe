/*
 * Warming a template. Applications import a good part of what they use with the first requests;
 * that memory is each worker's own. A worker that has served for a while names the modules that it
 * has imported since it was forked, in their order, and the template's successor imports them
 * before it forks. Only imports are repeated, no request: an import has no caller, so it does the
 * same wherever it happens, while a request may change the world.
 */
#include "pyhost/warm.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "pyhost/report.h"

void stk_warm_note(struct stk_pyhost *host)
{
    PyObject *modules = PyImport_GetModuleDict();

    Py_XSETREF(host->known, modules ? PySet_New(modules) : NULL);
    PyErr_Clear(); /* without it nothing is listed */
}

/* The name as the C library has it, or NULL for what nobody could import. */
static char *warm_name(PyObject *key, PyObject *module)
{
    const char *name = PyUnicode_Check(key) ? PyUnicode_AsUTF8(key) : NULL;

    if (!name || module == Py_None || *name == '\0' || strcmp(name, "__main__") == 0) {
        PyErr_Clear();
        return NULL;
    }
    return stk_mem_strdup(name);
}

char **stk_warm_list(void *host)
{
    struct stk_pyhost *h = host;
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *items = NULL;
    char **names = stk_new0_array(char *, 1);
    size_t n = 0;

    STK_CHECK_MAGIC(h, STK_PYHOST_MAGIC);
    if (h->known && modules)
        items = PyDict_Items(modules);
    if (items) {
        free(names);
        names = stk_new0_array(char *, (size_t)PyList_GET_SIZE(items) + 1);
    }
    for (Py_ssize_t i = 0; items && i < PyList_GET_SIZE(items); i++) {
        PyObject *key = PyTuple_GET_ITEM(PyList_GET_ITEM(items, i), 0);
        PyObject *module = PyTuple_GET_ITEM(PyList_GET_ITEM(items, i), 1);

        if (PySet_Contains(h->known, key) == 0 && (names[n] = warm_name(key, module)) != NULL)
            n++;
        PyErr_Clear();
    }
    Py_XDECREF(items);
    PyErr_Clear();
    return names;
}

void stk_warm_import(void *host, const char *const *names)
{
    unsigned n = 0;

    for (; *names; names++) {
        PyObject *module = PyImport_ImportModule(*names);

        if (module) {
            n++;
            Py_DECREF(module);
        } else {
            /* Made at run time, or not importable twice: a worker does without it here too. */
            stk_log_debug("preload-refresh: %s cannot be imported here", *names);
            PyErr_Clear();
        }
    }
    stk_log_info("the template has imported %u module%s that workers use", n, n == 1 ? "" : "s");
}
