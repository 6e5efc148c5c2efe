/*
 * Connections between two servers, in a hot upgrade: what is between two requests goes to the new
 * one as a descriptor. What the client sends meanwhile waits in the socket.
 */
#pragma once

#include <stdbool.h>

#include "base/macros.h"

struct stk_conn;
struct stk_lead_thread;
struct stk_server;

/* While draining: whether the new server takes connections. From any thread. */
bool stk_carry_is_on(const struct stk_server *server);
/* Whether a connection that is not busy may go: no byte of it has been read that is not answered.
 */
bool stk_carry_may(const struct stk_conn *conn);
/* While draining: whether a connection can be given to nobody: one with TLS, or, to a new server,
 * with a PROXY header, of which a descriptor does not tell. From any thread. */
bool stk_carry_stays(const struct stk_conn *conn);
/*
 * Gives a busy connection to the new server, and forgets it; by the owner of the loop. False: it is
 * the caller's still: to be released.
 */
bool stk_carry_out(struct stk_conn *conn, struct stk_lead_thread *thread) STK_MUST_CHECK;
/*
 * Serves a connection of the old server; the descriptor is ours from here on. `served`: it has had
 * a response. By the owner of the loop. 0, or a negative errno and the connection is closed.
 */
int stk_carry_in(struct stk_server *server, int fd, bool served) STK_MUST_CHECK;
