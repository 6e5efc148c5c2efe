/*
 * The memory of a cache: a memfd that every process maps by inheritance, and that a server can hand
 * to the one that follows it; or, with a store, that for the locks and chains and a file for the
 * entries. What a store holds is believed only when it is of the same layout and sizes, and then
 * entry by entry (cache_repair.c).
 *
 * Pages that were never touched cost nothing, so a cache may be made larger than what is put into
 * it. Of a store all blocks are reserved on the disk, because a process that finds no room there
 * while it writes to memory is killed.
 */
#include "ipc/cache_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/utf8.h"

#define MAP_ITEMS_MAX  (UINT64_C(1) << 28)
#define MAP_BLOCKS_MAX (UINT64_C(1) << 31)
#define MAP_SIZE_MAX   (UINT64_C(1) << 42)
#define MAP_SYNC_PIECE (8 << 20)

static int map_fail(char **ret_error, int r, char *text)
{
    *ret_error = text;
    return r;
}

static size_t map_round(size_t size, size_t to)
{
    return (size + to - 1) / to * to;
}

/* The name goes into logs, metrics and file names of others. */
static bool map_is_name(const char *name)
{
    struct stk_utf8 u = {0};
    size_t len = strlen(name);

    if (!stk_utf8_feed(&u, name, len) || !stk_utf8_is_whole(&u))
        return false;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)name[i] <= ' ' || strchr("\"\\@=,;\x7f", name[i]) != NULL)
            return false;
    return len > 0 && len <= STK_CACHE_NAME_MAX;
}

int stk_cache_check(struct stk_cache_params *p, char **ret_error)
{
    uint64_t size, more;

    if (p->blocks == 0)
        p->blocks = p->items;
    if (p->name == NULL || !map_is_name(p->name))
        return map_fail(ret_error, -EINVAL,
                        stk_mem_printf("name: expected 1 to %d printable characters without "
                                       "blanks, quotes and any of @=,;",
                                       STK_CACHE_NAME_MAX));
    if (p->items == 0 || p->items > MAP_ITEMS_MAX)
        return map_fail(ret_error, -EINVAL,
                        stk_mem_printf("items: expected a number from 1 to %llu",
                                       (unsigned long long)MAP_ITEMS_MAX));
    if (p->blocks < p->items || p->blocks > MAP_BLOCKS_MAX)
        return map_fail(ret_error, -EINVAL,
                        stk_mem_printf("blocks: expected a number from that of items to %llu",
                                       (unsigned long long)MAP_BLOCKS_MAX));
    if (p->keysize == 0 || p->keysize > STK_CACHE_KEY_MAX)
        return map_fail(
            ret_error, -EINVAL,
            stk_mem_printf("keysize: expected a number from 1 to %d", STK_CACHE_KEY_MAX));
    if (p->blocksize == 0 || p->blocksize > MAP_SIZE_MAX ||
        __builtin_mul_overflow(p->blocks, map_round((size_t)p->blocksize, 8), &size) ||
        __builtin_mul_overflow(p->items, p->keysize + 128, &more) ||
        __builtin_add_overflow(size, more, &size) || size > MAP_SIZE_MAX)
        return map_fail(ret_error, -EINVAL,
                        stk_mem_printf("blocksize: expected a size from 1, all blocks and keys "
                                       "together being 4 TiB at most"));
    if (!p->bitmap)
        p->blocks = p->items; /* each item has one, and no more than that */
    return 0;
}

/* --- how it lies there -------------------------------------------------------------------------
 */

static uint32_t map_power(uint64_t n)
{
    uint32_t power = 1;

    while (power < n)
        power *= 2;
    return power;
}

/* What follows from the parameters. */
static struct stk_cache *map_plan(const struct stk_cache_params *p)
{
    struct stk_cache *c = stk_new0(struct stk_cache);
    uint32_t shards = map_power(p->items / 8);

