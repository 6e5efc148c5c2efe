/*
 * uWSGI's internal routing. Four chains of rules, each gone through from its first rule on until
 * one answers or says that it is enough:
 *
 *   route            before the request goes on to redirects, mounts, files and the application
 *   error-route      when a response is about to leave: may put another one in its place
 *   response-route   behind that: likewise
 *   final-route      when the request is over: decides what is logged
 *
 * What rules make of a request lies in memory of the thread that has it, bounded, and moves to the
 * heap where the request outlives its call. A request that has waited for a thread is gone through
 * again, as by the rest of the router: the same rules make the same of it, and lines are not
 * logged twice.
 *
 * uWSGI puts the status into rules of error-route when the application states it; here that is done
 * when its head leaves, which is what makes it possible to take it back.
 */
#include "serve/uroute.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "serve/conn.h"
#include "serve/head_edit.h"
#include "serve/server.h"
#include "serve/uroute_priv.h"

/* ---- memory of a request -------------------------------------------------------------------- */

bool stk_uroute_keep(struct uroute_run *run, stk_span text, stk_span *ret_kept)
{
    struct stk_uroute_state *state = run->state;
    char *to = state->memory + state->len;

    if (text.len > state->cap - state->len)
        return false;
    if (text.len > 0)
        memmove(to, text.ptr, text.len);
    state->len += text.len;
    *ret_kept = stk_span_make(to, text.len);
    return true;
}

bool stk_uroute_fill(struct uroute_run *run, const struct stk_utext *text, unsigned buffer,
                     stk_span *ret_text)
{
    struct stk_utext_out out = {.buf = run->t->texts[buffer], .cap = STK_UTEXT_MAX};
    const struct stk_utext_source source = {
        .groups = run->t->groups, .value = stk_uroute_value, .arg = run};

    if (!stk_utext_fill(text, &source, &out))
        return false;
    *ret_text = stk_span_make(out.buf, out.len);
    return true;
}

bool stk_uroute_add(struct uroute_run *run, stk_span name, stk_span value)
{
    struct stk_uroute_state *state = run->state;
    struct stk_var *var = NULL;

    for (size_t i = 0; i < state->nadded; i++)
        if (stk_span_eq(state->added[i].name, name))
            var = &state->added[i];
    if (var == NULL) {
        if (state->nadded == UROUTE_ADDED || !stk_uroute_keep(run, name, &name))
            return false;
        var = &state->added[state->nadded++];
        *var = (struct stk_var){.name = name};
    }
    return stk_uroute_keep(run, value, &var->value);
}

/* ---- walking -------------------------------------------------------------------------------- */

static struct uroute_thread *uroute_thread_of(struct stk_uroute *u,
                                              const struct stk_serve_request *rq)
{
    struct stk_server *server = u->server;

    /* Detached requests share one, under their mutex: the last. */
    return &u->threads[rq->detached ? server->nthreads : (size_t)(rq->t - server->threads)];
}

/* A rule that cannot be decided is not to be got round. */
static enum uroute_next uroute_undecided(struct uroute_run *run)
{
    const struct stk_peer *peer = &run->rq->base.peer;

    stk_log_warning("uwsgi-route: rule %zu could not be decided for a request of client %.*s:%u: "
                    "it takes too long, or is too long",
                    run->at + 1, peer->addr_len, peer->addr, peer->port);
    if (run->chain == UROUTE_FINAL)
        return UROUTE_CONTINUE;
    return stk_uroute_refuse(run, 400, "the request is too complicated");
}

static enum uroute_next uroute_walk(struct uroute_run *run)
{
    const struct uroute_list *list = &run->all->chains[run->chain];

    for (run->at = 0; run->at < list->n; run->at++) {
        const struct uroute_rule *rule = &list->rules[run->at];
        enum stk_regex_result fits;
        enum uroute_next next = UROUTE_NEXT;

        if (rule->subject == UROUTE_LABEL || run->at < run->target)
            continue;
        run->target = 0;
        fits = stk_uroute_fits(run, rule);
        if (fits == STK_REGEX_LIMIT)
            return uroute_undecided(run);
        if (fits == STK_REGEX_MATCH)
            next = stk_uroute_do(run, rule);
        if (next != UROUTE_NEXT)
            return next;
    }
    return UROUTE_CONTINUE;
}

