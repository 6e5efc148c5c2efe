/*
 * HTTP/1 request heads (RFC 9112 sections 2-6, RFC 9110 section 5): bytes in, offsets out. Pure: no
 * I/O, no allocation, no state between calls.
 */
#pragma once

#include "base/macros.h"
#include "wire/head.h"

/* Outcomes: X(id, HTTP status to answer with, text for the log and the answer). */
#define STK_HTTP1_ERRORS(X)                                                              \
    X(BAD_METHOD, 400, "malformed method")                                               \
    X(BAD_TARGET, 400, "malformed request target")                                       \
    X(BAD_VERSION, 400, "malformed HTTP version")                                        \
    X(VERSION_UNSUPPORTED, 505, "HTTP version not supported")                            \
    X(BAD_LINE_END, 400, "line not ended by CR LF")                                      \
    X(LEADING_SPACE, 400, "white space before the first field or an obsolete line fold") \
    X(BAD_FIELD_NAME, 400, "malformed field name")                                       \
    X(SPACE_BEFORE_COLON, 400, "white space between field name and colon")               \
    X(BAD_FIELD_VALUE, 400, "control character in a field value")                        \
    X(NO_HOST, 400, "no Host field in an HTTP/1.1 request")                              \
    X(BAD_HOST, 400, "malformed Host")                                                   \
    X(DUPLICATE_HOST, 400, "more than one Host field")                                   \
    X(HOST_MISMATCH, 400, "Host disagrees with the absolute request target")             \
    X(BAD_CONTENT_LENGTH, 400, "malformed Content-Length")                               \
    X(DUPLICATE_CONTENT_LENGTH, 400, "several Content-Length fields")                    \
    X(LENGTH_AND_ENCODING, 400, "both Content-Length and Transfer-Encoding")             \
    X(BAD_TRANSFER_ENCODING, 400, "Transfer-Encoding does not end in a single chunked")  \
    X(ENCODING_UNKNOWN, 501, "transfer coding not supported")                            \
    X(ENCODING_IN_HTTP10, 400, "Transfer-Encoding in an HTTP/1.0 request")               \
    X(BAD_EXPECT, 417, "expectation not supported")                                      \
    X(LINE_TOO_LONG, 414, "request line too long")                                       \
    X(HEAD_TOO_LARGE, 431, "request head too large")                                     \
    X(TOO_MANY_FIELDS, 431, "too many fields")                                           \
    X(HTTP2_PREFACE, 505, "HTTP/2 is not spoken on this address")                        \
    X(TLS_BYTES, 400, "a TLS handshake on a plain HTTP address")                         \
    X(BAD_PACKET, 400, "malformed request of a gateway protocol")                        \
    X(HTTP_BYTES, 400, "HTTP was sent to an address of a gateway protocol")              \
    X(UWSGI_MODIFIER, 501, "the uwsgi modifier is not served")                           \
    X(UWSGI_PING, 200, "a uwsgi ping")                                                   \
    X(FASTCGI_ENDED, 501, "a FastCGI request of a role that is not served, or aborted")

enum stk_http1_result {
    STK_HTTP1_OK,
    STK_HTTP1_PARTIAL, /* no error so far, more bytes are needed */
#define X(id, status, text) STK_HTTP1_E_##id,
    STK_HTTP1_ERRORS(X)
#undef X
        STK_HTTP1_RESULT_COUNT
};

struct stk_http1_limits {
    uint32_t line_max;   /* bytes of the request line */
    uint32_t head_max;   /* bytes of the whole head */
    uint16_t fields_max; /* at most STK_HEAD_FIELDS_MAX */
    bool underscores;    /* keep fields with "_" in the name instead of dropping them */
};

/*
 * Parses the head at the start of `buf`. On STK_HTTP1_OK *ret_head is filled, base = buf; on
 * anything else its contents are undefined. Empty lines (CR LF) before the request line are
 * skipped (RFC 9112 2.2), at most 4. Fields whose name has an underscore are checked and left out
 * of fields[] (they would spoof X-Forwarded-For as X_Forwarded_For).
 */
enum stk_http1_result stk_http1_parse(struct stk_head *ret_head, const char *buf, size_t len,
                                      const struct stk_http1_limits *limits);

/*
 * The same of a head that comes in parts, by another protocol: its fields are in ret_head->fields
 * (of name and value, hash and known), and `line` is a request line with its CR LF, as offsets from
 * base and within it. Names are tokens, values are trimmed and have passed
 * stk_http1_is_field_value. Sets all but `len`; counts no bytes against limits->head_max.
 */
enum stk_http1_result stk_http1_assemble(struct stk_head *ret_head, const char *base, stk_span line,
                                         unsigned nfields, const struct stk_http1_limits *limits);

/*
 * What a client asks for every second it asks for in the same words: the bytes of the last head
 * that was parsed, for which `head` still holds the result. Zeroed, it remembers nothing.
 */
enum { STK_HTTP1_MEMO_MAX = 1024 };

struct stk_http1_memo {
    uint64_t serial; /* the last one given; begin each memo with a range of its own */
    uint32_t len;    /* 0: nothing is remembered */
    uint32_t misses; /* since the last hit */
    char bytes[STK_HTTP1_MEMO_MAX];
};

/*
 * As stk_http1_parse; `head` and the limits are always the same ones, and nobody else writes to
 * `head` but its base. Sets head->serial.
 */
enum stk_http1_result stk_http1_parse_memo(struct stk_http1_memo *memo, struct stk_head *head,
                                           const char *buf, size_t len,
                                           const struct stk_http1_limits *limits);

/* The HTTP status with which an error is answered (400, 414, 431, 501, 505, 417). */
unsigned stk_http1_error_status(enum stk_http1_result error);
/* A short lower-case text that says what was wrong. */
const char *stk_http1_error_text(enum stk_http1_result error);

/* RFC 9110 5.6.2 token: methods, field names. */
bool stk_http1_is_token(stk_span s);
/* RFC 9110 5.5 field value: no CR, LF, NUL or other control but tab; the empty one is fine. */
bool stk_http1_is_field_value(stk_span s);
/*
 * The same two for bytes that have at least 16 readable bytes behind them, as in an output buffer
 * with room left: 16 at a time, and the bytes behind the end may be anything.
 */
bool stk_http1_is_token_padded(const char *p, size_t len);
bool stk_http1_is_field_value_padded(const char *p, size_t len);
/* The enum stk_head_known of a field name, in any case. */
enum stk_head_known stk_http1_known_field(stk_span name);
/*
 * The hash that fields carry: of the name with 0x20 set in each byte, so that it is the same in any
 * case. It differs between machines of another byte order; a peer can make names collide.
 */
uint32_t stk_http1_field_hash(stk_span name);
