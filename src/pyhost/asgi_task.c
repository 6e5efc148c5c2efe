/*
 * Looking at tasks, futures and contexts.
 *
 * Asking a task four questions by attributes and method calls cost more than the rest of a short
 * request. The functions behind them are public in the type's descriptors, so they are taken from
 * there once and called for objects of just that type; any other object is asked in the long way.
 *
 * A context holds its variables in an immutable map. Copies share it, so one whose map is that of
 * the context it was copied from has not been changed; and one that has been changed gets that map
 * back, in the place of a new context, which only a new task could have. The structure is the same
 * in all versions from 3.9 to 3.14, but none of the API: whether it is as this file believes is
 * tried out, and where it is not, contexts are compared by their values and never restored.
 */
#include "pyhost/asgi_task.h"

#include <string.h>

#include "base/macros.h"

struct task_context {
    PyObject_HEAD
    PyObject *prev;
    PyObject *vars;
    PyObject *weakrefs;
    int entered;
};

static struct task_context *task_context(PyObject *context)
{
    return (struct task_context *)(void *)context;
}

/* ---- set-up -------------------------------------------------------------------------------- */

static void tasks_find_method(struct stk_task_method *m, PyObject *type, const char *name)
{
    PyObject *descr = PyObject_GetAttrString(type, name);

    if (descr && Py_TYPE(descr) == &PyMethodDescr_Type) {
        const PyMethodDef *def = ((PyMethodDescrObject *)(void *)descr)->d_method;

        if (def->ml_flags == METH_NOARGS)
            *m = (struct stk_task_method){(PyTypeObject *)(void *)type, def->ml_meth};
    }
    if (!descr)
        PyErr_Clear();
    Py_XDECREF(descr);
}

static void tasks_find_getter(struct stk_task_getter *g, PyObject *type, const char *name)
{
    PyObject *descr = PyObject_GetAttrString(type, name);

    if (descr && Py_TYPE(descr) == &PyGetSetDescr_Type) {
        const PyGetSetDef *def = ((PyGetSetDescrObject *)(void *)descr)->d_getset;

        if (def->get)
            *g = (struct stk_task_getter){(PyTypeObject *)(void *)type, def->get, def->closure};
    }
    if (!descr)
        PyErr_Clear();
    Py_XDECREF(descr);
}

/* Whether an object is a context as `struct task_context` has it. */
static bool tasks_has_layout(PyObject *context)
{
    const PyTypeObject *type = Py_TYPE(context);

    return type->tp_basicsize == sizeof(struct task_context) &&
           type->tp_weaklistoffset == offsetof(struct task_context, weakrefs) &&
           task_context(context)->vars &&
           strcmp(Py_TYPE(task_context(context)->vars)->tp_name, "hamt") == 0;
}

/* Sets a variable in a copy, and sees that this shows where it should, and is undone. */
static bool tasks_try_context(struct stk_tasks *tasks, PyObject *copy, PyObject *var)
{
    PyObject *token = NULL;
    PyObject *before, *after;
    int equal = -1;

    if (!tasks_has_layout(tasks->context) || !tasks_has_layout(copy))
        return false;
    before = task_context(copy)->vars;
    if (before != task_context(tasks->context)->vars || PyContext_Enter(copy) < 0)
        return false;
    token = PyContextVar_Set(var, Py_None);
    after = task_context(copy)->vars;
    if (PyContext_Exit(copy) < 0 || !token || after == before ||
        strcmp(Py_TYPE(after)->tp_name, "hamt") != 0) {
        Py_XDECREF(token);
        return false;
    }
    Py_DECREF(token);
    tasks->restores = true;
    (void)stk_tasks_restore(tasks, copy);
    equal = PyObject_RichCompareBool(copy, tasks->context, Py_EQ);
    return equal == 1 && task_context(copy)->vars == before;
}