static enum uroute_next uroute_go(struct stk_uroute *u, struct stk_serve_request *rq,
                                  enum uroute_chain chain)
{
    struct uroute_run run = {
        .all = u,
        .rq = rq,
        .state = rq->uroute,
        .t = uroute_thread_of(u, rq),
        .chain = chain,
    };

    if (chain == UROUTE_REQUEST && !stk_uroute_path(&run))
        return stk_uroute_refuse(&run, 414, "");
    return uroute_walk(&run);
}

/* ---- the request ---------------------------------------------------------------------------- */

/*
 * Gives the application the variables of rules beside those that there are; in their place, too.
 * Where variables come with the head, one of its own tells that these are others.
 */
static bool uroute_give_vars(struct uroute_run *run)
{
    const struct stk_uroute_state *state = run->state;
    struct stk_serve_request *rq = run->rq;
    struct uroute_thread *t = run->t;
    size_t n = rq->base.nvars;

    if (state->nadded == 0)
        return true;
    if (n + state->nadded > UROUTE_VARS || (rq->base.vars_of_head && stk_uroute_own(run) == NULL))
        return false;
    if (n > 0)
        memcpy(t->vars, rq->base.vars, n * sizeof t->vars[0]);
    for (size_t i = 0; i < state->nadded; i++) {
        size_t at = 0;

        while (at < n && !stk_span_eq(t->vars[at].name, state->added[i].name))
            at++;
        t->vars[at] = state->added[i];
        n += at == n;
    }
    rq->base.vars = t->vars;
    rq->base.nvars = n;
    rq->base.vars_of_head = false;
    return true;
}

static void uroute_close(struct stk_serve_request *rq)
{
    rq->keep_alive = false;
    rq->started = rq->committed = rq->ended = true;
    rq->status = UROUTE_CLOSED;
    rq->base.status = UROUTE_CLOSED;
}

enum stk_uroute_result stk_uroute_request(struct stk_uroute *u, struct stk_serve_request *rq)
{
    struct uroute_thread *t = uroute_thread_of(u, rq);
    struct stk_uroute_state *state = &t->state;
    char *memory = state->memory;
    size_t cap = state->cap;
    struct uroute_run run = {.all = u, .rq = rq, .state = state, .t = t};
    enum uroute_next next;

    memset(state, 0, offsetof(struct stk_uroute_state, fields));
    state->all = u;
    state->memory = memory;
    state->cap = cap;
    state->len = 0;
    state->again = rq->conn->body != NULL || rq->conn->job.since != 0;
    rq->uroute = state;
    next = uroute_go(u, rq, UROUTE_REQUEST);
    if (next == UROUTE_ANSWERED)
        return STK_UROUTE_ANSWERED;
    if (next == UROUTE_CLOSE) {
        uroute_close(rq);
        return STK_UROUTE_ANSWERED;
    }
    if (state->has_answer) /* what a rule has sent is the response */
        (void)stk_uroute_gathered(&run);
    else if (uroute_give_vars(&run))
        return STK_UROUTE_GO;
    else
        (void)stk_uroute_refuse(&run, 400, "");
    return STK_UROUTE_ANSWERED;
}

bool stk_uroute_app(const struct stk_serve_request *rq, stk_span *ret_app)
{
    if (rq->uroute == NULL || !rq->uroute->has_app)
        return false;
    *ret_app = rq->uroute->app;
    return true;
}

/* ---- the response --------------------------------------------------------------------------- */

static void uroute_remove_field(struct stk_serve_request *rq, stk_span name)
{
    struct stk_out *out = &rq->t->out;
    struct stk_head_line line = {0};

    if (stk_span_ieq(name, STK_SPAN_LIT("content-length")))
        return; /* it says where the message ends */
    while (stk_head_edit_next(out, &line))
        if (stk_span_ieq(line.name, name))
            stk_head_edit_remove(out, &line);
    if (stk_span_ieq(name, STK_SPAN_LIT("server")))
        rq->has_server = true; /* not ours either */
    if (stk_span_ieq(name, STK_SPAN_LIT("date")))
        rq->has_date = true;
}

