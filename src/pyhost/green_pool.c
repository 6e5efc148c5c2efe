/*
 * Greenlets for requests.
 *
 * A new greenlet costs more than a short request does (since Python 3.11 it maps memory of its
 * own), so one that is done with a request waits for the next. Nothing of a request may reach that:
 * what is bound to the greenlet of a request (gevent.local, and so threading.local; the thread that
 * threading.current_thread() makes up for it) is told that it has ended, its attributes are
 * removed, and its context is a fresh one where the request has changed it. One that somebody still
 * holds, watches, or has linked something of his own to, ends with its request, as a greenlet does.
 * After eight of these in a row each request gets a greenlet of its own, because then that is
 * cheaper.
 *
 * Where stacks lie. Greenlets share the stack of the thread: when one is switched to whose place is
 * taken, what lies there is copied away. What the engine has on the stack of the hub during a call
 * is in use meanwhile (by the stand-by thread too), so the greenlets of requests begin far below
 * it; that also saves copying it.
 */
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "pyhost/green_priv.h"

enum {
    POOL_RETIRED_MAX = 8,
    POOL_DEPTH = 96 * 1024, /* below the hub's stack in a call */
    POOL_ROOM = 8 * 1024,   /* at least so much is below it */
    POOL_STEP = 4 * 1024,
    POOL_TREE_REFS = 2, /* by the greenlet, by its record */
};

static void pool_capsule_free(PyObject *capsule)
{
    struct stk_green *g = PyCapsule_GetPointer(capsule, "green");

    if (!g)
        return;
    Py_XDECREF(g->greenlet);
    Py_XDECREF(g->context);
    Py_XDECREF(g->links);
    Py_XDECREF(g->tree);
    Py_XDECREF(g->waits);
    g->all->lives--;
    free(g);
}

/* Lets an idle greenlet end; in the hub. */
static void pool_retire(struct stk_green *g)
{
    PyObject *r;

    g->quit = true;
    r = stk_green_switch(g->all, g->greenlet);
    if (!r)
        PyErr_Clear();
    Py_XDECREF(r);
}

static PyObject *pool_on_retire(PyObject *capsule, PyObject *unused)
{
    struct stk_green *g = PyCapsule_GetPointer(capsule, "green");

    if (!g)
        return NULL;
    if (g->idle)
        pool_retire(g);
    Py_RETURN_NONE;
}

/* Somebody waits for the end of a greenlet: it comes, although the greenlet is between requests. */
static PyObject *pool_on_linked(PyObject *capsule, PyObject *unused)
{
    static PyMethodDef methods[] = {{"retire", pool_on_retire, METH_NOARGS, NULL}};
    struct stk_green *g = PyCapsule_GetPointer(capsule, "green");

    if (!g || (g->idle && stk_green_schedule(g, methods) < 0))
        return NULL;
    Py_RETURN_NONE;
}

/* Starts a greenlet whose stack begins at `to` or below. */
static STK_COLD PyObject *pool_descend(struct stk_green *g, const char *to)
{
    volatile char room[POOL_STEP];
    PyObject *r;

    room[0] = 0;
    if ((uintptr_t)room > (uintptr_t)to)
        r = pool_descend(g, to);
    else
        r = stk_green_switch(g->all, g->greenlet);
    room[1] = 0; /* or the room would be given up before the call */
    return r;
}

/* Has it wait for its first request. 0 or -1 with an exception. */
static int pool_start(struct stk_green *g)
{
    struct stk_greens *a = g->all;
    const char *here = __builtin_frame_address(0);
    PyObject *capsule = stk_py_newref(g->capsule);
    PyObject *r;
    bool lives;

    if (!a->floor || here - a->floor < POOL_ROOM)
        a->floor = here - POOL_DEPTH;
    r = pool_descend(g, a->floor);
    Py_XDECREF(r);
    lives = g->started && g->greenlet;
    if (lives)
        PyErr_Clear();
    else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_RuntimeError, "a greenlet cannot be started");
    if (!lives && g->started)
        Py_INCREF(capsule); /* it has given up its own reference, which the caller takes */
    Py_DECREF(capsule);
    return lives ? 0 : -1;
}

static struct stk_green *pool_new(struct stk_greens *a)
{
    static PyMethodDef methods[] = {{"request", stk_green_main, METH_NOARGS, NULL},
                                    {"linked", pool_on_linked, METH_NOARGS, NULL}};
    struct stk_green *g = stk_new0(struct stk_green);
    PyObject *function;
    PyObject *note;

    g->all = a;
    g->capsule = PyCapsule_New(g, "green", pool_capsule_free);
    if (!g->capsule) {
        free(g);
        return NULL;
    }
    a->lives++;
    function = PyCFunction_New(&methods[0], g->capsule);
    g->links = PyList_New(0);
    g->tree = PyDict_New();
    g->context = PyContext_Copy(a->context);
    note = PyCFunction_New(&methods[1], g->capsule);
    if (function && note && g->links && g->tree && g->context)
        g->greenlet =
            PyObject_CallFunctionObjArgs(a->greenlet_type, function, g->links, g->tree, note, NULL);
    Py_XDECREF(note);
    Py_XDECREF(function);
    if (!g->greenlet || pool_start(g) < 0) {
        Py_DECREF(g->capsule);
        return NULL;
    }
    if (a->refs == 0)
        a->refs = Py_REFCNT(g->greenlet);
    return g;
}

static unsigned pool_count_weakrefs(PyObject *greenlet)
{
    unsigned n = 0;

    for (PyWeakReference *ref = stk_py_weakrefs(greenlet); ref; ref = ref->wr_next)
        n++;
    return n;
}

