/*
 * Responses of HTTP/1.1 (RFC 9110, RFC 9112). The head is rendered straight into the thread's
 * output buffer as the application states it, and completed when the first bytes of the body tell
 * how it is framed:
 *
 *   Content-Length given          as given; more is cut, less closes the connection
 *   the whole body in one write   Content-Length computed
 *   HTTP/1.1                      chunked
 *   HTTP/1.0, uwsgi, SCGI         to the end of the connection
 *
 * FastCGI frames whatever is written once more, below (serve/fcgi.c), and ends it by a record.
 *
 * Small bodies are copied behind the head, so that one send() carries both; larger ones are sent
 * from where they lie.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "base/assert.h"
#include "base/log.h"
#include "config/config.h"
#include "ipc/scoreboard.h"
#include "serve/body.h"
#include "serve/carry.h"
#include "serve/compress.h"
#include "serve/conn.h"
#include "serve/deadline.h"
#include "serve/fcgi.h"
#include "serve/http1.h"
#include "serve/move.h"
#include "serve/request.h"
#include "serve/response_more.h"
#include "serve/router.h"
#include "serve/sendfile.h"
#include "serve/server.h"
#include "serve/uroute.h"
#include "wire/http_date.h"
#include "wire/http_status.h"

enum {
    RESPONSE_GATHER_NS = 50 * 1000, /* a block later than this after the last one leaves at once */
    /* room for the fields that the server adds, and for what it changes */
    RESPONSE_TAIL_MAX = 512,
    RESPONSE_ROOM = RESPONSE_TAIL_MAX + STK_COMPRESS_HEAD_MAX,
};

static char *out_reserve(struct stk_serve_request *rq, size_t len)
{
    struct stk_out *out = &rq->t->out;

    return out->len + len + RESPONSE_ROOM > out->cap ? NULL : out->buf + out->len;
}

static inline char *put(char *p, const char *s, size_t len)
{
    memcpy(p, s, len);
    return p + len;
}

#define PUT_LIT(p, lit) put((p), lit, sizeof(lit) - 1)

static char *put_decimal(char *p, uint64_t v)
{
    char tmp[20];
    size_t n = 0;

    do
        tmp[n++] = (char)('0' + v % 10);
    while ((v /= 10) != 0);
    while (n > 0)
        *p++ = tmp[--n];
    return p;
}

static char *put_hex(char *p, uint64_t v)
{
    char tmp[16];
    size_t n = 0;

    do
        tmp[n++] = "0123456789abcdef"[v & 15];
    while ((v >>= 4) != 0);
    while (n > 0)
        *p++ = tmp[--n];
    return p;
}

/* Sends the answers of earlier requests, of which the thread's buffer is full. */
static STK_COLD void response_send_earlier(struct stk_serve_request *rq)
{
    if (!stk_deadline_lock(rq)) {
        rq->gone = true;
        return;
    }
    if (stk_gather_send(rq->t, rq->conn, NULL, 0) < 0)
        rq->gone = true;
    stk_deadline_unlock(rq);
}

/* Begins a head of so many bytes so far; NULL: the buffer is too small for it. */
static inline char *response_begin(struct stk_serve_request *rq, unsigned status, size_t len)
{
    struct stk_out *out = &rq->t->out;
    char *p;

    if (rq->started)
        out->len = out->mark;
    p = out_reserve(rq, len);
    if (stk_unlikely(p == NULL)) {
        /* Answers of earlier, pipelined requests fill the buffer: they leave first. */
        response_send_earlier(rq);
        out->len = 0;
        p = out_reserve(rq, len);
        if (p == NULL)
            return NULL;
    }
    out->mark = out->len;
    rq->started = true;
    rq->status = (uint16_t)status;
    rq->base.status = status;
    rq->no_body = rq->base.head->is_head || status == 204 || status == 304;
    return p;
}

/* Whether the head begins with a Status field instead of a status line (RFC 3875 6.3.3). */
static inline bool response_is_cgi(const struct stk_serve_request *rq)
{
    return rq->conn->proto == STK_PROTO_SCGI || rq->conn->fcgi_id != 0;
}

