/*
 * The differences between the CPython versions that stoker supports (3.9 to 3.14): the only place
 * that asks for PY_VERSION_HEX, and the only way by which this folder includes Python.h.
 */
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stddef.h>

#if PY_VERSION_HEX < 0x03090000
#    error "stoker needs CPython 3.9 or newer"
#endif

/* Member definitions moved into Python.h, with a prefix, in 3.12. */
#if PY_VERSION_HEX < 0x030C0000
#    include <structmember.h>
#    define STK_PY_SSIZE_MEMBER  T_PYSSIZET
#    define STK_PY_OBJECT_MEMBER T_OBJECT
#    define STK_PY_READONLY      READONLY
#else
#    define STK_PY_SSIZE_MEMBER  Py_T_PYSSIZET
#    define STK_PY_OBJECT_MEMBER _Py_T_OBJECT
#    define STK_PY_READONLY      Py_READONLY
#endif

/* What the module says of sub-interpreters (3.12) and of running without the GIL (3.13). */
#if PY_VERSION_HEX >= 0x030D0000
#    define STK_PY_MODULE_SLOTS                                                     \
        {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED}, \
        {                                                                           \
            Py_mod_gil, Py_MOD_GIL_USED                                             \
        }
#elif PY_VERSION_HEX >= 0x030C0000
#    define STK_PY_MODULE_SLOTS                                                      \
        {                                                                            \
            Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED \
        }
#else
#    define STK_PY_MODULE_SLOTS \
        {                       \
            0, NULL             \
        }
#endif

/* Types that cannot be called from Python (3.10). */
#if PY_VERSION_HEX >= 0x030A0000
#    define STK_PY_TYPE_NO_NEW Py_TPFLAGS_DISALLOW_INSTANTIATION
#else
#    define STK_PY_TYPE_NO_NEW 0UL
#endif

#if PY_VERSION_HEX < 0x030A0000
static inline PyObject *stk_py_newref(PyObject *obj)
{
    Py_INCREF(obj);
    return obj;
}
#else
#    define stk_py_newref(obj) Py_NewRef(obj)
#endif

/* obj.name: 1 and *ret_value, 0 when there is no such attribute, -1 with an exception. */
static inline int stk_py_lookup_attr(PyObject *obj, PyObject *name, PyObject **ret_value)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyObject_GetOptionalAttr(obj, name, ret_value);
#else
    return _PyObject_LookupAttr(obj, name, ret_value);
#endif
}

/* Takes the pending exception as one normalized object with its traceback; NULL: there is none. */
static inline PyObject *stk_py_take_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type;
    PyObject *value;
    PyObject *tb;

    PyErr_Fetch(&type, &value, &tb);
    if (!type)
        return NULL;
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb && value)
        PyException_SetTraceback(value, tb);
    Py_XDECREF(type);
    Py_XDECREF(tb);
    return value;
#endif
}

/* Raises an exception object again; the reference is taken. */
static inline void stk_py_raise_taken(PyObject *exc)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exc);
#else
    PyErr_Restore(stk_py_newref((PyObject *)Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
#endif
}

/*
 * Whether a str is stored as one byte a character, that is, can be sent as latin-1; *ret_data and
 * *ret_len are its bytes. Before 3.12 a str may have to be made ready first.
 */
static inline bool stk_py_latin1(PyObject *str, const char **ret_data, size_t *ret_len)
{
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_READY(str) < 0) {
        PyErr_Clear();
        return false;
    }
#endif
    if (PyUnicode_KIND(str) != PyUnicode_1BYTE_KIND)
        return false;
    *ret_data = (const char *)PyUnicode_1BYTE_DATA(str);
    *ret_len = (size_t)PyUnicode_GET_LENGTH(str);
    return true;
}

/* Raises the subclass of OSError that belongs to a (positive) errno. */
static inline void stk_py_raise_errno(int number, const char *text)
{
    PyObject *exc = PyObject_CallFunction(PyExc_OSError, "is", number, text);

    if (exc) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
}

/*
 * One step of a coroutine (or of what has am_send): PYGEN_NEXT with what it yields, PYGEN_RETURN
 * with its result, PYGEN_ERROR with an exception. Since 3.10 the interpreter has it.
 */
#if PY_VERSION_HEX >= 0x030A0000
#    define stk_py_send(coro, arg, ret_value) PyIter_Send(coro, arg, ret_value)
/* The same of an object that has am_send, as coroutines have. */
#    define stk_py_send_coro(coro, arg, ret_value) \
        (Py_TYPE(coro)->tp_as_async->am_send(coro, arg, ret_value))
#    define STK_PY_AM_SEND(fn) {Py_am_send, fn},
#else
#    define STK_PY_AM_SEND(fn)
#    define stk_py_send_coro(coro, arg, ret_value) stk_py_send(coro, arg, ret_value)
typedef enum { PYGEN_RETURN = 0, PYGEN_ERROR = -1, PYGEN_NEXT = 1 } PySendResult;

static inline PySendResult stk_py_send(PyObject *coro, PyObject *arg, PyObject **ret_value)
{
    PyObject *value = NULL;

    if (PyGen_CheckExact(coro) || PyCoro_CheckExact(coro))
        value = _PyGen_Send((PyGenObject *)coro, arg);
    else if (arg == Py_None && Py_TYPE(coro)->tp_iternext)
        value = Py_TYPE(coro)->tp_iternext(coro);
    else
        value = PyObject_CallMethod(coro, "send", "O", arg);
    if (value) {
        *ret_value = value;
        return PYGEN_NEXT;
    }
    if (_PyGen_FetchStopIterationValue(ret_value) == 0)
        return PYGEN_RETURN;
    return PYGEN_ERROR;
}
#endif

/* What asyncio.Task takes: `context` since 3.11, `eager_start` since 3.12. */
#define STK_PY_TASK_CONTEXT (PY_VERSION_HEX >= 0x030B0000)
#define STK_PY_TASK_EAGER   (PY_VERSION_HEX >= 0x030C0000)

/* The first of an object's weak references, or NULL. */
static inline PyWeakReference *stk_py_weakrefs(PyObject *obj)
{
    Py_ssize_t offset = Py_TYPE(obj)->tp_weaklistoffset;

    return offset ? *(PyWeakReference **)(void *)((char *)obj + offset) : NULL;
}

/* Whether an object has attributes of its own, beyond those of its type. */
static inline bool stk_py_has_attributes(PyObject *obj)
{
    PyObject **dict = _PyObject_GetDictPtr(obj);

    return dict && *dict && PyDict_GET_SIZE(*dict) > 0;
}
