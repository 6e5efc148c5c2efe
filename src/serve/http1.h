/* The HTTP/1 state machine of a connection. */
#pragma once

#include <stddef.h>

#include "base/time.h"
#include "loop/lead.h"
#include "serve/server.h"

struct stk_conn;
struct stk_head;
struct stk_serve_request;

enum {
    STK_HTTP1_RATE_GRACE_MS = 10 * 1000, /* body-min-rate counts from here on */
    STK_HTTP1_LINGER_BYTES = 32 * 1024,  /* a larger response may not leave at once */
};

/* Input on a connection in state IDLE, HEAD or BODY; by the owner of the loop. */
void stk_http1_readable(struct stk_conn *conn, struct stk_lead_thread *thread);
/* Answers 400, in plain HTTP, to a client whose first bytes are not what its address takes, and
 * closes; by the owner of the loop. */
void stk_http1_refuse_bytes(struct stk_conn *conn, struct stk_lead_thread *thread, const char *text,
                            enum stk_close_reason reason);
/* Runs the complete request that a busy connection keeps; by a thread of the application. */
void stk_http1_job(struct stk_job *job, struct stk_lead_thread *thread);
/* Answers it 503 instead; by the owner of the loop, when no thread has begun it. */
void stk_http1_refuse_job(struct stk_job *job, struct stk_lead_thread *thread);
/* Serves a connection of another worker whose first len bytes are in the thread's read buffer; by
 * the owner of the loop. */
void stk_http1_import(struct stk_conn *conn, struct stk_lead_thread *thread, size_t len);
/* The queued output of state DRAIN has left; by the owner of the loop. */
void stk_http1_drained(struct stk_conn *conn, struct stk_lead_thread *thread);
/* The deadline of state HEAD or BODY is over; by the owner of the loop. */
void stk_http1_timed_out(struct stk_conn *conn, struct stk_lead_thread *thread);
/*
 * Answers 504 to a request that a job has kept for too long, without the application; by the
 * stand-by, which has withdrawn the job.
 */
void stk_http1_job_expired(struct stk_job *job, struct stk_lead_thread *thread);
/*
 * The end of a detached request, whose output has been sent or queued: the connection is merely
 * busy. By the thread that drives the event loop; the request's thread has to be that thread.
 */
void stk_http1_finish(struct stk_serve_request *rq, struct stk_lead_thread *thread);
/* Keeps the bytes behind a request that has just been detached. */
void stk_http1_keep_rest(struct stk_conn *conn, const char *rest, size_t len);
/* The same behind an answer: the next request comes in a later turn, and what the thread's buffer
 * holds leaves. */
void stk_http1_yield(struct stk_conn *conn, struct stk_lead_thread *thread, const char *rest,
                     size_t len);
/* Counts a response, and writes it to the access log. */
void stk_http1_account(struct stk_serve_request *rq);
/* Sends 100 Continue once, if the client waits for it; earlier answers have to have left. */
void stk_http1_continue(struct stk_conn *conn, const struct stk_head *head);
