/*
 * Which responses are compressed, and how their heads change (RFC 9110 sections 8.4, 8.8.3, 12.5.3
 * and 12.5.5).
 *
 * A response that could be compressed says Vary: Accept-Encoding, whether this client gets it so or
 * not: caches need to know. Everything else is left as it is. Among codings that a client likes
 * equally zstd comes first: for the bodies that applications answer (JSON and HTML of 10 to 100 KB)
 * it takes a fifth of the time of gzip for the same size, and br two thirds.
 *
 * Encoders are kept by the server rather than by threads: as many are made as responses are
 * compressed at the same time, and those that nobody used for a while are freed by a timer.
 */
#include "serve/compress.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/time.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "loop/loop.h"
#include "serve/head_edit.h"
#include "serve/server.h"
#include "wire/head.h"
#include "wire/http1.h"

enum {
    COMPRESS_IDLE_MS = 10 * 1000, /* an encoder that nobody used for so long is freed */
};

/* By what a unit of CPU time gives; the package is what a build needs. */
static const struct {
    enum stk_coding coding;
    const char *library, *package;
} compress_codings[] = {
    {STK_CODING_ZSTD, "zstd", "libzstd-dev"},
    {STK_CODING_BR, "brotli", "libbrotli-dev"},
    {STK_CODING_GZIP, "zlib", "zlib1g-dev"},
};

struct stk_compress {
    enum stk_coding codings[STK_CODINGS]; /* wanted, the best first */
    size_t ncodings;
    int levels[STK_CODINGS];
    char **types; /* ntypes */
    size_t ntypes;
    uint64_t min_size;

    struct stk_loop *loop;
    struct stk_source timer;
    pthread_mutex_t mutex; /* of what follows */
    struct stk_list idle[STK_CODINGS];
    bool armed;
};

/* ---- options ------------------------------------------------------------------------------- */

static int compress_add(struct stk_compress *c, const char *word,
                        char error[STK_COMPRESS_ERROR_MAX])
{
    stk_span name = stk_span_str(word);

    for (size_t i = 0; i < STK_ARRAY_LEN(compress_codings); i++) {
        enum stk_coding coding = compress_codings[i].coding;
        bool found = stk_span_ieq(name, stk_coding_name(coding)) ||
                     stk_span_ieq(name, stk_span_str(compress_codings[i].library));

        if (!found)
            continue;
        if (!stk_encoder_has(coding)) {
            (void)snprintf(error, STK_COMPRESS_ERROR_MAX,
                           "compress: this stoker was built without %s: install %s and build it "
                           "again, or leave %.16s out",
                           compress_codings[i].library, compress_codings[i].package, word);
            return 1;
        }
        for (size_t k = 0; k < c->ncodings; k++) {
            if (c->codings[k] == coding)
                return 0;
        }
        c->codings[c->ncodings++] = coding;
        return 0;
    }
    (void)snprintf(error, STK_COMPRESS_ERROR_MAX,
                   "compress = '%.64s': expected on, off, or some of zstd, br and gzip", word);
    return 1;
}

/* All that there are. */
static int compress_add_all(struct stk_compress *c, char error[STK_COMPRESS_ERROR_MAX])
{
    for (size_t i = 0; i < STK_ARRAY_LEN(compress_codings); i++) {
        if (stk_encoder_has(compress_codings[i].coding))
            c->codings[c->ncodings++] = compress_codings[i].coding;
    }
    if (c->ncodings > 0)
        return 0;
    (void)snprintf(error, STK_COMPRESS_ERROR_MAX,
                   "compress: this stoker was built without zlib, brotli and zstd: install "
                   "zlib1g-dev, libbrotli-dev or libzstd-dev and build it again");
    return 1;
}

static bool compress_is_word(const struct stk_strv *list, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (list->n == 1 && strcasecmp(list->items[0], *words) == 0)
            return true;
    }
    return false;
}

