/*
 * CGI variables to an HTTP/1 head. The fields are written as their variables come, behind room for
 * the request line, which needs variables that may come last. What is no field of a request, or
 * only concerned the connection to the front end, is kept as a variable for the application.
 */
#include "wire/gateway.h"

#include <string.h>

#include "base/assert.h"
#include "wire/uri.h"

enum {
    GATEWAY_LINE_EXTRA = 16, /* spaces, version and line end of a request line */
    GATEWAY_LENGTH_MAX = 32,
};

/* The line, the fields, then copies of path and query; 16 bytes that scanners may read. */
static size_t gateway_room(const struct stk_http1_limits *limits)
{
    return (size_t)limits->line_max * 3 + GATEWAY_LINE_EXTRA + (size_t)limits->head_max * 3 + 64;
}

size_t stk_gateway_room(const struct stk_http1_limits *limits)
{
    return gateway_room(limits) + limits->head_max + 16;
}

void stk_gateway_begin(struct stk_gateway *gw, char *buf, const struct stk_http1_limits *limits)
{
    /* Not the array of variables: of that only nvars are looked at. */
    memset(gw, 0, offsetof(struct stk_gateway, vars));
    gw->buf = buf;
    gw->cap = gateway_room(limits) - 16;
    gw->limits = limits;
    gw->line_room = (size_t)limits->line_max + GATEWAY_LINE_EXTRA;
    gw->len = gw->line_room;
    gw->error = STK_HTTP1_OK;
}

const char *stk_gateway_hold(struct stk_gateway *gw, const char *packet, size_t len)
{
    STK_ASSERT(len <= gw->limits->head_max);
    gw->held = gw->buf + gateway_room(gw->limits);
    gw->held_len = len;
    memcpy(gw->held, packet, len);
    return gw->held;
}

