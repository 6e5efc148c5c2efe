/*
 * The functions that the console script gets from the engine. The module itself is made in pyhost,
 * which does not include this folder: it finds this table by its name when it is linked in.
 */
#include "cli/cli.h"

PyMethodDef stk_cli_methods[] = {
    {"main", stk_main_entry, METH_VARARGS,
     "main(argv, read_settings, /)\n--\n\nRuns the command line and returns the exit code.\n\n"
     "read_settings(path) returns what a configuration file says, as (name, value or values, "
     "file,\n"
     "line), and raises ValueError with a message for the user."},
    {NULL, NULL, 0, NULL},
};
