/*
 * FastCGI records. A head is read in place: its PARAMS records are joined where they lie, so that
 * a pair which is split over records needs no second buffer, and what a connection has kept of a
 * head is read again like any other input. The front end that sends a single PARAMS record, as all
 * common ones do, has nothing moved.
 *
 * Whatever lies between the records of the head is skipped, which leaves a gap; the part in front
 * of the gap is moved once, when the end of the input, or of the head, is reached.
 */
#include "wire/fastcgi.h"

#include <string.h>

#include "base/assert.h"
#include "base/macros.h"

enum {
    ROLE_RESPONDER = 1,
    FLAG_KEEP_CONN = 1,
    STATUS_REQUEST_COMPLETE = 0,
    STATUS_CANT_MPX_CONN = 1,
    STATUS_UNKNOWN_ROLE = 3,
    BEGIN_BODY = 8,
    REPLY_MAX = 96, /* the longest answer to one record */
};

/* What the content of a record inside of a body is. */
enum { WHAT_DROP, WHAT_DATA, WHAT_END, WHAT_VALUES, WHAT_TYPE, WHAT_BEGIN, WHAT_ABORT };

struct record {
    uint8_t type;
    uint16_t id;
    uint16_t content;
    size_t total; /* bytes, header and padding included */
};

static const unsigned error_status[STK_FASTCGI_RESULT_COUNT] = {
#define X(id, status, text) [STK_FASTCGI_E_##id] = status,
    STK_FASTCGI_ERRORS(X)
#undef X
};

static const char *const error_text[STK_FASTCGI_RESULT_COUNT] = {
#define X(id, status, text) [STK_FASTCGI_E_##id] = text,
    STK_FASTCGI_ERRORS(X)
#undef X
};

unsigned stk_fastcgi_error_status(enum stk_fastcgi_result error)
{
    return error_status[error] != 0 ? error_status[error] : 400;
}

const char *stk_fastcgi_error_text(enum stk_fastcgi_result error)
{
    return error_text[error] != NULL ? error_text[error] : "malformed FastCGI request";
}

static inline uint16_t get16(const char *p)
{
    return (uint16_t)((unsigned char)p[0] << 8 | (unsigned char)p[1]);
}

/* ---- replies ------------------------------------------------------------------------------- */

static bool replies_have_room(const struct stk_fastcgi_replies *r)
{
    return r->len + REPLY_MAX <= sizeof r->bytes;
}

static void reply_end(struct stk_fastcgi_replies *r, uint16_t id, unsigned status)
{
    char *p = r->bytes + r->len;

    stk_fastcgi_put_header(p, STK_FASTCGI_END_REQUEST, id, 8);
    memset(p + 8, 0, 8);
    p[12] = (char)status;
    r->len += 16;
}

static void reply_unknown(struct stk_fastcgi_replies *r, uint8_t type)
{
    char *p = r->bytes + r->len;

    stk_fastcgi_put_header(p, STK_FASTCGI_UNKNOWN_TYPE, 0, 8);
    memset(p + 8, 0, 8);
    p[8] = (char)type;
    r->len += 16;
}

static char *put_pair(char *p, stk_span name, uint32_t value)
{
    char digits[10];
    size_t n = sizeof digits;

    do
        digits[--n] = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    *p++ = (char)name.len;
    *p++ = (char)(sizeof digits - n);
    memcpy(p, name.ptr, name.len);
    p += name.len;
    memcpy(p, digits + n, sizeof digits - n);
    return p + sizeof digits - n;
}

