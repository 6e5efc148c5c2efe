/*
 * The PROXY protocol (HAProxy's proxy-protocol.txt, versions 1 and 2): a balancer that passes bytes
 * on without looking at them says in front of a connection who the client is, which address it came
 * to, and what its TLS was. Pure: no I/O, no state, no memory but what the caller gives.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "base/span.h"

enum {
    STK_PROXY_V1_MAX = 107,   /* of a header of version 1, with its line end */
    STK_PROXY_MAX = 4096,     /* of any header: a longer one is refused */
    STK_PROXY_NAME_MAX = 256, /* of a name in a certificate, and of one that a client asks for */
    STK_PROXY_WORD_MAX = 64,  /* of a version of TLS, and of a cipher */
    STK_PROXY_TEXT_ROOM = 48, /* for the text of an address and its NUL */
};

enum stk_proxy_result {
    STK_PROXY_OK,
    STK_PROXY_PARTIAL,     /* the beginning of a header, as far as it can be seen */
    STK_PROXY_NONE,        /* no header: other bytes */
    STK_PROXY_E_MALFORMED, /* a line of version 1 that is none */
    STK_PROXY_E_ADDRESS,   /* an address or a port in it that is none */
    STK_PROXY_E_TOO_LONG,
    STK_PROXY_E_VERSION, /* beyond 2 */
    STK_PROXY_E_COMMAND,
    STK_PROXY_E_FAMILY,
    STK_PROXY_E_LENGTH,   /* the addresses do not fit in it */
    STK_PROXY_E_TLV,      /* nor a field behind them, or it is there twice */
    STK_PROXY_E_CHECKSUM, /* CRC32C is not that of the header */
    STK_PROXY_E_TEXT,     /* control bytes in a name, or too many of them */
};

/* Who is at the other end of the balancer. */
enum stk_proxy_source {
    STK_PROXY_LOCAL,   /* nobody: it speaks for itself, as in a health check */
    STK_PROXY_UNKNOWN, /* somebody, and it does not say who */
    STK_PROXY_IP,
    STK_PROXY_UNIX, /* who came by a unix socket */
};

struct stk_proxy_addr {
    char text[STK_PROXY_TEXT_ROOM]; /* as inet_ntop() writes it; an IPv4-mapped one as IPv4 */
    uint8_t len;
    uint16_t port;
};

/* What a header says. The spans are bytes of it; empty: not told. */
struct stk_proxy {
    uint32_t len; /* of the header: what follows is the client's */
    enum stk_proxy_source source;
    struct stk_proxy_addr client, server; /* of STK_PROXY_IP */
    stk_span authority;                   /* the name that the client has asked for */
    bool tls;                             /* the client speaks TLS with the balancer ... */
    bool certificate;                     /* ... and has shown a certificate in this session */
    uint32_t verify;                      /* 0: it was verified, else OpenSSL's number */
    stk_span tls_version, tls_cipher, common_name;
};

/*
 * Parses the header at the start of buf. The result for a prefix of a header is STK_PROXY_PARTIAL
 * or the error of the whole; no more than STK_PROXY_MAX bytes are ever needed. *ret_proxy is
 * written on STK_PROXY_OK only.
 */
enum stk_proxy_result stk_proxy_parse(struct stk_proxy *ret_proxy, const char *buf, size_t len)
    STK_MUST_CHECK;
/* What is wrong, as a part of a sentence; NULL for a result that is no error. */
const char *stk_proxy_error_text(enum stk_proxy_result result);