int stk_response_start(struct stk_request *req, unsigned status, stk_span reason)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    struct stk_out *out = &rq->t->out;
    char *p;

    if (rq->committed)
        return STK_RESPONSE_E_STARTED;
    if (status < 200 || status > 599 || !stk_http1_is_field_value(reason))
        return STK_RESPONSE_E_STATUS;
    p = response_begin(rq, status, reason.len + 16);
    if (p == NULL)
        return STK_RESPONSE_E_HEAD_SIZE;
    rq->has_length = rq->has_date = rq->has_server = false;
    if (stk_unlikely(response_is_cgi(rq)))
        p = PUT_LIT(p, "Status: ");
    else
        p = PUT_LIT(p, "HTTP/1.1 ");
    *p++ = (char)('0' + status / 100);
    *p++ = (char)('0' + status / 10 % 10);
    *p++ = (char)('0' + status % 10);
    *p++ = ' ';
    p = put(p, reason.ptr, reason.len);
    p = PUT_LIT(p, "\r\n");
    out->len = (size_t)(p - out->buf);
    return 0;
}

static int response_set_length(struct stk_serve_request *rq, stk_span value)
{
    uint64_t v = 0;

    if (value.len == 0 || value.len > 18)
        return STK_RESPONSE_E_LENGTH;
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9')
            return STK_RESPONSE_E_LENGTH;
        v = v * 10 + (uint64_t)(value.ptr[i] - '0');
    }
    if (rq->has_length && rq->remaining != v)
        return STK_RESPONSE_E_LENGTH;
    rq->remaining = v;
    return 0;
}

/* Content-Length of the application. 0; -1: it says the same again; > 0: an error. */
static int response_length_field(struct stk_serve_request *rq, stk_span value)
{
    bool repeated = rq->has_length;
    int r = response_set_length(rq, value);

    if (r != 0)
        return r;
    rq->has_length = true;
    return repeated || rq->status == 204 ? -1 : 0; /* 204: RFC 9110 8.6 */
}

/*
 * Fields that the server minds, told apart by their length first. 0: take it; -1: leave it out; >
 * 0: an error.
 */
static int response_known(struct stk_serve_request *rq, stk_span name, stk_span value)
{
    bool forbidden = false;

#define IS(lit) stk_span_ieq(name, STK_SPAN_LIT(lit))
    switch (name.len) {
    case 2:
        forbidden = IS("te");
        break;
    case 4:
        rq->has_date = rq->has_date || IS("date");
        break;
    case 6:
        rq->has_server = rq->has_server || IS("server");
        break;
    case 7:
        forbidden = (IS("trailer") && !rq->base.trailers) || IS("upgrade");
        break;
    case 8:
        forbidden = IS("trailers");
        break;
    case 10:
        forbidden = IS("connection") || IS("keep-alive");
        break;
    case 14:
        if (!IS("content-length"))
            return 0;
        /* Trailers need chunks (RFC 9112 7.1.2). */
        return rq->base.trailers ? -1 : response_length_field(rq, value);
    case 17:
        forbidden = IS("transfer-encoding");
        break;
    case 18:
        forbidden = IS("proxy-authenticate");
        break;
    case 19:
        forbidden = IS("proxy-authorization");
        break;
    default:
        break;
    }
#undef IS
    return forbidden ? STK_RESPONSE_E_HOP_BY_HOP : 0;
}

/* Moves the head that is being made to the front of the buffer, and sends the answers before it. */
static char *response_make_room(struct stk_serve_request *rq, size_t len)
{
    struct stk_out *out = &rq->t->out;
    size_t head, mark;

    stk_gather_end(rq->t); /* which may move both */
    mark = out->mark;
    head = out->len - mark;
    if (mark == 0)
        return NULL;
    out->len = mark;
    response_send_earlier(rq);
    memmove(out->buf, out->buf + mark, head);
    out->mark = 0;
    out->len = head;
    return out_reserve(rq, len);
}

int stk_response_header(struct stk_request *req, stk_span name, stk_span value)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    struct stk_out *out = &rq->t->out;
    char *begin, *p;
    int r;

    if (stk_unlikely(rq->committed))
        return STK_RESPONSE_E_STARTED;
    if (stk_unlikely(!rq->started))
        return STK_RESPONSE_E_NOT_STARTED;
    begin = out_reserve(rq, name.len + value.len + 4);
    if (stk_unlikely(begin == NULL)) {
        begin = response_make_room(rq, name.len + value.len + 4);
        if (begin == NULL)
            return STK_RESPONSE_E_HEAD_SIZE;
    }
    /* Copied first and checked there, where bytes behind the end may be read. */
    p = put(begin, name.ptr, name.len);
    if (stk_unlikely(!stk_http1_is_token_padded(begin, name.len)))
        return STK_RESPONSE_E_NAME;
    *p++ = ':';
    *p++ = ' ';
    p = put(p, value.ptr, value.len);
    if (stk_unlikely(!stk_http1_is_field_value_padded(p - value.len, value.len)))
        return STK_RESPONSE_E_VALUE;
    r = response_known(rq, name, value);
    if (stk_unlikely(r != 0))
        return r < 0 ? 0 : r;
    *p++ = '\r';
    *p++ = '\n';
    out->len = (size_t)(p - out->buf);
    return 0;
}

