/*
 * A cache in shared memory: keys and values that all processes of a server have in common, and
 * which outlive each of them. Whatever happens to a process in the midst of a change, kill -9
 * included, the others go on and see whole entries only.
 *
 * A handle is made by the master and inherited over fork(). All functions may be called by any
 * thread of any of these processes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"

struct stk_cache;

enum {
    STK_CACHE_NAME_MAX = 63,
    STK_CACHE_KEY_MAX = 65534,
};

/* Results beside 0 and a negative errno. */
enum stk_cache_error {
    STK_CACHE_E_MISSING = 1, /* there is no such key, or it has expired */
    STK_CACHE_E_BUSY = 2,    /* somebody changes it: again, with `wait` and without other locks */
    STK_CACHE_E_EXISTS = 3,  /* the key is there already */
    STK_CACHE_E_REFUSED = 4, /* empty, or longer than the cache has room for */
    STK_CACHE_E_FULL = 5,
};

/* What a cache is to be; sizes in bytes, times in seconds. stk_cache_check says what may be. */
struct stk_cache_params {
    const char *name;
    const char *store; /* a file that keeps the entries; NULL: none */
    uint64_t items;
    uint64_t blocks; /* 0: as many as items */
    uint64_t blocksize;
    uint64_t keysize;
    int64_t math_initial; /* what calculating with a new key begins with */
    uint64_t store_sync;  /* between writes to the disk; 0: as the kernel likes */
    bool bitmap;          /* a value may take several blocks, one behind the other */
    bool purge_lru;       /* when it is full, what was not used for longest goes */
    bool no_expire;       /* expiry is noted and not acted upon */
    bool clear_on_full;
    bool ignore_full; /* nobody is told of a full cache */
    bool last_modified;
    bool store_delete; /* a store that is no cache of ours is replaced */
};

/* Descriptors of the same cache in the server before this one; each -1: there is none. */
struct stk_cache_fds {
    int memory;
    int store;
};

/* How a cache has begun. */
enum stk_cache_origin {
    STK_CACHE_NEW,
    STK_CACHE_INHERITED, /* from the server before this one */
    STK_CACHE_RESTORED,  /* from its store */
    STK_CACHE_EMPTIED,   /* the store was of another version or of other sizes */
};

struct stk_cache_stats {
    const char *name;
    const char *hash;
    uint64_t buckets;
    uint64_t keysize, max_items, blocks, blocksize;
    uint64_t items, blocks_used;
    uint64_t hits, miss;
    uint64_t full;    /* entries that found no room */
    uint64_t evicted; /* entries that made room for others */
    uint64_t expired; /* entries that were swept after their time */
    uint64_t last_modified;
    uint64_t size; /* of all its memory, used or not */
};

/* A found entry, for stk_cache_copy. */
struct stk_cache_found {
    uint64_t len; /* of the value */
    uint32_t item;
    uint32_t shard;
    uint32_t seq;
    uint32_t first;
};

/* How stk_cache_put treats a key that is there. */
enum stk_cache_how {
    STK_CACHE_SET,    /* STK_CACHE_E_EXISTS */
    STK_CACHE_UPDATE, /* it gets the new value and expiry */
};

enum stk_cache_math { STK_CACHE_ADD, STK_CACHE_SUB, STK_CACHE_MUL, STK_CACHE_DIV };

/*
 * Whether such a cache can be. 0, or -EINVAL with a sentence (free it) that begins with the name of
 * the value that is wrong. Fills in `blocks`.
 */
int stk_cache_check(struct stk_cache_params *params, char **ret_error) STK_MUST_CHECK;
/*
 * Makes it, or takes what another server of the same kind had: one of `old`, whose descriptors it
 * takes and sets to -1. Where one of `old` is of another kind and has the same store, it begins one
 * beside that, with the entries if sizes and version are the same. 0, or a negative errno with a
 * sentence (free it).
 */
int stk_cache_new(const struct stk_cache_params *params, struct stk_cache_fds *old, size_t nold,
                  struct stk_cache **ret_cache, char **ret_error) STK_MUST_CHECK;
