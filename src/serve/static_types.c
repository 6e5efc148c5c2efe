/*
 * Media types and expiry by name. Types: those that the configuration gives, then those built in
 * (wire/mime.h), then the system's table. Both tables are read once, when a worker starts.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "serve/static_priv.h"
#include "wire/mime.h"

enum { TYPES_FILE_MAX = 4 << 20 };

static int types_compare(const void *a, const void *b)
{
    return strcmp(((const struct static_type *)a)->ending, ((const struct static_type *)b)->ending);
}

static stk_span types_find(const struct static_types *types, const char *ending)
{
    union {
        const char *c;
        char *v;
    } u = {.c = ending};
    const struct static_type key = {.ending = u.v}, *row = NULL;

    if (types->n > 0)
        row = bsearch(&key, types->rows, types->n, sizeof key, types_compare);
    return row ? stk_span_str(row->type) : stk_span_make(NULL, 0);
}

/* Adds a row, or gives the one of the ending another type. */
static void types_add(struct static_types *types, stk_span ending, stk_span type, bool charset)
{
    char *text = stk_mem_printf("%.*s%s", (int)type.len, type.ptr,
                                charset && stk_mime_is_text(type) ? "; charset=utf-8" : "");
    char *low = stk_mem_strndup(ending.ptr, ending.len);

    for (char *c = low; *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c | 0x20);
    if ((types->n & (types->n - 1)) == 0) {
        size_t cap = types->n ? types->n * 2 : 1;
        struct static_type *rows = stk_try_realloc(types->rows, cap * sizeof *rows);

        if (rows == NULL) {
            free(text);
            free(low);
            return;
        }
        types->rows = rows;
    }
    types->rows[types->n++] = (struct static_type){low, text};
}

/* Sorts; of rows with the same ending the one that was added last stays. */
static void types_sort(struct static_types *types)
{
    size_t n = 0;

    for (size_t i = 1; i < types->n; i++) { /* by insertion: tables are nearly sorted, or short */
        struct static_type row = types->rows[i];
        size_t at = i;

        while (at > 0 && types_compare(&types->rows[at - 1], &row) > 0) {
            types->rows[at] = types->rows[at - 1];
            at--;
        }
        types->rows[at] = row;
    }
    for (size_t i = 0; i < types->n; i++) {
        if (n > 0 && types_compare(&types->rows[n - 1], &types->rows[i]) == 0) {
            free(types->rows[n - 1].ending);
            free(types->rows[n - 1].type);
            n--;
        }
        types->rows[n++] = types->rows[i];
    }
    types->n = n;
}

/* Reads a table. 0 or a negative errno. */
static int types_read(struct static_types *types, const char *path)
{
    STK_CLEANUP(stk_fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    stk_span pos, type, endings, ending;
    struct stat st;
    ssize_t n;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_size > TYPES_FILE_MAX)
        return -EINVAL;
    text = stk_try_alloc((size_t)st.st_size + 1);
    if (text == NULL)
        return -ENOMEM;
    n = read(fd, text, (size_t)st.st_size);
    if (n < 0)
        return -errno;
    pos = stk_span_make(text, (size_t)n);
    while (stk_mime_next_line(&pos, &type, &endings))
        while ((ending = stk_mime_next_word(&endings)).len > 0)
            if (ending.len <= STK_MIME_EXT_MAX)
                types_add(types, ending, type, true);
    return 0;
}

void stk_static_types_load(struct stk_statics *s, const struct stk_config *config)
{
    for (size_t i = 0; i < config->mime_file.n; i++) {
        int r = types_read(&s->own, config->mime_file.items[i]);

        if (r < 0)
            stk_log_error("mime-file %s: %s", config->mime_file.items[i], strerror(-r));
    }
    for (size_t i = 0; i < config->static_mime.n; i++) {
        const char *text = config->static_mime.items[i], *equal = strchr(text, '=');

        if (equal != NULL) {
            text += *text == '.';
            types_add(&s->own, stk_span_make(text, (size_t)(equal - text)), stk_span_str(equal + 1),
                      false);
        }
    }
    types_sort(&s->own);
    if (types_read(&s->system, "/etc/mime.types") < 0 &&
        types_read(&s->system, "/etc/apache2/mime.types") < 0)
        stk_log_debug("there is no /etc/mime.types: the types built in are used");
    types_sort(&s->system);
}

