/*
 * Rules of `route` and of `header`: what a row (row.h) may say, as one table for both, and what has
 * to go together.
 *
 * The keys of an answer may stand in a table of their own in a file (`return = {status = 410, body
 * = "gone"}`): it arrives here as return.status and return.body.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "config/row.h"
#include "config/site.h"
#include "config/strv.h"
#include "config/value.h"

enum rule_where { RULE_ROUTE = 1, RULE_HEADER = 2, RULE_BOTH = 3 };

enum rule_key {
    RULE_HOST,
    RULE_PATH,
    RULE_PREFIX,
    RULE_REGEX,
    RULE_METHOD,
    RULE_APP,
    RULE_STRIP,
    RULE_REDIRECT,
    RULE_RETURN,
    RULE_STATIC,
    RULE_TRY,
    RULE_STATUS,
    RULE_BODY,
    RULE_TYPE,
    RULE_TIMEOUT,
    RULE_SET,
    RULE_ADD,
    RULE_REMOVE,
    RULE_DEFAULT,
};

static const struct {
    const char *name;
    enum rule_key key;
    enum rule_where where;
    bool several; /* may be given more than once */
} rule_keys[] = {
    {"host", RULE_HOST, RULE_BOTH, true},
    {"path", RULE_PATH, RULE_BOTH, false},
    {"prefix", RULE_PREFIX, RULE_BOTH, false},
    {"regex", RULE_REGEX, RULE_BOTH, false},
    {"method", RULE_METHOD, RULE_BOTH, true},
    {"app", RULE_APP, RULE_ROUTE, false},
    {"strip", RULE_STRIP, RULE_ROUTE, false},
    {"redirect", RULE_REDIRECT, RULE_ROUTE, false},
    {"static", RULE_STATIC, RULE_ROUTE, false},
    {"try", RULE_TRY, RULE_ROUTE, false},
    {"return", RULE_RETURN, RULE_ROUTE, false},
    {"return.status", RULE_RETURN, RULE_ROUTE, false},
    {"status", RULE_STATUS, RULE_BOTH, true},
    {"body", RULE_BODY, RULE_ROUTE, false},
    {"return.body", RULE_BODY, RULE_ROUTE, false},
    {"type", RULE_TYPE, RULE_ROUTE, false},
    {"return.type", RULE_TYPE, RULE_ROUTE, false},
    {"timeout", RULE_TIMEOUT, RULE_ROUTE, false},
    {"header", RULE_SET, RULE_ROUTE, true},
    {"set", RULE_SET, RULE_BOTH, true},
    {"add", RULE_ADD, RULE_BOTH, true},
    {"remove", RULE_REMOVE, RULE_BOTH, true},
    {"default", RULE_DEFAULT, RULE_BOTH, true},
};

/* Fields that say where a message ends, or belong to the connection: the server's own. */
static const char *const rule_forbidden[] = {
    "status",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "trailers",
    "upgrade",
    "proxy-authenticate",
    "proxy-authorization",
};

struct rule_reader {
    struct stk_site_context *ctx;
    struct stk_site_rule *rule;
    enum rule_where where;
    unsigned seen;    /* 1 << enum rule_key */
    unsigned actions; /* how many */
    char *app;
};

static bool rule_seen(const struct rule_reader *r, enum rule_key key)
{
    return r->seen & (1u << key);
}

/* --- values ---------------------------------------------------------------------------------- */

static bool rule_is_token(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'z') ||
              (text[i] >= 'A' && text[i] <= 'Z') ||
              (text[i] && strchr("!#$%&'*+-.^_`|~", text[i]))))
            return false;
    return len > 0;
}

/* The position of the first control character, or NULL. */
static const char *rule_control(const char *text)
{
    for (; *text; text++)
        if (((unsigned char)*text < ' ' && *text != '\t') || *text == 0x7f)
            return text;
    return NULL;
}

