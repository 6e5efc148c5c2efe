/*
 * The way out of a connection: what the socket takes leaves now, the rest is queued. By the thread
 * that has the connection, whoever turns the loop.
 */
#include "serve/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>

#include "base/sigpipe.h"
#include "base/time.h"
#include "config/config.h"
#include "serve/cold.h"
#include "serve/conn_io.h"
#include "serve/fcgi.h"
#include "serve/outq.h"

enum {
    STK_CONN_FILE_TURN = 4 << 20,  /* bytes of a file sent by one call */
    STK_CONN_FILE_AHEAD = 4 << 20, /* of a file, read ahead of a slow client */
};

bool stk_conn_has_queued(struct stk_conn *conn)
{
    struct stk_outq *q = atomic_load_explicit(&conn->outq, memory_order_acquire);

    return q != NULL &&
           (!stk_outq_is_empty(q) || (conn->tls != NULL && stk_tls_has_output(conn->tls)));
}

/* The queue, made if need be, with the socket waited for. */
static struct stk_outq *conn_outq(struct stk_conn *conn)
{
    struct stk_outq *q = atomic_load_explicit(&conn->outq, memory_order_relaxed);

    if (q == NULL) {
        q = stk_outq_new();
        if (q != NULL)
            atomic_store_explicit(&conn->outq, q, memory_order_release);
    }
    return q;
}

stk_msec stk_conn_send_left(struct stk_conn *conn)
{
    stk_msec left = __atomic_load_n(&conn->deadline, __ATOMIC_RELAXED) - stk_time_mono_coarse_ms();

    return left > 0 ? left : 0;
}

/* The queue is full: sends some of it, whoever leads the loop. -EPIPE: the client takes nothing. */
static int conn_make_room(struct stk_conn *conn, struct stk_outq *q)
{
    bool sent = false;
    int r = stk_outq_drain(q, conn->src.fd, conn->tls, &sent);

    if (sent)
        stk_conn_set_deadline(conn, stk_time_mono_coarse_ms() + conn->server->config->send_timeout);
    else
        conn->stalled = stk_conn_send_left(conn) == 0;
    if (r >= 0 && !conn->stalled)
        return 0;
    stk_conn_set_gone(conn);
    return -EPIPE;
}

static int conn_queue(struct stk_conn *conn, struct iovec *iov, int iovcnt, size_t skip, bool last)
{
    const struct stk_config *config = conn->server->config;
    struct stk_outq_limits limits = {.memory = (uint64_t)config->response_buffer,
                                     .file = (uint64_t)config->response_file_max,
                                     .tmpdir = config->tmpdir,
                                     .beyond = last};
    struct stk_outq *q = conn_outq(conn);
    int r;

    if (q == NULL)
        return -ENOMEM;
    if (stk_unlikely(conn->detached != NULL)) /* its host asks whether that is much, and waits */
        limits.file = INT64_MAX;
    if (stk_outq_is_empty(q))
        stk_conn_set_deadline(conn, stk_time_mono_coarse_ms() + config->send_timeout);
    r = stk_outq_append(q, iov, iovcnt, skip, &limits);
    if (r == -EAGAIN) {
        r = conn_make_room(conn, q);
        if (r == 0)
            r = stk_outq_append(q, iov, iovcnt, skip, &limits);
    }
    if (r == 0)
        stk_conn_want_output(conn, true);
    return r;
}

/* See stk_conn_send. */
static inline int conn_send(struct stk_conn *conn, struct iovec *iov, int iovcnt, bool last)
{
    size_t total = 0;
    ssize_t n;

    if (stk_unlikely(stk_conn_has_output(conn))) {
        /* Tries the socket first: an endless response to a client that has left must not fill the
         * temporary file, nor one without a stand-by wait for the end of the call. */
        int r = conn_make_room(conn, conn_outq(conn));

        if (r < 0)
            return r;
        if (stk_conn_has_output(conn))
            return conn_queue(conn, iov, iovcnt, 0, last);
    }
    for (int i = 0; i < iovcnt; i++)
        total += iov[i].iov_len;
    do
        n = stk_conn_io_sendmsg(conn, iov, iovcnt);
    while (n < 0 && errno == EINTR);
    if (stk_likely(n == (ssize_t)total) &&
        stk_likely(conn->tls == NULL || !stk_tls_has_output(conn->tls)))
        return 0;
    if (n < 0) {
        if (errno != EAGAIN) {
            stk_conn_set_gone(conn);
            return -EPIPE;
        }
        n = 0;
    }
    return conn_queue(conn, iov, iovcnt, (size_t)n, last);
}