static void uroute_add_field(struct stk_serve_request *rq, stk_span text)
{
    const char *colon = text.len > 0 ? memchr(text.ptr, ':', text.len) : NULL;
    stk_span name, value;
    int r = STK_RESPONSE_E_NAME;

    if (colon != NULL) {
        name = stk_span_make(text.ptr, (size_t)(colon - text.ptr));
        value = stk_span_make(colon + 1, text.len - name.len - 1);
        while (value.len > 0 && (*value.ptr == ' ' || *value.ptr == '\t'))
            value = stk_span_make(value.ptr + 1, value.len - 1);
        if (stk_span_ieq(name, STK_SPAN_LIT("content-length")))
            return; /* the server's own */
        r = stk_response_header(&rq->base, name, value);
    }
    if (r != 0)
        stk_log_warning("uwsgi-route: addheader:%.*s: that is no field that a response can have: "
                        "it leaves without it",
                        (int)(text.len < 80 ? text.len : 80), text.ptr);
}

static void uroute_change_fields(struct stk_serve_request *rq)
{
    const struct stk_uroute_state *state = rq->uroute;

    for (size_t i = 0; i < state->nfields; i++)
        if (!state->fields[i].add)
            uroute_remove_field(rq, state->fields[i].text);
    for (size_t i = 0; i < state->nfields; i++)
        if (state->fields[i].add)
            uroute_add_field(rq, state->fields[i].text);
}

/* A chain that may put another response in the place of this one; false: it has. */
static bool uroute_may_leave(struct stk_serve_request *rq, enum uroute_chain chain)
{
    switch (uroute_go(rq->uroute->all, rq, chain)) {
    case UROUTE_ANSWERED:
        rq->base.replaced = true;
        return false;
    case UROUTE_CLOSE:
        rq->gone = true;
        rq->keep_alive = false;
        rq->status = UROUTE_CLOSED;
        rq->base.status = UROUTE_CLOSED;
        rq->base.replaced = true;
        return false;
    default:
        return true;
    }
}

bool stk_uroute_head(struct stk_serve_request *rq)
{
    struct stk_uroute_state *state = rq->uroute;

    if (!state->is_erring) {
        state->is_erring = true;
        if (!uroute_may_leave(rq, UROUTE_ERROR))
            return false;
    }
    if (!state->in_head) {
        state->in_head = true;
        if (!uroute_may_leave(rq, UROUTE_RESPONSE))
            return false;
    }
    uroute_change_fields(rq);
    return true;
}

bool stk_uroute_end(struct stk_serve_request *rq)
{
    (void)uroute_go(rq->uroute->all, rq, UROUTE_FINAL);
    return !rq->uroute->quiet;
}

/* ---- requests that outlive their call ------------------------------------------------------- */

/* Of a span in the old memory, where it is in the new one. */
static void uroute_move(const struct stk_uroute_state *from, const struct stk_uroute_state *to,
                        stk_span *span)
{
    if (span->ptr >= from->memory && span->ptr <= from->memory + from->len)
        span->ptr = to->memory + (span->ptr - from->memory);
}

bool stk_uroute_detach(struct stk_serve_request *rq)
{
    const struct stk_uroute_state *from = rq->uroute;
    struct stk_uroute_state *to;

    if (from == NULL)
        return true;
    to = stk_try_alloc(sizeof *to + from->len + UROUTE_SPARE);
    if (to == NULL)
        return false;
    *to = *from;
    to->memory = (char *)(to + 1);
    to->cap = from->len + UROUTE_SPARE;
    memcpy(to->memory, from->memory, from->len);
    to->has_head = true; /* the copy of a detached request is its own */
    uroute_move(from, to, &to->app);
    uroute_move(from, to, &to->path);
    uroute_move(from, to, &to->reason);
    uroute_move(from, to, &to->body);
    for (size_t i = 0; i < to->nfields; i++)
        uroute_move(from, to, &to->fields[i].text);
    for (size_t i = 0; i < to->nadded; i++) {
        uroute_move(from, to, &to->added[i].name);
        uroute_move(from, to, &to->added[i].value);
    }
    rq->uroute = to;
    return true;
}

