/*
 * What a response may have besides its head and its body (response_more.c), for response.c.
 */
#pragma once

#include <stdbool.h>
#include <sys/uio.h>

#include "base/span.h"

/* The end of a chunked body with trailers, behind the bytes of a chunk or behind its end. */
struct iovec stk_trailer_iov(const stk_span *trailer, bool behind_data);
