/*
 * The functions that the console script gets from the engine. The module itself is made in pyhost,
 * which does not include this folder: it finds this table by its name when it is linked in.
 */
#include <string.h>

#include "cli/cli.h"
#include "config/options.h"

static int methods_add_option(PyObject *dict, const char *name, size_t len, bool value)
{
    PyObject *key = PyUnicode_FromStringAndSize(name, (Py_ssize_t)len);
    int r = key ? PyDict_SetItem(dict, key, value ? Py_True : Py_False) : -1;

    Py_XDECREF(key);
    return r;
}

/* One row, under all its names; -1 with an exception. */
static int methods_add_row(PyObject *dict, const struct stk_option *opt)
{
    bool value = stk_options_takes_value(opt);
    const char *pos = opt->aliases, *word;
    size_t len = 0;

    if (methods_add_option(dict, opt->name, strlen(opt->name), value) < 0)
        return -1;
    while ((word = stk_options_next_word(&pos, &len)))
        if (methods_add_option(dict, word, len, value) < 0)
            return -1;
    return opt->short_name ? methods_add_option(dict, &opt->short_name, 1, value) : 0;
}

PyObject *stk_options_entry(PyObject *module, PyObject *args)
{
    const struct stk_option *rows = stk_options_rows();
    PyObject *dict = PyDict_New();

    for (size_t i = 0; dict && i < STK_OPTION_COUNT; i++)
        if (methods_add_row(dict, &rows[i]) < 0)
            Py_CLEAR(dict);
    return dict;
}

PyMethodDef stk_cli_methods[] = {
    {"main", stk_main_entry, METH_VARARGS,
     "main(argv, read_settings, on_event=None, /)\n--\n\n"
     "Runs the command line and returns the exit code.\n\n"
     "read_settings(path) returns what a configuration file says, as (name, value or values, "
     "file,\n"
     "line), and raises ValueError with a message for the user. on_event(event, number, pid) is\n"
     "called in the master: 'start', 'fork' and 'gone' (a worker and its process, 0 before the\n"
     "fork), 'ready', 'reload', 'scale' (to so many workers) and 'exit'."},
    {"options", stk_options_entry, METH_NOARGS,
     "options()\n--\n\nThe options by name, alias (with -) and letter: does it need a value?"},
    {NULL, NULL, 0, NULL},
};
