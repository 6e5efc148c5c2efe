/*
 * What routing makes of texts of an administrator and of paths of clients. The first byte chooses:
 * rows and rules; redirects, whose host no client may choose; names of files.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/span.h"
#include "config/row.h"
#include "config/site.h"
#include "serve/location.h"
#include "serve/router_priv.h"
#include "serve/sendfile.h"
#include "serve/static_priv.h"

static char *copy_text(stk_span text)
{
    char *copy = malloc(text.len + 1);

    FUZZ_CHECK(copy);
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return copy;
}

static void count_mistake(void *arg, enum stk_option_id option, size_t item, const char *text)
{
    FUZZ_CHECK(text && *text && item == 0);
    ++*(unsigned *)arg;
}

/* A row gives what it took, or says what is wrong; a rule that was taken is complete. */
static void fuzz_row(stk_span input)
{
    char *text = copy_text(input), *error = NULL;
    char *items[] = {text, NULL};
    struct stk_config config = {.route = {items, 1}, .header = {items, 1}};
    struct stk_row row = {0};
    unsigned mistakes = 0;
    struct stk_site *site;
    size_t len = 0;

    if (stk_row_parse(text, &row, &error) != 0) {
        FUZZ_CHECK(error && *error && row.n == 0);
        free(error);
    }
    for (size_t i = 0; i < row.n; i++)
        len += strlen(row.pairs[i].key) + strlen(row.pairs[i].value) + 1;
    FUZZ_CHECK(len <= strlen(text));
    stk_row_deinit(&row);
    site = stk_site_new(&config, count_mistake, &mistakes);
    FUZZ_CHECK((site == NULL) == (mistakes > 0));
    if (site != NULL) {
        const struct stk_site_rule *rule = &site->rules[0];

        FUZZ_CHECK(site->nrules == 1 && site->nheaders == 1);
        FUZZ_CHECK(rule->action != STK_SITE_RETURN || (rule->status >= 200 && rule->status < 600));
        FUZZ_CHECK(rule->action != STK_SITE_REDIRECT || (rule->target && rule->status / 100 == 3));
        FUZZ_CHECK(rule->action != STK_SITE_STATIC || rule->target);
        FUZZ_CHECK(rule->action != STK_SITE_APP || rule->app < site->apps.n);
        FUZZ_CHECK(site->headers[0].nfields > 0);
    }
    stk_site_free(site);
    free(text);
}

/* Takes the first part of a text, up to a new line. */
static stk_span take_line(stk_span *text)
{
    const char *end = memchr(text->ptr, '\n', text->len);
    stk_span line = stk_span_make(text->ptr, end ? (size_t)(end - text->ptr) : text->len);

    text->ptr += line.len + (end != NULL);
    text->len -= line.len + (end != NULL);
    return line;
}

/* The same text as long as there is room for it, and nothing else. */
static size_t fill_at_every_size(const struct stk_location *location,
                                 const struct stk_location_values *values, char out[4096])
{
    size_t len = stk_location_fill(location, values, out, 4096), most = len + 8;

    for (size_t cap = 0; len > 0 && cap <= most; cap++) {
        char *small = malloc(cap ? cap : 1);
        size_t n;

        FUZZ_CHECK(small);
        n = stk_location_fill(location, values, small, cap);
        FUZZ_CHECK(n == 0 || (n == len && memcmp(small, out, len) == 0));
        free(small);
    }
    return len;
}

