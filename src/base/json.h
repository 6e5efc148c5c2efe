/*
 * JSON (RFC 8259): a writer into a growing buffer, and a reader of one flat object, which is all
 * that the control socket takes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "base/span.h"

/* --- writing --------------------------------------------------------------------------------- */

#define STK_JSON_DEPTH 32 /* of nested objects and arrays */

/*
 * A document while it is written; zeroed is empty and ready. Commas are put by itself. When memory
 * runs out the rest is dropped and stk_json_end tells; nothing has to be checked before.
 */
struct stk_json {
    char *text;
    size_t len;
    size_t size;
    unsigned depth;
    uint64_t filled; /* a bit for each level: something is in it */
    bool named;      /* a name was written, its value comes */
    bool failed;     /* there was no memory */
};

/* Frees the buffer; the writer is empty again. */
void stk_json_deinit(struct stk_json *j);
/*
 * Ends the document: all that was begun must have been ended. *ret_text (free it) ends with a NUL,
 * which *ret_len does not count; the writer is empty again. 0 or -ENOMEM.
 */
int stk_json_end(struct stk_json *j, char **ret_text, size_t *ret_len) STK_MUST_CHECK;

void stk_json_object_begin(struct stk_json *j);
void stk_json_object_end(struct stk_json *j);
void stk_json_array_begin(struct stk_json *j);
void stk_json_array_end(struct stk_json *j);

/* The name of the next value of an object. */
void stk_json_name(struct stk_json *j, const char *name);

/* Values. What is not UTF-8 becomes U+FFFD, so that every reader takes the document. */
void stk_json_bytes(struct stk_json *j, const char *text, size_t len);
/* The same of a C string; NULL is null. */
void stk_json_string(struct stk_json *j, const char *text);
void stk_json_uint(struct stk_json *j, uint64_t value);
void stk_json_int(struct stk_json *j, int64_t value);
/* value / 10^decimals in decimal notation, exact and whatever the locale: (1250, 3) is 1.250. */
void stk_json_fixed(struct stk_json *j, int64_t value, unsigned decimals);
void stk_json_bool(struct stk_json *j, bool value);
void stk_json_null(struct stk_json *j);
/* A value that is JSON already. */
void stk_json_raw(struct stk_json *j, const char *text, size_t len);

/* A name with its value. */
static inline void stk_json_put_string(struct stk_json *j, const char *name, const char *text)
{
    stk_json_name(j, name);
    stk_json_string(j, text);
}

static inline void stk_json_put_uint(struct stk_json *j, const char *name, uint64_t value)
{
    stk_json_name(j, name);
    stk_json_uint(j, value);
}

static inline void stk_json_put_int(struct stk_json *j, const char *name, int64_t value)
{
    stk_json_name(j, name);
    stk_json_int(j, value);
}

static inline void stk_json_put_fixed(struct stk_json *j, const char *name, int64_t value,
                                      unsigned decimals)
{
    stk_json_name(j, name);
    stk_json_fixed(j, value, decimals);
}

static inline void stk_json_put_bool(struct stk_json *j, const char *name, bool value)
{
    stk_json_name(j, name);
    stk_json_bool(j, value);
}

/* --- reading --------------------------------------------------------------------------------- */

enum stk_json_kind {
    STK_JSON_NULL,
    STK_JSON_BOOL,
    STK_JSON_INTEGER, /* a number without fraction and exponent that fits */
    STK_JSON_NUMBER,  /* any other */
    STK_JSON_STRING,
};

struct stk_json_field {
    stk_span name;
    enum stk_json_kind kind;
    bool boolean;
    int64_t integer; /* of STK_JSON_INTEGER */
    stk_span text;   /* of STK_JSON_STRING; of both kinds of numbers as they were written */
};

/* Positive results of stk_json_read_object. */
enum stk_json_error {
    STK_JSON_E_SYNTAX = 1, /* not one JSON object and nothing else */
    STK_JSON_E_NESTED,     /* a value is an object or an array */
    STK_JSON_E_FIELDS,     /* more fields than asked for */
    STK_JSON_E_TWICE,      /* a name is there twice */
    STK_JSON_E_TEXT,       /* a string with a bad escape, a control character, NUL or no UTF-8 */
    STK_JSON_E_NUMBER,     /* a number that is none, or has over 64 characters */
};

/*
 * Reads one object whose values are strings, numbers, booleans or null: `text`, of `len` bytes,
 * with nothing but blanks around it. Strings are decoded in place and end with a NUL there, so the
 * text is changed (also on failure) and has to live as long as the fields. At most `max` fields.
 * 0 or STK_JSON_E_*.
 */
int stk_json_read_object(char *text, size_t len, struct stk_json_field *fields, size_t max,
                         size_t *ret_n) STK_MUST_CHECK;
/* The end of a sentence that begins with what was read: "is not a JSON object". */
const char *stk_json_error_text(int error);
/* The field of a name, or NULL. */
const struct stk_json_field *stk_json_find(const struct stk_json_field *fields, size_t n,
                                           const char *name);
