/*
 * What rules answer: statuses, redirects, files, the question for a password.
 *
 * Where it stands in for the application's response (error-route, response-route), the response
 * that was about to leave is replaced: nothing of it has left yet.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "serve/server.h"
#include "serve/static_priv.h"
#include "serve/uroute_priv.h"
#include "wire/http_status.h"

enum { ANSWER_SMALL = 32 * 1024, ANSWER_URL_MAX = 3 * STK_UTEXT_MAX };

struct answer {
    unsigned status;
    stk_span reason; /* len 0: the usual one */
    stk_span type;
    stk_span name, value; /* one more field; len 0: none */
    stk_span body;
};

static enum uroute_next answer_send(struct uroute_run *run, const struct answer *a)
{
    struct stk_serve_request *rq = run->rq;
    stk_span reason = a->reason.len > 0 ? a->reason : stk_http_status_reason(a->status);
    int r = stk_response_start(&rq->base, a->status, reason);

    if (r == STK_RESPONSE_E_STATUS) /* a reason that cannot be sent */
        r = stk_response_start(&rq->base, a->status, stk_http_status_reason(a->status));
    if (r == 0 && a->name.len > 0)
        r = stk_response_header(&rq->base, a->name, a->value);
    if (r == 0 && a->type.len > 0 && a->status != 204 && a->status != 304)
        r = stk_response_header(&rq->base, STK_SPAN_LIT("Content-Type"), a->type);
    if (r != 0) {
        stk_response_plain(rq, 500, "");
        return UROUTE_ANSWERED;
    }
    if (stk_response_write(&rq->base, a->body.ptr, a->body.len, STK_WRITE_END) < 0)
        rq->keep_alive = false;
    return UROUTE_ANSWERED;
}

enum uroute_next stk_uroute_refuse(struct uroute_run *run, unsigned status, const char *text)
{
    if (run->chain == UROUTE_FINAL) /* it is over, and the thread's buffer another request's */
        return UROUTE_CONTINUE;
    stk_response_plain(run->rq, status, text);
    return UROUTE_ANSWERED;
}

/* "404 Not Found"; 0: it is no status. */
static unsigned answer_status(stk_span text, stk_span *ret_reason)
{
    unsigned status = 0;

    *ret_reason = stk_span_make("", 0);
    if (text.len < 3)
        return 0;
    for (size_t i = 0; i < 3; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return 0;
        status = status * 10 + (unsigned)(text.ptr[i] - '0');
    }
    if (text.len > 4 && text.ptr[3] == ' ')
        *ret_reason = stk_span_make(text.ptr + 4, text.len - 4);
    return status >= 200 && status <= 599 ? status : 0;
}

enum uroute_next stk_uroute_gathered(struct uroute_run *run)
{
    struct stk_uroute_state *state = run->state;
    struct answer a = {
        .status = state->status != 0 ? state->status : 200,
        .reason = state->reason,
        .body = state->body,
    };

    if (!state->has_answer)
        return UROUTE_CLOSE;
    return answer_send(run, &a);
}

static enum uroute_next answer_break(struct uroute_run *run, const struct uroute_rule *rule)
{
    struct answer a = {.type = STK_SPAN_LIT("text/plain"), .body = STK_SPAN_LIT("")};

    a.status = answer_status(stk_span_str(rule->key), &a.reason);
    return a.status != 0 ? answer_send(run, &a) : stk_uroute_gathered(run);
}

static enum uroute_next answer_return(struct uroute_run *run, const struct uroute_rule *rule)
{
    struct answer a = {.type = STK_SPAN_LIT("text/plain")};

    a.status = answer_status(stk_span_str(rule->key), &a.reason);
    if (a.status == 0)
        return stk_uroute_gathered(run);
    a.reason = a.body = stk_http_status_reason(a.status);
    return answer_send(run, &a);
}

/* ---- redirects ------------------------------------------------------------------------------ */

/*
 * A URL out of decoded parts: what cannot stand in one is escaped again. A path that a client has
 * begun with two slashes does not become the name of a host.
 */
