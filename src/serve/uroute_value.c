/*
 * What ${NAME} stands for: the variables of a request as an application sees them (PATH_INFO,
 * HTTP_HOST, what a gateway or a rule has set), and those with brackets.
 */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "serve/proto.h"
#include "serve/server.h"
#include "serve/static_priv.h"
#include "serve/uroute_priv.h"
#include "wire/http1.h"
#include "wire/http_date.h"
#include "wire/mime.h"
#include "wire/uri.h"

enum { VALUE_FIELD_MAX = 128 };

static bool value_is(stk_span text, const char *name)
{
    return stk_span_eq(text, stk_span_str(name));
}

/* ---- the request ---------------------------------------------------------------------------- */

/*
 * A front end's path has its SCRIPT_NAME in front, put there by us where it did not say so: uWSGI's
 * rules see PATH_INFO as it came.
 */
static size_t value_in_front(const struct stk_serve_request *rq, stk_span path)
{
    stk_span script = rq->base.script_name;

    if (rq->base.script_skip > 0)
        return rq->base.script_skip;
    if (!rq->base.head->path_apart || rq->t->gateway == NULL || path.len < script.len ||
        memcmp(path.ptr, script.ptr, script.len) != 0 ||
        stk_span_eq(rq->t->gateway->vars.path_info, path))
        return 0;
    return script.len;
}

bool stk_uroute_path(struct uroute_run *run)
{
    const struct stk_request *req = &run->rq->base;
    stk_span path = stk_head_path(req->head);
    size_t skip;
    char *kept;

    if (path.len == 0 && req->head->target_form == STK_TARGET_ABSOLUTE && !req->head->path_apart)
        path = STK_SPAN_LIT("/");
    if (req->head->target_form >= STK_TARGET_AUTHORITY)
        path = stk_span_make("", 0);
    kept = run->state->memory + run->state->len; /* where the copy goes */
    if (!stk_uroute_keep(run, path, &run->state->path))
        return false;
    if (req->head->path_escaped)
        run->state->path.len = stk_uri_unescape(kept, path);
    skip = value_in_front(run->rq, run->state->path);
    if (skip <= run->state->path.len)
        run->state->path = stk_span_make(run->state->path.ptr + skip, run->state->path.len - skip);
    return true;
}

bool stk_uroute_find(const struct uroute_run *run, stk_span name, stk_span *ret_value)
{
    const struct stk_uroute_state *state = run->state;
    const struct stk_request *req = &run->rq->base;

    for (size_t i = state->nadded; i-- > 0;)
        if (stk_span_eq(state->added[i].name, name)) {
            *ret_value = state->added[i].value;
            return true;
        }
    for (size_t i = req->nvars; i-- > 0;)
        if (stk_span_eq(req->vars[i].name, name)) {
            *ret_value = req->vars[i].value;
            return true;
        }
    return false;
}

/* HTTP_X_NAME: the last field x-name. An underscore in a field's own name is none of this. */
static stk_span value_field(const struct stk_request *req, stk_span name)
{
    const struct stk_head *head = req->head;
    char field[VALUE_FIELD_MAX];
    uint32_t hash;

    if (value_is(name, "HOST"))
        return req->host;
    if (name.len > sizeof field)
        return stk_span_make("", 0);
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];

        field[i] = c == '_' ? '-' : c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    hash = stk_http1_field_hash(stk_span_make(field, name.len));
    for (size_t i = head->nfields; i-- > 0;)
        if (head->fields[i].hash == hash &&
            stk_span_ieq(stk_head_field_name(head, &head->fields[i]),
                         stk_span_make(field, name.len)))
            return stk_head_field_value(head, &head->fields[i]);
    return stk_span_make("", 0);
}

stk_span stk_uroute_subject(const struct uroute_run *run, enum uroute_subject subject)
{
    const struct stk_request *req = &run->rq->base;
    stk_span value = stk_span_make("", 0);

    switch (subject) {
    case UROUTE_URI:
        return stk_head_target(req->head);
    case UROUTE_QUERY:
        return stk_head_query(req->head);
    case UROUTE_HOST:
        return req->host;
    case UROUTE_ADDR:
        if (stk_uroute_find(run, STK_SPAN_LIT("REMOTE_ADDR"), &value))
            return value;
        return stk_span_make(req->peer.addr, req->peer.addr_len);
    case UROUTE_USER:
        (void)stk_uroute_find(run, STK_SPAN_LIT("REMOTE_USER"), &value);
        return value;
    case UROUTE_REFERER:
        return stk_head_known_value(req->head, STK_HEAD_REFERER);
    case UROUTE_AGENT:
        return stk_head_known_value(req->head, STK_HEAD_USER_AGENT);
    default:
        return run->state->path;
    }
}

enum value_name {
    VALUE_METHOD,
    VALUE_URI,
    VALUE_PATH,
    VALUE_QUERY,
    VALUE_SCRIPT,
    VALUE_PROTOCOL,
    VALUE_SERVER,
    VALUE_SERVER_PORT,
    VALUE_ADDR,
    VALUE_PORT,
    VALUE_TYPE,
    VALUE_LENGTH,
    VALUE_SCHEME,
    VALUE_HTTPS,
    VALUE_NONE,
};

