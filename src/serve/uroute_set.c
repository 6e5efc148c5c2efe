/*
 * What rules change of a request before it goes on: its path, its method, who asks.
 *
 * A head is never changed where it lies, because other requests of the same bytes share it: the
 * first change makes a copy, and what is new is put behind that.
 */
#include <stdlib.h>
#include <string.h>

#include "serve/uroute_priv.h"
#include "wire/uri.h"

enum { SET_METHOD_MAX = 32 };

struct stk_head *stk_uroute_own(struct uroute_run *run)
{
    struct stk_uroute_state *state = run->state;
    struct stk_request *req = &run->rq->base;
    size_t size = stk_head_text_size(req->head);

    if (state->has_head)
        return &run->t->head;
    if (size > state->cap - state->len)
        return NULL;
    stk_head_copy(&run->t->head, req->head, state->memory + state->len);
    state->len += size;
    run->t->head.serial = 0; /* like no other */
    state->has_head = true;
    req->head = &run->t->head;
    return &run->t->head;
}

/* Puts a part of the head elsewhere. */
static bool set_part(struct uroute_run *run, stk_span value, uint32_t *off, uint32_t *len)
{
    stk_span kept;

    if (!stk_uroute_keep(run, value, &kept))
        return false;
    *off = (uint32_t)(kept.ptr - run->t->head.base);
    *len = (uint32_t)kept.len;
    return true;
}

/*
 * PATH_INFO as rules have set it, where the application would see another one: a SCRIPT_NAME that
 * is in the path as well is taken off it else, as front ends mean it.
 */
static bool set_shown(struct uroute_run *run)
{
    const stk_span name = STK_SPAN_LIT("PATH_INFO");
    stk_span script = run->rq->base.script_name, value;
    bool hidden = script.len > 0 && run->state->path.len >= script.len &&
                  memcmp(run->state->path.ptr, script.ptr, script.len) == 0;

    if (!hidden && !stk_uroute_find(run, name, &value))
        return true;
    return stk_uroute_add(run, name, run->state->path);
}

/* The path below a SCRIPT_NAME, decoded. */
static bool set_path(struct uroute_run *run, stk_span path)
{
    struct stk_head *head = stk_uroute_own(run);

    if (head == NULL || !set_part(run, path, &head->path_off, &head->path_len))
        return false;
    head->path_escaped = false;
    head->path_apart = true; /* the target does not tell it */
    run->rq->base.script_skip = 0;
    run->state->path = stk_head_path(head);
    return set_shown(run);
}

static bool set_query(struct uroute_run *run, stk_span query)
{
    struct stk_head *head = stk_uroute_own(run);

    if (head == NULL || !set_part(run, query, &head->query_off, &head->query_len))
        return false;
    return head->path_apart || set_path(run, run->state->path);
}

static bool set_method(struct uroute_run *run, stk_span method)
{
    struct stk_head *head = stk_uroute_own(run);

    if (method.len == 0 || method.len > SET_METHOD_MAX)
        return false;
    for (size_t i = 0; i < method.len; i++)
        if (!((method.ptr[i] | 0x20) >= 'a' && (method.ptr[i] | 0x20) <= 'z') &&
            strchr("-_", method.ptr[i]) == NULL)
            return false;
    /* What a response may have is for the client to say, who asked as it did. */
    return head != NULL && set_part(run, method, &head->method_off, &head->method_len);
}

/* Controls are escaped: no other target has any, and logs show targets. */
static bool set_uri(struct uroute_run *run, stk_span uri)
{
    struct stk_utext_out out = {.buf = run->t->texts[1], .cap = STK_UTEXT_MAX};
    struct stk_head *head = stk_uroute_own(run);

    for (size_t i = 0; i < uri.len; i++) {
        unsigned char c = (unsigned char)uri.ptr[i];
        const char hex[3] = {'%', "0123456789ABCDEF"[c >> 4], "0123456789ABCDEF"[c & 15]};

        stk_utext_put(&out,
                      c < ' ' || c == 0x7f ? stk_span_make(hex, 3) : stk_span_make(uri.ptr + i, 1));
    }
    uri = stk_span_make(out.buf, out.len);
    if (head == NULL || out.full)
        return false;
    if (!head->path_apart && !set_path(run, run->state->path))
        return false;
    return set_part(run, uri, &head->target_off, &head->target_len);
}