static void pool_note_retired(struct stk_greens *a)
{
    if (!a->pooled || ++a->retired < POOL_RETIRED_MAX)
        return;
    a->pooled = false;
    stk_log_debug("the application keeps the greenlets of its requests, or leaves something on "
                  "them: each request gets one of its own from now on");
}

static struct stk_green *pool_pop(struct stk_greens *a)
{
    struct stk_green *g = a->idle;

    if (g) {
        a->idle = g->next;
        a->nidle--;
        g->next = NULL;
        g->idle = false;
    }
    return g;
}

void stk_green_check(struct stk_green *g)
{
    if (stk_unlikely(g->idle && Py_REFCNT(g->greenlet) != g->all->refs)) {
        pool_retire(g);
        pool_note_retired(g->all);
    }
}

struct stk_green *stk_green_take(struct stk_greens *a)
{
    const char *here = __builtin_frame_address(0);
    struct stk_green *g;

    while ((g = pool_pop(a)) != NULL) {
        bool clean = Py_REFCNT(g->greenlet) == a->refs && pool_count_weakrefs(g->greenlet) == 0;

        if (stk_likely(clean && a->pooled && g->base < here)) {
            a->retired = 0;
            return g;
        }
        pool_retire(g);
        if (!clean)
            pool_note_retired(a);
    }
    return pool_new(a);
}

void stk_green_drain(struct stk_greens *a)
{
    struct stk_green *g;

    while ((g = pool_pop(a)) != NULL)
        pool_retire(g);
}

/* ---- in the greenlet ----------------------------------------------------------------------- */

/* Waits in the hub until there is a request. */
static bool pool_wait(struct stk_green *g)
{
    struct stk_greens *a = g->all;

    while (!g->busy && !g->quit) {
        PyObject *r = stk_green_switch(a, a->hub);

        if (!r) { /* killed */
            PyErr_Clear();
            g->quit = true;
        }
        Py_XDECREF(r);
    }
    if (g->idle)
        for (struct stk_green **at = &a->idle; *at; at = &(*at)->next)
            if (*at == g) {
                *at = g->next;
                a->nidle--;
                break;
            }
    g->idle = false;
    return g->busy;
}

static int pool_enter_context(struct stk_green *g)
{
    if (PyContext_Enter(g->context) < 0)
        return -1;
    g->context_refs = Py_REFCNT(g->context);
    return 0;
}

/* The next request begins in a context that knows nothing of this one. */
static int pool_renew_context(struct stk_green *g)
{
    int same = PyObject_RichCompareBool(g->context, g->all->context, Py_EQ);
    PyObject *fresh;

    if (same < 0)
        return -1;
    if (stk_likely(same && Py_REFCNT(g->context) == g->context_refs))
        return 0;
    fresh = PyContext_Copy(g->all->context);
    if (!fresh || PyContext_Exit(g->context) < 0) {
        Py_XDECREF(fresh);
        return -1;
    }
    Py_SETREF(g->context, fresh);
    return pool_enter_context(g);
}

/* What is shared by the greenlets that those of a request have spawned (gevent's spawn trees). */
static int pool_renew_tree(struct stk_green *g)
{
    PyObject *fresh;
    int r;

    if (stk_likely(PyDict_GET_SIZE(g->tree) == 0 && Py_REFCNT(g->tree) == POOL_TREE_REFS))
        return 0;
    fresh = PyDict_New();
    r = fresh ? PyObject_SetAttrString(g->greenlet, "spawn_tree_locals", fresh) : -1;
    if (r == 0)
        Py_SETREF(g->tree, stk_py_newref(fresh));
    Py_XDECREF(fresh);
    return r;
}

/* Whether nothing of the last request sticks to the greenlet, as far as is seen from within. */
static bool pool_clean(struct stk_green *g)
{
    PyObject **dict;
    bool clean = true;

    if (stk_unlikely(PyList_GET_SIZE(g->links) > 0)) {
        PyObject *r = PyObject_CallMethod(g->all->helpers, "settle", "O", g->greenlet);

        clean = r == Py_True;
        Py_XDECREF(r);
    }
    dict = _PyObject_GetDictPtr(g->greenlet);
    if (dict && *dict && PyDict_GET_SIZE(*dict) > 0)
        PyDict_Clear(*dict);
    if (clean && (pool_renew_context(g) < 0 || pool_renew_tree(g) < 0))
        clean = false;
    if (stk_unlikely(PyErr_Occurred() != NULL)) {
        PyErr_Clear();
        clean = false;
    }
    return clean;
}

bool stk_green_begin(struct stk_green *g)
{
    g->base = __builtin_frame_address(0);
    g->started = true;
    if (pool_enter_context(g) < 0)
        return false;
    return pool_wait(g);
}

bool stk_green_rest(struct stk_green *g)
{
    struct stk_greens *a = g->all;

    g->busy = false;
    /* One that was killed is waited for. */
    if (g->call.failed || !a->pooled || !a->engine || a->nidle >= a->idle_max)
        return false;
    if (stk_unlikely(!pool_clean(g))) {
        pool_note_retired(a);
        return false;
    }
    g->next = a->idle;
    a->idle = g;
    a->nidle++;
    g->idle = true;
    return pool_wait(g);
}

void stk_green_end(struct stk_green *g)
{
    if (g->context && PyContext_Exit(g->context) < 0)
        PyErr_Clear(); /* the application has left another one behind */
    Py_CLEAR(g->greenlet);
    Py_DECREF(g->capsule);
}
