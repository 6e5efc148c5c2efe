/*
 * Watched dicts, in a table by address. Two that share a place push each other out, after which the
 * loser counts as changed: for the environs of a few shapes of requests that is rare and harmless.
 */
#include "pyhost/dict_watch.h"

#include "base/macros.h"

#if PY_VERSION_HEX >= 0x030D0000

enum { DICT_WATCH_PLACES = 256 };

struct dict_watch_place {
    PyObject *dict; /* borrowed: its end is an event */
    uint64_t version;
};

#    ifndef Py_GIL_DISABLED

/* A watcher gets no argument of ours, and there is one in the interpreter. */
static struct dict_watch_place dict_watch_places[DICT_WATCH_PLACES];
static uint64_t dict_watch_last;
static int dict_watch_id = -1;

static inline struct dict_watch_place *dict_watch_place(PyObject *dict)
{
    return &dict_watch_places[((uintptr_t)dict >> 4) % DICT_WATCH_PLACES];
}

static int dict_watch_on_event(PyDict_WatchEvent event, PyObject *dict, PyObject *key,
                               PyObject *value)
{
    struct dict_watch_place *place = dict_watch_place(dict);

    if (place->dict != dict)
        return 0;
    place->version = ++dict_watch_last;
    if (event == PyDict_EVENT_DEALLOCATED)
        place->dict = NULL;
    return 0;
}

bool stk_dict_watch(PyObject *dict)
{
    struct dict_watch_place *place = dict_watch_place(dict);

    if (dict_watch_id < 0)
        dict_watch_id = PyDict_AddWatcher(dict_watch_on_event);
    if (dict_watch_id < 0 || PyDict_Watch(dict_watch_id, dict) < 0) {
        PyErr_Clear(); /* all places for watchers are taken */
        return false;
    }
    *place = (struct dict_watch_place){.dict = dict, .version = ++dict_watch_last};
    return true;
}

uint64_t stk_dict_version(PyObject *dict)
{
    const struct dict_watch_place *place = dict_watch_place(dict);

    return stk_likely(place->dict == dict) ? place->version : UINT64_MAX;
}

#    else

bool stk_dict_watch(PyObject *dict)
{
    return false;
}

uint64_t stk_dict_version(PyObject *dict)
{
    return 0;
}

#    endif
#endif
