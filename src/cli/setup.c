/*
 * What changes this process before it serves: directory, file mode mask, environment, error log. In
 * that order, so that every relative path of the configuration is one of the directory that `chdir`
 * names, also when a log is opened again by its path.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"

/* Prints one line about an option that could not be carried out; the exit code. */
static int setup_fail(const struct stk_load *load, enum stk_option_id id, const char *reason)
{
    const struct stk_option *opt = &stk_options_rows()[id];
    STK_CLEANUP(stk_mem_freep)
    char *where = stk_load_origin_text(&stk_load_provenance(load, opt)->top);
    STK_CLEANUP(stk_mem_freep) char *value = stk_load_text(load, opt, 0);

    fprintf(stderr, "%s: %s = '%s': %s\n", where, opt->name, value, reason);
    return STK_CLI_EXIT_CONFIG;
}

/*
 * os.environ has copied the environment when Python started: a variable has to be set there, which
 * also sets the one of the C library.
 */
static int setup_environ(const struct stk_strv *env)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *mapping = os ? PyObject_GetAttrString(os, "environ") : NULL;
    int r = mapping ? 0 : -1;

    for (size_t i = 0; r == 0 && i < env->n; i++) {
        const char *eq = strchr(env->items[i], '=');
        PyObject *name = PyUnicode_DecodeFSDefaultAndSize(env->items[i], eq - env->items[i]);
        PyObject *value = name ? PyUnicode_DecodeFSDefault(eq + 1) : NULL;

        r = value ? PyObject_SetItem(mapping, name, value) : -1;
        Py_XDECREF(value);
        Py_XDECREF(name);
    }
    Py_XDECREF(mapping);
    Py_XDECREF(os);
    return r;
}

int stk_setup_process(struct stk_cli *cli)
{
    const struct stk_config *config = stk_load_config(cli->load);
    int r;

    if (config->chdir && chdir(config->chdir) != 0)
        return setup_fail(cli->load, STK_OPTION_ID_CHDIR, strerror(errno));
    if (config->umask) {
        bool prefix = config->umask[0] == '0' && (config->umask[1] | 0x20) == 'o';

        umask((mode_t)strtoul(config->umask + (prefix ? 2 : 0), NULL, 8));
    }
    if (setup_environ(&config->env) < 0) {
        PyErr_Print();
        return setup_fail(cli->load, STK_OPTION_ID_ENV, "cannot be set");
    }
    if (cli->args.check)
        return 0;
    stk_log_set_level((enum stk_log_level)config->log_level);
    r = stk_log_open(config->error_log);
    if (r < 0)
        return setup_fail(cli->load, STK_OPTION_ID_ERROR_LOG, strerror(-r));
    return 0;
}

void stk_setup_target(struct stk_config *config)
{
    char *target;

    if (!config->callable)
        return;
    target = stk_mem_printf("%s:%s", config->app, config->callable);
    free(config->app);
    config->app = target;
}
