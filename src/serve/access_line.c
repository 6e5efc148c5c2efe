/*
 * Runs a compiled format: one entry in, one line out. This is the hot half of the access log: no
 * allocation, no printf, no lock. The text of the current second is shared by all threads under a
 * sequence lock made of atomics; who finds it stale or being written makes it himself.
 */
#include "serve/access_format.h"

#include <stdio.h>
#include <string.h>

#include "base/log_clock.h"
#include "serve/access_escape.h"
#include "serve/access_format_priv.h"

/* A value: bytes, or nothing (ptr NULL). */
struct line_scratch {
    char protocol[16];
    char user[512];
};

static unsigned line_count_digits(uint64_t value)
{
    static const uint64_t powers[] = {
        UINT64_C(0),
        UINT64_C(10),
        UINT64_C(100),
        UINT64_C(1000),
        UINT64_C(10000),
        UINT64_C(100000),
        UINT64_C(1000000),
        UINT64_C(10000000),
        UINT64_C(100000000),
        UINT64_C(1000000000),
        UINT64_C(10000000000),
        UINT64_C(100000000000),
        UINT64_C(1000000000000),
        UINT64_C(10000000000000),
        UINT64_C(100000000000000),
        UINT64_C(1000000000000000),
        UINT64_C(10000000000000000),
        UINT64_C(100000000000000000),
        UINT64_C(1000000000000000000),
        UINT64_C(10000000000000000000),
    };
    /* 1233 / 4096 is a little over the decimal logarithm of 2. */
    unsigned guess = (64 - (unsigned)__builtin_clzll(value | 1)) * 1233 >> 12;

    return guess + (value >= powers[guess]);
}

static char *line_number(char *p, uint64_t value)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                                "25262728293031323334353637383940414243444546474849"
                                "50515253545556575859606162636465666768697071727374"
                                "75767778798081828384858687888990919293949596979899";
    char *end = p + line_count_digits(value);
    char *at = end;

    while (value >= 100) {
        at -= 2;
        memcpy(at, pairs + 2 * (value % 100), 2);
        value /= 100;
    }
    if (value >= 10)
        memcpy(at - 2, pairs + 2 * value, 2);
    else
        at[-1] = (char)('0' + value);
    return end;
}

/* Exactly `width` digits. */
static char *line_digits(char *p, unsigned value, unsigned width)
{
    for (unsigned i = width; i-- > 0; value /= 10)
        p[i] = (char)('0' + value % 10);
    return p + width;
}

static inline char *line_put(char *p, const char *text, size_t len)
{
    memcpy(p, text, len);
    return p + len;
}

/* Text of the format: the pool and the line both have ACCESS_SLACK bytes to spare. */
static inline char *line_put_text(char *p, stk_span text)
{
    if (stk_likely(text.len <= ACCESS_SLACK))
        memcpy(p, text.ptr, ACCESS_SLACK);
    else
        memcpy(p, text.ptr, text.len);
    return p + text.len;
}

static void line_make_time(int64_t second, struct access_time *ret)
{
    struct stk_log_clock clock;
    char text[64]; /* more than 32 for years of more than four digits, which are cut */
    unsigned zone;
    char sign;

    stk_log_clock_local(second, &clock);
    sign = clock.offset < 0 ? '-' : '+';
    zone = (unsigned)(clock.offset < 0 ? -clock.offset : clock.offset) / 60;
    memset(ret, 0, sizeof *ret);
    snprintf(text, sizeof text, "%02u/%s/%04d:%02u:%02u:%02u %c%02u%02u", clock.day,
             stk_log_clock_month(clock.month), clock.year, clock.hour, clock.minute, clock.second,
             sign, zone / 60, zone % 60);
    memcpy(ret->clf, text, ACCESS_CLF_LEN);
    snprintf(text, sizeof text, "%04d-%02u-%02uT%02u:%02u:%02u%c%02u:%02u", clock.year, clock.month,
             clock.day, clock.hour, clock.minute, clock.second, sign, zone / 60, zone % 60);
    memcpy(ret->iso, text, ACCESS_DATE_LEN + ACCESS_ZONE_LEN);
}

static STK_COLD void line_refresh_time(struct stk_access_format *f, int64_t second,
                                       struct access_time *ret)
{
    uint32_t seq = atomic_load_explicit(&f->sequence, memory_order_relaxed);

