/* TLS of connections: the handshake as a state of its own, and what requests know of it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct stk_conn;
struct stk_lead_thread;
struct stk_serve_request;
struct stk_request;
struct stk_server;
struct stk_tls_store;
struct stk_tls_view;

enum { STK_SECURE_VARS = 10 }; /* that a request may get of it */

/*
 * A new connection that speaks TLS; by the owner of the loop, not busy. `early`: bytes of it that
 * have been read already. The connection may be closed when it returns.
 */
void stk_secure_begin(struct stk_conn *conn, struct stk_lead_thread *thread, const void *early,
                      size_t len);
/* Something can be read or sent in state HANDSHAKE; by the owner of the loop. */
void stk_secure_go_on(struct stk_conn *conn, struct stk_lead_thread *thread);
/* Tells a request of a connection with TLS what was agreed on: scheme and variables. */
void stk_secure_apply(struct stk_serve_request *rq);
/* As stk_request_ops.tls. */
bool stk_secure_view(const struct stk_request *req, struct stk_tls_view *ret_view);
/* Says close_notify where the end of the connection is an end and no failure. */
void stk_secure_end(struct stk_conn *conn);
/* Other certificates for connections that come from now on; takes the store. By the owner of the
 * loop. */
void stk_secure_set_store(struct stk_server *server, struct stk_tls_store *store);
