/*
 * Bodies. One with a Content-Length within the memory limit is received straight into a buffer of
 * just that size, which the host provides where it can (a bytes object), so that the application's
 * read() gets it without any copy by us. Chunked ones grow by doubling. Records of FastCGI are
 * taken apart in the thread's buffer. What exceeds the limit goes to a temporary file, and is read
 * back through a window.
 *
 * A body that the application reads as it comes (streams) is received in pieces, each as large as
 * what the kernel holds of it, and is kept only until it has been read: of a slow one that is
 * nothing, however large it is, and of a fast one whose application is slow it is one piece.
 */
#include "serve/body.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "config/config.h"
#include "loop/loop.h"
#include "serve/conn_io.h"
#include "serve/server.h"
#include "wire/chunked.h"
#include "wire/fastcgi.h"

enum {
    BODY_WINDOW = 64 * 1024,
    BODY_RECV_ROUNDS = 8,    /* reads of one body before other connections get their turn */
    BODY_PIECE = 256 * 1024, /* received at once of one that streams ... */
    BODY_HIGH = 64 * 1024,   /* ... and where it has to be decoded */
};

struct stk_body {
    struct stk_server *server;
    bool chunked; /* of unknown length */
    bool streams;
    bool complete;
    enum stk_chunked_result chunk_error;
    int fault;         /* a negative errno: no more comes (stream mode) */
    uint64_t length;   /* announced; UINT64_MAX for chunked */
    uint64_t received; /* and stored */
    uint64_t offset;   /* read by the application */
    uint64_t fresh;    /* received from the socket and not asked for by stk_body_take_fresh */
    stk_msec began;
    struct stk_chunked decoder;
    struct stk_fastcgi_body *records; /* the decoder of FastCGI, which has a body so; or NULL */
    enum stk_fastcgi_result record_error;
    bool aborted;

    uint64_t base; /* what lies before it was read, and is not kept: 0 unless it streams */
    char *mem;     /* bytes base .. received when fd is -1 */
    size_t mem_cap;
    void *host_buffer; /* that mem is part of, or NULL: malloc'ed */

    int fd;       /* the temporary file */
    char *window; /* bytes [win_off, win_off + win_len) of it */
    uint64_t win_off;
    size_t win_len;
};

/* Memory of just this size, from the host where it may and can be. */
static bool body_alloc(struct stk_body *body, size_t size, bool host_memory)
{
    const struct stk_server *server = body->server;

    if (host_memory && server->host_ops->body_alloc != NULL)
        body->host_buffer = server->host_ops->body_alloc(server->host, size, &body->mem);
    if (body->host_buffer == NULL)
        body->mem = stk_try_alloc(size);
    body->mem_cap = body->mem != NULL ? size : 0;
    return body->mem != NULL;
}

struct stk_body *stk_body_new(struct stk_conn *conn, const struct stk_head *head, bool host_memory,
                              bool streams)
{
    struct stk_server *server = conn->server;
    size_t extra = head->records ? sizeof(struct stk_fastcgi_body) : 0;
    struct stk_body *body = stk_try_alloc(sizeof *body + extra);

    if (body == NULL)
        return NULL;
    *body = (struct stk_body){
        .server = server,
        .chunked = head->chunked,
        .streams = streams,
        .length = head->chunked ? UINT64_MAX : head->content_length,
        .began = stk_loop_now(server->loop),
        .fd = -1,
    };
    if (head->records) {
        body->records = (struct stk_fastcgi_body *)(void *)(body + 1);
        stk_fastcgi_body_init(body->records, conn->fcgi_id);
    } else if (head->chunked) {
        stk_chunked_init(&body->decoder);
    }
    if (head->chunked || streams || head->content_length == 0 ||
        head->content_length > (uint64_t)server->config->body_buffer)
        return body;
    if (!body_alloc(body, (size_t)head->content_length, host_memory)) {
        free(body);
        return NULL;
    }
    return body;
}

