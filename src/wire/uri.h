/* Request targets: percent-decoding and the syntax of hosts (RFC 3986 2.1, 3.2.2; RFC 9110 7.2). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

/*
 * Decodes %XX of `src` into dst, which has room for src.len bytes; dst may be src.ptr. A "%"
 * without two hexadecimal digits stays as it is. Returns the decoded length. (%2F becomes "/", as
 * WSGI's PATH_INFO wants.)
 */
size_t stk_uri_unescape(char *dst, stk_span src);
/* Whether all "%" are followed by two hexadecimal digits. */
bool stk_uri_escapes_are_valid(stk_span src);
/*
 * host [":" port]: a reg-name, IPv4 or [IPv6]; an empty host is not valid. *ret_host, *ret_port
 * (may be NULL) get the parts, brackets included; a port may be empty, or without a colon, and is
 * at most 65535.
 */
bool stk_uri_split_host(stk_span hostport, stk_span *ret_host, stk_span *ret_port);
