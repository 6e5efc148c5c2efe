/*
 * The command: from arguments to one of --help, --version, --check and serving.
 *
 * The order is: command line (which names the file), files (read by Python, which has a reader of
 * TOML), environment, checks. Precedence does not depend on it (config/load.c). All mistakes of all
 * sources are printed in one go, and only when there is none does anything begin that others could
 * notice.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "config/cpus.h"
#include "config/help.h"

/* A list of C strings taken out of Python; NULL-terminated. */
struct main_strings {
    char **items;
    Py_ssize_t n;
};

static void main_strings_deinit(struct main_strings *strings)
{
    for (Py_ssize_t i = 0; i < strings->n; i++)
        free(strings->items[i]);
    free(strings->items);
    *strings = (struct main_strings){0};
}

/* The bytes that the operating system gave or will get for a str; NULL with an exception. */
static char *main_string(PyObject *obj)
{
    PyObject *bytes = NULL;
    char *copy;

    if (!PyUnicode_FSConverter(obj, &bytes))
        return NULL;
    copy = stk_mem_strdup(PyBytes_AS_STRING(bytes));
    Py_DECREF(bytes);
    return copy;
}

static int main_strings_take(PyObject *sequence, struct main_strings *ret_strings)
{
    struct main_strings strings = {0};
    PyObject *fast = PySequence_Fast(sequence, "expected a sequence of str");

    if (!fast)
        return -1;
    strings.items = stk_new0_array(char *, (size_t)PySequence_Fast_GET_SIZE(fast) + 1);
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast); i++) {
        strings.items[i] = main_string(PySequence_Fast_GET_ITEM(fast, i));
        if (!strings.items[i]) {
            Py_DECREF(fast);
            main_strings_deinit(&strings);
            return -1;
        }
        strings.n++;
    }
    Py_DECREF(fast);
    *ret_strings = strings;
    return 0;
}

/* One (name, value or values, file, line); -1 with an exception. */
static int main_setting(struct stk_load *load, PyObject *setting)
{
    STK_CLEANUP(main_strings_deinit) struct main_strings values = {0};
    STK_CLEANUP(stk_mem_freep) char *value = NULL;
    struct stk_origin origin = {.kind = STK_ORIGIN_FILE};
    const char *name;
    PyObject *content;

    if (!PyArg_ParseTuple(setting, "sOsI;a setting is (name, value, file, line)", &name, &content,
                          &origin.name, &origin.line))
        return -1;
    if (PyUnicode_Check(content)) {
        value = main_string(content);
        if (!value)
            return -1;
        stk_load_set(load, name, value, &origin);
        return 0;
    }
    if (main_strings_take(content, &values) < 0)
        return -1;
    stk_load_set_list(load, name, (const char *const *)values.items, (size_t)values.n, &origin);
    return 0;
}

/* Prints the message of a ValueError, which is meant for the user; -1 for any other exception. */
static int main_file_error(void)
{
    PyObject *exc, *text;
    const char *message;

    if (!PyErr_ExceptionMatches(PyExc_ValueError))
        return -1;
    exc = stk_py_take_exception();
    text = exc ? PyObject_Str(exc) : NULL;
    message = text ? PyUnicode_AsUTF8(text) : NULL;
    if (message)
        stk_log_plain(message);
    Py_XDECREF(text);
    Py_XDECREF(exc);
    return message ? STK_CLI_EXIT_CONFIG : -1;
}

/* What the file says; 0, an exit code (the reason printed), or -1 with an exception. */
static int main_read_file(struct stk_cli *cli, PyObject *read_settings)
{
    PyObject *path =
        cli->args.config ? PyUnicode_DecodeFSDefault(cli->args.config) : stk_py_newref(Py_None);
    PyObject *settings = path ? PyObject_CallFunctionObjArgs(read_settings, path, NULL) : NULL;
    PyObject *fast = NULL;
    int r = 0;

    Py_XDECREF(path);
    if (!settings)
        return main_file_error();
    fast = PySequence_Fast(settings, "read_settings must return a sequence");
    Py_DECREF(settings);
    if (!fast)
        return -1;
    for (Py_ssize_t i = 0; r == 0 && i < PySequence_Fast_GET_SIZE(fast); i++)
        r = main_setting(cli->load, PySequence_Fast_GET_ITEM(fast, i));
    Py_DECREF(fast);
    return r;
}

