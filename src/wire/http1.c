/*
 * HTTP/1 request heads: one pass over the bytes, offsets out.
 *
 * The parser keeps nothing between calls: a head that is not complete is parsed again from its
 * start when more has come. Nearly every head comes in one piece, so a resumable machine would
 * make all of them pay for the few. Each byte is looked at once: names 16
 * at a time as long as they are of letters, digits and "-", hashing on the way; values, which are
 * most of the bytes, 16 (or 8) at a time for the first control character. Fields that decide about
 * framing and routing are judged as soon as their line ends, so that errors are told early.
 *
 * Everything is strict: what two servers on one path could understand differently is refused (RFC
 * 9112 section 11.2). Only buf[0..min(len, head_max)) is ever looked at, and the result for a
 * prefix is PARTIAL or the very error that the whole gives.
 */
#include "wire/http1.h"

#include <string.h>

#include "wire/http1_scan.h"
#include "wire/uri.h"

#define H1_TRY(expr)                             \
    do {                                         \
        enum stk_http1_result h1_r_ = (expr);    \
        if (stk_unlikely(h1_r_ != STK_HTTP1_OK)) \
            return h1_r_;                        \
    } while (0)

#define H1_E(id) STK_HTTP1_E_##id

/* What the parser of whole heads and that of parts share is inlined in the one that is hot. */
#define H1_INLINE static inline __attribute__((always_inline))

enum {
    H1_EMPTY_LINES_MAX = 4,
    H1_MEMO_MISSES = 16, /* after so many misses in a row only each 16th head is remembered */
};

#define H1_CONTENT_MAX       (UINT64_C(1) << 60)
#define H1_HTTP2_PREFACE     "PRI * HTTP/2.0"
#define H1_HTTP2_PREFACE_LEN (sizeof(H1_HTTP2_PREFACE) - 1)

/* What the fields said, besides what struct stk_head keeps. */
struct h1_facts {
    bool close, keep_alive, upgrade; /* tokens of Connection */
    bool encoding;                   /* a Transfer-Encoding field was there */
    bool chunked;                    /* ... its last coding so far is chunked */
    bool unknown;                    /* ... and it named another one */
};

/* A byte that does not belong: a broken line end if it is one, `otherwise` if not. */
static STK_COLD enum stk_http1_result h1_bad_byte(const char *p, const char *end,
                                                  enum stk_http1_result otherwise)
{
    if (*p == '\n')
        return H1_E(BAD_LINE_END);
    if (*p != '\r')
        return otherwise;
    if (end - p < 2)
        return STK_HTTP1_PARTIAL;
    return p[1] == '\n' ? otherwise : H1_E(BAD_LINE_END);
}

/* Any version but the plain "HTTP/1.1" CR LF, and incomplete ones; *pos moves behind the line. */
static STK_COLD enum stk_http1_result h1_version(struct stk_head *h, const char **pos,
                                                 const char *end)
{
    static const char prefix[] = "HTTP/";
    const char *p = *pos;

    for (unsigned i = 0; i < 8; i++) {
        unsigned char c;
        bool fits;

        if (p + i == end)
            return STK_HTTP1_PARTIAL;
        c = h1_byte(p + i);
        if (i < 5)
            fits = c == (unsigned char)prefix[i];
        else
            fits = i == 6 ? c == '.' : c >= '0' && c <= '9';
        if (!fits)
            return h1_bad_byte(p + i, end, H1_E(BAD_VERSION));
    }
    if (p + 8 == end)
        return STK_HTTP1_PARTIAL;
    if (p[8] != '\r')
        return h1_bad_byte(p + 8, end, H1_E(BAD_VERSION));
    if (p + 9 == end)
        return STK_HTTP1_PARTIAL;
    if (p[9] != '\n')
        return H1_E(BAD_LINE_END);
    if (p[5] != '1')
        return H1_E(VERSION_UNSUPPORTED);
    h->version_minor = p[7] == '0' ? 0 : 1;
    *pos = p + 10;
    return STK_HTTP1_OK;
}