bool stk_response_head_save(const struct stk_request *req, struct stk_response_head *ret_head)
{
    const struct stk_serve_request *rq = (const void *)req;
    const struct stk_out *out = &rq->t->out;
    size_t len = out->len - out->mark;

    if (!rq->started || rq->committed || len > sizeof ret_head->bytes || response_is_cgi(rq))
        return false;
    ret_head->length = rq->has_length ? rq->remaining : 0;
    ret_head->len = (uint16_t)len;
    ret_head->status = rq->status;
    ret_head->has_length = rq->has_length;
    ret_head->has_date = rq->has_date;
    ret_head->has_server = rq->has_server;
    memcpy(ret_head->bytes, out->buf + out->mark, len);
    return true;
}

int stk_response_head_load(struct stk_request *req, const struct stk_response_head *head)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    char *p;

    if (stk_unlikely(rq->committed))
        return STK_RESPONSE_E_STARTED;
    p = response_begin(rq, head->status, head->len);
    if (stk_unlikely(p == NULL))
        return STK_RESPONSE_E_HEAD_SIZE;
    rq->has_length = head->has_length;
    rq->remaining = head->length;
    rq->has_date = head->has_date;
    rq->has_server = head->has_server;
    if (stk_unlikely(response_is_cgi(rq))) {
        /* Made for a connection of HTTP: another beginning. */
        enum { HTTP_LEN = sizeof "HTTP/1.1 " - 1, CGI_LEN = sizeof "Status: " - 1 };

        p = PUT_LIT(p, "Status: ");
        memcpy(p, head->bytes + HTTP_LEN, (size_t)head->len - HTTP_LEN);
        rq->t->out.len += (size_t)head->len - HTTP_LEN + CGI_LEN;
        return 0;
    }
    memcpy(p, head->bytes, head->len);
    rq->t->out.len += head->len;
    return 0;
}

/* The thread's Date field, rendered once a second. */
static const char *response_date(struct stk_serve_thread *t)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME_COARSE, &ts);
    if (ts.tv_sec != t->date_second) {
        t->date_second = ts.tv_sec;
        memcpy(t->date, "Date: ", 6);
        stk_http_date_format(t->date + 6, ts.tv_sec);
        memcpy(t->date + 6 + STK_HTTP_DATE_LEN, "\r\n", 2);
    }
    return t->date;
}

/* Decides the framing, and whether the connection can go on after it. `length` is that of the body,
 * or -1. */
static char *response_framing(struct stk_serve_request *rq, char *p, int64_t length)
{
    const struct stk_head *head = rq->base.head;

    if (rq->no_body) {
        /* What GET would have said: a length if the application gave one, nothing if not. */
        if (!rq->has_length && rq->status != 204 && rq->status != 304 && length > 0) {
            p = PUT_LIT(p, "Content-Length: ");
            p = put_decimal(p, (uint64_t)length);
            p = PUT_LIT(p, "\r\n");
        }
        return p;
    }
    if (rq->has_length)
        return p;
    if (length >= 0) {
        p = PUT_LIT(p, "Content-Length: ");
        p = put_decimal(p, (uint64_t)length);
        rq->has_length = true;
        rq->remaining = (uint64_t)length;
        return PUT_LIT(p, "\r\n");
    }
    if (head->version_minor >= 1 && rq->conn->proto == STK_PROTO_HTTP1) {
        rq->chunked = true;
        return PUT_LIT(p, "Transfer-Encoding: chunked\r\n");
    }
    if (rq->conn->fcgi_id == 0) /* FastCGI ends it without the connection */
        rq->keep_alive = false;
    return p;
}

