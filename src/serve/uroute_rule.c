/*
 * Reads rules of uWSGI's internal routing, once, at the start. Each name of an action stands in one
 * table with what it may be used for; what uWSGI takes and reads in an unexpected way (a rule
 * without a colon, a condition without its second half) is refused or kept as it says there.
 *
 * An action that is not known is refused by name. The translation of uWSGI's options has dropped
 * what may be left out; whatever protects or answers has to be here, or the server does not start.
 */
#include "serve/uroute_rule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum rule_args {
    ARGS_NONE,
    ARGS_RAW,      /* kept in `key` */
    ARGS_TEXT,     /* a text with variables */
    ARGS_PAIR,     /* KEY=TEXT */
    ARGS_MATH,     /* KEY[,TEXT] */
    ARGS_NUMBER,   /* seconds */
    ARGS_FILE,     /* filename=TEXT,status=TEXT ... */
    ARGS_EXPIRES,  /* filename=TEXT,value=TEXT ... */
    ARGS_PASSWORD, /* REALM,USER:PASSWORD or REALM,FILE */
};

/* Where an action has an effect. */
enum {
    IN_REQUEST = 1 << UROUTE_REQUEST,
    IN_HEAD = 1 << UROUTE_ERROR | 1 << UROUTE_RESPONSE,
    IN_FINAL = 1 << UROUTE_FINAL,
    IN_ALL = IN_REQUEST | IN_HEAD | IN_FINAL,
};

