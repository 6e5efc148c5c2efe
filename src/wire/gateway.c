/*
 * CGI variables to a request head. What a variable stands for follows from its name alone, and
 * front ends send the same names with every request: so what a name means is kept, and costs a
 * comparison the next time (gateway_name.h). Values stay in the packet, where it is held in the
 * same memory. The request line is written out and parsed, and the fields are judged, by what does
 * it for HTTP: there is one policy. What is no field of a request, or only concerned the connection
 * to the front end, is kept as a variable for the application.
 */
#include "wire/gateway.h"

#include <string.h>

#include "base/assert.h"
#include "wire/gateway_name.h"
#include "wire/uri.h"

/* The way of one variable is one function. */
#define GATEWAY_INLINE inline __attribute__((always_inline))

enum {
    GATEWAY_LINE_EXTRA = 16, /* spaces, version and line end of a request line */
    GATEWAY_LENGTH_MAX = 32,
    GATEWAY_PAD = 16, /* bytes that scanners may read behind what they look at */
};

/* The names, the line, values that are made here, path and query. */
static size_t gateway_room(const struct stk_http1_limits *limits)
{
    return sizeof(struct stk_gateway_names) + (size_t)limits->line_max * 4 + GATEWAY_LINE_EXTRA +
           (size_t)limits->head_max * 3 + 64;
}

size_t stk_gateway_room(const struct stk_http1_limits *limits)
{
    return gateway_room(limits) + GATEWAY_PAD + limits->head_max + GATEWAY_PAD;
}

static struct stk_gateway_names *gateway_names(const struct stk_gateway *gw)
{
    return (struct stk_gateway_names *)(void *)gw->buf;
}

void stk_gateway_begin(struct stk_gateway *gw, char *buf, const struct stk_http1_limits *limits)
{
    /* Not the arrays: of these only as much as is counted is looked at. */
    memset(gw, 0, offsetof(struct stk_gateway, fields));
    gw->buf = buf;
    gw->cap = gateway_room(limits);
    gw->room = stk_gateway_room(limits);
    gw->limits = limits;
    gw->len = sizeof(struct stk_gateway_names);
    gateway_names(gw)->turn++;
    gw->error = STK_HTTP1_OK;
}

const char *stk_gateway_hold(struct stk_gateway *gw, const char *packet, size_t len)
{
    STK_ASSERT(len <= gw->limits->head_max);
    gw->held = gw->buf + gw->cap + GATEWAY_PAD;
    gw->held_len = len;
    memcpy(gw->held, packet, len);
    return gw->held;
}

bool stk_gateway_again(struct stk_gateway *gw, const struct stk_head *head, const char *packet,
                       size_t len)
{
    size_t n = gw->remote_port.len, at, behind;
    uint32_t port = 0;

    if (gw->serial == 0 || gw->serial != head->serial || len < gw->held_len)
        return false;
    at = n > 0 ? (size_t)(gw->remote_port.ptr - gw->held) : 0;
    behind = at + n;
    if (memcmp(packet, gw->held, at) != 0 ||
        memcmp(packet + behind, gw->held + behind, gw->held_len - behind) != 0)
        return false;
    for (size_t i = at; i < behind; i++) {
        uint32_t digit = (uint32_t)(unsigned char)packet[i] - '0';

        if (digit > 9)
            return false;
        port = port * 10 + digit;
    }
    memcpy(gw->held + at, packet + at, n);
    gw->port = (uint16_t)(n <= 5 && port <= UINT16_MAX ? port : 0);
    return true;
}

static void gateway_fail(struct stk_gateway *gw, enum stk_http1_result error)
{
    if (gw->error == STK_HTTP1_OK)
        gw->error = error;
}

static void gateway_put(struct stk_gateway *gw, stk_span s)
{
    if (s.len > gw->cap - gw->len) {
        gateway_fail(gw, STK_HTTP1_E_HEAD_TOO_LARGE);
        return;
    }
    if (s.len > 0)
        memcpy(gw->buf + gw->len, s.ptr, s.len);
    gw->len += s.len;
}