/* Completes the head. `length` is that of the whole body, or -1. */
static int response_commit(struct stk_serve_request *rq, int64_t length)
{
    struct stk_out *out = &rq->t->out;
    char *p = out->buf + out->len;

    STK_ASSERT(out->len + RESPONSE_TAIL_MAX <= out->cap);
    if (!rq->has_date)
        p = put(p, response_date(rq->t), STK_SERVE_DATE_LINE);
    if (!rq->has_server)
        p = put(p, rq->t->server->server_line, rq->t->server->server_line_len);
    p = response_framing(rq, p, length);
    if (stk_unlikely(atomic_load_explicit(&rq->t->server->draining, memory_order_relaxed)) &&
        (stk_carry_stays(rq->conn) || !stk_move_has_heir(rq->t->server->move)))
        rq->keep_alive = false;
    if (stk_unlikely(rq->body != NULL) && length >= 0 && !stk_body_is_over(rq->body))
        rq->keep_alive = false; /* what the application left of the body is not read */
    if (stk_unlikely(rq->conn->proto != STK_PROTO_HTTP1)) {
        /* The connection is none of the client's business. */
    } else if (!rq->keep_alive)
        p = PUT_LIT(p, "Connection: close\r\n");
    else if (rq->base.head->version_minor == 0)
        p = PUT_LIT(p, "Connection: keep-alive\r\n");
    p = PUT_LIT(p, "\r\n");
    out->len = (size_t)(p - out->buf);
    if (stk_likely(stk_deadline_commit(rq)))
        return 0;
    rq->gone = true;
    rq->keep_alive = false;
    return -EPIPE;
}

/* Whether this block may lie in the buffer until more comes, or a tick has passed. */
static bool response_may_gather(struct stk_serve_request *rq, unsigned flags)
{
    stk_nsec now;
    bool fast;

    if (flags & STK_WRITE_END) /* the caller of the host sends it in a moment: what can be sent */
        return !stk_conn_has_output(rq->conn);
    if (stk_lead_standby(rq->t->lead_thread->lead) == NULL || rq->detached)
        return false;
    now = stk_time_mono_ns();
    fast = rq->streamed && now - rq->last_block < RESPONSE_GATHER_NS;
    rq->last_block = now;
    rq->streamed = true;
    return fast && !(flags & STK_WRITE_FLUSH);
}

/* Sends or gathers a framed block. */
static int response_block(struct stk_serve_request *rq, const char *data, size_t len,
                          unsigned flags)
{
    struct iovec iov[3];
    char size[24];
    int n = 0;
    int r;

    if (rq->chunked && len > 0) {
        char *p = put_hex(size, len);

        p = PUT_LIT(p, "\r\n");
        iov[n++] = (struct iovec){size, (size_t)(p - size)};
    }
    if (len > 0) {
        union {
            const char *c;
            void *v;
        } u = {.c = data};

        iov[n++] = (struct iovec){u.v, len};
    }
    if (rq->chunked) {
        static char crlf_end[] = "\r\n0\r\n\r\n";
        bool end = flags & STK_WRITE_END;

        if (stk_unlikely(rq->trailer != NULL) && end)
            iov[n++] = stk_trailer_iov(rq->trailer, len > 0);
        else if (len > 0)
            iov[n++] = (struct iovec){crlf_end, end ? 7 : 2};
        else if (end)
            iov[n++] = (struct iovec){crlf_end + 2, 5};
    }
    if (len <= STK_SERVE_COPY_MAX && response_may_gather(rq, flags)) {
        r = stk_gather_append(rq->t, rq->conn, iov, n);
        if (r == 0 && !(flags & STK_WRITE_END))
            stk_gather_begin(rq->t, rq->conn);
    } else {
        r = stk_gather_send(rq->t, rq->conn, iov, n);
    }
    return r;
}

int stk_response_coded(struct stk_conn *conn, const char *data, size_t len, bool chunked,
                       uint64_t *sent)
{
    char size[24], crlf[] = "\r\n";
    char *p = PUT_LIT(put_hex(size, len), "\r\n");
    union {
        const char *c;
        void *v;
    } u = {.c = data};
    struct iovec iov[3] = {{size, (size_t)(p - size)}, {u.v, len}, {crlf, 2}};
    int r = chunked ? stk_conn_send(conn, iov, 3) : stk_conn_send(conn, iov + 1, 1);

    if (r == 0)
        *sent += len + (chunked ? (size_t)(p - size) + 2 : 0);
    return r;
}

/* The stand-by looks at it as well. */
static inline void response_set_ended(struct stk_serve_request *rq)
{
    __atomic_store_n(&rq->ended, true, __ATOMIC_RELAXED);
}

void stk_response_set_ended(struct stk_serve_request *rq)
{
    response_set_ended(rq);
}

