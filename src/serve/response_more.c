/*
 * What a response of HTTP/1.1 may have besides its head and its body: interim responses in front of
 * them (103 Early Hints, RFC 8297) and trailers behind (RFC 9110 6.5).
 *
 * Both are made in memory of their own, and neither costs a response without them anything. An
 * interim response is of use only if it leaves at once, so what lies in the buffer before the head
 * leaves with it. Trailers take the place of the empty end of a chunked body.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "base/mem.h"
#include "ipc/scoreboard.h"
#include "serve/conn.h"
#include "serve/deadline.h"
#include "serve/request.h"
#include "serve/response_more.h"
#include "serve/server.h"
#include "wire/http1.h"

enum { MORE_MAX = 64 * 1024 };

static char *more_put(char *p, stk_span text)
{
    if (text.len > 0)
        memcpy(p, text.ptr, text.len);
    return p + text.len;
}

static char *more_put_field(char *p, stk_span name, stk_span value)
{
    p = more_put(p, name);
    p = more_put(p, STK_SPAN_LIT(": "));
    p = more_put(p, value);
    return more_put(p, STK_SPAN_LIT("\r\n"));
}

/* ---- early hints --------------------------------------------------------------------------- */

/* Sends what lies before the head that is being made, and the text behind it. */
static int hint_send(struct stk_serve_request *rq, char *text, size_t len)
{
    struct stk_out *out = &rq->t->out;
    size_t before;
    struct iovec iov[2];
    int r;

    stk_gather_end(rq->t); /* which may move the mark */
    before = rq->started ? out->mark : out->len;
    iov[0] = (struct iovec){out->buf, before};
    iov[1] = (struct iovec){text, len};
    r = stk_conn_send(rq->conn, iov, 2);
    if (r == -EAGAIN)
        return 0; /* the client has more to read than it can: a hint comes too late */
    if (r < 0) {
        rq->gone = true;
        return -EPIPE;
    }
    rq->t->bytes_out += before + len;
    out->len -= before;
    memmove(out->buf, out->buf + before, out->len);
    out->mark = 0;
    stk_scoreboard_add(rq->conn->server->row, STK_COUNTER_responses_1xx, 1);
    return 0;
}

int stk_response_early_hint(struct stk_request *req, const stk_span *links, size_t nlinks)
{
    static const stk_span line = STK_SPAN_LIT("HTTP/1.1 103 Early Hints\r\n");
    struct stk_serve_request *rq = stk_serve_request_of(req);
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    size_t len = line.len + 2;
    char *p;
    int r;

    for (size_t i = 0; i < nlinks; i++) {
        if (links[i].len == 0 || !stk_http1_is_field_value(links[i]))
            return STK_RESPONSE_E_VALUE;
        len += links[i].len + sizeof "Link: \r\n" - 1;
        if (len > MORE_MAX)
            return STK_RESPONSE_E_HEAD_SIZE;
    }
    if (rq->gone)
        return -EPIPE;
    if (nlinks == 0 || rq->committed || rq->conn->proto != STK_PROTO_HTTP1 ||
        rq->base.head->version_minor == 0)
        return 0;
    text = stk_try_alloc(len);
    if (text == NULL)
        return -ENOMEM;
    p = more_put(text, line);
    for (size_t i = 0; i < nlinks; i++)
        p = more_put_field(p, STK_SPAN_LIT("Link"), links[i]);
    p = more_put(p, STK_SPAN_LIT("\r\n"));
    if (!stk_deadline_lock(rq))
        return -EPIPE; /* it has been answered meanwhile */
    r = hint_send(rq, text, (size_t)(p - text));
    stk_deadline_unlock(rq);
    return r;
}

/* ---- trailers ------------------------------------------------------------------------------ */

struct iovec stk_trailer_iov(const stk_span *trailer, bool behind_data)
{
    union {
        const char *c;
        void *v;
    } u = {.c = trailer->ptr + (behind_data ? 0 : 2)};

