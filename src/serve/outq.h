/*
 * Output that the socket did not take: in memory up to a limit, beyond it in an unlinked temporary
 * file; and pieces of files to be sent by sendfile(2). Filled by the thread that runs the request,
 * drained by whichever thread has the socket ready: a mutex guards it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/macros.h"
#include "base/span.h"

enum { STK_OUTQ_DISK = 2 };

struct stk_outq;
struct stk_tls;

struct stk_outq_limits {
    uint64_t memory; /* bytes held in memory */
    uint64_t file;   /* bytes held in the temporary file; beyond: -EAGAIN. 0: no file */
    const char *tmpdir;
    bool beyond; /* takes what is beyond them, too: the few bytes that end a response */
};

/* An empty queue; NULL without memory. */
struct stk_outq *stk_outq_new(void) STK_MUST_CHECK;
struct stk_outq *stk_outq_free(struct stk_outq *q);
/*
 * Appends bytes, skipping the first `skip`. 0; -EAGAIN: full, nothing taken; -ENOMEM; -EIO ... An
 * empty queue takes everything, so that what a socket has begun to send can always be ended.
 */
int stk_outq_append(struct stk_outq *q, const struct iovec *iov, int iovcnt, size_t skip,
                    const struct stk_outq_limits *limits) STK_MUST_CHECK;
/*
 * Appends a piece of a file, and some bytes behind it; the descriptor is duplicated. With an id
 * other than 0 the piece goes out as STDOUT records of that FastCGI request.
 */
int stk_outq_append_file(struct stk_outq *q, int fd, int64_t off, uint64_t len, stk_span tail,
                         uint16_t id) STK_MUST_CHECK;
/*
 * Sends what the socket takes, but only some MiB, so that other connections get their turn; by way
 * of a TLS session where there is one, whose own output leaves first. 0: empty now; 1: bytes are
 * left (*ret_sent: progress was made); STK_OUTQ_DISK: and those come next that a disk has to be
 * waited for; -EPIPE or another negative errno: nothing more can be sent.
 */
int stk_outq_drain(struct stk_outq *q, int sock, struct stk_tls *tls, bool *ret_sent)
    STK_MUST_CHECK;
bool stk_outq_is_empty(struct stk_outq *q);
/* Bytes that are queued. */
uint64_t stk_outq_size(struct stk_outq *q);
