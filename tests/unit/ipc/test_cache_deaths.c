/*
 * A death at each instruction of a change: one process makes it step by step, and after each step a
 * copy of the memory is what a kill there had left. What is found there must be whole, and all of
 * the cache must serve on.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "ipc/cache.h"
#include "ipc/cache_priv.h"

enum { ITEMS = 8, LONG = 300 };

/* What becomes of the entry "key": texts, or counters, whose text here is NULL. */
static const struct change {
    const char *name;
    size_t before, after; /* lengths; 0: it is not there */
    bool counts, fills, expired, clears;
} changes[] = {
    {"a new one", .after = LONG},
    {"another value", .before = LONG, .after = LONG + 9},
    {"another short value", .before = 40, .after = 48},
    {"another value without room", .before = LONG, .after = LONG + 9, .fills = true},
    {"none any more", .before = LONG},
    {"a new counter", .after = 8, .counts = true},
    {"a counter", .before = 8, .after = 8, .counts = true},
    {"a counter of a long value", .before = 40, .after = 8, .counts = true},
    {"one for another that is over", .before = LONG, .after = LONG, .expired = true},
    {"none after its time", .before = LONG, .expired = true},
    {"none of all", .before = LONG, .clears = true},
};

static struct stk_cache *deaths_new(unsigned kind)
{
    struct stk_cache_params p = {
        .name = "deaths",
        .items = ITEMS,
        .blocks = kind == 1 ? 60 : 0,
        .blocksize = kind == 1 ? 32 : 512,
        .keysize = 32,
        .bitmap = kind == 1,
        .purge_lru = kind == 2,
    };
    struct stk_cache *c = NULL;
    char *error = NULL;

    if (stk_cache_check(&p, &error) != 0 || stk_cache_new(&p, NULL, 0, &c, &error) != 0)
        fail_msg("%s", error);
    return c;
}

static int put(const struct stk_cache *c, const char *key, const char *value, size_t len,
               int64_t expires)
{
    return stk_cache_put(c, key, strlen(key), value, len, expires, STK_CACHE_UPDATE, true);
}

/* The values: all of one letter, and a counter that is one more than the letters before. */
static const char *deaths_value(const struct change *change, bool after)
{
    static char value[LONG + 16];
    uint64_t number;

    memset(value, after && !change->counts ? 'n' : 'o', sizeof value);
    if (after && change->counts) {
        memcpy(&number, value, sizeof number);
        number = change->before != 0 ? number + 1 : 1;
        memcpy(value, &number, sizeof number);
    }
    return value;
}

static void deaths_prepare(const struct stk_cache *c, const struct change *change)
{
    assert_int_equal(put(c, "a", "first", 5, 0) + put(c, "b", "second", 6, 0), 0);
    if (change->before != 0)
        assert_int_equal(
            put(c, "key", deaths_value(change, false), change->before, change->expired ? -1 : 0),
            0);
    for (unsigned i = 3; change->fills && i < ITEMS; i++)
        assert_int_equal(put(c, (const char[]){(char)('0' + i), '\0'}, "x", 1, 0), 0);
}

static void deaths_make(const struct stk_cache *c, const struct change *change)
{
    uint64_t hand = 0;
    int r = 0;

    if (change->clears)
        stk_cache_clear(c);
    else if (change->counts)
        r = stk_cache_calculate(c, "key", 3, STK_CACHE_ADD, 1, 0, true);
    else if (change->after != 0)
        r = put(c, "key", deaths_value(change, true), change->after, 0);
    else if (change->expired)
        (void)stk_cache_sweep(c, &hand, ITEMS);
    else
        r = stk_cache_del(c, "key", 3, true);
    if (r != 0)
        abort();
}

static void deaths_check_value(const struct change *change, const char *value, size_t len)
{
    bool is_old = len == change->before && memcmp(value, deaths_value(change, false), len) == 0;
    bool is_new = len == change->after && memcmp(value, deaths_value(change, true), len) == 0;

    assert_true((is_old && !change->expired) || is_new);
}

