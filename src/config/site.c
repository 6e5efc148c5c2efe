/*
 * Applications and mounts.
 *
 * An application is loaded once, however often it is mounted: what counts is its text. The one that
 * is given without a mount is the first, and takes what nothing else takes.
 *
 * A mount is a rule like those of `route`, only that its place is not where it was written but how
 * exactly it says for what it is: a host before a wildcard before every host, and of the same host
 * the longest prefix first. So the first rule that fits is the right one, and nobody has to order
 * mounts by hand.
 */
#include "config/site.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "config/strv.h"

void stk_site_fail(struct stk_site_context *ctx, const char *fmt, ...)
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

unsigned stk_site_app(struct stk_site *site, const char *target, const char *place)
{
    for (size_t i = 0; i < site->apps.n; i++)
        if (strcmp(site->apps.items[i], target) == 0)
            return (unsigned)i;
    stk_strv_append(&site->apps, stk_mem_strdup(target));
    stk_strv_append(&site->places, stk_mem_strdup(place));
    return (unsigned)site->apps.n - 1;
}

bool stk_site_check_path(struct stk_site_context *ctx, const char *what, const char *path)
{
    if (path[0] == '/' && !strpbrk(path, "?#"))
        return true;
    stk_site_fail(ctx, "%s = '%s': expected a path, as /api, without ? and #", what, path);
    return false;
}

static bool site_is_host(const char *text, size_t len)
{
    if (len >= 2 && text[0] == '*' && text[1] == '.') {
        text += 2;
        len -= 2;
    }
    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              strchr("-._~[:]", c)) ||
            c == '\0')
            return false;
    }
    return len > 0 && text[0] != '.';
}

/* Whether a port stands behind the name, or behind the bracket of an IPv6 address. */
static bool site_has_port(const char *text, size_t len)
{
    const char *colon = memrchr(text, ':', len);

    return colon && (text[0] != '[' || (colon > text && colon[-1] == ']'));
}

void stk_site_add_host(struct stk_site_context *ctx, struct stk_site_match *match, const char *text,
                       size_t len)
{
    char *host;

    if (!site_is_host(text, len)) {
        stk_site_fail(ctx,
                      "'%.*s' is not a host; expected a name as example.com, or "
                      "*.example.com for every name below it",
                      (int)len, text);
        return;
    }
    if (site_has_port(text, len)) {
        stk_site_fail(ctx, "the host '%.*s' has a port; ports do not count here: leave it out",
                      (int)len, text);
        return;
    }
    if (text[len - 1] == '.')
        len--;
    host = stk_mem_strndup(text, len);
    for (char *c = host; *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c - 'A' + 'a');
    stk_strv_append(&match->hosts, host);
}

/* --- mounts ---------------------------------------------------------------------------------- */

/* The two halves of "host/prefix=target". */
static void site_read_mount(struct stk_site_context *ctx, const char *text,
                            struct stk_site_rule *rule)
{
    const char *eq = strchr(text, '=');
    const char *slash = memchr(text, '/', eq ? (size_t)(eq - text) : 0);
    STK_CLEANUP(stk_mem_freep) char *place = NULL;
    size_t len;

    if (!eq || eq == text || !eq[1]) {
        stk_site_fail(ctx, "expected /prefix=application, host=application or "
                           "host/prefix=application, as in /api=api:app");
        return;
    }
    if (slash != text)
        stk_site_add_host(ctx, &rule->match, text, (size_t)((slash ? slash : eq) - text));
    len = slash ? (size_t)(eq - slash) : 0;
    while (len > 0 && slash[len - 1] == '/')
        len--;
    rule->match.prefix = stk_mem_strndup(slash ? slash : "", len);
    if (len > 0)
        stk_site_check_path(ctx, "the prefix", rule->match.prefix);
    place = stk_mem_printf("mount %.*s", (int)(eq - text), text);
    rule->action = STK_SITE_APP;
    rule->strip = true;
    if (!ctx->failed)
        rule->app = stk_site_app(ctx->site, eq + 1, place);
}

static const char *site_host_of(const struct stk_site_rule *rule)
{
    return rule->match.hosts.n > 0 ? rule->match.hosts.items[0] : "";
}