static void rule_add_field(struct rule_reader *r, enum stk_site_op op, const char *text)
{
    const char *colon = strchr(text, ':');
    size_t len = op == STK_SITE_REMOVE ? strlen(text) : colon ? (size_t)(colon - text) : 0;
    struct stk_site_field *fields;
    STK_CLEANUP(stk_mem_freep) char *name = stk_mem_strndup(text, len);

    if (!rule_is_token(name, len)) {
        stk_site_fail(r->ctx,
                      op == STK_SITE_REMOVE ? "'%s' is not the name of a field"
                                            : "'%s': expected a field, as 'Name: value'",
                      text);
        return;
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(rule_forbidden); i++)
        if (strcasecmp(name, rule_forbidden[i]) == 0) {
            stk_site_fail(r->ctx,
                          "%s is the server's own field: it says where a message ends, or "
                          "belongs to the connection",
                          name);
            return;
        }
    text = op == STK_SITE_REMOVE ? "" : text + len + 1;
    text += strspn(text, " \t");
    if (rule_control(text)) {
        stk_site_fail(r->ctx, "the value of %s holds a control character", name);
        return;
    }
    fields = stk_new0_array(struct stk_site_field, r->rule->nfields + 1);
    if (r->rule->nfields > 0)
        memcpy(fields, r->rule->fields, r->rule->nfields * sizeof *fields);
    free(r->rule->fields);
    r->rule->fields = fields;
    fields[r->rule->nfields++] = (struct stk_site_field){
        .op = op,
        .name = stk_steal(&name),
        .value = op == STK_SITE_REMOVE ? NULL : stk_mem_strdup(text),
    };
}

/* A number of three digits within bounds; 0 when it is none. */
static unsigned rule_number(const char *text, size_t len, unsigned least)
{
    unsigned v = 0;

    if (len != 3)
        return 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
        v = v * 10 + (unsigned)(text[i] - '0');
    }
    return v >= least && v < STK_SITE_STATUSES ? v : 0;
}

/* One of the statuses of a rule for fields: 404 or 4xx. */
static void rule_add_status(struct rule_reader *r, const char *text, size_t len)
{
    unsigned first, n = 1;

    if (!r->rule->statuses)
        r->rule->statuses = stk_new0_array(bool, STK_SITE_STATUSES);
    first = rule_number(text, len, 200);
    if (len == 3 && text[0] >= '2' && text[0] <= '5' && strncasecmp(text + 1, "xx", 2) == 0) {
        first = (unsigned)(text[0] - '0') * 100;
        n = 100;
    }
    if (first == 0)
        stk_site_fail(r->ctx, "status = '%.*s': expected a status of 200 to 599, or 4xx", (int)len,
                      text);
    else
        memset(r->rule->statuses + first, true, n * sizeof *r->rule->statuses);
}

static void rule_status(struct rule_reader *r, const char *text)
{
    if (r->rule->status != 0)
        stk_site_fail(r->ctx, "status is given twice");
    r->rule->status = rule_number(text, strlen(text), 200);
    if (r->rule->status == 0)
        stk_site_fail(r->ctx, "status = '%s': expected a status of 200 to 599", text);
}

static void rule_method(struct rule_reader *r, const char *text, size_t len)
{
    char *method = stk_mem_strndup(text, len);

    if (!rule_is_token(method, len)) {
        stk_site_fail(r->ctx, "'%s' is not a method", method);
        free(method);
        return;
    }
    for (char *c = method; *c; c++)
        if (*c >= 'a' && *c <= 'z')
            *c = (char)(*c - 'a' + 'A');
    stk_strv_append(&r->rule->match.methods, method);
}

/* Words between commas. */
static void rule_words(struct rule_reader *r, enum rule_key key, const char *text)
{
    const char *word, *pos = text;
    size_t len = 0;
    bool any = false;

    while ((word = stk_options_next_word(&pos, &len))) {
        while (len > 0 && *word == ' ') {
            word++;
            len--;
        }
        any = true;
        if (key == RULE_HOST)
            stk_site_add_host(r->ctx, &r->rule->match, word, len);
        else if (key == RULE_METHOD)
            rule_method(r, word, len);
        else
            rule_add_status(r, word, len);
    }
    if (!any)
        stk_site_fail(r->ctx, "a value is empty");
}

static void rule_text(struct rule_reader *r, char **field, const char *what, const char *text)
{
    if (!*text) {
        stk_site_fail(r->ctx, "%s is empty", what);
        return;
    }
    free(*field);
    *field = stk_mem_strdup(text);
}

static void rule_action(struct rule_reader *r, enum stk_site_action action, const char *what,
                        const char *text)
{
    r->actions++;
    r->rule->action = action;
    if (action == STK_SITE_APP)
        rule_text(r, &r->app, what, text);
    else if (action == STK_SITE_RETURN)
        rule_status(r, text);
    else
        rule_text(r, &r->rule->target, what, text);
}

/* What is answered where the directory has no such file. */
static void rule_try(struct rule_reader *r, const char *text)
{
    r->rule->next = strcmp(text, "next") == 0;
    if (*text != '/' && !r->rule->next)
        stk_site_fail(r->ctx,
                      "try = '%s': expected a file of the directory, as /index.html, or next, for "
                      "the rules that follow",
                      text);
    else if (!r->rule->next)
        r->rule->attempt = stk_mem_strdup(text);
}