    line_make_time(second, ret);
    if ((seq & 1) != 0 ||
        !atomic_compare_exchange_strong_explicit(&f->sequence, &seq, seq + 1, memory_order_acquire,
                                                 memory_order_relaxed))
        return; /* another thread is at it */
    /* Release: who sees a new word sees the odd sequence as well. */
    atomic_store_explicit(&f->second, second, memory_order_release);
    for (size_t i = 0; i < ACCESS_TIME_WORDS; i++) {
        atomic_store_explicit(&f->clf[i], ret->clf[i], memory_order_release);
        atomic_store_explicit(&f->iso[i], ret->iso[i], memory_order_release);
    }
    atomic_store_explicit(&f->sequence, seq + 2, memory_order_release);
}

/* The cached words of one of the two texts, if they are of this second. */
static inline bool line_get_time(const struct stk_access_format *f, const _Atomic uint64_t *from,
                                 int64_t second, uint64_t ret[ACCESS_TIME_WORDS])
{
    uint32_t seq = atomic_load_explicit(&f->sequence, memory_order_acquire);
    int64_t cached = atomic_load_explicit(&f->second, memory_order_acquire);

    for (size_t i = 0; i < ACCESS_TIME_WORDS; i++)
        ret[i] = atomic_load_explicit(&from[i], memory_order_acquire);
    return seq != 0 && (seq & 1) == 0 && cached == second &&
           atomic_load_explicit(&f->sequence, memory_order_relaxed) == seq;
}

static int line_base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* The name before the colon of Basic credentials (RFC 7617); without a colon there is none: what
 * was sent may be all secret. */
static stk_span line_user(const struct stk_head *head, char *buf, size_t size)
{
    stk_span value = stk_head_known_value(head, STK_HEAD_AUTHORIZATION);
    unsigned bits = 0, nbits = 0;
    size_t len = 0;

    if (value.len < 6 || strncasecmp(value.ptr, "Basic ", 6) != 0)
        return stk_span_make(NULL, 0);
    for (size_t i = 6; i < value.len && len < size; i++) {
        int v = line_base64_value(value.ptr[i]);

        if (v < 0) {
            if (len == 0 && nbits == 0 && value.ptr[i] == ' ')
                continue;
            break;
        }
        bits = bits << 6 | (unsigned)v;
        nbits += 6;
        if (nbits < 8)
            continue;
        nbits -= 8;
        buf[len] = (char)(bits >> nbits & 0xff);
        if (buf[len] == ':')
            return stk_span_make(buf, len);
        len++;
    }
    return stk_span_make(NULL, 0);
}

static stk_span line_protocol(const struct stk_head *head, char buf[16])
{
    char *end = line_put(buf, "HTTP/1.", 7);

    end = line_number(end, head->version_minor);
    return stk_span_make(buf, (size_t)(end - buf));
}

static stk_span line_header(const struct stk_head *head, const struct access_op *op)
{
    if (op->known != STK_HEAD_OTHER)
        return stk_head_known_value(head, (enum stk_head_known)op->known);
    for (unsigned i = head->nfields; i-- > 0;) {
        const struct stk_head_field *field = &head->fields[i];

        if (field->hash == op->hash && stk_span_ieq(stk_head_field_name(head, field), op->name))
            return stk_head_field_value(head, field);
    }
    return stk_span_make(NULL, 0);
}

static stk_span line_string(const struct access_op *op, const struct stk_request *req,
                            struct line_scratch *scratch)
{
    const struct stk_head *head = req->head;

    switch (op->field) {
    case ACCESS_ADDR:
        return stk_span_make(req->peer.addr_len > 0 ? req->peer.addr : NULL, req->peer.addr_len);
    case ACCESS_HOST:
        return req->host;
    case ACCESS_SCHEME:
        return req->scheme;
    default:
        break;
    }
    if (head == NULL)
        return stk_span_make(NULL, 0);
    switch (op->field) {
    case ACCESS_USER:
        return line_user(head, scratch->user, sizeof scratch->user);
    case ACCESS_METHOD:
        return stk_head_method(head);
    case ACCESS_TARGET:
        return stk_head_target(head);
    case ACCESS_PATH:
        return stk_head_path(head);
    case ACCESS_QUERY:
        return stk_head_query(head);
    case ACCESS_PROTOCOL:
        return line_protocol(head, scratch->protocol);
    case ACCESS_REFERER:
        return stk_head_known_value(head, STK_HEAD_REFERER);
    case ACCESS_AGENT:
        return stk_head_known_value(head, STK_HEAD_USER_AGENT);
    default:
        return line_header(head, op);
    }
}

static char *line_nothing(char *p, bool json)
{
    return json ? line_put(p, "null", 4) : line_put(p, "-", 1);
}

static char *line_put_string(const struct stk_access_format *f, const struct access_op *op,
                             const struct stk_request *req, char *p, char *limit)
{
    struct line_scratch scratch;
    stk_span value = line_string(op, req, &scratch);

    if (f->json) {
        if (value.ptr == NULL)
            return line_nothing(p, true);
        *p++ = '"';
        p = stk_access_escape(p, limit - 1, value, STK_ACCESS_JSON);
        *p++ = '"';
        return p;
    }
    if (value.len == 0)
        return line_nothing(p, false);
    return stk_access_escape(p, limit, value, (enum stk_access_style)op->style);
}

