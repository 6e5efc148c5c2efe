/*
 * The output queue is a list of segments: bytes in memory, or a range of a file. What exceeds the
 * memory limit goes to one temporary file, whose ranges are segments like those of the
 * application's own files, so that one loop of send and sendfile drains everything in order.
 *
 * The drained part of the temporary file is given back when the queue runs empty; until then the
 * limit counts what has been written to it.
 */
#include "serve/outq.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/sigpipe.h"
#include "base/sys.h"
#include "net/tls.h"
#include "serve/cold.h"
#include "wire/fastcgi.h"

enum {
    OUTQ_CHUNK = 64 * 1024,
    OUTQ_SENDFILE_MAX = STK_COLD_PART,
    OUTQ_FILE_BLOCK = 64 * 1024,     /* of a file that TLS encrypts */
    OUTQ_TURN_MAX = 4 * 1024 * 1024, /* sent by one call */
    OUTQ_RECORD_MAX = 15 * 4096,     /* of a file, in a record of FastCGI: whole pages */
};

struct outq_segment {
    struct stk_list link;
    int fd; /* -1: bytes of data[] */
    bool own_fd;
    int64_t off;
    uint64_t len; /* left */
    uint64_t cap; /* of data[] */
    /* Of a file that goes out in FastCGI records: what is left of the one that has begun. */
    uint16_t id, content;
    uint8_t header_left;
    char header[STK_FASTCGI_HEADER];
    char data[];
};

struct stk_outq {
    pthread_mutex_t mutex;
    struct stk_list segments;
    uint64_t memory;
    unsigned looks; /* at what comes next, which was not in memory */
    int tmpfd;
    uint64_t tmplen;
    int error;
};

struct stk_outq *stk_outq_new(void)
{
    struct stk_outq *q = stk_try_alloc(sizeof *q);
    int r;

    if (q == NULL)
        return NULL;
    *q = (struct stk_outq){.tmpfd = -1};
    stk_list_init(&q->segments);
    r = pthread_mutex_init(&q->mutex, NULL);
    STK_ASSERT(r == 0);
    return q;
}

static void segment_free(struct stk_outq *q, struct outq_segment *s)
{
    stk_list_remove(&s->link);
    if (s->fd < 0)
        q->memory -= s->cap;
    if (s->own_fd)
        stk_fd_close(&s->fd);
    free(s);
}

struct stk_outq *stk_outq_free(struct stk_outq *q)
{
    if (q == NULL)
        return NULL;
    while (!stk_list_is_empty(&q->segments))
        segment_free(q, stk_container_of(q->segments.next, struct outq_segment, link));
    stk_fd_close(&q->tmpfd);
    pthread_mutex_destroy(&q->mutex);
    free(q);
    return NULL;
}

static struct outq_segment *outq_last(struct stk_outq *q)
{
    return stk_list_is_empty(&q->segments)
               ? NULL
               : stk_container_of(q->segments.prev, struct outq_segment, link);
}

static struct outq_segment *segment_new(struct stk_outq *q, size_t cap)
{
    struct outq_segment *s = stk_try_alloc(sizeof *s + cap);

    if (s == NULL)
        return NULL;
    *s = (struct outq_segment){.fd = -1, .cap = cap};
    stk_list_init(&s->link);
    stk_list_append(&q->segments, &s->link);
    q->memory += cap;
    return s;
}

static int outq_append_memory(struct stk_outq *q, const char *data, size_t len)
{
    while (len > 0) {
        struct outq_segment *s = outq_last(q);
        size_t room;

        if (s == NULL || s->fd >= 0 || (uint64_t)s->off + s->len == s->cap) {
            s = segment_new(q, len > OUTQ_CHUNK ? len : OUTQ_CHUNK);
            if (s == NULL)
                return -ENOMEM;
        }
        room = (size_t)(s->cap - (uint64_t)s->off - s->len);
        if (room > len)
            room = len;
        memcpy(s->data + s->off + s->len, data, room);
        s->len += room;
        data += room;
        len -= room;
    }
    return 0;
}

