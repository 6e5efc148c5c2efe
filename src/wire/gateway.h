/*
 * What the gateway protocols (uwsgi, SCGI, FastCGI) have in common: a front end sends a request as
 * CGI variables (RFC 3875 4.1). They become the head that an HTTP/1 request of the same meaning
 * would become, by the same functions: so what HTTP refuses the gateways refuse, and all who look
 * at a head need not know how it came. Pure: no I/O, and no memory but what the caller gives.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "wire/head.h"
#include "wire/http1.h"

enum {
    STK_GATEWAY_VARS_MAX = 128, /* beside those that make the head */
};

/*
 * The variables of one request, and what is made of them; the spans are in the packet or in buf,
 * and of a packet that is held in buf only.
 */
struct stk_gateway {
    char *buf;       /* the head, the path, and the packet if it is held */
    size_t room;     /* bytes at buf */
    size_t cap, len; /* of what is made here */
    char *held;
    size_t held_len;
    uint64_t serial; /* of the head that the held packet became; 0: it became none */
    uint16_t port;   /* of stk_gateway_again: REMOTE_PORT as a number, 0: it is none */
    const struct stk_http1_limits *limits;
    enum stk_http1_result error; /* of the variables so far; STK_HTTP1_OK */
    bool magic;                  /* a variable was left out that would have changed the server */

    /* Of those that have not come `ptr` is NULL. */
    stk_span method, uri, document_uri, path_info, script_name, query, protocol;
    stk_span content_length, http_length, content_type;
    stk_span remote_addr, remote_port, server_name, server_port, scheme, https;
    bool has_host, strip;

    stk_span mount; /* of stk_gateway_finish: SCRIPT_NAME, the beginning of the path */
    bool secure;    /* likewise: the client speaks https with the front end */

    unsigned nfields;
    size_t fields_len; /* of the fields as HTTP has them */
    size_t nvars;
    struct stk_head_field fields[STK_HEAD_FIELDS_MAX]; /* offsets into buf */
    struct stk_var vars[STK_GATEWAY_VARS_MAX];
};

/* The bytes that buf needs for heads within the limits. */
size_t stk_gateway_room(const struct stk_http1_limits *limits);
/*
 * Begins a request; buf has stk_gateway_room() bytes and outlives it. It was zeroed before the
 * first one, and keeps what is known of the names of variables.
 */
void stk_gateway_begin(struct stk_gateway *gw, char *buf, const struct stk_http1_limits *limits);
/*
 * Holds a packet of at most limits->head_max bytes, whose variables come next: it is copied into
 * buf. Where the copy is.
 */
const char *stk_gateway_hold(struct stk_gateway *gw, const char *packet, size_t len)
    __attribute__((returns_nonnull));
/*
 * Whether a packet is, but for the digits of REMOTE_PORT, the one that is held and that `head` and
 * gw were made of: then both are those of this packet now. A front end sends many such packets, of
 * as many connections of its clients. The heads of one memory have serials that are never given
 * again; whoever has made one notes it here (gw->serial).
 */
bool stk_gateway_again(struct stk_gateway *gw, const struct stk_head *head, const char *packet,
                       size_t len);
/* Takes a variable. Its bytes stay where they are until the request is over. */
void stk_gateway_add(struct stk_gateway *gw, stk_span name, stk_span value);
/*
 * All variables are there: makes the head. It says that the connection ends with this request, and
 * its `len` is the caller's to set. With `strip` SCRIPT_NAME is known to be a part of PATH_INFO.
 *
 * SCRIPT_NAME and PATH_INFO come out as PEP 3333 wants them, one behind the other the path of the
 * request, however the front end tells it (RFC 3875 4.1.5, 4.1.13):
 *   PATH_INFO begins with SCRIPT_NAME, and REQUEST_URI is
 *   not one behind the other                                  that part is taken off
 *   there is no PATH_INFO                                     it is what follows SCRIPT_NAME
 *   SCRIPT_NAME is the whole path (nginx's fastcgi_params)    it is all PATH_INFO
 */
enum stk_http1_result stk_gateway_finish(struct stk_gateway *gw, struct stk_head *head, bool strip)
    STK_MUST_CHECK;