/* Answers the variables that are known, each once; what is malformed ends the list. */
static void reply_values(struct stk_fastcgi_replies *r, stk_span asked)
{
    const struct {
        stk_span name;
        uint32_t value;
    } known[] = {
        {STK_SPAN_LIT("FCGI_MAX_CONNS"), r->max_conns},
        {STK_SPAN_LIT("FCGI_MAX_REQS"), r->max_reqs},
        {STK_SPAN_LIT("FCGI_MPXS_CONNS"), 0},
    };
    char *begin = r->bytes + r->len;
    char *p = begin + STK_FASTCGI_HEADER;
    unsigned done = 0;
    stk_span name, value;

    while (asked.len > 0 && stk_fastcgi_pair(&asked, &name, &value) == STK_FASTCGI_OK) {
        for (unsigned i = 0; i < STK_ARRAY_LEN(known); i++) {
            if (done & 1U << i || !stk_span_eq(name, known[i].name))
                continue;
            done |= 1U << i;
            p = put_pair(p, known[i].name, known[i].value);
        }
    }
    stk_fastcgi_put_header(begin, STK_FASTCGI_GET_VALUES_RESULT, 0,
                           (size_t)(p - begin) - STK_FASTCGI_HEADER);
    r->len += (uint32_t)(p - begin);
    STK_ASSERT(r->len <= sizeof r->bytes);
}

void stk_fastcgi_put_end(char *p, uint16_t id)
{
    stk_fastcgi_put_header(p, STK_FASTCGI_STDOUT, id, 0);
    stk_fastcgi_put_header(p + 8, STK_FASTCGI_END_REQUEST, id, 8);
    memset(p + 16, 0, 8); /* status 0, REQUEST_COMPLETE */
}

/* ---- heads --------------------------------------------------------------------------------- */

/* Where reading a head stands. */
struct scan {
    char *buf;
    size_t len;
    size_t from;   /* of the request's records */
    size_t joined; /* their end, as far as they have been joined */
    size_t at;     /* of what has not been looked at */
    size_t params; /* of the request's first PARAMS record; 0: none yet (BEGIN is before it) */
    size_t nparams;
    struct stk_fastcgi_head *head;
    struct stk_fastcgi_replies *replies;
};

/* Reads the header of the record at `at`. */
static enum stk_fastcgi_result scan_record(const struct scan *s, struct record *ret)
{
    const char *p = s->buf + s->at;

    if (s->len > s->at && !stk_fastcgi_is_record(p))
        return STK_FASTCGI_E_VERSION;
    if (s->len - s->at < STK_FASTCGI_HEADER)
        return STK_FASTCGI_PARTIAL;
    ret->type = (uint8_t)p[1];
    ret->id = get16(p + 2);
    ret->content = get16(p + 4);
    ret->total = STK_FASTCGI_HEADER + (size_t)ret->content + (unsigned char)p[6];
    return STK_FASTCGI_OK;
}

/* Drops the record at `at`, and with `all` the request that it belongs to. */
static void scan_skip(struct scan *s, const struct record *r, bool all)
{
    s->at += r->total;
    if (all || s->head->id == 0) {
        s->from = s->joined = s->at;
        s->head->id = 0;
        s->params = s->nparams = 0;
    }
}

/* A record that is no part of the request, or asks for its end. */
static enum stk_fastcgi_result scan_other(struct scan *s, const struct record *r)
{
    const char *content = s->buf + s->at + STK_FASTCGI_HEADER;
    bool ends = false, keep = true;

    if (!replies_have_room(s->replies))
        return STK_FASTCGI_REPLY;
    if (r->id == 0) {
        if (r->type == STK_FASTCGI_GET_VALUES)
            reply_values(s->replies, stk_span_make(content, r->content));
        else
            reply_unknown(s->replies, r->type);
    } else if (r->type == STK_FASTCGI_BEGIN_REQUEST) {
        if (s->head->id == 0) {
            reply_end(s->replies, r->id, STATUS_UNKNOWN_ROLE);
            keep = content[2] & FLAG_KEEP_CONN;
        } else {
            reply_end(s->replies, r->id, STATUS_CANT_MPX_CONN);
        }
    } else if (r->type == STK_FASTCGI_ABORT_REQUEST && r->id == s->head->id) {
        reply_end(s->replies, r->id, STATUS_REQUEST_COMPLETE);
        ends = true;
        keep = s->head->keep;
    }
    scan_skip(s, r, ends);
    return keep ? STK_FASTCGI_OK : STK_FASTCGI_CLOSE;
}

