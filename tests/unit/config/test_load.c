/* Sources, precedence, provenance, and the texts of the errors. */
#include "config/load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static const struct stk_origin from_cli = {.kind = STK_ORIGIN_COMMAND_LINE};

static struct stk_origin from_file(unsigned line)
{
    return (struct stk_origin){.kind = STK_ORIGIN_FILE, .line = line, .name = "stoker.toml"};
}

static void set_file(struct stk_load *load, unsigned line, const char *name, const char *value)
{
    struct stk_origin origin = from_file(line);

    stk_load_set(load, name, value, &origin);
}

static void set_cli(struct stk_load *load, const char *name, const char *value)
{
    stk_load_set(load, name, value, &from_cli);
}

static void assert_errors(struct stk_load *load, const char *const *texts)
{
    const struct stk_strv *errors = stk_load_errors(load);
    size_t n = 0;

    for (; texts[n]; n++) {
        if (n >= errors->n)
            fail_msg("no error '%s'", texts[n]);
        assert_string_equal(errors->items[n], texts[n]);
    }
    if (errors->n > n)
        fail_msg("unexpected error '%s'", errors->items[n]);
}

#define ASSERT_ERRORS(load, ...) assert_errors(load, (const char *const[]){__VA_ARGS__, NULL})
#define ASSERT_NO_ERRORS(load)   assert_errors(load, (const char *const[]){NULL})

static void assert_list(const struct stk_strv *list, const char *const *texts)
{
    size_t n = 0;

    for (; texts[n]; n++) {
        assert_true(n < list->n);
        assert_string_equal(list->items[n], texts[n]);
    }
    assert_int_equal(list->n, n);
    if (n > 0)
        assert_null(list->items[n]);
}

#define ASSERT_LIST(list, ...) assert_list(list, (const char *const[]){__VA_ARGS__, NULL})

static void assert_origin(struct stk_load *load, enum stk_option_id id, size_t item,
                          const char *text)
{
    const struct stk_provenance *prov = stk_load_provenance(load, &stk_options_rows()[id]);
    char *where;

    assert_true(item < prov->n);
    where = stk_load_origin_text(&prov->items[item]);
    assert_string_equal(where, text);
    free(where);
}

static void test_defaults(void **state)
{
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();
    const struct stk_config *config = stk_load_config(load);

    assert_null(config->app);
    assert_null(config->chdir);
    assert_int_equal(config->env.n, 0);
    ASSERT_LIST(&config->bind, "127.0.0.1:8000");
    assert_int_equal(config->backlog, 4096);
    assert_int_equal(config->socket_mode, -1);
    assert_int_equal(config->workers, 0);
    assert_int_equal(config->threads, 1);
    assert_true(config->takeover);
    assert_false(config->preload);
    assert_int_equal(config->limit_request_line, 8192);
    assert_int_equal(config->limit_request_head, 32768);
    assert_int_equal(config->limit_request_fields, 128);
    assert_int_equal(config->limit_request_body, 0);
    assert_int_equal(config->body_buffer, 1 << 20);
    assert_false(config->body_stream);
    assert_int_equal(config->keepalive_timeout, 75000);
    assert_int_equal(config->head_timeout, 10000);
    assert_int_equal(config->body_timeout, 30000);
    assert_int_equal(config->body_min_rate, 500);
    assert_int_equal(config->send_timeout, 60000);
    assert_int_equal(config->graceful_timeout, 30000);
    assert_int_equal(config->exit_timeout, 10000);
    ASSERT_LIST(&config->forwarded_allow, "127.0.0.0/8", "::1", "unix");
    assert_string_equal(config->access_log, "-");
    assert_string_equal(config->server_header, "stoker");
    assert_origin(load, STK_OPTION_ID_THREADS, 0, "default");
    assert_origin(load, STK_OPTION_ID_BIND, 0, "default");
    ASSERT_NO_ERRORS(load);
}

