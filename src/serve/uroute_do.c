/*
 * The actions of rules: where the walk goes on, what is logged, which fields a response gets. What
 * changes the request is in uroute_set.c, what answers it in uroute_answer.c.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "serve/deadline.h"
#include "serve/server.h"
#include "serve/uroute_priv.h"
#include "wire/http_date.h"

long long stk_uroute_number(stk_span text)
{
    char number[24];

    if (text.len >= sizeof number)
        return 0;
    memcpy(number, text.ptr, text.len);
    number[text.len] = '\0';
    return strtoll(number, NULL, 10);
}

/* Only forward, so that every walk ends. */
static enum uroute_next do_goto(struct uroute_run *run, const struct uroute_rule *rule)
{
    const struct uroute_list *list = &run->all->chains[run->chain];
    stk_span label;
    long long place = 0;

    if (!stk_uroute_fill(run, rule->arg, 0, &label))
        return stk_uroute_refuse(run, 414, "");
    for (size_t i = 0; i < list->n && place == 0; i++)
        if (list->rules[i].label != NULL && stk_span_eq(stk_span_str(list->rules[i].label), label))
            place = (long long)i;
    if (place == 0)
        place = stk_uroute_number(label);
    if (place <= (long long)run->at) {
        stk_log_error("uwsgi-route: goto:%.*s leads to no rule that follows: the connection is "
                      "closed",
                      (int)(label.len < 80 ? label.len : 80), label.ptr);
        return UROUTE_CLOSE;
    }
    run->target = (size_t)place;
    return UROUTE_NEXT;
}

/* One line, whatever a client has put into its path: the log escapes all other controls. */
static enum uroute_next do_log(struct uroute_run *run, const struct uroute_rule *rule)
{
    struct stk_utext_out line = {.buf = run->t->texts[1], .cap = STK_UTEXT_MAX};
    stk_span text;

    if (run->state->again && run->chain == UROUTE_REQUEST)
        return UROUTE_NEXT;
    line.full = !stk_uroute_fill(run, rule->arg, 0, &text);
    for (size_t i = 0; !line.full && i < text.len; i++)
        stk_utext_put(&line,
                      text.ptr[i] == '\n' ? STK_SPAN_LIT("\\x0a") : stk_span_make(text.ptr + i, 1));
    text = stk_span_make(line.buf, line.len);
    if (line.full)
        text = STK_SPAN_LIT("(a line of a rule is too long)");
    stk_log_bytes(STK_LOG_INFO, text.ptr, text.len);
    return UROUTE_NEXT;
}

/* Where there are too many, the log is without it. */
static enum uroute_next do_logvar(struct uroute_run *run, const struct uroute_rule *rule)
{
    struct stk_request *req = &run->rq->base;
    stk_span value;

    if (stk_uroute_fill(run, rule->arg, 0, &value) &&
        req->ops->set_logvar(req, stk_span_str(rule->key), value) != 0)
        stk_log_debug("uwsgi-route: logvar:%s cannot be kept", rule->key);
    return UROUTE_NEXT;
}

static enum uroute_next do_field(struct uroute_run *run, bool add, stk_span text)
{
    struct stk_uroute_state *state = run->state;
    stk_span kept;

    if (state->nfields == UROUTE_FIELDS || !stk_uroute_keep(run, text, &kept))
        return stk_uroute_refuse(run, 500, "");
    state->fields[state->nfields++] = (struct uroute_field){.add = add, .text = kept};
    return UROUTE_NEXT;
}

static enum uroute_next do_header(struct uroute_run *run, const struct uroute_rule *rule)
{
    stk_span text;

    if (!stk_uroute_fill(run, rule->arg, 0, &text))
        return stk_uroute_refuse(run, 500, "");
    return do_field(run, rule->action == UROUTE_DO_ADDHEADER, text);
}

/* Expires: by a file's time, or a number, and seconds more. */
static enum uroute_next do_expires(struct uroute_run *run, const struct uroute_rule *rule)
{
    char line[sizeof "Expires: " - 1 + STK_HTTP_DATE_LEN] = "Expires: ", path[4096];
    long long seconds = 0;
    struct stat st;
    stk_span text;

