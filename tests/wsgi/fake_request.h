/*
 * The request services (app/request.h) without a server: a body that comes in given pieces, and a
 * response rendered into a buffer as serve/ would, with every call noted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/host.h"
#include "app/request.h"

enum { FAKE_PIECES_MAX = 64, FAKE_OUT_SIZE = 512 * 1024, FAKE_WRITES_MAX = 4096 };

struct fake_write {
    size_t len;
    unsigned flags;
    bool file;
};

struct fake_request {
    struct stk_request base; /* first */
    struct stk_head head;

    /* The body: pieces with an -EAGAIN before each but the first, then the error or the end. */
    stk_span pieces[FAKE_PIECES_MAX];
    size_t npieces;
    size_t piece;
    size_t offset; /* in the piece */
    bool stalled;  /* the -EAGAIN before this piece has been given */
    int body_error;
    void *host_buffer; /* the one piece, in the host's memory */

    /* How the client behaves. */
    bool slow_reader; /* each write is refused once with -EAGAIN */
    int gone_after;   /* writes until the client leaves; -1: it does not */
    bool refused;

    /* The response. */
    char *out;
    size_t out_len;
    size_t head_len;
    struct fake_write *writes; /* FAKE_WRITES_MAX, or NULL: not noted */
    size_t nwrites;
    int64_t length; /* of Content-Length; -1: none */
    uint64_t body;  /* bytes of the body so far */
    unsigned waits;
    bool started, committed, ended, failed;
};

extern const struct stk_request_ops fake_request_ops;