/* A PARAMS record with content. */
static void scan_params(struct scan *s, const struct record *r)
{
    if (s->params == 0 && s->joined == s->at) {
        s->params = s->at;
        s->nparams = r->content;
        s->joined = s->at + r->total;
    } else {
        if (s->params == 0) {
            s->params = s->joined;
            memmove(s->buf + s->joined, s->buf + s->at, STK_FASTCGI_HEADER);
        }
        /* The padding of the first one goes with the headers of the others. */
        s->joined = s->params + STK_FASTCGI_HEADER + s->nparams;
        memmove(s->buf + s->joined, s->buf + s->at + STK_FASTCGI_HEADER, r->content);
        s->joined += r->content;
        s->nparams += r->content;
        stk_fastcgi_put_header(s->buf + s->params, STK_FASTCGI_PARAMS, s->head->id, s->nparams);
    }
    s->at += r->total;
}

/* Moves what has been joined up to what follows it. */
static void scan_close_gap(struct scan *s)
{
    size_t gap = s->at - s->joined;

    if (gap == 0)
        return;
    memmove(s->buf + s->from + gap, s->buf + s->from, s->joined - s->from);
    s->from += gap;
    s->joined += gap;
    if (s->params != 0)
        s->params += gap;
}

/* One record of the request. OK: go on; PIECE stands for the end of the head. */
static enum stk_fastcgi_result scan_own(struct scan *s, const struct record *r)
{
    switch (r->type) {
    case STK_FASTCGI_BEGIN_REQUEST:
        if (s->head->id != 0)
            return STK_FASTCGI_E_ORDER;
        s->head->id = r->id;
        s->head->keep = s->buf[s->at + STK_FASTCGI_HEADER + 2] & FLAG_KEEP_CONN;
        s->at += r->total;
        s->joined = s->at;
        return STK_FASTCGI_OK;
    case STK_FASTCGI_PARAMS:
        if (r->content == 0)
            return STK_FASTCGI_PIECE;
        scan_params(s, r);
        return STK_FASTCGI_OK;
    default:
        return STK_FASTCGI_E_ORDER;
    }
}

/* Whether a record belongs to the request that is being read, or begins one. */
static bool scan_is_own(const struct scan *s, const struct record *r)
{
    const char *content = s->buf + s->at + STK_FASTCGI_HEADER;

    if (r->id == 0)
        return false;
    if (s->head->id != 0)
        return r->id == s->head->id && r->type != STK_FASTCGI_ABORT_REQUEST;
    return r->type == STK_FASTCGI_BEGIN_REQUEST && get16(content) == ROLE_RESPONDER;
}

/* What can be said of a record by its header: whether it is worth waiting for the rest of it. */
static enum stk_fastcgi_result scan_check(struct scan *s, const struct record *r)
{
    if (r->type == STK_FASTCGI_BEGIN_REQUEST && r->id != 0 && r->content != BEGIN_BODY)
        return STK_FASTCGI_E_BEGIN;
    if (s->head->id != 0 && r->id == s->head->id && r->type == STK_FASTCGI_PARAMS &&
        s->joined - s->from + r->total > STK_FASTCGI_HEAD_MAX)
        return STK_FASTCGI_E_HEAD_TOO_LARGE;
    return s->len - s->at < r->total ? STK_FASTCGI_PARTIAL : STK_FASTCGI_OK;
}

enum stk_fastcgi_result stk_fastcgi_head(char *buf, size_t len, size_t *off,
                                         struct stk_fastcgi_head *ret_head,
                                         struct stk_fastcgi_replies *replies)
{
    struct scan s = {
        .buf = buf,
        .len = len,
        .from = *off,
        .joined = *off,
        .at = *off,
        .head = ret_head,
        .replies = replies,
    };
    enum stk_fastcgi_result result;