/* Of an address that is none, only the variable is changed. */
static bool set_addr(struct uroute_run *run, stk_span addr)
{
    struct stk_peer *peer = &run->rq->base.peer;
    bool plain = addr.len > 0 && addr.len < sizeof peer->addr;

    for (size_t i = 0; i < addr.len && plain; i++)
        plain = strchr("0123456789abcdefABCDEF.:%", addr.ptr[i]) != NULL && addr.ptr[i] != '\0';
    if (plain) {
        memcpy(peer->addr, addr.ptr, addr.len);
        peer->addr_len = (uint8_t)addr.len;
        return true;
    }
    return stk_uroute_add(run, STK_SPAN_LIT("REMOTE_ADDR"), addr);
}

/*
 * Of another scheme only the variables are changed: whoever makes an environ has a place for each
 * of the two, which all requests share. None at all leaves it as it was, as in uWSGI.
 */
static bool set_scheme(struct uroute_run *run, stk_span scheme)
{
    if (stk_span_ieq(scheme, STK_SPAN_LIT("https"))) {
        run->rq->base.scheme = STK_SPAN_LIT("https");
        return true;
    }
    if (stk_span_ieq(scheme, STK_SPAN_LIT("http"))) {
        run->rq->base.scheme = STK_SPAN_LIT("http");
        return true;
    }
    return scheme.len == 0 || (stk_uroute_add(run, STK_SPAN_LIT("REQUEST_SCHEME"), scheme) &&
                               stk_uroute_add(run, STK_SPAN_LIT("wsgi.url_scheme"), scheme));
}

/* PATH_INFO stays as it is, with the old one in front of it in the head or not. */
static bool set_script(struct uroute_run *run, stk_span script)
{
    return stk_uroute_keep(run, script, &run->rq->base.script_name) &&
           set_path(run, run->state->path);
}

/* Up to the first colon: user:password is what is known of some. */
static bool set_user(struct uroute_run *run, stk_span user)
{
    const char *colon = user.len > 0 ? memchr(user.ptr, ':', user.len) : NULL;

    if (colon != NULL)
        user.len = (size_t)(colon - user.ptr);
    run->state->has_user = user.len > 0;
    return stk_uroute_add(run, STK_SPAN_LIT("REMOTE_USER"), user);
}

static enum uroute_next set_variable(struct uroute_run *run, const struct uroute_rule *rule)
{
    stk_span value;
    bool done = stk_uroute_fill(run, rule->arg, 0, &value);

    if (!done)
        return stk_uroute_refuse(run, 414, "");
    switch ((enum uroute_set)rule->variant) {
    case UROUTE_SET_APP:
        done = run->state->has_app = stk_uroute_keep(run, value, &run->state->app);
        break;
    case UROUTE_SET_USER:
        done = set_user(run, value);
        break;
    case UROUTE_SET_SCRIPT:
        done = set_script(run, value);
        break;
    case UROUTE_SET_METHOD:
        done = set_method(run, value);
        break;
    case UROUTE_SET_URI:
        done = set_uri(run, value);
        break;
    case UROUTE_SET_ADDR:
        done = set_addr(run, value);
        break;
    case UROUTE_SET_PATH:
        done = set_path(run, value);
        break;
    case UROUTE_SET_DOCROOT:
        done = stk_uroute_add(run, STK_SPAN_LIT("DOCUMENT_ROOT"), value);
        break;
    case UROUTE_SET_SCHEME:
        done = set_scheme(run, value);
        break;
    }
    return done ? UROUTE_NEXT : stk_uroute_refuse(run, 400, "a rule does not fit the request");
}

/* Takes the SCRIPT_NAME off the path, where the path begins with it. */
static enum uroute_next set_fixed(struct uroute_run *run)
{
    stk_span script = run->rq->base.script_name;

