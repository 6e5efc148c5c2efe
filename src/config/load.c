/*
 * Putting a configuration together.
 *
 * Each option remembers the origin of what it holds, and precedence is nothing but a comparison of
 * origins: so the sources can be read in any order (the command line comes first, because it names
 * the file). A list belongs to its highest source as a whole, but for the variables of `env`, which
 * add up by name. A value that loses is still checked: a mistake in a file should not wait for the
 * day on which the command line stops hiding it.
 */
#include "config/load.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "config/value.h"

#define LOAD_MAGIC       0x6c6f6164u
#define LOAD_MAX_SUGGEST 80

struct stk_load {
    unsigned magic;
    struct stk_config config;
    struct stk_provenance provenance[STK_OPTION_COUNT];
    struct stk_strv errors;
    struct stk_strv warnings;
    struct stk_strv names; /* what the origins point to */
};

static const struct stk_origin load_default = {.kind = STK_ORIGIN_DEFAULT};

/* --- lists of strings ------------------------------------------------------------------------ */

/* Puts an owned string at an index; what is there moves up. */
static void load_strv_insert(struct stk_strv *strv, size_t at, char *item)
{
    char **items = stk_new0_array(char *, strv->n + 2);

    for (size_t i = 0; i < strv->n; i++)
        items[i < at ? i : i + 1] = strv->items[i];
    items[at] = item;
    free(strv->items);
    strv->items = items;
    strv->n++;
}

static void load_strv_append(struct stk_strv *strv, char *item)
{
    load_strv_insert(strv, strv->n, item);
}

static void load_strv_clear(struct stk_strv *strv)
{
    for (size_t i = 0; i < strv->n; i++)
        free(strv->items[i]);
    free(strv->items);
    *strv = (struct stk_strv){0};
}

static void load_origins_insert(struct stk_provenance *prov, size_t at,
                                const struct stk_origin *origin)
{
    struct stk_origin *items = stk_new0_array(struct stk_origin, prov->n + 1);

    for (size_t i = 0; i < prov->n; i++)
        items[i < at ? i : i + 1] = prov->items[i];
    items[at] = *origin;
    free(prov->items);
    prov->items = items;
    prov->n++;
}

static void load_origins_clear(struct stk_provenance *prov)
{
    free(prov->items);
    *prov = (struct stk_provenance){0};
}

/* --- fields ---------------------------------------------------------------------------------- */

static void *load_field(const struct stk_load *load, const struct stk_option *opt)
{
    return (char *)(uintptr_t)&load->config + opt->offset;
}

static bool load_is_text(const struct stk_option *opt)
{
    return opt->kind == STK_OPTION_STRING || opt->kind == STK_OPTION_UMASK;
}

static bool load_is_flag(const struct stk_option *opt)
{
    return opt->kind == STK_OPTION_BOOL || opt->kind == STK_OPTION_SWITCH;
}

static struct stk_provenance *load_prov(struct stk_load *load, const struct stk_option *opt)
{
    return &load->provenance[opt - stk_options_rows()];
}

static void load_store(struct stk_load *load, const struct stk_option *opt, struct stk_value *value,
                       const struct stk_origin *origin)
{
    struct stk_provenance *prov = load_prov(load, opt);
    void *field = load_field(load, opt);

    if (load_is_text(opt)) {
        free(*(char **)field);
        *(char **)field = stk_steal(&value->text);
    } else if (load_is_flag(opt)) {
        *(bool *)field = value->number != 0;
    } else {
        *(int64_t *)field = value->number;
    }
    load_origins_clear(prov);
    load_origins_insert(prov, 0, origin);
    prov->top = *origin;
}

static void load_clear_list(struct stk_load *load, const struct stk_option *opt,
                            const struct stk_origin *origin)
{
    struct stk_provenance *prov = load_prov(load, opt);

    load_strv_clear(load_field(load, opt));
    load_origins_clear(prov);
    prov->top = *origin;
}

static struct stk_origin load_keep_origin(struct stk_load *load, const struct stk_origin *origin)
{
    struct stk_origin kept = *origin;