/* Finds path and query from `p` to the space that ends the target; *pos moves to that space. */
static inline enum stk_http1_result h1_path(struct stk_head *h, const char **pos, const char *end)
{
    const char *p = *pos, *path = p;
    unsigned char kind;

    h->path_off = (uint32_t)(p - h->base);
    for (; p < end; p++) {
        kind = h1_target[h1_byte(p)];
        if (kind == H1_T_PLAIN)
            continue;
        if (kind != H1_T_ESCAPE)
            break;
        h->path_escaped = true;
    }
    h->path_len = (uint32_t)(p - path);
    if (p < end && *p == '?') {
        const char *query = ++p;

        while (p < end && h1_target[h1_byte(p)] != H1_T_END)
            p++;
        h->query_off = (uint32_t)(query - h->base);
        h->query_len = (uint32_t)(p - query);
    }
    *pos = p;
    if (p == end)
        return STK_HTTP1_PARTIAL;
    if (stk_likely(*p == ' '))
        return STK_HTTP1_OK;
    return h1_bad_byte(p, end, *p == '\r' ? H1_E(BAD_VERSION) : H1_E(BAD_TARGET));
}

static inline bool h1_is_connect(const char *method, size_t len)
{
    return len == 7 && memcmp(method, "CONNECT", 7) == 0;
}

/* host:port of CONNECT, all of [p, p + len). */
static enum stk_http1_result h1_target_authority(struct stk_head *h, const char *p, size_t len)
{
    stk_span host, port;

    if (!stk_uri_split_host(stk_span_make(p, len), &host, &port) || port.len == 0)
        return H1_E(BAD_TARGET);
    h->target_form = STK_TARGET_AUTHORITY;
    h->authority_off = (uint32_t)(p - h->base);
    h->authority_len = (uint32_t)len;
    h->path_len = 0;
    h->path_escaped = false;
    return STK_HTTP1_OK;
}

/* All forms but origin-form: the target, whose characters are known to be good, is complete. */
static STK_COLD enum stk_http1_result h1_target_other(struct stk_head *h)
{
    stk_span target = stk_head_target(h), method = stk_head_method(h);
    const char *p = target.ptr, *end = p + target.len, *authority;

    if (h1_is_connect(method.ptr, method.len))
        return h1_target_authority(h, p, target.len);
    if (stk_span_eq(target, STK_SPAN_LIT("*"))) {
        h->target_form = STK_TARGET_ASTERISK;
        return stk_span_eq(method, STK_SPAN_LIT("OPTIONS")) ? STK_HTTP1_OK : H1_E(BAD_TARGET);
    }
    if (target.len > 7 && h1_scheme_is(p, "http", 4))
        authority = p + 7;
    else if (target.len > 8 && h1_scheme_is(p, "https", 5))
        authority = p + 8;
    else
        return H1_E(BAD_TARGET);
    for (p = authority; p < end && *p != '/' && *p != '?'; p++)
        ;
    if (!stk_uri_split_host(stk_span_make(authority, (size_t)(p - authority)), NULL, NULL))
        return H1_E(BAD_TARGET);
    h->target_form = STK_TARGET_ABSOLUTE;
    h->authority_off = (uint32_t)(authority - h->base);
    h->authority_len = (uint32_t)(p - authority);
    h->path_escaped = false;
    h->query_len = 0;
    (void)h1_path(h, &p, end); /* comes to the end of the target: its characters were checked */
    return STK_HTTP1_OK;
}

