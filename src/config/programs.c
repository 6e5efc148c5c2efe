/*
 * The reader of what runs beside the workers: rows of programs, alarms, and what raises them. Times
 * of the day are in cron.c.
 */
#include "config/programs.h"

#include <ctype.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/assert.h"
#include "base/mem.h"
#include "config/row.h"
#include "config/strv.h"
#include "config/value.h"

enum {
    PROGRAMS_GRACE_MS = 10000,
    PROGRAMS_BACKOFF_MS = 60000,
    PROGRAMS_PIDFILE_MS = 10000,
    PROGRAMS_NAME_MAX = 32,
};

/* --- values ---------------------------------------------------------------------------------- */

void stk_programs_fail(struct stk_programs_context *ctx, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    STK_ASSERT(vasprintf(&text, fmt, ap) >= 0);
    va_end(ap);
    ctx->failed = true;
    ctx->report(ctx->arg, ctx->option, ctx->item, text);
    free(text);
}

stk_msec stk_programs_time(struct stk_programs_context *ctx, const char *what, const char *text,
                           int64_t min, const char *zero)
{
    const struct stk_option opt = {
        .name = what, .kind = STK_OPTION_MSEC, .min = min, .max = 86400000, .zero = zero};
    struct stk_value value = {0};
    STK_CLEANUP(stk_mem_freep) char *expected = NULL;

    if (stk_value_parse(&opt, text, &value) == 0)
        return value.number;
    expected = stk_value_expected(&opt);
    stk_programs_fail(ctx, "%s = '%s': expected %s", what, text, expected);
    return -1;
}

bool stk_programs_bool(struct stk_programs_context *ctx, const char *what, const char *text)
{
    bool yes = strcmp(text, "true") == 0;

    if (!yes && strcmp(text, "false") != 0)
        stk_programs_fail(ctx, "%s = '%s': expected true or false", what, text);
    return yes;
}

void stk_programs_unknown(struct stk_programs_context *ctx, const char *what, const char *key,
                          const char *const *names, size_t n)
{
    const char *near = NULL;
    size_t best = strlen(key) / 3 + 2;

    for (size_t i = 0; i < n; i++) {
        size_t distance = stk_options_distance(key, names[i]);

        if (distance < best) {
            best = distance;
            near = names[i];
        }
    }
    stk_programs_fail(ctx, "a %s has no key '%s'%s%s%s", what, key, near ? "; did you mean '" : "",
                      near ? near : "", near ? "'?" : "");
}

int stk_program_signal(const char *text)
{
    static const struct {
        const char *name;
        int number;
    } signals[] = {
        {"HUP", SIGHUP},   {"INT", SIGINT},   {"QUIT", SIGQUIT},   {"USR1", SIGUSR1},
        {"USR2", SIGUSR2}, {"TERM", SIGTERM}, {"KILL", SIGKILL},   {"ABRT", SIGABRT},
        {"ALRM", SIGALRM}, {"CONT", SIGCONT}, {"WINCH", SIGWINCH},
    };
    char *end = NULL;
    long number = strtol(text, &end, 10);

    if (end != text)
        return *end == '\0' && number > 0 && number < NSIG ? (int)number : 0;
    if (strncasecmp(text, "SIG", 3) == 0)
        text += 3;
    for (size_t i = 0; i < STK_ARRAY_LEN(signals); i++)
        if (strcasecmp(text, signals[i].name) == 0)
            return signals[i].number;
    return 0;
}

/* Whether a word of a command only says how the next one is run. */
static bool programs_is_wrapper(const char *word, size_t len)
{
    static const char *const words[] = {"exec", "nohup", "nice", "env", "ionice", "sudo", "-n"};

    for (size_t i = 0; i < STK_ARRAY_LEN(words); i++)
        if (strlen(words[i]) == len && memcmp(words[i], word, len) == 0)
            return true;
    if (memchr(word, '=', len) != NULL)
        return true;
    for (size_t i = 0; i < len; i++)
        if (!isdigit((unsigned char)word[i]) && !(i == 0 && word[i] == '-'))
            return false;
    return true;
}