static const struct {
    const char *name;
    enum uroute_action action;
    enum rule_args args;
    unsigned where;
    int variant;
} rule_actions[] = {
    {"continue", UROUTE_DO_CONTINUE, ARGS_NONE, IN_ALL, 0},
    {"last", UROUTE_DO_CONTINUE, ARGS_NONE, IN_ALL, 0},
    {"break", UROUTE_DO_BREAK, ARGS_RAW, IN_ALL, 0},
    {"return", UROUTE_DO_RETURN, ARGS_RAW, IN_REQUEST | IN_HEAD, 0},
    {"break-with-status", UROUTE_DO_RETURN, ARGS_RAW, IN_REQUEST | IN_HEAD, 0},
    {"goto", UROUTE_DO_GOTO, ARGS_TEXT, IN_ALL, 0},
    {"log", UROUTE_DO_LOG, ARGS_TEXT, IN_ALL, 0},
    {"donotlog", UROUTE_DO_DONOTLOG, ARGS_NONE, IN_ALL, 0},
    {"logvar", UROUTE_DO_LOGVAR, ARGS_PAIR, IN_ALL, 0},
    {"harakiri", UROUTE_DO_HARAKIRI, ARGS_NUMBER, IN_REQUEST, 0},
    {"addvar", UROUTE_DO_ADDVAR, ARGS_PAIR, IN_ALL, 0},
    {"+", UROUTE_DO_MATH, ARGS_MATH, IN_ALL, '+'},
    {"-", UROUTE_DO_MATH, ARGS_MATH, IN_ALL, '-'},
    {"*", UROUTE_DO_MATH, ARGS_MATH, IN_ALL, '*'},
    {"/", UROUTE_DO_MATH, ARGS_MATH, IN_ALL, '/'},
    {"addheader", UROUTE_DO_ADDHEADER, ARGS_TEXT, IN_REQUEST | IN_HEAD, 0},
    {"delheader", UROUTE_DO_DELHEADER, ARGS_TEXT, IN_REQUEST | IN_HEAD, 0},
    {"remheader", UROUTE_DO_DELHEADER, ARGS_TEXT, IN_REQUEST | IN_HEAD, 0},
    {"clearheaders", UROUTE_DO_CLEARHEADERS, ARGS_TEXT, IN_REQUEST, 0},
    {"resetheaders", UROUTE_DO_CLEARHEADERS, ARGS_TEXT, IN_REQUEST, 0},
    {"expires", UROUTE_DO_EXPIRES, ARGS_EXPIRES, IN_REQUEST | IN_HEAD, 0},
    {"send", UROUTE_DO_SEND, ARGS_TEXT, IN_REQUEST, 0},
    {"send-crnl", UROUTE_DO_SEND, ARGS_TEXT, IN_REQUEST, 1},
    {"setapp", UROUTE_DO_SET, ARGS_TEXT, IN_REQUEST, UROUTE_SET_APP},
    {"setuser", UROUTE_DO_SET, ARGS_TEXT, IN_REQUEST, UROUTE_SET_USER},
    {"setscriptname", UROUTE_DO_SET, ARGS_TEXT, IN_REQUEST, UROUTE_SET_SCRIPT},
    {"setmethod", UROUTE_DO_SET, ARGS_TEXT, IN_REQUEST, UROUTE_SET_METHOD},
    {"seturi", UROUTE_DO_SET, ARGS_TEXT, IN_REQUEST, UROUTE_SET_URI},
    {"setremoteaddr", UROUTE_DO_SET, ARGS_TEXT, IN_REQUEST, UROUTE_SET_ADDR},
    {"setpathinfo", UROUTE_DO_SET, ARGS_TEXT, IN_REQUEST, UROUTE_SET_PATH},
    {"setdocroot", UROUTE_DO_SET, ARGS_TEXT, IN_REQUEST, UROUTE_SET_DOCROOT},
    {"setscheme", UROUTE_DO_SET, ARGS_TEXT, IN_REQUEST, UROUTE_SET_SCHEME},
    {"fixpathinfo", UROUTE_DO_FIXPATHINFO, ARGS_NONE, IN_REQUEST, 0},
    {"rewrite", UROUTE_DO_REWRITE, ARGS_TEXT, IN_REQUEST, 0},
    {"rewrite-last", UROUTE_DO_REWRITE, ARGS_TEXT, IN_REQUEST, 1},
    {"redirect", UROUTE_DO_REDIRECT, ARGS_TEXT, IN_REQUEST | IN_HEAD, 302},
    {"redirect-302", UROUTE_DO_REDIRECT, ARGS_TEXT, IN_REQUEST | IN_HEAD, 302},
    {"redirect-permanent", UROUTE_DO_REDIRECT, ARGS_TEXT, IN_REQUEST | IN_HEAD, 301},
    {"redirect-301", UROUTE_DO_REDIRECT, ARGS_TEXT, IN_REQUEST | IN_HEAD, 301},
    {"static", UROUTE_DO_STATIC, ARGS_TEXT, IN_REQUEST | IN_HEAD, 0},
    {"static-next", UROUTE_DO_STATIC, ARGS_TEXT, IN_REQUEST | IN_HEAD, 1},
    {"file", UROUTE_DO_FILE, ARGS_FILE, IN_REQUEST | IN_HEAD, 0},
    {"file-next", UROUTE_DO_FILE, ARGS_FILE, IN_REQUEST | IN_HEAD, 1},
    {"sendfile", UROUTE_DO_FILE, ARGS_FILE, IN_REQUEST | IN_HEAD, 0},
    {"sendfile-next", UROUTE_DO_FILE, ARGS_FILE, IN_REQUEST | IN_HEAD, 1},
    {"fastfile", UROUTE_DO_FILE, ARGS_FILE, IN_REQUEST | IN_HEAD, 0},
    {"fastfile-next", UROUTE_DO_FILE, ARGS_FILE, IN_REQUEST | IN_HEAD, 1},
    {"basicauth", UROUTE_DO_BASICAUTH, ARGS_PASSWORD, IN_REQUEST, 0},
    {"basicauth-next", UROUTE_DO_BASICAUTH, ARGS_PASSWORD, IN_REQUEST, 1},
};

static const struct {
    const char *name;
    enum uroute_condition condition;
} rule_conditions[] = {
    {"exists", UROUTE_EXISTS},
    {"isfile", UROUTE_ISFILE},
    {"isdir", UROUTE_ISDIR},
    {"islink", UROUTE_ISLINK},
    {"isexec", UROUTE_ISEXEC},
    {"empty", UROUTE_EMPTY},
    {"equal", UROUTE_EQUAL},
    {"isequal", UROUTE_EQUAL},
    {"eq", UROUTE_EQUAL},
    {"==", UROUTE_EQUAL},
    {"startswith", UROUTE_STARTS},
    {"endswith", UROUTE_ENDS},
    {"contains", UROUTE_CONTAINS},
    {"contain", UROUTE_CONTAINS},
    {"ishigher", UROUTE_HIGHER},
    {">", UROUTE_HIGHER},
    {"ishigherequal", UROUTE_HIGHER_EQUAL},
    {">=", UROUTE_HIGHER_EQUAL},
    {"islower", UROUTE_LOWER},
    {"<", UROUTE_LOWER},
    {"islowerequal", UROUTE_LOWER_EQUAL},
    {"<=", UROUTE_LOWER_EQUAL},
    {"ipv4in", UROUTE_IPV4},
    {"ipv6in", UROUTE_IPV6},
    {"regexp", UROUTE_REGEXP},
    {"re", UROUTE_REGEXP},
};

