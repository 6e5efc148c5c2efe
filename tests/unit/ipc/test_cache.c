/*
 * The cache in shared memory: what uWSGI's functions promise, what a death in the midst of a change
 * leaves, and what comes out of stores. Values tell by themselves whether they are whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "ipc/cache.h"
#include "ipc/cache_priv.h"

static struct stk_cache *new_cache(struct stk_cache_params p)
{
    struct stk_cache *c = NULL;
    char *error = NULL;

    p.name = p.name != NULL ? p.name : "test";
    p.blocksize = p.blocksize != 0 ? p.blocksize : 64;
    p.keysize = p.keysize != 0 ? p.keysize : 32;
    if (stk_cache_check(&p, &error) != 0 || stk_cache_new(&p, NULL, 0, &c, &error) != 0)
        fail_msg("%s", error);
    return c;
}

static int put(const struct stk_cache *c, const char *key, const char *value)
{
    return stk_cache_put(c, key, strlen(key), value, strlen(value), 0, STK_CACHE_UPDATE, true);
}

static int set(const struct stk_cache *c, const char *key, const char *value)
{
    return stk_cache_put(c, key, strlen(key), value, strlen(value), 0, STK_CACHE_SET, true);
}

/* The value, as a text, from both ways of reading; NULL: none. */
static const char *get(const struct stk_cache *c, const char *key)
{
    static char text[4096];
    struct stk_cache_found found;
    void *value = NULL;
    size_t len = 0;
    int r = stk_cache_find(c, key, strlen(key), true, &found);

    assert_int_equal(stk_cache_get(c, key, strlen(key), false, &value, &len), r);
    if (r != 0)
        return NULL;
    assert_int_equal(found.len, len);
    assert_true(len < sizeof text);
    assert_int_equal(stk_cache_copy(c, &found, text), 0);
    assert_memory_equal(text, value, len);
    free(value);
    text[len] = '\0';
    return text;
}

static uint64_t items(const struct stk_cache *c)
{
    struct stk_cache_stats st;

    stk_cache_stat(c, &st);
    return st.items;
}

static void test_entries(void **state)
{
    struct stk_cache *c = new_cache((struct stk_cache_params){.items = 100});
    struct stk_cache_stats st;

    assert_null(get(c, "a"));
    assert_int_equal(set(c, "a", "one"), 0);
    assert_string_equal(get(c, "a"), "one");
    assert_int_equal(set(c, "a", "two"), STK_CACHE_E_EXISTS);
    assert_int_equal(put(c, "a", "three, which is longer than a word"), 0);
    assert_string_equal(get(c, "a"), "three, which is longer than a word");
    assert_int_equal(stk_cache_del(c, "a", 1, true), 0);
    assert_int_equal(stk_cache_del(c, "a", 1, true), STK_CACHE_E_MISSING);
    assert_null(get(c, "a"));
    stk_cache_stat(c, &st);
    assert_int_equal(st.hits, 2);
    assert_int_equal(st.miss, 2);
    assert_int_equal(st.items, 0);
    assert_int_equal(st.blocks_used, 0);
    stk_cache_free(c);
}

static void test_limits(void **state)
{
    struct stk_cache *c =
        new_cache((struct stk_cache_params){.items = 3, .blocksize = 10, .keysize = 4});

    assert_int_equal(put(c, "", "x"), STK_CACHE_E_REFUSED);
    assert_int_equal(put(c, "k", ""), STK_CACHE_E_REFUSED);
    assert_int_equal(put(c, "k", "0123456789"), 0);
    assert_int_equal(put(c, "l", "0123456789a"), STK_CACHE_E_REFUSED);
    assert_int_equal(put(c, "keys", "x"), 0);
    assert_int_equal(put(c, "keys+", "x"), STK_CACHE_E_REFUSED);
    assert_int_equal(put(c, "3", "third"), 0);
    assert_int_equal(put(c, "4", "fourth"), STK_CACHE_E_FULL);
    assert_int_equal(stk_cache_put(c, "4", 1, "x", 1, 0, STK_CACHE_UPDATE, false),
                     STK_CACHE_E_BUSY);
    assert_int_equal(put(c, "3", "again"), 0); /* there is no room for a second one */
    assert_string_equal(get(c, "3"), "again");
    assert_int_equal(stk_cache_del(c, "k", 1, true), 0);
    assert_int_equal(put(c, "4", "fourth"), 0);
    stk_cache_clear(c);
    assert_int_equal(items(c), 0);
    assert_null(get(c, "4"));
    stk_cache_free(c);
}

