/*
 * FastCGI 1.0, the side of the application, in the role of a responder: records in, request heads
 * and body bytes out. Pure: no I/O, no allocation. Requests are not multiplexed: a second one while
 * one is being received is refused (CANT_MPX_CONN), as the protocol lets an application say.
 *
 * Records that are no part of a request (management, other requests) may come anywhere between
 * those of it. Those that ask for an answer get it in a struct stk_fastcgi_replies, which the
 * caller sends; all others are dropped, as the specification says (3.3).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "base/span.h"

enum {
    STK_FASTCGI_HEADER = 8,          /* bytes of a record's header */
    STK_FASTCGI_CONTENT_MAX = 65535, /* bytes of its content */
    STK_FASTCGI_RECORD_MAX = 8 + 65535 + 255,
    STK_FASTCGI_HEAD_MAX = 64000, /* of a request's records up to the end of PARAMS, joined */
    STK_FASTCGI_END = 24,         /* the end of a response: an empty STDOUT, END_REQUEST */
    STK_FASTCGI_REPLIES_MAX = 512,
    STK_FASTCGI_VALUES_MAX = 256, /* of a GET_VALUES record inside of a body: no more is read */
};

enum stk_fastcgi_type {
    STK_FASTCGI_BEGIN_REQUEST = 1,
    STK_FASTCGI_ABORT_REQUEST,
    STK_FASTCGI_END_REQUEST,
    STK_FASTCGI_PARAMS,
    STK_FASTCGI_STDIN,
    STK_FASTCGI_STDOUT,
    STK_FASTCGI_STDERR,
    STK_FASTCGI_DATA,
    STK_FASTCGI_GET_VALUES,
    STK_FASTCGI_GET_VALUES_RESULT,
    STK_FASTCGI_UNKNOWN_TYPE,
};

/* Errors: X(id, HTTP status to answer with, text for the log and the answer). */
#define STK_FASTCGI_ERRORS(X)                                                   \
    X(VERSION, 400, "not a FastCGI record of version 1")                        \
    X(BEGIN, 400, "malformed FastCGI BEGIN_REQUEST record")                     \
    X(ORDER, 400, "a FastCGI record of the request where it does not belong")   \
    X(PAIR, 400, "malformed FastCGI name-value pair")                           \
    X(HEAD_TOO_LARGE, 431, "the variables of the FastCGI request are too many") \
    X(OTHERS, 400, "too many FastCGI records of other requests in a body")      \
    X(BODY_SHORT, 400, "the request body is shorter than CONTENT_LENGTH")       \
    X(BODY_LONG, 400, "the request body is longer than CONTENT_LENGTH")

enum stk_fastcgi_result {
    STK_FASTCGI_OK,      /* the head, or the body, is whole */
    STK_FASTCGI_PARTIAL, /* no error so far, more bytes are needed */
    STK_FASTCGI_PIECE,   /* a piece of the body */
    STK_FASTCGI_REPLY,   /* send the replies, empty them, and call again */
    STK_FASTCGI_CLOSE,   /* send the replies, then close: a refused request wanted it so */
    STK_FASTCGI_ABORTED, /* ABORT_REQUEST: the front end wants no answer any more */
#define X(id, status, text) STK_FASTCGI_E_##id,
    STK_FASTCGI_ERRORS(X)
#undef X
        STK_FASTCGI_RESULT_COUNT
};

/* Answers to records that are no part of the request. */
struct stk_fastcgi_replies {
    uint32_t max_conns, max_reqs; /* what GET_VALUES is told; set by the caller */
    uint32_t len;
    char bytes[STK_FASTCGI_REPLIES_MAX];
};

/* A request up to the end of its PARAMS. */
struct stk_fastcgi_head {
    uint32_t len;  /* bytes of its records */
    uint16_t id;   /* not 0; 0: none has begun */
    bool keep;     /* FCGI_KEEP_CONN */
    stk_span vars; /* the pairs, for stk_fastcgi_pair */
};