void stk_uroute_drop(struct stk_serve_request *rq)
{
    free(rq->uroute);
    rq->uroute = NULL;
}

/* ---- life ----------------------------------------------------------------------------------- */

static void uroute_note(struct stk_uroute *u, const struct uroute_rule *rule)
{
    stk_msec limit = rule->limit * 1000;

    u->changes_fields |= rule->action == UROUTE_DO_ADDHEADER ||
                         rule->action == UROUTE_DO_DELHEADER || rule->action == UROUTE_DO_EXPIRES;
    if (rule->action == UROUTE_DO_HARAKIRI && limit > 0 &&
        (u->least_timeout == 0 || limit < u->least_timeout))
        u->least_timeout = limit;
}

/* Adds a rule to its chain; it is taken. */
static void uroute_append(struct stk_uroute *u, struct uroute_rule *rule)
{
    struct uroute_list *list = &u->chains[rule->chain];

    list->rules[list->n++] = *rule;
    uroute_note(u, rule);
}

struct stk_uroute *stk_uroute_new(const char *const *rules, size_t n, stk_uroute_report report,
                                  void *arg)
{
    struct stk_uroute *u = stk_new0(struct stk_uroute);
    bool good = true;

    for (size_t i = 0; i < UROUTE_CHAINS; i++)
        u->chains[i].rules = stk_new0_array(struct uroute_rule, n + 1);
    for (size_t i = 0; i < n; i++) {
        struct uroute_rule rule;
        char *error = NULL;

        if (stk_uroute_rule_parse(&rule, stk_span_str(rules[i]), &error) < 0) {
            report(arg, i, error);
            good = false;
        } else if (rule.action == UROUTE_DO_BASICAUTH && rule.file && rule.secret != NULL &&
                   stk_uroute_auth_check(rule.secret) != NULL) {
            error = stk_mem_printf("the file of passwords %.200s: %s", rule.secret,
                                   stk_uroute_auth_check(rule.secret));
            report(arg, i, error);
            good = false;
        }
        free(error);
        if (good)
            uroute_append(u, &rule);
        else
            stk_uroute_rule_deinit(&rule);
    }
    return good ? u : stk_uroute_free(u);
}

void stk_uroute_attach(struct stk_uroute *u, struct stk_server *server)
{
    u->server = server;
    u->nthreads = server->nthreads + 1;
    u->threads = stk_new0_array(struct uroute_thread, u->nthreads);
    for (size_t i = 0; i < u->nthreads; i++) {
        u->threads[i].regex = stk_regex_scratch_new();
        u->threads[i].state.cap = (size_t)server->limits.head_max * 3 + UROUTE_ROOM;
        u->threads[i].state.memory = stk_new0_array(char, u->threads[i].state.cap);
    }
}

struct stk_uroute *stk_uroute_free(struct stk_uroute *u)
{
    if (u == NULL)
        return NULL;
    for (size_t c = 0; c < UROUTE_CHAINS; c++) {
        for (size_t i = 0; i < u->chains[c].n; i++)
            stk_uroute_rule_deinit(&u->chains[c].rules[i]);
        free(u->chains[c].rules);
    }
    for (size_t i = 0; i < u->nthreads; i++) {
        stk_regex_scratch_free(u->threads[i].regex);
        free(u->threads[i].state.memory);
    }
    free(u->threads);
    free(u);
    return NULL;
}

bool stk_uroute_has_heads(const struct stk_uroute *u)
{
    return u != NULL &&
           (u->changes_fields || u->chains[UROUTE_ERROR].n > 0 || u->chains[UROUTE_RESPONSE].n > 0);
}

bool stk_uroute_has_ends(const struct stk_uroute *u)
{
    return u != NULL && u->chains[UROUTE_FINAL].n > 0;
}

stk_msec stk_uroute_least_timeout(const struct stk_uroute *u)
{
    return u != NULL ? u->least_timeout : 0;
}