/* "method SP"; *pos moves behind the space. */
static inline enum stk_http1_result h1_method(struct stk_head *h, const char **pos, const char *end)
{
    const char *p = *pos, *start = p;

    if (stk_likely(end - p >= 4 && memcmp(p, "GET ", 4) == 0)) {
        p += 3;
    } else {
        while (p < end && (h1_lower[h1_byte(p)] || *p == '_'))
            p++;
        if (p == end)
            return STK_HTTP1_PARTIAL;
        if (p == start || *p != ' ')
            return h1_bad_byte(p, end, H1_E(BAD_METHOD));
    }
    h->method_off = (uint32_t)(start - h->base);
    h->method_len = (uint32_t)(p - start);
    h->is_get = p - start == 3 && memcmp(start, "GET", 3) == 0;
    h->is_head = p - start == 4 && memcmp(start, "HEAD", 4) == 0;
    *pos = p + 1;
    return STK_HTTP1_OK;
}

/* The request line, CR LF included; *pos moves behind it. */
H1_INLINE enum stk_http1_result h1_line(struct stk_head *h, const char **pos, const char *end,
                                        uint32_t line_max)
{
    const char *start = *pos, *p = start, *target, *stop = end;
    enum stk_http1_result r;

    if (stk_unlikely((size_t)(end - start) >= line_max))
        stop = start + line_max;
    r = h1_method(h, &p, stop);
    if (stk_likely(r == STK_HTTP1_OK)) {
        target = p;
        h->path_escaped = false;
        h->query_len = 0;
        r = h1_path(h, &p, stop);
    }
    if (stk_unlikely(r != STK_HTTP1_OK))
        return r == STK_HTTP1_PARTIAL && (size_t)(stop - start) == line_max ? H1_E(LINE_TOO_LONG)
                                                                            : r;
    h->target_off = (uint32_t)(target - h->base);
    h->target_len = (uint32_t)(p - target);
    h->target_form = STK_TARGET_ORIGIN;
    h->authority_len = 0;
    if (stk_unlikely(*target != '/' || h1_is_connect(start, h->method_len)))
        H1_TRY(target == p ? H1_E(BAD_TARGET) : h1_target_other(h));
    p++;
    if (stk_unlikely((size_t)(p - start) + 8 > line_max))
        return H1_E(LINE_TOO_LONG);
    if (stk_likely(end - p >= 10 && memcmp(p, "HTTP/1.1\r\n", 10) == 0)) {
        h->version_minor = 1;
        p += 10;
    } else {
        H1_TRY(h1_version(h, &p, end));
    }
    *pos = p;
    return STK_HTTP1_OK;
}

static enum stk_http1_result h1_content_length(struct stk_head *h, stk_span value)
{
    uint64_t n = 0;

    if (h->has_content_length)
        return H1_E(DUPLICATE_CONTENT_LENGTH);
    if (value.len == 0)
        return H1_E(BAD_CONTENT_LENGTH);
    for (size_t i = 0; i < value.len; i++) {
        unsigned digit = h1_byte(value.ptr + i) - (unsigned)'0';

        if (digit > 9)
            return H1_E(BAD_CONTENT_LENGTH);
        n = n * 10 + digit;
        if (n > H1_CONTENT_MAX)
            return H1_E(BAD_CONTENT_LENGTH);
    }
    h->content_length = n;
    h->has_content_length = true;
    return STK_HTTP1_OK;
}

/* Takes the first element off a comma-separated list, white space round it trimmed. */
static stk_span h1_pop_element(stk_span *list)
{
    const char *p = list->ptr, *end = p + list->len;
    const char *comma = list->len ? memchr(p, ',', list->len) : NULL;
    const char *stop = comma ? comma : end;

    list->ptr = comma ? comma + 1 : end;
    list->len = (size_t)(end - list->ptr);
    while (p < stop && (*p == ' ' || *p == '\t'))
        p++;
    while (stop > p && (stop[-1] == ' ' || stop[-1] == '\t'))
        stop--;
    return stk_span_make(p, (size_t)(stop - p));
}

/*
 * One Transfer-Encoding field; several count as one list. What the list comes to is judged at the
 * end of the head, but what no continuation can repair is refused here.
 */
static STK_COLD enum stk_http1_result h1_transfer_encoding(const struct stk_head *h,
                                                           struct h1_facts *facts, stk_span list)
{
    bool more;

