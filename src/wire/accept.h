/* Accept-Encoding (RFC 9110 section 12.5.3): which content codings a client takes. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

enum stk_coding {
    STK_CODING_IDENTITY,
    STK_CODING_GZIP,
    STK_CODING_BR,
    STK_CODING_ZSTD,
    STK_CODINGS,
};

enum { STK_ACCEPT_MAX = 1000 }; /* the quality 1, in thousandths */

struct stk_accept {
    bool present;           /* there was such a field */
    int16_t q[STK_CODINGS]; /* thousandths; -1: not named */
    int16_t any;            /* of "*" */
};

/* As without the field. */
void stk_accept_init(struct stk_accept *accept);
/* Adds one field's value; several fields are one list. Members that are malformed do not count. */
void stk_accept_add(struct stk_accept *accept, stk_span value);
/*
 * How much the client likes a coding, from 1 to STK_ACCEPT_MAX; 0: it does not take it. Without the
 * field only the identity is taken: a client that says nothing may not know any coding. With it, an
 * identity that is not named is worth least, but is taken unless "identity;q=0" or "*;q=0" forbids
 * it.
 */
unsigned stk_accept_quality(const struct stk_accept *accept, enum stk_coding coding);
/* "gzip", "br", "zstd"; "identity". */
stk_span stk_coding_name(enum stk_coding coding);