static void test_parameters(void **state)
{
    static const struct stk_cache_params bad[] = {
        {.name = "", .items = 1, .blocksize = 1, .keysize = 1},
        {.name = "a b", .items = 1, .blocksize = 1, .keysize = 1},
        {.name = "x", .items = 0, .blocksize = 1, .keysize = 1},
        {.name = "x", .items = UINT64_MAX, .blocksize = 1, .keysize = 1},
        {.name = "x", .items = 1, .blocksize = 0, .keysize = 1},
        {.name = "x", .items = 1, .blocksize = UINT64_MAX, .keysize = 1},
        {.name = "x", .items = 1 << 20, .blocksize = UINT64_C(1) << 40, .keysize = 1},
        {.name = "x", .items = 1, .blocksize = 1, .keysize = 0},
        {.name = "x", .items = 1, .blocksize = 1, .keysize = 65535},
        {.name = "x", .items = 10, .blocks = 9, .blocksize = 1, .keysize = 1},
        {.name = "x", .items = 10, .blocks = UINT64_MAX, .blocksize = 1, .keysize = 1},
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(bad); i++) {
        struct stk_cache_params p = bad[i];
        char *error = NULL;

        assert_true(stk_cache_check(&p, &error) < 0);
        assert_non_null(error);
        free(error);
    }
}

static void test_bitmap(void **state)
{
    struct stk_cache *c = new_cache((struct stk_cache_params){
        .items = 10, .blocks = 20, .blocksize = 10, .bitmap = true, .keysize = 8});
    char big[201];
    struct stk_cache_stats st;

    memset(big, 'x', 200);
    big[200] = '\0';
    assert_int_equal(put(c, "big", big), 0);
    assert_string_equal(get(c, "big"), big);
    assert_int_equal(put(c, "more", "y"), STK_CACHE_E_FULL);
    assert_int_equal(put(c, "big", "small"), 0); /* over the old one: it has all blocks */
    stk_cache_clear(c);
    for (int i = 0; i < 5; i++) {
        char key[4] = {(char)('a' + i)};

        big[30] = '\0';
        assert_int_equal(put(c, key, big), 0);
    }
    assert_int_equal(stk_cache_del(c, "b", 1, true), 0);
    assert_int_equal(stk_cache_del(c, "d", 1, true), 0);
    memset(big, 'z', 60);
    big[60] = '\0';
    assert_int_equal(put(c, "six", big), STK_CACHE_E_FULL); /* 11 are free, 5 at most in a row */
    big[50] = '\0';
    assert_int_equal(put(c, "five", big), 0);
    assert_string_equal(get(c, "five"), big);
    stk_cache_stat(c, &st);
    assert_int_equal(st.blocks_used, 14);
    stk_cache_free(c);
}

static int64_t number(const struct stk_cache *c, const char *key)
{
    struct stk_cache_found found;
    int64_t n;

    assert_int_equal(stk_cache_find(c, key, strlen(key), false, &found), 0);
    assert_int_equal(found.len, 8);
    assert_int_equal(stk_cache_copy(c, &found, &n), 0);
    return n;
}

static void test_numbers(void **state)
{
    struct stk_cache *c = new_cache((struct stk_cache_params){.items = 10, .math_initial = 5});

    assert_int_equal(stk_cache_calculate(c, "n", 1, STK_CACHE_ADD, 2, 0, true), 0);
    assert_int_equal(number(c, "n"), 7);
    assert_int_equal(stk_cache_calculate(c, "n", 1, STK_CACHE_MUL, 6, 0, true), 0);
    assert_int_equal(stk_cache_calculate(c, "n", 1, STK_CACHE_SUB, 2, 0, true), 0);
    assert_int_equal(stk_cache_calculate(c, "n", 1, STK_CACHE_DIV, 4, 0, true), 0);
    assert_int_equal(number(c, "n"), 10);
    assert_int_equal(stk_cache_calculate(c, "n", 1, STK_CACHE_DIV, 0, 0, true), 0);
    assert_int_equal(number(c, "n"), 0);
    assert_int_equal(stk_cache_calculate(c, "n", 1, STK_CACHE_ADD, INT64_MIN, 0, true), 0);
    assert_int_equal(stk_cache_calculate(c, "n", 1, STK_CACHE_DIV, -1, 0, true), 0);
    assert_true(number(c, "n") == INT64_MIN);
    assert_int_equal(put(c, "t", "a text that is longer"), 0);
    assert_int_equal(stk_cache_calculate(c, "t", 1, STK_CACHE_MUL, 0, 0, true), 0);
    assert_int_equal(number(c, "t"), 0);
    stk_cache_free(c);
}

