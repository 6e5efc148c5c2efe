/*
 * See the header. Framing is left out: what the tests of pyhost/ look at are the calls, in their
 * order, and the bytes they carry. What serve/ refuses is refused here as well, by the same
 * functions of wire/.
 */
#include "fake_request.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "wire/http1.h"
#include "wire/http_date.h"

static struct fake_request *fake_of(struct stk_request *req)
{
    return (struct fake_request *)(void *)req;
}

/* ---- body ---------------------------------------------------------------------------------- */

static int fake_body_peek(struct stk_request *req, struct stk_body_view *ret_view)
{
    struct fake_request *r = fake_of(req);

    *ret_view = (struct stk_body_view){0};
    if (r->piece < r->npieces && r->offset == r->pieces[r->piece].len) {
        r->piece++;
        r->offset = 0;
        r->stalled = false;
    }
    if (r->piece == r->npieces)
        return r->body_error;
    if (r->piece > 0 && !r->stalled) {
        r->stalled = true;
        return -EAGAIN;
    }
    ret_view->ptr = r->pieces[r->piece].ptr + r->offset;
    ret_view->len = r->pieces[r->piece].len - r->offset;
    if (r->offset == 0)
        ret_view->buffer = r->host_buffer;
    return 0;
}

static void fake_body_skip(struct stk_request *req, size_t len)
{
    fake_of(req)->offset += len;
}

static ssize_t fake_body_read(struct stk_request *req, char *dst, size_t len)
{
    struct stk_body_view view;
    int r = fake_body_peek(req, &view);

    if (r < 0)
        return r;
    if (len > view.len)
        len = view.len;
    if (len > 0)
        memcpy(dst, view.ptr, len);
    fake_body_skip(req, len);
    return (ssize_t)len;
}

/* ---- response ------------------------------------------------------------------------------ */

static void fake_put(struct fake_request *r, const char *data, size_t len)
{
    memcpy(r->out + r->out_len, data, len);
    r->out_len += len;
}

static int fake_start(struct stk_request *req, unsigned status, stk_span reason)
{
    struct fake_request *r = fake_of(req);
    char digits[3] = {(char)('0' + status / 100), (char)('0' + status / 10 % 10),
                      (char)('0' + status % 10)};

    if (r->committed)
        return STK_RESPONSE_E_STARTED;
    if (status < 200 || status > 599 || !stk_http1_is_field_value(reason))
        return STK_RESPONSE_E_STATUS;
    r->out_len = 0;
    r->length = -1;
    r->started = true;
    req->status = status;
    fake_put(r, "HTTP/1.1 ", 9);
    fake_put(r, digits, 3);
    fake_put(r, " ", 1);
    fake_put(r, reason.ptr, reason.len);
    fake_put(r, "\r\n", 2);
    return 0;
}

static int fake_set_length(struct fake_request *r, stk_span value)
{
    int64_t v = 0;

    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9' || value.len > 18)
            return STK_RESPONSE_E_LENGTH;
        v = v * 10 + (value.ptr[i] - '0');
    }
    if (value.len == 0 || (r->length >= 0 && r->length != v))
        return STK_RESPONSE_E_LENGTH;
    r->length = v;
    return 0;
}

static int fake_header(struct stk_request *req, stk_span name, stk_span value)
{
    struct fake_request *r = fake_of(req);

    if (r->committed)
        return STK_RESPONSE_E_STARTED;
    if (!r->started)
        return STK_RESPONSE_E_NOT_STARTED;
    if (!stk_http1_is_token(name))
        return STK_RESPONSE_E_NAME;
    if (!stk_http1_is_field_value(value))
        return STK_RESPONSE_E_VALUE;
    if (r->out_len + name.len + value.len > 64 * 1024)
        return STK_RESPONSE_E_HEAD_SIZE;
    if (name.len == 10 && stk_span_ieq(name, STK_SPAN_LIT("connection")))
        return STK_RESPONSE_E_HOP_BY_HOP;
    if (name.len == 14 && stk_span_ieq(name, STK_SPAN_LIT("content-length"))) {
        int e = fake_set_length(r, value);

        if (e != 0)
            return e;
    }
    fake_put(r, name.ptr, name.len);
    fake_put(r, ": ", 2);
    fake_put(r, value.ptr, value.len);
    fake_put(r, "\r\n", 2);
    return 0;
}

static bool fake_head_save(const struct stk_request *req, struct stk_response_head *ret_head)
{
    const struct fake_request *r = (const void *)req;

    if (r->out_len > sizeof(ret_head->bytes))
        return false;
    memcpy(ret_head->bytes, r->out, r->out_len);
    ret_head->len = (uint16_t)r->out_len;
    ret_head->status = (uint16_t)req->status;
    ret_head->has_length = r->length >= 0;
    ret_head->length = r->length >= 0 ? (uint64_t)r->length : 0;
    return true;
}