/* Frees what the bytes lie in; `locked` as host_ops.body_free has to be. */
static void body_free_memory(struct stk_body *body, bool locked)
{
    struct stk_server *server = body->server;

    if (body->host_buffer == NULL)
        free(body->mem);
    else if (locked)
        server->host_ops->body_free(server->host, body->host_buffer);
    else
        stk_server_discard(server, body->host_buffer);
    body->host_buffer = NULL;
    body->mem = NULL;
    body->mem_cap = 0;
}

struct stk_body *stk_body_free(struct stk_body *body)
{
    if (body == NULL)
        return NULL;
    body_free_memory(body, false);
    stk_fd_close(&body->fd);
    free(body->window);
    free(body);
    return NULL;
}

/* Moves what is in memory to a temporary file. */
static int body_spill(struct stk_body *body)
{
    int r = stk_fd_tempfile(body->server->config->tmpdir, &body->fd);

    if (r < 0)
        return r;
    r = stk_fd_write_all(body->fd, body->mem, (size_t)body->received);
    free(body->mem);
    body->mem = NULL;
    body->mem_cap = 0;
    return r;
}

static int body_store(struct stk_body *body, const char *data, size_t len)
{
    uint64_t total = body->received - body->base + len;
    uint64_t limit = (uint64_t)body->server->config->body_buffer;
    int r;

    if (len == 0)
        return 0;
    if (body->fd < 0 && total > body->mem_cap) {
        if (!body->streams && (total > limit || (!body->chunked && body->length > limit))) {
            r = body_spill(body);
            if (r < 0)
                return r;
        } else {
            size_t cap = body->mem_cap < 4096 ? 4096 : body->mem_cap;
            char *mem;

            if (body->streams && body->mem_cap == 0)
                cap = (size_t)total; /* as a rule it is read before more comes */
            while (cap < total)
                cap *= 2;
            mem = stk_try_realloc(body->mem, cap);
            if (mem == NULL)
                return -ENOMEM;
            body->mem = mem;
            body->mem_cap = cap;
        }
    }
    if (body->fd >= 0) {
        r = stk_fd_write_all(body->fd, data, len);
        if (r < 0)
            return r;
    } else if (len > 0) { /* mem is NULL before the first byte, and mem_cap 0 */
        /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker) */
        memcpy(body->mem + (body->received - body->base), data, len);
    }
    body->received += len;
    return 0;
}

/* What comes next of a body that is framed. */
enum body_step { STEP_PIECE, STEP_PARTIAL, STEP_END, STEP_ABORTED, STEP_BAD };

static enum body_step body_decode(struct stk_body *body, const char *data, size_t len,
                                  size_t *ret_used, stk_span *ret_piece)
{
    if (body->records != NULL) {
        body->record_error = stk_fastcgi_body_decode(body->records, data, len, ret_used, ret_piece);
        switch (body->record_error) {
        case STK_FASTCGI_PIECE:
            return STEP_PIECE;
        case STK_FASTCGI_PARTIAL:
            return STEP_PARTIAL;
        case STK_FASTCGI_OK:
            return STEP_END;
        case STK_FASTCGI_ABORTED:
            return STEP_ABORTED;
        default:
            return STEP_BAD;
        }
    }
    body->chunk_error = stk_chunked_decode(&body->decoder, data, len, ret_used, ret_piece);
    switch (body->chunk_error) {
    case STK_CHUNKED_DATA:
        return STEP_PIECE;
    case STK_CHUNKED_PARTIAL:
        return STEP_PARTIAL;
    case STK_CHUNKED_END:
        return STEP_END;
    default:
        return STEP_BAD;
    }
}

static int body_take_piece(struct stk_body *body, stk_span piece)
{
    int64_t limit = body->server->config->limit_request_body;

    if (piece.len > body->length - body->received) { /* records that belie the Content-Length */
        body->record_error = STK_FASTCGI_E_BODY_LONG;
        return -EPROTO;
    }
    if (limit > 0 && body->received + piece.len > (uint64_t)limit)
        return -EFBIG;
    return body_store(body, piece.ptr, piece.len);
}

static int body_take_end(struct stk_body *body, bool aborted)
{
    if (!aborted && !body->chunked && body->received < body->length) {
        body->record_error = STK_FASTCGI_E_BODY_SHORT;
        return -EPROTO;
    }
    body->aborted = aborted;
    body->complete = true;
    body->length = body->received;
    return STK_BODY_COMPLETE;
}