static enum value_name value_find(stk_span name)
{
    static const char *const names[] = {
        [VALUE_METHOD] = "REQUEST_METHOD", [VALUE_URI] = "REQUEST_URI",
        [VALUE_PATH] = "PATH_INFO",        [VALUE_QUERY] = "QUERY_STRING",
        [VALUE_SCRIPT] = "SCRIPT_NAME",    [VALUE_PROTOCOL] = "SERVER_PROTOCOL",
        [VALUE_SERVER] = "SERVER_NAME",    [VALUE_SERVER_PORT] = "SERVER_PORT",
        [VALUE_ADDR] = "REMOTE_ADDR",      [VALUE_PORT] = "REMOTE_PORT",
        [VALUE_TYPE] = "CONTENT_TYPE",     [VALUE_LENGTH] = "CONTENT_LENGTH",
        [VALUE_SCHEME] = "REQUEST_SCHEME", [VALUE_HTTPS] = "HTTPS",
    };

    for (unsigned i = 0; i < VALUE_NONE; i++)
        if (value_is(name, names[i]))
            return (enum value_name)i;
    return VALUE_NONE;
}

/* A variable that every request has. */
static void value_known(const struct uroute_run *run, stk_span name, struct stk_utext_out *out)
{
    const struct stk_request *req = &run->rq->base;
    const struct stk_head *head = req->head;
    stk_span value = stk_span_make("", 0);

    switch (value_find(name)) {
    case VALUE_METHOD:
        value = stk_head_method(head);
        break;
    case VALUE_URI:
        value = stk_head_target(head);
        break;
    case VALUE_PATH:
        value = run->state->path;
        break;
    case VALUE_QUERY:
        value = stk_head_query(head);
        break;
    case VALUE_SCRIPT:
        value = req->script_name;
        break;
    case VALUE_PROTOCOL:
        value = head->version_minor > 0 ? STK_SPAN_LIT("HTTP/1.1") : STK_SPAN_LIT("HTTP/1.0");
        break;
    case VALUE_SERVER:
        value = req->endpoint->server_name;
        break;
    case VALUE_SERVER_PORT:
        value = req->endpoint->server_port;
        break;
    case VALUE_ADDR:
        value = stk_span_make(req->peer.addr, req->peer.addr_len);
        break;
    case VALUE_PORT:
        if (req->peer.port > 0)
            stk_utext_put_number(out, req->peer.port);
        break;
    case VALUE_TYPE:
        value = stk_head_known_value(head, STK_HEAD_CONTENT_TYPE);
        break;
    case VALUE_LENGTH:
        if (head->has_content_length)
            stk_utext_put_number(out, (long long)head->content_length);
        break;
    case VALUE_SCHEME:
        value = req->scheme;
        break;
    case VALUE_HTTPS:
        value = value_is(req->scheme, "https") ? STK_SPAN_LIT("on") : value;
        break;
    case VALUE_NONE:
        break;
    }
    stk_utext_put(out, value);
}

static void value_plain(const struct uroute_run *run, stk_span name, struct stk_utext_out *out)
{
    stk_span value;

    if (stk_uroute_find(run, name, &value))
        stk_utext_put(out, value);
    else if (name.len > 5 && memcmp(name.ptr, "HTTP_", 5) == 0)
        stk_utext_put(out, value_field(&run->rq->base, stk_span_make(name.ptr + 5, name.len - 5)));
    else
        value_known(run, name, out);
}

/* ---- with brackets -------------------------------------------------------------------------- */

/* NAME=VALUE among pairs that a sign separates. */
static void value_pair(stk_span text, char sign, stk_span key, struct stk_utext_out *out)
{
    while (text.len > 0) {
        const char *end = memchr(text.ptr, sign, text.len);
        size_t n = end ? (size_t)(end - text.ptr) : text.len;
        stk_span pair = stk_span_make(text.ptr, n);

        while (pair.len > 0 && *pair.ptr == ' ')
            pair = stk_span_make(pair.ptr + 1, pair.len - 1);
        if (pair.len > key.len && pair.ptr[key.len] == '=' &&
            memcmp(pair.ptr, key.ptr, key.len) == 0) {
            stk_utext_put(out, stk_span_make(pair.ptr + key.len + 1, pair.len - key.len - 1));
            return;
        }
        n += end != NULL;
        text = stk_span_make(text.ptr + n, text.len - n);
    }
}

static void value_uuid(struct stk_utext_out *out)
{
    unsigned char b[16];
    char text[37];

    if (getrandom(b, sizeof b, GRND_NONBLOCK) != (ssize_t)sizeof b)
        return;
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    snprintf(text, sizeof text,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
             b[15]);
    stk_utext_put(out, stk_span_str(text));
}

