/*
 * Routing. Order: handlers of services (health, metrics), the one host and the one scheme, the
 * rules of `route` as they are written, mounts, and what is left is the first application's, if
 * there is one without a mount.
 *
 * A SCRIPT_NAME that a gateway has set stays in front. A mount is looked for in the path as the
 * client knows it (SCRIPT_NAME and what is below), and if there is none, below the SCRIPT_NAME.
 *
 * All of this is done again when a request that waited for a thread is run: it is cheap, and
 * nothing has to be carried along.
 */
#include "serve/router.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "serve/deadline.h"
#include "serve/request.h"
#include "serve/route.h"
#include "serve/router_priv.h"
#include "serve/server.h"
#include "serve/static.h"
#include "wire/http_status.h"
#include "wire/uri.h"

static const char router_acme[] = "/.well-known/acme-challenge/";

/* --- answers --------------------------------------------------------------------------------- */

static enum stk_router_result router_refuse(struct stk_serve_request *rq, unsigned status,
                                            const char *text)
{
    stk_response_plain(rq, status, text);
    return STK_ROUTER_ANSWERED;
}

static enum stk_router_result router_redirect(struct stk_serve_request *rq, unsigned status,
                                              const struct stk_location *location)
{
    struct router_scratch *s = stk_router_scratch(rq);
    const struct stk_location_values values = {
        .groups = s->groups,
        .host = rq->base.host,
        .path = stk_head_path(rq->base.head),
        .query = stk_head_query(rq->base.head),
    };
    size_t len = stk_location_fill(location, &values, s->location, STK_LOCATION_MAX);
    char text[64];
    int n;

    if (len == 0)
        return router_refuse(rq, 414, "");
    n = snprintf(text, sizeof text, "%u %s\n", status, stk_http_status_reason(status).ptr);
    if (stk_response_start(&rq->base, status, stk_http_status_reason(status)) != 0 ||
        stk_response_header(&rq->base, STK_SPAN_LIT("Location"), stk_span_make(s->location, len)) !=
            0 ||
        stk_response_header(&rq->base, STK_SPAN_LIT("Content-Type"),
                            STK_SPAN_LIT("text/plain; charset=utf-8")) != 0 ||
        stk_response_write(&rq->base, text, (size_t)n, STK_WRITE_END) < 0)
        rq->keep_alive = false;
    return STK_ROUTER_ANSWERED;
}

static enum stk_router_result router_return(struct stk_serve_request *rq,
                                            const struct stk_site_rule *rule)
{
    const char *type = rule->type ? rule->type : "text/plain; charset=utf-8";
    const char *body = rule->body ? rule->body : "";
    bool empty = rule->status == 204 || rule->status == 304;

    if (!rule->body && !rule->type && !empty)
        return router_refuse(rq, rule->status, "");
    if (stk_response_start(&rq->base, rule->status, stk_http_status_reason(rule->status)) != 0 ||
        (!empty &&
         stk_response_header(&rq->base, STK_SPAN_LIT("Content-Type"), stk_span_str(type)) != 0) ||
        stk_response_write(&rq->base, body, strlen(body), STK_WRITE_END) < 0)
        rq->keep_alive = false;
    return STK_ROUTER_ANSWERED;
}

/* --- one host, one scheme --------------------------------------------------------------------- */

static bool router_is_canonical(const struct stk_router *router, stk_span host)
{
    const char *want = router->server->config->canonical_host;

    if (router->canonical_port)
        return stk_span_ieq(host, stk_span_str(want));
    return stk_span_ieq(stk_router_host_name(host), router->canonical_name);
}

