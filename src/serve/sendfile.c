/*
 * The application decides who gets a file, and the server sends it: with ranges, conditions and
 * sendfile(), and without holding a thread of the application for a slow client.
 *
 * The name of a file is the application's, but often made of what a client has sent. So it counts
 * only below the directories that the administrator has named for this, the kernel sees to it that
 * nothing leads out of them (static_open.c), and what cannot be sent is logged with the reason.
 *
 * Whether a name is percent-encoded depends on who wrote it: Flask and Django's packages write
 * X-Sendfile as it is, Apache decodes it; nginx decodes X-Accel-Redirect, and not everybody encodes
 * it. Both readings are tried, first the one that is usual for the field; neither can lead out.
 *
 * What the application says of the response stays: it may be for one user (Set-Cookie,
 * Cache-Control), have another name (Content-Disposition) and validators of its own. What it says
 * of its body goes: that is empty, as a rule. A file is looked up each time, because applications
 * make files and name them in the same moment.
 */
#include "serve/sendfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "serve/head_edit.h"
#include "serve/request.h"
#include "serve/server.h"
#include "serve/static_priv.h"
#include "wire/http_date.h"
#include "wire/uri.h"

enum {
    SENDFILE_SMALL = 16 * 1024, /* leaves together with its head */
    SENDFILE_SHOWN = 200,       /* bytes of a name in the log */
    SENDFILE_TYPE_MAX = 256,
};

struct sendfile_root {
    stk_span
        prefix; /* of X-Accel-Redirect, without a slash at its end; or the directory's own path */
    const char *dir;
    size_t item;
};

struct stk_sendfile {
    struct stk_statics *statics;
    struct sendfile_root *dirs; /* of X-Sendfile, in their order */
    size_t ndirs;
    struct sendfile_root *maps; /* of X-Accel-Redirect, the longest prefix first */
    size_t nmaps;
};

/* What the head of the application says. */
struct sendfile_facts {
    stk_span name; /* of the file; len 0: none was named */
    bool accel;    /* by X-Accel-Redirect */
    bool twice;    /* by two fields that do not agree */
    stk_span type, charset, etag, modified, encoding;
    char base[NAME_MAX + 1]; /* the last part of the name, as it was read */
};

/* ---- the name of the file ------------------------------------------------------------------- */

bool stk_sendfile_tidy(const char *path, size_t len, char *out)
{
    bool absolute = len > 0 && path[0] == '/';
    const char *end = path + len;
    size_t n = 0;

    while (path < end) {
        const char *slash = memchr(path, '/', (size_t)(end - path));
        size_t part = (size_t)((slash ? slash : end) - path);

        if (memchr(path, '\0', part) != NULL)
            return false;
        if (part == 2 && memcmp(path, "..", 2) == 0) {
            if (n == 0)
                return false;
            while (n > 0 && out[n - 1] != '/')
                n--;
            n -= n > 0;
        } else if (part > 0 && !(part == 1 && *path == '.')) {
            if (n > 0 || absolute)
                out[n++] = '/';
            memcpy(out + n, path, part);
            n += part;
        }
        path += slash ? part + 1 : part;
    }
    out[n] = '\0';
    return true;
}

/* Opens the file at `below` in a directory, a regular one. A descriptor and *ret_st, or -errno. */
static int sendfile_open_in(const struct stk_sendfile *sf, const char *dir, stk_span below,
                            struct stat *ret_st)
{
    STK_CLEANUP(stk_fd_closep) int at = -1;
    char rel[STK_STATIC_PATH_MAX + 2];
    bool slash = false;
    int fd;

    if (!stk_static_clean(below, true, true, rel, &slash))
        return below.len > STK_STATIC_PATH_MAX ? -ENAMETOOLONG : -EXDEV;
    if (rel[0] == '\0' || slash)
        return -EISDIR;
    at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (at < 0)
        return -errno;
    fd = stk_static_open(at, rel, sf->statics->links, &sf->statics->no_openat2);
    if (fd < 0)
        return fd;
    if (fstat(fd, ret_st) < 0 || !S_ISREG(ret_st->st_mode)) {
        int r = S_ISDIR(ret_st->st_mode) ? -EISDIR : -EINVAL;

        stk_fd_close(&fd);
        return r;
    }
    return fd;
}

/* Of two failures the one to be told: that somebody may not, before that there is nothing. */
static int sendfile_worse(int a, int b)
{
    return a == -ENOENT || a == -ENOTDIR ? b : a;
}

