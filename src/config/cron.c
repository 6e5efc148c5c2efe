/*
 * Times of the day, as crontab(5) and as uWSGI writes them: minute, hour, day, month, weekday.
 *
 * Both mean the same where both can be read, so one reader takes both: a number, in uWSGI's way -N
 * for every minute (hour ...) that N divides, and -1 for each; in crontab's way *, ranges, steps
 * and lists. Each field becomes a set of bits, and looking whether a command is due is five tests.
 *
 * Day and weekday, where both are given as numbers, are alternatives (crontab's rule, and uWSGI's);
 * otherwise both have to fit.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "config/programs.h"
#include "config/row.h"

static const struct cron_field {
    const char *name;
    int min, max;
} cron_fields[] = {
    {"minute", 0, 59}, {"hour", 0, 23}, {"day", 1, 31}, {"month", 1, 12}, {"weekday", 0, 7},
};

enum { CRON_FIELDS = STK_ARRAY_LEN(cron_fields), CRON_NUMBER_MAX = 1000 };

/* A field that is being read. */
struct cron_part {
    struct stk_programs_context *ctx;
    const struct cron_field *field;
    const char *text;
    uint64_t bits;
    bool number; /* nothing but numbers */
};

/* A whole number at *p, which it is moved behind; -1: there is none. */
static int cron_number(const char **p)
{
    int v = 0;

    if (**p < '0' || **p > '9')
        return -1;
    while (**p >= '0' && **p <= '9' && v < CRON_NUMBER_MAX)
        v = v * 10 + (*(*p)++ - '0');
    return v;
}

static void cron_bad(const struct cron_part *part)
{
    const struct cron_field *f = part->field;

    stk_programs_fail(part->ctx,
                      "%s = '%s': expected a number from %d to %d, -N for every N-th, or as in "
                      "crontab *, */N, N-M and lists",
                      f->name, part->text, f->min, f->max);
}

/* Adds from..to, each step-th of it. False: that is no part of the field. */
static bool cron_range(struct cron_part *part, int from, int to, int step)
{
    if (from < 0 || from < part->field->min || to > part->field->max || from > to || step < 1)
        return false;
    for (int v = from; v <= to; v += step)
        part->bits |= UINT64_C(1) << v;
    return true;
}

/* uWSGI's -N: what N divides. */
static bool cron_divided(struct cron_part *part, int step)
{
    part->number = false;
    if (step < 1)
        return false;
    for (int v = part->field->min; v <= part->field->max; v++)
        if (v % step == 0)
            part->bits |= UINT64_C(1) << v;
    return true;
}

/* One item of a list, up to a comma; behind it, or NULL. */
static const char *cron_item(struct cron_part *part, const char *p)
{
    int from = part->field->min, to = part->field->max, step = 1;
    bool one = false;

    if (*p == '-') {
        p++;
        return cron_divided(part, cron_number(&p)) ? p : NULL;
    }
    if (*p == '*') {
        p++;
        part->number = false;
    } else {
        from = to = cron_number(&p);
        one = true;
        if (*p == '-') {
            p++;
            to = cron_number(&p);
            one = false;
        }
    }
    if (*p == '/') {
        p++;
        step = cron_number(&p);
        to = one ? part->field->max : to;
    }
    return cron_range(part, from, to, step) ? p : NULL;
}

/* 0: a mistake was reported. */
static uint64_t cron_field(struct stk_programs_context *ctx, unsigned index, const char *text,
                           bool *ret_number)
{
    struct cron_part part = {
        .ctx = ctx, .field = &cron_fields[index], .text = text, .number = true};
    const char *p = cron_item(&part, text);

    while (p != NULL && *p == ',')
        p = cron_item(&part, p + 1);
    if (p == NULL || *p != '\0' || part.bits == 0) {
        cron_bad(&part);
        return 0;
    }
    *ret_number = part.number;
    return part.bits;
}

static void cron_take(struct stk_programs_context *ctx, struct stk_cron_spec *cron)
{
    bool day = false, weekday = false, other = false;

    cron->minutes = cron_field(ctx, 0, cron->text[0], &other);
    cron->hours = (uint32_t)cron_field(ctx, 1, cron->text[1], &other);
    cron->days = (uint32_t)cron_field(ctx, 2, cron->text[2], &day);
    cron->months = (uint32_t)cron_field(ctx, 3, cron->text[3], &other);
    cron->weekdays = (uint32_t)cron_field(ctx, 4, cron->text[4], &weekday);
    cron->weekdays |= cron->weekdays >> 7 & 1; /* 7 is Sunday, too */
    cron->day_or_weekday = day && weekday;
}