/* Writes "https://host:port" of where a request belongs; 0: it is there. */
static size_t router_home(const struct stk_router *router, const struct stk_serve_request *rq,
                          char *out, size_t cap)
{
    const struct stk_config *config = router->server->config;
    bool secure = stk_span_eq(rq->base.scheme, STK_SPAN_LIT("https"));
    bool upgrade = config->redirect_https && !secure;
    stk_span host = rq->base.host, port = stk_span_make("", 0), name;
    bool moved = config->canonical_host && !router_is_canonical(router, host);
    bool https = secure || upgrade;
    int n;

    if (!upgrade && !moved)
        return 0;
    if (!stk_uri_split_host(host, &name, &port))
        return 0;
    name = stk_router_host_name(host);
    if (config->canonical_host)
        name =
            router->canonical_port ? stk_span_str(config->canonical_host) : router->canonical_name;
    if (config->canonical_host && router->canonical_port)
        n = snprintf(out, cap, "http%s://%.*s", https ? "s" : "", (int)name.len, name.ptr);
    else if (upgrade && config->redirect_https_port != 443)
        n = snprintf(out, cap, "https://%.*s:%lld", (int)name.len, name.ptr,
                     (long long)config->redirect_https_port);
    else
        n = snprintf(out, cap, "http%s://%.*s%s%.*s", https ? "s" : "", (int)name.len, name.ptr,
                     !upgrade && port.len > 0 ? ":" : "", upgrade ? 0 : (int)port.len, port.ptr);
    return n > 0 && (size_t)n < cap ? (size_t)n : 0;
}

/* Redirects what came to another host or by plain HTTP. */
static enum stk_router_result router_go_home(struct stk_router *router,
                                             struct stk_serve_request *rq, stk_span path)
{
    const struct stk_head *head = rq->base.head;
    struct stk_location *location;
    enum stk_router_result r;
    char home[512 + 32];
    size_t len;

    if (head->target_form >= STK_TARGET_AUTHORITY ||
        (path.len >= sizeof router_acme - 1 &&
         memcmp(path.ptr, router_acme, sizeof router_acme - 1) == 0))
        return STK_ROUTER_PASS;
    if (rq->base.host.len == 0)
        return router->server->config->redirect_https &&
                       !stk_span_eq(rq->base.scheme, STK_SPAN_LIT("https"))
                   ? router_refuse(rq, 400, "this is served by HTTPS, and Host is missing")
                   : STK_ROUTER_PASS;
    len = router_home(router, rq, home, sizeof home - sizeof "$uri");
    if (len == 0)
        return STK_ROUTER_PASS;
    memcpy(home + len, "$uri", sizeof "$uri");
    location = stk_location_new(home, 0, &(char *){NULL});
    if (location == NULL)
        return router_refuse(rq, 400, "Host is not valid");
    r = router_redirect(rq, head->is_get || head->is_head ? 301 : 308, location);
    stk_location_free(location);
    return r;
}

/* --- rules ----------------------------------------------------------------------------------- */

/* Gives the request to an application; `strip` bytes of the whole path go to SCRIPT_NAME. */
static void router_mount(struct stk_serve_request *rq, unsigned app, const struct router_path *path,
                         size_t strip)
{
    struct router_scratch *s = stk_router_scratch(rq);

    rq->base.app = app;
    rq->base.script_skip = path->skipped;
    if (strip <= path->script)
        return; /* the gateway's goes as far, or farther */
    if (path->skipped == 0)
        rq->base.script_skip = (uint32_t)(strip - path->script);
    else
        rq->base.script_skip = (uint32_t)strip;
    memcpy(s->script, path->whole.ptr, strip);
    rq->base.script_name = stk_span_make(s->script, strip);
}

/* How much of a path a prefix takes: a final slash stays in PATH_INFO. */
static size_t router_below(const char *prefix)
{
    size_t len = strlen(prefix);

    return len > 0 && prefix[len - 1] == '/' ? len - 1 : len;
}

static size_t router_strip(const struct stk_site_rule *rule)
{
    return rule->strip ? router_below(rule->match.prefix) : 0;
}

/* Files of a directory: what is behind a prefix, or what a pattern says by its first group. */
static enum stk_router_result router_static(struct stk_serve_request *rq,
                                            const struct router_rule *rule,
                                            const struct router_path *path)
{
    const struct stk_site_match *match = &rule->site->match;
    stk_span whole = path->whole, below = whole;

    if (rule->one_file) {
        below.len = 0;
    } else if (match->prefix != NULL) {
        size_t len = router_below(match->prefix);

        below = stk_span_make(whole.ptr + len, whole.len - len);
    } else if (rule->regex != NULL && stk_regex_groups(rule->regex) > 0) {
        below = stk_router_scratch(rq)->groups[1];
        if (below.len == 0 && whole.len > 0 && whole.ptr[whole.len - 1] == '/')
            below = STK_SPAN_LIT("/");
    }
    if (stk_static_serve(rq, rule->files, below) == STK_STATIC_SERVED)
        return STK_ROUTER_ANSWERED;
    rq->rule = NULL;
    return STK_ROUTER_PASS;
}