static void rule_strip(struct rule_reader *r, const char *text)
{
    r->rule->strip = strcmp(text, "true") == 0;
    if (!r->rule->strip && strcmp(text, "false") != 0)
        stk_site_fail(r->ctx, "strip = '%s': expected true or false", text);
}

/* As request-timeout, whose place it takes. */
static void rule_timeout(struct rule_reader *r, const char *text)
{
    const struct stk_option *opt = &stk_options_rows()[STK_OPTION_ID_REQUEST_TIMEOUT];
    struct stk_value value = {0};

    if (stk_value_parse(opt, text, &value) != 0) {
        STK_CLEANUP(stk_mem_freep) char *expected = stk_value_expected(opt);

        stk_site_fail(r->ctx, "timeout = '%s': expected %s", text, expected);
        return;
    }
    r->rule->timeout = value.number > 0 ? value.number : STK_SITE_UNLIMITED;
}

/* --- keys ------------------------------------------------------------------------------------ */

static void rule_set(struct rule_reader *r, enum rule_key key, const char *name, const char *value)
{
    struct stk_site_match *match = &r->rule->match;

    switch (key) {
    case RULE_HOST:
    case RULE_METHOD:
        rule_words(r, key, value);
        break;
    case RULE_PATH:
        if (stk_site_check_path(r->ctx, name, value))
            match->path = stk_mem_strdup(value);
        break;
    case RULE_PREFIX:
        if (stk_site_check_path(r->ctx, name, value))
            match->prefix = stk_mem_strdup(value);
        break;
    case RULE_REGEX:
        rule_text(r, &match->regex, name, value);
        break;
    case RULE_APP:
        rule_action(r, STK_SITE_APP, name, value);
        break;
    case RULE_REDIRECT:
        rule_action(r, STK_SITE_REDIRECT, name, value);
        break;
    case RULE_RETURN:
        rule_action(r, STK_SITE_RETURN, name, value);
        break;
    case RULE_STATIC:
        rule_action(r, STK_SITE_STATIC, name, value);
        break;
    case RULE_TRY:
        rule_try(r, value);
        break;
    case RULE_STRIP:
        rule_strip(r, value);
        break;
    case RULE_STATUS:
        if (r->where == RULE_HEADER)
            rule_words(r, key, value);
        else
            rule_status(r, value);
        break;
    case RULE_BODY:
        free(r->rule->body);
        r->rule->body = stk_mem_strdup(value);
        break;
    case RULE_TYPE:
        rule_text(r, &r->rule->type, name, value);
        break;
    case RULE_TIMEOUT:
        rule_timeout(r, value);
        break;
    default:
        rule_add_field(r, (enum stk_site_op)(key - RULE_SET), value);
    }
}

/* Says which key was perhaps meant. */
static void rule_unknown(struct rule_reader *r, const char *key)
{
    const char *what = r->where == RULE_ROUTE ? "route" : "header";
    const char *near = NULL;
    size_t best = strlen(key) / 3 + 2;

    for (size_t i = 0; i < STK_ARRAY_LEN(rule_keys); i++) {
        size_t distance = stk_options_distance(key, rule_keys[i].name);

        if (rule_keys[i].where & r->where && distance < best) {
            best = distance;
            near = rule_keys[i].name;
        }
    }
    if (near)
        stk_site_fail(r->ctx, "a %s has no key '%s'; did you mean '%s'?", what, key, near);
    else
        stk_site_fail(r->ctx, "a %s has no key '%s'", what, key);
}

static void rule_pair(struct rule_reader *r, const struct stk_row_pair *pair)
{
    for (size_t i = 0; i < STK_ARRAY_LEN(rule_keys); i++) {
        if (!(rule_keys[i].where & r->where) || strcmp(rule_keys[i].name, pair->key) != 0)
            continue;
        if (rule_seen(r, rule_keys[i].key) && !rule_keys[i].several)
            stk_site_fail(r->ctx, "%s is given twice", pair->key);
        else
            rule_set(r, rule_keys[i].key, pair->key, pair->value);
        r->seen |= 1u << rule_keys[i].key;
        return;
    }
    rule_unknown(r, pair->key);
}

