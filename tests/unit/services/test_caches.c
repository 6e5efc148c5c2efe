/* The words of `cache`, and what a configuration's caches are at the start. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "config/strv.h"
#include "services/caches.h"

static struct stk_cache_params parse(const char *spec)
{
    static char *text;
    struct stk_cache_params p;
    char *error = NULL;

    free(text);
    text = NULL;
    if (stk_caches_parse(spec, &p, &text, &error) != 0)
        fail_msg("%s: %s", spec, error);
    return p;
}

static void refuse(const char *spec, const char *why)
{
    struct stk_cache_params p;
    char *text = NULL, *error = NULL;

    assert_true(stk_caches_parse(spec, &p, &text, &error) < 0);
    if (strstr(error, why) == NULL)
        fail_msg("%s: %s", spec, error);
    free(error);
}

static void test_words(void **state)
{
    struct stk_cache_params p = parse("name=a,items=10");

    assert_string_equal(p.name, "a");
    assert_int_equal(p.items, 10);
    assert_int_equal(p.blocks, 10);
    assert_int_equal(p.blocksize, 65536);
    assert_int_equal(p.keysize, 2048);
    assert_false(p.bitmap || p.purge_lru || p.no_expire || p.store_delete);
    p = parse(
        "max_items=1k,name=b,blocksize=2m,blocks=3K,bitmap,key_size=7,lru=yes,math_initial=-5,"
        "storesync=3,store=/x/y,hash=djb33x,hashsize=99,,lazy=1,ignore_full=0");
    assert_string_equal(p.store, "/x/y");
    assert_int_equal(p.items, 1024);
    assert_int_equal(p.blocks, 3072);
    assert_int_equal(p.blocksize, 2 << 20);
    assert_int_equal(p.keysize, 7);
    assert_int_equal(p.math_initial, -5);
    assert_int_equal(p.store_sync, 3);
    assert_true(p.bitmap && p.purge_lru && !p.ignore_full);
    p = parse("500");
    assert_string_equal(p.name, "default");
    assert_int_equal(p.items, 500);
}

static void test_mistakes(void **state)
{
    refuse("", "name");
    refuse("name=a", "items");
    refuse("items=5", "name");
    refuse("0", "items");
    refuse("name=a,items=0", "items");
    refuse("name=a,items=-1", "items: '-1'");
    refuse("name=a,items=5x", "items: '5x'");
    refuse("name=a,items=5kk", "items");
    refuse("name=a,items=99999999999999999999999", "items");
    refuse("name=a,items=18446744073709551615g", "items");
    refuse("name=a,items=5,blocksize=0", "blocksize");
    refuse("name=a,items=5,keysize=65535", "keysize");
    refuse("name=a,items=5,blocks=4", "blocks");
    refuse("name=a,items=5,bitmap=perhaps", "bitmap");
    refuse("name=a,items=5,store=", "store");
    refuse("name=a,items=5,math_initial=x", "math_initial");
    refuse("name=a b,items=5", "name");
    refuse("name=\"a\",items=5", "name");
    refuse("name=a@b,items=5", "name");
    refuse("name=a\xff,items=5", "name"); /* metrics and Python have UTF-8 only */
    refuse("name=a,item=5", "item is not known");
    refuse("name=a,items=5,udp=1.2.3.4:5", "not shared between machines");
}

struct mistakes {
    unsigned n;
    char last[256];
};

static void note(void *arg, enum stk_option_id id, size_t item, const char *text)
{
    struct mistakes *m = arg;

    m->n++;
    (void)snprintf(m->last, sizeof m->last, "%u %zu %s", (unsigned)id, item, text);
}

static void add(struct stk_strv *list, const char *text)
{
    stk_strv_append(list, stk_mem_strdup(text));
}

static void clear(struct stk_config *config)
{
    stk_strv_deinit(&config->cache);
    stk_strv_deinit(&config->add_cache_item);
    stk_strv_deinit(&config->load_file_in_cache);
    stk_strv_deinit(&config->load_file_in_cache_gzip);
}

