/*
 * One request on a connection, as the server sees it: what the application host gets (struct
 * stk_request) and the state of its response. It lives on the stack of the thread that runs it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "app/request.h"
#include "base/macros.h"

struct stk_conn;
struct stk_serve_thread;
struct stk_body;
struct stk_coder;
struct stk_site_rule;
struct stk_uroute_state;

struct stk_serve_request {
    struct stk_request base; /* first: the services get a pointer to it */
    struct stk_conn *conn;
    struct stk_serve_thread *t;

    /* The body: whole in memory (body_ptr, body_left), or an object. */
    const char *body_ptr;
    size_t body_left;
    struct stk_body *body;
    struct stk_coder *coder; /* of a compressed response, serve/compress.h */

    const stk_span *trailer; /* what ends a chunked body, serve/response_more.c; or NULL */

    const struct stk_site_rule *rule; /* the route with fields for the response, or NULL */
    struct stk_uroute_state *uroute;  /* what uWSGI's rules say of it, or NULL */

    /* The response. */
    uint64_t body_bytes; /* sent or queued, without framing */
    uint64_t remaining;  /* of the announced Content-Length */
    stk_nsec last_block; /* when the last block was sent, for gathering */
    stk_msec due;        /* by a rule or the application, monotonic clock; 0: neither has set one */
    uint32_t head_end;   /* in the thread's read buffer */
    uint32_t head_bytes; /* of the response, with server->counts_heads */
    uint16_t head_fields;
    uint16_t status;
    uint8_t fate; /* enum stk_fate, under t->interfere_mutex */
    bool of_app;  /* the application answers it, or has been asked to */
    bool started, committed, ended, failed;
    bool truncated;  /* it failed behind its head */
    bool has_length; /* Content-Length is set, by the application or by us */
    bool has_date, has_server;
    bool chunked;
    bool no_body; /* HEAD, 204, 304: framing fields but no body */
    bool keep_alive;
    bool detached;            /* it is part of a struct stk_detached */
    bool streamed;            /* more than one block */
    bool gone;                /* the client is */
    bool cut;                 /* bytes beyond Content-Length were dropped */
    bool file;                /* a part of the body came by sendfile */
    bool log_this;            /* the application wants it in the access log */
    stk_msec body_wait_since; /* stream mode: when the client fell silent; 0: it did not */
};

extern const struct stk_request_ops stk_serve_request_ops;

static inline struct stk_serve_request *stk_serve_request_of(struct stk_request *req)
{
    return (struct stk_serve_request *)(void *)req;
}

/* request.c: services that are the same for detached requests. */
size_t stk_request_get_logvar(const struct stk_request *req, stk_span name, char *dst, size_t size);
void stk_request_log_this(struct stk_request *req);

/* response.c: the services of a response. */
int stk_response_start(struct stk_request *req, unsigned status, stk_span reason);
int stk_response_header(struct stk_request *req, stk_span name, stk_span value);
bool stk_response_head_save(const struct stk_request *req, struct stk_response_head *ret_head);
int stk_response_head_load(struct stk_request *req, const struct stk_response_head *head);
int stk_response_write(struct stk_request *req, const char *data, size_t len, unsigned flags);
int stk_response_sendfile(struct stk_request *req, int fd, int64_t off, uint64_t len,
                          unsigned flags);
/* response_more.c */
int stk_response_trailers(struct stk_request *req, const struct stk_var *fields, size_t nfields,
                          size_t *ret_bad);
int stk_response_early_hint(struct stk_request *req, const stk_span *links, size_t nlinks);
bool stk_response_is_committed(const struct stk_request *req);
void stk_response_fail(struct stk_request *req);
/* Ends a response that its application left open. */
void stk_response_end(struct stk_serve_request *rq);
/* A whole plain-text response from the server itself. */
void stk_response_plain(struct stk_serve_request *rq, unsigned status, const char *text);

/*
 * response.c, for those who make blocks of their own: completes the head, `length` being that of
 * the whole body or -1 (0, or -EPIPE and the request is gone); sends or gathers a framed block (as
 * stk_gather_send); sends one by the stand-by, for bytes that it has gathered (as stk_conn_send;
 * the bytes are added to *sent); notes that the last byte has been handed over.
 */
int stk_response_commit(struct stk_serve_request *rq, int64_t length) STK_MUST_CHECK;
int stk_response_block(struct stk_serve_request *rq, const char *data, size_t len, unsigned flags)
    STK_MUST_CHECK;
int stk_response_coded(struct stk_conn *conn, const char *data, size_t len, bool chunked,
                       uint64_t *sent) STK_MUST_CHECK;
void stk_response_set_ended(struct stk_serve_request *rq);

/* gather.c: bytes in t->out that the stand-by may send. */
/* Sends all of t->out, with or without a block behind it; 0, -EPIPE, -EAGAIN (nothing taken),
 * -errno. */
int stk_gather_send(struct stk_serve_thread *t, struct stk_conn *conn, struct iovec *more, int n)
    STK_MUST_CHECK;
/* Makes room for, and appends, bytes; sends when the buffer is full. As stk_gather_send. */
int stk_gather_append(struct stk_serve_thread *t, struct stk_conn *conn, struct iovec *iov, int n)
    STK_MUST_CHECK;
/* Lets the stand-by send what is in t->out if it lies for a tick; and takes that back. */
void stk_gather_begin(struct stk_serve_thread *t, struct stk_conn *conn);
void stk_gather_end(struct stk_serve_thread *t);
/* As stk_gather_begin, for bytes inside an encoder. */
void stk_gather_begin_coder(struct stk_serve_thread *t, struct stk_conn *conn,
                            struct stk_coder *coder);
