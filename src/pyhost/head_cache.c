/*
 * Applications state the same head over and over, often by constants: the compiler of Python makes
 * one object of ("Content-Type", "text/plain") for good. Where status and pairs are the very
 * objects of an earlier call, the server gets back the bytes it has made and checked then.
 *
 * Objects are told apart by address, which is sound because an entry holds them, and because only
 * exact tuples of exact strs (or bytes) are taken: these never change. Entries are few and small.
 * Applications that build their pairs anew never hit; after some misses they hardly pay for trying.
 */
#include "pyhost/head_cache.h"

#include <string.h>

#include "base/mem.h"

enum {
    HEAD_CACHE_SLOTS = 16,  /* a power of two */
    HEAD_CACHE_MISSES = 16, /* after so many misses in a row only every 16th is put */
};

struct stk_head_cache {
    struct stk_head_entry entries[HEAD_CACHE_SLOTS];
};

struct stk_head_cache *stk_head_cache_new(void)
{
    return stk_new0(struct stk_head_cache);
}

static void head_entry_clear(struct stk_head_entry *e)
{
    for (unsigned i = 0; i < e->npairs; i++)
        Py_CLEAR(e->pairs[i]);
    e->npairs = 0;
    Py_CLEAR(e->status);
}

void stk_head_cache_free(struct stk_head_cache *cache)
{
    if (!cache)
        return;
    for (unsigned i = 0; i < HEAD_CACHE_SLOTS; i++)
        head_entry_clear(&cache->entries[i]);
    free(cache);
}

static inline bool head_entry_is(const struct stk_head_entry *e, PyObject *status,
                                 PyObject *headers)
{
    if (e->status != status || e->npairs != PyList_GET_SIZE(headers))
        return false;
    for (unsigned i = 0; i < e->npairs; i++) {
        if (e->pairs[i] != PyList_GET_ITEM(headers, i))
            return false;
    }
    return true;
}

struct stk_head_entry *stk_head_cache_find(struct stk_head_cache *cache, PyObject *status,
                                           PyObject *headers, bool *ret_found)
{
    struct stk_head_entry *e;
    uintptr_t hash;
    Py_ssize_t n = PyList_GET_SIZE(headers);

    *ret_found = false;
    if (n == 0 || n > STK_HEAD_CACHE_PAIRS)
        return NULL;
    hash = (uintptr_t)status ^ (uintptr_t)PyList_GET_ITEM(headers, n - 1);
    e = &cache->entries[(hash >> 4 ^ hash >> 8 ^ hash >> 12) % HEAD_CACHE_SLOTS];
    if (stk_likely(head_entry_is(e, status, headers))) {
        e->misses = 0;
        *ret_found = true;
    }
    return e;
}

static inline bool head_is_text(PyObject *obj)
{
    return PyUnicode_CheckExact(obj) || PyBytes_CheckExact(obj);
}

/* Whether the objects can never change: WSGI's are str, ASGI's int and bytes. */
static bool head_is_constant(PyObject *status, PyObject *headers)
{
    if (!PyUnicode_CheckExact(status) && !PyLong_CheckExact(status))
        return false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
        PyObject *pair = PyList_GET_ITEM(headers, i);

        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2 ||
            !head_is_text(PyTuple_GET_ITEM(pair, 0)) || !head_is_text(PyTuple_GET_ITEM(pair, 1)))
            return false;
    }
    return true;
}

void stk_head_cache_put(struct stk_head_entry *entry, const struct stk_call *call, PyObject *status,
                        PyObject *headers)
{
    Py_ssize_t n = PyList_GET_SIZE(headers);

    entry->misses++;
    if (entry->misses > HEAD_CACHE_MISSES && entry->misses % HEAD_CACHE_MISSES != 0)
        return;
    if (n > STK_HEAD_CACHE_PAIRS || !head_is_constant(status, headers))
        return;
    head_entry_clear(entry);
    if (!call->req->ops->head_save(call->req, &entry->head))
        return;
    entry->status = stk_py_newref(status);
    for (Py_ssize_t i = 0; i < n; i++)
        entry->pairs[i] = stk_py_newref(PyList_GET_ITEM(headers, i));
    entry->npairs = (uint16_t)n;
    entry->length = call->length;
}
