/*
 * Percent-decoding and the syntax of hosts.
 *
 * Host decides which site answers and is copied into links, so it is held to the grammar of RFC
 * 3986 3.2.2 and no more: no user information, no path, no white space, no raw bytes over 0x7f. A
 * name is checked by a table, one look a byte; only addresses in brackets and escapes take longer.
 */
#include "wire/uri.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

enum { URI_PORT_MAX = 65535, URI_PORT_DIGITS_MAX = 5 };

/* unreserved and sub-delims of RFC 3986. */
static const bool uri_name[256] = {
    ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['-'] = true, ['.'] = true,
    ['_'] = true,         ['~'] = true,         ['!'] = true,         ['$'] = true, ['&'] = true,
    ['\''] = true,        ['('] = true,         [')'] = true,         ['*'] = true, ['+'] = true,
    [','] = true,         [';'] = true,         ['='] = true,
};

/* The value of a hexadecimal digit + 1, or 0. */
static const unsigned char uri_hex[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
    ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

static inline unsigned char uri_byte(const char *p)
{
    return (unsigned char)*p;
}

/* Whether an escape stands at p. */
static inline bool uri_is_escape(const char *p, const char *end)
{
    return end - p >= 3 && *p == '%' && uri_hex[uri_byte(p + 1)] && uri_hex[uri_byte(p + 2)];
}

size_t stk_uri_unescape(char *dst, stk_span src)
{
    const char *p = src.ptr, *end = p + src.len;
    char *to = dst;

    while (p < end) {
        const char *escape = memchr(p, '%', (size_t)(end - p));
        size_t plain = (size_t)((escape ? escape : end) - p);

        if (to != p)
            memmove(to, p, plain);
        to += plain;
        p += plain;
        if (p == end)
            break;
        if (uri_is_escape(p, end)) {
            *to++ = (char)((uri_hex[uri_byte(p + 1)] - 1) << 4 | (uri_hex[uri_byte(p + 2)] - 1));
            p += 3;
        } else {
            *to++ = *p++;
        }
    }
    return (size_t)(to - dst);
}

bool stk_uri_escapes_are_valid(stk_span src)
{
    const char *p = src.ptr, *end = p + src.len;

    while (p < end && (p = memchr(p, '%', (size_t)(end - p))) != NULL) {
        if (!uri_is_escape(p, end))
            return false;
        p += 3;
    }
    return true;
}

/* What stands between "[" and "]": an IPv6 address without zone, or IPvFuture. */
static bool uri_is_literal(const char *p, size_t len)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;
    size_t i = 1;

    if (len > 0 && (*p == 'v' || *p == 'V')) {
        while (i < len && uri_hex[uri_byte(p + i)])
            i++;
        if (i == 1 || i + 1 >= len || p[i] != '.')
            return false;
        for (i++; i < len; i++)
            if (!uri_name[uri_byte(p + i)] && p[i] != ':')
                return false;
        return true;
    }
    if (len == 0 || len >= sizeof(text) || memchr(p, 0, len))
        return false;
    memcpy(text, p, len);
    text[len] = 0;
    return inet_pton(AF_INET6, text, &addr) == 1;
}

/* The end of the host at p, brackets included, or NULL if it is malformed. */
static inline const char *uri_host_end(const char *p, const char *end)
{
    const char *start = p;

    if (p < end && *p == '[') {
        const char *close = memchr(p, ']', (size_t)(end - p));

        return close && uri_is_literal(p + 1, (size_t)(close - p - 1)) ? close + 1 : NULL;
    }
    for (;;) {
        while (p < end && uri_name[uri_byte(p)])
            p++;
        if (p == end || !uri_is_escape(p, end))
            break;
        p += 3;
    }
    return p > start ? p : NULL;
}

bool stk_uri_split_host(stk_span hostport, stk_span *ret_host, stk_span *ret_port)
{
    const char *start = hostport.ptr, *end, *p, *port;
    unsigned number = 0;

    if (hostport.len == 0)
        return false;
    end = start + hostport.len;
    p = uri_host_end(start, end);
    if (!p || (p < end && *p != ':'))
        return false;
    port = p < end ? p + 1 : p;
    if (end - port > URI_PORT_DIGITS_MAX)
        return false;
    for (const char *digit = port; digit < end; digit++) {
        if (*digit < '0' || *digit > '9')
            return false;
        number = number * 10 + (unsigned)(*digit - '0');
    }
    if (number > URI_PORT_MAX)
        return false;
    if (ret_host)
        *ret_host = stk_span_make(start, (size_t)(p - start));
    if (ret_port)
        *ret_port = stk_span_make(port, (size_t)(end - port));
    return true;
}
