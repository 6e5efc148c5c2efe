/*
 * A request body that did not lie whole behind its head: gathered in memory, beyond a limit in an
 * unlinked temporary file, or (stream mode) received while the application reads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "app/request.h"
#include "base/macros.h"
#include "base/time.h"

struct stk_body;
struct stk_conn;
struct stk_fastcgi_replies;
struct stk_serve_thread;
struct stk_server;

enum stk_body_result {
    STK_BODY_PARTIAL,
    STK_BODY_COMPLETE,
};

/*
 * An empty body for a head that announces one. `host_memory`: the calling thread may allocate from
 * the host; `streams`: it is read as it comes (stream mode). NULL without memory.
 */
struct stk_body *stk_body_new(struct stk_conn *conn, const struct stk_head *head, bool host_memory,
                              bool streams) STK_MUST_CHECK;
struct stk_body *stk_body_free(struct stk_body *body);

/*
 * Takes body bytes. STK_BODY_*; *ret_consumed says how many belong to the body (fewer than len only
 * on COMPLETE). Errors: -EPROTO malformed chunk or record, -EFBIG over limit-request-body, -ENOMEM,
 * -EIO, -ENOSPC ...
 */
int stk_body_feed(struct stk_body *body, const char *data, size_t len, size_t *ret_consumed)
    STK_MUST_CHECK;
/*
 * Receives what the socket has, by way of buf[0..cap) where it has to be decoded or stored.
 * STK_BODY_*; on COMPLETE bytes beyond the body lie at buf[0..*ret_rest). -ECONNRESET when the
 * client is gone or has ended early, or the errors of stk_body_feed.
 */
int stk_body_recv(struct stk_body *body, struct stk_conn *conn, char *buf, size_t cap,
                  size_t *ret_rest) STK_MUST_CHECK;
/* Bytes that stk_body_recv has taken from the socket since the last call. */
uint64_t stk_body_take_fresh(struct stk_body *body);
bool stk_body_is_complete(const struct stk_body *body);
/* Whether what follows on the connection is no part of it: it is complete, or all but the record
 * that says so, which is dropped when it comes. */
bool stk_body_is_over(const struct stk_body *body);
bool stk_body_is_chunked(const struct stk_body *body);
/* Whether it is complete because the front end has taken the request back (FastCGI). */
bool stk_body_was_aborted(const struct stk_body *body);
/* Answers to FastCGI records of others among its own, to be sent and emptied; NULL: there are none.
 */
struct stk_fastcgi_replies *stk_body_replies(struct stk_body *body);
/* Whether it is complete, in memory, and of at most so many bytes. */
bool stk_body_is_small(const struct stk_body *body, size_t most);
/* The text of the last -EPROTO. */
const char *stk_body_error_text(const struct stk_body *body);
/*
 * Stream mode: remembers why no more of the body comes (a negative errno), for the answer to an
 * application that gives up over it; and says that answer: its status, 0 when nothing went wrong.
 */
void stk_body_set_fault(struct stk_body *body, int error);
unsigned stk_body_fault(const struct stk_body *body, const char **ret_text) STK_MUST_CHECK;
/* Whether fewer than `rate` bytes a second have come since it began `grace` ms ago or longer. */
bool stk_body_is_too_slow(const struct stk_body *body, int64_t rate, stk_msec now, stk_msec grace);
/* Length of a complete body, else -1. */
int64_t stk_body_length(const struct stk_body *body);

/* Reading; as the services of app/request.h, but 0 bytes with PARTIAL mean: receive more first. */
int stk_body_peek(struct stk_body *body, struct stk_body_view *ret_view) STK_MUST_CHECK;
void stk_body_skip(struct stk_body *body, size_t len);
ssize_t stk_body_copy(struct stk_body *body, char *dst, size_t len) STK_MUST_CHECK;
/* Whether all bytes that have come were read. */
bool stk_body_is_drained(const struct stk_body *body);