bool stk_gateway_again(struct stk_gateway *gw, const struct stk_head *head, const char *packet,
                       size_t len)
{
    size_t n = gw->remote_port.len, at, behind;

    if (gw->serial == 0 || gw->serial != head->serial || len < gw->held_len)
        return false;
    at = n > 0 ? (size_t)(gw->remote_port.ptr - gw->held) : 0;
    behind = at + n;
    if (memcmp(packet, gw->held, at) != 0 ||
        memcmp(packet + behind, gw->held + behind, gw->held_len - behind) != 0)
        return false;
    for (size_t i = at; i < behind; i++)
        if (packet[i] < '0' || packet[i] > '9')
            return false;
    memcpy(gw->held + at, packet + at, n);
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

static void gateway_keep(struct stk_gateway *gw, stk_span name, stk_span value)
{
    if (gw->nvars == STK_GATEWAY_VARS_MAX) {
        gateway_fail(gw, STK_HTTP1_E_TOO_MANY_FIELDS);
        return;
    }
    gw->vars[gw->nvars++] = (struct stk_var){name, value};
}

/* A field line of a name as it is. */
static void gateway_field(struct stk_gateway *gw, stk_span name, stk_span value)
{
    gateway_put(gw, name);
    gateway_put(gw, STK_SPAN_LIT(": "));
    gateway_put(gw, value);
    gateway_put(gw, STK_SPAN_LIT("\r\n"));
}

/* HTTP_NAME: the field that it stands for. */
static void gateway_http(struct stk_gateway *gw, stk_span name, stk_span value)
{
    static const stk_span hop_by_hop[] = {
        {"HTTP_CONNECTION", 15}, {"HTTP_KEEP_ALIVE", 15}, {"HTTP_TRANSFER_ENCODING", 22},
        {"HTTP_TE", 7},          {"HTTP_TRAILER", 12},    {"HTTP_UPGRADE", 12},
        {"HTTP_EXPECT", 11},     {"HTTP_PROXY", 10},
    };
    char lower[256];
    stk_span rest = stk_span_make(name.ptr + 5, name.len - 5);

    if (stk_span_eq(name, STK_SPAN_LIT("HTTP_CONTENT_TYPE")))
        return;
    if (stk_span_eq(name, STK_SPAN_LIT("HTTP_CONTENT_LENGTH"))) {
        gw->http_length = value;
        return;
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(hop_by_hop); i++) {
        if (stk_span_eq(name, hop_by_hop[i])) {
            /* HTTP_PROXY is no field that a client may set: programs take it for their own. */
            if (name.len != 10)
                gateway_keep(gw, name, value);
            return;
        }
    }
    if (rest.len == 0 || rest.len > sizeof lower || !stk_http1_is_token(rest)) {
        gateway_fail(gw, STK_HTTP1_E_BAD_FIELD_NAME);
        return;
    }
    for (size_t i = 0; i < rest.len; i++) {
        char c = rest.ptr[i];

        lower[i] = c == '_' ? '-' : c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    if (stk_span_eq(name, STK_SPAN_LIT("HTTP_HOST"))) {
        if (value.len == 0)
            return; /* the front end had none to tell */
        gw->has_host = true;
    }
    gateway_field(gw, stk_span_make(lower, rest.len), value);
}

/* Variables of uwsgi that would load code or change the process, and one that tells the scheme. */
static bool gateway_uwsgi(struct stk_gateway *gw, stk_span name, stk_span value)
{
    static const char *const magic[] = {
        "UWSGI_FILE",  "UWSGI_SCRIPT", "UWSGI_MODULE", "UWSGI_CALLABLE",  "UWSGI_APPID",
        "UWSGI_HOME",  "UWSGI_PYHOME", "UWSGI_CHDIR",  "UWSGI_SETENV",    "UWSGI_POSTFILE",
        "UWSGI_PARAM", "UWSGI_INI",    "UWSGI_XML",    "UWSGI_CACHE_GET", "UWSGI_TOUCH_RELOAD",
    };

    if (stk_span_eq(name, STK_SPAN_LIT("UWSGI_SCHEME"))) {
        gw->scheme = value;
        return true;
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(magic); i++)
        if (stk_span_eq(name, stk_span_str(magic[i])))
            return gw->magic = true;
    return false;
}

/* Where a variable goes that is looked at here, or NULL. */
static stk_span *gateway_place(struct stk_gateway *gw, stk_span name)
{
    const struct {
        stk_span name;
        stk_span *to;
    } known[] = {
        {STK_SPAN_LIT("REQUEST_METHOD"), &gw->method},
        {STK_SPAN_LIT("REQUEST_URI"), &gw->uri},
        {STK_SPAN_LIT("PATH_INFO"), &gw->path_info},
        {STK_SPAN_LIT("SCRIPT_NAME"), &gw->script_name},
        {STK_SPAN_LIT("QUERY_STRING"), &gw->query},
        {STK_SPAN_LIT("DOCUMENT_URI"), &gw->document_uri},
        {STK_SPAN_LIT("SERVER_PROTOCOL"), &gw->protocol},
        {STK_SPAN_LIT("CONTENT_LENGTH"), &gw->content_length},
        {STK_SPAN_LIT("CONTENT_TYPE"), &gw->content_type},
        {STK_SPAN_LIT("REMOTE_ADDR"), &gw->remote_addr},
        {STK_SPAN_LIT("REMOTE_PORT"), &gw->remote_port},
        {STK_SPAN_LIT("SERVER_NAME"), &gw->server_name},
        {STK_SPAN_LIT("SERVER_PORT"), &gw->server_port},
        {STK_SPAN_LIT("REQUEST_SCHEME"), &gw->scheme},
        {STK_SPAN_LIT("HTTPS"), &gw->https},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(known); i++)
        if (stk_span_eq(name, known[i].name))
            return known[i].to;
    return NULL;
}

/* Variables that the application gets under their own name as well. */
static bool gateway_shows(const struct stk_gateway *gw, const stk_span *place)
{
    return place == &gw->document_uri || place == &gw->server_name || place == &gw->server_port ||
           place == &gw->scheme || place == &gw->https;
}

/* Names that say something of this server (wsgi.input ...), which a front end cannot know. */
static bool gateway_is_ours(stk_span name)
{
    return memchr(name.ptr, '.', name.len) != NULL ||
           stk_span_eq(name, STK_SPAN_LIT("SERVER_SOFTWARE")) ||
           stk_span_eq(name, STK_SPAN_LIT("GATEWAY_INTERFACE"));
}

void stk_gateway_add(struct stk_gateway *gw, stk_span name, stk_span value)
{
    stk_span *place;

    if (name.len == 0 || !stk_http1_is_token(name)) {
        gateway_fail(gw, STK_HTTP1_E_BAD_FIELD_NAME);
        return;
    }
    if (!stk_http1_is_field_value(value)) {
        /* A decoded path may hold anything; in a field it would be a second one. */
        if (!stk_span_eq(name, STK_SPAN_LIT("PATH_INFO")) &&
            !stk_span_eq(name, STK_SPAN_LIT("SCRIPT_NAME")) &&
            !stk_span_eq(name, STK_SPAN_LIT("DOCUMENT_URI"))) {
            /* What names files of the front end is of no interest here. */
            if (name.len < 5 || memcmp(name.ptr, "PATH_", 5) != 0)
                gateway_fail(gw, STK_HTTP1_E_BAD_FIELD_VALUE);
            return;
        }
    }
    if (name.len > 5 && memcmp(name.ptr, "HTTP_", 5) == 0) {
        gateway_http(gw, name, value);
        return;
    }
    place = gateway_place(gw, name);
    if (place == NULL) {
        if (gateway_is_ours(name))
            return;
        if (name.len < 6 || memcmp(name.ptr, "UWSGI_", 6) != 0 || !gateway_uwsgi(gw, name, value))
            gateway_keep(gw, name, value);
        return;
    }
    /* An empty one takes the body away, as front ends do for a request beside the request. */
    if (place == &gw->content_length && place->len > 0 && value.len > 0 &&
        !stk_span_eq(*place, value))
        gateway_fail(gw, STK_HTTP1_E_DUPLICATE_CONTENT_LENGTH);
    gw->has_path_info = gw->has_path_info || place == &gw->path_info;
    gw->has_query = gw->has_query || place == &gw->query;
    *place = value;
    if (gateway_shows(gw, place) && value.len > 0)
        gateway_keep(gw, name, value);
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
    if (!gw->has_path_info) {
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

    if (gw->document_uri.len > 0 && !gw->has_path_info) {
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

/* The fields that are variables of their own, and Host if the front end tells none. */
static void gateway_own_fields(struct stk_gateway *gw, bool http10)
{
    if (gw->content_type.len > 0)
        gateway_field(gw, STK_SPAN_LIT("content-type"), gw->content_type);
    if (gw->content_length.len > GATEWAY_LENGTH_MAX)
        gateway_fail(gw, STK_HTTP1_E_BAD_CONTENT_LENGTH);
    else if (gw->content_length.len > 0 && gw->http_length.len > 0 &&
             !stk_span_eq(gw->content_length, gw->http_length))
        gateway_fail(gw, STK_HTTP1_E_DUPLICATE_CONTENT_LENGTH);
    else if (gw->content_length.len > 0)
        gateway_field(gw, STK_SPAN_LIT("content-length"), gw->content_length);
    if (!gw->has_host && !http10 && gw->server_name.len > 0) {
        gateway_put(gw, STK_SPAN_LIT("host: "));
        gateway_put(gw, gw->server_name);
        if (gw->server_port.len > 0 && !stk_span_eq(gw->server_port, STK_SPAN_LIT("80")) &&
            !stk_span_eq(gw->server_port, STK_SPAN_LIT("443"))) {
            gateway_put(gw, STK_SPAN_LIT(":"));
            gateway_put(gw, gw->server_port);
        }
        gateway_put(gw, STK_SPAN_LIT("\r\n"));
    }
    gateway_put(gw, STK_SPAN_LIT("\r\n"));
}

static bool gateway_is_on(stk_span value)
{
    return stk_span_ieq(value, STK_SPAN_LIT("on")) || stk_span_ieq(value, STK_SPAN_LIT("1")) ||
           stk_span_ieq(value, STK_SPAN_LIT("true")) || stk_span_ieq(value, STK_SPAN_LIT("yes")) ||
           stk_span_ieq(value, STK_SPAN_LIT("https"));
}

/* Path and query as the front end has them after its own rewriting; behind the head in buf. */
static void gateway_set_path(struct stk_gateway *gw, struct stk_head *head)
{
    stk_span whole = stk_head_path(head), script, path;
    size_t at;

    if (head->target_form >= STK_TARGET_AUTHORITY)
        return;
    if (head->path_escaped) {
        size_t room = whole.len;

        if (room > gw->cap - gw->len) {
            gateway_fail(gw, STK_HTTP1_E_HEAD_TOO_LARGE);
            return;
        }
        whole = stk_span_make(gw->buf + gw->len, stk_uri_unescape(gw->buf + gw->len, whole));
        gw->len += whole.len;
    }
    gateway_part(gw, whole, &script, &path);
    if (script.len == 0 && path.len == 0)
        path = STK_SPAN_LIT("/"); /* PEP 3333: not both are empty */
    at = gw->len;
    gateway_put(gw, script);
    gateway_put(gw, path);
    gw->mount = stk_span_make(gw->buf + at, script.len);
    head->path_off = (uint32_t)(gw->buf + at - head->base);
    head->path_len = (uint32_t)(gw->len - at);
    head->path_escaped = false;
    head->path_apart = true;
    if (!gw->has_query || stk_span_eq(gw->query, stk_head_query(head)))
        return;
    at = gw->len;
    gateway_put(gw, gw->query);
    head->query_off = (uint32_t)(gw->buf + at - head->base);
    head->query_len = (uint32_t)(gw->len - at);
}

enum stk_http1_result stk_gateway_finish(struct stk_gateway *gw, struct stk_head *head, bool strip)
{
    bool http10 = stk_span_eq(gw->protocol, STK_SPAN_LIT("HTTP/1.0")) ||
                  (!gw->has_host && gw->server_name.len == 0);
    stk_span version = http10 ? STK_SPAN_LIT(" HTTP/1.0\r\n") : STK_SPAN_LIT(" HTTP/1.1\r\n");
    size_t line, end;
    char *p;
    enum stk_http1_result r;

    gw->strip = strip;
    gateway_own_fields(gw, http10);
    end = gw->len;
    if (gw->uri.len == 0)
        gw->uri = gateway_make_uri(gw);
    if (gw->error == STK_HTTP1_OK && gw->method.len == 0)
        gw->error = STK_HTTP1_E_BAD_METHOD;
    if (gw->error != STK_HTTP1_OK)
        return gw->error;
    line = gw->method.len + 1 + gw->uri.len + version.len;
    if (line > gw->limits->line_max)
        return STK_HTTP1_E_LINE_TOO_LONG;
    p = gw->buf + gw->line_room - line;
    memcpy(p, gw->method.ptr, gw->method.len);
    p += gw->method.len;
    *p++ = ' ';
    memcpy(p, gw->uri.ptr, gw->uri.len);
    memcpy(p + gw->uri.len, version.ptr, version.len);
    p = gw->buf + gw->line_room - line;
    r = stk_http1_parse(head, p, end - gw->line_room + line, gw->limits);
    if (r == STK_HTTP1_PARTIAL || (r == STK_HTTP1_OK && head->len != end - gw->line_room + line))
        return STK_HTTP1_E_BAD_PACKET; /* no variable makes an empty line or a control */
    if (r != STK_HTTP1_OK)
        return r;
    head->keep_alive = false;
    head->expect_continue = false;
    gw->secure = gw->https.ptr != NULL ? gateway_is_on(gw->https) : gateway_is_on(gw->scheme);
    if (gateway_is_on(gw->scheme))
        gw->secure = true;
    gateway_set_path(gw, head);
    return gw->error;
}
