/*
 * The uwsgi protocol: a packet of variables, then the body (as many bytes as CONTENT_LENGTH says).
 * Pure: no I/O, no state.
 */
#pragma once

#include <stddef.h>

#include "base/macros.h"
#include "wire/gateway.h"

enum {
    STK_UWSGI_HEADER = 4,
    STK_UWSGI_PACKET_MAX = STK_UWSGI_HEADER + 65535,
    STK_UWSGI_WSGI = 0,
    STK_UWSGI_MANAGED = 30, /* a request whose SCRIPT_NAME is to be taken off PATH_INFO */
    STK_UWSGI_PING = 100,
};

/*
 * Parses the packet at the start of buf. On STK_HTTP1_OK the head is filled (see wire/gateway.h)
 * and its `len` is the size of the packet. STK_HTTP1_PARTIAL, or an error: E_UWSGI_PING is not one
 * but a question that stk_uwsgi_pong answers.
 */
enum stk_http1_result stk_uwsgi_parse(struct stk_gateway *gw, char *scratch, struct stk_head *head,
                                      const char *buf, size_t len,
                                      const struct stk_http1_limits *limits) STK_MUST_CHECK;
/* The answer to a ping. */
extern const char stk_uwsgi_pong[STK_UWSGI_HEADER];