/* Exact names, then wildcards by their length, then every host; then by the length of prefixes. */
static int site_compare_mounts(const void *a, const void *b)
{
    const struct stk_site_rule *x = a, *y = b;
    const char *hx = site_host_of(x), *hy = site_host_of(y);
    int cx = !*hx ? 2 : *hx == '*', cy = !*hy ? 2 : *hy == '*';
    size_t lx = strlen(x->match.prefix), ly = strlen(y->match.prefix);

    if (cx != cy)
        return cx - cy;
    if (cx == 1 && strlen(hx) != strlen(hy))
        return strlen(hx) > strlen(hy) ? -1 : 1;
    if (lx != ly)
        return lx > ly ? -1 : 1;
    return x->item < y->item ? -1 : 1;
}

static void site_check_twice(struct stk_site_context *ctx, const struct stk_site_rule *rules,
                             size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(site_host_of(&rules[i]), site_host_of(&rules[j])) == 0 &&
                strcmp(rules[i].match.prefix, rules[j].match.prefix) == 0) {
                ctx->item = rules[i].item > rules[j].item ? rules[i].item : rules[j].item;
                stk_site_fail(ctx, "something is mounted there already");
            }
}

/* --- all of it ------------------------------------------------------------------------------- */

typedef void (*site_reader)(struct stk_site_context *ctx, const char *text,
                            struct stk_site_rule *ret_rule);

/* Reads each item of an option into a rule of its own. */
static void site_read(struct stk_site_context *ctx, enum stk_option_id option,
                      const struct stk_strv *texts, site_reader reader, struct stk_site_rule *rules)
{
    bool failed = ctx->failed;

    ctx->option = option;
    for (size_t i = 0; i < texts->n; i++) {
        rules[i].option = option;
        rules[i].item = ctx->item = i;
        ctx->failed = false;
        reader(ctx, texts->items[i], &rules[i]);
        failed |= ctx->failed;
    }
    ctx->failed = failed;
}

struct stk_site *stk_site_new(const struct stk_config *config, stk_site_report report, void *arg)
{
    struct stk_site *site = stk_new0(struct stk_site);
    struct stk_site_context ctx = {.site = site,
                                   .report = report,
                                   .arg = arg,
                                   .dir = config->cwd ? config->cwd : config->chdir};
    struct stk_site_rule *mounts;

    site->has_app = config->app != NULL;
    if (site->has_app)
        stk_site_app(site, config->app, "");
    site->nrules = config->route.n + config->mount.n;
    site->rules = stk_new0_array(struct stk_site_rule, site->nrules + 1);
    site->nheaders = config->header.n;
    site->headers = stk_new0_array(struct stk_site_rule, site->nheaders + 1);
    mounts = site->rules + config->route.n;
    site_read(&ctx, STK_OPTION_ID_ROUTE, &config->route, stk_site_read_route, site->rules);
    site_read(&ctx, STK_OPTION_ID_MOUNT, &config->mount, site_read_mount, mounts);
    if (!ctx.failed)
        site_check_twice(&ctx, mounts, config->mount.n);
    if (!ctx.failed)
        qsort(mounts, config->mount.n, sizeof *mounts, site_compare_mounts);
    site_read(&ctx, STK_OPTION_ID_HEADER, &config->header, stk_site_read_header, site->headers);
    return ctx.failed ? stk_site_free(site) : site;
}

static void site_rule_deinit(struct stk_site_rule *rule)
{
    stk_strv_deinit(&rule->match.hosts);
    stk_strv_deinit(&rule->match.methods);
    free(rule->match.path);
    free(rule->match.prefix);
    free(rule->match.regex);
    free(rule->target);
    free(rule->attempt);
    free(rule->body);
    free(rule->type);
    free(rule->statuses);
    for (size_t i = 0; i < rule->nfields; i++) {
        free(rule->fields[i].name);
        free(rule->fields[i].value);
    }
    free(rule->fields);
}

struct stk_site *stk_site_free(struct stk_site *site)
{
    if (!site)
        return NULL;
    for (size_t i = 0; i < site->nrules; i++)
        site_rule_deinit(&site->rules[i]);
    for (size_t i = 0; i < site->nheaders; i++)
        site_rule_deinit(&site->headers[i]);
    free(site->rules);
    free(site->headers);
    stk_strv_deinit(&site->apps);
    stk_strv_deinit(&site->places);
    free(site);
    return NULL;
}
