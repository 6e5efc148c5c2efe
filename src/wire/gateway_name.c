/*
 * The names of variables: a few comparisons for each, which is why gateway.c keeps the outcome.
 */
#include "wire/gateway_name.h"

#include <stddef.h>

#include "base/macros.h"
#include "wire/gateway.h"
#include "wire/http1.h"

enum { NAME_FIELD_MAX = 256 };

static bool name_is_one_of(stk_span name, const stk_span *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (stk_span_eq(name, names[i]))
            return true;
    return false;
}

#define NAME_IN(name, names) name_is_one_of(name, names, STK_ARRAY_LEN(names))
#define NAME(lit)            \
    {                        \
        lit, sizeof(lit) - 1 \
    }

void stk_gateway_name_lower(char *out, stk_span name)
{
    for (size_t i = 5; i < name.len; i++) {
        char c = name.ptr[i];

        out[i - 5] = c == '_' ? '-' : c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
}

/* Fields that are told by variables of their own, or concern the connection to the front end. */
static bool name_is_framing(unsigned known)
{
    return known == STK_HEAD_CONNECTION || known == STK_HEAD_CONTENT_LENGTH ||
           known == STK_HEAD_CONTENT_TYPE || known == STK_HEAD_TRANSFER_ENCODING ||
           known == STK_HEAD_EXPECT || known == STK_HEAD_UPGRADE;
}

/* HTTP_NAME: the field that it stands for. */
static void name_look_http(struct stk_gateway_name *n, stk_span name)
{
    static const stk_span hop_by_hop[] = {
        NAME("HTTP_CONNECTION"), NAME("HTTP_KEEP_ALIVE"), NAME("HTTP_TRANSFER_ENCODING"),
        NAME("HTTP_TE"),         NAME("HTTP_TRAILER"),    NAME("HTTP_UPGRADE"),
        NAME("HTTP_EXPECT"),
    };
    /* The type has a variable of its own. HTTP_PROXY is no field that a client may set: programs
     * take it for their own. */
    static const stk_span dropped[] = {NAME("HTTP_CONTENT_TYPE"), NAME("HTTP_PROXY")};
    char lower[NAME_FIELD_MAX];

    if (NAME_IN(name, hop_by_hop)) {
        n->kind = STK_GATEWAY_KEEP;
    } else if (NAME_IN(name, dropped)) {
        n->kind = STK_GATEWAY_DROP;
    } else if (stk_span_eq(name, STK_SPAN_LIT("HTTP_CONTENT_LENGTH"))) {
        n->kind = STK_GATEWAY_PLACE;
        n->place = offsetof(struct stk_gateway, http_length);
    } else if (name.len - 5 > sizeof lower) {
        n->kind = STK_GATEWAY_BAD;
    } else {
        n->kind = STK_GATEWAY_FIELD;
        n->field_len = (uint16_t)(name.len - 5);
        stk_gateway_name_lower(lower, name);
        n->known = (uint8_t)stk_http1_known_field(stk_span_make(lower, n->field_len));
        n->hash = stk_http1_field_hash(stk_span_make(lower, n->field_len));
        if (name_is_framing(n->known)) /* in a spelling that no front end has */
            n->kind = STK_GATEWAY_BAD;
    }
}

/* Variables of uwsgi that would load code or change the process, and one that tells the scheme. */
static void name_look_uwsgi(struct stk_gateway_name *n, stk_span name)
{
    static const stk_span magic[] = {
        NAME("UWSGI_FILE"),     NAME("UWSGI_SCRIPT"),    NAME("UWSGI_MODULE"),
        NAME("UWSGI_CALLABLE"), NAME("UWSGI_APPID"),     NAME("UWSGI_HOME"),
        NAME("UWSGI_PYHOME"),   NAME("UWSGI_CHDIR"),     NAME("UWSGI_SETENV"),
        NAME("UWSGI_POSTFILE"), NAME("UWSGI_PARAM"),     NAME("UWSGI_INI"),
        NAME("UWSGI_XML"),      NAME("UWSGI_CACHE_GET"), NAME("UWSGI_TOUCH_RELOAD"),
    };

    if (stk_span_eq(name, STK_SPAN_LIT("UWSGI_SCHEME"))) {
        n->kind = STK_GATEWAY_PLACE;
        n->place = offsetof(struct stk_gateway, scheme);
    } else if (NAME_IN(name, magic)) {
        n->kind = STK_GATEWAY_MAGIC;
    }
}

/* Variables with a place; some of them the application gets under their own name as well. */
static bool name_look_place(struct stk_gateway_name *n, stk_span name)
{
#define PLACE(lit, member) NAME(lit), offsetof(struct stk_gateway, member)
    static const struct {
        stk_span name;
        size_t place;
        bool shown, any;
    } known[] = {
        {PLACE("REQUEST_METHOD", method), false, false},
        {PLACE("REQUEST_URI", uri), false, false},
        {PLACE("PATH_INFO", path_info), false, true},
        {PLACE("SCRIPT_NAME", script_name), false, true},
        {PLACE("QUERY_STRING", query), false, false},
        {PLACE("DOCUMENT_URI", document_uri), true, true},
        {PLACE("SERVER_PROTOCOL", protocol), false, false},
        {PLACE("CONTENT_LENGTH", content_length), false, false},
        {PLACE("CONTENT_TYPE", content_type), false, false},
        {PLACE("REMOTE_ADDR", remote_addr), false, false},
        {PLACE("REMOTE_PORT", remote_port), false, false},
        {PLACE("SERVER_NAME", server_name), true, false},
        {PLACE("SERVER_PORT", server_port), true, false},
        {PLACE("REQUEST_SCHEME", scheme), true, false},
        {PLACE("HTTPS", https), true, false},
    };
#undef PLACE

    for (size_t i = 0; i < STK_ARRAY_LEN(known); i++) {
        if (!stk_span_eq(name, known[i].name))
            continue;
        n->kind = STK_GATEWAY_PLACE;
        n->place = (uint16_t)known[i].place;
        n->shown = known[i].shown;
        n->any = known[i].any;
        return true;
    }
    return false;
}

/* Names that say something of this server (wsgi.input ...), which a front end cannot know. */
static bool name_is_ours(stk_span name)
{
    return memchr(name.ptr, '.', name.len) != NULL ||
           stk_span_eq(name, STK_SPAN_LIT("SERVER_SOFTWARE")) ||
           stk_span_eq(name, STK_SPAN_LIT("GATEWAY_INTERFACE"));
}

void stk_gateway_name_look(struct stk_gateway_name *n, stk_span name)
{
    memset(n, 0, offsetof(struct stk_gateway_name, name));
    n->kind = STK_GATEWAY_KEEP;
    n->path = name.len >= 5 && memcmp(name.ptr, "PATH_", 5) == 0;
    if (!stk_http1_is_token(name))
        n->kind = STK_GATEWAY_BAD;
    else if (name.len > 5 && memcmp(name.ptr, "HTTP_", 5) == 0)
        name_look_http(n, name);
    else if (name_look_place(n, name))
        return;
    else if (name_is_ours(name))
        n->kind = STK_GATEWAY_DROP;
    else if (name.len >= 6 && memcmp(name.ptr, "UWSGI_", 6) == 0)
        name_look_uwsgi(n, name);
}

const struct stk_gateway_name *stk_gateway_name_keep(struct stk_gateway_names *names, unsigned slot,
                                                     stk_span name)
{
    struct stk_gateway_name *n = &names->kept[slot];

    if (name.len == 0 || name.len > sizeof n->name)
        return NULL;
    for (unsigned i = 1; i < STK_GATEWAY_NAMES_WAYS && n->len != 0; i++) {
        struct stk_gateway_name *other = &names->kept[slot + i];

        if (other->len == 0 || names->turn - other->turn > names->turn - n->turn)
            n = other; /* free, or longer not used */
    }
    if (n->len != 0 && n->turn == names->turn)
        return NULL;
    stk_gateway_name_look(n, name);
    n->turn = names->turn;
    n->len = (uint16_t)name.len;
    memcpy(n->name, name.ptr, name.len);
    if (n->kind == STK_GATEWAY_FIELD)
        stk_gateway_name_lower(n->field, name);
    return n;
}

void stk_gateway_name_set(struct stk_gateway_name *n, stk_span field)
{
    n->kind = STK_GATEWAY_FIELD;
    n->len = n->field_len = (uint16_t)field.len;
    n->known = (uint8_t)stk_http1_known_field(field);
    n->hash = stk_http1_field_hash(field);
    memcpy(n->field, field.ptr, field.len);
}
