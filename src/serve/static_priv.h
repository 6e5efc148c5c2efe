/* What the files of the static part share. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "app/request.h"
#include "base/list.h"
#include "base/time.h"
#include "serve/static.h"
#include "wire/accept.h"

enum {
    STK_STATIC_PATH_MAX = 1024,         /* bytes of a path below a directory */
    STK_STATIC_MEMORY_FILE = 32 * 1024, /* files of at most this size are kept in memory */
    STK_STATIC_MEMORY_MAX = 32 << 20,   /* bytes of all of them */
    STK_STATIC_FRESH_MS = 1000,         /* what was looked up counts for so long */
    STK_STATIC_MISSES = 512,            /* paths remembered that lead nowhere */
    STK_STATIC_STALE_S = 60, /* a compressed sibling so much older than its file is forgotten */
    STK_STATIC_BUCKETS = 2048,
};

/* config->static_follow_symlinks: the choices of the option, in order. */
enum stk_static_links {
    STK_STATIC_LINKS_BENEATH,
    STK_STATIC_LINKS_NEVER,
    STK_STATIC_LINKS_ALWAYS,
};

struct stk_static {
    struct stk_statics *all;
    stk_span prefix; /* without a slash at its end */
    const char **dirs;
    size_t ndirs;
    bool pass;        /* what is not there is somebody else's */
    bool index_asked; /* indexes only where static-index names them */
    const char *try;  /* path in the directory, or NULL */
};

struct static_type {
    char *ending; /* in lower case */
    char *type;
};

struct static_types {
    struct static_type *rows; /* in order of their endings */
    size_t n;
};

struct static_expiry {
    const char *pattern; /* of a name, of a path (with "/" first), or of a type ("/" within) */
    size_t len;
    int64_t max_age; /* -1: no-cache */
    char *cache;
};

enum static_kind {
    STATIC_MISSING,
    STATIC_FORBIDDEN,
    STATIC_DIRECTORY, /* its URL lacks the slash at the end */
    STATIC_FILE,
};

struct static_rep {
    struct stk_static_file file;
    struct stat st;
    enum stk_coding coding;
    char *data;
    char etag[STK_STATIC_ETAG_MAX];
    bool has_head;
    struct stk_response_head head; /* of a plain 200, with has_head */
};

/* What a lookup finds: descriptors of a file and its compressed siblings. */
struct static_found {
    enum static_kind kind;
    unsigned n;
    int fds[STK_CODINGS];
    struct stat st[STK_CODINGS];
    enum stk_coding codings[STK_CODINGS];
    char rel[STK_STATIC_PATH_MAX + 2]; /* of the file in its directory; NUL-terminated */
};

struct static_entry {
    struct static_entry *next; /* of its bucket */
    struct stk_list lru;
    _Atomic unsigned refs;
    _Atomic stk_msec checked;
    uint64_t hash;
    const struct stk_static *root;
    enum static_kind kind;
    bool cached;
    unsigned nfds;
    size_t memory;
    char *path;
    size_t path_len;
    const struct static_expiry *expiry;
    unsigned n;
    struct static_rep reps[];
};

struct stk_statics {
    struct stk_static *roots; /* the longest prefix first */
    size_t nroots;
    enum stk_static_links links;
    bool dotfiles;
    const char *const *indexes;
    size_t nindexes;
    struct static_types own, system;
    struct static_expiry *expiries;
    size_t nexpiries;
    _Atomic bool no_openat2;

    pthread_mutex_t mutex; /* of what follows */
    uint64_t seed;
    struct static_entry *buckets[STK_STATIC_BUCKETS];
    struct stk_list used, misses; /* the latest first */
    unsigned nused, nmisses, nfds;
    unsigned max_used, max_fds;
    size_t memory;
};

/* static_open.c */
/*
 * The path in a directory for the part of a URL below the prefix: no empty segments. False: it is
 * not one that could be served (dots, NUL, backslash, hidden, too long).
 */
bool stk_static_clean(stk_span below, bool dotfiles, bool well_known,
                      char rel[STK_STATIC_PATH_MAX + 2], bool *ret_slash);
/* Opens a path beneath a directory for reading, never blocking. A descriptor, or -errno. */
int stk_static_open(int dir, const char *rel, enum stk_static_links links,
                    _Atomic bool *no_openat2);
/* The same by walking, without any symbolic link. */
int stk_static_open_walk(int dir, const char *rel);
/* Looks a path up; the descriptors in *ret_found are the caller's. */
void stk_static_lookup(const struct stk_static *root, stk_span below,
                       struct static_found *ret_found);
void stk_static_found_close(struct static_found *found);

/* static_types.c */
stk_span stk_static_type(const struct stk_statics *s, stk_span name);
void stk_static_types_load(struct stk_statics *s, const struct stk_config *config);
void stk_static_types_free(struct static_types *types);
/* Parses "PATTERN=DURATION"; NULL, or what was expected. */
const char *stk_static_expiry_parse(const char *text, struct static_expiry *ret_expiry);
const struct static_expiry *stk_static_expiry_find(const struct stk_statics *s, stk_span prefix,
                                                   const char *rel, stk_span type);
bool stk_static_glob(stk_span pattern, stk_span text);

/* static_cache.c */
/* The entry of a path, referenced: fresh from the cache, or looked up. NULL without memory. */
struct static_entry *stk_static_get(const struct stk_static *root, stk_span below, stk_msec now,
                                    void (*prepare)(void *arg, struct static_entry *entry),
                                    void *arg);
void stk_static_put(struct static_entry *entry);

/* static_send.c: pieces of stk_static_send. 0, or as the services of a response. */
int stk_static_send_head(struct stk_serve_request *rq, const struct stk_static_file *f);
int stk_static_send_expires(struct stk_serve_request *rq, const struct stk_static_file *f);
int stk_static_send_bytes(struct stk_serve_request *rq, const struct stk_static_file *f,
                          uint64_t off, uint64_t len, unsigned flags);
