/*
 * cache_get and its like, with the arguments, results and exceptions of uWSGI's.
 *
 * Nobody waits for another process with the interpreter's lock held: what is found without a lock,
 * or with one that is free, is done at once, because that takes less than giving the interpreter up
 * and taking it back would; whatever has to wait, or copies much, is done without the interpreter.
 * Arguments of the usual types are taken as they are; all others, and mistakes, go through
 * PyArg_ParseTuple, which converts or complains as it does in uWSGI.
 */
#include "pyhost/cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pyhost/host.h"
#include "services/caches.h"

enum {
    CACHE_TRIES = 16,         /* of reading without a lock */
    CACHE_LARGE = 128 * 1024, /* bytes that are copied without the interpreter */
};

/* The arguments of all the functions. */
struct cache_args {
    const char *key;
    Py_ssize_t keylen;
    const char *value;
    Py_ssize_t len;
    long number;
    long expires;
    const char *name; /* of the cache; NULL: the first */
    PyObject *held;   /* what the texts belong to, or NULL */
};

/* What a function takes, in order: "k" key, "v" value, "n" number, "e" expires, "c" cache; those
 * behind "|" may be left out. */
struct cache_kind {
    const char *takes;
    const char *format; /* the same for PyArg_ParseTuple */
};

static bool cache_text(PyObject *o, const char **ret_text, Py_ssize_t *ret_len)
{
    if (PyBytes_CheckExact(o)) {
        *ret_text = PyBytes_AS_STRING(o);
        *ret_len = PyBytes_GET_SIZE(o);
        return true;
    }
    if (!PyUnicode_CheckExact(o))
        return false;
    *ret_text = PyUnicode_AsUTF8AndSize(o, ret_len);
    return *ret_text != NULL;
}

static bool cache_long(PyObject *o, long *ret_number)
{
    if (!PyLong_CheckExact(o))
        return false;
    *ret_number = PyLong_AsLong(o);
    return *ret_number != -1 || !PyErr_Occurred();
}

/* One argument of a usual type; false, perhaps with an exception: of another. */
static bool cache_take(struct cache_args *a, char what, PyObject *o)
{
    Py_ssize_t len = 0;

    switch (what) {
    case 'k':
        return cache_text(o, &a->key, &a->keylen);
    case 'v':
        return cache_text(o, &a->value, &a->len);
    case 'n':
        return cache_long(o, &a->number);
    case 'e':
        return cache_long(o, &a->expires);
    default:
        return PyUnicode_CheckExact(o) && cache_text(o, &a->name, &len) &&
               strlen(a->name) == (size_t)len;
    }
}

/* The same with every type that converts. False with an exception. */
static bool cache_parse_slowly(struct cache_args *a, const struct cache_kind *kind,
                               PyObject *const *args, Py_ssize_t n)
{
    PyObject *tuple = PyTuple_New(n);

    if (!tuple)
        return false;
    for (Py_ssize_t i = 0; i < n; i++) {
        Py_INCREF(args[i]);
        PyTuple_SET_ITEM(tuple, i, args[i]);
    }
    a->held = tuple;
    switch (kind->takes[strcspn(kind->takes, "vn")]) {
    case 'v':
        return PyArg_ParseTuple(tuple, kind->format, &a->key, &a->keylen, &a->value, &a->len,
                                &a->expires, &a->name);
    case 'n':
        return PyArg_ParseTuple(tuple, kind->format, &a->key, &a->keylen, &a->number, &a->expires,
                                &a->name);
    default:
        if (kind->takes[0] == 'k')
            return PyArg_ParseTuple(tuple, kind->format, &a->key, &a->keylen, &a->name);
        return PyArg_ParseTuple(tuple, kind->format, &a->name);
    }
}

/* Fills in what is given. False with an exception; a->held is to be released either way. */
static bool cache_parse(struct cache_args *a, const struct cache_kind *kind, PyObject *const *args,
                        Py_ssize_t n)
{
    const char *what = kind->takes;
    Py_ssize_t i = 0;

    for (; i < n && *what != '\0'; what++) {
        if (*what == '|')
            continue;
        if (!cache_take(a, *what, args[i]))
            break;
        i++;
    }
    if (i == n && (*what == '\0' || *what == '|' || strchr(what, '|') == NULL) &&
        strcspn(kind->takes, "|") <= (size_t)n)
        return true;
    PyErr_Clear();
    return cache_parse_slowly(a, kind, args, n);
}