    *ret_head = (struct stk_fastcgi_head){0};
    do {
        struct record r;

        result = scan_record(&s, &r);
        if (result == STK_FASTCGI_OK)
            result = scan_check(&s, &r);
        if (result != STK_FASTCGI_OK)
            break;
        result = scan_is_own(&s, &r) ? scan_own(&s, &r) : scan_other(&s, &r);
        if (result == STK_FASTCGI_PIECE) { /* the empty PARAMS record */
            scan_close_gap(&s);
            ret_head->len = (uint32_t)(s.at + r.total - s.from);
            ret_head->vars = stk_span_make(buf + s.params + STK_FASTCGI_HEADER, s.nparams);
            *off = s.from;
            return STK_FASTCGI_OK;
        }
    } while (result == STK_FASTCGI_OK);
    scan_close_gap(&s);
    *off = s.from;
    return result;
}

/* A length of one byte, or of four whose first has its highest bit set. */
static bool take_length(stk_span *s, uint32_t *ret_len)
{
    const unsigned char *p = (const unsigned char *)s->ptr;
    size_t n;

    if (s->len == 0)
        return false;
    n = *p & 0x80 ? 4 : 1;
    if (s->len < n)
        return false;
    *ret_len =
        n == 1 ? *p
               : (uint32_t)(*p & 0x7f) << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    s->ptr += n;
    s->len -= n;
    return true;
}

enum stk_fastcgi_result stk_fastcgi_pair(stk_span *vars, stk_span *ret_name, stk_span *ret_value)
{
    stk_span rest = *vars;
    uint32_t name, value;

    if (!take_length(&rest, &name) || !take_length(&rest, &value))
        return STK_FASTCGI_E_PAIR;
    if (name > rest.len || value > rest.len - name)
        return STK_FASTCGI_E_PAIR;
    *ret_name = stk_span_make(rest.ptr, name);
    *ret_value = stk_span_make(rest.ptr + name, value);
    *vars = stk_span_make(rest.ptr + name + value, rest.len - name - value);
    return STK_FASTCGI_OK;
}

/* ---- bodies -------------------------------------------------------------------------------- */

enum stk_fastcgi_result stk_fastcgi_whole(char *buf, size_t len, uint16_t id, bool join,
                                          stk_span *ret_body, size_t *ret_used)
{
    size_t at = 0, total = 0, pieces = 0;
    char *first = buf, *to = buf;
    const char *p;

    for (;;) {
        size_t content;

        p = buf + at;
        if (len - at < STK_FASTCGI_HEADER || !stk_fastcgi_is_record(p) ||
            p[1] != STK_FASTCGI_STDIN || get16(p + 2) != id)
            return STK_FASTCGI_PARTIAL;
        content = get16(p + 4);
        if (len - at < STK_FASTCGI_HEADER + content + (unsigned char)p[6])
            return STK_FASTCGI_PARTIAL;
        at += STK_FASTCGI_HEADER + content + (unsigned char)p[6];
        if (content == 0)
            break;
        total += content;
        pieces++;
    }
    *ret_used = at;
    first += STK_FASTCGI_HEADER;
    *ret_body = stk_span_make(first, total);
    if (pieces < 2 || !join)
        return STK_FASTCGI_OK;
    to = first;
    for (at = 0; pieces > 0; pieces--) {
        size_t content = get16(buf + at + 4);
        size_t next = at + STK_FASTCGI_HEADER + content + (unsigned char)buf[at + 6];

        memmove(to, buf + at + STK_FASTCGI_HEADER, content);
        to += content;
        at = next;
    }
    return STK_FASTCGI_OK;
}

void stk_fastcgi_body_init(struct stk_fastcgi_body *b, uint16_t id)
{
    memset(b, 0, sizeof *b);
    b->id = id;
}

/* Tells by a whole header what its record is. OK, or an error. */
static enum stk_fastcgi_result body_begin(struct stk_fastcgi_body *b)
{
    const char *h = (const char *)b->header;
    uint16_t id = get16(h + 2);
    uint8_t type = b->header[1];