char *stk_programs_name(const char *command)
{
    char name[PROGRAMS_NAME_MAX + 1];
    const char *word = command, *found = NULL;
    size_t len = 0, n = 0;

    for (;;) {
        word += strspn(word, " \t\n;&|(");
        len = strcspn(word, " \t\n;&|()");
        if (len == 0)
            break;
        /* `cd DIRECTORY && program` */
        if (len == 2 && memcmp(word, "cd", 2) == 0 && strstr(word, "&&") != NULL) {
            word = strstr(word, "&&");
            continue;
        }
        found = word;
        n = len;
        if (!programs_is_wrapper(word, len))
            break;
        word += len;
    }
    len = 0;
    for (size_t i = 0; i < n; i++) {
        if (found[i] == '/')
            len = 0;
        else if (len < PROGRAMS_NAME_MAX && (isalnum((unsigned char)found[i]) ||
                                             (found[i] != '\0' && strchr("._-+@", found[i]))))
            name[len++] = found[i];
    }
    name[len] = '\0';
    return stk_mem_strdup(len > 0 ? name : "command");
}

/* --- programs -------------------------------------------------------------------------------- */

static const char *const program_keys[] = {
    "name",         "command", "stop-signal", "grace", "backoff", "reload",
    "user",         "group",   "directory",   "env",   "touch",   "background",
    "pidfile-wait", "notify",  "vital",       "stdin", "pidfile", "task",
};

static void program_text(struct stk_programs_context *ctx, char **field,
                         const struct stk_row_pair *pair)
{
    if (*pair->value == '\0')
        stk_programs_fail(ctx, "%s is empty", pair->key);
    else if (*field != NULL)
        stk_programs_fail(ctx, "%s is given twice", pair->key);
    else
        *field = stk_mem_strdup(pair->value);
}

static int program_signal(struct stk_programs_context *ctx, const char *what, const char *text)
{
    int number = stk_program_signal(text);

    if (number == 0)
        stk_programs_fail(ctx, "%s = '%s': there is no such signal", what, text);
    return number;
}

static void program_reload(struct stk_programs_context *ctx, struct stk_program_spec *spec,
                           const char *text)
{
    if (strcmp(text, "keep") == 0) {
        spec->reload = STK_PROGRAM_KEEP;
    } else if (strcmp(text, "restart") == 0) {
        spec->reload = STK_PROGRAM_RESTART;
    } else {
        spec->reload = STK_PROGRAM_SIGNAL;
        spec->reload_signal = stk_program_signal(text);
        if (spec->reload_signal == 0)
            stk_programs_fail(ctx, "reload = '%s': expected keep, restart, or a signal as HUP",
                              text);
    }
}

static void program_env(struct stk_programs_context *ctx, struct stk_program_spec *spec,
                        const char *name, const char *text)
{
    char *variable = name ? stk_mem_printf("%s=%s", name, text) : stk_mem_strdup(text);

    if (*variable == '=' || strchr(variable, '=') == NULL) {
        stk_programs_fail(ctx, "env = '%s': expected NAME=value", text);
        free(variable);
        return;
    }
    stk_strv_append(&spec->env, variable);
}

/* Keys whose value is true or false. */
static bool *program_flag(struct stk_program_spec *spec, const char *key)
{
    if (strcmp(key, "background") == 0)
        return &spec->background;
    if (strcmp(key, "notify") == 0)
        return &spec->notify;
    if (strcmp(key, "vital") == 0)
        return &spec->vital;
    return strcmp(key, "stdin") == 0 ? &spec->keep_stdin : NULL;
}

/* Keys whose value is a text. */
static char **program_field(struct stk_program_spec *spec, const char *key)
{
    if (strcmp(key, "name") == 0)
        return &spec->name;
    if (strcmp(key, "command") == 0)
        return &spec->command;
    if (strcmp(key, "task") == 0)
        return &spec->task;
    if (strcmp(key, "user") == 0)
        return &spec->user;
    if (strcmp(key, "group") == 0)
        return &spec->group;
    if (strcmp(key, "directory") == 0)
        return &spec->directory;
    return strcmp(key, "pidfile") == 0 ? &spec->pidfile : NULL;
}