    facts->encoding = true;
    if (h->version_minor == 0)
        return H1_E(ENCODING_IN_HTTP10);
    do {
        size_t before = list.len;
        stk_span coding = h1_pop_element(&list), token = coding;
        const char *semicolon = coding.len ? memchr(coding.ptr, ';', coding.len) : NULL;

        /* An element shorter by its comma means that another one follows, be it empty. */
        more = list.len > 0 || (before > 0 && list.ptr[-1] == ',');
        if (semicolon)
            token.len = (size_t)(semicolon - coding.ptr);
        while (token.len > 0 &&
               (token.ptr[token.len - 1] == ' ' || token.ptr[token.len - 1] == '\t'))
            token.len--;
        if (token.len == 0 || !stk_http1_is_token(token) || facts->chunked)
            return H1_E(BAD_TRANSFER_ENCODING);
        if (!h1_value_is(token, STK_SPAN_LIT("chunked")))
            facts->unknown = true;
        else if (semicolon)
            return H1_E(BAD_TRANSFER_ENCODING);
        else
            facts->chunked = true;
    } while (more);
    return STK_HTTP1_OK;
}

static void h1_connection(struct h1_facts *facts, stk_span list)
{
    while (list.len > 0) {
        stk_span token = h1_pop_element(&list);

        if (h1_value_is(token, STK_SPAN_LIT("keep-alive")))
            facts->keep_alive = true;
        else if (h1_value_is(token, STK_SPAN_LIT("close")))
            facts->close = true;
        else if (h1_value_is(token, STK_SPAN_LIT("upgrade")))
            facts->upgrade = true;
    }
}

/* A complete field that the server itself looks at; `f` is not counted yet. */
H1_INLINE enum stk_http1_result h1_known_field(struct stk_head *h, struct h1_facts *facts,
                                               const struct stk_head_field *f)
{
    stk_span value = stk_head_field_value(h, f);

    switch ((enum stk_head_known)f->known) {
    case STK_HEAD_HOST:
        if (h->known[STK_HEAD_HOST])
            return H1_E(DUPLICATE_HOST);
        return stk_uri_split_host(value, NULL, NULL) ? STK_HTTP1_OK : H1_E(BAD_HOST);
    case STK_HEAD_CONNECTION:
        h1_connection(facts, value);
        return STK_HTTP1_OK;
    case STK_HEAD_CONTENT_LENGTH:
        H1_TRY(h1_content_length(h, value));
        return facts->encoding ? H1_E(LENGTH_AND_ENCODING) : STK_HTTP1_OK;
    case STK_HEAD_TRANSFER_ENCODING:
        H1_TRY(h1_transfer_encoding(h, facts, value));
        return h->has_content_length ? H1_E(LENGTH_AND_ENCODING) : STK_HTTP1_OK;
    case STK_HEAD_EXPECT:
        if (h->version_minor == 0)
            return STK_HTTP1_OK;
        h->expect_continue = true;
        return h1_value_is(value, STK_SPAN_LIT("100-continue")) ? STK_HTTP1_OK : H1_E(BAD_EXPECT);
    default:
        return STK_HTTP1_OK;
    }
}

/* The name that begins at `name` is not followed by a colon, or is empty. */
static STK_COLD enum stk_http1_result h1_bad_name(const char *name, const char *p, const char *end)
{
    if (*p == ' ' || *p == '\t')
        return p == name ? H1_E(LEADING_SPACE) : H1_E(SPACE_BEFORE_COLON);
    return h1_bad_byte(p, end, H1_E(BAD_FIELD_NAME));
}

/* The end of the value's line, at `p`; *pos moves behind it. */
static inline enum stk_http1_result h1_line_end(const char **pos, const char *end)
{
    const char *p = *pos;

    if (stk_likely(end - p >= 2 && memcmp(p, "\r\n", 2) == 0)) {
        *pos = p + 2;
        return STK_HTTP1_OK;
    }
    return p == end ? STK_HTTP1_PARTIAL : h1_bad_byte(p, end, H1_E(BAD_FIELD_VALUE));
}

