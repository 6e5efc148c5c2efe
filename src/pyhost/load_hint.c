/*
 * Remedies. Each mistake that people make when they name their application gets one line: what is
 * wrong in the words of what they typed, the nearest name (difflib), and the next thing to try. All
 * of it is cold, and none of it may fail: what cannot be found out is left out.
 */
#include "pyhost/load_hint.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

/* obj.name as a malloc'ed string, or NULL. */
static char *hint_text(PyObject *obj, const char *name)
{
    PyObject *value = PyObject_GetAttrString(obj, name);
    const char *text = value && PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : NULL;
    char *copy = text ? stk_mem_strdup(text) : NULL;

    Py_XDECREF(value);
    PyErr_Clear();
    return copy;
}

/* The nearest of `names` (borrowed, may be NULL) to a word, malloc'ed, or NULL. */
static char *hint_nearest(const char *word, PyObject *names)
{
    PyObject *difflib = names ? PyImport_ImportModule("difflib") : NULL;
    PyObject *matches =
        difflib ? PyObject_CallMethod(difflib, "get_close_matches", "sOi", word, names, 1) : NULL;
    char *nearest = NULL;

    if (matches && PyList_Check(matches) && PyList_GET_SIZE(matches) > 0) {
        const char *text = PyUnicode_AsUTF8(PyList_GET_ITEM(matches, 0));

        nearest = text ? stk_mem_strdup(text) : NULL;
    }
    Py_XDECREF(matches);
    Py_XDECREF(difflib);
    PyErr_Clear();
    return nearest;
}

/* The modules and packages that lie in the current directory. */
static PyObject *hint_local_modules(const char *cwd)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *entries = os ? PyObject_CallMethod(os, "listdir", "s", cwd) : NULL;
    PyObject *names = PyList_New(0);

    for (Py_ssize_t i = 0; entries && names && i < PyList_GET_SIZE(entries); i++) {
        const char *text = PyUnicode_AsUTF8(PyList_GET_ITEM(entries, i));
        size_t len = text ? strlen(text) : 0;
        PyObject *name = NULL;

        if (len > 3 && strcmp(text + len - 3, ".py") == 0)
            name = PyUnicode_FromStringAndSize(text, (Py_ssize_t)len - 3);
        else if (len > 0 && !strchr(text, '.'))
            name = PyUnicode_FromString(text);
        if (name)
            PyList_Append(names, name);
        Py_XDECREF(name);
    }
    Py_XDECREF(entries);
    Py_XDECREF(os);
    PyErr_Clear();
    return names;
}

/* The application's own module (or a package that it is in) was not found. */
static char *hint_no_target(const char *missing)
{
    char cwd[PATH_MAX];
    PyObject *names;
    STK_CLEANUP(stk_mem_freep) char *nearest = NULL;
    char *hint;

    if (!getcwd(cwd, sizeof(cwd)))
        snprintf(cwd, sizeof(cwd), "%s",
                 errno == ENOENT ? "the current directory (it has been removed)" : ".");
    names = hint_local_modules(cwd);
    nearest = hint_nearest(missing, names);
    Py_XDECREF(names);
    if (nearest)
        hint = stk_mem_printf("there is no module '%s'; did you mean '%s'? (looked in %s and "
                              "sys.path)",
                              missing, nearest, cwd);
    else
        hint = stk_mem_printf("there is no module '%s' in %s or sys.path: check the name, or set "
                              "the directory by --chdir or --pythonpath",
                              missing, cwd);
    return hint;
}

/* What to install for a module whose distribution has another name. */
static const char *hint_distribution(const char *module)
{
    static const struct {
        const char *module, *distribution;
    } known[] = {
        {"MySQLdb", "mysqlclient"},
        {"PIL", "Pillow"},
        {"bs4", "beautifulsoup4"},
        {"cv2", "opencv-python"},
        {"dateutil", "python-dateutil"},
        {"dotenv", "python-dotenv"},
        {"jwt", "PyJWT"},
        {"psycopg2", "psycopg2-binary"},
        {"rest_framework", "djangorestframework"},
        {"sklearn", "scikit-learn"},
        {"yaml", "PyYAML"},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(known); i++) {
        if (strcmp(known[i].module, module) == 0)
            return known[i].distribution;
    }
    return module;
}

/* sys.<name>, or the other text. */
static const char *hint_sys(const char *name, const char *otherwise)
{
    PyObject *value = PySys_GetObject(name);
    const char *text = value && PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : NULL;

    PyErr_Clear();
    return text && *text ? text : otherwise;
}

/* A module that the application imports was not found. */
static char *hint_no_dependency(const char *missing)
{
    STK_CLEANUP(stk_mem_freep) char *top = stk_mem_strndup(missing, strcspn(missing, "."));

    if (strcmp(top, missing) != 0 && PyDict_GetItemString(PyImport_GetModuleDict(), top))
        return stk_mem_printf("No module named '%s': the package '%s' is installed in this "
                              "environment (%s), in a version that does not have it",
                              missing, top, hint_sys("prefix", "?"));
    return stk_mem_printf("No module named '%s': is it installed in this environment (%s)? For "
                          "example: %s -m pip install %s",
                          missing, hint_sys("prefix", "?"), hint_sys("executable", "python3"),
                          hint_distribution(top));
}

/* A module was not found because this user may not look where it is, as after --user; or NULL. */
static char *hint_forbidden(const char *missing)
{
    const char *const places[] = {".", hint_sys("prefix", "."), hint_sys("base_prefix", ".")};
    char cwd[PATH_MAX];

    for (size_t i = 0; i < STK_ARRAY_LEN(places); i++) {
        if (access(places[i], R_OK | X_OK) == 0 || errno != EACCES)
            continue;
        return stk_mem_printf("there is no module '%s' that user %u can read: %s is closed to "
                              "this user",
                              missing, (unsigned)geteuid(),
                              i == 0 && getcwd(cwd, sizeof(cwd)) ? cwd : places[i]);
    }
    return NULL;
}