/* Unmaps it for this process. Accepts NULL; returns NULL. */
struct stk_cache *stk_cache_free(struct stk_cache *c);
/*
 * The server before this one has gone: the store that was begun beside its own takes the place of
 * that. Until then an end leaves the old one as it was. 0 or a negative errno.
 */
int stk_cache_take_place(struct stk_cache *c) STK_MUST_CHECK;
/* In a child: closes the descriptors, which only the master needs. */
void stk_cache_leave(struct stk_cache *c);
/* Its descriptors, which stay its own. */
struct stk_cache_fds stk_cache_fds(const struct stk_cache *c);

const char *stk_cache_name(const struct stk_cache *c);
/* *ret_dropped: entries of the store that were damaged. */
enum stk_cache_origin stk_cache_origin(const struct stk_cache *c, uint64_t *ret_dropped);
/* The longest value. */
uint64_t stk_cache_max(const struct stk_cache *c);
void stk_cache_stat(const struct stk_cache *c, struct stk_cache_stats *ret_stats);

/*
 * Looks for a key, without a lock. 0; STK_CACHE_E_MISSING (counted as a miss, if `count`);
 * STK_CACHE_E_BUSY: try again some times, then stk_cache_get.
 */
int stk_cache_find(const struct stk_cache *c, const void *key, size_t keylen, bool count,
                   struct stk_cache_found *ret_found) STK_MUST_CHECK;
/* Copies its value, found->len bytes. 0; STK_CACHE_E_BUSY: it has changed, find it again. */
int stk_cache_copy(const struct stk_cache *c, const struct stk_cache_found *found, void *ret_value)
    STK_MUST_CHECK;
/* Likewise, and waits for those who change it. free() the value. 0, STK_CACHE_E_MISSING, -ENOMEM.
 */
int stk_cache_get(const struct stk_cache *c, const void *key, size_t keylen, bool count,
                  void **ret_value, size_t *ret_len) STK_MUST_CHECK;

/*
 * Puts an entry; `expires` in seconds from now, 0: never, less: at once. 0, or STK_CACHE_E_*;
 * STK_CACHE_E_BUSY only without `wait`.
 */
int stk_cache_put(const struct stk_cache *c, const void *key, size_t keylen, const void *value,
                  size_t len, int64_t expires, enum stk_cache_how how, bool wait) STK_MUST_CHECK;
/*
 * Calculates with a value of 8 bytes, and wraps around; division by 0 gives 0. What is shorter or
 * longer is taken as its first 8 bytes. A new key begins with math_initial, and gets the expiry.
 * As stk_cache_put.
 */
int stk_cache_calculate(const struct stk_cache *c, const void *key, size_t keylen,
                        enum stk_cache_math op, int64_t operand, int64_t expires, bool wait)
    STK_MUST_CHECK;
/* 0, STK_CACHE_E_MISSING, STK_CACHE_E_BUSY. */
int stk_cache_del(const struct stk_cache *c, const void *key, size_t keylen, bool wait)
    STK_MUST_CHECK;
/* Waits. */
void stk_cache_clear(const struct stk_cache *c);
/*
 * All keys, as a length of 4 bytes and that many bytes each; waits. Free *ret_keys. The number, or
 * -ENOMEM.
 */
int64_t stk_cache_keys(const struct stk_cache *c, char **ret_keys, size_t *ret_len) STK_MUST_CHECK;

/*
 * Frees expired entries: looks at most at `budget` places from *hand on, and waits for nobody. The
 * number of entries freed; *hand is 0 behind a round, and when there is nothing to do.
 */
uint64_t stk_cache_sweep(const struct stk_cache *c, uint64_t *hand, uint64_t budget);
/*
 * Begins to write a store to the disk, every store_sync seconds; call it about once a second. True:
 * there is more to write, and it is to be called again soon.
 */
bool stk_cache_sync(struct stk_cache *c);
/* True at most every ten seconds in all processes together: somebody may say that it is full. */
bool stk_cache_say_full(const struct stk_cache *c);
