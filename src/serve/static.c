/*
 * Static files: which directory answers a request, and how. What is asked for most, a small file
 * by a plain GET, is one look into the cache, a head that was made before, and bytes copied behind
 * it: one recv and one send in all. A large file leaves by sendfile() from a descriptor that stays
 * open, and only what the socket does not take is queued.
 */
#include "serve/static.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "serve/conn.h"
#include "serve/request.h"
#include "serve/server.h"
#include "serve/static_priv.h"
#include "wire/condition.h"
#include "wire/http_status.h"
#include "wire/uri.h"

enum { STATIC_URL_MAX = 4096 };

/* A text with one field more; `name` of length 0: none. */
static void static_say(struct stk_serve_request *rq, unsigned status, stk_span name, stk_span value)
{
    char body[64];
    stk_span reason = stk_http_status_reason(status);
    int n = snprintf(body, sizeof body, "%u %.*s\n", status, (int)reason.len, reason.ptr);

    if (stk_response_start(&rq->base, status, reason) != 0 ||
        (name.len > 0 && stk_response_header(&rq->base, name, value) != 0) ||
        stk_response_header(&rq->base, STK_SPAN_LIT("Content-Type"),
                            STK_SPAN_LIT("text/plain; charset=utf-8")) != 0 ||
        stk_response_write(&rq->base, body, (size_t)n, STK_WRITE_END) < 0)
        rq->keep_alive = false;
    if (!rq->ended)
        stk_response_fail(&rq->base);
}

/* The decoded path of a request, in `buf` where it has escapes; cut where no file can be. */
static stk_span static_path(const struct stk_head *head, char buf[STATIC_URL_MAX])
{
    stk_span path = stk_head_path(head);

    if (path.len == 0)
        return STK_SPAN_LIT("/");
    if (path.len > STATIC_URL_MAX)
        path.len = STATIC_URL_MAX;
    return head->path_escaped ? stk_span_make(buf, stk_uri_unescape(buf, path)) : path;
}

/* Whether the configuration has files that are served or sent by this part. */
static bool statics_are_wanted(const struct stk_config *config)
{
    size_t n = config->static_dirs.n + config->static_map.n + config->static_check.n +
               config->x_sendfile.n + config->x_accel_redirect.n + config->uwsgi_route.n;

    for (size_t i = 0; n == 0 && i < config->route.n; i++)
        n += strstr(config->route.items[i], "static=") != NULL;
    return n > 0;
}

/* 301 to the same URL with a slash, relative to it: right behind every prefix that a front end
 * strips, and never another host. */
static void static_redirect(struct stk_serve_request *rq)
{
    char buf[STATIC_URL_MAX], to[8 + 3 * 256];
    stk_span path = static_path(rq->base.head, buf), query = stk_head_query(rq->base.head);
    STK_CLEANUP(stk_mem_freep) char *target = NULL;
    size_t at = path.len, n = 2;

    if (path.ptr[at - 1] == '/') { /* a pattern has taken the slash away: it would go in a circle */
        static_say(rq, 404, stk_span_make("", 0), stk_span_make("", 0));
        return;
    }
    while (at > 0 && path.ptr[at - 1] != '/')
        at--;
    memcpy(to, "./", 2);
    for (; at < path.len && n < sizeof to - 8; at++) {
        unsigned char c = (unsigned char)path.ptr[at];

        if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
            (c != '\0' && strchr("-._~!$&'()*+,;=@", c) != NULL)) {
            to[n++] = (char)c;
        } else {
            to[n++] = '%';
            to[n++] = "0123456789ABCDEF"[c >> 4];
            to[n++] = "0123456789ABCDEF"[c & 15];
        }
    }
    to[n++] = '/';
    target = stk_try_alloc(n + query.len + 1);
    if (target == NULL) {
        stk_response_plain(rq, 503, "");
        return;
    }
    memcpy(target, to, n);
    if (query.len > 0) {
        target[n++] = '?';
        memcpy(target + n, query.ptr, query.len);
        n += query.len;
    }
    static_say(rq, 301, STK_SPAN_LIT("Location"), stk_span_make(target, n));
}

/* The representation that the client likes best; of those liked the same, the smallest. */
static const struct static_rep *static_choose(const struct static_entry *e,
                                              const struct stk_conditions *c)
{
    const struct static_rep *best = &e->reps[0];
    struct stk_accept accept;
    unsigned q;

    if (e->n == 1 || !(c->any & 1u << STK_CONDITION_ACCEPT_ENCODING))
        return best;
    stk_conditions_accept(c, &accept);
    q = stk_accept_quality(&accept, STK_CODING_IDENTITY);
    for (unsigned i = 1; i < e->n; i++) {
        unsigned other = stk_accept_quality(&accept, e->reps[i].coding);

        if (other > q || (other == q && q > 0 && e->reps[i].file.size < best->file.size)) {
            best = &e->reps[i];
            q = other;
        }
    }
    return best;
}