/* Counts what the head is, which lies at the end of the buffer. */
static void response_count_head(struct stk_serve_request *rq)
{
    const struct stk_out *out = &rq->t->out;
    const char *p = out->buf + out->mark;
    const char *end = out->buf + out->len;
    unsigned lines = 0;

    rq->head_bytes = (uint32_t)(end - p);
    while (p < end && (p = memchr(p, '\n', (size_t)(end - p))) != NULL) {
        lines++;
        p++;
    }
    rq->head_fields = (uint16_t)(lines - 2); /* without the status line and the empty one */
}

int stk_response_commit(struct stk_serve_request *rq, int64_t length)
{
    int r = response_commit(rq, length);

    if (rq->t->server->counts_heads)
        response_count_head(rq);
    return r;
}

int stk_response_block(struct stk_serve_request *rq, const char *data, size_t len, unsigned flags)
{
    return response_block(rq, data, len, flags);
}

/*
 * The head is complete but for the server's fields: what options say about it is done. 0; or the
 * result of the write, where rq->base.replaced says that something else has been sent.
 */
static STK_COLD int response_filter(struct stk_serve_request *rq, int64_t *length)
{
    const struct stk_server *server = rq->t->server;

    /* A file that the application names has a head of its own, which comes here as well. */
    if (server->sendfile != NULL && rq->of_app) {
        int r = stk_sendfile_head(server->sendfile, rq);

        if (rq->base.replaced)
            return r;
    }
    /* First what the administrator says: a Cache-Control among it may forbid compression. */
    if (stk_router_has_fields(server->router) && !stk_router_change_fields(rq))
        stk_log_warning("a response has no room for the fields that `header` and `route` add: it "
                        "leaves without them");
    if (rq->uroute != NULL && !stk_uroute_head(rq))
        return rq->gone ? -EPIPE : 0;
    /* What is answered without the application has been made as it is to be. */
    if (server->compress != NULL && rq->of_app)
        stk_compress_head(server->compress, rq, length);
    return 0;
}

/* What a failed send means for the response. */
static int response_sent(struct stk_serve_request *rq, int r, uint64_t len, unsigned flags)
{
    if (r == -EAGAIN)
        return r;
    if (r < 0) {
        rq->gone = true;
        rq->keep_alive = false;
        if (flags & STK_WRITE_END)
            response_set_ended(rq);
        return -EPIPE;
    }
    rq->body_bytes += len;
    if (rq->has_length)
        rq->remaining -= len;
    if (flags & STK_WRITE_END) {
        response_set_ended(rq);
        if (rq->has_length && rq->remaining > 0 && !rq->no_body)
            rq->keep_alive = false;
    }
    return rq->cut ? STK_RESPONSE_E_TOO_LONG : 0;
}

/*
 * The whole body of most responses: a small block that says it is the last, behind a head that
 * tells its length. It is copied behind the head, and leaves when the caller of the host sends.
 * False: it has to go the long way.
 */
static inline bool response_whole(struct stk_serve_request *rq, const char *data, size_t len,
                                  unsigned flags)
{
    struct stk_out *out = &rq->t->out;

    if ((flags & STK_WRITE_END) == 0 || len == 0 || !rq->has_length || rq->remaining != len ||
        rq->no_body || rq->t->gathering || len > STK_SERVE_COPY_MAX || out->cap - out->len < len ||
        stk_conn_has_output(rq->conn))
        return false;
    memcpy(out->buf + out->len, data, len);
    out->len += len;
    rq->body_bytes += len;
    rq->remaining = 0;
    response_set_ended(rq);
    return true;
}

int stk_response_write(struct stk_request *req, const char *data, size_t len, unsigned flags)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    int r;

    if (stk_unlikely(!rq->started))
        return STK_RESPONSE_E_NOT_STARTED;
    if (stk_unlikely(rq->gone))
        return -EPIPE;
    if (!rq->committed) {
        int64_t length = flags & STK_WRITE_END ? (int64_t)len : -1;

        if (stk_unlikely(rq->t->server->response_rules)) {
            r = response_filter(rq, &length);
            if (rq->base.replaced)
                return r;
            if (rq->coder != NULL)
                return stk_encode_write(rq, data, len, flags);
            r = stk_response_commit(rq, length);
        } else {
            r = response_commit(rq, length);
        }
        if (r != 0)
            return r;
        if (stk_likely(response_whole(rq, data, len, flags)))
            return 0;
    } else if (stk_unlikely(rq->coder != NULL)) {
        return stk_encode_write(rq, data, len, flags);
    } else if (stk_unlikely(rq->base.replaced)) {
        return 0;
    }
    if (rq->no_body) {
        len = 0;
    } else if (rq->has_length && len > rq->remaining) {
        len = (size_t)rq->remaining;
        rq->cut = true;
    }
    r = response_block(rq, data, len, flags);
    return response_sent(rq, r, len, flags);
}

