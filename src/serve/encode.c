/*
 * The way of a compressed body. What the application writes goes into the encoder, coded bytes
 * gather in the coder's buffer, and leave from there as blocks of the response:
 *
 *   the whole body in one write, and its coded form fits in the buffer   with Content-Length
 *   a block that would have been sent at once                            with a flush
 *   blocks in quick succession                                           with what follows
 *
 * The latter stay inside the encoder, where they cost least. The stand-by thread flushes and sends
 * them when a tick has passed, as it does with gathered bytes (gather.c): so an application that
 * computes behind some quick blocks does not keep them from its client. It holds the gather mutex
 * for that, and so does this thread as long as it is gathering.
 *
 * A write of which the connection cannot take everything answers -EAGAIN and comes again with the
 * same bytes: the coder knows how many of them it has coded, and keeps what has not left.
 *
 * Large blocks are coded without the interpreter's lock.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"
#include "serve/compress.h"
#include "serve/conn.h"
#include "serve/request.h"
#include "serve/server.h"

enum {
    ENCODE_GATHER_NS = 50 * 1000, /* a block later than this after the last one leaves at once */
    ENCODE_UNLOCK = 16 * 1024,    /* from here on coding takes longer than giving the lock away */
    ENCODE_FILE_BLOCK = 64 * 1024,
};

/* Gives the interpreter's lock away while much is coded; true: it was. */
static bool encode_unlock(struct stk_serve_request *rq, uint64_t len)
{
    const struct stk_server *server = rq->t->server;

    /* With a mutex of a detached request nobody may wait for the interpreter. */
    if (len < ENCODE_UNLOCK || server->host_ops->unlock == NULL || rq->detached)
        return false;
    server->host_ops->unlock(server->host, rq->t->lead_thread->host_thread);
    return true;
}

static void encode_lock(struct stk_serve_request *rq, bool unlocked)
{
    const struct stk_server *server = rq->t->server;

    if (unlocked)
        server->host_ops->lock(server->host, rq->t->lead_thread->host_thread);
}

/* Sends what is in the buffer; `last`: and the end of the body. */
static int encode_send(struct stk_serve_request *rq, bool last)
{
    struct stk_coder *coder = rq->coder;
    int r;

    if (!rq->committed) {
        r = stk_response_commit(rq, last ? (int64_t)coder->len : -1);
        if (r != 0)
            return r; /* rq->gone is set */
        coder->chunked = rq->chunked;
    }
    if (coder->len == 0 && !last)
        return 0;
    r = stk_response_block(rq, coder->buf, coder->len, last ? STK_WRITE_END : STK_WRITE_FLUSH);
    if (r != 0) {
        rq->gone = r != -EAGAIN;
        return r;
    }
    if (rq->has_length)
        rq->remaining -= coder->len;
    coder->out += coder->len;
    coder->len = 0;
    return 0;
}

/* Codes bytes that may lie for a tick; *done: all of them. */
static int encode_gather(struct stk_serve_request *rq, const char *data, size_t len, bool *done)
{
    struct stk_coder *coder = rq->coder;
    struct stk_serve_thread *t = rq->t;
    bool gathering = t->gathering;
    size_t left = len;
    int r;

    if (gathering)
        pthread_mutex_lock(&t->gather_mutex);
    if (coder->len == 0 && !stk_encoder_is_dirty(coder->encoder))
        t->gather_since = rq->last_block;
    r = stk_encoder_run(coder->encoder, &data, &left, STK_ENCODER_RUN, coder->buf, STK_CODER_BUFFER,
                        &coder->len);
    if (gathering)
        pthread_mutex_unlock(&t->gather_mutex);
    coder->consumed += len - left;
    if (r < 0)
        return r;
    *done = r == 0;
    if (*done && !gathering)
        stk_gather_begin_coder(t, rq->conn, coder);
    return 0;
}

