/*
 * Fields of responses, changed by rules: just before a head is completed, so that every response is
 * meant, whoever made it. What is set takes out what was there: a field that was meant to be said
 * once (X-Frame-Options, Strict-Transport-Security) would mean nothing when said twice.
 *
 * Where no rule is configured nothing of this is called.
 */
#include <string.h>

#include "base/assert.h"
#include "serve/request.h"
#include "serve/router_priv.h"
#include "serve/server.h"

/* The first field of the name in the head at p; behind its line in *ret_end. NULL: there is none.
 */
static char *header_find(char *p, const char *end, stk_span name, char **ret_end)
{
    while (p < end) {
        char *eol = memchr(p, '\n', (size_t)(end - p));

        STK_ASSERT(eol != NULL);
        if ((size_t)(eol - p) > name.len && p[name.len] == ':' &&
            stk_span_ieq(stk_span_make(p, name.len), name)) {
            *ret_end = eol + 1;
            return p;
        }
        p = eol + 1;
    }
    return NULL;
}

/* Behind the status line, which has another form for gateways. */
static char *header_first(struct stk_serve_request *rq)
{
    const struct stk_out *out = &rq->t->out;
    char *eol = memchr(out->buf + out->mark, '\n', out->len - out->mark);

    STK_ASSERT(eol != NULL);
    return eol + 1;
}

/* Takes all fields of the name out. */
static void header_remove(struct stk_serve_request *rq, stk_span name)
{
    struct stk_out *out = &rq->t->out;
    char *p, *end = NULL;

    p = header_first(rq);
    while ((p = header_find(p, out->buf + out->len, name, &end)) != NULL) {
        memmove(p, end, (size_t)(out->buf + out->len - end));
        out->len -= (size_t)(end - p);
    }
    if (stk_span_ieq(name, STK_SPAN_LIT("server")))
        rq->has_server = true; /* not ours either */
    if (stk_span_ieq(name, STK_SPAN_LIT("date")))
        rq->has_date = true;
}

static bool header_has(struct stk_serve_request *rq, stk_span name)
{
    struct stk_out *out = &rq->t->out;
    char *end;

    return header_find(header_first(rq), out->buf + out->len, name, &end) != NULL;
}

static bool header_change(struct stk_serve_request *rq, const struct stk_site_field *field)
{
    stk_span name = stk_span_str(field->name);

    if (field->op == STK_SITE_SET || field->op == STK_SITE_REMOVE)
        header_remove(rq, name);
    if (field->op == STK_SITE_REMOVE || (field->op == STK_SITE_DEFAULT && header_has(rq, name)))
        return true;
    return stk_response_header(&rq->base, name, stk_span_str(field->value)) == 0;
}

static bool header_change_all(struct stk_serve_request *rq, const struct stk_site_rule *rule)
{
    for (size_t i = 0; i < rule->nfields; i++)
        if (!header_change(rq, &rule->fields[i]))
            return false;
    return true;
}

/* A rule that is for every request needs no look at it: also where none was understood. */
static bool header_fits(struct stk_serve_request *rq, const struct router_rule *rule)
{
    const struct stk_site_match *match = &rule->site->match;
    struct router_scratch *s = stk_router_scratch(rq);
    stk_span script = rq->base.script_name;
    struct router_path path;
    enum stk_regex_result r = STK_REGEX_NONE;

    if (rule->site->statuses != NULL && !rule->site->statuses[rq->status % STK_SITE_STATUSES])
        return false;
    if (match->hosts.n == 0 && match->methods.n == 0 && !match->path && !match->prefix &&
        !match->regex)
        return true;
    /* As a browser knows the path: what has gone to SCRIPT_NAME is still in it. */
    if (rq->base.script_skip > 0)
        rq->base.script_name = stk_span_make(script.ptr, script.len - rq->base.script_skip);
    if (stk_router_path(&rq->base, s, &path))
        r = stk_router_fits(rule, &rq->base, s, &path);
    rq->base.script_name = script;
    return r == STK_REGEX_MATCH;
}

bool stk_router_change_fields(struct stk_serve_request *rq)
{
    const struct stk_router *router = rq->t->server->router;

    for (size_t i = 0; i < router->site->nheaders; i++)
        if (header_fits(rq, &router->headers[i]) && !header_change_all(rq, router->headers[i].site))
            return false;
    return rq->rule == NULL || header_change_all(rq, rq->rule);
}