static int outq_append_tmp(struct stk_outq *q, const char *data, size_t len, const char *dir)
{
    struct outq_segment *s = outq_last(q);
    int64_t at = (int64_t)q->tmplen;

    if (q->tmpfd < 0) {
        int r = stk_fd_tempfile(dir, &q->tmpfd);

        if (r < 0)
            return r;
    }
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(q->tmpfd, data + done, len - done, (off_t)q->tmplen);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENOSPC;
        done += (size_t)n;
        q->tmplen += (uint64_t)n;
    }
    if (s != NULL && s->fd == q->tmpfd && s->off + (int64_t)s->len == at) {
        s->len += len;
        return 0;
    }
    s = segment_new(q, 0);
    if (s == NULL)
        return -ENOMEM;
    s->fd = q->tmpfd;
    s->off = at;
    s->len = len;
    return 0;
}

int stk_outq_append(struct stk_outq *q, const struct iovec *iov, int iovcnt, size_t skip,
                    const struct stk_outq_limits *limits)
{
    uint64_t total = 0;
    bool over;
    int r = 0;

    pthread_mutex_lock(&q->mutex);
    for (int i = 0; i < iovcnt; i++)
        total += iov[i].iov_len;
    total -= skip;
    over = q->memory + total > limits->memory;
    if (q->error < 0)
        r = q->error;
    else if (over && !stk_list_is_empty(&q->segments) && q->tmplen + total > limits->file &&
             !limits->beyond)
        r = -EAGAIN;
    for (int i = 0; r == 0 && i < iovcnt; i++) {
        size_t len = iov[i].iov_len;
        size_t cut = skip < len ? skip : len;

        skip -= cut;
        if (len == cut)
            continue;
        r = over && limits->file > 0
                ? outq_append_tmp(q, (char *)iov[i].iov_base + cut, len - cut, limits->tmpdir)
                : outq_append_memory(q, (char *)iov[i].iov_base + cut, len - cut);
    }
    if (r < 0 && r != -EAGAIN)
        q->error = r;
    pthread_mutex_unlock(&q->mutex);
    return r;
}

int stk_outq_append_file(struct stk_outq *q, int fd, int64_t off, uint64_t len, stk_span tail,
                         uint16_t id)
{
    struct outq_segment *s;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int r = 0;

    if (copy < 0)
        return -errno;
    pthread_mutex_lock(&q->mutex);
    s = segment_new(q, 0);
    if (s != NULL) {
        s->fd = copy;
        s->own_fd = true;
        s->off = off;
        s->len = len;
        s->id = id;
        r = outq_append_memory(q, tail.ptr, tail.len);
        if (r < 0)
            q->error = r;
    }
    pthread_mutex_unlock(&q->mutex);
    if (s == NULL) {
        stk_fd_close(&copy);
        return -ENOMEM;
    }
    return r;
}

/* Sends what is left of the header of a record, after beginning the next one. 0, or as send(). */
static int segment_send_header(struct outq_segment *s, int sock)
{
    ssize_t n;

    if (s->content == 0) {
        s->content = s->len < OUTQ_RECORD_MAX ? (uint16_t)s->len : OUTQ_RECORD_MAX;
        stk_fastcgi_put_header(s->header, STK_FASTCGI_STDOUT, s->id, s->content);
        s->header_left = STK_FASTCGI_HEADER;
    }
    if (s->header_left == 0)
        return 0;
    n = stk_sys_send(sock, s->header + STK_FASTCGI_HEADER - s->header_left, s->header_left,
                     MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE);
    if (n < 0)
        return -errno;
    s->header_left = (uint8_t)(s->header_left - n);
    return s->header_left > 0 ? -EAGAIN : 0;
}