void stk_static_types_free(struct static_types *types)
{
    for (size_t i = 0; i < types->n; i++) {
        free(types->rows[i].ending);
        free(types->rows[i].type);
    }
    free(types->rows);
}

stk_span stk_static_type(const struct stk_statics *s, stk_span name)
{
    stk_span ending = stk_mime_ending(name), type;
    char low[STK_MIME_EXT_MAX + 1];

    if (ending.len == 0)
        return stk_span_make(NULL, 0);
    for (size_t i = 0; i < ending.len; i++)
        low[i] = (char)(ending.ptr[i] >= 'A' && ending.ptr[i] <= 'Z' ? ending.ptr[i] | 0x20
                                                                     : ending.ptr[i]);
    low[ending.len] = '\0';
    type = types_find(&s->own, low);
    if (type.len == 0)
        type = stk_mime_builtin(ending);
    return type.len > 0 ? type : types_find(&s->system, low);
}

bool stk_static_glob(stk_span pattern, stk_span text)
{
    size_t p = 0, t = 0, star = SIZE_MAX, mark = 0;

    while (t < text.len) {
        if (p < pattern.len && pattern.ptr[p] == '*') {
            star = p++;
            mark = t;
        } else if (p < pattern.len && (pattern.ptr[p] == '?' || pattern.ptr[p] == text.ptr[t])) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '*')
        p++;
    return p == pattern.len;
}

/* Seconds of "10", "30s", "5m", "12h", "7d", "2w", "1y"; -1: none of these. */
static int64_t expiry_seconds(const char *text)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}, {'y', 31536000}};
    int64_t v = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '9' && p - text < 10; p++)
        v = v * 10 + (*p - '0');
    if (p == text)
        return -1;
    if (*p == '\0')
        return v;
    for (size_t i = 0; i < STK_ARRAY_LEN(units); i++)
        if (*p == units[i].unit && p[1] == '\0')
            return v > INT32_MAX / units[i].seconds ? INT32_MAX : v * units[i].seconds;
    return -1;
}

const char *stk_static_expiry_parse(const char *text, struct static_expiry *ret_expiry)
{
    const char *equal = strrchr(text, '=');
    struct static_expiry e = {.pattern = text};

    if (equal == NULL || equal == text)
        return strchr(text, ' ')
                   ? "expected PATTERN=DURATION, as *.css=7d: a pattern is no regular "
                     "expression here, and no blank stands before the duration"
                   : "expected PATTERN=DURATION, as *.css=7d or /static/img/*=1h";
    e.len = (size_t)(equal - text);
    if (strcmp(equal + 1, "no-cache") == 0) {
        e.max_age = -1;
        e.cache = stk_mem_strdup("no-cache");
    } else if (strcmp(equal + 1, "immutable") == 0) {
        e.max_age = 31536000;
        e.cache = stk_mem_strdup("public, max-age=31536000, immutable");
    } else {
        e.max_age = expiry_seconds(equal + 1);
        if (e.max_age < 0)
            return "expected a duration behind the =, as 3600, 10m, 12h, 7d, 1y, immutable or "
                   "no-cache";
        e.cache = stk_mem_printf("max-age=%lld", (long long)e.max_age);
    }
    *ret_expiry = e;
    return NULL;
}

const struct static_expiry *stk_static_expiry_find(const struct stk_statics *s, stk_span prefix,
                                                   const char *rel, stk_span type)
{
    const char *name = strrchr(rel, '/');
    char path[STK_STATIC_PATH_MAX * 2];
    int n = snprintf(path, sizeof path, "%.*s/%s", (int)prefix.len, prefix.ptr, rel);
    const char *semicolon = type.len ? memchr(type.ptr, ';', type.len) : NULL;

    if (semicolon != NULL)
        type.len = (size_t)(semicolon - type.ptr);
    for (size_t i = 0; i < s->nexpiries; i++) {
        const struct static_expiry *e = &s->expiries[i];
        stk_span pattern = stk_span_make(e->pattern, e->len), text;

        if (pattern.ptr[0] == '/')
            text = stk_span_make(path, n > 0 && n < (int)sizeof path ? (size_t)n : 0);
        else if (memchr(pattern.ptr, '/', pattern.len) != NULL)
            text = type;
        else
            text = stk_span_str(name ? name + 1 : rel);
        if (stk_static_glob(pattern, text))
            return e;
    }
    return NULL;
}
