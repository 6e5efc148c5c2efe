/* Connections that begin with a PROXY header (wire/proxy.h): who their client is. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"

struct stk_conn;
struct stk_lead_thread;
struct stk_proxied;
struct stk_serve_request;

/*
 * A new connection of a listener with proxy-protocol; by the owner of the loop, not busy. It is
 * given on to TLS or HTTP behind its header, or without one where that is allowed. The connection
 * may be closed when it returns.
 */
void stk_proxied_begin(struct stk_conn *conn, struct stk_lead_thread *thread);
/* The same, but nothing is read yet: for a thread that serves nothing. */
void stk_proxied_await(struct stk_conn *conn, struct stk_lead_thread *thread);
/* Something can be read in state PREFACE; by the owner of the loop. */
void stk_proxied_readable(struct stk_conn *conn, struct stk_lead_thread *thread);
/* Tells a request what the header said: scheme and variables. Its address is the connection's. */
void stk_proxied_apply(struct stk_serve_request *rq);
/*
 * If bytes of a first request are such a header all the same: says in the log, once in a while, why
 * it does not count.
 */
bool stk_proxied_log_unexpected(struct stk_conn *conn, const char *buf, size_t len);

/* Bytes of the header of a connection that moves to another worker; 0: it has none. */
size_t stk_proxied_size(const struct stk_conn *conn);
/* Writes them. */
void stk_proxied_save(const struct stk_conn *conn, char *to);
/* The other worker's side: the header stands at the start of buf. Its length; 0: no memory. */
size_t stk_proxied_restore(struct stk_conn *conn, const char *buf, size_t len) STK_MUST_CHECK;
/* Accepts NULL; returns NULL. */
struct stk_proxied *stk_proxied_free(struct stk_proxied *proxied);