static void program_pair(struct stk_programs_context *ctx, struct stk_program_spec *spec,
                         const struct stk_row_pair *pair)
{
    const char *key = pair->key, *value = pair->value;
    bool *flag = program_flag(spec, key);
    char **field = program_field(spec, key);

    if (flag != NULL)
        *flag = stk_programs_bool(ctx, key, value);
    else if (field != NULL)
        program_text(ctx, field, pair);
    else if (strcmp(key, "stop-signal") == 0)
        spec->stop_signal = program_signal(ctx, key, value);
    else if (strcmp(key, "grace") == 0)
        spec->grace = stk_programs_time(ctx, key, value, 0, NULL);
    else if (strcmp(key, "backoff") == 0)
        spec->backoff = stk_programs_time(ctx, key, value, 100, NULL);
    else if (strcmp(key, "pidfile-wait") == 0)
        spec->pidfile_wait = stk_programs_time(ctx, key, value, 1000, NULL);
    else if (strcmp(key, "reload") == 0)
        program_reload(ctx, spec, value);
    else if (strcmp(key, "env") == 0)
        program_env(ctx, spec, NULL, value);
    else if (strncmp(key, "env.", 4) == 0 && key[4] != '\0')
        program_env(ctx, spec, key + 4, value);
    else if (strcmp(key, "touch") == 0 && *value != '\0')
        stk_strv_append(&spec->touch, stk_mem_strdup(value));
    else
        stk_programs_unknown(ctx, "program", key, program_keys, STK_ARRAY_LEN(program_keys));
}

/* What goes together. */
static void program_check(struct stk_programs_context *ctx, const struct stk_program_spec *spec)
{
    if ((spec->command == NULL) == (spec->task == NULL)) {
        stk_programs_fail(ctx, "a program has to have a command%s",
                          spec->task != NULL ? ", or a task, and not both" : "");
        return;
    }
    if (spec->task != NULL && (spec->user != NULL || spec->group != NULL || spec->pidfile != NULL ||
                               spec->directory != NULL || spec->env.n > 0 || spec->keep_stdin))
        stk_programs_fail(ctx, "a task is a process as a worker: of user, group, directory, env, "
                               "stdin and pidfile it has the server's");
    if (spec->background && spec->pidfile == NULL)
        stk_programs_fail(ctx, "background: what leaves for the background is found again by its "
                               "pidfile only: give that, or have the command stay");
    if (spec->notify && spec->pidfile == NULL)
        stk_programs_fail(ctx, "notify is for a program with a pidfile: others are stopped anyway");
    if (spec->vital && spec->pidfile != NULL)
        stk_programs_fail(ctx, "vital: a program with a pidfile outlives the server: leave out one "
                               "of the two");
}

static void program_init(struct stk_program_spec *spec)
{
    *spec = (struct stk_program_spec){
        .stop_signal = SIGTERM,
        .grace = PROGRAMS_GRACE_MS,
        .backoff = PROGRAMS_BACKOFF_MS,
        .pidfile_wait = PROGRAMS_PIDFILE_MS,
    };
}

static void program_read_row(struct stk_programs_context *ctx, const char *text,
                             struct stk_program_spec *spec)
{
    struct stk_row row = {0};
    char *error = NULL;

    if (stk_row_parse(text, &row, &error) != 0) {
        stk_programs_fail(ctx, "%s", error);
        free(error);
        return;
    }
    for (size_t i = 0; i < row.n; i++)
        program_pair(ctx, spec, &row.pairs[i]);
    stk_row_deinit(&row);
    program_check(ctx, spec);
}

static void program_read_command(struct stk_programs_context *ctx, const char *text,
                                 struct stk_program_spec *spec)
{
    if (text[strspn(text, " \t")] == '\0')
        stk_programs_fail(ctx, "expected a command");
    else
        spec->command = stk_mem_strdup(text + strspn(text, " \t"));
}

/* Gives a program a name that no other one has. */
static void program_name(struct stk_programs *programs, size_t index)
{
    struct stk_program_spec *spec = &programs->programs[index];
    STK_CLEANUP(stk_mem_freep) char *name = stk_steal(&spec->name);
    unsigned number = 1;

    if (name == NULL)
        name = spec->task ? stk_mem_strdup(spec->task) : stk_programs_name(spec->command);
    spec->name = stk_mem_strdup(name);
    for (size_t i = 0; i < index; i++)
        if (strcmp(programs->programs[i].name, spec->name) == 0) {
            free(spec->name);
            spec->name = stk_mem_printf("%s-%u", name, ++number);
            i = (size_t)-1;
        }
}

