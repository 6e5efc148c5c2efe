/*
 * Free items and free blocks of a cache, which its shards have in common, so that a cache is full
 * when it is full and not when one of its parts is.
 *
 * The truth is in the items: their state, and which blocks they have. It is written before the
 * stack and the bitmap follow, and those are made anew from it after somebody has died with the
 * lock. An item that was taken and never got into a chain is found by whoever repairs its shard.
 */
#include "ipc/cache_priv.h"

#include <errno.h>

#include "base/assert.h"

enum { ALLOC_WORD = 64 };

/*
 * Always for a moment only: no value is copied under this lock. False: somebody has written over
 * it, which cannot be mended, and must not end the master.
 */
static bool alloc_lock(const struct stk_cache *c, bool wait)
{
    struct cache_alloc *a = &c->control->alloc;
    int r = wait ? pthread_mutex_lock(&a->lock) : pthread_mutex_trylock(&a->lock);

    if (r == EOWNERDEAD) {
        stk_cache_alloc_rebuild(c);
        r = pthread_mutex_consistent(&a->lock);
    }
    return r == 0;
}

static void alloc_unlock(const struct stk_cache *c)
{
    int r = pthread_mutex_unlock(&c->control->alloc.lock);

    STK_ASSERT(r == 0);
}

static bool alloc_is_used(const struct stk_cache *c, uint32_t block)
{
    return (c->bits[block / ALLOC_WORD] >> (block % ALLOC_WORD) & 1) != 0;
}

static void alloc_mark(const struct stk_cache *c, uint32_t first, uint32_t n, bool used)
{
    while (n > 0) {
        unsigned at = first % ALLOC_WORD;
        uint32_t now = ALLOC_WORD - at < n ? ALLOC_WORD - at : n;
        uint64_t mask = (now == ALLOC_WORD ? UINT64_MAX : (UINT64_C(1) << now) - 1) << at;

        if (used)
            c->bits[first / ALLOC_WORD] |= mask;
        else
            c->bits[first / ALLOC_WORD] &= ~mask;
        first += now;
        n -= now;
    }
}

/*
 * The first of `need` free blocks in a row within [from, to); `to`: there are none. Whole words
 * that are used or free are passed in one step.
 */
static uint32_t alloc_scan(const struct stk_cache *c, uint32_t from, uint32_t to, uint32_t need)
{
    uint32_t run = 0;

    for (uint32_t b = from; b < to;) {
        uint64_t rest = c->bits[b / ALLOC_WORD] >> (b % ALLOC_WORD);
        uint32_t left = ALLOC_WORD - b % ALLOC_WORD, n;

        if (left > to - b)
            left = to - b;
        if (rest & 1) {
            n = ~rest == 0 ? ALLOC_WORD : (uint32_t)__builtin_ctzll(~rest);
            run = 0;
            b += n < left ? n : left;
            continue;
        }
        n = rest == 0 ? ALLOC_WORD : (uint32_t)__builtin_ctzll(rest);
        n = n < left ? n : left;
        if (run + n >= need)
            return b - run;
        run += n;
        b += n;
    }
    return to;
}

/* Free blocks in a row, from where the last were found on. False: there are none. */
static bool alloc_find(const struct stk_cache *c, uint32_t need, uint32_t *ret_first)
{
    struct cache_alloc *a = &c->control->alloc;
    uint32_t hint = a->hint < c->blocks ? a->hint : 0;
    uint32_t first = alloc_scan(c, hint, c->blocks, need);

    if (first == c->blocks) {
        uint32_t end = hint + need < c->blocks ? hint + need : c->blocks;

        if (hint == 0 || (first = alloc_scan(c, 0, end, need)) == end)
            return false;
    }
    *ret_first = first;
    return true;
}

int stk_cache_take(const struct stk_cache *c, uint32_t shard, uint32_t nblocks, uint32_t *ret_item)
{
    struct cache_alloc *a = &c->control->alloc;
    uint32_t i, first;
    struct cache_item *item;

    if (!alloc_lock(c, true))
        return STK_CACHE_E_FULL;
    i = a->nfree > 0 ? c->stack[a->nfree - 1] : cache_load(&a->fresh);
    first = i;
    if (i >= c->items || (c->bitmap && !alloc_find(c, nblocks, &first))) {
        alloc_unlock(c);
        return STK_CACHE_E_FULL;
    }
    item = stk_cache_item(c, i);
    cache_store(&item->first, first);
    cache_store(&item->nblocks, nblocks);
    atomic_store_explicit(&item->state, stk_cache_word(CACHE_RESERVED, shard),
                          memory_order_release);
    if (a->nfree > 0)
        a->nfree--;
    else
        cache_store(&a->fresh, i + 1);
    if (c->bitmap) {
        alloc_mark(c, first, nblocks, true);
        a->hint = first + nblocks;
    }
    cache_store(&a->items, cache_load(&a->items) + 1);
    cache_store(&a->blocks, cache_load(&a->blocks) + nblocks);
    alloc_unlock(c);
    *ret_item = i;
    return 0;
}

bool stk_cache_alloc_try(const struct stk_cache *c)
{
    return alloc_lock(c, false);
}

void stk_cache_give(const struct stk_cache *c, uint32_t i, bool held)
{
    struct cache_alloc *a = &c->control->alloc;
    struct cache_item *item = stk_cache_item(c, i);
    uint32_t nblocks;

    if (!held && !alloc_lock(c, true))
        return;
    nblocks = cache_load(&item->nblocks);
    atomic_store_explicit(&item->state, CACHE_FREE, memory_order_release);
    if (c->bitmap)
        alloc_mark(c, cache_load(&item->first), nblocks, false);
    if (a->nfree < c->items)
        c->stack[a->nfree++] = i;
    cache_store(&a->items, cache_load(&a->items) - 1);
    cache_store(&a->blocks, cache_load(&a->blocks) - nblocks);
    alloc_unlock(c);
}

bool stk_cache_alloc_claim(const struct stk_cache *c, uint32_t first, uint32_t nblocks)
{
    if (!c->bitmap)
        return true;
    if (nblocks == 0 || first >= c->blocks || nblocks > c->blocks - first)
        return false;
    for (uint32_t b = first; b < first + nblocks; b++)
        if (alloc_is_used(c, b))
            return false;
    alloc_mark(c, first, nblocks, true);
    return true;
}

void stk_cache_alloc_rebuild(const struct stk_cache *c)
{
    struct cache_alloc *a = &c->control->alloc;
    uint32_t top = stk_cache_top(c);
    uint64_t blocks = 0;

    if (c->bitmap)
        memset(c->bits, 0, c->nbits * sizeof *c->bits);
    a->nfree = 0;
    cache_store(&a->fresh, top);
    a->hint = 0;
    for (uint32_t i = top; i-- > 0;) {
        const struct cache_item *item = stk_cache_item(c, i);

        if (stk_cache_state(cache_load(&item->state)) == CACHE_FREE) {
            c->stack[a->nfree++] = i;
            continue;
        }
        blocks += cache_load(&item->nblocks);
        if (c->bitmap)
            alloc_mark(c, cache_load(&item->first), cache_load(&item->nblocks), true);
    }
    cache_store(&a->items, top - a->nfree);
    cache_store(&a->blocks, blocks);
}
