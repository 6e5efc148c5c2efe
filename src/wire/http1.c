/*
 * HTTP/1 request heads: one pass over the bytes, offsets out.
 *
 * The parser keeps nothing between calls: a head that is not complete is parsed again from its
 * start when more has come. Nearly every head comes in one piece, so a resumable machine would
 * make all of them pay for the few. Each byte is looked at once: names by a table that
 * tells token characters and folds them to lower case, hashing on the way; values, which are most
 * of the bytes, 16 (or 8) at a time for the first control character. Fields that decide about
 * framing and routing are judged as soon as their line ends, so that errors are told early.
 *
 * Everything is strict: what two servers on one path could understand differently is refused (RFC
 * 9112 section 11.2). Only buf[0..min(len, head_max)) is ever looked at, and the result for a
 * prefix is PARTIAL or the very error that the whole gives.
 */
#include "wire/http1.h"

#include <string.h>

#if defined(__SSE2__) && !defined(STK_HTTP1_PORTABLE)
#    include <emmintrin.h>
#    define H1_SSE2 1
#endif

#include "wire/uri.h"

#define H1_TRY(expr)                             \
    do {                                         \
        enum stk_http1_result h1_r_ = (expr);    \
        if (stk_unlikely(h1_r_ != STK_HTTP1_OK)) \
            return h1_r_;                        \
    } while (0)

#define H1_E(id) STK_HTTP1_E_##id

enum { H1_EMPTY_LINES_MAX = 4 };

#define H1_FNV_SEED          UINT32_C(2166136261)
#define H1_FNV_PRIME         UINT32_C(16777619)
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

/* Token characters but "_", folded to lower case; 0 for all others. */
#define S(c) [c] = (c)
#define L(c) [c] = (c), [(c)-0x20] = (c)
static const unsigned char h1_lower[256] = {
    S('!'), S('#'), S('$'), S('%'), S('&'), S('\''), S('*'), S('+'), S('-'), S('.'),
    S('^'), S('`'), S('|'), S('~'), S('0'), S('1'),  S('2'), S('3'), S('4'), S('5'),
    S('6'), S('7'), S('8'), S('9'), L('a'), L('b'),  L('c'), L('d'), L('e'), L('f'),
    L('g'), L('h'), L('i'), L('j'), L('k'), L('l'),  L('m'), L('n'), L('o'), L('p'),
    L('q'), L('r'), L('s'), L('t'), L('u'), L('v'),  L('w'), L('x'), L('y'), L('z'),
};
#undef S
#undef L

/* Characters of a field value: tab, space, visible and obs-text (RFC 9110 5.5). */
static const bool h1_value[256] = {
    ['\t'] = true,
    [0x20 ... 0x7e] = true,
    [0x80 ... 0xff] = true,
};

enum { H1_T_END, H1_T_PLAIN, H1_T_QUERY, H1_T_ESCAPE };

/* Characters of a target: neither control, space nor "#"; bytes over 0x7f are raw UTF-8. */
static const unsigned char h1_target[256] = {
    [0x21 ... 0x22] = H1_T_PLAIN, [0x24] = H1_T_PLAIN, ['%'] = H1_T_ESCAPE,
    [0x26 ... 0x3e] = H1_T_PLAIN, ['?'] = H1_T_QUERY,  [0x40 ... 0x7e] = H1_T_PLAIN,
    [0x80 ... 0xff] = H1_T_PLAIN,
};

static inline unsigned char h1_byte(const char *p)
{
    return (unsigned char)*p;
}

static inline uint64_t h1_load64(const char *p)
{
    uint64_t w;

    memcpy(&w, p, sizeof(w));
    return w;
}

static inline uint32_t h1_load32(const char *p)
{
    uint32_t w;

    memcpy(&w, p, sizeof(w));
    return w;
}

/*
 * Whether [p, p + len), which has no control characters, is `name` in any case. A name is of at
 * least 4 lower-case letters, digits and "-": onto these only the letters' upper case folds.
 */