/* What comes of templates that people write, whatever a client sends. */
static void fuzz_redirect(const struct stk_location_values *values)
{
    static const struct {
        const char *text, *begin;
    } rows[] = {
        {"/new/$1$query", "/"},
        {"/$1", "/"},
        {"/$path", "/"},
        {"https://example.com$1", "https://example.com"},
        {"https://example.com$1$2", "https://example.com"},
        {"https://example.com$1$2$query", "https://example.com"},
        {"https://example.com$2x$1", "https://example.com"},
        {"https://example.com/$2/x$query", "https://example.com/"},
        {"https://example.com$uri", "https://example.com"},
        {"https://example.com$path?x=$1", "https://example.com"},
        {"//example.com$1#$2", "//example.com"},
    };
    char out[4096];

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *error = NULL;
        struct stk_location *location = stk_location_new(rows[i].text, 2, &error);
        size_t begin = strlen(rows[i].begin), len;

        FUZZ_CHECK(location);
        len = fill_at_every_size(location, values, out);
        FUZZ_CHECK(len == 0 || (len >= begin && memcmp(out, rows[i].begin, begin) == 0));
        /* The host ends there. */
        if (len > begin && out[begin - 1] != '/')
            FUZZ_CHECK(strchr("/?#", out[begin]) && out[begin] != '\0');
        if (len > 1 && begin == 1)
            FUZZ_CHECK(out[1] != '/' && out[1] != '\\');
        for (size_t k = 0; k < len; k++)
            FUZZ_CHECK(out[k] > ' ' && out[k] < 0x7f && !strchr("\"<>\\^`{|}", out[k]));
        stk_location_free(location);
    }
}

static void fuzz_location(stk_span input)
{
    stk_span template = take_line(&input), first = take_line(&input), second = take_line(&input);
    stk_span path = take_line(&input);
    char *text = copy_text(template), *error = NULL, out[4096];
    stk_span groups[STK_REGEX_GROUPS] = {path, first, second, second, first};
    const struct stk_location_values values = {
        .groups = groups, .host = STK_SPAN_LIT("example.org"), .path = path, .query = input};
    struct stk_location *location = stk_location_new(text, 4, &error);

    FUZZ_CHECK((location == NULL) == (error != NULL));
    if (location != NULL && template.len + input.len < 160)
        (void)fill_at_every_size(location, &values, out);
    if (first.len + second.len + path.len + input.len < 160)
        fuzz_redirect(&values);
    stk_location_free(location);
    free(error);
    free(text);
}

static bool has_part(const char *path, size_t len, const char *part)
{
    size_t n = strlen(part);

    for (size_t i = 0; i + n <= len; i++)
        if (memcmp(path + i, part, n) == 0 && (i == 0 || path[i - 1] == '/') &&
            (i + n == len || path[i + n] == '/'))
            return true;
    return false;
}

static void check_file(const char *path, size_t len, bool dotfiles)
{
    FUZZ_CHECK(strlen(path) == len && !memmem(path, len, "//", 2));
    FUZZ_CHECK(!has_part(path, len, "..") && !has_part(path, len, "."));
    FUZZ_CHECK(dotfiles || len == 0 || (path[0] != '.' && !memmem(path, len, "/.", 2)));
}

/* Names of files: nothing in what comes of them leads up, and it stays what it is. */
static void fuzz_name(stk_span name)
{
    char *tidy = malloc(name.len + 1), *again = malloc(name.len + 1);
    char rel[STK_STATIC_PATH_MAX + 2];
    stk_span prefix = take_line(&name);
    bool slash;

    FUZZ_CHECK(tidy && again);
    if (stk_sendfile_tidy(name.ptr, name.len, tidy)) {
        size_t len = strlen(tidy);

        check_file(tidy, len, true);
        FUZZ_CHECK(len <= name.len && (len == 0 || (tidy[0] == '/') == (name.ptr[0] == '/')));
        FUZZ_CHECK(stk_sendfile_tidy(tidy, len, again) && strcmp(tidy, again) == 0);
        FUZZ_CHECK(memchr(tidy, '\\', len) || len > 255 ||
                   stk_static_clean(stk_span_make(tidy, len), true, true, rel, &slash));
    }
    for (int dots = 0; dots < 2; dots++)
        if (stk_static_clean(name, dots, false, rel, &slash)) {
            check_file(rel, strlen(rel), dots);
            FUZZ_CHECK(rel[0] != '/' && !strchr(rel, '\\'));
        }
    if (stk_router_prefix_fits(prefix.ptr, prefix.len, name))
        FUZZ_CHECK(prefix.len <= name.len && memcmp(prefix.ptr, name.ptr, prefix.len) == 0);
    free(tidy);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stk_span text;

    if (size < 1 || size > 4096)
        return 0;
    text = stk_span_make((const char *)data + 1, size - 1);
    switch (*data % 3) {
    case 0:
        fuzz_row(text);
        break;
    case 1:
        fuzz_location(text);
        break;
    default:
        fuzz_name(text);
        break;
    }
    return 0;
}
