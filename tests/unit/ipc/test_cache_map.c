/*
 * The memory and the files of a cache: what an interrupted start, a copy and an upgrade leave of
 * them, and that places that nobody uses take no memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "ipc/cache.h"
#include "ipc/cache_priv.h"

static char *path;
static bool disk_full;

/* In the place of libc's: a full disk leaves a part of the file, as ext4 does. */
int posix_fallocate(int fd, off_t from, off_t len)
{
    errno = 0;
    if (disk_full)
        return ftruncate(fd, from + len / 2) < 0 ? errno : ENOSPC;
    if (fallocate(fd, 0, from, len) == 0 || errno != EOPNOTSUPP)
        return errno;
    return ftruncate(fd, from + len) < 0 ? errno : 0;
}

static int setup(void **state)
{
    const char *dir = getenv("TMPDIR");

    path = stk_mem_printf("%s/test_cache_map.%d", dir != NULL ? dir : "/tmp", (int)getpid());
    return 0;
}

static int teardown(void **state)
{
    if (unlink(path) < 0 && errno != ENOENT)
        return -1;
    free(path);
    return 0;
}

static int make(struct stk_cache_params p, struct stk_cache_fds *old, size_t nold,
                struct stk_cache **ret_cache)
{
    char *error = NULL;
    int r;

    p.name = p.name != NULL ? p.name : "test";
    p.blocksize = p.blocksize != 0 ? p.blocksize : 64;
    p.keysize = p.keysize != 0 ? p.keysize : 32;
    r = stk_cache_check(&p, &error);
    assert_int_equal(r, 0);
    r = stk_cache_new(&p, old, nold, ret_cache, &error);
    free(error);
    return r;
}

static int put(const struct stk_cache *c, const char *key, int64_t expires)
{
    return stk_cache_put(c, key, strlen(key), "value", 5, expires, STK_CACHE_UPDATE, true);
}

static bool has(const struct stk_cache *c, const char *key)
{
    struct stk_cache_found found;

    return stk_cache_find(c, key, strlen(key), false, &found) == 0;
}

static enum stk_cache_origin origin(const struct stk_cache *c)
{
    uint64_t dropped;

    return stk_cache_origin(c, &dropped);
}

/* Bytes of memory or of a disk that a descriptor has. */
static uint64_t taken(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* A cache may be much larger than what is in it: sweeps and repairs do not touch the rest. */
static void test_untouched(void **state)
{
    struct stk_cache *c;
    uint64_t hand = 0, freed = 0, before;

    assert_int_equal(make((struct stk_cache_params){.items = 1 << 20, .bitmap = true}, NULL, 0, &c),
                     0);
    assert_int_equal(put(c, "stays", 0), 0);
    assert_int_equal(put(c, "goes", -1), 0);
    before = taken(stk_cache_fds(c).memory);
    do
        freed += stk_cache_sweep(c, &hand, 1 << 16);
    while (hand != 0);
    assert_int_equal(freed, 1);
    stk_cache_repair(c, 0);
    stk_cache_alloc_rebuild(c);
    assert_true(has(c, "stays"));
    assert_int_equal(c->control->alloc.items, 1);
    /* The bitmap and the ends of the chains are written, and none of the 64 MiB of items. */
    assert_in_range(taken(stk_cache_fds(c).memory), before, before + (24 << 20));
    stk_cache_free(c);
}

/* A store whose making was cut short is a store, and not somebody else's file. */
static void test_begun(void **state)
{
    struct stk_cache_params p = {.store = path, .items = 20};
    struct stk_cache *c;
    struct stat st;

    disk_full = true;
    assert_int_equal(make(p, NULL, 0, &c), -ENOSPC);
    disk_full = false;
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size > 0);
    assert_int_equal(make(p, NULL, 0, &c), 0);
    assert_int_equal(origin(c), STK_CACHE_EMPTIED);
    assert_int_equal(put(c, "a", 0), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, c->store_size);
    stk_cache_free(c);
}

/* A copy may have holes: they are filled before something can be written into them. */
static void test_holes(void **state)
{
    struct stk_cache_params p = {.store = path, .items = 20, .blocksize = 65536};
    struct stk_cache *c;
    uint64_t whole;
    int fd;

    assert_int_equal(make(p, NULL, 0, &c), 0);
    assert_int_equal(put(c, "a", 0), 0);
    whole = taken(stk_cache_fds(c).store);
    stk_cache_free(c);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10 * 65536, 8 * 65536) < 0) {
        assert_int_equal(errno, EOPNOTSUPP);
        close(fd);
        skip();
    }
    assert_true(taken(fd) < whole);
    close(fd);
    assert_int_equal(make(p, NULL, 0, &c), 0);
    assert_int_equal(origin(c), STK_CACHE_RESTORED);
    assert_true(has(c, "a"));
    assert_true(taken(stk_cache_fds(c).store) >= whole);
    stk_cache_free(c);
}