/*
 * Codes bytes with the coder's op and sends what the op wants sent. 0; -EAGAIN: come again with
 * what has not been consumed; or another negative errno.
 */
static int encode_feed(struct stk_serve_request *rq, const char *data, size_t len, bool last)
{
    struct stk_coder *coder = rq->coder;
    uint64_t begin = coder->consumed;
    int r;

    if (coder->op == STK_ENCODER_RUN && !coder->file) {
        bool done = false;

        r = encode_gather(rq, data, len, &done);
        if (r < 0 || done)
            return r;
    }
    stk_gather_end(rq->t);
    while (!coder->coded) {
        const char *at = data + (coder->consumed - begin);
        size_t left = len - (size_t)(coder->consumed - begin), before = left;

        r = stk_encoder_run(coder->encoder, &at, &left, coder->op, coder->buf, STK_CODER_BUFFER,
                            &coder->len);
        coder->consumed += before - left;
        if (r < 0)
            return r;
        if (r == 0) {
            coder->coded = true;
            break;
        }
        r = encode_send(rq, false);
        if (r != 0)
            return r;
    }
    if (coder->op == STK_ENCODER_RUN) {
        if (!coder->file)
            stk_gather_begin_coder(rq->t, rq->conn, coder);
        return 0;
    }
    r = encode_send(rq, last);
    coder->finished = r == 0;
    return r;
}

/* Whether this block may stay inside until more comes, or a tick has passed. That it is late by the
 * host's clock does not count: coding the last one took its time. */
static bool encode_may_gather(struct stk_serve_request *rq)
{
    stk_nsec now;
    bool fast;

    if (rq->coder->each || rq->detached || stk_lead_standby(rq->t->lead_thread->lead) == NULL)
        return false;
    now = stk_time_mono_ns();
    fast = rq->streamed && now - rq->last_block < ENCODE_GATHER_NS;
    rq->streamed = true;
    rq->last_block = now;
    return fast;
}

/* Bytes of a write that are within the application's Content-Length. */
static uint64_t encode_fit(struct stk_serve_request *rq, uint64_t len)
{
    if (!rq->coder->has_left || len <= rq->coder->left)
        return len;
    rq->cut = true;
    return rq->coder->left;
}

/* What a write has come to. */
static int encode_done(struct stk_serve_request *rq, int r, uint64_t len, bool end, bool last)
{
    struct stk_coder *coder = rq->coder;

    if (r == -EAGAIN)
        return r;
    if (r < 0) {
        rq->keep_alive = false;
        stk_compress_release(rq);
        if (!rq->gone)
            return r; /* the application is told, and fails */
        if (end)
            stk_response_set_ended(rq);
        return -EPIPE;
    }
    coder->under_way = false;
    coder->in += len;
    coder->left -= coder->has_left ? len : 0;
    rq->last_block = stk_time_mono_ns();
    if (end) {
        if (!last) { /* shorter than it was to be: the client gets no end */
            rq->truncated = true;
            rq->keep_alive = false;
        }
        stk_compress_release(rq);
        stk_response_set_ended(rq);
    }
    return rq->cut ? STK_RESPONSE_E_TOO_LONG : 0;
}

int stk_encode_write(struct stk_serve_request *rq, const char *data, size_t len, unsigned flags)
{
    struct stk_coder *coder = rq->coder;
    size_t fit = (size_t)encode_fit(rq, len);
    bool end = flags & STK_WRITE_END;
    bool last = end && (!coder->has_left || coder->left == fit);
    bool unlocked;
    int r;

    if (!coder->under_way) {
        coder->under_way = true;
        coder->coded = coder->finished = coder->file = false;
        coder->consumed = 0;
        coder->op = last                            ? STK_ENCODER_END
                    : !end && encode_may_gather(rq) ? STK_ENCODER_RUN
                                                    : STK_ENCODER_FLUSH;
    }
    unlocked = encode_unlock(rq, fit - coder->consumed);
    r = encode_feed(rq, data + coder->consumed, fit - (size_t)coder->consumed, last);
    encode_lock(rq, unlocked);
    return encode_done(rq, r, fit, end, last);
}