    return (struct iovec){u.v, trailer->len - (behind_data ? 0 : 2)};
}

/*
 * What a recipient has to know before the body, or may not take from behind it: framing, routing,
 * authentication, what says how the body is to be read, controls (RFC 9110 6.5.1).
 */
static bool trailer_is_forbidden(stk_span name)
{
    static const stk_span names[] = {
        STK_SPAN_LIT("age"),
        STK_SPAN_LIT("authorization"),
        STK_SPAN_LIT("cache-control"),
        STK_SPAN_LIT("connection"),
        STK_SPAN_LIT("content-encoding"),
        STK_SPAN_LIT("content-length"),
        STK_SPAN_LIT("content-range"),
        STK_SPAN_LIT("content-type"),
        STK_SPAN_LIT("date"),
        STK_SPAN_LIT("expires"),
        STK_SPAN_LIT("host"),
        STK_SPAN_LIT("keep-alive"),
        STK_SPAN_LIT("location"),
        STK_SPAN_LIT("max-forwards"),
        STK_SPAN_LIT("proxy-authenticate"),
        STK_SPAN_LIT("proxy-authorization"),
        STK_SPAN_LIT("retry-after"),
        STK_SPAN_LIT("set-cookie"),
        STK_SPAN_LIT("te"),
        STK_SPAN_LIT("trailer"),
        STK_SPAN_LIT("transfer-encoding"),
        STK_SPAN_LIT("upgrade"),
        STK_SPAN_LIT("vary"),
        STK_SPAN_LIT("www-authenticate"),
    };

    for (size_t i = 0; i < STK_ARRAY_LEN(names); i++)
        if (stk_span_ieq(name, names[i]))
            return true;
    return false;
}

static int trailer_check(const struct stk_var *fields, size_t nfields, size_t *ret_len,
                         size_t *ret_bad)
{
    size_t len = sizeof "\r\n0\r\n\r\n" - 1;

    for (size_t i = 0; i < nfields; i++) {
        *ret_bad = i;
        if (!stk_http1_is_token(fields[i].name))
            return STK_RESPONSE_E_NAME;
        if (!stk_http1_is_field_value(fields[i].value))
            return STK_RESPONSE_E_VALUE;
        if (trailer_is_forbidden(fields[i].name))
            return STK_RESPONSE_E_TRAILER;
        len += fields[i].name.len + fields[i].value.len + 4;
        if (len > MORE_MAX)
            return STK_RESPONSE_E_HEAD_SIZE;
    }
    *ret_len = len;
    return 0;
}

int stk_response_trailers(struct stk_request *req, const struct stk_var *fields, size_t nfields,
                          size_t *ret_bad)
{
    struct stk_serve_request *rq = stk_serve_request_of(req);
    STK_CLEANUP(stk_mem_freep) char *text = NULL;
    stk_span trailer;
    size_t len;
    char *p;
    int r = trailer_check(fields, nfields, &len, ret_bad);

    if (r != 0)
        return r;
    if (!rq->started)
        return STK_RESPONSE_E_NOT_STARTED;
    text = stk_try_alloc(len);
    if (text == NULL)
        return -ENOMEM;
    if (!rq->committed) { /* a body without a byte: it is to be chunked as well */
        r = stk_response_write(req, "", 0, STK_WRITE_FLUSH);
        if (r != 0)
            return r;
    }
    p = more_put(text, STK_SPAN_LIT("\r\n0\r\n"));
    for (size_t i = 0; i < nfields; i++)
        p = more_put_field(p, fields[i].name, fields[i].value);
    p = more_put(p, STK_SPAN_LIT("\r\n"));
    trailer = stk_span_make(text, (size_t)(p - text));
    rq->trailer = &trailer;
    r = stk_response_write(req, "", 0, STK_WRITE_END);
    rq->trailer = NULL;
    return r;
}