static int main_help(bool all)
{
    STK_CLEANUP(stk_mem_freep) char *text = stk_help_text(all);

    fputs(text, stdout);
    fflush(stdout); /* whether the reader took it is the reader's business */
    return STK_CLI_EXIT_OK;
}

static int main_version(void)
{
    STK_CLEANUP(stk_mem_freep) char *python = stk_banner_python();
    struct utsname name;

    printf("stoker %s\n%s\n", STK_VERSION, python);
    if (uname(&name) == 0)
        printf("%s %s %s\n", name.sysname, name.release, name.machine);
    fflush(stdout);
    return STK_CLI_EXIT_OK;
}

static int main_errors(const struct stk_load *load)
{
    const struct stk_strv *errors = stk_load_errors(load);

    for (size_t i = 0; i < errors->n; i++)
        stk_log_plain(errors->items[i]);
    if (errors->n > 0)
        fputs("stoker --help shows the common options, stoker --help all every one\n", stderr);
    return errors->n > 0 ? STK_CLI_EXIT_CONFIG : 0;
}

/* An exit code, or -1 with an exception. */
static int main_command(struct stk_cli *cli, const struct main_strings *argv,
                        PyObject *read_settings)
{
    const char *const *environment = (const char *const *)environ;
    const struct stk_config *config = stk_load_config(cli->load);
    int r;

    stk_args_parse(cli->load, (int)argv->n, (const char *const *)argv->items, &cli->args);
    if (cli->args.help)
        return main_help(cli->args.help_all);
    if (cli->args.version)
        return main_version();
    stk_args_environ(&cli->args, environment);
    r = main_read_file(cli, read_settings);
    if (r < 0)
        return r;
    if (cli->foreign)
        stk_load_environ_own(cli->load, environment);
    else
        stk_load_environ(cli->load, environment);
    if (r == 0) {
        stk_load_validate(cli->load);
        stk_verify_values(cli->load);
    }
    if (main_errors(cli->load) != 0 || r != 0)
        return STK_CLI_EXIT_CONFIG;
    cli->nworkers = config->workers > 0 ? (unsigned)config->workers : stk_cpus_workers("");
    return cli->args.check ? stk_check_run(cli) : stk_run_server(cli);
}

/* Names the exception for the server that this one was to follow; it stays raised. */
static void main_note_exception(void)
{
    int fd = stk_log_tee_fd();
    PyObject *exc, *text;
    const char *words;

    if (fd < 0)
        return;
    exc = stk_py_take_exception();
    text = exc ? PyUnicode_FromFormat("%s: %S\n", Py_TYPE(exc)->tp_name, exc) : NULL;
    words = text ? PyUnicode_AsUTF8(text) : NULL;
    if (words && stk_fd_write_all(fd, words, strlen(words)) < 0)
        stk_log_tee(-1);
    Py_XDECREF(text);
    PyErr_Clear();
    if (exc)
        stk_py_raise_taken(exc);
}

PyObject *stk_main_entry(PyObject *module, PyObject *args)
{
    STK_CLEANUP(main_strings_deinit) struct main_strings argv = {0};
    struct stk_cli cli = {.module = module};
    PyObject *arguments, *read_settings, *on_event = Py_None;
    int foreign = 0, capture = 0, r;

    if (!PyArg_ParseTuple(args, "OO|Opp:main", &arguments, &read_settings, &on_event, &foreign,
                          &capture) ||
        main_strings_take(arguments, &argv) < 0)
        return NULL;
    cli.foreign = foreign != 0;
    cli.capture = capture != 0;
    cli.on_event = on_event != Py_None ? on_event : NULL;
    if (stk_fd_fill_standard() < 0) {
        /* There is no /dev/null, and perhaps no standard error to say so. */
    }
    cli.load = stk_load_new();
    stk_startup_note_errors();
    r = main_command(&cli, &argv, read_settings);
    if (r < 0)
        main_note_exception();
    if (r != 0)
        stk_startup_say_why(-1);
    stk_args_deinit(&cli.args);
    cli.load = stk_load_free(cli.load);
    return r < 0 ? NULL : PyLong_FromLong(r);
}
