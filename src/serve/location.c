/*
 * Redirects are where a server lends its name to whoever writes a link, so the text that an
 * administrator has written decides where they lead, and what a client has sent only what stands
 * behind the host:
 *
 *   - groups are of the decoded path, so they are escaped again: no CR, LF, "?" or "#" comes of
 * them;
 *   - what comes behind the host by way of variables ("https://example.com$1$2") gets a "/" where
 * it does not begin with one, or it would continue the name (".evil.example", "@evil.example");
 *   - a text that is a path never becomes "//evil.example", which would be a host.
 */
#include "serve/location.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum location_kind {
    LOCATION_TEXT,
    LOCATION_GROUP,
    LOCATION_HOST,
    LOCATION_PATH,
    LOCATION_QUERY,
    LOCATION_URI,
};

struct location_piece {
    enum location_kind kind;
    unsigned group;
    stk_span text;
};

struct stk_location {
    char *text;
    bool is_path; /* begins with one "/" */
    size_t open;  /* the piece from which on the host's name is not to go on; n: there is none */
    size_t n;
    struct location_piece *pieces;
};

static const struct {
    const char *name;
    enum location_kind kind;
} location_names[] = {
    {"host", LOCATION_HOST},
    {"path", LOCATION_PATH},
    {"query", LOCATION_QUERY},
    {"uri", LOCATION_URI},
};

/* What stands behind a "$" at p; its length, or 0 for what is no variable. */
static size_t location_variable(const char *p, struct location_piece *piece)
{
    if (*p == '$') {
        piece->kind = LOCATION_TEXT;
        piece->text = stk_span_make(p, 1);
        return 1;
    }
    if (*p >= '0' && *p <= '9') {
        piece->kind = LOCATION_GROUP;
        piece->group = (unsigned)(*p - '0');
        return 1;
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(location_names); i++) {
        size_t len = strlen(location_names[i].name);

        if (strncmp(p, location_names[i].name, len) == 0 && !(p[len] >= 'a' && p[len] <= 'z')) {
            piece->kind = location_names[i].kind;
            return len;
        }
    }
    return 0;
}

/* 0, or -1 and an error. */
static int location_compile(struct stk_location *location, unsigned groups, char **ret_error)
{
    const char *p = location->text;

    while (*p) {
        struct location_piece *piece = &location->pieces[location->n++];
        size_t len = strcspn(p, "$");

        if (len > 0) {
            piece->text = stk_span_make(p, len);
            p += len;
            continue;
        }
        len = location_variable(p + 1, piece);
        if (len == 0) {
            *ret_error = stk_mem_printf("'%.20s' is none of $1 to $9, $host, $path, $query and "
                                        "$uri; $$ stands for a dollar sign",
                                        p);
            return -1;
        }
        if (piece->kind == LOCATION_GROUP && piece->group > groups) {
            *ret_error = groups == 0
                             ? stk_mem_printf("there is no $%u: it needs a regex with groups, or a "
                                              "prefix, behind which $1 is the rest",
                                              piece->group)
                             : stk_mem_printf("there is no $%u: there %s only %u", piece->group,
                                              groups == 1 ? "is" : "are", groups);
            return -1;
        }
        p += len + 1;
    }
    return 0;
}

/* Finds the first variable behind "scheme://host", if no "/" stands before it. 0, or -1 and an
 * error. */
static int location_check_host(struct stk_location *location, char **ret_error)
{
    const char *colon = strstr(location->text, "://");
    const char *host = colon ? colon + 3 : NULL;
    bool named = false;

    location->open = location->n;
    if (location->text[0] == '/') {
        location->is_path = location->text[1] != '/';
        host = location->is_path ? NULL : location->text + 2;
    } else if (!colon || colon == location->text ||
               memchr(location->text, '$', (size_t)(colon - location->text))) {
        *ret_error =
            stk_mem_strdup("expected a URL as https://example.com/$1, or a path as /new/$1");
        return -1;
    }
    if (!host)
        return 0;
    for (size_t i = 0; i < location->n; i++) {
        struct location_piece *piece = &location->pieces[i];

        if (piece->kind == LOCATION_TEXT) {
            const char *from = piece->text.ptr > host ? piece->text.ptr : host;
            const char *end = piece->text.ptr + piece->text.len;

            if (end <= host)
                continue;
            if (memchr(from, '/', (size_t)(end - from)) || memchr(from, '?', (size_t)(end - from)))
                return 0;
            named = true;
        } else if (piece->kind == LOCATION_HOST) {
            named = true;
        } else if (!named) {
            *ret_error = stk_mem_strdup("no host is named: a client would choose where it leads");
            return -1;
        } else {
            location->open = i;
            return 0;
        }
    }
    return 0;
}