/* Makes the heads of a new entry; `arg` is the request at hand, whose response has not begun. */
static void static_prepare(void *arg, struct static_entry *e)
{
    struct stk_serve_request *rq = arg;

    for (unsigned i = 0; i < e->n; i++) {
        struct static_rep *rep = &e->reps[i];

        rep->has_head = stk_static_send_head(rq, &rep->file) == 0 &&
                        stk_response_head_save(&rq->base, &rep->head);
    }
}

static void static_send_entry(struct stk_serve_request *rq, const struct static_entry *e)
{
    struct stk_conditions c;
    const struct static_rep *rep;
    int r;

    stk_conditions_find(&c, rq->base.head);
    rep = static_choose(e, &c);
    if (stk_unlikely(stk_conditions_are_set(&c) || !rep->has_head)) {
        (void)stk_static_send(rq, &rep->file);
        return;
    }
    r = stk_response_head_load(&rq->base, &rep->head);
    if (r == 0)
        r = stk_static_send_expires(rq, &rep->file);
    if (r == 0)
        r = stk_static_send_bytes(rq, &rep->file, 0, rep->file.size, STK_WRITE_END);
    if (r != 0 && !rq->ended)
        stk_response_fail(&rq->base);
}

/* Whether a path that leads nowhere is answered with the page of static-try: not what looks like a
 * file, for a page in the place of a script helps nobody. */
static bool static_may_try(const struct stk_static *root, stk_span below)
{
    stk_span type;

    if (root->try == NULL)
        return false;
    type = stk_static_type(root->all, below);
    return type.len == 0 || (type.len >= 9 && memcmp(type.ptr, "text/html", 9) == 0);
}

enum stk_static_result stk_static_serve(struct stk_serve_request *rq, const struct stk_static *root,
                                        stk_span below)
{
    const struct stk_head *head = rq->base.head;
    stk_msec now = stk_loop_now(rq->t->server->loop);
    struct static_entry *e;

    if (!head->is_get && !head->is_head) {
        if (root->pass)
            return STK_STATIC_PASS;
        static_say(rq, 405, STK_SPAN_LIT("Allow"), STK_SPAN_LIT("GET, HEAD"));
        return STK_STATIC_SERVED;
    }
    e = stk_static_get(root, below, now, static_prepare, rq);
    if (e != NULL && e->kind == STATIC_MISSING && static_may_try(root, below)) {
        stk_static_put(e);
        e = stk_static_get(root, stk_span_str(root->try), now, static_prepare, rq);
    }
    if (e == NULL) {
        stk_response_plain(rq, 503, "");
        return STK_STATIC_SERVED;
    }
    if (root->pass && (e->kind == STATIC_MISSING || e->kind == STATIC_FORBIDDEN)) {
        stk_static_put(e);
        return STK_STATIC_PASS;
    }
    switch (e->kind) {
    case STATIC_FILE:
        static_send_entry(rq, e);
        break;
    case STATIC_DIRECTORY:
        static_redirect(rq);
        break;
    case STATIC_FORBIDDEN:
        static_say(rq, 403, stk_span_make("", 0), stk_span_make("", 0));
        break;
    case STATIC_MISSING:
        static_say(rq, 404, stk_span_make("", 0), stk_span_make("", 0));
        break;
    }
    stk_static_put(e);
    return STK_STATIC_SERVED;
}

enum stk_static_result stk_statics_serve(struct stk_statics *s, struct stk_serve_request *rq)
{
    char buf[STATIC_URL_MAX];
    stk_span path = static_path(rq->base.head, buf);

    for (size_t i = 0; i < s->nroots; i++) {
        const struct stk_static *root = &s->roots[i];
        size_t len = root->prefix.len;

        if (path.ptr[0] != '/' || path.len < len || memcmp(path.ptr, root->prefix.ptr, len) != 0 ||
            (path.len > len && path.ptr[len] != '/'))
            continue;
        if (stk_static_serve(rq, root, stk_span_make(path.ptr + len, path.len - len)) ==
            STK_STATIC_SERVED)
            return STK_STATIC_SERVED;
    }
    return STK_STATIC_PASS;
}

/* The prefix in front of "=" without slashes at its end. */
static stk_span static_prefix(const char *text)
{
    size_t len = strcspn(text, "=");

    while (len > 0 && text[len - 1] == '/')
        len--;
    return stk_span_make(text, len);
}

/* Adds a directory, to the root of its prefix and kind if there is one. */
static void static_add_root(struct stk_statics *s, stk_span prefix, const char *dir, bool pass)
{
    struct stk_static *root = NULL;

    for (size_t i = 0; i < s->nroots; i++)
        if (s->roots[i].pass == pass && stk_span_eq(s->roots[i].prefix, prefix))
            root = &s->roots[i];
    if (root == NULL) {
        root = &s->roots[s->nroots++];
        *root = (struct stk_static){.all = s, .prefix = prefix, .pass = pass, .index_asked = pass};
        root->dirs = stk_new0_array(const char *, s->max_used);
    }
    root->dirs[root->ndirs++] = dir;
}