    if (!origin->name)
        return kept;
    for (size_t i = 0; i < load->names.n; i++)
        if (strcmp(load->names.items[i], origin->name) == 0) {
            kept.name = load->names.items[i];
            return kept;
        }
    load_strv_append(&load->names, stk_mem_strdup(origin->name));
    kept.name = load->names.items[load->names.n - 1];
    return kept;
}

/* --- errors ---------------------------------------------------------------------------------- */

char *stk_load_origin_text(const struct stk_origin *origin)
{
    switch (origin->kind) {
    case STK_ORIGIN_FILE:
        if (origin->line)
            return stk_mem_printf("%s:%u", origin->name, origin->line);
        return stk_mem_strdup(origin->name);
    case STK_ORIGIN_ENVIRONMENT:
        return stk_mem_printf("environment %s", origin->name);
    case STK_ORIGIN_COMMAND_LINE:
        return stk_mem_strdup("command line");
    case STK_ORIGIN_DEFAULT:
        break;
    }
    return stk_mem_strdup("default");
}

static STK_PRINTF(1, 0) char *load_vprintf(const char *fmt, va_list ap)
{
    char *text = NULL;

    STK_ASSERT(vasprintf(&text, fmt, ap) >= 0);
    return text;
}

void stk_load_fail(struct stk_load *load, const struct stk_origin *origin, const char *fmt, ...)
{
    STK_CLEANUP(stk_mem_freep) char *where = stk_load_origin_text(origin);
    STK_CLEANUP(stk_mem_freep) char *what = NULL;
    va_list ap;

    va_start(ap, fmt);
    what = load_vprintf(fmt, ap);
    va_end(ap);
    load_strv_append(&load->errors, stk_mem_printf("%s: %s", where, what));
}

void stk_load_reject(struct stk_load *load, const struct stk_option *opt, size_t item,
                     const char *fmt, ...)
{
    const struct stk_provenance *prov = load_prov(load, opt);
    STK_CLEANUP(stk_mem_freep) char *value = stk_load_text(load, opt, item);
    STK_CLEANUP(stk_mem_freep) char *what = NULL;
    va_list ap;

    va_start(ap, fmt);
    what = load_vprintf(fmt, ap);
    va_end(ap);
    stk_load_fail(load, item < prov->n ? &prov->items[item] : &prov->top, "%s = '%s': %s",
                  opt->name, value, what);
}

static void load_unknown(struct stk_load *load, const char *name, const struct stk_origin *origin)
{
    const char *dash = origin->kind == STK_ORIGIN_COMMAND_LINE ? "--" : "";
    char near[LOAD_MAX_SUGGEST];

    if (stk_options_suggest(name, near, sizeof(near)))
        stk_load_fail(load, origin, "unknown option '%s%s'; did you mean '%s%s'?", dash, name, dash,
                      near);
    else
        stk_load_fail(load, origin, "unknown option '%s%s'", dash, name);
}

static void load_twice(struct stk_load *load, const struct stk_option *opt,
                       const struct stk_origin *first, const struct stk_origin *origin)
{
    STK_CLEANUP(stk_mem_freep) char *where = stk_load_origin_text(first);

    if (first->kind == STK_ORIGIN_FILE)
        stk_load_fail(load, origin, "%s is given twice (first: %s)", opt->name, where);
    else
        stk_load_fail(load, origin, "%s is given twice", opt->name);
}

/* --- setting --------------------------------------------------------------------------------- */

static void load_set_scalar(struct stk_load *load, const struct stk_option *opt,
                            struct stk_value *value, const struct stk_origin *origin)
{
    const struct stk_origin *top = &load_prov(load, opt)->top;

    if (origin->kind > top->kind || origin->kind == STK_ORIGIN_DEFAULT)
        load_store(load, opt, value, origin);
    else if (origin->kind == top->kind)
        load_twice(load, opt, top, origin);
}

static void load_add_item(struct stk_load *load, const struct stk_option *opt,
                          struct stk_value *value, const struct stk_origin *origin)
{
    struct stk_provenance *prov = load_prov(load, opt);
    struct stk_strv *strv = load_field(load, opt);

