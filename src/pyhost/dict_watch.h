/*
 * Whether a dict has been changed since: a number that every change makes another. Python up to
 * 3.12 keeps one in each dict (PEP 509); since 3.13 watchers tell (PyDict_AddWatcher).
 */
#pragma once

#include "pyhost/compat.h"

#if PY_VERSION_HEX < 0x030D0000

static inline bool stk_dict_watch(PyObject *dict)
{
    return true;
}

static inline uint64_t stk_dict_version(PyObject *dict)
{
#    pragma GCC diagnostic push
#    pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    return ((PyDictObject *)dict)->ma_version_tag;
#    pragma GCC diagnostic pop
}

#else

/* Begins to count changes of a dict, until it is freed; false: they cannot be counted. GIL held. */
bool stk_dict_watch(PyObject *dict);
/*
 * The number of a watched dict; another one after each change. UINT64_MAX, once for all, when
 * another dict has taken its place in the table.
 */
uint64_t stk_dict_version(PyObject *dict);

#endif
