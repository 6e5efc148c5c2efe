/*
 * What the files of the cache share: how it lies in memory.
 *
 * There are two regions. `control` holds locks and what can be found out again from the other one:
 * chains, free places. `store` holds the entries: an array of items, one of keys, and the blocks
 * with the values; it is the file, where there is one.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/siphash.h"
#include "base/time.h"
#include "ipc/cache.h"

#ifdef __SANITIZE_THREAD__
#    define CACHE_LOOP SIZE_MAX
#elif defined(__has_feature)
#    if __has_feature(thread_sanitizer)
#        define CACHE_LOOP SIZE_MAX
#    endif
#endif
#ifndef CACHE_LOOP
#    define CACHE_LOOP 64 /* bytes up to which words are copied one by one */
#endif

enum {
    CACHE_LAYOUT = 1,
    CACHE_SHARDS_MAX = 64,
    CACHE_CELLS = 32,
    CACHE_TEXT = 384,
    CACHE_PAGE = 4096,
};

/* The life of an item; all changes from and to FREE are made under the lock of the allocator. */
enum cache_state {
    CACHE_FREE,
    CACHE_RESERVED, /* taken by whoever holds the lock of its shard, and in no chain */
    CACHE_LIVE,
};

/* One entry. What is read without a lock is atomic throughout. */
struct cache_item {
    _Atomic uint32_t state; /* enum cache_state, and the shard above it */
    _Atomic uint32_t next;  /* of the chain: an index and 1; 0: the end */
    _Atomic uint64_t hash;
    _Atomic uint64_t expires; /* ms since 1970; 0: never */
    _Atomic uint64_t used;    /* ns since 1970; with purge_lru */
    _Atomic uint64_t len;
    _Atomic uint64_t check; /* of key and value; with a store */
    _Atomic uint32_t keylen;
    _Atomic uint32_t first; /* block */
    _Atomic uint32_t nblocks;
    uint32_t unused;
};

_Static_assert(sizeof(struct cache_item) == 64, "one cache line");

/* A part of the table, with the lock of those who change it. Odd `seq`: somebody does just now. */
struct cache_shard {
    _Alignas(64) pthread_mutex_t lock;
    _Atomic uint32_t seq;
};

/* Counters, by CPU, because all processes count. */
struct cache_cell {
    _Alignas(64) _Atomic uint64_t hits;
    _Atomic uint64_t miss;
};

/* Free places. Whoever waits for this lock may hold one of a shard, and not the other way round. */
struct cache_alloc {
    _Alignas(64) pthread_mutex_t lock;
    uint32_t nfree;         /* on the stack */
    _Atomic uint32_t fresh; /* items from here on were never used */
    uint32_t hint;          /* where to look for free blocks */
    _Atomic uint32_t items;
    _Atomic uint64_t blocks;
};

struct cache_control {
    char text[CACHE_TEXT]; /* says what lies here; written last */
    struct cache_alloc alloc;
    _Alignas(64) _Atomic uint64_t next_expiry; /* no entry expires before; ms since 1970 */
    _Atomic uint64_t full, evicted, expired, last_modified;
    _Atomic uint64_t said_full; /* ms since 1970 */
    _Atomic uint64_t chance;
    _Atomic uint32_t sweeping; /* next_expiry does not know what a sweep has still to meet */
    struct cache_cell cells[CACHE_CELLS];
    struct cache_shard shards[];
};

/* The first page of the store. */
struct cache_head {
    char text[CACHE_TEXT];
    uint64_t order; /* of bytes: CACHE_ORDER */
    uint64_t seed[2];
    uint64_t check; /* of what is above */
};

#define CACHE_ORDER UINT64_C(0x0102030405060708)
#define CACHE_MAGIC "stoker cache "

struct stk_cache {
    char name[STK_CACHE_NAME_MAX + 1];
    uint64_t seed[2];
    uint64_t max; /* bytes of a value */
    uint64_t blocksize;
    uint64_t stride; /* from block to block: blocksize in whole words */
    uint32_t items, blocks, keysize;
    uint32_t key_stride;
    uint32_t nshards, nbuckets; /* powers of two */
    bool bitmap, purge_lru, no_expire, clear_on_full, ignore_full, stored, last_modified;
    int64_t math_initial;
    uint64_t store_sync;
    uint64_t synced;  /* when, in seconds of the monotonic clock */
    uint64_t sync_at; /* how far that has come; 0: it is through */

    struct cache_control *control;
    _Atomic uint32_t *buckets;
    uint32_t *stack; /* free items, [items] */
    uint64_t *bits;  /* of used blocks; with a bitmap */
    size_t nbits;    /* words of them */
    char *table;     /* items */
    char *keys;
    char *data;
    struct cache_head *head;
    char *beside, *place; /* files: of the store, until it is in the place of the old server's */
    size_t control_size, store_size;
    struct stk_cache_fds fds;
    enum stk_cache_origin origin;
    uint64_t dropped;
};