static GATEWAY_INLINE bool gateway_is_held(const struct stk_gateway *gw, stk_span s)
{
    return (uintptr_t)s.ptr - (uintptr_t)gw->held < gw->held_len;
}

/* Where bytes are in buf, into which they are copied if they are not there. */
static GATEWAY_INLINE uint32_t gateway_at(struct stk_gateway *gw, stk_span s)
{
    size_t at = gw->len;

    if (s.len == 0)
        return 0;
    if (stk_likely((uintptr_t)s.ptr - (uintptr_t)gw->buf < gw->room))
        return (uint32_t)(s.ptr - gw->buf);
    gateway_put(gw, s);
    return (uint32_t)at;
}

static GATEWAY_INLINE void gateway_keep(struct stk_gateway *gw, stk_span name, stk_span value)
{
    if (gw->nvars == STK_GATEWAY_VARS_MAX) {
        gateway_fail(gw, STK_HTTP1_E_TOO_MANY_FIELDS);
        return;
    }
    gw->vars[gw->nvars++] = (struct stk_var){name, value};
}

static inline bool gateway_is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* A field, whose name is at `name` in buf; its value is trimmed as HTTP's is. */
static GATEWAY_INLINE void gateway_field(struct stk_gateway *gw, const struct stk_gateway_name *n,
                                         size_t name, stk_span value)
{
    struct stk_head_field *f = &gw->fields[gw->nfields];

    while (value.len > 0 && gateway_is_space(*value.ptr)) {
        value.ptr++;
        value.len--;
    }
    while (value.len > 0 && gateway_is_space(value.ptr[value.len - 1]))
        value.len--;
    if (gw->nfields == STK_HEAD_FIELDS_MAX) {
        gateway_fail(gw, STK_HTTP1_E_TOO_MANY_FIELDS);
        return;
    }
    f->name_off = (uint32_t)name;
    f->name_len = n->field_len;
    f->hash = n->hash;
    f->known = n->known;
    f->value_off = gateway_at(gw, value);
    f->value_len = (uint32_t)value.len;
    gw->nfields++;
    gw->fields_len += (size_t)n->field_len + value.len + 4; /* ": " and a line end */
}

/* The same for what few packets have. */
static STK_COLD void gateway_field_apart(struct stk_gateway *gw, const struct stk_gateway_name *n,
                                         size_t name, stk_span value)
{
    gateway_field(gw, n, name, value);
}

/* A field whose name is not kept. */
static STK_COLD void gateway_field_unkept(struct stk_gateway *gw, const struct stk_gateway_name *n,
                                          stk_span name, stk_span value)
{
    size_t at = gw->len;

    if (n->field_len > gw->cap - gw->len) {
        gateway_fail(gw, STK_HTTP1_E_HEAD_TOO_LARGE);
        return;
    }
    stk_gateway_name_lower(gw->buf + at, name);
    gw->len += n->field_len;
    gateway_field_apart(gw, n, at, value);
}

/* A field by the name of a variable. */
static GATEWAY_INLINE void gateway_http(struct stk_gateway *gw, const struct stk_gateway_name *n,
                                        stk_span name, stk_span value)
{
    if (n->known == STK_HEAD_HOST) {
        if (value.len == 0)
            return; /* the front end had none to tell */
        gw->has_host = true;
    }
    if (stk_likely(n->len != 0))
        gateway_field(gw, n, (size_t)(n->field - gw->buf), value);
    else
        gateway_field_unkept(gw, n, name, value);
}

static stk_span *gateway_place(struct stk_gateway *gw, const struct stk_gateway_name *n)
{
    return (stk_span *)(void *)((char *)gw + n->place);
}

/* A variable that is looked at here. */
static GATEWAY_INLINE void gateway_set(struct stk_gateway *gw, const struct stk_gateway_name *n,
                                       stk_span name, stk_span value)
{
    stk_span *place = gateway_place(gw, n);

    /* An empty one takes the body away, as front ends do for a request beside the request. */
    if (place == &gw->content_length && place->len > 0 && value.len > 0 &&
        !stk_span_eq(*place, value))
        gateway_fail(gw, STK_HTTP1_E_DUPLICATE_CONTENT_LENGTH);
    *place = value;
    if (n->shown && value.len > 0)
        gateway_keep(gw, name, value);
}