/*
 * Reads the head of a request at buf[*off..len). *off moves behind what was dealt with; on
 * STK_FASTCGI_OK the head is at buf[*off..*off + ret_head->len). The PARAMS records of a request
 * are joined to one within the buffer, and records of others removed between them: so the bytes
 * from *off on are always what a client could have sent, and may be given again, with more behind
 * them. `len` has to be at least STK_FASTCGI_HEAD_MAX + STK_FASTCGI_RECORD_MAX before PARTIAL is
 * not to be answered with more bytes. OK, PARTIAL, REPLY, CLOSE, or an error; ret_head->id is set
 * in each case (where it is not 0, the error can be answered as a response).
 */
enum stk_fastcgi_result stk_fastcgi_head(char *buf, size_t len, size_t *off,
                                         struct stk_fastcgi_head *ret_head,
                                         struct stk_fastcgi_replies *replies);

/*
 * Takes the next pair off the front of *vars, which is not empty. OK, or E_PAIR: a length reaches
 * beyond the end.
 */
enum stk_fastcgi_result stk_fastcgi_pair(stk_span *vars, stk_span *ret_name, stk_span *ret_value);

/*
 * The body of request `id`, if all of it lies at the start of buf and nothing but it: OK, and
 * *ret_used bytes of records had the body *ret_body, whose pieces are joined within buf if there
 * are several and `join` (without it only the length of *ret_body is right). PARTIAL otherwise:
 * decode it.
 */
enum stk_fastcgi_result stk_fastcgi_whole(char *buf, size_t len, uint16_t id, bool join,
                                          stk_span *ret_body, size_t *ret_used);

/* A body that comes in pieces. */
struct stk_fastcgi_body {
    uint16_t id;
    uint16_t left; /* content bytes left of the record */
    uint8_t padding;
    uint8_t have; /* bytes of header[] */
    uint8_t what; /* what the content is */
    bool ended;
    unsigned char header[STK_FASTCGI_HEADER];
    uint16_t nvalues;
    char values[STK_FASTCGI_VALUES_MAX];
    struct stk_fastcgi_replies replies; /* to be sent, and emptied, by the caller */
};

void stk_fastcgi_body_init(struct stk_fastcgi_body *b, uint16_t id);
/*
 * Decodes STDIN records from buf[0..len). *ret_consumed says how many bytes are done with, those of
 * *ret_data included (a span into buf, not empty, with PIECE). Call again with the rest until
 * PARTIAL, OK (the end), ABORTED or an error.
 */
enum stk_fastcgi_result stk_fastcgi_body_decode(struct stk_fastcgi_body *b, const char *buf,
                                                size_t len, size_t *ret_consumed,
                                                stk_span *ret_data);

/* Whether the bytes so far end with a record. */
static inline bool stk_fastcgi_body_is_between(const struct stk_fastcgi_body *b)
{
    return b->have == 0;
}

/* Writes a record header; `content` is at most STK_FASTCGI_CONTENT_MAX. */
static inline void stk_fastcgi_put_header(char *p, enum stk_fastcgi_type type, uint16_t id,
                                          size_t content)
{
    p[0] = 1;
    p[1] = (char)type;
    p[2] = (char)(id >> 8);
    p[3] = (char)id;
    p[4] = (char)(content >> 8);
    p[5] = (char)content;
    p[6] = 0; /* padding: no front end reads aligned, and each byte is one more to send */
    p[7] = 0;
}

/* Writes the STK_FASTCGI_END bytes that end a response. */
void stk_fastcgi_put_end(char *p, uint16_t id);

/* The HTTP status with which an error is answered. */
unsigned stk_fastcgi_error_status(enum stk_fastcgi_result error);
/* A short lower-case text that says what was wrong. */
const char *stk_fastcgi_error_text(enum stk_fastcgi_result error);
/* Whether the bytes, of which there is at least one, can be the start of a record. */
static inline bool stk_fastcgi_is_record(const char *buf)
{
    return buf[0] == 1;
}