    b->left = get16(h + 4);
    b->padding = b->header[6];
    b->nvalues = 0;
    if (id == 0)
        b->what = type == STK_FASTCGI_GET_VALUES ? WHAT_VALUES : WHAT_TYPE;
    else if (id != b->id)
        b->what = type == STK_FASTCGI_BEGIN_REQUEST ? WHAT_BEGIN : WHAT_DROP;
    else if (type == STK_FASTCGI_STDIN)
        b->what = b->left == 0 ? WHAT_END : WHAT_DATA;
    else if (type == STK_FASTCGI_ABORT_REQUEST)
        b->what = WHAT_ABORT;
    else
        return STK_FASTCGI_E_ORDER;
    if (b->what == WHAT_BEGIN && b->left != BEGIN_BODY)
        return STK_FASTCGI_E_BEGIN;
    return STK_FASTCGI_OK;
}

/* At the end of a record. OK: go on; PIECE stands for the end of the body. */
static enum stk_fastcgi_result body_finish(struct stk_fastcgi_body *b)
{
    const char *h = (const char *)b->header;

    b->have = 0;
    if (b->what == WHAT_END)
        return STK_FASTCGI_PIECE;
    if (b->what == WHAT_ABORT)
        return STK_FASTCGI_ABORTED;
    if (b->what == WHAT_DATA || b->what == WHAT_DROP)
        return STK_FASTCGI_OK;
    if (!replies_have_room(&b->replies))
        return STK_FASTCGI_E_OTHERS;
    if (b->what == WHAT_VALUES)
        reply_values(&b->replies, stk_span_make(b->values, b->nvalues));
    else if (b->what == WHAT_TYPE)
        reply_unknown(&b->replies, b->header[1]);
    else
        reply_end(&b->replies, get16(h + 2), STATUS_CANT_MPX_CONN);
    return STK_FASTCGI_OK;
}

/* Takes content that is no part of the body; how much of it. */
static size_t body_take(struct stk_fastcgi_body *b, const char *p, size_t len)
{
    size_t n = len < b->left ? len : b->left;
    size_t room = sizeof b->values - b->nvalues;

    if (b->what == WHAT_VALUES) {
        if (room > n)
            room = n;
        memcpy(b->values + b->nvalues, p, room);
        b->nvalues = (uint16_t)(b->nvalues + room);
    }
    b->left = (uint16_t)(b->left - n);
    return n;
}

enum stk_fastcgi_result stk_fastcgi_body_decode(struct stk_fastcgi_body *b, const char *buf,
                                                size_t len, size_t *ret_consumed,
                                                stk_span *ret_data)
{
    enum stk_fastcgi_result r;
    size_t at = 0, n;

    for (;;) {
        if (b->ended) {
            *ret_consumed = at;
            return STK_FASTCGI_OK;
        }
        if (b->have < STK_FASTCGI_HEADER) {
            while (at < len && b->have < STK_FASTCGI_HEADER)
                b->header[b->have++] = (unsigned char)buf[at++];
            if (b->have > 0 && b->header[0] != 1)
                return STK_FASTCGI_E_VERSION;
            if (b->have < STK_FASTCGI_HEADER)
                break;
            r = body_begin(b);
            if (r != STK_FASTCGI_OK)
                return r;
        }
        if (b->left > 0 && at == len)
            break;
        if (b->left > 0 && b->what == WHAT_DATA) {
            n = len - at < b->left ? len - at : b->left;
            b->left = (uint16_t)(b->left - n);
            *ret_data = stk_span_make(buf + at, n);
            *ret_consumed = at + n;
            return STK_FASTCGI_PIECE;
        }
        at += body_take(b, buf + at, len - at);
        n = len - at < b->padding ? len - at : b->padding;
        at += n;
        b->padding = (uint8_t)(b->padding - n);
        if (b->left > 0 || b->padding > 0)
            break;
        r = body_finish(b);
        if (r == STK_FASTCGI_PIECE) {
            b->ended = true;
            continue;
        }
        if (r == STK_FASTCGI_ABORTED)
            *ret_consumed = at;
        if (r != STK_FASTCGI_OK)
            return r;
    }
    *ret_consumed = at;
    return STK_FASTCGI_PARTIAL;
}