/* The field lines and the empty line behind them; *pos moves behind it. */
H1_INLINE enum stk_http1_result h1_fields(struct stk_head *h, struct h1_facts *facts,
                                          const char **pos, const char *end,
                                          const struct stk_http1_limits *limits)
{
    unsigned max =
        limits->fields_max < STK_HEAD_FIELDS_MAX ? limits->fields_max : STK_HEAD_FIELDS_MAX;
    struct stk_head_field *f = h->fields;
    const char *p = *pos, *base = h->base;

    for (unsigned count = 0;; count++) {
        const char *name = p, *value;
        bool underscore;
        uint32_t hash;

        if (p < end && *p == '\r')
            break;
        p = h1_name(p, end, &hash, &underscore);
        if (stk_unlikely(p == end))
            return STK_HTTP1_PARTIAL;
        if (stk_unlikely(*p != ':' || p == name))
            return h1_bad_name(name, p, end);
        if (stk_unlikely(count >= max))
            return H1_E(TOO_MANY_FIELDS);
        if (stk_unlikely(p - name > UINT16_MAX))
            return H1_E(BAD_FIELD_NAME);
        f->name_off = (uint32_t)(name - base);
        f->name_len = (uint16_t)(p - name);
        f->hash = hash;
        f->known = h1_known(name, (size_t)(p - name));
        p++;
        if (stk_likely(p < end && *p == ' '))
            p++;
        while (p < end && stk_unlikely(*p == ' ' || *p == '\t'))
            p++;
        value = p;
        p = h1_skip_value(p, end);
        f->value_off = (uint32_t)(value - base);
        f->value_len = (uint32_t)(p - value);
        H1_TRY(h1_line_end(&p, end));
        while (f->value_len > 0 &&
               (value[f->value_len - 1] == ' ' || value[f->value_len - 1] == '\t'))
            f->value_len--;
        if (f->known) {
            H1_TRY(h1_known_field(h, facts, f));
            h->known[f->known] = (uint16_t)(f - h->fields + 1);
        }
        if (stk_likely(!underscore) || limits->underscores)
            f++;
    }
    h->nfields = (uint16_t)(f - h->fields);
    *pos = p;
    return h1_line_end(pos, end);
}

/* The authority without the port that its scheme has anyway. */
static stk_span h1_without_default_port(stk_span authority, bool https)
{
    stk_span port;

    if (stk_uri_split_host(authority, NULL, &port) &&
        (port.len == 0 || stk_span_eq(port, https ? STK_SPAN_LIT("443") : STK_SPAN_LIT("80"))) &&
        port.ptr > authority.ptr && port.ptr[-1] == ':')
        authority.len = (size_t)(port.ptr - 1 - authority.ptr);
    return authority;
}

/* Host beside an absolute target, whose authority is the one that counts (RFC 9112 3.2.2). */
static STK_COLD enum stk_http1_result h1_absolute(struct stk_head *h)
{
    bool https = (h->base[h->target_off + 4] | 0x20) == 's';
    stk_span authority = stk_span_make(h->base + h->authority_off, h->authority_len);

    if (h->known[STK_HEAD_HOST] &&
        !stk_span_ieq(h1_without_default_port(authority, https),
                      h1_without_default_port(stk_head_known_value(h, STK_HEAD_HOST), https)))
        return H1_E(HOST_MISMATCH);
    h->host_off = h->authority_off;
    h->host_len = h->authority_len;
    return STK_HTTP1_OK;
}