static inline struct cache_item *stk_cache_item(const struct stk_cache *c, uint32_t i)
{
    return (struct cache_item *)(void *)(c->table + (size_t)i * sizeof(struct cache_item));
}

static inline char *stk_cache_key(const struct stk_cache *c, uint32_t i)
{
    return c->keys + (size_t)i * c->key_stride;
}

static inline char *stk_cache_block(const struct stk_cache *c, uint32_t first)
{
    return c->data + (size_t)first * c->stride;
}

#define cache_load(p)     atomic_load_explicit(p, memory_order_relaxed)
#define cache_store(p, v) atomic_store_explicit(p, v, memory_order_relaxed)

/*
 * No item from here on was ever used, and none is to be looked at: reading a page takes memory,
 * too. One more than the allocator says, because who took that one may have died before saying so.
 */
static inline uint32_t stk_cache_top(const struct stk_cache *c)
{
    uint32_t fresh = cache_load(&c->control->alloc.fresh);

    return fresh < c->items ? fresh + 1 : c->items;
}

static inline enum cache_state stk_cache_state(uint32_t word)
{
    return (enum cache_state)(word & 3);
}

static inline uint32_t stk_cache_word(enum cache_state state, uint32_t shard)
{
    return (uint32_t)state | shard << 2;
}

static inline uint32_t stk_cache_bucket(const struct stk_cache *c, uint64_t hash)
{
    return (uint32_t)hash & (c->nbuckets - 1);
}

static inline uint32_t stk_cache_shard(const struct stk_cache *c, uint64_t hash)
{
    return (uint32_t)hash & (c->nshards - 1); /* low bits of the bucket */
}

/* Blocks that a value takes. */
static inline uint32_t stk_cache_need(const struct stk_cache *c, uint64_t len)
{
    return c->bitmap ? (uint32_t)((len + c->blocksize - 1) / c->blocksize) : 1;
}

/* Milliseconds since 1970, as of the last tick. */
static inline uint64_t stk_cache_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME_COARSE, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)(ts.tv_nsec / STK_NSEC_PER_MSEC);
}

/*
 * Copies by words, of which a reader sees each whole; the last one is filled up with zeros. What is
 * long goes through memcpy, which is faster than any loop of atomic words: a reader that meets it
 * half way finds out by the number of the shard and does not use what it has read. ThreadSanitizer
 * cannot know that, and has the loop.
 */
static inline void stk_cache_words_in(char *to, const char *from, size_t len)
{
    _Atomic uint64_t *w = (_Atomic uint64_t *)(void *)to;
    uint64_t v;

    if (len > CACHE_LOOP) {
        size_t bulk = len & ~(size_t)7;

        memcpy(to, from, bulk);
        w += bulk / 8;
        from += bulk;
        len -= bulk;
    }
    for (; len >= 8; len -= 8, from += 8) {
        memcpy(&v, from, 8);
        cache_store(w++, v);
    }
    if (len > 0) {
        v = 0;
        memcpy(&v, from, len);
        cache_store(w, v);
    }
}

static inline void stk_cache_words_out(char *to, const char *from, size_t len)
{
    const _Atomic uint64_t *w = (const _Atomic uint64_t *)(const void *)from;
    uint64_t v;

    if (len > CACHE_LOOP) {
        memcpy(to, from, len);
        return;
    }
    for (; len >= 8; len -= 8, to += 8) {
        v = cache_load(w++);
        memcpy(to, &v, 8);
    }
    if (len > 0) {
        v = cache_load(w);
        memcpy(to, &v, len);
    }
}

/* cache_alloc.c */
/*
 * Takes an item, and blocks for it, for the holder of a shard's lock. 0 or STK_CACHE_E_FULL.
 */
int stk_cache_take(const struct stk_cache *c, uint32_t shard, uint32_t nblocks, uint32_t *ret_item)
    STK_MUST_CHECK;
/* Takes the allocator's lock for stk_cache_give, if nobody has it. */
bool stk_cache_alloc_try(const struct stk_cache *c) STK_MUST_CHECK;
/* Gives back one that is in no chain; with `held`, and stk_cache_alloc_try before, without waiting.
 */
void stk_cache_give(const struct stk_cache *c, uint32_t item, bool held);
/* Finds out from the items what is free; nobody else uses the allocator. */
void stk_cache_alloc_rebuild(const struct stk_cache *c);
/* Marks blocks as used; false: one of them is already, or there is no such. */
bool stk_cache_alloc_claim(const struct stk_cache *c, uint32_t first, uint32_t nblocks);

/* cache_repair.c */
/* Makes a shard whole whose owner died in the midst of something. Its lock is held. */
void stk_cache_repair(const struct stk_cache *c, uint32_t shard);
/* Finds out all that is in `control` from the store, which may be damaged. The entries dropped. */
uint64_t stk_cache_restore(const struct stk_cache *c);
/* What an entry of a store is checked by. */
uint64_t stk_cache_sum(const struct stk_cache *c, uint64_t hash, const char *value, uint64_t len);