static GATEWAY_INLINE bool gateway_is_value(const struct stk_gateway *gw, stk_span value)
{
    if (value.len == 0)
        return true;
    return stk_likely(gateway_is_held(gw, value))
               ? stk_http1_is_field_value_padded(value.ptr, value.len)
               : stk_http1_is_field_value(value);
}

/* Takes a variable by what is known of its name. */
static GATEWAY_INLINE void gateway_take(struct stk_gateway *gw, const struct stk_gateway_name *n,
                                        stk_span name, stk_span value)
{
    if (stk_unlikely(n->kind == STK_GATEWAY_BAD)) {
        gateway_fail(gw, STK_HTTP1_E_BAD_FIELD_NAME);
        return;
    }
    /* A decoded path may hold anything; in a field it would be a second one. */
    if (stk_unlikely(!gateway_is_value(gw, value)) && !n->any) {
        /* What names files of the front end is of no interest here. */
        if (!n->path)
            gateway_fail(gw, STK_HTTP1_E_BAD_FIELD_VALUE);
        return;
    }
    switch ((enum stk_gateway_kind)n->kind) {
    case STK_GATEWAY_FIELD:
        gateway_http(gw, n, name, value);
        break;
    case STK_GATEWAY_PLACE:
        gateway_set(gw, n, name, value);
        break;
    case STK_GATEWAY_KEEP:
        gateway_keep(gw, name, value);
        break;
    case STK_GATEWAY_MAGIC:
        gw->magic = true;
        break;
    default:
        break;
    }
}

static STK_COLD void gateway_add_unkept(struct stk_gateway *gw, stk_span name, stk_span value)
{
    struct stk_gateway_name n;

    stk_gateway_name_look(&n, name);
    gateway_take(gw, &n, name, value);
}

STK_HOT void stk_gateway_add(struct stk_gateway *gw, stk_span name, stk_span value)
{
    const struct stk_gateway_name *n = stk_gateway_name_get(gateway_names(gw), name);

    if (stk_likely(n != NULL))
        gateway_take(gw, n, name, value);
    else
        gateway_add_unkept(gw, name, value);
}

/* Whether `path` begins with `prefix`, and goes on with nothing or a "/". */
static bool gateway_is_below(stk_span path, stk_span prefix)
{
    return prefix.len > 0 && path.len >= prefix.len &&
           memcmp(path.ptr, prefix.ptr, prefix.len) == 0 &&
           (path.len == prefix.len || path.ptr[prefix.len] == '/' ||
            prefix.ptr[prefix.len - 1] == '/');
}

/* Whether the whole is both, one behind the other. */
static bool gateway_is_joined(stk_span whole, stk_span script, stk_span path)
{
    return whole.len == script.len + path.len && memcmp(whole.ptr, script.ptr, script.len) == 0 &&
           memcmp(whole.ptr + script.len, path.ptr, path.len) == 0;
}

/* Parts the whole path: see gateway.h. `whole` is the decoded path of REQUEST_URI, or empty. */
static void gateway_part(const struct stk_gateway *gw, stk_span whole, stk_span *ret_script,
                         stk_span *ret_path)
{
    stk_span script = gw->script_name, path = gw->path_info;

    while (script.len > 0 && script.ptr[script.len - 1] == '/')
        script.len--; /* a mount point of "/" is none */
    if (gw->path_info.ptr == NULL) {
        stk_span all = gw->document_uri.len > 0 ? gw->document_uri : whole;

        if (all.len == 0)
            all = gw->script_name;
        if (script.len == all.len || !gateway_is_below(all, script))
            script.len = 0;
        path = stk_span_make(all.ptr + script.len, all.len - script.len);
    } else if (gw->strip) {
        if (gateway_is_below(path, script))
            path = stk_span_make(path.ptr + script.len, path.len - script.len);
    } else if (stk_span_eq(script, path) || (path.len == 0 && stk_span_eq(script, whole))) {
        path = script.len > 0 ? script : path;
        script.len = 0;
    } else if (gateway_is_below(path, script) && !gateway_is_joined(whole, script, path)) {
        path = stk_span_make(path.ptr + script.len, path.len - script.len);
    }
    *ret_script = script;
    *ret_path = path;
}

