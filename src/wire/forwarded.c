/*
 * Lists of proxies, taken apart from the right.
 *
 * Each proxy appends what it saw, so the right end was written by the nearest and most trusted
 * one and the left end by the client, who may write anything there. Reading backwards lets an
 * unbalanced quote of the client's never swallow what a proxy appended, and makes a walk over the
 * whole list linear.
 */
#include "wire/forwarded.h"

#include <arpa/inet.h>
#include <string.h>

#include "wire/http1.h"
#include "wire/uri.h"

enum { FORWARDED_PORT_DIGITS_MAX = 5, FORWARDED_PORT_MAX = 65535 };

enum forwarded_param {
    FORWARDED_FOR = 1,
    FORWARDED_PROTO = 2,
    FORWARDED_HOST = 4,
    FORWARDED_BY = 8,
};

static stk_span forwarded_trim(stk_span s)
{
    while (s.len > 0 && (*s.ptr == ' ' || *s.ptr == '\t'))
        s = stk_span_make(s.ptr + 1, s.len - 1);
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static bool forwarded_is_addr(int family, stk_span s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;

    if (s.len == 0 || s.len >= sizeof(text) || memchr(s.ptr, 0, s.len))
        return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = 0;
    return inet_pton(family, text, &addr) == 1;
}

static bool forwarded_is_port(stk_span s)
{
    unsigned port = 0;

    if (s.len == 0 || s.len > FORWARDED_PORT_DIGITS_MAX)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
        port = port * 10 + (unsigned)(s.ptr[i] - '0');
    }
    return port <= FORWARDED_PORT_MAX;
}

/*
 * An address with or without port, IPv6 with or without brackets. An obfuscated port (RFC 7239
 * 6.3) is as good as none.
 */
static bool forwarded_node(stk_span node, stk_span *ret_addr, stk_span *ret_port)
{
    stk_span addr = node, port = stk_span_make(node.ptr + node.len, 0);
    const char *colon;
    int family = AF_INET;

    if (node.len > 0 && *node.ptr == '[') {
        const char *close = memchr(node.ptr, ']', node.len);

        if (!close)
            return false;
        family = AF_INET6;
        addr = stk_span_make(node.ptr + 1, (size_t)(close - node.ptr - 1));
        colon = close + 1;
        if (colon == node.ptr + node.len)
            colon = NULL;
        else if (*colon != ':')
            return false;
    } else {
        colon = node.len > 0 ? memchr(node.ptr, ':', node.len) : NULL;
        if (colon && memchr(colon + 1, ':', (size_t)(node.ptr + node.len - colon - 1))) {
            family = AF_INET6;
            colon = NULL;
        } else if (colon) {
            addr.len = (size_t)(colon - node.ptr);
        }
    }
    if (colon) {
        port = stk_span_make(colon + 1, (size_t)(node.ptr + node.len - colon - 1));
        if (port.len > 1 && *port.ptr == '_' && stk_http1_is_token(port))
            port.len = 0;
        else if (!forwarded_is_port(port))
            return false;
    }
    if (!forwarded_is_addr(family, addr))
        return false;
    *ret_addr = addr;
    *ret_port = port;
    return true;
}

bool stk_forwarded_pop_xff(stk_span *list, struct stk_forwarded *ret)
{
    while (list->len > 0) {
        const char *comma = memrchr(list->ptr, ',', list->len);
        const char *start = comma ? comma + 1 : list->ptr;
        stk_span element =
            forwarded_trim(stk_span_make(start, (size_t)(list->ptr + list->len - start)));

        list->len = comma ? (size_t)(comma - list->ptr) : 0;
        if (element.len == 0)
            continue;
        *ret = (struct stk_forwarded){{0}};
        (void)forwarded_node(element, &ret->addr, &ret->port);
        return true;
    }
    return false;
}

/* The start of the quoted string whose closing quote is at `p`, or NULL. */
static const char *forwarded_opening_quote(const char *start, const char *p)
{
    while ((p = memrchr(start, '"', (size_t)(p - start))) != NULL) {
        const char *slash = p;

        while (slash > start && slash[-1] == '\\')
            slash--;
        if ((p - slash) % 2 == 0)
            return p;
        p = slash;
    }
    return NULL;
}