int stk_conn_send(struct stk_conn *conn, struct iovec *iov, int iovcnt)
{
    if (stk_unlikely(conn->fcgi_id != 0))
        return stk_fcgi_send(conn, iov, iovcnt, false);
    return conn_send(conn, iov, iovcnt, false);
}

STK_COLD int stk_conn_send_raw(struct stk_conn *conn, struct iovec *iov, int iovcnt, bool last)
{
    return conn_send(conn, iov, iovcnt, last);
}

/*
 * The first bytes of a file straight to a plain socket with nothing queued: > 0 so many were sent,
 * of at most one turn's; 0: it takes none now, or they are not in memory; or a negative errno.
 */
static int64_t conn_sendfile_now(struct stk_conn *conn, int fd, int64_t off, uint64_t len)
{
    off_t at = (off_t)off;
    uint64_t left = len < STK_CONN_FILE_TURN ? len : STK_CONN_FILE_TURN, part = 0;

    while (left > 0) {
        ssize_t n;

        if (part == 0) {
            part = left < STK_COLD_PART ? left : STK_COLD_PART;
            if (stk_cold_ask(fd, at, part))
                break; /* the loop looks again, and waits in the end */
        }
        n = stk_sigpipe_sendfile(conn->src.fd, fd, &at, (size_t)part);
        if (n > 0) {
            left -= (uint64_t)n;
            part -= (uint64_t)n;
            continue;
        }
        if (n == 0)
            return -EIO; /* the file is shorter than it was */
        if (errno == EAGAIN)
            break;
        if (errno != EINTR)
            return -errno;
    }
    return (int64_t)at - off;
}

/* What a failure to send part of a file means. */
static int conn_file_failed(struct stk_conn *conn, int r)
{
    if (r != -EPIPE && r != -ECONNRESET)
        return r;
    stk_conn_set_gone(conn);
    return -EPIPE;
}

int stk_conn_sendfile(struct stk_conn *conn, int fd, int64_t off, uint64_t len, stk_span tail)
{
    /* What is not sent as it is goes by way of the queue. */
    bool idle = !stk_conn_has_output(conn), plain = conn->tls == NULL && conn->fcgi_id == 0, sent;
    struct stk_outq *q;
    int r;

    if (stk_likely(idle && plain)) {
        int64_t n = conn_sendfile_now(conn, fd, off, len);

        if (n < 0)
            return conn_file_failed(conn, (int)n);
        off += n;
        len -= (uint64_t)n;
        if (len == 0) {
            union {
                const char *c;
                void *v;
            } u = {.c = tail.ptr};
            struct iovec iov = {u.v, tail.len};

            return tail.len > 0 ? stk_conn_send(conn, &iov, 1) : 0;
        }
        /* The disk works while the client takes what has been sent. */
        (void)posix_fadvise(fd, (off_t)off, STK_CONN_FILE_AHEAD, POSIX_FADV_WILLNEED);
    }
    q = conn_outq(conn);
    if (q == NULL)
        return -ENOMEM;
    if (idle)
        stk_conn_set_deadline(conn, stk_time_mono_coarse_ms() + conn->server->config->send_timeout);
    r = stk_outq_append_file(q, fd, off, len, tail, conn->fcgi_id);
    if (r < 0)
        return r;
    r = idle && !plain ? stk_outq_drain(q, conn->src.fd, conn->tls, &sent) : 1;
    if (r >= 1) {
        stk_conn_want_output(conn, true);
        return 0;
    }
    return r < 0 ? conn_file_failed(conn, r) : 0;
}