    if (origin->kind < prov->top.kind)
        return;
    if (origin->kind > prov->top.kind)
        load_clear_list(load, opt, origin);
    load_strv_append(strv, stk_steal(&value->text));
    load_origins_insert(prov, prov->n, origin);
}

/* NAME=value: of the same name the higher source wins, different names add up. */
static void load_add_var(struct stk_load *load, const struct stk_option *opt,
                         struct stk_value *value, const struct stk_origin *origin)
{
    struct stk_provenance *prov = load_prov(load, opt);
    struct stk_strv *strv = load_field(load, opt);
    size_t len = strcspn(value->text, "=") + 1;

    if (origin->kind > prov->top.kind)
        prov->top = *origin;
    for (size_t i = 0; i < strv->n; i++) {
        if (strncmp(strv->items[i], value->text, len) != 0)
            continue;
        if (origin->kind == prov->items[i].kind) {
            stk_load_fail(load, origin, "%s: %.*s is given twice", opt->name, (int)len - 1,
                          value->text);
        } else if (origin->kind > prov->items[i].kind) {
            free(strv->items[i]);
            strv->items[i] = stk_steal(&value->text);
            prov->items[i] = *origin;
        }
        return;
    }
    load_strv_append(strv, stk_steal(&value->text));
    load_origins_insert(prov, prov->n, origin);
}

static void load_set_one(struct stk_load *load, const struct stk_option *opt, const char *text,
                         const struct stk_origin *origin)
{
    struct stk_value value = {0};

    if (stk_value_parse(opt, text, &value) != 0) {
        STK_CLEANUP(stk_mem_freep) char *expected = stk_value_expected(opt);

        stk_load_fail(load, origin, "%s = '%s': expected %s", opt->name, text, expected);
        return;
    }
    if (opt->kind == STK_OPTION_VARS)
        load_add_var(load, opt, &value, origin);
    else if (stk_options_is_list(opt))
        load_add_item(load, opt, &value, origin);
    else
        load_set_scalar(load, opt, &value, origin);
    free(value.text);
}

/* Each word of a text as one value of a list. */
static void load_set_split(struct stk_load *load, const struct stk_option *opt, const char *text,
                           const char *separators, const struct stk_origin *origin)
{
    size_t found = 0;

    for (const char *pos = text; *pos;) {
        size_t len = strcspn(pos, separators);

        if (len > 0) {
            STK_CLEANUP(stk_mem_freep) char *word = stk_mem_strndup(pos, len);

            load_set_one(load, opt, word, origin);
            found++;
        }
        pos += len;
        pos += strspn(pos, separators);
    }
    if (found > 0)
        return;
    if (!opt->empty)
        load_set_one(load, opt, "", origin); /* says what was expected */
    else if (origin->kind >= load_prov(load, opt)->top.kind)
        load_clear_list(load, opt, origin);
}

static void load_set_row(struct stk_load *load, const struct stk_option *opt, const char *text,
                         const struct stk_origin *origin)
{
    bool split =
        opt->kind == STK_OPTION_NETS || (opt->separators && origin->kind == STK_ORIGIN_ENVIRONMENT);

    if (split)
        load_set_split(load, opt, text, opt->separators, origin);
    else
        load_set_one(load, opt, text, origin);
}

/* The row of a name that a source may set, or NULL and an error. */
static const struct stk_option *load_find(struct stk_load *load, const char *name,
                                          const struct stk_origin *origin)
{
    const struct stk_option *opt = stk_options_find(name, strlen(name));

    if (!opt) {
        load_unknown(load, name, origin);
        return NULL;
    }
    if (opt->kind == STK_OPTION_COMMAND) {
        stk_load_fail(load, origin, "%s belongs on the command line", opt->name);
        return NULL;
    }
    return opt;
}

void stk_load_set(struct stk_load *load, const char *name, const char *value,
                  const struct stk_origin *origin)
{
    const struct stk_option *opt;
    struct stk_origin kept;

    STK_CHECK_MAGIC(load, LOAD_MAGIC);
    kept = load_keep_origin(load, origin);
    opt = load_find(load, name, &kept);
    if (!opt)
        return;
    if (value)
        load_set_row(load, opt, value, &kept);
    else if (opt->kind == STK_OPTION_BOOL)
        load_set_row(load, opt, "true", &kept);
    else
        stk_load_fail(load, &kept, "%s needs a value", opt->name);
}