static void test_precedence_in_any_order(void **state)
{
    /* Bits of `order`: which source is given first, second, third. */
    static const char orders[][4] = {"fec", "fce", "efc", "ecf", "cfe", "cef"};
    static const char *const env[] = {"STOKER_WORKERS=3", "STOKER_BIND=:3", "STOKER_THREADS=3",
                                      NULL};

    for (size_t o = 0; o < STK_ARRAY_LEN(orders); o++) {
        STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();
        const struct stk_config *config = stk_load_config(load);

        for (const char *source = orders[o]; *source; source++) {
            if (*source == 'f') {
                set_file(load, 1, "workers", "2");
                set_file(load, 2, "threads", "2");
                set_file(load, 3, "backlog", "2");
                set_file(load, 4, "bind", ":2");
            } else if (*source == 'e') {
                stk_load_environ(load, env);
            } else {
                set_cli(load, "workers", "4");
                set_cli(load, "bind", ":4");
                set_cli(load, "bind", ":5");
            }
        }
        assert_int_equal(config->workers, 4);
        assert_int_equal(config->threads, 3);
        assert_int_equal(config->backlog, 2);
        ASSERT_LIST(&config->bind, ":4", ":5");
        assert_origin(load, STK_OPTION_ID_WORKERS, 0, "command line");
        assert_origin(load, STK_OPTION_ID_THREADS, 0, "environment STOKER_THREADS");
        assert_origin(load, STK_OPTION_ID_BACKLOG, 0, "stoker.toml:3");
        assert_origin(load, STK_OPTION_ID_BIND, 1, "command line");
        ASSERT_NO_ERRORS(load);
    }
}

static void test_variables_add_up(void **state)
{
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();
    const struct stk_config *config = stk_load_config(load);

    set_cli(load, "env", "B=cli");
    set_cli(load, "env", "C=cli");
    set_file(load, 4, "env", "A=file");
    set_file(load, 5, "env", "B=file");
    ASSERT_LIST(&config->env, "B=cli", "C=cli", "A=file");
    assert_origin(load, STK_OPTION_ID_ENV, 0, "command line");
    assert_origin(load, STK_OPTION_ID_ENV, 2, "stoker.toml:4");
    ASSERT_NO_ERRORS(load);
    set_cli(load, "env", "A=cli");
    ASSERT_LIST(&config->env, "B=cli", "C=cli", "A=cli");
    assert_origin(load, STK_OPTION_ID_ENV, 2, "command line");
    set_cli(load, "env", "A=again");
    ASSERT_ERRORS(load, "command line: env: A is given twice");
}

static void test_environment(void **state)
{
    static const char *const env[] = {
        "PATH=/bin",
        "STOKER_BIND=:8000, :8001 unix:/run/a.sock",
        "STOKER_PYTHONPATH=a b:c",
        "STOKER_PRELOAD=1",
        "STOKER_LIMIT_REQUEST_BODY=10m",
        "FORWARDED_ALLOW_IPS=10.0.0.0/8,unix",
        "STOKER_ENV=A=1,2",
        "STOKER",
        "STOKER_CONFIG=x.toml",
        "STOKER_PORT_8000_TCP=tcp://10.0.0.1:8000",
        "STOKER_WORKRES=4",
        "WEB_CONCURRENCY=6",
        NULL,
    };
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();
    const struct stk_config *config = stk_load_config(load);

    stk_load_environ(load, env);
    ASSERT_NO_ERRORS(load);
    ASSERT_LIST(&config->bind, ":8000", ":8001", "unix:/run/a.sock");
    ASSERT_LIST(&config->pythonpath, "a b", "c");
    ASSERT_LIST(&config->env, "A=1,2");
    ASSERT_LIST(&config->forwarded_allow, "10.0.0.0/8", "unix");
    assert_true(config->preload);
    assert_int_equal(config->workers, 6);
    assert_int_equal(config->limit_request_body, 10 << 20);
    assert_origin(load, STK_OPTION_ID_BIND, 2, "environment STOKER_BIND");
    assert_origin(load, STK_OPTION_ID_WORKERS, 0, "environment WEB_CONCURRENCY");
    ASSERT_LIST(stk_load_warnings(load),
                "environment STOKER_WORKRES: no such option; did you mean STOKER_WORKERS?");
}

