/*
 * One way to drive the compressors of zlib, libbrotlienc and libzstd: bytes in, coded bytes out to
 * a buffer of the caller's, with flushes. An encoder is made once and serves one body after the
 * other.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "wire/accept.h"

struct stk_encoder;

enum stk_encoder_op {
    STK_ENCODER_RUN,   /* as much may stay inside as makes the result small */
    STK_ENCODER_FLUSH, /* what was given so far can be decoded from what has come out */
    STK_ENCODER_END,   /* and the coded body is complete */
};

/* Whether this build has the library of a coding; false of IDENTITY. */
bool stk_encoder_has(enum stk_coding coding);
/* The levels of a coding: lowest, highest and the one that is taken if none is given. */
void stk_encoder_levels(enum stk_coding coding, int *ret_min, int *ret_max, int *ret_def);

enum { STK_ENCODER_ROOM = 64 }; /* a buffer with less room counts as full */

/* An encoder of a coding that is there; NULL without memory. */
struct stk_encoder *stk_encoder_new(enum stk_coding coding, int level) STK_MUST_CHECK;
/* Accepts NULL; returns NULL. */
struct stk_encoder *stk_encoder_free(struct stk_encoder *e);
/*
 * Begins a body, and forgets one that was not ended. `size`: that of the body, or -1. 0, or -ENOMEM
 * and the encoder is of no use until the next begin.
 */
int stk_encoder_begin(struct stk_encoder *e, int64_t size) STK_MUST_CHECK;
/*
 * Codes bytes into out[*out_len .. cap) and moves *data and *len past what was taken. 0: all was
 * taken, and what `op` asks for is done; 1: the buffer is full: make room, and call again with the
 * rest and the same op; -EIO, -ENOMEM: the library has given up.
 */
int stk_encoder_run(struct stk_encoder *e, const char **data, size_t *len, enum stk_encoder_op op,
                    char *out, size_t cap, size_t *out_len) STK_MUST_CHECK;
/* Whether bytes are inside that have not come out. */
bool stk_encoder_is_dirty(const struct stk_encoder *e);