static enum stk_router_result router_do(struct stk_serve_request *rq,
                                        const struct router_rule *rule,
                                        const struct router_path *path)
{
    rq->rule = rule->site->nfields > 0 ? rule->site : NULL;
    switch (rule->site->action) {
    case STK_SITE_REDIRECT:
        return router_redirect(rq, rule->site->status, rule->location);
    case STK_SITE_RETURN:
        return router_return(rq, rule->site);
    case STK_SITE_STATIC:
        return router_static(rq, rule, path);
    case STK_SITE_APP:
        break;
    }
    router_mount(rq, rule->site->app, path, router_strip(rule->site));
    if (rule->site->timeout != 0)
        stk_deadline_prepare(rq, rule->site->timeout);
    return STK_ROUTER_PASS;
}

/* Mounts below the SCRIPT_NAME of a gateway. */
static const struct router_rule *router_find_below(struct stk_router *router,
                                                   struct stk_serve_request *rq,
                                                   const struct router_path *path)
{
    struct router_path below = {
        .whole = stk_span_make(path->whole.ptr + path->script, path->whole.len - path->script)};

    for (size_t i = 0; i < router->site->nrules; i++) {
        const struct router_rule *rule = &router->rules[i];

        if (rule->site->option == STK_OPTION_ID_MOUNT &&
            stk_router_fits(rule, &rq->base, stk_router_scratch(rq), &below) == STK_REGEX_MATCH)
            return rule;
    }
    return NULL;
}

static enum stk_router_result router_rules(struct stk_router *router, struct stk_serve_request *rq,
                                           const struct router_path *path, bool *ret_nobody)
{
    struct router_scratch *s = stk_router_scratch(rq);
    const struct router_rule *below;

    for (size_t i = 0; i < router->site->nrules; i++) {
        const struct router_rule *rule = &router->rules[i];
        enum stk_regex_result r;

        /* The mount for everything is not before one below the gateway's SCRIPT_NAME. */
        if (path->script > 0 && rule->site->option == STK_OPTION_ID_MOUNT &&
            rule->site->match.prefix[0] == '\0' &&
            (below = router_find_below(router, rq, path)) != NULL) {
            router_mount(rq, below->site->app, path,
                         path->script + strlen(below->site->match.prefix));
            return STK_ROUTER_PASS;
        }
        r = stk_router_fits(rule, &rq->base, s, path);
        if (r == STK_REGEX_MATCH) {
            enum stk_router_result how = router_do(rq, rule, path);

            if (how != STK_ROUTER_PASS || rule->site->action == STK_SITE_APP)
                return how;
            continue; /* no such file: the next one */
        }
        if (r == STK_REGEX_LIMIT) {
            stk_log_warning("a path took too long to compare with the pattern '%.200s': 400 was "
                            "sent to client %.*s:%u",
                            rule->site->match.regex, rq->base.peer.addr_len, rq->base.peer.addr,
                            rq->base.peer.port);
            return router_refuse(rq, 400, "the path is too complicated");
        }
    }
    below = path->script > 0 ? router_find_below(router, rq, path) : NULL;
    if (below != NULL)
        router_mount(rq, below->site->app, path, path->script + strlen(below->site->match.prefix));
    else if (!router->site->has_app && router->site->apps.n + router->site->nrules > 0)
        *ret_nobody = true;
    else
        router_mount(rq, 0, path, 0);
    return STK_ROUTER_PASS;
}

