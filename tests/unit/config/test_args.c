/* The command line: every spelling of an option, and what is said about each mistake. */
#include "config/args.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct stk_load *load;
    struct stk_args args;
    const struct stk_config *config;
};

static void parse(struct fixture *f, const char *const *argv)
{
    int argc = 0;

    while (argv[argc])
        argc++;
    f->load = stk_load_new();
    f->config = stk_load_config(f->load);
    stk_args_parse(f->load, argc, argv, &f->args);
}

#define PARSE(f, ...) parse(f, (const char *const[]){__VA_ARGS__, NULL})

static void done(struct fixture *f)
{
    stk_args_deinit(&f->args);
    f->load = stk_load_free(f->load);
}

static void good(struct fixture *f)
{
    const struct stk_strv *errors = stk_load_errors(f->load);

    if (errors->n > 0)
        fail_msg("%s", errors->items[0]);
}

/* Parses arguments that hold one mistake. */
static void bad(const char *const *argv, const char *text)
{
    struct fixture f;

    parse(&f, argv);
    assert_int_equal(stk_load_errors(f.load)->n, 1);
    assert_string_equal(stk_load_errors(f.load)->items[0], text);
    done(&f);
}

#define BAD(text, ...) bad((const char *const[]){__VA_ARGS__, NULL}, text)

static void test_long(void **state)
{
    struct fixture f;

    PARSE(&f, "--workers", "4", "--threads=2", "app:app", "--bind", ":1", "--bind=:2", "--preload",
          "--no-takeover", "--max_connections", "10", "--chdir=a=b", "--server-header=", "--pp",
          "lib", "--access-log", "-");
    good(&f);
    assert_int_equal(f.config->workers, 4);
    assert_int_equal(f.config->threads, 2);
    assert_string_equal(f.config->app, "app:app");
    assert_int_equal(f.config->bind.n, 2);
    assert_string_equal(f.config->bind.items[1], ":2");
    assert_true(f.config->preload);
    assert_false(f.config->takeover);
    assert_int_equal(f.config->max_connections, 10);
    assert_string_equal(f.config->chdir, "a=b");
    assert_string_equal(f.config->server_header, "");
    assert_string_equal(f.config->pythonpath.items[0], "lib");
    assert_string_equal(f.config->access_log, "-");
    done(&f);
}

static void test_short(void **state)
{
    struct fixture f;

    PARSE(&f, "-w", "4", "-t2", "-b=:1", "-b", ":2", "-eA=1", "-c", "x.toml", "app");
    good(&f);
    assert_int_equal(f.config->workers, 4);
    assert_int_equal(f.config->threads, 2);
    assert_string_equal(f.config->bind.items[0], ":1");
    assert_string_equal(f.config->env.items[0], "A=1");
    assert_string_equal(f.args.config, "x.toml");
    assert_string_equal(f.config->app, "app");
    done(&f);
    PARSE(&f, "-hVw4");
    good(&f);
    assert_true(f.args.help);
    assert_true(f.args.version);
    assert_int_equal(f.config->workers, 4);
    done(&f);
}

static void test_commands(void **state)
{
    struct fixture f;

    PARSE(&f, "--check", "app");
    good(&f);
    assert_true(f.args.check);
    assert_false(f.args.help);
    assert_string_equal(f.config->app, "app");
    done(&f);
    PARSE(&f, "--help", "all");
    good(&f);
    assert_true(f.args.help);
    assert_true(f.args.help_all);
    assert_null(f.config->app);
    done(&f);
    PARSE(&f, "--help-all");
    assert_true(f.args.help && f.args.help_all);
    done(&f);
    PARSE(&f, "--help", "app");
    assert_true(f.args.help);
    assert_false(f.args.help_all);
    done(&f);
}

static void test_flags(void **state)
{
    struct fixture f;

    PARSE(&f, "--preload=false", "--takeover=no", "--autoreload", "true");
    good(&f);
    assert_false(f.config->preload);
    assert_false(f.config->takeover);
    assert_true(f.config->autoreload);
    assert_string_equal(f.config->app, "true");
    done(&f);
}

static void test_behind_two_dashes(void **state)
{
    struct fixture f;

    PARSE(&f, "-w", "2", "--", "--help");
    good(&f);
    assert_string_equal(f.config->app, "--help");
    assert_false(f.args.help);
    done(&f);
    PARSE(&f, "app", "--");
    good(&f);
    done(&f);
}

static void test_nothing(void **state)
{
    struct fixture f;

    parse(&f, (const char *const[]){NULL});
    good(&f);
    assert_null(f.config->app);
    assert_null(f.args.config);
    done(&f);
}

static void test_mistakes(void **state)
{
    BAD("command line: unknown option '--wokers'; did you mean '--workers'?", "--wokers=3");
    BAD("command line: unknown option '-z'", "-z");
    BAD("command line: unknown option '-z'", "-zw4");
    BAD("command line: --workers needs a value: --workers N", "--workers");
    BAD("command line: -b needs a value: -b ADDR", "-b");
    BAD("command line: --bind needs a value: --bind ADDR", "--bind", "--preload");
    BAD("command line: workers = '-1': expected a whole number from 1 to 1024, or 'auto'", "-w",
        "-1");
    BAD("command line: workers = '': expected a whole number from 1 to 1024, or 'auto'",
        "--workers=");
    BAD("command line: workers = '99999999999999999999': expected a whole number from 1 to 1024, "
        "or 'auto'",
        "-w99999999999999999999");
    BAD("command line: --help takes no value", "--help=x");
    BAD("command line: --no-preload takes no value", "--no-preload=1");
    BAD("command line: preload = 'perhaps': expected true or false", "--preload=perhaps");
    BAD("command line: unknown option '--no-workers'; did you mean '--workers'?", "--no-workers");
    BAD("command line: workers is given twice", "-w", "1", "--processes", "2");
    BAD("command line: preload is given twice", "--preload", "--no-preload");
    BAD("command line: 'a' and 'b': only one application can be served at a time", "a", "b");
    BAD("command line: app is given twice", "a", "--app", "b");
    BAD("command line: an argument is empty", "");
    BAD("command line: config is given twice", "-cx", "--config", "y");
    BAD("command line: config = '': expected the path of a file", "--config=");
    BAD("command line: unknown option '--'", "--=x");
}

static void test_all_mistakes_are_found(void **state)
{
    struct fixture f;

    PARSE(&f, "--wokers", "-t0", "-q", "app");
    assert_int_equal(stk_load_errors(f.load)->n, 3);
    assert_string_equal(f.config->app, "app");
    done(&f);
}

static void test_config_from_the_environment(void **state)
{
    static const char *const env[] = {"A=1", "STOKER_CONFIG=env.toml", NULL};
    static const char *const empty[] = {"STOKER_CONFIG=", NULL};
    struct fixture f;

    PARSE(&f, "app");
    stk_args_environ(&f.args, empty);
    assert_null(f.args.config);
    stk_args_environ(&f.args, env);
    assert_string_equal(f.args.config, "env.toml");
    done(&f);
    PARSE(&f, "-c", "cli.toml");
    stk_args_environ(&f.args, env);
    assert_string_equal(f.args.config, "cli.toml");
    done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_short),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_behind_two_dashes),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_all_mistakes_are_found),
        cmocka_unit_test(test_config_from_the_environment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