void stk_load_set_list(struct stk_load *load, const char *name, const char *const *values, size_t n,
                       const struct stk_origin *origin)
{
    const struct stk_option *opt;
    struct stk_origin kept;

    STK_CHECK_MAGIC(load, LOAD_MAGIC);
    kept = load_keep_origin(load, origin);
    opt = load_find(load, name, &kept);
    if (!opt)
        return;
    if (!stk_options_is_list(opt)) {
        stk_load_fail(load, &kept, "%s takes one value, not a list", opt->name);
        return;
    }
    if (n == 0 && opt->kind != STK_OPTION_VARS)
        load_set_split(load, opt, "", ", ", &kept);
    for (size_t i = 0; i < n; i++)
        load_set_row(load, opt, values[i], &kept);
}

/* --- life ------------------------------------------------------------------------------------ */

static void load_defaults(struct stk_load *load)
{
    const struct stk_option *rows = stk_options_rows();

    for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
        const struct stk_option *opt = &rows[i];

        if (opt->kind == STK_OPTION_MODE)
            *(int64_t *)load_field(load, opt) = -1;
        if (!opt->def)
            continue;
        if (stk_options_is_list(opt))
            load_set_split(load, opt, opt->def, " ", &load_default);
        else
            load_set_one(load, opt, opt->def, &load_default);
    }
    STK_ASSERT(load->errors.n == 0);
}

struct stk_load *stk_load_new(void)
{
    struct stk_load *load = stk_new0(struct stk_load);

    load->magic = LOAD_MAGIC;
    load_defaults(load);
    return load;
}

struct stk_load *stk_load_free(struct stk_load *load)
{
    const struct stk_option *rows = stk_options_rows();

    if (!load)
        return NULL;
    STK_CHECK_MAGIC(load, LOAD_MAGIC);
    for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
        if (rows[i].kind == STK_OPTION_COMMAND)
            continue;
        if (load_is_text(&rows[i]))
            free(*(char **)load_field(load, &rows[i]));
        if (stk_options_is_list(&rows[i]))
            load_strv_clear(load_field(load, &rows[i]));
        load_origins_clear(&load->provenance[i]);
    }
    free(load->config.cwd);
    load_strv_clear(&load->errors);
    load_strv_clear(&load->warnings);
    load_strv_clear(&load->names);
    load->magic = 0;
    free(load);
    return NULL;
}

struct stk_config *stk_load_config(struct stk_load *load)
{
    return &load->config;
}

const struct stk_strv *stk_load_errors(const struct stk_load *load)
{
    return &load->errors;
}

const struct stk_strv *stk_load_warnings(const struct stk_load *load)
{
    return &load->warnings;
}

const struct stk_provenance *stk_load_provenance(const struct stk_load *load,
                                                 const struct stk_option *opt)
{
    return &load->provenance[opt - stk_options_rows()];
}

size_t stk_load_count(const struct stk_load *load, const struct stk_option *opt)
{
    const void *field = load_field(load, opt);

    if (opt->kind == STK_OPTION_COMMAND)
        return 0;
    if (stk_options_is_list(opt))
        return ((const struct stk_strv *)field)->n;
    if (load_is_text(opt))
        return *(char *const *)field ? 1 : 0;
    return opt->kind == STK_OPTION_MODE && *(const int64_t *)field < 0 ? 0 : 1;
}

char *stk_load_text(const struct stk_load *load, const struct stk_option *opt, size_t item)
{
    const void *field = load_field(load, opt);

    if (item >= stk_load_count(load, opt))
        return stk_mem_strdup("");
    if (stk_options_is_list(opt))
        return stk_mem_strdup(((const struct stk_strv *)field)->items[item]);
    if (load_is_text(opt))
        return stk_mem_strdup(*(char *const *)field);
    if (load_is_flag(opt))
        return stk_value_format(opt, *(const bool *)field);
    return stk_value_format(opt, *(const int64_t *)field);
}

/* --- environment and cross-checks ------------------------------------------------------------- */