static char *line_put_request(const struct stk_access_format *f, const struct stk_request *req,
                              char *p, char *limit)
{
    enum stk_access_style style = f->json || f->object ? STK_ACCESS_JSON : STK_ACCESS_TEXT;
    const struct stk_head *head = req->head;
    char protocol[16];
    stk_span span;

    if (head == NULL)
        return line_nothing(p, f->json);
    span = line_protocol(head, protocol);
    limit -= 1 + span.len; /* the room for " HTTP/1.1" */
    if (f->json) {
        *p++ = '"';
        limit--;
    }
    p = stk_access_escape(p, limit - 4, stk_head_method(head), style);
    *p++ = ' ';
    p = stk_access_escape(p, limit, stk_head_target(head), style);
    *p++ = ' ';
    p = line_put(p, span.ptr, span.len);
    if (f->json)
        *p++ = '"';
    return p;
}

static char *line_put_number(const struct stk_access_format *f, const struct access_op *op,
                             const struct stk_access_entry *entry, stk_nsec now, char *p)
{
    const struct stk_request *req = entry->req;
    uint64_t duration = entry->duration > 0 ? (uint64_t)entry->duration : 0;

    switch (op->field) {
    case ACCESS_STATUS:
        return req->status != 0 ? line_number(p, req->status) : line_nothing(p, f->json);
    case ACCESS_BYTES:
        return line_number(p, entry->body_bytes);
    case ACCESS_TIME_US:
        return line_number(p, duration / 1000);
    case ACCESS_TIME_MS:
        return line_number(p, duration / 1000000);
    case ACCESS_UNIX:
        return line_number(p, (uint64_t)now / STK_NSEC_PER_SEC);
    case ACCESS_UNIX_MS:
        return line_number(p, (uint64_t)now / 1000000);
    case ACCESS_ID:
        return line_number(p, req->id);
    case ACCESS_PID:
        return line_number(p, (uint64_t)f->pid);
    case ACCESS_WORKER:
        return line_number(p, f->worker);
    default: /* ACCESS_PORT */
        return req->peer.port != 0 ? line_number(p, req->peer.port) : line_nothing(p, f->json);
    }
}

static char *line_put_seconds(stk_nsec duration, char *p)
{
    uint64_t us = duration > 0 ? (uint64_t)duration / 1000 : 0;

    p = line_number(p, us / 1000000);
    *p++ = '.';
    return line_digits(p, (unsigned)(us % 1000000), 6);
}

static char *line_put_time(struct stk_access_format *f, const struct access_op *op, stk_nsec now,
                           char *p)
{
    bool clf = op->kind == ACCESS_KIND_CLF;
    int64_t second = now / STK_NSEC_PER_SEC;
    uint64_t words[ACCESS_TIME_WORDS];
    const char *text = (const char *)words;

    if (stk_unlikely(!line_get_time(f, clf ? f->clf : f->iso, second, words))) {
        struct access_time made;

        line_refresh_time(f, second, &made);
        memcpy(words, clf ? made.clf : made.iso, sizeof words);
    }
    if (f->json)
        *p++ = '"';
    if (clf) {
        p = line_put(p, text, ACCESS_CLF_LEN);
    } else {
        p = line_put(p, text, ACCESS_DATE_LEN);
        *p++ = '.';
        p = line_digits(p, (unsigned)(now % STK_NSEC_PER_SEC / STK_NSEC_PER_MSEC), 3);
        p = line_put(p, text + ACCESS_DATE_LEN, ACCESS_ZONE_LEN);
    }
    if (f->json)
        *p++ = '"';
    return p;
}

/* One operation: its text, and its value. */
static inline char *line_op(struct stk_access_format *f, const struct access_op *op,
                            const struct stk_access_entry *entry, stk_nsec now, char *p, char *out)
{
    char *limit = out + STK_LOG_LINE_MAX - op->reserve;

    p = line_put_text(p, op->text);
    if (limit - p > STK_ACCESS_VALUE_MAX)
        limit = p + STK_ACCESS_VALUE_MAX;
    switch (op->kind) {
    case ACCESS_KIND_STRING:
        return line_put_string(f, op, entry->req, p, limit);
    case ACCESS_KIND_NUMBER:
        return line_put_number(f, op, entry, now, p);
    case ACCESS_KIND_REQUEST:
        return line_put_request(f, entry->req, p, limit);
    case ACCESS_KIND_SECONDS:
        return line_put_seconds(entry->duration, p);
    case ACCESS_KIND_CLF:
    case ACCESS_KIND_ISO:
        return line_put_time(f, op, now, p);
    case ACCESS_KIND_TEXT:
    case ACCESS_KIND_COUNT:
        return stk_access_more(f, op, entry, now, p, limit);
    default:
        return p;
    }
}

