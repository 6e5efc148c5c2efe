/*
 * The values of `cache`, in the words of uWSGI's `cache2`. Its sizes are numbers; here they may end
 * with k, m or g. What uWSGI needs words for and is always so here (expiry that is looked at by
 * readers, sweeping a full cache) is taken and has nothing to say.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "services/caches.h"

enum spec_kind { SPEC_TEXT, SPEC_SIZE, SPEC_NUMBER, SPEC_FLAG, SPEC_NONE, SPEC_REMOTE };

static const struct spec_word {
    const char *name;
    enum spec_kind kind;
    size_t offset;
} spec_words[] = {
#define WORD(name, kind, field)                              \
    {                                                        \
        name, kind, offsetof(struct stk_cache_params, field) \
    }
    WORD("name", SPEC_TEXT, name),
    WORD("items", SPEC_SIZE, items),
    WORD("max_items", SPEC_SIZE, items),
    WORD("maxitems", SPEC_SIZE, items),
    WORD("blocksize", SPEC_SIZE, blocksize),
    WORD("blocks", SPEC_SIZE, blocks),
    WORD("keysize", SPEC_SIZE, keysize),
    WORD("key_size", SPEC_SIZE, keysize),
    WORD("bitmap", SPEC_FLAG, bitmap),
    WORD("store", SPEC_TEXT, store),
    WORD("store_sync", SPEC_SIZE, store_sync),
    WORD("storesync", SPEC_SIZE, store_sync),
    WORD("store_delete", SPEC_FLAG, store_delete),
    WORD("storedelete", SPEC_FLAG, store_delete),
    WORD("purge_lru", SPEC_FLAG, purge_lru),
    WORD("lru", SPEC_FLAG, purge_lru),
    WORD("no_expire", SPEC_FLAG, no_expire),
    WORD("clear_on_full", SPEC_FLAG, clear_on_full),
    WORD("ignore_full", SPEC_FLAG, ignore_full),
    WORD("lastmod", SPEC_FLAG, last_modified),
    WORD("math_initial", SPEC_NUMBER, math_initial),
#undef WORD
    {"hash", SPEC_NONE, 0},
    {"hashsize", SPEC_NONE, 0},
    {"hash_size", SPEC_NONE, 0},
    {"lazy", SPEC_NONE, 0},
    {"lazy_expire", SPEC_NONE, 0},
    {"sweep_on_full", SPEC_NONE, 0},
    {"node", SPEC_REMOTE, 0},
    {"nodes", SPEC_REMOTE, 0},
    {"sync", SPEC_REMOTE, 0},
    {"udp", SPEC_REMOTE, 0},
    {"udp_server", SPEC_REMOTE, 0},
    {"udp_servers", SPEC_REMOTE, 0},
    {"udpserver", SPEC_REMOTE, 0},
    {"udpservers", SPEC_REMOTE, 0},
};

static bool spec_size(const char *text, uint64_t *ret_size)
{
    static const char units[] = "kmg";
    unsigned long long n;
    unsigned shift = 0;
    char *end;

    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    n = strtoull(text, &end, 10);
    if (*end != '\0' && strchr(units, *end | 0x20) != NULL)
        shift = 10 * (unsigned)(strchr(units, *end++ | 0x20) - units + 1);
    if (errno != 0 || *end != '\0' || n > UINT64_MAX >> shift)
        return false;
    *ret_size = (uint64_t)n << shift;
    return true;
}

static bool spec_number(const char *text, int64_t *ret_number)
{
    char *end;
    long long n;

    errno = 0;
    n = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0')
        return false;
    *ret_number = n;
    return true;
}

/* Without a value a flag is on; uWSGI takes every value for that, "0" included. */
static bool spec_flag(const char *text, bool *ret_flag)
{
    static const char *const on[] = {"", "1", "true", "yes", "on"};
    static const char *const off[] = {"0", "false", "no", "off"};

    for (size_t i = 0; i < STK_ARRAY_LEN(on); i++)
        if (strcasecmp(text, on[i]) == 0)
            return *ret_flag = true, true;
    for (size_t i = 0; i < STK_ARRAY_LEN(off); i++)
        if (strcasecmp(text, off[i]) == 0)
            return *ret_flag = false, true;
    return false;
}

/* One word. NULL, or a sentence; free it. */
static char *spec_take(struct stk_cache_params *p, const char *name, const char *value)
{
    const struct spec_word *word = NULL;
    char *field;
    bool ok = true;

    for (size_t i = 0; i < STK_ARRAY_LEN(spec_words) && word == NULL; i++)
        if (strcmp(spec_words[i].name, name) == 0)
            word = &spec_words[i];
    if (word == NULL)
        return stk_mem_printf(
            "%s is not known here: name, items, blocksize, blocks, bitmap, keysize, "
            "store, storesync, purge_lru, no_expire, clear_on_full, ignore_full "
            "and math_initial are",
            name);
    field = (char *)p + word->offset;
    switch (word->kind) {
    case SPEC_TEXT:
        ok = *value != '\0';
        *(const char **)(void *)field = value;
        break;
    case SPEC_SIZE:
        ok = spec_size(value, (uint64_t *)(void *)field);
        break;
    case SPEC_NUMBER:
        ok = spec_number(value, (int64_t *)(void *)field);
        break;
    case SPEC_FLAG:
        ok = spec_flag(value, (bool *)(void *)field);
        break;
    case SPEC_NONE:
        break;
    case SPEC_REMOTE:
        return stk_mem_printf("%s: caches are not shared between machines; leave it out", name);
    }
    return ok ? NULL : stk_mem_printf("%s: '%s' cannot be", name, value);
}

int stk_caches_parse(const char *spec, struct stk_cache_params *ret_params, char **ret_text,
                     char **ret_error)
{
    struct stk_cache_params p = {.blocksize = 65536, .keysize = 2048};
    STK_CLEANUP(stk_mem_freep) char *text = stk_mem_strdup(spec);
    char *rest = text, *word, *error = NULL;
    int r;

    if (*spec != '\0' && spec[strspn(spec, "0123456789")] == '\0') {
        p.name = "default"; /* uWSGI's old form */
        if (!spec_size(spec, &p.items))
            error = stk_mem_printf("'%s' cannot be", spec);
        rest = NULL;
    }
    while (error == NULL && (word = strsep(&rest, ",")) != NULL) {
        char *value = strchr(word, '=');

        if (value != NULL)
            *value++ = '\0';
        if (*word != '\0')
            error = spec_take(&p, word, value != NULL ? value : "");
    }
    if (error == NULL && p.name == NULL)
        error = stk_mem_strdup("it needs a name, as in name=pages,items=1000");
    if (error == NULL && p.items == 0)
        error = stk_mem_strdup("it needs a number of items, as in name=pages,items=1000");
    if (error != NULL) {
        *ret_error = error;
        return -EINVAL;
    }
    r = stk_cache_check(&p, ret_error);
    if (r < 0)
        return r;
    *ret_params = p;
    *ret_text = stk_steal(&text);
    return 0;
}