/* "6" for all codings, "gzip=6" for one. */
static int compress_set_level(struct stk_compress *c, const char *item,
                              char error[STK_COMPRESS_ERROR_MAX])
{
    const char *equals = strchr(item, '='), *digits = equals != NULL ? equals + 1 : item;
    stk_span name = stk_span_make(item, equals != NULL ? (size_t)(equals - item) : 0);
    char *end;
    long level = strtol(digits, &end, 10);
    bool known = equals == NULL;

    if (end == digits || *end != '\0' || *digits < '0' || *digits > '9') {
        (void)snprintf(error, STK_COMPRESS_ERROR_MAX,
                       "compress-level = '%.64s': expected a number for all codings, or one as "
                       "gzip=6",
                       item);
        return 1;
    }
    for (size_t i = 0; i < STK_ARRAY_LEN(compress_codings); i++) {
        enum stk_coding coding = compress_codings[i].coding;
        int lowest, highest, def;

        if (equals != NULL && !stk_span_ieq(name, stk_coding_name(coding)))
            continue;
        known = true;
        stk_encoder_levels(coding, &lowest, &highest, &def);
        if (equals == NULL) {
            lowest = 1;
            highest = 9; /* what all of them have */
        }
        if (level < lowest || level > highest) {
            (void)snprintf(error, STK_COMPRESS_ERROR_MAX,
                           "compress-level = '%.64s': expected %d to %d%s", item, lowest, highest,
                           equals == NULL ? " (or a level for one coding, as br=11)" : "");
            return 1;
        }
        c->levels[coding] = (int)level;
    }
    if (!known)
        (void)snprintf(error, STK_COMPRESS_ERROR_MAX,
                       "compress-level = '%.64s': there are gzip, br and zstd", item);
    return known ? 0 : 1;
}

/* "text/html", or with one asterisk at either end of the part behind the slash. */
static int compress_add_type(struct stk_compress *c, const char *type,
                             char error[STK_COMPRESS_ERROR_MAX])
{
    char **more;
    const char *slash = strchr(type, '/'), *star = strchr(type, '*');
    bool good = slash != NULL && slash > type && slash[1] != '\0' && strpbrk(type, " ;,\"") == NULL;

    if (good && star != NULL)
        good =
            star > slash && strchr(star + 1, '*') == NULL && (star == slash + 1 || star[1] == '\0');
    if (!good)
        (void)snprintf(error, STK_COMPRESS_ERROR_MAX,
                       "compress-types = '%.64s': expected a media type, as text/html, text/* or "
                       "application/*+json",
                       type);
    if (!good)
        return 1;
    more = stk_try_realloc(c->types, (c->ntypes + 1) * sizeof *more);
    STK_ASSERT(more != NULL);
    c->types = more;
    c->types[c->ntypes++] = stk_mem_strdup(type);
    return 0;
}

/* Calls `add` for each word of a list: items of their own, or separated by commas. 0, or 1. */
static int compress_each(struct stk_compress *c, const struct stk_strv *list,
                         int (*add)(struct stk_compress *c, const char *word,
                                    char error[STK_COMPRESS_ERROR_MAX]),
                         char error[STK_COMPRESS_ERROR_MAX])
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < list->n; i++) {
        const char *at = list->items[i] + strspn(list->items[i], ", ");

        while (r == 0 && *at != '\0') {
            size_t len = strcspn(at, ", ");
            STK_CLEANUP(stk_mem_freep) char *word = stk_mem_strndup(at, len);

            r = add(c, word, error);
            at += len;
            at += strspn(at, ", ");
        }
    }
    return r;
}