static void set_expiry(const struct stk_cache *c, const char *key, int64_t expires)
{
    assert_int_equal(stk_cache_put(c, key, strlen(key), "v", 1, expires, STK_CACHE_UPDATE, true),
                     0);
}

static void test_expiry(void **state)
{
    struct stk_cache *c = new_cache((struct stk_cache_params){.items = 4});
    struct stk_cache *never = new_cache((struct stk_cache_params){.items = 4, .no_expire = true});
    uint64_t hand = 0;

    set_expiry(c, "later", 1000);
    set_expiry(c, "past", -1);
    set_expiry(never, "past", -1);
    assert_null(get(c, "past"));
    assert_non_null(get(never, "past"));
    assert_non_null(get(c, "later"));
    assert_int_equal(items(c), 2);
    assert_int_equal(stk_cache_sweep(c, &hand, 100), 1);
    assert_int_equal(stk_cache_sweep(never, &hand, 100), 0);
    assert_int_equal(items(c), 1);
    set_expiry(c, "past", -1);
    assert_int_equal(set(c, "past", "again"), 0); /* what is over does not exist */
    assert_string_equal(get(c, "past"), "again");
    set_expiry(c, "1", -1);
    set_expiry(c, "2", -1);
    assert_int_equal(items(c), 4);
    assert_int_equal(put(c, "new", "x"), 0); /* a full cache frees what is over */
    assert_in_range(items(c), 3, 4);
    set_expiry(c, "far", INT64_MAX);
    assert_non_null(get(c, "far"));
    stk_cache_free(c);
    stk_cache_free(never);
}

static void test_lru(void **state)
{
    struct stk_cache *c = new_cache((struct stk_cache_params){.items = 3, .purge_lru = true});
    struct stk_cache *clear =
        new_cache((struct stk_cache_params){.items = 2, .clear_on_full = true});
    struct stk_cache_stats st;

    assert_int_equal(put(c, "a", "1") + put(c, "b", "2") + put(c, "c", "3"), 0);
    assert_non_null(get(c, "a"));
    assert_int_equal(put(c, "d", "4"), 0);
    assert_null(get(c, "b"));
    assert_non_null(get(c, "a"));
    assert_non_null(get(c, "c"));
    assert_int_equal(put(c, "e", "5"), 0);
    assert_null(get(c, "d"));
    stk_cache_stat(c, &st);
    assert_int_equal(st.evicted, 2);
    assert_int_equal(st.items, 3);
    assert_int_equal(put(clear, "a", "1") + put(clear, "b", "2") + put(clear, "c", "3"), 0);
    assert_int_equal(items(clear), 1);
    stk_cache_free(c);
    stk_cache_free(clear);
}

static void test_keys(void **state)
{
    struct stk_cache *c = new_cache((struct stk_cache_params){.items = 1000});
    char key[16], *keys = NULL;
    size_t len = 0, n = 0;
    bool seen[500] = {false};

    for (int i = 0; i < 500; i++) {
        (void)snprintf(key, sizeof key, "key%d", i);
        assert_int_equal(put(c, key, "v"), 0);
    }
    assert_int_equal(stk_cache_keys(c, &keys, &len), 500);
    for (size_t at = 0; at < len; n++) {
        uint32_t keylen;
        long i;

        memcpy(&keylen, keys + at, sizeof keylen);
        memcpy(key, keys + at + sizeof keylen, keylen);
        key[keylen] = '\0';
        i = strtol(key + 3, NULL, 10);
        assert_in_range(i, 0, 499);
        assert_false(seen[i]);
        seen[i] = true;
        at += sizeof keylen + keylen;
    }
    assert_int_equal(n, 500);
    free(keys);
    stk_cache_free(c);
}

/* --- many at once ------------------------------------------------------------------------------
 */

enum { MANY_KEYS = 40, MANY_VALUE = 700 };

