/*
 * Sending one file: preconditions, ranges, and the fields that go with each status (RFC 9110). The
 * same for files of the static options and for those that an application names.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "serve/request.h"
#include "serve/static_priv.h"
#include "wire/condition.h"
#include "wire/http_date.h"
#include "wire/http_status.h"
#include "wire/range.h"

enum { SEND_PART_MAX = 512 };

size_t stk_static_etag(char out[STK_STATIC_ETAG_MAX], const struct stat *st, const char *suffix)
{
    int n = snprintf(out, STK_STATIC_ETAG_MAX, "\"%llx-%llx%.4s\"",
                     (unsigned long long)st->st_mtim.tv_sec * 1000000000ULL +
                         (unsigned long long)st->st_mtim.tv_nsec,
                     (unsigned long long)st->st_size, suffix);

    return n > 0 && n < STK_STATIC_ETAG_MAX ? (size_t)n : 0;
}

/* A field; 0, or > 0 when it cannot be sent. */
static int send_field(struct stk_serve_request *rq, stk_span name, stk_span value)
{
    return value.len > 0 ? stk_response_header(&rq->base, name, value) : 0;
}

static int send_number(struct stk_serve_request *rq, stk_span name, uint64_t value)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%llu", (unsigned long long)value);

    return stk_response_header(&rq->base, name, stk_span_make(text, (size_t)n));
}

static int send_date(struct stk_serve_request *rq, stk_span name, int64_t seconds)
{
    char text[STK_HTTP_DATE_LEN];

    stk_http_date_format(text, seconds);
    return stk_response_header(&rq->base, name, stk_span_make(text, sizeof text));
}

/* Lines that come as they are. */
static int send_lines(struct stk_serve_request *rq, stk_span lines)
{
    const char *p = lines.ptr, *end = p + lines.len;
    int r = 0;

    while (r == 0 && p < end) {
        const char *cr = memchr(p, '\r', (size_t)(end - p)), *colon, *value;

        if (cr == NULL)
            return STK_RESPONSE_E_VALUE;
        colon = memchr(p, ':', (size_t)(cr - p));
        if (colon == NULL)
            return STK_RESPONSE_E_NAME;
        for (value = colon + 1; value < cr && *value == ' ';)
            value++;
        r = stk_response_header(&rq->base, stk_span_make(p, (size_t)(colon - p)),
                                stk_span_make(value, (size_t)(cr - value)));
        p = cr + 2;
    }
    return r;
}

/* What a 304 has as well. */
static int send_common(struct stk_serve_request *rq, const struct stk_static_file *f,
                       unsigned status)
{
    int r = stk_response_start(&rq->base, status, stk_http_status_reason(status));

    if (r == 0)
        r = send_field(rq, STK_SPAN_LIT("ETag"), f->etag);
    if (r == 0 && f->vary)
        r = send_field(rq, STK_SPAN_LIT("Vary"), STK_SPAN_LIT("Accept-Encoding"));
    if (r == 0)
        r = send_field(rq, STK_SPAN_LIT("Cache-Control"), f->cache);
    return r == 0 ? send_lines(rq, f->fields) : r;
}

/* The head of 200 or 206, without Expires. */
static int send_head(struct stk_serve_request *rq, const struct stk_static_file *f, unsigned status,
                     stk_span type, uint64_t length)
{
    int r = send_common(rq, f, status);

    if (r == 0)
        r = send_field(rq, STK_SPAN_LIT("Content-Type"), type);
    if (r == 0)
        r = send_number(rq, STK_SPAN_LIT("Content-Length"), length);
    if (r == 0)
        r = send_field(rq, STK_SPAN_LIT("Content-Encoding"), f->encoding);
    if (r == 0 && f->modified >= 0 && f->status == 0)
        r = send_date(rq, STK_SPAN_LIT("Last-Modified"), f->modified);
    return r == 0 && f->status == 0
               ? send_field(rq, STK_SPAN_LIT("Accept-Ranges"), STK_SPAN_LIT("bytes"))
               : r;
}

int stk_static_send_head(struct stk_serve_request *rq, const struct stk_static_file *f)
{
    return send_head(rq, f, f->status ? f->status : 200, f->type, f->size);
}

int stk_static_send_expires(struct stk_serve_request *rq, const struct stk_static_file *f)
{
    return f->max_age >= 0 ? send_date(rq, STK_SPAN_LIT("Expires"), time(NULL) + f->max_age) : 0;
}

int stk_static_send_bytes(struct stk_serve_request *rq, const struct stk_static_file *f,
                          uint64_t off, uint64_t len, unsigned flags)
{
    if (f->data != NULL || len == 0)
        return stk_response_write(&rq->base, f->data ? f->data + off : "", (size_t)len, flags);
    return stk_response_sendfile(&rq->base, f->fd, (int64_t)off, len, flags);
}