    (void)snprintf(c->name, sizeof c->name, "%s", p->name);
    c->blocksize = p->blocksize;
    c->stride = map_round((size_t)p->blocksize, 8);
    c->items = (uint32_t)p->items;
    c->blocks = (uint32_t)p->blocks;
    c->keysize = (uint32_t)p->keysize;
    c->key_stride = (uint32_t)map_round((size_t)p->keysize, 8);
    c->max = p->bitmap ? p->blocks * p->blocksize : p->blocksize;
    c->nshards = shards > CACHE_SHARDS_MAX ? CACHE_SHARDS_MAX : shards;
    c->nbuckets = map_power(p->items);
    c->nbuckets = c->nbuckets < c->nshards ? c->nshards : c->nbuckets;
    c->bitmap = p->bitmap;
    c->purge_lru = p->purge_lru;
    c->no_expire = p->no_expire;
    c->clear_on_full = p->clear_on_full;
    c->ignore_full = p->ignore_full;
    c->last_modified = p->last_modified;
    c->stored = p->store != NULL;
    c->math_initial = p->math_initial;
    c->store_sync = p->store_sync;
    c->nbits = p->bitmap ? map_round(c->blocks, 64) / 64 : 0;
    c->control_size = sizeof(struct cache_control) + c->nshards * sizeof(struct cache_shard);
    c->control_size += (size_t)c->nbuckets * sizeof(uint32_t) + (size_t)c->items * sizeof(uint32_t);
    c->control_size = map_round(c->control_size, 8) + c->nbits * sizeof(uint64_t);
    c->control_size = map_round(c->control_size, CACHE_PAGE);
    c->store_size = CACHE_PAGE + (size_t)c->items * (sizeof(struct cache_item) + c->key_stride) +
                    (size_t)c->blocks * c->stride;
    c->store_size = map_round(c->store_size, CACHE_PAGE);
    c->fds = (struct stk_cache_fds){-1, -1};
    return c;
}

static void map_place(struct stk_cache *c, void *control, void *store)
{
    char *at =
        (char *)control + sizeof(struct cache_control) + c->nshards * sizeof(struct cache_shard);

    c->control = control;
    c->buckets = (_Atomic uint32_t *)(void *)at;
    at += (size_t)c->nbuckets * sizeof(uint32_t);
    c->stack = (uint32_t *)(void *)at;
    at = (char *)control +
         map_round((size_t)(at - (char *)control) + (size_t)c->items * sizeof(uint32_t), 8);
    c->bits = (uint64_t *)(void *)at;
    c->head = store;
    c->table = (char *)store + CACHE_PAGE;
    c->keys = c->table + (size_t)c->items * sizeof(struct cache_item);
    c->data = c->keys + (size_t)c->items * c->key_stride;
}

/* What the first page of a store says. */
static void map_head_text(const struct stk_cache *c, char text[CACHE_TEXT])
{
    memset(text, 0, CACHE_TEXT);
    (void)snprintf(text, CACHE_TEXT,
                   CACHE_MAGIC "%d: items %u of %u blocks of %llu bytes, keys of %u, bitmap %d",
                   CACHE_LAYOUT, c->items, c->blocks, (unsigned long long)c->blocksize, c->keysize,
                   c->bitmap);
}

/* What the memory says: locks are of the C library, so that it has to be the same. */
static void map_control_text(const struct stk_cache *c, const char *store, char text[CACHE_TEXT])
{
    static const uint64_t key[2] = {0};
    size_t len;

    map_head_text(c, text);
    len = strlen(text);
    (void)snprintf(text + len, CACHE_TEXT - len, ", %u shards, libc %s, lock %zu, store %llx, %s",
                   c->nshards, gnu_get_libc_version(), sizeof(pthread_mutex_t),
                   store != NULL ? (unsigned long long)stk_siphash(key, store, strlen(store)) : 0,
                   c->name);
}

static uint64_t map_head_check(const struct cache_head *head)
{
    static const uint64_t key[2] = {CACHE_LAYOUT, CACHE_ORDER};

    return stk_siphash(key, head, offsetof(struct cache_head, check));
}

