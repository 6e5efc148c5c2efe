/*
 * An exception that says that the process is good for nothing any more: a connection of the
 * application's that does not come back, a library whose state is broken. The options name it by
 * its type, by its text, or by both, as uWSGI does; whoever asked for the worker is answered 500,
 * and the master replaces it, once, when another one is ready.
 *
 * The type is its name, or the name with the module in front: ValueError, builtins.ValueError,
 * redis.exceptions.ConnectionError.
 */
#include "pyhost/outcast.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"

static bool outcast_lists(const char *const *list, const char *text)
{
    for (; list != NULL && text != NULL && *list != NULL; list++)
        if (strcmp(*list, text) == 0)
            return true;
    return false;
}

/* A text attribute of a type, or NULL; free it. */
static char *outcast_attribute(PyTypeObject *type, const char *name)
{
    PyObject *value = PyObject_GetAttrString((PyObject *)type, name);
    const char *text = value && PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : NULL;
    char *copy = text ? stk_mem_strdup(text) : NULL;

    PyErr_Clear();
    Py_XDECREF(value);
    return copy;
}

/* str() of an exception, or NULL; free it. */
static char *outcast_text(PyObject *exc)
{
    PyObject *value = PyObject_Str(exc);
    const char *text = value ? PyUnicode_AsUTF8(value) : NULL;
    char *copy = text ? stk_mem_strdup(text) : NULL;

    PyErr_Clear();
    Py_XDECREF(value);
    return copy;
}

/* "type: text", with each of the names. */
static bool outcast_lists_both(const char *const *list, const char *type, const char *text)
{
    STK_CLEANUP(stk_mem_freep) char *both = NULL;

    if (list == NULL || type == NULL || text == NULL)
        return false;
    both = stk_mem_printf("%s: %s", type, text);
    return outcast_lists(list, both);
}

static bool outcast_is_meant(const struct stk_host_outcasts *outcasts, PyObject *exc)
{
    STK_CLEANUP(stk_mem_freep) char *name = outcast_attribute(Py_TYPE(exc), "__qualname__");
    STK_CLEANUP(stk_mem_freep) char *module = outcast_attribute(Py_TYPE(exc), "__module__");
    STK_CLEANUP(stk_mem_freep) char *full = NULL;
    STK_CLEANUP(stk_mem_freep) char *text = NULL;

    if (outcasts->any)
        return true;
    if (name != NULL && module != NULL)
        full = stk_mem_printf("%s.%s", module, name);
    if (outcast_lists(outcasts->types, name) || outcast_lists(outcasts->types, full))
        return true;
    if (outcasts->values == NULL && outcasts->reprs == NULL)
        return false;
    text = outcast_text(exc);
    return outcast_lists(outcasts->values, text) ||
           outcast_lists_both(outcasts->reprs, name, text) ||
           outcast_lists_both(outcasts->reprs, full, text);
}

void stk_outcast_check(struct stk_pyhost *host, PyObject *exc)
{
    const struct stk_host_outcasts *outcasts = &host->worker.outcasts;

    if (host->worker.replace == NULL ||
        (!outcasts->any && !outcasts->types && !outcasts->values && !outcasts->reprs))
        return;
    if (!outcast_is_meant(outcasts, exc) || atomic_exchange(&host->outcast, true))
        return;
    stk_log_info("this worker is to be replaced: a request raised %s (reload-on-exception)",
                 Py_TYPE(exc)->tp_name);
    host->worker.replace(host->worker.arg);
}
