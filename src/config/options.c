/*
 * The table of options and the look-ups in it.
 *
 * The rows are in options.def and are included three times: for the identifiers (options.h), for
 * the check at compile time that the C type of each field fits what the row says, and for the
 * table. So a field of another type, or a row without its field, does not compile, and a look-up by
 * identifier costs nothing. The table is small enough that a linear search by name is right.
 */
#include "config/options.h"

#include <string.h>

#include "base/assert.h"

#define OPTIONS_MAX_WORD 64

#define OPTIONS_TYPE(field, type) _Generic(((struct stk_config *)0)->field, type : 1, default : 0)
#define FITS_STRING(f)            OPTIONS_TYPE(f, char *)
#define FITS_STRINGS(f)           OPTIONS_TYPE(f, struct stk_strv)
#define FITS_VARS(f)              OPTIONS_TYPE(f, struct stk_strv)
#define FITS_NETS(f)              OPTIONS_TYPE(f, struct stk_strv)
#define FITS_BOOL(f)              OPTIONS_TYPE(f, bool)
#define FITS_SWITCH(f)            OPTIONS_TYPE(f, bool)
#define FITS_INT(f)               OPTIONS_TYPE(f, int64_t)
#define FITS_SIZE(f)              OPTIONS_TYPE(f, int64_t)
#define FITS_MSEC(f)              OPTIONS_TYPE(f, stk_msec)
#define FITS_ENUM(f)              OPTIONS_TYPE(f, int64_t)
#define FITS_MODE(f)              OPTIONS_TYPE(f, int64_t)
#define FITS_UMASK(f)             OPTIONS_TYPE(f, char *)
#define FITS_COMMAND(f)           1

#define STK_OPTION(id_, kind_, field_, name_, ...)                                      \
    _Static_assert(FITS_##kind_(field_), "option " name_ ": the field's type does not " \
                                         "fit " #kind_);
#include "config/options.def"
#undef STK_OPTION

static const struct stk_option options_rows[] = {
#define STK_OPTION(id_, kind_, field_, name_, ...)                          \
    [STK_OPTION_ID_##id_] = {.name = name_,                                 \
                             .kind = STK_OPTION_##kind_,                    \
                             .offset = offsetof(struct stk_config, field_), \
                             __VA_ARGS__},
#include "config/options.def"
#undef STK_OPTION
};

const struct stk_option *stk_options_rows(void)
{
    return options_rows;
}

const char *stk_options_next_word(const char **pos, size_t *ret_len)
{
    const char *word = *pos;
    size_t len;

    if (!word || !*word)
        return NULL;
    len = strcspn(word, ",");
    *pos = word[len] ? word + len + 1 : word + len;
    *ret_len = len;
    return word;
}

static char options_fold(char c)
{
    return c == '_' ? '-' : c;
}

static bool options_same(const char *a, size_t alen, const char *b, size_t blen)
{
    if (alen != blen)
        return false;
    for (size_t i = 0; i < alen; i++)
        if (options_fold(a[i]) != options_fold(b[i]))
            return false;
    return true;
}

const struct stk_option *stk_options_find(const char *name, size_t len)
{
    for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
        const struct stk_option *opt = &options_rows[i];
        const char *pos = opt->aliases, *word;
        size_t wlen = 0;

        if (options_same(name, len, opt->name, strlen(opt->name)))
            return opt;
        while ((word = stk_options_next_word(&pos, &wlen)))
            if (options_same(name, len, word, wlen))
                return opt;
    }
    return NULL;
}

const struct stk_option *stk_options_find_short(char flag)
{
    if (!flag)
        return NULL;
    for (size_t i = 0; i < STK_OPTION_COUNT; i++)
        if (options_rows[i].short_name == flag)
            return &options_rows[i];
    return NULL;
}