static void test_lists(void **state)
{
    struct stk_config config = {0};
    struct mistakes m = {0};

    add(&config.cache, "name=a,items=10");
    add(&config.cache, "name=a,items=20");
    stk_caches_verify(&config, note, &m);
    assert_int_equal(m.n, 1);
    assert_non_null(strstr(m.last, "another cache of that name"));
    clear(&config);
    add(&config.cache, "name=a,items=10,store=x");
    add(&config.cache, "name=b,items=20,store=x");
    stk_caches_verify(&config, note, &m);
    assert_int_equal(m.n, 2);
    assert_non_null(strstr(m.last, "has that store"));
    clear(&config);
    add(&config.cache, "name=a,items=10");
    add(&config.add_cache_item, "nobody k=v");
    stk_caches_verify(&config, note, &m);
    assert_int_equal(m.n, 3);
    assert_non_null(strstr(m.last, "no cache of that name"));
    stk_strv_deinit(&config.add_cache_item);
    add(&config.add_cache_item, "k");
    stk_caches_verify(&config, note, &m);
    assert_int_equal(m.n, 4);
    assert_non_null(strstr(m.last, "KEY=VALUE"));
    clear(&config);
    add(&config.load_file_in_cache, "file");
    stk_caches_verify(&config, note, &m);
    assert_int_equal(m.n, 5);
    assert_non_null(strstr(m.last, "there is no cache"));
    clear(&config);
}

static void assert_entry(const struct stk_caches *caches, const char *name, const char *key,
                         const char *value)
{
    const struct stk_cache *c = stk_caches_find(caches, name);
    void *found = NULL;
    size_t len = 0;

    assert_non_null(c);
    assert_int_equal(stk_cache_get(c, key, strlen(key), false, &found, &len), 0);
    assert_int_equal(len, strlen(value));
    assert_memory_equal(found, value, len);
    free(found);
}

static void test_start(void **state)
{
    STK_CLEANUP(stk_mem_freep) char *path = stk_mem_printf("/tmp/test_caches.%d", (int)getpid());
    STK_CLEANUP(stk_mem_freep) char *named = stk_mem_printf("b %s", path);
    struct stk_config config = {0};
    struct stk_caches *caches = NULL;
    struct stk_cache_stats st;
    struct mistakes m = {0};
    FILE *f = fopen(path, "we");
    void *value = NULL;
    size_t len = 0;

    add(&config.cache, "name=a,items=10");
    add(&config.cache, "name=b,items=20");
    add(&config.add_cache_item, "k=v with = and blanks");
    add(&config.add_cache_item, "b only=here");
    add(&config.load_file_in_cache, path);
#ifdef STK_HAVE_ZLIB
    add(&config.load_file_in_cache_gzip, named);
#endif
    assert_true(f != NULL && fputs("contents", f) >= 0 && fclose(f) == 0);
    stk_caches_verify(&config, note, &m);
    assert_int_equal(m.n, 0);
    assert_int_equal(stk_caches_new(&config, &(struct stk_caches_start){0}, &caches), 0);
    assert_ptr_equal(stk_caches_find(caches, NULL), caches->items[0]);
    assert_ptr_equal(stk_caches_find(caches, ""), caches->items[0]);
    assert_ptr_equal(stk_caches_find(caches, "b"), caches->items[1]);
    assert_null(stk_caches_find(caches, "c"));
    assert_null(stk_caches_find(NULL, "a"));
    assert_entry(caches, "a", "k", "v with = and blanks");
    assert_entry(caches, "b", "k", "v with = and blanks");
    assert_entry(caches, "b", "only", "here");
    assert_entry(caches, "a", path, "contents");
    stk_cache_stat(caches->items[0], &st);
    assert_int_equal(st.items, 2);
#ifdef STK_HAVE_ZLIB
    assert_int_equal(stk_cache_get(caches->items[1], path, strlen(path), false, &value, &len), 0);
    assert_true(len > 18 && memcmp(value, "\x1f\x8b", 2) == 0);
    free(value);
#endif
    assert_false(stk_caches_tick(caches));
    stk_caches_log(caches);
    stk_caches_free(caches);
    assert_int_equal(unlink(path), 0);
    clear(&config);
    assert_int_equal(stk_caches_new(&config, &(struct stk_caches_start){0}, &caches), 0);
    assert_null(caches);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