/* The head is complete: what can only be said of all of it. */
H1_INLINE enum stk_http1_result h1_finish(struct stk_head *h, const struct h1_facts *facts)
{
    unsigned host = h->known[STK_HEAD_HOST];

    if (stk_likely(host)) {
        h->host_off = h->fields[host - 1].value_off;
        h->host_len = h->fields[host - 1].value_len;
    } else {
        if (h->version_minor > 0)
            return H1_E(NO_HOST);
        h->host_off = h->host_len = 0;
    }
    if (stk_unlikely(h->target_form == STK_TARGET_ABSOLUTE))
        H1_TRY(h1_absolute(h));
    if (stk_unlikely(facts->encoding)) {
        if (!facts->chunked)
            return H1_E(BAD_TRANSFER_ENCODING);
        if (facts->unknown)
            return H1_E(ENCODING_UNKNOWN);
    }
    h->chunked = facts->chunked;
    h->keep_alive = !facts->close && (h->version_minor > 0 || facts->keep_alive);
    h->has_upgrade = facts->upgrade && h->version_minor > 0 && h->known[STK_HEAD_UPGRADE];
    return STK_HTTP1_OK;
}

/* First bytes that are of another protocol. PARTIAL: they may become so. OK: they are not. */
static STK_COLD enum stk_http1_result h1_other_protocol(const char *p, size_t len)
{
    size_t n = len < H1_HTTP2_PREFACE_LEN ? len : H1_HTTP2_PREFACE_LEN;

    if (*p == 0x16) {
        if (len < 2)
            return STK_HTTP1_PARTIAL;
        return p[1] == 0x03 ? H1_E(TLS_BYTES) : STK_HTTP1_OK;
    }
    if (memcmp(p, H1_HTTP2_PREFACE, n) != 0)
        return STK_HTTP1_OK;
    return n < H1_HTTP2_PREFACE_LEN ? STK_HTTP1_PARTIAL : H1_E(HTTP2_PREFACE);
}

/* Empty lines before the request line. */
static STK_COLD enum stk_http1_result h1_empty_lines(const char **pos, const char *end)
{
    for (unsigned i = 0; *pos < end && (**pos == '\r' || **pos == '\n'); i++)
        H1_TRY(i < H1_EMPTY_LINES_MAX ? h1_line_end(pos, end)
                                      : h1_bad_byte(*pos, end, H1_E(BAD_METHOD)));
    return *pos < end ? STK_HTTP1_OK : STK_HTTP1_PARTIAL;
}

/* What fields only ever add to, and what no field says. */
static inline void h1_clear(struct stk_head *h)
{
    memset(h->known, 0, sizeof(h->known));
    h->has_content_length = false;
    h->expect_continue = false;
    h->records = false;
}

H1_INLINE enum stk_http1_result h1_head(struct stk_head *h, const char *end,
                                        const struct stk_http1_limits *limits)
{
    struct h1_facts facts = {0};
    const char *p = h->base;

    if (stk_unlikely(p == end))
        return STK_HTTP1_PARTIAL;
    if (stk_unlikely(*p == 'P' || *p == 0x16))
        H1_TRY(h1_other_protocol(p, (size_t)(end - p)));
    if (stk_unlikely(*p == '\r' || *p == '\n'))
        H1_TRY(h1_empty_lines(&p, end));
    h1_clear(h);
    H1_TRY(h1_line(h, &p, end, limits->line_max));
    H1_TRY(h1_fields(h, &facts, &p, end, limits));
    H1_TRY(h1_finish(h, &facts));
    h->len = (uint32_t)(p - h->base);
    return STK_HTTP1_OK;
}

STK_HOT enum stk_http1_result stk_http1_parse(struct stk_head *ret_head, const char *buf,
                                              size_t len, const struct stk_http1_limits *limits)
{
    bool full = len >= limits->head_max;
    enum stk_http1_result r;

    ret_head->base = buf;
    ret_head->serial = 0;
    ret_head->path_apart = false;
    r = h1_head(ret_head, buf + (full ? limits->head_max : len), limits);
    return stk_unlikely(full && r == STK_HTTP1_PARTIAL) ? H1_E(HEAD_TOO_LARGE) : r;
}