static void programs_read_all(struct stk_programs_context *ctx)
{
    const struct stk_config *config = ctx->config;
    struct stk_programs *p = ctx->programs;

    p->programs =
        stk_new0_array(struct stk_program_spec, config->attach_daemon.n + config->program.n + 1);
    for (size_t i = 0; i < config->attach_daemon.n + config->program.n; i++) {
        bool plain = i < config->attach_daemon.n;

        ctx->option = plain ? STK_OPTION_ID_ATTACH_DAEMON : STK_OPTION_ID_PROGRAM;
        ctx->item = plain ? i : i - config->attach_daemon.n;
        program_init(&p->programs[i]);
        if (plain)
            program_read_command(ctx, config->attach_daemon.items[ctx->item], &p->programs[i]);
        else
            program_read_row(ctx, config->program.items[ctx->item], &p->programs[i]);
        p->nprograms++;
        if (p->programs[i].command != NULL || p->programs[i].task != NULL)
            program_name(p, i);
        else
            p->programs[i].name = stk_mem_strdup("");
    }
}

typedef void (*programs_cron_reader)(struct stk_programs_context *ctx, const char *text,
                                     struct stk_cron_spec *ret_cron);

static void programs_read_cron_list(struct stk_programs_context *ctx, enum stk_option_id option,
                                    const struct stk_strv *texts, programs_cron_reader read)
{
    struct stk_programs *p = ctx->programs;
    bool failed = ctx->failed;

    ctx->option = option;
    for (ctx->item = 0; ctx->item < texts->n; ctx->item++) {
        struct stk_cron_spec *cron = &p->crons[p->ncrons++];

        ctx->failed = false;
        cron->unique = option == STK_OPTION_ID_UNIQUE_CRON;
        read(ctx, texts->items[ctx->item], cron);
        failed |= ctx->failed;
    }
    ctx->failed = failed;
}

static void programs_read_crons(struct stk_programs_context *ctx)
{
    const struct stk_config *config = ctx->config;

    ctx->programs->crons = stk_new0_array(
        struct stk_cron_spec, config->cron.n + config->unique_cron.n + config->touch_exec.n + 1);
    programs_read_cron_list(ctx, STK_OPTION_ID_CRON, &config->cron, stk_programs_read_cron);
    programs_read_cron_list(ctx, STK_OPTION_ID_UNIQUE_CRON, &config->unique_cron,
                            stk_programs_read_cron);
    programs_read_cron_list(ctx, STK_OPTION_ID_TOUCH_EXEC, &config->touch_exec,
                            stk_programs_read_touch);
}

/* --- alarms ---------------------------------------------------------------------------------- */

/* NAME METHOD:ARGUMENT */
static void programs_read_alarm(struct stk_programs_context *ctx, const char *text)
{
    struct stk_alarm_spec *alarm = &ctx->programs->alarms[ctx->programs->nalarms++];
    size_t len;

    text += strspn(text, " \t");
    len = strcspn(text, " \t");
    alarm->name = stk_mem_strndup(text, len);
    text += len;
    text += strspn(text, " \t");
    alarm->kind = strncmp(text, "log:", 4) == 0 ? STK_ALARM_LOG : STK_ALARM_COMMAND;
    alarm->text = stk_mem_strdup(*text ? text + 4 : "");
    if (len == 0 || strchr(alarm->name, ',') != NULL ||
        (alarm->kind == STK_ALARM_COMMAND && (strncmp(text, "cmd:", 4) != 0 || text[4] == '\0')))
        stk_programs_fail(ctx, "'%s': expected NAME cmd:COMMAND or NAME log:", text);
}

/* The alarms of "a,b" as bits; 0: a mistake was reported. */
static uint64_t programs_alarms(struct stk_programs_context *ctx, const char *names, size_t len)
{
    STK_CLEANUP(stk_mem_freep) char *list = stk_mem_strndup(names, len);
    const char *pos = list, *word;
    size_t n = 0;
    uint64_t bits = 0;

    while ((word = stk_options_next_word(&pos, &n))) {
        uint64_t bit = 0;

        for (size_t i = 0; i < ctx->programs->nalarms && bit == 0; i++)
            if (strlen(ctx->programs->alarms[i].name) == n &&
                memcmp(ctx->programs->alarms[i].name, word, n) == 0)
                bit = UINT64_C(1) << i;
        if (bit == 0)
            stk_programs_fail(ctx, "there is no alarm '%.*s': `alarm` makes one", (int)n, word);
        bits |= bit;
    }
    return bits;
}

