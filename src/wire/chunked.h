/* The chunked transfer coding (RFC 9112 section 7.1), decoding. Pure and incremental. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "base/span.h"

enum stk_chunked_result {
    STK_CHUNKED_DATA,    /* *ret_data is a piece of the body */
    STK_CHUNKED_PARTIAL, /* all input consumed, more is needed */
    STK_CHUNKED_END,     /* the last chunk and the trailers are behind */
    STK_CHUNKED_E_SIZE,  /* chunk size: malformed, signed, or over 2^60 */
    STK_CHUNKED_E_LINE_END,
    STK_CHUNKED_E_EXTENSION, /* an extension over 256 bytes on one chunk, 16 KiB in all, or
                                malformed */
    STK_CHUNKED_E_TRAILER, /* a malformed trailer, over 8 KiB, or over 32 of them; they are dropped
                            */
};

struct stk_chunked {
    uint64_t left;     /* data bytes left of the current chunk */
    uint32_t line;     /* bytes of the current line so far */
    uint32_t overhead; /* bytes of extensions in all */
    uint32_t trailer;  /* bytes of trailers in all */
    uint16_t trailers;
    uint8_t state;
};

void stk_chunked_init(struct stk_chunked *c);
/*
 * Decodes from buf[0..len). *ret_consumed says how many bytes are done with, data bytes of
 * *ret_data included (a span into buf). Call again with the rest until PARTIAL, END or an error.
 */
enum stk_chunked_result stk_chunked_decode(struct stk_chunked *c, const char *buf, size_t len,
                                           size_t *ret_consumed, stk_span *ret_data);
/* What went wrong, for the log. */
const char *stk_chunked_error_text(enum stk_chunked_result error);
