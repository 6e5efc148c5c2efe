/*
 * The caches of a server: made from the configuration, filled with what it names, swept and
 * reported on. What a cache is and does is in ipc/cache.h.
 *
 * The sweep is the master's, in bounded steps, and waits for no lock. It only gives memory back: an
 * entry whose time is over is found by nobody, swept or not.
 */
#include "services/caches.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"

#ifdef STK_HAVE_ZLIB
#    include <zlib.h>
#endif

/* Places that a tick looks at; a cache of more is swept in several ticks. */
enum { CACHES_BUDGET = 1 << 16 };

struct caches_fail {
    void (*fn)(void *arg, enum stk_option_id id, size_t item, const char *text);
    void *arg;
};

/* --- the options -------------------------------------------------------------------------------
 */

/* The cache that a text begins with, "NAME REST"; without a name all of them. */
static const char *caches_target(const char *text, char name[STK_CACHE_NAME_MAX + 1])
{
    const char *blank = strpbrk(text, " =");
    size_t len;

    if (blank != NULL && *blank == '=')
        blank = NULL;
    len = blank != NULL ? (size_t)(blank - text) : 0;

    name[0] = '\0';
    if (blank == NULL || len > STK_CACHE_NAME_MAX)
        return text;
    memcpy(name, text, len);
    name[len] = '\0';
    return blank + 1;
}

/* Whether a cache of that name is configured. */
static bool caches_is_named(const struct stk_config *config, const char *name)
{
    for (size_t i = 0; i < config->cache.n; i++) {
        STK_CLEANUP(stk_mem_freep) char *text = NULL, *error = NULL;
        struct stk_cache_params p;

        if (stk_caches_parse(config->cache.items[i], &p, &text, &error) == 0 &&
            (*name == '\0' || strcmp(p.name, name) == 0))
            return true;
    }
    return false;
}

static void caches_verify_target(const struct stk_config *config, enum stk_option_id id,
                                 const struct stk_strv *list, bool pair, struct caches_fail *fail)
{
    for (size_t i = 0; i < list->n; i++) {
        char name[STK_CACHE_NAME_MAX + 1];
        const char *rest = caches_target(list->items[i], name);

        if (pair && (strchr(rest, '=') == NULL || *rest == '='))
            fail->fn(fail->arg, id, i, "expected [CACHE ]KEY=VALUE");
        else if (*rest == '\0')
            fail->fn(fail->arg, id, i, "expected [CACHE ]FILE");
        else if (!caches_is_named(config, name))
            fail->fn(fail->arg, id, i,
                     *name != '\0' ? "there is no cache of that name" : "there is no cache");
    }
}

void stk_caches_verify(const struct stk_config *config,
                       void (*fail)(void *arg, enum stk_option_id id, size_t item,
                                    const char *text),
                       void *arg)
{
    struct caches_fail f = {fail, arg};

    for (size_t i = 0; i < config->cache.n; i++) {
        STK_CLEANUP(stk_mem_freep) char *text = NULL, *error = NULL;
        struct stk_cache_params p;

        if (stk_caches_parse(config->cache.items[i], &p, &text, &error) < 0) {
            fail(arg, STK_OPTION_ID_CACHE, i, error);
            continue;
        }
        for (size_t k = 0; k < i; k++) {
            STK_CLEANUP(stk_mem_freep) char *other_text = NULL, *ignored = NULL;
            struct stk_cache_params other;

            if (stk_caches_parse(config->cache.items[k], &other, &other_text, &ignored) < 0)
                continue;
            if (strcmp(other.name, p.name) == 0)
                fail(arg, STK_OPTION_ID_CACHE, i, "there is another cache of that name");
            else if (p.store != NULL && other.store != NULL && strcmp(p.store, other.store) == 0)
                fail(arg, STK_OPTION_ID_CACHE, i, "another cache has that store");
        }
    }
    caches_verify_target(config, STK_OPTION_ID_ADD_CACHE_ITEM, &config->add_cache_item, true, &f);
    caches_verify_target(config, STK_OPTION_ID_LOAD_FILE_IN_CACHE, &config->load_file_in_cache,
                         false, &f);
    caches_verify_target(config, STK_OPTION_ID_LOAD_FILE_IN_CACHE_GZIP,
                         &config->load_file_in_cache_gzip, false, &f);
#ifndef STK_HAVE_ZLIB
    for (size_t i = 0; i < config->load_file_in_cache_gzip.n; i++)
        fail(arg, STK_OPTION_ID_LOAD_FILE_IN_CACHE_GZIP, i,
             "this stoker is built without zlib: install zlib1g-dev (zlib-devel) and build it "
             "again");
#endif
}

/* --- what is in them at the start --------------------------------------------------------------
 */