/* Writes path bytes as a target has them: what is not allowed there is escaped. */
static void gateway_escape(struct stk_gateway *gw, stk_span path)
{
    static const char hex[] = "0123456789ABCDEF";

    for (size_t i = 0; i < path.len && gw->error == STK_HTTP1_OK; i++) {
        unsigned char c = (unsigned char)path.ptr[i];
        char out[3] = {'%', hex[c >> 4], hex[c & 15]};

        if (c > 0x20 && c < 0x7f && strchr("\"#%<>?\\^`{|}", c) == NULL)
            gateway_put(gw, stk_span_make(path.ptr + i, 1));
        else
            gateway_put(gw, stk_span_make(out, 3));
    }
}

/* A target for a front end that tells none; written behind everything else. */
static stk_span gateway_make_uri(struct stk_gateway *gw)
{
    size_t at = gw->len;

    if (gw->document_uri.len > 0 && gw->path_info.ptr == NULL) {
        gateway_escape(gw, gw->document_uri);
    } else {
        if (!gw->strip)
            gateway_escape(gw, gw->script_name);
        gateway_escape(gw, gw->path_info);
    }
    if (gw->len == at)
        gateway_put(gw, STK_SPAN_LIT("/"));
    if (gw->query.len > 0) {
        gateway_put(gw, STK_SPAN_LIT("?"));
        gateway_put(gw, gw->query);
    }
    return stk_span_make(gw->buf + at, gw->len - at);
}

/* A field that no HTTP_NAME tells. */
static void gateway_own_field(struct stk_gateway *gw, struct stk_gateway_name *n, stk_span field,
                              stk_span value)
{
    if (stk_unlikely(n->len == 0))
        stk_gateway_name_set(n, field);
    gateway_field_apart(gw, n, (size_t)(n->field - gw->buf), value);
}

/* The fields that are variables of their own, and Host if the front end tells none. */
static void gateway_own_fields(struct stk_gateway *gw, bool http10)
{
    struct stk_gateway_names *names = gateway_names(gw);

    if (gw->content_type.len > 0)
        gateway_own_field(gw, &names->content_type, STK_SPAN_LIT("content-type"), gw->content_type);
    if (gw->content_length.len > GATEWAY_LENGTH_MAX)
        gateway_fail(gw, STK_HTTP1_E_BAD_CONTENT_LENGTH);
    else if (gw->content_length.len > 0 && gw->http_length.len > 0 &&
             !stk_span_eq(gw->content_length, gw->http_length))
        gateway_fail(gw, STK_HTTP1_E_DUPLICATE_CONTENT_LENGTH);
    else if (gw->content_length.len > 0)
        gateway_own_field(gw, &names->content_length, STK_SPAN_LIT("content-length"),
                          gw->content_length);
    if (!gw->has_host && !http10 && gw->server_name.len > 0) {
        size_t at = gw->len;

        gateway_put(gw, gw->server_name);
        if (gw->server_port.len > 0 && !stk_span_eq(gw->server_port, STK_SPAN_LIT("80")) &&
            !stk_span_eq(gw->server_port, STK_SPAN_LIT("443"))) {
            gateway_put(gw, STK_SPAN_LIT(":"));
            gateway_put(gw, gw->server_port);
        }
        gateway_own_field(gw, &names->host, STK_SPAN_LIT("host"),
                          stk_span_make(gw->buf + at, gw->len - at));
    }
}

