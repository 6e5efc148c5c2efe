/*
 * FastCGI on a connection: records become requests (stk_proto_parse calls here), and what a request
 * is answered becomes records below everything that makes responses.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "base/macros.h"
#include "base/span.h"
#include "serve/conn.h"
#include "serve/request.h"
#include "wire/http1.h"

struct stk_fastcgi_replies;

/*
 * Reads the head of a request at buf[*off..len) into t->head; as stk_proto_parse. Records that are
 * no part of it are answered and left behind *off. A request whose body is known to be empty has
 * the record that says so counted to its head.
 */
enum stk_http1_result stk_fcgi_parse(struct stk_conn *conn, struct stk_serve_thread *t, char *buf,
                                     size_t len, size_t *off) STK_MUST_CHECK;

/* Whether only what follows the head tells if there is a body: then another may not be. */
static inline bool stk_fcgi_is_open(const struct stk_head *head)
{
    return head->records && (!head->has_content_length || head->content_length == 0);
}

/*
 * The body, if all of it lies at the start of data, and is as long as its head says: the bytes that
 * its records take, or -1. With `ret_body` it is joined within data, which are no records any
 * longer then.
 */
int64_t stk_fcgi_body_here(const struct stk_conn *conn, const struct stk_head *head, char *data,
                           size_t len, stk_span *ret_body);
/* Sends answers to records that were no part of the request, and empties them. */
void stk_fcgi_reply(struct stk_conn *conn, struct stk_fastcgi_replies *replies);

/* As stk_conn_send, in records of the request conn->fcgi_id; with `end` those that end it, too. */
int stk_fcgi_send(struct stk_conn *conn, struct iovec *iov, int iovcnt, bool end) STK_MUST_CHECK;
/*
 * Sends what the thread's buffer holds of the response, and its end if the response is whole: what
 * follows in the buffer belongs to another request. Without the end the front end knows that the
 * response was cut, and the connection has to be closed: rq->keep_alive is false then.
 */
void stk_fcgi_end_slow(struct stk_serve_request *rq);

static inline void stk_fcgi_end(struct stk_serve_request *rq)
{
    if (stk_unlikely(rq->conn->fcgi_id != 0))
        stk_fcgi_end_slow(rq);
}

/* Ends a request that the front end has aborted before it was complete; false: it is gone. */
bool stk_fcgi_end_aborted(struct stk_conn *conn);
/* Whether the front end has sent that it wants no answer any more. */
bool stk_fcgi_is_aborted(const struct stk_conn *conn);
