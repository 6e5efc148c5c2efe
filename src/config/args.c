/*
 * Reading the command line.
 *
 * By hand and not by getopt_long, because the names are in the rows, because every mistake has to
 * be found in one go and explained with the nearest name, and because getopt_long takes
 * abbreviations, which break whenever an option is added. An argument that begins with a dash is
 * taken as a value only when it is "-" alone or a negative number: `--bind --workers 2` has
 * forgotten an address, and should say so.
 */
#include "config/args.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"

static const struct stk_origin args_origin = {.kind = STK_ORIGIN_COMMAND_LINE};

struct args_parser {
    struct stk_load *load;
    struct stk_args *args;
    int argc;
    const char *const *argv;
    int at;          /* the next argument */
    const char *app; /* the argument without a dash */
};

/* The next argument as a value, or NULL when there is none. */
static const char *args_value(struct args_parser *p)
{
    const char *arg = p->at < p->argc ? p->argv[p->at] : NULL;

    if (!arg || (arg[0] == '-' && arg[1] != '\0' && !(arg[1] >= '0' && arg[1] <= '9')))
        return NULL;
    p->at++;
    return arg;
}

static void args_config(struct args_parser *p, const char *value)
{
    STK_ASSERT(value != NULL); /* the row says that it takes one */
    if (!*value)
        stk_load_fail(p->load, &args_origin, "config = '': expected the path of a file");
    else if (p->args->config)
        stk_load_fail(p->load, &args_origin, "config is given twice");
    else
        p->args->config = stk_mem_strdup(value);
}

static void args_command(struct args_parser *p, enum stk_option_id id, const char *value)
{
    switch ((int)id) {
    case STK_OPTION_ID_CONFIG:
        args_config(p, value);
        break;
    case STK_OPTION_ID_CHECK:
        p->args->check = true;
        break;
    case STK_OPTION_ID_VERSION:
        p->args->version = true;
        break;
    case STK_OPTION_ID_HELP_ALL:
        p->args->help = p->args->help_all = true;
        break;
    default:
        p->args->help = true;
        if (p->at < p->argc && strcmp(p->argv[p->at], "all") == 0) {
            p->args->help_all = true;
            p->at++;
        }
    }
}

/* One option with its value (NULL: none was joined to it). `spelt` is how the user wrote it. */
static void args_option(struct args_parser *p, const struct stk_option *opt, const char *spelt,
                        const char *value)
{
    if (!value && stk_options_takes_value(opt)) {
        value = args_value(p);
        if (!value) {
            stk_load_fail(p->load, &args_origin, "%s needs a value: %s %s", spelt, spelt,
                          opt->metavar);
            return;
        }
    }
    if (opt->kind != STK_OPTION_COMMAND)
        stk_load_set(p->load, opt->name, value, &args_origin);
    else if (value && !opt->takes_value)
        stk_load_fail(p->load, &args_origin, "%s takes no value", spelt);
    else
        args_command(p, (enum stk_option_id)(opt - stk_options_rows()), value);
}

/* --no-name of a flag; false when it is none. */
static bool args_negated(struct args_parser *p, const char *name, const char *value)
{
    const struct stk_option *opt;

    if (strncmp(name, "no-", 3) != 0)
        return false;
    opt = stk_options_find(name + 3, strlen(name + 3));
    if (!opt || opt->kind != STK_OPTION_BOOL)
        return false;
    if (value)
        stk_load_fail(p->load, &args_origin, "--%s takes no value", name);
    else
        stk_load_set(p->load, opt->name, "false", &args_origin);
    return true;
}

static void args_long(struct args_parser *p, const char *arg)
{
    size_t len = strcspn(arg, "=");
    STK_CLEANUP(stk_mem_freep) char *spelt = stk_mem_strndup(arg, len);
    const char *value = arg[len] ? arg + len + 1 : NULL;
    const char *name = spelt + 2;
    const struct stk_option *opt = stk_options_find(name, strlen(name));

    if (opt)
        args_option(p, opt, spelt, value);
    else if (!args_negated(p, name, value))
        stk_load_set(p->load, name, "", &args_origin); /* says that it is unknown */
}

static void args_short(struct args_parser *p, const char *arg)
{
    for (const char *flag = arg + 1; *flag; flag++) {
        const struct stk_option *opt = stk_options_find_short(*flag);
        char spelt[] = {'-', *flag, '\0'};
        const char *value = NULL;

        if (!opt) {
            stk_load_fail(p->load, &args_origin, "unknown option '-%c'", *flag);
            return;
        }
        if (stk_options_takes_value(opt) && flag[1]) {
            value = flag + 1;
            if (*value == '=')
                value++;
        }
        args_option(p, opt, spelt, value);
        if (value)
            return;
    }
}

static void args_positional(struct args_parser *p, const char *arg)
{
    if (!*arg) {
        stk_load_fail(p->load, &args_origin, "an argument is empty");
    } else if (p->app) {
        stk_load_fail(p->load, &args_origin,
                      "'%s' and '%s': only one application can be served at a time", p->app, arg);
    } else {
        p->app = arg;
        stk_load_set(p->load, "app", arg, &args_origin);
    }
}

void stk_args_parse(struct stk_load *load, int argc, const char *const *argv,
                    struct stk_args *ret_args)
{
    struct args_parser p = {.load = load, .args = ret_args, .argc = argc, .argv = argv};
    bool options = true;

    *ret_args = (struct stk_args){0};
    while (p.at < argc) {
        const char *arg = argv[p.at++];

        if (!options || arg[0] != '-' || !arg[1])
            args_positional(&p, arg);
        else if (arg[1] != '-')
            args_short(&p, arg);
        else if (arg[2])
            args_long(&p, arg);
        else
            options = false;
    }
}

void stk_args_environ(struct stk_args *args, const char *const *environment)
{
    static const char name[] = "STOKER_CONFIG=";

    if (args->config)
        return;
    for (; *environment; environment++)
        if (strncmp(*environment, name, sizeof(name) - 1) == 0 &&
            (*environment)[sizeof(name) - 1]) {
            args->config = stk_mem_strdup(*environment + sizeof(name) - 1);
            return;
        }
}

void stk_args_deinit(struct stk_args *args)
{
    free(args->config);
    *args = (struct stk_args){0};
}
