/* What the compiler of formats (access_format.c) makes for the writer of lines (access_line.c). */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/span.h"
#include "serve/access_format.h"

enum access_field {
    ACCESS_NONE, /* no value: the text at the end of a line */
#define X(id, name, kind, help) ACCESS_##id,
    STK_ACCESS_FIELDS(X)
#undef X
#define X(id, prefix, kind, help) ACCESS_##id,
        STK_ACCESS_FAMILIES(X)
#undef X
};

enum access_kind {
    ACCESS_KIND_NONE,
    ACCESS_KIND_STRING,
    ACCESS_KIND_NUMBER,
    ACCESS_KIND_SECONDS,
    ACCESS_KIND_CLF,
    ACCESS_KIND_ISO,
    ACCESS_KIND_REQUEST,
    ACCESS_KIND_TEXT,  /* of access_more.c: a text */
    ACCESS_KIND_COUNT, /* likewise: a number */
};

struct access_op {
    stk_span text; /* stands before the value */
    uint8_t field; /* enum access_field */
    uint8_t kind;  /* enum access_kind */
    uint8_t known; /* enum stk_head_known of a header */
    uint8_t style; /* enum stk_access_style, where the line is no JSON of ours */
    uint8_t run;   /* operations from here on that make the same of requests that are alike; 0: not
                      even this one (struct stk_access_memo) */
    uint16_t reserve;
    uint32_t hash;
    stk_span name; /* the parameter of a field of a family */
};

enum {
    ACCESS_PARAMETER_MAX = 256,
    ACCESS_SLACK = 16, /* so much may be copied where less is meant */
    ACCESS_TIME_WORDS = 4,
    ACCESS_CLF_LEN = 26,  /* 23/Nov/2026:03:10:00 +0100 */
    ACCESS_DATE_LEN = 19, /* 2026-11-23T03:10:00 */
    ACCESS_ZONE_LEN = 6,  /* +01:00 */
};

/* The texts of one second. */
struct access_time {
    uint64_t clf[ACCESS_TIME_WORDS];
    uint64_t iso[ACCESS_TIME_WORDS]; /* date and zone */
};

struct stk_access_format {
    struct access_op *ops;
    size_t nops;
    size_t least; /* bytes that are kept free for all values: a line with as much room is not cut */
    char *pool;   /* the bytes of all texts, and ACCESS_SLACK more */
    size_t pool_len;
    char *source; /* the parameters of fields point into it */
    bool json;
    bool object; /* a template that begins and ends as an object of JSON */
    bool fine;
    bool counts;               /* it has a field that is a matter of the response head */
    struct stk_server *server; /* or NULL */
    unsigned worker;
    pid_t pid;

    /* The texts of the last second that was asked for; a sequence lock (odd: being written). */
    _Atomic uint32_t sequence;
    _Atomic int64_t second;
    _Atomic uint64_t clf[ACCESS_TIME_WORDS];
    _Atomic uint64_t iso[ACCESS_TIME_WORDS];

    /* Memory of the process, as it was in that second. */
    _Atomic int64_t memory_second;
    _Atomic uint64_t rss, vsz;
};

/* access_more.c: the value of an operation of the kinds TEXT and COUNT, written at p. */
char *stk_access_more(struct stk_access_format *f, const struct access_op *op,
                      const struct stk_access_entry *entry, stk_nsec now, char *p, char *limit);