/* What stands behind a directory in a path; false: it is not below it. */
static bool sendfile_below(stk_span dir, stk_span path, stk_span *ret_below)
{
    if (path.len <= dir.len || memcmp(path.ptr, dir.ptr, dir.len) != 0 || path.ptr[dir.len] != '/')
        return false;
    *ret_below = stk_span_make(path.ptr + dir.len, path.len - dir.len);
    return true;
}

/*
 * An absolute path: below one of the directories, by the name that the option has or by what that
 * is without symbolic links, for many applications begin with the real path of their code.
 */
static int sendfile_open_absolute(const struct stk_sendfile *sf, stk_span path, struct stat *ret_st)
{
    int fd = -EXDEV;

    for (size_t i = 0; i < sf->ndirs; i++) {
        const struct sendfile_root *root = &sf->dirs[i];
        char real[PATH_MAX];
        stk_span below;

        if (!sendfile_below(root->prefix, path, &below) &&
            (realpath(root->dir, real) == NULL ||
             !sendfile_below(stk_span_str(real), path, &below)))
            continue;
        fd = sendfile_open_in(sf, root->dir, below, ret_st);
        if (fd >= 0)
            return fd;
    }
    return fd;
}

static int sendfile_open_path(const struct stk_sendfile *sf, stk_span name, struct stat *ret_st)
{
    char path[PATH_MAX + 1];
    int fd = -ENOENT;

    if (name.len > PATH_MAX - 1)
        return -ENAMETOOLONG;
    if (!stk_sendfile_tidy(name.ptr, name.len, path))
        return -EXDEV;
    if (name.ptr[0] == '/')
        return sendfile_open_absolute(sf, stk_span_str(path), ret_st);
    for (size_t i = 0; i < sf->ndirs; i++) {
        int r = sendfile_open_in(sf, sf->dirs[i].dir, stk_span_str(path), ret_st);

        if (r >= 0)
            return r;
        fd = sendfile_worse(fd, r);
    }
    return fd;
}

/* A path as that of a request, below one of the prefixes. */
static int sendfile_open_uri(const struct stk_sendfile *sf, stk_span uri, struct stat *ret_st)
{
    stk_span below;
    int fd = -ENOENT;
    bool found = false;

    for (size_t i = 0; i < sf->nmaps; i++) {
        int r;

        if (!sendfile_below(sf->maps[i].prefix, uri, &below))
            continue;
        r = sendfile_open_in(sf, sf->maps[i].dir, below, ret_st);
        if (r >= 0)
            return r;
        fd = sendfile_worse(fd, r);
        found = true;
    }
    return found ? fd : -EXDEV;
}

/* Opens what was named, by one reading of it. */
static int sendfile_open_as(const struct stk_sendfile *sf, struct sendfile_facts *facts,
                            stk_span name, struct stat *ret_st)
{
    int fd =
        facts->accel ? sendfile_open_uri(sf, name, ret_st) : sendfile_open_path(sf, name, ret_st);
    const char *slash = memrchr(name.ptr, '/', name.len), *base = slash ? slash + 1 : name.ptr;
    size_t len = name.len - (size_t)(base - name.ptr);

    if (fd >= 0 && len <= NAME_MAX) {
        memcpy(facts->base, base, len);
        facts->base[len] = '\0';
    }
    return fd;
}

/* The same by the usual reading, and then by the other one. */
static int sendfile_open(const struct stk_sendfile *sf, struct sendfile_facts *facts,
                         struct stat *ret_st)
{
    const char *query = facts->accel ? memchr(facts->name.ptr, '?', facts->name.len) : NULL;
    stk_span plain = facts->name, coded = plain;
    char decoded[PATH_MAX];
    int fd, other;

    if (plain.len >= sizeof decoded)
        return -ENAMETOOLONG;
    if (query != NULL)
        coded.len = (size_t)(query - coded.ptr);
    coded = stk_span_make(decoded, stk_uri_unescape(decoded, coded));
    if (stk_span_eq(coded, plain))
        return sendfile_open_as(sf, facts, plain, ret_st);
    fd = sendfile_open_as(sf, facts, facts->accel ? coded : plain, ret_st);
    if (fd >= 0)
        return fd;
    other = sendfile_open_as(sf, facts, facts->accel ? plain : coded, ret_st);
    return other >= 0 ? other : fd;
}