static const struct {
    const char *name;
    enum uroute_subject subject;
} rule_subjects[] = {
    {"", UROUTE_PATH},
    {"-uri", UROUTE_URI},
    {"-qs", UROUTE_QUERY},
    {"-host", UROUTE_HOST},
    {"-remote-addr", UROUTE_ADDR},
    {"-remote-user", UROUTE_USER},
    {"-referer", UROUTE_REFERER},
    {"-user-agent", UROUTE_AGENT},
    {"-status", UROUTE_STATUS},
    {"-if", UROUTE_IF},
    {"-if-not", UROUTE_IF},
    {"-run", UROUTE_NOTHING},
    {"-label", UROUTE_LABEL},
};

static const char *const rule_chains[UROUTE_CHAINS] = {
    [UROUTE_REQUEST] = "route",
    [UROUTE_ERROR] = "error-route",
    [UROUTE_RESPONSE] = "response-route",
    [UROUTE_FINAL] = "final-route",
};

static int rule_fail(char **ret_error, const char *what, stk_span text)
{
    *ret_error = stk_mem_printf("%s '%.*s'", what, (int)(text.len < 80 ? text.len : 80), text.ptr);
    return -1;
}

static bool rule_is(stk_span text, const char *name)
{
    return stk_span_eq(text, stk_span_str(name));
}

static stk_span rule_skip(stk_span text, size_t n)
{
    return stk_span_make(text.ptr + n, text.len - n);
}

/* What stands before the first such character; the whole where there is none. */
static stk_span rule_before(stk_span text, char c)
{
    const char *at = text.len > 0 ? memchr(text.ptr, c, text.len) : NULL;

    return at ? stk_span_make(text.ptr, (size_t)(at - text.ptr)) : text;
}

/* ---- the option ----------------------------------------------------------------------------- */

static int rule_option(struct uroute_rule *rule, stk_span name, char **ret_error)
{
    for (unsigned c = 0; c < UROUTE_CHAINS; c++) {
        size_t len = strlen(rule_chains[c]);

        if (name.len < len || memcmp(name.ptr, rule_chains[c], len) != 0)
            continue;
        for (size_t i = 0; i < STK_ARRAY_LEN(rule_subjects); i++) {
            if (!rule_is(rule_skip(name, len), rule_subjects[i].name))
                continue;
            rule->chain = (enum uroute_chain)c;
            rule->subject = rule_subjects[i].subject;
            rule->negate = rule_is(rule_skip(name, len), "-if-not");
            if (rule->subject == UROUTE_STATUS && c == UROUTE_REQUEST)
                break; /* there is no status yet, and uWSGI has no such option */
            return 0;
        }
    }
    return rule_fail(ret_error,
                     "expected an option of uWSGI's routing, as in "
                     "\"route ^/old redirect:/new\", not",
                     name);
}

/* ---- the condition -------------------------------------------------------------------------- */

static int rule_regex(struct uroute_rule *rule, stk_span pattern, char **ret_error)
{
    STK_CLEANUP(stk_mem_freep) char *text = stk_mem_strndup(pattern.ptr, pattern.len);
    char *error = NULL;

    rule->regex = stk_regex_new(text, &error);
    if (rule->regex)
        return 0;
    *ret_error = stk_mem_printf("the pattern '%.200s': %s", text, error);
    free(error);
    return -1;
}

static int rule_condition(struct uroute_rule *rule, stk_span text, char **ret_error)
{
    stk_span name = rule_before(text, ':'), left, right;
    size_t i = 0;

    if (name.len == text.len)
        return rule_fail(ret_error, "a condition is NAME:VALUE;VALUE, not", text);
    while (i < STK_ARRAY_LEN(rule_conditions) && !rule_is(name, rule_conditions[i].name))
        i++;
    if (i == STK_ARRAY_LEN(rule_conditions))
        return rule_fail(ret_error, "there is no condition", name);
    rule->condition = rule_conditions[i].condition;
    text = rule_skip(text, name.len + 1);
    left = rule->condition >= UROUTE_EQUAL ? rule_before(text, ';') : text;
    rule->left = stk_utext_new(left, false, ret_error);
    if (!rule->left)
        return -1;
    if (rule->condition < UROUTE_EQUAL)
        return 0;
    rule->never = left.len == text.len;
    right = rule->never ? stk_span_make("", 0) : rule_skip(text, left.len + 1);
    if (rule->condition == UROUTE_REGEXP)
        return rule_regex(rule, right, ret_error);
    rule->right = stk_utext_new(right, false, ret_error);
    return rule->right ? 0 : -1;
}

