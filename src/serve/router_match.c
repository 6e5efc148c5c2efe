/*
 * For which requests a rule is.
 *
 * Paths are compared decoded and otherwise as they came, dots and double slashes included: that is
 * what the application sees, so a rule and the application never disagree about a path.
 */
#include <string.h>

#include "base/assert.h"
#include "serve/request.h"
#include "serve/router_priv.h"
#include "serve/server.h"
#include "wire/uri.h"

struct router_scratch *stk_router_scratch(struct stk_serve_request *rq)
{
    struct stk_server *server = rq->t->server;

    /* Detached requests share one, under their mutex: the last. */
    return &server->router->scratch[rq->detached ? server->nthreads : rq->t - server->threads];
}

bool stk_router_path(const struct stk_request *req, struct router_scratch *s,
                     struct router_path *ret_path)
{
    stk_span path = stk_head_path(req->head), script = req->script_name;
    size_t len = script.len;

    if (path.len == 0 && req->head->target_form == STK_TARGET_ABSOLUTE)
        path = STK_SPAN_LIT("/");
    if (script.len + path.len > s->path_cap)
        return false;
    if (script.len > 0)
        memcpy(s->path, script.ptr, script.len);
    if (req->head->path_escaped) {
        len += stk_uri_unescape(s->path + script.len, path);
    } else {
        memcpy(s->path + script.len, path.ptr, path.len);
        len += path.len;
    }
    *ret_path = (struct router_path){.whole = stk_span_make(s->path, len), .script = script.len};
    path = stk_span_make(s->path + script.len, len - script.len);
    /* A gateway that names the mount point and leaves it in the path as well. */
    if (script.len > 0 && stk_router_prefix_fits(script.ptr, script.len, path)) {
        ret_path->whole = path;
        ret_path->skipped = (uint32_t)script.len;
    }
    return true;
}

bool stk_router_prefix_fits(const char *prefix, size_t len, stk_span path)
{
    if (len == 0)
        return true;
    return path.len >= len && memcmp(path.ptr, prefix, len) == 0 &&
           (path.len == len || prefix[len - 1] == '/' || path.ptr[len] == '/');
}

stk_span stk_router_host_name(stk_span host)
{
    size_t len = host.len;

    for (size_t i = host.len; i-- > 0 && host.ptr[i] != ']';)
        if (host.ptr[i] == ':')
            len = i;
    if (len > 0 && host.ptr[len - 1] == '.')
        len--;
    return stk_span_make(host.ptr, len);
}

bool stk_router_host_fits(const char *pattern, stk_span host)
{
    stk_span name = stk_router_host_name(host), want = stk_span_str(pattern);

    if (pattern[0] != '*')
        return stk_span_ieq(name, want);
    want = stk_span_make(want.ptr + 1, want.len - 1); /* ".example.com" */
    return name.len > want.len &&
           stk_span_ieq(stk_span_make(name.ptr + name.len - want.len, want.len), want);
}

static bool match_any_host(const struct stk_strv *hosts, stk_span host)
{
    for (size_t i = 0; i < hosts->n; i++)
        if (stk_router_host_fits(hosts->items[i], host))
            return true;
    return hosts->n == 0;
}

/* GET stands for HEAD as well. */
static bool match_any_method(const struct stk_strv *methods, const struct stk_head *head)
{
    stk_span method = stk_head_method(head);

    for (size_t i = 0; i < methods->n; i++)
        if (stk_span_eq(method, stk_span_str(methods->items[i])) ||
            (head->is_head && strcmp(methods->items[i], "GET") == 0))
            return true;
    return methods->n == 0;
}

enum stk_regex_result stk_router_fits(const struct router_rule *rule, const struct stk_request *req,
                                      struct router_scratch *s, const struct router_path *path)
{
    const struct stk_site_match *match = &rule->site->match;

    if (!match_any_host(&match->hosts, req->host) || !match_any_method(&match->methods, req->head))
        return STK_REGEX_NONE;
    if (rule->regex != NULL)
        return stk_regex_match(rule->regex, s->regex, path->whole, s->groups);
    for (unsigned i = 0; i < STK_REGEX_GROUPS; i++)
        s->groups[i] = stk_span_make(path->whole.ptr, 0);
    s->groups[0] = path->whole;
    if (match->path != NULL)
        return stk_span_eq(path->whole, stk_span_str(match->path)) ? STK_REGEX_MATCH
                                                                   : STK_REGEX_NONE;
    if (match->prefix != NULL) {
        size_t len = strlen(match->prefix);

        if (!stk_router_prefix_fits(match->prefix, len, path->whole))
            return STK_REGEX_NONE;
        s->groups[1] = stk_span_make(path->whole.ptr + len, path->whole.len - len);
    }
    return STK_REGEX_MATCH;
}
