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
#include "base/owner.h"
#include "base/title.h"
#include "cli/cli.h"
#include "serve/log_fan.h"
#include "serve/static.h"

/* Prints one line about an option that could not be carried out; the exit code. */
static int setup_fail(const struct stk_load *load, enum stk_option_id id, const char *reason)
{
    const struct stk_option *opt = &stk_options_rows()[id];
    STK_CLEANUP(stk_mem_freep)
    char *where = stk_load_origin_text(&stk_load_provenance(load, opt)->top);
    STK_CLEANUP(stk_mem_freep) char *value = stk_load_text(load, opt, 0);

    STK_CLEANUP(stk_mem_freep)
    char *text = stk_mem_printf("%s: %s = '%s': %s", where, opt->name, value, reason);

    stk_log_plain(text);
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

/* Whether `env` sets a variable. */
static bool setup_has_variable(const struct stk_strv *env, const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < env->n; i++)
        if (strncmp(env->items[i], name, len) == 0 && env->items[i][len] == '=')
            return true;
    return false;
}

/*
 * What the environment says of the user, for one that the server becomes: an application that
 * looks for its files in root's home directory would not be allowed to.
 */
static int setup_user_environ(const struct stk_config *config)
{
    STK_CLEANUP(stk_owner_deinit) struct stk_owner user = {0};
    const char *names[] = {"HOME", "USER", "LOGNAME"};
    int r = 0;

    if (!config->user || geteuid() != 0 || stk_owner_find_user(config->user, &user) < 0 ||
        !user.name)
        return 0;
    for (size_t i = 0; r == 0 && i < STK_ARRAY_LEN(names); i++) {
        STK_CLEANUP(stk_mem_freep)
        char *text = stk_mem_printf("%s=%s", names[i], i == 0 ? user.home : user.name);
        struct stk_strv one = {.items = &text, .n = 1};

        if (!setup_has_variable(&config->env, names[i]))
            r = setup_environ(&one);
    }
    return r;
}

/* Takes the variables out of os.environ, which has copied them when Python started. */
static int setup_drop_variables(void)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *mapping = os ? PyObject_GetAttrString(os, "environ") : NULL;
    int r = mapping ? 0 : -1;

    for (size_t i = 0; r == 0 && stk_startup_variables[i]; i++) {
        PyObject *old =
            PyObject_CallMethod(mapping, "pop", "sO", stk_startup_variables[i], Py_None);

        r = old ? 0 : -1;
        Py_XDECREF(old);
    }
    Py_XDECREF(mapping);
    Py_XDECREF(os);
    return r;
}

int stk_setup_startup(struct stk_cli *cli)
{
    PyObject *path = PySys_GetObject("executable"); /* borrowed */
    const char *program = path && PyUnicode_Check(path) ? PyUnicode_AsUTF8(path) : NULL;
    STK_CLEANUP(stk_mem_freep) char *error = NULL;

    PyErr_Clear();
    if (stk_startup_take(program, &cli->startup, &error) < 0) {
        stk_log_plain(error);
        return STK_CLI_EXIT_CONFIG;
    }
    if (setup_drop_variables() < 0) {
        PyErr_Print();
        return STK_CLI_EXIT_CONFIG;
    }
    stk_title_init();
    return 0;
}

/* What options say of the error log's file, which is open. 0, or the exit code. */
static int setup_log_file(struct stk_cli *cli, const struct stk_config *config)
{
    int r = stk_log_chmod(stk_log_fan_mode(config));

    if (r < 0)
        return setup_fail(cli->load, STK_OPTION_ID_LOGFILE_CHMOD, strerror(-r));
    stk_log_set_date(config->log_date);
    if (config->log_truncate && cli->startup.predecessor == 0 && stk_log_is_file() &&
        ftruncate(stk_log_fd(), 0) < 0)
        return setup_fail(cli->load, STK_OPTION_ID_LOG_TRUNCATE, strerror(errno));
    return 0;
}

int stk_setup_process(struct stk_cli *cli)
{
    const struct stk_config *config = stk_load_config(cli->load);
    int r;

    if (config->chdir && chdir(config->chdir) != 0)
        return setup_fail(cli->load, STK_OPTION_ID_CHDIR, strerror(errno));
    stk_statics_settle(stk_load_config(cli->load));
    if (config->umask) {
        bool prefix = config->umask[0] == '0' && (config->umask[1] | 0x20) == 'o';

        umask((mode_t)strtoul(config->umask + (prefix ? 2 : 0), NULL, 8));
    }
    if (setup_environ(&config->env) < 0 || setup_user_environ(config) < 0) {
        PyErr_Print();
        return setup_fail(cli->load, STK_OPTION_ID_ENV, "cannot be set");
    }
    if (cli->args.check)
        return 0;
    stk_log_set_level((enum stk_log_level)config->log_level);
    r = stk_log_open(config->error_log);
    if (r < 0)
        return setup_fail(cli->load, STK_OPTION_ID_ERROR_LOG, strerror(-r));
    return setup_log_file(cli, config);
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