static int compress_read(struct stk_compress *c, const struct stk_config *config,
                         char error[STK_COMPRESS_ERROR_MAX])
{
    static const char *const on[] = {"on", "yes", "true", "1", "all", NULL};
    int r = 0;

    for (int i = STK_CODING_GZIP; i < STK_CODINGS; i++) {
        int lowest, highest;

        stk_encoder_levels((enum stk_coding)i, &lowest, &highest, &c->levels[i]);
    }
    if (compress_is_word(&config->compress, on))
        r = compress_add_all(c, error);
    else
        r = compress_each(c, &config->compress, compress_add, error);
    if (r == 0)
        r = compress_each(c, &config->compress_level, compress_set_level, error);
    return r != 0 ? r : compress_each(c, &config->compress_types, compress_add_type, error);
}

/* ---- encoders ------------------------------------------------------------------------------ */

static struct stk_coder *coder_free(struct stk_coder *coder)
{
    if (coder == NULL)
        return NULL;
    stk_encoder_free(coder->encoder);
    free(coder->file_buf);
    free(coder);
    return NULL;
}

static struct stk_coder *coder_new(const struct stk_compress *c, enum stk_coding coding)
{
    struct stk_coder *coder = stk_try_alloc(sizeof *coder);

    if (coder == NULL)
        return NULL;
    memset(coder, 0, offsetof(struct stk_coder, buf));
    coder->coding = coding;
    stk_list_init(&coder->link);
    coder->encoder = stk_encoder_new(coding, c->levels[coding]);
    return coder->encoder != NULL ? coder : coder_free(coder);
}

static struct stk_coder *compress_acquire(struct stk_compress *c, enum stk_coding coding,
                                          int64_t size)
{
    struct stk_coder *coder;
    struct stk_list *node;

    pthread_mutex_lock(&c->mutex);
    node = stk_list_pop(&c->idle[coding]);
    pthread_mutex_unlock(&c->mutex);
    coder = node != NULL ? stk_container_of(node, struct stk_coder, link) : coder_new(c, coding);
    if (coder != NULL && stk_encoder_begin(coder->encoder, size) < 0)
        coder = coder_free(coder);
    if (coder == NULL)
        return NULL;
    coder->len = 0;
    coder->in = coder->out = coder->left = coder->consumed = 0;
    coder->has_left = coder->under_way = coder->coded = coder->finished = false;
    coder->file = coder->each = coder->chunked = false;
    return coder;
}

/* Mutex held. */
static void compress_arm(struct stk_compress *c)
{
    struct itimerspec its = {.it_value.tv_sec = COMPRESS_IDLE_MS / 1000};

    if (c->armed || c->timer.fd < 0)
        return;
    if (timerfd_settime(c->timer.fd, 0, &its, NULL) == 0)
        c->armed = true;
}

void stk_compress_release(struct stk_serve_request *rq)
{
    struct stk_coder *coder = stk_steal(&rq->coder);
    struct stk_compress *c = rq->t->server->compress;
    struct stk_scoreboard_row *row = rq->t->server->row;

    if (coder == NULL)
        return;
    stk_gather_end(rq->t);
    rq->body_bytes = coder->out;
    stk_scoreboard_add(row, STK_COUNTER_responses_compressed, 1);
    stk_scoreboard_add(row, STK_COUNTER_compress_bytes_in, coder->in);
    stk_scoreboard_add(row, STK_COUNTER_compress_bytes_out, coder->out);
    coder->since = stk_time_mono_coarse_ms();
    pthread_mutex_lock(&c->mutex);
    stk_list_prepend(&c->idle[coder->coding], &coder->link);
    compress_arm(c);
    pthread_mutex_unlock(&c->mutex);
}

/* Frees what nobody used for a while: it stands at the end of its list. */
static void compress_on_timer(struct stk_source *src, uint32_t events, void *who)
{
    struct stk_compress *c = stk_container_of(src, struct stk_compress, timer);
    stk_msec now = stk_time_mono_coarse_ms();
    bool left = false;
    uint64_t n;

    if (read(src->fd, &n, sizeof n) < 0)
        return; /* nothing has come: it comes again */
    pthread_mutex_lock(&c->mutex);
    for (int i = 0; i < STK_CODINGS; i++) {
        struct stk_list *head = &c->idle[i];

        while (!stk_list_is_empty(head)) {
            struct stk_coder *coder = stk_container_of(head->prev, struct stk_coder, link);

            if (now - coder->since < COMPRESS_IDLE_MS)
                break;
            stk_list_remove(&coder->link);
            coder_free(coder);
        }
        left = left || !stk_list_is_empty(head);
    }
    c->armed = false;
    if (left)
        compress_arm(c);
    pthread_mutex_unlock(&c->mutex);
}