/* Lets uWSGI's rules see the path that is left behind its mount; false: it is too long. */
static bool router_mount_early(struct stk_router *router, struct stk_serve_request *rq)
{
    struct router_scratch *s = stk_router_scratch(rq);
    struct router_path path;

    if (!stk_router_path(&rq->base, s, &path))
        return false;
    for (size_t i = 0; i < router->site->nrules; i++) {
        const struct router_rule *rule = &router->rules[i];

        if (rule->site->option == STK_OPTION_ID_MOUNT &&
            stk_router_fits(rule, &rq->base, s, &path) == STK_REGEX_MATCH) {
            router_mount(rq, rule->site->app, &path, router_strip(rule->site));
            break;
        }
    }
    return true;
}

/* uWSGI's rules. */
static enum stk_router_result router_uwsgi(struct stk_router *router, struct stk_serve_request *rq)
{
    if (router->server->config->uwsgi_route_mounted && !router_mount_early(router, rq))
        return router_refuse(rq, 414, "");
    return stk_uroute_request(router->uroute, rq) == STK_UROUTE_ANSWERED ? STK_ROUTER_ANSWERED
                                                                         : STK_ROUTER_PASS;
}

/* The application that a rule of uWSGI's names by where it is mounted. */
static enum stk_router_result router_named(const struct stk_router *router,
                                           struct stk_serve_request *rq, stk_span name)
{
    for (size_t i = 0; i < router->site->nrules; i++) {
        const struct stk_site_rule *rule = router->rules[i].site;

        if (rule->option == STK_OPTION_ID_MOUNT &&
            stk_span_eq(stk_span_str(rule->match.prefix), name)) {
            rq->base.app = rule->app;
            return STK_ROUTER_PASS;
        }
    }
    if (name.len == 0 && router->site->has_app)
        return STK_ROUTER_PASS;
    stk_log_error("setapp:%.*s: no application is mounted there",
                  (int)(name.len < 80 ? name.len : 80), name.ptr);
    return router_refuse(rq, 500, "");
}

enum stk_router_result stk_router_decide(struct stk_serve_request *rq)
{
    struct stk_router *router = rq->t->server->router;
    const struct stk_config *config = router->server->config;
    enum stk_router_result r = STK_ROUTER_PASS;
    struct router_path path;
    bool nobody = false;
    stk_span app;

    if (router->handlers != NULL) {
        bool own;
        const struct stk_handler *handler = stk_route_find(router->handlers, &rq->base, &own);

        if (handler != NULL || own) {
            stk_route_answer(router->handlers, rq, handler);
            return handler != NULL && handler->logged ? STK_ROUTER_ANSWERED : STK_ROUTER_UNLOGGED;
        }
    }
    if (router->uroute != NULL) {
        r = router_uwsgi(router, rq);
        if (r != STK_ROUTER_PASS)
            return r;
    }
    if (router->site->nrules > 0 || config->redirect_https || config->canonical_host) {
        if (!stk_router_path(&rq->base, stk_router_scratch(rq), &path))
            return router_refuse(rq, 414, "");
        if (config->redirect_https || config->canonical_host)
            r = router_go_home(router, rq, path.whole);
        if (r == STK_ROUTER_PASS && stk_uroute_app(rq, &app))
            r = router_named(router, rq, app);
        else if (r == STK_ROUTER_PASS)
            r = router_rules(router, rq, &path, &nobody);
        if (r != STK_ROUTER_PASS)
            return r;
    }
    if (stk_statics_have_prefixes(router->server->statics) &&
        stk_statics_serve(router->server->statics, rq) == STK_STATIC_SERVED)
        return STK_ROUTER_ANSWERED;
    return nobody ? router_refuse(rq, 404, "") : STK_ROUTER_PASS;
}

/* --- life ------------------------------------------------------------------------------------ */

static void router_rule_deinit(struct router_rule *rule)
{
    rule->regex = stk_regex_free(rule->regex);
    rule->location = stk_location_free(rule->location);
    rule->files = stk_static_free(rule->files);
}

