/* The command line. */
#pragma once

#include <stdbool.h>

#include "base/macros.h"
#include "config/load.h"

/* What the command line asks for beside values of options. */
struct stk_args {
    bool help;
    bool help_all;
    bool version;
    bool check;
    char *config; /* --config or STOKER_CONFIG, or NULL */
};

/*
 * Reads the arguments behind the program's name. Values and mistakes go to `load`; `ret_args` is
 * filled in any case, to be released with stk_args_deinit.
 *
 * --name value, --name=value, --name and --no-name of a flag, -n value, -nvalue, -n=value, several
 * short flags in one; one argument without a dash is the application; behind "--" nothing is an
 * option.
 */
void stk_args_parse(struct stk_load *load, int argc, const char *const *argv,
                    struct stk_args *ret_args);
/* Takes STOKER_CONFIG, unless the command line named a file. */
void stk_args_environ(struct stk_args *args, const char *const *environment);
void stk_args_deinit(struct stk_args *args);