/* Whether `missing` is `target` or a package that `target` lies in. */
static bool hint_is_part(const char *missing, const char *target)
{
    size_t len = strlen(missing);

    return strncmp(missing, target, len) == 0 && (target[len] == '\0' || target[len] == '.');
}

static char *hint_syntax(PyObject *exc)
{
    STK_CLEANUP(stk_mem_freep) char *file = hint_text(exc, "filename");
    PyObject *line = PyObject_GetAttrString(exc, "lineno");
    long number = line && PyLong_Check(line) ? PyLong_AsLong(line) : 0;

    Py_XDECREF(line);
    PyErr_Clear();
    return stk_mem_printf("correct the syntax at %s:%ld", file ? file : "?", number);
}

char *stk_load_hint_exception(PyObject *exc, const char *module, const char *attribute)
{
    if (PyErr_GivenExceptionMatches(exc, PyExc_ModuleNotFoundError)) {
        STK_CLEANUP(stk_mem_freep) char *missing = hint_text(exc, "name");
        char *forbidden = missing ? hint_forbidden(missing) : NULL;

        if (forbidden)
            return forbidden;
        if (missing)
            return hint_is_part(missing, module) ? hint_no_target(missing)
                                                 : hint_no_dependency(missing);
    }
    if (PyErr_GivenExceptionMatches(exc, PyExc_SyntaxError))
        return hint_syntax(exc);
    if (PyErr_GivenExceptionMatches(exc, PyExc_FileNotFoundError) && strchr(module, '/'))
        return stk_mem_printf("there is no file '%s': check the path, which counts from the "
                              "current directory or --chdir",
                              module);
    if (PyErr_GivenExceptionMatches(exc, PyExc_SystemExit))
        return stk_mem_printf("the application ended the process (sys.exit) while it was loaded; "
                              "keep what only a script does below if __name__ == '__main__'");
    if (PyErr_GivenExceptionMatches(exc, PyExc_ImportError))
        return stk_mem_printf("an import of the application failed, see above: a name that the "
                              "installed version does not have, or modules that import each other");
    if (attribute && PyErr_GivenExceptionMatches(exc, PyExc_TypeError))
        return stk_mem_printf("'%s:%s' was called and failed, see above; arguments go between the "
                              "parentheses: '%s:%s(1, name=\"x\")'",
                              module, attribute, module, attribute);
    return stk_mem_printf("the application raised %s while it was loaded, see above",
                          Py_TYPE(exc)->tp_name);
}

/* The name of a submodule that looks like the application: "mysite" has "mysite.wsgi". */
static bool hint_has_wsgi(PyObject *module, const char *name)
{
    PyObject *path = PyObject_GetAttrString(module, "__path__");
    PyObject *util = path ? PyImport_ImportModule("importlib.util") : NULL;
    STK_CLEANUP(stk_mem_freep) char *full = stk_mem_printf("%s.wsgi", name);
    PyObject *spec = util ? PyObject_CallMethod(util, "find_spec", "s", full) : NULL;
    bool found = spec && spec != Py_None;

    Py_XDECREF(spec);
    Py_XDECREF(util);
    Py_XDECREF(path);
    PyErr_Clear();
    return found;
}

char *stk_load_hint_default(PyObject *module, const char *name)
{
    if (hint_has_wsgi(module, name))
        return stk_mem_printf("the package '%s' has no application; did you mean '%s.wsgi'?", name,
                              name);
    return stk_mem_printf("the module '%s' has no application: tried the callables application and "
                          "app, and the factories create_app() and make_app(); name yours as "
                          "'%s:name'",
                          name, name);
}

char *stk_load_hint_attribute(PyObject *module, const char *name, const char *attribute)
{
    PyObject *names = PyObject_Dir(module);
    STK_CLEANUP(stk_mem_freep) char *nearest = hint_nearest(attribute, names);

    Py_XDECREF(names);
    PyErr_Clear();
    if (nearest)
        return stk_mem_printf("the module '%s' has no attribute '%s'; did you mean '%s:%s'?", name,
                              attribute, name, nearest);
    return stk_mem_printf("the module '%s' has no attribute '%s': name the application's callable "
                          "behind the ':'",
                          name, attribute);
}

/* The value of an int attribute of obj.__code__, or -1. */
static long hint_code(PyObject *obj, const char *name)
{
    PyObject *code = PyObject_GetAttrString(obj, "__code__");
    PyObject *value = code ? PyObject_GetAttrString(code, name) : NULL;
    long n = value && PyLong_Check(value) ? PyLong_AsLong(value) : -1;

    Py_XDECREF(value);
    Py_XDECREF(code);
    PyErr_Clear();
    return n;
}

char *stk_load_hint_callable(PyObject *app, const char *target)
{
    enum { VARARGS = 0x04 };
    long flags;

    if (!PyCallable_Check(app))
        return stk_mem_printf("'%s' is of type %s, which cannot be called; an "
                              "application is a callable",
                              target, Py_TYPE(app)->tp_name);
    flags = hint_code(app, "co_flags");
    if (flags >= 0 && !(flags & VARARGS) && PyFunction_Check(app) &&
        hint_code(app, "co_argcount") == 0)
        return stk_mem_printf("'%s' takes no arguments, so it seems to be a factory: write '%s()'",
                              target, target);
    return NULL;
}