int stk_response_sendfile(struct stk_request *req, int fd, int64_t off, uint64_t len,
                          unsigned flags)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    struct iovec iov = {0};
    char size[24];
    int r;

    if (!rq->started)
        return STK_RESPONSE_E_NOT_STARTED;
    if (rq->gone)
        return -EPIPE;
    rq->file = true;
    if (!rq->committed) {
        int64_t length = flags & STK_WRITE_END ? (int64_t)len : -1;

        if (rq->t->server->response_rules) {
            r = response_filter(rq, &length);
            if (rq->base.replaced)
                return r;
            if (rq->coder != NULL)
                return stk_encode_file(rq, fd, off, len, flags);
        }
        r = stk_response_commit(rq, length);
        if (r != 0)
            return r;
    } else if (rq->coder != NULL) {
        return stk_encode_file(rq, fd, off, len, flags);
    } else if (rq->base.replaced) {
        return 0;
    }
    if (rq->has_length && len > rq->remaining && !rq->no_body) {
        len = rq->remaining;
        rq->cut = true;
    }
    if (rq->no_body || len == 0)
        return stk_response_write(req, NULL, 0, flags);
    if (rq->chunked) {
        char *p = put_hex(size, len);

        p = PUT_LIT(p, "\r\n");
        iov = (struct iovec){size, (size_t)(p - size)};
    }
    r = stk_gather_send(rq->t, rq->conn, &iov, 1);
    if (r == 0)
        r = stk_conn_sendfile(rq->conn, fd, off, len,
                              !rq->chunked            ? stk_span_make("", 0)
                              : flags & STK_WRITE_END ? STK_SPAN_LIT("\r\n0\r\n\r\n")
                                                      : STK_SPAN_LIT("\r\n"));
    if (r == 0)
        rq->t->bytes_out += len;
    return response_sent(rq, r, len, flags);
}

bool stk_response_is_committed(const struct stk_request *req)
{
    const struct stk_serve_request *rq = (const void *)req;

    return rq->committed;
}

void stk_response_plain(struct stk_serve_request *rq, unsigned status, const char *text)
{
    char body[256];
    stk_span reason = stk_http_status_reason(status);
    char *p = body;
    size_t n = strnlen(text, 160);

    p = put_decimal(p, status);
    *p++ = ' ';
    p = put(p, reason.ptr, reason.len);
    if (n > 0) {
        p = PUT_LIT(p, ": ");
        p = put(p, text, n);
    }
    *p++ = '\n';
    if (stk_response_start(&rq->base, status, reason) != 0 ||
        stk_response_header(&rq->base, STK_SPAN_LIT("Content-Type"),
                            STK_SPAN_LIT("text/plain; charset=utf-8")) != 0 ||
        stk_response_write(&rq->base, body, (size_t)(p - body), STK_WRITE_END) < 0)
        rq->keep_alive = false;
}

void stk_response_fail(struct stk_request *req)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);

    rq->failed = true;
    if (rq->ended)
        return;
    if (stk_unlikely(rq->coder != NULL))
        stk_encode_fail(rq);
    if (!rq->committed) {
        const char *text = "";
        unsigned status = rq->body != NULL ? stk_body_fault(rq->body, &text) : 0;

        /* An application that fails because of its client's body is not at fault. */
        stk_response_plain(rq, status != 0 ? status : 500, text);
        return;
    }
    /* The end of the connection without the end of the body is what tells the client. */
    rq->truncated = true;
    response_set_ended(rq);
    rq->keep_alive = false;
}

void stk_response_end(struct stk_serve_request *rq)
{
    stk_gather_end(rq->t);
    if (stk_unlikely(rq->gone)) {
        rq->keep_alive = false;
        stk_compress_release(rq);
        if (rq->started && !rq->committed) /* a head that is not to leave */
            rq->t->out.len = rq->t->out.mark;
    } else if (stk_unlikely(!rq->ended)) {
        stk_response_fail(&rq->base);
    }
    stk_fcgi_end(rq);
}