static bool gateway_is_on(stk_span value)
{
    return stk_span_ieq(value, STK_SPAN_LIT("on")) || stk_span_ieq(value, STK_SPAN_LIT("1")) ||
           stk_span_ieq(value, STK_SPAN_LIT("true")) || stk_span_ieq(value, STK_SPAN_LIT("yes")) ||
           stk_span_ieq(value, STK_SPAN_LIT("https"));
}

/* Path and query as the front end has them after its own rewriting. */
static void gateway_set_path(struct stk_gateway *gw, struct stk_head *head)
{
    stk_span whole = stk_head_path(head), script, path;
    size_t at;

    head->path_apart = true;
    gw->mount = stk_span_make(gw->buf, 0);
    if (head->target_form >= STK_TARGET_AUTHORITY)
        return;
    if (head->path_escaped) {
        if (whole.len > gw->cap - gw->len) {
            gateway_fail(gw, STK_HTTP1_E_HEAD_TOO_LARGE);
            return;
        }
        whole = stk_span_make(gw->buf + gw->len, stk_uri_unescape(gw->buf + gw->len, whole));
        gw->len += whole.len;
    }
    gateway_part(gw, whole, &script, &path);
    if (script.len == 0 && path.len == 0)
        path = STK_SPAN_LIT("/"); /* PEP 3333: not both are empty */
    if (stk_likely(script.len == 0)) {
        at = gateway_at(gw, path);
    } else {
        at = gw->len;
        gateway_put(gw, script);
        gateway_put(gw, path);
    }
    gw->mount = stk_span_make(gw->buf + at, script.len);
    head->path_off = (uint32_t)at;
    head->path_len = (uint32_t)(script.len + path.len);
    head->path_escaped = false;
    if (gw->query.ptr == NULL || stk_span_eq(gw->query, stk_head_query(head)))
        return;
    head->query_off = gateway_at(gw, gw->query);
    head->query_len = (uint32_t)gw->query.len;
}

enum stk_http1_result stk_gateway_finish(struct stk_gateway *gw, struct stk_head *head, bool strip)
{
    bool http10 = stk_span_eq(gw->protocol, STK_SPAN_LIT("HTTP/1.0")) ||
                  (!gw->has_host && gw->server_name.len == 0);
    stk_span version = http10 ? STK_SPAN_LIT(" HTTP/1.0\r\n") : STK_SPAN_LIT(" HTTP/1.1\r\n");
    size_t line, at;
    enum stk_http1_result r;

    gw->strip = strip;
    gateway_own_fields(gw, http10);
    if (gw->uri.len == 0)
        gw->uri = gateway_make_uri(gw);
    if (gw->error == STK_HTTP1_OK && gw->method.len == 0)
        gw->error = STK_HTTP1_E_BAD_METHOD;
    if (gw->error != STK_HTTP1_OK)
        return gw->error;
    line = gw->method.len + 1 + gw->uri.len + version.len;
    if (line > gw->limits->line_max)
        return STK_HTTP1_E_LINE_TOO_LONG;
    if (line + gw->fields_len + 2 > gw->limits->head_max)
        return STK_HTTP1_E_HEAD_TOO_LARGE;
    at = gw->len;
    gateway_put(gw, gw->method);
    gateway_put(gw, STK_SPAN_LIT(" "));
    gateway_put(gw, gw->uri);
    gateway_put(gw, version);
    if (gw->error != STK_HTTP1_OK)
        return gw->error;
    memcpy(head->fields, gw->fields, gw->nfields * sizeof *gw->fields);
    r = stk_http1_assemble(head, gw->buf, stk_span_make(gw->buf + at, line), gw->nfields,
                           gw->limits);
    if (r != STK_HTTP1_OK)
        return r == STK_HTTP1_PARTIAL ? STK_HTTP1_E_BAD_PACKET : r;
    head->keep_alive = false;
    head->expect_continue = false;
    gw->secure = gw->https.ptr != NULL ? gateway_is_on(gw->https) : gateway_is_on(gw->scheme);
    if (gateway_is_on(gw->scheme))
        gw->secure = true;
    gateway_set_path(gw, head);
    return gw->error;
}