static inline bool h1_name_is(const char *p, const char *name, size_t len)
{
    const uint64_t fold = ~UINT64_C(0) / 255 * 0x20;

    if (len < 8)
        return (h1_load32(p) | (uint32_t)fold) == h1_load32(name) &&
               (h1_load32(p + len - 4) | (uint32_t)fold) == h1_load32(name + len - 4);
    for (size_t i = 0; i + 8 < len; i += 8)
        if ((h1_load64(p + i) | fold) != h1_load64(name + i))
            return false;
    return (h1_load64(p + len - 8) | fold) == h1_load64(name + len - 8);
}

static inline bool h1_value_is(stk_span value, stk_span name)
{
    return value.len == name.len && h1_name_is(value.ptr, name.ptr, name.len);
}

static inline bool h1_scheme_is(const char *p, const char *scheme, size_t len)
{
    return h1_name_is(p, scheme, len) && memcmp(p + len, "://", 3) == 0;
}

/* The first byte that is not of a field value, or end. */
static inline const char *h1_skip_value(const char *p, const char *end)
{
#ifdef H1_SSE2
    const __m128i last_ctl = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8('\t');
    const __m128i del = _mm_set1_epi8(0x7f);

    for (; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i ctl = _mm_cmpeq_epi8(_mm_min_epu8(v, last_ctl), v);
        __m128i bad =
            _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(v, tab), ctl), _mm_cmpeq_epi8(v, del));
        unsigned mask = (unsigned)_mm_movemask_epi8(bad);

        if (mask)
            return p + __builtin_ctz(mask);
    }
#else
    const uint64_t ones = ~UINT64_C(0) / 255, tops = ones * 0x80;

    for (; end - p >= 8; p += 8) {
        uint64_t w = h1_load64(p), del = w ^ (ones * 0x7f);

        if ((((w - ones * 0x20) & ~w) | ((del - ones) & ~del)) & tops) {
            for (unsigned i = 0; i < 8; i++)
                if (!h1_value[h1_byte(p + i)])
                    return p + i;
        }
    }