static int send_parts(struct stk_serve_request *rq, const struct stk_static_file *f,
                      const struct stk_range *ranges, size_t n)
{
    char parts[STK_RANGE_MAX][SEND_PART_MAX], end[64], type[96];
    size_t lens[STK_RANGE_MAX];
    uint64_t total = 0;
    unsigned long long mark = (unsigned long long)stk_time_mono_ns() * 0x9e3779b97f4a7c15ULL;
    int tail = snprintf(end, sizeof end, "\r\n--stoker%016llx--\r\n", mark), r;

    for (size_t i = 0; i < n; i++) {
        int len = snprintf(parts[i], SEND_PART_MAX,
                           "%s--stoker%016llx\r\nContent-Type: %.*s\r\n"
                           "Content-Range: bytes %llu-%llu/%llu\r\n\r\n",
                           i > 0 ? "\r\n" : "", mark, (int)(f->type.len < 256 ? f->type.len : 256),
                           f->type.ptr, (unsigned long long)ranges[i].first,
                           (unsigned long long)(ranges[i].first + ranges[i].len - 1),
                           (unsigned long long)f->size);

        lens[i] = (size_t)len;
        total += lens[i] + ranges[i].len;
    }
    (void)snprintf(type, sizeof type, "multipart/byteranges; boundary=stoker%016llx", mark);
    r = send_head(rq, f, 206, stk_span_str(type), total + (uint64_t)tail);
    if (r == 0)
        r = stk_static_send_expires(rq, f);
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = stk_response_write(&rq->base, parts[i], lens[i], 0);
        if (r == 0)
            r = stk_static_send_bytes(rq, f, ranges[i].first, ranges[i].len, 0);
    }
    return r == 0 ? stk_response_write(&rq->base, end, (size_t)tail, STK_WRITE_END) : r;
}

static int send_part(struct stk_serve_request *rq, const struct stk_static_file *f,
                     const struct stk_range *range)
{
    char text[80];
    int n =
        snprintf(text, sizeof text, "bytes %llu-%llu/%llu", (unsigned long long)range->first,
                 (unsigned long long)(range->first + range->len - 1), (unsigned long long)f->size);
    int r = send_head(rq, f, 206, f->type, range->len);

    if (r == 0)
        r = stk_response_header(&rq->base, STK_SPAN_LIT("Content-Range"),
                                stk_span_make(text, (size_t)n));
    if (r == 0)
        r = stk_static_send_expires(rq, f);
    return r == 0 ? stk_static_send_bytes(rq, f, range->first, range->len, STK_WRITE_END) : r;
}

/* 304, 412 and 416 have no bytes of the file. */
static int send_nothing(struct stk_serve_request *rq, const struct stk_static_file *f,
                        unsigned status)
{
    static const char failed[] = "412 Precondition Failed\n";
    static const char unsatisfiable[] = "416 Range Not Satisfiable\n";
    const char *body = status == 304 ? "" : status == 412 ? failed : unsatisfiable;
    char text[48];
    int n = snprintf(text, sizeof text, "bytes */%llu", (unsigned long long)f->size), r;

    if (status == 304) {
        r = send_common(rq, f, status);
        if (r == 0)
            r = stk_static_send_expires(rq, f);
    } else {
        r = stk_response_start(&rq->base, status, stk_http_status_reason(status));
        if (r == 0)
            r = stk_response_header(&rq->base, STK_SPAN_LIT("Content-Type"),
                                    STK_SPAN_LIT("text/plain; charset=utf-8"));
        if (r == 0 && status == 416)
            r = stk_response_header(&rq->base, STK_SPAN_LIT("Content-Range"),
                                    stk_span_make(text, (size_t)n));
        if (r == 0)
            r = send_lines(rq, f->fields);
    }
    return r == 0 ? stk_response_write(&rq->base, body, strlen(body), STK_WRITE_END) : r;
}

static int send_whole(struct stk_serve_request *rq, const struct stk_static_file *f)
{
    int r = stk_static_send_head(rq, f);

    if (r == 0)
        r = stk_static_send_expires(rq, f);
    return r == 0 ? stk_static_send_bytes(rq, f, 0, f->size, STK_WRITE_END) : r;
}

static int send_chosen(struct stk_serve_request *rq, const struct stk_static_file *f)
{
    const struct stk_validators v = {f->etag, f->modified};
    struct stk_range ranges[STK_RANGE_MAX];
    struct stk_conditions c;
    size_t n = 0;

    if (f->status != 0 || (!rq->base.head->is_get && !rq->base.head->is_head))
        return send_whole(rq, f);
    stk_conditions_find(&c, rq->base.head);
    switch (stk_conditions_check(&c, &v)) {
    case STK_CONDITION_NOT_MODIFIED:
        return send_nothing(rq, f, 304);
    case STK_CONDITION_FAILED:
        return send_nothing(rq, f, 412);
    case STK_CONDITION_SEND:
        break;
    }
    switch (stk_range_parse(stk_conditions_range(&c, &v, time(NULL)), f->size, ranges, &n)) {
    case STK_RANGE_UNSATISFIABLE:
        return send_nothing(rq, f, 416);
    case STK_RANGE_PARTS:
        return n == 1 ? send_part(rq, f, &ranges[0]) : send_parts(rq, f, ranges, n);
    case STK_RANGE_WHOLE:
        break;
    }
    return send_whole(rq, f);
}

int stk_static_send(struct stk_serve_request *rq, const struct stk_static_file *file)
{
    int r = send_chosen(rq, file);

    if (r != 0 && !rq->ended) /* a field that cannot be sent, or a queue that is full */
        stk_response_fail(&rq->base);
    return r;
}