/* ---- life ---------------------------------------------------------------------------------- */

int stk_compress_new(struct stk_compress **ret_compress, const struct stk_config *config,
                     struct stk_loop *loop, char error[STK_COMPRESS_ERROR_MAX])
{
    static const char *const off[] = {"off", "no", "false", "0", "none", NULL};
    struct stk_compress *c = stk_new0(struct stk_compress);
    bool is_off = config->compress.n == 0 || compress_is_word(&config->compress, off);
    struct stk_config none;
    int r;

    c->timer = (struct stk_source){.fn = compress_on_timer, .fd = -1};
    c->min_size = (uint64_t)config->compress_min_size;
    for (int i = 0; i < STK_CODINGS; i++)
        stk_list_init(&c->idle[i]);
    pthread_mutex_init(&c->mutex, NULL);
    if (is_off) { /* the others have to be right all the same */
        none = *config;
        none.compress = (struct stk_strv){0};
        r = compress_read(c, &none, error);
    } else {
        r = compress_read(c, config, error);
    }
    if (r != 0 || is_off || loop == NULL) {
        stk_compress_free(c);
        *ret_compress = NULL;
        return r;
    }
    c->loop = loop;
    c->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    r = c->timer.fd < 0 ? -errno : stk_loop_add(loop, &c->timer, EPOLLIN);
    if (r < 0) {
        stk_compress_free(c);
        return r;
    }
    *ret_compress = c;
    return 0;
}

struct stk_compress *stk_compress_free(struct stk_compress *c)
{
    if (c == NULL)
        return NULL;
    if (c->timer.events != 0)
        stk_loop_del(c->loop, &c->timer);
    stk_fd_close(&c->timer.fd);
    for (int i = 0; i < STK_CODINGS; i++) {
        struct stk_list *node;

        while ((node = stk_list_pop(&c->idle[i])) != NULL)
            coder_free(stk_container_of(node, struct stk_coder, link));
    }
    while (c->ntypes > 0)
        free(c->types[--c->ntypes]);
    free(c->types);
    pthread_mutex_destroy(&c->mutex);
    free(c);
    return NULL;
}

/* ---- the head ------------------------------------------------------------------------------ */

/* What the application's head says; offsets of the output buffer, 0: there is none. */
struct compress_facts {
    bool refused; /* something in it forbids to compress */
    bool listed;  /* its type is among those to compress */
    bool stream;  /* text/event-stream */
    bool varies;  /* Vary has Accept-Encoding already, or "*" */
    size_t vary;  /* where the last Vary ends, before its CRLF */
    size_t etag;  /* where a strong ETag begins */
};

static bool compress_type_matches(const char *pattern, stk_span type)
{
    const char *star = strchr(pattern, '*');
    size_t before, after;

    if (star == NULL)
        return stk_span_ieq(type, stk_span_str(pattern));
    before = (size_t)(star - pattern);
    after = strlen(star + 1);
    return type.len > before + after &&
           stk_span_ieq(stk_span_make(type.ptr, before), stk_span_make(pattern, before)) &&
           stk_span_ieq(stk_span_make(type.ptr + type.len - after, after),
                        stk_span_make(star + 1, after));
}

static void compress_see_type(const struct stk_compress *c, stk_span value,
                              struct compress_facts *facts)
{
    size_t len = 0;
    stk_span type;

