/*
 * After a death, and after a restart.
 *
 * A process may die between any two instructions of a change. Changes are made in an order in which
 * the items tell at each point what is whole: an entry is LIVE when all of it is there, and what is
 * RESERVED under a shard's number while nobody has that shard's lock belongs to nobody. The chains
 * are therefore made anew from the items. The one thing that can be there twice is a key whose
 * value was just being replaced: both are whole, and one of them stays.
 *
 * A store has been written to the disk in any order when the machine stops, so that there nothing
 * is believed: each entry has a sum of its key and its value.
 */
#include "ipc/cache_priv.h"

static void repair_free(const struct stk_cache *c, uint32_t i)
{
    struct cache_item *item = stk_cache_item(c, i);

    cache_store(&item->next, 0);
    stk_cache_give(c, i, false);
}

/* Whether a chain has the key of an item. */
static bool repair_is_there(const struct stk_cache *c, uint32_t bucket, uint32_t i)
{
    const struct cache_item *item = stk_cache_item(c, i);

    for (uint32_t at = cache_load(&c->buckets[bucket]); at != 0;) {
        const struct cache_item *other = stk_cache_item(c, at - 1);

        if (cache_load(&other->hash) == cache_load(&item->hash) &&
            cache_load(&other->keylen) == cache_load(&item->keylen) &&
            memcmp(stk_cache_key(c, at - 1), stk_cache_key(c, i), cache_load(&item->keylen)) == 0)
            return true;
        at = cache_load(&other->next);
    }
    return false;
}

static void repair_link(const struct stk_cache *c, uint32_t bucket, uint32_t i)
{
    cache_store(&stk_cache_item(c, i)->next, cache_load(&c->buckets[bucket]));
    atomic_store_explicit(&c->buckets[bucket], i + 1, memory_order_release);
}

void stk_cache_repair(const struct stk_cache *c, uint32_t shard)
{
    struct cache_shard *s = &c->control->shards[shard];
    uint32_t seq = cache_load(&s->seq) | 1, top = stk_cache_top(c);

    cache_store(&s->seq, seq);
    atomic_thread_fence(memory_order_release);
    for (uint32_t b = shard; b < c->nbuckets; b += c->nshards)
        cache_store(&c->buckets[b], 0);
    for (uint32_t i = 0; i < top; i++) {
        const struct cache_item *item = stk_cache_item(c, i);
        uint32_t word = atomic_load_explicit(&item->state, memory_order_acquire);
        uint32_t bucket = stk_cache_bucket(c, cache_load(&item->hash));

        if (word == stk_cache_word(CACHE_RESERVED, shard) ||
            (word == stk_cache_word(CACHE_LIVE, shard) && repair_is_there(c, bucket, i)))
            repair_free(c, i);
        else if (word == stk_cache_word(CACHE_LIVE, shard))
            repair_link(c, bucket, i);
    }
    atomic_store_explicit(&s->seq, seq + 1, memory_order_release);
}

uint64_t stk_cache_sum(const struct stk_cache *c, uint64_t hash, const char *value, uint64_t len)
{
    const uint64_t key[2] = {c->seed[0] ^ hash, c->seed[1] ^ len};

    return stk_siphash(key, value, len);
}

/* Whether an item of a store is an entry, and can be one here. */
static bool repair_is_sound(const struct stk_cache *c, uint32_t i)
{
    const struct cache_item *item = stk_cache_item(c, i);
    uint32_t keylen = cache_load(&item->keylen), first = cache_load(&item->first);
    uint64_t len = cache_load(&item->len), hash = cache_load(&item->hash);

    if (keylen == 0 || keylen > c->keysize || len == 0 || len > c->max ||
        cache_load(&item->nblocks) < stk_cache_need(c, len) ||
        cache_load(&item->nblocks) > c->blocks)
        return false;
    if (!c->bitmap && (first != i || cache_load(&item->nblocks) != 1))
        return false;
    if (c->bitmap && (first >= c->blocks || cache_load(&item->nblocks) > c->blocks - first))
        return false;
    return stk_siphash(c->seed, stk_cache_key(c, i), keylen) == hash &&
           stk_cache_sum(c, hash, stk_cache_block(c, first), len) == cache_load(&item->check);
}

uint64_t stk_cache_restore(const struct stk_cache *c)
{
    uint64_t dropped = 0;

    for (uint32_t i = 0; i < c->items; i++) {
        struct cache_item *item = stk_cache_item(c, i);
        uint32_t bucket = stk_cache_bucket(c, cache_load(&item->hash));
        bool live = stk_cache_state(cache_load(&item->state)) == CACHE_LIVE;

        cache_store(&item->next, 0);
        if (live && repair_is_sound(c, i) && !repair_is_there(c, bucket, i) &&
            stk_cache_alloc_claim(c, cache_load(&item->first), cache_load(&item->nblocks))) {
            cache_store(&item->state,
                        stk_cache_word(CACHE_LIVE, stk_cache_shard(c, cache_load(&item->hash))));
            repair_link(c, bucket, i);
            continue;
        }
        dropped += live;
        if (cache_load(&item->state) != CACHE_FREE)
            cache_store(&item->state, CACHE_FREE);
    }
    cache_store(&c->control->alloc.fresh, c->items);
    stk_cache_alloc_rebuild(c);
    return dropped;
}