struct stk_location *stk_location_new(const char *text, unsigned groups, char **ret_error)
{
    struct stk_location *location = stk_new0(struct stk_location);

    location->text = stk_mem_strdup(text);
    location->pieces = stk_new0_array(struct location_piece, strlen(text) + 1);
    if (location_compile(location, groups, ret_error) < 0 ||
        location_check_host(location, ret_error) < 0)
        return stk_location_free(location);
    return location;
}

struct stk_location *stk_location_free(struct stk_location *location)
{
    if (location) {
        free(location->pieces);
        free(location->text);
        free(location);
    }
    return NULL;
}

struct location_out {
    char *ptr;
    size_t len, cap;
    bool full;
};

static void location_put(struct location_out *out, const char *p, size_t len)
{
    if (len > out->cap - out->len) {
        out->full = true;
        return;
    }
    if (len > 0)
        memcpy(out->ptr + out->len, p, len);
    out->len += len;
}

static bool location_is_plain(char c, bool slash)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c == '/' && slash) || (c != '\0' && strchr("-._~!$&'()*+,;=:@", c) != NULL);
}

/* Bytes with all escaped that may not stand in a path; of what was sent, escapes stay. */
static void location_put_path(struct location_out *out, stk_span text, bool escaped)
{
    static const char hex[] = "0123456789ABCDEF";

    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        const char triple[3] = {'%', hex[c >> 4], hex[c & 15]};

        if (location_is_plain((char)c, true) || (escaped && c == '%'))
            location_put(out, &text.ptr[i], 1);
        else
            location_put(out, triple, 3);
    }
}

static void location_put_query(struct location_out *out, stk_span query)
{
    if (query.len == 0)
        return;
    location_put(out, "?", 1);
    for (size_t i = 0; i < query.len; i++) {
        unsigned char c = (unsigned char)query.ptr[i];
        stk_span one = stk_span_make(&query.ptr[i], 1);

        if (c == '?')
            location_put(out, "?", 1);
        else
            location_put_path(out, one, true);
    }
}

static void location_put_piece(struct location_out *out, const struct location_piece *piece,
                               const struct stk_location_values *values)
{
    stk_span text = piece->text;

    switch (piece->kind) {
    case LOCATION_TEXT:
        location_put(out, text.ptr, text.len);
        return;
    case LOCATION_HOST:
        location_put(out, values->host.ptr, values->host.len);
        return;
    case LOCATION_QUERY:
        location_put_query(out, values->query);
        return;
    case LOCATION_GROUP:
        text = values->groups[piece->group];
        break;
    case LOCATION_PATH:
    case LOCATION_URI:
        text = values->path;
        break;
    }
    location_put_path(out, text, piece->kind != LOCATION_GROUP);
    if (piece->kind == LOCATION_URI)
        location_put_query(out, values->query);
}

/* Puts a "/" between the host and what came behind it at `at`, where nothing else ends the name. */
static void location_end_host(struct location_out *out, size_t at)
{
    if (memchr("/?#", out->ptr[at], 3) != NULL)
        return;
    location_put(out, "/", 1);
    if (out->full)
        return;
    memmove(out->ptr + at + 1, out->ptr + at, out->len - 1 - at);
    out->ptr[at] = '/';
}

size_t stk_location_fill(const struct stk_location *location,
                         const struct stk_location_values *values, char *out, size_t cap)
{
    struct location_out o = {.ptr = out, .cap = cap};
    bool open = false;

    for (size_t i = 0; i < location->n && !o.full; i++) {
        size_t before = o.len;

        if (i == location->open)
            open = true;
        location_put_piece(&o, &location->pieces[i], values);
        if (open && o.len > before) {
            open = false;
            location_end_host(&o, before);
        }
    }
    if (o.full)
        return 0;
    if (location->is_path) {
        size_t slashes = 0;

        while (slashes < o.len && out[slashes] == '/')
            slashes++;
        if (slashes > 1) {
            memmove(out + 1, out + slashes, o.len - slashes);
            o.len -= slashes - 1;
        }
    }
    return o.len;
}