static void deaths_check_other(const struct stk_cache *c, const char *key, const char *value)
{
    void *found = NULL;
    size_t len = 0;

    assert_int_equal(stk_cache_get(c, key, strlen(key), false, &found, &len), 0);
    assert_int_equal(len, strlen(value));
    assert_memory_equal(found, value, len);
    free(found);
}

/* What a cache is after a death, for readers without locks and with them, and for writers. */
static void deaths_check(struct stk_cache *c, const struct change *change)
{
    struct stk_cache_found found;
    struct stk_cache_stats before, after;
    char text[LONG + 16], *keys = NULL;
    void *value = NULL;
    uint64_t hand = 0;
    size_t len = 0;

    if (stk_cache_find(c, "key", 3, false, &found) == 0) {
        assert_true(found.len <= sizeof text);
        if (stk_cache_copy(c, &found, text) == 0)
            deaths_check_value(change, text, found.len);
    }
    if (stk_cache_get(c, "key", 3, false, &value, &len) == 0)
        deaths_check_value(change, value, len);
    free(value);
    if (!change->clears) {
        deaths_check_other(c, "a", "first");
        deaths_check_other(c, "b", "second");
    }
    if (put(c, "next", "x", 1, 0) == 0) /* and the allocator's lock is looked at */
        assert_int_equal(stk_cache_del(c, "next", 4, true), 0);
    cache_store(&c->control->next_expiry, 0);
    (void)stk_cache_sweep(c, &hand, ITEMS);
    stk_cache_stat(c, &before);
    assert_int_equal(stk_cache_keys(c, &keys, &len), before.items);
    free(keys);
    stk_cache_alloc_rebuild(c);
    stk_cache_stat(c, &after);
    assert_int_equal(before.items, after.items);
    assert_int_equal(before.blocks_used, after.blocks_used);
    stk_cache_clear(c);
    for (unsigned i = 0; i < ITEMS; i++)
        assert_int_equal(put(c, (const char[]){(char)('0' + i), '\0'}, "x", 1, 0), 0);
}

/* What the kernel does with a lock of who has died. */
static void deaths_leave(pthread_mutex_t *lock, pid_t pid)
{
    if ((lock->__data.__lock & 0x3fffffff) == pid)
        lock->__data.__lock = 0x40000000;
}

static void deaths_step(unsigned kind, const struct change *change)
{
    struct stk_cache *c = deaths_new(kind), *left = deaths_new(kind);
    unsigned steps = 0;
    int status = 0;
    pid_t pid;

    deaths_prepare(c, change);
    memcpy(left->seed, c->seed, sizeof c->seed);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(99);
        (void)raise(SIGSTOP);
        deaths_make(c, change);
        (void)raise(SIGSTOP);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    for (; WIFSTOPPED(status) && (steps == 0 || WSTOPSIG(status) == SIGTRAP); steps++) {
        memcpy(left->control, c->control, c->control_size);
        memcpy(left->head, c->head, c->store_size);
        deaths_leave(&left->control->alloc.lock, pid);
        for (unsigned i = 0; i < c->nshards; i++)
            deaths_leave(&left->control->shards[i].lock, pid);
        deaths_check(left, change);
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 99) {
        print_message("processes cannot be traced here\n");
    } else {
        assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP && steps > 100);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
    }
    stk_cache_free(c);
    stk_cache_free(left);
}

static void test_deaths(void **state)
{
    /* Steps of sanitizers are many, and elsewhere an atomic operation never ends under steps. */
#if !defined(__x86_64__) || defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    skip();
#endif
    for (unsigned kind = 0; kind < 3; kind++)
        for (size_t i = 0; i < STK_ARRAY_LEN(changes); i++) {
            if (kind == 2 && changes[i].fills)
                continue; /* others make room there */
            deaths_step(kind, &changes[i]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_deaths)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