static int body_feed_framed(struct stk_body *body, const char *data, size_t len,
                            size_t *ret_consumed)
{
    size_t used = 0;
    int r = 0;

    while (r == 0) {
        stk_span piece = {0};
        size_t n = 0;
        enum body_step step = body_decode(body, data + used, len - used, &n, &piece);

        used += n;
        *ret_consumed = used;
        switch (step) {
        case STEP_PIECE:
            r = body_take_piece(body, piece);
            break;
        case STEP_PARTIAL:
            return STK_BODY_PARTIAL;
        case STEP_END:
        case STEP_ABORTED:
            return body_take_end(body, step == STEP_ABORTED);
        default:
            return -EPROTO;
        }
    }
    return r;
}

int stk_body_feed(struct stk_body *body, const char *data, size_t len, size_t *ret_consumed)
{
    int r;

    if (body->records != NULL || body->chunked)
        return body_feed_framed(body, data, len, ret_consumed);
    if (len > body->length - body->received)
        len = (size_t)(body->length - body->received);
    r = body_store(body, data, len);
    if (r < 0)
        return r;
    *ret_consumed = len;
    body->complete = body->received == body->length;
    return body->complete ? STK_BODY_COMPLETE : STK_BODY_PARTIAL;
}

/* Whether bytes need no decoding, and can be received to where they stay. */
static bool body_is_direct(struct stk_body *body, const struct stk_conn *conn)
{
    uint64_t left = body->length - body->received;
    size_t ready;

    if (body->chunked || body->records != NULL)
        return false;
    if (!body->streams)
        return body->mem != NULL && body->mem_cap == body->length;
    if (body->mem != NULL || (ready = stk_conn_io_ready(conn)) == 0)
        return false;
    if (ready > BODY_PIECE)
        ready = BODY_PIECE;
    return body_alloc(body, ready < left ? ready : (size_t)left, true);
}

/* Whether what has come is enough for a turn. */
static bool body_is_full(const struct stk_body *body, bool direct)
{
    uint64_t kept = body->received - body->base;

    return body->streams && kept >= (direct ? body->mem_cap : BODY_HIGH);
}