    while (len < value.len && value.ptr[len] != ';' && value.ptr[len] != ' ' &&
           value.ptr[len] != '\t')
        len++;
    type = stk_span_make(value.ptr, len);
    facts->stream = stk_span_ieq(type, STK_SPAN_LIT("text/event-stream"));
    facts->listed = false;
    for (size_t i = 0; i < c->ntypes && !facts->listed; i++) {
        /* Events are only compressed by their own name: their clients wait for each. */
        if (facts->stream && strchr(c->types[i], '*') != NULL)
            continue;
        facts->listed = compress_type_matches(c->types[i], type);
    }
}

static bool compress_list_has(stk_span list, stk_span word)
{
    stk_span member;

    while (stk_head_edit_member(&list, &member)) {
        if (stk_span_ieq(member, word))
            return true;
    }
    return false;
}

static void compress_see(const struct stk_compress *c, const struct stk_out *out,
                         struct compress_facts *facts)
{
    struct stk_head_line line = {0};

#define IS(lit) stk_span_ieq(line.name, STK_SPAN_LIT(lit))
    *facts = (struct compress_facts){0};
    while (stk_head_edit_next(out, &line)) {
        if (IS("content-type")) {
            compress_see_type(c, line.value, facts);
        } else if (IS("content-encoding") || IS("content-range") || IS("content-md5") ||
                   IS("digest") || IS("content-digest") || IS("repr-digest")) {
            /* A digest is that of the bytes as they are. */
            facts->refused = true;
        } else if (IS("cache-control")) {
            facts->refused =
                facts->refused || compress_list_has(line.value, STK_SPAN_LIT("no-transform"));
        } else if (IS("vary")) {
            facts->vary = (size_t)(line.value.ptr + line.value.len - out->buf);
            facts->varies = facts->varies ||
                            compress_list_has(line.value, STK_SPAN_LIT("accept-encoding")) ||
                            compress_list_has(line.value, STK_SPAN_LIT("*"));
            if (line.value.len == 0)
                facts->vary = 0;
        } else if (IS("etag")) {
            facts->etag = line.value.len > 1 && line.value.ptr[0] == '"'
                              ? (size_t)(line.value.ptr - out->buf)
                              : 0;
        }
    }
#undef IS
}

/* The values of the request's fields of a name, one after the other; NULL-terminated by length. */
static bool compress_next_field(const struct stk_head *head, stk_span name, unsigned *at,
                                stk_span *ret_value)
{
    uint32_t hash = stk_http1_field_hash(name);

    while (*at < head->nfields) {
        const struct stk_head_field *f = &head->fields[(*at)++];

        if (f->hash == hash && stk_span_ieq(stk_head_field_name(head, f), name)) {
            *ret_value = stk_head_field_value(head, f);
            return true;
        }
    }
    return false;
}

static enum stk_coding compress_choose(const struct stk_compress *c, const struct stk_head *head)
{
    enum stk_coding best = STK_CODING_IDENTITY;
    struct stk_accept accept;
    unsigned at = 0, quality = 0;
    stk_span value;

    stk_accept_init(&accept);
    while (compress_next_field(head, STK_SPAN_LIT("accept-encoding"), &at, &value))
        stk_accept_add(&accept, value);
    for (size_t i = 0; i < c->ncodings; i++) {
        unsigned q = stk_accept_quality(&accept, c->codings[i]);

        if (q > quality) {
            quality = q;
            best = c->codings[i];
        }
    }
    return stk_accept_quality(&accept, STK_CODING_IDENTITY) > quality ? STK_CODING_IDENTITY : best;
}

/* Adds Vary, and makes the ETag weak; from the back to the front, so that offsets stay true. */
static void compress_mark(struct stk_out *out, const struct compress_facts *facts, bool weaken)
{
    static const stk_span weak = {"W/", 2}, member = {", Accept-Encoding", 17};
    size_t etag = weaken ? facts->etag : 0;

    if (etag > facts->vary)
        stk_head_edit_insert(out, etag, weak);
    if (facts->vary > 0 && !facts->varies)
        stk_head_edit_insert(out, facts->vary, member);
    if (etag > 0 && etag < facts->vary)
        stk_head_edit_insert(out, etag, weak);
    if (facts->vary == 0 && !facts->varies)
        stk_head_edit_add(out, STK_SPAN_LIT("Vary"), STK_SPAN_LIT("Accept-Encoding"));
}