/* Compiles a rule; mistakes are reported. */
static bool router_compile(struct router_rule *rule, const struct stk_site_rule *site,
                           stk_site_report report, void *arg)
{
    STK_CLEANUP(stk_mem_freep) char *error = NULL;
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    unsigned groups = site->match.prefix ? 1 : 0;

    rule->site = site;
    if (site->match.regex) {
        rule->regex = stk_regex_new(site->match.regex, &error);
        if (!rule->regex) {
            text = stk_mem_printf("regex = '%s': %s", site->match.regex, error);
            report(arg, site->option, site->item, text);
            return false;
        }
        groups = stk_regex_groups(rule->regex);
    }
    if (site->option == STK_OPTION_ID_ROUTE && site->action == STK_SITE_REDIRECT) {
        rule->location = stk_location_new(site->target, groups, &error);
        if (!rule->location) {
            text = stk_mem_printf("redirect = '%s': %s", site->target, error);
            report(arg, site->option, site->item, text);
            return false;
        }
    }
    return true;
}

static bool router_check_rules(const struct stk_site_rule *rules, size_t n, stk_site_report report,
                               void *arg)
{
    bool good = true;

    for (size_t i = 0; i < n; i++) {
        struct router_rule rule = {0};
        struct stat st;

        good &= router_compile(&rule, &rules[i], report, arg);
        if (rules[i].action == STK_SITE_STATIC && rules[i].target != NULL &&
            stat(rules[i].target, &st) < 0) {
            STK_CLEANUP(stk_mem_freep)
            char *text = stk_mem_printf("static = '%s': %s", rules[i].target, strerror(errno));

            report(arg, rules[i].option, rules[i].item, text);
            good = false;
        }
        router_rule_deinit(&rule);
    }
    return good;
}

bool stk_router_check(const struct stk_site *site, stk_site_report report, void *arg)
{
    bool rules = router_check_rules(site->rules, site->nrules, report, arg);

    return router_check_rules(site->headers, site->nheaders, report, arg) && rules;
}

static void router_log(void *arg, enum stk_option_id option, size_t item, const char *text)
{
    stk_log_error("%s: %s", stk_options_rows()[option].name, text);
}

static void router_make_files(struct stk_router *router, struct router_rule *rule)
{
    const struct stk_site_rule *site = rule->site;
    const char *prefix = site->match.prefix ? site->match.prefix : "";
    struct stat st;

    if (site->action != STK_SITE_STATIC)
        return;
    rule->files =
        stk_static_new(router->server->statics, stk_span_make(prefix, router_below(prefix)),
                       site->target, site->attempt, site->next);
    rule->one_file = stat(site->target, &st) == 0 && !S_ISDIR(st.st_mode);
}

static bool router_make_scratch(struct stk_router *router)
{
    struct stk_server *server = router->server;

    router->scratch = stk_new0_array(struct router_scratch, server->nthreads + 1);
    for (unsigned i = 0; i <= server->nthreads; i++) {
        struct router_scratch *s = &router->scratch[i];

        s->path_cap = server->limits.head_max * 2u;
        s->path = stk_new0_array(char, s->path_cap + 1);
        s->script = stk_new0_array(char, s->path_cap + 1);
        s->location = stk_new0_array(char, STK_LOCATION_MAX);
        s->regex = stk_regex_scratch_new();
    }
    return true;
}

static int router_compile_all(struct stk_router *router)
{
    const struct stk_site *site = router->site;
    bool good = true;

    router->rules = stk_new0_array(struct router_rule, site->nrules + 1);
    router->headers = stk_new0_array(struct router_rule, site->nheaders + 1);
    for (size_t i = 0; i < site->nrules; i++) {
        good &= router_compile(&router->rules[i], &site->rules[i], router_log, NULL);
        router_make_files(router, &router->rules[i]);
        router->has_fields |= site->rules[i].nfields > 0;
        if (site->rules[i].timeout > 0 &&
            (router->least_timeout == 0 || site->rules[i].timeout < router->least_timeout))
            router->least_timeout = site->rules[i].timeout;
    }
    for (size_t i = 0; i < site->nheaders; i++)
        good &= router_compile(&router->headers[i], &site->headers[i], router_log, NULL);
    router->has_fields |= site->nheaders > 0;
    return good && router_make_scratch(router) ? 0 : -EINVAL;
}

struct router_report {
    const struct stk_config *config;
    stk_site_report report;
    void *arg;
};