/* A value of a length and bytes that belong together; its length. */
static size_t many_value(char value[MANY_VALUE], unsigned seed)
{
    size_t len = 16 + seed % (MANY_VALUE - 16);

    memset(value, 'a' + (int)(seed % 26), len);
    memcpy(value, &seed, sizeof seed);
    return len;
}

static void many_check(const char *value, size_t len)
{
    char whole[MANY_VALUE];
    unsigned seed;

    memcpy(&seed, value, sizeof seed);
    if (many_value(whole, seed) != len || memcmp(whole, value, len) != 0)
        abort();
}

static void many_step(const struct stk_cache *c, unsigned n)
{
    char key[24], value[MANY_VALUE];
    struct stk_cache_found found;
    int keylen = snprintf(key, sizeof key, "a key, number %u", n * 7 % MANY_KEYS);
    void *read = NULL;
    size_t len;
    int r;

    switch (n % 8) {
    case 0:
    case 1:
        len = many_value(value, n);
        r = stk_cache_put(c, key, (size_t)keylen, value, len, n % 5 == 0 ? 1 : 0, STK_CACHE_UPDATE,
                          n % 3 == 0);
        break;
    case 2:
        r = stk_cache_del(c, key, (size_t)keylen, true);
        break;
    case 3:
        r = stk_cache_calculate(c, "counter", 7, STK_CACHE_ADD, 1, 0, true);
        break;
    case 4:
        r = stk_cache_get(c, key, (size_t)keylen, true, &read, &len);
        if (r == 0)
            many_check(read, len);
        free(read);
        break;
    default:
        r = stk_cache_find(c, key, (size_t)keylen, true, &found);
        if (r == 0 && found.len <= sizeof value && stk_cache_copy(c, &found, value) == 0)
            many_check(value, found.len);
        break;
    }
    if (r < 0)
        abort();
}

static void *many_thread(void *arg)
{
    for (unsigned n = 1; n < 20000; n++)
        many_step(arg, n * 2654435761u);
    return NULL;
}

static struct stk_cache *many_cache(unsigned kind)
{
    return new_cache((struct stk_cache_params){
        .items = kind == 1 ? 30 : 64,
        .blocks = kind == 2 ? 400 : 0,
        .blocksize = kind == 2 ? 32 : MANY_VALUE,
        .bitmap = kind == 2,
        .purge_lru = kind == 1,
    });
}

/* What must be true when nobody is there: everything is in its place, and nothing twice. */
static void many_settle(struct stk_cache *c)
{
    struct stk_cache_stats before, after;
    char *keys = NULL;
    size_t len = 0;

    /* Whoever died with a lock is found by the next one: of a shard, and of the allocator. */
    assert_true(stk_cache_keys(c, &keys, &len) >= 0);
    free(stk_steal(&keys));
    if (put(c, "the next one", "v") == 0)
        assert_int_equal(stk_cache_del(c, "the next one", 12, true), 0);
    stk_cache_stat(c, &before);
    assert_true(stk_cache_keys(c, &keys, &len) <= (int64_t)before.items);
    free(keys);
    stk_cache_alloc_rebuild(c);
    stk_cache_stat(c, &after);
    assert_int_equal(before.items, after.items);
    assert_int_equal(before.blocks_used, after.blocks_used);
    for (unsigned i = 0; i < MANY_KEYS; i++) {
        char key[24];
        void *value = NULL;

        (void)snprintf(key, sizeof key, "a key, number %u", i);
        if (stk_cache_get(c, key, strlen(key), false, &value, &len) == 0)
            many_check(value, len);
        free(value);
    }
    stk_cache_clear(c);
    assert_int_equal(items(c), 0);
    stk_cache_stat(c, &after);
    assert_int_equal(after.blocks_used, 0);
}