enum stk_http1_result stk_http1_assemble(struct stk_head *ret_head, const char *base, stk_span line,
                                         unsigned nfields, const struct stk_http1_limits *limits)
{
    struct h1_facts facts = {0};
    const char *p = line.ptr, *end = p + line.len;
    unsigned max =
        limits->fields_max < STK_HEAD_FIELDS_MAX ? limits->fields_max : STK_HEAD_FIELDS_MAX;

    ret_head->base = base;
    ret_head->serial = 0;
    ret_head->path_apart = false;
    h1_clear(ret_head);
    H1_TRY(h1_line(ret_head, &p, end, limits->line_max));
    if (nfields > max)
        return H1_E(TOO_MANY_FIELDS);
    for (unsigned i = 0; i < nfields; i++) {
        const struct stk_head_field *f = &ret_head->fields[i];

        if (!f->known)
            continue;
        H1_TRY(h1_known_field(ret_head, &facts, f));
        ret_head->known[f->known] = (uint16_t)(i + 1);
    }
    ret_head->nfields = (uint16_t)nfields;
    return h1_finish(ret_head, &facts);
}

/* Parses, and remembers the bytes; rarely, when that has not paid for a while. */
static enum stk_http1_result h1_parse_new(struct stk_http1_memo *memo, struct stk_head *head,
                                          const char *buf, size_t len,
                                          const struct stk_http1_limits *limits)
{
    enum stk_http1_result r = stk_http1_parse(head, buf, len, limits);

    memo->len = 0;
    if (stk_unlikely(r != STK_HTTP1_OK))
        return r;
    head->serial = ++memo->serial;
    memo->misses++;
    if (head->len <= STK_HTTP1_MEMO_MAX &&
        (memo->misses < H1_MEMO_MISSES || memo->misses % H1_MEMO_MISSES == 0)) {
        memcpy(memo->bytes, buf, head->len);
        memo->len = head->len;
    }
    return r;
}

STK_HOT enum stk_http1_result stk_http1_parse_memo(struct stk_http1_memo *memo,
                                                   struct stk_head *head, const char *buf,
                                                   size_t len,
                                                   const struct stk_http1_limits *limits)
{
    if (memo->len == 0 || len < memo->len || memcmp(buf, memo->bytes, memo->len) != 0)
        return h1_parse_new(memo, head, buf, len, limits);
    memo->misses = 0;
    head->base = buf;
    return STK_HTTP1_OK;
}

static const struct {
    unsigned status;
    const char *text;
} h1_results[STK_HTTP1_RESULT_COUNT] = {[STK_HTTP1_OK] = {200, "fine"},
                                        [STK_HTTP1_PARTIAL] = {408, "incomplete request head"},
#define X(id, status, text) [STK_HTTP1_E_##id] = {status, text},
                                        STK_HTTP1_ERRORS(X)
#undef X
};

unsigned stk_http1_error_status(enum stk_http1_result error)
{
    return (unsigned)error < STK_HTTP1_RESULT_COUNT ? h1_results[error].status : 400;
}

const char *stk_http1_error_text(enum stk_http1_result error)
{
    return (unsigned)error < STK_HTTP1_RESULT_COUNT ? h1_results[error].text : "unknown error";
}

bool stk_http1_is_token(stk_span s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!h1_lower[h1_byte(s.ptr + i)] && s.ptr[i] != '_')
            return false;
    return s.len > 0;
}

bool stk_http1_is_field_value(stk_span s)
{
    return s.len == 0 || h1_skip_value(s.ptr, s.ptr + s.len) == s.ptr + s.len;
}

bool stk_http1_is_token_padded(const char *p, size_t len)
{
    return h1_is_plain_name_padded(p, len) || stk_http1_is_token(stk_span_make(p, len));
}

bool stk_http1_is_field_value_padded(const char *p, size_t len)
{
    return h1_is_value_padded(p, len);
}

enum stk_head_known stk_http1_known_field(stk_span name)
{
    if (!stk_http1_is_token(name))
        return STK_HEAD_OTHER;
    return (enum stk_head_known)h1_known(name.ptr, name.len);
}

uint32_t stk_http1_field_hash(stk_span name)
{
    return h1_hash(name.ptr, name.len);
}