static void test_other_variables_are_below(void **state)
{
    static const char *const env[] = {"WEB_CONCURRENCY=6", "STOKER_WORKERS=2",
                                      "FORWARDED_ALLOW_IPS=", NULL};
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();

    stk_load_environ(load, env);
    ASSERT_NO_ERRORS(load);
    assert_int_equal(stk_load_config(load)->workers, 2);
    assert_int_equal(stk_load_config(load)->forwarded_allow.n, 3);
}

static void test_environment_errors(void **state)
{
    static const char *const env[] = {"STOKER_WORKERS=", "STOKER_BIND= ,",
                                      "STOKER_CHDIR=", "WEB_CONCURRENCY=many", NULL};
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();

    stk_load_environ(load, env);
    ASSERT_ERRORS(
        load,
        "environment STOKER_WORKERS: workers = '': expected a whole number from 1 to 1024, or "
        "'auto'",
        "environment STOKER_BIND: bind = '': expected a text that is not empty",
        "environment STOKER_CHDIR: chdir = '': expected a text that is not empty",
        "environment WEB_CONCURRENCY: workers = 'many': expected a whole number from 1 to 1024, "
        "or 'auto'");
}

static void test_error_texts(void **state)
{
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();
    const struct stk_origin no_line = {.kind = STK_ORIGIN_FILE, .name = "a.json"};

    set_file(load, 12, "wokers", "4");
    set_file(load, 3, "threads", "abc");
    set_file(load, 4, "no-such-thing-at-all", "1");
    set_cli(load, "bnid", ":1");
    set_cli(load, "threads", NULL);
    set_file(load, 6, "help", "true");
    set_file(load, 7, "log-level", "loud");
    stk_load_set(load, "backlog", "0", &no_line);
    ASSERT_ERRORS(load, "stoker.toml:12: unknown option 'wokers'; did you mean 'workers'?",
                  "stoker.toml:3: threads = 'abc': expected a whole number from 1 to 1024",
                  "stoker.toml:4: unknown option 'no-such-thing-at-all'",
                  "command line: unknown option '--bnid'; did you mean '--bind'?",
                  "command line: threads needs a value",
                  "stoker.toml:6: help belongs on the command line",
                  "stoker.toml:7: log-level = 'loud': expected debug, info, warning, error or "
                  "critical",
                  "a.json: backlog = '0': expected a whole number from 1 to 65535");
}

static void test_given_twice(void **state)
{
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();

    set_file(load, 1, "workers", "2");
    set_file(load, 2, "processes", "3");
    set_cli(load, "workers", "4");
    set_cli(load, "workers", "5");
    assert_int_equal(stk_load_config(load)->workers, 4);
    ASSERT_ERRORS(load, "stoker.toml:2: workers is given twice (first: stoker.toml:1)",
                  "command line: workers is given twice");
}

static void test_a_losing_value_is_checked(void **state)
{
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();

    set_cli(load, "threads", "2");
    set_file(load, 9, "threads", "-1");
    assert_int_equal(stk_load_config(load)->threads, 2);
    ASSERT_ERRORS(load, "stoker.toml:9: threads = '-1': expected a whole number from 1 to 1024");
}

static void test_flags(void **state)
{
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();

    set_cli(load, "preload", NULL);
    set_cli(load, "takeover", "false");
    set_file(load, 1, "body", "stream");
    ASSERT_NO_ERRORS(load);
    assert_true(stk_load_config(load)->preload);
    assert_false(stk_load_config(load)->takeover);
    assert_true(stk_load_config(load)->body_stream);
}

