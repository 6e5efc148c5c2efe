/*
 * SCGI: a netstring of variables, each ended by NUL, then the body (as many bytes as CONTENT_LENGTH
 * says). Pure: no I/O, no state.
 */
#pragma once

#include <stddef.h>

#include "base/macros.h"
#include "wire/gateway.h"

/* Parses the request at the start of buf; as stk_uwsgi_parse. */
enum stk_http1_result stk_scgi_parse(struct stk_gateway *gw, char *scratch, struct stk_head *head,
                                     const char *buf, size_t len,
                                     const struct stk_http1_limits *limits) STK_MUST_CHECK;