/* Whether a request is like the one whose line is kept. */
static inline bool line_is_alike(const struct stk_access_memo *memo,
                                 const struct stk_access_entry *entry, stk_nsec now)
{
    const struct stk_request *req = entry->req;

    return req->head != NULL && req->head->serial != 0 && req->head->serial == memo->serial &&
           memo->second == now / STK_NSEC_PER_SEC && memo->status == req->status &&
           memo->body_bytes == entry->body_bytes && memo->peer.addr_len == req->peer.addr_len &&
           memcmp(memo->peer.addr, req->peer.addr, req->peer.addr_len) == 0;
}

/* The line by what is kept of the last one. NULL: what differs in it takes too much room. */
static inline char *line_repeat(struct stk_access_format *f, const struct stk_access_entry *entry,
                                stk_nsec now, char *out)
{
    const struct stk_access_memo *memo = entry->memo;
    const struct access_op *end = f->ops + f->nops;
    unsigned run = 0;
    size_t at = 0;
    char *p = out;

    for (const struct access_op *op = f->ops; op < end;) {
        size_t len;

        if (op->run == 0) {
            p = line_op(f, op++, entry, now, p, out);
            continue;
        }
        len = memo->ends[run] - at;
        op += op->run;
        if (stk_unlikely(p + len + op[-1].reserve + f->least > out + STK_LOG_LINE_MAX))
            return NULL; /* it may have to be cut */
        p = line_put(p, memo->text + at, len);
        at = memo->ends[run++];
    }
    return p;
}

/* Keeps a piece of the line that others will have as well. */
static void line_keep(struct stk_access_memo *memo, const char *text, size_t len)
{
    size_t at = memo->nruns > 0 ? memo->ends[memo->nruns - 1] : 0;

    if (memo->serial == 0)
        return;
    if (memo->nruns == STK_ACCESS_MEMO_RUNS || len > sizeof memo->text - at) {
        memo->serial = 0;
        return;
    }
    memcpy(memo->text + at, text, len);
    memo->ends[memo->nruns++] = (uint16_t)(at + len);
}

/* Begins to keep a line: that of a head which came twice. */
static bool line_begin_keep(struct stk_access_memo *memo, const struct stk_access_entry *entry,
                            stk_nsec now)
{
    const struct stk_request *req = entry->req;
    uint64_t serial = req->head != NULL ? req->head->serial : 0;
    bool again = serial != 0 && serial == memo->seen;

    memo->seen = serial;
    memo->serial = again ? serial : 0;
    if (!again)
        return false;
    memo->second = now / STK_NSEC_PER_SEC;
    memo->body_bytes = entry->body_bytes;
    memo->status = req->status;
    memo->peer = req->peer;
    memo->nruns = 0;
    return true;
}

/* The line, and it is kept. */
static char *line_make_kept(struct stk_access_format *f, const struct stk_access_entry *entry,
                            stk_nsec now, char *out)
{
    const struct access_op *end = f->ops + f->nops;
    char *p = out;

    for (const struct access_op *op = f->ops; op < end;) {
        const struct access_op *behind = op + (op->run > 0 ? op->run : 1);
        bool alike = op->run > 0;
        char *begin = p;

        while (op < behind)
            p = line_op(f, op++, entry, now, p, out);
        if (alike)
            line_keep(entry->memo, begin, (size_t)(p - begin));
    }
    if (stk_unlikely((size_t)(p - out) + f->least > STK_LOG_LINE_MAX))
        entry->memo->serial = 0; /* what is kept may have been cut for what is not */
    return p;
}

size_t stk_access_format_line(struct stk_access_format *format,
                              const struct stk_access_entry *entry, stk_nsec now,
                              char out[STK_LOG_LINE_MAX])
{
    char *p = out;

    if (stk_likely(entry->memo != NULL)) {
        if (stk_likely(line_is_alike(entry->memo, entry, now))) {
            p = line_repeat(format, entry, now, out);
            if (stk_likely(p != NULL))
                return (size_t)(p - out);
            p = out;
        } else if (line_begin_keep(entry->memo, entry, now)) {
            return (size_t)(line_make_kept(format, entry, now, out) - out);
        }
    }
    for (const struct access_op *op = format->ops; op < format->ops + format->nops; op++)
        p = line_op(format, op, entry, now, p, out);
    return (size_t)(p - out);
}
