/* Programs, times of the day and alarms as texts: what is read, and when a command is due. */
#include "config/programs.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/macros.h"

static char said[1024];

static void on_mistake(void *arg, enum stk_option_id option, size_t item, const char *text)
{
    (void)arg;
    (void)option;
    (void)item;
    strncat(said, text, sizeof said - strlen(said) - 1);
}

static struct stk_strv one(const char **item)
{
    return (struct stk_strv){.items = (char **)(uintptr_t)item, .n = 1};
}

/* The minutes of 2027, a day of which is a Friday, 2027-01-01, in which an entry is due. */
static unsigned due(const char *entry)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    struct stk_config config = {.cron = one(&entry)};
    struct stk_programs *programs;
    struct tm tm = {.tm_wday = 5};
    unsigned n = 0;

    said[0] = '\0';
    programs = stk_programs_new(&config, on_mistake, NULL);
    if (programs == NULL)
        return 0;
    assert_int_equal(programs->ncrons, 1);
    for (tm.tm_mon = 0; tm.tm_mon < 12; tm.tm_mon++)
        for (tm.tm_mday = 1; tm.tm_mday <= days[tm.tm_mon]; tm.tm_mday++) {
            for (tm.tm_hour = 0; tm.tm_hour < 24; tm.tm_hour++)
                for (tm.tm_min = 0; tm.tm_min < 60; tm.tm_min++)
                    n += stk_cron_is_due(&programs->crons[0], &tm);
            tm.tm_wday = (tm.tm_wday + 1) % 7;
        }
    stk_programs_free(programs);
    return n;
}

static void test_times(void **state)
{
    static const struct {
        const char *entry;
        unsigned times; /* in a year of 365 days that begins on a Friday */
    } rows[] = {
        {"* * * * * x", 525600},
        {"-1 -1 -1 -1 -1 x", 525600},
        {"0 3 * * * x", 365},
        {"59 23 31 12 -1 x", 1},
        {"-15 -1 -1 -1 -1 x", 4 * 24 * 365},
        {"*/15 * * * * x", 4 * 24 * 365},
        {"0 -2 1 -1 -1 x", 12 * 12},
        {"0 8-18/2 * * * x", 6 * 365},
        {"0,30 0 1,15 * * x", 2 * 2 * 12},
        {"5/20 0 1 1 * x", 3},
        {"0 0 -10 1 * x", 3},  /* 10th, 20th, 30th */
        {"0 0 */10 1 * x", 4}, /* 1st, 11th, 21st, 31st */
        {"0 0 * * 1 x", 52},
        {"0 0 * * 7 x", 52},
        {"0 0 * * 0 x", 52},
        {"0 0 * * 1-5 x", 261},
        {"0 0 1 * 5 x", 63},  /* the first of a month, or a Friday */
        {"0 0 -1 1 5 x", 5},  /* a Friday: the day is not a number */
        {"0 0 1 -1 -5 x", 3}, /* the first, on Sunday or Friday, which 5 divides */
        {"minute=0 hour=3 command=x", 365},
        {"command='a b' week=7 minute=1 hour=1", 52},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++)
        if (due(rows[i].entry) != rows[i].times)
            fail_msg("%s: %u times, not %u %s", rows[i].entry, due(rows[i].entry), rows[i].times,
                     said);
}

static void test_mistakes_of_times(void **state)
{
    static const char *const entries[] = {
        "",
        "x",
        "60 * * * * x",
        "* 24 * * * x",
        "* * 0 * * x",
        "* * 32 * * x",
        "* * * 13 * x",
        "* * * 0 * x",
        "* * * * 8 x",
        "* * * * *",
        "-0 * * * * x",
        "*/0 * * * * x",
        "5-1 * * * * x",
        "1, * * * * x",
        ",1 * * * * x",
        "1- * * * * x",
        "+1 * * * * x",
        "99999999999 * * * * x",
        "-x * * * * x",
        "minute=1",
        "minute=a command=x",
        "unique=1 command=x",
        "command=x timeout=soon",
        "@daily x",
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(entries); i++)
        if (due(entries[i]) != 0 || *said == '\0')
            fail_msg("%s is taken", entries[i]);
}

static void test_names(void **state)
{
    static const struct {
        const char *command, *name;
    } rows[] = {
        {"redis-server --port 1", "redis-server"},
        {"/usr/bin/redis-server", "redis-server"},
        {"cd /app/frontend && npm run dev", "npm"},
        {"nice -n 10 celery -A d worker", "celery"},
        {"A=b exec ./run.sh", "run.sh"},
        {"(trap x; y)", "trap"},
        {"   ", "command"},
        {"\"\"", "command"},
    };

    (void)state;
    for (size_t i = 0; i < STK_ARRAY_LEN(rows); i++) {
        char *name = stk_programs_name(rows[i].command);

        assert_string_equal(name, rows[i].name);
        free(name);
    }
}

static void test_programs(void **state)
{
    const char *daemons[] = {"a", "/bin/a x"};
    const char *rows[] = {"command='b c' name=a stop-signal=SIGINT grace=500ms reload=HUP "
                          "env=X=y env.Z=1 touch=t touch=u vital=true"};
    struct stk_config config = {
        .attach_daemon = {.items = (char **)(uintptr_t)daemons, .n = 2},
        .program = {.items = (char **)(uintptr_t)rows, .n = 1},
    };
    struct stk_programs *programs = stk_programs_new(&config, on_mistake, NULL);
    const struct stk_program_spec *last;

    (void)state;
    assert_non_null(programs);
    assert_int_equal(programs->nprograms, 3);
    last = &programs->programs[2];
    assert_string_equal(programs->programs[0].name, "a");
    assert_string_equal(programs->programs[1].name, "a-2");
    assert_string_equal(last->name, "a-3");
    assert_string_equal(last->command, "b c");
    assert_int_equal(last->stop_signal, SIGINT);
    assert_int_equal(last->grace, 500);
    assert_int_equal(last->reload, STK_PROGRAM_SIGNAL);
    assert_int_equal(last->reload_signal, SIGHUP);
    assert_int_equal(last->env.n, 2);
    assert_string_equal(last->env.items[1], "Z=1");
    assert_int_equal(last->touch.n, 2);
    assert_true(last->vital);
    stk_programs_free(programs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_mistakes_of_times),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_programs),
    };

    return cmocka_run_group_tests_name("programs", tests, NULL, NULL);
}
