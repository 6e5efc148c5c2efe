/*
 * Conditional requests (RFC 9110 section 13), and the fields by which a client chooses among
 * representations and parts of one. For GET and HEAD.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "wire/accept.h"
#include "wire/head.h"

/* X(id, "lower-case name") */
#define STK_CONDITION_FIELDS(X)               \
    X(ACCEPT_ENCODING, "accept-encoding")     \
    X(RANGE, "range")                         \
    X(IF_RANGE, "if-range")                   \
    X(IF_MATCH, "if-match")                   \
    X(IF_NONE_MATCH, "if-none-match")         \
    X(IF_MODIFIED_SINCE, "if-modified-since") \
    X(IF_UNMODIFIED_SINCE, "if-unmodified-since")

enum stk_condition_field {
#define X(id, name) STK_CONDITION_##id,
    STK_CONDITION_FIELDS(X)
#undef X
        STK_CONDITION_FIELD_COUNT
};

/* Where a head has these fields. */
struct stk_conditions {
    const struct stk_head *head;
    uint8_t any;  /* one bit a field: it is there */
    uint8_t many; /* it is there several times */
    uint16_t first[STK_CONDITION_FIELD_COUNT];
};

enum stk_condition_result {
    STK_CONDITION_SEND,         /* 200, or 206 */
    STK_CONDITION_NOT_MODIFIED, /* 304 */
    STK_CONDITION_FAILED,       /* 412 */
};

/* What the conditions are about. */
struct stk_validators {
    stk_span etag;    /* with its quotes, and W/ if it is weak; empty: none */
    int64_t modified; /* seconds since 1970; -1: none */
};

/* Finds the fields; `head` has to stay as it is. */
void stk_conditions_find(struct stk_conditions *ret_conditions, const struct stk_head *head);
/* Whether there is anything but Accept-Encoding. */
static inline bool stk_conditions_are_set(const struct stk_conditions *c)
{
    return (c->any & ~(1u << STK_CONDITION_ACCEPT_ENCODING)) != 0;
}
/* Accept-Encoding, all of its fields. */
void stk_conditions_accept(const struct stk_conditions *c, struct stk_accept *ret_accept);
/* The preconditions in the order of RFC 9110 13.2.2, without If-Range. */
enum stk_condition_result stk_conditions_check(const struct stk_conditions *c,
                                               const struct stk_validators *validators);
/*
 * The value of Range, if it counts: for GET only, when there is one such field and If-Range agrees;
 * else of length 0. `now` (seconds since 1970) tells whether a date is old enough to be a strong
 * validator.
 */
stk_span stk_conditions_range(const struct stk_conditions *c,
                              const struct stk_validators *validators, int64_t now);

/*
 * Whether a list of entity-tags, or "*", has this one: by strong comparison, or by weak
 * (RFC 9110 8.8.3.2). A list with a mistake in it has what stands before that.
 */
bool stk_etag_list_has(stk_span list, stk_span etag, bool weak);