static int map_both(struct stk_cache *c)
{
    void *control =
        mmap(NULL, c->control_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fds.memory, 0);
    void *store;
    int r;

    if (control == MAP_FAILED)
        return -errno;
    store = mmap(NULL, c->store_size, PROT_READ | PROT_WRITE, MAP_SHARED,
                 c->stored ? c->fds.store : c->fds.memory, c->stored ? 0 : (off_t)c->control_size);
    if (store == MAP_FAILED) {
        r = -errno;
        (void)munmap(control, c->control_size);
        return r;
    }
    map_place(c, control, store);
    return 0;
}

/* --- a new one ---------------------------------------------------------------------------------
 */

static int map_init_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attr;
    int r = pthread_mutexattr_init(&attr);

    if (r != 0)
        return -r;
    r = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (r == 0)
        r = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    if (r == 0)
        r = pthread_mutex_init(lock, &attr);
    (void)pthread_mutexattr_destroy(&attr);
    return -r;
}

static int map_init_control(struct stk_cache *c, const char *store)
{
    struct cache_control *k = c->control;
    int r = map_init_lock(&k->alloc.lock);

    for (uint32_t i = 0; r == 0 && i < c->nshards; i++)
        r = map_init_lock(&k->shards[i].lock);
    cache_store(&k->next_expiry, c->origin == STK_CACHE_RESTORED ? 0 : UINT64_MAX);
    cache_store(&k->chance, c->seed[0]);
    map_control_text(c, store, k->text);
    return r;
}

static int map_init_head(const struct stk_cache *c, struct cache_head *head)
{
    if (getrandom(head->seed, sizeof head->seed, 0) != (ssize_t)sizeof head->seed)
        return -EIO;
    map_head_text(c, head->text);
    head->order = CACHE_ORDER;
    head->check = map_head_check(head);
    return 0;
}

/*
 * Begins a store. What the file is comes first, and to the disk, before its size: a file without it
 * would be somebody else's for good, whatever it was that ended the making of it.
 */
static int map_init_store(const struct stk_cache *c, int fd)
{
    struct cache_head head = {0};
    ssize_t n;
    int r = map_init_head(c, &head);

    if (r == 0 && ftruncate(fd, 0) < 0)
        return -errno;
    n = r == 0 ? pwrite(fd, &head, sizeof head, 0) : 0;
    if (r == 0 && (n < 0 || fdatasync(fd) < 0))
        return -errno;
    return r == 0 && n != (ssize_t)sizeof head ? -ENOSPC : r;
}

/* Whether a store can be used as it is: STK_CACHE_NEW, _RESTORED, _EMPTIED, or -EEXIST: it is
 * something else. */
static int map_look_at_store(const struct stk_cache *c, int fd, off_t size)
{
    struct cache_head head;
    char text[CACHE_TEXT];

    if (size == 0)
        return STK_CACHE_NEW;
    memset(&head, 0, sizeof head);
    if (pread(fd, &head, sizeof head, 0) < (ssize_t)(sizeof CACHE_MAGIC - 1) ||
        memcmp(head.text, CACHE_MAGIC, sizeof CACHE_MAGIC - 1) != 0)
        return -EEXIST;
    map_head_text(c, text);
    return memcmp(text, head.text, CACHE_TEXT) == 0 && head.order == CACHE_ORDER &&
                   head.check == map_head_check(&head) && size == (off_t)c->store_size
               ? STK_CACHE_RESTORED
               : STK_CACHE_EMPTIED;
}

/* All of a store that others change meanwhile: what is not whole is dropped, entry by entry. */
static int map_copy_store(const struct stk_cache *c, int to, int from)
{
    off_t at = 0;

    while (at < (off_t)c->store_size) {
        ssize_t n = sendfile(to, from, &at, c->store_size - (size_t)at);

        if (n <= 0)
            return n < 0 ? -errno : -EIO;
    }
    return 0;
}

/*
 * A new file beside one that the server before this one uses still, which is one of `old`, with the
 * same entries if it can have them. -EBUSY: it is used by somebody else.
 */
