/*
 * FastCGI on connections.
 *
 * In: what a connection keeps of a request is records that the front end could have sent so
 * (wire/fastcgi.h joins them within the buffer), so a connection has no state beside its bytes, and
 * keeps, moves and parses again like any other. conn->fcgi_id says which request was read last.
 *
 * Out: all that makes responses writes plain bytes. They become STDOUT records in stk_conn_send,
 * and pieces of files in the output queue, the two ways to a socket. A response ends by
 * END_REQUEST, whatever its length was said to be, so the connection can go on after each; one that
 * is cut has no end but bytes that are no record, which no front end takes for a whole one.
 */
#include "serve/fcgi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "serve/body.h"
#include "serve/proto.h"
#include "serve/server.h"
#include "wire/fastcgi.h"

enum {
    FCGI_RECORD = STK_FASTCGI_CONTENT_MAX & ~7, /* content bytes of the records sent */
    FCGI_IOV_SMALL = 16,                        /* pieces of a block as most are */
    FCGI_RECORDS_SMALL = 4,
};

/* ---- in ------------------------------------------------------------------------------------ */

void stk_fcgi_reply(struct stk_conn *conn, struct stk_fastcgi_replies *replies)
{
    struct iovec iov = {replies->bytes, replies->len};

    if (replies->len > 0 && stk_conn_send_raw(conn, &iov, 1, true) < 0)
        stk_log_debug("%s:%u: left before it was answered", conn->peer.addr, conn->peer.port);
    replies->len = 0;
}

/* Bytes that a browser, and no front end, would send. */
static bool fcgi_is_http(char first)
{
    return (first >= 'A' && first <= 'Z') || (first >= 'a' && first <= 'z');
}

static STK_COLD enum stk_http1_result fcgi_result(enum stk_fastcgi_result r, const char *buf)
{
    switch (r) {
    case STK_FASTCGI_PARTIAL:
        return STK_HTTP1_PARTIAL;
    case STK_FASTCGI_CLOSE:
        return STK_HTTP1_E_FASTCGI_ENDED;
    case STK_FASTCGI_E_HEAD_TOO_LARGE:
        return STK_HTTP1_E_HEAD_TOO_LARGE;
    case STK_FASTCGI_E_VERSION:
        return fcgi_is_http(*buf) ? STK_HTTP1_E_HTTP_BYTES : STK_HTTP1_E_BAD_PACKET;
    default:
        return STK_HTTP1_E_BAD_PACKET;
    }
}

/* Bytes of the records that say at data that there is no body; 0: they do not. */
static size_t fcgi_no_body(const struct stk_conn *conn, char *data, size_t len)
{
    stk_span body;
    size_t used;

    if (conn->body != NULL ||
        stk_fastcgi_whole(data, len, conn->fcgi_id, false, &body, &used) != STK_FASTCGI_OK)
        return 0;
    return body.len == 0 ? used : 0;
}

/* Reads the head whose records are at buf, with nothing or the empty body behind them. */
static enum stk_http1_result fcgi_read(struct stk_serve_thread *t,
                                       const struct stk_fastcgi_head *fh, const char *buf,
                                       size_t no_body)
{
    const struct stk_http1_limits *limits = &t->server->limits;
    struct stk_gateway *gw = &t->gateway->vars;
    struct stk_head *head = &t->head;
    enum stk_http1_result result;
    const char *held;
    stk_span vars;

    if (fh->len + no_body > limits->head_max)
        return STK_HTTP1_E_HEAD_TOO_LARGE;
    stk_gateway_begin(gw, t->gateway->scratch, limits);
    held = stk_gateway_hold(gw, buf, fh->len + no_body);
    vars = stk_span_make(held + (fh->vars.ptr - buf), fh->vars.len);
    while (vars.len > 0) {
        stk_span name, value;

        if (stk_fastcgi_pair(&vars, &name, &value) != STK_FASTCGI_OK)
            return STK_HTTP1_E_BAD_PACKET;
        stk_gateway_add(gw, name, value);
    }
    result = stk_gateway_finish(gw, head, false);
    if (result != STK_HTTP1_OK)
        return result;
    if (head->has_content_length && head->content_length > 0)
        no_body = 0; /* it is missing, which is said where bodies are read */
    gw->held_len = head->len = fh->len + (uint32_t)no_body;
    head->keep_alive = fh->keep;
    head->records = no_body == 0;
    head->chunked = head->records && !head->has_content_length;
    return STK_HTTP1_OK;
}

