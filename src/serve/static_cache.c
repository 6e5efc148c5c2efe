/*
 * What lookups found: small files whole, large ones as open descriptors, and paths that lead
 * nowhere, each by root and path. An entry does not change once it is in the table. For a second it
 * counts as it is; then its path is looked up again, and if files, sizes and times are the same the
 * entry counts for another second, else a new one takes its place.
 *
 * The mutex guards the table only and is held for a few instructions; what is being sent is kept
 * by a count of references. Bounded by entries, descriptors and bytes: the longest unused goes
 * first. Misses have a list of their own, so that requests for what does not exist push nothing
 * out.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "serve/static_priv.h"

static uint64_t cache_hash(const struct stk_static *root, stk_span path)
{
    uint64_t h = root->all->seed ^ (uintptr_t)root, w;
    const char *p = path.ptr;
    size_t left = path.len;

    for (; left >= 8; left -= 8, p += 8) {
        memcpy(&w, p, 8);
        h = (h ^ w) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    w = left;
    for (size_t i = 0; i < left; i++)
        w = w << 8 | (unsigned char)p[i];
    h = (h ^ w) * UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 32;
}

static void entry_free(struct static_entry *e)
{
    for (unsigned i = 0; i < e->n; i++) {
        stk_fd_close(&e->reps[i].file.fd);
        free(e->reps[i].data);
    }
    free(e->path);
    free(e);
}

void stk_static_put(struct static_entry *e)
{
    if (atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) == 1)
        entry_free(e);
}

/* Out of the table; mutex held. */
static void cache_drop(struct stk_statics *s, struct static_entry *e)
{
    struct static_entry **at = &s->buckets[e->hash % STK_STATIC_BUCKETS];

    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    stk_list_remove(&e->lru);
    if (e->kind == STATIC_MISSING)
        s->nmisses--;
    else
        s->nused--;
    s->nfds -= e->nfds;
    s->memory -= e->memory;
    stk_static_put(e);
}

static struct static_entry *cache_find(struct stk_statics *s, uint64_t hash,
                                       const struct stk_static *root, stk_span path)
{
    for (struct static_entry *e = s->buckets[hash % STK_STATIC_BUCKETS]; e; e = e->next)
        if (e->hash == hash && e->root == root && e->path_len == path.len &&
            memcmp(e->path, path.ptr, path.len) == 0)
            return e;
    return NULL;
}

static struct static_entry *cache_oldest(struct stk_list *list)
{
    return stk_container_of(list->prev, struct static_entry, lru);
}