static long long value_micros(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Microseconds since the request began; 0 where that was not noted. */
static long long value_taken(const struct stk_request *req)
{
    return req->started > 0 ? (stk_time_mono_ns() - req->started) / STK_NSEC_PER_USEC : 0;
}

static void value_uwsgi(const struct uroute_run *run, stk_span key, struct stk_utext_out *out)
{
    const struct stk_serve_request *rq = run->rq;

    if (value_is(key, "wid"))
        stk_utext_put_number(out, (long long)run->all->server->slot + 1);
    else if (value_is(key, "pid"))
        stk_utext_put_number(out, getpid());
    else if (value_is(key, "uuid"))
        value_uuid(out);
    else if (value_is(key, "status"))
        stk_utext_put_number(out, rq->status != 0 ? rq->status : 500); /* none yet */
    else if (value_is(key, "rtime"))
        stk_utext_put_number(out, value_taken(&rq->base));
    else if (value_is(key, "rsize"))
        stk_utext_put_number(out, (long long)rq->body_bytes);
    else if (value_is(key, "sor"))
        stk_utext_put_number(out, value_micros() - value_taken(&rq->base));
    else if (value_is(key, "lq"))
        stk_utext_put_number(out, 0);
}

static void value_time(stk_span key, struct stk_utext_out *out)
{
    if (value_is(key, "unix"))
        stk_utext_put_number(out, value_micros() / 1000000);
    else if (value_is(key, "micros"))
        stk_utext_put_number(out, value_micros());
}

/* A date so many seconds from now. */
static void value_httptime(stk_span key, struct stk_utext_out *out)
{
    char date[STK_HTTP_DATE_LEN];
    long long seconds = 0;

    for (size_t i = 0; i < key.len && i < 10 && key.ptr[i] >= '0' && key.ptr[i] <= '9'; i++)
        seconds = seconds * 10 + (key.ptr[i] - '0');
    stk_http_date_format(date, value_micros() / 1000000 + seconds);
    stk_utext_put(out, stk_span_make(date, sizeof date));
}

static void value_hex(stk_span value, struct stk_utext_out *out)
{
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        const char two[2] = {"0123456789ABCDEF"[c >> 4], "0123456789ABCDEF"[c & 15]};

        stk_utext_put(out, stk_span_make(two, 2));
    }
}

static void value_base64(stk_span value, struct stk_utext_out *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < value.len; i += 3) {
        size_t n = value.len - i < 3 ? value.len - i : 3;
        unsigned bits = 0;
        char four[4];

        for (size_t k = 0; k < 3; k++)
            bits = bits << 8 | (k < n ? (unsigned char)value.ptr[i + k] : 0u);
        for (size_t k = 0; k < 4; k++)
            four[k] = k <= n ? digits[bits >> (18 - 6 * k) & 63] : '=';
        stk_utext_put(out, stk_span_make(four, 4));
    }
}

/* Without what is said of characters. */
static void value_type(stk_span type, struct stk_utext_out *out)
{
    const char *end = type.len > 0 ? memchr(type.ptr, ';', type.len) : NULL;

    stk_utext_put(out, end ? stk_span_make(type.ptr, (size_t)(end - type.ptr)) : type);
}

/* Of the value of another variable: base64[], hex[], mime[]. */
static void value_of(const struct uroute_run *run, stk_span kind, stk_span key,
                     struct stk_utext_out *out)
{
    char buf[4096];
    struct stk_utext_out inner = {.buf = buf, .cap = sizeof buf};
    stk_span value;

    value_plain(run, key, &inner);
    if (inner.full) {
        out->full = true;
        return;
    }
    value = stk_span_make(buf, inner.len);
    if (value_is(kind, "base64"))
        value_base64(value, out);
    else if (value_is(kind, "hex"))
        value_hex(value, out);
    else
        value_type(stk_static_type(run->all->server->statics, value), out);
}

void stk_uroute_value(void *arg, stk_span name, struct stk_utext_out *out)
{
    const struct uroute_run *run = arg;
    const char *bracket = name.len > 0 ? memchr(name.ptr, '[', name.len) : NULL;
    stk_span kind, key;

    if (!bracket || name.ptr[name.len - 1] != ']') {
        value_plain(run, name, out);
        return;
    }
    kind = stk_span_make(name.ptr, (size_t)(bracket - name.ptr));
    key = stk_span_make(bracket + 1, name.len - kind.len - 2);
    if (value_is(kind, "cookie"))
        value_pair(value_field(&run->rq->base, STK_SPAN_LIT("COOKIE")), ';', key, out);
    else if (value_is(kind, "qs"))
        value_pair(stk_head_query(run->rq->base.head), '&', key, out);
    else if (value_is(kind, "uwsgi"))
        value_uwsgi(run, key, out);
    else if (value_is(kind, "time"))
        value_time(key, out);
    else if (value_is(kind, "httptime"))
        value_httptime(key, out);
    else if (value_is(kind, "base64") || value_is(kind, "hex") || value_is(kind, "mime"))
        value_of(run, kind, key, out);
    else
        value_plain(run, name, out);
}
