/*
 * What a variable of a gateway protocol stands for, which its name alone decides. Private to
 * gateway.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/span.h"

enum {
    STK_GATEWAY_NAMES = 256, /* names that are kept, a power of two */
    STK_GATEWAY_NAMES_WAYS = 4,
    STK_GATEWAY_NAME_MAX = 48, /* bytes of a name that is kept */
};

enum stk_gateway_kind {
    STK_GATEWAY_DROP,  /* nobody sees it */
    STK_GATEWAY_FIELD, /* a field of the request */
    STK_GATEWAY_PLACE, /* it has a place in struct stk_gateway */
    STK_GATEWAY_KEEP,  /* it is for the application */
    STK_GATEWAY_MAGIC, /* uWSGI would load code by it */
    STK_GATEWAY_BAD,   /* it may not be */
};

/* All zero: of no name. */
struct stk_gateway_name {
    uint16_t len;       /* of the name that is kept; 0: none is */
    uint16_t place;     /* STK_GATEWAY_PLACE: offset of its span */
    uint16_t field_len; /* STK_GATEWAY_FIELD: of the field's name */
    uint8_t kind;       /* enum stk_gateway_kind */
    uint8_t known;      /* enum stk_head_known of the field */
    bool any;           /* a path: of any bytes */
    bool path;          /* it is left out if it is of other bytes than values have */
    bool shown;         /* the application gets it as well */
    uint32_t hash;      /* of the field's name */
    uint32_t turn;      /* the last packet that had it: heads refer to `field` */
    char name[STK_GATEWAY_NAME_MAX];
    char field[STK_GATEWAY_NAME_MAX]; /* the field's name */
};

/* Names that have been seen; all zero at first. */
struct stk_gateway_names {
    uint32_t turn; /* counts packets */
    struct stk_gateway_name kept[STK_GATEWAY_NAMES];
    struct stk_gateway_name host, content_type, content_length; /* fields of the server's making */
};

/* Looks a name up; `n` keeps no name then, nor the field's. */
void stk_gateway_name_look(struct stk_gateway_name *n, stk_span name);
/*
 * A name that is not kept: where it is kept from now on; NULL: it is too long, or its slots are
 * taken by others of this packet. `slot` is the first one.
 */
const struct stk_gateway_name *stk_gateway_name_keep(struct stk_gateway_names *names, unsigned slot,
                                                     stk_span name);
/* A field by its name of at most STK_GATEWAY_NAME_MAX bytes in lower case. */
void stk_gateway_name_set(struct stk_gateway_name *n, stk_span field);
/* Writes the field's name for HTTP_NAME: name.len - 5 bytes. */
void stk_gateway_name_lower(char *out, stk_span name);

/* The first of the slots for a name: by its length and its ends. */
static inline unsigned stk_gateway_name_slot(stk_span name)
{
    uint64_t a = 0, b = 0;

    if (name.len >= 8) {
        memcpy(&a, name.ptr, 8);
        memcpy(&b, name.ptr + name.len - 8, 8);
    } else if (name.len >= 4) {
        memcpy(&a, name.ptr, 4);
        memcpy(&b, name.ptr + name.len - 4, 4);
    }
    a = (a ^ (b << 29 | b >> 35) ^ name.len) * UINT64_C(0x9E3779B97F4A7C15);
    return (unsigned)(a >> 40) % STK_GATEWAY_NAMES & ~(STK_GATEWAY_NAMES_WAYS - 1u);
}

/* Whether this is the name that is kept. */
static inline bool stk_gateway_name_is(const struct stk_gateway_name *n, stk_span name)
{
    uint64_t a, b, c, d;

    if (n->len != name.len || name.len == 0)
        return false;
    if (name.len < 8 || name.len > 16)
        return memcmp(n->name, name.ptr, name.len) == 0;
    memcpy(&a, n->name, 8);
    memcpy(&b, name.ptr, 8);
    memcpy(&c, n->name + name.len - 8, 8);
    memcpy(&d, name.ptr + name.len - 8, 8);
    return ((a ^ b) | (c ^ d)) == 0;
}

/* What a name stands for, if it is kept or can be; else NULL. */
static inline const struct stk_gateway_name *stk_gateway_name_get(struct stk_gateway_names *names,
                                                                  stk_span name)
{
    unsigned slot = stk_gateway_name_slot(name);

    for (unsigned i = 0; i < STK_GATEWAY_NAMES_WAYS; i++) {
        struct stk_gateway_name *n = &names->kept[slot + i];

        if (stk_gateway_name_is(n, name)) {
            n->turn = names->turn;
            return n;
        }
    }
    return stk_gateway_name_keep(names, slot, name);
}
