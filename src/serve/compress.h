/*
 * Compression of what the application answers: what the options say, which responses it is for, and
 * the encoders that responses take and give back.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/macros.h"
#include "serve/encoder.h"
#include "serve/request.h"

struct stk_compress;
struct stk_config;
struct stk_loop;
struct stk_server;

enum {
    STK_CODER_BUFFER = 64 * 1024, /* coded bytes that leave together */
    STK_COMPRESS_HEAD_MAX = 96,   /* bytes that a head grows by, at most */
    STK_COMPRESS_ERROR_MAX = 256,
};

/* An encoder in use by one response. */
struct stk_coder {
    struct stk_list link; /* while nobody uses it */
    struct stk_encoder *encoder;
    enum stk_coding coding;
    stk_msec since; /* nobody has used it since; of the coarse clock */
    char *file_buf; /* blocks of a file; made when there is one */

    /* Of the response. */
    size_t len;        /* coded bytes in buf that have not left */
    uint64_t in, out;  /* body bytes taken, coded bytes that have left */
    uint64_t left;     /* of the application's Content-Length, with has_left */
    uint64_t consumed; /* of the write that is under way */
    enum stk_encoder_op op;
    bool has_left;
    bool under_way; /* a write has not been completed: it comes again, the same */
    bool coded;     /* all of it is in buf, or has left */
    bool finished;  /* and what the op wants sent has been */
    bool file;      /* it is one of a file: nobody waits for its blocks */
    bool each;      /* every block leaves at once */
    bool chunked;   /* how it is framed, once the head has left */
    char buf[STK_CODER_BUFFER];
};

/*
 * Reads the options. *ret_compress is NULL where compress is off. 0; or 1 and `error` says which
 * option is wrong and what to do; or a negative errno. `loop` may be NULL for a mere check.
 */
int stk_compress_new(struct stk_compress **ret_compress, const struct stk_config *config,
                     struct stk_loop *loop, char error[STK_COMPRESS_ERROR_MAX]) STK_MUST_CHECK;
/* By the owner of the loop. Accepts NULL; returns NULL. */
struct stk_compress *stk_compress_free(struct stk_compress *c);

/*
 * Looks at the complete head of a response, whose body has *length bytes (-1: not known), and
 * changes it: Vary where the body could be compressed; and where it will be, Content-Encoding, with
 * Content-Length and Accept-Ranges gone and the ETag weak. rq->coder is set then, but for HEAD,
 * where *length becomes -1.
 */
void stk_compress_head(struct stk_compress *c, struct stk_serve_request *rq, int64_t *length);
/* Gives rq->coder back, and counts what it did. Nothing if there is none. */
void stk_compress_release(struct stk_serve_request *rq);

/* encode.c: as stk_response_write and stk_response_sendfile, of a request with a coder. */
int stk_encode_write(struct stk_serve_request *rq, const char *data, size_t len, unsigned flags);
int stk_encode_file(struct stk_serve_request *rq, int fd, int64_t off, uint64_t len,
                    unsigned flags);
/* The application has failed: what it has given is sent, without an end. */
void stk_encode_fail(struct stk_serve_request *rq);
/*
 * By the stand-by, with the gather mutex held: sends what has been gathered inside the encoder. 0,
 * with the bytes added to *sent; or as stk_conn_send.
 */
int stk_encode_gathered(struct stk_serve_thread *t, uint64_t *sent) STK_MUST_CHECK;