/* ---- the head ------------------------------------------------------------------------------- */

static void sendfile_name(struct sendfile_facts *facts, stk_span value, bool accel)
{
    if (value.len == 0)
        return;
    if (facts->name.len > 0 && (facts->accel != accel || !stk_span_eq(facts->name, value)))
        facts->twice = true;
    facts->name = value;
    facts->accel = accel;
}

static bool sendfile_is_path(const struct stk_sendfile *sf, stk_span name)
{
    return sf->ndirs > 0 && (stk_span_ieq(name, STK_SPAN_LIT("x-sendfile")) ||
                             stk_span_ieq(name, STK_SPAN_LIT("x-lighttpd-send-file")));
}

static bool sendfile_is_accel(const struct stk_sendfile *sf, stk_span name)
{
    return sf->nmaps > 0 && stk_span_ieq(name, STK_SPAN_LIT("x-accel-redirect"));
}

/* Takes the fields that name a file out. */
static void sendfile_find(const struct stk_sendfile *sf, struct stk_out *out,
                          struct sendfile_facts *facts)
{
    struct stk_head_line line = {0};

    while (stk_head_edit_next(out, &line)) {
        if (sendfile_is_path(sf, line.name))
            sendfile_name(facts, line.value, false);
        else if (sendfile_is_accel(sf, line.name))
            sendfile_name(facts, line.value, true);
    }
}

static void sendfile_strip(const struct stk_sendfile *sf, struct stk_out *out)
{
    struct stk_head_line line = {0};

    while (stk_head_edit_next(out, &line))
        if (sendfile_is_path(sf, line.name) || sendfile_is_accel(sf, line.name))
            stk_head_edit_remove(out, &line);
}

/* Fields that are about the application's body, or for a front end: none of the client's. */
static bool sendfile_is_dropped(const struct stk_sendfile *sf, stk_span name)
{
    static const stk_span about_body[] = {
        STK_SPAN_LIT("content-length"),
        STK_SPAN_LIT("content-range"),
        STK_SPAN_LIT("accept-ranges"),
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(about_body); i++)
        if (stk_span_ieq(name, about_body[i]))
            return true;
    return sendfile_is_path(sf, name) ||
           (sf->nmaps > 0 && name.len > 8 &&
            stk_span_ieq(stk_span_make(name.ptr, 8), STK_SPAN_LIT("x-accel-")));
}

static bool sendfile_is_etag(stk_span value)
{
    size_t begin = value.len > 2 && memcmp(value.ptr, "W/", 2) == 0 ? 2 : 0;

    return value.len >= begin + 2 && value.ptr[begin] == '"' && value.ptr[value.len - 1] == '"' &&
           memchr(value.ptr + begin + 1, '"', value.len - begin - 2) == NULL;
}

/*
 * Copies the application's fields to `lines` (as long as its head), those that have a place of
 * their own in the response to *facts, which points there. Returns the length of the others.
 */
static size_t sendfile_read(const struct stk_sendfile *sf, const struct stk_out *out, char *lines,
                            struct sendfile_facts *facts)
{
    struct stk_head_line line = {0};
    char *end = lines + (out->len - out->mark), *values = end;
    size_t len = 0;
    int64_t date;

    while (stk_head_edit_next(out, &line)) {
        stk_span *place = NULL;
        bool usable = true;

        if (stk_span_ieq(line.name, STK_SPAN_LIT("content-type"))) {
            place = &facts->type;
        } else if (stk_span_ieq(line.name, STK_SPAN_LIT("content-encoding"))) {
            place = &facts->encoding;
        } else if (stk_span_ieq(line.name, STK_SPAN_LIT("etag"))) {
            place = sendfile_is_etag(line.value) ? &facts->etag : NULL;
        } else if (stk_span_ieq(line.name, STK_SPAN_LIT("last-modified"))) {
            place = &facts->modified;
            usable = stk_http_date_parse(line.value, &date) == 0;
        } else if (sf->nmaps > 0 && stk_span_ieq(line.name, STK_SPAN_LIT("x-accel-charset"))) {
            place = &facts->charset;
        }
        if (place != NULL && usable) {
            values -= line.value.len;
            memcpy(values, line.value.ptr, line.value.len);
            *place = stk_span_make(values, line.value.len);
        } else if (place == NULL && !sendfile_is_dropped(sf, line.name)) {
            memcpy(lines + len, out->buf + line.off, line.len);
            len += line.len;
        }
    }
    return len;
}

