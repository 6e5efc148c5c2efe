/*
 * From the path of a URL to an open file, and to nothing outside of its directory.
 *
 * The path is taken apart before the kernel sees it: "..", ".", NUL and backslashes are refused,
 * whether they were escaped or not, and so are hidden names. What is left is opened with openat2()
 * and RESOLVE_BENEATH, by which the kernel itself refuses to leave the directory, also through
 * symbolic links, and also if somebody moves directories meanwhile. Kernels before 5.6, and
 * sandboxes that do not know the call, are served by a walk that follows no link at all.
 *
 * Files are opened without blocking, and only regular ones are served: a FIFO or a device can
 * neither hold a thread nor be read. The directory is opened for each lookup, so that a link
 * that is switched to a new release is seen; lookups are rare, for what they find is kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "serve/static_priv.h"

enum { STATIC_OPEN_TRIES = 8, STATIC_NAME_MAX = 255 };

#define STATIC_FLAGS (O_RDONLY | O_NONBLOCK | O_NOCTTY)

static const char *const static_suffixes[STK_CODINGS] = {
    [STK_CODING_GZIP] = ".gz",
    [STK_CODING_BR] = ".br",
    [STK_CODING_ZSTD] = ".zst",
};

/* Whether a segment may be a name of something that is served. */
static bool static_segment(const char *p, size_t len, bool dotfiles, bool well_known)
{
    if (len > STATIC_NAME_MAX || memchr(p, '\0', len) != NULL || memchr(p, '\\', len) != NULL)
        return false;
    if (*p != '.')
        return true;
    if (len == 1 || (len == 2 && p[1] == '.'))
        return false;
    return dotfiles ||
           (well_known && stk_span_eq(stk_span_make(p, len), STK_SPAN_LIT(".well-known")));
}

bool stk_static_clean(stk_span below, bool dotfiles, bool well_known,
                      char rel[STK_STATIC_PATH_MAX + 2], bool *ret_slash)
{
    const char *p = below.ptr, *end = p + below.len;
    size_t len = 0;

    if (below.len > STK_STATIC_PATH_MAX)
        return false;
    *ret_slash = below.len > 0 && end[-1] == '/';
    while (p < end) {
        const char *slash = memchr(p, '/', (size_t)(end - p));
        size_t n = (size_t)((slash ? slash : end) - p);

        if (n > 0) {
            if (!static_segment(p, n, dotfiles, well_known && len == 0))
                return false;
            if (len > 0)
                rel[len++] = '/';
            memcpy(rel + len, p, n);
            len += n;
        }
        p += slash ? n + 1 : n;
    }
    rel[len] = '\0';
    return true;
}