static int fake_head_load(struct stk_request *req, const struct stk_response_head *head)
{
    struct fake_request *r = fake_of(req);

    if (r->committed)
        return STK_RESPONSE_E_STARTED;
    r->out_len = 0;
    r->length = head->has_length ? (int64_t)head->length : -1;
    r->started = true;
    req->status = head->status;
    fake_put(r, head->bytes, head->len);
    return 0;
}

static void fake_commit(struct fake_request *r, int64_t length)
{
    char text[24];
    char *p = text + sizeof(text);
    static const char fields[] = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: stoker\r\n";

    fake_put(r, fields, sizeof(fields) - 1);
    if (r->length < 0 && length >= 0) {
        r->length = length;
        do
            *--p = (char)('0' + length % 10);
        while ((length /= 10) != 0);
        fake_put(r, "Content-Length: ", 16);
        fake_put(r, p, (size_t)(text + sizeof(text) - p));
        fake_put(r, "\r\n", 2);
    }
    fake_put(r, "\r\n", 2);
    r->head_len = r->out_len;
    r->committed = true;
}

/* What every block goes through first: 0, or what the service returns. */
static int fake_begin_block(struct fake_request *r, uint64_t len, unsigned flags, bool file)
{
    if (!r->started)
        return STK_RESPONSE_E_NOT_STARTED;
    if (r->gone_after == 0)
        return -EPIPE;
    if (r->slow_reader && !r->refused) {
        r->refused = true;
        return -EAGAIN;
    }
    r->refused = false;
    if (r->gone_after > 0)
        r->gone_after--;
    if (!r->committed)
        fake_commit(r, flags & STK_WRITE_END ? (int64_t)len : -1);
    if (r->writes && r->nwrites < FAKE_WRITES_MAX)
        r->writes[r->nwrites++] = (struct fake_write){len, flags, file};
    if (flags & STK_WRITE_END)
        r->ended = true;
    return 0;
}

/* The room that Content-Length leaves for len bytes. */
static uint64_t fake_fit(const struct fake_request *r, uint64_t len)
{
    if (r->length >= 0 && len > (uint64_t)r->length - r->body)
        len = (uint64_t)r->length - r->body;
    return len;
}

static int fake_write(struct stk_request *req, const char *data, size_t len, unsigned flags)
{
    struct fake_request *r = fake_of(req);
    size_t fit;
    int e;

    if (r->ended && len == 0) /* nothing lies anywhere here */
        return 0;
    e = fake_begin_block(r, len, flags, false);
    if (e != 0)
        return e;
    if (r->head.is_head)
        return 0;
    fit = (size_t)fake_fit(r, len);
    if (r->out_len + fit <= FAKE_OUT_SIZE && fit > 0)
        fake_put(r, data, fit);
    r->body += fit;
    return fit < len ? STK_RESPONSE_E_TOO_LONG : 0;
}

static int fake_sendfile(struct stk_request *req, int fd, int64_t off, uint64_t len, unsigned flags)
{
    struct fake_request *r = fake_of(req);
    int e = fake_begin_block(r, len, flags, true);

    if (e != 0)
        return e;
    len = fake_fit(r, len);
    while (len > 0 && r->out_len + len <= FAKE_OUT_SIZE) {
        ssize_t n = pread(fd, r->out + r->out_len, len, off);

        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        r->out_len += (size_t)n;
        r->body += (uint64_t)n;
        off += n;
        len -= (uint64_t)n;
    }
    return 0;
}

static bool fake_is_committed(const struct stk_request *req)
{
    return ((const struct fake_request *)(const void *)req)->committed;
}

static void fake_fail(struct stk_request *req)
{
    fake_of(req)->failed = true;
}

static bool fake_is_disconnected(struct stk_request *req)
{
    return fake_of(req)->gone_after == 0;
}

static void fake_wait_for(struct stk_request *req, struct stk_wait *ret_wait)
{
    fake_of(req)->waits++;
    *ret_wait = (struct stk_wait){.fd = -1, .events = 0, .timeout = 1};
}

static int fake_set_timeout(struct stk_request *req, stk_msec timeout)
{
    return 0;
}

const struct stk_request_ops fake_request_ops = {
    .body_peek = fake_body_peek,
    .body_skip = fake_body_skip,
    .body_read = fake_body_read,
    .start = fake_start,
    .header = fake_header,
    .head_save = fake_head_save,
    .head_load = fake_head_load,
    .write = fake_write,
    .sendfile = fake_sendfile,
    .is_committed = fake_is_committed,
    .fail = fake_fail,
    .is_disconnected = fake_is_disconnected,
    .wait_for = fake_wait_for,
    .set_timeout = fake_set_timeout,
};