static int map_replace_store(struct stk_cache *c, const char *path, const struct stat *used,
                             const struct stk_cache_fds *old, size_t nold)
{
    STK_CLEANUP(stk_mem_freep) char *beside = stk_mem_printf("%s.%d", path, (int)getpid());
    struct stat st;
    size_t i = 0;
    int r;

    while (i < nold && (old[i].store < 0 || fstat(old[i].store, &st) < 0 ||
                        st.st_dev != used->st_dev || st.st_ino != used->st_ino))
        i++;
    if (i == nold)
        return -EBUSY;
    c->fds.store = open(beside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (c->fds.store < 0)
        return -errno;
    c->beside = stk_steal(&beside);
    c->place = stk_mem_strdup(path);
    c->origin = map_look_at_store(c, old[i].store, used->st_size) == STK_CACHE_RESTORED
                    ? STK_CACHE_RESTORED
                    : STK_CACHE_EMPTIED;
    r = flock(c->fds.store, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
    if (r == 0)
        r = c->origin == STK_CACHE_RESTORED ? map_copy_store(c, c->fds.store, old[i].store)
                                            : map_init_store(c, c->fds.store);
    if (r == 0)
        r = -posix_fallocate(c->fds.store, 0, (off_t)c->store_size);
    return r;
}

/* Opens, locks and if need be empties the file. 0, or a negative errno with a sentence. */
static int map_open_store(struct stk_cache *c, const struct stk_cache_params *p,
                          const struct stk_cache_fds *old, size_t nold, char **ret_error)
{
    struct stat st = {0};
    int r;

    c->fds.store = open(p->store, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
    if (c->fds.store < 0 || fstat(c->fds.store, &st) < 0) {
        r = -errno;
        return map_fail(ret_error, r, stk_mem_printf("store: %s: %s", p->store, strerror(-r)));
    }
    if (!S_ISREG(st.st_mode))
        return map_fail(ret_error, -EINVAL,
                        stk_mem_printf("store: %s is no regular file", p->store));
    if (flock(c->fds.store, LOCK_EX | LOCK_NB) < 0) {
        stk_fd_close(&c->fds.store);
        r = map_replace_store(c, p->store, &st, old, nold);
        return r == 0
                   ? 0
                   : map_fail(ret_error, r,
                              r == -EBUSY
                                  ? stk_mem_printf("store: %s is used by another server", p->store)
                                  : stk_mem_printf("store: %s: %s", p->store, strerror(-r)));
    }
    r = map_look_at_store(c, c->fds.store, st.st_size);
    if (r == -EEXIST && !p->store_delete)
        return map_fail(ret_error, r,
                        stk_mem_printf("store: %s is there and is no cache of stoker's: remove it, "
                                       "or name another file (with store_delete=1 it is replaced)",
                                       p->store));
    c->origin = r < 0 ? STK_CACHE_EMPTIED : (enum stk_cache_origin)r;
    r = c->origin != STK_CACHE_RESTORED ? -map_init_store(c, c->fds.store) : 0;
    if (r == 0) /* of a restored one, too: it may have holes, as copies have */
        r = posix_fallocate(c->fds.store, 0, (off_t)c->store_size);
    return r == 0 ? 0
                  : map_fail(ret_error, -r,
                             stk_mem_printf("store: %s: %llu bytes cannot be had: %s", p->store,
                                            (unsigned long long)c->store_size, strerror(r)));
}

static int map_begin(struct stk_cache *c, const struct stk_cache_params *p, char **ret_error)
{
    off_t size = (off_t)(c->control_size + (c->stored ? 0 : c->store_size));
    int r = 0;

    c->fds.memory = memfd_create("cache", MFD_CLOEXEC);
    if (c->fds.memory < 0 || ftruncate(c->fds.memory, size) < 0)
        r = -errno;
    if (r == 0)
        r = map_both(c);
    if (r == 0 && !c->stored)
        r = map_init_head(c, c->head);
    if (r == 0) {
        memcpy(c->seed, c->head->seed, sizeof c->seed);
        r = map_init_control(c, p->store);
    }
    if (r < 0)
        return map_fail(ret_error, r,
                        stk_mem_printf("%llu bytes of memory cannot be had: %s",
                                       (unsigned long long)c->control_size + c->store_size,
                                       strerror(-r)));
    if (c->origin == STK_CACHE_RESTORED)
        c->dropped = stk_cache_restore(c);
    return 0;
}

/* --- the one of the server before --------------------------------------------------------------
 */

/* Takes one of the old ones, if it is the same. */
static bool map_inherit(struct stk_cache *c, const struct stk_cache_params *p,
                        struct stk_cache_fds *old, size_t nold)
{
    char wanted[CACHE_TEXT], text[CACHE_TEXT];

    map_control_text(c, p->store, wanted);
    for (size_t i = 0; i < nold; i++) {
        struct stat st;

        if (old[i].memory < 0 ||
            pread(old[i].memory, text, sizeof text, 0) != (ssize_t)sizeof text ||
            memcmp(text, wanted, sizeof text) != 0 || (old[i].store >= 0) != c->stored ||
            fstat(old[i].memory, &st) < 0 ||
            st.st_size != (off_t)(c->control_size + (c->stored ? 0 : c->store_size)))
            continue;
        if (c->stored && (fstat(old[i].store, &st) < 0 || st.st_size != (off_t)c->store_size))
            continue;
        c->fds = old[i];
        if (map_both(c) < 0) {
            c->fds = (struct stk_cache_fds){-1, -1};
            return false;
        }
        old[i] = (struct stk_cache_fds){-1, -1};
        memcpy(c->seed, c->head->seed, sizeof c->seed);
        cache_store(&c->control->next_expiry, 0); /* where the old server's sweep is goes with it */
        c->origin = STK_CACHE_INHERITED;
        return true;
    }
    return false;
}

int stk_cache_new(const struct stk_cache_params *params, struct stk_cache_fds *old, size_t nold,
                  struct stk_cache **ret_cache, char **ret_error)
{
    struct stk_cache *c = map_plan(params);
    int r = 0;

    if (!map_inherit(c, params, old, nold)) {
        if (c->stored)
            r = map_open_store(c, params, old, nold, ret_error);
        if (r == 0)
            r = map_begin(c, params, ret_error);
    }
    if (r < 0) {
        stk_cache_free(c);
        return r;
    }
    *ret_cache = c;
    return 0;
}

struct stk_cache *stk_cache_free(struct stk_cache *c)
{
    if (c == NULL)
        return NULL;
    if (c->control != NULL) {
        STK_ASSERT(munmap(c->control, c->control_size) == 0);
        STK_ASSERT(munmap(c->head, c->store_size) == 0);
    }
    if (c->beside != NULL)
        (void)unlink(c->beside); /* the server before this one goes on */
    stk_cache_leave(c);
    free(c);
    return NULL;
}

int stk_cache_take_place(struct stk_cache *c)
{
    int r = c->beside != NULL && rename(c->beside, c->place) < 0 ? -errno : 0;

    if (r == 0)
        free(stk_steal(&c->beside));
    return r;
}

void stk_cache_leave(struct stk_cache *c)
{
    free(stk_steal(&c->beside));
    free(stk_steal(&c->place));
    stk_fd_close(&c->fds.memory);
    stk_fd_close(&c->fds.store);
}

struct stk_cache_fds stk_cache_fds(const struct stk_cache *c)
{
    return c->fds;
}

const char *stk_cache_name(const struct stk_cache *c)
{
    return c->name;
}

enum stk_cache_origin stk_cache_origin(const struct stk_cache *c, uint64_t *ret_dropped)
{
    *ret_dropped = c->dropped;
    return c->origin;
}

uint64_t stk_cache_max(const struct stk_cache *c)
{
    return c->max;
}

bool stk_cache_sync(struct stk_cache *c)
{
    uint64_t now = (uint64_t)stk_time_mono_coarse_ms() / 1000;

    if (c->fds.store < 0 || c->store_sync == 0 ||
        (c->sync_at == 0 && now - c->synced < c->store_sync))
        return false;
    if (c->sync_at == 0)
        c->synced = now;
    /* Writing begins, and nobody waits for its end. To begin with all at once takes long, too. */
    (void)sync_file_range(c->fds.store, (off_t)c->sync_at, MAP_SYNC_PIECE, SYNC_FILE_RANGE_WRITE);
    c->sync_at += MAP_SYNC_PIECE;
    if (c->sync_at >= c->store_size)
        c->sync_at = 0;
    return c->sync_at != 0;
}