static void test_threads(void **state)
{
    for (unsigned kind = 0; kind < 3; kind++) {
        struct stk_cache *c = many_cache(kind);
        pthread_t threads[4];

        for (unsigned i = 0; i < STK_ARRAY_LEN(threads); i++)
            assert_int_equal(pthread_create(&threads[i], NULL, many_thread, c), 0);
        for (unsigned i = 0; i < STK_ARRAY_LEN(threads); i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        many_settle(c);
        stk_cache_free(c);
    }
}

/* Puts entries that nobody else has, and counts those that found no room. */
struct crowd {
    const struct stk_cache *c;
    unsigned number;
    int64_t expires;
    unsigned refused;
};

static void *crowd_thread(void *arg)
{
    struct crowd *crowd = arg;
    char key[24];

    for (unsigned n = 0; n < 5000; n++) {
        int len = snprintf(key, sizeof key, "%u of %u", n, crowd->number);

        if (stk_cache_put(crowd->c, key, (size_t)len, "v", 1, crowd->expires, STK_CACHE_SET,
                          n % 2 == 0) == STK_CACHE_E_FULL)
            crowd->refused++;
    }
    return NULL;
}

/* Room that can be made is made, also where others make it at the same time. */
static void test_room_for_all(void **state)
{
    for (int lru = 0; lru < 2; lru++) {
        struct stk_cache *c =
            new_cache((struct stk_cache_params){.items = 8, .purge_lru = lru != 0});
        struct crowd crowds[4];
        pthread_t threads[4];

        for (unsigned i = 0; i < STK_ARRAY_LEN(threads); i++) {
            crowds[i] = (struct crowd){.c = c, .number = i, .expires = lru != 0 ? 0 : -1};
            assert_int_equal(pthread_create(&threads[i], NULL, crowd_thread, &crowds[i]), 0);
        }
        for (unsigned i = 0; i < STK_ARRAY_LEN(threads); i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
            assert_int_equal(crowds[i].refused, 0);
        }
        stk_cache_free(c);
    }
}

/* Few long values in a large table: what can go is found nevertheless. */
static void test_lru_of_few(void **state)
{
    enum { ITEMS = 20000, BLOCKS = 2000, BLOCK = 16 };
    struct stk_cache *c = new_cache((struct stk_cache_params){
        .items = ITEMS, .blocks = ITEMS, .blocksize = BLOCK, .bitmap = true, .purge_lru = true});
    char *value = calloc(BLOCKS, BLOCK), key[16];

    assert_non_null(value);
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 40; i++) {
            (void)snprintf(key, sizeof key, "long %u", i);
            assert_int_equal(stk_cache_put(c, key, strlen(key), value, (size_t)BLOCKS * BLOCK, 0,
                                           STK_CACHE_UPDATE, true),
                             0);
        }
        stk_cache_clear(c);
        for (unsigned i = 0; round == 0 && i < ITEMS; i++) { /* and all places have been used */
            (void)snprintf(key, sizeof key, "short %u", i);
            assert_int_equal(put(c, key, "v"), 0);
        }
        stk_cache_clear(c);
    }
    free(value);
    stk_cache_free(c);
}

/* Forks somebody who changes things until he is killed. */
static pid_t kill_start(const struct stk_cache *c, unsigned seed)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid != 0)
        return pid;
    signal(SIGABRT, SIG_DFL);
    for (unsigned n = seed;; n++)
        many_step(c, n * 2654435761u);
}

static void test_kill(void **state)
{
    enum { KILLS = 120, PEERS = 3 };
    uint64_t repaired = 0;

    for (unsigned kind = 0; kind < 3; kind++) {
        struct stk_cache *c = many_cache(kind);
        pid_t pids[PEERS];

        for (unsigned i = 0; i < PEERS; i++)
            pids[i] = kill_start(c, i * 1000);
        for (unsigned n = 0; n < KILLS; n++) {
            const struct timespec pause = {.tv_nsec = 300000 + (long)(n * 7919 % 500000)};
            unsigned i = n % PEERS;
            int status = 0;

            nanosleep(&pause, NULL);
            assert_int_equal(kill(pids[i], SIGKILL), 0);
            assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
            assert_true(WIFSIGNALED(status));
            assert_int_equal(WTERMSIG(status), SIGKILL); /* and not by abort() of a check */
            for (unsigned s = 0; s < c->nshards; s++)
                repaired += (c->control->shards[s].seq & 1) != 0;
            pids[i] = kill_start(c, n * 100000);
        }
        for (unsigned i = 0; i < PEERS; i++) {
            int status = 0;

            assert_int_equal(kill(pids[i], SIGKILL), 0);
            assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
            assert_int_equal(WTERMSIG(status), SIGKILL);
        }
        many_settle(c);
        stk_cache_free(c);
    }
    print_message("shards that were open when somebody had died: %llu\n",
                  (unsigned long long)repaired);
}