static void rule_read(struct rule_reader *r, const char *text)
{
    struct stk_row row = {0};
    char *error = NULL;

    if (stk_row_parse(text, &row, &error) != 0) {
        stk_site_fail(r->ctx, "%s", error);
        free(error);
        return;
    }
    for (size_t i = 0; i < row.n; i++)
        rule_pair(r, &row.pairs[i]);
    stk_row_deinit(&row);
    if (rule_seen(r, RULE_PATH) + rule_seen(r, RULE_PREFIX) + rule_seen(r, RULE_REGEX) > 1)
        stk_site_fail(r->ctx, "path, prefix and regex are three ways to say the same: give one");
}

/* --- what has to go together ------------------------------------------------------------------ */

static void rule_check_redirect(struct rule_reader *r)
{
    static const unsigned allowed[] = {301, 302, 303, 307, 308};

    if (rule_control(r->rule->target))
        stk_site_fail(r->ctx, "redirect holds a control character");
    if (r->rule->status == 0)
        r->rule->status = 302;
    for (size_t i = 0; i < STK_ARRAY_LEN(allowed); i++)
        if (r->rule->status == allowed[i])
            return;
    stk_site_fail(r->ctx, "status = %u: a redirect has 301, 302, 303, 307 or 308", r->rule->status);
}

static void rule_check_action(struct rule_reader *r)
{
    const struct stk_site_rule *rule = r->rule;

    if (r->actions != 1) {
        stk_site_fail(r->ctx,
                      r->actions == 0
                          ? "says nothing to do: give one of app, redirect, static and return"
                          : "app, redirect, static and return: give one of them");
        return;
    }
    if (rule->action == STK_SITE_REDIRECT)
        rule_check_redirect(r);
    else if (rule_seen(r, RULE_STATUS) && rule->action != STK_SITE_RETURN)
        stk_site_fail(r->ctx, "status belongs to redirect and return");
    if ((rule->body || rule->type) && rule->action != STK_SITE_RETURN)
        stk_site_fail(r->ctx, "body and type belong to return");
    if (rule_seen(r, RULE_TRY) && rule->action != STK_SITE_STATIC)
        stk_site_fail(r->ctx, "try belongs to static");
    if (rule_seen(r, RULE_TIMEOUT) && rule->action != STK_SITE_APP)
        stk_site_fail(r->ctx, "timeout belongs to app");
    if (rule->type && rule_control(rule->type))
        stk_site_fail(r->ctx, "type holds a control character");
    if (rule->body && (rule->status == 204 || rule->status == 304))
        stk_site_fail(r->ctx, "an answer of status %u has no body", rule->status);
    if (rule_seen(r, RULE_STRIP) && (rule->action != STK_SITE_APP || !rule->match.prefix))
        stk_site_fail(r->ctx, "strip belongs to app and a prefix");
}

void stk_site_read_route(struct stk_site_context *ctx, const char *text,
                         struct stk_site_rule *ret_rule)
{
    struct rule_reader r = {.ctx = ctx, .rule = ret_rule, .where = RULE_ROUTE};

    ret_rule->strip = true;
    if (text[0] == '^' || text[0] == '/' || text[0] == '.') {
        stk_site_fail(
            ctx, "expected rows of key=value, as in \"regex='^/old/(.*)' "
                 "redirect=/new/$1\"; a rule of uWSGI's routing language belongs to uwsgi-route");
        return;
    }
    rule_read(&r, text);
    if (!ctx->failed)
        rule_check_action(&r);
    if (!ctx->failed && ret_rule->action == STK_SITE_APP) {
        STK_CLEANUP(stk_mem_freep) char *place = stk_mem_printf("route %zu", ctx->item + 1);

        ret_rule->app = stk_site_app(ctx->site, r.app, place);
        ret_rule->strip = ret_rule->strip && ret_rule->match.prefix;
    }
    if (!ctx->failed && ret_rule->action == STK_SITE_STATIC && ctx->dir != NULL &&
        ret_rule->target[0] != '/') {
        char *path = stk_mem_printf("%s/%s", ctx->dir, ret_rule->target);

        free(ret_rule->target);
        ret_rule->target = path;
    }
    free(r.app);
}

void stk_site_read_header(struct stk_site_context *ctx, const char *text,
                          struct stk_site_rule *ret_rule)
{
    struct rule_reader r = {.ctx = ctx, .rule = ret_rule, .where = RULE_HEADER};

    /* The sign that comes first tells a field from a row: no name of a field has a "=". */
    if (text[strcspn(text, ":= ")] != '=') {
        rule_add_field(&r, STK_SITE_SET, text);
        return;
    }
    rule_read(&r, text);
    if (!ctx->failed && ret_rule->nfields == 0)
        stk_site_fail(ctx, "says nothing to do: give set, add, remove or default");
}