    if (script.len == 0 || run->state->path.len < script.len ||
        memcmp(run->state->path.ptr, script.ptr, script.len) != 0)
        return UROUTE_NEXT;
    if (!set_path(run, stk_span_make(run->state->path.ptr + script.len,
                                     run->state->path.len - script.len)))
        return stk_uroute_refuse(run, 414, "");
    return UROUTE_NEXT;
}

/* PATH?QUERY: the path is decoded, and the request's query stays behind a new one. */
static enum uroute_next set_rewritten(struct uroute_run *run, const struct uroute_rule *rule)
{
    struct stk_utext_out joined = {.buf = run->t->texts[1], .cap = STK_UTEXT_MAX};
    stk_span old = stk_head_query(run->rq->base.head), text;
    const char *mark;

    if (!stk_uroute_fill(run, rule->arg, 0, &text))
        return stk_uroute_refuse(run, 414, "");
    mark = text.len > 0 ? memchr(text.ptr, '?', text.len) : NULL;
    if (mark != NULL) {
        stk_utext_put(&joined, stk_span_make(mark + 1, text.len - (size_t)(mark + 1 - text.ptr)));
        text.len = (size_t)(mark - text.ptr);
        if (old.len > 0) {
            stk_utext_put(&joined, STK_SPAN_LIT("&"));
            stk_utext_put(&joined, old);
        }
        if (joined.full || !set_query(run, stk_span_make(joined.buf, joined.len)))
            return stk_uroute_refuse(run, 414, "");
    }
    /* In the thread's own buffer, where the text is. */
    text.len = stk_uri_unescape(run->t->texts[0], text);
    if (!set_path(run, text))
        return stk_uroute_refuse(run, 414, "");
    return rule->variant ? UROUTE_CONTINUE : UROUTE_NEXT;
}

/* A variable becomes another number; a request without it is not served. */
static enum uroute_next set_computed(struct uroute_run *run, const struct uroute_rule *rule)
{
    struct stk_utext_out name = {.buf = run->t->texts[0], .cap = STK_UTEXT_MAX};
    char digits[24];
    struct stk_utext_out out = {.buf = digits, .cap = sizeof digits};
    long long a, b = 1, result;
    stk_span text;

    stk_uroute_value(run, stk_span_str(rule->key), &name);
    if (name.full || name.len == 0)
        return UROUTE_CLOSE;
    a = stk_uroute_number(stk_span_make(name.buf, name.len));
    if (rule->arg != NULL) {
        if (!stk_uroute_fill(run, rule->arg, 0, &text))
            return stk_uroute_refuse(run, 414, "");
        b = stk_uroute_number(text);
    }
    if (rule->variant == '/')
        result = b == 0 || (b == -1 && a == INT64_MIN) ? 0 : a / b;
    else if (rule->variant == '*'   ? __builtin_mul_overflow(a, b, &result)
             : rule->variant == '-' ? __builtin_sub_overflow(a, b, &result)
                                    : __builtin_add_overflow(a, b, &result))
        result = 0;
    stk_utext_put_number(&out, result);
    if (!stk_uroute_add(run, stk_span_str(rule->key), stk_span_make(digits, out.len)))
        return stk_uroute_refuse(run, 400, "");
    return UROUTE_NEXT;
}

enum uroute_next stk_uroute_set(struct uroute_run *run, const struct uroute_rule *rule)
{
    stk_span value;

    switch (rule->action) {
    case UROUTE_DO_SET:
        return set_variable(run, rule);
    case UROUTE_DO_FIXPATHINFO:
        return set_fixed(run);
    case UROUTE_DO_REWRITE:
        return set_rewritten(run, rule);
    case UROUTE_DO_MATH:
        return set_computed(run, rule);
    default:
        if (!stk_uroute_fill(run, rule->arg, 0, &value))
            return stk_uroute_refuse(run, 414, "");
        if (!stk_uroute_add(run, stk_span_str(rule->key), value))
            return stk_uroute_refuse(run, 400, "");
        return UROUTE_NEXT;
    }
}