int stk_body_recv(struct stk_body *body, struct stk_conn *conn, char *buf, size_t cap,
                  size_t *ret_rest)
{
    bool framed = body->chunked || body->records != NULL;
    bool direct = body_is_direct(body, conn);

    *ret_rest = 0;
    for (int round = 0; round < BODY_RECV_ROUNDS && !body_is_full(body, direct); round++) {
        size_t used = 0;
        ssize_t n;
        int r;

        if (direct) {
            size_t at = (size_t)(body->received - body->base);

            n = stk_conn_io_recv(conn, body->mem + at, body->mem_cap - at);
        } else {
            size_t room = cap;

            if (!framed && body->length - body->received < room)
                room = (size_t)(body->length - body->received);
            n = stk_conn_io_recv(conn, buf, room);
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return STK_BODY_PARTIAL;
        if (n <= 0)
            return -ECONNRESET;
        body->fresh += (uint64_t)n;
        if (direct) {
            body->received += (uint64_t)n;
            body->complete = body->received == body->length;
            r = body->complete ? STK_BODY_COMPLETE : STK_BODY_PARTIAL;
        } else {
            r = stk_body_feed(body, buf, (size_t)n, &used);
        }
        if (r == STK_BODY_COMPLETE && !direct && used < (size_t)n) {
            *ret_rest = (size_t)n - used;
            memmove(buf, buf + used, *ret_rest);
        }
        if (r != STK_BODY_PARTIAL)
            return r;
    }
    return STK_BODY_PARTIAL;
}

uint64_t stk_body_take_fresh(struct stk_body *body)
{
    uint64_t n = body->fresh;

    body->fresh = 0;
    return n;
}

bool stk_body_is_complete(const struct stk_body *body)
{
    return body->complete;
}

bool stk_body_is_over(const struct stk_body *body)
{
    return body->complete || (body->records != NULL && body->received == body->length &&
                              stk_fastcgi_body_is_between(body->records));
}

bool stk_body_is_chunked(const struct stk_body *body)
{
    return body->chunked;
}

bool stk_body_was_aborted(const struct stk_body *body)
{
    return body->aborted;
}

struct stk_fastcgi_replies *stk_body_replies(struct stk_body *body)
{
    if (body->records == NULL || body->records->replies.len == 0)
        return NULL;
    return &body->records->replies;
}

bool stk_body_is_small(const struct stk_body *body, size_t most)
{
    return body->complete && body->fd < 0 && body->received <= most;
}

const char *stk_body_error_text(const struct stk_body *body)
{
    return body->records != NULL ? stk_fastcgi_error_text(body->record_error)
                                 : stk_chunked_error_text(body->chunk_error);
}

void stk_body_set_fault(struct stk_body *body, int error)
{
    body->fault = error;
}

unsigned stk_body_fault(const struct stk_body *body, const char **ret_text)
{
    switch (body->fault) {
    case 0:
        return 0;
    case -ETIMEDOUT:
        *ret_text = "the request body took too long";
        return 408;
    case -EPROTO:
        *ret_text = stk_body_error_text(body);
        return 400;
    case -ECONNRESET:
        *ret_text = "the request body ended too early";
        return 400;
    case -EFBIG:
        *ret_text = "the request body is over the limit";
        return 413;
    default:
        *ret_text = "";
        return body->fault == -ENOMEM ? 503 : 500;
    }
}

bool stk_body_is_too_slow(const struct stk_body *body, int64_t rate, stk_msec now, stk_msec grace)
{
    stk_msec age = now - body->began;

    return rate > 0 && age >= grace && (int64_t)body->received < rate * (age / 1000);
}

int64_t stk_body_length(const struct stk_body *body)
{
    return body->complete ? (int64_t)body->length : -1;
}

/* Reads a window of the temporary file around the offset. */
static int body_fill_window(struct stk_body *body)
{
    ssize_t n;

    if (body->offset >= body->win_off && body->offset < body->win_off + body->win_len)
        return 0;
    if (body->window == NULL) {
        body->window = stk_try_alloc(BODY_WINDOW);
        if (body->window == NULL)
            return -ENOMEM;
    }
    do
        n = pread(body->fd, body->window, BODY_WINDOW, (off_t)body->offset);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 ? -errno : -EIO;
    body->win_off = body->offset;
    body->win_len = (size_t)n;
    return 0;
}

int stk_body_peek(struct stk_body *body, struct stk_body_view *ret_view)
{
    *ret_view = (struct stk_body_view){0};
    if (body->offset == body->received)
        return 0;
    if (body->fd >= 0) {
        int r = body_fill_window(body);

        if (r < 0)
            return r;
        ret_view->ptr = body->window + (body->offset - body->win_off);
        ret_view->len = body->win_len - (size_t)(body->offset - body->win_off);
        return 0;
    }
    ret_view->ptr = body->mem + (body->offset - body->base);
    ret_view->len = (size_t)(body->received - body->offset);
    if (body->complete && body->offset == 0)
        ret_view->buffer = body->host_buffer;
    else if (body->offset == body->base && ret_view->len == body->mem_cap)
        ret_view->part = body->host_buffer;
    return 0;
}

void stk_body_skip(struct stk_body *body, size_t len)
{
    body->offset += len;
    if (body->streams && body->offset == body->received && !body->complete && body->fd < 0) {
        body_free_memory(body, true);
        body->base = body->received;
    }
}

ssize_t stk_body_copy(struct stk_body *body, char *dst, size_t len)
{
    uint64_t left = body->received - body->offset;
    ssize_t n;

    if (len > left)
        len = (size_t)left;
    if (len == 0)
        return 0;
    if (body->fd < 0) {
        memcpy(dst, body->mem + (body->offset - body->base), len);
        stk_body_skip(body, len);
        return (ssize_t)len;
    }
    do
        n = pread(body->fd, dst, len, (off_t)body->offset);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 ? -errno : -EIO;
    body->offset += (uint64_t)n;
    return n;
}

bool stk_body_is_drained(const struct stk_body *body)
{
    return body->offset == body->received;
}