    if (rule->keys[UROUTE_KEY_NAME] != NULL) {
        if (!stk_uroute_fill(run, rule->keys[UROUTE_KEY_NAME], 0, &text) ||
            text.len >= sizeof path || memchr(text.ptr, '\0', text.len) != NULL)
            return stk_uroute_refuse(run, 404, "");
        memcpy(path, text.ptr, text.len);
        path[text.len] = '\0';
        if (stat(path, &st) < 0)
            return stk_uroute_refuse(run, 404, "");
        seconds = st.st_mtime;
    } else if (rule->keys[UROUTE_KEY_UNIX] != NULL) {
        if (!stk_uroute_fill(run, rule->keys[UROUTE_KEY_UNIX], 0, &text))
            return stk_uroute_refuse(run, 500, "");
        seconds = stk_uroute_number(text);
    }
    if (rule->keys[UROUTE_KEY_VALUE] != NULL) {
        if (!stk_uroute_fill(run, rule->keys[UROUTE_KEY_VALUE], 0, &text))
            return stk_uroute_refuse(run, 500, "");
        if (__builtin_add_overflow(seconds, stk_uroute_number(text), &seconds))
            seconds = 0;
    }
    if (seconds < 0 || seconds > 253402300799LL) /* the end of the year 9999 */
        seconds = 0;
    stk_http_date_format(line + sizeof "Expires: " - 1, seconds);
    return do_field(run, true, stk_span_make(line, sizeof line));
}

/* The beginning of an answer that rules put together: its status. */
static enum uroute_next do_clear(struct uroute_run *run, const struct uroute_rule *rule)
{
    struct stk_uroute_state *state = run->state;
    stk_span text;
    long long status;

    if (!stk_uroute_fill(run, rule->arg, 0, &text))
        return stk_uroute_refuse(run, 414, "");
    status = stk_uroute_number(stk_span_make(text.ptr, text.len < 3 ? text.len : 3));
    if (status < 200 || status > 599)
        return UROUTE_CLOSE;
    state->status = (unsigned)status;
    state->has_answer = true;
    return stk_uroute_keep(
               run, text.len > 4 ? stk_span_make(text.ptr + 4, text.len - 4) : stk_span_make("", 0),
               &state->reason)
               ? UROUTE_NEXT
               : stk_uroute_refuse(run, 414, "");
}

/* More of the body of such an answer: it is put behind what is there, at the end of the memory. */
static enum uroute_next do_send(struct uroute_run *run, const struct uroute_rule *rule)
{
    struct stk_uroute_state *state = run->state;
    stk_span text, before, after, end = {0};

    if (!stk_uroute_fill(run, rule->arg, 0, &text) || !stk_uroute_keep(run, state->body, &before) ||
        !stk_uroute_keep(run, text, &after) ||
        (rule->variant && !stk_uroute_keep(run, STK_SPAN_LIT("\r\n"), &end)))
        return stk_uroute_refuse(run, 500, "");
    state->body = stk_span_make(before.ptr, before.len + after.len + end.len);
    state->has_answer = true;
    return UROUTE_NEXT;
}

enum uroute_next stk_uroute_do(struct uroute_run *run, const struct uroute_rule *rule)
{
    switch (rule->action) {
    case UROUTE_DO_CONTINUE:
        return UROUTE_CONTINUE;
    case UROUTE_DO_GOTO:
        return do_goto(run, rule);
    case UROUTE_DO_LOG:
        return do_log(run, rule);
    case UROUTE_DO_DONOTLOG:
        run->state->quiet = true;
        return UROUTE_NEXT;
    case UROUTE_DO_LOGVAR:
        return do_logvar(run, rule);
    case UROUTE_DO_HARAKIRI:
        if (rule->limit > 0)
            stk_deadline_prepare(run->rq, rule->limit * 1000);
        return UROUTE_NEXT;
    case UROUTE_DO_ADDHEADER:
    case UROUTE_DO_DELHEADER:
        return do_header(run, rule);
    case UROUTE_DO_EXPIRES:
        return do_expires(run, rule);
    case UROUTE_DO_CLEARHEADERS:
        return do_clear(run, rule);
    case UROUTE_DO_SEND:
        return do_send(run, rule);
    case UROUTE_DO_ADDVAR:
    case UROUTE_DO_MATH:
    case UROUTE_DO_SET:
    case UROUTE_DO_FIXPATHINFO:
    case UROUTE_DO_REWRITE:
        return stk_uroute_set(run, rule);
    default:
        return stk_uroute_answer(run, rule);
    }
}
