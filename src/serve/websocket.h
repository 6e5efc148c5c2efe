/*
 * WebSockets (RFC 6455): a detached request whose connection speaks frames from its acceptance on.
 *
 * It lives with the connection, so that the closing handshake can be completed after the request
 * has ended. Until then everything here is under the mutex of the detached requests
 * (serve/detach.h); whoever owns the loop handles events and time, the stand-by too: a client gets
 * its pongs although the application computes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "app/request.h"
#include "base/macros.h"
#include "base/time.h"

struct stk_conn;
struct stk_detached;
struct stk_head;
struct stk_lead_thread;
struct stk_serve_request;
struct stk_server;
struct stk_websocket;
struct stk_ws_shared;

/*
 * Looks whether the request asks for a WebSocket, and says so in it. False: it does so wrongly, and
 * has been answered.
 */
bool stk_websocket_check(struct stk_serve_request *rq);

/* The services of app/request.h. */
int stk_websocket_accept(struct stk_request *req, stk_span subprotocol,
                         const struct stk_var *fields, size_t nfields, size_t *ret_bad);
int stk_websocket_send(struct stk_request *req, const char *data, size_t len, bool text);
int stk_websocket_peek(struct stk_request *req, struct stk_ws_view *ret_view);
void stk_websocket_skip(struct stk_request *req);
void stk_websocket_wait(struct stk_request *req);
int stk_websocket_close(struct stk_request *req, unsigned code, stk_span reason);

/* What follows: mutex held, of a connection with conn->ws and conn->detached. */

/* An event, by the owner of the loop. The request may have ended when it returns. True: it has left
 * a message to be shown. */
bool stk_websocket_on_event(struct stk_conn *conn, struct stk_lead_thread *thread, uint32_t events);
/* The epoll events that it needs, but for output. */
uint32_t stk_websocket_events(const struct stk_conn *conn);
/* Looks at the time; milliseconds until the next look, at most `most`. */
stk_msec stk_websocket_on_timer(struct stk_conn *conn, stk_msec most);
/* Whether peek would not say -EAGAIN. */
bool stk_websocket_has_input(const struct stk_conn *conn);
/* The worker drains: tells the client, and the application that it is the end. */
void stk_websocket_drain(struct stk_conn *conn, bool restart);
/* The request ends: closes what is still open, with 1000, or 1011 where it has failed. */
void stk_websocket_end(struct stk_serve_request *rq);

/* Without the mutex. */
/* Shows the message to the application that an event has left, `d` being the request then. */
void stk_websocket_show(struct stk_conn *conn, struct stk_detached *d,
                        struct stk_lead_thread *thread);
/* As struct stk_host_engine says. */
void stk_websocket_gather(struct stk_server *server, bool on);
/* Whether something is held; from any thread. */
bool stk_websocket_has_held(const struct stk_server *server);
/* Sends what has been held for a while, by the stand-by; true: something still is. */
bool stk_websocket_flush_held(struct stk_server *server, stk_nsec now);
/* Bytes that came behind the request are kept by the connection now, or there was no memory. */
void stk_websocket_take_kept(struct stk_conn *conn);
/* After the request's end, by the owner of the loop. Has the connection linger for what closes it
 * on the client's side; false: it has gone. */
bool stk_websocket_begin_linger(struct stk_conn *conn);
/* Receives, as recv(), what does not count any more; 0: the client has closed. */
ssize_t stk_websocket_linger(struct stk_conn *conn, char *buf, size_t len);
/* Accepts NULL; returns NULL. */
struct stk_websocket *stk_websocket_free(struct stk_websocket *ws);
struct stk_ws_shared *stk_ws_shared_free(struct stk_ws_shared *shared);