/* NAME[,NAME...] PATTERN */
static void programs_read_rule(struct stk_programs_context *ctx, const char *text, bool negate)
{
    struct stk_alarm_rule *rule = &ctx->programs->rules[ctx->programs->nrules++];
    size_t len;

    text += strspn(text, " \t");
    len = strcspn(text, " \t");
    rule->negate = negate;
    rule->alarms = programs_alarms(ctx, text, len);
    text += len;
    rule->pattern = stk_mem_strdup(text + strspn(text, " \t"));
    if (*rule->pattern == '\0')
        stk_programs_fail(ctx, "expected NAME PATTERN");
}

static uint64_t programs_read_names(struct stk_programs_context *ctx, enum stk_option_id option,
                                    const struct stk_strv *texts)
{
    uint64_t bits = 0;

    ctx->option = option;
    for (ctx->item = 0; ctx->item < texts->n; ctx->item++)
        bits |= programs_alarms(ctx, texts->items[ctx->item], strlen(texts->items[ctx->item]));
    return bits;
}

static void programs_read_alarms(struct stk_programs_context *ctx)
{
    const struct stk_config *config = ctx->config;
    struct stk_programs *p = ctx->programs;

    p->alarms = stk_new0_array(struct stk_alarm_spec, config->alarm.n + 1);
    p->rules =
        stk_new0_array(struct stk_alarm_rule, config->alarm_log.n + config->not_alarm_log.n + 1);
    ctx->option = STK_OPTION_ID_ALARM;
    for (ctx->item = 0; ctx->item < config->alarm.n; ctx->item++) {
        if (ctx->item == STK_ALARMS_MAX) {
            stk_programs_fail(ctx, "there are more than %d alarms", STK_ALARMS_MAX);
            return;
        }
        programs_read_alarm(ctx, config->alarm.items[ctx->item]);
    }
    /* What is not to be told is looked for first: of two options nobody knows the order. */
    ctx->option = STK_OPTION_ID_NOT_ALARM_LOG;
    for (ctx->item = 0; ctx->item < config->not_alarm_log.n; ctx->item++)
        programs_read_rule(ctx, config->not_alarm_log.items[ctx->item], true);
    ctx->option = STK_OPTION_ID_ALARM_LOG;
    for (ctx->item = 0; ctx->item < config->alarm_log.n; ctx->item++)
        programs_read_rule(ctx, config->alarm_log.items[ctx->item], false);
    p->on_crash = programs_read_names(ctx, STK_OPTION_ID_ALARM_SEGFAULT, &config->alarm_segfault);
    p->on_backlog = programs_read_names(ctx, STK_OPTION_ID_ALARM_BACKLOG, &config->alarm_backlog);
}

/* --- all of it ------------------------------------------------------------------------------- */

struct stk_programs *stk_programs_new(const struct stk_config *config, stk_programs_report report,
                                      void *arg)
{
    struct stk_programs *programs = stk_new0(struct stk_programs);
    struct stk_programs_context ctx = {
        .programs = programs, .config = config, .report = report, .arg = arg};

    programs_read_all(&ctx);
    programs_read_crons(&ctx);
    programs_read_alarms(&ctx);
    return ctx.failed ? stk_programs_free(programs) : programs;
}

bool stk_programs_any(const struct stk_programs *programs)
{
    return programs->nprograms > 0 || programs->ncrons > 0 || programs->nalarms > 0;
}

static void program_deinit(struct stk_program_spec *spec)
{
    free(spec->name);
    free(spec->command);
    free(spec->task);
    free(spec->user);
    free(spec->group);
    free(spec->directory);
    free(spec->pidfile);
    stk_strv_deinit(&spec->env);
    stk_strv_deinit(&spec->touch);
}

struct stk_programs *stk_programs_free(struct stk_programs *programs)
{
    if (programs == NULL)
        return NULL;
    for (size_t i = 0; i < programs->nprograms; i++)
        program_deinit(&programs->programs[i]);
    for (size_t i = 0; i < programs->ncrons; i++) {
        free(programs->crons[i].name);
        free(programs->crons[i].command);
        free(programs->crons[i].touch);
        for (size_t f = 0; f < STK_ARRAY_LEN(programs->crons[i].text); f++)
            free(programs->crons[i].text[f]);
    }
    for (size_t i = 0; i < programs->nalarms; i++) {
        free(programs->alarms[i].name);
        free(programs->alarms[i].text);
    }
    for (size_t i = 0; i < programs->nrules; i++)
        free(programs->rules[i].pattern);
    free(programs->programs);
    free(programs->crons);
    free(programs->alarms);
    free(programs->rules);
    free(programs);
    return NULL;
}