/*
 * The cache that a name means. *ret_cache is NULL where there is none of it, or no server. False
 * with an exception.
 */
static bool cache_find(PyObject *module, const struct cache_args *a,
                       const struct stk_cache **ret_cache)
{
    const struct stk_pyhost *host = stk_state_of(module)->host;

    if (a->name && strchr(a->name, '@')) {
        PyErr_Format(PyExc_RuntimeError,
                     "cache %s: caches of other servers cannot be reached; name one of this server",
                     a->name);
        return false;
    }
    *ret_cache = host ? stk_caches_find(host->caches, a->name) : NULL;
    return true;
}

static PyObject *cache_answer(bool yes)
{
    return stk_py_newref(yes ? Py_True : Py_None);
}

/* A value, without a lock as long as that works. NULL: *ret_r is its error, or there is an
 * exception (0). */
static PyObject *cache_read(const struct stk_cache *c, const struct cache_args *a, int *ret_r)
{
    struct stk_cache_found found;
    void *value = NULL;
    size_t len = 0;
    PyObject *bytes;

    for (unsigned i = 0; i < CACHE_TRIES; i++) {
        int r = stk_cache_find(c, a->key, (size_t)a->keylen, true, &found);

        if (r == STK_CACHE_E_BUSY)
            continue;
        *ret_r = r;
        if (r != 0)
            return NULL;
        bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)found.len);
        if (!bytes)
            return NULL;
        if (found.len < CACHE_LARGE) {
            r = stk_cache_copy(c, &found, PyBytes_AS_STRING(bytes));
        } else {
            Py_BEGIN_ALLOW_THREADS
            r = stk_cache_copy(c, &found, PyBytes_AS_STRING(bytes));
            Py_END_ALLOW_THREADS
        }
        if (r == 0)
            return bytes;
        Py_DECREF(bytes);
    }
    Py_BEGIN_ALLOW_THREADS
    *ret_r = stk_cache_get(c, a->key, (size_t)a->keylen, true, &value, &len);
    Py_END_ALLOW_THREADS
    if (*ret_r == -ENOMEM)
        PyErr_NoMemory();
    bytes = *ret_r == 0 ? PyBytes_FromStringAndSize(value, (Py_ssize_t)len) : NULL;
    free(value);
    return bytes;
}

/* cache_get and cache_num: the bytes, or NULL with or without an exception. */
static PyObject *cache_get_bytes(PyObject *module, const struct cache_kind *kind,
                                 PyObject *const *args, Py_ssize_t n)
{
    struct cache_args a = {0};
    const struct stk_cache *c = NULL;
    PyObject *bytes = NULL;
    int r = 0;

    if (cache_parse(&a, kind, args, n) && cache_find(module, &a, &c) && c)
        bytes = cache_read(c, &a, &r);
    Py_XDECREF(a.held);
    return bytes;
}

static PyObject *cache_get(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    static const struct cache_kind kind = {"k|c", "s#|s:cache_get"};
    PyObject *bytes = cache_get_bytes(module, &kind, args, n);

    return bytes || PyErr_Occurred() ? bytes : stk_py_newref(Py_None);
}

static PyObject *cache_num(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    static const struct cache_kind kind = {"k|c", "s#|s:cache_num"};
    PyObject *bytes = cache_get_bytes(module, &kind, args, n);
    int64_t number = 0;

    if (!bytes && PyErr_Occurred())
        return NULL;
    if (bytes && PyBytes_GET_SIZE(bytes) == sizeof number)
        memcpy(&number, PyBytes_AS_STRING(bytes), sizeof number);
    Py_XDECREF(bytes);
    return PyLong_FromLongLong(number);
}