/* The name of the option that a variable STOKER_NAME stands for. */
static char *load_variable_option(const char *variable, size_t len)
{
    char *name = stk_mem_strndup(variable, len);

    for (char *c = name; *c; c++)
        *c = (char)(*c == '_' ? '-' : *c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
    return name;
}

/* An unknown STOKER_X only warns: the platform may have set it (a cluster's service variables). */
static void load_environ_stoker(struct stk_load *load, const char *entry)
{
    const char *eq = strchr(entry, '=');
    size_t prefix = strlen("STOKER_");
    STK_CLEANUP(stk_mem_freep) char *variable = stk_mem_strndup(entry, (size_t)(eq - entry));
    STK_CLEANUP(stk_mem_freep)
    char *name = load_variable_option(variable + prefix, strlen(variable) - prefix);
    const struct stk_origin origin = {.kind = STK_ORIGIN_ENVIRONMENT, .name = variable};
    const struct stk_option *opt = stk_options_find(name, strlen(name));
    char near[LOAD_MAX_SUGGEST];

    if (opt && opt->kind != STK_OPTION_COMMAND) {
        stk_load_set(load, name, eq + 1, &origin);
    } else if (!opt && stk_options_suggest(name, near, sizeof(near))) {
        for (char *c = near; *c; c++)
            *c = (char)(*c == '-' ? '_' : *c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
        load_strv_append(&load->warnings, stk_mem_printf("environment %s: no such option; did you "
                                                         "mean STOKER_%s?",
                                                         variable, near));
    }
}

/* WEB_CONCURRENCY and the like: below STOKER_*, and an empty one is none. */
static void load_environ_other(struct stk_load *load, const struct stk_option *opt,
                               const char *const *environment)
{
    const struct stk_origin origin = {.kind = STK_ORIGIN_ENVIRONMENT, .name = opt->variable};
    size_t len = strlen(opt->variable);

    if (load_prov(load, opt)->top.kind == STK_ORIGIN_ENVIRONMENT)
        return;
    for (; *environment; environment++)
        if (strncmp(*environment, opt->variable, len) == 0 && (*environment)[len] == '=' &&
            (*environment)[len + 1]) {
            stk_load_set(load, opt->name, *environment + len + 1, &origin);
            return;
        }
}

void stk_load_environ_own(struct stk_load *load, const char *const *environment)
{
    for (const char *const *entry = environment; *entry; entry++)
        if (strncmp(*entry, "STOKER_", strlen("STOKER_")) == 0 && strchr(*entry, '='))
            load_environ_stoker(load, *entry);
}

void stk_load_environ(struct stk_load *load, const char *const *environment)
{
    const struct stk_option *rows = stk_options_rows();

    stk_load_environ_own(load, environment);
    for (size_t i = 0; i < STK_OPTION_COUNT; i++)
        if (rows[i].variable)
            load_environ_other(load, &rows[i], environment);
}

static const struct stk_option *load_row(enum stk_option_id id)
{
    return &stk_options_rows()[id];
}

void stk_load_validate(struct stk_load *load)
{
    const struct stk_config *config = &load->config;

    if (!config->app && config->mount.n == 0 && config->route.n == 0 && load->errors.n == 0)
        load_strv_append(
            &load->errors,
            stk_mem_strdup("no application is given; name one, as in: stoker app:app"));
    if (config->callable && !config->app)
        stk_load_reject(load, load_row(STK_OPTION_ID_CALLABLE), 0,
                        "no application is given that it could be of");
    for (size_t i = 0; i < config->bind.n; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(config->bind.items[i], config->bind.items[j]) == 0)
                stk_load_reject(load, load_row(STK_OPTION_ID_BIND), i, "is given twice");
    if (config->limit_request_line > config->limit_request_head)
        stk_load_reject(load, load_row(STK_OPTION_ID_LIMIT_REQUEST_LINE), 0,
                        "is more than limit-request-head (%lld bytes), which counts the line too",
                        (long long)config->limit_request_head);
    if (config->callable && config->app && strchr(config->app, ':'))
        stk_load_reject(load, load_row(STK_OPTION_ID_CALLABLE), 0,
                        "the application '%s' names a callable already", config->app);
}