static stk_span answer_url(const struct stk_utext *text, stk_span url, char *out, size_t cap)
{
    struct stk_utext_out to = {.buf = out, .cap = cap};

    if (stk_utext_literal(text).len < 2)
        while (url.len > 1 && url.ptr[0] == '/' && url.ptr[1] == '/')
            url = stk_span_make(url.ptr + 1, url.len - 1);
    for (size_t i = 0; i < url.len; i++) {
        unsigned char c = (unsigned char)url.ptr[i];
        char hex[3] = {'%', "0123456789ABCDEF"[c >> 4], "0123456789ABCDEF"[c & 15]};

        if (c <= ' ' || c >= 0x7f || strchr("\"<>\\^`{|}", c) != NULL)
            stk_utext_put(&to, stk_span_make(hex, 3));
        else
            stk_utext_put(&to, stk_span_make(url.ptr + i, 1));
    }
    return to.full ? stk_span_make("", 0) : stk_span_make(out, to.len);
}

static enum uroute_next answer_redirect(struct uroute_run *run, const struct uroute_rule *rule)
{
    char out[ANSWER_URL_MAX];
    struct answer a = {
        .status = (unsigned)rule->variant,
        .type = STK_SPAN_LIT("text/plain"),
        .name = STK_SPAN_LIT("Location"),
        .body = STK_SPAN_LIT("Moved"),
    };

    if (!stk_uroute_fill(run, rule->arg, 0, &a.value))
        return stk_uroute_refuse(run, 414, "");
    a.value = answer_url(rule->arg, a.value, out, sizeof out);
    return answer_send(run, &a);
}

/* ---- files ---------------------------------------------------------------------------------- */

/*
 * Opens the file that a text names. What the text says before its first variable is the
 * administrator's word, and its directory is what the file has to be in.
 */
static int answer_open(struct uroute_run *run, const struct stk_utext *text, stk_span path,
                       struct stat *ret_st)
{
    const struct stk_statics *statics = run->all->server->statics;
    stk_span root = stk_utext_is_literal(text) ? path : stk_utext_literal(text);
    STK_CLEANUP(stk_fd_closep) int dir = -1;
    char rel[STK_STATIC_PATH_MAX + 2], name[PATH_MAX];
    bool slash = false;
    int fd;

    while (root.len > 0 && root.ptr[root.len - 1] != '/')
        root.len--;
    if (root.len >= sizeof name || root.len > path.len)
        return -ENAMETOOLONG;
    memcpy(name, path.ptr, root.len);
    name[root.len] = '\0';
    path = stk_span_make(path.ptr + root.len, path.len - root.len);
    if (root.len == 0 && path.len > 0 && path.ptr[0] == '/')
        snprintf(name, sizeof name, "/"); /* all of it comes from variables */
    if (!stk_static_clean(path, statics->dotfiles, true, rel, &slash))
        return path.len > STK_STATIC_PATH_MAX ? -ENAMETOOLONG : -EXDEV;
    if (rel[0] == '\0' || slash)
        return -EISDIR;
    dir = open(name[0] != '\0' ? name : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -errno;
    fd = stk_static_open(dir, rel, statics->links, &run->all->no_openat2);
    if (fd >= 0 && (fstat(fd, ret_st) < 0 || !S_ISREG(ret_st->st_mode))) {
        stk_fd_close(&fd);
        return -EISDIR;
    }
    return fd;
}

static enum uroute_next answer_missing(struct uroute_run *run, const struct uroute_rule *rule,
                                       int error)
{
    if (rule->variant)
        return UROUTE_NEXT;
    if (error == -EXDEV || error == -EACCES || error == -EPERM || error == -ELOOP)
        return stk_uroute_refuse(run, 403, "");
    return stk_uroute_refuse(run, error == -EMFILE || error == -ENFILE ? 503 : 404, "");
}

/* A file as those of static-map: with ranges, and what is asked of it. */
static enum uroute_next answer_static(struct uroute_run *run, const struct uroute_rule *rule)
{
    STK_CLEANUP(stk_fd_closep) int fd = -1;
    char etag[STK_STATIC_ETAG_MAX], small[ANSWER_SMALL];
    struct stk_static_file file = {.max_age = -1};
    struct stat st = {0};
    stk_span path;