enum stk_http1_result stk_fcgi_parse(struct stk_conn *conn, struct stk_serve_thread *t, char *buf,
                                     size_t len, size_t *off)
{
    uint64_t most = conn->server->max_connections;
    struct stk_fastcgi_replies *replies = &t->gateway->replies;
    struct stk_fastcgi_head fh;
    enum stk_fastcgi_result r;
    char *behind;

    replies->max_conns = replies->max_reqs = most < UINT32_MAX ? (uint32_t)most : UINT32_MAX;
    do {
        r = stk_fastcgi_head(buf, len, off, &fh, replies);
        stk_fcgi_reply(conn, replies);
    } while (r == STK_FASTCGI_REPLY);
    conn->fcgi_id = fh.id;
    if (r != STK_FASTCGI_OK)
        return fcgi_result(r, buf + *off);
    behind = buf + *off + fh.len;
    return fcgi_read(t, &fh, buf + *off, fcgi_no_body(conn, behind, len - *off - fh.len));
}

int64_t stk_fcgi_body_here(const struct stk_conn *conn, const struct stk_head *head, char *data,
                           size_t len, stk_span *ret_body)
{
    int64_t limit = conn->server->config->limit_request_body;
    stk_span body;
    size_t used;

    if (stk_fastcgi_whole(data, len, conn->fcgi_id, false, &body, &used) != STK_FASTCGI_OK ||
        (head->has_content_length && body.len != head->content_length) ||
        (limit > 0 && body.len > (uint64_t)limit))
        return -1;
    if (ret_body != NULL &&
        stk_fastcgi_whole(data, len, conn->fcgi_id, true, ret_body, &used) != STK_FASTCGI_OK)
        return -1;
    return (int64_t)used;
}

bool stk_fcgi_end_aborted(struct stk_conn *conn)
{
    return stk_fcgi_send(conn, NULL, 0, true) == 0;
}

bool stk_fcgi_is_aborted(const struct stk_conn *conn)
{
    char wanted[STK_FASTCGI_HEADER], found[STK_FASTCGI_HEADER];

    if (conn->fcgi_id == 0)
        return false;
    stk_fastcgi_put_header(wanted, STK_FASTCGI_ABORT_REQUEST, conn->fcgi_id, 0);
    /* Type and id: lengths may be anything. */
    return recv(conn->src.fd, found, sizeof found, MSG_PEEK | MSG_DONTWAIT) >= 4 &&
           memcmp(wanted, found, 4) == 0;
}

/* ---- out ----------------------------------------------------------------------------------- */

/* Writes the pieces of `from` as records to `to`, headers at `heads`. Returns how many pieces. */
static int fcgi_frame(uint16_t id, const struct iovec *from, uint64_t total, struct iovec *to,
                      char *heads)
{
    size_t at = 0;
    int n = 0;

    while (total > 0) {
        size_t left = total < FCGI_RECORD ? (size_t)total : FCGI_RECORD;

        total -= left;
        stk_fastcgi_put_header(heads, STK_FASTCGI_STDOUT, id, left);
        to[n++] = (struct iovec){heads, STK_FASTCGI_HEADER};
        heads += STK_FASTCGI_HEADER;
        while (left > 0) {
            size_t len = from->iov_len - at < left ? from->iov_len - at : left;

            if (len > 0)
                to[n++] = (struct iovec){(char *)from->iov_base + at, len};
            left -= len;
            at += len;
            if (at == from->iov_len) {
                from++;
                at = 0;
            }
        }
    }
    return n;
}