/* What is no longer true of the coded body. */
static void compress_strip(struct stk_out *out)
{
    struct stk_head_line line = {0};

    while (stk_head_edit_next(out, &line)) {
        if (stk_span_ieq(line.name, STK_SPAN_LIT("content-length")) ||
            stk_span_ieq(line.name, STK_SPAN_LIT("accept-ranges")))
            stk_head_edit_remove(out, &line);
    }
}

/*
 * A 304 to a client whose copy was compressed: it asked with the ETag that it was given, and gets
 * that one back, as its 200 would have had it (RFC 9110 15.4.5).
 */
static void compress_not_modified(struct stk_serve_request *rq, struct compress_facts *facts)
{
    struct stk_out *out = &rq->t->out;
    const char *begin = out->buf + facts->etag;
    const char *end = facts->etag > 0 ? memchr(begin + 1, '"', out->len - facts->etag - 1) : NULL;
    stk_span etag = stk_span_make(begin, end != NULL ? (size_t)(end + 1 - begin) : 0);
    unsigned at = 0;
    stk_span list, member;

    if (etag.len == 0)
        return;
    while (compress_next_field(rq->base.head, STK_SPAN_LIT("if-none-match"), &at, &list)) {
        while (stk_head_edit_member(&list, &member)) {
            if (member.len == etag.len + 2 && memcmp(member.ptr, "W/", 2) == 0 &&
                memcmp(member.ptr + 2, etag.ptr, etag.len) == 0) {
                compress_mark(out, facts, true);
                return;
            }
        }
    }
}

/* Whether a body of this size is worth it; one that is not known is. */
static bool compress_is_long(const struct stk_compress *c, const struct stk_serve_request *rq,
                             int64_t length)
{
    if (rq->has_length)
        return rq->remaining >= c->min_size;
    /* Of HEAD nobody knows: most applications leave the body out there, and GET's is longer. */
    if (length < 0 || (length == 0 && rq->base.head->is_head))
        return true;
    return (uint64_t)length >= c->min_size && length > 0;
}

void stk_compress_head(struct stk_compress *c, struct stk_serve_request *rq, int64_t *length)
{
    struct stk_out *out = &rq->t->out;
    struct compress_facts facts;
    enum stk_coding coding;
    int64_t size = rq->has_length ? (int64_t)rq->remaining : *length;

    if (rq->status == 204 || rq->status == 206)
        return;
    compress_see(c, out, &facts);
    if (rq->status == 304) {
        compress_not_modified(rq, &facts);
        return;
    }
    if (facts.refused || !facts.listed || !compress_is_long(c, rq, *length))
        return;
    coding = compress_choose(c, rq->base.head);
    if (coding != STK_CODING_IDENTITY && !rq->base.head->is_head) {
        rq->coder = compress_acquire(c, coding, size);
        if (rq->coder == NULL)
            coding = STK_CODING_IDENTITY; /* without memory it goes as it is */
    }
    compress_mark(out, &facts, coding != STK_CODING_IDENTITY);
    if (coding == STK_CODING_IDENTITY)
        return;
    compress_strip(out);
    stk_head_edit_add(out, STK_SPAN_LIT("Content-Encoding"), stk_coding_name(coding));
    if (rq->coder != NULL) {
        rq->coder->has_left = rq->has_length;
        rq->coder->left = rq->has_length ? rq->remaining : 0;
        rq->coder->each = facts.stream;
    } else {
        *length = -1;
    }
    rq->has_length = false;
    rq->remaining = 0;
}