/* Puts an entry, and says why if that cannot be. */
static void caches_put(const struct stk_cache *c, const char *key, size_t keylen, const char *value,
                       size_t len)
{
    int r = stk_cache_put(c, key, keylen, value, len, 0, STK_CACHE_UPDATE, true);

    if (r != 0)
        stk_log_error("cache %s: %.*s is not stored: %s", stk_cache_name(c), (int)keylen, key,
                      r == STK_CACHE_E_FULL ? "the cache is full"
                                            : "it is empty, or larger than the cache allows");
}

/* All of a file; *ret_data is to be freed. 0 or a negative errno. */
static int caches_read(const char *path, uint64_t most, char **ret_data, size_t *ret_len)
{
    STK_CLEANUP(stk_fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    STK_CLEANUP(stk_mem_freep) char *data = NULL;
    struct stat st;
    size_t len = 0;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    if ((uint64_t)st.st_size > most)
        return -EFBIG;
    data = stk_try_alloc((size_t)st.st_size + 1);
    if (data == NULL)
        return -ENOMEM;
    while (len < (size_t)st.st_size) {
        ssize_t n = read(fd, data + len, (size_t)st.st_size - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    *ret_data = stk_steal(&data);
    *ret_len = len;
    return 0;
}

/* The same bytes as a gzip file. 0 or -ENOMEM. */
static int caches_gzip(char **data, size_t *len)
{
#ifdef STK_HAVE_ZLIB
    z_stream z = {.next_in = (unsigned char *)*data, .avail_in = (unsigned)*len};
    STK_CLEANUP(stk_mem_freep) char *out = NULL;
    size_t room;

    if (*len > UINT32_MAX ||
        deflateInit2(&z, Z_BEST_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    room = deflateBound(&z, (unsigned long)*len);
    out = stk_try_alloc(room);
    if (out != NULL) {
        z.next_out = (unsigned char *)out;
        z.avail_out = (unsigned)room;
    }
    if (out == NULL || deflate(&z, Z_FINISH) != Z_STREAM_END) {
        (void)deflateEnd(&z);
        return -ENOMEM;
    }
    *len = z.total_out;
    (void)deflateEnd(&z);
    free(*data);
    *data = stk_steal(&out);
    return 0;
#else
    return -ENOTSUP;
#endif
}

static void caches_load_file(const struct stk_cache *c, const char *path, bool gzip)
{
    STK_CLEANUP(stk_mem_freep) char *data = NULL;
    size_t len = 0;
    int r = caches_read(path, gzip ? UINT32_MAX : stk_cache_max(c), &data, &len);

    if (r == 0 && gzip)
        r = caches_gzip(&data, &len);
    if (r < 0)
        stk_log_error("cache %s: %s is not stored: %s", stk_cache_name(c), path, strerror(-r));
    else
        caches_put(c, path, strlen(path), data, len);
}

/* Of a list what is for one cache. */
static void caches_fill_from(const struct stk_cache *c, const struct stk_strv *list,
                             enum stk_option_id id)
{
    for (size_t i = 0; i < list->n; i++) {
        char name[STK_CACHE_NAME_MAX + 1];
        const char *rest = caches_target(list->items[i], name);
        const char *value = strchr(rest, '=');

        if (*name != '\0' && strcmp(name, stk_cache_name(c)) != 0)
            continue;
        if (id != STK_OPTION_ID_ADD_CACHE_ITEM)
            caches_load_file(c, rest, id == STK_OPTION_ID_LOAD_FILE_IN_CACHE_GZIP);
        else if (value != NULL)
            caches_put(c, rest, (size_t)(value - rest), value + 1, strlen(value + 1));
    }
}

static void caches_fill(const struct stk_cache *c, const struct stk_config *config)
{
    caches_fill_from(c, &config->load_file_in_cache, STK_OPTION_ID_LOAD_FILE_IN_CACHE);
    caches_fill_from(c, &config->load_file_in_cache_gzip, STK_OPTION_ID_LOAD_FILE_IN_CACHE_GZIP);
    caches_fill_from(c, &config->add_cache_item, STK_OPTION_ID_ADD_CACHE_ITEM);
}

/* --- their life --------------------------------------------------------------------------------
 */

int stk_caches_new(const struct stk_config *config, const struct stk_caches_start *start,
                   struct stk_caches **ret_caches)
{
    struct stk_caches *caches = NULL;
    int r = 0;

    if (config->cache.n > 0) {
        caches = stk_new0(struct stk_caches);
        caches->items = stk_new0_array(struct stk_cache *, config->cache.n);
        caches->hands = stk_new0_array(uint64_t, config->cache.n);
    }
    for (size_t i = 0; r == 0 && i < config->cache.n; i++) {
        STK_CLEANUP(stk_mem_freep) char *text = NULL, *error = NULL;
        struct stk_cache_params p;

        r = stk_caches_parse(config->cache.items[i], &p, &text, &error);
        if (start->trial)
            p.store = NULL;
        if (r == 0)
            r = stk_cache_new(&p, start->old, start->nold, &caches->items[i], &error);
        if (r == 0)
            caches->n++;
        else
            stk_log_critical("cache %s: %s", config->cache.items[i], error);
    }
    for (size_t i = 0; i < start->nold; i++) {
        stk_fd_close(&start->old[i].memory);
        stk_fd_close(&start->old[i].store);
    }
    if (r < 0) {
        stk_caches_free(caches);
        return r;
    }
    for (size_t i = 0; caches != NULL && i < caches->n; i++)
        caches_fill(caches->items[i], config);
    *ret_caches = caches;
    return 0;
}

struct stk_caches *stk_caches_free(struct stk_caches *caches)
{
    if (caches == NULL)
        return NULL;
    for (size_t i = 0; i < caches->n; i++)
        caches->items[i] = stk_cache_free(caches->items[i]);
    free(caches->items);
    free(caches->hands);
    free(caches);
    return NULL;
}

void stk_caches_take_place(struct stk_caches *caches)
{
    for (size_t i = 0; caches != NULL && i < caches->n; i++) {
        int r = stk_cache_take_place(caches->items[i]);

        if (r < 0)
            stk_log_error("cache %s: its store cannot take the place of the old server's: %s",
                          stk_cache_name(caches->items[i]), strerror(-r));
    }
}

void stk_caches_leave(struct stk_caches *caches)
{
    for (size_t i = 0; caches != NULL && i < caches->n; i++)
        stk_cache_leave(caches->items[i]);
}

void stk_caches_log(const struct stk_caches *caches)
{
    static const char *const origins[] = {
        [STK_CACHE_NEW] = "empty",
        [STK_CACHE_INHERITED] = "as the old server has it",
        [STK_CACHE_RESTORED] = "from its store",
        [STK_CACHE_EMPTIED] = "empty",
    };

    for (size_t i = 0; caches != NULL && i < caches->n; i++) {
        const struct stk_cache *c = caches->items[i];
        struct stk_cache_stats st;
        uint64_t dropped;
        enum stk_cache_origin origin = stk_cache_origin(c, &dropped);

        stk_cache_stat(c, &st);
        stk_log_info("cache %s: room for %llu entries in %.1f MB at most, %s, %llu there", st.name,
                     (unsigned long long)st.max_items, (double)st.size / 1048576, origins[origin],
                     (unsigned long long)st.items);
        if (origin == STK_CACHE_EMPTIED)
            stk_log_warning("cache %s: its store is of another version or of other sizes, and was "
                            "emptied",
                            st.name);
        if (dropped > 0)
            stk_log_warning("cache %s: %llu damaged entries of its store were dropped", st.name,
                            (unsigned long long)dropped);
    }
}

bool stk_caches_tick(struct stk_caches *caches)
{
    bool more = false;

    for (size_t i = 0; i < caches->n; i++) {
        uint64_t freed = stk_cache_sweep(caches->items[i], &caches->hands[i], CACHES_BUDGET);

        if (freed > 0)
            stk_log_debug("cache %s: %llu expired entries freed", stk_cache_name(caches->items[i]),
                          (unsigned long long)freed);
        more = stk_cache_sync(caches->items[i]) || more || caches->hands[i] != 0;
    }
    return more;
}

const struct stk_cache *stk_caches_find(const struct stk_caches *caches, const char *name)
{
    if (caches == NULL)
        return NULL;
    if (name == NULL || *name == '\0')
        return caches->items[0];
    for (size_t i = 0; i < caches->n; i++)
        if (strcmp(stk_cache_name(caches->items[i]), name) == 0)
            return caches->items[i];
    return NULL;
}

void stk_caches_write(struct stk_json *j, const struct stk_caches *caches)
{
    stk_json_name(j, "caches");
    stk_json_array_begin(j);
    for (size_t i = 0; caches != NULL && i < caches->n; i++) {
        struct stk_cache_stats st;

        stk_cache_stat(caches->items[i], &st);
        stk_json_object_begin(j);
        stk_json_put_string(j, "name", st.name);
        stk_json_put_string(j, "hash", st.hash);
        stk_json_put_uint(j, "hashsize", st.buckets);
        stk_json_put_uint(j, "keysize", st.keysize);
        stk_json_put_uint(j, "max_items", st.max_items);
        stk_json_put_uint(j, "blocks", st.blocks);
        stk_json_put_uint(j, "blocksize", st.blocksize);
        stk_json_put_uint(j, "items", st.items);
        stk_json_put_uint(j, "hits", st.hits);
        stk_json_put_uint(j, "miss", st.miss);
        stk_json_put_uint(j, "full", st.full);
        stk_json_put_uint(j, "last_modified_at", st.last_modified);
        stk_json_put_uint(j, "blocks_used", st.blocks_used);
        stk_json_put_uint(j, "evicted", st.evicted);
        stk_json_put_uint(j, "expired", st.expired);
        stk_json_put_uint(j, "size", st.size);
        stk_json_object_end(j);
    }
    stk_json_array_end(j);
}