static int static_by_length(const void *a, const void *b)
{
    const struct stk_static *x = a, *y = b;

    if (x->prefix.len != y->prefix.len)
        return x->prefix.len < y->prefix.len ? 1 : -1;
    return (int)x->pass - (int)y->pass; /* no equal ones of a kind; what passes comes last */
}

static void statics_make_roots(struct stk_statics *s, const struct stk_config *config)
{
    size_t n = config->static_dirs.n + config->static_map.n + config->static_check.n;

    s->roots = stk_new0_array(struct stk_static, n);
    s->max_used = (unsigned)n;
    for (size_t i = 0; i < config->static_dirs.n; i++)
        static_add_root(s, static_prefix(config->static_dirs.items[i]),
                        strchr(config->static_dirs.items[i], '=') + 1, false);
    for (size_t i = 0; i < config->static_map.n; i++)
        static_add_root(s, static_prefix(config->static_map.items[i]),
                        strchr(config->static_map.items[i], '=') + 1, true);
    for (size_t i = 0; i < config->static_check.n; i++)
        static_add_root(s, stk_span_make("", 0), config->static_check.items[i], true);
    qsort(s->roots, s->nroots, sizeof s->roots[0], static_by_length);
    for (size_t i = 0; i < config->static_try.n; i++) {
        const char *text = config->static_try.items[i], *equal = strchr(text, '=');

        for (size_t k = 0; equal != NULL && k < s->nroots; k++)
            if (!s->roots[k].pass && stk_span_eq(s->roots[k].prefix, static_prefix(text)))
                s->roots[k].try = equal + 1;
    }
}

int stk_statics_new(struct stk_statics **ret_statics, const struct stk_config *config)
{
    struct rlimit rl = {.rlim_cur = 1024};
    struct stk_statics *s;

    *ret_statics = NULL;
    if (!statics_are_wanted(config))
        return 0;
    s = stk_new0(struct stk_statics);
    if (getrandom(&s->seed, sizeof s->seed, GRND_NONBLOCK) < 0)
        s->seed = (uint64_t)stk_time_mono_ns() ^ (uintptr_t)s;
    if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
        stk_log_warning("getrlimit: %m");
    pthread_mutex_init(&s->mutex, NULL);
    stk_list_init(&s->used);
    stk_list_init(&s->misses);
    s->links = (enum stk_static_links)config->static_follow_symlinks;
    s->dotfiles = config->static_dotfiles;
    s->indexes = (const char *const *)config->static_index.items;
    s->nindexes = config->static_index.n;
    statics_make_roots(s, config);
    stk_static_types_load(s, config);
    s->expiries = stk_new0_array(struct static_expiry, config->static_expires.n + 1);
    for (size_t i = 0; i < config->static_expires.n; i++)
        if (stk_static_expiry_parse(config->static_expires.items[i], &s->expiries[s->nexpiries]) ==
            NULL)
            s->nexpiries++;
    s->max_used = (unsigned)config->static_cache;
    s->max_fds = rl.rlim_cur / 8 < s->max_used ? (unsigned)(rl.rlim_cur / 8) : s->max_used;
    *ret_statics = s;
    return 0;
}

struct stk_static *stk_static_new(struct stk_statics *s, stk_span prefix, const char *dir,
                                  const char *attempt, bool pass)
{
    struct stk_static *root = stk_new0(struct stk_static);

    *root = (struct stk_static){
        .all = s, .prefix = prefix, .ndirs = 1, .pass = pass, .index_asked = pass, .try = attempt};
    root->dirs = stk_new0_array(const char *, 1);
    root->dirs[0] = dir;
    return root;
}

struct stk_static *stk_static_free(struct stk_static *root)
{
    if (root != NULL)
        free(root->dirs);
    free(root);
    return NULL;
}

bool stk_statics_have_prefixes(const struct stk_statics *s)
{
    return s != NULL && s->nroots > 0;
}

unsigned stk_statics_descriptors(const struct stk_statics *s)
{
    return s != NULL ? s->max_fds : 0;
}

struct stk_statics *stk_statics_free(struct stk_statics *s)
{
    if (s == NULL)
        return NULL;
    for (size_t i = 0; i < STK_STATIC_BUCKETS; i++)
        for (struct static_entry *e = s->buckets[i], *next; e != NULL; e = next) {
            next = e->next;
            stk_static_put(e);
        }
    for (size_t i = 0; i < s->nroots; i++)
        free(s->roots[i].dirs);
    for (size_t i = 0; i < s->nexpiries; i++)
        free(s->expiries[i].cache);
    stk_static_types_free(&s->own);
    stk_static_types_free(&s->system);
    pthread_mutex_destroy(&s->mutex);
    free(s->expiries);
    free(s->roots);
    free(s);
    return NULL;
}