/* An upgrade to what cannot share the memory: the store's entries are there in any case. */
static void test_beside(void **state)
{
    struct stk_cache_params p = {.store = path, .items = 20};
    struct stk_cache *old, *c;
    struct stk_cache_fds fds;
    struct stat before, after;

    assert_int_equal(make(p, NULL, 0, &old), 0);
    assert_int_equal(put(old, "a", 0), 0);
    assert_int_equal(stat(path, &before), 0);

    /* Nothing of what is handed over is that store: it is another server's. */
    assert_int_equal(make(p, NULL, 0, &c), -EBUSY);
    fds = (struct stk_cache_fds){memfd_create("other", MFD_CLOEXEC), -1};
    assert_int_equal(make(p, &fds, 1, &c), -EBUSY);
    close(fds.memory);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);

    p.name = "renamed";
    fds = stk_cache_fds(old);
    assert_int_equal(make(p, &fds, 1, &c), 0);
    assert_int_equal(origin(c), STK_CACHE_RESTORED);
    assert_true(has(c, "a"));
    assert_int_equal(put(c, "b", 0), 0);
    assert_false(has(old, "b"));
    stk_cache_free(c); /* the upgrade is off: the old server and its store go on */
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(make(p, &fds, 1, &c), 0);
    assert_false(has(c, "b"));
    assert_int_equal(put(c, "b", 0), 0);
    assert_int_equal(stk_cache_take_place(c), 0);
    assert_int_equal(stk_cache_take_place(c), 0);
    assert_int_equal(stat(path, &after), 0);
    assert_int_not_equal(before.st_ino, after.st_ino);
    stk_cache_free(old);

    p.items = 21;
    fds = stk_cache_fds(c);
    old = c;
    assert_int_equal(make(p, &fds, 1, &c), 0);
    assert_int_equal(origin(c), STK_CACHE_EMPTIED);
    assert_false(has(c, "a"));
    stk_cache_free(c);
    stk_cache_free(old);
    assert_int_equal(make((struct stk_cache_params){.store = path, .items = 20}, NULL, 0, &c), 0);
    assert_int_equal(origin(c), STK_CACHE_RESTORED);
    assert_true(has(c, "a") && has(c, "b"));
    stk_cache_free(c);
}

/* A large store is written in pieces, so that the master has time for others between them. */
static void test_sync(void **state)
{
    struct stk_cache_params p = {
        .store = path, .items = 5, .blocksize = 4 << 20, .keysize = 8, .store_sync = UINT64_MAX};
    struct stk_cache *c;

    assert_int_equal(make(p, NULL, 0, &c), 0);
    assert_false(stk_cache_sync(c)); /* not the time */
    c->store_sync = 1;
    assert_true(stk_cache_sync(c));
    assert_true(stk_cache_sync(c));
    assert_false(stk_cache_sync(c));
    stk_cache_free(c);
}

/* The old server ends in the midst of a sweep: the new one meets the rest. */
static void test_half_swept(void **state)
{
    struct stk_cache_params p = {.items = 100};
    struct stk_cache *old, *c;
    struct stk_cache_fds fds;
    uint64_t hand = 0;

    assert_int_equal(make(p, NULL, 0, &old), 0);
    for (unsigned i = 0; i < 100; i++) {
        char key[16];

        (void)snprintf(key, sizeof key, "key%u", i);
        assert_int_equal(put(old, key, i < 50 ? 0 : -1), 0);
    }
    assert_int_equal(stk_cache_sweep(old, &hand, 50), 0);
    assert_int_equal(hand, 50);
    assert_int_equal(put(old, "new", 0), 0); /* there is room, though the sweep is not there yet */
    fds = stk_cache_fds(old);
    fds.memory = dup(fds.memory);
    assert_int_equal(make(p, &fds, 1, &c), 0);
    assert_int_equal(origin(c), STK_CACHE_INHERITED);
    stk_cache_free(old);
    hand = 0;
    (void)stk_cache_sweep(c, &hand, 1000);
    assert_int_equal(c->control->alloc.items, 51);
    stk_cache_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_untouched),
        cmocka_unit_test_setup_teardown(test_begun, setup, teardown),
        cmocka_unit_test_setup_teardown(test_holes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_beside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sync, setup, teardown),
        cmocka_unit_test(test_half_swept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
