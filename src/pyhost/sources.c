/*
 * Which files to watch: those of the modules that are loaded, without the interpreter's library and
 * without installed packages (they change by a deployment, not by an editor), and those that the
 * failed import of the application went through.
 */
#include "pyhost/sources.h"

#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

struct sources_list {
    char **paths;
    size_t n;
    size_t room;
    PyObject *seen;    /* set of str */
    char *prefixes[3]; /* "/usr/lib/python3", where installed things are */
};

void stk_sources_note(struct stk_pyhost *host, const char *path)
{
    PyObject *text = PyUnicode_DecodeFSDefault(path);

    if (text && host->watch)
        PyList_Append(host->watch, text);
    Py_XDECREF(text);
    PyErr_Clear();
}

/* Appends obj.a.b ... if it is a str. */
static void sources_note_attr(struct stk_pyhost *host, PyObject *obj, const char *const *names)
{
    PyObject *value = stk_py_newref(obj);

    for (; value && *names; names++)
        Py_SETREF(value, PyObject_GetAttrString(value, *names));
    if (value && PyUnicode_Check(value) && host->watch)
        PyList_Append(host->watch, value);
    Py_XDECREF(value);
    PyErr_Clear();
}

void stk_sources_note_exception(struct stk_pyhost *host, PyObject *exc)
{
    static const char *const syntax[] = {"filename", NULL};
    static const char *const frame[] = {"tb_frame", "f_code", "co_filename", NULL};
    PyObject *tb = PyException_GetTraceback(exc);

    if (PyErr_GivenExceptionMatches(exc, PyExc_SyntaxError))
        sources_note_attr(host, exc, syntax);
    while (tb && tb != Py_None) {
        sources_note_attr(host, tb, frame);
        Py_SETREF(tb, PyObject_GetAttrString(tb, "tb_next"));
    }
    Py_XDECREF(tb);
    PyErr_Clear();
}

/* sys.<name> + "/lib", or NULL. */
static char *sources_prefix(const char *name)
{
    PyObject *value = PySys_GetObject(name);
    const char *text = value && PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : NULL;

    if (!text)
        PyErr_Clear();
    return text ? stk_mem_printf("%s/lib", text) : NULL;
}

static bool sources_is_installed(const struct sources_list *list, const char *path)
{
    if (strstr(path, "/site-packages/") || strstr(path, "/dist-packages/"))
        return true;
    for (size_t i = 0; i < STK_ARRAY_LEN(list->prefixes); i++) {
        const char *prefix = list->prefixes[i];
        size_t len = prefix ? strlen(prefix) : 0;

        if (len > 0 && strncmp(path, prefix, len) == 0 && strncmp(path + len, "/python", 7) == 0)
            return true;
    }
    return false;
}

static void sources_add(struct sources_list *list, PyObject *file)
{
    PyObject *bytes;
    const char *path;

    if (!PyUnicode_Check(file) || PySet_Contains(list->seen, file) != 0 ||
        PySet_Add(list->seen, file) < 0)
        return;
    bytes = PyUnicode_EncodeFSDefault(file);
    if (!bytes)
        return;
    path = PyBytes_AS_STRING(bytes);
    /* "<frozen importlib._bootstrap>" and the like are no files. */
    if (path[0] != '<' && path[0] != '\0' && !sources_is_installed(list, path)) {
        if (list->n + 1 >= list->room) {
            size_t room = list->room ? list->room * 2 : 64;
            char **paths = stk_try_realloc(list->paths, room * sizeof(*paths));

            if (!paths) {
                Py_DECREF(bytes);
                return;
            }
            list->paths = paths;
            list->room = room;
        }
        list->paths[list->n++] = stk_mem_strdup(path);
    }
    Py_DECREF(bytes);
}

static void sources_add_modules(struct sources_list *list)
{
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *values = modules ? PyDict_Values(modules) : NULL;

    for (Py_ssize_t i = 0; values && i < PyList_GET_SIZE(values); i++) {
        PyObject *module = PyList_GET_ITEM(values, i);
        PyObject *file;

        /* Only real modules: asking a lazy object for an attribute may import half the world. */
        if (!PyModule_Check(module))
            continue;
        file = PyDict_GetItemString(PyModule_GetDict(module), "__file__");
        if (file)
            sources_add(list, file);
        PyErr_Clear();
    }
    Py_XDECREF(values);
}

char **stk_sources_list(void *host)
{
    struct stk_pyhost *h = host;
    struct sources_list list = {
        .prefixes = {sources_prefix("prefix"), sources_prefix("base_prefix"),
                     sources_prefix("exec_prefix")},
    };

    STK_CHECK_MAGIC(h, STK_PYHOST_MAGIC);
    list.seen = PySet_New(NULL);
    if (list.seen) {
        for (Py_ssize_t i = 0; h->watch && i < PyList_GET_SIZE(h->watch); i++)
            sources_add(&list, PyList_GET_ITEM(h->watch, i));
        sources_add_modules(&list);
    }
    PyErr_Clear();
    Py_XDECREF(list.seen);
    for (size_t i = 0; i < STK_ARRAY_LEN(list.prefixes); i++)
        free(list.prefixes[i]);
    if (!list.paths)
        return stk_new0_array(char *, 1);
    list.paths[list.n] = NULL;
    return list.paths;
}