/* Sends of one segment; > 0: bytes, or a negative errno. */
static ssize_t segment_send(struct outq_segment *s, int sock)
{
    ssize_t n;

    if (s->fd < 0) {
        n = stk_sys_send(sock, s->data + s->off, (size_t)s->len, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else {
        off_t off = (off_t)s->off;
        size_t len = s->len > OUTQ_SENDFILE_MAX ? OUTQ_SENDFILE_MAX : (size_t)s->len;

        if (s->id != 0) {
            int r = segment_send_header(s, sock);

            if (r < 0)
                return r;
            len = s->content;
        }
        n = stk_sigpipe_sendfile(sock, s->fd, &off, len);
        if (n == 0)
            return -EIO; /* the file is shorter than it was: the response cannot be completed */
        if (n > 0 && s->id != 0)
            s->content = (uint16_t)(s->content - n);
    }
    return n < 0 ? -errno : n;
}

/* The same by way of TLS, which takes bytes only when what it has taken before has left. */
static ssize_t segment_send_tls(struct outq_segment *s, struct stk_tls *tls)
{
    size_t len = s->len < OUTQ_FILE_BLOCK ? (size_t)s->len : OUTQ_FILE_BLOCK;
    STK_CLEANUP(stk_mem_freep) char *block = NULL;
    struct iovec iov = {s->data + s->off, len};
    ssize_t n;

    if (s->fd >= 0) {
        block = stk_try_alloc(len);
        if (block == NULL)
            return -ENOMEM;
        n = pread(s->fd, block, len, (off_t)s->off);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        iov = (struct iovec){block, (size_t)n};
    }
    n = stk_tls_sendmsg(tls, &iov, 1);
    return n < 0 ? -errno : n;
}

/* Whether the disk is to be waited for by looking again. */
static bool outq_is_cold(struct stk_outq *q, const struct outq_segment *s, bool tls)
{
    uint64_t most = tls ? OUTQ_FILE_BLOCK : s->id != 0 ? OUTQ_RECORD_MAX : OUTQ_SENDFILE_MAX;

    return s->fd >= 0 && q->looks < STK_COLD_LOOKS &&
           stk_cold_ask(s->fd, s->off, s->len < most ? s->len : most);
}

int stk_outq_drain(struct stk_outq *q, int sock, struct stk_tls *tls, bool *ret_sent)
{
    uint64_t total = 0;
    bool flushed = false;
    int r;

    pthread_mutex_lock(&q->mutex);
    r = q->error;
    if (r == 0 && tls != NULL)
        r = stk_tls_flush(tls, &flushed);
    while (r == 0 && !stk_list_is_empty(&q->segments)) {
        struct outq_segment *s = stk_container_of(q->segments.next, struct outq_segment, link);
        ssize_t n;

        if (total >= OUTQ_TURN_MAX) {
            r = 1;
            break;
        }
        if (outq_is_cold(q, s, tls != NULL)) {
            q->looks++;
            r = STK_OUTQ_DISK;
            break;
        }
        n = tls != NULL ? segment_send_tls(s, tls) : segment_send(s, sock);
        if (n < 0) {
            if (n == -EINTR)
                continue;
            r = n == -EAGAIN ? 1 : (int)n;
            break;
        }
        total += (uint64_t)n;
        q->looks = 0;
        s->off += n;
        s->len -= (uint64_t)n;
        if (s->len == 0)
            segment_free(q, s);
    }
    if (r == 0 && tls != NULL && stk_tls_has_output(tls))
        r = 1;
    if (r < 0)
        q->error = r;
    if (r == 0 && q->tmplen > 0) {
        if (ftruncate(q->tmpfd, 0) < 0)
            r = q->error = -errno;
        q->tmplen = 0;
    }
    pthread_mutex_unlock(&q->mutex);
    *ret_sent = total > 0 || flushed;
    return r;
}

bool stk_outq_is_empty(struct stk_outq *q)
{
    bool empty;

    pthread_mutex_lock(&q->mutex);
    empty = stk_list_is_empty(&q->segments);
    pthread_mutex_unlock(&q->mutex);
    return empty;
}

uint64_t stk_outq_size(struct stk_outq *q)
{
    uint64_t size = 0;

    pthread_mutex_lock(&q->mutex);
    stk_list_for_each (it, &q->segments)
        size += stk_container_of(it, struct outq_segment, link)->len;
    pthread_mutex_unlock(&q->mutex);
    return size;
}
