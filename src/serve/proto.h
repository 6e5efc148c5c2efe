/*
 * The protocol of a connection, and the one place where its bytes become a request head. All that
 * comes behind the head (limits, body, application, response) is the same for every protocol.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "serve/conn.h"
#include "serve/request.h"
#include "serve/server.h"
#include "wire/fastcgi.h"
#include "wire/gateway.h"
#include "wire/http1.h"
#include "wire/proto.h"

/* A thread's room for the request of a gateway protocol. */
struct stk_proto_gateway {
    struct stk_gateway vars;
    char *scratch;
    uint8_t proto; /* of the packet that is held, and its id */
    uint16_t fcgi_id;
    struct stk_peer client; /* the last one that a front end told of */
    bool trusted;           /* it is a trusted proxy */
    /* What the request that is held began as; of an endpoint and a head of this serial, or of none
     * (NULL). */
    struct stk_serve_request begun;
    const struct stk_endpoint *begun_endpoint;
    uint64_t begun_serial;
    struct stk_fastcgi_replies replies;
};

/* Sets the protocol that a listener's scheme stands for. */
void stk_proto_set_scheme(struct stk_endpoint *endpoint, const char *scheme);

struct stk_proto_gateway *stk_proto_gateway_new(const struct stk_http1_limits *limits)
    __attribute__((returns_nonnull));
/* Accepts NULL; returns NULL. */
struct stk_proto_gateway *stk_proto_gateway_free(struct stk_proto_gateway *gateway);

/* As stk_proto_parse, of what is not known to be HTTP/1. */
enum stk_http1_result stk_proto_parse_other(struct stk_conn *conn, struct stk_serve_thread *t,
                                            char *buf, size_t len, size_t *off);
/*
 * Parses the head at buf[*off..len) into t->head, whose `len` then counts bytes of buf; what a
 * gateway protocol tells besides lies in t->gateway until the next call. *off moves behind what was
 * no part of a request (records of FastCGI, which are answered). By the thread that has the
 * connection.
 */
static inline enum stk_http1_result stk_proto_parse(struct stk_conn *conn,
                                                    struct stk_serve_thread *t, char *buf,
                                                    size_t len, size_t *off)
{
    if (stk_likely(conn->proto == STK_PROTO_HTTP1))
        return stk_http1_parse_memo(&t->memo, &t->head, buf + *off, len - *off,
                                    &conn->server->limits);
    return stk_proto_parse_other(conn, t, buf, len, off);
}

/*
 * Tells a request what its front end said: client, scheme, mount point, variables. Whether what the
 * client's own fields say of proxies before the front end is to be believed: if it is a trusted
 * proxy itself.
 */
bool stk_proto_apply(struct stk_serve_request *rq);
/* Begins a request as the one before that differed in its client's port at most; false: it has to
 * be begun anew. */
bool stk_proto_begin_again(struct stk_serve_request *rq, struct stk_conn *conn,
                           struct stk_serve_thread *t, const struct stk_head *head);
/* Keeps what such requests have in common, of one that has been begun. */
void stk_proto_note_begun(const struct stk_serve_request *rq);
/* Whether a connection whose protocol was told by its first byte may turn out to speak TLS. */
bool stk_proto_takes_tls(const struct stk_conn *conn);
/* Says in the log, now and then, why a request of a gateway protocol was refused. */
void stk_proto_log_refusal(struct stk_conn *conn, enum stk_http1_result result, const char *buf,
                           size_t len);