/* Each point of a change, one after the other: what a death there leaves, made by hand. */
static void test_halves(void **state)
{
    struct stk_cache *c = new_cache((struct stk_cache_params){.items = 8, .blocksize = 32});
    uint32_t shard, item;
    pid_t pid;
    int status;

    assert_int_equal(put(c, "whole", "whole"), 0);
    for (int step = 0; step < 6; step++) {
        pid = fork();
        if (pid == 0) {
            uint64_t hash = stk_siphash(c->seed, "half", 4);

            shard = stk_cache_shard(c, hash);
            if (pthread_mutex_lock(&c->control->shards[shard].lock) != 0)
                abort();
            if (step > 0 && stk_cache_take(c, shard, 1, &item) != 0)
                abort();
            if (step > 1) {
                stk_cache_words_in(stk_cache_key(c, item), "half", 4);
                cache_store(&stk_cache_item(c, item)->hash, hash);
                cache_store(&stk_cache_item(c, item)->keylen, 4);
                cache_store(&stk_cache_item(c, item)->len, 32);
            }
            if (step > 2)
                c->control->shards[shard].seq++;
            if (step > 3)
                c->buckets[stk_cache_bucket(c, hash)] = item + 1; /* the chain loses the others */
            if (step > 4 && pthread_mutex_lock(&c->control->alloc.lock) != 0)
                abort();
            kill(getpid(), SIGKILL);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(WTERMSIG(status), SIGKILL);
        assert_int_equal(put(c, "half", "other"), 0);
        assert_string_equal(get(c, "half"), "other");
        assert_string_equal(get(c, "whole"), "whole");
        assert_int_equal(stk_cache_del(c, "half", 4, true), 0);
        assert_int_equal(items(c), 1);
    }
    stk_cache_free(c);
}

/* --- stores ------------------------------------------------------------------------------------
 */

static char *store_path(void)
{
    const char *dir = getenv("TMPDIR");

    return stk_mem_printf("%s/test_cache.%d", dir != NULL ? dir : "/tmp", (int)getpid());
}

static enum stk_cache_origin origin(const struct stk_cache *c)
{
    uint64_t dropped;

    return stk_cache_origin(c, &dropped);
}

static void test_store(void **state)
{
    STK_CLEANUP(stk_mem_freep) char *path = store_path();
    struct stk_cache_params p = {.name = "s",
                                 .store = path,
                                 .items = 20,
                                 .blocks = 50,
                                 .blocksize = 16,
                                 .keysize = 16,
                                 .bitmap = true};
    struct stk_cache *c = new_cache(p), *other = NULL;
    char *error = NULL;
    uint64_t dropped;
    FILE *f;

    assert_int_equal(origin(c), STK_CACHE_NEW);
    assert_int_equal(put(c, "a", "kept") + put(c, "b", "forty bytes of a value, three blocks long"),
                     0);
    assert_int_equal(stk_cache_calculate(c, "n", 1, STK_CACHE_ADD, 41, 0, true), 0);
    assert_int_equal(stk_cache_calculate(c, "n", 1, STK_CACHE_ADD, 1, 0, true), 0);
    assert_int_equal(stk_cache_check(&p, &error), 0);
    assert_int_equal(stk_cache_new(&p, NULL, 0, &other, &error), -EBUSY);
    assert_non_null(strstr(error, "used by another server"));
    free(stk_steal(&error));
    stk_cache_free(c);

    c = new_cache(p);
    assert_int_equal(origin(c), STK_CACHE_RESTORED);
    assert_string_equal(get(c, "a"), "kept");
    assert_string_equal(get(c, "b"), "forty bytes of a value, three blocks long");
    assert_int_equal(number(c, "n"), 42);
    assert_int_equal(items(c), 3);
    stk_cache_block(c, 0)[0] ^= 1; /* the first value is damaged */
    stk_cache_free(c);

    c = new_cache(p);
    assert_int_equal(stk_cache_origin(c, &dropped), STK_CACHE_RESTORED);
    assert_int_equal(dropped, 1);
    assert_null(get(c, "a"));
    assert_int_equal(items(c), 2);
    stk_cache_free(c);

    p.items = 21; /* another size: begun anew */
    c = new_cache(p);
    assert_int_equal(origin(c), STK_CACHE_EMPTIED);
    assert_null(get(c, "b"));
    stk_cache_free(c);

    f = fopen(path, "we");
    assert_true(f != NULL && fputs("precious words", f) >= 0 && fclose(f) == 0);
    assert_int_equal(stk_cache_new(&p, NULL, 0, &other, &error), -EEXIST);
    assert_non_null(strstr(error, "no cache of stoker's"));
    free(stk_steal(&error));
    p.store_delete = true;
    c = new_cache(p);
    assert_int_equal(origin(c), STK_CACHE_EMPTIED);
    stk_cache_free(c);
    assert_int_equal(unlink(path), 0);
}

/* Whatever is written over a store, it is opened, and gives whole entries or none. */
static void test_store_noise(void **state)
{
    STK_CLEANUP(stk_mem_freep) char *path = store_path();
    struct stk_cache_params p = {.store = path, .items = 8, .blocks = 16, .bitmap = true};
    struct stk_cache *c;
    unsigned chance = 1;

    for (int round = 0; round < 40; round++) {
        c = new_cache(p);
        stk_cache_clear(c);
        for (unsigned i = 0; i < 8; i++) {
            char key[24], value[MANY_VALUE];

            (void)snprintf(key, sizeof key, "a key, number %u", i);
            assert_true(stk_cache_put(c, key, strlen(key), value, many_value(value, i + 1) % 128, 0,
                                      STK_CACHE_UPDATE, true) >= 0);
        }
        for (int i = 0; i < 6; i++) {
            chance = chance * 1103515245 + 12345;
            ((char *)c->head)[CACHE_PAGE + chance / 64 % (c->store_size - CACHE_PAGE)] ^=
                (char)(1 << (chance >> 28) % 8);
            /* A state, a length or a place: what counts most. */
            ((char *)c->table)[chance / 128 % (8 * sizeof(struct cache_item))] ^= (char)round;
        }
        stk_cache_free(c);
        c = new_cache(p);
        assert_int_equal(origin(c), STK_CACHE_RESTORED);
        for (unsigned i = 0; i < 8; i++) {
            char key[24], whole[MANY_VALUE];
            void *value = NULL;
            size_t len;

            (void)snprintf(key, sizeof key, "a key, number %u", i);
            if (stk_cache_get(c, key, strlen(key), false, &value, &len) == 0) {
                assert_int_equal(len, many_value(whole, i + 1) % 128);
                assert_memory_equal(value, whole, len);
            }
            free(value);
        }
        stk_cache_free(c);
    }
    assert_int_equal(unlink(path), 0);
}

static void test_inherit(void **state)
{
    struct stk_cache_params p = {.name = "i", .items = 10, .blocksize = 64, .keysize = 32};
    struct stk_cache *old = new_cache(p), *c = NULL;
    char *error = NULL;
    struct stk_cache_fds fds = stk_cache_fds(old);

    assert_int_equal(put(old, "a", "from the old one"), 0);
    fds.memory = dup(fds.memory);
    assert_int_equal(stk_cache_check(&p, &error), 0);
    assert_int_equal(stk_cache_new(&p, &fds, 1, &c, &error), 0);
    assert_int_equal(fds.memory, -1);
    assert_int_equal(origin(c), STK_CACHE_INHERITED);
    assert_string_equal(get(c, "a"), "from the old one");
    assert_int_equal(put(c, "b", "from the new one"), 0);
    assert_string_equal(get(old, "b"), "from the new one"); /* while both serve */
    stk_cache_free(c);
    fds = stk_cache_fds(old);
    fds.memory = dup(fds.memory);
    p.items = 11; /* what was configured otherwise is another one */
    p.blocks = 0;
    assert_int_equal(stk_cache_check(&p, &error), 0);
    assert_int_equal(stk_cache_new(&p, &fds, 1, &c, &error), 0);
    assert_int_equal(origin(c), STK_CACHE_NEW);
    assert_true(fds.memory >= 0);
    close(fds.memory);
    stk_cache_free(c);
    stk_cache_free(old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),      cmocka_unit_test(test_limits),
        cmocka_unit_test(test_parameters),   cmocka_unit_test(test_bitmap),
        cmocka_unit_test(test_numbers),      cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_lru),          cmocka_unit_test(test_keys),
        cmocka_unit_test(test_threads),      cmocka_unit_test(test_kill),
        cmocka_unit_test(test_halves),       cmocka_unit_test(test_store),
        cmocka_unit_test(test_store_noise),  cmocka_unit_test(test_inherit),
        cmocka_unit_test(test_room_for_all), cmocka_unit_test(test_lru_of_few),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