bool stk_cron_is_due(const struct stk_cron_spec *cron, const struct tm *tm)
{
    bool day = cron->days >> tm->tm_mday & 1;
    bool weekday = cron->weekdays >> tm->tm_wday & 1;

    return cron->minutes >> tm->tm_min & 1 && cron->hours >> tm->tm_hour & 1 &&
           cron->months >> (tm->tm_mon + 1) & 1 &&
           (cron->day_or_weekday ? day || weekday : day && weekday);
}

/* --- both forms of an entry ------------------------------------------------------------------- */

/* Five fields and the rest of the line. */
static void cron_read_line(struct stk_programs_context *ctx, const char *text,
                           struct stk_cron_spec *cron)
{
    static const char blanks[] = " \t";

    for (unsigned i = 0; i < CRON_FIELDS; i++) {
        size_t len;

        text += strspn(text, blanks);
        len = strcspn(text, blanks);
        free(cron->text[i]);
        cron->text[i] = stk_mem_strndup(text, len);
        text += len;
    }
    text += strspn(text, blanks);
    if (*text == '\0') {
        stk_programs_fail(ctx, "expected MINUTE HOUR DAY MONTH WEEKDAY COMMAND, as in '0 3 * * * "
                               "./clean.sh'");
        return;
    }
    cron->command = stk_mem_strdup(text);
}

static void cron_pair(struct stk_programs_context *ctx, const struct stk_row_pair *pair,
                      struct stk_cron_spec *cron)
{
    static const char *const names[] = {"minute", "hour",    "day",    "month",   "weekday",
                                        "week",   "command", "unique", "timeout", "name"};

    for (unsigned i = 0; i < CRON_FIELDS; i++)
        if (strcmp(pair->key, cron_fields[i].name) == 0 ||
            (i == 4 && strcmp(pair->key, "week") == 0)) {
            free(cron->text[i]);
            cron->text[i] = stk_mem_strdup(pair->value);
            return;
        }
    if (strcmp(pair->key, "command") == 0 && *pair->value) {
        free(cron->command);
        cron->command = stk_mem_strdup(pair->value);
    } else if (strcmp(pair->key, "name") == 0 && *pair->value) {
        free(cron->name);
        cron->name = stk_mem_strdup(pair->value);
    } else if (strcmp(pair->key, "unique") == 0) {
        cron->unique = stk_programs_bool(ctx, "unique", pair->value);
    } else if (strcmp(pair->key, "timeout") == 0) {
        cron->timeout = stk_programs_time(ctx, "timeout", pair->value, 1, "none");
    } else {
        stk_programs_unknown(ctx, "cron", pair->key, names, STK_ARRAY_LEN(names));
    }
}

static void cron_read_row(struct stk_programs_context *ctx, const char *text,
                          struct stk_cron_spec *cron)
{
    struct stk_row row = {0};
    char *error = NULL;

    if (stk_row_parse(text, &row, &error) != 0) {
        stk_programs_fail(ctx, "%s", error);
        free(error);
        return;
    }
    for (size_t i = 0; i < row.n; i++)
        cron_pair(ctx, &row.pairs[i], cron);
    stk_row_deinit(&row);
    if (cron->command == NULL)
        stk_programs_fail(ctx, "a cron has to have a command");
}

void stk_programs_read_touch(struct stk_programs_context *ctx, const char *text,
                             struct stk_cron_spec *ret_cron)
{
    size_t len;

    text += strspn(text, " \t");
    len = strcspn(text, " \t");
    for (unsigned i = 0; i < CRON_FIELDS; i++)
        ret_cron->text[i] = stk_mem_strdup("-");
    ret_cron->timeout = ctx->config->cron_timeout;
    ret_cron->touch = stk_mem_strndup(text, len);
    text += len;
    ret_cron->command = stk_mem_strdup(text + strspn(text, " \t"));
    ret_cron->name = stk_programs_name(ret_cron->command);
    if (len == 0 || *ret_cron->command == '\0')
        stk_programs_fail(ctx, "expected FILE COMMAND");
}

void stk_programs_read_cron(struct stk_programs_context *ctx, const char *text,
                            struct stk_cron_spec *ret_cron)
{
    for (unsigned i = 0; i < CRON_FIELDS; i++)
        ret_cron->text[i] = stk_mem_strdup("*");
    ret_cron->timeout = ctx->config->cron_timeout;
    text += strspn(text, " \t");
    /* A time begins with a digit or a sign, a row with a key. */
    if ((*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z'))
        cron_read_row(ctx, text, ret_cron);
    else
        cron_read_line(ctx, text, ret_cron);
    if (!ctx->failed)
        cron_take(ctx, ret_cron);
    if (ret_cron->name == NULL && ret_cron->command != NULL)
        ret_cron->name = stk_programs_name(ret_cron->command);
}