/* ---- the response --------------------------------------------------------------------------- */

/* The interpreter's lock is given away while a disk may be waited for. */
static void sendfile_unlock(struct stk_serve_request *rq, bool unlock)
{
    const struct stk_server *server = rq->t->server;

    /* With a mutex of a detached request nobody may wait for the interpreter. */
    if (server->host_ops->unlock == NULL || rq->detached)
        return;
    if (unlock)
        server->host_ops->unlock(server->host, rq->t->lead_thread->host_thread);
    else
        server->host_ops->lock(server->host, rq->t->lead_thread->host_thread);
}

static const char *sendfile_reason(int error, unsigned *ret_status)
{
    *ret_status = 404;
    switch (error) {
    case -ENOENT:
    case -ENOTDIR:
        return "there is no such file";
    case -ENAMETOOLONG:
        return "the name is too long";
    case -EISDIR:
        return "it is a directory";
    case -EINVAL:
        return "it is not a regular file";
    case -EXDEV:
        *ret_status = 403;
        return "it is not below a directory that the options x-sendfile and x-accel-redirect name";
    case -ELOOP:
        *ret_status = 403;
        return "a symbolic link is in its path (see static-follow-symlinks)";
    case -EACCES:
    case -EPERM:
        *ret_status = 403;
        return "it may not be read";
    case -EMFILE:
    case -ENFILE:
    case -ENOMEM:
        *ret_status = 503;
        return strerror(-error);
    default:
        *ret_status = 500;
        return strerror(-error);
    }
}

/* Answers that there is no file to be sent, and says why to the administrator. */
static void sendfile_refuse(struct stk_serve_request *rq, const struct sendfile_facts *facts,
                            unsigned status, const char *reason)
{
    stk_span method = stk_head_method(rq->base.head), target = stk_head_target(rq->base.head);

    stk_log_warning("%.*s %.*s: the application names the file '%.*s' by %s: %s; %u was sent",
                    (int)(method.len < 32 ? method.len : 32), method.ptr,
                    (int)(target.len < SENDFILE_SHOWN ? target.len : SENDFILE_SHOWN), target.ptr,
                    (int)(facts->name.len < SENDFILE_SHOWN ? facts->name.len : SENDFILE_SHOWN),
                    facts->name.ptr, facts->accel ? "X-Accel-Redirect" : "X-Sendfile", reason,
                    status);
    stk_response_plain(rq, status, "");
}

/* The type as the application says it, with the charset that nginx would add; or by the name. */
static stk_span sendfile_type(const struct stk_sendfile *sf, const struct sendfile_facts *facts,
                              char buf[SENDFILE_TYPE_MAX])
{
    stk_span type = facts->type;
    int n;

    if (type.len == 0)
        type = stk_static_type(sf->statics, stk_span_str(facts->base));
    if (type.len == 0 || type.ptr == NULL)
        return STK_SPAN_LIT("application/octet-stream");
    if (facts->charset.len == 0 || memmem(type.ptr, type.len, "charset", 7) != NULL ||
        type.len < 5 || strncasecmp(type.ptr, "text/", 5) != 0)
        return type;
    n = snprintf(buf, SENDFILE_TYPE_MAX, "%.*s; charset=%.*s", (int)type.len, type.ptr,
                 (int)facts->charset.len, facts->charset.ptr);
    return n > 0 && n < SENDFILE_TYPE_MAX ? stk_span_make(buf, (size_t)n) : type;
}

/* Sends the open file. */
static int sendfile_send(const struct stk_sendfile *sf, struct stk_serve_request *rq,
                         const struct sendfile_facts *facts, stk_span fields, int fd,
                         const struct stat *st)
{
    bool whole = rq->status != 200 && rq->status != 206;
    char etag[STK_STATIC_ETAG_MAX], type[SENDFILE_TYPE_MAX], small[SENDFILE_SMALL];
    int64_t now = time(NULL);
    struct stk_static_file file = {
        .fd = fd,
        .size = (uint64_t)st->st_size,
        .status = whole ? rq->status : 0,
        .modified = st->st_mtime <= now ? st->st_mtime : -1,
        .max_age = -1,
        .etag = facts->etag,
        .type = sendfile_type(sf, facts, type),
        .encoding = facts->encoding,
        .fields = fields,
    };

    if (facts->modified.len > 0)
        (void)stk_http_date_parse(facts->modified, &file.modified);
    if (file.etag.len == 0 && !whole)
        file.etag = stk_span_make(etag, stk_static_etag(etag, st, ""));
    if (file.size <= SENDFILE_SMALL && !rq->base.head->is_head &&
        stk_fd_read_whole(fd, small, file.size))
        file.data = small;
    return stk_static_send(rq, &file);
}