static void test_lists(void **state)
{
    static const char *const binds[] = {":1", ":2"};
    static const char *const nets[] = {"10.0.0.1", "::1,unix"};
    struct stk_origin origin = from_file(2);
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();
    const struct stk_config *config = stk_load_config(load);

    stk_load_set_list(load, "bind", binds, 2, &origin);
    stk_load_set_list(load, "forwarded-allow", nets, 2, &origin);
    ASSERT_LIST(&config->bind, ":1", ":2");
    ASSERT_LIST(&config->forwarded_allow, "10.0.0.1", "::1", "unix");
    ASSERT_NO_ERRORS(load);
    stk_load_set_list(load, "threads", binds, 2, &origin);
    stk_load_set_list(load, "bind", NULL, 0, &origin);
    stk_load_set_list(load, "bnid", NULL, 0, &origin);
    ASSERT_ERRORS(load, "stoker.toml:2: threads takes one value, not a list",
                  "stoker.toml:2: bind = '': expected a text that is not empty",
                  "stoker.toml:2: unknown option 'bnid'; did you mean 'bind'?");
}

static void test_empty_list(void **state)
{
    static const char *const env[] = {"STOKER_PYTHONPATH=", NULL};
    struct stk_origin origin = from_file(2);
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();

    set_file(load, 1, "pythonpath", "lib");
    stk_load_environ(load, env);
    assert_int_equal(stk_load_config(load)->pythonpath.n, 0);
    assert_null(stk_load_config(load)->pythonpath.items);
    stk_load_set_list(load, "pythonpath", NULL, 0, &origin);
    ASSERT_NO_ERRORS(load);
    set_cli(load, "pythonpath", "");
    ASSERT_ERRORS(load, "command line: pythonpath = '': expected a text that is not empty");
}

static void test_trust_nobody(void **state)
{
    struct stk_origin origin = from_file(2);
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();

    stk_load_set_list(load, "forwarded-allow", NULL, 0, &origin);
    assert_int_equal(stk_load_config(load)->forwarded_allow.n, 0);
    set_cli(load, "forwarded-allow", "*");
    ASSERT_LIST(&stk_load_config(load)->forwarded_allow, "*");
    set_file(load, 1, "forwarded-allow", "");
    ASSERT_LIST(&stk_load_config(load)->forwarded_allow, "*");
    ASSERT_NO_ERRORS(load);
}

static void test_validate(void **state)
{
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();

    set_cli(load, "bind", ":1");
    set_cli(load, "bind", ":1");
    set_file(load, 7, "limit-request-line", "64k");
    stk_load_validate(load);
    ASSERT_ERRORS(load, "no application is given; name one, as in: stoker app:app",
                  "command line: bind = ':1': is given twice",
                  "stoker.toml:7: limit-request-line = '64k': is more than limit-request-head "
                  "(32768 bytes), which counts the line too");
}

static void test_validate_callable(void **state)
{
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();

    set_cli(load, "app", "a:b");
    set_cli(load, "callable", "c");
    stk_load_validate(load);
    ASSERT_ERRORS(load,
                  "command line: callable = 'c': the application 'a:b' names a callable already");
}

static void test_texts(void **state)
{
    const struct stk_option *rows = stk_options_rows();
    STK_CLEANUP(stk_load_freep) struct stk_load *load = stk_load_new();
    char *text;

    assert_int_equal(stk_load_count(load, &rows[STK_OPTION_ID_APP]), 0);
    assert_int_equal(stk_load_count(load, &rows[STK_OPTION_ID_SOCKET_MODE]), 0);
    assert_int_equal(stk_load_count(load, &rows[STK_OPTION_ID_FORWARDED_ALLOW]), 3);
    assert_int_equal(stk_load_count(load, &rows[STK_OPTION_ID_HELP]), 0);
    for (size_t i = 0; i < STK_OPTION_COUNT; i++)
        if (rows[i].def && !stk_options_is_list(&rows[i])) {
            text = stk_load_text(load, &rows[i], 0);
            assert_string_equal(text, rows[i].def);
            free(text);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_precedence_in_any_order),
        cmocka_unit_test(test_variables_add_up),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_other_variables_are_below),
        cmocka_unit_test(test_environment_errors),
        cmocka_unit_test(test_error_texts),
        cmocka_unit_test(test_given_twice),
        cmocka_unit_test(test_a_losing_value_is_checked),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_empty_list),
        cmocka_unit_test(test_trust_nobody),
        cmocka_unit_test(test_validate),
        cmocka_unit_test(test_validate_callable),
        cmocka_unit_test(test_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