int stk_fcgi_send(struct stk_conn *conn, struct iovec *iov, int iovcnt, bool end)
{
    struct iovec small[FCGI_IOV_SMALL], *to = small;
    char small_heads[FCGI_RECORDS_SMALL * STK_FASTCGI_HEADER], *heads = small_heads;
    char tail[STK_FASTCGI_END];
    STK_CLEANUP(stk_mem_freep) char *memory = NULL;
    uint64_t total = 0, records;
    size_t pieces;
    int n;

    for (int i = 0; i < iovcnt; i++)
        total += iov[i].iov_len;
    records = (total + FCGI_RECORD - 1) / FCGI_RECORD;
    pieces = (size_t)records * 2 + (size_t)iovcnt + 1;
    if (pieces > FCGI_IOV_SMALL || records > FCGI_RECORDS_SMALL) {
        memory = stk_try_alloc(pieces * sizeof *to + (size_t)records * STK_FASTCGI_HEADER);
        if (memory == NULL)
            return -ENOMEM;
        to = (struct iovec *)(void *)memory;
        heads = memory + pieces * sizeof *to;
    }
    n = fcgi_frame(conn->fcgi_id, iov, total, to, heads);
    if (end) {
        stk_fastcgi_put_end(tail, conn->fcgi_id);
        to[n++] = (struct iovec){tail, sizeof tail};
    }
    STK_ASSERT((size_t)n <= pieces);
    return n > 0 ? stk_conn_send_raw(conn, to, n, end) : 0;
}

/* Whether the application has failed, and not because of its client's body. */
static bool fcgi_has_failed(const struct stk_serve_request *rq)
{
    const char *text;

    return rq->failed && rq->of_app && (rq->body == NULL || stk_body_fault(rq->body, &text) == 0);
}

/* Tells the front end, which writes it to its error log, that the application has failed. */
static STK_COLD int fcgi_send_stderr(struct stk_conn *conn)
{
    static const char said[] = "the application failed; the traceback is in stoker's error log\n";
    char record[STK_FASTCGI_HEADER + sizeof said - 1 + STK_FASTCGI_HEADER];
    struct iovec iov = {record, sizeof record};

    stk_fastcgi_put_header(record, STK_FASTCGI_STDERR, conn->fcgi_id, sizeof said - 1);
    memcpy(record + STK_FASTCGI_HEADER, said, sizeof said - 1);
    stk_fastcgi_put_header(record + STK_FASTCGI_HEADER + sizeof said - 1, STK_FASTCGI_STDERR,
                           conn->fcgi_id, 0); /* the end of the stream */
    return stk_conn_send_raw(conn, &iov, 1, true);
}

STK_COLD void stk_fcgi_end_slow(struct stk_serve_request *rq)
{
    struct stk_serve_thread *t = rq->t;
    struct iovec iov;
    bool whole = !rq->truncated && (!rq->has_length || rq->remaining == 0 || rq->no_body);

    stk_gather_end(t);
    iov = (struct iovec){t->out.buf, t->out.len};
    if (!rq->gone && stk_unlikely(fcgi_has_failed(rq)) && fcgi_send_stderr(rq->conn) < 0)
        rq->gone = true;
    if (!rq->gone && stk_fcgi_send(rq->conn, &iov, 1, whole) == 0)
        t->bytes_out += t->out.len;
    else
        rq->gone = true;
    if (!whole && !rq->gone) {
        /* nginx without fastcgi_keep_conn takes the end of the connection for that of the
         * response; of version 0 no record can be. */
        char bad[STK_FASTCGI_HEADER] = {0};
        struct iovec tail = {bad, sizeof bad};

        rq->gone = stk_conn_send_raw(rq->conn, &tail, 1, true) < 0;
    }
    t->out.len = 0;
    rq->keep_alive = rq->keep_alive && whole && !rq->gone;
}