    if (!stk_uroute_fill(run, rule->arg, 0, &path))
        return stk_uroute_refuse(run, 414, "");
    fd = answer_open(run, rule->arg, path, &st);
    if (fd < 0)
        return answer_missing(run, rule, fd);
    file.fd = fd;
    file.size = (uint64_t)st.st_size;
    file.modified = st.st_mtime <= time(NULL) ? st.st_mtime : -1;
    file.etag = stk_span_make(etag, stk_static_etag(etag, &st, ""));
    file.type = stk_static_type(run->all->server->statics, path);
    if (file.size <= sizeof small && stk_fd_read_whole(fd, small, file.size))
        file.data = small;
    (void)stk_static_send(run->rq, &file);
    return UROUTE_ANSWERED;
}

/* A file as it is, as the body of whatever status. */
static enum uroute_next answer_file(struct uroute_run *run, const struct uroute_rule *rule)
{
    STK_CLEANUP(stk_fd_closep) int fd = -1;
    struct stk_serve_request *rq = run->rq;
    stk_span path, text = STK_SPAN_LIT("200"), type = STK_SPAN_LIT("text/html"), reason;
    const struct stk_utext *name = rule->keys[UROUTE_KEY_NAME];
    unsigned status;
    struct stat st = {0};
    int r;

    if (!stk_uroute_fill(run, name, 0, &path))
        return stk_uroute_refuse(run, 414, "");
    fd = answer_open(run, name, path, &st);
    if (fd < 0)
        return answer_missing(run, rule, fd);
    if (rule->mime && stk_static_type(run->all->server->statics, path).len > 0)
        type = stk_static_type(run->all->server->statics, path);
    else if (rule->keys[UROUTE_KEY_TYPE] != NULL &&
             !stk_uroute_fill(run, rule->keys[UROUTE_KEY_TYPE], 0, &type))
        return stk_uroute_refuse(run, 414, "");
    if (rule->keys[UROUTE_KEY_STATUS] != NULL &&
        !stk_uroute_fill(run, rule->keys[UROUTE_KEY_STATUS], 1, &text))
        return stk_uroute_refuse(run, 414, "");
    status = answer_status(text, &reason);
    if (status == 0)
        return stk_uroute_refuse(run, 500, "");
    if (reason.len == 0)
        reason = stk_http_status_reason(status);
    r = stk_response_start(&rq->base, status, reason);
    if (r == 0)
        r = stk_response_header(&rq->base, STK_SPAN_LIT("Content-Type"), type);
    if (r == 0)
        r = stk_response_sendfile(&rq->base, fd, 0, (uint64_t)st.st_size, STK_WRITE_END);
    return r > 0 ? stk_uroute_refuse(run, 500, "") : UROUTE_ANSWERED;
}

/* ---- passwords ------------------------------------------------------------------------------ */

/*
 * Once a rule has said who it is, further ones do not ask: that is how several make a list of
 * users, the last one without -next. What a front end says of the user is no such word, for most of
 * them hand over what the client claims.
 */
static enum uroute_next answer_auth(struct uroute_run *run, const struct uroute_rule *rule)
{
    char buf[UROUTE_AUTH_MAX], challenge[UROUTE_LINE_MAX + 32];
    stk_span user = {0};
    struct answer a = {
        .status = 401,
        .type = STK_SPAN_LIT("text/plain"),
        .name = STK_SPAN_LIT("WWW-Authenticate"),
        .body = STK_SPAN_LIT("Unauthorized"),
    };
    enum uroute_login login;

    if (run->state->has_user)
        return UROUTE_NEXT;
    login = stk_uroute_auth(rule, stk_head_known_value(run->rq->base.head, STK_HEAD_AUTHORIZATION),
                            buf, &user);
    if (login == UROUTE_LOGIN_GOOD) {
        run->state->has_user = stk_uroute_add(run, STK_SPAN_LIT("REMOTE_USER"), user);
        login = run->state->has_user ? UROUTE_LOGIN_GOOD : UROUTE_LOGIN_NONE;
    }
    explicit_bzero(buf, sizeof buf);
    if (login == UROUTE_LOGIN_GOOD || (login == UROUTE_LOGIN_WRONG && rule->variant))
        return UROUTE_NEXT;
    a.value = stk_span_make(
        challenge, (size_t)snprintf(challenge, sizeof challenge, "Basic realm=\"%s\"", rule->key));
    return answer_send(run, &a);
}

enum uroute_next stk_uroute_answer(struct uroute_run *run, const struct uroute_rule *rule)
{
    if (run->chain == UROUTE_FINAL)
        return UROUTE_CONTINUE;
    switch (rule->action) {
    case UROUTE_DO_BREAK:
        return answer_break(run, rule);
    case UROUTE_DO_RETURN:
        return answer_return(run, rule);
    case UROUTE_DO_REDIRECT:
        return answer_redirect(run, rule);
    case UROUTE_DO_STATIC:
        return answer_static(run, rule);
    case UROUTE_DO_FILE:
        return answer_file(run, rule);
    default:
        return answer_auth(run, rule);
    }
}
