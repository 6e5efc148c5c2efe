/*
 * A request head, independent of the protocol it came by: the HTTP/1.1 parser fills it from
 * its buffer, the gateway protocols from their variables, HTTP/2 from its header block.
 *
 * All offsets count from `base`, so that a head survives its buffer being moved: set `base`
 * again. Nothing in it is NUL-terminated.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

enum { STK_HEAD_FIELDS_MAX = 256 }; /* the hard limit; the configured one is lower */

/* Fields that the server itself looks at; X(id, "lower-case name"). */
#define STK_HEAD_KNOWN(X)                     \
    X(HOST, "host")                           \
    X(CONNECTION, "connection")               \
    X(CONTENT_LENGTH, "content-length")       \
    X(CONTENT_TYPE, "content-type")           \
    X(TRANSFER_ENCODING, "transfer-encoding") \
    X(EXPECT, "expect")                       \
    X(UPGRADE, "upgrade")                     \
    X(USER_AGENT, "user-agent")               \
    X(REFERER, "referer")                     \
    X(AUTHORIZATION, "authorization")         \
    X(FORWARDED, "forwarded")                 \
    X(X_FORWARDED_FOR, "x-forwarded-for")     \
    X(X_FORWARDED_PROTO, "x-forwarded-proto") \
    X(X_FORWARDED_HOST, "x-forwarded-host")   \
    X(X_FORWARDED_PORT, "x-forwarded-port")

enum stk_head_known {
    STK_HEAD_OTHER,
#define X(id, name) STK_HEAD_##id,
    STK_HEAD_KNOWN(X)
#undef X
        STK_HEAD_KNOWN_COUNT
};

struct stk_head_field {
    uint32_t name_off;
    uint32_t value_off;
    uint32_t value_len;
    uint32_t hash; /* stk_http1_field_hash() of the name: the same in any case */
    uint16_t name_len;
    uint8_t known; /* enum stk_head_known */
};

enum stk_target_form {
    STK_TARGET_ORIGIN,    /* /path?query */
    STK_TARGET_ABSOLUTE,  /* http://host/path?query; authority is set */
    STK_TARGET_AUTHORITY, /* host:port, CONNECT only */
    STK_TARGET_ASTERISK,  /* *, OPTIONS only */
};

/* A variable for the application beyond those that every request has. */
struct stk_var {
    stk_span name, value;
};

struct stk_head {
    const char *base;
    uint64_t serial; /* heads of the same bytes may share it, others never do; 0: unknown */
    uint32_t
        len; /* bytes of the head in the buffer, its final empty line and leading CRLFs included */

    uint32_t method_off, method_len;
    uint32_t target_off, target_len; /* as sent */
    uint32_t authority_off, authority_len;
    /* Undecoded (of a gateway protocol decoded: path_apart), without the query. Of length 0 it
       stands for "/" in an absolute target (http://host?query) and for nothing in an authority; of
       an asterisk target it is "*". */
    uint32_t path_off, path_len;
    uint32_t query_off, query_len; /* without the "?" */
    uint32_t host_off, host_len;   /* value of Host, or the authority of an absolute target */

    uint64_t content_length; /* valid with has_content_length */
    uint16_t nfields;
    uint8_t version_minor; /* of HTTP/1 */
    uint8_t target_form;   /* enum stk_target_form */
    bool keep_alive;       /* by version and Connection */
    bool chunked;          /* Transfer-Encoding ends in chunked; no Content-Length then. With
                              records: the length of the body is not known */
    bool records;          /* the body comes as STDIN records of FastCGI, and there may be none */
    bool has_content_length;
    bool expect_continue;
    bool has_upgrade;  /* an Upgrade field named in Connection */
    bool path_escaped; /* the path has a "%" */
    bool path_apart;   /* path and query did not come out of the target: the front end said them */
    bool is_get, is_head;

    /* Position in fields[] of the last field of each known kind + 1, or 0. */
    uint16_t known[STK_HEAD_KNOWN_COUNT];
    struct stk_head_field fields[STK_HEAD_FIELDS_MAX];
};

static inline stk_span stk_head_method(const struct stk_head *h)
{
    return stk_span_make(h->base + h->method_off, h->method_len);
}

static inline stk_span stk_head_target(const struct stk_head *h)
{
    return stk_span_make(h->base + h->target_off, h->target_len);
}

static inline stk_span stk_head_path(const struct stk_head *h)
{
    return stk_span_make(h->base + h->path_off, h->path_len);
}

static inline stk_span stk_head_query(const struct stk_head *h)
{
    return stk_span_make(h->base + h->query_off, h->query_len);
}

static inline stk_span stk_head_host(const struct stk_head *h)
{
    return stk_span_make(h->base + h->host_off, h->host_len);
}

static inline stk_span stk_head_field_name(const struct stk_head *h, const struct stk_head_field *f)
{
    return stk_span_make(h->base + f->name_off, f->name_len);
}

static inline stk_span stk_head_field_value(const struct stk_head *h,
                                            const struct stk_head_field *f)
{
    return stk_span_make(h->base + f->value_off, f->value_len);
}

/*
 * Copies a head with all that it refers to, for requests that outlive the buffers of their thread:
 * *to has room for from->nfields fields, and `text` for as many bytes as the first function says.
 * Of HTTP that is the text of the head; what a gateway protocol tells lies here and there behind
 * `base`.
 */
size_t stk_head_text_size(const struct stk_head *h);
void stk_head_copy(struct stk_head *to, const struct stk_head *from, char *text);

/* The value of the last field of a known kind; a span of length 0 and ptr NULL if there is none. */
static inline stk_span stk_head_known_value(const struct stk_head *h, enum stk_head_known id)
{
    return h->known[id] ? stk_head_field_value(h, &h->fields[h->known[id] - 1])
                        : stk_span_make(NULL, 0);
}