static ssize_t encode_read(int fd, char *buf, size_t len, int64_t off)
{
    ssize_t n;

    do
        n = pread(fd, buf, len, (off_t)off);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return n == 0 ? -EIO : n; /* the file is shorter than it was */
}

/* The blocks of a file, from where the coder is. */
static int encode_blocks(struct stk_serve_request *rq, int fd, int64_t off, uint64_t len, bool last)
{
    struct stk_coder *coder = rq->coder;
    int r = 0;

    while (r == 0 && coder->consumed < len) {
        uint64_t left = len - coder->consumed;
        size_t want = left < ENCODE_FILE_BLOCK ? (size_t)left : ENCODE_FILE_BLOCK;
        ssize_t n = encode_read(fd, coder->file_buf, want, off + (int64_t)coder->consumed);

        if (n < 0)
            return (int)n;
        if (last && (uint64_t)n == left)
            coder->op = STK_ENCODER_END;
        coder->coded = false;
        r = encode_feed(rq, coder->file_buf, (size_t)n, last);
    }
    return r;
}

int stk_encode_file(struct stk_serve_request *rq, int fd, int64_t off, uint64_t len, unsigned flags)
{
    struct stk_coder *coder = rq->coder;
    uint64_t fit = encode_fit(rq, len);
    bool end = flags & STK_WRITE_END;
    bool last = end && (!coder->has_left || coder->left == fit);
    bool unlocked;
    int r = 0;

    if (coder->file_buf == NULL)
        coder->file_buf = stk_try_alloc(ENCODE_FILE_BLOCK);
    if (coder->file_buf == NULL)
        return encode_done(rq, -ENOMEM, 0, end, last);
    if (!coder->under_way) {
        coder->under_way = coder->file = true;
        coder->coded = coder->finished = false;
        coder->consumed = 0;
        coder->op = STK_ENCODER_RUN;
    }
    unlocked = encode_unlock(rq, UINT64_MAX); /* reading may take a while, too */
    r = encode_blocks(rq, fd, off, fit, last);
    if (r == 0 && coder->op == STK_ENCODER_RUN) { /* not ended with its last block */
        coder->op = last ? STK_ENCODER_END : STK_ENCODER_FLUSH;
        coder->coded = false;
    }
    if (r == 0 && !coder->finished)
        r = encode_feed(rq, "", 0, last);
    encode_lock(rq, unlocked);
    return encode_done(rq, r, fit, end, last);
}

void stk_encode_fail(struct stk_serve_request *rq)
{
    struct stk_coder *coder = rq->coder;

    stk_gather_end(rq->t);
    if (!rq->gone && rq->committed && !coder->under_way) {
        coder->op = STK_ENCODER_FLUSH;
        coder->coded = coder->finished = coder->file = false;
        coder->consumed = 0;
        if (encode_feed(rq, "", 0, false) < 0)
            coder->len = 0; /* the client is gone, or reads nothing: it sees no end either way */
    }
    stk_compress_release(rq);
}

int stk_encode_gathered(struct stk_serve_thread *t, uint64_t *sent)
{
    struct stk_coder *coder = t->gather_coder;
    const char *none = "";
    size_t zero = 0;
    int more = 1, r;

    while (more == 1) {
        more = stk_encoder_is_dirty(coder->encoder)
                   ? stk_encoder_run(coder->encoder, &none, &zero, STK_ENCODER_FLUSH, coder->buf,
                                     STK_CODER_BUFFER, &coder->len)
                   : 0;
        if (more < 0)
            return more;
        if (coder->len == 0)
            return 0;
        r = stk_response_coded(t->gather_conn, coder->buf, coder->len, coder->chunked, sent);
        if (r != 0)
            return r;
        coder->out += coder->len;
        coder->len = 0;
    }
    return 0;
}