/* Puts an entry in, in the place of the one of the same path; mutex held. */
static void cache_insert(struct stk_statics *s, struct static_entry *e)
{
    struct static_entry *old = cache_find(s, e->hash, e->root, stk_span_make(e->path, e->path_len));

    if (old != NULL)
        cache_drop(s, old);
    if (s->max_used == 0 || e->nfds > s->max_fds)
        return;
    while (s->nused > 0 && e->kind != STATIC_MISSING &&
           (s->nused >= s->max_used || s->nfds + e->nfds > s->max_fds ||
            s->memory + e->memory > STK_STATIC_MEMORY_MAX))
        cache_drop(s, cache_oldest(&s->used));
    if (e->kind == STATIC_MISSING && s->nmisses >= STK_STATIC_MISSES)
        cache_drop(s, cache_oldest(&s->misses));
    e->next = s->buckets[e->hash % STK_STATIC_BUCKETS];
    s->buckets[e->hash % STK_STATIC_BUCKETS] = e;
    stk_list_prepend(e->kind == STATIC_MISSING ? &s->misses : &s->used, &e->lru);
    if (e->kind == STATIC_MISSING)
        s->nmisses++;
    else
        s->nused++;
    s->nfds += e->nfds;
    s->memory += e->memory;
    e->cached = true;
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Whether a lookup finds what it has found before. */
static bool cache_same(const struct static_entry *e, const struct static_found *f)
{
    if (e->kind != f->kind || e->n != f->n)
        return false;
    for (unsigned i = 0; i < f->n; i++) {
        const struct stat *a = &e->reps[i].st, *b = &f->st[i];

        if (a->st_dev != b->st_dev || a->st_ino != b->st_ino || a->st_size != b->st_size ||
            e->reps[i].coding != f->codings[i] || !same_time(&a->st_mtim, &b->st_mtim) ||
            !same_time(&a->st_ctim, &b->st_ctim))
            return false;
    }
    return true;
}

/* The bytes of a small file, NULL if it has changed its size or cannot be read. */
static char *cache_read(int fd, size_t size)
{
    char *data = stk_try_alloc(size + 1);
    size_t done = 0;

    while (data != NULL && done < size) {
        ssize_t n = pread(fd, data + done, size - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            free(data);
            return NULL;
        }
        done += (size_t)n;
    }
    return data;
}

static void entry_fill_rep(struct static_entry *e, struct static_rep *rep, struct static_found *f,
                           unsigned i)
{
    static const char *const suffixes[STK_CODINGS] = {"", "-gz", "-br", "-zst"};
    size_t size = (size_t)f->st[i].st_size;
    int64_t now = time(NULL);

    rep->st = f->st[i];
    rep->coding = f->codings[i];
    rep->file =
        (struct stk_static_file){.fd = stk_fd_steal(&f->fds[i]),
                                 .size = size,
                                 .modified = rep->st.st_mtime <= now ? rep->st.st_mtime : -1,
                                 .max_age = -1,
                                 .vary = f->n > 1};
    rep->file.etag =
        stk_span_make(rep->etag, stk_static_etag(rep->etag, &rep->st, suffixes[rep->coding]));
    if (rep->coding != STK_CODING_IDENTITY)
        rep->file.encoding = stk_coding_name(rep->coding);
    if (size <= STK_STATIC_MEMORY_FILE && (rep->data = cache_read(rep->file.fd, size)) != NULL) {
        stk_fd_close(&rep->file.fd);
        rep->file.data = rep->data;
        e->memory += size;
    } else {
        e->nfds++;
    }
}

/* An entry of what was found, whose descriptors it takes. NULL without memory. */
static struct static_entry *entry_new(const struct stk_static *root, stk_span path, uint64_t hash,
                                      struct static_found *f)
{
    struct static_entry *e = stk_try_alloc(sizeof *e + f->n * sizeof e->reps[0]);
    stk_span type, name = stk_span_str(f->rel);

    if (e == NULL)
        return NULL;
    memset(e, 0, sizeof *e + f->n * sizeof e->reps[0]);
    e->path = stk_try_alloc(path.len + 1);
    if (e->path == NULL) {
        free(e);
        return NULL;
    }
    memcpy(e->path, path.ptr, path.len);
    e->path_len = path.len;
    e->hash = hash;
    e->root = root;
    e->kind = f->kind;
    atomic_store_explicit(&e->refs, 1, memory_order_relaxed);
    stk_list_init(&e->lru);
    if (f->kind != STATIC_FILE)
        return e;
    type = stk_static_type(root->all, name);
    e->expiry = stk_static_expiry_find(root->all, root->prefix, f->rel, type);
    e->n = f->n;
    for (unsigned i = 0; i < f->n; i++) {
        entry_fill_rep(e, &e->reps[i], f, i);
        e->reps[i].file.type = type.len > 0 ? type : STK_SPAN_LIT("application/octet-stream");
        if (e->expiry != NULL) {
            e->reps[i].file.cache = stk_span_str(e->expiry->cache);
            e->reps[i].file.max_age = e->expiry->max_age;
        }
    }
    f->n = 0;
    return e;
}

struct static_entry *stk_static_get(const struct stk_static *root, stk_span below, stk_msec now,
                                    void (*prepare)(void *arg, struct static_entry *entry),
                                    void *arg)
{
    struct stk_statics *s = root->all;
    uint64_t hash = cache_hash(root, below);
    struct static_found found;
    struct static_entry *e, *old;

    pthread_mutex_lock(&s->mutex);
    old = cache_find(s, hash, root, below);
    if (old != NULL) {
        struct stk_list *list = old->kind == STATIC_MISSING ? &s->misses : &s->used;

        atomic_fetch_add_explicit(&old->refs, 1, memory_order_relaxed);
        if (list->next != &old->lru) {
            stk_list_remove(&old->lru);
            stk_list_prepend(list, &old->lru);
        }
    }
    pthread_mutex_unlock(&s->mutex);
    if (stk_likely(old != NULL) &&
        now - atomic_load_explicit(&old->checked, memory_order_relaxed) < STK_STATIC_FRESH_MS)
        return old;
    stk_static_lookup(root, below, &found);
    if (old != NULL && cache_same(old, &found)) {
        stk_static_found_close(&found);
        atomic_store_explicit(&old->checked, now, memory_order_relaxed);
        return old;
    }
    if (old != NULL)
        stk_static_put(old);
    e = entry_new(root, below, hash, &found);
    stk_static_found_close(&found);
    if (e == NULL)
        return NULL;
    atomic_store_explicit(&e->checked, now, memory_order_relaxed);
    if (e->kind == STATIC_FILE)
        prepare(arg, e);
    pthread_mutex_lock(&s->mutex);
    cache_insert(s, e);
    pthread_mutex_unlock(&s->mutex);
    return e;
}