static PyObject *cache_exists(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    static const struct cache_kind kind = {"k|c", "s#|s:cache_exists"};
    struct cache_args a = {0};
    const struct stk_cache *c = NULL;
    int r = STK_CACHE_E_BUSY;

    if (!cache_parse(&a, &kind, args, n) || !cache_find(module, &a, &c)) {
        Py_XDECREF(a.held);
        return NULL;
    }
    for (unsigned i = 0; c && i < CACHE_TRIES && r == STK_CACHE_E_BUSY; i++) {
        struct stk_cache_found found;

        r = stk_cache_find(c, a.key, (size_t)a.keylen, false, &found);
    }
    if (c && r == STK_CACHE_E_BUSY) {
        void *value = NULL;
        size_t len = 0;

        Py_BEGIN_ALLOW_THREADS
        r = stk_cache_get(c, a.key, (size_t)a.keylen, false, &value, &len);
        Py_END_ALLOW_THREADS
        free(value);
    }
    Py_XDECREF(a.held);
    return cache_answer(c && r == 0);
}

/* Changes something: what to do, with or without waiting. */
typedef int (*cache_change_fn)(const struct stk_cache *c, const struct cache_args *a, int how,
                               bool wait);

static PyObject *cache_change(PyObject *module, const struct cache_kind *kind,
                              PyObject *const *args, Py_ssize_t n, long number,
                              cache_change_fn change, int how)
{
    struct cache_args a = {.number = number};
    const struct stk_cache *c = NULL;
    int r = STK_CACHE_E_BUSY;

    if (!cache_parse(&a, kind, args, n) || !cache_find(module, &a, &c)) {
        Py_XDECREF(a.held);
        return NULL;
    }
    if (c && a.len < CACHE_LARGE)
        r = change(c, &a, how, false);
    if (c && r == STK_CACHE_E_BUSY) {
        Py_BEGIN_ALLOW_THREADS
        r = change(c, &a, how, true);
        Py_END_ALLOW_THREADS
    }
    if (c && r == STK_CACHE_E_FULL && stk_cache_say_full(c))
        stk_log_warning("cache %s is full: give it more items or blocks, or purge_lru=1",
                        stk_cache_name(c));
    Py_XDECREF(a.held);
    return cache_answer(c && r == 0);
}

static int cache_change_put(const struct stk_cache *c, const struct cache_args *a, int how,
                            bool wait)
{
    return stk_cache_put(c, a->key, (size_t)a->keylen, a->value, (size_t)a->len, a->expires,
                         (enum stk_cache_how)how, wait);
}

static int cache_change_number(const struct stk_cache *c, const struct cache_args *a, int how,
                               bool wait)
{
    return stk_cache_calculate(c, a->key, (size_t)a->keylen, (enum stk_cache_math)how, a->number,
                               a->expires, wait);
}

static int cache_change_del(const struct stk_cache *c, const struct cache_args *a, int how,
                            bool wait)
{
    return stk_cache_del(c, a->key, (size_t)a->keylen, wait);
}

static PyObject *cache_set(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    static const struct cache_kind kind = {"kv|ec", "s#s#|ls:cache_set"};

    return cache_change(module, &kind, args, n, 0, cache_change_put, STK_CACHE_SET);
}

static PyObject *cache_update(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    static const struct cache_kind kind = {"kv|ec", "s#s#|ls:cache_update"};

    return cache_change(module, &kind, args, n, 0, cache_change_put, STK_CACHE_UPDATE);
}

static PyObject *cache_inc(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    static const struct cache_kind kind = {"k|nec", "s#|lls:cache_inc"};

    return cache_change(module, &kind, args, n, 1, cache_change_number, STK_CACHE_ADD);
}

static PyObject *cache_dec(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    static const struct cache_kind kind = {"k|nec", "s#|lls:cache_dec"};

    return cache_change(module, &kind, args, n, 1, cache_change_number, STK_CACHE_SUB);
}

static PyObject *cache_mul(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    static const struct cache_kind kind = {"k|nec", "s#|lls:cache_mul"};

    return cache_change(module, &kind, args, n, 2, cache_change_number, STK_CACHE_MUL);
}