int stk_static_open_walk(int dir, const char *rel)
{
    int at = dir, fd = -1, r;

    for (;;) {
        size_t len = strcspn(rel, "/");
        bool last = rel[len] == '\0';
        char name[STATIC_NAME_MAX + 1];

        if (len > STATIC_NAME_MAX)
            r = -ENAMETOOLONG;
        else {
            memcpy(name, rel, len);
            name[len] = '\0';
            r = openat(at, name,
                       last ? STATIC_FLAGS | O_CLOEXEC | O_NOFOLLOW
                            : O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (r < 0)
                r = -errno;
        }
        stk_fd_close(&fd);
        if (r < 0 || last)
            return r;
        at = fd = r;
        rel += len + 1;
    }
}

int stk_static_open(int dir, const char *rel, enum stk_static_links links, _Atomic bool *no_openat2)
{
    struct open_how how = {.flags = STATIC_FLAGS | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};

    if (links == STK_STATIC_LINKS_ALWAYS) {
        int fd = openat(dir, rel, STATIC_FLAGS | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
    }
    if (links == STK_STATIC_LINKS_NEVER)
        how.resolve |= RESOLVE_NO_SYMLINKS;
    for (int tries = 0; !atomic_load_explicit(no_openat2, memory_order_relaxed); tries++) {
        long fd = syscall(SYS_openat2, dir, rel, &how, sizeof how);

        if (fd >= 0)
            return (int)fd;
        if (errno == ENOSYS || errno == EPERM) /* no such call, or a sandbox that says no */
            break;
        if ((errno != EAGAIN && errno != EINTR) || tries == STATIC_OPEN_TRIES)
            return -errno; /* EAGAIN: something was moved meanwhile */
    }
    atomic_store_explicit(no_openat2, true, memory_order_relaxed);
    return stk_static_open_walk(dir, rel);
}

void stk_static_found_close(struct static_found *found)
{
    for (unsigned i = 0; i < found->n; i++)
        stk_fd_close(&found->fds[i]);
    found->n = 0;
}

/* Opens; 0 and what it is, or a negative errno. */
static int static_look(const struct stk_static *root, int dir, const char *rel, int *ret_fd,
                       struct stat *ret_st)
{
    struct stk_statics *s = root->all;
    int fd = dir < 0 ? open(rel, STATIC_FLAGS | O_CLOEXEC)
                     : stk_static_open(dir, rel, s->links, &s->no_openat2);

    if (fd < 0)
        return dir < 0 ? -errno : fd;
    if (fstat(fd, ret_st) < 0) {
        int r = -errno;

        stk_fd_close(&fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

static void static_add(struct static_found *f, int fd, const struct stat *st,
                       enum stk_coding coding)
{
    f->fds[f->n] = fd;
    f->st[f->n] = *st;
    f->codings[f->n++] = coding;
}

/* The compressed siblings of the file at `path`, which was found. */
static void static_siblings(const struct stk_static *root, int dir, const char *path,
                            struct static_found *f)
{
    char sibling[STK_STATIC_PATH_MAX + 2 + 8];
    size_t len = strlen(path);

    if (len > STK_STATIC_PATH_MAX)
        return;
    memcpy(sibling, path, len);
    for (int c = STK_CODING_GZIP; c < STK_CODINGS; c++) {
        const char *suffix = static_suffixes[c];
        size_t n = strlen(suffix);
        struct stat st = {0};
        int fd = -1;

        if (len > n && memcmp(path + len - n, suffix, n) == 0)
            return; /* it is compressed itself */
        memcpy(sibling + len, suffix, n + 1);
        if (static_look(root, dir, sibling, &fd, &st) < 0)
            continue;
        if (S_ISREG(st.st_mode) && st.st_size > 0 && st.st_size < f->st[0].st_size &&
            st.st_mtime + STK_STATIC_STALE_S >= f->st[0].st_mtime)
            static_add(f, fd, &st, (enum stk_coding)c);
        else
            stk_fd_close(&fd);
    }
}

static enum static_kind static_kind_of(int error)
{
    return error == -EACCES || error == -EPERM ? STATIC_FORBIDDEN : STATIC_MISSING;
}

/* A directory: its first index. */
static enum static_kind static_index(const struct stk_static *root, int dir, bool slash,
                                     struct static_found *f)
{
    struct stk_statics *s = root->all;
    size_t len = strlen(f->rel);
    static const char *const usual[] = {"index.html"};
    const char *const *names = s->nindexes > 0 ? s->indexes : usual;
    size_t n = s->nindexes > 0 ? s->nindexes : root->index_asked ? 0 : 1;

    for (size_t i = 0; i < n; i++) {
        size_t name = strlen(names[i]);
        struct stat st = {0};
        int fd = -1, r;

        if (len + name + 1 > STK_STATIC_PATH_MAX)
            continue;
        if (len > 0)
            f->rel[len] = '/';
        memcpy(f->rel + len + (len > 0), names[i], name + 1);
        r = static_look(root, dir, f->rel, &fd, &st);
        if (r < 0 && static_kind_of(r) == STATIC_FORBIDDEN)
            return STATIC_FORBIDDEN;
        if (r < 0)
            continue;
        if (S_ISREG(st.st_mode) && slash) {
            static_add(f, fd, &st, STK_CODING_IDENTITY);
            return STATIC_FILE;
        }
        stk_fd_close(&fd);
        if (S_ISREG(st.st_mode))
            return STATIC_DIRECTORY;
    }
    return STATIC_MISSING;
}

/* One directory, or the one file, of a prefix. */
static enum static_kind static_lookup_in(const struct stk_static *root, const char *path,
                                         bool slash, struct static_found *f)
{
    int fd = -1, dir = open(path, O_PATH | O_CLOEXEC);
    enum static_kind kind = STATIC_MISSING;
    struct stat st;
    int r;

    if (dir < 0)
        return static_kind_of(-errno);
    if (fstat(dir, &st) < 0 || !S_ISDIR(st.st_mode)) {
        stk_fd_close(&dir);
        if (f->rel[0] != '\0' || slash || strlen(path) > STK_STATIC_PATH_MAX)
            return STATIC_MISSING;
        r = static_look(root, -1, path, &fd, &st);
    } else if (f->rel[0] == '\0') {
        r = -EISDIR;
    } else {
        r = static_look(root, dir, f->rel, &fd, &st);
    }
    if (r == -EISDIR || (r == 0 && S_ISDIR(st.st_mode))) {
        stk_fd_close(&fd);
        kind = static_index(root, dir, slash, f);
    } else if (r < 0) {
        kind = static_kind_of(r);
    } else if (S_ISREG(st.st_mode) && !slash) {
        static_add(f, stk_fd_steal(&fd), &st, STK_CODING_IDENTITY);
        kind = STATIC_FILE;
    }
    stk_fd_close(&fd);
    if (kind == STATIC_FILE) {
        static_siblings(root, dir, dir < 0 ? path : f->rel, f);
        if (dir < 0) {
            const char *name = strrchr(path, '/');

            name = name ? name + 1 : path;
            memcpy(f->rel, name, strlen(name) + 1); /* the whole path was found to fit */
        }
    }
    stk_fd_close(&dir);
    return kind;
}

void stk_static_lookup(const struct stk_static *root, stk_span below,
                       struct static_found *ret_found)
{
    struct static_found *f = ret_found;
    char rel[STK_STATIC_PATH_MAX + 2];
    bool slash;

    f->kind = STATIC_MISSING;
    f->n = 0;
    if (!stk_static_clean(below, root->all->dotfiles, root->prefix.len == 0, rel, &slash))
        return;
    for (size_t i = 0; i < root->ndirs; i++) {
        enum static_kind kind;

        memcpy(f->rel, rel, sizeof rel);
        kind = static_lookup_in(root, root->dirs[i], slash, f);
        if (kind != STATIC_MISSING) {
            f->kind = kind;
            return;
        }
    }
}