#endif
    while (p < end && h1_value[h1_byte(p)])
        p++;
    return p;
}

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
    h->query_len = 0;
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
static inline enum stk_http1_result h1_line(struct stk_head *h, const char **pos, const char *end,
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

enum { H1_KNOWN_LEN_MAX = 17 };

/* The known fields by the length of their name, at most two of a length. */
static const unsigned char h1_known_by_len[H1_KNOWN_LEN_MAX + 1][2] = {
    [4] = {STK_HEAD_HOST},
    [6] = {STK_HEAD_EXPECT},
    [7] = {STK_HEAD_REFERER, STK_HEAD_UPGRADE},
    [9] = {STK_HEAD_FORWARDED},
    [10] = {STK_HEAD_CONNECTION, STK_HEAD_USER_AGENT},
    [12] = {STK_HEAD_CONTENT_TYPE},
    [13] = {STK_HEAD_AUTHORIZATION},
    [14] = {STK_HEAD_CONTENT_LENGTH},
    [15] = {STK_HEAD_X_FORWARDED_FOR},
    [16] = {STK_HEAD_X_FORWARDED_HOST, STK_HEAD_X_FORWARDED_PORT},
    [17] = {STK_HEAD_TRANSFER_ENCODING, STK_HEAD_X_FORWARDED_PROTO},
};

static const char h1_known_name[STK_HEAD_KNOWN_COUNT][24] = {
#define X(id, name) [STK_HEAD_##id] = name,
    STK_HEAD_KNOWN(X)
#undef X
};

static inline unsigned char h1_known(const char *name, size_t len)
{
    const unsigned char *ids;

    if (len > H1_KNOWN_LEN_MAX)
        return STK_HEAD_OTHER;
    ids = h1_known_by_len[len];
    if (!ids[0])
        return STK_HEAD_OTHER;
    if (h1_name_is(name, h1_known_name[ids[0]], len))
        return ids[0];
    if (ids[1] && h1_name_is(name, h1_known_name[ids[1]], len))
        return ids[1];
    return STK_HEAD_OTHER;
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
static inline enum stk_http1_result h1_known_field(struct stk_head *h, struct h1_facts *facts,
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

    if (stk_likely(end - p >= 2 && p[0] == '\r' && p[1] == '\n')) {
        *pos = p + 2;
        return STK_HTTP1_OK;
    }
    return p == end ? STK_HTTP1_PARTIAL : h1_bad_byte(p, end, H1_E(BAD_FIELD_VALUE));
}

/* The name from `p` to the first byte that is not of a token, and its hash. */
static inline const char *h1_name(const char *p, const char *end, uint32_t *ret_hash,
                                  bool *ret_underscore)
{
    uint32_t hash = H1_FNV_SEED;
    bool underscore = false;

    for (;;) {
        unsigned char c;

        while (p < end && (c = h1_lower[h1_byte(p)]) != 0) {
            hash = (hash ^ c) * H1_FNV_PRIME;
            p++;
        }
        if (stk_likely(p == end || *p != '_'))
            break;
        hash = (hash ^ '_') * H1_FNV_PRIME;
        underscore = true;
        p++;
    }
    *ret_hash = hash;
    *ret_underscore = underscore;
    return p;
}

/* The field lines and the empty line behind them; *pos moves behind it. */
static inline enum stk_http1_result h1_fields(struct stk_head *h, struct h1_facts *facts,
                                              const char **pos, const char *end,
                                              const struct stk_http1_limits *limits)
{
    unsigned max =
        limits->fields_max < STK_HEAD_FIELDS_MAX ? limits->fields_max : STK_HEAD_FIELDS_MAX;
    const char *p = *pos;
    uint16_t n = 0;

    for (unsigned count = 0;; count++) {
        struct stk_head_field *f = &h->fields[n];
        const char *name = p, *value;
        bool underscore;
        uint32_t hash;

        p = h1_name(p, end, &hash, &underscore);
        if (stk_unlikely(p == end))
            return STK_HTTP1_PARTIAL;
        if (*p != ':' || p == name) {
            if (p == name && *p == '\r')
                break;
            return h1_bad_name(name, p, end);
        }
        if (stk_unlikely(count >= max))
            return H1_E(TOO_MANY_FIELDS);
        if (stk_unlikely(p - name > UINT16_MAX))
            return H1_E(BAD_FIELD_NAME);
        f->name_off = (uint32_t)(name - h->base);
        f->name_len = (uint16_t)(p - name);
        f->hash = hash;
        f->known = h1_known(name, (size_t)(p - name));
        p++;
        while (p < end && (*p == ' ' || *p == '\t'))
            p++;
        value = p;
        p = h1_skip_value(p, end);
        f->value_off = (uint32_t)(value - h->base);
        f->value_len = (uint32_t)(p - value);
        H1_TRY(h1_line_end(&p, end));
        while (f->value_len > 0 &&
               (value[f->value_len - 1] == ' ' || value[f->value_len - 1] == '\t'))
            f->value_len--;
        if (f->known) {
            H1_TRY(h1_known_field(h, facts, f));
            h->known[f->known] = (uint16_t)(n + 1);
        }
        n = (uint16_t)(n + (!underscore || limits->underscores));
    }
    h->nfields = n;
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
static inline enum stk_http1_result h1_finish(struct stk_head *h, const struct h1_facts *facts)
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

static inline enum stk_http1_result h1_head(struct stk_head *h, const char *end,
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
    memset(h->known, 0, sizeof(h->known));
    h->has_content_length = false;
    h->expect_continue = false;
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
    r = h1_head(ret_head, buf + (full ? limits->head_max : len), limits);
    return stk_unlikely(full && r == STK_HTTP1_PARTIAL) ? H1_E(HEAD_TOO_LARGE) : r;
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

enum stk_head_known stk_http1_known_field(stk_span name)
{
    if (!stk_http1_is_token(name))
        return STK_HEAD_OTHER;
    return (enum stk_head_known)h1_known(name.ptr, name.len);
}

uint32_t stk_http1_field_hash(stk_span name)
{
    uint32_t hash = H1_FNV_SEED;

    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = h1_byte(name.ptr + i);

        if (c >= 'A' && c <= 'Z')
            c = (unsigned char)(c | 0x20);
        hash = (hash ^ c) * H1_FNV_PRIME;
    }
    return hash;
}