static PyObject *cache_div(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    static const struct cache_kind kind = {"k|nec", "s#|lls:cache_div"};

    return cache_change(module, &kind, args, n, 2, cache_change_number, STK_CACHE_DIV);
}

static PyObject *cache_del(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    static const struct cache_kind kind = {"k|c", "s#|s:cache_del"};

    return cache_change(module, &kind, args, n, 0, cache_change_del, 0);
}

static PyObject *cache_clear(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    static const struct cache_kind kind = {"|c", "|s:cache_clear"};
    struct cache_args a = {0};
    const struct stk_cache *c = NULL;

    if (!cache_parse(&a, &kind, args, n) || !cache_find(module, &a, &c)) {
        Py_XDECREF(a.held);
        return NULL;
    }
    if (c) {
        Py_BEGIN_ALLOW_THREADS
        stk_cache_clear(c);
        Py_END_ALLOW_THREADS
    }
    Py_XDECREF(a.held);
    return cache_answer(c != NULL);
}

/* A list of what stk_cache_keys gives. NULL with an exception. */
static PyObject *cache_list(const char *keys, size_t len)
{
    PyObject *list = PyList_New(0);

    for (size_t at = 0; list && at < len;) {
        uint32_t keylen;
        PyObject *key;

        memcpy(&keylen, keys + at, sizeof keylen);
        at += sizeof keylen;
        key = PyBytes_FromStringAndSize(keys + at, (Py_ssize_t)keylen);
        at += keylen;
        if (!key || PyList_Append(list, key) < 0)
            Py_CLEAR(list);
        Py_XDECREF(key);
    }
    return list;
}

static PyObject *cache_keys(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    static const struct cache_kind kind = {"|c", "|s:cache_keys"};
    struct cache_args a = {0};
    const struct stk_cache *c = NULL;
    PyObject *list = NULL;

    if (cache_parse(&a, &kind, args, n) && cache_find(module, &a, &c)) {
        char *keys = NULL;
        size_t len = 0;
        int64_t r = 0;

        if (c) {
            Py_BEGIN_ALLOW_THREADS
            r = stk_cache_keys(c, &keys, &len);
            Py_END_ALLOW_THREADS
            list = r < 0 ? PyErr_NoMemory() : cache_list(keys, len);
            free(keys);
        } else {
            PyErr_SetString(PyExc_ValueError, "no local uWSGI cache available");
        }
    }
    Py_XDECREF(a.held);
    return list;
}

PyObject *stk_pycache_functions(PyObject *module, PyObject *unused)
{
#define ROW(name, text)                                               \
    {                                                                 \
#        name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, text \
    }
    static PyMethodDef methods[] = {
        ROW(cache_get, "cache_get(key[, cache]): the value, or None."),
        ROW(cache_set, "cache_set(key, value[, expires, cache]): True, or None if it is there."),
        ROW(cache_update, "cache_update(key, value[, expires, cache]): True, or None."),
        ROW(cache_del, "cache_del(key[, cache]): True, or None if it is not there."),
        ROW(cache_exists, "cache_exists(key[, cache]): True or None."),
        ROW(cache_clear, "cache_clear([cache]): True, or None without such a cache."),
        ROW(cache_inc, "cache_inc(key[, number, expires, cache]): adds 1, or the number."),
        ROW(cache_dec, "cache_dec(key[, number, expires, cache]): takes 1 away, or the number."),
        ROW(cache_mul, "cache_mul(key[, number, expires, cache]): doubles, or multiplies."),
        ROW(cache_div, "cache_div(key[, number, expires, cache]): halves, or divides."),
        ROW(cache_num, "cache_num(key[, cache]): the number that was calculated, or 0."),
        ROW(cache_keys, "cache_keys([cache]): a list of the keys, as bytes."),
    };
#undef ROW
    PyObject *dict = PyDict_New();

    for (size_t i = 0; dict && i < STK_ARRAY_LEN(methods); i++) {
        PyObject *function = PyCFunction_New(&methods[i], module);

        if (!function || PyDict_SetItemString(dict, methods[i].ml_name, function) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(function);
    }
    return dict;
}