static size_t options_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t stk_options_distance(const char *a, const char *b)
{
    size_t rows[3][OPTIONS_MAX_WORD + 1];
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    size_t alen = strlen(a), blen = strlen(b);

    if (alen > OPTIONS_MAX_WORD || blen > OPTIONS_MAX_WORD)
        return SIZE_MAX;
    for (size_t j = 0; j <= blen; j++)
        last[j] = j;
    memset(before, 0, sizeof(rows[0]));
    for (size_t i = 1; i <= alen; i++) {
        char ca = options_fold(a[i - 1]);
        size_t *spare = before;

        now[0] = i;
        for (size_t j = 1; j <= blen; j++) {
            char cb = options_fold(b[j - 1]);

            now[j] = options_min(last[j] + 1, now[j - 1] + 1);
            now[j] = options_min(now[j], last[j - 1] + (ca != cb));
            if (i > 1 && j > 1 && ca == options_fold(b[j - 2]) && options_fold(a[i - 2]) == cb)
                now[j] = options_min(now[j], before[j - 2] + 1);
        }
        before = last;
        last = now;
        now = spare;
    }
    return last[blen];
}

/* The row that has the word among its hints, or NULL. */
static const struct stk_option *options_hinted(const char *name)
{
    for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
        const char *pos = options_rows[i].hints, *word;
        size_t len = 0;

        while ((word = stk_options_next_word(&pos, &len)))
            if (options_same(name, strlen(name), word, len))
                return &options_rows[i];
    }
    return NULL;
}

/* The name or alias at the least distance, if that is small enough. */
static bool options_nearest(const char *name, char *buf, size_t size)
{
    /* A third of the word may be wrong: more, and the suggestion is noise. */
    size_t best = strlen(name) / 3 + 1;
    bool found = false;

    if (best > 4)
        best = 4;
    best++;
    for (size_t i = 0; i < STK_OPTION_COUNT; i++) {
        const char *word = options_rows[i].name, *pos = options_rows[i].aliases;
        size_t len = strlen(word);

        do {
            char text[OPTIONS_MAX_WORD + 1];
            size_t distance;

            STK_ASSERT(len < sizeof(text));
            memcpy(text, word, len);
            text[len] = '\0';
            distance = stk_options_distance(name, text);
            if (distance < best && len < size) {
                best = distance;
                memcpy(buf, text, len + 1);
                found = true;
            }
        } while ((word = stk_options_next_word(&pos, &len)));
    }
    return found;
}

bool stk_options_suggest(const char *name, char *buf, size_t size)
{
    const struct stk_option *hinted = options_hinted(name);

    if (!hinted || strlen(hinted->name) >= size)
        return options_nearest(name, buf, size);
    memcpy(buf, hinted->name, strlen(hinted->name) + 1);
    return true;
}

const char *stk_options_group_name(enum stk_option_group group)
{
    static const char *const names[] = {
        [STK_OPTION_GROUP_APPLICATION] = "Application",
        [STK_OPTION_GROUP_ROUTING] = "Routing",
        [STK_OPTION_GROUP_SOCKETS] = "Sockets",
        [STK_OPTION_GROUP_TLS] = "TLS",
        [STK_OPTION_GROUP_PROCESSES] = "Processes",
        [STK_OPTION_GROUP_LIMITS] = "Limits",
        [STK_OPTION_GROUP_TIMEOUTS] = "Timeouts",
        [STK_OPTION_GROUP_PROXIES] = "Proxies",
        [STK_OPTION_GROUP_STATIC] = "Static files",
        [STK_OPTION_GROUP_RESPONSES] = "Responses",
        [STK_OPTION_GROUP_CACHE] = "Cache",
        [STK_OPTION_GROUP_WEBSOCKETS] = "WebSockets",
        [STK_OPTION_GROUP_LOGGING] = "Logging",
        [STK_OPTION_GROUP_METRICS] = "Health and metrics",
        [STK_OPTION_GROUP_PROGRAMS] = "Programs beside the server",
        [STK_OPTION_GROUP_HELP] = "Help",
    };

    STK_ASSERT((size_t)group < STK_ARRAY_LEN(names));
    return names[group];
}

bool stk_options_is_list(const struct stk_option *opt)
{
    return opt->kind == STK_OPTION_STRINGS || opt->kind == STK_OPTION_VARS ||
           opt->kind == STK_OPTION_NETS;
}

bool stk_options_takes_value(const struct stk_option *opt)
{
    return opt->kind == STK_OPTION_COMMAND ? opt->takes_value : opt->kind != STK_OPTION_BOOL;
}