void stk_tasks_init(struct stk_tasks *tasks, struct stk_state *st, PyObject *task_type,
                    PyObject *future_type, PyObject *name, PyObject *context)
{
    PyObject *copy = PyContext_Copy(context);
    PyObject *var = PyContextVar_New("stoker", NULL);

    *tasks = (struct stk_tasks){.st = st, .name = name, .context = context};
    tasks_find_method(&tasks->get_name, task_type, "get_name");
    tasks_find_method(&tasks->cancelling, task_type, "cancelling");
    tasks_find_method(&tasks->future_done, future_type, "done");
    tasks_find_getter(&tasks->callbacks, task_type, "_callbacks");
    tasks_find_getter(&tasks->must_cancel, task_type, "_must_cancel");
    tasks->restores = copy && var && tasks_try_context(tasks, copy, var);
    if (PyErr_Occurred())
        PyErr_Clear();
    Py_XDECREF(copy);
    Py_XDECREF(var);
}

/* ---- questions ----------------------------------------------------------------------------- */

static inline PyObject *tasks_call(const struct stk_tasks *tasks, const struct stk_task_method *m,
                                   PyObject *obj, enum stk_state_name name)
{
    if (stk_likely(Py_TYPE(obj) == m->type))
        return m->fn(obj, NULL);
    return PyObject_CallMethodNoArgs(obj, stk_state_name(tasks->st, name));
}

static inline PyObject *tasks_get(const struct stk_tasks *tasks, const struct stk_task_getter *g,
                                  PyObject *obj, enum stk_state_name name)
{
    if (stk_likely(Py_TYPE(obj) == g->type))
        return g->fn(obj, g->closure);
    return PyObject_GetAttr(obj, stk_state_name(tasks->st, name));
}

/* The truth of a value, which may be NULL with an exception: -1 then, without it. */
static inline int tasks_truth(PyObject *value)
{
    int r;

    if (stk_unlikely(!value)) {
        PyErr_Clear();
        return -1;
    }
    r = value == Py_False ? 0 : value == Py_True ? 1 : PyObject_IsTrue(value);
    Py_DECREF(value);
    if (stk_unlikely(r < 0))
        PyErr_Clear();
    return r;
}

int stk_tasks_is_done(const struct stk_tasks *tasks, PyObject *future)
{
    return tasks_truth(tasks_call(tasks, &tasks->future_done, future, STK_NAME_s_done));
}

bool stk_tasks_is_plain(const struct stk_tasks *tasks, PyObject *task)
{
    PyObject *value = tasks_get(tasks, &tasks->callbacks, task, STK_NAME_s__callbacks);
    bool plain = value == Py_None;

    Py_XDECREF(value);
    if (plain) {
        value = tasks_call(tasks, &tasks->get_name, task, STK_NAME_s_get_name);
        plain = value == tasks->name;
        Py_XDECREF(value);
    }
    if (stk_unlikely(!plain) && PyErr_Occurred())
        PyErr_Clear();
    return plain;
}

bool stk_tasks_is_uncancelled(const struct stk_tasks *tasks, PyObject *task)
{
    return tasks_truth(tasks_get(tasks, &tasks->must_cancel, task, STK_NAME_s__must_cancel)) == 0 &&
           tasks_truth(tasks_call(tasks, &tasks->cancelling, task, STK_NAME_s_cancelling)) == 0;
}

/* ---- contexts ------------------------------------------------------------------------------ */

bool stk_tasks_is_fresh(const struct stk_tasks *tasks, PyObject *context)
{
    int equal;

    if (stk_likely(tasks->restores))
        return task_context(context)->vars == task_context(tasks->context)->vars;
    equal = PyObject_RichCompareBool(context, tasks->context, Py_EQ);
    if (equal < 0)
        PyErr_Clear();
    return equal == 1;
}

bool stk_tasks_restore(const struct stk_tasks *tasks, PyObject *context)
{
    struct task_context *c = task_context(context);

    if (!tasks->restores || c->weakrefs || c->entered)
        return false;
    Py_XSETREF(c->vars, stk_py_newref(task_context(tasks->context)->vars));
    return true;
}
