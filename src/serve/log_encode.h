/*
 * What is done to a line of a log before it is written: `log-encoder` and `log-req-encoder`. A line
 * is encoded by several of them, one behind the other.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "base/span.h"

struct stk_log_encoder;

/*
 * NAME[:LOGGER][ ARGUMENT]: prefix, suffix, nl, format or json, for all loggers or the one of that
 * name. 0, or -EINVAL and a sentence in *ret_error, to be freed.
 */
int stk_log_encoder_new(struct stk_log_encoder **ret_encoder, const char *text, char **ret_error)
    STK_MUST_CHECK;
/* Accepts NULL; returns NULL. */
struct stk_log_encoder *stk_log_encoder_free(struct stk_log_encoder *encoder);
/* The logger that it is for; NULL: all of them. */
const char *stk_log_encoder_logger(const struct stk_log_encoder *encoder);
/*
 * Encodes a line (without its new line) at a moment, microseconds since 1970. Writes at most `size`
 * bytes to dst, which is not part of the line; the rest is cut. Returns the length.
 */
size_t stk_log_encode(const struct stk_log_encoder *encoder, stk_span line, int64_t micros,
                      char *dst, size_t size);