static void router_uwsgi_mistake(void *arg, size_t item, const char *text)
{
    struct router_report *r = arg;
    STK_CLEANUP(stk_mem_freep)
    char *told = stk_mem_printf("'%.200s': %s", r->config->uwsgi_route.items[item], text);

    r->report(r->arg, STK_OPTION_ID_UWSGI_ROUTE, item, told);
}

static struct stk_uroute *router_new_uroute(const struct stk_config *config, stk_site_report report,
                                            void *arg)
{
    struct router_report r = {config, report, arg};

    return stk_uroute_new((const char *const *)config->uwsgi_route.items, config->uwsgi_route.n,
                          router_uwsgi_mistake, &r);
}

bool stk_router_check_uwsgi(const struct stk_config *config, stk_site_report report, void *arg)
{
    struct stk_uroute *u;

    if (config->uwsgi_route.n == 0)
        return true;
    u = router_new_uroute(config, report, arg);
    if (u == NULL)
        return false;
    stk_uroute_free(u);
    return true;
}

static int router_make_uroute(struct stk_router *router)
{
    router->uroute = router_new_uroute(router->server->config, router_log, NULL);
    if (router->uroute == NULL)
        return -EINVAL;
    stk_uroute_attach(router->uroute, router->server);
    return 0;
}

int stk_router_new(struct stk_router **ret_router, struct stk_server *server,
                   const struct stk_server_params *params)
{
    const struct stk_config *config = params->config;
    struct stk_route *handlers =
        stk_route_new(params->handlers, params->nhandlers, params->listeners, params->nlisteners,
                      params->handlers_address, stk_statics_have_prefixes(server->statics));
    struct stk_router *router;
    int r = -EINVAL;

    if (!handlers &&
        config->mount.n + config->route.n + config->header.n + config->uwsgi_route.n == 0 &&
        !config->redirect_https && !config->canonical_host)
        return 0;
    router = stk_new0(struct stk_router);
    router->server = server;
    router->handlers = handlers;
    router->site = stk_site_new(config, router_log, NULL);
    if (router->site)
        r = router_compile_all(router);
    if (r == 0 && config->uwsgi_route.n > 0)
        r = router_make_uroute(router);
    if (r < 0) {
        stk_router_free(router);
        return r;
    }
    if (config->canonical_host) {
        router->canonical_name = stk_router_host_name(stk_span_str(config->canonical_host));
        router->canonical_port = router->canonical_name.len < strlen(config->canonical_host);
    }
    *ret_router = router;
    return 0;
}

struct stk_router *stk_router_free(struct stk_router *router)
{
    if (router == NULL)
        return NULL;
    for (size_t i = 0; router->rules && router->site && i < router->site->nrules; i++)
        router_rule_deinit(&router->rules[i]);
    for (size_t i = 0; router->headers && router->site && i < router->site->nheaders; i++)
        router_rule_deinit(&router->headers[i]);
    for (unsigned i = 0; router->scratch && i <= router->server->nthreads; i++) {
        free(router->scratch[i].path);
        free(router->scratch[i].script);
        free(router->scratch[i].location);
        stk_regex_scratch_free(router->scratch[i].regex);
    }
    free(router->scratch);
    free(router->rules);
    free(router->headers);
    stk_uroute_free(router->uroute);
    stk_site_free(router->site);
    stk_route_free(router->handlers);
    free(router);
    return NULL;
}

bool stk_router_has_fields(const struct stk_router *router)
{
    return router != NULL && router->has_fields;
}

bool stk_router_has_heads(const struct stk_router *router)
{
    return router != NULL && (router->has_fields || stk_uroute_has_heads(router->uroute));
}

bool stk_router_has_ends(const struct stk_router *router)
{
    return router != NULL && stk_uroute_has_ends(router->uroute);
}

stk_msec stk_router_least_timeout(const struct stk_router *router)
{
    stk_msec rule, own;

    if (router == NULL)
        return 0;
    own = router->least_timeout;
    rule = stk_uroute_least_timeout(router->uroute);
    return own == 0 || (rule != 0 && rule < own) ? rule : own;
}

const char *stk_router_app_name(const struct stk_router *router, unsigned app)
{
    if (router == NULL || app >= router->site->apps.n)
        return "-";
    return router->site->apps.items[app];
}
