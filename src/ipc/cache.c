/*
 * The cache: a hash table in parts, shards, that are changed under a lock each and read without
 * any.
 *
 * Readers follow a chain, note where the value is, copy it, and look at the shard's sequence number
 * before and after: if it has changed or is odd, what they have read may be of two entries, and
 * they begin again. They write nothing that others read, but for counters by CPU.
 *
 * Writers fill an item and blocks that nobody knows, and link them in while the number is odd: a
 * few stores, so that readers rarely meet them. A value is only written over where it is short, or
 * where there is no room for a second one. The locks are robust: when their owner dies, the next
 * one makes the shard whole (cache_repair.c). What is needed for that is the order of the stores
 * here, and that an item is RESERVED under a shard's number only while somebody has the lock of
 * that shard.
 *
 * Room is made (expired entries, the longest unused one) with no lock held, because the entry that
 * goes is in another shard as a rule.
 */
#include "ipc/cache_priv.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/mem.h"

enum {
    CACHE_SHORT = 256,      /* bytes that are written over in place */
    CACHE_STEPS = 512,      /* of a chain, for a reader without a lock */
    CACHE_ROOM_TRIES = 64,  /* entries that go for one that comes */
    CACHE_ROOM_SCAN = 4096, /* places that are looked at for expired ones */
    CACHE_EXACT = 1024,     /* items up to which the longest unused one is found for sure */
    CACHE_SAMPLE = 32,      /* of more, the longest unused of so many */
    CACHE_DRAWS = 256,      /* places that are looked at for these */
    CACHE_SAID_MS = 10000,
};

/* What somebody wants to put. */
struct cache_put {
    const char *key;
    size_t keylen;
    uint64_t hash;
    const char *value; /* NULL: calculates */
    size_t len;
    uint64_t expires; /* ms since 1970; 0: never */
    enum stk_cache_how how;
    enum stk_cache_math op;
    int64_t operand;
};

/* --- small things ------------------------------------------------------------------------------
 */

static struct cache_cell *cache_cell(const struct stk_cache *c)
{
    return &c->control->cells[(unsigned)sched_getcpu() % CACHE_CELLS];
}

static uint64_t cache_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * (uint64_t)STK_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static void cache_touch(const struct stk_cache *c, struct cache_item *item)
{
    if (c->purge_lru)
        cache_store(&item->used, cache_now_ns());
}

static void cache_modified(const struct stk_cache *c)
{
    if (c->last_modified)
        cache_store(&c->control->last_modified, stk_cache_now() / 1000);
}

static bool cache_is_over(const struct stk_cache *c, uint64_t expires)
{
    return expires != 0 && !c->no_expire && expires <= stk_cache_now();
}

/* The moment some seconds from now. */
static uint64_t cache_moment(int64_t expires)
{
    if (expires == 0)
        return 0;
    if (expires < 0)
        return 1;
    return expires > INT64_MAX / 2000 ? 0 : stk_cache_now() + (uint64_t)expires * 1000;
}

