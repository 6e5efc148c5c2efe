/*
 * What environ.c and environ_shape.c share: the state behind stk_environ, and what a dict holds of
 * the request it was last brought up to date with.
 */
#pragma once

#include "pyhost/environ.h"
#include "pyhost/strings.h"

enum {
    STK_ENVIRON_SHAPES = 8,  /* a template */
    STK_ENVIRON_FIELDS = 40, /* fields and variables of a shape */
    STK_ENVIRON_NAMES = 768, /* bytes of all names of a shape */
    STK_ENVIRON_VALUE_MAX = 1024,
};

/* A dict and what is in it (borrowed from it). */
struct stk_environ_image {
    PyObject *dict; /* NULL: there is none */
    PyObject *method;
    PyObject *script_name;
    PyObject *uri; /* decides PATH_INFO and QUERY_STRING as well, unless the path is apart */
    PyObject *query;
    PyObject *path; /* PATH_INFO of a path that is apart from its target, or NULL */
    PyObject *addr;
    uint16_t port; /* 0: there is no REMOTE_PORT, nor will be */
    uint8_t version_minor;
    uint64_t serial;                      /* of the head that it is up to date with, or 0 */
    PyObject *values[STK_ENVIRON_FIELDS]; /* of the shape's fields and variables */
};

/* Requests with the same names of fields, and then of variables, in the same order. */
struct stk_environ_shape {
    uint32_t hash; /* of the names; 0: free */
    uint32_t hits;
    uint64_t number; /* no other shape of the template ever has it */
    uint16_t nfields, nvars;
    uint16_t name_len[STK_ENVIRON_FIELDS];
    char names[STK_ENVIRON_NAMES];
    PyObject *keys[STK_ENVIRON_FIELDS];
    struct stk_environ_image
        kept; /* is copied; without a dict: this shape has to go the long way */
    struct stk_environ_image lent; /* is handed out, and again if it comes back as it was */
    uint64_t lent_version;
    unsigned spoiled; /* loans in a row that did not come back so */
    unsigned turns;   /* requests since */
};

/* What all requests of an endpoint, a scheme and a kind of peer share. */
struct stk_environ_template {
    struct stk_environ_image base; /* without fields */
    struct stk_environ_shape *shapes;
    struct stk_environ_shape *last; /* of the head with last_serial */
    uint64_t last_serial;
    uint32_t seen[STK_ENVIRON_SHAPES]; /* hashes of shapes that there is no room for yet */
    unsigned nseen;
    uint64_t numbers; /* of shapes, given so far */
};

/* A key for the name of a variable: a new reference, or NULL with an exception. */
PyObject *stk_environ_var_key(struct stk_environ *env, stk_span name);
/* A key for a field name: a new reference. NULL without exception: the field must not be shown. */
PyObject *stk_environ_key(struct stk_environ *env, uint32_t hash, stk_span name);
/* Brings what does not depend on fields up to date; for an endpoint's base and its shapes alike. */
int stk_environ_update(struct stk_environ *env, struct stk_environ_image *image,
                       const struct stk_request *req);

/*
 * environ_shape.c: an environ that has all fields, or NULL with or without an exception: there is
 * no shape for this head. With `lend` it may be one that an earlier request has had.
 */
PyObject *stk_environ_shape_build(struct stk_environ *env, struct stk_environ_template *t,
                                  const struct stk_request *req, bool lend,
                                  struct stk_environ_shape **ret_lender);
void stk_environ_shapes_free(struct stk_environ_template *t);