/* What stands before the action. */
static int rule_when(struct uroute_rule *rule, stk_span text, char **ret_error)
{
    switch (rule->subject) {
    case UROUTE_IF:
        return rule_condition(rule, text, ret_error);
    case UROUTE_STATUS:
        for (size_t i = 0; i < text.len && i < 3 && text.ptr[i] >= '0' && text.ptr[i] <= '9'; i++)
            rule->status = rule->status * 10 + (unsigned)(text.ptr[i] - '0');
        if (rule->status < 100)
            return rule_fail(ret_error, "expected a status of three digits, not", text);
        return 0;
    default:
        return rule_regex(rule, text, ret_error);
    }
}

/* ---- the action ----------------------------------------------------------------------------- */

/* KEY=VALUE,KEY=VALUE: a comma ends a value, as in uWSGI, but for one behind a backslash. */
static stk_span rule_next_pair(stk_span *text, stk_span *ret_value)
{
    stk_span pair = rule_before(*text, ','), key = rule_before(pair, '=');

    *text = pair.len < text->len ? rule_skip(*text, pair.len + 1) : stk_span_make("", 0);
    *ret_value = key.len < pair.len ? rule_skip(pair, key.len + 1) : stk_span_make("", 0);
    return key;
}

static int rule_keys(struct uroute_rule *rule, stk_span text, bool expires, char **ret_error)
{
    static const struct {
        const char *name;
        int key; /* enum uroute_key; -1: without effect here; -2: mime */
        bool expires;
    } keys[] = {
        {"filename", UROUTE_KEY_NAME, false},
        {"status", UROUTE_KEY_STATUS, false},
        {"content_type", UROUTE_KEY_TYPE, false},
        {"mime", -2, false},
        {"nocl", -1, false},
        {"no_cl", -1, false},
        {"no_content_length", -1, false},
        {"filename", UROUTE_KEY_NAME, true},
        {"file", UROUTE_KEY_NAME, true},
        {"unix", UROUTE_KEY_UNIX, true},
        {"value", UROUTE_KEY_VALUE, true},
    };

    while (text.len > 0) {
        stk_span value, key = rule_next_pair(&text, &value);
        size_t i = 0;

        while (i < STK_ARRAY_LEN(keys) &&
               (keys[i].expires != expires || !rule_is(key, keys[i].name)))
            i++;
        if (i == STK_ARRAY_LEN(keys))
            return rule_fail(ret_error, "there is no argument", key);
        if (keys[i].key == -2)
            rule->mime = true;
        if (keys[i].key < 0)
            continue;
        stk_utext_free(rule->keys[keys[i].key]);
        rule->keys[keys[i].key] = stk_utext_new(value, true, ret_error);
        if (!rule->keys[keys[i].key])
            return -1;
    }
    if (!expires && !rule->keys[UROUTE_KEY_NAME])
        return rule_fail(ret_error, "expected filename=, not", text);
    return 0;
}

static int rule_password(struct uroute_rule *rule, stk_span text, char **ret_error)
{
    stk_span realm = rule_before(text, ','), secret;

    if (realm.len == text.len)
        return rule_fail(ret_error, "expected REALM,USER:PASSWORD or REALM,FILE, not", realm);
    secret = rule_skip(text, realm.len + 1);
    for (size_t i = 0; i < realm.len; i++)
        if ((unsigned char)realm.ptr[i] < ' ' || strchr("\"\\\x7f", realm.ptr[i]))
            return rule_fail(ret_error, "a realm holds no quotes and no control characters, as in",
                             realm);
    rule->key = stk_mem_strndup(realm.ptr, realm.len);
    rule->secret = stk_mem_strndup(secret.ptr, secret.len);
    rule->file = strchr(rule->secret, ':') == NULL;
    if (rule->secret[0] == '\0' || rule->secret[0] == ':')
        return rule_fail(ret_error, "expected a user or a file behind the realm, not", secret);
    return 0;
}