/* The comma before the last element, one within quotes not counting, or NULL. */
static const char *forwarded_last_comma(stk_span list)
{
    for (const char *p = list.ptr + list.len; p > list.ptr;) {
        p--;
        if (*p == ',')
            return p;
        if (*p == '"' && !(p = forwarded_opening_quote(list.ptr, p)))
            return NULL;
    }
    return NULL;
}

/* A parameter's value from the front of *s, quotes taken off; escapes are not supported. */
static bool forwarded_take_value(stk_span *s, stk_span *ret_value)
{
    const char *end = s->ptr + s->len, *stop;
    stk_span value;

    if (s->len > 0 && *s->ptr == '"') {
        stop = memchr(s->ptr + 1, '"', s->len - 1);
        if (!stop)
            return false;
        value = stk_span_make(s->ptr + 1, (size_t)(stop - s->ptr - 1));
        if (value.len > 0 && memchr(value.ptr, '\\', value.len))
            return false;
        stop++;
    } else {
        stop = s->len > 0 ? memchr(s->ptr, ';', s->len) : NULL;
        value = forwarded_trim(stk_span_make(s->ptr, (size_t)((stop ? stop : end) - s->ptr)));
        if (value.len == 0 || memchr(value.ptr, '"', value.len))
            return false;
        stop = value.ptr + value.len;
    }
    *s = stk_span_make(stop, (size_t)(end - stop));
    *ret_value = value;
    return true;
}

static enum forwarded_param forwarded_param(stk_span name)
{
    if (stk_span_ieq(name, STK_SPAN_LIT("for")))
        return FORWARDED_FOR;
    if (stk_span_ieq(name, STK_SPAN_LIT("proto")))
        return FORWARDED_PROTO;
    if (stk_span_ieq(name, STK_SPAN_LIT("host")))
        return FORWARDED_HOST;
    return stk_span_ieq(name, STK_SPAN_LIT("by")) ? FORWARDED_BY : (enum forwarded_param)0;
}

static bool forwarded_set(struct stk_forwarded *f, enum forwarded_param param, stk_span value)
{
    switch (param) {
    case FORWARDED_FOR:
        /* "unknown" and obfuscated names are well-formed, and say nothing. */
        if (stk_span_ieq(value, STK_SPAN_LIT("unknown")) || (value.len > 0 && *value.ptr == '_'))
            return true;
        return forwarded_node(value, &f->addr, &f->port);
    case FORWARDED_PROTO:
        f->proto = value;
        return stk_http1_is_token(value);
    case FORWARDED_HOST:
        f->host = value;
        return stk_uri_split_host(value, NULL, NULL);
    default:
        return true;
    }
}

/* name=value *( ";" [ name=value ] ), each name at most once. */
static bool forwarded_element(stk_span s, struct stk_forwarded *ret)
{
    unsigned seen = 0;

    for (;;) {
        const char *equals = s.len > 0 ? memchr(s.ptr, '=', s.len) : NULL;
        stk_span name, value;
        enum forwarded_param param;

        if (!equals)
            return false;
        name = stk_span_make(s.ptr, (size_t)(equals - s.ptr));
        s = stk_span_make(equals + 1, s.len - name.len - 1);
        if (!stk_http1_is_token(name) || !forwarded_take_value(&s, &value))
            return false;
        param = forwarded_param(name);
        if ((seen & param) || !forwarded_set(ret, param, value))
            return false;
        seen |= param;
        s = forwarded_trim(s);
        if (s.len > 0 && *s.ptr != ';')
            return false;
        while (s.len > 0 && *s.ptr == ';')
            s = forwarded_trim(stk_span_make(s.ptr + 1, s.len - 1));
        if (s.len == 0)
            return true;
    }
}

bool stk_forwarded_pop(stk_span *list, struct stk_forwarded *ret)
{
    while (list->len > 0) {
        const char *comma = forwarded_last_comma(*list);
        const char *start = comma ? comma + 1 : list->ptr;
        stk_span element =
            forwarded_trim(stk_span_make(start, (size_t)(list->ptr + list->len - start)));
        struct stk_forwarded f = {{0}};

        list->len = comma ? (size_t)(comma - list->ptr) : 0;
        if (element.len == 0)
            continue;
        if (!forwarded_element(element, &f))
            f = (struct stk_forwarded){{0}};
        *ret = f;
        return true;
    }
    return false;
}