/* Notes that something expires then. */
static void cache_note_expiry(const struct stk_cache *c, uint64_t expires)
{
    uint64_t old = cache_load(&c->control->next_expiry);

    while (expires != 0 && expires < old &&
           !atomic_compare_exchange_weak_explicit(&c->control->next_expiry, &old, expires,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

static bool cache_is_key(const struct stk_cache *c, uint32_t i, const char *key, size_t keylen)
{
    const _Atomic uint64_t *w = (const _Atomic uint64_t *)(const void *)stk_cache_key(c, i);
    uint64_t v;

    for (; keylen >= 8; keylen -= 8, key += 8) {
        memcpy(&v, key, 8);
        if (cache_load(w++) != v)
            return false;
    }
    v = 0;
    memcpy(&v, key, keylen);
    return keylen == 0 || cache_load(w) == v;
}

/* --- locks -------------------------------------------------------------------------------------
 */

static int cache_lock(const struct stk_cache *c, uint32_t shard, bool wait)
{
    pthread_mutex_t *lock = &c->control->shards[shard].lock;
    int r = pthread_mutex_trylock(lock);

    if (r == EBUSY && wait)
        r = pthread_mutex_lock(lock);
    if (r == EBUSY)
        return STK_CACHE_E_BUSY;
    if (r == EOWNERDEAD) {
        stk_cache_repair(c, shard);
        r = pthread_mutex_consistent(lock);
    }
    return r == 0 ? 0 : STK_CACHE_E_BUSY;
}

static void cache_unlock(const struct stk_cache *c, uint32_t shard)
{
    int r = pthread_mutex_unlock(&c->control->shards[shard].lock);

    STK_ASSERT(r == 0);
}

/* From here to cache_settle readers of the shard begin again. */
static void cache_unsettle(const struct stk_cache *c, uint32_t shard)
{
    struct cache_shard *s = &c->control->shards[shard];

    cache_store(&s->seq, cache_load(&s->seq) + 1);
    atomic_thread_fence(memory_order_release);
}

static void cache_settle(const struct stk_cache *c, uint32_t shard)
{
    struct cache_shard *s = &c->control->shards[shard];

    atomic_store_explicit(&s->seq, cache_load(&s->seq) + 1, memory_order_release);
}

/* --- chains, with the lock of their shard ------------------------------------------------------
 */

/* The link that leads to a key's item, or the last one of the chain, which is 0. */
static _Atomic uint32_t *cache_walk(const struct stk_cache *c, const char *key, size_t keylen,
                                    uint64_t hash)
{
    _Atomic uint32_t *link = &c->buckets[stk_cache_bucket(c, hash)];

    for (uint32_t at; (at = cache_load(link)) != 0;) {
        struct cache_item *item = stk_cache_item(c, at - 1);

        if (cache_load(&item->hash) == hash && cache_load(&item->keylen) == keylen &&
            cache_is_key(c, at - 1, key, keylen))
            break;
        link = &item->next;
    }
    return link;
}

/* The link that leads to an item; NULL: it is in no chain. */
static _Atomic uint32_t *cache_walk_to(const struct stk_cache *c, uint32_t i)
{
    uint64_t hash = cache_load(&stk_cache_item(c, i)->hash);
    _Atomic uint32_t *link = &c->buckets[stk_cache_bucket(c, hash)];

    for (uint32_t at; (at = cache_load(link)) != 0; link = &stk_cache_item(c, at - 1)->next)
        if (at == i + 1)
            return link;
    return NULL;
}

/* Takes an item out of its chain and gives its place back; `held` as of stk_cache_give. */
static void cache_remove(const struct stk_cache *c, uint32_t shard, _Atomic uint32_t *link,
                         bool held)
{
    uint32_t i = cache_load(link) - 1;
    struct cache_item *item = stk_cache_item(c, i);

    cache_unsettle(c, shard);
    cache_store(link, cache_load(&item->next));
    atomic_store_explicit(&item->state, stk_cache_word(CACHE_RESERVED, shard),
                          memory_order_release);
    cache_settle(c, shard);
    stk_cache_give(c, i, held);
}

/* --- reading -----------------------------------------------------------------------------------
 */

/* The item of a key, without a lock; 0: there is none; UINT32_MAX: the chain changes. */
static uint32_t cache_look(const struct stk_cache *c, const char *key, size_t keylen, uint64_t hash)
{
    uint32_t at =
        atomic_load_explicit(&c->buckets[stk_cache_bucket(c, hash)], memory_order_acquire);

    for (unsigned steps = 0; at != 0; steps++) {
        const struct cache_item *item;

        if (at > c->items || steps == CACHE_STEPS)
            return UINT32_MAX;
        item = stk_cache_item(c, at - 1);
        if (cache_load(&item->hash) == hash && cache_load(&item->keylen) == keylen &&
            cache_is_key(c, at - 1, key, keylen))
            break;
        at = atomic_load_explicit(&item->next, memory_order_acquire);
    }
    return at;
}

static bool cache_is_settled(const struct stk_cache *c, uint32_t shard, uint32_t seq)
{
    atomic_thread_fence(memory_order_acquire);
    return cache_load(&c->control->shards[shard].seq) == seq;
}

int stk_cache_find(const struct stk_cache *c, const void *key, size_t keylen, bool count,
                   struct stk_cache_found *ret_found)
{
    uint64_t hash = stk_siphash(c->seed, key, keylen), expires = 0;
    uint32_t shard = stk_cache_shard(c, hash), at, nblocks = 1;
    struct stk_cache_found f = {.shard = shard};

    f.seq = atomic_load_explicit(&c->control->shards[shard].seq, memory_order_acquire);
    if (f.seq & 1)
        return STK_CACHE_E_BUSY;
    at = cache_look(c, key, keylen, hash);
    if (at == UINT32_MAX)
        return STK_CACHE_E_BUSY;
    if (at != 0) {
        const struct cache_item *item = stk_cache_item(c, at - 1);

        f.item = at - 1;
        f.len = cache_load(&item->len);
        f.first = cache_load(&item->first);
        nblocks = cache_load(&item->nblocks);
        expires = cache_load(&item->expires);
    }
    if (!cache_is_settled(c, shard, f.seq))
        return STK_CACHE_E_BUSY;
    if (at == 0 || cache_is_over(c, expires)) {
        if (count)
            atomic_fetch_add_explicit(&cache_cell(c)->miss, 1, memory_order_relaxed);
        return STK_CACHE_E_MISSING;
    }
    /* Nothing but a foreign hand in the memory can make this wrong, and it is cheap. */
    if (f.first >= c->blocks || nblocks > c->blocks - f.first || f.len > nblocks * c->stride)
        return STK_CACHE_E_MISSING;
    *ret_found = f;
    return 0;
}

int stk_cache_copy(const struct stk_cache *c, const struct stk_cache_found *found, void *ret_value)
{
    stk_cache_words_out(ret_value, stk_cache_block(c, found->first), found->len);
    if (!cache_is_settled(c, found->shard, found->seq))
        return STK_CACHE_E_BUSY;
    atomic_fetch_add_explicit(&cache_cell(c)->hits, 1, memory_order_relaxed);
    cache_touch(c, stk_cache_item(c, found->item));
    return 0;
}

int stk_cache_get(const struct stk_cache *c, const void *key, size_t keylen, bool count,
                  void **ret_value, size_t *ret_len)
{
    uint64_t hash = stk_siphash(c->seed, key, keylen);
    uint32_t shard = stk_cache_shard(c, hash), at;
    int r = cache_lock(c, shard, true);
    struct cache_item *item;

    if (r != 0)
        return r;
    at = cache_load(cache_walk(c, key, keylen, hash));
    item = at != 0 ? stk_cache_item(c, at - 1) : NULL;
    if (item == NULL || cache_is_over(c, cache_load(&item->expires))) {
        r = STK_CACHE_E_MISSING;
    } else {
        size_t len = (size_t)cache_load(&item->len);
        char *value = stk_try_alloc(len > 0 ? len : 1);

        r = value != NULL ? 0 : -ENOMEM;
        if (value != NULL) {
            stk_cache_words_out(value, stk_cache_block(c, cache_load(&item->first)), len);
            cache_touch(c, item);
            *ret_value = value;
            *ret_len = len;
        }
    }
    cache_unlock(c, shard);
    if (count && r >= 0)
        atomic_fetch_add_explicit(r == 0 ? &cache_cell(c)->hits : &cache_cell(c)->miss, 1,
                                  memory_order_relaxed);
    return r;
}

/* --- making room -------------------------------------------------------------------------------
 */

/* Removes an item if it is live still, and over if `expired`. True: it was removed. */
static bool cache_drop(const struct stk_cache *c, uint32_t i, bool expired, bool wait)
{
    struct cache_item *item = stk_cache_item(c, i);
    uint32_t word = atomic_load_explicit(&item->state, memory_order_acquire);
    uint32_t shard = word >> 2;
    _Atomic uint32_t *link;

    if (stk_cache_state(word) != CACHE_LIVE || shard >= c->nshards ||
        cache_lock(c, shard, wait) != 0)
        return false;
    link = cache_load(&item->state) == word &&
                   (!expired || cache_is_over(c, cache_load(&item->expires)))
               ? cache_walk_to(c, i)
               : NULL;
    if (link != NULL && !wait && !stk_cache_alloc_try(c))
        link = NULL;
    if (link != NULL)
        cache_remove(c, shard, link, !wait);
    cache_unlock(c, shard);
    return link != NULL;
}

/* Frees what has expired among some places; notes when the others will. */
static uint64_t cache_sweep_some(const struct stk_cache *c, uint32_t from, uint32_t to, bool wait)
{
    uint64_t now = stk_cache_now(), freed = 0;

    for (uint32_t i = from; i < to; i++) {
        const struct cache_item *item = stk_cache_item(c, i);
        uint64_t expires = cache_load(&item->expires);

        if (stk_cache_state(cache_load(&item->state)) != CACHE_LIVE || expires == 0)
            continue;
        if (expires <= now && cache_drop(c, i, true, wait))
            freed++;
        else
            cache_note_expiry(c, expires);
    }
    atomic_fetch_add_explicit(&c->control->expired, freed, memory_order_relaxed);
    return freed;
}

static uint64_t cache_random(const struct stk_cache *c)
{
    uint64_t x = cache_load(&c->control->chance) + UINT64_C(0x9e3779b97f4a7c15);

    cache_store(&c->control->chance, x); /* two who get the same do no harm */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/*
 * An item that has not been used for long; c->items: there is none. With `wait` the first one there
 * is where few places are in use, as with few long values, and chance finds none of them.
 */
static uint32_t cache_victim(const struct stk_cache *c, bool wait)
{
    uint32_t top = stk_cache_top(c), from = (uint32_t)(cache_random(c) % top), seen = 0;
    bool exact = top <= CACHE_EXACT;
    uint32_t found = c->items, tries = exact || wait ? top : CACHE_DRAWS;
    uint64_t oldest = UINT64_MAX;

    for (uint32_t n = 0; n < tries && (exact || n < CACHE_DRAWS || seen == 0); n++) {
        bool drawn = n < CACHE_DRAWS && !exact;
        uint32_t i = drawn ? (uint32_t)(cache_random(c) % top) : (from + n) % top;
        const struct cache_item *item = stk_cache_item(c, i);
        uint64_t used = cache_load(&item->used);

        if (stk_cache_state(cache_load(&item->state)) != CACHE_LIVE)
            continue;
        seen++;
        if (used < oldest) {
            oldest = used;
            found = i;
        }
        if (!exact && seen == CACHE_SAMPLE)
            break;
    }
    return found;
}

/* Makes room for something in a full cache. False: there is none to be made. */
static bool cache_make_room(const struct stk_cache *c, bool wait)
{
    uint32_t top = stk_cache_top(c), from = (uint32_t)(cache_random(c) % top), victim;
    uint32_t to = top - from > CACHE_ROOM_SCAN ? from + CACHE_ROOM_SCAN : top;

    if (!c->no_expire && (cache_load(&c->control->next_expiry) <= stk_cache_now() ||
                          cache_load(&c->control->sweeping))) {
        uint32_t rest = CACHE_ROOM_SCAN - (to - from);

        if (cache_sweep_some(c, from, to, wait) > 0 ||
            cache_sweep_some(c, 0, rest < from ? rest : from, wait) > 0)
            return true;
    }
    if (c->purge_lru) {
        victim = cache_victim(c, wait);
        if (victim == c->items)
            return false;
        if (!cache_drop(c, victim, false, wait))
            return wait; /* somebody else was there first, for room of his own */
        atomic_fetch_add_explicit(&c->control->full, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&c->control->evicted, 1, memory_order_relaxed);
        return true;
    }
    if (!c->clear_on_full)
        return false;
    stk_cache_clear(c);
    return true;
}

/* --- writing -----------------------------------------------------------------------------------
 */

static int64_t cache_divide(int64_t a, int64_t b)
{
    if (b == 0)
        return 0;
    return b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b; /* the least number has no counterpart */
}

static uint64_t cache_compute(const struct cache_put *p, int64_t old)
{
    uint64_t a = (uint64_t)old, b = (uint64_t)p->operand;

    switch (p->op) {
    case STK_CACHE_ADD:
        return a + b;
    case STK_CACHE_SUB:
        return a - b;
    case STK_CACHE_MUL:
        return a * b;
    case STK_CACHE_DIV:
        return (uint64_t)cache_divide(old, p->operand);
    }
    return a;
}

/* Writes value and expiry into an item that nobody reads. */
static void cache_fill_value(const struct stk_cache *c, uint32_t i, const struct cache_put *p)
{
    struct cache_item *item = stk_cache_item(c, i);
    uint64_t first = (uint64_t)c->math_initial;
    const char *value = p->value;

    if (value == NULL) {
        first = cache_compute(p, c->math_initial);
        value = (const char *)&first;
    }
    stk_cache_words_in(stk_cache_block(c, cache_load(&item->first)), value, p->len);
    cache_store(&item->len, p->len);
    cache_store(&item->expires, p->expires);
    if (c->stored)
        cache_store(&item->check, stk_cache_sum(c, p->hash, value, p->len));
    cache_touch(c, item);
}

/* Writes all of an entry into an item that is in no chain. */
static void cache_fill(const struct stk_cache *c, uint32_t i, const struct cache_put *p)
{
    struct cache_item *item = stk_cache_item(c, i);

    atomic_thread_fence(memory_order_release); /* against readers of what was here before */
    stk_cache_words_in(stk_cache_key(c, i), p->key, p->keylen);
    cache_store(&item->hash, p->hash);
    cache_store(&item->keylen, (uint32_t)p->keylen);
    cache_fill_value(c, i, p);
}

/* Puts a filled item into the chain, in the place of what the link leads to, if that is the key. */
static void cache_publish(const struct stk_cache *c, uint32_t shard, _Atomic uint32_t *link,
                          uint32_t i)
{
    struct cache_item *item = stk_cache_item(c, i);
    uint32_t old = cache_load(link);

    cache_unsettle(c, shard);
    cache_store(&item->next, old != 0 ? cache_load(&stk_cache_item(c, old - 1)->next) : 0);
    /* Both are there for a moment: who dies now leaves one of them. */
    atomic_store_explicit(&item->state, stk_cache_word(CACHE_LIVE, shard), memory_order_release);
    atomic_store_explicit(link, i + 1, memory_order_release);
    if (old != 0)
        atomic_store_explicit(&stk_cache_item(c, old - 1)->state,
                              stk_cache_word(CACHE_RESERVED, shard), memory_order_release);
    cache_settle(c, shard);
    if (old != 0)
        stk_cache_give(c, old - 1, false);
}

/*
 * Writes over a value: a short one, which takes no longer than exchanging items would, or any in a
 * cache without room for a second one. Who dies now loses the entry.
 */
static void cache_overwrite(const struct stk_cache *c, uint32_t shard, uint32_t i,
                            const struct cache_put *p)
{
    struct cache_item *item = stk_cache_item(c, i);

    cache_unsettle(c, shard);
    atomic_store_explicit(&item->state, stk_cache_word(CACHE_RESERVED, shard),
                          memory_order_release);
    atomic_thread_fence(memory_order_release);
    cache_fill_value(c, i, p);
    atomic_store_explicit(&item->state, stk_cache_word(CACHE_LIVE, shard), memory_order_release);
    cache_settle(c, shard);
}

/* Calculates with a value where it is: one store, which is whole or not there. */
static void cache_recompute(const struct stk_cache *c, uint32_t shard, uint32_t i,
                            const struct cache_put *p)
{
    struct cache_item *item = stk_cache_item(c, i);
    _Atomic uint64_t *word =
        (_Atomic uint64_t *)(void *)stk_cache_block(c, cache_load(&item->first));
    uint64_t result = cache_compute(p, (int64_t)cache_load(word));

    if (cache_load(&item->len) != p->len) { /* more than one store: a half is not to be left */
        struct cache_put whole = *p;

        whole.value = (const char *)&result;
        whole.expires = cache_load(&item->expires);
        cache_overwrite(c, shard, i, &whole);
        return;
    }
    cache_store(word, result);
    if (c->stored)
        cache_store(&item->check, stk_cache_sum(c, p->hash, (const char *)&result, p->len));
    cache_touch(c, item);
}

/* With the shard's lock. 0, STK_CACHE_E_EXISTS, STK_CACHE_E_FULL. */
static int cache_put_locked(const struct stk_cache *c, uint32_t shard, const struct cache_put *p)
{
    _Atomic uint32_t *link = cache_walk(c, p->key, p->keylen, p->hash);
    uint32_t old = cache_load(link), need = stk_cache_need(c, p->len), i;
    struct cache_item *item = old != 0 ? stk_cache_item(c, old - 1) : NULL;

    if (item != NULL && cache_is_over(c, cache_load(&item->expires))) {
        cache_remove(c, shard, link, false);
        link = cache_walk(c, p->key, p->keylen, p->hash);
        item = NULL;
        atomic_fetch_add_explicit(&c->control->expired, 1, memory_order_relaxed);
    }
    if (item != NULL && p->value != NULL && p->how == STK_CACHE_SET)
        return STK_CACHE_E_EXISTS;
    if (item != NULL && p->value == NULL) {
        if (need > cache_load(&item->nblocks))
            return STK_CACHE_E_FULL;
        cache_recompute(c, shard, old - 1, p);
        return 0;
    }
    if ((item == NULL || p->len > CACHE_SHORT || need != cache_load(&item->nblocks)) &&
        stk_cache_take(c, shard, need, &i) == 0) {
        cache_fill(c, i, p);
        cache_publish(c, shard, link, i);
        return 0;
    }
    if (item == NULL || need > cache_load(&item->nblocks))
        return STK_CACHE_E_FULL;
    cache_overwrite(c, shard, old - 1, p);
    return 0;
}

static int cache_put(const struct stk_cache *c, struct cache_put *p, bool wait)
{
    uint32_t shard;
    int r;

    if (p->keylen == 0 || p->keylen > c->keysize || p->len == 0 || p->len > c->max)
        return STK_CACHE_E_REFUSED;
    p->hash = stk_siphash(c->seed, p->key, p->keylen);
    shard = stk_cache_shard(c, p->hash);
    for (unsigned tries = 0;; tries++) {
        r = cache_lock(c, shard, wait);
        if (r != 0)
            return r;
        r = cache_put_locked(c, shard, p);
        cache_unlock(c, shard);
        if (r != STK_CACHE_E_FULL)
            break;
        if (!wait && !c->purge_lru)
            return STK_CACHE_E_BUSY;
        if (tries == CACHE_ROOM_TRIES || (!cache_make_room(c, wait) && tries > 0))
            break; /* not at once: somebody else may have made some meanwhile */
    }
    if (r == STK_CACHE_E_FULL && !wait)
        return STK_CACHE_E_BUSY;
    if (r == STK_CACHE_E_FULL)
        atomic_fetch_add_explicit(&c->control->full, 1, memory_order_relaxed);
    if (r != 0)
        return r;
    cache_note_expiry(c, p->expires); /* now that a sweep can meet it */
    cache_modified(c);
    return 0;
}

int stk_cache_put(const struct stk_cache *c, const void *key, size_t keylen, const void *value,
                  size_t len, int64_t expires, enum stk_cache_how how, bool wait)
{
    struct cache_put p = {
        .key = key,
        .keylen = keylen,
        .value = value,
        .len = len,
        .expires = cache_moment(expires),
        .how = how,
    };

    return cache_put(c, &p, wait);
}

int stk_cache_calculate(const struct stk_cache *c, const void *key, size_t keylen,
                        enum stk_cache_math op, int64_t operand, int64_t expires, bool wait)
{
    struct cache_put p = {
        .key = key,
        .keylen = keylen,
        .len = sizeof(int64_t),
        .expires = cache_moment(expires),
        .op = op,
        .operand = operand,
    };

    return cache_put(c, &p, wait);
}

int stk_cache_del(const struct stk_cache *c, const void *key, size_t keylen, bool wait)
{
    uint64_t hash = stk_siphash(c->seed, key, keylen);
    uint32_t shard = stk_cache_shard(c, hash), at;
    int r = cache_lock(c, shard, wait);
    _Atomic uint32_t *link;

    if (r != 0)
        return r;
    link = cache_walk(c, key, keylen, hash);
    at = cache_load(link);
    r = at == 0 || cache_is_over(c, cache_load(&stk_cache_item(c, at - 1)->expires))
            ? STK_CACHE_E_MISSING
            : 0;
    if (at != 0)
        cache_remove(c, shard, link, false);
    cache_unlock(c, shard);
    if (r == 0)
        cache_modified(c);
    return r;
}

void stk_cache_clear(const struct stk_cache *c)
{
    for (uint32_t shard = 0; shard < c->nshards; shard++) {
        if (cache_lock(c, shard, true) != 0)
            continue;
        for (uint32_t b = shard; b < c->nbuckets; b += c->nshards)
            while (cache_load(&c->buckets[b]) != 0)
                cache_remove(c, shard, &c->buckets[b], false);
        cache_unlock(c, shard);
    }
    cache_modified(c);
}

/* --- all entries -------------------------------------------------------------------------------
 */

/* Appends the keys of a shard. The number, or -ENOMEM. */
static int64_t cache_keys_of(const struct stk_cache *c, uint32_t shard, char **keys, size_t *len,
                             size_t *room)
{
    int64_t n = 0;

    for (uint32_t b = shard; b < c->nbuckets; b += c->nshards) {
        for (uint32_t at = cache_load(&c->buckets[b]); at != 0;
             at = cache_load(&stk_cache_item(c, at - 1)->next)) {
            const struct cache_item *item = stk_cache_item(c, at - 1);
            uint32_t keylen = cache_load(&item->keylen);

            if (cache_is_over(c, cache_load(&item->expires)))
                continue;
            if (*room - *len < sizeof keylen + keylen) {
                size_t more = *room * 2 + sizeof keylen + keylen + CACHE_PAGE;
                char *grown = stk_try_realloc(*keys, more);

                if (grown == NULL)
                    return -ENOMEM;
                *keys = grown;
                *room = more;
            }
            memcpy(*keys + *len, &keylen, sizeof keylen);
            stk_cache_words_out(*keys + *len + sizeof keylen, stk_cache_key(c, at - 1), keylen);
            *len += sizeof keylen + keylen;
            n++;
        }
    }
    return n;
}

int64_t stk_cache_keys(const struct stk_cache *c, char **ret_keys, size_t *ret_len)
{
    STK_CLEANUP(stk_mem_freep) char *keys = NULL;
    size_t len = 0, room = 0;
    int64_t n = 0;

    for (uint32_t shard = 0; shard < c->nshards; shard++) {
        int64_t some = 0;

        if (cache_lock(c, shard, true) != 0)
            continue;
        some = cache_keys_of(c, shard, &keys, &len, &room);
        cache_unlock(c, shard);
        if (some < 0)
            return some;
        n += some;
    }
    *ret_keys = stk_steal(&keys);
    *ret_len = len;
    return n;
}

uint64_t stk_cache_sweep(const struct stk_cache *c, uint64_t *hand, uint64_t budget)
{
    uint32_t from = (uint32_t)*hand, top = stk_cache_top(c), to;
    uint64_t freed;

    if (from >= top)
        from = 0;
    if (from == 0 && (c->no_expire || cache_load(&c->control->next_expiry) > stk_cache_now())) {
        *hand = 0;
        return 0;
    }
    cache_store(&c->control->sweeping, 1);
    if (from == 0) /* what is met, and what comes meanwhile, makes it earlier again */
        cache_store(&c->control->next_expiry, UINT64_MAX);
    to = top - from > budget ? from + (uint32_t)budget : top;
    freed = cache_sweep_some(c, from, to, false);
    *hand = to < top ? to : 0;
    cache_store(&c->control->sweeping, *hand != 0);
    return freed;
}

void stk_cache_stat(const struct stk_cache *c, struct stk_cache_stats *ret_stats)
{
    const struct cache_control *k = c->control;

    *ret_stats = (struct stk_cache_stats){
        .name = c->name,
        .hash = "siphash",
        .buckets = c->nbuckets,
        .keysize = c->keysize,
        .max_items = c->items,
        .blocks = c->blocks,
        .blocksize = c->blocksize,
        .items = cache_load(&k->alloc.items),
        .blocks_used = cache_load(&k->alloc.blocks),
        .full = cache_load(&k->full),
        .evicted = cache_load(&k->evicted),
        .expired = cache_load(&k->expired),
        .last_modified = cache_load(&k->last_modified),
        .size = c->control_size + c->store_size,
    };
    for (unsigned i = 0; i < CACHE_CELLS; i++) {
        ret_stats->hits += cache_load(&k->cells[i].hits);
        ret_stats->miss += cache_load(&k->cells[i].miss);
    }
}

bool stk_cache_say_full(const struct stk_cache *c)
{
    uint64_t now = stk_cache_now(), said = cache_load(&c->control->said_full);

    return !c->ignore_full && now - said >= CACHE_SAID_MS &&
           atomic_compare_exchange_strong_explicit(&c->control->said_full, &said, now,
                                                   memory_order_relaxed, memory_order_relaxed);
}