/* KEY=TEXT, or KEY,TEXT of the signs. */
static int rule_pair(struct uroute_rule *rule, stk_span text, bool math, char **ret_error)
{
    stk_span key = rule_before(text, math ? ',' : '=');

    if (key.len == 0 || (!math && key.len == text.len))
        return rule_fail(ret_error, "expected NAME=VALUE, not", text);
    for (size_t i = 0; i < key.len; i++)
        if ((unsigned char)key.ptr[i] <= ' ' || key.ptr[i] == 0x7f)
            return rule_fail(ret_error, "the name of a variable has no blanks, as in", key);
    rule->key = stk_mem_strndup(key.ptr, key.len);
    if (key.len == text.len)
        return 0; /* by one */
    rule->arg = stk_utext_new(rule_skip(text, key.len + 1), true, ret_error);
    return rule->arg ? 0 : -1;
}

static int rule_args(struct uroute_rule *rule, enum rule_args args, stk_span text, char **ret_error)
{
    char number[20];

    switch (args) {
    case ARGS_NONE:
        return 0;
    case ARGS_RAW:
        rule->key = stk_mem_strndup(text.ptr, text.len);
        return 0;
    case ARGS_PAIR:
    case ARGS_MATH:
        return rule_pair(rule, text, args == ARGS_MATH, ret_error);
    case ARGS_NUMBER:
        snprintf(number, sizeof number, "%.*s", (int)(text.len < 9 ? text.len : 9), text.ptr);
        rule->limit = strtol(number, NULL, 10);
        return 0;
    case ARGS_FILE:
    case ARGS_EXPIRES:
        return rule_keys(rule, text, args == ARGS_EXPIRES, ret_error);
    case ARGS_PASSWORD:
        return rule_password(rule, text, ret_error);
    default:
        rule->arg = stk_utext_new(text, true, ret_error);
        return rule->arg ? 0 : -1;
    }
}

static int rule_action(struct uroute_rule *rule, stk_span text, char **ret_error)
{
    stk_span name = rule_before(text, ':');

    if (name.len == text.len)
        return rule_fail(ret_error, "expected an action, as redirect:/new, not", text);
    for (size_t i = 0; i < STK_ARRAY_LEN(rule_actions); i++) {
        if (!rule_is(name, rule_actions[i].name))
            continue;
        if (!(rule_actions[i].where & 1u << rule->chain)) {
            *ret_error = stk_mem_printf("the action %s has no effect in %s", rule_actions[i].name,
                                        rule_chains[rule->chain]);
            return -1;
        }
        rule->action = rule_actions[i].action;
        rule->variant = rule_actions[i].variant;
        return rule_args(rule, rule_actions[i].args, rule_skip(text, name.len + 1), ret_error);
    }
    return rule_fail(ret_error, "there is no action", name);
}

/* ---- the rule ------------------------------------------------------------------------------- */

int stk_uroute_rule_parse(struct uroute_rule *rule, stk_span text, char **ret_error)
{
    stk_span name = rule_before(text, ' '), when;

    memset(rule, 0, sizeof *rule);
    if (text.len > UROUTE_LINE_MAX || (text.len > 0 && memchr(text.ptr, '\0', text.len)))
        return rule_fail(ret_error, "a rule is longer than 8192 bytes:", name);
    if (rule_option(rule, name, ret_error) < 0)
        return -1;
    text = name.len < text.len ? rule_skip(text, name.len + 1) : stk_span_make("", 0);
    if (rule->subject == UROUTE_LABEL) {
        rule->label = stk_mem_strndup(text.ptr, text.len);
        return 0;
    }
    if (rule->subject != UROUTE_NOTHING) {
        when = rule_before(text, ' ');
        if (when.len == text.len)
            return rule_fail(ret_error, "expected what it is for, a blank, and an action, not",
                             text);
        if (rule_when(rule, when, ret_error) < 0)
            return -1;
        text = rule_skip(text, when.len + 1);
    }
    return rule_action(rule, text, ret_error);
}

void stk_uroute_rule_deinit(struct uroute_rule *rule)
{
    free(rule->label);
    rule->regex = stk_regex_free(rule->regex);
    rule->left = stk_utext_free(rule->left);
    rule->right = stk_utext_free(rule->right);
    rule->arg = stk_utext_free(rule->arg);
    for (size_t i = 0; i < UROUTE_KEYS; i++)
        rule->keys[i] = stk_utext_free(rule->keys[i]);
    free(rule->key);
    free(rule->secret);
    memset(rule, 0, sizeof *rule);
}
