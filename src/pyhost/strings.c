/*
 * Clients ask for the same paths from the same addresses by the same methods, over and over. Each
 * slot keeps the last str whose bytes led to it; a lookup hashes only a few of the bytes (ends and
 * length) and then compares all of them, so an unlucky or hostile set of texts costs what doing
 * without the cache would. Long texts are not kept: memory stays below slots × 160 bytes or so.
 */
#include "pyhost/strings.h"

#include <stdint.h>

#include "base/mem.h"

enum { STRINGS_TEXT_MAX = 96 };

struct stk_strings {
    size_t mask;
    PyObject *slots[];
};

static inline uint64_t strings_load(const char *p, size_t n)
{
    uint64_t v = 0;

    memcpy(&v, p, n);
    return v;
}

static inline size_t strings_hash(stk_span text)
{
    uint64_t a;
    uint64_t b;

    if (text.len >= 8) {
        a = strings_load(text.ptr, 8);
        b = strings_load(text.ptr + text.len - 8, 8);
    } else if (text.len >= 4) {
        a = strings_load(text.ptr, 4);
        b = strings_load(text.ptr + text.len - 4, 4);
    } else {
        a = text.len > 0 ? (uint64_t)(unsigned char)text.ptr[0] : 0;
        b = text.len > 0 ? (uint64_t)(unsigned char)text.ptr[text.len - 1] : 0;
    }
    a = (a ^ (b << 29 | b >> 35) ^ text.len) * UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(a >> 40);
}

struct stk_strings *stk_strings_new(size_t slots)
{
    struct stk_strings *cache = stk_mem_zalloc(sizeof(*cache) + slots * sizeof(cache->slots[0]));

    cache->mask = slots - 1;
    return cache;
}

void stk_strings_free(struct stk_strings *cache)
{
    if (!cache)
        return;
    for (size_t i = 0; i <= cache->mask; i++)
        Py_XDECREF(cache->slots[i]);
    free(cache);
}

PyObject *stk_strings_get(struct stk_strings *cache, stk_span text)
{
    PyObject **slot;
    PyObject *str;

    if (stk_unlikely(text.len > STRINGS_TEXT_MAX))
        return PyUnicode_DecodeLatin1(text.ptr, (Py_ssize_t)text.len, NULL);
    slot = &cache->slots[strings_hash(text) & cache->mask];
    if (stk_likely(*slot && stk_strings_is(*slot, text)))
        return stk_py_newref(*slot);
    str = PyUnicode_DecodeLatin1(text.ptr, (Py_ssize_t)text.len, NULL);
    if (str)
        Py_XSETREF(*slot, stk_py_newref(str));
    return str;
}