/* Puts the file in the place of the response; as stk_response_write. */
static int sendfile_replace(const struct stk_sendfile *sf, struct stk_serve_request *rq,
                            struct sendfile_facts *facts)
{
    const struct stk_out *out = &rq->t->out;
    STK_CLEANUP(stk_mem_freep) char *lines = stk_try_alloc(out->len - out->mark + facts->name.len);
    STK_CLEANUP(stk_fd_closep) int fd = -1;
    struct stat st = {0};
    unsigned status;
    char *name;
    stk_span fields;

    if (lines == NULL) {
        stk_response_plain(rq, 503, "");
        return 0;
    }
    name = lines + (out->len - out->mark);
    memcpy(name, facts->name.ptr, facts->name.len);
    facts->name.ptr = name;
    if (facts->twice) {
        sendfile_refuse(rq, facts, 500, "and another file by another field");
        return 0;
    }
    fields = stk_span_make(lines, sendfile_read(sf, out, lines, facts));
    sendfile_unlock(rq, true);
    fd = sendfile_open(sf, facts, &st);
    sendfile_unlock(rq, false);
    if (fd < 0) {
        const char *reason = sendfile_reason(fd, &status);

        sendfile_refuse(rq, facts, status, reason);
        return 0;
    }
    (void)sendfile_send(sf, rq, facts, fields, fd, &st);
    return 0;
}

int stk_sendfile_head(const struct stk_sendfile *sf, struct stk_serve_request *rq)
{
    struct sendfile_facts facts = {0};
    struct stk_out *out = &rq->t->out;

    sendfile_find(sf, out, &facts);
    if (facts.name.len == 0 || rq->status == 204 || rq->status == 205 || rq->status == 304) {
        sendfile_strip(sf, out);
        return 0;
    }
    (void)sendfile_replace(sf, rq, &facts);
    rq->base.replaced = true;
    return rq->gone ? -EPIPE : 0;
}

/* ---- life ----------------------------------------------------------------------------------- */

static stk_span sendfile_trimmed(const char *text, size_t len)
{
    while (len > 0 && text[len - 1] == '/')
        len--;
    return stk_span_make(text, len);
}

static int sendfile_by_length(const void *a, const void *b)
{
    const struct sendfile_root *x = a, *y = b;

    if (x->prefix.len != y->prefix.len)
        return x->prefix.len < y->prefix.len ? 1 : -1;
    return x->item < y->item ? -1 : 1;
}

struct stk_sendfile *stk_sendfile_new(const struct stk_config *config, struct stk_statics *statics)
{
    const struct stk_strv *dirs = &config->x_sendfile, *maps = &config->x_accel_redirect;
    struct stk_sendfile *sf;

    if (dirs->n + maps->n == 0)
        return NULL;
    sf = stk_new0(struct stk_sendfile);
    sf->statics = statics;
    sf->dirs = stk_new0_array(struct sendfile_root, dirs->n + 1);
    sf->maps = stk_new0_array(struct sendfile_root, maps->n + 1);
    for (; sf->ndirs < dirs->n; sf->ndirs++)
        sf->dirs[sf->ndirs] = (struct sendfile_root){
            sendfile_trimmed(dirs->items[sf->ndirs], strlen(dirs->items[sf->ndirs])),
            dirs->items[sf->ndirs], sf->ndirs};
    for (; sf->nmaps < maps->n; sf->nmaps++) {
        const char *text = maps->items[sf->nmaps], *equal = strchr(text, '=');

        sf->maps[sf->nmaps] = (struct sendfile_root){sendfile_trimmed(text, (size_t)(equal - text)),
                                                     equal + 1, sf->nmaps};
    }
    qsort(sf->maps, sf->nmaps, sizeof sf->maps[0], sendfile_by_length);
    return sf;
}

struct stk_sendfile *stk_sendfile_free(struct stk_sendfile *sf)
{
    if (sf == NULL)
        return NULL;
    free(sf->dirs);
    free(sf->maps);
    free(sf);
    return NULL;
}
